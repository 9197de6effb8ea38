//! API services for the groups and versions that definitions of custom resources make: made with the first, gone with
//! the last, as Kubernetes' aggregator registers them.

use std::collections::BTreeSet;

use coracle_store::{Error as StoreError, Range, WatchRequest};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec},
};
use tokio_util::sync::CancellationToken;

use super::API_SERVICES;
use crate::{
    bootstrap::api_services::{AUTOMANAGED, DEFINED, is_built_in},
    kinds::api_service::name_of,
    registry::{Registry, Writer},
    status_of::Result,
    stored,
    user::User,
};

/// What [`AUTOMANAGED`] says of those that are kept as they should be for as long as the server runs.
const ALWAYS: &str = "true";

fn writer() -> Writer {
    Writer::new(User::new("system:apiserver", &["system:masters"]))
}

/// Groups and versions with definitions, that no built-in kind has.
fn defined(registry: &Registry) -> BTreeSet<(&'static str, &'static str)> {
    let catalog = registry.custom().newest();
    let all = catalog.kinds().iter().map(|kind| (kind.row().group, kind.row().version));
    all.filter(|(group, version)| !is_built_in(group, version)).collect()
}

fn api_service(group: &str, version: &str) -> APIService {
    let (group_priority_minimum, version_priority) = DEFINED;
    APIService {
        metadata: ObjectMeta {
            name: Some(name_of(group, version)),
            labels: Some([(AUTOMANAGED.to_owned(), ALWAYS.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: Some(group.to_owned()),
            version: Some(version.to_owned()),
            group_priority_minimum,
            version_priority,
            ..APIServiceSpec::default()
        }),
        ..APIService::default()
    }
}

/// Makes what is missing and removes what is left over. Somebody else's objects stay as they are.
async fn settle(registry: &Registry) -> Result<()> {
    let range = Range::prefix(stored::prefix(API_SERVICES, ""));
    let entries = registry.store().range(&range).map_err(|error| crate::status_of::store(&error))?.entries;
    let headers: Vec<_> = entries.iter().map(|entry| stored::Header::of(entry)).collect();
    let there: BTreeSet<&str> = headers.iter().map(|header| header.name.as_str()).collect();
    let mut wanted = BTreeSet::new();
    for (group, version) in defined(registry) {
        let name = name_of(group, version);
        if !there.contains(name.as_str()) {
            quiet(registry.create_typed("", api_service(group, version), &writer()).await.map(drop))?;
        }
        wanted.insert(name);
    }
    let own = headers.iter().filter(|header| header.labels.get(AUTOMANAGED).map(String::as_str) == Some(ALWAYS));
    for header in own.filter(|header| !wanted.contains(&header.name)) {
        quiet(registry.delete_typed::<APIService>("", &header.name, &writer()).await.map(drop))?;
    }
    Ok(())
}

/// Somebody was quicker, which is as good.
fn quiet(written: Result<()>) -> Result<()> {
    match written {
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        written => written,
    }
}

/// Keeps them so until `shutdown`. The definitions must have been read.
///
/// # Errors
/// The store is closed.
pub(crate) async fn register(registry: &Registry, shutdown: CancellationToken) -> Result<(), StoreError> {
    let mut catalogs = registry.custom().changes();
    loop {
        let from = registry.revision().next();
        let mut watcher = match registry.store().watch(WatchRequest::prefix(stored::prefix(API_SERVICES, ""), from)) {
            Ok(watcher) => watcher,
            Err(StoreError::Compacted { .. }) => continue,
            Err(error) => return Err(error),
        };
        loop {
            if let Err(status) = settle(registry).await
                && !shutdown.is_cancelled()
            {
                tracing::warn!(status = status.message, "API services of definitions are not as they should be");
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                changed = catalogs.changed() => if changed.is_err() {
                    return Ok(());
                },
                batch = watcher.next() => match batch {
                    Some(Ok(_)) => {}
                    None | Some(Err(StoreError::SlowWatcher { .. } | StoreError::Compacted { .. })) => break,
                    Some(Err(error)) => return Err(error),
                },
            }
        }
    }
}
