//! Agents and supervisors that die.

use std::{fs, time::Duration};

use coracle_runtime::{ContainerState, Error, Event, Signal};
use nix::{sys::signal, unistd::Pid};

use crate::world::{World, exec, pid_of};

#[tokio::test]
async fn a_new_agent_finds_every_sandbox_as_it_was() {
    let mut world = World::new().await;
    let sandbox = world.sandbox("stay").await;
    let running = sandbox.start_container(&world.container("running", &["sleep", "1000"])).await.unwrap();
    let (exit, _) = world.run(&sandbox, &world.shell("ended", "exit 6")).await;
    drop(sandbox);
    world.reopen().await;
    let found = world.runtime.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].alive);
    assert_eq!(found[0].spec, world.sandbox_spec("stay"));
    assert_eq!(found[0].containers[0], running);
    assert_eq!(found[0].containers[1].state, ContainerState::Exited(exit));

    let sandbox = world.runtime.sandbox(&found[0].id).await.unwrap();
    assert_eq!(exec(&sandbox, &running.id, "echo here").await.1, "here\n");
    let mut events = world.runtime.events();
    let Event::Started { pid, .. } = events.next().await else { panic!("no start") };
    assert_eq!(pid, pid_of(&running));
    sandbox.signal(&running.id, Signal::KILL).await.unwrap();
    assert_eq!(sandbox.wait(&running.id).await.unwrap().signal, Some(9));
}

#[tokio::test]
async fn containers_die_with_their_supervisor_and_are_found_dead() {
    let world = World::new().await;
    let sandbox = world.sandbox("dead").await;
    let running = sandbox.start_container(&world.shell("running", "sleep 1000; true")).await.unwrap();
    let (exit, _) = world.run(&sandbox, &world.shell("ended", "exit 6")).await;
    let mut events = world.runtime.events();
    assert!(matches!(events.next().await, Event::Started { .. }));
    assert!(matches!(events.next().await, Event::Exited { .. }));
    assert!(fs::read_link(format!("/proc/{}/exe", pid_of(&running))).is_ok());

    signal::kill(Pid::from_raw(sandbox.supervisor_pid() as i32), signal::Signal::SIGKILL).unwrap();
    let Event::SandboxDied { sandbox: died } = events.next().await else { panic!("nobody died") };
    assert_eq!(&died, sandbox.id());
    let found = world.runtime.list().await.unwrap();
    assert!(!found[0].alive);
    let ContainerState::Exited(lost) = &found[0].containers[0].state else { panic!("it lives") };
    assert_eq!((lost.code, lost.lost, lost.started_at.is_some()), (137, true, true));
    assert_eq!(found[0].containers[1].state, ContainerState::Exited(exit));
    assert!(matches!(sandbox.containers().await, Err(Error::SandboxNotFound { .. })));

    // The same attempt is not begun again over exits nobody has read; the next one is, or this one after its removal.
    assert!(matches!(world.runtime.create_sandbox(sandbox.spec()).await, Err(Error::Sandbox { .. })));
    world.runtime.remove_sandbox(sandbox.id()).await.unwrap();
    // A process that is dead and not yet reaped by the host has no program any more.
    let program = fs::read_link(format!("/proc/{}/exe", pid_of(&running)));
    assert!(program.is_err(), "the container outlived its removal: {program:?}");
    let again = world.runtime.create_sandbox(sandbox.spec()).await.unwrap();
    assert_eq!(world.run(&again, &world.shell("c", "exit 2")).await.0.code, 2);
}

#[tokio::test]
async fn removing_a_dead_attempt_leaves_the_next_one_of_the_pod_alone() {
    let world = World::new().await;
    let first = world.sandbox("attempts").await;
    let lost = first.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    signal::kill(Pid::from_raw(first.supervisor_pid() as i32), signal::Signal::SIGKILL).unwrap();
    let mut spec = world.sandbox_spec("attempts");
    spec.attempt = 1;
    let second = world.runtime.create_sandbox(&spec).await.unwrap();
    let running = second.start_container(&world.container("c", &["sleep", "1000"])).await.unwrap();
    assert_ne!(lost.id, running.id);
    world.runtime.remove_sandbox(first.id()).await.unwrap();
    assert_eq!(exec(&second, &running.id, "echo here").await.1, "here\n");
    assert_eq!(second.container(&running.id).await.unwrap(), running);
}

#[tokio::test]
async fn a_start_whose_agent_went_away_goes_on_and_is_found() {
    let mut world = World::new().await;
    let sandbox = world.sandbox("gone").await;
    let spec = world.shell("c", "echo once; sleep 1000");
    for polls in 1..6 {
        // The agent is cut after some steps of asking, as by a signal: its connection closes and nobody waits.
        let mut start = Box::pin(sandbox.start_container(&spec));
        for _ in 0..polls {
            // It may have its answer before it is cut, since the container may have started meanwhile.
            if futures::poll!(&mut start).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(start);
        world.reopen().await;
    }
    let status = sandbox.start_container(&spec).await.unwrap();
    exec(&sandbox, &status.id, "true").await;
    assert_eq!(sandbox.containers().await.unwrap(), std::slice::from_ref(&status));
    sandbox.stop(&status.id, Duration::ZERO).await.unwrap();
    assert!(["", "once\n"].contains(&crate::world::log_text(&status.log_path).as_str()));
}

#[tokio::test]
async fn a_creation_cut_at_any_step_is_begun_again() {
    let world = World::new().await;
    let spec = world.sandbox_spec("cut");
    let id = coracle_runtime::SandboxId::of(&spec.pod_uid, 0);
    let directory = world.path("run/sandboxes").join(id.as_str());
    for remains in ["", "sandbox.new", "sandbox.json"] {
        fs::create_dir_all(&directory).unwrap();
        if !remains.is_empty() {
            fs::write(directory.join(remains), "{\"cut\":").unwrap();
        }
        assert!(world.runtime.list().await.unwrap().is_empty());
        let sandbox = world.runtime.create_sandbox(&spec).await.unwrap();
        assert_eq!(world.run(&sandbox, &world.shell("c", "exit 3")).await.0.code, 3);
        world.runtime.remove_sandbox(&id).await.unwrap();
    }
}

#[tokio::test]
async fn a_supervisor_does_not_listen_to_anybody_but_root() {
    let world = World::new().await;
    let sandbox = world.sandbox("peer").await;
    let socket = world.path("run/sandboxes").join(sandbox.id().as_str()).join("sock");
    // Even with the directory open to all, which it is not.
    for part in socket.ancestors().skip(1).take(4).chain([socket.as_path()]) {
        fs::set_permissions(part, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    let script = format!(
        "import os,socket,sys\nos.setuid(65534)\ns=socket.socket(socket.AF_UNIX)\nos.chdir({:?})\n\
        s.connect('sock')\ns.sendall(b'\\x08\\0\\0\\0\"Status\"')\nsys.exit(len(s.recv(10)))",
        socket.parent().unwrap()
    );
    let asked = std::process::Command::new("python3").args(["-c", &script]).output().unwrap();
    let refused = asked.status.code() == Some(0) || String::from_utf8_lossy(&asked.stderr).contains("Error");
    assert!(refused, "{asked:?}");
    assert!(!String::from_utf8_lossy(&asked.stderr).contains("PermissionError"), "never got to ask: {asked:?}");
    let exit = world.run(&sandbox, &world.shell("c", "exit 1")).await.0;
    assert_eq!(exit.code, 1);
    world.runtime.stop_sandbox(sandbox.id()).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(20), sandbox.containers()).await.unwrap();
    assert!(stopped.is_err());
}
