//! `/metrics`, `/metrics/probes` and `/metrics/cadvisor`: the node in Prometheus' text format, by kubelet's and cAdvisor's
//! names, so that the dashboards and alerts that exist for them show it.
//!
//! What only some hosts or runtimes have is left out rather than told as nothing: there is no relisting of pods
//! (`kubelet_pleg_*`), since the kernel tells of what happens to containers.

mod cadvisor;
mod kubelet;

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use coracle_process::metrics::{MEDIA, Page};
use http::header;

use super::stats;
use crate::context::Context;

fn response(page: Page) -> Response {
    ([(header::CONTENT_TYPE, MEDIA)], page.0).into_response()
}

/// `/metrics`.
pub(super) async fn kubelet(State(context): State<Arc<Context>>) -> Response {
    let mut out = Page::default();
    let (pods, logs) = kubelet::look(&context).await;
    kubelet::write(&mut out, &context.config.node_name, &pods, &logs);
    context.figures.write(&mut out);
    out.process();
    response(out)
}

/// `/metrics/probes`.
pub(super) async fn probes(State(context): State<Arc<Context>>) -> Response {
    let mut out = Page::default();
    context.figures.write_probes(&mut out);
    response(out)
}

/// `/metrics/cadvisor`.
pub(super) async fn cadvisor(State(context): State<Arc<Context>>) -> Response {
    let machine = match stats::machine(&context).await {
        Ok(machine) => machine,
        Err(response) => return response,
    };
    let groups = crate::cadvisor::look(&context, &machine).await;
    let mut out = Page::default();
    cadvisor::write(&mut out, &groups, &machine);
    response(out)
}
