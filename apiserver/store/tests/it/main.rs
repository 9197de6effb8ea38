//! The store as its users see it: a real directory, a real thread.

mod semantics;
