//! Ways out of a container that have been found elsewhere: each is tried as it was then.

use std::{fs, os::unix::fs::symlink, time::Duration};

use coracle_runtime::{
    ContainerStatus, Error, ExecSpec, IpcNamespace, Mount, MountKind, PidNamespace, Sandbox, SeccompProfile, User,
};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::world::{World, exec, log_text};

fn tmpfs(destination: &str) -> Mount {
    Mount { kind: MountKind::Tmpfs { size: Some(1 << 20), mode: None }, ..Mount::bind("/", destination) }
}

/// CVE-2025-31133: what hides `/proc` is mounted from `/dev/null`, which a volume may have brought.
#[tokio::test]
async fn a_volume_with_another_null_device_uncovers_nothing() {
    let world = World::new().await;
    let line = "exec 2>&1; stat -c '%F' /proc/timer_list /proc/keys; wc -c < /proc/timer_list; readlink /dev/null; \
                readlink /proc/self/fd/0; (echo x > /proc/sys/kernel/core_pattern) 2>&1 | sed 's/.*: //'";
    for target in ["/proc/timer_list", "/proc/sys/kernel/core_pattern", "/proc/self/exe"] {
        let dev = world.path(&format!("dev-{}", target.rsplit('/').next().unwrap()));
        fs::create_dir(&dev).unwrap();
        symlink(target, dev.join("null")).unwrap();
        let text = world.say(line, |spec| spec.mounts = vec![Mount::bind(&dev, "/dev")]).await;
        assert_eq!(
            text,
            format!("character special file\ncharacter special file\n0\n{target}\n/dev/null\nRead-only file system\n")
        );
    }
}

/// CVE-2025-52565 and what is like it: who is root in a container puts something else where a process run in it looks.
#[tokio::test]
async fn a_process_run_in_a_container_opens_no_device_the_container_has_replaced() {
    let world = World::new().await;
    let sandbox = world.sandbox("null").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    // One with a terminal needs no null device.
    let run = |line: &str, tty: bool| ExecSpec {
        argv: ["sh", "-c", line].map(str::to_owned).to_vec(),
        tty,
        ..ExecSpec::default()
    };
    let setups = [
        "ln -s /proc/sysrq-trigger /dev/null",
        "ln -s /proc/1/fd/0 /dev/null",
        "mknod /dev/null p",
        "mkdir /dev/null",
        "echo file > /dev/null",
    ];
    for (place, setup) in setups.into_iter().enumerate() {
        let prepare = run(&format!("rm -rf /dev/null /dev/kept; mknod /dev/kept c 1 3; {setup}"), true);
        let output = sandbox.exec_collect(&status.id, &prepare, Duration::from_secs(20), 1000).await.unwrap();
        assert_eq!(output.code, 0, "{setup}: {}", String::from_utf8_lossy(&output.output));
        let Err(Error::Exec(error)) = sandbox.exec(&status.id, &run("cat", false)).await else {
            panic!("{place}: {setup}: it ran");
        };
        assert_eq!(error.step, "stdio");
        assert!(error.message.starts_with("open /dev/null: "), "{error}");
    }
    // With the device it should be there, processes run again.
    let repair = run("rm -f /dev/null; mknod -m 666 /dev/null c 1 3", true);
    assert_eq!(sandbox.exec_collect(&status.id, &repair, Duration::from_secs(20), 100).await.unwrap().code, 0);
    assert_eq!(exec(&sandbox, &status.id, "readlink /proc/self/fd/0").await.1, "/dev/null\n");
}

