//! Rules for names, labels, keys and ports, with the sentences of Kubernetes' `validation` package.
//!
//! Every function takes a text and returns one message a broken rule; no messages means that the text is valid. The
//! messages carry the regular expression that Kubernetes prints, but the rules are checked by hand: they are short, and a
//! regular expression engine would weigh more than this whole crate.

const DNS1123_LABEL_FMT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN_FMT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const DNS1035_LABEL_FMT: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_NAME_FMT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE_FMT: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

/// A rule for the name of a kind of object. `prefix` says that the text is a `generateName`, to which more is added.
pub type NameRule = fn(name: &str, prefix: bool) -> Vec<String>;

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

/// The same of labels and their keys, of which Kubernetes says it in other words.
fn too_many_bytes(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

fn empty() -> String {
    "must be non-empty".to_owned()
}

fn in_range(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

fn regex_error(message: &str, fmt: &str, examples: &[&str]) -> String {
    if examples.is_empty() {
        return format!("{message} (regex used for validation is '{fmt}')");
    }
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{fmt}')", examples.join(" or "))
}

/// `first` must hold for the first byte, `last` for the last, `inner` for those between; the empty text does not match.
fn shaped(text: &str, first: fn(u8) -> bool, inner: fn(u8) -> bool, last: fn(u8) -> bool) -> bool {
    match text.as_bytes() {
        [] => false,
        [only] => first(*only) && last(*only),
        [head, middle @ .., tail] => first(*head) && middle.iter().all(|b| inner(*b)) && last(*tail),
    }
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn lower_alnum_dash(b: u8) -> bool {
    lower_alnum(b) || b == b'-'
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase()
}

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

fn name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')
}

fn matches_label(text: &str) -> bool {
    shaped(text, lower_alnum, lower_alnum_dash, lower_alnum)
}

fn matches_subdomain(text: &str) -> bool {
    text.split('.').all(matches_label)
}

fn all_of(text: &str, ok: fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(ok)
}

/// A DNS label of RFC 1123: at most 63 of `a-z0-9-`, beginning and ending with a letter or digit.
#[must_use]
pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !matches_label(value) {
        if matches_subdomain(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
                           must start and end with an alphanumeric character";
            errors.push(regex_error(message, DNS1123_LABEL_FMT, &["my-name", "123-abc"]));
        }
    }
    errors
}

/// A DNS subdomain of RFC 1123: labels joined by dots, at most 253 bytes.
#[must_use]
pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !matches_subdomain(value) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                       and must start and end with an alphanumeric character";
        errors.push(regex_error(message, DNS1123_SUBDOMAIN_FMT, &["example.com"]));
    }
    errors
}

/// A DNS label of RFC 1035: as [`dns1123_label`], but beginning with a letter (names of services).
#[must_use]
pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_long(63));
    }
    if !shaped(value, lower, lower_alnum_dash, lower_alnum) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                       alphabetic character, and end with an alphanumeric character";
        errors.push(regex_error(message, DNS1035_LABEL_FMT, &["my-name", "abc-123"]));
    }
    errors
}

/// `*.` and a DNS subdomain (hosts of an Ingress).
#[must_use]
pub fn wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !value.strip_prefix("*.").is_some_and(matches_subdomain) {
        let message = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
                       must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
                       character";
        errors.push(regex_error(message, &format!(r"\*\.{DNS1123_SUBDOMAIN_FMT}"), &["*.example.com"]));
    }
    errors
}

/// A qualified name: an optional DNS subdomain and `/`, then at most 63 bytes of `A-Za-z0-9-_.` (label keys, finalizers).
#[must_use]
pub fn qualified_name(value: &str) -> Vec<String> {
    let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric character";
    let explain = || regex_error(message, QUALIFIED_NAME_FMT, &["MyName", "my.name", "123-abc"]);
    let mut errors = Vec::new();
    let parts: Vec<&str> = value.split('/').collect();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                errors.push(format!("prefix part {}", empty()));
            } else {
                let faults = dns1123_subdomain(prefix).into_iter().map(|e| e.replace("253 characters", "253 bytes"));
                errors.extend(faults.map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            let rest = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {} {rest}", explain())];
        }
    };
    if name.is_empty() {
        errors.push(format!("name part {}", empty()));
    } else if name.len() > 63 {
        errors.push(format!("name part {}", too_many_bytes(63)));
    }
    if !shaped(name, alnum, name_byte, alnum) {
        errors.push(format!("name part {}", explain()));
    }
    errors
}

