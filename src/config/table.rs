//! `table` and tables written as arguments.

use super::diagnostics::{Diagnostic, reason};
use super::lexer::TokenKind;
use super::names::ANONYMOUS_TABLE;
use super::nearest::nearest;
use super::parser::{Abandoned, Parsed, Parser, Quote};
use super::tree::{BuiltIn, Span, TableDecl, TableEntry, TableId, TableKind, TableSource};
use crate::table::{file, map};

/// A table as an argument of an option.
#[derive(Clone, Copy, Debug)]
pub(super) struct Argument {
    pub table: TableId,
    pub span: Span,
}

/// What an option does with a table, and so which kinds it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Usage {
    /// Asks for accounts.
    Accounts,
    /// Looks whether a key is there, also in a mapping.
    AnyKeys,
    /// Looks whether a key is there, in a list alone.
    Keys,
    /// Asks for the value of a key.
    Values,
}

/// The tables that exist before the first line, in the order of the constants of [`TableId`].
pub(super) fn built_in() -> Vec<TableDecl> {
    let table =
        |name: &str, kind, source| TableDecl { name: name.to_owned(), span: None, source, kind };
    vec![
        table("<localnames>", TableKind::List, TableSource::BuiltIn(BuiltIn::LocalNames)),
        table("<localhost>", TableKind::List, TableSource::BuiltIn(BuiltIn::LocalHost)),
        table("<anyhost>", TableKind::List, TableSource::BuiltIn(BuiltIn::AnyHost)),
        table("<anydestination>", TableKind::List, TableSource::BuiltIn(BuiltIn::AnyDestination)),
        table("<getpwnam>", TableKind::Dynamic, TableSource::Users),
    ]
}

