//! Webhooks asked over TLS: what they are told, what they may do, and how badly they may behave.

use serde_json::{Value, json};

use crate::{
    harness::{Answer, Cluster},
    webhook_server::{Hook, Reply, patch},
};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn webhook(hook: &Hook, name: &str, change: &Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": {"url": hook.url(), "caBundle": hook.bundle()},
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}],
    });
    webhook.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    webhook
}

async fn configure(c: &Cluster, kind: &str, name: &str, webhooks: &[Value]) {
    let plural = format!("{}webhookconfigurations", kind.to_lowercase());
    let object = json!({
        "kind": format!("{kind}WebhookConfiguration"), "apiVersion": "admissionregistration.k8s.io/v1",
        "metadata": {"name": name}, "webhooks": webhooks,
    });
    let created = c.post(&format!("{GROUP}/{plural}"), &object).await;
    assert_eq!(created.code, 201, "{}", created.body);
}

fn message(answer: &Answer) -> (u16, &str) {
    let (code, _, message) = answer.refusal();
    (code, message)
}

#[tokio::test]
async fn a_validating_webhook_is_told_all_and_may_refuse() {
    let c = Cluster::start().await;
    let hook = Hook::start(|request| {
        if request["operation"] != "CREATE" && request["operation"] != "DELETE" {
            return Reply::Response(json!({"allowed": true, "warnings": ["look out"]}));
        }
        let refused = request["name"] == "bad" || request["operation"] == "DELETE";
        let status = json!({"code": 418, "reason": "Teapot", "message": "no tea"});
        Reply::Response(json!({"allowed": !refused, "status": status, "warnings": ["one", "one", "two"]}))
    })
    .await;
    configure(&c, "Validating", "v", &[webhook(&hook, "v", &json!({}))]).await;
    let good = c.post(MAPS, &map("good")).await;
    assert_eq!((good.code, good.warnings), (201, vec!["299 - \"one\"".to_owned(), "299 - \"two\"".to_owned()]));
    let bad = c.post(MAPS, &map("bad")).await;
    let denied = "admission webhook \"v.example.com\" denied the request: no tea";
    assert_eq!(bad.refusal(), (418, "Teapot", denied));
    assert_eq!(bad.warnings, ["299 - \"one\"", "299 - \"two\""], "who is refused is warned all the same");
    let changed = c.merge(&format!("{MAPS}/good"), &json!({"data": {"b": "2"}})).await;
    assert_eq!((changed.code, changed.warnings), (200, vec!["299 - \"look out\"".to_owned()]));
    assert_eq!(message(&c.delete(&format!("{MAPS}/good")).await), (418, denied));
    assert_eq!(c.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}})).await.code, 201);

    let seen = hook.seen();
    assert_eq!(seen.len(), 4, "nobody asks about secrets");
    let first = &seen[0];
    assert_eq!(first["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(first["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(
        (&first["name"], &first["namespace"], &first["dryRun"]),
        (&json!("good"), &json!("default"), &json!(false))
    );
    assert_eq!(first["userInfo"]["username"], "admin");
    assert_eq!((&first["object"]["data"], &first["oldObject"]), (&json!({"a": "1"}), &Value::Null));
    assert_eq!(first["options"], json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"}));
    assert_eq!((&seen[2]["object"]["data"]["b"], &seen[2]["oldObject"]["data"]["a"]), (&json!("2"), &json!("1")));
    assert_eq!((&seen[3]["object"], &seen[3]["oldObject"]["metadata"]["name"]), (&Value::Null, &json!("good")));
    c.stop().await;
}

#[tokio::test]
async fn mutating_webhooks_change_one_after_the_other_and_are_asked_again_when_they_want() {
    let c = Cluster::start().await;
    let add = |key: &'static str| {
        move |request: &Value| match request.pointer("/object/data").and_then(|data| data.get(key)) {
            None => patch(&json!([{"op": "add", "path": format!("/data/{key}"), "value": "x"}])),
            Some(_) => Reply::Response(json!({"allowed": true})),
        }
    };
    let (first, second) = (Hook::start(add("first")).await, Hook::start(add("second")).await);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    // Called by name of the configuration, whichever was there first.
    configure(&c, "Mutating", "b", &[webhook(&second, "second", &json!({}))]).await;
    configure(&c, "Mutating", "a", &[webhook(&first, "first", &again)]).await;
    let created = c.post(MAPS, &map("x")).await;
    assert_eq!(created.body["data"], json!({"a": "1", "first": "x", "second": "x"}), "{}", created.body);
    let datas = |hook: &Hook| hook.seen().iter().map(|request| request["object"]["data"].clone()).collect::<Vec<_>>();
    assert_eq!(datas(&first), [json!({"a": "1"}), json!({"a": "1", "first": "x", "second": "x"})]);
    assert_eq!(datas(&second), [json!({"a": "1", "first": "x"})]);
    c.stop().await;
}

#[tokio::test]
async fn a_changed_pod_has_its_defaults_and_is_checked() {
    let c = Cluster::start().await;
    let hook = Hook::start(|request| {
        let image = if request["name"] == "broken" { json!("") } else { json!("sidecar") };
        let container = json!({"name": "added", "image": image});
        patch(&json!([{"op": "add", "path": "/spec/containers/-", "value": container}]))
    })
    .await;
    let pods =
        json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods"]}]});
    configure(&c, "Mutating", "m", &[webhook(&hook, "m", &pods)]).await;
    let pod = |name: &str| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let path = "/api/v1/namespaces/default/pods";
    let created = c.post(path, &pod("p")).await;
    let added = &created.body["spec"]["containers"][1];
    assert_eq!(
        (&added["imagePullPolicy"], &added["terminationMessagePath"]),
        (&json!("Always"), &json!("/dev/termination-log"))
    );
    assert_eq!(added["volumeMounts"][0]["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(created.body["spec"]["volumes"].as_array().map(Vec::len), Some(1), "one token for both containers");
    let refused = c.post(path, &pod("broken")).await;
    assert_eq!(refused.refusal().1, "Invalid", "{}", refused.body);
    c.stop().await;
}

#[tokio::test]
async fn webhooks_that_misbehave_fail_closed_or_open_as_configured() {
    let c = Cluster::start().await;
    let hook = Hook::start(|request| match request["name"].as_str().unwrap() {
        "uid" => Reply::Response(json!({"allowed": true, "uid": "other"})),
        "html" => Reply::Raw(200, "<html>".to_owned()),
        "absent" => Reply::Raw(404, String::new()),
        "broken" => Reply::Raw(500, "boom".to_owned()),
        "moved" => Reply::Raw(302, String::new()),
        "endless" => Reply::Endless,
        "silent" => Reply::Silence,
        "strange" => patch(&json!([{"op": "jump"}])),
        "kindless" => patch(&json!([{"op": "replace", "path": "/data", "value": 7}])),
        "elsewhere" => patch(&json!([{"op": "replace", "path": "/metadata/namespace", "value": "kube-system"}])),
        _ => Reply::Response(json!({"allowed": true})),
    })
    .await;
    let quick = json!({"timeoutSeconds": 1, "failurePolicy": "Fail"});
    configure(&c, "Mutating", "m", &[webhook(&hook, "m", &quick)]).await;
    let url = format!("{}?timeout=1s", hook.url());
    let failed = "Internal error occurred: failed calling webhook \"m.example.com\": ";
    for (name, code, why) in [
        ("html", 500, format!("{failed}failed to call webhook: the answer cannot be read: ")),
        ("absent", 500, format!("{failed}failed to call webhook: the server could not find the requested resource")),
        (
            "broken",
            500,
            format!(
                "{failed}failed to call webhook: an error on the server (\"boom\") has prevented the request from succeeding"
            ),
        ),
        ("moved", 500, format!("{failed}failed to call webhook: the server responded with the status code 302")),
        (
            "endless",
            500,
            format!("{failed}failed to call webhook: Post \"{url}\": the answer is larger than 4194304 bytes"),
        ),
        ("silent", 500, format!("{failed}failed to call webhook: Post \"{url}\": context deadline exceeded")),
        ("uid", 500, format!("{failed}received invalid webhook response: expected response.uid=")),
        ("strange", 500, format!("{failed}received undecodable patch in webhook response: ")),
        ("kindless", 500, "Internal error occurred: ".to_owned()),
        ("elsewhere", 400, "the namespace of the provided object does not match".to_owned()),
    ] {
        let answer = c.post(MAPS, &map(name)).await;
        let (found, message) = message(&answer);
        assert!(found == code && message.starts_with(&why), "{name}: {found} {message}");
    }
    let moved = hook.seen().iter().filter(|request| request["name"] == "moved").count();
    assert_eq!(moved, 1, "who is sent in a circle does not go there");
    let path = format!("{GROUP}/mutatingwebhookconfigurations/m");
    let open = c
        .send(
            "PATCH",
            &path,
            "application/json-patch+json",
            json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}]).to_string(),
        )
        .await;
    assert_eq!(open.code, 200, "{}", open.body);
    for name in ["html", "absent", "endless", "silent", "uid", "strange"] {
        assert_eq!(c.post(MAPS, &map(name)).await.code, 201, "{name} is left out");
    }
    assert_eq!(c.delete(&path).await.code, 200);
    assert_eq!(c.post(MAPS, &map("broken")).await.code, 201, "nobody is asked any more");
    c.stop().await;
}

