//! The audit: who did what when, as far as a policy file wants it recorded.
//!
//! ```text
//!   request ─► policy: how much? ─► an event when it comes, when a long answer begins, and when all is answered
//!                                      ├─► log      a file that is rotated; requests wait while it is behind
//!                                      └─► webhook  batches; what does not fit is counted and dropped
//! ```
//!
//! Without a policy file none of this exists. What the policy wants nothing of costs a look at its rules.

pub mod config;
mod event;
mod log;
mod policy;
mod recording;
mod webhook;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::{
    config::{Config, Error},
    policy::PolicyError,
};
pub(crate) use self::{event::Request, recording::Recording};
use self::{log::Log, policy::Policy, webhook::Webhook};
use crate::{seldom::Seldom, upstream::connect::Tasks};

/// Events that may wait to be written to the log.
const LOG_QUEUE: usize = 10_000;
/// Places that are free for those who were let in, each of whom has some events to come, before another is let in.
const LOG_ROOM: usize = LOG_QUEUE / 4;

static DROPPED: Seldom = Seldom::new();

/// One way that events go.
#[derive(Debug)]
struct Way {
    name: &'static str,
    queue: mpsc::Sender<Bytes>,
    lost: AtomicU64,
}

impl Way {
    fn new(name: &'static str, length: usize) -> (Self, mpsc::Receiver<Bytes>) {
        let (queue, events) = mpsc::channel(length);
        (Self { name, queue, lost: AtomicU64::new(0) }, events)
    }

    fn send(&self, event: Bytes) {
        if self.queue.try_send(event).is_err() {
            self.lose(1);
        }
    }

    /// Events that nobody will read.
    fn lose(&self, events: u64) {
        self.lost.fetch_add(events, Ordering::Relaxed);
        if let Some(before) = DROPPED.next(std::time::Instant::now()) {
            tracing::error!(kind = self.name, before, "audit events are lost");
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Audit {
    policy: Policy,
    log: Option<Arc<Way>>,
    webhook: Option<Arc<Way>>,
    events: AtomicU64,
    /// In the order of the levels.
    levels: [AtomicU64; 4],
}

/// What writes the events: see [`Writers::run`].
pub(crate) struct Writers {
    log: Option<(Log, mpsc::Receiver<Bytes>, Arc<Way>)>,
    webhook: Option<(Webhook, mpsc::Receiver<Bytes>, Arc<Way>)>,
    tasks: Tasks,
}

impl Audit {
    /// The audit that is configured, and what must run for it; nothing when there is no policy file.
    ///
    /// # Errors
    /// A file cannot be read or used.
    pub(crate) fn open(config: &Config) -> Result<Option<(Arc<Self>, Writers)>, Error> {
        let Some(file) = &config.policy_file else { return Ok(None) };
        let text = std::fs::read_to_string(file).map_err(|source| Error::Read { file: file.clone(), source })?;
        let policy = Policy::read(&text).map_err(|source| Error::Policy { file: file.clone(), source })?;
        let tasks = Tasks::new();
        let log = match &config.log {
            Some(log) => {
                let (way, events) = Way::new("log", LOG_QUEUE);
                Some((
                    Log::open(log).map_err(|source| Error::Log { file: log.path.clone(), source })?,
                    events,
                    Arc::new(way),
                ))
            }
            None => None,
        };
        let webhook = match &config.webhook {
            Some(webhook) => {
                let (way, events) = Way::new("webhook", webhook.buffer_size);
                Some((Webhook::open(webhook, &tasks)?, events, Arc::new(way)))
            }
            None => None,
        };
        let audit = Self {
            policy,
            log: log.as_ref().map(|(_, _, way)| Arc::clone(way)),
            webhook: webhook.as_ref().map(|(_, _, way)| Arc::clone(way)),
            events: AtomicU64::new(0),
            levels: Default::default(),
        };
        Ok(Some((Arc::new(audit), Writers { log, webhook, tasks })))
    }

    fn ways(&self) -> impl Iterator<Item = &Way> {
        self.log.iter().chain(&self.webhook).map(|way| &**way)
    }

    /// Waits while the log is behind.
    async fn room(&self) {
        if let Some(log) = &self.log
            && log.queue.capacity() < LOG_ROOM
        {
            // Closed is the log when the server stops.
            drop(log.queue.reserve_many(LOG_ROOM).await);
        }
    }

    fn record(&self, line: Vec<u8>) {
        self.events.fetch_add(1, Ordering::Relaxed);
        let line = Bytes::from(line);
        for way in self.ways() {
            way.send(line.clone());
        }
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }

    /// How many requests there were of each level.
    pub(crate) fn levels(&self) -> impl Iterator<Item = (&'static str, u64)> {
        use policy::Level;
        let names = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse].map(Level::as_str);
        names.into_iter().zip(self.levels.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// How many events each way has lost.
    pub(crate) fn lost(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.ways().map(|way| (way.name, way.lost.load(Ordering::Relaxed)))
    }
}

impl Writers {
    /// Writes events until `shutdown`, then those that are there.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { log, webhook, tasks } = self;
        let log = async {
            if let Some((log, events, way)) = log {
                log.run(events, &way, &shutdown).await;
            }
        };
        let webhook = async {
            if let Some((webhook, events, way)) = webhook {
                webhook.run(events, &way, &shutdown).await;
            }
        };
        tokio::join!(log, webhook);
        tasks.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::poll;

    use super::*;

    #[tokio::test]
    async fn requests_wait_until_there_is_room_for_all_who_wait() {
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n";
        let (way, mut events) = Way::new("log", LOG_QUEUE);
        let audit = Audit {
            policy: Policy::read(policy).unwrap(),
            log: Some(Arc::new(way)),
            webhook: None,
            events: AtomicU64::new(0),
            levels: Default::default(),
        };
        (0..LOG_QUEUE).for_each(|_| audit.record(Vec::new()));
        let (mut first, mut second) = (pin!(audit.room()), pin!(audit.room()));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        for _ in 1..LOG_ROOM {
            events.recv().await.unwrap();
        }
        assert!(poll!(&mut first).is_pending(), "there are too few places yet");
        events.recv().await.unwrap();
        assert!(poll!(&mut first).is_ready() && poll!(&mut second).is_ready());
        assert_eq!(audit.lost().map(|(_, lost)| lost).sum::<u64>(), 0);
    }
}
