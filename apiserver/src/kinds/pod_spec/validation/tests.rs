//! Mutations of a valid pod and what is said about them.

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use crate::kinds::{pod::Pods, testing::faults};

fn check(patches: &[Value], expected: &Expect) {
    let pod = json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "nginx:1"}]},
    });
    let patches: Vec<Value> = patches.iter().map(|spec| json!({"spec": spec})).collect();
    expected.assert_eq(&faults(&Pods, &pod, &patches));
}

/// Patches that each change the only container.
fn container(fields: &[Value]) -> Vec<Value> {
    fields
        .iter()
        .map(|fields| {
            let base = json!({"name": "c", "image": "nginx:1"});
            json!({"containers": [crate::kinds::testing::merged(&base, fields)]})
        })
        .collect()
}

#[test]
fn containers_need_names_and_images() {
    let patches = [
        json!({"containers": []}),
        json!({"containers": [{}]}),
        json!({"containers": [{"name": "A_b", "image": " x"}]}),
        json!({"containers": [{"name": "c", "image": "i"}, {"name": "c", "image": "i"}]}),
        json!({"initContainers": [{"name": "c", "image": "i"}]}),
        json!({"ephemeralContainers": [{"name": "e", "image": "i"}]}),
    ];
    check(
        &patches,
        &expect![[r#"
        {"spec":{"containers":[]}}
            spec.containers: Required value
        {"spec":{"containers":[{}]}}
            spec.containers[0].name: Required value
            spec.containers[0].image: Required value
        {"spec":{"containers":[{"image":" x","name":"A_b"}]}}
            spec.containers[0].name: Invalid value: "A_b": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace
        {"spec":{"containers":[{"image":"i","name":"c"},{"image":"i","name":"c"}]}}
            spec.containers[1].name: Duplicate value: "c"
        {"spec":{"initContainers":[{"image":"i","name":"c"}]}}
            spec.initContainers[0].name: Duplicate value: "c"
        {"spec":{"ephemeralContainers":[{"image":"i","name":"e"}]}}
            spec.ephemeralContainers: Forbidden: cannot be set on create
    "#]],
    );
}

#[test]
fn words_of_the_pod_are_known() {
    let patches = [
        json!({"restartPolicy": "Sometimes"}),
        json!({"dnsPolicy": "Mine"}),
        json!({"nodeSelector": {"a b": "c d"}}),
        json!({"serviceAccountName": "A"}),
        json!({"nodeName": "A", "schedulingGates": [{"name": "g"}]}),
        json!({"hostname": "a.b"}),
        json!({"activeDeadlineSeconds": 0}),
        json!({"preemptionPolicy": "No"}),
        json!({"priorityClassName": "A", "runtimeClassName": "B"}),
        json!({"schedulingGates": [{"name": "g"}, {"name": "g"}]}),
        json!({"readinessGates": [{"conditionType": "a b"}]}),
        json!({"os": {"name": "beos"}}),
    ];
    check(
        &patches,
        &expect![[r#"
            {"spec":{"restartPolicy":"Sometimes"}}
                spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
            {"spec":{"dnsPolicy":"Mine"}}
                spec.dnsPolicy: Unsupported value: "Mine": supported values: "ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"
            {"spec":{"nodeSelector":{"a b":"c d"}}}
                spec.nodeSelector: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
                spec.nodeSelector: Invalid value: "c d": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')
            {"spec":{"serviceAccountName":"A"}}
                spec.serviceAccountName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            {"spec":{"nodeName":"A","schedulingGates":[{"name":"g"}]}}
                spec.nodeName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared
            {"spec":{"hostname":"a.b"}}
                spec.hostname: Invalid value: "a.b": must not contain dots
            {"spec":{"activeDeadlineSeconds":0}}
                spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive
            {"spec":{"preemptionPolicy":"No"}}
                spec.preemptionPolicy: Unsupported value: "No": supported values: "PreemptLowerPriority", "Never"
            {"spec":{"priorityClassName":"A","runtimeClassName":"B"}}
                spec.priorityClassName: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.runtimeClassName: Invalid value: "B": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            {"spec":{"schedulingGates":[{"name":"g"},{"name":"g"}]}}
                spec.schedulingGates[1]: Duplicate value: "g"
            {"spec":{"readinessGates":[{"conditionType":"a b"}]}}
                spec.readinessGates[0].conditionType: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            {"spec":{"os":{"name":"beos"}}}
                spec.os.name: Unsupported value: "beos": supported values: "linux", "windows"
        "#]],
    );
}

#[test]
fn ports_are_in_range_and_unique() {
    let patches = container(&[
        json!({"ports": [{"containerPort": 0}]}),
        json!({"ports": [{"containerPort": 65536, "hostPort": -1, "protocol": "ICMP"}]}),
        json!({"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}),
        json!({"ports": [{"containerPort": 1, "name": "A_very_long_port_name"}]}),
        json!({"ports": [{"containerPort": 1, "hostPort": 8}, {"containerPort": 2, "hostPort": 8}]}),
    ]);
    check(
        &patches,
        &expect![[r#"
            {"spec":{"containers":[{"image":"nginx:1","name":"c","ports":[{"containerPort":0}]}]}}
                spec.containers[0].ports[0].containerPort: Required value
            {"spec":{"containers":[{"image":"nginx:1","name":"c","ports":[{"containerPort":65536,"hostPort":-1,"protocol":"ICMP"}]}]}}
                spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive
                spec.containers[0].ports[0].hostPort: Invalid value: -1: must be between 1 and 65535, inclusive
                spec.containers[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            {"spec":{"containers":[{"image":"nginx:1","name":"c","ports":[{"containerPort":1,"name":"a"},{"containerPort":2,"name":"a"}]}]}}
                spec.containers[0].ports[1].name: Duplicate value: "a"
            {"spec":{"containers":[{"image":"nginx:1","name":"c","ports":[{"containerPort":1,"name":"A_very_long_port_name"}]}]}}
                spec.containers[0].ports[0].name: Invalid value: "A_very_long_port_name": must be no more than 15 characters
                spec.containers[0].ports[0].name: Invalid value: "A_very_long_port_name": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            {"spec":{"containers":[{"image":"nginx:1","name":"c","ports":[{"containerPort":1,"hostPort":8},{"containerPort":2,"hostPort":8}]}]}}
                spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//8"
        "#]],
    );
    let mut patch = container(&[json!({"ports": [{"containerPort": 1, "hostPort": 8}]})]);
    patch[0]["hostNetwork"] = json!(true);
    check(
        &patch,
        &expect![[r#"
        {"spec":{"containers":[{"image":"nginx:1","name":"c","ports":[{"containerPort":1,"hostPort":8}]}],"hostNetwork":true}}
            spec.containers[0].ports[0].hostPort: Invalid value: 8: must match `containerPort` when `hostNetwork` is true
    "#]],
    );
}

#[test]
fn variables_come_from_one_place() {
    let patches = container(&[
        json!({"env": [{"name": ""}, {"name": "a=b"}]}),
        json!({"env": [{"name": "A", "valueFrom": {}}]}),
        json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {
            "fieldRef": {"fieldPath": "metadata.name"}, "secretKeyRef": {"name": "s", "key": "k"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nowhere"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a b']"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.disk"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}}}]}),
        json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "", "key": "a/b"}}}]}),
        json!({"envFrom": [{}]}),
        json!({"envFrom": [{"configMapRef": {"name": "a"}, "secretRef": {"name": ""}}]}),
    ]);
    check(
        &patches,
        &expect![[r#"
            {"spec":{"containers":[{"env":[{"name":""},{"name":"a=b"}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].name: Required value
                spec.containers[0].env[1].name: Invalid value: "a=b": a valid environment variable name must consist only of printable ASCII characters other than '='
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`
            {"spec":{"containers":[{"env":[{"name":"A","value":"x","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"},"secretKeyRef":{"key":"k","name":"s"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom: Invalid value: "": may not have more than one field specified at a time
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"status.phase"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"spec.nowhere"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nowhere": error converting fieldPath: field label not supported: spec.nowhere
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['a b']"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom.fieldRef: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"resourceFieldRef":{"resource":"limits.disk"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.disk": supported values: "limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"resourceFieldRef":{"divisor":"2","resource":"limits.cpu"}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor's values 1m and 1 are supported with the cpu resource
            {"spec":{"containers":[{"env":[{"name":"A","valueFrom":{"configMapKeyRef":{"key":"a/b","name":""}}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].env[0].valueFrom.configMapKeyRef.name: Invalid value: "": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
                spec.containers[0].env[0].valueFrom.configMapKeyRef.key: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            {"spec":{"containers":[{"envFrom":[{}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`
            {"spec":{"containers":[{"envFrom":[{"configMapRef":{"name":"a"},"secretRef":{"name":""}}],"image":"nginx:1","name":"c"}]}}
                spec.containers[0].envFrom[0].secretRef.name: Required value
                spec.containers[0].envFrom: Invalid value: "": may not have more than one field specified at a time
        "#]],
    );
}

#[test]
fn volumes_have_one_source_and_mounts_a_volume() {
    let patches = [
        json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}}]}),
        json!({"volumes": [{"name": "v"}, {"name": "v"}]}),
        json!({"volumes": [{"name": "V"}, {"name": ""}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": ""}}]}),
        json!({"volumes": [{"name": "v", "hostPath": {"path": "/a/../b", "type": "Pipe"}}]}),
        json!({"volumes": [{"name": "v", "secret": {"defaultMode": 512}}]}),
        json!({"volumes": [{"name": "v", "configMap": {"name": "c", "items": [{"key": "", "path": "../x"}]}}]}),
        json!({"volumes": [{"name": "v", "downwardAPI": {"items": [{"path": "p"}]}}]}),
        json!({"serviceAccountName": "a", "volumes": [{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "", "expirationSeconds": 5}}]}}]}),
        json!({"volumes": [{"name": "v", "projected": {"sources": [
            {"serviceAccountToken": {"path": "t"}}]}}]}),
        json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": ""}}]}),
    ];
    check(
        &patches,
        &expect![[r#"
        {"spec":{"volumes":[{"emptyDir":{},"hostPath":{"path":"/a"},"name":"v"}]}}
            spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
        {"spec":{"volumes":[{"name":"v"},{"name":"v"}]}}
            spec.volumes[1].name: Duplicate value: "v"
        {"spec":{"volumes":[{"name":"V"},{"name":""}]}}
            spec.volumes[0].name: Invalid value: "V": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.volumes[1].name: Required value
        {"spec":{"volumes":[{"hostPath":{"path":""},"name":"v"}]}}
            spec.volumes[0].hostPath.path: Required value
        {"spec":{"volumes":[{"hostPath":{"path":"/a/../b","type":"Pipe"},"name":"v"}]}}
            spec.volumes[0].hostPath.path: Invalid value: "/a/../b": must not contain '..'
            spec.volumes[0].hostPath.type: Unsupported value: "Pipe": supported values: "", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"
        {"spec":{"volumes":[{"name":"v","secret":{"defaultMode":512}}]}}
            spec.volumes[0].secret.secretName: Required value
            spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive
        {"spec":{"volumes":[{"configMap":{"items":[{"key":"","path":"../x"}],"name":"c"},"name":"v"}]}}
            spec.volumes[0].configMap.items[0].key: Required value
            spec.volumes[0].configMap.items[0].path: Invalid value: "../x": must not contain '..'
        {"spec":{"volumes":[{"downwardAPI":{"items":[{"path":"p"}]},"name":"v"}]}}
            spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required
        {"spec":{"serviceAccountName":"a","volumes":[{"name":"v","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":5,"path":""}}]}}]}}
            spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes
            spec.volumes[0].projected.path: Required value
        {"spec":{"volumes":[{"name":"v","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}
            spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set
        {"spec":{"volumes":[{"name":"v","persistentVolumeClaim":{"claimName":""}}]}}
            spec.volumes[0].persistentVolumeClaim.claimName: Required value
    "#]],
    );
    let patches = container(&[
        json!({"volumeMounts": [{"name": "nowhere", "mountPath": "/a"}]}),
        json!({"volumeMounts": [{"name": "", "mountPath": ""}]}),
        json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "/x"}, {"name": "v", "mountPath": "/a"}]}),
        json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}),
        json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "recursiveReadOnly": "Enabled"}]}),
    ]);
    let patches: Vec<Value> = patches
        .into_iter()
        .map(|mut patch| {
            patch["volumes"] = json!([{"name": "v"}]);
            patch
        })
        .collect();
    check(
        &patches,
        &expect![[r#"
        {"spec":{"containers":[{"image":"nginx:1","name":"c","volumeMounts":[{"mountPath":"/a","name":"nowhere"}]}],"volumes":[{"name":"v"}]}}
            spec.containers[0].volumeMounts[0].name: Not found: "nowhere"
        {"spec":{"containers":[{"image":"nginx:1","name":"c","volumeMounts":[{"mountPath":"","name":""}]}],"volumes":[{"name":"v"}]}}
            spec.containers[0].volumeMounts[0].name: Required value
            spec.containers[0].volumeMounts[0].name: Not found: ""
            spec.containers[0].volumeMounts[0].mountPath: Required value
        {"spec":{"containers":[{"image":"nginx:1","name":"c","volumeMounts":[{"mountPath":"/a","name":"v","subPath":"/x"},{"mountPath":"/a","name":"v"}]}],"volumes":[{"name":"v"}]}}
            spec.containers[0].volumeMounts.subPath: Invalid value: "/x": must be a relative path
            spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique
        {"spec":{"containers":[{"image":"nginx:1","name":"c","volumeMounts":[{"mountPath":"/a","mountPropagation":"Bidirectional","name":"v"}]}],"volumes":[{"name":"v"}]}}
            spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers
        {"spec":{"containers":[{"image":"nginx:1","name":"c","volumeMounts":[{"mountPath":"/a","name":"v","recursiveReadOnly":"Enabled"}]}],"volumes":[{"name":"v"}]}}
            spec.containers[0].volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true
    "#]],
    );
}

#[test]
fn probes_and_hooks_have_one_handler() {
    let patches = container(&[
        json!({"livenessProbe": {}}),
        json!({"livenessProbe": {"exec": {"command": []}, "tcpSocket": {"port": 1}}}),
        json!({"livenessProbe": {"tcpSocket": {"port": 0}, "successThreshold": 2, "periodSeconds": -1}}),
        json!({"readinessProbe": {"httpGet": {"port": "No Name", "scheme": "FTP"}, "terminationGracePeriodSeconds": 1}}),
        json!({"startupProbe": {"grpc": {"port": 70000}, "terminationGracePeriodSeconds": 0}}),
        json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}),
    ]);
    check(
        &patches,
        &expect![[r#"
        {"spec":{"containers":[{"image":"nginx:1","livenessProbe":{},"name":"c"}]}}
            spec.containers[0].livenessProbe: Required value: must specify a handler type
        {"spec":{"containers":[{"image":"nginx:1","livenessProbe":{"exec":{"command":[]},"tcpSocket":{"port":1}},"name":"c"}]}}
            spec.containers[0].livenessProbe.exec.command: Required value
            spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type
        {"spec":{"containers":[{"image":"nginx:1","livenessProbe":{"periodSeconds":-1,"successThreshold":2,"tcpSocket":{"port":0}},"name":"c"}]}}
            spec.containers[0].livenessProbe.tcpSocket.port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
        {"spec":{"containers":[{"image":"nginx:1","name":"c","readinessProbe":{"httpGet":{"port":"No Name","scheme":"FTP"},"terminationGracePeriodSeconds":1}}]}}
            spec.containers[0].readinessProbe.httpGet.port: Invalid value: "No Name": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)
            spec.containers[0].readinessProbe.httpGet.scheme: Unsupported value: "FTP": supported values: "HTTP", "HTTPS"
            spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes
        {"spec":{"containers":[{"image":"nginx:1","name":"c","startupProbe":{"grpc":{"port":70000},"terminationGracePeriodSeconds":0}}]}}
            spec.containers[0].startupProbe.grpc.port: Invalid value: 70000: must be between 1 and 65535, inclusive
            spec.containers[0].startupProbe.terminationGracePeriodSeconds: Invalid value: 0: must be greater than 0
        {"spec":{"containers":[{"image":"nginx:1","lifecycle":{"preStop":{"sleep":{"seconds":31}}},"name":"c"}]}}
            spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)
    "#]],
    );
    let init = json!({"initContainers": [{"name": "i", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}},
        "restartPolicy": "Now", "lifecycle": {}}]});
    check(
        &[init],
        &expect![[r#"
        {"spec":{"initContainers":[{"image":"i","lifecycle":{},"livenessProbe":{"tcpSocket":{"port":1}},"name":"i","restartPolicy":"Now"}]}}
            spec.initContainers[0].restartPolicy: Unsupported value: "Now": supported values: "Always", "Never", "OnFailure"
            spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy=Always
            spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always
    "#]],
    );
}

#[test]
fn resources_are_known_amounts_within_limits() {
    let patches = container(&[
        json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1100m", "memory": "1Gi"}}}),
        json!({"resources": {"limits": {"disk": "1"}}}),
        json!({"resources": {"limits": {"cpu": "-1"}}}),
        json!({"resources": {"limits": {"cpu": "lots"}}}),
        json!({"resources": {"limits": {"example.com/gpu": "500m"}}}),
        json!({"resources": {"requests": {"example.com/gpu": "1"}}}),
        json!({"resources": {"limits": {"hugepages-2Mi": "3Mi"}}}),
        json!({"resources": {"claims": [{"name": "x"}]}}),
    ]);
    check(
        &patches,
        &expect![[r#"
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1100m","memory":"1Gi"}}}]}}
            spec.containers[0].resources.requests: Invalid value: "1100m": must be less than or equal to cpu limit of 1
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"limits":{"disk":"1"}}}]}}
            spec.containers[0].resources.limits[disk]: Invalid value: "disk": must be a standard resource type or fully qualified
            spec.containers[0].resources.limits[disk]: Invalid value: "disk": must be a standard resource for containers
            spec.containers[0].resources.requests[disk]: Invalid value: "disk": must be a standard resource type or fully qualified
            spec.containers[0].resources.requests[disk]: Invalid value: "disk": must be a standard resource for containers
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"limits":{"cpu":"-1"}}}]}}
            spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0
            spec.containers[0].resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"limits":{"cpu":"lots"}}}]}}
            spec.containers[0].resources.limits[cpu]: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            spec.containers[0].resources.requests[cpu]: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"limits":{"example.com/gpu":"500m"}}}]}}
            spec.containers[0].resources.limits[example.com/gpu]: Invalid value: "500m": must be an integer
            spec.containers[0].resources.requests[example.com/gpu]: Invalid value: "500m": must be an integer
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"requests":{"example.com/gpu":"1"}}}]}}
            spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"limits":{"hugepages-2Mi":"3Mi"}}}]}}
            spec.containers[0].resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
            spec.containers[0].resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of hugepages-2Mi
            spec.containers[0].resources: Forbidden: HugePages require cpu or memory
        {"spec":{"containers":[{"image":"nginx:1","name":"c","resources":{"claims":[{"name":"x"}]}}]}}
            spec.containers[0].resources.claims[0]: Not found: "x": must be one of the names in pod.spec.resourceClaims which is empty
    "#]],
    );
    let pod = json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}},
        "containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "600m"}}}]});
    check(
        &[pod],
        &expect![[r#"
        {"spec":{"containers":[{"image":"i","name":"c","resources":{"limits":{"cpu":"2"},"requests":{"cpu":"600m"}}}],"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"500m"}}}}
            spec.resources.requests[cpu]: Invalid value: "500m": must be greater than or equal to aggregate container requests of 600m
            spec.resources.containers[0][cpu].limits: Invalid value: "2": must be less than or equal to pod limits of 1
    "#]],
    );
}

#[test]
fn security_contexts_do_not_contradict_themselves() {
    let mut patches = container(&[
        json!({"securityContext": {"runAsUser": -1, "procMount": "Unmasked"}}),
        json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
        json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}),
        json!({"securityContext": {"appArmorProfile": {"type": "Mine"}}}),
    ]);
    patches.extend([
        json!({"securityContext": {"fsGroup": -1, "supplementalGroups": [-2], "fsGroupChangePolicy": "Never"}}),
        json!({"securityContext": {"sysctls": [{"name": "a..b", "value": "1"}, {"name": "net.x", "value": ""}]},
            "hostNetwork": true}),
        json!({"hostUsers": false, "hostPID": true}),
        json!({"shareProcessNamespace": true, "hostPID": true}),
    ]);
    check(
        &patches,
        &expect![[r#"
        {"spec":{"containers":[{"image":"nginx:1","name":"c","securityContext":{"procMount":"Unmasked","runAsUser":-1}}]}}
            spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive
            spec.containers[0].securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`
        {"spec":{"containers":[{"image":"nginx:1","name":"c","securityContext":{"allowPrivilegeEscalation":false,"privileged":true}}]}}
            spec.containers[0].securityContext: Invalid value: {"allowPrivilegeEscalation":false,"privileged":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true
        {"spec":{"containers":[{"image":"nginx:1","name":"c","securityContext":{"seccompProfile":{"type":"Localhost"}}}]}}
            spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost
        {"spec":{"containers":[{"image":"nginx:1","name":"c","securityContext":{"appArmorProfile":{"type":"Mine"}}}]}}
            spec.containers[0].securityContext.appArmorProfile.type: Unsupported value: "Mine": supported values: "Localhost", "RuntimeDefault", "Unconfined"
        {"spec":{"securityContext":{"fsGroup":-1,"fsGroupChangePolicy":"Never","supplementalGroups":[-2]}}}
            spec.securityContext.fsGroup: Invalid value: -1: must be between 0 and 2147483647, inclusive
            spec.securityContext.supplementalGroups[0]: Invalid value: -2: must be between 0 and 2147483647, inclusive
            spec.securityContext.fsGroupChangePolicy: Unsupported value: "Never": supported values: "Always", "OnRootMismatch"
        {"spec":{"hostNetwork":true,"securityContext":{"sysctls":[{"name":"a..b","value":"1"},{"name":"net.x","value":""}]}}}
            spec.securityContext.sysctls[0].name: Invalid value: "a..b": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$
            spec.securityContext.sysctls[1].name: Invalid value: "net.x": may not be specified when 'hostNetwork' is true
        {"spec":{"hostPID":true,"hostUsers":false}}
            spec.HostPID: Forbidden: when `hostUsers` is false
        {"spec":{"hostPID":true,"shareProcessNamespace":true}}
            spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled
    "#]],
    );
}

#[test]
fn scheduling_rules_are_well_formed() {
    let affinity =
        |kind: &str, term: Value| json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": term}}});
    let requirement = |requirement: Value| {
        affinity("nodeAffinity", json!({"nodeSelectorTerms": [{"matchExpressions": [requirement]}]}))
    };
    let patches = [
        affinity("nodeAffinity", json!({"nodeSelectorTerms": []})),
        requirement(json!({"key": "k", "operator": "In"})),
        requirement(json!({"key": "a b", "operator": "Exists", "values": ["x"]})),
        requirement(json!({"key": "k", "operator": "Gt", "values": ["1", "2"]})),
        requirement(json!({"key": "k", "operator": "Near"})),
        affinity("podAffinity", json!([{"topologyKey": ""}])),
        affinity(
            "podAntiAffinity",
            json!([{"topologyKey": "k", "namespaces": ["A"],
            "labelSelector": {"matchExpressions": [{"key": "k", "operator": "In"}]}}]),
        ),
        json!({"tolerations": [{"operator": "Equal"}, {"key": "k", "operator": "Exists", "value": "v"}]}),
        json!({"tolerations": [{"key": "k", "operator": "Lt", "value": "1"}, {"key": "k", "effect": "Never"}]}),
        json!({"tolerations": [{"key": "k", "effect": "NoSchedule", "tolerationSeconds": 3}]}),
        json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Cry"}]}),
        json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 2},
            {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "matchLabelKeys": ["a"]}]}),
    ];
    check(
        &patches,
        &expect![[r#"
            {"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[]}}}}}
                spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term
            {"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"In"}]}]}}}}}
                spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
            {"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"a b","operator":"Exists","values":["x"]}]}]}}}}}
                spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'
                spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].key: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            {"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"Gt","values":["1","2"]}]}]}}}}}
                spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'
            {"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"k","operator":"Near"}]}]}}}}}
                spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator
            {"spec":{"affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":""}]}}}}
                spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: can not be empty
                spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must be non-empty
                spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Invalid value: "": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
            {"spec":{"affinity":{"podAntiAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"labelSelector":{"matchExpressions":[{"key":"k","operator":"In"}]},"namespaces":["A"],"topologyKey":"k"}]}}}}
                spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'
                spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespace: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            {"spec":{"tolerations":[{"operator":"Equal"},{"key":"k","operator":"Exists","value":"v"}]}}
                spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty, which means "match all values and all keys"
                spec.tolerations[1].operator: Invalid value: "v": value must be empty when `operator` is 'Exists'
            {"spec":{"tolerations":[{"key":"k","operator":"Lt","value":"1"},{"effect":"Never","key":"k"}]}}
                spec.tolerations[0].operator: Unsupported value: "Lt": supported values: "Equal", "Exists", "Lt", "Gt"
                spec.tolerations[1].effect: Unsupported value: "Never": supported values: "NoSchedule", "PreferNoSchedule", "NoExecute"
            {"spec":{"tolerations":[{"effect":"NoSchedule","key":"k","tolerationSeconds":3}]}}
                spec.tolerations[0].effect: Invalid value: "NoSchedule": effect must be 'NoExecute' when `tolerationSeconds` is set
            {"spec":{"topologySpreadConstraints":[{"maxSkew":0,"topologyKey":"","whenUnsatisfiable":"Cry"}]}}
                spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0
                spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty
                spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: "Cry": supported values: "DoNotSchedule", "ScheduleAnyway"
            {"spec":{"topologySpreadConstraints":[{"maxSkew":1,"minDomains":2,"topologyKey":"z","whenUnsatisfiable":"ScheduleAnyway"},{"matchLabelKeys":["a"],"maxSkew":1,"topologyKey":"z","whenUnsatisfiable":"ScheduleAnyway"}]}}
                spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: "{z, ScheduleAnyway}"
                spec.topologySpreadConstraints[0].minDomains: Invalid value: 2: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway
                spec.topologySpreadConstraints[1].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set
        "#]],
    );
}

#[test]
fn names_and_addresses_for_the_resolver_are_checked() {
    let patches = [
        json!({"hostAliases": [{"ip": "localhost", "hostnames": ["A"]}]}),
        json!({"dnsPolicy": "None"}),
        json!({"dnsPolicy": "None", "dnsConfig": {}}),
        json!({"dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "x"]}}),
        json!({"dnsConfig": {"searches": ["_tcp.a.b.", ".", "A"], "options": [{}]}}),
    ];
    check(
        &patches,
        &expect![[r#"
        {"spec":{"hostAliases":[{"hostnames":["A"],"ip":"localhost"}]}}
            spec.hostAliases[0].ip: Invalid value: "localhost": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            spec.hostAliases[0].hostnames[0]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"spec":{"dnsPolicy":"None"}}
            spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None
        {"spec":{"dnsConfig":{},"dnsPolicy":"None"}}
            spec.dnsConfig.nameservers: Required value: must provide at least one DNS nameserver when `dnsPolicy` is None
        {"spec":{"dnsConfig":{"nameservers":["1.1.1.1","1.1.1.2","1.1.1.3","x"]}}}
            spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","1.1.1.2","1.1.1.3","x"]: must not have more than 3 nameservers
            spec.dnsConfig.nameservers[3]: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
        {"spec":{"dnsConfig":{"options":[{}],"searches":["_tcp.a.b.",".","A"]}}}
            spec.dnsConfig.searches[2]: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.dnsConfig.options[0]: Required value: must not be empty
    "#]],
    );
}

#[test]
fn a_pod_for_windows_asks_for_nothing_of_linux() {
    let patches = [
        json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"fsGroup": 1, "runAsUser": 2}}),
        json!({"os": {"name": "windows"}, "containers": [
            {"name": "c", "image": "i", "securityContext": {"privileged": true, "runAsNonRoot": true}}]}),
    ];
    check(
        &patches,
        &expect![[r#"
        {"spec":{"hostPID":true,"os":{"name":"windows"},"securityContext":{"fsGroup":1,"runAsUser":2}}}
            spec.hostPID: Forbidden: cannot be set for a windows pod
            spec.securityContext.fsGroup: Forbidden: cannot be set for a windows pod
            spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod
        {"spec":{"containers":[{"image":"i","name":"c","securityContext":{"privileged":true,"runAsNonRoot":true}}],"os":{"name":"windows"}}}
            spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod
    "#]],
    );
}

#[test]
fn what_volumes_are_made_of_is_whole() {
    let volume = |source: Value| {
        let mut volume = source;
        volume["name"] = "v".into();
        json!({"volumes": [volume]})
    };
    let projected = |source: Value| volume(json!({"projected": {"sources": [source]}}));
    let patches = [
        volume(json!({"csi": {"driver": "", "nodePublishSecretRef": {"name": ""}}})),
        volume(json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {}}}})),
        volume(json!({"rbd": {"monitors": [], "image": "i"}})),
        projected(json!({"clusterTrustBundle": {"path": "ca.crt"}})),
        projected(json!({"clusterTrustBundle": {"name": "a", "signerName": "b.example/c", "path": "../x"}})),
        projected(json!({"podCertificate": {"signerName": "x", "keyType": "RSA1", "maxExpirationSeconds": 5}})),
    ];
    check(
        &patches,
        &expect![[r#"
        {"spec":{"volumes":[{"csi":{"driver":"","nodePublishSecretRef":{"name":""}},"name":"v"}]}}
            spec.volumes[0].csi.driver: Required value
            spec.volumes[0].csi.nodePublishSecretRef.name: Required value
        {"spec":{"volumes":[{"ephemeral":{"volumeClaimTemplate":{"metadata":{"name":"x"},"spec":{}}},"name":"v"}]}}
            spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set
            spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required
            spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value
        {"spec":{"volumes":[{"name":"v","rbd":{"image":"i","monitors":[]}}]}}
            spec.volumes[0].rbd.monitors: Required value
        {"spec":{"volumes":[{"name":"v","projected":{"sources":[{"clusterTrustBundle":{"path":"ca.crt"}}]}}]}}
            spec.volumes[0].projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified
        {"spec":{"volumes":[{"name":"v","projected":{"sources":[{"clusterTrustBundle":{"name":"a","path":"../x","signerName":"b.example/c"}}]}}]}}
            spec.volumes[0].projected.sources[0].clusterTrustBundle: Invalid value: {"name":"a","path":"../x","signerName":"b.example/c"}: only one of name and signerName may be used
            spec.volumes[0].projected.sources[0].clusterTrustBundle.path: Invalid value: "../x": must not contain '..'
        {"spec":{"volumes":[{"name":"v","projected":{"sources":[{"podCertificate":{"keyType":"RSA1","maxExpirationSeconds":5,"signerName":"x"}}]}}]}}
            spec.volumes[0].projected.sources[0].podCertificate.signerName: Invalid value: "x": must be a fully qualified domain and path of the form 'example.com/signer-name'
            spec.volumes[0].projected.sources[0].podCertificate.keyType: Unsupported value: "RSA1": supported values: "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"
            spec.volumes[0].projected.sources[0].podCertificate.maxExpirationSeconds: Invalid value: 5: if provided, maxExpirationSeconds must be >= 3600
            spec.volumes[0].projected.sources[0].podCertificate: Required value: specify at least one of credentialBundlePath, keyPath, and certificateChainPath
    "#]],
    );
}
