//! `POST /coracle/v1/join`: certificates for a node, at first and whenever they are to be renewed.
//!
//! Who may: a bearer of a join token whose group is `system:bootstrappers:coracle:nodes`, for a name no live node has with
//! another key; and a node itself, by its own certificate, for its own name. The request and the answer are JSON:
//!
//! ```json
//! {"node": "attic", "clientRequest": "-----BEGIN CERTIFICATE REQUEST-----…", "serverRequest": "-----BEGIN …"}
//! {"authority": "-----BEGIN CERTIFICATE-----…", "clientCertificate": "-----BEGIN …", "serverCertificate": "-----BEGIN …",
//!  "renewAfter": "2027-03-01T12:00:00Z"}
//! ```
//!
//! Both signing requests are PEM (PKCS #10); their subjects are ignored. The client certificate is for
//! `system:node:<node>` of `system:nodes`. The server certificate holds the node's name and those addresses of
//! `serverRequest` that are not the API server's own, since a node that could show them could pose as the API server; the
//! API server itself calls nodes by their names. `renewAfter` is when to ask again, with new keys and the certificate then
//! held.
//!
//! Refusals are a `Status`: 400 for what is malformed, 403 for whom may not, 409 for a name that is taken.

use coracle_proto::{join_token::NODE_GROUP, name, status::Status};
use coracle_store::{Compare, Op, Revision, Txn};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use serde::{Deserialize, Serialize};

use super::Security;
use crate::{
    authz::MASTERS,
    pki::{self, Profile},
    registry::Registry,
    status_of::{self, Result},
    user::User,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    node: String,
    client_request: String,
    server_request: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Answer {
    authority: String,
    client_certificate: String,
    server_certificate: String,
    renew_after: Timestamp,
}

/// What is remembered of a node that joined, under `/coracle/nodes/<name>`.
#[derive(Serialize, Deserialize)]
struct Joined {
    /// SHA-256 of its client key.
    key: String,
}

fn refused(error: pki::Error) -> Box<Status> {
    match error {
        pki::Error::Malformed(why) => Box::new(Status::bad_request(why)),
        error => status_of::broken("a certificate cannot be made", &error),
    }
}

pub(super) async fn answer(security: &Security, user: &User, bytes: &[u8]) -> Result<Answer> {
    let registry = &security.registry;
    let request: Request = serde_json::from_slice(bytes).map_err(|error| {
        Box::new(Status::bad_request(format!(
            "JoinRequest in version \"v1\" cannot be handled as a JoinRequest: json: {error}"
        )))
    })?;
    let node = request.node.as_str();
    if let Some(why) = name::dns1123_subdomain(node).first() {
        return Err(Box::new(Status::bad_request(format!("{node:?} is no node name: {why}"))));
    }
    let renews = user.name == format!("system:node:{node}") && user.is_in("system:nodes");
    if !renews && !user.is_in(NODE_GROUP) && !user.is_in(MASTERS) {
        let why = format!("User {:?} may not join as node {node:?}", user.name);
        return Err(Box::new(Status::forbidden("", "nodes", node, &why)));
    }
    let now = (security.clock)();
    let key = pki::requested_key(&request.client_request).map_err(refused)?;
    remember(registry, node, key, renews, now).await?;
    let own = security.pki.serving_names();
    let asked = pki::requested_names(&request.server_request).map_err(refused)?;
    let addresses: Vec<String> =
        asked.into_iter().filter(|name| name.parse::<std::net::IpAddr>().is_ok() && !own.contains(name)).collect();
    let authority = security.pki.authority();
    let sign = |request: &str, profile: &Profile| authority.sign_request(request, profile, now).map_err(refused);
    let (_, client_certificate) = sign(&request.client_request, &Profile::node_client(node))?;
    let (_, server_certificate) = sign(&request.server_request, &Profile::node_server(node, &addresses))?;
    let life = SignedDuration::try_from(authority.lifetime() * 2 / 3).unwrap_or(SignedDuration::ZERO);
    Ok(Answer {
        authority: authority.pem().to_owned(),
        client_certificate,
        server_certificate,
        renew_after: now.checked_add(life).unwrap_or(now),
    })
}

/// Keeps whose name it is; two who ask at once do not both get it.
async fn remember(registry: &Registry, node: &str, key: String, renews: bool, now: Timestamp) -> Result<()> {
    let place = format!("/coracle/nodes/{node}");
    let taken = || {
        let why = "a live node of this name has another key; stop it, or delete its Node object and wait until its lease \
                   has ended";
        Box::new(Status::conflict("", "nodes", node, why))
    };
    let stored = registry.store().get(place.as_bytes());
    if let Some(stored) = &stored {
        let joined: Option<Joined> = serde_json::from_slice(&stored.value).ok();
        match joined {
            Some(joined) if joined.key == key => return Ok(()),
            Some(_) if !renews && is_live(registry, node, now)? => return Err(taken()),
            _ => {}
        }
    } else if !renews && is_live(registry, node, now)? {
        // A node that never joined is one of the server's own process.
        return Err(taken());
    }
    let value = serde_json::to_vec(&Joined { key })
        .map_err(|error| status_of::broken("a joined node cannot be encoded", &error))?;
    let revision = stored.map_or(Revision::NONE, |entry| entry.mod_revision);
    let txn = Txn {
        compare: vec![Compare::unchanged(place.clone(), revision)],
        then: vec![Op::put(place, value)],
        or_else: Vec::new(),
    };
    let done = registry.store().txn(txn).await.map_err(|error| status_of::store(&error))?;
    if done.succeeded { Ok(()) } else { Err(taken()) }
}

/// Whether the node renewed its lease of late: within four times the lease's own duration.
pub(crate) fn is_live(registry: &Registry, node: &str, now: Timestamp) -> Result<bool> {
    let lease: Option<Lease> = registry.get_typed("kube-node-lease", node)?;
    let Some(spec) = lease.and_then(|lease| lease.spec) else { return Ok(false) };
    let Some(renewed) = spec.renew_time else { return Ok(false) };
    let patience = 4 * i64::from(spec.lease_duration_seconds.unwrap_or(40).max(10));
    Ok(now.duration_since(renewed.0) < SignedDuration::from_secs(patience))
}
