//! The pod network on the real kernel. Every test makes a network namespace of its own to play the host in, so that this
//! machine is not touched; what a test made ends with its namespaces.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::print_stdout)]

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use coracle_network::{Attachment, Config, Error, HostPort, Network, Protocol};
use nix::sched::{CloneFlags, setns, unshare};

/// Long enough for any machine; only a failing test waits it out.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the test as a host: in a network namespace with nothing but a loopback that is up.
fn on_a_host(test: impl AsyncFnOnce(&Path) + Send) {
    if !nix::unistd::geteuid().is_root() {
        println!("Skipped: network namespaces need root");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    thread::scope(|scope| {
        let host = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test(state.path()));
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn config(state: &Path) -> Config {
    Config {
        mark: "t1".into(),
        pod_cidr: "10.42.0.0/24".parse().unwrap(),
        cluster_cidr: "10.42.0.0/16".parse().unwrap(),
        mtu: None,
        state_dir: state.join("network"),
        masquerade: true,
    }
}

/// A network namespace that lives as long as the descriptor, or what is in it.
fn namespace() -> OwnedFd {
    let made = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    made.join().unwrap().into()
}

fn inside<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

async fn pod(network: &Network, uid: &str) -> (OwnedFd, Attachment) {
    let netns = namespace();
    let attachment = network.attach(uid, netns.try_clone().unwrap()).await.unwrap();
    (netns, attachment)
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Connects, and answers whom the server saw.
fn tcp(listener: TcpListener, to: IpAddr, connect: impl FnOnce(SocketAddr) -> TcpStream) -> IpAddr {
    let address = SocketAddr::new(to, listener.local_addr().unwrap().port());
    let mut client = connect(address);
    let (mut server, peer) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");
    peer.ip()
}

fn listen() -> TcpListener {
    TcpListener::bind("0.0.0.0:0").unwrap()
}

fn dial(address: SocketAddr) -> TcpStream {
    TcpStream::connect_timeout(&address, PATIENCE).unwrap()
}

/// Everything of the network that a person would find on the host.
fn traces() -> String {
    let links = run("ip", &["-o", "link"]);
    let addresses = run("ip", &["-o", "-4", "address"]);
    let routes = run("ip", &["route", "show", "table", "all"]);
    let rules = run("nft", &["list", "ruleset"]);
    let forward = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    [links, addresses, routes, rules, forward].join("\n--\n")
}

#[test]
fn pods_and_host_reach_each_other_by_their_own_addresses() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, a) = pod(&network, "a").await;
        let (b_ns, b) = pod(&network, "b").await;
        assert_eq!(a.ip, Ipv4Addr::new(10, 42, 0, 2));
        assert_eq!(a.gateway, Ipv4Addr::new(10, 42, 0, 1));
        assert_ne!(a.ip, b.ip);

        let listener = inside(&b_ns, listen);
        assert_eq!(tcp(listener, b.ip.into(), |to| inside(&a_ns, || dial(to))), IpAddr::from(a.ip));
        let listener = inside(&b_ns, listen);
        assert_eq!(tcp(listener, b.ip.into(), dial), IpAddr::from(b.gateway));
        assert_eq!(tcp(listen(), b.gateway.into(), |to| inside(&b_ns, || dial(to))), IpAddr::from(b.ip));
        let listener = inside(&a_ns, listen);
        assert_eq!(tcp(listener, a.ip.into(), |to| inside(&a_ns, || dial(to))), IpAddr::from(a.ip));
        let listener = inside(&a_ns, || TcpListener::bind("127.0.0.1:0").unwrap());
        tcp(listener, Ipv4Addr::LOCALHOST.into(), |to| inside(&a_ns, || dial(to)));

        let server = inside(&a_ns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = inside(&b_ns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        client.send_to(b"x", (a.ip, server.local_addr().unwrap().port())).unwrap();
        let (_, from) = server.recv_from(&mut [0; 1]).unwrap();
        assert_eq!(from.ip(), IpAddr::from(b.ip));
    });
}

#[test]
fn an_address_that_no_pod_has_is_unreachable_at_once() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, _) = pod(&network, "a").await;
        let nobody = SocketAddr::from(([10, 42, 0, 99], 1));
        let error = inside(&a_ns, || TcpStream::connect_timeout(&nobody, PATIENCE)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::HostUnreachable);
    });
}

