//! Reviews: questions about users and permissions, answered and never stored.

use coracle_proto::{
    field::{self, Path},
    status::Status,
};
use k8s_openapi::{
    api::{
        authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, TokenReview, TokenReviewStatus, UserInfo},
        authorization::v1::{
            LocalSubjectAccessReview, NonResourceAttributes, NonResourceRule, ResourceAttributes, ResourceRule,
            SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
            SubjectAccessReviewStatus, SubjectRulesReviewStatus,
        },
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde::Serialize;
use serde_json::Value;

use super::{Security, decode};
use crate::{
    authz::{Attributes, Authorizer, Decision},
    request::RequestInfo,
    status_of::{self, Result},
    user::User,
};

const AUTHORIZATION: &str = "authorization.k8s.io";

pub(super) fn is_review(resource: &str) -> bool {
    matches!(
        resource,
        "selfsubjectreviews"
            | "tokenreviews"
            | "subjectaccessreviews"
            | "localsubjectaccessreviews"
            | "selfsubjectaccessreviews"
            | "selfsubjectrulesreviews"
    )
}

fn shown(review: &impl Serialize) -> Result<Value> {
    serde_json::to_value(review).map_err(|error| status_of::broken("a review cannot be encoded", &error))
}

pub(crate) fn user_info(user: User) -> UserInfo {
    UserInfo {
        username: Some(user.name),
        uid: Some(user.uid).filter(|uid| !uid.is_empty()),
        groups: Some(user.groups),
        extra: Some(user.extra).filter(|extra| !extra.is_empty()),
    }
}

pub(super) async fn answer(security: &Security, user: &User, info: &RequestInfo, bytes: &[u8]) -> Result<Value> {
    match info.resource.as_str() {
        "selfsubjectreviews" => {
            let mut review: SelfSubjectReview = decode("SelfSubjectReview", bytes, info)?;
            let now = (security.clock)();
            review.metadata.creation_timestamp = Some(Time(now));
            review.status = Some(SelfSubjectReviewStatus { user_info: Some(user_info(user.clone())) });
            shown(&review)
        }
        "tokenreviews" => token(security, decode("TokenReview", bytes, info)?).await,
        "subjectaccessreviews" => {
            let mut review: SubjectAccessReview = decode("SubjectAccessReview", bytes, info)?;
            review.status = Some(access(security.authorizer()?, "SubjectAccessReview", &review.spec)?);
            shown(&review)
        }
        "localsubjectaccessreviews" => {
            let mut review: LocalSubjectAccessReview = decode("LocalSubjectAccessReview", bytes, info)?;
            local(&review, &info.namespace)?;
            review.status = Some(access(security.authorizer()?, "LocalSubjectAccessReview", &review.spec)?);
            shown(&review)
        }
        "selfsubjectaccessreviews" => {
            let mut review: SelfSubjectAccessReview = decode("SelfSubjectAccessReview", bytes, info)?;
            let asked = (review.spec.resource_attributes.as_ref(), review.spec.non_resource_attributes.as_ref());
            one_of("SelfSubjectAccessReview", asked)?;
            review.status = Some(decide(security.authorizer()?, user, asked));
            shown(&review)
        }
        _ => rules(security, user, decode("SelfSubjectRulesReview", bytes, info)?),
    }
}

async fn token(security: &Security, mut review: TokenReview) -> Result<Value> {
    let token = review.spec.token.clone();
    if token.is_empty() {
        return Err(Box::new(Status::bad_request("token is required for TokenReview in authentication")));
    }
    let wanted = review.spec.audiences.clone().unwrap_or_default();
    review.status = Some(match security.authenticators.bearer(&token, &wanted).await {
        Ok((user, audiences)) => TokenReviewStatus {
            authenticated: Some(true),
            user: Some(user_info(user)),
            audiences: Some(audiences),
            error: None,
        },
        Err(why) => {
            tracing::debug!(why, "token under review refused");
            let error = "invalid bearer token".to_owned();
            TokenReviewStatus { user: Some(UserInfo::default()), error: Some(error), ..Default::default() }
        }
    });
    shown(&review)
}

type Asked<'a> = (Option<&'a ResourceAttributes>, Option<&'a NonResourceAttributes>);

fn invalid(kind: &str, errors: &[field::Error]) -> Result<()> {
    if errors.is_empty() { Ok(()) } else { Err(Box::new(Status::invalid(AUTHORIZATION, kind, "", errors))) }
}

/// Exactly one thing is asked.
fn one_of(kind: &str, asked: Asked<'_>) -> Result<()> {
    invalid(kind, &one_of_errors(asked))
}

fn one_of_errors(asked: Asked<'_>) -> Vec<field::Error> {
    let path = Path::new("spec");
    match asked {
        (Some(_), Some(_)) => vec![field::Error::invalid(
            &path.child("nonResourceAttributes"),
            Value::Null,
            "cannot be specified in combination with resourceAttributes",
        )],
        (None, None) => vec![field::Error::invalid(
            &path.child("resourceAttributes"),
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )],
        _ => Vec::new(),
    }
}

fn local(review: &LocalSubjectAccessReview, namespace: &str) -> Result<()> {
    let path = Path::new("spec");
    let about = review.spec.resource_attributes.as_ref().and_then(|r| r.namespace.as_deref()).unwrap_or_default();
    let mut errors = Vec::new();
    if about != namespace {
        let path = path.child("resourceAttributes").child("namespace");
        errors.push(field::Error::invalid(&path, about, "must match metadata.namespace"));
    }
    if review.spec.non_resource_attributes.is_some() {
        let path = path.child("nonResourceAttributes");
        errors.push(field::Error::invalid(&path, Value::Null, "disallowed on this kind of request"));
    }
    invalid("LocalSubjectAccessReview", &errors)
}

fn access(authorizer: &Authorizer, kind: &str, spec: &SubjectAccessReviewSpec) -> Result<SubjectAccessReviewStatus> {
    let asked = (spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref());
    let mut errors = one_of_errors(asked);
    let user = User {
        name: spec.user.clone().unwrap_or_default(),
        uid: spec.uid.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    if user.name.is_empty() && user.groups.is_empty() {
        let path = Path::new("spec").child("user");
        errors.push(field::Error::invalid(&path, "", "at least one of user or group must be specified"));
    }
    invalid(kind, &errors)?;
    Ok(decide(authorizer, &user, asked))
}

fn decide(authorizer: &Authorizer, user: &User, asked: Asked<'_>) -> SubjectAccessReviewStatus {
    fn text(value: Option<&String>) -> &str {
        value.map_or("", String::as_str)
    }
    let selector;
    let attributes = match asked {
        (Some(about), _) => {
            selector = about.field_selector.as_ref().map(|selector| {
                let equal = |r: &k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldSelectorRequirement| match (
                    r.operator.as_str(),
                    r.values.as_deref(),
                ) {
                    ("In", Some([value])) => Some(format!("{}={value}", r.key)),
                    _ => None,
                };
                let listed = selector.requirements.iter().flatten().filter_map(equal).collect::<Vec<_>>().join(",");
                selector.raw_selector.clone().unwrap_or(listed)
            });
            Attributes {
                namespace: text(about.namespace.as_ref()),
                group: text(about.group.as_ref()),
                resource: text(about.resource.as_ref()),
                subresource: text(about.subresource.as_ref()),
                name: text(about.name.as_ref()),
                field_selector: selector.as_deref().unwrap_or_default(),
                ..Attributes::new(user, text(about.verb.as_ref()))
            }
        }
        (None, Some(about)) => {
            Attributes { path: Some(text(about.path.as_ref())), ..Attributes::new(user, text(about.verb.as_ref())) }
        }
        (None, None) => Attributes::new(user, ""),
    };
    match authorizer.decide(&attributes) {
        Decision::Allow => {
            let reason = Some(authorizer.reason(&attributes)).filter(|reason| !reason.is_empty());
            SubjectAccessReviewStatus { allowed: true, reason, ..Default::default() }
        }
        Decision::NoOpinion(reason) => {
            let reason = Some(reason).filter(|r| !r.is_empty());
            SubjectAccessReviewStatus { allowed: false, reason, ..Default::default() }
        }
    }
}

fn rules(security: &Security, user: &User, mut review: SelfSubjectRulesReview) -> Result<Value> {
    let namespace = review.spec.namespace.clone().unwrap_or_default();
    if namespace.is_empty() {
        return Err(Box::new(Status::bad_request("no namespace on request")));
    }
    let (rules, errors) = security.authorizer()?.rules_of(user, &namespace);
    let (about_urls, about_resources): (Vec<_>, Vec<_>) =
        rules.into_iter().partition(|rule| rule.non_resource_urls.is_some());
    review.status = Some(SubjectRulesReviewStatus {
        resource_rules: about_resources
            .into_iter()
            .map(|rule| ResourceRule {
                verbs: rule.verbs,
                api_groups: rule.api_groups,
                resources: rule.resources,
                resource_names: rule.resource_names,
            })
            .collect(),
        non_resource_rules: about_urls
            .into_iter()
            .map(|rule| NonResourceRule { verbs: rule.verbs, non_resource_urls: rule.non_resource_urls })
            .collect(),
        incomplete: !errors.is_empty(),
        evaluation_error: Some(errors.join(", ")).filter(|e| !e.is_empty()),
    });
    shown(&review)
}
