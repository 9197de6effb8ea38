//! From a container's configuration to the runtime's specification of it. Pure.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use coracle_process::grpc::Result;
use coracle_runtime::image::{Execution, Reference};
use coracle_runtime::{
    CapabilityChange, ContainerId, ContainerSpec, Device, HugePageLimit, MountKind, PidNamespace, Propagation,
    Resources, SandboxSpec, SeccompProfile, User,
};
use prost::Message;

use super::messages::{
    ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode,
    PodSandboxConfig, ProfileType, SecurityProfile, SupplementalGroupsPolicy,
};
use super::sandbox_spec::{LONGEST, namespaces, unsupported, users};
use super::{cdi, invalid};
use crate::pod::security::{confinement, unenforceable};

/// What a container is made from besides its own configuration.
pub(super) struct Ingredients<'a> {
    /// The name in the runtime, which no other container of the sandbox ever has.
    pub(super) name: String,
    pub(super) sandbox: &'a PodSandboxConfig,
    pub(super) sandbox_spec: &'a SandboxSpec,
    pub(super) image: &'a Execution,
    /// The image's layers, the top one first.
    pub(super) layers: Vec<PathBuf>,
    /// Where the sandbox's own files in `/etc` are.
    pub(super) etc: PathBuf,
    /// What is mounted, by the place in the container: paths of the host that are there, and layers of images.
    pub(super) sources: &'a BTreeMap<String, MountKind>,
    pub(super) apparmor: bool,
    /// What the devices bring that are asked for by their names.
    pub(super) cdi: cdi::Given,
}

/// Where a container's log is to be; nowhere when either part is not said.
pub(super) fn log_path(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Option<PathBuf> {
    let both = !sandbox.log_directory.is_empty() && !config.log_path.is_empty();
    both.then(|| Path::new(&sandbox.log_directory).join(&config.log_path))
}

/// The specification of a container with this configuration.
pub(super) fn container_spec(config: &ContainerConfig, from: &Ingredients<'_>) -> Result<ContainerSpec> {
    check(config)?;
    let argv = from.image.argv(config.command.clone(), config.args.clone());
    if argv.is_empty() {
        return Err(invalid("no command specified"));
    }
    let linux = config.linux.clone().unwrap_or_default();
    let security = linux.security_context.unwrap_or_default();
    let of_sandbox = from.sandbox.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    if security.privileged && !of_sandbox.is_some_and(|sandbox| sandbox.privileged) {
        return Err(invalid("no privileged container allowed in sandbox"));
    }
    let asked = security.namespace_options.as_ref().and_then(|options| options.userns_options.as_ref());
    if asked.is_some() && users(asked)? != from.sandbox_spec.users {
        return Err(invalid("the users of a container must be those of its sandbox"));
    }
    let resources = linux.resources.unwrap_or_default();
    let mut spec = ContainerSpec::new(&from.name, from.layers.clone(), argv);
    spec.env = environment(config, from)?;
    spec.cwd = if config.working_dir.is_empty() { from.image.working_dir.clone() } else { config.working_dir.clone() };
    spec.user = user(&security, &from.image.user)?;
    spec.additional_gids = ids("supplemental_groups", &security.supplemental_groups)?;
    spec.additional_gids.extend(&from.cdi.gids);
    spec.strict_groups = security.supplemental_groups_policy == i32::from(SupplementalGroupsPolicy::Strict);
    let capabilities = security.capabilities.clone().unwrap_or_default();
    spec.capabilities = CapabilityChange {
        add: capabilities.add_capabilities,
        drop: capabilities.drop_capabilities,
        ambient: capabilities.add_ambient_capabilities,
    };
    spec.privileged = security.privileged;
    spec.no_new_privileges = security.no_new_privs;
    spec.readonly_rootfs = security.readonly_rootfs;
    spec.seccomp = seccomp(security.seccomp.as_ref(), &security.seccomp_profile_path)?;
    spec.apparmor =
        apparmor(security.apparmor.as_ref(), &security.apparmor_profile, from.apparmor, security.privileged)?;
    // Lists that are not given are the runtime's own.
    if !security.masked_paths.is_empty() {
        spec.masked_paths = security.masked_paths.clone();
    }
    if !security.readonly_paths.is_empty() {
        spec.readonly_paths = security.readonly_paths.clone();
    }
    spec.mounts = mounts(config, from, security.readonly_rootfs)?;
    spec.devices = devices(config, from, &spec.user)?;
    spec.resources = self::resources(&resources)?;
    spec.oom_score_adj = oom_score_adj(&resources)?;
    spec.tty = config.tty;
    spec.stdin = config.stdin;
    spec.stdin_once = config.stdin_once;
    spec.stop_signal = match signal_name(config.stop_signal)? {
        Some(name) => name,
        None => from.image.stop_signal.clone(),
    };
    spec.pid = pid(&security, &from.sandbox_spec.pid)?;
    // A log that is not asked for is thrown away.
    spec.log_path = Some(log_path(from.sandbox, config).unwrap_or_else(|| PathBuf::from("/dev/null")));
    Ok(spec)
}

/// What cannot be, whatever the sandbox and the image are.
fn check(config: &ContainerConfig) -> Result<()> {
    if config.encoded_len() > LONGEST {
        return Err(invalid(format!("container config is longer than {LONGEST} bytes")));
    }
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(invalid("container config must include metadata with a name"));
    }
    let log = Path::new(&config.log_path);
    if log.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(invalid(format!("log_path {:?} is no path below the sandbox's log directory", config.log_path)));
    }
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(invalid(format!("working_dir {:?} is not absolute", config.working_dir)));
    }
    Ok(())
}

