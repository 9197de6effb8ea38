//! Expressions as they are read.

use super::value::Value;

/// An expression and where it stands in the text.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub(super) at: usize,
    pub(super) node: Node,
}

/// A step over all items of a list or all entries of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    All,
    Exists,
    ExistsOne,
    /// `map` and `transformList`.
    ToList,
    Filter,
    /// `transformMap`.
    ToMap,
    /// `transformMapEntry`.
    ToMapEntry,
    /// `sortBy`.
    SortBy,
}

impl Step {
    /// The macro's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exists => "exists",
            Self::ExistsOne => "exists_one",
            Self::ToList => "map",
            Self::Filter => "filter",
            Self::ToMap => "transformMap",
            Self::ToMapEntry => "transformMapEntry",
            Self::SortBy => "sortBy",
        }
    }
}

/// A comprehension: `range.all(first, second, body)`.
#[derive(Clone, Debug)]
pub(super) struct Comprehension {
    pub(super) step: Step,
    pub(super) range: Expr,
    pub(super) first: String,
    pub(super) second: Option<String>,
    /// Which rounds count, of `map` with three arguments.
    pub(super) filter: Option<Expr>,
    pub(super) body: Expr,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Literal(Value),
    Ident(String),
    /// `operand.field` and `operand.?field`.
    Select {
        operand: Box<Expr>,
        field: String,
        optional: bool,
    },
    /// `has(operand.field)`.
    Has {
        operand: Box<Expr>,
        field: String,
    },
    /// `operand[index]` and `operand[?index]`.
    Index {
        operand: Box<Expr>,
        index: Box<Expr>,
        optional: bool,
    },
    /// A function, a method, or an operator by cel-go's name for it: `_+_`.
    Call {
        function: String,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Items, each optional (`[?x]`) or not.
    List(Vec<(bool, Expr)>),
    Map(Vec<(bool, Expr, Expr)>),
    /// `Object.spec{replicas: 1}`.
    Message(String, Vec<(bool, String, Expr)>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Conditional(Box<Expr>, Box<Expr>, Box<Expr>),
    Comprehension(Box<Comprehension>),
    /// `cel.bind(name, value, body)`.
    Bind {
        name: String,
        value: Box<Expr>,
        body: Box<Expr>,
    },
    /// `target.optMap(name, body)`, and `optFlatMap`, whose body is optional itself.
    OptMap {
        target: Box<Expr>,
        name: String,
        body: Box<Expr>,
        flat: bool,
    },
}

impl Expr {
    pub(super) fn new(at: usize, node: Node) -> Self {
        Self { at, node }
    }

    /// `a.b.c` as a dotted name, of expressions that are no more than that.
    pub(super) fn dotted(&self) -> Option<String> {
        match &self.node {
            Node::Ident(name) => Some(name.clone()),
            Node::Select { operand, field, optional: false } => Some(format!("{}.{field}", operand.dotted()?)),
            _ => None,
        }
    }

    /// Whether it is `operand.field`, however that is written.
    pub(super) fn is_select(&self, name: &str, wanted: &str) -> bool {
        let is_name = |operand: &Self| matches!(&operand.node, Node::Ident(ident) if ident == name);
        match &self.node {
            Node::Select { operand, field, .. } | Node::Has { operand, field } => is_name(operand) && field == wanted,
            Node::Index { operand, index, .. } => {
                let is_wanted = matches!(&index.node, Node::Literal(Value::Text(text)) if **text == *wanted);
                is_name(operand) && is_wanted
            }
            _ => false,
        }
    }

    /// Whether it is so of the expression or of one within it.
    pub(super) fn any(&self, is_so: &mut dyn FnMut(&Self) -> bool) -> bool {
        if is_so(self) {
            return true;
        }
        let mut found = false;
        self.each_part(&mut |part| found = found || part.any(is_so));
        found
    }

    /// All names that stand free somewhere in the expression (names that comprehensions bind are among them).
    pub(super) fn idents(&self, found: &mut Vec<String>) {
        if let Node::Ident(name) = &self.node
            && !found.contains(name)
        {
            found.push(name.clone());
        }
        self.each_part(&mut |part| part.idents(found));
    }

    /// The expressions that it is directly made of.
    fn each_part(&self, see: &mut dyn FnMut(&Self)) {
        match &self.node {
            Node::Literal(_) | Node::Ident(_) => {}
            Node::Select { operand, .. } | Node::Has { operand, .. } => see(operand),
            Node::Index { operand, index, .. } => {
                see(operand);
                see(index);
            }
            Node::Call { target, args, .. } => {
                target.iter().for_each(|target| see(target));
                args.iter().for_each(see);
            }
            Node::List(items) => items.iter().for_each(|(_, item)| see(item)),
            Node::Map(entries) => entries.iter().for_each(|(_, key, value)| {
                see(key);
                see(value);
            }),
            Node::Message(_, fields) => fields.iter().for_each(|(_, _, value)| see(value)),
            Node::And(a, b) | Node::Or(a, b) => {
                see(a);
                see(b);
            }
            Node::Conditional(a, b, c) => {
                see(a);
                see(b);
                see(c);
            }
            Node::Comprehension(c) => {
                see(&c.range);
                c.filter.iter().for_each(&mut *see);
                see(&c.body);
            }
            Node::Bind { value, body, .. } => {
                see(value);
                see(body);
            }
            Node::OptMap { target, body, .. } => {
                see(target);
                see(body);
            }
        }
    }
}
