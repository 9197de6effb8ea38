//! Security contexts: what the pod and the container say together, as the runtime's words.

use std::path::Path;

use coracle_runtime::{CapabilityChange, DEFAULT_APPARMOR_PROFILE, SeccompProfile, User};
use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod, SeccompProfile as ApiSeccomp, SecurityContext};

use super::spec;

/// Why a container may not run as asked; the words are kubelet's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SecurityError {
    /// `runAsNonRoot` and `runAsUser: 0`.
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RunAsUser {
        /// `name_namespace(uid)`.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot` and an image whose user is root.
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    ImageRoot {
        /// `name_namespace(uid)`.
        pod: String,
        /// The container.
        container: String,
    },
    /// `runAsNonRoot` and an image whose user is a name.
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    ImageUserName {
        /// The image's user.
        user: String,
        /// `name_namespace(uid)`.
        pod: String,
        /// The container.
        container: String,
    },
    /// A number that is no user or group id.
    #[error("{field} {value} is not a user or group id")]
    Id {
        /// The field.
        field: &'static str,
        /// What it says.
        value: i64,
    },
    /// A profile of a kind that is not known.
    #[error("seccomp profile type {kind:?} is not supported")]
    Seccomp {
        /// The kind.
        kind: String,
    },
}

/// Everything a security context decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Security {
    /// As whom.
    pub(crate) user: User,
    /// Groups besides.
    pub(crate) groups: Vec<u32>,
    /// Only these groups, not those of the image's `/etc/group`.
    pub(crate) strict_groups: bool,
    /// Capabilities added and dropped.
    pub(crate) capabilities: CapabilityChange,
    /// Everything is allowed.
    pub(crate) privileged: bool,
    /// Executing a file grants nothing.
    pub(crate) no_new_privileges: bool,
    /// The root cannot be written.
    pub(crate) readonly_rootfs: bool,
    /// Which system calls are allowed.
    pub(crate) seccomp: SeccompProfile,
    /// The AppArmor profile, by its name on the host.
    pub(crate) apparmor: Option<String>,
    /// `procMount: Unmasked`.
    pub(crate) unmasked: bool,
}

/// The AppArmor profile of a container: its own, or else its pod's.
pub(crate) fn app_armor<'a>(pod: &'a Pod, container: &'a Container) -> Option<&'a AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|c| c.app_armor_profile.as_ref());
    let of_pod = spec(pod).0.and_then(|s| s.security_context.as_ref()).and_then(|c| c.app_armor_profile.as_ref());
    own.or(of_pod)
}

/// Why an AppArmor profile of this kind, in Kubernetes' words, cannot be enforced on a host that has AppArmor `enabled` or not.
/// Who asks for none is not refused anywhere.
pub(crate) fn unenforceable(kind: &str, enabled: bool) -> Option<&'static str> {
    (kind != "Unconfined" && !enabled).then_some("AppArmor is not enabled on the host")
}

/// The AppArmor profile of this kind, by its name on the host; none where nothing is confined. What is privileged is not confined
/// by the runtime's own, as with other runtimes.
pub(crate) fn confinement(kind: &str, name: &str, privileged: bool) -> Option<String> {
    match kind {
        "Localhost" => Some(name.to_owned()),
        "RuntimeDefault" if !privileged => Some(DEFAULT_APPARMOR_PROFILE.to_owned()),
        _ => None,
    }
}

