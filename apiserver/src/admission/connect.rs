//! Connections to a part of an object (exec, attach, port-forward, proxy): nothing is written, but policies and webhooks that
//! are about the operation `CONNECT` are asked first.
//!
//! The object they see is the connection's options, which clients send as a query (`PodExecOptions` and its like).

use std::sync::{Arc, LazyLock};

use coracle_proto::{resource, resource::Resource, status::Status};
use serde_json::{Map, Value, json};

use super::{Notes, Operation, Write, webhook::Reinvocation};
use crate::{
    custom::{Custom, CustomKind},
    ops::{BoxObject, KindOps},
    registry::Registry,
    request::RequestInfo,
    status_of::Result,
    user::User,
};

/// Resource, subresource, and what its options are called.
const CONNECTIONS: &[(&str, &str, &str)] = &[
    ("pods", "exec", "PodExecOptions"),
    ("pods", "attach", "PodAttachOptions"),
    ("pods", "portforward", "PodPortForwardOptions"),
    ("pods", "proxy", "PodProxyOptions"),
    ("services", "proxy", "ServiceProxyOptions"),
    ("nodes", "proxy", "NodeProxyOptions"),
];

/// The kinds of options, each under the resource that is connected to.
static KINDS: LazyLock<Vec<Arc<dyn KindOps>>> = LazyLock::new(|| {
    let of = |&(plural, _, kind): &(&'static str, &'static str, &'static str)| -> Option<Arc<dyn KindOps>> {
        let row = resource::find("", "v1", plural)?;
        // Once a process, so that these rows are as static as all others.
        let row: &'static Resource = Box::leak(Box::new(Resource {
            kind,
            list_kind: "",
            short_names: &[],
            categories: &[],
            subresources: &[],
            storage: "connections",
            ..*row
        }));
        Some(Arc::new(CustomKind::open(row)))
    };
    CONNECTIONS.iter().filter_map(of).collect()
});

/// The options' kind of a name.
pub(super) fn kind(name: &str) -> Option<&'static Arc<dyn KindOps>> {
    KINDS.iter().find(|kind| kind.resource().kind == name)
}

/// The kind of a connection's options, if the request is one.
fn options_of(info: &RequestInfo) -> Option<&'static str> {
    if !info.is_resource || !info.group.is_empty() || info.version != "v1" || info.name.is_empty() {
        return None;
    }
    let of = |(plural, sub, _): &&(&str, &str, &str)| (info.resource == *plural) && (info.subresource == *sub);
    CONNECTIONS.iter().find(of).map(|(.., kind)| *kind)
}

/// The options that the query says.
fn options(info: &RequestInfo, kind: &str) -> Map<String, Value> {
    let mut options = Map::new();
    match info.subresource.as_str() {
        "exec" | "attach" => {
            for name in ["stdin", "stdout", "stderr", "tty"].into_iter().filter(|name| info.query.flag(name)) {
                options.insert(name.to_owned(), true.into());
            }
            if !info.query.get("container").is_empty() {
                options.insert("container".to_owned(), info.query.get("container").into());
            }
            let command: Vec<&str> = info.query.all("command").collect();
            if info.subresource == "exec" && !command.is_empty() {
                options.insert("command".to_owned(), json!(command));
            }
        }
        "portforward" => {
            let ports: Vec<i32> = info.query.all("ports").filter_map(|port| port.parse().ok()).collect();
            if !ports.is_empty() {
                options.insert("ports".to_owned(), json!(ports));
            }
        }
        _ => {
            let rest = info.rest.trim_start_matches('/');
            if !rest.is_empty() || info.path.ends_with('/') {
                options.insert("path".to_owned(), format!("/{rest}").into());
            }
        }
    }
    options.insert("apiVersion".to_owned(), "v1".into());
    options.insert("kind".to_owned(), kind.into());
    options
}

/// Asks whether a connection may be made, if the request wants one. What admission has to tell the client and the audit
/// stands in `notes`.
///
/// # Errors
/// The first refusal; 400 for a dry run, of which connections know nothing.
///
/// # Cancel safety
/// Safe; webhooks may have had the request.
pub(crate) async fn admit(registry: &Registry, user: &User, info: &RequestInfo, notes: &Notes) -> Result<()> {
    let Some(kind) = options_of(info).and_then(kind) else { return Ok(()) };
    if info.query.find("dryRun").is_some_and(|value| !value.is_empty()) {
        return Err(Box::new(Status::bad_request("dryRun is not supported")));
    }
    let content = options(info, kind.resource().kind);
    let mut object: BoxObject = Box::new(Custom { content, ..Custom::default() });
    let write = Write {
        registry,
        user,
        operation: Operation::Connect,
        kind: &**kind,
        namespace: &info.namespace,
        name: &info.name,
        generate_name: "",
        subresource: &info.subresource,
        old: None,
        dry_run: false,
        delete_options: None,
        notes,
    };
    if registry.webhooks().mutate(&write, Some(&mut object), &mut Reinvocation::default()).await? {
        // The connection is the client's: what it asked for can be refused, but is not made another.
        return Err(Box::new(Status::internal(
            "a webhook changed the options of a connection, which is not supported",
        )));
    }
    registry.policies().validate(&write, Some(&*object)).await?;
    registry.webhooks().validate(&write, Some(&*object)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_from_the_query() {
        let read = |uri: &str| {
            let info = RequestInfo::new(&http::Method::GET, &uri.parse().unwrap());
            options_of(&info).map(|kind| Value::Object(options(&info, kind)))
        };
        let pod = "/api/v1/namespaces/n/pods/p";
        assert_eq!(
            read(&format!("{pod}/exec?command=ls&command=-l&container=c&stdout=true&stdin=false")).unwrap(),
            json!({"apiVersion": "v1", "kind": "PodExecOptions", "command": ["ls", "-l"], "container": "c",
                   "stdout": true})
        );
        assert_eq!(
            read(&format!("{pod}/portforward?ports=80&ports=x")).unwrap(),
            json!({"apiVersion": "v1", "kind": "PodPortForwardOptions", "ports": [80]})
        );
        assert_eq!(read("/api/v1/nodes/n/proxy/metrics").unwrap()["path"], "/metrics");
        assert_eq!(read("/api/v1/namespaces/n/services/s/proxy").unwrap().get("path"), None);
        for other in [format!("{pod}/log"), pod.to_owned(), "/apis/apps/v1/namespaces/n/pods/p/exec".to_owned()] {
            assert_eq!(read(&other), None, "{other}");
        }
    }
}
