//! The tables against types that others made of Kubernetes' published `.proto` files: the crate k8s-pb.
//!
//! An object with every field of its kind said goes out by our tables and is read as the crate's type. What the type does
//! not have, or has as something else, is lost or refused there: the same bytes must come back, and ours must read them as
//! the same JSON. The type's own names (its `Debug`) say that each value lies where its name does, and that it has no field
//! that a table lacks.

mod shown;

use k8s_pb::{
    api, apiextensions_apiserver::pkg::apis::apiextensions, apimachinery::pkg::apis::meta,
    apimachinery::pkg::runtime::Unknown, kube_aggregator::pkg::apis::apiregistration, metrics::pkg::apis::metrics,
};
use prost::{DecodeError, Message};
use serde_json::Map;

use self::shown::Shown;
use super::{
    super::table::{Field, SCHEMA},
    *,
};
use crate::go_duration;

/// Reads bytes as a type; what the type makes of them, and how it shows itself.
type Judge = fn(&[u8]) -> Result<(Vec<u8>, String), DecodeError>;

fn judge<T: Message + Default + std::fmt::Debug>(bytes: &[u8]) -> Result<(Vec<u8>, String), DecodeError> {
    let read = T::decode(bytes)?;
    Ok((read.encode_to_vec(), format!("{read:?}")))
}

macro_rules! kinds {
    ($($version:literal, $module:path: $($kind:ident)*;)*) => {{
        let mut kinds: Vec<(&str, &str, Judge)> = Vec::new();
        $({
            use $module as of;
            $(kinds.push(($version, stringify!($kind), judge::<of::$kind>));)*
        })*
        kinds
    }};
}

