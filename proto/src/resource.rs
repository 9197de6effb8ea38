//! The table of built-in resources: one row a resource, in one place.
//!
//! Discovery, routing, RBAC, the garbage collector and `kubectl api-resources` all read this table. A kind's behaviour
//! (defaulting, validation, columns) lives in the API server; that it exists lives here. Rows of kinds that are known
//! only at run time come from [`interned`].

mod intern;

use std::{collections::HashMap, sync::LazyLock};

pub use self::intern::{CUSTOM_VERBS, Described, TERMINATING_VERBS, interned};

pub mod old;

/// Whether objects of a resource live in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Objects are named within the whole cluster.
    Cluster,
    /// Objects are named within a namespace.
    Namespaced,
}

/// A resource that hangs below another: `pods/status`, `deployments/scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subresource {
    /// Its name in the path: `status`.
    pub name: &'static str,
    /// Group of the kind it takes and returns; empty for the core group.
    pub group: &'static str,
    /// Version of that kind.
    pub version: &'static str,
    /// That kind: `Scale`, `Binding`, or the parent's own.
    pub kind: &'static str,
    /// Verbs as discovery lists them.
    pub verbs: &'static [&'static str],
}

/// One resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version it is served at.
    pub version: &'static str,
    /// `Pod`.
    pub kind: &'static str,
    /// `PodList`; empty for resources that are not listed (reviews).
    pub list_kind: &'static str,
    /// `pods`: the name in paths and RBAC rules.
    pub plural: &'static str,
    /// `pod`.
    pub singular: &'static str,
    /// `po`.
    pub short_names: &'static [&'static str],
    /// `all`.
    pub categories: &'static [&'static str],
    /// Cluster or namespace.
    pub scope: Scope,
    /// Verbs as discovery lists them.
    pub verbs: &'static [&'static str],
    /// What hangs below it.
    pub subresources: &'static [Subresource],
    /// Where its objects are kept, if they are: the name below `/registry/`. Two resources with the same value show the same
    /// objects in two groups or versions (`events` of the core group and of `events.k8s.io`).
    pub storage: &'static str,
}

