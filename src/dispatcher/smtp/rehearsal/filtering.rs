//! Filters whose script a fuzz target makes, and what must hold for what they are told.

use super::{FilterScript, Rehearsal, Told};
use crate::filter::engine::Wants;
use crate::filter::{Decision, Event, Phase};

/// Texts of refusals, of which not all are any.
const REFUSALS: [&str; 8] = [
    "550 5.7.1 no",
    "450 later",
    "421 4.3.2 go",
    "200 ok",
    "55 foo",
    "550-foo",
    "550 a\r\n250 \u{7}\u{e9}",
    "",
];
/// Arguments that filters make, of which not all are proper.
const ARGUMENTS: [&[u8]; 8] = [
    b"new.name",
    b"<new@from> SIZE=1",
    b"<a\0@b>",
    b"bad name",
    b"",
    b"PLAIN AGFsaWNlAGFiYw==",
    b"<\xff@x>\r\nDATA",
    b"0 LAST",
];
/// What a filter makes of a line.
type Rewriting = fn(&[u8]) -> Vec<u8>;

/// What becomes of lines.
const LINES: [Rewriting; 8] = [
    echoed,
    |_| Vec::new(),
    |line| [b".", line, b"\n"].concat(),
    |line| [line, b"\r\n"].concat(),
    |line| [line, b"\r\n.\r\n"].concat(),
    |line| [line, b"\nX-Added: 1\n"].concat(),
    |line| if line.is_empty() { b"hello\n\n".to_vec() } else { echoed(line) },
    |line| line.to_ascii_uppercase(),
];

fn echoed(line: &[u8]) -> Vec<u8> {
    [line, b"\n"].concat()
}

/// Bytes of a plan in front of its decisions.
const HEAD: usize = 7;

/// What the filter of a session does, as read from the bytes of a fuzz target.
pub(super) struct FilterPlan {
    interests: Option<Wants>,
    decisions: Vec<(Phase, Decision)>,
    silent: Option<Phase>,
    line: Rewriting,
    collects: bool,
    pace: usize,
    breaks_after: Option<usize>,
}

impl FilterPlan {
    /// Reads a plan; returns it with the bytes behind.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (&[low, high, style, pace, breaks, silent, count], mut rest) =
            bytes.split_first_chunk::<HEAD>()?;
        let mut decisions = Vec::new();
        for _ in 0..count & 7 {
            let (&[phase, kind], behind) = rest.split_first_chunk::<2>()?;
            rest = behind;
            let text = usize::from(kind >> 3);
            let refusal = || REFUSALS.get(text & 7).copied().unwrap_or_default().to_owned();
            let decision = match kind & 7 {
                0 | 1 => Decision::Proceed,
                2 => Decision::Junk,
                3 | 4 => Decision::Reject(refusal()),
                5 => Decision::Disconnect(refusal()),
                _ => Decision::Rewrite(ARGUMENTS.get(text & 7).copied().unwrap_or_default().into()),
            };
            if let Some(phase) = Phase::ALL.get(usize::from(phase) % Phase::ALL.len()) {
                decisions.push((*phase, decision));
            }
        }
        let events = high & 0x80 == 0;
        let phases = u16::from_be_bytes([high & 0x7f, low]);
        let plan = Self {
            interests: (style & 0x10 == 0).then_some(Wants { events, phases }),
            decisions,
            silent: Phase::ALL.get(usize::from(silent)).copied(),
            line: LINES.get(usize::from(style & 7)).copied().unwrap_or(echoed),
            collects: style & 8 != 0,
            pace: if pace == 0 { usize::MAX } else { usize::from(pace) },
            breaks_after: (breaks > 0).then_some(usize::from(breaks)),
        };
        Some((plan, rest))
    }

    /// The script of a session.
    pub(super) fn script(&self) -> FilterScript {
        FilterScript {
            interests: self.interests,
            decisions: self.decisions.clone(),
            silent: self.silent,
            line: self.line,
            collects: self.collects,
            pace: self.pace,
            breaks_after: self.breaks_after,
        }
    }

    /// Whether it matters at which place of a message the filter fails: how much of it has come
    /// through by then depends on segments.
    pub(super) fn breaks_off(&self) -> bool {
        self.breaks_after.is_some()
    }

    /// Checks what the filter was told in a session that has ended.
    pub(super) fn check(&self, session: &Rehearsal) -> Result<(), String> {
        let interests = self.interests.unwrap_or_default();
        let mut transaction = None;
        let (mut ended, mut committed, mut resets) = (0, 0, None);
        for told in &session.filter.told {
            if ended > 0 {
                return Err(format!("told after the end: {told:?}"));
            }
            let reset = resets.take();
            if reset.is_some() && !matches!(told, Told::Event(Event::TxReset(_))) {
                return Err(format!("no tx-reset before {told:?}"));
            }
            match told {
                Told::Question(..) | Told::Begin(_) => {}
                Told::Line(line) if line.contains(&b'\r') || line.contains(&b'\n') => {
                    return Err("a line with a line end in it".to_owned());
                }
                Told::Line(_) => {}
                Told::Event(Event::TxBegin(id)) if transaction.is_none() => transaction = Some(*id),
                Told::Event(Event::TxCommit(id, _)) if transaction == Some(*id) => {
                    committed += 1;
                    resets = transaction.take();
                }
                Told::Event(Event::TxRollback(id)) if transaction == Some(*id) => {
                    resets = transaction.take();
                }
                Told::Event(Event::TxReset(id)) if reset == Some(*id) => {}
                Told::Event(
                    Event::TxBegin(_)
                    | Event::TxCommit(..)
                    | Event::TxRollback(_)
                    | Event::TxReset(_),
                ) => return Err(format!("out of order: {told:?}")),
                Told::Event(Event::LinkDisconnect) => ended += 1,
                Told::Event(Event::ProtocolServer(line) | Event::ProtocolClient(line))
                    if line.ends_with(b"\n") =>
                {
                    return Err(format!("a line end is told: {told:?}"));
                }
                Told::Event(_) => {}
            }
        }
        let heard = interests.events && session.filter.told.len() > 1;
        if heard && (ended != 1 || transaction.is_some() || resets.is_some()) {
            return Err("the end is not told".to_owned());
        }
        if interests.events && committed != session.stored.len() {
            return Err(format!("{committed} of {} commits are told", session.stored.len()));
        }
        Ok(())
    }
}
