//! The Kubernetes API over Coracle's store.

pub mod kind;
pub mod user;
