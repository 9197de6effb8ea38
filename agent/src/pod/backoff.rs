//! How long to wait before trying again: doubling from a first delay to a greatest one, forgotten after a good while.
//!
//! Times are passed in, so tables can test it. The figures are Kubernetes': 10 s to 300 s, forgotten after ten minutes in
//! which nothing failed.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

/// The first delay.
pub(crate) const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The greatest delay.
pub(crate) const MOST: SignedDuration = SignedDuration::from_secs(300);
/// After how long without a new failure the next one counts as the first.
const FORGET: SignedDuration = SignedDuration::from_secs(600);

/// One key's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    delay: SignedDuration,
    updated: Timestamp,
}

/// Backoffs by key; bounded by the pod's containers, which are the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoffs(BTreeMap<String, Entry>);

impl Backoffs {
    /// The delay that holds for `key` after a failure at `failed`, and until when; `None` if it may be tried now.
    pub(crate) fn held(&self, key: &str, failed: Timestamp, now: Timestamp) -> Option<(SignedDuration, Timestamp)> {
        let entry = self.0.get(key)?;
        if failed.duration_since(entry.updated) > FORGET {
            return None;
        }
        let until = failed.saturating_add(entry.delay).unwrap_or(failed);
        (now < until).then_some((entry.delay, until))
    }

    /// Notes that `key` is tried again at `now` after a failure at `failed`: the next delay doubles.
    pub(crate) fn next(&mut self, key: &str, failed: Timestamp, now: Timestamp) -> SignedDuration {
        let delay = match self.0.get(key) {
            Some(entry) if failed.duration_since(entry.updated) <= FORGET => {
                entry.delay.checked_mul(2).map_or(MOST, |d| d.min(MOST))
            }
            _ => FIRST,
        };
        self.0.insert(key.to_owned(), Entry { delay, updated: now });
        delay
    }

    /// Forgets `key`.
    pub(crate) fn reset(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// A delay as Kubernetes prints it: `10s`, `2m40s`, `5m0s`.
pub(crate) fn show(delay: SignedDuration) -> String {
    let secs = delay.as_secs();
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + secs).unwrap()
    }

    #[test]
    fn delays_double_from_ten_seconds_to_five_minutes() {
        let mut backoffs = Backoffs::default();
        let mut now = 0;
        let mut seen = Vec::new();
        for _ in 0..8 {
            let delay = backoffs.next("app", at(now), at(now));
            seen.push(show(delay));
            now += delay.as_secs();
        }
        assert_eq!(seen, ["10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s", "5m0s"]);
    }

    #[test]
    fn the_first_failure_is_tried_again_at_once_and_the_second_waits() {
        let mut backoffs = Backoffs::default();
        assert_eq!(backoffs.held("app", at(0), at(0)), None);
        backoffs.next("app", at(0), at(0));
        assert_eq!(backoffs.held("app", at(1), at(2)), Some((FIRST, at(11))));
        assert_eq!(backoffs.held("app", at(1), at(11)), None);
    }

    #[test]
    fn ten_good_minutes_are_a_new_beginning() {
        let mut backoffs = Backoffs::default();
        backoffs.next("app", at(0), at(0));
        backoffs.next("app", at(10), at(10));
        assert_eq!(backoffs.held("app", at(700), at(700)), None);
        assert_eq!(backoffs.next("app", at(700), at(700)), FIRST);
    }
}
