//! The figures of admission, named as Kubernetes names them.

use std::collections::BTreeMap;

use coracle_process::metrics::Page;

use crate::admission::{CallKind, Calls, Figures};

/// Writes them.
pub(super) fn write(figures: &Figures, out: &mut Page) {
    let name = "apiserver_admission_step_admission_duration_seconds";
    out.head(name, "histogram", "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).");
    for (step, durations) in figures.steps() {
        for (operation, is_refused, histogram) in durations.each() {
            let (step, operation) = (step.as_str(), operation.as_str());
            let labels = format!("operation=\"{operation}\",rejected=\"{is_refused}\",type=\"{step}\"");
            histogram.write(out, name, &labels);
        }
    }
    let name = "apiserver_admission_controller_admission_duration_seconds";
    out.head(name, "histogram", "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).");
    for (plugin, step, durations) in figures.plugins() {
        for (operation, is_refused, histogram) in durations.each() {
            let (step, operation) = (step.as_str(), operation.as_str());
            let labels =
                format!("name=\"{plugin}\",operation=\"{operation}\",rejected=\"{is_refused}\",type=\"{step}\"");
            histogram.write(out, name, &labels);
        }
    }
    figures.webhooks(|calls| webhooks(calls, out));
}

/// A label's value: a webhook's name may hold what must be escaped.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn webhooks(all: &BTreeMap<CallKind, Calls>, out: &mut Page) {
    let labelled = |(name, step, operation): &CallKind| {
        format!("name=\"{}\",operation=\"{}\",type=\"{}\"", escaped(name), operation.as_str(), step.of_webhooks())
    };
    let name = "apiserver_admission_webhook_admission_duration_seconds";
    out.head(name, "histogram", "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).");
    for (kind, calls) in all {
        for (is_refused, histogram) in [false, true].into_iter().zip(&calls.took) {
            histogram.write(out, name, &format!("{},rejected=\"{is_refused}\"", labelled(kind)));
        }
    }
    let name = "apiserver_admission_webhook_request_total";
    out.head(name, "counter", "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or mutating) and operation. Additional labels specify whether the request was rejected or not and an HTTP status code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.");
    for (kind, calls) in all {
        for ((code, is_refused), count) in &calls.codes {
            out.line(name, format_args!("{{code=\"{code}\",{},rejected=\"{is_refused}\"}}", labelled(kind)), count);
        }
    }
    let name = "apiserver_admission_webhook_rejection_count";
    out.head(name, "counter", "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.");
    for (kind, calls) in all {
        for ((code, _), count) in calls.codes.iter().filter(|((_, is_refused), _)| *is_refused) {
            let error = if *code == 0 { "calling_webhook_error" } else { "no_error" };
            let labels = format_args!("{{error_type=\"{error}\",{},rejection_code=\"{code}\"}}", labelled(kind));
            out.line(name, labels, count);
        }
    }
    let name = "apiserver_admission_webhook_fail_open_count";
    out.head(name, "counter", "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or mutating).");
    let mut open: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for ((webhook, step, _), calls) in all.iter().filter(|(_, calls)| calls.failed_open > 0) {
        *open.entry((webhook, step.of_webhooks())).or_default() += calls.failed_open;
    }
    for ((webhook, step), count) in open {
        out.line(name, format_args!("{{name=\"{}\",type=\"{step}\"}}", escaped(webhook)), count);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admission::{
        Operation, figures,
        figures::{CallEnd, Step},
    };

    #[test]
    fn calls_of_webhooks_are_told_by_how_they_ended() {
        let figures = figures();
        let took = Duration::from_millis(30);
        for end in [CallEnd::Passed, CallEnd::Refused(403), CallEnd::Refused(9999), CallEnd::FailedClosed] {
            figures.called(("a\"b".to_owned(), Step::Validate, Operation::Create), end, took);
        }
        figures.called(("open".to_owned(), Step::Admit, Operation::Update), CallEnd::FailedOpen, took);
        let mut out = Page::default();
        write(&figures, &mut out);
        let own = "name=\"a\\\"b\",operation=\"CREATE\",type=\"validating\"";
        let prefix = "apiserver_admission_webhook";
        for line in [
            format!("{prefix}_admission_duration_seconds_count{{{own},rejected=\"true\"}} 3"),
            format!("{prefix}_admission_duration_seconds_bucket{{{own},rejected=\"false\",le=\"0.1\"}} 1"),
            format!("{prefix}_request_total{{code=\"403\",{own},rejected=\"true\"}} 1"),
            format!("{prefix}_rejection_count{{error_type=\"no_error\",{own},rejection_code=\"600\"}} 1"),
            format!("{prefix}_rejection_count{{error_type=\"calling_webhook_error\",{own},rejection_code=\"0\"}} 1"),
            format!("{prefix}_fail_open_count{{name=\"open\",type=\"admit\"}} 1"),
        ] {
            assert!(out.0.lines().any(|known| known == line), "{line}\n{}", out.0);
        }
    }
}
