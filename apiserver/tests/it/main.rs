//! The server as clients see it: in process, and over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stderr)]

mod admission;
mod admission_policies;
mod aggregation;
mod applying;
mod audit;
mod auth;
mod classes;
mod compaction;
mod contention;
mod conversion;
mod credentials;
mod custom_resources;
mod definitions;
#[path = "../../src/fuzz/dice.rs"]
mod dice;
mod encryption;
mod extension_server;
mod first_objects;
mod flow;
mod generated;
mod harness;
mod hostile_definitions;
mod kinds;
mod kube_client;
mod limits;
mod metrics;
mod oidc;
mod old_versions;
mod patching;
mod peers;
mod protobuf;
mod proxies;
mod raw_paths;
mod reading;
mod refusals;
mod resource_metrics;
mod signing;
mod snapshots;
mod texts;
mod watching;
mod webhook_server;
mod webhooks;
mod writing;
