//! What the algorithms must know about the values at one place of an object.

use std::sync::LazyLock;

use serde_json::Value;

use crate::schema::{Field, ListType, Shape, Type};

/// What the values at a place are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// A text, number or boolean: one field that one manager owns.
    Scalar(Scalar),
    /// A list.
    List(ListIs),
    /// An object or a map.
    Map {
        /// Whether it is owned as a whole.
        atomic: bool,
    },
    /// Anything: objects are owned field by field, lists as a whole. What is below it is anything as well.
    Any,
}

/// Which scalars are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// Texts.
    String,
    /// Numbers, whole or not.
    Number,
    /// `true` and `false`.
    Boolean,
    /// Any of them (quantities, ports by name or number), or a type that is not known more exactly.
    Untyped,
    /// Not looked at: whatever is there is one field.
    Leaf,
}

/// How a list is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListIs {
    /// As a whole.
    Atomic,
    /// Each scalar by itself.
    Set,
    /// Each object by itself, told apart by [`Place::keys`].
    Map,
}

/// The knowledge about the values at one place of an object, and the way to the places below it.
///
/// Handles are small and copied freely; a root handle stands for the whole object of a kind.
pub trait Place<'a>: Copy + 'a {
    /// What is here.
    fn is(self) -> Is;

    /// The declared field `name` of a map, with its name if that lives as long as the program.
    fn field(self, name: &str) -> Option<(Option<&'static str>, Self)>;

    /// What the values of undeclared fields are (the values of a map); `None` when there may be no such fields.
    fn rest(self) -> Option<Self>;

    /// What a list's elements are.
    fn element(self) -> Option<Self>;

    /// Which fields tell a [`ListIs::Map`]'s elements apart.
    fn keys(self) -> impl Iterator<Item = &'a str>;

    /// The value of a key field that an element leaves out; `None` when it has none.
    fn key_default(self, key: &str) -> Option<Value>;

    /// Whether a declared field is always there, if only empty, as Kubernetes' own types have it: such a field is never
    /// added and so never owned itself. `None` when it can be absent; else what stands there when nobody set it.
    fn always(self, name: &str) -> Option<&'static Value> {
        let _ = name;
        None
    }
}

/// A place in a built-in kind.
#[derive(Clone, Copy, Debug)]
pub enum BuiltIn {
    /// An object of a known type.
    Type {
        /// Which.
        ty: &'static Type,
        /// Whether it is owned as a whole here.
        atomic: bool,
    },
    /// A list field.
    List(&'static Field),
    /// A map field.
    Map(&'static Field),
    /// A scalar.
    Scalar(Scalar),
    /// Anything.
    Any,
}

impl BuiltIn {
    /// The root of a built-in kind; `None` when the tables do not have it.
    #[must_use]
    pub fn of_kind(group: &str, version: &str, kind: &str) -> Option<Self> {
        crate::schema::of_kind(group, version, kind).map(|ty| Self::Type { ty, atomic: ty.atomic })
    }

    fn at(field: &'static Field) -> Self {
        match (field.shape, field.child()) {
            (Shape::Scalar, _) => Self::Scalar(Scalar::Untyped),
            (Shape::Object, Some(ty)) => Self::Type { ty, atomic: field.atomic || (ty.atomic && !field.granular) },
            (Shape::Object | Shape::Any, _) => Self::Any,
            (Shape::List, _) => Self::List(field),
            (Shape::Map, _) => Self::Map(field),
        }
    }

    /// What the elements of a list or the values of a map are.
    fn inside(field: &'static Field) -> Self {
        match field.child() {
            Some(ty) => Self::Type { ty, atomic: ty.atomic },
            // A map may hold lists of texts; the tables do not tell, and nobody owns within them.
            None => Self::Scalar(if field.shape == Shape::List { Scalar::Untyped } else { Scalar::Leaf }),
        }
    }
}

impl Place<'static> for BuiltIn {
    fn is(self) -> Is {
        match self {
            Self::Type { atomic, .. } => Is::Map { atomic },
            Self::List(field) => Is::List(match &field.list_type {
                Some(ListType::Set) => ListIs::Set,
                Some(ListType::Map(_)) => ListIs::Map,
                Some(ListType::Atomic) | None => ListIs::Atomic,
            }),
            Self::Map(field) => Is::Map { atomic: field.atomic },
            Self::Scalar(scalar) => Is::Scalar(scalar),
            Self::Any => Is::Any,
        }
    }

    fn field(self, name: &str) -> Option<(Option<&'static str>, Self)> {
        let Self::Type { ty, .. } = self else { return None };
        ty.field(name).map(|field| (Some(field.name), Self::at(field)))
    }

    fn rest(self) -> Option<Self> {
        match self {
            Self::Map(field) => Some(Self::inside(field)),
            Self::Any => Some(Self::Any),
            Self::Type { .. } | Self::List(_) | Self::Scalar(_) => None,
        }
    }

    fn element(self) -> Option<Self> {
        match self {
            Self::List(field) => Some(Self::inside(field)),
            Self::Any => Some(Self::Any),
            Self::Type { .. } | Self::Map(_) | Self::Scalar(_) => None,
        }
    }

    fn keys(self) -> impl Iterator<Item = &'static str> {
        let keys = match self {
            Self::List(Field { list_type: Some(ListType::Map(keys)), .. }) => keys.as_slice(),
            _ => &[],
        };
        keys.iter().copied()
    }

