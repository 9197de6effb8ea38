//! A container's environment: values, references, `$(VAR)` expansion and the namespace's services.
//!
//! Pure: the ConfigMaps, Secrets and services it needs are looked up in what is passed in.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector, Secret, Service,
};

use super::resources::{self, Amounts};
use super::{env_file, spec};

/// Why an environment (or a volume's file) cannot be made; the words are kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A ConfigMap is not there.
    #[error("configmap \"{name}\" not found")]
    ConfigMapNotFound {
        /// Its name.
        name: String,
    },
    /// A Secret is not there.
    #[error("secret \"{name}\" not found")]
    SecretNotFound {
        /// Its name.
        name: String,
    },
    /// A ConfigMap or Secret has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    KeyNotFound {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key.
        key: String,
    },
    /// A file of variables cannot be read.
    #[error("couldn't parse env file: {why}")]
    EnvFile {
        /// What is wrong with it.
        why: String,
    },
    /// A file of variables does not set one.
    #[error("environment variable key {key:?} not found in file {path:?} of volume {volume:?}")]
    EnvFileKey {
        /// The key.
        key: String,
        /// The file, in its volume.
        path: String,
        /// The volume.
        volume: String,
    },
    /// A field of the pod cannot be referred to.
    #[error("unsupported fieldPath: {path}")]
    FieldPath {
        /// The path.
        path: String,
    },
    /// A resource cannot be referred to.
    #[error("unsupported container resource : {resource}")]
    Resource {
        /// The resource.
        resource: String,
    },
    /// A container that is referred to is not in the pod.
    #[error("container {name} not found")]
    Container {
        /// Its name.
        name: String,
    },
}

/// The objects a pod refers to, as they are now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// ConfigMaps by name; one that was looked for and is not there is missing.
    pub(crate) config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets by name.
    pub(crate) secrets: BTreeMap<String, Secret>,
    /// Files of variables in the pod's volumes, by volume and path, as they were when the container was to be started.
    pub(crate) files: Files,
}

/// Files of variables by volume and path; why one could not be read, or none if it is not there.
pub(crate) type Files = BTreeMap<(String, String), Result<Option<String>, String>>;

/// The names of what a pod refers to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// ConfigMaps.
    pub(crate) config_maps: BTreeSet<String>,
    /// Secrets, those for pulling images included.
    pub(crate) secrets: BTreeSet<String>,
}

/// What a reference may tell besides the pod itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Downward {
    /// The node's addresses.
    pub(crate) host_ips: Vec<String>,
    /// The pod's addresses.
    pub(crate) pod_ips: Vec<String>,
    /// What the node has for pods: the limit of a container without one.
    pub(crate) allocatable: Amounts,
}

/// What the environment (and projected volumes) of `pod` refer to.
pub(crate) fn needs(pod: &Pod) -> Needs {
    let mut needs = Needs::default();
    let ephemeral: Vec<Container> = spec(pod).ephemeral_containers().iter().map(super::as_container).collect();
    for container in spec(pod).all().chain(&ephemeral) {
        for from in container.env_from.iter().flatten() {
            needs.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            needs.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            needs.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            needs.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
    }
    let Some(spec) = &pod.spec else { return needs };
    needs.secrets.extend(spec.image_pull_secrets.iter().flatten().map(|r| r.name.clone()));
    for volume in spec.volumes.iter().flatten() {
        needs.config_maps.extend(volume.config_map.as_ref().map(|c| c.name.clone()));
        needs.secrets.extend(volume.secret.as_ref().and_then(|s| s.secret_name.clone()));
        for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
            needs.config_maps.extend(source.config_map.as_ref().map(|c| c.name.clone()));
            needs.secrets.extend(source.secret.as_ref().map(|s| s.name.clone()));
        }
    }
    needs.config_maps.remove("");
    needs.secrets.remove("");
    needs
}

/// The environment of `container`: `envFrom`, then `env`, then services that neither names.
pub(crate) fn environment(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    services: &[(String, String)],
    downward: &Downward,
) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Ordered::default();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match objects.config_maps.get(&reference.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set_if_valid(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError::ConfigMapNotFound { name: reference.name.clone() }),
            }
        }
        if let Some(reference) = &from.secret_ref {
            match objects.secrets.get(&reference.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set_if_valid(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if reference.optional == Some(true) => {}
                None => return Err(ConfigError::SecretNotFound { name: reference.name.clone() }),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (Some(value), _) if !value.is_empty() => {
                Some(expand(value, |name| env.get(name).or_else(|| lookup(services, name))))
            }
            (_, Some(source)) => reference(pod, container, source, objects, downward)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            env.set(var.name.clone(), value);
        }
    }
    let mut all = env.0;
    for (name, value) in services {
        if !all.iter().any(|(n, _)| n == name) {
            all.push((name.clone(), value.clone()));
        }
    }
    Ok(all)
}

