//! Mutating admission policies: changes in CEL, as JSON patches or as configurations that are applied (KEP-3962).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use coracle_proto::{
    patch::{PatchError, json},
    status::{Cause, Status},
};
use coracle_store::{Error as StoreError, Revision, Store};
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamKind, ParamRef,
};
use serde_json::Value as Json;

use super::{
    asker,
    expressions::{
        Bindings, Conditions, Names, POLICY_LIMIT, Parts, Wanted, compile, environment, run, with_variables,
    },
    params, parts, text,
};
use crate::{
    admission::{
        Reinvocation, Write,
        matching::Matcher,
        stored_objects::{follow, read},
        webhook::{is_exempt, review},
    },
    cel::Program,
    ops::{BoxObject, KindOps, Part},
    ownership::Versions,
    status_of::Result,
};

const POLICIES: &str = "mutatingadmissionpolicies";
const BINDINGS: &str = "mutatingadmissionpolicybindings";

/// How a mutation says what changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A list of JSON Patch's operations.
    JsonPatch,
    /// Fields that are to be so.
    Apply,
}

#[derive(Debug)]
struct Mutation {
    form: Form,
    source: String,
    program: Program,
}

#[derive(Debug)]
struct Compiled {
    conditions: Conditions,
    variables: Arc<[(String, Program)]>,
    mutations: Vec<Mutation>,
}

#[derive(Debug)]
struct Policy {
    name: String,
    matcher: Matcher,
    fails_open: bool,
    is_reinvoked: bool,
    param_kind: Option<ParamKind>,
    compiled: Result<Compiled, String>,
    bindings: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    name: String,
    matcher: Option<Matcher>,
    param_ref: Option<ParamRef>,
}

#[derive(Debug, Default)]
struct Snapshot {
    revision: Revision,
    policies: Vec<Policy>,
}

/// The mutating policies of the cluster.
pub(crate) struct MutatingPolicies {
    store: Store,
    any: AtomicBool,
    current: RwLock<Arc<Snapshot>>,
}

impl Compiled {
    fn new(policy: &MutatingAdmissionPolicy) -> Result<Self, String> {
        let spec = policy.spec.clone().unwrap_or_default();
        let names = Names { params: spec.param_kind.is_some(), authorizer: true };
        let conditions = spec.match_conditions.iter().flatten().map(|condition| condition.expression.as_str());
        let conditions = Conditions::new(conditions, names)?;
        let (mut variables, mut types) = (Vec::new(), Vec::new());
        for variable in spec.variables.iter().flatten() {
            let known = with_variables(environment(names), &types);
            let program = compile(&variable.expression, &known, Wanted::Anything)?;
            types.push((variable.name.clone(), program.result().clone()));
            variables.push((variable.name.clone(), program));
        }
        let all = with_variables(environment(names), &types);
        let mut mutations = Vec::new();
        for mutation in spec.mutations.iter().flatten() {
            let (form, source, wanted) = match (&mutation.json_patch, &mutation.apply_configuration) {
                (Some(patch), _) => (Form::JsonPatch, text(&patch.expression), Wanted::List),
                (None, Some(config)) => (Form::Apply, text(&config.expression), Wanted::Object),
                (None, None) => continue,
            };
            let source = source.trim().to_owned();
            let program = compile(&source, &all, wanted)?;
            mutations.push(Mutation { form, source, program });
        }
        Ok(Self { conditions, variables: variables.into(), mutations })
    }
}

/// What ends a mutation early.
enum Failure {
    /// The policy's own: it counts as the failure policy says.
    Policy(String),
    /// The server's.
    Server(Box<Status>),
}

impl From<Box<Status>> for Failure {
    fn from(status: Box<Status>) -> Self {
        Self::Server(status)
    }
}

