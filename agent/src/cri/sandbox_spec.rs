//! From a sandbox's configuration to the runtime's specification of it. Pure.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use coracle_network::{HostPort, Protocol};
use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::{
    IdMapping, IpcNamespace, LogLimits, NetworkNamespace, PidNamespace, QosClass, Resources, SandboxSpec,
    UserNamespace, UtsNamespace,
};
use prost::Message;

use super::messages::{
    LinuxContainerResources, NamespaceMode, NamespaceOption, PodSandboxConfig, UserNamespace as Users,
};
use super::{CONFIG, container_spec, invalid, records};
use crate::pod::admission::sysctl_name;

/// The longest configuration of a sandbox or a container.
pub(super) const LONGEST: usize = 4 << 20;

/// Parameters of a sandbox's own IPC namespace besides `fs.mqueue.*` (ipc_namespaces(7)).
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// What the node adds to a configuration.
pub(super) struct Surroundings<'a> {
    /// What the runtime is to know the sandbox by.
    pub(super) uid: &'a str,
    pub(super) handler: &'a str,
    /// The host's name, for sandboxes without one.
    pub(super) host_name: &'a str,
    pub(super) pids_limit: Option<u32>,
}

pub(super) fn unsupported(why: &str) -> Refusal {
    Refusal(Code::Unimplemented, why.to_owned())
}

fn mode(number: i32, what: &str, known: &[NamespaceMode]) -> Result<NamespaceMode> {
    let found = NamespaceMode::try_from(number).ok().filter(|mode| known.contains(mode));
    found.ok_or_else(|| invalid(format!("{what} namespace mode {number} is not one a sandbox may have")))
}

/// The namespaces a sandbox is to have.
pub(super) fn namespaces(config: &PodSandboxConfig) -> NamespaceOption {
    let linux = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    linux.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

/// A cgroup as clients name it, relative to each hierarchy's root.
fn cgroup_parent(text: &str) -> Result<Option<PathBuf>> {
    let parent = Path::new(text.trim_start_matches('/'));
    if parent.as_os_str().is_empty() {
        return Ok(None);
    }
    if text.ends_with(".slice") {
        return Err(invalid(format!("cgroup_parent {text:?} is a systemd slice, and the cgroup driver is cgroupfs")));
    }
    let plain = parent.components().all(|part| matches!(part, Component::Normal(_)));
    if plain { Ok(Some(parent.to_owned())) } else { Err(invalid(format!("cgroup_parent {text:?} is no path"))) }
}

/// Checks that a parameter is the sandbox's own, so that setting it changes nothing for others.
fn check_sysctl(name: &str, network: NetworkNamespace, ipc: IpcNamespace) -> Result<()> {
    let (namespace, host) = if name.starts_with("net.") {
        ("network", network == NetworkNamespace::Host)
    } else if name.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&name) {
        ("IPC", ipc == IpcNamespace::Host)
    } else {
        return Err(invalid(format!("sysctl {name:?} is not in a separate kernel namespace")));
    };
    if host {
        return Err(invalid(format!("sysctl {name:?} is not allowed with the host's {namespace} namespace")));
    }
    Ok(())
}

/// Whose users a sandbox has. A client that gives it some gives each user of the host to one sandbox alone, and groups with the
/// same numbers.
pub(super) fn users(options: Option<&Users>) -> Result<UserNamespace> {
    let Some(options) = options else { return Ok(UserNamespace::Host) };
    let mappings = (&options.uids[..], &options.gids[..]);
    match (NamespaceMode::try_from(options.mode), mappings) {
        (Ok(NamespaceMode::Node), ([], [])) => Ok(UserNamespace::Host),
        (Ok(NamespaceMode::Node), _) => Err(invalid("the host's users cannot be mapped: uids and gids must be empty")),
        (Ok(NamespaceMode::Pod), ([uids], [gids])) if uids == gids && uids.container_id == 0 => {
            Ok(UserNamespace::Range(IdMapping { host: uids.host_id, size: uids.length }))
        }
        (Ok(NamespaceMode::Pod), _) => {
            let why = "a user namespace needs one mapping of uids and the same of gids, from container_id 0 on";
            Err(invalid(why))
        }
        (_, _) => Err(unsupported(&format!("unsupported user namespace mode: {}", options.mode))),
    }
}

