//! Who one is, what one may, whose turn it is and what is recorded of it, as a person with kubectl sees it.

use std::time::Duration;

use crate::{cluster::Cluster, host::Host, wait::wait_for};

const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  verbs: [list]
  resources: [{group: '', resources: [secrets]}]
";

const TOKEN_SECRET: &str = "apiVersion: v1
kind: Secret
metadata: {name: robot, annotations: {kubernetes.io/service-account.name: robot}}
type: kubernetes.io/service-account-token
";

#[test]
fn rights_are_shown_requests_recorded_and_tokens_found_in_their_secrets() {
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), POLICY).unwrap();
    let log = tempfile::tempdir().unwrap();
    let path = log.path().join("audit.log");
    let flags = ["--audit-policy-file", policy.path().to_str().unwrap(), "--audit-log-path", path.to_str().unwrap()];
    let cluster = Cluster::start_on(Host::new(), &flags);

    let me = cluster.kubectl(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"]);
    assert!(me.contains("system:masters"), "{me}");
    let rights = cluster.kubectl(&["auth", "can-i", "--list", "--as", "alice"]);
    assert!(rights.contains("selfsubjectreviews.authentication.k8s.io"), "{rights}");
    cluster.kubectl_refused(&["get", "secrets", "--as", "alice"]);
    let last = wait_for("the refusal in the audit log", Duration::from_secs(60), || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines().find(|line| line.contains("alice")).map(str::to_owned).ok_or(text)
    });
    for words in
        ["\"impersonatedUser\":{\"username\":\"alice\"", "\"authorization.k8s.io/decision\":\"forbid\"", "\"code\":403"]
    {
        assert!(last.contains(words), "{words}: {last}");
    }

    let schemas = cluster.kubectl(&["get", "flowschemas"]);
    let catch_all = schemas.lines().find(|line| line.starts_with("catch-all ")).unwrap();
    assert!(catch_all.ends_with("False"), "its level is there: {schemas}");

    cluster.kubectl(&["create", "serviceaccount", "robot"]);
    cluster.apply(TOKEN_SECRET);
    let token = wait_for("a token in the secret", Duration::from_secs(60), || {
        let token = cluster.kubectl(&["get", "secret", "robot", "-o", "go-template={{.data.token | base64decode}}"]);
        if token.starts_with("ey") { Ok(token) } else { Err(token) }
    });
    let shown = ["--server", "https://127.0.0.1:6443", "--insecure-skip-tls-verify", "--kubeconfig", "/dev/null"];
    let arguments = [&["auth", "whoami", "--token", &token, "-o", "jsonpath={.status.userInfo.username}"], &shown[..]];
    assert_eq!(cluster.kubectl(&arguments.concat()), "system:serviceaccount:default:robot");
}