#[test]
fn traffic_that_leaves_the_cluster_takes_the_nodes_address_and_other_traffic_keeps_its_own() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, a) = pod(&network, "a").await;
        let outside = namespace();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&outside));
        // iproute2 knows namespaces by pid or by a name below /run/netns; a process inside serves as the pid.
        let mut holder = inside(&outside, || Command::new("sleep").arg("1000").spawn().unwrap());
        let pid = holder.id().to_string();
        run("ip", &["link", "add", "wan0", "type", "veth", "peer", "name", "wan1", "netns", &pid]);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(Path::new(&path).exists());
        run("ip", &["address", "add", "192.0.2.1/24", "dev", "wan0"]);
        run("ip", &["link", "set", "wan0", "up"]);
        run("ip", &["route", "add", "10.42.7.0/24", "via", "192.0.2.2"]);
        inside(&outside, || {
            for address in ["192.0.2.2/24", "10.42.7.7/32"] {
                run("ip", &["address", "add", address, "dev", "wan1"]);
            }
            run("ip", &["link", "set", "wan1", "up"]);
            run("ip", &["route", "add", "10.42.0.0/24", "via", "192.0.2.1"]);
        });
        let foreign = IpAddr::from([192, 0, 2, 2]);
        let listener = inside(&outside, listen);
        assert_eq!(tcp(listener, foreign, |to| inside(&a_ns, || dial(to))), IpAddr::from([192, 0, 2, 1]));
        let other_node = IpAddr::from([10, 42, 7, 7]);
        let listener = inside(&outside, listen);
        assert_eq!(tcp(listener, other_node, |to| inside(&a_ns, || dial(to))), IpAddr::from(a.ip));
    });
}

#[test]
fn a_pod_cannot_speak_with_another_address() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, _) = pod(&network, "a").await;
        let (b_ns, b) = pod(&network, "b").await;
        let server = inside(&b_ns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        let to = (b.ip, server.local_addr().unwrap().port());
        inside(&a_ns, || {
            run("ip", &["address", "add", "10.42.0.77/32", "dev", "eth0"]);
            UdpSocket::bind("10.42.0.77:0").unwrap().send_to(b"forged", to).unwrap();
            UdpSocket::bind("0.0.0.0:0").unwrap().send_to(b"honest", to).unwrap();
        });
        let mut heard = [0; 6];
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.recv_from(&mut heard).unwrap();
        assert_eq!(&heard, b"honest");
    });
}

#[test]
fn attaching_again_changes_nothing_and_survives_a_restart_and_a_new_namespace() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, a) = pod(&network, "a").await;
        let listener = inside(&a_ns, listen);
        let held = dial(SocketAddr::new(a.ip.into(), listener.local_addr().unwrap().port()));
        let again = network.attach("a", a_ns.try_clone().unwrap()).await.unwrap();
        assert_eq!(again, a);
        drop(network);

        let network = Network::open(config(state)).await.unwrap();
        assert_eq!(network.attachment("a").await.unwrap().as_ref(), Some(&a));
        assert_eq!(network.attach("a", a_ns.try_clone().unwrap()).await.unwrap(), a);
        let (mut server, _) = listener.accept().unwrap();
        drop(held);
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);

        let (a_ns, moved) = pod(&network, "a").await;
        assert_eq!(moved, a);
        assert_eq!(tcp(inside(&a_ns, listen), a.ip.into(), dial), IpAddr::from(a.gateway));
    });
}

#[test]
fn addresses_run_out_with_a_clear_error_and_rest_before_they_are_used_again() {
    on_a_host(async |state| {
        let small = Config { pod_cidr: "10.42.0.0/29".parse().unwrap(), ..config(state) };
        let network = Network::open(small.clone()).await.unwrap();
        let mut namespaces = Vec::new();
        for uid in ["a", "b", "c", "d", "e"] {
            namespaces.push(pod(&network, uid).await);
        }
        let error = network.attach("f", namespace()).await.unwrap_err();
        assert_eq!(error.to_string(), "no free address in pod CIDR 10.42.0.0/29: all 5 are in use");
        network.detach("b").await.unwrap();
        network.detach("b").await.unwrap();
        network.detach("d").await.unwrap();
        drop(network);
        let network = Network::open(small).await.unwrap();
        let (_, f) = pod(&network, "f").await;
        assert_eq!(f.ip, namespaces[1].1.ip);
        network.detach("f").await.unwrap();
        let (_, g) = pod(&network, "g").await;
        assert_eq!(g.ip, namespaces[3].1.ip, "the address given back last is taken last");
    });
}

