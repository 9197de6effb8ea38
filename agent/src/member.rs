//! A node whose API server runs elsewhere: it joins or comes back, and keeps its membership fresh while it runs.

use std::error::Error as StdError;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use coracle_process::{Exchange, WallClock, WrongUse};
use jiff::{SignedDuration, Timestamp};
use rand::Rng;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::agent::{self, check_rights};
use crate::args::{MemberArgs, Surroundings};
use crate::config::Serving;
use crate::join::{self, JoinRequest};
use crate::membership::{Membership, Wanted, Way, way};
use crate::place::Place;
use crate::servers;

/// The node looks at its certificates at least this often: a monotonic sleep does not see a suspended machine, and
/// twice a day costs nothing. When the clock is set it looks at once.
const LONGEST_SLEEP: Duration = Duration::from_secs(12 * 3600);
/// The longest time between two tries to renew.
const RETRY_MOST: Duration = Duration::from_secs(10 * 60);
/// The shortest one.
const RETRY_LEAST: Duration = Duration::from_secs(1);

/// Joins the cluster, or comes back to it as what it was, and runs the node until `shutdown`.
///
/// # Errors
/// [`WrongUse`] when the flags do not suffice; why the node cannot join; why it cannot run.
pub async fn run_member(args: MemberArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    check_rights()?;
    let place = Place::new(&args.data_dir).with_context(|| format!("--data-dir {}", args.data_dir.display()))?;
    let file = place.agent_dir().join("membership.json");
    let kept = Membership::load(&file)?;
    let token = args.token.map(|text| text.parse().map_err(|error| WrongUse(format!("--token: {error}"))));
    let node = args.node.name(kept.as_ref().map(|kept| kept.node.as_str()))?;
    let way =
        way(kept, Wanted { server: args.server, token: token.transpose()?, node: node.clone() }, Timestamp::now())?;
    let (give, serving) = watch::channel(Serving::none());
    let around = Surroundings { pod_cidr: args.pod_cidr, dns_domain: args.dns_domain };
    let config = args.node.config(&place, node.clone(), &around, serving)?;
    let addresses = vec![config.node_ip];
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&config.data_dir);
    made.with_context(|| config.data_dir.display().to_string())?;
    let membership = match way {
        Way::Stay(membership) => {
            tracing::info!(node, server = membership.server, "back in the cluster");
            membership
        }
        Way::Join { server, token, key } => {
            let request = JoinRequest { server, token, node, addresses: addresses.clone(), key };
            let joining = join::join(&request);
            let credentials = tokio::select! {
                credentials = joining => credentials.with_context(|| format!("joining {}", request.server))?,
                () = shutdown.cancelled() => return Ok(()),
            };
            tracing::info!(node = request.node, server = request.server, "joined the cluster");
            let JoinRequest { server, token, node, addresses, .. } = request;
            let membership = Membership::new(server, node, addresses, &token, credentials);
            membership.save(&file)?;
            membership
        }
    };
    give.send_replace(membership.credentials.serving());
    let exchange = Exchange::new(membership.credentials.client(&membership.server)?);
    exchange.set_all(membership.clients()?);
    let client = exchange.client();
    let keeper = Keeper { file, membership, addresses, exchange, give };
    let done = CancellationToken::new();
    let run = async {
        let result = agent::run(config, client, shutdown).await;
        done.cancel();
        result
    };
    Ok(tokio::join!(run, keeper.run(&done)).0?)
}

/// Renews a node's membership before it ends.
struct Keeper {
    file: PathBuf,
    membership: Membership,
    /// The node's addresses as they are now.
    addresses: Vec<IpAddr>,
    exchange: Exchange,
    give: watch::Sender<Serving>,
}

