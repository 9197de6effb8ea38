//! The store against registries that the tests play themselves.

use std::{fs, io::Write, path::Path};

use super::*;
use crate::image::{
    ImportSource,
    testing::{Fixture, Reply, Request, Server, gzip, layer_of, noise},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

async fn store(root: &Path) -> ImageStore {
    open(root, Registries::default()).await
}

async fn open(root: &Path, registries: Registries) -> ImageStore {
    let timeouts = Timeouts {
        connect: std::time::Duration::from_secs(20),
        idle: std::time::Duration::from_millis(700),
        backoff: std::time::Duration::from_millis(1),
    };
    ImageStore::open(StoreConfig { root: root.join("images"), registries, timeouts, limits: Limits::default() })
        .await
        .unwrap()
}

fn pull(reference: &str) -> PullRequest {
    PullRequest::new(reference.parse().unwrap())
}

fn user(username: &str, password: &str) -> Credential {
    Credential { username: username.to_owned(), password: password.to_owned() }
}

/// What a failed pull must leave: no image, no layer, nothing temporary.
fn is_empty(root: &Path) {
    for directory in ["layers", "configs"] {
        let left: Vec<_> = fs::read_dir(root.join("images").join(directory)).unwrap().collect();
        assert!(left.is_empty(), "{directory}: {left:?}");
    }
    nothing_temporary(root);
}

/// In each open store's temporary directory is its lock alone.
fn nothing_temporary(root: &Path) {
    for session in fs::read_dir(root.join("images/tmp")).unwrap() {
        let left: Vec<_> =
            fs::read_dir(session.unwrap().path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }
}

#[tokio::test]
async fn an_image_is_pulled_by_tag_and_by_digest_and_its_layers_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("etc/passwd", "app:x:7:8::/home/app:/bin/sh\n")], &[("bin/app", "program")]]);
    let server = fixture.serve();
    let store = store(dir.path()).await;
    let name = format!("{}/team/app:v1", server.address());
    let (progress, mut events) = mpsc::channel(100);
    let image = store.pull(PullRequest { progress: Some(progress), ..pull(&name) }).await.unwrap();
    assert_eq!(image.id, fixture.config_digest());
    assert_eq!(image.repo_tags, std::slice::from_ref(&name));
    assert_eq!(image.image_id(), format!("{}/team/app@{}", server.address(), fixture.manifest_digest()));
    assert_eq!(image.config.config.entrypoint, ["/bin/app"]);
    let lower = store.lower_dirs(&image);
    assert_eq!(fs::read_to_string(lower[0].join("bin/app")).unwrap(), "program");
    assert_eq!(store.identity(&image, "app").unwrap().uid, 7);
    let mut seen = Vec::new();
    while let Ok(event) = events.try_recv() {
        seen.push(event);
    }
    assert_eq!(seen[0], PullEvent::Resolved { digest: fixture.manifest_digest() });
    let PullEvent::Layers { total } = seen[1] else { panic!("{seen:?}") };
    let mut last = std::collections::BTreeMap::new();
    for event in &seen {
        if let PullEvent::LayerProgress { diff_id, received, total } = event {
            assert!(received <= total, "{seen:?}");
            last.insert(diff_id, *received);
        }
    }
    assert_eq!((last.len(), last.values().sum::<u64>()), (2, total), "all of it arrives: {seen:?}");
    assert_eq!(seen.iter().filter(|event| matches!(event, PullEvent::LayerDone { .. })).count(), 2);

    let gets = |server: &Server| server.requests().iter().filter(|r| r.method == "GET").count();
    let before = gets(&server);
    assert_eq!(store.pull(pull(&name)).await.unwrap(), image);
    assert_eq!(gets(&server), before, "what is here is not fetched again");
    let by_digest = format!("{}/team/app@{}", server.address(), fixture.manifest_digest());
    assert_eq!(store.pull(pull(&by_digest)).await.unwrap().id, image.id);
    for known in [name.as_str(), &by_digest, image.id.as_str(), &image.id.hex()[..12]] {
        assert_eq!(store.get(known).unwrap().id, image.id, "{known}");
    }
    assert_eq!(store.usage().layers, 2);
}

