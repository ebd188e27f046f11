//! One transaction: MAIL, RCPT for each envelope, DATA, the message, and their replies.
//!
//! What was sent ahead of its replies stays in order here. When no recipient is left but DATA is on
//! its way, a server that asks for the message gets an empty one (RFC 2920, section 3.1).

use std::sync::Arc;

use super::{Action, Class, Extensions, Protocol, Session, State, Verdict};
use crate::dispatcher::mta::task::Task;
use crate::model::Envelope;
use crate::model::envelope::{Notify, Ret};
use crate::proto::server_reply::Reply;

/// Commands sent ahead of their replies: their replies must fit into the socket's buffers, or
/// both sides would wait for each other.
const WINDOW: usize = 64;
const TOO_MANY: &str = "Too many consecutive errors, closing connection";

#[derive(Debug)]
pub(super) struct Transaction {
    task: Arc<Task>,
    protocol: Protocol,
    extensions: Extensions,
    step: Step,
    /// The reply to MAIL has come.
    mail_answered: bool,
    /// Recipients that were sent.
    announced: usize,
    /// Recipients whose reply has come.
    answered: usize,
    /// DATA was sent.
    data_sent: bool,
    /// By envelope.
    fates: Vec<Fate>,
    /// Fates that are not [`Fate::Settled`].
    unsettled: usize,
    /// No fate before this one is [`Fate::Accepted`] once the message is out.
    next_end: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// The server took the recipient, not yet the message.
    Accepted,
    Settled,
    Waiting,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    /// Up to the reply to DATA.
    Commands,
    /// An empty message went out in place of one for nobody.
    Discarded,
    /// The message is out, its reply is not here.
    End,
    /// The message is on its way out.
    Message,
}

impl Transaction {
    pub(super) fn new(task: Arc<Task>, protocol: Protocol, extensions: Extensions) -> Self {
        let count = task.envelopes.len();
        Self {
            task,
            protocol,
            extensions,
            step: Step::Commands,
            mail_answered: false,
            announced: 0,
            answered: 0,
            data_sent: false,
            fates: vec![Fate::Waiting; count],
            unsettled: count,
            next_end: 0,
        }
    }

    /// Writes the first commands.
    pub(super) fn announce(&mut self, output: &mut Vec<u8>) {
        write_mail(output, &self.task, self.extensions.dsn);
        self.send_more(output);
    }

    /// Writes the commands that may be sent by now.
    fn send_more(&mut self, output: &mut Vec<u8>) {
        let window = if self.extensions.pipelining { WINDOW } else { 1 };
        while self.in_flight() < window
            && let Some(envelope) = self.task.envelopes.get(self.announced)
        {
            write_recipient(output, envelope, self.extensions.dsn);
            self.announced += 1;
        }
        let all_announced = self.announced == self.task.envelopes.len();
        let may_send = self.extensions.pipelining || self.in_flight() == 0;
        if all_announced && may_send && !self.data_sent && !self.is_lost() {
            output.extend_from_slice(b"DATA\r\n");
            self.data_sent = true;
        }
    }

    /// MAIL and RCPT commands without a reply.
    fn in_flight(&self) -> usize {
        self.announced - self.answered + usize::from(!self.mail_answered)
    }

    /// Whether no recipient can get the message any more.
    fn is_lost(&self) -> bool {
        self.unsettled == 0
    }

    pub(super) fn replies_due(&self) -> usize {
        match self.step {
            Step::Commands => self.in_flight() + usize::from(self.data_sent),
            Step::Discarded => 1,
            Step::End if self.protocol == Protocol::Smtp => 1,
            Step::End => self.unsettled,
            Step::Message => 0,
        }
    }

    pub(super) fn body_sent(&mut self) {
        if self.step == Step::Message {
            self.step = Step::End;
        }
    }

    /// The places of all envelopes that are not settled, which now are.
    pub(super) fn settle_rest(&mut self) -> Vec<usize> {
        let mut rest = Vec::new();
        for (index, fate) in self.fates.iter_mut().enumerate() {
            if *fate != Fate::Settled {
                *fate = Fate::Settled;
                rest.push(index);
            }
        }
        self.unsettled = 0;
        rest
    }

    fn settle(&mut self, index: usize) {
        if let Some(fate) = self.fates.get_mut(index) {
            *fate = Fate::Settled;
            self.unsettled -= 1;
        }
    }

    /// The next recipient that waits for its reply to the message, in the order of RCPT.
    fn settle_next_accepted(&mut self) -> Option<usize> {
        let rest = self.fates.get(self.next_end..)?;
        let index = self.next_end + rest.iter().position(|fate| *fate == Fate::Accepted)?;
        self.next_end = index + 1;
        self.settle(index);
        Some(index)
    }

    /// What acceptance of the message means for each envelope.
    fn success(&self, reply: &Reply) -> Verdict {
        Verdict { class: Class::Ok { dsn_relayed: self.extensions.dsn }, text: reply.text.clone() }
    }
}

/// Replies that belong to a transaction.
impl Session {
    pub(super) fn transaction_reply(&mut self, reply: &Reply) {
        let State::Transaction(transaction) = &mut self.state else { return };
        if reply.code == 421 {
            return self.fail(&reply.text);
        }
        match transaction.step {
            Step::Commands if !transaction.mail_answered => {
                transaction.mail_answered = true;
                if reply.is_positive() {
                    transaction.send_more(&mut self.output);
                } else {
                    self.settle_rest(&Verdict::of(reply));
                }
                self.give_up_if_lost();
            }
            Step::Commands if transaction.answered < transaction.announced => {
                self.recipient_reply(reply);
            }
            Step::Commands => self.data_reply(reply),
            Step::Discarded => self.reset(),
            Step::End => self.end_reply(reply),
            // The server does not want the rest, and we cannot stop halfway.
            Step::Message if reply.code >= 400 => {
                self.settle_rest(&Verdict::of(reply));
                self.fail(&reply.text);
            }
            Step::Message => self.fail("Remote host sent too much data"),
        }
    }

