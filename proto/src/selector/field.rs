//! Field selectors: `metadata.name=x,status.phase!=Running`.

use std::fmt;

/// Why a field selector is none; the texts are Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A term has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{term}'")]
    Term {
        /// The whole text.
        selector: String,
        /// The term.
        term: String,
    },
    /// A backslash is followed by something that needs none.
    #[error("invalid field selector: invalid escape sequence: {sequence}")]
    Escape {
        /// The backslash and what follows it.
        sequence: String,
    },
    /// `=` or `,` stands in a value without a backslash; Kubernetes prints its code point.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*character))]
    Unescaped {
        /// The character.
        character: char,
    },
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldTerm {
    /// The field's path: `metadata.name`.
    pub field: String,
    /// The value, with escapes taken away.
    pub value: String,
    /// Whether the field must differ from the value.
    pub negated: bool,
}

/// A field selector: terms that all must hold. None of them selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

impl FieldSelector {
    /// Selects what meets all of `terms`.
    #[must_use]
    pub fn new(terms: Vec<FieldTerm>) -> Self {
        Self { terms }
    }

    /// Reads the text form. Which fields a resource knows is the caller's to check (`field label not supported: x`).
    ///
    /// # Errors
    /// What is wrong with the text, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let mut terms = Vec::new();
        for part in split(text).into_iter().filter(|p| !p.is_empty()) {
            let Some((field, negated, value)) = split_term(part) else {
                return Err(FieldError::Term { selector: text.to_owned(), term: part.to_owned() });
            };
            terms.push(FieldTerm { field: field.to_owned(), value: unescape(value)?, negated });
        }
        // By what they say, which `=` and `==` write in two ways.
        terms.sort_unstable();
        Ok(Self { terms })
    }

    /// The terms, sorted.
    #[must_use]
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// Whether it selects every object.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The value `field` must have, when a term says so: `metadata.name=x` lets a list be a single lookup.
    #[must_use]
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| !t.negated && t.field == field).map(|t| t.value.as_str())
    }

    /// Whether an object is selected whose fields `value_of` looks up; an absent field is the empty text.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|t| (value_of(&t.field).unwrap_or_default() == t.value) != t.negated)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if term.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", term.field, escape(&term.value))?;
        }
        Ok(())
    }
}

impl std::str::FromStr for FieldSelector {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Splits at commas that no backslash stands before.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.extend(text.get(start..i));
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}

fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in term.char_indices() {
        let (field, rest) = term.split_at(i);
        for (operator, negated) in [("!=", true), ("==", false), ("=", false)] {
            if let Some(value) = rest.strip_prefix(operator) {
                return Some((field, negated, value));
            }
        }
    }
    None
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn unescape(value: &str) -> Result<String, FieldError> {
    let mut plain = String::with_capacity(value.len());
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(next @ ('\\' | ',' | '=')) => plain.push(next),
                Some(next) => return Err(FieldError::Escape { sequence: format!("\\{next}") }),
                None => return Err(FieldError::Escape { sequence: "\\".to_owned() }),
            },
            ',' | '=' => return Err(FieldError::Unescaped { character }),
            _ => plain.push(character),
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terms_are_read_and_matched() {
        let selector = FieldSelector::parse("status.phase!=Running,metadata.name==a\\,b").unwrap();
        assert_eq!(selector.exact("metadata.name"), Some("a,b"));
        assert_eq!(selector.exact("status.phase"), None);
        assert!(selector.matches(|f| (f == "metadata.name").then_some("a,b")));
        assert!(!selector.matches(|f| Some(if f == "metadata.name" { "a,b" } else { "Running" })));
        assert_eq!(selector.to_string(), "metadata.name=a\\,b,status.phase!=Running");
        assert!(FieldSelector::parse("").unwrap().is_everything());
    }

    #[test]
    fn errors_are_kubernetes_sentences() {
        for (text, sentence) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            ("a=b,c", "invalid selector: 'a=b,c'; can't understand 'c'"),
            ("a=b\\c", "invalid field selector: invalid escape sequence: \\c"),
            ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), sentence);
        }
    }

    proptest! {
        #[test]
        fn any_value_survives_printing_and_reading(value in "\\PC{0,12}", negated: bool) {
            let selector = FieldSelector::new(vec![FieldTerm { field: "a.b".to_owned(), value, negated }]);
            prop_assert_eq!(FieldSelector::parse(&selector.to_string()).unwrap(), selector);
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,24}") {
            let _ = FieldSelector::parse(&text);
        }
    }
}
