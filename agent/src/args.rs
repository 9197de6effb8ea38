//! The command line of a node that joins a cluster, and the [`Config`] it fills.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use coracle_network::Ipv4Net;
use coracle_proto::join_token::JoinToken;
use coracle_runtime::image::Registries;
use k8s_openapi::api::core::v1::Taint;

use crate::config::{Config, Serving};

/// Runs one node of a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The API server, as in https://192.0.2.1:6443.
    #[arg(long, env = "CORACLE_SERVER")]
    pub server: String,
    /// A join token, as `coracle token create` prints it.
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    pub token: JoinToken,
    /// The node's name.
    #[arg(long, env = "CORACLE_NODE_NAME")]
    pub node_name: String,
    /// The address other nodes and the API server reach this node at.
    #[arg(long, env = "CORACLE_NODE_IP")]
    pub node_ip: IpAddr,
    /// Where images, volumes and logs are kept.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
    /// Where sockets and records are kept.
    #[arg(long, env = "CORACLE_RUN_DIR", default_value = "/run/coracle")]
    pub run_dir: PathBuf,
    /// Where the node's server listens.
    #[arg(long, env = "CORACLE_NODE_LISTEN", default_value = "0.0.0.0:10250")]
    pub node_listen: SocketAddr,
    /// The range this node's pods get addresses from.
    #[arg(long, env = "CORACLE_NODE_POD_CIDR")]
    pub node_pod_cidr: Ipv4Net,
    /// The range all pods of the cluster live in.
    #[arg(long, env = "CORACLE_POD_CIDR", default_value = "10.42.0.0/16")]
    pub pod_cidr: Ipv4Net,
    /// The cluster's domain.
    #[arg(long, env = "CORACLE_DNS_DOMAIN", default_value = "cluster.local")]
    pub dns_domain: String,
    /// A label of the node, as in key=value; may be given again.
    #[arg(long = "label", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// A taint of the node, as in key=value:NoSchedule; may be given again.
    #[arg(long = "taint", value_parser = taint)]
    pub taints: Vec<Taint>,
    /// How many processes and threads one pod may have; `none` for no limit.
    #[arg(long, env = "CORACLE_POD_PIDS_LIMIT", default_value_t = PidsLimit::default())]
    pub pod_pids_limit: PidsLimit,
    /// Leave pods running when the agent ends.
    #[arg(long, env = "CORACLE_KEEP_PODS")]
    pub keep_pods: bool,
}

/// How many processes and threads one pod may have.
///
/// Kubelet limits a pod to what the whole node may have unless it is told otherwise; a pod that forks without end then leaves
/// nothing to fork a shell with. 4096 is more than a server with a thread a connection has, and an eighth of the fewest a
/// kernel counts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidsLimit(pub Option<u32>);

impl Default for PidsLimit {
    fn default() -> Self {
        Self(Some(4096))
    }
}

impl std::fmt::Display for PidsLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(limit) => limit.fmt(f),
            None => f.write_str("none"),
        }
    }
}

impl std::str::FromStr for PidsLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        /// A pod has a supervisor, a first process and at least one to look at it with.
        const FEWEST: u32 = 8;
        match text {
            "none" => Ok(Self(None)),
            number => match number.parse() {
                Ok(limit) if limit >= FEWEST => Ok(Self(Some(limit))),
                _ => Err(format!("{text:?} must be `none` or a number from {FEWEST} on")),
            },
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is written key=value")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    let (what, effect) = text.rsplit_once(':').ok_or("a taint is written key=value:Effect")?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(format!("effect {effect:?} must be NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, value) = what.split_once('=').map_or((what, None), |(k, v)| (k, Some(v.to_owned())));
    Ok(Taint { key: key.to_owned(), value, effect: effect.to_owned(), time_added: None })
}

impl Args {
    /// The configuration of a node that has joined; its supervisors are this very program.
    #[must_use]
    pub fn config(&self, serving: Serving, registries: Registries) -> Config {
        let mark = "node".to_owned();
        Config {
            node_name: self.node_name.clone(),
            data_dir: self.data_dir.clone(),
            run_dir: self.run_dir.clone(),
            listen: self.node_listen,
            node_ip: self.node_ip,
            labels: self.labels.iter().cloned().collect::<BTreeMap<_, _>>(),
            taints: self.taints.clone(),
            pod_cidr: self.node_pod_cidr,
            cluster_cidr: self.pod_cidr,
            cluster_dns: Vec::new(),
            cluster_domain: self.dns_domain.clone(),
            serving,
            registries,
            keep_pods: self.keep_pods,
            supervisor: PathBuf::from("/proc/self/exe"),
            supervisor_args: vec![coracle_runtime::SUPERVISE.into()],
            cgroup_root: PathBuf::from(format!("coracle-{mark}")),
            mark,
            max_pods: 110,
            pod_pids_limit: self.pod_pids_limit.0,
            lease_renewal: crate::LEASE_RENEWAL,
            mtu: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_taints_are_read_as_people_write_them() {
        assert_eq!(label("disk=ssd"), Ok(("disk".into(), "ssd".into())));
        assert!(label("disk").is_err());
        let got = taint("a/b=c:NoSchedule").unwrap();
        assert_eq!((got.key.as_str(), got.value.as_deref(), got.effect.as_str()), ("a/b", Some("c"), "NoSchedule"));
        assert_eq!(taint("a:NoExecute").unwrap().value, None);
        assert!(taint("a=b:Never").is_err() && taint("a").is_err());
    }

    #[test]
    fn a_limit_of_processes_is_a_number_or_none() {
        for limit in [PidsLimit::default(), PidsLimit(None), PidsLimit(Some(8))] {
            assert_eq!(limit.to_string().parse(), Ok(limit));
        }
        for wrong in ["", "-1", "0", "7", "many", "4294967296"] {
            assert!(wrong.parse::<PidsLimit>().is_err(), "{wrong}");
        }
    }
}
