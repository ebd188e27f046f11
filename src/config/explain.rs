//! The configuration written out again, as `smtpd -nv` shows it: macros expanded, includes in place,
//! names resolved, defaults said. Read again, the text means the same.

use std::fmt::{self, Display, Formatter, Write as _};
use std::time::Duration;

use super::lexer::is_plain_word;
use super::limits::{Family, Limit, MtaLimits, TaskLimits};
use super::tree::{
    Action, ActionKind, Config, Criterion, Decision, Destination, Endpoint, Listener, LocalAction,
    Login, Mapping, Method, RelayAction, Rule, SenderRewrite, Source, TableEntry, TableId,
    TableMatch, TableSource,
};

impl Display for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.named_tables(f)?;
        self.globals(f)?;
        for wrapper in &self.wrappers {
            let (name, command) = (Quoted(&wrapper.name), Quoted(&wrapper.command));
            writeln!(f, "mda wrapper {name} {command}")?;
        }
        for listener in &self.listeners {
            self.listener(f, listener)?;
        }
        for action in &self.actions {
            self.action_line(f, action)?;
        }
        for rule in &self.rules {
            self.rule(f, rule)?;
        }
        Ok(())
    }
}

impl Config {
    /// Tables with names of their own; others are written where they are used.
    fn named_tables(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for table in self.tables.iter().filter(|table| !table.name.starts_with('<')) {
            let name = Quoted(&table.name);
            match &table.source {
                TableSource::Db(path) => {
                    writeln!(f, "table {name} {}", Quoted(&format!("db:{path}")))?;
                }
                TableSource::File(path) => writeln!(f, "table {name} {}", Quoted(path))?,
                TableSource::Inline(entries) if entries.is_empty() => {
                    writeln!(f, "table {name} static")?;
                }
                TableSource::Inline(entries) => writeln!(f, "table {name} {}", Braces(entries))?,
                TableSource::Program { backend, parameter } => {
                    let parameter = parameter.as_ref().map(|path| format!(":{path}"));
                    let program = format!("{backend}{}", parameter.unwrap_or_default());
                    writeln!(f, "table {name} {}", Quoted(&program))?;
                }
                TableSource::Users => writeln!(f, "table {name} getpwnam")?,
                TableSource::BuiltIn(_) => {}
            }
        }
        Ok(())
    }

