//! What is removed is gone: processes, cgroups, mounts, files.

use std::{fs, path::Path, time::Duration};

use coracle_runtime::{ContainerState, Error, PidNamespace, Signal};
use nix::{sys::signal, unistd::Pid};

use crate::world::{World, exec, log_text, pid_of};

fn cgroups_named(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
        let path = hierarchy.unwrap().path();
        for place in [path.clone(), path.join(mark)] {
            if place.ends_with(mark) && place.exists() {
                found.push(place.display().to_string());
            }
        }
    }
    found
}

#[tokio::test]
async fn purging_leaves_no_process_cgroup_mount_or_file() {
    let world = World::new().await;
    let mut shared = world.sandbox_spec("shared");
    shared.pid = PidNamespace::Pod;
    let shared = world.runtime.create_sandbox(&shared).await.unwrap();
    let mut host = world.sandbox_spec("host");
    host.pid = PidNamespace::Host;
    let host = world.runtime.create_sandbox(&host).await.unwrap();
    let mut pids = vec![shared.supervisor_pid(), host.supervisor_pid()];
    for sandbox in [&shared, &host] {
        let line = "trap '' TERM; setsid sleep 3000 & sleep 3000";
        pids.push(pid_of(&sandbox.start_container(&world.shell("c", line)).await.unwrap()));
    }
    assert!(!cgroups_named(world.mark()).is_empty());

    world.runtime.purge().await.unwrap();
    world.runtime.purge().await.unwrap();
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "{pid} lives");
    }
    assert_eq!(cgroups_named(world.mark()), Vec::<String>::new());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.directory.path().to_str().unwrap()));
    assert!(!world.path("run/sandboxes").exists() && !world.path("root/sandboxes").exists());
}

#[tokio::test]
async fn what_a_stopped_sandboxs_containers_wrote_is_discarded_and_how_they_ended_is_kept() {
    let mut world = World::new().await;
    let sandbox = world.sandbox("over").await;
    let status = sandbox.start_container(&world.shell("c", "echo text > /file; echo said; exit 3")).await.unwrap();
    sandbox.wait(&status.id).await.unwrap();
    let layer = sandbox.writable_layer(&status.id);
    assert!(layer.join("file").exists());
    world.runtime.stop_sandbox(sandbox.id()).await.unwrap();
    assert!(layer.join("file").exists(), "who stops it may still look");
    for _ in 0..2 {
        world.runtime.discard_layers(sandbox.id()).await.unwrap();
        assert!(!layer.exists());
    }
    // The next agent finds it as it was.
    world.reopen().await;
    let found = world.runtime.list().await.unwrap().remove(0);
    let ContainerState::Exited(exit) = &found.containers[0].state else { panic!("{found:?}") };
    assert_eq!((exit.code, found.alive), (3, false));
    assert_eq!(log_text(&found.containers[0].log_path), "said\n");
    world.runtime.remove_sandbox(&found.id).await.unwrap();
    assert_eq!(world.runtime.list().await.unwrap().len(), 0);
}

#[tokio::test]
async fn groups_above_pods_go_with_the_last_pod_and_not_before() {
    let world = World::new().await;
    let (one, other) = (world.sandbox("one").await, world.sandbox("other").await);
    world.runtime.remove_sandbox(one.id()).await.unwrap();
    world.runtime.remove_empty_groups().await.unwrap();
    assert!(!cgroups_named(world.mark()).is_empty());
    world.runtime.remove_sandbox(other.id()).await.unwrap();
    world.runtime.remove_empty_groups().await.unwrap();
    assert_eq!(cgroups_named(world.mark()), Vec::<String>::new());
    // And they come again with the next one.
    let _ = world.sandbox("third").await;
}

#[tokio::test]
async fn what_a_container_left_running_in_the_hosts_processes_is_killed_with_it() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("daemon");
    spec.pid = PidNamespace::Host;
    let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
    let status = sandbox.start_container(&world.shell("c", "setsid sleep 3000 & echo $!; exit 0")).await.unwrap();
    assert_eq!(sandbox.wait(&status.id).await.unwrap().code, 0);
    sandbox.remove_container(&status.id).await.unwrap();
    let daemon: i32 = crate::world::log_text(&status.log_path).trim().parse().unwrap();
    let state = fs::read_to_string(format!("/proc/{daemon}/cmdline")).unwrap_or_default();
    assert!(!state.contains("sleep"), "it lives");
}

