//! Tokens to a typed tree: a precedence climber whose error texts and positions are those of Prometheus' grammar.
//!
//! Only the first error is kept, as Prometheus shows only the first.

mod check;
mod durations;
mod literal;
mod modifiers;
mod selectors;
#[cfg(test)]
mod tests;

use crate::ast::{Aggregate, AggregateOp, Binary, BinaryOp, Call, Expr, Extension, NumberLiteral, Paren, Span, Unary};
use crate::function;
use crate::lex::{Keyword, Token, TokenKind, lex};
use windrose_proto::metric::labels::is_legacy_label_name;
use windrose_proto::metric::matcher::Matcher;
use windrose_proto::metric::quote::quote;

/// Expressions nested deeper than this are refused: parser and evaluator recurse, and must do with a stack of 2 MiB.
const MAX_NESTING: usize = 150;

/// Trees higher than this are refused. Each operator of a chain like `a + b + c` is a level too, because the tree
/// leans to the left; only the evaluator recurses over those.
const MAX_HEIGHT: usize = 300;

/// A query longer than this is refused before any work is done on it.
const MAX_QUERY_BYTES: usize = 1 << 20;

/// Which parts of the language behind a flag are accepted.
#[derive(Clone, Copy, Debug)]
pub struct ParseOptions {
    /// Functions and aggregations marked experimental.
    pub experimental_functions: bool,
    /// `anchored` and `smoothed`.
    pub extended_range_selectors: bool,
    /// `fill`, `fill_left`, `fill_right`.
    pub fill_modifiers: bool,
}

impl ParseOptions {
    /// Everything the language has.
    pub const ALL: Self = Self { experimental_functions: true, extended_range_selectors: true, fill_modifiers: true };
}

impl Default for ParseOptions {
    /// What Prometheus accepts without flags.
    fn default() -> Self {
        Self { experimental_functions: false, extended_range_selectors: false, fill_modifiers: false }
    }
}

