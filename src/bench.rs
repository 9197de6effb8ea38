//! `coracle bench`: figures about this binary, or about any Kubernetes API.

pub(crate) mod api;
pub(crate) mod boot;
pub(crate) mod exec;
pub(crate) mod idle;
pub(crate) mod load;
mod members;
pub(crate) mod pods;
pub(crate) mod process;
pub(crate) mod report;
mod reviewer;
pub(crate) mod scale;
pub(crate) mod store;
pub(crate) mod watch;
pub(crate) mod writes;
