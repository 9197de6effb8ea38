//! `kubectl port-forward`: a person's own ports that lead into pods.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::mpsc,
    thread::JoinHandle,
};

use crate::cluster::Cluster;

/// The server of all tests: port 8080 answers with a page, 8083 does so on the loopback address alone; port 8081 counts what it
/// hears when it has heard all; port 8082 sends 8 MiB.
const POD: &str = "apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: busybox:1
    command: [sh, -c, \"mkdir /www; echo hello > /www/index.html; httpd -p 127.0.0.1:8083 -h /www; \
      nc -ll -p 8081 -e wc -c & nc -ll -p 8082 -e head -c 8388608 /dev/zero & exec httpd -f -p 8080 -h /www\"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

fn cluster() -> Cluster {
    let cluster = Cluster::start();
    cluster.import("busybox", "busybox:1");
    cluster.apply(POD);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=60s"]);
    cluster
}

/// A kubectl that forwards ports, until it is dropped.
struct Forward<'a> {
    cluster: &'a Cluster,
    child: Child,
    lines: mpsc::Receiver<String>,
    readers: Vec<JoinHandle<()>>,
}

impl<'a> Forward<'a> {
    fn start(cluster: &'a Cluster, what: &[&str], spdy: bool) -> Self {
        let mut command = cluster.kubectl_command(&[&["port-forward"], what].concat());
        if spdy {
            command.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = mpsc::sync_channel(1000);
        let listen = |stream: Box<dyn std::io::Read + Send>| {
            let tell = tell.clone();
            std::thread::spawn(move || {
                BufReader::new(stream).lines().map_while(Result::ok).for_each(|line| drop(tell.send(line)));
            })
        };
        let readers =
            vec![listen(Box::new(child.stdout.take().unwrap())), listen(Box::new(child.stderr.take().unwrap()))];
        Forward { cluster, child, lines, readers }
    }

    /// Waits for a line that holds this.
    fn says(&self, wanted: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let line = self.lines.recv_timeout(crate::cluster::LONG);
            let line = line.unwrap_or_else(|_| panic!("waited for {wanted:?}; it said {seen:#?}"));
            if line.contains(wanted) {
                return line;
            }
            seen.push(line);
        }
    }

    /// The local port that leads to a port of the pod.
    fn port(&self, to: u16) -> u16 {
        let line = self.says("Forwarding from 127.0.0.1:");
        assert!(line.ends_with(&format!("-> {to}")), "{line}");
        line.trim_start_matches("Forwarding from 127.0.0.1:").split(' ').next().unwrap().parse().unwrap()
    }

    /// What a program on the host says of a local port.
    fn run(&self, script: &str) -> String {
        let output = self.cluster.host.command("sh").args(["-c", script]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Forward<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
    }
}

fn everything_arrives(spdy: bool) {
    let cluster = cluster();
    let forward = Forward::start(&cluster, &["pod/web", ":8080", ":8081", ":8082", ":8083", ":9"], spdy);
    let [web, count, zeros, local, nothing] = [8080, 8081, 8082, 8083, 9].map(|to| forward.port(to));
    assert_eq!(forward.run(&format!("busybox wget -qO- http://127.0.0.1:{web}/")), "hello\n");
    // Many at once, each with its own answer.
    let many = forward.run(&format!("for i in $(seq 20); do busybox wget -qO- http://127.0.0.1:{web}/ & done; wait"));
    assert_eq!(many, "hello\n".repeat(20));
    // The client's half ends before the answer comes.
    let counted = forward.run(&format!("head -c 3000000 /dev/zero | busybox nc 127.0.0.1 {count}"));
    assert_eq!(counted.trim(), "3000000");
    assert_eq!(forward.run(&format!("busybox nc 127.0.0.1 {zeros} < /dev/null | wc -c")).trim(), "8388608");
    assert_eq!(forward.run(&format!("busybox wget -qO- http://127.0.0.1:{local}/")), "hello\n");
    // Where nobody listens the connection is closed and kubectl says why.
    assert_eq!(forward.run(&format!("busybox nc 127.0.0.1 {nothing} < /dev/null")), "");
    let why = forward.says("an error occurred forwarding");
    assert!(
        why.contains("error forwarding port 9 to pod")
            && why.contains("IPv4: dial tcp4 127.0.0.1:9: connect: connection refused"),
        "{why}"
    );
}

#[test]
fn ports_are_forwarded_through_a_tunnel() {
    everything_arrives(false);
}

#[test]
fn ports_are_forwarded_for_older_clients() {
    everything_arrives(true);
}

#[test]
fn a_service_leads_to_one_of_its_pods() {
    let cluster = cluster();
    let forward = Forward::start(&cluster, &["service/web", ":80"], false);
    // kubectl looks up the pod's port.
    let port = forward.port(8080);
    assert_eq!(forward.run(&format!("busybox wget -qO- http://127.0.0.1:{port}/")), "hello\n");
    let refused = cluster.kubectl_refused(&["port-forward", "pod/nobody", ":80"]);
    assert!(refused.contains("pods \"nobody\" not found"), "{refused}");
}
