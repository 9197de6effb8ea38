//! Pods that wait for a place, in the order they get their turn.
//!
//! ```text
//!          set                    pop
//!  (new) ───────▶ Active ───────────────────▶ InFlight ──▶ bound: removed
//!                   ▲                            │
//!                   │ back-off over              ├─ no node fits: park ──▶ Parked
//!                   │                            │                           │
//!               BackingOff ◀── error: retry ─────┘        wake: something changed that may help
//!                   ▲                                                        │
//!                   └────────────────────────────────────────────────────────┘
//! ```
//!
//! Pure: the time is passed in.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::cluster::{Pod, PodKey};

/// The first wait after a failed attempt; it doubles with each (Kubernetes' `podInitialBackoffSeconds`).
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// The longest wait (Kubernetes' `podMaxBackoffSeconds`).
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

type Rank = (Reverse<i32>, u64, PodKey);

/// Where a pod is; see the module's picture for who leaves where by what.
#[derive(Debug)]
enum Place {
    /// Its turn comes by priority, then by arrival. Left by `pop`.
    Active(Rank),
    /// Tried lately. Left when the time comes, in `pop`.
    BackingOff(Instant),
    /// No node fits. Left by `wake`, or by a change of the pod itself.
    Parked,
    /// Being tried or bound. Left by `park`, `retry` or `remove`.
    InFlight,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    attempts: u32,
    last_try: Option<Instant>,
    place: Place,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pods: HashMap<PodKey, Entry>,
    active: BTreeSet<Rank>,
    backing_off: BTreeSet<(Instant, PodKey)>,
    arrivals: u64,
}

fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF)
}

/// Whether the pod as it is now may fit where the pod as it was did not.
fn wishes_changed(old: &Pod, new: &Pod) -> bool {
    old.uid != new.uid
        || old.asks != new.asks
        || old.tolerations != new.tolerations
        || old.node_selector != new.node_selector
        || old.node_affinity.required != new.node_affinity.required
}

impl Queue {
    /// Takes in a pod that waits for a place, or its change.
    pub(crate) fn set(&mut self, pod: Arc<Pod>) {
        let key = pod.key();
        if let Some(entry) = self.pods.get_mut(&key) {
            let changed = wishes_changed(&entry.pod, &pod);
            entry.pod = pod;
            if changed && matches!(entry.place, Place::Parked | Place::BackingOff(_)) {
                self.activate(&key);
            }
            return;
        }
        let entry = Entry { pod, attempts: 0, last_try: None, place: Place::InFlight };
        self.pods.insert(key.clone(), entry);
        self.activate(&key);
    }

    /// Forgets a pod: it is bound, or gone.
    pub(crate) fn remove(&mut self, key: &str) {
        if let Some(entry) = self.pods.remove(key) {
            self.leave(key, &entry.place);
        }
    }

    /// The pod whose turn it is, if any; it is in flight from now on.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Arc<Pod>> {
        while let Some((until, _)) = self.backing_off.first()
            && *until <= now
            && let Some((_, key)) = self.backing_off.pop_first()
        {
            self.activate(&key);
        }
        let (_, _, key) = self.active.pop_first()?;
        let entry = self.pods.get_mut(&key)?;
        entry.place = Place::InFlight;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_try = Some(now);
        Some(Arc::clone(&entry.pod))
    }

    /// No node fits: the pod waits until something changes.
    pub(crate) fn park(&mut self, key: &str) {
        if let Some(entry) = self.pods.get_mut(key) {
            entry.place = Place::Parked;
        }
    }

    /// The attempt failed for a reason that passes: the pod is tried again after its back-off.
    pub(crate) fn retry(&mut self, key: &str, now: Instant) {
        self.back_off(key, now);
    }

    /// Something changed that may help: every parked pod is tried again, though not before its back-off is over.
    pub(crate) fn wake(&mut self, now: Instant) {
        let parked = self.pods.iter().filter(|(_, e)| matches!(e.place, Place::Parked));
        let keys: Vec<PodKey> = parked.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.back_off(&key, now);
        }
    }

    /// When the next back-off ends, if none is active before.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.backing_off.first().map(|(until, _)| *until)
    }

    /// The keys of all pods here, to find those a fresh list no longer has.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &PodKey> {
        self.pods.keys()
    }

    fn back_off(&mut self, key: &str, now: Instant) {
        let Some(entry) = self.pods.get_mut(key) else { return };
        let until = entry.last_try.unwrap_or(now) + backoff(entry.attempts);
        let old = std::mem::replace(&mut entry.place, Place::BackingOff(until));
        self.leave(key, &old);
        self.backing_off.insert((until, key.to_owned()));
    }

    fn activate(&mut self, key: &str) {
        let Some(entry) = self.pods.get_mut(key) else { return };
        self.arrivals += 1;
        let rank: Rank = (Reverse(entry.pod.priority), self.arrivals, key.to_owned());
        let old = std::mem::replace(&mut entry.place, Place::Active(rank.clone()));
        self.leave(key, &old);
        self.active.insert(rank);
    }

    fn leave(&mut self, key: &str, place: &Place) {
        match place {
            Place::Active(rank) => {
                self.active.remove(rank);
            }
            Place::BackingOff(until) => {
                self.backing_off.remove(&(*until, key.to_owned()));
            }
            Place::Parked | Place::InFlight => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, priority: i32) -> Arc<Pod> {
        Arc::new(Pod { name: name.to_owned(), namespace: "d".to_owned(), priority, ..Pod::default() })
    }

    fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
        queue.pop(now).map(|p| p.name.clone())
    }

    #[test]
    fn higher_priority_goes_first_then_who_came_first() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            queue.set(pod(name, priority));
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn a_parked_pod_waits_for_a_change_and_for_its_backoff() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0));
        assert!(queue.pop(start).is_some());
        queue.park("d/a");
        assert_eq!(popped(&mut queue, start + Duration::from_secs(3600)), None);
        queue.wake(start);
        assert_eq!(queue.next(), Some(start + FIRST_BACKOFF));
        assert_eq!(popped(&mut queue, start), None);
        assert_eq!(popped(&mut queue, start + FIRST_BACKOFF), Some("a".to_owned()));
    }

    #[test]
    fn backoff_doubles_up_to_ten_seconds() {
        let waits: Vec<u64> = (1..7).map(|n| backoff(n).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn a_changed_wish_is_tried_at_once_and_a_changed_status_is_not() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.set(pod("a", 0));
        queue.pop(now);
        queue.park("d/a");
        queue.set(pod("a", 0));
        assert_eq!(popped(&mut queue, now), None);
        let mut wishes = Pod::clone(&pod("a", 0));
        wishes.node_selector.insert("disk".to_owned(), "ssd".to_owned());
        queue.set(Arc::new(wishes));
        assert_eq!(popped(&mut queue, now), Some("a".to_owned()));
    }

    #[test]
    fn a_removed_pod_leaves_nothing_behind() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for step in 0..4 {
            queue.set(pod("a", 0));
            if step > 0 {
                queue.pop(now);
            }
            match step {
                2 => queue.park("d/a"),
                3 => queue.retry("d/a", now),
                _ => {}
            }
            queue.remove("d/a");
            assert!(queue.pods.is_empty() && queue.active.is_empty() && queue.backing_off.is_empty(), "{step}");
        }
    }
}
