//! Label selectors: requirements that all must hold.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as metav1;

use crate::{field, name};

/// How a requirement compares a label's value with its own values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// `a in (x, y)`: the label is there with one of the values.
    In,
    /// `a notin (x, y)`: the label is not there, or has none of the values.
    NotIn,
    /// `a = x`.
    Equals,
    /// `a == x`.
    DoubleEquals,
    /// `a != x`: as [`Operator::NotIn`] with one value.
    NotEquals,
    /// `a`: the label is there.
    Exists,
    /// `!a`: the label is not there.
    DoesNotExist,
    /// `a > 1`: the label is there and is a greater integer.
    GreaterThan,
    /// `a < 1`: the label is there and is a smaller integer.
    LessThan,
}

/// Why a label selector is none; the text is Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelectorError(pub(crate) String);

impl fmt::Display for SelectorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SelectorError {}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted and without repeats.
    values: Vec<String>,
}

impl Requirement {
    /// A requirement whose key, number of values and values are checked.
    ///
    /// # Errors
    /// Everything that is wrong, in Kubernetes' words.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors = Vec::new();
        let key_errors = name::qualified_name(key);
        if !key_errors.is_empty() {
            errors.push(field::Error::invalid(&field::Path::new("key"), key, &key_errors.join("; ")));
        }
        let path = field::Path::new("values");
        let wrong_count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        if let Some(detail) = wrong_count {
            errors.push(field::Error::invalid(&path, values.clone(), detail));
        }
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(field::Error::invalid(&path.index(i), value.as_str(), detail));
            }
            let value_errors = name::label_value(value);
            if !value_errors.is_empty() {
                let at = path.index(i).key(key);
                errors.push(field::Error::invalid(&at, value.as_str(), &value_errors.join("; ")));
            }
        }
        if !errors.is_empty() {
            return Err(SelectorError(field::aggregate(&errors)));
        }
        Ok(Self::checked(key.to_owned(), operator, values))
    }

    fn checked(key: String, operator: Operator, mut values: Vec<String>) -> Self {
        values.sort_unstable();
        values.dedup();
        Self { key, operator, values }
    }

    /// The label's key.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How it compares.
    #[must_use]
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// What it compares with, sorted.
    #[must_use]
    pub fn values(&self) -> &[String] {
        &self.values
    }

    /// Whether the label's value (or its absence) meets the requirement.
    #[must_use]
    pub fn holds(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|own| own == v);
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => value.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compared(value).is_some_and(|(theirs, own)| theirs > own),
            Operator::LessThan => self.compared(value).is_some_and(|(theirs, own)| theirs < own),
        }
    }

    fn compared(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let values = self.values.join(",");
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A label selector: everything, nothing, or what meets all its requirements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// `None` selects nothing; an empty list selects everything. Sorted by key.
    requirements: Option<Vec<Requirement>>,
}

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    /// Selects every object.
    #[must_use]
    pub const fn everything() -> Self {
        Self { requirements: Some(Vec::new()) }
    }

    /// Selects no object: what an absent `metav1.LabelSelector` means.
    #[must_use]
    pub const fn nothing() -> Self {
        Self { requirements: None }
    }

    /// Selects what meets all of `requirements`.
    #[must_use]
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements: Some(requirements) }
    }

    /// Reads the text form: `a=b,c in (d,e),!f`. The empty text selects everything.
    ///
    /// # Errors
    /// What is wrong with the text, in Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        super::parse::requirements(text).map(Self::new)
    }

    /// Reads `metav1.LabelSelector`; absent selects nothing, empty everything.
    ///
    /// # Errors
    /// An operator, key or value that is none.
    pub fn from_api(selector: Option<&metav1::LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// Selects what has all of `labels` (a service's or replication controller's selector); they are not checked.
    #[must_use]
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let equal = |(k, v): (&String, &String)| Requirement::checked(k.clone(), Operator::Equals, vec![v.clone()]);
        Self::new(labels.iter().map(equal).collect())
    }

    /// Whether it selects every object.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    /// Whether it selects no object at all.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.requirements.is_none()
    }

    /// What must hold; empty when it selects everything or nothing.
    #[must_use]
    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    /// Whether an object is selected whose labels `value_of` looks up.
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> Option<&'a str>) -> bool {
        match &self.requirements {
            None => false,
            Some(requirements) => requirements.iter().all(|r| r.holds(value_of(&r.key))),
        }
    }

    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches_labels(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches(|key| labels.get(key).map(String::as_str))
    }

    /// As [`Self::matches_labels`], for the optional map of an object's metadata.
    #[must_use]
    pub fn matches_object(&self, metadata: &metav1::ObjectMeta) -> bool {
        self.matches(|key| metadata.labels.as_ref()?.get(key).map(String::as_str))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{requirement}")?;
        }
        Ok(())
    }
}

