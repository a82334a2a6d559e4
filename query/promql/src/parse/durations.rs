//! Duration expressions: arithmetic inside brackets and after `offset`.

use super::{Parsed, Parser, fault};
use crate::ast::{BinaryOp, Duration, DurationExpr, NumberLiteral, Span};
use crate::duration::from_seconds;
use crate::lex::{Keyword, TokenKind};

const PREFIX_PRECEDENCE: u8 = 6;

impl Parser<'_> {
    /// A range or step: a whole duration expression; what is known must be positive.
    pub(super) fn positive_duration(&mut self, context: &str, expected: &str) -> Parsed<Duration> {
        let expr = self.duration_expr(0, context, expected)?;
        if let DurationExpr::Number(number) = &expr {
            if number.value <= 0.0 {
                return fault(number.span, "duration must be greater than 0");
            }
            return literal_duration(number);
        }
        Ok(Duration::Expr(Box::new(expr)))
    }

    /// An offset: one signed operand, so that `x offset 5m + 2` adds two to the result. Arithmetic needs
    /// parentheses.
    pub(super) fn offset_duration(&mut self) -> Parsed<Duration> {
        let sign = self.peek().clone();
        let negative = self.eat(&TokenKind::Op(BinaryOp::Sub));
        if !negative {
            self.eat(&TokenKind::Op(BinaryOp::Add));
        }
        let operand = self.duration_operand("offset", "number, duration, step(), or range()")?;
        if let DurationExpr::Number(mut number) = operand {
            if negative {
                number.value = -number.value;
                number.span.start = sign.span.start;
            }
            return literal_duration(&number);
        }
        let expr = if negative { DurationExpr::Negate(Box::new(operand)) } else { operand };
        Ok(Duration::Expr(Box::new(expr)))
    }

    fn duration_expr(&mut self, min_precedence: u8, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let height = self.height;
        self.nest()?;
        let mut lhs = self.duration_prefix(context, expected)?;
        while let TokenKind::Op(op) = self.peek().kind {
            if op.precedence() < min_precedence || op.precedence() < BinaryOp::Add.precedence() {
                break;
            }
            self.climb()?;
            let operator = self.advance();
            let next = if op == BinaryOp::Pow { op.precedence() } else { op.precedence() + 1 };
            let rhs = self.duration_expr(next, context, expected)?;
            if is_zero(&rhs) && matches!(op, BinaryOp::Div | BinaryOp::Mod) {
                let message = if op == BinaryOp::Div { "division by zero" } else { "modulo by zero" };
                return fault(operator.span, message);
            }
            lhs = DurationExpr::Binary(op, Box::new(lhs), Box::new(rhs));
        }
        self.height = height;
        self.nesting -= 1;
        Ok(lhs)
    }

    fn duration_prefix(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        let sign = self.peek().clone();
        let negative = match sign.kind {
            TokenKind::Op(BinaryOp::Sub) => true,
            TokenKind::Op(BinaryOp::Add) => false,
            _ => return self.duration_operand(context, expected),
        };
        self.advance();
        let operand = self.duration_expr(PREFIX_PRECEDENCE, context, expected)?;
        Ok(match operand {
            DurationExpr::Number(mut number) => {
                if negative {
                    number.value = -number.value;
                }
                number.span = Span { start: sign.span.start, end: number.span.end };
                DurationExpr::Number(number)
            }
            operand if negative => DurationExpr::Negate(Box::new(operand)),
            operand => operand,
        })
    }

    fn duration_operand(&mut self, context: &str, expected: &str) -> Parsed<DurationExpr> {
        match self.peek().kind {
            TokenKind::Number | TokenKind::Duration => self.number_or_duration().map(DurationExpr::Number),
            TokenKind::LeftParen => {
                self.advance();
                let inner = self.duration_expr(0, context, expected)?;
                self.expect(&TokenKind::RightParen, context, "\")\"")?;
                // Parentheses around a literal change nothing; the literal stays checkable when parsed.
                Ok(match inner {
                    DurationExpr::Number(number) => DurationExpr::Number(number),
                    inner => DurationExpr::Paren(Box::new(inner)),
                })
            }
            TokenKind::Keyword(keyword @ (Keyword::Step | Keyword::Range)) => {
                self.advance();
                self.expect(&TokenKind::LeftParen, context, "\"(\"")?;
                self.expect(&TokenKind::RightParen, context, "\")\"")?;
                Ok(if keyword == Keyword::Step { DurationExpr::Step } else { DurationExpr::Range })
            }
            TokenKind::Keyword(keyword @ (Keyword::MinOf | Keyword::MaxOf)) => {
                self.advance();
                self.expect(&TokenKind::LeftParen, context, "\"(\"")?;
                let first = Box::new(self.duration_expr(0, context, expected)?);
                self.expect(&TokenKind::Comma, context, "\",\"")?;
                let second = Box::new(self.duration_expr(0, context, expected)?);
                self.expect(&TokenKind::RightParen, context, "\")\"")?;
                Ok(if keyword == Keyword::MinOf {
                    DurationExpr::Min(first, second)
                } else {
                    DurationExpr::Max(first, second)
                })
            }
            _ => self.unexpected(context, expected),
        }
    }
}

fn is_zero(expr: &DurationExpr) -> bool {
    matches!(expr, DurationExpr::Number(number) if number.value == 0.0)
}

fn literal_duration(number: &NumberLiteral) -> Parsed<Duration> {
    match from_seconds(number.value) {
        Some(millis) => Ok(Duration::Millis(millis)),
        None => fault(number.span, "duration out of range"),
    }
}
