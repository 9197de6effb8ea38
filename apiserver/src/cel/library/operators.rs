//! Arithmetic, comparison, conversions, sizes and optional values.

use std::cmp::Ordering;

use coracle_proto::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};

use crate::cel::{
    eval::{Budget, Error},
    format, time,
    value::{Value, whole},
};

fn overflow(what: &str) -> Error {
    Error::new(format!("{what} overflow"))
}

fn int(value: Option<i64>) -> Result<Value, Error> {
    value.map(Value::Int).ok_or_else(|| overflow("integer"))
}

fn uint(value: Option<u64>) -> Result<Value, Error> {
    value.map(Value::Uint).ok_or_else(|| overflow("unsigned integer"))
}

fn span(value: Option<SignedDuration>) -> Result<Value, Error> {
    value.map(Value::Duration).ok_or_else(|| overflow("duration"))
}

fn moment(value: Result<Timestamp, jiff::Error>) -> Result<Value, Error> {
    value.map(Value::Timestamp).map_err(|_| overflow("timestamp"))
}

fn order(function: &str, ordering: Ordering) -> bool {
    match function {
        "_<_" => ordering.is_lt(),
        "_<=_" => ordering.is_le(),
        "_>_" => ordering.is_gt(),
        _ => ordering.is_ge(),
    }
}

