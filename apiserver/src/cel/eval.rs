//! Running expressions, step by step, each step paid for.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use super::{
    ast::{Comprehension, Expr, Node, Step},
    library,
    parse::type_value,
    types::escape,
    value::{Key, MapValue, Value},
};

/// A text may become this long, and a list as many items, whatever the budget.
const MAX_SIZE: usize = 10 * 1024 * 1024;

/// How often the clock is looked at, in steps.
const CLOCK: u64 = 1024;

/// What an expression failed of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Of itself.
    Expression,
    /// Of the steps it may take.
    Budget,
    /// Of time.
    Deadline,
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// In cel-go's words.
    pub message: String,
    /// What it failed of.
    pub failure: Failure,
}

impl Error {
    /// An error of the expression itself.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), failure: Failure::Expression }
    }

    /// Whether the expression was stopped, which nothing in it can catch.
    #[must_use]
    pub fn is_stop(&self) -> bool {
        self.failure != Failure::Expression
    }

    pub(super) fn no_overload(function: &str, args: &[Value]) -> Self {
        let shown: Vec<&str> = args.iter().map(Value::type_name).collect();
        Self::new(format!("no such overload: {function}({})", shown.join(", ")))
    }

    fn no_key(key: &dyn std::fmt::Display) -> Self {
        Self::new(format!("no such key: {key}"))
    }
}

/// How many steps an expression may take, and until when.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
    until: Option<Instant>,
    steps: u64,
}

impl Budget {
    /// So many steps.
    #[must_use]
    pub const fn new(steps: u64) -> Self {
        Self { left: steps, until: None, steps: 0 }
    }

    /// The same with an end in time.
    #[must_use]
    pub const fn until(self, end: Instant) -> Self {
        Self { until: Some(end), ..self }
    }

    /// Steps that are left.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// Steps that were taken.
    #[must_use]
    pub const fn spent(&self) -> u64 {
        self.steps
    }

    /// Takes steps that another budget counted; false when there are none left.
    pub fn take(&mut self, steps: u64) -> bool {
        self.spend(steps).is_ok() && self.left > 0
    }

    /// Takes steps.
    pub(super) fn spend(&mut self, steps: u64) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(steps);
        match self.left.checked_sub(steps) {
            Some(left) => {
                let looks = self.left / CLOCK != left / CLOCK;
                self.left = left;
                if looks && self.until.is_some_and(|end| Instant::now() > end) {
                    let message = "operation interrupted: deadline exceeded".to_owned();
                    return Err(Error { message, failure: Failure::Deadline });
                }
                Ok(())
            }
            None => {
                self.left = 0;
                let message = "operation cancelled: actual cost limit exceeded".to_owned();
                Err(Error { message, failure: Failure::Budget })
            }
        }
    }

    /// Pays for a text of so many bytes.
    pub(super) fn text(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes > MAX_SIZE {
            return Err(Error::new("the text becomes too long"));
        }
        self.spend(bytes as u64 / 10 + 1)
    }

    /// Pays for a list of so many items.
    pub(super) fn items(&mut self, count: usize) -> Result<(), Error> {
        if count > MAX_SIZE {
            return Err(Error::new("the list becomes too long"));
        }
        self.spend(count as u64 + 1)
    }
}

/// Where declared names get their values.
pub trait Variables {
    /// The value of a name; none if it has none.
    ///
    /// # Errors
    /// The value cannot be worked out.
    fn get(&self, name: &str) -> Option<Result<Value, Error>>;
}

impl Variables for BTreeMap<String, Value> {
    fn get(&self, name: &str) -> Option<Result<Value, Error>> {
        Self::get(self, name).cloned().map(Ok)
    }
}

