//! The words everyone in Coracle speaks: plain data and pure functions.
//!
//! The API server, the scheduler, the controllers and the agent all talk about the same objects; what they must agree on
//! about them is here, each once:
//!
//! ```text
//!   a request's bytes ──► json, yaml ──► schema (which fields there are) ──► patch (how two of them merge)
//!                                            │                      └───────► apply (whose which field is)
//!   resource (which kinds there are)         └──► schema::openapi (what clients are told)
//!   name, meta (what is allowed in metadata) ──► field (what is wrong, and where) ──► status (the answer)
//!   selector (which objects are meant)     quantity (how much)     cron (when)
//! ```
//!
//! Where to begin: [`resource::RESOURCES`] lists the built-in kinds; [`status::Status`] is every answer that is not an
//! object; [`schema::of_kind`] is what is known about a kind's fields.
//!
//! **Invariant:** nothing here does I/O, reads a clock, draws a random number, or knows of tokio; the same input gives the
//! same output.
//!
//! **Invariant:** no input makes a function here panic, recurse without bound, or allocate out of proportion to its size.
//!
//! **Invariant:** sentences are Kubernetes' own, since clients match on them; where the two differ, this crate is wrong.
//!
//! **Invariant:** nothing here depends on another of Coracle's crates.

#![forbid(unsafe_code)]

pub mod resource;

pub mod field;
pub mod status;

pub mod join_token;
pub mod meta;
pub mod name;

pub mod blank;
pub mod cron;
pub mod go_duration;
pub mod go_time;
pub mod placement;
pub mod pod_defaults;
pub mod pod_resources;
pub mod quantity;
pub mod quota;
pub mod selector;

pub mod json;
pub mod protobuf;
pub mod yaml;

pub mod apply;
pub mod patch;
pub mod schema;
