//! Images from registries: names, policies, mirrors, credentials, and what a person is told when a pull fails.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, Read},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::{
    cluster::{Cluster, LONG},
    disk::Disk,
    host::Host,
    registry::Registry,
    wait::wait_for,
};

fn sleeper(name: &str, image: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n{extra}  containers:\n  \
         - {{name: c, image: '{image}', command: [sleep, '1000000']}}\n"
    )
}

fn waits_with(cluster: &Cluster, name: &str, reason: &str) -> String {
    cluster.wait_jsonpath(&[&format!("pod/{name}")], "{.status.containerStatuses[0].state.waiting.reason}", reason);
    let message = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
    cluster.kubectl(&["get", "pod", name, "-o", message])
}

fn runs(cluster: &Cluster, name: &str) {
    cluster.kubectl(&["wait", "--for=condition=Ready", &format!("pod/{name}"), "--timeout=60s"]);
}

#[test]
fn a_private_registry_gives_images_to_who_shows_the_secret() {
    let host = Host::new();
    let registry = Registry::start_private(&host, 5000);
    let cluster = Cluster::start_on(host, &[]);
    let image = format!("{}/busybox:1", registry.address);
    cluster.apply(&sleeper("stranger", &image, ""));
    waits_with(&cluster, "stranger", "ImagePullBackOff");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=stranger,reason=Failed"]);
    assert!(events.contains("401") || events.contains("authorization") || events.contains("unauthorized"), "{events}");

    // auth is base64 of me:secret.
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"bWU6c2VjcmV0\"}}}}}}", registry.address);
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: pull}}\ntype: kubernetes.io/dockerconfigjson\nstringData:\n  .dockerconfigjson: '{config}'\n"
    );
    cluster.apply(&secret);
    cluster.apply(&sleeper("friend", &image, "  imagePullSecrets: [{name: pull}]\n"));
    runs(&cluster, "friend");
    let id = cluster.kubectl(&["get", "pod/friend", "-o", "jsonpath={.status.containerStatuses[0].imageID}"]);
    assert!(id.starts_with(&format!("{}/busybox@sha256:", registry.address)), "{id}");

    // The image is here now, and for who has the secret only: others have to be let in by the registry, as before.
    cluster.apply(&sleeper("later", &image, ""));
    waits_with(&cluster, "later", "ImagePullBackOff");
    let never = sleeper("never", &image, "").replace("command:", "imagePullPolicy: Never, command:");
    cluster.apply(&never);
    let message = waits_with(&cluster, "never", "ErrImageNeverPull");
    assert!(message.contains("is not present with pull policy of Never"), "{message}");
    // Who has it need not ask the registry.
    drop(registry);
    cluster.apply(&sleeper("another", &image, "  imagePullSecrets: [{name: pull}]\n"));
    runs(&cluster, "another");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=another,reason=Pulled"]);
    assert!(events.contains("already present on machine and can be accessed by the pod"), "{events}");
}

#[test]
fn mirrors_answer_for_other_registries_and_digests_pin() {
    let host = Host::new();
    let registry = Registry::start(&host, 5000);
    registry.push(&host, "busybox", "library/busybox:latest");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registries.yaml");
    std::fs::write(&file, format!("mirrors:\n  docker.io:\n    endpoint: ['http://{}']\n", registry.address)).unwrap();
    let cluster = Cluster::start_on(host, &["--registries", file.to_str().unwrap()]);

    // A short name is docker.io/library/…:latest, and the mirror has it.
    cluster.apply(&sleeper("short", "busybox", ""));
    runs(&cluster, "short");
    let policy = cluster.kubectl(&["get", "pod/short", "-o", "jsonpath={.spec.containers[0].imagePullPolicy}"]);
    assert_eq!(policy, "Always");
    let id = cluster.kubectl(&["get", "pod/short", "-o", "jsonpath={.status.containerStatuses[0].imageID}"]);
    assert!(id.starts_with("docker.io/library/busybox@sha256:"), "{id}");
    cluster.apply(&sleeper("pinned", &id, ""));
    runs(&cluster, "pinned");
}