impl Variables for [(&str, Value)] {
    fn get(&self, name: &str) -> Option<Result<Value, Error>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

impl<const N: usize> Variables for [(&str, Value); N] {
    fn get(&self, name: &str) -> Option<Result<Value, Error>> {
        Variables::get(&self[..], name)
    }
}

struct Run<'a, 'b> {
    variables: &'a dyn Variables,
    scope: Vec<(&'a str, Value)>,
    budget: &'b mut Budget,
}

/// Works an expression out.
pub(super) fn run(expr: &Expr, variables: &dyn Variables, budget: &mut Budget) -> Result<Value, Error> {
    Run { variables, scope: Vec::new(), budget }.eval(expr)
}

fn unwrap_optional(value: Value) -> (Value, bool) {
    match value {
        Value::Optional(Some(inner)) => ((*inner).clone(), true),
        other => (other, false),
    }
}

fn boolean(value: Value) -> Result<bool, Error> {
    match value {
        Value::Bool(b) => Ok(b),
        _ => Err(Error::new("no such overload")),
    }
}

impl<'a> Run<'a, '_> {
    fn eval(&mut self, expr: &'a Expr) -> Result<Value, Error> {
        match &expr.node {
            Node::Literal(value) => Ok(value.clone()),
            Node::Ident(name) => self.ident(name),
            Node::Select { operand, field, optional } => {
                if let Some(name) = expr.dotted()
                    && let Some(name) = type_value(&name)
                {
                    return Ok(Value::Type(name.into()));
                }
                let operand = self.eval(operand)?;
                self.budget.spend(1)?;
                select(operand, field, *optional)
            }
            Node::Has { operand, field } => {
                let operand = self.eval(operand)?;
                Ok(Value::Bool(has(operand, field)?))
            }
            Node::Index { operand, index, optional } => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                self.budget.spend(1)?;
                at(operand, &index, *optional)
            }
            Node::Call { function, target, args } => {
                let mut values = Vec::with_capacity(args.len() + 1);
                for arg in target.as_deref().into_iter().chain(args) {
                    values.push(self.eval(arg)?);
                }
                self.budget.spend(1)?;
                library::call(function, &values, self.budget)
            }
            Node::List(items) => {
                self.budget.spend(10)?;
                let mut values = Vec::with_capacity(items.len());
                for (optional, item) in items {
                    match (optional, self.eval(item)?) {
                        (true, Value::Optional(inner)) => values.extend(inner.as_deref().cloned()),
                        (_, value) => values.push(value),
                    }
                }
                Ok(Value::list(values))
            }
            Node::Map(entries) => {
                self.budget.spend(30)?;
                let mut map = MapValue::new();
                for (optional, key, value) in entries {
                    let key = self.eval(key)?;
                    let key = key.as_key().ok_or_else(|| Error::new("unsupported key type"))?;
                    match (optional, self.eval(value)?) {
                        (true, Value::Optional(None)) => {}
                        (true, Value::Optional(Some(inner))) => insert(&mut map, key, (*inner).clone())?,
                        (_, value) => insert(&mut map, key, value)?,
                    }
                }
                Ok(Value::Map(Arc::new(map)))
            }
            Node::Message(_, fields) => {
                self.budget.spend(40)?;
                let mut map = MapValue::new();
                for (optional, name, value) in fields {
                    let key = Key::Text(name.as_str().into());
                    match (optional, self.eval(value)?) {
                        (true, Value::Optional(None)) => {}
                        (true, Value::Optional(Some(inner))) => insert(&mut map, key, (*inner).clone())?,
                        (_, value) => insert(&mut map, key, value)?,
                    }
                }
                Ok(Value::Map(Arc::new(map)))
            }
            Node::And(a, b) => self.logic(a, b, false),
            Node::Or(a, b) => self.logic(a, b, true),
            Node::Conditional(condition, yes, no) => {
                let chosen = if boolean(self.eval(condition)?)? { yes } else { no };
                self.eval(chosen)
            }
            Node::Comprehension(comprehension) => self.comprehension(comprehension),
            Node::Bind { name, value, body } => {
                let value = self.eval(value)?;
                self.budget.spend(10)?;
                self.with(name, value, body)
            }
            Node::OptMap { target, name, body, flat } => match self.eval(target)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(inner)) => {
                    let value = self.with(name, (*inner).clone(), body)?;
                    Ok(if *flat { value } else { Value::some(value) })
                }
                other => Err(Error::no_overload("optMap", &[other])),
            },
        }
    }

    fn ident(&mut self, name: &str) -> Result<Value, Error> {
        self.budget.spend(1)?;
        if let Some((_, value)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        match self.variables.get(name) {
            Some(value) => value,
            None => match type_value(name) {
                Some(name) => Ok(Value::Type(name.into())),
                None => Err(Error::new(format!("no such attribute(s): {name}"))),
            },
        }
    }

    fn with(&mut self, name: &'a str, value: Value, body: &'a Expr) -> Result<Value, Error> {
        self.scope.push((name, value));
        let result = self.eval(body);
        self.scope.pop();
        result
    }

    /// `&&` and `||`: one side that decides makes up for an error of the other.
    fn logic(&mut self, a: &'a Expr, b: &'a Expr, decides: bool) -> Result<Value, Error> {
        let first = match self.eval(a).and_then(boolean) {
            Ok(value) if value == decides => return Ok(Value::Bool(decides)),
            Err(error) if error.is_stop() => return Err(error),
            other => other,
        };
        let second = match self.eval(b).and_then(boolean) {
            Ok(value) if value == decides => return Ok(Value::Bool(decides)),
            Err(error) if error.is_stop() => return Err(error),
            other => other,
        };
        // Of two errors the first is told.
        first?;
        second.map(Value::Bool)
    }

    /// One round: the body with the round's names bound.
    fn round(&mut self, c: &'a Comprehension, body: &'a Expr, item: &(Value, Value)) -> Result<Value, Error> {
        let depth = self.scope.len();
        self.scope.push((&c.first, item.0.clone()));
        if let Some(second) = &c.second {
            self.scope.push((second, item.1.clone()));
        }
        let result = self.eval(body);
        self.scope.truncate(depth);
        result
    }

    fn comprehension(&mut self, c: &'a Comprehension) -> Result<Value, Error> {
        let range = self.eval(&c.range)?;
        self.budget.spend(range.weight())?;
        let int = |i: usize| Value::Int(i64::try_from(i).unwrap_or(i64::MAX));
        let items: Vec<(Value, Value)> = match &range {
            Value::List(list) if c.second.is_some() => {
                list.items.iter().enumerate().map(|(i, item)| (int(i), item.clone())).collect()
            }
            Value::List(list) => list.items.iter().map(|item| (item.clone(), Value::Null)).collect(),
            Value::Map(map) => map.iter().map(|(key, value)| (key.into(), value.clone())).collect(),
            other => return Err(Error::no_overload(c.step.name(), std::slice::from_ref(other))),
        };
        let mut error: Option<Error> = None;
        let mut found = 0_usize;
        let mut list = Vec::new();
        let mut sorted = Vec::new();
        let mut map = MapValue::new();
        for item in &items {
            self.budget.spend(2)?;
            if let Some(filter) = &c.filter
                && !boolean(self.round(c, filter, item)?)?
            {
                continue;
            }
            let result = self.round(c, &c.body, item);
            match c.step {
                Step::All | Step::Exists => match result.and_then(boolean) {
                    Ok(value) if value == (c.step == Step::Exists) => return Ok(Value::Bool(value)),
                    Ok(_) => {}
                    Err(stop) if stop.is_stop() => return Err(stop),
                    // A later round may still decide.
                    Err(other) => {
                        error.get_or_insert(other);
                    }
                },
                Step::ExistsOne => found += usize::from(boolean(result?)?),
                Step::Filter => {
                    if boolean(result?)? {
                        list.push(item.0.clone());
                    }
                }
                Step::ToList => list.push(result?),
                Step::SortBy => sorted.push((result?, item.0.clone())),
                Step::ToMap => {
                    let key = item.0.as_key().ok_or_else(|| Error::new("unsupported key type"))?;
                    map.insert(key, result?);
                }
                Step::ToMapEntry => match result? {
                    Value::Map(entries) => {
                        for (key, value) in entries.iter() {
                            insert(&mut map, key.clone(), value.clone())?;
                        }
                    }
                    other => return Err(Error::no_overload(c.step.name(), &[other])),
                },
            }
        }
        match (c.step, error) {
            (Step::All | Step::Exists, Some(error)) => Err(error),
            (Step::All, None) => Ok(Value::Bool(true)),
            (Step::Exists, None) => Ok(Value::Bool(false)),
            (Step::ExistsOne, _) => Ok(Value::Bool(found == 1)),
            (Step::ToList | Step::Filter, _) => Ok(Value::list(list)),
            (Step::SortBy, _) => library::lists::sorted(sorted, self.budget),
            (Step::ToMap | Step::ToMapEntry, _) => Ok(Value::Map(Arc::new(map))),
        }
    }
}

