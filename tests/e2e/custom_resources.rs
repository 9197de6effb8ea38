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
    cluster.kubectl(&["wait", "--for=condition=Established", "crd/ships.harbour.example.com", "--timeout=30s"]);
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
