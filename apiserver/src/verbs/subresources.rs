//! What hangs below objects: status, scale, finalize, binding, what else of a pod may be changed; eviction is in `eviction`.

use axum::body::Body;
use coracle_proto::{
    apply::{BuiltIn, Duplicates, validate},
    field::{self, Path},
    status::Status,
};
use coracle_store::Entry;
use http::{Request, Response, StatusCode};
use k8s_openapi::{
    api::core::v1::{Binding, Pod, PodCondition},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    Call, eviction,
    options::{PatchKind, WriteOptions},
    patch,
};
use crate::{
    admission::topology_labels,
    answer, body,
    ops::{BoxObject, KindOps, Part},
    ownership::Config,
    registry::{Change, Current},
    status_of::{self, Result},
};

pub(super) async fn dispatch(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let resource = call.kind.resource();
    let name = call.info.subresource.as_str();
    let Some(subresource) = resource.subresource(name) else {
        return Err(Box::new(Status::no_such_path()));
    };
    let verb = call.info.verb.as_str();
    if !subresource.verbs.contains(&verb) {
        return Err(Box::new(Status::method_not_allowed()));
    }
    match (name, verb) {
        ("status", "get") => call.get().await,
        ("status", "update") => call.update(Part::Status, request).await,
        ("status", "patch") => patch::patch(call, Part::Status, request).await,
        ("finalize", "update") => call.update(Part::Finalize, request).await,
        ("approval", "get") => call.get().await,
        ("approval", "update") => call.update(Part::Approval, request).await,
        ("approval", "patch") => patch::patch(call, Part::Approval, request).await,
        ("ephemeralcontainers" | "resize", "get") => call.get().await,
        ("ephemeralcontainers", "update") => call.update(Part::EphemeralContainers, request).await,
        ("ephemeralcontainers", "patch") => patch::patch(call, Part::EphemeralContainers, request).await,
        ("resize", "update") => call.update(Part::Resize, request).await,
        ("resize", "patch") => patch::patch(call, Part::Resize, request).await,
        ("scale", "get") => {
            let (namespace, name) = call.at();
            let entry = call.registry().get(&*call.kind, namespace, name, "").await?;
            let object = call.registry().object_of(&*call.kind, &entry)?;
            Ok(answer::json_value(StatusCode::OK, &scale(&*call.kind, &object)?))
        }
        ("scale", "update" | "patch") => set_scale(call, request).await,
        ("binding", "create") => bind(call, request).await,
        ("eviction", "create") => eviction::evict(call, request).await,
        _ => Err(Box::new(Status::not_here_yet(&format!("{}/{name}", resource.group_resource())))),
    }
}

/// The object that the request's body is.
pub(super) async fn read<T: DeserializeOwned>(request: Request<Body>, kind: &str) -> Result<T> {
    let media = body::media_type(request.headers());
    let json = body::to_json(&media, body::read(request).await?)?;
    serde_json::from_slice(&json).map_err(|error| {
        let message = format!("{kind} in version \"v1\" cannot be handled as a {kind}: json: {error}");
        Box::new(Status::bad_request(message))
    })
}

fn scale(kind: &dyn KindOps, object: &BoxObject) -> Result<Value> {
    let scale = kind.scale(&**object).ok_or_else(|| Box::new(Status::no_such_path()))?;
    let meta = object.meta();
    let shown = ObjectMeta {
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        creation_timestamp: meta.creation_timestamp.clone(),
        ..ObjectMeta::default()
    };
    Ok(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": shown, "spec": {"replicas": scale.replicas},
        "status": {"replicas": scale.current, "selector": scale.selector},
    }))
}

/// What a client wants of a Scale: by PUT the whole, by PATCH what becomes of the current one.
enum Wanted {
    Whole(Value),
    Patch(patch::Patch),
}

