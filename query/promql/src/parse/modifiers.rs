//! What may stand between a binary operator and its right side.

use super::{Parsed, Parser};
use crate::ast::{BinaryOp, Cardinality, Matching};
use crate::lex::{Keyword, TokenKind};

impl Parser<'_> {
    pub(super) fn binary_modifiers(&mut self) -> Parsed<(bool, Matching)> {
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
}
