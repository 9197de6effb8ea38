//! A session with a container's process, whatever carries it to the client: bytes both ways, sizes of a terminal, and the
//! status at the end.

use std::{future::pending, io};

use bytes::{BufMut, Bytes, BytesMut};
use coracle_runtime::{ContainerId, Error, ExecSpec, Sandbox, Terminal, WindowSize};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pod::start::chain;

/// Bytes of output in one piece.
const CHUNK: usize = 32 << 10;
/// Pieces that wait for the other side, each way.
const PIECES: usize = 8;
/// Sizes of the terminal that wait to be set.
const SIZES: usize = 4;

/// The channels of a session, as its pieces begin with them and the WebSocket protocols number them.
pub(super) const STDIN: u8 = 0;
/// Output.
pub(super) const STDOUT: u8 = 1;
/// Error output.
pub(super) const STDERR: u8 = 2;
/// The status at the end.
pub(super) const STATUS: u8 = 3;
/// The terminal's size.
pub(super) const RESIZE: u8 = 4;

/// What a client asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The program and its arguments; nothing when it attaches.
    pub(crate) command: Vec<String>,
    /// It has input.
    pub(crate) input: bool,
    /// It wants output.
    pub(crate) output: bool,
    /// It wants error output.
    pub(crate) error: bool,
    /// It has a terminal.
    pub(crate) tty: bool,
}

impl Asked {
    /// Reads the query; both kubelet's names (`input`) and the API's (`stdin`) are known.
    pub(super) fn read(query: &str) -> Asked {
        let mut asked = Asked::default();
        for (name, value) in pairs(query) {
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
        // A terminal has one output.
        asked.error &= !asked.tty;
        asked
    }
}

/// The names and decoded values of a query.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (&str, String)> {
    query.split('&').map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name, decode(value))
    })
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

/// The client's side of a session.
pub(crate) struct Client {
    /// What it types; closed when that ends.
    pub(super) input: mpsc::Receiver<Bytes>,
    /// The sizes of its terminal.
    pub(super) sizes: mpsc::Receiver<WindowSize>,
    /// What it is told; each piece begins with its channel.
    pub(super) told: mpsc::Sender<Bytes>,
    /// It has left.
    pub(super) gone: CancellationToken,
}

/// The other side of [`Client`]: what a transport fills and empties.
pub(super) struct Carrier {
    /// Where input goes; dropped when it ends.
    pub(super) input: Option<mpsc::Sender<Bytes>>,
    /// Where sizes go.
    pub(super) sizes: mpsc::Sender<WindowSize>,
    /// What is to be sent, until it is closed.
    pub(super) told: mpsc::Receiver<Bytes>,
    /// To be cancelled when the client leaves.
    pub(super) gone: CancellationToken,
}

/// Both sides.
pub(super) fn ends() -> (Client, Carrier) {
    let (typed, input) = mpsc::channel(PIECES);
    let (resized, sizes) = mpsc::channel(SIZES);
    let (told, said) = mpsc::channel(PIECES);
    let gone = CancellationToken::new();
    (
        Client { input, sizes, told, gone: gone.clone() },
        Carrier { input: Some(typed), sizes: resized, told: said, gone },
    )
}

/// A size as clients write it.
pub(super) fn size(json: &[u8]) -> Option<WindowSize> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Size {
        width: u16,
        height: u16,
    }
    let size: Size = serde_json::from_slice(json).ok()?;
    Some(WindowSize { width: size.width, height: size.height })
}

/// The process's side of a session.
#[derive(Default)]
struct Process {
    stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// To be resized.
    terminal: Option<Terminal>,
}

fn boxed_read<T: AsyncRead + Send + Unpin + 'static>(end: Option<T>) -> Option<Box<dyn AsyncRead + Send + Unpin>> {
    end.map(|end| Box::new(end) as _)
}

fn boxed_write<T: AsyncWrite + Send + Unpin + 'static>(end: Option<T>) -> Option<Box<dyn AsyncWrite + Send + Unpin>> {
    end.map(|end| Box::new(end) as _)
}

/// Runs a command in a container; how it ended, as a `Status`. The command is killed when the client leaves.
pub(crate) async fn exec(sandbox: Sandbox, id: ContainerId, asked: Asked, client: Client) -> Value {
    let spec = ExecSpec { argv: asked.command.clone(), tty: asked.tty, stdin: asked.input, ..ExecSpec::default() };
    let mut session = match sandbox.exec(&id, &spec).await {
        Ok(session) => session,
        Err(error) => return failed(&error),
    };
    let terminal = session.terminal.take();
    let again = |terminal: &Option<Terminal>| terminal.as_ref().and_then(|terminal| terminal.try_clone().ok());
    let process = match &terminal {
        Some(_) => Process {
            stdin: boxed_write(again(&terminal)),
            stdout: boxed_read(again(&terminal)),
            stderr: None,
            terminal,
        },
        None => Process {
            stdin: boxed_write(session.stdin.take()),
            stdout: boxed_read(session.stdout.take()),
            stderr: boxed_read(session.stderr.take()),
            terminal: None,
        },
    };
    let ends = async {
        match session.wait().await {
            Ok(code) => ended(code),
            Err(error) => failed(&error),
        }
    };
    converse(process, client, &asked, ends).await
}

