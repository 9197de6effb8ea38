//! `coracle-agent`: a node as a process of its own. Called as a supervisor, it is a pod's first process and nothing else.

use std::process::ExitCode;

use coracle_agent::MemberArgs;
use coracle_process::Program;

fn main() -> ExitCode {
    // Before anything else: a supervisor has one thread and nothing open.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == coracle_runtime::SUPERVISE) {
        return coracle_runtime::supervise(arguments);
    }
    let about = "One node of a Coracle cluster";
    let program = Program { name: "coracle-agent", version: env!("CARGO_PKG_VERSION"), about };
    coracle_process::run(program, |args: MemberArgs, shutdown| coracle_agent::run_member(args, shutdown))
}
