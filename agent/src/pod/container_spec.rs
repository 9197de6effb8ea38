//! From an API container and its image to the runtime's specification.
//!
//! Pure: the environment is made, the volumes are mounted on the host and the image is present before this is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use coracle_runtime::image::ImageConfig;
use coracle_runtime::{
    ContainerSpec, Device, IpcNamespace, Mount, MountKind, NetworkNamespace, PidNamespace, Propagation, SandboxSpec,
    UserNamespace, UtsNamespace,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, VolumeMount};

use super::admission::sysctl_name;
use super::environment::{expand, lookup};
use super::security::{SecurityError, security};
use super::{lifecycle, resources, spec};

/// Annotation with the image's full name, found again after a restart of the agent.
pub(crate) const IMAGE: &str = "coracle.io/image";
/// Annotation with the image's id as statuses show it.
pub(crate) const IMAGE_ID: &str = "coracle.io/image-id";
/// The annotation with the round a container was started in, if the containers of its pod have begun anew together.
pub(crate) const ROUND: &str = "coracle.io/round";

/// The annotation with the signal that asks the container to end, as statuses show it.
pub(crate) const STOP_SIGNAL: &str = "coracle.io/stop-signal";

/// What a container is made from besides its API object.
#[derive(Clone, Debug)]
pub(crate) struct Ingredients<'a> {
    /// The image's own configuration.
    pub(crate) image: &'a ImageConfig,
    /// The image's full name.
    pub(crate) image_name: String,
    /// The image's id.
    pub(crate) image_id: String,
    /// The image's layers, the top one first.
    pub(crate) layers: Vec<PathBuf>,
    /// The environment the pod gives.
    pub(crate) env: Vec<(String, String)>,
    /// Where each volume is on the host.
    pub(crate) volumes: &'a BTreeMap<String, PathBuf>,
    /// The layers of volumes that are images, the top one first.
    pub(crate) image_volumes: &'a BTreeMap<String, Vec<PathBuf>>,
    /// Where a mount's `subPath` is on the host, by the mount's path.
    pub(crate) sub_paths: &'a BTreeMap<String, PathBuf>,
    /// Devices the container has, each at the same path as on the host.
    pub(crate) devices: &'a [PathBuf],
    /// The pod's own files: name in `/etc` and path on the host.
    pub(crate) etc: &'a [(&'static str, PathBuf)],
    /// The file that becomes the termination message.
    pub(crate) termination_log: PathBuf,
    /// Where `Localhost` seccomp profiles are.
    pub(crate) seccomp_dir: &'a Path,
    /// The node's memory in bytes.
    pub(crate) node_memory: u64,
    /// The restart count.
    pub(crate) attempt: u32,
    /// The round it begins in.
    pub(crate) round: Option<Timestamp>,
}

/// Why a specification cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    /// The security context does not allow it.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Neither the pod nor the image says what to run.
    #[error("no command specified")]
    NoCommand,
    /// A volume mount names no volume of the pod.
    #[error("cannot find volume \"{volume}\" to mount into container \"{container}\"")]
    NoVolume {
        /// The volume.
        volume: String,
        /// The container.
        container: String,
    },
    /// Raw block devices come from volume kinds that are not supported.
    #[error("volumeDevices are not supported: container \"{container}\"")]
    VolumeDevices {
        /// The container.
        container: String,
    },
}

