//! What one file of the manifest directory says: a pod of this node, or why it is none.

use std::collections::BTreeMap;
use std::path::Path;

use coracle_proto::{name, pod_defaults, yaml};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Toleration, Volume};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The annotation with the pod's hash, which is its uid.
pub(crate) const HASH: &str = "kubernetes.io/config.hash";
/// The annotation with the hash of the pod that an object of the API only shows.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation that says where the pod comes from.
const SOURCE: &str = "kubernetes.io/config.source";
/// The annotation that says when it was first seen.
const SEEN: &str = "kubernetes.io/config.seen";

/// Why a file says no pod.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
    /// It is too large to be one.
    #[error("it is larger than {most} bytes")]
    Large {
        /// The most it may have.
        most: u64,
    },
    /// It is neither YAML nor JSON.
    #[error("it is neither YAML nor JSON")]
    Syntax(#[source] yaml::Error),
    /// It is something else.
    #[error("it says apiVersion {version:?} and kind {kind:?}, which must be \"v1\" and \"Pod\"")]
    Kind {
        /// What it says.
        version: String,
        /// What it says.
        kind: String,
    },
    /// Some field has another type.
    #[error("it is not of a pod's form")]
    Form(#[source] serde_json::Error),
    /// Some field has a value it may not have.
    #[error("{field}: {why}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong with it.
        why: String,
    },
    /// It needs something of the API server, without which it must be able to run.
    #[error("static pods may not reference {what}")]
    Reference {
        /// The resource.
        what: &'static str,
    },
    /// Another file has it.
    #[error("the pod {pod} is in {} already", file.display())]
    Twice {
        /// `namespace/name`.
        pod: String,
        /// The other file.
        file: std::path::PathBuf,
    },
}

fn wrong(field: &str, why: impl Into<String>) -> Error {
    Error::Field { field: field.to_owned(), why: why.into() }
}

/// The pod of this node that the text of a file says. Its uid is a hash of what it says and of where it stands, so that
/// another text is another pod. `seen` is told as the time it was first seen.
///
/// # Errors
/// [`Error`]; one sentence for whoever wrote the file.
pub(crate) fn pod(text: &str, file: &Path, node: &str, seen: &str) -> Result<Pod, Error> {
    let value = yaml::parse_json_or_yaml(text).map_err(Error::Syntax)?;
    let said = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (said("apiVersion"), said("kind"));
    if (version.as_str(), kind.as_str()) != ("v1", "Pod") {
        return Err(Error::Kind { version, kind });
    }
    let uid = hash(&value, file, node);
    let mut pod: Pod = serde_json::from_value(value).map_err(Error::Form)?;
    let name = pod.metadata.name.clone().filter(|n| !n.is_empty());
    let name = name.ok_or_else(|| wrong("metadata.name", "a name is needed for the pod"))?;
    let name = format!("{name}-{node}");
    if let Some(fault) = name::dns1123_subdomain(&name).first() {
        return Err(wrong("metadata.name", fault.clone()));
    }
    let namespace = pod.metadata.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned());
    if let Some(fault) = name::dns1123_label(&namespace).first() {
        return Err(wrong("metadata.namespace", fault.clone()));
    }
    let mut annotations = pod.metadata.annotations.take().unwrap_or_default();
    annotations.insert(HASH.into(), uid.clone());
    annotations.insert(SOURCE.into(), "file".into());
    annotations.insert(SEEN.into(), seen.into());
    annotations.remove(MIRROR);
    pod.metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
        name: Some(name),
        namespace: Some(namespace),
        uid: Some(uid),
        labels: pod.metadata.labels,
        annotations: Some(annotations),
        ..Default::default()
    };
    pod.status = None;
    let spec = pod.spec.as_mut().ok_or_else(|| wrong("spec", "a pod has one"))?;
    check(spec)?;
    if let Some(what) = reference(spec) {
        return Err(Error::Reference { what });
    }
    fill(spec, node);
    Ok(pod)
}