/// The kinds that no other message holds; lists stand for what is in them, too.
fn kinds() -> Vec<(&'static str, &'static str, Judge)> {
    kinds! {
        "admissionregistration.k8s.io/v1", api::admissionregistration::v1: ValidatingAdmissionPolicyBindingList
            ValidatingAdmissionPolicyList ValidatingWebhookConfigurationList MutatingWebhookConfigurationList;
        // Of the first version in the crate's Kubernetes; v1 has the same numbers.
        "admissionregistration.k8s.io/v1", api::admissionregistration::v1beta1: MutatingAdmissionPolicyBindingList
            MutatingAdmissionPolicyList;
        "apiextensions.k8s.io/v1", apiextensions::v1: CustomResourceDefinitionList;
        "apiextensions.k8s.io/v1beta1", apiextensions::v1beta1: CustomResourceDefinitionList;
        "apiregistration.k8s.io/v1", apiregistration::v1: APIServiceList;
        "apps/v1", api::apps::v1: ControllerRevisionList DaemonSetList DeploymentList ReplicaSetList StatefulSetList;
        "apps/v1beta1", api::apps::v1beta1: ControllerRevisionList DeploymentList StatefulSetList;
        "apps/v1beta2", api::apps::v1beta2: ControllerRevisionList DaemonSetList DeploymentList ReplicaSetList
            StatefulSetList;
        "authentication.k8s.io/v1", api::authentication::v1: SelfSubjectReview TokenRequest TokenReview;
        "authorization.k8s.io/v1", api::authorization::v1: LocalSubjectAccessReview SelfSubjectAccessReview
            SelfSubjectRulesReview SubjectAccessReview;
        "autoscaling/v1", api::autoscaling::v1: HorizontalPodAutoscalerCondition HorizontalPodAutoscalerList MetricSpec
            MetricStatus Scale;
        "autoscaling/v2", api::autoscaling::v2: HorizontalPodAutoscalerList;
        "batch/v1", api::batch::v1: CronJobList JobList;
        "batch/v1beta1", api::batch::v1beta1: CronJobList;
        "certificates.k8s.io/v1", api::certificates::v1: CertificateSigningRequestList;
        "coordination.k8s.io/v1", api::coordination::v1: LeaseList;
        "discovery.k8s.io/v1", api::discovery::v1: EndpointSliceList;
        "events.k8s.io/v1", api::events::v1: EventList;
        "extensions/v1beta1", api::extensions::v1beta1: DaemonSetList DeploymentList IngressList NetworkPolicyList
            ReplicaSetList;
        "flowcontrol.apiserver.k8s.io/v1", api::flowcontrol::v1: FlowSchemaList PriorityLevelConfigurationList;
        "meta.k8s.io/v1", meta::v1: PartialObjectMetadataList;
        "meta.k8s.io/v1beta1", meta::v1beta1: PartialObjectMetadataList;
        "metrics.k8s.io/v1beta1", metrics::v1beta1: NodeMetricsList PodMetricsList;
        "networking.k8s.io/v1", api::networking::v1: IPAddressList IngressClassList IngressList NetworkPolicyList
            ServiceCIDRList;
        "networking.k8s.io/v1beta1", api::networking::v1beta1: IngressClassList IngressList;
        "node.k8s.io/v1", api::node::v1: RuntimeClassList;
        "policy/v1", api::policy::v1: Eviction PodDisruptionBudgetList;
        "policy/v1beta1", api::policy::v1beta1: PodDisruptionBudgetList;
        "rbac.authorization.k8s.io/v1", api::rbac::v1: ClusterRoleBindingList ClusterRoleList RoleBindingList RoleList;
        "rbac.authorization.k8s.io/v1beta1", api::rbac::v1beta1: ClusterRoleBindingList ClusterRoleList RoleBindingList
            RoleList;
        "resource.k8s.io/v1", api::resource::v1: DeviceClassList ResourceClaimList ResourceClaimTemplateList
            ResourceSliceList;
        "scheduling.k8s.io/v1", api::scheduling::v1: PriorityClassList;
        "storage.k8s.io/v1", api::storage::v1: CSIDriverList CSINodeList CSIStorageCapacityList StorageClassList
            VolumeAttachmentList VolumeAttributesClassList;
        "v1", meta::v1: APIGroupList APIResourceList APIVersions CreateOptions DeleteOptions GetOptions ListOptions
            PatchOptions Status UpdateOptions;
        "v1", api::core::v1: AvoidPods Binding ComponentStatusList ConfigMapList EndpointsList EventList LimitRangeList
            NamespaceList NodeList NodeProxyOptions PersistentVolumeClaimList PersistentVolumeList PodAttachOptions
            PodExecOptions PodList PodLogOptions PodPortForwardOptions PodProxyOptions PodStatusResult PodTemplateList
            Preconditions RangeAllocation ReplicationControllerList ResourceQuotaList SecretList SerializedReference
            ServiceAccountList ServiceList ServiceProxyOptions;
    }
}

/// Fields of Kubernetes 1.36 that 1.35, of which the crate's types are, did not have.
const YOUNGER: &[(&str, &str)] = &[
    ("core.v1.PodSpec", "schedulingGroup"),
    ("core.v1.PodStatus", "nodeAllocatableResourceClaimStatuses"),
    ("core.v1.ResourceHealth", "message"),
    ("core.v1.VolumeMountStatus", "volumeStatus"),
    ("meta.v1.ListMeta", "shardInfo"),
    ("meta.v1.ListOptions", "shardSelector"),
    ("resource.v1.Device", "nodeAllocatableResourceMappings"),
    ("resource.v1.DeviceAttribute", "bools"),
    ("resource.v1.DeviceAttribute", "ints"),
    ("resource.v1.DeviceAttribute", "strings"),
    ("resource.v1.DeviceAttribute", "versions"),
    ("storage.v1.CSIDriverSpec", "preventPodSchedulingIfMissing"),
];

/// Messages that only those fields hold.
const YOUNGER_MESSAGES: &[&str] = &[
    "core.v1.ImageVolumeStatus",
    "core.v1.NodeAllocatableResourceClaimStatus",
    "core.v1.PodSchedulingGroup",
    "core.v1.VolumeStatus",
    "meta.v1.ShardInfo",
    "resource.v1.NodeAllocatableResourceMapping",
];

