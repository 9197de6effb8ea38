//! Types and costs of expressions, found before anything runs.

use super::{
    Issue,
    ast::{Comprehension, Expr, Node, Step},
    cost,
    declarations::Environment,
    library,
    parse::{literal_type, type_value},
    types::{Bound, Type, UNBOUNDED, accepts, fill, join},
};

/// As many errors are told of one expression.
const MAX_ISSUES: usize = 10;

/// An expression's type, the most it can cost, and how large its value can be.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    pub(super) ty: Type,
    pub(super) cost: u64,
    size: u64,
}

impl Checked {
    fn new(ty: Type, cost: u64) -> Self {
        let size = cost::size_of(&ty);
        Self { ty, cost, size }
    }

    fn unknown() -> Self {
        Self::new(Type::Dyn, 1)
    }
}

pub(super) struct Checker<'a> {
    environment: &'a Environment,
    scope: Vec<(String, Type)>,
    /// Whether list literals may mix types: as arguments of `format`.
    mixed: bool,
    pub(super) issues: Vec<Issue>,
}

fn no_overload(function: &str, method: bool, args: &[Checked]) -> String {
    let shown: Vec<String> = args.iter().map(|arg| arg.ty.to_string()).collect();
    match (method, shown.split_first()) {
        (true, Some((target, rest))) => {
            format!("found no matching overload for '{function}' applied to '{target}.({})'", rest.join(", "))
        }
        _ => format!("found no matching overload for '{function}' applied to '({})'", shown.join(", ")),
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self { environment, scope: Vec::new(), mixed: false, issues: Vec::new() }
    }

    fn wrong(&mut self, at: usize, message: String) -> Checked {
        if self.issues.len() < MAX_ISSUES {
            self.issues.push(Issue { at, message });
        }
        Checked::unknown()
    }

    fn bool(&mut self, expr: &Expr) -> Checked {
        let checked = self.check(expr);
        if !matches!(checked.ty, Type::Bool | Type::Dyn | Type::Param(_)) {
            self.wrong(expr.at, format!("expected type 'bool' but found '{}'", checked.ty));
        }
        checked
    }

    fn lookup(&self, name: &str) -> Option<Type> {
        let own = self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, ty)| ty);
        own.or_else(|| self.environment.get(name)).cloned()
    }

    pub(super) fn check(&mut self, expr: &Expr) -> Checked {
        match &expr.node {
            Node::Literal(value) => Checked::new(literal_type(value), 0),
            Node::Ident(name) => match self.lookup(name) {
                Some(ty) => Checked::new(ty, 1),
                None if type_value(name).is_some() => Checked::new(Type::Type, 1),
                None => self.wrong(expr.at, format!("undeclared reference to '{name}' (in container '')")),
            },
            Node::Select { operand, field, optional } => {
                if type_value(&expr.dotted().unwrap_or_default()).is_some() {
                    return Checked::new(Type::Type, 1);
                }
                let operand = self.check(operand);
                self.select(expr.at, operand, field, *optional)
            }
            Node::Has { operand, field } => {
                let operand = self.check(operand);
                let found = self.select(expr.at, operand, field, false);
                Checked::new(Type::Bool, found.cost.saturating_sub(1))
            }
            Node::Index { operand, index, optional } => self.index(expr.at, operand, index, *optional),
            Node::Call { function, target, args } => self.call(expr.at, function, target.as_deref(), args),
            Node::List(items) => self.list(items),
            Node::Map(entries) => self.map(entries),
            Node::Message(name, fields) => {
                let mut total: u64 = 40;
                for (_, _, value) in fields {
                    total = total.saturating_add(self.check(value).cost);
                }
                if name == "JSONPatch" || name.split('.').next() == Some("Object") {
                    return Checked::new(Type::Dyn, total);
                }
                self.wrong(expr.at, format!("undeclared reference to '{name}' (in container '')"))
            }
            Node::And(a, b) | Node::Or(a, b) => {
                let (a, b) = (self.bool(a), self.bool(b));
                Checked::new(Type::Bool, a.cost.saturating_add(b.cost))
            }
            Node::Conditional(condition, yes, no) => {
                let condition = self.bool(condition);
                let (yes, no) = (self.check(yes), self.check(no));
                let total = condition.cost.saturating_add(yes.cost.max(no.cost));
                match join(&yes.ty, &no.ty) {
                    Some(ty) => Checked { ty, cost: total, size: yes.size.max(no.size) },
                    None => {
                        let found = [Checked::new(Type::Bool, 0), yes, no];
                        self.wrong(expr.at, no_overload("_?_:_", false, &found))
                    }
                }
            }
            Node::Comprehension(comprehension) => self.comprehension(expr.at, comprehension),
            Node::Bind { name, value, body } => {
                let value = self.check(value);
                self.scope.push((name.clone(), value.ty.clone()));
                let body = self.check(body);
                self.scope.pop();
                Checked { cost: value.cost.saturating_add(body.cost).saturating_add(10), ..body }
            }
            Node::OptMap { target, name, body, flat } => {
                let at = target.at;
                let target = self.check(target);
                let inner = match target.ty {
                    Type::Optional(inner) => *inner,
                    Type::Dyn => Type::Dyn,
                    other => {
                        return self.wrong(at, format!("found no matching overload for 'optMap' applied to '{other}'"));
                    }
                };
                self.scope.push((name.clone(), inner));
                let body = self.check(body);
                self.scope.pop();
                let ty = match (flat, body.ty) {
                    (false, ty) => Type::Optional(Box::new(ty)),
                    (true, ty @ (Type::Optional(_) | Type::Dyn)) => ty,
                    (true, ty) => return self.wrong(at, format!("optFlatMap needs an optional, found '{ty}'")),
                };
                Checked { ty, cost: target.cost.saturating_add(body.cost).saturating_add(2), size: body.size }
            }
        }
    }

    fn select(&mut self, at: usize, operand: Checked, field: &str, optional: bool) -> Checked {
        let total = operand.cost.saturating_add(1);
        let (inner, was_optional) = match operand.ty {
            Type::Optional(inner) => (*inner, true),
            other => (other, false),
        };
        let ty = match &inner {
            Type::Dyn | Type::Param(_) => Type::Dyn,
            Type::Map(_, value, _) => (**value).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => field.ty.clone(),
                None => return self.wrong(at, format!("undefined field '{field}'")),
            },
            // What the request itself is about, of `authorizer`.
            Type::Named("kubernetes.authorization.Authorizer") if field == "requestResource" => {
                Type::Named("kubernetes.authorization.ResourceCheck")
            }
            other => return self.wrong(at, format!("type '{other}' does not support field selection")),
        };
        let ty = if was_optional || optional { Type::Optional(Box::new(ty)) } else { ty };
        Checked::new(ty, total)
    }

    fn index(&mut self, at: usize, operand: &Expr, index: &Expr, optional: bool) -> Checked {
        let (operand, index) = (self.check(operand), self.check(index));
        let total = operand.cost.saturating_add(index.cost).saturating_add(1);
        let (inner, was_optional) = match &operand.ty {
            Type::Optional(inner) => ((**inner).clone(), true),
            other => (other.clone(), false),
        };
        let ty = match &inner {
            Type::Dyn | Type::Param(_) => Some(Type::Dyn),
            Type::List(item, _) if matches!(index.ty, Type::Int | Type::Uint | Type::Double | Type::Dyn) => {
                Some((**item).clone())
            }
            Type::Map(key, value, _) if accepts(key, &index.ty, &mut Bound::new()) => Some((**value).clone()),
            _ => None,
        };
        match ty {
            Some(ty) if was_optional || optional => Checked::new(Type::Optional(Box::new(ty)), total),
            Some(ty) => Checked::new(ty, total),
            None => self.wrong(at, no_overload("_[_]", false, &[operand, index])),
        }
    }

    fn call(&mut self, at: usize, function: &str, target: Option<&Expr>, args: &[Expr]) -> Checked {
        let outer = std::mem::replace(&mut self.mixed, function == "format");
        let given: Vec<Checked> = target.into_iter().chain(args).map(|arg| self.check(arg)).collect();
        self.mixed = outer;
        let all = library::signatures(function);
        if all.is_empty() {
            return self.wrong(at, format!("undeclared reference to '{function}' (in container '')"));
        }
        self.check_literals(at, function, target.into_iter().chain(args));
        let method = target.is_some();
        let mut result: Option<Type> = None;
        for signature in all.iter().filter(|s| s.method == method && s.args.len() == given.len()) {
            let mut bound = Bound::new();
            if signature.args.iter().zip(&given).all(|(wanted, arg)| accepts(wanted, &arg.ty, &mut bound)) {
                let found = fill(&signature.result, &bound);
                result = Some(match result {
                    None => found,
                    Some(other) if other == found => found,
                    Some(_) => Type::Dyn,
                });
            }
        }
        let Some(ty) = result else { return self.wrong(at, no_overload(function, method, &given)) };
        let sizes: Vec<(Type, u64)> = given.iter().map(|arg| (arg.ty.clone(), arg.size)).collect();
        let own = cost::of_call(function, &sizes);
        let total = given.iter().map(|arg| arg.cost).fold(own, u64::saturating_add);
        let size = cost::size_of_result(function, &sizes, &ty);
        let ty = match ty {
            Type::Text(_) => Type::Text(size),
            Type::List(item, UNBOUNDED) => Type::List(item, size),
            other => other,
        };
        Checked { ty, cost: total, size }
    }

    /// Literals that cannot be read are errors now, not when they are run.
    fn check_literals<'e>(&mut self, at: usize, function: &str, args: impl Iterator<Item = &'e Expr>) {
        use super::value::Value;
        let literals: Vec<&str> = args
            .map(|arg| match &arg.node {
                Node::Literal(Value::Text(text)) => &**text,
                _ => "",
            })
            .collect();
        let problem = match (function, literals.as_slice()) {
            ("matches" | "find" | "findAll", [_, pattern, ..]) if !pattern.is_empty() => {
                crate::go_regex::compile(pattern).err().map(|why| format!("invalid matches argument: {why}"))
            }
            ("duration", [text]) if !text.is_empty() => {
                super::time::duration(text).err().map(|_| "invalid duration argument".to_owned())
            }
            ("timestamp", [text]) if !text.is_empty() => {
                super::time::timestamp(text).err().map(|_| "invalid timestamp argument".to_owned())
            }
            _ => None,
        };
        if let Some(problem) = problem {
            self.wrong(at, problem);
        }
    }

    fn list(&mut self, items: &[(bool, Expr)]) -> Checked {
        let mixed = std::mem::take(&mut self.mixed);
        let (mut total, mut item_type) = (10_u64, None::<Type>);
        for (optional, item) in items {
            let checked = self.check(item);
            total = total.saturating_add(checked.cost);
            let ty = match (optional, checked.ty) {
                (true, Type::Optional(inner)) => *inner,
                (_, ty) => ty,
            };
            let both = match item_type {
                _ if mixed => Some(Type::Dyn),
                None => Some(ty.clone()),
                Some(known) => join(&known, &ty).or_else(|| {
                    self.wrong(item.at, format!("expected type '{known}' but found '{ty}'"));
                    None
                }),
            };
            item_type = Some(both.unwrap_or(Type::Dyn));
        }
        let count = items.len() as u64;
        Checked::new(Type::List(Box::new(item_type.unwrap_or(Type::Param('T'))), count), total)
    }

    fn map(&mut self, entries: &[(bool, Expr, Expr)]) -> Checked {
        let (mut total, mut key_type, mut value_type) = (30_u64, None::<Type>, None::<Type>);
        for (optional, key, value) in entries {
            let (key, value) = (self.check(key), self.check(value));
            total = total.saturating_add(key.cost).saturating_add(value.cost);
            let value = match (optional, value.ty) {
                (true, Type::Optional(inner)) => *inner,
                (_, ty) => ty,
            };
            key_type = Some(key_type.map_or(key.ty.clone(), |known| join(&known, &key.ty).unwrap_or(Type::Dyn)));
            value_type = Some(value_type.map_or(value.clone(), |known| join(&known, &value).unwrap_or(Type::Dyn)));
        }
        let (key, value) = (key_type.unwrap_or(Type::Param('K')), value_type.unwrap_or(Type::Param('V')));
        Checked::new(Type::Map(Box::new(key), Box::new(value), entries.len() as u64), total)
    }

    fn comprehension(&mut self, at: usize, c: &Comprehension) -> Checked {
        let range = self.check(&c.range);
        let two = c.second.is_some();
        let (first, second) = match &range.ty {
            Type::Dyn | Type::Param(_) => (Type::Dyn, Type::Dyn),
            Type::List(item, _) if two => (Type::Int, (**item).clone()),
            Type::List(item, _) => ((**item).clone(), Type::Dyn),
            Type::Map(key, value, _) => ((**key).clone(), (**value).clone()),
            other => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                return self.wrong(c.range.at, message);
            }
        };
        let depth = self.scope.len();
        self.scope.push((c.first.clone(), first));
        if let Some(name) = &c.second {
            self.scope.push((name.clone(), second));
        }
        let filter = c.filter.as_ref().map_or(0, |filter| self.bool(filter).cost);
        let body = match c.step {
            Step::All | Step::Exists | Step::ExistsOne | Step::Filter => self.bool(&c.body),
            _ => self.check(&c.body),
        };
        self.scope.truncate(depth);
        // Each round also looks whether it is the last, and keeps what it found.
        let round = body.cost.saturating_add(filter).saturating_add(match c.step {
            Step::All | Step::Exists => 3,
            Step::ExistsOne => 4,
            _ => 12,
        });
        let rounds = cost::size_of(&range.ty).min(range.size);
        let total = range.cost.saturating_add(round.saturating_mul(rounds)).saturating_add(1);
        let ty = match c.step {
            Step::All | Step::Exists | Step::ExistsOne => Type::Bool,
            Step::ToList => Type::List(Box::new(body.ty), rounds),
            Step::Filter => match &range.ty {
                Type::List(item, _) => Type::List(item.clone(), rounds),
                Type::Map(key, _, _) => Type::List(key.clone(), rounds),
                _ => Type::list(Type::Dyn),
            },
            Step::SortBy => match &range.ty {
                Type::List(..) | Type::Dyn => range.ty.clone(),
                other => return self.wrong(at, format!("sortBy needs a list, found '{other}'")),
            },
            Step::ToMap => {
                let key = match &range.ty {
                    Type::Map(key, _, _) => (**key).clone(),
                    Type::List(..) => Type::Int,
                    _ => Type::Dyn,
                };
                Type::Map(Box::new(key), Box::new(body.ty), rounds)
            }
            Step::ToMapEntry => match body.ty {
                Type::Map(key, value, _) => Type::Map(key, value, rounds),
                Type::Dyn => Type::map(Type::Dyn),
                other => return self.wrong(at, format!("{} needs a map, found '{other}'", c.step.name())),
            },
        };
        Checked::new(ty, total)
    }
}