/// Thirty-two hexadecimal digits: the uid of a static pod has no hyphens, which every uid an API server gives has.
fn hash(value: &Value, file: &Path, node: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update(value.to_string());
    hasher.update(format!("\0host:{node}\0file:"));
    hasher.update(file.as_os_str().as_encoded_bytes());
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What the node relies on; the API server checks the rest when it is shown the pod.
fn check(spec: &PodSpec) -> Result<(), Error> {
    if spec.containers.is_empty() {
        return Err(wrong("spec.containers", "a pod has at least one"));
    }
    if spec.ephemeral_containers.is_some() {
        return Err(wrong("spec.ephemeralContainers", "static pods do not support ephemeral containers"));
    }
    let mut names: Vec<&str> = Vec::new();
    let lists =
        [("initContainers", spec.init_containers.as_deref().unwrap_or_default()), ("containers", &spec.containers)];
    for (list, containers) in lists {
        for (at, container) in containers.iter().enumerate() {
            let field = |name: &str| format!("spec.{list}[{at}].{name}");
            if let Some(fault) = name::dns1123_label(&container.name).first() {
                return Err(wrong(&field("name"), fault.clone()));
            }
            if names.contains(&container.name.as_str()) {
                return Err(wrong(&field("name"), format!("another container is called {:?}", container.name)));
            }
            names.push(&container.name);
            if container.image.as_ref().is_none_or(String::is_empty) {
                return Err(wrong(&field("image"), "a container has one"));
            }
        }
    }
    let mut volumes: Vec<&str> = Vec::new();
    for (at, volume) in spec.volumes.iter().flatten().enumerate() {
        // It becomes a directory's name.
        if let Some(fault) = name::dns1123_label(&volume.name).first() {
            return Err(wrong(&format!("spec.volumes[{at}].name"), fault.clone()));
        }
        if volumes.contains(&volume.name.as_str()) {
            return Err(wrong(
                &format!("spec.volumes[{at}].name"),
                format!("another volume is called {:?}", volume.name),
            ));
        }
        volumes.push(&volume.name);
    }
    Ok(())
}

/// The first thing of the API server's that the pod needs.
fn reference(spec: &PodSpec) -> Option<&'static str> {
    let account = spec.service_account_name.as_deref().or(spec.service_account.as_deref());
    if account.is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    if spec.image_pull_secrets.as_ref().is_some_and(|secrets| !secrets.is_empty()) {
        return Some("secrets");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers.filter_map(of_container).next().or_else(|| spec.volumes.iter().flatten().find_map(of_volume))
}

fn of_container(container: &Container) -> Option<&'static str> {
    for from in container.env_from.iter().flatten() {
        if from.secret_ref.is_some() {
            return Some("secrets");
        }
        if from.config_map_ref.is_some() {
            return Some("configmaps");
        }
    }
    container.env.iter().flatten().find_map(|variable| {
        let from = variable.value_from.as_ref()?;
        let map = || from.config_map_key_ref.is_some().then_some("configmaps");
        from.secret_key_ref.is_some().then_some("secrets").or_else(map)
    })
}

fn of_volume(volume: &Volume) -> Option<&'static str> {
    if volume.secret.is_some() {
        return Some("secrets");
    }
    if volume.config_map.is_some() {
        return Some("configmaps");
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        return Some("persistentvolumeclaims");
    }
    let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    for source in sources {
        let found = [
            (source.secret.is_some(), "secrets"),
            (source.config_map.is_some(), "configmaps"),
            (source.service_account_token.is_some(), "serviceaccounts"),
            (source.cluster_trust_bundle.is_some(), "clustertrustbundles"),
            (source.pod_certificate.is_some(), "podcertificaterequests"),
        ];
        if let Some((_, what)) = found.into_iter().find(|(there, _)| *there) {
            return Some(what);
        }
    }
    None
}

