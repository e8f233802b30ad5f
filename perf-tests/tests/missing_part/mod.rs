//! What a test does when a part of the real world is not there: skip loudly, or fail when the run must be whole.

use std::io::Write as _;

/// Whose presence a run may insist on.
#[derive(Clone, Copy)]
#[allow(dead_code)] // Each test file has need of one.
pub(crate) enum Kind {
    /// Root, namespaces and the compiled eBPF object: `PUSH_REQUIRE_KERNEL=1`.
    Kernel,
    /// Browser, third-party clients, systemd's own tools: `PUSH_REQUIRE_ALL=1`.
    Peers,
}

/// The part, or `None` after saying on the real standard error why `test` is skipped.
///
/// # Panics
/// When the run insists on it, so that a green one never hides what it left out.
pub(crate) fn or_skip<T>(kind: Kind, test: &str, part: Result<T, String>) -> Option<T> {
    let insists = match kind {
        Kind::Kernel => "PUSH_REQUIRE_KERNEL",
        Kind::Peers => "PUSH_REQUIRE_ALL",
    };
    match part {
        Ok(part) => Some(part),
        Err(missing) => {
            assert!(std::env::var_os(insists).is_none_or(|value| value != "1"), "required by {insists}: {missing}");
            // `eprintln!` would be swallowed with the output of a test that passes. One write, so that the line stays whole.
            let _ = std::io::stderr().write_all(format!("skipped: {test}: {missing}\n").as_bytes());
            None
        }
    }
}