#[test]
fn reconcile_frees_what_belongs_to_no_live_pod() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (_a_ns, a) = pod(&network, "a").await;
        let (_b_ns, b) = pod(&network, "b").await;
        std::fs::remove_file(state.join("network/pods/b.json")).unwrap();
        drop(network);
        let network = Network::open(config(state)).await.unwrap();
        let (_c_ns, _) = pod(&network, "c").await;
        let removed = network.reconcile(BTreeSet::from(["a".to_owned()])).await.unwrap();
        assert_eq!(removed, ["c".to_owned(), b.host_if]);
        assert!(run("ip", &["-o", "link"]).contains(&a.host_if));
        assert!(network.attachment("a").await.unwrap().is_some());
    });
}

#[test]
fn a_purge_leaves_the_host_as_it_was() {
    on_a_host(async |state| {
        let before = traces();
        let network = Network::open(config(state)).await.unwrap();
        let (_a_ns, _) = pod(&network, "a").await;
        assert!(run("nft", &["list", "ruleset"]).contains("ip saddr 10.42.0.0/24"));
        let purged = network.purge().await.unwrap();
        assert_eq!(traces(), before);
        assert!(purged.left.is_empty(), "{purged:?}");
        assert_eq!(purged.removed.len(), 5, "{purged:?}");
        assert!(!state.join("network").exists());
        let again = network.purge().await.unwrap();
        assert!(again.removed.is_empty(), "{again:?}");
    });
}

#[test]
fn what_another_process_left_is_found_and_purged_and_nothing_is_made_for_it() {
    on_a_host(async |state| {
        let before = traces();
        let network = Network::open(config(state)).await.unwrap();
        let (_a_ns, _) = pod(&network, "a").await;
        drop(network);
        let purged = Network::find(config(state)).await.unwrap().purge().await.unwrap();
        assert_eq!((traces(), purged.removed.len()), (before.clone(), 5), "{purged:?}");
        let found = Network::find(config(state)).await.unwrap();
        assert_eq!(traces(), before);
        let purged = found.purge().await.unwrap();
        assert!(purged.removed.is_empty(), "{purged:?}");
    });
}

#[test]
fn pods_packets_are_as_long_as_those_of_the_way_out() {
    on_a_host(async |state| {
        let mtu_of_a_pod = async |uid: &str| {
            let network = Network::open(config(state)).await.unwrap();
            let (ns, _) = pod(&network, uid).await;
            let shown = inside(&ns, || run("ip", &["-o", "link", "show", "eth0"]));
            shown.split_once(" mtu ").unwrap().1.split(' ').next().unwrap().to_owned()
        };
        assert_eq!(mtu_of_a_pod("before").await, "1500");
        for (name, address, metric, mtu) in
            [("far", "192.0.2.1/24", "20", "1300"), ("near", "198.51.100.1/24", "10", "1420")]
        {
            run("ip", &["link", "add", name, "mtu", mtu, "type", "veth", "peer", "name", &format!("{name}-peer")]);
            run("ip", &["address", "add", address, "dev", name]);
            run("ip", &["link", "set", name, "up"]);
            run("ip", &["route", "add", "default", "dev", name, "metric", metric]);
        }
        assert_eq!(mtu_of_a_pod("after").await, "1420");
    });
}

