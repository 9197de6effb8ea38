//! Admission policies as clients meet them.

use serde_json::{Value, json};

use crate::harness::{Answer, Cluster};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": data})
}

async fn policy(c: &Cluster, name: &str, change: Value) {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE", "UPDATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]},
        ]},
    });
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let created = c.post(&format!("{GROUP}/validatingadmissionpolicies"), &object).await;
    assert_eq!(created.code, 201, "{}", created.body);
}

async fn bind(c: &Cluster, policy: &str, change: Value) {
    let mut spec = json!({"policyName": policy, "validationActions": ["Deny"]});
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": format!("{policy}-binding")}, "spec": spec});
    let created = c.post(&format!("{GROUP}/validatingadmissionpolicybindings"), &object).await;
    assert_eq!(created.code, 201, "{}", created.body);
}

fn denied(answer: &Answer) -> (u16, &str, &str) {
    answer.refusal()
}

#[tokio::test]
async fn what_a_policy_does_not_allow_is_denied_once_it_is_bound() {
    let c = Cluster::start().await;
    let validations = json!([
        {"expression": "size(object.data) <= 2", "message": "too much"},
        {"expression": "!variables.names.exists(n, n == 'evil')", "messageExpression": "'evil in ' + object.metadata.name", "reason": "Forbidden"},
        {"expression": "object.metadata.name != 'nobody' || request.userInfo.username == 'somebody'"},
    ]);
    let variables = json!([{"name": "names", "expression": "object.data.map(k, k)"}]);
    policy(&c, "small", json!({"validations": validations, "variables": variables})).await;
    assert_eq!(
        c.post(MAPS, &map("free", json!({"a": "1", "b": "2", "c": "3"}))).await.code,
        201,
        "nothing is bound yet"
    );
    bind(&c, "small", json!({})).await;
    assert_eq!(c.post(MAPS, &map("good", json!({"a": "1"}))).await.code, 201);
    let with = "ValidatingAdmissionPolicy 'small' with binding 'small-binding' denied request";
    for (name, data, code, reason, why) in [
        ("a", json!({"a": "1", "b": "2", "c": "3"}), 422, "Invalid", "too much"),
        ("b", json!({"evil": "1"}), 403, "Forbidden", "evil in b"),
        (
            "nobody",
            json!({}),
            422,
            "Invalid",
            "expression 'size(object.data) <= 2' resulted in error: no such key: data",
        ),
        (
            "nobody",
            json!({"a": "1"}),
            422,
            "Invalid",
            "failed expression: object.metadata.name != 'nobody' || request.userInfo.username == 'somebody'",
        ),
    ] {
        let answer = c.post(MAPS, &map(name, data)).await;
        let message = format!("configmaps \"{name}\" is forbidden: {with}: {why}");
        assert_eq!(denied(&answer), (code, reason, message.as_str()));
    }
    let changed = c.merge(&format!("{MAPS}/good"), &json!({"data": {"evil": "1"}})).await;
    assert_eq!(changed.code, 403, "{}", changed.body);
    assert_eq!(c.delete(&format!("{GROUP}/validatingadmissionpolicybindings/small-binding")).await.code, 200);
    assert_eq!(c.post(MAPS, &map("b", json!({"evil": "1"}))).await.code, 201);
    c.stop().await;
}

