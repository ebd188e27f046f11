//! The configuration written out again, as `smtpd -nv` shows it: macros expanded, includes in place,
//! names resolved, defaults said. Read again, the text means the same.

mod action;
mod filter;
mod notation;

use std::fmt::{self, Display, Formatter};

use self::notation::{Braces, Delay, Limits, MtaOptions, Quoted, number, tasks};
use super::limits::{QueueKey, Srs};
use super::names::ANONYMOUS_TABLE;
use super::tree::{
    Action, Config, Criterion, Decision, Destination, Dhe, Endpoint, Listener, ListenerTls, Login,
    Rule, Senders, Source, TableId, TableMatch, TableSource, TlsMode,
};

impl Display for Config {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.named_tables(f)?;
        self.certificates(f)?;
        self.named_filters(f)?;
        self.globals(f)?;
        self.queue_and_srs(f)?;
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
    /// An action as it is written, without the end of its line.
    #[must_use]
    pub fn action_statement(&self, action: &Action) -> String {
        fmt::from_fn(|f| self.action_line(f, action)).to_string().trim_end().to_owned()
    }

    /// A rule as it is written, without the end of its line.
    #[must_use]
    pub fn rule_statement(&self, rule: &Rule) -> String {
        fmt::from_fn(|f| self.rule(f, rule)).to_string().trim_end().to_owned()
    }

    /// A table as it is written where it is used: its name, or its entries if it has none.
    #[must_use]
    pub fn table_statement(&self, table: TableId) -> String {
        self.use_of(table)
    }

    /// Tables with names of their own; others are written where they are used.
    fn named_tables(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let named = |name: &str| !name.starts_with(ANONYMOUS_TABLE);
        for table in self.tables.iter().filter(|table| named(&table.name)) {
            // A built-in one has no place.
            if table.span.is_none() {
                continue;
            }
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

    fn certificates(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for pki in &self.pki {
            let (certificate, key) = (Quoted(&pki.certificate), Quoted(&pki.key));
            write!(f, "pki {} cert {certificate} key {key}", Quoted(&pki.name))?;
            writeln!(
                f,
                "{}",
                match pki.dhe {
                    Dhe::Auto => " dhe auto",
                    Dhe::Legacy => " dhe legacy",
                    Dhe::None => "",
                }
            )?;
        }
        for authority in &self.authorities {
            let certificate = Quoted(&authority.certificate);
            writeln!(f, "ca {} cert {certificate}", Quoted(&authority.name))?;
        }
        Ok(())
    }

    fn queue_and_srs(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "queue ttl {}", Delay(self.queue.ttl))?;
        if self.queue.compression {
            writeln!(f, "queue compression")?;
        }
        match &self.queue.encryption {
            Some(QueueKey::Asked) => writeln!(f, "queue encryption")?,
            Some(QueueKey::StandardInput) => writeln!(f, "queue encryption stdin")?,
            Some(QueueKey::Written(key)) => {
                writeln!(f, "queue encryption {}", Quoted(key.reveal()))?;
            }
            None => {}
        }
        if let Some(key) = &self.srs.key {
            writeln!(f, "srs key {}", Quoted(key.reveal()))?;
        }
        if let Some(key) = &self.srs.backup_key {
            writeln!(f, "srs key backup {}", Quoted(key.reveal()))?;
        }
        if self.srs.days != Srs::default().days {
            writeln!(f, "srs ttl {}d", self.srs.days)?;
        }
        if let Some(name) = &self.admd {
            writeln!(f, "admd {}", Quoted(name))?;
        }
        Ok(())
    }

    fn globals(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "smtp max-message-size {}", self.smtp.max_message_size)?;
        let delimiter = self.smtp.sub_address_delimiter.to_string();
        writeln!(f, "smtp sub-addr-delim {}", Quoted(&delimiter))?;
        let sessions = [("max-mails", self.smtp.max_mails), ("max-rcpt", self.smtp.max_recipients)];
        writeln!(f, "smtp limit{}", Limits(&sessions))?;
        if let Some(ciphers) = &self.smtp.ciphers {
            writeln!(f, "smtp ciphers {}", Quoted(&ciphers.to_string()))?;
        }
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
            ("no-chunking", !listener.chunking),
            ("no-smtputf8", !listener.smtputf8),
            ("no-limits", !listener.limits),
            ("received-auth", listener.received_auth),
            ("proxy-v2", listener.proxy),
        ];
        for (word, _) in flags.iter().filter(|(_, given)| *given) {
            write!(f, " {word}")?;
        }
        if let Some(tls) = &listener.tls {
            self.listener_tls(f, tls)?;
        }
        if let Some(auth) = &listener.auth {
            f.write_str(if auth.required { " auth" } else { " auth-optional" })?;
            if let Some(table) = auth.table {
                write!(f, " {}", self.use_of(table))?;
            }
        }
        if let Some(Senders { table, masquerade }) = listener.senders {
            let masquerade = if masquerade { " masquerade" } else { "" };
            write!(f, " senders {}{masquerade}", self.use_of(table))?;
        }
        if let Some(filter) = listener.filter {
            write!(f, " filter {}", self.filter_use(filter))?;
        }
        writeln!(f)
    }

    fn listener_tls(&self, f: &mut Formatter<'_>, tls: &ListenerTls) -> fmt::Result {
        f.write_str(match tls.mode {
            TlsMode::Immediate => " smtps",
            TlsMode::Offered => " tls",
            TlsMode::Required => " tls-require",
        })?;
        f.write_str(if tls.verify { " verify" } else { "" })?;
        for pki in tls.pki.iter().filter_map(|id| self.pki(*id)) {
            write!(f, " pki {}", Quoted(&pki.name))?;
        }
        if let Some(authority) = tls.authority.and_then(|id| self.authority(id)) {
            write!(f, " ca {}", Quoted(&authority.name))?;
        }
        if let Some(ciphers) = &tls.ciphers {
            write!(f, " ciphers {}", Quoted(&ciphers.to_string()))?;
        }
        if let Some(protocols) = &tls.protocols {
            write!(f, " protocols {}", Quoted(&protocols.to_string()))?;
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
            TableSource::Inline(entries) if table.name.starts_with(ANONYMOUS_TABLE) => {
                Braces(entries).to_string()
            }
            _ => format!("<{}>", Quoted(&table.name)),
        }
    }
}

