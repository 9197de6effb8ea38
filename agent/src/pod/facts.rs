//! What is known of a pod besides its spec: the kernel's side, and what the worker remembers.
//!
//! Plain data, so that planning and status are functions of it and can be read off in tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ResourceRequirements};

use super::backoff::Backoffs;

/// A pod's sandbox as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sandbox {
    /// Which sandbox of this pod it is; the first is 0.
    pub(crate) attempt: u32,
    /// Whether its supervisor lives and its network is attached.
    pub(crate) ready: bool,
    /// The pod's addresses: the host's with the host's network.
    pub(crate) ips: Vec<IpAddr>,
}

/// Where one attempt at a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Made, its process is not running yet.
    Created,
    /// Its process runs.
    Running,
    /// Its process has ended, or could not be started.
    Exited,
}

/// One attempt at a container: the restart count is the attempt number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The runtime's id.
    pub(crate) id: String,
    /// The attempt number; the first is 0.
    pub(crate) attempt: u32,
    /// The sandbox it belongs to (its attempt number).
    pub(crate) sandbox: u32,
    /// The round it was started in ([`Facts::round`]).
    pub(crate) round: Option<Timestamp>,
    /// Where it is.
    pub(crate) phase: Phase,
    /// The image as it was asked for, in full (`docker.io/library/busybox:latest`).
    pub(crate) image: String,
    /// The image's id (`docker.io/library/busybox@sha256:…`).
    pub(crate) image_id: String,
    /// The signal that asks it to end (`SIGTERM`), if that is known.
    pub(crate) stop_signal: Option<String>,
    /// The file its output goes to.
    pub(crate) log: std::path::PathBuf,
    /// As whom it runs: user, group, supplementary groups.
    pub(crate) user: Option<(u32, u32, Vec<u32>)>,
    /// When its process started.
    pub(crate) started: Option<Timestamp>,
    /// When it ended.
    pub(crate) finished: Option<Timestamp>,
    /// The exit code, 128 + signal for a killed one.
    pub(crate) exit_code: Option<i32>,
    /// The reason the runtime gives: `OOMKilled`, `StartError`, …
    pub(crate) reason: Option<String>,
    /// What it left as its termination message, or why it could not start.
    pub(crate) message: Option<String>,
}

impl Attempt {
    /// Whether its process runs or may yet.
    pub(crate) fn is_alive(&self) -> bool {
        match self.phase {
            Phase::Created | Phase::Running => true,
            Phase::Exited => false,
        }
    }

    /// Whether it ended with code 0.
    pub(crate) fn succeeded(&self) -> bool {
        self.phase == Phase::Exited && self.exit_code == Some(0)
    }
}

/// Why a container waits, as its status says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// `ImagePullBackOff`, `CreateContainerConfigError`, …
    pub(crate) reason: String,
    /// The words behind it.
    pub(crate) message: String,
}

/// What the probes of a container say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probed {
    /// The startup probe has passed (or there is none and the container runs).
    pub(crate) started: bool,
    /// The readiness probe passes (or there is none and the container is started).
    pub(crate) ready: bool,
    /// Which container id this was said of.
    pub(crate) id: String,
}

impl Probed {
    /// What holds of a running container before its next probe: what its probes have said of it, and where it has none, that
    /// it is started and ready.
    pub(crate) fn of(container: &Container, id: &str, before: Option<&Probed>) -> Probed {
        let before = before.filter(|p| p.id == id);
        let started = container.startup_probe.is_none() || before.is_some_and(|p| p.started);
        let ready = if container.readiness_probe.is_none() { started } else { before.is_some_and(|p| p.ready) };
        Probed { started, ready, id: id.to_owned() }
    }
}

/// A resize that waits for room on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// `Deferred`.
    pub(crate) reason: String,
    /// The words behind it.
    pub(crate) message: String,
    /// The generation of the pod that asks for it.
    pub(crate) generation: Option<i64>,
}

/// How far a change of resources has come (KEP-1287).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resize {
    /// It is not granted yet.
    pub(crate) pending: Option<Pending>,
    /// It is granted and not yet true of every container.
    pub(crate) under_way: bool,
    /// Why it is not.
    pub(crate) error: Option<String>,
    /// The generation of the pod it was granted of.
    pub(crate) generation: Option<i64>,
}

/// Why a running container must be stopped although the pod lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Doom {
    /// The container id it is said of; a later attempt is not doomed by it.
    pub(crate) id: String,
    /// The words of the `Killing` event.
    pub(crate) message: String,
    /// The probe's own grace period, if it has one.
    pub(crate) grace: Option<i64>,
    /// It was changed: its end and its new start are one step, of which nothing is told before it is taken.
    pub(crate) anew: bool,
}

/// Why the whole pod stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The API object is being deleted: stop within the grace period, clean up, confirm.
    Deleted {
        /// Seconds each container gets.
        grace: i64,
    },
    /// The API object is gone: stop within the grace period and clean up; there is nothing to confirm to.
    Gone,
    /// The pod failed as a whole: `DeadlineExceeded`, `Evicted`, an admission refusal.
    Failed {
        /// The status' reason.
        reason: String,
        /// The status' message.
        message: String,
        /// Seconds each container gets, if not the pod's own.
        grace: Option<i64>,
    },
    /// The agent is going down and does not keep pods.
    Shutdown {
        /// Seconds each container gets, however long its own period is.
        grace: i64,
    },
}

