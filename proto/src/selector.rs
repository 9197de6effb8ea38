//! Selectors: which objects a list, a watch, a service or a controller means.
//!
//! [`LabelSelector`] reads both forms Kubernetes has, the text of `?labelSelector=` and `metav1.LabelSelector`, into one
//! list of requirements. [`FieldSelector`] reads `?fieldSelector=`. Both match against any lookup of a key, so that a
//! caller need not build a map, and print themselves in Kubernetes' canonical form.

mod field;
mod label;
mod parse;

pub use self::field::{FieldError, FieldSelector, FieldTerm};
pub use self::label::{LabelSelector, Operator, Requirement, SelectorError};
