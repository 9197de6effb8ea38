//! Logs, exec, attach and port-forward: passed on to the HTTPS server of the pod's node, with the kubelet's paths.
//!
//! The node is reached at its `InternalIP` and `daemonEndpoints.kubeletEndpoint`, with the server's client certificate,
//! and must show a certificate of this cluster for its own name. Logs stream through as they come. The others are an upgraded
//! connection (WebSocket or SPDY, which is between the client and the node): after the 101 bytes are copied both ways
//! until either side ends.

use std::{sync::Arc, time::Duration};

use axum::body::Body;
use coracle_proto::status::Status;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Node, Pod};
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    held::Kept,
    registry::Registry,
    request::RequestInfo,
    status_of::{self, Result},
    upstream::{
        connect::{Tasks, joined},
        pass::{incoming, is_upgrade, outgoing},
    },
};

/// How long a node may take to answer a connection and its handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a node may take to begin an answer: a log may be read from a slow disk first.
const ANSWER: Duration = Duration::from_secs(30);

/// Connections to nodes at once; each costs two sockets and some 100 KiB.
const SESSIONS: usize = 1024;

/// As much of a node's error as is passed on.
const MAX_ERROR: usize = 8 * 1024;

/// A place among the sessions, free when nobody has it any more.
type Room = Arc<OwnedSemaphorePermit>;

/// The ways to the nodes' servers.
pub struct Nodes {
    tls: TlsConnector,
    tasks: Tasks,
    room: Arc<Semaphore>,
}

impl std::fmt::Debug for Nodes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nodes").field("free", &self.room.available_permits()).finish_non_exhaustive()
    }
}

/// Where a request goes.
struct Place {
    node: String,
    address: String,
    container: String,
}

fn bad(why: String) -> Box<Status> {
    Box::new(Status::bad_request(why))
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The container that is meant, in Kubernetes' words when it is not clear.
fn container(pod: &Pod, asked: &str) -> Result<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let Some(spec) = &pod.spec else { return Err(bad(format!("pod {name} has no spec"))) };
    let main: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral: Vec<&str> = spec.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    match (asked, main.as_slice()) {
        ("", [only]) => Ok((*only).to_owned()),
        ("", []) => Err(bad(format!("a container name must be specified for pod {name}"))),
        ("", _) => {
            let mut why =
                format!("a container name must be specified for pod {name}, choose one of: [{}]", main.join(" "));
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            if !ephemeral.is_empty() {
                why.push_str(&format!(" or one of the ephemeral containers: [{}]", ephemeral.join(" ")));
            }
            Err(bad(why))
        }
        _ if main.iter().chain(&init).chain(&ephemeral).any(|c| *c == asked) => Ok(asked.to_owned()),
        _ => Err(bad(format!("container {asked} is not valid for pod {name}"))),
    }
}

/// Where the pod's node listens; `None` when the pod has no node yet.
fn place(registry: &Registry, info: &RequestInfo) -> Result<Option<Place>> {
    let pod: Pod = registry
        .get_typed(&info.namespace, &info.name)?
        .ok_or_else(|| Box::new(Status::not_found("", "pods", &info.name)))?;
    // Ports are the pod's, logs and processes a container's.
    let container = match info.subresource.as_str() {
        "portforward" => String::new(),
        _ => container(&pod, info.query.get("container"))?,
    };
    let Some(node) = pod.spec.and_then(|spec| spec.node_name).filter(|node| !node.is_empty()) else {
        return Ok(None);
    };
    let (host, port) = node_address(registry, &node)?;
    Ok(Some(Place { address: joined(&host, port), node, container }))
}

/// Where a node's own server listens.
///
/// # Errors
/// 404 when there is no such node, 500 when it has no address.
pub(crate) fn node_address(registry: &Registry, node: &str) -> Result<(String, u16)> {
    let object: Option<Node> = registry.get_typed("", node)?;
    address_of(&object.ok_or_else(|| Box::new(Status::not_found("", "nodes", node)))?)
}

/// The same of a node at hand.
///
/// # Errors
/// 500 when it has no address.
pub(crate) fn address_of(node: &Node) -> Result<(String, u16)> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let Some(address) = addresses.iter().find(|a| a.type_ == "InternalIP") else {
        let known: Vec<&str> = addresses.iter().map(|a| a.address.as_str()).collect();
        let why = format!("no preferred addresses found; known addresses: [{}]", known.join(" "));
        return Err(Box::new(Status::internal(why)));
    };
    let endpoint = status.and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref());
    let port = endpoint.map(|endpoint| endpoint.port);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(10250);
    Ok((address.address.clone(), port))
}

/// Why there is no answer.
enum Unreached {
    /// As many sessions as there may be are under way.
    Full,
    /// In the words of Go's clients.
    Dial(String),
}

impl Unreached {
    fn text(self) -> String {
        match self {
            Self::Full => "too many sessions with nodes, try again".to_owned(),
            Self::Dial(why) => why,
        }
    }
}

