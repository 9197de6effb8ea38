//! The table of methods: which call is answered by whom.

use std::sync::Arc;

use coracle_process::grpc::{self, Body, Code, Refusal, Requests, Result, unary};
use http::{Method, Request, Response};
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::oneshot;

use super::messages::{
    ListContainerStatsResponse, ListContainersResponse, ListImagesResponse, ListPodSandboxMetricsResponse,
    ListPodSandboxResponse, ListPodSandboxStatsResponse, Nothing,
};
use super::{Front, LONGEST, container, events, exec, image, metrics, node, sandbox, stats, streaming};

/// A part of a list that is told in parts is closed when it has this many bytes. Clients take messages of 4 MiB at least, and
/// no item comes near the rest.
const PART: usize = 1 << 20;

/// Answers a call.
pub(super) async fn answer(front: Arc<Front>, request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        return refuse(Code::Unimplemented, "calls are posted".to_owned());
    }
    let path = request.uri().path().to_owned();
    let requests = Requests::new(request.into_body(), LONGEST);
    // A call that only looks, or that ends when its client leaves.
    macro_rules! call {
        ($request:ident => $answered:expr) => {
            unary(match requests.only().await {
                Ok($request) => $answered.await,
                Err(refusal) => Err(refusal),
            })
        };
    }
    // A call that changes something is carried out whole, whether or not its client waits for the answer.
    macro_rules! change {
        ($request:ident => $answered:expr) => {{
            let own = Arc::clone(&front);
            unary(match requests.only().await {
                Ok($request) => whole(&own, $answered).await,
                Err(refusal) => Err(refusal),
            })
        }};
    }
    // A list in parts, none of which is longer than a client takes: the messages are those of the list that is told at once
    // (KEP-5825).
    macro_rules! stream {
        ($request:ident => $answered:expr, $part:ident { $items:ident }) => {{
            let listed = match requests.only().await {
                Ok($request) => $answered.await,
                Err(refusal) => Err(refusal),
            };
            tell(&front, listed.map(|all| parts(all.$items, |$items| $part { $items })))
        }};
    }
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return unknown(&path);
    };
    match (service, method) {
        ("runtime.v1.RuntimeService", "Version") => call!(request => {
            let Nothing {} = request;
            node::version()
        }),
        ("runtime.v1.RuntimeService", "Status") => call!(request => node::status(&front, request)),
        ("runtime.v1.RuntimeService", "RuntimeConfig") => call!(request => {
            let Nothing {} = request;
            node::config()
        }),
        ("runtime.v1.RuntimeService", "UpdateRuntimeConfig") => call!(request => node::update(&front, request)),
        ("runtime.v1.RuntimeService", "RunPodSandbox") => change!(request => sandbox::run(front, request)),
        ("runtime.v1.RuntimeService", "StopPodSandbox") => change!(request => sandbox::stop(front, request)),
        ("runtime.v1.RuntimeService", "RemovePodSandbox") => change!(request => sandbox::remove(front, request)),
        ("runtime.v1.RuntimeService", "UpdatePodSandboxResources") => {
            change!(request => sandbox::update(front, request))
        }
        ("runtime.v1.RuntimeService", "PodSandboxStatus") => call!(request => sandbox::status(&front, request)),
        ("runtime.v1.RuntimeService", "ListPodSandbox") => call!(request => sandbox::list(&front, request)),
        ("runtime.v1.RuntimeService", "StreamPodSandboxes") => {
            stream!(request => sandbox::list(&front, request), ListPodSandboxResponse { items })
        }
        ("runtime.v1.RuntimeService", "CreateContainer") => change!(request => container::create(front, request)),
        ("runtime.v1.RuntimeService", "StartContainer") => change!(request => container::start(front, request)),
        ("runtime.v1.RuntimeService", "StopContainer") => change!(request => container::stop(front, request)),
        ("runtime.v1.RuntimeService", "RemoveContainer") => change!(request => container::remove(front, request)),
        ("runtime.v1.RuntimeService", "ListContainers") => call!(request => container::list(&front, request)),
        ("runtime.v1.RuntimeService", "StreamContainers") => {
            stream!(request => container::list(&front, request), ListContainersResponse { containers })
        }
        ("runtime.v1.RuntimeService", "ContainerStatus") => call!(request => container::status(&front, request)),
        ("runtime.v1.RuntimeService", "UpdateContainerResources") => {
            change!(request => container::update(front, request))
        }
        ("runtime.v1.RuntimeService", "ReopenContainerLog") => call!(request => container::reopen(&front, request)),
        ("runtime.v1.RuntimeService", "ExecSync") => call!(request => exec::sync(&front, request)),
        ("runtime.v1.RuntimeService", "Exec") => call!(request => streaming::exec(&front, request)),
        ("runtime.v1.RuntimeService", "Attach") => call!(request => streaming::attach(&front, request)),
        ("runtime.v1.RuntimeService", "PortForward") => call!(request => streaming::port_forward(&front, request)),
        ("runtime.v1.RuntimeService", "ContainerStats") => call!(request => stats::container(&front, request)),
        ("runtime.v1.RuntimeService", "ListContainerStats") => call!(request => stats::containers(&front, request)),
        ("runtime.v1.RuntimeService", "StreamContainerStats") => {
            stream!(request => stats::containers(&front, request), ListContainerStatsResponse { stats })
        }
        ("runtime.v1.RuntimeService", "PodSandboxStats") => call!(request => stats::sandbox(&front, request)),
        ("runtime.v1.RuntimeService", "ListPodSandboxStats") => call!(request => stats::sandboxes(&front, request)),
        ("runtime.v1.RuntimeService", "StreamPodSandboxStats") => {
            stream!(request => stats::sandboxes(&front, request), ListPodSandboxStatsResponse { stats })
        }
        ("runtime.v1.RuntimeService", "ListMetricDescriptors") => call!(request => {
            let Nothing {} = request;
            metrics::descriptors()
        }),
        ("runtime.v1.RuntimeService", "ListPodSandboxMetrics") => call!(request => {
            let Nothing {} = request;
            metrics::sandboxes(&front)
        }),
        ("runtime.v1.RuntimeService", "StreamPodSandboxMetrics") => {
            stream!(request => {
                let Nothing {} = request;
                metrics::sandboxes(&front)
            }, ListPodSandboxMetricsResponse { pod_metrics })
        }
        ("runtime.v1.RuntimeService", "CheckpointContainer") => {
            call!(request => container::checkpoint(&front, request))
        }
        ("runtime.v1.RuntimeService", "GetContainerEvents") => {
            if let Err(refusal) = requests.only::<Nothing>().await {
                return unary(Err::<Nothing, _>(refusal));
            }
            let heard = match events::listen(&front).await {
                Ok(heard) => heard,
                Err(refusal) => return unary(Err::<Nothing, _>(refusal)),
            };
            let (answers, response) = grpc::streaming();
            let sessions = front.sessions.clone();
            sessions.spawn(events::serve(front, heard, answers));
            response
        }
        ("runtime.v1.ImageService", "ListImages") => call!(request => image::list(&front, request)),
        ("runtime.v1.ImageService", "StreamImages") => {
            stream!(request => image::list(&front, request), ListImagesResponse { images })
        }
        ("runtime.v1.ImageService", "ImageStatus") => call!(request => image::status(&front, request)),
        ("runtime.v1.ImageService", "PullImage") => call!(request => image::pull(&front, request)),
        ("runtime.v1.ImageService", "RemoveImage") => change!(request => image::remove(front, request)),
        ("runtime.v1.ImageService", "ImageFsInfo") => call!(request => {
            let Nothing {} = request;
            image::file_systems(&front)
        }),
        _ => unknown(&path),
    }
}

