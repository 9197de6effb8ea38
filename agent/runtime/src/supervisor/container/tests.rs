//! What a container makes of its processes when they end in an order they seldom do.

use super::*;
use crate::{cgroup, id::SandboxId};

const HELPER: Pid = Pid::from_raw(i32::MAX - 1);
const FIRST: Pid = Pid::from_raw(i32::MAX);

/// One whose first process was born and goes on, with the end of the channel that what prepared it still holds.
fn born(folder: &Path) -> (Container, OwnedFd) {
    let sandbox = r#"{"pod_uid": "uid", "pod_name": "web", "pod_namespace": "default", "attempt": 0, "hostname": "web",
                      "qos": "BestEffort", "log_directory": "/nowhere"}"#;
    let sandbox: SandboxSpec = serde_json::from_str(sandbox).unwrap();
    let spec = ContainerSpec::new("c", Vec::new(), vec!["true".to_owned()]);
    let id = ContainerId::of(&SandboxId::of("uid", 0), "c", 0);
    fs::create_dir(folder.join("containers")).unwrap();
    let mut container = Container::new(id, spec, PathBuf::from("c"), &sandbox, folder);
    let (ours, theirs) = init::pair().unwrap();
    (container.helper, container.init, container.channel) = (Some(HELPER), Some(FIRST), Some(ours));
    (container, theirs)
}

#[test]
fn a_program_that_is_quicker_than_what_prepared_it_has_run() {
    let (folder, tree) = (tempfile::tempdir().unwrap(), cgroup::none());
    let (mut container, theirs) = born(folder.path());
    assert!(!container.reaped(7, None, &tree));
    assert!(container.is_alive() && container.running().is_none(), "its number may be another's by now");
    drop(theirs);
    assert!(container.helper_reaped(&tree));
    let ContainerState::Exited(exit) = &container.status.state else { panic!("{:?}", container.status.state) };
    assert_eq!((exit.code, &exit.start_error), (7, &None));
    assert!(exit.started_at.is_some());
}

#[test]
fn a_program_that_ends_before_what_prepared_it_is_reaped_is_over_once() {
    let (folder, tree) = (tempfile::tempdir().unwrap(), cgroup::none());
    let (mut container, theirs) = born(folder.path());
    drop(theirs);
    assert!(container.hear(), "it runs");
    assert!(!container.reaped(128 + 15, Some(15), &tree));
    assert!(!container.is_over());
    assert!(container.helper_reaped(&tree));
    let ContainerState::Exited(exit) = &container.status.state else { panic!("{:?}", container.status.state) };
    assert_eq!((exit.code, exit.signal, &exit.start_error), (143, Some(15), &None));
    assert!(!container.is_alive() && !container.helper_reaped(&tree));
}

#[test]
fn what_fails_after_it_was_born_says_why_however_slow_what_prepared_it_is() {
    let (folder, tree) = (tempfile::tempdir().unwrap(), cgroup::none());
    let (mut container, theirs) = born(folder.path());
    init::send(theirs.as_fd(), &Report::Failed(refuse("exec", "no such program")), &[]).unwrap();
    assert!(!container.reaped(1, None, &tree));
    drop(theirs);
    assert!(container.helper_reaped(&tree));
    let ContainerState::Exited(exit) = &container.status.state else { panic!("{:?}", container.status.state) };
    assert_eq!(exit.start_error.as_ref().map(|error| error.message.as_str()), Some("no such program"));
    assert_eq!(exit.started_at, None);
}
