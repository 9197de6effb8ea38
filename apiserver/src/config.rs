//! What the server must be told.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use coracle_store::Retention;

use crate::{audit, authn::oidc::config as authentication, pki::LEAF_LIFETIME, servers::Join, snapshot};

/// A range of addresses: `10.43.0.0/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// The first address.
    pub address: Ipv4Addr,
    /// How many leading bits are the network's.
    pub prefix: u8,
}

impl Cidr {
    /// How many addresses there are.
    #[must_use]
    pub const fn size(&self) -> u32 {
        if self.prefix == 0 { u32::MAX } else { 1_u32 << (32 - self.prefix) }
    }

    /// The network's own address with `offset` added.
    #[must_use]
    pub fn nth(&self, offset: u32) -> Ipv4Addr {
        let mask = u32::MAX.checked_shl(u32::from(32 - self.prefix)).unwrap_or(0);
        Ipv4Addr::from((u32::from(self.address) & mask).wrapping_add(offset))
    }

    /// Whether the address is one of the network's.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address).wrapping_sub(u32::from(self.nth(0))) < self.size()
    }
}

impl std::str::FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no IPv4 range such as 10.43.0.0/16");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        match prefix {
            8..=28 => Ok(Self { address, prefix }),
            _ => Err(format!("the range {text:?} must have a prefix of 8 to 28 bits")),
        }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.nth(0), self.prefix)
    }
}

/// Everything the server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept; made when missing.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address other machines and pods reach this server at; unspecified: the one listened on.
    pub advertise: Option<IpAddr>,
    /// This host's name.
    pub hostname: String,
    /// What people call this server among others; unspecified: the host's name.
    pub server_name: Option<String>,
    /// The cluster that an empty data directory's server joins; none: it begins one of its own.
    pub join: Option<Join>,
    /// Addresses of Services.
    pub service_cidr: Cidr,
    /// The cluster's DNS domain.
    pub dns_domain: String,
    /// Further names and addresses for the serving certificate.
    pub extra_names: Vec<String>,
    /// How long certificates are valid; they are renewed when a third of it is left.
    pub certificate_lifetime: Duration,
    /// How many connections may be open at once.
    pub max_connections: usize,
    /// How many reading requests may be worked on at once. Together with the next number these are the seats that priority
    /// levels share.
    pub max_requests_inflight: u32,
    /// How many writing requests may be worked on at once.
    pub max_mutating_requests_inflight: u32,
    /// How long a request that is no watch and no session may take.
    pub request_timeout: Duration,
    /// What is recorded of requests.
    pub audit: audit::Config,
    /// Who is let in besides those with credentials of the cluster itself.
    pub authentication: authentication::Config,
    /// Where etcd's own clients are served; none: nowhere.
    pub etcd_listen: Option<SocketAddr>,
    /// How much of the past is kept.
    pub history: Retention,
    /// How long a list can be read on page by page as it was at its beginning. Kubernetes forgets after five minutes, and
    /// clients know how to go on then; more of the past than that is there for those who ask for it.
    pub pages: Duration,
    /// A file that says what is kept sealed and with which keys, instead of the cluster's own.
    pub encryption: Option<PathBuf>,
    /// The file flags were read from, of which snapshots have a copy.
    pub config_file: Option<PathBuf>,
}

/// The interval of Kubernetes' compactions.
const PAGES: Duration = Duration::from_mins(5);

impl Config {
    /// A server in `data_dir` on `listen`, all else as Coracle's own defaults have it.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, listen: SocketAddr) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen,
            advertise: None,
            hostname: String::new(),
            server_name: None,
            join: None,
            service_cidr: Cidr { address: Ipv4Addr::new(10, 43, 0, 0), prefix: 16 },
            dns_domain: "cluster.local".to_owned(),
            extra_names: Vec::new(),
            certificate_lifetime: LEAF_LIFETIME,
            max_connections: 4096,
            // Kubernetes' own bounds.
            max_requests_inflight: 400,
            max_mutating_requests_inflight: 200,
            request_timeout: Duration::from_secs(60),
            audit: audit::Config::default(),
            authentication: authentication::Config::default(),
            etcd_listen: None,
            history: Retention { age: Duration::from_hours(1), ..Retention::default() },
            pages: PAGES,
            encryption: None,
            config_file: None,
        }
    }
}

