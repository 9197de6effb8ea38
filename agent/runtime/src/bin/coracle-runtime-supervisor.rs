//! The supervisor alone, as small as it gets: for tests of the runtime, and for whoever embeds it in a program whose own
//! `main` cannot begin with [`coracle_runtime::supervise`].

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(first) if first == coracle_runtime::SUPERVISE => coracle_runtime::supervise(args),
        _ => ExitCode::from(2),
    }
}