/// CVE-2025-52881: what a runtime writes to `/proc` goes elsewhere when something is mounted there. CVE-2019-16884: and
/// what is masked there is not any more.
#[tokio::test]
async fn nothing_is_mounted_in_a_containers_own_proc() {
    let world = World::new().await;
    symlink("/proc", world.layer().join("shortcut")).unwrap();
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    let file = world.path("file");
    fs::write(&file, "figures\n").unwrap();
    let sandbox = world.sandbox("proc").await;
    let inside = "cannot be mounted because it is inside /proc";
    let refused = [
        (Mount::bind(&data, "/proc"), "cannot be mounted because it is not of type proc"),
        (tmpfs("/proc"), "cannot be mounted because it is not of type proc"),
        (Mount::bind(&data, "/shortcut"), "cannot be mounted because it is not of type proc"),
        (tmpfs("/proc/sys/kernel"), inside),
        (Mount::bind(&data, "/shortcut/sys"), inside),
        (Mount::bind(&data, "/tmp/../proc/irq"), inside),
        (Mount::bind(&file, "/proc/timer_list"), inside),
        (Mount::bind(&file, "/proc/self/attr/exec"), inside),
    ];
    for (place, (mount, words)) in refused.into_iter().enumerate() {
        let mut spec = world.shell(&format!("no{place}"), "true");
        let said = format!("{:?} {words}", mount.destination);
        spec.mounts = vec![mount];
        let Err(Error::Start(error)) = sandbox.start_container(&spec).await else { panic!("{said}: it started") };
        assert_eq!((error.step.as_str(), error.message), ("mount", said));
    }
    // What shows figures may be covered, and the host's may be looked at beside one's own, or instead.
    let text = world
        .say("cat /proc/uptime; grep -c . /host/proc/1/status > /tmp/n && echo host", |spec| {
            spec.mounts = vec![Mount::bind(&file, "/proc/uptime"), Mount::bind("/proc", "/host/proc").readonly()];
        })
        .await;
    assert_eq!(text, "figures\nhost\n");
    let text = world.say("cat /proc/1/comm", |spec| spec.mounts = vec![Mount::bind("/proc", "/proc")]).await;
    assert_eq!(text, fs::read_to_string("/proc/1/comm").unwrap());
}

/// CVE-2024-21626: a working directory that is a descriptor the runtime left open.
#[tokio::test]
async fn a_process_run_in_a_container_enters_no_descriptor_as_its_directory() {
    let world = World::new().await;
    let sandbox = world.sandbox("cwd").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    exec(&sandbox, &status.id, "ln -s /proc/self/fd/7 /tmp/seven; ln -s /proc/1/root /tmp/root").await;
    let paths = (3..24).map(|fd| format!("/proc/self/fd/{fd}")).chain(["/tmp/seven".into(), "/tmp/root/etc".into()]);
    for cwd in paths {
        let spec = ExecSpec { argv: vec!["pwd".into()], cwd: cwd.clone(), ..ExecSpec::default() };
        let Err(Error::Exec(error)) = sandbox.exec(&status.id, &spec).await else { panic!("entered {cwd}") };
        assert_eq!(error.step, "cwd", "{error}");
    }
    // What it has open is its own three, and the directory it lists.
    let (_, open) = exec(&sandbox, &status.id, "for f in /proc/$$/fd/*; do readlink $f; done").await;
    let kinds: Vec<&str> = open.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(kinds, ["/dev/null", "pipe", "pipe"]);
}

/// CVE-2016-9962 and its like: the runtime's processes seen from a pod that shares the host's.
#[tokio::test]
async fn a_pod_that_sees_the_hosts_processes_cannot_look_into_the_supervisor() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("peep");
    (spec.pid, spec.ipc) = (PidNamespace::Host, IpcNamespace::Host);
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let supervisor = sandbox.supervisor_pid();
    let trace = format!(
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n\
         for request in (16, 0x4206):\n    libc.ptrace(request, {supervisor}, 0, 0)\n    print(os.strerror(ctypes.get_errno()))\n\
         pidfd = libc.syscall(434, {supervisor}, 0)\n\
         print([libc.syscall(438, pidfd, fd, 0) for fd in range(12)].count(-1), os.strerror(ctypes.get_errno()))"
    );
    let line = format!(
        "exec 2>&1; cd /proc/{supervisor}; for f in environ maps root/ cwd/ fd/ fd/3 exe ns/mnt; do \
         (ls -L $f > /tmp/out && cat $f) > /tmp/out 2>/dev/null && echo saw $f; done; \
         (echo 0 > mem) 2>/dev/null && echo wrote; /usr/bin/python3 -c '{trace}'"
    );
    let mut container = world.shell("c", &line);
    world.with_usr(&mut container);
    let (_, text) = world.run(&sandbox, &container).await;
    assert_eq!(text, "Operation not permitted\nOperation not permitted\n12 Operation not permitted\n");
}

