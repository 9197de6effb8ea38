//! Configurations as clients send them, and what becomes of them.

use coracle_process::grpc::{Code, Refusal};

use super::super::messages::{
    Capability, ContainerMetadata, Device as AskedDevice, ImageSpec, Int64Value, KeyValue, LinuxContainerConfig,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceOption,
};
use super::super::sandbox_spec::{Surroundings, sandbox_spec};
use super::*;

/// A configuration to be changed.
#[derive(Default)]
struct Asked {
    config: ContainerConfig,
    security: LinuxContainerSecurityContext,
    resources: LinuxContainerResources,
    sandbox: LinuxSandboxSecurityContext,
    log_directory: String,
    apparmor: bool,
    cdi: cdi::Given,
}

fn make(change: impl FnOnce(&mut Asked)) -> Result<ContainerSpec> {
    let mut asked = Asked::default();
    asked.config.metadata = Some(ContainerMetadata { name: "app".into(), attempt: 0 });
    asked.config.image = Some(ImageSpec { image: "i".into(), ..ImageSpec::default() });
    change(&mut asked);
    let sandbox = PodSandboxConfig {
        metadata: Some(super::super::messages::PodSandboxMetadata { name: "web".into(), ..Default::default() }),
        hostname: "web".into(),
        log_directory: asked.log_directory,
        linux: Some(LinuxPodSandboxConfig { security_context: Some(asked.sandbox), ..Default::default() }),
        ..PodSandboxConfig::default()
    };
    let around = Surroundings { uid: "cri-1", handler: "", host_name: "host", pids_limit: None };
    let image = Execution {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["cmd".into()],
        env: vec!["PATH=/bin".into()],
        user: "www".into(),
        working_dir: "/w".into(),
        stop_signal: "SIGQUIT".into(),
        ..Execution::default()
    };
    let sources = asked
        .config
        .mounts
        .iter()
        .map(|mount| (place(mount), MountKind::Bind { source: PathBuf::from(&mount.host_path) }));
    let ingredients = Ingredients {
        name: "n1".into(),
        sandbox: &sandbox,
        sandbox_spec: &sandbox_spec(&sandbox, &around)?,
        image: &image,
        layers: vec!["/layers/0".into()],
        etc: "/notes/etc".into(),
        sources: &sources.collect(),
        apparmor: asked.apparmor,
        cdi: asked.cdi,
    };
    asked.config.linux =
        Some(LinuxContainerConfig { resources: Some(asked.resources), security_context: Some(asked.security) });
    container_spec(&asked.config, &ingredients)
}

fn number(value: i64) -> Option<Int64Value> {
    Some(Int64Value { value })
}

