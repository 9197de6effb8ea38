//! The messages that objects travel in, and the small ones that are a single value in JSON.
//!
//! Their fields are optional, as Go writes those that are no pointers though they are zero.

use prost::{Message, bytes::Bytes};

/// `runtime.Unknown`: what is around an object.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Unknown {
    #[prost(message, optional, tag = "1")]
    pub(super) type_meta: Option<TypeMeta>,
    /// The object's own message.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub(super) raw: Option<Bytes>,
    #[prost(string, optional, tag = "3")]
    pub(super) content_encoding: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) content_type: Option<String>,
}

/// `runtime.TypeMeta`. (`meta.v1.TypeMeta` has its fields the other way round.)
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeMeta {
    #[prost(string, optional, tag = "1")]
    pub(super) api_version: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub(super) kind: Option<String>,
}

/// `meta.v1.WatchEvent`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchEvent {
    #[prost(string, optional, tag = "1")]
    pub(super) kind: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) object: Option<Raw>,
}

/// Bytes that are something else inside: `runtime.RawExtension`, `meta.v1.FieldsV1`, `apiextensions.v1.JSON`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Raw {
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub(super) raw: Option<Bytes>,
}

/// `meta.v1.Time` and `meta.v1.MicroTime`, since 1970.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Time {
    #[prost(int64, optional, tag = "1")]
    pub(super) seconds: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(super) nanos: Option<i32>,
}

/// `resource.Quantity`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Quantity {
    #[prost(string, optional, tag = "1")]
    pub(super) text: Option<String>,
}

/// `intstr.IntOrString`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct IntOrString {
    /// 0 the number counts, 1 the text.
    #[prost(int64, optional, tag = "1")]
    pub(super) kind: Option<i64>,
    #[prost(int32, optional, tag = "2")]
    pub(super) number: Option<i32>,
    #[prost(string, optional, tag = "3")]
    pub(super) text: Option<String>,
}

/// A list of texts that may be there and empty: `meta.v1.Verbs`, `authorization.v1.ExtraValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Items {
    #[prost(string, repeated, tag = "1")]
    pub(super) items: Vec<String>,
}
