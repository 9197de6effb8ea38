//! `x-kubernetes-validations`: rules in CEL about parts of an object (KEP-2876).
//!
//! Rules are compiled with the definition and run with every write, all rules of one write within one budget. A rule that
//! speaks of `oldSelf` is about changes and runs only where there was a value before.

mod run;

use coracle_proto::field::{Error, ErrorKind, Errors, Path};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, ValidationRule};

pub(super) use self::run::{check, let_be};
use super::schema::{Additional, Kind, ListType, Schema};
use crate::cel::{self, Environment, ListKind, Program, Type};

/// What one rule may be estimated to cost.
const RULE_LIMIT: u64 = 10_000_000;

/// What all rules of a schema may be estimated to cost together.
const SCHEMA_LIMIT: u64 = 100_000_000;

/// One rule.
#[derive(Clone, Debug)]
struct Rule {
    program: Program,
    text: String,
    /// What is told when it does not hold, and whether the definition has it.
    message: String,
    has_message: bool,
    message_program: Option<Program>,
    reason: ErrorKind,
    field_path: String,
    uses_old: bool,
    optional_old: bool,
}

impl Rule {
    /// By what a person knows it that could not be worked out.
    fn told(&self) -> &str {
        if self.has_message { &self.message } else { self.text.trim() }
    }
}

/// The rules about one value, and the value's type.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    ty: Type,
    rules: Vec<Rule>,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.ty == other.ty && self.rules.iter().map(|r| &r.text).eq(other.rules.iter().map(|r| &r.text))
    }
}

/// The longest text of an enumeration.
fn longest(schema: &Schema) -> Option<u64> {
    let values = schema.checks.as_ref()?.one_of_values.as_ref()?;
    values.iter().map(|value| value.as_str().map_or(0, |text| text.chars().count() as u64)).max()
}

fn bound(n: Option<i64>) -> u64 {
    n.and_then(|n| u64::try_from(n).ok()).unwrap_or(u64::MAX)
}

/// The type by which rules see a value.
pub(super) fn type_of(schema: &Schema, name: &str, is_root: bool) -> Type {
    if schema.int_or_string {
        return Type::Dyn;
    }
    let checks = schema.checks.as_deref();
    let format = checks.map_or("", |checks| &*checks.format);
    match schema.kind {
        None => Type::Dyn,
        Some(Kind::Boolean) => Type::Bool,
        Some(Kind::Integer) => Type::Int,
        Some(Kind::Number) => Type::Double,
        Some(Kind::String) => match format {
            "byte" => Type::Bytes(bound(checks.and_then(|checks| checks.max_length))),
            "duration" => Type::Duration,
            "date" | "date-time" | "datetime" => Type::Timestamp,
            _ => Type::Text(longest(schema).unwrap_or_else(|| bound(checks.and_then(|checks| checks.max_length)))),
        },
        Some(Kind::Array) => {
            let item = schema.items.as_ref().map_or(Type::Dyn, |item| type_of(item, &format!("{name}.@idx"), false));
            Type::List(Box::new(item), bound(checks.and_then(|checks| checks.max_items)))
        }
        Some(Kind::Object) => {
            if let Additional::Of(value) = &schema.additional {
                let value = type_of(value, &format!("{name}.@elem"), false);
                let most = bound(checks.and_then(|checks| checks.max_properties));
                // Kubernetes takes keys for empty when it reckons what a rule costs.
                return Type::Map(Box::new(Type::Text(0)), Box::new(value), most);
            }
            let own = |(property, of): &(Box<str>, Schema)| {
                (property.to_string(), type_of(of, &format!("{name}.{property}"), false))
            };
            let mut fields: Vec<(String, Type)> = schema.properties.iter().map(own).collect();
            if is_root || schema.embedded {
                // Of a resource's metadata rules see the names alone.
                fields.retain(|(name, _)| name != "metadata");
                let texts = ["name", "generateName"].map(|name| (name.to_owned(), Type::Text(253)));
                fields.push(("metadata".to_owned(), Type::object(&format!("{name}.metadata"), texts)));
                for text in ["apiVersion", "kind"] {
                    if !fields.iter().any(|(name, _)| name == text) {
                        fields.push((text.to_owned(), Type::Text(253)));
                    }
                }
            }
            Type::of_properties(name, fields)
        }
    }
}

