//! What must hold for a session whatever a client sends: driven by fuzz targets and tests.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::filtering::FilterPlan;
use super::{Rehearsal, Script, route};
use crate::config::{FilterId, Senders, TableId, TlsMode};
use crate::dispatcher::smtp::{
    AuthSettings, Authenticated, Ending, Expansion, NoVerifier, Peer, Refusal, Settings, TlsOffer,
};
use crate::model::limits::BODY_IN_MEMORY;
use crate::proto::reply::MAX_LINE;
use crate::proto::scram::Verifier;

/// Output that may gather before it is written: the limit, and what one command can add to it.
const MAX_OUTPUT: usize = 32 * 1024;

/// How the bytes of a fuzz target are split into settings and input.
struct Plan<'a> {
    local: bool,
    pipelining: bool,
    small: bool,
    refuses_recipients: bool,
    refuses_commits: bool,
    refuses_pieces: bool,
    starts_in_data: bool,
    named: bool,
    tls: Option<TlsMode>,
    starts_encrypted: bool,
    auth: Option<AuthSettings>,
    masquerades: bool,
    filter: Option<FilterPlan>,
    chunk: usize,
    input: &'a [u8],
}

impl<'a> Plan<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[flags, security, chunk], mut input) = bytes.split_first_chunk::<3>()?;
        let flag = |bit: u8| flags & (1 << bit) != 0;
        let secure = |bit: u8| security & (1 << bit) != 0;
        let tls = match security & 3 {
            0 => None,
            1 => Some(TlsMode::Offered),
            2 => Some(TlsMode::Required),
            _ => Some(TlsMode::Immediate),
        };
        let mut filter = None;
        if secure(7) {
            let (plan, rest) = FilterPlan::read(input)?;
            (filter, input) = (Some(plan), rest);
        }
        let auth = AuthSettings { required: secure(4), table: None, scram: secure(5) };
        Some(Self {
            local: flag(0),
            pipelining: !flag(1),
            small: flag(2),
            refuses_recipients: flag(3),
            refuses_commits: flag(4),
            refuses_pieces: flag(5),
            starts_in_data: flag(6),
            named: flag(7),
            tls,
            starts_encrypted: secure(2),
            auth: secure(3).then_some(auth),
            masquerades: secure(6),
            filter,
            chunk: usize::from(chunk) + 1,
            input,
        })
    }

    fn start(&self) -> Rehearsal {
        let mut settings = Settings::new("mx.example.org");
        settings.pipelining = self.pipelining;
        settings.tls = self.tls.map(|mode| TlsOffer::new(mode, Arc::new(AtomicBool::new(true))));
        settings.auth = self.auth;
        settings.received_auth = self.masquerades;
        settings.senders =
            self.masquerades.then_some(Senders { table: TableId(0), masquerade: true });
        settings.filter = self.filter.as_ref().map(|_| FilterId(0));
        if self.small {
            settings.max_message_size = 2000;
            settings.max_recipients = 3;
            settings.max_messages = 2;
        }
        let script = Script {
            authenticate: |asked| verdict(asked.password.first().copied()),
            count: |accepted| verdict(accepted.then_some(b'a')),
            verifier: |user| match user.bytes().next() {
                Some(b'f') => Err(NoVerifier::Failed),
                Some(b'l') => Err(NoVerifier::Limited),
                Some(b'm') => Err(NoVerifier::Missing),
                _ => Verifier::derive(user.as_bytes(), b"salt", 1)
                    .map(|verifier| verifier.to_string())
                    .map_err(|_| NoVerifier::Failed),
            },
            allow: |asked| match asked.sender.as_str().bytes().next() {
                Some(b'n') => Some(false),
                Some(b'f') => None,
                _ => Some(true),
            },
            expand: if self.refuses_recipients {
                |expand| Expansion::Refused(format!("550 {}\r\n", expand.recipient))
            } else {
                |_| Expansion::Accepted(vec![route()])
            },
            commit: if self.refuses_commits { Err(Refusal::Full) } else { Ok(()) },
            store: if self.refuses_pieces { Err(Refusal::Full) } else { Ok(()) },
            ..Script::default()
        };
        let mut peer = if self.local {
            Peer::local("mx.example.org")
        } else {
            Peer::remote([10, 9, 8, 7].into())
        };
        if self.named {
            peer.hostname = Some("client.example".into());
        }
        let mut session = Rehearsal::new(settings, peer, script);
        if let Some(filter) = &self.filter {
            session.filter.script = filter.script();
        }
        session
    }

    /// Sends the input in chunks of `size` bytes; returns everything that the client could read.
    fn run(&self, session: &mut Rehearsal, size: usize) -> Vec<u8> {
        let mut received = send(session, b"");
        if self.starts_encrypted {
            for line in ["EHLO a.b\n", "STARTTLS\n"] {
                received.extend(send(session, line.as_bytes()));
            }
        }
        if self.starts_in_data {
            for line in ["EHLO a.b\n", "MAIL FROM:<>\n", "RCPT TO:<c@d>\n", "DATA\n"] {
                received.extend(send(session, line.as_bytes()));
            }
        }
        for chunk in self.input.chunks(size) {
            received.extend(send(session, chunk));
        }
        received
    }
}