/// Variables in the order they were first set.
#[derive(Default)]
struct Ordered(Vec<(String, String)>);

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(n, _)| *n == name) {
            Some(entry) => entry.1 = value,
            None => self.0.push((name, value)),
        }
    }

    /// Keys of a ConfigMap may be no names of variables: any printable ASCII but `=` will do (KEP-4369).
    fn set_if_valid(&mut self, name: String, value: String) {
        if !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
            self.set(name, value);
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        lookup(&self.0, name)
    }
}

/// The value of `name` in a list of variables.
pub(crate) fn lookup<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

fn reference(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    objects: &Objects,
    downward: &Downward,
) -> Result<Option<String>, ConfigError> {
    if let Some(r) = &source.field_ref {
        return field(pod, r, downward).map(Some);
    }
    if let Some(r) = &source.resource_field_ref {
        return resource(pod, container, r, downward).map(Some);
    }
    if let Some(r) = &source.config_map_key_ref {
        let optional = r.optional == Some(true);
        let Some(map) = objects.config_maps.get(&r.name) else {
            return if optional { Ok(None) } else { Err(ConfigError::ConfigMapNotFound { name: r.name.clone() }) };
        };
        return match map.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(missing_key("ConfigMap", pod, &r.name, &r.key)),
        };
    }
    if let Some(r) = &source.secret_key_ref {
        let optional = r.optional == Some(true);
        let Some(secret) = objects.secrets.get(&r.name) else {
            return if optional { Ok(None) } else { Err(ConfigError::SecretNotFound { name: r.name.clone() }) };
        };
        return match secret.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(missing_key("Secret", pod, &r.name, &r.key)),
        };
    }
    if let Some(r) = &source.file_key_ref {
        let text = match objects.files.get(&(r.volume_name.clone(), r.path.clone())) {
            Some(Ok(text)) => text.as_deref(),
            Some(Err(why)) => return Err(ConfigError::EnvFile { why: why.clone() }),
            None => None,
        };
        let value = text.map(|text| env_file::value(text, &r.key)).transpose();
        let value = value.map_err(|error| ConfigError::EnvFile { why: error.to_string() })?.flatten();
        return match value {
            Some(value) => Ok(Some(value)),
            None if r.optional == Some(true) => Ok(None),
            None => {
                Err(ConfigError::EnvFileKey { key: r.key.clone(), path: r.path.clone(), volume: r.volume_name.clone() })
            }
        };
    }
    Ok(Some(String::new()))
}

/// The files of variables that a container refers to, by volume and path.
pub(crate) fn files_of(container: &Container) -> BTreeSet<(String, String)> {
    let sources = container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()?.file_key_ref.as_ref());
    sources.map(|r| (r.volume_name.clone(), r.path.clone())).collect()
}

fn missing_key(kind: &'static str, pod: &Pod, name: &str, key: &str) -> ConfigError {
    ConfigError::KeyNotFound {
        kind,
        namespace: super::namespace(pod).to_owned(),
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

/// The value of a field of the pod.
pub(crate) fn field(pod: &Pod, selector: &ObjectFieldSelector, downward: &Downward) -> Result<String, ConfigError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let path = selector.field_path.as_str();
    let entry =
        |map: Option<&BTreeMap<String, String>>, key: &str| map.and_then(|m| m.get(key)).cloned().unwrap_or_default();
    if let Some(key) = subscript(path, "metadata.labels") {
        return Ok(entry(meta.labels.as_ref(), key));
    }
    if let Some(key) = subscript(path, "metadata.annotations") {
        return Ok(entry(meta.annotations.as_ref(), key));
    }
    Ok(match path {
        "metadata.name" => super::name(pod).to_owned(),
        "metadata.namespace" => super::namespace(pod).to_owned(),
        "metadata.uid" => super::uid(pod).to_owned(),
        "metadata.labels" => map_lines(meta.labels.as_ref()),
        "metadata.annotations" => map_lines(meta.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => downward.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => downward.host_ips.join(","),
        "status.podIP" => downward.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => downward.pod_ips.join(","),
        _ => return Err(ConfigError::FieldPath { path: path.to_owned() }),
    })
}

fn subscript<'a>(path: &'a str, field: &str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix("['")?.strip_suffix("']")
}

/// Labels as the downward API writes them into a file: sorted lines `key="value"`, quoted as Go quotes.
fn map_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> =
        map.into_iter().flatten().map(|(k, v)| format!("{k}={}", serde_json::Value::from(v.as_str()))).collect();
    lines.join("\n")
}