impl Config {
    /// What people call this server.
    pub(crate) fn server_name(&self) -> String {
        let name = self.server_name.as_ref().unwrap_or(&self.hostname);
        if name.is_empty() { "server".to_owned() } else { name.clone() }
    }

    /// What a snapshot of this server holds beside its store.
    pub(crate) fn snapshot_source(&self) -> snapshot::Source {
        let files = [
            ("config.yaml", &self.config_file),
            ("encryption-provider-config.yaml", &self.encryption),
            ("authentication-config.yaml", &self.authentication.file),
            ("audit-policy.yaml", &self.audit.policy_file),
        ];
        let files = files.into_iter().filter_map(|(name, path)| Some((format!("config/{name}"), path.clone()?)));
        let settings = [
            ("listen", self.listen.to_string()),
            ("advertise", self.advertise.map(|address| address.to_string()).unwrap_or_default()),
            ("service-cidr", self.service_cidr.to_string()),
            ("dns-domain", self.dns_domain.clone()),
            ("tls-san", self.extra_names.join(",")),
        ];
        snapshot::Source {
            pki: self.data_dir.join("pki"),
            files: files.collect(),
            settings: settings
                .into_iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        }
    }
}

/// Where a member of the cluster, a server or a witness, keeps what it has, and where it is reached.
#[derive(Clone, Debug, clap::Args)]
pub struct Whereabouts {
    /// Where everything is kept.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    pub data_dir: PathBuf,
    /// Address and port to listen on; port 0 takes a free one.
    #[arg(long, env = "CORACLE_LISTEN", default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// Address other machines reach this one at.
    #[arg(long, env = "CORACLE_ADVERTISE")]
    pub advertise: Option<IpAddr>,
    /// What people call it among several; by default the host's name.
    #[arg(long, env = "CORACLE_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
}

impl Whereabouts {
    /// The configuration these words mean.
    #[must_use]
    pub fn config(self) -> Config {
        Config { advertise: self.advertise, server_name: self.server_name, ..Config::new(self.data_dir, self.listen) }
    }
}

/// The command line's words for a [`Config`].
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// Where it is.
    #[command(flatten)]
    pub whereabouts: Whereabouts,
    /// Range of the Services' addresses.
    #[arg(long, env = "CORACLE_SERVICE_CIDR", default_value = "10.43.0.0/16")]
    pub service_cidr: Cidr,
    /// The cluster's DNS domain.
    #[arg(long, env = "CORACLE_DNS_DOMAIN", default_value = "cluster.local")]
    pub dns_domain: String,
    /// Further names and addresses for the serving certificate.
    #[arg(long = "tls-san", env = "CORACLE_TLS_SAN", value_delimiter = ',')]
    pub extra_names: Vec<String>,
    /// How long certificates are valid, from 10s to 87600h; the running process renews them when a third of it is left.
    #[arg(
        long,
        env = "CORACLE_CLUSTER_SIGNING_DURATION",
        default_value = "8760h",
        value_parser = signing_duration,
        value_name = "DURATION"
    )]
    pub cluster_signing_duration: Duration,
    /// How many reading requests may be worked on at once; this number and the next are shared out among priority levels.
    #[arg(long, env = "CORACLE_MAX_REQUESTS_INFLIGHT", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "NUMBER")]
    pub max_requests_inflight: u32,
    /// How many writing requests may be worked on at once.
    #[arg(long, env = "CORACLE_MAX_MUTATING_REQUESTS_INFLIGHT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=100_000), value_name = "NUMBER")]
    pub max_mutating_requests_inflight: u32,
    /// Address and port to serve etcd's own clients on, who need a certificate of an administrator; by default there is none.
    #[arg(long, env = "CORACLE_ETCD_LISTEN", value_name = "ADDRESS:PORT")]
    pub etcd_listen: Option<SocketAddr>,
    /// How long changes are kept for watches and for reads of the past, from 5m to 168h.
    #[arg(long, env = "CORACLE_HISTORY", default_value = "1h", value_parser = history, value_name = "DURATION")]
    pub history: Duration,
    /// How many megabytes of memory they may take; older ones go sooner then, but for those of the last ten seconds.
    #[arg(long, env = "CORACLE_HISTORY_MEMORY", default_value_t = 32, value_parser = history_memory, value_name = "MEGABYTES")]
    pub history_memory: usize,
    /// A file of kind EncryptionConfiguration that says what is kept sealed and with which keys, instead of Secrets with a
    /// key of the cluster's own.
    #[arg(long, env = "CORACLE_ENCRYPTION_PROVIDER_CONFIG", value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// The file that flags were read from.
    #[arg(skip)]
    pub config_file: Option<PathBuf>,
    /// What is recorded of requests.
    #[command(flatten)]
    pub audit: audit::config::Args,
    /// Who is let in besides those with credentials of the cluster itself.
    #[command(flatten)]
    pub authentication: authentication::Args,
}

