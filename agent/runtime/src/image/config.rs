//! An image's configuration: what it runs and as whom. Source: OCI image specification, `config.md`; Docker's differs only in
//! fields that are ignored here.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::Digest;

/// What an image says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// The processor it is for, in Go's words (`amd64`).
    #[serde(deserialize_with = "or_default")]
    pub architecture: String,
    /// The operating system it is for.
    #[serde(deserialize_with = "or_default")]
    pub os: String,
    /// The processor's variant (`v7`).
    #[serde(deserialize_with = "or_default")]
    pub variant: String,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// How its containers run.
    #[serde(deserialize_with = "or_default")]
    pub config: Execution,
    /// Its layers.
    #[serde(deserialize_with = "or_default")]
    pub rootfs: RootFs,
}

/// How an image's containers run unless the pod says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Execution {
    /// `user`, `uid`, `user:group` or `uid:gid`; empty is root.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Working directory; empty is `/`.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// `NAME=value` lines.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// The program and its first arguments; a pod's `command` replaces it, and `cmd` with it.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// The arguments; a pod's `args` replaces them.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// The signal that asks the program to end, as a name or a number.
    #[serde(deserialize_with = "or_default")]
    pub stop_signal: String,
    /// Paths that are meant to be volumes.
    #[serde(deserialize_with = "or_default")]
    pub volumes: BTreeMap<String, serde_json::Value>,
    /// `port/protocol` names.
    #[serde(deserialize_with = "or_default")]
    pub exposed_ports: BTreeMap<String, serde_json::Value>,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

/// The layers an image is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    #[serde(deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

impl Execution {
    /// What is run when a container says `command` and `args`, either of which may be empty; nothing when nobody says.
    pub fn argv(&self, command: Vec<String>, args: Vec<String>) -> Vec<String> {
        if !command.is_empty() {
            return command.into_iter().chain(args).collect();
        }
        let rest = if args.is_empty() { self.cmd.clone() } else { args };
        self.entrypoint.iter().cloned().chain(rest).collect()
    }
}

impl ImageConfig {
    /// Reads a configuration.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let config: Self = serde_json::from_slice(bytes).map_err(|error| format!("image configuration: {error}"))?;
        if config.rootfs.diff_ids.len() > super::manifest::LAYERS_MAX {
            return Err(format!(
                "image configuration: {} layers, at most {} can be stacked",
                config.rootfs.diff_ids.len(),
                super::manifest::LAYERS_MAX
            ));
        }
        Ok(config)
    }
}

/// Go writes empty maps and lists as `null`.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_configs_with_nulls_and_unknown_fields_are_read() {
        let config = ImageConfig::parse(
            br#"{"architecture":"amd64","os":"linux","docker_version":"20","container_config":{"Hostname":"x"},
            "config":{"User":"www","Env":["A=b"],"Cmd":null,"Entrypoint":["/x"],"Volumes":{"/data":{}},"Labels":null,"OnBuild":null,
            "StopSignal":"SIGQUIT","WorkingDir":"/w","ExposedPorts":{"80/tcp":{}}},"rootfs":{"type":"layers","diff_ids":null}}"#,
        )
        .unwrap();
        assert_eq!(config.config.user, "www");
        assert_eq!(config.config.entrypoint, ["/x"]);
        assert!(config.config.cmd.is_empty());
        assert_eq!(config.config.stop_signal, "SIGQUIT");
        assert_eq!(config.config.exposed_ports.keys().next().unwrap(), "80/tcp");
        assert!(ImageConfig::parse(b"[1]").is_err());
        assert!(ImageConfig::parse(br#"{"rootfs":{"diff_ids":["sha256:../x"]}}"#).is_err());
    }
}
