//! `coracle why`: what an object waits for, since when, and what a person can do.

use std::{fmt::Debug, io::Write, path::PathBuf};

use anyhow::Context;
use coracle_process::WrongUse;
use k8s_openapi::{
    ClusterResourceScope, NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::Job,
        core::v1::{Event, Node, PersistentVolumeClaim, Pod, Service},
        discovery::v1::EndpointSlice,
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    config::{KubeConfigOptions, Kubeconfig},
    core::Selector,
};
use serde::de::DeserializeOwned;

use crate::{
    instance::Instance,
    kubeconfig,
    why::{self, Answer, workload},
};

/// Flags of `why`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What kind: pod, deployment, replicaset, statefulset, daemonset, job, service, pvc or node, or kubectl's short names;
    /// also KIND/NAME in one word.
    kind: String,
    /// Its name.
    name: Option<String>,
    /// Its namespace; that of the kubeconfig's context by default.
    #[arg(long, short, env = "CORACLE_NAMESPACE")]
    namespace: Option<String>,
    /// How to reach the cluster; without it the file kubectl uses, and without that the admin kubeconfig in the data
    /// directory.
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The instance's data directory.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle")]
    data_dir: PathBuf,
}

/// Prints the paragraph about one object.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (kind, name) = match (args.kind.split_once('/'), args.name) {
        (Some((kind, name)), None) => (kind.to_owned(), name.to_owned()),
        (None, Some(name)) => (args.kind, name),
        _ => return Err(WrongUse("why needs a kind and a name, as in: coracle why pod web".to_owned()).into()),
    };
    let usual = kubeconfig::default_path().filter(|path| path.exists());
    let file = args.kubeconfig.or(usual);
    let file = file.map_or_else(|| Ok::<_, anyhow::Error>(Instance::new(&args.data_dir)?.admin_kubeconfig()), Ok)?;
    let config = Kubeconfig::read_from(&file).with_context(|| format!("--kubeconfig {}", file.display()))?;
    let config = kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    let namespace = args.namespace.unwrap_or_else(|| config.default_namespace.clone());
    let asker = Asker { client: Client::try_from(config)?, namespace };
    let text = asker.ask(&kind, &name).await?;
    writeln!(std::io::stdout().lock(), "{text}")?;
    Ok(())
}

/// Who asks the cluster.
struct Asker {
    client: Client,
    namespace: String,
}

