//! What the log holds: the commands every member applies in the same order.

use std::time::Duration;

use crate::{
    error::Result,
    revision::{LeaseId, Revision},
    txn::{Txn, TxnResult},
};

/// A change of the replicated state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Runs a transaction.
    Txn(Txn),
    /// Grants a lease; the proposer has chosen its id.
    LeaseGrant {
        /// Its name.
        id: LeaseId,
        /// Its time to live.
        ttl: Duration,
    },
    /// Ends a lease, by request or because its time is up.
    LeaseRevoke {
        /// The lease.
        id: LeaseId,
    },
    /// Forgets the history up to a revision.
    Compact {
        /// The last revision to forget.
        revision: Revision,
    },
}

/// What a command answers to its proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// To a transaction.
    Txn(TxnResult),
    /// To anything else.
    Done,
}

/// The answer, or the state machine's refusal (which changes nothing).
pub(crate) type Outcome = Result<Answer>;
