//! How long a command in a running container takes, from the request to its exit code.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{AttachParams, DeleteParams, PostParams},
    runtime::wait::{await_condition, conditions},
};

use super::{pods, report::Report};

/// Commands, one after the other.
const ROUNDS: usize = 100;
/// The pod should be up by then.
const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "coracle-bench-exec";

/// Runs `sleep 0` in a pod, again and again: `sleep` is what the image has for sure.
pub(crate) async fn run(client: Client, image: &str, report: &mut Report) -> anyhow::Result<()> {
    let api: Api<Pod> = Api::default_namespaced(client);
    api.create(&PostParams::default(), &pods::pod(NAME, image)?).await?;
    let up = await_condition(api.clone(), NAME, conditions::is_pod_running());
    tokio::time::timeout(PATIENCE, up).await.context("the pod to run commands in did not come up in time")??;
    let measured = rounds(&api).await;
    api.delete(NAME, &DeleteParams::default().grace_period(0)).await?;
    let mut took = measured?;
    took.sort_by(f64::total_cmp);
    let at = |part: usize| took.get(took.len() * part / 100).copied().unwrap_or_default();
    report.add(format!("exec round trip, {ROUNDS} one by one, p50"), at(50), "ms");
    report.add("  p99", at(99), "ms");
    Ok(())
}

async fn rounds(api: &Api<Pod>) -> anyhow::Result<Vec<f64>> {
    let mut took = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let mut process = api.exec(NAME, ["sleep", "0"], &AttachParams::default()).await?;
        let status = match process.take_status() {
            Some(status) => status.await,
            None => None,
        };
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
        if status.as_ref().and_then(|status| status.status.as_deref()) != Some("Success") {
            bail!("the command did not succeed: {status:?}");
        }
        process.join().await?;
    }
    Ok(took)
}
