//! A server that takes every message, checks it, and keeps only its number.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::arrival::Arrivals;
use crate::message::{Found, Judge};
use crate::options::{Failure, Options};

/// Listens, and notes in `arrivals` what comes, as long as the process lives.
pub fn serve(
    address: SocketAddr,
    run: &str,
    arrivals: &Arc<Mutex<Arrivals>>,
) -> Result<(), Failure> {
    let listener = TcpListener::bind(address)?;
    let run: Arc<str> = run.into();
    let arrivals = Arc::clone(arrivals);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (run, arrivals) = (Arc::clone(&run), Arc::clone(&arrivals));
            std::thread::spawn(move || {
                // A peer that hangs up in the middle shows in the count.
                let _ = converse(&stream, &run, &arrivals);
            });
        }
    });
    Ok(())
}

/// Serves until standard input ends.
pub fn serve_until_closed(options: &Options) -> Result<String, Failure> {
    let address = options.sink.ok_or("--sink is needed")?;
    let arrivals = Arc::new(Mutex::new(Arrivals::new(options.messages)));
    serve(address, &options.run, &arrivals)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let total = arrivals.lock().unwrap_or_else(PoisonError::into_inner).total;
    Ok(format!("{{\"arrived\": {total}}}"))
}

fn converse(stream: &TcpStream, run: &str, arrivals: &Mutex<Arrivals>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut replies: Vec<u8> = b"220 sink.bench.test ESMTP\r\n".to_vec();
    let mut line = Vec::new();
    loop {
        // Commands that came together are answered together.
        if reader.buffer().is_empty() {
            let mut out = stream;
            out.write_all(&replies)?;
            replies.clear();
        }
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let word = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match word.as_slice() {
            b"EHLO" => replies.extend_from_slice(
                b"250-sink.bench.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n",
            ),
            b"DATA" => {
                replies.extend_from_slice(b"354 go on\r\n");
                let mut out = stream;
                out.write_all(&replies)?;
                replies.clear();
                let found = receive(&mut reader, run, &mut line)?;
                let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                arrivals.note(found, SystemTime::now());
                replies.extend_from_slice(b"250 2.0.0 kept in mind\r\n");
            }
            b"QUIT" => {
                let mut out = stream;
                return out.write_all(b"221 2.0.0 bye\r\n");
            }
            _ => replies.extend_from_slice(b"250 2.0.0 ok\r\n"),
        }
    }
}

fn receive(reader: &mut impl BufRead, run: &str, line: &mut Vec<u8>) -> io::Result<Found> {
    let mut judge = Judge::new(run);
    loop {
        line.clear();
        if reader.read_until(b'\n', line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.strip_suffix(b"\r\n").unwrap_or(line);
        if text == b"." {
            return Ok(judge.verdict());
        }
        judge.line(text.strip_prefix(b".").unwrap_or(text));
    }
}
