//! Images and registries made on the spot, for tests.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use super::Digest;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A small image and all its blobs.
#[derive(Clone)]
pub(super) struct Fixture {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    manifest_digest: Digest,
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Text that compresses to no less than half.
pub(super) fn noise(length: usize) -> String {
    let mut text = String::with_capacity(length + 64);
    for number in 0_u64.. {
        if text.len() >= length {
            break;
        }
        text.push_str(Digest::of(&number.to_le_bytes()).hex());
    }
    text
}

/// A directory as an archive.
pub(super) fn layer_of(directory: &Path) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    builder.follow_symlinks(false);
    builder.append_dir_all(".", directory).unwrap();
    builder.into_inner().unwrap()
}

impl Fixture {
    /// An image with these files in each layer; the layers are plain, gzip and zstd in turn.
    pub(super) fn new(layers: &[&[(&str, &str)]]) -> Self {
        let mut plain = Vec::new();
        let mut blobs = BTreeMap::new();
        let mut descriptors = Vec::new();
        for (at, files) in layers.iter().enumerate() {
            let mut builder = tar::Builder::new(Vec::new());
            for (path, text) in *files {
                let mut header = tar::Header::new_gnu();
                header.set_mode(0o644);
                header.set_size(text.len() as u64);
                builder.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
            let tar = builder.into_inner().unwrap();
            let blob = match at % 3 {
                0 => gzip(&tar),
                1 => ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest),
                _ => tar.clone(),
            };
            let digest = Digest::of(&blob);
            descriptors.push(serde_json::json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": blob.len()}));
            blobs.insert(digest, blob);
            plain.push(tar);
        }
        let diff_ids: Vec<Digest> = plain.iter().map(|tar| Digest::of(tar)).collect();
        let host = super::Platform::host();
        let config = serde_json::to_vec(&serde_json::json!({
            "architecture": host.architecture, "os": "linux",
            "config": {"Entrypoint": ["/bin/app"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }))
        .unwrap();
        let config_digest = Digest::of(&config);
        let manifest = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config_digest, "size": config.len()},
            "layers": descriptors,
        }))
        .unwrap();
        blobs.insert(config_digest, config.clone());
        let manifest_digest = Digest::of(&manifest);
        Self { layers: plain, config, manifest, blobs, manifest_digest }
    }

    pub(super) fn config_digest(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub(super) fn manifest_digest(&self) -> Digest {
        self.manifest_digest.clone()
    }

    /// Makes one part something else than its digest says.
    pub(super) fn spoil(&mut self, part: &str) {
        let config = self.config_digest();
        match part {
            "manifest" => self.manifest.push(b' '),
            "config" => *self.blobs.get_mut(&config).unwrap().last_mut().unwrap() = b' ',
            other => {
                let layer = self.blobs.iter_mut().find(|(digest, _)| **digest != config).unwrap().1;
                match other {
                    // A gzip header's time stamp: the content stays what it was.
                    "layer" => layer[5] ^= 1,
                    _ => layer.extend_from_slice(b"more"),
                }
            }
        }
    }

    pub(super) fn serve(&self) -> Server {
        let content = self.clone();
        Server::start(move |request| content.answer(request))
    }

    /// What a registry answers.
    pub(super) fn answer(&self, request: &Request) -> Reply {
        let path = request.path.split('?').next().unwrap();
        let reply = if path.contains("/manifests/") {
            Reply::bytes(MANIFEST, self.manifest.clone()).header("Docker-Content-Digest", self.manifest_digest.as_str())
        } else {
            let digest = path.rsplit('/').next().unwrap();
            match digest.parse().ok().and_then(|digest: Digest| self.blobs.get(&digest)) {
                Some(blob) => Reply::bytes("application/octet-stream", blob.clone()),
                None => return Reply::status(404),
            }
        };
        let start =
            request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
        match start {
            Some(start) => reply.from(start),
            None => reply,
        }
    }

    pub(super) fn write_layout(&self, directory: &Path, name: &str) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for (digest, bytes) in &self.blobs {
            std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        }
        std::fs::write(blobs.join(self.manifest_digest.hex()), &self.manifest).unwrap();
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST, "digest": self.manifest_digest, "size": self.manifest.len(),
            "annotations": {"org.opencontainers.image.ref.name": "v1", "io.containerd.image.name": name},
        }]});
        std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }

    pub(super) fn docker_archive(&self, tag: &str) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |path: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, bytes).unwrap();
        };
        let names: Vec<String> = (0..self.layers.len()).map(|at| format!("{at}/layer.tar")).collect();
        for (name, layer) in names.iter().zip(&self.layers) {
            add(name, layer);
        }
        let config = format!("{}.json", self.config_digest().hex());
        add(&config, &self.config);
        let manifest = serde_json::json!([{"Config": config, "RepoTags": [tag], "Layers": names}]);
        add("manifest.json", manifest.to_string().as_bytes());
        builder.into_inner().unwrap()
    }
}

/// One request as it came.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(super) fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap().split(' ');
        let (method, path) = (first.next().unwrap().to_owned(), first.next().unwrap_or_default().to_owned());
        let headers = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(key, value)| (key.to_lowercase(), value.to_owned()))
            .collect();
        Self { method, path, headers }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// One answer, or a part of it.
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Stop after this many bytes of the body.
    stop: Option<usize>,
    /// Keep the connection open instead of closing it there.
    hang: bool,
    silent: bool,
}

impl Reply {
    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new(), stop: None, hang: false, silent: false }
    }

    pub(super) fn bytes(kind: &str, body: Vec<u8>) -> Self {
        Self { body, ..Self::status(200) }.header("Content-Type", kind)
    }

    pub(super) fn json(text: &str) -> Self {
        Self::bytes("application/json", text.as_bytes().to_vec())
    }

    pub(super) fn hang() -> Self {
        Self { silent: true, hang: true, ..Self::status(200) }
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn length(&self) -> usize {
        self.body.len()
    }

    pub(super) fn cut_after(mut self, bytes: usize) -> Self {
        self.stop = Some(bytes);
        self
    }

    pub(super) fn hang_after(mut self, bytes: usize) -> Self {
        self.hang = true;
        self.cut_after(bytes)
    }

    fn from(mut self, start: usize) -> Self {
        self.body.drain(..start);
        self.status = 206;
        self
    }

    fn send(&self, stream: &mut TcpStream, head_only: bool) -> std::io::Result<()> {
        if self.silent {
            return Ok(());
        }
        let mut head =
            format!("HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {}\r\n", self.status, self.body.len());
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes())?;
        if !head_only {
            stream.write_all(&self.body[..self.stop.unwrap_or(self.body.len()).min(self.body.len())])?;
        }
        stream.flush()
    }
}

/// An HTTP server on loopback that ends when dropped.
pub(super) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (log, ended) = (Arc::clone(&requests), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut held = Vec::new();
            std::thread::scope(|scope| {
                while let Ok((mut stream, _)) = listener.accept() {
                    if ended.load(Ordering::SeqCst) {
                        break;
                    }
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                        head.push(byte[0]);
                    }
                    let request = Request::parse(&String::from_utf8_lossy(&head));
                    log.lock().unwrap().push(request.clone());
                    let reply = handler(&request);
                    let head_only = request.method == "HEAD";
                    if reply.hang {
                        reply.send(&mut stream, head_only).ok();
                        held.push(stream);
                    } else {
                        scope.spawn(move || reply.send(&mut stream, head_only));
                    }
                }
            });
        });
        Self { address, requests, over, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}
