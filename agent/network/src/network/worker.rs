//! The network's thread: owns the records, speaks to the kernel, in the host's network namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_route::route::RouteType;

use super::{Attachment, Netns, Purged};
use crate::{
    Config, Error, HostPort, ipam,
    link::{Links, Mac, Route, VethEnd},
    nft::{Batch, Chain, ChainKind, Family, Hook, NftError, Rule, Table},
    ports,
    records::{NodeRecord, PodRecord, Records, check_uid},
    sysctl,
};

/// The pod's end of the pair.
const POD_INTERFACE: &str = "eth0";

/// What the names of all clusters' gateway devices begin with.
const ANCHOR_PREFIX: &str = "cor-";

pub(super) struct Worker {
    config: Config,
    records: Records,
    links: Links,
    mtu: u32,
}

impl Worker {
    pub(super) fn open(config: Config) -> Result<Self, Error> {
        let links = Links::new()?;
        let anchor = config.anchor();
        links.session(async |session| {
            let names: BTreeMap<u32, String> =
                session.links().await?.into_iter().map(|link| (link.index, link.name)).collect();
            check_overlap(&config, &session.routes().await?, &names)
        })?;
        let records = Records::open(&config.state_dir)?;
        let mtu = config.pod_mtu(links.session(async |session| session.way_out_mtu().await)?);
        let mut worker = Self { config, records, links, mtu };
        worker.forward()?;
        worker.forget_other_range()?;
        let gateway = worker.config.gateway();
        let range = worker.config.pod_cidr;
        worker.links.session(async |session| {
            if session.link(&anchor).await?.is_none() {
                session.add_bridge(&anchor).await?;
            }
            let link = session.need(&anchor).await?;
            sysctl::set_for_interface("ipv6", &anchor, "disable_ipv6", "1")?;
            session.set_address(&link, gateway).await?;
            session.up(&link).await?;
            session.route_unreachable(&range).await
        })?;
        worker.filter()?;
        tracing::info!(pod_cidr = %range, interface = anchor, "pod network is up");
        Ok(worker)
    }

    /// Takes what an earlier process left as it is, and makes nothing.
    pub(super) fn find(config: Config) -> Result<Self, Error> {
        let mtu = config.pod_mtu(None);
        Ok(Self { records: Records::open(&config.state_dir)?, links: Links::new()?, config, mtu })
    }

    pub(super) fn attach(&mut self, uid: &str, netns: &Netns) -> Result<Attachment, Error> {
        check_uid(uid)?;
        let opened;
        let (name, netns) = match netns {
            Netns::Path(path) => {
                let name = path.display().to_string();
                opened = File::open(path).map_err(|source| Error::Namespace { namespace: name.clone(), source })?;
                (name, opened.as_fd())
            }
            Netns::Fd(fd) => (format!("of pod {uid}"), fd.as_fd()),
        };
        let attachment = self.allocate(uid)?;
        let pod_mac = pod_mac(attachment.ip);
        let host_mac = host_mac(attachment.gateway);
        let host_if = attachment.host_if.as_str();
        let mtu = self.mtu;

        let standing = in_namespace(&name, netns, async |session| session.link(POD_INTERFACE).await)?;
        let standing = standing.is_some_and(|link| link.mac == pod_mac);
        self.links.session(async |session| {
            if standing && session.link(host_if).await?.is_some() {
                return Ok(());
            }
            // A pair that leads into a namespace of the pod's past.
            session.delete(host_if).await?;
            session
                .add_veth(
                    &VethEnd { name: host_if, mac: host_mac, mtu },
                    &VethEnd { name: POD_INTERFACE, mac: pod_mac, mtu },
                    netns.as_raw_fd(),
                )
                .await
        })?;
        in_namespace(&name, netns, async |session| {
            session.up(&session.need("lo").await?).await?;
            let link = session.need(POD_INTERFACE).await?;
            sysctl::set_for_interface("ipv6", POD_INTERFACE, "disable_ipv6", "1")?;
            session.set_address(&link, attachment.ip).await?;
            session.up(&link).await?;
            session.neighbour(attachment.gateway, &host_mac, &link).await?;
            session.route_host(attachment.gateway, &link, None).await?;
            session.route_default(attachment.gateway, &link).await
        })?;
        self.links.session(async |session| {
            let link = session.need(host_if).await?;
            sysctl::set_for_interface("ipv6", host_if, "disable_ipv6", "1")?;
            // Strict: what comes from this pod must come from this pod's address (RFC 3704).
            sysctl::set_for_interface("ipv4", host_if, "rp_filter", "1")?;
            session.up(&link).await?;
            session.neighbour(attachment.ip, &pod_mac, &link).await?;
            session.route_host(attachment.ip, &link, Some(attachment.gateway)).await
        })?;
        Ok(attachment)
    }

