//! The servers of a cluster: who they are, how one is added, and how one goes.
//!
//! ```text
//!   GET    /coracle/v1/servers          all of them
//!   POST   /coracle/v1/servers          a further one, or a witness, which shows a token that was made for such
//!   DELETE /coracle/v1/servers/NAME     one less, dead or alive, by name or id
//! ```
//!
//! They are paths without objects, so RBAC guards them by `nonResourceURLs`: the second is for the bearers of server
//! tokens, the others for administrators. A server that joins is handed the cluster's keys, so its token is worth as much
//! as they are: it is good for one server, and gone when that one was admitted. A witness is handed a certificate for a key
//! of its own, and no other key.

pub(crate) mod endpoints;
mod joining;
mod leading;
mod member;
mod place;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use coracle_proto::{
    join_token::{BootstrapToken, SECRET_NAMESPACE, SERVER_GROUP, WITNESS_GROUP},
    name,
    status::Status,
};
use coracle_store::{Compare, Error as StoreError, MemberId, MemberInfo, Op, Store, Txn};
use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::joining::{Error as JoinError, Join};
pub(crate) use self::{
    joining::Kind,
    leading::while_leading,
    member::{Arrived, Member},
};
use crate::{
    answer,
    authz::MASTERS,
    body,
    encryption::Encryption,
    peers::{Peers, member_profile},
    pki::{self, Pki},
    registry::Registry,
    request::RequestInfo,
    security::join,
    server::Handler,
    status_of::{self, Result},
    stored,
    user::User,
};

/// Where these requests go.
pub(crate) const PATH: &str = "/coracle/v1/servers";

/// How long a change of the members is tried while another is under way, or while there is no leader.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was refused is tried again when the members, or who leads, have changed. Some refusals have no such end (a message
/// that was lost): they are tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);

/// The file with the keys that stored values are sealed with, among the others of the cluster.
const ENCRYPTION: &str = "encryption.yaml";

/// A server that wants to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct JoinRequest {
    /// What people call it.
    pub(crate) name: String,
    /// Where the others reach it, `host:port`.
    pub(crate) addresses: Vec<String>,
    /// Where it reached the server it asks, `host:port`.
    pub(crate) reached_at: String,
    /// Its flags that must be the same everywhere.
    pub(crate) service_cidr: String,
    /// Likewise.
    pub(crate) dns_domain: String,
    /// It was given the keys that values are sealed with in a file.
    pub(crate) has_encryption_config: bool,
    /// It wants to be a witness, which has no flags that must be the same, and asks for a certificate (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_request: Option<String>,
    /// The node that is to run beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
}

/// What a server that was admitted is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Admitted {
    /// The cluster's id, hexadecimal.
    pub(crate) cluster: String,
    /// Ids of its first member and of the new one.
    pub(crate) founder: u64,
    pub(crate) own: u64,
    /// The members there are.
    pub(crate) members: Vec<Known>,
    /// The cluster's keys, by file name; of a witness the authority's certificate alone.
    pub(crate) files: Vec<(String, String)>,
    /// A witness's certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate: Option<String>,
}

/// Where a member is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) id: u64,
    pub(crate) addresses: Vec<String>,
}

/// A server of the cluster, as the one that was asked sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// Its id, hexadecimal.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where it is found, `host:port`.
    pub addresses: Vec<String>,
    /// It votes; otherwise it is catching up.
    pub votes: bool,
    /// It is a witness, and keeps nothing of what is stored.
    #[serde(default)]
    pub witness: bool,
    /// It leads.
    pub leads: bool,
    /// It is the one that was asked.
    pub own: bool,
    /// It is connected to the one that was asked.
    pub reached: bool,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List {
    /// By id.
    pub servers: Vec<Server>,
}

/// See the module.
pub(crate) struct Servers {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) peers: Arc<Peers>,
    pub(crate) encryption: Arc<Encryption>,
    pub(crate) pki: Arc<Pki>,
    pub(crate) pki_dir: PathBuf,
    /// This server's name.
    pub(crate) name: String,
    /// Where it is found as far as it was told.
    pub(crate) addresses: Vec<String>,
    pub(crate) service_cidr: String,
    pub(crate) dns_domain: String,
    /// Where writes run to their end.
    pub(crate) writes: TaskTracker,
    /// Somebody asked this server to leave, so that it is removed is what was wanted.
    pub(crate) leaving: AtomicBool,
    /// One change at a time.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