/// What the API server fills in for other pods.
fn fill(spec: &mut PodSpec, node: &str) {
    /// The priorities that every cluster has (KEP-268).
    const PRIORITIES: [(&str, i32); 2] =
        [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];
    spec.node_name = Some(node.to_owned());
    let known: BTreeMap<_, _> = PRIORITIES.into();
    if spec.priority.is_none() {
        spec.priority = spec.priority_class_name.as_deref().and_then(|class| known.get(class).copied());
    }
    // Trouble of the node's sends no static pod away: it would come back at once.
    let tolerations = spec.tolerations.get_or_insert_default();
    let all = Toleration { operator: Some("Exists".into()), effect: Some("NoExecute".into()), ..Toleration::default() };
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
    pod_defaults::default_pod(spec);
    pod_defaults::default_pod_spec(spec);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Pod, String> {
        pod(text, Path::new("/m/web.yaml"), "n1", "now").map_err(|e| crate::pod::start::chain(&e))
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, uid: ../x, annotations: {kubernetes.io/config.mirror: x}}\n\
        spec: {containers: [{name: a, image: 'r:5000/busybox:latest', ports: [{containerPort: 80}]}], hostNetwork: true}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = read(WEB).unwrap();
        let (meta, spec) = (&pod.metadata, pod.spec.as_ref().unwrap());
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-n1"), Some("default")));
        let uid = meta.uid.clone().unwrap();
        assert!(crate::pod::is_static(&pod) && uid.len() == 32, "{uid}");
        let annotations = meta.annotations.as_ref().unwrap();
        assert_eq!((annotations.get(HASH), annotations.get(MIRROR)), (Some(&uid), None));
        assert_eq!(annotations.get(SOURCE).map(String::as_str), Some("file"));
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.containers[0].image_pull_policy.as_deref(), Some("Always"));
        assert_eq!(spec.containers[0].ports.as_ref().unwrap()[0].host_port, Some(80));
        assert_eq!(spec.tolerations.as_ref().unwrap()[0].effect.as_deref(), Some("NoExecute"));
    }

    #[test]
    fn another_text_is_another_pod_and_another_comment_is_not() {
        let uid = |text: &str| read(text).unwrap().metadata.uid.unwrap();
        assert_eq!(uid(WEB), uid(&format!("# a comment\n{WEB}")));
        assert_ne!(uid(WEB), uid(&WEB.replace(":latest", ":1")));
        let elsewhere = pod(WEB, Path::new("/m/other.yaml"), "n1", "now").unwrap();
        assert_ne!(Some(uid(WEB)), elsewhere.metadata.uid);
    }

    #[test]
    fn what_is_no_pod_or_needs_the_api_server_is_refused_in_one_sentence() {
        let spec = |rest: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {rest}\n");
        let one = |more: &str| spec(&format!("{{containers: [{{name: a, image: b}}], {more}}}"));
        for (text, why) in [
            ("a: [".to_owned(), "it is neither YAML nor JSON: "),
            (String::new(), "it says apiVersion \"\" and kind \"\""),
            (
                WEB.replace("kind: Pod", "kind: Service"),
                "it says apiVersion \"v1\" and kind \"Service\", which must be",
            ),
            (format!("{WEB}---\n{WEB}"), "it is neither YAML nor JSON: "),
            (spec("{containers: 7}"), "it is not of a pod's form: "),
            (spec("{containers: []}"), "spec.containers: a pod has at least one"),
            (spec("{containers: [{name: A, image: b}]}"), "spec.containers[0].name: "),
            (spec("{containers: [{name: a, image: b}, {name: a, image: b}]}"), "spec.containers[1].name: another"),
            (spec("{containers: [{name: a}]}"), "spec.containers[0].image: "),
            (WEB.replace("name: web", "name: We b"), "metadata.name: "),
            (one("volumes: [{name: ../x, emptyDir: {}}]"), "spec.volumes[0].name: "),
            (one("serviceAccountName: x"), "static pods may not reference serviceaccounts"),
            (one("imagePullSecrets: [{name: x}]"), "static pods may not reference secrets"),
            (one("volumes: [{name: x, configMap: {name: x}}]"), "static pods may not reference configmaps"),
            (
                one("volumes: [{name: x, persistentVolumeClaim: {claimName: x}}]"),
                "static pods may not reference persistentvolumeclaims",
            ),
            (
                spec("{containers: [{name: a, image: b, envFrom: [{secretRef: {name: x}}]}]}"),
                "static pods may not reference secrets",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(why), "{text}\n{error}\n{why}");
        }
    }
}
