//! The text form of label selectors: a lexer and a recursive descent parser with Kubernetes' sentences.

use super::label::{Operator, Requirement, SelectorError};
use crate::{field, name};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    End,
    OpenParenthesis,
    ClosedParenthesis,
    Comma,
    Not,
    Equals,
    DoubleEquals,
    NotEquals,
    Greater,
    Less,
    In,
    NotIn,
    Identifier,
}

/// `in` and `notin` are words only where an operator may stand; elsewhere they are keys or values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Context {
    KeyAndOperator,
    Values,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn tokens(text: &str) -> Vec<(Token, &str)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let symbols = [
            ("==", Token::DoubleEquals),
            ("!=", Token::NotEquals),
            ("=", Token::Equals),
            ("!", Token::Not),
            ("(", Token::OpenParenthesis),
            (")", Token::ClosedParenthesis),
            (",", Token::Comma),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        let (token, length) = match symbols.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
            Some((symbol, token)) => (*token, symbol.len()),
            None => {
                let length = rest.find(|c| is_space(c) || is_symbol(c)).unwrap_or(rest.len());
                let token = match rest.get(..length) {
                    Some("in") => Token::In,
                    Some("notin") => Token::NotIn,
                    _ => Token::Identifier,
                };
                (token, length)
            }
        };
        let (word, after) = rest.split_at(length);
        found.push((token, word));
        rest = after.trim_start_matches(is_space);
    }
    found
}

struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    position: usize,
}

fn found(literal: &str, expected: &str) -> SelectorError {
    SelectorError(format!("found '{literal}', expected: {expected}"))
}

impl<'a> Parser<'a> {
    fn look(&self, context: Context) -> (Token, &'a str) {
        match self.tokens.get(self.position).copied().unwrap_or((Token::End, "")) {
            (Token::In | Token::NotIn, word) if context == Context::Values => (Token::Identifier, word),
            other => other,
        }
    }

    fn take(&mut self, context: Context) -> (Token, &'a str) {
        let token = self.look(context);
        self.position += 1;
        token
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let (mut token, mut key) = self.take(Context::Values);
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.take(Context::Values);
        }
        if token != Token::Identifier {
            return Err(found(key, "identifier"));
        }
        let errors = name::qualified_name(key);
        if !errors.is_empty() {
            // Kubernetes has no path here and prints Go's nil.
            let error = field::Error::invalid(&field::Path::new("<nil>"), key, &errors.join("; "));
            return Err(SelectorError(error.to_string()));
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.look(Context::Values).0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?.to_owned()],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        match self.take(Context::KeyAndOperator) {
            (Token::In, _) => Ok(Operator::In),
            (Token::NotIn, _) => Ok(Operator::NotIn),
            (Token::Equals, _) => Ok(Operator::Equals),
            (Token::DoubleEquals, _) => Ok(Operator::DoubleEquals),
            (Token::NotEquals, _) => Ok(Operator::NotEquals),
            (Token::Greater, _) => Ok(Operator::GreaterThan),
            (Token::Less, _) => Ok(Operator::LessThan),
            (_, literal) => Err(found(literal, "in, notin, =, ==, !=, gt, lt")),
        }
    }

    fn exact_value(&mut self) -> Result<&'a str, SelectorError> {
        if matches!(self.look(Context::Values).0, Token::End | Token::Comma) {
            return Ok("");
        }
        match self.take(Context::Values) {
            (Token::Identifier, value) => Ok(value),
            (_, literal) => Err(found(literal, "identifier")),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let (open, literal) = self.take(Context::Values);
        if open != Token::OpenParenthesis {
            return Err(SelectorError(format!("found '{literal}' expected: '('")));
        }
        match self.look(Context::Values) {
            (Token::Identifier | Token::Comma, _) => {}
            (Token::ClosedParenthesis, _) => {
                self.position += 1;
                return Ok(Vec::new());
            }
            (_, literal) => return Err(found(literal, "',', ')' or identifier")),
        }
        let mut values: Vec<String> = Vec::new();
        loop {
            match self.take(Context::Values) {
                (Token::Identifier, value) => {
                    values.push(value.to_owned());
                    match self.look(Context::Values) {
                        (Token::Comma, _) => {}
                        (Token::ClosedParenthesis, _) => break,
                        (_, literal) => return Err(found(literal, "',' or ')'")),
                    }
                }
                (Token::Comma, _) => {
                    if values.is_empty() {
                        values.push(String::new());
                    }
                    match self.look(Context::Values).0 {
                        Token::ClosedParenthesis => {
                            values.push(String::new());
                            break;
                        }
                        Token::Comma => {
                            self.position += 1;
                            values.push(String::new());
                        }
                        _ => {}
                    }
                }
                (_, literal) => return Err(found(literal, "',', or identifier")),
            }
        }
        // Both ways out of the loop saw the parenthesis.
        self.position += 1;
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

/// The requirements a text holds, in its order.
pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { tokens: tokens(text), position: 0 };
    let mut requirements = Vec::new();
    loop {
        match parser.look(Context::Values) {
            (Token::End, _) => return Ok(requirements),
            (Token::Identifier | Token::Not, _) => {}
            (_, literal) => return Err(found(literal, "!, identifier, or 'end of string'")),
        }
        let requirement =
            parser.requirement().map_err(|e| SelectorError(format!("unable to parse requirement: {e}")))?;
        requirements.push(requirement);
        match parser.take(Context::Values) {
            (Token::End, _) => return Ok(requirements),
            (Token::Comma, _) => match parser.look(Context::Values) {
                (Token::Identifier | Token::Not, _) => {}
                (_, literal) => return Err(found(literal, "identifier after ','")),
            },
            (_, literal) => return Err(found(literal, "',' or 'end of string'")),
        }
    }
}
