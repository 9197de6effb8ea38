//! Updates of pods and their statuses.
