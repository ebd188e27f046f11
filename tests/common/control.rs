//! `smtpctl` and its other names, run against a server under test.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output, Stdio};

use super::account::become_account;
use super::server::Server;
use super::wait::{SOON, wait_for};

/// What a program said, and how it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Said {
    fn new(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            status: output.status.code().unwrap_or(-1),
            output: text(&output.stdout),
            errors: text(&output.stderr),
        }
    }
}

impl Server {
    /// Runs `smtpctl` with these words, as the account of the server.
    pub fn control(&self, words: &[&str]) -> Said {
        let mut command = Command::new(self.program("smtpctl"));
        command.arg("--state").arg(self.state()).args(words);
        become_account(&mut command, self.account());
        Said::new(&command.stdin(Stdio::null()).output().unwrap())
    }

    /// Runs `sendmail` with these arguments and a message on its standard input.
    pub fn sendmail(&self, arguments: &[&str], message: &str) -> Said {
        let mut command = Command::new(self.program("smtpctl"));
        command.arg0("sendmail").arg("--state").arg(self.state()).args(arguments);
        become_account(&mut command, self.account());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that refuses its arguments does not read.
        let _ = child.stdin.take().unwrap().write_all(message.as_bytes());
        Said::new(&child.wait_with_output().unwrap())
    }

    /// The lines of `smtpctl show queue`, once the server knows all that is in its spool.
    pub fn queue(&self) -> Vec<String> {
        let said = wait_for("a complete listing", SOON, || {
            let said = self.control(&["show", "queue"]);
            (!said.errors.contains("incomplete")).then_some(said)
        });
        assert_eq!((said.status, said.errors.as_str()), (0, ""), "smtpctl show queue");
        said.output.lines().map(str::to_owned).collect()
    }

    /// The value of one counter of `smtpctl show stats`; 0 for one that is not shown.
    pub fn statistic(&self, name: &str) -> i64 {
        let said = self.control(&["show", "stats"]);
        assert_eq!((said.status, said.errors.as_str()), (0, ""), "smtpctl show stats");
        let found = said.output.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found.map_or(0, |value| value.parse().unwrap())
    }
}
