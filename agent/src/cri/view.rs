//! Sandboxes and containers as the interface shows them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use coracle_runtime::{ContainerId, ContainerState as State, ContainerStatus as Known, Exit, SandboxStatus};

use super::messages::{
    Container, ContainerMetadata, ContainerResources, ContainerState, ContainerStatus, ContainerUser, ImageSpec,
    LinuxContainerUser, LinuxPodSandboxStatus, Namespace, NamespaceMode, NamespaceOption, PodIp, PodSandbox,
    PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus,
};
use super::{container_spec, nanoseconds, records, sandbox_spec};
use crate::pod::container_spec::{IMAGE, IMAGE_ID};

/// One sandbox, made here or a pod's.
pub(super) struct Seen {
    /// What the runtime knows.
    pub(super) status: SandboxStatus,
    /// What is kept of it here; nothing of a pod's.
    pub(super) own: Option<Arc<records::Sandbox>>,
    /// Its containers that were made here.
    pub(super) made: Vec<Arc<records::Container>>,
}

/// One container of a sandbox.
pub(super) struct SeenContainer<'a> {
    pub(super) of: &'a Seen,
    pub(super) id: &'a ContainerId,
    /// What the runtime knows; nothing before it is started.
    pub(super) known: Option<&'a Known>,
    /// What is kept of it here; nothing of a pod's.
    pub(super) own: Option<&'a Arc<records::Container>>,
}

/// Labels by which tools find the objects that a kubelet's containers belong to.
fn pod_labels(status: &SandboxStatus) -> BTreeMap<String, String> {
    let spec = &status.spec;
    [("name", &spec.pod_name), ("namespace", &spec.pod_namespace), ("uid", &spec.pod_uid)]
        .into_iter()
        .map(|(name, value)| (format!("io.kubernetes.pod.{name}"), value.clone()))
        .collect()
}

/// Whether `labels` have all of `wanted`.
pub(super) fn selects(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

impl Seen {
    pub(super) fn id(&self) -> String {
        self.status.id.to_string()
    }

    pub(super) fn state(&self) -> PodSandboxState {
        if self.status.alive { PodSandboxState::Ready } else { PodSandboxState::NotReady }
    }

    pub(super) fn metadata(&self) -> PodSandboxMetadata {
        let spec = &self.status.spec;
        self.own.as_ref().map_or_else(
            || PodSandboxMetadata {
                name: spec.pod_name.clone(),
                uid: spec.pod_uid.clone(),
                namespace: spec.pod_namespace.clone(),
                attempt: spec.attempt,
            },
            |own| own.metadata.clone(),
        )
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        self.own.as_ref().map_or_else(|| pod_labels(&self.status), |own| own.config.labels.clone())
    }

    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        self.own.as_ref().map(|own| own.config.annotations.clone()).unwrap_or_default()
    }

    fn handler(&self) -> String {
        self.own.as_ref().map(|own| own.handler.clone()).unwrap_or_default()
    }

    fn namespaces(&self) -> NamespaceOption {
        use coracle_runtime::{IpcNamespace, NetworkNamespace, PidNamespace};
        if let Some(own) = &self.own {
            return sandbox_spec::namespaces(&own.config);
        }
        let spec = &self.status.spec;
        let node = |host: bool| if host { NamespaceMode::Node } else { NamespaceMode::Pod };
        NamespaceOption {
            network: node(spec.network == NetworkNamespace::Host).into(),
            ipc: node(spec.ipc == IpcNamespace::Host).into(),
            pid: match spec.pid {
                PidNamespace::Host => NamespaceMode::Node,
                PidNamespace::Pod => NamespaceMode::Pod,
                PidNamespace::Container | PidNamespace::Target(_) => NamespaceMode::Container,
            }
            .into(),
            ..NamespaceOption::default()
        }
    }

    /// In a list.
    pub(super) fn listed(&self) -> PodSandbox {
        PodSandbox {
            id: self.id(),
            metadata: Some(self.metadata()),
            state: self.state().into(),
            created_at: nanoseconds(self.status.created_at),
            labels: self.labels(),
            annotations: self.annotations(),
            runtime_handler: self.handler(),
        }
    }

    /// Alone, with these addresses.
    pub(super) fn shown(&self, addresses: &[IpAddr]) -> PodSandboxStatus {
        let mut addresses = addresses.iter().map(ToString::to_string);
        PodSandboxStatus {
            id: self.id(),
            metadata: Some(self.metadata()),
            state: self.state().into(),
            created_at: nanoseconds(self.status.created_at),
            network: Some(PodSandboxNetworkStatus {
                ip: addresses.next().unwrap_or_default(),
                additional_ips: addresses.map(|ip| PodIp { ip }).collect(),
            }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(self.namespaces()) }) }),
            labels: self.labels(),
            annotations: self.annotations(),
            runtime_handler: self.handler(),
        }
    }

    /// Its containers: those made here, or those the pod has.
    pub(super) fn containers(&self) -> impl Iterator<Item = SeenContainer<'_>> {
        let known = |id: &ContainerId| self.status.containers.iter().find(|known| known.id == *id);
        let made = self.made.iter();
        let made = made.map(move |own| SeenContainer { of: self, id: &own.id, known: known(&own.id), own: Some(own) });
        let pods = self.status.containers.iter().filter(|_| self.own.is_none());
        made.chain(pods.map(|known| SeenContainer { of: self, id: &known.id, known: Some(known), own: None }))
    }
}