impl From<Unreached> for Box<Status> {
    fn from(unreached: Unreached) -> Self {
        Self::new(match unreached {
            Unreached::Full => Status::too_many_requests(unreached.text(), 1),
            Unreached::Dial(why) => Status::internal(format!("error dialing backend: {why}")),
        })
    }
}

impl Nodes {
    /// The ways to the nodes.
    #[must_use]
    pub fn new(tls: rustls::ClientConfig) -> Self {
        Self { tls: TlsConnector::from(Arc::new(tls)), tasks: Tasks::new(), room: Arc::new(Semaphore::new(SESSIONS)) }
    }

    /// Ends all sessions and waits for them.
    pub async fn stop(&self) {
        self.tasks.stop().await;
    }

    /// Sends a request to the pod's node; the connection lives as long as the answer.
    async fn send(&self, place: &Place, request: Request<Body>) -> Result<(Response<Incoming>, Room), Unreached> {
        let dialing = |why: &dyn std::fmt::Display| {
            tracing::debug!(node = place.node, address = place.address, %why, "node not reached");
            Unreached::Dial(why.to_string())
        };
        let room: Room = Arc::clone(&self.room).try_acquire_owned().map_err(|_| Unreached::Full)?.into();
        let name = ServerName::try_from(place.node.clone()).map_err(|error| dialing(&error))?;
        let connect = async {
            let socket = TcpStream::connect(&place.address).await?;
            socket.set_nodelay(true)?;
            self.tls.connect(name, socket).await
        };
        let stream = timeout(CONNECT, connect)
            .await
            .map_err(|_| dialing(&format_args!("dial tcp {}: i/o timeout", place.address)))?
            .map_err(|error| dialing(&format_args!("dial tcp {}: {error}", place.address)))?;
        let (mut sender, connection) =
            http1::handshake::<_, Body>(TokioIo::new(stream)).await.map_err(|error| dialing(&error))?;
        let taken = Arc::clone(&room);
        self.tasks.spawn(async move {
            let _room = taken;
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(error = &error as &(dyn std::error::Error + 'static), "connection to a node ended");
            }
        });
        let answer = timeout(ANSWER, sender.send_request(request))
            .await
            .map_err(|_| dialing(&"the node does not answer"))?
            .map_err(|error| dialing(&error))?;
        Ok((answer, room))
    }

    /// The answer as the client gets it. A connection that is upgraded takes its place until it ends.
    fn incoming(
        &self,
        (answer, room): (Response<Incoming>, Room),
        client: Option<OnUpgrade>,
    ) -> Result<Response<Body>, String> {
        let answer = incoming(answer, client, &self.tasks)?;
        if let Some(kept) = Kept::of(&answer) {
            kept.keep(room);
        }
        Ok(answer)
    }

    /// Passes a client's request on to the node's own server and its answer back.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(crate) async fn pass(
        &self,
        node: &str,
        address: &str,
        request: Request<Body>,
        to: Uri,
    ) -> Result<Response<Body>, String> {
        let place = Place { node: node.to_owned(), address: address.to_owned(), container: String::new() };
        let (request, client) = outgoing(request, to);
        let answer = self.send(&place, request).await.map_err(Unreached::text)?;
        self.incoming(answer, client)
    }

    /// `pods/NAME/log`.
    pub(super) async fn log(&self, registry: &Registry, info: &RequestInfo) -> Result<Response<Body>> {
        if info.verb != "get" {
            return Err(Box::new(Status::method_not_allowed()));
        }
        let Some(place) = place(registry, info)? else {
            // There is nothing yet that a pod without a node could have said.
            let mut nothing = Response::new(Body::empty());
            *nothing.status_mut() = StatusCode::NO_CONTENT;
            return Ok(nothing);
        };
        let mut query = Vec::new();
        for key in
            ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"]
        {
            if let Some(value) = info.query.find(key) {
                query.push(format!("{key}={}", encoded(value)));
            }
        }
        let path = path("containerLogs", info, &place, &query);
        let request = request(Method::GET, &path, &place)?;
        // The connection holds its place until the log has been passed on.
        let (answer, _) = self.send(&place, request).await?;
        if !answer.status().is_success() {
            return Err(failed(answer).await);
        }
        let mut response = Response::new(Body::empty());
        let plain = http::HeaderValue::from_static("text/plain");
        let kind = answer.headers().get(header::CONTENT_TYPE).cloned().unwrap_or(plain);
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        *response.body_mut() = Body::new(answer.into_body());
        Ok(response)
    }

