//! Events for people: what the node did and why, written to the API server in kubelet's words.
//!
//! Callers hand an event over and go on; one task writes them. A repeated event counts up instead of becoming another
//! object, and an object that makes too many is cut short, as client-go's correlator does.

use std::collections::{BTreeMap, VecDeque};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Event, EventSource, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; more are dropped and counted in the log, since they only tell, never steer.
const QUEUE: usize = 256;
/// Events remembered for counting up.
const REMEMBERED: usize = 512;
/// Events an object may make at once.
const BURST: f64 = 25.0;
/// Events a second it earns back: one in five minutes.
const REFILL: f64 = 1.0 / 300.0;
/// How long after its last repetition an event begins anew.
const FORGET: SignedDuration = SignedDuration::from_secs(600);
/// The longest message an event may have.
const MESSAGE: usize = 1024;

/// Whether an event tells of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All is well.
    Normal,
    /// Something is wrong.
    Warning,
}

/// One thing to tell.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    object: ObjectReference,
    kind: Kind,
    reason: &'static str,
    message: String,
}

/// Where events are handed in. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Note>,
}

/// The other end: the task that writes them.
pub(crate) struct Writer {
    queue: mpsc::Receiver<Note>,
    client: kube::Client,
    node: String,
}

/// A recorder and its writer.
pub(crate) fn channel(client: kube::Client, node: &str) -> (Recorder, Writer) {
    let (tx, rx) = mpsc::channel(QUEUE);
    (Recorder { queue: tx }, Writer { queue: rx, client, node: node.to_owned() })
}

impl Recorder {
    /// Tells something of a pod, or of one of its containers.
    pub(crate) fn pod(&self, pod: &Pod, container: Option<&str>, kind: Kind, reason: &'static str, message: String) {
        let object = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: pod.metadata.namespace.clone(),
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: container.map(|c| crate::pod::field_path(pod, c)),
        };
        self.send(Note { object, kind, reason, message });
    }

    /// Tells something of the node.
    pub(crate) fn node(&self, node: &Node, kind: Kind, reason: &'static str, message: String) {
        let name = node.metadata.name.clone();
        let object =
            ObjectReference { kind: Some("Node".into()), uid: name.clone(), name, ..ObjectReference::default() };
        self.send(Note { object, kind, reason, message });
    }

    fn send(&self, note: Note) {
        if let Err(mpsc::error::TrySendError::Full(note)) = self.queue.try_send(note) {
            tracing::warn!(reason = note.reason, "event dropped: too many wait to be written");
        }
    }
}

/// What makes two events the same.
type Key = (String, String, &'static str, String);

/// An event that was written.
#[derive(Clone, Debug)]
struct Seen {
    name: String,
    namespace: String,
    last: Timestamp,
    count: i32,
}

/// What to do about a note.
#[derive(Clone, Debug, PartialEq)]
enum Decision {
    Create,
    Repeat { name: String, namespace: String, count: i32 },
    Drop,
}

/// The memory that decides between a new event and a repeated one.
#[derive(Debug, Default)]
struct Correlator {
    seen: BTreeMap<Key, Seen>,
    order: VecDeque<Key>,
    buckets: BTreeMap<String, (f64, Timestamp)>,
}

impl Correlator {
    fn key(note: &Note) -> Key {
        let object = &note.object;
        (
            format!("{}/{}", object.kind.as_deref().unwrap_or_default(), object.uid.as_deref().unwrap_or_default()),
            object.field_path.clone().unwrap_or_default(),
            note.reason,
            note.message.clone(),
        )
    }

    fn decide(&mut self, note: &Note, now: Timestamp) -> Decision {
        let key = Self::key(note);
        if self.buckets.len() > REMEMBERED {
            // Full buckets say nothing.
            self.buckets.retain(|_, (left, at)| *left + earned(*at, now) < BURST);
        }
        let bucket = self.buckets.entry(key.0.clone()).or_insert((BURST, now));
        bucket.0 = (bucket.0 + earned(bucket.1, now)).min(BURST);
        bucket.1 = now;
        if bucket.0 < 1.0 {
            return Decision::Drop;
        }
        bucket.0 -= 1.0;
        match self.seen.get_mut(&key) {
            Some(seen) if now.duration_since(seen.last) <= FORGET => {
                seen.count = seen.count.saturating_add(1);
                seen.last = now;
                Decision::Repeat { name: seen.name.clone(), namespace: seen.namespace.clone(), count: seen.count }
            }
            _ => Decision::Create,
        }
    }

    fn remember(&mut self, note: &Note, name: String, namespace: String, now: Timestamp) {
        let key = Self::key(note);
        if self.seen.insert(key.clone(), Seen { name, namespace, last: now, count: 1 }).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.seen.remove(&old);
            }
        }
    }

    fn forget(&mut self, note: &Note) {
        self.seen.remove(&Self::key(note));
    }
}

