//! Tokens in volumes: renewed before they end, in the files of containers that run.

use serde_json::json;

use crate::{pod, with_agent};

#[test]
fn a_token_is_another_one_before_its_life_is_over() {
    with_agent("agtt1", |api, _| async move {
        let reads = "cat /t/token; echo; until busybox grep -q token-3 /t/token; do sleep 0.1; done; cat /t/token";
        api.put(
            "pods",
            pod(
                "reads",
                json!({"restartPolicy": "Never", "terminationGracePeriodSeconds": 0,
                    "volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
                    "containers": [{"name": "app", "image": "test/busybox:1", "command": ["sh", "-c", reads],
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                        "volumeMounts": [{"name": "t", "mountPath": "/t"}]}]}),
            ),
        );
        // Four seconds of five each.
        let ended = api.until("pods", "reads", |pod| pod.pointer("/status/phase") == Some(&json!("Succeeded"))).await;
        assert_eq!(ended["status"]["containerStatuses"][0]["restartCount"], 0, "{ended}");
        assert_eq!(api.get("tokens", "given").unwrap()["count"], 3);
    });
}
