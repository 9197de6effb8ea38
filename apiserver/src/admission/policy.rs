//! Admission policies: rules in CEL that the server itself runs, each bound to the requests it is for (KEP-3488).

pub(crate) mod asking;
pub(crate) mod expressions;
pub(crate) mod mutating;
pub(crate) mod type_checking;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use coracle_proto::{
    resource::Scope,
    selector::LabelSelector,
    status::{Cause, Status},
};
use coracle_store::{Error as StoreError, Range, Revision, Store};
use k8s_openapi::api::admissionregistration::v1::{
    ParamKind, ParamRef, ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation,
};
use serde_json::{Value as Json, json};

use self::{
    asking::{Asker, Check},
    expressions::{
        Bindings, Conditions, Names, POLICY_LIMIT, Parts, Wanted, compile, environment, run, with_variables,
    },
};
use super::{
    Write,
    matching::Matcher,
    stored_objects::{follow, read},
    webhook::review,
};
use crate::{
    cel::{Program, Value},
    ops::{AnyObject, KindOps},
    registry::versions::seen_as,
    status_of::{self, Result},
    stored::{self, Header},
};

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

/// As long as a message that an expression makes may be.
const MAX_MESSAGE: usize = 5 * 1024;

/// As long as an audit annotation may be.
const MAX_ANNOTATION: usize = 10 * 1024;

/// One validation, compiled.
#[derive(Debug)]
struct Rule {
    source: String,
    program: Program,
    message: String,
    message_program: Option<(String, Program)>,
    reason: String,
}

/// A policy's expressions, compiled.
#[derive(Debug)]
struct Compiled {
    conditions: Conditions,
    variables: Arc<[(String, Program)]>,
    rules: Vec<Rule>,
    annotations: Vec<(String, String, Program)>,
}

#[derive(Debug)]
struct Policy {
    name: String,
    matcher: Matcher,
    fails_open: bool,
    param_kind: Option<ParamKind>,
    compiled: Result<Compiled, String>,
    bindings: Vec<Binding>,
}

#[derive(Debug)]
struct Binding {
    name: String,
    matcher: Option<Matcher>,
    param_ref: Option<ParamRef>,
    actions: Vec<String>,
}

#[derive(Debug, Default)]
struct Snapshot {
    revision: Revision,
    policies: Vec<Policy>,
}

/// The validating policies of the cluster.
pub(crate) struct Policies {
    store: Store,
    any: AtomicBool,
    current: RwLock<Arc<Snapshot>>,
}

fn text(text: &Option<String>) -> &str {
    text.as_deref().unwrap_or_default()
}

impl Compiled {
    fn new(policy: &ValidatingAdmissionPolicy) -> Result<Self, String> {
        let spec = policy.spec.clone().unwrap_or_default();
        let params = spec.param_kind.is_some();
        let names = Names { params, authorizer: true };
        let conditions = spec.match_conditions.iter().flatten().map(|condition| condition.expression.as_str());
        let conditions = Conditions::new(conditions, names)?;
        let (mut variables, mut types) = (Vec::new(), Vec::new());
        for variable in spec.variables.iter().flatten() {
            let program = compile(&variable.expression, &with_variables(environment(names), &types), Wanted::Anything)?;
            types.push((variable.name.clone(), program.result().clone()));
            variables.push((variable.name.clone(), program));
        }
        let all = with_variables(environment(names), &types);
        let quiet = with_variables(environment(Names { params, authorizer: false }), &types);
        let rule = |validation: &Validation| -> Result<Rule, String> {
            let expression = text(&validation.message_expression).trim();
            let message_program = (!expression.is_empty())
                .then(|| Ok::<_, String>((expression.to_owned(), compile(expression, &quiet, Wanted::Text)?)))
                .transpose()?;
            Ok(Rule {
                source: validation.expression.clone(),
                program: compile(&validation.expression, &all, Wanted::Bool)?,
                message: text(&validation.message).trim().to_owned(),
                message_program,
                reason: validation.reason.clone().unwrap_or_else(|| "Invalid".to_owned()),
            })
        };
        let rules = spec.validations.iter().flatten().map(rule).collect::<Result<_, String>>()?;
        let annotations = spec.audit_annotations.iter().flatten().map(|annotation| {
            let source = annotation.value_expression.trim();
            Ok((annotation.key.clone(), source.to_owned(), compile(source, &all, Wanted::TextOrNull)?))
        });
        let annotations = annotations.collect::<Result<_, String>>()?;
        Ok(Self { conditions, variables: variables.into(), rules, annotations })
    }
}

