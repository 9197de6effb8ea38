//! Secrets: keys and values that are nobody's business, by type.

mod key_pair;

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};

use super::{
    blank::{drop_blank, fill_text, text},
    cells, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    name,
    resource::Resource,
};

/// The strategy of `secrets`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Secrets;

/// The most that all values of a Secret or ConfigMap hold together, in bytes.
pub(super) const SIZE: usize = 1 << 20;

/// What is said when a Secret or ConfigMap that is sealed for good is changed.
pub(super) const SEALED: &str = "field is immutable when `immutable` is set";

/// The keys a type asks for. Each is needed by itself, but for basic auth, where either is enough.
fn validate_type(errors: &mut Errors, object: &Secret) {
    let path = Path::new("data");
    let value = |key: &str| object.data.as_ref().and_then(|data| data.get(key));
    let mut need = |keys: &[&str]| {
        errors.extend(keys.iter().map(|key| Error::required(&path.key(key), "")));
    };
    match text(&object.type_) {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let account = object.metadata.annotations.as_ref().and_then(|a| a.get(key));
            if account.is_none_or(String::is_empty) {
                let at = Path::new("metadata").child("annotations").key(key);
                errors.push(Error::required(&at, ""));
            }
        }
        "kubernetes.io/dockercfg" => validate_json(errors, object, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => validate_json(errors, object, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            need(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            need(&["ssh-privatekey"]);
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if value(key).is_none() {
                    need(&[key]);
                }
            }
        }
        _ => {}
    }
}

fn validate_json(errors: &mut Errors, object: &Secret, key: &str) {
    let at = Path::new("data").key(key);
    let Some(value) = object.data.as_ref().and_then(|data| data.get(key)) else {
        errors.push(Error::required(&at, ""));
        return;
    };
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&value.0) {
        // The parser's message tells the place and kind of the fault and nothing of the text itself.
        let detail = format!("line {} column {}: not a JSON object", error.line(), error.column());
        errors.push(Error::invalid(&at, "<secret contents redacted>", &detail));
    }
}

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Type", "Used to facilitate programmatic handling of secret data."),
    cells::integer("Data", "Data contains the secret data, a value a key."),
    AGE,
];

impl Strategy for Secrets {
    type Object = Secret;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "secrets")
    }

    fn default(&self, object: &mut Secret) {
        // `stringData` is only ever written: it is merged over `data` before anything else looks.
        if let Some(texts) = object.string_data.take() {
            let data = object.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
        drop_blank(&mut object.data);
        fill_text(&mut object.type_, "Opaque");
    }

    fn prepare_update(&self, new: &mut Secret, old: &Secret, _: &Context<'_>) {
        // The type may be left out of an update, which then keeps it.
        if text(&new.type_).is_empty() {
            new.type_.clone_from(&old.type_);
        }
    }

    fn warnings(&self, object: &Secret) -> Vec<String> {
        let value = |key: &str| object.data.as_ref().and_then(|data| data.get(key)).map_or(&[][..], |value| &value.0);
        let is_pair = text(&object.type_) == "kubernetes.io/tls";
        is_pair.then(|| key_pair::mismatch(value("tls.crt"), value("tls.key"))).flatten().into_iter().collect()
    }

    fn validate(&self, object: &Secret) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("data"));
        let mut size = 0;
        for (key, value) in object.data.iter().flatten() {
            rules::messages(&mut errors, &path.key(key), key, name::config_map_key(key));
            size += value.0.len();
        }
        if size > SIZE {
            errors.push(Error::too_long(&path, SIZE));
        }
        validate_type(&mut errors, object);
        errors
    }

    fn validate_update(&self, new: &Secret, old: &Secret) -> Errors {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, &Path::new("type"), &new.type_, &old.type_);
        if old.immutable == Some(true) {
            for (field, is_changed) in [("immutable", new.immutable != Some(true)), ("data", new.data != old.data)] {
                if is_changed {
                    errors.push(Error::forbidden(&Path::new(field), SEALED));
                }
            }
        }
        errors.extend(self.validate(new));
        errors
    }

    fn fields(&self, object: &Secret) -> Vec<(&'static str, String)> {
        vec![("type", text(&object.type_).to_owned())]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Secret, now: Timestamp) -> Vec<serde_json::Value> {
        let keys = object.data.as_ref().map_or(0, |d| d.len());
        vec![cells::name(&object.metadata), text(&object.type_).into(), keys.into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests;
