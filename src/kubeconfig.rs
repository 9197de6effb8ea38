//! Kubeconfig files: writing our own, and merging a context into the user's without touching the rest of it.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use serde_yaml::{Mapping, Value};

/// The name of the cluster, the user and the context we add.
const NAME: &str = "coracle";

/// The lists of a kubeconfig whose items carry a name.
const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// The file kubectl of whoever runs us writes to: the first one of `KUBECONFIG`, else `~/.kube/config`.
pub(crate) fn default_path() -> Option<PathBuf> {
    path_of(std::env::var_os("KUBECONFIG").as_deref(), std::env::var_os("HOME").as_deref())
}

fn path_of(kubeconfig: Option<&OsStr>, home: Option<&OsStr>) -> Option<PathBuf> {
    let named = kubeconfig.and_then(|list| std::env::split_paths(list).find(|path| !path.as_os_str().is_empty()));
    named.or_else(|| home.map(|home| Path::new(home).join(".kube/config")))
}

/// What to call a file towards its owner: as they write it.
pub(crate) fn shown(path: &Path) -> String {
    match std::env::var_os("HOME").and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf)) {
        Some(below) => format!("~/{}", below.display()),
        None => path.display().to_string(),
    }
}

/// Puts a renewed credential of ours into the file at `path`, if the context `coracle` there is still this server's. What
/// else is in the file stays, and so does whichever context is the current one.
pub(crate) fn refresh(path: &Path, ours: &str) -> anyhow::Result<()> {
    let ours = named(ours)?;
    let item = |list: &str| ours.get(list).and_then(|items| items.get(0)).cloned();
    let Some(mut theirs) = read(path)? else { return Ok(()) };
    let server = item("clusters").and_then(|cluster| Some(cluster.get("cluster")?.get("server")?.as_str()?.to_owned()));
    if !server.is_some_and(|server| points_at(&theirs, &server)) {
        return Ok(());
    }
    if let (Some(Value::Sequence(users)), Some(user)) = (theirs.get_mut("users"), item("users")) {
        users.retain(|user| user.get("name") != Some(&NAME.into()));
        users.push(user);
    }
    write(path, &serde_yaml::to_string(&theirs)?)
}

/// Whether our cluster in the kubeconfig is the one at `server`.
fn points_at(theirs: &Mapping, server: &str) -> bool {
    theirs.get("clusters").and_then(Value::as_sequence).is_some_and(|clusters| {
        clusters.iter().any(|c| {
            c.get("name") == Some(&NAME.into())
                && c.get("cluster").and_then(|c| c.get("server")) == Some(&server.into())
        })
    })
}

/// Merges the cluster, user and context of `ours` into the file at `path` under the name `coracle` and makes it the
/// current context. Everything else in the file stays. A file that is not a kubeconfig is left alone and is an error.
pub(crate) fn merge_into(path: &Path, ours: &str) -> anyhow::Result<()> {
    let ours = named(ours)?;
    let mut theirs = read(path)?.unwrap_or_default();
    for list in LISTS {
        let item = ours.get(list).and_then(|items| items.get(0)).with_context(|| format!("no {list} to merge"))?;
        let items = theirs.entry(list.into()).or_insert(Value::Null);
        if items.is_null() {
            *items = Value::Sequence(Vec::new());
        }
        let Value::Sequence(items) = items else { bail!("{}: {list} is not a list", path.display()) };
        items.retain(|item| item.get("name") != Some(&NAME.into()));
        items.push(item.clone());
    }
    for (key, value) in [("apiVersion", "v1"), ("kind", "Config"), ("current-context", NAME)] {
        theirs.insert(key.into(), value.into());
    }
    write(path, &serde_yaml::to_string(&theirs)?)
}

/// Takes our context out of the file at `path` again, if it is there and still points at `server`.
pub(crate) fn remove_from(path: &Path, server: &str) -> anyhow::Result<()> {
    let Some(mut theirs) = read(path)? else { return Ok(()) };
    if !points_at(&theirs, server) {
        return Ok(());
    }
    for list in LISTS {
        if let Some(Value::Sequence(items)) = theirs.get_mut(list) {
            items.retain(|item| item.get("name") != Some(&NAME.into()));
        }
    }
    if theirs.get("current-context") == Some(&NAME.into()) {
        theirs.insert("current-context".into(), "".into());
    }
    let empty = LISTS.iter().all(|list| theirs.get(*list).and_then(Value::as_sequence).is_none_or(Vec::is_empty));
    if empty {
        // Nothing but our own context was ever in it.
        return fs::remove_file(path).with_context(|| path.display().to_string());
    }
    write(path, &serde_yaml::to_string(&theirs)?)
}

