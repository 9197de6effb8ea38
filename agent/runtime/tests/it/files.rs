//! The root, mounts, devices, and what links in an image can and cannot do.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use coracle_runtime::{ContainerSpec, Error, Mount, MountKind, User};

use crate::world::World;

fn tmpfs(destination: &str) -> Mount {
    Mount { kind: MountKind::Tmpfs { size: Some(1 << 20), mode: None }, ..Mount::bind("/", destination) }
}

#[tokio::test]
async fn layers_lie_over_one_another_and_writes_stay_in_the_container() {
    let world = World::new().await;
    let over = world.path("over");
    fs::create_dir_all(over.join("etc")).unwrap();
    fs::write(over.join("etc/word"), "over").unwrap();
    fs::write(world.layer().join("etc/word"), "under").unwrap();
    let text = world
        .say("cat /etc/word; echo new > /etc/word; cat /etc/word; rm /etc/passwd", |spec| {
            spec.layers.insert(0, over.clone());
        })
        .await;
    assert_eq!(text, "overnew\n");
    assert_eq!(fs::read_to_string(over.join("etc/word")).unwrap(), "over");
    assert!(world.layer().join("etc/passwd").exists());
}

#[tokio::test]
async fn a_hundred_layers_are_mounted() {
    let world = World::new().await;
    let layers: Vec<PathBuf> = (0..100).map(|place| world.path(&format!("layers/{place}"))).collect();
    for (place, layer) in layers.iter().enumerate() {
        fs::create_dir_all(layer).unwrap();
        fs::write(layer.join(format!("file-{place}")), "").unwrap();
    }
    let text = world.say("ls / | grep -c file-", |spec| spec.layers.extend(layers)).await;
    assert_eq!(text, "100\n");
}

#[tokio::test]
async fn a_read_only_root_takes_no_writes_and_its_mounts_do() {
    let world = World::new().await;
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    let text = world
        .say("touch /x 2>&1; touch /data/y && echo written; touch /ro/z 2>&1; touch /mem/m && echo memory", |spec| {
            spec.readonly_rootfs = true;
            spec.mounts = vec![Mount::bind(&data, "/data"), Mount::bind(&data, "/ro").readonly(), tmpfs("/mem")];
        })
        .await;
    assert_eq!(text, "touch: /x: Read-only file system\nwritten\ntouch: /ro/z: Read-only file system\nmemory\n");
    assert!(data.join("y").exists() && !data.join("z").exists());
}

#[tokio::test]
async fn files_are_mounted_on_places_that_were_not_there() {
    let world = World::new().await;
    let hosts = world.path("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let text = world
        .say("cat /etc/hosts; echo done > /dev/termination-log; cat /a/b/c", |spec| {
            spec.mounts = vec![
                Mount::bind(&hosts, "/etc/hosts").readonly(),
                Mount::bind(&hosts, "/dev/termination-log"),
                Mount::bind(&hosts, "/a/b/c"),
            ];
        })
        .await;
    assert_eq!(text, "127.0.0.1 localhost\ndone\n");
    assert_eq!(fs::read_to_string(&hosts).unwrap(), "done\n");
}

#[tokio::test]
async fn an_image_volume_shows_its_layers_read_only() {
    let world = World::new().await;
    for (name, word) in [("v1", "one"), ("v2", "two")] {
        fs::create_dir_all(world.path(name).join("sub")).unwrap();
        fs::write(world.path(name).join("sub").join(word), word).unwrap();
    }
    let volume = |layers: &[&str], at: &str| Mount {
        kind: MountKind::Layers {
            layers: layers.iter().map(|name| world.path(name)).collect(),
            sub_path: Some("sub".into()),
        },
        ..Mount::bind("/", at)
    };
    let mounts = vec![volume(&["v1", "v2"], "/both"), volume(&["v1"], "/one")];
    let text = world.say("ls /both /one; touch /both/x 2>&1; touch /one/x 2>&1", |spec| spec.mounts = mounts).await;
    let refused = |path: &str| format!("touch: {path}: Read-only file system\n");
    assert_eq!(text, format!("/both:\none\ntwo\n\n/one:\none\n{}{}", refused("/both/x"), refused("/one/x")));
}

#[tokio::test]
async fn links_in_an_image_lead_nowhere_outside_it() {
    let world = World::new().await;
    let (secret, data) = (world.path("secret"), world.path("data"));
    fs::create_dir(&secret).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("payload"), "x").unwrap();
    let up = "../".repeat(20);
    symlink(format!("{up}{}", secret.display()), world.layer().join("up")).unwrap();
    symlink(&secret, world.layer().join("absolute")).unwrap();
    symlink("/proc/self/fd/3", world.layer().join("descriptor")).unwrap();
    symlink("/proc/1/root", world.layer().join("root-of-1")).unwrap();
    fs::create_dir_all(world.layer().join(secret.strip_prefix("/").unwrap())).unwrap();
    // Each is mounted inside the root or refused; the host's directory stays as it was.
    let sandbox = world.sandbox("links").await;
    for (place, destination) in
        ["/up/a", "/absolute/a", "/descriptor/a", "/root-of-1/a", "/../../../a"].iter().enumerate()
    {
        let mut spec = world.shell(&format!("c{place}"), &format!("cat {destination}/payload"));
        spec.mounts = vec![Mount::bind(&data, *destination)];
        match sandbox.start_container(&spec).await {
            Ok(status) => assert_eq!(sandbox.wait(&status.id).await.unwrap().code, 0, "{destination}"),
            Err(Error::Start(error)) => assert_eq!(error.step, "mount", "{error}"),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 0, "{destination} reached the host");
    }
}