impl Asker {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn get<K>(&self, name: &str) -> anyhow::Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        self.api::<K>().get(name).await.map_err(|error| plain(error, name))
    }

    /// An object without a namespace that may be missing, or not to be seen by this user.
    async fn look<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<Scope = ClusterResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        Api::<K>::all(self.client.clone()).get(name).await.ok()
    }

    async fn events(&self, kind: &str, name: &str) -> anyhow::Result<Vec<Event>> {
        let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
        Ok(self.api::<Event>().list(&ListParams::default().fields(&fields)).await?.items)
    }

    async fn pods(&self, selector: Option<&LabelSelector>) -> anyhow::Result<Vec<Pod>> {
        let Some(selector) = selector else { return Ok(Vec::new()) };
        let selector = Selector::try_from(selector.clone())?;
        Ok(self.api::<Pod>().list(&ListParams::default().labels_from(&selector)).await?.items)
    }

    async fn pod(&self, pod: &Pod) -> anyhow::Result<Answer> {
        let events = self.events("Pod", &pod.name_any()).await?;
        let node = match pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) {
            Some(name) => self.look::<Node>(name).await,
            None => None,
        };
        Ok(why::pod::why(pod, &events, node.as_ref().map(why::node::is_ready)))
    }

    /// What the pod waits for that is worst off among those of a workload.
    async fn worst(&self, selector: Option<&LabelSelector>) -> anyhow::Result<Option<workload::Worst>> {
        let pods = self.pods(selector).await?;
        let rank = |pod: &&Pod| {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
            // What is over or leaves explains least.
            (pod.metadata.deletion_timestamp.is_some(), matches!(phase, "Succeeded" | "Failed"), pod.name_any())
        };
        let bad = pods.iter().filter(|pod| !why::pod::is_well(pod)).min_by_key(rank);
        Ok(match bad {
            Some(pod) => Some((pod.name_any(), self.pod(pod).await?)),
            None => None,
        })
    }

    async fn workload(
        &self,
        kind: &str,
        object: &impl Resource,
        counts: workload::Counts,
        selector: Option<LabelSelector>,
    ) -> anyhow::Result<Answer> {
        let created = object.meta().creation_timestamp.as_ref().map(|time| time.0);
        let events = self.events(kind, &object.name_any()).await?;
        Ok(workload::why(&counts, created, &events, self.worst(selector.as_ref()).await?))
    }

    async fn ask(&self, kind: &str, name: &str) -> anyhow::Result<String> {
        let (shown, answer) = match kind.to_ascii_lowercase().trim_end_matches(".apps").trim_end_matches(".batch") {
            "pod" | "pods" | "po" => {
                let pod: Pod = self.get(name).await?;
                ("Pod", self.pod(&pod).await?)
            }
            "deployment" | "deployments" | "deploy" => {
                let object: Deployment = self.get(name).await?;
                let selector = object.spec.as_ref().map(|spec| spec.selector.clone());
                ("Deployment", self.workload("Deployment", &object, workload::deployment(&object), selector).await?)
            }
            "replicaset" | "replicasets" | "rs" => {
                let object: ReplicaSet = self.get(name).await?;
                let selector = object.spec.as_ref().map(|spec| spec.selector.clone());
                ("ReplicaSet", self.workload("ReplicaSet", &object, workload::replica_set(&object), selector).await?)
            }
            "statefulset" | "statefulsets" | "sts" => {
                let object: StatefulSet = self.get(name).await?;
                let selector = object.spec.as_ref().map(|spec| spec.selector.clone());
                ("StatefulSet", self.workload("StatefulSet", &object, workload::stateful_set(&object), selector).await?)
            }
            "daemonset" | "daemonsets" | "ds" => {
                let object: DaemonSet = self.get(name).await?;
                let selector = object.spec.as_ref().map(|spec| spec.selector.clone());
                ("DaemonSet", self.workload("DaemonSet", &object, workload::daemon_set(&object), selector).await?)
            }
            "job" | "jobs" => {
                let object: Job = self.get(name).await?;
                let selector = object.spec.as_ref().and_then(|spec| spec.selector.clone());
                let worst = self.worst(selector.as_ref()).await?;
                ("Job", workload::job(&object, &self.events("Job", name).await?, worst))
            }
            "service" | "services" | "svc" => {
                let service: Service = self.get(name).await?;
                let labels = service.spec.as_ref().and_then(|spec| spec.selector.clone()).filter(|s| !s.is_empty());
                let selector =
                    labels.map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None });
                let of = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
                let slices = self.api::<EndpointSlice>().list(&of).await?.items;
                ("Service", why::service::why(&service, &self.pods(selector.as_ref()).await?, &slices))
            }
            "persistentvolumeclaim" | "persistentvolumeclaims" | "pvc" => {
                let claim: PersistentVolumeClaim = self.get(name).await?;
                let class = match claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()) {
                    Some(class) if !class.is_empty() => self.look::<StorageClass>(class).await,
                    _ => None,
                };
                let uses = |pod: &Pod| {
                    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
                    volumes.filter_map(|v| v.persistent_volume_claim.as_ref()).any(|source| source.claim_name == name)
                };
                let pods = self.api::<Pod>().list(&ListParams::default()).await?.items;
                let users: Vec<String> = pods.iter().filter(|pod| uses(pod)).map(Pod::name_any).collect();
                let events = self.events("PersistentVolumeClaim", name).await?;
                ("PersistentVolumeClaim", why::volume_claim::why(&claim, class.as_ref(), &users, &events))
            }
            "node" | "nodes" | "no" => {
                let node = Api::<Node>::all(self.client.clone()).get(name).await;
                let node = node.map_err(|error| plain(error, name))?;
                return Ok(named(why::node::why(&node), name).paragraph(&format!("Node {name}"), Timestamp::now()));
            }
            other => {
                return Err(WrongUse(format!(
                    "{other:?} is not a kind that why explains: pod, deployment, replicaset, statefulset, daemonset, job, \
                     service, pvc, node"
                ))
                .into());
            }
        };
        let subject = format!("{shown} {}/{name}", self.namespace);
        Ok(named(answer, name).paragraph(&subject, Timestamp::now()))
    }
}

/// With the object's name in the commands of its advice, which are to be copied as they stand.
fn named(answer: Answer, name: &str) -> Answer {
    Answer { advice: answer.advice.replace("NAME", name), ..answer }
}

/// The API server's own sentence about what is not there or not allowed.
fn plain(error: kube::Error, name: &str) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{}", status.message),
        other => anyhow::Error::from(other).context(format!("reading {name}")),
    }
}
