//! What is used, worked out of two summaries of a node: CPU time grows for ever, so that how much is used *now* is the
//! difference of two looks by the time between them.
//!
//! The window that is told is the time between the two looks, by the node's clock: the figure is the true average over it.
//!
//! - A container that started within the window counts with all it has used, as there is no more: the pod's figures are sums
//!   over one window, however often its containers start anew in it.
//! - A pod that started within the window has its age as its window. (metrics-server has nothing to say of it for the first
//!   ten seconds at least.) One younger than [`SHORTEST`] is left out: what a program does first is not what it does.
//! - Who has the same counter at a later time with less in it, or whose clock was set in between, is left out.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::summary::{Container, Pod, PodKey, Point, Summary};

/// Windows are as long as this at least: counters move by ticks of ten milliseconds, and a look takes its time.
pub(super) const SHORTEST: Duration = Duration::from_secs(1);

/// And as long as this at most, so that they tell of now.
pub(super) const LONGEST: Duration = Duration::from_secs(30);

/// A node's summary, and when this server asked for it and had it: in between the node took its figures.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) asked: Instant,
    pub(super) answered: Instant,
    pub(super) summary: Summary,
}

/// What is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Used {
    /// Billionths of a core, on average over the window.
    pub(super) cpu: u64,
    /// The working set at the window's end, in bytes.
    pub(super) memory: u64,
}

/// The time that figures are about, by the node's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) end: Timestamp,
    pub(super) length: SignedDuration,
}

/// What a pod's containers use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodFigures {
    pub(super) uid: String,
    pub(super) window: Window,
    pub(super) containers: BTreeMap<String, Used>,
}

/// What a node and its pods use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) node: Option<(Window, Used)>,
    pub(super) pods: BTreeMap<PodKey, PodFigures>,
}

/// How long may have passed between two looks at most and at least, by this server's clock that nobody sets.
#[derive(Clone, Copy, Debug)]
struct Passed {
    least: SignedDuration,
    most: SignedDuration,
}

impl Passed {
    fn between(first: &Look, last: &Look) -> Self {
        let length = |from: Instant, to: Instant| {
            SignedDuration::try_from(to.saturating_duration_since(from)).unwrap_or(SignedDuration::MAX)
        };
        // Clocks that are being put right run up to a two-thousandth faster or slower (adjtimex(2)).
        let most = length(first.asked, last.answered);
        let slack = most / 1000 + SignedDuration::from_millis(1);
        Self { least: length(first.answered, last.asked) - slack, most: most.saturating_add(slack) }
    }

    /// The time between two points, if it is one that can have passed.
    fn window(self, first: &Point, last: &Point) -> Option<SignedDuration> {
        let window = last.at.duration_since(first.at);
        (window.is_positive() && window >= self.least && window <= self.most).then_some(window)
    }
}

/// CPU time by time; what does not fit is as much as fits.
fn rate(spent: u64, window: SignedDuration) -> u64 {
    let nanos = window.as_nanos().unsigned_abs().max(1);
    u64::try_from(u128::from(spent) * 1_000_000_000 / nanos).unwrap_or(u64::MAX)
}

/// What a node uses by two looks at it. None if they do not belong together because the node's clock was set in between.
pub(super) fn between(first: &Look, last: &Look) -> Option<Figures> {
    let passed = Passed::between(first, last);
    let node = match (&first.summary.node, &last.summary.node) {
        (Some(before), Some(now)) => {
            let length = passed.window(before, now)?;
            // Only a node that was started anew has used less than before.
            let spent = now.cpu.checked_sub(before.cpu);
            spent.map(|spent| (Window { end: now.at, length }, Used { cpu: rate(spent, length), memory: now.memory }))
        }
        _ => None,
    };
    let pods = last.summary.pods.iter().filter_map(|(key, now)| {
        let before = first.summary.pods.get(key).filter(|before| before.uid == now.uid);
        Some((key.clone(), pod(before, now, passed)?))
    });
    Some(Figures { node, pods: pods.collect() })
}

fn pod(before: Option<&Pod>, now: &Pod, passed: Passed) -> Option<PodFigures> {
    let end = now.containers.values().map(|container| container.point.at).min()?;
    // Each container with what it was like at the window's begin, unless it started since then.
    let both: Vec<(&String, &Container, Option<&Point>)> = now
        .containers
        .iter()
        .map(|(name, container)| {
            let before = before.and_then(|pod| pod.containers.get(name)).map(|before| &before.point);
            let is_same = |before: &&Point| container.started.is_none_or(|started| started <= before.at);
            (name, container, before.filter(is_same))
        })
        .collect();
    let known = both.iter().filter_map(|(_, container, before)| Some((container, (*before)?)));
    let windows = known.map(|(container, before)| passed.window(before, &container.point));
    let windows: Vec<SignedDuration> = windows.collect::<Option<_>>()?;
    let ages = both.iter().filter(|(.., before)| before.is_none());
    let ages = ages.map(|(_, container, _)| Some(container.point.at.duration_since(container.started?)));
    let oldest = ages.collect::<Option<Vec<SignedDuration>>>()?.into_iter().max();
    let length = match (windows.into_iter().max(), oldest) {
        // It was there before, and the first look has missed it.
        (Some(window), Some(age)) if age > window => return None,
        (Some(window), _) => window,
        (None, age) => age.filter(|age| (SHORTEST..=LONGEST).contains(&age.unsigned_abs()) && age.is_positive())?,
    };
    let containers = both.into_iter().map(|(name, container, before)| {
        let now = &container.point;
        let cpu = match before {
            Some(before) => rate(now.cpu.checked_sub(before.cpu)?, passed.window(before, now)?),
            None => rate(now.cpu, length),
        };
        Some((name.clone(), Used { cpu, memory: now.memory }))
    });
    let containers = containers.collect::<Option<_>>()?;
    Some(PodFigures { uid: now.uid.clone(), window: Window { end, length }, containers })
}

#[cfg(test)]
mod tests;
