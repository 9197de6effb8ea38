//! From text to expressions: tokens, precedence, macros.
//!
//! <https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax>

use super::{
    Issue,
    ast::{Comprehension, Expr, Node, Step},
    types::Type,
    value::Value,
};

/// Expressions may be nested this deep; it bounds every walk over them.
const MAX_DEPTH: usize = 100;

/// Links of a chain (`a.b.c`, `a + b + c`), which nest to the left and are walked as deep.
const MAX_LINKS: usize = 400;

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Name(String),
    /// A name between backticks.
    Quoted(String),
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    Sign(&'static str),
    End,
}

const SIGNS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}",
];

const RESERVED: &[&str] = &[
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

type Result<T> = std::result::Result<T, Issue>;

fn issue<T>(at: usize, message: impl Into<String>) -> Result<T> {
    Err(Issue { at, message: message.into() })
}

fn tokens(source: &str) -> Result<Vec<(usize, Token)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = source.get(at..) {
        let Some(c) = rest.chars().next() else { break };
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if let Some((token, length)) = literal(rest, at)? {
            found.push((at, token));
            at += length;
        } else if c.is_ascii_digit()
            || (c == '.' && rest.get(1..).is_some_and(|r| r.starts_with(|d: char| d.is_ascii_digit())))
        {
            let (token, length) = number(rest, at)?;
            found.push((at, token));
            at += length;
        } else if c.is_ascii_alphabetic() || c == '_' {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((at, Token::Name(rest.get(..length).unwrap_or_default().to_owned())));
            at += length;
        } else if c == '`' {
            let inner = rest.get(1..).unwrap_or_default();
            let Some(end) = inner.find('`') else { return issue(at, "Syntax error: token recognition error at: '`'") };
            found.push((at, Token::Quoted(inner.get(..end).unwrap_or_default().to_owned())));
            at += end + 2;
        } else if let Some(sign) = SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            found.push((at, Token::Sign(sign)));
            at += sign.len();
        } else {
            return issue(at, format!("Syntax error: token recognition error at: '{c}'"));
        }
    }
    found.push((source.len(), Token::End));
    Ok(found)
}

fn number(rest: &str, at: usize) -> Result<(Token, usize)> {
    let bad = |text: &str| issue(at, format!("invalid number literal: {text}"));
    if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let digits = hex.get(..length).unwrap_or_default();
        let Ok(value) = u64::from_str_radix(digits, 16) else { return bad(digits) };
        let unsigned = hex.get(length..).is_some_and(|r| r.starts_with(['u', 'U']));
        return Ok(if unsigned { (Token::Uint(value), length + 3) } else { (Token::Int(value), length + 2) });
    }
    let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let mut length = digits(rest);
    let mut double = false;
    let after = |length: usize| rest.get(length..).unwrap_or_default();
    if let Some(fraction) = after(length).strip_prefix('.') {
        let count = digits(fraction);
        if count > 0 {
            double = true;
            length += 1 + count;
        }
    }
    if let Some(exponent) = after(length).strip_prefix(['e', 'E']) {
        let sign = usize::from(exponent.starts_with(['+', '-']));
        let count = digits(exponent.get(sign..).unwrap_or_default());
        if count > 0 {
            double = true;
            length += 1 + sign + count;
        }
    }
    let text = rest.get(..length).unwrap_or_default();
    if double {
        return match text.parse() {
            Ok(value) => Ok((Token::Double(value), length)),
            Err(_) => bad(text),
        };
    }
    let Ok(value) = text.parse::<u64>() else { return issue(at, "invalid int literal") };
    if after(length).starts_with(['u', 'U']) {
        return Ok((Token::Uint(value), length + 1));
    }
    Ok((Token::Int(value), length))
}

