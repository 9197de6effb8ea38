//! Eviction: a deletion that asks the pod's disruption budget first (policy/v1).
//!
//! What a budget allows is its controller's to work out; here one disruption at a time is taken from it, and the pod is
//! written into `disruptedPods`, so that the controller knows of it before it sees the pod go.

use axum::body::Body;
use coracle_proto::{
    meta::{find_condition, is_condition_true, set_condition},
    selector::LabelSelector,
    status::{Cause, Status},
};
use http::{Request, Response};
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodCondition},
        policy::v1::{Eviction, PodDisruptionBudget, PodDisruptionBudgetStatus},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, DeleteOptions, Time},
};

use super::{Call, options::WriteOptions, subresources};
use crate::{
    ops::BoxObject,
    registry::{Change, Current, Writer},
    status_of::Result,
};

/// How often it is tried again when the pod changed meanwhile.
const ATTEMPTS: usize = 20;

/// As many evictions as a budget's controller may not have seen the end of.
const UNSEEN: usize = 2000;

/// Seconds after which trying again makes sense while a budget is being worked out.
const RETRY_AFTER: u32 = 10;

const CAUSE: &str = "DisruptionBudget";

pub(super) async fn evict(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let query = WriteOptions::of(&call.info.query, "CreateOptions")?;
    let eviction: Eviction = subresources::read(request, "Eviction").await?;
    let name = eviction.metadata.name.as_deref().unwrap_or_default();
    if !name.is_empty() && name != call.info.name {
        return Err(Box::new(Status::bad_request("name in URL does not match name in Eviction object")));
    }
    let options = eviction.delete_options.unwrap_or_default();
    let dry_run = options.dry_run.as_ref().is_some_and(|values| values.iter().any(|v| v == "All"));
    let query = WriteOptions { dry_run: query.dry_run || dry_run, ..query };
    let (own, writer) = (call.clone(), call.writer(&query));
    call.to_its_end(async move { own.evict_pod(&options, &writer).await }).await?;
    Ok(subresources::created())
}

/// Whether the pod's end disrupts nobody: it does not run, or is ending already.
fn needs_no_budget(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    matches!(phase, "Succeeded" | "Failed" | "Pending") || pod.metadata.deletion_timestamp.is_some()
}

/// Whether the pod must be the one that was looked at: one that was pending then may be serving by now.
fn must_be_same(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    !matches!(phase, "Succeeded" | "Failed") && pod.metadata.deletion_timestamp.is_none()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    is_condition_true(conditions, "Ready")
}

fn has_version(options: &DeleteOptions) -> bool {
    options.preconditions.as_ref().is_some_and(|wanted| wanted.resource_version.is_some())
}

/// The options, for this version of the pod alone.
fn for_version(options: &DeleteOptions, version: Option<String>) -> DeleteOptions {
    let mut options = options.clone();
    options.preconditions.get_or_insert_default().resource_version = version;
    options
}

fn refused(why: String, retry_after: u32) -> Box<Status> {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut status = Status::too_many_requests(message, retry_after);
    let cause = Cause { reason: CAUSE.to_owned(), message: why, field: String::new() };
    status.details.get_or_insert_default().causes.push(cause);
    Box::new(status)
}

/// The budget's controller has not caught up.
fn not_worked_out(budget: &str) -> Box<Status> {
    refused(format!("The disruption budget {budget} is still being processed by the server."), RETRY_AFTER)
}

/// Why a budget that allows nothing does so.
fn why_not(budget: &str, status: &PodDisruptionBudgetStatus) -> String {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    let told = find_condition(conditions, "DisruptionAllowed").filter(|c| c.status == "False" && !c.message.is_empty());
    let (has, needs) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    match told {
        Some(condition) if condition.reason == "SyncFailed" => format!(
            "The disruption budget {budget} does not allow evicting pods currently because it failed sync: {}",
            condition.message
        ),
        _ if has <= needs => {
            format!("The disruption budget {budget} needs {needs} healthy pods and has {has} currently")
        }
        Some(condition) => format!(
            "The disruption budget {budget} does not allow evicting pods currently ({}): {}",
            condition.reason, condition.message
        ),
        None => format!("The disruption budget {budget} does not allow evicting pods currently"),
    }
}

