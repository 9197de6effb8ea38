//! Requests on their way to the store's thread.
//!
//! While the thread waits for the disk the next requests gather here, and it takes them all at once: that is the group
//! commit.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
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
    requests: VecDeque<Request>,
    closed: bool,
}

/// What the thread took from the queue.
#[derive(Debug)]
pub(crate) enum Taken {
    /// These, in the order they came; none if the time was up first.
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
        inner.requests.push_back(request);
        if inner.requests.len() == 1 {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for requests, at most for `patience`, and takes all there are.
    pub(crate) fn take(&self, patience: Option<Duration>) -> Taken {
        let idle = |inner: &mut Inner| inner.requests.is_empty() && !inner.closed;
        let mut inner = match patience {
            None => self.filled.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner),
            Some(patience) => {
                self.filled.wait_timeout_while(self.lock(), patience, idle).unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if inner.requests.is_empty() && inner.closed {
            return Taken::Closed;
        }
        Taken::Requests(std::mem::take(&mut inner.requests))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Drops what nobody will take any more; whoever waits for it is told that its outcome is unknown.
    pub(crate) fn abandon(&self) {
        let requests = std::mem::take(&mut self.lock().requests);
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
