//! What the handles, the watchers and the driver of one store have in common.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};

use crate::{
    error::Error,
    history::Batch,
    hub::Hub,
    peer::{MemberId, MemberInfo},
    queue::Queue,
    revision::Revision,
    state::State,
    worker::{SLOW, Slowest},
};

/// Revisions handed out at once: some ten microseconds.
const HAND_OUT: usize = 64;

/// How a store fares, for readiness, conditions and metrics.
#[derive(Clone, Debug)]
pub struct Status {
    /// Why writes are refused, if they are: [`Error::DiskFull`] until there is room, [`Error::Failed`] for good.
    pub refusing: Option<Error>,
    /// Where the store stands.
    pub revision: Revision,
    /// The last revision that is gone from the history.
    pub compacted: Revision,
    /// Live keys.
    pub keys: usize,
    /// What was done to the disk since the store was opened.
    pub work: Work,
    /// How long the slowest sync of the log took within the last half to full minute, or the one under way takes already.
    pub slowest_sync: Duration,
}

impl Status {
    /// Whether the disk is slow: a sync took, or takes already, half a second and more. Writes then take as long as it does.
    #[must_use]
    pub fn is_disk_slow(&self) -> bool {
        self.slowest_sync >= SLOW
    }
}

/// Counts of what was done to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes appended to the log.
    pub log_bytes: u64,
    /// Syncs of the log: group commits, and segments begun.
    pub log_syncs: u64,
    /// What these took.
    pub sync_time: Duration,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of keys and values handed to the state engine with them.
    pub checkpoint_bytes: u64,
    /// Bytes of the state engine's files, as of the last checkpoint.
    pub state_bytes: u64,
}

/// The cluster as one member sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// This member.
    pub own: MemberId,
    /// The cluster's first member, and what tells it from other clusters.
    pub founder: MemberId,
    /// Who leads, if this member knows.
    pub leader: Option<MemberId>,
    /// Raft's term.
    pub term: u64,
    /// Index of the last entry of the log that is applied.
    pub applied: u64,
    /// All members, this one among them unless it was removed.
    pub members: Vec<MemberStatus>,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: MemberId,
    /// Its name and addresses.
    pub info: MemberInfo,
    /// It votes; otherwise it is a learner, catching up.
    pub votes: bool,
}

/// What the store's thread tells of the Raft group.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    pub(crate) own: u64,
    pub(crate) founder: u64,
    pub(crate) leader: Option<u64>,
    pub(crate) term: u64,
    pub(crate) applied: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) learners: Vec<u64>,
}

/// See the module. Locks are taken in the order hub, state; an inbox's is innermost.
#[derive(Debug)]
pub(crate) struct Shared {
    state: RwLock<State>,
    hub: Mutex<Hub>,
    /// Rung when the history has grown.
    pub(crate) grown: Notify,
    /// Why writes are refused, what was done to the disk, and how long that took; set by the store's thread.
    told: Mutex<(Option<Error>, Work, Slowest)>,
    /// Since when the store's thread has been at what it does, if it does something.
    busy: Mutex<Option<Duration>>,
    group: Mutex<Group>,
    /// Changes when who leads, who belongs to the cluster, or where a member is found has changed.
    cluster_changed: watch::Sender<()>,
    /// This member is the only one that votes: it need not ask anybody how far it must have come.
    alone: AtomicBool,
    /// What waits to be written.
    pub(crate) queue: Queue,
    started: Instant,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        let hub = Hub::new(state.revision());
        Self {
            state: RwLock::new(state),
            hub: Mutex::new(hub),
            grown: Notify::new(),
            told: Mutex::default(),
            busy: Mutex::default(),
            group: Mutex::default(),
            cluster_changed: watch::Sender::new(()),
            alone: AtomicBool::new(false),
            queue: Queue::new(),
            started: Instant::now(),
        }
    }

    /// The steady clock of this member: time since it was opened.
    pub(crate) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells the watchers the next few changes they have not been told; false if there are none.
    pub(crate) fn hand_out(&self) -> bool {
        let mut hub = self.hub();
        let (batches, compacted): (Vec<Batch>, _) = {
            let state = self.read();
            let history = state.history();
            (history.from(hub.cursor().next()).take(HAND_OUT).cloned().collect(), history.compacted())
        };
        if compacted > hub.cursor() {
            hub.skip_to(compacted);
            return true;
        }
        for batch in &batches {
            hub.hand_out(batch);
        }
        !batches.is_empty()
    }

    /// Says how the store's thread fares.
    pub(crate) fn tell(&self, refusing: Option<Error>, work: Work, slowest: Slowest) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = (refusing, work, slowest);
    }

    /// Says that the store's thread begins to do something, or has done it: should the disk not answer, somebody must say so.
    pub(crate) fn tell_busy(&self, is_busy: bool) {
        *self.busy.lock().unwrap_or_else(PoisonError::into_inner) = is_busy.then(|| self.now());
    }

    /// Says how the Raft group stands.
    pub(crate) fn tell_group(&self, tell: impl FnOnce(&mut Group)) {
        let mut group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        let before = group.leader;
        tell(&mut group);
        let alone = group.voters == [group.own];
        let is_other_leader = before != group.leader;
        drop(group);
        self.alone.store(alone, Ordering::Release);
        if is_other_leader {
            self.tell_cluster_changed();
        }
    }

    /// Wakes who follows the cluster.
    pub(crate) fn tell_cluster_changed(&self) {
        self.cluster_changed.send_replace(());
    }

    pub(crate) fn cluster_changes(&self) -> watch::Receiver<()> {
        self.cluster_changed.subscribe()
    }

    /// Whether what this member reads is always the newest there is.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    pub(crate) fn cluster(&self) -> Cluster {
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = self.read();
        let status = |id: &u64, votes| {
            let info = state.peers().get(id).map(|peer| peer.info.clone()).unwrap_or_default();
            MemberStatus { id: MemberId(*id), info, votes }
        };
        let voters = group.voters.iter().map(|id| status(id, true));
        let mut members: Vec<_> = voters.chain(group.learners.iter().map(|id| status(id, false))).collect();
        members.sort_by_key(|member| member.id);
        Cluster {
            own: MemberId(group.own),
            founder: MemberId(group.founder),
            leader: group.leader.map(MemberId),
            term: group.term,
            applied: group.applied,
            members,
        }
    }

    pub(crate) fn status(&self) -> Status {
        let (refusing, work, slowest) = self.told.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let busy = *self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = busy.map_or(Duration::ZERO, |since| self.now().saturating_sub(since));
        let slowest_sync = slowest.lately(self.now()).max(under_way);
        let state = self.read();
        let (revision, compacted) = (state.revision(), state.history().compacted());
        Status { refusing, revision, compacted, keys: state.index().len(), work, slowest_sync }
    }

    // A lock is poisoned only by a panic in this crate, after which the process is going down.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by whoever does the store's work. When it is dropped nothing waits for an answer or a change any more: what was
/// not taken from the queue is answered, and watches end.
#[derive(Debug)]
pub(crate) struct Closing(pub(crate) Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.queue.abandon();
        self.0.hub().close(Error::Closed);
    }
}