/// A number of hours, minutes or seconds.
fn seconds(text: &str) -> Option<u64> {
    let units = [('h', 3600), ('m', 60), ('s', 1)];
    units.iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    })
}

/// How long ago: `10m`.
///
/// # Errors
/// What it must be, in words.
pub fn ago(text: &str) -> Result<Duration, String> {
    let read = seconds(text).filter(|seconds| *seconds > 0).map(Duration::from_secs);
    read.ok_or_else(|| "must be a number of hours, minutes or seconds such as 1h, 10m or 90s".to_owned())
}

fn history(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Some(seconds @ 300..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("must be a number of hours, minutes or seconds from 5m to 168h".to_owned()),
    }
}

fn history_memory(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(megabytes @ 1..=65_536) => Ok(megabytes),
        _ => Err("must be a number of megabytes from 1 to 65536".to_owned()),
    }
}

fn signing_duration(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Some(seconds @ 10..=315_360_000) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("must be from 10s to 87600h".to_owned()),
        None => Err("must be a number of hours, minutes or seconds such as 8760h, 90m or 30s".to_owned()),
    }
}

impl Args {
    /// The configuration these words mean.
    ///
    /// # Errors
    /// A file they name cannot be read or used.
    pub fn config(self) -> Result<Config, authentication::Error> {
        Ok(Config {
            service_cidr: self.service_cidr,
            dns_domain: self.dns_domain,
            extra_names: self.extra_names,
            certificate_lifetime: self.cluster_signing_duration,
            max_requests_inflight: self.max_requests_inflight,
            max_mutating_requests_inflight: self.max_mutating_requests_inflight,
            audit: self.audit.config(),
            authentication: self.authentication.config()?,
            etcd_listen: self.etcd_listen,
            history: Retention { age: self.history, bytes: self.history_memory << 20 },
            encryption: self.encryption_provider_config,
            config_file: self.config_file,
            ..self.whereabouts.config()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_hours_minutes_or_seconds() {
        assert_eq!(signing_duration("8760h"), Ok(LEAF_LIFETIME));
        assert_eq!(signing_duration("90m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "h", "9s", "1d", "-1h", "87601h", "99999999999999999999h"] {
            assert!(signing_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn history_is_kept_for_a_while_and_not_for_ever() {
        assert_eq!(history("1h"), Ok(Duration::from_hours(1)));
        assert!(history("299s").is_err() && history("169h").is_err() && history("1").is_err());
        assert_eq!(history_memory("32"), Ok(32));
        assert!(history_memory("0").is_err() && history_memory("65537").is_err() && history_memory("x").is_err());
        assert_eq!(ago("10m"), Ok(Duration::from_secs(600)));
        for wrong in ["", "10", "0s", "m", "-1h", "1d", "99999999999999999999h"] {
            assert!(ago(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_knows_its_addresses() {
        let cidr: Cidr = "10.43.7.9/16".parse().unwrap();
        assert_eq!(cidr.to_string(), "10.43.0.0/16");
        assert_eq!(cidr.nth(1), Ipv4Addr::new(10, 43, 0, 1));
        assert!(cidr.contains(Ipv4Addr::new(10, 43, 255, 255)) && !cidr.contains(Ipv4Addr::new(10, 44, 0, 0)));
        assert!("10.43.0.0".parse::<Cidr>().is_err() && "10.43.0.0/30".parse::<Cidr>().is_err());
    }
}
