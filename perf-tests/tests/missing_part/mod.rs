//! What a test does when a part of the real world is not there: skip loudly, or fail when the run must be whole.

use std::io::Write as _;

/// The part, or `None` after saying on the real standard error why `test` is skipped.
///
/// # Panics
/// With `PUSH_REQUIRE_ALL=1`, so that a green run never hides what it left out.
pub(crate) fn or_skip<T>(test: &str, part: Result<T, String>) -> Option<T> {
    match part {
        Ok(part) => Some(part),
        Err(missing) => {
            assert!(std::env::var_os("PUSH_REQUIRE_ALL").is_none_or(|value| value != "1"), "required, and {missing}");
            // `eprintln!` would be swallowed with the output of a test that passes.
            let _ = writeln!(std::io::stderr(), "skipped {test}: {missing}");
            None
        }
    }
}
