//! Requests passed on to pods, services and nodes.

use std::{
    convert::Infallible,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
};

use axum::body::Body;
use coracle_apiserver::{
    config::Config,
    pki::{Identity, Profile},
};
use http::{HeaderMap, Request, Response, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::{
    audit,
    harness::{Cluster, acceptor},
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

type Seen = Arc<Mutex<Vec<(String, HeaderMap, String)>>>;

/// A server as it may run in a pod.
struct Web {
    address: SocketAddr,
    seen: Seen,
    _tasks: JoinSet<()>,
}

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

async fn answer(
    mut request: Request<Incoming>,
    address: SocketAddr,
    seen: Seen,
    sessions: TaskTracker,
) -> Response<Body> {
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let line = format!("{} {}", head.method, head.uri);
    seen.lock().unwrap().push((line.clone(), head.headers, String::from_utf8_lossy(&body).into_owned()));
    let response = Response::builder();
    match head.uri.path() {
        "/page" => response.header("content-type", "text/html").body("<a href=\"/next?a=1&amp;b=2\">x</a>".into()),
        "/away" => response.status(302).header("location", format!("http://{address}/there")).body(Body::empty()),
        "/talk" => {
            sessions.spawn(echo(upgrade.unwrap()));
            response.status(101).header("connection", "Upgrade").header("upgrade", "echo").body(Body::empty())
        }
        "/teapot" => response.status(418).header("x-own", "kept").body("short and stout".into()),
        _ => response.body(line.into()),
    }
    .unwrap()
}

impl Web {
    /// A server on an address that others could reach; none on a host that has no such address. With an identity, over TLS.
    async fn start(identity: Option<&Identity>) -> Option<Self> {
        // Which address would be used towards elsewhere; nothing is sent.
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        let own = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).ok()?;
        if own.ip().is_loopback() || own.ip().is_unspecified() {
            return None;
        }
        let acceptor = identity.map(|identity| acceptor(identity.chain().to_vec(), identity.key().clone_key()));
        let listener = TcpListener::bind((own.ip(), 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Seen = Arc::default();
        let told = Arc::clone(&seen);
        let sessions = TaskTracker::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (seen, sessions) = (Arc::clone(&told), sessions.clone());
                let service = service_fn(move |request| {
                    let (seen, sessions) = (Arc::clone(&seen), sessions.clone());
                    async move { Ok::<_, Infallible>(answer(request, address, seen, sessions).await) }
                });
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = match acceptor {
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(socket).await else { return };
                            http.serve_connection(TokioIo::new(stream), service).with_upgrades().await
                        }
                        None => http.serve_connection(TokioIo::new(socket), service).with_upgrades().await,
                    };
                });
            }
        });
        Some(Self { address, seen, _tasks: tasks })
    }

    fn last(&self) -> (String, HeaderMap, String) {
        self.seen.lock().unwrap().last().unwrap().clone()
    }
}

fn skipped() {
    eprintln!("Skipped: this host has no address but loopback");
}

/// A pod with this address whose container has this port.
async fn pod(c: &Cluster, name: &str, ip: &str, port: u16) {
    let containers = json!([{"name": "c", "image": "i", "ports": [{"containerPort": port}]}]);
    let made = c.post(PODS, &json!({"metadata": {"name": name}, "spec": {"containers": containers}})).await;
    assert_eq!(made.code, 201, "{}", made.body);
    let status = json!({"status": {"podIP": ip, "podIPs": [{"ip": ip}]}});
    let known = c.merge(&format!("{PODS}/{name}/status"), &status).await;
    assert_eq!(known.code, 200, "{}", known.body);
}

