//! The files a pod gets of its surroundings: `/etc/hosts`, `/etc/hostname`, `/etc/resolv.conf`.
//!
//! Pure text; the worker writes them into the pod's directory and mounts them into each container.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

use super::spec;

/// What the node knows of names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// The cluster's DNS server, if there is one.
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// `cluster.local`.
    pub(crate) cluster_domain: String,
    /// The host's `/etc/resolv.conf`.
    pub(crate) host_resolv: String,
    /// The host's `/etc/hosts`.
    pub(crate) host_hosts: String,
    /// The host's name.
    pub(crate) host_name: String,
}

/// The pod's host name and domain.
pub(crate) fn host_name(pod: &Pod, names: &Names) -> (String, String) {
    let Some(spec) = &pod.spec else { return (String::new(), String::new()) };
    if spec.host_network == Some(true) && spec.hostname_override.is_none() {
        return (names.host_name.clone(), String::new());
    }
    if let Some(name) = spec.hostname_override.as_ref().filter(|n| !n.is_empty()) {
        return (name.clone(), String::new());
    }
    let own = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or_else(|| super::name(pod));
    // A host name has at most 63 bytes and does not end with a separator.
    let short: String = own.chars().take(63).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let domain = spec
        .subdomain
        .as_deref()
        .filter(|s| !s.is_empty())
        .map(|s| format!("{s}.{}.svc.{}", super::namespace(pod), names.cluster_domain))
        .unwrap_or_default();
    (short, domain)
}

/// The name `hostname` prints in the pod: the short one, or the whole with `setHostnameAsFQDN`.
pub(crate) fn kernel_host_name(pod: &Pod, names: &Names) -> String {
    let (name, domain) = host_name(pod, names);
    let whole = spec(pod).0.and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    if whole && !domain.is_empty() { format!("{name}.{domain}") } else { name }
}

/// `/etc/hosts`.
pub(crate) fn hosts(pod: &Pod, names: &Names, ips: &[IpAddr]) -> String {
    let mut text = String::new();
    if spec(pod).host_network() {
        text.push_str("# Kubernetes-managed hosts file (host network).\n");
        text.push_str(&names.host_hosts);
    } else {
        text.push_str(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (name, domain) = host_name(pod, names);
        for ip in ips {
            if domain.is_empty() {
                text.push_str(&format!("{ip}\t{name}\n"));
            } else {
                text.push_str(&format!("{ip}\t{name}.{domain}\t{name}\n"));
            }
        }
    }
    let aliases = spec(pod).0.and_then(|s| s.host_aliases.as_deref()).unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            text.push_str(&format!("{}\t{names}\n", alias.ip));
        }
    }
    text
}

/// What a resolver file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// A resolver file, and whether the pod wanted a cluster DNS that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResolvConf {
    /// Its text.
    pub(crate) text: String,
    /// `ClusterFirst` was asked for and the node knows no cluster DNS: the host's settings are used.
    pub(crate) missing_cluster_dns: bool,
}

