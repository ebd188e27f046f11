//! `filter` and `proc`: programs and conditions in the path of a session. Their grammar is checked;
//! they have no effect yet.

use super::lexer::TokenKind;
use super::parser::{Parsed, Parser};
use super::tree::Span;

impl Parser<'_> {
    /// `filter NAME ( proc … | proc-exec … | phase … | chain … )`.
    pub(super) fn filter(&mut self, span: Span) -> Parsed<()> {
        self.text()?;
        let (word, place) = self.reserved()?;
        match word {
            "proc" => {
                self.text()?;
            }
            "proc-exec" => {
                self.text()?;
                self.process_options()?;
            }
            "phase" => self.phase()?,
            "chain" => {
                self.expect(b'{')?;
                self.chain()?;
            }
            _ => return Err(self.error(place, "syntax error")),
        }
        Err(self.unsupported(span, "filter"))
    }

    /// `proc NAME COMMAND …`.
    pub(super) fn proc(&mut self, span: Span) -> Parsed<()> {
        self.text()?;
        self.text()?;
        self.process_options()?;
        Err(self.unsupported(span, "proc"))
    }

    /// The argument of the option `filter`: a name, or names in braces.
    pub(super) fn filter_use(&mut self) -> Parsed<()> {
        if self.accept_byte(b'{') {
            return self.chain();
        }
        self.text().map(|_| ())
    }

    /// Names until the closing brace, separated like the entries of a table.
    fn chain(&mut self) -> Parsed<()> {
        self.skip_newlines();
        self.text()?;
        loop {
            let comma = self.accept_byte(b',');
            self.skip_newlines();
            if !comma && self.accept_byte(b'}') {
                return Ok(());
            }
            self.text()?;
        }
    }

    fn process_options(&mut self) -> Parsed<()> {
        let mut given = Vec::new();
        while let TokenKind::Reserved(word @ ("chroot" | "group" | "user")) = self.peek().kind {
            let span = self.next().span;
            self.text()?;
            if given.contains(&word) {
                let message = format!("{word} already specified for this processor");
                return Err(self.error(span, message));
            }
            given.push(word);
        }
        Ok(())
    }

    /// `PHASE match [!] CONDITION DECISION`, with exactly one condition.
    fn phase(&mut self) -> Parsed<()> {
        let (phase, span) = self.reserved()?;
        let conditions = match phase {
            "connect" => 0,
            "helo" | "ehlo" => 1,
            "auth" => 2,
            "mail-from" | "data" | "commit" => 3,
            "rcpt-to" => 4,
            _ => return Err(self.error(span, "syntax error")),
        };
        self.expect_word("match")?;
        self.accept_byte(b'!');
        let (condition, place) = self.reserved()?;
        // From which phase on something is known.
        let known_from = match condition {
            "fcrdns" | "rdns" | "src" => 0,
            "helo" => 1,
            "auth" => 2,
            "mail-from" => 3,
            "rcpt-to" => 4,
            _ => return Err(self.error(place, "syntax error")),
        };
        if known_from > conditions {
            return Err(self.error(place, "syntax error"));
        }
        if condition != "fcrdns" {
            let regex = self.accept("regex").is_some();
            let argument = self.optional_table_argument()?;
            let optional = !regex && matches!(condition, "rdns" | "auth");
            if argument.is_none() && !optional {
                return Err(self.unexpected_next());
            }
        }
        let (decision, place) = self.reserved()?;
        match decision {
            "reject" | "disconnect" | "rewrite" | "report" => self.text().map(|_| ()),
            "junk" | "bypass" if phase != "commit" => Ok(()),
            _ => Err(self.error(place, "syntax error")),
        }
    }
}
