//! Versions by <https://semver.org>.

use std::{cmp::Ordering, fmt, sync::Arc};

use crate::cel::{
    eval::{Budget, Error},
    value::Value,
};

/// A version; what it is built of counts for nothing in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    before: Vec<String>,
    build: String,
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.before.is_empty() {
            write!(f, "-{}", self.before.join("."))?;
        }
        if self.build.is_empty() { Ok(()) } else { write!(f, "+{}", self.build) }
    }
}

fn is_part(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

impl Semver {
    fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::new(format!("Semver parse error during conversion from string: {why}"));
        let (rest, build) = text.split_once('+').unwrap_or((text, ""));
        if text.contains('+') && !build.split('.').all(is_part) {
            return Err(bad("Invalid character(s) found in build metadata"));
        }
        let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
        let parts: Vec<&str> = core.split('.').collect();
        let [major, minor, patch] = parts.as_slice() else { return Err(bad("No Major.Minor.Patch elements found")) };
        let number = |text: &str| {
            if !is_number(text) {
                return Err(bad(&format!("Invalid character(s) found in number {text:?}")));
            }
            if text.len() > 1 && text.starts_with('0') {
                return Err(bad(&format!("Number must not contain leading zeroes {text:?}")));
            }
            text.parse::<u64>().map_err(|_| bad("number too large"))
        };
        let numbers = [number(major)?, number(minor)?, number(patch)?];
        let mut parts = Vec::new();
        for part in before.into_iter().flat_map(|before| before.split('.')) {
            if !is_part(part) || (is_number(part) && part.len() > 1 && part.starts_with('0')) {
                return Err(bad(&format!("Invalid prerelease {part:?}")));
            }
            parts.push(part.to_owned());
        }
        Ok(Self { numbers, before: parts, build: build.to_owned() })
    }

    /// `v1.2` and `01.2.3` become versions.
    fn normalized(text: &str) -> String {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let end = bare.find(['-', '+']).unwrap_or(bare.len());
        let (core, tail) = bare.split_at(end);
        let mut parts: Vec<String> = core
            .split('.')
            .map(|part| {
                let trimmed = part.trim_start_matches('0');
                if trimmed.is_empty() && !part.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
            })
            .collect();
        while parts.len() < 3 {
            parts.push("0".to_owned());
        }
        format!("{}{tail}", parts.join("."))
    }

    /// The order of versions.
    pub(in crate::cel) fn compare(&self, other: &Self) -> Ordering {
        let part = |a: &str, b: &str| match (a.parse::<u64>(), b.parse::<u64>()) {
            (Ok(a), Ok(b)) => a.cmp(&b),
            (Ok(_), Err(_)) => Ordering::Less,
            (Err(_), Ok(_)) => Ordering::Greater,
            (Err(_), Err(_)) => a.cmp(b),
        };
        self.numbers.cmp(&other.numbers).then_with(|| match (self.before.is_empty(), other.before.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.before.iter().zip(&other.before).map(|(a, b)| part(a, b));
                pairs.fold(Ordering::Equal, Ordering::then).then(self.before.len().cmp(&other.before.len()))
            }
        })
    }
}

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], _: &mut Budget) -> Option<Result<Value, Error>> {
    use Value::{Bool, Int, Text};
    let read = |text: &str, normalize: bool| {
        if normalize { Semver::parse(&Semver::normalized(text)) } else { Semver::parse(text) }
    };
    let number = |version: &Semver, i: usize| {
        Ok(Int(version.numbers.get(i).and_then(|n| i64::try_from(*n).ok()).unwrap_or(i64::MAX)))
    };
    Some(match (function, args) {
        ("semver", [Text(text)]) => read(text, false).map(|v| Value::Semver(Arc::new(v))),
        ("semver", [Text(text), Bool(normalize)]) => read(text, *normalize).map(|v| Value::Semver(Arc::new(v))),
        ("isSemver", [Text(text)]) => Ok(Bool(read(text, false).is_ok())),
        ("isSemver", [Text(text), Bool(normalize)]) => Ok(Bool(read(text, *normalize).is_ok())),
        ("isGreaterThan", [Value::Semver(a), Value::Semver(b)]) => Ok(Bool(a.compare(b).is_gt())),
        ("isLessThan", [Value::Semver(a), Value::Semver(b)]) => Ok(Bool(a.compare(b).is_lt())),
        ("compareTo", [Value::Semver(a), Value::Semver(b)]) => Ok(Int(a.compare(b) as i64)),
        ("major", [Value::Semver(version)]) => number(version, 0),
        ("minor", [Value::Semver(version)]) => number(version, 1),
        ("patch", [Value::Semver(version)]) => number(version, 2),
        _ => return None,
    })
}
