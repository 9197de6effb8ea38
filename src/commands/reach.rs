//! How commands reach the cluster: as whom, and where.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use kube::{
    Client,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};

use serde::de::DeserializeOwned;

use crate::instance::Instance;

/// Flags of every command that speaks to a running cluster.
#[derive(clap::Args)]
pub(crate) struct Reach {
    /// How to reach the cluster; without it, the admin kubeconfig in the data directory.
    #[arg(long, env = "CORACLE_KUBECONFIG", value_name = "FILE", global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The instance's data directory.
    #[arg(long, env = "CORACLE_DATA_DIR", default_value = "/var/lib/coracle", global = true)]
    pub(crate) data_dir: PathBuf,
}

impl Reach {
    /// The kubeconfig, and the file it is from.
    pub(crate) fn read(&self) -> anyhow::Result<(Kubeconfig, PathBuf)> {
        let file = match &self.kubeconfig {
            Some(file) => file.clone(),
            None => Instance::new(&self.data_dir)?.admin_kubeconfig(),
        };
        let read = Kubeconfig::read_from(&file).with_context(|| format!("--kubeconfig {}", file.display()))?;
        Ok((read, file))
    }

    /// A client with its credentials.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let (kubeconfig, file) = self.read()?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        let config = config.with_context(|| format!("--kubeconfig {}", file.display()))?;
        Ok(Client::try_from(config)?)
    }
}

/// Asks for a path that is no object, and hands on the answer's bytes as they come.
pub(crate) async fn stream(
    client: &Client,
    method: http::Method,
    path: &str,
    take: impl FnMut(Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    stream_as(client, method, path, "*/*", take).await
}

async fn stream_as(
    client: &Client,
    method: http::Method,
    path: &str,
    accept: &str,
    mut take: impl FnMut(Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let request = http::Request::builder().method(method).uri(path).header(http::header::ACCEPT, accept);
    let request = request.body(Body::empty())?;
    let response = client.send(request).await.context("the cluster is not reached")?;
    let code = response.status();
    let mut body = response.into_body();
    let mut refusal = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.context("the server broke off its answer")?.into_data() else { continue };
        if code.is_success() {
            take(data)?;
        } else if refusal.len() < 64 << 10 {
            refusal.extend_from_slice(&data);
        }
    }
    if !code.is_success() {
        let status: Option<serde_json::Value> = serde_json::from_slice(&refusal).ok();
        let message = status.as_ref().and_then(|status| status.get("message")?.as_str());
        bail!("the server refuses: {}", message.unwrap_or(code.as_str()));
    }
    Ok(())
}

/// As [`stream`], for an answer that is one JSON document.
pub(crate) async fn json<T: DeserializeOwned>(client: &Client, method: http::Method, path: &str) -> anyhow::Result<T> {
    json_as(client, method, path, "application/json").await
}

/// As [`json`], in one of its forms.
pub(crate) async fn json_as<T: DeserializeOwned>(
    client: &Client,
    method: http::Method,
    path: &str,
    accept: &str,
) -> anyhow::Result<T> {
    let mut bytes = Vec::new();
    stream_as(client, method, path, accept, |more| {
        bytes.extend_from_slice(&more);
        Ok(())
    })
    .await?;
    serde_json::from_slice(&bytes).context("the server's answer cannot be read")
}
