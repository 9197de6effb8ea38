//! Acting as somebody else: `kubectl --as`, `--as-group`, `--as-uid`, `--as-user-extra`.
//!
//! Each thing asked for (the user, each group, the uid, each further fact) is a resource of its own that the verb
//! `impersonate` must be allowed on, as in Kubernetes.

use std::collections::BTreeMap;

use coracle_proto::status::Status;
use http::HeaderMap;

use crate::{authz::Attributes, request::percent_decode, status_of::Result, user::User};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";

/// Whom a request wants to be done as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    name: String,
    uid: String,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

/// Reads the headers; none when they ask for nobody.
///
/// # Errors
/// 500, as Kubernetes answers, for groups, a uid or facts without a user; 400 for what is no text.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Option<Wanted>> {
    let mut wanted = Wanted::default();
    for (header, value) in headers {
        let header = header.as_str();
        if !header.starts_with("impersonate-") {
            continue;
        }
        let text =
            value.to_str().map_err(|_| Box::new(Status::bad_request(format!("the header {header} is no text"))))?;
        if text.is_empty() {
            continue;
        }
        match header {
            USER => text.clone_into(&mut wanted.name),
            UID => text.clone_into(&mut wanted.uid),
            GROUP => wanted.groups.push(text.to_owned()),
            _ => {
                // Keys are lower case by being headers, and may be escaped to hold what headers may not.
                if let Some(key) = header.strip_prefix(EXTRA) {
                    wanted.extra.entry(percent_decode(key)).or_default().push(text.to_owned());
                }
            }
        }
    }
    if !wanted.name.is_empty() {
        return Ok(Some(wanted));
    }
    if wanted == Wanted::default() {
        return Ok(None);
    }
    let parts: Vec<&str> = [
        (!wanted.groups.is_empty(), "groups"),
        (!wanted.extra.is_empty(), "userextras"),
        (!wanted.uid.is_empty(), "uids"),
    ]
    .into_iter()
    .filter_map(|(is_asked, what)| is_asked.then_some(what))
    .collect();
    Err(Box::new(Status::internal(format!("requested {} without impersonating a user", parts.join(", ")))))
}

/// Namespace and name of a ServiceAccount's user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

impl Wanted {
    /// The user to act as, if `check` allows `by` each part of it.
    ///
    /// # Errors
    /// The 403 of the first part that is not allowed.
    pub(crate) fn become_by(self, check: impl Fn(&Attributes<'_>) -> Result<()>, by: &User) -> Result<User> {
        const AUTHENTICATION: &str = "authentication.k8s.io";
        let asked = || Attributes::new(by, "impersonate");
        let account = service_account(&self.name);
        match account {
            Some((namespace, name)) => {
                check(&Attributes { resource: "serviceaccounts", namespace, name, ..asked() })?;
            }
            None => check(&Attributes { resource: "users", name: &self.name, ..asked() })?,
        }
        for group in &self.groups {
            check(&Attributes { resource: "groups", name: group, ..asked() })?;
        }
        for (key, values) in &self.extra {
            for value in values {
                let extra = Attributes { group: AUTHENTICATION, resource: "userextras", ..asked() };
                check(&Attributes { subresource: key, name: value, ..extra })?;
            }
        }
        if !self.uid.is_empty() {
            check(&Attributes { group: AUTHENTICATION, resource: "uids", name: &self.uid, ..asked() })?;
        }
        let mut groups = self.groups;
        if groups.is_empty()
            && let Some((namespace, _)) = account
        {
            groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        let is_in = |groups: &[String], group: &str| groups.iter().any(|g| g == group);
        if self.name == ANONYMOUS {
            if !is_in(&groups, UNAUTHENTICATED) {
                groups.push(UNAUTHENTICATED.to_owned());
            }
        } else if !is_in(&groups, AUTHENTICATED) && !is_in(&groups, UNAUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Ok(User { name: self.name, uid: self.uid, groups, extra: self.extra })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn each_part_of_the_other_user_is_asked_for() {
        let sent = headers(&[
            ("impersonate-user", "bob"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]);
        let asked = RefCell::new(Vec::new());
        let check = |a: &Attributes<'_>| {
            asked.borrow_mut().push([a.verb, a.group, a.resource, a.subresource, a.name].join(" "));
            Ok(())
        };
        let user = wanted(&sent).unwrap().unwrap().become_by(check, &User::new("alice", &[])).unwrap();
        assert_eq!(
            asked.into_inner(),
            [
                "impersonate  users  bob",
                "impersonate  groups  dev",
                "impersonate  groups  ops",
                "impersonate authentication.k8s.io userextras acme.com/project x",
                "impersonate authentication.k8s.io uids  7",
            ]
        );
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("bob", "7"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["x"]);
    }

    #[test]
    fn accounts_and_nobody_get_the_groups_they_always_have() {
        let groups = |pairs: &[(&'static str, &str)]| {
            let wanted = wanted(&headers(pairs)).unwrap().unwrap();
            wanted.become_by(|_| Ok(()), &User::new("alice", &[])).unwrap().groups.join(" ")
        };
        assert_eq!(
            groups(&[(USER, "system:serviceaccount:n:a")]),
            "system:serviceaccounts system:serviceaccounts:n system:authenticated"
        );
        assert_eq!(groups(&[(USER, "system:anonymous")]), "system:unauthenticated");
        assert_eq!(groups(&[(USER, "x"), (GROUP, "system:unauthenticated")]), "system:unauthenticated");
    }

    #[test]
    fn groups_without_a_user_are_refused_and_nothing_asked_is_nobody() {
        assert_eq!(wanted(&headers(&[("accept", "x")])).unwrap(), None);
        let status = wanted(&headers(&[(GROUP, "dev")])).unwrap_err();
        assert_eq!(status.code, 500);
        assert!(status.message.ends_with("requested groups without impersonating a user"), "{}", status.message);
    }
}