/// What a policy makes of a request.
#[derive(Debug, Default)]
struct Judged {
    /// Reason and message of each validation that failed, with its place.
    denied: Vec<(usize, String, String)>,
    annotations: Vec<(String, String)>,
    /// What is refused whatever the binding says: an annotation that cannot be worked out.
    broken: Vec<String>,
}

impl Compiled {
    fn judge(&self, bindings: &Bindings, fails_open: bool) -> Judged {
        let mut judged = Judged::default();
        let mut fail = |at: usize, why: String| {
            if !fails_open {
                judged.denied.push((at, String::new(), why));
            }
        };
        match self.conditions.hold(bindings) {
            Ok(true) => {}
            Ok(false) => return judged,
            Err(why) => {
                fail(0, why);
                return judged;
            }
        }
        let bindings = bindings.with_variables(&self.variables);
        let mut left = POLICY_LIMIT;
        let results: Vec<_> =
            self.rules.iter().map(|rule| run(&rule.source, &rule.program, &bindings, &mut left)).collect();
        for (at, (rule, result)) in self.rules.iter().zip(results).enumerate() {
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(_) => {
                    let made = rule.message_program.as_ref().and_then(|(source, program)| {
                        let value = run(source, program, &bindings, &mut left).ok()?;
                        let text = value.as_text()?.trim().to_owned();
                        (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains('\n')).then_some(text)
                    });
                    let given = (!rule.message.is_empty()).then(|| rule.message.clone());
                    let message = made.or(given);
                    let message = message.unwrap_or_else(|| format!("failed expression: {}", rule.source.trim()));
                    judged.denied.push((at, rule.reason.clone(), message));
                }
                Err(why) if !fails_open => judged.denied.push((at, String::new(), why)),
                Err(_) => {}
            }
        }
        let mut left = POLICY_LIMIT;
        for (key, source, program) in &self.annotations {
            match run(source, program, &bindings, &mut left) {
                Ok(Value::Text(text)) if !text.trim().is_empty() => {
                    judged.annotations.push((key.clone(), text.trim().chars().take(MAX_ANNOTATION).collect()));
                }
                Ok(_) => {}
                Err(why) if !fails_open => judged.broken.push(why),
                Err(_) => {}
            }
        }
        judged
    }
}

/// A failed validation on its way to an answer.
struct Denial<'a> {
    policy: &'a str,
    binding: Option<&'a str>,
    reason: String,
    message: String,
}

impl Denial<'_> {
    fn status(self, write: &Write<'_>) -> Box<Status> {
        let Self { policy, binding, reason, message } = self;
        let with = binding.map(|binding| format!(" with binding '{binding}'")).unwrap_or_default();
        let message = format!("ValidatingAdmissionPolicy '{policy}'{with} denied request: {message}");
        let mut status = write.forbidden(&message);
        let reason = if reason.is_empty() { "Invalid".to_owned() } else { reason };
        status.code = match reason.as_str() {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        status.reason = reason;
        let cause = Cause { message, ..Cause::default() };
        status.details.get_or_insert_default().causes.push(cause);
        status
    }
}

