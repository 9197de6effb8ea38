//! Who else may ask a node: the cluster's API server says who somebody is (TokenReview) and what they may
//! (SubjectAccessReview), as kubelet has it asked. So metrics-server and Prometheus read a node's figures with the token of
//! their ServiceAccount, if a role allows them `nodes/metrics`.
//!
//! Nothing is kept of the answers: who loses a right loses it at once, and two small requests a scrape are no burden.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::time::Duration;

use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;

use super::failure;
use super::identity::Identity;

/// Strangers whose tokens are looked at, at once: a flood of them is not passed on to the API server.
const REVIEWS: usize = 8;
/// How long the API server may take to say who somebody is, or what they may.
const PATIENCE: Duration = Duration::from_secs(10);
/// No token is longer: those of the cluster have about a kilobyte.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Somebody as the API server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct User {
    name: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: Option<BTreeMap<String, Vec<String>>>,
}

/// Asks the API server on behalf of one node.
pub(super) struct Access {
    client: kube::Client,
    node_name: String,
    reviews: Semaphore,
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refused {
    /// Nobody the cluster knows.
    Unknown,
    /// Known, and may not.
    Forbidden(String),
    /// Nobody can say, for now.
    Unsaid(String),
    /// Too many are waiting to hear.
    Busy,
}

impl Refused {
    fn response(&self) -> Response {
        match self {
            Self::Unknown => failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"),
            Self::Forbidden(message) => failure(StatusCode::FORBIDDEN, "Forbidden", message),
            Self::Unsaid(message) => failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message),
            Self::Busy => {
                let message = "too many requests whose senders the API server is asked about: try again";
                failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
            }
        }
    }
}

impl Access {
    pub(super) fn new(client: kube::Client, node_name: String) -> Self {
        Self { client, node_name, reviews: Semaphore::new(REVIEWS) }
    }

    /// Whether the request may be carried out: of somebody with a certificate of the cluster's authority, or with a token.
    ///
    /// # Errors
    /// The answer, if it may not.
    pub(super) async fn check(
        &self,
        identity: &Identity,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), Response> {
        let asking = self.decide(identity, headers, method, path);
        let decided = tokio::time::timeout(PATIENCE, asking).await;
        let late = || Refused::Unsaid("the API server did not say in time who this is and what they may".to_owned());
        decided.unwrap_or_else(|_| Err(late())).map_err(|refused| refused.response())
    }

    async fn decide(
        &self,
        identity: &Identity,
        headers: &HeaderMap,
        method: &Method,
        path: &str,
    ) -> Result<(), Refused> {
        let known = identity.name.as_ref().map(|name| User {
            name: name.clone(),
            groups: identity.groups.iter().cloned().chain(["system:authenticated".to_owned()]).collect(),
            ..User::default()
        });
        let token = bearer(headers);
        if known.is_none() && token.is_none() {
            return Err(Refused::Unknown);
        }
        let _permit = self.reviews.try_acquire().map_err(|_| Refused::Busy)?;
        let user = match (known, token) {
            (Some(user), _) => user,
            (None, Some(token)) => self.who(token).await?,
            (None, None) => return Err(Refused::Unknown),
        };
        let wanted = subresources(path);
        let verb = verb(method, path);
        for subresource in &wanted {
            if self.may(&user, verb, subresource, path).await? {
                return Ok(());
            }
        }
        let message = format!(
            "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])",
            user.name,
            wanted.join(" ")
        );
        Err(Refused::Forbidden(message))
    }

    /// Whose token it is.
    async fn who(&self, token: &str) -> Result<User, Refused> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.to_owned(), ..TokenReviewSpec::default() },
            ..TokenReview::default()
        };
        let api: Api<TokenReview> = Api::all(self.client.clone());
        let status = match api.create(&PostParams::default(), &review).await {
            Ok(answer) => answer.status.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(error = &error as &(dyn StdError + 'static), "token not looked at");
                return Err(Refused::Unsaid("the API server could not be asked whose token this is".to_owned()));
            }
        };
        match status.user {
            Some(user) if status.authenticated == Some(true) => Ok(User {
                name: user.username.unwrap_or_default(),
                uid: user.uid,
                groups: user.groups.unwrap_or_default(),
                extra: user.extra,
            }),
            _ => Err(Refused::Unknown),
        }
    }

    /// Whether they may do it to this node.
    async fn may(&self, user: &User, verb: &str, subresource: &str, path: &str) -> Result<bool, Refused> {
        let text = |text: &str| Some(text.to_owned());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: text(&user.name),
                uid: user.uid.clone(),
                groups: Some(user.groups.clone()),
                extra: user.extra.clone(),
                resource_attributes: Some(ResourceAttributes {
                    verb: text(verb),
                    version: text("v1"),
                    resource: text("nodes"),
                    subresource: text(subresource),
                    name: text(&self.node_name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) => Ok(answer.status.is_some_and(|status| status.allowed)),
            Err(error) => {
                tracing::warn!(path, error = &error as &(dyn StdError + 'static), "rights not looked at");
                let name = &user.name;
                Err(Refused::Unsaid(format!(
                    "Authorization error (user={name}, verb={verb}, resource=nodes, subresource={subresource})"
                )))
            }
        }
    }
}

/// The token of a request, if it has one that can be any.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let fits = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= LONGEST_TOKEN;
    fits.then_some(token)
}

/// What of the node a request is about: the narrower right first, if there is one (KEP-2862).
fn subresources(path: &str) -> Vec<&'static str> {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => vec!["stats"],
        "metrics" => vec!["metrics"],
        "pods" | "runningpods" | "runningPods" => vec!["pods", "proxy"],
        "healthz" => vec!["healthz", "proxy"],
        _ => vec!["proxy"],
    }
}

