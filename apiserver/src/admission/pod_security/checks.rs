//! The checks of the Pod Security Standards, each with the versions it has been through.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>. Reasons and details are in Kubernetes' words,
//! which people search for.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, EphemeralContainer, Lifecycle, LifecycleHandler, PodSecurityContext, PodSpec, Probe,
        SecurityContext, Volume,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::Level;

/// Why a pod is not as a standard wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// `hostPort`.
    pub(super) reason: String,
    /// What exactly, and where.
    pub(super) detail: String,
}

type Found = Option<Violation>;

fn violation(reason: &str, detail: String) -> Found {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// What the checks look at of any of the three sorts of containers.
struct Part<'a> {
    name: &'a str,
    security: Option<&'a SecurityContext>,
    ports: &'a [ContainerPort],
    probes: [Option<&'a Probe>; 3],
    lifecycle: Option<&'a Lifecycle>,
}

impl<'a> Part<'a> {
    fn of(container: &'a Container) -> Self {
        Self {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe]
                .map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        }
    }

    fn of_ephemeral(container: &'a EphemeralContainer) -> Self {
        Self {
            name: &container.name,
            security: container.security_context.as_ref(),
            ports: container.ports.as_deref().unwrap_or_default(),
            probes: [&container.liveness_probe, &container.readiness_probe, &container.startup_probe]
                .map(Option::as_ref),
            lifecycle: container.lifecycle.as_ref(),
        }
    }
}

/// A pod as the checks see it.
pub(super) struct Subject<'a> {
    meta: &'a ObjectMeta,
    spec: &'a PodSpec,
    containers: Vec<Part<'a>>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(meta: &'a ObjectMeta, spec: &'a PodSpec) -> Self {
        let init = spec.init_containers.iter().flatten().map(Part::of);
        let ephemeral = spec.ephemeral_containers.iter().flatten().map(Part::of_ephemeral);
        Self { meta, spec, containers: init.chain(spec.containers.iter().map(Part::of)).chain(ephemeral).collect() }
    }

    fn security(&self) -> Option<&'a PodSecurityContext> {
        self.spec.security_context.as_ref()
    }

    fn is_windows(&self) -> bool {
        self.spec.os.as_ref().is_some_and(|os| os.name == "windows")
    }

    /// Whether its root is not the host's, so that some rules may be relaxed.
    fn has_own_users(&self) -> bool {
        self.spec.host_users == Some(false)
    }

    /// Names of the containers that `is_bad`.
    fn bad(&self, is_bad: impl Fn(&Part<'a>) -> bool) -> Vec<&'a str> {
        self.containers.iter().filter(|container| is_bad(container)).map(|container| container.name).collect()
    }

    fn annotation(&self, key: &str) -> Option<&'a str> {
        self.meta.annotations.as_ref()?.get(key).map(String::as_str)
    }
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| format!("\"{}\"", item.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

/// `pod and container "a"`: who set something.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut setters: Vec<String> = Vec::new();
    if pod {
        setters.push("pod".to_owned());
    }
    if !names.is_empty() {
        setters.push(containers(names));
    }
    (!setters.is_empty()).then(|| setters.join(" and "))
}

/// The forms a check has had: since which minor version of Kubernetes 1, and what it finds.
type Versions = &'static [(u32, fn(&Subject<'_>) -> Found)];

/// One check: which standard it is of, since which minor version of Kubernetes 1, and the version's own function.
pub(super) struct Check {
    level: Level,
    versions: Versions,
    /// The baseline check that this one, which is stricter, stands in for.
    instead_of: Option<&'static str>,
    id: &'static str,
}

/// The version after which no check has changed.
const NEWEST: u32 = 35;

const fn baseline(id: &'static str, versions: Versions) -> Check {
    Check { level: Level::Baseline, versions, instead_of: None, id }
}

const fn restricted(id: &'static str, versions: Versions) -> Check {
    Check { level: Level::Restricted, versions, instead_of: None, id }
}