#[tokio::test]
async fn parameters_conditions_and_namespaces_decide() {
    let c = Cluster::start().await;
    assert_eq!(c.post(MAPS, &map("limit", json!({"max": "1"}))).await.code, 201);
    let rule = json!([{"expression": "size(object.data) <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max"}]);
    policy(&c, "limited", json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConditions": [{"name": "not-skipped", "expression": "!has(object.metadata.labels) || !('skip' in object.metadata.labels)"}],
        "validations": rule,
    }))
    .await;
    bind(
        &c,
        "limited",
        json!({
            "paramRef": {"name": "limit", "parameterNotFoundAction": "Deny"},
            "matchResources": {"namespaceSelector": {"matchExpressions": [
                {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["default", "other"]},
            ]}},
        }),
    )
    .await;
    let two = json!({"a": "1", "b": "2"});
    let refused = c.post(MAPS, &map("x", two.clone())).await;
    assert!(denied(&refused).2.ends_with("denied request: at most 1"), "{}", refused.body);
    let mut skipped = map("x", two.clone());
    skipped["metadata"]["labels"] = json!({"skip": "me"});
    assert_eq!(c.post(MAPS, &skipped).await.code, 201);
    for name in ["other", "third"] {
        assert_eq!(c.post("/api/v1/namespaces", &json!({"metadata": {"name": name}})).await.code, 201);
    }
    let missing = c.post("/api/v1/namespaces/other/configmaps", &map("x", json!({}))).await;
    let why = "denied request: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction";
    assert!(denied(&missing).2.ends_with(why), "{}", missing.body);
    assert_eq!(c.post("/api/v1/namespaces/third/configmaps", &map("x", two)).await.code, 201);
    c.stop().await;
}

#[tokio::test]
async fn a_binding_may_only_warn_and_a_policy_may_fail_open() {
    let c = Cluster::start().await;
    let broken = json!([{"expression": "object.data.a == 'x'"}]);
    policy(&c, "warns", json!({"validations": [{"expression": "false", "message": "mind the gap"}]})).await;
    policy(&c, "open", json!({"validations": broken, "failurePolicy": "Ignore"})).await;
    bind(&c, "warns", json!({"validationActions": ["Warn", "Audit"]})).await;
    bind(&c, "open", json!({})).await;
    let warned = c.post(MAPS, &map("x", json!({"b": "1"}))).await;
    let warning =
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'warns' with binding 'warns-binding': mind the gap\"";
    assert_eq!((warned.code, warned.warnings), (201, vec![warning.to_owned()]));
    let refused = c.post(MAPS, &map("y", json!({"a": "1"}))).await;
    assert_eq!((refused.code, refused.refusal().1), (422, "Invalid"), "an error is left out, a no is not");
    c.stop().await;
}

#[tokio::test]
async fn expressions_may_ask_who_may_do_what() {
    let c = Cluster::start().await;
    let may = json!([
        {"expression": "authorizer.group('').resource('secrets').namespace('default').check('get').allowed()"},
        {"expression": "authorizer.requestResource.check('delete').allowed()"},
        {"expression": "!authorizer.serviceAccount('default', 'default').group('').resource('secrets').check('get').allowed()"},
        {"expression": "namespaceObject.metadata.labels['kubernetes.io/metadata.name'] == request.namespace"},
        {"expression": "oldObject == null && request.operation == 'CREATE' && request.resource.resource == 'configmaps'"},
    ]);
    policy(&c, "asks", json!({"validations": may})).await;
    bind(&c, "asks", json!({})).await;
    let answer = c.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, 201, "{}", answer.body);
    c.stop().await;
}

#[tokio::test]
async fn an_expression_that_never_ends_is_stopped() {
    let c = Cluster::start().await;
    let list = "[0,1,2,3,4,5,6,7,8,9]";
    let nested = (0..8).fold("true".to_owned(), |inner, i| format!("{list}.all(x{i}, {inner})"));
    policy(&c, "slow", json!({"validations": [{"expression": nested}]})).await;
    bind(&c, "slow", json!({})).await;
    let answer = c.post(MAPS, &map("x", json!({}))).await;
    assert_eq!(answer.code, 422, "{}", answer.body);
    assert!(denied(&answer).2.contains("actual cost limit exceeded"), "{}", answer.body);
    c.stop().await;
}

async fn mutating(c: &Cluster, name: &str, change: Value) {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [
            {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps", "pods"]},
        ]},
        "reinvocationPolicy": "Never",
    });
    spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let created = c.post(&format!("{GROUP}/mutatingadmissionpolicies"), &object).await;
    assert_eq!(created.code, 201, "{}", created.body);
    let binding = json!({"metadata": {"name": format!("{name}-binding")}, "spec": {"policyName": name}});
    let created = c.post(&format!("{GROUP}/mutatingadmissionpolicybindings"), &binding).await;
    assert_eq!(created.code, 201, "{}", created.body);
}

