//! The node's flags, and what they and this host amount to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
};

use anyhow::{Context, bail};
use coracle_agent::PidsLimit;
use coracle_network::Ipv4Net;
use k8s_openapi::api::core::v1::Taint;

use crate::{commands::WrongUse, commands::image, instance::Instance};

/// Flags of a node, the same for `up` and `agent`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeArgs {
    /// The node's name; the host's by default.
    #[arg(long, env = "CORACLE_NODE_NAME")]
    pub(crate) node_name: Option<String>,
    /// Where the node serves logs and exec to the API server; port 0 takes a free one.
    #[arg(long, env = "CORACLE_NODE_LISTEN", default_value = "0.0.0.0:10250")]
    pub(crate) node_listen: SocketAddr,
    /// The address others reach this node at; that of the default route by default.
    #[arg(long, env = "CORACLE_NODE_IP")]
    pub(crate) node_ip: Option<IpAddr>,
    /// Range of all pods' addresses.
    #[arg(long, env = "CORACLE_POD_CIDR", default_value = "10.42.0.0/16")]
    pub(crate) pod_cidr: Ipv4Net,
    /// Range of this node's pods; the first /24 of the pods' range by default.
    #[arg(long, env = "CORACLE_NODE_POD_CIDR")]
    pub(crate) node_pod_cidr: Option<Ipv4Net>,
    /// Addresses of the cluster's DNS; without one, pods use the host's resolver.
    #[arg(long, env = "CORACLE_CLUSTER_DNS", value_delimiter = ',')]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// A label of the node, KEY=VALUE; may be repeated.
    #[arg(long, env = "CORACLE_LABEL", value_delimiter = ',', value_parser = label)]
    pub(crate) label: Vec<(String, String)>,
    /// A taint of the node, KEY[=VALUE]:EFFECT; may be repeated.
    #[arg(long, env = "CORACLE_TAINT", value_delimiter = ',', value_parser = taint)]
    pub(crate) taint: Vec<Taint>,
    /// Mirrors, plain-http hosts and credentials of registries.
    #[arg(long, env = "CORACLE_REGISTRIES", value_name = "FILE")]
    pub(crate) registries: Option<PathBuf>,
    /// Leave pods running when this process ends; the next one takes them over.
    #[arg(long, env = "CORACLE_KEEP_PODS")]
    pub(crate) keep_pods: bool,
    /// How many pods may run here at once.
    #[arg(long, env = "CORACLE_MAX_PODS", default_value_t = 110)]
    pub(crate) max_pods: usize,
    /// How many processes and threads one pod may have; `none` for no limit.
    #[arg(long, env = "CORACLE_POD_PIDS_LIMIT", default_value_t = PidsLimit::default())]
    pub(crate) pod_pids_limit: PidsLimit,
}

impl NodeArgs {
    /// The agent's configuration on this host. The certificates are for the caller to fill in.
    pub(crate) fn config(&self, instance: &Instance, dns_domain: &str) -> anyhow::Result<coracle_agent::Config> {
        let node_name = match &self.node_name {
            Some(name) => name.clone(),
            None => hostname()?,
        };
        let faults = coracle_proto::name::dns1123_subdomain(&node_name);
        if let Some(fault) = faults.first() {
            return Err(WrongUse(format!("--node-name {node_name:?}: {fault}")).into());
        }
        let pod_cidr = match self.node_pod_cidr {
            Some(range) => range,
            None => first_of(self.pod_cidr)?,
        };
        Ok(coracle_agent::Config {
            node_name,
            data_dir: instance.agent_dir(),
            run_dir: instance.run_dir(),
            listen: self.node_listen,
            node_ip: self.node_ip.unwrap_or_else(default_address),
            labels: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
            taints: self.taint.clone(),
            pod_cidr,
            cluster_cidr: self.pod_cidr,
            cluster_dns: self.cluster_dns.clone(),
            cluster_domain: dns_domain.to_owned(),
            serving: coracle_agent::Serving {
                certificate: String::new(),
                key: String::new(),
                client_ca: String::new(),
            },
            registries: image::registries(self.registries.as_deref())?,
            keep_pods: self.keep_pods,
            supervisor: PathBuf::from("/proc/self/exe"),
            supervisor_args: vec![coracle_runtime::SUPERVISE.into()],
            cgroup_root: PathBuf::from(format!("coracle-{}", instance.mark())),
            mark: instance.mark(),
            max_pods: self.max_pods,
            pod_pids_limit: self.pod_pids_limit.0,
            lease_renewal: coracle_agent::LEASE_RENEWAL,
            mtu: None,
        })
    }
}

/// The first /24 of a range, or the whole of it if it is no larger.
fn first_of(range: Ipv4Net) -> anyhow::Result<Ipv4Net> {
    Ipv4Net::new(range.network(), range.prefix().max(24)).with_context(|| format!("--pod-cidr {range}"))
}

/// This host's name, as the kernel has it, in lower case as node names are.
pub(crate) fn hostname() -> anyhow::Result<String> {
    let name = nix::unistd::gethostname().context("the host's name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// The address of the interface that the default route leaves by; loopback if there is none. Nothing is sent: connecting
/// a UDP socket only asks the kernel for the route.
pub(crate) fn default_address() -> IpAddr {
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    routed.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// Says at once what only root can do.
pub(crate) fn check_rights() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "a node makes containers, which needs root: run it with sudo, or with --no-agent for the control plane only"
        );
    }
    Ok(())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label looks like KEY=VALUE")?;
    let faults = coracle_proto::name::qualified_name(key).into_iter().chain(coracle_proto::name::label_value(value));
    match faults.into_iter().next() {
        Some(fault) => Err(fault),
        None => Ok((key.to_owned(), value.to_owned())),
    }
}

fn taint(text: &str) -> Result<Taint, String> {
    const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    let (key, effect) = text.rsplit_once(':').ok_or("a taint looks like KEY=VALUE:EFFECT or KEY:EFFECT")?;
    if !EFFECTS.contains(&effect) {
        return Err(format!("the effect of a taint is one of {}", EFFECTS.join(", ")));
    }
    let (key, value) = key.split_once('=').map_or((key, None), |(key, value)| (key, Some(value.to_owned())));
    match coracle_proto::name::qualified_name(key).into_iter().next() {
        Some(fault) => Err(fault),
        None => Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints_are_read_and_refused() {
        assert_eq!(label("disk=ssd"), Ok(("disk".to_owned(), "ssd".to_owned())));
        assert!(label("disk").is_err() && label("-=x").is_err());
        let read = taint("dedicated=db:NoSchedule").unwrap();
        assert_eq!(
            (read.key.as_str(), read.value.as_deref(), read.effect.as_str()),
            ("dedicated", Some("db"), "NoSchedule")
        );
        assert_eq!(taint("dedicated:NoExecute").unwrap().value, None);
        assert!(taint("dedicated:Never").is_err() && taint("dedicated").is_err());
    }

    #[test]
    fn a_node_takes_the_first_part_of_the_pods_range() {
        let range = |text: &str| text.parse::<Ipv4Net>().unwrap();
        assert_eq!(first_of(range("10.42.0.0/16")).unwrap(), range("10.42.0.0/24"));
        assert_eq!(first_of(range("10.42.0.0/26")).unwrap(), range("10.42.0.0/26"));
    }
}
