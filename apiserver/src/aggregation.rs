//! Aggregation: groups and versions that other API servers serve, passed on to them (KEP-263).
//!
//! ```text
//!   APIService with a service ──► Remote ──► check    is it there? by events, and every half minute while it should be
//!                                   │          └────► status.conditions, and what it serves: its discovery, its OpenAPI
//!   a client's request ─────────────┴──► the service, with the client's name in headers and the front proxy's certificate
//! ```
//!
//! A request comes here authenticated and authorized; the other server trusts the names in the headers because of the
//! certificate (`extension-apiserver-authentication` in `kube-system` tells it which), and may authorize again.

mod check;
mod definitions;
pub(crate) mod identity;
mod learned;
mod remote;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use coracle_store::{Batch, Error as StoreError, EventKind, Range, Revision, WatchRequest};
use http::{Request, Response, StatusCode};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use rustls::client::ResolvesClientCert;
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use self::{definitions::register, learned::Told};
use self::{learned::Learned, remote::Remote};
use crate::{
    documents::Merged,
    health::text,
    registry::Registry,
    request::RequestInfo,
    stored,
    upstream::{connect::Tasks, service::SERVICE_NAME},
    user::User,
};

const API_SERVICES: &str = "apiservices";
const SERVICES: &str = "services";
const SLICES: &str = "endpointslices";

/// Requests that other servers work on at once; each costs two sockets.
const ROOM: usize = 1024;

/// This group's objects say who serves what, so it is always served here.
const OWN_GROUP: &str = "apiregistration.k8s.io";

/// The remote groups and versions as of one moment, with the documents that tell of them.
#[derive(Default)]
struct Current {
    remotes: Vec<Arc<Remote>>,
    merged: Arc<Merged>,
}

/// See the module.
pub(crate) struct Aggregation {
    registry: Registry,
    tasks: Tasks,
    own: Arc<dyn ResolvesClientCert>,
    room: Arc<Semaphore>,
    any: AtomicBool,
    current: RwLock<Arc<Current>>,
}

impl Aggregation {
    /// Nothing remote yet; `own` is what other servers are shown.
    pub(crate) fn new(registry: Registry, own: Arc<dyn ResolvesClientCert>) -> Self {
        Self {
            registry,
            tasks: Tasks::new(),
            own,
            room: Arc::new(Semaphore::new(ROOM)),
            any: AtomicBool::new(false),
            current: RwLock::default(),
        }
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The documents that tell of what is served here and elsewhere; none while nothing is served elsewhere.
    pub(crate) fn merged(&self) -> Option<Arc<Merged>> {
        self.any.load(Ordering::Acquire).then(|| Arc::clone(&self.current().merged))
    }

    /// The server that a request is for, if that is not this one, and whether it is available. Whose API service is gone or
    /// names no service any more has nothing passed on to it, though the change is still on its way here.
    pub(crate) fn serves(&self, info: &RequestInfo) -> Option<(Arc<Remote>, Result<(), Refusal>)> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let parts: Vec<&str> = info.path.split('/').filter(|part| !part.is_empty()).collect();
        let (group, version) = match parts.as_slice() {
            ["apis", group, version, ..] | ["openapi", "v3", "apis", group, version] => (*group, *version),
            ["api", version, ..] | ["openapi", "v3", "api", version] => ("", *version),
            _ => return None,
        };
        let current = self.current();
        let remote = current.remotes.iter().find(|remote| remote.group == group && remote.version == version)?;
        Some((Arc::clone(remote), remote.standing(&self.registry)?))
    }

    /// The names of all remote API services, and whether the last check found each.
    pub(crate) fn available(&self) -> Vec<(String, bool, BTreeMap<&'static str, u64>)> {
        let told = |remote: &Arc<Remote>| (remote.name.clone(), remote.is_fresh(), remote.losses());
        self.current().remotes.iter().map(told).collect()
    }

    /// Has another server answer.
    pub(crate) async fn answer(
        &self,
        (remote, standing): (Arc<Remote>, Result<(), Refusal>),
        user: &User,
        request: Request<Body>,
    ) -> Response<Body> {
        let answered = match standing {
            Ok(()) => remote.pass(&self.registry, user, request).await,
            Err(refusal) => Err(refusal),
        };
        answered.unwrap_or_else(|(code, why)| text(code, format!("{why}\n")))
    }

