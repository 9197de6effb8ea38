//! What a request asks for, read from its method and path as Kubernetes' `RequestInfoFactory` reads them.

use http::Method;

/// The parts of a request that authorization, routing and logs look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Whether it is about an API resource.
    pub is_resource: bool,
    /// The path as sent.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the method in
    /// lower case.
    pub verb: String,
    /// The API group, empty for the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The namespace; a request for a namespace itself names it here as well.
    pub namespace: String,
    /// `pods`.
    pub resource: String,
    /// `log`.
    pub subresource: String,
    /// The object's name; of lists and watches the one their field selector demands.
    pub name: String,
    /// Whether the path itself named the object.
    pub names_object: bool,
    /// What follows the subresource, as proxies use it.
    pub rest: String,
    /// The query.
    pub query: Query,
}

/// A query's parameters, decoded; the first value of a name counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query as it stands in a URL.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let decoded = |text: &str| percent_decode(&text.replace('+', " "));
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value))
                })
                .collect(),
        )
    }

    /// The parameter's value; empty when it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_default()
    }

    /// The parameter's value, if it is there.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// All values of a parameter that may be repeated.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// A boolean as Kubernetes reads it: there and neither `0` nor `false` is true.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        self.find(name).is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Decodes `%41`; what is no code stays as it is, and bytes that are no UTF-8 become replacement characters.
pub(crate) fn percent_decode(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, code(bytes.clone())) {
            (b'%', Some(value)) => {
                out.push(value);
                bytes.nth(1);
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte that the next two hexadecimal digits stand for.
fn code(mut ahead: std::str::Bytes<'_>) -> Option<u8> {
    let mut digit = || ahead.next().and_then(|b| char::from(b).to_digit(16));
    let (high, low) = (digit()?, digit()?);
    u8::try_from(high * 16 + low).ok()
}

impl RequestInfo {
    /// Reads method, path and query.
    #[must_use]
    pub fn new(method: &Method, uri: &http::Uri) -> Self {
        let mut info = Self {
            path: uri.path().to_owned(),
            verb: method.as_str().to_ascii_lowercase(),
            query: Query::parse(uri.query().unwrap_or_default()),
            ..Self::default()
        };
        let decoded: Vec<String> = uri.path().split('/').filter(|p| !p.is_empty()).map(percent_decode).collect();
        let mut parts: &[String] = &decoded;
        let mut next = || {
            let (first, rest) = parts.split_first()?;
            parts = rest;
            Some(first.clone())
        };
        match next().as_deref() {
            Some("api") => {}
            Some("apis") => info.group = next().unwrap_or_default(),
            _ => return info,
        }
        info.version = next().unwrap_or_default();
        if parts.is_empty() {
            (info.group, info.version) = Default::default();
            return info;
        }
        info.is_resource = true;
        info.verb = match *method {
            Method::POST => "create",
            Method::GET | Method::HEAD => "get",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "",
        }
        .to_owned();
        if let [first, _, ..] = parts
            && first == "watch"
        {
            info.verb = "watch".to_owned();
            parts = parts.get(1..).unwrap_or_default();
        }
        info.read_resource(parts);
        info.settle_verb();
        info
    }

    fn read_resource(&mut self, mut parts: &[String]) {
        if let [first, namespace, rest @ ..] = parts
            && first == "namespaces"
        {
            self.namespace.clone_from(namespace);
            let is_of_namespace = matches!(rest.first().map(String::as_str), None | Some("status" | "finalize"));
            if !is_of_namespace {
                parts = rest;
            }
        }
        let mut parts = parts.iter().cloned();
        self.resource = parts.next().unwrap_or_default();
        self.name = parts.next().unwrap_or_default();
        self.subresource = parts.next().unwrap_or_default();
        self.rest = parts.collect::<Vec<_>>().join("/");
        self.names_object = !self.name.is_empty();
    }

    fn settle_verb(&mut self) {
        if !self.names_object && self.verb == "get" {
            self.verb = if self.query.flag("watch") { "watch" } else { "list" }.to_owned();
        } else if !self.names_object && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        if !self.names_object && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            let selector = coracle_proto::selector::FieldSelector::parse(self.field_selector()).unwrap_or_default();
            self.name = selector.exact("metadata.name").unwrap_or_default().to_owned();
        }
    }

    /// The field selector as sent.
    #[must_use]
    pub fn field_selector(&self) -> &str {
        self.query.get("fieldSelector")
    }

    /// The label selector as sent.
    #[must_use]
    pub fn label_selector(&self) -> &str {
        self.query.get("labelSelector")
    }

    /// Whether the answer goes on for as long as the client likes: a watch, a followed log, a session.
    #[must_use]
    pub fn is_long_running(&self) -> bool {
        self.is_resource
            && (self.verb == "watch"
                || matches!(self.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy" | "log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn paths_and_methods_are_read_as_kubernetes_reads_them() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces/a/pods/b", "get  v1 a pods b "),
            ("GET", "/api/v1/namespaces/a/pods", "list  v1 a pods  "),
            ("GET", "/api/v1/pods?watch=1", "watch  v1  pods  "),
            ("GET", "/api/v1/pods?watch=false", "list  v1  pods  "),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch  v1 a pods  "),
            ("GET", "/api/v1/namespaces/a", "get  v1 a namespaces a "),
            ("PUT", "/api/v1/namespaces/a/finalize", "update  v1 a namespaces a finalize"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "create  v1 a pods b exec"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps v1 a deployments  "),
            ("PATCH", "/apis/apps/v1/namespaces/a/deployments/d/scale", "patch apps v1 a deployments d scale"),
            ("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dn1", "list  v1  nodes n1 "),
        ] {
            let i = info(method, uri);
            let shown = [&i.verb, &i.group, &i.version, &i.namespace, &i.resource, &i.name, &i.subresource];
            assert_eq!(shown.map(String::as_str).join(" "), expected, "{method} {uri}");
            assert!(i.is_resource);
        }
    }

    #[test]
    fn other_paths_keep_their_method_as_verb() {
        for uri in ["/", "/api", "/apis/apps", "/apis/apps/v1", "/api/v1", "/readyz", "/openapi/v3/apis/apps/v1"] {
            let i = info("GET", uri);
            assert!(!i.is_resource && i.verb == "get" && i.group.is_empty(), "{uri}: {i:?}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("labelSelector=a%3Db%2Cc&x&command=ls&command=-l+a&bad=%4");
        assert_eq!(query.get("labelSelector"), "a=b,c");
        assert!(query.flag("x") && !query.flag("y"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["ls", "-l a"]);
        assert_eq!(query.get("bad"), "%4");
    }
}