/// Takes one disruption from the budget, for this pod.
fn take(budget: &mut PodDisruptionBudget, pod: &str, now: jiff::Timestamp) -> Result<()> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        return Err(not_worked_out(&name));
    }
    let forbidden = |why: &str| Err(Box::new(Status::forbidden("policy", "poddisruptionbudget", &name, why)));
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return forbidden("pdb disruptions allowed is negative");
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > UNSEEN) {
        return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
    }
    if allowed == 0 {
        return Err(refused(why_not(&name, status), 0));
    }
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        let condition = Condition {
            type_: "DisruptionAllowed".to_owned(),
            status: "False".to_owned(),
            reason: "InsufficientPods".to_owned(),
            message: String::new(),
            observed_generation: status.observed_generation,
            last_transition_time: Time(now),
        };
        set_condition(status.conditions.get_or_insert_default(), condition);
    }
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), Time(now));
    Ok(())
}

impl Call {
    fn pod(&self) -> Result<Pod> {
        let (namespace, name) = self.at();
        let found = self.registry().get_typed::<Pod>(namespace, name)?;
        found.ok_or_else(|| Box::new(Status::not_found("", "pods", name)))
    }

    async fn evict_pod(&self, options: &DeleteOptions, writer: &Writer) -> Result<()> {
        let attempts = if has_version(options) { 1 } else { ATTEMPTS };
        let mut last = None;
        for _ in 0..attempts {
            let pod = self.pod()?;
            if !needs_no_budget(&pod) {
                return self.evict_running(&pod, options, writer).await;
            }
            let pinned = must_be_same(&pod) && !has_version(options);
            let version = pod.metadata.resource_version.clone();
            let options = if pinned { for_version(options, version) } else { options.clone() };
            match self.mark_and_delete(&options, writer).await {
                Err(status) if status.reason == "Conflict" => last = Some(status),
                other => return other,
            }
        }
        Err(last.unwrap_or_else(|| Box::new(Status::internal("the pod could not be evicted"))))
    }

    fn budgets_of(&self, pod: &Pod) -> Result<Vec<PodDisruptionBudget>> {
        let mut budgets = self.registry().list_typed::<PodDisruptionBudget>(&self.namespace)?;
        budgets.retain(|budget| {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            LabelSelector::from_api(selector).is_ok_and(|selector| selector.matches_object(&pod.metadata))
        });
        Ok(budgets)
    }