#[tokio::test]
async fn nobody_there_or_nobody_trusted_is_told_in_words_people_know() {
    let c = Cluster::start().await;
    let hook = Hook::start(|_| Reply::Response(json!({"allowed": true}))).await;
    let stranger = Hook::start(|_| Reply::Response(json!({"allowed": true}))).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = |url: String| json!({"clientConfig": {"url": url, "caBundle": stranger.bundle()}});
    let service =
        json!({"clientConfig": {"service": {"name": "hook", "namespace": "default"}, "caBundle": hook.bundle()}});
    for (change, why) in [
        (
            url(hook.url()),
            format!(
                "Post \"{}?timeout=10s\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
                hook.url()
            ),
        ),
        (
            url(format!("https://{free}")),
            format!("Post \"https://{free}/?timeout=10s\": dial tcp {free}: connect: connection refused"),
        ),
        (service, "Post \"https://hook.default.svc:443/?timeout=10s\": service \"hook\" not found".to_owned()),
    ] {
        configure(&c, "Validating", "v", &[webhook(&hook, "v", &change)]).await;
        let answer = c.post(MAPS, &map("x")).await;
        let expected =
            format!("Internal error occurred: failed calling webhook \"v.example.com\": failed to call webhook: {why}");
        assert_eq!(message(&answer), (500, expected.as_str()));
        assert_eq!(
            c.delete(&format!("{GROUP}/validatingwebhookconfigurations/v")).await.code,
            200,
            "the way out is open"
        );
    }
    c.stop().await;
}