    pub(super) fn detach(&mut self, uid: &str) -> Result<(), Error> {
        check_uid(uid)?;
        if !self.records.pods().contains_key(uid) {
            return Ok(());
        }
        let host_if = self.config.veth(uid);
        let published = self.records.pods().get(uid).is_some_and(|pod| !pod.ports.is_empty());
        if published {
            // Before the address is free: no port may lead to who has it next.
            self.records.set_ports(uid, Vec::new())?;
            self.filter()?;
        }
        self.links.session(async |session| session.delete(&host_if).await)?;
        self.records.remove(uid)
    }

    pub(super) fn publish(&mut self, uid: &str, ports: Vec<HostPort>) -> Result<(), Error> {
        let Some(pod) = self.records.pods().get(uid) else {
            return Err(Error::NotAttached { uid: uid.to_owned() });
        };
        if pod.ports.is_empty() && ports.is_empty() {
            return Ok(());
        }
        let lose = |(other, pod): (&String, &PodRecord)| {
            let kept: Vec<HostPort> =
                pod.ports.iter().filter(|had| !ports.iter().any(|p| p.collides(had))).copied().collect();
            (other != uid && kept.len() < pod.ports.len()).then(|| (other.clone(), kept))
        };
        for (other, kept) in self.records.pods().iter().filter_map(lose).collect::<Vec<_>>() {
            tracing::warn!(pod = uid, owner = other, "a port of the host leads to another pod from now on");
            self.records.set_ports(&other, kept)?;
        }
        if ports.iter().any(HostPort::is_on_loopback) {
            // What this host sends from its loopback address may leave by the pod's interface; what comes in by it to such an
            // address is dropped (`ports::add`).
            sysctl::set_for_interface("ipv4", &self.config.veth(uid), "route_localnet", "1")?;
        }
        self.records.set_ports(uid, ports)?;
        self.filter()
    }

