//! What the filters of a `relay` action are told of a session, read off what is said in it.
//!
//! Nothing of a session depends on it: it hears the bytes that are written and read. Commands wait
//! here for their replies, in order; what a reply means depends on the command. A recipient that is
//! refused is told as the end of the transaction, although that goes on: filters know it so.
//!
//! Sources: the SMTP page of the specification, 5.4 (smtp-out) and D25 of section 9.

use std::collections::VecDeque;

use super::task::Task;
use crate::filter::{Event, TransactionResult, bracketed, masked};
use crate::model::{EnvelopeId, MessageId};
use crate::proto::address::is_domain;

/// Longest line of either side that is told, in bytes; the rest of it is left out.
const LINE: usize = 4096;

/// A command whose reply has not come.
#[derive(Debug)]
enum Awaited {
    Banner,
    Data,
    /// The message; LMTP has a reply for each recipient that was accepted.
    End(usize),
    Mail(Vec<u8>),
    Other,
    Recipient(Vec<u8>),
}

/// The task at hand.
#[derive(Debug)]
struct Message {
    id: MessageId,
    size: u64,
    /// Envelopes that were not announced yet.
    envelopes: VecDeque<EnvelopeId>,
    /// Recipients that were accepted.
    accepted: usize,
    begun: bool,
    /// The last thing that was told is that the transaction is over.
    over: bool,
    /// Whether anyone has got it.
    taken: bool,
}

/// Listens to one session.
#[derive(Debug)]
pub(super) struct Witness {
    awaited: VecDeque<Awaited>,
    message: Option<Message>,
    lmtp: bool,
    sent: Vec<u8>,
    received: Vec<u8>,
    events: Vec<Event>,
}

impl Witness {
    /// A session whose connection was just made.
    pub(super) fn new() -> Self {
        Self {
            awaited: VecDeque::from([Awaited::Banner]),
            message: None,
            lmtp: false,
            sent: Vec::new(),
            received: Vec::new(),
            events: Vec::new(),
        }
    }

    /// What is to be told, in order.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A task was begun: its commands follow.
    pub(super) fn begin(&mut self, task: &Task) {
        let ids = task.envelopes.iter().map(|envelope| envelope.id);
        let envelopes: VecDeque<EnvelopeId> = ids.collect();
        let Some(first) = envelopes.front() else { return };
        self.message = Some(Message {
            id: first.message(),
            size: task.body.size(),
            envelopes,
            accepted: 0,
            begun: false,
            over: false,
            taken: false,
        });
    }

