//! Endpoints: defaults, faults, rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::EndpointsLists;
use crate::kinds::testing::{created, faults, merged, refusals, row, shown};

fn base() -> Value {
    json!({"metadata": {"name": "web", "namespace": "d"}, "subsets": [
        {"addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2", "nodeName": "n"}], "ports": [{"port": 80}]}]})
}

#[test]
fn ports_are_of_tcp_unless_they_say() {
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Endpoints",
          "metadata": {
            "name": "web",
            "namespace": "d"
          },
          "subsets": [
            {
              "addresses": [
                {
                  "ip": "10.0.0.1"
                },
                {
                  "ip": "10.0.0.2",
                  "nodeName": "n"
                }
              ],
              "ports": [
                {
                  "port": 80,
                  "protocol": "TCP"
                }
              ]
            }
          ]
        }"#]]
    .assert_eq(&shown(&EndpointsLists, &created(&EndpointsLists, &base())));
}

#[test]
fn faults_are_named_but_not_those_that_were_taken_before() {
    let subset = |subset: Value| json!({"subsets": [subset]});
    let address = |ip: &str| subset(json!({"addresses": [{"ip": ip}]}));
    let patches = [
        subset(json!({})),
        address("here"),
        address("0.0.0.0"),
        address("127.0.0.1"),
        address("169.254.1.1"),
        address("224.0.0.5"),
        subset(json!({"addresses": [{"ip": "10.0.0.1", "hostname": "A", "nodeName": "N"}]})),
        subset(json!({"notReadyAddresses": [{"ip": "10.0.0.1"}],
            "ports": [{"port": 0, "protocol": "ICMP"}, {"port": 1, "name": "A", "appProtocol": "a b"}]})),
    ];
    expect![[r#"
        {"subsets":[{}]}
            subsets[0]: Required value: must specify `addresses` or `notReadyAddresses`
        {"subsets":[{"addresses":[{"ip":"here"}]}]}
            subsets[0].addresses[0].ip: Invalid value: "here": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)
            subsets[0].addresses[0].ip: Invalid value: "here": must be a valid IP address
        {"subsets":[{"addresses":[{"ip":"0.0.0.0"}]}]}
            subsets[0].addresses[0].ip: Invalid value: "0.0.0.0": may not be unspecified (0.0.0.0)
        {"subsets":[{"addresses":[{"ip":"127.0.0.1"}]}]}
            subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)
        {"subsets":[{"addresses":[{"ip":"169.254.1.1"}]}]}
            subsets[0].addresses[0].ip: Invalid value: "169.254.1.1": may not be in the link-local range (169.254.0.0/16, fe80::/10)
        {"subsets":[{"addresses":[{"ip":"224.0.0.5"}]}]}
            subsets[0].addresses[0].ip: Invalid value: "224.0.0.5": may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)
        {"subsets":[{"addresses":[{"hostname":"A","ip":"10.0.0.1","nodeName":"N"}]}]}
            subsets[0].addresses[0].hostname: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            subsets[0].addresses[0].nodeName: Invalid value: "N": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        {"subsets":[{"notReadyAddresses":[{"ip":"10.0.0.1"}],"ports":[{"port":0,"protocol":"ICMP"},{"appProtocol":"a b","name":"A","port":1}]}]}
            subsets[0].ports[0].name: Required value
            subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            subsets[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"
            subsets[0].ports[1].name: Invalid value: "A": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            subsets[0].ports[1].appProtocol: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
    "#]].assert_eq(&faults(&EndpointsLists, &base(), &patches));
    let odd = merged(&base(), &address("127.0.0.1"));
    assert_eq!(
        refusals(&EndpointsLists, &odd, &[json!({"metadata": {"labels": {"a": "b"}}})]),
        "{\"metadata\":{\"labels\":{\"a\":\"b\"}}}\n"
    );
}

#[test]
fn a_row_shows_the_first_three() {
    assert_eq!(row(&EndpointsLists, &base()), "web | 10.0.0.1:80,10.0.0.2:80 | <unknown>");
    assert_eq!(row(&EndpointsLists, &merged(&base(), &json!({"subsets": null}))), "web | <none> | <unknown>");
    let many = json!({"subsets": [{"addresses": [{"ip": "fd00::1"}, {"ip": "10.0.0.2"}], "ports": [{"port": 1}, {"port": 2}]},
        {"addresses": [{"ip": "10.0.0.3"}]}]});
    assert_eq!(
        row(&EndpointsLists, &merged(&base(), &many)),
        "web | [fd00::1]:1,10.0.0.2:1,[fd00::1]:2 + 2 more... | <unknown>"
    );
}
