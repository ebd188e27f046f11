//! Clients that hold their sessions with a byte a second each.
//!
//! Prints `ready` when all are open; the end of standard input ends them. A session that the server
//! gives up is made anew at once, so that there are always as many as were asked for.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::client::Session;
use crate::dial::Dialer;
use crate::options::{Failure, Options, Slowness};
use crate::run::recipients;

/// Threads that feed the sessions.
const FEEDERS: usize = 4;
/// Bytes of a line, its ending included, which comes about once a minute.
const LINE: usize = 64;
/// What a TLS client says first: a record with 512 bytes of a handshake.
const HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

/// One session, and how many bytes of what it has to say it has said.
struct Slow {
    stream: TcpStream,
    kind: Slowness,
    said: usize,
}

/// The command `slow`.
pub fn slow(options: &Options) -> Result<String, Failure> {
    let dialer = Dialer::new(options)?;
    let mut slow = (0..options.sessions)
        .map(|number| open(&dialer, options, number))
        .collect::<Result<Vec<Slow>, Failure>>()?;
    println!("ready");
    let (done, again) = (AtomicBool::new(false), AtomicUsize::new(0));
    let share = slow.len().div_ceil(FEEDERS);
    std::thread::scope(|scope| -> Result<(), Failure> {
        for sessions in slow.chunks_mut(share) {
            scope.spawn(|| feed(&dialer, options, sessions, &done, &again));
        }
        let ended = io::copy(&mut io::stdin(), &mut io::sink());
        done.store(true, Ordering::Release);
        ended?;
        Ok(())
    })?;
    let again = again.load(Ordering::Acquire);
    Ok(format!("{{\"sessions\": {}, \"again\": {again}}}", options.sessions))
}

/// A new session, as far as it goes at full speed.
fn open(dialer: &Dialer, options: &Options, number: usize) -> Result<Slow, Failure> {
    let mut session = Session::greet(dialer)?;
    let kind = match options.slowness {
        // Both places where a client may take its time.
        Slowness::Either if number.is_multiple_of(2) => Slowness::Content,
        Slowness::Either => Slowness::Command,
        kind => kind,
    };
    match kind {
        Slowness::Content => session.begin(&recipients(options, number))?,
        Slowness::Handshake => session.command(b"STARTTLS\r\n", 220)?,
        Slowness::Command | Slowness::Either => {}
    }
    let stream = session.into_socket()?;
    stream.set_nonblocking(true)?;
    Ok(Slow { stream, kind, said: 0 })
}

/// Has each of `sessions` say a byte a second, one after the other, until all is done.
fn feed(
    dialer: &Dialer,
    options: &Options,
    sessions: &mut [Slow],
    done: &AtomicBool,
    again: &AtomicUsize,
) {
    let pause = Duration::from_secs(1) / u32::try_from(sessions.len()).unwrap_or(u32::MAX).max(1);
    let mut next = Instant::now();
    for turn in 0_usize.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        let number = turn % sessions.len();
        if let Some(slow) = sessions.get_mut(number)
            && slow.say().is_err()
        {
            again.fetch_add(1, Ordering::AcqRel);
            // A server that takes no more may take this one the next time round.
            if let Ok(opened) = open(dialer, options, number) {
                *slow = opened;
            }
        }
        next += pause;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

impl Slow {
    /// Says one more byte, and reads away what was answered.
    fn say(&mut self) -> io::Result<()> {
        let byte = self.byte();
        self.stream.write_all(&[byte])?;
        self.said += 1;
        let mut answers = [0; 512];
        match self.stream.read(&mut answers) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }

    fn byte(&self) -> u8 {
        let first: &[u8] = match self.kind {
            Slowness::Handshake => HELLO,
            Slowness::Content => b"Subject: slow",
            Slowness::Command | Slowness::Either => b"NOOP ",
        };
        let place = self.said % LINE;
        match (self.kind, place) {
            (Slowness::Handshake, _) => first.get(self.said).copied().unwrap_or(b'x'),
            (_, place) if place + 1 == LINE => b'\n',
            (_, place) if place + 2 == LINE => b'\r',
            _ => first.get(place).copied().unwrap_or(b'x'),
        }
    }
}