    /// Commands are written.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut buffer = std::mem::take(&mut self.sent);
        each_line(&mut buffer, bytes, |line| self.command(line));
        self.sent = buffer;
    }

    /// The message and its final dot were written.
    pub(super) fn body_sent(&mut self) {
        self.command(b".");
    }

    /// Something was read.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        let mut buffer = std::mem::take(&mut self.received);
        each_line(&mut buffer, bytes, |line| self.reply_line(line));
        self.received = buffer;
    }

    /// The other side was silent for too long.
    pub(super) fn timed_out(&mut self) {
        self.events.push(Event::Timeout);
    }

    /// The connection is closed.
    pub(super) fn closed(&mut self) {
        self.roll_back();
        self.events.push(Event::LinkDisconnect);
    }

    fn command(&mut self, line: &[u8]) {
        self.events.push(Event::ProtocolClient(masked(line).into_owned()));
        let verb = line.split(|byte| *byte == b' ').next().unwrap_or_default();
        let argument = line.get(verb.len() + 1..).unwrap_or_default();
        let address = || bracketed(line).unwrap_or_default().to_vec();
        let awaited = match verb {
            b"EHLO" | b"HELO" | b"LHLO" => {
                self.lmtp = verb == b"LHLO";
                self.events.push(Event::LinkIdentify {
                    method: String::from_utf8_lossy(verb).into_owned(),
                    name: String::from_utf8_lossy(argument).into_owned(),
                });
                Awaited::Other
            }
            b"MAIL" => Awaited::Mail(address()),
            b"RCPT" => {
                let next = self.message.as_mut().and_then(|m| m.envelopes.pop_front());
                self.events.extend(next.map(Event::TxEnvelope));
                Awaited::Recipient(address())
            }
            b"DATA" => Awaited::Data,
            b"RSET" => {
                self.roll_back();
                Awaited::Other
            }
            b"." => {
                let accepted = self.message.as_ref().map_or(0, |message| message.accepted);
                match (self.lmtp, accepted) {
                    // For nobody, LMTP has no reply.
                    (true, 0) => return,
                    (true, count) => Awaited::End(count),
                    (false, _) => Awaited::End(1),
                }
            }
            _ => Awaited::Other,
        };
        self.awaited.push_back(awaited);
    }

    fn reply_line(&mut self, line: &[u8]) {
        self.events.push(Event::ProtocolServer(line.to_vec()));
        if line.get(3) == Some(&b'-') {
            return;
        }
        let result = match line.first() {
            Some(b'4') => TransactionResult::Temporary,
            Some(b'5') => TransactionResult::Permanent,
            _ => TransactionResult::Ok,
        };
        let ok = result == TransactionResult::Ok;
        match (self.awaited.pop_front(), &mut self.message) {
            (Some(Awaited::Banner), _) => {
                let text = line.get(4..).unwrap_or_default();
                let name = text.split(|byte| *byte == b' ').next().unwrap_or_default();
                let name = std::str::from_utf8(name).ok().filter(|name| is_domain(name));
                let hostname = name.unwrap_or_default().to_owned();
                self.events.push(Event::LinkGreeting { hostname });
            }
            (Some(Awaited::Mail(address)), Some(message)) if ok => {
                message.begun = true;
                self.events.push(Event::TxBegin(message.id));
                self.events.push(Event::TxMail(Some(message.id), result, address));
            }
            // Without a transaction, what was sent ahead of the reply to MAIL comes to nothing.
            (Some(Awaited::Recipient(address)), Some(message)) if message.begun => {
                message.over = !ok;
                if ok {
                    message.accepted += 1;
                } else {
                    self.events.push(Event::TxRollback(message.id));
                    self.events.push(Event::TxReset(message.id));
                }
                self.events.push(Event::TxRcpt(message.id, result, address));
            }
            (Some(Awaited::Data), Some(message)) if message.begun => {
                self.events.push(Event::TxData(message.id, result));
                message.over = false;
                if !ok {
                    self.roll_back();
                }
            }
            (Some(Awaited::End(replies)), Some(message)) => {
                // A server that wants a message for nobody has got none.
                message.taken |= ok && message.accepted > 0;
                if replies > 1 {
                    self.awaited.push_front(Awaited::End(replies - 1));
                } else if message.taken {
                    self.events.push(Event::TxCommit(message.id, message.size));
                    self.events.push(Event::TxReset(message.id));
                    self.message = None;
                } else {
                    self.roll_back();
                }
            }
            _ => {}
        }
    }

    fn roll_back(&mut self) {
        if let Some(Message { id, begun: true, over: false, .. }) = self.message.take() {
            self.events.push(Event::TxRollback(id));
            self.events.push(Event::TxReset(id));
        }
    }
}

