//! The requests that are about identity and permission rather than about stored objects, and the ways to the nodes.
//!
//! ```text
//!   authentication.k8s.io, authorization.k8s.io   reviews: created, answered, never stored
//!   serviceaccounts/NAME/token                    a new token
//!   pods/NAME/log, exec, attach, portforward      passed on to the pod's node
//!   /openid/v1/jwks, /.well-known/…               how others check the cluster's tokens
//!   /coracle/v1/join                              certificates for nodes
//! ```

pub(crate) mod join;
mod keeper;
mod node_proxy;
mod reviews;
mod signer;
mod token_request;
mod token_secrets;

use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::status::Status;
use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::node_proxy::Nodes;
pub(crate) use self::node_proxy::{address_of, node_address};
pub(crate) use self::reviews::user_info;
pub(crate) use self::signer::Signer;
pub(crate) use self::token_secrets::TokenSecrets;
use crate::{
    accept, answer,
    authn::{Authenticators, Clock, Tokens},
    authz::Authorizer,
    body,
    ops::dotted,
    pki::Pki,
    registry::Registry,
    request::RequestInfo,
    server::Handler,
    status_of::Result,
    user::User,
};

/// What these requests are answered with.
pub struct Security {
    /// Keys and certificates.
    pub pki: Arc<Pki>,
    /// The objects, and with them who may do what.
    pub registry: Registry,
    /// Who is who.
    pub authenticators: Arc<Authenticators>,
    /// Service account tokens.
    pub tokens: Arc<Tokens>,
    /// The ways to the nodes.
    pub nodes: Nodes,
    /// The wall clock.
    pub clock: Clock,
}

/// Which of these requests one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Review,
    Token,
    Log,
    Session,
    PortForward,
    Keys,
    Discovery,
    Join,
}

fn route(info: &RequestInfo) -> Option<Route> {
    if !info.is_resource {
        return match info.path.trim_end_matches('/') {
            "/openid/v1/jwks" => Some(Route::Keys),
            "/.well-known/openid-configuration" => Some(Route::Discovery),
            "/coracle/v1/join" => Some(Route::Join),
            _ => None,
        };
    }
    match (info.group.as_str(), info.resource.as_str(), info.subresource.as_str()) {
        ("authentication.k8s.io" | "authorization.k8s.io", _, "") if info.version == "v1" => {
            reviews::is_review(&info.resource).then_some(Route::Review)
        }
        ("", "serviceaccounts", "token") => Some(Route::Token),
        ("", "pods", "log") => Some(Route::Log),
        ("", "pods", "exec" | "attach") => Some(Route::Session),
        ("", "pods", "portforward") => Some(Route::PortForward),
        _ => None,
    }
}

fn decode<T: DeserializeOwned>(kind: &str, bytes: &[u8], info: &RequestInfo) -> Result<T> {
    let refuse = |why: String| {
        Box::new(Status::bad_request(format!("{kind} in version \"v1\" cannot be handled as a {kind}: {why}")))
    };
    let mut unknown = Vec::new();
    let reader = &mut serde_json::Deserializer::from_slice(bytes);
    let read = serde_ignored::deserialize(reader, |path| unknown.push(dotted(&path)));
    let decoded = read.map_err(|error| refuse(format!("json: {error}")))?;
    if info.query.get("fieldValidation") == "Strict" {
        let found = coracle_proto::json::dropped(bytes, &unknown).map_err(|error| refuse(format!("json: {error}")))?;
        if !found.is_empty() {
            return Err(refuse(format!("strict decoding error: {}", found.join(", "))));
        }
    }
    Ok(decoded)
}

impl Security {
    fn authorizer(&self) -> Result<&Authorizer> {
        self.registry.authorizer().ok_or_else(|| Box::new(Status::unavailable("the server has not read its rules yet")))
    }

    async fn answer(&self, user: &User, info: &RequestInfo, request: Request<Body>) -> Result<Response<Body>> {
        let Some(route) = route(info) else { return Err(Box::new(Status::no_such_path())) };
        let creates = info.verb == "create" || info.verb == "post";
        match route {
            Route::Review | Route::Token | Route::Join if !creates => Err(Box::new(Status::method_not_allowed())),
            Route::Review => {
                accept::Encoding::of(request.headers()).ok_or_else(|| Box::new(accept::not_acceptable()))?;
                let review = reviews::answer(self, user, info, &json(request).await?).await?;
                Ok(answer::json_value(StatusCode::CREATED, &review))
            }
            Route::Token => {
                accept::Encoding::of(request.headers()).ok_or_else(|| Box::new(accept::not_acceptable()))?;
                let token = token_request::answer(self, user, info, &json(request).await?)?;
                Ok(answer::json_value(StatusCode::CREATED, &token))
            }
            Route::Join => {
                let joined = join::answer(self, user, &json(request).await?).await?;
                Ok(answer::json_value(StatusCode::OK, &joined))
            }
            Route::Log => self.nodes.log(&self.registry, info).await,
            Route::Session => self.nodes.session(&self.registry, info, request).await,
            Route::PortForward => self.nodes.port_forward(&self.registry, info, request).await,
            Route::Keys | Route::Discovery if info.verb != "get" => Err(Box::new(Status::method_not_allowed())),
            Route::Keys => {
                let mut response = answer::json_value(StatusCode::OK, &self.pki.signing_key().key_set());
                let kind = HeaderValue::from_static("application/jwk-set+json");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                Ok(cached(response))
            }
            Route::Discovery => Ok(cached(answer::json_value(StatusCode::OK, &self.discovery()))),
        }
    }

    /// OpenID Connect discovery, as far as checking tokens needs it.
    fn discovery(&self) -> Value {
        json!({
            "issuer": self.tokens.issuer(),
            "jwks_uri": format!("{}/openid/v1/jwks", self.pki.config().server),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// What anybody may keep for an hour, as Kubernetes says of its keys.
fn cached(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    response
}

async fn json(request: Request<Body>) -> Result<Bytes> {
    let media = body::media_type(request.headers());
    let body = body::read(request).await?;
    body::to_json(&media, body)
}

impl Handler for Security {
    fn serves(&self, info: &RequestInfo) -> bool {
        route(info).is_some()
    }

    fn handle<'a>(
        &'a self,
        user: &'a User,
        info: &'a RequestInfo,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>>> {
        Box::pin(self.answer(user, info, request))
    }
}
