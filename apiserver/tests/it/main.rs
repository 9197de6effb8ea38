//! The server as clients see it: in process, and over real sockets.

mod auth;
mod compaction;
mod contention;
mod harness;
mod kube_client;
mod limits;
mod patching;
mod reading;
mod refusals;
mod watching;
mod writing;
