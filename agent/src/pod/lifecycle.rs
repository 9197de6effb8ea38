//! Hooks of a container's lifecycle (`postStart`, `preStop`), and commands run for probes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use coracle_runtime::{ContainerId, Error, ExecSpec, Sandbox, Signal};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use super::probe::{self, Commands, Outcome, Target};

/// How long `postStart` may take; Kubernetes sets no bound, and a hook that hangs would hang its pod for ever.
pub(crate) const POST_START: Duration = Duration::from_secs(600);
/// How much a hook or probe may say.
const OUTPUT: usize = 10 << 10;

/// Where a hook runs.
pub(crate) struct Place<'a> {
    /// The pod's sandbox.
    pub(crate) sandbox: &'a Sandbox,
    /// The container.
    pub(crate) container: &'a Container,
    /// Its attempt's id.
    pub(crate) id: &'a ContainerId,
    /// The pod's address.
    pub(crate) ip: Option<IpAddr>,
}

/// Runs a hook to its end, at most for `limit`.
///
/// # Errors
/// A sentence for the event.
pub(crate) async fn run(hook: &LifecycleHandler, place: &Place<'_>, limit: Duration) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    let outcome = if let Some(exec) = &hook.exec {
        let commands = InContainer { sandbox: place.sandbox.clone(), id: place.id.clone() };
        commands.run(exec.command.clone().unwrap_or_default(), limit).await
    } else if let Some(get) = &hook.http_get {
        let counts = Arc::default();
        let target = Target { container: place.container.clone(), id: place.id.to_string(), ip: place.ip, counts };
        probe::http_hook(&target, get, limit).await
    } else {
        // A TCP socket is a hook in the API only: kubelet does nothing for it either.
        return Ok(());
    };
    match outcome {
        Outcome::Success => Ok(()),
        Outcome::Failure(why) | Outcome::Error(why) => Err(why),
    }
}

/// A signal by the name the API has for it, whatever an image calls it; none for one that is none.
pub(crate) fn signal_shown(name: &str) -> Option<String> {
    /// The first and the last of the real-time ones (signal(7), as glibc numbers them), and from where on they are named by
    /// their distance from the last.
    const REAL_TIME: (i32, i32, i32) = (34, 64, 50);
    let (first, last, turn) = REAL_TIME;
    let number = Signal::parse(if name.is_empty() { "SIGTERM" } else { name })?.0;
    match number {
        number if number == first => Some("SIGRTMIN".to_owned()),
        number if number == last => Some("SIGRTMAX".to_owned()),
        number if (first..turn).contains(&number) => Some(format!("SIGRTMIN+{}", number - first)),
        number if (turn..last).contains(&number) => Some(format!("SIGRTMAX-{}", last - number)),
        number => nix::sys::signal::Signal::try_from(number).ok().map(|signal| signal.as_str().to_owned()),
    }
}

/// Runs commands in one container.
#[derive(Clone, Debug)]
pub(crate) struct InContainer {
    /// The pod's sandbox.
    pub(crate) sandbox: Sandbox,
    /// The container.
    pub(crate) id: ContainerId,
}

impl Commands for InContainer {
    async fn run(&self, argv: Vec<String>, timeout: Duration) -> Outcome {
        let shown = argv.join(" ");
        let spec = ExecSpec { argv, ..ExecSpec::default() };
        match self.sandbox.exec_collect(&self.id, &spec, timeout, OUTPUT).await {
            Ok(output) if output.code == 0 => Outcome::Success,
            Ok(output) => Outcome::Failure(String::from_utf8_lossy(&output.output).into_owned()),
            Err(Error::ExecTimeout { .. }) => {
                Outcome::Failure(format!("command timed out: \"{shown}\" timed out after {timeout:?}"))
            }
            // A program that is not there fails the probe; a container that is gone says nothing of it.
            Err(error @ Error::Exec(_)) => Outcome::Failure(super::start::chain(&error)),
            Err(error) => Outcome::Error(super::start::chain(&error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_of_the_api() {
        for (name, want) in [
            ("", Some("SIGTERM")),
            ("SIGTERM", Some("SIGTERM")),
            ("QUIT", Some("SIGQUIT")),
            ("3", Some("SIGQUIT")),
            ("SIGRTMIN", Some("SIGRTMIN")),
            ("RTMIN+3", Some("SIGRTMIN+3")),
            ("RTMIN+16", Some("SIGRTMAX-14")),
            ("SIGRTMAX-1", Some("SIGRTMAX-1")),
            ("SIGRTMAX", Some("SIGRTMAX")),
            ("SIGNONE", None),
        ] {
            assert_eq!(signal_shown(name).as_deref(), want, "{name}");
        }
    }
}
