//! The image service, over the node's own store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::image::{self, Credential, Keyring, PullRequest, Reference};
use serde_json::json;

use super::messages::{
    AuthConfig, FilesystemIdentifier, FilesystemUsage, Image, ImageFilter, ImageFsInfoResponse, ImageSpec,
    ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest, ListImagesResponse, Nothing,
    PullImageRequest, PullImageResponse, RemoveImageRequest, Uint64Value,
};
use super::{Front, failed, invalid, nanoseconds};
use crate::pod::start::chain;

/// The image store's errors in the codes that clients of this interface know.
pub(super) fn refused(error: &image::Error) -> Refusal {
    let code = match error {
        error if error.is_not_found() => Code::NotFound,
        error if error.is_invalid_name() => Code::InvalidArgument,
        image::Error::InUse { .. } => Code::FailedPrecondition,
        image::Error::Locked { .. } | image::Error::Interrupted => Code::Unavailable,
        _ => Code::Unknown,
    };
    Refusal(code, chain(error))
}

fn name_of(spec: Option<&ImageSpec>) -> Result<&str> {
    let name = spec.map(|spec| spec.image.as_str()).unwrap_or_default();
    if name.is_empty() { Err(invalid("image name is required")) } else { Ok(name) }
}

/// An image as the interface shows it.
fn shown(image: &image::Image) -> Image {
    let user = image.config.config.user.split(':').next().unwrap_or_default();
    let uid = if user.is_empty() { Some(0) } else { user.parse::<u32>().ok() };
    Image {
        id: image.id.to_string(),
        repo_tags: image.repo_tags.clone(),
        repo_digests: image.repo_digests.clone(),
        size: image.size,
        uid: uid.map(|uid| Int64Value { value: uid.into() }),
        username: if uid.is_some() { String::new() } else { user.to_owned() },
        spec: None,
        pinned: false,
    }
}

pub(super) async fn list(front: &Front, request: ListImagesRequest) -> Result<ListImagesResponse> {
    let filter = request.filter.and_then(|ImageFilter { image }| image).filter(|spec| !spec.image.is_empty());
    let images = match filter {
        Some(spec) => front.context.images.get(&spec.image).into_iter().collect(),
        None => front.context.images.list(),
    };
    Ok(ListImagesResponse { images: images.iter().map(shown).collect() })
}

/// An image that is not there is no error: the answer has none.
pub(super) async fn status(front: &Front, request: ImageStatusRequest) -> Result<ImageStatusResponse> {
    let found = front.context.images.get(name_of(request.image.as_ref())?);
    let mut info = BTreeMap::new();
    if let (true, Some(image)) = (request.verbose, &found) {
        info.insert("info".to_owned(), json!({"imageSpec": *image.config}).to_string());
    }
    Ok(ImageStatusResponse { image: found.as_ref().map(shown), info })
}

pub(super) async fn pull(front: &Front, request: PullImageRequest) -> Result<PullImageResponse> {
    let name = name_of(request.image.as_ref())?;
    let reference: Reference =
        name.parse().map_err(|source| refused(&image::Error::Reference { text: name.to_owned(), source }))?;
    let mut pull = PullRequest::new(reference.clone());
    if let Some(auth) = &request.auth {
        pull.credentials = credentials(auth, &reference)?;
    }
    let _permit = front.context.pulls.acquire().await.map_err(|error| failed(&error))?;
    let image = front.context.images.pull(pull).await.map_err(|error| refused(&error))?;
    front.context.images_changed.notify_one();
    Ok(PullImageResponse { image_ref: image.id.to_string() })
}

/// The credentials of an `AuthConfig`, if they are for the image's registry.
fn credentials(auth: &AuthConfig, reference: &Reference) -> Result<Vec<Credential>> {
    if !auth.identity_token.is_empty() || !auth.registry_token.is_empty() {
        let why = "identity and registry tokens are not supported: give a user's name and password";
        return Err(Refusal(Code::Unimplemented, why.to_owned()));
    }
    let encoded = if !auth.username.is_empty() {
        STANDARD.encode(format!("{}:{}", auth.username, auth.password))
    } else if auth.auth.is_empty() {
        // An empty configuration is what clients send that have none.
        return if auth.password.is_empty() { Ok(Vec::new()) } else { Err(invalid("invalid auth config")) };
    } else {
        auth.auth.clone()
    };
    let registry = if auth.server_address.is_empty() { reference.registry() } else { &auth.server_address };
    let mut keyring = Keyring::default();
    let config = json!({"auths": {registry: {"auth": encoded}}}).to_string();
    keyring.add_dockerconfigjson(config.as_bytes()).map_err(|error| invalid(chain(&error)))?;
    Ok(keyring.lookup(reference))
}

/// Removes the image with all its names, whichever was given. One that is not there is removed.
pub(super) async fn remove(front: Arc<Front>, request: RemoveImageRequest) -> Result<Nothing> {
    let images = &front.context.images;
    let Some(image) = images.get(name_of(request.image.as_ref())?) else { return Ok(Nothing {}) };
    let none = BTreeSet::new();
    match images.remove(&image.id.to_string(), &none).await {
        Ok(()) | Err(image::Error::NotFound(_)) => {}
        Err(error) => return Err(refused(&error)),
    }
    images.collect_garbage(&none, false).await.map_err(|error| refused(&error))?;
    Ok(Nothing {})
}

/// Images and containers' writable layers lie on the same file system, below the agent's data.
pub(super) async fn file_systems(front: &Front) -> Result<ImageFsInfoResponse> {
    let dir = &front.context.config.images_dir;
    let usage = front.context.images.usage();
    let images = FilesystemUsage {
        timestamp: nanoseconds(SystemTime::now()),
        fs_id: Some(FilesystemIdentifier { mountpoint: dir.display().to_string() }),
        used_bytes: Some(Uint64Value { value: usage.bytes }),
        inodes_used: None,
    };
    let layers = front.context.runtime.config().root.join("sandboxes");
    let containers = super::stats::file_system(layers).await?;
    Ok(ImageFsInfoResponse { image_filesystems: vec![images], container_filesystems: vec![containers] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(auth: AuthConfig) -> std::result::Result<Vec<(String, String)>, Code> {
        let reference = "localhost:5000/a/b:1".parse().unwrap();
        let found = credentials(&auth, &reference).map_err(|Refusal(code, _)| code)?;
        Ok(found.into_iter().map(|found| (found.username, found.password)).collect())
    }

    #[test]
    fn credentials_are_used_for_the_registry_they_are_for() {
        let named = |server: &str| AuthConfig {
            username: "u".to_owned(),
            password: "p:q".to_owned(),
            server_address: server.to_owned(),
            ..AuthConfig::default()
        };
        let whole = Ok(vec![("u".to_owned(), "p:q".to_owned())]);
        assert_eq!(check(named("")), whole);
        assert_eq!(check(named("http://localhost:5000")), whole);
        assert_eq!(check(named("example.com")), Ok(vec![]));
        let auth = |text: &str| AuthConfig { auth: text.to_owned(), ..AuthConfig::default() };
        assert_eq!(check(auth("dTpwOnE=")), whole);
        assert_eq!(check(auth("no base64!")), Err(Code::InvalidArgument));
        assert_eq!(check(AuthConfig::default()), Ok(vec![]));
        let token = AuthConfig { identity_token: "t".to_owned(), ..AuthConfig::default() };
        assert_eq!(check(token), Err(Code::Unimplemented));
    }
}
