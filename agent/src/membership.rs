//! What a node keeps of having joined: its credentials and whose they are, in one file that only root reads.
//!
//! With it a node comes back after a restart as what it was, without a token. It lasts as long as its certificates, which
//! the running node renews.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use coracle_process::WrongUse;
use coracle_proto::join_token::JoinToken;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::join::{Credentials, JoinError};

/// What the file looks like; another number is another version's.
const FORMAT: u32 = 1;

/// Why what is kept cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {step}", path.display())]
pub(crate) struct FileError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// A node's membership of its cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Membership {
    format: u32,
    /// The API server.
    pub(crate) server: String,
    /// All servers of the cluster, if there are several.
    #[serde(default)]
    pub(crate) servers: Vec<String>,
    /// The node's name.
    pub(crate) node: String,
    /// The addresses in its server's certificate.
    pub(crate) addresses: Vec<IpAddr>,
    /// The id of the token it joined with; the secret is not kept.
    pub(crate) token: String,
    /// Its keys and certificates.
    pub(crate) credentials: Credentials,
}

impl Membership {
    pub(crate) fn new(
        server: String,
        node: String,
        addresses: Vec<IpAddr>,
        token: &JoinToken,
        credentials: Credentials,
    ) -> Self {
        let servers = Vec::new();
        Self { format: FORMAT, server, servers, node, addresses, token: token.token().id().to_owned(), credentials }
    }

    /// The same membership with new credentials.
    pub(crate) fn renewed(&self, credentials: Credentials, addresses: Vec<IpAddr>) -> Self {
        Self { credentials, addresses, ..self.clone() }
    }

    /// The same membership with these servers.
    pub(crate) fn among(&self, servers: Vec<String>) -> Self {
        Self { servers, ..self.clone() }
    }

    /// Clients of all servers there are known to be, the one it joined first.
    ///
    /// # Errors
    /// [`JoinError`]; the credentials or an address cannot be used.
    pub(crate) fn clients(&self) -> Result<Vec<kube::Client>, JoinError> {
        let others = self.servers.iter().filter(|server| **server != self.server);
        std::iter::once(&self.server).chain(others).map(|server| self.credentials.client(server)).collect()
    }

    /// What is kept in the file; nothing if there is none.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, FileError> {
        let wrong = |step, source| FileError { step, path: path.to_owned(), source };
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(wrong("read", error)),
        };
        let found: Self = serde_json::from_slice(&bytes).map_err(|e| wrong("understand the membership", e.into()))?;
        if found.format == FORMAT {
            return Ok(Some(found));
        }
        let text = format!("format {} is not this version's {FORMAT}", found.format);
        Err(wrong("understand the membership", io::Error::new(io::ErrorKind::InvalidData, text)))
    }

    /// Keeps it: after a cut at any moment there is the old file or the new one.
    pub(crate) fn save(&self, path: &Path) -> Result<(), FileError> {
        let wrong = |step| move |source: io::Error| FileError { step, path: path.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|e| wrong("encode")(e.into()))?;
        let new = path.with_extension("new");
        // What a cut-off write left is removed rather than truncated: its mode is not known.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong("remove what is beside")(error)),
            _ => {}
        }
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(wrong("create"))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(wrong("write"))?;
        fs::rename(&new, path).map_err(wrong("rename into"))?;
        let dir = path.parent().unwrap_or(Path::new("/"));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(wrong("sync the directory of"))
    }

    fn is_over(&self, now: Timestamp) -> bool {
        self.credentials.end().is_none_or(|end| end <= now)
    }
}

/// What somebody who starts a node says.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The server, if one was named.
    pub(crate) server: Option<String>,
    /// The token, if one was given.
    pub(crate) token: Option<JoinToken>,
    /// The node's name.
    pub(crate) node: String,
}

/// How a node gets into its cluster.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// It is in.
    Stay(Membership),
    /// By a token.
    Join {
        /// The server to ask.
        server: String,
        /// The token to show.
        token: JoinToken,
        /// The key the cluster knows it by already.
        key: Option<String>,
    },
}

