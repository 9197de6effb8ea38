//! Probes, and what containers do when they start and stop.

use coracle_proto::{
    field::{Error, Errors, Path},
    name,
};
use k8s_openapi::{
    api::core::v1::{
        Container, ExecAction, GRPCAction, HTTPGetAction, Lifecycle, LifecycleHandler, Probe, SleepAction,
        TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use crate::kinds::{
    blank::{list, text},
    rules,
};

/// What probes and hooks have in common: at most one of these.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

/// Everything wrong with the probes and hooks of a container that runs as long as its pod. `grace` is the pod's grace
/// period in seconds.
pub(super) fn validate(errors: &mut Errors, path: &Path, container: &Container, grace: Option<i64>, os: Option<&str>) {
    if let Some(lifecycle) = &container.lifecycle {
        validate_lifecycle(errors, &path.child("lifecycle"), lifecycle, grace, os);
    }
    if let Some(probe) = &container.liveness_probe {
        validate_probe(errors, &path.child("livenessProbe"), probe, grace);
        must_succeed_once(errors, &path.child("livenessProbe"), probe);
    }
    if let Some(probe) = &container.readiness_probe {
        let at = path.child("readinessProbe");
        validate_probe(errors, &at, probe, grace);
        if let Some(seconds) = probe.termination_grace_period_seconds {
            let detail = "must not be set for readinessProbes";
            errors.push(Error::invalid(&at.child("terminationGracePeriodSeconds"), seconds, detail));
        }
    }
    if let Some(probe) = &container.startup_probe {
        validate_probe(errors, &path.child("startupProbe"), probe, grace);
        must_succeed_once(errors, &path.child("startupProbe"), probe);
    }
}

fn must_succeed_once(errors: &mut Errors, path: &Path, probe: &Probe) {
    let threshold = probe.success_threshold.unwrap_or(0);
    if threshold != 1 {
        errors.push(Error::invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

fn validate_probe(errors: &mut Errors, path: &Path, probe: &Probe, grace: Option<i64>) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    validate_handler(errors, path, &handler, grace);
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        rules::not_negative(errors, &path.child(field), number.unwrap_or(0).into());
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        rules::positive(errors, &path.child("terminationGracePeriodSeconds"), seconds);
    }
}

fn validate_lifecycle(errors: &mut Errors, path: &Path, lifecycle: &Lifecycle, grace: Option<i64>, os: Option<&str>) {
    let hooks = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
    for (field, hook) in hooks {
        if let Some(hook) = hook {
            validate_handler(errors, &path.child(field), &hook_handler(hook), grace);
        }
    }
    if let Some(signal) = &lifecycle.stop_signal {
        let at = path.child("stopSignal");
        match os {
            None => errors.push(Error::forbidden(&at, "may not be set for containers with empty `spec.os.name`")),
            Some("windows") => rules::known_word(errors, &at, signal, &["SIGKILL", "SIGTERM"]),
            Some(_) if !is_signal(signal) => errors.push(Error::not_supported(&at, signal.as_str(), SIGNALS)),
            Some(_) => {}
        }
    }
}

fn hook_handler(hook: &LifecycleHandler) -> Handler<'_> {
    Handler {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        tcp_socket: hook.tcp_socket.as_ref(),
        sleep: hook.sleep.as_ref(),
        ..Handler::default()
    }
}

const SIGNALS: &[&str] = &[
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMIN",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

/// A signal's name, or a real-time signal counted from either end.
fn is_signal(name: &str) -> bool {
    let offset = |prefix: &str, most: u8| {
        name.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok()).is_some_and(|n| (1..=most).contains(&n))
    };
    SIGNALS.contains(&name) || offset("SIGRTMIN+", 15) || offset("SIGRTMAX-", 14)
}

fn validate_handler(errors: &mut Errors, path: &Path, handler: &Handler<'_>, grace: Option<i64>) {
    let mut is_first = true;
    let mut claim = |errors: &mut Errors, at: &Path| {
        if !is_first {
            errors.push(Error::forbidden(at, "may not specify more than 1 handler type"));
        }
        std::mem::replace(&mut is_first, false)
    };
    if let Some(exec) = handler.exec {
        let at = path.child("exec");
        if claim(errors, &at) && list(&exec.command).is_empty() {
            errors.push(Error::required(&at.child("command"), ""));
        }
    }
    if let Some(http) = handler.http_get {
        let at = path.child("httpGet");
        if claim(errors, &at) {
            validate_http_get(errors, &at, http);
        }
    }
    if let Some(tcp) = handler.tcp_socket {
        let at = path.child("tcpSocket");
        if claim(errors, &at) {
            validate_port(errors, &at.child("port"), &tcp.port);
        }
    }
    if let Some(grpc) = handler.grpc {
        let at = path.child("grpc");
        if claim(errors, &at) {
            validate_port(errors, &at.child("port"), &IntOrString::Int(grpc.port));
        }
    }
    if let Some(sleep) = handler.sleep {
        let at = path.child("sleep");
        if claim(errors, &at)
            && let Some(grace) = grace
            && !(0..=grace).contains(&sleep.seconds)
        {
            let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
            errors.push(Error::invalid(&at, sleep.seconds, &detail));
        }
    }
    if is_first {
        errors.push(Error::required(path, "must specify a handler type"));
    }
}

fn validate_http_get(errors: &mut Errors, path: &Path, http: &HTTPGetAction) {
    if text(&http.path).is_empty() {
        errors.push(Error::required(&path.child("path"), ""));
    }
    validate_port(errors, &path.child("port"), &http.port);
    rules::known_word(errors, &path.child("scheme"), text(&http.scheme), &["HTTP", "HTTPS"]);
    for header in list(&http.http_headers) {
        rules::messages(errors, &path.child("httpHeaders"), &header.name, name::http_header_name(&header.name));
    }
}

/// A port's number or name.
pub(in crate::kinds) fn validate_port(errors: &mut Errors, path: &Path, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => {
            for message in name::port_number((*number).into()) {
                errors.push(Error::invalid(path, *number, &message));
            }
        }
        IntOrString::String(text) => rules::messages(errors, path, text, name::port_name(text)),
    }
}