#[tokio::test]
async fn an_image_with_a_link_for_proc_or_a_working_directory_of_descriptors_is_refused() {
    let world = World::new().await;
    let layer = |name: &str, at: &str, target: &str| {
        let layer = world.path(name);
        fs::create_dir(&layer).unwrap();
        symlink(target, layer.join(at)).unwrap();
        layer
    };
    let sandbox = world.sandbox("proc").await;
    let mut spec = world.shell("proc", "true");
    spec.layers.insert(0, layer("evil-proc", "proc", "/tmp"));
    assert!(matches!(sandbox.start_container(&spec).await, Err(Error::Start(error)) if error.step == "mount"));

    for descriptor in 3..12 {
        let mut spec = world.shell(&format!("cwd{descriptor}"), "pwd");
        spec.cwd = format!("/proc/self/fd/{descriptor}");
        let Err(Error::Start(error)) = sandbox.start_container(&spec).await else { panic!("entered {}", spec.cwd) };
        assert_eq!(error.step, "cwd");
    }
}

#[tokio::test]
async fn the_kernels_tables_are_masked_and_devices_are_the_few() {
    let world = World::new().await;
    let line = "cat /proc/interrupts /proc/timer_list 2> /dev/null | wc -c; ls /sys/firmware 2> /dev/null | wc -l; \
                echo x > /proc/sys/kernel/domainname; mkdir /sys/fs/cgroup/memory/x; ls /dev; echo ok > /dev/null; \
                readlink /dev/fd; readlink /dev/ptmx; stat -c %a /dev/shm";
    let text = world.say(&format!("exec 2>&1; {line}"), |_| {}).await;
    let expected = "0\n0\n/bin/sh: can't create /proc/sys/kernel/domainname: Read-only file system\n\
                    mkdir: can't create directory '/sys/fs/cgroup/memory/x': Read-only file system\n\
                    fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
                    /proc/self/fd\npts/ptmx\n1777\n";
    assert_eq!(text, expected);
}

#[tokio::test]
async fn users_groups_directories_and_environment_are_as_asked() {
    let world = World::new().await;
    let line = "id; pwd; echo $HOME $PATH $A; cat /proc/self/oom_score_adj";
    let text = world
        .say(line, |spec: &mut ContainerSpec| {
            spec.user = User::Name("app".into());
            spec.additional_gids = vec![4242];
            spec.cwd = "/new/place".into();
            spec.env = vec![("A".into(), "1".into()), ("A".into(), "2".into())];
            spec.oom_score_adj = Some(777);
        })
        .await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        text,
        format!("uid=1000(app) gid=1001(app) groups=10(wheel),1001(app),4242\n/new/place\n/home/app {path} 2\n777\n")
    );
}

#[tokio::test]
async fn standard_output_can_be_opened_by_a_user_who_is_not_root() {
    let world = World::new().await;
    let text = world
        .say("echo word > /dev/stdout; echo more > /dev/fd/1", |spec| spec.user = User::Ids { uid: 5, gid: Some(5) })
        .await;
    assert_eq!(text, "word\nmore\n");
}
