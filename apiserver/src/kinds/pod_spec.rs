//! Pod specs, as Pods and pod templates carry them.

pub(super) mod containers;
mod env;
pub(super) mod probes;
mod security;
pub(super) mod validation;
pub(super) mod volumes;
pub(super) mod warnings;
