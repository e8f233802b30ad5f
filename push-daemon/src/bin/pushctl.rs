//! `pushctl`: see and change what the kernel does for the edge. All of it is in the library's `pushctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    push_daemon::pushctl::main()
}
