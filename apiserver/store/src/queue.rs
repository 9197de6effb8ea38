//! Requests on their way to the store's thread.
//!
//! While the thread waits for the disk the next writes gather here, and it takes them all at once: that is the group
//! commit. A quick disk leaves them little time for that, and each group costs a sync and, among several members, a message
//! to each, whatever its size. So writes gather while the group before is on its way to a majority, for [`UNDER_WAY`] at
//! most; and where writes come together, a group waits for about as many as the last had, for [`GATHER`] at most. Who writes
//! alone never waits, and nothing but writes does.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::{
    command::{Command, Outcome},
    error::{Error, Result},
    lease::Lease,
    packet::Packet,
    peer::{MemberId, MemberInfo},
    revision::{LeaseId, Revision},
};

/// Room for requests under way, in KiB: 32 MiB, so that four of the largest transactions or 32,768 small ones wait.
const ROOM: u32 = 32 << 10;

/// How long the first write of a group waits for others at most: less than a sync of most disks takes.
const GATHER: Duration = Duration::from_micros(500);

/// How long it waits at most while the group before is not done yet: about as long as a majority near by takes.
const UNDER_WAY: Duration = Duration::from_millis(2);

/// How long writes gather.
#[derive(Clone, Copy, Debug)]
struct Gather {
    patience: Duration,
    /// However many there are.
    by_time: bool,
}

/// Something for the store's thread to do.
#[derive(Debug)]
pub(crate) enum Request {
    /// Propose a command and answer when it is applied.
    Propose { command: Command, answer: oneshot::Sender<Outcome>, room: OwnedSemaphorePermit },
    /// Start a lease's time anew.
    KeepAlive { id: LeaseId, answer: oneshot::Sender<Result<Lease>>, room: OwnedSemaphorePermit },
    /// Say how long a lease still lives.
    TimeToLive { id: LeaseId, answer: oneshot::Sender<Result<Duration>>, room: OwnedSemaphorePermit },
    /// Say when nothing acknowledged before is missing here any more.
    Barrier { answer: oneshot::Sender<Result<Revision>> },
    /// Admit a member.
    Admit { info: MemberInfo, answer: oneshot::Sender<Result<MemberId>> },
    /// Remove a member.
    Dismiss { id: MemberId, answer: oneshot::Sender<Result<()>> },
    /// Let another member lead, this one or any, if this one does. Answered when another leads.
    HandOver { to: Option<MemberId>, answer: oneshot::Sender<Result<()>> },
    /// A peer says something.
    Packet { from: u64, packet: Packet, size: usize, room: OwnedSemaphorePermit },
    /// Look around: something else than a request has come.
    Wake,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
    room: Arc<Semaphore>,
    /// Room for what peers say, of its own: the members must hear each other however much the clients want.
    peers_room: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Proposals, and since when the first of them waits.
    writes: VecDeque<Request>,
    since: Option<Instant>,
    /// Everything else.
    others: VecDeque<Request>,
    /// How many writes the last group had.
    last: usize,
    /// How many the next is to have, once it is known how many have come while the last was written.
    wanted: Option<usize>,
    closed: bool,
}

impl Inner {
    /// Until when writes are left to gather, if they are.
    fn gathers(&mut self, gather: Gather) -> Option<Instant> {
        let came = self.writes.len();
        // Those who were answered last come again, beside those who have come meanwhile.
        let wanted = *self.wanted.get_or_insert(if self.last > 1 { self.last + came } else { 1 });
        let until = self.since? + gather.patience;
        let is_enough = came >= wanted && !gather.by_time;
        (!is_enough && !self.closed && Instant::now() < until).then_some(until)
    }
}

/// What the thread took from the queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// These, the writes among them in the order they came, after all else; none if the time was up first.
    Requests(VecDeque<Request>),
    /// The queue is closed and empty.
    Closed,
}

impl Queue {
    pub(crate) fn new() -> Self {
        let room = Arc::new(Semaphore::new(ROOM as usize));
        let peers_room = Arc::new(Semaphore::new(ROOM as usize));
        Self { inner: Mutex::default(), filled: Condvar::new(), room, peers_room }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room for a request of so many bytes.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        acquire(&self.room, bytes).await
    }

