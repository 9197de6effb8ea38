//! What controllers make of objects, as kubectl shows it: addresses behind Services, pods of those that ask for some.

use crate::{
    cluster::{Cluster, LONG},
    wait::wait_for,
};

const SERVED: &str = "apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [sleep, '1000000'], ports: [{name: http, containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{port: 80}]}]
";

#[test]
fn services_show_the_addresses_of_their_pods() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(SERVED);
    cluster.wait_jsonpath(&["rc", "web"], "{.status.readyReplicas}", "2");
    let sorted = |text: &str| {
        let mut words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        words.sort_unstable();
        words
    };
    let pods =
        || sorted(&cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"]));
    let slices = || {
        let addresses = "jsonpath={.items[*].endpoints[?(@.conditions.ready)].addresses[0]}";
        sorted(&cluster.kubectl(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", addresses]))
    };
    let endpoints =
        || sorted(&cluster.kubectl(&["get", "endpoints", "web", "-o", "jsonpath={.subsets[*].addresses[*].ip}"]));
    let same = || {
        wait_for("the pods' addresses behind the Service", LONG, || {
            let seen = (pods(), slices(), endpoints());
            if seen.0.len() == 2 && seen.0 == seen.1 && seen.0 == seen.2 { Ok(()) } else { Err(seen) }
        });
    };
    same();
    let port = "{.items[0].ports[0].port} {.items[0].metadata.labels.tier} {.items[0].endpoints[0].nodeName}";
    let slice = ["endpointslices", "-l", "kubernetes.io/service-name=web"];
    cluster.wait_jsonpath(&slice, port, "8080 front node-1");
    let doomed = cluster.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]);
    cluster.kubectl(&["delete", doomed.lines().next().unwrap()]);
    same();

    let mirrored = ["endpointslices", "-l", "kubernetes.io/service-name=outside"];
    cluster.wait_jsonpath(&mirrored, "{.items[*].endpoints[*].addresses[*]}", "192.0.2.7");

    cluster.kubectl(&["delete", "service/web", "service/outside", "rc/web"]);
    wait_for("everything of them to be gone", LONG, || {
        let left = cluster.kubectl(&["get", "endpoints,endpointslices,pods", "-o", "name"]);
        let left: Vec<&str> = left.lines().filter(|line| !line.ends_with("/kubernetes")).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
    });
}

const JOBS: &str = "apiVersion: batch/v1
kind: Job
metadata: {name: counted}
spec:
  completions: 3
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [sh, -c, 'echo index $JOB_COMPLETION_INDEX']}
---
apiVersion: batch/v1
kind: Job
metadata: {name: hopeless}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers:
      - {name: c, image: 'busybox:1', command: [sh, -c, 'exit 3']}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: often}
spec:
  schedule: '* * * * *'
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers:
          - {name: c, image: 'busybox:1', command: ['true']}
";

#[test]
fn jobs_run_to_their_end_and_cron_jobs_make_them() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(JOBS);
    cluster.kubectl(&["wait", "--for=condition=Complete", "job/counted", "--timeout=60s"]);
    let status = "{.status.succeeded} {.status.completedIndexes} {.status.active} {.status.uncountedTerminatedPods}";
    cluster.wait_jsonpath(&["job", "counted"], status, "3 0-2  {}");
    for index in ["0", "1", "2"] {
        let selector = format!("batch.kubernetes.io/job-completion-index={index}");
        let log = cluster.kubectl(&["logs", "-l", &selector]);
        assert_eq!(log.trim(), format!("index {index}"));
    }
    let finalizers = cluster.kubectl(&["get", "pods", "-o", "jsonpath={.items[*].metadata.finalizers}"]);
    assert_eq!(finalizers, "", "what was counted is held by nobody");
    cluster.kubectl(&["wait", "--for=condition=Failed", "job/hopeless", "--timeout=60s"]);
    cluster.wait_jsonpath(
        &["job", "hopeless"],
        "{.status.failed} {.status.conditions[?(@.type=='Failed')].reason}",
        "1 BackoffLimitExceeded",
    );
    let described = cluster.kubectl(&["describe", "job", "counted"]);
    for word in ["SuccessfulCreate", "Completed", "Job completed"] {
        assert!(described.contains(word), "{word} is missing:\n{described}");
    }
    wait_for("the CronJob's first Job", LONG, || {
        let jobs = cluster.kubectl(&["get", "cronjob", "often", "-o", "jsonpath={.status.lastSuccessfulTime}"]);
        if jobs.is_empty() { Err(jobs) } else { Ok(()) }
    });
    let owned = cluster.kubectl(&["get", "jobs", "-o", "jsonpath={.items[*].metadata.ownerReferences[0].name}"]);
    assert!(owned.split_whitespace().all(|owner| owner == "often") && !owned.is_empty(), "{owned}");
    cluster.kubectl(&["delete", "cronjob/often", "job/counted", "job/hopeless"]);
    wait_for("all Jobs and pods to be gone", LONG, || {
        let left = cluster.kubectl(&["get", "jobs,pods", "-o", "name"]);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
}

const SETS: &str = "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [sleep, '1000000'], env: [{name: VERSION, value: one}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: c, image: 'busybox:1', command: [sleep, '1000000'], env: [{name: VERSION, value: one}]}
";

#[test]
fn stateful_and_daemon_sets_roll_out_and_back() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(SETS);
    let rolled = |set: &str| cluster.kubectl(&["rollout", "status", set, "--timeout=90s"]);
    let versions = |app: &str| {
        let path = "jsonpath={range .items[*]}{.metadata.name}={.spec.containers[0].env[0].value} {end}";
        cluster.kubectl(&["get", "pods", "-l", &format!("app={app}"), "--sort-by=.metadata.name", "-o", path])
    };
    rolled("statefulset/db");
    rolled("daemonset/log");
    assert_eq!(versions("db"), "db-0=one db-1=one ");
    let hostname = cluster.kubectl(&["exec", "db-1", "--", "hostname"]);
    assert_eq!(hostname.trim(), "db-1");
    let node = cluster.kubectl(&["get", "pods", "-l", "app=log", "-o", "jsonpath={.items[*].spec.nodeName}"]);
    assert_eq!(node, "node-1");
    for set in ["statefulset/db", "daemonset/log"] {
        cluster.kubectl(&["set", "env", set, "VERSION=two"]);
        rolled(set);
    }
    assert_eq!(versions("db"), "db-0=two db-1=two ");
    assert!(versions("log").ends_with("=two "), "{}", versions("log"));
    for set in ["statefulset/db", "daemonset/log"] {
        cluster.kubectl(&["rollout", "undo", set]);
        rolled(set);
    }
    assert_eq!(versions("db"), "db-0=one db-1=one ");
    assert!(versions("log").ends_with("=one "), "{}", versions("log"));
    let select = r#"{"spec":{"template":{"spec":{"nodeSelector":{"disk":"ssd"}}}}}"#;
    cluster.kubectl(&["patch", "daemonset/log", "-p", select]);
    cluster.wait_jsonpath(
        &["daemonset", "log"],
        "{.status.desiredNumberScheduled} {.status.numberMisscheduled}",
        "0 0",
    );
    cluster.kubectl(&["label", "node", "node-1", "disk=ssd"]);
    cluster.wait_jsonpath(&["daemonset", "log"], "{.status.numberAvailable}", "1");
    cluster.kubectl(&["scale", "statefulset/db", "--replicas=1"]);
    cluster.wait_jsonpath(&["statefulset", "db"], "{.status.replicas}", "1");
    assert_eq!(versions("db"), "db-0=one ");
}
