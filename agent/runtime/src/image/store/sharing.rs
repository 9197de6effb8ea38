//! One directory, several stores: as several processes have it, and in one test a process of its own.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
};

use nix::fcntl::{Flock, FlockArg};

use super::*;
use crate::image::{
    ImportSource,
    testing::{Fixture, Request, Server, noise},
};

/// Tells the test program that it is the second process, and where the store is.
const SECOND: &str = "CORACLE_TEST_IMAGE_STORE";

/// What the second process is to pull.
const PULL: &str = "CORACLE_TEST_IMAGE_PULL";

fn config(root: &Path) -> StoreConfig {
    StoreConfig {
        root: root.join("images"),
        registries: Registries::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    }
}

async fn store(root: &Path) -> ImageStore {
    ImageStore::open(config(root)).await.unwrap()
}

fn archive(root: &Path, fixture: &Fixture) -> ImportSource {
    let path = root.join("image.tar");
    fs::write(&path, fixture.docker_archive("app:v1")).unwrap();
    ImportSource::Path(path)
}

fn count(root: &Path, directory: &str) -> usize {
    fs::read_dir(root.join("images").join(directory)).unwrap().count()
}

/// What lies in the processes' temporary directories besides their locks.
fn unfinished(root: &Path) -> Vec<PathBuf> {
    fs::read_dir(root.join("images/tmp"))
        .unwrap()
        .flat_map(|session| fs::read_dir(session.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("lock"))
        .collect()
}

#[tokio::test]
async fn what_one_store_imports_names_or_removes_the_other_sees_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (store(dir.path()).await, store(dir.path()).await);
    let fixture = Fixture::new(&[&[("etc/passwd", "app:x:7:8::/:/\n")]]);
    assert_eq!(second.get("app:v1"), None);
    let image = first.import(archive(dir.path(), &fixture), None).await.unwrap().remove(0);
    let seen = second.get("app:v1").unwrap();
    assert_eq!(seen, image);
    assert_eq!(second.list(), first.list());
    assert_eq!(second.identity(&seen, "app").unwrap().uid, 7);
    assert!(second.lower_dirs(&seen)[0].join("etc/passwd").exists());
    // Index files of one size, made as fast as can be: none is taken for another.
    for round in 100..150 {
        let (changes, reads) = if round % 2 == 0 { (&first, &second) } else { (&second, &first) };
        let tag: Reference = format!("app:v{round}").parse().unwrap();
        changes.inner.index.name(&image.id, &[tag], &[]).unwrap().unwrap();
        assert!(reads.get(&format!("app:v{round}")).is_some(), "{round}");
        changes.remove(&format!("app:v{round}"), &BTreeSet::new()).await.unwrap();
        assert_eq!(reads.get(&format!("app:v{round}")), None, "{round}");
    }
    second.remove("app:v1", &BTreeSet::new()).await.unwrap();
    assert_eq!(first.list(), []);
    assert_eq!(first.inner.index.name(&image.id, &[], &[]).unwrap(), None);
    second.collect_garbage(&BTreeSet::new(), false).await.unwrap();
    assert_eq!((count(dir.path(), "layers"), count(dir.path(), "configs")), (0, 0));
}

#[tokio::test]
async fn changes_of_two_stores_do_not_undo_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (store(dir.path()).await, store(dir.path()).await);
    let one = Fixture::new(&[&[("a", "1")]]).serve();
    let two = Fixture::new(&[&[("a", "2")]]).serve();
    let names = [format!("{}/one:v1", one.address()), format!("{}/two:v1", two.address())];
    let pulls = names.each_ref().map(|name| PullRequest::new(name.parse().unwrap()));
    let [of_first, of_second] = pulls;
    let (a, b) = tokio::join!(first.pull(of_first), second.pull(of_second));
    assert_ne!(a.unwrap().id, b.unwrap().id);
    for store in [&first, &second] {
        assert!(names.iter().all(|name| store.get(name).is_some()), "{:?}", store.list());
    }
}

