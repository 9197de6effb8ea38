//! What a container may, as its own `/proc/self/status` tells, and what it tries in vain.

use std::fs;
use std::time::Duration;

use coracle_runtime::{PidNamespace, SeccompProfile, User};

use crate::world::{World, exec};

const STATUS: &str = "grep -E '^(Cap(Prm|Eff|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'";

fn status(caps: [u64; 4], no_new_privileges: u8, seccomp: u8) -> String {
    let [permitted, effective, bounding, ambient] = caps;
    format!(
        "CapPrm:{permitted:016x}\nCapEff:{effective:016x}\nCapBnd:{bounding:016x}\nCapAmb:{ambient:016x}\n\
         NoNewPrivs:{no_new_privileges}\nSeccomp:{seccomp}\n"
    )
}

const DEFAULT: u64 = 0xa804_25fb;
const BIND: u64 = 1 << 10;

#[tokio::test]
async fn root_has_the_default_capabilities_and_no_filter() {
    let world = World::new().await;
    assert_eq!(world.say(STATUS, |_| {}).await, status([DEFAULT, DEFAULT, DEFAULT, 0], 0, 0));
}

#[tokio::test]
async fn a_filtered_container_without_escalation_says_so() {
    let world = World::new().await;
    let text = world
        .say(STATUS, |spec| {
            spec.no_new_privileges = true;
            spec.seccomp = SeccompProfile::RuntimeDefault;
            spec.capabilities.drop = vec!["ALL".into()];
            spec.capabilities.add = vec!["NET_BIND_SERVICE".into()];
        })
        .await;
    assert_eq!(text, status([BIND, BIND, BIND, 0], 1, 2));
}

#[tokio::test]
async fn a_user_has_no_capabilities_but_ambient_ones() {
    let world = World::new().await;
    let user = User::Ids { uid: 1000, gid: Some(1000) };
    let text = world.say(STATUS, |spec| spec.user = user.clone()).await;
    assert_eq!(text, status([0, 0, DEFAULT, 0], 0, 0));
    let text = world
        .say(STATUS, |spec| {
            spec.user = user;
            spec.seccomp = SeccompProfile::RuntimeDefault;
            spec.capabilities.ambient = vec!["NET_BIND_SERVICE".into()];
        })
        .await;
    assert_eq!(text, status([BIND, BIND, DEFAULT, BIND], 0, 2));
}

#[tokio::test]
async fn the_default_profile_refuses_namespaces_and_lets_programs_run() {
    let world = World::new().await;
    let line = "unshare -U true 2>&1; ls / > /dev/null && echo ran; (echo forked); exec 2>&1; mount -t tmpfs x /tmp";
    let text = world.say(line, |spec| spec.seccomp = SeccompProfile::RuntimeDefault).await;
    assert_eq!(
        text,
        "unshare: unshare(0x10000000): Operation not permitted\nran\nforked\n\
         mount: permission denied (are you root?)\n"
    );
}

#[tokio::test]
async fn a_profile_of_the_host_is_read_and_a_missing_one_is_an_error() {
    let world = World::new().await;
    let path = world.path("profile.json");
    fs::write(
        &path,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#,
    )
    .unwrap();
    let text =
        world.say("mkdir /x 2>&1; touch /y && echo y", |spec| spec.seccomp = SeccompProfile::Localhost(path)).await;
    assert_eq!(text, "mkdir: can't create directory '/x': Permission denied\ny\n");

    let sandbox = world.sandbox("missing").await;
    let mut spec = world.shell("c", "true");
    spec.seccomp = SeccompProfile::Localhost("/nonexistent/profile".into());
    let error = sandbox.start_container(&spec).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot load seccomp profile \"/nonexistent/profile\""), "{error}");
}

#[tokio::test]
async fn a_privileged_container_has_everything() {
    let world = World::new().await;
    let line = "mount -t tmpfs x /tmp && echo mounted; touch /proc/sys/kernel/domainname && echo writable; \
                test -e /dev/kmsg && echo device; grep -c . /proc/self/status > /dev/null";
    assert_eq!(world.say(line, |spec| spec.privileged = true).await, "mounted\nwritable\ndevice\n");
}

#[tokio::test]
async fn nothing_of_the_host_is_open_in_a_container() {
    let world = World::new().await;
    // The descriptor the shell reads the directory with is closed when it is looked at.
    let line = "for f in /proc/$$/fd/*; do readlink $f; done; grep -c layer /proc/self/mountinfo";
    let text = world.say(line, |_| {}).await;
    let kinds: Vec<&str> = text.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["/dev/null", "pipe", "pipe", "0"], "{text}");
}