/// What `container` of `pod` may do, with an image whose user is `image_user`.
pub(crate) fn security(
    pod: &Pod,
    container: &Container,
    image_user: &str,
    seccomp_dir: &Path,
) -> Result<Security, SecurityError> {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let of_pod = spec(pod).0.and_then(|s| s.security_context.as_ref());
    let id = |field: &'static str, value: i64| u32::try_from(value).map_err(|_| SecurityError::Id { field, value });

    let run_as_user = own.run_as_user.or_else(|| of_pod.and_then(|p| p.run_as_user));
    let run_as_group = own.run_as_group.or_else(|| of_pod.and_then(|p| p.run_as_group));
    let non_root = own.run_as_non_root.or_else(|| of_pod.and_then(|p| p.run_as_non_root)).unwrap_or(false);
    if non_root {
        check_non_root(pod, container, run_as_user, image_user)?;
    }
    let gid = run_as_group.map(|g| id("runAsGroup", g)).transpose()?;
    let user = match (run_as_user, gid) {
        (Some(uid), gid) => User::Ids { uid: id("runAsUser", uid)?, gid },
        (None, Some(gid)) => match image_user.split(':').next().filter(|u| !u.is_empty()) {
            Some(name) => User::Name(format!("{name}:{gid}")),
            None => User::Ids { uid: 0, gid: Some(gid) },
        },
        (None, None) if image_user.is_empty() => User::Ids { uid: 0, gid: None },
        (None, None) => User::Name(image_user.to_owned()),
    };
    let mut groups = Vec::new();
    for group in of_pod.and_then(|p| p.supplemental_groups.as_ref()).into_iter().flatten() {
        groups.push(id("supplementalGroups", *group)?);
    }
    if let Some(group) = of_pod.and_then(|p| p.fs_group) {
        groups.push(id("fsGroup", group)?);
    }
    let privileged = own.privileged.unwrap_or(false);
    let capabilities = own.capabilities.as_ref();
    Ok(Security {
        user,
        groups,
        strict_groups: of_pod.and_then(|p| p.supplemental_groups_policy.as_deref()) == Some("Strict"),
        capabilities: CapabilityChange {
            add: capabilities.and_then(|c| c.add.clone()).unwrap_or_default(),
            drop: capabilities.and_then(|c| c.drop.clone()).unwrap_or_default(),
            ambient: Vec::new(),
        },
        privileged,
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        readonly_rootfs: own.read_only_root_filesystem.unwrap_or(false),
        seccomp: seccomp(
            own.seccomp_profile.as_ref().or(of_pod.and_then(|p| p.seccomp_profile.as_ref())),
            seccomp_dir,
        )?,
        apparmor: app_armor(pod, container).and_then(|profile| {
            confinement(&profile.type_, profile.localhost_profile.as_deref().unwrap_or_default(), privileged)
        }),
        unmasked: own.proc_mount.as_deref() == Some("Unmasked"),
    })
}

fn check_non_root(
    pod: &Pod,
    container: &Container,
    run_as_user: Option<i64>,
    image_user: &str,
) -> Result<(), SecurityError> {
    let (name, container) = (long_name(pod), container.name.clone());
    match run_as_user {
        Some(0) => return Err(SecurityError::RunAsUser { pod: name, container }),
        Some(_) => return Ok(()),
        None => {}
    }
    let user = image_user.split(':').next().unwrap_or_default();
    match user.parse::<u32>() {
        Ok(0) => Err(SecurityError::ImageRoot { pod: name, container }),
        Ok(_) => Ok(()),
        Err(_) if user.is_empty() => Err(SecurityError::ImageRoot { pod: name, container }),
        Err(_) => Err(SecurityError::ImageUserName { user: user.to_owned(), pod: name, container }),
    }
}

/// A pod as kubelet names it in messages: `web_default(0d3f…)`.
pub(crate) fn long_name(pod: &Pod) -> String {
    format!("{}_{}({})", super::name(pod), super::namespace(pod), super::uid(pod))
}

