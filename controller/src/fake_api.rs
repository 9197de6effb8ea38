//! An API server for tests, just large enough for the controllers: JSON objects in memory, watches, patches, graceful
//! ends. It can be told to fail one call.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use coracle_proto::{
    patch::{merge, strategic},
    resource::{RESOURCES, Resource, Scope},
    schema,
};
use futures::StreamExt;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::watch;

type Answer = Result<Value, (u16, &'static str, String)>;
/// Resource, namespace, name.
type Key = (&'static str, String, String);

#[derive(Default)]
struct State {
    revision: u64,
    objects: BTreeMap<Key, Value>,
    /// Revision, resource, type of event, object.
    history: Vec<(u64, &'static str, &'static str, Value)>,
    calls: BTreeMap<Call, usize>,
    failing: Option<(Call, usize)>,
    /// From which call on there is no answer.
    silent: Option<(Call, usize)>,
    made: usize,
}

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Call {
    /// To know of all objects of a kind in the cluster, now or from now on: what an informer asks, the same way for every
    /// kind.
    Look,
    /// Anything else.
    Act,
}

/// See the module. Clones share everything.
#[derive(Clone)]
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    revisions: watch::Sender<u64>,
}

/// What a path names.
struct Target {
    resource: &'static Resource,
    namespace: String,
    name: String,
    sub: String,
}

fn storage(resource: &Resource) -> &'static str {
    RESOURCES.iter().find(|r| *r == resource).map(|r| r.storage).unwrap()
}

fn target(path: &str) -> Option<Target> {
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (group, version) = match parts.remove(0) {
        "api" => (String::new(), parts.remove(0)),
        _ => (parts.remove(0).to_owned(), parts.remove(0)),
    };
    let mut namespace = String::new();
    if parts.first() == Some(&"namespaces") && parts.len() > 2 && !["finalize", "status"].contains(&parts[2]) {
        namespace = parts[1].to_owned();
        parts.drain(..2);
    }
    let resource = coracle_proto::resource::find(&group, version, parts.first()?)?;
    let part = |at: usize| parts.get(at).map(|part| (*part).to_owned()).unwrap_or_default();
    Some(Target { resource, namespace, name: part(1), sub: part(2) })
}

impl State {
    fn emit(&mut self, kind: &'static str, resource: &'static str, mut object: Value) -> Value {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.history.push((self.revision, resource, kind, object.clone()));
        object
    }

    fn put(&mut self, kind: &'static str, key: &Key, object: Value) -> Value {
        let object = self.emit(kind, key.0, object);
        self.objects.insert(key.clone(), object.clone());
        object
    }

    /// Stores a change, or lets the object go if nothing holds it any more.
    fn settle(&mut self, key: &Key, object: Value) -> Value {
        let held = |list: &Value| list.as_array().is_some_and(|list| !list.is_empty());
        let leaving = !object["metadata"]["deletionTimestamp"].is_null();
        if leaving && !held(&object["metadata"]["finalizers"]) && !held(&object["spec"]["finalizers"]) {
            self.objects.remove(key);
            return self.emit("DELETED", key.0, object);
        }
        if self.objects.get(key) == Some(&object) { object } else { self.put("MODIFIED", key, object) }
    }

