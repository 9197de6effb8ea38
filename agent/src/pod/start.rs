//! Starting one container: image, configuration, process, `postStart`. What fails becomes a reason the status shows.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use coracle_runtime::image::{self, Image, Keyring, PullRequest, Reference};
use coracle_runtime::{ContainerId, PidNamespace, Sandbox};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::container_spec::{Ingredients, SpecError, container_spec};
use super::environment::{self, Downward, Objects};
use super::facts::Waiting;
use super::lifecycle;
use crate::claims;
use crate::context::Context;
use crate::event::Kind;
use crate::figures::Operation;
use crate::volume::set::PodDir;
use crate::volume::{self, set};

mod progress;

/// Steps of a pull that wait to be counted: some more than layers arrive at once.
const PROGRESS: usize = 64;

/// Why a container did not start, as its status says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The image cannot be had: `ErrImagePull`, `InvalidImageName`, `ErrImageNeverPull`.
    Image(Waiting),
    /// What it needs is not there or not allowed: `CreateContainerConfigError`, `CreateContainerError`.
    Config(Waiting),
    /// Its process could not be run: `RunContainerError`. The attempt exists and has exited.
    Run(Waiting),
    /// `postStart` failed: the container is to be stopped.
    PostStart {
        /// The container's id.
        id: String,
        /// The words for the event.
        message: String,
    },
    /// The pod ended meanwhile.
    Cancelled,
}

/// The container whose processes another one is to see.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) name: String,
    /// Its id, if it is running.
    pub(crate) id: Option<ContainerId>,
}

/// What an image is for.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The container's root.
    Container,
    /// A volume of the pod.
    Volume,
}

/// What starting needs.
#[derive(Clone)]
pub(crate) struct Start {
    /// The agent.
    pub(crate) context: Arc<Context>,
    /// The pod.
    pub(crate) pod: Arc<Pod>,
    /// Its sandbox.
    pub(crate) sandbox: Sandbox,
    /// Its addresses.
    pub(crate) ips: Vec<IpAddr>,
    /// The container.
    pub(crate) container: Container,
    /// Whose processes it is to see, if not the pod's or its own.
    pub(crate) target: Option<Target>,
    /// The restart count.
    pub(crate) attempt: u32,
    /// The round it begins in.
    pub(crate) round: Option<Timestamp>,
    /// The pod's volumes on the host.
    pub(crate) volumes: BTreeMap<String, PathBuf>,
    /// What its environment refers to.
    pub(crate) objects: Objects,
    /// Ends a pull when the pod ends.
    pub(crate) cancel: CancellationToken,
}

/// An error and all that caused it, in one line.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = next.source();
    }
    text
}

/// What the downward API may tell of a pod with these addresses.
pub(crate) fn downward(context: &Context, ips: &[IpAddr]) -> Downward {
    Downward {
        host_ips: context.host.ips.iter().map(ToString::to_string).collect(),
        pod_ips: ips.iter().map(ToString::to_string).collect(),
        allocatable: context.allocatable.clone(),
    }
}

impl Start {
    fn event(&self, kind: Kind, reason: &'static str, message: String) {
        self.context.events.pod(&self.pod, Some(&self.container.name), kind, reason, message);
    }

    /// Of an image: the container's own, or one of the pod's volumes.
    fn image_event(&self, of: Of, kind: Kind, reason: &'static str, message: String) {
        let container = match of {
            Of::Container => Some(self.container.name.as_str()),
            Of::Volume => None,
        };
        self.context.events.pod(&self.pod, container, kind, reason, message);
    }

    fn config_failure(&self, reason: &str, message: String) -> Failure {
        self.event(Kind::Warning, "Failed", format!("Error: {message}"));
        Failure::Config(Waiting { reason: reason.to_owned(), message })
    }

