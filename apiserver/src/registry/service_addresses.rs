//! The addresses of Services: out of the ranges that ServiceCIDRs name, each held by an IPAddress that is written in the
//! same transaction as the Service (KEP-1880).

use std::{collections::BTreeSet, net::Ipv4Addr};

use bytes::Bytes;
use coracle_proto::{
    field::{self, Path},
    status::Status,
};
use coracle_store::{Compare, Entry, Op, Range, Txn};
use k8s_openapi::{
    api::{
        core::v1::Service,
        networking::v1::{IPAddress, IPAddressSpec, ParentReference, ServiceCIDR},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use super::{
    Registry, Writer,
    beside::{Beside, invalid},
};
use crate::{
    config::Cidr,
    kinds::service::{set_cluster_ip, wants_cluster_ip},
    status_of::{self, Result},
    stored,
};

/// The range that the server was started with; it is there from the first moment.
const OWN_RANGE: &str = "kubernetes";
/// Who writes the IPAddresses of Services, as their label says.
const MANAGER: &str = "ipallocator.k8s.io";
/// Where addresses were noted before there were IPAddresses.
const FORMER: &str = "/allocated/addresses/";

fn key(address: &str) -> Bytes {
    stored::key("ipaddresses", "", address)
}

/// The address a Service has, if it has one.
pub(super) fn address_of(service: &Service) -> Option<String> {
    let address = service.spec.as_ref()?.cluster_ip.clone()?;
    (!address.is_empty() && address != "None").then_some(address)
}

fn held_by(service: &Service, address: &str, writer: &Writer) -> IPAddress {
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let labels = [("ipaddress.kubernetes.io/ip-family", family), ("ipaddress.kubernetes.io/managed-by", MANAGER)];
    IPAddress {
        metadata: ObjectMeta {
            name: Some(address.to_owned()),
            uid: Some(uuid::Uuid::new_v4().to_string()),
            creation_timestamp: Some(Time(writer.now)),
            generation: Some(1),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: IPAddressSpec {
            parent_ref: ParentReference {
                group: None,
                resource: "services".to_owned(),
                namespace: service.metadata.namespace.clone(),
                name: service.metadata.name.clone().unwrap_or_default(),
            },
        },
    }
}

fn is_held(address: &IPAddress, service: &Service) -> bool {
    let parent = &address.spec.parent_ref;
    parent.resource == "services"
        && parent.namespace == service.metadata.namespace
        && Some(&parent.name) == service.metadata.name.as_ref()
}

fn encode(address: &IPAddress) -> Result<Vec<u8>> {
    serde_json::to_vec(address).map_err(|error| status_of::broken("an object cannot be encoded", &error))
}

/// A range, and the entry of the ServiceCIDR that names it, if one does.
struct Named {
    cidr: Cidr,
    entry: Option<std::sync::Arc<Entry>>,
}

/// Refuses families that a cluster of IPv4 alone does not have. A headless service whose endpoints somebody else writes may
/// have any.
fn check_families(service: &Service, old: Option<&Service>) -> Result<()> {
    let families = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        (spec.ip_family_policy, spec.ip_families.unwrap_or_default())
    };
    let wanted = families(service);
    let Some(spec) = service.spec.as_ref().filter(|_| old.map(families).as_ref() != Some(&wanted)) else {
        return Ok(());
    };
    let has_selector = spec.selector.as_ref().is_some_and(|selector| !selector.is_empty());
    if spec.type_.as_deref() == Some("ExternalName") || spec.cluster_ip.as_deref() == Some("None") && !has_selector {
        return Ok(());
    }
    let (path, mut errors) = (Path::new("spec"), field::Errors::new());
    let (policy, families) = wanted;
    if let Some(policy) = policy.filter(|policy| policy == "RequireDualStack") {
        let why = "this cluster is not configured for dual-stack services";
        errors.push(field::Error::invalid(&path.child("ipFamilyPolicy"), policy, why));
    }
    for (i, family) in families.iter().enumerate().filter(|(_, family)| *family != "IPv4") {
        let at = path.child("ipFamilies").index(i);
        errors.push(field::Error::invalid(&at, family.as_str(), "not configured on this cluster"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    let name = service.metadata.name.as_deref().unwrap_or_default();
    Err(Box::new(Status::invalid("", "Service", name, &errors)))
}

impl Registry {
    /// The ranges that addresses may be from now: of ServiceCIDRs that are ready and stay.
    fn service_ranges(&self) -> Result<Vec<Named>> {
        let found = self.store.range(&Range::prefix(stored::prefix("servicecidrs", "")));
        let found = found.map_err(|error| status_of::store(&error))?;
        if found.entries.is_empty() {
            return Ok(vec![Named { cidr: self.facts.service_cidr, entry: None }]);
        }
        let mut ranges = Vec::new();
        for entry in found.entries {
            let range: ServiceCIDR = serde_json::from_slice(&entry.value)
                .map_err(|error| status_of::broken("a stored object cannot be read", &error))?;
            let conditions = range.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let is_ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            let is_own = range.metadata.name.as_deref() == Some(OWN_RANGE) && conditions.is_empty();
            if range.metadata.deletion_timestamp.is_some() || !(is_ready || is_own) {
                continue;
            }
            // Those of the other family are for later.
            let cidrs = range.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
            ranges.extend(
                cidrs
                    .iter()
                    .filter_map(|cidr| cidr.parse().ok())
                    .map(|cidr| Named { cidr, entry: Some(entry.clone()) }),
            );
        }
        Ok(ranges)
    }

    /// Gives a Service its address, or checks and takes the one it names, and gives back the one it had.
    pub(super) fn service_address(
        &self,
        new: Option<&mut Service>,
        old: Option<&Service>,
        writer: &Writer,
    ) -> Result<Beside> {
        let mut beside = Beside::default();
        let had = old.and_then(address_of);
        let mut has = None;
        if let Some(service) = new {
            check_families(service, old)?;
            if wants_cluster_ip(service) {
                let ranges = self.service_ranges()?;
                let (free, range) = self.free_address(service, &ranges)?;
                set_cluster_ip(service, free.into());
                beside.compare.extend(unchanged(range));
            }
            has = address_of(service);
            if let Some(address) = has.as_ref().filter(|address| had.as_ref() != Some(*address)) {
                if beside.compare.is_empty() {
                    let ranges = self.service_ranges()?;
                    beside.compare.extend(unchanged(self.check_address(service, address, &ranges)?));
                }
                let key = key(address);
                beside.compare.push(Compare::absent(key.clone()));
                beside.then.push(Op::put(key, encode(&held_by(service, address, writer))?));
            }
        }
        if let Some(address) = had.filter(|address| has.as_ref() != Some(address)) {
            // Only its own: nobody but it should have it, but a person may have written one by hand.
            let held = self.get_typed::<IPAddress>("", &address)?;
            if held.is_some_and(|held| old.is_some_and(|old| is_held(&held, old))) {
                beside.then.push(Op::delete(key(&address)));
            }
        }
        Ok(beside)
    }

    fn free_address<'a>(&self, service: &Service, ranges: &'a [Named]) -> Result<(Ipv4Addr, &'a Named)> {
        let prefix = stored::prefix("ipaddresses", "");
        let found = self.store.range(&Range::prefix(prefix.clone())).map_err(|error| status_of::store(&error))?;
        let name =
            |entry: &Entry| String::from_utf8_lossy(entry.key.get(prefix.len()..).unwrap_or_default()).into_owned();
        let taken: BTreeSet<String> = found.entries.iter().map(|entry| name(entry)).collect();
        for range in ranges {
            // The network's own address and the broadcast address are no one's.
            let usable = range.cidr.size().saturating_sub(2).max(1);
            let first = rand::random_range(0..usable);
            let free = (0..usable)
                .map(|step| range.cidr.nth(1 + (first + step) % usable))
                .find(|address| !taken.contains(&address.to_string()));
            if let Some(free) = free {
                return Ok((free, range));
            }
        }
        let why = "failed to allocate a serviceIP: range is full";
        let path = Path::new("spec").child("clusterIPs");
        Err(invalid(service, field::Error::invalid(&path, Vec::<String>::new(), why)))
    }

    fn check_address<'a>(&self, service: &Service, address: &str, ranges: &'a [Named]) -> Result<&'a Named> {
        let path = Path::new("spec").child("clusterIPs");
        let refuse = |why: String| invalid(service, field::Error::invalid(&path, vec![address.to_owned()], &why));
        let parsed = address.parse::<Ipv4Addr>().ok();
        let Some(range) = ranges.iter().find(|range| parsed.is_some_and(|address| range.cidr.contains(address))) else {
            let shown: Vec<String> = ranges.iter().map(|range| range.cidr.to_string()).collect();
            return Err(refuse(format!(
                "failed to allocate IP {address}: the provided IP ({address}) is not in the valid range. \
                 The range of valid IPs is {}",
                shown.join(",")
            )));
        };
        if self.store.get(&key(address)).is_some() {
            return Err(refuse(format!("failed to allocate IP {address}: provided IP is already allocated")));
        }
        Ok(range)
    }

    /// Has each Service's address held by an IPAddress, and lets go of those that are held for nobody: after an upgrade,
    /// and after somebody wrote by hand what is not theirs.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(crate) async fn repair_addresses(&self, writer: &Writer) -> Result<()> {
        let services = self.list_typed::<Service>("")?;
        let mut then = Vec::new();
        for service in &services {
            let Some(address) = address_of(service) else { continue };
            if self.get_typed::<IPAddress>("", &address)?.is_none() {
                then.push(Op::put(key(&address), encode(&held_by(service, &address, writer))?));
            }
        }
        for held in self.list_typed::<IPAddress>("")? {
            let labels = held.metadata.labels.iter().flatten();
            let is_ours = labels.into_iter().any(|(_, value)| value == MANAGER);
            let name = held.metadata.name.clone().unwrap_or_default();
            let is_used = |service: &Service| is_held(&held, service) && address_of(service).as_ref() == Some(&name);
            if is_ours && !services.iter().any(is_used) {
                then.push(Op::delete(key(&name)));
            }
        }
        let former = self.store.range(&Range::prefix(FORMER)).map_err(|error| status_of::store(&error))?;
        then.extend(former.entries.iter().map(|entry| Op::delete(entry.key.clone())));
        // A step of each at a time: a transaction is bounded.
        for steps in then.chunks(STEPS) {
            self.commit(Txn { compare: Vec::new(), then: steps.to_vec(), or_else: Vec::new() }).await?;
        }
        Ok(())
    }
}

/// So many steps are in a transaction of a repair.
const STEPS: usize = 64;

/// The range is still the one that was looked at.
fn unchanged(range: &Named) -> Option<Compare> {
    range.entry.as_ref().map(|entry| Compare::unchanged(entry.key.clone(), entry.mod_revision))
}