/// Takes over whatever appears, and says which rights it had then, and what it had open beside pipes, the null device and
/// the way to the supervisor. Ends when it is told to and has had something.
const WATCH: &str = r#"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)

def rights(pid):
    lines = open(f"/proc/{pid}/status").read().split("\n")
    return int([line for line in lines if line.startswith("CapPrm")][0].split()[1], 16)

def files(pid):
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return [link for link in links if not link.startswith(("pipe:", "socket:", "/dev/null"))]

own, before, seen = rights("self"), set(os.listdir("/proc")), 0
open("/tmp/watches", "w")
while not (seen and os.path.exists("/tmp/enough")):
    for pid in set(os.listdir("/proc")) - before:
        try:
            if libc.ptrace(0x4206, int(pid), 0, 0) != 0:
                if rights(pid) & ~own: print("saw", pid, hex(rights(pid)))
                continue
            seen += 1
            try:
                libc.ptrace(0x4207, int(pid), 0, 0)
                os.waitpid(int(pid), 0x40000000)
                if rights(pid) & ~own: print("took over", pid, hex(rights(pid)))
                if open(f"/proc/{pid}/comm").read().startswith("coracle") and files(pid): print("found", files(pid))
            finally:
                libc.ptrace(17, int(pid), 0, 0)
        except (OSError, IndexError, ValueError): pass
print("ends")
"#;

/// Starts a container that may trace others and watches for them.
async fn watcher(world: &World, sandbox: &Sandbox) -> ContainerStatus {
    fs::write(world.path("watch.py"), WATCH).unwrap();
    let mut watches = world.shell("watches", "exec /usr/bin/python3 -u /watch.py 2>&1");
    world.with_usr(&mut watches);
    watches.mounts.push(Mount::bind(world.path("watch.py"), "/watch.py").readonly());
    watches.capabilities.add = vec!["SYS_PTRACE".into()];
    let status = sandbox.start_container(&watches).await.unwrap();
    exec(sandbox, &status.id, "while ! test -e /tmp/watches; do usleep 1000; done").await;
    status
}

/// What it has seen, this too.
async fn watched(sandbox: &Sandbox, watches: &ContainerStatus) -> String {
    // Ends with the container.
    exec(sandbox, &watches.id, "touch /tmp/enough; exec sleep 1000").await;
    sandbox.wait(&watches.id).await.unwrap();
    log_text(&watches.log_path)
}

/// A container that may trace its processes gets hold of none that may more than itself, however early it looks.
#[tokio::test]
async fn a_tracer_in_a_container_finds_no_process_that_may_more_than_it() {
    let world = World::new().await;
    let sandbox = world.sandbox("tracer").await;
    let watches = watcher(&world, &sandbox).await;
    for _ in 0..20 {
        exec(&sandbox, &watches.id, "true").await;
    }
    assert_eq!(watched(&sandbox, &watches).await, "ends\n");
}

/// The same for containers that start among its processes: in a pod that shares them, and beside one that is looked into.
#[tokio::test]
async fn a_tracer_finds_no_process_that_may_more_when_others_start_beside_it() {
    let world = World::new().await;
    for (name, pid) in [("shares", PidNamespace::Pod), ("target", PidNamespace::Container)] {
        let mut spec = world.sandbox_spec(name);
        spec.pid = pid;
        let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
        let watches = watcher(&world, &sandbox).await;
        for number in 0..20 {
            let mut starts = world.shell(&format!("c{number}"), "grep -c . /proc/1/stat && readlink /proc/self/ns/pid");
            if name == "target" {
                starts.pid = Some(PidNamespace::Target(watches.id.clone()));
            }
            let (exit, text) = world.run(&sandbox, &starts).await;
            assert_eq!(exit.code, 0, "{name}: {exit:?} {text}");
        }
        assert_eq!(watched(&sandbox, &watches).await, "ends\n", "{name}");
    }
}

