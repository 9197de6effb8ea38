//! Tolerations of taints.