#[tokio::test]
async fn a_service_leads_to_a_ready_endpoint() {
    let c = Cluster::start().await;
    let hook = Hook::start(|_| Reply::Response(json!({"allowed": false}))).await;
    let service = json!({"metadata": {"name": "hook"}, "spec": {"selector": {"app": "hook"}, "ports": [
        {"name": "metrics", "port": 9090}, {"name": "https", "port": 443, "targetPort": "https"}]}});
    assert_eq!(c.post("/api/v1/namespaces/default/services", &service).await.code, 201);
    let config = json!({"clientConfig": {"service": {"name": "hook", "namespace": "default", "path": "/check"}, "caBundle": hook.bundle()}});
    configure(&c, "Validating", "v", &[webhook(&hook, "v", &config)]).await;
    // Nobody; then a port that is not asked for; then somebody who is not ready.
    for (port, is_ready) in [("", None), ("metrics", Some(true)), ("https", Some(false))] {
        if let Some(is_ready) = is_ready {
            hook.serves(&c, "hook", port, is_ready).await;
        }
        let nobody = c.post(MAPS, &map("x")).await;
        assert!(message(&nobody).1.ends_with("no endpoints available for service \"hook\""), "{}", nobody.body);
    }
    hook.serves(&c, "hook", "https", true).await;
    let denied = "admission webhook \"v.example.com\" denied the request without explanation";
    assert_eq!(message(&c.post(MAPS, &map("x")).await), (400, denied));
    c.stop().await;
}

