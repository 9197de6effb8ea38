//! What is written in the same transaction as an object: a namespace's own first objects, a Service's address and ports.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use coracle_proto::{
    field::{self, Path},
    status::Status,
};
use coracle_store::{Compare, Op, Range};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Service, ServiceAccount, ServicePort},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use super::{Registry, Writer};
use crate::{
    kinds::service::{needs_health_check, wants_node_ports},
    ops::{AnyObject, KindOps},
    status_of::{self, Result},
    stored,
};

/// The ports that nodes open for Services.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The ConfigMap by which pods know the API server.
const ROOT_CA: &str = "kube-root-ca.crt";

/// Further comparisons and steps of a transaction.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) compare: Vec<Compare>,
    pub(super) then: Vec<Op>,
}

impl Beside {
    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.compare.extend(other.compare);
        self.then.extend(other.then);
        self
    }

    fn take(&mut self, key: String, owner: &str) {
        self.compare.push(Compare::absent(key.clone()));
        self.then.push(Op::put(key, owner.to_owned()));
    }
}

fn port_key(port: i32) -> String {
    format!("/allocated/ports/{port}")
}

fn ports_of(service: &Service) -> BTreeSet<i32> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let health = service.spec.as_ref().and_then(|spec| spec.health_check_node_port);
    ports.iter().filter_map(|port| port.node_port).chain(health).filter(|port| *port > 0).collect()
}

pub(super) fn invalid(service: &Service, error: field::Error) -> Box<Status> {
    Box::new(Status::invalid("", "Service", service.metadata.name.as_deref().unwrap_or_default(), &[error]))
}

impl Registry {
    /// What goes with writing `new` over `old`; no `new` for a removal. It may complete the object.
    pub(super) fn beside(
        &self,
        kind: &dyn KindOps,
        new: Option<&mut dyn AnyObject>,
        old: Option<&dyn AnyObject>,
        writer: &Writer,
    ) -> Result<Beside> {
        let resource = kind.resource();
        match (resource.group, resource.plural) {
            ("", "namespaces") if old.is_none() => {
                let name = new.and_then(|n| n.as_any().downcast_ref::<Namespace>()?.metadata.name.clone());
                name.map_or_else(|| Ok(Beside::default()), |name| self.first_objects(&name, writer))
            }
            ("", "services") => {
                let new = new.and_then(|n| n.as_any_mut().downcast_mut::<Service>());
                let old = old.and_then(|o| o.as_any().downcast_ref::<Service>());
                self.service_numbers(new, old, writer)
            }
            _ => Ok(Beside::default()),
        }
    }

    /// A namespace is never seen without its default ServiceAccount and the cluster's root certificate.
    fn first_objects(&self, namespace: &str, writer: &Writer) -> Result<Beside> {
        let mut beside = Beside::default();
        let meta = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            uid: Some(uuid::Uuid::new_v4().to_string()),
            creation_timestamp: Some(Time(writer.now)),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount { metadata: meta("default"), ..ServiceAccount::default() };
        let data = [("ca.crt".to_owned(), self.facts.root_ca.to_string())].into();
        let mut certificate = ConfigMap { metadata: meta(ROOT_CA), data: Some(data), ..ConfigMap::default() };
        let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
        let note = [("kubernetes.io/description".to_owned(), description.to_owned())];
        certificate.metadata.annotations = Some(note.into());
        let encoded = [
            (stored::key("serviceaccounts", namespace, "default"), serde_json::to_vec(&account)),
            (stored::key("configmaps", namespace, ROOT_CA), serde_json::to_vec(&certificate)),
        ];
        for (key, value) in encoded {
            let value: Bytes = value.map_err(|error| status_of::broken("an object cannot be encoded", &error))?.into();
            // What an earlier namespace of this name may have left is replaced, but only as it was seen.
            beside.compare.push(match self.store.get(&key) {
                Some(left) => Compare::unchanged(key.clone(), left.mod_revision),
                None => Compare::absent(key.clone()),
            });
            beside.then.push(Op::put(key, value));
        }
        Ok(beside)
    }

    fn allocated(&self, prefix: &'static str) -> Result<BTreeSet<String>> {
        let found = self.store.range(&Range::prefix(prefix)).map_err(|error| status_of::store(&error))?;
        let name = |key: &[u8]| String::from_utf8_lossy(key.get(prefix.len()..).unwrap_or_default()).into_owned();
        Ok(found.entries.iter().map(|entry| name(&entry.key)).collect())
    }

