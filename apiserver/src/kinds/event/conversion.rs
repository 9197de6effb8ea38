//! The two shapes of an event: what `events.k8s.io` calls otherwise than the core group.

use k8s_openapi::api::{
    core::v1::{Event as CoreEvent, EventSeries as CoreEventSeries},
    events::v1::{Event, EventSeries},
};

/// The event as the core group shows it.
#[must_use]
pub fn to_core(event: Event) -> CoreEvent {
    CoreEvent {
        action: event.action,
        count: event.deprecated_count,
        event_time: event.event_time,
        first_timestamp: event.deprecated_first_timestamp,
        involved_object: event.regarding.unwrap_or_default(),
        last_timestamp: event.deprecated_last_timestamp,
        message: event.note,
        metadata: event.metadata,
        reason: event.reason,
        related: event.related,
        reporting_component: event.reporting_controller,
        reporting_instance: event.reporting_instance,
        series: event.series.map(|series| CoreEventSeries {
            count: Some(series.count),
            last_observed_time: Some(series.last_observed_time),
        }),
        source: event.deprecated_source,
        type_: event.type_,
    }
}

/// The event as `events.k8s.io` shows it.
#[must_use]
pub fn from_core(event: CoreEvent) -> Event {
    Event {
        action: event.action,
        deprecated_count: event.count,
        deprecated_first_timestamp: event.first_timestamp,
        deprecated_last_timestamp: event.last_timestamp,
        deprecated_source: event.source,
        event_time: event.event_time,
        metadata: event.metadata,
        note: event.message,
        reason: event.reason,
        regarding: Some(event.involved_object),
        related: event.related,
        reporting_controller: event.reporting_component,
        reporting_instance: event.reporting_instance,
        series: event.series.and_then(|series| {
            Some(EventSeries { count: series.count.unwrap_or(0), last_observed_time: series.last_observed_time? })
        }),
        type_: event.type_,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_the_way_to_the_other_group_and_back() {
        let event: CoreEvent = serde_json::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "d", "fieldPath": "spec.containers{c}"},
            "message": "pulled", "reason": "Pulled", "type": "Normal", "action": "Pull", "count": 3,
            "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:01:00Z",
            "eventTime": "2026-01-01T00:00:00.123456Z", "source": {"component": "kubelet", "host": "n"},
            "related": {"kind": "Node", "name": "n"}, "reportingComponent": "kubelet", "reportingInstance": "n",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:02:00.000000Z"}
        }))
        .unwrap();
        let other = from_core(event.clone());
        let json = serde_json::to_value(&other).unwrap();
        assert_eq!(json["apiVersion"], "events.k8s.io/v1");
        assert_eq!(json["note"], "pulled");
        assert_eq!(json["regarding"]["name"], "p");
        assert_eq!(json["deprecatedSource"]["host"], "n");
        assert_eq!(json["deprecatedCount"], 3);
        assert_eq!(json["reportingController"], "kubelet");
        assert_eq!(to_core(other), event);
    }
}