/// What a request does, in the API's words. Sessions change things whichever way they are opened: a WebSocket begins with a
/// GET, and who may only read a node through its proxy must not run programs in its pods.
fn verb(method: &Method, path: &str) -> &'static str {
    const SESSIONS: [&str; 3] = ["exec", "attach", "portForward"];
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    match *method {
        _ if SESSIONS.contains(&first) => "create",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        // HEAD and OPTIONS tell no more than GET does.
        _ => "get",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::{Body, Bytes};
    use axum::extract::State;
    use axum::routing::post;
    use serde_json::{Value, json};

    use super::*;

    /// An API server that knows one token, and lets its owner do what `allowed` names as `verb subresource`.
    fn access(allowed: &'static [&'static str]) -> Access {
        let tokens = post(|body: Bytes| async move {
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let known = review["spec"]["token"] == "good";
            let user = json!({"username": "system:serviceaccount:kube-system:metrics-server", "groups": ["g"]});
            review["status"] = json!({"authenticated": known, "user": known.then_some(user)});
            review.to_string()
        });
        let rights = post(|State(allowed): State<Arc<Vec<String>>>, body: Bytes| async move {
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let asked = review["spec"]["resourceAttributes"].clone();
            assert_eq!((asked["resource"].as_str(), asked["name"].as_str()), (Some("nodes"), Some("n1")));
            let wanted = format!("{} {}", asked["verb"].as_str().unwrap(), asked["subresource"].as_str().unwrap());
            review["status"] = json!({"allowed": allowed.contains(&wanted)});
            review.to_string()
        });
        let allowed: Vec<String> = allowed.iter().map(|right| (*right).to_owned()).collect();
        let router: Router<()> = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", tokens)
            .route("/apis/authorization.k8s.io/v1/subjectaccessreviews", rights)
            .with_state(Arc::new(allowed));
        Access::new(kube::Client::new(router, "default"), "n1".to_owned())
    }

    async fn ask(access: &Access, identity: &Identity, authorization: &str, method: Method, path: &str) -> String {
        let headers = match authorization {
            "" => HeaderMap::new(),
            value => HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]),
        };
        match access.check(identity, &headers, &method, path).await {
            Ok(()) => "ok".to_owned(),
            Err(response) => {
                let code = response.status().as_u16();
                let body = axum::body::to_bytes(Body::new(response.into_body()), 4096).await.unwrap();
                let status: Value = serde_json::from_slice(&body).unwrap();
                format!("{code} {}", status["message"].as_str().unwrap())
            }
        }
    }

    #[tokio::test]
    async fn a_token_may_what_its_owner_may() {
        let access = access(&["get metrics", "get proxy"]);
        let nobody = Identity::default();
        let name = "system:serviceaccount:kube-system:metrics-server";
        for (authorization, method, path, want) in [
            ("", Method::GET, "/metrics/resource", "401 Unauthorized".to_owned()),
            ("Bearer bad", Method::GET, "/metrics/resource", "401 Unauthorized".to_owned()),
            ("Basic good", Method::GET, "/metrics/resource", "401 Unauthorized".to_owned()),
            ("Bearer good", Method::GET, "/metrics/resource", "ok".to_owned()),
            ("bearer good", Method::GET, "/pods", "ok".to_owned()),
            (
                "Bearer good",
                Method::GET,
                "/stats/summary",
                format!("403 Forbidden (user={name}, verb=get, resource=nodes, subresource(s)=[stats])"),
            ),
            (
                "Bearer good",
                Method::GET,
                "/exec/default/web/c",
                format!("403 Forbidden (user={name}, verb=create, resource=nodes, subresource(s)=[proxy])"),
            ),
            (
                "Bearer good",
                Method::POST,
                "/pods",
                format!("403 Forbidden (user={name}, verb=create, resource=nodes, subresource(s)=[pods proxy])"),
            ),
        ] {
            assert_eq!(ask(&access, &nobody, authorization, method, path).await, want, "{authorization} {path}");
        }
        let long = format!("Bearer {}", "x".repeat(LONGEST_TOKEN + 1));
        assert_eq!(ask(&access, &nobody, &long, Method::GET, "/metrics").await, "401 Unauthorized");
    }

    #[tokio::test]
    async fn a_certificate_is_asked_about_by_its_name() {
        let who = Identity { name: Some("prometheus".to_owned()), groups: Vec::new() };
        let access = access(&["get metrics"]);
        assert_eq!(ask(&access, &who, "", Method::GET, "/metrics/resource").await, "ok");
        assert!(ask(&access, &who, "", Method::GET, "/pods").await.starts_with("403 Forbidden (user=prometheus, "));
    }

    #[tokio::test]
    async fn without_an_answer_nobody_is_let_in() {
        let router: Router<()> = Router::new();
        let access = Access::new(kube::Client::new(router, "default"), "n1".to_owned());
        let told = ask(&access, &Identity::default(), "Bearer good", Method::GET, "/metrics").await;
        assert!(told.starts_with("500 "), "{told}");
        let held = access.reviews.try_acquire_many(8).unwrap();
        let told = ask(&access, &Identity::default(), "Bearer good", Method::GET, "/metrics").await;
        assert!(told.starts_with("429 "), "{told}");
        drop(held);
    }
}
