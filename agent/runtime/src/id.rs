//! Names of sandboxes and containers: derived, so that asking twice for the same thing names the same thing.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The name of a sandbox: a digest of the pod's uid and the attempt, in 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SandboxId(String);

/// The name of a container: a digest of its sandbox, its name and its attempt, in 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ContainerId(String);

impl SandboxId {
    /// The sandbox that is the `attempt`-th of the pod `pod_uid`.
    pub fn of(pod_uid: &str, attempt: u32) -> SandboxId {
        SandboxId(digest(&["sandbox", pod_uid, &attempt.to_string()]))
    }

    /// Reads a name back, as found in a status or a directory; `None` when it is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<SandboxId> {
        is_digest(text).then(|| SandboxId(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ContainerId {
    /// The container `name` of a sandbox, started for the `attempt`-th time (0 is the first).
    pub fn of(sandbox: &SandboxId, name: &str, attempt: u32) -> ContainerId {
        ContainerId(digest(&["container", &sandbox.0, name, &attempt.to_string()]))
    }

    /// Reads a name back, as found in a status or a directory; `None` when it is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<ContainerId> {
        is_digest(text).then(|| ContainerId(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Parts are separated by a byte that none of them holds, so that no two lists of parts join to the same text.
fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_attempts_and_names_apart_and_nothing_else() {
        let pod = SandboxId::of("uid", 0);
        assert_eq!(pod, SandboxId::of("uid", 0));
        assert_ne!(pod, SandboxId::of("uid", 1));
        assert_ne!(ContainerId::of(&pod, "a", 11), ContainerId::of(&pod, "a1", 1));
        assert_eq!(SandboxId::parse(pod.as_str()), Some(pod));
        assert_eq!(SandboxId::parse("../../etc"), None);
    }
}