/// The runtime's specification of `container`.
pub(crate) fn container_spec(
    pod: &Pod,
    container: &Container,
    ingredients: &Ingredients<'_>,
) -> Result<ContainerSpec, SpecError> {
    let image = &ingredients.image.config;
    if container.volume_devices.as_ref().is_some_and(|d| !d.is_empty()) {
        return Err(SpecError::VolumeDevices { container: container.name.clone() });
    }
    let security = security(pod, container, &image.user, ingredients.seccomp_dir)?;

    let mut env: Vec<(String, String)> =
        image.env.iter().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let name = ingredients.etc_host_name(pod);
    if lookup(&ingredients.env, "HOSTNAME").is_none() {
        env.push(("HOSTNAME".into(), name));
    }
    env.extend(ingredients.env.iter().cloned());

    let expanded = |words: Option<&Vec<String>>| -> Vec<String> {
        words.into_iter().flatten().map(|w| expand(w, |n| lookup(&ingredients.env, n))).collect()
    };
    let command = expanded(container.command.as_ref());
    let args = expanded(container.args.as_ref());
    let argv = image.argv(command, args);
    if argv.is_empty() {
        return Err(SpecError::NoCommand);
    }

    let mut runtime = ContainerSpec::new(&container.name, ingredients.layers.clone(), argv);
    runtime.attempt = ingredients.attempt;
    runtime.env = env;
    runtime.cwd = container
        .working_dir
        .as_deref()
        .filter(|d| !d.is_empty())
        .map_or_else(|| image.working_dir.clone(), |d| expand(d, |n| lookup(&ingredients.env, n)));
    runtime.mounts = mounts(pod, container, ingredients)?;
    runtime.user = security.user;
    runtime.additional_gids = security.groups;
    runtime.strict_groups = security.strict_groups;
    runtime.capabilities = security.capabilities;
    runtime.privileged = security.privileged;
    runtime.no_new_privileges = security.no_new_privileges;
    runtime.readonly_rootfs = security.readonly_rootfs;
    runtime.seccomp = security.seccomp;
    runtime.apparmor = security.apparmor;
    if security.unmasked {
        runtime.masked_paths.clear();
        runtime.readonly_paths.clear();
    }
    runtime.resources = resources::of_container(pod, container);
    runtime.oom_score_adj = Some(resources::oom_score_adj(pod, container, ingredients.node_memory));
    runtime.tty = container.tty.unwrap_or(false);
    runtime.stdin = container.stdin.unwrap_or(false);
    runtime.stdin_once = container.stdin_once.unwrap_or(false);
    runtime.stop_signal =
        container.lifecycle.as_ref().and_then(|l| l.stop_signal.clone()).unwrap_or_else(|| image.stop_signal.clone());
    runtime.devices = ingredients.devices.iter().map(|path| device(path)).collect();
    runtime.annotations =
        vec![(IMAGE.to_owned(), ingredients.image_name.clone()), (IMAGE_ID.to_owned(), ingredients.image_id.clone())];
    let stop_signal = lifecycle::signal_shown(&runtime.stop_signal);
    runtime.annotations.extend(stop_signal.map(|signal| (STOP_SIGNAL.to_owned(), signal)));
    runtime.annotations.extend(ingredients.round.map(|round| (ROUND.to_owned(), round.to_string())));
    Ok(runtime)
}

/// One of the host's devices, to be used and not to be made anew.
fn device(path: &Path) -> Device {
    Device {
        host_path: path.to_owned(),
        container_path: path.to_string_lossy().into_owned(),
        permissions: "rw".to_owned(),
        ..Device::default()
    }
}

impl Ingredients<'_> {
    fn etc_host_name(&self, pod: &Pod) -> String {
        // The name the pod was given; programs that read only the variable find the same.
        spec(pod)
            .0
            .and_then(|s| s.hostname.clone())
            .filter(|h| !h.is_empty())
            .unwrap_or_else(|| super::name(pod).chars().take(63).collect())
    }
}