impl Keeper {
    async fn run(mut self, done: &CancellationToken) {
        let mut due = match self.membership.addresses == self.addresses {
            true => self.due(chance()),
            // The certificate of its server speaks of addresses it had once.
            false => Timestamp::now(),
        };
        let (tell, mut servers) = watch::channel(self.membership.servers.clone());
        let mut following = std::pin::pin!(servers::follow(self.exchange.client(), tell));
        loop {
            let set = WallClock::watch();
            let wait = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO);
            tokio::select! {
                () = done.cancelled() => return,
                () = &mut following => {}
                Ok(()) = servers.changed() => {
                    let found = servers.borrow_and_update().clone();
                    if let Err(error) = self.take_servers(found).await {
                        let error: &(dyn StdError + 'static) = error.as_ref();
                        tracing::warn!(error, "which servers there are was not kept");
                    }
                }
                () = set.sleep(wait.min(LONGEST_SLEEP)) => {}
            }
            if Timestamp::now() < due {
                continue;
            }
            let renewed = tokio::select! {
                () = done.cancelled() => return,
                () = &mut following => continue,
                renewed = self.renew() => renewed,
            };
            due = match renewed {
                Ok(()) => self.due(chance()),
                Err(error) => {
                    let error: &(dyn StdError + 'static) = error.as_ref();
                    tracing::warn!(error, "certificates not renewed yet");
                    let now = Timestamp::now();
                    now.checked_add(retry_after(self.membership.credentials.end(), now, chance())).unwrap_or(now)
                }
            };
        }
    }

    /// When to ask for new certificates: when the server said, or somewhat later, so that not all nodes ask at once.
    fn due(&self, chance: f64) -> Timestamp {
        let credentials = &self.membership.credentials;
        let end = credentials.end().unwrap_or(credentials.renew_after);
        let spare = Duration::try_from(end.duration_since(credentials.renew_after)).unwrap_or(Duration::ZERO);
        let later = SignedDuration::try_from(spare.mul_f64(chance / 4.0)).unwrap_or(SignedDuration::ZERO);
        credentials.renew_after.checked_add(later).unwrap_or(credentials.renew_after)
    }

    /// Takes over which servers the cluster has.
    async fn take_servers(&mut self, servers: Vec<String>) -> anyhow::Result<()> {
        if servers == self.membership.servers {
            return Ok(());
        }
        let next = self.membership.among(servers);
        let clients = next.clients()?;
        let (file, kept) = (self.file.clone(), next.clone());
        tokio::task::spawn_blocking(move || kept.save(&file)).await??;
        tracing::info!(servers = next.servers.join(" "), "the cluster's servers are others");
        self.exchange.set_all(clients);
        self.membership = next;
        Ok(())
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        let credentials = join::renew(&self.exchange.client(), &self.membership.node, &self.addresses).await?;
        let next = self.membership.renewed(credentials, self.addresses.clone());
        let clients = next.clients()?;
        let (file, kept) = (self.file.clone(), next.clone());
        tokio::task::spawn_blocking(move || kept.save(&file)).await??;
        self.exchange.set_all(clients);
        self.give.send_replace(next.credentials.serving());
        self.membership = next;
        tracing::info!("certificates renewed");
        Ok(())
    }
}

/// A number from 0 to 1.
fn chance() -> f64 {
    rand::rng().random_range(0.0..1.0)
}

/// An eighth of what is left of a certificate's life, or somewhat less.
fn retry_after(end: Option<Timestamp>, now: Timestamp, chance: f64) -> Duration {
    let left = end.and_then(|end| Duration::try_from(end.duration_since(now)).ok());
    let most = left.map_or(RETRY_MOST, |left| (left / 8).clamp(RETRY_LEAST, RETRY_MOST));
    most.mul_f64(1.0 - chance / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_closer_as_the_end_does_and_not_without_end() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let after = |seconds: i64, chance| retry_after(Some(now + SignedDuration::from_secs(seconds)), now, chance);
        assert_eq!(after(80 * 24 * 3600, 0.0), RETRY_MOST);
        assert_eq!(after(80 * 24 * 3600, 1.0), RETRY_MOST / 2);
        assert_eq!(after(80, 0.0), Duration::from_secs(10));
        assert_eq!(after(1, 0.0), RETRY_LEAST);
        assert_eq!(after(-1, 0.0), RETRY_MOST, "what has ended is not hurried");
    }
}
