//! CEL in admission: the names an expression may use, and what they stand for while a request is judged.
//!
//! `object`, `oldObject`, `request`, `namespaceObject`, `params` where a policy has a kind of them, `variables` that the
//! policy defines, and `authorizer` (KEP-3488).

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value as Json;

use super::asking::Asker;
use crate::cel::{self, Budget, Environment, Error, Host, PER_CALL_LIMIT, Program, Type, Value, Variables};

/// What all expressions of one policy may cost together for one request: Kubernetes' own limit.
pub(crate) const POLICY_LIMIT: u64 = 10_000_000;

/// What all match conditions of one webhook or policy may cost together: a quarter of that.
pub(crate) const CONDITIONS_LIMIT: u64 = 2_500_000;

/// Names beyond those that every expression has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Names {
    /// `params`.
    pub(crate) params: bool,
    /// `authorizer`.
    pub(crate) authorizer: bool,
}

fn fields(names: &[&str], ty: &Type) -> Vec<(String, Type)> {
    names.iter().map(|name| ((*name).to_owned(), ty.clone())).collect()
}

fn request_type() -> Type {
    let text = Type::text();
    let kind = Type::object("kubernetes.GroupVersionKind", fields(&["group", "version", "kind"], &text));
    let resource = Type::object("kubernetes.GroupVersionResource", fields(&["group", "version", "resource"], &text));
    let mut user = fields(&["username", "uid"], &text);
    user.push(("groups".to_owned(), Type::list(text.clone())));
    user.push(("extra".to_owned(), Type::map(Type::list(text.clone()))));
    let mut all = fields(&["subResource", "requestSubResource", "name", "namespace", "operation"], &text);
    all.extend(fields(&["kind", "requestKind"], &kind));
    all.extend(fields(&["resource", "requestResource"], &resource));
    all.push(("userInfo".to_owned(), Type::object("kubernetes.UserInfo", user)));
    all.push(("dryRun".to_owned(), Type::Bool));
    all.push(("options".to_owned(), Type::Dyn));
    Type::object("kubernetes.AdmissionRequest", all)
}

fn namespace_type() -> Type {
    let text = Type::text();
    let mut meta = fields(&["name", "generateName", "namespace", "UID", "resourceVersion"], &text);
    meta.extend(fields(&["labels", "annotations"], &Type::map(text.clone())));
    meta.extend(fields(&["creationTimestamp", "deletionTimestamp"], &Type::Timestamp));
    meta.extend(fields(&["deletionGracePeriodSeconds", "generation"], &Type::Int));
    meta.push(("finalizers".to_owned(), Type::list(text.clone())));
    let mut condition = fields(&["status", "type", "message", "reason"], &text);
    condition.push(("lastTransitionTime".to_owned(), Type::Timestamp));
    let condition = Type::object("kubernetes.NamespaceCondition", condition);
    let status = [("conditions".to_owned(), Type::list(condition)), ("phase".to_owned(), text.clone())];
    let spec = [("finalizers".to_owned(), Type::list(text))];
    Type::object(
        "kubernetes.Namespace",
        [
            ("metadata".to_owned(), Type::object("kubernetes.NamespaceMetadata", meta)),
            ("spec".to_owned(), Type::object("kubernetes.NamespaceSpec", spec)),
            ("status".to_owned(), Type::object("kubernetes.NamespaceStatus", status)),
        ],
    )
}

/// What an expression may use.
#[must_use]
pub(crate) fn environment(names: Names) -> Environment {
    let mut environment = Environment::new()
        .with("object", Type::Dyn)
        .with("oldObject", Type::Dyn)
        .with("namespaceObject", namespace_type())
        .with("request", request_type());
    if names.params {
        environment = environment.with("params", Type::Dyn);
    }
    if names.authorizer {
        environment = environment.with("authorizer", Type::Named("kubernetes.authorization.Authorizer"));
    }
    environment
}

/// The same with the variables that were defined before.
#[must_use]
pub(crate) fn with_variables(environment: Environment, variables: &[(String, Type)]) -> Environment {
    if variables.is_empty() {
        return environment;
    }
    environment.with("variables", Type::object("kubernetes.variables", variables.iter().cloned()))
}