#[tokio::test]
async fn many_changes_at_once_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [store(dir.path()).await, store(dir.path()).await];
    let fixture = Fixture::new(&[&[("a", "1")]]);
    let id = stores[0].import(archive(dir.path(), &fixture), None).await.unwrap().remove(0).id;
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (index, id) = (&stores[number % 2].inner.index, &id);
            scope.spawn(move || {
                for round in 0..10 {
                    let tag: Reference = format!("app:t{number}-{round}").parse().unwrap();
                    index.name(id, &[tag], &[]).unwrap().unwrap();
                    assert!(index.claim_also("everybody", id).unwrap());
                }
            });
        }
    });
    for store in &stores {
        assert_eq!(store.list()[0].repo_tags.len(), 41);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_pulls_and_imports_of_one_image_end_in_one_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (store(dir.path()).await, store(dir.path()).await);
    let fixture = Fixture::new(&[&[("a", "1")], &[("b", "2")]]);
    let server = fixture.serve();
    let request = PullRequest::new(format!("{}/app:v1", server.address()).parse().unwrap());
    let source = archive(dir.path(), &fixture);
    let (a, b, c, d) = tokio::join!(
        first.pull(request.clone()),
        second.pull(request.clone()),
        first.import(source.clone(), None),
        second.import(source, None),
    );
    for id in [a.unwrap().id, b.unwrap().id, c.unwrap().remove(0).id, d.unwrap().remove(0).id] {
        assert_eq!(id, fixture.config_digest());
    }
    assert_eq!(first.list(), second.list());
    assert_eq!(first.list().len(), 1);
    assert_eq!(first.list()[0].repo_tags.len(), 2);
    assert_eq!((count(dir.path(), "layers"), count(dir.path(), "configs")), (2, 1));
    assert_eq!(unfinished(dir.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn what_one_store_claims_no_other_removes() {
    let dir = tempfile::tempdir().unwrap();
    let (agent, tool) = (store(dir.path()).await, store(dir.path()).await);
    let fixture = Fixture::new(&[&[("a", "1")]]);
    let image = agent.import(archive(dir.path(), &fixture), None).await.unwrap().remove(0);
    let (none, unknown) = (BTreeSet::new(), Digest::of(b"unknown"));
    assert!(agent.claim_also("node.pod", &image.id).await.unwrap());
    assert!(!agent.claim_also("node.pod", &unknown).await.unwrap());
    let error = tool.remove("app:v1", &none).await.unwrap_err();
    assert_eq!(error.to_string(), "image \"app:v1\" is in use by node.pod");
    // A claim outlives the process, as containers do.
    drop(agent);
    let agent = store(dir.path()).await;
    assert_eq!(agent.claims().await.unwrap(), BTreeMap::from([("node.pod".to_owned(), [image.id.clone()].into())]));
    assert_eq!(tool.collect_garbage(&none, true).await.unwrap(), Collected::default());
    // A name may go while another is left.
    tool.inner.index.name(&image.id, &["app:v2".parse().unwrap()], &[]).unwrap().unwrap();
    tool.remove("app:v1", &none).await.unwrap();
    assert!(matches!(tool.remove("app:v2", &none).await, Err(Error::InUse { .. })));

    let both = BTreeSet::from([image.id.clone(), unknown.clone()]);
    assert_eq!(agent.claim("node.pod", &both).await.unwrap(), BTreeSet::from([unknown]));
    assert!(agent.claim("node.pod", &none).await.unwrap().is_empty());
    assert_eq!(count(dir.path(), "claims"), 0);
    tool.remove("app:v2", &none).await.unwrap();
    assert!(!agent.claim_also("node.pod", &image.id).await.unwrap());
    for owner in ["", ".hidden", "../../etc", "a/b"] {
        assert!(matches!(agent.claim(owner, &none).await, Err(Error::Owner(_))), "{owner}");
    }
    fs::write(dir.path().join("images/claims/other.json"), "not what it was").unwrap();
    assert!(matches!(tool.collect_garbage(&none, true).await, Err(Error::Io { .. })), "unread claims are not ignored");
}

#[tokio::test]
async fn layers_another_store_counts_on_are_not_collected() {
    let dir = tempfile::tempdir().unwrap();
    let (pulling, tool) = (store(dir.path()).await, store(dir.path()).await);
    let fixture = Fixture::new(&[&[("a", "1")], &[("b", "2")]]);
    let image = tool.import(archive(dir.path(), &fixture), None).await.unwrap().remove(0);
    let pin = pulling.pin(image.layers.iter().map(|layer| layer.diff_id.clone()).collect()).await.unwrap();
    tool.remove("app:v1", &BTreeSet::new()).await.unwrap();
    assert_eq!(tool.collect_garbage(&BTreeSet::new(), true).await.unwrap().layers, []);
    assert_eq!(count(dir.path(), "layers"), 2);
    drop(pin);
    assert_eq!(tool.collect_garbage(&BTreeSet::new(), true).await.unwrap().layers.len(), 2);
    assert_eq!(count(dir.path(), "layers"), 0);
}

#[tokio::test]
async fn a_change_that_another_process_holds_up_ends_with_its_pid_and_reads_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("a", "1")]]);
    let patience = Duration::from_millis(20);
    let store = ImageStore::open_within(config(dir.path()), patience).await.unwrap();
    store.import(archive(dir.path(), &fixture), None).await.unwrap();
    let path = dir.path().join("images/lock");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).unwrap();
    fs::write(&path, "4711\n").unwrap();
    let error = store.remove("app:v1", &BTreeSet::new()).await.unwrap_err();
    assert!(matches!(error, Error::Locked { holder: Some(4711), .. }), "{error}");
    assert!(error.to_string().contains("is being changed by process 4711, and still was after 0.02 s"), "{error}");
    assert!(matches!(ImageStore::open_within(config(dir.path()), patience).await, Err(Error::Locked { .. })));
    assert!(store.get("app:v1").is_some());
    drop(lock);
    store.remove("app:v1", &BTreeSet::new()).await.unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().trim(), std::process::id().to_string());
}

