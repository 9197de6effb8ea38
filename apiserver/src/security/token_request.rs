//! `serviceaccounts/NAME/token`: a new token for an account, bound to what it is asked to be bound to.

use coracle_proto::{
    field::{self, Path},
    status::Status,
};
use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec, TokenRequestStatus},
        core::v1::{Node, Pod, Secret, ServiceAccount},
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::Value;

use super::{Security, decode};
use crate::{
    authn::{Bound, Claims, Reference},
    authz::{Operation, Write, restrict_node},
    registry::Registry,
    request::RequestInfo,
    status_of::{self, Result},
    user::User,
};

const GROUP: &str = "authentication.k8s.io";
const KIND: &str = "TokenRequest";

/// Seconds a token lives when nothing is said.
const DEFAULT_LIFETIME: i64 = 3600;

fn reference(name: Option<&String>, uid: Option<&String>) -> Reference {
    Reference { name: name.cloned().unwrap_or_default(), uid: uid.cloned().unwrap_or_default() }
}

fn invalid(name: &str, errors: &[field::Error]) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Box::new(Status::invalid(GROUP, KIND, name, errors))) }
}

pub(super) fn answer(security: &Security, user: &User, info: &RequestInfo, bytes: &[u8]) -> Result<Value> {
    let registry = &security.registry;
    let mut request: TokenRequest = decode(KIND, bytes, info)?;
    let (namespace, name) = (info.namespace.as_str(), info.name.as_str());
    let path = Path::new("metadata");
    for (given, own, what) in
        [(&request.metadata.name, name, "name"), (&request.metadata.namespace, namespace, "namespace")]
    {
        if let Some(given) = given.as_deref().filter(|given| !given.is_empty() && *given != own) {
            let detail = format!("must match the service account {what} if specified");
            invalid(name, &[field::Error::invalid(&path.child(what), given, &detail)])?;
        }
    }
    let account: ServiceAccount =
        registry.get_typed(namespace, name)?.ok_or_else(|| Box::new(Status::not_found("", "serviceaccounts", name)))?;
    let uid = account.metadata.uid.clone().unwrap_or_default();
    if let Some(given) = request.metadata.uid.as_deref().filter(|given| !given.is_empty() && *given != uid) {
        let why =
            format!("the UID in the token request ({given}) does not match the UID of the service account ({uid})");
        return Err(Box::new(Status::conflict(GROUP, KIND, name, &why)));
    }
    let mut wanted = request.spec.take().unwrap_or_default();
    let audiences = match wanted.audiences.take() {
        Some(audiences) if !audiences.is_empty() => audiences,
        _ => security.tokens.audiences().to_vec(),
    };
    wanted.audiences = Some(audiences.clone());
    let lifetime = wanted.expiration_seconds.unwrap_or(DEFAULT_LIFETIME);
    let spec = Path::new("spec");
    let expiration = spec.child("expirationSeconds");
    if lifetime < 600 {
        invalid(
            "",
            &[field::Error::invalid(&expiration, lifetime, "may not specify a duration less than 10 minutes")],
        )?;
    }
    if lifetime > 1 << 32 {
        invalid("", &[field::Error::too_long(&expiration, 1 << 32)])?;
    }
    wanted.expiration_seconds = Some(lifetime);
    request.spec = Some(wanted.clone());
    let (bound, pod) = bind(registry, namespace, name, &uid, &wanted)?;
    let body = serde_json::to_value(&request).map_err(|error| status_of::broken("a token request", &error))?;
    let pod = pod.map(serde_json::to_value).transpose().map_err(|error| status_of::broken("a pod", &error))?;
    let write = Write {
        operation: Operation::Create,
        group: "",
        resource: "serviceaccounts",
        subresource: "token",
        name,
        old: None,
        new: Some(&body),
        pod: pod.as_ref(),
    };
    restrict_node(user, &write).map_err(|why| Box::new(Status::forbidden("", "serviceaccounts", name, &why)))?;
    let now = (security.clock)();
    let seconds = now.as_second();
    let claims = Claims {
        aud: audiences,
        exp: seconds + lifetime,
        iat: seconds,
        iss: security.tokens.issuer().to_owned(),
        jti: uuid::Uuid::new_v4().to_string(),
        bound,
        nbf: seconds,
        sub: format!("system:serviceaccount:{namespace}:{name}"),
    };
    let token = security.tokens.sign(&claims).map_err(|error| status_of::broken("a token cannot be signed", &error))?;
    let whole = jiff::Timestamp::from_second(seconds).unwrap_or(now);
    let end = whole.checked_add(SignedDuration::from_secs(lifetime)).unwrap_or(jiff::Timestamp::MAX);
    request.metadata.name = Some(name.to_owned());
    request.metadata.namespace = Some(namespace.to_owned());
    request.metadata.uid = None;
    request.metadata.creation_timestamp = Some(Time(whole));
    request.status = Some(TokenRequestStatus { token: Some(token), expiration_timestamp: Some(Time(end)) });
    serde_json::to_value(&request).map_err(|error| status_of::broken("a token request", &error))
}

