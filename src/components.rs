//! The components that run in this process, and the order they stop in.

use std::{collections::HashSet, future::Future};

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Components started in order; stopped in the opposite order, each waited for, since the later ones need the earlier
/// ones to say goodbye.
#[derive(Default)]
pub(crate) struct Components {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    tokens: Vec<(&'static str, CancellationToken)>,
    ended: HashSet<&'static str>,
}

impl Components {
    /// Starts one; `work` gets the token that tells it to end.
    pub(crate) fn start<F>(&mut self, name: &'static str, work: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let work = work(token.clone());
        self.tasks.spawn(async move { (name, work.await) });
        self.tokens.push((name, token));
    }

    /// Waits until one ends by itself, which none should: a part that is gone takes the whole down, rather than leave a
    /// cluster that looks alive.
    ///
    /// # Cancel safety
    /// Safe: a component whose end was not seen yet is seen by the next call.
    pub(crate) async fn broken(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok((name, result))) => {
                self.ended.insert(name);
                match result {
                    Ok(()) => anyhow::anyhow!("the {name} ended by itself"),
                    Err(error) => error.context(format!("the {name} failed")),
                }
            }
            Some(Err(error)) => anyhow::Error::from(error).context("a component broke"),
            None => std::future::pending().await,
        }
    }

    /// Stops all, the last one started first.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        let mut first = Ok(());
        while let Some((name, token)) = self.tokens.pop() {
            token.cancel();
            while !self.ended.contains(name) {
                // One that panicked has no name; then there may be nothing left to wait for.
                let Some(ended) = self.tasks.join_next().await else { break };
                let (who, result) = ended.context("a component broke")?;
                self.ended.insert(who);
                if first.is_ok() {
                    first = result.with_context(|| format!("the {who} did not end well"));
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
}
