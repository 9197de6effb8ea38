//! The server as clients see it: in process, and over real sockets.

mod auth;
mod harness;
mod kube_client;
mod reading;
mod refusals;
mod writing;
