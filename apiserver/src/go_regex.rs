//! Regular expressions as Go writes them, in linear time: what clients put into schemas and into CEL.
//!
//! Rust's `regex` has the same roots (RE2) but reads some texts otherwise: `\d`, `\w` and `\s` mean ASCII in Go, a brace
//! that begins no repetition is a brace, and a class knows no set operations. Compiled expressions are kept in a bounded
//! cache, as the same few are asked for with every write.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use regex::{Regex, RegexBuilder};

/// How large a compiled expression may be, in bytes: a class of all letters, repeated some sixty times, is a megabyte.
const SIZE: usize = 4 << 20;

/// As many compiled expressions are kept; of typical ones, some 10 KB each.
const KEPT: usize = 64;

static CACHE: LazyLock<Mutex<HashMap<String, Arc<Regex>>>> = LazyLock::new(Mutex::default);

/// Compiles an expression, or finds it compiled.
///
/// # Errors
/// What is wrong with it, or that it would be too large.
pub fn compile(pattern: &str) -> Result<Arc<Regex>, String> {
    if let Some(found) = CACHE.lock().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return Ok(Arc::clone(found));
    }
    let built = RegexBuilder::new(&translate(pattern)).size_limit(SIZE).dfa_size_limit(SIZE).nest_limit(100).build();
    let regex = Arc::new(built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => "error parsing regexp: expression too large".to_owned(),
        other => {
            let text = other.to_string();
            let why = text.lines().rev().find_map(|line| line.trim().strip_prefix("error: ").map(str::to_owned));
            format!("error parsing regexp: {}: `{pattern}`", why.unwrap_or(text))
        }
    })?);
    let mut cache = CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if cache.len() >= KEPT {
        cache.clear();
    }
    cache.insert(pattern.to_owned(), Arc::clone(&regex));
    Ok(regex)
}

/// The same expression as Rust's `regex` reads it.
fn translate(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    let mut in_class = false;
    let mut class_begins = false;
    while let Some(c) = rest.chars().next() {
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let begins = std::mem::take(&mut class_begins);
        match c {
            '\\' => {
                let Some(next) = after.chars().next() else {
                    out.push('\\');
                    return out;
                };
                match next {
                    'd' => out.push_str("[0-9]"),
                    'D' => out.push_str("[^0-9]"),
                    'w' => out.push_str("[0-9A-Za-z_]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    's' => out.push_str("[\\t\\n\\f\\r ]"),
                    'S' => out.push_str("[^\\t\\n\\f\\r ]"),
                    'b' if !in_class => out.push_str("(?-u:\\b)"),
                    'Q' => {
                        let literal = after.get(1..).unwrap_or_default();
                        let end = literal.find("\\E").unwrap_or(literal.len());
                        out.push_str(&regex::escape(literal.get(..end).unwrap_or_default()));
                        rest = literal.get((end + 2).min(literal.len())..).unwrap_or_default();
                        continue;
                    }
                    // `\p{Greek}`, `\x{10FFFF}`: these braces are no repetition.
                    'p' | 'P' | 'x' if after.get(1..).is_some_and(|name| name.starts_with('{')) => {
                        let end = after.find('}').map_or(after.len(), |end| end + 1);
                        out.push('\\');
                        out.push_str(after.get(..end).unwrap_or_default());
                        rest = after.get(end..).unwrap_or_default();
                        continue;
                    }
                    other => {
                        out.push('\\');
                        out.push(other);
                    }
                }
                rest = after.get(next.len_utf8()..).unwrap_or_default();
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                class_begins = true;
                out.push('[');
            }
            '[' if after.starts_with(':') => {
                // `[:alpha:]` as it is.
                let end = after.find(":]").map_or(0, |end| end + 2);
                out.push('[');
                out.push_str(after.get(..end).unwrap_or_default());
                rest = after.get(end..).unwrap_or_default();
                continue;
            }
            '[' => out.push_str("\\["),
            '^' if begins => {
                class_begins = true;
                out.push('^');
            }
            // Right behind the opening bracket it is a bracket.
            ']' if in_class && begins => out.push_str("\\]"),
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '-' if in_class && after.starts_with('-') => out.push_str("\\-"),
            '{' if !in_class && !is_repetition(after) => out.push_str("\\{"),
            _ => out.push(c),
        }
        rest = after;
    }
    out
}

/// Whether `3}`, `3,}` or `3,5}` follows.
fn is_repetition(after: &str) -> bool {
    let Some((inside, _)) = after.split_once('}') else { return false };
    let (low, high) = inside.split_once(',').unwrap_or((inside, ""));
    !low.is_empty() && low.bytes().all(|b| b.is_ascii_digit()) && high.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_reads_otherwise_is_translated() {
        for (pattern, text, matches) in [
            (r"^\d+$", "123", true),
            (r"^\d+$", "١٢", false),
            (r"^[\d.]+$", "1.2", true),
            (r"^[^\w]$", "é", true),
            (r"^{a}$", "{a}", true),
            (r"^a{2,3}$", "aaa", true),
            (r"^[]a]+$", "]a", true),
            (r"^[[a]+$", "[a", true),
            (r"^[[:alpha:]&&]+$", "a&", true),
            (r"^[a\-z]$", "-", true),
            (r"^\p{L}+\pN\x{e9}[\p{Greek}]$", "é1éλ", true),
            (r"^\P{L}$", "é", false),
            (r"\Qa.b\E", "a.b", true),
            (r"\Qa.b\E", "axb", false),
            (r"^[a-z]([-a-z0-9]*[a-z0-9])?$", "my-name", true),
        ] {
            let regex = compile(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert_eq!(regex.is_match(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn bombs_are_refused_and_slow_ones_are_not_slow() {
        assert!(compile("((a{1000}){1000}){1000}").unwrap_err().contains("too large"));
        assert!(compile("(a").unwrap_err().contains("error parsing regexp"));
        // Exponential where expressions are tried by going back.
        assert!(!compile("^(a+)+$").unwrap().is_match(&("a".repeat(50_000) + "b")));
    }
}