/// A query that is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: parse error: {message}")]
pub struct ParseError {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// A fault with its place, before lines are counted.
#[derive(Debug)]
struct Fault {
    start: usize,
    message: String,
}

type Parsed<T> = Result<T, Fault>;

fn fault<T>(span: Span, message: impl Into<String>) -> Parsed<T> {
    Err(Fault { start: span.start, message: message.into() })
}

/// Parses and type-checks a query.
pub fn parse_expr(input: &str, options: ParseOptions) -> Result<Expr, ParseError> {
    parse_with(input, options, |parser| {
        if parser.peek().kind == TokenKind::Eof {
            return fault(Span::default(), "no expression found in input");
        }
        let mut expr = parser.expression(0)?;
        parser.expect_end()?;
        check::check(&mut expr, input)?;
        Ok(expr)
    })
}

/// Parses a series selector without range or modifiers, as in `match[]`.
pub fn parse_selector(input: &str) -> Result<Vec<Matcher>, ParseError> {
    parse_with(input, ParseOptions::default(), |parser| {
        let selector = parser.vector_selector()?;
        parser.expect_end()?;
        Ok(selector.matchers)
    })
}

fn parse_with<T>(
    input: &str,
    options: ParseOptions,
    body: impl FnOnce(&mut Parser<'_>) -> Parsed<T>,
) -> Result<T, ParseError> {
    if input.len() > MAX_QUERY_BYTES {
        return Err(ParseError { line: 1, column: 1, message: "query is too long".to_owned() });
    }
    let mut parser = Parser { input, options, tokens: lex(input), index: 0, nesting: 0, height: 0 };
    body(&mut parser).map_err(|fault| {
        let (line, column) = line_column(input, fault.start);
        ParseError { line, column, message: fault.message }
    })
}

/// The line and column, both from 1, of a byte of the query.
pub fn line_column(input: &str, offset: usize) -> (usize, usize) {
    let before = &input.as_bytes()[..offset.min(input.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (before.iter().filter(|byte| **byte == b'\n').count() + 1, before.len() - line_start + 1)
}

struct Parser<'a> {
    input: &'a str,
    options: ParseOptions,
    tokens: Vec<Token>,
    index: usize,
    nesting: usize,
    height: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &Token {
        // The lexer always ends with Eof or Error, and `advance` never passes it.
        &self.tokens[self.index]
    }

    fn peek_second(&self) -> &TokenKind {
        &self.tokens[(self.index + 1).min(self.tokens.len() - 1)].kind
    }

    fn advance(&mut self) -> Token {
        let token = self.tokens[self.index].clone();
        if self.index + 1 < self.tokens.len() {
            self.index += 1;
        }
        token
    }

    fn text(&self, span: Span) -> &'a str {
        &self.input[span.start..span.end]
    }

    /// The end of the last consumed token.
    fn last_end(&self) -> usize {
        self.index.checked_sub(1).map_or(0, |index| self.tokens[index].span.end)
    }

    fn at(&self, kind: &TokenKind) -> bool {
        self.peek().kind == *kind
    }

    fn eat(&mut self, kind: &TokenKind) -> bool {
        let found = self.at(kind);
        if found {
            self.advance();
        }
        found
    }

    /// The error for the next token; a lexer error speaks for itself.
    fn unexpected<T>(&self, context: &str, expected: &str) -> Parsed<T> {
        let token = self.peek();
        if let TokenKind::Error(message) = &token.kind {
            return fault(token.span, message.clone());
        }
        let mut message = format!("unexpected {}", token.describe(self.input));
        if !context.is_empty() {
            message.push_str(" in ");
            message.push_str(context);
        }
        if !expected.is_empty() {
            message.push_str(", expected ");
            message.push_str(expected);
        }
        fault(token.span, message)
    }

    fn expect(&mut self, kind: &TokenKind, context: &str, expected: &str) -> Parsed<Token> {
        if self.at(kind) { Ok(self.advance()) } else { self.unexpected(context, expected) }
    }

    fn expect_end(&self) -> Parsed<()> {
        if self.at(&TokenKind::Eof) { Ok(()) } else { self.unexpected("", "") }
    }

    // Expressions.

    /// Parses operators that bind at least as tightly as `min_precedence`.
    fn expression(&mut self, min_precedence: u8) -> Parsed<Expr> {
        let height = self.height;
        self.nest()?;
        let mut lhs = self.prefix()?;
        while let TokenKind::Op(op) = self.peek().kind {
            if op.precedence() < min_precedence {
                break;
            }
            self.climb()?;
            self.advance();
            let (return_bool, matching) = self.binary_modifiers()?;
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let rhs = self.expression(next)?;
            if !self.options.fill_modifiers && (matching.fill_left.is_some() || matching.fill_right.is_some()) {
                return fault(lhs.span(), "binop fill modifiers are experimental and not enabled");
            }
            lhs = Expr::Binary(Box::new(Binary { op, lhs, rhs, matching: Some(matching), return_bool }));
        }
        self.height = height;
        self.nesting -= 1;
        Ok(lhs)
    }

    /// Enters a nested expression.
    fn nest(&mut self) -> Parsed<()> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return fault(self.peek().span, "expression is nested too deeply");
        }
        self.climb()
    }

    /// Makes the tree one level higher.
    fn climb(&mut self) -> Parsed<()> {
        self.height += 1;
        if self.height > MAX_HEIGHT {
            return fault(self.peek().span, "expression has too many operators in a row");
        }
        Ok(())
    }