enum Route<'a> {
    All,
    One(&'a str),
}

fn route(info: &RequestInfo) -> Option<Route<'_>> {
    if info.is_resource {
        return None;
    }
    match info.path.strip_prefix(PATH)? {
        "" | "/" => Some(Route::All),
        rest => rest.strip_prefix('/').filter(|name| !name.contains('/')).map(Route::One),
    }
}

/// Why a server cannot be added or removed, in a code and a sentence.
fn refused(code: u16, reason: &str, why: impl Into<String>) -> Box<Status> {
    Box::new(Status::failure(code, reason, why))
}

impl Servers {
    /// The members as this one sees them.
    pub(crate) fn list(&self) -> List {
        let (cluster, heard) = (self.store.cluster(), self.peers.heard());
        let heard = heard.borrow();
        let is_only = cluster.members.len() == 1;
        let servers = cluster.members.iter().map(|member| {
            let own = member.id == cluster.own;
            let name = if own && member.info.name.is_empty() { self.name.clone() } else { member.info.name.clone() };
            let no_addresses = own && member.info.addresses.is_empty();
            Server {
                id: member.id.to_string(),
                name,
                addresses: if no_addresses { self.addresses.clone() } else { member.info.addresses.clone() },
                votes: member.votes,
                witness: member.info.witness,
                leads: cluster.leader == Some(member.id) || (own && is_only),
                own,
                reached: own || heard.contains(&member.id),
            }
        });
        List { servers: servers.collect() }
    }

