//! Work queues: keys of objects to look at, each once however often it is added, never two workers on one key.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::figures::{self, QueueFigures};

/// The first wait after a failure; it doubles with each (client-go's default rate limiter).
const FIRST_RETRY: Duration = Duration::from_millis(5);
/// The longest wait: long enough to cost nothing, short enough that a mended cluster mends itself.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

struct Inner<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there when its worker is done; since when.
    dirty: HashMap<K, Instant>,
    /// With a worker; since when.
    busy: HashMap<K, Instant>,
    later: BTreeSet<(Instant, K)>,
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    figures: Arc<QueueFigures>,
}

/// See the module. Bounded by the number of objects there are.
pub(crate) struct WorkQueue<K> {
    inner: Mutex<Inner<K>>,
    news: Notify,
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            ready: VecDeque::new(),
            dirty: HashMap::new(),
            busy: HashMap::new(),
            later: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            figures: Arc::default(),
        };
        Self { inner: Mutex::new(inner), news: Notify::new() }
    }

    /// Has the queue told of under this name in the process's figures.
    pub(crate) fn tell_as(&self, name: &'static str) {
        figures::tell_of(name, &self.lock().figures);
    }

    /// Has the key looked at as soon as a worker is free.
    pub(crate) fn add(&self, key: K) {
        let mut inner = self.lock();
        inner.add(key);
        drop(inner);
        self.news.notify_one();
    }

    /// Has the key looked at after `delay`, or earlier if it is due earlier already.
    pub(crate) fn add_after(&self, key: K, delay: Duration) {
        let mut inner = self.lock();
        let at = Instant::now() + delay;
        match inner.due.get(&key).copied() {
            Some(due) if due <= at => return,
            Some(due) => {
                inner.later.remove(&(due, key.clone()));
            }
            None => {}
        }
        inner.due.insert(key.clone(), at);
        inner.later.insert((at, key));
        drop(inner);
        self.news.notify_one();
    }

    /// Has the key looked at again after a failure, later each time.
    pub(crate) fn retry(&self, key: K) {
        let mut inner = self.lock();
        let failures = inner.failures.entry(key.clone()).or_default();
        let delay = FIRST_RETRY.saturating_mul(1 << (*failures).min(24)).min(LONGEST_RETRY);
        *failures = failures.saturating_add(1);
        inner.figures.retried();
        drop(inner);
        self.add_after(key, delay);
    }

    /// Forgets the key's failures.
    pub(crate) fn forget(&self, key: &K) {
        self.lock().failures.remove(key);
    }

    /// The next key to look at; [`Self::done`] must be called with it.
    ///
    /// # Cancel safety
    /// A key is only taken when the future is ready.
    pub(crate) async fn next(&self) -> K {
        loop {
            let due = {
                let mut inner = self.lock();
                let now = Instant::now();
                inner.wake(now);
                if let Some(key) = inner.ready.pop_front() {
                    let since = inner.dirty.remove(&key).unwrap_or(now);
                    inner.busy.insert(key.clone(), now);
                    inner.figures.taken(now, now - since);
                    inner.figures.set_depth(inner.ready.len());
                    // Others may be waiting while there is more.
                    if !inner.ready.is_empty() {
                        self.news.notify_one();
                    }
                    return key;
                }
                inner.later.first().map(|(at, _)| *at)
            };
            let news = self.news.notified();
            match due {
                Some(at) => tokio::select! {
                    () = news => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => news.await,
            }
        }
    }

    /// The worker is done with the key; if it was added meanwhile it is ready again.
    pub(crate) fn done(&self, key: &K) {
        let mut inner = self.lock();
        if let Some(since) = inner.busy.remove(key) {
            inner.figures.done(since);
        }
        if inner.dirty.contains_key(key) {
            inner.ready.push_back(key.clone());
            inner.figures.set_depth(inner.ready.len());
            drop(inner);
            self.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        // Nothing under the lock can panic half-way through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Ord> Inner<K> {
    fn add(&mut self, key: K) {
        if let Some(due) = self.due.remove(&key) {
            self.later.remove(&(due, key.clone()));
        }
        if self.dirty.contains_key(&key) {
            return;
        }
        self.dirty.insert(key.clone(), Instant::now());
        self.figures.added();
        if !self.busy.contains_key(&key) {
            self.ready.push_back(key);
            self.figures.set_depth(self.ready.len());
        }
    }

    fn wake(&mut self, now: Instant) {
        while let Some((at, _)) = self.later.first()
            && *at <= now
            && let Some((_, key)) = self.later.pop_first()
        {
            self.due.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_added_often_is_looked_at_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!((queue.next().await, queue.next().await), ("a", "b"));
        assert!(futures::poll!(Box::pin(queue.next())).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_added_while_it_is_worked_on_comes_again_afterwards() {
        let queue = WorkQueue::new();
        queue.add("a");
        let key = queue.next().await;
        queue.add("a");
        assert!(futures::poll!(Box::pin(queue.next())).is_pending());
        queue.done(&key);
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_counts() {
        let queue = WorkQueue::new();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(10));
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(20));
        queue.next().await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        queue.done(&"a");
        assert!(futures::poll!(Box::pin(queue.next())).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_each_time_until_forgotten() {
        let queue = WorkQueue::new();
        let mut waits = Vec::new();
        for round in 0..4 {
            let start = Instant::now();
            queue.retry("a");
            queue.next().await;
            queue.done(&"a");
            waits.push(start.elapsed().as_millis());
            if round == 2 {
                queue.forget(&"a");
            }
        }
        assert_eq!(waits, [5, 10, 20, 5]);
    }
}
