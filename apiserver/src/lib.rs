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
//! Entry points: [`config::Config`] says what to serve, [`registry::Registry`] is the objects by kind for code within
//! this crate.
//!
//! **Invariants:** reads do not decode objects; writes run in their own task, so that no disconnect tears them; errors
//! become statuses in `status_of` alone; a panic in a request answers that request with 500 and nothing else.

pub mod config;
pub mod kind;
pub mod kinds;
pub mod ops;
pub mod request;
pub mod stored;
pub mod user;

pub mod admission;
pub mod authn;
pub mod authz;
pub mod pki;
pub mod registry;
pub mod status_of;

pub mod discovery;
pub mod openapi;
