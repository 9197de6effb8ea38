//! Proxies: requests passed on to pods, services and nodes (`pods/NAME/proxy/…`, likewise for the other two).
//!
//! ```text
//!   {scheme:}NAME{:port} ──place──► an address and port ──► the same request there, its answer back with the links in it
//!                                                           leading through here again
//! ```
//!
//! **Invariant:** nobody is led to where the objects do not say: not to loopback or link-local addresses, where this server's
//! host has its own services, and from a service only to addresses that are pods'.

mod place;

use std::sync::Arc;

use axum::body::Body;
use coracle_proto::status::Status;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use tokio::sync::Semaphore;

use self::place::Place;
use crate::{
    registry::Registry,
    request::RequestInfo,
    security::Security,
    server::Handler,
    status_of::Result,
    upstream::{
        connect::{Connector, Protection, Reached, Tasks, Trusted, tls},
        links::{Links, joined},
        pass::{self, Way},
    },
    user::User,
};

/// Requests passed on at once; each costs two sockets.
const ROOM: usize = 1024;

/// See the module.
pub(crate) struct Proxies {
    registry: Registry,
    security: Arc<Security>,
    tasks: Tasks,
    way: Way,
}

/// What follows `proxy` in the path, as it was sent: empty or from a slash on.
fn rest(path: &str, info: &RequestInfo) -> String {
    // api, v1, namespaces, NAMESPACE, pods, NAME, proxy
    let before = if info.namespace.is_empty() { 5 } else { 7 };
    let steps: Vec<&str> = path.split('/').skip(1).skip(before).collect();
    if steps.is_empty() { String::new() } else { joined("", &format!("/{}", steps.join("/"))) }
}

impl Proxies {
    /// The ways to pods, services and nodes.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(crate) fn new(registry: Registry, security: Arc<Security>) -> Result<Self, String> {
        let tasks = Tasks::new();
        // Nobody vouches for certificates in pods; Kubernetes does not look at them either.
        let tls = tls(&Trusted::Anybody, None)?;
        let connector = Connector { place: Reached::Uri, protection: Protection::Scheme(tls) };
        let way = Way::new(&tasks, connector, Arc::new(Semaphore::new(ROOM)));
        Ok(Self { registry, security, tasks, way })
    }

    /// Ends what is under way and waits for it.
    pub(crate) async fn stop(&self) {
        self.tasks.stop().await;
    }

    async fn answer(&self, info: &RequestInfo, request: Request<Body>) -> Result<Response<Body>> {
        let place = match info.resource.as_str() {
            "pods" => place::pod(&self.registry, info)?,
            "services" => place::service(&self.registry, info)?,
            _ => place::node(&self.registry, info)?,
        };
        let is_upgrade = pass::is_upgrade(request.headers());
        let (whole, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
        let query = if query.is_empty() { query } else { format!("?{query}") };
        let rest = rest(&whole, info);
        if rest.is_empty() && !is_upgrade && matches!(*request.method(), Method::GET | Method::HEAD) {
            // Relative links of a page lead on only from a path that ends in a slash.
            return moved(&format!("{whole}/{query}"));
        }
        let prefix = whole.strip_suffix(rest.as_str()).unwrap_or(&whole).trim_end_matches('/').to_owned();
        let links = Links { prefix, server: place.address(), asked: pass::asked_host(&request) };
        let request = forwarded(request, &joined(&links.prefix, &rest));
        let path = if rest.is_empty() { "/" } else { rest.as_str() };
        let answered = match &place {
            Place::Kubelet { node, address } => {
                let to = uri(&format!("{path}{query}"))?;
                self.security.nodes.pass(node, address, request, to).await
            }
            Place::Server { scheme, .. } => {
                let to = uri(&format!("{scheme}://{}{path}{query}", links.server))?;
                self.way.pass(request, to).await
            }
        };
        let unreached = |why: String| match is_upgrade {
            true => Box::new(Status::internal(format!("error dialing backend: {why}"))),
            false => Box::new(Status::unavailable(format!("error trying to reach service: {why}"))),
        };
        let response = answered.map_err(unreached)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        links.rewrite(response).await.map_err(unreached)
    }
}

fn uri(text: &str) -> Result<Uri> {
    text.parse().map_err(|error| Box::new(Status::bad_request(format!("{text:?} is no URL: {error}"))))
}

fn moved(to: &str) -> Result<Response<Body>> {
    let to = HeaderValue::from_str(to).map_err(|error| Box::new(Status::bad_request(error.to_string())))?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

/// The request with the path the client asked for, for servers that make links by it.
fn forwarded(mut request: Request<Body>, path: &str) -> Request<Body> {
    if let Ok(path) = HeaderValue::from_str(path) {
        request.headers_mut().insert(HeaderName::from_static("x-forwarded-uri"), path);
    }
    request
}

impl Handler for Proxies {
    fn serves(&self, info: &RequestInfo) -> bool {
        info.is_resource
            && info.group.is_empty()
            && info.version == "v1"
            && info.subresource == "proxy"
            && matches!(info.resource.as_str(), "pods" | "services" | "nodes")
    }

    fn handle<'a>(
        &'a self,
        _: &'a User,
        info: &'a RequestInfo,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>>> {
        Box::pin(self.answer(info, request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_proxy_stays_as_it_was_sent() {
        for (path, expected) in [
            ("/api/v1/namespaces/a/pods/web:80/proxy", ""),
            ("/api/v1/namespaces/a/pods/web:80/proxy/", "/"),
            ("/api/v1/namespaces/a/services/http:web:x/proxy/a%2Fb/proxy/c/", "/a%2Fb/proxy/c/"),
            ("/api/v1/nodes/n/proxy/metrics", "/metrics"),
            ("/api/v1/nodes/n/proxy/../../x", "/x"),
        ] {
            let info = RequestInfo::new(&Method::GET, &path.parse().unwrap());
            assert_eq!(rest(path, &info), expected, "{path}");
        }
    }
}
