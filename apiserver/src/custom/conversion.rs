//! Conversion between a definition's versions by its webhook: ConversionReview (apiextensions.k8s.io/v1 and v1beta1).
//!
//! All objects of a list that are of another version are sent in one review. What comes back is theirs but for its
//! metadata: of that only labels and annotations are taken.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use coracle_proto::{
    field::{self, Path},
    json::type_name,
    meta,
};
use k8s_openapi::{
    api::admissionregistration::v1 as hooks,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::{
        CustomResourceDefinition as Definition, WebhookClientConfig,
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    defaults,
    kind::Schemas,
    prune::{self, Nulls},
};
use crate::{
    ops::TypeMeta,
    upstream::connect::Tasks,
    webhook::{Answer, Client, MAX_ANSWER},
};

/// As long as a review may take. A definition cannot ask for another limit.
const LIMIT: Duration = Duration::from_secs(30);

/// The versions of ConversionReview that are spoken.
const SPOKEN: &[&str] = &["v1", "v1beta1"];

/// Why objects could not be had in another version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("conversion webhook for {what} {why}")]
pub struct ConversionError {
    what: String,
    why: String,
}

/// Asks one definition's webhook.
#[derive(Debug)]
pub struct Converter {
    client: Result<Client, String>,
    /// The version of ConversionReview it is sent.
    review: Option<&'static str>,
    /// The `apiVersion` that objects are stored with.
    storage: String,
    schemas: Arc<Schemas>,
}

fn client_config(config: &WebhookClientConfig) -> hooks::WebhookClientConfig {
    // A bundle of nothing but white space is none.
    let bundle = config.ca_bundle.clone().filter(|bundle| !bundle.0.iter().all(u8::is_ascii_whitespace));
    hooks::WebhookClientConfig {
        ca_bundle: bundle,
        service: config.service.clone().map(|service| hooks::ServiceReference {
            name: service.name,
            namespace: service.namespace,
            path: service.path,
            port: service.port,
        }),
        url: config.url.clone(),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    uid: String,
    converted_objects: Option<Vec<Value>>,
    result: Outcome,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Outcome {
    status: String,
    message: String,
}

/// The objects of an answer to the review `uid` in `version`.
fn converted(version: &str, uid: &str, body: &[u8]) -> Result<Vec<Value>, String> {
    let failed = |why: String| Err(format!("failed: {why}"));
    let answer: Answer<Response> = match serde_json::from_slice(body) {
        Ok(answer) => answer,
        Err(error) => return failed(format!("the answer cannot be read: {error}")),
    };
    // The older version was never held to name itself and the review.
    let strict = version == "v1";
    if strict && let Err(why) = answer.is_of("apiextensions.k8s.io/v1", "ConversionReview") {
        return failed(why);
    }
    let Some(response) = answer.response else { return failed("no response provided".to_owned()) };
    if strict && response.uid != uid {
        return failed(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    match response.result {
        Outcome { status, .. } if status == "Success" => Ok(response.converted_objects.unwrap_or_default()),
        Outcome { message, .. } if !message.is_empty() => failed(message),
        Outcome { status, .. } => failed(format!("response.result.status was '{status}', not 'Success'")),
    }
}

fn text<'v>(object: &'v Map<String, Value>, pointer: &[&str]) -> &'v str {
    let Some((first, rest)) = pointer.split_first() else { return "" };
    let found = rest.iter().try_fold(object.get(*first), |value, name| Some(value?.get(name)));
    found.flatten().and_then(Value::as_str).unwrap_or_default()
}

/// Checks that it is the same object still.
fn check_identity(before: &Map<String, Value>, after: &Map<String, Value>) -> Result<(), String> {
    for (what, pointer) in [
        ("kind", &["kind"][..]),
        ("name", &["metadata", "name"]),
        ("namespace", &["metadata", "namespace"]),
        ("UID", &["metadata", "uid"]),
    ] {
        let (was, is) = (text(before, pointer), text(after, pointer));
        if was != is {
            return Err(format!("must have the same {what}: {was} != {is}"));
        }
    }
    Ok(())
}

/// Puts the metadata of before back, with the labels and annotations of after.
fn restore_meta(before: &Map<String, Value>, after: &mut Map<String, Value>) -> Result<(), String> {
    let given = match after.remove("metadata") {
        None => return Err("missing metadata in converted object".to_owned()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(format!("invalid metadata of type {} in converted object", type_name(&other))),
    };
    let mut meta = before.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for name in ["labels", "annotations"] {
        let new = match given.get(name) {
            None | Some(Value::Null) => {
                meta.remove(name);
                continue;
            }
            Some(Value::Object(new)) => new,
            Some(other) => {
                return Err(format!("invalid metadata.{name} of type {} in converted object", type_name(other)));
            }
        };
        let mut strings = BTreeMap::new();
        for (key, value) in new {
            let Value::String(value) = value else {
                let is = type_name(value);
                return Err(format!("metadata.{name}[{key}] must be a string, but is {is} in converted object"));
            };
            strings.insert(key.clone(), value.clone());
        }
        if meta.get(name).and_then(Value::as_object) != Some(new) {
            let path = Path::new("metadata");
            let errors = if name == "labels" {
                meta::validate_labels(&strings, &path.child("labels"))
            } else {
                // Kubernetes' word.
                meta::validate_annotations(&strings, &path.child("annotation"))
            };
            if !errors.is_empty() {
                return Err(field::aggregate(&errors));
            }
        }
        meta.insert(name.to_owned(), Value::Object(new.clone()));
    }
    after.insert("metadata".to_owned(), Value::Object(meta));
    Ok(())
}

impl Converter {
    /// The converter of a definition whose strategy is `Webhook`; nothing is connected yet.
    pub(super) fn new(
        definition: &Definition,
        storage: String,
        schemas: Arc<Schemas>,
        store: &coracle_store::Store,
        tasks: &Tasks,
    ) -> Option<Self> {
        let conversion = definition.spec.conversion.as_ref().filter(|conversion| conversion.strategy == "Webhook")?;
        let webhook = conversion.webhook.as_ref()?;
        let config = client_config(webhook.client_config.as_ref()?);
        let known = |version: &String| SPOKEN.iter().find(|spoken| *spoken == version).copied();
        Some(Self {
            client: Client::new(&config, store, tasks),
            review: webhook.conversion_review_versions.iter().find_map(known),
            storage,
            schemas,
        })
    }

    /// The `apiVersion` that objects are stored with.
    pub(crate) fn storage(&self) -> &str {
        &self.storage
    }

    /// The objects, none of which is of the version `to`, in that version.
    ///
    /// # Errors
    /// Why there is no answer, or not one that can be used; in Kubernetes' words.
    ///
    /// # Cancel safety
    /// Safe; the webhook may have had the request.
    pub(crate) async fn convert(&self, to: &str, objects: &[&[u8]]) -> Result<Vec<Vec<u8>>, ConversionError> {
        let Some(first) = objects.first() else { return Ok(Vec::new()) };
        let said: TypeMeta = serde_json::from_slice(first).unwrap_or_default();
        let what = format!("{}, Kind={}", said.api_version, said.kind);
        let ask = async {
            let before = objects.iter().map(|object| self.read(object)).collect::<Result<Vec<_>, String>>()?;
            let after = self.ask(to, &before).await?;
            if after.len() != before.len() {
                return Err(format!("returned {} objects, expected {}", after.len(), before.len()));
            }
            let is_one = before.len() == 1;
            let checked = before.iter().zip(after).enumerate();
            checked.map(|(index, (before, after))| self.checked(to, before, after, (index, is_one))).collect()
        };
        ask.await.map_err(|why| ConversionError { what, why })
    }

    /// A stored object with the defaults of its own version.
    fn read(&self, object: &[u8]) -> Result<Map<String, Value>, String> {
        let mut content: Map<String, Value> =
            serde_json::from_slice(object).map_err(|error| format!("failed: {error}"))?;
        if let Some(schema) = self.schemas.get(text(&content, &["apiVersion"])) {
            defaults::fill(&mut content, schema);
        }
        Ok(content)
    }

    async fn ask(&self, to: &str, objects: &[Map<String, Value>]) -> Result<Vec<Value>, String> {
        let Some(version) = self.review else {
            return Err("failed: no supported conversion review versions".to_owned());
        };
        let client = self.client.as_ref().map_err(|why| format!("failed: could not get REST client: {why}"))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview", "apiVersion": format!("apiextensions.k8s.io/{version}"),
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let body = Bytes::from(review.to_string());
        // The same objects in other words, and room to spare.
        let room = MAX_ANSWER.saturating_add(body.len().saturating_mul(2));
        let answer = client.post(body, LIMIT, room).await.map_err(|why| format!("failed: {why}"))?;
        converted(version, &uid, &answer)
    }

    /// A converted object, if it is one; the message names it as Kubernetes names one alone or one of several.
    fn checked(
        &self,
        to: &str,
        before: &Map<String, Value>,
        after: Value,
        (index, is_one): (usize, bool),
    ) -> Result<Vec<u8>, String> {
        let converted = if is_one { "" } else { "converted " };
        let invalid = |why: String| format!("returned invalid {converted}object at index {index}: {why}");
        let Value::Object(mut after) = after else {
            return Err(invalid(format!("it is of type {}", type_name(&after))));
        };
        let is = text(&after, &["apiVersion"]);
        if is != to {
            return Err(invalid(format!("invalid groupVersion (expected {to}, received {is})")));
        }
        let (was, is) = (text(before, &["kind"]), text(&after, &["kind"]));
        if was != is {
            return Err(invalid(format!("invalid kind (expected {was}, received {is})")));
        }
        check_identity(before, &after)
            .map_err(|why| if is_one { format!("returned invalid object: {why}") } else { invalid(why) })?;
        restore_meta(before, &mut after).map_err(|why| {
            if is_one {
                format!("returned invalid metadata: {why}")
            } else {
                format!("returned invalid metadata in object at index {index}: {why}")
            }
        })?;
        if let Some(schema) = self.schemas.get(to) {
            prune::object(&mut after, schema, Nulls::Dropped);
        }
        serde_json::to_vec(&after).map_err(|error| invalid(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
