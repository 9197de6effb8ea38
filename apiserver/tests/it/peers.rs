//! Strangers, and members gone wrong, at the port where members of the store speak to each other.

use std::{sync::Arc, time::Duration};

use coracle_apiserver::pki::{Profile, Usage};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::Cluster;

const GROUP: &str = "system:coracle:members";

fn member(cluster: &str, id: u64) -> Profile {
    Profile {
        name: format!("coracle:{cluster}:{id:016x}"),
        group: Some(GROUP.to_owned()),
        alt_names: Vec::new(),
        usage: Usage::Member,
    }
}

/// A connection in the members' protocol of somebody with this certificate, or none.
async fn connect(c: &Cluster, profile: Option<&Profile>) -> TlsStream<TcpStream> {
    connect_as(c, profile, b"coracle-peer/1").await
}

async fn connect_as(c: &Cluster, profile: Option<&Profile>, protocol: &[u8]) -> TlsStream<TcpStream> {
    let store = c.server.registry().store();
    let name = format!("{:016x}.{}.members.coracle", store.cluster().own.0, hex::encode(store.cluster_id()));
    let mut roots = rustls::RootCertStore::empty();
    let authority = c.server.pki().authority().pem().as_bytes().to_vec();
    roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&authority).map(Result::unwrap));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots);
    let mut config = match profile {
        None => config.with_no_client_auth(),
        Some(profile) => {
            let identity = c.server.pki().issue(profile, jiff::Timestamp::now()).unwrap();
            config.with_client_auth_cert(identity.chain().to_vec(), identity.key().clone_key()).unwrap()
        }
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    let socket = TcpStream::connect(c.server.address()).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}

/// Says something; the server must end the connection, and not say anything.
async fn is_cut_off(mut stream: TlsStream<TcpStream>, said: &[u8]) {
    // It may be gone before all is said.
    let _ = stream.write_all(said).await;
    let _ = stream.flush().await;
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard).await;
    assert!(heard.is_empty(), "{heard:?}");
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

#[tokio::test]
async fn who_is_no_member_is_cut_off() {
    let c = Cluster::start().await;
    let own = hex::encode(c.server.registry().store().cluster_id());
    let hello = frame(br#"{"addresses": []}"#);
    is_cut_off(connect(&c, None).await, &hello).await;
    for profile in [
        Profile::node_client("attic"),
        Profile::client("root", Some("system:masters")),
        // The right name without the group, and the group with another cluster's name, or none.
        Profile { group: None, ..member(&own, 7) },
        member(&"0".repeat(32), 7),
        Profile { name: "coracle".to_owned(), ..member(&own, 7) },
        Profile { usage: Usage::Server, ..member(&own, 7) },
    ] {
        is_cut_off(connect(&c, Some(&profile)).await, &hello).await;
    }
    assert_eq!(c.get("/readyz").await.code, 200);
}

#[tokio::test]
async fn what_no_member_says_ends_its_connection_and_nothing_else() {
    let c = Cluster::start().await;
    let own = hex::encode(c.server.registry().store().cluster_id());
    let hello = frame(br#"{"addresses": ["192.0.2.7:6443"]}"#);
    let after_hello = |bytes: &[u8]| [&hello[..], bytes].concat();
    for said in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        frame(b"{"),
        frame(&vec![b' '; 9 << 10]),
        after_hello(&[0xff; 4]),
        after_hello(&frame(b"\x01\x63nothing")),
        after_hello(&frame(&[0; 100])),
        after_hello(&frame(&[1, 1])),
    ] {
        is_cut_off(connect(&c, Some(&member(&own, 7))).await, &said).await;
    }
    let made = c.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "well"}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
}

