//! The signals that end a program.

use std::future::Future;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Listens for SIGTERM, which service managers stop with, and SIGINT, which terminals do.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from here on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> anyhow::Result<Self> {
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
    pub async fn guard<T>(
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
