//! The node agent: takes the pods bound to its node from the API server, runs them with the container runtime and the
//! pod network, and tells how they are.
//!
//! It never schedules, never answers users (the API server asks its HTTPS server, and whom that lets), and keeps no state of its own: what
//! it must know after a restart is in the runtime's records and in the pods' statuses.
//!
//! ```text
//!            watch of pods                     status, events, lease
//!   API ───────────┐                             ▲
//!                  ▼                             │
//!                pods ──▶ worker (one a pod) ────┘
//!                           │ plan (pure) ─▶ steps
//!                           ▼
//!        volumes · images · sandbox and containers · network · probes
//! ```
//!
//! Entry points: [`run`] with a [`Config`]; [`run_member`] for a node whose API server is elsewhere.
//!
//! **Invariant:** a container is started for one attempt number once; the number is its restart count.
//!
//! **Invariant:** a pod's deletion is confirmed to the API server only when nothing of the pod is left on the node.
//!
//! **Invariant:** what decides (a pod's plan, status, admission, environment) is pure; what acts decides nothing.

#![forbid(unsafe_code)]

mod agent;
mod args;
mod cadvisor;
mod claims;
mod clear;
mod config;
mod context;
mod cri;
mod devices;
mod event;
mod eviction;
mod figures;
mod hold;
mod image_rights;
mod images;
mod join;
mod log;
mod manifests;
mod member;
mod membership;
mod node;
mod objects;
mod place;
mod pod;
mod pods;
mod power;
mod server;
mod servers;
mod spdy;
mod volume;

pub use agent::{Error, check_rights, run};
pub use args::{MemberArgs, NodeArgs, PidsLimit, Surroundings, image_store, registries};
pub use clear::{ClearError, clear, images_are_wanted, images_of};
pub use config::{Config, ImageLimits, LEASE_RENEWAL, Serving, ShutdownGrace};
pub use cri::Error as CriError;
pub use devices::{DeviceError, class::DeviceClass};
pub use eviction::args::EvictionArgs;
pub use eviction::threshold::{Least, Signal, Statement, Threshold, Thresholds};
pub use hold::HoldError;
pub use member::run_member;
pub use place::Place;
pub use server::Error as ServerError;
