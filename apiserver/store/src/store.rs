//! The handle everybody holds.

use std::{path::PathBuf, sync::Arc, time::Duration};

use raft::eraftpb::ConfState;
use tokio::sync::oneshot;

use crate::{
    checkpoint::Checkpoints,
    command::{Answer, Command},
    datadir::{DataDir, Identity},
    disk::{Disk, RealDisk},
    driver::{self, Driver},
    engine::{Engine, sled::Sled},
    entry::Entry,
    error::{Error, Result},
    history::Retention,
    lease::Lease,
    log::{Log, Recovery},
    member::Member,
    queue::Request,
    range::{Range, RangeResult},
    revision::{LeaseId, Revision},
    seal::{self, Seal},
    shared::{Shared, Status},
    state::State,
    txn::{Txn, TxnResult},
    watch::{WatchRequest, Watcher},
    worker::{Now, Worker},
};

/// Shortest and longest time to live of a lease.
const LEASE_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 365);

/// Where a store lives and how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data directory; made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// How much of the past is kept in memory.
    pub retention: Retention,
    /// When the log is longer than this a checkpoint is written and the log cut. More of it makes for fewer writes, a
    /// longer start, and a longer history after the start.
    pub checkpoint_bytes: u64,
}

impl Config {
    /// A store in `dir` that keeps what [`Retention::default`] says.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), retention: Retention::default(), checkpoint_bytes: 32 << 20 }
    }
}

/// A handle on a store; cheap to clone. Reads are answered from memory at once; writes are answered when they are on
/// stable storage and applied.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    recovery: Arc<Recovery>,
    seal: Option<Arc<dyn Seal>>,
}

