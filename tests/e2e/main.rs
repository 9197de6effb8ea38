//! End-to-end tests: real clusters, real containers, the real kubectl.
//!
//! They need root, and Debian's docker-registry, skopeo, busybox-static, nginx-light and kubectl; `tests/run` installs
//! what Debian has. Each test has a host (a network namespace), a data directory and a cluster of its own.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, clippy::indexing_slicing)]

mod cluster;
mod console;
mod disk;
mod host;
mod images;
mod registry;
mod wait;

mod apart;
mod attach;
mod backup;
mod clients;
mod containers;
mod contexts;
mod controllers;
mod custom_resources;
mod debugging;
mod etcd;
mod eviction;
mod explaining;
mod forwarding;
mod hooks;
mod kills;
mod kinds;
mod limits;
mod machine;
mod nfs;
mod node_rules;
mod old_manifests;
mod ownership;
mod proxies;
mod pulling;
mod reading;
mod refusals;
mod restart;
mod running;
mod security;
mod servers;
mod sharing;
mod static_pods;
mod streams;
mod tour;
mod usage;
mod volumes;
mod workloads;
