//! CEL, the Common Expression Language, as Kubernetes extends it: rules in CustomResourceDefinitions and in admission.
//!
//! An expression is compiled once against the names it may use ([`compile`]), which checks its types and bounds its cost,
//! and then run as often as needed ([`Program::run`]) within a [`Budget`] of steps. Everything that an expression can do
//! costs steps, so that a hostile one ends early and says so: there are no loops but over lists and maps, and each round is
//! paid for.
//!
//! ```text
//! text ──parse──▶ Expr ──check──▶ type, cost ──run──▶ Value
//!                  ast     declarations: names, types      variables, budget
//! ```
//!
//! Functions are declared in one table of signatures (`library.rs`), by which calls are checked; beside it each group of
//! functions has its own file. Pure: nothing here knows of requests or the store.

mod ast;
mod check;
mod cost;
mod declarations;
mod eval;
pub mod format;
mod library;
mod parse;
mod time;
mod types;
mod value;

use std::sync::Arc;

pub use self::{
    declarations::Environment,
    eval::{Budget, Error, Failure, Variables},
    types::{Field, ObjectType, Type},
    value::{Host, Key, List, ListKind, MapValue, Value},
};

/// A floating-point number as Go's `%v` shows it.
#[must_use]
pub fn show_number(n: f64) -> String {
    library::strings::number(n)
}

/// As long as an expression may be, in bytes.
const MAX_LENGTH: usize = 100_000;

/// What an expression may cost in one run: Kubernetes' own limit.
pub const PER_CALL_LIMIT: u64 = 1_000_000;

/// Why a text is no expression over the declared names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.shown)]
pub struct CompileError {
    /// All errors, one after the other, as cel-go prints them.
    pub shown: String,
}

/// One thing wrong in an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Issue {
    at: usize,
    message: String,
}

impl CompileError {
    fn of(source: &str, issues: &[Issue]) -> Self {
        let shown: Vec<String> = issues.iter().map(|issue| show(source, issue)).collect();
        Self { shown: shown.join("\n") }
    }
}

/// `ERROR: <input>:1:6: …` with the line and a caret.
fn show(source: &str, issue: &Issue) -> String {
    let before = source.get(..issue.at).unwrap_or(source);
    let line_start = before.rfind('\n').map_or(0, |i| i + 1);
    let (row, column) = (before.matches('\n').count() + 1, before.get(line_start..).unwrap_or("").chars().count());
    let line = source.get(line_start..).unwrap_or("").lines().next().unwrap_or("");
    let dots = ".".repeat(column);
    format!("ERROR: <input>:{row}:{}: {}\n | {line}\n | {dots}^", column + 1, issue.message)
}

/// An expression that is ready to run.
#[derive(Clone, Debug)]
pub struct Program {
    root: Arc<ast::Expr>,
    result: Type,
    cost: u64,
    idents: Vec<String>,
}

impl Program {
    /// The type of the result.
    #[must_use]
    pub fn result(&self) -> &Type {
        &self.result
    }

    /// The most that one run can cost, by the sizes that the declarations bound.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Whether the expression uses the declared name.
    #[must_use]
    pub fn uses(&self, name: &str) -> bool {
        self.idents.iter().any(|ident| ident == name)
    }

    /// Whether the expression looks at this field of a name that stands for itself: `claims.email`, also in `has()`, by
    /// `.?` and by an index.
    #[must_use]
    pub fn selects(&self, operand: &str, field: &str) -> bool {
        self.root.any(&mut |expr| expr.is_select(operand, field))
    }

    /// Works the expression out.
    ///
    /// # Errors
    /// The expression's own errors (`no such key`, …), and the budget's end, which nothing in the expression can catch.
    pub fn run(&self, variables: &dyn Variables, budget: &mut Budget) -> Result<Value, Error> {
        eval::run(&self.root, variables, budget)
    }
}

/// Reads an expression and checks it against the declared names.
///
/// # Errors
/// All that is wrong with it, in cel-go's words.
pub fn compile(source: &str, environment: &Environment) -> Result<Program, CompileError> {
    if source.len() > MAX_LENGTH {
        let message = format!("expression code point size exceeds limit: size: {}, limit {MAX_LENGTH}", source.len());
        return Err(CompileError { shown: format!("ERROR: <input>:-1:0: {message}") });
    }
    let root = parse::parse(source).map_err(|issue| CompileError::of(source, &[issue]))?;
    let mut checker = check::Checker::new(environment);
    let checked = checker.check(&root);
    if !checker.issues.is_empty() {
        return Err(CompileError::of(source, &checker.issues));
    }
    let mut idents = Vec::new();
    root.idents(&mut idents);
    Ok(Program { root: Arc::new(root), result: checked.ty, cost: checked.cost, idents })
}

#[cfg(test)]
mod tests;