#[tokio::test]
async fn the_runtimes_program_cannot_be_overwritten_through_proc() {
    let world = World::new().await;
    let before = fs::read(env!("CARGO_BIN_EXE_coracle-runtime-supervisor")).unwrap();
    let sandbox = world.sandbox("exe").await;
    // Executing the runtime's own program from inside, and writing to one that runs, as root with every capability.
    let mut own = world.container("own", &["/proc/self/exe", "supervise"]);
    own.privileged = true;
    let _ = sandbox.start_container(&own).await;
    let mut spec =
        world.shell("host", &format!("(echo x > /proc/{}/exe) 2>&1 | sed 's/.*: //'", sandbox.supervisor_pid()));
    spec.privileged = true;
    spec.pid = Some(coracle_runtime::PidNamespace::Host);
    let (_, text) = world.run(&sandbox, &spec).await;
    assert_eq!(text, "Read-only file system\n");
    assert!(fs::read(env!("CARGO_BIN_EXE_coracle-runtime-supervisor")).unwrap() == before);
}

#[tokio::test]
async fn classic_ways_out_are_closed() {
    let world = World::new().await;
    let line = "exec 2>&1; echo x > /proc/sys/kernel/core_pattern; mkdir /tmp/cg; mount -t cgroup -o memory x /tmp/cg; \
                mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk; \
                g=/sys/fs/cgroup/memory/release_agent; test -e $g || g=/sys/fs/cgroup/cgroup.procs; (echo x > $g) 2>&1 | sed 's/.*: //'; \
                ls -d /proc/1/root/etc/busybox-is-not-here; unshare -m true; chroot / true && echo chrooted";
    let text = world.say(line, |_| {}).await;
    assert_eq!(
        text,
        "/bin/sh: can't create /proc/sys/kernel/core_pattern: Read-only file system\n\
         mount: permission denied (are you root?)\n\
         head: /tmp/disk: Operation not permitted\n\
         Read-only file system\n\
         ls: /proc/1/root/etc/busybox-is-not-here: No such file or directory\n\
         unshare: unshare(0x20000): Operation not permitted\n\
         chrooted\n"
    );
}

#[tokio::test]
async fn a_profile_of_apparmor_is_applied_or_said_to_be_impossible() {
    let world = World::new().await;
    let sandbox = world.sandbox("apparmor").await;
    let mut spec = world.shell("c", "true");
    spec.apparmor = Some("coracle-test-no-such-profile".to_owned());
    let Err(coracle_runtime::Error::Start(error)) = sandbox.start_container(&spec).await else { panic!("it started") };
    let why = match coracle_runtime::apparmor_enabled() {
        true => "no such file or directory",
        false => "AppArmor is not enabled on the host",
    };
    assert_eq!((error.step.as_str(), error.message), ("apparmor", format!("apparmor failed to apply profile: {why}")));
}

#[tokio::test]
async fn the_runtimes_own_profile_of_apparmor_denies_what_a_container_never_needs() {
    if !coracle_runtime::apparmor_enabled() {
        eprintln!("Skipped: this host does not confine programs by AppArmor");
        return;
    }
    let world = World::new().await;
    let sandbox = world.sandbox("apparmor-default").await;
    let confined = |name: &str, line: &str| {
        let mut spec = world.shell(name, line);
        spec.apparmor = Some(coracle_runtime::DEFAULT_APPARMOR_PROFILE.to_owned());
        spec
    };
    // Whatever capabilities and mounts would let through.
    let line = "cat /proc/self/attr/current; mount -t tmpfs t /tmp 2>/dev/null || echo mounts nothing; \
                (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>/dev/null || echo sets nothing; \
                echo x > /tmp/file && kill -0 $$ && echo works";
    let mut spec = confined("c", line);
    spec.capabilities.add = vec!["SYS_ADMIN".to_owned(), "NET_ADMIN".to_owned()];
    spec.readonly_paths.clear();
    let (exit, said) = world.run(&sandbox, &spec).await;
    assert_eq!(said, "coracle-default (enforce)\nmounts nothing\nsets nothing\nworks\n", "{exit:?}");
    assert!(coracle_runtime::apparmor_loaded(coracle_runtime::DEFAULT_APPARMOR_PROFILE).unwrap());
    // What is run in it is confined as well. Nothing confines the runtime: what it signals hears it.
    let mut spec = confined("d", "exec sleep 1000");
    spec.pid = Some(PidNamespace::Host);
    let status = sandbox.start_container(&spec).await.unwrap();
    let (_, said) = exec(&sandbox, &status.id, "cat /proc/self/attr/current").await;
    assert_eq!(said, "coracle-default (enforce)\n");
    let exit = sandbox.stop(&status.id, Duration::from_secs(30)).await.unwrap();
    assert_eq!(exit.signal, Some(libc::SIGTERM), "{exit:?}");
}
