//! Thresholds, gating between probes (with time paused), and real sockets on loopback.

use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn probe(text: serde_json::Value) -> Probe {
    serde_json::from_value(text).unwrap()
}

#[test]
fn a_verdict_needs_its_threshold_in_a_row() {
    let mut streak = Streak::new(&probe(json!({"failureThreshold": 2, "successThreshold": 2})));
    let fail = Outcome::Failure("x".into());
    let tries = [
        (&Outcome::Success, None),
        (&fail, None),
        (&Outcome::Success, None),
        (&Outcome::Success, Some(true)),
        (&Outcome::Success, None),
        (&fail, None),
        (&fail, Some(false)),
        (&fail, None),
    ];
    for (i, (outcome, want)) in tries.iter().enumerate() {
        assert_eq!(streak.count(outcome), *want, "try {i}");
    }
    assert_eq!(streak.count(&Outcome::Error("not tried".into())), None);
}

/// Answers from a list, then success.
struct Script(Mutex<Vec<Outcome>>, Mutex<Vec<String>>);

impl Commands for Script {
    async fn run(&self, argv: Vec<String>, _timeout: Duration) -> Outcome {
        self.1.lock().unwrap().push(argv.join(" "));
        self.0.lock().unwrap().pop().unwrap_or(Outcome::Success)
    }
}

#[tokio::test(start_paused = true)]
async fn liveness_and_readiness_wait_for_startup() {
    let container: Container = serde_json::from_value(json!({"name": "app",
        "startupProbe": {"exec": {"command": ["startup"]}, "failureThreshold": 5, "periodSeconds": 2},
        "readinessProbe": {"exec": {"command": ["ready"]}}}))
    .unwrap();
    let target = Target { container, id: "c0".into(), ip: None, counts: Arc::default() };
    let script = Script(Mutex::new(vec![Outcome::Failure("a".into()), Outcome::Failure("b".into())]), Mutex::default());
    let (tx, mut rx) = mpsc::channel(8);
    let mut seen = Vec::new();
    tokio::select! {
        () = run(&target, &script, tx) => {}
        () = async {
            while let Some(report) = rx.recv().await {
                let done = report.kind == Kind::Readiness;
                seen.push((report.kind, report.verdict));
                if done { break; }
            }
        } => {}
    }
    assert_eq!(
        seen,
        [(Kind::Startup, None), (Kind::Startup, None), (Kind::Startup, Some(true)), (Kind::Readiness, Some(true))]
    );
    assert_eq!(*script.1.lock().unwrap(), ["startup", "startup", "startup", "ready"]);
}

/// A server that answers each connection with the next text, and the port it listens on.
async fn server(answers: Vec<&'static str>) -> (u16, impl Future<Output = Vec<String>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 4096];
            let n = stream.read(&mut buffer).await.unwrap();
            asked.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    };
    (port, serve)
}

async fn http(port: u16, path: &str) -> Outcome {
    let container: Container =
        serde_json::from_value(json!({"name": "app", "ports": [{"name": "web", "containerPort": port}]})).unwrap();
    let target = Target { container, id: "c0".into(), ip: Some("127.0.0.1".parse().unwrap()), counts: Arc::default() };
    let probe =
        probe(json!({"httpGet": {"path": path, "port": "web", "httpHeaders": [{"name": "X-A", "value": "b"}]}}));
    attempt(&probe, &target, &NoCommands, Duration::from_secs(5)).await
}

#[tokio::test]
async fn http_answers_below_400_pass_and_redirects_on_the_host_are_followed() {
    let (port, serve) = server(vec![
        "HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ])
    .await;
    let (outcome, asked) = tokio::join!(http(port, "/here?x=1"), serve);
    assert_eq!(outcome, Outcome::Success);
    assert!(asked[0].starts_with("GET /here?x=1 HTTP/1.1\r\n"), "{}", asked[0]);
    assert!(asked[0].contains("x-a: b\r\n"), "{}", asked[0]);
    assert!(asked[1].starts_with("GET /there HTTP/1.1\r\n"), "{}", asked[1]);

    let (port, serve) = server(vec!["HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n"]).await;
    let (outcome, _) = tokio::join!(http(port, "/"), serve);
    assert_eq!(outcome, Outcome::Failure("HTTP probe failed with statuscode: 503".into()));
}

#[tokio::test]
async fn a_port_nobody_listens_on_is_told_in_gos_words() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let dial = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
    assert_eq!(http(port, "/x").await, Outcome::Failure(format!("Get \"http://127.0.0.1:{port}/x\": {dial}")));
    let target = Target {
        container: Container::default(),
        id: String::new(),
        ip: Some("127.0.0.1".parse().unwrap()),
        counts: Arc::default(),
    };
    let tcp = probe(json!({"tcpSocket": {"port": port}}));
    assert_eq!(attempt(&tcp, &target, &NoCommands, Duration::from_secs(5)).await, Outcome::Failure(dial));
}

#[test]
fn ports_are_numbers_or_names() {
    let container: Container =
        serde_json::from_value(json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
    for (given, want) in [
        (IntOrString::Int(80), Some(80)),
        (IntOrString::String("web".into()), Some(8080)),
        (IntOrString::String("9".into()), Some(9)),
        (IntOrString::String("no".into()), None),
        (IntOrString::Int(0), None),
        (IntOrString::Int(70_000), None),
    ] {
        assert_eq!(port(&container, &given), want, "{given:?}");
    }
}