#[tokio::test]
async fn what_the_registry_does_not_have_is_told_in_containerds_words() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Reply::status(404));
    let store = store(dir.path()).await;
    let name = format!("{}/nope:latest", server.address());
    let error = store.pull(pull(&name)).await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(
        error.to_string(),
        format!(
            "failed to pull and unpack image \"{name}\": failed to resolve reference \"{name}\": {name}: not found"
        )
    );
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = refused.local_addr().unwrap();
    drop(refused);
    let error = store.pull(pull(&format!("{address}/nope"))).await.unwrap_err().to_string();
    assert!(error.contains("failed to do request: HEAD \"http://127.0.0.1:"), "{error}");
    assert!(error.to_lowercase().contains("connection refused"), "{error}");
    is_empty(dir.path());
}

#[tokio::test]
async fn basic_credentials_are_tried_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("a", "b")]]);
    let content = fixture.clone();
    let server = Server::start(move |request| match request.header("authorization") {
        // me:secret
        Some("Basic bWU6c2VjcmV0") => content.answer(request),
        _ => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
    });
    let store = store(dir.path()).await;
    let name = format!("{}/a", server.address());
    let error = store.pull(pull(&name)).await.unwrap_err().to_string();
    assert!(error.contains("pull access denied, repository does not exist or may require authorization"), "{error}");
    assert!(error.contains("no basic auth credentials"), "{error}");
    let wrong = PullRequest { credentials: vec![user("me", "wrong")], ..pull(&name) };
    let error = store.pull(wrong).await.unwrap_err().to_string();
    assert!(error.contains("401 Unauthorized"), "{error}");
    let right = PullRequest { credentials: vec![user("me", "wrong"), user("me", "secret")], ..pull(&name) };
    assert_eq!(store.pull_as(right.clone()).await.unwrap().1, Some(user("me", "secret")));
    // What is here already is not had without the registry's word.
    assert_eq!(store.pull_as(right).await.unwrap().1, Some(user("me", "secret")));
    assert!(store.pull(pull(&name)).await.is_err());

    let open = Server::start(move |request| fixture.answer(request));
    let public = PullRequest { credentials: vec![user("me", "secret")], ..pull(&format!("{}/a", open.address())) };
    assert_eq!(store.pull_as(public).await.unwrap().1, None);
}

#[tokio::test]
async fn a_token_is_fetched_once_for_all_requests_and_again_when_it_runs_out() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("a", "b")], &[("c", "d")]]);
    let content = fixture.clone();
    let tokens = Arc::new(Mutex::new(0));
    let count = Arc::clone(&tokens);
    let server = Server::start(move |request| {
        let mut issued = count.lock().unwrap();
        if request.path.starts_with("/token") {
            assert!(request.path.contains("scope=repository:team/app:pull"), "{}", request.path);
            assert!(request.path.contains("service=the%20service"), "{}", request.path);
            *issued += 1;
            return Reply::json(&format!("{{\"token\":\"t{issued}\"}}"));
        }
        let expected = format!("Bearer t{issued}");
        // The first token is good for the manifest alone.
        let worn_out = *issued == 1 && request.path.contains("/blobs/");
        if *issued == 0 || worn_out || request.header("authorization") != Some(&expected) {
            let realm = format!("http://{}/token", request.header("host").unwrap());
            return Reply::status(401).header(
                "WWW-Authenticate",
                &format!("Bearer realm=\"{realm}\",service=\"the service\",scope=\"repository:team/app:pull\""),
            );
        }
        drop(issued);
        content.answer(request)
    });
    let store = store(dir.path()).await;
    store.pull(pull(&format!("{}/team/app", server.address()))).await.unwrap();
    assert_eq!(*tokens.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("a", "b")]]);
    let content = fixture.clone();
    let store_front = Server::start(move |request| {
        assert_eq!(request.header("authorization"), None);
        content.answer(request)
    });
    let (content, elsewhere) = (fixture.clone(), store_front.address());
    let server = Server::start(move |request| match request.header("authorization") {
        None => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Some(_) if request.path.contains("/blobs/") => {
            Reply::status(307).header("Location", &format!("http://{elsewhere}{}", request.path))
        }
        Some(_) => content.answer(request),
    });
    let store = store(dir.path()).await;
    let request = PullRequest { credentials: vec![user("me", "secret")], ..pull(&format!("{}/a", server.address())) };
    store.pull(request).await.unwrap();
    assert_eq!(store_front.requests().len(), 2);
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let noise = noise(200_000);
    let fixture = Fixture::new(&[&[("noise", &noise)]]);
    let content = fixture.clone();
    let server = Server::start(move |request| {
        let reply = content.answer(request);
        match reply.length() > 50_000 {
            true => reply.cut_after(40_000),
            false => reply,
        }
    });
    let store = store(dir.path()).await;
    let image = store.pull(pull(&format!("{}/a", server.address()))).await.unwrap();
    assert_eq!(fs::read_to_string(store.lower_dirs(&image)[0].join("noise")).unwrap(), noise);
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|request| request.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges[..2], ["bytes=40000-", "bytes=80000-"]);
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up_with_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let silent = Server::start(|_| Reply::hang());
    let error = store.pull(pull(&format!("{}/a", silent.address()))).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 0.7 s"), "{error}");
    let fixture = Fixture::new(&[&[("a", &"x".repeat(1000))]]);
    let content = fixture.clone();
    let stuck = Server::start(move |request| {
        let reply = content.answer(request);
        if request.path.contains("/blobs/") { reply.hang_after(100) } else { reply }
    });
    let error = store.pull(pull(&format!("{}/a", stuck.address()))).await.unwrap_err().to_string();
    assert!(error.contains("no answer within 0.7 s"), "{error}");
    is_empty(dir.path());
}