/// Our kubeconfig with everything in it renamed to `coracle`.
fn named(text: &str) -> anyhow::Result<Mapping> {
    let mut config: Mapping = serde_yaml::from_str(text)?;
    for list in LISTS {
        let Some(item) = config.get_mut(list).and_then(|items| items.get_mut(0)) else { continue };
        if let Value::Mapping(item) = item {
            item.insert("name".into(), NAME.into());
            if let Some(Value::Mapping(context)) = item.get_mut("context") {
                context.insert("cluster".into(), NAME.into());
                context.insert("user".into(), NAME.into());
            }
        }
    }
    Ok(config)
}

fn read(path: &Path) -> anyhow::Result<Option<Mapping>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    match serde_yaml::from_str(&text).with_context(|| format!("{} is not YAML", path.display()))? {
        Value::Null => Ok(None),
        Value::Mapping(mapping) => Ok(Some(mapping)),
        _ => bail!("{} is not a kubeconfig", path.display()),
    }
}

/// Writes the file whole or not at all, readable by its owner only: it holds a private key.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(|| folder.display().to_string())?;
    // A link (dotfiles kept elsewhere) stays a link: what it points to is replaced.
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut temporary = target.clone().into_os_string();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &target)
    })();
    if written.is_err() {
        // The error that counts is the first one; a leftover that cannot be removed was likely never made.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| target.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "apiVersion: v1\nkind: Config\nclusters: [{name: x, cluster: {server: 'https://127.0.0.1:1'}}]\n\
        users: [{name: admin, user: {}}]\ncontexts: [{name: x, context: {cluster: x, user: admin}}]\n";

    fn names(path: &Path, list: &str) -> Vec<String> {
        let config = read(path).unwrap().unwrap();
        let items = config.get(list).unwrap().as_sequence().unwrap();
        items.iter().map(|i| i.get("name").unwrap().as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn merging_keeps_what_is_there_and_replaces_what_was_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".kube/config");
        merge_into(&path, OURS).unwrap();
        assert_eq!(names(&path, "contexts"), ["coracle"]);
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("contexts:\n", "contexts:\n- name: work\n  context: {cluster: w, user: w}\n");
        fs::write(&path, text).unwrap();
        merge_into(&path, &OURS.replace(":1'", ":2'")).unwrap();
        assert_eq!(names(&path, "contexts"), ["work", "coracle"]);
        assert_eq!(names(&path, "clusters"), ["coracle"]);
        remove_from(&path, "https://127.0.0.1:1").unwrap();
        assert_eq!(names(&path, "contexts"), ["work", "coracle"], "another cluster's context stays");
        remove_from(&path, "https://127.0.0.1:2").unwrap();
        assert_eq!(names(&path, "contexts"), ["work"]);
    }

    #[test]
    fn the_file_is_the_one_kubectl_writes_to() {
        let path =
            |kubeconfig: Option<&str>, home: Option<&str>| path_of(kubeconfig.map(OsStr::new), home.map(OsStr::new));
        assert_eq!(path(Some("/a:/b"), Some("/root")), Some("/a".into()));
        assert_eq!(path(Some(":/b"), Some("/root")), Some("/b".into()));
        assert_eq!(path(Some(""), Some("/root")), Some("/root/.kube/config".into()));
        assert_eq!((path(None, Some("/root")), path(None, None)), (Some("/root/.kube/config".into()), None));
    }

    #[test]
    fn a_renewed_credential_takes_the_place_of_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let renewed = OURS.replace("user: {}", "user: {token: new}");
        refresh(&path, &renewed).unwrap();
        assert!(!path.exists(), "a file somebody removed stays away");
        merge_into(&path, OURS).unwrap();
        let chosen = fs::read_to_string(&path).unwrap().replace("current-context: coracle", "current-context: work");
        fs::write(&path, chosen).unwrap();
        refresh(&path, &renewed).unwrap();
        let after = fs::read_to_string(&path).unwrap();
        assert!(after.contains("token: new") && after.contains("current-context: work"), "{after}");
        assert_eq!(names(&path, "users"), ["coracle"]);
        refresh(&path, &OURS.replace(":1'", ":2'")).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), after, "another cluster's context stays");
    }

    #[test]
    fn a_file_that_held_only_our_context_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        merge_into(&path, OURS).unwrap();
        remove_from(&path, "https://127.0.0.1:1").unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        for text in ["- a list\n", "contexts: 7\n", "a: [b"] {
            fs::write(&path, text).unwrap();
            assert!(merge_into(&path, OURS).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