/// Fields of 1.35 that 1.36 took away again; they were never more than alpha.
const GONE: &[(&str, &str)] = &[("core.v1.PodSpec", "workloadref")];

fn short(message: &str) -> &str {
    message.strip_prefix("io.k8s.api.").unwrap_or(message)
}

fn is_younger(message: &str, field: &Field) -> bool {
    field.name.is_some_and(|name| YOUNGER.contains(&(short(message), name)))
}

/// Gives every value another content, and none its zero.
struct Filler {
    given: i64,
    /// Which of the truth values of a message are true: those whose place, from one on, has this bit, or all.
    bit: Option<u32>,
    /// Within so many schemas; those in another have no messages of their own.
    schemas: u32,
}

impl Filler {
    fn new(bit: Option<u32>) -> Self {
        Self { given: 0, bit, schemas: 0 }
    }

    fn schema(&mut self) -> Value {
        self.schemas += 1;
        let schema = self.message(SCHEMA);
        self.schemas -= 1;
        schema.into()
    }

    fn message(&mut self, message: &str) -> Map<String, Value> {
        let is_inner_schema = self.schemas > 1;
        let mut object = Map::new();
        let mut truths = 0_u32;
        for field in &TABLES[message] {
            if is_younger(message, field) {
                continue;
            }
            let Some(name) = field.name else {
                let Type::Message(inner) = &field.content else { panic!("{message} inlines {:?}", field.content) };
                object.append(&mut self.message(inner));
                continue;
            };
            let value = match &field.content {
                Type::Boolean { keeps_zero } => {
                    truths += 1;
                    let is_true = self.bit.is_none_or(|bit| truths & 1 << bit != 0);
                    // A zero that counts is said.
                    (is_true || *keeps_zero).then(|| is_true.into())
                }
                Type::Message(_) | Type::List(_) | Type::Map(_) | Type::SchemaOrArray | Type::SchemaOrBool
                    if is_inner_schema =>
                {
                    None
                }
                content => Some(self.value(content)),
            };
            if let Some(value) = value {
                object.insert(name.to_owned(), value);
            }
        }
        object
    }

    fn text(&mut self) -> String {
        self.given += 1;
        format!("t{}", self.given)
    }

    fn value(&mut self, content: &Type) -> Value {
        self.given += 1;
        let given = self.given;
        let time = || jiff::Timestamp::from_second(given).unwrap();
        match content {
            Type::Text { .. } => self.text().into(),
            Type::Integer { .. } => given.into(),
            Type::Boolean { .. } => true.into(),
            Type::Double => (f64::from(i32::try_from(given).unwrap()) + 0.5).into(),
            Type::Bytes => serde_json::to_value(k8s_openapi::ByteString(given.to_le_bytes().to_vec())).unwrap(),
            Type::List(element) => json!([self.value(element), self.value(element)]),
            Type::Map(content) => json!({self.text(): self.value(content)}),
            Type::Message(inner) if inner == SCHEMA => self.schema(),
            Type::Message(inner) => self.message(inner).into(),
            Type::Time => time().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
            Type::MicroTime => time().strftime("%Y-%m-%dT%H:%M:%S.000007Z").to_string().into(),
            Type::Duration => go_duration::show(jiff::SignedDuration::from_nanos(given)).into(),
            Type::Quantity => given.to_string().into(),
            Type::IntOrString if given % 2 == 0 => given.into(),
            Type::IntOrString => self.text().into(),
            Type::Raw => json!({"raw": given}),
            Type::Items => json!([self.text(), self.text()]),
            Type::SchemaOrArray if given % 2 == 0 => json!([self.schema(), self.schema()]),
            Type::SchemaOrBool if given % 2 == 0 => true.into(),
            Type::SchemaOrArray | Type::SchemaOrBool => self.schema(),
        }
    }
}

/// Compares what was said with what the judge shows.
struct Comparison {
    /// Messages that were met.
    met: std::collections::BTreeSet<String>,
    wrong: std::collections::BTreeSet<String>,
}

