//! What a client likes to be answered in, by its `Accept` header.

use coracle_proto::{protobuf, status::Status};
use http::{HeaderMap, header};

use crate::status_of::Result;

/// What of objects an answer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Whole objects.
    Whole,
    /// Rows of a table.
    Table(MetaVersion),
    /// Only the metadata.
    Metadata(MetaVersion),
}

/// The version of `meta.k8s.io` that tables and metadata are of; but for its name, and how its lists are numbered in protobuf,
/// there is no difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// What clients of today ask for.
    V1,
    /// What older ones do.
    V1beta1,
}

impl MetaVersion {
    fn of(text: &str) -> Option<Self> {
        match text {
            "v1" => Some(Self::V1),
            "v1beta1" => Some(Self::V1beta1),
            _ => None,
        }
    }

    /// As `apiVersion` says it.
    #[must_use]
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// The bytes it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// Encodings in the order in which they are tried where the client has no preference.
const GIVEN: [Encoding; 3] = [Encoding::Json, Encoding::Yaml, Encoding::Protobuf];

/// Encodings of watches; events of YAML could not be told apart.
const STREAMED: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];

impl Encoding {
    /// Its media type.
    #[must_use]
    pub const fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => protobuf::MEDIA,
        }
    }

    /// The media type of a watch in it.
    ///
    /// # Errors
    /// 406 for one that events cannot be told apart in.
    pub fn stream_media(self) -> Result<&'static str> {
        match self {
            // Kubernetes says no more of JSON.
            Self::Json => Ok("application/json"),
            Self::Protobuf => Ok("application/vnd.kubernetes.protobuf;stream=watch"),
            Self::Yaml => Err(Box::new(Status::not_acceptable(&STREAMED))),
        }
    }

    fn is_meant(self, clause: &Clause<'_>) -> bool {
        let (main, sub) = self.media().split_once('/').unwrap_or_default();
        (clause.main == main && (clause.sub == sub || clause.sub == "*")) || (clause.main == "*" && clause.sub == "*")
    }

    /// The encoding of answers that have one form only: statuses, reviews, scales, discovery. None when the client takes none
    /// of them.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let accept = accept(headers);
        if accept.is_empty() {
            return Some(Self::Json);
        }
        let clauses = clauses(accept);
        let allowed = |clause: &Clause<'_>, encoding| clause.form(encoding, true) == Some(Form::Whole);
        clauses.iter().find_map(|c| GIVEN.into_iter().find(|e| e.is_meant(c) && allowed(c, *e)))
    }
}

/// The form and encoding of an answer about objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// What is shown.
    pub form: Form,
    /// In which bytes.
    pub encoding: Encoding,
}

impl Accepted {
    /// What the client likes best of what there is, as Kubernetes' `NegotiateOutputMediaType` chooses it. Whole objects of
    /// some kinds, custom ones above all, have no protobuf.
    ///
    /// # Errors
    /// 406 when it takes none.
    pub fn of(headers: &HeaderMap, has_protobuf: impl FnOnce() -> bool) -> Result<Self> {
        let accept = accept(headers);
        if accept.is_empty() {
            return Ok(Self { form: Form::Whole, encoding: Encoding::Json });
        }
        let has_protobuf = accept.contains("protobuf") && has_protobuf();
        let found = clauses(accept).iter().find_map(|clause| {
            let mut meant = GIVEN.into_iter().filter(|encoding| encoding.is_meant(clause));
            meant.find_map(|encoding| clause.form(encoding, has_protobuf).map(|form| Self { form, encoding }))
        });
        found.ok_or_else(|| Box::new(not_acceptable()))
    }
}

/// What is told to who takes nothing of what there is.
pub(crate) fn not_acceptable() -> Status {
    Status::not_acceptable(&GIVEN.map(Encoding::media))
}

fn accept(headers: &HeaderMap) -> &str {
    headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// One media type of the header.
#[derive(Debug)]
struct Clause<'a> {
    main: &'a str,
    sub: &'a str,
    quality: f64,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Clause<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';');
        let name = parts.next().unwrap_or_default().trim_matches(' ');
        let (main, sub) = name.split_once('/').or((name == "*").then_some(("*", "*")))?;
        if sub.is_empty() || sub.contains('/') {
            return None;
        }
        let (mut quality, mut parameters) = (1.0, Vec::new());
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim_matches(' ') {
                "q" => quality = value.trim_matches(' ').parse().unwrap_or(0.0),
                name => parameters.push((name, value.trim_matches(' '))),
            }
        }
        Some(Self { main: main.trim_matches(' '), sub: sub.trim_matches(' '), quality, parameters })
    }

    fn parameter(&self, wanted: &str) -> Option<&'a str> {
        self.parameters.iter().rev().find(|(name, _)| *name == wanted).map(|(_, value)| *value)
    }

    /// What the clause asks for in an encoding, if there is that.
    fn form(&self, encoding: Encoding, has_protobuf: bool) -> Option<Form> {
        let is =
            |name: &str, wanted: &str| self.parameter(name).is_none_or(|value| value.is_empty() || value == wanted);
        if !is("sv", "v1") || !is("stream", "watch") {
            return None;
        }
        let is_streamed = self.parameter("stream").is_some_and(|value| !value.is_empty());
        if is_streamed && encoding == Encoding::Yaml {
            return None;
        }
        let converted = ["as", "g", "v"].map(|name| self.parameter(name));
        match converted {
            [None, None, None] if encoding == Encoding::Protobuf && !has_protobuf => None,
            [None, None, None] => Some(Form::Whole),
            [Some("Table"), Some("meta.k8s.io"), Some(version)] if encoding != Encoding::Protobuf => {
                MetaVersion::of(version).map(Form::Table)
            }
            [Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("meta.k8s.io"), Some(version)] => {
                MetaVersion::of(version).map(Form::Metadata)
            }
            _ => None,
        }
    }

    /// Whether the clause goes before another: this is Kubernetes' order (`goautoneg`), which is none in which every two have
    /// a fixed place.
    fn precedes(&self, other: &Self) -> bool {
        self.quality > other.quality || (self.main != "*" && other.main == "*") || (self.sub != "*" && other.sub == "*")
    }
}