#[tokio::test]
async fn content_that_is_not_what_its_digest_says_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let fixture = Fixture::new(&[&[("a", "good")]]);
    for part in ["layer", "config", "manifest", "longer"] {
        let mut wrong = fixture.clone();
        wrong.spoil(part);
        let server = wrong.serve();
        let name = format!("{}/a@{}", server.address(), fixture.manifest_digest());
        let error = store.pull(pull(&name)).await.unwrap_err().to_string();
        assert!(error.contains("digest") || error.contains("larger than"), "{part}: {error}");
        is_empty(dir.path());
    }
}

#[tokio::test]
async fn a_huge_manifest_is_not_read_and_a_foreign_platform_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let endless = Server::start(|request| {
        if request.method == "HEAD" { Reply::status(200) } else { Reply::bytes("x", vec![b' '; 5 << 20]) }
    });
    let error = store.pull(pull(&format!("{}/a", endless.address()))).await.unwrap_err().to_string();
    assert!(error.contains("more than 4194304 bytes"), "{error}");
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"s390x"}}}}]}}"#,
        Digest::of(b"x")
    );
    let foreign =
        Server::start(move |_| Reply::bytes("application/vnd.oci.image.index.v1+json", index.clone().into_bytes()));
    let error = store.pull(pull(&format!("{}/a", foreign.address()))).await.unwrap_err().to_string();
    assert!(error.contains("no match for platform in manifest"), "{error}");
    assert!(error.contains("found linux/s390x"), "{error}");
}

#[tokio::test]
async fn of_a_multi_platform_image_this_machines_is_pulled() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("a", "mine")]]);
    let host = Platform::host();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [
        {"digest": Digest::of(b"foreign"), "size": 7, "platform": {"os": "linux", "architecture": "s390x"}},
        {"digest": fixture.manifest_digest(), "size": 1, "mediaType": "application/vnd.oci.image.manifest.v1+json",
         "platform": {"os": "linux", "architecture": host.architecture, "variant": host.variant}},
        {"digest": Digest::of(b"proof"), "size": 5, "platform": {"os": "unknown", "architecture": "unknown"}},
    ]})
    .to_string()
    .into_bytes();
    let digest = Digest::of(&index);
    let (content, of_index) = (fixture.clone(), digest.clone());
    let server = Server::start(move |request| {
        let selector = request.path.split('?').next().unwrap().rsplit('/').next().unwrap();
        match selector == "v1" || selector == of_index.as_str() {
            true => Reply::bytes(INDEX, index.clone()).header("Docker-Content-Digest", of_index.as_str()),
            false => content.answer(request),
        }
    });
    let store = store(dir.path()).await;
    let name = format!("{}/app:v1", server.address());
    let image = store.pull(pull(&name)).await.unwrap();
    assert_eq!(image.id, fixture.config_digest());
    // The pod's status tells the index, which is what was asked for on every machine.
    assert_eq!(image.image_id(), format!("{}/app@{digest}", server.address()));
    assert_eq!(fs::read_to_string(store.lower_dirs(&image)[0].join("a")).unwrap(), "mine");
    assert_eq!(store.pull(pull(&format!("{}/app@{digest}", server.address()))).await.unwrap().id, image.id);
}

