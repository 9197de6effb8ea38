//! Mutations of a valid pod spec and what is said about them.
