//! What may not be opened to the world by accident.
//!
//! It judges addresses only; whether a firewall stands before them it cannot know.

use std::path::Path;

use super::{AdmissionMode, Config, ConfigError, report};

/// An address that is not loopback needs admission and secrets, or the operator's word that it shall do without.
pub(super) fn check(config: &Config, path: &Path, text: &str) -> Result<(), ConfigError> {
    if let Some(empty) = config.http.api_keys.iter().position(super::Secret::is_empty) {
        return Err(ConfigError::Together(format!(
            "{}: [http] api_keys: key number {} is empty, so that anybody has it; remove it",
            path.display(),
            empty + 1
        )));
    }
    if config.admission.allow_open {
        return Ok(());
    }
    let open = (*config.admission.mode.get_ref() == AdmissionMode::Open)
        .then_some("admission is open (set [admission] mode = \"token\" and a secret)");
    let http = [config.http.api_keys.is_empty().then_some("publishers need no key (set [http] api_keys)"), open];
    let trunk = [config.trunk.secret.is_empty().then_some("edges need no secret (set [trunk] secret)"), open];
    for (section, listen, reasons) in [("http", &config.http.listen, http), ("trunk", &config.trunk.listen, trunk)] {
        let reasons: Vec<&str> = reasons.into_iter().flatten().collect();
        let address = listen.get_ref().0;
        if address.ip().is_loopback() || reasons.is_empty() {
            continue;
        }
        let message = format!(
            "[{section}] listen = \"{address}\" can be reached from other hosts, and {}; \
             or set [admission] allow_open = true if that is meant",
            reasons.join(", and ")
        );
        return Err(report::at(path, text, listen.span(), message));
    }
    Ok(())
}
