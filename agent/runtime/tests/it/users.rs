//! Users of a pod's own: root of a container is nobody on the host, and finds its files as it left them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
    time::Duration,
};

use coracle_runtime::{Error, ExecSpec, IdMapping, Mount, MountKind, PidNamespace, Sandbox, User, UserNamespace};

use crate::world::{World, exec, pid_of};

async fn own_users(world: &World, name: &str) -> Sandbox {
    let mut spec = world.sandbox_spec(name);
    spec.users = UserNamespace::Own;
    world.runtime.create_sandbox(&spec).await.unwrap()
}

/// The first number on the host of the users a process has.
fn first_of(pid: u32) -> u32 {
    let map = fs::read_to_string(format!("/proc/{pid}/uid_map")).unwrap();
    let numbers: Vec<u32> = map.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[0], numbers[2]), (3, 0, 65_536), "{map}");
    numbers[1]
}

fn uid_of(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:\t")).unwrap();
    line.split('\t').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn root_of_a_pod_is_nobody_on_the_host_and_owns_what_was_roots() {
    let world = World::new().await;
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("of-1000"), "x").unwrap();
    chown(data.join("of-1000"), Some(1000), Some(1001)).unwrap();
    let hosts = world.path("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let sandbox = own_users(&world, "root").await;
    let owners = "stat -c '%u:%g %n' / /etc/passwd /bin/busybox /dev /dev/null /dev/pts /dev/shm /data /data/of-1000 /etc/hosts /mem /new/place";
    let line = format!(
        "id -u; {owners}; touch /data/made /root/made /etc/passwd; chown 7:8 /data/made; mkdir /data/sub; echo y > /dev/null; \
         echo tab > /dev/shm/word; echo z >> /etc/hosts; touch /ready; sleep 1000"
    );
    let mut spec = world.shell("c", &line);
    spec.cwd = "/new/place".to_owned();
    spec.mounts = vec![
        Mount::bind(&data, "/data"),
        Mount::bind(&hosts, "/etc/hosts"),
        Mount { kind: MountKind::Tmpfs { size: Some(1 << 20), mode: None }, ..Mount::bind("/", "/mem") },
    ];
    let status = sandbox.start_container(&spec).await.unwrap();
    exec(&sandbox, &status.id, "while ! test -e /ready; do usleep 1000; done").await;
    let first = first_of(pid_of(&status));
    assert!(first >= 65_536 && first.is_multiple_of(65_536));
    assert_eq!(uid_of(pid_of(&status)), first);
    assert_eq!(
        crate::world::log_text(&status.log_path),
        "0\n0:0 /\n0:0 /etc/passwd\n0:0 /bin/busybox\n0:0 /dev\n0:0 /dev/null\n65534:65534 /dev/pts\n0:0 /dev/shm\n0:0 /data\n\
         1000:1001 /data/of-1000\n0:0 /etc/hosts\n0:0 /mem\n0:0 /new/place\n"
    );
    // On the host a volume's files belong to whom they belonged in the pod; the writable layer to the pod's numbers.
    let owner = |path: &std::path::Path| fs::metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
    assert_eq!((owner(&data.join("made")), owner(&data.join("sub"))), ((7, 8), (0, 0)));
    let layer = sandbox.writable_layer(&status.id);
    assert_eq!((owner(&layer), owner(&layer.join("root/made"))), ((first, first), (first, first)));
    assert_eq!(owner(&layer.join("etc/passwd")), (first, first), "what is changed is copied with its owner");
    assert_eq!(owner(&world.layer().join("etc/passwd")), (0, 0));
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "127.0.0.1 localhost\nz\n");

    // Another container of the pod has the same users and the same shared memory.
    let mut other = world.shell("other", "id -u; cat /dev/shm/word; cat /proc/self/uid_map | tr -s ' '");
    other.user = User::Ids { uid: 1000, gid: None };
    assert_eq!(world.run(&sandbox, &other).await.1, format!("1000\ntab\n 0 {first} 65536\n"));
}