fn list_kind(schema: &Schema) -> ListKind {
    match &schema.list_type {
        ListType::Atomic => ListKind::Atomic,
        ListType::Set => ListKind::Set,
        ListType::Map(keys) => ListKind::Map(keys.clone()),
    }
}

/// Where rules cannot follow a value from an old object to a new one.
#[derive(Clone, Copy, Debug, Default)]
struct Place<'a> {
    uncorrelatable: Option<&'a str>,
    /// How many such values one object can have; [`UNBOUNDED`] where a list or map around it may have any number.
    many: u64,
}

/// No bound was declared.
const UNBOUNDED: u64 = u64::MAX;

/// As large as a request is taken to be where nothing else bounds how often a rule runs.
const REQUEST: u64 = 3 * 1024 * 1024;

/// The fewest bytes a value of this schema takes in JSON, as Kubernetes counts them.
fn least_bytes(props: &JSONSchemaProps) -> u64 {
    match props.type_.as_deref() {
        Some("boolean") => 4,
        Some("integer" | "number") => 1,
        Some("object") => {
            let fields = props.properties.iter().flatten();
            let needed = |name: &String| props.required.iter().flatten().any(|required| required == name);
            let size = |(name, of): (&String, &JSONSchemaProps)| {
                u64::try_from(name.len()).unwrap_or(u64::MAX).saturating_add(least_bytes(of)).saturating_add(4)
            };
            let fields = fields.filter(|(name, of)| needed(name) && of.default.is_none());
            fields.map(size).fold(2, u64::saturating_add)
        }
        _ => 2,
    }
}

/// How many values there are inside of `many` lists or maps of this type.
fn inside(many: u64, ty: &Type) -> u64 {
    match ty {
        Type::List(_, most) | Type::Map(_, _, most) if *most != UNBOUNDED => many.saturating_mul(*most),
        _ => UNBOUNDED,
    }
}

/// What compiling found.
struct Compiler {
    errors: Errors,
    total: u64,
    expensive: Vec<(u64, Path)>,
}