impl Comparison {
    fn message(&mut self, message: &str, said: &Map<String, Value>, shown: &Shown) {
        self.met.insert(message.to_owned());
        let (name, members) = match shown {
            Shown::Message(name, members) => (name, members.as_slice()),
            Shown::Scalar(name) if TABLES[message].is_empty() => (name, [].as_slice()),
            other => {
                self.wrong.insert(format!("{message} is shown as {other:?}"));
                return;
            }
        };
        let own = message.rsplit('.').next().unwrap();
        if !name.eq_ignore_ascii_case(own) {
            self.wrong.insert(format!("{message} lies where {name} is"));
        }
        let mut left: Vec<&(String, Shown)> = members.iter().collect();
        for field in &TABLES[message] {
            let is_it = |(name, shown): &&(String, Shown)| match (field.name, &field.content, shown) {
                (Some(own), ..) => *name == shown::plain(own),
                (None, Type::Message(inner), Shown::Message(name, _)) => {
                    inner.to_lowercase().ends_with(&format!(".{}", name.to_lowercase()))
                }
                (None, ..) => false,
            };
            let label = format!("{message}.{}", field.name.unwrap_or("^"));
            let place = left.iter().position(is_it);
            let (place, is_younger) = match (place, is_younger(message, field)) {
                (None, true) => continue,
                (place, is_younger) => (place, is_younger),
            };
            let Some(place) = place.filter(|_| !is_younger) else {
                self.wrong.insert(format!("{label}: the judge {} it", if is_younger { "knows" } else { "lacks" }));
                continue;
            };
            let (_, shown) = left.remove(place);
            match (field.name, &field.content) {
                (None, Type::Message(inner)) => self.message(inner, said, shown),
                (None, _) => {}
                (Some(name), content) => self.value(&label, content, said.get(name), shown),
            }
        }
        for (name, _) in left.iter().filter(|(name, _)| !GONE.contains(&(short(message), name))) {
            self.wrong.insert(format!("{message} lacks {name}"));
        }
    }

    fn value(&mut self, label: &str, content: &Type, said: Option<&Value>, shown: &Shown) {
        let is_alike = match (content, said, shown) {
            (Type::Boolean { .. }, None, Shown::Nothing) => true,
            (Type::Boolean { .. }, None, Shown::Scalar(shown)) => shown == "false",
            // (Inner schemas.)
            (_, None, Shown::Nothing) => true,
            (_, None, Shown::List(items)) => items.is_empty(),
            (_, None, Shown::Map(entries)) => entries.is_empty(),
            (
                Type::Text { .. } | Type::Integer { .. } | Type::Boolean { .. } | Type::Double,
                Some(said),
                Shown::Scalar(shown),
            ) => serde_json::from_str::<Value>(shown).is_ok_and(|shown| shown == *said),
            (Type::Bytes, Some(said), Shown::List(bytes)) => {
                let bytes = bytes.iter().map(|byte| match byte {
                    Shown::Scalar(byte) => byte.parse().ok(),
                    _ => None,
                });
                bytes.collect::<Option<Vec<u8>>>().is_some_and(|bytes| json!(k8s_openapi::ByteString(bytes)) == *said)
            }
            (Type::List(element), Some(Value::Array(said)), Shown::List(shown)) => {
                for (said, shown) in said.iter().zip(shown) {
                    self.value(label, element, Some(said), shown);
                }
                said.len() == shown.len()
            }
            (Type::Map(content), Some(Value::Object(said)), Shown::Map(shown)) => {
                for (key, shown) in shown {
                    self.value(label, content, said.get(key), shown);
                }
                said.len() == shown.len()
            }
            (Type::Message(inner), Some(Value::Object(said)), shown) => {
                self.message(inner, said, shown);
                true
            }
            // What is in the small messages comes back in the bytes.
            (Type::Time, Some(_), Shown::Message(name, _)) => name == "Time",
            (Type::MicroTime, Some(_), Shown::Message(name, _)) => name == "MicroTime",
            (Type::Duration, Some(_), Shown::Message(name, _)) => name == "Duration",
            (Type::Quantity, Some(_), Shown::Message(name, _)) => name == "Quantity",
            (Type::IntOrString, Some(_), Shown::Message(name, _)) => name == "IntOrString",
            (Type::Raw, Some(_), Shown::Message(name, _)) => {
                ["FieldsV1", "Json", "RawExtension"].contains(&name.as_str())
            }
            (Type::Items, Some(_), Shown::Message(_, members)) => {
                matches!(members.as_slice(), [(name, _)] if name == "items")
            }
            (Type::SchemaOrArray | Type::SchemaOrBool, Some(_), Shown::Message(name, _)) => {
                name.starts_with("JsonSchemaPropsOr")
            }
            _ => false,
        };
        if !is_alike {
            self.wrong.insert(format!("{label}: {content:?} {said:?} is shown as {shown:?}"));
        }
    }
}