/// Why it ended, in the words of containerd.
fn reason(exit: &Exit) -> &'static str {
    match exit {
        Exit { start_error: Some(_), .. } => "StartError",
        Exit { lost: true, .. } => "Unknown",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    }
}

fn message(exit: &Exit) -> String {
    match exit {
        Exit { start_error: Some(error), .. } => error.message.clone(),
        Exit { lost: true, .. } => "the sandbox died and took the container along".to_owned(),
        _ => String::new(),
    }
}

impl SeenContainer<'_> {
    pub(super) fn state(&self) -> ContainerState {
        match self.known.map(|known| &known.state) {
            None | Some(State::Creating) => ContainerState::Created,
            Some(State::Running { .. }) => ContainerState::Running,
            Some(State::Exited(_)) => ContainerState::Exited,
        }
    }

    pub(super) fn state_name(&self) -> &'static str {
        match self.state() {
            ContainerState::Created => "CONTAINER_CREATED",
            ContainerState::Running => "CONTAINER_RUNNING",
            ContainerState::Exited => "CONTAINER_EXITED",
            ContainerState::Unknown => "CONTAINER_UNKNOWN",
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.state() == ContainerState::Running
    }

    pub(super) fn metadata(&self) -> ContainerMetadata {
        match (self.own, self.known) {
            (Some(own), _) => own.metadata.clone(),
            (None, Some(known)) => ContainerMetadata { name: known.name.clone(), attempt: known.attempt },
            (None, None) => ContainerMetadata::default(),
        }
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        if let Some(own) = self.own {
            return own.config.labels.clone();
        }
        let mut labels = pod_labels(&self.of.status);
        labels.insert("io.kubernetes.container.name".to_owned(), self.metadata().name);
        labels
    }

    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        match self.own {
            Some(own) => own.config.annotations.clone(),
            None => {
                let restarts = ("io.kubernetes.container.restartCount".to_owned(), self.metadata().attempt.to_string());
                BTreeMap::from([restarts])
            }
        }
    }

    /// The image as it was asked for, its name with the digest, and its id.
    fn image(&self) -> (ImageSpec, String, String) {
        if let Some(own) = self.own {
            return (own.config.image.clone().unwrap_or_default(), own.image_ref.clone(), own.image.to_string());
        }
        let word = |wanted: &str| {
            let mut words = self.known.iter().flat_map(|known| &known.annotations);
            words.find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
        };
        let spec = ImageSpec { image: word(IMAGE), ..ImageSpec::default() };
        (spec, word(IMAGE_ID), word(IMAGE_ID))
    }

    /// The image as it was asked for.
    pub(super) fn image_name(&self) -> String {
        self.image().0.image
    }

    /// When it was started, if it runs.
    pub(super) fn started_at(&self) -> Option<SystemTime> {
        match self.known.map(|known| &known.state) {
            Some(State::Running { started_at, .. }) => Some(*started_at),
            _ => None,
        }
    }

    fn created_at(&self) -> i64 {
        let at = self.own.map(|own| own.created).or_else(|| self.known.map(|known| known.created_at));
        nanoseconds(at.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// In a list.
    pub(super) fn listed(&self) -> Container {
        let (image, image_ref, image_id) = self.image();
        Container {
            id: self.id.to_string(),
            pod_sandbox_id: self.of.id(),
            metadata: Some(self.metadata()),
            image: Some(image),
            image_ref,
            state: self.state().into(),
            created_at: self.created_at(),
            labels: self.labels(),
            annotations: self.annotations(),
            image_id,
        }
    }

    /// Where its output goes, if anywhere.
    fn log_path(&self) -> String {
        match (self.own, &self.of.own, self.known) {
            (Some(own), Some(sandbox), _) => container_spec::log_path(&sandbox.config, &own.config)
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            (_, _, Some(known)) => known.log_path.display().to_string(),
            _ => String::new(),
        }
    }

    /// Alone.
    pub(super) fn shown(&self) -> ContainerStatus {
        let (image, image_ref, image_id) = self.image();
        let state = self.known.map(|known| &known.state);
        let linux = self.own.and_then(|own| own.config.linux.as_ref());
        let mut status = ContainerStatus {
            id: self.id.to_string(),
            metadata: Some(self.metadata()),
            state: self.state().into(),
            created_at: self.created_at(),
            image: Some(image),
            image_ref,
            labels: self.labels(),
            annotations: self.annotations(),
            mounts: self.own.map(|own| own.config.mounts.clone()).unwrap_or_default(),
            log_path: self.log_path(),
            resources: linux
                .and_then(|linux| linux.resources.clone())
                .map(|linux| ContainerResources { linux: Some(linux) }),
            image_id,
            stop_signal: self.own.map_or(0, |own| container_spec::signal_number(&own.spec.stop_signal)),
            ..ContainerStatus::default()
        };
        match state {
            None | Some(State::Creating) => {}
            Some(State::Running { started_at, uid, gid, groups, .. }) => {
                status.started_at = nanoseconds(*started_at);
                status.user = Some(ContainerUser {
                    linux: Some(LinuxContainerUser {
                        uid: (*uid).into(),
                        gid: (*gid).into(),
                        supplemental_groups: groups.iter().map(|group| (*group).into()).collect(),
                    }),
                });
            }
            Some(State::Exited(exit)) => {
                status.started_at = exit.started_at.map(nanoseconds).unwrap_or_default();
                status.finished_at = nanoseconds(exit.finished_at);
                status.exit_code = exit.code;
                status.reason = reason(exit).to_owned();
                status.message = message(exit);
            }
        }
        status
    }
}
