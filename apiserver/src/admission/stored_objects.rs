//! What parts of the server are configured by (admission, flow control), read from the store whole and followed.

use std::error::Error as StdError;

use coracle_store::{Error, Range, Revision, Store, WatchRequest};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::stored;

/// All objects of a storage with their names, by name, and the revision they were read at.
///
/// # Errors
/// The store cannot be read.
pub(crate) fn read<T: DeserializeOwned>(store: &Store, storage: &str) -> Result<(Vec<(String, T)>, Revision), Error> {
    let found = store.range(&Range::prefix(stored::prefix(storage, "")))?;
    // By key, which is by name.
    let objects = found.entries.iter().filter_map(|entry| {
        let name = stored::Header::of(entry).name.clone();
        match serde_json::from_slice(&entry.value) {
            Ok(object) => Some((name, object)),
            Err(error) => {
                tracing::error!(error = &error as &dyn StdError, storage, name, "a stored object cannot be read");
                None
            }
        }
    });
    Ok((objects.collect(), found.revision))
}

/// Loads anew whenever one of the storages changes, until `shutdown`.
///
/// # Errors
/// The store is closed.
pub(crate) async fn follow(
    store: &Store,
    storages: [&str; 2],
    load: impl Fn() -> Result<Revision, Error>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    loop {
        let follow = async {
            let from = Revision(load()?.0 + 1);
            let watch = |storage: &str| store.watch(WatchRequest::prefix(stored::prefix(storage, ""), from));
            let [first, second] = storages;
            let (mut first, mut second) = (watch(first)?, watch(second)?);
            loop {
                let batch = tokio::select! {
                    batch = first.next() => batch,
                    batch = second.next() => batch,
                };
                match batch {
                    Some(Ok(_)) => load()?,
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                };
            }
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            // The watch ended because it was too slow or the history is gone: everything is read anew.
            ended = follow => match ended {
                Ok(()) | Err(Error::Compacted { .. } | Error::SlowWatcher { .. }) => {}
                Err(error) => return Err(error),
            },
        }
    }
}
