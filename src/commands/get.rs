//! `coracle get`: objects as they were a while ago.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use anyhow::{Context, bail};
use clap::ValueEnum;
use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::reach::{self, Reach};

/// Flags of `get`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kind: a plural, singular or short name, with its group if need be (deployments, deploy, deployments.apps).
    resource: String,
    /// The object; without it, all.
    name: Option<String>,
    /// How long ago (90s, 10m, 1h), or when (2026-11-21T08:30:00Z).
    #[arg(long, value_parser = as_of, value_name = "DURATION|TIME", required_unless_present = "revision")]
    as_of: Option<AsOf>,
    /// Instead, the resourceVersion of a list.
    #[arg(long, conflicts_with = "as_of", value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// The namespace.
    #[arg(long, short, default_value = "default", value_name = "NAME")]
    namespace: String,
    /// All namespaces.
    #[arg(long, short = 'A', conflicts_with = "name")]
    all_namespaces: bool,
    /// Only objects with these labels.
    #[arg(long, short = 'l', value_name = "SELECTOR")]
    selector: Option<String>,
    /// How to show them.
    #[arg(long, short, value_enum, default_value = "table", value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    reach: Reach,
}

/// Which past is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// That of so long ago.
    Ago(Duration),
    /// That of a time by the server's clock.
    At(Timestamp),
}

fn as_of(text: &str) -> Result<AsOf, String> {
    let ago = coracle_apiserver::config::ago(text).map(AsOf::Ago);
    ago.or_else(|why| text.parse().map(AsOf::At).map_err(|_| format!("{why}, or a time such as 2026-11-21T08:30:00Z")))
}

/// How objects are shown.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// One line each.
    Table,
    /// `kind/name`, one line each.
    Name,
    /// JSON.
    Json,
    /// YAML, as `kubectl apply` takes it.
    Yaml,
}

/// A kind as the server tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Found {
    path: String,
    plural: String,
    group: String,
    namespaced: bool,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    #[serde(default)]
    singular_name: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    short_names: Vec<String>,
    namespaced: bool,
}

impl Row {
    fn is_called(&self, word: &str) -> bool {
        let names = [&self.name, &self.singular_name, &self.kind].into_iter().chain(&self.short_names);
        !self.name.contains('/') && names.into_iter().any(|name| name.eq_ignore_ascii_case(word))
    }
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    preferred_version: Version,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct At {
    revision: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Cells>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    priority: i32,
}

#[derive(Deserialize)]
struct Cells {
    cells: Vec<Value>,
    #[serde(default)]
    object: Value,
}

/// Does what is asked.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.reach.client().await?;
    let revision = match (args.revision, args.as_of) {
        (Some(revision), _) => revision,
        (None, Some(as_of)) => {
            let query = match as_of {
                AsOf::Ago(ago) => format!("ago={}", ago.as_secs()),
                AsOf::At(at) => format!("at={at}"),
            };
            let path = format!("/coracle/v1/revision?{query}");
            reach::json::<At>(&client, Method::GET, &path).await?.revision
        }
        (None, None) => bail!("--as-of or --revision says when"),
    };
    let found = find(&client, &args.resource).await?;
    let mut path = found.path.clone();
    if found.namespaced && !args.all_namespaces {
        path.push_str(&format!("/namespaces/{}", args.namespace));
    }
    path.push_str(&format!("/{}?resourceVersion={revision}&resourceVersionMatch=Exact", found.plural));
    if let Some(name) = &args.name {
        path.push_str(&format!("&fieldSelector={}", escape(&format!("metadata.name={name}"))));
    }
    if let Some(selector) = &args.selector {
        path.push_str(&format!("&labelSelector={}", escape(selector)));
    }
    let accept = match args.output {
        Output::Table => "application/json;as=Table;v=v1;g=meta.k8s.io",
        Output::Name | Output::Json | Output::Yaml => "application/json",
    };
    let list: Value = reach::json_as(&client, Method::GET, &path, accept).await?;
    let many = match args.output {
        Output::Table => list.get("rows"),
        Output::Name | Output::Json | Output::Yaml => list.get("items"),
    };
    let count = many.and_then(Value::as_array).map_or(0, Vec::len);
    if let Some(name) = args.name.as_ref().filter(|_| count == 0) {
        bail!("{} {name:?} was not there at revision {revision}", found.plural);
    }
    show(&args, &found, list)
}

fn show(args: &Args, found: &Found, list: Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let one = |list: Value| match (&args.name, list.pointer("/items/0")) {
        (Some(_), Some(item)) => with_type(item.clone(), &list),
        _ => list,
    };
    match args.output {
        Output::Table => {
            write!(out, "{}", table(serde_json::from_value(list)?, found.namespaced && args.all_namespaces))?
        }
        Output::Name => {
            for item in list.get("items").and_then(Value::as_array).into_iter().flatten() {
                let name = item.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
                let dot = if found.group.is_empty() { "" } else { "." };
                writeln!(out, "{}{dot}{}/{name}", found.plural, found.group)?;
            }
        }
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&one(list))?)?,
        Output::Yaml => write!(out, "{}", coracle_proto::yaml::to_string(&one(list)))?,
    }
    Ok(())
}