    fn key_default(self, key: &str) -> Option<Value> {
        match key {
            "protocol" => Some("TCP".into()),
            "containerPort" | "port" => Some(0.into()),
            // The one key field of all kinds that is really optional.
            "shareID" => None,
            _ => Some("".into()),
        }
    }

    fn always(self, name: &str) -> Option<&'static Value> {
        let Self::Type { ty, .. } = self else { return None };
        let among = |owners: &[&str]| owners.contains(&ty.name.rsplit('.').next().unwrap_or_default());
        let is_object = match name {
            "metadata" => true,
            "spec" | "status" => ty.field("metadata").is_some(),
            "template" => among(&[
                "DaemonSetSpec",
                "DeploymentSpec",
                "JobSpec",
                "PodTemplate",
                "ReplicaSetSpec",
                "StatefulSetSpec",
            ]),
            "jobTemplate" => among(&["CronJobSpec"]),
            "strategy" => among(&["DeploymentSpec"]),
            "updateStrategy" => among(&["DaemonSetSpec", "StatefulSetSpec"]),
            "resources" => among(&["Container", "EphemeralContainer", "PersistentVolumeClaimSpec"]),
            "loadBalancer" => among(&["IngressStatus", "ServiceStatus"]),
            "daemonEndpoints" | "nodeInfo" => among(&["NodeStatus"]),
            "kubeletEndpoint" => among(&["NodeDaemonEndpoints"]),
            "clientConfig" => among(&["MutatingWebhook", "ValidatingWebhook"]),
            "devices" => among(&["AllocationResult", "ResourceClaimSpec"]),
            "pool" => among(&["ResourceSliceSpec"]),
            "priorityLevelConfiguration" => among(&["FlowSchemaSpec"]),
            "limitResponse" => among(&["LimitedPriorityLevelConfiguration"]),
            "source" => among(&["Event", "VolumeAttachmentSpec"]),
            // Lists that Go writes as null.
            "containers" if among(&["PodSpec"]) => return Some(&NOTHING),
            "drivers" if among(&["CSINodeSpec"]) => return Some(&NOTHING),
            _ => false,
        };
        is_object.then_some(&EMPTY)
    }
}

static NOTHING: Value = Value::Null;
static EMPTY: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));

/// An object in which nobody has set anything.
#[must_use]
pub fn empty() -> &'static Value {
    &EMPTY
}
