//! The recursive-descent parser: tokens, recovery and complaints. Each kind of statement has a file
//! of its own that adds methods to [`Parser`].
//!
//! A statement is checked while it is read, since each may use only what stands above it. After an
//! error the parser goes on with the next line, so that one run shows all errors of a file.

use super::diagnostics::{Diagnostic, Diagnostics, Place, reason};
use super::lexer::{Lexer, Token, TokenKind};
use super::tree::{Config, Span};
use super::{Network, SourceReader};

/// How many files may include one another.
const MAX_INCLUDE_DEPTH: usize = 32;

/// A statement ended early; why is already among the diagnostics.
#[derive(Debug)]
pub(super) struct Abandoned;

/// What a part of a statement gives.
pub(super) type Parsed<T> = Result<T, Abandoned>;

/// Reads statements into a configuration.
pub(super) struct Parser<'a> {
    lexer: Lexer,
    peeked: Option<Token>,
    pub files: &'a mut dyn SourceReader,
    pub network: &'a mut dyn Network,
    pub config: Config,
    pub diagnostics: Diagnostics,
    /// How many tables without a name there are so far.
    pub anonymous_tables: u32,
}

impl<'a> Parser<'a> {
    pub fn new(
        config: Config,
        files: &'a mut dyn SourceReader,
        network: &'a mut dyn Network,
        defines: &[(String, String)],
    ) -> Self {
        Self {
            lexer: Lexer::new(defines),
            peeked: None,
            files,
            network,
            config,
            diagnostics: Diagnostics::default(),
            anonymous_tables: 0,
        }
    }

    /// Reads the whole file `path`.
    pub fn file(mut self, path: &str) -> (Config, Diagnostics) {
        match self.files.read(path) {
            Ok(text) => {
                self.lexer.input().enter(path, text);
                while self.line() {}
                self.check_whole();
            }
            Err(error) => self
                .diagnostics
                .push(Diagnostic::bare_error(format!("pushfile: {path}: {}", reason(&error)))),
        }
        self.config.sources = self.lexer.into_names();
        (self.config, self.diagnostics)
    }

    /// Reads a line with or without a statement; `false` at the end.
    fn line(&mut self) -> bool {
        match self.peek().kind {
            TokenKind::End => return false,
            TokenKind::Newline => {
                self.next();
                return true;
            }
            _ => {}
        }
        let parsed = self.statement().and_then(|included| {
            self.end_of_line()?;
            included.map_or(Ok(()), |file| self.enter(&file))
        });
        if parsed.is_err() {
            self.skip_line();
        }
        true
    }

    /// A statement; for `include` the file to read next.
    fn statement(&mut self) -> Parsed<Option<Quote>> {
        let first = self.next();
        let TokenKind::Reserved(word) = first.kind else {
            return self.definition(first).map(|()| None);
        };
        match word {
            "action" => self.action(first.span)?,
            "admd" => self.admd(first.span)?,
            "bounce" => self.bounce()?,
            "ca" => self.ca(first.span)?,
            "filter" => self.filter(first.span)?,
            "include" => return self.text().map(Some),
            "listen" => self.listen(first.span)?,
            "match" => self.rule(first.span)?,
            "mda" => self.mda()?,
            "mta" => self.mta()?,
            "pki" => self.pki(first.span)?,
            "proc" => self.proc(first.span)?,
            "queue" => self.queue()?,
            "scheduler" => self.scheduler()?,
            "smtp" => self.smtp()?,
            "srs" => self.srs(first.span)?,
            "table" => self.table(first.span)?,
            _ => return Err(self.unexpected(&first)),
        }
        Ok(None)
    }

    /// `NAME = VALUE`.
    fn definition(&mut self, first: Token) -> Parsed<()> {
        let TokenKind::Text(name) = first.kind else { return Err(self.unexpected(&first)) };
        self.expect(b'=')?;
        let value = self.text()?;
        if name.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return Err(self.error(first.span, "macro name cannot contain whitespace"));
        }
        self.lexer.define(name, value.text);
        Ok(())
    }

    /// Goes on reading in an included file.
    fn enter(&mut self, file: &Quote) -> Parsed<()> {
        let path = &file.text;
        let failure = match self.files.read(path) {
            Ok(text) if self.lexer.input().depth() < MAX_INCLUDE_DEPTH => {
                if self.lexer.input().enter(path, text) {
                    return Ok(());
                }
                "too many files".to_owned()
            }
            Ok(_) => "too many files inside one another".to_owned(),
            Err(error) => reason(&error),
        };
        self.diagnostics.push(Diagnostic::bare_error(format!("pushfile: {path}: {failure}")));
        let message = format!("failed to include file {path}");
        let place = self.place(file.span);
        self.diagnostics.push(Diagnostic::error(place, message));
        // The line was complete: there is nothing to skip.
        Ok(())
    }

    /// What can only be said when everything was read.
    fn check_whole(&mut self) {
        if self.config.rules.is_empty() {
            self.diagnostics.push(Diagnostic::bare_error("warn: no rules, nothing to do"));
        }
    }

    fn skip_line(&mut self) {
        while !matches!(self.peek().kind, TokenKind::Newline | TokenKind::End) {
            self.next();
        }
    }

    fn end_of_line(&mut self) -> Parsed<()> {
        match self.peek().kind {
            TokenKind::Newline | TokenKind::End => {
                self.next();
                Ok(())
            }
            _ => Err(self.unexpected_next()),
        }
    }
}

