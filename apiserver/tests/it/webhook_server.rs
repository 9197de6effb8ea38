//! A webhook of its own for a test: a TLS server on loopback whose answers the test decides.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::Engine as _;
use coracle_apiserver::stored;
use coracle_store::{Op, Txn};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::harness::{Cluster, acceptor};

/// What the webhook does with a review's request.
pub(crate) enum Reply {
    /// Answers the review with this `response`; its `uid` is put in.
    Response(Value),
    /// Answers with exactly this code and body; a redirect leads back here.
    Raw(u16, String),
    /// Answers with a body that never ends.
    Endless,
    /// Never answers.
    Silence,
}

type Decide = Arc<dyn Fn(&Value) -> Reply + Send + Sync>;

/// A running webhook.
pub(crate) struct Hook {
    address: SocketAddr,
    bundle: String,
    seen: Arc<Mutex<Vec<Value>>>,
    _tasks: JoinSet<()>,
}

async fn answer(
    request: Request<Incoming>,
    decide: Decide,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<BoxBody<bytes::Bytes, Infallible>>, Infallible> {
    let mut bare = json!({"path": request.uri().path()});
    if let Some(credential) = request.headers().get(http::header::AUTHORIZATION) {
        bare["authorization"] = credential.to_str().unwrap_or_default().into();
    }
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    // What is no review is shown as it is; of a request without a body, its path and credential.
    let review: Value = serde_json::from_slice(&body).unwrap_or(bare);
    let asked = review.get("request").unwrap_or(&review).clone();
    seen.lock().unwrap().push(asked.clone());
    let full = |code: u16, text: String| {
        let response = Response::builder().status(code);
        // Where a redirect leads to is where it came from.
        let response = if (300..400).contains(&code) { response.header("location", "/hook") } else { response };
        response.body(Full::from(text).boxed()).unwrap()
    };
    Ok(match decide(&asked) {
        Reply::Response(mut response) => {
            if response.get("uid").is_none() {
                response["uid"] = asked["uid"].clone();
            }
            let review = json!({"kind": review["kind"], "apiVersion": review["apiVersion"], "response": response});
            full(200, review.to_string())
        }
        Reply::Raw(code, body) => full(code, body),
        Reply::Endless => {
            let chunk = || Ok::<_, Infallible>(hyper::body::Frame::data(bytes::Bytes::from(vec![b' '; 1 << 16])));
            let stream = futures::stream::repeat_with(chunk);
            Response::new(BoxBody::new(http_body_util::StreamBody::new(stream)))
        }
        Reply::Silence => futures::future::pending().await,
    })
}

fn names() -> Vec<String> {
    vec!["127.0.0.1".to_owned(), "hook.default.svc".to_owned()]
}

impl Hook {
    /// A webhook whose certificate an authority of its own has signed.
    pub(crate) async fn start(decide: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let bundle = authority.self_signed(&authority_key).unwrap().pem();
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let certificate = rcgen::CertificateParams::new(names()).unwrap().signed_by(&key, &issuer).unwrap();
        Self::serve(decide, &certificate, &key, bundle).await
    }

    /// A webhook whose certificate is its own authority, as `openssl req -x509` makes it.
    pub(crate) async fn self_signed(names: &[&str], decide: impl Fn(&Value) -> Reply + Send + Sync + 'static) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut own = rcgen::CertificateParams::new(names).unwrap();
        own.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = own.self_signed(&key).unwrap();
        let bundle = certificate.pem();
        Self::serve(decide, &certificate, &key, bundle).await
    }

    async fn serve(
        decide: impl Fn(&Value) -> Reply + Send + Sync + 'static,
        certificate: &rcgen::Certificate,
        key: &rcgen::KeyPair,
        bundle: String,
    ) -> Self {
        let acceptor = acceptor(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, decide): (Arc<Mutex<Vec<Value>>>, Decide) = (Arc::default(), Arc::new(decide));
        let told = Arc::clone(&seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, decide, seen) = (acceptor.clone(), Arc::clone(&decide), Arc::clone(&told));
                connections.spawn(async move {
                    // A client that does not trust the certificate is part of some tests.
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| answer(request, Arc::clone(&decide), Arc::clone(&seen)));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { address, bundle, seen, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Has a service of `default` lead here, by the port of this name. No client may have one lead to the server's own host,
    /// so the slice is put where slices are stored.
    pub(crate) async fn serves(&self, c: &Cluster, service: &str, port: &str, is_ready: bool) {
        let name = format!("{service}-1");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": "default", "uid": "u", "labels": {"kubernetes.io/service-name": service}},
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": is_ready}}],
            "ports": [{"name": port, "port": self.port(), "protocol": "TCP"}],
        });
        let put = Op::put(stored::key("endpointslices", "default", &name), slice.to_string());
        let written = c.server.registry().store().txn(Txn { then: vec![put], ..Txn::default() }).await;
        assert!(written.unwrap().succeeded);
    }

    pub(crate) fn url(&self) -> String {
        format!("https://{}/hook", self.address)
    }

    /// The certificates to trust, as configurations carry them.
    pub(crate) fn bundle(&self) -> String {
        base64(&self.bundle)
    }

    /// The same as they are.
    pub(crate) fn pem(&self) -> &str {
        &self.bundle
    }

    /// Where it is, without a path.
    pub(crate) fn root(&self) -> String {
        format!("https://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }
}

/// Text in base64.
pub(crate) fn base64(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A response that lets the request pass with a JSON Patch.
pub(crate) fn patch(steps: &Value) -> Reply {
    Reply::Response(json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(&steps.to_string())}))
}
