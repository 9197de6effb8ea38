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
    expect![[""]].assert_eq(&shown(&EndpointsLists, &created(&EndpointsLists, &base())));
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
    expect![[""]].assert_eq(&faults(&EndpointsLists, &base(), &patches));
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