/// Volumes in the order the pod gives them, then what Kubernetes adds unless the pod mounts something there itself.
fn mounts(pod: &Pod, container: &Container, ingredients: &Ingredients<'_>) -> Result<Vec<Mount>, SpecError> {
    let mut mounts = Vec::new();
    let own: Vec<&VolumeMount> = container.volume_mounts.iter().flatten().collect();
    for mount in &own {
        if let Some(layers) = ingredients.image_volumes.get(&mount.name) {
            mounts.push(layered(mount, layers, &ingredients.env));
            continue;
        }
        let source = match ingredients.sub_paths.get(&mount.mount_path) {
            Some(path) => path.clone(),
            None => ingredients
                .volumes
                .get(&mount.name)
                .cloned()
                .ok_or_else(|| SpecError::NoVolume { volume: mount.name.clone(), container: container.name.clone() })?,
        };
        let readonly = mount.read_only.unwrap_or(false);
        mounts.push(Mount {
            readonly,
            recursive_readonly: readonly
                && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => Propagation::HostToContainer,
                Some("Bidirectional") => Propagation::Bidirectional,
                _ => Propagation::Private,
            },
            ..Mount::bind(source, absolute(&mount.mount_path))
        });
    }
    let taken = |path: &str| own.iter().any(|m| m.mount_path.trim_end_matches('/') == path);
    let readonly_root = container.security_context.as_ref().and_then(|s| s.read_only_root_filesystem).unwrap_or(false);
    for (name, path) in ingredients.etc {
        let destination = format!("/etc/{name}");
        if !taken(&destination) {
            mounts.push(Mount { readonly: readonly_root, ..Mount::bind(path, destination) });
        }
    }
    let message = container.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(TERMINATION_LOG);
    if !taken(message) {
        mounts.push(Mount::bind(&ingredients.termination_log, message));
    }
    // Paths an image declares as volumes are left in its writable layer: Kubernetes gives them nothing of their own.
    debug_assert!(!mounts.iter().any(|m| matches!(m.kind, MountKind::Tmpfs { .. })), "of {}", super::key(pod));
    Ok(mounts)
}

/// An image as a volume: always read-only.
fn layered(mount: &VolumeMount, layers: &[PathBuf], env: &[(String, String)]) -> Mount {
    let expanded = mount.sub_path_expr.as_deref().filter(|e| !e.is_empty()).map(|e| expand(e, |n| lookup(env, n)));
    let sub_path = mount.sub_path.clone().filter(|p| !p.is_empty()).or(expanded);
    Mount {
        kind: MountKind::Layers { layers: layers.to_vec(), sub_path },
        readonly: true,
        ..Mount::bind("", absolute(&mount.mount_path))
    }
}

