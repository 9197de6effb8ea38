//! Which devices a group may use.

use std::fmt;

/// One line of what is allowed, as cgroup v1 writes it: `c 1:3 rwm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    /// `c`, `b` or `a` (all).
    pub(crate) kind: char,
    /// Major number; any when `None`.
    pub(crate) major: Option<u64>,
    /// Minor number; any when `None`.
    pub(crate) minor: Option<u64>,
    /// `r`, `w`, `m`.
    pub(crate) permissions: String,
}

impl DeviceRule {
    fn new(kind: char, major: Option<u64>, minor: Option<u64>, permissions: &str) -> DeviceRule {
        DeviceRule { kind, major, minor, permissions: permissions.to_owned() }
    }

    /// Everything.
    pub(crate) fn all() -> Vec<DeviceRule> {
        vec![DeviceRule::new('a', None, None, "rwm")]
    }

    /// What every container has: making nodes of any device, and using null, zero, full, random, urandom, tty, console,
    /// ptmx and pseudo terminals (OCI runtime specification, "Default Devices").
    pub(crate) fn defaults() -> Vec<DeviceRule> {
        let mut rules = vec![DeviceRule::new('c', None, None, "m"), DeviceRule::new('b', None, None, "m")];
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)] {
            rules.push(DeviceRule::new('c', Some(major), Some(minor), "rwm"));
        }
        rules.push(DeviceRule::new('c', Some(136), None, "rwm"));
        rules
    }
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == 'a' {
            return f.write_str("a");
        }
        let number = |number: Option<u64>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{} {}", self.kind, number(self.major), number(self.minor), self.permissions)
    }
}
