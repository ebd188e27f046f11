//! Filters and their programs written out again.

use std::fmt::{self, Formatter};

use super::notation::Quoted;
use crate::config::names::ANONYMOUS_CHAIN;
use crate::config::tree::{
    BuiltInFilter, Config, FilterCondition, FilterDecision, FilterId, FilterKind, Process,
    ProcessId, TableMatch,
};

impl Config {
    /// Programs and filters with names of their own; other chains are written where they are used.
    pub(super) fn named_filters(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, process) in (0..).zip(&self.processes) {
            if self.is_declared(ProcessId(index)) {
                let command = Quoted(&process.command);
                write!(f, "proc {} {command}", Quoted(&process.name))?;
                process_options(f, process)?;
            }
        }
        for filter in &self.filters {
            if filter.name.starts_with(ANONYMOUS_CHAIN) {
                continue;
            }
            let name = Quoted(&filter.name);
            match &filter.kind {
                FilterKind::BuiltIn(built_in) => {
                    write!(f, "filter {name} phase {} match", built_in.phase.name())?;
                    self.built_in_filter(f, built_in)?;
                }
                FilterKind::Chain(chain) => {
                    writeln!(f, "filter {name} chain {}", self.chain(chain))?;
                }
                FilterKind::OwnProcess(id) => {
                    let Some(process) = self.process(*id) else { continue };
                    write!(f, "filter {name} proc-exec {}", Quoted(&process.command))?;
                    process_options(f, process)?;
                }
                FilterKind::Process(id) => {
                    let Some(process) = self.process(*id) else { continue };
                    writeln!(f, "filter {name} proc {}", Quoted(&process.name))?;
                }
            }
        }
        Ok(())
    }

    /// Whether a process needs a statement of its own: all but those that belong to one filter.
    fn is_declared(&self, id: ProcessId) -> bool {
        let shared = self.filters.iter().any(|filter| filter.kind == FilterKind::Process(id));
        let owned = self.filters.iter().any(|filter| filter.kind == FilterKind::OwnProcess(id));
        shared || !owned
    }

    /// The argument of the option `filter`.
    pub(super) fn filter_use(&self, id: FilterId) -> String {
        let Some(filter) = self.filter(id) else { return String::new() };
        match &filter.kind {
            FilterKind::Chain(chain) if filter.name.starts_with(ANONYMOUS_CHAIN) => {
                self.chain(chain)
            }
            _ => Quoted(&filter.name).to_string(),
        }
    }

    fn chain(&self, chain: &[FilterId]) -> String {
        let names = chain.iter().filter_map(|id| self.filter(*id));
        let names: Vec<_> = names.map(|filter| Quoted(&filter.name).to_string()).collect();
        format!("{{ {} }}", names.join(", "))
    }

    fn built_in_filter(&self, f: &mut Formatter<'_>, filter: &BuiltInFilter) -> fmt::Result {
        f.write_str(if filter.negated { " !" } else { "" })?;
        let (word, test) = match filter.condition {
            FilterCondition::Auth(test) => ("auth", test),
            FilterCondition::Fcrdns => ("fcrdns", None),
            FilterCondition::Helo(test) => ("helo", Some(test)),
            FilterCondition::MailFrom(test) => ("mail-from", Some(test)),
            FilterCondition::Rdns(test) => ("rdns", test),
            FilterCondition::RcptTo(test) => ("rcpt-to", Some(test)),
            FilterCondition::Src(test) => ("src", Some(test)),
        };
        write!(f, " {word}")?;
        if let Some(TableMatch { table, regex }) = test {
            let regex = if regex { " regex" } else { "" };
            write!(f, "{regex} {}", self.use_of(table))?;
        }
        match &filter.decision {
            FilterDecision::Bypass => writeln!(f, " bypass"),
            FilterDecision::Disconnect(text) => writeln!(f, " disconnect {}", Quoted(text)),
            FilterDecision::Junk => writeln!(f, " junk"),
            FilterDecision::Reject(text) => writeln!(f, " reject {}", Quoted(text)),
            FilterDecision::Report(text) => writeln!(f, " report {}", Quoted(text)),
            FilterDecision::Rewrite(text) => writeln!(f, " rewrite {}", Quoted(text)),
        }
    }
}

fn process_options(f: &mut Formatter<'_>, process: &Process) -> fmt::Result {
    let options = [("user", &process.user), ("group", &process.group), ("chroot", &process.chroot)];
    for (word, value) in options {
        if let Some(value) = value {
            write!(f, " {word} {}", Quoted(value))?;
        }
    }
    writeln!(f)
}
