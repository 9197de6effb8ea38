//! The table of built-in resources: one row a resource, in one place.
//!
//! Discovery, routing, RBAC, the garbage collector and `kubectl api-resources` all read this table. A kind's behaviour
//! (defaulting, validation, columns) lives in the API server; that it exists lives here. Rows of kinds that are known
//! only at run time come from [`interned`].

mod intern;

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
    /// Where its objects are kept: the name below `/registry/`. Two resources with the same value show the same
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

    /// Whether `verb` is served on the resource itself.
    #[must_use]
    pub fn serves(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }
}

const ALL: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const CREATE: &[&str] = &["create"];
const GET_PATCH_UPDATE: &[&str] = &["get", "patch", "update"];

const fn own(name: &'static str, group: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, group, version: "v1", kind, verbs: GET_PATCH_UPDATE }
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

/// Every built-in resource, in discovery's order: groups by priority, resources by name.
pub const RESOURCES: &[Resource] = &[
    Resource {
        short_names: &["cm"],
        ..row("", "ConfigMap", "ConfigMapList", "configmaps", "configmap", Scope::Namespaced)
    },
    Resource { short_names: &["ev"], ..row("", "Event", "EventList", "events", "event", Scope::Namespaced) },
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
        subresources: &[own("status", "", "Node")],
        ..row("", "Node", "NodeList", "nodes", "node", Scope::Cluster)
    },
    Resource {
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource { name: "binding", group: "", version: "v1", kind: "Binding", verbs: CREATE },
            Subresource { name: "eviction", group: "policy", version: "v1", kind: "Eviction", verbs: CREATE },
            Subresource { name: "exec", group: "", version: "v1", kind: "PodExecOptions", verbs: &["create", "get"] },
            Subresource { name: "log", group: "", version: "v1", kind: "Pod", verbs: &["get"] },
            own("status", "", "Pod"),
        ],
        ..row("", "Pod", "PodList", "pods", "pod", Scope::Namespaced)
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
        subresources: &[own("status", "", "Service")],
        ..row("", "Service", "ServiceList", "services", "service", Scope::Namespaced)
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
];

/// The built-in resource served at `group`, `version`, `plural`.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.group == group && r.version == version && r.plural == plural)
}

/// The built-in resource whose kind is `group`, `version`, `kind`.
#[must_use]
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|r| r.group == group && r.version == version && r.kind == kind)
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
}
