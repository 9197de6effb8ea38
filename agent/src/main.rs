//! The node agent by itself. Called as a supervisor, it is a pod's first process and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: a supervisor has one thread and nothing open.
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == coracle_runtime::SUPERVISE) {
        return coracle_runtime::supervise(args);
    }
    ExitCode::from(2)
}
