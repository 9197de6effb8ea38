//! The command line of a node, alone or beside a control plane, and the [`Config`] it fills.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use coracle_network::Ipv4Net;
use coracle_process::WrongUse;
use coracle_proto::quantity::Quantity;
use coracle_runtime::image::{ImageStore, Registries};
use k8s_openapi::api::core::v1::Taint;
use tokio::sync::watch;

use crate::config::{Config, ImageLimits, Serving, ShutdownGrace};
use crate::devices::class::DeviceClass;
use crate::eviction::args::EvictionArgs;
use crate::eviction::threshold::{self, Thresholds};
use crate::node::{machine, reservation};
use crate::place::Place;

/// Flags of a node, the same in every program that runs one.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct NodeArgs {
    /// The node's name; the host's by default.
    #[arg(long, env = "CORACLE_NODE_NAME")]
    pub node_name: Option<String>,
    /// Where the node serves logs and exec to the API server; port 0 takes a free one.
    #[arg(long, env = "CORACLE_NODE_LISTEN", default_value = "0.0.0.0:10250")]
    pub node_listen: SocketAddr,
    /// Serve the Container Runtime Interface (for crictl) on a unix socket, as in unix:///run/coracle/cri.sock.
    #[arg(long, env = "CORACLE_CRI_LISTEN", value_name = "unix://PATH", value_parser = unix_socket)]
    pub cri_listen: Option<PathBuf>,
    /// The address others reach this node at; by default the one it listens on, or that of the default route when it
    /// listens on all.
    #[arg(long, env = "CORACLE_NODE_IP")]
    pub node_ip: Option<IpAddr>,
    /// Range of this node's pods; the one the cluster gives it by default.
    #[arg(long, env = "CORACLE_NODE_POD_CIDR")]
    pub node_pod_cidr: Option<Ipv4Net>,
    /// Addresses of the cluster's DNS; without one, pods use the host's resolver.
    #[arg(long, env = "CORACLE_CLUSTER_DNS", value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// A label of the node, KEY=VALUE; may be repeated.
    #[arg(long, env = "CORACLE_LABEL", value_delimiter = ',', value_parser = label)]
    pub label: Vec<(String, String)>,
    /// A taint of the node, KEY[=VALUE]:EFFECT; may be repeated.
    #[arg(long, env = "CORACLE_TAINT", value_delimiter = ',', value_parser = taint)]
    pub taint: Vec<Taint>,
    /// Mirrors, plain-http hosts and credentials of registries.
    #[arg(long, env = "CORACLE_REGISTRIES", value_name = "FILE")]
    pub registries: Option<PathBuf>,
    /// Directory of the images, which instances on one host may share; DATA_DIR/agent/images by default.
    #[arg(long, env = "CORACLE_IMAGE_STORE", value_name = "DIR")]
    pub image_store: Option<PathBuf>,
    /// Directory of the manifests of static pods, which run whether or not the API server can be reached;
    /// DATA_DIR/manifests by default.
    #[arg(long, env = "CORACLE_MANIFEST_DIR", value_name = "DIR")]
    pub manifest_dir: Option<PathBuf>,
    /// Leave pods running when this process ends; the next one takes them over.
    #[arg(long, env = "CORACLE_KEEP_PODS")]
    pub keep_pods: bool,
    /// Seconds all pods together get to end when the machine goes down, which SIGPWR tells; 0 is not listening for it.
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD", value_name = "SECONDS", default_value_t = 0)]
    pub shutdown_grace_period: u32,
    /// Seconds of these that are for critical pods, which end last.
    #[arg(long, env = "CORACLE_SHUTDOWN_GRACE_PERIOD_CRITICAL_PODS", value_name = "SECONDS", default_value_t = 0)]
    pub shutdown_grace_period_critical_pods: u32,
    /// How many pods may run here at once.
    #[arg(long, env = "CORACLE_MAX_PODS", default_value_t = 110)]
    pub max_pods: usize,
    /// How many processes and threads one pod may have; `none` for no limit.
    #[arg(long, env = "CORACLE_POD_PIDS_LIMIT", default_value_t = PidsLimit::default())]
    pub pod_pids_limit: PidsLimit,
    /// Hundredths of the disk from which on images nobody uses are removed; 100 for never.
    #[arg(long, env = "CORACLE_IMAGE_GC_HIGH_THRESHOLD", value_name = "PERCENT", default_value_t = ImageLimits::USUAL.high,
        value_parser = clap::value_parser!(u64).range(1..=100))]
    pub image_gc_high_threshold: u64,
    /// Hundredths of the disk down to which they are removed.
    #[arg(long, env = "CORACLE_IMAGE_GC_LOW_THRESHOLD", value_name = "PERCENT", default_value_t = ImageLimits::USUAL.low,
        value_parser = clap::value_parser!(u64).range(0..=99))]
    pub image_gc_low_threshold: u64,
    /// How long an image is here at least before it is removed for that.
    #[arg(long, env = "CORACLE_IMAGE_MINIMUM_GC_AGE", value_name = "DURATION", default_value = "2m",
        value_parser = threshold::duration)]
    pub image_minimum_gc_age: Duration,
    /// When pods are sent away for want of something.
    #[command(flatten)]
    pub eviction: EvictionArgs,
    /// Kernel parameters pods may set besides the safe ones, as in `net.ipv4.conf.*`.
    #[arg(long, env = "CORACLE_ALLOWED_UNSAFE_SYSCTLS", value_delimiter = ',', value_parser = sysctl)]
    pub allowed_unsafe_sysctls: Vec<String>,
    /// What of the machine is for the system and not for pods, as in
    /// cpu=200m,memory=500Mi,ephemeral-storage=1Gi,pid=1000.
    #[arg(long, env = "CORACLE_SYSTEM_RESERVED", value_name = "RESOURCE=AMOUNT", value_delimiter = ',', value_parser = reserved)]
    pub system_reserved: Vec<(String, i128)>,
    /// What of it is for Coracle itself, likewise.
    #[arg(long, env = "CORACLE_KUBE_RESERVED", value_name = "RESOURCE=AMOUNT", value_delimiter = ',', value_parser = reserved)]
    pub kube_reserved: Vec<(String, i128)>,
    /// How many images may be pulled at once; 1 for one after the other.
    #[arg(long, env = "CORACLE_MAX_PARALLEL_IMAGE_PULLS", value_name = "NUMBER", default_value_t = 3,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub max_parallel_image_pulls: u16,
    /// Devices that pods may request by a name, as in home.example/zigbee=/dev/serial/by-id/usb-*; may be repeated.
    #[arg(long, env = "CORACLE_DEVICE", value_name = "NAME=/dev/PATH", value_delimiter = ',')]
    pub device: Vec<DeviceClass>,
}