/// What the token is to be bound to, and the pod if it is one.
fn bind(
    registry: &Registry,
    namespace: &str,
    account: &str,
    uid: &str,
    request: &TokenRequestSpec,
) -> Result<(Bound, Option<Pod>)> {
    let own = Reference { name: account.to_owned(), uid: uid.to_owned() };
    let mut bound = Bound { namespace: namespace.to_owned(), serviceaccount: Some(own), ..Bound::default() };
    let Some(wanted) = &request.bound_object_ref else { return Ok((bound, None)) };
    let name = wanted.name.as_deref().unwrap_or_default();
    let missing = |resource: &str| Box::new(Status::not_found("", resource, name));
    let version = wanted.api_version.as_deref().unwrap_or_default();
    let kind = wanted.kind.as_deref().unwrap_or_default();
    let mut found_pod = None;
    let found = match (version, kind) {
        ("v1" | "", "Pod") => {
            let pod: Pod = registry.get_typed(namespace, name)?.ok_or_else(|| missing("pods"))?;
            let spec = pod.spec.as_ref();
            if spec.and_then(|s| s.service_account_name.as_deref()) != Some(account) {
                return Err(Box::new(Status::bad_request(format!(
                    "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
                ))));
            }
            if let Some(node) = spec.and_then(|s| s.node_name.as_ref()).filter(|n| !n.is_empty()) {
                let there: Option<Node> = registry.get_typed("", node)?;
                bound.node = Some(reference(Some(node), there.as_ref().and_then(|n| n.metadata.uid.as_ref())));
            }
            let found = reference(pod.metadata.name.as_ref(), pod.metadata.uid.as_ref());
            found_pod = Some(pod);
            bound.pod = Some(found.clone());
            found
        }
        ("v1" | "", "Secret") => {
            let secret: Secret = registry.get_typed(namespace, name)?.ok_or_else(|| missing("secrets"))?;
            let found = reference(secret.metadata.name.as_ref(), secret.metadata.uid.as_ref());
            bound.secret = Some(found.clone());
            found
        }
        ("v1" | "", "Node") => {
            let node: Node = registry.get_typed("", name)?.ok_or_else(|| missing("nodes"))?;
            let found = reference(node.metadata.name.as_ref(), node.metadata.uid.as_ref());
            bound.node = Some(found.clone());
            found
        }
        _ => {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Box::new(Status::bad_request(why)));
        }
    };
    match wanted.uid.as_deref() {
        Some(given) if !given.is_empty() && given != found.uid => {
            let why = format!(
                "the UID in the bound object reference ({given}) does not match the UID in record. The object might have \
                 been deleted and then recreated"
            );
            Err(Box::new(Status::conflict("", kind, name, &why)))
        }
        _ => Ok((bound, found_pod)),
    }
}
