//! `filter` and `proc`: programs and conditions in the path of a session.

use super::names::ANONYMOUS_CHAIN;
use super::parser::{Abandoned, Parsed, Parser, Quote};
use super::tree::{
    BuiltInFilter, Filter, FilterCondition, FilterDecision, FilterId, FilterKind, FilterPhase,
    Process, ProcessId, Span, TableMatch,
};

/// What a built-in filter can look at, in the order in which a session tells it.
const CONDITIONS: [&str; 7] = ["fcrdns", "rdns", "src", "helo", "auth", "mail-from", "rcpt-to"];

impl Parser<'_> {
    /// `filter NAME ( proc … | proc-exec … | phase … | chain … )`.
    pub(super) fn filter(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        let (word, _) = self.one_of(&["chain", "phase", "proc", "proc-exec"])?;
        let kind = match word {
            "proc" => {
                let process = self.text()?;
                self.new_filter(&name)?;
                FilterKind::Process(self.declared_process(&process)?)
            }
            "proc-exec" => {
                let command = self.text()?.text;
                let process = self.process_options(&name, span, command)?;
                self.new_filter(&name)?;
                FilterKind::OwnProcess(self.replace_process(process, &name)?)
            }
            "phase" => {
                let filter = self.phase()?;
                self.new_filter(&name)?;
                FilterKind::BuiltIn(filter)
            }
            _ => {
                self.expect(b'{')?;
                let chain = self.chain()?;
                self.new_filter(&name)?;
                FilterKind::Chain(chain)
            }
        };
        self.add_filter(Filter { name: name.text, span, kind }).map(|_| ())
    }

    /// `proc NAME COMMAND [user U] [group G] [chroot DIR]`.
    pub(super) fn proc(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        let command = self.text()?.text;
        let process = self.process_options(&name, span, command)?;
        if self.config.process_named(&name.text).is_some() {
            let message = format!("processor already exists with that name: {}", name.text);
            return Err(self.error(name.span, message));
        }
        self.add_process(process).map(|_| ())
    }

    /// The argument of the option `filter`: a name, or names in braces.
    pub(super) fn filter_use(&mut self) -> Parsed<FilterId> {
        let span = self.peek().span;
        if !self.accept_byte(b'{') {
            let name = self.text()?;
            return self.declared_filter(&name);
        }
        let chain = self.chain()?;
        let name = format!("{ANONYMOUS_CHAIN}{:08x}>", self.names.anonymous_chains);
        self.names.anonymous_chains += 1;
        self.add_filter(Filter { name, span, kind: FilterKind::Chain(chain) })
    }

    /// Names until the closing brace, separated like the entries of a table.
    fn chain(&mut self) -> Parsed<Vec<FilterId>> {
        self.skip_newlines();
        let mut names = vec![self.text()?];
        loop {
            let comma = self.accept_byte(b',');
            self.skip_newlines();
            if !comma && self.accept_byte(b'}') {
                break;
            }
            names.push(self.text()?);
        }
        let mut chain = Vec::with_capacity(names.len());
        for name in names {
            let filter = self.declared_filter(&name)?;
            let kind = self.config.filter(filter).map(|filter| &filter.kind);
            if matches!(kind, Some(FilterKind::Chain(_))) {
                let message =
                    format!("no filter chain allowed within a filter chain: {}", name.text);
                return Err(self.error(name.span, message));
            }
            if chain.contains(&filter) {
                let message =
                    format!("no filter allowed twice within a filter chain: {}", name.text);
                return Err(self.error(name.span, message));
            }
            chain.push(filter);
        }
        Ok(chain)
    }

    /// The options of a process, each at most once.
    fn process_options(&mut self, name: &Quote, span: Span, command: String) -> Parsed<Process> {
        let (mut user, mut group, mut chroot) = (None, None, None);
        while let Some((word, place)) = self.accept_one(&["chroot", "group", "user"]) {
            let value = self.text()?.text;
            let slot = match word {
                "chroot" => &mut chroot,
                "group" => &mut group,
                _ => &mut user,
            };
            if slot.replace(value).is_some() {
                let message = format!("{word} already specified for this processor");
                return Err(self.error(place, message));
            }
        }
        Ok(Process { name: name.text.clone(), span, command, user, group, chroot })
    }

    /// `PHASE match [!] CONDITION DECISION`, with exactly one condition.
    fn phase(&mut self) -> Parsed<BuiltInFilter> {
        if let Some(span) = self.accept("auth") {
            let hint = "at AUTH, no built-in filter is asked; ask at mail-from";
            return Err(self.error_with_hint(span, "phase auth may not be used", hint));
        }
        let names = FilterPhase::ALL.map(FilterPhase::name);
        let (word, _) = self.one_of(&names)?;
        let phase = FilterPhase::ALL.into_iter().find(|phase| phase.name() == word);
        let phase = phase.unwrap_or(FilterPhase::Connect);
        self.expect_word("match")?;
        let negated = self.accept_byte(b'!');
        let condition = self.condition(phase)?;
        let decision = self.decision(phase)?;
        Ok(BuiltInFilter { phase, negated, condition, decision })
    }

    fn condition(&mut self, phase: FilterPhase) -> Parsed<FilterCondition> {
        // What is known by then.
        let known = match phase {
            FilterPhase::Connect => 3,
            FilterPhase::Helo | FilterPhase::Ehlo => 4,
            FilterPhase::MailFrom | FilterPhase::Data | FilterPhase::Commit => 6,
            FilterPhase::RcptTo => 7,
        };
        let (known, unknown) = CONDITIONS.split_at(known);
        if let Some((word, span)) = self.accept_one(unknown) {
            let hint = format!("`{word}` is not known in phase {}", phase.name());
            return Err(self.error_with_hint(span, "syntax error", &hint));
        }
        self.forget_expected();
        let (word, _) = self.one_of(known)?;
        Ok(match word {
            "fcrdns" => FilterCondition::Fcrdns,
            "rdns" => FilterCondition::Rdns(self.filter_table()?),
            "src" => FilterCondition::Src(self.required_filter_table()?),
            "helo" => FilterCondition::Helo(self.required_filter_table()?),
            "auth" => FilterCondition::Auth(self.filter_table()?),
            "mail-from" => FilterCondition::MailFrom(self.required_filter_table()?),
            _ => FilterCondition::RcptTo(self.required_filter_table()?),
        })
    }

    /// `[regex] TABLE`, of any kind.
    fn required_filter_table(&mut self) -> Parsed<TableMatch> {
        match self.filter_table()? {
            Some(found) => Ok(found),
            None => Err(self.unexpected_next()),
        }
    }

    fn filter_table(&mut self) -> Parsed<Option<TableMatch>> {
        let regex = self.accept("regex").is_some();
        match self.optional_table_argument()? {
            Some(argument) => Ok(Some(TableMatch { table: argument.table, regex })),
            None if regex => Err(self.unexpected_next()),
            None => Ok(None),
        }
    }

    fn decision(&mut self, phase: FilterPhase) -> Parsed<FilterDecision> {
        let words: &[&str] = match phase {
            FilterPhase::Commit => &["disconnect", "reject", "report", "rewrite"],
            _ => &["bypass", "disconnect", "junk", "reject", "report", "rewrite"],
        };
        if let Some((_, span)) = self.accept_one(&CONDITIONS) {
            let hint = "a filter has one condition; a chain of filters may have more";
            return Err(self.error_with_hint(span, "syntax error", hint));
        }
        self.forget_expected();
        let (word, _) = self.one_of(words)?;
        Ok(match word {
            "bypass" => FilterDecision::Bypass,
            "disconnect" => FilterDecision::Disconnect(self.text()?.text),
            "junk" => FilterDecision::Junk,
            "reject" => FilterDecision::Reject(self.text()?.text),
            "report" => FilterDecision::Report(self.text()?.text),
            _ => FilterDecision::Rewrite(self.text()?.text),
        })
    }

    /// Complains when a filter's name is taken.
    fn new_filter(&mut self, name: &Quote) -> Parsed<()> {
        let taken = self.config.filter_named(&name.text);
        if taken.is_none() && !name.text.starts_with(ANONYMOUS_CHAIN) {
            return Ok(());
        }
        let message = format!("filter already exists with that name: {}", name.text);
        let first = taken.and_then(|first| self.config.filter(first)).map(|first| first.span.line);
        Err(match first {
            Some(line) => {
                self.error_with_hint(name.span, message, &format!("it is declared in line {line}"))
            }
            None => self.error(name.span, message),
        })
    }

    fn declared_filter(&mut self, name: &Quote) -> Parsed<FilterId> {
        if let Some(filter) = self.config.filter_named(&name.text) {
            return Ok(filter);
        }
        let message = format!("no filter exist with that name: {}", name.text);
        let known = self.config.filters.iter().map(|filter| filter.name.clone());
        let known: Vec<String> = known.collect();
        Err(self.unknown(name.span, message, &name.text, known.iter().map(String::as_str)))
    }

    fn declared_process(&mut self, name: &Quote) -> Parsed<ProcessId> {
        if let Some(process) = self.config.process_named(&name.text) {
            return Ok(process);
        }
        let message = format!("no processor exist with that name: {}", name.text);
        let known = self.config.processes.iter().map(|process| process.name.clone());
        let known: Vec<String> = known.collect();
        Err(self.unknown(name.span, message, &name.text, known.iter().map(String::as_str)))
    }

    /// A filter's own process, which takes the place of a declared one with its name.
    fn replace_process(&mut self, process: Process, name: &Quote) -> Parsed<ProcessId> {
        let Some(id) = self.config.process_named(&name.text) else {
            return self.add_process(process);
        };
        let message = format!("this replaces the processor {}", name.text);
        self.warning(name.span, &message);
        if let Some(old) = self.config.processes.get_mut(id.0 as usize) {
            *old = process;
        }
        Ok(id)
    }

    fn add_process(&mut self, process: Process) -> Parsed<ProcessId> {
        let index = u32::try_from(self.config.processes.len()).map_err(|_| Abandoned)?;
        self.config.processes.push(process);
        Ok(ProcessId(index))
    }

    fn add_filter(&mut self, filter: Filter) -> Parsed<FilterId> {
        let index = u32::try_from(self.config.filters.len()).map_err(|_| Abandoned)?;
        self.config.filters.push(filter);
        Ok(FilterId(index))
    }
}
