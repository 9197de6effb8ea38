//! How long events live: an hour from when they were last written, which is what kube-apiserver's `--event-ttl` is unless
//! it is told otherwise.
//!
//! Events hang on leases of the store. Those written within some minutes of each other share one, so that a flood of events
//! is not a flood of leases.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use coracle_proto::resource::Resource;
use coracle_store::{LeaseId, Store};

use crate::status_of::{self, Result};

/// How long an event lives at least.
const TTL: Duration = Duration::from_secs(3600);

/// Events written within this time of each other share a lease, and so live this much longer at most.
const SHARED_FOR: Duration = Duration::from_secs(300);

/// The lease that is shared now, and when it was granted.
#[derive(Default)]
pub(super) struct EventLife {
    current: Mutex<Option<(LeaseId, Instant)>>,
}

impl EventLife {
    /// The lease that an object of this resource hangs on; none for what lives until it is deleted.
    pub(super) async fn lease_of(&self, resource: &Resource, store: &Store) -> Result<Option<LeaseId>> {
        if resource.storage != "events" {
            return Ok(None);
        }
        let current = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((lease, since)) = current
            && since.elapsed() < SHARED_FOR
        {
            return Ok(Some(lease));
        }
        // Two writers may each grant one; the lease that nothing hangs on in the end goes by itself.
        let lease = store.lease_grant(TTL + SHARED_FOR).await.map_err(|error| status_of::store(&error))?.id;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some((lease, Instant::now()));
        Ok(Some(lease))
    }
}