/// Tokens.
impl Parser<'_> {
    /// The next token, left where it is.
    pub fn peek(&mut self) -> &Token {
        let lexer = &mut self.lexer;
        self.peeked.get_or_insert_with(|| lexer.token())
    }

    /// Takes the next token.
    pub fn next(&mut self) -> Token {
        self.peeked.take().unwrap_or_else(|| self.lexer.token())
    }

    /// Takes the next token if it is this reserved word, and gives its place.
    pub fn accept(&mut self, word: &str) -> Option<Span> {
        let found = matches!(self.peek().kind, TokenKind::Reserved(reserved) if reserved == word);
        found.then(|| self.next().span)
    }

    /// Takes the next token if it is this byte.
    pub fn accept_byte(&mut self, byte: u8) -> bool {
        let found = self.peek().kind == TokenKind::Other(byte);
        if found {
            self.next();
        }
        found
    }

    /// Takes the next token if it is a reserved word.
    pub fn accept_reserved(&mut self) -> Option<(&'static str, Span)> {
        let TokenKind::Reserved(word) = self.peek().kind else { return None };
        Some((word, self.next().span))
    }

    /// Takes the next token if it is a word or a quoted string.
    pub fn accept_text(&mut self) -> Option<Quote> {
        let TokenKind::Text(_) = self.peek().kind else { return None };
        let token = self.next();
        let TokenKind::Text(text) = token.kind else { return None };
        Some(Quote { text, span: token.span })
    }

    /// Takes the next token, which must be this byte.
    pub fn expect(&mut self, byte: u8) -> Parsed<()> {
        if self.accept_byte(byte) { Ok(()) } else { Err(self.unexpected_next()) }
    }

    /// Takes the next token, which must be this reserved word.
    pub fn expect_word(&mut self, word: &str) -> Parsed<Span> {
        self.accept(word).ok_or_else(|| self.unexpected_next())
    }

    /// Takes the next token, which must be a reserved word.
    pub fn reserved(&mut self) -> Parsed<(&'static str, Span)> {
        self.accept_reserved().ok_or_else(|| self.unexpected_next())
    }

    /// Takes the next token, which must be a word or a quoted string.
    pub fn text(&mut self) -> Parsed<Quote> {
        if let Some(text) = self.accept_text() {
            return Ok(text);
        }
        let token = self.next();
        let hint = match token.kind {
            TokenKind::Reserved(_) => "a reserved word: put it in quotes to use it as a value",
            TokenKind::Number(_) => "a number: put it in quotes to use it as text",
            TokenKind::Other(byte) if byte.is_ascii_punctuation() && !b"{}=,".contains(&byte) => {
                "text that begins with this character must be in quotes"
            }
            _ => return Err(self.unexpected(&token)),
        };
        Err(self.error_with_hint(token.span, "syntax error".to_owned(), hint))
    }

    /// Takes the next token, which must be a number.
    pub fn number(&mut self) -> Parsed<i64> {
        let TokenKind::Number(number) = self.peek().kind else {
            return Err(self.unexpected_next());
        };
        self.next();
        Ok(number)
    }

    /// Takes ends of lines, where they separate nothing.
    pub fn skip_newlines(&mut self) {
        while self.peek().kind == TokenKind::Newline {
            self.next();
        }
    }
}

/// A word or a quoted string and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Quote {
    pub text: String,
    pub span: Span,
}

/// Complaints.
impl Parser<'_> {
    /// Notes an error; the statement is to be given up.
    pub fn error(&mut self, span: Span, message: impl Into<String>) -> Abandoned {
        let place = self.place(span);
        self.diagnostics.push(Diagnostic::error(place, message));
        Abandoned
    }

    /// Notes something that the configuration works in spite of.
    pub fn warning(&mut self, span: Span, message: &str) {
        let place = self.place(span);
        self.diagnostics.push(Diagnostic::warning(place, message));
    }

    /// Notes an error with a hint; the statement is to be given up.
    pub fn error_with_hint(&mut self, span: Span, message: String, hint: &str) -> Abandoned {
        let place = self.place(span);
        self.diagnostics.push(Diagnostic::error(place, message).with_hint(hint));
        Abandoned
    }

    /// Notes that a part of the language has no effect yet, so that it is never ignored.
    pub fn unsupported(&mut self, span: Span, what: &str) -> Abandoned {
        self.error(span, format!("{what}: not supported yet"))
    }

    /// Notes each of these parts of a statement.
    pub fn refuse_unsupported(&mut self, parts: &[(Span, &str)]) -> Parsed<()> {
        for (span, what) in parts {
            self.unsupported(*span, what);
        }
        if parts.is_empty() { Ok(()) } else { Err(Abandoned) }
    }

    /// Takes the next token and notes a syntax error at it.
    pub fn unexpected_next(&mut self) -> Abandoned {
        let token = self.next();
        self.unexpected(&token)
    }

    /// Notes a syntax error at `token`, the last one taken, and what the lexer had to say about it.
    pub fn unexpected(&mut self, token: &Token) -> Abandoned {
        if let TokenKind::Bad(Some(message)) = &token.kind {
            self.error(token.span, message.clone());
        }
        if token.kind == TokenKind::Newline {
            // It still ends the statement, and the next line is not skipped with it.
            self.peeked = Some(token.clone());
        }
        self.error(token.span, "syntax error")
    }

    fn place(&mut self, span: Span) -> Place {
        let (file, text) = self.lexer.input().line(span);
        Place { file, span, text }
    }
}