/// A label's value: empty, or at most 63 bytes of `A-Za-z0-9-_.` that begin and end with a letter or digit.
#[must_use]
pub fn label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push(too_many_bytes(63));
    }
    if !value.is_empty() && !shaped(value, alnum, name_byte, alnum) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                       and must start and end with an alphanumeric character";
        errors.push(regex_error(message, LABEL_VALUE_FMT, &["MyValue", "my_value", "12345"]));
    }
    errors
}

/// A C identifier.
#[must_use]
pub fn c_identifier(value: &str) -> Vec<String> {
    let tail = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts_well = value.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if starts_well && value.bytes().all(tail) {
        return Vec::new();
    }
    let message = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                   alphanumeric characters or '_'";
    vec![regex_error(message, "[A-Za-z_][A-Za-z0-9_]*", &["my_name", "MY_NAME", "MyName"])]
}

/// The name of an environment variable in a pod: any printable ASCII but `=` (KEP-4369).
#[must_use]
pub fn env_var_name(value: &str) -> Vec<String> {
    if value.is_empty() {
        return vec![format!("environment variable name {}", empty())];
    }
    if value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// The stricter rule for environment variables, which those taken from a ConfigMap's or Secret's keys met before
/// KEP-4369: letters, digits, `_`, `-`, `.`, not beginning with a digit.
#[must_use]
pub fn strict_env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if !all_of(value, name_byte) || value.starts_with(|c: char| c.is_ascii_digit()) {
        let message = "a valid environment variable name must consist of alphabetic characters, digits, '_', '-', or \
                       '.', and must not start with a digit";
        let examples = &["my.env-name", "MY_ENV.NAME", "MyEnvName1"];
        errors.push(regex_error(message, "[-._a-zA-Z][-._a-zA-Z0-9]*", examples));
    }
    errors.extend(no_parent_directory(value));
    errors
}

fn no_parent_directory(value: &str) -> Option<String> {
    match value {
        "." => Some("must not be '.'".to_owned()),
        ".." => Some("must not be '..'".to_owned()),
        _ if value.starts_with("..") => Some("must not start with '..'".to_owned()),
        _ => None,
    }
}

/// A key of a ConfigMap or Secret: it becomes a file's name.
#[must_use]
pub fn config_map_key(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 253 {
        errors.push(too_long(253));
    }
    if !all_of(value, name_byte) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errors.push(regex_error(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    errors.extend(no_parent_directory(value));
    errors
}

/// A port's number: 1 to 65535.
#[must_use]
pub fn port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![in_range(1, 65535)] }
}

/// A user or group id: 0 to 2147483647.
#[must_use]
pub fn user_or_group_id(id: i64) -> Vec<String> {
    if (0..=i64::from(i32::MAX)).contains(&id) { Vec::new() } else { vec![in_range(0, i64::from(i32::MAX))] }
}