    /// Starts the container; answers its id.
    pub(crate) async fn run(self) -> Result<String, Failure> {
        let policy = self.container.image_pull_policy.as_deref();
        let (image, name) =
            self.claimed_image(self.container.image.as_deref().unwrap_or_default(), policy, Of::Container).await?;
        let image_volumes = self.image_volumes().await?;
        let services: Vec<_> = self.context.services().values().cloned().collect();
        let services = environment::service_variables(&self.pod, services.iter());
        let downward = downward(&self.context, &self.ips);
        let mut objects = self.objects.clone();
        objects.files = self.env_files().await;
        let env = environment::environment(&self.pod, &self.container, &objects, &services, &downward)
            .map_err(|e| self.config_failure("CreateContainerConfigError", e.to_string()))?;

        let dir = PodDir::new(&self.context.config.pods_dir(), super::uid(&self.pod));
        let termination_log = dir.termination_log(&self.container.name, self.attempt);
        let sub_paths = {
            let (dir, container, volumes) = (dir.clone(), self.container.clone(), self.volumes.clone());
            let (env, log) = (env.clone(), termination_log.clone());
            blocking(move || {
                make_termination_log(&log)?;
                set::sub_paths(&dir, &container, &volumes, &env)
            })
            .await
            .map_err(|e| {
                let why =
                    format!("failed to prepare subPath for volumeMount of container \"{}\": {e}", self.container.name);
                self.config_failure("CreateContainerConfigError", why)
            })?
        };
        let devices = self
            .context
            .devices
            .of(&self.pod, &self.container)
            .map_err(|e| self.config_failure("CreateContainerConfigError", chain(&e)))?;
        let etc =
            [("hosts", dir.etc("hosts")), ("hostname", dir.etc("hostname")), ("resolv.conf", dir.etc("resolv.conf"))];
        let ingredients = Ingredients {
            image: &image.config,
            image_name: name,
            image_id: image.image_id(),
            layers: self.context.images.lower_dirs(&image),
            env,
            volumes: &self.volumes,
            image_volumes: &image_volumes,
            sub_paths: &sub_paths,
            devices: &devices,
            etc: &etc,
            termination_log,
            seccomp_dir: &self.context.config.seccomp_dir(),
            node_memory: self.context.memory,
            attempt: self.attempt,
            round: self.round,
        };
        let mut spec = container_spec(&self.pod, &self.container, &ingredients).map_err(|e| match e {
            SpecError::Security(_) | SpecError::NoVolume { .. } => {
                self.config_failure("CreateContainerConfigError", e.to_string())
            }
            SpecError::NoCommand | SpecError::VolumeDevices { .. } => {
                self.config_failure("CreateContainerError", e.to_string())
            }
        })?;
        if let Some(target) = &self.target {
            let missing = || format!("unable to find target container \"{}\"", target.name);
            let id = target.id.clone();
            let id = id.ok_or_else(|| self.config_failure("CreateContainerConfigError", missing()))?;
            spec.pid = Some(PidNamespace::Target(id));
        }
        if self.cancel.is_cancelled() {
            return Err(Failure::Cancelled);
        }
        let starting = self.sandbox.start_container(&spec);
        match self.context.figures.operation(Operation::StartContainer, starting).await {
            Ok(status) => {
                let container = &self.container.name;
                self.event(Kind::Normal, "Created", format!("Created container: {container}"));
                self.event(Kind::Normal, "Started", format!("Started container {container}"));
                let id = status.id;
                if let Some(hook) = self.container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) {
                    let target = lifecycle::Place {
                        sandbox: &self.sandbox,
                        container: &self.container,
                        id: &id,
                        ip: self.ips.first().copied(),
                    };
                    if let Err(why) = lifecycle::run(hook, &target, lifecycle::POST_START).await {
                        self.event(Kind::Warning, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
                        return Err(Failure::PostStart {
                            id: id.to_string(),
                            message: format!("FailedPostStartHook: Container {container} failed its postStart hook"),
                        });
                    }
                }
                Ok(id.to_string())
            }
            Err(coracle_runtime::Error::Start(error)) => {
                self.event(Kind::Warning, "Failed", format!("Error: {error}"));
                Err(Failure::Run(Waiting { reason: "RunContainerError".into(), message: error.to_string() }))
            }
            Err(error) => Err(self.config_failure("CreateContainerError", chain(&error))),
        }
    }