/// The objects that a binding's parameters are; one `None` when the policy has none.
async fn params(
    write: &Write<'_>,
    kind: Option<&ParamKind>,
    wanted: Option<&ParamRef>,
) -> Result<Vec<Option<Json>>, String> {
    let (Some(kind), Some(wanted)) = (kind, wanted) else { return Ok(vec![None]) };
    let (group, version) =
        kind.api_version.as_deref().unwrap_or_default().rsplit_once('/').unwrap_or(("", text(&kind.api_version)));
    let known = write.registry.kind_of(group, version, text(&kind.kind));
    let ops = known.ok_or_else(|| {
        format!(
            "failed to find resource referenced by paramKind: '{}, Kind={}'",
            text(&kind.api_version),
            text(&kind.kind)
        )
    })?;
    let resource = ops.resource();
    let namespace = match (resource.scope, text(&wanted.namespace)) {
        (Scope::Cluster, "") => "",
        (Scope::Cluster, _) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned());
        }
        (Scope::Namespaced, "") if write.namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources".to_owned()
            );
        }
        (Scope::Namespaced, "") => write.namespace,
        (Scope::Namespaced, given) => given,
    };
    let shown = |entry: &coracle_store::Entry| -> Result<Json, String> {
        let object = write.registry.object_of(ops.as_ref(), entry).map_err(|status| status.message.clone())?;
        let bytes = ops.to_shown(&*object).map_err(|error| error.to_string())?;
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())
    };
    let store = write.registry.store();
    let entries = match (text(&wanted.name), &wanted.selector) {
        ("", Some(selector)) => {
            let selector = LabelSelector::from_api(Some(selector)).map_err(|error| error.to_string())?;
            let range = Range::prefix(stored::prefix(resource.storage, namespace));
            let mut entries = store.range(&range).map_err(|error| error.to_string())?.entries;
            entries.retain(|entry| selector.matches_labels(&Header::of(entry).labels));
            entries
        }
        ("", None) => return Err("one of name or selector must be provided".to_owned()),
        (name, _) => store.get(&stored::key(resource.storage, namespace, name)).into_iter().collect(),
    };
    let entries = seen_as(ops.as_ref(), entries).await.map_err(|status| status.message)?;
    let found = entries.iter().map(|entry| shown(entry).map(Some)).collect::<Result<Vec<_>, String>>()?;
    if found.is_empty() && text(&wanted.parameter_not_found_action) == "Deny" {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned());
    }
    Ok(found)
}

/// What expressions see of a write, as `kind`.
pub(super) async fn parts(write: &Write<'_>, kind: &dyn KindOps, object: Option<&dyn AnyObject>) -> Result<Parts> {
    let json = async |object: Option<&dyn AnyObject>| -> Result<Option<Json>> {
        let Some(object) = object else { return Ok(None) };
        let bytes = review::shown(write, kind, object).await?;
        serde_json::from_slice(&bytes).map_err(|error| status_of::broken("an object cannot be encoded", &error))
    };
    let (object, old_object) = (json(object).await?, json(write.old).await?);
    let namespace = (!write.namespace.is_empty()).then(|| write.registry.namespace_entry(write.namespace)).flatten();
    let namespace = namespace.map(|entry| serde_json::from_slice(&stored::object(&entry)));
    let broken = |error| status_of::broken("a stored object cannot be read", &error);
    Ok(Parts {
        object,
        old_object,
        namespace: namespace.transpose().map_err(broken)?,
        request: review::described(write, kind)?,
    })
}

/// `authorizer`, for the one who writes.
pub(super) fn asker(write: &Write<'_>) -> Option<Asker> {
    let resource = write.kind.resource();
    let check = Check {
        group: resource.group.to_owned(),
        resource: resource.plural.to_owned(),
        subresource: write.subresource.to_owned(),
        namespace: write.namespace.to_owned(),
        name: write.name.to_owned(),
        ..Check::default()
    };
    Some(Asker::new(write.registry.authorizer()?.clone(), write.user.clone(), check))
}

