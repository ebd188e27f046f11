//! `pki` and `ca`: keys and certificates. They are read and checked, and have no effect yet.

use super::parser::{Parsed, Parser, Quote};
use super::tree::Span;

impl Parser<'_> {
    /// `pki NAME { cert FILE | key FILE | dhe WORD }`.
    pub(super) fn pki(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        self.check_domain(&name)?;
        loop {
            if self.accept("cert").or_else(|| self.accept("key")).is_some() {
                self.text()?;
            } else if self.accept("dhe").is_some() {
                let word = self.text()?;
                let known = ["none", "auto", "legacy"];
                if !known.iter().any(|known| word.text.eq_ignore_ascii_case(known)) {
                    let message = format!("invalid DHE keyword: {}", word.text);
                    return Err(self.error(word.span, message));
                }
            } else {
                break;
            }
        }
        Err(self.unsupported(span, "pki"))
    }

    /// `ca NAME cert FILE`.
    pub(super) fn ca(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        self.check_domain(&name)?;
        self.expect_word("cert")?;
        self.text()?;
        Err(self.unsupported(span, "ca"))
    }

    fn check_domain(&mut self, name: &Quote) -> Parsed<()> {
        if name.text == "*" || is_host_name(&name.text) {
            return Ok(());
        }
        Err(self.error(name.span, format!("not a valid domain name: {}", name.text)))
    }
}

/// Labels of letters, digits, `-` and `_` that begin and end with a letter or digit.
fn is_host_name(name: &str) -> bool {
    name.split('.').all(|label| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes.iter().all(|&byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    })
}
