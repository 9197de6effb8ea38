//! Host ports: two pods cannot take the same port of the same address of one node.

use super::{Reasons, refuse};
use crate::cluster::{HostPort, Node, Pod};

const ANY: &str = "0.0.0.0";

fn clash(a: &HostPort, b: &HostPort) -> bool {
    a.0 == b.0 && a.2 == b.2 && (a.1 == b.1 || a.1 == ANY || b.1 == ANY)
}

pub(super) fn check(pod: &Pod, node: &Node) -> Result<(), Reasons> {
    let taken = pod.host_ports.iter().any(|wanted| node.host_ports.keys().any(|used| clash(wanted, used)));
    if taken { refuse("node(s) didn't have free ports for the requested pod ports") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_clash_by_protocol_number_and_address() {
        let port = |protocol: &str, ip: &str, number| (protocol.to_owned(), ip.to_owned(), number);
        for (a, b, clashes) in [
            (port("TCP", ANY, 80), port("TCP", "127.0.0.1", 80), true),
            (port("TCP", "127.0.0.2", 80), port("TCP", "127.0.0.1", 80), false),
            (port("UDP", ANY, 80), port("TCP", ANY, 80), false),
            (port("TCP", ANY, 80), port("TCP", ANY, 81), false),
        ] {
            assert_eq!(clash(&a, &b), clashes, "{a:?} {b:?}");
        }
    }
}
