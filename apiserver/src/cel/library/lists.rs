//! Functions of lists, and of lists as sets.

use std::cmp::Ordering;

use crate::cel::{
    eval::{Budget, Error},
    value::{Key, Value},
};

fn incomparable() -> Error {
    Error::new("list elements cannot be compared")
}

fn compare(a: &Value, b: &Value) -> Result<Ordering, Error> {
    a.compare(b).ok_or_else(incomparable)
}

fn is_sorted(items: &[Value]) -> Result<bool, Error> {
    for pair in items.windows(2) {
        if let [a, b] = pair
            && compare(a, b)?.is_gt()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn extreme(items: &[Value], wanted: Ordering) -> Result<Value, Error> {
    let name = if wanted.is_lt() { "min" } else { "max" };
    let Some((first, rest)) = items.split_first() else {
        return Err(Error::new(format!("{name} called on empty list")));
    };
    let mut best = first;
    for item in rest {
        if compare(item, best)? == wanted {
            best = item;
        }
    }
    Ok(best.clone())
}

fn sum(items: &[Value], budget: &mut Budget) -> Result<Value, Error> {
    let mut total: Option<Value> = None;
    for item in items {
        total = Some(match total {
            None => item.clone(),
            Some(total) => super::call("_+_", &[total, item.clone()], budget)?,
        });
    }
    Ok(total.unwrap_or(Value::Int(0)))
}

/// Sorted by the keys that stand beside the values.
pub(in crate::cel) fn sorted(mut pairs: Vec<(Value, Value)>, budget: &mut Budget) -> Result<Value, Error> {
    let n = pairs.len() as u64;
    budget.spend(n.saturating_mul(u64::from(64 - n.leading_zeros())))?;
    let mut failed = None;
    pairs.sort_by(|(a, _), (b, _)| match compare(a, b) {
        Ok(ordering) => ordering,
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(Value::list(pairs.into_iter().map(|(_, value)| value).collect())),
    }
}

fn flatten(items: &[Value], depth: i64, budget: &mut Budget, out: &mut Vec<Value>) -> Result<(), Error> {
    for item in items {
        budget.spend(1)?;
        match item {
            Value::List(inner) if depth > 0 => flatten(&inner.items, depth - 1, budget, out)?,
            other => out.push(other.clone()),
        }
    }
    Ok(())
}

/// Whether `set` has an item, each comparison paid for.
fn has(set: &[Value], item: &Value, budget: &mut Budget) -> Result<bool, Error> {
    for known in set {
        budget.spend(1)?;
        if known.equals(item) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_all(set: &[Value], items: &[Value], budget: &mut Budget) -> Result<bool, Error> {
    for item in items {
        if !has(set, item, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn distinct(items: &[Value], budget: &mut Budget) -> Result<Value, Error> {
    let mut keys: std::collections::BTreeSet<Key> = std::collections::BTreeSet::new();
    let mut out: Vec<Value> = Vec::new();
    for item in items {
        budget.spend(1)?;
        let is_new = match item.as_key() {
            Some(key) => keys.insert(key),
            None => !has(&out, item, budget)?,
        };
        if is_new {
            out.push(item.clone());
        }
    }
    Ok(Value::list(out))
}

fn index(found: Option<usize>) -> Value {
    Value::Int(found.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1))
}

fn ranged(n: i64, budget: &mut Budget) -> Result<Value, Error> {
    budget.items(usize::try_from(n).unwrap_or(0))?;
    Ok(Value::list((0..n.max(0)).map(Value::Int).collect()))
}

fn slice(items: &[Value], from: i64, to: i64) -> Result<Value, Error> {
    let part = usize::try_from(from).ok().zip(usize::try_from(to).ok()).and_then(|(from, to)| items.get(from..to));
    part.map(|part| Value::list(part.to_vec()))
        .ok_or_else(|| Error::new(format!("cannot slice({from}, {to}), list is length {}", items.len())))
}

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], budget: &mut Budget) -> Option<Result<Value, Error>> {
    use Value::{Bool, Int, List};
    if let ("lists.range", [Int(n)]) = (function, args) {
        return Some(ranged(*n, budget));
    }
    let [List(list), rest @ ..] = args else { return None };
    if let Err(error) = budget.spend(list.items.len() as u64) {
        return Some(Err(error));
    }
    let items = &list.items;
    Some(match (function, rest) {
        ("isSorted", []) => is_sorted(items).map(Bool),
        ("sum", []) => sum(items, budget),
        ("min", []) => extreme(items, Ordering::Less),
        ("max", []) => extreme(items, Ordering::Greater),
        ("indexOf", [item]) => Ok(index(items.iter().position(|known| known.equals(item)))),
        ("lastIndexOf", [item]) => Ok(index(items.iter().rposition(|known| known.equals(item)))),
        ("slice", [Int(from), Int(to)]) => slice(items, *from, *to),
        ("flatten", []) => {
            let mut out = Vec::new();
            flatten(items, 1, budget, &mut out).map(|()| Value::list(out))
        }
        ("flatten", [Int(depth)]) if *depth >= 0 => {
            let mut out = Vec::new();
            flatten(items, *depth, budget, &mut out).map(|()| Value::list(out))
        }
        ("flatten", [Int(_)]) => Err(Error::new("level must be non-negative")),
        ("sort", []) => sorted(items.iter().map(|item| (item.clone(), item.clone())).collect(), budget),
        ("distinct", []) => distinct(items, budget),
        ("reverse", []) => Ok(Value::list(items.iter().rev().cloned().collect())),
        ("first", []) => Ok(Value::Optional(items.first().cloned().map(std::sync::Arc::new))),
        ("last", []) => Ok(Value::Optional(items.last().cloned().map(std::sync::Arc::new))),
        ("sets.contains", [List(other)]) => has_all(items, &other.items, budget).map(Bool),
        ("sets.equivalent", [List(other)]) => has_all(items, &other.items, budget)
            .and_then(|all| Ok(all && has_all(&other.items, items, budget)?))
            .map(Bool),
        ("sets.intersects", [List(other)]) => {
            let mut found = Ok(false);
            for item in &other.items {
                found = has(items, item, budget);
                if !matches!(found, Ok(false)) {
                    break;
                }
            }
            found.map(Bool)
        }
        _ => return None,
    })
}
