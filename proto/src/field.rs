//! Field paths and field errors, as Kubernetes' validation words them.
//!
//! Validation collects every error of an object before it answers, so a person mends a manifest in one go. The words are
//! those of Kubernetes' `field` package, because clients and people match on them.

use std::fmt;

/// Where in an object something is: `spec.containers[0].ports[1].name`.
///
/// Paths are built downwards from a root and are cheap to extend; the text is the one Kubernetes prints.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Path(String);

impl Path {
    /// The path of a top-level field; an empty name is the object itself.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The path of the field `name` inside this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { self.with(&[".", name]) }
    }

    /// The path of the list element `index` of this field.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.with(&["[", &index.to_string(), "]"])
    }

    /// The path of the map entry `key` of this field.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.with(&["[", key, "]"])
    }

    /// Validation makes a path for every field it looks at, and mostly throws it away; `format!` would be most of its time.
    fn with(&self, parts: &[&str]) -> Self {
        let mut text = String::with_capacity(self.0.len() + parts.iter().map(|part| part.len()).sum::<usize>());
        text.push_str(&self.0);
        parts.iter().for_each(|part| text.push_str(part));
        Self(text)
    }

    /// The text of the path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field; each is a `reason` of a `StatusCause`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// `FieldValueNotFound`: the value names something that is not there.
    NotFound,
    /// `FieldValueRequired`: a value must be given.
    Required,
    /// `FieldValueDuplicate`: the value stands elsewhere already.
    Duplicate,
    /// `FieldValueInvalid`: the value breaks a rule.
    Invalid,
    /// `FieldValueNotSupported`: the value is not one of the allowed ones.
    NotSupported,
    /// `FieldValueForbidden`: the field may not be set (or changed) here.
    Forbidden,
    /// `FieldValueTooLong`: more bytes than allowed.
    TooLong,
    /// `FieldValueTooMany`: more items than allowed.
    TooMany,
    /// `InternalError`: the check itself could not be made.
    Internal,
    /// `FieldValueTypeInvalid`: the value is of another JSON type.
    TypeInvalid,
    /// `FieldValueInvalid`: the text is none of the field's type. Kubernetes' decoders refuse the whole object then, before
    /// anybody looks for what else is wrong with it.
    Unreadable,
}

impl ErrorKind {
    /// The `reason` of a status cause.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid | Self::Unreadable => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One thing wrong with one field. `message` is the cause's text without the path: `Invalid value: -1: must be …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Where.
    pub path: Path,
    /// What kind of wrong.
    pub kind: ErrorKind,
    /// The text behind `path: `.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for Error {}

/// A value as Kubernetes prints it inside a field error: strings quoted, scalars bare, the rest as JSON.
fn show(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "null".to_owned(),
        other => other.to_string(),
    }
}

fn with_detail(head: String, detail: &str) -> String {
    if detail.is_empty() { head } else { format!("{head}: {detail}") }
}

impl Error {
    /// `Required value: detail`.
    #[must_use]
    pub fn required(path: &Path, detail: &str) -> Self {
        let message = with_detail("Required value".to_owned(), detail);
        Self { path: path.clone(), kind: ErrorKind::Required, message }
    }

    /// `Invalid value: <value>: detail`.
    #[must_use]
    pub fn invalid(path: &Path, value: impl Into<serde_json::Value>, detail: &str) -> Self {
        let message = with_detail(format!("Invalid value: {}", show(&value.into())), detail);
        Self { path: path.clone(), kind: ErrorKind::Invalid, message }
    }

    /// What the decoder says of a text that it cannot read.
    #[must_use]
    pub fn unreadable(path: &Path, why: &str) -> Self {
        Self { path: path.clone(), kind: ErrorKind::Unreadable, message: why.to_owned() }
    }

    /// `Invalid value: detail`, of a value that would be too much to print.
    #[must_use]
    pub fn invalid_untold(path: &Path, detail: &str) -> Self {
        let message = with_detail("Invalid value".to_owned(), detail);
        Self { path: path.clone(), kind: ErrorKind::Invalid, message }
    }

    /// `Duplicate value: <value>`.
    #[must_use]
    pub fn duplicate(path: &Path, value: impl Into<serde_json::Value>) -> Self {
        let message = format!("Duplicate value: {}", show(&value.into()));
        Self { path: path.clone(), kind: ErrorKind::Duplicate, message }
    }

    /// `Not found: <value>`.
    #[must_use]
    pub fn not_found(path: &Path, value: impl Into<serde_json::Value>) -> Self {
        let message = format!("Not found: {}", show(&value.into()));
        Self { path: path.clone(), kind: ErrorKind::NotFound, message }
    }

    /// `Unsupported value: <value>: supported values: "A", "B"`; the values stand as they are given: Kubernetes sorts those of some fields.
    #[must_use]
    pub fn not_supported(path: &Path, value: impl Into<serde_json::Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let head = format!("Unsupported value: {}", show(&value.into()));
        let message = if list.is_empty() { head } else { format!("{head}: supported values: {}", list.join(", ")) };
        Self { path: path.clone(), kind: ErrorKind::NotSupported, message }
    }

    /// `Forbidden: detail`.
    #[must_use]
    pub fn forbidden(path: &Path, detail: &str) -> Self {
        let message = with_detail("Forbidden".to_owned(), detail);
        Self { path: path.clone(), kind: ErrorKind::Forbidden, message }
    }

    /// `Too long: may not be more than <max> bytes`.
    #[must_use]
    pub fn too_long(path: &Path, max: usize) -> Self {
        let message = format!("Too long: may not be more than {max} bytes");
        Self { path: path.clone(), kind: ErrorKind::TooLong, message }
    }

    /// `Too many: <actual>: must have at most <max> items`.
    #[must_use]
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {max} {items}");
        Self { path: path.clone(), kind: ErrorKind::TooMany, message }
    }

    /// `Invalid value: <value>: field is immutable`.
    #[must_use]
    pub fn immutable(path: &Path, value: impl Into<serde_json::Value>) -> Self {
        Self::invalid(path, value, "field is immutable")
    }
}

/// Every error found in one object.
pub type Errors = Vec<Error>;

/// The errors as one text, as Kubernetes joins an aggregate: one bare, several as `[a, b]`, repeats once.
#[must_use]
pub fn aggregate(errors: &[Error]) -> String {
    let mut seen = Vec::new();
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    match seen.as_slice() {
        [only] => only.clone(),
        many => format!("[{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_messages_are_kubernetes_words() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(Error::required(&path, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            Error::invalid(&path, "A b", "no spaces").to_string(),
            "spec.containers[0].name: Invalid value: \"A b\": no spaces"
        );
        let policy = Path::new("spec").child("restartPolicy");
        assert_eq!(
            Error::not_supported(&policy, "x", &["Never", "Always"]).to_string(),
            "spec.restartPolicy: Unsupported value: \"x\": supported values: \"Never\", \"Always\""
        );
    }

    #[test]
    fn an_aggregate_names_each_error_once() {
        let path = Path::new("metadata").key("a/b");
        let errors = vec![Error::required(&path, "x"), Error::required(&path, "x"), Error::forbidden(&path, "no")];
        assert_eq!(aggregate(&errors), "[metadata[a/b]: Required value: x, metadata[a/b]: Forbidden: no]");
        assert_eq!(aggregate(&errors[..1]), "metadata[a/b]: Required value: x");
    }
}
