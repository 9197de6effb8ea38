//! The verbs: one file each.

pub(crate) mod agent;
pub(crate) mod bench;
pub(crate) mod down;
pub(crate) mod image;
pub(crate) mod server;
pub(crate) mod token;
pub(crate) mod up;

use std::future::Future;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{Cli, Verb},
    logging,
};

/// The command line asks for something that cannot be: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUse(pub(crate) String);

/// Runs a verb to its end.
pub(crate) fn run(cli: Cli) -> anyhow::Result<()> {
    logging::install(&cli.logging)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("coracle").build()?;
    // TLS of clients and servers alike; a second provider never gets in.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = runtime.block_on(async {
        match cli.command {
            Verb::Up(args) => up::run(args).await,
            Verb::Server(args) => server::run(args).await,
            Verb::Agent(args) => agent::run(args).await,
            Verb::Down(args) => down::run(args).await,
            Verb::Token(args) => token::run(args).await,
            Verb::Image(args) => image::run(args).await,
            Verb::Bench(args) => bench::run(args).await,
        }
    });
    // Threads that still read or sync files have had their time; what they hold is safe to lose by now.
    runtime.shutdown_timeout(std::time::Duration::from_millis(500));
    result
}

/// The signals that end a running command.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Runs `work` to its end. The first signal cancels `shutdown`, so that it ends by itself; a second one ends it at
    /// once.
    ///
    /// # Errors
    /// The work's own, or that it was ended by a second signal.
    pub(crate) async fn guard<T>(
        mut self,
        shutdown: &CancellationToken,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            () = self.next() => shutdown.cancel(),
        }
        tokio::select! {
            result = &mut work => result,
            () = self.next() => anyhow::bail!("stopped at once by a second signal; `coracle down` clears up what is left"),
        }
    }
}
