//! A mock API server: a few kinds in memory behind a tower service, with lists, watches and patches as far as the agent uses
//! them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{Notify, broadcast};

#[derive(Default)]
struct Store {
    revision: u64,
    objects: BTreeMap<(String, String), Value>,
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    store: Arc<Mutex<Store>>,
    changes: broadcast::Sender<(String, &'static str, Value)>,
    pub(crate) restarts: Arc<Restarts>,
}

/// How a test asks for another agent.
#[derive(Default)]
pub(crate) struct Restarts {
    pub(crate) asked: Notify,
    pub(crate) done: Notify,
}

impl Default for Api {
    fn default() -> Self {
        Self { store: Arc::default(), changes: broadcast::channel(1024).0, restarts: Arc::default() }
    }
}

impl Api {
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(self.router(), "default")
    }

    /// The server for clients that come over a network.
    pub(crate) fn router(&self) -> Router {
        Router::new().fallback(serve).with_state(self.clone())
    }

    /// Every write from now on.
    pub(crate) fn subscribe(&self) -> broadcast::Receiver<(String, &'static str, Value)> {
        self.changes.subscribe()
    }

    /// Ends the agent, leaving its pods, and begins another.
    pub(crate) async fn restart_agent(&self) {
        self.restarts.asked.notify_one();
        self.restarts.done.notified().await;
    }

    /// Creates or replaces an object.
    pub(crate) fn put(&self, resource: &str, mut object: Value) -> Value {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut store = self.store.lock().unwrap();
        store.revision += 1;
        object["metadata"]["resourceVersion"] = store.revision.to_string().into();
        let old = store.objects.insert((resource.to_owned(), name), object.clone());
        let kind = if old.is_some() { "MODIFIED" } else { "ADDED" };
        drop(self.changes.send((resource.to_owned(), kind, object.clone())));
        object
    }

    /// Marks an object as being deleted, as `kubectl delete` does.
    pub(crate) fn delete(&self, resource: &str, name: &str) {
        let mut object = self.get(resource, name).unwrap();
        object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        object["metadata"]["deletionGracePeriodSeconds"] = 1.into();
        self.put(resource, object);
    }

    pub(crate) fn get(&self, resource: &str, name: &str) -> Option<Value> {
        self.store.lock().unwrap().objects.get(&(resource.to_owned(), name.to_owned())).cloned()
    }

    /// Waits until the object is as wanted.
    pub(crate) async fn until(&self, resource: &str, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(object) = self.get(resource, name).filter(&wanted) {
                return object;
            }
            changes.recv().await.unwrap();
        }
    }

    pub(crate) async fn until_gone(&self, resource: &str, name: &str) {
        let mut changes = self.changes.subscribe();
        while self.get(resource, name).is_some() {
            changes.recv().await.unwrap();
        }
    }

    pub(crate) fn event_reasons(&self) -> Vec<String> {
        let store = self.store.lock().unwrap();
        store
            .objects
            .iter()
            .filter(|((r, _), _)| r == "events")
            .map(|(_, o)| o["reason"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Everything, for a failed test.
    pub(crate) fn show(&self) -> String {
        let store = self.store.lock().unwrap();
        let shown: Vec<String> = store
            .objects
            .iter()
            .filter(|((r, _), _)| r == "pods" || r == "events")
            .map(|((r, n), o)| format!("{r}/{n}: {} {}", o["message"], o["status"]))
            .collect();
        shown.join("\n")
    }
}

fn not_found() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "not found", "code": 404});
    (StatusCode::NOT_FOUND, status.to_string()).into_response()
}

fn answer(object: &Value) -> Response {
    object.to_string().into_response()
}

/// Lists are replaced, but conditions are merged by type or deleted, which is all of a strategic merge the agent relies on.
fn merge(into: &mut Value, patch: &Value) {
    let (Some(target), Some(fields)) = (into.as_object_mut(), patch.as_object()) else {
        *into = patch.clone();
        return;
    };
    for (key, value) in fields {
        if value.is_null() {
            target.remove(key);
        } else if key == "conditions" {
            let list = target.entry("conditions").or_insert_with(|| json!([]));
            let list = list.as_array_mut().unwrap();
            for condition in value.as_array().unwrap() {
                list.retain(|c| c["type"] != condition["type"]);
                if condition["$patch"] == "delete" {
                    continue;
                }
                let mut condition = condition.clone();
                condition.as_object_mut().unwrap().retain(|_, v| !v.is_null());
                list.push(condition);
            }
        } else if let Some(list) = value.as_array() {
            let kept: Vec<Value> = list.iter().filter(|i| i.get("$patch").is_none()).cloned().collect();
            target.insert(key.clone(), kept.into());
        } else if value.is_object() {
            merge(target.entry(key.clone()).or_insert_with(|| json!({})), value);
        } else {
            target.insert(key.clone(), value.clone());
        }
    }
}