    pub(super) fn reconcile(&mut self, live: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        let mut removed = Vec::new();
        let mut failure = None;
        let dead: Vec<String> = self.records.pods().keys().filter(|uid| !live.contains(*uid)).cloned().collect();
        for uid in dead {
            match self.detach(&uid) {
                Ok(()) => removed.push(uid),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        let known: BTreeSet<String> = self.records.pods().keys().map(|uid| self.config.veth(uid)).collect();
        match self.delete_veths(|name| !known.contains(name)) {
            Ok(names) => removed.extend(names),
            Err(error) => failure = failure.or(Some(error)),
        }
        failure.map_or(Ok(removed), Err)
    }

    pub(super) fn attachment(&self, uid: &str) -> Option<Attachment> {
        let record = self.records.pods().get(uid)?;
        Some(self.describe(uid, record.ip))
    }

    pub(super) fn purge(&mut self) -> Result<Purged, Error> {
        let mut purged = Purged::default();
        let mut failure = None;
        let mut note = |result: Result<Vec<String>, Error>| match result {
            Ok(removed) => purged.removed.extend(removed),
            Err(error) => failure = failure.take().or(Some(error)),
        };
        note(self.delete_veths(|_| true).map(|names| named("interface", names)));
        let anchor = self.config.anchor();
        let range = self.config.pod_cidr;
        note(self.links.session(async |session| {
            let gone = session.delete_unreachable(&range).await?;
            Ok(if gone { vec![format!("unreachable route {range}")] } else { Vec::new() })
        }));
        note(self.links.session(async |session| {
            let gone = session.delete(&anchor).await?;
            Ok(if gone { vec![format!("interface {anchor}")] } else { Vec::new() })
        }));
        note(self.delete_table());
        let others = self.links.session(async |session| {
            let links = session.links().await?;
            Ok(links.iter().any(|link| link.name.starts_with(ANCHOR_PREFIX) && link.name != anchor))
        });
        match others {
            Ok(others) => {
                for (path, before) in self.records.node().sysctls.clone() {
                    if others {
                        purged.left.push(format!("{} as it is: another Coracle network uses it", path.display()));
                    } else if let Err(source) = std::fs::write(&path, &before) {
                        let error = Error::Sysctl { path, value: "its former value", source };
                        failure = failure.or(Some(error));
                    } else {
                        purged.removed.push(format!("{} set back to {before}", path.display()));
                    }
                }
            }
            Err(error) => failure = failure.or(Some(error)),
        }
        if failure.is_none() {
            self.records.purge()?;
        }
        failure.map_or(Ok(purged), Err)
    }

    /// The pod's recorded address, or a new one, on record before anything is made with it.
    fn allocate(&mut self, uid: &str) -> Result<Attachment, Error> {
        if let Some(attachment) = self.attachment(uid) {
            return Ok(attachment);
        }
        let interface = self.config.veth(uid);
        if let Some(owner) = self.records.pods().keys().find(|other| self.config.veth(other) == interface) {
            return Err(Error::NameTaken { interface, uid: uid.to_owned(), owner: owner.clone() });
        }
        let range = self.config.pod_cidr;
        let ip = ipam::next(&range, self.records.last(), &self.records.taken())
            .ok_or_else(|| Error::Exhausted { pod_cidr: range, capacity: ipam::capacity(&range) })?;
        self.records.insert(uid, PodRecord { ip, ports: Vec::new() })?;
        Ok(self.describe(uid, ip))
    }

    fn describe(&self, uid: &str, ip: Ipv4Addr) -> Attachment {
        let mac = pod_mac(ip).map(|byte| format!("{byte:02x}")).join(":");
        Attachment { ip, gateway: self.config.gateway(), mac, host_if: self.config.veth(uid) }
    }

    fn delete_veths(&self, unwanted: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
        let prefix = self.config.veth_prefix();
        self.links.session(async |session| {
            let mut removed = Vec::new();
            for link in session.links().await? {
                if link.name.starts_with(&prefix) && unwanted(&link.name) && session.delete(&link.name).await? {
                    removed.push(link.name);
                }
            }
            Ok(removed)
        })
    }

    /// Makes the host forward packets, and remembers if it did not.
    fn forward(&mut self) -> Result<(), Error> {
        let path = PathBuf::from(sysctl::IP_FORWARD);
        if let Some(before) = sysctl::set(&path, "1")? {
            let mut node = self.records.node().clone();
            node.sysctls.entry(path).or_insert(before);
            self.records.set_node(node)?;
        }
        Ok(())
    }

    /// Takes away what belongs to a range this node had before: its route, and pods' addresses in it.
    fn forget_other_range(&mut self) -> Result<(), Error> {
        let range = self.config.pod_cidr;
        if let Some(old) = self.records.node().pod_cidr.filter(|old| *old != range) {
            self.links.session(async |session| session.delete_unreachable(&old).await)?;
        }
        let outside: Vec<String> = self
            .records
            .pods()
            .iter()
            .filter(|(_, record)| !range.contains(record.ip))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in outside {
            tracing::warn!(pod = uid, pod_cidr = %range, "detaching a pod whose address is outside the pod CIDR");
            self.detach(&uid)?;
        }
        let node = NodeRecord { pod_cidr: Some(range), ..self.records.node().clone() };
        self.records.set_node(node)
    }

    /// Replaces the table in one transaction.
    fn filter(&self) -> Result<(), Error> {
        let table = self.table();
        let mut batch = Batch::new();
        batch.replace_table(&table);
        let chain = Chain::base(&table, "postrouting", ChainKind::Nat, Hook::Postrouting, Hook::SOURCE_NAT);
        let published = self.records.pods().values().filter(|pod| !pod.ports.is_empty());
        let published: Vec<(Ipv4Addr, &[HostPort])> = published.map(|pod| (pod.ip, pod.ports.as_slice())).collect();
        if self.config.masquerade || !published.is_empty() {
            batch.add_chain(&chain);
        }
        ports::add(&mut batch, &table, &chain, &published);
        if self.config.masquerade {
            let rule = Rule::new()
                .source(&self.config.pod_cidr)
                .destination_not(&self.config.pod_cidr)
                .destination_not(&self.config.cluster_cidr)
                .counter()
                .masquerade();
            batch.add_rule(&chain, &rule);
        }
        Ok(batch.commit()?)
    }

    fn delete_table(&self) -> Result<Vec<String>, Error> {
        let table = self.table();
        let mut batch = Batch::new();
        batch.delete_table(&table);
        match batch.commit() {
            Ok(()) => Ok(vec![format!("nftables table {}", self.config.table())]),
            Err(NftError::Refused { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn table(&self) -> Table {
        Table::new(Family::Ipv4, &self.config.table())
    }
}

/// Runs requests in another network namespace, on a thread that ends with them: a thread that cannot come back is no harm.
fn in_namespace<T: Send>(
    name: &str,
    netns: BorrowedFd<'_>,
    work: impl AsyncFnOnce(&crate::link::Session) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let wrap = |source| Error::Namespace { namespace: name.to_owned(), source };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("pod-network".into()).spawn_scoped(scope, || {
            setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| wrap(errno.into()))?;
            Links::new()?.session(work)
        });
        match thread.map_err(wrap)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Locally administered and derived from the address, so that it is the same after a restart.
fn pod_mac(ip: Ipv4Addr) -> Mac {
    let [a, b, c, d] = ip.octets();
    [0x02, 0xc0, a, b, c, d]
}

/// The same for all pods of a node: each sees only its own end of its own pair.
fn host_mac(gateway: Ipv4Addr) -> Mac {
    let [a, b, c, d] = gateway.octets();
    [0x02, 0xc1, a, b, c, d]
}

fn named(kind: &str, names: Vec<String>) -> Vec<String> {
    names.into_iter().map(|name| format!("{kind} {name}")).collect()
}

/// Refuses a range the host already uses. Default routes, and halves of the address space as VPN clients set them, are no
/// use of a range; neither is what this cluster's own network made.
fn check_overlap(config: &Config, routes: &[Route], names: &BTreeMap<u32, String>) -> Result<(), Error> {
    let anchor = config.anchor();
    let prefix = config.veth_prefix();
    let ours = |name: &str| name == anchor || name.starts_with(&prefix);
    let anchored = names.values().any(|name| *name == anchor);
    for route in routes {
        if route.to.prefix() <= 1 || !route.to.overlaps(&config.pod_cidr) {
            continue;
        }
        let device = route.device.and_then(|index| names.get(&index)).map(String::as_str);
        let own_range = route.ours && route.kind == RouteType::Unreachable;
        // Without the gateway's device the unreachable route is what an interrupted purge left, or another's.
        if device.is_some_and(ours) || (own_range && (anchored || route.to == config.pod_cidr)) {
            continue;
        }
        return Err(Error::Overlap {
            pod_cidr: config.pod_cidr,
            existing: route.to,
            device: device.map_or_else(|| format!("a route of kind {:?}", route.kind).to_lowercase(), str::to_owned),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_in_use_elsewhere_is_refused_and_our_own_is_not() {
        let config = Config {
            mark: "t".into(),
            pod_cidr: "10.42.0.0/24".parse().unwrap(),
            cluster_cidr: "10.42.0.0/16".parse().unwrap(),
            mtu: None,
            state_dir: PathBuf::new(),
            masquerade: true,
        };
        let names: BTreeMap<u32, String> = [(1, "lo"), (2, "eth0"), (3, "cor-t"), (4, "ct-12345678"), (5, "cor-u")]
            .into_iter()
            .map(|(index, name)| (index, name.to_owned()))
            .collect();
        let check = |to: &str, device: Option<u32>, kind, ours| {
            let route = Route { to: to.parse().unwrap(), device, kind, ours };
            check_overlap(&config, &[route], &names).map_err(|error| error.to_string())
        };
        assert_eq!(check("10.42.0.1/32", Some(3), RouteType::Local, false), Ok(()));
        assert_eq!(check("10.42.0.2/32", Some(4), RouteType::Unicast, true), Ok(()));
        assert_eq!(check("10.42.0.0/24", None, RouteType::Unreachable, true), Ok(()));
        assert_eq!(check("0.0.0.0/1", Some(2), RouteType::Unicast, false), Ok(()));
        assert_eq!(check("192.168.0.0/16", Some(2), RouteType::Unicast, false), Ok(()));
        assert_eq!(
            check("10.42.0.0/16", Some(2), RouteType::Unicast, false).unwrap_err(),
            "pod CIDR 10.42.0.0/24 overlaps with 10.42.0.0/16 on eth0, which this host already uses: choose another range"
        );
        assert!(check("10.42.0.1/32", Some(5), RouteType::Local, false).is_err());
        assert!(check("10.0.0.0/8", None, RouteType::BlackHole, false).is_err());
    }
}
