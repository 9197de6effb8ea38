//! How quick the disks are: this member's, by how long it waits for its syncs, and its peers', by what they tell.
//!
//! A disk that takes seconds for a sync makes writes slow, and is to do nothing else. A vote, and that an entry has arrived,
//! are said when they are synced. So where most disks need longer for that than a leader may be silent, elections would end
//! before the votes for them are there, and a leader would never hear of a majority in time. Therefore time goes slower
//! for raft-rs, by as much as the disks of a *majority* are slow. Are those of a minority, the others do without them.

use std::{collections::BTreeMap, time::Duration};

use super::{Now, Worker};
use crate::{disk::Disk, packet::Packet, peer::MemberId};

/// How long a sync is remembered: at least once, at most twice that.
const WINDOW: Duration = Duration::from_secs(30);
/// A disk is called slow when a sync takes as long as a leader may be silent at least.
pub(crate) const SLOW: Duration = Duration::from_millis(500);
/// A disk that is slower than that is waited for no longer.
const SLOWEST: Duration = Duration::from_secs(20);
/// How often a slow member tells its peers.
const TELL: Duration = Duration::from_secs(1);
/// How long a peer's word is good.
const GOOD: Duration = Duration::from_secs(10);

/// The slowest of what was done lately.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slowest {
    began: Duration,
    current: Duration,
    before: Duration,
}

impl Slowest {
    fn note(&mut self, took: Duration, now: Duration) {
        let age = now.saturating_sub(self.began);
        if age >= WINDOW {
            self.before = if age < 2 * WINDOW { self.current } else { Duration::ZERO };
            self.current = Duration::ZERO;
            self.began = now;
        }
        self.current = self.current.max(took);
    }

    /// What took longest within the last half to full minute.
    pub(crate) fn lately(&self, now: Duration) -> Duration {
        match now.saturating_sub(self.began) {
            age if age < WINDOW => self.current.max(self.before),
            age if age < 2 * WINDOW => self.current,
            _ => Duration::ZERO,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Pace {
    /// How long a sync took.
    pub(super) syncs: Slowest,
    /// How long nothing else was done for syncs: one after the other, where several were due.
    own: Slowest,
    /// What peers have told of theirs, and when.
    peers: BTreeMap<u64, (Duration, Duration)>,
    /// Ticks since raft-rs had one.
    ticks: u32,
    /// When peers were told.
    told: Option<Duration>,
    is_slow: bool,
}

impl Pace {
    /// What a peer tells of its disk.
    pub(super) fn hear(&mut self, from: u64, pace: Duration, now: Now) {
        self.peers.insert(from, (pace.min(SLOWEST), now.steady));
    }

    fn of_peer(&self, id: u64, now: Duration) -> Duration {
        let told = self.peers.get(&id).filter(|(pace, heard)| now.saturating_sub(*heard) < GOOD + 4 * *pace);
        told.map_or(Duration::ZERO, |(pace, _)| *pace)
    }
}

/// So many ticks of the clock are one of raft-rs's, if a majority has a sync done within `pace`: a leader may then be
/// silent for longer than two syncs.
fn stretch(pace: Duration) -> u32 {
    u32::try_from(2 * pace.as_millis() / SLOW.as_millis()).map_or(u32::MAX, |more| more.saturating_add(1))
}

impl<D: Disk> Worker<D> {
    /// Notes how long the last syncs took.
    pub(super) fn note_pace(&mut self, now: Now) {
        let Some(member) = &mut self.member else { return };
        let (slowest, all) = member.log_mut().take_lately();
        if all > Duration::ZERO {
            self.pace.syncs.note(slowest, now.steady);
            self.pace.own.note(all, now.steady);
        }
        let lately = self.pace.syncs.lately(now.steady);
        let is_slow = lately >= SLOW;
        if is_slow && !self.pace.is_slow {
            tracing::warn!(took = ?lately, "the disk is slow: writes take as long as it does");
        } else if !is_slow && self.pace.is_slow {
            tracing::info!("the disk is not slow any more");
        }
        self.pace.is_slow = is_slow;
    }

    /// How long a majority of the voters needs for a sync at most.
    fn majority_pace(&self, now: Now) -> Duration {
        let Some(member) = &self.member else { return Duration::ZERO };
        let own = member.own().id;
        let pace = |id: &u64| match *id == own {
            true => self.pace.own.lately(now.steady).min(SLOWEST),
            false => self.pace.of_peer(*id, now.steady),
        };
        let mut paces: Vec<Duration> = member.log().members().voters.iter().map(pace).collect();
        paces.sort_unstable();
        paces.get(paces.len() / 2).copied().unwrap_or_default()
    }

    /// How long something is waited for that takes a few syncs, when it is `patience` with quick disks.
    pub(super) fn patience(&self, patience: Duration, now: Now) -> Duration {
        patience + 4 * self.majority_pace(now).max(self.pace.own.lately(now.steady).min(SLOWEST))
    }

    /// A tick of the clock: one of raft-rs's, unless the disks are slow. A leader says in any case that it is there.
    pub(super) fn tick(&mut self, now: Now) {
        let stretch = stretch(self.majority_pace(now));
        let Some(member) = &mut self.member else { return };
        self.pace.ticks += 1;
        if self.pace.ticks >= stretch {
            self.pace.ticks = 0;
            member.tick();
            self.tick_telling();
        } else {
            member.beat();
        }
        self.tell_pace(now);
    }

    /// Tells the peers that this disk is slow: theirs to know how long to wait.
    fn tell_pace(&mut self, now: Now) {
        let (pace, Some(member)) = (self.pace.own.lately(now.steady), &self.member) else { return };
        let is_told = self.pace.told.is_some_and(|told| now.steady.saturating_sub(told) < TELL);
        if is_told || stretch(pace) == 1 {
            return;
        }
        self.pace.told = Some(now.steady);
        self.pace.peers.retain(|id, _| member.is_member(*id));
        let packet = Packet::Pace { millis: u64::try_from(pace.as_millis()).unwrap_or(u64::MAX) }.encode();
        for id in member.ids().filter(|id| *id != member.own().id) {
            self.settings.transport.send(MemberId(id), packet.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn what_was_slow_is_forgotten_after_a_minute() {
        let mut slowest = Slowest::default();
        slowest.note(seconds(2), seconds(100));
        slowest.note(seconds(1), seconds(101));
        assert_eq!(slowest.lately(seconds(101)), seconds(2));
        assert_eq!(slowest.lately(seconds(159)), seconds(2), "although nothing was synced since");
        assert_eq!(slowest.lately(seconds(161)), Duration::ZERO);
        slowest.note(seconds(1), seconds(135));
        assert_eq!(slowest.lately(seconds(164)), seconds(2));
        assert_eq!(slowest.lately(seconds(166)), seconds(1));
        slowest.note(Duration::from_millis(1), seconds(1000));
        assert_eq!(slowest.lately(seconds(1000)), Duration::from_millis(1));
    }

    #[test]
    fn time_goes_slower_for_raft_by_as_much_as_disks_are_slow() {
        for (millis, ticks) in [(0, 1), (200, 1), (249, 1), (250, 2), (500, 3), (2000, 9), (20_000, 81)] {
            assert_eq!(stretch(Duration::from_millis(millis)), ticks, "{millis} ms");
        }
    }
}
