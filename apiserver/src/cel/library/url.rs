//! URLs, as Go's `url.ParseRequestURI` takes them.

use std::sync::Arc;

use crate::{
    cel::{
        eval::{Budget, Error},
        value::{Key, Value},
    },
    request::percent_decode,
};

/// A URL's parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    pub(in crate::cel) text: String,
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    /// Reads an absolute URL or an absolute path.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') {
            return None;
        }
        let (before, query) = text.split_once('?').unwrap_or((text, ""));
        let own = |scheme: &str, host: &str, path: &str| {
            is_escaped_well(path).then(|| Self {
                text: text.to_owned(),
                scheme: scheme.to_ascii_lowercase(),
                host: host.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
            })
        };
        if before.starts_with('/') && !before.starts_with("//") {
            return own("", "", before);
        }
        let (scheme, rest) = before.split_once(':')?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
        if !is_scheme {
            return None;
        }
        let Some(rest) = rest.strip_prefix("//") else {
            // `mailto:a@b`: opaque, which has no path.
            return if rest.is_empty() || rest.starts_with('/') { own(scheme, "", rest) } else { own(scheme, "", "") };
        };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        (is_user(user) && is_host(host)).then(|| own(scheme, host, path)).flatten()
    }

    /// The host without port and brackets.
    fn hostname(&self) -> &str {
        if let Some(rest) = self.host.strip_prefix('[') {
            return rest.split(']').next().unwrap_or_default();
        }
        self.host.rsplit_once(':').map_or(self.host.as_str(), |(name, _)| name)
    }

    fn port(&self) -> &str {
        let tail = self.host.rsplit(']').next().unwrap_or_default();
        tail.rsplit_once(':').map_or("", |(_, port)| port)
    }

    fn query_map(&self) -> Value {
        let mut map: std::collections::BTreeMap<Key, Vec<Value>> = std::collections::BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| percent_decode(&text.replace('+', " "));
            map.entry(Key::Text(decoded(name).into())).or_default().push(Value::text(&decoded(value)));
        }
        Value::Map(Arc::new(map.into_iter().map(|(name, values)| (name, Value::list(values))).collect()))
    }
}

fn is_escaped_well(path: &str) -> bool {
    path.split('%').skip(1).all(|after| after.get(..2).is_some_and(|code| code.bytes().all(|b| b.is_ascii_hexdigit())))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let Some((name, tail)) = rest.split_once(']') else { return false };
            if name.split('%').next().is_none_or(|ip| ip.parse::<std::net::Ipv6Addr>().is_err()) {
                return false;
            }
            ("", tail)
        }
        None => host.find(':').map_or((host, ""), |colon| host.split_at(colon)),
    };
    let is_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(digits) => digits.bytes().all(|b| b.is_ascii_digit()),
    };
    is_port && is_name(name)
}

/// Whether a host's name has nothing but what may stand there, or bytes beyond ASCII written as `%E2`.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"".contains(c);
    let mut parts = name.split('%');
    parts.next().is_none_or(|part| part.chars().all(is_plain))
        && parts.all(|part| {
            let (Some(code), Some(rest)) = (part.get(..2), part.get(2..)) else { return false };
            u8::from_str_radix(code, 16).is_ok_and(|byte| !byte.is_ascii()) && rest.chars().all(is_plain)
        })
}

/// Whether what stands before the `@` is fit for a name and a password.
fn is_user(user: &str) -> bool {
    user.chars().all(|c| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c)) && is_escaped_well(user)
}

/// The functions of this group.
pub(in crate::cel) fn call(function: &str, args: &[Value], _: &mut Budget) -> Option<Result<Value, Error>> {
    use Value::{Bool, Text};
    Some(match (function, args) {
        ("url", [Text(text)]) => Url::parse(text).map(|url| Value::Url(Arc::new(url))).ok_or_else(|| {
            Error::new(format!(
                "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
            ))
        }),
        ("isURL", [Text(text)]) => Ok(Bool(Url::parse(text).is_some())),
        ("getScheme", [Value::Url(url)]) => Ok(Value::text(&url.scheme)),
        ("getHost", [Value::Url(url)]) => Ok(Value::text(&url.host)),
        ("getHostname", [Value::Url(url)]) => Ok(Value::text(url.hostname())),
        ("getPort", [Value::Url(url)]) => Ok(Value::text(url.port())),
        ("getEscapedPath", [Value::Url(url)]) => Ok(Value::text(&url.path)),
        ("getQuery", [Value::Url(url)]) => Ok(url.query_map()),
        _ => return None,
    })
}