/// A text or bytes with its prefix; none if `rest` begins with something else.
fn literal(rest: &str, at: usize) -> Result<Option<(Token, usize)>> {
    let head = rest.bytes().take(3).position(|b| matches!(b, b'"' | b'\''));
    let Some(head) = head else { return Ok(None) };
    let prefix = rest.get(..head).unwrap_or_default().to_ascii_lowercase();
    let (raw, bytes) = match prefix.as_str() {
        "" => (false, false),
        "r" => (true, false),
        "b" => (false, true),
        "rb" | "br" => (true, true),
        _ => return Ok(None),
    };
    let body = rest.get(head..).unwrap_or_default();
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| body.starts_with(quote)).unwrap_or("\"");
    let mut out = Vec::new();
    let mut here = quote.len();
    loop {
        let left = body.get(here..).unwrap_or_default();
        if left.starts_with(quote) {
            here += quote.len();
            break;
        }
        let Some(c) = left.chars().next() else {
            return issue(at, "Syntax error: token recognition error: the text does not end");
        };
        if c == '\n' && quote.len() == 1 {
            return issue(at, "Syntax error: token recognition error: the text does not end on its line");
        }
        if c == '\\' && !raw {
            here += escape(left, bytes, at + head + here, &mut out)?;
            continue;
        }
        if c == '\\' {
            // In a raw text a backslash keeps the quote behind it from ending the text.
            out.push(b'\\');
            here += 1;
            if let Some(next) =
                body.get(here..).and_then(|l| l.chars().next()).filter(|n| matches!(n, '"' | '\'' | '\\'))
            {
                out.push(u8::try_from(next).unwrap_or(b'?'));
                here += 1;
            }
            continue;
        }
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        here += c.len_utf8();
    }
    let token = if bytes {
        Token::Bytes(out)
    } else {
        match String::from_utf8(out) {
            Ok(text) => Token::Text(text),
            Err(_) => return issue(at, "invalid UTF-8 in text"),
        }
    };
    Ok(Some((token, head + here)))
}

/// Appends what an escape stands for; its length.
fn escape(left: &str, bytes: bool, at: usize, out: &mut Vec<u8>) -> Result<usize> {
    let mut chars = left.chars().skip(1);
    let Some(c) = chars.next() else { return issue(at, "the text ends in an escape") };
    let plain = match c {
        'a' => Some(7),
        'b' => Some(8),
        'f' => Some(12),
        'n' => Some(b'\n'),
        'r' => Some(b'\r'),
        't' => Some(b'\t'),
        'v' => Some(11),
        '\\' | '\'' | '"' | '`' | '?' => u8::try_from(c).ok(),
        _ => None,
    };
    if let Some(byte) = plain {
        out.push(byte);
        return Ok(2);
    }
    let (digits, radix, skip) = match c {
        'x' | 'X' => (2, 16, 2),
        'u' if !bytes => (4, 16, 2),
        'U' if !bytes => (8, 16, 2),
        '0'..='3' => (3, 8, 1),
        _ => return issue(at, format!("unable to unescape string: \\{c}")),
    };
    let code = left.get(skip..skip + digits).and_then(|code| u32::from_str_radix(code, radix).ok());
    let Some(code) = code else { return issue(at, "unable to unescape string") };
    if bytes {
        match u8::try_from(code) {
            Ok(byte) => out.push(byte),
            Err(_) => return issue(at, "unable to unescape bytes"),
        }
    } else {
        match char::from_u32(code) {
            Some(c) => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            None => return issue(at, "invalid unicode code point"),
        }
    }
    Ok(skip + digits)
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
}

/// Reads a whole expression.
pub(super) fn parse(source: &str) -> Result<Expr> {
    let mut parser = Parser { tokens: tokens(source)?, next: 0, depth: 0 };
    let expr = parser.expr()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => issue(parser.at(), format!("Syntax error: extraneous input {} expecting <EOF>", shown(other))),
    }
}

fn shown(token: &Token) -> String {
    match token {
        Token::Name(name) | Token::Quoted(name) => format!("'{name}'"),
        Token::Int(n) | Token::Uint(n) => format!("'{n}'"),
        Token::Double(n) => format!("'{n}'"),
        Token::Text(text) => format!("'{text:?}'"),
        Token::Bytes(_) => "bytes".to_owned(),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::End => "'<EOF>'".to_owned(),
    }
}

const RELATIONS: &[(&str, &str)] =
    &[("<=", "_<=_"), (">=", "_>=_"), ("<", "_<_"), (">", "_>_"), ("==", "_==_"), ("!=", "_!=_")];
