//! Static pods and the objects that show them: for each pod of the manifest directory the API server has one object, its
//! mirror, with the pod's hash in an annotation. The mirror is made and removed to follow the pod, never the other way round:
//! whoever deletes it sees it come back, and the pod runs on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};

use crate::context::Context;
use crate::manifests::Manifests;
use crate::manifests::read::MIRROR;
use crate::pod;
use crate::pod::start::chain;

/// The shortest wait after a step that failed.
const RETRY_LEAST: Duration = Duration::from_millis(200);
/// The longest one.
const RETRY_MOST: Duration = Duration::from_secs(60);

/// A static pod as its worker is told of it.
pub(crate) struct Shown {
    /// The pod, with the status its mirror has.
    pub(crate) pod: Arc<Pod>,
    /// The mirror's uid, if there is one.
    pub(crate) mirror: Option<String>,
}

/// An object that shows a static pod.
#[derive(Clone, Debug)]
struct Mirror {
    uid: String,
    hash: String,
    version: Option<String>,
    status: Option<PodStatus>,
    /// It says that its pod is over, which was another run of the pod: an agent before this one wrote it.
    stale: bool,
    /// Somebody deletes it.
    going: bool,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// Make the mirror of this pod.
    Create(Arc<Pod>),
    /// Remove this one.
    Delete {
        /// Where it is.
        namespace: String,
        /// What it is called.
        name: String,
        /// The very object.
        uid: String,
    },
}

/// What came of a step.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The mirror of the pod with this uid.
    Created(Box<Pod>),
    /// It is gone.
    Deleted {
        /// Where it was.
        namespace: String,
        /// What it was called.
        name: String,
        /// The very object.
        uid: String,
    },
    /// The API server takes no such pod, and will not when asked again.
    Refused {
        /// The static pod's uid.
        uid: String,
    },
    /// It may be tried again.
    Failed,
}

/// The static pods and their mirrors.
#[derive(Debug, Default)]
pub(crate) struct Mirrors {
    pods: Manifests,
    /// By namespace and name.
    mirrors: BTreeMap<(String, String), Mirror>,
    /// All mirrors there are have been seen.
    listed: bool,
    /// Those seen since the list began.
    listing: BTreeSet<(String, String)>,
    /// Pods the API server does not take.
    refused: BTreeSet<String>,
    /// How long to wait before the next step.
    wait: Duration,
    busy: bool,
}

/// Whether an object only shows a static pod.
pub(crate) fn is_mirror(pod: &Pod) -> bool {
    hash_of(pod).is_some()
}

fn hash_of(pod: &Pod) -> Option<&String> {
    pod.metadata.annotations.as_ref()?.get(MIRROR)
}

fn key(pod: &Pod) -> (String, String) {
    (pod::namespace(pod).to_owned(), pod::name(pod).to_owned())
}

impl Mirrors {
    /// The static pods there are.
    pub(crate) fn pods(&self) -> &BTreeMap<String, Arc<Pod>> {
        &self.pods
    }

    /// Other manifests.
    pub(crate) fn set(&mut self, pods: Manifests) {
        self.refused.retain(|uid| pods.contains_key(uid));
        self.pods = pods;
    }

    /// The list of the node's pods begins.
    pub(crate) fn begin(&mut self) {
        self.listing.clear();
    }

    /// The list is complete: what was not in it is no more.
    pub(crate) fn complete(&mut self) {
        let seen = std::mem::take(&mut self.listing);
        self.mirrors.retain(|key, _| seen.contains(key));
        self.listed = true;
    }

    /// A mirror as it is now; answers the uid of the pod it shows.
    pub(crate) fn hear(&mut self, object: &Pod) -> Option<String> {
        let hash = hash_of(object)?.clone();
        let (key, uid) = (key(object), pod::uid(object).to_owned());
        let over = object.status.as_ref().and_then(|s| s.phase.as_deref());
        let over = matches!(over, Some("Succeeded" | "Failed"));
        let stale = self.mirrors.get(&key).filter(|m| m.uid == uid).map_or(over, |before| before.stale);
        self.listing.insert(key.clone());
        let mirror = Mirror {
            uid,
            hash: hash.clone(),
            version: object.metadata.resource_version.clone(),
            status: object.status.clone(),
            stale,
            going: object.metadata.deletion_timestamp.is_some(),
        };
        self.mirrors.insert(key, mirror);
        Some(hash)
    }

    /// A mirror is gone; answers the uid of the pod it showed.
    pub(crate) fn gone(&mut self, object: &Pod) -> Option<String> {
        let key = key(object);
        if self.mirrors.get(&key).is_some_and(|mirror| mirror.uid == pod::uid(object)) {
            self.mirrors.remove(&key);
        }
        hash_of(object).cloned()
    }