    /// A sign binds like multiplication: `-a^b` is `-(a^b)`.
    fn prefix(&mut self) -> Parsed<Expr> {
        let token = self.peek().clone();
        let negate = match token.kind {
            TokenKind::Op(BinaryOp::Sub) => true,
            TokenKind::Op(BinaryOp::Add) => false,
            _ => {
                let primary = self.primary()?;
                return self.postfix(primary);
            }
        };
        self.advance();
        let expr = self.expression(BinaryOp::Pow.precedence())?;
        let span = token.span.to(expr.span());
        Ok(match expr {
            Expr::Number(mut number) => {
                if negate {
                    number.value = -number.value;
                }
                number.span = span;
                Expr::Number(number)
            }
            expr => Expr::Unary(Box::new(Unary { negate, expr, span })),
        })
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let token = self.peek().clone();
        match &token.kind {
            TokenKind::Number | TokenKind::Duration => Ok(Expr::Number(self.number_or_duration()?)),
            TokenKind::String => {
                self.advance();
                literal::unquote(self.text(token.span), token.span).map(Expr::String)
            }
            TokenKind::LeftParen => {
                self.advance();
                let expr = self.expression(0)?;
                let close = self.expect(&TokenKind::RightParen, "", "")?;
                Ok(Expr::Paren(Box::new(Paren { expr, span: token.span.to(close.span) })))
            }
            TokenKind::Aggregate(op) if self.starts_aggregate() => self.aggregate(*op),
            TokenKind::Identifier | TokenKind::Keyword(_) if *self.peek_second() == TokenKind::LeftParen => {
                if self.names_metric(&token) || matches!(token.kind, TokenKind::Identifier) || is_callable(&token.kind)
                {
                    self.call()
                } else {
                    self.unexpected("", "")
                }
            }
            TokenKind::LeftBrace => self.vector_selector().map(Expr::Vector),
            _ if self.names_metric(&token) => self.vector_selector().map(Expr::Vector),
            _ => self.unexpected("", ""),
        }
    }

    /// An aggregation operator is a metric name unless arguments or grouping follow.
    fn starts_aggregate(&self) -> bool {
        matches!(
            self.peek_second(),
            TokenKind::LeftParen | TokenKind::Keyword(Keyword::By) | TokenKind::Keyword(Keyword::Without)
        )
    }

