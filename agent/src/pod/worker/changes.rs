//! What of a pod may change while it runs: images, for which containers are started anew, and resources, which are granted
//! if the node has room and then written to the cgroups, or given by starting anew where a container wants that.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_runtime::ContainerId;
use coracle_runtime::image::Reference;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Worker, jobs, later};
use crate::context::Entry;
use crate::event::Kind;
use crate::pod::admission::{self, Room};
use crate::pod::facts::{Attempt, Doom, Pending, Phase};
use crate::pod::resize::{self, Granted};
use crate::pod::{resources, restart, spec};
use crate::power::Power;
use crate::volume;

/// How long after a resize that failed it is tried again: what it waits for (memory that is given back) nobody tells.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// Takes a newer pod. Files that show its labels, annotations or resources are stale when those change.
    pub(super) fn accept(&mut self, pod: Arc<Pod>) {
        let seen = resize::with(&pod, &self.granted);
        let (new, old) = (&seen.metadata, &self.pod.metadata);
        if (&new.labels, &new.annotations) != (&old.labels, &old.annotations) {
            self.volumes_stale |= volume::shows_pod(&seen);
        }
        for name in other_images(&self.pod, &seen) {
            // What failed was the image before: this one is tried at once.
            self.facts.crashes.reset(&name);
            self.facts.not_before.remove(&name);
            self.pulls.reset(&name);
        }
        self.asked = pod;
        self.pod = seen;
    }

    /// What the other pods leave of the node.
    pub(super) fn room_in(&self, table: &BTreeMap<String, Entry>) -> Room {
        let mut room = Room {
            allocatable: self.context.allocatable.clone(),
            max_pods: self.context.config.max_pods,
            sysctls: self.context.config.allowed_unsafe_sysctls.clone(),
            pressure: *self.context.pressure.borrow(),
            going_down: *self.context.power.borrow() == Power::GoingDown,
            app_armor: coracle_runtime::apparmor_enabled(),
            ..Room::default()
        };
        // What somebody else has written into the node's object is counted too, as far as this node sees to nothing of it.
        let node = self.context.node();
        let told = node.status.as_ref().and_then(|status| status.allocatable.as_ref()).into_iter().flatten();
        let extended = told.filter(|(name, _)| admission::is_extended(name));
        room.allocatable.extend(extended.map(|(name, quantity)| (name.clone(), resources::milli(quantity))));
        let plugged = self.context.devices.counts();
        room.allocatable.extend(plugged.into_iter().map(|(class, count)| (class, resources::thousandths(count))));
        for other in table.iter().filter(|(uid, e)| **uid != self.uid && !e.over).map(|(_, e)| e) {
            room.pods += 1;
            room.ports.extend(admission::ports(&other.pod));
            for (name, amount) in &other.requests {
                *room.used.entry(name.clone()).or_default() += amount;
            }
        }
        room
    }

    /// Grants what is asked for if there is room, and brings it about.
    pub(super) fn sync_resize(&mut self, now: Timestamp) {
        if self.facts.ending.is_some() || self.recovering {
            return;
        }
        self.grant();
        if self.facts.sandbox.as_ref().is_some_and(|s| s.ready) {
            self.actuate(now);
        }
    }

    /// A container whose image was changed is started anew, if it is one that is: no status may say that one runs again that
    /// had ended for good.
    pub(super) fn sync_images(&mut self) {
        if self.facts.ending.is_some() || self.recovering {
            return;
        }
        for container in spec(&self.pod).all() {
            let running = self.facts.current(&container.name).filter(|a| a.phase == Phase::Running);
            let Some(attempt) = running.filter(|a| is_changed(container, a)) else { continue };
            if !restart::may_follow(&self.pod, container) {
                continue;
            }
            let id = attempt.id.clone();
            let message = format!("Container {} definition changed, will be restarted", container.name);
            self.facts.doomed.insert(container.name.clone(), Doom { id, message, grace: None, anew: true });
        }
    }

    fn grant(&mut self) {
        let asked = Granted::asked(&self.asked);
        if asked.is(&self.granted) {
            self.facts.resize.pending = None;
            return;
        }
        let generation = self.asked.metadata.generation;
        if let Err(refusal) = admission::has_room(&self.asked, &self.context.table.with(|table| self.room_in(table))) {
            let pending = Pending { reason: "Deferred".into(), message: refusal.message, generation };
            if self.facts.resize.pending.as_ref() != Some(&pending) {
                let message = resize::message(&self.asked, &refusal.reason, &pending.message);
                self.event(None, Kind::Warning, "ResizeDeferred", message);
            }
            self.facts.resize.pending = Some(pending);
            return;
        }
        self.facts.resize.pending = None;
        self.facts.resize.error = None;
        self.facts.resize.generation = generation;
        self.facts.resize.under_way = true;
        self.resize_not_before = None;
        self.granted = asked;
        self.pod = Arc::clone(&self.asked);
        self.volumes_stale |= volume::shows_pod(&self.pod);
        self.context.table.with(|table| {
            if let Some(entry) = table.get_mut(&self.uid) {
                entry.requests = resources::pod_requests(&self.pod);
            }
        });
        self.context.table.room_freed();
        self.event(None, Kind::Normal, "ResizeStarted", resize::message(&self.pod, "started", ""));
    }

    /// Brings running containers to what they were granted.
    fn actuate(&mut self, now: Timestamp) {
        if self.resize_busy || !self.facts.starting.is_empty() {
            return;
        }
        let (pod, facts) = (&self.pod, &mut self.facts);
        let attempts = &facts.attempts;
        // One that ended well instead of beginning anew is no longer waited for.
        facts.renewed.retain(|name| {
            let last = attempts.get(name).and_then(|a| a.last()).zip(spec(pod).container(name));
            last.is_some_and(|(a, container)| a.is_alive() || restart::follows(pod, container, a))
        });
        let mut changed = Vec::new();
        for container in spec(&self.pod).all() {
            let running = self.facts.current(&container.name).filter(|a| a.phase == Phase::Running);
            let Some(attempt) = running else { continue };
            let wanted = &resize::of_container(&self.pod, container);
            let Some(told) = self.facts.told.get(&attempt.id) else {
                // Of a container that an earlier agent resized or began: it is told once more.
                changed.extend(ContainerId::parse(&attempt.id).map(|id| (container.clone(), id, None)));
                continue;
            };
            if resize::same(told, wanted) {
                continue;
            }
            if resize::needs_restart(container, told, wanted) && restart::may_follow(&self.pod, container) {
                let id = attempt.id.clone();
                let message = format!("Container {} resize requires restart", container.name);
                self.facts.renewed.insert(container.name.clone());
                self.facts.doomed.insert(container.name.clone(), Doom { id, message, grace: None, anew: true });
                continue;
            }
            changed.extend(ContainerId::parse(&attempt.id).map(|id| (container.clone(), id, Some(told.clone()))));
        }
        let pod_is_behind =
            self.facts.pod_told.as_ref().is_none_or(|told| !resize::same(told, &resize::of_pod(&self.pod)));
        if changed.is_empty() && !pod_is_behind {
            if self.facts.resize.under_way && self.facts.renewed.is_empty() {
                self.facts.resize.under_way = false;
                self.event(None, Kind::Normal, "ResizeCompleted", resize::message(&self.pod, "completed", ""));
            }
            return;
        }
        if self.resize_not_before.is_some_and(|at| now < at) {
            return;
        }
        let Some(sandbox) = self.sandbox.clone() else { return };
        self.resize_not_before = None;
        self.resize_busy = true;
        let (pod, pids_limit) = (Arc::clone(&self.pod), self.context.config.pod_pids_limit);
        let changes = (self.facts.pod_told.clone(), changed);
        self.jobs.spawn(jobs::resize(sandbox, pod, changes, pids_limit));
    }

    /// What came of [`jobs::resize`].
    pub(super) fn resized(&mut self, resized: jobs::Resized, now: Timestamp) {
        self.resize_busy = false;
        for (id, resources) in resized.told {
            self.facts.told.insert(id, resources);
        }
        if resized.pod_told.is_some() {
            self.facts.pod_told = resized.pod_told;
        }
        match resized.result {
            Ok(()) => self.facts.resize.error = None,
            Err(why) => {
                self.resize_not_before = Some(later(now, RETRY));
                if self.facts.resize.error.as_ref() != Some(&why) {
                    self.event(None, Kind::Warning, "ResizeError", resize::message(&self.pod, "error", &why));
                }
                self.facts.resize.error = Some(why);
            }
        }
    }
}

