//! The queues of one priority level, and whose turn it is: fair queuing by the seats' time that flows take.
//!
//! Each queue has a tag: the work that was done for it. The queue with the lowest one is next, and its tag grows by what
//! its request is expected to take (its seats, times what requests of the queue took lately). A queue that had nothing to
//! do does not save that up: when it is used again its tag is at least that of the last request that was let in. This is
//! start-time fair queuing (Goyal, Vin, Cheng: SFQ, 1996); KEP-1040 asks for the same fairness.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::shuffle::deal;

/// How requests of a level queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queuing {
    /// How many queues there are.
    pub(crate) queues: u32,
    /// How many of them a flow is dealt.
    pub(crate) hand: u32,
    /// How many requests may wait in one.
    pub(crate) length: u32,
}

/// Names a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) queue: u32,
    id: u64,
}

/// A request that waits, with what its owner is called by.
#[derive(Debug)]
struct Waiting<T> {
    id: u64,
    width: u32,
    caller: T,
}

#[derive(Debug)]
struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    /// Seats of those that wait.
    width: u64,
    /// Requests from here that are being worked on.
    running: u32,
    /// Microseconds of seats that were given.
    tag: u64,
    /// Microseconds that a request took lately.
    usual: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queues<T> {
    /// Those that are used; there may be millions that are not.
    queues: HashMap<u32, Queue<T>>,
    /// Those in which somebody waits, by their tags.
    order: BTreeSet<(u64, u32)>,
    /// The tag of the last request that was let in.
    now: u64,
    /// What requests of this level took lately, for queues that are new.
    usual: u64,
    next: u64,
}

/// A new figure among those before it.
fn blend(before: u64, new: u64) -> u64 {
    (before.saturating_mul(7).saturating_add(new)) / 8
}

impl<T> Queues<T> {
    pub(super) fn new() -> Self {
        Self { queues: HashMap::new(), order: BTreeSet::new(), now: 0, usual: 1000, next: 0 }
    }

    /// Puts a request into the one of its flow's queues where the fewest seats are waited for; none when that one is full.
    pub(super) fn push(&mut self, queuing: Queuing, flow: u64, width: u32, caller: T) -> Option<Ticket> {
        let hand = deal(flow, queuing.queues, queuing.hand);
        let load = |at: &u32| self.queues.get(at).map_or((0, 0), |queue| (queue.width, queue.running));
        let at = hand.into_iter().min_by_key(load)?;
        let (now, usual) = (self.now, self.usual);
        let queue = self.queues.entry(at).or_insert_with(|| Queue {
            waiting: VecDeque::new(),
            width: 0,
            running: 0,
            tag: now,
            usual,
        });
        if queue.waiting.len() >= usize::try_from(queuing.length).unwrap_or(usize::MAX) {
            return None;
        }
        if queue.waiting.is_empty() {
            queue.tag = queue.tag.max(now);
            self.order.insert((queue.tag, at));
        }
        self.next += 1;
        queue.width += u64::from(width);
        queue.waiting.push_back(Waiting { id: self.next, width, caller });
        Some(Ticket { queue: at, id: self.next })
    }

    /// Lets the next request in, if `takes` has seats for it; nobody overtakes it.
    pub(super) fn pop(&mut self, takes: impl FnOnce(u32) -> bool) -> Option<(u32, u32, T)> {
        let (tag, at) = *self.order.first()?;
        let queue = self.queues.get_mut(&at)?;
        if !takes(queue.waiting.front()?.width) {
            return None;
        }
        let first = queue.waiting.pop_front()?;
        self.order.remove(&(tag, at));
        self.now = self.now.max(tag);
        queue.width -= u64::from(first.width);
        queue.running += 1;
        queue.tag = tag.saturating_add(queue.usual.max(1).saturating_mul(u64::from(first.width)));
        if !queue.waiting.is_empty() {
            self.order.insert((queue.tag, at));
        }
        Some((at, first.width, first.caller))
    }