#[tokio::test]
async fn a_process_run_in_a_pod_with_users_of_its_own_has_them_too() {
    let world = World::new().await;
    let sandbox = own_users(&world, "exec").await;
    let mut spec = world.container("c", &["sleep", "1000"]);
    spec.user = User::Name("app".to_owned());
    let status = sandbox.start_container(&spec).await.unwrap();
    let first = first_of(pid_of(&status));
    assert_eq!(uid_of(pid_of(&status)), first + 1000);
    let ask = "id -u; readlink /proc/self/ns/user; echo out > /dev/stdout; grep CapEff /proc/self/status | tr -d '\\t'";
    let own = fs::read_link(format!("/proc/{}/ns/user", pid_of(&status))).unwrap();
    let text = exec(&sandbox, &status.id, ask).await.1;
    assert_eq!(text, format!("1000\n{}\nout\nCapEff:0000000000000000\n", own.display()));
    let mut spec = ExecSpec { tty: true, ..ExecSpec::default() };
    spec.argv = ["sh", "-c", "stat -c %u $(tty); test -w $(tty) && tty > /dev/tty"].map(str::to_owned).to_vec();
    spec.user = Some(User::Ids { uid: 0, gid: None });
    let output = sandbox.exec_collect(&status.id, &spec, Duration::from_secs(20), 1000).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.output).replace('\r', ""), "0\n/dev/pts/0\n");
}

#[tokio::test]
async fn what_belongs_to_the_hosts_root_stays_out_of_reach() {
    let world = World::new().await;
    let sandbox = own_users(&world, "reach").await;
    let supervisor = sandbox.supervisor_pid();
    // Nothing is masked or read-only here, and still nothing of the kernel's can be written.
    let line = "exec 2>/dev/null; for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/vm/swappiness \
                /sys/kernel/mm/ksm/run /proc/irq/default_smp_affinity; do (echo 1 > $f) && echo wrote $f; done; \
                mknod /tmp/disk b 254 0 && echo made a device; head -c 1 /proc/kcore && echo read memory; \
                mount -t tmpfs x /tmp && echo mounted; chroot / true && echo chrooted; hostname other && echo named; \
                ip link set lo down && echo lowered";
    let mut spec = world.shell("c", line);
    (spec.masked_paths, spec.readonly_paths) = (Vec::new(), Vec::new());
    let (_, text) = world.run(&sandbox, &spec).await;
    assert_eq!(text, "chrooted\n");
    // With every capability it is root of what is the pod's own, and of nothing else.
    (spec.name, spec.capabilities.add) = ("all".into(), vec!["ALL".into()]);
    let (_, text) = world.run(&sandbox, &spec).await;
    assert_eq!(text, "mounted\nchrooted\nnamed\nlowered\n");
    let line = "exec 2>/dev/null; for p in /proc/timer_list /proc/sys /sys/firmware /proc; do umount $p && echo uncovered $p; \
                umount -l $p && echo uncovered $p; done; for p in /proc/sys /sys/firmware /sys; do mount -o remount,rw,bind $p && echo opened $p; done; pwd; ls -d ..";
    let mut sealed = world.shell("sealed", line);
    sealed.capabilities.add = vec!["ALL".into()];
    sealed.cwd = "/tmp".to_owned();
    assert_eq!(world.run(&sandbox, &sealed).await.1, "/tmp\n..\n");
    assert!(fs::metadata(format!("/proc/{supervisor}")).is_ok());
}

#[tokio::test]
async fn no_two_pods_have_a_user_in_common_and_ranges_come_back() {
    let mut world = World::new().await;
    let mut firsts = Vec::new();
    for name in ["a", "b"] {
        let sandbox = own_users(&world, name).await;
        let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
        firsts.push(first_of(pid_of(&status)));
    }
    world.reopen().await;
    let third = own_users(&world, "c").await;
    let status = third.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    firsts.push(first_of(pid_of(&status)));
    assert_eq!(firsts, [65_536, 131_072, 196_608]);
    // Asked for again it is the one there is.
    assert_eq!(
        own_users(&world, "a").await.supervisor_pid(),
        world.runtime.list().await.unwrap()[0].supervisor_pid.unwrap()
    );
    world.runtime.remove_sandbox(&coracle_runtime::SandboxId::of("uid-b", 0)).await.unwrap();
    let fourth = own_users(&world, "d").await;
    let status = fourth.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    assert_eq!(first_of(pid_of(&status)), 131_072);
}

