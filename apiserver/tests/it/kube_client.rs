//! `kube` over the server without a socket.

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{reflector, watcher},
};

use crate::harness::Cluster;

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