fn contains(item: &Value, range: &Value, budget: &mut Budget) -> Option<Result<Value, Error>> {
    match range {
        Value::List(list) => {
            for known in &list.items {
                if let Err(error) = budget.spend(1) {
                    return Some(Err(error));
                }
                if known.equals(item) {
                    return Some(Ok(Value::Bool(true)));
                }
            }
            Some(Ok(Value::Bool(false)))
        }
        Value::Map(map) => Some(Ok(Value::Bool(item.as_key().is_some_and(|key| map.contains_key(&key))))),
        _ => None,
    }
}

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], budget: &mut Budget) -> Option<Result<Value, Error>> {
    use Value::{Bool, Bytes, Double, Duration, Int, List, Text, Timestamp, Uint};
    let result = match (function, args) {
        ("_==_", [a, b]) => spend_on(budget, a, b).map(|()| Bool(a.equals(b))),
        ("_!=_", [a, b]) => spend_on(budget, a, b).map(|()| Bool(!a.equals(b))),
        ("_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => match a.compare(b) {
            Some(ordering) => spend_on(budget, a, b).map(|()| Bool(order(function, ordering))),
            None if matches!((a, b), (Double(_), _) | (_, Double(_))) => Ok(Bool(false)),
            None => return None,
        },
        ("!_", [Bool(b)]) => Ok(Bool(!b)),
        ("-_", [Int(a)]) => int(a.checked_neg()),
        ("-_", [Double(a)]) => Ok(Double(-a)),
        ("_+_", [Int(a), Int(b)]) => int(a.checked_add(*b)),
        ("_+_", [Uint(a), Uint(b)]) => uint(a.checked_add(*b)),
        ("_+_", [Double(a), Double(b)]) => Ok(Double(a + b)),
        ("_+_", [Text(a), Text(b)]) => budget.text(a.len() + b.len()).map(|()| Value::text(&format!("{a}{b}"))),
        ("_+_", [Bytes(a), Bytes(b)]) => {
            budget.text(a.len() + b.len()).map(|()| Bytes([&a[..], &b[..]].concat().into()))
        }
        ("_+_", [List(a), List(b)]) => {
            budget.items(a.items.len() + b.items.len()).map(|()| List(std::sync::Arc::new(a.join(b))))
        }
        ("_+_", [Duration(a), Duration(b)]) => span(a.checked_add(*b)),
        ("_+_", [Timestamp(t), Duration(d)] | [Duration(d), Timestamp(t)]) => moment(t.checked_add(*d)),
        ("_-_", [Int(a), Int(b)]) => int(a.checked_sub(*b)),
        ("_-_", [Uint(a), Uint(b)]) => uint(a.checked_sub(*b)),
        ("_-_", [Double(a), Double(b)]) => Ok(Double(a - b)),
        ("_-_", [Duration(a), Duration(b)]) => span(a.checked_sub(*b)),
        ("_-_", [Timestamp(t), Duration(d)]) => moment(t.checked_sub(*d)),
        ("_-_", [Timestamp(a), Timestamp(b)]) => Ok(Duration(a.duration_since(*b))),
        ("_*_", [Int(a), Int(b)]) => int(a.checked_mul(*b)),
        ("_*_", [Uint(a), Uint(b)]) => uint(a.checked_mul(*b)),
        ("_*_", [Double(a), Double(b)]) => Ok(Double(a * b)),
        ("_/_", [Int(_), Int(0)] | [Uint(_), Uint(0)]) => Err(Error::new("division by zero")),
        ("_/_", [Int(a), Int(b)]) => int(a.checked_div(*b)),
        ("_/_", [Uint(a), Uint(b)]) => uint(a.checked_div(*b)),
        ("_/_", [Double(a), Double(b)]) => Ok(Double(a / b)),
        ("_%_", [Int(_), Int(0)] | [Uint(_), Uint(0)]) => Err(Error::new("modulus by zero")),
        ("_%_", [Int(a), Int(b)]) => int(a.checked_rem(*b)),
        ("_%_", [Uint(a), Uint(b)]) => uint(a.checked_rem(*b)),
        ("@in", [item, range]) => return contains(item, range, budget),
        ("size", [value]) => match value {
            Text(s) => budget.spend(s.len() as u64 / 10).map(|()| count(s.chars().count())),
            Bytes(b) => Ok(count(b.len())),
            List(list) => Ok(count(list.items.len())),
            Value::Map(map) => Ok(count(map.len())),
            _ => return None,
        },
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_name().into())),
        ("bool" | "int" | "uint" | "double" | "string" | "bytes" | "timestamp" | "duration", [value]) => {
            return convert(function, value);
        }
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(if is_zero(value) { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        ("hasValue", [Value::Optional(inner)]) => Ok(Bool(inner.is_some())),
        ("value", [Value::Optional(inner)]) => {
            inner.as_deref().cloned().ok_or_else(|| Error::new("optional.none() dereference"))
        }
        ("or", [Value::Optional(inner), other]) => {
            Ok(if inner.is_some() { Value::Optional(inner.clone()) } else { other.clone() })
        }
        ("orValue", [Value::Optional(inner), other]) => Ok(inner.as_deref().unwrap_or(other).clone()),
        ("format.named", [Text(name)]) => {
            Ok(Value::Optional(format::named(name).map(|format| std::sync::Arc::new(Value::Format(format)))))
        }
        ("validate", [Value::Format(format), Text(text)]) => {
            let wrong = format.check(text);
            Ok(if wrong.is_empty() {
                Value::Optional(None)
            } else {
                Value::some(Value::list(wrong.iter().map(|text| Value::text(text)).collect()))
            })
        }
        ("jsonpatch.escapeKey", [Text(key)]) => Ok(Value::text(&key.replace('~', "~0").replace('/', "~1"))),
        (name, []) => match name.strip_prefix("format.").and_then(format::named) {
            Some(format) => Ok(Value::Format(format)),
            None => return None,
        },
        _ => return quantities(function, args),
    };
    Some(result)
}

fn spend_on(budget: &mut Budget, a: &Value, b: &Value) -> Result<(), Error> {
    budget.spend(a.weight().min(b.weight()))
}

