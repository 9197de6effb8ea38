//! The command line: one struct a command, and the layers a value comes from.
//!
//! A value is taken from the flag, else from the environment (`CORACLE_DATA_DIR`), else from `--config FILE`, else from
//! the default. Wrong values stop the start with one sentence that names the flag, the value and what is allowed.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use coracle_process::{WrongUse, logging};

use crate::commands;

/// A whole Kubernetes-API-compatible cluster in one small binary.
#[derive(Parser)]
#[command(name = "coracle", version, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Verb,
    #[command(flatten)]
    pub(crate) logging: logging::Args,
    /// A YAML file that holds any of the flags by name, e.g. "data-dir: /srv/coracle".
    #[arg(long, env = "CORACLE_CONFIG", global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// What to do.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run everything in this process: control plane and one node.
    Up(commands::up::Args),
    /// Run the control plane only.
    Server(commands::server::Args),
    /// Run a member that votes and keeps nothing of what is stored: two servers and a witness may lose any one.
    Witness(commands::witness::Args),
    /// Run one node of a cluster elsewhere.
    Agent(commands::agent::Args),
    /// Stop what `up` left behind on this host.
    Down(commands::down::Args),
    /// Make, list and revoke the tokens nodes, servers and witnesses join with.
    Token(commands::token::Args),
    /// Say in one paragraph what an object waits for, since when, and what can be done.
    Why(commands::why::Args),
    /// Save a running cluster to one file, restore it elsewhere, look what is in one.
    Snapshot(commands::snapshot::Args),
    /// Show objects as they were a while ago.
    Get(commands::get::Args),
    /// Make an independent copy of a running cluster's data directory, to try things on.
    Fork(commands::snapshot::ForkArgs),
    /// Show and exchange the keys that stored Secrets are sealed with.
    Encryption(commands::encryption::Args),
    /// Import, pull, list and remove images of this node.
    Image(commands::image::Args),
    /// Measure, and print the figures as a table or as JSON.
    Bench(commands::bench::Args),
}

impl Cli {
    /// Reads the command line of this process.
    ///
    /// # Errors
    /// `Err(Usage::Shown)` carries clap's own text (help, version, or a wrong flag) and exit code.
    pub(crate) fn read() -> Result<Self, Usage> {
        let arguments: Vec<_> = std::env::args_os().collect();
        let mut command = Self::command();
        if let Some(file) = config_file(&arguments) {
            command =
                with_file(command, &file).map_err(|error| Usage::Config(WrongUse(format!("{error:#}")).into()))?;
        }
        let matches = command.try_get_matches_from(&arguments).map_err(Usage::Shown)?;
        Self::from_arg_matches(&matches).map_err(Usage::Shown)
    }
}

/// Why there is no command to run.
pub(crate) enum Usage {
    /// Clap has something to say.
    Shown(clap::Error),
    /// `--config FILE` cannot be used.
    Config(anyhow::Error),
}

/// The value of `--config`, looked for before the command line is parsed, since what the file holds is part of that.
fn config_file(arguments: &[std::ffi::OsString]) -> Option<PathBuf> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--config" {
            return arguments.next().map(PathBuf::from);
        }
        if let Some(value) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(value.into());
        }
    }
    std::env::var_os("CORACLE_CONFIG").map(PathBuf::from)
}

/// The command with the file's values as its defaults.
fn with_file(command: Command, file: &Path) -> anyhow::Result<Command> {
    let text = std::fs::read_to_string(file).with_context(|| format!("--config {}", file.display()))?;
    with_values(command, &text).with_context(|| format!("--config {}", file.display()))
}

fn with_values(mut command: Command, text: &str) -> anyhow::Result<Command> {
    let values: serde_yaml::Value = serde_yaml::from_str(text)?;
    let values = match values {
        serde_yaml::Value::Null => serde_yaml::Mapping::new(),
        serde_yaml::Value::Mapping(values) => values,
        _ => anyhow::bail!("the file must hold flags by name, e.g. \"data-dir: /srv/coracle\""),
    };
    for (key, value) in values {
        let Some(name) = key.as_str() else { anyhow::bail!("{key:?} is not the name of a flag") };
        let texts = texts(name, &value)?;
        let mut known = false;
        command = set_default(command, name, &texts, &mut known);
        anyhow::ensure!(known, "no command has a flag --{name}");
    }
    Ok(command)
}

