//! Kinds that a person adds to the API and uses with kubectl, as operators do.

use crate::cluster::Cluster;

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.harbour.example.com}
spec:
  group: harbour.example.com
  scope: Namespaced
  names: {plural: ships, kind: Ship, shortNames: [shp], categories: [fleet]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    additionalPrinterColumns:
    - {name: Sails, type: integer, jsonPath: .spec.sails}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        description: A ship in the harbour.
        type: object
        properties:
          spec:
            description: What the ship is like.
            type: object
            required: [sails]
            properties:
              sails: {description: How many sails it has., type: integer, minimum: 1}
              replicas: {type: integer, default: 1}
              crew: {type: string}
            x-kubernetes-validations:
            - {rule: "self.sails < 3 || has(self.crew)", message: a large ship needs a crew}
          status:
            type: object
            properties: {replicas: {type: integer}}
"#;

fn ship(name: &str, spec: &str) -> String {
    format!("apiVersion: harbour.example.com/v1\nkind: Ship\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n")
}

#[test]
fn a_kind_of_ones_own_is_used_like_any_other() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/ships.harbour.example.com", "--timeout=90s"]);
    assert!(cluster.kubectl(&["get", "crd"]).contains("ships.harbour.example.com"));
    let resources = cluster.kubectl(&["api-resources", "--api-group=harbour.example.com", "--no-headers"]);
    let words: Vec<&str> = resources.split_whitespace().collect();
    assert_eq!(words, ["ships", "shp", "harbour.example.com/v1", "true", "Ship"]);
    cluster.apply(&ship("kon-tiki", "sails: 1"));
    let table = cluster.kubectl(&["get", "shp"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAME", "SAILS", "AGE"], "{table}");
    assert_eq!(lines[1][..2], ["kon-tiki", "1"], "{table}");
    assert_eq!(cluster.kubectl(&["get", "fleet", "-o", "name"]), "ship.harbour.example.com/kon-tiki\n");
    let explained = cluster.kubectl(&["explain", "ship.spec"]);
    assert!(explained.contains("What the ship is like.") && explained.contains("How many sails"), "{explained}");
    let explained = cluster.kubectl(&["explain", "crd.spec.names"]);
    assert!(explained.contains("shortNames"), "{explained}");
    cluster.kubectl(&["scale", "ship/kon-tiki", "--replicas=3"]);
    assert_eq!(cluster.kubectl(&["get", "ship", "kon-tiki", "-o", "jsonpath={.spec.replicas}"]), "3");
    cluster.kubectl(&["patch", "ship", "kon-tiki", "--type=merge", "-p", "{\"spec\":{\"sails\":2}}"]);
    for (manifest, words) in [
        (ship("a", "sails: many"), "spec.sails in body must be of type integer"),
        (ship("b", "sails: 1, anchors: 2"), "unknown field \"spec.anchors\""),
        (ship("c", "crew: few"), "spec.sails: Required value"),
        (ship("d", "sails: 4"), "a large ship needs a crew"),
    ] {
        let file = cluster.scratch().join("ship.yaml");
        std::fs::write(&file, &manifest).unwrap();
        let refused = cluster.kubectl_refused(&["apply", "-f", file.to_str().unwrap()]);
        assert!(refused.contains(words), "{manifest}\n{refused}");
    }
    // A namespace takes its ships with it, and a definition all of them.
    cluster.kubectl(&["create", "namespace", "bay"]);
    let file = cluster.scratch().join("bay.yaml");
    std::fs::write(&file, ship("in-the-bay", "sails: 1")).unwrap();
    cluster.kubectl(&["apply", "-n", "bay", "-f", file.to_str().unwrap()]);
    cluster.kubectl(&["delete", "namespace", "bay", "--timeout=60s"]);
    assert_eq!(cluster.kubectl(&["get", "ships", "-A", "--no-headers"]).lines().count(), 1);
    cluster.kubectl(&["delete", "crd", "ships.harbour.example.com", "--timeout=60s"]);
    let refused = cluster.kubectl_refused(&["get", "ships"]);
    // kubectl may still remember what was there.
    assert!(refused.contains("NotFound") || refused.contains("doesn't have a resource type"), "{refused}");
}

/// The uid of an object.
fn uid(cluster: &Cluster, of: &[&str]) -> String {
    let mut words = vec!["get"];
    words.extend(of);
    words.extend(["-o", "jsonpath={.metadata.uid}"]);
    cluster.kubectl(&words)
}

/// A ship with a boat of its own kind and a ConfigMap that it owns.
fn fleet(cluster: &Cluster, name: &str) {
    cluster.apply(&ship(name, "sails: 1"));
    let owner = format!(
        "[{{apiVersion: harbour.example.com/v1, kind: Ship, name: {name}, uid: {}, blockOwnerDeletion: true}}]",
        uid(cluster, &["ship", name])
    );
    cluster.apply(&format!(
        "apiVersion: harbour.example.com/v1\nkind: Ship\nmetadata: {{name: {name}-boat, ownerReferences: {owner}}}\n\
         spec: {{sails: 1}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}-log, ownerReferences: {owner}}}\n"
    ));
}

#[test]
fn what_a_kind_of_ones_own_owns_goes_with_it_or_stays_as_one_wishes() {
    let cluster = Cluster::start();
    cluster.apply(DEFINITION);
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/ships.harbour.example.com", "--timeout=90s"]);
    for how in ["background", "foreground"] {
        fleet(&cluster, how);
        cluster.kubectl(&["delete", "ship", how, &format!("--cascade={how}"), "--timeout=60s"]);
        if how == "foreground" {
            // It went last.
            let left = cluster.kubectl(&["get", "ships,cm", "-o", "name"]);
            assert!(!left.contains(how), "{left}");
        }
        for left in [format!("ship/{how}-boat"), format!("cm/{how}-log")] {
            cluster.kubectl(&["wait", "--for=delete", &left, "--timeout=60s"]);
        }
    }
    fleet(&cluster, "orphan");
    cluster.kubectl(&["delete", "ship", "orphan", "--cascade=orphan", "--timeout=60s"]);
    for kept in ["ship/orphan-boat", "cm/orphan-log"] {
        assert_eq!(cluster.kubectl(&["get", kept, "-o", "jsonpath={.metadata.ownerReferences}"]), "");
    }

    // Three that own each other in a circle do not hold each other back.
    for name in ["a", "b", "c"] {
        cluster.apply(&ship(name, "sails: 1"));
    }
    for (name, owner) in [("a", "c"), ("b", "a"), ("c", "b")] {
        let uid = uid(&cluster, &["ship", owner]);
        let owner = format!(
            r#"{{"metadata":{{"ownerReferences":[{{"apiVersion":"harbour.example.com/v1","kind":"Ship","name":"{owner}","uid":"{uid}","blockOwnerDeletion":true}}]}}}}"#
        );
        cluster.kubectl(&["patch", "ship", name, "--type=merge", "-p", &owner]);
    }
    cluster.kubectl(&["delete", "ship", "a", "--cascade=foreground", "--timeout=60s"]);
    for name in ["b", "c"] {
        cluster.kubectl(&["wait", "--for=delete", &format!("ship/{name}"), "--timeout=60s"]);
    }

    // A definition waits for the last of its kind, which something else holds.
    cluster.apply(&ship("held", "sails: 1"));
    let hold = r#"{"metadata":{"finalizers":["example.com/anchor"]}}"#;
    cluster.kubectl(&["patch", "ship", "held", "--type=merge", "-p", hold]);
    cluster.kubectl(&["delete", "crd", "ships.harbour.example.com", "--wait=false"]);
    let terminating = "{.status.conditions[?(@.type==\"Terminating\")].reason}";
    cluster.wait_jsonpath(&["crd", "ships.harbour.example.com"], terminating, "InstanceDeletionInProgress");
    cluster.kubectl(&["patch", "ship", "held", "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]);
    cluster.kubectl(&["wait", "--for=delete", "crd/ships.harbour.example.com", "--timeout=60s"]);
}
