//! Finding what a call is about by its id, which may be cut: what was made here, and the API server's pods.

use std::sync::Arc;

use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::{ContainerId, Sandbox, SandboxStatus};

use super::view::{Seen, SeenContainer};
use super::{Front, invalid, is_made_here, records, refused};

/// What was asked for and is not there.
pub(super) fn missing(what: &str, id: &str) -> Refusal {
    Refusal(Code::NotFound, format!("an error occurred when try to find {what} {id:?}: not found"))
}

fn foreign(what: &str, id: &str, pod: &SandboxStatus) -> Refusal {
    let (namespace, name) = (&pod.spec.pod_namespace, &pod.spec.pod_name);
    let why = format!("{what} {id} is of pod {namespace}/{name} of the API server: change the pod there");
    Refusal(Code::FailedPrecondition, why)
}

impl Front {
    /// A sandbox, as the runtime knows it now.
    fn seen(&self, status: SandboxStatus) -> Seen {
        let own = self.records.sandbox_of(&status.id);
        let made = if own.is_some() { self.records.containers(&status.id) } else { Vec::new() };
        Seen { status, own, made }
    }

    /// All sandboxes. One that is only now being made or removed is none.
    pub(super) async fn sandboxes(&self) -> Result<Vec<Seen>> {
        let all = self.context.runtime.list().await.map_err(|error| refused(&error))?;
        let all = all.into_iter().map(|status| self.seen(status));
        Ok(all.filter(|seen| seen.own.is_some() || !is_made_here(&seen.status.spec)).collect())
    }

    /// The sandbox whose id begins so.
    pub(super) async fn sandbox(&self, id: &str) -> Result<Seen> {
        if let Some(own) = self.records.sandbox(id)? {
            let status = self.context.runtime.status(&own.id).await.map_err(|error| refused(&error))?;
            return status.map(|status| self.seen(status)).ok_or_else(|| missing("sandbox", id));
        }
        let all = self.sandboxes().await?.into_iter();
        one(id, all.filter(|seen| seen.own.is_none() && seen.status.id.as_str().starts_with(id)))?
            .ok_or_else(|| missing("sandbox", id))
    }

    /// The container whose id begins so, and its sandbox.
    pub(super) async fn container(&self, id: &str) -> Result<(Seen, ContainerId)> {
        if let Some(own) = self.records.container(id)? {
            let status = self.context.runtime.status(&own.sandbox).await.map_err(|error| refused(&error))?;
            let found = status.map(|status| (self.seen(status), own.id.clone()));
            return found.ok_or_else(|| missing("container", id));
        }
        let all = self.sandboxes().await?.into_iter().filter(|seen| seen.own.is_none());
        let matching = all.filter_map(|seen| {
            let found = seen.status.containers.iter().find(|one| one.id.as_str().starts_with(id))?.id.clone();
            Some((seen, found))
        });
        one(id, matching)?.ok_or_else(|| missing("container", id))
    }

    /// The sandbox whose id begins so, to be changed; none when there is none.
    ///
    /// # Errors
    /// It is one of the API server's pods.
    pub(super) async fn own_sandbox(&self, id: &str) -> Result<Option<Arc<records::Sandbox>>> {
        if let Some(own) = self.records.sandbox(id)? {
            return Ok(Some(own));
        }
        match self.sandbox(id).await {
            Ok(seen) => Err(foreign("sandbox", seen.status.id.as_str(), &seen.status)),
            Err(Refusal(Code::NotFound, _)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The container whose id begins so, to be changed; none when there is none.
    ///
    /// # Errors
    /// It is one of a pod of the API server's.
    pub(super) async fn own_container(&self, id: &str) -> Result<Option<Arc<records::Container>>> {
        if let Some(own) = self.records.container(id)? {
            return Ok(Some(own));
        }
        match self.container(id).await {
            Ok((seen, id)) => Err(foreign("container", id.as_str(), &seen.status)),
            Err(Refusal(Code::NotFound, _)) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// A running container whose id begins so, whoever made it.
    pub(super) async fn running(&self, id: &str) -> Result<(Sandbox, ContainerId)> {
        let (seen, id) = self.container(id).await?;
        let container = seen.container(&id).ok_or_else(|| missing("container", id.as_str()))?;
        if !container.is_running() {
            let state = container.state_name();
            return Err(Refusal(Code::FailedPrecondition, format!("container is in {state} state")));
        }
        let sandbox = self.context.runtime.sandbox(&seen.status.id).await.map_err(|error| refused(&error))?;
        Ok((sandbox, id))
    }
}

/// The only one there is.
fn one<T>(id: &str, mut matching: impl Iterator<Item = T>) -> Result<Option<T>> {
    match (matching.next(), matching.next()) {
        (Some(_), Some(_)) => Err(invalid(format!("multiple IDs found with provided prefix: {id}"))),
        (first, _) => Ok(first),
    }
}

impl Seen {
    /// One of its containers.
    pub(super) fn container(&self, id: &ContainerId) -> Option<SeenContainer<'_>> {
        self.containers().find(|container| container.id == id)
    }
}
