//! `coracle why`: one paragraph about what an object waits for.

use crate::{
    cluster::{Cluster, LONG},
    wait::wait_for,
};

fn why(cluster: &Cluster, arguments: &[&str]) -> Result<String, (Option<i32>, String)> {
    let mut command = cluster.host.command(env!("CARGO_BIN_EXE_coracle"));
    let output = command.arg("why").args(arguments).arg("--kubeconfig").arg(cluster.kubeconfig()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err((output.status.code(), text(&output.stderr))) }
}

#[test]
fn why_tells_what_is_waited_for_and_what_can_be_done() {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    let pod = |name: &str, rest: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  \
             terminationGracePeriodSeconds: 0\n  containers:\n  - name: c\n    image: busybox:1\n    {rest}\n"
        )
    };
    let sleep = "command: [sh, -c, exec sleep 1000000]";
    cluster.apply(&pod("well", sleep));
    cluster.apply(&pod("large", &format!("{sleep}\n    resources: {{requests: {{cpu: '1000'}}}}")));
    cluster.apply(&pod("broken", "command: [sh, -c, 'exit 3']"));
    cluster.apply(&pod("keyless", &format!("{sleep}\n    envFrom: [{{secretRef: {{name: absent}}}}]")));
    cluster.kubectl(&["expose", "pod", "keyless", "--port", "80"]);
    cluster.kubectl(&["create", "deployment", "web", "--image", "never.invalid/there:1"]);
    cluster.apply(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: disk}\nspec:\n  storageClassName: fast\n  \
         accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}\n",
    );
    for (arguments, parts) in [
        (&["pod", "well"][..], &["Pod default/well runs and is ready; it waits for nothing, for "][..]),
        (
            &["pod/large"],
            &["Pod default/large waits for a node that can take it, for ", "Insufficient cpu", "Request less of it"],
        ),
        (
            &["po", "broken"],
            &[
                "waits before container c is started again, which ended with exit code 3",
                "kubectl logs broken -c c --previous.",
            ],
        ),
        (&["pods", "keyless", "-n", "default"], &["secret \"absent\" not found", "Make the missing object"]),
        (
            &["svc", "keyless"],
            &[
                "has no endpoint that is ready, and 1 pods of the labels app=keyless; its pod keyless cannot make container c",
            ],
        ),
        (
            &["deploy", "web"],
            &[
                "Deployment default/web has 0 of 1 pods available",
                "; its pod web-",
                "cannot get the image never.invalid/there:1",
            ],
        ),
        (&["pvc", "disk"], &["waits for the storage class fast, which is not there"]),
        (&["node", "node-1"], &["Node node-1 is ready; it waits for nothing, for "]),
    ] {
        wait_for(&format!("why {arguments:?} to say {parts:?}"), LONG, || {
            let said = why(&cluster, arguments);
            let all = said.as_ref().is_ok_and(|said| parts.iter().all(|part| said.contains(part)));
            if all { Ok(()) } else { Err(said) }
        });
    }
    let (code, said) = why(&cluster, &["pod", "nobody"]).unwrap_err();
    assert_eq!((code, said.as_str()), (Some(1), "coracle: pods \"nobody\" not found\n"));
    assert_eq!(why(&cluster, &["lease", "x"]).unwrap_err().0, Some(2));
    assert_eq!(why(&cluster, &["pod"]).unwrap_err().0, Some(2));
}
