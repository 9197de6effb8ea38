//! The paths by which a definition points into its objects: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`.
//!
//! Scale and selectable fields use names alone; printer columns know indices, wildcards and filters as well, a subset of
//! kubectl's JSONPath without recursion.

use serde_json::Value;

/// A step of a path.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// From the end when negative.
    Index(i64),
    Every,
    /// `[?(@.a.b=="c")]`.
    Where {
        path: SimplePath,
        is: Relation,
        value: Value,
    },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SimplePath(Vec<Step>);

/// Steps of one path; what people write has few.
const MAX_STEPS: usize = 32;

impl SimplePath {
    /// Reads a path; none for what is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        rest = rest.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')).unwrap_or(rest);
        rest = rest.strip_prefix('$').unwrap_or(rest);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if steps.len() == MAX_STEPS {
                return None;
            }
            if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner)?;
                steps.push(bracket(inner.get(..end)?.trim())?);
                rest = inner.get(end + 1..)?;
            } else {
                rest = rest.strip_prefix('.')?;
                if rest.is_empty() && steps.is_empty() {
                    break;
                }
                if rest.starts_with('[') {
                    continue;
                }
                let (name, after) = field(rest);
                if name.is_empty() {
                    return None;
                }
                steps.push(if name == "*" { Step::Every } else { Step::Field(name) });
                rest = after;
            }
        }
        Some(Self(steps))
    }

    /// The names of the path, of one that is made of names alone.
    pub(crate) fn names(&self) -> Option<Vec<&str>> {
        self.0.iter().map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect()
    }

    /// All values it leads to.
    pub(crate) fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        let mut found = vec![value];
        for step in &self.0 {
            found = found.into_iter().flat_map(|value| step.from(value)).collect();
        }
        found
    }
}

/// Where the bracket ends, beyond those within and texts.
fn closing(inner: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_u32, None);
    for (i, c) in inner.char_indices() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(i),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

/// A name up to the next dot or bracket, without the backslashes that keep dots in it.
fn field(rest: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = rest.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, rest.get(i..).unwrap_or_default()),
            c => name.push(c),
        }
    }
    (name, "")
}

fn unquoted(text: &str) -> Option<&str> {
    let within = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    within('\'').or_else(|| within('"'))
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::Every);
    }
    if let Some(name) = unquoted(inner) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    let condition = inner.strip_prefix("?(")?.strip_suffix(')')?.trim();
    const RELATIONS: &[(&str, Relation)] = &[
        ("==", Relation::Equal),
        ("!=", Relation::NotEqual),
        ("<=", Relation::LessOrEqual),
        (">=", Relation::GreaterOrEqual),
        ("<", Relation::Less),
        (">", Relation::Greater),
    ];
    let (at, (sign, is)) = RELATIONS
        .iter()
        .filter_map(|relation| Some((condition.find(relation.0)?, relation)))
        .min_by_key(|(at, _)| *at)?;
    let left = condition.get(..at)?.trim().strip_prefix('@')?;
    let right = condition.get(at + sign.len()..)?.trim();
    let value = match unquoted(right) {
        Some(text) => Value::from(text),
        None => serde_json::from_str(right).ok()?,
    };
    Some(Step::Where { path: SimplePath::parse(left)?, is: *is, value })
}

impl Step {
    fn from<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        match (self, value) {
            (Self::Field(name), Value::Object(map)) => map.get(name).into_iter().collect(),
            (Self::Index(index), Value::Array(items)) => {
                let place = if *index < 0 {
                    items.len().checked_sub(usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX))
                } else {
                    usize::try_from(*index).ok()
                };
                place.and_then(|place| items.get(place)).into_iter().collect()
            }
            (Self::Every, Value::Array(items)) => items.iter().collect(),
            (Self::Every, Value::Object(map)) => map.values().collect(),
            (Self::Where { path, is, value: wanted }, Value::Array(items)) => items
                .iter()
                .filter(|item| path.find(item).first().is_some_and(|found| is.holds(found, wanted)))
                .collect(),
            _ => Vec::new(),
        }
    }
}

impl Relation {
    fn holds(self, a: &Value, b: &Value) -> bool {
        let ordering = match (a, b) {
            (Value::Number(a), Value::Number(b)) => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
            (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
            (a, b) => return (self == Self::Equal && a == b) || (self == Self::NotEqual && a != b),
        };
        ordering.is_some_and(|ordering| match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_kubectl_says_they_do() {
        let object = json!({
            "spec": {"replicas": 3, "a.b": 1, "list": [{"n": 1}, {"n": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]},
        });
        for (path, expected) in [
            (".spec.replicas", vec![json!(3)]),
            ("{.spec.replicas}", vec![json!(3)]),
            (".spec.a\\.b", vec![json!(1)]),
            (".spec['a.b']", vec![json!(1)]),
            (".spec.list[*].n", vec![json!(1), json!(2)]),
            (".spec.list[-1].n", vec![json!(2)]),
            (".spec.list[?(@.n>1)].n", vec![json!(2)]),
            (".status.conditions[?(@.type==\"Ready\")].status", vec![json!("True")]),
            (".status.nope", vec![]),
        ] {
            let found: Vec<Value> = SimplePath::parse(path).unwrap().find(&object).into_iter().cloned().collect();
            assert_eq!(found, expected, "{path}");
        }
        for path in ["spec", ".a..b", ".a[", ".a[?(x)]", &".a".repeat(100)] {
            assert_eq!(SimplePath::parse(path), None, "{path}");
        }
    }
}