#[tokio::test]
async fn selectors_scopes_subresources_and_equivalents_decide_who_is_asked() {
    let c = Cluster::start().await;
    let hook = Hook::start(|_| Reply::Response(json!({"allowed": false}))).await;
    let rule = |group: &str, version: &str, resource: &str| json!([{"operations": ["CREATE", "UPDATE"], "apiGroups": [group], "apiVersions": [version], "resources": [resource]}]);
    let (maps, node) = ("/api/v1/namespaces/quiet/configmaps", "/api/v1/nodes");
    assert_eq!(
        c.post("/api/v1/namespaces", &json!({"metadata": {"name": "quiet", "labels": {"hooks": "no"}}})).await.code,
        201
    );
    assert_eq!(c.post(node, &json!({"metadata": {"name": "n"}})).await.code, 201);
    let mut labelled = map("y");
    labelled["metadata"]["labels"] = json!({"skip": "me"});
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "involvedObject": {"namespace": "default"}});
    let events = "/api/v1/namespaces/default/events";
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
                            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    let other = json!([{"key": "hooks", "operator": "NotIn", "values": ["no"]}]);
    let unless = json!([{"key": "skip", "operator": "DoesNotExist"}]);
    let scoped = |scope: &str| {
        let mut rules = rule("*", "*", "*");
        rules[0]["scope"] = scope.into();
        json!({"rules": rules})
    };
    for (change, path, object, asked) in [
        (json!({"namespaceSelector": {"matchExpressions": other}}), maps, map("x"), false),
        (json!({"namespaceSelector": {"matchExpressions": other}}), MAPS, map("x"), true),
        (json!({"objectSelector": {"matchExpressions": unless}}), MAPS, map("x"), true),
        (json!({"objectSelector": {"matchExpressions": unless}}), MAPS, labelled, false),
        (scoped("Cluster"), MAPS, map("z"), false),
        (scoped("Namespaced"), MAPS, map("z"), true),
        (scoped("Cluster"), node, json!({"metadata": {"name": "m"}}), true),
        (json!({"rules": rule("events.k8s.io", "v1", "events")}), events, event.clone(), true),
        (json!({"rules": rule("events.k8s.io", "v1", "events"), "matchPolicy": "Exact"}), events, event, false),
        // A rule from when Deployments were of another group is about them still.
        (json!({"rules": rule("extensions", "v1beta1", "deployments")}), deployments, deployment.clone(), true),
        (
            json!({"rules": rule("extensions", "v1beta1", "deployments"), "matchPolicy": "Exact"}),
            deployments,
            deployment,
            false,
        ),
    ] {
        configure(&c, "Validating", "v", &[webhook(&hook, "v", &change)]).await;
        let answer = c.post(&format!("{path}?dryRun=All"), &object).await;
        assert_eq!(answer.code, if asked { 400 } else { 201 }, "{change} {}", answer.body);
        assert_eq!(c.delete(&format!("{GROUP}/validatingwebhookconfigurations/v")).await.code, 200);
    }
    assert!(hook.seen().iter().all(|request| request["dryRun"] == true));
    let equivalent = hook.seen().into_iter().find(|request| request["kind"]["kind"] == "Event").unwrap();
    assert_eq!(equivalent["resource"]["group"], "events.k8s.io");
    assert_eq!(equivalent["requestResource"]["group"], "");
    assert_eq!(equivalent["object"]["apiVersion"], "events.k8s.io/v1");
    let old = hook.seen().into_iter().find(|request| request["kind"]["kind"] == "Deployment").unwrap();
    assert_eq!((&old["kind"]["group"], &old["requestKind"]["group"]), (&json!("extensions"), &json!("apps")));
    assert_eq!(old["object"]["apiVersion"], "extensions/v1beta1");
    configure(&c, "Validating", "v", &[webhook(&hook, "v", &json!({"rules": rule("", "v1", "nodes/status")}))]).await;
    let status = json!({"status": {"phase": "x"}});
    assert_eq!(c.merge(&format!("{node}/n"), &json!({"metadata": {"labels": {"a": "b"}}})).await.code, 200);
    assert_eq!(c.merge(&format!("{node}/n/status"), &status).await.code, 400);
    assert_eq!(hook.seen().last().unwrap()["subResource"], "status");
    c.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_is_trusted_for_its_names() {
    let c = Cluster::start().await;
    for (name, code) in [("127.0.0.1", 400), ("127.0.0.2", 500)] {
        let hook = Hook::self_signed(&[name], |_| Reply::Response(json!({"allowed": false}))).await;
        configure(&c, "Validating", "v", &[webhook(&hook, "v", &json!({}))]).await;
        let answer = c.post(MAPS, &map("x")).await;
        assert_eq!(answer.code, code, "{}", answer.body);
        assert_eq!(c.delete(&format!("{GROUP}/validatingwebhookconfigurations/v")).await.code, 200);
    }
    c.stop().await;
}