    /// Reads all API services, and begins and ends checks accordingly; the revision that was read.
    fn load(self: &Arc<Self>, checks: &mut JoinSet<()>) -> Result<Revision, StoreError> {
        let read = self.registry.store().range(&Range::prefix(stored::prefix(API_SERVICES, "")))?;
        let before: BTreeMap<String, Arc<Remote>> =
            self.current().remotes.iter().map(|remote| (remote.name.clone(), Arc::clone(remote))).collect();
        let mut remotes = Vec::new();
        for entry in &read.entries {
            let Ok(object) = serde_json::from_slice::<APIService>(&entry.value) else { continue };
            if object
                .spec
                .as_ref()
                .is_none_or(|spec| spec.service.is_none() || spec.group.as_deref() == Some(OWN_GROUP))
            {
                continue;
            }
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let remote = match before.get(name).filter(|known| known.is_of(&object)) {
                Some(known) => Arc::clone(known),
                None => {
                    let Some(remote) = Remote::new(&object, &self.own, &self.tasks, &self.room) else { continue };
                    let remote = Arc::new(remote);
                    let (aggregation, checked) = (Arc::clone(self), Arc::clone(&remote));
                    checks.spawn(async move { check::keep(&aggregation, &checked).await });
                    remote
                }
            };
            remotes.push(remote);
        }
        for gone in before.values().filter(|known| !remotes.iter().any(|remote| Arc::ptr_eq(remote, known))) {
            gone.end.cancel();
        }
        self.publish(Some(remotes));
        Ok(read.revision)
    }

    /// Puts a picture in the place of the one before: of these remotes, or of the same ones anew.
    fn publish(&self, remotes: Option<Vec<Arc<Remote>>>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let remotes = remotes.unwrap_or_else(|| current.remotes.clone());
        self.any.store(!remotes.is_empty(), Ordering::Release);
        let told = remotes.iter().map(|remote| remote.told()).collect();
        *current = Arc::new(Current { remotes, merged: Arc::new(Merged::of(told)) });
    }

    /// Takes over what a check learned of what a remote serves; nothing, if it does not answer.
    fn learn(&self, remote: &Remote, learned: Option<Learned>) {
        if remote.learn(learned) {
            self.publish(None);
        }
    }

    /// Follows the store until `shutdown`; then all checks and connections have ended.
    ///
    /// # Errors
    /// The store is closed.
    pub(crate) async fn run(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), StoreError> {
        let mut checks = JoinSet::new();
        let result = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            result = self.follow(&mut checks) => result,
        };
        for remote in &self.current().remotes {
            remote.end.cancel();
        }
        // What a check writes it writes to the end.
        while checks.join_next().await.is_some() {}
        self.tasks.stop().await;
        result
    }

    async fn follow(self: &Arc<Self>, checks: &mut JoinSet<()>) -> Result<(), StoreError> {
        loop {
            match self.follow_once(checks).await {
                // A watch that was too slow, or whose history is gone: everything is read anew.
                Ok(()) | Err(StoreError::Compacted { .. } | StoreError::SlowWatcher { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn follow_once(self: &Arc<Self>, checks: &mut JoinSet<()>) -> Result<(), StoreError> {
        let from = self.load(checks)?.next();
        let watch = |storage| self.registry.store().watch(WatchRequest::prefix(stored::prefix(storage, ""), from));
        let (mut apis, mut services, mut slices) = (watch(API_SERVICES)?, watch(SERVICES)?, watch(SLICES)?);
        loop {
            let (storage, batch) = tokio::select! {
                batch = apis.next() => (API_SERVICES, batch),
                batch = services.next() => (SERVICES, batch),
                batch = slices.next() => (SLICES, batch),
                Some(_) = checks.join_next(), if !checks.is_empty() => continue,
            };
            let Some(batch) = batch.transpose()? else { return Ok(()) };
            if storage == API_SERVICES {
                self.load(checks)?;
            } else {
                self.wake(storage, &batch);
            }
        }
    }

    /// Has those checked whose services the changes are about.
    fn wake(&self, storage: &str, batch: &Batch) {
        let current = self.current();
        if current.remotes.is_empty() {
            return;
        }
        for event in batch.events.iter() {
            let key = String::from_utf8_lossy(&event.entry.key).into_owned();
            let mut parts = key.rsplit('/');
            let (name, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            let service = match (storage, event.kind) {
                (SERVICES, _) => Some(name.to_owned()),
                // Whose a slice was that is gone is not told.
                (_, EventKind::Delete) => None,
                _ => stored::Header::of(&event.entry).labels.get(SERVICE_NAME).cloned(),
            };
            let is_of = |remote: &&Arc<Remote>| {
                remote.place.namespace == namespace && service.as_ref().is_none_or(|name| *name == remote.place.name)
            };
            current.remotes.iter().filter(is_of).for_each(|remote| remote.wake.notify_one());
        }
    }
}

/// Code and sentence of a refusal.
type Refusal = (StatusCode, String);