/// Which way to go: a token that is new means to join anew, everything else to stay what one is.
pub(crate) fn way(kept: Option<Membership>, wanted: Wanted, now: Timestamp) -> Result<Way, WrongUse> {
    let Wanted { server, token, node } = wanted;
    let is_new = |kept: &Membership, token: &JoinToken| kept.token != token.token().id();
    let (key, kept_server, why) = match kept {
        None => (None, None, "this node is no member of a cluster yet".to_owned()),
        Some(kept) => {
            let usable = kept.node == node && !kept.is_over(now);
            if usable && token.as_ref().is_none_or(|token| !is_new(&kept, token)) {
                return Ok(Way::Stay(Membership { server: server.unwrap_or_else(|| kept.server.clone()), ..kept }));
            }
            let why = if kept.node == node {
                "this node's membership has ended".to_owned()
            } else {
                format!("this node is a member by the name of {:?}", kept.node)
            };
            let same = kept.node == node && token.as_ref().is_some_and(|token| kept.credentials.is_of(token));
            (same.then_some(kept.credentials.client_key), Some(kept.server), why)
        }
    };
    let Some(token) = token else {
        return Err(WrongUse(format!(
            "--token: {why}; `coracle token create` on the server makes a token to join with"
        )));
    };
    let Some(server) = server.or(kept_server) else {
        return Err(WrongUse(
            "--server: a node that joins must be told its server, as in https://192.0.2.1:6443".into(),
        ));
    };
    Ok(Way::Join { server, token, key })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use coracle_proto::join_token::BootstrapToken;
    use sha2::{Digest, Sha256};

    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    /// Credentials that end some hours from `now`; the authority's certificate is the node's own here.
    fn credentials(hours: i64) -> (Credentials, [u8; 32]) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["attic".into()]).unwrap();
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let seconds = |n: i64| std::time::Duration::from_secs(u64::try_from(n).unwrap());
        params.not_before = epoch;
        params.not_after = epoch + seconds(now().as_second() + hours * 3600);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, key) = (certificate.pem(), key.serialize_pem());
        let credentials = Credentials {
            authority: pem.clone(),
            client_certificate: pem.clone(),
            client_key: key.clone(),
            server_certificate: pem,
            server_key: key,
            renew_after: now(),
        };
        (credentials, Sha256::digest(certificate.der()).into())
    }

    fn token(authority: [u8; 32], digit: usize) -> JoinToken {
        JoinToken::new(authority, BootstrapToken::generate(|_| digit))
    }

    fn member(hours: i64) -> (Membership, JoinToken) {
        let (credentials, authority) = credentials(hours);
        let token = token(authority, 1);
        let server = "https://old:6443".to_owned();
        (Membership::new(server, "attic".into(), vec!["192.0.2.7".parse().unwrap()], &token, credentials), token)
    }

    fn wanted(server: Option<&str>, token: Option<&JoinToken>, node: &str) -> Wanted {
        Wanted { server: server.map(str::to_owned), token: token.cloned(), node: node.to_owned() }
    }

    #[test]
    fn a_member_stays_one_without_a_token_and_with_the_one_it_joined_with() {
        let (kept, old) = member(1);
        for token in [None, Some(&old)] {
            let got = way(Some(kept.clone()), wanted(None, token, "attic"), now());
            assert_eq!(got, Ok(Way::Stay(kept.clone())));
        }
        let moved = way(Some(kept.clone()), wanted(Some("https://new:6443"), None, "attic"), now());
        assert_eq!(moved, Ok(Way::Stay(Membership { server: "https://new:6443".into(), ..kept })));
    }

    #[test]
    fn a_new_token_means_to_join_anew_with_the_key_the_cluster_knows() {
        let (kept, old) = member(1);
        let new = token(*old.authority(), 2);
        let join = |server: &str, token: &JoinToken, key: Option<&str>| {
            Ok(Way::Join { server: server.into(), token: token.clone(), key: key.map(str::to_owned) })
        };
        let known = kept.credentials.client_key.clone();
        let got = way(Some(kept.clone()), wanted(None, Some(&new), "attic"), now());
        assert_eq!(got, join("https://old:6443", &new, Some(&known)));
        let elsewhere = token([7; 32], 2);
        let got = way(Some(kept.clone()), wanted(Some("https://b:1"), Some(&elsewhere), "attic"), now());
        assert_eq!(got, join("https://b:1", &elsewhere, None), "another cluster knows nothing of the key");
        let got = way(Some(kept), wanted(None, Some(&old), "cellar"), now());
        assert_eq!(got, join("https://old:6443", &old, None), "and so does the cluster under another name");
        let (over, old) = member(0);
        let known = over.credentials.client_key.clone();
        let got = way(Some(over), wanted(None, Some(&old), "attic"), now());
        assert_eq!(got, join("https://old:6443", &old, Some(&known)), "what has ended is begun anew");
    }

    #[test]
    fn who_has_nothing_to_show_is_told_what_is_missing() {
        let said = |kept: Option<Membership>, server, token: Option<&JoinToken>, node| {
            way(kept, wanted(server, token, node), now()).unwrap_err().0
        };
        assert!(said(None, Some("https://a:1"), None, "attic").starts_with("--token: this node is no member"));
        assert!(said(None, None, Some(&token([1; 32], 1)), "attic").starts_with("--server: "));
        assert!(said(Some(member(0).0), None, None, "attic").starts_with("--token: this node's membership has ended"));
        assert!(said(Some(member(1).0), None, None, "cellar").contains("by the name of \"attic\""));
    }

    #[test]
    fn the_file_is_the_owners_alone_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("membership.json");
        assert_eq!(Membership::load(&path).unwrap(), None);
        let (kept, _) = member(1);
        fs::write(path.with_extension("new"), "cut off").unwrap();
        kept.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Membership::load(&path).unwrap(), Some(kept));
        assert!(!path.with_extension("new").exists());
        for text in ["", "{}", "{\"format\": 2}"] {
            fs::write(&path, text).unwrap();
            assert!(Membership::load(&path).is_err(), "{text:?}");
        }
    }
}
