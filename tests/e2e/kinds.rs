//! Kinds that kubectl has commands of its own for, and a budget that holds a drain.

use crate::cluster::Cluster;

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [sleep, '1000000']}
";

const SET: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - {name: c, image: 'busybox:1', volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
";

#[test]
fn every_command_finds_its_kind() {
    let cluster = Cluster::start();
    let run = |arguments: &str| cluster.kubectl(&arguments.split_whitespace().collect::<Vec<_>>());
    cluster.apply(SET);
    run("create job once --image=busybox:1 -- true");
    run("create cronjob daily --image=busybox:1 --schedule=@daily -- true");
    run("create quota few --hard=pods=10,requests.cpu=4");
    run("create poddisruptionbudget db --selector=app=db --min-available=1");
    run("autoscale statefulset db --max=5 --cpu-percent=60");
    assert_eq!(run("scale statefulset db --replicas=3"), "statefulset.apps/db scaled\n");
    let all = run("get all -o name");
    for name in
        ["statefulset.apps/db", "job.batch/once", "cronjob.batch/daily", "horizontalpodautoscaler.autoscaling/db"]
    {
        assert!(all.lines().any(|line| line == name), "{name} is missing:\n{all}");
    }
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&run("get sts db --no-headers"))[..2], ["db", "0/3"]);
    assert_eq!(words(&run("get hpa db --no-headers"))[..4], ["db", "StatefulSet/db", "cpu:", "<unknown>/60%"]);
    assert_eq!(words(&run("get cj daily --no-headers"))[..4], ["daily", "@daily", "<none>", "False"]);
    assert_eq!(words(&run("get pdb db --no-headers"))[..4], ["db", "1", "N/A", "0"]);
    assert_eq!(words(&run("get job once --no-headers"))[..3], ["once", "Running", "0/1"]);
    let refused = cluster.kubectl_refused(&["patch", "sts", "db", "-p", r#"{"spec":{"serviceName":"other"}}"#]);
    assert!(refused.contains("updates to statefulset spec for fields other than"), "{refused}");
    assert!(run("explain cronjob.spec.jobTemplate.spec.podFailurePolicy").contains("rules"));
}

#[test]
fn a_budget_holds_a_drain() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(WEB);
    cluster.kubectl(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--min-available=2"]);
    cluster.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    cluster.wait_jsonpath(&["pdb", "web"], "{.status.currentHealthy}", "2");
    let refused = cluster.kubectl_refused(&["drain", "node-1", "--timeout=3s"]);
    assert!(refused.contains("Cannot evict pod as it would violate the pod's disruption budget."), "{refused}");
    cluster.kubectl(&["patch", "pdb", "web", "-p", r#"{"spec":{"minAvailable":0}}"#]);
    cluster.wait_jsonpath(&["pdb", "web"], "{.status.disruptionsAllowed}", "2");
    let drained = cluster.kubectl(&["drain", "node-1", "--timeout=60s"]);
    assert!(drained.contains("node/node-1 drained"), "{drained}");
}

const CLAIMED: &str = "apiVersion: scheduling.k8s.io/v1
kind: PriorityClass
metadata: {name: usual}
value: 1000
globalDefault: true
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  nodeName: node-1
  containers: [{name: c, image: 'busybox:1', volumeMounts: [{name: data, mountPath: /data}]}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
";

#[test]
fn a_claim_stays_while_a_pod_has_it() {
    let cluster = Cluster::start();
    cluster.apply(CLAIMED);
    cluster.wait_jsonpath(&["pod", "p"], "{.spec.priorityClassName} {.spec.priority}", "usual 1000");
    cluster.kubectl(&["delete", "pvc", "data", "--wait=false"]);
    let status = cluster.kubectl(&["get", "pvc", "data", "--no-headers"]);
    assert_eq!(status.split_whitespace().nth(1), Some("Terminating"), "{status}");
    cluster.kubectl(&["delete", "pod", "p", "--timeout=60s"]);
    cluster.kubectl(&["wait", "--for=delete", "pvc/data", "--timeout=90s"]);
}
