//! Links in proxied answers: what leads to the server itself leads through the proxy again, as Kubernetes' proxy
//! rewrites `Location` headers and the URLs in HTML.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use flate2::{
    Compression,
    read::{DeflateDecoder, GzDecoder},
    write::{DeflateEncoder, GzEncoder},
};
use http::{HeaderMap, HeaderValue, Response, header};
use http_body_util::BodyExt as _;

/// A page longer than this, packed or not, is passed on as it is: it would have to be held in memory.
const MAX_PAGE: usize = 4 * 1024 * 1024;

/// Elements with the attributes that are URLs (HTML 4.01's and HTML 5's index of attributes).
const URLS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose content is text to the end tag, whatever it looks like.
const RAW: &[&str] = &["script", "style", "textarea", "title", "iframe", "noembed", "noframes", "noscript", "xmp"];

/// How an answer's links are made to lead through the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    /// The proxy's path, which the server's own paths go after.
    pub(crate) prefix: String,
    /// Host and port of the server.
    pub(crate) server: String,
    /// The host the client asked.
    pub(crate) asked: String,
}

/// Scheme and authority of a URL, if it has them, and the rest.
fn parts(url: &str) -> (Option<&str>, &str) {
    let after_scheme = url.split_once("://").filter(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    });
    let Some(rest) = after_scheme.map(|(_, rest)| rest).or_else(|| url.strip_prefix("//")) else {
        return (None, url);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    (Some(authority), path)
}

/// Two paths as one, without empty, `.` and `..` steps; what follows the path stays.
pub(crate) fn joined(prefix: &str, path: &str) -> String {
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let (path, rest) = path.split_at(end);
    let mut steps: Vec<&str> = Vec::new();
    for step in prefix.split('/').chain(path.split('/')) {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    let slash = if path.ends_with('/') && !steps.is_empty() { "/" } else { "" };
    format!("/{}{slash}{rest}", steps.join("/"))
}

impl Links {
    /// A URL that a page or header of the server holds, as the client can follow it.
    pub(crate) fn rewritten(&self, url: &str) -> String {
        let (authority, path) = parts(url);
        let is_elsewhere = authority.is_some_and(|host| host != self.server && host != self.asked);
        if is_elsewhere || !path.starts_with('/') {
            return url.to_owned();
        }
        let through = if path.starts_with(&self.prefix) { path.to_owned() } else { joined(&self.prefix, path) };
        match authority {
            // The client called this server by that name, so it may go on doing so.
            Some(host) if host == self.asked => match url.strip_suffix(path) {
                Some(before) => format!("{before}{through}"),
                None => through,
            },
            _ => through,
        }
    }

    /// An answer whose links lead through the proxy.
    ///
    /// # Errors
    /// The page could not be read to its end.
    pub(crate) async fn rewrite(&self, mut response: Response<Body>) -> Result<Response<Body>, String> {
        let target = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        if let Some(target) = target.filter(|target| !target.is_empty()) {
            if let Ok(value) = HeaderValue::from_str(&self.rewritten(target)) {
                response.headers_mut().insert(header::LOCATION, value);
            }
            return Ok(response);
        }
        let Some(coding) = html(response.headers()) else { return Ok(response) };
        let (mut head, body) = response.into_parts();
        let body = match whole(body).await? {
            Page::Whole(bytes) => match coding.unpack(&bytes) {
                Some(page) => {
                    head.headers.remove(header::CONTENT_LENGTH);
                    coding.pack(&self.page(&page)).into()
                }
                None => bytes.into(),
            },
            Page::TooLong(body) => body,
        };
        Ok(Response::from_parts(head, body))
    }

    /// The page with its links rewritten; all else stays byte for byte.
    fn page(&self, page: &[u8]) -> Vec<u8> {
        // Whatever is no UTF-8 cannot be in a link.
        let Ok(text) = std::str::from_utf8(page) else { return page.to_vec() };
        let mut out = String::with_capacity(text.len() + text.len() / 8);
        let mut rest = text;
        while let Some(start) = rest.find('<') {
            let (before, tag) = rest.split_at(start);
            out.push_str(before);
            rest = self.tag(tag, &mut out);
        }
        out.push_str(rest);
        out.into_bytes()
    }

    /// Writes the tag or comment that `text` begins with; what follows it.
    fn tag<'a>(&self, text: &'a str, out: &mut String) -> &'a str {
        let through = |end: Option<usize>, len: usize| end.map_or(text.len(), |end| end + len);
        if text.starts_with("<!--") {
            let (comment, rest) = text.split_at(through(text.find("-->"), 3));
            out.push_str(comment);
            return rest;
        }
        let inner = text.get(1..).unwrap_or_default();
        if !inner.starts_with(|c: char| c.is_ascii_alphabetic()) {
            out.push('<');
            return inner;
        }
        let end = tag_end(text);
        let (tag, rest) = text.split_at(end);
        let name_end = inner.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>')).unwrap_or(inner.len());
        let name = inner.get(..name_end).unwrap_or_default().to_ascii_lowercase();
        match URLS.iter().find(|(known, _)| *known == name) {
            Some((_, attributes)) => self.attributes(tag, name_end + 1, attributes, out),
            None => out.push_str(tag),
        }
        if !RAW.contains(&name.as_str()) || tag.ends_with("/>") {
            return rest;
        }
        let close = format!("</{name}");
        let lower = rest.to_ascii_lowercase();
        let (raw, rest) = rest.split_at(lower.find(&close).unwrap_or(rest.len()));
        out.push_str(raw);
        rest
    }

    /// Writes a tag with the values of these attributes rewritten. Its attributes begin at `start`.
    fn attributes(&self, tag: &str, start: usize, urls: &[&str], out: &mut String) {
        let (head, mut rest) = tag.split_at(start);
        out.push_str(head);
        while let Some(equals) = rest.find(['=', '"', '\'']) {
            let (before, after) = rest.split_at(equals);
            if !after.starts_with('=') {
                // A quote that belongs to no value.
                let (quote, tail) = after.split_at(1);
                out.push_str(before);
                out.push_str(quote);
                rest = tail;
                continue;
            }
            out.push_str(before);
            out.push('=');
            let name = before.trim_end().rsplit(|c: char| c.is_ascii_whitespace() || c == '/').next();
            let name = name.unwrap_or_default().to_ascii_lowercase();
            let value = after.get(1..).unwrap_or_default();
            let blank = value.len() - value.trim_start().len();
            let (space, value) = value.split_at(blank);
            out.push_str(space);
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            let (value, tail) = match quote {
                Some(quote) => {
                    let inner = value.get(1..).unwrap_or_default();
                    inner.split_at(inner.find(quote).unwrap_or(inner.len()))
                }
                None => {
                    value.split_at(value.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(value.len()))
                }
            };
            out.extend(quote);
            if urls.contains(&name.as_str()) {
                out.push_str(&escaped(&self.rewritten(&unescaped(value)), quote));
            } else {
                out.push_str(value);
            }
            let closed = quote.is_some() && tail.chars().next() == quote;
            out.extend(quote.filter(|_| closed));
            rest = if closed { tail.get(1..).unwrap_or_default() } else { tail };
        }
        out.push_str(rest);
    }
}

