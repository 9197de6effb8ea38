//! What the audit is told, in the words of Kubernetes' flags.

use std::{io, path::PathBuf, time::Duration};

use super::policy::PolicyError;
use crate::filters::go_duration;

/// Where events are recorded, and which.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The policy; nothing is recorded without one.
    pub policy_file: Option<PathBuf>,
    /// The file events are written to.
    pub log: Option<LogConfig>,
    /// The webhook they are sent to.
    pub webhook: Option<WebhookConfig>,
}

/// The audit log.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The file; `-` is standard output.
    pub path: PathBuf,
    /// Bytes after which it is put aside.
    pub max_size: u64,
    /// How many files that were put aside are kept; 0 is all.
    pub max_backups: u32,
    /// How many days they are kept; 0 is for ever.
    pub max_age_days: u32,
}

/// The audit webhook.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// The kubeconfig file that says where it is.
    pub kubeconfig: PathBuf,
    /// Events that may wait to be sent.
    pub buffer_size: usize,
    /// Events that are sent at once.
    pub batch_size: usize,
    /// How long an event waits for others to be sent with.
    pub batch_wait: Duration,
    /// How long the first try again waits after a failure.
    pub initial_backoff: Duration,
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {file:?}")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The policy cannot be used.
    #[error("--audit-policy-file {file:?}")]
    Policy {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: PolicyError,
    },
    /// The log cannot be opened.
    #[error("--audit-log-path {file:?}")]
    Log {
        /// The file.
        file: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The webhook's kubeconfig cannot be used.
    #[error("--audit-webhook-config-file {file:?}: {why}")]
    Webhook {
        /// The file.
        file: PathBuf,
        /// Why not.
        why: String,
    },
}

/// The command line's words for a [`Config`].
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// A policy (audit.k8s.io/v1) that says what of which requests is recorded.
    #[arg(long, env = "CORACLE_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// The file audit events are written to, one a line; - is standard output.
    #[arg(long, env = "CORACLE_AUDIT_LOG_PATH", value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes after which the audit log is put aside; 0 is 100.
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXSIZE", default_value_t = 0, value_name = "MB")]
    pub audit_log_maxsize: u32,
    /// How many audit logs that were put aside are kept; 0 is all.
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXBACKUP", default_value_t = 0, value_name = "NUMBER")]
    pub audit_log_maxbackup: u32,
    /// How many days audit logs that were put aside are kept; 0 is for ever.
    #[arg(long, env = "CORACLE_AUDIT_LOG_MAXAGE", default_value_t = 0, value_name = "DAYS")]
    pub audit_log_maxage: u32,
    /// A kubeconfig file that says where audit events are sent to.
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE", requires = "audit_policy_file")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// Audit events that may wait to be sent; what is more is counted and dropped.
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "NUMBER")]
    pub audit_webhook_batch_buffer_size: u32,
    /// Audit events that are sent at once.
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_BATCH_MAX_SIZE", default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "NUMBER")]
    pub audit_webhook_batch_max_size: u32,
    /// How long an audit event waits for others to be sent with.
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_BATCH_MAX_WAIT", default_value = "30s", value_parser = duration, value_name = "DURATION")]
    pub audit_webhook_batch_max_wait: Duration,
    /// How long audit events that could not be sent wait for the next try.
    #[arg(long, env = "CORACLE_AUDIT_WEBHOOK_INITIAL_BACKOFF", default_value = "10s", value_parser = duration, value_name = "DURATION")]
    pub audit_webhook_initial_backoff: Duration,
}

/// A duration as Go writes it.
fn duration(text: &str) -> Result<Duration, String> {
    go_duration(text).ok_or_else(|| "must be a duration such as 30s or 1m30s".to_owned())
}

/// The size of a log that says none.
const MEGABYTES: u32 = 100;

impl Args {
    /// The configuration these words mean.
    #[must_use]
    pub fn config(self) -> Config {
        let megabytes = if self.audit_log_maxsize == 0 { MEGABYTES } else { self.audit_log_maxsize };
        let (max_backups, max_age_days) = (self.audit_log_maxbackup, self.audit_log_maxage);
        let log = |path| LogConfig { path, max_size: u64::from(megabytes) * 1024 * 1024, max_backups, max_age_days };
        let (buffer, batch) = (self.audit_webhook_batch_buffer_size, self.audit_webhook_batch_max_size);
        let webhook = |kubeconfig| WebhookConfig {
            kubeconfig,
            buffer_size: usize::try_from(buffer).unwrap_or(usize::MAX),
            batch_size: usize::try_from(batch).unwrap_or(usize::MAX),
            batch_wait: self.audit_webhook_batch_max_wait,
            initial_backoff: self.audit_webhook_initial_backoff,
        };
        Config {
            policy_file: self.audit_policy_file,
            log: self.audit_log_path.map(log),
            webhook: self.audit_webhook_config_file.map(webhook),
        }
    }
}
