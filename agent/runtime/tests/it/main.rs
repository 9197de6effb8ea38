//! The runtime on the real kernel: every test makes its own sandboxes, and leaves nothing on the host.
//!
//! Needs root and `/bin/busybox` (statically linked). Without root nothing of it can run, and that is a failure that says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests fail by panicking"
)]

mod cleanup;
mod escapes;
mod exec;
mod files;
mod hostile;
mod lifecycle;
mod limits;
mod logs;
mod machine;
mod restart;
mod security;
mod users;
mod world;
