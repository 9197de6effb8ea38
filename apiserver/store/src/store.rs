//! The handle everybody holds.

use std::{path::PathBuf, sync::Arc, time::Duration};

use raft::eraftpb::ConfState;
use tokio::sync::oneshot;

use crate::{
    check,
    checkpoint::{Checkpoints, Mark},
    codec::Malformed,
    command::{Answer, Command},
    datadir::{DataDir, Identity},
    disk::{Disk, RealDisk},
    driver::{self, Driver},
    engine::{Engine, sled::Sled},
    entry::Entry,
    error::{Error, Result},
    history::Retention,
    lease::Lease,
    log::{Log, Recovery, segment::ClusterId},
    member::{Member, Own},
    packet::Packet,
    peer::{MemberId, MemberInfo},
    queue::Request,
    range::{Range, RangeResult},
    revision::{LeaseId, Revision},
    seal::{self, Seal},
    shared::{Cluster, Shared, Status},
    state::State,
    transport::{Nowhere, Transport},
    txn::{Txn, TxnResult},
    watch::{WatchRequest, Watcher},
    worker::{Now, Settings, Worker},
};

/// Shortest and longest time to live of a lease.
const LEASE_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_hours(24 * 365);

/// Ticks without a word of the leader's after which a member stands for election, drawn anew from here each time.
const PATIENCE: std::ops::Range<usize> = 10..20;

/// Where a store lives and how much it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data directory; made if it is not there. One process at a time.
    pub dir: PathBuf,
    /// How much of the past is kept in memory.
    pub retention: Retention,
    /// When the log has grown by this a checkpoint is written and the log cut. More of it makes for fewer writes, a longer
    /// start, and a longer history after the start. The log never takes more than two and a half times as much: writes
    /// wait for a checkpoint that is slow.
    pub checkpoint_bytes: u64,
    /// Whose member an empty directory becomes; the first member of a cluster of its own if none.
    pub joining: Option<Joining>,
}

/// What a cluster that admitted a member says to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// The cluster.
    pub cluster: [u8; 16],
    /// Its first member, which every log begins with.
    pub founder: MemberId,
    /// The id the new member was given.
    pub own: MemberId,
    /// It was admitted as a witness.
    pub witness: bool,
}

impl Config {
    /// A store in `dir` that keeps what [`Retention::default`] says.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), retention: Retention::default(), checkpoint_bytes: 8 << 20, joining: None }
    }
}

/// A handle on a store; cheap to clone. Reads are answered from memory at once; writes are answered when they are on
/// stable storage and applied.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    recovery: Arc<Recovery>,
    seal: Option<Arc<dyn Seal>>,
    cluster: ClusterId,
}

impl Store {
    /// Opens the store in a data directory, or makes it there. Everything that was acknowledged can be read as soon as
    /// this returns; writes and live watches need the driver to run.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Format`], [`Error::Corrupt`], [`Error::Occupied`], [`Error::Io`], [`Error::Engine`].
    pub async fn open(config: Config) -> Result<(Self, Driver)> {
        Self::open_among(config, Arc::new(Nowhere)).await
    }