impl Mutation {
    /// What the mutation makes of the object, seen as `kind`.
    fn apply(&self, kind: &dyn KindOps, before: &Json, bindings: &Bindings) -> Result<Json, Failure> {
        let mut left = POLICY_LIMIT;
        let value = run(&self.source, &self.program, bindings, &mut left).map_err(Failure::Policy)?;
        let value = value.to_json().ok_or_else(|| Failure::Policy("the expression's value has no JSON".to_owned()))?;
        match self.form {
            Form::JsonPatch => patched(value, before),
            Form::Apply => applied(kind, value, before),
        }
    }
}

fn patched(steps: Json, before: &Json) -> Result<Json, Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::Policy(format!("JSON Patch: {error}"));
    let patch = json::Patch::new(steps).map_err(|error| wrong(&error))?;
    match patch.apply(before) {
        Ok(after) => Ok(after),
        // A test that fails is how a patch says that it is not needed.
        Err(PatchError::TestFailed { .. }) => Ok(before.clone()),
        Err(error) => Err(wrong(&error)),
    }
}

fn applied(kind: &dyn KindOps, mut config: Json, before: &Json) -> Result<Json, Failure> {
    let resource = kind.resource();
    let Some(fields) = config.as_object_mut() else {
        return Err(Failure::Policy("unsupported return type from ApplyConfiguration expression".to_owned()));
    };
    fields.insert("apiVersion".to_owned(), resource.api_version().into());
    fields.insert("kind".to_owned(), resource.kind.into());
    let merged = kind.owners(Part::Main, &Versions::default()).lay(before, &config);
    let merged = merged.map_err(|error| Failure::Policy(format!("error applying patch: {error}")))?;
    Ok(merged.unwrap_or_else(|| before.clone()))
}

impl MutatingPolicies {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::Acquire)
    }

    pub(crate) fn new(store: Store) -> Self {
        Self { store, any: AtomicBool::new(false), current: RwLock::default() }
    }

    /// Whether policies are made of objects of this resource.
    pub(crate) fn follows(resource: &coracle_proto::resource::Resource) -> bool {
        [POLICIES, BINDINGS].contains(&resource.storage)
    }

    /// Reads all policies anew; returns the revision they were read at.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(crate) fn load(&self) -> Result<Revision, StoreError> {
        let (policies, first) = read::<MutatingAdmissionPolicy>(&self.store, POLICIES)?;
        let (bindings, second) = read::<MutatingAdmissionPolicyBinding>(&self.store, BINDINGS)?;
        // The older one, so that a change between the two is read again.
        let revision = first.min(second);
        let mut by_policy: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
        for (name, binding) in bindings {
            let Some(spec) = binding.spec else { continue };
            by_policy.entry(spec.policy_name.unwrap_or_default()).or_default().push(Binding {
                name,
                matcher: spec.match_resources.as_ref().map(Matcher::of),
                param_ref: spec.param_ref,
            });
        }
        let policies = policies.into_iter().filter_map(|(name, policy)| {
            let bindings = by_policy.remove(&name)?;
            let spec = policy.spec.clone().unwrap_or_default();
            Some(Policy {
                matcher: Matcher::of(&spec.match_constraints.unwrap_or_default()),
                fails_open: spec.failure_policy.as_deref() == Some("Ignore"),
                is_reinvoked: spec.reinvocation_policy.as_deref() == Some("IfNeeded"),
                param_kind: spec.param_kind,
                compiled: Compiled::new(&policy),
                bindings,
                name,
            })
        });
        let snapshot = Snapshot { revision, policies: policies.collect() };
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.revision <= revision {
            self.any.store(!snapshot.policies.is_empty(), Ordering::Release);
            *current = Arc::new(snapshot);
        }
        Ok(revision)
    }

    /// Follows the store until `shutdown`.
    ///
    /// # Errors
    /// The store is closed.
    pub(crate) async fn run(&self, shutdown: tokio_util::sync::CancellationToken) -> Result<(), StoreError> {
        follow(&self.store, [POLICIES, BINDINGS], || self.load(), shutdown).await
    }

    /// Lets the policies change the object, in their order; whether one did.
    ///
    /// # Errors
    /// 403 with all that went wrong, when something did that must not be left out.
    pub(in crate::admission) async fn mutate(
        &self,
        write: &Write<'_>,
        object: Option<&mut BoxObject>,
        state: &mut Reinvocation,
    ) -> Result<bool> {
        let Some(object) = object else { return Ok(false) };
        if !self.any.load(Ordering::Acquire) || is_exempt(write) {
            return Ok(false);
        }
        let snapshot = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let (mut any, mut errors) = (false, Vec::new());
        for policy in &snapshot.policies {
            any |= policy.mutate(write, object, state, &mut errors).await?;
        }
        match errors.first() {
            None => Ok(any),
            Some(first) => {
                let mut status = write.forbidden("");
                status.message.clone_from(first);
                let cause = |message: &String| Cause { message: message.clone(), ..Cause::default() };
                status.details.get_or_insert_default().causes.extend(errors.iter().map(cause));
                // As Kubernetes has it: the rule was not kept, whatever the reason.
                status.code = 422;
                status.reason = "Invalid".to_owned();
                Err(status)
            }
        }
    }
}