impl Store {
    /// Opens the store in a data directory, or makes it there. Everything that was acknowledged can be read as soon as
    /// this returns; writes and live watches need the driver to run.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`], [`Error::Io`], [`Error::Engine`].
    pub async fn open(config: Config) -> Result<(Self, Driver)> {
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&config)).await;
        opened.unwrap_or(Err(Error::Closed))
    }

    fn open_blocking(config: &Config) -> Result<(Self, Driver)> {
        let dir = DataDir::open(&config.dir)?;
        let mut checkpoints = Checkpoints::new(Sled::new(dir.state()));
        let member = dir.identity.member;
        let life = rand::random();
        let opened = open(RealDisk::new(dir.log()), &mut checkpoints, &dir.identity, life, config, driver::now)?;
        let Opened { shared, worker, recovery } = opened;
        tracing::info!(
            member,
            revision = shared.read().revision().0,
            segments = recovery.segments,
            entries = recovery.entries,
            bytes = recovery.bytes,
            torn = recovery.torn.as_ref().map(tracing::field::debug),
            unfinished = recovery.unfinished.as_deref(),
            "store opened"
        );
        let store = Self { shared: Arc::clone(&shared), recovery: Arc::new(recovery), seal: None };
        Ok((store, Driver::new(shared, worker, checkpoints, dir)))
    }

    /// The same store, as who reads and writes through this seal sees it.
    #[must_use]
    pub fn sealed_by(&self, seal: Arc<dyn Seal>) -> Self {
        Self { seal: Some(seal), ..self.clone() }
    }

    /// The same store with its values as they are kept.
    #[must_use]
    pub fn as_kept(&self) -> Self {
        Self { seal: None, ..self.clone() }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What opening the log found, and what it had to cut off.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Waits until what this member reads is no older than any write acknowledged anywhere before the call.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no leader to ask. A lone member always is up to date.
    #[expect(clippy::unused_async, reason = "a member among several asks its leader")]
    pub async fn barrier(&self) -> Result<Revision> {
        Ok(self.revision())
    }

    /// Reads a range, now or at a kept revision.
    ///
    /// # Errors
    /// [`Error::Compacted`], [`Error::FutureRevision`]; [`Error::Sealed`] for a value that cannot be opened.
    pub fn range(&self, range: &Range) -> Result<RangeResult> {
        let found = self.shared.read().range(range)?;
        match &self.seal {
            Some(seal) => seal::range(&**seal, found),
            None => Ok(found),
        }
    }

    /// Reads one key. A value that cannot be opened is given back as it is kept.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        let kept = self.shared.read().index().get(key).cloned()?;
        match &self.seal {
            Some(seal) => Some(seal::entry(&**seal, &kept).unwrap_or(kept)),
            None => Some(kept),
        }
    }

    /// Where the store stands.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.shared.read().revision()
    }

    /// The last revision that is gone from the history: watches begin after it, reads not before it.
    #[must_use]
    pub fn compacted(&self) -> Revision {
        self.shared.read().history().compacted()
    }

    /// How the store fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Runs a transaction.
    ///
    /// # Errors
    /// What [`Txn::validate`] refuses; [`Error::Sealed`]; [`Error::LeaseNotFound`]; [`Error::DiskFull`]; [`Error::Failed`],
    /// [`Error::Closed`]; [`Error::Unavailable`]; and [`Error::OutcomeUnknown`], after which the transaction may or may
    /// not have been done. None other leaves a trace.
    ///
    /// # Cancel safety
    /// A transaction whose future is dropped is done or not done, but never in part.
    pub async fn txn(&self, mut txn: Txn) -> Result<TxnResult> {
        if let Some(seal) = &self.seal {
            seal::seal(&**seal, &mut txn)?;
        }
        txn.validate()?;
        match (self.propose(txn.size(), Command::Txn(txn)).await?, &self.seal) {
            (Answer::Txn(result), Some(seal)) => seal::txn(&**seal, result),
            (Answer::Txn(result), None) => Ok(result),
            (Answer::Done, _) => Err(Error::OutcomeUnknown),
        }
    }

    /// Follows the changes of a range.
    ///
    /// # Errors
    /// [`Error::Compacted`] if the first revision wanted is gone.
    pub fn watch(&self, request: WatchRequest) -> Result<Watcher> {
        Ok(Watcher::new(Arc::clone(&self.shared), request)?.sealed_by(self.seal.clone()))
    }

    /// Grants a lease of about `ttl` (whole seconds, at least one), under a name of its own choosing.
    ///
    /// # Errors
    /// As [`Store::txn`].
    pub async fn lease_grant(&self, ttl: Duration) -> Result<Lease> {
        self.lease_grant_as(LeaseId(rand::random_range(1..=u64::MAX >> 1)), ttl).await
    }

    /// Grants a lease under a given name.
    ///
    /// # Errors
    /// [`Error::LeaseExists`]; as [`Store::txn`].
    pub async fn lease_grant_as(&self, id: LeaseId, ttl: Duration) -> Result<Lease> {
        let ttl = Duration::from_secs(ttl.clamp(*LEASE_TTL.start(), *LEASE_TTL.end()).as_secs());
        self.propose(0, Command::LeaseGrant { id, ttl }).await?;
        Ok(Lease { id, ttl })
    }

    /// Starts a lease's time anew; writes nothing to disk.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if it has ended; as [`Store::txn`].
    pub async fn lease_keepalive(&self, id: LeaseId) -> Result<Lease> {
        let room = self.shared.queue.room(0).await?;
        self.ask(|answer| Request::KeepAlive { id, answer, room }).await
    }

    /// How long a lease still lives.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if it has ended; as [`Store::txn`].
    pub async fn lease_left(&self, id: LeaseId) -> Result<Duration> {
        let room = self.shared.queue.room(0).await?;
        self.ask(|answer| Request::TimeToLive { id, answer, room }).await
    }

    /// Ends a lease and deletes its keys, in one revision.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`] if it has ended; as [`Store::txn`].
    pub async fn lease_revoke(&self, id: LeaseId) -> Result<()> {
        self.propose(0, Command::LeaseRevoke { id }).await.map(drop)
    }

    /// Forgets the history up to a revision, on every member.
    ///
    /// # Errors
    /// [`Error::Compacted`] if it is gone already, [`Error::FutureRevision`]; as [`Store::txn`].
    pub async fn compact(&self, revision: Revision) -> Result<()> {
        self.propose(0, Command::Compact { revision }).await.map(drop)
    }

    async fn propose(&self, bytes: usize, command: Command) -> Result<Answer> {
        let room = self.shared.queue.room(bytes).await?;
        self.ask(|answer| Request::Propose { command, answer, room }).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<Result<T>>) -> Request) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(request(answer))?;
        // The thread answers everything it takes; a dropped answer means that it ended in between.
        answered.await.unwrap_or(Err(Error::OutcomeUnknown))
    }
}

/// A store brought to where it stood.
pub(crate) struct Opened<D: Disk> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Worker<D>,
    pub(crate) recovery: Recovery,
}

/// Reads the checkpoint, then the log beyond it.
pub(crate) fn open<D: Disk, E: Engine>(
    disk: D,
    checkpoints: &mut Checkpoints<E>,
    identity: &Identity,
    life: u64,
    config: &Config,
    now: impl Fn(&Shared) -> Now,
) -> Result<Opened<D>> {
    let loaded = checkpoints.load()?;
    let (applied, members, state) = match loaded.mark {
        Some(mark) => {
            let leases = loaded.leases.into_iter().map(|(id, ttl)| (id, Duration::from_secs(ttl)));
            let state = State::load(config.retention, mark.revision, loaded.entries, leases);
            ((mark.index, mark.term), mark.members, state)
        }
        None => {
            let founder = ConfState { voters: vec![identity.member], ..ConfState::default() };
            ((0, 0), founder, State::new(config.retention))
        }
    };
    let (log, recovery) = Log::open(disk, identity.cluster, applied, members, config.checkpoint_bytes / 4)?;
    let member = Member::new(log, identity.member, life, applied.0)?;
    let shared = Arc::new(Shared::new(state));
    let worker = Worker::open(Arc::clone(&shared), member, applied, config.checkpoint_bytes, now(&shared))?;
    Ok(Opened { shared, worker, recovery })
}