    fn globals(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "smtp max-message-size {}", self.smtp.max_message_size)?;
        let delimiter = self.smtp.sub_address_delimiter.to_string();
        writeln!(f, "smtp sub-addr-delim {}", Quoted(&delimiter))?;
        let sessions = [("max-mails", self.smtp.max_mails), ("max-rcpt", self.smtp.max_recipients)];
        writeln!(f, "smtp limit{}", Limits(&sessions))?;
        writeln!(f, "queue ttl {}", Delay(self.queue.ttl))?;
        f.write_str("bounce warn-interval")?;
        for (index, interval) in self.bounce.warn_intervals.iter().enumerate() {
            let separator = if index == 0 { " " } else { ", " };
            write!(f, "{separator}{}", Delay(*interval))?;
        }
        writeln!(f)?;
        writeln!(f, "mta max-deferred {}", number(self.mta.max_deferred))?;
        writeln!(f, "mta limit{}", MtaOptions(&self.mta.limits))?;
        for (domain, limits) in &self.mta.domains {
            let domain = Quoted(domain);
            writeln!(f, "mta limit for domain {domain}{}", MtaOptions(limits))?;
        }
        let deliveries = [
            ("max-session", self.mda.max_session),
            ("max-session-per-user", self.mda.max_session_per_user),
        ];
        writeln!(f, "mda limit{}{}", Limits(&deliveries), Limits(&tasks(&self.mda.tasks)))?;
        let scheduler = [
            ("max-inflight", self.scheduler.max_inflight),
            ("max-schedule", self.scheduler.max_schedule),
            ("max-evp-batch-size", self.scheduler.max_envelope_batch),
            ("max-msg-batch-size", self.scheduler.max_message_batch),
        ];
        writeln!(f, "scheduler limit{}", Limits(&scheduler))
    }

    fn listener(&self, f: &mut Formatter<'_>, listener: &Listener) -> fmt::Result {
        match &listener.endpoint {
            Endpoint::Socket => f.write_str("listen on socket")?,
            Endpoint::Network { address, port } => {
                let scope = address.scope.as_ref().map(|scope| format!("%{}", scope.name));
                let text = format!("{}{}", address.address, scope.unwrap_or_default());
                write!(f, "listen on {} port {port}", Quoted(&text))?;
            }
        }
        if !listener.tag.is_empty() {
            write!(f, " tag {}", Quoted(&listener.tag))?;
        }
        if let Some(name) = &listener.hostname {
            write!(f, " hostname {}", Quoted(name))?;
        }
        if let Some(table) = listener.hostnames {
            write!(f, " hostnames {}", self.use_of(table))?;
        }
        let flags = [
            ("mask-src", listener.mask_source),
            ("no-dsn", !listener.dsn),
            ("no-pipelining", !listener.pipelining),
        ];
        for (word, _) in flags.iter().filter(|(_, given)| *given) {
            write!(f, " {word}")?;
        }
        writeln!(f)
    }

    fn action_line(&self, f: &mut Formatter<'_>, action: &Action) -> fmt::Result {
        write!(f, "action {}", Quoted(&action.name))?;
        match &action.kind {
            ActionKind::Local(local) => self.local(f, local)?,
            ActionKind::Relay(relay) => self.relay(f, relay)?,
        }
        if let Some(ttl) = action.ttl {
            write!(f, " ttl {}", Delay(ttl))?;
        }
        writeln!(f)
    }

    fn local(&self, f: &mut Formatter<'_>, action: &LocalAction) -> fmt::Result {
        match &action.method {
            Method::ExpandOnly => f.write_str(" expand-only")?,
            Method::ForwardOnly => f.write_str(" forward-only")?,
            Method::Lmtp { destination, recipient_address } => {
                let rcpt_to = if *recipient_address { " rcpt-to" } else { "" };
                write!(f, " lmtp {}{rcpt_to}", Quoted(destination))?;
            }
            Method::Maildir { path, junk } => {
                f.write_str(" maildir")?;
                if let Some(path) = path {
                    write!(f, " {}", Quoted(path))?;
                }
                f.write_str(if *junk { " junk" } else { "" })?;
            }
            Method::Mbox => f.write_str(" mbox")?,
            Method::Mda { command } => write!(f, " mda {}", Quoted(command))?,
        }
        if let Some(user) = &action.user {
            write!(f, " user {}", Quoted(user))?;
        }
        match action.mapping {
            Some(Mapping::Alias(table)) => write!(f, " alias {}", self.use_of(table))?,
            Some(Mapping::Virtual(table)) => write!(f, " virtual {}", self.use_of(table))?,
            None => {}
        }
        if action.userbase != TableId::GETPWNAM {
            write!(f, " userbase {}", self.use_of(action.userbase))?;
        }
        if let Some(wrapper) = action.wrapper.and_then(|id| self.wrapper(id)) {
            write!(f, " wrapper {}", Quoted(&wrapper.name))?;
        }
        Ok(())
    }

    fn relay(&self, f: &mut Formatter<'_>, action: &RelayAction) -> fmt::Result {
        f.write_str(" relay")?;
        if let Some(table) = action.host {
            write!(f, " host {}", self.use_of(table))?;
        }
        if let Some(table) = action.source {
            write!(f, " src {}", self.use_of(table))?;
        }
        if let Some(name) = &action.helo {
            write!(f, " helo {}", Quoted(name))?;
        }
        if let Some(SenderRewrite { local, domain }) = &action.mail_from {
            let local = local.as_deref().unwrap_or_default();
            let domain = domain.as_deref().unwrap_or_default();
            write!(f, " mail-from {}", Quoted(&format!("{local}@{domain}")))?;
        }
        Ok(())
    }

    fn rule(&self, f: &mut Formatter<'_>, rule: &Rule) -> fmt::Result {
        f.write_str("match")?;
        self.test(f, "tag", rule.tag.as_ref())?;
        f.write_str(negation(rule.from.negated))?;
        match rule.from.test {
            Source::Any => f.write_str(" from any")?,
            Source::Local => f.write_str(" from local")?,
            Source::Name(None) => f.write_str(" from rdns")?,
            Source::Name(Some(test)) => write!(f, " from rdns{}", self.argument(test))?,
            Source::Socket => f.write_str(" from socket")?,
            Source::Src(test) => write!(f, " from src{}", self.argument(test))?,
        }
        f.write_str(negation(rule.to.negated))?;
        match rule.to.test {
            Destination::Any => f.write_str(" for any")?,
            Destination::Domain(test) => write!(f, " for domain{}", self.argument(test))?,
            Destination::Local => f.write_str(" for local")?,
        }
        self.test(f, "helo", rule.helo.as_ref())?;
        if let Some(auth) = &rule.auth {
            write!(f, "{} auth", negation(auth.negated))?;
            if let Login::User(test) = auth.test {
                f.write_str(&self.argument(test))?;
            }
        }
        if let Some(tls) = &rule.tls {
            write!(f, "{} tls", negation(tls.negated))?;
        }
        self.test(f, "mail-from", rule.mail_from.as_ref())?;
        self.test(f, "rcpt-to", rule.rcpt_to.as_ref())?;
        match rule.decision {
            Decision::Action(id) => {
                let name = self.action(id).map(|action| action.name.as_str());
                writeln!(f, " action {}", Quoted(name.unwrap_or_default()))
            }
            Decision::Reject => writeln!(f, " reject"),
        }
    }

    fn test(
        &self,
        f: &mut Formatter<'_>,
        word: &str,
        criterion: Option<&Criterion<TableMatch>>,
    ) -> fmt::Result {
        let Some(Criterion { negated, test }) = criterion else { return Ok(()) };
        write!(f, "{} {word}{}", negation(*negated), self.argument(*test))
    }

    fn argument(&self, test: TableMatch) -> String {
        let regex = if test.regex { " regex" } else { "" };
        format!("{regex} {}", self.use_of(test.table))
    }

    /// A table as an argument: by its name, or its entries if it has none of its own.
    fn use_of(&self, id: TableId) -> String {
        let Some(table) = self.table(id) else { return String::new() };
        match &table.source {
            TableSource::Inline(entries) if table.name.starts_with('<') => {
                Braces(entries).to_string()
            }
            _ => format!("<{}>", Quoted(&table.name)),
        }
    }
}