#[test]
fn two_networks_live_side_by_side_and_do_not_share_a_range() {
    on_a_host(async |state| {
        let first = Network::open(config(state)).await.unwrap();
        let other = Config { mark: "t2".into(), state_dir: state.join("other"), ..config(state) };
        let error = Network::open(other.clone()).await.err().unwrap();
        assert!(matches!(error, Error::Overlap { .. }), "{error}");
        assert!(error.to_string().contains("cor-t1"), "{error}");
        let range = "10.43.0.0/24".parse().unwrap();
        let second = Network::open(Config { pod_cidr: range, cluster_cidr: range, ..other }).await.unwrap();
        let (_a_ns, _) = pod(&first, "a").await;
        let (b_ns, b) = pod(&second, "b").await;
        let purged = first.purge().await.unwrap();
        assert_eq!(purged.left.len(), 1, "{purged:?}");
        assert_eq!(tcp(inside(&b_ns, listen), b.ip.into(), dial), IpAddr::from(b.gateway));
    });
}

#[test]
fn a_changed_range_takes_the_old_one_away() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, _) = pod(&network, "a").await;
        drop(network);
        let range = "10.44.0.0/24".parse().unwrap();
        let network = Network::open(Config { pod_cidr: range, cluster_cidr: range, ..config(state) }).await.unwrap();
        assert_eq!(network.attachment("a").await.unwrap(), None);
        let a = network.attach("a", a_ns.try_clone().unwrap()).await.unwrap();
        assert_eq!(tcp(inside(&a_ns, listen), a.ip.into(), dial), IpAddr::from(a.gateway));
        assert!(!run("ip", &["route", "show", "table", "all"]).contains("10.42."));
    });
}

#[test]
fn a_bad_namespace_is_a_clear_error_and_leaves_nothing_half_made() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let error = network.attach("a", Path::new("/nonexistent/ns")).await.unwrap_err();
        assert_eq!(error.to_string(), "network namespace /nonexistent/ns");
        let error = network.attach("a", Path::new("/proc/self/ns/mnt")).await.unwrap_err();
        assert!(matches!(error, Error::Namespace { .. }), "{error}");
        assert!(matches!(network.attach("../a", namespace()).await, Err(Error::PodUid { .. })));
        network.reconcile(BTreeSet::new()).await.unwrap();
        assert!(!run("ip", &["-o", "link"]).contains("ct1-"));
    });
}

fn tcp_port(host_ip: Option<&str>, host_port: u16, listener: &TcpListener) -> HostPort {
    let pod_port = listener.local_addr().unwrap().port();
    HostPort { protocol: Protocol::Tcp, host_ip: host_ip.map(|ip| ip.parse().unwrap()), host_port, pod_port }
}

/// Whom a listener sees when somebody connects to a port of the host.
fn seen(listener: &TcpListener, address: &str, connect: impl FnOnce(SocketAddr) -> TcpStream) -> IpAddr {
    let client = connect(address.parse().unwrap());
    let (server, peer) = listener.accept().unwrap();
    drop((client, server));
    peer.ip()
}

#[test]
fn ports_of_the_host_lead_to_a_pod_from_everywhere_until_it_is_gone() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let (a_ns, a) = pod(&network, "a").await;
        let (b_ns, b) = pod(&network, "b").await;
        let listener = inside(&a_ns, listen);
        let (ip, gateway) = (IpAddr::from(a.ip), IpAddr::from(a.gateway));
        network.publish("a", vec![tcp_port(None, 8080, &listener)]).await.unwrap();

        let own = [gateway, IpAddr::from([192, 0, 2, 1])];
        let from = seen(&listener, "127.0.0.1:8080", dial);
        assert!(own.contains(&from), "a pod cannot answer a loopback address: {from}");
        assert_eq!(seen(&listener, "192.0.2.1:8080", dial), own[1]);
        assert_eq!(seen(&listener, "192.0.2.1:8080", |to| inside(&b_ns, || dial(to))), IpAddr::from(b.ip));
        let from = seen(&listener, "192.0.2.1:8080", |to| inside(&a_ns, || dial(to)));
        assert!(own.contains(&from), "a pod cannot answer itself: {from}");

        // The next agent knows them; the same again is no change; another pod's connections are its own.
        drop(network);
        let network = Network::open(config(state)).await.unwrap();
        network.publish("a", vec![tcp_port(None, 8080, &listener)]).await.unwrap();
        assert_eq!(seen(&listener, "192.0.2.1:8080", |to| inside(&b_ns, || dial(to))), IpAddr::from(b.ip));
        assert_ne!(seen(&listener, "127.0.0.1:8080", dial), ip);

        network.detach("a").await.unwrap();
        let refused = TcpStream::connect_timeout(&"192.0.2.1:8080".parse().unwrap(), PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let error = network.publish("a", vec![tcp_port(None, 8080, &listener)]).await.unwrap_err();
        assert_eq!(error.to_string(), "pod a has no address that ports of the host could lead to");
        let rules = run("nft", &["list", "ruleset"]);
        assert!(!rules.contains("8080") && !rules.contains("host-ports"), "{rules}");
    });
}

