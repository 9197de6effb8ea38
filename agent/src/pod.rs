//! A pod as the node sees it: what was asked for, what the kernel says, and what to do about the difference.
//!
//! ```text
//!   API pod ─┐
//!            ├─▶ plan (pure) ─▶ actions ─▶ worker (shell) ─▶ runtime, network, volumes
//!   facts ───┘                               │
//!   facts ──────▶ status (pure) ─────────────┴─▶ API status, when it changed
//! ```

pub(crate) mod admission;
pub(crate) mod backoff;
pub(crate) mod container_spec;
pub(crate) mod env_file;
pub(crate) mod environment;
pub(crate) mod facts;
pub(crate) mod host_files;
pub(crate) mod lifecycle;
pub(crate) mod plan;
pub(crate) mod preemption;
pub(crate) mod probe;
pub(crate) mod resize;
pub(crate) mod resources;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod worker;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

/// `namespace/name`, for logs.
pub(crate) fn key(pod: &Pod) -> String {
    format!("{}/{}", namespace(pod), name(pod))
}

/// The pod's name; empty only for an object no API server would serve.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's namespace.
pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod's uid.
pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// Whether the pod is one of the node's own, whose manifest lies in a directory: the uid is a hash then, which no API server
/// gives.
pub(crate) fn is_static(pod: &Pod) -> bool {
    uid(pod).len() == 32 && uid(pod).bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The pod's spec; an object without one has no containers and is refused at admission.
pub(crate) fn spec(pod: &Pod) -> PodSpecRef<'_> {
    PodSpecRef(pod.spec.as_ref())
}

/// A pod's spec that may be missing, so that callers need not ask each time.
#[derive(Clone, Copy)]
pub(crate) struct PodSpecRef<'a>(pub(crate) Option<&'a PodSpec>);

impl<'a> PodSpecRef<'a> {
    /// The app containers.
    pub(crate) fn containers(self) -> &'a [Container] {
        self.0.map(|s| s.containers.as_slice()).unwrap_or_default()
    }

    /// The init containers, in order.
    pub(crate) fn init_containers(self) -> &'a [Container] {
        self.0.and_then(|s| s.init_containers.as_deref()).unwrap_or_default()
    }

    /// Init containers, then app containers.
    pub(crate) fn all(self) -> impl Iterator<Item = &'a Container> {
        self.init_containers().iter().chain(self.containers())
    }

    /// The container called `name`.
    pub(crate) fn container(self, name: &str) -> Option<&'a Container> {
        self.all().find(|c| c.name == name)
    }

    /// The ephemeral containers, in the order they were added.
    pub(crate) fn ephemeral_containers(self) -> &'a [EphemeralContainer] {
        self.0.and_then(|s| s.ephemeral_containers.as_deref()).unwrap_or_default()
    }

    /// The container called `name`, of whichever sort.
    pub(crate) fn any_container(self, name: &str) -> Option<Container> {
        let ephemeral = || self.ephemeral_containers().iter().find(|c| c.name == name).map(as_container);
        self.container(name).cloned().or_else(ephemeral)
    }

    /// `Always` unless it says otherwise.
    pub(crate) fn restart_policy(self) -> &'a str {
        self.0.and_then(|s| s.restart_policy.as_deref()).unwrap_or("Always")
    }

    /// Whether the pod shares the host's network.
    pub(crate) fn host_network(self) -> bool {
        self.0.and_then(|s| s.host_network).unwrap_or(false)
    }
}

/// Whether the API server knows that the pod is over.
pub(crate) fn is_terminal(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
}

/// Whether an init container is a sidecar: it starts in its turn and then keeps running (KEP-753).
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// An ephemeral container as one like any other: it has fewer fields, and those are the same.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        name: ephemeral.name.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        command: ephemeral.command.clone(),
        args: ephemeral.args.clone(),
        working_dir: ephemeral.working_dir.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        volume_devices: ephemeral.volume_devices.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        tty: ephemeral.tty,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        ..Container::default()
    }
}

/// How a container is called in events: `spec.containers{app}`.
pub(crate) fn field_path(pod: &Pod, container: &str) -> String {
    let sort = if spec(pod).init_containers().iter().any(|c| c.name == container) {
        "initContainers"
    } else if spec(pod).ephemeral_containers().iter().any(|c| c.name == container) {
        "ephemeralContainers"
    } else {
        "containers"
    };
    format!("spec.{sort}{{{container}}}")
}

#[cfg(test)]
pub(crate) mod testing {
    //! Pods for tests, written as their JSON.

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    /// A pod `default/web` with uid `u1` and the given spec.
    pub(crate) fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "uid": "u1", "generation": 1},
            "spec": spec,
        }))
        .unwrap()
    }

    /// A pod with one container `app`.
    pub(crate) fn one(restart_policy: &str) -> Pod {
        pod(json!({"restartPolicy": restart_policy, "containers": [{"name": "app", "image": "busybox"}]}))
    }
}
