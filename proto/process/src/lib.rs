//! What every program of Coracle does the same, so that `coracle` and its parts as programs of their own behave alike.
//!
//! ```text
//!   command line ──▶ logging ──▶ work(shutdown) ──▶ exit code      0 done, 1 failed, 2 wrong use
//!                                   ▲
//!                     signals ──────┘   the first one asks for the end, the second one ends
//! ```
//!
//! It knows nothing of clusters but that credentials for one end and are exchanged in time (`client`).
//!
//! Entry points: [`run`] for a whole program, [`Signals`] and [`logging`] for one with a command line of its own,
//! [`with_kubeconfig`] and [`Exchange`] for who talks to an API server, [`while_elected`] for who works alone of many, [`FileChanges`] for files that change meanwhile, [`first_contact`] for who joins
//! a cluster, [`grpc`] for who serves it, [`metrics`] for who counts.

#![forbid(unsafe_code)]

mod client;
mod election;
mod file_changes;
pub mod first_contact;
pub mod grpc;
pub mod logging;
pub mod metrics;
mod program;
mod signals;
mod wall_clock;

pub use client::{Exchange, not_after, with_kubeconfig};
pub use election::while_elected;
pub use file_changes::FileChanges;
pub use first_contact::{ContactError, FirstContact};
pub use program::{Program, WrongUse, fail, run};
pub use signals::Signals;
pub use wall_clock::WallClock;

/// What every program that links this room allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
