//! Who may issue tokens, as the file `--authentication-config` or the flags `--oidc-…` say.

use std::{io, path::PathBuf};

use jsonwebtoken::Algorithm;
use serde::Deserialize;

/// The algorithms that tokens of an issuer in the file may be signed with: all of those Kubernetes takes but ES512, which
/// the cryptography here does not have.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// How users without credentials are dealt with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    /// They may ask for health and version.
    #[default]
    Open,
    /// They are `system:anonymous` everywhere, and what that one may is for RBAC to say.
    Everywhere,
    /// They are at these paths.
    At(Vec<String>),
    /// They are nobody anywhere.
    Nowhere,
}

/// A claim that becomes something of the user, with something before it; or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PrefixedClaim {
    /// The claim.
    pub claim: String,
    /// What is put before it.
    pub prefix: Option<String>,
    /// The expression.
    pub expression: String,
}

/// A claim or an expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Claim {
    /// The claim.
    pub claim: String,
    /// The expression.
    pub expression: String,
}

/// A further fact about the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Extra {
    /// What it is called.
    pub key: String,
    /// The expression that gives its values.
    pub value_expression: String,
}

/// What of the claims becomes what of the user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimMappings {
    /// The name.
    pub username: PrefixedClaim,
    /// The groups.
    pub groups: PrefixedClaim,
    /// The uid.
    pub uid: Claim,
    /// Further facts.
    pub extra: Vec<Extra>,
}

/// A claim that must be there with this value, or an expression over the claims that must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimRule {
    /// The claim.
    pub claim: String,
    /// Its value.
    pub required_value: String,
    /// The expression.
    pub expression: String,
    /// What is said when it does not hold.
    pub message: String,
}

/// An expression over the user that must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UserRule {
    /// The expression.
    pub expression: String,
    /// What is said when it does not hold.
    pub message: String,
}

/// An issuer, and what is made of its tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Issuer {
    /// Who it is: the tokens' `iss`.
    pub url: String,
    /// Where its discovery document is, if not where its URL says.
    pub discovery_url: Option<String>,
    /// Whom its tokens must be for: one of these.
    pub audiences: Vec<String>,
    /// `MatchAny`, or nothing where there is one audience.
    pub audience_match_policy: String,
    /// The certificates it is known by (PEM); without any, those of the public web's authorities.
    pub certificate_authority: String,
    /// What its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Rules about claims.
    pub claim_validation_rules: Vec<ClaimRule>,
    /// From claims to users.
    pub claim_mappings: ClaimMappings,
    /// Rules about users.
    pub user_validation_rules: Vec<UserRule>,
}

/// Who is let in besides those with credentials of the cluster itself.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Issuers of tokens.
    pub issuers: Vec<Issuer>,
    /// Those without credentials.
    pub anonymous: Anonymous,
    /// The file all this was read from, which is read again when it changes.
    pub file: Option<PathBuf>,
}