fn texts(name: &str, value: &serde_yaml::Value) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        serde_yaml::Value::String(text) => vec![text.clone()],
        serde_yaml::Value::Number(number) => vec![number.to_string()],
        serde_yaml::Value::Bool(flag) => vec![flag.to_string()],
        serde_yaml::Value::Sequence(items) => {
            let items: anyhow::Result<Vec<_>> = items.iter().map(|item| texts(name, item)).collect();
            items?.into_iter().flatten().collect()
        }
        _ => anyhow::bail!("{name}: must be a text, a number, true, false, or a list of these"),
    })
}

/// Sets the default of a flag wherever it is: in the command and in all below it.
fn set_default(mut command: Command, name: &str, texts: &[String], known: &mut bool) -> Command {
    let below: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_owned()).collect();
    for verb in below {
        command = command.mut_subcommand(verb, |sub| set_default(sub, name, texts, known));
    }
    let long = name.replace('_', "-");
    let Some(id) = command.get_arguments().find(|a| a.get_long() == Some(&long)).map(|a| a.get_id().to_string()) else {
        return command;
    };
    *known = true;
    let texts = texts.to_vec();
    command.mut_arg(id, |argument| argument.default_values(texts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, arguments: &[&str]) -> anyhow::Result<Cli> {
        let command = with_values(Cli::command(), text)?;
        Ok(Cli::from_arg_matches(&command.try_get_matches_from(arguments)?)?)
    }

    /// Every command with its full name.
    fn all(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
        found.push((name.to_owned(), command.clone()));
        for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
            all(below, &format!("{name} {}", below.get_name()), found);
        }
    }

    #[test]
    fn the_reference_names_every_command_every_flag_and_its_variable() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/command-line.md");
        let text = std::fs::read_to_string(file).unwrap();
        let is_there = |word: &str| {
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            text.match_indices(word).any(|(at, _)| ends(&text[at + word.len()..]))
        };
        let mut found = Vec::new();
        all(&Cli::command(), "coracle", &mut found);
        assert!(found.len() > 10);
        let mut missing = Vec::new();
        for (name, command) in found {
            let flags = command.get_arguments().filter(|a| !["help", "version"].contains(&a.get_id().as_str()));
            let words = flags.flat_map(|flag| {
                let variable = flag.get_env().map(|name| name.to_string_lossy().into_owned());
                flag.get_long().map(|long| format!("--{long}")).into_iter().chain(variable)
            });
            let words = words.chain([name.clone()]);
            missing.extend(words.filter(|word| !is_there(word)).map(|word| format!("{name}: {word}")));
        }
        assert_eq!(missing, Vec::<String>::new());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let text = "data-dir: /srv/a\nkeep-pods: true\nnode-name: n1\n";
        let Verb::Up(up) = parse(text, &["coracle", "up", "--node-name", "n2"]).unwrap().command else { panic!() };
        assert_eq!(up.server.whereabouts.data_dir, Path::new("/srv/a"));
        assert_eq!(up.node.node_name.as_deref(), Some("n2"));
        assert!(up.node.keep_pods);
    }

    #[test]
    fn the_file_reaches_commands_below_commands() {
        let text = "ttl: 7\nrounds: 3\ndata-dir: /srv/a\n";
        let Verb::Token(token) = parse(text, &["coracle", "token", "create"]).unwrap().command else { panic!() };
        assert_eq!(token.reach.data_dir, Path::new("/srv/a"));
        assert!(matches!(token.what, commands::token::What::Create { ttl: 7, .. }));
        assert!(parse(text, &["coracle", "bench", "boot"]).is_ok());
        let error = parse("rounds: many\n", &["coracle", "bench", "boot"]).err().unwrap();
        assert!(error.to_string().contains("--rounds"), "{error}");
    }

    #[test]
    fn a_flag_that_does_not_exist_is_named() {
        let error = parse("data-dri: /srv/a\n", &["coracle", "up"]).err().unwrap();
        assert_eq!(error.to_string(), "no command has a flag --data-dri");
        assert!(parse("data-dir: {a: b}\n", &["coracle", "up"]).is_err());
        assert!(parse("- up\n", &["coracle", "up"]).is_err());
    }
}
