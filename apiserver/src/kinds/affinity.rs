//! Node affinity, pod affinity and anti-affinity.
