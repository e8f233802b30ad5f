//! What may not be opened to the world by accident.
//!
//! It judges addresses only; whether a firewall stands before them it cannot know.

use settings::{Secret, SettingsError, Source};

use super::{AdmissionMode, Config};

impl Config {
    /// Admission is open, and nobody has said that other hosts may come in all the same.
    pub fn is_closed_to_others(&self) -> bool {
        self.admission.mode == AdmissionMode::Open && !self.admission.allow_open
    }
}

/// An address that is not loopback needs admission and secrets, or the operator's word that it shall do without.
pub(super) fn check(config: &Config, source: &Source) -> Result<(), SettingsError> {
    if let Some(empty) = config.http.api_keys.iter().position(Secret::is_empty) {
        let what = "this key is empty, so that anybody has it; remove it";
        return Err(source.wrong(&format!("http.api_keys.{empty}"), what));
    }
    if config.admission.allow_open {
        return Ok(());
    }
    let open =
        config.is_closed_to_others().then_some("admission is open (set [admission] mode = \"token\" and a secret)");
    let http = [config.http.api_keys.is_empty().then_some("publishers need no key (set [http] api_keys)"), open];
    let trunk = [config.trunk.secret.is_empty().then_some("edges need no secret (set [trunk] secret)"), open];
    for (section, listen, reasons) in [("http", config.http.listen, http), ("trunk", config.trunk.listen, trunk)] {
        let reasons: Vec<&str> = reasons.into_iter().flatten().collect();
        if listen.0.ip().is_loopback() || reasons.is_empty() {
            continue;
        }
        let what = format!(
            "[{section}] listen = \"{}\" can be reached from other hosts, and {}; \
             or set [admission] allow_open = true if that is meant",
            listen.0,
            reasons.join(", and ")
        );
        return Err(source.wrong(&format!("{section}.listen"), what));
    }
    Ok(())
}