/// A kernel parameter's name, or the beginning of some.
fn sysctl(text: &str) -> Result<String, String> {
    let name = text.replace('/', ".");
    let plain = name.strip_suffix(".*").unwrap_or(&name);
    let fits = !plain.is_empty()
        && plain.split('.').all(|p| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)));
    if fits {
        Ok(name)
    } else {
        Err(format!("{text:?} must be a kernel parameter, as in net.core.somaxconn or net.ipv4.*"))
    }
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

/// What a node must know of its cluster and is not told by it.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The range all pods of the cluster live in.
    pub pod_cidr: Ipv4Net,
    /// The cluster's DNS domain.
    pub dns_domain: String,
}

impl NodeArgs {
    /// The node's name: as told, or else `kept`, or else the host's.
    ///
    /// # Errors
    /// [`WrongUse`] when it is no name for a node.
    pub fn name(&self, kept: Option<&str>) -> Result<String, WrongUse> {
        let name = match (&self.node_name, kept) {
            (Some(name), _) => name.clone(),
            (None, Some(kept)) => kept.to_owned(),
            (None, None) => hostname()?,
        };
        match coracle_proto::name::dns1123_subdomain(&name).first() {
            Some(fault) => Err(WrongUse(format!("--node-name {name:?}: {fault}"))),
            None => Ok(name),
        }
    }