    /// The static pod with this uid as its worker is to see it.
    pub(crate) fn shown(&self, uid: &str) -> Option<Shown> {
        let pod = self.pods.get(uid)?;
        let mirror = self.mirrors.get(&key(pod)).filter(|m| m.hash == uid && !m.stale && !m.going);
        let Some(mirror) = mirror else { return Some(Shown { pod: Arc::clone(pod), mirror: None }) };
        let mut shown = Pod::clone(pod);
        shown.metadata.resource_version.clone_from(&mirror.version);
        shown.status.clone_from(&mirror.status);
        Some(Shown { pod: Arc::new(shown), mirror: Some(mirror.uid.clone()) })
    }

    /// The next step and how long to wait before it, if one is due and none is under way; from here on one is.
    pub(crate) fn begin_step(&mut self) -> Option<(Step, Duration)> {
        if self.busy {
            return None;
        }
        let step = self.step()?;
        self.busy = true;
        Some((step, self.wait))
    }

    fn step(&self) -> Option<Step> {
        if !self.listed {
            return None;
        }
        for ((namespace, name), mirror) in &self.mirrors {
            let right = self.pods.get(&mirror.hash).is_some_and(|pod| key(pod) == (namespace.clone(), name.clone()));
            if !right || mirror.stale || mirror.going {
                let (namespace, name, uid) = (namespace.clone(), name.clone(), mirror.uid.clone());
                return Some(Step::Delete { namespace, name, uid });
            }
        }
        let missing =
            |(uid, pod): &(&String, &Arc<Pod>)| !self.mirrors.contains_key(&key(pod)) && !self.refused.contains(*uid);
        self.pods.iter().find(missing).map(|(_, pod)| Step::Create(Arc::clone(pod)))
    }

    /// A step has ended; answers the uid of the pod whose mirror is another one now.
    pub(crate) fn ended(&mut self, outcome: Outcome) -> Option<String> {
        self.busy = false;
        match outcome {
            Outcome::Created(object) => {
                self.wait = Duration::ZERO;
                self.hear(&object)
            }
            Outcome::Deleted { namespace, name, uid } => {
                self.wait = Duration::ZERO;
                let key = (namespace, name);
                let is_it = self.mirrors.get(&key).is_some_and(|mirror| mirror.uid == uid);
                if is_it { self.mirrors.remove(&key).map(|mirror| mirror.hash) } else { None }
            }
            Outcome::Refused { uid } => {
                self.refused.insert(uid);
                None
            }
            Outcome::Failed => {
                self.wait = (self.wait * 2).clamp(RETRY_LEAST, RETRY_MOST);
                None
            }
        }
    }
}

/// Takes a step.
pub(crate) async fn take(context: Arc<Context>, step: Step, wait: Duration) -> Outcome {
    tokio::time::sleep(wait).await;
    match step {
        Step::Create(pod) => create(&context, &pod).await,
        Step::Delete { namespace, name, uid } => {
            let api: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(uid.clone()), resource_version: None }),
                ..DeleteParams::default()
            };
            match api.delete(&name, &params).await {
                Ok(_) => Outcome::Deleted { namespace, name, uid },
                Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {
                    Outcome::Deleted { namespace, name, uid }
                }
                Err(error) => {
                    tracing::warn!(pod = format!("{namespace}/{name}"), why = chain(&error), "mirror pod not deleted");
                    Outcome::Failed
                }
            }
        }
    }
}

async fn create(context: &Context, pod: &Pod) -> Outcome {
    let mut node = context.node();
    if node.metadata.uid.is_none() {
        node = crate::node::look(context).await;
    }
    // Without its node's object it would have no owner, and stay when the node goes.
    let Some(owner) = node.metadata.uid.clone() else { return Outcome::Failed };
    let mirror = mirror_of(pod, &context.config.node_name, owner);
    let api: Api<Pod> = Api::namespaced(context.client.clone(), pod::namespace(pod));
    match api.create(&PostParams::default(), &mirror).await {
        Ok(made) => Outcome::Created(Box::new(made)),
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(pod = pod::key(pod), why, "the API server is not shown a static pod");
            match error {
                kube::Error::Api(status) if status.is_invalid() => {
                    let message = format!("Failed creating a mirror pod for \"{}\": {why}", pod::key(pod));
                    context.events.node(&context.node(), crate::event::Kind::Warning, "InvalidStaticPod", message);
                    Outcome::Refused { uid: pod::uid(pod).to_owned() }
                }
                _ => Outcome::Failed,
            }
        }
    }
}

