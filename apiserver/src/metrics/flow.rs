//! The figures of priority and fairness, named as Kubernetes names them. A label is a schema's or level's name, which
//! needs no escape and of which there are as many as there are objects.

use std::{fmt::Display, sync::atomic::Ordering};

use coracle_process::metrics::Page;

use crate::flow::{Counters, FlowControl, Level, REASONS};

fn labels(of: &Counters) -> String {
    format!("flow_schema=\"{}\",priority_level=\"{}\"", of.schema, of.level)
}

/// Writes them.
pub(super) fn write(flow: &FlowControl, out: &mut Page) {
    let counters = flow.counters();
    schemas(&counters, out);
    levels(&flow.levels(), out);
}

fn schemas(counters: &[std::sync::Arc<Counters>], out: &mut Page) {
    let mut each = |name: &str, kind: &str, help: &str, value: &dyn Fn(&Counters) -> i64| {
        out.head(name, kind, help);
        for of in counters {
            out.line(name, format_args!("{{{}}}", labels(of)), value(of));
        }
    };
    let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    each(
        "apiserver_flowcontrol_dispatched_requests_total",
        "counter",
        "[BETA] Number of requests executed by API Priority and Fairness subsystem",
        &|of| count(of.dispatched.load(Ordering::Relaxed)),
    );
    each(
        "apiserver_flowcontrol_current_inqueue_requests",
        "gauge",
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        &|of| of.waiting.load(Ordering::Relaxed),
    );
    each(
        "apiserver_flowcontrol_current_executing_requests",
        "gauge",
        "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API \
         Priority and Fairness subsystem",
        &|of| of.executing.load(Ordering::Relaxed),
    );
    each(
        "apiserver_flowcontrol_current_executing_seats",
        "gauge",
        "[BETA] Concurrency (number of seats) occupied by the currently executing requests of limited priority levels",
        &|of| of.seats.load(Ordering::Relaxed),
    );
    let name = "apiserver_flowcontrol_rejected_requests_total";
    out.head(name, "counter", "[BETA] Number of requests rejected by API Priority and Fairness subsystem");
    for of in counters {
        for (reason, count) in REASONS.iter().zip(&of.rejected) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                out.line(name, format_args!("{{{},reason=\"{reason}\"}}", labels(of)), count);
            }
        }
    }
    let name = "apiserver_flowcontrol_request_wait_duration_seconds";
    out.head(name, "histogram", "[BETA] Length of time a request spent waiting in its queue");
    for of in counters {
        for (execute, waited) in [("true", &of.waited), ("false", &of.waited_in_vain)] {
            let labels = format!("execute=\"{execute}\",{}", labels(of));
            waited.write(out, name, &labels);
        }
    }
    let name = "apiserver_flowcontrol_request_execution_seconds";
    out.head(name, "histogram", "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem");
    for of in counters {
        of.executed.write(out, name, &labels(of));
    }
}

fn levels(levels: &[std::sync::Arc<Level>], out: &mut Page) {
    let mut each = |name: &str, help: &str, value: &dyn Fn(&Level) -> u32| {
        out.head(name, "gauge", help);
        for level in levels {
            let value: &dyn Display = &value(level);
            out.line(name, format_args!("{{priority_level=\"{}\"}}", level.name), value);
        }
    };
    each(
        "apiserver_flowcontrol_nominal_limit_seats",
        "[BETA] Nominal number of execution seats configured for each priority level",
        &|level| level.bounds().nominal,
    );
    each(
        "apiserver_flowcontrol_lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        &|level| level.bounds().least,
    );
    each(
        "apiserver_flowcontrol_upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        &|level| level.bounds().most,
    );
    each(
        "apiserver_flowcontrol_current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        &Level::limit,
    );
    each(
        "apiserver_flowcontrol_demand_seats",
        "[ALPHA] Seats in use and waited for at each priority level now",
        &Level::demand,
    );
}