fn negation(negated: bool) -> &'static str {
    if negated { " !" } else { "" }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::names::ANONYMOUS_CHAIN;
    use crate::config::tests::good;
    use crate::config::tree::Filter;

    const EVERYTHING: &str = r#"
        table aliases { root = bob, "a b" = "x, y" }
        table "odd name" file:/list
        table nothing static
        table accounts getpwnam
        table map db:/map.db
        table program passwd:/users
        table plain passwd
        pki a.org cert "/cert" key "/key" dhe legacy
        pki b.org cert "/cert" key "/key"
        ca c.org cert "/cert"
        proc rspamd "/bin/rspamd -c \"x\"" user a group b
        filter rspamd proc rspamd
        filter own proc-exec "filter-x" chroot "/c"
        filter fast phase connect match !rdns regex { "^x", "y$" } disconnect "421 no"
        filter spam phase rcpt-to match rcpt-to <"odd name"> junk
        filter both chain { rspamd, own }
        smtp ciphers "AES256:CHACHA20"
        queue compression
        queue encryption stdin
        srs ttl 5d
        admd "mx example"
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
        listen on ::1 no-pipelining no-chunking no-limits no-smtputf8
        listen on lo smtps verify pki b.org pki a.org ca c.org auth senders { u = "a@b" } masquerade filter both
        listen on lo port 2526 tls-require pki a.org auth-optional <aliases> received-auth proxy-v2 filter { fast, own } ciphers AES128 protocols tlsv1.3
        action "local" maildir "~/M d" junk user vmail alias <aliases> wrapper nice ttl 2d
        action b mbox virtual { "@" = root } userbase <accounts>
        action c lmtp "/run/lmtp" rcpt-to
        action d mda "cat > \"$HOME/x\" \\ y"
        action f forward-only alias <map>
        action g expand-only virtual <program> userbase <plain>
        action h relay backup mx here tls no-verify helo-src { "::1" = x } pki b.org ca c.org filter own
        action i relay domain { a = b } auth { l = "u:p" } tls protocols tlsv1.2 ciphers default
        action j relay backup filter { own }
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
        assert_eq!(without_places(&again), without_places(&config));
    }

    /// A configuration as it is apart from where things stand and how many tables and chains have
    /// no name of their own.
    fn without_places(config: &Config) -> String {
        let numbers = regex::Regex::new(r"(TableId|FilterId)\(\d+\)|<dyn\w+:\w+>").unwrap();
        let spans = regex::Regex::new(r"span: (Some\()?Span \{[^}]*\}\)?,?").unwrap();
        let text = format!("{:?}", (&config.listeners, &config.actions, &config.rules));
        let named = |filter: &&Filter| !filter.name.starts_with(ANONYMOUS_CHAIN);
        let filters: Vec<_> = config.filters.iter().filter(named).collect();
        let rest = (&config.pki, &config.authorities, &config.processes, filters);
        let numbers_of = (
            (&config.smtp, &config.queue, &config.bounce, &config.mta, &config.mda),
            (&config.scheduler, &config.srs, &config.admd, &config.wrappers),
        );
        let text = format!("{text}{rest:?}{numbers_of:?}");
        numbers.replace_all(&spans.replace_all(&text, ""), "").into_owned()
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
            "pki a.org cert \"/cert\" key \"/key\" dhe legacy",
            "proc rspamd \"/bin/rspamd -c \\\"x\\\"\" user a group b",
            "filter own proc-exec filter-x chroot \"/c\"",
            "filter fast phase connect match ! rdns regex { \"^x\", y$ } disconnect \"421 no\"",
            "filter both chain { rspamd, own }",
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