fn environment(config: &ContainerConfig, from: &Ingredients<'_>) -> Result<Vec<(String, String)>> {
    let image = from.image.env.iter().filter_map(|line| line.split_once('='));
    let mut env: Vec<(String, String)> = image.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    env.push(("HOSTNAME".to_owned(), from.sandbox_spec.hostname.clone()));
    if config.tty {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    for variable in &config.envs {
        let name = &variable.key;
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(invalid(format!("{name:?} is no name of an environment variable")));
        }
        let value = String::from_utf8(variable.value.clone()).ok().filter(|value| !value.contains('\0'));
        let value = value.ok_or_else(|| invalid(format!("the environment variable {name:?} is no text")))?;
        env.push((name.clone(), value));
    }
    // Of equal names the last counts.
    env.extend(from.cdi.env.iter().cloned());
    Ok(env)
}

fn id(field: &str, value: i64) -> Result<u32> {
    u32::try_from(value).map_err(|_| invalid(format!("{field} {value} is not a user or group id")))
}

fn ids(field: &str, values: &[i64]) -> Result<Vec<u32>> {
    values.iter().map(|value| id(field, *value)).collect()
}

/// The number goes before the name, and both before the image's.
fn user(security: &LinuxContainerSecurityContext, image: &str) -> Result<User> {
    let gid = security.run_as_group.as_ref().map(|group| id("run_as_group", group.value)).transpose()?;
    let name = &security.run_as_username;
    match (&security.run_as_user, gid) {
        (Some(user), gid) => Ok(User::Ids { uid: id("run_as_user", user.value)?, gid }),
        (None, gid) if !name.is_empty() => {
            Ok(User::Name(gid.map_or_else(|| name.clone(), |gid| format!("{name}:{gid}"))))
        }
        (None, Some(_)) => Err(invalid("user group is specified without user")),
        (None, None) if image.is_empty() => Ok(User::default()),
        (None, None) => Ok(User::Name(image.to_owned())),
    }
}

/// Nothing said is no filter, as with other runtimes.
fn seccomp(profile: Option<&SecurityProfile>, path: &str) -> Result<SeccompProfile> {
    let local = |path: &str| match path.starts_with('/') {
        true => Ok(SeccompProfile::Localhost(PathBuf::from(path))),
        false => Err(invalid(format!("seccomp profile {path:?} is no absolute path"))),
    };
    if let Some(profile) = profile {
        return match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::RuntimeDefault) => Ok(SeccompProfile::RuntimeDefault),
            Ok(ProfileType::Unconfined) => Ok(SeccompProfile::Unconfined),
            Ok(ProfileType::Localhost) => {
                local(profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref))
            }
            Err(_) => Err(invalid(format!("unsupported seccomp profile type {}", profile.profile_type))),
        };
    }
    match path {
        "" | "unconfined" => Ok(SeccompProfile::Unconfined),
        "runtime/default" | "docker/default" => Ok(SeccompProfile::RuntimeDefault),
        path => {
            local(path.strip_prefix("localhost/").ok_or_else(|| invalid(format!("invalid seccomp profile {path:?}")))?)
        }
    }
}

