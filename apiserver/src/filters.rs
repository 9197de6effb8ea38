//! The way of a request through the server, as one list.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::body::Body;
use coracle_proto::status::Status;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use rustls::pki_types::CertificateDer;
use tracing::Instrument as _;

use crate::{
    answer,
    authn::{Credentials, is_open},
    authz::MASTERS,
    request::RequestInfo,
    server::Inner,
    status_of::Result,
    user::User,
    verbs,
};

/// As long as a request's path and query may be.
const MAX_URI: usize = 64 * 1024;

/// Who is at the other end.
#[derive(Clone, Debug)]
pub(crate) enum Peer {
    /// A client on a connection, with the certificates it showed.
    Remote(Arc<[CertificateDer<'static>]>),
    /// A component of this process, which is who it says.
    InProcess(Arc<User>),
}

/// Takes a request through all filters, in this order:
///
/// 1. the log span, so that all that follows is told by its request id;
/// 2. panics, which answer this request alone;
/// 3. the bound on the URI (bodies are bounded where they are read);
/// 4. authentication: whose request is it?
/// 5. impersonation, which is refused;
/// 6. authorization: may he?
/// 7. the timeout, which long-running requests do not have;
/// 8. dispatch.
pub(crate) async fn handle(server: Arc<Inner>, peer: Peer, request: Request<Body>) -> Response<Body> {
    let info = Arc::new(RequestInfo::new(request.method(), request.uri()));
    let id = uuid::Uuid::new_v4();
    let span = tracing::debug_span!(
        "request",
        request_id = %id,
        verb = %info.verb,
        resource = %info.resource,
        subresource = %info.subresource,
        namespace = %info.namespace,
        name = %info.name,
        path = %info.path,
    );
    let begun = Instant::now();
    let guarded = AssertUnwindSafe(answer_to(server, peer, Arc::clone(&info), request)).catch_unwind();
    let mut response = guarded.instrument(span.clone()).await.unwrap_or_else(|_| {
        tracing::error!(parent: &span, "a request ended in a panic");
        answer::status(&Status::internal("the server could not handle this request"))
    });
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert("audit-id", value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
    tracing::debug!(parent: &span, status = response.status().as_u16(), duration = ?begun.elapsed(), "answered");
    response
}

async fn answer_to(server: Arc<Inner>, peer: Peer, info: Arc<RequestInfo>, request: Request<Body>) -> Response<Body> {
    match try_answer(server, peer, info, request).await {
        Ok(response) => response,
        Err(status) => answer::status(&status),
    }
}

async fn try_answer(
    server: Arc<Inner>,
    peer: Peer,
    info: Arc<RequestInfo>,
    request: Request<Body>,
) -> Result<Response<Body>> {
    let length = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    if length > MAX_URI {
        return Err(Box::new(Status::failure(414, "", "the request's URI is too long")));
    }
    let user = match peer {
        Peer::InProcess(user) => user,
        Peer::Remote(certificates) => {
            Arc::new(authenticate(&server, &certificates, &info.path, request.headers()).await?)
        }
    };
    refuse_impersonation(request.headers())?;
    authorize(&server, &user, &info)?;
    let long = info.is_long_running();
    let limit = server.config.request_timeout;
    let handled = verbs::dispatch(server, user, info, request);
    if long {
        return handled.await;
    }
    tokio::time::timeout(limit, handled).await.unwrap_or_else(|_| {
        let message = "Timeout: request did not complete within requested timeout";
        Err(Box::new(Status::timeout(message)))
    })
}

async fn authenticate(
    server: &Inner,
    certificates: &[CertificateDer<'static>],
    path: &str,
    headers: &HeaderMap,
) -> Result<User> {
    let value = headers.get(header::AUTHORIZATION);
    let bearer = value.and_then(|value| value.to_str().ok()).and_then(|text| {
        let (scheme, token) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let credentials = Credentials { certificates: certificates.to_vec(), bearer };
    match server.authenticator.authenticate(&credentials).await? {
        Some(user) => Ok(user),
        None if is_open(path) => Ok(User::anonymous()),
        None => Err(Box::new(Status::unauthorized())),
    }
}

/// Refuses to act as somebody else (`kubectl --as`). Passing over the wish would act with all that the asker may do,
/// which is more than was asked for.
fn refuse_impersonation(headers: &HeaderMap) -> Result<()> {
    // http keeps header names in lower case.
    match headers.keys().find(|name| name.as_str().starts_with("impersonate-")) {
        Some(name) => Err(Box::new(Status::bad_request(format!(
            "impersonation is not served by this version of Coracle: the request carries the header {name}"
        )))),
        None => Ok(()),
    }
}

/// Whether the user may do it. Before RBAC's objects are read only the superuser's group may do anything.
fn authorize(server: &Inner, user: &User, info: &RequestInfo) -> Result<()> {
    if !info.is_resource && is_open(&info.path) {
        return Ok(());
    }
    match server.registry.authorizer() {
        Some(authorizer) => authorizer.check(user, info),
        None if user.is_in(MASTERS) => Ok(()),
        None => Err(Box::new(Status::unavailable("the server has not read its rules yet"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_as_somebody_else_is_refused_and_not_done_as_oneself() {
        for name in ["Impersonate-User", "impersonate-group", "Impersonate-Uid", "Impersonate-Extra-scopes"] {
            let mut headers = HeaderMap::new();
            headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("alice"));
            let refused = refuse_impersonation(&headers).unwrap_err();
            assert_eq!(refused.code, 400, "{name}");
            assert!(refused.message.contains("impersonation is not served"), "{}", refused.message);
        }
        assert!(refuse_impersonation(&HeaderMap::new()).is_ok());
    }
}
