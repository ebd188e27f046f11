//! Words, strings, numbers and punctuation of the configuration, with macros expanded.
//!
//! The rules are older than this program and some are surprising: a backslash outside quotes is
//! taken away before anything looks at it, a `$` expands only where a token may begin, and the value
//! of a macro is read again as if it had been typed, so that it can glue to what follows.
//!
//! Source: smtpd.conf(5), sections on macros, comments and quoting.

use std::collections::HashMap;

use super::input::{Character, Input};
use super::reserved::reserved;
use super::tree::Span;

/// The longest word.
const MAX_WORD: usize = 8095;
/// The longest quoted string and the longest name of a macro.
const MAX_QUOTED: usize = 8094;

/// One token and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub kind: TokenKind,
    pub span: Span,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    /// `=>`.
    Arrow,
    /// Not a token. The rest of its line was skipped; the text says why, beyond "syntax error".
    Bad(Option<String>),
    /// The end of the last file.
    End,
    /// The end of a line.
    Newline,
    /// A decimal number.
    Number(i64),
    /// Any other byte.
    Other(u8),
    /// One of the reserved words.
    Reserved(&'static str),
    /// A word or a quoted string.
    Text(String),
}

/// Turns input into tokens.
#[derive(Debug)]
pub(super) struct Lexer {
    input: Input,
    macros: HashMap<String, Macro>,
    /// Where the last token stood.
    last: Span,
}

#[derive(Debug)]
struct Macro {
    value: String,
    /// Given on the command line, so that the file cannot change it.
    persistent: bool,
}

impl Lexer {
    /// A lexer without input that knows the macros of the command line; the first of a name counts.
    pub fn new(defines: &[(String, String)]) -> Self {
        let mut macros = HashMap::new();
        for (name, value) in defines {
            macros
                .entry(name.clone())
                .or_insert_with(|| Macro { value: value.clone(), persistent: true });
        }
        Self { input: Input::default(), macros, last: Span::default() }
    }

    /// The files being read.
    pub fn input(&mut self) -> &mut Input {
        &mut self.input
    }

    /// Ends reading and gives the names of the files read.
    pub fn into_names(self) -> Vec<String> {
        self.input.names()
    }

    /// Defines a macro; one of the command line stays as it is.
    pub fn define(&mut self, name: String, value: String) {
        if self.macros.get(&name).is_some_and(|known| known.persistent) {
            return;
        }
        self.macros.insert(name, Macro { value, persistent: false });
    }

    /// The next token.
    pub fn token(&mut self) -> Token {
        let token = self.read_token();
        self.last = token.span;
        token
    }

    fn read_token(&mut self) -> Token {
        loop {
            let Some(first) = self.first_of_token() else {
                return Token { kind: TokenKind::End, span: self.last };
            };
            if first.byte == b'$' && !first.expanded {
                match self.expand_macro(first) {
                    Ok(()) => continue,
                    Err(kind) => return Token { kind, span: wide(first.at, 1) },
                }
            }
            let kind = match first.byte {
                b'\n' => TokenKind::Newline,
                b'"' | b'\'' => self.quoted(first.byte),
                b'-' | b'0'..=b'9' => self.number_or_word(first),
                b'=' => self.equals_or_arrow(),
                byte if begins_word(byte) => self.word(vec![byte]),
                byte => TokenKind::Other(byte),
            };
            let length = self.length_since(first);
            return Token { kind, span: wide(first.at, length) };
        }
    }

    /// Skips blanks and a comment.
    fn first_of_token(&mut self) -> Option<Character> {
        let mut character = self.unescaped()?;
        while matches!(character.byte, b' ' | b'\t') {
            character = self.unescaped()?;
        }
        if character.byte == b'#' {
            while character.byte != b'\n' {
                character = self.unescaped()?;
            }
        }
        Some(character)
    }

    /// The next byte outside quotes: a backslash joins lines, and goes away before anything else.
    fn unescaped(&mut self) -> Option<Character> {
        let mut character = self.input.next()?;
        while character.byte == b'\\' {
            let next = self.input.next()?;
            if next.byte != b'\n' {
                return Some(next);
            }
            character = self.input.next()?;
        }
        Some(character)
    }

    /// The macro whose `$` was read.
    fn expand_macro(&mut self, dollar: Character) -> Result<(), TokenKind> {
        let mut name = String::new();
        while let Some(character) = self.unescaped() {
            if !character.byte.is_ascii_alphanumeric() && character.byte != b'_' {
                self.input.push_back(character);
                break;
            }
            if name.len() == MAX_QUOTED {
                return Err(self.bad("string too long"));
            }
            name.push(char::from(character.byte));
        }
        let Some(known) = self.macros.get(&name) else {
            return Err(self.bad(&format!("macro '{name}' not defined")));
        };
        self.input.expand(&known.value, dollar.at);
        Ok(())
    }

