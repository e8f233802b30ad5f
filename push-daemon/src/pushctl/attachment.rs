//! `pushctl attach` and `pushctl detach`: the filter without the daemon, and the way out.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Answer, Failure, arguments::AttachArguments, report};
use crate::kernel::{Arrival, KernelConfig, KernelError, KernelPlane, status, take_down};

pub(super) fn attach(arguments: AttachArguments, pin_root: PathBuf) -> Result<Answer, Failure> {
    let config = KernelConfig {
        object: arguments.object,
        pin_root,
        protected_ports: arguments.protect,
        protected_addresses: arguments.protect_address,
        fragments: arguments.fragments,
        management: arguments.management,
        observe: arguments.observe,
        ..KernelConfig::new(arguments.interface, arguments.mode)
    };
    let plane = KernelPlane::bring_up(&config)?;
    let status = plane.status()?;
    let came = match plane.arrival() {
        Arrival::Fresh => "is attached, with no rules yet",
        Arrival::TablesAdopted => "is attached, with the rules that were pinned",
        Arrival::Adopted => "was in force already; the rules stand",
        Arrival::ProgramSwapped => "was in force already; its program was swapped for this one, the rules stand",
        Arrival::Moved => "was moved here; the rules stand",
    };
    let mut value = serde_json::to_value(&status)?;
    value["arrival"] = serde_json::to_value(plane.arrival())?;
    Answer::new(format!("the filter {came}\n{}", report::status_text(&status)), value)
}

pub(super) fn detach(pin_root: &Path, dry_run: bool) -> Result<Answer, Failure> {
    if dry_run {
        return would_detach(pin_root);
    }
    let removed = take_down(pin_root)?;
    let said = match removed {
        0 => format!("nothing is pinned under {}\n", pin_root.display()),
        _ => format!("the filter is detached, and {removed} pins under {} are gone\n", pin_root.display()),
    };
    Answer::new(said, json!({ "removed_pins": removed, "dry_run": false }))
}

fn would_detach(pin_root: &Path) -> Result<Answer, Failure> {
    match status(pin_root) {
        Ok(status) => {
            let said = format!("would detach the filter and forget its rules:\n{}", report::status_text(&status));
            Answer::new(said, json!({ "would_detach": status, "dry_run": true }))
        }
        // Detaching works on any layout, so for a dry run these are answers.
        Err(error @ (KernelError::NoPins { .. } | KernelError::OtherLayout { .. })) => Answer::new(
            format!("{error}\n"),
            json!({ "would_detach": null, "note": error.to_string(), "dry_run": true }),
        ),
        Err(error) => Err(error.into()),
    }
}
