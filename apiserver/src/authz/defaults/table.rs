//! The table itself; how to read a line is told in the module above.

pub(super) const EVENTS: &str = "create,patch,update core,events.k8s.io events";

/// What the Node authorizer allows without looking at what is asked for, together with all it looks at.
pub(super) const NODE: &[&str] = &[
    "create authentication.k8s.io tokenreviews",
    "create authorization.k8s.io subjectaccessreviews,localsubjectaccessreviews",
    "read core services",
    "create,get,list,watch core nodes",
    "update,patch core nodes/status",
    "update,patch core nodes",
    EVENTS,
    "read core pods",
    "create,delete core pods",
    "update,patch core pods/status",
    "create core pods/eviction",
    "read core secrets,configmaps",
    "get core persistentvolumeclaims,persistentvolumes",
    "get core endpoints",
    "create,get,list,watch certificates.k8s.io certificatesigningrequests",
    "get,create,update,patch,delete coordination.k8s.io leases",
    "get storage.k8s.io volumeattachments",
    "create core serviceaccounts/token",
    "get,update,patch core persistentvolumeclaims/status",
    "read storage.k8s.io csidrivers",
    "get,create,update,patch,delete storage.k8s.io csinodes",
    "read node.k8s.io runtimeclasses",
    "get resource.k8s.io resourceclaims",
    "deletecollection resource.k8s.io resourceslices",
    "get core serviceaccounts",
];

/// Roles that gather others: name, what they gather, who gathers them.
pub(super) const AGGREGATING: &[(&str, &str, &str)] =
    &[("admin", "admin", ""), ("edit", "edit", "admin"), ("view", "view", "edit")];

/// Roles that are gathered: name, by whom (commas between several), rules.
pub(super) const AGGREGATED: &[(&str, &str, &[&str])] = &[
    (
        "system:aggregate-to-admin",
        "admin",
        &[
            "create authorization.k8s.io localsubjectaccessreviews",
            "readwrite rbac.authorization.k8s.io roles,rolebindings",
        ],
    ),
    (
        "system:aggregate-to-edit",
        "edit",
        &[
            "read core pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy",
            "impersonate core serviceaccounts",
            "write core pods,pods/attach,pods/proxy,pods/exec,pods/portforward",
            "create core pods/eviction",
            "write core replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy,persistentvolumeclaims,configmaps,secrets",
            "create core serviceaccounts/token",
            "write core,events.k8s.io events",
            "write apps statefulsets,statefulsets/scale,daemonsets,deployments,deployments/scale,deployments/rollback,replicasets,replicasets/scale",
            "write autoscaling horizontalpodautoscalers",
            "write batch jobs,cronjobs",
            "write extensions daemonsets,deployments,deployments/scale,deployments/rollback,ingresses,replicasets,replicasets/scale,replicationcontrollers/scale,networkpolicies",
            "write policy poddisruptionbudgets",
            "write networking.k8s.io networkpolicies,ingresses",
            "readwrite coordination.k8s.io leases",
            "write resource.k8s.io resourceclaims,resourceclaimtemplates",
        ],
    ),
    (
        "system:aggregate-to-view",
        "view",
        &[
            "read core pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps",
            "read core limitranges,resourcequotas,bindings,pods/status,resourcequotas/status,namespaces/status,replicationcontrollers/status,pods/log",
            "read core namespaces",
            "read core,events.k8s.io events",
            "read discovery.k8s.io endpointslices",
            "read apps controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,daemonsets,daemonsets/status,deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale",
            "read autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status",
            "read batch jobs,cronjobs,cronjobs/status,jobs/status",
            "read extensions daemonsets,daemonsets/status,deployments,deployments/scale,deployments/status,ingresses,ingresses/status,replicasets,replicasets/scale,replicasets/status,replicationcontrollers/scale,networkpolicies",
            "read policy poddisruptionbudgets,poddisruptionbudgets/status",
            "read networking.k8s.io networkpolicies,ingresses,ingresses/status",
            "read resource.k8s.io resourceclaims,resourceclaims/status,resourceclaimtemplates",
        ],
    ),
    // metrics-server's, of whose group this server tells by itself.
    ("system:aggregated-metrics-reader", "view,edit,admin", &["read metrics.k8s.io pods,nodes"]),
];

