//! JSON for people: with line feeds and indentation, for `?pretty=true` and for browsers, curl and wget, as Kubernetes does.

use http::{HeaderMap, header};

use crate::request::Query;

/// Whether a client likes its JSON so. What the query says counts, and without a word there the client's name.
pub(crate) fn is_liked(query: &Query, headers: &HeaderMap) -> bool {
    match query.get("pretty") {
        "" => {
            let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
            ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name))
        }
        // What Go's `strconv.ParseBool` takes for yes.
        said => matches!(said, "1" | "t" | "T" | "true" | "True" | "TRUE"),
    }
}

/// The same JSON indented by two spaces, as Go's `json.Indent` does it. What is not JSON stays readable at least.
pub(crate) fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() + json.len() / 2);
    let mut depth = 0_usize;
    let (mut in_text, mut is_escaped) = (false, false);
    // An opening bracket whose line has not ended yet: it does not, if the closing one follows.
    let mut has_opened = false;
    for &byte in json {
        if in_text {
            out.push(byte);
            in_text = is_escaped || byte != b'"';
            is_escaped = byte == b'\\' && !is_escaped;
            continue;
        }
        if byte.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(byte, b'}' | b']');
        if closes {
            depth = depth.saturating_sub(1);
        }
        if has_opened != closes {
            new_line(&mut out, depth);
        }
        has_opened = matches!(byte, b'{' | b'[');
        out.push(byte);
        match byte {
            b'{' | b'[' => depth += 1,
            b',' => new_line(&mut out, depth),
            b':' => out.push(b' '),
            b'"' => in_text = true,
            _ => {}
        }
    }
    out
}

fn new_line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.extend(std::iter::repeat_n(b' ', 2 * depth));
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_indented_as_go_does_it() {
        let text = r#"{"a":{},"b":[],"c":[1,{"d":"x: {\"y\", \\"}],"e":null}"#;
        let indented = String::from_utf8(indented(text.as_bytes())).unwrap();
        assert_eq!(
            indented,
            "{\n  \"a\": {},\n  \"b\": [],\n  \"c\": [\n    1,\n    {\n      \"d\": \"x: {\\\"y\\\", \\\\\"\n    }\n  ],\n  \"e\": null\n}"
        );
        assert_eq!(super::indented(indented.as_bytes()), indented.as_bytes());
        assert_eq!(super::indented(b"3"), b"3");
        // Whatever comes, it ends.
        assert_eq!(super::indented(b"]]}\"\\"), b"\n]\n]\n}\"\\");
    }

    #[test]
    fn whoever_says_nothing_is_known_by_name() {
        let liked = |query: &str, agent: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
            is_liked(&Query::parse(query), &headers)
        };
        assert!(liked("", "curl/7.88.1") && liked("", "Mozilla/5.0 (X11)") && liked("", "Wget/1.21"));
        assert!(!liked("", "kubectl/v1.36.0") && !liked("", ""));
        assert!(liked("pretty=true", "kubectl") && liked("pretty=1", "kubectl"));
        assert!(!liked("pretty=false", "curl/7.88.1") && !liked("pretty=x", "curl/7.88.1"));
    }
}