/// Code, headers and body of an answer that need not be JSON.
async fn send(c: &Cluster, method: &str, path: &str, body: &str) -> (u16, HeaderMap, String) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, "Bearer secret")
        .header(header::HOST, "api.example")
        .body(Body::from(body.to_owned()))
        .unwrap();
    let (head, body) = c.service().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_pod_answers_whatever_it_is_asked() {
    let Some(web) = Web::start(None).await else { return skipped() };
    let c = Cluster::start().await;
    let port = web.address.port();
    pod(&c, "web", &web.address.ip().to_string(), port).await;
    let proxy = format!("{PODS}/web/proxy");
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let (code, _, body) = send(&c, method, &format!("{proxy}/a%2Fb/?q=%20x&y"), "given").await;
        assert_eq!((code, body), (200, format!("{method} /a%2Fb/?q=%20x&y")));
        let (_, headers, body) = web.last();
        assert_eq!((body.as_str(), &headers["host"]), ("given", &"api.example".parse().unwrap()));
        assert!(!headers.contains_key(header::AUTHORIZATION));
        assert_eq!(headers["x-forwarded-uri"], format!("{proxy}/a%2Fb/"));
    }
    assert_eq!(send(&c, "HEAD", &format!("{proxy}/"), "").await.0, 200);
    let (code, headers, body) = send(&c, "GET", &format!("{PODS}/http:web:{port}/proxy/teapot"), "").await;
    assert_eq!((code, headers["x-own"].to_str().unwrap(), body.as_str()), (418, "kept", "short and stout"));
    // Links lead through the proxy; the root of the proxy ends in a slash.
    let (_, _, page) = send(&c, "GET", &format!("{proxy}/page"), "").await;
    assert_eq!(page, format!("<a href=\"{proxy}/next?a=1&amp;b=2\">x</a>"));
    let (code, headers, _) = send(&c, "GET", &format!("{proxy}/away"), "").await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (302, format!("{proxy}/there").as_str()));
    let (code, headers, _) = send(&c, "GET", &format!("{proxy}?a=b"), "").await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (301, format!("{proxy}/?a=b").as_str()));
    // Nobody is there, nobody may be there, nobody was meant.
    let free = TcpListener::bind((web.address.ip(), 0)).await.unwrap().local_addr().unwrap();
    let gone = c.get(&format!("{PODS}/web:{}/proxy/", free.port())).await;
    let why = format!("error trying to reach service: dial tcp {free}: connect: connection refused");
    assert_eq!(gone.refusal(), (503, "ServiceUnavailable", why.as_str()));
    pod(&c, "inside", "127.0.0.1", port).await;
    pod(&c, "metadata", "169.254.169.254", 80).await;
    for name in ["inside", "metadata"] {
        let refused = c.get(&format!("{PODS}/{name}/proxy/")).await;
        assert_eq!(refused.refusal(), (400, "BadRequest", "address not allowed"));
    }
    assert_eq!(c.get(&format!("{PODS}/nobody/proxy/")).await.refusal().2, "pods \"nobody\" not found");
    assert_eq!(c.get(&format!("{PODS}/ftp:web:1/proxy/")).await.refusal().2, "invalid pod request \"ftp:web:1\"");
    c.stop().await;
}

#[tokio::test]
async fn a_connection_to_a_pod_is_upgraded_and_recorded_until_it_ends() {
    let Some(web) = Web::start(None).await else { return skipped() };
    let dir = tempfile::tempdir().unwrap();
    let c = Cluster::start_with(|config| Config { audit: audit::config(dir.path()), ..config }).await;
    pod(&c, "web", &web.address.ip().to_string(), web.address.port()).await;
    let mut stream = c.connect(&Profile::client("admin", Some("system:masters"))).await;
    let request =
        format!("GET {PODS}/web/proxy/talk HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    for word in [b"ping", b"pong"] {
        stream.write_all(word).await.unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, word);
    }
    let (.., metrics) = send(&c, "GET", "/metrics", "").await;
    let running = metrics
        .lines()
        .find(|line| line.starts_with("apiserver_longrunning_requests{") && line.contains("subresource=\"proxy\""));
    assert!(running.is_some_and(|line| line.ends_with(" 1")), "{running:?}");
    let open = jiff::Timestamp::now();
    drop(stream);
    c.stop().await;
    let events = audit::events(dir.path());
    let at = |stage: &str| -> Vec<jiff::Timestamp> {
        let is_it = |event: &&Value| event["stage"] == stage && event["objectRef"]["subresource"] == "proxy";
        events.iter().filter(is_it).map(|e| e["stageTimestamp"].as_str().unwrap().parse().unwrap()).collect()
    };
    let (started, complete) = (at("ResponseStarted"), at("ResponseComplete"));
    assert_eq!((started.len(), complete.len()), (1, 1), "{events:#?}");
    assert!(started[0] < open && open < complete[0], "{events:#?}");
}

