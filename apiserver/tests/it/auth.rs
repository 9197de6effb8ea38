//! Identity and permission over TLS.

use coracle_apiserver::{config::Config, pki::Profile, server::ApiServer};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio_util::sync::CancellationToken;

async fn client(kubeconfig: &str) -> Client {
    let parsed = Kubeconfig::from_yaml(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// The code of a GET, and the message of its refusal.
async fn get(client: &Client, path: &str) -> (u16, String) {
    match client.request_text(http::Request::get(path).body(Vec::new()).unwrap()).await {
        Ok(_) => (200, String::new()),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Invariant 6: no one without a valid credential reads or changes anything.
#[tokio::test]
async fn certificates_decide_over_the_socket_who_may_what() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hour = std::time::Duration::from_secs(3600);
    let open = |dir: &tempfile::TempDir| {
        let config = Config::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        ApiServer::open(Config { certificate_lifetime: hour, ..config })
    };
    let (server, runner) = open(&dir).await.unwrap();
    let (stranger, _) = open(&other).await.unwrap();
    let shutdown = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(runner.run(shutdown.clone()));
    server.ready().await;
    let url = format!("https://{}", server.address());
    let authority = server.pki().authority().pem().to_owned();
    let shows = |identity| client_text(&url, &authority, &identity);
    let now = jiff::Timestamp::now();
    let day = jiff::SignedDuration::from_hours(24);
    let alice = Profile::client("alice", None);
    let pods = "/api/v1/namespaces/default/pods";
    let admin = client(&std::fs::read_to_string(server.pki().admin_kubeconfig()).unwrap()).await;
    assert_eq!(get(&admin, pods).await, (200, String::new()));
    let known = client(&shows(server.pki().issue(&alice, now).unwrap())).await;
    assert_eq!(
        get(&known, pods).await,
        (403, "pods is forbidden: User \"alice\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"".to_owned())
    );
    assert_eq!(get(&known, "/api").await.0, 200);
    let expired = client(&shows(server.pki().issue(&alice, now - day).unwrap())).await;
    let forged =
        client(&shows(stranger.pki().issue(&Profile::client("a", Some("system:masters")), now).unwrap())).await;
    for wrong in [&expired, &forged] {
        assert_eq!(get(wrong, pods).await, (401, "Unauthorized".to_owned()));
    }
    shutdown.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
}

fn client_text(url: &str, authority: &str, identity: &coracle_apiserver::pki::Identity) -> String {
    coracle_apiserver::pki::kubeconfig(url, authority, "user", identity)
}
