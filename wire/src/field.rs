//! Fixed parts of a format, out of bytes that may not be there yet.

/// The `N` bytes at `at`; `None` when `input` ends before them.
pub(crate) fn field<const N: usize>(input: &[u8], at: usize) -> Option<[u8; N]> {
    input.get(at..at + N)?.try_into().ok()
}