    /// The files of variables the container refers to, as they are now.
    async fn env_files(&self) -> environment::Files {
        let wanted = environment::files_of(&self.container);
        if wanted.is_empty() {
            return environment::Files::new();
        }
        let volumes = self.volumes.clone();
        let read = move || {
            let read = |(volume, path): (String, String)| {
                let text = match volumes.get(&volume) {
                    Some(root) => volume::sub_path::read(root, &path).map_err(|error| chain(&error)),
                    None => Err(format!("cannot find the volume {volume:?} referenced by FileKeyRef")),
                };
                ((volume, path), text)
            };
            wanted.into_iter().map(read).collect()
        };
        match tokio::task::spawn_blocking(read).await {
            Ok(files) => files,
            Err(error) => {
                tracing::error!(error = &error as &(dyn StdError + 'static), "reading files of variables failed");
                environment::Files::new()
            }
        }
    }

    /// The layers of the image volumes the container mounts, by the volumes' names (KEP-4639).
    async fn image_volumes(&self) -> Result<BTreeMap<String, Vec<PathBuf>>, Failure> {
        let mut found = BTreeMap::new();
        for volume in volume::volumes(&self.pod) {
            let mounted = self.container.volume_mounts.iter().flatten().any(|m| m.name == volume.name);
            let Some(source) = volume.image.as_ref().filter(|_| mounted) else { continue };
            let asked = source.reference.as_deref().unwrap_or_default();
            let (image, _) = self.claimed_image(asked, source.pull_policy.as_deref(), Of::Volume).await?;
            found.insert(volume.name.clone(), self.context.images.lower_dirs(&image));
        }
        Ok(found)
    }

    /// An image, which nobody removes any more, and its full name.
    async fn claimed_image(&self, asked: &str, policy: Option<&str>, of: Of) -> Result<(Image, String), Failure> {
        let owner = claims::owner(&self.context.config.mark, super::uid(&self.pod));
        let (mut image, mut name) = self.image(asked, policy, of).await?;
        for again in [true, false] {
            match self.context.images.claim_also(&owner, &image.id).await {
                Ok(true) => return Ok((image, name)),
                // Removed between the two: then it is not present, and pulled.
                Ok(false) if again => (image, name) = self.image(asked, policy, of).await?,
                Ok(false) => {}
                Err(error) => return Err(self.config_failure("CreateContainerError", chain(&error))),
            }
        }
        let message = format!("image {name} was removed while the container was being made");
        Err(self.config_failure("CreateContainerError", message))
    }

    /// An image, pulled if the policy says so, and its full name.
    async fn image(&self, asked: &str, policy: Option<&str>, of: Of) -> Result<(Image, String), Failure> {
        let failure = |reason: &str, message: String| Failure::Image(Waiting { reason: reason.to_owned(), message });
        let reference: Reference = match asked.parse() {
            Ok(reference) => reference,
            Err(error) => {
                let message = format!(
                    "Failed to apply default image tag \"{asked}\": couldn't parse image name \"{asked}\": {error}"
                );
                self.image_event(of, Kind::Warning, "InspectFailed", message.clone());
                self.image_event(of, Kind::Warning, "Failed", "Error: InvalidImageName".into());
                return Err(failure("InvalidImageName", message));
            }
        };
        let name = reference.to_string();
        let policy = policy.unwrap_or("IfNotPresent");
        let present = self.context.images.get(&name).filter(|_| policy != "Always");
        let credentials = self.keyring().lookup(&reference);
        let may = |image: &Image| self.context.image_rights.may(&reference, &image.id.to_string(), &credentials);
        match (policy, present) {
            (_, Some(image)) if may(&image) => {
                let message =
                    format!("Container image \"{asked}\" already present on machine and can be accessed by the pod");
                self.image_event(of, Kind::Normal, "Pulled", message);
                return Ok((image, name));
            }
            ("Always" | "IfNotPresent", _) => {}
            // Who may not use an image learns nothing of its being here.
            (_, _) => {
                let message = format!("Container image \"{asked}\" is not present with pull policy of Never");
                self.image_event(of, Kind::Warning, "ErrImageNeverPull", message.clone());
                self.image_event(of, Kind::Warning, "Failed", "Error: ErrImageNeverPull".into());
                return Err(failure("ErrImageNeverPull", message));
            }
        }
        self.image_event(of, Kind::Normal, "Pulling", format!("Pulling image \"{asked}\""));
        let begin = Instant::now();
        let pulled = async {
            let _permit = self.context.pulls.acquire().await.map_err(|_| image::Error::Interrupted)?;
            let waited = begin.elapsed();
            let (rights, begun) = (Arc::clone(&self.context.image_rights), reference.clone());
            let pull = noted(move || rights.begin(&begun)).await?;
            let (progress, events) = mpsc::channel(PROGRESS);
            let request = PullRequest { credentials, progress: Some(progress), ..PullRequest::new(reference) };
            let tell = |shown| {
                self.image_event(of, Kind::Normal, "Pulling", format!("Pulling image \"{asked}\": {shown}"));
            };
            // What is told ends with the pull.
            let pulling =
                async { tokio::join!(self.context.images.pull_as(request), progress::follow(events, tell)).0 };
            let (image, credential) = self.context.figures.operation(Operation::PullImage, pulling).await?;
            let id = image.id.to_string();
            noted(move || pull.done(&id, credential.as_ref())).await?;
            Ok::<_, image::Error>((image, waited))
        };
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return Err(Failure::Cancelled),
            result = pulled => result,
        };
        match result {
            Ok((image, waited)) => {
                self.context.images_changed.notify_one();
                let all = begin.elapsed();
                let message = format!(
                    "Successfully pulled image \"{asked}\" in {} ({} including waiting). Image size: {} bytes.",
                    seconds(all.saturating_sub(waited)),
                    seconds(all),
                    image.size
                );
                self.image_event(of, Kind::Normal, "Pulled", message);
                Ok((image, name))
            }
            Err(error) => {
                let why = chain(&error);
                self.image_event(of, Kind::Warning, "Failed", format!("Failed to pull image \"{asked}\": {why}"));
                self.image_event(of, Kind::Warning, "Failed", "Error: ErrImagePull".into());
                Err(failure("ErrImagePull", why))
            }
        }
    }

    fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        let secrets = super::spec(&self.pod).0.and_then(|s| s.image_pull_secrets.as_deref()).unwrap_or_default();
        for reference in secrets {
            let Some(secret) = self.objects.secrets.get(&reference.name) else { continue };
            for (key, value) in secret.data.iter().flatten() {
                let added = match key.as_str() {
                    ".dockerconfigjson" => keyring.add_dockerconfigjson(&value.0),
                    ".dockercfg" => keyring.add_dockercfg(&value.0),
                    _ => Ok(()),
                };
                if let Err(error) = added {
                    let message = format!("Unable to use image pull secret {}: {}", reference.name, chain(&error));
                    self.event(Kind::Warning, "FailedToRetrieveImagePullSecret", message);
                }
            }
        }
        keyring
    }
}

/// Notes something of images, on a blocking thread.
async fn noted<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, image::Error> + Send + 'static,
) -> Result<T, image::Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| image::Error::Interrupted)?
}

fn seconds(duration: std::time::Duration) -> String {
    if duration.as_secs() == 0 {
        format!("{}ms", duration.as_millis())
    } else {
        format!("{:.3}s", duration.as_secs_f64())
    }
}

fn make_termination_log(path: &std::path::Path) -> Result<(), crate::volume::Error> {
    use std::os::unix::fs::PermissionsExt;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| crate::volume::Error::io("make", parent, e))?;
    }
    std::fs::write(path, b"").map_err(|e| crate::volume::Error::io("create", path, e))?;
    // Whoever the container runs as may leave a message.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))
        .map_err(|e| crate::volume::Error::io("set mode of", path, e))
}

/// Runs file-system work on a blocking thread; its error becomes one line.
pub(crate) async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, String>
where
    T: Send + 'static,
    E: StdError + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(chain(&error)),
        Err(error) => Err(error.to_string()),
    }
}
