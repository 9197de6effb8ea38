//! What the objects say of themselves: whether a schema's level is there (the condition `Dangling`); and that those which
//! must be there are.

use std::{error::Error as StdError, sync::Arc};

use futures::future::try_join_all;
use k8s_openapi::{
    api::flowcontrol::v1::{FlowSchema, FlowSchemaCondition, PriorityLevelConfiguration},
    apimachinery::pkg::apis::meta::v1::Time,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    kinds::flow_defaults,
    ops::{BoxObject, KindOps, Part},
    registry::{Change, Current, Registry, Writer},
    status_of::Result,
    user::User,
};

const DANGLING: &str = "Dangling";

/// The name that conditions are written under, as in Kubernetes.
const MANAGER: &str = "api-priority-and-fairness-config-consumer-v1";

/// Looks after the objects whenever they changed, until `shutdown`.
pub(super) async fn keep(registry: &Registry, changed: &Notify, shutdown: CancellationToken) {
    let keep = async {
        loop {
            changed.notified().await;
            if let Err(status) = settle(registry).await {
                tracing::warn!(error = &*status as &dyn StdError, "flow schemas cannot be kept");
            }
        }
    };
    tokio::select! {
        biased;
        () = shutdown.cancelled() => {}
        () = keep => {}
    }
}

/// Makes the objects as they must be.
///
/// # Errors
/// The first refusal of a write.
pub(super) async fn settle(registry: &Registry) -> Result<()> {
    let user = Arc::new(User::new("system:apiserver", &["system:masters"]));
    let writer = || Writer { manager: MANAGER.into(), ..Writer::new(Arc::clone(&user)) };
    for name in flow_defaults::MANDATORY {
        if registry.get_typed::<PriorityLevelConfiguration>("", name)?.is_none()
            && let Some(level) = flow_defaults::mandatory_level(name)
        {
            registry.create_typed("", level, &writer()).await?;
        }
        if registry.get_typed::<FlowSchema>("", name)?.is_none()
            && let Some(schema) = flow_defaults::mandatory_schema(name)
        {
            registry.create_typed("", schema, &writer()).await?;
        }
    }
    let kind = registry.kind_of("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema");
    let Some(kind) = kind else { return Ok(()) };
    // All at once, so that they share the store's group commits.
    let schemas = registry.list_typed::<FlowSchema>("")?;
    let settled = schemas.into_iter().map(|schema| settle_one(registry, &kind, schema, writer()));
    try_join_all(settled).await.map(drop)
}

async fn settle_one(registry: &Registry, kind: &Arc<dyn KindOps>, schema: FlowSchema, writer: Writer) -> Result<()> {
    let level = schema.spec.as_ref().map(|spec| spec.priority_level_configuration.name.clone()).unwrap_or_default();
    let is_there = registry.get_typed::<PriorityLevelConfiguration>("", &level)?.is_some();
    if says(&schema, &level, is_there) {
        return Ok(());
    }
    let name = schema.metadata.name.unwrap_or_default();
    let change = |current: &Current<'_>| {
        let mut object = current.object.copied();
        if let Some(schema) = object.as_any_mut().downcast_mut::<FlowSchema>() {
            say(schema, &level, is_there, writer.now);
        }
        Ok::<BoxObject, _>(object)
    };
    match registry.update(kind, ("", &name), Change::Of(Part::Status), &writer, change).await {
        // It was deleted meanwhile.
        Err(status) if status.code != 404 => Err(status),
        _ => Ok(()),
    }
}

/// The condition as it should be: its status, reason and message.
fn wanted(level: &str, is_there: bool) -> (&'static str, &'static str, String) {
    let begin = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?}");
    if is_there {
        ("False", "Found", format!("{begin} and it exists"))
    } else {
        ("True", "NotFound", format!("{begin} but there is no such object"))
    }
}

fn says(schema: &FlowSchema, level: &str, is_there: bool) -> bool {
    let (status, reason, message) = wanted(level, is_there);
    let mut conditions = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let own = conditions.find(|condition| condition.type_.as_deref() == Some(DANGLING));
    own.is_some_and(|own| {
        own.status.as_deref() == Some(status)
            && own.reason.as_deref() == Some(reason)
            && own.message.as_deref() == Some(message.as_str())
    })
}

fn say(schema: &mut FlowSchema, level: &str, is_there: bool, now: jiff::Timestamp) {
    let (status, reason, message) = wanted(level, is_there);
    let conditions = schema.status.get_or_insert_default().conditions.get_or_insert_default();
    let before = conditions.iter().find(|condition| condition.type_.as_deref() == Some(DANGLING));
    let since =
        before.filter(|own| own.status.as_deref() == Some(status)).and_then(|own| own.last_transition_time.clone());
    conditions.retain(|condition| condition.type_.as_deref() != Some(DANGLING));
    conditions.push(FlowSchemaCondition {
        type_: Some(DANGLING.to_owned()),
        status: Some(status.to_owned()),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: since.or(Some(Time(now))),
    });
}
