//! Connections that come in: bounded, so that whoever opens more than it closes keeps no descriptor of the agent's.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// After an error of `accept` (no descriptors left, most likely) the next attempt waits this long.
const PAUSE: Duration = Duration::from_millis(100);

/// Who comes in by one listener.
pub(super) struct Arrivals {
    room: Arc<Semaphore>,
}

impl Arrivals {
    /// So many at once.
    pub(super) fn new(most: usize) -> Self {
        Self { room: Arc::new(Semaphore::new(most)) }
    }

    /// The next one there is room for, with its place, which is free again when it is dropped. Who comes while there is none is
    /// turned away.
    ///
    /// # Cancel safety
    /// Safe if `accept` is.
    pub(super) async fn next<S, F>(&self, accept: impl Fn() -> F) -> (S, OwnedSemaphorePermit)
    where
        F: Future<Output = io::Result<S>>,
    {
        loop {
            match accept().await {
                Ok(stream) => match Arc::clone(&self.room).try_acquire_owned() {
                    Ok(place) => return (stream, place),
                    Err(_) => tracing::debug!("connection refused: too many"),
                },
                Err(error) => {
                    tracing::warn!(error = &error as &(dyn StdError + 'static), "connection not accepted");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    #[tokio::test]
    async fn who_comes_while_there_is_no_room_is_turned_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let arrivals = Arrivals::new(1);
        let first = UnixStream::connect(&path).await.unwrap();
        let ((inner, _), place) = arrivals.next(|| listener.accept()).await;
        let mut second = UnixStream::connect(&path).await.unwrap();
        let mut byte = [0];
        tokio::select! {
            _ = arrivals.next(|| listener.accept()) => panic!("there is no room"),
            read = second.read(&mut byte) => assert_eq!(read.unwrap(), 0),
        }
        drop((first, inner, place));
        let _third = UnixStream::connect(&path).await.unwrap();
        drop(arrivals.next(|| listener.accept()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_is_rested_after_and_the_next_one_comes_in() {
        let tries = std::cell::Cell::new(0);
        let begun = tokio::time::Instant::now();
        let accept = || async {
            tries.set(tries.get() + 1);
            if tries.get() < 3 { Err(io::Error::other("no descriptors")) } else { Ok(tries.get()) }
        };
        assert_eq!(Arrivals::new(1).next(accept).await.0, 3);
        assert!(begun.elapsed() >= 2 * PAUSE);
    }
}