impl Policies {
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
        let (policies, first) = read::<ValidatingAdmissionPolicy>(&self.store, POLICIES)?;
        let (bindings, second) = read::<ValidatingAdmissionPolicyBinding>(&self.store, BINDINGS)?;
        // The older one, so that a change between the two is read again.
        let revision = first.min(second);
        let mut by_policy: BTreeMap<String, Vec<Binding>> = BTreeMap::new();
        for (name, binding) in bindings {
            let spec = binding.spec;
            by_policy.entry(spec.policy_name).or_default().push(Binding {
                name,
                matcher: spec.match_resources.as_ref().map(Matcher::of),
                param_ref: spec.param_ref,
                actions: spec.validation_actions,
            });
        }
        // Nobody is asked about a policy that is bound to nothing.
        let policies = policies.into_iter().filter_map(|(name, policy)| {
            let bindings = by_policy.remove(&name)?;
            let spec = policy.spec.clone().unwrap_or_default();
            Some(Policy {
                matcher: Matcher::of(&spec.match_constraints.unwrap_or_default()),
                fails_open: spec.failure_policy.as_deref() == Some("Ignore"),
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

    /// Judges a write by all policies that are bound to it.
    ///
    /// # Errors
    /// The first denial, in the policies' order.
    pub(super) async fn validate(&self, write: &Write<'_>, object: Option<&dyn AnyObject>) -> Result<()> {
        if !self.any.load(Ordering::Acquire) || super::webhook::is_exempt(write) {
            return Ok(());
        }
        let snapshot = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let mut denials: Vec<Denial<'_>> = Vec::new();
        for policy in &snapshot.policies {
            policy.judge(write, object, &mut denials).await?;
        }
        match denials.into_iter().next() {
            Some(first) => Err(first.status(write)),
            None => Ok(()),
        }
    }
}

impl Policy {
    /// What cannot be asked denies, unless the policy may be left out.
    fn misconfigured<'a>(&'a self, denials: &mut Vec<Denial<'a>>, binding: Option<&'a str>, why: &str) {
        if !self.fails_open {
            let what = if binding.is_some() { "binding" } else { "policy" };
            let message = format!("failed to configure {what}: {why}");
            denials.push(Denial { policy: &self.name, binding, reason: String::new(), message });
        }
    }

    async fn judge<'a>(
        &'a self,
        write: &Write<'_>,
        object: Option<&dyn AnyObject>,
        denials: &mut Vec<Denial<'a>>,
    ) -> Result<()> {
        let kind = match self.matcher.matching(write, object) {
            Ok(Some(kind)) => kind,
            Ok(None) => return Ok(()),
            Err(status) => {
                self.misconfigured(denials, None, &status.message);
                return Ok(());
            }
        };
        let compiled = match &self.compiled {
            Ok(compiled) => compiled,
            Err(why) => {
                self.misconfigured(denials, None, why);
                return Ok(());
            }
        };
        let mut seen = None;
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in &self.bindings {
            let bound = binding
                .matcher
                .as_ref()
                .map_or(Ok(true), |matcher| matcher.matching(write, object).map(|kind| kind.is_some()));
            match bound {
                Ok(true) => {}
                Ok(false) => continue,
                Err(status) => {
                    self.misconfigured(denials, Some(&binding.name), &status.message);
                    continue;
                }
            }
            let found = match params(write, self.param_kind.as_ref(), binding.param_ref.as_ref()).await {
                Ok(found) => found,
                Err(why) => {
                    self.misconfigured(denials, Some(&binding.name), &why);
                    continue;
                }
            };
            let parts = match &seen {
                Some(parts) => parts,
                None => seen.insert(parts(write, &*kind, object).await?),
            };
            for params in found {
                let bindings = Bindings::new(parts, params.as_ref(), asker(write));
                let judged = compiled.judge(&bindings, self.fails_open);
                for (key, value) in judged.annotations {
                    let values = annotations.entry(key).or_default();
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                for (at, reason, message) in judged.denied {
                    binding.act(write, &self.name, at, &message);
                    if binding.denies() {
                        let binding = Some(binding.name.as_str());
                        denials.push(Denial { policy: &self.name, binding, reason, message });
                    }
                }
                for message in judged.broken {
                    let binding = Some(binding.name.as_str());
                    denials.push(Denial { policy: &self.name, binding, reason: String::new(), message });
                }
            }
        }
        for (key, values) in annotations {
            write.notes.annotate(format!("{}/{key}", self.name), values.join(", "));
        }
        Ok(())
    }
}

impl Binding {
    fn denies(&self) -> bool {
        self.actions.iter().any(|action| action == "Deny")
    }

    /// Warns and notes, where the binding asks for that.
    fn act(&self, write: &Write<'_>, policy: &str, at: usize, message: &str) {
        for action in &self.actions {
            match action.as_str() {
                "Warn" => write.notes.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{}': {message}",
                    self.name
                )),
                "Audit" => {
                    let value = json!([{
                        "message": message, "policy": policy, "binding": self.name, "expressionIndex": at,
                        "validationActions": self.actions,
                    }]);
                    write.notes.annotate("validation.policy.admission.k8s.io/validation_failure", value.to_string());
                }
                _ => {}
            }
        }
    }
}
