//! Running a command in a container to its end.

use std::time::Duration;

use coracle_process::grpc::{Code, Refusal, Result};
use coracle_runtime::{ExecSpec, Stream};

use super::messages::{ExecSyncRequest, ExecSyncResponse};
use super::{Front, invalid, refused};

/// Bytes of each output that are kept, as with containerd; the rest is thrown away.
const KEPT: usize = 16 << 20;

/// The command is killed when its time is over, or when the client leaves.
pub(super) async fn sync(front: &Front, request: ExecSyncRequest) -> Result<ExecSyncResponse> {
    if request.cmd.is_empty() {
        return Err(invalid("a command is required"));
    }
    let timeout = u64::try_from(request.timeout).map_err(|_| invalid("timeout is negative"))?;
    let (sandbox, id) = front.running(&request.container_id).await?;
    let spec = ExecSpec { argv: request.cmd, ..ExecSpec::default() };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let run = sandbox.exec_told(&id, &spec, |stream, chunk| {
        let kept = match stream {
            Stream::Output => &mut stdout,
            Stream::Error => &mut stderr,
        };
        let room = KEPT.saturating_sub(kept.len()).min(chunk.len());
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
    });
    let ended =
        if timeout == 0 { Ok(run.await) } else { tokio::time::timeout(Duration::from_secs(timeout), run).await };
    match ended {
        Ok(Ok(exit_code)) => Ok(ExecSyncResponse { stdout, stderr, exit_code }),
        Ok(Err(error)) => {
            let Refusal(code, why) = refused(&error);
            Err(Refusal(code, format!("failed to exec in container: {why}")))
        }
        Err(_) => {
            let why = format!("failed to exec in container: timeout {timeout}s exceeded: context deadline exceeded");
            Err(Refusal(Code::DeadlineExceeded, why))
        }
    }
}