    /// Takes a request out that does not wait any longer; whether it was still there.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let Some(queue) = self.queues.get_mut(&ticket.queue) else { return false };
        let Some(place) = queue.waiting.iter().position(|waiting| waiting.id == ticket.id) else { return false };
        if let Some(gone) = queue.waiting.remove(place) {
            queue.width -= u64::from(gone.width);
        }
        if queue.waiting.is_empty() {
            self.order.remove(&(queue.tag, ticket.queue));
            self.tidy(ticket.queue);
        }
        true
    }

    /// A request that had waited here is done.
    pub(super) fn done(&mut self, at: u32, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.usual = blend(self.usual, took);
        if let Some(queue) = self.queues.get_mut(&at) {
            queue.running = queue.running.saturating_sub(1);
            queue.usual = blend(queue.usual, took);
            self.tidy(at);
        }
    }

    /// Forgets a queue that is not used and owes nothing; when nobody waits anywhere, all that are not used.
    fn tidy(&mut self, at: u32) {
        let is_idle = |queue: &Queue<T>| queue.waiting.is_empty() && queue.running == 0;
        if self.order.is_empty() {
            self.queues.retain(|_, queue| !is_idle(queue));
        } else if self.queues.get(&at).is_some_and(|queue| is_idle(queue) && queue.tag <= self.now) {
            self.queues.remove(&at);
        }
    }

    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.queues.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Queuing = Queuing { queues: 64, hand: 1, length: 1000 };

    /// A flow whose only queue is this one.
    fn flow(queue: u32) -> u64 {
        u64::from(queue)
    }

    fn drain(queues: &mut Queues<&'static str>, took: impl Fn(&str) -> u64) -> Vec<&'static str> {
        let mut order = Vec::new();
        while let Some((at, _, name)) = queues.pop(|_| true) {
            order.push(name);
            queues.done(at, Duration::from_micros(took(name)));
        }
        order
    }

    #[test]
    fn a_flood_does_not_keep_another_flow_from_its_turn() {
        let mut queues = Queues::new();
        for _ in 0..500 {
            queues.push(LARGE, flow(1), 1, "flood").unwrap();
        }
        for _ in 0..3 {
            queues.push(LARGE, flow(2), 1, "other").unwrap();
        }
        let order = drain(&mut queues, |_| 1000);
        let last = order.iter().rposition(|name| *name == "other").unwrap();
        assert!(last <= 6, "each other one goes by turns with the flood, the last was {last}");
        assert_eq!(order.len(), 503);
        assert_eq!(queues.used(), 0, "nothing is kept of flows that are gone");
    }

    #[test]
    fn flows_get_the_same_time_and_not_the_same_number() {
        let mut queues = Queues::new();
        for _ in 0..400 {
            queues.push(LARGE, flow(1), 1, "long").unwrap();
            queues.push(LARGE, flow(2), 1, "short").unwrap();
        }
        let order = drain(&mut queues, |name| if name == "long" { 8000 } else { 1000 });
        let head = order.iter().take(200);
        let long = head.filter(|name| **name == "long").count();
        // Eight short ones to a long one once that is known of them.
        assert!((15..45).contains(&long), "{long} of 200");
    }

    #[test]
    fn wide_requests_count_by_their_seats() {
        let mut queues = Queues::new();
        for _ in 0..400 {
            queues.push(LARGE, flow(1), 10, "wide").unwrap();
            queues.push(LARGE, flow(2), 1, "narrow").unwrap();
        }
        let order = drain(&mut queues, |_| 1000);
        let wide = order.iter().take(220).filter(|name| **name == "wide").count();
        assert!((18..24).contains(&wide), "{wide} of 220");
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let mut queues = Queues::new();
        queues.push(LARGE, flow(2), 1, "b").unwrap();
        for _ in 0..100 {
            queues.push(LARGE, flow(1), 1, "a").unwrap();
        }
        for _ in 0..50 {
            let (at, _, _) = queues.pop(|_| true).unwrap();
            queues.done(at, Duration::from_micros(1000));
        }
        for _ in 0..50 {
            queues.push(LARGE, flow(2), 1, "b").unwrap();
        }
        let order = drain(&mut queues, |_| 1000);
        let b = order.iter().take(20).filter(|name| **name == "b").count();
        assert!((9..=11).contains(&b), "by turns, and not first all that was not used: {b} of 20");
    }

    #[test]
    fn a_full_queue_takes_no_more_and_nobody_overtakes_the_first() {
        let mut queues = Queues::new();
        let queuing = Queuing { queues: 1, hand: 1, length: 2 };
        let first = queues.push(queuing, 0, 5, "wide").unwrap();
        let second = queues.push(queuing, 0, 1, "narrow").unwrap();
        assert_eq!(queues.push(queuing, 0, 1, "one too many"), None);
        assert!(queues.pop(|width| width <= 3).is_none(), "the narrow one waits behind the wide one");
        assert!(queues.remove(first) && !queues.remove(first));
        assert_eq!(queues.pop(|width| width <= 3).map(|(_, _, name)| name), Some("narrow"));
        assert!(!queues.remove(second), "it does not wait any more");
        queues.done(0, Duration::ZERO);
        assert_eq!(queues.used(), 0);
    }

    #[test]
    fn a_flow_goes_where_the_fewest_wait() {
        let mut queues = Queues::new();
        let queuing = Queuing { queues: 4, hand: 4, length: 1 };
        let taken: std::collections::BTreeSet<u32> =
            (0..4).map(|_| queues.push(queuing, 9, 1, "x").unwrap().queue).collect();
        assert_eq!(taken.len(), 4, "four queues of one place each take four");
        assert_eq!(queues.push(queuing, 9, 1, "x"), None);
    }
}
