//! The image service, against a registry of the test's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{StatusCode, header};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Cri, asked};
use crate::deaths::with_node;
use crate::grpc::{Auth, Empty, Image, ImageAnswer, Images, Pull, Text};

/// A registry with one image of one layer, for who has the password.
fn registry(seen: Arc<Mutex<Vec<String>>>) -> Router {
    let layer = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, "file", &b"hello"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    let digest = |bytes: &[u8]| format!("sha256:{:x}", Sha256::digest(bytes));
    let config = json!({"architecture": go_arch(), "os": "linux", "config": {"User": "7:8"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]}})
    .to_string()
    .into_bytes();
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    let described = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
        "config": described("application/vnd.oci.image.config.v1+json", &config),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)]})
    .to_string()
    .into_bytes();
    let all = BTreeMap::from([
        ("/v2/a/b/manifests/1".to_owned(), (MANIFEST, manifest.clone())),
        (format!("/v2/a/b/manifests/{}", digest(&manifest)), (MANIFEST, manifest)),
        (format!("/v2/a/b/blobs/{}", digest(&config)), ("application/octet-stream", config)),
        (format!("/v2/a/b/blobs/{}", digest(&layer)), ("application/octet-stream", layer)),
    ]);
    let password = format!("Basic {}", STANDARD.encode("me:secret"));
    Router::new().fallback(move |request: Request| async move {
        seen.lock().unwrap().push(request.uri().path().to_owned());
        let given = request.headers().get(header::AUTHORIZATION).is_some_and(|given| given == password.as_str());
        if !given {
            return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Basic realm=\"r\"")]).into_response();
        }
        match all.get(request.uri().path()) {
            Some((kind, bytes)) => ([(header::CONTENT_TYPE, *kind)], bytes.clone()).into_response(),
            None => Response::builder().status(StatusCode::NOT_FOUND).body(axum::body::Body::empty()).unwrap(),
        }
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[test]
fn images_are_pulled_with_the_password_given_and_removed_with_all_their_names() {
    with_node("cri15", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let name = format!("{}/a/b:1", listener.local_addr().unwrap());
        let serves = axum::serve(listener, registry(Arc::clone(&seen)));
        let story = async {
            let pull = |password: &str| Pull {
                image: Some(Image { image: name.clone() }),
                auth: Some(Auth { username: "me".into(), password: password.into() }),
            };
            assert!(cri.image::<Text>("PullImage", &asked(&name)).await.is_err());
            assert!(cri.image::<Text>("PullImage", &pull("wrong")).await.is_err());
            let id = cri.image::<Text>("PullImage", &pull("secret")).await.unwrap().text;
            assert!(id.starts_with("sha256:"), "{id}");
            let found: ImageAnswer = cri.image("ImageStatus", &asked(&name)).await.unwrap();
            let found = found.image.unwrap();
            assert_eq!((&found.id, &found.tags), (&id, &vec![name.clone()]));
            assert!(found.size > 0);
            let all: Images = cri.image("ListImages", &Empty {}).await.unwrap();
            assert_eq!(all.all.len(), 2);
            for _ in 0..2 {
                let _: Empty = cri.image("RemoveImage", &asked(&name)).await.unwrap();
            }
            let none: ImageAnswer = cri.image("ImageStatus", &asked(&id)).await.unwrap();
            assert_eq!(none.image, None);
            let (_, why) = cri.image::<Text>("PullImage", &asked("127.0.0.1:1/none:1")).await.unwrap_err();
            assert!(why.contains("127.0.0.1:1/none:1"), "{why}");
        };
        tokio::select! {
            () = story => {}
            _ = serves.into_future() => panic!("the registry ended"),
        }
        assert!(seen.lock().unwrap().iter().any(|path| path.contains("/blobs/")));
        node.kill();
    });
}