#[tokio::test]
async fn a_mutating_policy_patches_and_applies() {
    let c = Cluster::start().await;
    let patch = "[JSONPatch{op: 'add', path: '/data/' + variables.key, value: string(size(object.data))}]";
    mutating(
        &c,
        "a",
        json!({
            "variables": [{"name": "key", "expression": "'count'"}],
            "matchConditions": [{"name": "maps", "expression": "object.kind == 'ConfigMap'"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
        }),
    )
    .await;
    let apply = "Object{metadata: Object.metadata{labels: {'seen': object.metadata.name}}}";
    mutating(
        &c,
        "b",
        json!({"mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": apply}}]}),
    )
    .await;
    let created = c.post(MAPS, &map("x", json!({"a": "1", "b": "2"}))).await;
    assert_eq!(created.code, 201, "{}", created.body);
    assert_eq!(created.body["data"], json!({"a": "1", "b": "2", "count": "2"}));
    assert_eq!(created.body["metadata"]["labels"], json!({"seen": "x"}));
    let sidecar = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'side', image: 'car'}]}}";
    mutating(
        &c,
        "c",
        json!({
            "matchConditions": [{"name": "pods", "expression": "object.kind == 'Pod'"}],
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": sidecar}}],
        }),
    )
    .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let created = c.post("/api/v1/namespaces/default/pods", &pod).await;
    let names: Vec<_> = created.body["spec"]["containers"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["c", "side"]);
    assert_eq!(created.body["spec"]["containers"][1]["imagePullPolicy"], "Always", "it has its defaults");
    // Custom resources are merged by their definition's schema.
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "parts": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": {
            "type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}},
        "all": {"type": "array", "items": {"type": "string"}}}}}});
    crate::definitions::establish(&c, &crate::definitions::foos(&schema)).await;
    let parts = "Object{spec: Object.spec{parts: [Object.spec.parts{name: 'b', n: 2}]}}";
    let about = |expression: &str| {
        json!({
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["example.com"],
                                                    "apiVersions": ["v1"], "resources": ["foos"]}]},
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}],
        })
    };
    mutating(&c, "d", about(parts)).await;
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "f"},
                     "spec": {"parts": [{"name": "a", "n": 1}, {"name": "b"}]}});
    let foos = "/apis/example.com/v1/namespaces/default/foos";
    let created = c.post(foos, &foo).await;
    assert_eq!(
        created.body["spec"]["parts"],
        json!([{"name": "a", "n": 1}, {"name": "b", "n": 2}]),
        "{}",
        created.body
    );
    mutating(&c, "e", about("Object{spec: Object.spec{all: ['x']}}")).await;
    let refused =
        c.post(foos, &json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "g"}})).await;
    assert!(
        denied(&refused).2.ends_with("may not mutate atomic arrays, maps or structs: .spec.all"),
        "{}",
        refused.body
    );
    c.stop().await;
}

#[tokio::test]
async fn a_mutating_policy_that_fails_denies_and_may_not_replace_what_is_whole() {
    let c = Cluster::start().await;
    let atomic = "Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['a']}]}}";
    mutating(
        &c,
        "m",
        json!({
            "matchConditions": [{"name": "pods", "expression": "object.kind == 'Pod'"}],
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": atomic}}],
        }),
    )
    .await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let refused = c.post("/api/v1/namespaces/default/pods", &pod).await;
    let why = "policy 'm' with binding 'm-binding' denied request: error applying patch: invalid ApplyConfiguration: may not \
               mutate atomic arrays, maps or structs: .spec.containers[0].args";
    assert_eq!(denied(&refused), (422, "Invalid", why));
    mutating(&c, "n", json!({"mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/data/none'}]"}}]}))
        .await;
    let refused = c.post(MAPS, &map("x", json!({}))).await;
    assert!(
        denied(&refused).2.starts_with("policy 'n' with binding 'n-binding' denied request: JSON Patch: "),
        "{}",
        refused.body
    );
    c.stop().await;
}

