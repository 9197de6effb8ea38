//! Webhooks: whoever registered for a write is asked over HTTPS, first those who may change it, one after the other, then
//! those who only judge it, all at once.
//!
//! The configurations are held compiled and follow the store: at once after a write of this server, by watch otherwise.
//! A write that no rule is about costs a look at one flag.

pub(super) mod review;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use coracle_proto::{patch::json, status::Status};
use coracle_store::{Error as StoreError, Revision, Store};
use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhook, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use tokio_util::sync::CancellationToken;

use self::review::Verdict;
use super::{
    Write,
    figures::{CallEnd, Step},
    matching::Matcher,
    policy::{
        asker,
        expressions::{Bindings, Conditions, Names},
        parts,
    },
    stored_objects::{follow, read},
};
use crate::{
    kinds::webhooks::{REVIEW_VERSIONS, widened},
    ops::{AnyObject, BoxObject, KindOps},
    status_of::Result,
    upstream::connect::Tasks,
    webhook::{Client, MAX_ANSWER},
};

const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// One webhook, compiled.
#[derive(Debug)]
struct Hook {
    /// Its configuration, its place there and its name.
    id: String,
    name: String,
    matcher: Matcher,
    conditions: Result<Conditions, String>,
    client: Result<Arc<Client>, String>,
    limit: Duration,
    fails_open: bool,
    takes_dry_runs: bool,
    reinvoked: bool,
    /// The version of AdmissionReview it is sent.
    version: &'static str,
}

/// All webhooks as of a revision, in the order in which they are called.
#[derive(Debug, Default)]
struct Snapshot {
    revision: Revision,
    mutating: Vec<Arc<Hook>>,
    validating: Vec<Arc<Hook>>,
}

/// The webhooks of the cluster.
pub(crate) struct Webhooks {
    store: Store,
    tasks: Tasks,
    any: AtomicBool,
    current: RwLock<Arc<Snapshot>>,
}

/// What a mutating pass leaves for the next one.
#[derive(Debug, Default)]
pub(super) struct Reinvocation {
    /// Whether this is the second pass.
    pub(super) is_second: bool,
    /// Called already, and willing to be called again.
    called: BTreeSet<String>,
    /// To be called again, because the object changed after their turn.
    due: BTreeSet<String>,
}

impl Reinvocation {
    /// Somebody had his turn and would like another.
    pub(super) fn called(&mut self, id: &str) {
        self.called.insert(id.to_owned());
    }

    /// Whether it is somebody's turn again; once.
    pub(super) fn take(&mut self, id: &str) -> bool {
        self.due.remove(id)
    }

    /// The object changed: whoever was called before is due again.
    pub(super) fn changed(&mut self) {
        self.due.append(&mut self.called);
    }

    /// Whether somebody is due.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }
}

/// How a call ended that did not end well.
enum Failure {
    /// Nobody answered, or not an answer.
    Call(String),
    /// It said no, or the object is beyond repair.
    Refused(Box<Status>),
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        Self::Refused(status)
    }
}

impl Hook {
    fn new(id: String, hook: &MutatingWebhook, client: Result<Arc<Client>, String>) -> Self {
        let seconds = hook.timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(10);
        let known = |version: &String| REVIEW_VERSIONS.iter().find(|known| *known == version).copied();
        Self {
            id,
            name: hook.name.clone(),
            matcher: Matcher::new(
                hook.rules.as_deref().unwrap_or_default(),
                hook.match_policy.as_deref(),
                hook.namespace_selector.as_ref(),
                hook.object_selector.as_ref(),
            ),
            conditions: Conditions::new(
                hook.match_conditions.iter().flatten().map(|condition| condition.expression.as_str()),
                Names { params: false, authorizer: true },
            ),
            client,
            limit: Duration::from_secs(seconds),
            fails_open: hook.failure_policy.as_deref() == Some("Ignore"),
            takes_dry_runs: matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun"),
            reinvoked: hook.reinvocation_policy.as_deref() == Some("IfNeeded"),
            version: hook.admission_review_versions.iter().find_map(known).unwrap_or("v1"),
        }
    }

