//! The mail daemon smtpd(8): the parent, and with `-x` each of its roles.

use std::process::ExitCode;

use pillarbox::parent::{self, Options};
use pillarbox::{
    control, dispatcher, explain, keys, log, lookup, queue, scheduler, spawner, worker,
};
use platform::Role;

fn main() -> ExitCode {
    // Must be first: it moves the memory that the title is written to.
    let _title = platform::process::prepare_title();
    let options = match Options::parse(std::env::args_os().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("smtpd: {error}");
            eprintln!("{}", parent::USAGE);
            return ExitCode::FAILURE;
        }
    };
    if let Some(role) = options.role {
        return play(role, &options);
    }
    if options.explain.is_some() {
        return explain::run(&options);
    }
    parent::run(&options)
}

/// Plays one role, as the parent or the spawner has ordered.
fn play(role: Role, options: &Options) -> ExitCode {
    let _title = platform::process::set_title(role.name());
    log::start(options.sink(), options.verbose);
    match role {
        Role::Control => control::run(),
        Role::Dispatcher => dispatcher::run(),
        Role::Keys => keys::run(),
        Role::Lookup => lookup::run(),
        Role::Queue => queue::run(),
        Role::Scheduler => scheduler::run(),
        Role::Spawner => spawner::run(options.foreground, options.verbose),
        Role::Auth | Role::Worker => worker::serve::run(),
        Role::Parent => {
            tracing::error!("fatal: {} is not a role to start", role.name());
            ExitCode::FAILURE
        }
    }
}