    /// Whether the token can be a metric name.
    fn names_metric(&self, token: &Token) -> bool {
        match &token.kind {
            TokenKind::Identifier | TokenKind::MetricIdentifier | TokenKind::Aggregate(_) => true,
            TokenKind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) => true,
            TokenKind::Keyword(keyword) => !matches!(
                keyword,
                Keyword::Bool | Keyword::On | Keyword::Ignoring | Keyword::GroupLeft | Keyword::GroupRight
            ),
            _ => false,
        }
    }

    fn postfix(&mut self, mut expr: Expr) -> Parsed<Expr> {
        loop {
            match self.peek().kind {
                TokenKind::LeftBracket => expr = self.brackets(expr)?,
                TokenKind::Keyword(Keyword::Offset) => self.offset(&mut expr)?,
                TokenKind::At => self.at_modifier(&mut expr)?,
                TokenKind::Keyword(Keyword::Anchored) => self.extension(&mut expr, Extension::Anchored)?,
                TokenKind::Keyword(Keyword::Smoothed) => self.extension(&mut expr, Extension::Smoothed)?,
                _ => return Ok(expr),
            }
        }
    }

    // Calls and aggregations.

    fn call(&mut self) -> Parsed<Expr> {
        let name = self.advance();
        let text = self.text(name.span);
        let args = self.arguments()?;
        let Some(function) = function::find(text) else {
            return fault(name.span, format!("unknown function with name {}", quote(text)));
        };
        if function.experimental && !self.options.experimental_functions {
            return fault(name.span, format!("function {} is not enabled", quote(text)));
        }
        let span = Span { start: name.span.start, end: self.last_end() };
        Ok(Expr::Call(Call { function, args, span }))
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect(&TokenKind::LeftParen, "", "")?;
        let mut args = Vec::new();
        if self.eat(&TokenKind::RightParen) {
            return Ok(args);
        }
        loop {
            args.push(self.expression(0)?);
            let separator = self.peek().clone();
            if self.eat(&TokenKind::Comma) {
                if self.at(&TokenKind::RightParen) {
                    return fault(separator.span, "trailing commas not allowed in function call args");
                }
                continue;
            }
            self.expect(&TokenKind::RightParen, "", "")?;
            return Ok(args);
        }
    }

    fn aggregate(&mut self, op: AggregateOp) -> Parsed<Expr> {
        let start = self.advance().span;
        let mut modifier = self.grouping_modifier()?;
        if !self.at(&TokenKind::LeftParen) {
            return self.unexpected("aggregation", "");
        }
        let mut args = self.arguments()?;
        if modifier.is_none() {
            modifier = self.grouping_modifier()?;
        }
        let (without, grouping) = modifier.unwrap_or_default();
        let span = Span { start: start.start, end: self.last_end() };
        if args.is_empty() {
            return fault(span, "no arguments for aggregate expression provided");
        }
        if op.is_experimental() && !self.options.experimental_functions {
            return fault(
                span,
                format!(
                    "{}() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
                    op.as_str()
                ),
            );
        }
        let wanted = if op.has_param() { 2 } else { 1 };
        if args.len() != wanted {
            let got = args.len();
            return fault(
                span,
                format!("wrong number of arguments for aggregate expression provided, expected {wanted}, got {got}"),
            );
        }
        let expr = args.remove(wanted - 1);
        Ok(Expr::Aggregate(Box::new(Aggregate { op, expr, param: args.pop(), grouping, without, span })))
    }

    /// `by (...)` or `without (...)`; the flag is true for `without`.
    fn grouping_modifier(&mut self) -> Parsed<Option<(bool, Vec<String>)>> {
        let without = match self.peek().kind {
            TokenKind::Keyword(Keyword::By) => false,
            TokenKind::Keyword(Keyword::Without) => true,
            _ => return Ok(None),
        };
        self.advance();
        Ok(Some((without, self.grouping_labels()?)))
    }

    fn grouping_labels(&mut self) -> Parsed<Vec<String>> {
        const CONTEXT: &str = "grouping opts";
        self.expect(&TokenKind::LeftParen, CONTEXT, "\"(\"")?;
        let mut labels = Vec::new();
        loop {
            if self.eat(&TokenKind::RightParen) {
                return Ok(labels);
            }
            let token = self.peek().clone();
            let label = match &token.kind {
                TokenKind::String => literal::unquote(self.text(token.span), token.span)?.value,
                TokenKind::Identifier
                | TokenKind::Keyword(_)
                | TokenKind::Aggregate(_)
                | TokenKind::Op(BinaryOp::And | BinaryOp::Or | BinaryOp::Unless | BinaryOp::Atan2)
                    if is_legacy_label_name(self.text(token.span)) =>
                {
                    self.text(token.span).to_owned()
                }
                _ => return self.unexpected(CONTEXT, "label"),
            };
            self.advance();
            labels.push(label);
            if !self.eat(&TokenKind::Comma) && !self.at(&TokenKind::RightParen) {
                return self.unexpected(CONTEXT, "\",\" or \")\"");
            }
        }
    }

    // Literals.

    fn number_or_duration(&mut self) -> Parsed<NumberLiteral> {
        let token = self.advance();
        let text = self.text(token.span);
        if token.kind == TokenKind::Duration {
            let millis = match crate::duration::parse(text) {
                Ok(millis) => millis,
                Err(message) => return fault(token.span, message),
            };
            return Ok(NumberLiteral { value: millis as f64 / 1000.0, is_duration: true, span: token.span });
        }
        let Some(value) = crate::number::parse_literal(text) else {
            let message = format!("error parsing number: strconv.ParseFloat: parsing {}: invalid syntax", quote(text));
            return fault(token.span, message);
        };
        Ok(NumberLiteral { value, is_duration: false, span: token.span })
    }
}

/// Keywords that are also function names.
fn is_callable(kind: &TokenKind) -> bool {
    matches!(
        kind,
        TokenKind::Keyword(
            Keyword::Start | Keyword::End | Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf
        )
    )
}