    /// Gives a Service its address and node ports, and takes back what it no longer has.
    fn service_numbers(&self, mut new: Option<&mut Service>, old: Option<&Service>, writer: &Writer) -> Result<Beside> {
        let mut beside = self.service_address(new.as_deref_mut(), old, writer)?;
        let had_ports = old.map(ports_of).unwrap_or_default();
        let mut has_ports = BTreeSet::new();
        if let Some(service) = new {
            let owner = format!(
                "{}/{}",
                service.metadata.namespace.as_deref().unwrap_or_default(),
                service.metadata.name.as_deref().unwrap_or_default()
            );
            self.fill_ports(service)?;
            has_ports = ports_of(service);
            for port in has_ports.difference(&had_ports) {
                self.check_port(service, *port)?;
                beside.take(port_key(*port), &owner);
            }
        }
        for port in had_ports.difference(&has_ports) {
            beside.then.push(Op::delete(port_key(*port)));
        }
        Ok(beside)
    }

    fn check_port(&self, service: &Service, port: i32) -> Result<()> {
        let index =
            service.spec.as_ref().and_then(|spec| spec.ports.as_ref()?.iter().position(|p| p.node_port == Some(port)));
        let path = match index {
            Some(index) => Path::new("spec").child("ports").index(index).child("nodePort"),
            None => Path::new("spec").child("healthCheckNodePort"),
        };
        let refuse = |why: &str| Err(invalid(service, field::Error::invalid(&path, port, why)));
        if !u16::try_from(port).is_ok_and(|port| NODE_PORTS.contains(&port)) {
            return refuse("provided port is not in the valid range. The range of valid ports is 30000-32767");
        }
        if self.store.get(port_key(port).as_bytes()).is_some() {
            return refuse("provided port is already allocated");
        }
        Ok(())
    }

    fn fill_ports(&self, service: &mut Service) -> Result<()> {
        let taken = self.allocated("/allocated/ports/")?;
        let mut mine = ports_of(service);
        let full = || {
            let path = Path::new("spec").child("ports").index(0).child("nodePort");
            let error = field::Error::invalid(&path, 0, "failed to allocate a nodePort: range is full");
            Box::new(Status::invalid("", "Service", "", &[error]))
        };
        let Some(spec) = &mut service.spec else { return Ok(()) };
        // Ports that are told apart by their protocols alone are reached at the same number.
        let mut given: Vec<(i32, String, i32)> = Vec::new();
        let protocol = |port: &ServicePort| port.protocol.clone().unwrap_or_default();
        let wants = wants_node_ports(spec);
        let ports = spec.ports.as_deref_mut().filter(|_| wants).unwrap_or_default();
        given.extend(
            ports.iter().filter_map(|port| Some((port.port, protocol(port), port.node_port.filter(|n| *n > 0)?))),
        );
        let mut free = || {
            let count = u32::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
            let first = rand::random_range(0..count);
            let found = (0..count)
                .filter_map(|step| i32::try_from(u32::from(*NODE_PORTS.start()) + (first + step) % count).ok())
                .find(|port| !taken.contains(&port.to_string()) && !mine.contains(port))
                .ok_or_else(full)?;
            mine.insert(found);
            Ok::<_, Box<Status>>(found)
        };
        for port in ports.iter_mut().filter(|port| port.node_port.unwrap_or(0) == 0) {
            let is_shared = |other: &&(i32, String, i32)| {
                other.0 == port.port
                    && other.1 != protocol(port)
                    && !given.iter().any(|one| one.2 == other.2 && one.1 == protocol(port))
            };
            let number = match given.iter().find(is_shared) {
                Some(other) => other.2,
                None => free()?,
            };
            given.push((port.port, protocol(port), number));
            port.node_port = Some(number);
        }
        if needs_health_check(spec) && spec.health_check_node_port.unwrap_or(0) == 0 {
            spec.health_check_node_port = Some(free()?);
        }
        Ok(())
    }
}

/// What the registry must know of the cluster.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The authority's certificate, as PEM.
    pub root_ca: Arc<str>,
    /// Addresses of Services.
    pub service_cidr: crate::config::Cidr,
    /// How long a list can be read on page by page as it was at its beginning.
    pub pages: std::time::Duration,
}
