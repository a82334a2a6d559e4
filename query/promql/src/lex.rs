//! Text to tokens. The first fault ends the stream with an [`TokenKind::Error`] token holding Prometheus' words; the
//! parser reports it only when it gets there, so that an earlier syntax error wins.

use crate::ast::{AggregateOp, BinaryOp, Span};
use windrose_proto::metric::quote::{quote, quote_char};

/// Keywords that modify operators and selectors. Outside their place all of them are ordinary identifiers, except
/// the first four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keyword {
    Bool,
    On,
    Ignoring,
    GroupLeft,
    GroupRight,
    By,
    Without,
    Offset,
    Anchored,
    Smoothed,
    Fill,
    FillLeft,
    FillRight,
    Start,
    End,
    Step,
    Range,
    MinOf,
    MaxOf,
}

const KEYWORDS: [(&str, Keyword); 19] = [
    ("bool", Keyword::Bool),
    ("on", Keyword::On),
    ("ignoring", Keyword::Ignoring),
    ("group_left", Keyword::GroupLeft),
    ("group_right", Keyword::GroupRight),
    ("by", Keyword::By),
    ("without", Keyword::Without),
    ("offset", Keyword::Offset),
    ("anchored", Keyword::Anchored),
    ("smoothed", Keyword::Smoothed),
    ("fill", Keyword::Fill),
    ("fill_left", Keyword::FillLeft),
    ("fill_right", Keyword::FillRight),
    ("start", Keyword::Start),
    ("end", Keyword::End),
    ("step", Keyword::Step),
    ("range", Keyword::Range),
    ("min_of", Keyword::MinOf),
    ("max_of", Keyword::MaxOf),
];

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum TokenKind {
    Eof,
    Error(String),
    Identifier,
    MetricIdentifier,
    Keyword(Keyword),
    Aggregate(AggregateOp),
    Op(BinaryOp),
    Number,
    Duration,
    String,
    LeftParen,
    RightParen,
    LeftBrace,
    RightBrace,
    LeftBracket,
    RightBracket,
    Comma,
    Colon,
    Equal,
    EqualRegex,
    NotRegex,
    At,
}

/// A token and the bytes it covers.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

impl Token {
    /// How an error message names the token.
    pub(crate) fn describe(&self, input: &str) -> String {
        let text = &input[self.span.start..self.span.end];
        match &self.kind {
            TokenKind::Eof => "end of input".to_owned(),
            TokenKind::Error(message) => message.clone(),
            TokenKind::Identifier => format!("identifier {}", quote(text)),
            TokenKind::MetricIdentifier => format!("metric identifier {}", quote(text)),
            TokenKind::Keyword(_) => format!("<{text}>"),
            TokenKind::Aggregate(_) => format!("<aggr:{text}>"),
            TokenKind::Op(_) | TokenKind::EqualRegex | TokenKind::NotRegex | TokenKind::At => format!("<op:{text}>"),
            TokenKind::Number => format!("number {}", shortened(text)),
            TokenKind::Duration => format!("duration {}", shortened(text)),
            TokenKind::String => format!("string {}", shortened(text)),
            _ => quote(text),
        }
    }
}

/// Go's `%.10q...` for long texts.
fn shortened(text: &str) -> String {
    if text.len() <= 10 {
        return quote(text);
    }
    let head: String = text.chars().take(10).collect();
    format!("{}...", quote(&head))
}

/// Splits a query into tokens; the last one is `Eof` or `Error`.
pub(crate) fn lex(input: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        input,
        pos: 0,
        start: 0,
        paren_depth: 0,
        brace_open: false,
        bracket_open: false,
        got_duration: false,
        got_colon: false,
        tokens: Vec::new(),
    };
    if let Err(message) = lexer.run() {
        let start = lexer.start;
        lexer.tokens.push(Token { kind: TokenKind::Error(message), span: Span { start, end: input.len() } });
    }
    lexer.tokens
}

struct Lexer<'a> {
    input: &'a str,
    pos: usize,
    start: usize,
    paren_depth: usize,
    brace_open: bool,
    bracket_open: bool,
    got_duration: bool,
    got_colon: bool,
    tokens: Vec<Token>,
}

type Step = Result<(), String>;

