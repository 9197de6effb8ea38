//! `authorizer` in expressions: whether the one who asks may do something else as well.

use std::sync::Arc;

use crate::{
    authz::{Attributes, Authorizer, Decision},
    cel::{Error, Host, Value},
    user::User,
};

/// What asking costs: it is dearer than any computation.
const COST: u64 = 350_000;

/// `authorizer`: a user, and what this request is about.
#[derive(Clone)]
pub(crate) struct Asker {
    authorizer: Authorizer,
    user: Arc<User>,
    request: Check,
}

/// What may be asked about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Check {
    pub(crate) path: Option<String>,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) field_selector: String,
}

impl Asker {
    /// Asks for this user; `request` is what the request itself is about.
    pub(crate) fn new(authorizer: Authorizer, user: User, request: Check) -> Self {
        Self { authorizer, user: Arc::new(user), request }
    }

    fn about(&self, check: Check, is_group: bool) -> Value {
        Value::Host(Arc::new(Asked { asker: self.clone(), check, is_group }))
    }
}

fn text(args: &[Value]) -> Option<String> {
    match args {
        [Value::Text(text)] => Some(text.to_string()),
        _ => None,
    }
}

impl Host for Asker {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Authorizer"
    }

    fn field(&self, name: &str) -> Option<Result<Value, Error>> {
        (name == "requestResource").then(|| Ok(self.about(self.request.clone(), false)))
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<(Value, u64), Error>> {
        let value = match (function, args) {
            ("path", _) => self.about(Check { path: Some(text(args)?), ..Check::default() }, false),
            ("group", _) => self.about(Check { group: text(args)?, ..Check::default() }, true),
            ("serviceAccount", [Value::Text(namespace), Value::Text(name)]) => {
                let groups = ["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
                let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
                let user = User::new(format!("system:serviceaccount:{namespace}:{name}"), &groups);
                Value::Host(Arc::new(Self { user: Arc::new(user), ..self.clone() }))
            }
            _ => return None,
        };
        Some(Ok((value, 1)))
    }
}

/// A group, a resource or a path that is asked about.
struct Asked {
    asker: Asker,
    check: Check,
    is_group: bool,
}

impl Host for Asked {
    fn type_name(&self) -> &'static str {
        match (&self.check.path, self.is_group) {
            (Some(_), _) => "kubernetes.authorization.PathCheck",
            (None, true) => "kubernetes.authorization.GroupCheck",
            (None, false) => "kubernetes.authorization.ResourceCheck",
        }
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<(Value, u64), Error>> {
        let given = text(args)?;
        let mut check = self.check.clone();
        match function {
            "resource" => check.resource = given,
            "subresource" => check.subresource = given,
            "namespace" => check.namespace = given,
            "name" => check.name = given,
            "fieldSelector" => check.field_selector = given,
            // Nobody decides by labels here, so that asking with them is asking for all.
            "labelSelector" => {}
            "check" => return Some(Ok((self.decide(&given), COST))),
            _ => return None,
        }
        Some(Ok((self.asker.about(check, false), 1)))
    }
}

impl Asked {
    fn decide(&self, verb: &str) -> Value {
        let check = &self.check;
        let attributes = Attributes {
            namespace: &check.namespace,
            group: &check.group,
            resource: &check.resource,
            subresource: &check.subresource,
            name: &check.name,
            field_selector: &check.field_selector,
            path: check.path.as_deref(),
            ..Attributes::new(&self.asker.user, verb)
        };
        Value::Host(Arc::new(Told(self.asker.authorizer.decide(&attributes))))
    }
}

/// What the authorizer said.
struct Told(Decision);

impl Host for Told {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }

    fn call(&self, function: &str, args: &[Value]) -> Option<Result<(Value, u64), Error>> {
        if !args.is_empty() {
            return None;
        }
        let value = match (function, &self.0) {
            ("allowed", decision) => Value::Bool(*decision == Decision::Allow),
            ("reason", Decision::NoOpinion(reason)) => Value::text(reason),
            ("reason" | "error", _) => Value::text(""),
            ("errored", _) => Value::Bool(false),
            _ => return None,
        };
        Some(Ok((value, 1)))
    }
}
