//! `/exec/{namespace}/{pod}/{container}` and `/attach/…`: `kubectl exec`, `attach`, `run -i` and `cp`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use coracle_runtime::{ContainerId, Sandbox};
use http::StatusCode;

use super::session::{self, Asked};
use super::upgrade;
use super::{Sessions, failure};
use crate::context::Context;
use crate::pod::facts::Phase;

/// Where in the path of a request a container is named.
type Named = Path<(String, String, String)>;

/// The running container of this name.
fn running(
    context: &Context,
    Path((namespace, pod, container)): &Named,
) -> Result<(Sandbox, ContainerId), Box<Response>> {
    let missing = |message: &str| Box::new(failure(StatusCode::NOT_FOUND, "NotFound", message));
    let entry = context
        .table
        .find(namespace, pod)
        .ok_or_else(|| missing(&format!("pod \"{pod}\" does not exist on this node")))?;
    let running = entry.attempts.get(container).and_then(|a| a.last()).filter(|a| a.phase == Phase::Running);
    running
        .and_then(|attempt| ContainerId::parse(&attempt.id))
        .and_then(|id| entry.sandbox.clone().map(|sandbox| (sandbox, id)))
        .ok_or_else(|| missing(&format!("container not found (\"{container}\")")))
}

fn bad(message: &str) -> Response {
    failure(StatusCode::BAD_REQUEST, "BadRequest", message)
}

/// Runs a command in a container.
pub(super) async fn exec(
    State(context): State<Arc<Context>>,
    named: Named,
    RawQuery(query): RawQuery,
    Extension(sessions): Extension<Sessions>,
    request: Request,
) -> Response {
    let asked = Asked::read(query.as_deref().unwrap_or_default());
    if asked.command.is_empty() {
        return bad("you must specify at least 1 command for the container");
    }
    match running(&context, &named) {
        Ok((sandbox, id)) => {
            upgrade::session(request, &sessions, asked, |asked, client| session::exec(sandbox, id, asked, client)).await
        }
        Err(refusal) => *refusal,
    }
}

/// Attaches to a container.
pub(super) async fn attach(
    State(context): State<Arc<Context>>,
    named: Named,
    RawQuery(query): RawQuery,
    Extension(sessions): Extension<Sessions>,
    request: Request,
) -> Response {
    let asked = Asked::read(query.as_deref().unwrap_or_default());
    if !(asked.input || asked.output || asked.error) {
        return bad("you must specify at least 1 of stdin, stdout, stderr");
    }
    match running(&context, &named) {
        Ok((sandbox, id)) => {
            upgrade::session(request, &sessions, asked, |asked, client| session::attach(sandbox, id, asked, client))
                .await
        }
        Err(refusal) => *refusal,
    }
}
