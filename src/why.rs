//! What an object waits for, since when, and what a person can do about it: pure functions of the object, of what belongs to
//! it, and of the events about it. `coracle why` asks the cluster for these and prints the answer.

pub(crate) mod node;
pub(crate) mod pod;
pub(crate) mod service;
pub(crate) mod volume_claim;
pub(crate) mod workload;

use k8s_openapi::{api::core::v1::Event, jiff::Timestamp};

/// What is known of why an object is as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What the object does or waits for: a sentence's second half, after its name.
    pub(crate) state: String,
    /// Since when.
    pub(crate) since: Option<Timestamp>,
    /// What the cluster itself says of it, in its own words.
    pub(crate) words: Option<String>,
    /// What a person can do; whole sentences, or nothing when there is nothing to do.
    pub(crate) advice: String,
}

impl Answer {
    /// One that begins `since` then.
    pub(crate) fn new(state: impl Into<String>, since: Option<Timestamp>) -> Self {
        Self { state: state.into(), since, ..Self::default() }
    }

    /// With the cluster's own words.
    pub(crate) fn saying(mut self, words: Option<&str>) -> Self {
        self.words = words.map(str::trim).filter(|words| !words.is_empty()).map(str::to_owned);
        self
    }

    /// With what a person can do.
    pub(crate) fn advising(mut self, advice: impl Into<String>) -> Self {
        self.advice = advice.into();
        self
    }

    /// The paragraph about `subject`, as in "Pod default/web".
    pub(crate) fn paragraph(&self, subject: &str, now: Timestamp) -> String {
        let mut text = format!("{subject} {}", self.state);
        if let Some(since) = self.since {
            text.push_str(&format!(", for {} (since {})", span(now, since), since.strftime("%Y-%m-%dT%H:%M:%SZ")));
        }
        if let Some(words) = &self.words {
            text.push_str(": ");
            text.push_str(words);
        }
        if !text.ends_with(['.', '!', '?']) {
            text.push('.');
        }
        if !self.advice.is_empty() {
            text.push(' ');
            text.push_str(&self.advice);
        }
        text
    }
}

/// How long ago, in the largest two units: `3m12s`.
fn span(now: Timestamp, since: Timestamp) -> String {
    let seconds = now.duration_since(since).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// When an event happened last.
pub(crate) fn time_of(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    last.or_else(|| event.series.as_ref()?.last_observed_time.as_ref().map(|time| time.0))
        .or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// The latest event with one of these reasons.
pub(crate) fn latest<'a>(events: &'a [Event], reasons: &[&str]) -> Option<&'a Event> {
    let fits = |event: &&Event| event.reason.as_deref().is_some_and(|reason| reasons.contains(&reason));
    events.iter().filter(fits).max_by_key(|event| time_of(event))
}

/// An event's message.
pub(crate) fn message(event: Option<&Event>) -> Option<&str> {
    event?.message.as_deref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_paragraph() {
        let at = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let answer = Answer::new("waits for a node", Some(at(0))).saying(Some("no room\n")).advising("Make room.");
        let text = answer.paragraph("Pod default/web", at(192));
        assert_eq!(
            text,
            "Pod default/web waits for a node, for 3m12s (since 2027-01-15T08:00:00Z): no room. Make room."
        );
        assert_eq!(Answer::new("runs.", None).paragraph("It", at(0)), "It runs.");
        for (seconds, want) in [(-5, "0s"), (59, "59s"), (3_700, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(span(at(seconds), at(0)), want);
        }
    }
}
