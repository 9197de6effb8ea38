//! Requests under way: counted as long as these guards live.

use std::sync::{Arc, atomic::Ordering};

use super::{Metrics, Sort};

/// A short request that is being handled.
pub(crate) struct InFlight<'a> {
    metrics: &'a Metrics,
    sort: Sort,
}

impl<'a> InFlight<'a> {
    pub(crate) fn new(metrics: &'a Metrics, sort: Sort) -> Self {
        let in_flight = Self { metrics, sort };
        in_flight.add(1);
        in_flight
    }

    fn add(&self, count: i64) {
        let gauge = if self.sort.is_mutating { &self.metrics.mutating } else { &self.metrics.read_only };
        gauge.fetch_add(count, Ordering::Relaxed);
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.add(-1);
    }
}

/// A long-running request.
pub(crate) struct Running {
    metrics: Arc<Metrics>,
    sort: Sort,
}

impl Running {
    pub(crate) fn new(metrics: Arc<Metrics>, sort: Sort) -> Self {
        let running = Self { metrics, sort };
        running.add(1);
        running
    }

    fn add(&self, count: i64) {
        if let Some(cell) = self.metrics.cell(self.sort) {
            cell.running.fetch_add(count, Ordering::Relaxed);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.add(-1);
    }
}