/// The AppArmor profile that is asked for, by the message or by the older text. What a host cannot enforce is refused, as the
/// node refuses it in pods; nothing said is none.
fn apparmor(profile: Option<&SecurityProfile>, text: &str, enabled: bool, privileged: bool) -> Result<Option<String>> {
    let (kind, name) = match (profile, text) {
        (Some(profile), _) => match ProfileType::try_from(profile.profile_type) {
            Ok(ProfileType::Unconfined) => ("Unconfined", ""),
            Ok(ProfileType::RuntimeDefault) => ("RuntimeDefault", ""),
            Ok(ProfileType::Localhost) => {
                ("Localhost", profile.localhost_ref.strip_prefix("localhost/").unwrap_or(&profile.localhost_ref))
            }
            Err(_) => return Err(invalid(format!("unsupported apparmor profile type {}", profile.profile_type))),
        },
        (None, "" | "unconfined") => ("Unconfined", ""),
        (None, "runtime/default") => ("RuntimeDefault", ""),
        (None, text) => match text.strip_prefix("localhost/") {
            Some(name) => ("Localhost", name),
            None => return Err(invalid(format!("invalid apparmor profile {text:?}"))),
        },
    };
    if let Some(why) = unenforceable(kind, enabled) {
        return Err(invalid(format!("Cannot enforce AppArmor: {why}")));
    }
    match (kind, name) {
        ("Localhost", "") => Err(invalid("an AppArmor profile needs a name")),
        (kind, name) => Ok(confinement(kind, name, privileged)),
    }
}

/// Which processes it sees, if not what the sandbox says.
fn pid(security: &LinuxContainerSecurityContext, sandbox: &PidNamespace) -> Result<Option<PidNamespace>> {
    let Some(options) = &security.namespace_options else { return Ok(None) };
    match NamespaceMode::try_from(options.pid) {
        Ok(NamespaceMode::Pod) if *sandbox == PidNamespace::Container => {
            Err(invalid("the sandbox has no PID namespace for its containers: it was asked for one each"))
        }
        Ok(NamespaceMode::Pod) => Ok(None),
        Ok(NamespaceMode::Container) => Ok(Some(PidNamespace::Container)),
        Ok(NamespaceMode::Node) => Ok(Some(PidNamespace::Host)),
        Ok(NamespaceMode::Target) => match ContainerId::parse(&options.target_id) {
            Some(id) => Ok(Some(PidNamespace::Target(id))),
            None => Err(invalid(format!("target_id {:?} is no container's id", options.target_id))),
        },
        Err(_) => Err(invalid(format!("PID namespace mode {} is unknown", options.pid))),
    }
}

/// A place in the container, as it is mounted.
pub(super) fn place(mount: &Mount) -> String {
    let path = mount.container_path.trim_start_matches('/');
    format!("/{path}")
}

fn mounts(config: &ContainerConfig, from: &Ingredients<'_>, readonly: bool) -> Result<Vec<coracle_runtime::Mount>> {
    let mut all = Vec::new();
    for mount in &config.mounts {
        let destination = place(mount);
        let kind = from.sources.get(&destination).cloned();
        let kind = kind.ok_or_else(|| invalid(format!("nothing is to be mounted at {destination:?}")))?;
        let propagation = match MountPropagation::try_from(mount.propagation) {
            Ok(MountPropagation::Private) => Propagation::Private,
            Ok(MountPropagation::HostToContainer) => Propagation::HostToContainer,
            Ok(MountPropagation::Bidirectional) => Propagation::Bidirectional,
            Err(_) => return Err(invalid(format!("mount propagation {} is unknown", mount.propagation))),
        };
        if mount.recursive_read_only && (!mount.readonly || propagation != Propagation::Private) {
            let why = format!("recursive_read_only of {destination:?} needs readonly and private propagation");
            return Err(invalid(why));
        }
        if let Some(image) = image_name(mount) {
            check_image_mount(mount, image, &destination)?;
        }
        check_mapping(mount, from.sandbox, &destination)?;
        all.push(coracle_runtime::Mount {
            readonly: mount.readonly,
            recursive_readonly: mount.recursive_read_only,
            propagation,
            kind,
            ..coracle_runtime::Mount::bind("", destination)
        });
    }
    all.retain(|mount| !from.cdi.mounts.iter().any(|over| over.destination == mount.destination));
    all.extend(from.cdi.mounts.iter().cloned());
    for name in ["hostname", "hosts", "resolv.conf"] {
        let destination = format!("/etc/{name}");
        if !all.iter().any(|mount| mount.destination == destination) {
            let mount = coracle_runtime::Mount::bind(from.etc.join(name), destination);
            all.push(coracle_runtime::Mount { readonly, ..mount });
        }
    }
    // What is mounted in another mount comes after it.
    all.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    Ok(all)
}

