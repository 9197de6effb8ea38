//! The ways to other servers: webhooks, aggregated API servers, and whatever runs in pods and on nodes.
//!
//! ```text
//!   service   a Service's name and port ──► an endpoint's address
//!   connect   an address ──► a pooled connection, plain or TLS        trust   whose certificates are good
//!   pass      a client's request ──► the same request to another server, its answer back, upgrades included
//!   links     what of an answer says where things are, so that it leads through this server again
//! ```

pub(crate) mod connect;
pub(crate) mod links;
pub(crate) mod pass;
pub(crate) mod service;
mod trust;

use std::error::Error as StdError;

/// The innermost cause, which says most.
pub(crate) fn root(error: &dyn StdError) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
