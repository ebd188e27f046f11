//! Statements about the whole server: `queue`, `smtp`, `mta`, `mda`, `scheduler`, `bounce`, `srs`,
//! `admd`.

use std::time::Duration;

use super::lexer::TokenKind;
use super::limits::{Family, LEAST_MAX_RECIPIENTS, Limit, MtaLimits, QueueKey, TaskLimits};
use super::parser::{Abandoned, Parsed, Parser, Quote};
use super::tree::{Secret, Wrapper};
use super::value::{delay, size};

/// How many delays of `bounce warn-interval` count.
const MAX_WARN_INTERVALS: usize = 4;
/// Bytes of the key of an encrypted spool.
const QUEUE_KEY_LENGTH: usize = 32;
const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// What a delay looks like.
pub(super) const DELAY_HINT: &str = "a delay is a number of at least 1 and one of s, m, h, d";
/// Instead of compression and encryption.
const AS_IT_COMES: &str = "leave the line out: this version keeps messages as they come";

/// The keys of `mda limit`.
const MDA_LIMITS: [&str; 5] =
    ["max-session", "max-session-per-user", "task-hiwat", "task-lowat", "task-release"];
/// The keys of `scheduler limit`.
const SCHEDULER_LIMITS: [&str; 4] =
    ["max-evp-batch-size", "max-inflight", "max-msg-batch-size", "max-schedule"];
/// The keys of `mta limit`.
const MTA_LIMITS: [&str; 20] = [
    "conn-delay-connector",
    "conn-delay-domain",
    "conn-delay-host",
    "conn-delay-relay",
    "conn-delay-route",
    "conn-delay-source",
    "max-conn-per-connector",
    "max-conn-per-domain",
    "max-conn-per-host",
    "max-conn-per-relay",
    "max-conn-per-route",
    "max-conn-per-source",
    "max-failures-per-session",
    "reconn-delay-route",
    "session-keepalive",
    "session-mail-max",
    "session-transaction-delay",
    "task-hiwat",
    "task-lowat",
    "task-release",
];