impl Lexer<'_> {
    fn run(&mut self) -> Step {
        loop {
            self.skip_blank();
            self.start = self.pos;
            if self.brace_open {
                self.inside_braces()?;
            } else if self.bracket_open {
                self.inside_brackets()?;
            } else if !self.statement()? {
                return Ok(());
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.input[self.pos..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.pos += character.len_utf8();
        Some(character)
    }

    fn accept(&mut self, set: &str) -> bool {
        if self.peek().is_some_and(|character| set.contains(character)) {
            self.next();
            return true;
        }
        false
    }

    fn emit(&mut self, kind: TokenKind) {
        self.tokens.push(Token { kind, span: Span { start: self.start, end: self.pos } });
    }

    fn skip_blank(&mut self) {
        loop {
            while self.peek().is_some_and(is_space) {
                self.next();
            }
            if !self.input[self.pos..].starts_with('#') {
                return;
            }
            while self.peek().is_some_and(|character| character != '\n' && character != '\r') {
                self.next();
            }
        }
    }

    /// One token outside braces and brackets; false at the end of the input.
    fn statement(&mut self) -> Result<bool, String> {
        let Some(character) = self.next() else {
            if self.paren_depth != 0 {
                return Err("unclosed left parenthesis".to_owned());
            }
            self.emit(TokenKind::Eof);
            return Ok(false);
        };
        match character {
            ',' => self.emit(TokenKind::Comma),
            '*' => self.emit(TokenKind::Op(BinaryOp::Mul)),
            '/' => self.emit(TokenKind::Op(BinaryOp::Div)),
            '%' => self.emit(TokenKind::Op(BinaryOp::Mod)),
            '+' => self.emit(TokenKind::Op(BinaryOp::Add)),
            '-' => self.emit(TokenKind::Op(BinaryOp::Sub)),
            '^' => self.emit(TokenKind::Op(BinaryOp::Pow)),
            '@' => self.emit(TokenKind::At),
            '=' => match self.peek() {
                Some('=') => {
                    self.next();
                    self.emit(TokenKind::Op(BinaryOp::Eq));
                }
                Some('~') => return Err("unexpected character after '=': '~'".to_owned()),
                _ => self.emit(TokenKind::Equal),
            },
            '!' => match self.next() {
                Some('=') => self.emit(TokenKind::Op(BinaryOp::Ne)),
                other => return Err(format!("unexpected character after '!': {}", quote_next(other))),
            },
            '<' if self.accept("=") => self.emit(TokenKind::Op(BinaryOp::Le)),
            '<' if self.accept("/") => self.emit(TokenKind::Op(BinaryOp::TrimUpper)),
            '<' => self.emit(TokenKind::Op(BinaryOp::Lt)),
            '>' if self.accept("=") => self.emit(TokenKind::Op(BinaryOp::Ge)),
            '>' if self.accept("/") => self.emit(TokenKind::Op(BinaryOp::TrimLower)),
            '>' => self.emit(TokenKind::Op(BinaryOp::Gt)),
            '0'..='9' => self.number_or_duration(character)?,
            '.' if self.peek().is_some_and(|next| next.is_ascii_digit()) => self.number_or_duration(character)?,
            '"' | '\'' => self.string(character)?,
            '`' => self.raw_string()?,
            '(' => self.open_paren(),
            ')' => self.close_paren()?,
            '{' => {
                self.emit(TokenKind::LeftBrace);
                self.brace_open = true;
            }
            '[' => {
                self.emit(TokenKind::LeftBracket);
                self.bracket_open = true;
                self.got_duration = false;
                self.got_colon = false;
            }
            ']' => return Err("unexpected right bracket ']'".to_owned()),
            ':' => self.word(),
            other if is_alpha(other) => self.word(),
            other => return Err(format!("unexpected character: {}", quote_char(other))),
        }
        Ok(true)
    }

    fn open_paren(&mut self) {
        self.emit(TokenKind::LeftParen);
        self.paren_depth += 1;
    }

    fn close_paren(&mut self) -> Step {
        self.emit(TokenKind::RightParen);
        let Some(depth) = self.paren_depth.checked_sub(1) else {
            return Err("unexpected right parenthesis ')'".to_owned());
        };
        self.paren_depth = depth;
        Ok(())
    }

    /// One token of a range: numbers, durations, operators, `step()` and the like.
    fn inside_brackets(&mut self) -> Step {
        let Some(character) = self.next() else {
            return Err("unexpected end of input in duration expression".to_owned());
        };
        match character {
            ']' => {
                self.emit(TokenKind::RightBracket);
                self.bracket_open = false;
            }
            ':' => {
                if !self.got_duration {
                    return Err("unexpected colon before duration in duration expression".to_owned());
                }
                if self.got_colon {
                    return Err("unexpected repeated colon in duration expression".to_owned());
                }
                self.got_colon = true;
                self.emit(TokenKind::Colon);
            }
            '(' => self.open_paren(),
            ')' => self.close_paren()?,
            ',' => self.emit(TokenKind::Comma),
            '*' => self.emit(TokenKind::Op(BinaryOp::Mul)),
            '/' => self.emit(TokenKind::Op(BinaryOp::Div)),
            '%' => self.emit(TokenKind::Op(BinaryOp::Mod)),
            '+' => self.emit(TokenKind::Op(BinaryOp::Add)),
            '-' => self.emit(TokenKind::Op(BinaryOp::Sub)),
            '^' => self.emit(TokenKind::Op(BinaryOp::Pow)),
            '0'..='9' => {
                self.got_duration = true;
                self.number_or_duration(character)?;
            }
            '.' if self.peek().is_some_and(|next| next.is_ascii_digit()) => {
                self.got_duration = true;
                self.number_or_duration(character)?;
            }
            other if is_alpha(other) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.next();
                }
                let word = self.input[self.start..self.pos].to_ascii_lowercase();
                let keyword = KEYWORDS.iter().find(|(name, _)| *name == word).map(|(_, keyword)| *keyword);
                match keyword {
                    Some(keyword @ (Keyword::Step | Keyword::Range | Keyword::MinOf | Keyword::MaxOf)) => {
                        self.got_duration = true;
                        self.emit(TokenKind::Keyword(keyword));
                    }
                    _ if self.got_duration => {
                        return Err(format!("unexpected character: {}, expected ':'", quote_char(other)));
                    }
                    _ => {
                        return Err(format!("unexpected character in duration expression: {}", quote_char(other)));
                    }
                }
            }
            other => {
                return Err(format!("unexpected character in duration expression: {}", quote_char(other)));
            }
        }
        Ok(())
    }

    /// One token of a matcher list; keywords are plain identifiers here.
    fn inside_braces(&mut self) -> Step {
        let Some(character) = self.next() else {
            return Err("unexpected end of input inside braces".to_owned());
        };
        match character {
            ',' => self.emit(TokenKind::Comma),
            '"' | '\'' => self.string(character)?,
            '`' => self.raw_string()?,
            '=' if self.accept("~") => self.emit(TokenKind::EqualRegex),
            '=' => self.emit(TokenKind::Equal),
            '!' => match self.next() {
                Some('~') => self.emit(TokenKind::NotRegex),
                Some('=') => self.emit(TokenKind::Op(BinaryOp::Ne)),
                other => {
                    return Err(format!("unexpected character after '!' inside braces: {}", quote_next(other)));
                }
            },
            '{' => return Err("unexpected left brace '{'".to_owned()),
            '}' => {
                self.emit(TokenKind::RightBrace);
                self.brace_open = false;
            }
            other if is_alpha(other) => {
                while self.peek().is_some_and(is_alphanumeric) {
                    self.next();
                }
                self.emit(TokenKind::Identifier);
            }
            other => return Err(format!("unexpected character inside braces: {}", quote_char(other))),
        }
        Ok(())
    }

    fn word(&mut self) {
        while self.peek().is_some_and(|character| is_alphanumeric(character) || character == ':') {
            self.next();
        }
        let text = &self.input[self.start..self.pos];
        let lower = text.to_ascii_lowercase();
        let kind = match lower.as_str() {
            "and" => TokenKind::Op(BinaryOp::And),
            "or" => TokenKind::Op(BinaryOp::Or),
            "unless" => TokenKind::Op(BinaryOp::Unless),
            "atan2" => TokenKind::Op(BinaryOp::Atan2),
            "inf" | "nan" => TokenKind::Number,
            _ => {
                if let Some((_, keyword)) = KEYWORDS.iter().find(|(name, _)| *name == lower) {
                    TokenKind::Keyword(*keyword)
                } else if let Some((_, op)) = AggregateOp::ALL.iter().find(|(name, _)| *name == lower) {
                    TokenKind::Aggregate(*op)
                } else if text.contains(':') {
                    TokenKind::MetricIdentifier
                } else {
                    TokenKind::Identifier
                }
            }
        };
        self.emit(kind);
    }

    fn number_or_duration(&mut self, first: char) -> Step {
        self.pos -= first.len_utf8();
        if self.scan_number() {
            self.emit(TokenKind::Number);
            return Ok(());
        }
        if self.scan_duration_rest() {
            self.emit(TokenKind::Duration);
            return Ok(());
        }
        Err(format!("bad number or duration syntax: {}", quote(&self.input[self.start..self.pos])))
    }

    /// Consumes a number; false (with the offending part consumed) when it is not one. The shape is checked here,
    /// the value by the parser.
    fn scan_number(&mut self) -> bool {
        let mut hexadecimal = false;
        if self.accept("0") && self.accept("xX") {
            self.accept("_");
            hexadecimal = true;
        }
        let digits = if hexadecimal { "0123456789abcdefABCDEF" } else { "0123456789" };
        self.accept(".");
        self.accept(digits);
        let starts_with_dot = self.input[self.start..].starts_with('.');
        let (mut dot, mut exponent) = (starts_with_dot, false);
        loop {
            if self.accept(digits) {
                continue;
            }
            match self.peek() {
                Some('.') => {
                    self.next();
                    if dot || hexadecimal || self.accept("_.") {
                        return false;
                    }
                    dot = true;
                }
                Some('_') => {
                    self.next();
                    if self.peek().is_none() || self.accept("._eE") {
                        return false;
                    }
                }
                Some('e' | 'E') if !hexadecimal => {
                    self.next();
                    if exponent {
                        return false;
                    }
                    exponent = true;
                    self.accept("+-");
                    if self.accept("._eE") || self.peek().is_none() {
                        return false;
                    }
                }
                _ => break,
            }
        }
        // A letter right after makes it a duration or an error.
        !self.peek().is_some_and(is_alphanumeric)
    }

    /// Consumes the units after the first count of a duration.
    fn scan_duration_rest(&mut self) -> bool {
        if !self.accept("smhdwy") {
            return false;
        }
        self.accept("s");
        while self.accept("0123456789") {
            while self.accept("0123456789") {}
            if !self.accept("smhdw") {
                return false;
            }
            self.accept("s");
        }
        if self.peek().is_some_and(is_alphanumeric) {
            self.next();
            return false;
        }
        true
    }

    fn string(&mut self, quote: char) -> Step {
        loop {
            match self.next() {
                Some('\\') => self.escape(quote)?,
                Some('\u{fffd}') => return Err("invalid UTF-8 rune".to_owned()),
                None | Some('\n') => return Err("unterminated quoted string".to_owned()),
                Some(character) if character == quote => break,
                Some(_) => {}
            }
        }
        self.emit(TokenKind::String);
        Ok(())
    }

    fn raw_string(&mut self) -> Step {
        loop {
            match self.next() {
                Some('\u{fffd}') => return Err("invalid UTF-8 rune".to_owned()),
                None => return Err("unterminated raw string".to_owned()),
                Some('`') => break,
                Some(_) => {}
            }
        }
        self.emit(TokenKind::String);
        Ok(())
    }

    /// Checks an escape sequence; the parser decodes it.
    fn escape(&mut self, quote: char) -> Step {
        let not_terminated = || "escape sequence not terminated".to_owned();
        let Some(character) = self.next() else { return Err(not_terminated()) };
        let (count, radix, max) = match character {
            'a' | 'b' | 'f' | 'n' | 'r' | 't' | 'v' | '\\' => return Ok(()),
            other if other == quote => return Ok(()),
            '0'..='7' => {
                self.pos -= 1;
                (3, 8, 255)
            }
            'x' => (2, 16, 255),
            'u' => (4, 16, 0x0010_ffff),
            'U' => (8, 16, 0x0010_ffff),
            other => return Err(format!("unknown escape sequence {}", rune(other))),
        };
        let mut value: u64 = 0;
        for _ in 0..count {
            let Some(digit) = self.next() else { return Err(not_terminated()) };
            let Some(digit_value) = digit.to_digit(radix) else {
                return Err(format!("illegal character {} in escape sequence", rune(digit)));
            };
            value = value * u64::from(radix) + u64::from(digit_value);
        }
        if value > max || (0xd800..0xe000).contains(&value) {
            return Err("escape sequence is an invalid Unicode code point".to_owned());
        }
        Ok(())
    }
}

/// Go's `%#U`.
fn rune(character: char) -> String {
    if character.is_control() {
        return format!("U+{:04X}", u32::from(character));
    }
    format!("U+{:04X} '{character}'", u32::from(character))
}

fn quote_next(character: Option<char>) -> String {
    character.map_or_else(|| "'\\uffff'".to_owned(), quote_char)
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\r')
}

fn is_alpha(character: char) -> bool {
    character == '_' || character.is_ascii_alphabetic()
}

fn is_alphanumeric(character: char) -> bool {
    is_alpha(character) || character.is_ascii_digit()
}
