//! A filter with a script, in place of the lookup role and its programs.

use crate::dispatcher::smtp::{FilterLines, FilterQuestion, FilteredLines};
use crate::filter::engine::{Flow, Wants};
use crate::filter::{Decision, Event, Phase};

/// What the filter of a session does.
pub struct FilterScript {
    /// What it wants to know; `None` if it cannot be asked.
    pub interests: Option<Wants>,
    /// What it decides, each at the first question of the phase that is left; then it proceeds.
    pub decisions: Vec<(Phase, Decision)>,
    /// The phase or, for data lines, the line, at which it stops to answer.
    pub silent: Option<Phase>,
    /// What becomes of a line, without line feed; as many lines as wanted come out, with theirs.
    pub line: fn(&[u8]) -> Vec<u8>,
    /// Whether nothing comes out before the end has gone in.
    pub collects: bool,
    /// Bytes of lines taken at once.
    pub pace: usize,
    /// Lines after which it breaks off.
    pub breaks_after: Option<usize>,
}

impl Default for FilterScript {
    fn default() -> Self {
        Self {
            interests: Some(Wants { events: true, phases: u16::MAX }),
            decisions: Vec::new(),
            silent: None,
            line: |line| [line, b"\n"].concat(),
            collects: false,
            pace: usize::MAX,
            breaks_after: None,
        }
    }
}

/// Something that the filter was told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// The session begins; the client has this name.
    Begin(String),
    /// An event.
    Event(Event),
    /// A line of a message.
    Line(Vec<u8>),
    /// A question.
    Question(Phase, Vec<u8>),
}

/// A filter at work.
#[derive(Default)]
pub struct ScriptedFilter {
    /// What it does.
    pub script: FilterScript,
    /// What it was told.
    pub told: Vec<Told>,
    /// The line that is not whole yet.
    line: Vec<u8>,
    output: Vec<u8>,
    lines: usize,
}

impl ScriptedFilter {
    pub(super) fn ask(&mut self, question: &FilterQuestion) -> Option<Decision> {
        let phase = question.phase;
        self.told.push(Told::Question(phase, question.parameter.clone()));
        if self.script.silent == Some(phase) {
            return None;
        }
        let place = self.script.decisions.iter().position(|(of, _)| *of == phase);
        Some(place.map_or(Decision::Proceed, |place| self.script.decisions.remove(place).1))
    }

    pub(super) fn pass(&mut self, sent: &FilterLines) -> Option<FilteredLines> {
        if self.script.silent == Some(Phase::DataLine) {
            return None;
        }
        let taken = sent.lines.len().min(self.script.pace);
        let mut flow = Flow::More;
        for byte in sent.lines.iter().take(taken) {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            self.told.push(Told::Line(line.clone()));
            self.lines += 1;
            if self.script.breaks_after == Some(self.lines) {
                flow = Flow::Broken;
                break;
            }
            if line == b"." {
                flow = Flow::Ended;
                break;
            }
            self.output.extend((self.script.line)(&line));
        }
        let withheld = self.script.collects && flow == Flow::More;
        let output = if withheld { Vec::new() } else { std::mem::take(&mut self.output) };
        Some(FilteredLines { taken, output, flow })
    }
}