    /// The same, of a member that has peers, or may come to have some: `transport` is the way to them.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open_among(config: Config, transport: Arc<dyn Transport>) -> Result<(Self, Driver)> {
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&config, transport)).await;
        opened.unwrap_or(Err(Error::Closed))
    }

    fn open_blocking(config: &Config, transport: Arc<dyn Transport>) -> Result<(Self, Driver)> {
        let dir = DataDir::open(&config.dir, config.joining)?;
        let mut checkpoints = Checkpoints::new(Sled::new(dir.state()));
        let member = dir.identity.member;
        let start = Start { identity: dir.identity.clone(), life: dir.life, patience: PATIENCE, transport };
        let opened = open(RealDisk::new(dir.log()), &mut checkpoints, start, config, driver::now)?;
        let Opened { shared, worker, recovery } = opened;
        tracing::info!(
            member,
            revision = shared.read().revision().0,
            segments = recovery.segments,
            entries = recovery.entries,
            bytes = recovery.bytes,
            torn = recovery.torn.as_ref().map(tracing::field::display),
            unfinished = recovery.unfinished.as_deref(),
            "store opened"
        );
        let cluster = dir.identity.cluster;
        let store = Self { shared: Arc::clone(&shared), recovery: Arc::new(recovery), cluster, seal: None };
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
    pub async fn barrier(&self) -> Result<Revision> {
        if self.shared.is_alone() {
            return Ok(self.revision());
        }
        self.ask(|answer| Request::Barrier { answer }).await
    }

    /// The cluster as this member sees it.
    #[must_use]
    pub fn cluster(&self) -> Cluster {
        self.shared.cluster()
    }

    /// Changes whenever who leads, who belongs to the cluster, or where a member is found may have changed.
    #[must_use]
    pub fn cluster_changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.shared.cluster_changes()
    }

    /// What tells this cluster from others.
    #[must_use]
    pub const fn cluster_id(&self) -> [u8; 16] {
        self.cluster
    }

    /// Admits a member: it is sent everything, and votes when it has caught up. Its id is its own for good.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if there is no leader, or another change of the members is under way;
    /// [`Error::QuorumAtRisk`] if there are too many already, or the description is too long; [`Error::OutcomeUnknown`].
    pub async fn admit(&self, info: MemberInfo) -> Result<MemberId> {
        self.ask(|answer| Request::Admit { info, answer }).await
    }

    /// Removes a member, dead or alive.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`]; [`Error::QuorumAtRisk`] if of those who are left too few answer, and have room, to go on;
    /// [`Error::Unavailable`] as [`Store::admit`], and when the leader is to go, which first lets another lead: ask
    /// again; [`Error::DiskFull`] also if it is removed, and there is no room to keep that: it stays until there is;
    /// [`Error::OutcomeUnknown`].
    pub async fn dismiss(&self, id: MemberId) -> Result<()> {
        self.ask(|answer| Request::Dismiss { id, answer }).await
    }

    /// Tells the others where this member is found.
    ///
    /// # Errors
    /// As [`Store::txn`]; [`Error::Unavailable`] also if this is no member.
    pub async fn describe(&self, info: MemberInfo) -> Result<()> {
        let id = self.cluster().own.0;
        self.propose(0, Command::Describe { id, info }).await.map(drop)
    }

    /// Has another member lead; asked of the one that leads.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`] if it has no vote, or is a witness; [`Error::Unavailable`] if this member does not lead, or
    /// the other does not after a while.
    pub async fn hand_over(&self, to: MemberId) -> Result<()> {
        let mut changes = self.cluster_changes();
        if self.cluster().leader == Some(to) {
            return Ok(());
        }
        let handed_over = async {
            self.ask(|answer| Request::HandOver { to: Some(to), answer }).await?;
            while self.cluster().leader == Some(self.cluster().own) {
                changes.changed().await.map_err(|_| Error::Closed)?;
            }
            if self.cluster().leader == Some(to) { Ok(()) } else { Err(Error::Unavailable) }
        };
        tokio::time::timeout(driver::LEAVING, handed_over).await.unwrap_or(Err(Error::Unavailable))
    }

    /// Takes in a packet that peer `from` has sent; the transport has made sure that it was that peer. Waits for room,
    /// so that a peer that sends more than this member can take is slowed down, and nobody else.
    ///
    /// # Errors
    /// [`Error::Malformed`]: no member sends such a packet, and it was dropped. [`Error::Closed`].
    pub async fn deliver(&self, from: MemberId, packet: &[u8]) -> Result<()> {
        self.take_in(from, packet, |_| Ok(())).await
    }

    /// As [`Store::deliver`], from a peer that is a witness: it may answer, and say where it is, and nothing else. Who takes
    /// a witness over writes nothing by it.
    ///
    /// # Errors
    /// As [`Store::deliver`]; [`Error::Malformed`] also: no witness says that.
    pub async fn deliver_of_witness(&self, from: MemberId, packet: &[u8]) -> Result<()> {
        self.take_in(from, packet, |packet| check::of_witness(packet, from.0)).await
    }

    async fn take_in(
        &self,
        from: MemberId,
        packet: &[u8],
        check: impl FnOnce(&Packet) -> std::result::Result<(), Malformed>,
    ) -> Result<()> {
        let room = self.shared.queue.peers_room(packet.len()).await?;
        let size = packet.len();
        let packet = Packet::decode(packet).and_then(|packet| check(&packet).map(|()| packet));
        let packet = packet.map_err(|Malformed(what)| Error::Malformed { what })?;
        self.shared.queue.push(Request::Packet { from: from.0, packet, size, room })
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

    /// Where the store stood that long ago.
    ///
    /// # Errors
    /// [`Error::Compacted`]: that is no longer known, or was before this process opened the store.
    pub fn revision_ago(&self, ago: Duration) -> Result<Revision> {
        let state = self.shared.read();
        let history = state.history();
        let at = self.shared.now().checked_sub(ago).and_then(|at| history.revision_at(at));
        at.ok_or(Error::Compacted { compacted: history.compacted() })
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

/// Who starts.
pub(crate) struct Start {
    pub(crate) identity: Identity,
    pub(crate) life: u64,
    pub(crate) patience: std::ops::Range<usize>,
    pub(crate) transport: Arc<dyn Transport>,
}

/// Reads the checkpoint, then the log beyond it.
pub(crate) fn open<D: Disk, E: Engine>(
    disk: D,
    checkpoints: &mut Checkpoints<E>,
    start: Start,
    config: &Config,
    now: impl Fn(&Shared) -> Now,
) -> Result<Opened<D>> {
    let Start { identity, life, patience, transport } = start;
    let loaded = checkpoints.load()?;
    let (mark, state) = match loaded.mark {
        Some(mark) => {
            let leases = loaded.leases.into_iter().map(|(id, ttl)| (id, Duration::from_secs(ttl)));
            let state = State::load(config.retention, mark.revision, loaded.entries, leases, loaded.peers);
            (mark, state)
        }
        None => {
            let members = ConfState { voters: vec![identity.founder], ..ConfState::default() };
            (Mark { members, ..Mark::default() }, State::new(config.retention))
        }
    };
    let (log, recovery) = Log::open(disk, identity.cluster, &mark, config.checkpoint_bytes / 4)?;
    let own = Own { id: identity.member, founder: identity.founder, witness: identity.witness, life, patience };
    let member = Member::new(log, own, mark.index)?;
    let shared = Arc::new(Shared::new(state));
    let settings = Settings { retention: config.retention, checkpoint_bytes: config.checkpoint_bytes, transport };
    let worker = Worker::open(Arc::clone(&shared), member, (mark.index, mark.term), settings, now(&shared))?;
    Ok(Opened { shared, worker, recovery })
}
