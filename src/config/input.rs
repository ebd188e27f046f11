//! The characters that the lexer sees: files that include one another, text pushed back, and where
//! each character stands.

use super::tree::Span;

/// How many files are read, one that is included twice counted twice.
const MAX_FILES: usize = 1024;

/// One byte of input and where it came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Character {
    /// The byte. The end of each file gives one more newline.
    pub byte: u8,
    /// Its place; for text of a macro, that of its use. The length is not set.
    pub at: Span,
    /// Whether it is text of a macro.
    pub expanded: bool,
    /// Whether it stands for the end of a file.
    pub end_of_file: bool,
}

/// The files being read and what was pushed back.
#[derive(Debug, Default)]
pub(super) struct Input {
    sources: Vec<Source>,
    open: Vec<Reading>,
}

#[derive(Debug)]
struct Source {
    name: String,
    text: Vec<u8>,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// How far a file has been read.
#[derive(Debug)]
struct Reading {
    source: u16,
    offset: usize,
    line: u32,
    line_start: usize,
    ended: bool,
    /// What is to be read before the rest of the file, the next byte last.
    pushed_back: Vec<Character>,
}

impl Input {
    /// Reads on in the file `name`, then goes back to where it is now. `false` when there are too
    /// many files: some may include others several times, each of which does the same.
    pub fn enter(&mut self, name: &str, text: Vec<u8>) -> bool {
        if self.sources.len() >= MAX_FILES {
            return false;
        }
        let Ok(source) = u16::try_from(self.sources.len()) else { return false };
        let ends = text.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(end, _)| end + 1)).collect();
        self.sources.push(Source { name: name.to_owned(), text, lines });
        self.open.push(Reading {
            source,
            offset: 0,
            line: 1,
            line_start: 0,
            ended: false,
            pushed_back: Vec::new(),
        });
        true
    }

    /// How many files are open, one inside the other.
    pub fn depth(&self) -> usize {
        self.open.len()
    }

    /// The next byte; `None` at the end of everything.
    pub fn next(&mut self) -> Option<Character> {
        loop {
            let reading = self.open.last_mut()?;
            if let Some(character) = reading.pushed_back.pop() {
                return Some(character);
            }
            let text = self.sources.get(usize::from(reading.source)).map(|s| s.text.as_slice())?;
            let at = reading.place();
            if let Some(&byte) = text.get(reading.offset) {
                reading.offset += 1;
                if byte == b'\n' {
                    reading.line += 1;
                    reading.line_start = reading.offset;
                }
                return Some(Character { byte, at, expanded: false, end_of_file: false });
            }
            if !reading.ended {
                reading.ended = true;
                return Some(Character { byte: b'\n', at, expanded: false, end_of_file: true });
            }
            self.open.pop();
        }
    }

    /// Gives `character` back, to be read next in the file that is open now.
    pub fn push_back(&mut self, character: Character) {
        if let Some(reading) = self.open.last_mut() {
            reading.pushed_back.push(character);
        }
    }

    /// Puts the value of a macro in front of the rest, as if it stood at `at`.
    pub fn expand(&mut self, value: &str, at: Span) {
        for &byte in value.as_bytes().iter().rev() {
            self.push_back(Character { byte, at, expanded: true, end_of_file: false });
        }
    }

    /// Name of the file that a place is in, and the text of its line.
    pub fn line(&self, at: Span) -> (String, String) {
        let Some(source) = self.sources.get(usize::from(at.file)) else {
            return Default::default();
        };
        let start = (at.line as usize).checked_sub(1).and_then(|index| source.lines.get(index));
        let rest = start.and_then(|&start| source.text.get(start..)).unwrap_or_default();
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        (source.name.clone(), String::from_utf8_lossy(line).into_owned())
    }

    /// The names of all files read so far.
    pub fn names(self) -> Vec<String> {
        self.sources.into_iter().map(|source| source.name).collect()
    }
}

impl Reading {
    fn place(&self) -> Span {
        let column = u32::try_from(self.offset - self.line_start + 1).unwrap_or(u32::MAX);
        Span { file: self.source, line: self.line, column, length: 0 }
    }
}