/// The value of a container's request or limit, in units of the divisor, rounded up.
pub(crate) fn resource(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    downward: &Downward,
) -> Result<String, ConfigError> {
    let container = match selector.container_name.as_deref().filter(|n| !n.is_empty()) {
        None => own,
        Some(name) => spec(pod).container(name).ok_or_else(|| ConfigError::Container { name: name.to_owned() })?,
    };
    let unknown = || ConfigError::Resource { resource: selector.resource.clone() };
    let (kind, name) = selector.resource.split_once('.').ok_or_else(unknown)?;
    let known =
        matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(super::resources::HUGE_PAGES);
    if !known {
        return Err(unknown());
    }
    let amount = match kind {
        "limits" => resources::limits(container)
            .get(name)
            .copied()
            .filter(|v| *v > 0)
            // Without a limit of its own, a container has the pod's, or the node.
            .or_else(|| resources::declared_limits(pod).get(name).copied().filter(|v| *v > 0))
            .or_else(|| downward.allocatable.get(name).copied()),
        "requests" => resources::requests(container).get(name).copied(),
        _ => return Err(unknown()),
    }
    .unwrap_or(0);
    let divisor = selector.divisor.as_ref().map(resources::milli).filter(|d| *d > 0).unwrap_or(1000);
    Ok((amount.div_euclid(divisor) + i128::from(amount.rem_euclid(divisor) > 0)).to_string())
}

/// Expands `$(NAME)` with `value_of`; what is not known stays as it is, and `$$` is a plain `$`.
pub(crate) fn expand<'a>(text: &str, value_of: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some((name, next)) = after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            match value_of(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = next;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// The variables that tell of services: those of the pod's namespace when it wants links, and the API server's always.
pub(crate) fn service_variables<'a>(pod: &Pod, services: impl Iterator<Item = &'a Service>) -> Vec<(String, String)> {
    let links = spec(pod).0.and_then(|s| s.enable_service_links).unwrap_or(true);
    let namespace = super::namespace(pod);
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let of = service.metadata.namespace.as_deref().unwrap_or_default();
        let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
        if ip.is_empty() || ip == "None" {
            continue;
        }
        if of == "default" && name == "kubernetes" {
            chosen.entry(name).or_insert(service);
        } else if links && of == namespace {
            chosen.insert(name, service);
        }
    }
    chosen.into_values().flat_map(variables_of).collect()
}