/// Sends bytes; a filter that does not answer them is late.
fn send(session: &mut Rehearsal, bytes: &[u8]) -> Vec<u8> {
    let mut received = session.send(bytes);
    if session.stalled && !session.closed {
        received.extend(session.filter_is_late());
    }
    received
}

/// The verdict on a password that begins with this letter.
fn verdict(first: Option<u8>) -> Authenticated {
    match first {
        Some(b'a') => Authenticated::Accepted,
        Some(b'f') => Authenticated::Failed,
        Some(b'l') => Authenticated::Limited,
        _ => Authenticated::Rejected,
    }
}

/// Runs a session on `bytes`: three bytes of settings, perhaps the script of a filter, then what the
/// client sends, once in pieces and once as a whole.
///
/// # Errors
/// Names what did not hold: every reply is a proper line; every log line is printable; nothing
/// stored has a CR; memory and work are bounded; filters are told of transactions in order; nothing is
/// said in clear text where a handshake comes first; with pipelining, a remote client's segments make
/// no difference, but before a handshake.
pub fn exercise(bytes: &[u8]) -> Result<(), String> {
    let Some(plan) = Plan::read(bytes) else { return Ok(()) };
    let mut pieces = plan.start();
    let received = plan.run(&mut pieces, plan.chunk);
    check(&plan, &mut pieces, &received)?;

    let mut whole = plan.start();
    let received_at_once = plan.run(&mut whole, plan.input.len().max(1));
    check(&plan, &mut whole, &received_at_once)?;

    // Behind STARTTLS it matters what came together with it.
    let upgrades = matches!(plan.tls, Some(TlsMode::Offered | TlsMode::Required));
    let breaks_off = plan.filter.as_ref().is_some_and(FilterPlan::breaks_off);
    if plan.local || !plan.pipelining || plan.refuses_pieces || upgrades || breaks_off {
        return Ok(());
    }
    if received != received_at_once {
        return Err("segments change the replies".to_owned());
    }
    let bodies = |session: &Rehearsal| -> Vec<Vec<u8>> {
        session.stored.iter().map(|stored| stored.body.clone()).collect()
    };
    if bodies(&pieces) != bodies(&whole) {
        return Err("segments change what is stored".to_owned());
    }
    Ok(())
}

fn check(plan: &Plan<'_>, session: &mut Rehearsal, received: &[u8]) -> Result<(), String> {
    check_replies(received)?;
    let is_clear = plan.tls == Some(TlsMode::Immediate) && !session.session.is_secure();
    if is_clear && !received.is_empty() {
        return Err("something is said before the handshake".to_owned());
    }
    let pieces = plan.input.len() / plan.chunk + 1;
    // Filters are told line by line, and may take the trace headers of a message byte by byte.
    let (least, factor) = if plan.filter.is_some() { (1024, 32) } else { (64, 8) };
    if session.polls > least + factor * (plan.input.len() + pieces) {
        return Err(format!("{} polls for {} bytes", session.polls, plan.input.len()));
    }
    if !session.closed && session.pending() > 2048 {
        return Err(format!("{} bytes are kept as input", session.pending()));
    }
    if session.largest_output > MAX_OUTPUT {
        return Err(format!("{} bytes of output gathered", session.largest_output));
    }
    if session.largest_piece > BODY_IN_MEMORY + 2 * plan.input.len() + 1024 {
        return Err(format!("a piece of {} bytes", session.largest_piece));
    }
    for stored in &session.stored {
        // Filters may leave nothing of a message.
        let is_whole =
            stored.body.ends_with(b"\n") || (plan.filter.is_some() && stored.body.is_empty());
        if stored.body.contains(&b'\r') || !is_whole {
            return Err("a stored message has a CR, or no last LF".to_owned());
        }
        if stored.commit.size() != stored.body.len() as u64 || stored.commit.recipients.is_empty() {
            return Err("a commit does not fit its message".to_owned());
        }
    }
    session.end(Ending::Disconnect);
    let log = session.log();
    if !log.iter().all(|line| line.bytes().all(|byte| (b' '..=b'~').contains(&byte))) {
        return Err("a log line is not printable".to_owned());
    }
    let ends = |line: &&String| line.contains(" smtp disconnected reason=");
    if log.iter().filter(ends).count() != 1 || !log.last().is_some_and(|line| ends(&line)) {
        return Err("the session does not end exactly once".to_owned());
    }
    plan.filter.as_ref().map_or(Ok(()), |filter| filter.check(session))
}

