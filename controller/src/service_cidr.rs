//! Ranges of Services' addresses: one that is being deleted stays until no address is held that only it allows
//! (KEP-1880).

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::{
    api::networking::v1::{IPAddress, ServiceCIDR},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    informer::{Change, Reader},
    informers::Informers,
    object_key::ObjectKey,
    reconcile::{Control, Next, Reconcile, ReconcileError},
    work_queue::WorkQueue,
};

/// Keeps a range until its addresses are given back.
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The addresses of Services, as those are labelled that the API server writes.
const ADDRESSES: &str = "ipaddress.kubernetes.io/managed-by=ipallocator.k8s.io";

/// See the module.
pub(crate) struct ServiceCidrs {
    client: Client,
    ranges: Reader<ServiceCIDR>,
}

/// A range of addresses: its first one's bits, how many of them count, and whether it is of the larger family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    bits: u128,
    length: u32,
    is_v6: bool,
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, false),
        IpAddr::V6(v6) => (u128::from(v6), true),
    }
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let (bits, is_v6) = bits(address.parse().ok()?);
        let length: u32 = length.parse().ok()?;
        (length <= if is_v6 { 128 } else { 32 }).then_some(Self { bits, length, is_v6 })
    }

    fn has(&self, (address, is_v6): (u128, bool)) -> bool {
        let mask = u128::MAX.checked_shl(128 - self.length).unwrap_or(0);
        is_v6 == self.is_v6 && address & mask == self.bits & mask
    }

    fn covers(&self, other: &Self) -> bool {
        self.length <= other.length && self.has((other.bits, other.is_v6))
    }
}

fn ranges_of(cidr: &ServiceCIDR) -> Vec<Range> {
    let cidrs = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    cidrs.iter().filter_map(|text| Range::parse(text)).collect()
}

/// Whether none of these addresses needs the range: others that stay allow them all.
fn may_go(cidr: &ServiceCIDR, others: &[Arc<ServiceCIDR>], addresses: &[IpAddr]) -> bool {
    let stays = |other: &&Arc<ServiceCIDR>| {
        other.metadata.uid != cidr.metadata.uid && other.metadata.deletion_timestamp.is_none()
    };
    let rest: Vec<Range> = others.iter().filter(stays).flat_map(|other| ranges_of(other)).collect();
    let own = ranges_of(cidr);
    if own.iter().all(|range| rest.iter().any(|other| other.covers(range))) {
        return true;
    }
    let needs = |address: &IpAddr| {
        let address = bits(*address);
        own.iter().any(|range| range.has(address)) && !rest.iter().any(|range| range.has(address))
    };
    !addresses.iter().any(needs)
}

impl ServiceCidrs {
    pub(crate) fn over(informers: &mut Informers) -> Control<Self> {
        let queue: Arc<WorkQueue<ObjectKey>> = Arc::default();
        let (changed, ranges) = (Arc::clone(&queue), informers.service_cidrs.reader());
        // A range that comes, goes, or is another, and an address that is given back, may let another range go.
        let wake = move || {
            let going = ranges.list(|range| range.metadata.deletion_timestamp.is_some());
            going.iter().for_each(|range| changed.add(ObjectKey::of(range.as_ref())));
        };
        let (changed, woken) = (Arc::clone(&queue), wake.clone());
        informers.service_cidrs.on_change(move |change: &Change<'_, ServiceCIDR>| {
            changed.add(ObjectKey::of(change.object()));
            woken();
        });
        informers.ip_addresses.on_change(move |change: &Change<'_, IPAddress>| {
            if matches!(change, Change::Deleted(_)) {
                wake();
            }
        });
        let controller = Self { client: informers.client.clone(), ranges: informers.service_cidrs.reader() };
        Control::new(controller, queue)
    }

    async fn patch(&self, range: &ServiceCIDR, finalizers: &[String]) -> Result<(), ReconcileError> {
        // With the version that was looked at: others' finalizers are not lost.
        let meta =
            json!({"uid": range.uid(), "resourceVersion": range.metadata.resource_version, "finalizers": finalizers});
        let patch = Patch::Merge(json!({"metadata": meta}));
        let api: Api<ServiceCIDR> = Api::all(self.client.clone());
        match api.patch(&range.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("changing the finalizers of a ServiceCIDR")(error)),
        }
    }

    async fn tell(&self, range: &ServiceCIDR, status: &str, reason: &str, message: &str) -> Result<(), ReconcileError> {
        let conditions = range.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let old = conditions.iter().find(|condition| condition.type_ == "Ready");
        if old.is_some_and(|old| old.status == status && old.reason == reason && old.message == message) {
            return Ok(());
        }
        let since = old.filter(|old| old.status == status).map(|old| old.last_transition_time.clone());
        let new = Condition {
            type_: "Ready".to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: since.unwrap_or_else(|| Time(Timestamp::now())),
            observed_generation: None,
        };
        let mut all: Vec<Condition> = conditions.iter().filter(|c| c.type_ != "Ready").cloned().collect();
        all.push(new);
        let meta = json!({"uid": range.uid(), "resourceVersion": range.metadata.resource_version});
        let patch = Patch::Merge(json!({"metadata": meta, "status": {"conditions": all}}));
        let api: Api<ServiceCIDR> = Api::all(self.client.clone());
        match api.patch_status(&range.name_any(), &PatchParams::default(), &patch).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(ReconcileError::api("updating the status of a ServiceCIDR")(error)),
        }
    }
}

