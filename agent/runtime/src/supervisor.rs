//! The supervisor: the process that is a pod's parent.

use std::{ffi::OsString, process::ExitCode};

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
pub fn supervise(args: impl Iterator<Item = OsString>) -> ExitCode {
    tracing::error!(arguments = args.count(), "no sandbox");
    ExitCode::FAILURE
}
