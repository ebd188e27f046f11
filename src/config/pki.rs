//! `pki` and `ca`: keys and certificates. What they name is looked at when the whole file was read,
//! since the statements of one name add up.

use super::parser::{Parsed, Parser, Quote};
use super::tree::{Authority, AuthorityId, Ciphers, Dhe, PkiId, Protocols, Span};

/// What the statements of one name said so far.
#[derive(Debug)]
pub(super) struct PkiDraft {
    pub name: String,
    pub span: Span,
    pub certificate: Option<String>,
    pub key: Option<String>,
    pub dhe: Dhe,
}

impl Parser<'_> {
    /// `pki NAME { cert FILE | key FILE | dhe WORD }`.
    pub(super) fn pki(&mut self, span: Span) -> Parsed<()> {
        let name = self.certificate_name()?;
        let (mut certificate, mut key, mut dhe) = (None, None, None);
        while let Some((word, _)) = self.accept_one(&["cert", "dhe", "key"]) {
            let text = self.text()?;
            match word {
                "cert" => certificate = Some(text.text),
                "key" => key = Some(text.text),
                _ => dhe = Some(self.dhe(&text)?),
            }
        }
        match self.pki.iter_mut().find(|draft| draft.name == name) {
            Some(draft) => {
                draft.certificate = certificate.or(draft.certificate.take());
                draft.key = key.or(draft.key.take());
                draft.dhe = dhe.unwrap_or(draft.dhe);
            }
            None => {
                let dhe = dhe.unwrap_or_default();
                self.pki.push(PkiDraft { name, span, certificate, key, dhe });
            }
        }
        Ok(())
    }

    fn dhe(&mut self, word: &Quote) -> Parsed<Dhe> {
        match word.text.to_ascii_lowercase().as_str() {
            "auto" => Ok(Dhe::Auto),
            "legacy" => Ok(Dhe::Legacy),
            "none" => Ok(Dhe::None),
            _ => {
                let message = format!("invalid DHE keyword: {}", word.text);
                Err(self.unknown(word.span, message, &word.text, ["auto", "legacy", "none"]))
            }
        }
    }

    /// `ca NAME cert FILE`.
    pub(super) fn ca(&mut self, span: Span) -> Parsed<()> {
        let name = self.certificate_name()?;
        self.expect_word("cert")?;
        let certificate = self.text()?.text;
        let authorities = &mut self.config.authorities;
        match authorities.iter_mut().find(|authority| authority.name == name) {
            Some(known) => known.certificate = certificate,
            None => authorities.push(Authority { name, span, certificate }),
        }
        Ok(())
    }

    /// The name of a certificate or an authority, lower-cased.
    fn certificate_name(&mut self) -> Parsed<String> {
        let name = self.text()?;
        if name.text == "*" || is_host_name(&name.text) {
            return Ok(name.text.to_ascii_lowercase());
        }
        Err(self.error(name.span, format!("not a valid domain name: {}", name.text)))
    }

    /// A certificate that a listener names; it must be declared above. Case does not count.
    pub(super) fn declared_pki(&mut self, name: &Quote) -> Parsed<PkiId> {
        let mut known = self.pki.iter().map(|draft| draft.name.as_str());
        let index = known.position(|known| known.eq_ignore_ascii_case(&name.text));
        if let Some(index) = index.and_then(|index| u32::try_from(index).ok()) {
            return Ok(PkiId(index));
        }
        let message = format!("pki name not found: {}", name.text);
        let known: Vec<String> = self.pki.iter().map(|draft| draft.name.clone()).collect();
        Err(self.unknown(name.span, message, &name.text, known.iter().map(String::as_str)))
    }

    /// An authority that a listener names; it must be declared above. Case does not count.
    pub(super) fn declared_authority(&mut self, name: &Quote) -> Parsed<AuthorityId> {
        if let Some(authority) = self.config.authority_named(&name.text) {
            return Ok(authority);
        }
        let message = format!("ca name not found: {}", name.text);
        let known = self.config.authorities.iter().map(|authority| authority.name.clone());
        let known: Vec<String> = known.collect();
        Err(self.unknown(name.span, message, &name.text, known.iter().map(String::as_str)))
    }

    /// The argument of `ciphers`.
    pub(super) fn ciphers(&mut self) -> Parsed<Ciphers> {
        let text = self.text()?;
        let Ok((ciphers, unknown)) = Ciphers::parse(&text.text) else {
            let message = format!("no ciphers for '{}'", text.text);
            let hint = "of TLS 1.2 there are ECDHE with AES-GCM or ChaCha20-Poly1305";
            return Err(self.error_with_hint(text.span, message, hint));
        };
        if !unknown.is_empty() {
            let message = format!("no such ciphers: {}", unknown.join(", "));
            self.warning(text.span, &message);
        }
        Ok(ciphers)
    }

    /// The argument of `protocols`.
    pub(super) fn protocols(&mut self) -> Parsed<Protocols> {
        let text = self.text()?;
        Protocols::parse(&text.text).map_err(|_| {
            let message = format!("failed to parse protocols \"{}\"", text.text);
            let hint = "there are tlsv1.2 and tlsv1.3, default means both";
            self.error_with_hint(text.span, message, hint)
        })
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