    async fn evict_running(&self, pod: &Pod, options: &DeleteOptions, writer: &Writer) -> Result<()> {
        let budgets = self.budgets_of(pod)?;
        let budget = match budgets.as_slice() {
            [] => return self.mark_and_delete(options, writer).await,
            [only] => only,
            _ => {
                let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does \
                               not support.";
                return Err(Box::new(Status::failure(500, "", message)));
            }
        };
        let name = budget.metadata.name.clone().unwrap_or_default();
        let status = budget.status.clone().unwrap_or_default();
        let (has, needs) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
        let always =
            budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
        if !is_ready(pod) && (always || (has >= needs && needs > 0)) {
            // It counts for nothing as it is; but only as it is.
            let pinned = for_version(options, pod.metadata.resource_version.clone());
            return match self.mark_and_delete(&pinned, writer).await {
                Err(status) if status.reason == "Conflict" && !has_version(options) => Err(not_worked_out(&name)),
                other => other,
            };
        }
        let Some(kind) = self.registry().kind("policy", "v1", "poddisruptionbudgets") else {
            return Err(Box::new(Status::internal("there are no disruption budgets")));
        };
        let pod_name = pod.metadata.name.clone().unwrap_or_default();
        let change = |current: &Current<'_>| -> Result<BoxObject> {
            let mut object = current.object.copied();
            if let Some(budget) = object.as_any_mut().downcast_mut::<PodDisruptionBudget>() {
                take(budget, &pod_name, writer.now)?;
            }
            object.meta_mut().resource_version = None;
            Ok(object)
        };
        self.registry().update(&kind, (&self.namespace, &name), Change::Own, writer, change).await?;
        self.mark_and_delete(options, writer).await
    }

    /// Writes into the pod's status why it goes (KEP-3329), and deletes it.
    async fn mark_and_delete(&self, options: &DeleteOptions, writer: &Writer) -> Result<()> {
        let mut options = options.clone();
        if !writer.dry_run {
            let wanted = options.preconditions.clone().unwrap_or_default();
            let change = |current: &Current<'_>| -> Result<BoxObject> {
                let mut object = current.object.copied();
                let meta = object.meta();
                let conflict = |what: &str, asked: &str, is: Option<&String>, then: &str| {
                    let name = meta.name.clone().unwrap_or_default();
                    let is = is.cloned().unwrap_or_default();
                    let why = format!(
                        "the {what} in the precondition ({asked}) does not match the {what} in record ({is}). The \
                         object might have been {then}"
                    );
                    Box::new(Status::conflict("", "Pod", &name, &why))
                };
                if let Some(uid) = wanted.uid.as_ref().filter(|uid| !uid.is_empty() && meta.uid.as_ref() != Some(*uid))
                {
                    return Err(conflict("UID", uid, meta.uid.as_ref(), "deleted and then recreated"));
                }
                let is = meta.resource_version.as_ref();
                if let Some(version) = wanted.resource_version.as_ref().filter(|v| !v.is_empty() && is != Some(*v)) {
                    return Err(conflict("ResourceVersion", version, is, "modified"));
                }
                if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
                    let condition = PodCondition {
                        type_: "DisruptionTarget".to_owned(),
                        status: "True".to_owned(),
                        reason: Some("EvictionByEvictionAPI".to_owned()),
                        message: Some("Eviction API: evicting".to_owned()),
                        last_transition_time: Some(Time(writer.now)),
                        ..PodCondition::default()
                    };
                    set_condition(pod.status.get_or_insert_default().conditions.get_or_insert_default(), condition);
                }
                object.meta_mut().resource_version = None;
                Ok(object)
            };
            let written = self.registry().update(&self.kind, self.at(), Change::Own, writer, change).await?;
            if has_version(&options) {
                // The version to delete is the one just written.
                options = for_version(&options, Some(written.mod_revision.to_string()));
            }
        }
        self.registry().delete(&self.kind, self.at(), &options, writer).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(status: Value) -> PodDisruptionBudget {
        let json = json!({"metadata": {"name": "b", "generation": 2}, "status": status});
        serde_json::from_value(json).unwrap()
    }

    fn now() -> jiff::Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_budget_gives_one_disruption_and_remembers_the_pod() {
        let mut budget = budget(json!({"observedGeneration": 2, "disruptionsAllowed": 1}));
        take(&mut budget, "web-0", now()).unwrap();
        let status = serde_json::to_value(budget.status.clone().unwrap()).unwrap();
        assert_eq!(status["disruptionsAllowed"], 0);
        assert_eq!(status["disruptedPods"], json!({"web-0": "2026-01-01T00:00:00Z"}));
        assert_eq!(status["conditions"][0]["type"], "DisruptionAllowed");
        assert_eq!(status["conditions"][0]["reason"], "InsufficientPods");
        assert_eq!(take(&mut budget, "web-1", now()).unwrap_err().code, 429);
    }

    #[test]
    fn a_refusal_says_why() {
        for (status, code, why, retry) in [
            (
                json!({"observedGeneration": 1}),
                429,
                "The disruption budget b is still being processed by the server.",
                10,
            ),
            (
                json!({"observedGeneration": 2, "currentHealthy": 2, "desiredHealthy": 3}),
                429,
                "The disruption budget b needs 3 healthy pods and has 2 currently",
                0,
            ),
            (
                json!({"observedGeneration": 2, "currentHealthy": 4, "desiredHealthy": 3, "conditions": [{
                    "type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "no scale",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                429,
                "The disruption budget b does not allow evicting pods currently because it failed sync: no scale",
                0,
            ),
            (
                json!({"observedGeneration": 2, "currentHealthy": 4, "desiredHealthy": 3}),
                429,
                "The disruption budget b does not allow evicting pods currently",
                0,
            ),
        ] {
            let refusal = take(&mut budget(status), "p", now()).unwrap_err();
            assert_eq!(refusal.code, code);
            assert_eq!(refusal.message, "Cannot evict pod as it would violate the pod's disruption budget.");
            let details = refusal.details.unwrap();
            assert_eq!((details.causes[0].reason.as_str(), details.causes[0].message.as_str()), (CAUSE, why));
            assert_eq!(details.retry_after_seconds, retry);
        }
        let negative = json!({"observedGeneration": 2, "disruptionsAllowed": -1});
        assert_eq!(take(&mut budget(negative), "p", now()).unwrap_err().code, 403);
    }
}
