//! Resources on the real kernel: what the cgroups of pods and of all of them together are told, and told anew.

use std::path::Path;

use serde_json::{Value, json};

use crate::{pod, with_agent};

/// What a group is limited to, in the words of whichever version of cgroups the host has: bytes, and processes.
pub(crate) fn limits(group: &str) -> (String, String) {
    let of = |controller: &str, v1: &str, v2: &str| {
        let (old, new) = (format!("/sys/fs/cgroup/{controller}/{group}/{v1}"), format!("/sys/fs/cgroup/{group}/{v2}"));
        let file = if Path::new(&old).exists() { old } else { new };
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}")).trim().to_owned()
    };
    (of("memory", "memory.limit_in_bytes", "memory.max"), of("pids", "pids.max", "pids.max"))
}

fn bytes(megabytes: u64) -> String {
    (megabytes << 20).to_string()
}

#[test]
fn pods_together_have_what_is_not_reserved() {
    with_agent("agtr1", |api, _| async move {
        let enforced = |event: &Value| event["reason"] == "NodeAllocatableEnforced";
        let mut written = api.subscribe();
        while !api.event_reasons().iter().any(|reason| reason == "NodeAllocatableEnforced") {
            let (resource, _, object) = written.recv().await.unwrap();
            if resource == "events" && enforced(&object) {
                break;
            }
        }
        let total = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total = total.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap().trim();
        let total: u64 = total.strip_suffix(" kB").unwrap().parse().unwrap();
        let read = |file: &str| std::fs::read_to_string(file).unwrap().trim().parse::<u64>().unwrap();
        let most = read("/proc/sys/kernel/pid_max").min(read("/proc/sys/kernel/threads-max"));
        let (memory, pids) = limits("coracle-test-agtr1/kubepods");
        // The kernel counts in pages.
        let reserved = total * 1024 - (64 << 20);
        assert_eq!(memory.parse::<u64>().unwrap() / 4096, reserved / 4096);
        assert_eq!(pids, (most - 100).to_string());
    });
}

#[test]
fn what_a_pod_has_as_a_whole_is_resized_while_it_runs() {
    with_agent("agtr2", |api, _| async move {
        let spec = |cpu: &str, memory: &str| {
            let resources =
                json!({"requests": {"cpu": cpu, "memory": "16Mi"}, "limits": {"cpu": "1", "memory": memory}});
            json!({"terminationGracePeriodSeconds": 0, "resources": resources, "containers": [
                {"name": "all", "image": "test/busybox:1", "command": ["sleep", "1000"]},
                {"name": "own", "image": "test/busybox:1", "command": ["sleep", "1000"],
                    "resources": {"requests": {"memory": "8Mi"}, "limits": {"memory": "24Mi"}}}]})
        };
        api.put("pods", pod("whole", spec("100m", "64Mi")));
        let runs = |p: &Value| {
            (0..2).all(|i| p.pointer(&format!("/status/containerStatuses/{i}/ready")) == Some(&json!(true)))
        };
        let before = api.until("pods", "whole", runs).await;
        let group = "coracle-test-agtr2/kubepods/burstable/poduid-whole";
        let of = |name: &str, status: &Value| {
            let all = status["status"]["containerStatuses"].as_array().unwrap();
            let id = all.iter().find(|c| c["name"] == name).unwrap()["containerID"].as_str().unwrap();
            limits(&format!("{group}/{}", id.strip_prefix("coracle://").unwrap())).0
        };
        assert_eq!((limits(group).0, of("all", &before), of("own", &before)), (bytes(64), bytes(64), bytes(24)));
        let told = |p: &Value| (p["status"]["allocatedResources"].clone(), p["status"]["resources"]["limits"].clone());
        let has =
            |cpu: &str, memory: &str| (json!({"cpu": cpu, "memory": "16Mi"}), json!({"cpu": "1", "memory": memory}));
        assert_eq!(told(&before), has("100m", "64Mi"));

        let resize = |generation: i64, cpu: &str, memory: &str| {
            let mut object = api.get("pods", "whole").unwrap();
            object["spec"] = pod("whole", spec(cpu, memory))["spec"].clone();
            object["metadata"]["generation"] = generation.into();
            api.put("pods", object);
        };
        resize(2, "200m", "96Mi");
        let after = api.until("pods", "whole", |p| told(p) == has("200m", "96Mi")).await;
        assert_eq!((limits(group).0, of("all", &after), of("own", &after)), (bytes(96), bytes(96), bytes(24)));
        let counts = |p: &Value| p["status"]["containerStatuses"][0]["restartCount"].clone();
        assert_eq!(
            (counts(&after), after["status"]["containerStatuses"][0]["resources"]["limits"]["memory"].clone()),
            (json!(0), json!("96Mi"))
        );

        // Less than it uses is refused, and it keeps what it has.
        resize(3, "200m", "4Ki");
        let why = |p: &Value| {
            let all = p["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let one = all.into_iter().find(|c| c["type"] == "PodResizeInProgress");
            one.and_then(|c| Some(c["message"].as_str()?.to_owned())).unwrap_or_default()
        };
        let refused =
            api.until("pods", "whole", |p| why(p).contains("attempting to set pod memory limit (4096)")).await;
        assert_eq!((limits(group).0, &told(&refused).1["memory"]), (bytes(96), &json!("96Mi")));
        // More than the node has waits, and an agent that comes back knows what was granted.
        resize(4, "200m", "96Mi");
        api.until("pods", "whole", |p| told(p) == has("200m", "96Mi") && why(p).is_empty()).await;
        resize(5, "100000", "128Mi");
        let pends = |p: &Value| p["status"]["conditions"].as_array().unwrap().iter().any(|c| c["reason"] == "Deferred");
        api.until("pods", "whole", pends).await;
        api.restart_agent().await;
        resize(6, "100000", "160Mi");
        let later = api.until("pods", "whole", |p| p["status"]["observedGeneration"] == 6 && pends(p)).await;
        assert_eq!((limits(group).0, told(&later)), (bytes(96), has("200m", "96Mi")));
        let reasons = api.event_reasons();
        for reason in ["ResizeStarted", "ResizeCompleted", "ResizeError", "ResizeDeferred"] {
            assert!(reasons.iter().any(|r| r == reason), "{reason} in {reasons:?}");
        }
        api.delete("pods", "whole");
        api.until_gone("pods", "whole").await;
    });
}
