//! A server of its own for each test.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use axum::body::Body;
use coracle_apiserver::{
    config::Config,
    pki::Profile,
    server::{ApiServer, Error},
    service::Service,
    user::User,
};
use http::{Request, Response, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use kube::client::ConfigExt as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// What makes a TLS server of a test's own, which asks nobody for a certificate.
pub(crate) fn acceptor(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap()))
}

/// A running server.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    shutdown: CancellationToken,
    tasks: JoinSet<Result<(), Error>>,
    _dir: tempfile::TempDir,
    _limit: Limit,
}

/// Ends the run, and says of which test, when one waits for what never comes. (A test waits for events, not for times.)
struct Limit(#[expect(dead_code, reason = "it is dropped with the test")] mpsc::SyncSender<()>);

impl Limit {
    /// The longest test there is takes a few minutes when it is told to ask for long.
    const LONGEST: Duration = Duration::from_secs(20 * 60);

    fn start() -> Self {
        let (test, ended) = mpsc::sync_channel(0);
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        std::thread::spawn(move || {
            if ended.recv_timeout(Self::LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{name} has not come to an end in {:?}", Self::LONGEST);
                std::process::abort();
            }
        });
        Self(test)
    }
}

/// A status code, the answer's JSON, and its `Warning` headers.
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) body: Value,
    pub(crate) warnings: Vec<String>,
}

impl Answer {
    /// Code, reason and message of a status.
    pub(crate) fn refusal(&self) -> (u16, &str, &str) {
        let text = |name: &str| self.body[name].as_str().unwrap_or_default();
        (self.code, text("reason"), text("message"))
    }

    pub(crate) fn version(&self) -> &str {
        self.body["metadata"]["resourceVersion"].as_str().unwrap_or_default()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::start_with(|config| config).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(Config) -> Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = change(Config::new(dir.path(), "127.0.0.1:0".parse().unwrap()));
        let (server, runner) = ApiServer::open(config).await.unwrap();
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(runner.run(shutdown.clone()));
        server.ready().await;
        Self { server, shutdown, tasks, _dir: dir, _limit: Limit::start() }
    }

    /// A request over a connection of its own, by somebody who shows no certificate.
    pub(crate) async fn stranger(&self, mut request: Request<Body>) -> Response<Body> {
        let mut roots = rustls::RootCertStore::empty();
        let authority = self.server.pki().authority().pem().as_bytes().to_vec();
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&authority).map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
        let socket = tokio::net::TcpStream::connect(self.server.address()).await.unwrap();
        let name = "127.0.0.1".try_into().unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        request.headers_mut().insert(header::HOST, "localhost".parse().unwrap());
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(parts, Body::from(body.collect().await.unwrap().to_bytes()))
    }

    /// A TLS connection whose client shows a certificate for this user.
    pub(crate) async fn connect(&self, profile: &Profile) -> TlsStream<TcpStream> {
        let identity = self.server.pki().issue(profile, jiff::Timestamp::now()).unwrap();
        let authority = self.server.pki().authority().pem();
        let url = format!("https://{}", self.server.address());
        let text = coracle_apiserver::pki::kubeconfig(&url, authority, "user", &identity);
        let parsed = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(parsed, &Default::default()).await.unwrap();
        let tls = TlsConnector::from(Arc::new(config.rustls_client_config().unwrap()));
        let socket = TcpStream::connect(self.server.address()).await.unwrap();
        tls.connect("127.0.0.1".try_into().unwrap(), socket).await.unwrap()
    }

    pub(crate) fn service(&self) -> Service {
        self.server.service(User::new("admin", &["system:masters"]))
    }

    /// Sends a request whose body is of the media type.
    pub(crate) async fn send(&self, method: &str, path: &str, media: &str, body: impl Into<Body>) -> Answer {
        self.answer(Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, media), body).await
    }

    async fn answer(&self, request: http::request::Builder, body: impl Into<Body>) -> Answer {
        let request = request.body(body.into()).unwrap();
        let response = self.service().oneshot(request).await.unwrap();
        let code = response.status().as_u16();
        let warnings = response.headers().get_all(header::WARNING);
        let warnings = warnings.iter().map(|value| value.to_str().unwrap().to_owned()).collect();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { code, body: serde_json::from_slice(&body).unwrap_or(Value::Null), warnings }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "application/json", Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    /// As `post`, asking for an answer in one of these forms.
    pub(crate) async fn post_accepting(&self, path: &str, body: &Value, accept: &str) -> Answer {
        let request = Request::builder().method("POST").uri(path).header(header::CONTENT_TYPE, "application/json");
        self.answer(request.header(header::ACCEPT, accept), body.to_string()).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, "application/json", body.to_string()).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send("PATCH", path, "application/merge-patch+json", body.to_string()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, "application/json", Body::empty()).await
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
    }
}