impl Parser<'_> {
    /// `queue ttl DELAY`, `queue compression`, `queue encryption [KEY]`.
    pub(super) fn queue(&mut self) -> Parsed<()> {
        let (word, span) = self.one_of(&["compression", "encryption", "ttl"])?;
        match word {
            "ttl" => {
                let text = self.text()?;
                self.config.queue.ttl = match delay(&text.text) {
                    Ok(ttl) => ttl,
                    Err(part) => {
                        let message = format!("invalid ttl delay: {part}");
                        return Err(self.error_with_hint(text.span, message, DELAY_HINT));
                    }
                };
            }
            "compression" => {
                self.config.queue.compression = true;
                self.unsupported(span, "queue compression", AS_IT_COMES);
            }
            _ => {
                let key = self.accept_text();
                self.config.queue.encryption = Some(self.queue_key(key)?);
                self.unsupported(span, "queue encryption", AS_IT_COMES);
            }
        }
        Ok(())
    }

    fn queue_key(&mut self, written: Option<Quote>) -> Parsed<QueueKey> {
        let Some(written) = written else { return Ok(QueueKey::Asked) };
        match written.text.as_str() {
            "stdin" | "-" => Ok(QueueKey::StandardInput),
            key if key.len() == QUEUE_KEY_LENGTH => {
                Ok(QueueKey::Written(Secret::from(written.text)))
            }
            key => {
                let message = "crypto_setup:invalid key for queue encryption";
                let hint = format!("a key has 32 bytes, this one {}", key.len());
                Err(self.error_with_hint(written.span, message, &hint))
            }
        }
    }

    /// `smtp …`.
    pub(super) fn smtp(&mut self) -> Parsed<()> {
        let words = ["ciphers", "limit", "max-message-size", "sub-addr-delim"];
        let (word, _) = self.one_of(&words)?;
        match word {
            "ciphers" => {
                self.config.smtp.ciphers = Some(self.ciphers()?);
                Ok(())
            }
            "limit" => {
                while let Some((key, number)) = self.limit()? {
                    self.session_limit(&key, number)?;
                }
                Ok(())
            }
            "max-message-size" => self.max_message_size(),
            _ => self.sub_address_delimiter(),
        }
    }

    fn max_message_size(&mut self) -> Parsed<()> {
        let token = self.next();
        let (bytes, written) = match token.kind {
            TokenKind::Number(number) => (u64::try_from(number).ok(), number.to_string()),
            TokenKind::Text(text) => (size(&text), text),
            _ => return Err(self.unexpected(&token)),
        };
        match bytes {
            Some(bytes) => {
                self.config.smtp.max_message_size = bytes;
                Ok(())
            }
            None => {
                let message = format!("invalid size: {written}");
                let hint = "a size is bytes, or a number with one of K, M, G, T";
                Err(self.error_with_hint(token.span, message, hint))
            }
        }
    }

    fn sub_address_delimiter(&mut self) -> Parsed<()> {
        let text = self.text()?;
        let &[byte] = text.text.as_bytes() else {
            let message = "subaddressing-delimiter must be one character";
            return Err(self.error(text.span, message));
        };
        if !byte.is_ascii_graphic() || byte == b'@' {
            return Err(self.error(text.span, "sub-addr-delim uses invalid character"));
        }
        self.config.smtp.sub_address_delimiter = char::from(byte);
        Ok(())
    }

    fn session_limit(&mut self, key: &Quote, number: i64) -> Parsed<()> {
        match key.text.as_str() {
            "max-mails" => self.config.smtp.max_mails = number.into(),
            "max-rcpt" if (0..LEAST_MAX_RECIPIENTS).contains(&number) => {
                let message = format!("invalid session limit: max-rcpt {number}");
                let hint = "a session must be allowed at least 100 recipients";
                return Err(self.error_with_hint(key.span, message, hint));
            }
            "max-rcpt" => self.config.smtp.max_recipients = number.into(),
            other => {
                let message = format!("invalid session limit keyword: {other}");
                return Err(self.unknown(key.span, message, other, ["max-mails", "max-rcpt"]));
            }
        }
        Ok(())
    }

    /// `mta max-deferred N`, `mta limit [for domain D] …`.
    pub(super) fn mta(&mut self) -> Parsed<()> {
        if self.accept("max-deferred").is_some() {
            self.config.mta.max_deferred = self.number()?.into();
            return Ok(());
        }
        self.expect_word("limit")?;
        let domain = match self.accept("for") {
            Some(_) => {
                self.expect_word("domain")?;
                Some(self.text()?.text)
            }
            None => None,
        };
        loop {
            if self.accept("inet4").is_some() {
                self.mta_limits(domain.as_deref()).family = Some(Family::Inet4);
            } else if self.accept("inet6").is_some() {
                self.mta_limits(domain.as_deref()).family = Some(Family::Inet6);
            } else if let Some((key, number)) = self.limit()? {
                let limits = self.mta_limits(domain.as_deref());
                if !set_mta_limit(limits, &key.text, number) {
                    let message = format!("invalid mta limit keyword: {}", key.text);
                    return Err(self.unknown(key.span, message, &key.text, MTA_LIMITS));
                }
            } else {
                return Ok(());
            }
        }
    }

    /// The limits of a domain, which begin as a copy of the default ones, or those themselves.
    fn mta_limits(&mut self, domain: Option<&str>) -> &mut MtaLimits {
        let mta = &mut self.config.mta;
        let Some(domain) = domain else { return &mut mta.limits };
        let defaults = &mta.limits;
        let index = match mta.domains.iter().position(|(name, _)| name == domain) {
            Some(index) => index,
            None => {
                mta.domains.push((domain.to_owned(), defaults.clone()));
                mta.domains.len() - 1
            }
        };
        match mta.domains.get_mut(index) {
            Some((_, limits)) => limits,
            None => &mut mta.limits,
        }
    }

    /// `mda limit …`, `mda wrapper NAME COMMAND`.
    pub(super) fn mda(&mut self) -> Parsed<()> {
        if self.accept("wrapper").is_some() {
            let name = self.text()?;
            let command = self.text()?.text;
            if self.config.wrapper_named(&name.text).is_some() {
                let message = format!("mda wrapper already declared with that name: {}", name.text);
                return Err(self.error(name.span, message));
            }
            self.config.wrappers.push(Wrapper { name: name.text, command });
            return Ok(());
        }
        self.expect_word("limit")?;
        while let Some((key, number)) = self.limit()? {
            let limits = &mut self.config.mda;
            let limit = match key.text.as_str() {
                "max-session" => &mut limits.max_session,
                "max-session-per-user" => &mut limits.max_session_per_user,
                other => match task_limit(&mut limits.tasks, other) {
                    Some(limit) => limit,
                    None => return Err(self.unknown_scheduler_limit(&key, &MDA_LIMITS)),
                },
            };
            *limit = number.into();
        }
        Ok(())
    }

    /// `scheduler limit …`.
    pub(super) fn scheduler(&mut self) -> Parsed<()> {
        self.expect_word("limit")?;
        while let Some((key, number)) = self.limit()? {
            let limits = &mut self.config.scheduler;
            let limit = match key.text.as_str() {
                "max-inflight" => &mut limits.max_inflight,
                "max-schedule" => &mut limits.max_schedule,
                "max-evp-batch-size" => &mut limits.max_envelope_batch,
                "max-msg-batch-size" => &mut limits.max_message_batch,
                _ => return Err(self.unknown_scheduler_limit(&key, &SCHEDULER_LIMITS)),
            };
            *limit = number.into();
        }
        Ok(())
    }

    /// The message of `mda limit` too.
    fn unknown_scheduler_limit(&mut self, key: &Quote, known: &[&str]) -> Abandoned {
        let message = format!("invalid scheduler limit keyword: {}", key.text);
        self.unknown(key.span, message, &key.text, known.iter().copied())
    }

    /// `bounce warn-interval DELAY {, DELAY}`.
    pub(super) fn bounce(&mut self) -> Parsed<()> {
        let span = self.expect_word("warn-interval")?;
        let mut intervals = Vec::new();
        loop {
            let text = self.text()?;
            match delay(&text.text) {
                Ok(interval) => intervals.push(interval),
                Err(part) => {
                    let message = format!("invalid bounce delay: {part}");
                    return Err(self.error_with_hint(text.span, message, DELAY_HINT));
                }
            }
            if !self.accept_byte(b',') {
                break;
            }
        }
        if intervals.len() > MAX_WARN_INTERVALS {
            self.warning(span, "only the first four delays of warn-interval count");
            intervals.truncate(MAX_WARN_INTERVALS);
        }
        self.config.bounce.warn_intervals = intervals;
        Ok(())
    }

    /// `srs key [backup] SECRET`, `srs ttl DELAY`.
    pub(super) fn srs(&mut self) -> Parsed<()> {
        if self.accept("key").is_some() {
            let backup = self.accept("backup").is_some();
            let key = Some(Secret::from(self.text()?.text));
            let srs = &mut self.config.srs;
            *(if backup { &mut srs.backup_key } else { &mut srs.key }) = key;
        } else {
            self.expect_word("ttl")?;
            let text = self.text()?;
            let days = delay(&text.text).map(|ttl| ttl.as_secs() / SECONDS_A_DAY);
            let (message, hint) = match days.map(u32::try_from) {
                Ok(Ok(days @ 1..)) => {
                    self.config.srs.days = days;
                    return Ok(());
                }
                Ok(_) => {
                    let part = &text.text[..text.text.len() - 1];
                    let hint = "senders are dated by days, so that at least one is needed";
                    (format!("ttl delay \"{part}\" is too short"), hint)
                }
                Err(part) => (format!("ttl delay \"{part}\" is invalid"), DELAY_HINT),
            };
            return Err(self.error_with_hint(text.span, message, hint));
        }
        Ok(())
    }

    /// `admd NAME`.
    pub(super) fn admd(&mut self) -> Parsed<()> {
        let name = self.text()?;
        if name.text.bytes().any(|byte| !matches!(byte, b' '..=b'~')) {
            return Err(self.error(name.span, "not a valid admd"));
        }
        self.config.admd = Some(name.text);
        Ok(())
    }

    /// A key and a number, if a word follows.
    fn limit(&mut self) -> Parsed<Option<(Quote, i64)>> {
        let Some(key) = self.accept_text() else { return Ok(None) };
        let number = self.number()?;
        Ok(Some((key, number)))
    }
}

