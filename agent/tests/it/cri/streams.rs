//! Streams: exec, attach, port-forward; and events.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{StatusCode, header};
use prost::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::{Cri, EXITED, INVALID, code, container, text};
use crate::deaths::with_node;
use crate::grpc::{Empty, Event, Exec, Mapping, Ports, SandboxConfig, Text, begin, get};

#[test]
fn what_happens_is_told_to_who_listens() {
    with_node("cri5", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let mut events = begin(&cri.socket, "RuntimeService/GetContainerEvents", &Empty {}).await;
        let sandbox = cri.run(cri.sandbox("web")).await.unwrap();
        let short = cri.create(&sandbox, container("short", &["sh", "-c", "true"])).await.unwrap();
        cri.start(&short).await.unwrap();
        let long = cri.create(&sandbox, container("long", &["sleep", "1000"])).await.unwrap();
        cri.start(&long).await.unwrap();
        cri.until(&short, |status| status.state == EXITED).await;
        let _: Empty = cri.ask("RemoveContainer", &text(&short)).await.unwrap();
        let _: Empty = cri.ask("StopPodSandbox", &text(&sandbox)).await.unwrap();
        let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        let mut told: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        while told.values().map(Vec::len).sum::<usize>() < 12 {
            let next = tokio::time::timeout(Duration::from_secs(60), events.next::<Event>()).await;
            let event = next.unwrap_or_else(|_| panic!("{told:?}")).unwrap().unwrap();
            told.entry(event.id).or_default().push(event.kind);
        }
        let want: BTreeMap<String, Vec<i32>> =
            [sandbox, short, long].into_iter().map(|id| (id, vec![0, 1, 2, 3])).collect();
        assert_eq!(told, want);
        drop(events);
        node.kill();
    });
}

/// A session over a WebSocket.
async fn session(url: &str, input: &[u8], wanted: &str) -> (String, String) {
    let address = url.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let mut request = url.replace("http://", "ws://").into_client_request().unwrap();
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, "v5.channel.k8s.io".parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    if !input.is_empty() {
        socket.send([&[0], input].concat().into()).await.unwrap();
    }
    let (mut said, mut status) = (String::new(), String::new());
    while let Some(Ok(message)) = socket.next().await {
        let data = message.into_data();
        match data.first() {
            Some(1) => said.push_str(std::str::from_utf8(&data[1..]).unwrap()),
            Some(3) => status.push_str(std::str::from_utf8(&data[1..]).unwrap()),
            _ => {}
        }
        if !wanted.is_empty() && said.contains(wanted) {
            break;
        }
    }
    (said, status)
}

#[test]
fn exec_attach_and_port_forward_are_streams_that_are_had_once() {
    with_node("cri6", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let sandbox = cri.run(cri.sandbox("web")).await.unwrap();
        let mut app = container("app", &["cat"]);
        app.stdin = true;
        let id = cri.create(&sandbox, app).await.unwrap();
        cri.start(&id).await.unwrap();
        let exec = |words: &[&str]| Exec {
            id: id.clone(),
            command: words.iter().map(|word| (*word).to_owned()).collect(),
            stdin: true,
            stdout: true,
        };
        let url = cri.ask::<Text>("Exec", &exec(&["sh", "-c", "read a; echo got $a; exit 4"])).await.unwrap().text;
        let (said, status) = session(&url, b"words\n", "").await;
        assert_eq!(said, "got words\n");
        assert!(status.contains("\"ExitCode\"") && status.contains("\"4\""), "{status}");
        // The same once more.
        let answer = get(&url).await;
        assert_eq!(answer, StatusCode::NOT_FOUND);
        assert_eq!(code(cri.ask::<Text>("Exec", &exec(&[])).await), INVALID);

        // stdin and stdout have the numbers 2 and 4 there.
        let attach = AttachAsked { id: id.clone(), stdin: true, stdout: true };
        let url = cri.ask::<Text>("Attach", &attach).await.unwrap().text;
        assert_eq!(session(&url, b"echoed\n", "echoed").await.0, "echoed\n");

        assert_eq!(
            code(cri.ask::<Text>("PortForward", &Ports { id: sandbox.clone(), ports: vec![70_000] }).await),
            INVALID
        );
        let url = cri.ask::<Text>("PortForward", &Ports { id: sandbox.clone(), ports: vec![8080] }).await.unwrap().text;
        assert!(url.contains("/portforward/"), "{url}");
        let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        node.kill();
    });
}

#[test]
fn a_port_of_the_host_leads_to_a_sandbox_while_it_is_there() {
    use std::io::{Read as _, Write as _};
    with_node("cri8", |mut node| async move {
        node.start().await;
        let cri = Cri::of(&node);
        let mapping = |container_port| vec![Mapping { container_port, host_port: 8081 }];
        let refused = cri.run(SandboxConfig { ports: mapping(0), ..cri.sandbox("wrong") }).await;
        assert_eq!(code(refused), INVALID);
        let sandbox = cri.run(SandboxConfig { ports: mapping(8080), ..cri.sandbox("web") }).await.unwrap();
        let id =
            cri.create(&sandbox, container("app", &["busybox", "nc", "-ll", "-p", "8080", "-e", "cat"])).await.unwrap();
        cri.start(&id).await.unwrap();
        let listens = ["sh", "-c", "until echo | busybox nc 127.0.0.1 8080; do sleep 0.1; done"];
        assert_eq!(cri.exec(&id, &listens, 60).await.unwrap().0, 0);
        let mut stream = std::net::TcpStream::connect("127.0.0.1:8081").unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        stream.write_all(b"echoed").unwrap();
        let mut said = [0; 6];
        stream.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"echoed");
        drop(stream);
        let _: Empty = cri.ask("RemovePodSandbox", &text(&sandbox)).await.unwrap();
        assert!(std::net::TcpStream::connect("127.0.0.1:8081").is_err());
        node.kill();
    });
}

#[derive(Clone, PartialEq, Message)]
struct AttachAsked {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(bool, tag = "2")]
    stdin: bool,
    #[prost(bool, tag = "4")]
    stdout: bool,
}
