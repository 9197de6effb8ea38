//! The supervisor: the process that is a pod's parent.
//!
//! One thread, one `poll(2)`: what it watches is a few descriptors a container, so nothing is gained by more. It does what it is asked, tells what happened, and decides nothing: restarting is the agent's
//! business. It has no allocator tricks and no tokio; what it keeps is small and bounded by the number of containers.

mod connection;
mod container;
mod exec;
mod log;
mod serve;
mod setup;
mod tap;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// The first argument that makes a program a supervisor, unless [`crate::Config::args`] says otherwise.
pub const SUPERVISE: &str = "supervise";

/// Is the supervisor of a sandbox until it is told to end. `args` is what follows [`crate::Config::args`].
///
/// # Assumptions
/// Called first in `main`: the process has one thread and nothing but the standard descriptors matters to it.
///
/// ```no_run
/// let mut args = std::env::args_os().skip(1);
/// if args.next().is_some_and(|first| first == coracle_runtime::SUPERVISE) {
///     std::process::exit(i32::from(coracle_runtime::supervise(args) != std::process::ExitCode::SUCCESS));
/// }
/// ```
pub fn supervise(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    let Some(directory) = args.next().map(PathBuf::from) else {
        return setup::refuse("the supervisor wants the directory of its sandbox");
    };
    drop(args);
    match setup::detach() {
        Ok(true) => {}
        Ok(false) => return ExitCode::SUCCESS,
        Err(error) => return setup::refuse(&format!("leave the agent's session: {error}")),
    }
    let mut supervisor = match setup::prepare(&directory) {
        Ok(supervisor) => supervisor,
        Err(reason) => return setup::refuse(&reason),
    };
    if setup::announce().is_err() {
        return ExitCode::FAILURE;
    }
    match supervisor.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