    /// The address others reach the node at: as told, or else the one address it serves at, or else the default route's.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        let serves = Some(self.node_listen.ip()).filter(|ip| !ip.is_unspecified());
        self.node_ip.or(serves).unwrap_or_else(default_address)
    }

    /// What is not for pods, in thousandths.
    fn reserved(&self) -> BTreeMap<String, i128> {
        let mut sum = BTreeMap::<String, i128>::new();
        for (name, amount) in self.system_reserved.iter().chain(&self.kube_reserved) {
            let total = sum.entry(name.clone()).or_default();
            *total = total.saturating_add(*amount);
        }
        sum
    }

    /// How long pods get when the machine goes down.
    fn shutdown_grace(&self) -> Result<Option<ShutdownGrace>, WrongUse> {
        let (all, critical) = (self.shutdown_grace_period, self.shutdown_grace_period_critical_pods);
        let Some(ordinary) = all.checked_sub(critical) else {
            return Err(WrongUse(format!(
                "--shutdown-grace-period-critical-pods {critical} must be <= --shutdown-grace-period {all}"
            )));
        };
        let seconds = |number: u32| Duration::from_secs(number.into());
        Ok((all > 0).then(|| ShutdownGrace { ordinary: seconds(ordinary), critical: seconds(critical) }))
    }

    /// The configuration of the node `name` on this host. Its supervisors are the running program.
    ///
    /// # Errors
    /// [`WrongUse`] when the file of registries, the limits of images or their directory cannot be used, or when more is
    /// reserved than this machine has.
    pub fn config(
        &self,
        place: &Place,
        name: String,
        around: &Surroundings,
        serving: watch::Receiver<Serving>,
    ) -> Result<Config, WrongUse> {
        let mark = place.mark();
        let reserved = self.reserved();
        let thresholds = self.eviction.thresholds()?;
        check_reserved(place.data_dir(), &thresholds, &reserved)?;
        let (high, low, age) = (self.image_gc_high_threshold, self.image_gc_low_threshold, self.image_minimum_gc_age);
        if low >= high {
            return Err(WrongUse(format!(
                "--image-gc-low-threshold {low} must be below --image-gc-high-threshold {high}"
            )));
        }
        Ok(Config {
            node_name: name,
            images_dir: match &self.image_store {
                Some(dir) => image_store(dir)?,
                None => place.images_dir(),
            },
            data_dir: place.agent_dir(),
            run_dir: place.run_dir(),
            manifest_dir: Some(self.manifest_dir.clone().unwrap_or_else(|| place.data_dir().join("manifests"))),
            listen: self.node_listen,
            cri_listen: self.cri_listen.clone(),
            node_ip: self.address(),
            labels: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
            taints: self.taint.clone(),
            pod_cidr: self.node_pod_cidr,
            cluster_cidr: around.pod_cidr,
            cluster_dns: self.cluster_dns.clone(),
            cluster_domain: around.dns_domain.clone(),
            serving,
            registries: registries(self.registries.as_deref())?,
            keep_pods: self.keep_pods,
            shutdown_grace: self.shutdown_grace()?,
            supervisor: PathBuf::from("/proc/self/exe"),
            supervisor_args: vec![coracle_runtime::SUPERVISE.into()],
            cgroup_root: PathBuf::from(format!("coracle-{mark}")),
            mark,
            max_pods: self.max_pods,
            pod_pids_limit: self.pod_pids_limit.0,
            allowed_unsafe_sysctls: self.allowed_unsafe_sysctls.clone(),
            devices: self.device.clone(),
            reserved,
            pulls: usize::from(self.max_parallel_image_pulls),
            image_limits: ImageLimits { high, low, age },
            thresholds,
            lease_renewal: crate::LEASE_RENEWAL,
            mtu: None,
        })
    }
}

/// Looks whether this machine has what is reserved, in thousandths; its data will be in `data_dir`, which need not exist.
fn check_reserved(data_dir: &Path, thresholds: &Thresholds, reserved: &BTreeMap<String, i128>) -> Result<(), WrongUse> {
    if reserved.is_empty() {
        return Ok(());
    }
    let there = data_dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let wrong = |why: String| WrongUse(format!("--system-reserved and --kube-reserved: {why}"));
    let machine = machine::read(there).map_err(|error| wrong(format!("read what this machine is: {error}")))?;
    reservation::check(&machine, thresholds, reserved).map_err(wrong)
}