/// Why a configuration cannot be used.
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
    /// The file is no such configuration.
    #[error("--authentication-config {file:?}: {why}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        why: String,
    },
    /// A flag's value.
    #[error("--{flag}: {why}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong.
        why: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    jwt: Vec<FileJwt>,
    anonymous: Option<FileAnonymous>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileJwt {
    issuer: FileIssuer,
    #[serde(default)]
    claim_validation_rules: Vec<ClaimRule>,
    #[serde(default)]
    claim_mappings: ClaimMappings,
    #[serde(default)]
    user_validation_rules: Vec<UserRule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct FileIssuer {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileAnonymous {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    conditions: Vec<FileCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCondition {
    path: String,
}

/// Versions of the file that are the same as far as they are read here.
const VERSIONS: &[&str] =
    &["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1", "apiserver.config.k8s.io/v1alpha1"];

impl Config {
    /// Reads a file of kind `AuthenticationConfiguration`.
    ///
    /// # Errors
    /// Why it is none. What its values mean is checked where they are used.
    pub fn read(text: &str) -> Result<Self, String> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if !VERSIONS.contains(&file.api_version.as_str()) || file.kind != "AuthenticationConfiguration" {
            return Err("must be apiVersion apiserver.config.k8s.io/v1, kind AuthenticationConfiguration".to_owned());
        }
        if file.jwt.iter().any(|jwt| !jwt.issuer.egress_selector_type.is_empty()) {
            return Err("jwt[].issuer.egressSelectorType: there are no egress selectors in Coracle".to_owned());
        }
        let anonymous = match file.anonymous {
            None => Anonymous::Open,
            Some(FileAnonymous { enabled: false, conditions }) if !conditions.is_empty() => {
                return Err(
                    "anonymous.conditions: enabled should be set to true when conditions are defined".to_owned()
                );
            }
            Some(FileAnonymous { enabled: false, .. }) => Anonymous::Nowhere,
            Some(FileAnonymous { conditions, .. }) if conditions.is_empty() => Anonymous::Everywhere,
            Some(FileAnonymous { conditions, .. }) => {
                Anonymous::At(conditions.into_iter().map(|condition| condition.path).collect())
            }
        };
        let issuer = |jwt: FileJwt| Issuer {
            url: jwt.issuer.url,
            discovery_url: jwt.issuer.discovery_url.filter(|url| !url.is_empty()),
            audiences: jwt.issuer.audiences,
            audience_match_policy: jwt.issuer.audience_match_policy,
            certificate_authority: jwt.issuer.certificate_authority,
            algorithms: ALGORITHMS.to_vec(),
            claim_validation_rules: jwt.claim_validation_rules,
            claim_mappings: jwt.claim_mappings,
            user_validation_rules: jwt.user_validation_rules,
        };
        Ok(Self { issuers: file.jwt.into_iter().map(issuer).collect(), anonymous, file: None })
    }
}

/// The command line's words for a [`Config`].
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// A file (apiserver.config.k8s.io/v1, AuthenticationConfiguration) that says whose tokens are taken, and what users
    /// without credentials may ask for.
    #[arg(long, env = "CORACLE_AUTHENTICATION_CONFIG", value_name = "FILE", conflicts_with = "oidc_issuer_url")]
    pub authentication_config: Option<PathBuf>,
    /// The issuer (OpenID Connect) whose tokens are taken.
    #[arg(long, env = "CORACLE_OIDC_ISSUER_URL", value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// Whom that issuer's tokens must be for.
    #[arg(long, env = "CORACLE_OIDC_CLIENT_ID", value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// The certificates that issuer is known by, instead of the public web's authorities.
    #[arg(long, env = "CORACLE_OIDC_CA_FILE", value_name = "FILE", requires = "oidc_issuer_url")]
    pub oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name.
    #[arg(long, env = "CORACLE_OIDC_USERNAME_CLAIM", default_value = "sub", value_name = "CLAIM")]
    pub oidc_username_claim: String,
    /// What is put before the name: without it the issuer's URL and a #, unless the claim is email; - is nothing.
    #[arg(long, env = "CORACLE_OIDC_USERNAME_PREFIX", value_name = "TEXT")]
    pub oidc_username_prefix: Option<String>,
    /// The claim that holds the user's groups.
    #[arg(long, env = "CORACLE_OIDC_GROUPS_CLAIM", value_name = "CLAIM")]
    pub oidc_groups_claim: Option<String>,
    /// What is put before each group.
    #[arg(long, env = "CORACLE_OIDC_GROUPS_PREFIX", value_name = "TEXT")]
    pub oidc_groups_prefix: Option<String>,
    /// A claim that must be there, with its value.
    #[arg(long, env = "CORACLE_OIDC_REQUIRED_CLAIM", value_name = "CLAIM=VALUE", value_delimiter = ',')]
    pub oidc_required_claim: Vec<String>,
    /// What that issuer's tokens may be signed with.
    #[arg(long, env = "CORACLE_OIDC_SIGNING_ALGS", default_value = "RS256", value_name = "ALG", value_delimiter = ',')]
    pub oidc_signing_algs: Vec<String>,
}

impl Args {
    /// The configuration these words mean.
    ///
    /// # Errors
    /// A file that cannot be read or is no such configuration; a value that is none.
    pub fn config(self) -> Result<Config, Error> {
        if let Some(file) = self.authentication_config {
            let text = std::fs::read_to_string(&file).map_err(|source| Error::Read { file: file.clone(), source })?;
            return match Config::read(&text) {
                Ok(config) => Ok(Config { file: Some(file), ..config }),
                Err(why) => Err(Error::File { file, why }),
            };
        }
        let Some(url) = self.oidc_issuer_url else { return Ok(Config::default()) };
        let certificate_authority = match self.oidc_ca_file {
            Some(file) => std::fs::read_to_string(&file).map_err(|source| Error::Read { file, source })?,
            None => String::new(),
        };
        let known = |name: &String| ALGORITHMS.iter().copied().find(|known| format!("{known:?}") == *name);
        let algorithm = |name: &String| {
            let why = format!("{name:?} is none of RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512");
            known(name).ok_or(Error::Flag { flag: "oidc-signing-algs", why })
        };
        let algorithms = self.oidc_signing_algs.iter().map(algorithm).collect::<Result<_, _>>()?;
        let required = |text: &String| {
            let why = || format!("{text:?} must be CLAIM=VALUE");
            let (claim, value) =
                text.split_once('=').ok_or_else(|| Error::Flag { flag: "oidc-required-claim", why: why() })?;
            Ok(ClaimRule { claim: claim.to_owned(), required_value: value.to_owned(), ..ClaimRule::default() })
        };
        let prefix = match self.oidc_username_prefix {
            Some(prefix) if prefix == "-" => String::new(),
            Some(prefix) => prefix,
            None if self.oidc_username_claim == "email" => String::new(),
            None => format!("{url}#"),
        };
        let groups = self.oidc_groups_claim.map(|claim| PrefixedClaim {
            claim,
            prefix: Some(self.oidc_groups_prefix.unwrap_or_default()),
            expression: String::new(),
        });
        let issuer = Issuer {
            url,
            audiences: self.oidc_client_id.into_iter().collect(),
            certificate_authority,
            algorithms,
            claim_validation_rules: self.oidc_required_claim.iter().map(required).collect::<Result<_, _>>()?,
            claim_mappings: ClaimMappings {
                username: PrefixedClaim {
                    claim: self.oidc_username_claim,
                    prefix: Some(prefix),
                    expression: String::new(),
                },
                groups: groups.unwrap_or_default(),
                ..ClaimMappings::default()
            },
            ..Issuer::default()
        };
        Ok(Config { issuers: vec![issuer], ..Config::default() })
    }
}