#[tokio::test]
async fn an_index_that_cannot_be_read_is_not_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let fixture = Fixture::new(&[&[("a", "1")]]);
    store.import(archive(dir.path(), &fixture), None).await.unwrap();
    let path = dir.path().join("images/index.json");
    let good = fs::read(&path).unwrap();
    fs::write(&path, r#"{"format":2}"#).unwrap();
    assert!(matches!(store.remove("app:v1", &BTreeSet::new()).await, Err(Error::Format { found: 2, .. })));
    assert!(store.get("app:v1").is_some(), "what was known is still told");
    assert_eq!(fs::read_to_string(&path).unwrap(), r#"{"format":2}"#);
    fs::write(&path, good).unwrap();
    store.remove("app:v1", &BTreeSet::new()).await.unwrap();
    assert_eq!(store.list(), []);
}

struct Second(Child);

impl Second {
    /// This test program again, for one test, with these further variables.
    fn start(test: &str, variables: &[(&str, &OsStr)]) -> Self {
        let command = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("image::store::sharing::{test}"), "--nocapture"])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        Self(command.unwrap())
    }

    /// Waits for a line that ends so.
    fn says(&mut self, what: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with(what)), "the second process failed");
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// The part of the second process: takes in what comes on standard input, begins something, says so, and waits to be killed.
async fn second_process(root: &Path) -> ! {
    let store = store(root).await;
    store.import(ImportSource::Stdin, None).await.unwrap();
    let made = store.inner.index.temporary().unwrap();
    fs::write(made.path().join("half"), "done").unwrap();
    std::io::stdout().write_all(b"ready\n").unwrap();
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn what_a_killed_process_left_is_swept_and_what_a_living_one_makes_is_not() {
    if let Some(root) = std::env::var_os(SECOND) {
        second_process(Path::new(&root)).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path()).await;
    let name = "what_a_killed_process_left_is_swept_and_what_a_living_one_makes_is_not";
    let mut second = Second::start(name, &[(SECOND, dir.path().as_os_str())]);
    let fixture = Fixture::new(&[&[("a", "1")], &[("b", "2")]]);
    second.0.stdin.take().unwrap().write_all(&fixture.docker_archive("app:v1")).unwrap();
    second.says("ready");

    let image = first.get("app:v1").unwrap();
    assert_eq!(fs::read_to_string(first.lower_dirs(&image)[0].join("b")).unwrap(), "2");
    let third = store(dir.path()).await;
    assert_eq!(unfinished(dir.path()).len(), 1);
    first.collect_garbage(&BTreeSet::new(), false).await.unwrap();
    assert_eq!(unfinished(dir.path()).len(), 1);

    drop(second);
    let fourth = store(dir.path()).await;
    assert_eq!(unfinished(dir.path()), [] as [PathBuf; 0]);
    assert_eq!(count(dir.path(), "tmp"), 3);
    assert_eq!(fourth.list(), std::slice::from_ref(&image));
    drop((first, third, fourth));
    assert_eq!(count(dir.path(), "tmp"), 0);
}

/// The part of the second process: pulls, says when the first layer is there, and is killed before the second one is.
async fn second_pull(root: &Path, name: &str) -> ! {
    let store = store(root).await;
    let (progress, mut events) = mpsc::channel(64);
    let request = PullRequest { progress: Some(progress), ..PullRequest::new(name.parse().unwrap()) };
    let told = async {
        while let Some(event) = events.recv().await {
            if matches!(event, PullEvent::LayerDone { .. }) {
                std::io::stdout().write_all(b"one layer is there\n").unwrap();
            }
        }
    };
    let (pulled, ()) = tokio::join!(store.pull(request), told);
    panic!("the pull was to hang and ended: {pulled:?}");
}

#[tokio::test]
async fn a_pull_of_one_process_outlives_anothers_collection_and_its_own_death_harms_nobody() {
    if let (Some(root), Ok(name)) = (std::env::var_os(SECOND), std::env::var(PULL)) {
        second_pull(Path::new(&root), &name).await;
    }
    let dir = tempfile::tempdir().unwrap();
    let first = store(dir.path()).await;
    let big = noise(300_000);
    let fixture = Fixture::new(&[&[("a", "1")], &[("b", &big)]]);
    let (hangs, content) = (Arc::new(AtomicBool::new(true)), fixture.clone());
    let (tell, arrived) = sync_channel(8);
    let server = {
        let hangs = Arc::clone(&hangs);
        Server::start(move |request| {
            let reply = content.answer(request);
            // The large layer stops half way, and its connection stays open.
            if request.path.contains("/blobs/") && reply.length() > 100_000 && hangs.load(Ordering::SeqCst) {
                tell.try_send(()).ok();
                return reply.hang_after(50_000);
            }
            reply
        })
    };
    let name = format!("{}/app:v1", server.address());
    let test = "a_pull_of_one_process_outlives_anothers_collection_and_its_own_death_harms_nobody";
    let mut second = Second::start(test, &[(SECOND, dir.path().as_os_str()), (PULL, name.as_ref())]);
    second.says("one layer is there");
    arrived.recv().unwrap();

    // No image has the layer yet; whose pull it is counts on it.
    assert_eq!(first.collect_garbage(&BTreeSet::new(), true).await.unwrap(), Collected::default());
    assert_eq!((count(dir.path(), "layers"), first.list().len()), (1, 0));
    assert!(first.is_wanted().await.unwrap());

    drop(second);
    assert!(!first.is_wanted().await.unwrap());
    hangs.store(false, Ordering::SeqCst);
    let before = server.requests().len();
    let image = first.pull(PullRequest::new(name.parse().unwrap())).await.unwrap();
    let fetched: Vec<Request> = server.requests().split_off(before);
    let blobs = fetched.iter().filter(|request| request.method == "GET" && request.path.contains("/blobs/"));
    assert_eq!(blobs.count(), 2, "the configuration and the layer that was not there yet");
    assert_eq!(fs::read_to_string(first.lower_dirs(&image)[0].join("b")).unwrap(), big);
    // What the killed one had half of goes with the next start of anybody.
    assert!(!unfinished(dir.path()).is_empty());
    let third = store(dir.path()).await;
    assert_eq!(unfinished(dir.path()), [] as [PathBuf; 0]);
    assert_eq!(third.list(), [image]);
    assert_eq!(third.collect_garbage(&BTreeSet::new(), false).await.unwrap(), Collected::default());
}