/// All checks in the order in which violations are told.
const CHECKS: &[Check] = &[
    baseline("appArmorProfile", &[(0, app_armor)]),
    baseline("capabilities_baseline", &[(0, capabilities_baseline)]),
    baseline("hostNamespaces", &[(0, host_namespaces)]),
    baseline("hostPathVolumes", &[(0, host_path_volumes)]),
    baseline("hostPorts", &[(0, host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, hosts_of_probes)]),
    baseline("privileged", &[(0, privileged)]),
    baseline("procMount", &[(0, proc_mount), (35, unless_own_users_proc_mount)]),
    baseline("seLinuxOptions", &[(0, se_linux_0), (31, se_linux_31)]),
    baseline("seccompProfile_baseline", &[(0, seccomp_annotations), (19, seccomp_baseline)]),
    baseline("sysctls", &[(0, sysctls_0), (27, sysctls_27), (29, sysctls_29), (32, sysctls_32)]),
    baseline("windowsHostProcess", &[(0, windows_host_process)]),
    restricted("allowPrivilegeEscalation", &[(8, privilege_escalation), (25, unless_windows_privilege_escalation)]),
    Check {
        instead_of: Some("capabilities_baseline"),
        ..restricted(
            "capabilities_restricted",
            &[(22, capabilities_restricted), (25, unless_windows_capabilities_restricted)],
        )
    },
    Check { instead_of: Some("procMount"), ..restricted("procMount_restricted", &[(35, proc_mount)]) },
    Check { instead_of: Some("hostPathVolumes"), ..restricted("restrictedVolumes", &[(0, restricted_volumes)]) },
    restricted("runAsNonRoot", &[(0, run_as_non_root), (35, unless_own_users_run_as_non_root)]),
    restricted("runAsUser", &[(23, run_as_user), (35, unless_own_users_run_as_user)]),
    Check {
        instead_of: Some("seccompProfile_baseline"),
        ..restricted("seccompProfile_restricted", &[(19, seccomp_restricted), (25, unless_windows_seccomp_restricted)])
    },
];

/// Everything about the pod that the standard, as of a minor version, does not allow.
pub(super) fn violations(level: Level, minor: Option<u32>, pod: &Subject<'_>) -> Vec<Violation> {
    let minor = minor.map_or(NEWEST, |minor| minor.min(NEWEST));
    let version = |check: &Check| check.versions.iter().rev().find(|(since, _)| *since <= minor).map(|(_, run)| *run);
    let applies = |check: &&Check| check.level <= level && version(check).is_some();
    let replaced: BTreeSet<&str> = CHECKS.iter().filter(applies).filter_map(|check| check.instead_of).collect();
    let checks = CHECKS.iter().filter(applies).filter(|check| !replaced.contains(check.id));
    checks.filter_map(|check| version(check)?(pod)).collect()
}

fn privilege_escalation(pod: &Subject<'_>) -> Found {
    let bad = pod.bad(|c| c.security.and_then(|s| s.allow_privilege_escalation) != Some(false));
    let detail = || format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&bad));
    if bad.is_empty() { None } else { violation("allowPrivilegeEscalation != false", detail()) }
}

