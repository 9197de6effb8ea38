//! What `metrics.k8s.io` tells of nodes and containers alike: amounts of what is used, and how a table shows them.

use std::collections::BTreeMap;

use coracle_proto::quantity::{Format, Quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;
use serde_json::Value;

use crate::kind::Column;

const CPU: &str = "cpu";
const MEMORY: &str = "memory";

/// Amounts by what they are of: `cpu` in cores and `memory` in bytes.
pub(crate) type Usage = BTreeMap<String, ApiQuantity>;

/// So many billionths of a core, and so many bytes.
pub(crate) fn usage(cpu: u64, memory: u64) -> Usage {
    let whole = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
    let cpu = Quantity::from_nanos(whole(cpu));
    let memory = Quantity::new(whole(memory), Format::BinarySi);
    [(CPU, cpu), (MEMORY, memory)].map(|(name, amount)| (name.to_owned(), amount.into())).into()
}

const fn column(name: &'static str, format: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format, priority: 0, description }
}

/// The columns as metrics-server has them.
pub(super) const COLUMNS: &[Column] = &[
    column("Name", "name", "Name of the resource"),
    column(CPU, "quantity", ""),
    column(MEMORY, "quantity", ""),
    column("Window", "duration", ""),
];

/// The cells of one line, which sums up what several use.
pub(super) fn cells<'u>(name: Value, used: impl IntoIterator<Item = &'u Usage>, window: &str) -> Vec<Value> {
    let mut sums = [(CPU, Quantity::ZERO), (MEMORY, Quantity::ZERO)];
    for usage in used {
        for (name, sum) in &mut sums {
            // What is no amount was not written by this server.
            *sum += usage.get(*name).and_then(|amount| Quantity::try_from(amount).ok()).unwrap_or_default();
        }
    }
    let [cpu, memory] = sums.map(|(_, sum)| sum.to_string().into());
    vec![name, cpu, memory, window.into()]
}

/// Makes a type one of the group's kinds: its names, its metadata, and JSON that says what it is. The last field is what one
/// kind has and the other has not.
macro_rules! metrics_kind {
    ($kind:ident, $plural:literal, $scope:ty, $content:ident) => {
        impl k8s_openapi::Resource for $kind {
            const API_VERSION: &'static str = "metrics.k8s.io/v1beta1";
            const GROUP: &'static str = "metrics.k8s.io";
            const KIND: &'static str = stringify!($kind);
            const VERSION: &'static str = "v1beta1";
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = $scope;
        }

        impl k8s_openapi::Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeStruct as _;
                let mut object = serializer.serialize_struct(stringify!($kind), 6)?;
                object.serialize_field("kind", k8s_openapi::kind(self))?;
                object.serialize_field("apiVersion", k8s_openapi::api_version(self))?;
                object.serialize_field("metadata", &self.metadata)?;
                object.serialize_field("timestamp", &self.timestamp)?;
                object.serialize_field("window", &self.window)?;
                object.serialize_field(stringify!($content), &self.$content)?;
                object.end()
            }
        }
    };
}

pub(super) use metrics_kind;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_as_metrics_server_writes_them() {
        for (cpu, memory, shown) in [
            (0, 0, ("0", "0")),
            (1, 1023, ("1n", "1023")),
            (123_456_789, 12_288, ("123456789n", "12Ki")),
            (250_000_000, 1 << 20, ("250m", "1Mi")),
            (2_000_000_000, 5 << 30, ("2", "5Gi")),
            (u64::MAX, u64::MAX, ("9223372036854775807n", "9223372036854775807")),
        ] {
            let usage = usage(cpu, memory);
            assert_eq!((usage[CPU].0.as_str(), usage[MEMORY].0.as_str()), shown);
        }
    }
}
