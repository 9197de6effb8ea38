//! The three ways to patch an object: JSON Patch, JSON merge patch and strategic merge patch.
//!
//! All work on `serde_json::Value`s and change nothing when they fail.

pub mod json;
pub mod merge;
pub mod strategic;

/// Why a patch was not applied. Variants are what a server answers differently.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is none: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed but this object cannot take it: 422.
    #[error("{0}")]
    Inapplicable(String),
    /// A `test` operation found another value: 422.
    #[error("testing value {path} failed: test failed")]
    TestFailed {
        /// The JSON Pointer tested.
        path: String,
    },
    /// More operations, or more copied bytes, than allowed: 413.
    #[error("{0}")]
    TooLarge(String),
}