fn slice(name: &str, address: &str, pod: Option<&str>, port: u16) -> Value {
    let mut endpoint = json!({"addresses": [address]});
    if let Some(pod) = pod {
        endpoint["targetRef"] = json!({"kind": "Pod", "namespace": "default", "name": pod});
    }
    json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "web"}}, "addressType": "IPv4",
        "endpoints": [endpoint], "ports": [{"name": "http", "port": port}],
    })
}

#[tokio::test]
async fn a_service_leads_to_its_pods_and_nowhere_else() {
    let Some(web) = Web::start(None).await else { return skipped() };
    let c = Cluster::start().await;
    let (ip, port) = (web.address.ip().to_string(), web.address.port());
    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
    let refusal = async |path: &str| {
        let answer = c.get(&format!("{SERVICES}/{path}/proxy/")).await;
        let (code, _, message) = answer.refusal();
        (code, message.to_owned())
    };
    assert_eq!(refusal("web").await, (404, "endpoints \"web\" not found".to_owned()));
    assert_eq!(refusal("web:80").await, (404, "services \"web\" not found".to_owned()));
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    assert_eq!(c.post(SERVICES, &service).await.code, 201);
    let none = |name: &str| (503, format!("no endpoints available for service {name:?}"));
    assert_eq!(refusal("web:80").await, none("web"));
    assert_eq!(refusal("web:81").await, (503, "no service port 81 found for service \"web\"".to_owned()));
    // Whoever may write slices must not have this server look elsewhere.
    assert_eq!(c.post(slices, &slice("bare", &ip, None, port)).await.code, 201);
    assert_eq!(refusal("web:http").await, none("web:http"));
    pod(&c, "other", "10.1.2.3", port).await;
    assert_eq!(c.post(slices, &slice("lying", &ip, Some("other"), port)).await.code, 201);
    assert_eq!(refusal("web:http").await, none("web:http"));
    pod(&c, "web", &ip, port).await;
    assert_eq!(c.post(slices, &slice("good", &ip, Some("web"), port)).await.code, 201);
    for name in ["web:80", "web:http", "http:web:80"] {
        let (code, _, body) = send(&c, "GET", &format!("{SERVICES}/{name}/proxy/x?y"), "").await;
        assert_eq!((code, body.as_str()), (200, "GET /x?y"), "{name}");
    }
    assert_eq!(refusal("web").await, none("web"), "the port has a name");
    c.stop().await;
}

#[tokio::test]
async fn a_node_is_known_by_its_certificate_and_its_other_ports_are_not() {
    let c = Cluster::start().await;
    let profile = Profile::node_server("n1", &[]);
    let identity = c.server.pki().issue(&profile, jiff::Timestamp::now()).unwrap();
    let (Some(kubelet), Some(other)) = (Web::start(Some(&identity)).await, Web::start(None).await) else {
        return skipped();
    };
    for name in ["n1", "n2"] {
        assert_eq!(c.post("/api/v1/nodes", &json!({"metadata": {"name": name}})).await.code, 201);
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": kubelet.address.ip().to_string()}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.address.port()}},
        }});
        assert_eq!(c.merge(&format!("/api/v1/nodes/{name}/status"), &status).await.code, 200);
    }
    for name in ["n1".to_owned(), format!("n1:{}", kubelet.address.port())] {
        let (code, _, body) = send(&c, "GET", &format!("/api/v1/nodes/{name}/proxy/stats/summary?only"), "").await;
        assert_eq!((code, body.as_str()), (200, "GET /stats/summary?only"), "{name}");
    }
    let (code, _, body) = send(&c, "GET", &format!("/api/v1/nodes/n1:{}/proxy/x", other.address.port()), "").await;
    assert_eq!((code, body.as_str()), (200, "GET /x"));
    // The server at that address is not the one that was meant.
    let wrong = c.get("/api/v1/nodes/n2/proxy/x").await;
    assert_eq!(wrong.code, 503, "{}", wrong.body);
    assert_eq!(c.get("/api/v1/nodes/n3/proxy/x").await.refusal().2, "nodes \"n3\" not found");
    c.stop().await;
}