impl Parser<'_> {
    /// `table NAME { … }`, `table NAME PATH`, `table NAME BACKEND:PATH`.
    pub(super) fn table(&mut self, span: Span) -> Parsed<()> {
        let name = self.text()?;
        let declared = self.declare_table(&name, span);
        if declared.is_err() {
            self.names.failed_tables.entry(name.text).or_insert(span);
        }
        declared
    }

    fn declare_table(&mut self, name: &Quote, span: Span) -> Parsed<()> {
        let (kind, source) = if self.accept_byte(b'{') {
            let entries = self.entries()?;
            (kind_of(&entries), TableSource::Inline(entries))
        } else {
            let place = self.text()?;
            self.backend(name, &place)?
        };
        if let Some(hint) = self.table_taken(&name.text) {
            let message = format!("table_create: table \"{}\" already defined", name.text);
            return Err(self.error_with_hint(name.span, message, &hint));
        }
        let declared = TableDecl { name: name.text.clone(), span: Some(span), source, kind };
        let table = self.add_table(declared)?;
        self.names.tables.insert(name.text.clone(), table);
        Ok(())
    }

    /// Why a table cannot have this name.
    fn table_taken(&self, name: &str) -> Option<String> {
        if let Some(first) = self.table_called(name) {
            let span = self.config.table(first).and_then(|first| first.span);
            return Some(match span {
                Some(span) => format!("it is declared in line {}", span.line),
                None => "it is built in".to_owned(),
            });
        }
        let reserved = name.starts_with(ANONYMOUS_TABLE);
        reserved.then(|| "tables without a name are called like this".to_owned())
    }

    /// The table with this name, also a built-in one.
    fn table_called(&self, name: &str) -> Option<TableId> {
        let built_in = || (0..).zip(built_in()).find(|(_, table)| table.name == name);
        let declared = self.names.tables.get(name).copied();
        declared.or_else(|| built_in().map(|(index, _)| TableId(index)))
    }

    /// A table as an argument: a word alone is a list of one, braces are a table without a name.
    pub(super) fn table_argument(&mut self) -> Parsed<Argument> {
        let span = self.peek().span;
        if self.accept_byte(b'<') {
            let name = self.text()?;
            self.expect(b'>')?;
            return match self.table_called(&name.text) {
                Some(table) => Ok(Argument { table, span: name.span }),
                None => Err(self.no_such_table(&name)),
            };
        }
        let entries = if self.accept_byte(b'{') {
            self.entries()?
        } else {
            vec![TableEntry { key: self.text()?.text, value: None }]
        };
        let table = self.add_table(TableDecl {
            name: format!("{ANONYMOUS_TABLE}{}>", self.names.anonymous_tables),
            span: Some(span),
            kind: kind_of(&entries),
            source: TableSource::Inline(entries),
        })?;
        self.names.anonymous_tables += 1;
        Ok(Argument { table, span })
    }

    fn no_such_table(&mut self, name: &Quote) -> Abandoned {
        let message = format!("no such table: {}", name.text);
        if let Some(failed) = self.names.failed_tables.get(&name.text) {
            let hint = format!("its declaration in line {} has an error", failed.line);
            return self.error_with_hint(name.span, message, &hint);
        }
        let known: Vec<String> = self.names.tables.keys().cloned().collect();
        self.unknown(name.span, message, &name.text, known.iter().map(String::as_str))
    }

    /// A table argument where it may be left out.
    pub(super) fn optional_table_argument(&mut self) -> Parsed<Option<Argument>> {
        match self.peek().kind {
            TokenKind::Text(_) | TokenKind::Other(b'{' | b'<') => self.table_argument().map(Some),
            _ => Ok(None),
        }
    }

    /// The table of an argument, if its kind suits the use.
    pub(super) fn usable(
        &mut self,
        argument: Argument,
        usage: Usage,
        purpose: &str,
    ) -> Parsed<TableId> {
        if self.suits(argument, usage) {
            return Ok(argument.table);
        }
        let name = self.table_name(argument.table);
        let message = format!("table \"{name}\" may not be used for {purpose} lookups");
        let hint = self.unsuited(argument);
        Err(self.error_with_hint(argument.span, message, &hint))
    }

    /// What a table is that does not suit its use.
    pub(super) fn unsuited(&self, argument: Argument) -> String {
        let Some(table) = self.config.table(argument.table) else { return String::new() };
        let what = match table.kind {
            TableKind::Dynamic => "holds accounts alone",
            TableKind::List => "is a list, a mapping is needed here",
            TableKind::Mapping => "is a mapping, a list is needed here",
            TableKind::Undecided => "is empty, so that it is neither a list nor a mapping",
        };
        let name = &table.name;
        if name.starts_with('<') {
            format!("table {name} {what}")
        } else {
            format!("table <{name}> {what}")
        }
    }

    /// Whether a table's kind suits a use.
    pub(super) fn suits(&self, argument: Argument, usage: Usage) -> bool {
        let Some(declared) = self.config.table(argument.table) else { return false };
        match declared.kind {
            // What a program or a map file holds is not known here.
            TableKind::Dynamic => declared.source != TableSource::Users || usage == Usage::Accounts,
            TableKind::List => matches!(usage, Usage::AnyKeys | Usage::Keys),
            TableKind::Mapping => usage != Usage::Keys,
            TableKind::Undecided => false,
        }
    }

    /// The name of a table, for messages.
    pub(super) fn table_name(&self, table: TableId) -> String {
        self.config.table(table).map(|declared| declared.name.clone()).unwrap_or_default()
    }

    fn add_table(&mut self, table: TableDecl) -> Parsed<TableId> {
        let Ok(index) = u32::try_from(self.config.tables.len()) else { return Err(Abandoned) };
        self.config.tables.push(table);
        Ok(TableId(index))
    }

    /// What stands between braces, the opening one read.
    fn entries(&mut self) -> Parsed<Vec<TableEntry>> {
        self.skip_newlines();
        let first = self.text()?;
        let mapping = self.is_mapping_sign();
        let mut entries = vec![self.entry(first, mapping)?];
        loop {
            let comma = self.accept_byte(b',');
            self.skip_newlines();
            if !comma && self.accept_byte(b'}') {
                return Ok(entries);
            }
            let key = self.text()?;
            entries.push(self.entry(key, mapping)?);
        }
    }

    fn entry(&mut self, key: Quote, mapping: bool) -> Parsed<TableEntry> {
        if !mapping {
            return Ok(TableEntry { key: key.text, value: None });
        }
        if !self.is_mapping_sign() {
            return Err(self.unexpected_next());
        }
        self.next();
        let value = self.text()?.text;
        Ok(TableEntry { key: key.text, value: Some(value) })
    }

    fn is_mapping_sign(&mut self) -> bool {
        matches!(self.peek().kind, TokenKind::Arrow | TokenKind::Other(b'='))
    }

    /// Where a declared table comes from: a path, or a backend with or without one.
    fn backend(&mut self, name: &Quote, place: &Quote) -> Parsed<(TableKind, TableSource)> {
        let (backend, path) = match place.text.split_once(':') {
            _ if place.text.starts_with('/') => ("static", Some(place.text.as_str())),
            Some((backend, path)) => (backend, Some(path)),
            None => (place.text.as_str(), None),
        };
        if path.is_some_and(|path| !path.starts_with('/')) {
            let message = format!("invalid backend parameter for table: {}", name.text);
            let hint = "the path after the colon must begin with /";
            return Err(self.error_with_hint(place.span, message, hint));
        }
        match (backend, path) {
            ("static" | "file", Some(path)) => self.table_file(name, path, place.span),
            ("static" | "file", None) => {
                Ok((TableKind::Undecided, TableSource::Inline(Vec::new())))
            }
            ("getpwnam", None) => Ok((TableKind::Dynamic, TableSource::Users)),
            ("getpwnam", Some(path)) => {
                let message = invalid_file(path, &name.text);
                let hint = "the system's accounts are in no file of their own";
                Err(self.error_with_hint(place.span, message, hint))
            }
            ("db", Some(path)) => self.map_file(name, path, place.span),
            ("db", None) => {
                let message = format!("invalid backend parameter for table: {}", name.text);
                Err(self.error_with_hint(place.span, message, "the path of the map is missing"))
            }
            (backend, parameter) if self.files.table_program(backend) => {
                let parameter = parameter.map(str::to_owned);
                let source = TableSource::Program { backend: backend.to_owned(), parameter };
                Ok((TableKind::Dynamic, source))
            }
            (other, _) => {
                let message = format!("table_create: backend \"{other}\" does not exist");
                let hint = match nearest(other, ["db", "file", "getpwnam", "static"]) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there is no program table-{other}"),
                };
                Err(self.error_with_hint(place.span, message, &hint))
            }
        }
    }

    /// Looks whether a file is a map. Another one is an error, but the table exists.
    fn map_file(
        &mut self,
        name: &Quote,
        path: &str,
        span: Span,
    ) -> Parsed<(TableKind, TableSource)> {
        let failure = match self.files.read_head(path) {
            Ok(head) => match map::recognise(&head) {
                Ok(()) => None,
                Err(error @ map::MapError::Berkeley) => {
                    Some(format!("{path}: {error}: {}", map::conversion(path)))
                }
                Err(error) => Some(format!("{path}: {error}")),
            },
            Err(error) => Some(format!("{path}: {}", reason(&error))),
        };
        if let Some(failure) = failure {
            self.diagnostics.push(Diagnostic::bare_error(failure));
            self.error(span, invalid_file(path, &name.text));
        }
        Ok((TableKind::Dynamic, TableSource::Db(path.to_owned())))
    }

    /// Reads a table's file to see what it holds. A bad one is an error, but the table exists.
    fn table_file(
        &mut self,
        name: &Quote,
        path: &str,
        span: Span,
    ) -> Parsed<(TableKind, TableSource)> {
        let failure = match self.files.read(path) {
            Ok(text) => match file::survey(&text, TableKind::Undecided) {
                Ok(contents) => {
                    return Ok((contents.kind, TableSource::File(path.to_owned())));
                }
                Err(error) => format!("{path}:{error}"),
            },
            Err(error) => format!("{path}: fopen: {}", reason(&error)),
        };
        self.diagnostics.push(Diagnostic::bare_error(failure));
        self.error(span, invalid_file(path, &name.text));
        Ok((TableKind::Undecided, TableSource::File(path.to_owned())))
    }
}

fn invalid_file(path: &str, name: &str) -> String {
    format!("invalid configuration file {path} for table {name}")
}

fn kind_of(entries: &[TableEntry]) -> TableKind {
    match entries.first() {
        Some(entry) if entry.value.is_some() => TableKind::Mapping,
        _ => TableKind::List,
    }
}
