//! Writes down the JSON schemas of Kubernetes' types, which `src/schema/openapi.rs` makes OpenAPI documents of.
//!
//! Each type brings code that says what it is like. That code is run here, once, so that the program has what comes of it
//! (some hundred kilobytes) and not the code (some megabytes).

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use flate2::{Compression, write::ZlibEncoder};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde::Serialize;
use serde_json::Value;

/// What is written.
#[derive(Serialize)]
struct Written {
    /// Group, version and kind of every kind.
    kinds: Vec<(&'static str, &'static str, &'static str)>,
    /// The schemas, by name.
    schemas: BTreeMap<String, Value>,
}

macro_rules! kinds {
    ($($group:literal $version:literal $($module:ident)::+ [$($kind:ident),* $(,)?];)+) => {
        /// Puts the schemas of all kinds, and of all they refer to, into the generator; says which kinds there are.
        fn register(generator: &mut SchemaGenerator) -> Vec<(&'static str, &'static str, &'static str)> {
            let mut kinds = Vec::new();
            $({
                use k8s_openapi::$($module)::+ as types;
                $(
                    generator.subschema_for::<types::$kind>();
                    kinds.push(($group, $version, stringify!($kind)));
                )*
            })+
            kinds
        }
    };
}

kinds! {
    "" "v1" api::core::v1 [ComponentStatus, ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodTemplate,
        ReplicationController, ResourceQuota, Secret, Service, ServiceAccount, Binding];
    "admissionregistration.k8s.io" "v1" api::admissionregistration::v1 [MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration];
    "apiextensions.k8s.io" "v1" apiextensions_apiserver::pkg::apis::apiextensions::v1 [CustomResourceDefinition];
    "apiregistration.k8s.io" "v1" kube_aggregator::pkg::apis::apiregistration::v1 [APIService];
    "apps" "v1" api::apps::v1 [ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet];
    "authentication.k8s.io" "v1" api::authentication::v1 [SelfSubjectReview, TokenRequest, TokenReview];
    "authorization.k8s.io" "v1" api::authorization::v1 [LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview];
    "autoscaling" "v1" api::autoscaling::v1 [HorizontalPodAutoscaler, Scale];
    "autoscaling" "v2" api::autoscaling::v2 [HorizontalPodAutoscaler];
    "batch" "v1" api::batch::v1 [CronJob, Job];
    "certificates.k8s.io" "v1" api::certificates::v1 [CertificateSigningRequest];
    "coordination.k8s.io" "v1" api::coordination::v1 [Lease];
    "discovery.k8s.io" "v1" api::discovery::v1 [EndpointSlice];
    "events.k8s.io" "v1" api::events::v1 [Event];
    "flowcontrol.apiserver.k8s.io" "v1" api::flowcontrol::v1 [FlowSchema, PriorityLevelConfiguration];
    "networking.k8s.io" "v1" api::networking::v1 [IPAddress, Ingress, IngressClass, NetworkPolicy, ServiceCIDR];
    "node.k8s.io" "v1" api::node::v1 [RuntimeClass];
    "policy" "v1" api::policy::v1 [PodDisruptionBudget, Eviction];
    "rbac.authorization.k8s.io" "v1" api::rbac::v1 [ClusterRole, ClusterRoleBinding, Role, RoleBinding];
    "resource.k8s.io" "v1" api::resource::v1 [DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice];
    "scheduling.k8s.io" "v1" api::scheduling::v1 [PriorityClass];
    "storage.k8s.io" "v1" api::storage::v1 [CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass];
    "meta.k8s.io" "v1" apimachinery::pkg::apis::meta::v1 [DeleteOptions, ListMeta, ObjectMeta, Status];
}

/// Kinds of Kubernetes that the crate has no types of, and where their schemas are.
const OTHERS: &[(&str, &str, &str)] =
    &[("metrics.k8s.io", "v1beta1", "NodeMetrics"), ("metrics.k8s.io", "v1beta1", "PodMetrics")];
const OTHERS_SCHEMAS: &str = "src/schema/metrics.json";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={OTHERS_SCHEMAS}");
    let settings = SchemaSettings::openapi3().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut kinds = register(&mut generator);
    let mut schemas: BTreeMap<String, Value> = generator.take_definitions(false).into_iter().collect();
    kinds.extend(OTHERS);
    schemas.extend(serde_json::from_str::<BTreeMap<String, Value>>(&fs::read_to_string(OTHERS_SCHEMAS)?)?);
    let path = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo says where to")?).join("schemas.json.z");
    let mut out = ZlibEncoder::new(fs::File::create(path)?, Compression::best());
    serde_json::to_writer(&mut out, &Written { kinds, schemas })?;
    out.finish()?;
    Ok(())
}
