//! What a client says of a sandbox as a whole: its users, and its limits.

use std::os::unix::fs::MetadataExt;

use super::{Cri, INVALID, NOT_FOUND, PRECONDITION, code, container, linux, text};
use crate::deaths::with_node;
use crate::grpc::{
    Empty, IdMapping, Limits, Mount, Namespaces, SandboxConfig, SandboxLinux, SandboxSecurity, Security, UpdateSandbox,
    Users,
};
use crate::resources::limits;

fn users(host: u32, length: u32) -> Users {
    let mapping = vec![IdMapping { host, container: 0, length }];
    Users { mode: 0, uids: mapping.clone(), gids: mapping }
}

/// As kubelet makes a pod with `hostUsers: false`: it chooses the numbers, and says them of the sandbox, of each container
/// and of each mount.
#[test]
fn a_sandbox_has_the_users_its_client_gives_it() {
    with_node("cri10", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let own = users(300_000, 65_536);
        let with = |name: &str, network: i32, users: &Users| {
            let namespaces = Some(Namespaces { network, pid: 1, users: Some(users.clone()) });
            let linux = SandboxLinux { security: Some(SandboxSecurity { namespaces }), ..SandboxLinux::default() };
            SandboxConfig { linux: Some(linux), ..cri.sandbox(name) }
        };
        for wrong in [
            with("bad", 2, &own),
            with("bad", 0, &users(300_000, 0)),
            with("bad", 0, &Users { gids: vec![], ..own.clone() }),
        ] {
            assert_eq!(code(cri.run(wrong).await), INVALID);
        }
        let sandbox = cri.run(with("mapped", 0, &own)).await.unwrap();
        let data = node.path("data-of-mapped");
        std::fs::create_dir(&data).unwrap();
        let mount = |users: &Users| Mount {
            container_path: "/data".into(),
            host_path: data.display().to_string(),
            uids: users.uids.clone(),
            gids: users.gids.clone(),
            ..Mount::default()
        };
        let asks = |users: &Users| {
            let namespaces = Some(Namespaces { network: 0, pid: 1, users: Some(users.clone()) });
            linux(Security { namespaces, ..Security::default() })
        };
        let mut config = container("app", &["sh", "-c", "echo x > /data/made; exec sleep 1000"]);
        (config.mounts, config.linux) = (vec![mount(&users(400_000, 65_536))], asks(&own));
        assert_eq!(code(cri.create(&sandbox, config.clone()).await), INVALID);
        (config.mounts, config.linux) = (vec![mount(&own)], asks(&users(400_000, 65_536)));
        assert_eq!(code(cri.create(&sandbox, config.clone()).await), INVALID);
        config.linux = asks(&own);
        let id = cri.create(&sandbox, config).await.unwrap();
        cri.start(&id).await.unwrap();
        let look =
            "cat /proc/self/uid_map /proc/self/gid_map; until test -e /data/made; do :; done; stat -c %u:%g /data/made";
        let (code, seen, said) = cri.exec(&id, &["busybox", "sh", "-c", look], 20).await.unwrap();
        let seen: Vec<&str> = seen.split_whitespace().collect();
        let map = ["0", "300000", "65536"];
        assert_eq!((code, &seen[..6], &seen[6..]), (0, &[map, map].concat()[..], &["0:0"][..]), "{said}");
        // What it made belongs to whom it belongs there: who has the volume next finds it so.
        let made = std::fs::metadata(data.join("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (0, 0));
        let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        node.kill();
    });
}

#[test]
fn a_sandbox_as_a_whole_is_limited_and_limited_anew() {
    with_node("cri11", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let megabytes = |count: i64| Limits { cpu_shares: 0, memory: count << 20 };
        let parent = "coracle-test-cri11/theirs";
        let of = SandboxLinux {
            cgroup_parent: format!("/{parent}"),
            resources: Some(megabytes(64)),
            ..SandboxLinux::default()
        };
        let sandbox = cri.run(SandboxConfig { linux: Some(of), ..cri.sandbox("whole") }).await.unwrap();
        let folder = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(|root| std::path::Path::new(root).join(parent));
        let folder = folder.into_iter().find(|path| path.exists()).unwrap();
        let pod = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let pod = pod.filter(|name| name.starts_with("pod")).collect::<Vec<_>>();
        let [pod] = &pod[..] else { panic!("{pod:?}") };
        let limit = || limits(&format!("{parent}/{pod}")).0;
        assert_eq!(limit(), (64 << 20).to_string());
        let update = |id: &str, resources| UpdateSandbox { id: id.to_owned(), overhead: Some(megabytes(8)), resources };
        let request = update(&sandbox, Some(megabytes(96)));
        let _: Empty = cri.ask("UpdatePodSandboxResources", &request).await.unwrap();
        assert_eq!(limit(), (104 << 20).to_string());
        // Nothing is changed that is not said.
        let _: Empty = cri.ask("UpdatePodSandboxResources", &update(&sandbox, None)).await.unwrap();
        assert_eq!(limit(), (104 << 20).to_string());
        let missing = cri.ask::<Empty>("UpdatePodSandboxResources", &update("0123", None)).await;
        assert_eq!(code(missing), NOT_FOUND);
        let _: Empty = cri.ask("StopPodSandbox", &text(&sandbox)).await.unwrap();
        let over = cri.ask::<Empty>("UpdatePodSandboxResources", &update(&sandbox, None)).await;
        assert_eq!(code(over), PRECONDITION);
        let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        node.kill();
    });
}
