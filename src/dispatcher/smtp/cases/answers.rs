//! What passes between a session and its shell: requests, late answers, when output is written.

use std::sync::Arc;

use jiff::Timestamp;

use super::*;
use crate::dispatcher::smtp::rehearsal::route;
use crate::dispatcher::smtp::{
    Action, Answer, Ending, InputBuffer, Lease, LogEvent, RequestId, Session, SessionId,
};
use crate::model::MessageId;

/// A session whose outside is played by the test.
struct Play {
    session: Session,
    input: InputBuffer,
    output: Vec<u8>,
}

impl Play {
    /// A session after EHLO. With `named`, the client's name is known from the start.
    fn start(named: bool) -> Self {
        let mut peer = Peer::remote([10, 9, 8, 7].into());
        peer.hostname = named.then(|| "c.test".into());
        let session = Session::new(SessionId(1), Arc::new(settings()), peer);
        let mut play = Self { session, input: InputBuffer::default(), output: Vec::new() };
        if named {
            assert!(matches!(play.poll(), Action::Log(LogEvent::Connected { .. })));
        }
        play.send("EHLO a.b\r\n");
        assert!(matches!(play.poll(), Action::Receive));
        play.output.clear();
        play
    }

    fn send(&mut self, text: &str) {
        self.input.room().extend_from_slice(text.as_bytes());
    }

    fn poll(&mut self) -> Action {
        self.session.poll(Timestamp::UNIX_EPOCH, &mut self.input, &mut self.output)
    }

    fn lease(&mut self) -> RequestId {
        let Action::NewMessageId(request) = self.poll() else { panic!("a lease is asked for") };
        request
    }

    fn expand(&mut self) -> RequestId {
        let Action::ExpandRecipient(expand) = self.poll() else { panic!("a recipient is asked") };
        expand.request
    }

    fn written(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.output)).unwrap()
    }
}

fn lease() -> Lease {
    Lease { id: MessageId::new(7).unwrap(), nonce: 0 }
}

fn waits(action: &Action, flush: bool) -> bool {
    matches!(action, Action::Wait { flush: wanted } if *wanted == flush)
}

#[test]
fn grouped_replies_wait_and_others_do_not() {
    let mut play = Play::start(true);
    play.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nNOOP\r\nRCPT TO:<e@f>\r\nQUIT\r\n");
    let request = play.lease();
    assert!(waits(&play.poll(), false), "nothing to write yet");
    play.session.answer(Answer::MessageId(request, Ok(lease())));
    let request = play.expand();
    assert!(waits(&play.poll(), false), "the reply to MAIL may wait");
    play.session.answer(Answer::Recipient(request, Expansion::Accepted(vec![route()])));
    let request = play.expand();
    assert!(waits(&play.poll(), true), "the reply to NOOP may not");
    assert_eq!(play.written(), replies("OK | ROK | OK"));
    assert!(waits(&play.poll(), false), "once is enough");
    play.session.answer(Answer::Recipient(request, Expansion::Failed));
    while !matches!(play.poll(), Action::Close) {}
    assert_eq!(play.written(), replies("451 Temporary failure: <e@f> | BYE"));
}

// RFC 2920, section 3.2: that a message is taken must not be kept back while another one begins.
#[test]
fn the_reply_to_a_message_does_not_wait_for_the_next_one() {
    let mut play = Play::start(true);
    play.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    let request = play.lease();
    play.session.answer(Answer::MessageId(request, Ok(lease())));
    let request = play.expand();
    play.session.answer(Answer::Recipient(request, Expansion::Accepted(vec![route()])));
    assert!(matches!(play.poll(), Action::Receive));
    assert_eq!(play.written(), replies("OK | ROK | GO"));
    play.send("S: x\r\n\r\n.\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n");
    let Action::Commit(commit) = play.poll() else { panic!("is committed") };
    assert!(waits(&play.poll(), true));
    play.session.answer(Answer::Commit(commit.request, Ok(())));
    let request = loop {
        match play.poll() {
            Action::Log(_) => {}
            Action::NewMessageId(request) => break request,
            action => panic!("{action:?}"),
        }
    };
    play.session.answer(Answer::MessageId(request, Ok(lease())));
    play.expand();
    assert!(waits(&play.poll(), true), "the reply to the message may not wait");
    assert_eq!(play.written(), replies("ACC 7 | OK"));
}

