//! What expressions cost at most: every size that nobody bounds is as large as a request may be.

use super::types::{Type, UNBOUNDED};

/// As long as a text in a request can be: the limit of a body.
const MAX_TEXT: u64 = 3 * 1024 * 1024;

/// How many items a list or a map of a request can have at most, of items of this type: each takes some bytes.
fn most_items(item: &Type) -> u64 {
    let least = match item {
        Type::Bool => 5,
        Type::Object(_) | Type::List(..) | Type::Map(..) | Type::Text(_) | Type::Bytes(_) => 3,
        _ => 2,
    };
    MAX_TEXT / least
}

/// The bound on a value's size, where it has none of its own.
pub(super) fn size_of(ty: &Type) -> u64 {
    match ty {
        Type::Text(max) | Type::Bytes(max) => (*max).min(MAX_TEXT),
        Type::List(item, max) => (*max).min(most_items(item)),
        Type::Map(_, value, max) => (*max).min(most_items(value)),
        Type::Dyn => MAX_TEXT / 2,
        other => match other.size() {
            UNBOUNDED => MAX_TEXT,
            size => size,
        },
    }
}

/// What a call costs beyond its arguments, by their types and sizes.
pub(super) fn of_call(function: &str, args: &[(Type, u64)]) -> u64 {
    let size = |i: usize| args.get(i).map_or(1, |(_, size)| *size);
    let is_text = |i: usize| matches!(args.get(i), Some((Type::Text(_) | Type::Bytes(_) | Type::Dyn, _)));
    let tenth = |n: u64| n.div_ceil(10);
    match function {
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => {
            let least = size(0).min(size(1));
            if is_text(0) && is_text(1) { tenth(least) + 1 } else { least.max(1) }
        }
        "_+_" if is_text(0) => tenth(size(0).saturating_add(size(1))) + 1,
        "_+_" => 1,
        "@in" => match args.get(1) {
            Some((Type::Map(..), _)) => 1,
            _ => size(1),
        },
        "contains" | "indexOf" | "lastIndexOf" if is_text(0) => {
            tenth(size(0)).saturating_mul(tenth(size(1)).max(1)) + 1
        }
        "matches" | "find" | "findAll" => {
            tenth(size(0).saturating_add(1)).saturating_mul(size(1).div_ceil(4).max(1)).saturating_add(1)
        }
        "startsWith" | "endsWith" => tenth(size(1)) + 1,
        "sets.contains" | "sets.equivalent" | "sets.intersects" => {
            let product = size(0).saturating_mul(size(1));
            if function == "sets.equivalent" { product.saturating_mul(2) } else { product }.saturating_add(1)
        }
        "sort" => size(0).saturating_mul(u64::from(64 - size(0).leading_zeros())),
        "distinct" => size(0).saturating_mul(size(0).min(1000)),
        "size" | "type" | "dyn" | "!_" | "-_" | "orValue" | "or" | "hasValue" | "value" | "_-_" | "_*_" | "_/_"
        | "_%_" => 1,
        "check" => 350_000,
        "allowed" | "reason" | "errored" | "error" => 1,
        _ => {
            let texts: u64 =
                (0..args.len()).filter(|i| is_text(*i)).map(|i| tenth(size(i))).fold(0, u64::saturating_add);
            let lists: u64 = args
                .iter()
                .filter(|(ty, _)| matches!(ty, Type::List(..)))
                .map(|(_, size)| *size)
                .fold(0, u64::saturating_add);
            texts.saturating_add(lists).saturating_add(1)
        }
    }
}

/// How large a call's result can be.
pub(super) fn size_of_result(function: &str, args: &[(Type, u64)], result: &Type) -> u64 {
    let size = |i: usize| args.get(i).map_or(1, |(_, size)| *size);
    match function {
        "_+_" => size(0).saturating_add(size(1)),
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "split" | "find" | "findAll" | "reverse" | "sort"
        | "distinct" | "slice" | "string" | "bytes" | "dyn" | "charAt" => size(0),
        "replace" => size(0).saturating_mul(size(2).max(1)),
        "join" => size(0).saturating_mul(MAX_TEXT.min(10_000)).min(MAX_TEXT),
        "orValue" | "or" => size(0).max(size(1)),
        "value" | "optional.of" | "min" | "max" => size(0),
        _ => match result {
            Type::Bool | Type::Int | Type::Uint | Type::Double => 1,
            other => size_of(other),
        },
    }
}