/// Where a container leaves its last words unless it says otherwise.
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The runtime's specification of the pod's sandbox.
pub(crate) fn sandbox_spec(
    pod: &Pod,
    attempt: u32,
    hostname: String,
    log_directory: PathBuf,
    pids_limit: Option<u32>,
) -> SandboxSpec {
    let spec = spec(pod).0;
    let host = |flag: Option<bool>| flag.unwrap_or(false);
    let host_network = host(spec.and_then(|s| s.host_network));
    let sysctls = spec
        .and_then(|s| s.security_context.as_ref())
        .and_then(|c| c.sysctls.as_ref())
        .into_iter()
        .flatten()
        .map(|s| (sysctl_name(&s.name), s.value.clone()))
        .collect();
    SandboxSpec {
        pod_uid: super::uid(pod).to_owned(),
        pod_name: super::name(pod).to_owned(),
        pod_namespace: super::namespace(pod).to_owned(),
        attempt,
        hostname,
        network: if host_network { NetworkNamespace::Host } else { NetworkNamespace::Own },
        pid: if host(spec.and_then(|s| s.host_pid)) {
            PidNamespace::Host
        } else if host(spec.and_then(|s| s.share_process_namespace)) {
            PidNamespace::Pod
        } else {
            PidNamespace::Container
        },
        ipc: if host(spec.and_then(|s| s.host_ipc)) { IpcNamespace::Host } else { IpcNamespace::Pod },
        uts: if host_network { UtsNamespace::Host } else { UtsNamespace::Pod },
        users: match spec.and_then(|s| s.host_users) {
            Some(false) => UserNamespace::Own,
            Some(true) | None => UserNamespace::Host,
        },
        sysctls,
        qos: resources::qos_class(pod).0,
        cgroup_parent: None,
        resources: resources::of_pod(pod, pids_limit),
        log_directory,
        log_limits: coracle_runtime::LogLimits::default(),
        shm_size: 0,
        annotations: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::pod;
    use super::*;

    fn make(container: Value, image: Value) -> Result<ContainerSpec, String> {
        let pod = pod(json!({"containers": [container]}));
        let image: ImageConfig = serde_json::from_value(json!({"config": image})).unwrap();
        let volumes = BTreeMap::from([("v".to_owned(), PathBuf::from("/pods/u1/v"))]);
        let ingredients = Ingredients {
            image: &image,
            image_name: "docker.io/library/busybox:latest".into(),
            image_id: "sha256:0".into(),
            layers: vec!["/layers/0".into()],
            env: vec![("WHO".into(), "world".into())],
            volumes: &volumes,
            image_volumes: &BTreeMap::from([("i".to_owned(), vec![PathBuf::from("/layers/1")])]),
            sub_paths: &BTreeMap::new(),
            devices: &["/dev/ttyUSB0".into()],
            etc: &[("hosts", PathBuf::from("/pods/u1/hosts"))],
            termination_log: "/pods/u1/log".into(),
            seccomp_dir: Path::new("/seccomp"),
            node_memory: 1 << 30,
            attempt: 2,
            round: None,
        };
        container_spec(&pod, &pod.spec.as_ref().unwrap().containers[0], &ingredients).map_err(|e| e.to_string())
    }

    #[test]
    fn the_command_replaces_entrypoint_and_cmd_and_args_only_cmd() {
        let image = json!({"Entrypoint": ["/entry"], "Cmd": ["cmd"]});
        for (container, want) in [
            (json!({"name": "c"}), vec!["/entry", "cmd"]),
            (json!({"name": "c", "args": ["a", "$(WHO)"]}), vec!["/entry", "a", "world"]),
            (json!({"name": "c", "command": ["x"]}), vec!["x"]),
            (json!({"name": "c", "command": ["x"], "args": ["$$(WHO)"]}), vec!["x", "$(WHO)"]),
        ] {
            assert_eq!(make(container, image.clone()).unwrap().argv, want);
        }
        assert_eq!(make(json!({"name": "c"}), json!({})), Err("no command specified".into()));
    }

    #[test]
    fn the_pods_environment_comes_after_the_images() {
        let got = make(json!({"name": "c", "command": ["x"]}), json!({"Env": ["PATH=/bin", "WHO=image"]})).unwrap();
        let names: Vec<&str> = got.env.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(names, ["PATH", "WHO", "HOSTNAME", "WHO"]);
        assert_eq!(got.env.last().unwrap().1, "world");
    }

    #[test]
    fn an_image_volume_is_its_layers_read_only() {
        let mount = json!({"name": "i", "mountPath": "/data", "subPathExpr": "a/$(WHO)"});
        let got = make(json!({"name": "c", "command": ["x"], "volumeMounts": [mount]}), json!({})).unwrap();
        let first = &got.mounts[0];
        let want = MountKind::Layers { layers: vec!["/layers/1".into()], sub_path: Some("a/world".into()) };
        assert_eq!((&first.kind, first.destination.as_str(), first.readonly), (&want, "/data", true));
    }

    #[test]
    fn mounts_are_the_volumes_then_what_kubernetes_adds() {
        let got = make(
            json!({"name": "c", "command": ["x"], "volumeMounts": [
                {"name": "v", "mountPath": "/data", "readOnly": true}, {"name": "v", "mountPath": "/etc/hosts"}]}),
            json!({}),
        )
        .unwrap();
        let shown: Vec<String> =
            got.mounts.iter().map(|m| format!("{} {}", m.destination, if m.readonly { "ro" } else { "rw" })).collect();
        assert_eq!(shown, ["/data ro", "/etc/hosts rw", "/dev/termination-log rw"]);
        assert_eq!(
            make(json!({"name": "c", "command": ["x"], "volumeMounts": [{"name": "w", "mountPath": "/x"}]}), json!({})),
            Err("cannot find volume \"w\" to mount into container \"c\"".into())
        );
    }
}
