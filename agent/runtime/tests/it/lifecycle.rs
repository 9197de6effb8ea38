//! Starting, signalling, stopping, removing, and being told about it.

use std::{fs, time::Duration};

use coracle_runtime::{ContainerState, Error, Event, PidNamespace, Signal};

use crate::world::{World, exec, log_text, pid_of};

#[tokio::test]
async fn a_container_runs_as_process_1_in_namespaces_of_its_own() {
    let world = World::new().await;
    let sandbox = world.sandbox("ns").await;
    let line = "echo pid=$$; hostname; for n in pid mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done; ls /proc | grep -c '^[0-9]'";
    let (exit, text) = world.run(&sandbox, &world.shell("c", line)).await;
    assert_eq!(exit.code, 0);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["pid=1", "host-ns"]);
    for (place, name) in ["pid", "mnt", "net", "ipc", "uts", "cgroup"].iter().enumerate() {
        let host = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(lines[2 + place], host.to_str().unwrap(), "{name} namespace is the host's");
    }
    let netns = fs::read_link(sandbox.netns_path()).unwrap();
    assert_eq!(lines[4], netns.to_str().unwrap());
}

#[tokio::test]
async fn containers_of_a_pod_share_network_ipc_and_shared_memory_but_not_processes() {
    let world = World::new().await;
    let sandbox = world.sandbox("share").await;
    let ask = "for n in net ipc uts; do readlink /proc/self/ns/$n; done; cat /dev/shm/word";
    let (_, _) = world.run(&sandbox, &world.shell("w", "echo hello > /dev/shm/word")).await;
    let (_, first) = world.run(&sandbox, &world.shell("a", ask)).await;
    let (_, second) = world.run(&sandbox, &world.shell("b", ask)).await;
    assert_eq!(first, second);
    assert!(first.ends_with("hello\n"));
}

#[tokio::test]
async fn the_end_tells_code_and_signal() {
    let world = World::new().await;
    let sandbox = world.sandbox("ends").await;
    let (exit, _) = world.run(&sandbox, &world.shell("seven", "exit 7")).await;
    assert_eq!((exit.code, exit.signal, exit.oom_killed), (7, None, false));
    assert!(exit.started_at.unwrap() <= exit.finished_at);

    let status = sandbox.start_container(&world.container("sleeper", &["sleep", "1000"])).await.unwrap();
    sandbox.signal(&status.id, Signal::KILL).await.unwrap();
    let exit = sandbox.wait(&status.id).await.unwrap();
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    assert!(matches!(sandbox.signal(&status.id, Signal::TERM).await, Err(Error::ContainerNotRunning { .. })));
}

