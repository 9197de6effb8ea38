//! Pod specs, as Pods and pod templates carry them.

pub(super) mod defaults;
pub(super) mod volumes;
