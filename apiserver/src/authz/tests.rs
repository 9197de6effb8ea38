//! Authorization over a real store.

use coracle_store::{Config, Op, Txn};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    rbac: Arc<Rbac>,
    authorizer: Authorizer,
    tasks: JoinSet<()>,
    shutdown: CancellationToken,
}

async fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (store, driver) = Store::open(Config::new(dir.path())).await.unwrap();
    let (mut tasks, shutdown) = (JoinSet::new(), CancellationToken::new());
    let stop = shutdown.clone();
    tasks.spawn(async move { driver.run(stop).await.unwrap() });
    let rbac = Arc::new(Rbac::open(store.clone(), Timestamp::UNIX_EPOCH).await.unwrap());
    let (follower, stop) = (rbac.clone(), shutdown.clone());
    tasks.spawn(async move {
        // The store may close first.
        let _ = follower.run(stop).await;
    });
    let authorizer = Authorizer::new(store.clone(), rbac.clone());
    World { _dir: dir, store, rbac, authorizer, tasks, shutdown }
}

impl World {
    async fn put(&self, key: &str, value: &Value) {
        let put = Op::put(key.to_owned(), value.to_string());
        let done = self.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
        if policy::Kind::ALL.iter().any(|kind| key.starts_with(kind.prefix())) {
            self.rbac.caught_up(done.revision).await;
        }
    }

    async fn end(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
    }

    fn why(&self, asked: &Attributes<'_>) -> String {
        self.authorizer.check_asked(asked).err().map(|s| s.message).unwrap_or_default()
    }
}

fn resource<'a>(user: &'a User, verb: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Attributes<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Attributes { namespace, resource, subresource, name, ..Attributes::new(user, verb) }
}

fn path<'a>(user: &'a User, verb: &'a str, path: &'a str) -> Attributes<'a> {
    Attributes { path: Some(path), ..Attributes::new(user, verb) }
}

#[tokio::test]
async fn default_roles_allow_what_kubernetes_does_and_refusals_have_its_words() {
    let world = world().await;
    let admin = User::new("kubernetes-admin", &["system:masters"]);
    let alice = User::new("alice", &[]);
    let scheduler = User::new("system:kube-scheduler", &[]);
    let controllers = User::new("system:kube-controller-manager", &[]);
    let account = User::new("system:serviceaccount:default:default", &["system:serviceaccounts"]);
    let nobody = User::anonymous();
    for (asked, refused) in [
        (resource(&admin, "delete", "nodes", "", "n1"), ""),
        (path(&admin, "get", "/anything"), ""),
        (path(&alice, "get", "/api"), ""),
        (path(&alice, "get", "/openapi/v3"), ""),
        (path(&nobody, "get", "/readyz"), ""),
        (path(&nobody, "get", "/api"), r#"forbidden: User "system:anonymous" cannot get path "/api""#),
        (path(&alice, "get", "/foo"), r#"forbidden: User "alice" cannot get path "/foo""#),
        (path(&account, "get", "/openid/v1/jwks"), ""),
        (
            resource(&alice, "list", "pods", "default", ""),
            r#"pods is forbidden: User "alice" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            resource(&alice, "get", "nodes", "", "n1"),
            r#"nodes "n1" is forbidden: User "alice" cannot get resource "nodes" in API group "" at the cluster scope"#,
        ),
        (
            Attributes { group: "apps", ..resource(&alice, "patch", "deployments/scale", "a", "web") },
            r#"deployments.apps "web" is forbidden: User "alice" cannot patch resource "deployments/scale" in API group "apps" in the namespace "a""#,
        ),
        (resource(&scheduler, "create", "pods/binding", "default", "p"), ""),
        (
            resource(&scheduler, "create", "pods", "default", ""),
            r#"pods is forbidden: User "system:kube-scheduler" cannot create resource "pods" in API group "" in the namespace "default""#,
        ),
        (Attributes { group: "apps", ..resource(&controllers, "create", "replicasets", "a", "") }, ""),
        (Attributes { group: "a.b", ..resource(&controllers, "deletecollection", "anything", "a", "") }, ""),
        (
            Attributes {
                group: "authorization.k8s.io",
                ..resource(&alice, "create", "selfsubjectaccessreviews", "", "")
            },
            "",
        ),
    ] {
        assert_eq!(world.why(&asked), refused, "{asked:?}");
    }
    world.end().await;
}

#[tokio::test]
async fn admin_edit_and_view_hold_what_they_aggregate_in_the_store_too() {
    let world = world().await;
    let rules = |name: &str| {
        let entry = world.store.get(format!("/registry/clusterroles/{name}").as_bytes()).unwrap();
        let role: ClusterRole = serde_json::from_slice(&entry.value).unwrap();
        (entry.version, role.rules.unwrap_or_default().len())
    };
    let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
    assert!(view.1 > 5 && edit.1 > view.1 && admin.1 > edit.1, "{view:?} {edit:?} {admin:?}");
    assert_eq!((view.0, edit.0, admin.0), (1, 1, 1), "written once, whole");
    let binding = json!({"metadata": {"name": "b", "namespace": "a"},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "apiGroup": RBAC_GROUP, "name": "alice"}]});
    world.put("/registry/rolebindings/a/b", &binding).await;
    let alice = User::new("alice", &[]);
    assert_eq!(world.why(&resource(&alice, "list", "pods", "a", "")), "");
    assert_ne!(world.why(&resource(&alice, "list", "pods", "b", "")), "");
    assert_ne!(world.why(&resource(&alice, "get", "secrets", "a", "s")), "");
    let widgets = json!({"metadata": {"name": "widgets", "labels": {format!("{RBAC_GROUP}/aggregate-to-view"): "true"}},
        "rules": [{"apiGroups": ["x.io"], "resources": ["widgets"], "verbs": ["get"]}]});
    world.put("/registry/clusterroles/widgets", &widgets).await;
    assert_eq!(world.why(&Attributes { group: "x.io", ..resource(&alice, "get", "widgets", "a", "w") }), "");
    world.end().await;
}

