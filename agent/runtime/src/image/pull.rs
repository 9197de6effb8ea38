//! Pulling: reference to manifest to layers, all of them checked, some of them at once.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::{
    Credential, Digest, Error, Image, ImageConfig, ImageStore, LayerRecord, Platform, PullEvent, PullRequest,
    Reference,
    index::{Index, Pin},
    manifest::{Descriptor, Document, Manifest, choose, platforms},
    registry::{RawManifest, RegistryError, Repository},
    store::blocking,
    unpack::{Expected, UnpackError, unpack},
};

/// Layers of one pull that arrive at once, as in containerd.
const PARALLEL: usize = 3;

/// Pieces of a layer between the network and the disk, each at most what one read of a socket gives.
const PIECES: usize = 32;

/// The credential the registry has let in, if it is one of the request's own.
async fn own(request: &PullRequest, repository: &Repository) -> Option<Credential> {
    repository.whose().await.filter(|credential| request.credentials.contains(credential))
}

impl ImageStore {
    /// Pulls an image, or makes sure it is the one its registry has. Of two pulls of one reference the second waits for the
    /// first and finds everything there.
    ///
    /// # Guarantees
    /// The image is in the store whole, or the store is as it was.
    ///
    /// # Errors
    /// The registry's reason ([`Error::Resolve`], [`Error::Fetch`]), or what is wrong with the content or the disk.
    ///
    /// # Cancel safety
    /// A dropped pull leaves nothing behind but whole layers, which [`ImageStore::collect_garbage`] removes.
    pub async fn pull(&self, request: PullRequest) -> Result<Image, Error> {
        self.pull_as(request).await.map(|(image, _)| image)
    }