fn unless_windows_privilege_escalation(pod: &Subject<'_>) -> Found {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

fn app_armor(pod: &Subject<'_>) -> Found {
    const KEY: &str = "container.apparmor.security.beta.kubernetes.io/";
    let is_bad = |kind: &str| !matches!(kind, "RuntimeDefault" | "Localhost");
    let of_pod = pod.security().and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.as_str());
    let of = |c: &Part<'_>| c.security.and_then(|s| s.app_armor_profile.as_ref()).map(|p| p.type_.clone());
    let bad = pod.bad(|c| of(c).is_some_and(|kind| is_bad(&kind)));
    let values: BTreeSet<String> = of_pod
        .map(str::to_owned)
        .into_iter()
        .chain(pod.containers.iter().filter_map(of))
        .filter(|k| is_bad(k))
        .collect();
    let annotations = pod.meta.annotations.iter().flatten();
    let forbidden: Vec<String> = annotations
        .filter(|(key, value)| {
            let allowed = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(KEY) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut setters: Vec<String> = setters(of_pod.is_some_and(is_bad), &bad).into_iter().collect();
    if !forbidden.is_empty() {
        setters.push(plural(forbidden.len(), "annotation", "annotations").to_owned());
    }
    if setters.is_empty() {
        return None;
    }
    let values: Vec<String> = values.into_iter().chain(forbidden).collect();
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    violation(reason, format!("{} must not set AppArmor profile type to {}", setters.join(" and "), quoted(values)))
}

/// Containers that add capabilities beyond `allowed`, and which.
fn added<'a>(pod: &Subject<'a>, allowed: &[&str]) -> Option<(Vec<&'a str>, BTreeSet<&'a str>)> {
    let beyond = |c: &Part<'a>| -> Vec<&'a str> {
        let capabilities = c.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.add.as_ref());
        capabilities.into_iter().flatten().map(String::as_str).filter(|name| !allowed.contains(name)).collect()
    };
    let bad = pod.bad(|c| !beyond(c).is_empty());
    (!bad.is_empty()).then(|| (bad, pod.containers.iter().flat_map(beyond).collect()))
}

const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn must_not_add((bad, names): &(Vec<&str>, BTreeSet<&str>)) -> String {
    format!("{} must not include {} in securityContext.capabilities.add", containers(bad), quoted(names))
}

fn capabilities_baseline(pod: &Subject<'_>) -> Found {
    added(pod, DEFAULT_CAPABILITIES).and_then(|added| violation("non-default capabilities", must_not_add(&added)))
}

fn capabilities_restricted(pod: &Subject<'_>) -> Found {
    let keeps = pod.bad(|c| {
        let dropped = c.security.and_then(|s| s.capabilities.as_ref()).and_then(|c| c.drop.as_ref());
        !dropped.is_some_and(|dropped| dropped.iter().any(|name| name == "ALL"))
    });
    let mut details = Vec::new();
    if !keeps.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeps)));
    }
    details.extend(added(pod, &["NET_BIND_SERVICE"]).as_ref().map(must_not_add));
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn unless_windows_capabilities_restricted(pod: &Subject<'_>) -> Found {
    if pod.is_windows() { None } else { capabilities_restricted(pod) }
}

fn host_namespaces(pod: &Subject<'_>) -> Found {
    let spec = pod.spec;
    let shared: Vec<&str> =
        [(spec.host_network, "hostNetwork=true"), (spec.host_pid, "hostPID=true"), (spec.host_ipc, "hostIPC=true")]
            .into_iter()
            .filter_map(|(is_shared, text)| (is_shared == Some(true)).then_some(text))
            .collect();
    if shared.is_empty() { None } else { violation("host namespaces", shared.join(", ")) }
}

fn volumes<'a>(pod: &Subject<'a>) -> impl Iterator<Item = &'a Volume> {
    pod.spec.volumes.iter().flatten()
}

fn host_path_volumes(pod: &Subject<'_>) -> Found {
    let bad: Vec<&str> = volumes(pod).filter(|v| v.host_path.is_some()).map(|v| v.name.as_str()).collect();
    let detail = || format!("{} {}", plural(bad.len(), "volume", "volumes"), quoted(&bad));
    if bad.is_empty() { None } else { violation("hostPath volumes", detail()) }
}

fn host_ports(pod: &Subject<'_>) -> Found {
    let of = |c: &Part<'_>| -> Vec<String> {
        c.ports.iter().filter_map(|p| p.host_port).filter(|port| *port != 0).map(|port| port.to_string()).collect()
    };
    let bad = pod.bad(|c| !of(c).is_empty());
    if bad.is_empty() {
        return None;
    }
    let ports: BTreeSet<String> = pod.containers.iter().flat_map(of).collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&bad),
        plural(bad.len(), "uses", "use"),
        plural(ports.len(), "hostPort", "hostPorts"),
        ports.into_iter().collect::<Vec<_>>().join(", ")
    );
    violation("hostPort", detail)
}