    /// The kind as which the webhook wants to see the write, if it is about it.
    ///
    /// # Errors
    /// 403 when that cannot be told and the webhook must not be left out.
    async fn wants(&self, write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<Option<Arc<dyn KindOps>>> {
        let Some(kind) = self.matcher.matching(write, object)? else { return Ok(None) };
        let held = match &self.conditions {
            Ok(conditions) if conditions.is_empty() => Ok(true),
            Ok(conditions) => {
                let parts = parts(write, &*kind, object).await?;
                conditions.hold(&Bindings::new(&parts, None, asker(write)))
            }
            Err(why) => Err(why.clone()),
        };
        match held {
            Ok(true) => Ok(Some(kind)),
            Ok(false) => Ok(None),
            Err(why) if self.fails_open => {
                tracing::warn!(webhook = self.name, why, "match conditions failed and the webhook is left out");
                Ok(None)
            }
            Err(why) => Err(write.forbidden(&why)),
        }
    }

    /// Asks the webhook about the write, seen as `kind`.
    async fn call(
        &self,
        write: &Write<'_>,
        kind: &dyn KindOps,
        object: Option<&Bytes>,
        mutating: bool,
    ) -> Result<Verdict, Failure> {
        if write.dry_run && !self.takes_dry_runs {
            let why = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Failure::Refused(Box::new(Status::bad_request(why))));
        }
        let client = self.client.as_ref().map_err(|why| Failure::Call(format!("could not get REST client: {why}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let request = review::request(write, kind, self.version, &uid, object).await?;
        let answered = client.post(request, self.limit, MAX_ANSWER).await;
        let answer = answered.map_err(|why| Failure::Call(format!("failed to call webhook: {why}")))?;
        let verdict = review::verdict(&self.name, self.version, &uid, mutating, &answer).map_err(Failure::Call)?;
        for (key, value) in &verdict.annotations {
            write.notes.annotate(format!("{}/{key}", self.name), value.clone());
        }
        for warning in &verdict.warnings {
            write.notes.warn(warning.clone());
        }
        Ok(verdict)
    }

    /// Counts a call of the webhook.
    fn count(&self, write: &Write<'_>, step: Step, failure: Option<&Failure>, begun: Instant) {
        let end = match failure {
            None => CallEnd::Passed,
            Some(Failure::Refused(status)) => CallEnd::Refused(status.code),
            Some(Failure::Call(_)) if self.fails_open => CallEnd::FailedOpen,
            Some(Failure::Call(_)) => CallEnd::FailedClosed,
        };
        write.registry.figures().called((self.name.clone(), step, write.operation), end, begun.elapsed());
    }

    /// What a failure means for the write: an error, unless the webhook may be left out.
    fn settle(&self, write: &Write<'_>, failure: Failure, audit: &str) -> Result<()> {
        match failure {
            Failure::Refused(status) => Err(status),
            Failure::Call(why) if self.fails_open => {
                tracing::warn!(webhook = self.name, why, "a webhook failed and is left out");
                write.notes.annotate(audit, self.name.clone());
                Ok(())
            }
            Failure::Call(why) => {
                tracing::warn!(webhook = self.name, why, "a webhook failed");
                Err(Box::new(Status::internal(format!("failed calling webhook {:?}: {why}", self.name))))
            }
        }
    }
}

/// The object that a webhook's patch makes of one seen as `kind`; `None` when the patch does nothing.
async fn patched(
    hook: &Hook,
    write: &Write<'_>,
    kind: &dyn KindOps,
    before: Option<&Bytes>,
    patch: &[u8],
) -> Result<Option<BoxObject>, Failure> {
    let undecodable = |why: String| Failure::Call(format!("received undecodable patch in webhook response: {why}"));
    let patch = serde_json::from_slice(patch).map_err(|error| undecodable(error.to_string()))?;
    if matches!(&patch, serde_json::Value::Array(steps) if steps.is_empty()) {
        return Ok(None);
    }
    let patch = json::Patch::new(patch).map_err(|error| undecodable(error.to_string()))?;
    let internal = |why: String| Failure::Refused(Box::new(Status::internal(why)));
    let Some(before) = before else {
        return Err(internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let document = serde_json::from_slice(before).map_err(|error| internal(error.to_string()))?;
    let result = patch.apply(&document).map_err(|error| internal(error.to_string()))?;
    if result == document {
        return Ok(None);
    }
    Ok(Some(review::decoded(write, kind, &result).await?))
}

pub(super) fn is_exempt(write: &Write<'_>) -> bool {
    // Whoever locked himself out by a webhook must be able to take it away.
    write.kind.resource().group == "admissionregistration.k8s.io"
}

impl Webhooks {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(crate) fn new(store: Store) -> Self {
        Self { store, tasks: Tasks::new(), any: AtomicBool::new(false), current: RwLock::default() }
    }

    fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether objects of this resource are what webhooks are configured by.
    pub(crate) fn follows(resource: &coracle_proto::resource::Resource) -> bool {
        [MUTATING, VALIDATING].contains(&resource.storage)
    }

    /// Reads all configurations anew; returns the revision they were read at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn load(&self) -> Result<Revision, StoreError> {
        let (mutating, first) = read::<MutatingWebhookConfiguration>(&self.store, MUTATING)?;
        let (validating, second) = read::<ValidatingWebhookConfiguration>(&self.store, VALIDATING)?;
        // The older one, so that a change between the two is read again.
        let revision = first.min(second);
        let old = self.current();
        let client = |hook: &MutatingWebhook| {
            let mut held = old.mutating.iter().chain(&old.validating).filter_map(|hook| hook.client.as_ref().ok());
            // Connections outlive changes that do not concern them.
            match held.find(|client| client.is_of(&hook.client_config)) {
                Some(client) => Ok(Arc::clone(client)),
                None => Client::new(&hook.client_config, &self.store, &self.tasks).map(Arc::new),
            }
        };
        let compile = |configuration: &str, hooks: &[MutatingWebhook]| -> Vec<Arc<Hook>> {
            let one = |(i, hook): (usize, &MutatingWebhook)| {
                Arc::new(Hook::new(format!("{configuration}/{i}/{}", hook.name), hook, client(hook)))
            };
            hooks.iter().enumerate().map(one).collect()
        };
        let snapshot = Snapshot {
            revision,
            mutating: mutating
                .iter()
                .flat_map(|(name, c)| compile(name, c.webhooks.as_deref().unwrap_or_default()))
                .collect(),
            validating: validating
                .iter()
                .flat_map(|(name, c)| {
                    let hooks: Vec<_> = c.webhooks.iter().flatten().map(widened).collect();
                    compile(name, &hooks)
                })
                .collect(),
        };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.revision <= revision {
            self.any.store(!snapshot.mutating.is_empty() || !snapshot.validating.is_empty(), Ordering::Release);
            *current = Arc::new(snapshot);
        }
        Ok(revision)
    }

    /// Follows the store until `shutdown`; then all connections have ended.
    ///
    /// # Errors
    /// The store is closed.
    pub(crate) async fn run(&self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let result = follow(&self.store, [MUTATING, VALIDATING], || self.load(), shutdown).await;
        self.tasks.stop().await;
        result
    }

    fn snapshot_for(&self, write: &Write<'_>) -> Option<Arc<Snapshot>> {
        (self.any.load(Ordering::Acquire) && !is_exempt(write)).then(|| self.current())
    }

    /// Lets the mutating webhooks change the object, in their order; whether one did.
    ///
    /// # Errors
    /// One refused, or failed and must not be left out.
    pub(super) async fn mutate(
        &self,
        write: &Write<'_>,
        mut object: Option<&mut BoxObject>,
        state: &mut Reinvocation,
    ) -> Result<bool> {
        let Some(snapshot) = self.snapshot_for(write) else { return Ok(false) };
        let mut any = false;
        for (index, hook) in snapshot.mutating.iter().enumerate() {
            if state.is_second && !state.due.remove(&hook.id) {
                continue;
            }
            let Some(kind) = hook.wants(write, object.as_deref().map(|object| &**object)).await? else { continue };
            let before = match object.as_deref() {
                Some(object) => Some(review::shown(write, &*kind, &**object).await?),
                None => None,
            };
            let begun = Instant::now();
            let called = match hook.call(write, &*kind, before.as_ref(), true).await {
                Ok(Verdict { denied: Some(status), .. }) => Err(Failure::Refused(status)),
                Ok(verdict) if verdict.patch.is_empty() => Ok(None),
                Ok(verdict) => patched(hook, write, &*kind, before.as_ref(), &verdict.patch).await,
                Err(failure) => Err(failure),
            };
            hook.count(write, Step::Admit, called.as_ref().err(), begun);
            write.notes.waited(begun.elapsed());
            let round = u8::from(state.is_second);
            let audit = format!("failed-open.mutation.webhook.admission.k8s.io/round_{round}_index_{index}");
            let new = match called {
                Ok(new) => new,
                Err(failure) => {
                    hook.settle(write, failure, &audit)?;
                    None
                }
            };
            let changed = match (new, object.as_deref_mut()) {
                (Some(new), Some(object)) => {
                    *object = new;
                    true
                }
                _ => false,
            };
            let note = serde_json::json!({"configuration": hook.id.split('/').next(), "webhook": hook.name, "mutated": changed});
            write
                .notes
                .annotate(format!("mutation.webhook.admission.k8s.io/round_{round}_index_{index}"), note.to_string());
            if changed {
                any = true;
                state.changed();
            }
            if hook.reinvoked {
                state.called.insert(hook.id.clone());
            }
        }
        Ok(any)
    }

    /// Asks all validating webhooks at once.
    ///
    /// # Errors
    /// The first, in their order, that refused or that failed and must not be left out.
    pub(super) async fn validate(&self, write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
        let Some(snapshot) = self.snapshot_for(write) else { return Ok(()) };
        let mut wanted: Vec<(usize, &Hook, Arc<dyn KindOps>)> = Vec::new();
        for (index, hook) in snapshot.validating.iter().enumerate() {
            if let Some(kind) = hook.wants(write, object).await? {
                wanted.push((index, hook, kind));
            }
        }
        let calls = wanted.iter().map(|(index, hook, kind)| async move {
            let shown = match object {
                Some(object) => Some(review::shown(write, &**kind, object).await?),
                None => None,
            };
            let begun = Instant::now();
            let failure = match hook.call(write, &**kind, shown.as_ref(), false).await {
                Ok(Verdict { denied, .. }) => denied.map(Failure::Refused),
                Err(failure) => Some(failure),
            };
            hook.count(write, Step::Validate, failure.as_ref(), begun);
            let Some(failure) = failure else { return Ok(()) };
            let audit = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
            hook.settle(write, failure, &audit)
        });
        let begun = Instant::now();
        let verdicts = join_all(calls).await;
        write.notes.waited(begun.elapsed());
        verdicts.into_iter().collect()
    }
}
