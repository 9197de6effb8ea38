//! What kubectl 1.32 sends is what it prints: bodies as its `create` commands sent them (all with `-n pb`), and the same
//! objects as `--dry-run=client -o json` shows them.

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::CronJob,
    core::v1::{ResourceQuota, Secret, Service},
    networking::v1::Ingress,
    policy::v1::PodDisruptionBudget,
    rbac::v1::{Role, RoleBinding},
    scheduling::v1::PriorityClass,
};
use serde::{Serialize, de::DeserializeOwned};

use super::*;

pub(super) fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// Both are read as the kind's type, as the API server does: what is required and zero may be said or not.
fn check<T: DeserializeOwned + Serialize>(hex: &str, json: &str) {
    let of = |value: Value| serde_json::to_value(serde_json::from_value::<T>(value).unwrap()).unwrap();
    let sent = to_json(&unhex(hex)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(of(sent), of(serde_json::from_str(json).unwrap()));
}

#[test]
fn a_deployment_without_replicas() {
    // kubectl create deployment zero --image=nginx --replicas=0
    check::<Deployment>(
        "6b3873000a150a07617070732f7631120a4465706c6f796d656e7412b1010a230a047a65726f12001a02706222002a0032003800 \
         42005a0b0a0361707012047a65726f127c0800120d0a0b0a0361707012047a65726f1a610a1d0a0012001a0022002a0032003800 \
         42005a0b0a0361707012047a65726f124012220a056e67696e7812056e67696e782a0042006a007200800100880100900100a201 \
         001a00320042004a0052005800600068008201008a01009a0100c2010022020a00280038001a0c0800100018002000280038001a \
         002200",
        r#"
        {"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "zero", "namespace": "pb",
        "labels": {"app": "zero"}}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "zero"}},
        "template": {"metadata": {"labels": {"app": "zero"}}, "spec": {"containers": [{"name": "nginx", "image":
        "nginx", "resources": {}}]}}, "strategy": {}}, "status": {}}
        "#,
    );
}

#[test]
fn a_secret_with_bytes_that_are_no_text() {
    // kubectl create secret generic sec --from-literal=pw=x --from-file=b.bin
    check::<Secret>(
        "6b3873000a0c0a027631120653656372657412300a150a0373656312001a02706222002a00320038004200120c0a05622e62696e \
         120300fffe12070a0270771201781a001a002200",
        r#"
        {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "sec", "namespace": "pb"}, "data": {"b.bin":
        "AP/+", "pw": "eA=="}}
        "#,
    );
}

#[test]
fn a_service_with_ports_by_number_and_by_name() {
    // kubectl create service clusterip ci --tcp=80:8080 --tcp=443:https
    check::<Service>(
        "6b3873000a0d0a027631120753657276696365128c010a1f0a02636912001a02706222002a003200380042005a090a0361707012 \
         02636912650a1b0a0738302d38303830120354435018502207080010903f1a0028000a220a093434332d68747470731203544350 \
         18bb03220b080110001a056874747073280012090a03617070120263691a002209436c757374657249503a00420052005a006000 \
         68001a020a001a002200",
        r#"
        {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "ci", "namespace": "pb", "labels": {"app":
        "ci"}}, "spec": {"ports": [{"name": "80-8080", "protocol": "TCP", "port": 80, "targetPort": 8080},
        {"name": "443-https", "protocol": "TCP", "port": 443, "targetPort": "https"}], "selector": {"app":
        "ci"}, "type": "ClusterIP"}, "status": {"loadBalancer": {}}}
        "#,
    );
}

#[test]
fn a_role_binding_of_all_kinds_of_subjects() {
    // kubectl create rolebinding rb --role=reader --serviceaccount=pb:robot --user=jane --group=dev
    check::<RoleBinding>(
        "6b3873000a2b0a1c726261632e617574686f72697a6174696f6e2e6b38732e696f2f7631120b526f6c6542696e64696e6712b601 \
         0a140a02726212001a02706222002a0032003800420012290a04557365721219726261632e617574686f72697a6174696f6e2e6b \
         38732e696f1a046a616e65220012290a0547726f75701219726261632e617574686f72697a6174696f6e2e6b38732e696f1a0364 \
         65762200121d0a0e536572766963654163636f756e7412001a05726f626f74220270621a290a19726261632e617574686f72697a \
         6174696f6e2e6b38732e696f1204526f6c651a067265616465721a002200",
        r#"
        {"kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "rb",
        "namespace": "pb"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name":
        "jane"}, {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "dev"}, {"kind":
        "ServiceAccount", "name": "robot", "namespace": "pb"}], "roleRef": {"apiGroup":
        "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}}
        "#,
    );
}

