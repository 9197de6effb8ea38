//! Naming the step at which starting a process failed.

use std::io;

use nix::errno::Errno;

use crate::error::StartError;

/// Turns the kernel's error into a [`StartError`] that says what was being done.
pub(crate) trait AtStep<T> {
    /// `step` is one word for machines, `what` a clause for people.
    fn at(self, step: &'static str, what: impl FnOnce() -> String) -> Result<T, StartError>;
}

impl<T> AtStep<T> for io::Result<T> {
    fn at(self, step: &'static str, what: impl FnOnce() -> String) -> Result<T, StartError> {
        self.map_err(|error| StartError {
            step: step.to_owned(),
            message: format!("{}: {}", what(), describe(&error)),
            errno: error.raw_os_error(),
        })
    }
}

impl<T> AtStep<T> for nix::Result<T> {
    fn at(self, step: &'static str, what: impl FnOnce() -> String) -> Result<T, StartError> {
        self.map_err(io::Error::from).at(step, what)
    }
}

/// An error of a step that no system call made.
pub(crate) fn refuse(step: &'static str, message: impl Into<String>) -> StartError {
    StartError { step: step.to_owned(), message: message.into(), errno: None }
}

/// The kernel's words, beginning small as the other container runtimes write them (`no such file or directory`).
pub(crate) fn describe(error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    let words = Errno::from_raw(number).desc();
    let mut letters = words.chars();
    match (letters.next(), letters.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain([second]).chain(letters).collect()
        }
        _ => words.to_owned(),
    }
}