#[tokio::test]
async fn a_later_start_mends_the_defaults_and_leaves_alone_what_its_owner_keeps() {
    let world = world().await;
    let edit = |name: &'static str, change: fn(&mut ClusterRole)| {
        let key = format!("/registry/clusterroles/{name}");
        let entry = world.store.get(key.as_bytes()).unwrap();
        let mut role: ClusterRole = serde_json::from_slice(&entry.value).unwrap();
        change(&mut role);
        let put = Op::put(key, serde_json::to_vec(&role).unwrap());
        world.store.txn(Txn { then: vec![put], ..Txn::default() })
    };
    edit("system:basic-user", |role| role.rules = None).await.unwrap();
    edit("system:discovery", |role| {
        role.rules = None;
        let annotations = role.metadata.annotations.get_or_insert_default();
        annotations.insert("rbac.authorization.kubernetes.io/autoupdate".to_owned(), "false".to_owned());
    })
    .await
    .unwrap();
    let before = world.store.revision();
    let again = Rbac::open(world.store.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(world.store.revision().0, before.0 + 1, "one transaction");
    let third = Rbac::open(world.store.clone(), Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(world.store.revision().0, before.0 + 1, "nothing left to do");
    drop(third);
    let authorizer = Authorizer::new(world.store.clone(), Arc::new(again));
    let alice = User::new("alice", &[]);
    let review =
        Attributes { group: "authorization.k8s.io", ..resource(&alice, "create", "selfsubjectaccessreviews", "", "") };
    assert_eq!(authorizer.decide(&review), Decision::Allow);
    assert_ne!(authorizer.decide(&path(&alice, "get", "/api")), Decision::Allow);
    world.end().await;
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_hold() {
    let world = world().await;
    let role = |name: &str, rules: &[&str]| ClusterRole {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(name.to_owned()),
            ..Default::default()
        },
        rules: Some(rules.iter().map(|line| defaults::rule(line)).collect()),
        ..ClusterRole::default()
    };
    let bind = |role: &str, user: &str| {
        json!({"metadata": {},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": RBAC_GROUP, "name": user}]})
    };
    world.put("/registry/clusterrolebindings/a", &bind("admin", "alice")).await;
    world
        .put(
            "/registry/clusterroles/binder",
            &serde_json::to_value(role(
                "binder",
                &["bind rbac.authorization.k8s.io clusterroles @view", "escalate rbac.authorization.k8s.io roles"],
            ))
            .unwrap(),
        )
        .await;
    world.put("/registry/clusterrolebindings/b", &bind("binder", "bob")).await;
    let (alice, bob, root) = (User::new("alice", &[]), User::new("bob", &[]), User::new("root", &["system:masters"]));
    let check = |user: &User, new: &ClusterRole, old| {
        world
            .authorizer
            .check_role(user, "roles", "ns", new, old)
            .err()
            .map(|s| (s.code, s.message))
            .unwrap_or_default()
    };
    assert_eq!(check(&alice, &role("r", &["get core pods"]), None), (0, String::new()));
    assert_eq!(
        check(&alice, &role("r", &["get,list core pods,nodes"]), None),
        (403, "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is attempting to \
          grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\" \"list\"]}".to_owned())
    );
    let dangerous = role("r", &["* * *"]);
    assert_eq!(check(&alice, &dangerous, None).0, 403);
    assert_eq!(check(&alice, &dangerous, Some(&dangerous)).0, 0, "metadata alone may be changed");
    assert_eq!(check(&bob, &dangerous, None).0, 0, "escalate is allowed");
    assert_eq!(check(&root, &dangerous, None).0, 0);
    let mut gathering = role("r", &[]);
    gathering.aggregation_rule =
        Some(k8s_openapi::api::rbac::v1::AggregationRule { cluster_role_selectors: Some(vec![Default::default()]) });
    assert_eq!(
        check(&alice, &gathering, None).1,
        "roles.rbac.authorization.k8s.io \"r\" is forbidden: must have cluster-admin privileges to use the aggregationRule"
    );
    let reference = |kind: &str, name: &str| RoleRef {
        api_group: Some(RBAC_GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
    };
    let binding = |user: &User, role: &RoleRef| {
        world.authorizer.check_binding(user, "rolebindings", "ns", "rb", role).err().map_or(0, |s| s.code)
    };
    for (user, role, code) in [
        (&alice, reference("ClusterRole", "view"), 0),
        (&alice, reference("ClusterRole", "cluster-admin"), 403),
        (&alice, reference("Role", "missing"), 404),
        (&bob, reference("ClusterRole", "view"), 0),
        (&bob, reference("ClusterRole", "edit"), 403),
        (&root, reference("ClusterRole", "cluster-admin"), 0),
    ] {
        assert_eq!(binding(user, &role), code, "{} binds {}", user.name, role.name);
    }
    world.end().await;
}

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
    let world = world().await;
    world.put("/registry/pods/a/p", &json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"}, "spec": {
        "nodeName": "n1", "serviceAccountName": "robot", "imagePullSecrets": [{"name": "pull"}],
        "volumes": [{"name": "v", "secret": {"secretName": "vol"}}, {"name": "w", "configMap": {"name": "cm"}},
            {"name": "x", "projected": {"sources": [{"configMap": {"name": "root-ca"}}, {"secret": {"name": "proj"}}]}},
            {"name": "y", "persistentVolumeClaim": {"claimName": "claim"}}],
        "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "from"}}]}],
        "containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}]}]}})).await;
    world
        .put(
            "/registry/pods/a/other",
            &json!({"metadata": {"name": "other", "namespace": "a"}, "spec": {
        "nodeName": "n2", "containers": [], "volumes": [{"name": "n1", "secret": {"secretName": "foreign"}}]}}),
        )
        .await;
    world
        .put(
            "/registry/pods/a/mirror",
            &json!({"metadata": {"name": "mirror", "namespace": "a",
        "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {
        "nodeName": "n1", "containers": [], "volumes": [{"name": "v", "secret": {"secretName": "grab"}}]}}),
        )
        .await;
    let node = User::new("system:node:n1", &["system:nodes"]);
    let allowed = |asked: &Attributes<'_>| world.authorizer.decide(asked) == Decision::Allow;
    for (verb, what, namespace, name, expected) in [
        ("get", "secrets", "a", "vol", true),
        ("get", "secrets", "a", "pull", true),
        ("get", "secrets", "a", "from", true),
        ("get", "secrets", "a", "key", true),
        ("watch", "secrets", "a", "proj", true),
        ("get", "secrets", "b", "vol", false),
        ("get", "secrets", "a", "foreign", false),
        ("get", "secrets", "a", "grab", false),
        ("list", "secrets", "a", "", false),
        ("list", "secrets", "", "", false),
        ("update", "secrets", "a", "vol", false),
        ("get", "configmaps", "a", "cm", true),
        ("get", "configmaps", "a", "root-ca", true),
        ("get", "configmaps", "a", "vol", false),
        ("get", "persistentvolumeclaims", "a", "claim", true),
        ("create", "serviceaccounts/token", "a", "robot", true),
        ("create", "serviceaccounts/token", "a", "default", false),
        ("get", "serviceaccounts", "a", "robot", true),
        ("get", "pods", "a", "p", true),
        ("get", "pods", "a", "other", false),
        ("list", "pods", "", "", false),
        ("patch", "pods/status", "a", "p", true),
        ("create", "pods/exec", "a", "p", false),
        ("get", "nodes", "", "n1", true),
        ("get", "nodes", "", "n2", false),
        ("list", "nodes", "", "", false),
        ("patch", "nodes/status", "", "n1", true),
        ("delete", "nodes", "", "n1", false),
        ("list", "services", "", "", true),
        ("list", "namespaces", "", "", false),
    ] {
        let asked = resource(&node, verb, what, namespace, name);
        assert_eq!(allowed(&asked), expected, "{verb} {what} {namespace}/{name}");
    }
    let mine = Attributes { field_selector: "spec.nodeName=n1", ..resource(&node, "watch", "pods", "", "") };
    assert!(allowed(&mine));
    assert!(!allowed(&Attributes { field_selector: "spec.nodeName=n2", ..mine }));
    assert!(!allowed(&Attributes { field_selector: "spec.nodeName!=n1", ..mine }));
    for (namespace, name, expected) in
        [("kube-node-lease", "n1", true), ("kube-node-lease", "n2", false), ("a", "n1", false)]
    {
        let lease = Attributes { group: "coordination.k8s.io", ..resource(&node, "update", "leases", namespace, name) };
        assert_eq!(allowed(&lease), expected);
    }
    assert_eq!(
        world.why(&resource(&node, "get", "secrets", "a", "foreign")),
        "secrets \"foreign\" is forbidden: User \"system:node:n1\" cannot get resource \"secrets\" in API group \"\" in the \
         namespace \"a\": no relationship found between node 'n1' and this object"
    );
    let impostor = User::new("system:node:n1", &[]);
    assert!(!allowed(&resource(&impostor, "get", "secrets", "a", "vol")));
    world.end().await;
}
