//! From a token's claims to a user.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::config::{ClaimMappings, PrefixedClaim};
use crate::{
    cel::{Budget, Environment, Error, PER_CALL_LIMIT, Program, Type, Value, Variables},
    user::User,
};

/// What expressions about claims may use.
pub(super) fn claims_environment() -> Environment {
    Environment::new().with("claims", Type::map(Type::Dyn))
}

/// What expressions about users may use.
pub(super) fn user_environment() -> Environment {
    let text = Type::text();
    let fields = [
        ("username".to_owned(), text.clone()),
        ("uid".to_owned(), text.clone()),
        ("groups".to_owned(), Type::list(text.clone())),
        ("extra".to_owned(), Type::map(Type::list(text))),
    ];
    Environment::new().with("user", Type::object("kubernetes.UserInfo", fields))
}

/// An expression, compiled.
#[derive(Debug)]
pub(super) struct Expression {
    pub(super) source: String,
    pub(super) program: Program,
}

/// A rule, and what is said when it does not hold.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) expression: Expression,
    pub(super) message: String,
}

/// The expressions of an issuer, beside the claims that its configuration names.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    pub(super) username: Option<Expression>,
    pub(super) groups: Option<Expression>,
    pub(super) uid: Option<Expression>,
    pub(super) extra: Vec<(String, Expression)>,
    pub(super) claim_rules: Vec<Rule>,
    pub(super) user_rules: Vec<Rule>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mapping {
    pub(super) claims: ClaimMappings,
    /// Claims that must be there, with their values.
    pub(super) required: Vec<(String, String)>,
    pub(super) expressions: Expressions,
}

/// The one name that stands for something.
struct One(&'static str, Value);

impl Variables for One {
    fn get(&self, name: &str) -> Option<Result<Value, Error>> {
        (name == self.0).then(|| Ok(self.1.clone()))
    }
}

impl Expression {
    fn run(&self, over: &One) -> Result<Value, String> {
        let mut budget = Budget::new(PER_CALL_LIMIT);
        let value = self.program.run(over, &mut budget);
        value.map_err(|error| format!("expression '{}' resulted in error: {error}", self.source))
    }
}

fn text<'a>(claims: &'a Map<String, Json>, name: &str) -> Result<&'a str, String> {
    let claim = claims.get(name).ok_or_else(|| "claim not present".to_owned())?;
    claim.as_str().ok_or_else(|| "the claim is no string".to_owned())
}

/// The texts of a claim that is one, or a list of them.
fn texts(claim: &Json) -> Option<Vec<String>> {
    match claim {
        Json::String(one) => Some(vec![one.clone()]),
        Json::Array(several) => several.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The texts an expression gives: one, a list, or none. Empty ones are nothing.
fn given(value: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("expression must return a string or a list of strings, but returned {}", value.type_name());
    let found = match value.to_json() {
        Some(Json::Null) => Vec::new(),
        Some(json) => texts(&json).ok_or_else(wrong)?,
        None => return Err(wrong()),
    };
    Ok(found.into_iter().filter(|text| !text.is_empty()).collect())
}

/// The text of an expression that must give one.
fn one_text(value: &Value, what: &str) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.to_string()),
        _ => Err(format!("error evaluating {what} claim expression: {what} claim expression must return a string")),
    }
}

fn prefixed(mapping: &PrefixedClaim, value: &str) -> String {
    format!("{}{value}", mapping.prefix.as_deref().unwrap_or_default())
}

fn hold(rules: &[Rule], over: &One) -> Result<(), String> {
    for rule in rules {
        match rule.expression.run(over)? {
            Value::Bool(true) => {}
            Value::Bool(false) if !rule.message.is_empty() => {
                return Err(format!("validation expression '{}' failed: {}", rule.expression.source, rule.message));
            }
            Value::Bool(false) => return Err(format!("validation expression '{}' failed", rule.expression.source)),
            other => return Err(format!("validation expression must return bool, but returned {}", other.type_name())),
        }
    }
    Ok(())
}