/// The limits of a sandbox as a whole: of its containers together, and of what it takes itself.
pub(super) fn limits(
    overhead: Option<&LinuxContainerResources>,
    resources: Option<&LinuxContainerResources>,
) -> Result<Resources> {
    let none = LinuxContainerResources::default();
    let (own, sum) = (overhead.unwrap_or(&none), resources.unwrap_or(&none));
    // Of what the containers are not limited in, the sandbox is not.
    let both = |sum: i64, own: i64| if sum > 0 { sum.saturating_add(own.max(0)) } else { sum };
    let period = if sum.cpu_period > 0 { sum.cpu_period } else { own.cpu_period };
    container_spec::resources(&LinuxContainerResources {
        cpu_shares: both(sum.cpu_shares, own.cpu_shares),
        cpu_period: period,
        cpu_quota: both(sum.cpu_quota, if own.cpu_period == period { own.cpu_quota } else { 0 }),
        memory_limit_in_bytes: both(sum.memory_limit_in_bytes, own.memory_limit_in_bytes),
        ..sum.clone()
    })
}

/// The ports of the host that are to lead to a sandbox with its own network; mappings without one mean nothing to a node.
pub(super) fn host_ports(config: &PodSandboxConfig) -> Result<Vec<HostPort>> {
    const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let number = |what: &str, port: i32| match u16::try_from(port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(invalid(format!("{what} {port} is no port"))),
    };
    let mappings = config.port_mappings.iter().filter(|mapping| mapping.host_port != 0);
    let ports = mappings.map(|mapping| {
        let protocol = usize::try_from(mapping.protocol).ok().and_then(|number| PROTOCOLS.get(number));
        let host_ip = match mapping.host_ip.as_str() {
            "" | "0.0.0.0" | "::" => None,
            text => match text.parse::<IpAddr>() {
                Ok(IpAddr::V4(ip)) => Some(ip),
                Ok(IpAddr::V6(_)) => {
                    return Err(unsupported("host ports at IPv6 addresses are not supported: sandboxes have none"));
                }
                Err(_) => return Err(invalid(format!("host_ip {text:?} is no address"))),
            },
        };
        Ok(HostPort {
            protocol: *protocol.ok_or_else(|| invalid(format!("protocol {} is unknown", mapping.protocol)))?,
            host_ip,
            host_port: number("host_port", mapping.host_port)?,
            pod_port: number("container_port", mapping.container_port)?,
        })
    });
    ports.collect()
}