fn negation(negated: bool) -> &'static str {
    if negated { " !" } else { "" }
}

/// A limit as the file writes it.
fn number(limit: Limit) -> i64 {
    limit.get().map_or(-1, i64::from)
}

fn tasks(limits: &TaskLimits) -> [(&'static str, Limit); 3] {
    [("task-hiwat", limits.high), ("task-lowat", limits.low), ("task-release", limits.release)]
}

/// Limits by keyword, each with a blank before it.
struct Limits<'a>(&'a [(&'a str, Limit)]);

impl Display for Limits<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(word, limit)| write!(f, " {word} {}", number(*limit)))
    }
}

/// The options of `mta limit`, each with a blank before it.
struct MtaOptions<'a>(&'a MtaLimits);

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
struct Delay(Duration);

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
struct Braces<'a>(&'a [TableEntry]);

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
struct Quoted<'a>(&'a str);

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::good;

    const EVERYTHING: &str = r#"
        table aliases { root = bob, "a b" = "x, y" }
        table "odd name" file:/list
        table nothing static
        table accounts getpwnam
        table map db:/map.db
        table program passwd:/users
        table plain passwd
        delim = x
        smtp max-message-size 1M
        smtp sub-addr-delim $delim
        smtp limit max-mails -1 max-rcpt 500
        queue ttl 90m
        bounce warn-interval 1h, 90s
        mta max-deferred 7
        mta limit inet6 max-failures-per-session 0
        mta limit for domain "x.org" conn-delay-host 9
        mda limit max-session 5 task-lowat 2
        mda wrapper nice "nice \"%{mda}\""
        scheduler limit max-inflight 9
        listen on socket tag here
        listen on lo port 2525 tag "TAG 1" hostname h hostnames { "127.0.0.1" = a } mask-src no-dsn
        listen on ::1 no-pipelining
        action "local" maildir "~/M d" junk user vmail alias <aliases> wrapper nice ttl 2d
        action b mbox virtual { "@" = root } userbase <accounts>
        action c lmtp "/run/lmtp" rcpt-to
        action d mda "cat > \"$HOME/x\" \\ y"
        action f forward-only alias <map>
        action g expand-only virtual <program> userbase <plain>
        action e relay host { b, a } src "::1" helo me mail-from "@d" ttl 1s
        match !tag regex "^T" from src { 10.0.0.0/8 } for domain <"odd name"> reject
        match from any for any helo h !auth mail-from "@" rcpt-to "a\.b" action d
        match from rdns regex "x$" for local auth { a, "25" } tls action "local"
        match from rdns !for any action e
        match from socket auth action b
        match from auth "u" for rcpt-to { a = b } action c
    "#;

    #[test]
    fn what_is_written_out_means_the_same() {
        let config = good(EVERYTHING);
        let text = config.to_string();
        let again = good(&text);
        assert_eq!(again.to_string(), text);
        assert_eq!(
            (again.smtp, again.queue, again.bounce),
            (config.smtp, config.queue, config.bounce)
        );
        assert_eq!((again.mta, again.mda), (config.mta, config.mda));
        assert_eq!((again.scheduler, again.wrappers), (config.scheduler, config.wrappers));
        assert_eq!(again.rules.len(), config.rules.len());
        let kinds = |actions: &[Action]| {
            actions.iter().map(|action| (action.name.clone(), action.ttl)).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&again.actions), kinds(&config.actions));
    }

    #[test]
    fn a_configuration_travels_between_roles() {
        let config = good(EVERYTHING);
        let frame = postcard::to_stdvec(&config).unwrap();
        assert_eq!(postcard::from_bytes::<Config>(&frame).unwrap(), config);
    }

    #[test]
    fn statements_are_written_out_in_this_form() {
        let text = good(EVERYTHING).to_string();
        let lines: Vec<_> = text.lines().collect();
        for expected in [
            "table aliases { root = bob, \"a b\" = \"x, y\" }",
            "smtp sub-addr-delim x",
            "bounce warn-interval 1h, 90s",
            "mda wrapper nice \"nice \\\"%{mda}\\\"\"",
            "listen on socket tag here",
            "listen on \"127.0.0.1\" port 2525 tag \"TAG 1\" hostname h \
             hostnames { \"127.0.0.1\" = a } mask-src no-dsn",
            "action \"local\" maildir \"%{user.directory}/M d\" junk user vmail \
             alias <aliases> wrapper nice ttl 2d",
            "match ! tag regex { \"^T\" } from src { \"10.0.0.0/8\" } for domain <\"odd name\"> reject",
            "match from rdns ! for any action e",
        ] {
            assert!(lines.contains(&expected), "{expected}\nin\n{text}");
        }
    }

    proptest! {
        #[test]
        fn any_string_is_read_back_as_it_was(
            text in r#"[ -~\t]{0,20}"#.prop_filter("no word holds these", |text| {
                !text.ends_with('\\')
            })
        ) {
            let config = good(&format!("action {} mbox\nmatch reject", Quoted(&text)));
            prop_assert_eq!(&config.actions[0].name, &text);
        }
    }
}