#[test]
fn a_role_over_named_objects() {
    // kubectl create role reader --verb=get,list --resource=pods,pods/log --resource-name=x
    check::<Role>(
        "6b3873000a240a1c726261632e617574686f72697a6174696f6e2e6b38732e696f2f76311204526f6c65123c0a180a0672656164 \
         657212001a02706222002a0032003800420012200a036765740a046c69737412001a04706f64731a08706f64732f6c6f67220178 \
         1a002200",
        r#"
        {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader",
        "namespace": "pb"}, "rules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods",
        "pods/log"], "resourceNames": ["x"]}]}
        "#,
    );
}

#[test]
fn a_priority_class_with_its_preemption_policy() {
    // kubectl create priorityclass pc --value=5
    check::<PriorityClass>(
        "6b3873000a250a147363686564756c696e672e6b38732e696f2f7631120d5072696f72697479436c61737312300a120a02706312 \
         001a0022002a003200380042001005180022002a14507265656d70744c6f7765725072696f726974791a002200",
        r#"
        {"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": "pc"}, "value": 5,
        "preemptionPolicy": "PreemptLowerPriority"}
        "#,
    );
}

#[test]
fn a_cron_job() {
    // kubectl create cronjob j --image=x --schedule='* * * * *'
    check::<CronJob>(
        "6b3873000a130a0862617463682f7631120743726f6e4a6f621294010a130a016a12001a02706222002a00320038004200127b0a \
         092a202a202a202a202a1a002a6c0a110a016a12001a0022002a00320038004200125732550a100a0012001a0022002a00320038 \
         0042001241121a0a016a1201782a0042006a007200800100880100900100a201001a094f6e4661696c757265320042004a005200 \
         5800600068008201008a01009a0100c201001a001a002200",
        r#"
        {"kind": "CronJob", "apiVersion": "batch/v1", "metadata": {"name": "j", "namespace": "pb"}, "spec":
        {"schedule": "* * * * *", "jobTemplate": {"metadata": {"name": "j"}, "spec": {"template": {"metadata":
        {}, "spec": {"containers": [{"name": "j", "image": "x", "resources": {}}], "restartPolicy":
        "OnFailure"}}}}}, "status": {}}
        "#,
    );
}

#[test]
fn a_disruption_budget_by_number() {
    // kubectl create poddisruptionbudget b --min-available=1 --selector=a=b
    check::<PodDisruptionBudget>(
        "6b3873000a200a09706f6c6963792f76311213506f6444697372757074696f6e42756467657412350a130a016212001a02706222 \
         002a0032003800420012120a06080010011a0012080a060a01611201621a0a080018002000280030001a002200",
        r#"
        {"kind": "PodDisruptionBudget", "apiVersion": "policy/v1", "metadata": {"name": "b", "namespace": "pb"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}, "status": {"disruptionsAllowed":
        0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}}
        "#,
    );
}

#[test]
fn an_ingress_by_path() {
    // kubectl create ingress i --rule=a/b=c:80
    check::<Ingress>(
        "6b3873000a1f0a146e6574776f726b696e672e6b38732e696f2f76311207496e6772657373123e0a130a016912001a0270622200 \
         2a0032003800420012231a210a0161121c0a1a0a180a022f62120b22090a016312040a0010501a0545786163741a020a001a0022 \
         00",
        r#"
        {"kind": "Ingress", "apiVersion": "networking.k8s.io/v1", "metadata": {"name": "i", "namespace": "pb"},
        "spec": {"rules": [{"host": "a", "http": {"paths": [{"path": "/b", "pathType": "Exact", "backend":
        {"service": {"name": "c", "port": {"number": 80}}}}]}}]}, "status": {"loadBalancer": {}}}
        "#,
    );
}

#[test]
fn a_quota_of_quantities() {
    // kubectl create quota q --hard=pods=1
    check::<ResourceQuota>(
        "6b3873000a130a027631120d5265736f7572636551756f746112260a130a017112001a02706222002a00320038004200120d0a0b \
         0a04706f647312030a01311a001a002200",
        r#"
        {"kind": "ResourceQuota", "apiVersion": "v1", "metadata": {"name": "q", "namespace": "pb"}, "spec":
        {"hard": {"pods": "1"}}, "status": {}}
        "#,
    );
}
