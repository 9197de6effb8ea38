//! What Rust's `Debug` shows of a value, taken apart: the only place where the judge's types tell the names of their fields.

/// A value as it is shown.
#[derive(Debug, PartialEq)]
pub(super) enum Shown {
    Nothing,
    Scalar(String),
    List(Vec<Shown>),
    Map(Vec<(String, Shown)>),
    /// Its name, and its members by their plain names.
    Message(String, Vec<(String, Shown)>),
}

/// A name however it is written: `podIPs`, `pod_i_ps` and `$ref` are `podips` and `ref`.
pub(super) fn plain(name: &str) -> String {
    let name = name.strip_prefix("r#").unwrap_or(name);
    name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

impl Shown {
    /// Takes `text` apart, whose texts have nothing that needs escaping.
    pub(super) fn read(text: &str) -> Self {
        let mut rest = text;
        let read = value(&mut rest);
        assert_eq!(rest, "", "behind the value");
        read
    }
}

fn skip(rest: &mut &str, wanted: &str) -> bool {
    let behind = rest.strip_prefix(wanted);
    *rest = behind.unwrap_or(rest);
    behind.is_some()
}

fn word<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find([' ', ',', ':', '(', ')', '[', ']', '{', '}']).unwrap_or(rest.len());
    let (word, behind) = rest.split_at(end);
    *rest = behind;
    word
}

/// What stands between an opening that was read and its end.
fn members<T>(rest: &mut &str, end: &str, mut member: impl FnMut(&mut &str) -> T) -> Vec<T> {
    let mut members = Vec::new();
    while !skip(rest, end) {
        members.push(member(rest));
        skip(rest, ", ");
    }
    members
}

fn value(rest: &mut &str) -> Shown {
    if skip(rest, "[") {
        return Shown::List(members(rest, "]", value));
    }
    if skip(rest, "{") {
        return Shown::Map(members(rest, "}", |rest| {
            let key = word(rest).trim_matches('"').to_owned();
            assert!(skip(rest, ": "), "no value at {rest}");
            (key, value(rest))
        }));
    }
    match word(rest) {
        "None" => Shown::Nothing,
        "Some" => {
            assert!(skip(rest, "("), "nothing at {rest}");
            let inner = value(rest);
            assert!(skip(rest, ")"), "no end at {rest}");
            inner
        }
        name if skip(rest, " { ") => Shown::Message(
            name.to_owned(),
            members(rest, " }", |rest| {
                let name = plain(word(rest));
                assert!(skip(rest, ": "), "no value at {rest}");
                (name, value(rest))
            }),
        ),
        scalar => Shown::Scalar(scalar.to_owned()),
    }
}
