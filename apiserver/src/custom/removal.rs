//! What becomes of a definition that is deleted: its objects go first, as their finalizers let them.

use std::sync::Arc;

use coracle_proto::status::Status;
use coracle_store::{Error as StoreError, EventKind, Range, WatchRequest, What};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition as Definition;
use tracing::info;

use super::{
    CustomKind,
    follow::{condition, own_kind, writer},
};
use crate::{
    kinds::custom_resource_definition::{FINALIZER, set_condition},
    ops::{BoxObject, KindOps},
    registry::{Change, Current, ListOptions, Registry, Selection},
    status_of::Result,
    stored,
};

async fn change_definition(registry: &Registry, name: &str, change: impl Fn(&mut Definition) + Send) -> Result<()> {
    let kind = own_kind(registry)?;
    let apply = |current: &Current<'_>| {
        let mut object: BoxObject = current.object.copied();
        if let Some(definition) = object.as_any_mut().downcast_mut::<Definition>() {
            change(definition);
        }
        Ok(object)
    };
    registry.update(&kind, ("", name), Change::Own, &writer(), apply).await.map(drop)
}

/// Removes a definition's objects, waits for those that finalizers hold, and lets the definition go.
pub(super) async fn finalize(registry: &Registry, name: &str, kinds: &[Arc<CustomKind>]) -> Result<()> {
    change_definition(registry, name, |definition| {
        let message = "CustomResource deletion is in progress";
        let terminating = condition("Terminating", "True", "InstanceDeletionInProgress", message);
        set_condition(definition.status.get_or_insert_default(), terminating);
    })
    .await?;
    // As they are stored, most need no conversion for it.
    let stored = kinds.iter().find(|kind| kind.is_stored_version());
    if let Some(kind) = stored.or(kinds.first()) {
        remove_all(registry, kind).await?;
    }
    change_definition(registry, name, |definition| {
        let message = "removed all instances";
        let terminating = condition("Terminating", "False", "InstanceDeletionCompleted", message);
        set_condition(definition.status.get_or_insert_default(), terminating);
        if let Some(finalizers) = &mut definition.metadata.finalizers {
            finalizers.retain(|finalizer| finalizer != FINALIZER);
        }
    })
    .await?;
    info!(definition = name, "the definition is removed with its objects");
    Ok(())
}

async fn remove_all(registry: &Registry, kind: &Arc<CustomKind>) -> Result<()> {
    let prefix = stored::prefix(kind.row().storage, "");
    let own: Arc<dyn KindOps> = Arc::<CustomKind>::clone(kind);
    let everything = Selection::everything(&own);
    loop {
        let from = registry.revision();
        let listed = registry.list("", &everything, &*own, &ListOptions::newest()).await?;
        registry.delete_all(&own, &listed.entries, &Default::default(), &writer()).await?;
        let range = Range { what: What::Count, ..Range::prefix(prefix.clone()) };
        let left = registry.store().range(&range).map_err(|error| crate::status_of::store(&error))?;
        if left.count == 0 {
            return Ok(());
        }
        // Finalizers hold some: whoever lets one go causes an event that brings us here again.
        let mut watcher = match registry.store().watch(WatchRequest::prefix(prefix.clone(), from.next())) {
            Ok(watcher) => watcher,
            Err(StoreError::Compacted { .. }) => continue,
            Err(error) => return Err(crate::status_of::store(&error)),
        };
        let mut left = left.count;
        while left > 0 {
            match watcher.next().await {
                Some(Ok(batch)) if batch.events.iter().all(|event| event.kind == EventKind::Put) => {}
                Some(Ok(_)) => {
                    let range = Range { what: What::Count, ..Range::prefix(prefix.clone()) };
                    left = registry.store().range(&range).map_err(|error| crate::status_of::store(&error))?.count;
                }
                Some(Err(StoreError::SlowWatcher { .. } | StoreError::Compacted { .. })) => break,
                Some(Err(error)) => return Err(crate::status_of::store(&error)),
                None => return Err(Box::new(Status::unavailable("the server is stopping"))),
            }
        }
    }
}