    fn quoted(&mut self, quote: u8) -> TokenKind {
        let mut text = Vec::new();
        loop {
            let Some(character) = self.input.next() else { return unterminated() };
            if character.end_of_file {
                self.input.push_back(character);
                return unterminated();
            }
            match character.byte {
                byte if byte == quote => break,
                b'\n' => continue,
                0 => return self.bad_token(None),
                b'\\' => {
                    let Some(next) = self.input.next() else { return unterminated() };
                    match next.byte {
                        b'\n' if !next.end_of_file => continue,
                        byte if byte == quote || byte == b' ' || byte == b'\t' => text.push(byte),
                        _ => {
                            text.push(b'\\');
                            self.input.push_back(next);
                        }
                    }
                }
                byte => text.push(byte),
            }
            if text.len() > MAX_QUOTED {
                return self.bad("string too long");
            }
        }
        match String::from_utf8(text) {
            Ok(text) => TokenKind::Text(text),
            Err(_) => self.bad("string is not UTF-8"),
        }
    }

    /// A number when something that may follow one follows, otherwise a word.
    fn number_or_word(&mut self, first: Character) -> TokenKind {
        let mut digits = vec![first];
        let mut next = self.unescaped();
        while let Some(character) = next
            && character.byte.is_ascii_digit()
        {
            digits.push(character);
            if digits.len() > MAX_WORD {
                return self.bad("string too long");
            }
            next = self.unescaped();
        }
        if let Some(character) = next {
            self.input.push_back(character);
        }
        let ended = next.is_none_or(|character| ends_number(character.byte));
        let lone_sign = first.byte == b'-' && digits.len() == 1;
        if ended && !lone_sign {
            return self.number(&digits);
        }
        for character in digits.drain(1..).rev() {
            self.input.push_back(character);
        }
        match first.byte {
            b'-' => TokenKind::Other(b'-'),
            byte => self.word(vec![byte]),
        }
    }

    fn number(&mut self, digits: &[Character]) -> TokenKind {
        let text: String = digits.iter().map(|character| char::from(character.byte)).collect();
        match text.parse() {
            Ok(number) => TokenKind::Number(number),
            Err(_) => {
                let what = if text.starts_with('-') { "too small" } else { "too large" };
                self.bad(&format!("\"{text}\" invalid number: {what}"))
            }
        }
    }

    fn equals_or_arrow(&mut self) -> TokenKind {
        match self.unescaped() {
            Some(next) if next.byte == b'>' => return TokenKind::Arrow,
            Some(next) => self.input.push_back(next),
            None => {}
        }
        TokenKind::Other(b'=')
    }

    fn word(&mut self, mut text: Vec<u8>) -> TokenKind {
        while let Some(character) = self.unescaped() {
            if !continues_word(character.byte) {
                self.input.push_back(character);
                break;
            }
            if text.len() == MAX_WORD {
                return self.bad("string too long");
            }
            text.push(character.byte);
        }
        let text: String = text.into_iter().map(char::from).collect();
        match reserved(&text) {
            Some(word) => TokenKind::Reserved(word),
            None => TokenKind::Text(text),
        }
    }

    fn bad(&mut self, message: &str) -> TokenKind {
        self.bad_token(Some(message.to_owned()))
    }

    /// Skips the rest of the line.
    fn bad_token(&mut self, message: Option<String>) -> TokenKind {
        while self.unescaped().is_some_and(|character| character.byte != b'\n') {}
        TokenKind::Bad(message)
    }

    /// How many bytes were read since `first`, as far as they are in one line of a file.
    fn length_since(&mut self, first: Character) -> u32 {
        let Some(next) = self.input.next() else { return 1 };
        self.input.push_back(next);
        let same_line = next.at.file == first.at.file && next.at.line == first.at.line;
        if same_line && !first.expanded {
            next.at.column.saturating_sub(first.at.column)
        } else {
            1
        }
    }
}

fn unterminated() -> TokenKind {
    TokenKind::Bad(Some("reached end of file while parsing quoted string".to_owned()))
}

fn wide(at: Span, length: u32) -> Span {
    Span { length: length.max(1), ..at }
}

/// Whether `text` is read as it stands, without quotes.
pub(super) fn is_plain_word(text: &str) -> bool {
    let begins_with_letter = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    begins_with_letter
        && text.bytes().all(|byte| continues_word(byte) && byte != b'\\')
        && reserved(text).is_none()
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'_')
}