fn refuse(code: Code, why: String) -> Response<Body> {
    unary(Err::<Nothing, _>(Refusal(code, why)))
}

/// A list in parts of at least one item each; an empty one has none.
fn parts<T: Message, P>(items: Vec<T>, part: impl Fn(Vec<T>) -> P) -> Vec<P> {
    let (mut parts, mut open, mut size) = (Vec::new(), Vec::new(), 0);
    for item in items {
        size += item.encoded_len();
        open.push(item);
        if size >= PART {
            parts.push(part(std::mem::take(&mut open)));
            size = 0;
        }
    }
    if !open.is_empty() {
        parts.push(part(open));
    }
    parts
}

/// Answers with parts one after the other, as the client takes them.
fn tell(front: &Front, listed: Result<Vec<impl Message + 'static>>) -> Response<Body> {
    let (answers, response) = grpc::streaming();
    front.sessions.spawn(async move {
        match listed {
            Ok(parts) => {
                for part in &parts {
                    if answers.send(part).await.is_err() {
                        return;
                    }
                }
            }
            Err(refusal) => answers.refuse(refusal).await,
        }
    });
    response
}

/// Clients do without a method that is not there.
fn unknown(path: &str) -> Response<Body> {
    refuse(Code::Unimplemented, format!("unknown method {path}: Coracle does not serve it"))
}

/// Carries a call out in a task of its own.
async fn whole<T: Send + 'static>(front: &Front, work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let (tell, told) = oneshot::channel();
    front.sessions.spawn(async move {
        // A client that has left needs no answer.
        drop(tell.send(work.await));
    });
    told.await.unwrap_or_else(|_| Err(Refusal(Code::Unavailable, "the agent is ending".to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::messages::Container;

    #[test]
    fn a_list_is_told_whole_and_in_parts_that_a_client_takes() {
        let container = |number: usize, bytes: usize| Container {
            id: number.to_string(),
            labels: [("long".to_owned(), "x".repeat(bytes))].into(),
            ..Container::default()
        };
        let told = |lengths: &[usize]| -> Vec<Vec<String>> {
            let items = lengths.iter().enumerate().map(|(number, bytes)| container(number, *bytes)).collect();
            parts(items, |containers| containers.into_iter().map(|one: Container| one.id).collect())
        };
        assert_eq!(told(&[]), Vec::<Vec<String>>::new());
        assert_eq!(told(&[1, 2, 3]), [["0", "1", "2"]]);
        assert_eq!(told(&[PART, 1, PART, 1]), [vec!["0"], vec!["1", "2"], vec!["3"]]);
        assert_eq!(told(&[PART / 2, PART / 2]), [["0", "1"]]);
    }
}