/// What is mounted in a sandbox with users of its own shows them its files as theirs, whether or not that is asked for; with
/// other users it cannot.
fn check_mapping(mount: &Mount, sandbox: &PodSandboxConfig, destination: &str) -> Result<()> {
    if mount.uid_mappings.is_empty() && mount.gid_mappings.is_empty() {
        return Ok(());
    }
    let of = namespaces(sandbox).userns_options.unwrap_or_default();
    if mount.uid_mappings == of.uids && mount.gid_mappings == of.gids {
        return Ok(());
    }
    Err(invalid(format!("the mappings of the mount at {destination:?} are not those of its sandbox")))
}

/// What is asked of an image that is mounted must be what it is, in containerd's words.
fn check_image_mount(mount: &Mount, image: &str, destination: &str) -> Result<()> {
    let must = match mount {
        Mount { host_path, .. } if !host_path.is_empty() => "hostpath must be empty",
        Mount { readonly: false, .. } => "readonly must be true",
        _ => return Ok(()),
    };
    Err(invalid(format!("{must} while mount image: {image:?} at {destination:?}")))
}

/// The devices a container asks for by their paths, and those that names stand for. A node of the latter is the user's unless
/// its file says otherwise; who a user's name stands for only the image's files say.
fn devices(config: &ContainerConfig, from: &Ingredients<'_>, user: &User) -> Result<Vec<Device>> {
    let device = |device: &super::messages::Device| {
        let permissions = if device.permissions.is_empty() { "rwm" } else { &device.permissions };
        let container = if device.container_path.is_empty() { &device.host_path } else { &device.container_path };
        if !device.host_path.starts_with('/') || !container.starts_with('/') {
            return Err(invalid(format!("device {:?} is no absolute path", device.host_path)));
        }
        if permissions.contains(|letter| !"rwm".contains(letter)) {
            return Err(invalid(format!("device permissions {permissions:?} are not made of r, w and m")));
        }
        Ok(Device {
            host_path: PathBuf::from(&device.host_path),
            container_path: container.clone(),
            permissions: permissions.to_owned(),
            ..Device::default()
        })
    };
    let mut all = config.devices.iter().map(device).collect::<Result<Vec<_>>>()?;
    all.retain(|device| !from.cdi.devices.iter().any(|over| over.container_path == device.container_path));
    let (uid, gid) = match user {
        User::Ids { uid, gid } => (Some(*uid).filter(|uid| *uid > 0), gid.filter(|gid| *gid > 0)),
        User::Name(_) => (None, None),
    };
    let own = |device: &Device| Device { uid: device.uid.or(uid), gid: device.gid.or(gid), ..device.clone() };
    all.extend(from.cdi.devices.iter().map(own));
    Ok(all)
}

fn oom_score_adj(resources: &LinuxContainerResources) -> Result<Option<i32>> {
    let value = i32::try_from(resources.oom_score_adj).ok().filter(|value| (-1000..=1000).contains(value));
    let wrong = || invalid(format!("oom_score_adj {} is not between -1000 and 1000", resources.oom_score_adj));
    value.ok_or_else(wrong).map(|value| (value != 0).then_some(value))
}