impl std::str::FromStr for LabelSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    fn from_json(value: serde_json::Value) -> Result<LabelSelector, SelectorError> {
        LabelSelector::from_api(Some(&serde_json::from_value(value).unwrap()))
    }

    #[test]
    fn a_text_selects_what_kubernetes_selects() {
        let table = [
            ("", "a=b", true),
            ("a=b", "a=b,c=d", true),
            ("a==b", "a=c", false),
            ("a!=b", "c=d", true),
            ("a!=b", "a=b", false),
            ("a in (b, c)", "a=c", true),
            ("a in (b,c)", "c=c", false),
            ("a notin (b,c)", "x=y", true),
            ("a notin (b,c)", "a=b", false),
            ("a", "a=", true),
            ("!a", "b=c", true),
            ("!a", "a=c", false),
            ("a=b,!c", "a=b", true),
            ("a=b,!c", "a=b,c=d", false),
            ("a>1", "a=2", true),
            ("a<1", "a=2", false),
            ("a>1", "a=x", false),
            ("a=", "a=", true),
            ("a in ()", "a=", false),
            ("a in (,)", "a=", true),
            ("in in (in)", "in=in", true),
        ];
        for (selector, object, expected) in table {
            let Ok(parsed) = LabelSelector::parse(selector) else {
                assert_eq!(selector, "a in ()", "only the empty set is refused here");
                continue;
            };
            assert_eq!(parsed.matches_labels(&labels(object)), expected, "{selector} on {object}");
        }
    }

    #[test]
    fn the_canonical_form_is_sorted() {
        for (text, canonical) in [
            ("b=c , a notin (z,y,y)", "a notin (y,z),b=c"),
            ("x in (a)", "x in (a)"),
            ("!x,y", "!x,y"),
            ("a == b", "a==b"),
            ("a>3", "a>3"),
            ("", ""),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn errors_are_kubernetes_sentences() {
        for (text, sentence) in [
            ("a=b,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a in ()",
                "unable to parse requirement: values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
            ),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("!a=b", "found '=', expected: ',' or 'end of string'"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), sentence, "{text}");
        }
        let error = LabelSelector::parse("-a=b").unwrap_err().to_string();
        assert!(
            error.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"),
            "{error}"
        );
        let error = LabelSelector::parse("a=-").unwrap_err().to_string();
        assert!(
            error.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-\": a valid"),
            "{error}"
        );
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(LabelSelector::from_api(None).unwrap().is_nothing());
        assert!(!LabelSelector::nothing().matches(|_| Some("x")));
        assert!(from_json(json!({})).unwrap().is_everything());
    }

    #[test]
    fn both_forms_of_metav1_are_joined() {
        let selector = from_json(json!({
            "matchLabels": {"b": "c"},
            "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["x"]}, {"key": "d", "operator": "Exists"}]
        }))
        .unwrap();
        assert_eq!(selector.to_string(), "a notin (x),b=c,d");
        assert_eq!(
            from_json(json!({"matchExpressions": [{"key": "a", "operator": "Gt"}]})).unwrap_err().to_string(),
            "\"Gt\" is not a valid label selector operator"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_prints_and_parses_alike(text in "[ab!=<>(),/ .\\-\\\\ä0inot]{0,24}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(&LabelSelector::parse(&selector.to_string()).unwrap(), &selector);
            }
        }
    }
}