/// Compiles all rules of a schema into it; all that is wrong with them.
pub(crate) fn compile(schema: &mut Schema, props: &JSONSchemaProps, path: &Path) -> Errors {
    if !schema.has_rules {
        return Errors::new();
    }
    let mut compiler = Compiler { errors: Errors::new(), total: 0, expensive: Vec::new() };
    compiler.walk(schema, props, path, "self", true, Place { uncorrelatable: None, many: 1 });
    if compiler.total > SCHEMA_LIMIT {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        compiler.expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        for (_, path) in compiler.expensive.iter().take(4) {
            compiler.errors.push(Error::forbidden(path, why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        compiler.errors.push(Error::forbidden(path, &exceeds(what, compiler.total, SCHEMA_LIMIT)));
    }
    compiler.errors
}

#[expect(clippy::cast_precision_loss, reason = "a factor for people")]
fn exceeds(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn reason(text: Option<&str>) -> ErrorKind {
    match text {
        Some("FieldValueRequired") => ErrorKind::Required,
        Some("FieldValueForbidden") => ErrorKind::Forbidden,
        Some("FieldValueDuplicate") => ErrorKind::Duplicate,
        _ => ErrorKind::Invalid,
    }
}

impl Compiler {
    fn walk(
        &mut self,
        schema: &mut Schema,
        props: &JSONSchemaProps,
        path: &Path,
        name: &str,
        is_root: bool,
        place: Place<'_>,
    ) {
        if !schema.has_rules {
            return;
        }
        let ty = type_of(schema, name, is_root);
        if let Some(rules) = props.x_kubernetes_validations.as_ref().filter(|rules| !rules.is_empty()) {
            let mut compiled = Vec::with_capacity(rules.len());
            // Nothing is counted twice where there is no bound: a request has room for so many of them wherever they are.
            let often = if place.many == UNBOUNDED { REQUEST / (least_bytes(props) + 1) } else { place.many };
            for (index, rule) in rules.iter().enumerate() {
                let at = path.child("x-kubernetes-validations").index(index);
                compiled.extend(self.rule(rule, &ty, &at, place, often));
            }
            schema.rules = Some(Box::new(Rules { ty: ty.clone(), rules: compiled }));
        }
        let path_text = path.as_str().to_owned();
        for (property, of) in &mut schema.properties {
            let Some(props) = props.properties.as_ref().and_then(|all| all.get(&**property)) else { continue };
            let at = path.child("properties").key(property);
            self.walk(of, props, &at, &format!("{name}.{property}"), false, place);
        }
        if let (Additional::Of(of), Some(props)) = (&mut schema.additional, additional(props)) {
            let place = Place { many: inside(place.many, &ty), ..place };
            self.walk(of, props, &path.child("additionalProperties"), &format!("{name}.@elem"), false, place);
        }
        if let (Some(of), Some(props)) = (&mut schema.items, items(props)) {
            let many = inside(place.many, &ty);
            let place = match schema.list_type {
                ListType::Map(_) => Place { many, ..place },
                _ => Place { many, ..place.within(&path_text) },
            };
            self.walk(of, props, &path.child("items"), &format!("{name}.@idx"), false, place);
        }
    }

    /// Counts what evaluating costs that is done so `often`.
    fn weigh(&mut self, what: &str, cost: u64, often: u64, path: &Path) {
        let cost = cost.saturating_mul(often.max(1));
        if cost > RULE_LIMIT {
            self.errors.push(Error::forbidden(path, &exceeds(what, cost, RULE_LIMIT)));
        }
        self.total = self.total.saturating_add(cost);
        self.expensive.push((cost, path.clone()));
    }

    fn rule(&mut self, rule: &ValidationRule, ty: &Type, path: &Path, place: Place<'_>, often: u64) -> Option<Rule> {
        let shown = || serde_json::to_value(rule).unwrap_or_default();
        let optional_old = rule.optional_old_self == Some(true);
        let old = if optional_old { Type::Optional(Box::new(ty.clone())) } else { ty.clone() };
        let environment = Environment::new().with("self", ty.clone()).with("oldSelf", old);
        let at = path.child("rule");
        let program = match cel::compile(&rule.rule, &environment) {
            Ok(program) => program,
            Err(error) => {
                let why = format!("compilation failed: {}", error.shown);
                self.errors.push(Error::invalid(&at, shown(), &why));
                return None;
            }
        };
        if !matches!(program.result(), Type::Bool | Type::Dyn) {
            self.errors.push(Error::invalid(&at, shown(), "cel expression must evaluate to a bool"));
            return None;
        }
        self.weigh("estimated rule cost", program.cost(), often, &at);
        let uses_old = program.uses("oldSelf");
        if let Some(uncorrelatable) = place.uncorrelatable.filter(|_| uses_old) {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}");
            self.errors.push(Error::invalid(&at, rule.rule.as_str(), &why));
        }
        if let (false, Some(set)) = (uses_old, rule.optional_old_self) {
            let why = "may not be set if oldSelf is not used in rule";
            self.errors.push(Error::invalid(&path.child("optionalOldSelf"), set, why));
        }
        let mut message_program = None;
        if let Some(text) = rule.message_expression.as_deref().filter(|text| !text.is_empty()) {
            let at = path.child("messageExpression");
            match cel::compile(text, &environment) {
                Ok(program) if matches!(program.result(), Type::Text(_) | Type::Dyn) => {
                    self.weigh("estimated messageExpression cost", program.cost(), often, &at);
                    message_program = Some(program);
                }
                Ok(_) => {
                    self.errors.push(Error::invalid(&at, shown(), "messageExpression must evaluate to a string"));
                }
                Err(error) => {
                    let why = format!("messageExpression compilation failed: {}", error.shown);
                    self.errors.push(Error::invalid(&at, shown(), &why));
                }
            }
        }
        let message = rule.message.as_deref().map(str::trim).filter(|text| !text.is_empty());
        Some(Rule {
            program,
            has_message: message.is_some(),
            message: message.map_or_else(|| format!("failed rule: {}", rule.rule.trim()), str::to_owned),
            text: rule.rule.clone(),
            message_program,
            reason: reason(rule.reason.as_deref()),
            field_path: rule.field_path.clone().unwrap_or_default(),
            uses_old,
            optional_old,
        })
    }
}

impl<'a> Place<'a> {
    /// Within what is replaced as a whole.
    fn within(self, path: &'a str) -> Self {
        Self { uncorrelatable: self.uncorrelatable.or(Some(path)), ..self }
    }
}

fn additional(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrBool;
    match &props.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(props)) => Some(props),
        _ => None,
    }
}

fn items(props: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray;
    match &props.items {
        Some(JSONSchemaPropsOrArray::Schema(props)) => Some(props),
        _ => None,
    }
}