impl Reconcile for ServiceCidrs {
    type Key = ObjectKey;

    const NAME: &'static str = "service-cidr";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let Some(range) = self.ranges.get(key) else { return Ok(Next::OnChange) };
        let finalizers = range.metadata.finalizers.clone().unwrap_or_default();
        let is_held = finalizers.iter().any(|finalizer| finalizer == FINALIZER);
        if range.metadata.deletion_timestamp.is_none() {
            if !is_held {
                return self
                    .patch(&range, &[finalizers, vec![FINALIZER.to_owned()]].concat())
                    .await
                    .map(|()| Next::OnChange);
            }
            self.tell(&range, "True", "", "Kubernetes Service CIDR is ready").await?;
            return Ok(Next::OnChange);
        }
        if !is_held {
            return Ok(Next::OnChange);
        }
        // From the mark of deletion on no address is taken from it, so what is held now is all there will be.
        let api: Api<IPAddress> = Api::all(self.client.clone());
        let held = api.list(&ListParams::default().labels(ADDRESSES)).await;
        let held = held.map_err(ReconcileError::api("listing the addresses of Services"))?;
        let addresses: Vec<IpAddr> = held.items.iter().filter_map(|held| held.name_any().parse().ok()).collect();
        if may_go(&range, &self.ranges.list(|_| true), &addresses) {
            let others: Vec<String> = finalizers.into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
            self.patch(&range, &others).await?;
            return Ok(Next::OnChange);
        }
        let why =
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        self.tell(&range, "False", "Terminating", why).await?;
        Ok(Next::OnChange)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(name: &str, cidrs: &[&str], is_going: bool) -> Arc<ServiceCIDR> {
        let deleted = is_going.then_some("2026-01-01T00:00:00Z");
        let meta = json!({"name": name, "uid": name, "deletionTimestamp": deleted});
        Arc::new(serde_json::from_value(json!({"metadata": meta, "spec": {"cidrs": cidrs}})).unwrap())
    }

    #[test]
    fn a_range_goes_when_nobody_needs_it() {
        let going = range("going", &["10.96.0.0/24", "fd00::/112"], true);
        let whole = range("whole", &["10.96.0.0/16", "fd00::/64"], false);
        let part = range("part", &["10.96.0.0/25"], false);
        let going_too = range("going-too", &["10.0.0.0/8", "fd00::/64"], true);
        for (others, addresses, expected) in [
            (vec![], vec![], true),
            (vec![], vec!["10.97.0.1"], true),
            (vec![], vec!["10.96.0.1"], false),
            (vec![], vec!["fd00::1"], false),
            (vec![&whole], vec!["10.96.0.1", "fd00::1"], true),
            (vec![&part], vec!["10.96.0.1"], true),
            (vec![&part], vec!["10.96.0.200"], false),
            (vec![&going_too], vec!["10.96.0.1"], false),
        ] {
            let all: Vec<Arc<ServiceCIDR>> = others.into_iter().cloned().chain([Arc::clone(&going)]).collect();
            let held: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(may_go(&going, &all, &held), expected, "{addresses:?}");
        }
    }

    #[test]
    fn ranges_are_read_and_compared() {
        let parse = |text: &str| Range::parse(text).unwrap();
        assert!(
            parse("10.0.0.0/8").covers(&parse("10.1.0.0/16")) && !parse("10.1.0.0/16").covers(&parse("10.0.0.0/8"))
        );
        assert!(parse("0.0.0.0/0").covers(&parse("10.0.0.0/8")) && !parse("::/0").covers(&parse("10.0.0.0/8")));
        assert!(["10.0.0.0", "10.0.0.0/33", "x/8", "::/129"].iter().all(|text| Range::parse(text).is_none()));
    }
}