    /// Waits for room for so many bytes of a peer's.
    pub(crate) async fn peers_room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        acquire(&self.peers_room, bytes).await
    }

    /// Adds a request.
    pub(crate) fn push(&self, request: Request) -> Result<()> {
        let mut inner = self.lock();
        if inner.closed {
            return Err(Error::Closed);
        }
        let is_enough = if matches!(request, Request::Propose { .. }) {
            inner.writes.push_back(request);
            if inner.writes.len() == 1 {
                inner.since = Some(Instant::now());
            }
            // The first has the thread look how long it may gather.
            inner.writes.len() == 1 || Some(inner.writes.len()) == inner.wanted
        } else {
            inner.others.push_back(request);
            inner.others.len() == 1
        };
        if is_enough {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for requests, at most for `patience`, and takes all there are but writes that still gather; `under_way` says
    /// whether writes that were taken before are not done yet.
    pub(crate) fn take(&self, patience: Option<Duration>, under_way: bool) -> Taken {
        let gather = if under_way { UNDER_WAY } else { GATHER };
        self.take_gathered(patience, Gather { patience: gather, by_time: under_way })
    }

    fn take_gathered(&self, patience: Option<Duration>, gather: Gather) -> Taken {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut inner = self.lock();
        loop {
            let gathers = inner.gathers(gather);
            if gathers.is_none() && !inner.writes.is_empty() {
                (inner.last, inner.wanted, inner.since) = (inner.writes.len(), None, None);
                let mut taken = mem::take(&mut inner.others);
                taken.append(&mut inner.writes);
                return Taken::Requests(taken);
            }
            if !inner.others.is_empty() {
                return Taken::Requests(mem::take(&mut inner.others));
            }
            if inner.closed {
                return Taken::Closed;
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Taken::Requests(VecDeque::new());
            }
            inner = match deadline.into_iter().chain(gathers).min() {
                None => self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(now);
                    self.filled.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Drops what nobody will take any more; whoever waits for it is told that its outcome is unknown.
    pub(crate) fn abandon(&self) {
        let requests = {
            let inner = &mut *self.lock();
            inner.since = None;
            (mem::take(&mut inner.others), mem::take(&mut inner.writes))
        };
        drop(requests);
    }

    /// Takes no more requests; those inside are still taken out.
    pub(crate) fn close(&self) {
        self.room.close();
        self.peers_room.close();
        self.lock().closed = true;
        self.filled.notify_one();
    }
}

async fn acquire(room: &Arc<Semaphore>, bytes: usize) -> Result<OwnedSemaphorePermit> {
    let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(ROOM).clamp(1, ROOM);
    Arc::clone(room).acquire_many_owned(kib).await.map_err(|_| Error::Closed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::txn::{Op, Txn};

    /// Long enough that a test which waits for it fails by never ending.
    const LONG: Duration = Duration::from_secs(100_000);

    async fn write(queue: &Queue) {
        let room = queue.room(1).await.unwrap();
        let command = Command::Txn(Txn { then: vec![Op::put("k", "v")], ..Txn::default() });
        queue.push(Request::Propose { command, answer: oneshot::channel().0, room }).unwrap();
    }

    fn taken(queue: &Queue, patience: Option<Duration>, gather: Duration) -> Option<usize> {
        gathered(queue, patience, Gather { patience: gather, by_time: false })
    }

    fn gathered(queue: &Queue, patience: Option<Duration>, gather: Gather) -> Option<usize> {
        match queue.take_gathered(patience, gather) {
            Taken::Requests(requests) => Some(requests.len()),
            Taken::Closed => None,
        }
    }

    async fn writes(queue: &Queue, count: usize) {
        for _ in 0..count {
            write(queue).await;
        }
    }

    #[tokio::test]
    async fn who_writes_alone_never_waits() {
        let queue = Queue::new();
        for _ in 0..3 {
            write(&queue).await;
            assert_eq!(taken(&queue, None, LONG), Some(1));
        }
    }

    #[tokio::test]
    async fn a_group_waits_for_as_many_as_the_last_had_and_those_that_came_meanwhile() {
        let queue = Arc::new(Queue::new());
        writes(&queue, 3).await;
        assert_eq!(taken(&queue, None, LONG), Some(3));
        writes(&queue, 2).await;
        for _ in 0..2 {
            assert_eq!(taken(&queue, Some(Duration::from_millis(1)), LONG), Some(0), "five are wanted");
            write(&queue).await;
        }
        let other = Arc::clone(&queue);
        let group = tokio::task::spawn_blocking(move || taken(&other, None, LONG));
        write(&queue).await;
        assert_eq!(group.await.unwrap(), Some(5));
    }

    #[tokio::test]
    async fn a_write_that_comes_alone_after_a_group_is_taken_when_its_time_is_up() {
        let queue = Arc::new(Queue::new());
        writes(&queue, 3).await;
        assert_eq!(taken(&queue, None, LONG), Some(3));
        assert_eq!(taken(&queue, Some(Duration::from_millis(1)), LONG), Some(0), "three are wanted");
        let other = Arc::clone(&queue);
        let group = tokio::task::spawn_blocking(move || taken(&other, None, Duration::from_millis(1)));
        tokio::task::yield_now().await;
        write(&queue).await;
        assert_eq!(group.await.unwrap(), Some(1));
    }

    #[tokio::test]
    async fn it_waits_no_longer_than_it_may_and_what_is_no_write_does_not_wait() {
        let queue = Queue::new();
        writes(&queue, 2).await;
        assert_eq!(taken(&queue, None, LONG), Some(2));
        write(&queue).await;
        queue.push(Request::Wake).unwrap();
        assert_eq!(taken(&queue, None, LONG), Some(1), "the write is left to gather");
        assert_eq!(taken(&queue, Some(Duration::from_millis(1)), LONG), Some(0), "what else is due is not held up");
        assert_eq!(taken(&queue, None, Duration::from_micros(1)), Some(1));
    }

    #[tokio::test]
    async fn while_a_group_is_under_way_the_next_gathers_however_large_it_is() {
        let queue = Queue::new();
        let under_way = |patience| Gather { patience, by_time: true };
        for count in [1, 3] {
            writes(&queue, count).await;
            assert_eq!(gathered(&queue, Some(Duration::from_millis(1)), under_way(LONG)), Some(0));
            queue.push(Request::Wake).unwrap();
            assert_eq!(gathered(&queue, None, under_way(LONG)), Some(1), "what says that the group is done is heard");
            assert_eq!(taken(&queue, None, Duration::ZERO), Some(count), "and then the next goes");
        }
        write(&queue).await;
        assert_eq!(gathered(&queue, None, under_way(Duration::from_millis(1))), Some(1), "nor does it wait for ever");
    }

    #[tokio::test]
    async fn what_gathers_is_taken_when_the_queue_closes() {
        let queue = Queue::new();
        writes(&queue, 2).await;
        assert_eq!(taken(&queue, None, LONG), Some(2));
        write(&queue).await;
        queue.close();
        assert_eq!(taken(&queue, None, LONG), Some(1));
        assert_eq!(taken(&queue, None, LONG), None);
    }
}