/// What is in an envelope, which is as the judge has it.
fn unwrapped(api_version: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let envelope = Unknown::decode(&body[MAGIC.len()..]).unwrap();
    assert_eq!(envelope.encode_to_vec(), body[MAGIC.len()..], "{api_version} {kind}");
    let type_meta = envelope.type_meta.unwrap();
    assert_eq!((type_meta.api_version.as_deref(), type_meta.kind.as_deref()), (Some(api_version), Some(kind)));
    envelope.raw.unwrap()
}

#[test]
fn every_field_lies_where_the_published_types_have_it() {
    let mut comparison =
        Comparison { met: std::collections::BTreeSet::new(), wrong: std::collections::BTreeSet::new() };
    // Four bits tell fifteen truth values of one message apart.
    for bit in [None, Some(0), Some(1), Some(2), Some(3)] {
        for (api_version, kind, judge) in kinds() {
            let message = message_of(api_version, kind).unwrap_or_else(|| panic!("no table for {api_version} {kind}"));
            let mut said = Filler::new(bit).message(&message);
            said.insert("apiVersion".to_owned(), api_version.into());
            said.insert("kind".to_owned(), kind.into());
            let object = Value::Object(said.clone());
            let body = from_json(&object).unwrap_or_else(|error| panic!("{api_version} {error}"));
            let raw = unwrapped(api_version, kind, &body);
            let (again, shown) = judge(&raw).unwrap_or_else(|error| panic!("{api_version} {kind}: {error}"));
            comparison.message(&message, &said, &Shown::read(&shown));
            // A younger field that is no pointer is written though nobody said it; its number is the highest.
            let zeros = TABLES[&message].iter().filter(|field| field.is_value && is_younger(&message, field));
            let zeros: Vec<u8> = zeros.flat_map(|field| bytes(field.number.into(), b"")).collect();
            if [again.as_slice(), &zeros].concat() != raw {
                comparison.wrong.insert(format!("{api_version} {kind}: {} bytes of {}", again.len(), raw.len()));
            }
            let read = to_json(&super::body(api_version, kind, &again))
                .unwrap_or_else(|error| panic!("{api_version} {error}"));
            if read != object {
                comparison.wrong.insert(format!("{api_version} {kind}: other JSON"));
            }
        }
    }
    for message in TABLES.keys() {
        if comparison.met.contains(message) == YOUNGER_MESSAGES.contains(&short(message)) {
            comparison.wrong.insert(format!("{message}: whether it is judged is told wrong"));
        }
    }
    assert!(comparison.wrong.is_empty(), "{:#?}", comparison.wrong);
}

#[test]
fn an_event_of_a_watch_is_the_published_one() {
    let mut out = Vec::new();
    write_event("ADDED", b"k8s\0...".to_vec(), &mut out).unwrap();
    let event = meta::v1::WatchEvent::decode(&out[4..]).unwrap();
    assert_eq!(event.r#type.as_deref(), Some("ADDED"));
    assert_eq!(event.object.unwrap().raw.as_deref(), Some(b"k8s\0...".as_slice()));
}