/// An item says of which type it is; in a list, only the list does.
fn with_type(item: Value, list: &Value) -> Value {
    let text = |name: &str| list.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let kind = text("kind");
    let kind = kind.strip_suffix("List").unwrap_or(&kind).to_owned();
    let mut fields =
        vec![("apiVersion".to_owned(), Value::String(text("apiVersion"))), ("kind".to_owned(), Value::String(kind))];
    if let Value::Object(item) = item {
        fields.extend(item.into_iter().filter(|(name, _)| name != "apiVersion" && name != "kind"));
    }
    Value::Object(fields.into_iter().collect())
}

/// The kind that a word means, the core group before the others.
async fn find(client: &kube::Client, word: &str) -> anyhow::Result<Found> {
    let (name, of) = word.split_once('.').map_or((word, None), |(name, group)| (name, Some(group)));
    let groups: Groups = reach::json(client, Method::GET, "/apis").await?;
    let mut places: BTreeMap<usize, (String, String)> = BTreeMap::from([(0, (String::new(), "/api/v1".to_owned()))]);
    places.extend(groups.groups.into_iter().enumerate().map(|(at, group)| {
        let path = format!("/apis/{}", group.preferred_version.group_version);
        (at + 1, (group.name, path))
    }));
    for (group, path) in places.into_values().filter(|(group, _)| of.is_none_or(|of| of == group)) {
        // A group whose own server does not answer hides none of the others.
        let Ok(found) = reach::json::<Resources>(client, Method::GET, &path).await else { continue };
        if let Some(row) = found.resources.into_iter().find(|row| row.is_called(name)) {
            return Ok(Found { path, plural: row.name, group, namespaced: row.namespaced });
        }
    }
    Err(anyhow::anyhow!("the server doesn't have a resource type {word:?}")).context("find the kind")
}

/// For a query.
fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A table's columns under each other, as kubectl prints them.
fn table(table: Table, with_namespace: bool) -> String {
    if table.rows.is_empty() {
        return "No resources found\n".to_owned();
    }
    let shown: Vec<(usize, String)> = table
        .column_definitions
        .iter()
        .enumerate()
        .filter(|(_, column)| column.priority == 0)
        .map(|(at, column)| (at, column.name.to_uppercase()))
        .collect();
    let mut lines: Vec<Vec<String>> = Vec::with_capacity(table.rows.len() + 1);
    let head = with_namespace.then(|| "NAMESPACE".to_owned());
    lines.push(head.into_iter().chain(shown.iter().map(|(_, name)| name.clone())).collect());
    for row in &table.rows {
        let namespace = row.object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let cell = |at: &usize| match row.cells.get(*at) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Null) | None => "<none>".to_owned(),
            Some(other) => other.to_string(),
        };
        let cells = shown.iter().map(|(at, _)| cell(at));
        lines.push(with_namespace.then(|| namespace.to_owned()).into_iter().chain(cells).collect());
    }
    let columns = lines.first().map_or(0, Vec::len);
    let width =
        |at: usize| lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            shown.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_its_first_columns_under_each_other() {
        let of = serde_json::json!({
            "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Data", "priority": 0}, {"name": "Wide", "priority": 1}],
            "rows": [
                {"cells": ["a", 1, "x"], "object": {"metadata": {"namespace": "n"}}},
                {"cells": ["longer", null, "x"], "object": {"metadata": {"namespace": "m"}}},
            ],
        });
        let shown = |with| table(serde_json::from_value(of.clone()).unwrap(), with);
        assert_eq!(shown(false), "NAME     DATA\na        1\nlonger   <none>\n");
        assert_eq!(shown(true), "NAMESPACE   NAME     DATA\nn           a        1\nm           longer   <none>\n");
        assert_eq!(table(serde_json::from_value(serde_json::json!({})).unwrap(), false), "No resources found\n");
    }

    #[test]
    fn the_past_is_so_long_ago_or_a_time() {
        assert_eq!(as_of("10m"), Ok(AsOf::Ago(Duration::from_secs(600))));
        let half_past: Timestamp = "2026-11-21T08:30:00Z".parse().unwrap();
        for text in ["2026-11-21T08:30:00Z", "2026-11-21T10:30:00+02:00"] {
            assert_eq!(as_of(text), Ok(AsOf::At(half_past)), "{text}");
        }
        for wrong in ["", "10", "yesterday", "2026-11-21", "2026-11-21T08:30:00", "2026-13-21T08:30:00Z"] {
            let why = as_of(wrong).unwrap_err();
            assert!(why.contains("10m") && why.contains("or a time such as 2026-11-21T08:30:00Z"), "{wrong}: {why}");
        }
    }

    #[test]
    fn what_a_query_cannot_hold_is_escaped() {
        assert_eq!(escape("a=b,c!=d e"), "a%3Db%2Cc%21%3Dd%20e");
    }
}
