//! A program from its command line to its exit code.

use std::{future::Future, process::ExitCode, time::Duration};

use clap::{CommandFactory, FromArgMatches};
use tokio_util::sync::CancellationToken;

use crate::{Signals, logging};

/// How long threads that still read or sync files have at the end; what they hold is safe to lose by then.
const GOODBYE: Duration = Duration::from_millis(500);

/// The command line asks for something that cannot be: exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(pub String);

/// What a program says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// `coracle-scheduler`.
    pub name: &'static str,
    /// `0.1.0`.
    pub version: &'static str,
    /// One line.
    pub about: &'static str,
}

/// A command line: the program's own flags, and those about logs.
#[derive(clap::Parser)]
#[command(max_term_width = 110)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    own: A,
    #[command(flatten)]
    logging: logging::Args,
}

/// Runs a program that has no commands of its own: reads its flags, sends its logs to stderr, and works until it is done
/// or told to end. Says what went wrong in one sentence on stderr.
pub fn run<A, F>(program: Program, work: impl FnOnce(A, CancellationToken) -> F) -> ExitCode
where
    A: clap::Args,
    F: Future<Output = anyhow::Result<()>>,
{
    let command = Line::<A>::command().name(program.name).version(program.version).about(program.about);
    let read = command.try_get_matches().and_then(|matches| Line::<A>::from_arg_matches(&matches));
    let line = match read {
        Ok(line) => line,
        Err(error) => {
            // Clap's text goes where clap sends it; if that is closed nobody is left to tell.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match work_to_the_end(line, work) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(program.name, &error),
    }
}

fn work_to_the_end<A, F>(line: Line<A>, work: impl FnOnce(A, CancellationToken) -> F) -> anyhow::Result<()>
where
    A: clap::Args,
    F: Future<Output = anyhow::Result<()>>,
{
    logging::install(&line.logging)?;
    // TLS of clients and servers alike; a second provider never gets in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        let signals = Signals::new()?;
        let shutdown = CancellationToken::new();
        signals.guard(&shutdown, work(line.own, shutdown.clone())).await
    });
    runtime.shutdown_timeout(GOODBYE);
    result
}

/// Says what went wrong in one sentence, with its causes, on stderr; the exit code is 2 for [`WrongUse`], else 1.
#[must_use]
pub fn fail(program: &str, error: &anyhow::Error) -> ExitCode {
    use std::io::Write;
    // If stderr is closed nobody is left to tell.
    let _ = writeln!(std::io::stderr(), "{program}: {error:#}");
    ExitCode::from(if error.is::<WrongUse>() { 2 } else { 1 })
}