/// The configuration of a kind that a configuration of its Scale stands for.
fn unscaled(kind: &dyn KindOps, value: &Value, force: bool) -> Result<Config> {
    let bad = |why: String| Box::new(Status::bad_request(why));
    let is = |name: &str, expected: &str| value.get(name).and_then(Value::as_str) == Some(expected);
    if !is("apiVersion", "autoscaling/v1") || !is("kind", "Scale") {
        return Err(bad("invalid object type: only autoscaling/v1, Kind=Scale can be applied to scale".to_owned()));
    }
    if let Some(place) = BuiltIn::of_kind("autoscaling", "v1", "Scale") {
        validate(place, value, Duplicates::Refused)
            .map_err(|why| status_of::untyped("autoscaling/v1, Kind=Scale", &why.to_string()))?;
    }
    let resource = kind.resource();
    let mut metadata = value.get("metadata").cloned().unwrap_or_else(|| json!({}));
    if let Some(fields) = metadata.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
    }
    let mut parent = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": metadata});
    if let (Some(replicas), Some(parent)) = (value.pointer("/spec/replicas"), parent.as_object_mut()) {
        parent.insert("spec".to_owned(), json!({"replicas": replicas}));
    }
    Ok(Config::new(kind, parent, force))
}

/// The autoscaling group's row for messages and patches about a Scale itself.
const SCALE: coracle_proto::resource::Resource = coracle_proto::resource::Resource {
    group: "autoscaling",
    version: "v1",
    kind: "Scale",
    list_kind: "",
    plural: "scales",
    singular: "scale",
    short_names: &[],
    categories: &[],
    scope: coracle_proto::resource::Scope::Namespaced,
    verbs: &[],
    subresources: &[],
    storage: "",
};

fn scaled(kind: &dyn KindOps, current: &Current<'_>, wanted: &Wanted) -> Result<BoxObject> {
    let mut object = current.object.copied();
    let name = object.meta().name.clone().unwrap_or_default();
    let wanted = match wanted {
        Wanted::Whole(whole) => whole.clone(),
        Wanted::Patch(patch) => patch.apply(scale(kind, &object)?, &SCALE, &name)?,
    };
    let replicas = match wanted.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(value) => value.as_i64().and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
            let message = "Scale in version \"v1\" cannot be handled as a Scale: json: spec.replicas is no int32";
            Box::new(Status::bad_request(message))
        })?,
    };
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let error = field::Error::invalid(&path, replicas, "must be greater than or equal to 0");
        return Err(Box::new(Status::invalid("autoscaling", "Scale", &name, &[error])));
    }
    let meta = object.meta_mut();
    if let Some(given) = wanted.pointer("/metadata/name").and_then(Value::as_str).filter(|given| *given != name) {
        let message = format!("the name of the object ({given}) does not match the name on the URL ({name})");
        return Err(Box::new(Status::bad_request(message)));
    }
    let version = wanted.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    meta.resource_version = Some(version.to_owned());
    if let Some(uid) = wanted.pointer("/metadata/uid").and_then(Value::as_str).filter(|uid| !uid.is_empty()) {
        meta.uid = Some(uid.to_owned());
    }
    kind.set_scale(&mut *object, replicas);
    Ok(object)
}

async fn set_scale(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let media = body::media_type(request.headers());
    if call.info.verb == "patch" && media == patch::APPLY {
        return apply_scale(call, request).await;
    }
    let (options, wanted) = if call.info.verb == "patch" {
        let options = WriteOptions::of_patch(&call.info.query, PatchKind::Other)?;
        (options, Wanted::Patch(patch::Patch::read(&media, &body::read(request).await?)?.0))
    } else {
        let options = WriteOptions::of(&call.info.query, "UpdateOptions")?;
        let json = body::to_json(&media, body::read(request).await?)?;
        let value = serde_json::from_slice(&json)
            .map_err(|error| Box::new(Status::bad_request(format!("Scale in version \"v1\": json: {error}"))))?;
        (options, Wanted::Whole(value))
    };
    let (own, writer) = (call.clone(), call.writer(&options));
    let written = call
        .to_its_end(async move {
            let change = |current: &Current<'_>| scaled(&*own.kind, current, &wanted);
            own.registry().update(&own.kind, own.at(), Change::Scale, &writer, change).await
        })
        .await?;
    shown(call, &written)
}

async fn apply_scale(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let options = WriteOptions::of_patch(&call.info.query, PatchKind::Apply)?;
    let (config, _) = patch::config(&body::read(request).await?, &options)?;
    let (own, writer) = (call.clone(), call.writer(&options));
    let written = call
        .to_its_end(async move {
            let config = unscaled(&*own.kind, &config, options.force)?;
            own.registry().apply_scale(&own.kind, own.at(), &config, &writer).await
        })
        .await?;
    shown(call, &written)
}