/// Everything the planner and the status need besides the pod itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The latest sandbox, dead or alive.
    pub(crate) sandbox: Option<Sandbox>,
    /// Attempts by container name, oldest first.
    pub(crate) attempts: BTreeMap<String, Vec<Attempt>>,
    /// Containers whose start is under way (pull, create, start), and the round they are started in.
    pub(crate) starting: BTreeMap<String, Option<Timestamp>>,
    /// Container ids whose stop is under way.
    pub(crate) stopping: BTreeSet<String>,
    /// Why containers wait, from the last failed start.
    pub(crate) waiting: BTreeMap<String, Waiting>,
    /// Before when a container is not to be started again after a failed start.
    pub(crate) not_before: BTreeMap<String, Timestamp>,
    /// Before when no new sandbox is to be made after a failed one.
    pub(crate) sandbox_not_before: Option<Timestamp>,
    /// When all containers were last told to begin anew, which names the round that began then: what was started before the
    /// agent knew of it is of an earlier one (KEP-5532).
    pub(crate) round: Option<Timestamp>,
    /// Crash backoffs by container name.
    pub(crate) crashes: Backoffs,
    /// What probes say, by container name.
    pub(crate) probed: BTreeMap<String, Probed>,
    /// Containers their probes have condemned, by name.
    pub(crate) doomed: BTreeMap<String, Doom>,
    /// Containers that are being started anew for their new resources.
    pub(crate) renewed: BTreeSet<String>,
    /// The resources a container's cgroup was last given, by its id.
    pub(crate) told: BTreeMap<String, ResourceRequirements>,
    /// Those that the pod's own was last given.
    pub(crate) pod_told: Option<ResourceRequirements>,
    /// How far a change of resources has come.
    pub(crate) resize: Resize,
    /// Why the node sent the pod away although it kept to its limits.
    pub(crate) disrupted: Option<String>,
    /// Why the whole pod stops, once it does.
    pub(crate) ending: Option<Ending>,
    /// Sandbox set-up or teardown is under way.
    pub(crate) sandbox_busy: bool,
    /// Nothing of the pod is left on the node.
    pub(crate) torn_down: bool,
}

impl Facts {
    /// The newest attempt at a container, of whichever sandbox.
    pub(crate) fn last(&self, container: &str) -> Option<&Attempt> {
        self.attempts.get(container).and_then(|a| a.last())
    }

    /// The newest attempt at a container in the current sandbox and round.
    pub(crate) fn current(&self, container: &str) -> Option<&Attempt> {
        let sandbox = self.sandbox.as_ref()?;
        self.last(container).filter(|a| a.sandbox == sandbox.attempt && !self.is_past(a))
    }

    /// Whether an attempt is of an earlier round.
    pub(crate) fn is_past(&self, attempt: &Attempt) -> bool {
        attempt.round < self.round
    }

    /// The attempt before the newest one, whose end is the container's last state.
    pub(crate) fn previous(&self, container: &str) -> Option<&Attempt> {
        let attempts = self.attempts.get(container)?;
        attempts.len().checked_sub(2).and_then(|i| attempts.get(i))
    }

    /// Whether any container's process runs or may yet.
    pub(crate) fn any_alive(&self) -> bool {
        self.attempts.values().flatten().any(Attempt::is_alive)
    }

    /// Whether the startup probe of the container's current attempt has passed.
    pub(crate) fn is_started(&self, container: &str) -> bool {
        self.current(container).is_some_and(|a| {
            a.phase == Phase::Running && self.probed.get(container).is_some_and(|p| p.id == a.id && p.started)
        })
    }

    /// Whether the container's current attempt is ready.
    pub(crate) fn is_ready(&self, container: &str) -> bool {
        self.current(container).is_some_and(|a| {
            a.phase == Phase::Running && self.probed.get(container).is_some_and(|p| p.id == a.id && p.ready)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An agent that was killed may have told of a container while it was still being made.
    #[test]
    fn a_container_without_probes_is_ready_whatever_was_told_of_it_before() {
        let container: Container = serde_json::from_value(json!({"name": "c"})).unwrap();
        let before = Probed { started: false, ready: false, id: "c0".into() };
        let now = Probed::of(&container, "c0", Some(&before));
        assert!(now.started && now.ready);
    }

    #[test]
    fn what_probes_said_holds_for_the_same_attempt_alone() {
        let container: Container =
            serde_json::from_value(json!({"name": "c", "startupProbe": {}, "readinessProbe": {}})).unwrap();
        let before = Probed { started: true, ready: true, id: "c0".into() };
        assert_eq!(Probed::of(&container, "c0", Some(&before)), before);
        let next = Probed::of(&container, "c1", Some(&before));
        assert!(!next.started && !next.ready);
    }
}