/// The specification of a sandbox with this configuration.
pub(super) fn sandbox_spec(config: &PodSandboxConfig, around: &Surroundings<'_>) -> Result<SandboxSpec> {
    let metadata = config.metadata.as_ref().ok_or_else(|| invalid("sandbox config must include metadata"))?;
    if metadata.name.is_empty() {
        return Err(invalid("a sandbox needs a name"));
    }
    if config.encoded_len() > LONGEST {
        return Err(invalid(format!("sandbox config is longer than {LONGEST} bytes")));
    }
    if !config.log_directory.is_empty() && !config.log_directory.starts_with('/') {
        return Err(invalid(format!("log_directory {:?} is not absolute", config.log_directory)));
    }
    let options = namespaces(config);
    let users = users(options.userns_options.as_ref())?;
    use NamespaceMode::{Container, Node, Pod};
    let network = match mode(options.network, "network", &[Pod, Node])? {
        Node => NetworkNamespace::Host,
        _ => NetworkNamespace::Own,
    };
    let pid = match mode(options.pid, "PID", &[Pod, Container, Node])? {
        Node => PidNamespace::Host,
        Container => PidNamespace::Container,
        _ => PidNamespace::Pod,
    };
    let ipc = match mode(options.ipc, "IPC", &[Pod, Node])? {
        Node => IpcNamespace::Host,
        _ => IpcNamespace::Pod,
    };
    let linux = config.linux.clone().unwrap_or_default();
    let mut sysctls = Vec::new();
    for (name, value) in &linux.sysctls {
        let name = sysctl_name(name);
        check_sysctl(&name, network, ipc)?;
        sysctls.push((name, value.clone()));
    }
    let hostname = if config.hostname.is_empty() { around.host_name } else { &config.hostname };
    if hostname.len() > 64 || hostname.contains(['/', '\n', '\0', ' ']) {
        return Err(invalid(format!("hostname {hostname:?} is none: at most 64 bytes, without blanks")));
    }
    Ok(SandboxSpec {
        pod_uid: around.uid.to_owned(),
        pod_name: metadata.name.clone(),
        pod_namespace: metadata.namespace.clone(),
        attempt: 0,
        hostname: hostname.to_owned(),
        network,
        pid,
        ipc,
        uts: if network == NetworkNamespace::Host { UtsNamespace::Host } else { UtsNamespace::Pod },
        users,
        sysctls,
        qos: QosClass::BestEffort,
        cgroup_parent: cgroup_parent(&linux.cgroup_parent)?,
        resources: Resources {
            pids_limit: around.pids_limit.map(i64::from),
            ..limits(linux.overhead.as_ref(), linux.resources.as_ref())?
        },
        log_directory: PathBuf::from(&config.log_directory),
        // Whoever gave the directory rotates in it, and says when.
        log_limits: LogLimits { max_size: u64::MAX, max_files: 2 },
        shm_size: 0,
        annotations: vec![
            (CONFIG.to_owned(), records::encode(config)),
            (records::HANDLER.to_owned(), around.handler.to_owned()),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::super::messages::{
        IdMapping as Mapping, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, PodSandboxMetadata, PortMapping,
    };
    use super::*;

    fn make(
        change: impl FnOnce(&mut PodSandboxConfig, &mut LinuxPodSandboxConfig, &mut NamespaceOption),
    ) -> Result<SandboxSpec> {
        let metadata = PodSandboxMetadata { name: "web".into(), namespace: "ns".into(), uid: "u".into(), attempt: 1 };
        let mut config = PodSandboxConfig { metadata: Some(metadata), ..PodSandboxConfig::default() };
        let (mut linux, mut options) = (LinuxPodSandboxConfig::default(), NamespaceOption::default());
        change(&mut config, &mut linux, &mut options);
        let security =
            LinuxSandboxSecurityContext { namespace_options: Some(options), ..LinuxSandboxSecurityContext::default() };
        config.linux = Some(LinuxPodSandboxConfig { security_context: Some(security), ..linux });
        let around = Surroundings { uid: "cri-1", handler: "", host_name: "host", pids_limit: Some(9) };
        sandbox_spec(&config, &around)
    }

    #[test]
    fn namespaces_are_the_sandboxes_or_the_hosts() {
        let spec = make(|_, _, _| {}).unwrap();
        assert_eq!((spec.network, spec.pid, spec.ipc), (NetworkNamespace::Own, PidNamespace::Pod, IpcNamespace::Pod));
        assert_eq!((spec.hostname.as_str(), spec.uts), ("host", UtsNamespace::Pod));
        let spec = make(|_, _, options| (options.network, options.pid, options.ipc) = (2, 2, 2)).unwrap();
        assert_eq!(
            (spec.network, spec.pid, spec.ipc),
            (NetworkNamespace::Host, PidNamespace::Host, IpcNamespace::Host)
        );
        assert_eq!(spec.uts, UtsNamespace::Host);
        assert_eq!(make(|_, _, options| options.pid = 1).unwrap().pid, PidNamespace::Container);
    }

    #[test]
    fn what_cannot_be_is_refused_with_a_code() {
        use Code::{InvalidArgument, Unimplemented};
        let check = |want, change: &dyn Fn(&mut PodSandboxConfig, &mut LinuxPodSandboxConfig, &mut NamespaceOption)| {
            let Refusal(code, why) = make(change).unwrap_err();
            assert_eq!(code, want, "{why}");
        };
        check(InvalidArgument, &|config, _, _| config.metadata = None);
        check(InvalidArgument, &|config, _, _| config.metadata = Some(PodSandboxMetadata::default()));
        check(InvalidArgument, &|config, _, _| config.log_directory = "logs".into());
        check(InvalidArgument, &|config, _, _| config.hostname = "a b".into());
        check(InvalidArgument, &|_, _, options| options.network = 1);
        check(InvalidArgument, &|_, _, options| options.pid = 3);
        check(InvalidArgument, &|_, _, options| options.ipc = 99);
        check(InvalidArgument, &|_, linux, _| linux.cgroup_parent = "/a/../b".into());
        check(InvalidArgument, &|_, linux, _| linux.cgroup_parent = "kubepods.slice".into());
        for name in ["vm.swappiness", "kernel.hostname", "fs.file-max"] {
            check(InvalidArgument, &|_, linux, _| drop(linux.sysctls.insert(name.into(), "1".into())));
        }
        check(InvalidArgument, &|_, linux, options| {
            options.network = 2;
            linux.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        });
        check(InvalidArgument, &|_, _, options| options.userns_options = Some(Users::default()));
        check(Unimplemented, &|_, _, options| options.userns_options = Some(Users { mode: 1, ..Users::default() }));
    }

    #[test]
    fn users_are_the_hosts_or_one_range_of_the_clients() {
        let mapping = |host_id, container_id, length| Mapping { host_id, container_id, length };
        let of = |mode, uids: &[Mapping], gids: &[Mapping]| {
            let options = Users { mode, uids: uids.to_vec(), gids: gids.to_vec() };
            make(|_, _, all| all.userns_options = Some(options)).map(|spec| spec.users).map_err(|refusal| refusal.0)
        };
        let one = [mapping(65_536, 0, 65_536)];
        assert_eq!(make(|_, _, _| {}).unwrap().users, UserNamespace::Host);
        assert_eq!(of(2, &[], &[]), Ok(UserNamespace::Host));
        assert_eq!(of(0, &one, &one), Ok(UserNamespace::Range(IdMapping { host: 65_536, size: 65_536 })));
        let two = [one[0].clone(), mapping(200_000, 65_536, 1)];
        for (mode, uids, gids) in [
            (2, &one[..], &one[..]),
            (0, &one, &[]),
            (0, &one, &[mapping(65_536, 0, 1)]),
            (0, &two, &two),
            (0, &[mapping(65_536, 1, 10)], &[mapping(65_536, 1, 10)]),
        ] {
            assert_eq!(of(mode, uids, gids), Err(Code::InvalidArgument), "{mode} {uids:?} {gids:?}");
        }
    }

    #[test]
    fn a_sandbox_has_what_its_containers_have_and_what_it_takes_itself() {
        let of = |cpu_quota, memory_limit_in_bytes, cpu_shares| LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota,
            memory_limit_in_bytes,
            cpu_shares,
            ..LinuxContainerResources::default()
        };
        let spec = make(|_, linux, _| {
            (linux.resources, linux.overhead) = (Some(of(50_000, 1 << 20, 512)), Some(of(10_000, 1 << 10, 100)));
        });
        let limits = spec.unwrap().resources;
        assert_eq!((limits.cpu_quota, limits.cpu_period), (Some(60_000), Some(100_000)));
        assert_eq!((limits.memory_limit, limits.cpu_shares), (Some((1 << 20) + (1 << 10)), Some(612)));
        assert_eq!(limits.pids_limit, Some(9));
        // Nothing is limited that containers are not.
        let spec = make(|_, linux, _| (linux.resources, linux.overhead) = (Some(of(0, 0, 2)), Some(of(1000, 1000, 0))));
        let limits = spec.unwrap().resources;
        assert_eq!((limits.cpu_quota, limits.memory_limit, limits.cpu_shares), (None, None, Some(2)));
    }

    #[test]
    fn host_ports_are_read_and_checked() {
        let ports = |change: &dyn Fn(&mut PortMapping)| {
            let mut mapping = PortMapping { host_port: 8080, container_port: 80, ..PortMapping::default() };
            change(&mut mapping);
            host_ports(&PodSandboxConfig { port_mappings: vec![mapping], ..PodSandboxConfig::default() })
        };
        let plain = HostPort { protocol: Protocol::Tcp, host_ip: None, host_port: 8080, pod_port: 80 };
        assert_eq!(ports(&|_| {}).unwrap(), [plain]);
        assert_eq!(ports(&|mapping| mapping.host_ip = "::".into()).unwrap(), [plain]);
        assert_eq!(ports(&|mapping| mapping.host_port = 0).unwrap(), []);
        let here = HostPort { protocol: Protocol::Udp, host_ip: Some([127, 0, 0, 1].into()), ..plain };
        let read = ports(&|mapping| (mapping.protocol, mapping.host_ip) = (1, "127.0.0.1".into()));
        assert_eq!(read.unwrap(), [here]);
        use Code::{InvalidArgument, Unimplemented};
        let code = |change: &dyn Fn(&mut PortMapping)| ports(change).unwrap_err().0;
        assert_eq!(code(&|mapping| mapping.protocol = 3), InvalidArgument);
        assert_eq!(code(&|mapping| mapping.host_port = 65_536), InvalidArgument);
        assert_eq!(code(&|mapping| mapping.host_port = -1), InvalidArgument);
        assert_eq!(code(&|mapping| mapping.container_port = 0), InvalidArgument);
        assert_eq!(code(&|mapping| mapping.host_ip = "here".into()), InvalidArgument);
        assert_eq!(code(&|mapping| mapping.host_ip = "::1".into()), Unimplemented);
    }

    #[test]
    fn cgroups_and_sysctls_are_handed_on() {
        let spec = make(|_, linux, _| {
            linux.cgroup_parent = "/kubepods/pod1".into();
            linux.sysctls.insert("net/core/somaxconn".into(), "5".into());
        })
        .unwrap();
        assert_eq!(spec.cgroup_parent, Some(PathBuf::from("kubepods/pod1")));
        assert_eq!(spec.sysctls, [("net.core.somaxconn".to_owned(), "5".to_owned())]);
        assert_eq!(make(|_, linux, _| linux.cgroup_parent = "/".into()).unwrap().cgroup_parent, None);
    }
}
