//! What is counted of the requests of one flow schema at one priority level.

use std::{
    array,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

use super::level::Refusal;
use crate::metrics::{Histogram, Scale};

/// How long requests wait and are worked on, as in Kubernetes.
static DURATIONS: Scale =
    Scale::durations(&[5, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 15_000, 20_000, 30_000]);

/// See the module.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) schema: String,
    pub(crate) level: String,
    pub(crate) dispatched: AtomicU64,
    /// In the order of [`REASONS`].
    pub(crate) rejected: [AtomicU64; REASONS.len()],
    pub(crate) waiting: AtomicI64,
    pub(crate) executing: AtomicI64,
    pub(crate) seats: AtomicI64,
    pub(crate) executed: Histogram,
    /// Of those that got a seat.
    pub(crate) waited: Histogram,
    /// Of those that got none.
    pub(crate) waited_in_vain: Histogram,
}

/// The reasons of refusals, as Kubernetes labels them.
pub(crate) const REASONS: [&str; 3] = ["concurrency-limit", "queue-full", "time-out"];

impl Counters {
    pub(super) fn new(schema: &str, level: &str) -> Self {
        Self {
            schema: schema.to_owned(),
            level: level.to_owned(),
            dispatched: AtomicU64::new(0),
            rejected: array::from_fn(|_| AtomicU64::new(0)),
            waiting: AtomicI64::new(0),
            executing: AtomicI64::new(0),
            seats: AtomicI64::new(0),
            executed: Histogram::new(&DURATIONS),
            waited: Histogram::new(&DURATIONS),
            waited_in_vain: Histogram::new(&DURATIONS),
        }
    }

    pub(super) fn begun(&self, width: u32) {
        self.dispatched.fetch_add(1, Ordering::Relaxed);
        self.executing.fetch_add(1, Ordering::Relaxed);
        self.seats.fetch_add(i64::from(width), Ordering::Relaxed);
    }

    pub(super) fn ended(&self, width: u32, took: Duration) {
        self.executing.fetch_sub(1, Ordering::Relaxed);
        self.seats.fetch_sub(i64::from(width), Ordering::Relaxed);
        self.executed.took(took);
    }

    pub(super) fn queued(&self, by: i64) {
        self.waiting.fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn waited(&self, took: Duration, got_seat: bool) {
        if got_seat { &self.waited } else { &self.waited_in_vain }.took(took);
    }

    pub(super) fn refused(&self, why: Refusal) {
        let [limit, full, late] = &self.rejected;
        match why {
            Refusal::ConcurrencyLimit => limit,
            Refusal::QueueFull => full,
            Refusal::TimeOut => late,
        }
        .fetch_add(1, Ordering::Relaxed);
    }
}