impl Resource {
    /// `apps/v1`, or `v1` for the core group.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, or `pods` for the core group: how error messages name a resource.
    #[must_use]
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The subresource `name`, if it has one.
    #[must_use]
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }

    /// Whether there are objects of it that are kept: neither reviews are, nor what is worked out when somebody asks.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        !self.list_kind.is_empty() && self.serves("create")
    }

    /// Whether `verb` is served on the resource itself.
    #[must_use]
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const GET_LIST: &[&str] = &["get", "list"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

const fn own(name: &'static str, group: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, group, version: "v1", kind, verbs: GET_PATCH_UPDATE }
}

/// A subresource that passes requests on, whatever their method.
const fn proxy(kind: &'static str) -> Subresource {
    Subresource {
        name: "proxy",
        group: "",
        version: "v1",
        kind,
        verbs: &["create", "delete", "get", "patch", "update"],
    }
}

const SCALE: Subresource =
    Subresource { name: "scale", group: "autoscaling", version: "v1", kind: "Scale", verbs: GET_PATCH_UPDATE };

/// A row with the common verbs; the table below overrides what differs.
const fn row(
    group: &'static str,
    kind: &'static str,
    list_kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
) -> Resource {
    Resource {
        group,
        version: "v1",
        kind,
        list_kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        scope,
        verbs: ALL,
        subresources: &[],
        storage: plural,
    }
}

const fn review(group: &'static str, kind: &'static str, plural: &'static str, singular: &'static str) -> Resource {
    Resource { verbs: CREATE, list_kind: "", ..row(group, kind, "", plural, singular, Scope::Cluster) }
}

/// What is asked of the nodes when somebody wants to know it. In Kubernetes metrics-server serves these, whose resources have
/// no singular names, so that `kubectl get pod` never means them.
const fn figures(kind: &'static str, list_kind: &'static str, plural: &'static str) -> Resource {
    let row = row("metrics.k8s.io", kind, list_kind, plural, "", Scope::Namespaced);
    Resource { version: "v1beta1", verbs: GET_LIST, ..row }
}

/// Autoscalers are served in two versions and stored once.
const AUTOSCALER: Resource = Resource {
    short_names: &["hpa"],
    categories: &["all"],
    ..row(
        "autoscaling",
        "HorizontalPodAutoscaler",
        "HorizontalPodAutoscalerList",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
        Scope::Namespaced,
    )
};

const AUTOSCALER_V2_STATUS: Subresource =
    Subresource { version: "v2", ..own("status", "autoscaling", "HorizontalPodAutoscaler") };

/// Every built-in resource, in discovery's order: groups by priority, resources by name.
pub const RESOURCES: &[Resource] = &[
    Resource {
        short_names: &["cm"],
        ..row("", "ConfigMap", "ConfigMapList", "configmaps", "configmap", Scope::Namespaced)
    },
    Resource { list_kind: "", verbs: CREATE, ..row("", "Binding", "", "bindings", "binding", Scope::Namespaced) },
    Resource {
        short_names: &["cs"],
        verbs: GET_LIST,
        ..row("", "ComponentStatus", "ComponentStatusList", "componentstatuses", "componentstatus", Scope::Cluster)
    },
    Resource {
        short_names: &["ep"],
        ..row("", "Endpoints", "EndpointsList", "endpoints", "endpoints", Scope::Namespaced)
    },
    Resource { short_names: &["ev"], ..row("", "Event", "EventList", "events", "event", Scope::Namespaced) },
    Resource {
        short_names: &["limits"],
        ..row("", "LimitRange", "LimitRangeList", "limitranges", "limitrange", Scope::Namespaced)
    },
    Resource {
        short_names: &["ns"],
        verbs: &["create", "delete", "get", "list", "patch", "update", "watch"],
        subresources: &[
            Subresource { name: "finalize", group: "", version: "v1", kind: "Namespace", verbs: &["update"] },
            own("status", "", "Namespace"),
        ],
        ..row("", "Namespace", "NamespaceList", "namespaces", "namespace", Scope::Cluster)
    },
    Resource {
        short_names: &["no"],
        subresources: &[proxy("NodeProxyOptions"), own("status", "", "Node")],
        ..row("", "Node", "NodeList", "nodes", "node", Scope::Cluster)
    },
    Resource {
        short_names: &["pvc"],
        subresources: &[own("status", "", "PersistentVolumeClaim")],
        ..row(
            "",
            "PersistentVolumeClaim",
            "PersistentVolumeClaimList",
            "persistentvolumeclaims",
            "persistentvolumeclaim",
            Scope::Namespaced,
        )
    },
    Resource {
        short_names: &["pv"],
        subresources: &[own("status", "", "PersistentVolume")],
        ..row("", "PersistentVolume", "PersistentVolumeList", "persistentvolumes", "persistentvolume", Scope::Cluster)
    },
    Resource {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource {
                name: "attach",
                group: "",
                version: "v1",
                kind: "PodAttachOptions",
                verbs: &["create", "get"],
            },
            Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: CREATE },
            own("ephemeralcontainers", "", "Pod"),
            Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: CREATE },
            Subresource { name: "exec", group: "", version: "v1", kind: "PodExecOptions", verbs: &["create", "get"] },
            Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] },
            Subresource {
                name: "portforward",
                group: "",
                version: "v1",
                kind: "PodPortForwardOptions",
                verbs: &["create", "get"],
            },
            proxy("PodProxyOptions"),
            own("resize", "", "Pod"),
            own("status", "", "Pod"),
        ],
        ..row("", "Pod", "PodList", "pods", "pod", Scope::Namespaced)
    },
    row("", "PodTemplate", "PodTemplateList", "podtemplates", "podtemplate", Scope::Namespaced),
    Resource {
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[SCALE, own("status", "", "ReplicationController")],
        ..row(
            "",
            "ReplicationController",
            "ReplicationControllerList",
            "replicationcontrollers",
            "replicationcontroller",
            Scope::Namespaced,
        )
    },
    Resource {
        short_names: &["quota"],
        subresources: &[own("status", "", "ResourceQuota")],
        ..row("", "ResourceQuota", "ResourceQuotaList", "resourcequotas", "resourcequota", Scope::Namespaced)
    },
    row("", "Secret", "SecretList", "secrets", "secret", Scope::Namespaced),
    Resource {
        short_names: &["sa"],
        subresources: &[Subresource {
            name: "token",
            group: "authentication.k8s.io",
            version: "v1",
            kind: "TokenRequest",
            verbs: CREATE,
        }],
        ..row("", "ServiceAccount", "ServiceAccountList", "serviceaccounts", "serviceaccount", Scope::Namespaced)
    },
    Resource {
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[proxy("ServiceProxyOptions"), own("status", "", "Service")],
        ..row("", "Service", "ServiceList", "services", "service", Scope::Namespaced)
    },
    row(
        "apps",
        "ControllerRevision",
        "ControllerRevisionList",
        "controllerrevisions",
        "controllerrevision",
        Scope::Namespaced,
    ),
    Resource {
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[own("status", "apps", "DaemonSet")],
        ..row("apps", "DaemonSet", "DaemonSetList", "daemonsets", "daemonset", Scope::Namespaced)
    },
    Resource {
        categories: &["api-extensions"],
        subresources: &[own("status", "apiregistration.k8s.io", "APIService")],
        ..row("apiregistration.k8s.io", "APIService", "APIServiceList", "apiservices", "apiservice", Scope::Cluster)
    },
    Resource {
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, own("status", "apps", "Deployment")],
        ..row("apps", "Deployment", "DeploymentList", "deployments", "deployment", Scope::Namespaced)
    },
    Resource {
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, own("status", "apps", "ReplicaSet")],
        ..row("apps", "ReplicaSet", "ReplicaSetList", "replicasets", "replicaset", Scope::Namespaced)
    },
    Resource {
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[SCALE, own("status", "apps", "StatefulSet")],
        ..row("apps", "StatefulSet", "StatefulSetList", "statefulsets", "statefulset", Scope::Namespaced)
    },
    Resource {
        short_names: &["ev"],
        ..row("events.k8s.io", "Event", "EventList", "events", "event", Scope::Namespaced)
    },
    review("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews", "selfsubjectreview"),
    review("authentication.k8s.io", "TokenReview", "tokenreviews", "tokenreview"),
    Resource {
        scope: Scope::Namespaced,
        ..review(
            "authorization.k8s.io",
            "LocalSubjectAccessReview",
            "localsubjectaccessreviews",
            "localsubjectaccessreview",
        )
    },
    review("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview"),
    review("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview"),
    review("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview"),
    // The preferred version of a group comes first.
    Resource { version: "v2", subresources: &[AUTOSCALER_V2_STATUS], ..AUTOSCALER },
    Resource { subresources: &[own("status", "autoscaling", "HorizontalPodAutoscaler")], ..AUTOSCALER },
    Resource {
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[own("status", "batch", "CronJob")],
        ..row("batch", "CronJob", "CronJobList", "cronjobs", "cronjob", Scope::Namespaced)
    },
    Resource {
        categories: &["all"],
        subresources: &[own("status", "batch", "Job")],
        ..row("batch", "Job", "JobList", "jobs", "job", Scope::Namespaced)
    },
    Resource {
        short_names: &["csr"],
        subresources: &[
            own("approval", "certificates.k8s.io", "CertificateSigningRequest"),
            own("status", "certificates.k8s.io", "CertificateSigningRequest"),
        ],
        ..row(
            "certificates.k8s.io",
            "CertificateSigningRequest",
            "CertificateSigningRequestList",
            "certificatesigningrequests",
            "certificatesigningrequest",
            Scope::Cluster,
        )
    },
    row("networking.k8s.io", "IngressClass", "IngressClassList", "ingressclasses", "ingressclass", Scope::Cluster),
    Resource {
        short_names: &["ing"],
        subresources: &[own("status", "networking.k8s.io", "Ingress")],
        ..row("networking.k8s.io", "Ingress", "IngressList", "ingresses", "ingress", Scope::Namespaced)
    },
    Resource {
        short_names: &["ip"],
        ..row("networking.k8s.io", "IPAddress", "IPAddressList", "ipaddresses", "ipaddress", Scope::Cluster)
    },
    Resource {
        short_names: &["netpol"],
        ..row(
            "networking.k8s.io",
            "NetworkPolicy",
            "NetworkPolicyList",
            "networkpolicies",
            "networkpolicy",
            Scope::Namespaced,
        )
    },
    Resource {
        subresources: &[own("status", "networking.k8s.io", "ServiceCIDR")],
        ..row("networking.k8s.io", "ServiceCIDR", "ServiceCIDRList", "servicecidrs", "servicecidr", Scope::Cluster)
    },
    Resource {
        short_names: &["pdb"],
        subresources: &[own("status", "policy", "PodDisruptionBudget")],
        ..row(
            "policy",
            "PodDisruptionBudget",
            "PodDisruptionBudgetList",
            "poddisruptionbudgets",
            "poddisruptionbudget",
            Scope::Namespaced,
        )
    },
    row("rbac.authorization.k8s.io", "ClusterRole", "ClusterRoleList", "clusterroles", "clusterrole", Scope::Cluster),
    row(
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        "ClusterRoleBindingList",
        "clusterrolebindings",
        "clusterrolebinding",
        Scope::Cluster,
    ),
    row("rbac.authorization.k8s.io", "Role", "RoleList", "roles", "role", Scope::Namespaced),
    row(
        "rbac.authorization.k8s.io",
        "RoleBinding",
        "RoleBindingList",
        "rolebindings",
        "rolebinding",
        Scope::Namespaced,
    ),
    row("storage.k8s.io", "CSIDriver", "CSIDriverList", "csidrivers", "csidriver", Scope::Cluster),
    row("storage.k8s.io", "CSINode", "CSINodeList", "csinodes", "csinode", Scope::Cluster),
    row(
        "storage.k8s.io",
        "CSIStorageCapacity",
        "CSIStorageCapacityList",
        "csistoragecapacities",
        "csistoragecapacity",
        Scope::Namespaced,
    ),
    Resource {
        short_names: &["sc"],
        ..row("storage.k8s.io", "StorageClass", "StorageClassList", "storageclasses", "storageclass", Scope::Cluster)
    },
    Resource {
        subresources: &[own("status", "storage.k8s.io", "VolumeAttachment")],
        ..row(
            "storage.k8s.io",
            "VolumeAttachment",
            "VolumeAttachmentList",
            "volumeattachments",
            "volumeattachment",
            Scope::Cluster,
        )
    },
    Resource {
        short_names: &["vac"],
        ..row(
            "storage.k8s.io",
            "VolumeAttributesClass",
            "VolumeAttributesClassList",
            "volumeattributesclasses",
            "volumeattributesclass",
            Scope::Cluster,
        )
    },
    Resource {
        categories: &["api-extensions"],
        ..row(
            "admissionregistration.k8s.io",
            "MutatingAdmissionPolicy",
            "MutatingAdmissionPolicyList",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicy",
            Scope::Cluster,
        )
    },
    Resource {
        categories: &["api-extensions"],
        ..row(
            "admissionregistration.k8s.io",
            "MutatingAdmissionPolicyBinding",
            "MutatingAdmissionPolicyBindingList",
            "mutatingadmissionpolicybindings",
            "mutatingadmissionpolicybinding",
            Scope::Cluster,
        )
    },
    Resource {
        categories: &["api-extensions"],
        ..row(
            "admissionregistration.k8s.io",
            "MutatingWebhookConfiguration",
            "MutatingWebhookConfigurationList",
            "mutatingwebhookconfigurations",
            "mutatingwebhookconfiguration",
            Scope::Cluster,
        )
    },
    Resource {
        categories: &["api-extensions"],
        subresources: &[own("status", "admissionregistration.k8s.io", "ValidatingAdmissionPolicy")],
        ..row(
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicy",
            "ValidatingAdmissionPolicyList",
            "validatingadmissionpolicies",
            "validatingadmissionpolicy",
            Scope::Cluster,
        )
    },
    Resource {
        categories: &["api-extensions"],
        ..row(
            "admissionregistration.k8s.io",
            "ValidatingAdmissionPolicyBinding",
            "ValidatingAdmissionPolicyBindingList",
            "validatingadmissionpolicybindings",
            "validatingadmissionpolicybinding",
            Scope::Cluster,
        )
    },
    Resource {
        categories: &["api-extensions"],
        ..row(
            "admissionregistration.k8s.io",
            "ValidatingWebhookConfiguration",
            "ValidatingWebhookConfigurationList",
            "validatingwebhookconfigurations",
            "validatingwebhookconfiguration",
            Scope::Cluster,
        )
    },
    Resource {
        short_names: &["pc"],
        ..row(
            "scheduling.k8s.io",
            "PriorityClass",
            "PriorityClassList",
            "priorityclasses",
            "priorityclass",
            Scope::Cluster,
        )
    },
    row("coordination.k8s.io", "Lease", "LeaseList", "leases", "lease", Scope::Namespaced),
    Resource {
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        subresources: &[own("status", "apiextensions.k8s.io", "CustomResourceDefinition")],
        ..row(
            "apiextensions.k8s.io",
            "CustomResourceDefinition",
            "CustomResourceDefinitionList",
            "customresourcedefinitions",
            "customresourcedefinition",
            Scope::Cluster,
        )
    },
    row("node.k8s.io", "RuntimeClass", "RuntimeClassList", "runtimeclasses", "runtimeclass", Scope::Cluster),
    row("discovery.k8s.io", "EndpointSlice", "EndpointSliceList", "endpointslices", "endpointslice", Scope::Namespaced),
    Resource {
        subresources: &[own("status", "flowcontrol.apiserver.k8s.io", "FlowSchema")],
        ..row(
            "flowcontrol.apiserver.k8s.io",
            "FlowSchema",
            "FlowSchemaList",
            "flowschemas",
            "flowschema",
            Scope::Cluster,
        )
    },
    Resource {
        subresources: &[own("status", "flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration")],
        ..row(
            "flowcontrol.apiserver.k8s.io",
            "PriorityLevelConfiguration",
            "PriorityLevelConfigurationList",
            "prioritylevelconfigurations",
            "prioritylevelconfiguration",
            Scope::Cluster,
        )
    },
    row("resource.k8s.io", "DeviceClass", "DeviceClassList", "deviceclasses", "deviceclass", Scope::Cluster),
    Resource {
        subresources: &[own("status", "resource.k8s.io", "ResourceClaim")],
        ..row(
            "resource.k8s.io",
            "ResourceClaim",
            "ResourceClaimList",
            "resourceclaims",
            "resourceclaim",
            Scope::Namespaced,
        )
    },
    row(
        "resource.k8s.io",
        "ResourceClaimTemplate",
        "ResourceClaimTemplateList",
        "resourceclaimtemplates",
        "resourceclaimtemplate",
        Scope::Namespaced,
    ),
    row("resource.k8s.io", "ResourceSlice", "ResourceSliceList", "resourceslices", "resourceslice", Scope::Cluster),
    Resource { scope: Scope::Cluster, storage: "nodemetrics", ..figures("NodeMetrics", "NodeMetricsList", "nodes") },
    Resource { storage: "podmetrics", ..figures("PodMetrics", "PodMetricsList", "pods") },
];

