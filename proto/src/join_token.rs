//! Join tokens: what a new node shows the server, and what it knows the server by.
//!
//! ```text
//!   coracle1.<SHA-256 of the authority's certificate, hex>.<id>.<secret>
//!            └ for the node: whom to trust at first contact   └ for the server: which token, and the proof
//! ```
//!
//! The part behind the hash is a bootstrap token as kubeadm makes them, kept as a Secret of the type
//! `bootstrap.kubernetes.io/token` in `kube-system`; such a token authenticates as `system:bootstrap:<id>`. One token has
//! one role, written as a group: joining nodes, [`NODE_GROUP`], a further server, [`SERVER_GROUP`], or a witness,
//! [`WITNESS_GROUP`].
//!
//! First contact, for the joiner: take the last certificate the server shows in the TLS handshake, compare its SHA-256
//! with the token's, and let it be the only root the server's own certificate may hang on. The secret is sent over a
//! connection that was verified so, and over no other.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

/// The group of users that may join a node and nothing else.
pub const NODE_GROUP: &str = "system:bootstrappers:coracle:nodes";

/// The group of users that may add a server to the cluster, which is then handed all of its keys, and nothing else.
pub const SERVER_GROUP: &str = "system:bootstrappers:coracle:servers";

/// The group of users that may add a witness to the cluster, which is handed none of its keys, and nothing else.
pub const WITNESS_GROUP: &str = "system:bootstrappers:coracle:witnesses";

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nodes that join.
    Nodes,
    /// One further server.
    Server,
    /// One witness.
    Witness,
}

impl Role {
    /// The group that stands for it.
    #[must_use]
    pub const fn group(self) -> &'static str {
        match self {
            Self::Nodes => NODE_GROUP,
            Self::Server => SERVER_GROUP,
            Self::Witness => WITNESS_GROUP,
        }
    }
}

/// The `type` of the Secrets that hold tokens.
pub const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";

/// Where those Secrets are.
pub const SECRET_NAMESPACE: &str = "kube-system";

const PREFIX: &str = "coracle1";
const NAME_PREFIX: &str = "bootstrap-token-";
const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a token at all; the text itself is not repeated, since it may be a secret with a slip in it.
    #[error("a join token looks like coracle1.<64 hex digits>.<6 characters>.<16 characters>")]
    Form,
    /// A token of another version.
    #[error("the join token is of a version this program does not know")]
    Version,
}

/// Id and secret of a token: what the server checks.
#[derive(Clone, PartialEq, Eq)]
pub struct BootstrapToken {
    id: String,
    secret: String,
}

impl fmt::Debug for BootstrapToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BootstrapToken").field("id", &self.id).finish_non_exhaustive()
    }
}

fn is_part(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| ALPHABET.contains(&b))
}

impl BootstrapToken {
    /// A token drawn with `pick`, which returns a uniformly random number below the given one from a source fit for
    /// secrets.
    pub fn generate(mut pick: impl FnMut(usize) -> usize) -> Self {
        let mut part = |length| -> String {
            (0..length)
                .map(|_| char::from(ALPHABET.get(pick(ALPHABET.len()) % ALPHABET.len()).copied().unwrap_or(b'a')))
                .collect()
        };
        Self { id: part(ID_LENGTH), secret: part(SECRET_LENGTH) }
    }

    /// The public part.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The secret part.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// `<id>.<secret>`: what stands behind `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("{}.{}", self.id, self.secret)
    }

    /// The name of the Secret that holds the token with this id.
    #[must_use]
    pub fn secret_name(id: &str) -> String {
        format!("{NAME_PREFIX}{id}")
    }

    /// The Secret that makes the token valid for its role until `expires` (never ending when `None`).
    #[must_use]
    pub fn to_secret(&self, role: Role, expires: Option<Timestamp>, description: &str) -> Secret {
        let mut data: BTreeMap<String, ByteString> = BTreeMap::new();
        let mut put = |key: &str, value: &str| {
            data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
        };
        put("token-id", &self.id);
        put("token-secret", &self.secret);
        put("usage-bootstrap-authentication", "true");
        put("auth-extra-groups", role.group());
        if let Some(expires) = expires {
            put("expiration", &expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        }
        if !description.is_empty() {
            put("description", description);
        }
        Secret {
            metadata: ObjectMeta {
                name: Some(Self::secret_name(&self.id)),
                namespace: Some(SECRET_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            type_: Some(SECRET_TYPE.to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }
}

impl FromStr for BootstrapToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (id, secret) = text.split_once('.').ok_or(Error::Form)?;
        if !is_part(id, ID_LENGTH) || !is_part(secret, SECRET_LENGTH) {
            return Err(Error::Form);
        }
        Ok(Self { id: id.to_owned(), secret: secret.to_owned() })
    }
}

/// What the server keeps of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Id and secret.
    pub token: BootstrapToken,
    /// When it ends; `None` is never.
    pub expires: Option<Timestamp>,
    /// Groups it gives besides `system:bootstrappers`.
    pub groups: Vec<String>,
    /// Whether it may be used to authenticate at all.
    pub authenticates: bool,
    /// For people.
    pub description: String,
}

impl Record {
    /// The token in a Secret; `None` when the Secret holds none or one that breaks the rules (a name that is not its
    /// id's, an expiry that cannot be read, a group outside `system:bootstrappers:`).
    #[must_use]
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        if secret.type_.as_deref() != Some(SECRET_TYPE) {
            return None;
        }
        let data = secret.data.as_ref()?;
        let text = |key: &str| data.get(key).and_then(|b| std::str::from_utf8(&b.0).ok());
        let token: BootstrapToken = format!("{}.{}", text("token-id")?, text("token-secret")?).parse().ok()?;
        if secret.metadata.name.as_deref() != Some(&BootstrapToken::secret_name(&token.id)) {
            return None;
        }
        let expires = match text("expiration") {
            None | Some("") => None,
            Some(time) => Some(time.parse().ok()?),
        };
        let groups: Vec<String> = match text("auth-extra-groups") {
            None | Some("") => Vec::new(),
            Some(list) => list.split(',').map(|g| g.trim().to_owned()).collect(),
        };
        if !groups.iter().all(|g| g.starts_with("system:bootstrappers:")) {
            return None;
        }
        Some(Self {
            token,
            expires,
            groups,
            authenticates: text("usage-bootstrap-authentication") == Some("true"),
            description: text("description").unwrap_or_default().to_owned(),
        })
    }

    /// Whether the token authenticates at that time.
    #[must_use]
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.authenticates && self.expires.is_none_or(|end| now < end)
    }
}

