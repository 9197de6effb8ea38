//! The configuration of issuers, read again when its file changes.
//!
//! What is wrong with a changed file is told in the log and counted, and all stays as it was. How users without
//! credentials are dealt with does not change while the server runs, as in Kubernetes: a file that says otherwise is wrong.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
};

use coracle_process::FileChanges;
use tokio_util::sync::CancellationToken;

use super::config::Config;
use crate::authn::Authenticators;

/// What came of reading the file again, so or so.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    count: AtomicU64,
    last: AtomicI64,
}

impl Outcome {
    fn note(&self, now: i64) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
    }

    /// How often, and when last (seconds since the epoch).
    pub(crate) fn told(&self) -> (u64, i64) {
        (self.count.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed))
    }
}

/// What came of reading the file again.
#[derive(Debug, Default)]
pub(crate) struct Reloads {
    pub(crate) good: Outcome,
    pub(crate) bad: Outcome,
}

impl Authenticators {
    /// Takes over what the file of the configuration says whenever that changes, until `shutdown`. `known` is what has
    /// been read of it.
    pub(crate) async fn follow(&self, file: &Path, known: &Config, shutdown: CancellationToken) {
        let error = tokio::select! {
            () = shutdown.cancelled() => return,
            error = self.take_over(file, known) => error,
        };
        let path = file.display();
        {
            let error = &error as &(dyn std::error::Error + 'static);
            tracing::error!(error, %path, "changes of the authentication configuration are not seen");
        }
        shutdown.cancelled().await;
    }

    /// Takes over one text after the other; ends when changes cannot be seen.
    async fn take_over(&self, file: &Path, known: &Config) -> io::Error {
        let watched = FileChanges::new().and_then(|changes| changes.of_text(file).map(|()| changes));
        let changes = match watched {
            Ok(changes) => changes,
            Err(error) => return error,
        };
        // Of the first text only what it meant is known, so it is read once more: it may have changed by now.
        let mut text = None;
        loop {
            match tokio::fs::read_to_string(file).await {
                // Who replaces a file may take it away first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => self.refused(file, &error.to_string()),
                Ok(now) if text.as_ref() == Some(&now) => {}
                Ok(now) => {
                    match self.reload(&now, known, text.is_none()) {
                        Ok(true) => tracing::info!(path = %file.display(), "authentication configuration read again"),
                        Ok(false) => {}
                        Err(why) => self.refused(file, &why),
                    }
                    text = Some(now);
                }
            }
            if let Err(error) = changes.next().await {
                return error;
            }
        }
    }

    fn refused(&self, file: &Path, why: &str) {
        self.reloads().bad.note((self.clock)().as_second());
        tracing::warn!(path = %file.display(), why, "the changed authentication configuration is not taken over");
    }

    /// Takes over a text; whether it said anything new. What the first text said is known.
    fn reload(&self, text: &str, known: &Config, is_first: bool) -> Result<bool, String> {
        let config = Config::read(text)?;
        if config.anonymous != known.anonymous {
            return Err("anonymous: Forbidden: changed from initial configuration file".to_owned());
        }
        if is_first && config.issuers == known.issuers {
            return Ok(false);
        }
        self.exchange_issuers(config.issuers)?;
        self.reloads().good.note((self.clock)().as_second());
        Ok(true)
    }
}
