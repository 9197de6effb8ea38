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

/// A share of a size as Kubernetes counts it: rounded up.
fn share(size: u64, tenths: u64) -> u64 {
    size.saturating_mul(tenths).div_ceil(10)
}

/// What a call costs beyond its arguments, by their types and sizes: cel-go's figures, and those of Kubernetes' own
/// functions. They are part of the API: what they allow is what definitions may ask.
pub(super) fn of_call(function: &str, args: &[(Type, u64)]) -> u64 {
    let size = |i: usize| args.get(i).map_or(1, |(_, size)| *size);
    let is_text = |i: usize| matches!(args.get(i), Some((Type::Text(_) | Type::Bytes(_) | Type::Dyn, _)));
    // To go through a text costs a tenth of its length.
    let through = |i: usize| share(size(i), 1);
    match function {
        "_==_" | "_!=_" => match args {
            [(Type::Named(_), _), (Type::Named(_), _)] => 1,
            _ => share(size(0).min(size(1)), 1),
        },
        "_<_" | "_<=_" | "_>_" | "_>=_" | "_+_" if !is_text(0) => 1,
        "_<_" | "_<=_" | "_>_" | "_>=_" => share(size(0).min(size(1)), 1),
        "_+_" => share(size(0).saturating_add(size(1)), 1),
        "@in" => match args.get(1) {
            Some((Type::Map(..), _)) => 1,
            _ => size(1),
        },
        "contains" if is_text(0) => through(0).saturating_mul(through(1)),
        "matches" | "find" | "findAll" => {
            // Each part of a pattern is taken to have four characters.
            share(size(0).saturating_add(1), 1).saturating_mul(size(1).div_ceil(4))
        }
        "startsWith" | "endsWith" => through(1),
        "indexOf" | "lastIndexOf" | "isSorted" | "sum" | "max" | "min" => match args.first() {
            Some((Type::List(item, _), length)) => {
                let item = if matches!(**item, Type::Text(_) | Type::Bytes(_)) { share(size_of(item), 1) } else { 0 };
                length.saturating_mul(item.saturating_add(1))
            }
            _ => through(0),
        },
        "url" | "isURL" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR" | "ip"
        | "quantity" | "isQuantity" | "semver" | "isSemver" | "format" | "quote" | "fieldSelector"
        | "labelSelector" => through(0),
        "bytes" | "string" if is_text(0) => through(0),
        "replace" | "split" | "ip.isCanonical" => share(size(0), 2),
        "join" => share(size_of_result(function, args, &Type::text()), 1),
        // The longest pattern of a named format has 128 characters.
        "validate" => through(1).saturating_mul(32),
        "containsIP" => through(1).saturating_add(4),
        "containsCIDR" => through(1).saturating_add(7),
        "sets.contains" | "sets.equivalent" | "sets.intersects" => {
            let product = size(0).saturating_mul(size(1));
            if function == "sets.equivalent" { product.saturating_mul(2) } else { product }.saturating_add(1)
        }
        "sort" => size(0).saturating_mul(u64::from(64 - size(0).leading_zeros())),
        "distinct" => size(0).saturating_mul(size(0).min(1000)),
        "check" => 350_000,
        _ => 1,
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
            Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Duration | Type::Timestamp => 1,
            other => size_of(other),
        },
    }
}
