//! Files of variables that init containers leave for others (KEP-3721): lines `NAME='value'`, read strictly.

/// What is wrong with a file of variables.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid environment variable format at line {line}: {why}")]
pub(crate) struct Malformed {
    /// Where it begins.
    line: usize,
    /// What it is.
    why: &'static str,
}

/// The value of `key`; none if no line before the first wrong one sets it, or if it is empty.
///
/// Values stand between single quotes, in which everything is itself, line feeds too; after them there may be a comment. A
/// blank between `=` and the quote makes the value empty, as in a shell.
///
/// # Errors
/// The first thing that is wrong before the key is found.
pub(crate) fn value(text: &str, key: &str) -> Result<Option<String>, Malformed> {
    let blank = [' ', '\t'];
    let mut lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    while let Some((number, line)) = lines.next() {
        let wrong = |line, why| Err(Malformed { line, why });
        let line = line.trim_start_matches(blank);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else { return wrong(number, "missing '='") };
        if name.trim_end_matches(blank).is_empty() {
            return wrong(number, "empty variable name");
        }
        if name.ends_with(blank) {
            return wrong(number, "whitespace before '=' is not allowed");
        }
        if value.starts_with(blank) {
            if name == key {
                return Ok(None);
            }
            continue;
        }
        let Some(quoted) = value.strip_prefix('\'') else {
            return wrong(number, "value must be enclosed in single quotes");
        };
        let mut found = String::new();
        let (mut rest, mut last) = (quoted, number);
        let after = loop {
            if let Some((inside, after)) = rest.split_once('\'') {
                found.push_str(inside);
                break after;
            }
            found.push_str(rest);
            found.push('\n');
            match lines.next() {
                Some((at, next)) => (last, rest) = (at, next),
                None => return wrong(number, "unclosed single quote"),
            }
        };
        let after = after.trim_start_matches(blank);
        if !after.is_empty() && !after.starts_with('#') {
            return wrong(last, "unexpected content after closing quote");
        }
        if name == key {
            return Ok(Some(found).filter(|value| !value.is_empty()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_stand() {
        let text = "# made by setup\n\n  A='one' # first\nB='two\nlines $A \\n'\nC= 'no'\nD=''\nE='x'\r\n";
        for (key, want) in [
            ("A", Some("one")),
            ("B", Some("two\nlines $A \\n")),
            ("C", None),
            ("D", None),
            ("E", Some("x")),
            ("F", None),
        ] {
            assert_eq!(value(text, key), Ok(want.map(str::to_owned)), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, why) in [
            ("A='1'\nB", 2, "missing '='"),
            ("='1'", 1, "empty variable name"),
            ("A ='1'", 1, "whitespace before '=' is not allowed"),
            ("A=1", 1, "value must be enclosed in single quotes"),
            ("\nA='1\n2", 2, "unclosed single quote"),
            ("A='1\n2'3", 2, "unexpected content after closing quote"),
        ] {
            assert_eq!(value(text, "Z"), Err(Malformed { line, why }), "{text}");
        }
        assert_eq!(value("A='1'\nB", "A"), Ok(Some("1".into())), "what comes after the key does not matter");
    }
}