fn task_limit<'a>(tasks: &'a mut TaskLimits, key: &str) -> Option<&'a mut Limit> {
    match key {
        "task-hiwat" => Some(&mut tasks.high),
        "task-lowat" => Some(&mut tasks.low),
        "task-release" => Some(&mut tasks.release),
        _ => None,
    }
}

/// Sets one of the limits; `false` when there is none with this name.
fn set_mta_limit(limits: &mut MtaLimits, key: &str, number: i64) -> bool {
    let count = match key {
        "max-conn-per-host" => &mut limits.max_connections_per_host,
        "max-conn-per-route" => &mut limits.max_connections_per_route,
        "max-conn-per-source" => &mut limits.max_connections_per_source,
        "max-conn-per-connector" => &mut limits.max_connections_per_connector,
        "max-conn-per-relay" => &mut limits.max_connections_per_relay,
        "max-conn-per-domain" => &mut limits.max_connections_per_domain,
        "session-mail-max" => &mut limits.session_mail_max,
        "max-failures-per-session" => {
            let none = number == 0;
            limits.max_failures_per_session = if none { Limit::NONE } else { number.into() };
            return true;
        }
        _ => match task_limit(&mut limits.tasks, key) {
            Some(limit) => limit,
            None => return set_mta_delay(limits, key, number),
        },
    };
    *count = number.into();
    true
}

/// Sets one of the delays, in seconds; negative ones are none.
fn set_mta_delay(limits: &mut MtaLimits, key: &str, seconds: i64) -> bool {
    let delay = match key {
        "conn-delay-host" => &mut limits.connection_delay_host,
        "conn-delay-route" => &mut limits.connection_delay_route,
        "conn-delay-source" => &mut limits.connection_delay_source,
        "conn-delay-connector" => &mut limits.connection_delay_connector,
        "conn-delay-relay" => &mut limits.connection_delay_relay,
        "conn-delay-domain" => &mut limits.connection_delay_domain,
        "reconn-delay-route" => &mut limits.reconnection_delay_route,
        "session-transaction-delay" => &mut limits.session_transaction_delay,
        "session-keepalive" => &mut limits.session_keepalive,
        _ => return false,
    };
    *delay = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    true
}