fn hosts_of_probes(pod: &Subject<'_>) -> Found {
    let given = |host: Option<&'_ String>| host.filter(|host| !host.is_empty()).cloned();
    let of_probe = |probe: &Probe| {
        [
            given(probe.http_get.as_ref().and_then(|a| a.host.as_ref())),
            given(probe.tcp_socket.as_ref().and_then(|a| a.host.as_ref())),
        ]
    };
    let of_handler = |handler: &LifecycleHandler| {
        [
            given(handler.http_get.as_ref().and_then(|a| a.host.as_ref())),
            given(handler.tcp_socket.as_ref().and_then(|a| a.host.as_ref())),
        ]
    };
    let of = |c: &Part<'_>| -> Vec<String> {
        let handlers = c.lifecycle.into_iter().flat_map(|l| [l.post_start.as_ref(), l.pre_stop.as_ref()]).flatten();
        let hosts = c.probes.into_iter().flatten().flat_map(of_probe).chain(handlers.flat_map(of_handler));
        hosts.flatten().collect()
    };
    let bad: BTreeSet<&str> = pod.bad(|c| !of(c).is_empty()).into_iter().collect();
    if bad.is_empty() {
        return None;
    }
    let bad: Vec<&str> = bad.into_iter().collect();
    let hosts: BTreeSet<String> = pod.containers.iter().flat_map(of).collect();
    let detail = format!(
        "{} {} {} {}",
        containers(&bad),
        plural(bad.len(), "uses", "use"),
        plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
        quoted(hosts)
    );
    violation("probe or lifecycle host", detail)
}

fn privileged(pod: &Subject<'_>) -> Found {
    let bad = pod.bad(|c| c.security.and_then(|s| s.privileged) == Some(true));
    let detail = || format!("{} must not set securityContext.privileged=true", containers(&bad));
    if bad.is_empty() { None } else { violation("privileged", detail()) }
}

fn proc_mount(pod: &Subject<'_>) -> Found {
    let of = |c: &Part<'_>| c.security.and_then(|s| s.proc_mount.clone()).filter(|kind| kind != "Default");
    let bad = pod.bad(|c| of(c).is_some());
    let kinds: BTreeSet<String> = pod.containers.iter().filter_map(of).collect();
    let detail = || format!("{} must not set securityContext.procMount to {}", containers(&bad), quoted(&kinds));
    if bad.is_empty() { None } else { violation("procMount", detail()) }
}

fn unless_own_users_proc_mount(pod: &Subject<'_>) -> Found {
    if pod.has_own_users() { None } else { proc_mount(pod) }
}