fn check_replies(received: &[u8]) -> Result<(), String> {
    let mut rest = received;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (line, behind) = rest.split_at(end + 1);
        rest = behind;
        let proper = match line {
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9', b' ' | b'-', text @ .., b'\r', b'\n'] => {
                text.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
            }
            _ => false,
        };
        if !proper || line.len() > MAX_LINE + 2 {
            return Err(format!("not a reply: {}", String::from_utf8_lossy(line)));
        }
    }
    if rest.is_empty() { Ok(()) } else { Err("a reply without end".to_owned()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Fragments of which dialogues are made that go deep.
    const FRAGMENTS: [&[u8]; 48] = [
        b"EHLO a.b\r\n",
        b"HELO a.b\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<> SIZE=10 RET=FULL ENVID=x\r\n",
        b"MAIL FROM:<\xc3\xa9@\xc3\xbc.test> SMTPUTF8\r\n",
        b"RCPT TO:<\xc3\xa9@d>\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<c> NOTIFY=NEVER ORCPT=;\r\n",
        b"DATA\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"HELP\r\n",
        b"VRFY x\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"AUTH PLAIN x\r\n",
        b"AUTH PLAIN\r\n",
        b"AGFsaWNlAGFiYw==\r\n",
        b"AUTH PLAIN AGFsaWNlAGxiYw==\r\n",
        b"AUTH LOGIN\r\n",
        b"YWxpY2U=\r\n",
        b"AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPWFiYw==\r\n",
        b"AUTH SCRAM-SHA-256-PLUS\r\n",
        b"*\r\n",
        b"From: a, b <c@d> (e\r\n",
        b"BDAT 3 LAST\r\n",
        b"BDAT 40\r\n",
        b"BDAT 0\r\n",
        b"BDAT x\r\n",
        b"\r\n.\r\n",
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b".",
        b"..",
        b"\r",
        b"\n",
        b"\r\n",
        b"\0",
        b"\xff",
        b"Subject: x\r\n",
        b"To: a, \"b\r\n\tc\" (d,\r\n",
        b"Bcc: x\r\n y\r\n",
        b"Received: x\r\n",
        b"Date: x\n",
        b" \t",
        b": ",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn no_bytes_bring_a_session_down(bytes: Vec<u8>) {
            prop_assert_eq!(exercise(&bytes), Ok(()));
        }

        #[test]
        fn no_dialogue_brings_a_session_down(
            flags: u8,
            security: u8,
            chunk: u8,
            filter in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 7),
            decisions in prop::collection::vec(any::<[u8; 2]>(), 7),
            parts in prop::collection::vec((0..FRAGMENTS.len(), 1_usize..4), 0..60),
        ) {
            let mut bytes = vec![flags, security, chunk];
            if security & 0x80 != 0 {
                bytes.extend(&filter);
                bytes.extend(decisions[..usize::from(filter[6] & 7)].concat());
            }
            for (part, times) in parts {
                bytes.extend(FRAGMENTS[part].repeat(times));
            }
            prop_assert_eq!(exercise(&bytes), Ok(()));
        }
    }

    #[test]
    fn long_input_is_bounded_in_memory_and_work() {
        let long: [&[u8]; 6] =
            [b"x", b"\n", b"NOOP\r\n", b"RCPT TO:<c@d>\r\n", b"\r", b"To: a,\r\n "];
        for part in long {
            let input = part.repeat(80_000 / part.len());
            for flags in [0, 1, 2, 0x44, 0x48, 0x60] {
                let bytes = [&[flags, 0, 255], input.as_slice()].concat();
                assert_eq!(exercise(&bytes), Ok(()), "{part:?} with {flags}");
            }
            // Filters of everything, who take lines at once or in small pieces.
            for pace in [0, 9] {
                let filter = [0xff, 0x7f, 0, pace, 0, 255, 0];
                for flags in [0, 0x44, 0x60] {
                    let bytes = [&[flags, 0x80, 255], &filter[..], &input].concat();
                    assert_eq!(exercise(&bytes), Ok(()), "{part:?} with {flags} and filters");
                }
            }
        }
    }
}
