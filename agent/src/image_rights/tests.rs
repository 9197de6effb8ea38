//! One store's rights, as one node sees them and as several do.

use coracle_runtime::image::{ImageConfig, ImportSource, Limits, Registries, StoreConfig, Timeouts};

use super::*;

fn user(name: &str) -> Credential {
    Credential { username: name.to_owned(), password: "p".to_owned() }
}

/// The store in a folder, as one process opens it.
async fn store(folder: &Path) -> ImageStore {
    let config = StoreConfig {
        root: folder.join("images"),
        registries: Registries::default(),
        timeouts: Timeouts::default(),
        limits: Limits::default(),
    };
    ImageStore::open(config).await.unwrap()
}

async fn open(folder: &Path) -> Arc<ImageRights> {
    ImageRights::open(store(folder).await, None).unwrap()
}

/// Puts an image of this name, unlike others, into the store; answers its id.
async fn put(images: &ImageStore, folder: &Path, name: &str) -> String {
    let archive = folder.join("rootfs.tar");
    let mut tar = tar::Builder::new(fs::File::create(&archive).unwrap());
    let mut header = tar::Header::new_gnu();
    header.set_size(name.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "name", name.as_bytes()).unwrap();
    tar.finish().unwrap();
    let source = ImportSource::Path(archive);
    images.import_rootfs(source, name.parse().unwrap(), ImageConfig::default()).await.unwrap().id.to_string()
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

/// Leaves a pull as a process that is killed does.
fn kill(mut pull: Pull) {
    pull.ended = true;
}

#[tokio::test]
async fn an_image_is_for_who_shows_what_it_was_pulled_with() {
    let folder = tempfile::tempdir().unwrap();
    let rights = open(folder.path()).await;
    let (one, other) = (name("r.test/a/b:1"), name("r.test/a/c:1"));
    assert!(rights.may(&one, "id", &[]), "what was not pulled here is anybody's");
    rights.begin(&one).unwrap().done("id", Some(&user("me"))).unwrap();
    // Who pulled it, another node with the same store, and the next agent.
    for rights in [rights, open(folder.path()).await] {
        assert!(rights.may(&one, "id", &[user("you"), user("me")]));
        assert!(rights.may(&name("r.test/a/b:2"), "id", &[user("me")]), "tags are no borders");
        assert!(!rights.may(&one, "id", &[]) && !rights.may(&one, "id", &[user("you")]));
        assert!(!rights.may(&other, "id", &[user("me")]), "another repository is");
    }
    let (here, there) = (open(folder.path()).await, open(folder.path()).await);
    here.begin(&one).unwrap().done("id", None).unwrap();
    assert!(here.may(&one, "id", &[]) && there.may(&one, "id", &[]));
    let text = fs::read_to_string(&here.file).unwrap();
    assert!(!text.contains("\"me\""), "{text}");
}

#[tokio::test]
async fn what_an_agent_was_pulling_when_it_was_killed_is_not_anybodys() {
    let folder = tempfile::tempdir().unwrap();
    let rights = open(folder.path()).await;
    let (here, failed) = (name("r.test/here:1"), name("r.test/failed:1"));
    drop(rights.begin(&failed).unwrap());
    assert!(rights.may(&failed, "id", &[]), "a pull that failed has brought nothing");
    let (first, second) = (rights.begin(&here).unwrap(), rights.begin(&here).unwrap());
    drop(first);
    assert!(!rights.may(&here, "id", &[]));
    let id = put(&rights.images, folder.path(), "r.test/here:1").await;
    kill(second);
    kill(rights.begin(&failed).unwrap());
    drop(rights);
    let next = open(folder.path()).await;
    assert!(!next.may(&here, &id, &[]) && next.may(&failed, "id", &[]));
    next.begin(&here).unwrap().done(&id, None).unwrap();
    assert!(next.may(&here, &id, &[]));
    assert_eq!(next.kept().unwrap().pulling, BTreeSet::new());
}

#[tokio::test]
async fn of_nodes_that_share_a_store_each_knows_what_another_pulls_for_as_long_as_that_one_lives() {
    let folder = tempfile::tempdir().unwrap();
    let (here, there) = (open(folder.path()).await, open(folder.path()).await);
    let one = name("r.test/a:1");
    let pull = there.begin(&one).unwrap();
    // Its image comes, and before it is noted whose it is, a node starts and another pull ends.
    let id = put(&here.images, folder.path(), "r.test/a:1").await;
    let third = open(folder.path()).await;
    drop(here.begin(&one).unwrap());
    for rights in [&here, &there, &third] {
        assert!(!rights.may(&one, &id, &[]));
    }
    pull.done(&id, Some(&user("me"))).unwrap();
    for rights in [&here, &there, &third] {
        assert!(!rights.may(&one, &id, &[]) && rights.may(&one, &id, &[user("me")]));
    }

    // A node that is killed in the middle and never comes back leaves nothing that others would stumble over.
    let (came, absent) = (name("r.test/came:1"), name("r.test/absent:1"));
    kill(there.begin(&came).unwrap());
    kill(there.begin(&absent).unwrap());
    drop(there);
    let came_id = put(&here.images, folder.path(), "r.test/came:1").await;
    drop(here.begin(&one).unwrap());
    let imported = put(&here.images, folder.path(), "r.test/absent:1").await;
    for rights in [&here, &third] {
        assert!(!rights.may(&came, &came_id, &[]) && rights.may(&absent, &imported, &[]));
    }
    assert_eq!(here.kept().unwrap().under_way, BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notes_of_several_nodes_at_once_are_all_kept() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [open(folder.path()).await, open(folder.path()).await];
    std::thread::scope(|scope| {
        for (number, rights) in nodes.iter().enumerate() {
            scope.spawn(move || {
                for round in 0..10 {
                    let one = name(&format!("r.test/{number}:{round}"));
                    let whose = user(&format!("{number}-{round}"));
                    rights.begin(&one).unwrap().done("id", Some(&whose)).unwrap();
                }
            });
        }
    });
    let kept = nodes[0].kept().unwrap();
    assert_eq!(kept.pulled["id"].values().map(|allowed| allowed.with.len()).collect::<Vec<_>>(), [10, 10]);
    assert_eq!(kept.under_way, BTreeMap::new());
}

#[tokio::test]
async fn images_that_are_gone_are_forgotten_and_a_broken_file_gives_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rights = open(folder.path()).await;
    let one = name("r.test/a:1");
    rights.begin(&one).unwrap().done("old", Some(&user("me"))).unwrap();
    for number in 0..=MOST {
        rights.begin(&one).unwrap().done("new", Some(&user(&number.to_string()))).unwrap();
    }
    let kept = rights.kept().unwrap();
    assert_eq!(kept.pulled.keys().collect::<Vec<_>>(), ["new"]);
    assert_eq!(kept.pulled["new"]["r.test/a"].with.len(), MOST);
    fs::write(&rights.file, "{").unwrap();
    assert!(!rights.may(&one, "another", &[]), "nothing is anybody's of which nothing can be known");
    assert!(rights.begin(&one).is_err());
    assert!(ImageRights::open(store(folder.path()).await, None).is_err());
}

#[tokio::test]
async fn what_an_earlier_version_kept_beside_its_data_is_taken_over_once() {
    let folder = tempfile::tempdir().unwrap();
    let former = folder.path().join("image-rights.json");
    let (one, here) = (name("r.test/a:1"), name("r.test/here:1"));
    let known = serde_json::json!({
        "salt": "00", "pulling": ["r.test/here:1"],
        "pulled": {"id": {"r.test/a": {"everybody": false, "with": [trace("00", &user("me"))]}}},
    });
    fs::write(&former, known.to_string()).unwrap();
    let images = store(folder.path()).await;
    let id = put(&images, folder.path(), "r.test/here:1").await;
    let rights = ImageRights::open(images.clone(), Some(&former)).unwrap();
    assert!(rights.may(&one, "id", &[user("me")]) && !rights.may(&one, "id", &[]));
    assert!(!rights.may(&here, &id, &[]));
    fs::write(&former, "not read again").unwrap();
    let rights = ImageRights::open(images, Some(&former)).unwrap();
    assert!(rights.may(&one, "id", &[user("me")]));
}
