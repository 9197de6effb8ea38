//! A client of the Container Runtime Interface, with the messages numbered by themselves as far as tests need them: a number
//! that is wrong on one side is found.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;

macro_rules! messages {
    ($($name:ident { $($(#[$field:meta])* $member:ident: $type:ty,)* })*) => {
        $(
            #[derive(Clone, PartialEq, Message)]
            pub(crate) struct $name { $($(#[$field])* pub(crate) $member: $type,)* }
        )*
    };
}

messages! {
    Empty {}
    Text { #[prost(string, tag = "1")] text: String, }
    Metadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
        #[prost(uint32, tag = "4")] attempt: u32,
    }
    Dns {
        #[prost(string, repeated, tag = "1")] servers: Vec<String>,
        #[prost(string, repeated, tag = "2")] searches: Vec<String>,
    }
    Mapping {
        #[prost(int32, tag = "2")] container_port: i32,
        #[prost(int32, tag = "3")] host_port: i32,
    }
    IdMapping {
        #[prost(uint32, tag = "1")] host: u32,
        #[prost(uint32, tag = "2")] container: u32,
        #[prost(uint32, tag = "3")] length: u32,
    }
    Users {
        #[prost(int32, tag = "1")] mode: i32,
        #[prost(message, repeated, tag = "2")] uids: Vec<IdMapping>,
        #[prost(message, repeated, tag = "3")] gids: Vec<IdMapping>,
    }
    Namespaces {
        #[prost(int32, tag = "1")] network: i32,
        #[prost(int32, tag = "2")] pid: i32,
        #[prost(message, optional, tag = "5")] users: Option<Users>,
    }
    SandboxSecurity { #[prost(message, optional, tag = "1")] namespaces: Option<Namespaces>, }
    SandboxLinux {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security: Option<SandboxSecurity>,
        #[prost(btree_map = "string, string", tag = "3")] sysctls: BTreeMap<String, String>,
        #[prost(message, optional, tag = "5")] resources: Option<Limits>,
    }
    SandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<Metadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(message, optional, tag = "4")] dns: Option<Dns>,
        #[prost(message, repeated, tag = "5")] ports: Vec<Mapping>,
        #[prost(btree_map = "string, string", tag = "6")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "7")] annotations: BTreeMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<SandboxLinux>,
    }
    RunSandbox {
        #[prost(message, optional, tag = "1")] config: Option<SandboxConfig>,
        #[prost(string, tag = "2")] handler: String,
    }
    Network { #[prost(string, tag = "1")] ip: String, }
    SandboxStatus {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<Metadata>,
        #[prost(int32, tag = "3")] state: i32,
        #[prost(int64, tag = "4")] created_at: i64,
        #[prost(message, optional, tag = "5")] network: Option<Network>,
        #[prost(btree_map = "string, string", tag = "7")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "8")] annotations: BTreeMap<String, String>,
    }
    SandboxStatusAnswer { #[prost(message, optional, tag = "1")] status: Option<SandboxStatus>, }
    Sandbox {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<Metadata>,
        #[prost(int32, tag = "3")] state: i32,
        #[prost(btree_map = "string, string", tag = "5")] labels: BTreeMap<String, String>,
    }
    SandboxFilter {
        #[prost(string, tag = "1")] id: String,
        #[prost(btree_map = "string, string", tag = "3")] labels: BTreeMap<String, String>,
    }
    ListSandboxes { #[prost(message, optional, tag = "1")] filter: Option<SandboxFilter>, }
    Sandboxes { #[prost(message, repeated, tag = "1")] items: Vec<Sandbox>, }

    Image { #[prost(string, tag = "1")] image: String, }
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint32, tag = "2")] attempt: u32,
    }
    Variable {
        #[prost(string, tag = "1")] key: String,
        #[prost(bytes = "vec", tag = "2")] value: Vec<u8>,
    }
    MountedImage {
        #[prost(string, tag = "1")] image: String,
        #[prost(string, tag = "20")] image_ref: String,
    }
    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
        #[prost(message, repeated, tag = "6")] uids: Vec<IdMapping>,
        #[prost(message, repeated, tag = "7")] gids: Vec<IdMapping>,
        #[prost(message, optional, tag = "9")] image: Option<MountedImage>,
        #[prost(string, tag = "10")] image_sub_path: String,
    }
    CdiDevice { #[prost(string, tag = "1")] name: String, }
    Limits {
        #[prost(int64, tag = "3")] cpu_shares: i64,
        #[prost(int64, tag = "4")] memory: i64,
    }
    UpdateSandbox {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] overhead: Option<Limits>,
        #[prost(message, optional, tag = "3")] resources: Option<Limits>,
    }
    Number { #[prost(int64, tag = "1")] value: i64, }
    Security {
        #[prost(bool, tag = "2")] privileged: bool,
        #[prost(message, optional, tag = "3")] namespaces: Option<Namespaces>,
        #[prost(message, optional, tag = "5")] user: Option<Number>,
        #[prost(bool, tag = "7")] readonly_rootfs: bool,
    }
    Linux {
        #[prost(message, optional, tag = "1")] resources: Option<Limits>,
        #[prost(message, optional, tag = "2")] security: Option<Security>,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<Image>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(message, repeated, tag = "6")] envs: Vec<Variable>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(btree_map = "string, string", tag = "9")] labels: BTreeMap<String, String>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(bool, tag = "12")] stdin: bool,
        #[prost(message, optional, tag = "15")] linux: Option<Linux>,
        #[prost(message, repeated, tag = "17")] cdi_devices: Vec<CdiDevice>,
    }
    Create {
        #[prost(string, tag = "1")] sandbox: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<SandboxConfig>,
    }
    Stop {
        #[prost(string, tag = "1")] id: String,
        #[prost(int64, tag = "2")] timeout: i64,
    }
    ContainerResources { #[prost(message, optional, tag = "1")] linux: Option<Limits>, }
    ContainerStatus {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<ContainerMetadata>,
        #[prost(int32, tag = "3")] state: i32,
        #[prost(int64, tag = "4")] created_at: i64,
        #[prost(int64, tag = "5")] started_at: i64,
        #[prost(int64, tag = "6")] finished_at: i64,
        #[prost(int32, tag = "7")] exit_code: i32,
        #[prost(message, optional, tag = "8")] image: Option<Image>,
        #[prost(string, tag = "10")] reason: String,
        #[prost(string, tag = "11")] message: String,
        #[prost(btree_map = "string, string", tag = "12")] labels: BTreeMap<String, String>,
        #[prost(message, repeated, tag = "14")] mounts: Vec<Mount>,
        #[prost(string, tag = "15")] log_path: String,
        #[prost(message, optional, tag = "16")] resources: Option<ContainerResources>,
    }
    ContainerStatusAnswer { #[prost(message, optional, tag = "1")] status: Option<ContainerStatus>, }
    Container {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, tag = "2")] sandbox: String,
        #[prost(message, optional, tag = "3")] metadata: Option<ContainerMetadata>,
        #[prost(int32, tag = "6")] state: i32,
        #[prost(btree_map = "string, string", tag = "8")] labels: BTreeMap<String, String>,
    }
    Containers { #[prost(message, repeated, tag = "1")] items: Vec<Container>, }
    Update {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] linux: Option<Limits>,
    }
    ExecSync {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] command: Vec<String>,
        #[prost(int64, tag = "3")] timeout: i64,
    }
    Said {
        #[prost(bytes = "vec", tag = "1")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stderr: Vec<u8>,
        #[prost(int32, tag = "3")] code: i32,
    }
    Exec {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] command: Vec<String>,
        #[prost(bool, tag = "4")] stdin: bool,
        #[prost(bool, tag = "5")] stdout: bool,
    }
    Ports {
        #[prost(string, tag = "1")] id: String,
        #[prost(int32, repeated, tag = "2")] ports: Vec<i32>,
    }

    Version {
        #[prost(string, tag = "2")] name: String,
        #[prost(string, tag = "4")] api: String,
    }
    Condition {
        #[prost(string, tag = "1")] kind: String,
        #[prost(bool, tag = "2")] status: bool,
    }
    Conditions { #[prost(message, repeated, tag = "1")] all: Vec<Condition>, }
    StatusAnswer { #[prost(message, optional, tag = "1")] status: Option<Conditions>, }

    ImageShown {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] tags: Vec<String>,
        #[prost(uint64, tag = "4")] size: u64,
    }
    Images { #[prost(message, repeated, tag = "1")] all: Vec<ImageShown>, }
    ImageAnswer { #[prost(message, optional, tag = "1")] image: Option<ImageShown>, }
    ImageAsked { #[prost(message, optional, tag = "1")] image: Option<Image>, }
    Auth {
        #[prost(string, tag = "1")] username: String,
        #[prost(string, tag = "2")] password: String,
    }
    Pull {
        #[prost(message, optional, tag = "1")] image: Option<Image>,
        #[prost(message, optional, tag = "2")] auth: Option<Auth>,
    }

    Amount { #[prost(uint64, tag = "1")] value: u64, }
    Cpu { #[prost(message, optional, tag = "2")] usage: Option<Amount>, }
    Memory { #[prost(message, optional, tag = "2")] working_set: Option<Amount>, }
    Attributes { #[prost(string, tag = "1")] id: String, }
    Stats {
        #[prost(message, optional, tag = "1")] attributes: Option<Attributes>,
        #[prost(message, optional, tag = "2")] cpu: Option<Cpu>,
        #[prost(message, optional, tag = "3")] memory: Option<Memory>,
    }
    AllStats { #[prost(message, repeated, tag = "1")] all: Vec<Stats>, }
    StatsAnswer { #[prost(message, optional, tag = "1")] stats: Option<Stats>, }
    LinuxStats {
        #[prost(message, optional, tag = "1")] cpu: Option<Cpu>,
        #[prost(message, repeated, tag = "5")] containers: Vec<Stats>,
    }
    SandboxStats { #[prost(message, optional, tag = "2")] linux: Option<LinuxStats>, }
    AllSandboxStats { #[prost(message, repeated, tag = "1")] all: Vec<SandboxStats>, }
    Descriptor {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, repeated, tag = "3")] labels: Vec<String>,
    }
    Descriptors { #[prost(message, repeated, tag = "1")] all: Vec<Descriptor>, }
    Metric {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, repeated, tag = "4")] labels: Vec<String>,
        #[prost(message, optional, tag = "5")] value: Option<Amount>,
    }
    ContainerMetrics {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, repeated, tag = "2")] metrics: Vec<Metric>,
    }
    SandboxMetrics {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, repeated, tag = "2")] metrics: Vec<Metric>,
        #[prost(message, repeated, tag = "3")] containers: Vec<ContainerMetrics>,
    }
    AllMetrics { #[prost(message, repeated, tag = "1")] all: Vec<SandboxMetrics>, }
    SandboxStatsAnswer { #[prost(message, optional, tag = "1")] stats: Option<SandboxStats>, }
    Event {
        #[prost(string, tag = "1")] id: String,
        #[prost(int32, tag = "2")] kind: i32,
        #[prost(message, repeated, tag = "5")] containers: Vec<ContainerStatus>,
    }
}

/// A refusal: its code and its words.
pub(crate) type Refusal = (u16, String);

/// The body of an answer that goes on.
pub(crate) struct Stream {
    body: Incoming,
    buffer: BytesMut,
    connection: tokio::task::JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn refusal(headers: &http::HeaderMap) -> Option<Refusal> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let why = headers.get("grpc-message").map(|why| String::from_utf8_lossy(why.as_bytes()).into_owned());
    (code != 0).then(|| (code, why.unwrap_or_default()))
}

impl Stream {
    /// The next message; none at the end.
    pub(crate) async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Refusal> {
        loop {
            if self.buffer.len() >= 5 {
                let length = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + length {
                    self.buffer.advance(5);
                    return Ok(Some(M::decode(self.buffer.split_to(length).freeze()).unwrap()));
                }
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.unwrap();
            match frame.into_data() {
                Ok(data) => self.buffer.extend_from_slice(&data),
                Err(frame) => {
                    if let Some(refusal) = frame.trailers_ref().and_then(refusal) {
                        return Err(refusal);
                    }
                }
            }
        }
    }
}

/// Begins a call.
pub(crate) async fn begin(socket: &Path, method: &str, request: &impl Message) -> Stream {
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(request.encoded_len()).unwrap());
    request.encode(&mut body).unwrap();
    send(socket, method, body.freeze()).await
}

async fn send(socket: &Path, method: &str, body: Bytes) -> Stream {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    #[allow(clippy::disallowed_methods, reason = "the connection is driven as long as its stream is there")]
    let connection = tokio::spawn(async move { drop(connection.await) });
    let request = Request::post(format!("http://localhost/runtime.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<Bytes>::new(body))
        .unwrap();
    let body = sender.send_request(request).await.unwrap().into_body();
    Stream { body, buffer: BytesMut::new(), connection }
}

/// A call with one answer.
pub(crate) async fn call<A: Message + Default>(
    socket: &Path,
    method: &str,
    request: &impl Message,
) -> Result<A, Refusal> {
    let mut stream = begin(socket, method, request).await;
    match stream.next().await? {
        Some(answer) => Ok(answer),
        None => panic!("{method} has no answer"),
    }
}

/// A call whose body is these bytes; how it is refused.
pub(crate) async fn raw(socket: &Path, method: &str, bytes: &'static [u8]) -> Refusal {
    let mut stream = send(socket, method, Bytes::from_static(bytes)).await;
    match stream.next::<Empty>().await {
        Err(refusal) => refusal,
        Ok(answer) => panic!("{bytes:?} is answered: {answer:?}"),
    }
}

/// How a plain request of a page is answered.
pub(crate) async fn get(url: &str) -> http::StatusCode {
    let uri: http::Uri = url.parse().unwrap();
    let stream = tokio::net::TcpStream::connect(uri.authority().unwrap().as_str()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::get(uri.path()).header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
    let answer = async move { sender.send_request(request).await.unwrap().status() };
    let (status, _) = tokio::join!(answer, connection);
    status
}
