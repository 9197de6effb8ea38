//! The Kubernetes API over Coracle's store.

pub mod kind;
pub mod kinds;
pub mod pki;
pub mod user;
