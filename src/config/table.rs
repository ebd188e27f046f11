//! `table` and tables written as arguments.

use super::diagnostics::{Diagnostic, reason};
use super::lexer::TokenKind;
use super::parser::{Abandoned, Parsed, Parser, Quote};
use super::tree::{BuiltIn, Span, TableDecl, TableEntry, TableId, TableKind, TableSource};
use crate::table::file;

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
        let (kind, source) = if self.accept_byte(b'{') {
            let entries = self.entries()?;
            (kind_of(&entries), TableSource::Inline(entries))
        } else {
            let place = self.text()?;
            self.backend(&name, &place)?
        };
        if self.config.table_named(&name.text).is_some() {
            let message = format!("table_create: table \"{}\" already defined", name.text);
            return Err(self.error(name.span, message));
        }
        self.add_table(TableDecl { name: name.text, span: Some(span), source, kind })?;
        Ok(())
    }

    /// A table as an argument: a word alone is a list of one, braces are a table without a name.
    pub(super) fn table_argument(&mut self) -> Parsed<Argument> {
        let span = self.peek().span;
        if self.accept_byte(b'<') {
            let name = self.text()?;
            self.expect(b'>')?;
            return match self.config.table_named(&name.text) {
                Some(table) => Ok(Argument { table, span: name.span }),
                None => Err(self.error(name.span, format!("no such table: {}", name.text))),
            };
        }
        let entries = if self.accept_byte(b'{') {
            self.entries()?
        } else {
            vec![TableEntry { key: self.text()?.text, value: None }]
        };
        let table = self.add_table(TableDecl {
            name: format!("<dynamic:{}>", self.anonymous_tables),
            span: Some(span),
            kind: kind_of(&entries),
            source: TableSource::Inline(entries),
        })?;
        self.anonymous_tables += 1;
        Ok(Argument { table, span })
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
        Err(self.error(argument.span, message))
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
            return Err(self.error(place.span, message));
        }
        match (backend, path) {
            ("static" | "file", Some(path)) => self.table_file(name, path, place.span),
            ("static" | "file", None) => {
                Ok((TableKind::Undecided, TableSource::Inline(Vec::new())))
            }
            ("getpwnam", None) => Ok((TableKind::Dynamic, TableSource::Users)),
            ("getpwnam", Some(path)) => Err(self.error(place.span, invalid_file(path, &name.text))),
            ("db", Some(path)) => Ok((TableKind::Dynamic, TableSource::Db(path.to_owned()))),
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
                let hint = format!("there is no program table-{other}");
                Err(self.error_with_hint(place.span, message, &hint))
            }
        }
    }

    /// Reads a table's file to see what it holds. A bad one is an error, but the table exists.
    fn table_file(
        &mut self,
        name: &Quote,
        path: &str,
        span: Span,
    ) -> Parsed<(TableKind, TableSource)> {
        let failure = match self.files.read(path) {
            Ok(text) => match file::parse(&text, TableKind::Undecided) {
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