/// Keys of the host, or of another container, are not found by whoever has the same number.
#[tokio::test]
async fn a_containers_keys_are_its_own() {
    let world = World::new().await;
    let sandbox = world.sandbox("keys").await;
    // add_key, then keyctl(SEARCH) in the session's keyring.
    let keys = "import ctypes, sys, time\nlibc = ctypes.CDLL(None, use_errno=True)\n\
                if sys.argv[1] == \"add\":\n    print(libc.syscall(248, b\"user\", b\"coracle-word\", b\"secret\", 6, -3) > 0, flush=True)\n    time.sleep(1000)\n\
                found = libc.syscall(250, 10, -3, b\"user\", b\"coracle-word\", 0)\n\
                print(found > 0, ctypes.get_errno())";
    let mut adds = world.shell("adds", &format!("exec /usr/bin/python3 -c '{keys}' add > /tmp/added"));
    world.with_usr(&mut adds);
    let added = sandbox.start_container(&adds).await.unwrap();
    if exec(&sandbox, &added.id, "while ! test -s /tmp/added; do usleep 1000; done; cat /tmp/added").await.1
        == "False\n"
    {
        println!("Skipped: this kernel keeps no keys");
        return;
    }
    let ask = format!("/usr/bin/python3 -c '{keys}' ask");
    let mut asks = world.shell("asks", &ask);
    world.with_usr(&mut asks);
    // ENOKEY; and with the default profile no such calls at all.
    assert_eq!(world.run(&sandbox, &asks).await.1, "False 126\n");
    assert_eq!(exec(&sandbox, &added.id, &ask).await.1, "False 126\n");
    (asks.name, asks.seccomp) = ("filtered".into(), SeccompProfile::RuntimeDefault);
    assert_eq!(world.run(&sandbox, &asks).await.1, "False 1\n");
}

/// An image may bring devices: of disks, of memory, of the kernel's log.
#[tokio::test]
async fn devices_in_an_image_cannot_be_opened() {
    let world = World::new().await;
    let layer = world.path("devices");
    fs::create_dir_all(layer.join("nodes")).unwrap();
    let all = Mode::from_bits_truncate(0o666);
    let blocks = fs::read_dir("/sys/class/block").unwrap().filter_map(|entry| {
        let number = fs::read_to_string(entry.unwrap().path().join("dev")).ok()?;
        let (major, minor) = number.trim().split_once(':')?;
        Some((SFlag::S_IFBLK, major.parse().ok()?, minor.parse().ok()?))
    });
    let chars = [(1, 1), (1, 2), (1, 4), (1, 11), (10, 200), (4, 64)];
    let chars = chars.into_iter().map(|(major, minor)| (SFlag::S_IFCHR, major, minor));
    let mut count = 0;
    for (place, (kind, major, minor)) in blocks.chain(chars).enumerate() {
        mknod(&layer.join(format!("nodes/{place}")), kind, all, makedev(major, minor)).unwrap();
        count += 1;
    }
    let line = "for n in /nodes/*; do (exec 3< $n) 2>/dev/null && echo read $n; (exec 3>> $n) 2>/dev/null && echo wrote $n; done; \
                (exec 3< /nodes/0) 2>&1 | sed 's/.*: //'; ls /nodes | wc -l";
    let text = world.say(line, |spec| spec.layers.insert(0, layer)).await;
    let mut lines = text.lines();
    let refused = lines.next().unwrap();
    assert!(["Operation not permitted", "Permission denied"].contains(&refused), "{text}");
    assert_eq!(lines.next().unwrap(), count.to_string(), "{text}");
}