/// The containers that name other images in the newer pod.
fn other_images(old: &Pod, new: &Pod) -> Vec<String> {
    let before = |name: &str| spec(old).any_container(name);
    let changed = |container: &&Container| before(&container.name).is_some_and(|b| b.image != container.image);
    spec(new).all().filter(changed).map(|container| container.name.clone()).collect()
}

/// Whether the attempt was made from another image than the container names now.
fn is_changed(container: &Container, attempt: &Attempt) -> bool {
    let name = container.image.as_deref().unwrap_or_default().parse::<Reference>().map(|r| r.to_string());
    name.is_ok_and(|name| !attempt.image.is_empty() && name != attempt.image)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_containers_with_other_images_are_named() {
        let pod = |app: &str, init: &str| -> Pod {
            serde_json::from_value(
                json!({"spec": {"containers": [{"name": "app", "image": app}, {"name": "b", "image": "x"}],
                "initContainers": [{"name": "init", "image": init}]}}),
            )
            .unwrap()
        };
        let before = pod("a:1", "i:1");
        assert!(other_images(&before, &before).is_empty());
        assert_eq!(other_images(&before, &pod("a:2", "i:1")), ["app"]);
        assert_eq!(other_images(&before, &pod("a:2", "i:2")), ["init", "app"]);
    }

    #[test]
    fn an_image_is_another_one_by_its_full_name() {
        let mut pod = crate::pod::testing::one("Always");
        pod.status = Some(
            serde_json::from_value(
                json!({"containerStatuses": [{"name": "app", "image": "docker.io/library/busybox:latest",
                "imageID": "x", "ready": true, "restartCount": 0, "containerID": "coracle://c0",
                "state": {"running": {}}}]}),
            )
            .unwrap(),
        );
        let attempts = super::super::facts_from::status(&pod);
        let container =
            |image: &str| serde_json::from_value::<Container>(json!({"name": "app", "image": image})).unwrap();
        assert!(!is_changed(&container("busybox"), &attempts["app"][0]));
        assert!(is_changed(&container("busybox:1"), &attempts["app"][0]));
        assert!(!is_changed(&container("no image at all"), &attempts["app"][0]));
    }
}