impl Mapping {
    /// The user that the claims of a valid token stand for.
    ///
    /// # Errors
    /// Claims are missing or are not what they should be, or a rule does not hold.
    pub(super) fn user(&self, claims: &Map<String, Json>) -> Result<User, String> {
        let over = One("claims", Value::of(&Json::Object(claims.clone())));
        let name = self.username(claims, &over)?;
        let mut groups = self.groups(claims, &over)?;
        let uid = match (&self.claims.uid.claim, &self.expressions.uid) {
            (claim, _) if !claim.is_empty() => {
                text(claims, claim).map_err(|why| format!("parse uid claim {claim:?}: {why}"))?.to_owned()
            }
            (_, Some(expression)) => one_text(&expression.run(&over)?, "uid")?,
            _ => String::new(),
        };
        let extra = self.extra(claims, &over)?;
        for (claim, value) in &self.required {
            let Some(found) = claims.get(claim) else {
                return Err(format!("required claim {claim} not present in ID token"));
            };
            let found = found.as_str().ok_or_else(|| format!("parse claim {claim}: the claim is no string"))?;
            if found != value {
                return Err(format!("required claim {claim} value does not match. Got = {found}, want = {value}"));
            }
        }
        hold(&self.expressions.claim_rules, &over)
            .map_err(|why| format!("error evaluating claim validation expression: {why}"))?;
        if !self.expressions.user_rules.is_empty() {
            let shown = json!({"username": name, "uid": uid, "groups": groups, "extra": extra});
            hold(&self.expressions.user_rules, &One("user", Value::of(&shown)))
                .map_err(|why| format!("error evaluating user info validation rule: {why}"))?;
        }
        if !groups.iter().any(|group| group == "system:authenticated") {
            groups.push("system:authenticated".to_owned());
        }
        Ok(User { name, uid, groups, extra })
    }

    fn username(&self, claims: &Map<String, Json>, over: &One) -> Result<String, String> {
        if let Some(expression) = &self.expressions.username {
            let value =
                expression.run(over).map_err(|why| format!("error evaluating username claim expression: {why}"))?;
            let name = one_text(&value, "username")?;
            return if name.is_empty() {
                Err("empty username via CEL expression is not allowed".to_owned())
            } else {
                Ok(name)
            };
        }
        let claim = &self.claims.username.claim;
        let name = text(claims, claim).map_err(|why| format!("parse username claims {claim:?}: {why}"))?;
        // An address that nobody has verified is anybody's.
        if claim == "email" {
            match claims.get("email_verified") {
                None | Some(Json::Bool(true)) => {}
                Some(Json::Bool(false)) => return Err("email not verified".to_owned()),
                Some(_) => return Err("parse 'email_verified' claim: the claim is no bool".to_owned()),
            }
        }
        Ok(prefixed(&self.claims.username, name))
    }

    fn groups(&self, claims: &Map<String, Json>, over: &One) -> Result<Vec<String>, String> {
        let mapping = &self.claims.groups;
        if let Some(claim) = claims.get(&mapping.claim).filter(|_| !mapping.claim.is_empty()) {
            let wrong =
                || format!("parse groups claim {:?}: the claim is no string and no list of strings", mapping.claim);
            let groups = texts(claim).ok_or_else(wrong)?;
            return Ok(groups.iter().map(|group| prefixed(mapping, group)).collect());
        }
        let Some(expression) = &self.expressions.groups else { return Ok(Vec::new()) };
        let failed = |why| format!("error evaluating group claim expression: {why}");
        given(&expression.run(over).map_err(failed)?).map_err(failed)
    }

    fn extra(&self, claims: &Map<String, Json>, over: &One) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Json::as_str).filter(|id| !id.is_empty()) {
            extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.expressions.extra {
            let failed = |why| format!("error evaluating extra claim expression: {why}");
            let values = given(&expression.run(over).map_err(failed)?).map_err(failed)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }
}
