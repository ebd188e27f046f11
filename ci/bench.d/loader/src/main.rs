//! The loader of the whole-server benchmark: it sends messages, receives them, and counts them.
//!
//! Every message carries a number and a checksum, so that at its destination each is found to be
//! there once, twice, damaged, or not at all. Only loopback addresses are spoken to.
//!
//! ```text
//! loader run     --to ADDR [--sink ADDR | --mail DIR] [options]   send, wait for arrival, count
//! loader latency --to ADDR --disk FILE [options]                  one message at a time
//! loader idle    --to ADDR [options]                              sessions that say nothing
//! loader slow    --to ADDR [options]                              sessions of a byte a second
//! loader sink    --sink ADDR                                      a server that keeps nothing
//! loader filter                                                   a filter that changes nothing
//! ```
//!
//! One line of JSON on standard output is the result; a filter speaks with its server there.

mod arrival;
mod client;
mod dial;
mod filter;
mod idle;
mod latency;
mod mailbox;
mod message;
mod options;
mod run;
mod sink;
mod slow;

use std::process::ExitCode;

use options::{Failure, Options};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    if command == "filter" {
        return finish(filter::filter());
    }
    let result = Options::parse(arguments).and_then(|options| match command.as_str() {
        "idle" => idle::idle(&options),
        "latency" => latency::latency(&options),
        "run" => run::run(&options),
        "slow" => slow::slow(&options),
        "sink" => sink::serve_until_closed(&options),
        _ => Err("say run, latency, idle, slow, sink or filter".into()),
    });
    finish(result.map(|line| println!("{line}")))
}

fn finish(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loader: {error}");
            ExitCode::FAILURE
        }
    }
}