async fn serve(State(api): State<Api>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let skip = if parts.first() == Some(&"api") { 2 } else { 3 };
    parts.drain(..skip);
    if parts.first() == Some(&"namespaces") {
        parts.drain(..2);
    }
    let resource = parts.first().copied().unwrap_or_default().to_owned();
    let name = parts.get(1).map(|n| (*n).to_owned());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    match (method, name) {
        (Method::GET, None) if query.contains("watch=true") => watch(&api, &resource, &query),
        (Method::GET, None) => list(&api, &resource, &query),
        (Method::POST, Some(_)) if parts.get(2) == Some(&"token") => token(&api),
        (Method::POST, _) => {
            let mut object = json;
            object["metadata"]["uid"] = "made".into();
            answer(&api.put(&resource, object))
        }
        (Method::GET, Some(name)) => api.get(&resource, &name).map_or_else(not_found, |o| answer(&o)),
        (Method::PATCH, Some(name)) => match api.get(&resource, &name) {
            None => not_found(),
            Some(mut object) => {
                merge(&mut object, &json);
                answer(&api.put(&resource, object))
            }
        },
        (Method::DELETE, Some(name)) => {
            let old = api.store.lock().unwrap().objects.remove(&(resource.clone(), name));
            match old {
                None => not_found(),
                Some(object) => {
                    drop(api.changes.send((resource, "DELETED", object.clone())));
                    answer(&object)
                }
            }
        }
        _ => not_found(),
    }
}

/// A token of an account, one after the other, with next to no life: who holds one has to renew it soon.
fn token(api: &Api) -> Response {
    let given = api.get("tokens", "given").and_then(|given| given["count"].as_u64()).unwrap_or(0) + 1;
    api.put("tokens", json!({"metadata": {"name": "given"}, "count": given}));
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5);
    answer(&json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []},
        "status": {"token": format!("token-{given}"), "expirationTimestamp": ends.to_string()},
    }))
}

/// Only names are selected by; every pod here is bound to the one node.
fn selected(query: &str, object: &Value) -> bool {
    match query.split("metadata.name%3D").nth(1) {
        Some(rest) => object["metadata"]["name"] == rest.split('&').next().unwrap(),
        None => true,
    }
}

fn list(api: &Api, resource: &str, query: &str) -> Response {
    let store = api.store.lock().unwrap();
    let items: Vec<&Value> =
        store.objects.iter().filter(|((r, _), o)| r == resource && selected(query, o)).map(|(_, o)| o).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": store.revision.to_string()}, "items": items});
    answer(&list)
}

fn watch(api: &Api, resource: &str, query: &str) -> Response {
    let from: u64 =
        query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")).and_then(|v| v.parse().ok()).unwrap_or(0);
    // Under the lock, so that nothing falls between what is there and what comes.
    let (missed, changes) = {
        let store = api.store.lock().unwrap();
        let missed: Vec<Value> = store
            .objects
            .iter()
            .filter(|((r, _), o)| r == resource && selected(query, o))
            .map(|(_, o)| o.clone())
            .filter(|o| o["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > from)
            .collect();
        (missed, api.changes.subscribe())
    };
    let first = futures::stream::iter(missed.into_iter().map(|o| line("ADDED", &o)).collect::<Vec<_>>());
    let (resource, query) = (resource.to_owned(), query.to_owned());
    let rest = futures::stream::unfold((changes, resource, query), |(mut changes, resource, query)| async move {
        loop {
            let (of, kind, object) = changes.recv().await.ok()?;
            if of == resource && selected(&query, &object) {
                return Some((line(kind, &object), (changes, resource, query)));
            }
        }
    });
    Body::from_stream(futures::StreamExt::chain(first, rest)).into_response()
}

fn line(kind: &str, object: &Value) -> Result<Bytes, std::convert::Infallible> {
    Ok(Bytes::from(format!("{}\n", json!({"type": kind, "object": object}))))
}
