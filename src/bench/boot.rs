//! How long a start takes: with an empty data directory, to `/readyz`, and to a Ready node.

use super::{
    process::{self, Subject},
    report::Report,
};

/// Starts `rounds` clusters one after the other.
pub(crate) async fn run(rounds: usize, report: &mut Report) -> anyhow::Result<()> {
    let (mut api, mut node) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let port = process::free_port()?;
        let subject = tokio::task::spawn_blocking(move || Subject::start(port, &["--no-agent"])).await??;
        api.push(subject.ready_after.as_secs_f64() * 1000.0);
        tokio::task::spawn_blocking(move || drop(subject)).await?;
        let port = process::free_port()?;
        let subject = tokio::task::spawn_blocking(move || Subject::start(port, &[])).await??;
        node.push(subject.ready_after.as_secs_f64() * 1000.0);
        tokio::task::spawn_blocking(move || drop(subject)).await?;
    }
    report.promised("cold start to /readyz (control plane only), median", median(&mut api), "ms", 300.0);
    report.promised("cold start of coracle up to a Ready node, median", median(&mut node), "ms", 1000.0);
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
