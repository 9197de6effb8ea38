//! What a cluster costs that has nothing to do.

use std::time::{Duration, Instant};

use super::{
    process::{self, Subject},
    report::Report,
};

/// Lets a cluster of one node rest for `settle`, then looks at it for `length`.
pub(crate) async fn run(settle: Duration, length: Duration, report: &mut Report) -> anyhow::Result<()> {
    let port = process::free_port()?;
    let subject = tokio::task::spawn_blocking(move || Subject::start(port, &[])).await??;
    tokio::time::sleep(settle).await;
    let (before, start) = (subject.usage()?, Instant::now());
    tokio::time::sleep(length).await;
    let after = subject.usage()?;
    let seconds = start.elapsed().as_secs_f64();
    tokio::task::spawn_blocking(move || drop(subject)).await?;
    #[expect(clippy::cast_precision_loss, reason = "bytes of one process are far below 2^52")]
    let (resident, written) = (after.resident as f64 / 1e6, (after.written - before.written) as f64 / 1e6);
    report.promised("resident memory, idle, one node", resident, "MB", 64.0);
    let cpu = (after.cpu - before.cpu).as_secs_f64() / seconds * 100.0;
    report.promised("processor, idle", cpu, "% of a core", 0.5);
    report.promised("disk writes, idle", written / seconds * 86_400.0, "MB a day", 50.0);
    Ok(())
}