fn variables_of(service: &Service) -> Vec<(String, String)> {
    let shout = |s: &str| s.replace('-', "_").to_uppercase();
    let prefix = shout(service.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.clone().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    let Some(first) = ports.first() else { return Vec::new() };
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
    let mut vars = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.clone()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports.iter().filter(|p| p.name.as_deref().is_some_and(|n| !n.is_empty())) {
        let name = shout(port.name.as_deref().unwrap_or_default());
        vars.push((format!("{prefix}_SERVICE_PORT_{name}"), port.port.to_string()));
    }
    for (i, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if i == 0 {
            vars.push((format!("{prefix}_PORT"), url.clone()));
        }
        let base = format!("{prefix}_PORT_{}_{protocol}", port.port);
        vars.push((base.clone(), url));
        vars.push((format!("{base}_PROTO"), protocol.to_lowercase()));
        vars.push((format!("{base}_PORT"), port.port.to_string()));
        vars.push((format!("{base}_ADDR"), ip.clone()));
    }
    vars
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::testing::pod;
    use super::*;

    fn objects() -> Objects {
        let map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": "cm"}, "data": {"COLOR": "red", "b=d": "x"}})).unwrap();
        let secret: Secret =
            serde_json::from_value(json!({"metadata": {"name": "s"}, "data": {"token": "aGk="}})).unwrap();
        let file = |name: &str, text: Result<Option<&str>, &str>| {
            (("v".to_owned(), name.to_owned()), text.map(|t| t.map(str::to_owned)).map_err(str::to_owned))
        };
        Objects {
            config_maps: BTreeMap::from([("cm".into(), map)]),
            secrets: BTreeMap::from([("s".into(), secret)]),
            files: [
                file("env", Ok(Some("A='1'\n"))),
                file("bad", Ok(Some("A=1"))),
                file("gone", Ok(None)),
                file("fifo", Err("no file")),
            ]
            .into(),
        }
    }

    fn env(container: serde_json::Value) -> Result<String, String> {
        let pod = pod(json!({"nodeName": "n1", "containers": [container]}));
        let downward = Downward {
            host_ips: vec!["192.0.2.1".into()],
            pod_ips: vec!["10.42.0.2".into()],
            allocatable: Amounts::from([("cpu".into(), 2000)]),
        };
        let services = [("SVC_HOST".to_owned(), "10.43.0.9".to_owned())];
        environment(&pod, &pod.spec.as_ref().unwrap().containers[0], &objects(), &services, &downward)
            .map(|e| e.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" "))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn references_expand_to_what_was_set_before_and_to_services() {
        assert_eq!(expand("$(A)-$$(A)-$(B)-$x-$(", |n| (n == "A").then_some("1")), "1-$(A)-$(B)-$x-$(");
        let got = env(json!({"name": "c", "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)/$(SVC_HOST)/$(LATER)"}, {"name": "LATER", "value": "x"},
        ]}));
        assert_eq!(got.unwrap(), "A=1 B=1/10.43.0.9/$(LATER) LATER=x SVC_HOST=10.43.0.9");
    }

    #[test]
    fn variables_come_from_files_that_init_containers_left() {
        let of = |path: &str, key: &str, optional: bool| {
            let r = json!({"volumeName": "v", "path": path, "key": key, "optional": optional});
            env(json!({"name": "c", "env": [{"name": "X", "valueFrom": {"fileKeyRef": r}}]}))
        };
        assert_eq!(of("env", "A", false).unwrap(), "X=1 SVC_HOST=10.43.0.9");
        assert_eq!(of("env", "B", true).unwrap(), "SVC_HOST=10.43.0.9");
        assert_eq!(of("gone", "B", true).unwrap(), "SVC_HOST=10.43.0.9");
        for (path, why) in [
            ("env", "environment variable key \"B\" not found in file \"env\" of volume \"v\""),
            ("gone", "environment variable key \"B\" not found in file \"gone\" of volume \"v\""),
            (
                "bad",
                "couldn't parse env file: invalid environment variable format at line 1: value must be enclosed in single quotes",
            ),
            ("fifo", "couldn't parse env file: no file"),
        ] {
            assert_eq!(of(path, "B", false).unwrap_err(), why);
        }
    }

    #[test]
    fn maps_secrets_fields_and_resources_are_read() {
        let got = env(json!({"name": "c",
        "resources": {"requests": {"memory": "10Mi"}},
        "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "none", "optional": true}}],
        "env": [
            {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "token"}}},
            {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Mi"}}},
            {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "none", "optional": true}}},
        ]}));
        assert_eq!(got.unwrap(), "P_COLOR=red T=hi N=n1 IP=10.42.0.2 CPU=2 MEM=10 SVC_HOST=10.43.0.9");
    }

    #[test]
    fn a_container_without_a_limit_has_the_pods_or_the_nodes() {
        let limit = |resources| {
            let pod = pod(json!({"containers": [{"name": "c"}], "resources": resources}));
            let asked = serde_json::from_value(json!({"resource": "limits.cpu"})).unwrap();
            let node = Downward { allocatable: Amounts::from([("cpu".into(), 8000)]), ..Downward::default() };
            resource(&pod, &pod.spec.as_ref().unwrap().containers[0], &asked, &node).unwrap()
        };
        assert_eq!(limit(json!({"limits": {"cpu": "3"}})), "3");
        assert_eq!(limit(json!({})), "8");
    }

    #[test]
    fn what_is_missing_is_named_in_kubelets_words() {
        for (source, want) in [
            (json!({"configMapKeyRef": {"name": "x", "key": "k"}}), "configmap \"x\" not found"),
            (json!({"configMapKeyRef": {"name": "cm", "key": "k"}}), "couldn't find key k in ConfigMap default/cm"),
            (json!({"secretKeyRef": {"name": "x", "key": "k"}}), "secret \"x\" not found"),
            (json!({"secretKeyRef": {"name": "s", "key": "k"}}), "couldn't find key k in Secret default/s"),
        ] {
            assert_eq!(env(json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]})), Err(want.to_owned()));
        }
    }

    #[test]
    fn services_are_told_as_docker_links_were() {
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "redis-primary", "namespace": "default"},
            "spec": {"clusterIP": "10.0.0.11", "ports": [{"name": "db-x", "port": 6379, "protocol": "TCP"}]},
        }))
        .unwrap();
        let headless: Service = serde_json::from_value(json!({
            "metadata": {"name": "h", "namespace": "default"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
        }))
        .unwrap();
        let vars = service_variables(&pod(json!({"containers": []})), [&service, &headless].into_iter());
        let text: Vec<String> = vars.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "REDIS_PRIMARY_SERVICE_HOST=10.0.0.11",
                "REDIS_PRIMARY_SERVICE_PORT=6379",
                "REDIS_PRIMARY_SERVICE_PORT_DB_X=6379",
                "REDIS_PRIMARY_PORT=tcp://10.0.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP=tcp://10.0.0.11:6379",
                "REDIS_PRIMARY_PORT_6379_TCP_PROTO=tcp",
                "REDIS_PRIMARY_PORT_6379_TCP_PORT=6379",
                "REDIS_PRIMARY_PORT_6379_TCP_ADDR=10.0.0.11",
            ]
        );
        let none =
            service_variables(&pod(json!({"enableServiceLinks": false, "containers": []})), [&service].into_iter());
        assert!(none.is_empty());
    }
}
