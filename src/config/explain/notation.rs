//! How values are written: strings in quotes, delays with a unit, limits by keyword, entries in
//! braces.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use crate::config::lexer::is_plain_word;
use crate::config::limits::{Family, Limit, MtaLimits, TaskLimits};
use crate::config::tree::TableEntry;

/// A limit as the file writes it.
pub(super) fn number(limit: Limit) -> i64 {
    limit.get().map_or(-1, i64::from)
}

/// The limits of tasks by keyword.
pub(super) fn tasks(limits: &TaskLimits) -> [(&'static str, Limit); 3] {
    [("task-hiwat", limits.high), ("task-lowat", limits.low), ("task-release", limits.release)]
}

/// Limits by keyword, each with a blank before it.
pub(super) struct Limits<'a>(pub &'a [(&'a str, Limit)]);

impl Display for Limits<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(word, limit)| write!(f, " {word} {}", number(*limit)))
    }
}

/// The options of `mta limit`, each with a blank before it.
pub(super) struct MtaOptions<'a>(pub &'a MtaLimits);

impl Display for MtaOptions<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let limits = self.0;
        match limits.family {
            Some(Family::Inet4) => f.write_str(" inet4")?,
            Some(Family::Inet6) => f.write_str(" inet6")?,
            None => {}
        }
        let counts = [
            ("max-conn-per-host", limits.max_connections_per_host),
            ("max-conn-per-route", limits.max_connections_per_route),
            ("max-conn-per-source", limits.max_connections_per_source),
            ("max-conn-per-connector", limits.max_connections_per_connector),
            ("max-conn-per-relay", limits.max_connections_per_relay),
            ("max-conn-per-domain", limits.max_connections_per_domain),
            ("session-mail-max", limits.session_mail_max),
        ];
        write!(f, "{}{}", Limits(&counts), Limits(&tasks(&limits.tasks)))?;
        let failures = limits.max_failures_per_session.get().unwrap_or(0);
        write!(f, " max-failures-per-session {failures}")?;
        let delays = [
            ("conn-delay-host", limits.connection_delay_host),
            ("conn-delay-route", limits.connection_delay_route),
            ("conn-delay-source", limits.connection_delay_source),
            ("conn-delay-connector", limits.connection_delay_connector),
            ("conn-delay-relay", limits.connection_delay_relay),
            ("conn-delay-domain", limits.connection_delay_domain),
            ("reconn-delay-route", limits.reconnection_delay_route),
            ("session-transaction-delay", limits.session_transaction_delay),
            ("session-keepalive", limits.session_keepalive),
        ];
        delays.iter().try_for_each(|(word, delay)| write!(f, " {word} {}", delay.as_secs()))
    }
}

/// A delay with the largest unit that it is a multiple of.
pub(super) struct Delay(pub Duration);

impl Display for Delay {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let units = [(24 * 60 * 60, 'd'), (60 * 60, 'h'), (60, 'm')];
        let unit = units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length));
        let (length, letter) = unit.unwrap_or((1, 's'));
        write!(f, "{}{letter}", seconds / length)
    }
}

/// The entries of a table without a name.
pub(super) struct Braces<'a>(pub &'a [TableEntry]);

impl Display for Braces<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, entry) in self.0.iter().enumerate() {
            let separator = if index == 0 { " " } else { ", " };
            write!(f, "{separator}{}", Quoted(&entry.key))?;
            if let Some(value) = &entry.value {
                write!(f, " = {}", Quoted(value))?;
            }
        }
        f.write_str(" }")
    }
}

/// A string in such quotes that the lexer reads it back.
pub(super) struct Quoted<'a>(pub &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0;
        if is_plain_word(text) {
            return f.write_str(text);
        }
        if text.ends_with('\\') {
            // No quoted string can end in a backslash; a word can, where it is written twice.
            return f.write_str(&text.replace('\\', "\\\\"));
        }
        f.write_char('"')?;
        let mut after_backslash = false;
        for character in text.chars() {
            if character == '"' || (after_backslash && matches!(character, ' ' | '\t')) {
                f.write_char('\\')?;
            }
            f.write_char(character)?;
            after_backslash = character == '\\';
        }
        f.write_char('"')
    }
}