const SUMS: &[(&str, &str)] = &[("+", "_+_"), ("-", "_-_")];
const PRODUCTS: &[(&str, &str)] = &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")];

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, token)| token)
    }

    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(0, |(at, _)| *at)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        self.next += 1;
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let is = self.is(sign);
        self.next += usize::from(is);
        is
    }

    fn expect(&mut self, sign: &str) -> Result<()> {
        if self.eat(sign) {
            return Ok(());
        }
        issue(self.at(), format!("Syntax error: mismatched input {} expecting '{sign}'", shown(self.peek())))
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return issue(self.at(), format!("expression recursion limit exceeded: {MAX_DEPTH}"));
        }
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn expr(&mut self) -> Result<Expr> {
        self.deeper(|p| {
            let condition = p.or()?;
            let at = p.at();
            if !p.eat("?") {
                return Ok(condition);
            }
            let yes = p.or()?;
            p.expect(":")?;
            let no = p.expr()?;
            Ok(Expr::new(at, Node::Conditional(Box::new(condition), Box::new(yes), Box::new(no))))
        })
    }

    /// A chain of `sign`, as a tree that is balanced, so that long chains are not deep.
    fn chain(
        &mut self,
        sign: &str,
        next: impl Fn(&mut Self) -> Result<Expr>,
        node: impl Fn(Box<Expr>, Box<Expr>) -> Node + Copy,
    ) -> Result<Expr> {
        let mut terms = vec![next(self)?];
        let mut places = Vec::new();
        while self.is(sign) {
            places.push(self.at());
            self.next += 1;
            terms.push(next(self)?);
        }
        let mut places = places.into_iter();
        while terms.len() > 1 {
            let mut halves = Vec::with_capacity(terms.len().div_ceil(2));
            let mut left = terms.into_iter();
            while let Some(a) = left.next() {
                match left.next() {
                    Some(b) => {
                        let at = places.next().unwrap_or(a.at);
                        halves.push(Expr::new(at, node(Box::new(a), Box::new(b))));
                    }
                    None => halves.push(a),
                }
            }
            terms = halves;
        }
        match terms.pop() {
            Some(expr) => Ok(expr),
            None => issue(self.at(), "Syntax error: no expression"),
        }
    }

    fn or(&mut self) -> Result<Expr> {
        self.chain("||", Self::and, Node::Or)
    }

    fn and(&mut self) -> Result<Expr> {
        self.chain("&&", Self::relation, Node::And)
    }

    fn operator(&self, table: &[(&str, &'static str)]) -> Option<&'static str> {
        match self.peek() {
            Token::Sign(sign) => table.iter().find(|(s, _)| s == sign).map(|(_, function)| *function),
            _ => None,
        }
    }

    fn left(
        &mut self,
        next: impl Fn(&mut Self) -> Result<Expr>,
        operator: impl Fn(&Self) -> Option<&'static str>,
    ) -> Result<Expr> {
        let mut left = next(self)?;
        let mut links = 0;
        while let Some(function) = operator(self) {
            let at = self.at();
            links += 1;
            if links > MAX_LINKS {
                return issue(at, format!("expression recursion limit exceeded: {MAX_LINKS}"));
            }
            self.next += 1;
            let right = next(self)?;
            left = call(at, function, vec![left, right]);
        }
        Ok(left)
    }

    fn relation(&mut self) -> Result<Expr> {
        self.left(Self::sum, |p| match p.peek() {
            Token::Name(name) if name == "in" => Some("@in"),
            _ => p.operator(RELATIONS),
        })
    }

    fn sum(&mut self) -> Result<Expr> {
        self.left(Self::product, |p| p.operator(SUMS))
    }

    fn product(&mut self) -> Result<Expr> {
        self.left(Self::unary, |p| p.operator(PRODUCTS))
    }

    fn unary(&mut self) -> Result<Expr> {
        let at = self.at();
        if self.eat("!") {
            let operand = self.deeper(Self::unary)?;
            return Ok(call(at, "!_", vec![operand]));
        }
        if self.eat("-") {
            // A number's own sign, so that the smallest int can be written.
            if let Token::Int(n) = *self.peek()
                && let Some(value) = 0_i64.checked_sub_unsigned(n)
            {
                self.next += 1;
                return self.members(Expr::new(at, Node::Literal(Value::Int(value))));
            }
            let operand = self.deeper(Self::unary)?;
            return Ok(call(at, "-_", vec![operand]));
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    fn field(&mut self) -> Result<String> {
        let at = self.at();
        match self.take() {
            Token::Name(name) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => Ok(name),
            Token::Quoted(name) => Ok(super::types::escape(&name).unwrap_or(name)),
            other => issue(at, format!("Syntax error: mismatched input {} expecting IDENTIFIER", shown(&other))),
        }
    }

    fn members(&mut self, mut operand: Expr) -> Result<Expr> {
        let mut links = 0;
        loop {
            let at = self.at();
            links += 1;
            if links > MAX_LINKS {
                return issue(at, format!("expression recursion limit exceeded: {MAX_LINKS}"));
            }
            if self.eat(".") {
                let optional = self.eat("?");
                let field = self.field()?;
                if !optional && self.eat("(") {
                    let args = self.args(")")?;
                    operand = method(at, operand, field, args)?;
                } else {
                    operand = Expr::new(at, Node::Select { operand: Box::new(operand), field, optional });
                }
            } else if self.eat("[") {
                let optional = self.eat("?");
                let index = self.expr()?;
                self.expect("]")?;
                operand = Expr::new(at, Node::Index { operand: Box::new(operand), index: Box::new(index), optional });
            } else if self.is("{")
                && let Some(name) = operand.dotted()
            {
                self.next += 1;
                operand = Expr::new(at, Node::Message(name, self.message()?));
            } else {
                return Ok(operand);
            }
        }
    }

    fn args(&mut self, end: &str) -> Result<Vec<Expr>> {
        let mut args = Vec::new();
        while !self.eat(end) {
            args.push(self.expr()?);
            if !self.is(end) {
                self.expect(",")?;
            }
        }
        Ok(args)
    }

    fn message(&mut self) -> Result<Vec<(bool, String, Expr)>> {
        let mut fields = Vec::new();
        while !self.eat("}") {
            let optional = self.eat("?");
            let name = self.field()?;
            self.expect(":")?;
            fields.push((optional, name, self.expr()?));
            if !self.is("}") {
                self.expect(",")?;
            }
        }
        Ok(fields)
    }

    fn primary(&mut self) -> Result<Expr> {
        let at = self.at();
        let value = |value| Ok(Expr::new(at, Node::Literal(value)));
        match self.take() {
            Token::Int(n) => match i64::try_from(n) {
                Ok(n) => value(Value::Int(n)),
                Err(_) => issue(at, "invalid int literal"),
            },
            Token::Uint(n) => value(Value::Uint(n)),
            Token::Double(n) => value(Value::Double(n)),
            Token::Text(text) => value(Value::text(&text)),
            Token::Bytes(bytes) => value(Value::Bytes(bytes.into())),
            Token::Name(name) => match name.as_str() {
                "true" => value(Value::Bool(true)),
                "false" => value(Value::Bool(false)),
                "null" => value(Value::Null),
                _ if RESERVED.contains(&name.as_str()) => issue(at, format!("reserved identifier: {name}")),
                "in" => issue(at, "Syntax error: mismatched input 'in'"),
                _ if self.eat("(") => {
                    let args = self.args(")")?;
                    function(at, name, args)
                }
                _ => Ok(Expr::new(at, Node::Ident(name))),
            },
            Token::Sign(".") => {
                let name = self.field()?;
                if self.eat("(") {
                    let args = self.args(")")?;
                    return function(at, name, args);
                }
                Ok(Expr::new(at, Node::Ident(name)))
            }
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let mut items = Vec::new();
                while !self.eat("]") {
                    let optional = self.eat("?");
                    items.push((optional, self.expr()?));
                    if !self.is("]") {
                        self.expect(",")?;
                    }
                }
                Ok(Expr::new(at, Node::List(items)))
            }
            Token::Sign("{") => {
                let mut entries = Vec::new();
                while !self.eat("}") {
                    let optional = self.eat("?");
                    let key = self.expr()?;
                    self.expect(":")?;
                    entries.push((optional, key, self.expr()?));
                    if !self.is("}") {
                        self.expect(",")?;
                    }
                }
                Ok(Expr::new(at, Node::Map(entries)))
            }
            other => issue(at, format!("Syntax error: mismatched input {}", shown(&other))),
        }
    }
}

fn call(at: usize, function: &str, args: Vec<Expr>) -> Expr {
    Expr::new(at, Node::Call { function: function.to_owned(), target: None, args })
}

fn function(at: usize, name: String, args: Vec<Expr>) -> Result<Expr> {
    if name == "has" {
        return match <[Expr; 1]>::try_from(args) {
            Ok([Expr { node: Node::Select { operand, field, optional: false }, .. }]) => {
                Ok(Expr::new(at, Node::Has { operand, field }))
            }
            _ => issue(at, "invalid argument to has() macro"),
        };
    }
    Ok(Expr::new(at, Node::Call { function: name, target: None, args }))
}

fn variable(expr: &Expr) -> Result<String> {
    match &expr.node {
        Node::Ident(name) => Ok(name.clone()),
        _ => issue(expr.at, "argument must be a simple name"),
    }
}

/// A method, or the macro of that name.
fn method(at: usize, target: Expr, name: String, args: Vec<Expr>) -> Result<Expr> {
    let is_cel = matches!(&target.node, Node::Ident(name) if name == "cel");
    let count = args.len();
    let plain = |target: Expr, args: Vec<Expr>| {
        // `math.greatest(…)`: a function with a dotted name, not a method of what is called `math`.
        let dotted = target.dotted().map(|prefix| format!("{prefix}.{name}"));
        match dotted.filter(|dotted| super::library::is_function(dotted)) {
            Some(function) => Expr::new(at, Node::Call { function, target: None, args }),
            None => Expr::new(at, Node::Call { function: name.clone(), target: Some(Box::new(target)), args }),
        }
    };
    let step = match (name.as_str(), count) {
        ("bind", 3) if is_cel => {
            let mut args = args.into_iter();
            let (Some(first), Some(value), Some(body)) = (args.next(), args.next(), args.next()) else {
                return issue(at, "cel.bind() takes a name, a value and an expression");
            };
            let name = variable(&first)?;
            return Ok(Expr::new(at, Node::Bind { name, value: Box::new(value), body: Box::new(body) }));
        }
        ("optMap" | "optFlatMap", 2) => {
            let flat = name == "optFlatMap";
            let mut args = args.into_iter();
            let (Some(first), Some(body)) = (args.next(), args.next()) else { return issue(at, "two arguments") };
            let name = variable(&first)?;
            return Ok(Expr::new(at, Node::OptMap { target: Box::new(target), name, body: Box::new(body), flat }));
        }
        ("all", 2 | 3) => Step::All,
        ("exists", 2 | 3) => Step::Exists,
        ("exists_one", 2) | ("existsOne", 2 | 3) => Step::ExistsOne,
        ("map", 2 | 3) | ("transformList", 3 | 4) => Step::ToList,
        ("filter", 2) => Step::Filter,
        ("transformMap", 3 | 4) => Step::ToMap,
        ("transformMapEntry", 3 | 4) => Step::ToMapEntry,
        ("sortBy", 2) => Step::SortBy,
        _ => return Ok(plain(target, args)),
    };
    let two = count == 4 || (count == 3 && !matches!(name.as_str(), "map"));
    let filtered = count == 4 || (count == 3 && name == "map");
    let mut args = args.into_iter();
    let mut next = || args.next().ok_or_else(|| Issue { at, message: "too few arguments".to_owned() });
    let first = variable(&next()?)?;
    let second = if two { Some(variable(&next()?)?) } else { None };
    let filter = if filtered { Some(next()?) } else { None };
    let body = next()?;
    let comprehension = Comprehension { step, range: target, first, second, filter, body };
    Ok(Expr::new(at, Node::Comprehension(Box::new(comprehension))))
}

/// The type that a name stands for as a value: `type(1) == int`.
pub(super) fn type_value(name: &str) -> Option<&'static str> {
    const NAMES: &[&str] = &[
        "bool",
        "int",
        "uint",
        "double",
        "string",
        "bytes",
        "list",
        "map",
        "null_type",
        "type",
        "google.protobuf.Duration",
        "google.protobuf.Timestamp",
        "optional_type",
        "net.IP",
        "net.CIDR",
        "kubernetes.Quantity",
        "kubernetes.URL",
        "kubernetes.Semver",
    ];
    NAMES.iter().find(|known| **known == name).copied()
}

/// The type of a literal.
pub(super) fn literal_type(value: &Value) -> Type {
    match value {
        Value::Null => Type::Null,
        Value::Bool(_) => Type::Bool,
        Value::Int(_) => Type::Int,
        Value::Uint(_) => Type::Uint,
        Value::Double(_) => Type::Double,
        Value::Text(text) => Type::Text(text.chars().count() as u64),
        Value::Bytes(bytes) => Type::Bytes(bytes.len() as u64),
        _ => Type::Dyn,
    }
}