#[tokio::test]
async fn sysctls_names_and_shared_processes_work_with_users_of_its_own() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("own");
    (spec.users, spec.pid) = (UserNamespace::Own, PidNamespace::Pod);
    spec.sysctls =
        vec![("net.ipv4.ip_unprivileged_port_start".into(), "80".into()), ("kernel.shmmni".into(), "77".into())];
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let line = "hostname; cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni /sys/class/net/lo/flags; \
                ls /proc/1/root 2>&1 | wc -l";
    let (exit, text) = world.run(&sandbox, &world.shell("c", line)).await;
    assert_eq!((exit.code, text.as_str()), (0, "host-own\n80\n77\n0x9\n1\n"));
    spec.pod_uid = "bad".to_owned();
    spec.sysctls = vec![("net.ipv4.no_such_thing".into(), "1".into())];
    let error = world.runtime.create_sandbox(&spec).await.unwrap_err().to_string();
    assert!(error.ends_with("set sysctl net.ipv4.no_such_thing to \"1\": no such file or directory"), "{error}");
}

#[tokio::test]
async fn image_volumes_and_many_layers_are_shown_to_the_pods_users() {
    let world = World::new().await;
    let mut layers = Vec::new();
    for place in 0..20 {
        let layer = world.path(&format!("layers/{place}"));
        fs::create_dir_all(layer.join("sub")).unwrap();
        fs::write(layer.join(format!("sub/file-{place}")), "").unwrap();
        symlink("/nowhere", layer.join(format!("link-{place}"))).unwrap();
        layers.push(layer);
    }
    let volume = |layers: &[std::path::PathBuf], at: &str| Mount {
        kind: MountKind::Layers { layers: layers.to_vec(), sub_path: Some("sub".into()) },
        ..Mount::bind("/", at)
    };
    let sandbox = own_users(&world, "layers").await;
    let mut spec = world
        .shell("c", "ls /sub | wc -l; ls /many | wc -l; stat -c '%u' /many/file-3 /one/file-0 /sub/file-7 /link-9");
    spec.mounts = vec![volume(&layers, "/many"), volume(&layers[..1], "/one")];
    spec.layers.extend(layers);
    assert_eq!(world.run(&sandbox, &spec).await.1, "20\n20\n0\n0\n0\n0\n");
}

#[tokio::test]
async fn a_file_system_that_cannot_map_users_is_named() {
    let world = World::new().await;
    let sandbox = own_users(&world, "fs").await;
    let mut spec = world.shell("c", "true");
    spec.mounts = vec![Mount::bind("/sys/kernel", "/x")];
    let Err(Error::Start(error)) = sandbox.start_container(&spec).await else { panic!("it started") };
    assert_eq!(
        error.message,
        "failed to set MOUNT_ATTR_IDMAP on /sys/kernel: invalid argument (maybe the filesystem used doesn't support idmap \
         mounts on this kernel?)"
    );
    let mut spec = world.sandbox_spec("shared");
    (spec.users, spec.pid) = (UserNamespace::Own, PidNamespace::Host);
    assert!(matches!(world.runtime.create_sandbox(&spec).await, Err(Error::InvalidSpec { field: "pid", .. })));
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn users_that_the_caller_chooses_are_never_those_of_another_pod() {
    let world = World::new().await;
    let own = own_users(&world, "own").await;
    let status = own.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let first = first_of(pid_of(&status));
    let given = |name: &str, host: u32| {
        let users = UserNamespace::Range(IdMapping { host, size: 65_536 });
        coracle_runtime::SandboxSpec { users, ..world.sandbox_spec(name) }
    };
    let refused = world.runtime.create_sandbox(&given("taken", first + 1)).await.unwrap_err();
    assert!(refused.to_string().contains("are another pod's own"), "{refused}");
    let sandbox = world.runtime.create_sandbox(&given("given", 3_000_000)).await.unwrap();
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    assert_eq!(first_of(pid_of(&status)), 3_000_000);
    // It may give them again, and nobody else gets them.
    world.runtime.create_sandbox(&given("again", 3_000_000)).await.unwrap();
    let next = own_users(&world, "next").await;
    let status = next.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let range = |first: u32| first..first + 65_536;
    assert!(!range(3_000_000).contains(&first_of(pid_of(&status))));
}