fn restricted_volumes(pod: &Subject<'_>) -> Found {
    let kind_of = |v: &Volume| -> Option<&'static str> {
        let allowed = v.config_map.is_some()
            || v.csi.is_some()
            || v.downward_api.is_some()
            || v.empty_dir.is_some()
            || v.ephemeral.is_some()
            || v.image.is_some()
            || v.persistent_volume_claim.is_some()
            || v.projected.is_some()
            || v.secret.is_some();
        let kinds = [
            (v.host_path.is_some(), "hostPath"),
            (v.gce_persistent_disk.is_some(), "gcePersistentDisk"),
            (v.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
            (v.git_repo.is_some(), "gitRepo"),
            (v.nfs.is_some(), "nfs"),
            (v.iscsi.is_some(), "iscsi"),
            (v.glusterfs.is_some(), "glusterfs"),
            (v.rbd.is_some(), "rbd"),
            (v.flex_volume.is_some(), "flexVolume"),
            (v.cinder.is_some(), "cinder"),
            (v.cephfs.is_some(), "cephfs"),
            (v.flocker.is_some(), "flocker"),
            (v.fc.is_some(), "fc"),
            (v.azure_file.is_some(), "azureFile"),
            (v.vsphere_volume.is_some(), "vsphereVolume"),
            (v.quobyte.is_some(), "quobyte"),
            (v.azure_disk.is_some(), "azureDisk"),
            (v.photon_persistent_disk.is_some(), "photonPersistentDisk"),
            (v.portworx_volume.is_some(), "portworxVolume"),
            (v.scale_io.is_some(), "scaleIO"),
            (v.storageos.is_some(), "storageos"),
        ];
        let found = kinds.into_iter().find_map(|(is_it, name)| is_it.then_some(name));
        (!allowed).then(|| found.unwrap_or("unknown"))
    };
    let bad: Vec<&str> = volumes(pod).filter(|v| kind_of(v).is_some()).map(|v| v.name.as_str()).collect();
    if bad.is_empty() {
        return None;
    }
    let kinds: BTreeSet<&str> = volumes(pod).filter_map(kind_of).collect();
    let detail = format!(
        "{} {} {} {} {}",
        plural(bad.len(), "volume", "volumes"),
        quoted(&bad),
        plural(bad.len(), "uses", "use"),
        plural(kinds.len(), "restricted volume type", "restricted volume types"),
        quoted(kinds)
    );
    violation("restricted volume types", detail)
}

fn run_as_non_root(pod: &Subject<'_>) -> Found {
    const REASON: &str = "runAsNonRoot != true";
    let of_pod = pod.security().and_then(|s| s.run_as_non_root);
    let of = |c: &Part<'_>| c.security.and_then(|s| s.run_as_non_root);
    if let Some(setters) = setters(of_pod == Some(false), &pod.bad(|c| of(c) == Some(false))) {
        return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let silent = pod.bad(|c| of(c).is_none() && of_pod != Some(true));
    let detail = || format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&silent));
    if silent.is_empty() { None } else { violation(REASON, detail()) }
}

fn unless_own_users_run_as_non_root(pod: &Subject<'_>) -> Found {
    if pod.has_own_users() { None } else { run_as_non_root(pod) }
}

fn run_as_user(pod: &Subject<'_>) -> Found {
    let of_pod = pod.security().and_then(|s| s.run_as_user) == Some(0);
    let setters = setters(of_pod, &pod.bad(|c| c.security.and_then(|s| s.run_as_user) == Some(0)))?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

fn unless_own_users_run_as_user(pod: &Subject<'_>) -> Found {
    if pod.has_own_users() { None } else { run_as_user(pod) }
}

fn se_linux(pod: &Subject<'_>, allowed: &[&str]) -> Found {
    use k8s_openapi::api::core::v1::SELinuxOptions;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let bad_type = |o: &SELinuxOptions| Some(text(&o.type_)).filter(|kind| !allowed.contains(&kind.as_str()));
    let is_bad = |o: &SELinuxOptions| bad_type(o).is_some() || !text(&o.user).is_empty() || !text(&o.role).is_empty();
    let of_pod = pod.security().and_then(|s| s.se_linux_options.as_ref());
    let bad = pod.bad(|c| c.security.and_then(|s| s.se_linux_options.as_ref()).is_some_and(is_bad));
    let setters = setters(of_pod.is_some_and(is_bad), &bad)?;
    let all: Vec<&SELinuxOptions> = of_pod
        .into_iter()
        .chain(pod.containers.iter().filter_map(|c| c.security.and_then(|s| s.se_linux_options.as_ref())))
        .collect();
    let types: BTreeSet<String> = all.iter().filter_map(|o| bad_type(o)).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(types)));
    }
    if all.iter().any(|o| !text(&o.user).is_empty()) {
        data.push("user may not be set".to_owned());
    }
    if all.iter().any(|o| !text(&o.role).is_empty()) {
        data.push("role may not be set".to_owned());
    }
    violation("seLinuxOptions", format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

fn se_linux_0(pod: &Subject<'_>) -> Found {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t"])
}

fn se_linux_31(pod: &Subject<'_>) -> Found {
    se_linux(pod, &["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"])
}

fn seccomp_annotations(pod: &Subject<'_>) -> Found {
    let keys = pod.containers.iter().map(|c| format!("container.seccomp.security.alpha.kubernetes.io/{}", c.name));
    let keys = keys.chain(["seccomp.security.alpha.kubernetes.io/pod".to_owned()]);
    let is_allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let forbidden: BTreeSet<String> = keys
        .filter_map(|key| {
            let value = pod.annotation(&key)?;
            (!is_allowed(value)).then(|| format!("{key}={value:?}"))
        })
        .collect();
    if forbidden.is_empty() {
        return None;
    }
    let noun = plural(forbidden.len(), "annotation", "annotations");
    violation("seccompProfile", format!("forbidden {noun} {}", forbidden.into_iter().collect::<Vec<_>>().join(", ")))
}

fn seccomp_of<'a>(c: &Part<'a>) -> Option<&'a str> {
    c.security.and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str())
}

