//! Server-side apply with the real kubectl: who owns which field, conflicts, and the way over from client-side apply.

use crate::cluster::Cluster;

fn deployment(replicas: u32) -> String {
    // No pod is started by these tests: what they look at is the object.
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\nspec:\n  replicas: {replicas}\n  paused: true\n  \
         selector:\n    matchLabels: {{app: web}}\n  template:\n    metadata:\n      labels: {{app: web}}\n    spec:\n      \
         containers:\n      - name: web\n        image: registry.invalid/web:1\n"
    )
}

fn apply(cluster: &Cluster, more: &[&str], manifest: &str) -> Result<String, String> {
    let file = cluster.scratch().join("manifest.yaml");
    std::fs::write(&file, manifest).unwrap();
    let mut arguments = vec!["apply", "-f", file.to_str().unwrap()];
    arguments.extend_from_slice(more);
    cluster.try_kubectl(&arguments)
}

/// `manager/operation/subresource` of every entry.
fn managers(cluster: &Cluster) -> Vec<String> {
    let path = "jsonpath={range .metadata.managedFields[*]}{.manager}/{.operation}/{.subresource}{\"\\n\"}{end}";
    let out = cluster.kubectl(&["get", "deployment", "web", "--show-managed-fields", "-o", path]);
    let mut managers: Vec<String> = out.lines().map(str::to_owned).collect();
    managers.sort();
    managers
}

#[test]
fn kubectl_applies_on_the_server_and_shows_whose_fields_are_whose() {
    let cluster = Cluster::start();
    let made = apply(&cluster, &["--server-side"], &deployment(0)).unwrap();
    assert_eq!(made, "deployment.apps/web serverside-applied\n");
    let plain = cluster.kubectl(&["get", "deployment", "web", "-o", "yaml"]);
    assert!(!plain.contains("managedFields"), "{plain}");
    let shown = cluster.kubectl(&["get", "deployment", "web", "-o", "yaml", "--show-managed-fields"]);
    assert!(shown.contains("managedFields:") && shown.contains("k:{\"name\":\"web\"}"), "{shown}");

    cluster.kubectl(&["scale", "deployment", "web", "--replicas=1"]);
    assert!(managers(&cluster).contains(&"kubectl/Update/scale".to_owned()), "{:?}", managers(&cluster));
    let refused = apply(&cluster, &["--server-side"], &deployment(0)).unwrap_err();
    let words = "Apply failed with 1 conflict: conflict with \"kubectl\" with subresource \"scale\" using apps/v1: \
                 .spec.replicas";
    assert!(refused.contains(words), "{refused}");
    apply(&cluster, &["--server-side", "--force-conflicts"], &deployment(0)).unwrap();
    assert!(!managers(&cluster).contains(&"kubectl/Update/scale".to_owned()), "{:?}", managers(&cluster));

    let other = apply(&cluster, &["--server-side", "--field-manager=you"], &deployment(2)).unwrap_err();
    assert!(other.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .spec.replicas"), "{other}");
    let unknown = apply(&cluster, &["--server-side"], &deployment(0).replace("paused", "pausd")).unwrap_err();
    assert!(unknown.contains(".spec.pausd: field not declared in schema"), "{unknown}");
}

#[test]
fn kubectl_goes_over_from_client_side_apply() {
    let cluster = Cluster::start();
    apply(&cluster, &[], &deployment(0)).unwrap();
    assert!(managers(&cluster).contains(&"kubectl-client-side-apply/Update/".to_owned()), "{:?}", managers(&cluster));
    apply(&cluster, &["--server-side"], &deployment(0)).unwrap();
    let after = managers(&cluster);
    assert!(after.contains(&"kubectl/Apply/".to_owned()), "{after:?}");
    assert!(!after.iter().any(|manager| manager.starts_with("kubectl-client-side-apply/")), "{after:?}");
    // What is left out goes, since nobody else has it.
    apply(&cluster, &["--server-side"], &deployment(0).replace("  paused: true\n", "")).unwrap();
    let paused = cluster.kubectl(&["get", "deployment", "web", "-o", "jsonpath={.spec.paused}"]);
    assert_eq!(paused, "");
}