/// Where a tag ends: after the first `>` outside of quotes.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    let mut after_equals = false;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') if after_equals => quote = Some(c),
            (None, '>') => return at + 1,
            _ => {}
        }
        after_equals = c == '=' || (after_equals && c.is_ascii_whitespace());
    }
    text.len()
}

const ENTITIES: &[(&str, &str)] =
    &[("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&apos;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];

fn unescaped(value: &str) -> String {
    ENTITIES.iter().fold(value.to_owned(), |text, (entity, plain)| text.replace(entity, plain))
}

fn escaped(value: &str, quote: Option<char>) -> String {
    let value = value.replace('&', "&amp;").replace('<', "&lt;");
    match quote {
        Some('\'') => value.replace('\'', "&#39;"),
        Some(_) => value.replace('"', "&#34;"),
        None => value,
    }
}

/// How a page is packed, if it is one and packed in a known way.
fn html(headers: &HeaderMap) -> Option<Coding> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default();
    if media.trim() == "text/html" { Coding::of(text(header::CONTENT_ENCODING)) } else { None }
}

/// How a page is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl Coding {
    fn of(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Plain),
            "gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }

    /// The page itself; none if it is not packed so, or too long.
    fn unpack(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut page = Vec::new();
        let most = u64::try_from(MAX_PAGE).unwrap_or(u64::MAX) + 1;
        match self {
            Self::Plain => return Some(bytes.to_vec()),
            Self::Gzip => GzDecoder::new(bytes).take(most).read_to_end(&mut page),
            Self::Deflate => DeflateDecoder::new(bytes).take(most).read_to_end(&mut page),
        }
        .ok()?;
        (page.len() <= MAX_PAGE).then_some(page)
    }

    fn pack(self, page: &[u8]) -> Vec<u8> {
        // Memory takes whatever is written to it.
        match self {
            Self::Plain => page.to_vec(),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                let _ = encoder.write_all(page);
                encoder.finish().unwrap_or_default()
            }
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
                let _ = encoder.write_all(page);
                encoder.finish().unwrap_or_default()
            }
        }
    }
}