/// A policy's status, when it is of the policy's generation.
async fn checked(c: &Cluster, name: &str) -> Value {
    let path = format!(
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?watch=1&fieldSelector=metadata.name%3D{name}"
    );
    let mut following = crate::watching::Following::begin(c, &path).await;
    loop {
        let event = following.next().await.unwrap();
        let object = &event["object"];
        if object["status"]["observedGeneration"] == object["metadata"]["generation"] {
            return object["status"].clone();
        }
    }
}

#[tokio::test]
async fn expressions_that_do_not_fit_the_types_they_are_about_are_told_in_the_status() {
    let c = Cluster::start().await;
    let about = |group: &str, resources: Value| {
        json!({"resourceRules": [{"operations": ["CREATE"], "apiGroups": [group], "apiVersions": ["v1"],
                                  "resources": resources}]})
    };
    policy(&c, "typed", json!({
        "matchConstraints": about("apps", json!(["deployments", "replicasets", "*/scale"])),
        "variables": [{"name": "wanted", "expression": "object.spec.replicas"}],
        "validations": [
            {"expression": "object.spec.replicas > 1 && variables.wanted > 1"},
            {"expression": "object.spec.strategy.type == 'x'", "messageExpression": "string(object.spec.absent)"},
            {"expression": "object.spec.template.spec.containers.all(c, c.image > 1)"},
            {"expression": "object.metadata.labels['a'] == 'b' && object.metadata.creationTimestamp < timestamp('2030-01-01T00:00:00Z')"},
        ],
    }))
    .await;
    let status = checked(&c, "typed").await;
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().unwrap_or_else(|| panic!("{status}"));
    let told: Vec<(&str, &str)> =
        warnings.iter().map(|w| (w["fieldRef"].as_str().unwrap(), w["warning"].as_str().unwrap())).collect();
    let fields: Vec<&str> = told.iter().map(|(field, _)| *field).collect();
    assert_eq!(
        fields,
        ["spec.validations[1].expression", "spec.validations[1].messageExpression", "spec.validations[2].expression"]
    );
    // A ReplicaSet has no strategy; a Deployment has.
    assert!(told[0].1.starts_with("apps/v1, Kind=ReplicaSet: compilation failed: ERROR: <input>:1:"), "{told:?}");
    assert!(told[0].1.contains("undefined field 'strategy'") && !told[0].1.contains("Deployment"), "{told:?}");
    assert!(told[1].1.contains("Kind=Deployment") && told[1].1.contains("Kind=ReplicaSet"), "{told:?}");
    assert!(told[2].1.contains("found no matching overload for '_>_'"), "{told:?}");

    // Kinds of definitions have types as well, and so have parameters.
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}});
    crate::definitions::establish(&c, &crate::definitions::foos(&schema)).await;
    policy(
        &c,
        "custom",
        json!({
            "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
            "matchConstraints": about("example.com", json!(["foos"])),
            "validations": [
                {"expression": "object.spec.n > int(params.data.n)"},
                {"expression": "object.spec.m == 1"},
                {"expression": "params.dato == 'x'"},
            ],
        }),
    )
    .await;
    let status = checked(&c, "custom").await;
    let warnings = status["typeChecking"]["expressionWarnings"].as_array().unwrap_or_else(|| panic!("{status}"));
    for (at, field) in [(1, "m"), (2, "dato")] {
        let told = &warnings[at - 1];
        assert_eq!(told["fieldRef"], format!("spec.validations[{at}].expression"), "{status}");
        let why = told["warning"].as_str().unwrap();
        assert!(why.starts_with("example.com/v1, Kind=Foo: ") && why.contains(&format!("'{field}'")), "{why}");
    }
    assert_eq!(warnings.len(), 2);
    // Corrected, it says so.
    let right = json!({"spec": {"validations": [{"expression": "object.spec.n > 1"}]}});
    let path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/custom";
    assert_eq!(c.merge(path, &right).await.code, 200);
    assert_eq!(checked(&c, "custom").await["typeChecking"], json!({}));
    c.stop().await;
}
