//! Rules about an object that takes another one's place: what changed has to keep them, what did not is warned of
//! ("ratcheting", KEP-4008).

use coracle_proto::field::{Error, ErrorKind, Errors, Path};
use serde_json::Value as Json;

use super::{
    super::schema::{Kind, ListType, Schema},
    Rules, list_kind,
};
use crate::cel::{self, Budget, Program, Value};

/// What all rules of one write may cost together: Kubernetes' own limit.
const BUDGET: u64 = 10_000_000;

/// As long as a message may become that a rule works out.
const MAX_MESSAGE: usize = 5120;

/// Runs all rules about an object that takes another one's place, if there is one, but for those that only look at what did
/// not change: it is not wrong all at once.
pub(in crate::custom) fn check(schema: &Schema, new: &Json, old: Option<&Json>, errors: &mut Errors) {
    Walk::of(Which::Changed, errors).begin(schema, new, old);
}

/// What [`check`] lets be of an object that takes another one's place.
pub(in crate::custom) fn let_be(schema: &Schema, new: &Json, old: &Json) -> Errors {
    let mut errors = Errors::new();
    Walk::of(Which::Unchanged, &mut errors).begin(schema, new, Some(old));
    errors
}

/// Which rules are run: those about what changed, and about changes, or the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Changed,
    Unchanged,
}

/// That no further rule is run.
struct Stopped;

/// All rules of one write, run one after the other.
struct Walk<'e> {
    which: Which,
    budget: Budget,
    errors: &'e mut Errors,
}

/// A value, what was there before, and whether nothing changed there, or around it where it cannot be told what was there.
#[derive(Clone, Copy)]
struct Change<'j> {
    new: &'j Json,
    old: Option<&'j Json>,
    is_same: bool,
}

impl<'j> Change<'j> {
    /// The value within, and what was in its place.
    fn within(self, new: &'j Json, old: Option<&'j Json>) -> Self {
        Self { new, old, is_same: self.is_same || old == Some(new) }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

impl<'e> Walk<'e> {
    fn of(which: Which, errors: &'e mut Errors) -> Self {
        Self { which, budget: Budget::new(BUDGET), errors }
    }

    fn begin(mut self, schema: &Schema, new: &Json, old: Option<&Json>) {
        // A stopped expression ends the whole: what it told is told once.
        let _ = self.walk(schema, Change { new, old, is_same: old == Some(new) }, "");
    }

    fn walk(&mut self, schema: &Schema, change: Change<'_>, path: &str) -> Result<(), Stopped> {
        let Change { new, old, .. } = change;
        if !schema.has_rules || new.is_null() {
            return Ok(());
        }
        if let Some(rules) = &schema.rules {
            self.run(rules, schema, Change { old: old.filter(|old| !old.is_null()), ..change }, path)?;
        }
        match new {
            Json::Object(map) => {
                for (name, value) in map {
                    if let Some(of) = schema.under(name) {
                        let before = old.and_then(|old| old.get(name));
                        // An entry of a map is named otherwise than a field.
                        let is_field = schema.property(name).is_some();
                        let at = if is_field { below(path, name) } else { format!("{path}[{name}]") };
                        self.walk(of, change.within(value, before), &at)?;
                    }
                }
            }
            Json::Array(items) => {
                let Some(of) = &schema.items else { return Ok(()) };
                for (index, item) in items.iter().enumerate() {
                    let before = match &schema.list_type {
                        ListType::Map(keys) => old.and_then(Json::as_array).and_then(|old| {
                            old.iter().find(|other| keys.iter().all(|key| other.get(key) == item.get(key)))
                        }),
                        _ => None,
                    };
                    self.walk(of, change.within(item, before), &format!("{path}[{index}]"))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn run(&mut self, rules: &Rules, schema: &Schema, change: Change<'_>, path: &str) -> Result<(), Stopped> {
        let Change { new, old, is_same } = change;
        let Self { which, budget, errors } = self;
        let kind = list_kind(schema);
        let value = |json: &Json| Value::typed(json, &rules.ty, &kind);
        let this = value(new);
        let before = old.map(value);
        for rule in &rules.rules {
            let old_self = match (&before, rule.optional_old) {
                (Some(before), false) => before.clone(),
                (None, false) if rule.uses_old => continue,
                (None, false) => Value::Null,
                (Some(before), true) => Value::some(before.clone()),
                (None, true) => Value::Optional(None),
            };
            // A rule about changes has its say all the same.
            if (is_same && !rule.uses_old) != (*which == Which::Unchanged) {
                continue;
            }
            let variables = [("self", this.clone()), ("oldSelf", old_self)];
            let mut own = Budget::new(cel::PER_CALL_LIMIT.min(budget.left()));
            let result = rule.program.run(&variables, &mut own);
            let all_spent = !budget.take(own.spent());
            let at = if rule.field_path.is_empty() { path.to_owned() } else { format!("{path}{}", rule.field_path) };
            let at = Path::new(at.strip_prefix('.').unwrap_or(&at));
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(Value::Bool(false)) => {
                    let message =
                        rule.message_program.as_ref().and_then(|program| message(program, &variables, budget));
                    errors.push(broken(rule.reason, &at, new, message.as_deref().unwrap_or(&rule.message)));
                }
                Ok(_) => errors.push(fault(schema, &at, "cel expression evaluated to no bool")),
                Err(_) if all_spent => {
                    let why =
                        "validation failed due to running out of cost budget, no further validation rules will be run";
                    errors.push(fault(schema, &at, why));
                    return Err(Stopped);
                }
                Err(error) if error.is_stop() => {
                    let why = format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        error.message,
                        rule.told()
                    );
                    errors.push(fault(schema, &at, &why));
                    return Err(Stopped);
                }
                Err(error) => {
                    let why = if error.message.starts_with("no such overload") {
                        format!(
                            "'{}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                            error.message,
                            rule.told()
                        )
                    } else {
                        format!("{} evaluating rule: {}", error.message, rule.told())
                    };
                    errors.push(fault(schema, &at, &why));
                }
            }
        }
        Ok(())
    }
}

/// A message that a rule works out, of one that is fit to be told.
fn message(program: &Program, variables: &[(&str, Value); 2], budget: &mut Budget) -> Option<String> {
    let mut own = Budget::new(cel::PER_CALL_LIMIT.min(budget.left()));
    let result = program.run(variables, &mut own);
    budget.take(own.spent());
    let Ok(Value::Text(text)) = result else { return None };
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_MESSAGE && !text.contains(['\n', '\r'])).then(|| text.to_owned())
}

/// What keeps a rule from being worked out; the value is shown by its type.
fn fault(schema: &Schema, path: &Path, why: &str) -> Error {
    Error::invalid(path, schema.kind.map_or("", Kind::as_str), why)
}

/// A rule that does not hold, by the reason that it names; a value that is large is not shown.
fn broken(kind: ErrorKind, path: &Path, value: &Json, why: &str) -> Error {
    let is_large = value.is_object() || value.is_array();
    match kind {
        ErrorKind::Required => Error::required(path, why),
        ErrorKind::Forbidden => Error::forbidden(path, why),
        ErrorKind::Duplicate if is_large => {
            Error { path: path.clone(), kind: ErrorKind::Duplicate, message: "Duplicate value".to_owned() }
        }
        ErrorKind::Duplicate => Error::duplicate(path, value.clone()),
        _ if is_large => Error::invalid_untold(path, why),
        _ => Error::invalid(path, value.clone(), why),
    }
}