/// Flags of a node whose API server runs elsewhere.
#[derive(Clone, clap::Args)]
#[group(skip)]
pub struct MemberArgs {
    /// The API server, as in https://192.0.2.1:6443; needed only to join.
    #[arg(long, env = "CORACLE_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// The token to join with (`coracle token create`); needed only to join, and ignored when it was joined with already.
    #[arg(long, env = "CORACLE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Where everything is kept.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
    /// Range of all pods' addresses, as the control plane has it.
    #[arg(long, env = "CORACLE_POD_CIDR", default_value = "10.42.0.0/16")]
    pub pod_cidr: Ipv4Net,
    /// The cluster's DNS domain.
    #[arg(long, env = "CORACLE_DNS_DOMAIN", default_value = "cluster.local")]
    pub dns_domain: String,
    #[command(flatten)]
    /// Those of every node.
    pub node: NodeArgs,
}

/// What a file says of registries; nothing is said without one.
///
/// # Errors
/// [`WrongUse`] when it cannot be read or says nonsense.
pub fn registries(file: Option<&Path>) -> Result<Registries, WrongUse> {
    let Some(file) = file else { return Ok(Registries::default()) };
    let wrong = |error: &dyn std::fmt::Display| WrongUse(format!("--registries {}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error))?;
    serde_yaml::from_str(&text).map_err(|error| wrong(&error))
}

/// The directory of an image store that instances share, from the root on.
///
/// # Errors
/// [`WrongUse`] when it cannot be one, because it cannot be read or has other things in it.
pub fn image_store(dir: &Path) -> Result<PathBuf, WrongUse> {
    let wrong = |error: &dyn std::fmt::Display| WrongUse(format!("--image-store {}: {error}", dir.display()));
    let absolute = std::path::absolute(dir).map_err(|error| wrong(&error))?;
    ImageStore::check(&absolute).map_err(|error| wrong(&error))?;
    Ok(absolute)
}

/// This host's name, as the kernel has it, in lower case as node names are.
fn hostname() -> Result<String, WrongUse> {
    match nix::unistd::gethostname() {
        Ok(name) => Ok(name.to_string_lossy().to_lowercase()),
        Err(error) => Err(WrongUse(format!("--node-name is needed: this host does not tell its name: {error}"))),
    }
}

/// The address of the interface that the default route leaves by; loopback if there is none. Nothing is sent: connecting
/// a UDP socket only asks the kernel for the route.
fn default_address() -> IpAddr {
    let routed = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    routed.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
}

/// The path of a unix socket, which is at most so long (unix(7)).
fn unix_socket(text: &str) -> Result<PathBuf, String> {
    const LONGEST: usize = 107;
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if !path.starts_with('/') || path.ends_with('/') {
        return Err("a unix socket looks like unix:///PATH".to_owned());
    }
    if path.len() > LONGEST {
        return Err(format!("the path of a unix socket has at most {LONGEST} bytes"));
    }
    Ok(PathBuf::from(path))
}

/// An amount of something that can be kept from pods, in thousandths.
fn reserved(text: &str) -> Result<(String, i128), String> {
    const KINDS: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];
    let (name, amount) = text.split_once('=').ok_or("a reservation looks like RESOURCE=AMOUNT")?;
    if !KINDS.contains(&name) {
        return Err(format!("{name:?} cannot be reserved: it must be one of {}", KINDS.join(", ")));
    }
    let amount = amount.parse::<Quantity>().map_err(|error| format!("{amount:?}: {error}"))?;
    match i128::from(amount.milli_value()) {
        amount if amount >= 0 => Ok((name.to_owned(), amount)),
        _ => Err(format!("{text:?} must not be negative")),
    }
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
    use clap::{Args, FromArgMatches};

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

    fn node(flags: &[&str]) -> NodeArgs {
        let command = NodeArgs::augment_args(clap::Command::new("node"));
        NodeArgs::from_arg_matches(&command.get_matches_from([&["node"], flags].concat())).unwrap()
    }

    #[test]
    fn a_node_is_called_what_it_is_told_or_what_it_was() {
        assert_eq!(node(&["--node-name", "a"]).name(Some("b")), Ok("a".to_owned()));
        assert_eq!(node(&[]).name(Some("b")), Ok("b".to_owned()));
        assert!(node(&["--node-name", "Not A Name"]).name(None).unwrap_err().0.starts_with("--node-name"));
    }

    #[test]
    fn a_node_that_listens_on_one_address_is_reached_there() {
        for (flags, want) in [
            (&["--node-listen", "127.0.0.1:0"][..], "127.0.0.1"),
            (&["--node-listen", "[::1]:10250"], "::1"),
            (&["--node-listen", "127.0.0.1:0", "--node-ip", "192.0.2.7"], "192.0.2.7"),
            (&["--node-ip", "192.0.2.7"], "192.0.2.7"),
        ] {
            assert_eq!(node(flags).address().to_string(), want, "{flags:?}");
        }
        for flags in [&[][..], &["--node-listen", "0.0.0.0:0"], &["--node-listen", "[::]:0"]] {
            assert_eq!(node(flags).address(), default_address(), "{flags:?}");
        }
    }

    #[test]
    fn a_socket_is_a_path() {
        for text in ["unix:///run/a.sock", "/run/a.sock"] {
            assert_eq!(unix_socket(text), Ok(PathBuf::from("/run/a.sock")));
        }
        let long = format!("unix:///{}", "a".repeat(107));
        for text in ["", "unix://", "unix://run/a", "tcp://127.0.0.1:1", "unix:///run/", &long] {
            assert!(unix_socket(text).is_err(), "{text}");
        }
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

    #[test]
    fn what_is_kept_from_pods_is_summed_up() {
        let flags = ["--system-reserved", "cpu=100m,memory=1Gi", "--kube-reserved", "cpu=0.2"];
        let want = BTreeMap::from([("cpu".to_owned(), 300), ("memory".to_owned(), 1000 << 30)]);
        assert_eq!(node(&flags).reserved(), want);
        for wrong in ["cpu", "pods=1", "cpu=much", "memory=-1Gi", ""] {
            assert!(reserved(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_more_is_kept_from_pods_than_there_is() {
        let folder = tempfile::tempdir().unwrap();
        // It need not exist yet, and is not made.
        let place = Place::new(&folder.path().join("a/b")).unwrap();
        let around = Surroundings { pod_cidr: "10.42.0.0/16".parse().unwrap(), dns_domain: "cluster.local".to_owned() };
        let of = |flags: &[&str]| {
            node(flags).config(&place, "n1".to_owned(), &around, watch::channel(Serving::none()).1).map(drop)
        };
        assert_eq!(of(&["--system-reserved", "cpu=100m,memory=64Mi,ephemeral-storage=1Mi,pid=10"]), Ok(()));
        for (flags, words) in [
            (&["--system-reserved", "memory=500Ti"][..], "500Ti of memory are reserved"),
            (&["--kube-reserved", "cpu=100k"], "100k of cpu are reserved"),
            (&["--kube-reserved", "ephemeral-storage=7Ei"], "of ephemeral-storage are reserved"),
            (&["--system-reserved", "pid=3G", "--kube-reserved", "pid=2G"], "5G of pid are reserved"),
        ] {
            let told = of(flags).unwrap_err().0;
            assert!(told.starts_with("--system-reserved and --kube-reserved: ") && told.contains(words), "{told}");
        }
        assert!(!folder.path().join("a").exists());
    }

    #[test]
    fn the_file_of_registries_is_read_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registries.yaml");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            registries(Some(&file))
        };
        assert!(read("mirrors: {docker.io: {endpoint: ['http://127.0.0.1:5000']}}\n").is_ok());
        assert!(read("mirrors: 7\n").unwrap_err().0.contains("registries.yaml: "));
        assert!(registries(Some(Path::new("/no/such"))).unwrap_err().0.starts_with("--registries /no/such: "));
    }
}
