//! What is checked of a configuration before it is used, and the expressions in it compiled.

use std::collections::BTreeSet;

use coracle_proto::field::{self, Error, Path};
use http::Uri;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

use super::{
    config::{Issuer, PrefixedClaim},
    mapping::{Expression, Expressions, Mapping, Rule, claims_environment, user_environment},
};
use crate::cel::{self, Environment, Type};

/// More issuers than that are none of one cluster.
const MOST: usize = 64;

/// Compiles the mappings of all issuers; `disallowed` are issuers that are the cluster's own.
///
/// # Errors
/// All that is wrong, with Kubernetes' paths.
pub(super) fn compile(issuers: &[Issuer], disallowed: &[String]) -> Result<Vec<Mapping>, String> {
    let mut errors = Vec::new();
    let root = Path::new("jwt");
    if issuers.len() > MOST {
        return Err(format!("jwt: Too many: {}: must have at most {MOST} items", issuers.len()));
    }
    let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
    let mut mappings = Vec::new();
    for (index, issuer) in issuers.iter().enumerate() {
        let path = root.index(index);
        let mut checked = Checked { errors: &mut errors };
        let at = path.child("issuer");
        checked.issuer(issuer, &at, disallowed);
        mappings.push(checked.mapping(issuer, &path));
        if !urls.insert(&issuer.url) {
            errors.push(Error::duplicate(&at.child("url"), issuer.url.as_str()));
        }
        if let Some(url) = &issuer.discovery_url
            && !discoveries.insert(url)
        {
            errors.push(Error::duplicate(&at.child("discoveryURL"), url.as_str()));
        }
    }
    if errors.is_empty() { Ok(mappings) } else { Err(field::aggregate(&errors)) }
}

struct Checked<'a> {
    errors: &'a mut Vec<Error>,
}

/// Whether an expression must give a bool, or may give anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Bool,
    Anything,
}

