//! Who asks: the subject of the client's certificate, and whether it may.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::access::Access;

/// The name the API server uses towards nodes.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// What a client's certificate says; its signature was checked in the handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The common name; `None` without a certificate.
    pub(crate) name: Option<String>,
    /// The organizations.
    pub(crate) groups: Vec<String>,
}

impl Identity {
    /// The identity in the first of these certificates.
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(first) = certificates.and_then(|c| c.first()) else { return Self::default() };
        let Ok((_, certificate)) = X509Certificate::from_der(first) else { return Self::default() };
        let subject = certificate.subject();
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
        Self {
            name: subject.iter_common_name().next().and_then(text),
            groups: subject.iter_organization().filter_map(text).collect(),
        }
    }

    fn may(&self) -> bool {
        self.name.as_deref() == Some(API_SERVER) || self.groups.iter().any(|g| g == MASTERS)
    }
}

/// Lets the API server in, without asking it, and whom it says may.
pub(crate) async fn guard(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    let identity = request.extensions().get::<Identity>().cloned().unwrap_or_default();
    if !identity.may() {
        let checked = access.check(&identity, request.headers(), request.method(), request.uri().path()).await;
        if let Err(response) = checked {
            return response;
        }
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::get;
    use http::StatusCode;
    use tower::ServiceExt;

    use super::*;

    async fn ask(identity: Option<Identity>) -> StatusCode {
        // An API server that answers nothing with yes.
        let denies = axum::routing::any(|| async { r#"{"spec": {}, "status": {"allowed": false}}"# });
        let api: Router<()> = Router::new().fallback(denies);
        let access = Arc::new(Access::new(kube::Client::new(api, "default"), "n1".to_owned()));
        let guard = axum::middleware::from_fn_with_state(access, guard);
        let router = Router::new().route("/pods", get(|| async { "ok" })).layer(guard);
        let mut request = http::Request::get("/pods").body(Body::empty()).unwrap();
        if let Some(identity) = identity {
            request.extensions_mut().insert(identity);
        }
        router.oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn only_the_api_server_is_let_in_without_being_asked() {
        let who = |name: &str, group: &str| Identity { name: Some(name.into()), groups: vec![group.into()] };
        for (identity, want) in [
            (None, StatusCode::UNAUTHORIZED),
            (Some(Identity::default()), StatusCode::UNAUTHORIZED),
            (Some(who("system:node:n1", "system:nodes")), StatusCode::FORBIDDEN),
            (Some(who("admin", "system:authenticated")), StatusCode::FORBIDDEN),
            (Some(who(API_SERVER, "")), StatusCode::OK),
            (Some(who("coracle-apiserver", MASTERS)), StatusCode::OK),
        ] {
            assert_eq!(ask(identity.clone()).await, want, "{identity:?}");
        }
    }

    #[test]
    fn a_certificate_tells_name_and_groups() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "n");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, MASTERS);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let got = Identity::of(Some(&[certificate.der().clone()]));
        assert_eq!(got, Identity { name: Some("n".into()), groups: vec![MASTERS.into()] });
        assert_eq!(Identity::of(None), Identity::default());
        assert_eq!(Identity::of(Some(&[CertificateDer::from(vec![1, 2, 3])])), Identity::default());
    }
}
