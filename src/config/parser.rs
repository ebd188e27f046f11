//! The recursive-descent parser: tokens, recovery and complaints. Each kind of statement has a file
//! of its own that adds methods to [`Parser`].
//!
//! A statement is checked while it is read, since each may use only what stands above it; what
//! needs the whole file is in [`super::whole`]. After an error the parser goes on with the next line,
//! so that one run shows all errors of a file.

use super::diagnostics::{Diagnostic, Diagnostics, Place, reason};
use super::lexer::{Lexer, Token, TokenKind};
use super::names::Names;
use super::nearest::nearest;
use super::pki::PkiDraft;
use super::tree::{Config, Span};
use super::whole::CertificateUse;
use super::{Network, SourceReader};

/// The words that statements begin with.
const STATEMENTS: [&str; 17] = [
    "action",
    "admd",
    "bounce",
    "ca",
    "filter",
    "include",
    "listen",
    "match",
    "mda",
    "mta",
    "pki",
    "proc",
    "queue",
    "scheduler",
    "smtp",
    "srs",
    "table",
];
/// Statements of this server alone. They are ordinary words everywhere else.
const OWN_STATEMENTS: [&str; 4] = ["log", "metrics", "policy", "sandbox"];
/// How many words a hint lists at most.
const MAX_LISTED: usize = 8;
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
    /// What has no effect yet; said after everything that is wrong.
    unsupported: Vec<(Span, String, String)>,
    /// Reserved words that could have stood where the next token stands.
    expected: Vec<&'static str>,
    /// What the names so far stand for.
    pub names: Names,
    /// `pki` so far, in the order of [`super::PkiId`].
    pub pki: Vec<PkiDraft>,
    /// Certificates and authorities of relays, which may be declared later.
    pub certificate_uses: Vec<CertificateUse>,
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
            unsupported: Vec::new(),
            expected: Vec::new(),
            names: Names::default(),
            pki: Vec::new(),
            certificate_uses: Vec::new(),
        }
    }

    /// Reads the whole file `path`.
    pub fn file(mut self, path: &str) -> (Config, Diagnostics) {
        match self.files.read(path) {
            Ok(text) => {
                self.lexer.input().enter(path, text);
                while self.line() {}
                self.check_whole();
                for (span, what, instead) in std::mem::take(&mut self.unsupported) {
                    let place = self.place(span);
                    self.diagnostics.push(Diagnostic::unsupported(place, &what, &instead));
                }
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
            "admd" => self.admd()?,
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
            "srs" => self.srs()?,
            "table" => self.table(first.span)?,
            _ => return Err(self.unexpected(&first)),
        }
        Ok(None)
    }

    /// `NAME = VALUE`, or a statement of this server alone.
    fn definition(&mut self, first: Token) -> Parsed<()> {
        let TokenKind::Text(name) = first.kind else {
            self.expected = STATEMENTS.to_vec();
            return Err(self.unexpected(&first));
        };
        if self.peek().kind != TokenKind::Other(b'=') {
            if OWN_STATEMENTS.contains(&name.as_str()) {
                let instead = "leave the line out: this version does without it";
                self.unsupported(first.span, name, instead);
                return self.skip_statement();
            }
            if let Some(meant) = nearest(&name, STATEMENTS) {
                let hint = format!("did you mean `{meant}`?");
                return Err(self.error_with_hint(first.span, "syntax error", &hint));
            }
        }
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

    /// Skips the rest of a statement that nothing is known about.
    fn skip_statement(&mut self) -> Parsed<()> {
        loop {
            match self.peek().kind {
                TokenKind::Newline | TokenKind::End => return Ok(()),
                TokenKind::Bad(_) => return Err(self.unexpected_next()),
                _ => self.next(),
            };
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
        self.expected.clear();
        self.peeked.take().unwrap_or_else(|| self.lexer.token())
    }

    /// Takes the next token if it is this reserved word, and gives its place.
    pub fn accept(&mut self, word: &'static str) -> Option<Span> {
        let found = matches!(self.peek().kind, TokenKind::Reserved(reserved) if reserved == word);
        if !found {
            self.expected.push(word);
        }
        found.then(|| self.next().span)
    }

    /// Takes the next token if it is one of these reserved words.
    pub fn accept_one(&mut self, words: &[&'static str]) -> Option<(&'static str, Span)> {
        if let TokenKind::Reserved(word) = self.peek().kind
            && words.contains(&word)
        {
            return Some((word, self.next().span));
        }
        self.expected.extend(words);
        None
    }

    /// Notes words that could stand here, though they are not looked for.
    pub fn expect_words(&mut self, words: &[&'static str]) {
        self.expected.extend(words);
    }

    /// What was tried so far is not to be suggested.
    pub fn forget_expected(&mut self) {
        self.expected.clear();
    }

    /// Takes the next token, which must be one of these reserved words.
    pub fn one_of(&mut self, words: &[&'static str]) -> Parsed<(&'static str, Span)> {
        self.accept_one(words).ok_or_else(|| self.unexpected_next())
    }

    /// Takes the next token if it is this byte.
    pub fn accept_byte(&mut self, byte: u8) -> bool {
        let found = self.peek().kind == TokenKind::Other(byte);
        if found {
            self.next();
        }
        found
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
    pub fn expect_word(&mut self, word: &'static str) -> Parsed<Span> {
        self.accept(word).ok_or_else(|| self.unexpected_next())
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
            TokenKind::Other(b'}') => "an entry is missing before the brace",
            TokenKind::Newline => "the line ends where a value is missing",
            _ => return Err(self.unexpected(&token)),
        };
        self.give_back_newline(&token);
        Err(self.error_with_hint(token.span, "syntax error", hint))
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

    /// Notes something that the configuration works in spite of, with a hint.
    pub fn warning_with_hint(&mut self, span: Span, message: &str, hint: &str) {
        let place = self.place(span);
        self.diagnostics.push(Diagnostic::warning(place, message).with_hint(hint));
    }

    /// Notes an error with a hint; the statement is to be given up.
    pub fn error_with_hint(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: &str,
    ) -> Abandoned {
        let place = self.place(span);
        self.diagnostics.push(Diagnostic::error(place, message).with_hint(hint));
        Abandoned
    }

    /// Notes that a name stands for nothing. One that looks like it is the hint.
    pub fn unknown<'n>(
        &mut self,
        span: Span,
        message: String,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) -> Abandoned {
        match nearest(name, known) {
            Some(meant) => self.error_with_hint(span, message, &format!("did you mean `{meant}`?")),
            None => self.error(span, message),
        }
    }

    /// Notes that a part of the language has no effect yet, so that it is never ignored, and what can
    /// be done `instead`.
    pub fn unsupported(&mut self, span: Span, what: impl Into<String>, instead: impl Into<String>) {
        self.unsupported.push((span, what.into(), instead.into()));
    }

    /// Takes the next token and notes a syntax error at it.
    pub fn unexpected_next(&mut self) -> Abandoned {
        let expected = std::mem::take(&mut self.expected);
        let token = self.next();
        self.expected = expected;
        self.unexpected(&token)
    }

    /// Notes a syntax error at `token`, the last one taken, and what the lexer had to say about it.
    pub fn unexpected(&mut self, token: &Token) -> Abandoned {
        if let TokenKind::Bad(Some(message)) = &token.kind {
            self.error(token.span, message.clone());
        }
        let expected = std::mem::take(&mut self.expected);
        self.give_back_newline(token);
        match hint_for(token, &expected) {
            Some(hint) => self.error_with_hint(token.span, "syntax error", &hint),
            None => self.error(token.span, "syntax error"),
        }
    }

    /// The end of a line still ends the statement, and the next line is not skipped with it.
    fn give_back_newline(&mut self, token: &Token) {
        if token.kind == TokenKind::Newline {
            self.peeked = Some(token.clone());
        }
    }

    /// The source line that a place is in.
    pub fn place(&mut self, span: Span) -> Place {
        let (file, text) = self.lexer.input().line(span);
        Place { file, span, text }
    }
}

/// What may help where `token` stands and one of these words could have stood.
fn hint_for(token: &Token, expected: &[&str]) -> Option<String> {
    let word = match &token.kind {
        TokenKind::Reserved(word) => word,
        TokenKind::Text(text) => text.as_str(),
        TokenKind::Other(b'\r') => {
            return Some("the line ends with CR LF; a line must end with LF alone".to_owned());
        }
        TokenKind::Other(0xef) if (token.span.line, token.span.column) == (1, 1) => {
            return Some("a byte order mark: the file must begin without one".to_owned());
        }
        TokenKind::Other(byte) if byte.is_ascii_punctuation() && !b"{}<>=,!".contains(byte) => {
            return Some("text that begins with this character must be in quotes".to_owned());
        }
        TokenKind::Newline | TokenKind::End if (1..=MAX_LISTED).contains(&expected.len()) => {
            return Some(format!("the line ends where `{}` could follow", expected.join("`, `")));
        }
        _ => return None,
    };
    if let Some(meant) = nearest(word, expected.iter().copied()) {
        return Some(format!("did you mean `{meant}`?"));
    }
    if expected.is_empty() || expected.len() > MAX_LISTED {
        return None;
    }
    Some(format!("here could stand `{}`", expected.join("`, `")))
}
