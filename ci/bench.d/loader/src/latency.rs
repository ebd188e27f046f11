//! One session, one message at a time, against plain synced appends on the same disk.
//!
//! The two take turns, so that both meet the same moods of the disk.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::client::Session;
use crate::dial::Dialer;
use crate::message;
use crate::options::{Failure, Options};
use crate::run::{quantile, recipients};

/// The command `latency`.
pub fn latency(options: &Options) -> Result<String, Failure> {
    let path = options.disk.as_deref().ok_or("--disk is needed")?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let mut session = Session::open(&Dialer::new(options)?)?;
    let (mut appends, mut replies, mut over) = (Vec::new(), Vec::new(), Vec::new());
    let block = vec![b'x'; options.size];
    for number in 0..options.messages {
        let begin = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        let append = begin.elapsed();
        let message = message::compose(&options.run, number, options.size);
        let reply = session.send(&recipients(options, number), &message)?;
        appends.push(append);
        replies.push(reply);
        over.push(reply.saturating_sub(append));
    }
    session.quit()?;
    for times in [&mut appends, &mut replies, &mut over] {
        times.sort_unstable();
    }
    let median = |times: &[Duration]| quantile(times, 0.5);
    Ok(format!(
        "{{\"messages\": {}, \"append_median\": {:.6}, \"append_p90\": {:.6}, \
         \"reply_median\": {:.6}, \"reply_p90\": {:.6}, \"over_median\": {:.6}}}",
        options.messages,
        median(&appends),
        quantile(&appends, 0.9),
        median(&replies),
        quantile(&replies, 0.9),
        median(&over),
    ))
}
