//! A webhook on loopback that lets everything pass: what a cluster's own part in asking one costs.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use super::{
    api::{PodText, once},
    load::Target,
};

/// How long a configuration may take to count before something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// One that runs; its tasks are the caller's.
pub(super) struct Reviewer {
    address: SocketAddr,
    /// Its certificate as PEM: its own authority.
    certificate: String,
    asked: Arc<AtomicU64>,
}

impl Reviewer {
    /// Begins to listen.
    pub(super) async fn start(tasks: &mut JoinSet<()>) -> anyhow::Result<Self> {
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).context("a certificate")?;
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .context("TLS")?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listening for reviews")?;
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&asked);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, counter) = (acceptor.clone(), Arc::clone(&counter));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(|request| answer(request, &counter));
                    // A connection that breaks is the asking server's to notice.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(Self { address, certificate: own.cert.pem(), asked })
    }

    /// A configuration named `name` that asks it about every pod that is made in the namespace of that name.
    pub(super) fn configuration(&self, kind: &str, name: &str) -> Value {
        let path = if kind.starts_with("Mutating") { "mutate" } else { "validate" };
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
            "webhooks": [{
                "name": "reviewer.bench.coracle.example",
                "clientConfig": {"url": format!("https://{}/{path}", self.address),
                                 "caBundle": BASE64.encode(&self.certificate)},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
                "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 10,
            }],
        })
    }

    /// Waits until a create comes by both of its ways: a configuration counts a moment after it was written.
    pub(super) async fn is_asked(&self, target: &Target, pods: &str) -> anyhow::Result<()> {
        let (text, start) = (PodText::new(), Instant::now());
        for n in 0.. {
            let before = self.asked.load(Ordering::Relaxed);
            let (code, body) = once(target, Method::POST, pods, text.of(format_args!("asked-{n}"))).await?;
            ensure!(code.is_success(), "creating a pod: {}", String::from_utf8_lossy(&body));
            if self.asked.load(Ordering::Relaxed) >= before + 2 {
                break;
            }
            ensure!(start.elapsed() < PATIENCE, "the webhooks are not asked");
        }
        Ok(())
    }
}

/// Allows what is asked about; whoever may change it sets a label.
async fn answer(request: Request<Incoming>, asked: &AtomicU64) -> Result<Response<Full<Bytes>>, Infallible> {
    asked.fetch_add(1, Ordering::Relaxed);
    let changes = request.uri().path() == "/mutate";
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let uid = review.pointer("/request/uid").cloned().unwrap_or_default();
    let mut response = json!({"uid": uid, "allowed": true});
    if let (true, Some(fields)) = (changes, response.as_object_mut()) {
        let patch = json!([{"op": "add", "path": "/metadata/labels/reviewed", "value": "yes"}]).to_string();
        fields.insert("patchType".to_owned(), "JSONPatch".into());
        fields.insert("patch".to_owned(), BASE64.encode(patch).into());
    }
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(Response::new(Full::new(review.to_string().into())))
}