/// Cluster roles: name, who has them (`g:` a group, `u:` a user, `s:` a service account of `kube-system`), rules.
pub(super) const ROLES: &[(&str, &[&str], &[&str])] = &[
    ("cluster-admin", &["g:system:masters"], &["* * *", "* url *"]),
    (
        "system:discovery",
        &["g:system:authenticated"],
        &["get url /livez,/readyz,/healthz,/version,/version/,/openapi,/openapi/*,/api,/api/*,/apis,/apis/*"],
    ),
    (
        "system:monitoring",
        &["g:system:monitoring"],
        &[
            "get url /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*",
            "get core nodes/metrics",
        ],
    ),
    (
        "system:basic-user",
        &["g:system:authenticated"],
        &[
            "create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
            "create authentication.k8s.io selfsubjectreviews",
        ],
    ),
    (
        "system:public-info-viewer",
        &["g:system:authenticated", "g:system:unauthenticated"],
        &["get url /livez,/readyz,/healthz,/version,/version/"],
    ),
    ("system:node", &[], NODE),
    ("system:node-problem-detector", &[], &["get core nodes", "patch core nodes/status", EVENTS]),
    ("system:node-bootstrapper", &[], &["create,get,list,watch certificates.k8s.io certificatesigningrequests"]),
    (
        "system:auth-delegator",
        &[],
        &["create authentication.k8s.io tokenreviews", "create authorization.k8s.io subjectaccessreviews"],
    ),
    ("system:kube-aggregator", &[], &["read core services,endpoints"]),
    (
        "system:kube-controller-manager",
        &["u:system:kube-controller-manager"],
        &[
            EVENTS,
            "create coordination.k8s.io leases",
            "get,update coordination.k8s.io leases @kube-controller-manager",
            "create core secrets,serviceaccounts",
            "delete core secrets",
            "get core namespaces,secrets,serviceaccounts,configmaps",
            "update core secrets,serviceaccounts",
            "create authentication.k8s.io tokenreviews",
            "create authorization.k8s.io subjectaccessreviews",
            "list,watch * *",
            "create core serviceaccounts/token",
        ],
    ),
    ("system:kube-dns", &["s:kube-dns"], &["list,watch core endpoints,services"]),
    (
        "system:persistent-volume-provisioner",
        &[],
        &[
            "get,list,watch,create,delete core persistentvolumes",
            "get,list,watch,update core persistentvolumeclaims",
            "read storage.k8s.io storageclasses",
            "watch core events",
            EVENTS,
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &[],
        &["create certificates.k8s.io certificatesigningrequests/nodeclient"],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &[],
        &["create certificates.k8s.io certificatesigningrequests/selfnodeclient"],
    ),
    (
        "system:volume-scheduler",
        &["u:system:kube-scheduler"],
        &[
            "read core persistentvolumes",
            "update,patch core persistentvolumes",
            "read storage.k8s.io storageclasses",
            "get,list,watch,update,patch core persistentvolumeclaims",
        ],
    ),
    (
        "system:certificates.k8s.io:legacy-unknown-approver",
        &[],
        &["approve certificates.k8s.io signers @kubernetes.io/legacy-unknown"],
    ),
    (
        "system:certificates.k8s.io:kubelet-serving-approver",
        &[],
        &["approve certificates.k8s.io signers @kubernetes.io/kubelet-serving"],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-approver",
        &[],
        &["approve certificates.k8s.io signers @kubernetes.io/kube-apiserver-client"],
    ),
    (
        "system:certificates.k8s.io:kube-apiserver-client-kubelet-approver",
        &[],
        &["approve certificates.k8s.io signers @kubernetes.io/kube-apiserver-client-kubelet"],
    ),
    (
        "system:service-account-issuer-discovery",
        &["g:system:serviceaccounts"],
        &[
            "get url /.well-known/openid-configuration,/.well-known/openid-configuration/,/openid/v1/jwks,/openid/v1/jwks/",
        ],
    ),
    (
        "system:kubelet-api-admin",
        &[],
        &[
            "read core nodes",
            "proxy core nodes",
            "* core nodes/proxy,nodes/metrics,nodes/stats,nodes/log",
            "* core nodes/pods,nodes/healthz,nodes/configz",
        ],
    ),
    (
        "system:node-proxier",
        &["u:system:kube-proxy"],
        &[
            "list,watch core services,endpoints",
            "read core nodes",
            EVENTS,
            "list,watch networking.k8s.io servicecidrs",
            "list,watch discovery.k8s.io endpointslices",
        ],
    ),
    (
        "system:kube-scheduler",
        &["u:system:kube-scheduler"],
        &[
            EVENTS,
            "create coordination.k8s.io leases",
            "get,update,list,watch coordination.k8s.io leases @kube-scheduler",
            "readwrite coordination.k8s.io leasecandidates",
            "read core nodes",
            "get,list,watch,delete core pods",
            "create core pods/binding,bindings",
            "patch,update core pods/status",
            "read core services,replicationcontrollers",
            "read apps,extensions replicasets",
            "read apps statefulsets",
            "read policy poddisruptionbudgets",
            "read core persistentvolumeclaims,persistentvolumes",
            "create authentication.k8s.io tokenreviews",
            "create authorization.k8s.io subjectaccessreviews",
            "read storage.k8s.io csinodes",
            "read storage.k8s.io volumeattachments",
            "read core namespaces",
            "read storage.k8s.io csidrivers",
            "read storage.k8s.io csistoragecapacities",
            "read resource.k8s.io deviceclasses",
            "get,list,watch,update,patch resource.k8s.io resourceclaims",
            "get,list,watch,update,patch resource.k8s.io resourceclaims/status",
            "update core pods/finalizers",
            "read resource.k8s.io resourceslices",
        ],
    ),
    // Coracle's own: joining, and keeping the certificates got that way fresh.
    (
        "coracle:node-joiner",
        &["g:system:bootstrappers:coracle:nodes", "g:system:nodes"],
        &["post url /coracle/v1/join"],
    ),
    // Nodes go on with other servers when theirs is gone.
    ("coracle:server-finder", &["g:system:nodes"], &["list,watch discovery.k8s.io endpointslices"]),
    // A further server, which is given all there is.
    (
        "coracle:server-joiner",
        &["g:system:bootstrappers:coracle:servers", "g:system:bootstrappers:coracle:witnesses"],
        &["post url /coracle/v1/servers"],
    ),
];

/// The controllers' roles (`system:controller:` before the name). Each is bound to the controller's service account, as
/// in Kubernetes, and to the user all controllers of Coracle share, `system:kube-controller-manager`.
pub(super) const CONTROLLERS: &[(&str, &[&str])] = &[
    (
        "clusterrole-aggregation-controller",
        &["escalate,get,list,watch,update,patch rbac.authorization.k8s.io clusterroles"],
    ),
    (
        "cronjob-controller",
        &[
            "get,list,watch,update batch cronjobs",
            "get,list,watch,create,update,delete,patch batch jobs",
            "update batch cronjobs/status",
            "update batch cronjobs/finalizers",
            "list,watch,delete core pods",
            EVENTS,
        ],
    ),
    (
        "daemon-set-controller",
        &[
            "read extensions,apps daemonsets",
            "update extensions,apps daemonsets/status",
            "update extensions,apps daemonsets/finalizers",
            "list,watch core nodes",
            "list,watch,create,delete,patch core pods",
            "create core pods/binding",
            "get,list,watch,create,delete,update,patch apps controllerrevisions",
            EVENTS,
        ],
    ),
    (
        "deployment-controller",
        &[
            "get,list,watch,update extensions,apps deployments",
            "update extensions,apps deployments/status",
            "update extensions,apps deployments/finalizers",
            "get,list,watch,create,update,patch,delete apps,extensions replicasets",
            "get,list,watch,update core pods",
            EVENTS,
        ],
    ),
    (
        "disruption-controller",
        &[
            "read extensions,apps deployments",
            "read apps,extensions replicasets",
            "read core replicationcontrollers",
            "read policy poddisruptionbudgets",
            "read apps statefulsets",
            "update policy poddisruptionbudgets/status",
            "patch,update core pods/status",
            "get * */scale",
            EVENTS,
        ],
    ),
    (
        "endpoint-controller",
        &[
            "read core services,pods",
            "get,list,watch,create,update,delete core endpoints",
            "create core endpoints/restricted",
            EVENTS,
        ],
    ),
    (
        "endpointslice-controller",
        &[
            "read core services,pods,nodes",
            "update core services/finalizers",
            "get,list,watch,create,update,delete discovery.k8s.io endpointslices",
            "create discovery.k8s.io endpointslices/restricted",
            EVENTS,
        ],
    ),
    (
        "endpointslicemirroring-controller",
        &[
            "read core services,endpoints",
            "update core services/finalizers",
            "update core endpoints/finalizers",
            "get,list,watch,create,update,delete discovery.k8s.io endpointslices",
            "create discovery.k8s.io endpointslices/restricted",
            EVENTS,
        ],
    ),
    ("generic-garbage-collector", &["get,list,watch,patch,update,delete * *", EVENTS]),
    (
        "horizontal-pod-autoscaler",
        &[
            "read autoscaling horizontalpodautoscalers",
            "update autoscaling horizontalpodautoscalers/status",
            "get,update * */scale",
            "list,watch core pods",
            "list,watch metrics.k8s.io pods",
            "read custom.metrics.k8s.io *",
            "read external.metrics.k8s.io *",
            EVENTS,
        ],
    ),
    (
        "job-controller",
        &[
            "get,list,watch,update,patch batch jobs",
            "update batch jobs/status",
            "update batch jobs/finalizers",
            "list,watch,create,delete,patch core pods",
            EVENTS,
        ],
    ),
    (
        "namespace-controller",
        &[
            "get,list,watch,delete core namespaces",
            "update core namespaces/finalize,namespaces/status",
            "get,list,watch,delete,deletecollection * *",
        ],
    ),
    (
        "node-controller",
        &[
            "get,list,watch,update,delete,patch core nodes",
            "patch,update core nodes/status",
            "patch,update core pods/status",
            "list,watch,get,delete core pods",
            EVENTS,
        ],
    ),
    (
        "persistent-volume-binder",
        &[
            "get,list,watch,update,create,delete core persistentvolumes",
            "update core persistentvolumes/status",
            "get,list,watch,update core persistentvolumeclaims",
            "update core persistentvolumeclaims/status",
            "list,watch,get,create,delete core pods",
            "read storage.k8s.io storageclasses",
            "list,watch core nodes",
            EVENTS,
            "watch core events",
        ],
    ),
    ("pod-garbage-collector", &["list,watch,delete core pods", "read core nodes", "patch core pods/status"]),
    (
        "replicaset-controller",
        &[
            "get,list,watch,update apps,extensions replicasets",
            "update apps,extensions replicasets/status",
            "update apps,extensions replicasets/finalizers",
            "list,watch,patch,create,delete core pods",
            EVENTS,
        ],
    ),
    (
        "replication-controller",
        &[
            "get,list,watch,update core replicationcontrollers",
            "update core replicationcontrollers/status",
            "update core replicationcontrollers/finalizers",
            "list,watch,patch,create,delete core pods",
            EVENTS,
        ],
    ),
    ("resourcequota-controller", &["list,watch * *", "update core resourcequotas/status", EVENTS]),
    ("service-account-controller", &["create core serviceaccounts", EVENTS]),
    (
        "service-controller",
        &["read core services", "patch,update core services/status", "list,watch core nodes", EVENTS],
    ),
    (
        "service-cidrs-controller",
        &[
            "get,list,watch,patch,update networking.k8s.io servicecidrs",
            "patch,update networking.k8s.io servicecidrs/finalizers",
            "patch,update networking.k8s.io servicecidrs/status",
            "read networking.k8s.io ipaddresses",
            EVENTS,
        ],
    ),
    (
        "statefulset-controller",
        &[
            "list,watch core pods",
            "read apps statefulsets",
            "update apps statefulsets/status",
            "update apps statefulsets/finalizers",
            "get,create,delete,update,patch core pods",
            "get,create,delete,update,patch,list,watch apps controllerrevisions",
            "get,create,list,watch core persistentvolumeclaims",
            "update,delete core persistentvolumeclaims",
            "update core pods/finalizers",
            EVENTS,
        ],
    ),
    (
        "pvc-protection-controller",
        // Kubernetes writes the whole claim where Coracle patches it.
        &["get,list,watch,update,patch core persistentvolumeclaims", "get,list,watch core pods", EVENTS],
    ),
    ("pv-protection-controller", &["get,list,watch,update,patch core persistentvolumes", EVENTS]),
    (
        "volumeattributesclass-protection-controller",
        &[
            "get,list,watch core persistentvolumeclaims",
            "get,list,watch core persistentvolumes",
            "get,list,watch,update,patch storage.k8s.io volumeattributesclasses",
            EVENTS,
        ],
    ),
    ("ttl-controller", &["update,patch,list,watch core nodes", EVENTS]),
    ("ttl-after-finished-controller", &["get,list,watch,delete batch jobs", EVENTS]),
    ("root-ca-cert-publisher", &["create,update core configmaps", EVENTS]),
];

/// Roles of `kube-system`: name, who has them, rules. Their bindings have the same names.
pub(super) const SYSTEM_ROLES: &[(&str, &[&str], &[&str])] = &[
    ("extension-apiserver-authentication-reader", &[], &["read core configmaps @extension-apiserver-authentication"]),
    ("system:controller:token-cleaner", &["s:token-cleaner"], &["get,list,watch,delete core secrets", EVENTS]),
    (
        "system::leader-locking-kube-controller-manager",
        &["u:system:kube-controller-manager", "s:kube-controller-manager"],
        &["get,watch,list,create,update coordination.k8s.io leases,leasecandidates"],
    ),
    (
        "system::leader-locking-kube-scheduler",
        &["u:system:kube-scheduler", "s:kube-scheduler"],
        &["get,watch,list,create,update coordination.k8s.io leases,leasecandidates"],
    ),
];
