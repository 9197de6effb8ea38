//! A multi-version key-value store with etcd's semantics. Knows bytes, and nothing of Kubernetes.
//!
//! One global revision; create and mod revision and version for each key; ranges at any kept revision; compare-and-swap
//! transactions; watches from a revision, in order and without gaps; leases; compaction. Everything acknowledged is on
//! stable storage; everything read comes from memory.
//!
//! It never: reads the disk to answer a read; acknowledges what one sync has not covered; tries a failed sync again;
//! lets one watcher slow down another; ticks, polls or writes when it has no peers and nobody asks it for anything.
//!
//! ```text
//!  Store ──txn──▶ queue ──▶ worker ──propose──▶ member (raft-rs) ──append, sync──▶ log ──▶ disk
//!    │            (group     │  ▲                                                   ▲
//!    │             commit)   │  └───────────────── committed entries ◀──────────────┤ cut
//!    │                       ▼                                                      │
//!    ├──range, get──▶ state: index, history, leases ──what changed──▶ checkpoints ──┘
//!    │                       │                                            │
//!    └──watch──▶ watcher ◀── hub ◀── history                              ▼ engine (sled)
//!
//!  peers ──packets──▶ queue;   worker, member ──packets──▶ transport ──▶ peers
//! ```
//!
//! - The *core* is deterministic: `state` applies commands and answers; `member` is fed proposals and peers' messages,
//!   and drained of what is committed; `worker` joins the two. Time, names, the disk and the way to the peers are passed
//!   in, so the simulations in `testing` run this very code: one member on a machine that loses, tears, fills up and
//!   fails; and a cluster whose network loses, delays, doubles, reorders and is cut.
//! - The *shell* is `driver`: two threads, the clocks, the hand-out to watchers.
//!
//! Start at [`Store::open`]; then [`Txn`], [`Range`], [`WatchRequest`]. Inside, follow a write: `store.rs`, `queue.rs`,
//! `worker.rs`, `member.rs`, `log.rs`, `state.rs`, `hub.rs`.
//!
//! # Invariants
//!
//! 1. A frame of the log is written only after the one before was synced. So damage with a whole frame behind it is never
//!    a torn tail, and a torn tail was never acknowledged.
//! 2. A segment is used only when its beginning is on stable storage, and removed only when a checkpoint that says the
//!    same is.
//! 3. A checkpoint becomes valid by one record, written after everything it speaks of was synced.
//! 4. The state machine is a function of the log alone: it sees no clock but for how long history is kept, and draws no
//!    numbers.
//! 5. The hub hands out each revision once and in order; a watcher goes live only at a revision the hub has not reached.
//! 6. Room on disk is reserved before a proposal is handed in: a full disk refuses, it does not interrupt.
//! 7. A member's id is given out once. A message that says something as a member is sent when what it says is on stable
//!    storage. A write that was passed on to the leader is done at most once, however often it is sent.
//! 8. An image from another member is a checkpoint on stable storage before the log behind it is begun anew.
//! 9. A segment of the log holds no index twice: whatever overwrites what another leader had written begins one of its
//!    own, and the log may begin with a segment only if none that follows overwrote what comes before it.

mod bridge;
mod check;
mod checkpoint;
mod codec;
mod command;
mod contents;
mod datadir;
mod disk;
mod driver;
mod engine;
mod entry;
mod error;
mod history;
mod hub;
mod image;
mod index;
mod lease;
mod live;
mod log;
mod member;
mod packet;
mod peer;
mod queue;
mod range;
mod revision;
mod seal;
mod shared;
mod state;
mod store;
mod transport;
mod txn;
mod watch;
mod worker;

#[cfg(test)]
mod testing;

pub use contents::{Contents, begin_with};
pub use datadir::holder;
pub use driver::Driver;
pub use entry::{Derived, Entry, Event, EventKind};
pub use error::{Error, Result};
pub use history::{Batch, Retention};
pub use lease::Lease;
pub use log::{Recovery, Torn};
pub use packet::LONGEST as MAX_PACKET;
pub use peer::{MemberId, MemberInfo};
pub use range::{Range, RangeResult, What, prefix_end};
pub use revision::{LeaseId, Revision};
pub use seal::Seal;
pub use shared::{Cluster, MemberStatus, Status, Work};
pub use store::{Config, Joining, Store};
pub use transport::{Nowhere, Transport};
pub use txn::{Change, Compare, Is, MAX_DEPTH, MAX_KEY, MAX_OPS, MAX_TXN, MAX_VALUE, Op, OpResult, Txn, TxnResult};
pub use watch::{Buffer, WatchRequest, Watcher};