/// Limits in the runtime's words; what is 0 or empty is not said.
pub(super) fn resources(asked: &LinuxContainerResources) -> Result<Resources> {
    let said = |value: i64| (value != 0).then_some(value);
    let positive = |field: &str, value: i64| match u64::try_from(value) {
        Ok(value) => Ok((value != 0).then_some(value)),
        Err(_) => Err(invalid(format!("{field} {value} is negative"))),
    };
    let list = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let memory = said(asked.memory_limit_in_bytes);
    let swap = match (asked.memory_swap_limit_in_bytes, memory) {
        // Memory and swap together; what is not said is none besides the memory.
        (0, Some(limit)) if limit > 0 => Some(0),
        (0, _) => None,
        (-1, _) => Some(-1),
        (both, Some(limit)) if both >= limit => Some(both - limit),
        (both, _) => {
            return Err(invalid(format!("memory_swap_limit_in_bytes {both} is less than the limit of memory")));
        }
    };
    let mut resources = Resources {
        cpu_shares: positive("cpu_shares", asked.cpu_shares)?,
        cpu_quota: said(asked.cpu_quota),
        cpu_period: positive("cpu_period", asked.cpu_period)?,
        cpuset_cpus: list(&asked.cpuset_cpus),
        cpuset_mems: list(&asked.cpuset_mems),
        memory_limit: memory,
        swap_limit: swap,
        hugepages: asked
            .hugepage_limits
            .iter()
            .map(|limit| HugePageLimit { page_size: limit.page_size.clone(), limit: limit.limit })
            .collect(),
        ..Resources::default()
    };
    for (name, value) in &asked.unified {
        let number = if value == "max" { Some(-1) } else { value.parse::<i64>().ok().filter(|value| *value >= 0) };
        let number = number.ok_or_else(|| invalid(format!("unified[{name:?}]: {value:?} is no amount")))?;
        match name.as_str() {
            "memory.min" => resources.memory_min = Some(number),
            "memory.high" => resources.memory_high = Some(number),
            "memory.max" => resources.memory_limit = Some(number),
            "memory.swap.max" => resources.swap_limit = Some(number),
            "pids.max" => resources.pids_limit = Some(number),
            // How a group is killed is the runtime's.
            "memory.oom.group" => {}
            _ => return Err(unsupported(&format!("unified[{name:?}] is not supported"))),
        }
    }
    Ok(resources)
}

/// The signals in the interface's order, from 1 on, before the real-time ones.
const SIGNALS: [&str; 34] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ",
];
/// The number of `SIGRTMIN`, and the last that is counted from it.
const RTMIN: (i32, i32) = (35, 50);
/// The number of `SIGRTMAX`.
const RTMAX: i32 = 65;

/// A signal as the runtime reads it; none for 0, which is the runtime's own choice.
fn signal_name(number: i32) -> Result<Option<String>> {
    let name = match number {
        0 => return Ok(None),
        1..=34 => {
            let place = usize::try_from(number - 1).unwrap_or(usize::MAX);
            let name = SIGNALS.get(place).copied().unwrap_or_default();
            // Second names of the same signals.
            let name = match name {
                "CLD" => "CHLD",
                "IOT" => "ABRT",
                "POLL" => "IO",
                name => name,
            };
            format!("SIG{name}")
        }
        number if (RTMIN.0..=RTMIN.1).contains(&number) => format!("RTMIN+{}", number - RTMIN.0),
        number if (RTMIN.1..=RTMAX).contains(&number) => format!("RTMAX-{}", RTMAX - number),
        number => return Err(invalid(format!("stop_signal {number} is unknown"))),
    };
    Ok(Some(name))
}

/// The interface's number of a signal that the runtime knows by this name; 15 is sent when there is none.
pub(super) fn signal_number(name: &str) -> i32 {
    let wanted = if name.is_empty() { "SIGTERM" } else { name };
    let Some(wanted) = coracle_runtime::Signal::parse(wanted) else { return 0 };
    let means = |number: &i32| {
        let name = signal_name(*number).ok().flatten();
        name.and_then(|name| coracle_runtime::Signal::parse(&name)) == Some(wanted)
    };
    (1..=RTMAX).find(means).unwrap_or(0)
}

/// What a mounted image is called, which may be an id as well.
pub(super) fn image_name(mount: &Mount) -> Option<&str> {
    mount.image.as_ref().map(|image| image.image.as_str()).filter(|name| !name.is_empty())
}

/// The image's name with its digest as statuses show it, or its id.
pub(super) fn image_ref(image: &coracle_runtime::image::Image) -> String {
    let named = image.repo_digests.iter().find(|digest| digest.parse::<Reference>().is_ok());
    named.cloned().unwrap_or_else(|| image.id.to_string())
}

#[cfg(test)]
mod tests;
