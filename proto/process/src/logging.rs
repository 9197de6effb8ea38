//! Logs: to stderr, as text or as JSON lines, at the level asked for.
//!
//! The JSON formatter of `tracing-subscriber` drops the sources of an error; [`Chain`] keeps them.

use std::fmt;

use clap::ValueEnum;
use tracing::field::{Field, Visit};
use tracing_subscriber::{EnvFilter, fmt::format::Writer};

use crate::WrongUse;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Flags about logs, the same for every command that keeps running.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What to log: error, warn, info, debug, trace, or a filter such as info,coracle_store=debug.
    #[arg(long, env = "CORACLE_LOG", default_value = "info", global = true)]
    pub log: String,
    /// How log lines look.
    #[arg(long, env = "CORACLE_LOG_FORMAT", default_value = "text", value_enum, global = true)]
    pub log_format: Format,
}

/// Sends what is traced from here on to stderr.
///
/// # Errors
/// [`WrongUse`] when the filter is not one.
pub fn install(args: &Args) -> Result<(), WrongUse> {
    // kube logs every failed connection as an error, and tells its caller, who says what it means.
    let filter =
        EnvFilter::builder().parse(format!("kube_client::client::builder=off,{}", args.log)).map_err(|error| {
            WrongUse(format!(
                "--log {:?} is not a log level or filter ({error}); try info, debug, or info,coracle_store=debug",
                args.log
            ))
        })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match args.log_format {
        Format::Text => builder.init(),
        Format::Json => builder.fmt_fields(JsonFields).event_format(JsonLine).init(),
    }
    Ok(())
}

/// Fields as members of a JSON object, errors with all their sources.
struct JsonFields;

impl<'w> tracing_subscriber::fmt::FormatFields<'w> for JsonFields {
    fn format_fields<R: tracing_subscriber::field::RecordFields>(
        &self,
        mut writer: Writer<'w>,
        fields: R,
    ) -> fmt::Result {
        let mut members = Members::default();
        fields.record(&mut members);
        write!(writer, "{}", serde_json::Value::Object(members.0))
    }
}

/// One JSON object a line: time, level, target, message, fields, spans.
struct JsonLine;

impl<S, N> tracing_subscriber::fmt::FormatEvent<S, N> for JsonLine
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
    N: for<'a> tracing_subscriber::fmt::FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &tracing_subscriber::fmt::FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        let mut members = Members::default();
        event.record(&mut members);
        let mut line = serde_json::Map::new();
        line.insert("time".to_owned(), jiff_now().into());
        line.insert("level".to_owned(), event.metadata().level().to_string().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        line.append(&mut members.0);
        let mut spans = Vec::new();
        for span in context.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            let mut shown = serde_json::Map::new();
            shown.insert("span".to_owned(), span.name().into());
            if let Some(fields) = span.extensions().get::<tracing_subscriber::fmt::FormattedFields<N>>()
                && let Ok(serde_json::Value::Object(mut fields)) = serde_json::from_str(&fields.fields)
            {
                shown.append(&mut fields);
            }
            spans.push(serde_json::Value::Object(shown));
        }
        if !spans.is_empty() {
            line.insert("spans".to_owned(), spans.into());
        }
        writeln!(writer, "{}", serde_json::Value::Object(line))
    }
}

fn jiff_now() -> String {
    jiff::Timestamp::now().to_string()
}

/// Fields collected into a JSON object.
#[derive(Default)]
struct Members(serde_json::Map<String, serde_json::Value>);

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_owned(), Chain(value).to_string().into());
    }
}

/// An error with its sources: `a: b: c`.
struct Chain<'a>(&'a (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn json_lines_keep_the_sources_of_an_error_and_the_spans() {
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields)
            .event_format(JsonLine)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let error = anyhow::anyhow!("disk full").context("writing the log");
            let error: &(dyn std::error::Error + 'static) = error.as_ref();
            tracing::info_span!("request", verb = "get").in_scope(|| tracing::error!(error, code = 7, "went wrong"));
        });
        let bytes = sink.0.lock().unwrap().clone();
        let line: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(line["error"], "writing the log: disk full");
        assert_eq!(line["message"], "went wrong");
        assert_eq!(line["code"], 7);
        assert_eq!(line["spans"][0], serde_json::json!({"span": "request", "verb": "get"}));
    }
}
