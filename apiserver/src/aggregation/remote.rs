//! One group and version that another server serves.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use rustls::{client::ResolvesClientCert, pki_types::ServerName};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    Refusal, Told, identity,
    learned::{self, Learned},
};
use crate::{
    registry::Registry,
    upstream::{
        connect::{Connector, Protection, Reached, Tasks, Trusted, joined, tls},
        pass::Way,
        service::{self, Place},
    },
    user::User,
};

/// See the module.
pub(crate) struct Remote {
    pub(super) name: String,
    uid: String,
    spec: APIServiceSpec,
    pub(super) group: String,
    pub(super) version: String,
    pub(super) place: Place,
    way: Result<Way, String>,
    /// Whether the last check found it.
    is_fresh: AtomicBool,
    /// How often it was there and then was not, by reason.
    losses: Mutex<BTreeMap<&'static str, u64>>,
    learned: RwLock<Arc<Learned>>,
    /// A check is wanted now.
    pub(super) wake: Notify,
    /// Ends its checks.
    pub(super) end: CancellationToken,
}

fn unavailable() -> Refusal {
    (StatusCode::SERVICE_UNAVAILABLE, "service unavailable".to_owned())
}

fn way(
    spec: &APIServiceSpec,
    place: &Place,
    own: &Arc<dyn ResolvesClientCert>,
    tasks: &Tasks,
    room: &Arc<Semaphore>,
) -> Result<Way, String> {
    let bundle = spec.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice()).unwrap_or_default();
    let is_insecure = spec.insecure_skip_tls_verify.unwrap_or(false);
    let trusted = if is_insecure { Trusted::Anybody } else { Trusted::Bundle(bundle) };
    let connector = tls(&trusted, Some(Arc::clone(own)))?;
    let name = ServerName::try_from(format!("{}.{}.svc", place.name, place.namespace));
    let name = name.map_err(|error| error.to_string())?;
    let connector = Connector { place: Reached::Uri, protection: Protection::Tls(connector, name) };
    Ok(Way::new(tasks, connector, Arc::clone(room)))
}

impl Remote {
    /// The remote that an API service describes; none if it has no service.
    pub(super) fn new(
        object: &APIService,
        own: &Arc<dyn ResolvesClientCert>,
        tasks: &Tasks,
        room: &Arc<Semaphore>,
    ) -> Option<Self> {
        let spec = object.spec.clone()?;
        let service = spec.service.as_ref()?;
        let place = Place {
            namespace: service.namespace.clone().unwrap_or_default(),
            name: service.name.clone().unwrap_or_default(),
            port: service.port.and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
        };
        Some(Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            uid: object.metadata.uid.clone().unwrap_or_default(),
            group: spec.group.clone().unwrap_or_default(),
            version: spec.version.clone().unwrap_or_default(),
            way: way(&spec, &place, own, tasks, room),
            place,
            is_fresh: AtomicBool::new(false),
            losses: Mutex::default(),
            learned: RwLock::default(),
            wake: Notify::new(),
            end: CancellationToken::new(),
            spec,
        })
    }

    /// Whether it is what the API service still describes.
    pub(super) fn is_of(&self, object: &APIService) -> bool {
        object.metadata.uid.as_deref() == Some(&self.uid) && object.spec.as_ref() == Some(&self.spec)
    }

    /// Whether it is available, as its API service says; `None` if that names no other server any more.
    pub(super) fn standing(&self, registry: &Registry) -> Option<Result<(), Refusal>> {
        let object = match registry.get_typed::<APIService>("", &self.name) {
            Ok(object) => object?,
            Err(status) => return Some(Err((StatusCode::INTERNAL_SERVER_ERROR, status.message))),
        };
        object.spec?.service?;
        let conditions = object.status.and_then(|status| status.conditions).unwrap_or_default();
        let is_available = conditions.iter().any(|known| known.type_ == "Available" && known.status == "True");
        Some(if is_available { Ok(()) } else { Err(unavailable()) })
    }

    /// The path of its discovery document, which every API server serves.
    pub(super) fn path(&self) -> String {
        learned::path(&self.group, &self.version)
    }

    /// What discovery tells of it.
    pub(super) fn told(&self) -> Told {
        Told {
            group: self.group.clone(),
            version: self.version.clone(),
            group_priority: self.spec.group_priority_minimum,
            version_priority: self.spec.version_priority,
            is_fresh: self.is_fresh() && self.learned().resources.is_some(),
            learned: self.learned(),
        }
    }

    /// Whether the last check found it.
    pub(super) fn is_fresh(&self) -> bool {
        self.is_fresh.load(Ordering::Acquire)
    }

    /// It was there, and is not any more.
    pub(super) fn lost(&self, why: &'static str) {
        *self.losses.lock().unwrap_or_else(PoisonError::into_inner).entry(why).or_default() += 1;
    }

    /// How often it was lost, by reason.
    pub(super) fn losses(&self) -> BTreeMap<&'static str, u64> {
        self.losses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn learned(&self) -> Arc<Learned> {
        Arc::clone(&self.learned.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what it serves, or that it does not answer; whether that is something else than before.
    pub(super) fn learn(&self, learned: Option<Learned>) -> bool {
        let was_fresh = self.is_fresh.swap(learned.is_some(), Ordering::AcqRel);
        let Some(learned) = learned else { return was_fresh };
        let mut known = self.learned.write().unwrap_or_else(PoisonError::into_inner);
        let is_new = **known != learned;
        if is_new {
            *known = Arc::new(learned);
        }
        is_new || !was_fresh
    }

    /// The address its service leads to now.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn resolve(&self, registry: &Registry) -> Result<String, String> {
        let (host, port) = service::resolve(registry.store(), &self.place)?;
        Ok(joined(&host, port))
    }

    /// Passes a request on, whether available or not.
    ///
    /// # Errors
    /// Why there is no answer, in the words of Go's clients.
    pub(super) async fn send(
        &self,
        address: &str,
        user: &User,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, String> {
        let way = self.way.as_ref().map_err(Clone::clone)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let to: Uri = format!("https://{address}{path}").parse().map_err(|error| format!("{error}"))?;
        let forwarded = HeaderValue::from_str(request.uri().path());
        let headers = request.headers_mut();
        identity::set(headers, user);
        if let Ok(path) = forwarded {
            headers.insert(HeaderName::from_static("x-forwarded-uri"), path);
        }
        if let Ok(host) = HeaderValue::from_str(address) {
            headers.insert(header::HOST, host);
        }
        way.pass(request, to).await
    }

    /// Has it answer a client's request.
    ///
    /// # Errors
    /// Its service leads nowhere, or it does not answer, or would send the client elsewhere.
    pub(super) async fn pass(
        &self,
        registry: &Registry,
        user: &User,
        request: Request<Body>,
    ) -> Result<Response<Body>, Refusal> {
        if let Err(why) = &self.way {
            return Err((StatusCode::INTERNAL_SERVER_ERROR, why.clone()));
        }
        let address = self.resolve(registry).map_err(|_| unavailable())?;
        let answered = self.send(&address, user, request).await;
        let response = answered
            .map_err(|why| (StatusCode::SERVICE_UNAVAILABLE, format!("error trying to reach service: {why}")))?;
        if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) {
            let why = "the backend attempted to redirect this request, which is not permitted";
            return Err((StatusCode::BAD_GATEWAY, why.to_owned()));
        }
        Ok(response)
    }
}