/// Calls `take` with every line that `bytes` complete, and keeps the rest in `buffer`.
fn each_line(buffer: &mut Vec<u8>, bytes: &[u8], mut take: impl FnMut(&[u8])) {
    for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
        let room = LINE.saturating_sub(buffer.len());
        let text = piece.strip_suffix(b"\n").unwrap_or(piece);
        buffer.extend_from_slice(text.get(..room).unwrap_or(text));
        if piece.ends_with(b"\n") {
            take(buffer.strip_suffix(b"\r").unwrap_or(buffer));
            buffer.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatcher::mta::fixture::task;
    use crate::spec_case::ran;

    const ID: &str = "00000001";

    /// A dialogue: `>` what we send, `.` the message, `<` what comes.
    fn told(witness: &mut Witness, dialogue: &[&str]) -> Vec<Event> {
        for line in dialogue {
            match line.split_at(1) {
                (">", line) => witness.sent(format!("{line}\r\n").as_bytes()),
                ("<", line) => witness.received(format!("{line}\r\n").as_bytes()),
                _ => witness.body_sent(),
            }
        }
        witness.take_events()
    }

    fn said(line: &str) -> Event {
        Event::ProtocolClient(line.as_bytes().to_vec())
    }

    fn heard(line: &str) -> Event {
        Event::ProtocolServer(line.as_bytes().to_vec())
    }

    fn greeted() -> Witness {
        let mut witness = Witness::new();
        told(&mut witness, &["<220 fake.test ESMTP", ">EHLO mx.test", "<250 fake.test"]);
        witness
    }

    #[test]
    fn a_session_is_told_as_it_is_spoken() {
        let mut witness = Witness::new();
        let id = MessageId::new(1).unwrap();
        assert_eq!(id.to_string(), ID);
        assert_eq!(
            told(
                &mut witness,
                &[
                    "<220-fake.test hello",
                    "<220 fake.test ESMTP",
                    ">EHLO mx.test",
                    "<250-fake.test",
                    "<250 HELP"
                ]
            ),
            [
                heard("220-fake.test hello"),
                heard("220 fake.test ESMTP"),
                Event::LinkGreeting { hostname: "fake.test".into() },
                said("EHLO mx.test"),
                Event::LinkIdentify { method: "EHLO".into(), name: "mx.test".into() },
                heard("250-fake.test"),
                heard("250 HELP"),
            ]
        );
        ran("filter", 103);
        let body = b"S: x\n\nbody\n";
        let task = task(&["c@d"], body);
        let envelope = task.envelopes[0].id;
        witness.begin(&task);
        assert_eq!(
            told(&mut witness, &[">MAIL FROM:<a@b>", "<250 ok"]),
            [
                said("MAIL FROM:<a@b>"),
                heard("250 ok"),
                Event::TxBegin(id),
                Event::TxMail(Some(id), TransactionResult::Ok, b"a@b".to_vec()),
            ]
        );
        ran("filter", 104);
        assert_eq!(
            told(&mut witness, &[">RCPT TO:<c@d>", "<250 ok"]),
            [
                said("RCPT TO:<c@d>"),
                Event::TxEnvelope(envelope),
                heard("250 ok"),
                Event::TxRcpt(id, TransactionResult::Ok, b"c@d".to_vec()),
            ]
        );
        ran("filter", 105);
        assert_eq!(
            told(&mut witness, &[">DATA", "<354 go", ".", "<250 taken"]),
            [
                said("DATA"),
                heard("354 go"),
                Event::TxData(id, TransactionResult::Ok),
                said("."),
                heard("250 taken"),
                Event::TxCommit(id, body.len() as u64),
                Event::TxReset(id),
            ]
        );
        ran("filter", 106);
        told(&mut witness, &[">QUIT", "<221 bye"]);
        witness.closed();
        assert_eq!(witness.take_events(), [Event::LinkDisconnect]);
    }

    #[test]
    fn refusals_end_what_filters_take_for_the_transaction() {
        let mut witness = greeted();
        let id = MessageId::new(1).unwrap();
        let task = task(&["bad@d", "c@d"], b"x\n");
        witness.begin(&task);
        let all = told(
            &mut witness,
            &[
                ">MAIL FROM:<a@b>",
                ">RCPT TO:<bad@d>",
                ">RCPT TO:<c@d>",
                ">DATA",
                "<250 ok",
                "<550 no",
                "<250 ok",
                "<354 go",
                ".",
                "<250 taken",
            ],
        );
        let refused = [
            heard("550 no"),
            Event::TxRollback(id),
            Event::TxReset(id),
            Event::TxRcpt(id, TransactionResult::Permanent, b"bad@d".to_vec()),
            heard("250 ok"),
            Event::TxRcpt(id, TransactionResult::Ok, b"c@d".to_vec()),
        ];
        assert!(all.windows(refused.len()).any(|some| some == refused), "{all:?}");
        assert_eq!(all[all.len() - 2..], [Event::TxCommit(id, 2), Event::TxReset(id)]);
        ran("filter", 108);

        for dialogue in [
            &[">MAIL FROM:<a@b>", "<250 ok", ">RCPT TO:<c@d>", "<250 ok", ">DATA", "<451 no"][..],
            &[">MAIL FROM:<a@b>", "<250 ok", ">DATA", "<354 go", ".", "<554 no"],
        ] {
            witness.begin(&task);
            let all = told(&mut witness, dialogue);
            assert_eq!(all[all.len() - 2..], [Event::TxRollback(id), Event::TxReset(id)]);
        }
        witness.begin(&task);
        let all = told(&mut witness, &[">MAIL FROM:<a@b>", "<550 no"]);
        assert_eq!(all, [said("MAIL FROM:<a@b>"), heard("550 no")]);
    }

    #[test]
    fn the_end_of_a_transaction_is_told_once() {
        let mut witness = greeted();
        let id = MessageId::new(1).unwrap();
        let rolled_back = [Event::TxRollback(id), Event::TxReset(id)];
        witness.begin(&task(&["bad@d"], b"x\n"));
        told(&mut witness, &[">MAIL FROM:<a@b>", "<250 ok", ">RCPT TO:<bad@d>", "<550 no"]);
        let all = told(&mut witness, &[">RSET", "<250 ok", ">QUIT", "<221 bye"]);
        assert_eq!(all, [said("RSET"), heard("250 ok"), said("QUIT"), heard("221 bye")]);
        witness.closed();
        assert_eq!(witness.take_events(), [Event::LinkDisconnect]);
        // One that is accepted after another was refused goes on.
        let mut witness = greeted();
        witness.begin(&task(&["bad@d", "c@d"], b"x\n"));
        told(&mut witness, &[">MAIL FROM:<a@b>", "<250 ok", ">RCPT TO:<bad@d>", "<550 no"]);
        told(&mut witness, &[">RCPT TO:<c@d>", "<250 ok"]);
        witness.closed();
        let end = [&rolled_back[..], &[Event::LinkDisconnect]].concat();
        assert_eq!(witness.take_events(), end);
    }

    #[test]
    fn what_was_sent_ahead_is_no_result_of_a_transaction_that_never_was() {
        let mut witness = greeted();
        witness.begin(&task(&["c@d"], b"x\n"));
        told(&mut witness, &[">MAIL FROM:<a@b>", ">RCPT TO:<c@d>", ">DATA"]);
        let all = told(&mut witness, &["<550 no", "<503 no", "<503 no", ">RSET", "<250 ok"]);
        let expected =
            [heard("550 no"), heard("503 no"), heard("503 no"), said("RSET"), heard("250 ok")];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_message_for_nobody_is_not_committed() {
        let mut witness = greeted();
        let id = MessageId::new(1).unwrap();
        witness.begin(&task(&["bad@d"], b"x\n"));
        told(&mut witness, &[">MAIL FROM:<a@b>", ">RCPT TO:<bad@d>", ">DATA"]);
        told(&mut witness, &["<250 ok", "<550 no", "<354 go"]);
        let all = told(&mut witness, &[">.", "<250 dropped"]);
        let rolled_back = [Event::TxRollback(id), Event::TxReset(id)];
        assert_eq!(all, [&[said("."), heard("250 dropped")][..], &rolled_back].concat());
    }

    #[test]
    fn lmtp_is_committed_once_and_a_lost_connection_rolls_back() {
        let mut witness = Witness::new();
        let id = MessageId::new(1).unwrap();
        told(&mut witness, &["<220 -bad", ">LHLO mx.test", "<250 x"]);
        witness.begin(&task(&["a@d", "c@d"], b"x\n"));
        told(&mut witness, &[">MAIL FROM:<>", "<250 ok", ">RCPT TO:<a@d>", "<250 ok"]);
        told(&mut witness, &[">RCPT TO:<c@d>", "<250 ok", ">DATA", "<354 go", "."]);
        assert_eq!(told(&mut witness, &["<452 full"]), [heard("452 full")]);
        assert_eq!(
            told(&mut witness, &["<250 ok"]),
            [heard("250 ok"), Event::TxCommit(id, 2), Event::TxReset(id)]
        );
        witness.begin(&task(&["a@d"], b"x\n"));
        told(&mut witness, &[">MAIL FROM:<>", "<250 ok"]);
        witness.timed_out();
        witness.closed();
        assert_eq!(
            witness.take_events(),
            [Event::Timeout, Event::TxRollback(id), Event::TxReset(id), Event::LinkDisconnect]
        );
    }

    #[test]
    fn credentials_are_masked_and_long_lines_cut() {
        let mut witness = greeted();
        assert_eq!(
            told(&mut witness, &[">AUTH PLAIN c2VjcmV0", "<235 ok"]),
            [said("AUTH PLAIN ********"), heard("235 ok")]
        );
        let long = format!("<250 {}", "x".repeat(9000));
        assert!(
            matches!(&told(&mut witness, &[&long])[..], [Event::ProtocolServer(line)] if line.len() == LINE)
        );
    }
}