/// What a server may say, and a witness may not: that it did not propose a write.
#[tokio::test]
async fn a_witness_that_speaks_as_a_server_is_cut_off() {
    let c = Cluster::start().await;
    let own = hex::encode(c.server.registry().store().cluster_id());
    let mut said = frame(br#"{"addresses": []}"#);
    said.extend(frame(&[&[1, 3][..], &[0; 16]].concat()));
    let witness = Profile { group: Some("system:coracle:witnesses".to_owned()), ..member(&own, 7) };
    let mut stream = connect(&c, Some(&witness)).await;
    stream.write_all(&said).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    // Who says nothing is left after a while too, so it goes on.
    let goes_on = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if writer.write_all(&frame(b"")).await.is_err() || writer.flush().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut heard = Vec::new();
    tokio::select! {
        _ = reader.read_to_end(&mut heard) => {}
        () = goes_on => {}
        () = tokio::time::sleep(Duration::from_secs(60)) => panic!("it is heard out"),
    }
    let made = c.post("/api/v1/namespaces/default/configmaps", &json!({"metadata": {"name": "well"}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
}

/// What is answered to who gives this configuration of keys.
async fn give_keys(c: &Cluster, profile: &Profile, configuration: &str) -> String {
    let mut stream = connect_as(c, Some(profile), b"coracle-keys/1").await;
    stream.write_all(&frame(json!({"configuration": configuration}).to_string().as_bytes())).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer.get(4..).map(|text| String::from_utf8(text.to_vec()).unwrap()).unwrap_or_default()
}

/// Only a server of this cluster gives keys, and none that leave anything closed.
#[tokio::test]
async fn keys_are_taken_from_servers_alone_and_only_if_they_open_everything() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().to_owned();
    let c = Cluster::start_with(|config| coracle_apiserver::config::Config { data_dir, ..config }).await;
    let store = c.server.registry().store().clone();
    let (own, id) = (hex::encode(store.cluster_id()), store.cluster().own.0);
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"a": "b"}});
    assert_eq!(c.post("/api/v1/namespaces/default/secrets", &secret).await.code, 201);
    let file = dir.path().join("pki/encryption.yaml");
    let before = std::fs::read_to_string(&file).unwrap();

    let hello = frame(json!({"configuration": before}).to_string().as_bytes());
    is_cut_off(connect_as(&c, None, b"coracle-keys/1").await, &hello).await;
    for stranger in [
        Profile::client("root", Some("system:masters")),
        Profile { group: Some("system:coracle:witnesses".to_owned()), ..member(&own, id) },
        // One that is no member, or no more.
        member(&own, id ^ 1),
        member(&"0".repeat(32), id),
    ] {
        is_cut_off(connect_as(&c, Some(&stranger), b"coracle-keys/1").await, &hello).await;
    }
    let server = member(&own, id);
    let at = before.find("secret: ").unwrap() + "secret: ".len();
    let other = format!("{}{}{}", &before[..at], if &before[at..=at] == "A" { "B" } else { "A" }, &before[at + 1..]);
    for (given, why) in [("resources: []", "it holds"), ("{", "refused"), (&other, "does not open it")] {
        let answer = give_keys(&c, &server, given).await;
        assert!(answer.contains(r#""refused":""#) && answer.contains(why), "{given}: {answer}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
    }
    assert_eq!(give_keys(&c, &server, &before).await, r#"{"refused":null}"#);
    is_cut_off(connect_as(&c, Some(&server), b"coracle-keys/1").await, &frame(&vec![b' '; 300 << 10])).await;
    assert_eq!(c.get("/api/v1/namespaces/default/secrets/s").await.body["data"]["a"], "Yg==");
    c.stop().await;
}

/// One server is the whole cluster as it sees it.
#[tokio::test]
async fn the_only_server_stays() {
    let c = Cluster::start_with(|config| coracle_apiserver::config::Config {
        server_name: Some("cellar".to_owned()),
        ..config
    })
    .await;
    let listed = c.get("/coracle/v1/servers").await;
    let server = &listed.body["servers"][0];
    assert_eq!((&server["name"], &server["leads"], &server["own"]), (&json!("cellar"), &json!(true), &json!(true)));
    let refused = c.delete("/coracle/v1/servers/cellar").await;
    assert_eq!((refused.code, refused.refusal().1), (409, "Conflict"), "{}", refused.body);
    assert_eq!(c.delete("/coracle/v1/servers/attic").await.code, 404);
    for (request, words) in [
        (json!({}), "this is no request to join"),
        (
            json!({"name": "A B", "addresses": ["192.0.2.1:6443"], "reachedAt": "192.0.2.2:6443",
                "serviceCidr": "10.43.0.0/16", "dnsDomain": "cluster.local", "hasEncryptionConfig": false}),
            "is no name for a server",
        ),
        (
            json!({"name": "attic", "addresses": ["nowhere"], "reachedAt": "192.0.2.2:6443",
                "serviceCidr": "10.43.0.0/16", "dnsDomain": "cluster.local", "hasEncryptionConfig": false}),
            "must say at which addresses",
        ),
        (
            json!({"name": "attic", "addresses": ["192.0.2.1:6443"], "reachedAt": "192.0.2.2:6443",
                "serviceCidr": "10.43.0.0/16", "dnsDomain": "cluster.local", "hasEncryptionConfig": true}),
            "join without --encryption-provider-config",
        ),
    ] {
        let answer = c.post("/coracle/v1/servers", &request).await;
        assert_eq!(answer.code, 400, "{}", answer.body);
        assert!(answer.refusal().2.contains(words), "{}", answer.body);
    }
    assert_eq!(c.server.registry().store().cluster().members.len(), 1);
}
