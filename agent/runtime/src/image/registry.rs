//! The client's side of the registry API. Source: OCI distribution specification.

use std::time::Duration;

/// How long a registry may keep a pull waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until a connection stands.
    pub connect: Duration,
    /// Without a single byte of an answer.
    pub idle: Duration,
    /// Before the first repetition of what failed for a passing reason; doubled each time.
    pub backoff: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), idle: Duration::from_secs(60), backoff: Duration::from_millis(500) }
    }
}

/// What a registry answers when it does not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such repository, tag or digest.
    #[error("{0}: not found")]
    NotFound(String),
}

impl RegistryError {
    pub(crate) fn is_not_found(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
        }
    }
}