    fn create(&mut self, at: &Target, mut object: Value) -> Answer {
        let namespace = self.objects.get(&("namespaces", String::new(), at.namespace.clone()));
        let name = match object["metadata"]["name"].as_str() {
            Some(name) => name.to_owned(),
            None => {
                self.made += 1;
                format!("{}{:05}", object["metadata"]["generateName"].as_str().unwrap(), self.made)
            }
        };
        let what = format!("{} {name:?}", at.resource.group_resource());
        if at.resource.scope == Scope::Namespaced {
            match namespace {
                None => return Err((404, "NotFound", format!("namespaces {:?} not found", at.namespace))),
                Some(namespace) if !namespace["metadata"]["deletionTimestamp"].is_null() => {
                    let why = format!(
                        "{what} is forbidden: unable to create new content in namespace {} because it is being terminated",
                        at.namespace
                    );
                    return Err((403, "Forbidden", why));
                }
                Some(_) => object["metadata"]["namespace"] = json!(at.namespace),
            }
        }
        let key = (storage(at.resource), at.namespace.clone(), name.clone());
        if self.objects.contains_key(&key) {
            return Err((409, "AlreadyExists", format!("{what} already exists")));
        }
        object["apiVersion"] = json!(at.resource.api_version());
        object["kind"] = json!(at.resource.kind);
        let meta = &mut object["metadata"];
        meta["name"] = json!(name);
        meta["uid"] = json!(format!("uid-{}", self.revision + 1));
        meta["generation"] = json!(1);
        meta["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        if at.resource.kind == "Namespace" {
            object["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        let created = self.put("ADDED", &key, object);
        if at.resource.kind == "Pod" {
            // The node is a good one: pods run and are ready at once.
            let mut running = created.clone();
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:01Z"});
            let ips = json!([{"ip": format!("10.42.0.{}", self.revision % 250 + 1)}]);
            running["status"] = json!({"phase": "Running", "conditions": [ready], "podIPs": ips});
            self.put("MODIFIED", &key, running);
        }
        Ok(created)
    }

    fn found(&self, at: &Target) -> Result<(Key, Value), (u16, &'static str, String)> {
        let key = (storage(at.resource), at.namespace.clone(), at.name.clone());
        match self.objects.get(&key) {
            Some(object) => Ok((key, object.clone())),
            None => Err((404, "NotFound", format!("{} {:?} not found", at.resource.group_resource(), at.name))),
        }
    }

    fn change(&mut self, at: &Target, change: impl FnOnce(Value) -> Value) -> Answer {
        let (key, old) = self.found(at)?;
        let mut new = change(old.clone());
        for field in ["uid", "resourceVersion"] {
            if new["metadata"][field] != old["metadata"][field] && !new["metadata"][field].is_null() {
                return Err((409, "Conflict", format!("{} {:?}: {field} is another", at.resource.plural, at.name)));
            }
            new["metadata"][field] = old["metadata"][field].clone();
        }
        if new["spec"] != old["spec"] {
            new["metadata"]["generation"] = json!(old["metadata"]["generation"].as_i64().unwrap() + 1);
        }
        Ok(self.settle(&key, new))
    }

    fn delete(&mut self, at: &Target, options: &Value) -> Answer {
        let (key, mut object) = self.found(at)?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err((409, "Conflict", format!("Precondition failed: {field}")));
            }
        }
        let finalizer = match options["propagationPolicy"].as_str() {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        let meta = &mut object["metadata"];
        if meta["deletionTimestamp"].is_null() {
            meta["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            if let Some(finalizer) = finalizer {
                let mut all = meta["finalizers"].as_array().cloned().unwrap_or_default();
                all.push(json!(finalizer));
                meta["finalizers"] = json!(all);
            }
        }
        Ok(self.settle(&key, object))
    }

    fn selected(&self, at: &Target, selector: &str) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|((resource, namespace, _), _)| {
            *resource == storage(at.resource) && (at.namespace.is_empty() || *namespace == at.namespace)
        });
        of_kind.map(|(_, object)| object).filter(|object| selects(selector, object)).cloned().collect()
    }
}

fn selects(selector: &str, object: &Value) -> bool {
    let Some((field, value)) = selector.split_once('=') else { return true };
    let pointer = format!("/{}", field.replace('.', "/"));
    object.pointer(&pointer).and_then(Value::as_str) == Some(value)
}