    /// `pods/NAME/exec` and `pods/NAME/attach`.
    pub(super) async fn session(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        asked: Request<Body>,
    ) -> Result<Response<Body>> {
        let place = session_place(registry, info, &asked)?;
        let mut query: Vec<String> = Vec::new();
        for (key, theirs) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error")] {
            if info.query.flag(key) {
                query.push(format!("{theirs}=1"));
            }
        }
        if query.is_empty() {
            return Err(bad("you must specify at least 1 of stdin, stdout, stderr".to_owned()));
        }
        if info.query.flag("tty") {
            query.push("tty=1".to_owned());
        }
        if info.subresource == "exec" {
            query.extend(info.query.all("command").map(|word| format!("command={}", encoded(word))));
        }
        let path = path(&info.subresource, info, &place, &query);
        self.upgrade(&place, &path, asked).await
    }

    /// `pods/NAME/portforward`.
    pub(super) async fn port_forward(
        &self,
        registry: &Registry,
        info: &RequestInfo,
        asked: Request<Body>,
    ) -> Result<Response<Body>> {
        let place = session_place(registry, info, &asked)?;
        let ports: Vec<String> = info.query.all("ports").map(encoded).collect();
        let query = if ports.is_empty() { String::new() } else { format!("?port={}", ports.join(",")) };
        let path = format!("/portForward/{}/{}{query}", encoded(&info.namespace), encoded(&info.name));
        self.upgrade(&place, &path, asked).await
    }

    /// Has the node upgrade the client's connection.
    async fn upgrade(&self, place: &Place, path: &str, asked: Request<Body>) -> Result<Response<Body>> {
        let broken = |error: http::uri::InvalidUri| status_of::broken("a request to a node cannot be made", &error);
        let to: Uri = path.parse().map_err(broken)?;
        let (request, client) = outgoing(asked, to);
        let (answer, room) = self.send(place, request).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(failed(answer).await);
        }
        // Sessions end as clients please; what went wrong is told on the session's own error stream.
        self.incoming((answer, room), client).map_err(bad)
    }
}

/// Where a session goes.
fn session_place(registry: &Registry, info: &RequestInfo, asked: &Request<Body>) -> Result<Place> {
    if !matches!(asked.method(), &Method::GET | &Method::POST) {
        return Err(Box::new(Status::method_not_allowed()));
    }
    let Some(place) = place(registry, info)? else {
        return Err(bad(format!("pod {} does not have a host assigned", info.name)));
    };
    if !is_upgrade(asked.headers()) {
        return Err(bad("Upgrade request required".to_owned()));
    }
    Ok(place)
}

fn path(verb: &str, info: &RequestInfo, place: &Place, query: &[String]) -> String {
    let mark = if query.is_empty() { "" } else { "?" };
    format!(
        "/{verb}/{}/{}/{}{mark}{}",
        encoded(&info.namespace),
        encoded(&info.name),
        encoded(&place.container),
        query.join("&")
    )
}

fn request(method: Method, path: &str, place: &Place) -> Result<Request<Body>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &place.address)
        .body(Body::empty())
        .map_err(|error| status_of::broken("a request to a node cannot be made", &error))
}

/// What a node's refusal becomes.
async fn failed(answer: Response<Incoming>) -> Box<Status> {
    let code = answer.status();
    let limited = http_body_util::Limited::new(answer.into_body(), MAX_ERROR);
    let text = match timeout(ANSWER, limited.collect()).await {
        Ok(Ok(body)) => String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
        _ => String::new(),
    };
    // A node may answer with a Status itself.
    if let Ok(status) = serde_json::from_str::<Status>(&text) {
        return Box::new(status);
    }
    Box::new(match code {
        StatusCode::BAD_REQUEST => Status::bad_request(text),
        StatusCode::NOT_FOUND => Status::failure(404, "NotFound", text),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Status::internal(format!("the node refuses the API server: {text}"))
        }
        _ if code.is_client_error() => Status::failure(code.as_u16(), "", text),
        _ => Status::failure(
            500,
            "InternalError",
            format!("an error on the server ({text:?}) has prevented the request from succeeding"),
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_container_is_chosen_as_kubernetes_does() {
        let pod = |value| serde_json::from_value::<Pod>(value).unwrap();
        let one = pod(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}));
        let two = pod(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}, {"name": "b"}],
            "initContainers": [{"name": "i"}]}}));
        for (pod, asked, found) in [
            (&one, "", Ok("a")),
            (&one, "a", Ok("a")),
            (&one, "x", Err("container x is not valid for pod p")),
            (&two, "i", Ok("i")),
            (
                &two,
                "",
                Err(
                    "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
                ),
            ),
        ] {
            let chosen = container(pod, asked).map_err(|status| (status.code, status.message));
            let expected = found.map(str::to_owned).map_err(|why| (400, why.to_owned()));
            assert_eq!(chosen, expected, "{asked:?}");
        }
    }

    #[test]
    fn nothing_of_a_name_or_command_leaves_its_place_in_the_path() {
        assert_eq!(encoded("a/../b?c=d&e#f é"), "a%2F..%2Fb%3Fc%3Dd%26e%23f%20%C3%A9");
    }
}
