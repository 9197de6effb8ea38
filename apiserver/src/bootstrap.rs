//! The first objects of a cluster, made when they are missing.

use std::net::SocketAddr;

use k8s_openapi::{
    api::core::v1::{Namespace, Service, ServicePort, ServiceSpec},
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use crate::{
    config::Config,
    registry::{Registry, Writer},
    status_of::Result,
    user::User,
};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Writes what is missing.
///
/// # Errors
/// The first refusal; what is there already is none.
pub(crate) async fn run(registry: &Registry, config: &Config, address: SocketAddr) -> Result<()> {
    let writer = Writer::new(User::new("system:apiserver", &["system:masters"]));
    for name in NAMESPACES {
        if registry.get_typed::<Namespace>("", name)?.is_none() {
            let metadata = ObjectMeta { name: Some((*name).to_owned()), ..ObjectMeta::default() };
            let namespace = Namespace { metadata, ..Namespace::default() };
            registry.create_typed("", namespace, &writer).await?;
        }
    }
    if registry.get_typed::<Service>("default", "kubernetes")?.is_none() {
        registry.create_typed("default", own_service(config, address), &writer).await?;
    }
    Ok(())
}

/// The Service by which pods reach this server.
fn own_service(config: &Config, address: SocketAddr) -> Service {
    let labels = [("component", "apiserver"), ("provider", "kubernetes")];
    Service {
        metadata: ObjectMeta {
            name: Some("kubernetes".to_owned()),
            namespace: Some("default".to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
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