    fn recipient_reply(&mut self, reply: &Reply) {
        let State::Transaction(transaction) = &mut self.state else { return };
        let index = transaction.answered;
        transaction.answered += 1;
        // Settled when MAIL was refused: this reply says nothing new.
        if transaction.fates.get(index) == Some(&Fate::Waiting) {
            if reply.is_positive() {
                if let Some(fate) = transaction.fates.get_mut(index) {
                    *fate = Fate::Accepted;
                }
                self.failures = 0;
            } else {
                transaction.settle(index);
                self.failures += 1;
                self.actions.push_back(Action::Settled { index, verdict: Verdict::of(reply) });
                if self.options.max_failures != 0 && self.failures >= self.options.max_failures {
                    return self.too_many_failures();
                }
            }
        }
        let State::Transaction(transaction) = &mut self.state else { return };
        if !transaction.is_lost() {
            transaction.send_more(&mut self.output);
        }
        self.give_up_if_lost();
    }

    fn data_reply(&mut self, reply: &Reply) {
        let State::Transaction(transaction) = &mut self.state else { return };
        let go_on = reply.code < 400;
        match (go_on, transaction.is_lost()) {
            (true, false) => {
                transaction.step = Step::Message;
                self.actions.push_back(Action::SendBody);
            }
            (true, true) => {
                transaction.step = Step::Discarded;
                self.rejected += 1;
                self.output.extend_from_slice(b".\r\n");
                if transaction.protocol == Protocol::Lmtp {
                    // One reply a recipient: none.
                    self.reset();
                }
            }
            (false, _) => {
                self.settle_rest(&Verdict::of(reply));
                self.rejected += 1;
                self.reset();
            }
        }
    }

    fn end_reply(&mut self, reply: &Reply) {
        let State::Transaction(transaction) = &mut self.state else { return };
        let verdict = if reply.is_positive() {
            self.rejected = 0;
            self.accepted += 1;
            transaction.success(reply)
        } else {
            Verdict::of(reply)
        };
        if transaction.protocol == Protocol::Smtp {
            self.rejected += usize::from(!reply.is_positive());
            self.settle_rest(&verdict);
            return self.ready();
        }
        let Some(index) = transaction.settle_next_accepted() else { return };
        let is_last = transaction.is_lost();
        self.actions.push_back(Action::Settled { index, verdict });
        if is_last {
            self.rejected += usize::from(!reply.is_positive());
            self.ready();
        }
    }

    /// Goes on to the next task when no recipient is left and no reply is on its way.
    fn give_up_if_lost(&mut self) {
        let State::Transaction(transaction) = &self.state else { return };
        if transaction.is_lost() && transaction.in_flight() == 0 && !transaction.data_sent {
            self.rejected += 1;
            self.reset();
        }
    }

    fn too_many_failures(&mut self) {
        let verdict =
            Verdict { class: Class::TempFail { not_tried: true }, text: TOO_MANY.to_owned() };
        self.settle_rest(&verdict);
        if self.replies_due() == 0 { self.quit() } else { self.close() }
    }

    fn reset(&mut self) {
        self.output.extend_from_slice(b"RSET\r\n");
        self.state = State::Reset;
    }
}

fn write_mail(output: &mut Vec<u8>, task: &Task, dsn: bool) {
    output.extend_from_slice(b"MAIL FROM:<");
    output.extend_from_slice(task.sender.as_str().as_bytes());
    output.push(b'>');
    let origin = task.envelopes.first().map(|envelope| &envelope.origin);
    if let Some(origin) = origin.filter(|_| dsn) {
        match origin.ret {
            Some(Ret::Full) => output.extend_from_slice(b" RET=FULL"),
            Some(Ret::Headers) => output.extend_from_slice(b" RET=HDRS"),
            None => {}
        }
        write_parameter(output, " ENVID=", origin.envid.as_deref());
    }
    if task.smtputf8 {
        output.extend_from_slice(b" SMTPUTF8");
    }
    output.extend_from_slice(b"\r\n");
}

fn write_recipient(output: &mut Vec<u8>, envelope: &Envelope, dsn: bool) {
    output.extend_from_slice(b"RCPT TO:<");
    output.extend_from_slice(envelope.route.destination.as_str().as_bytes());
    output.push(b'>');
    if dsn {
        write_parameter(output, " NOTIFY=", notify_list(envelope.dsn.notify).as_deref());
        write_parameter(output, " ORCPT=", envelope.dsn.orcpt.as_deref());
    }
    output.extend_from_slice(b"\r\n");
}

/// Writes a parameter that has a value; one that could not stand in a command is left out.
fn write_parameter(output: &mut Vec<u8>, name: &str, value: Option<&str>) {
    let Some(value) = value.filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_graphic()))
    else {
        return;
    };
    output.extend_from_slice(name.as_bytes());
    output.extend_from_slice(value.as_bytes());
}

fn notify_list(notify: Notify) -> Option<String> {
    if notify == Notify::default() {
        return None;
    }
    let words = [
        (Notify::SUCCESS, "SUCCESS"),
        (Notify::FAILURE, "FAILURE"),
        (Notify::DELAY, "DELAY"),
        (Notify::NEVER, "NEVER"),
    ];
    let named: Vec<&str> =
        words.into_iter().filter(|(bit, _)| notify.has(*bit)).map(|(_, word)| word).collect();
    Some(named.join(","))
}
