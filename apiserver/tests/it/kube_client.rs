//! `kube` over the server without a socket.

use futures::TryStreamExt as _;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    Api, Client,
    api::{
        ApiResource, DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    core::GroupVersionKind,
    runtime::{reflector, watcher},
};
use serde_json::{Value, json};

use crate::{
    definitions::{establish, foos, open},
    harness::Cluster,
};

#[tokio::test]
async fn kube_reads_writes_and_follows() {
    let c = Cluster::start().await;
    let client = Client::new(c.service(), "default");
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut map = ConfigMap::default();
    map.metadata.name = Some("x".to_owned());
    let created = maps.create(&PostParams::default(), &map).await.unwrap();
    assert!(created.metadata.uid.is_some());
    let patch = serde_json::json!({"data": {"a": "b"}});
    maps.patch("x", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 2);

    let (reader, writer) = reflector::store();
    let follow = reflector(writer, watcher(maps.clone(), watcher::Config::default()));
    futures::pin_mut!(follow);
    while reader.len() < 2 {
        follow.try_next().await.unwrap();
    }
    maps.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("x").await.unwrap().is_none());
    c.stop().await;
}

fn deployment(name: &str) -> Deployment {
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}}});
    serde_json::from_value(deployment).unwrap()
}

fn replicas(deployment: &Deployment) -> Option<i32> {
    deployment.spec.as_ref().and_then(|spec| spec.replicas)
}

#[tokio::test]
async fn kube_drives_every_verb() {
    let c = Cluster::start().await;
    let api: Api<Deployment> = Api::default_namespaced(Client::new(c.service(), "default"));
    let (post, apply) = (PostParams::default(), PatchParams::apply("tests"));
    let made = api.create(&post, &deployment("a")).await.unwrap();
    assert_eq!(api.get("a").await.unwrap(), made);
    let twice = api.create(&post, &deployment("a")).await.unwrap_err();
    assert!(matches!(twice, kube::Error::Api(status) if status.is_already_exists()));

    let mut changed = made.clone();
    changed.spec.as_mut().unwrap().replicas = Some(3);
    let changed = api.replace("a", &post, &changed).await.unwrap();
    assert_eq!((replicas(&changed), changed.metadata.generation), (Some(3), Some(2)));
    let stale = api.replace("a", &post, &made).await.unwrap_err();
    assert!(matches!(stale, kube::Error::Api(status) if status.is_conflict()));

    let merge = Patch::Merge(json!({"spec": {"replicas": 4}}));
    assert_eq!(replicas(&api.patch("a", &PatchParams::default(), &merge).await.unwrap()), Some(4));
    let strategic = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [
        {"name": "side", "image": "busybox"}]}}}}));
    let patched = api.patch("a", &PatchParams::default(), &strategic).await.unwrap();
    let containers = patched.spec.unwrap().template.spec.unwrap().containers;
    assert_eq!(containers.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["side", "c"]);
    let applied = Patch::Apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 9}}));
    let conflict = api.patch("a", &apply, &applied).await.unwrap_err();
    assert!(matches!(conflict, kube::Error::Api(status) if status.is_conflict()));
    assert_eq!(replicas(&api.patch("a", &apply.clone().force(), &applied).await.unwrap()), Some(9));
    let labels = Patch::Merge(json!({"metadata": {"labels": {"größe": null, "size": "l"}}}));
    let outline = api.patch_metadata("a", &PatchParams::default(), &labels).await.unwrap();
    assert_eq!(outline.metadata.labels.unwrap()["size"], "l");

    assert_eq!(api.get_scale("a").await.unwrap().spec.unwrap().replicas, Some(9));
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    assert_eq!(api.patch_scale("a", &PatchParams::default(), &scale).await.unwrap().spec.unwrap().replicas, Some(5));
    let mut scale = api.get_scale("a").await.unwrap();
    scale.spec.as_mut().unwrap().replicas = Some(6);
    assert_eq!(api.replace_scale("a", &post, &scale).await.unwrap().spec.unwrap().replicas, Some(6));
    let status = Patch::Merge(json!({"status": {"replicas": 6, "readyReplicas": 1}, "spec": {"replicas": 1}}));
    let mut seen = api.patch_status("a", &PatchParams::default(), &status).await.unwrap();
    assert_eq!((replicas(&seen), seen.status.as_ref().unwrap().ready_replicas), (Some(6), Some(1)));
    seen.status.as_mut().unwrap().ready_replicas = Some(2);
    assert_eq!(api.replace_status("a", &post, &seen).await.unwrap().status.unwrap().ready_replicas, Some(2));
    assert_eq!(api.get_status("a").await.unwrap().status.unwrap().ready_replicas, Some(2));

    let before = api.list(&ListParams::default()).await.unwrap();
    let version = before.metadata.resource_version.unwrap();
    assert_eq!(before.items.len(), 1);
    api.create(&post, &deployment("b")).await.unwrap();
    let page = api.list_metadata(&ListParams::default().limit(1)).await.unwrap();
    assert_eq!((page.items.len(), page.metadata.remaining_item_count), (1, Some(1)));
    api.delete("b", &DeleteParams::foreground().dry_run()).await.unwrap();
    api.delete("b", &DeleteParams::background()).await.unwrap();
    assert!(api.get_metadata_opt("b").await.unwrap().is_none());
    let events = api.watch(&WatchParams::default().timeout(5), &version).await.unwrap();
    futures::pin_mut!(events);
    for expected in ["added", "deleted"] {
        let told = match events.try_next().await.unwrap().unwrap() {
            WatchEvent::Added(object) => ("added", object.metadata.name),
            WatchEvent::Deleted(object) => ("deleted", object.metadata.name),
            other => panic!("{other:?}"),
        };
        assert_eq!(told, (expected, Some("b".to_owned())));
    }
    let gone =
        api.delete_collection(&DeleteParams::background(), &ListParams::default().labels("app=web")).await.unwrap();
    assert_eq!(gone.left().unwrap().items.len(), 1);
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    c.stop().await;
}

#[tokio::test]
async fn kube_finds_and_drives_kinds_it_has_no_type_for() {
    let c = Cluster::start().await;
    let client = Client::new(c.service(), "default");
    establish(&c, &foos(&open())).await;
    let groups = client.list_api_groups().await.unwrap();
    assert!(groups.groups.iter().any(|group| group.name == "example.com"));
    let resources = client.list_api_group_resources("example.com/v1").await.unwrap();
    assert_eq!(resources.resources[0].kind, "Foo");
    assert!(!client.apiserver_version().await.unwrap().git_version.is_empty());
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Foo"));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &kind);
    let foo = DynamicObject::new("f", &kind).data(json!({"spec": {"größe": "名前"}}));
    let applied = api.patch("f", &PatchParams::apply("tests"), &Patch::Apply(&foo)).await.unwrap();
    assert_eq!(applied.data["spec"], json!({"größe": "名前"}));
    let merge = Patch::Merge(json!({"spec": {"größe": "\u{1f980}"}}));
    assert_eq!(api.patch("f", &PatchParams::default(), &merge).await.unwrap().data["spec"]["größe"], "\u{1f980}");
    assert!(api.delete("f", &DeleteParams::default()).await.unwrap().is_right());

    let pods: Api<Pod> = Api::default_namespaced(client);
    let pod: Value = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let evicted = pods.evict("p", &EvictParams::default()).await.unwrap();
    assert_eq!(evicted.code, 201);
    c.stop().await;
}