#[test]
fn a_port_is_told_from_others_by_address_and_protocol_and_the_newest_has_it() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        run("ip", &["address", "add", "192.0.2.1/32", "dev", "lo"]);
        let (a_ns, _) = pod(&network, "a").await;
        let (b_ns, _) = pod(&network, "b").await;
        let (a, b) = (inside(&a_ns, listen), inside(&b_ns, listen));
        let udp = inside(&b_ns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let pod_port = udp.local_addr().unwrap().port();
        let datagrams = HostPort { protocol: Protocol::Udp, host_ip: None, host_port: 53, pod_port };
        network.publish("a", vec![tcp_port(Some("127.0.0.1"), 53, &a)]).await.unwrap();
        network.publish("b", vec![tcp_port(Some("192.0.2.1"), 53, &b), datagrams]).await.unwrap();
        seen(&a, "127.0.0.1:53", dial);
        seen(&b, "192.0.2.1:53", dial);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(b"ask", "127.0.0.1:53").unwrap();
        let mut heard = [0; 3];
        let (_, from) = udp.recv_from(&mut heard).unwrap();
        udp.send_to(b"say", from).unwrap();
        let (_, from) = client.recv_from(&mut heard).unwrap();
        assert_eq!((&heard, from), (b"say", "127.0.0.1:53".parse().unwrap()));

        network.publish("a", vec![tcp_port(None, 53, &a)]).await.unwrap();
        seen(&a, "192.0.2.1:53", dial);
    });
}

/// What a pod's interface lets pass for the host's sake must not let the pod at what listens for the host alone.
#[test]
fn a_pod_with_a_port_of_the_host_does_not_reach_the_hosts_loopback() {
    on_a_host(async |state| {
        let network = Network::open(config(state)).await.unwrap();
        let (a_ns, a) = pod(&network, "a").await;
        let listener = inside(&a_ns, listen);
        network.publish("a", vec![tcp_port(None, 8080, &listener)]).await.unwrap();
        let setting = format!("/proc/sys/net/ipv4/conf/{}/route_localnet", a.host_if);
        assert_eq!(std::fs::read_to_string(setting).unwrap().trim(), "1");
        let secret = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = secret.local_addr().unwrap().port();
        let honest = UdpSocket::bind((a.gateway, 0)).unwrap();
        let other = honest.local_addr().unwrap().port();
        inside(&a_ns, || {
            // A pod's own loopback is in the way until the pod gives it up, which it may if it has the capability.
            std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
            run("ip", &["route", "del", "table", "local", "local", "127.0.0.0/8", "dev", "lo"]);
            run("ip", &["route", "del", "table", "local", "local", "127.0.0.1", "dev", "lo"]);
            run(
                "ip",
                &[
                    "route",
                    "add",
                    "127.0.0.1/32",
                    "via",
                    &a.gateway.to_string(),
                    "dev",
                    "eth0",
                    "src",
                    &a.ip.to_string(),
                ],
            );
            let socket = UdpSocket::bind((a.ip, 0)).unwrap();
            socket.send_to(b"forged", ("127.0.0.1", port)).unwrap();
            socket.send_to(b"honest", (a.gateway, other)).unwrap();
        });
        let mut heard = [0; 6];
        honest.set_read_timeout(Some(PATIENCE)).unwrap();
        honest.recv_from(&mut heard).unwrap();
        assert_eq!(&heard, b"honest");
        // The forged one was sent before, by the same way.
        secret.set_nonblocking(true).unwrap();
        assert_eq!(secret.recv_from(&mut heard).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        let dropped = run("nft", &["list", "chain", "ip", "coracle-t1", "loopback"]);
        assert!(dropped.contains("packets 1 "), "{dropped}");
    });
}