/// Attaches to a container's own process until its output ends or the client leaves, which leaves the container alone.
pub(crate) async fn attach(sandbox: Sandbox, id: ContainerId, asked: Asked, client: Client) -> Value {
    let mut session = match sandbox.attach(&id, asked.input).await {
        Ok(session) => session,
        Err(error) => return internal(&format!("error attaching to container: {}", chain(&error))),
    };
    let terminal = session.terminal.take();
    let typed = terminal.as_ref().and_then(|terminal| terminal.try_clone().ok());
    let process = Process {
        stdin: if terminal.is_some() { boxed_write(typed) } else { boxed_write(session.stdin.take()) },
        stdout: boxed_read(session.stdout.take()),
        stderr: boxed_read(session.stderr.take()),
        terminal,
    };
    converse(process, client, &asked, async { ended(0) }).await
}

/// Carries bytes both ways until all that is said was handed over and `ends` tells how it ended, or the client has left.
async fn converse(process: Process, client: Client, asked: &Asked, ends: impl Future<Output = Value>) -> Value {
    let Client { input, mut sizes, told, gone } = client;
    let Process { stdin, stdout, stderr, terminal } = process;
    let speaking = {
        let (out, err) = (told.clone(), told);
        async move {
            let (out, err) =
                tokio::join!(pump(stdout, STDOUT, asked.output, out), pump(stderr, STDERR, asked.error, err));
            out.and(err)
        }
    };
    let hearing = async move {
        match stdin.filter(|_| asked.input) {
            Some(stdin) => feed(stdin, input).await,
            // Nobody reads it: it is taken and thrown away.
            None => {
                let mut input = input;
                while input.recv().await.is_some() {}
            }
        }
    };
    let resizing = async {
        while let Some(size) = sizes.recv().await {
            if let Some(Err(error)) = terminal.as_ref().map(|terminal| terminal.resize(size)) {
                tracing::debug!(error = %error, "terminal not resized");
            }
        }
    };
    tokio::select! {
        (status, spoken) = async { tokio::join!(ends, speaking) } => match spoken {
            Ok(()) => status,
            Err(error) => internal(&format!("error reading the output: {error}")),
        },
        () = gone.cancelled() => internal("the client closed the connection"),
        _ = async { tokio::join!(hearing, resizing); pending::<Value>().await } => internal("the input never ends"),
    }
}

/// Sends what is read as pieces of `channel`; what nobody asked for is read all the same, so that the program goes on.
async fn pump(
    from: Option<Box<dyn AsyncRead + Send + Unpin>>,
    channel: u8,
    wanted: bool,
    told: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    loop {
        let mut piece = BytesMut::with_capacity(CHUNK + 1);
        piece.put_u8(channel);
        match from.read_buf(&mut piece).await? {
            0 => return Ok(()),
            _ if !wanted => {}
            _ => {
                if told.send(piece.freeze()).await.is_err() {
                    return Ok(());
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

/// A failure in the words given.
fn internal(message: &str) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": message, "code": 500})
}

/// The status of a command that could not be run.
fn failed(error: &Error) -> Value {
    let message = chain(error);
    match error {
        Error::Exec(start) => {
            let mut status = internal(&format!("error executing command in container: {message}"));
            if let Some(status) = status.as_object_mut() {
                let code = start.exit_code().to_string();
                status.insert("details".into(), json!({"causes": [{"reason": "ExitCode", "message": code}]}));
            }
            status
        }
        _ => internal(&message),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_name_the_command_word_by_word() {
        let got = Asked::read("command=sh&command=-c&command=echo%20a%2Bb+c&input=1&output=true&tty=0");
        assert_eq!(got.command, ["sh", "-c", "echo a+b c"]);
        assert!(got.input && got.output && !got.error && !got.tty);
        assert!(Asked::read("error=1").error && !Asked::read("error=1&tty=1").error);
        assert_eq!(decode("%zz%4"), "??");
    }

    #[test]
    fn the_last_status_carries_the_exit_code() {
        assert_eq!(ended(0)["status"], "Success");
        let got = ended(3);
        assert_eq!(got["reason"], "NonZeroExitCode");
        assert_eq!(got["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    }

    fn process(said: &'static [u8], typed: tokio::io::DuplexStream) -> Process {
        Process { stdin: boxed_write(Some(typed)), stdout: boxed_read(Some(said)), ..Process::default() }
    }

    #[tokio::test]
    async fn all_that_is_said_is_handed_over_before_the_end_is_told() {
        let (client, mut carrier) = ends();
        let (ours, _theirs) = tokio::io::duplex(16);
        let asked = Asked { output: true, ..Asked::default() };
        let said = async {
            let mut said = Vec::new();
            while let Some(piece) = carrier.told.recv().await {
                said.extend_from_slice(&piece);
            }
            said
        };
        let (status, said) =
            tokio::join!(converse(process(b"last words", ours), client, &asked, async { ended(7) }), said);
        assert_eq!((status["reason"].as_str(), said.as_slice()), (Some("NonZeroExitCode"), &b"\x01last words"[..]));
    }

    #[tokio::test]
    async fn input_ends_when_the_clients_does_and_all_ends_when_it_leaves() {
        let (client, mut carrier) = ends();
        let (ours, mut theirs) = tokio::io::duplex(16);
        let asked = Asked { input: true, ..Asked::default() };
        let conversation = converse(process(b"", ours), client, &asked, pending());
        let talk = async {
            carrier.input.take().unwrap().send(Bytes::from_static(b"words")).await.unwrap();
            let mut text = String::new();
            theirs.read_to_string(&mut text).await.unwrap();
            carrier.gone.cancel();
            text
        };
        let (status, text) = tokio::join!(conversation, talk);
        assert_eq!((status["message"].as_str(), text.as_str()), (Some("the client closed the connection"), "words"));
    }
}