fn discovery(path: &str) -> Option<Value> {
    let of_group = |group: &str| -> Vec<Value> {
        let own = RESOURCES.iter().filter(|r| r.group == group);
        own.map(|r| {
            json!({"name": r.plural, "namespaced": r.scope == Scope::Namespaced, "kind": r.kind,
                   "singularName": r.singular, "verbs": r.verbs})
        })
        .collect()
    };
    match path.trim_matches('/').split('/').collect::<Vec<_>>().as_slice() {
        ["api", "v1"] => Some(json!({"groupVersion": "v1", "resources": of_group("")})),
        ["apis"] => {
            let mut groups: Vec<&str> = RESOURCES.iter().map(|r| r.group).filter(|group| !group.is_empty()).collect();
            groups.dedup();
            let group = |name: &&str| {
                let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
                json!({"name": name, "versions": [version], "preferredVersion": version})
            };
            Some(json!({"groups": groups.iter().map(group).collect::<Vec<_>>()}))
        }
        ["apis", group, version] => {
            Some(json!({"groupVersion": format!("{group}/{version}"), "resources": of_group(group)}))
        }
        _ => None,
    }
}

impl FakeApi {
    /// One with the namespaces named.
    pub(crate) fn new(namespaces: &[&str]) -> Self {
        let api = Self { state: Arc::default(), revisions: watch::Sender::new(0) };
        for name in namespaces {
            api.create("/api/v1/namespaces", json!({"metadata": {"name": name}}));
        }
        api
    }

    /// Has the n-th such call of clients (the first is 1) answered with an error, and nothing done.
    pub(crate) fn fail(&self, call: Call, number: usize) {
        self.lock().failing = Some((call, number));
    }

    /// Has all such calls after the n-th go without an answer, as those for a majority that is not there do for long.
    pub(crate) fn fall_silent(&self, call: Call, number: usize) {
        self.lock().silent = Some((call, number));
    }

