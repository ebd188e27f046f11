//! The reserved words of the language.

/// Words that must be quoted to be used as a name or a value, in byte order. Some are used by no
/// statement.
#[rustfmt::skip] // one word a line would hide the rest of the file
const RESERVED: &[&str] = &[
    "action", "admd", "alias", "any", "auth", "auth-optional", "backup", "bounce", "bypass", "ca",
    "cert", "chain", "chroot", "ciphers", "commit", "compression", "connect", "data", "data-line",
    "dhe", "disconnect", "domain", "ehlo", "encryption", "expand-only", "fcrdns", "filter", "for",
    "forward-only", "from", "group", "helo", "helo-src", "host", "hostname", "hostnames", "include",
    "inet4", "inet6", "junk", "key", "limit", "listen", "lmtp", "local", "mail-from", "maildir",
    "mask-src", "masquerade", "match", "max-deferred", "max-message-size", "mbox", "mda", "mta",
    "mx", "no-dsn", "no-verify", "noop", "on", "phase", "pki", "port", "proc", "proc-exec",
    "protocols", "proxy-v2", "queue", "quit", "rcpt-to", "rdns", "received-auth", "recipient",
    "regex", "reject", "relay", "report", "rewrite", "rset", "scheduler", "senders", "smtp",
    "smtp-in", "smtp-out", "smtps", "socket", "src", "srs", "sub-addr-delim", "table", "tag",
    "tagged", "tls", "tls-require", "ttl", "user", "userbase", "verify", "virtual", "warn-interval",
    "wrapper",
];

/// The reserved word that `text` is.
pub(super) fn reserved(text: &str) -> Option<&'static str> {
    let index = RESERVED.binary_search(&text).ok()?;
    RESERVED.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sorted_for_the_search() {
        assert!(RESERVED.is_sorted());
        assert_eq!((reserved("action"), reserved("wrapper")), (Some("action"), Some("wrapper")));
        assert_eq!(reserved("Action"), None);
    }
}
