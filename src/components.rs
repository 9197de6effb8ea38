//! The components that run in this process, and the order they stop in.

use std::{collections::HashSet, future::Future};

use anyhow::Context;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Components started in order; stopped in the opposite order, each waited for, since the later ones need the earlier
/// ones to say goodbye.
#[derive(Default)]
pub(crate) struct Components {
    tasks: JoinSet<anyhow::Result<()>>,
    started: Vec<Component>,
    ended: HashSet<Id>,
}

struct Component {
    name: &'static str,
    token: CancellationToken,
    task: Id,
}

impl Components {
    /// Starts one; `work` gets the token that tells it to end.
    pub(crate) fn start<F>(&mut self, name: &'static str, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let task = self.tasks.spawn(work(token.clone())).id();
        self.started.push(Component { name, token, task });
    }

    /// Waits until one ends by itself, which none should: a part that is gone takes the whole down, rather than leave a
    /// cluster that looks alive.
    ///
    /// # Cancel safety
    /// Safe: a component whose end was not seen yet is seen by the next call.
    pub(crate) async fn broken(&mut self) -> anyhow::Error {
        let Some(ended) = self.tasks.join_next_with_id().await else { return std::future::pending().await };
        let (name, result) = self.note(ended);
        match result {
            Ok(()) => anyhow::anyhow!("the {name} ended by itself"),
            Err(error) => error.context(format!("the {name} failed")),
        }
    }

    /// Notes that one has ended: which, and how. A panic is a bad end like any other; the rest must still be stopped.
    fn note(&mut self, ended: Result<(Id, anyhow::Result<()>), JoinError>) -> (&'static str, anyhow::Result<()>) {
        let (task, result) = match ended {
            Ok((task, result)) => (task, result),
            Err(error) => (error.id(), Err(error.into())),
        };
        self.ended.insert(task);
        let name = self.started.iter().find(|component| component.task == task).map_or("component", |found| found.name);
        (name, result)
    }

    /// Stops all, the last one started first.
    ///
    /// # Errors
    /// The first of those that did not end well; all have been stopped all the same.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        for at in (0..self.started.len()).rev() {
            let Some((token, task)) = self.started.get(at).map(|found| (found.token.clone(), found.task)) else {
                break;
            };
            token.cancel();
            while !self.ended.contains(&task) {
                let Some(ended) = self.tasks.join_next_with_id().await else { break };
                let (name, result) = self.note(ended);
                if first.is_ok() {
                    first = result.with_context(|| format!("the {name} did not end well"));
                }
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Invariant 8: every task has an owner that stops it and waits for it.
    #[tokio::test]
    async fn components_stop_last_first_and_one_at_a_time() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut components = Components::default();
        for name in ["first", "second", "third"] {
            let order = Arc::clone(&order);
            components.start(name, |token| async move {
                token.cancelled().await;
                tokio::task::yield_now().await;
                order.lock().unwrap().push(name);
                Ok(())
            });
        }
        components.stop().await.unwrap();
        assert_eq!(*order.lock().unwrap(), ["third", "second", "first"]);
    }

    #[tokio::test]
    async fn a_component_that_ends_is_named() {
        let mut components = Components::default();
        components.start("steady", |token| async move {
            token.cancelled().await;
            Ok(())
        });
        components.start("flighty", |_| async { anyhow::bail!("out of luck") });
        assert_eq!(format!("{:#}", components.broken().await), "the flighty failed: out of luck");
        components.stop().await.unwrap();
    }

    #[tokio::test]
    async fn one_that_panics_is_named_and_the_others_are_stopped_all_the_same() {
        let stopped = Arc::new(Mutex::new(Vec::new()));
        let mut components = Components::default();
        for name in ["first", "fragile", "last"] {
            let stopped = Arc::clone(&stopped);
            components.start(name, |token| async move {
                token.cancelled().await;
                assert_ne!(name, "fragile", "broken");
                stopped.lock().unwrap().push(name);
                Ok(())
            });
        }
        let error = components.stop().await.unwrap_err();
        assert!(format!("{error:#}").starts_with("the fragile did not end well"), "{error:#}");
        assert_eq!(*stopped.lock().unwrap(), ["last", "first"]);
    }
}