impl Policy {
    async fn mutate(
        &self,
        write: &Write<'_>,
        object: &mut BoxObject,
        state: &mut Reinvocation,
        errors: &mut Vec<String>,
    ) -> Result<bool> {
        let mut fail = |binding: Option<&str>, why: &str| {
            if !self.fails_open {
                errors.push(match binding {
                    Some(binding) => format!("policy '{}' with binding '{binding}' denied request: {why}", self.name),
                    None => format!("policy {:?} denied request: {why}", self.name),
                });
            }
        };
        let kind = match self.matcher.matching(write, Some(&**object)) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(false),
            Err(status) => {
                fail(None, &format!("failed to configure policy: {}", status.message));
                return Ok(false);
            }
        };
        let compiled = match &self.compiled {
            Ok(compiled) => compiled,
            Err(why) => {
                fail(None, &format!("failed to configure policy: {why}"));
                return Ok(false);
            }
        };
        let mut any = false;
        for binding in &self.bindings {
            let bound = binding
                .matcher
                .as_ref()
                .map_or(Ok(true), |matcher| matcher.matching(write, Some(&**object)).map(|kind| kind.is_some()));
            let found = match bound {
                Ok(false) => continue,
                Ok(true) => params(write, self.param_kind.as_ref(), binding.param_ref.as_ref()).await,
                Err(status) => Err(status.message),
            };
            let found = match found {
                Ok(found) => found,
                Err(why) => {
                    fail(Some(&binding.name), &format!("failed to configure binding: {why}"));
                    continue;
                }
            };
            for (index, params) in found.iter().enumerate() {
                let id = format!("{}/{}/{index}", self.name, binding.name);
                if state.is_second && !state.take(&id) {
                    continue;
                }
                let mut seen = parts(write, &*kind, Some(&**object)).await?;
                let asked = |seen: &Parts| Bindings::new(seen, params.as_ref(), asker(write));
                match compiled.conditions.hold(&asked(&seen)) {
                    Ok(true) => {}
                    Ok(false) => continue,
                    Err(why) => {
                        fail(Some(&binding.name), &why);
                        continue;
                    }
                }
                let before = seen.object.clone();
                for mutation in &compiled.mutations {
                    let bindings = asked(&seen).with_variables(&compiled.variables);
                    let current = seen.object.clone().unwrap_or_default();
                    match mutation.apply(&*kind, &current, &bindings) {
                        Ok(after) => seen.object = Some(after),
                        Err(Failure::Server(status)) => return Err(status),
                        Err(Failure::Policy(why)) => fail(Some(&binding.name), &why),
                    }
                }
                if seen.object != before
                    && let Some(after) = &seen.object
                {
                    *object = review::decoded(write, &*kind, after).await?;
                    any = true;
                    state.changed();
                }
                if self.is_reinvoked {
                    state.called(&id);
                }
            }
        }
        Ok(any)
    }
}
