//! Whose request it is that is passed on, in headers (the "request header" authentication of API servers).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{upstream::pass::drop_prefixed, user::User};

/// The header of the user's name.
pub(crate) const USER: &str = "X-Remote-User";
/// The header of the user's uid.
pub(crate) const UID: &str = "X-Remote-Uid";
/// The header of each of the user's groups.
pub(crate) const GROUP: &str = "X-Remote-Group";
/// What the header of each further fact about the user begins with.
pub(crate) const EXTRA: &str = "X-Remote-Extra-";

/// Whether a byte may be in a header's name (RFC 9110, 5.6.2), `%` left out since it marks those that may not.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte)
}

/// A key of an extra as part of a header's name.
fn escaped(key: &str) -> String {
    key.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Says who the user is, instead of whatever the client said about that.
pub(crate) fn set(headers: &mut HeaderMap, user: &User) {
    drop_prefixed(headers, "x-remote-");
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add(USER, &user.name);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", escaped(key));
        values.iter().for_each(|value| add(&name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_says_of_itself_is_replaced_by_what_is_known() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-a", "b"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut user = User::new("jane", &["crew"]);
        user.uid = "7".to_owned();
        user.extra.insert("example.com/scopes".to_owned(), vec!["one".to_owned(), "two".to_owned()]);
        set(&mut headers, &user);
        let mut shown: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "accept: */*",
                "x-remote-extra-example.com%2fscopes: one",
                "x-remote-extra-example.com%2fscopes: two",
                "x-remote-group: crew",
                "x-remote-group: system:authenticated",
                "x-remote-uid: 7",
                "x-remote-user: jane",
            ]
        );
    }
}