/// The rows by plural and by kind: both are asked for several times a request.
struct Index {
    plurals: HashMap<&'static str, Vec<&'static Resource>>,
    kinds: HashMap<&'static str, Vec<&'static Resource>>,
}

static INDEX: LazyLock<Index> = LazyLock::new(|| {
    let mut index = Index { plurals: HashMap::new(), kinds: HashMap::new() };
    for row in RESOURCES {
        index.plurals.entry(row.plural).or_default().push(row);
        index.kinds.entry(row.kind).or_default().push(row);
    }
    index
});

fn at(rows: Option<&Vec<&'static Resource>>, group: &str, version: &str) -> Option<&'static Resource> {
    rows?.iter().find(|row| row.group == group && row.version == version).copied()
}

/// The built-in resource served at `group`, `version`, `plural`.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    at(INDEX.plurals.get(plural), group, version)
}

/// The built-in resource whose kind is `group`, `version`, `kind`.
#[must_use]
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    at(INDEX.kinds.get(kind), group, version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_share_a_path_or_a_kind() {
        for (i, a) in RESOURCES.iter().enumerate() {
            for b in &RESOURCES[i + 1..] {
                assert!((a.group, a.version, a.plural) != (b.group, b.version, b.plural), "{} twice", a.plural);
                assert!((a.group, a.version, a.kind) != (b.group, b.version, b.kind), "{} twice", a.kind);
            }
        }
    }

    /// The workload and core rows as Kubernetes 1.36 serves them: scope, short names, categories, subresources with their
    /// kinds, and verbs where they are not the common ones.
    #[test]
    fn core_and_workload_rows_are_kubernetes_own() {
        let line = |r: &Resource| {
            let scope = if r.scope == Scope::Namespaced { "ns" } else { "cluster" };
            let verbs = match r.verbs {
                ALL => String::new(),
                verbs => format!(" {}", verbs.join(",")),
            };
            let subresources: String = r.subresources.iter().map(|s| format!(" /{}={}", s.name, s.kind)).collect();
            let names = [r.short_names, r.categories].concat().join(",");
            format!("{} {} {scope} [{names}]{verbs}{subresources}", r.api_version(), r.plural)
        };
        let lines: Vec<String> = RESOURCES.iter().map(line).collect();
        for expected in [
            "v1 bindings ns [] create",
            "v1 componentstatuses cluster [cs] get,list",
            "v1 configmaps ns [cm]",
            "v1 endpoints ns [ep]",
            "v1 events ns [ev]",
            "v1 limitranges ns [limits]",
            "v1 persistentvolumeclaims ns [pvc] /status=PersistentVolumeClaim",
            "v1 persistentvolumes cluster [pv] /status=PersistentVolume",
            "v1 podtemplates ns []",
            "v1 replicationcontrollers ns [rc,all] /scale=Scale /status=ReplicationController",
            "v1 resourcequotas ns [quota] /status=ResourceQuota",
            "v1 secrets ns []",
            "v1 serviceaccounts ns [sa] /token=TokenRequest",
            "apps/v1 controllerrevisions ns []",
            "apps/v1 daemonsets ns [ds,all] /status=DaemonSet",
            "apps/v1 deployments ns [deploy,all] /scale=Scale /status=Deployment",
            "apps/v1 replicasets ns [rs,all] /scale=Scale /status=ReplicaSet",
            "apps/v1 statefulsets ns [sts,all] /scale=Scale /status=StatefulSet",
            "autoscaling/v2 horizontalpodautoscalers ns [hpa,all] /status=HorizontalPodAutoscaler",
            "autoscaling/v1 horizontalpodautoscalers ns [hpa,all] /status=HorizontalPodAutoscaler",
            "batch/v1 cronjobs ns [cj,all] /status=CronJob",
            "batch/v1 jobs ns [all] /status=Job",
            "policy/v1 poddisruptionbudgets ns [pdb] /status=PodDisruptionBudget",
            "metrics.k8s.io/v1beta1 nodes cluster [] get,list",
            "metrics.k8s.io/v1beta1 pods ns [] get,list",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{expected}\nin\n{}", lines.join("\n"));
        }
        let pods = find("", "v1", "pods").unwrap();
        for (name, kind) in [
            ("attach", "PodAttachOptions"),
            ("binding", "Binding"),
            ("ephemeralcontainers", "Pod"),
            ("eviction", "Eviction"),
            ("exec", "PodExecOptions"),
            ("log", "Pod"),
            ("portforward", "PodPortForwardOptions"),
            ("resize", "Pod"),
            ("status", "Pod"),
        ] {
            assert_eq!(pods.subresource(name).map(|s| s.kind), Some(kind), "{name}");
        }
    }
}
