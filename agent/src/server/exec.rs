//! `/exec/{namespace}/{pod}/{container}`: `kubectl exec` over WebSocket, subprotocols `v5.channel.k8s.io` and `v4…`.
//!
//! Each message begins with a channel: 0 input, 1 output, 2 error output, 3 the final status, 4 the terminal's size; in
//! version 5, 255 followed by a channel closes that one. The last frame is a Close with code 1000: kubectl takes a Close
//! without a code for an error.

use std::sync::Arc;

use axum::Extension;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::{ContainerId, Error, ExecSession, ExecSpec, Sandbox, WindowSize};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use super::{Sessions, failure};
use crate::context::Context;
use crate::pod::facts::Phase;
use crate::pod::start::chain;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
/// Bytes of output in one message.
const CHUNK: usize = 32 << 10;
/// Messages of output that wait for the client.
const PIECES: usize = 8;
/// The longest message a client may send.
const MESSAGE: usize = 1 << 20;

/// What is to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    command: Vec<String>,
    input: bool,
    output: bool,
    error: bool,
    tty: bool,
}

/// Reads the query; both kubelet's names (`input`) and the API's (`stdin`) are known.
fn asked(query: &str) -> Asked {
    let mut asked = Asked::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value);
        let yes = matches!(value.as_str(), "1" | "true");
        match name {
            "command" => asked.command.push(value),
            "input" | "stdin" => asked.input = yes,
            "output" | "stdout" => asked.output = yes,
            "error" | "stderr" => asked.error = yes,
            "tty" => asked.tty = yes,
            _ => {}
        }
    }
    asked
}

/// Decodes `%41` and `+`.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let hex = [bytes.next().unwrap_or(b'?'), bytes.next().unwrap_or(b'?')];
                let parsed = std::str::from_utf8(&hex).ok().and_then(|h| u8::from_str_radix(h, 16).ok());
                out.push(parsed.unwrap_or(b'?'));
            }
            other => out.push(other),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Runs a command in a container.
pub(super) async fn exec(
    State(context): State<Arc<Context>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    Extension(sessions): Extension<Sessions>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let bad = |message: &str| failure(StatusCode::BAD_REQUEST, "BadRequest", message);
    let Ok(upgrade) = upgrade else {
        return bad("exec is served over WebSocket (v5.channel.k8s.io or v4.channel.k8s.io); SPDY is not supported");
    };
    let asked = asked(query.as_deref().unwrap_or_default());
    if asked.command.is_empty() {
        return bad("you must specify at least 1 command for the container");
    }
    let Some(entry) = context.table.find(&namespace, &pod) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", &format!("pod \"{pod}\" does not exist on this node"));
    };
    let running = entry.attempts.get(&container).and_then(|a| a.last()).filter(|a| a.phase == Phase::Running);
    let (Some(attempt), Some(sandbox)) = (running, entry.sandbox.clone()) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", &format!("container not found (\"{container}\")"));
    };
    let Some(id) = ContainerId::parse(&attempt.id) else {
        return failure(StatusCode::NOT_FOUND, "NotFound", &format!("container not found (\"{container}\")"));
    };
    let upgrade = upgrade.protocols([V5, V4]).max_message_size(MESSAGE);
    let version5 = upgrade.selected_protocol().map(|p| p.as_bytes() == V5.as_bytes());
    let Some(version5) = version5 else {
        return failure(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "unable to negotiate: server supports v5.channel.k8s.io and v4.channel.k8s.io",
        );
    };
    // What axum starts for an upgrade is nobody's; it only hands the socket over to a task that is the server's.
    let (give, taken) = oneshot::channel();
    sessions.spawn(async move {
        if let Ok(socket) = taken.await {
            run(socket, sandbox, id, asked, version5).await;
        }
    });
    upgrade.on_upgrade(|socket| async move { drop(give.send(socket)) }).into_response()
}

async fn run(socket: WebSocket, sandbox: Sandbox, id: ContainerId, asked: Asked, version5: bool) {
    let spec = ExecSpec { argv: asked.command.clone(), tty: asked.tty, stdin: asked.input, ..ExecSpec::default() };
    let (mut to, from) = socket.split();
    let status = match sandbox.exec(&id, &spec).await {
        Ok(session) => {
            let (status, back) = converse(session, to, from, &asked, version5).await;
            to = back;
            status
        }
        Err(error) => failed(&error),
    };
    let mut message = BytesMut::new();
    message.put_u8(3);
    message.put_slice(status.to_string().as_bytes());
    // The client may be gone; nobody is left to tell then.
    drop(to.send(Message::Binary(message.freeze())).await);
    drop(to.send(Message::Close(Some(CloseFrame { code: 1000, reason: "".into() }))).await);
    drop(to.close().await);
}

fn failed(error: &Error) -> Value {
    let code = match error {
        Error::Exec(start) => Some(start.exit_code()),
        _ => None,
    };
    let message = chain(error);
    match code {
        Some(code) => json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
            "message": format!("error executing command in container: {message}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}}),
        None => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
        }
    }
}