fn count(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Whether a value is the one that its type has when nothing was said.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(b) => !b,
        Value::Int(i) => *i == 0,
        Value::Uint(u) => *u == 0,
        Value::Double(d) => *d == 0.0,
        Value::Text(s) => s.is_empty(),
        Value::Bytes(b) => b.is_empty(),
        Value::Duration(d) => d.is_zero(),
        Value::List(list) => list.items.is_empty(),
        Value::Map(map) => map.is_empty(),
        _ => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a conversion that was asked for")]
fn convert(function: &str, value: &Value) -> Option<Result<Value, Error>> {
    use Value::{Bool, Bytes, Double, Duration, Int, Text, Timestamp, Uint};
    let range = |what: &str| Error::new(format!("range error converting to {what}"));
    let bad = |what: &str| Error::new(format!("type conversion error from 'string' to '{what}'"));
    Some(match (function, value) {
        ("bool", Bool(_))
        | ("int", Int(_))
        | ("uint", Uint(_))
        | ("double", Double(_))
        | ("string", Text(_))
        | ("bytes", Bytes(_))
        | ("timestamp", Timestamp(_))
        | ("duration", Duration(_)) => Ok(value.clone()),
        ("bool", Text(s)) => match &**s {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Bool(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Bool(false)),
            _ => Err(bad("bool")),
        },
        ("int", Uint(u)) => i64::try_from(*u).map(Int).map_err(|_| range("int")),
        ("int", Double(d)) => whole(d.trunc()).map(Int).ok_or_else(|| range("int")),
        ("int", Text(s)) => s.parse().map(Int).map_err(|_| bad("int")),
        ("int", Timestamp(t)) => Ok(Int(t.as_second())),
        ("int", Duration(d)) => i64::try_from(d.as_nanos()).map(Int).map_err(|_| range("int")),
        ("uint", Int(i)) => u64::try_from(*i).map(Uint).map_err(|_| range("uint")),
        ("uint", Double(d)) => {
            whole(d.trunc()).and_then(|i| u64::try_from(i).ok()).map(Uint).ok_or_else(|| range("uint"))
        }
        ("uint", Text(s)) => s.parse().map(Uint).map_err(|_| bad("uint")),
        ("double", Int(i)) => Ok(Double(*i as f64)),
        ("double", Uint(u)) => Ok(Double(*u as f64)),
        ("double", Text(s)) => s.parse().map(Double).map_err(|_| bad("double")),
        ("string", Bytes(_)) => {
            value.as_text().map(|text| Value::text(&text)).ok_or_else(|| Error::new("invalid UTF-8 in bytes"))
        }
        ("string", Value::Null) => return None,
        ("string", other) => Ok(Value::text(&other.as_text()?)),
        ("bytes", Text(s)) => Ok(Bytes(s.as_bytes().into())),
        ("timestamp", Text(s)) => time::timestamp(s).map(Timestamp).map_err(|_| bad("google.protobuf.Timestamp")),
        ("timestamp", Int(i)) => jiff::Timestamp::from_second(*i).map(Timestamp).map_err(|_| range("timestamp")),
        ("duration", Text(s)) => time::duration(s).map(Duration).map_err(|_| bad("google.protobuf.Duration")),
        _ => return None,
    })
}

fn quantities(function: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    use Value::{Bool, Double, Int, Text};
    let own = Value::Quantity;
    let sign = |q: &Quantity| i64::from(!q.is_zero()) * if q.is_negative() { -1 } else { 1 };
    let whole = |q: &Quantity| Quantity::new(q.value(), q.format()) == *q;
    Some(match (function, args) {
        ("quantity", [Text(text)]) => Quantity::parse(text).map(own).map_err(|error| Error::new(error.to_string())),
        ("isQuantity", [Text(text)]) => Ok(Bool(Quantity::parse(text).is_ok())),
        ("sign", [Value::Quantity(q)]) => Ok(Int(sign(q))),
        ("isGreaterThan", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Bool(a > b)),
        ("isLessThan", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Bool(a < b)),
        ("compareTo", [Value::Quantity(a), Value::Quantity(b)]) => Ok(Int(a.cmp(b) as i64)),
        ("asApproximateFloat", [Value::Quantity(q)]) => Ok(Double(approximate(*q))),
        ("asInteger", [Value::Quantity(q)]) if whole(q) => Ok(Int(q.value())),
        ("asInteger", [Value::Quantity(_)]) => Err(Error::new("cannot convert value to integer")),
        ("isInteger", [Value::Quantity(q)]) => Ok(Bool(whole(q))),
        ("add", [Value::Quantity(a), Value::Quantity(b)]) => Ok(own(*a + *b)),
        ("add", [Value::Quantity(a), Int(b)]) => Ok(own(*a + Quantity::new(*b, a.format()))),
        ("sub", [Value::Quantity(a), Value::Quantity(b)]) => Ok(own(*a - *b)),
        ("sub", [Value::Quantity(a), Int(b)]) => Ok(own(*a - Quantity::new(*b, a.format()))),
        _ => return None,
    })
}

#[expect(clippy::cast_precision_loss, reason = "the name says so")]
fn approximate(q: Quantity) -> f64 {
    if Quantity::new(q.value(), q.format()) == q { q.value() as f64 } else { q.milli_value() as f64 / 1000.0 }
}
