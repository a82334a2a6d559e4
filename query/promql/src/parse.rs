//! Tokens to a typed tree: a precedence climber whose error texts and positions are those of Prometheus' grammar.
//!
//! Only the first error is kept, as Prometheus shows only the first.

mod check;
mod durations;
mod literal;
#[cfg(test)]
mod tests;

use crate::ast::{
    Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Cardinality, Duration, Expr, Extension, Matching,
    MatrixSelector, NumberLiteral, Paren, Span, Subquery, Unary, VectorSelector,
};
use crate::function;
use crate::labels::{METRIC_NAME, is_legacy_label_name};
use crate::lex::{Keyword, Token, TokenKind, lex};
use crate::matcher::{MatchOp, Matcher};
use crate::number::quote;

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

    // Selectors.

    fn vector_selector(&mut self) -> Parsed<VectorSelector> {
        let first = self.peek().clone();
        let mut selector = VectorSelector {
            name: String::new(),
            matchers: Vec::new(),
            offset: Duration::ZERO,
            at: None,
            extension: Extension::None,
            allow_empty: false,
            span: first.span,
        };
        if self.names_metric(&first) {
            self.advance();
            selector.name = self.text(first.span).to_owned();
        } else if first.kind != TokenKind::LeftBrace {
            return self.unexpected("", "");
        }
        if self.at(&TokenKind::LeftBrace) {
            selector.matchers = self.label_matchers()?;
            selector.span.end = self.last_end();
        }
        if !selector.name.is_empty() {
            selector.matchers.push(Matcher::equal(METRIC_NAME, selector.name.clone()));
        }
        Ok(selector)
    }

    fn label_matchers(&mut self) -> Parsed<Vec<Matcher>> {
        self.advance();
        let mut matchers = Vec::new();
        loop {
            if self.eat(&TokenKind::RightBrace) {
                return Ok(matchers);
            }
            matchers.push(self.label_matcher()?);
            if self.eat(&TokenKind::Comma) {
                continue;
            }
            self.expect(&TokenKind::RightBrace, "label matching", "\",\" or \"}\"")?;
            return Ok(matchers);
        }
    }

    fn label_matcher(&mut self) -> Parsed<Matcher> {
        const CONTEXT: &str = "label matching";
        let name = self.peek().clone();
        let name_text = match name.kind {
            TokenKind::Identifier => self.text(name.span).to_owned(),
            TokenKind::String => literal::unquote(self.text(name.span), name.span)?.value,
            _ => return self.unexpected(CONTEXT, "identifier or \"}\""),
        };
        self.advance();
        let op = match self.peek().kind {
            TokenKind::Equal => MatchOp::Equal,
            TokenKind::Op(BinaryOp::Ne) => MatchOp::NotEqual,
            TokenKind::EqualRegex => MatchOp::Regex,
            TokenKind::NotRegex => MatchOp::NotRegex,
            TokenKind::Comma | TokenKind::RightBrace if name.kind == TokenKind::String => {
                return Ok(Matcher::equal(METRIC_NAME, name_text));
            }
            _ => return self.unexpected(CONTEXT, "label matching operator"),
        };
        self.advance();
        let value = self.expect(&TokenKind::String, CONTEXT, "string")?;
        let value_text = literal::unquote(self.text(value.span), value.span)?.value;
        Matcher::new(op, name_text, value_text).or_else(|error| fault(name.span, error))
    }

    /// `[5m]` or `[5m:1m]`.
    fn brackets(&mut self, expr: Expr) -> Parsed<Expr> {
        let open = self.advance();
        let range = self.positive_duration("subquery or range selector", "number, duration, step(), or range()")?;
        if self.eat(&TokenKind::Colon) {
            let step = if self.at(&TokenKind::RightBracket) {
                Duration::ZERO
            } else {
                self.positive_duration("subquery selector", "number, duration, step(), range(), or \"]\"")?
            };
            let close = self.expect(&TokenKind::RightBracket, "subquery selector", "\"]\"")?;
            let span = expr.span().to(close.span);
            return Ok(Expr::Subquery(Box::new(Subquery {
                expr,
                range,
                step,
                offset: Duration::ZERO,
                at: None,
                span,
            })));
        }
        let close = self.expect(&TokenKind::RightBracket, "subquery or range", "\":\" or \"]\"")?;
        let span = expr.span().to(close.span);
        match expr {
            Expr::Vector(vector) => {
                if vector.offset.is_set() {
                    return fault(open.span, "no offset modifiers allowed before range");
                }
                if vector.at.is_some() {
                    return fault(open.span, "no @ modifiers allowed before range");
                }
                Ok(Expr::Matrix(MatrixSelector { vector, range, span }))
            }
            _ => fault(open.span, "ranges only allowed for vector selectors"),
        }
    }

    fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.advance();
        let value = self.offset_duration()?;
        let end = self.last_end();
        let whole = expr.span();
        let (offset, span) = match expr {
            Expr::Vector(node) => (&mut node.offset, &mut node.span),
            Expr::Matrix(node) => (&mut node.vector.offset, &mut node.span),
            Expr::Subquery(node) => (&mut node.offset, &mut node.span),
            _ => {
                return fault(
                    whole,
                    "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                );
            }
        };
        if offset.is_set() {
            return fault(whole, "offset may not be set multiple times");
        }
        *offset = value;
        span.end = end;
        Ok(())
    }

    fn at_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
        self.advance();
        let value = self.at_value()?;
        let end = self.last_end();
        let whole = expr.span();
        let (at, span) = match expr {
            Expr::Vector(node) => (&mut node.at, &mut node.span),
            Expr::Matrix(node) => (&mut node.vector.at, &mut node.span),
            Expr::Subquery(node) => (&mut node.at, &mut node.span),
            _ => {
                return fault(
                    whole,
                    "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
                );
            }
        };
        let value = match value {
            AtValue::At(value) => value,
            AtValue::Seconds(seconds) => {
                let millis = (seconds * 1000.0).round();
                // i64::MAX as a float is one past the largest timestamp.
                if !millis.is_finite() || millis.abs() >= i64::MAX as f64 {
                    let shown = if seconds.is_finite() {
                        format!("{seconds:.6}")
                    } else {
                        crate::number::format_fixed(seconds)
                    };
                    return fault(whole, format!("timestamp out of bounds for @ modifier: {shown}"));
                }
                At::Timestamp(millis as i64)
            }
        };
        if at.is_some() {
            return fault(whole, "@ <timestamp> may not be set multiple times");
        }
        *at = Some(value);
        span.end = end;
        Ok(())
    }

    fn at_value(&mut self) -> Parsed<AtValue> {
        let keyword = match self.peek().kind {
            TokenKind::Keyword(Keyword::Start) => Some(At::Start),
            TokenKind::Keyword(Keyword::End) => Some(At::End),
            _ => None,
        };
        if let Some(at) = keyword {
            self.advance();
            self.expect(&TokenKind::LeftParen, "@", "timestamp")?;
            self.expect(&TokenKind::RightParen, "@", "timestamp")?;
            return Ok(AtValue::At(at));
        }
        let sign = if self.eat(&TokenKind::Op(BinaryOp::Sub)) {
            -1.0
        } else {
            self.eat(&TokenKind::Op(BinaryOp::Add));
            1.0
        };
        if !matches!(self.peek().kind, TokenKind::Number | TokenKind::Duration) {
            return self.unexpected("@", "timestamp");
        }
        Ok(AtValue::Seconds(sign * self.number_or_duration()?.value))
    }

    fn extension(&mut self, expr: &mut Expr, wanted: Extension) -> Parsed<()> {
        let name = if wanted == Extension::Anchored { "anchored" } else { "smoothed" };
        self.advance();
        let whole = expr.span();
        if !self.options.extended_range_selectors {
            return fault(whole, format!("{name} modifier is experimental and not enabled"));
        }
        let extension = match expr {
            Expr::Vector(node) => &mut node.extension,
            Expr::Matrix(node) => &mut node.vector.extension,
            Expr::Subquery(_) => return fault(whole, format!("{name} modifier is not supported for subqueries")),
            _ => return fault(whole, format!("{name} modifier not implemented")),
        };
        if *extension != Extension::None && *extension != wanted {
            return fault(whole, "anchored and smoothed modifiers cannot be used together");
        }
        *extension = wanted;
        Ok(())
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

    // Modifiers of binary operators.

    fn binary_modifiers(&mut self) -> Parsed<(bool, Matching)> {
        let return_bool = self.eat(&TokenKind::Keyword(Keyword::Bool));
        let mut matching = Matching {
            cardinality: Cardinality::OneToOne,
            labels: Vec::new(),
            on: false,
            include: Vec::new(),
            fill_left: None,
            fill_right: None,
        };
        if let TokenKind::Keyword(keyword @ (Keyword::On | Keyword::Ignoring)) = self.peek().kind {
            self.advance();
            matching.on = keyword == Keyword::On;
            matching.labels = self.grouping_labels()?;
            if let TokenKind::Keyword(group @ (Keyword::GroupLeft | Keyword::GroupRight)) = self.peek().kind {
                self.advance();
                matching.cardinality =
                    if group == Keyword::GroupLeft { Cardinality::ManyToOne } else { Cardinality::OneToMany };
                if self.at(&TokenKind::LeftParen) {
                    matching.include = self.grouping_labels()?;
                }
            }
        }
        self.fill_modifiers(&mut matching)?;
        Ok((return_bool, matching))
    }

    fn fill_modifiers(&mut self, matching: &mut Matching) -> Parsed<()> {
        while let TokenKind::Keyword(keyword @ (Keyword::Fill | Keyword::FillLeft | Keyword::FillRight)) =
            self.peek().kind
        {
            // Without parentheses it is a metric of that name.
            if *self.peek_second() != TokenKind::LeftParen {
                return Ok(());
            }
            self.advance();
            self.advance();
            let negative = self.eat(&TokenKind::Op(BinaryOp::Sub));
            if !negative {
                self.eat(&TokenKind::Op(BinaryOp::Add));
            }
            if !matches!(self.peek().kind, TokenKind::Number | TokenKind::Duration) {
                return self.unexpected("fill modifier", "number");
            }
            let number = self.number_or_duration()?.value;
            let value = Some(if negative { -number } else { number });
            self.expect(&TokenKind::RightParen, "fill modifier", "\")\"")?;
            if keyword != Keyword::FillRight {
                matching.fill_left = value;
            }
            if keyword != Keyword::FillLeft {
                matching.fill_right = value;
            }
        }
        Ok(())
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

enum AtValue {
    At(At),
    Seconds(f64),
}
