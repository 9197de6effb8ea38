//! One priority level: its seats, and who waits for one.
//!
//! ```text
//!   seats free, nobody waits ──► one compare-and-swap, and the request goes on
//!   otherwise ─────────────────► what other levels do not use is borrowed; who still has no seat is queued or refused
//! ```
//!
//! Requests in work and requests waiting are counted in one word. Who gives a seat back and sees that somebody waits lets
//! the next one in; who begins to wait looks for a seat once more after he was counted. So nobody is forgotten.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    counters::Counters,
    queues::{Queues, Queuing, Ticket},
    shares::{Bounds, Claim, divide},
};

/// What becomes of requests that have no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Every request has one.
    Exempt,
    /// They are refused.
    Reject,
    /// They wait.
    Queue(Queuing),
}

/// Why a request got no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The level has no queues.
    ConcurrencyLimit,
    /// Its queue is full.
    QueueFull,
    /// It waited too long.
    TimeOut,
}

/// What is in use and what waits, in one word: seats in the low half, requests in the high one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load(u64);

const ONE_WAITS: u64 = 1 << 32;

impl Load {
    fn seats(self) -> u32 {
        u32::try_from(self.0 & u64::from(u32::MAX)).unwrap_or(u32::MAX)
    }

    fn waiting(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    /// Whether `width` more fit; the only request at all always does.
    fn takes(self, width: u32, limit: u32) -> bool {
        self.seats() == 0 || self.seats().saturating_add(width) <= limit
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Level {
    pub(crate) name: String,
    load: AtomicU64,
    /// Seats there are, with what is borrowed and without what is lent.
    limit: AtomicU32,
    /// Seats that are waited for.
    wanted: AtomicU32,
    nominal: AtomicU32,
    least: AtomicU32,
    most: AtomicU32,
    inner: Mutex<Inner>,
    pool: Weak<Pool>,
}

#[derive(Debug)]
struct Inner {
    manner: Manner,
    queues: Queues<Caller>,
}

/// Who is told when it is his turn.
#[derive(Debug)]
struct Caller {
    tell: oneshot::Sender<Seat>,
    counters: Arc<Counters>,
}

/// A place to be worked on in. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    level: Arc<Level>,
    counters: Arc<Counters>,
    width: u32,
    /// The queue it waited in.
    queue: Option<u32>,
    begun: Instant,
}

/// All levels, which lend each other what they do not use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    levels: Mutex<Vec<Arc<Level>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// The levels there are from now on; those that are gone keep their seats until nobody waits for one.
    pub(super) fn set(&self, levels: Vec<Arc<Level>>) {
        *lock(&self.levels) = levels;
        self.rebalance();
    }

    /// The levels there are.
    pub(crate) fn levels(&self) -> Vec<Arc<Level>> {
        lock(&self.levels).clone()
    }

    /// Divides the seats anew by what is wanted now, and lets in whom that gives one.
    fn rebalance(&self) {
        let mut grown = Vec::new();
        {
            let levels = lock(&self.levels);
            let claims: Vec<Claim> = levels.iter().map(|level| level.claim()).collect();
            for (level, limit) in levels.iter().zip(divide(&claims)) {
                let before = level.limit.swap(limit, Ordering::SeqCst);
                if limit > before && level.load().waiting() > 0 {
                    grown.push(Arc::clone(level));
                }
            }
        }
        for level in grown {
            level.let_in();
        }
    }
}

impl Level {
    pub(super) fn new(name: &str, pool: &Arc<Pool>) -> Self {
        Self {
            name: name.to_owned(),
            load: AtomicU64::new(0),
            limit: AtomicU32::new(0),
            wanted: AtomicU32::new(0),
            nominal: AtomicU32::new(0),
            least: AtomicU32::new(0),
            most: AtomicU32::new(0),
            inner: Mutex::new(Inner { manner: Manner::Reject, queues: Queues::new() }),
            pool: Arc::downgrade(pool),
        }
    }

    /// What its object says from now on.
    pub(super) fn configure(&self, manner: Manner, bounds: Bounds) {
        lock(&self.inner).manner = manner;
        for (place, seats) in [(&self.nominal, bounds.nominal), (&self.least, bounds.least), (&self.most, bounds.most)]
        {
            place.store(seats, Ordering::SeqCst);
        }
    }

    /// What it is entitled to.
    pub(crate) fn bounds(&self) -> Bounds {
        let read = |place: &AtomicU32| place.load(Ordering::SeqCst);
        Bounds { nominal: read(&self.nominal), least: read(&self.least), most: read(&self.most) }
    }