/// What an expression is to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// True or false.
    Bool,
    /// A text.
    Text,
    /// A text, or nothing.
    TextOrNull,
    /// A list.
    List,
    /// An object, in the fields it is to have.
    Object,
    /// Whatever it is.
    Anything,
}

/// Compiles an expression that gives what is wanted.
///
/// # Errors
/// What is wrong, as Kubernetes' field errors have it.
pub(crate) fn compile(source: &str, environment: &Environment, wanted: Wanted) -> Result<Program, String> {
    let program = cel::compile(source, environment).map_err(|error| format!("compilation failed: {error}"))?;
    let given = program.result();
    match wanted {
        Wanted::Bool if *given != Type::Bool => Err(format!("must evaluate to bool but got {given}")),
        Wanted::Text if !matches!(given, Type::Text(_)) => Err(format!("must evaluate to string but got {given}")),
        Wanted::TextOrNull if !matches!(given, Type::Text(_) | Type::Null) => {
            Err(format!("must evaluate to one of [string null_type] but got {given}"))
        }
        Wanted::List if !matches!(given, Type::List(..)) => {
            Err(format!("must evaluate to list(JSONPatch) but got {given}"))
        }
        Wanted::Object if *given != Type::Dyn => Err(format!("must evaluate to Object but got {given}")),
        _ => Ok(program),
    }
}

/// What the names stand for in one request.
#[derive(Clone)]
pub(crate) struct Bindings {
    values: Arc<BTreeMap<String, Value>>,
}

impl Bindings {
    /// The request as expressions see it; `params` where there are some.
    pub(crate) fn new(parts: &Parts, params: Option<&Json>, asker: Option<Asker>) -> Self {
        let or_null = |json: &Option<Json>| json.as_ref().map_or(Value::Null, Value::of);
        let mut values = BTreeMap::from([
            ("object".to_owned(), or_null(&parts.object)),
            ("oldObject".to_owned(), or_null(&parts.old_object)),
            ("namespaceObject".to_owned(), parts.namespace.as_ref().map_or(Value::Null, namespace)),
            ("request".to_owned(), Value::of(&parts.request)),
            ("params".to_owned(), params.map_or(Value::Null, Value::of)),
        ]);
        if let Some(asker) = asker {
            values.insert("authorizer".to_owned(), Value::Host(Arc::new(asker)));
        }
        Self { values: Arc::new(values) }
    }

    /// The same with `variables`.
    pub(crate) fn with_variables(&self, programs: &Arc<[(String, Program)]>) -> Self {
        if programs.is_empty() {
            return self.clone();
        }
        let composed = Composed {
            programs: Arc::clone(programs),
            base: self.clone(),
            known: Mutex::default(),
            spent: AtomicU64::new(0),
        };
        let mut values = (*self.values).clone();
        values.insert("variables".to_owned(), Value::Host(Arc::new(composed)));
        Self { values: Arc::new(values) }
    }
}

impl Variables for Bindings {
    fn get(&self, name: &str) -> Option<Result<Value, Error>> {
        self.values.get(name).cloned().map(Ok)
    }
}

/// The namespace, in the types that expressions are checked against.
fn namespace(json: &Json) -> Value {
    Value::typed(json, &namespace_type(), &cel::ListKind::Atomic)
}

/// What of a request expressions can see.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parts {
    /// The object as it is to be; none at a deletion.
    pub(crate) object: Option<Json>,
    /// The object as it is; none at a creation.
    pub(crate) old_object: Option<Json>,
    /// The namespace it is in; none at cluster scope.
    pub(crate) namespace: Option<Json>,
    /// What AdmissionReview's request says besides.
    pub(crate) request: Json,
}

/// A policy's variables: each worked out when it is first asked for, once a request.
struct Composed {
    programs: Arc<[(String, Program)]>,
    base: Bindings,
    known: Mutex<BTreeMap<String, Result<Value, Error>>>,
    spent: AtomicU64,
}