/// A port's name: an `IANA_SVC_NAME` of RFC 6335.
#[must_use]
pub fn port_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 15 {
        errors.push(too_long(15));
    }
    if !all_of(value, lower_alnum_dash) {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.bytes().any(lower) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// Digits and `%`.
#[must_use]
pub fn percent(value: &str) -> Vec<String> {
    if value.strip_suffix('%').is_some_and(|digits| all_of(digits, |b| b.is_ascii_digit())) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(message, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header in a probe or hook.
#[must_use]
pub fn http_header_name(value: &str) -> Vec<String> {
    if all_of(value, |b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex_error(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A condition's reason: one word for machines.
#[must_use]
pub fn condition_reason(value: &str) -> Vec<String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b',' | b':');
    let bytes = value.as_bytes();
    let starts = bytes.first().is_some_and(u8::is_ascii_alphabetic);
    let ends = bytes.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if starts && ends && bytes.iter().all(|byte| is_inner(*byte)) {
        return Vec::new();
    }
    let message = "a condition reason must start with alphabetic character, optionally followed by a string of \
                   alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let examples = &["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![regex_error(message, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", examples)]
}

/// The path behind the domain of a name like `acme.io/foo/bar`.
#[must_use]
pub fn http_path(value: &str) -> Vec<String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_allowed) {
        return Vec::new();
    }
    vec![regex_error("Invalid path", r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+", &[])]
}

/// An IPv4 or IPv6 address.
#[must_use]
pub fn ip_address(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// A name that may stand as one segment of a URL's path (RBAC objects, whose names may hold colons).
#[must_use]
pub fn path_segment(value: &str) -> Vec<String> {
    match value {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    let mut errors = Vec::new();
    for illegal in ["/", "%"] {
        if value.contains(illegal) {
            errors.push(format!("may not contain '{illegal}'"));
        }
    }
    errors
}

/// A `generateName` may end in the dash that the random suffix follows.
fn masked(name: &str, prefix: bool) -> std::borrow::Cow<'_, str> {
    match name.strip_suffix('-') {
        Some(stem) if prefix && !stem.is_empty() => {
            let mut shown = stem.to_owned();
            shown.pop();
            shown.push('a');
            shown.into()
        }
        _ => name.into(),
    }
}

/// The rule of most kinds: a DNS subdomain.
#[must_use]
pub fn subdomain_rule(name: &str, prefix: bool) -> Vec<String> {
    dns1123_subdomain(&masked(name, prefix))
}

/// The rule of namespaces and others whose names become DNS labels.
#[must_use]
pub fn label_rule(name: &str, prefix: bool) -> Vec<String> {
    dns1123_label(&masked(name, prefix))
}

/// The rule of services.
#[must_use]
pub fn dns1035_rule(name: &str, prefix: bool) -> Vec<String> {
    dns1035_label(&masked(name, prefix))
}

/// The rule of RBAC kinds.
#[must_use]
pub fn path_segment_rule(name: &str, prefix: bool) -> Vec<String> {
    let mut errors = path_segment(name);
    if prefix {
        // More follows, so `.` and `..` are no whole segments yet.
        errors.retain(|e| e.starts_with("may not contain"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(rule(text), Vec::<String>::new(), "{text:?} is valid");
        }
        for text in bad {
            assert!(!rule(text).is_empty(), "{text:?} is not valid");
        }
    }

    #[test]
    fn labels_and_subdomains_follow_rfc_1123() {
        let long = "a".repeat(64);
        check(
            dns1123_label,
            &["a", "ab", "0", "a-b", "a--1", &long[..63]],
            &["", "A", "-a", "a-", "a.b", "a_b", &long],
        );
        check(dns1123_subdomain, &["a", "a.b", "0.0", "a-1.b"], &["", ".", "a.", ".a", "a..b", "A.b", "a.-b", "ä"]);
        check(dns1035_label, &["a", "a1", "a-1"], &["", "1a", "-a", "a-", "a.b"]);
        assert_eq!(dns1123_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns1123_label(&long), ["must be no more than 63 characters"]);
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
              end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }

    #[test]
    fn qualified_names_have_at_most_one_prefix() {
        let good = ["a", "A.b_c-9", "example.com/Name", "1/2"];
        check(qualified_name, &good, &["", "/", "/a", "a/", "A/a", "a/b/c", "-a", "a b", "kubernetes.io/"]);
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert!(qualified_name("a/b/c")[0].starts_with("a valid label key must consist of alphanumeric characters"));
        assert_eq!(qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
    }

    #[test]
    fn values_keys_ports_and_the_rest() {
        check(label_value, &["", "a", "A_b.c-d"], &["-", "a-", "_a", "a b", "a/b"]);
        check(c_identifier, &["a", "_", "A9_"], &["", "9", "a-b", "a.b"]);
        check(env_var_name, &["a", "9 b", "a-b.c"], &["", "a=b", "ä", "a\n"]);
        check(strict_env_var_name, &["a", "a-b.c", "_"], &["", "9a", "a b", "..", ".", "..a"]);
        check(config_map_key, &["a", ".a", "a..b", "K_e-y"], &["", ".", "..", "..a", "a/b", "a b"]);
        check(port_name, &["http", "a-1", "1a"], &["", "-a", "a-", "a--b", "80", "Http", "sixteen-letters-"]);
        check(percent, &["0%", "100%"], &["", "%", "1", "a%", "-1%"]);
        check(path_segment, &["system:node", "a..", ".a"], &[".", "..", "a/b", "a%"]);
        check(ip_address, &["10.0.0.1", "::1"], &["", "10.0.0", "10.0.0.01", "a"]);
        check(wildcard_dns1123_subdomain, &["*.a.b"], &["*", "a.b", "*.", "*a.b", "*.*.a"]);
        assert!(port_number(0).len() == 1 && port_number(65535).is_empty() && port_number(65536).len() == 1);
    }

    #[test]
    fn a_generate_name_may_end_in_a_dash() {
        assert!(subdomain_rule("web-", true).is_empty());
        assert!(!subdomain_rule("web-", false).is_empty());
        assert!(!subdomain_rule("-", true).is_empty());
        assert!(path_segment_rule(".", true).is_empty());
    }

    proptest! {
        #[test]
        fn no_text_makes_a_rule_panic(text in "\\PC{0,80}", prefix: bool) {
            for rule in [subdomain_rule, label_rule, dns1035_rule, path_segment_rule] {
                let _ = rule(&text, prefix);
            }
            for rule in [qualified_name, label_value, c_identifier, env_var_name, config_map_key, port_name, percent] {
                let _ = rule(&text);
            }
        }
    }
}
