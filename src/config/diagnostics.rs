//! What is wrong with a configuration, where, and what would help.
//!
//! The first line of each complaint is stable, since scripts read it: `FILE:LINE: message`. On a
//! terminal the source line follows with a caret and, where there is one, a hint.

use std::fmt;
use std::io;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::tree::Span;

/// Everything that a reading of the configuration complained about, in order.
#[derive(Debug, Default)]
pub struct Diagnostics(Vec<Diagnostic>);

/// One complaint.
#[derive(Debug)]
pub struct Diagnostic {
    severity: Severity,
    place: Option<Place>,
    message: String,
    hint: Option<String>,
}

/// Whether the configuration can be used in spite of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Severity {
    /// No.
    Error,
    /// No, though nothing is wrong: a part of the language has no effect yet, and is never ignored.
    Unsupported,
    /// Yes.
    Warning,
}

/// A stretch of a source line, with the line itself, so that a diagnostic outlives the sources.
#[derive(Debug)]
pub(super) struct Place {
    /// Name of the file.
    pub file: String,
    /// Where in it.
    pub span: Span,
    /// The whole line.
    pub text: String,
}

impl Diagnostics {
    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// Whether something is wrong.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.has(Severity::Error)
    }

    /// Whether the configuration cannot be used: something is wrong or not supported yet.
    #[must_use]
    pub fn are_fatal(&self) -> bool {
        self.has(Severity::Error) || self.has(Severity::Unsupported)
    }

    fn has(&self, severity: Severity) -> bool {
        self.0.iter().any(|diagnostic| diagnostic.severity == severity)
    }

    /// The complaints in order.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.0.iter()
    }

    /// All complaints as text, each line ended: one line each, or with source line and hint when
    /// they are for a terminal.
    #[must_use]
    pub fn render(&self, terminal: bool) -> String {
        let mut text = String::new();
        for diagnostic in &self.0 {
            text.push_str(&diagnostic.to_string());
            text.push('\n');
            if terminal {
                text.push_str(&diagnostic.snippet());
            }
        }
        text
    }
}

/// The stable form: one line a complaint.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl Diagnostic {
    /// An error at a place.
    pub(super) fn error(place: Place, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place: Some(place), message: message.into(), hint: None }
    }

    /// A part of the language that has no effect yet, and what can be done without it.
    pub(super) fn unsupported(place: Place, what: &str, instead: &str) -> Self {
        Self {
            severity: Severity::Unsupported,
            place: Some(place),
            message: format!("{what}: not supported yet"),
            hint: Some(instead.to_owned()),
        }
    }

    /// An error that belongs to no line of the configuration.
    pub(super) fn bare_error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, place: None, message: message.into(), hint: None }
    }

    /// A warning that belongs to no line of the configuration.
    pub(super) fn bare_warning(message: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Warning,
            place: None,
            message: format!("warn: {message}"),
            hint: None,
        }
    }

    /// A warning at a place. Its message begins with `warn: `.
    pub(super) fn warning(place: Place, message: impl fmt::Display) -> Self {
        Self {
            severity: Severity::Warning,
            place: Some(place),
            message: format!("warn: {message}"),
            hint: None,
        }
    }

    /// The same with a hint for the administrator.
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Whether the configuration can be used in spite of it.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The message without the position.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// What would help.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// Line and column, from 1, where it has a place.
    #[must_use]
    pub fn position(&self) -> Option<(u32, u32)> {
        self.place.as_ref().map(|place| (place.span.line, place.span.column))
    }

    /// The source line with a caret, and the hint; empty without a place and a hint.
    fn snippet(&self) -> String {
        let level = match self.severity {
            Severity::Error | Severity::Unsupported => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let Some(place) = &self.place else {
            return self.hint.as_ref().map(|hint| format!("  hint: {hint}\n")).unwrap_or_default();
        };
        let start = floor_boundary(&place.text, (place.span.column as usize).saturating_sub(1));
        let end = floor_boundary(&place.text, start + (place.span.length as usize).max(1));
        let mut annotation = AnnotationKind::Primary.span(start..end.max(start));
        if let Some(hint) = &self.hint {
            annotation = annotation.label(hint.as_str());
        }
        let source = Snippet::source(place.text.as_str())
            .line_start(place.span.line as usize)
            .annotation(annotation);
        let mut text = Renderer::plain().render(&[Group::with_level(level).element(source)]);
        text.push('\n');
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}: ", place.file, place.span.line)?;
        }
        f.write_str(&self.message)
    }
}

/// The nearest place at or before byte `index` where a character begins.
fn floor_boundary(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// What the system says about a failure, without Rust's error number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
