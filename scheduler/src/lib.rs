//! The scheduler: decides which node each pod runs on.
//!
//! It never starts anything and keeps nothing: it watches pods without a node, picks the best node for each, and tells
//! the API server (a *binding*). A pod that fits nowhere is told why, in one sentence, and tried again when something
//! changes that may help.
//!
//! ```text
//!   watch pods ──▶ Queue ──pop──▶ decide(pod, nodes) ──▶ bind ──▶ POST …/pods/x/binding
//!                    ▲               │  filters, scores     │
//!   watch nodes ─▶ Cluster ◀─────────┘                      └──▶ no node fits: condition + event, parked
//!                  (nodes and what is taken of them)
//! ```
//!
//! **Invariants.** Decisions are pure functions of the cluster's picture (`decide`, `filter`, `score`). What is being
//! bound counts as taken at once, so that two pods never get the same room. Everything here can be lost and rebuilt from
//! the API at any moment.

mod args;
mod cluster;
mod decide;
mod filter;
mod outcome;
mod queue;
mod resources;
mod scheduler;
mod score;
mod view;

pub use args::Args;
pub use scheduler::run;

/// What the scheduler needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name pods ask for in `spec.schedulerName`.
    pub name: String,
}

/// How scheduling can end before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A task of the scheduler panicked.
    #[error("a task of the scheduler broke")]
    Task(#[from] tokio::task::JoinError),
}