/// The status of a command that ended.
fn ended(code: i32) -> Value {
    if code == 0 {
        return json!({"metadata": {}, "status": "Success"});
    }
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: error executing command, exit code {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}

type Sink = futures::stream::SplitSink<WebSocket, Message>;
type Source = futures::stream::SplitStream<WebSocket>;

/// What came from the client.
enum Input {
    Data(Bytes),
    End,
    Size(WindowSize),
}

/// Carries bytes both ways until the command has ended and all it said was sent.
async fn converse(
    mut session: ExecSession,
    mut to: Sink,
    mut from: Source,
    asked: &Asked,
    version5: bool,
) -> (Value, Sink) {
    let (pieces, mut said) = mpsc::channel::<Bytes>(PIECES);
    let (sizes, mut resized) = mpsc::channel::<WindowSize>(4);
    let (input, typed) = mpsc::channel::<Bytes>(PIECES);
    let stdin = session.stdin.take();
    let stdout = session.stdout.take();
    let stderr = session.stderr.take();
    let terminal = session.terminal.take();
    // One handle to read, one to write, one to resize.
    let terminal_out = terminal.as_ref().and_then(|t| t.try_clone().ok());
    let terminal_in = terminal.as_ref().and_then(|t| t.try_clone().ok());

    let reading = async {
        let out = pump(stdout, 1, asked.output, pieces.clone());
        let err = pump(stderr, 2, asked.error, pieces.clone());
        let term = pump(terminal_out, 1, true, pieces.clone());
        tokio::join!(out, err, term);
        drop(pieces);
    };
    let writing = async {
        match (stdin, terminal_in) {
            (Some(stdin), _) => feed(stdin, typed).await,
            (None, Some(terminal)) => feed(terminal, typed).await,
            (None, None) => {}
        }
    };
    let sending = async {
        while let Some(piece) = said.recv().await {
            if to.send(Message::Binary(piece)).await.is_err() {
                return false;
            }
        }
        true
    };
    let hearing = async {
        let mut input = Some(input);
        while let Some(Ok(message)) = from.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => continue,
            };
            match parse(&bytes, version5) {
                Some(Input::Data(data)) => {
                    if let Some(sender) = &input
                        && sender.send(data).await.is_err()
                    {
                        // The program reads no more; it may still speak.
                        input = None;
                    }
                }
                Some(Input::End) => input = None,
                Some(Input::Size(size)) => drop(sizes.send(size).await),
                None => {}
            }
        }
    };
    let waiting = async {
        loop {
            tokio::select! {
                biased;
                Some(size) = resized.recv() => {
                    if let Some(Err(error)) = terminal.as_ref().map(|t| t.resize(size)) {
                        tracing::debug!(error = %error, "terminal not resized");
                    }
                }
                result = session.wait() => return result,
            }
        }
    };

    let both = async { tokio::join!(reading, sending).1 };
    let code = {
        tokio::pin!(both, writing, hearing, waiting);
        let (mut sent, mut written, mut code) = (false, false, None);
        loop {
            tokio::select! {
                result = &mut waiting, if code.is_none() => code = Some(result),
                alive = &mut both, if !sent => {
                    sent = true;
                    if !alive {
                        break code;
                    }
                }
                () = &mut writing, if !written => written = true,
                // The client went: dropping the session kills the command.
                () = &mut hearing => break code,
            }
            if sent && code.is_some() {
                break code;
            }
        }
    };
    let status = match code {
        Some(Ok(code)) => ended(code),
        Some(Err(error)) => failed(&error),
        None => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500, "message": "the client closed the connection"})
        }
    };
    (status, to)
}

fn parse(bytes: &Bytes, version5: bool) -> Option<Input> {
    match *bytes.first()? {
        0 => Some(Input::Data(bytes.slice(1..))),
        4 => {
            #[derive(serde::Deserialize)]
            #[serde(rename_all = "PascalCase")]
            struct Size {
                width: u16,
                height: u16,
            }
            let size: Size = serde_json::from_slice(bytes.get(1..)?).ok()?;
            Some(Input::Size(WindowSize { width: size.width, height: size.height }))
        }
        255 if version5 && bytes.get(1) == Some(&0) => Some(Input::End),
        _ => None,
    }
}

/// Sends what is read as messages of `channel`; what nobody asked for is read all the same, so that the program goes on.
async fn pump(from: Option<impl AsyncRead + Unpin>, channel: u8, wanted: bool, pieces: mpsc::Sender<Bytes>) {
    let Some(mut from) = from else { return };
    loop {
        let mut piece = BytesMut::with_capacity(CHUNK + 1);
        piece.put_u8(channel);
        match from.read_buf(&mut piece).await {
            Ok(0) | Err(_) => return,
            Ok(_) if !wanted => {}
            Ok(_) => {
                if pieces.send(piece.freeze()).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Writes what is typed; ends the program's input when the client's ends.
async fn feed(mut to: impl AsyncWrite + Unpin, mut typed: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = typed.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_name_the_command_word_by_word() {
        let got = asked("command=sh&command=-c&command=echo%20a%2Bb+c&input=1&output=true&tty=0");
        assert_eq!(got.command, ["sh", "-c", "echo a+b c"]);
        assert!(got.input && got.output && !got.error && !got.tty);
        assert_eq!(decode("%zz%4"), "??");
    }

    #[test]
    fn messages_are_read_by_channel() {
        let read = |b: &[u8], v5| match parse(&Bytes::copy_from_slice(b), v5) {
            Some(Input::Data(d)) => format!("data {}", String::from_utf8_lossy(&d)),
            Some(Input::End) => "end".into(),
            Some(Input::Size(s)) => format!("{}x{}", s.width, s.height),
            None => "-".into(),
        };
        assert_eq!(read(b"\0hi", true), "data hi");
        assert_eq!(read(b"\x04{\"Width\":80,\"Height\":24}", true), "80x24");
        assert_eq!(read(b"\x04{}", true), "-");
        assert_eq!(read(b"\xff\0", true), "end");
        assert_eq!(read(b"\xff\0", false), "-");
        assert_eq!(read(b"\x01x", true), "-");
        assert_eq!(read(b"", true), "-");
    }

    #[test]
    fn the_last_status_carries_the_exit_code() {
        assert_eq!(ended(0)["status"], "Success");
        let got = ended(3);
        assert_eq!(got["reason"], "NonZeroExitCode");
        assert_eq!(got["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    }
}