#[tokio::test]
async fn stopping_asks_with_the_stop_signal_and_kills_after_the_grace() {
    let world = World::new().await;
    let sandbox = world.sandbox("stop").await;
    let mut polite = world.shell("polite", "trap 'exit 3' QUIT; touch /tmp/ready; while :; do sleep 0.01; done");
    polite.stop_signal = "SIGQUIT".to_owned();
    let status = sandbox.start_container(&polite).await.unwrap();
    exec(&sandbox, &status.id, "while ! test -e /tmp/ready; do usleep 1000; done").await;
    assert_eq!(sandbox.stop(&status.id, Duration::from_secs(30)).await.unwrap().code, 3);

    let deaf = world.shell("deaf", "trap '' TERM; sleep 1000");
    let status = sandbox.start_container(&deaf).await.unwrap();
    assert_eq!(sandbox.stop(&status.id, Duration::from_millis(50)).await.unwrap().signal, Some(9));
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_says_why() {
    let world = World::new().await;
    let cases: [(&[&str], &str, i32); 4] = [
        (&["foo"], "exec: \"foo\": executable file not found in $PATH", 127),
        (&["/nope"], "exec: \"/nope\": stat /nope: no such file or directory", 127),
        (&["/etc/passwd"], "exec: \"/etc/passwd\": permission denied", 126),
        (&["/tmp"], "exec: \"/tmp\": is a directory", 126),
    ];
    for (name, pid) in [("own", PidNamespace::Container), ("shares", PidNamespace::Pod), ("host", PidNamespace::Host)] {
        let mut spec = world.sandbox_spec(name);
        spec.pid = pid;
        let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
        for (place, (argv, message, code)) in cases.into_iter().enumerate() {
            let spec = world.container(&format!("c{place}"), argv);
            let Err(Error::Start(error)) = sandbox.start_container(&spec).await else {
                panic!("{name}: {argv:?} started")
            };
            assert_eq!((error.message.as_str(), error.exit_code()), (message, code), "{name}");
            let status = sandbox.container(&sandbox.container_id(&spec.name, 0)).await.unwrap();
            let ContainerState::Exited(exit) = status.state else { panic!("{name}: {:?}", status.state) };
            assert_eq!((exit.code, exit.started_at, exit.start_error), (128, None, Some(error)), "{name}");
        }
    }
}

#[tokio::test]
async fn starting_twice_starts_once() {
    let world = World::new().await;
    let sandbox = world.sandbox("once").await;
    let spec = world.container("c", &["sleep", "1000"]);
    let (first, second) = tokio::join!(sandbox.start_container(&spec), sandbox.start_container(&spec));
    assert_eq!(pid_of(&first.unwrap()), pid_of(&second.unwrap()));
    assert_eq!(sandbox.containers().await.unwrap().len(), 1);
    assert_eq!(world.runtime.create_sandbox(sandbox.spec()).await.unwrap().supervisor_pid(), sandbox.supervisor_pid());

    let ended = world.shell("ended", "echo once");
    let (_, _) = world.run(&sandbox, &ended).await;
    let (_, text) = world.run(&sandbox, &ended).await;
    assert_eq!(text, "once\n");
}

#[tokio::test]
async fn a_removed_container_is_gone_and_its_log_stays() {
    let world = World::new().await;
    let sandbox = world.sandbox("rm").await;
    let status = sandbox.start_container(&world.shell("c", "echo word; echo x > /file; sleep 1000")).await.unwrap();
    assert!(matches!(sandbox.remove_container(&status.id).await, Err(Error::ContainerRunning { .. })));
    sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
    assert!(sandbox.writable_layer(&status.id).exists());
    sandbox.remove_container(&status.id).await.unwrap();
    sandbox.remove_container(&status.id).await.unwrap();
    assert!(!sandbox.writable_layer(&status.id).exists());
    assert!(matches!(sandbox.container(&status.id).await, Err(Error::ContainerNotFound { .. })));
    assert!(status.log_path.exists());
}

#[tokio::test]
async fn events_tell_starts_and_ends_of_every_sandbox() {
    let world = World::new().await;
    let early = world.sandbox("early").await;
    let before = early.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let mut events = world.runtime.events();
    let Event::Started { container, pid, .. } = events.next().await else { panic!("no start") };
    assert_eq!((container, pid), (before.id.clone(), pid_of(&before)));

    let late = world.sandbox("late").await;
    let after = late.start_container(&world.shell("c", "exit 4")).await.unwrap();
    loop {
        match events.next().await {
            Event::Exited { sandbox, container, exit } => {
                assert_eq!((&sandbox, &container, exit.code), (late.id(), &after.id, 4));
                break;
            }
            Event::Started { .. } => {}
            Event::SandboxDied { .. } => panic!("nobody died"),
        }
    }
    // A sandbox that is removed has not died; the next thing told is what happens in the other one.
    world.runtime.remove_sandbox(late.id()).await.unwrap();
    early.signal(&before.id, Signal::KILL).await.unwrap();
    let Event::Exited { container, exit, .. } = events.next().await else { panic!("no end") };
    assert_eq!((container, exit.signal), (before.id, Some(9)));
}

#[tokio::test]
async fn a_shared_pid_namespace_shows_the_pods_processes_under_a_reaper_with_an_empty_root() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("pids");
    spec.pid = PidNamespace::Pod;
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let first = sandbox.start_container(&world.container("first", &["sleep", "1234"])).await.unwrap();
    let line = "echo pid=$$; ps -o args | grep -c '[s]leep 1234'; ls /proc/1/root 2>&1 | wc -l; ls -l /proc/1/exe 2>&1 | grep -c denied";
    let (_, text) = world.run(&sandbox, &world.shell("second", line)).await;
    assert!(!text.starts_with("pid=1\n"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "1");
    // Orphans go to process 1, which reaps them: not even a zombie of one stays.
    let orphan = "(usleep 10000 &) ; while ps -o comm | grep -q usleep; do :; done";
    assert_eq!(exec(&sandbox, &first.id, orphan).await.0, 0);
}

#[tokio::test]
async fn a_target_pid_namespace_is_that_of_another_container() {
    let world = World::new().await;
    let sandbox = world.sandbox("target").await;
    let target = sandbox.start_container(&world.container("app", &["sleep", "4321"])).await.unwrap();
    let mut spec = world.shell("debugger", "ps -o args | head -2 | tail -1");
    spec.pid = Some(PidNamespace::Target(target.id.clone()));
    let (_, text) = world.run(&sandbox, &spec).await;
    assert_eq!(text, "sleep 4321\n");
}

#[tokio::test]
async fn sysctls_and_the_loopback_link_belong_to_the_pod() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("sysctl");
    spec.sysctls =
        vec![("net.ipv4.ip_unprivileged_port_start".into(), "80".into()), ("kernel.shmmni".into(), "77".into())];
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let line = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni; cat /sys/class/net/lo/flags; ls /sys/class/net";
    let (_, text) = world.run(&sandbox, &world.shell("c", line)).await;
    assert_eq!(text, "80\n77\n0x9\nlo\n");

    spec.pod_uid = "other".to_owned();
    spec.sysctls = vec![("vm.swappiness".into(), "1".into())];
    let Err(Error::Sandbox { reason, .. }) = world.runtime.create_sandbox(&spec).await else { panic!("it was set") };
    assert_eq!(reason, "sysctl vm.swappiness is not in a namespace of the pod");
    assert!(log_text(&world.path("logs").join("default_sysctl_uid-sysctl/c/0.log")).starts_with("80"));
}
