//! Events: what happened to an object, for people.
//!
//! The same events are served in two shapes, of the core group and of `events.k8s.io`; they are stored in the core
//! shape, and `conversion` translates.

mod conversion;
mod validation;

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Event as CoreEvent, events::v1::Event};

pub use conversion::{from_core, to_core};
use validation::Group;

use super::{
    blank::{drop_blank, text},
    cells, object_reference,
};
use crate::kind::{Column, NAME, Strategy};
use coracle_proto::{field::Errors, resource::Resource};

/// The strategy of the core group's `events`.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreEvents;

/// The strategy of `events.events.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events;

const COLUMNS: &[Column] = &[
    cells::column("Last Seen", "The time at which the most recent occurrence of this event was recorded."),
    cells::column("Type", "Type of this event (Normal, Warning), new types could be added in the future"),
    cells::column("Reason", "Why the object is in its state, in one word for machines."),
    cells::column("Object", "The object that this event is about."),
    cells::wide("Subobject", "The part of the object that this event is about, as a field path."),
    cells::wide("Source", "The component reporting this event."),
    cells::column("Message", "A human-readable description of the status of this operation."),
    cells::wide("First Seen", "The time at which the event was first recorded."),
    cells::wide("Count", "The number of times this event has occurred."),
    Column { priority: 1, ..NAME },
];

fn default(object: &mut CoreEvent) {
    drop_blank(&mut object.action);
    drop_blank(&mut object.count);
    drop_blank(&mut object.message);
    drop_blank(&mut object.reason);
    drop_blank(&mut object.type_);
    object_reference::drop_blanks(&mut object.involved_object);
    if let Some(related) = &mut object.related {
        object_reference::drop_blanks(related);
    }
    // These are written out even when there is nothing in them.
    let source = object.source.get_or_insert_default();
    drop_blank(&mut source.component);
    drop_blank(&mut source.host);
    object.reporting_component.get_or_insert_default();
    object.reporting_instance.get_or_insert_default();
}

/// The values of field selectors; both groups' names select over the core shape.
fn fields(object: &CoreEvent) -> Vec<(&'static str, String)> {
    let about = &object.involved_object;
    let source = object.source.as_ref().map_or("", |source| text(&source.component));
    let reporter = text(&object.reporting_component);
    let source = if source.is_empty() { reporter } else { source };
    [
        ("involvedObject.kind", text(&about.kind)),
        ("involvedObject.namespace", text(&about.namespace)),
        ("involvedObject.name", text(&about.name)),
        ("involvedObject.uid", text(&about.uid)),
        ("involvedObject.apiVersion", text(&about.api_version)),
        ("involvedObject.resourceVersion", text(&about.resource_version)),
        ("involvedObject.fieldPath", text(&about.field_path)),
        ("reason", text(&object.reason)),
        ("reportingComponent", reporter),
        ("source", source),
        ("type", text(&object.type_)),
    ]
    .into_iter()
    .map(|(name, value)| (name, value.to_owned()))
    .collect()
}

fn first_of<'a>(a: &'a str, b: &'a str) -> &'a str {
    if a.is_empty() { b } else { a }
}

fn source(object: &CoreEvent) -> String {
    let source = object.source.clone().unwrap_or_default();
    let component = first_of(text(&source.component), text(&object.reporting_component));
    let host = first_of(text(&source.host), text(&object.reporting_instance));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

fn row(object: &CoreEvent, now: Timestamp) -> Vec<serde_json::Value> {
    let first = object.first_timestamp.as_ref().map(|t| t.0).or(object.event_time.as_ref().map(|t| t.0));
    let (last, count) = match &object.series {
        Some(series) => (series.last_observed_time.as_ref().map(|t| t.0), series.count.unwrap_or(0)),
        None => (object.last_timestamp.as_ref().map(|t| t.0).or(first), object.count.unwrap_or(1)),
    };
    let about = &object.involved_object;
    let kind = text(&about.kind).to_lowercase();
    let target = match text(&about.name) {
        "" => kind,
        name => format!("{kind}/{name}"),
    };
    vec![
        cells::since(last, now).into(),
        text(&object.type_).into(),
        text(&object.reason).into(),
        target.into(),
        text(&about.field_path).into(),
        source(object).into(),
        text(&object.message).trim().into(),
        cells::since(first, now).into(),
        count.into(),
        cells::name(&object.metadata),
    ]
}

impl Strategy for CoreEvents {
    type Object = CoreEvent;

    fn resource(&self) -> &'static Resource {
        super::row_of("", "events")
    }

    fn name_rule(&self) -> coracle_proto::name::NameRule {
        coracle_proto::name::path_segment_rule
    }

    fn default(&self, object: &mut CoreEvent) {
        default(object);
    }

    fn validate(&self, object: &CoreEvent) -> Errors {
        validation::validate(object, Group::Core)
    }

    fn validate_update(&self, new: &CoreEvent, old: &CoreEvent) -> Errors {
        validation::validate_update(new, old, Group::Core)
    }

    fn fields(&self, object: &CoreEvent) -> Vec<(&'static str, String)> {
        fields(object)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &CoreEvent, now: Timestamp) -> Vec<serde_json::Value> {
        row(object, now)
    }
}

impl Strategy for Events {
    type Object = Event;

    fn resource(&self) -> &'static Resource {
        super::row_of("events.k8s.io", "events")
    }

    fn name_rule(&self) -> coracle_proto::name::NameRule {
        coracle_proto::name::path_segment_rule
    }

    fn default(&self, object: &mut Event) {
        let mut core = to_core(object.clone());
        default(&mut core);
        *object = from_core(core);
    }

    fn is_stored_as_shown(&self) -> bool {
        false
    }

    fn to_stored(&self, object: &Event) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(to_core(object.clone()))
    }

    fn from_stored(&self, stored: &[u8]) -> serde_json::Result<Event> {
        serde_json::from_slice(stored).map(from_core)
    }

    fn validate(&self, object: &Event) -> Errors {
        validation::validate(&to_core(object.clone()), Group::Events)
    }

    fn validate_update(&self, new: &Event, old: &Event) -> Errors {
        validation::validate_update(&to_core(new.clone()), &to_core(old.clone()), Group::Events)
    }

    fn fields(&self, object: &Event) -> Vec<(&'static str, String)> {
        let core = fields(&to_core(object.clone()));
        let renamed = core.into_iter().filter_map(|(name, value)| {
            let name = match name {
                "involvedObject.kind" => "regarding.kind",
                "involvedObject.namespace" => "regarding.namespace",
                "involvedObject.name" => "regarding.name",
                "involvedObject.uid" => "regarding.uid",
                "involvedObject.apiVersion" => "regarding.apiVersion",
                "involvedObject.resourceVersion" => "regarding.resourceVersion",
                "involvedObject.fieldPath" => "regarding.fieldPath",
                "reportingComponent" => "reportingController",
                "reason" | "type" => name,
                _ => return None,
            };
            Some((name, value))
        });
        renamed.collect()
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &Event, now: Timestamp) -> Vec<serde_json::Value> {
        row(&to_core(object.clone()), now)
    }
}

#[cfg(test)]
mod tests;