enum Page {
    Whole(Bytes),
    TooLong(Body),
}

/// Reads a body as far as it is held in memory.
async fn whole(mut body: Body) -> Result<Page, String> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| super::root(&error))?;
        let Some(data) = frame.data_ref() else { continue };
        read.extend_from_slice(data);
        if read.len() > MAX_PAGE {
            let begun = futures::stream::once(std::future::ready(Ok::<_, axum::Error>(read.freeze())));
            let rest = futures::StreamExt::chain(begun, body.into_data_stream());
            return Ok(Page::TooLong(Body::from_stream(rest)));
        }
    }
    Ok(Page::Whole(read.freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> Links {
        Links {
            prefix: "/api/v1/namespaces/a/pods/web/proxy".to_owned(),
            server: "10.42.0.9:8080".to_owned(),
            asked: "localhost:8001".to_owned(),
        }
    }

    #[test]
    fn what_leads_to_the_server_leads_through_the_proxy() {
        let prefix = links().prefix;
        for (url, through) in [
            ("/", format!("{prefix}/")),
            ("/a/b?c=/d#e", format!("{prefix}/a/b?c=/d#e")),
            ("/a/../b/", format!("{prefix}/b/")),
            ("http://10.42.0.9:8080/login", format!("{prefix}/login")),
            ("//10.42.0.9:8080/login", format!("{prefix}/login")),
            ("https://localhost:8001/x", format!("https://localhost:8001{prefix}/x")),
            ("relative/page", "relative/page".to_owned()),
            ("?q=1", "?q=1".to_owned()),
            ("http://elsewhere.example/x", "http://elsewhere.example/x".to_owned()),
            ("mailto:a@b.c", "mailto:a@b.c".to_owned()),
        ] {
            assert_eq!(links().rewritten(url), through, "{url}");
        }
        // What names the proxy already is not led through it twice.
        assert_eq!(links().rewritten(&format!("{prefix}/x")), format!("{prefix}/x"));
    }

    #[test]
    fn links_of_a_page_are_rewritten_and_all_else_stays() {
        let prefix = links().prefix;
        let page = "<!DOCTYPE html><!-- <a href=\"/no\"> --><p class='/x'>1 < 2</p><A HREF = '/a?b=1&amp;c=2'>é</A>\
                    <img alt=\"a > b\" src=/i.png><script src=\"/s.js\">if (a<b) { \"<a href='/no'>\" }</script><br/>";
        let expected = format!(
            "<!DOCTYPE html><!-- <a href=\"/no\"> --><p class='/x'>1 < 2</p><A HREF = '{prefix}/a?b=1&amp;c=2'>é</A>\
             <img alt=\"a > b\" src={prefix}/i.png><script src=\"{prefix}/s.js\">if (a<b) {{ \"<a href='/no'>\" }}</script><br/>"
        );
        assert_eq!(String::from_utf8(links().page(page.as_bytes())).unwrap(), expected);
    }

    #[test]
    fn no_page_is_too_broken() {
        for page in ["<", "<a", "<a href", "<a href=", "<a href='/x", "<!--", "<a ''=\"", "<script>", "</", "<é>"] {
            let _ = links().page(page.as_bytes());
        }
        assert_eq!(links().page(b"<a href='/x"), format!("<a href='{}/x", links().prefix).into_bytes());
        assert_eq!(links().page(b"\xff<a href='/x'>"), b"\xff<a href='/x'>");
    }

    #[tokio::test]
    async fn packed_pages_are_rewritten_too() {
        for (coding, name) in [(Coding::Gzip, "gzip"), (Coding::Deflate, "deflate")] {
            let packed = coding.pack(b"<a href=/x>");
            let response = Response::builder()
                .header("content-type", "text/html; charset=utf-8")
                .header("content-encoding", name)
                .header("content-length", packed.len())
                .body(Body::from(packed))
                .unwrap();
            let response = links().rewrite(response).await.unwrap();
            assert!(!response.headers().contains_key("content-length"));
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let page = coding.unpack(&body).unwrap();
            assert_eq!(page, format!("<a href={}/x>", links().prefix).into_bytes());
        }
    }
}