#[test]
fn what_cannot_be_pulled_says_why_by_policy_and_by_name() {
    let host = Host::new();
    let registry = Registry::start(&host, 5000);
    let cluster = Cluster::start_on(host, &[]);
    let never = sleeper("never", &format!("{}/busybox:1", registry.address), "");
    cluster.apply(&never.replace("command:", "imagePullPolicy: Never, command:"));
    let message = waits_with(&cluster, "never", "ErrImageNeverPull");
    assert!(message.contains("is not present with pull policy of Never"), "{message}");

    cluster.apply(&sleeper("named", "Not_A_Name::", ""));
    waits_with(&cluster, "named", "InvalidImageName");

    cluster.apply(&sleeper("absent", &format!("{}/absent:1", registry.address), ""));
    let message = waits_with(&cluster, "absent", "ImagePullBackOff");
    assert!(message.starts_with("Back-off pulling image"), "{message}");

    cluster.apply(&sleeper("present", &format!("{}/busybox:1", registry.address), ""));
    runs(&cluster, "present");
    cluster.apply(&sleeper("again", &format!("{}/busybox:1", registry.address), ""));
    runs(&cluster, "again");
    let events = cluster.kubectl(&["get", "events", "--field-selector", "involvedObject.name=again,reason=Pulled"]);
    assert!(events.contains("already present on machine"), "{events}");
}

#[test]
fn pulls_come_one_after_the_other_if_the_node_is_told_so() {
    let host = Host::new();
    let registry = host.within(|| TcpListener::bind("127.0.0.1:5000").unwrap());
    let cluster = Cluster::start_on(host, &["--max-parallel-image-pulls", "1"]);
    for name in ["one", "two"] {
        cluster.apply(&sleeper(name, &format!("127.0.0.1:5000/{name}:1"), ""));
    }
    let (mut first, _) = registry.accept().unwrap();
    for name in ["one", "two"] {
        let about = format!("involvedObject.name={name},reason=Pulling");
        wait_for("both to want their images", LONG, || {
            let events = cluster.kubectl(&["get", "events", "--field-selector", &about]);
            if events.contains("Pulling image") { Ok(()) } else { Err(events) }
        });
    }
    registry.set_nonblocking(true).unwrap();
    let other = registry.accept().map_err(|error| error.kind());
    assert!(matches!(other, Err(ErrorKind::WouldBlock)), "the second one has come too: {other:?}");
    // When the first one is through, the other has its turn.
    registry.set_nonblocking(false).unwrap();
    let mut asked = BTreeSet::from([wants(&mut first)]);
    drop(first);
    while asked.len() < 2 {
        let (mut next, _) = registry.accept().unwrap();
        asked.insert(wants(&mut next));
    }
    assert_eq!(asked, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
}

/// The repository a client asks for.
fn wants(client: &mut TcpStream) -> String {
    let mut head = [0; 1000];
    let length = client.read(&mut head).unwrap();
    let head = String::from_utf8_lossy(&head[..length]).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default();
    path.split('/').nth(2).unwrap_or_else(|| panic!("no request for an image: {head}")).to_owned()
}

#[test]
fn on_a_full_disk_pulled_images_that_nobody_uses_go() {
    let disk = Disk::of("size=400m");
    {
        let host = Host::new();
        let registry = Registry::start(&host, 5000);
        let marks = ["--image-gc-high-threshold", "80", "--image-gc-low-threshold", "10"];
        let flags = ["--image-minimum-gc-age", "1s", "--eviction-hard", "memory.available<1Mi"];
        let store = disk.path().join("images");
        let store = ["--image-store", store.to_str().expect("a path of text")];
        let cluster = Cluster::start_on(host, &[marks.as_slice(), &flags, &store].concat());
        let used = format!("{}/busybox:1", registry.address);
        let unused = format!("{}/nginx:1", registry.address);
        cluster.apply(&sleeper("stays", &used, ""));
        runs(&cluster, "stays");
        cluster.coracle_does(&["image", "pull", &unused]);
        let before = cluster.coracle_does(&["image", "list"]);
        assert!(before.contains(&used) && before.contains(&unused), "{before}");

        // Four fifths of it; that it is full is seen while pods run.
        std::fs::write(disk.path().join("filler"), vec![0; 320 << 20]).expect("room for it");
        wait_for("the unused image to go", Duration::from_secs(60), || {
            let images = cluster.coracle_does(&["image", "list"]);
            if images.contains(&unused) { Err(images) } else { Ok(()) }
        });
        let images = cluster.coracle_does(&["image", "list"]);
        assert!(images.contains(&used), "{images}");
        runs(&cluster, "stays");
        wait_for("the word that there is no more to remove", Duration::from_secs(60), || {
            let told = cluster.kubectl(&["get", "events", "-A", "--field-selector", "reason=FreeDiskSpaceFailed"]);
            let words = "Failed to garbage collect required amount of images. Attempted to free ";
            if told.contains(words) { Ok(()) } else { Err(told) }
        });
    }
}