/// A file of an image that makes its user root, where the pod forbids that.
#[tokio::test]
async fn a_set_user_id_file_of_an_image_does_what_the_pod_allows() {
    let world = World::new().await;
    let layer = world.path("setuid");
    fs::create_dir_all(layer.join("suid")).unwrap();
    fs::copy("/usr/bin/grep", layer.join("suid/grep")).unwrap();
    fs::set_permissions(layer.join("suid/grep"), std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let line = "/suid/grep -E '^(Uid|CapEff):' /proc/self/status | tr '\\t' ' '";
    for (no_new_privileges, uid, capabilities) in [(true, 1000, 0), (false, 0, 0xa804_25fb_u64)] {
        let text = world
            .say(line, |spec| {
                world.with_usr(spec);
                spec.layers.insert(0, layer.clone());
                spec.user = User::Ids { uid: 1000, gid: Some(1000) };
                spec.no_new_privileges = no_new_privileges;
            })
            .await;
        assert_eq!(text, format!("Uid: 1000 {uid} {uid} {uid}\nCapEff: {capabilities:016x}\n"));
    }
}

/// What an image has in place of the kernel's file systems is hidden by them, and links there are refused.
#[tokio::test]
async fn an_image_cannot_bring_its_own_kernel_file_systems() {
    let world = World::new().await;
    let layer = world.path("fake");
    for name in ["proc/self", "proc/1", "sys/kernel", "dev/pts", "sys/fs/cgroup"] {
        fs::create_dir_all(layer.join(name)).unwrap();
        fs::write(layer.join(name).join("evil"), "x").unwrap();
    }
    fs::write(layer.join("proc/self/status"), "Uid: 77\n").unwrap();
    symlink("/tmp", layer.join("dev/shm")).unwrap();
    let line = "find /proc/1 /proc/self/ /sys/kernel /dev /sys/fs/cgroup -maxdepth 1 -name evil; \
                grep -c 77 /proc/self/status; stat -c %F /dev/shm";
    let text = world.say(line, |spec| spec.layers.insert(0, layer)).await;
    assert_eq!(text, "0\ndirectory\n");

    let sandbox = world.sandbox("fake").await;
    for (place, name) in ["proc", "dev", "sys"].into_iter().enumerate() {
        for target in ["/tmp", "..", "/nowhere"] {
            let layer = world.path(&format!("link-{place}-{}", target.len()));
            fs::create_dir(&layer).unwrap();
            symlink(target, layer.join(name)).unwrap();
            let mut spec = world.shell(&format!("c{place}-{}", target.len()), "true");
            spec.layers.insert(0, layer);
            let Err(Error::Start(error)) = sandbox.start_container(&spec).await else { panic!("{name} -> {target}") };
            assert_eq!(error.step, "mount", "{error}");
        }
        let layer = world.path(&format!("file-{place}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(name), "not a directory").unwrap();
        let mut spec = world.shell(&format!("f{place}"), "true");
        spec.layers.insert(0, layer);
        assert!(matches!(sandbox.start_container(&spec).await, Err(Error::Start(error)) if error.step == "mount"));
    }
}

/// What is protected stays so for a root that has every capability a container has by default.
#[tokio::test]
async fn what_is_protected_cannot_be_uncovered_or_written() {
    let world = World::new().await;
    let line = "exec 2>/dev/null; for p in /proc/sys /proc/irq /proc/timer_list /sys/firmware /sys/fs/cgroup /proc; do \
                umount $p && echo unmounted $p; umount -l $p && echo unmounted $p; mount -o remount,rw $p && echo remounted $p; \
                mount --bind /tmp $p && echo covered $p; done; \
                for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/panic_on_oom \
                /proc/sys/fs/binfmt_misc/register /proc/irq/default_smp_affinity /sys/kernel/uevent_helper \
                /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/*/tasks /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/notify_on_release \
                /sys/fs/cgroup/*/release_agent /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do \
                test -e $f && (echo 1 > $f) && echo wrote $f; done; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x && echo grouped; \
                unshare -m true && echo mounts; unshare -C true && echo groups; \
                for p in /proc/timer_list /proc/sys /sys/firmware; do unshare -Um umount $p && echo uncovered $p; \
                unshare -Um umount -l $p && echo uncovered $p; unshare -Um mount -o remount,rw,bind $p && echo opened $p; done; \
                cat /proc/kcore | head -c 1; echo end";
    assert_eq!(world.say(line, |_| {}).await, "end\n");
}