    /// How many such calls clients have made.
    pub(crate) fn calls(&self, call: Call) -> usize {
        self.lock().calls.get(&call).copied().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn tell(&self) {
        let revision = self.lock().revision;
        self.revisions.send_if_modified(|seen| std::mem::replace(seen, revision) != revision);
    }

    /// Creates an object, as a person would.
    pub(crate) fn create(&self, path: &str, object: Value) -> Value {
        let created = self.lock().create(&target(path).unwrap(), object).unwrap();
        self.tell();
        created
    }

    /// Changes an object by merge patch, as a person would.
    pub(crate) fn patch(&self, path: &str, patch: Value) {
        let changed = self.lock().change(&target(path).unwrap(), |mut object| {
            merge::apply(&mut object, patch);
            object
        });
        changed.unwrap();
        self.tell();
    }

    /// Deletes an object, as a person would.
    pub(crate) fn delete(&self, path: &str, propagation: &str) {
        self.lock().delete(&target(path).unwrap(), &json!({"propagationPolicy": propagation})).unwrap();
        self.tell();
    }

    /// Every object of a resource.
    pub(crate) fn all(&self, resource: &str) -> Vec<Value> {
        self.lock().objects.iter().filter(|(key, _)| key.0 == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Waits until this is so, however long clients wait between their attempts; time is the test's own.
    pub(crate) async fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let mut revisions = self.revisions.subscribe();
        let waiting = async {
            loop {
                revisions.borrow_and_update();
                if so(self) {
                    return;
                }
                revisions.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(3600), waiting).await.is_err() {
            let objects = self.lock().objects.clone();
            panic!("never came to be: {what}; there is {objects:#?}");
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        Client::new(
            tower::service_fn(move |request: Request<Body>| {
                let api = api.clone();
                async move { Ok::<_, Infallible>(api.serve(request).await) }
            }),
            "default",
        )
    }

    async fn serve(&self, request: Request<Body>) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let (head, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let query: BTreeMap<String, String> = head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3D", "=").replace("%2F", "/")))
            .collect();
        let path = head.uri.path();
        let is_of_all = |at: &Target| at.name.is_empty() && at.namespace.is_empty();
        let looks =
            head.method == Method::GET && discovery(path).is_none() && target(path).as_ref().is_some_and(is_of_all);
        let call = if looks { Call::Look } else { Call::Act };
        let (fails, waits) = {
            let mut state = self.lock();
            let count = state.calls.entry(call).or_default();
            *count += 1;
            let number = *count;
            let waits = state.silent.is_some_and(|(silent, after)| silent == call && number > after);
            (state.failing == Some((call, number)), waits)
        };
        if waits {
            self.revisions.send_modify(|_| {});
            return std::future::pending().await;
        }
        if fails {
            return answered(Err((500, "InternalError", "the disk is on fire".to_owned())));
        }
        if let Some(found) = discovery(path).filter(|_| head.method == Method::GET) {
            return answered(Ok(found));
        }
        let Some(at) = target(path) else { return answered(Err((404, "NotFound", format!("{path} not found")))) };
        let selector = query.get("fieldSelector").cloned().unwrap_or_default();
        if query.contains_key("watch") {
            let from = query.get("resourceVersion").and_then(|version| version.parse().ok()).unwrap_or_default();
            return self.watch(at, from, selector);
        }
        let content_type = head.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned());
        let answer = {
            let mut state = self.lock();
            match head.method {
                Method::GET if at.name.is_empty() => {
                    let (items, revision) = (state.selected(&at, &selector), state.revision.to_string());
                    let (version, kind) = (at.resource.api_version(), at.resource.list_kind);
                    let meta = json!({"resourceVersion": revision});
                    Ok(json!({"apiVersion": version, "kind": kind, "metadata": meta, "items": items}))
                }
                Method::GET => state.found(&at).map(|(_, object)| object),
                Method::POST => state.create(&at, body),
                Method::PUT => state.change(&at, |_| body),
                Method::PATCH => {
                    let root = schema::of_kind(at.resource.group, at.resource.version, at.resource.kind);
                    let strategically = content_type.is_some_and(|given| given.contains("strategic"));
                    state.change(&at, |mut object| {
                        if strategically {
                            return strategic::apply(object, body, root).unwrap();
                        }
                        merge::apply(&mut object, body);
                        object
                    })
                }
                Method::DELETE if at.name.is_empty() => {
                    for object in state.selected(&at, &selector) {
                        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
                        let one = Target { name, namespace: at.namespace.clone(), sub: String::new(), ..at };
                        state.delete(&one, &body).unwrap();
                    }
                    Ok(json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
                }
                _ => state.delete(&at, &body),
            }
        };
        let _ = &at.sub;
        self.tell();
        answered(answer)
    }

    fn watch(&self, at: Target, from: u64, selector: String) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
        let state = Arc::clone(&self.state);
        let revisions = self.revisions.subscribe();
        let events = futures::stream::unfold((revisions, from), move |(mut revisions, seen)| {
            let (state, selector) = (Arc::clone(&state), selector.clone());
            let (resource, namespace) = (storage(at.resource), at.namespace.clone());
            async move {
                loop {
                    revisions.borrow_and_update();
                    let (lines, upto) = {
                        let state = state.lock().unwrap();
                        let news = state.history.iter().filter(|(revision, of, _, object)| {
                            *revision > seen
                                && *of == resource
                                && (namespace.is_empty() || object["metadata"]["namespace"] == json!(namespace))
                                && selects(&selector, object)
                        });
                        let lines: String = news
                            .map(|(_, _, kind, object)| format!("{}\n", json!({"type": kind, "object": object})))
                            .collect();
                        (lines, state.revision)
                    };
                    if !lines.is_empty() {
                        return Some((Ok(http_body::Frame::data(Bytes::from(lines))), (revisions, upto)));
                    }
                    revisions.changed().await.ok()?;
                }
            }
        });
        Response::new(StreamBody::new(events.boxed()).boxed_unsync())
    }
}

fn answered(answer: Answer) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let (code, body) = match answer {
        Ok(body) => (200, body),
        Err((code, reason, message)) => (
            code,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}),
        ),
    };
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}
