//! Series selectors with their ranges, offsets, `@` and extensions.

use super::{Parsed, Parser, fault, literal};
use crate::ast::{At, BinaryOp, Duration, Expr, Extension, MatrixSelector, Subquery, VectorSelector};
use crate::lex::{Keyword, TokenKind};
use windrose_proto::metric::labels::METRIC_NAME;
use windrose_proto::metric::matcher::{MatchOp, Matcher};

impl Parser<'_> {
    pub(super) fn vector_selector(&mut self) -> Parsed<VectorSelector> {
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
    pub(super) fn brackets(&mut self, expr: Expr) -> Parsed<Expr> {
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

    pub(super) fn offset(&mut self, expr: &mut Expr) -> Parsed<()> {
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

    pub(super) fn at_modifier(&mut self, expr: &mut Expr) -> Parsed<()> {
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

    pub(super) fn extension(&mut self, expr: &mut Expr, wanted: Extension) -> Parsed<()> {
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
}

/// What follows `@`.
enum AtValue {
    At(At),
    Seconds(f64),
}