#[tokio::test]
async fn connections_are_asked_about_with_their_options() {
    let c = Cluster::start().await;
    let hook = Hook::start(|request| {
        let allowed = request["name"] != "closed";
        Reply::Response(json!({"allowed": allowed, "status": {"code": 403, "message": "stay out"}}))
    })
    .await;
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"],
                                  "resources": ["pods/exec", "nodes/proxy"]}]});
    configure(&c, "Validating", "v", &[webhook(&hook, "v", &rules)]).await;
    let pods = "/api/v1/namespaces/default/pods";
    let denied = c.get(&format!("{pods}/closed/exec?command=sh&command=-c&container=main&stdin=true")).await;
    let why = "admission webhook \"v.example.com\" denied the request: stay out";
    assert_eq!(message(&denied), (403, why), "{}", denied.body);
    assert_eq!(c.get(&format!("{pods}/open/exec?command=sh")).await.code, 404, "there is no such pod");
    assert_eq!(c.get(&format!("{pods}/closed/log")).await.code, 404, "a log is no connection");
    let dry = c.get(&format!("{pods}/open/exec?command=sh&dryRun=All")).await;
    assert_eq!(message(&dry), (400, "dryRun is not supported"));
    let seen = hook.seen();
    assert_eq!(seen.len(), 2);
    let first = &seen[0];
    assert_eq!(first["kind"], json!({"group": "", "version": "v1", "kind": "PodExecOptions"}));
    assert_eq!(first["resource"], json!({"group": "", "version": "v1", "resource": "pods"}));
    assert_eq!((&first["subResource"], &first["operation"]), (&json!("exec"), &json!("CONNECT")));
    assert_eq!((&first["oldObject"], &first["options"]), (&Value::Null, &Value::Null));
    let options = json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["sh", "-c"], "container": "main",
                         "stdin": true});
    assert_eq!(first["object"], options);
    c.stop().await;
}