#[test]
fn an_answer_that_nothing_waits_for_is_dropped() {
    let mut play = Play::start(true);
    play.session.answer(Answer::MessageId(RequestId(1), Ok(lease())));
    play.send("MAIL FROM:<a@b>\r\n");
    let request = play.lease();
    play.session.answer(Answer::MessageId(RequestId(request.0 + 1), Ok(lease())));
    play.session.answer(Answer::Recipient(request, Expansion::Failed));
    play.session.answer(Answer::Commit(request, Ok(())));
    assert!(waits(&play.poll(), false));
    play.session.answer(Answer::MessageId(request, Ok(lease())));
    assert!(matches!(play.poll(), Action::Receive));
    play.session.answer(Answer::MessageId(request, Ok(lease())));
    play.send("RCPT TO:<c@d>\r\n");
    let late = play.expand();
    play.session.end(Ending::Disconnect);
    play.session.answer(Answer::Recipient(late, Expansion::Failed));
    assert!(matches!(play.poll(), Action::Log(LogEvent::Disconnected(_))));
    assert!(matches!(play.poll(), Action::Close));
}

#[test]
fn a_session_greets_at_once_and_waits_for_the_name_at_mail() {
    let mut play = Play::start(false);
    play.send("FOO\r\nMAIL FROM:<a@b>\r\n");
    assert!(waits(&play.poll(), true));
    assert_eq!(play.written(), replies("UNK"));
    play.session.answer(Answer::Hostname(Some("c.test.".to_owned())));
    play.session.answer(Answer::Hostname(Some("too.late".to_owned())));
    let Action::Log(LogEvent::Connected { host, .. }) = play.poll() else { panic!("is logged") };
    assert_eq!(host, "c.test");
    assert!(matches!(play.poll(), Action::Log(LogEvent::FailedCommand { .. })));
    play.lease();
}

#[test]
fn the_log_of_a_client_without_name_is_bounded() {
    let mut play = Play::start(false);
    play.send(&"FOO\r\n".repeat(1000));
    assert!(waits(&play.poll(), true));
    assert!(play.input.as_slice().len() > 4000, "the rest is left for later");
    play.session.answer(Answer::Hostname(None));
    let mut lines = 0;
    loop {
        match play.poll() {
            Action::Log(_) => lines += 1,
            Action::Flush => play.output.clear(),
            action => break assert!(matches!(action, Action::Receive)),
        }
    }
    assert_eq!(lines, 1001);
}

#[test]
fn a_client_that_does_not_read_stops_the_session() {
    let mut play = Play::start(true);
    play.send(&"HELP\r\n".repeat(10_000));
    assert!(matches!(play.poll(), Action::Flush));
    assert!(play.output.len() < 20_000);
    assert!(matches!(play.poll(), Action::Flush), "until it was written");
    play.output.clear();
    assert!(matches!(play.poll(), Action::Flush));
    assert!(!play.output.is_empty());
}

#[test]
fn a_commit_under_way_is_waited_for() {
    let mut play = Play::start(true);
    play.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n");
    let request = play.lease();
    play.session.answer(Answer::MessageId(request, Ok(lease())));
    let request = play.expand();
    play.session.answer(Answer::Recipient(request, Expansion::Accepted(vec![route()])));
    assert!(matches!(play.poll(), Action::Receive));
    play.send("S: x\r\n\r\n.\r\n");
    let Action::Commit(commit) = play.poll() else { panic!("is committed") };
    assert_eq!((commit.message, commit.size()), (lease().id, commit.body.len() as u64));
    play.session.end(Ending::Disconnect);
    assert!(play.session.is_committing());
    assert!(waits(&play.poll(), true));
    play.session.answer(Answer::Commit(commit.request, Ok(())));
    assert!(matches!(play.poll(), Action::Log(LogEvent::Message { .. })));
    assert!(matches!(play.poll(), Action::Log(LogEvent::Envelope { .. })));
    let Action::Log(LogEvent::Disconnected(ending)) = play.poll() else { panic!("has ended") };
    assert_eq!(ending, Some(Ending::Disconnect));
    assert!(matches!(play.poll(), Action::Close));
}

// RFC 5321, section 3.8.
#[test]
fn a_server_that_leaves_says_so_wherever_a_client_is_waited_for() {
    let in_chunk = || {
        let mut session = rcpt();
        session.send(b"BDAT 10 LAST\r\nS: x");
        session
    };
    let in_line = || {
        let mut session = greet();
        session.send(b"MAIL FR");
        session
    };
    for start in [p, greet, tx, rcpt, data, in_chunk, in_line] {
        let mut session = start();
        let said = String::from_utf8(session.shut_down()).unwrap();
        assert_eq!(said, "421 4.3.2 Service not available, closing transmission channel\r\n");
        assert!(session.closed && session.stored.is_empty());
        let log = session.log();
        assert_eq!(log.last().unwrap(), "0000000000000001 smtp disconnected reason=quit");
        assert_eq!(session.shut_down(), b"", "once");
    }
}

#[test]
fn an_idle_session_is_small() {
    assert!(size_of::<Session>() <= 512, "{} bytes", size_of::<Session>());
    let mut session = greet();
    session.send(b"NOOP\r\n");
    assert_eq!(session.pending(), 0, "an empty buffer can be given away");
}
