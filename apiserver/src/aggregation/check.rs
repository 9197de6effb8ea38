//! Whether a remote is available, and what it serves: looked at when its service or endpoints change, and in bounded
//! intervals, since that a server far away stopped answering is an event nobody tells.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coracle_store::Store;
use futures::future::join_all;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Service,
    apimachinery::pkg::apis::meta::v1::Time,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition},
};

use super::{API_SERVICES, Aggregation, Remote, SERVICES, learned};
use crate::{
    ops::Part,
    registry::{Change, Current, Registry, Writer},
    status_of::Result as Answered,
    stored,
    upstream::service,
    user::User,
};

/// How often a server that answered is asked again: Kubernetes' own interval.
const INTERVAL: Duration = Duration::from_secs(30);

/// How soon one that did not is asked again at first; each time it is twice as long, up to [`INTERVAL`].
const SOON: Duration = Duration::from_millis(50);

/// How long a server may take to answer a check.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many endpoints are asked before the server counts as gone.
const ATTEMPTS: usize = 5;

/// As large as a document of discovery or OpenAPI may be.
const MAX_DOCUMENT: usize = 16 * 1024 * 1024;

/// The reason of one that does not answer.
const SILENT: &str = "FailedDiscoveryCheck";

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    is_available: bool,
    reason: &'static str,
    message: String,
}

impl Finding {
    fn missing(reason: &'static str, message: String) -> Self {
        Self { is_available: false, reason, message }
    }

    fn passed() -> Self {
        Self { is_available: true, reason: "Passed", message: "all checks passed".to_owned() }
    }

    fn condition(&self) -> APIServiceCondition {
        APIServiceCondition {
            type_: "Available".to_owned(),
            status: if self.is_available { "True" } else { "False" }.to_owned(),
            reason: Some(self.reason.to_owned()),
            message: Some(self.message.clone()),
            last_transition_time: Some(Time(Timestamp::now())),
        }
    }
}

/// Checks a remote until it ends.
pub(super) async fn keep(aggregation: &Aggregation, remote: &Remote) {
    let mut wait = SOON;
    loop {
        let checked = tokio::select! {
            biased;
            () = remote.end.cancelled() => return,
            checked = check(aggregation, remote) => checked,
        };
        if !checked.is_available {
            if remote.is_fresh() {
                remote.lost(checked.reason);
            }
            aggregation.learn(remote, None);
        }
        let written = write(&aggregation.registry, &remote.name, &checked).await;
        let unwritten = written.err().filter(|status| status.code != 404 && !remote.end.is_cancelled());
        if let Some(status) = &unwritten {
            tracing::warn!(api_service = remote.name, status = status.message, "availability is not written");
        }
        let pause = if checked.is_available {
            wait = SOON;
            Some(INTERVAL)
        } else if checked.reason == SILENT || unwritten.is_some() {
            let now = wait;
            wait = (wait * 2).min(INTERVAL);
            Some(now)
        } else {
            // What is missing in the store is told by the store when it comes.
            None
        };
        let rest = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = remote.end.cancelled() => return,
            () = remote.wake.notified() => wait = SOON,
            () = rest => {}
        }
    }
}

async fn check(aggregation: &Aggregation, remote: &Remote) -> Finding {
    if let Err(finding) = look(aggregation.registry.store(), remote) {
        return finding;
    }
    let path = remote.path();
    let ask = || ask(&aggregation.registry, remote, &path);
    let mut answer = ask().await;
    if answer.is_err() {
        // One endpoint of several may be gone without the others.
        let others = join_all((1..ATTEMPTS).map(|_| ask())).await;
        answer = others.into_iter().fold(answer, |known, other| known.or(other));
    }
    match answer {
        Ok(discovery) => {
            learn(aggregation, remote, &discovery).await;
            Finding::passed()
        }
        Err(why) => Finding::missing(SILENT, why),
    }
}

