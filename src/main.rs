//! `coracle`: one binary that is a whole cluster, or any part of one.
//!
//! It puts the rooms together and holds no logic of theirs: `commands/` has one file a verb, `cli` says what the verbs
//! take, `components` starts what a verb runs and stops it in order.

mod bench;
mod cli;
mod commands;
mod components;
mod instance;
mod kubeconfig;
mod why;

use std::process::ExitCode;

use coracle_process::fail;

fn main() -> ExitCode {
    // The supervisor of a pod is this same binary; it must become one before any thread exists.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == coracle_runtime::SUPERVISE) {
        return coracle_runtime::supervise(arguments);
    }
    let cli = match cli::Cli::read() {
        Ok(cli) => cli,
        Err(cli::Usage::Shown(error)) => {
            // Clap's text goes where clap sends it; if that is closed nobody is left to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
        Err(cli::Usage::Config(error)) => return fail("coracle", &error),
    };
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("coracle", &error),
    }
}