#[tokio::test]
async fn of_a_layout_with_several_images_each_is_imported_under_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    let base: &[(&str, &str)] = &[("base", "shared")];
    let fixtures = [Fixture::new(&[base, &[("a", "1")]]), Fixture::new(&[base, &[("a", "2")]])];
    let mut manifests = Vec::new();
    for (fixture, name) in fixtures.iter().zip(["docker.io/library/one:v1", "docker.io/library/two:v1"]) {
        fixture.write_layout(&layout, name);
        let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
        manifests.extend(index["manifests"].as_array().unwrap().clone());
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    fs::write(layout.join("index.json"), index).unwrap();
    let store = store(dir.path()).await;
    let source = ImportSource::Path(layout);
    let error = store.import(source.clone(), Some("other".parse().unwrap())).await.unwrap_err().to_string();
    assert!(error.contains("it has 2 images, so that a name cannot be given to one"), "{error}");
    is_empty(dir.path());
    assert_eq!(store.import(source, None).await.unwrap().len(), 2);
    for (fixture, name) in fixtures.iter().zip(["one:v1", "two:v1"]) {
        assert_eq!(store.get(name).unwrap().id, fixture.config_digest());
    }
    assert_eq!(store.usage().layers, 3);
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_after_them() {
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::new(&[&[("a", "b")]]);
    let empty = Server::start(|_| Reply::status(404));
    let content = fixture.clone();
    let mirror = Server::start(move |request| {
        assert!(request.path.contains("ns=registry.example"), "{}", request.path);
        assert!(request.path.starts_with("/cache/v2/hub/app/"), "{}", request.path);
        content.answer(request)
    });
    let registries: Registries = serde_json::from_value(serde_json::json!({"mirrors": {"registry.example": {
        "endpoint": [format!("http://{}", empty.address()), format!("http://{}/cache", mirror.address())],
        "rewrite": {"team/": "hub/"},
    }}}))
    .unwrap();
    let store = open(dir.path(), registries).await;
    let image = store.pull(pull("registry.example/team/app:v1")).await.unwrap();
    assert_eq!(image.repo_tags, ["registry.example/team/app:v1"]);
    assert_eq!(empty.requests().len(), 1);
}

#[tokio::test]
async fn images_survive_reopening_and_what_was_not_finished_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let server = Fixture::new(&[&[("a", "b")]]).serve();
    let first = store(dir.path()).await;
    let image = first.pull(pull(&format!("{}/a", server.address()))).await.unwrap();
    let config = first.inner.config.clone();
    drop(first);
    fs::create_dir_all(dir.path().join("images/tmp/7/fs")).unwrap();
    fs::write(dir.path().join("images/tmp/index.json"), "{").unwrap();
    let second = ImageStore::open(config.clone()).await.unwrap();
    assert_eq!(second.list(), std::slice::from_ref(&image));
    nothing_temporary(dir.path());
    drop(second);
    fs::remove_dir_all(dir.path().join("images/layers").join(image.layers[0].diff_id.hex())).unwrap();
    let third = ImageStore::open(config.clone()).await.unwrap();
    assert_eq!(third.list(), []);
    drop(third);
    fs::write(dir.path().join("images/index.json"), r#"{"format":2}"#).unwrap();
    assert!(matches!(ImageStore::open(config).await, Err(Error::Format { found: 2, .. })));
}

#[tokio::test]
async fn removal_and_collection_spare_what_is_in_use_or_shared() {
    let dir = tempfile::tempdir().unwrap();
    let base: &[(&str, &str)] = &[("base", "shared")];
    let one = Fixture::new(&[base, &[("a", "1")]]).serve();
    let two = Fixture::new(&[base, &[("a", "2")]]).serve();
    let store = store(dir.path()).await;
    let first = store.pull(pull(&format!("{}/a", one.address()))).await.unwrap();
    let second = store.pull(pull(&format!("{}/b", two.address()))).await.unwrap();
    assert_eq!(store.usage().layers, 3);
    let in_use = BTreeSet::from([first.id.clone()]);
    assert!(matches!(store.remove(first.id.as_str(), &in_use).await, Err(Error::InUse { .. })));
    assert!(matches!(store.remove("nothing", &in_use).await, Err(Error::NotFound(_))));
    store.remove(&second.repo_tags[0], &in_use).await.unwrap();
    let collected = store.collect_garbage(&in_use, false).await.unwrap();
    assert_eq!(collected.layers, std::slice::from_ref(&second.layers[1].diff_id));
    assert!(store.layer_path(&first.layers[0].diff_id).join("base").exists());
    assert_eq!(store.collect_garbage(&in_use, true).await.unwrap(), Collected::default());
    let collected = store.collect_garbage(&BTreeSet::new(), true).await.unwrap();
    assert_eq!((collected.images.len(), collected.layers.len()), (1, 2));
    is_empty(dir.path());
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_leaves_nothing_half_done() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("Skipped: a small file system needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let small = SmallDisk::mount(dir.path());
    let noise = noise(4_000_000);
    let server = Fixture::new(&[&[("noise", &noise)]]).serve();
    let store = store(small.0).await;
    let error = store.pull(pull(&format!("{}/a", server.address()))).await.unwrap_err().to_string();
    assert!(error.contains("No space left on device"), "{error}");
    is_empty(small.0);
    drop(store);
}

struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Self {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("small"), path, Some("tmpfs"), flags, Some("size=1m")).unwrap();
        Self(path)
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        nix::mount::umount2(self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn layouts_and_archives_are_imported_plain_and_compressed() {
    let fixture = Fixture::new(&[&[("etc/passwd", "root:x:0:0::/:/\n")], &[("bin/app", "program")]]);
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    fixture.write_layout(&layout, "docker.io/library/app:v1");
    let oci = layer_of(&layout);
    let docker = fixture.docker_archive("app:v1");
    for (name, bytes) in [("oci.tar", oci.clone()), ("oci.tar.gz", gzip(&oci)), ("docker.tar", docker)] {
        fs::File::create(dir.path().join(name)).unwrap().write_all(&bytes).unwrap();
    }
    for name in ["layout", "oci.tar", "oci.tar.gz", "docker.tar"] {
        let root = tempfile::tempdir().unwrap();
        let store = store(root.path()).await;
        let extra: Reference = "registry.home/app:extra".parse().unwrap();
        let images = store.import(ImportSource::Path(dir.path().join(name)), Some(extra)).await.unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].id, fixture.config_digest(), "{name}");
        assert_eq!(images[0].repo_tags, ["docker.io/library/app:v1", "registry.home/app:extra"], "{name}");
        assert_eq!(fs::read_to_string(store.lower_dirs(&images[0])[0].join("bin/app")).unwrap(), "program");
        nothing_temporary(root.path());
    }
}

#[tokio::test]
async fn what_is_no_image_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path()).await;
    let file = dir.path().join("x.tar");
    let check = async |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let error = store.import(ImportSource::Path(file.clone()), None).await.unwrap_err().to_string();
        is_empty(dir.path());
        error
    };
    assert!(check(b"not a tar, but long enough to be one").await.contains("archive ends within a header"));
    assert!(check(b"").await.contains("neither a docker archive"));
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("manifest.json"), r#"[{"Config":"../../etc/passwd","Layers":[]}]"#).unwrap();
    assert!(check(&layer_of(source.path())).await.contains("path leaves its directory"));
    std::os::unix::fs::symlink("/etc/hostname", source.path().join("config")).unwrap();
    fs::write(source.path().join("manifest.json"), r#"[{"Config":"config","Layers":[]}]"#).unwrap();
    assert!(check(&layer_of(source.path())).await.contains("config: No such file"));
    let missing = store.import(ImportSource::Path(dir.path().join("nothing")), None).await.unwrap_err().to_string();
    assert!(missing.contains("No such file"), "{missing}");
}

#[tokio::test]
async fn a_root_file_system_becomes_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let files = tempfile::tempdir().unwrap();
    fs::write(files.path().join("hello"), "world").unwrap();
    let tar = dir.path().join("root.tar");
    fs::write(&tar, layer_of(files.path())).unwrap();
    let store = store(dir.path()).await;
    let mut config = ImageConfig::default();
    config.config.cmd = vec!["/hello".to_owned()];
    let image = store.import_rootfs(ImportSource::Path(tar), "mine".parse().unwrap(), config).await.unwrap();
    assert_eq!(image.repo_tags, ["docker.io/library/mine:latest"]);
    assert_eq!(image.image_id(), image.id.to_string());
    assert_eq!(image.config.os, "linux");
    assert_eq!(fs::read_to_string(store.lower_dirs(&image)[0].join("hello")).unwrap(), "world");
}

#[test]
fn a_request_header_is_found_whatever_its_case() {
    let request = Request::parse("GET / HTTP/1.1\r\nHoST: x\r\n\r\n");
    assert_eq!(request.header("host"), Some("x"));
}
