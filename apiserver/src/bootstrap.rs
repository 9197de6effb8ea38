//! The first objects of a cluster, made when they are missing.

pub(crate) mod api_services;
pub(crate) mod own_address;

use std::{collections::BTreeMap, net::SocketAddr};

use futures::future::try_join_all;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Service, ServicePort, ServiceSpec},
        networking::v1::{ServiceCIDR, ServiceCIDRSpec},
        scheduling::v1::PriorityClass,
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use crate::{
    aggregation::identity,
    config::Config,
    kind::Object,
    kinds::{flow_defaults, priority_class},
    pki::{FRONT_PROXY, Pki},
    registry::{Registry, Writer},
    status_of::Result,
    user::User,
};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// The Service, the slice and the range by which the cluster knows its own API server.
const OWN: &str = "kubernetes";

/// The ConfigMap that tells aggregated API servers whom to trust.
const TRUST: &str = "extension-apiserver-authentication";

/// Writes what is missing.
///
/// # Errors
/// The first refusal; what is there already is none.
pub(crate) async fn run(registry: &Registry, config: &Config, address: SocketAddr, pki: &Pki) -> Result<()> {
    let writer = self_writer();
    ensure(
        registry,
        NAMESPACES.iter().map(|name| Namespace { metadata: named(name, None), ..Namespace::default() }),
        &writer,
    )
    .await?;
    ensure(registry, [own_range(config)], &writer).await?;
    // Among several servers others write meanwhile, and what each writes is whole.
    let is_only = is_only(registry);
    if is_only {
        registry.repair_addresses(&writer).await?;
    }
    ensure(registry, [own_service(config, address)], &writer).await?;
    if let Some(ip) = own_address::known(config, address).filter(|_| is_only) {
        own_address::publish(registry, &[SocketAddr::new(ip, address.port())].into(), &writer).await?;
    }
    ensure(registry, priority_classes(), &writer).await?;
    ensure(registry, flow_defaults::levels(), &writer).await?;
    ensure(registry, flow_defaults::schemas(), &writer).await?;
    ensure(registry, api_services::all(), &writer).await?;
    keep_trust(registry, pki, &writer).await
}

/// Whether this is the cluster's only server; of several the one that leads says where they are (`servers::endpoints`).
fn is_only(registry: &Registry) -> bool {
    registry.store().cluster().members.len() <= 1
}

/// The server itself, as a writer.
pub(crate) fn self_writer() -> Writer {
    Writer::new(User::new("system:apiserver", &["system:masters"]))
}

/// Has the Service `kubernetes` lead to `ip`, for a server that was not told where others reach it and listens everywhere.
///
/// # Errors
/// The first refusal.
pub(crate) async fn reached_at(
    registry: &Registry,
    config: &Config,
    address: SocketAddr,
    ip: std::net::IpAddr,
) -> Result<()> {
    let is_told = own_address::known(config, address).is_some();
    if is_told || !is_only(registry) || !address.ip().is_unspecified() || !own_address::is_reachable(&ip) {
        return Ok(());
    }
    own_address::publish(registry, &[SocketAddr::new(ip, address.port())].into(), &self_writer()).await
}

/// Creates those that are not there, all at once so that they share the store's group commits.
async fn ensure<T: Object>(registry: &Registry, objects: impl IntoIterator<Item = T>, writer: &Writer) -> Result<()> {
    let mut missing = Vec::new();
    for object in objects {
        let meta = object.metadata();
        let (namespace, name) = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        if registry.get_typed::<T>(&namespace, &name)?.is_none() {
            missing.push(async move {
                match registry.create_typed(&namespace, object, writer).await {
                    // Another server was quicker.
                    Err(status) if status.reason == "AlreadyExists" => Ok(()),
                    created => created.map(drop),
                }
            });
        }
    }
    try_join_all(missing).await.map(|_| ())
}

/// By what aggregated API servers know this one and its clients; written anew when it is not so any more.
async fn keep_trust(registry: &Registry, pki: &Pki, writer: &Writer) -> Result<()> {
    let list = |name: &str| format!("[{name:?}]");
    let data: BTreeMap<String, String> = [
        ("client-ca-file", pki.authority().pem().to_owned()),
        ("requestheader-client-ca-file", pki.front_authority_pem().to_owned()),
        ("requestheader-allowed-names", list(FRONT_PROXY)),
        ("requestheader-username-headers", list(identity::USER)),
        ("requestheader-uid-headers", list(identity::UID)),
        ("requestheader-group-headers", list(identity::GROUP)),
        ("requestheader-extra-headers-prefix", list(identity::EXTRA)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    match registry.get_typed::<ConfigMap>("kube-system", TRUST)? {
        None => {
            let metadata = named(TRUST, Some("kube-system"));
            let object = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
            registry.create_typed("kube-system", object, writer).await?;
        }
        Some(known) => {
            let mut new = known.clone();
            new.data.get_or_insert_default().extend(data);
            if new != known {
                registry.update_typed(new, writer).await?;
            }
        }
    }
    Ok(())
}

fn named(name: &str, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: namespace.map(str::to_owned), ..ObjectMeta::default() }
}

fn priority_classes() -> impl Iterator<Item = PriorityClass> {
    priority_class::SYSTEM.iter().map(|(name, value, description)| PriorityClass {
        metadata: named(name, None),
        value: Some(*value),
        description: Some((*description).to_owned()),
        ..PriorityClass::default()
    })
}

/// The range that Services' addresses are from.
fn own_range(config: &Config) -> ServiceCIDR {
    let spec = ServiceCIDRSpec { cidrs: Some(vec![config.service_cidr.to_string()]) };
    ServiceCIDR { metadata: named(OWN, None), spec: Some(spec), ..ServiceCIDR::default() }
}

/// The Service by which pods reach this server.
fn own_service(config: &Config, address: SocketAddr) -> Service {
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    Service {
        metadata: ObjectMeta {
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..named(OWN, Some("default"))
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some(config.service_cidr.nth(1).to_string()),
            type_: Some("ClusterIP".to_owned()),
            ports: Some(vec![ServicePort {
                name: Some("https".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: 443,
                target_port: Some(IntOrString::Int(i32::from(address.port()))),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
