//! A small aggregated API server for tests: serves `sea.example/v1`, and as metrics-server would `metrics.k8s.io/v1beta1`,
//! over TLS to whoever shows the front proxy's certificate.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, pki_types::CertificateDer, pki_types::pem::PemObject as _, server::WebPkiClientVerifier};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::webhook_server::base64;

/// What it was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A running server.
pub(crate) struct Extension {
    address: SocketAddr,
    bundle: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_well: Arc<AtomicBool>,
    events: watch::Sender<usize>,
    _tasks: JoinSet<()>,
}

fn resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "sea.example/v1", "resources": [
        {"name": "fish", "singularName": "fish", "namespaced": true, "kind": "Fish", "shortNames": ["fi"],
         "verbs": ["create", "delete", "deletecollection", "get", "list", "watch"]},
    ]})
}

/// What metrics-server serves, but for the pods.
fn metrics_resources() -> Value {
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "metrics.k8s.io/v1beta1", "resources": [
        {"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]},
    ]})
}

fn schemas() -> Value {
    json!({
        "swagger": "2.0",
        "paths": {"/apis/sea.example/v1/fish": {"get": {"responses": {"200": {"schema": {"$ref": "#/definitions/example.sea.v1.Fish"}}}}}},
        "definitions": {"example.sea.v1.Fish": {"type": "object", "description": "It swims.",
            "x-kubernetes-group-version-kind": [{"group": "sea.example", "version": "v1", "kind": "Fish"}]}},
    })
}

/// One ADDED event now and one for each further `event`.
fn follow(events: watch::Receiver<usize>) -> Body {
    let line = |n: usize| {
        let object = json!({"kind": "Fish", "apiVersion": "sea.example/v1", "metadata": {"name": format!("f{n}")}});
        Ok::<_, Infallible>(format!("{}\n", json!({"type": "ADDED", "object": object})))
    };
    let stream = futures::stream::unfold(None, move |before| {
        let mut events = events.clone();
        async move {
            let now = match before {
                None => 0,
                Some(before) => *events.wait_for(|now| *now > before).await.ok()?,
            };
            Some((line(now), Some(now)))
        }
    });
    Body::from_stream(stream)
}

/// Answers each byte with the byte.
async fn echo(upgraded: hyper::upgrade::OnUpgrade) {
    let Ok(upgraded) = upgraded.await else { return };
    let mut stream = TokioIo::new(upgraded);
    let mut buffer = [0; 64];
    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..n]).await.is_err() {
            return;
        }
    }
}

struct Server {
    asked: Arc<Mutex<Vec<Asked>>>,
    is_well: Arc<AtomicBool>,
    events: watch::Receiver<usize>,
    sessions: TaskTracker,
}

impl Server {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let path = head.uri.path_and_query().unwrap().as_str().to_owned();
        self.asked.lock().unwrap().push(Asked {
            method: head.method.to_string(),
            path: path.clone(),
            headers: head.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        });
        let json = |code: u16, value: Value| {
            let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
            response.body(Body::from(value.to_string())).unwrap()
        };
        if !self.is_well.load(Ordering::SeqCst) {
            return json(500, json!({}));
        }
        let fish = "/apis/sea.example/v1/namespaces/default/fish";
        match path.as_str() {
            "/apis/sea.example/v1" => json(200, resources()),
            "/apis/metrics.k8s.io/v1beta1" => json(200, metrics_resources()),
            "/apis/metrics.k8s.io/v1beta1/nodes" => {
                let theirs = json!([{"metadata": {"name": "theirs"}}]);
                json(200, json!({"kind": "NodeMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": theirs}))
            }
            "/openapi/v2" => json(200, schemas()),
            "/openapi/v3" => json(
                200,
                json!({"paths": {"apis/sea.example/v1": {"serverRelativeURL": "/openapi/v3/apis/sea.example/v1?hash=AB"}}}),
            ),
            "/openapi/v3/apis/sea.example/v1?hash=AB" => {
                json(200, json!({"openapi": "3.0.0", "info": {"title": "sea"}}))
            }
            "/apis/sea.example/v1/namespaces/default/fish/away" => Response::builder()
                .status(302)
                .header("location", "https://elsewhere.example/")
                .body(Body::empty())
                .unwrap(),
            "/apis/sea.example/v1/namespaces/default/fish/f/talk" => {
                self.sessions.spawn(echo(upgrade.unwrap()));
                let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
                response.header("connection", "Upgrade").header("upgrade", "echo").body(Body::empty()).unwrap()
            }
            path if path.starts_with(&format!("{fish}?watch=")) => {
                let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
                response.body(follow(self.events.clone())).unwrap()
            }
            path if path.starts_with(fish) => {
                json(if head.method == "POST" { 201 } else { 200 }, json!({"kind": "Fish"}))
            }
            _ => json(404, json!({"kind": "Status", "code": 404})),
        }
    }
}

impl Extension {
    /// A server for the name `service.default.svc` that lets in who shows a certificate `trusted` (PEM) has signed.
    pub(crate) async fn start(service: &str, trusted: &str) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let bundle = authority.self_signed(&authority_key).unwrap().pem();
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let names = vec![format!("{service}.default.svc")];
        let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, is_well): (Arc<Mutex<Vec<Asked>>>, _) = (Arc::default(), Arc::new(AtomicBool::new(true)));
        let (events, receiver) = watch::channel(0);
        let server = Arc::new(Server {
            asked: Arc::clone(&asked),
            is_well: Arc::clone(&is_well),
            events: receiver,
            sessions: TaskTracker::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, server) = (acceptor.clone(), Arc::clone(&server));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| {
                        let server = Arc::clone(&server);
                        async move { Ok::<_, Infallible>(server.answer(request).await) }
                    });
                    let connection =
                        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let _ = connection.with_upgrades().await;
                });
            }
        });
        Self { address, bundle, asked, is_well, events, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The certificates to trust, as API services carry them.
    pub(crate) fn bundle(&self) -> String {
        base64(&self.bundle)
    }

    /// What it was asked about paths that begin so.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }

    /// From now on it answers, or fails.
    pub(crate) fn be_well(&self, is_well: bool) {
        self.is_well.store(is_well, Ordering::SeqCst);
    }

    /// All who watch are told of one more fish.
    pub(crate) fn tell(&self) {
        self.events.send_modify(|n| *n += 1);
    }
}
