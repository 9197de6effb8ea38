//! Functions of texts; places are counted in characters.

use std::fmt::Write as _;

use crate::{
    cel::{
        eval::{Budget, Error},
        value::Value,
    },
    go_regex,
};

fn int(n: usize) -> Value {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn at(place: i64, length: usize) -> Result<usize, Error> {
    usize::try_from(place)
        .ok()
        .filter(|n| *n <= length)
        .ok_or_else(|| Error::new(format!("index out of range: {place}")))
}

fn index_of(text: &str, wanted: &str, from: i64) -> Result<Value, Error> {
    let chars: Vec<char> = text.chars().collect();
    if wanted.is_empty() {
        return Ok(Value::Int(from));
    }
    let from = at(from, chars.len())?;
    let tail: String = chars.get(from..).unwrap_or_default().iter().collect();
    Ok(match tail.find(wanted) {
        Some(byte) => int(from + tail.get(..byte).unwrap_or_default().chars().count()),
        None => Value::Int(-1),
    })
}

fn last_index_of(text: &str, wanted: &str, to: Option<i64>) -> Result<Value, Error> {
    let chars: Vec<char> = text.chars().collect();
    if wanted.is_empty() {
        return Ok(to.map_or_else(|| int(chars.len()), Value::Int));
    }
    let length = wanted.chars().count();
    let end = match to {
        None => chars.len(),
        Some(to) => at(to, chars.len())?.saturating_add(length).min(chars.len()),
    };
    let head: String = chars.get(..end).unwrap_or_default().iter().collect();
    Ok(head.rfind(wanted).map_or(Value::Int(-1), |byte| int(head.get(..byte).unwrap_or_default().chars().count())))
}

fn substring(text: &str, from: i64, to: Option<i64>) -> Result<Value, Error> {
    let chars: Vec<char> = text.chars().collect();
    let from = at(from, chars.len())?;
    let to = match to {
        None => chars.len(),
        Some(to) => at(to, chars.len())?,
    };
    match chars.get(from..to) {
        Some(part) => Ok(Value::text(&part.iter().collect::<String>())),
        None => Err(Error::new(format!("invalid substring range. start: {from}, end: {to}"))),
    }
}

fn texts(parts: impl Iterator<Item = impl AsRef<str>>) -> Value {
    Value::list(parts.map(|part| Value::text(part.as_ref())).collect())
}

/// `split` into at most `limit` parts; none for as many as there are.
fn split(text: &str, separator: &str, limit: i64) -> Value {
    let chars = || text.chars().map(String::from);
    match (usize::try_from(limit), separator.is_empty()) {
        (Ok(0), _) => Value::list(Vec::new()),
        (Ok(n), false) => texts(text.splitn(n, separator)),
        (Err(_), false) => texts(text.split(separator)),
        (Err(_), true) => texts(chars()),
        (Ok(n), true) => {
            let mut parts: Vec<String> = chars().take(n - 1).collect();
            let rest: String = text.chars().skip(n - 1).collect();
            if !rest.is_empty() {
                parts.push(rest);
            }
            texts(parts.iter())
        }
    }
}

fn regex(pattern: &str) -> Result<std::sync::Arc<regex::Regex>, Error> {
    go_regex::compile(pattern).map_err(Error::new)
}

/// What running an expression over a text costs.
fn regex_cost(budget: &mut Budget, text: &str, pattern: &str) -> Result<(), Error> {
    let (text, pattern) = (text.len() as u64 + 1, pattern.len() as u64);
    budget.spend((text / 10 + 1).saturating_mul(pattern / 4 + 1))
}

/// A floating-point number as Go's `%g` shows it.
pub(in crate::cel) fn number(d: f64) -> String {
    if d.is_nan() {
        return "NaN".to_owned();
    }
    if d.is_infinite() {
        return if d > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponent = if d == 0.0 { 0.0 } else { d.abs().log10().floor() };
    if !(-4.0..21.0).contains(&exponent) {
        let text = format!("{d:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{d}")
}

/// A value as `%s` shows it.
fn show(value: &Value, out: &mut String) -> Result<(), Error> {
    match value {
        Value::List(list) => {
            out.push('[');
            for (i, item) in list.items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                show(item, out)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            out.push('{');
            for (i, (key, value)) in map.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                let _ = write!(out, "{key}: ");
                show(value, out)?;
            }
            out.push('}');
        }
        other => match other.as_text() {
            Some(text) => out.push_str(&text),
            None => {
                let message = format!(
                    "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
                    other.type_name()
                );
                return Err(Error::new(message));
            }
        },
    }
    Ok(())
}

/// `"%d of %s".format([1, "a"])`.
fn format(pattern: &str, args: &[Value]) -> Result<Value, Error> {
    let (mut out, mut args, mut chars) =
        (String::with_capacity(pattern.len()), args.iter(), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok().filter(|n| *n <= 100);
        }
        let verb = chars.next().ok_or_else(|| Error::new("unexpected end of format string"))?;
        if verb == '%' {
            out.push('%');
            continue;
        }
        let arg = args.next().ok_or_else(|| Error::new("index out of range: too few arguments"))?;
        let wrong = || Error::new(format!("error during formatting: %{verb} cannot be used on {}", arg.type_name()));
        match (verb, arg) {
            ('s', arg) => show(arg, &mut out)?,
            ('d', Value::Int(_) | Value::Uint(_)) => show(arg, &mut out)?,
            ('d', Value::Double(d)) if !d.is_finite() => out.push_str(&number(*d)),
            ('f', Value::Double(d)) => {
                let _ = write!(out, "{d:.*}", precision.unwrap_or(6));
            }
            ('f', Value::Int(i)) => {
                let _ = write!(out, "{i}.{}", "0".repeat(precision.unwrap_or(6)));
            }
            ('e', Value::Double(d)) => {
                let text = format!("{d:.*e}", precision.unwrap_or(6));
                let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
                let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
            }
            ('b', Value::Int(i)) => {
                let _ = write!(out, "{}{:b}", if *i < 0 { "-" } else { "" }, i.unsigned_abs());
            }
            ('b', Value::Uint(u)) => {
                let _ = write!(out, "{u:b}");
            }
            ('b', Value::Bool(b)) => out.push(if *b { '1' } else { '0' }),
            ('o', Value::Int(i)) => {
                let _ = write!(out, "{}{:o}", if *i < 0 { "-" } else { "" }, i.unsigned_abs());
            }
            ('o', Value::Uint(u)) => {
                let _ = write!(out, "{u:o}");
            }
            ('x' | 'X', arg) => {
                let text = match arg {
                    Value::Int(i) => format!("{}{:x}", if *i < 0 { "-" } else { "" }, i.unsigned_abs()),
                    Value::Uint(u) => format!("{u:x}"),
                    Value::Text(s) => hex::encode(s.as_bytes()),
                    Value::Bytes(b) => hex::encode(b),
                    _ => return Err(wrong()),
                };
                out.push_str(&if verb == 'X' { text.to_uppercase() } else { text });
            }
            _ => return Err(wrong()),
        }
    }
    Ok(Value::text(&out))
}

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], budget: &mut Budget) -> Option<Result<Value, Error>> {
    use Value::{Bool, Int, List, Text};
    if let (Some(Text(text)), true) = (args.first(), args.len() > 1 || function != "size")
        && !matches!(function, "quantity" | "isQuantity" | "url" | "isURL" | "ip" | "isIP" | "cidr" | "isCIDR")
        && let Err(error) = budget.spend(text.len() as u64 / 10)
    {
        return Some(Err(error));
    }
    Some(match (function, args) {
        ("contains", [Text(text), Text(part)]) => budget
            .spend((text.len() as u64 / 10).saturating_mul(part.len() as u64 / 10))
            .map(|()| Bool(text.contains(&**part))),
        ("startsWith", [Text(text), Text(part)]) => Ok(Bool(text.starts_with(&**part))),
        ("endsWith", [Text(text), Text(part)]) => Ok(Bool(text.ends_with(&**part))),
        ("matches", [Text(text), Text(pattern)]) => {
            regex_cost(budget, text, pattern).and_then(|()| regex(pattern)).map(|regex| Bool(regex.is_match(text)))
        }
        ("find", [Text(text), Text(pattern)]) => regex_cost(budget, text, pattern)
            .and_then(|()| regex(pattern))
            .map(|regex| Value::text(regex.find(text).map_or("", |found| found.as_str()))),
        ("findAll", [Text(text), Text(pattern), rest @ ..]) => {
            let limit = match rest {
                [] => usize::MAX,
                [Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => return None,
            };
            regex_cost(budget, text, pattern)
                .and_then(|()| regex(pattern))
                .map(|regex| texts(regex.find_iter(text).take(limit).map(|found| found.as_str())))
        }
        ("charAt", [Text(text), Int(place)]) => {
            let length = text.chars().count();
            at(*place, length).map(|place| Value::text(&text.chars().skip(place).take(1).collect::<String>()))
        }
        ("indexOf", [Text(text), Text(part)]) => index_of(text, part, 0),
        ("indexOf", [Text(text), Text(part), Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Text(text), Text(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [Text(text), Text(part), Int(to)]) => last_index_of(text, part, Some(*to)),
        ("lowerAscii", [Text(text)]) => Ok(Value::text(&text.to_ascii_lowercase())),
        ("upperAscii", [Text(text)]) => Ok(Value::text(&text.to_ascii_uppercase())),
        ("replace", [Text(text), Text(old), Text(new), rest @ ..]) => {
            let limit = match rest {
                [] => usize::MAX,
                [Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
                _ => return None,
            };
            let places = if old.is_empty() { text.len() + 1 } else { text.matches(&**old).count() }.min(limit);
            budget
                .text(text.len().saturating_add(places.saturating_mul(new.len())))
                .map(|()| Value::text(&text.replacen(&**old, new, limit)))
        }
        ("split", [Text(text), Text(separator)]) => Ok(split(text, separator, -1)),
        ("split", [Text(text), Text(separator), Int(limit)]) => Ok(split(text, separator, *limit)),
        ("substring", [Text(text), Int(from)]) => substring(text, *from, None),
        ("substring", [Text(text), Int(from), Int(to)]) => substring(text, *from, Some(*to)),
        ("trim", [Text(text)]) => Ok(Value::text(text.trim())),
        ("reverse", [Text(text)]) => Ok(Value::text(&text.chars().rev().collect::<String>())),
        ("strings.quote", [Text(text)]) => Ok(Value::text(&format!("{:?}", &**text))),
        ("join", [List(list), rest @ ..]) => {
            let separator = match rest {
                [] => "",
                [Text(separator)] => separator,
                _ => return None,
            };
            let mut parts = Vec::with_capacity(list.items.len());
            for item in &list.items {
                let Text(part) = item else { return None };
                parts.push(&**part);
            }
            let size: usize = parts.iter().map(|part| part.len().saturating_add(separator.len())).sum();
            budget.text(size).map(|()| Value::text(&parts.join(separator)))
        }
        ("format", [Text(pattern), List(list)]) => {
            let size: u64 = list.items.iter().map(Value::weight).sum();
            match budget.spend(size) {
                Ok(()) => format(pattern, &list.items),
                Err(error) => Err(error),
            }
        }
        _ => return None,
    })
}
