//! The project's own rules, checked: the arrows between rooms, the map in the docs, the shape of files.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file git would commit.
fn files() -> Vec<PathBuf> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").args(arguments).current_dir(root()).output().expect("git runs");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("names are text");
    names.lines().map(PathBuf::from).filter(|file| root().join(file).is_file()).collect()
}

fn text(file: &Path) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn with_extension(extension: &str) -> Vec<PathBuf> {
    files().into_iter().filter(|file| file.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn arrows_between_rooms_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("coracle-proto", &[][..]),
        ("coracle-store", &[][..]),
        ("coracle-runtime", &[][..]),
        ("coracle-network", &[][..]),
        ("coracle-process", &[][..]),
        ("coracle-test-machine", &[][..]),
        ("coracle-apiserver", &["coracle-process", "coracle-proto", "coracle-store"][..]),
        ("coracle-scheduler", &["coracle-process", "coracle-proto"][..]),
        ("coracle-controller", &["coracle-process", "coracle-proto"][..]),
        ("coracle-agent", &["coracle-process", "coracle-proto", "coracle-runtime", "coracle-network"][..]),
    ]);
    let arguments = ["metadata", "--format-version", "1", "--no-deps", "--offline"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        if name == "coracle" {
            continue;
        }
        let allowed = allowed.get(name).unwrap_or_else(|| panic!("{name} is a room nobody planned"));
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("a name");
            // What tests are made with may be imported by tests.
            let is_for_tests = to.starts_with("coracle-test-") && dependency["kind"] == "dev";
            let is_allowed = is_for_tests || allowed.contains(&to);
            assert!(!to.starts_with("coracle") || is_allowed, "{name} must not import {to}");
        }
    }
}

#[test]
fn every_crate_takes_the_workspaces_lints() {
    for manifest in files().into_iter().filter(|file| file.ends_with("Cargo.toml")) {
        assert!(text(&manifest).contains("[lints]\nworkspace = true"), "{} sets lints of its own", manifest.display());
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    for file in with_extension("rs") {
        let text = text(&file);
        assert!(text.starts_with("//!"), "{} does not open with a //! line", file.display());
    }
}

#[test]
fn no_file_is_a_drawer_for_leftovers() {
    let drawers = ["mod", "util", "utils", "common", "helper", "helpers", "manager", "misc", "types2"];
    for file in with_extension("rs") {
        let stem = file.file_stem().and_then(|s| s.to_str()).expect("a name");
        assert!(!drawers.contains(&stem), "{} names no one thing", file.display());
    }
}

#[test]
fn unsafe_code_stays_in_sys_modules() {
    for file in with_extension("rs") {
        let inside = file.components().any(|c| c.as_os_str() == "sys" || c.as_os_str() == "sys.rs");
        let test = file.components().any(|c| c.as_os_str() == "tests");
        let allows = ["allow", "expect"].iter().any(|word| text(&file).contains(&format!("{word}(unsafe_code")));
        assert!(!allows || inside || test, "{} allows unsafe code outside a sys module", file.display());
    }
}

#[test]
fn only_the_agreed_rooms_stand_at_the_top() {
    let rooms = ["src", "apiserver", "scheduler", "controller", "agent", "proto", "tests", "docs"];
    let beside = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "clippy.toml",
        "rustfmt.toml",
        "deny.toml",
        ".ci",
        ".gitignore",
        ".cargo",
        ".config",
    ];
    let top: BTreeSet<String> = files()
        .iter()
        .filter_map(|file| file.components().next())
        .map(|first| first.as_os_str().to_string_lossy().into_owned())
        .collect();
    for name in top {
        assert!(rooms.contains(&name.as_str()) || beside.contains(&name.as_str()), "{name} is no agreed room");
    }
}

/// Words in backquotes that look like paths of this repository: `agent/src/probe.rs`, `proto/`.
fn paths_in(text: &str) -> Vec<String> {
    let rooms = ["src/", "apiserver/", "scheduler/", "controller/", "agent/", "proto/", "tests/", "docs/", ".ci/"];
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|word| rooms.iter().any(|room| word.starts_with(room)))
        .filter(|word| !word.contains([' ', '<', '*', '{', '…']))
        .map(|word| word.trim_end_matches('/').to_owned())
        .collect()
}

#[test]
fn every_path_the_docs_name_exists() {
    for file in with_extension("md") {
        for path in paths_in(&text(&file)) {
            assert!(root().join(&path).exists(), "{} names {path}, which is not there", file.display());
        }
    }
}

#[test]
fn the_code_map_names_every_source_folder() {
    let map = text(Path::new("docs/ARCHITECTURE.md"));
    let sources = with_extension("rs");
    let crates: BTreeSet<PathBuf> = files()
        .into_iter()
        .filter(|file| file.ends_with("Cargo.toml"))
        .filter_map(|file| file.parent().map(Path::to_path_buf))
        .collect();
    for folder in crates.iter().filter(|folder| !folder.as_os_str().is_empty()) {
        assert!(
            map.contains(&format!("`{}/`", folder.display())),
            "ARCHITECTURE.md says nothing of {}",
            folder.display()
        );
    }
    // The files directly in a crate's src are its rooms: each is on the map.
    for file in sources.iter().filter(|file| !file.components().any(|c| c.as_os_str() == "tests")) {
        let Some(parent) = file.parent() else { continue };
        let is_room = parent.file_name().is_some_and(|name| name == "src");
        let stem = file.file_stem().and_then(|s| s.to_str()).expect("a name");
        if is_room && !["lib", "main", "args"].contains(&stem) {
            let path = file.display().to_string();
            assert!(map.contains(&format!("`{path}`")), "ARCHITECTURE.md says nothing of {path}");
        }
    }
}

#[test]
fn every_invariant_is_cited_by_a_test() {
    let map = text(Path::new("docs/ARCHITECTURE.md"));
    let count = map.lines().filter(|line| line.starts_with("**Invariant ")).count();
    assert!(count >= 8, "ARCHITECTURE.md lists the invariants as lines that begin with **Invariant N");
    let sources: Vec<String> = with_extension("rs").iter().map(|file| text(file)).collect();
    for number in 1..=count {
        let citation = format!("Invariant {number}:");
        assert!(map.contains(&format!("**Invariant {number}.")), "invariant {number} is missing from the list");
        assert!(sources.iter().any(|s| s.contains(&citation)), "no test cites \"{citation}\"");
    }
}
