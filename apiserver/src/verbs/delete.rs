//! DELETE of one object and of many.

use axum::body::Body;
use coracle_proto::{
    field::{self, Path},
    status::{Details, Status},
};
use http::{Request, Response, StatusCode};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use super::{Call, options::dry_run_of};
use crate::{
    answer, body,
    registry::{Deleted, ListOptions, Selection},
    status_of::Result,
    stored::Header,
};

/// Kinds whose deletion answers with the object rather than with a status, as Kubernetes' stores have it.
const RETURNED: &[&str] = &["pods", "services", "serviceaccounts"];

const POLICIES: &[&str] = &["Foreground", "Background", "Orphan", ""];

/// The options of the body, or those of the query when there is no body; and whether it is a dry run.
pub(super) async fn options(call: &Call, request: Request<Body>) -> Result<(DeleteOptions, bool)> {
    let media = body::media_type(request.headers());
    let bytes = body::read(request).await?;
    let query = &call.info.query;
    let bad = |why: String| Box::new(Status::bad_request(why));
    let options: DeleteOptions = if bytes.is_empty() {
        let text = |name: &str| query.find(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let grace = match text("gracePeriodSeconds") {
            None => None,
            Some(text) => Some(
                text.parse::<i64>().map_err(|_| bad(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))?,
            ),
        };
        DeleteOptions {
            grace_period_seconds: grace,
            propagation_policy: text("propagationPolicy"),
            orphan_dependents: text("orphanDependents").map(|_| query.flag("orphanDependents")),
            dry_run: Some(query.all("dryRun").map(str::to_owned).collect()),
            ..DeleteOptions::default()
        }
    } else {
        let json = body::to_json(&media, bytes)?;
        serde_json::from_slice(&json).map_err(|error| bad(format!("couldn't read the DeleteOptions: {error}")))?
    };
    let mut dry_run = options.dry_run.clone().unwrap_or_default();
    dry_run.extend(query.all("dryRun").filter(|value| !value.is_empty()).map(str::to_owned));
    let dry_run = dry_run_of(dry_run.iter().map(String::as_str), "DeleteOptions")?;
    validate(&options)?;
    Ok((options, dry_run))
}

fn validate(options: &DeleteOptions) -> Result<()> {
    let path = Path::new("propagationPolicy");
    let policy = options.propagation_policy.as_deref();
    let mut errors = Vec::new();
    if options.orphan_dependents.is_some() && policy.is_some() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(field::Error::invalid(&path, policy.unwrap_or_default(), why));
    }
    if let Some(policy) = policy.filter(|policy| !POLICIES.contains(policy)) {
        errors.push(field::Error::not_supported(&path, policy, &["Foreground", "Background", "Orphan", "nil"]));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Box::new(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors)))
}

pub(super) async fn one(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let (options, dry_run) = options(call, request).await?;
    let (own, writer) = (call.clone(), call.deleter(dry_run));
    let deleted =
        call.to_its_end(async move { own.registry().delete(&own.kind, own.at(), &options, &writer).await }).await?;
    let resource = call.kind.resource();
    Ok(match deleted {
        Deleted::Gone(entry) if !(resource.group.is_empty() && RETURNED.contains(&resource.plural)) => {
            let header = Header::of(&entry);
            let details = Details {
                name: header.name.clone(),
                group: resource.group.to_owned(),
                kind: resource.plural.to_owned(),
                uid: header.uid.clone(),
                ..Details::default()
            };
            let mut status = Status::success(Some(details));
            status.code = 0;
            answer::json_value(StatusCode::OK, &success(&status))
        }
        Deleted::Gone(entry) | Deleted::Marked(entry) => call.shape().one(StatusCode::OK, &entry)?,
    })
}

/// A success has no code in its body.
pub(super) fn success(status: &Status) -> serde_json::Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(object) = value.as_object_mut().filter(|object| object.get("code") == Some(&0.into())) {
        object.remove("code");
    }
    value
}

pub(super) async fn collection(call: &Call, request: Request<Body>) -> Result<Response<Body>> {
    let selection = Selection::of(&call.kind, &call.info)?;
    let wanted = ListOptions::of(&call.info)?;
    let (options, dry_run) = options(call, request).await?;
    call.registry().settle(wanted.settled()).await?;
    let listed = call.registry().list(&call.namespace, &selection, &*call.kind, &wanted).await?;
    let (own, writer, entries) = (call.clone(), call.deleter(dry_run), listed.entries.clone());
    call.to_its_end(async move { own.registry().delete_all(&own.kind, &entries, &options, &writer).await }).await?;
    call.shape().list(&listed)
}