/// The object that shows a static pod, owned by its node.
fn mirror_of(pod: &Pod, node: &str, owner: String) -> Pod {
    let mut mirror = pod.clone();
    let hash = pod::uid(pod).to_owned();
    mirror.metadata.uid = None;
    mirror.metadata.annotations.get_or_insert_default().insert(MIRROR.into(), hash);
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node.to_owned(),
        uid: owner,
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn manifest(image: &str) -> Arc<Pod> {
        let text = format!(
            "{{\"apiVersion\": \"v1\", \"kind\": \"Pod\", \"metadata\": {{\"name\": \"web\"}}, \
            \"spec\": {{\"containers\": [{{\"name\": \"a\", \"image\": \"{image}\"}}]}}}}"
        );
        Arc::new(crate::manifests::read::pod(&text, Path::new("/m/web"), "n1", "now").unwrap())
    }

    fn set(pods: &[&Arc<Pod>]) -> Manifests {
        Arc::new(pods.iter().map(|pod| (pod::uid(pod).to_owned(), Arc::clone(pod))).collect())
    }

    fn object(of: &Pod, uid: &str, phase: &str) -> Pod {
        let mut mirror = mirror_of(of, "n1", "node".into());
        mirror.metadata.uid = Some(uid.into());
        mirror.metadata.resource_version = Some("7".into());
        mirror.status = serde_json::from_value(json!({"phase": phase})).unwrap();
        mirror
    }

    fn delete(uid: &str) -> Option<Step> {
        Some(Step::Delete { namespace: "default".into(), name: "web-n1".into(), uid: uid.into() })
    }

    #[test]
    fn the_mirror_follows_its_pod() {
        let (one, two) = (manifest("b:1"), manifest("b:2"));
        let uid = pod::uid(&one);
        let mut mirrors = Mirrors::default();
        mirrors.set(set(&[&one]));
        assert_eq!(mirrors.step(), None, "what there is already is not known yet");
        assert!(mirrors.shown(uid).unwrap().mirror.is_none());
        mirrors.begin();
        mirrors.complete();
        assert_eq!(mirrors.begin_step(), Some((Step::Create(Arc::clone(&one)), Duration::ZERO)));
        assert_eq!(mirrors.begin_step(), None, "one at a time");
        assert_eq!(mirrors.ended(Outcome::Failed), None);
        assert_eq!(mirrors.begin_step().unwrap().1, RETRY_LEAST);
        assert_eq!(mirrors.ended(Outcome::Created(Box::new(object(&one, "m1", "Pending")))).as_deref(), Some(uid));
        assert_eq!(mirrors.step(), None);
        let shown = mirrors.shown(uid).unwrap();
        assert_eq!((shown.mirror.as_deref(), pod::uid(&shown.pod)), (Some("m1"), uid));
        assert_eq!(shown.pod.status.as_ref().unwrap().phase.as_deref(), Some("Pending"));

        // Deleted by somebody: first to the end, then made again.
        let mut going = object(&one, "m1", "Running");
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        mirrors.hear(&going);
        assert_eq!(mirrors.step(), delete("m1"));
        mirrors.gone(&going);
        assert_eq!(mirrors.step(), Some(Step::Create(Arc::clone(&one))));

        // Another manifest: the old mirror goes, the new one comes.
        mirrors.hear(&object(&one, "m2", "Running"));
        mirrors.set(set(&[&two]));
        assert_eq!(mirrors.step(), delete("m2"));
        let (namespace, name, uid) = ("default".into(), "web-n1".into(), "m2".into());
        mirrors.ended(Outcome::Deleted { namespace, name, uid });
        assert_eq!(mirrors.step(), Some(Step::Create(Arc::clone(&two))));

        // One the API server does not take is not tried again until it is another one.
        mirrors.ended(Outcome::Refused { uid: pod::uid(&two).to_owned() });
        assert_eq!(mirrors.step(), None);
        mirrors.set(set(&[&one]));
        assert_eq!(mirrors.step(), Some(Step::Create(one)));
    }

    #[test]
    fn what_an_earlier_agent_left_is_not_believed() {
        let one = manifest("b:1");
        let mut mirrors = Mirrors::default();
        mirrors.set(set(&[&one]));
        mirrors.begin();
        mirrors.hear(&object(&one, "m1", "Failed"));
        mirrors.complete();
        assert_eq!(mirrors.step(), delete("m1"), "it was another run of the pod");
        assert!(mirrors.shown(pod::uid(&one)).unwrap().mirror.is_none());
        mirrors.hear(&object(&one, "m2", "Pending"));
        mirrors.hear(&object(&one, "m2", "Succeeded"));
        assert_eq!(mirrors.step(), None, "this one is of this run");
        mirrors.set(set(&[]));
        assert_eq!(mirrors.step(), delete("m2"), "nobody's");
        mirrors.begin();
        mirrors.complete();
        assert_eq!(mirrors.step(), None);
    }
}