/// What a variable's expression sees: everything, and the variables before it.
struct Before<'a> {
    composed: &'a Composed,
    count: usize,
}

impl Variables for Before<'_> {
    fn get(&self, name: &str) -> Option<Result<Value, Error>> {
        if name != "variables" {
            return self.composed.base.get(name);
        }
        let mut values = cel::MapValue::new();
        for (index, (name, _)) in self.composed.programs.iter().enumerate().take(self.count) {
            match self.composed.value(index, name) {
                Ok(value) => values.insert(cel::Key::Text(name.as_str().into()), value),
                Err(error) => return Some(Err(error)),
            };
        }
        Some(Ok(Value::Map(Arc::new(values))))
    }
}

impl Composed {
    fn value(&self, index: usize, name: &str) -> Result<Value, Error> {
        let known = |map: &BTreeMap<String, Result<Value, Error>>| map.get(name).cloned();
        if let Some(value) = known(&self.known.lock().unwrap_or_else(PoisonError::into_inner)) {
            return value;
        }
        let Some((_, program)) = self.programs.get(index) else {
            return Err(Error::new(format!("no such key: {name}")));
        };
        let left = POLICY_LIMIT.saturating_sub(self.spent.load(Ordering::Relaxed)).min(PER_CALL_LIMIT);
        let mut budget = Budget::new(left);
        let before = Before { composed: self, count: index };
        let value = if program.uses("variables") {
            program.run(&before, &mut budget)
        } else {
            program.run(&self.base, &mut budget)
        };
        let value = value.map_err(|error| {
            if error.is_stop() {
                return error;
            }
            Error::new(format!("composited variable {name:?} fails to evaluate: {error}"))
        });
        self.spent.fetch_add(budget.spent(), Ordering::Relaxed);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value.clone());
        value
    }
}

impl Host for Composed {
    fn type_name(&self) -> &'static str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str) -> Option<Result<Value, Error>> {
        let index = self.programs.iter().position(|(known, _)| known == name)?;
        Some(self.value(index, name))
    }
}

/// Runs one expression within what is left of a policy's budget.
///
/// # Errors
/// Why it has no value, as Kubernetes words it.
pub(crate) fn run(source: &str, program: &Program, bindings: &Bindings, left: &mut u64) -> Result<Value, String> {
    let mut budget = Budget::new((*left).min(PER_CALL_LIMIT));
    let value = program.run(bindings, &mut budget);
    *left = left.saturating_sub(budget.spent());
    if *left == 0 {
        return Err(
            "validation failed due to running out of cost budget, no further validation rules will be run".to_owned()
        );
    }
    value.map_err(|error| format!("expression '{source}' resulted in error: {error}"))
}

/// Conditions that must all hold before a webhook or a policy is asked.
#[derive(Debug, Default)]
pub(crate) struct Conditions(Vec<(String, Program)>);

impl Conditions {
    /// Compiles the conditions.
    ///
    /// # Errors
    /// What is wrong with the first that cannot be.
    pub(crate) fn new<'a>(expressions: impl Iterator<Item = &'a str>, names: Names) -> Result<Self, String> {
        let environment = environment(names);
        let compiled = expressions.map(|source| {
            let source = source.trim();
            Ok((source.to_owned(), compile(source, &environment, Wanted::Bool)?))
        });
        compiled.collect::<Result<_, String>>().map(Self)
    }

    /// Whether there is one.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all hold; one that does not outweighs all that fail.
    ///
    /// # Errors
    /// Some cannot be told, and the others hold.
    pub(crate) fn hold(&self, bindings: &Bindings) -> Result<bool, String> {
        let (mut left, mut errors) = (CONDITIONS_LIMIT, Vec::new());
        for (source, program) in &self.0 {
            match run(source, program, bindings, &mut left) {
                Ok(Value::Bool(false)) => return Ok(false),
                Ok(_) => {}
                Err(why) => errors.push(why),
            }
        }
        match errors.as_slice() {
            [] => Ok(true),
            [one] => Err(one.clone()),
            many => Err(format!("[{}]", many.join(", "))),
        }
    }
}
