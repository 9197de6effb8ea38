//! Who came to the server and what with: clients' credentials, and the requests of this process's own components.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use coracle_process::metrics::{Histogram, Page, Scale};
use http::{Method, StatusCode};

use super::{CODES, code_index};

/// How long certificates are still valid, in seconds, as in Kubernetes.
static VALID: Scale = Scale::numbers(&[
    0, 1800, 3600, 7200, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800, 2_592_000, 7_776_000, 15_552_000,
    31_104_000,
]);

/// How long components wait for answers, as client-go counts it.
static WAITED: Scale = Scale::durations(&[5, 25, 100, 250, 500, 1000, 2000, 4000, 8000, 15_000, 30_000, 60_000]);

/// Users who are told apart; of all others it is told whether the name is an address.
const KNOWN: [&str; 7] =
    ["admin", "client", "email_id", "kube_proxy", "kubelet", "other", "system:serviceaccount:kube-system:default"];

const METHODS: [Method; 5] = [Method::DELETE, Method::GET, Method::PATCH, Method::POST, Method::PUT];

/// The requests of one method that components of this process made.
#[derive(Debug)]
struct Own {
    codes: [AtomicU64; CODES.len()],
    took: Histogram,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Clients {
    let_in: AtomicU64,
    refused: AtomicU64,
    users: [AtomicU64; KNOWN.len()],
    certificates: Histogram,
    own: [Own; METHODS.len()],
}

fn known(user: &str) -> &str {
    match user {
        user if KNOWN.contains(&user) => user,
        user if user.contains('@') => "email_id",
        _ => "other",
    }
}

impl Clients {
    pub(super) fn new() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            let_in: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            users: array::from_fn(zero),
            certificates: Histogram::new(&VALID),
            own: array::from_fn(|_| Own { codes: array::from_fn(zero), took: Histogram::new(&WAITED) }),
        }
    }

    /// A client's credentials were right.
    pub(crate) fn let_in(&self, user: &str) {
        self.let_in.fetch_add(1, Ordering::Relaxed);
        let user = known(user);
        if let Some(count) = KNOWN.iter().position(|known| *known == user).and_then(|at| self.users.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A client's credentials were wrong.
    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A client came with a certificate that is valid for so long.
    pub(crate) fn showed_certificate(&self, valid_for: Duration) {
        self.certificates.add(valid_for.as_secs());
    }

    /// A component of this process was answered.
    pub(crate) fn answered(&self, method: &Method, code: StatusCode, took: Duration) {
        let Some(own) = METHODS.iter().position(|known| known == method).and_then(|at| self.own.get(at)) else {
            return;
        };
        if let Some(count) = code_index(code).and_then(|at| own.codes.get(at)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        own.took.took(took);
    }

    /// Writes all of it; `host` is where the components' requests went.
    pub(super) fn write(&self, host: &str, out: &mut Page) {
        let name = "authentication_attempts";
        out.head(name, "counter", "[ALPHA] Counter of authenticated attempts.");
        for (result, count) in [("failure", &self.refused), ("success", &self.let_in)] {
            out.line(name, format_args!("{{result=\"{result}\"}}"), count.load(Ordering::Relaxed));
        }
        let name = "authenticated_user_requests";
        out.head(name, "counter", "[ALPHA] Counter of authenticated requests broken out by username.");
        for (user, count) in KNOWN.iter().zip(&self.users) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                out.line(name, format_args!("{{username=\"{user}\"}}"), count);
            }
        }
        let name = "apiserver_client_certificate_expiration_seconds";
        out.head(
            name,
            "histogram",
            "[ALPHA] Distribution of the remaining lifetime on the certificate used to authenticate a request.",
        );
        self.certificates.write(out, name, "");
        let name = "rest_client_requests_total";
        let help = "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.";
        out.head(name, "counter", help);
        for (method, own) in METHODS.iter().zip(&self.own) {
            for (code, count) in CODES.iter().zip(&own.codes) {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    let labels = format_args!("{{code=\"{code}\",host=\"{host}\",method=\"{method}\"}}");
                    out.line(name, labels, count);
                }
            }
        }
        let name = "rest_client_request_duration_seconds";
        out.head(name, "histogram", "[ALPHA] Request latency in seconds. Broken down by verb, and host.");
        for (method, own) in METHODS.iter().zip(&self.own) {
            own.took.write(out, name, &format!("host=\"{host}\",verb=\"{method}\""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users_are_not_told() {
        assert_eq!(["admin", "jane@example.com", "jane"].map(known), ["admin", "email_id", "other"]);
        let clients = Clients::new();
        clients.let_in("jane");
        clients.refused();
        clients.showed_certificate(Duration::from_secs(7200));
        clients.answered(&Method::PATCH, StatusCode::CONFLICT, Duration::from_millis(30));
        clients.answered(&Method::OPTIONS, StatusCode::OK, Duration::ZERO);
        let mut out = Page::default();
        clients.write("127.0.0.1:6443", &mut out);
        for line in [
            "authentication_attempts{result=\"failure\"} 1",
            "authenticated_user_requests{username=\"other\"} 1",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"3600\"} 0",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"7200\"} 1",
            "rest_client_requests_total{code=\"409\",host=\"127.0.0.1:6443\",method=\"PATCH\"} 1",
            "rest_client_request_duration_seconds_bucket{host=\"127.0.0.1:6443\",verb=\"PATCH\",le=\"0.1\"} 1",
        ] {
            assert!(out.0.lines().any(|known| known == line), "{line}\n{}", out.0);
        }
        assert!(!out.0.contains("jane"));
    }
}
