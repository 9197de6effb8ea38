//! A multi-version key-value store with etcd's semantics. Knows bytes, and nothing of Kubernetes.

mod bridge;
mod checkpoint;
mod codec;
mod command;
mod datadir;
mod disk;
mod driver;
mod engine;
mod entry;
mod error;
mod history;
mod hub;
mod index;
mod lease;
mod log;
mod member;
mod queue;
mod range;
mod revision;
mod shared;
mod state;
mod store;
mod txn;
mod watch;
mod worker;

pub use driver::Driver;
pub use entry::{Derived, Entry, Event, EventKind};
pub use error::{Error, Result};
pub use history::{Batch, Retention};
pub use lease::Lease;
pub use log::Recovery;
pub use range::{Range, RangeResult, What, prefix_end};
pub use revision::{LeaseId, Revision};
pub use store::{Config, Store};
pub use txn::{Compare, Is, MAX_KEY, MAX_OPS, MAX_TXN, MAX_VALUE, Op, OpResult, Txn, TxnResult};
pub use watch::{WatchRequest, Watcher};