fn insert(map: &mut MapValue, key: Key, value: Value) -> Result<(), Error> {
    match map.entry(key) {
        std::collections::btree_map::Entry::Occupied(known) => {
            Err(Error::new(format!("Failed with repeated key: {}", known.key())))
        }
        std::collections::btree_map::Entry::Vacant(place) => {
            place.insert(value);
            Ok(())
        }
    }
}

/// A field of a map; objects' fields are reached by their escaped names, whether or not a schema says so.
fn field_of<'v>(map: &'v MapValue, field: &str) -> Option<&'v Value> {
    if let Some(found) = map.get(&Key::Text(field.into())) {
        return Some(found);
    }
    if !field.contains("__") {
        return None;
    }
    map.iter().find(|(key, _)| matches!(key, Key::Text(name) if escape(name).as_deref() == Some(field))).map(|(_, v)| v)
}

fn select(operand: Value, field: &str, optional: bool) -> Result<Value, Error> {
    let (operand, was_optional) = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        other => unwrap_optional(other),
    };
    let found = match &operand {
        Value::Map(map) => field_of(map, field).cloned(),
        Value::Host(host) => host.field(field).transpose()?,
        other => return Err(Error::new(format!("no such overload: type '{}' has no fields", other.type_name()))),
    };
    match found {
        Some(value) if optional || was_optional => Ok(Value::some(value)),
        Some(value) => Ok(value),
        None if optional || was_optional => Ok(Value::Optional(None)),
        None => Err(Error::no_key(&field)),
    }
}