fn earned(since: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(since).as_secs_f64().max(0.0) * REFILL
}

impl Writer {
    /// Writes events until `shutdown`; what waits then is still written if the API server answers at once.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut correlator = Correlator::default();
        loop {
            let note = tokio::select! {
                biased;
                note = self.queue.recv() => note,
                () = shutdown.cancelled() => None,
            };
            let Some(note) = note else { return };
            self.write(&mut correlator, note).await;
        }
    }

    async fn write(&self, correlator: &mut Correlator, note: Note) {
        let now = Timestamp::now();
        match correlator.decide(&note, now) {
            Decision::Drop => {
                tracing::debug!(reason = note.reason, "event dropped: its object makes too many");
            }
            Decision::Create => self.create(correlator, &note, now).await,
            Decision::Repeat { name, namespace, count } => {
                let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
                let patch = json!({"count": count, "lastTimestamp": Time(now)});
                match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.is_not_found() => {
                        correlator.forget(&note);
                        self.create(correlator, &note, now).await;
                    }
                    Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "event not written"),
                }
            }
        }
    }

    async fn create(&self, correlator: &mut Correlator, note: &Note, now: Timestamp) {
        let event = event(note, &self.node, now);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => correlator.remember(note, name, namespace, now),
            // The namespace may be going; an event is not worth more than a try.
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "event not written"),
        }
    }
}

fn event(note: &Note, node: &str, now: Timestamp) -> Event {
    let object = note.object.clone();
    let namespace = object.namespace.clone().unwrap_or_else(|| "default".into());
    let mut message = note.message.clone();
    if message.len() > MESSAGE {
        let mut end = MESSAGE - 3;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str("...");
    }
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{:x}", object.name.as_deref().unwrap_or_default(), now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: object,
        reason: Some(note.reason.to_owned()),
        message: Some(message),
        type_: Some(match note.kind {
            Kind::Normal => "Normal".into(),
            Kind::Warning => "Warning".into(),
        }),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(node.to_owned()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(node.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let pod = crate::pod::testing::one("Always");
        let (tx, mut rx) = mpsc::channel(1);
        Recorder { queue: tx }.pod(&pod, Some("app"), Kind::Normal, "Pulled", message.into());
        rx.try_recv().unwrap()
    }

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + secs).unwrap()
    }

    #[test]
    fn a_repeated_event_counts_up_until_it_is_old() {
        let mut correlator = Correlator::default();
        assert_eq!(correlator.decide(&note("a"), at(0)), Decision::Create);
        correlator.remember(&note("a"), "web.1".into(), "default".into(), at(0));
        let repeat = Decision::Repeat { name: "web.1".into(), namespace: "default".into(), count: 2 };
        assert_eq!(correlator.decide(&note("a"), at(5)), repeat);
        assert_eq!(correlator.decide(&note("b"), at(5)), Decision::Create);
        assert_eq!(correlator.decide(&note("a"), at(1000)), Decision::Create);
    }

    #[test]
    fn an_object_that_makes_too_many_is_cut_short() {
        let mut correlator = Correlator::default();
        let made = (0..100).filter(|i| correlator.decide(&note(&i.to_string()), at(0)) == Decision::Create).count();
        assert_eq!(made, 25);
        assert_eq!(correlator.decide(&note("later"), at(301)), Decision::Create);
    }

    #[test]
    fn events_name_the_container_and_stay_short() {
        let event = event(&note(&"ü".repeat(2000)), "n1", at(0));
        assert_eq!(event.involved_object.field_path.as_deref(), Some("spec.containers{app}"));
        let message = event.message.unwrap();
        assert!(message.len() <= 1024 && message.ends_with("ü..."));
    }
}