fn continues_word(byte: u8) -> bool {
    let excluded =
        matches!(byte, b'(' | b')' | b'{' | b'}' | b'<' | b'>' | b'!' | b'=' | b'#' | b',');
    byte.is_ascii_alphanumeric() || (byte.is_ascii_punctuation() && !excluded)
}

fn ends_number(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, 0x0b | b')' | b',' | b'/' | b'}' | b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lex(text: &str) -> Vec<TokenKind> {
        let mut lexer = Lexer::new(&[]);
        lexer.define("a".into(), "mail".into());
        lexer.define("two".into(), "for local".into());
        lexer.define("nested".into(), "$a".into());
        assert!(lexer.input().enter("test", text.as_bytes().to_vec()));
        let mut all = Vec::new();
        loop {
            match lexer.token().kind {
                TokenKind::End => return all,
                kind => all.push(kind),
            }
        }
    }

    fn text(text: &str) -> TokenKind {
        TokenKind::Text(text.to_owned())
    }

    #[test]
    fn one_line_gives_these_tokens() {
        let other = |byte| TokenKind::Other(byte);
        let cases: &[(&str, Vec<TokenKind>)] = &[
            ("10.0.0.0/8", vec![text("10.0.0.0/8")]),
            ("10/8", vec![TokenKind::Number(10), other(b'/'), TokenKind::Number(8)]),
            ("-1 - -x", vec![TokenKind::Number(-1), other(b'-'), other(b'-'), text("x")]),
            ("::1 fe80::/10", vec![text("::1"), text("fe80::/10")]),
            ("/etc", vec![other(b'/'), text("etc")]),
            ("file:/etc a$b a\"b\"", vec![text("file:/etc"), text("a$b"), text("a\"b\"")]),
            ("35M 0123abc", vec![text("35M"), text("0123abc")]),
            ("reject#x", vec![TokenKind::Reserved("reject")]),
            ("'it''s'", vec![text("it"), text("s")]),
            (r#""a\\.b" "\.org" "a\"b""#, vec![text(r"a\\.b"), text(r"\.org"), text("a\"b")]),
            ("\"a\nb\"", vec![text("ab")]),
            ("\"local\" local", vec![text("local"), TokenKind::Reserved("local")]),
            ("a => b = c", vec![text("a"), TokenKind::Arrow, text("b"), other(b'='), text("c")]),
            ("$a.example.org", vec![text("mail.example.org")]),
            ("$two", vec![TokenKind::Reserved("for"), TokenKind::Reserved("local")]),
            ("$nested", vec![other(b'$'), text("a")]),
            ("{a}", vec![other(b'{'), text("a"), other(b'}')]),
            ("Match", vec![text("Match")]),
            ("a\r", vec![text("a"), other(b'\r')]),
        ];
        for (input, expected) in cases {
            let mut found = lex(input);
            assert_eq!(found.pop(), Some(TokenKind::Newline), "{input:?}");
            assert_eq!(&found, expected, "{input:?}");
        }
    }

    #[test]
    fn a_backslash_joins_lines_also_in_comments() {
        assert_eq!(lex("a \\\n b"), [text("a"), text("b"), TokenKind::Newline]);
        assert_eq!(lex("# x \\\nmatch"), [TokenKind::Newline]);
    }

    #[test]
    fn what_is_no_token_says_why() {
        let long = "x".repeat(8200);
        let cases = [
            ("$nope", Some("macro 'nope' not defined")),
            ("$ x", Some("macro '' not defined")),
            ("99999999999999999999", Some("\"99999999999999999999\" invalid number: too large")),
            ("-99999999999999999999", Some("\"-99999999999999999999\" invalid number: too small")),
            ("\"abc", Some("reached end of file while parsing quoted string")),
            ("\"a\0\"", None),
            (long.as_str(), Some("string too long")),
        ];
        for (input, expected) in cases {
            let first = lex(input).into_iter().next();
            assert_eq!(first, Some(TokenKind::Bad(expected.map(str::to_owned))), "{input:.30?}");
        }
    }

    #[test]
    fn tokens_know_where_they_stand() {
        let mut lexer = Lexer::new(&[]);
        assert!(lexer.input().enter("test", b"match\n  \"a b\" x".to_vec()));
        let places: Vec<_> = std::iter::from_fn(|| {
            let token = lexer.token();
            let span = token.span;
            (token.kind != TokenKind::End).then_some((span.line, span.column, span.length))
        })
        .collect();
        assert_eq!(places, [(1, 1, 5), (1, 6, 1), (2, 3, 5), (2, 9, 1), (2, 10, 1)]);
    }
}