fn is_bad_seccomp(kind: &str) -> bool {
    !matches!(kind, "Localhost" | "RuntimeDefault")
}

fn seccomp_baseline(pod: &Subject<'_>) -> Found {
    let of_pod = pod.security().and_then(|s| s.seccomp_profile.as_ref()).map(|p| p.type_.as_str());
    let bad = pod.bad(|c| seccomp_of(c).is_some_and(is_bad_seccomp));
    let setters = setters(of_pod.is_some_and(is_bad_seccomp), &bad)?;
    let values: BTreeSet<&str> =
        of_pod.into_iter().chain(pod.containers.iter().filter_map(seccomp_of)).filter(|k| is_bad_seccomp(k)).collect();
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(values)),
    )
}

fn seccomp_restricted(pod: &Subject<'_>) -> Found {
    if let Some(found) = seccomp_baseline(pod) {
        return Some(found);
    }
    let of_pod = pod.security().is_some_and(|s| s.seccomp_profile.is_some());
    let silent = pod.bad(|c| !of_pod && seccomp_of(c).is_none());
    let detail = || {
        let names = containers(&silent);
        format!("pod or {names} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"")
    };
    if silent.is_empty() { None } else { violation("seccompProfile", detail()) }
}

fn unless_windows_seccomp_restricted(pod: &Subject<'_>) -> Found {
    if pod.is_windows() { None } else { seccomp_restricted(pod) }
}

const SYSCTLS: &[(u32, &str)] = &[
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

fn sysctls(pod: &Subject<'_>, minor: u32) -> Found {
    let is_allowed = |name: &str| SYSCTLS.iter().any(|(since, allowed)| *since <= minor && *allowed == name);
    let set = pod.security().and_then(|s| s.sysctls.as_ref());
    let bad: Vec<&str> = set.into_iter().flatten().map(|s| s.name.as_str()).filter(|n| !is_allowed(n)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn sysctls_0(pod: &Subject<'_>) -> Found {
    sysctls(pod, 0)
}

fn sysctls_27(pod: &Subject<'_>) -> Found {
    sysctls(pod, 27)
}

fn sysctls_29(pod: &Subject<'_>) -> Found {
    sysctls(pod, 29)
}

fn sysctls_32(pod: &Subject<'_>) -> Found {
    sysctls(pod, 32)
}

fn windows_host_process(pod: &Subject<'_>) -> Found {
    let of_pod = pod.security().and_then(|s| s.windows_options.as_ref()).and_then(|o| o.host_process) == Some(true);
    let of = |c: &Part<'_>| c.security.and_then(|s| s.windows_options.as_ref()).and_then(|o| o.host_process);
    let setters = setters(of_pod, &pod.bad(|c| of(c) == Some(true)))?;
    violation("hostProcess", format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"))
}