fn has(operand: Value, field: &str) -> Result<bool, Error> {
    match unwrap_optional(operand).0 {
        Value::Optional(None) => Ok(false),
        Value::Map(map) => Ok(field_of(&map, field).is_some_and(|value| !matches!(value, Value::Optional(None)))),
        Value::Host(host) => Ok(host.field(field).transpose()?.is_some()),
        other => Err(Error::no_overload("has", &[other])),
    }
}

fn at(operand: Value, index: &Value, optional: bool) -> Result<Value, Error> {
    let (operand, was_optional) = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        other => unwrap_optional(other),
    };
    let found = match &operand {
        Value::List(list) => match index.as_key() {
            Some(Key::Int(i)) => usize::try_from(i).ok().and_then(|i| list.items.get(i)).cloned(),
            _ => return Err(Error::no_overload("_[_]", &[operand, index.clone()])),
        },
        Value::Map(map) => match index.as_key() {
            Some(key) => map.get(&key).cloned(),
            None => return Err(Error::no_overload("_[_]", &[operand, index.clone()])),
        },
        _ => return Err(Error::no_overload("_[_]", &[operand, index.clone()])),
    };
    match found {
        Some(value) if optional || was_optional => Ok(Value::some(value)),
        Some(value) => Ok(value),
        None if optional || was_optional => Ok(Value::Optional(None)),
        None => {
            let shown = index.as_text().unwrap_or_default();
            Err(match operand {
                Value::List(_) => Error::new(format!("index out of bounds: {shown}")),
                _ => Error::no_key(&shown),
            })
        }
    }
}