/// `/etc/resolv.conf` by the pod's `dnsPolicy` and `dnsConfig`.
pub(crate) fn resolv_conf(pod: &Pod, names: &Names) -> ResolvConf {
    let spec = spec(pod).0;
    let policy = spec.and_then(|s| s.dns_policy.as_deref()).unwrap_or("ClusterFirst");
    let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
    let host = parse(&names.host_resolv);
    let wants_cluster = policy == "ClusterFirstWithHostNet" || (policy == "ClusterFirst" && !host_network);
    let missing_cluster_dns = wants_cluster && names.cluster_dns.is_empty();
    let mut resolver = if policy == "None" {
        Resolver::default()
    } else if wants_cluster && !missing_cluster_dns {
        let domain = &names.cluster_domain;
        let mut searches =
            vec![format!("{}.svc.{domain}", super::namespace(pod)), format!("svc.{domain}"), domain.clone()];
        searches.extend(host.searches);
        Resolver {
            servers: names.cluster_dns.iter().map(ToString::to_string).collect(),
            searches,
            options: vec!["ndots:5".into()],
        }
    } else {
        host
    };
    if let Some(config) = spec.and_then(|s| s.dns_config.as_ref()) {
        resolver.servers.extend(config.nameservers.iter().flatten().cloned());
        resolver.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            resolver.options.retain(|o| o.split(':').next() != Some(name));
            resolver.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    ResolvConf { text: write(&resolver), missing_cluster_dns }
}

/// A resolver file that says this.
pub(crate) fn resolver(servers: Vec<String>, searches: Vec<String>, options: Vec<String>) -> String {
    write(&Resolver { servers, searches, options })
}

fn parse(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines().map(str::trim).filter(|l| !l.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
            Some("search") => resolver.searches = words.filter(|w| *w != ".").map(str::to_owned).collect(),
            Some("options") => resolver.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    resolver
}

fn write(resolver: &Resolver) -> String {
    let once = |list: &[String]| {
        let mut seen: Vec<&str> = Vec::new();
        for word in list {
            if !seen.contains(&word.as_str()) {
                seen.push(word);
            }
        }
        seen.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut text = String::new();
    let searches = once(&resolver.searches);
    if !searches.is_empty() {
        text.push_str(&format!("search {}\n", searches.join(" ")));
    }
    // The resolver reads three servers and no more (resolv.conf(5)).
    for server in once(&resolver.servers).iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !resolver.options.is_empty() {
        text.push_str(&format!("options {}\n", resolver.options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::pod;
    use super::*;

    fn names() -> Names {
        Names {
            cluster_dns: vec!["10.43.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            host_resolv: "# made by hand\nsearch lan\nnameserver 192.0.2.53\noptions rotate\n".into(),
            host_hosts: "127.0.0.1\tlocalhost\n".into(),
            host_name: "node".into(),
        }
    }

    fn resolv(spec: Value) -> String {
        resolv_conf(&pod(spec), &names()).text
    }

    #[test]
    fn resolver_files_follow_the_dns_policy() {
        let cluster = "search default.svc.cluster.local svc.cluster.local cluster.local lan\n\
                       nameserver 10.43.0.10\noptions ndots:5\n";
        let host = "search lan\nnameserver 192.0.2.53\noptions rotate\n";
        for (spec, want) in [
            (json!({"containers": []}), cluster),
            (json!({"hostNetwork": true, "containers": []}), host),
            (json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet", "containers": []}), cluster),
            (json!({"dnsPolicy": "Default", "containers": []}), host),
            (
                json!({"dnsPolicy": "None", "containers": [],
                    "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["a"], "options": [{"name": "ndots", "value": "2"}]}}),
                "search a\nnameserver 1.1.1.1\noptions ndots:2\n",
            ),
        ] {
            assert_eq!(resolv(spec), want);
        }
    }

    #[test]
    fn without_cluster_dns_the_hosts_settings_serve_and_it_is_said() {
        let got = resolv_conf(&pod(json!({"containers": []})), &Names { cluster_dns: vec![], ..names() });
        assert!(got.missing_cluster_dns);
        assert!(got.text.contains("192.0.2.53"));
    }

    #[test]
    fn hosts_files_are_kubelets() {
        let got = hosts(
            &pod(json!({"hostname": "h", "subdomain": "s", "containers": [],
                "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["foo", "bar"]}]})),
            &names(),
            &["10.42.0.2".parse().unwrap()],
        );
        assert!(got.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"));
        assert!(got.ends_with(
            "fe00::2\tip6-allrouters\n10.42.0.2\th.s.default.svc.cluster.local\th\n\n\
             # Entries added by HostAliases.\n1.2.3.4\tfoo\tbar\n"
        ));
    }

    #[test]
    fn host_names_are_cut_to_what_the_kernel_takes() {
        let long = format!("{}-", "a".repeat(62));
        let pod = pod(json!({"hostname": format!("{long}bcd"), "containers": []}));
        assert_eq!(kernel_host_name(&pod, &names()), "a".repeat(62));
    }
}