    async fn answer(
        self: &Arc<Self>,
        user: &User,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>> {
        match (route(info), info.verb.as_str()) {
            (Some(Route::All), "get") => Ok(answer::json_value(StatusCode::OK, &self.list())),
            (Some(Route::All), "post") => {
                let media = body::media_type(request.headers());
                let body = body::to_json(&media, body::read(request).await?)?;
                let (this, user) = (Arc::clone(self), user.clone());
                let admitted = self.writes.spawn(async move { this.admit(&user, &body).await }).await;
                let admitted = admitted.map_err(|_| Box::new(Status::internal("the request ended in a panic")))?;
                Ok(answer::json_value(StatusCode::OK, &admitted?))
            }
            (Some(Route::One(wanted)), "delete") => {
                let (this, wanted) = (Arc::clone(self), wanted.to_owned());
                let removed = self.writes.spawn(async move { this.remove(&wanted).await }).await;
                let removed = removed.map_err(|_| Box::new(Status::internal("the request ended in a panic")))?;
                Ok(answer::json_value(StatusCode::OK, &removed?))
            }
            (Some(_), _) => Err(Box::new(Status::method_not_allowed())),
            (None, _) => Err(Box::new(Status::no_such_path())),
        }
    }

    /// Checks what must be so before anything is done.
    fn check(&self, request: &JoinRequest) -> Result<()> {
        if let Some(why) = name::dns1123_subdomain(&request.name).first() {
            return Err(Box::new(Status::bad_request(format!("{:?} is no name for a server: {why}", request.name))));
        }
        let info = info_of(request);
        let is_address = |text: &String| {
            text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        if !info.is_valid() || info.addresses.is_empty() || !info.addresses.iter().all(is_address) {
            let why = "a server that joins must say at which addresses (host:port) the others reach it";
            return Err(Box::new(Status::bad_request(why)));
        }
        if let Some(request) = &request.certificate_request {
            let read = pki::requested_key(request);
            return read.map(drop).map_err(|error| Box::new(Status::bad_request(error.to_string())));
        }
        let own = [("--service-cidr", &self.service_cidr), ("--dns-domain", &self.dns_domain)];
        for ((flag, own), theirs) in own.into_iter().zip([&request.service_cidr, &request.dns_domain]) {
            if own != theirs {
                let why =
                    format!("{flag} is {own:?} in this cluster, and the server that wants to join has {theirs:?}");
                return Err(Box::new(Status::bad_request(why)));
            }
        }
        match (self.encryption.is_own(), request.has_encryption_config) {
            (true, true) => {
                let why = "this cluster keeps the keys stored values are sealed with itself: join without \
                           --encryption-provider-config";
                Err(Box::new(Status::bad_request(why)))
            }
            (false, false) => {
                let why = "the keys stored values are sealed with are in a file here: give the server that joins a copy \
                           of it with --encryption-provider-config";
                Err(Box::new(Status::bad_request(why)))
            }
            _ => Ok(()),
        }
    }

    /// A node of that name must not be another machine's, which is well.
    fn check_node(&self, request: &JoinRequest) -> Result<()> {
        let Some(node) = &request.node else { return Ok(()) };
        if let Some(why) = name::dns1123_subdomain(node).first() {
            return Err(Box::new(Status::bad_request(format!("{node:?} is no node name: {why}"))));
        }
        if join::is_live(&self.registry, node, jiff::Timestamp::now())? {
            let why = format!(
                "there is a node {node:?} already, and its machine is well: give the new one another name with --node-name"
            );
            return Err(refused(409, "Conflict", why));
        }
        Ok(())
    }

    async fn admit(&self, user: &User, body: &Bytes) -> Result<Admitted> {
        let request: JoinRequest = serde_json::from_slice(body)
            .map_err(|error| Box::new(Status::bad_request(format!("this is no request to join: json: {error}"))))?;
        let (group, what) =
            if request.certificate_request.is_some() { (WITNESS_GROUP, "witness") } else { (SERVER_GROUP, "server") };
        if !user.is_in(group) && !user.is_in(MASTERS) {
            let why = format!("User {:?} may not add a {what}", user.name);
            return Err(Box::new(Status::forbidden("", "servers", &request.name, &why)));
        }
        self.check(&request)?;
        self.check_node(&request)?;
        let _turn = self.turn.lock().await;
        self.store.barrier().await.map_err(|error| status_of::store(&error))?;
        let token = self.token_of(user)?;
        self.describe_own(&request).await?;
        let cluster = self.store.cluster();
        if cluster.members.iter().any(|member| member.info.name == request.name) {
            let why = format!(
                "there is a server {0:?} already: if it is gone for good, remove it (coracle server remove {0}), or give \
                 the new one another name with --server-name",
                request.name
            );
            return Err(refused(409, "Conflict", why));
        }
        let info = info_of(&request);
        if info.witness {
            let (witnesses, servers): (Vec<_>, Vec<_>) = cluster.members.iter().partition(|m| m.info.witness);
            if let Some(witness) = witnesses.first() {
                let why = format!(
                    "there is a witness already, {:?}: if it is gone for good, remove it (coracle server remove {0})",
                    witness.info.name
                );
                return Err(refused(409, "Conflict", why));
            }
            if servers.len() < 2 {
                let why = "a witness is of use beside two servers: add the second server first";
                return Err(refused(409, "Conflict", why));
            }
        }
        let own = self.patiently(|| self.store.admit(info.clone())).await.map_err(|error| match error {
            StoreError::QuorumAtRisk => {
                refused(409, "Conflict", "there are as many servers as a cluster may have: remove one first")
            }
            error => status_of::store(&error),
        })?;
        if let Some(spend) = token {
            let spent = self.store.txn(spend).await;
            if !spent.as_ref().is_ok_and(|done| done.succeeded) {
                // Somebody else was quicker with it.
                self.patiently(|| self.store.dismiss(own)).await.map_err(|error| status_of::store(&error))?;
                return match spent {
                    Ok(_) => Err(Box::new(Status::unauthorized())),
                    Err(error) => Err(status_of::store(&error)),
                };
            }
        }
        tracing::info!(member = own.to_string(), name = request.name, witness = info.witness, "a server was admitted");
        let pki_dir = self.pki_dir.clone();
        let more: &[&str] = if self.encryption.is_own() { &[ENCRYPTION] } else { &[] };
        let files = tokio::task::spawn_blocking(move || pki::shared_files(&pki_dir, more)).await;
        let files = files.map_err(|_| Box::new(Status::internal("the keys could not be read")))?;
        let mut files = files.map_err(|error| status_of::broken("the cluster's keys cannot be read", &error))?;
        let mut certificate = None;
        if let Some(request) = &request.certificate_request {
            files.retain(|(name, _)| name == pki::AUTHORITY);
            let profile = member_profile(self.store.cluster_id(), own, Kind::Witness);
            let signed = self.pki.sign_member(request, &profile, jiff::Timestamp::now());
            certificate = Some(signed.map_err(|error| status_of::broken("the witness gets no certificate", &error))?);
        }
        let known = self.store.cluster().members.into_iter().filter(|member| member.id != own);
        Ok(Admitted {
            cluster: hex::encode(self.store.cluster_id()),
            founder: cluster.founder.0,
            own: own.0,
            members: known.map(|member| Known { id: member.id.0, addresses: member.info.addresses }).collect(),
            files,
            certificate,
        })
    }

    /// What makes the token of this user worthless, if it is still good.
    fn token_of(&self, user: &User) -> Result<Option<Txn>> {
        let Some(id) = user.name.strip_prefix("system:bootstrap:") else { return Ok(None) };
        let key = stored::key("secrets", SECRET_NAMESPACE, &BootstrapToken::secret_name(id));
        let entry = self.store.get(&key).ok_or_else(|| Box::new(Status::unauthorized()))?;
        let compare = vec![Compare::unchanged(entry.key.clone(), entry.mod_revision)];
        Ok(Some(Txn { compare, then: vec![Op::delete(key)], or_else: Vec::new() }))
    }

    /// Tells where this server is found, if nobody knows: the one that joins must be able to reach it.
    async fn describe_own(&self, request: &JoinRequest) -> Result<()> {
        let cluster = self.store.cluster();
        let known = cluster.members.iter().find(|member| member.id == cluster.own);
        if known.is_some_and(|known| !known.info.addresses.is_empty()) {
            return Ok(());
        }
        let addresses =
            if self.addresses.is_empty() { vec![request.reached_at.clone()] } else { self.addresses.clone() };
        let info = MemberInfo { name: self.name.clone(), addresses, witness: false };
        if !info.is_valid() {
            return Err(Box::new(Status::bad_request("the server was reached at an address longer than any")));
        }
        self.peers.is_at(info.addresses.clone());
        self.store.describe(info).await.map_err(|error| status_of::store(&error))
    }

    async fn remove(&self, wanted: &str) -> Result<List> {
        let _turn = self.turn.lock().await;
        let members = self.list().servers;
        let mut found = members.iter().filter(|server| server.id == wanted || server.name == wanted);
        let Some(server) = found.next() else { return Err(Box::new(Status::not_found("", "servers", wanted))) };
        if found.next().is_some() {
            let why = format!("several servers are called {wanted:?}: name the one to remove by its id");
            return Err(refused(409, "Conflict", why));
        }
        if members.len() == 1 {
            let why = "this is the only server: the cluster ends with it (stop it, and remove its data directory)";
            return Err(refused(409, "Conflict", why));
        }
        let id = u64::from_str_radix(&server.id, 16).map(MemberId).unwrap_or_default();
        if server.own {
            self.leaving.store(true, Ordering::SeqCst);
        }
        let removed = self.patiently(|| self.dismiss(id)).await;
        if removed.is_err() && server.own && !self.was_removed() {
            self.leaving.store(false, Ordering::SeqCst);
        }
        match removed {
            Ok(()) => {
                tracing::info!(member = server.id, name = server.name, "a server was removed");
                Ok(List { servers: members.iter().filter(|other| other.id != server.id).cloned().collect() })
            }
            Err(StoreError::QuorumAtRisk) => {
                let why = "without it too few servers would be left that are well, and nothing could be written any more: \
                           bring another back, or remove the dead ones, first";
                Err(refused(409, "Conflict", why))
            }
            Err(StoreError::MemberNotFound { .. }) => Err(Box::new(Status::not_found("", "servers", wanted))),
            Err(error) => Err(status_of::store(&error)),
        }
    }

    async fn dismiss(&self, id: MemberId) -> std::result::Result<(), StoreError> {
        match self.store.dismiss(id).await {
            // Who is removed itself may hear of it otherwise than by the answer.
            Err(_) if self.was_removed() => Ok(()),
            Err(StoreError::OutcomeUnknown) => {
                let is_there = self.store.cluster().members.iter().any(|member| member.id == id);
                if is_there { Err(StoreError::Unavailable) } else { Ok(()) }
            }
            done => done,
        }
    }

    /// Whether this server is none of the cluster's any more.
    pub(crate) fn was_removed(&self) -> bool {
        was_removed(&self.store)
    }

    /// Whether somebody asked this server to leave.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    /// Waits until this server knows everything that was acknowledged before; a lone one does. False if it is to stop.
    pub(crate) async fn caught_up(&self, shutdown: &CancellationToken) -> bool {
        let mut changes = self.store.cluster_changes();
        let mut is_told = false;
        loop {
            changes.mark_unchanged();
            let caught_up = tokio::select! {
                () = shutdown.cancelled() => return false,
                caught_up = self.store.barrier() => caught_up,
            };
            match caught_up {
                Ok(_) => return true,
                // Who was removed ends another way.
                Err(error) if !is_told => {
                    let error: &(dyn std::error::Error + 'static) = &error;
                    tracing::info!(error, "waiting for a majority of the servers");
                    is_told = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return false,
                () = changed(&mut changes) => {}
            }
        }
    }

    /// Does it again while nothing was done because another change is under way, or while there is no leader.
    async fn patiently<T, F>(&self, change: impl Fn() -> F) -> std::result::Result<T, StoreError>
    where
        F: Future<Output = std::result::Result<T, StoreError>>,
    {
        let end = Instant::now() + PATIENCE;
        let mut changes = self.store.cluster_changes();
        loop {
            // Before it is tried, so that nothing that happens meanwhile is missed.
            changes.mark_unchanged();
            match change().await {
                Err(StoreError::Unavailable) if Instant::now() < end => changed(&mut changes).await,
                done => return done,
            }
        }
    }
}

/// Waits until it is worth while to try again what was refused.
async fn changed(changes: &mut watch::Receiver<()>) {
    // The store lives at least as long as whoever waits.
    let _ = tokio::time::timeout(AGAIN, changes.changed()).await;
}

/// What the others are to know of who wants to join.
fn info_of(request: &JoinRequest) -> MemberInfo {
    MemberInfo {
        name: request.name.clone(),
        addresses: request.addresses.clone(),
        witness: request.certificate_request.is_some(),
    }
}

/// Whether this store's member is none of the cluster's any more.
fn was_removed(store: &Store) -> bool {
    matches!(store.status().refusing, Some(StoreError::Removed))
}

/// Waits until this store's member is none of the cluster's any more; for ever after `shutdown`.
pub(crate) async fn removed(store: &Store, shutdown: &CancellationToken) {
    let mut changes = store.cluster_changes();
    loop {
        changes.mark_unchanged();
        if was_removed(store) {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return std::future::pending().await,
            // The store lives at least as long as this.
            _ = changes.changed() => {}
        }
    }
}

/// Tells the others where this store's member is found, whenever it is not what they know, until `shutdown`. It is called
/// `name` unless they have called it something before.
pub(crate) async fn keep_described(store: &Store, name: &str, addresses: &[String], shutdown: &CancellationToken) {
    let mut changes = store.cluster_changes();
    loop {
        changes.mark_unchanged();
        let cluster = store.cluster();
        let own = cluster.members.iter().find(|member| member.id == cluster.own);
        let is_news = cluster.members.len() > 1
            && !addresses.is_empty()
            && own.is_some_and(|own| own.info.addresses != addresses);
        let mut retry = false;
        if is_news {
            let known = own.map(|own| own.info.name.clone()).filter(|name| !name.is_empty());
            let name = known.unwrap_or_else(|| name.to_owned());
            let wanted = MemberInfo { name, addresses: addresses.to_vec(), ..MemberInfo::default() };
            retry = store.describe(wanted).await.is_err();
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            // The store lives at least as long as this.
            _ = changes.changed() => {}
            () = tokio::time::sleep(AGAIN), if retry => {}
        }
    }
}

/// The [`Servers`] as what requests come to.
pub(crate) struct Requests(pub(crate) Arc<Servers>);

impl Handler for Requests {
    fn serves(&self, info: &RequestInfo) -> bool {
        route(info).is_some()
    }

    fn handle<'a>(
        &'a self,
        user: &'a User,
        info: &'a RequestInfo,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>>> {
        Box::pin(self.0.answer(user, info, request))
    }
}