    /// As [`ImageStore::pull`], and tells which of the request's own credentials the registry let in; none where it lets in
    /// anybody, or who has the standing credentials of `registries.yaml`.
    ///
    /// # Errors
    /// As [`ImageStore::pull`].
    ///
    /// # Cancel safety
    /// As [`ImageStore::pull`].
    pub async fn pull_as(&self, request: PullRequest) -> Result<(Image, Option<Credential>), Error> {
        let _turn = self.inner.pulls.lock(&request.reference).await;
        let (repository, found) = self.resolve(&request).await?;
        let reference = &request.reference;
        let found = match found {
            Found::Image(digest, image) => {
                request.tell(PullEvent::Resolved { digest });
                return Ok((*image, own(&request, &repository).await));
            }
            Found::Manifest(found) => found,
        };
        request.tell(PullEvent::Resolved { digest: found.digest.clone() });
        let content = |reason| Error::Content { image: reference.to_string(), reason };
        let fetch = |source| Error::Fetch { reference: reference.clone(), source: Box::new(source) };
        let manifest = match Document::parse(&found.bytes, &found.media_type).map_err(content)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(entries) => {
                let platform = request.platform.clone().unwrap_or_else(Platform::host);
                let entry = choose(&entries, &platform).ok_or_else(|| Error::Platform {
                    image: reference.to_string(),
                    wanted: platform.to_string(),
                    found: platforms(&entries),
                })?;
                let selector = entry.digest.as_str();
                let inner = repository.manifest(selector, Some(&entry.digest)).await.map_err(fetch)?;
                match Document::parse(&inner.bytes, &entry.media_type).map_err(content)? {
                    Document::Manifest(manifest) => manifest,
                    Document::Index(_) => return Err(content("index within an index".to_owned())),
                }
            }
        };
        let bytes = repository.document(&manifest.config).await.map_err(fetch)?;
        let config = ImageConfig::parse(&bytes).map_err(content)?;
        let diff_ids = config.rootfs.diff_ids.clone();
        if diff_ids.len() != manifest.layers.len() {
            let reason = format!("{} layers, {} diff ids", manifest.layers.len(), diff_ids.len());
            return Err(content(reason));
        }
        let _pin = self.pin(diff_ids.clone()).await?;
        let layers = self.pull_layers(&request, &repository, &manifest, diff_ids).await?;
        let store = self.clone();
        let (tags, digests) = names(reference, &found.digest);
        let credential = own(&request, &repository).await;
        let image = blocking(move || store.inner.index.add(&bytes, config, layers, &tags, &digests)).await??;
        Ok((image, credential))
    }

    /// Asks the mirrors and the registry in order. What the last one says is told: it is the registry itself.
    async fn resolve(&self, request: &PullRequest) -> Result<(Repository, Found), Error> {
        let reference = &request.reference;
        let config = &self.inner.config;
        let mut failure = RegistryError::NotFound(reference.to_string());
        for endpoint in config.registries.endpoints(reference.registry(), reference.repository()) {
            let image = reference.to_string();
            let answer = match Repository::new(endpoint, image, &request.credentials, config.timeouts) {
                Ok(repository) => match self.ask(request, &repository).await {
                    Ok(found) => return Ok((repository, found)),
                    Err(Asked::Registry(error)) => error,
                    Err(Asked::Store(error)) => return Err(error),
                },
                Err(error) => error,
            };
            tracing::debug!(image = %reference, error = &answer as &dyn std::error::Error, "an endpoint does not have the image");
            failure = answer;
        }
        Err(Error::Resolve { reference: reference.clone(), source: Box::new(failure) })
    }

    async fn ask(&self, request: &PullRequest, repository: &Repository) -> Result<Found, Asked> {
        let reference = &request.reference;
        // A digest that is already here needs no registry's confirmation of its content, but of the right to it.
        let digest = match repository.head(reference.selector()).await {
            Ok(digest) => reference.digest().cloned().or(digest),
            // Some registries do not know HEAD.
            Err(RegistryError::Status { .. }) => reference.digest().cloned(),
            Err(error) => return Err(error.into()),
        };
        if let Some(digest) = &digest
            && request.platform.is_none()
            && let Some(image) = self.get(&reference.with_digest(digest.clone()).to_string())
        {
            let store = self.clone();
            let (tags, digests) = names(reference, digest);
            let image = blocking(move || store.inner.index.name(&image.id, &tags, &digests)).await;
            // Removed meanwhile, it is pulled like any other.
            if let Some(image) = image.and_then(|image| image).map_err(Asked::Store)? {
                return Ok(Found::Image(digest.clone(), Box::new(image)));
            }
        }
        let selector = digest.as_ref().map_or(reference.selector(), Digest::as_str);
        Ok(Found::Manifest(repository.manifest(selector, digest.as_ref()).await?))
    }

    async fn pull_layers(
        &self,
        request: &PullRequest,
        repository: &Repository,
        manifest: &Manifest,
        diff_ids: Vec<Digest>,
    ) -> Result<Vec<LayerRecord>, Error> {
        let total = manifest.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.size));
        request.tell(PullEvent::Layers { total });
        // Owned items: with borrowed ones the compiler cannot show that a spawned pull may move between threads.
        futures::stream::iter(manifest.layers.iter().cloned().zip(diff_ids))
            .map(|(descriptor, diff_id)| async move {
                let size = self.pull_layer(request, repository, &descriptor, &diff_id).await?;
                Ok(LayerRecord { diff_id, size })
            })
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    async fn pull_layer(
        &self,
        request: &PullRequest,
        repository: &Repository,
        descriptor: &Descriptor,
        diff_id: &Digest,
    ) -> Result<u64, Error> {
        let _turn = self.inner.layers.lock(diff_id).await;
        if let Some(size) = self.inner.index.layer_size(diff_id) {
            request.tell(PullEvent::LayerExists { diff_id: diff_id.clone(), total: descriptor.size });
            return Ok(size);
        }
        let (sink, pieces) = mpsc::channel(PIECES);
        let expected =
            Expected { blob: Some((descriptor.size, descriptor.digest.clone())), diff_id: Some(diff_id.clone()) };
        let name = request.reference.to_string();
        let unpacked = self.unpack_layer(Pieces { pieces, current: Bytes::new() }, expected, &name);
        let total = descriptor.size;
        let fetched = async {
            let sink = sink;
            repository
                .blob(descriptor, &sink, |received| {
                    request.tell(PullEvent::LayerProgress { diff_id: diff_id.clone(), received, total });
                })
                .await
        };
        // A failed fetch ends the stream early, and a failed unpacking ends the fetch: the one that was not merely
        // interrupted has the reason.
        let (fetched, unpacked) = tokio::join!(fetched, unpacked);
        match fetched {
            Ok(()) | Err(RegistryError::Interrupted) => {}
            Err(source) => {
                return Err(Error::Fetch { reference: request.reference.clone(), source: Box::new(source) });
            }
        }
        let layer = unpacked?;
        request.tell(PullEvent::LayerDone { diff_id: diff_id.clone() });
        Ok(layer.size)
    }

    /// Unpacks a stream into a layer of the store, which is pinned.
    pub(super) async fn unpack_layer(
        &self,
        stream: impl Read + Send + 'static,
        expected: Expected,
        image: &str,
    ) -> Result<LayerRecord, Error> {
        self.unpack_and(stream, expected, image, |_, _| Ok(())).await.map(|(layer, ())| layer)
    }

    /// Unpacks a stream into a layer of the store whose digest is known only then, and pins it.
    pub(super) async fn unpack_unknown(
        &self,
        stream: impl Read + Send + 'static,
        image: &str,
    ) -> Result<(LayerRecord, Pin), Error> {
        let pin = |index: &Index, diff_id: &Digest| index.pin(std::slice::from_ref(diff_id));
        self.unpack_and(stream, Expected::default(), image, pin).await
    }

    async fn unpack_and<T: Send + 'static>(
        &self,
        stream: impl Read + Send + 'static,
        expected: Expected,
        image: &str,
        before_naming: impl FnOnce(&Index, &Digest) -> Result<T, Error> + Send + 'static,
    ) -> Result<(LayerRecord, T), Error> {
        let store = self.clone();
        let image = image.to_owned();
        blocking(move || {
            let index = &store.inner.index;
            let made = index.temporary()?;
            let unpacked = unpack(stream, &expected, &store.inner.config.limits, &made.path().join("fs"));
            let unpacked = unpacked.map_err(|source: UnpackError| Error::Unpack {
                image,
                layer: expected.blob.map(|(_, digest)| digest).or(expected.diff_id).unwrap_or_else(|| Digest::of(b"")),
                source: Box::new(source),
            })?;
            let done = before_naming(index, &unpacked.diff_id)?;
            index.adopt(&made, &unpacked.diff_id, unpacked.size)?;
            Ok((LayerRecord { diff_id: unpacked.diff_id, size: unpacked.size }, done))
        })
        .await?
    }
}

enum Found {
    /// The store has it already.
    Image(Digest, Box<Image>),
    Manifest(RawManifest),
}

enum Asked {
    Registry(RegistryError),
    Store(Error),
}

impl From<RegistryError> for Asked {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

impl PullRequest {
    fn tell(&self, event: PullEvent) {
        if let Some(progress) = &self.progress {
            // Progress is for whoever keeps up with it.
            drop(progress.try_send(event));
        }
    }
}

/// The names an image gets: its tag, unless it was asked for by digest, and its digest.
fn names(reference: &Reference, digest: &Digest) -> (Vec<Reference>, Vec<Reference>) {
    let tags = if reference.digest().is_none() { vec![reference.clone()] } else { Vec::new() };
    (tags, vec![reference.with_digest(digest.clone())])
}

/// Reads what arrives on a channel.
struct Pieces {
    pieces: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        self.current.split_to(count).copy_to_slice(buffer.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