fn shown(call: &Call, written: &Entry) -> Result<Response<Body>> {
    let object = call.registry().object_of(&*call.kind, written)?;
    Ok(answer::json_value(StatusCode::OK, &scale(&*call.kind, &object)?))
}

/// The answer to a creation that leaves nothing to show.
pub(super) fn created() -> Response<Body> {
    let mut value = serde_json::to_value(Status::success(None)).unwrap_or_default();
    if let Some(object) = value.as_object_mut() {
        object.insert("code".to_owned(), 201.into());
    }
    answer::json_value(StatusCode::CREATED, &value)
}

fn bound(current: &Current<'_>, binding: &Binding, now: jiff::Timestamp) -> Result<BoxObject> {
    let mut object = current.object.copied();
    let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() else {
        return Err(Box::new(Status::no_such_path()));
    };
    let name = pod.metadata.name.clone().unwrap_or_default();
    let conflict = |why: String| Err(Box::new(Status::conflict("", "pods/binding", &name, &why)));
    if binding.metadata.uid.as_ref().is_some_and(|uid| !uid.is_empty() && Some(uid) != pod.metadata.uid.as_ref()) {
        let (asked, is) = (binding.metadata.uid.clone(), pod.metadata.uid.clone());
        return conflict(format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            asked.unwrap_or_default(),
            is.unwrap_or_default()
        ));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let node = binding.target.name.clone().unwrap_or_default();
    let spec = pod.spec.get_or_insert_default();
    if let Some(other) = spec.node_name.as_ref().filter(|other| !other.is_empty()) {
        return conflict(format!("pod {name} is already assigned to node {other:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name = Some(node);
    if let Some(annotations) = &binding.metadata.annotations {
        pod.metadata.annotations.get_or_insert_default().extend(annotations.clone());
    }
    if let Some(labels) = &binding.metadata.labels {
        pod.metadata.labels.get_or_insert_default().extend(labels.clone());
    }
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
    object.meta_mut().resource_version = None;
    Ok(object)
}

/// POST of a binding to its pod.
async fn bind(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let binding: Binding = read(request, "Binding").await?;
    bind_pod(call, &call.info.name, binding).await
}

/// POST of a binding to its namespace: the pod is the one that is called as the binding is.
pub(super) async fn bind_by_name(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    if (call.info.verb.as_str(), call.info.names_object) != ("create", false) {
        return Err(Box::new(Status::method_not_allowed()));
    }
    let binding: Binding = read(request, "Binding").await?;
    let namespace = binding.metadata.namespace.as_deref().unwrap_or_default();
    if !namespace.is_empty() && namespace != call.namespace {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Box::new(Status::bad_request(message)));
    }
    let name = binding.metadata.name.clone().unwrap_or_default();
    if name.is_empty() {
        let error = field::Error::required(&Path::new("metadata").child("name"), "name or generateName is required");
        return Err(Box::new(Status::invalid("", "Binding", "", &[error])));
    }
    bind_pod(call, &name, binding).await
}

async fn bind_pod(call: &Call, name: &str, mut binding: Binding) -> Result<Response<Body>> {
    let options = WriteOptions::of(&call.info.query, "CreateOptions")?;
    let target = Path::new("target");
    let mut errors = Vec::new();
    if let Some(kind) = binding.target.kind.as_deref().filter(|kind| !kind.is_empty() && *kind != "Node") {
        errors.push(field::Error::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if binding.target.name.as_ref().is_none_or(String::is_empty) {
        errors.push(field::Error::required(&target.child("name"), ""));
    }
    if !errors.is_empty() {
        return Err(Box::new(Status::invalid("", "Binding", name, &errors)));
    }
    let place = topology_labels::of_node(call.registry(), binding.target.name.as_deref().unwrap_or_default())?;
    if !place.is_empty() {
        binding.metadata.labels.get_or_insert_default().extend(place);
    }
    let (own, writer, name) = (call.clone(), call.writer(&options), name.to_owned());
    call.to_its_end(async move {
        let change = |current: &Current<'_>| bound(current, &binding, writer.now);
        own.registry().update(&own.kind, (&own.namespace, &name), Change::Own, &writer, change).await
    })
    .await?;
    Ok(created())
}