/// The runtime's default profile unless another is asked for (kubelet's `seccompDefault`).
fn seccomp(profile: Option<&ApiSeccomp>, dir: &Path) -> Result<SeccompProfile, SecurityError> {
    let Some(profile) = profile else { return Ok(SeccompProfile::RuntimeDefault) };
    match (profile.type_.as_str(), &profile.localhost_profile) {
        ("RuntimeDefault", _) => Ok(SeccompProfile::RuntimeDefault),
        ("Unconfined", _) => Ok(SeccompProfile::Unconfined),
        // The API server refuses paths that climb; joining an absolute one would leave the directory.
        ("Localhost", Some(file)) if !file.starts_with('/') && !file.split('/').any(|p| p == "..") => {
            Ok(SeccompProfile::Localhost(dir.join(file)))
        }
        (kind, _) => Err(SecurityError::Seccomp { kind: kind.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::pod;
    use super::*;

    fn check(of_pod: Value, own: Value, image_user: &str) -> Result<Security, String> {
        let pod = pod(json!({"securityContext": of_pod, "containers": [{"name": "app", "securityContext": own}]}));
        security(&pod, &pod.spec.as_ref().unwrap().containers[0], image_user, Path::new("/seccomp"))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_container_overrides_the_pod_and_both_override_the_image() {
        let user = |p, c, i| check(p, c, i).unwrap().user;
        assert_eq!(user(json!({}), json!({}), ""), User::Ids { uid: 0, gid: None });
        assert_eq!(user(json!({}), json!({}), "www:data"), User::Name("www:data".into()));
        assert_eq!(user(json!({"runAsUser": 5}), json!({}), "www"), User::Ids { uid: 5, gid: None });
        assert_eq!(
            user(json!({"runAsUser": 5, "runAsGroup": 6}), json!({"runAsUser": 7}), ""),
            User::Ids { uid: 7, gid: Some(6) }
        );
        assert_eq!(user(json!({"runAsGroup": 6}), json!({}), "www:data"), User::Name("www:6".into()));
    }

    #[test]
    fn run_as_non_root_is_checked_in_kubelets_words() {
        let non_root = json!({"runAsNonRoot": true});
        let of = "(pod: \"web_default(u1)\", container: app)";
        assert_eq!(
            check(non_root.clone(), json!({"runAsUser": 0}), "").unwrap_err(),
            format!("container's runAsUser breaks non-root policy {of}")
        );
        for user in ["", "0", "0:5"] {
            assert_eq!(
                check(non_root.clone(), json!({}), user).unwrap_err(),
                format!("container has runAsNonRoot and image will run as root {of}")
            );
        }
        assert_eq!(
            check(non_root.clone(), json!({}), "www").unwrap_err(),
            format!(
                "container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root {of}"
            )
        );
        assert!(check(non_root.clone(), json!({}), "101").is_ok());
        assert!(check(non_root, json!({"runAsNonRoot": false}), "").is_ok());
    }

    #[test]
    fn seccomp_is_the_default_profile_unless_asked_otherwise() {
        let profile = |c| check(json!({}), c, "").map(|s| s.seccomp);
        assert_eq!(profile(json!({})), Ok(SeccompProfile::RuntimeDefault));
        assert_eq!(profile(json!({"seccompProfile": {"type": "Unconfined"}})), Ok(SeccompProfile::Unconfined));
        assert_eq!(
            profile(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"}})),
            Ok(SeccompProfile::Localhost("/seccomp/a/b.json".into()))
        );
        assert!(profile(json!({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}})).is_err());
    }

    #[test]
    fn a_profile_of_apparmor_is_the_containers_or_the_pods_and_privileges_take_away_the_runtimes_own() {
        let profile = |kind: &str| json!({"appArmorProfile": {"type": kind, "localhostProfile": "mine"}});
        let of = |p, c| check(p, c, "").unwrap().apparmor;
        let default = Some(DEFAULT_APPARMOR_PROFILE.to_owned());
        assert_eq!(of(json!({}), json!({})), None);
        assert_eq!(of(profile("RuntimeDefault"), json!({})), default);
        assert_eq!(of(profile("RuntimeDefault"), profile("Unconfined")), None);
        assert_eq!(of(profile("Unconfined"), profile("Localhost")), Some("mine".to_owned()));
        let privileged = |kind| {
            let mut context = profile(kind);
            context["privileged"] = json!(true);
            of(json!({}), context)
        };
        assert_eq!([privileged("RuntimeDefault"), privileged("Localhost")], [None, Some("mine".to_owned())]);
    }

    #[test]
    fn groups_are_the_supplementary_ones_and_the_volumes() {
        let got = check(json!({"supplementalGroups": [10, 20], "fsGroup": 30}), json!({}), "").unwrap();
        assert_eq!(got.groups, [10, 20, 30]);
        assert!(check(json!({"fsGroup": -1}), json!({}), "").is_err());
    }
}