/// What the store says of the remote's service.
fn look(store: &Store, remote: &Remote) -> Result<(), Finding> {
    let place = &remote.place;
    let (name, namespace) = (&place.name, &place.namespace);
    let entry = store.get(&stored::key(SERVICES, namespace, name));
    let service = entry.and_then(|entry| serde_json::from_slice::<Service>(&entry.value).ok());
    let Some(spec) = service.and_then(|service| service.spec) else {
        let message = format!("service/{name} in {namespace:?} is not present");
        return Err(Finding::missing("ServiceNotFound", message));
    };
    if spec.type_.as_deref().is_some_and(|kind| kind != "ClusterIP") {
        return Ok(());
    }
    let Some(port) = spec.ports.iter().flatten().find(|port| port.port == i32::from(place.port)) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {}", place.port);
        return Err(Finding::missing("ServicePortError", message));
    };
    let port = port.name.as_deref().unwrap_or_default();
    let slices = service::slices(store, namespace, name, None);
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return Err(Finding::missing("EndpointsNotFound", message));
    }
    if slices.into_iter().all(|slice| service::ready(slice, port).is_empty()) {
        let message =
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {port:?}");
        return Err(Finding::missing("MissingEndpoints", message));
    }
    Ok(())
}

/// Who asks: the aggregator itself, which may read everything.
fn aggregator() -> User {
    User { groups: vec!["system:masters".to_owned()], ..User::new("system:kube-aggregator", &[]) }
}

/// A document of the remote's.
async fn ask(registry: &Registry, remote: &Remote, path: &str) -> Result<Bytes, String> {
    let address = remote.resolve(registry)?;
    let url = format!("https://{address}{path}");
    let asked = async {
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, "coracle-aggregator")
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let answered = remote.send(&address, &aggregator(), request).await;
        let response = answered.map_err(|why| format!("Get {url:?}: {why}"))?;
        let code = response.status();
        if !(StatusCode::OK..StatusCode::MULTIPLE_CHOICES).contains(&code) {
            return Err(format!("bad status from {url}: {}", code.as_u16()));
        }
        let read = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
        read.map(|body| body.to_bytes()).map_err(|error| format!("Get {url:?}: {error}"))
    };
    let late =
        |_| Err(format!("Get {url:?}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"));
    let answer = tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(late);
    answer.map_err(|why| format!("failing or missing response from {url}: {why}"))
}

/// Reads what the remote serves. Documents it does not have are not told of.
async fn learn(aggregation: &Aggregation, remote: &Remote, discovery: &Bytes) {
    let (registry, group, version) = (&aggregation.registry, &remote.group, &remote.version);
    let (v3, v2) = tokio::join!(ask(registry, remote, "/openapi/v3"), ask(registry, remote, "/openapi/v2"));
    let learned = learned::Learned {
        resources: learned::resources(discovery, group, version),
        v3: v3.ok().and_then(|index| learned::v3(&index, group, version)),
        v2: v2.ok().and_then(|document| learned::v2(&document, group, version)),
    };
    aggregation.learn(remote, Some(learned));
}

/// Writes what was found into the API service's status, if that is something new.
async fn write(registry: &Registry, name: &str, finding: &Finding) -> Answered<()> {
    let Some(kind) = registry.kind("apiregistration.k8s.io", "v1", API_SERVICES) else { return Ok(()) };
    let change = |current: &Current<'_>| {
        let mut object = current.object.copied();
        let Some(service) = object.as_any_mut().downcast_mut::<APIService>() else { return Ok(object) };
        if service.spec.as_ref().is_none_or(|spec| spec.service.is_none()) {
            return Ok(object);
        }
        let conditions = service.status.get_or_insert_default().conditions.get_or_insert_default();
        let mut new = finding.condition();
        match conditions.iter_mut().find(|known| known.type_ == new.type_) {
            Some(known) => {
                if known.status == new.status {
                    new.last_transition_time.clone_from(&known.last_transition_time);
                }
                *known = new;
            }
            None => conditions.push(new),
        }
        Ok(object)
    };
    let writer = Writer::new(User::new("system:apiserver", &["system:masters"]));
    registry.update(&kind, ("", name), Change::Of(Part::Status), &writer, change).await.map(drop)
}
