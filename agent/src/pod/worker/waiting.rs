//! What waits for a time or for an object, and is due.

use jiff::{SignedDuration, Timestamp};

use super::Worker;
use crate::event::Kind;
use crate::pod::facts::Waiting;
use crate::pod::spec;

/// How long a failed pull shows its error before it shows that it is waiting.
const PULL_SHOWN: SignedDuration = SignedDuration::from_secs(3);

impl Worker {
    /// A pull that failed shows its error for a while, then that it is waiting.
    pub(super) fn sync_waiting(&mut self, now: Timestamp) {
        let due: Vec<String> = self
            .pull_failed
            .iter()
            .filter(|(_, at)| now.duration_since(**at) >= PULL_SHOWN)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.pull_failed.remove(&name);
            let Some(waiting) = self.facts.waiting.get(&name).filter(|w| w.reason == "ErrImagePull") else { continue };
            let image = spec(&self.pod).any_container(&name).and_then(|c| c.image).unwrap_or_default();
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {}", waiting.message);
            self.event(Some(&name), Kind::Normal, "BackOff", format!("Back-off pulling image \"{image}\""));
            self.event(Some(&name), Kind::Warning, "Failed", "Error: ImagePullBackOff".into());
            self.facts.waiting.insert(name, Waiting { reason: "ImagePullBackOff".into(), message });
        }
    }

    pub(super) fn pull_wake(&self, now: Timestamp) -> Option<Timestamp> {
        self.pull_failed.values().min().map(|at| at.saturating_add(PULL_SHOWN).unwrap_or(now))
    }

    /// What the pod refers to changed: what waited for it is tried again, what shows it is written again.
    pub(super) fn objects_changed(&mut self) {
        self.facts.sandbox_not_before = None;
        let waiting: Vec<String> = self
            .facts
            .waiting
            .iter()
            .filter(|(_, w)| w.reason == "CreateContainerConfigError")
            .map(|(name, _)| name.clone())
            .collect();
        for name in waiting {
            self.facts.not_before.remove(&name);
        }
        self.volumes_stale = true;
    }

    pub(super) async fn timer(&mut self) {
        let now = Timestamp::now();
        if self.status_not_before.is_some_and(|at| at <= now) {
            self.status_not_before = None;
        }
        self.anew.retain(|_, until| now < *until);
        if self.resize_not_before.is_some_and(|at| at <= now) {
            self.resize_not_before = None;
        }
        if self.refresh_tokens.is_some_and(|at| at <= now) {
            self.refresh_tokens = None;
            self.volumes_stale = true;
        }
    }
}