/// The header's clauses, the best first. Sorted by insertion, as Go sorts few things, because of what
/// [`Clause::precedes`] is.
fn clauses(accept: &str) -> Vec<Clause<'_>> {
    let mut sorted: Vec<Clause<'_>> = Vec::new();
    // More than these no client means.
    for clause in accept.split(',').filter_map(Clause::read).take(64) {
        let later = sorted.iter().rev().take_while(|before| clause.precedes(before)).count();
        sorted.insert(sorted.len() - later, clause);
    }
    sorted
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

    fn accepted(accept: &str, has_protobuf: bool) -> Option<(Form, Encoding)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
        Accepted::of(&headers, || has_protobuf).ok().map(|accepted| (accepted.form, accepted.encoding))
    }

    #[test]
    fn the_best_that_is_given_is_taken() {
        use Encoding::{Json, Protobuf, Yaml};
        use Form::Whole;
        let (table, metadata) = (Form::Table(MetaVersion::V1), Form::Metadata(MetaVersion::V1));
        let old = (Form::Table(MetaVersion::V1beta1), Json);
        for (accept, built_in, custom) in [
            ("", Some((Whole, Json)), Some((Whole, Json))),
            ("*/*", Some((Whole, Json)), Some((Whole, Json))),
            ("*", Some((Whole, Json)), Some((Whole, Json))),
            ("application/*", Some((Whole, Json)), Some((Whole, Json))),
            ("application/yaml", Some((Whole, Yaml)), Some((Whole, Yaml))),
            ("application/json; charset=utf-8", Some((Whole, Json)), Some((Whole, Json))),
            ("application/vnd.kubernetes.protobuf", Some((Whole, Protobuf)), None),
            ("application/vnd.kubernetes.protobuf,application/json", Some((Whole, Protobuf)), Some((Whole, Json))),
            ("application/vnd.kubernetes.protobuf, */*", Some((Whole, Protobuf)), Some((Whole, Json))),
            ("*/*, application/vnd.kubernetes.protobuf", Some((Whole, Protobuf)), Some((Whole, Json))),
            ("application/vnd.kubernetes.protobuf;q=0.5,application/json", Some((Whole, Json)), Some((Whole, Json))),
            ("application/json;q=0.1,application/yaml;q=0.2", Some((Whole, Yaml)), Some((Whole, Yaml))),
            ("application/vnd.kubernetes.protobuf;stream=watch", Some((Whole, Protobuf)), None),
            ("application/json;stream=other", None, None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some((table, Json)), Some((table, Json))),
            (
                "application/json;as=Table;v=v2;g=meta.k8s.io, application/json",
                Some((Whole, Json)),
                Some((Whole, Json)),
            ),
            // As clients say who also know servers of before 2019.
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json", Some(old), Some(old)),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", None, None),
            ("application/json;as=Secret;v=v1;g=meta.k8s.io", None, None),
            // Metadata is no custom object, whatever it is of.
            (METADATA, Some((metadata, Protobuf)), Some((metadata, Protobuf))),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1beta1",
                Some((Form::Metadata(MetaVersion::V1beta1), Protobuf)),
                Some((Form::Metadata(MetaVersion::V1beta1), Protobuf)),
            ),
            ("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v2", None, None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1beta1;g=meta.k8s.io", None, None),
            ("text/html", None, None),
            ("application/cbor", None, None),
            ("application", None, None),
            (",;q=,/,a/b/c", None, None),
        ] {
            assert_eq!(accepted(accept, true), built_in, "{accept}");
            assert_eq!(accepted(accept, false), custom, "{accept}, custom");
        }
    }

    #[test]
    fn a_status_is_given_in_what_the_client_takes() {
        let of = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            Encoding::of(&headers)
        };
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), Some(Encoding::Protobuf));
        assert_eq!(of(&format!("{METADATA},application/json")), Some(Encoding::Json));
        assert_eq!(of(METADATA), None);
        assert_eq!(of("text/html"), None);
        assert_eq!(of("application/yaml"), Some(Encoding::Yaml));
        assert_eq!(Encoding::of(&HeaderMap::new()), Some(Encoding::Json));
    }

    #[test]
    fn a_watch_is_json_or_protobuf() {
        assert_eq!(Encoding::Yaml.stream_media().unwrap_err().code, 406);
        assert_eq!(Encoding::Protobuf.stream_media().unwrap(), "application/vnd.kubernetes.protobuf;stream=watch");
    }
}