impl Checked<'_> {
    fn push(&mut self, error: Error) {
        self.errors.push(error);
    }

    fn issuer(&mut self, issuer: &Issuer, path: &Path, disallowed: &[String]) {
        let at = path.child("url");
        if issuer.url.is_empty() {
            self.push(Error::required(&at, ""));
        } else {
            if disallowed.contains(&issuer.url) {
                let detail = format!("URL must not overlap with disallowed issuers: [{}]", disallowed.join(" "));
                self.push(Error::invalid(&at, issuer.url.as_str(), &detail));
            }
            self.url(&issuer.url, &at);
        }
        if let Some(url) = &issuer.discovery_url {
            let at = path.child("discoveryURL");
            if url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
                self.push(Error::invalid(&at, url.as_str(), "discoveryURL must be different from URL"));
            }
            self.url(url, &at);
        }
        self.audiences(issuer, path);
        if !issuer.certificate_authority.is_empty() {
            let found = CertificateDer::pem_slice_iter(issuer.certificate_authority.as_bytes());
            if found.filter_map(Result::ok).next().is_none() {
                let detail = "data does not contain any valid RSA or ECDSA certificates";
                self.push(Error::invalid(&path.child("certificateAuthority"), "<omitted>", detail));
            }
        }
    }

    fn url(&mut self, url: &str, path: &Path) {
        if url.contains('#') {
            self.push(Error::invalid(path, url, "URL must not contain a fragment"));
        }
        let uri: Uri = match url.split('#').next().unwrap_or_default().parse() {
            Ok(uri) => uri,
            Err(error) => return self.push(Error::invalid(path, url, &format!("{error}"))),
        };
        if uri.scheme_str() != Some("https") {
            self.push(Error::invalid(path, url, "URL scheme must be https"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            self.push(Error::invalid(path, url, "URL must not contain a username or password"));
        }
        if uri.query().is_some_and(|query| !query.is_empty()) {
            self.push(Error::invalid(path, url, "URL must not contain a query"));
        }
    }

    fn audiences(&mut self, issuer: &Issuer, path: &Path) {
        let at = path.child("audiences");
        let policy = issuer.audience_match_policy.as_str();
        if issuer.audiences.is_empty() {
            self.push(Error::required(&at, &format!("at least one {at} is required")));
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, audience) in issuer.audiences.iter().enumerate() {
            if audience.is_empty() {
                self.push(Error::required(&at.index(index), ""));
            }
            if !seen.insert(audience) {
                self.push(Error::duplicate(&at.index(index), audience.as_str()));
            }
        }
        let at = path.child("audienceMatchPolicy");
        match issuer.audiences.len() {
            1 if !matches!(policy, "" | "MatchAny") => {
                let detail = "audienceMatchPolicy must be empty or MatchAny for single audience";
                self.push(Error::invalid(&at, policy, detail));
            }
            1 => {}
            _ if policy != "MatchAny" => {
                let detail = "audienceMatchPolicy must be MatchAny for multiple audiences";
                self.push(Error::invalid(&at, policy, detail));
            }
            _ => {}
        }
    }

    fn expression(&mut self, source: &str, over: &Environment, wanted: Wanted, path: &Path) -> Option<Expression> {
        let program = match cel::compile(source, over) {
            Ok(program) => program,
            Err(error) => {
                self.push(Error::invalid(path, source, &format!("compilation failed: {error}")));
                return None;
            }
        };
        if wanted == Wanted::Bool && *program.result() != Type::Bool {
            self.push(Error::invalid(path, source, "must evaluate to bool"));
            return None;
        }
        Some(Expression { source: source.to_owned(), program })
    }

    fn mapping(&mut self, issuer: &Issuer, path: &Path) -> Mapping {
        let over = claims_environment();
        let mut expressions = Expressions::default();
        let mut required = Vec::new();
        self.claim_rules(issuer, &path.child("claimValidationRules"), &over, &mut expressions, &mut required);
        let at = path.child("claimMappings");
        let mappings = &issuer.claim_mappings;
        expressions.username = self.claim_or_expression(&mappings.username, &at.child("username"), &over, true);
        expressions.groups = self.claim_or_expression(&mappings.groups, &at.child("groups"), &over, false);
        let uid = &mappings.uid;
        if !uid.claim.is_empty() && !uid.expression.is_empty() {
            self.push(Error::invalid(&at.child("uid"), "", "claim and expression can't both be set"));
        } else if !uid.expression.is_empty() {
            let at = at.child("uid").child("expression");
            expressions.uid = self.expression(&uid.expression, &over, Wanted::Anything, &at);
        }
        self.extra(issuer, &at.child("extra"), &over, &mut expressions);
        let selects = |expression: &Expression, name: &str| expression.program.selects("claims", name);
        let verifies = || {
            let rules = expressions.claim_rules.iter().map(|rule| &rule.expression);
            let extra = expressions.extra.iter().map(|(_, expression)| expression);
            expressions.username.iter().chain(rules).chain(extra).any(|e| selects(e, "email_verified"))
        };
        if expressions.username.as_ref().is_some_and(|username| selects(username, "email")) && !verifies() {
            let detail = "claims.email_verified must be used in claimMappings.username.expression or \
                          claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when \
                          claims.email is used in claimMappings.username.expression";
            let at = at.child("username").child("expression");
            self.push(Error::invalid(&at, mappings.username.expression.as_str(), detail));
        }
        self.user_rules(issuer, &path.child("userValidationRules"), &mut expressions);
        Mapping { claims: mappings.clone(), required, expressions }
    }

    fn claim_rules(
        &mut self,
        issuer: &Issuer,
        path: &Path,
        over: &Environment,
        expressions: &mut Expressions,
        required: &mut Vec<(String, String)>,
    ) {
        let (mut claims, mut sources) = (BTreeSet::new(), BTreeSet::new());
        for (index, rule) in issuer.claim_validation_rules.iter().enumerate() {
            let at = path.index(index);
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => self.push(Error::required(&at, "claim or expression is required")),
                ("", source) => {
                    if !rule.required_value.is_empty() {
                        let detail = "may not be specified when expression is set";
                        self.push(Error::invalid(&at.child("requiredValue"), rule.required_value.as_str(), detail));
                    }
                    if !sources.insert(source) {
                        self.push(Error::duplicate(&at.child("expression"), source));
                        continue;
                    }
                    let compiled = self.expression(source, over, Wanted::Bool, &at.child("expression"));
                    let rule = |expression| Rule { expression, message: rule.message.clone() };
                    expressions.claim_rules.extend(compiled.map(rule));
                }
                (claim, "") => {
                    if !rule.message.is_empty() {
                        let detail = "may not be specified when claim is set";
                        self.push(Error::invalid(&at.child("message"), rule.message.as_str(), detail));
                    }
                    if !claims.insert(claim) {
                        self.push(Error::duplicate(&at.child("claim"), claim));
                    }
                    required.push((claim.to_owned(), rule.required_value.clone()));
                }
                (claim, _) => self.push(Error::invalid(&at, claim, "claim and expression can't both be set")),
            }
        }
    }

    fn claim_or_expression(
        &mut self,
        mapping: &PrefixedClaim,
        path: &Path,
        over: &Environment,
        is_required: bool,
    ) -> Option<Expression> {
        match (mapping.claim.as_str(), mapping.expression.as_str()) {
            ("", "") => {
                if is_required {
                    self.push(Error::required(path, "claim or expression is required"));
                }
                None
            }
            ("", source) => {
                if let Some(prefix) = &mapping.prefix {
                    let detail = "may not be specified when expression is set";
                    self.push(Error::invalid(&path.child("prefix"), prefix.as_str(), detail));
                }
                self.expression(source, over, Wanted::Anything, &path.child("expression"))
            }
            (_, "") => {
                if mapping.prefix.is_none() {
                    let detail =
                        "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                    self.push(Error::required(&path.child("prefix"), detail));
                }
                None
            }
            _ => {
                self.push(Error::invalid(path, "", "claim and expression can't both be set"));
                None
            }
        }
    }

    fn extra(&mut self, issuer: &Issuer, path: &Path, over: &Environment, expressions: &mut Expressions) {
        let mut keys = BTreeSet::new();
        for (index, extra) in issuer.claim_mappings.extra.iter().enumerate() {
            let (at, key) = (path.index(index), extra.key.as_str());
            let place = at.child("key");
            let domain = key
                .split_once('/')
                .filter(|(domain, rest)| coracle_proto::name::dns1123_subdomain(domain).is_empty() && !rest.is_empty());
            match domain {
                None if key.is_empty() => self.push(Error::required(&place, "")),
                None => {
                    let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                    self.push(Error::invalid(&place, key, detail));
                }
                Some((domain, _)) if is_kubernetes_own(domain) => {
                    let detail = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                    self.push(Error::invalid(&place, key, detail));
                }
                Some(_) => {}
            }
            if key.chars().any(char::is_uppercase) {
                self.push(Error::invalid(&place, key, "must be lowercase"));
            }
            if !keys.insert(key) {
                self.push(Error::duplicate(&place, key));
                continue;
            }
            let place = at.child("valueExpression");
            if extra.value_expression.is_empty() {
                self.push(Error::required(&place, ""));
                continue;
            }
            let compiled = self.expression(&extra.value_expression, over, Wanted::Anything, &place);
            expressions.extra.extend(compiled.map(|expression| (key.to_owned(), expression)));
        }
    }

    fn user_rules(&mut self, issuer: &Issuer, path: &Path, expressions: &mut Expressions) {
        let over = user_environment();
        let mut sources = BTreeSet::new();
        for (index, rule) in issuer.user_validation_rules.iter().enumerate() {
            let at = path.index(index).child("expression");
            if rule.expression.is_empty() {
                self.push(Error::required(&at, ""));
            } else if !sources.insert(&rule.expression) {
                self.push(Error::duplicate(&at, rule.expression.as_str()));
            } else {
                let compiled = self.expression(&rule.expression, &over, Wanted::Bool, &at);
                let rule = |expression| Rule { expression, message: rule.message.clone() };
                expressions.user_rules.extend(compiled.map(rule));
            }
        }
    }
}

fn is_kubernetes_own(domain: &str) -> bool {
    ["kubernetes.io", "k8s.io"].into_iter().any(|own| domain == own || domain.ends_with(&format!(".{own}")))
}