/// A whole join token.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    authority: [u8; 32],
    token: BootstrapToken,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.token.id).finish_non_exhaustive()
    }
}

impl JoinToken {
    /// The token together with the SHA-256 of the authority's certificate (DER).
    #[must_use]
    pub const fn new(authority: [u8; 32], token: BootstrapToken) -> Self {
        Self { authority, token }
    }

    /// SHA-256 of the certificate (DER) to trust.
    #[must_use]
    pub const fn authority(&self) -> &[u8; 32] {
        &self.authority
    }

    /// What the server checks.
    #[must_use]
    pub const fn token(&self) -> &BootstrapToken {
        &self.token
    }
}

/// The text is the secret: print it only to the one who asked for a token.
impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}.")?;
        for byte in self.authority {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ".{}", self.token.bearer())
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.trim().splitn(3, '.');
        let (Some(prefix), Some(hash), Some(token)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Error::Form);
        };
        match prefix {
            PREFIX => {}
            other if other.starts_with("coracle") => return Err(Error::Version),
            _ => return Err(Error::Form),
        }
        let digits: Vec<u8> = hash
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or(Error::Form)?;
        let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |n, d| n << 4 | d)).collect();
        if digits.len() != 64 {
            return Err(Error::Form);
        }
        Ok(Self { authority: bytes.try_into().map_err(|_| Error::Form)?, token: token.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> BootstrapToken {
        let mut n = 0;
        BootstrapToken::generate(move |below| {
            n += 5;
            n % below
        })
    }

    #[test]
    fn a_token_survives_its_text_and_its_secret() {
        let join = JoinToken::new([0xa7; 32], token());
        assert_eq!(join.to_string().parse(), Ok(join.clone()));
        assert_eq!(format!(" {join}\n").parse(), Ok(join));
        let end: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let record = Record::from_secret(&token().to_secret(Role::Nodes, Some(end), "for the attic")).unwrap();
        assert_eq!(record.token, token());
        assert_eq!((record.expires, record.description.as_str()), (Some(end), "for the attic"));
        assert_eq!(record.groups, [NODE_GROUP]);
        let server = Record::from_secret(&token().to_secret(Role::Server, None, "")).unwrap();
        assert_eq!(server.groups, [SERVER_GROUP]);
        let witness = Record::from_secret(&token().to_secret(Role::Witness, None, "")).unwrap();
        assert_eq!(witness.groups, [WITNESS_GROUP]);
        assert!(record.is_valid(end - jiff::SignedDuration::from_secs(1)) && !record.is_valid(end));
    }

    #[test]
    fn what_is_not_a_token_is_refused_without_repeating_it() {
        let hash = "0".repeat(64);
        for (text, error) in [
            (String::new(), Error::Form),
            ("abcdef.0123456789abcdef".to_owned(), Error::Form),
            (format!("coracle2.{hash}.abcdef.0123456789abcdef"), Error::Version),
            (format!("coracle1.{}.abcdef.0123456789abcdef", "0".repeat(63)), Error::Form),
            (format!("coracle1.{}.abcdef.0123456789abcdef", "0".repeat(65)), Error::Form),
            (format!("coracle1.{}.abcdef.0123456789abcdef", "é".repeat(32)), Error::Form),
            (format!("coracle1.{hash}.ABCDEF.0123456789abcdef"), Error::Form),
            (format!("coracle1.{hash}.abcdef.0123456789abcde"), Error::Form),
            (format!("coracle1.{hash}.abcdef.0123456789abcdef.x"), Error::Form),
        ] {
            assert_eq!(text.parse::<JoinToken>(), Err(error), "{text}");
        }
        assert!(!format!("{:?}", JoinToken::new([0; 32], token())).contains(token().secret()));
    }

    #[test]
    fn a_secret_that_breaks_the_rules_holds_no_token() {
        let change = |edit: fn(&mut Secret)| {
            let mut secret = token().to_secret(Role::Nodes, None, "");
            edit(&mut secret);
            Record::from_secret(&secret)
        };
        fn set(secret: &mut Secret, key: &str, value: &str) {
            let data = secret.data.get_or_insert_default();
            data.insert(key.to_owned(), ByteString(value.as_bytes().to_vec()));
        }
        assert!(change(|_| {}).is_some());
        assert!(change(|s| s.type_ = Some("Opaque".to_owned())).is_none());
        assert!(change(|s| s.metadata.name = Some("bootstrap-token-aaaaaa".to_owned())).is_none());
        assert!(change(|s| set(s, "expiration", "tomorrow")).is_none());
        assert!(change(|s| set(s, "auth-extra-groups", "system:masters")).is_none());
        assert!(change(|s| set(s, "token-secret", "")).is_none());
        let off = change(|s| set(s, "usage-bootstrap-authentication", "false")).unwrap();
        assert!(!off.is_valid(Timestamp::UNIX_EPOCH));
    }
}