#[test]
fn what_is_not_said_is_the_images() {
    let spec = make(|_| {}).unwrap();
    assert_eq!(spec.argv, ["/entry", "cmd"]);
    assert_eq!((spec.cwd.as_str(), spec.user, spec.stop_signal.as_str()), ("/w", User::Name("www".into()), "SIGQUIT"));
    assert_eq!(spec.env, [("PATH".into(), "/bin".into()), ("HOSTNAME".into(), "web".into())]);
    assert_eq!(spec.seccomp, SeccompProfile::Unconfined);
    assert_eq!(spec.log_path, Some(PathBuf::from("/dev/null")));
    assert!(spec.masked_paths.iter().any(|path| path == "/proc/kcore"));
    let places: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(places, ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"]);
}

#[test]
fn what_is_said_is_handed_on() {
    let spec = make(|asked| {
        asked.config.args = vec!["a".into()];
        asked.config.envs = vec![KeyValue { key: "A".into(), value: b"b".to_vec() }];
        asked.config.tty = true;
        asked.config.log_path = "app/0.log".into();
        asked.log_directory = "/logs".into();
        asked.config.stop_signal = 36;
        asked.config.mounts = vec![
            Mount { container_path: "/a/b".into(), host_path: "/h1".into(), readonly: true, ..Mount::default() },
            Mount { container_path: "a".into(), host_path: "/h2".into(), propagation: 2, ..Mount::default() },
            Mount { container_path: "/etc/hosts".into(), host_path: "/h3".into(), ..Mount::default() },
        ];
        asked.config.devices = vec![AskedDevice { host_path: "/dev/fuse".into(), ..AskedDevice::default() }];
        asked.security.run_as_user = number(5);
        asked.security.run_as_group = number(6);
        asked.security.supplemental_groups = vec![7];
        asked.security.supplemental_groups_policy = 1;
        asked.security.capabilities =
            Some(Capability { add_capabilities: vec!["NET_ADMIN".into()], ..Capability::default() });
        asked.security.masked_paths = vec!["/proc/keys".into()];
        asked.security.seccomp = Some(SecurityProfile::default());
        asked.security.namespace_options = Some(NamespaceOption { pid: 1, ..NamespaceOption::default() });
        asked.resources.oom_score_adj = -7;
        asked.resources.memory_limit_in_bytes = 1 << 20;
    })
    .unwrap();
    assert_eq!(spec.argv, ["/entry", "a"]);
    assert_eq!(spec.env.last().unwrap(), &("A".to_owned(), "b".to_owned()));
    assert!(spec.env.contains(&("TERM".to_owned(), "xterm".to_owned())));
    assert_eq!(spec.log_path, Some(PathBuf::from("/logs/app/0.log")));
    assert_eq!(spec.stop_signal, "RTMIN+1");
    let places: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(places, ["/a", "/a/b", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"]);
    assert_eq!((spec.mounts[0].propagation, spec.mounts[1].readonly), (Propagation::Bidirectional, true));
    assert_eq!((spec.devices[0].container_path.as_str(), spec.devices[0].permissions.as_str()), ("/dev/fuse", "rwm"));
    assert_eq!(
        (spec.user, spec.additional_gids, spec.strict_groups),
        (User::Ids { uid: 5, gid: Some(6) }, vec![7], true)
    );
    assert_eq!(spec.capabilities.add, ["NET_ADMIN"]);
    assert_eq!(spec.masked_paths, ["/proc/keys"]);
    assert_eq!((spec.seccomp, spec.pid), (SeccompProfile::RuntimeDefault, Some(PidNamespace::Container)));
    assert_eq!(
        (spec.oom_score_adj, spec.resources.memory_limit, spec.resources.swap_limit),
        (Some(-7), Some(1 << 20), Some(0))
    );
}

#[test]
fn what_cannot_be_is_refused_with_a_code() {
    let check = |want, change: &dyn Fn(&mut Asked)| {
        let Refusal(code, why) = make(change).unwrap_err();
        assert_eq!(code, want, "{why}");
    };
    let invalid: [&dyn Fn(&mut Asked); 19] = [
        &|asked| asked.config.metadata = None,
        &|asked| asked.config.log_path = "../../etc/passwd".into(),
        &|asked| asked.config.log_path = "/abs".into(),
        &|asked| asked.config.working_dir = "relative".into(),
        &|asked| asked.config.envs = vec![KeyValue { key: "A=".into(), value: vec![] }],
        &|asked| asked.config.envs = vec![KeyValue { key: "A".into(), value: vec![0xff] }],
        &|asked| asked.security.privileged = true,
        &|asked| asked.security.run_as_user = number(-1),
        &|asked| asked.security.run_as_group = number(1),
        &|asked| asked.security.supplemental_groups = vec![1 << 40],
        &|asked| asked.security.seccomp_profile_path = "some/thing".into(),
        &|asked| asked.security.apparmor_profile = "localhost/x".into(),
        &|asked| asked.security.namespace_options = Some(NamespaceOption { pid: 3, ..NamespaceOption::default() }),
        &|asked| asked.config.stop_signal = 66,
        &|asked| asked.config.mounts = vec![Mount { recursive_read_only: true, ..Mount::default() }],
        &|asked| asked.config.devices = vec![AskedDevice { host_path: "fuse".into(), ..AskedDevice::default() }],
        &|asked| asked.resources.oom_score_adj = 1001,
        &|asked| asked.resources.cpu_shares = -1,
        &|asked| (asked.resources.memory_limit_in_bytes, asked.resources.memory_swap_limit_in_bytes) = (9, 5),
    ];
    for change in invalid {
        check(Code::InvalidArgument, change);
    }
    check(Code::Unimplemented, &|asked| drop(asked.resources.unified.insert("io.max".into(), "1".into())));
    assert!(make(|asked| (asked.security.privileged, asked.sandbox.privileged) = (true, true)).unwrap().privileged);
}

#[test]
fn what_a_named_device_brings_goes_before_what_the_client_says() {
    let at = |path: &str| coracle_runtime::Mount { readonly: true, ..coracle_runtime::Mount::bind("/cdi", path) };
    let node = |path: &str, permissions: &str, uid| Device {
        host_path: "/dev/null".into(),
        container_path: path.into(),
        permissions: permissions.into(),
        uid,
        ..Device::default()
    };
    let spec = make(|asked| {
        asked.config.envs = vec![KeyValue { key: "A".into(), value: b"own".to_vec() }];
        asked.config.mounts = ["/m", "/n"]
            .map(|path| Mount { container_path: path.into(), host_path: "/h".into(), ..Mount::default() })
            .to_vec();
        asked.config.devices = vec![AskedDevice { host_path: "/dev/x".into(), ..AskedDevice::default() }];
        asked.security.run_as_user = number(5);
        asked.security.supplemental_groups = vec![7];
        asked.cdi = cdi::Given {
            env: vec![("A".into(), "cdi".into())],
            devices: vec![node("/dev/x", "r", None), node("/dev/y", "rw", Some(9))],
            mounts: vec![at("/m")],
            gids: vec![44],
        };
    })
    .unwrap();
    assert_eq!(spec.env.last().unwrap().1, "cdi");
    assert_eq!(spec.additional_gids, [7, 44]);
    assert_eq!(spec.devices, [node("/dev/x", "r", Some(5)), node("/dev/y", "rw", Some(9))]);
    let of = |path: &str| spec.mounts.iter().filter(|mount| mount.destination == path).collect::<Vec<_>>();
    assert_eq!(of("/m"), [&at("/m")]);
    assert_eq!(of("/n").len(), 1);
}

#[test]
fn an_image_is_mounted_as_what_it_is() {
    let mount = |host_path: &str, readonly| {
        let image = Some(ImageSpec { image: "data:1".into(), ..ImageSpec::default() });
        let (container_path, host_path) = ("/data".into(), host_path.into());
        make(|asked| {
            asked.config.mounts = vec![Mount { container_path, host_path, readonly, image, ..Mount::default() }];
        })
    };
    for (host_path, readonly, must) in [("", false, "readonly must be true"), ("/h", true, "hostpath must be empty")] {
        let Refusal(code, why) = mount(host_path, readonly).unwrap_err();
        assert_eq!((code, why), (Code::InvalidArgument, format!("{must} while mount image: \"data:1\" at \"/data\"")));
    }
    assert!(mount("", true).unwrap().mounts.iter().any(|mount| mount.destination == "/data" && mount.readonly));
}

#[test]
fn an_apparmor_profile_is_one_that_the_host_can_enforce() {
    let of = |kind, name: &str| Some(SecurityProfile { profile_type: kind, localhost_ref: name.into() });
    let whole = |enabled, privileged, profile: Option<SecurityProfile>, text: &str| {
        let made = make(|asked| {
            (asked.apparmor, asked.security.privileged, asked.sandbox.privileged) = (enabled, privileged, privileged);
            asked.security.apparmor = profile;
            asked.security.apparmor_profile = text.into();
        });
        made.map(|spec| spec.apparmor).map_err(|Refusal(code, why)| {
            assert_eq!(code, Code::InvalidArgument);
            why
        })
    };
    let confined = |enabled, profile, text: &str| whole(enabled, false, profile, text);
    for enabled in [false, true] {
        for (profile, text) in [(None, ""), (None, "unconfined"), (of(1, ""), "localhost/x")] {
            assert_eq!(confined(enabled, profile, text), Ok(None));
        }
        assert_eq!(confined(enabled, None, "mine"), Err("invalid apparmor profile \"mine\"".to_owned()));
        assert!(confined(enabled, of(7, ""), "").is_err());
    }
    let disabled = Err("Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
    let mine = Ok(Some("mine".to_owned()));
    for (profile, text) in [(of(2, "mine"), "localhost/other"), (of(2, "localhost/mine"), ""), (None, "localhost/mine")]
    {
        assert_eq!(confined(false, profile.clone(), text), disabled);
        assert_eq!(confined(true, profile, text), mine);
    }
    for (profile, text) in [(of(0, ""), ""), (None, "runtime/default")] {
        assert_eq!(confined(false, profile.clone(), text), disabled);
        assert_eq!(confined(true, profile, text), Ok(Some("coracle-default".to_owned())));
    }
    assert!(confined(true, of(2, ""), "").is_err());
    assert_eq!([whole(true, true, of(0, ""), ""), whole(true, true, of(2, "mine"), "")], [Ok(None), mine]);
}

#[test]
fn signals_have_the_interfaces_numbers() {
    for (number, name) in
        [(1, "SIGABRT"), (13, "SIGKILL"), (23, "SIGTERM"), (34, "SIGXFSZ"), (35, "RTMIN+0"), (65, "RTMAX-0")]
    {
        assert_eq!(signal_name(number).unwrap().unwrap(), name);
        assert_eq!(signal_number(name), number);
    }
    assert_eq!((signal_number(""), signal_number("QUIT"), signal_number("nonsense")), (23, 18, 0));
    for number in 1..=RTMAX {
        let name = signal_name(number).unwrap().unwrap();
        assert!(coracle_runtime::Signal::parse(&name).is_some(), "{number} {name}");
    }
}

#[test]
fn swap_is_what_is_beyond_the_memory() {
    let limits = |memory, swap| {
        let asked = LinuxContainerResources {
            memory_limit_in_bytes: memory,
            memory_swap_limit_in_bytes: swap,
            ..LinuxContainerResources::default()
        };
        resources(&asked).unwrap().swap_limit
    };
    assert_eq!(
        [limits(0, 0), limits(10, 0), limits(10, 10), limits(10, 15), limits(10, -1)],
        [None, Some(0), Some(0), Some(5), Some(-1)]
    );
}