    /// Seats there are now.
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::SeqCst)
    }

    /// Seats in use and waited for.
    pub(crate) fn demand(&self) -> u32 {
        self.load().seats().saturating_add(self.wanted.load(Ordering::SeqCst))
    }

    fn claim(&self) -> Claim {
        Claim { bounds: self.bounds(), demand: self.demand() }
    }

    fn load(&self) -> Load {
        Load(self.load.load(Ordering::SeqCst))
    }

    /// Takes a seat if one is free and nobody waits for it.
    fn try_take(&self, width: u32) -> bool {
        let limit = self.limit();
        let taken = self.load.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |load| {
            let load = Load(load);
            (load.waiting() == 0 && load.takes(width, limit)).then(|| load.0 + u64::from(width))
        });
        taken.is_ok()
    }

    fn seat(self: &Arc<Self>, counters: &Arc<Counters>, width: u32, queue: Option<u32>) -> Seat {
        counters.begun(width);
        Seat { level: Arc::clone(self), counters: Arc::clone(counters), width, queue, begun: Instant::now() }
    }

    /// A seat that nobody has to wait for and that is not counted against the level's.
    pub(super) fn exempt(self: &Arc<Self>, counters: &Arc<Counters>) -> Seat {
        self.seat(counters, 0, None)
    }

    /// A seat that is free now.
    pub(super) fn at_once(self: &Arc<Self>, counters: &Arc<Counters>, width: u32) -> Option<Seat> {
        self.try_take(width).then(|| self.seat(counters, width, None))
    }

    /// A seat, waited for if need be, but no longer than `patience`. `flow` is a number that tells flows apart.
    ///
    /// # Errors
    /// Why there is none.
    ///
    /// # Cancel safety
    /// Who is dropped waits no longer.
    pub(super) async fn take(
        self: &Arc<Self>,
        counters: &Arc<Counters>,
        width: u32,
        flow: u64,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let mut place = match self.stand(counters, width, flow)? {
            Standing::Seated(seat) => return Ok(seat),
            Standing::Waits(place) => place,
        };
        let begun = Instant::now();
        let told = tokio::time::timeout(patience, &mut place.told).await;
        counters.waited(begun.elapsed(), told.is_ok());
        match told {
            Ok(Ok(seat)) => Ok(seat),
            // The level itself is held by the place, so it does not go away without telling.
            Ok(Err(_)) | Err(_) => Err(Refusal::TimeOut),
        }
    }

    /// Joins a queue, unless a seat can be borrowed.
    pub(super) fn stand(
        self: &Arc<Self>,
        counters: &Arc<Counters>,
        width: u32,
        flow: u64,
    ) -> Result<Standing, Refusal> {
        let pool = self.pool.upgrade();
        let rebalance = || pool.iter().for_each(|pool| pool.rebalance());
        let queuing = match lock(&self.inner).manner {
            Manner::Exempt => return Ok(Standing::Seated(self.exempt(counters))),
            Manner::Queue(queuing) => Some(queuing),
            Manner::Reject => None,
        };
        // It is counted while the seats are divided.
        self.wanted.fetch_add(width, Ordering::SeqCst);
        let Some(queuing) = queuing else {
            rebalance();
            let seat = self.at_once(counters, width);
            self.wanted.fetch_sub(width, Ordering::SeqCst);
            return seat.map(Standing::Seated).ok_or(Refusal::ConcurrencyLimit);
        };
        let (tell, told) = oneshot::channel();
        let caller = Caller { tell, counters: Arc::clone(counters) };
        let ticket = {
            let mut inner = lock(&self.inner);
            let ticket = inner.queues.push(queuing, flow, width, caller);
            if ticket.is_some() {
                self.load.fetch_add(ONE_WAITS, Ordering::SeqCst);
                counters.queued(1);
            }
            ticket
        };
        let Some(ticket) = ticket else {
            self.wanted.fetch_sub(width, Ordering::SeqCst);
            return Err(Refusal::QueueFull);
        };
        let place = Place { level: Arc::clone(self), counters: Arc::clone(counters), ticket, width, told };
        rebalance();
        self.let_in();
        Ok(Standing::Waits(place))
    }

    /// Lets in whoever waits while there are seats.
    fn let_in(self: &Arc<Self>) {
        // Told when nothing is locked: whoever is gone meanwhile gives his seat back, which locks.
        let mut next = Vec::new();
        {
            let mut inner = lock(&self.inner);
            loop {
                let limit = self.limit();
                let takes = |width: u32| {
                    let taken = self.load.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |load| {
                        Load(load).takes(width, limit).then(|| load + u64::from(width) - ONE_WAITS)
                    });
                    taken.is_ok()
                };
                let Some((queue, width, caller)) = inner.queues.pop(takes) else { break };
                self.wanted.fetch_sub(width, Ordering::SeqCst);
                caller.counters.queued(-1);
                let seat = self.seat(&caller.counters, width, Some(queue));
                next.push((caller.tell, seat));
            }
        }
        for (tell, seat) in next {
            // Who is gone drops his seat.
            drop(tell.send(seat));
        }
    }

    fn give_back(self: &Arc<Self>, width: u32, queue: Option<u32>, took: Duration) {
        if let Some(queue) = queue {
            lock(&self.inner).queues.done(queue, took);
        }
        if width == 0 {
            return;
        }
        let before = Load(self.load.fetch_sub(u64::from(width), Ordering::SeqCst));
        if before.waiting() > 0 {
            if let Some(pool) = self.pool.upgrade() {
                pool.rebalance();
            }
            self.let_in();
        }
    }
}

/// How a request that found no seat free stands.
#[derive(Debug)]
pub(super) enum Standing {
    Seated(Seat),
    Waits(Place),
}

/// A place in a queue. Given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    level: Arc<Level>,
    counters: Arc<Counters>,
    ticket: Ticket,
    width: u32,
    pub(super) told: oneshot::Receiver<Seat>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let level = &self.level;
        let was_there = {
            let mut inner = lock(&level.inner);
            let was_there = inner.queues.remove(self.ticket);
            if was_there {
                level.load.fetch_sub(ONE_WAITS, Ordering::SeqCst);
            }
            was_there
        };
        if was_there {
            level.wanted.fetch_sub(self.width, Ordering::SeqCst);
            self.counters.queued(-1);
            // It may have been the one that the others waited behind.
            level.let_in();
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        self.counters.ended(self.width, took);
        self.level.give_back(self.width, self.queue, took);
    }
}
