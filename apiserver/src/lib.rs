//! The Kubernetes API over Coracle's store.
//!
//! It decodes, authenticates, authorizes, admits, validates and stores objects, and serves them to readers and watchers.
//! It never acts on what objects mean: that is for the scheduler, the controllers and the agents, who are clients.
//!
//! ```text
//!   TLS connection ─┐                      ┌─ discovery, OpenAPI, health
//!                   ├─► filters ─► dispatch ┤
//!   in process ─────┘   (one list)          └─ registry verbs ─► admission ─► kind's strategy ─► store
//! ```
//!
//! Entry points: [`server::ApiServer::open`] with a [`config::Config`]; [`server::Runner::run`] serves, and
//! [`server::ApiServer::service`] is the same server for components of this process. [`filters`] is the way of a request;
//! [`registry::Registry`] is the objects by kind.
//!
//! **Invariants:** reads do not decode objects; writes run in their own task, so that no disconnect tears them; errors
//! become statuses in `status_of` alone; a panic in a request answers that request with 500 and nothing else.

pub mod config;
pub mod server;

pub mod audit;
mod compression;
mod connections;
pub(crate) mod filters;
pub(crate) mod flow;
mod held;
mod impersonation;
pub mod service;
mod stall;

pub mod authn;
pub mod authz;
pub mod pki;
pub mod request;
pub mod user;

mod documents;
mod health;
mod maintenance;
pub(crate) mod metrics;
mod verbs;

pub mod accept;
pub mod answer;
pub mod body;
mod pretty;

pub mod admission;
mod bootstrap;
pub mod registry;
pub mod security;

mod peers;
pub mod servers;
pub mod witness;

mod aggregation;
mod proxy;
mod resource_metrics;
mod upstream;

pub mod cel;
pub mod custom;
pub mod go_json;
pub mod go_regex;

pub mod encryption;
mod etcd;
pub mod kind;
pub mod kinds;
mod old;
pub mod ops;
pub mod ownership;
mod seldom;
pub mod snapshot;
pub mod status_of;
pub mod stored;
mod webhook;
mod websocket;

pub mod discovery;
pub mod openapi;

#[cfg(test)]
mod fuzz;