#[tokio::test]
async fn a_dead_supervisors_containers_are_killed_when_it_is_removed() {
    let world = World::new().await;
    let sandbox = world.sandbox("orphans").await;
    let status = sandbox.start_container(&world.shell("c", "setsid sleep 3000 & sleep 3000")).await.unwrap();
    exec(&sandbox, &status.id, "true").await;
    signal::kill(Pid::from_raw(sandbox.supervisor_pid() as i32), signal::Signal::SIGKILL).unwrap();
    world.runtime.remove_sandbox(sandbox.id()).await.unwrap();
    assert!(!Path::new(&format!("/proc/{}/exe", pid_of(&status))).exists());
    assert!(world.runtime.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_process_that_does_not_die_is_named_keeps_nobody_waiting_and_is_removed_later() {
    let world = World::new().await;
    let freezer = Path::new("/sys/fs/cgroup/freezer");
    if !freezer.is_dir() {
        println!("Skipped: a process that is deaf to SIGKILL takes the freezer of cgroup v1");
        return;
    }
    let sandbox = world.sandbox("deaf").await;
    let status = sandbox.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    let pid = pid_of(&status);
    // Frozen in a group that is not the container's, so that killing does not thaw it.
    let ice = freezer.join(format!("{}-ice", world.mark()));
    fs::create_dir(&ice).unwrap();
    fs::write(ice.join("cgroup.procs"), pid.to_string()).unwrap();
    fs::write(ice.join("freezer.state"), "FROZEN").unwrap();
    while fs::read_to_string(ice.join("freezer.state")).unwrap() != "FROZEN\n" {
        tokio::task::yield_now().await;
    }
    let stopped = sandbox.stop(&status.id, Duration::ZERO).await;
    assert!(matches!(stopped, Err(Error::StillRunning { .. })), "{stopped:?}");
    for _ in 0..2 {
        let Err(Error::Io { source, .. }) = world.runtime.remove_sandbox(sandbox.id()).await else { panic!("removed") };
        assert!(
            source.to_string().contains(&format!("process {pid} (sleep), which sleeps uninterruptibly")),
            "{source}"
        );
    }
    assert_eq!(world.runtime.list().await.unwrap().len(), 1);

    fs::write(ice.join("freezer.state"), "THAWED").unwrap();
    world.runtime.remove_sandbox(sandbox.id()).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}/exe")).exists(), "it lives");
    assert!(world.runtime.list().await.unwrap().is_empty());
    fs::remove_dir(&ice).unwrap();
}

#[tokio::test]
async fn a_sandbox_whose_start_failed_leaves_nothing() {
    let world = World::new().await;
    let mut spec = world.sandbox_spec("fails");
    spec.sysctls = vec![("net.ipv4.no_such_thing".into(), "1".into())];
    let error = world.runtime.create_sandbox(&spec).await.unwrap_err().to_string();
    assert!(error.ends_with("set sysctl net.ipv4.no_such_thing to \"1\": no such file or directory"), "{error}");
    assert!(world.runtime.list().await.unwrap().is_empty());
    assert_eq!(fs::read_dir(world.path("run/sandboxes")).unwrap().count(), 0);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.directory.path().to_str().unwrap()));
}

#[tokio::test]
async fn a_hundred_starts_and_removals_leak_no_descriptor() {
    let world = World::new().await;
    let sandbox = world.sandbox("leak").await;
    let open = |pid: u32| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let (exit, _) = world.run(&sandbox, &world.shell("warm", "true")).await;
    assert_eq!(exit.code, 0);
    sandbox.remove_container(&sandbox.container_id("warm", 0)).await.unwrap();
    sandbox.containers().await.unwrap();
    let before = open(sandbox.supervisor_pid());
    for attempt in 0..100 {
        let mut spec = world.container("c", &["sleep", "1000"]);
        spec.attempt = attempt;
        let status = sandbox.start_container(&spec).await.unwrap();
        assert_eq!(exec(&sandbox, &status.id, "exit 3").await.0, 3);
        sandbox.signal(&status.id, Signal::KILL).await.unwrap();
        sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
        sandbox.remove_container(&status.id).await.unwrap();
    }
    // A connection that was just closed may not have been left yet: one round more, and it has.
    sandbox.containers().await.unwrap();
    let after = open(sandbox.supervisor_pid());
    assert!(after <= before + 1, "{before} descriptors became {after}");
    assert_eq!(fs::read_dir(world.path("root/sandboxes").join(sandbox.id().as_str())).unwrap().count(), 0);
}
