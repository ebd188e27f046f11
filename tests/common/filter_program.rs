//! A filter program that does what the test wants.
//!
//! It is written in Python; its argument names a directory, and the files in there say what it does:
//! `register` what it registers, `mode` what it does when it is asked. What it is told it writes
//! there, too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::install::copy_program;
use super::server::Server;

/// The program.
const SCRIPT: &str = r#"#!/usr/bin/env python3
import os, sys, time

os.chdir(sys.argv[1])
try:
    with open("/proc/self/comm", "w") as name:
        name.write("filter-test")
except OSError:
    pass
read, write = sys.stdin.buffer, sys.stdout.buffer
config, events = open("config", "ab", 0), open("events", "ab", 0)
everything = open("lines", "ab", 0)


def mode():
    with open("mode") as file:
        return file.read()


while True:
    line = read.readline()
    if not line:
        sys.exit(0)
    config.write(line)
    if line == b"config|ready\n":
        break
if mode() == "slow":
    time.sleep(2)
with open("register", "rb") as file:
    write.write(file.read() + b"register|ready\n")
write.flush()

waiting = b""
while True:
    piece = read.raw.read(65536)
    if not piece:
        sys.exit(0)
    lines = (waiting + piece).split(b"\n")
    waiting = lines.pop()
    out, told, whole = [], [], []
    does = mode()
    for line in lines:
        if b"|data-line|" not in line:
            whole.append(line + b"\n")
        kind, rest = line.split(b"|", 1)
        if kind == b"report":
            told.append(rest.split(b"|", 4)[3] + b"\n")
            continue
        version, when, subsystem, phase, session, token, parameter = rest.split(b"|", 6)
        if does == "deaf":
            time.sleep(3600)
        if phase == b"data-line":
            out.append(b"filter-dataline|%s|%s|%s\n" % (session, token, parameter))
            continue
        if does == "exit":
            sys.exit(0)
        if does == "stall":
            continue
        if does == "flood":
            everything.write(b"".join(whole))
            flood = b"report|1.1|smtp-in|%s|more\n" % session * 1000
            while mode() == "flood":
                write.write(flood)
        if does == "nonsense":
            out.append(b"hello world\n")
        elif does == "long":
            out.append(b"x" * 70000)
        elif does == "closed":
            os.close(1)
            os.close(0)
            time.sleep(60)
        elif does == "complain":
            os.write(2, b"hi\n")
        of, _, decision = does.encode().partition(b" ")
        if of != phase:
            decision = b"proceed"
        out.append(b"filter-result|%s|%s|%s\n" % (session, token, decision))
    everything.write(b"".join(whole))
    events.write(b"".join(told))
    write.write(b"".join(out))
    write.flush()
"#;

/// Registrations of every phase and every event of incoming sessions.
pub const EVERYTHING: &str = "register|report|smtp-in|*\n\
    register|filter|smtp-in|connect\nregister|filter|smtp-in|helo\n\
    register|filter|smtp-in|ehlo\nregister|filter|smtp-in|starttls\n\
    register|filter|smtp-in|auth\nregister|filter|smtp-in|mail-from\n\
    register|filter|smtp-in|rcpt-to\nregister|filter|smtp-in|data\n\
    register|filter|smtp-in|data-line\nregister|filter|smtp-in|rset\n\
    register|filter|smtp-in|quit\nregister|filter|smtp-in|noop\n\
    register|filter|smtp-in|commit\n";

/// The directory that tells a program what to do.
pub struct FilterProgram {
    directory: PathBuf,
}

impl FilterProgram {
    /// Puts the program at `@DIR@/filter-test`, and its directory at `@DIR@/NAME`.
    pub fn install(server: &Server, name: &str) -> Self {
        let text = server.path("filter-test.py");
        fs::write(&text, SCRIPT).unwrap();
        fs::set_permissions(&text, fs::Permissions::from_mode(0o755)).unwrap();
        copy_program(&text, server.path("filter-test"));
        Self::beside(server, name)
    }

    /// Another directory for the program, at `@DIR@/NAME`.
    pub fn beside(server: &Server, name: &str) -> Self {
        Self::put(&server.path(name))
    }

    fn put(directory: &Path) -> Self {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o777)).unwrap();
        let program = Self { directory: directory.to_owned() };
        program.registers("");
        program.mode("proceed");
        program
    }

    /// What it registers from its next start on, lines without `register|ready`.
    pub fn registers(&self, text: &str) {
        fs::write(self.directory.join("register"), text).unwrap();
    }

    /// What it does from now on: a word that its text knows, or a phase and the decision there.
    pub fn mode(&self, mode: &str) {
        // Read in the middle of being written it would be something else.
        let new = self.directory.join("mode.new");
        fs::write(&new, mode).unwrap();
        fs::rename(new, self.directory.join("mode")).unwrap();
    }

    /// What it wrote down: `config` all greetings, `events` the names of events, `lines` all that it
    /// was told after its greeting but lines of messages.
    pub fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.directory.join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What it was told, in the short forms of the specification: `R|` and `Q|` without time, session
    /// and token.
    pub fn told(&self) -> Vec<String> {
        let short = |line: String| {
            let parts: Vec<&str> = line.splitn(6, '|').collect();
            let [kind, _, _, _, name, rest] = parts[..] else { panic!("{line}") };
            let (letter, fields) = match kind {
                "report" => ("R", rest.split_once('|').map_or("", |(_, fields)| fields)),
                _ => ("Q", rest.splitn(3, '|').nth(2).unwrap()),
            };
            format!("{letter}|{name}|{fields}")
        };
        self.lines("lines").into_iter().map(short).collect()
    }

    /// The names of the events of the session that began last, in their order.
    pub fn last_session(&self) -> Vec<String> {
        let lines = self.lines("lines");
        let reports = lines.iter().filter_map(|line| {
            let mut fields = line.split('|');
            let is_report = fields.next() == Some("report");
            // Behind version, time and direction.
            let name = fields.nth(3)?;
            Some((name, fields.next()?)).filter(|_| is_report)
        });
        let reports: Vec<_> = reports.collect();
        let last = reports.iter().rev().find(|(name, _)| *name == "link-connect");
        let of_last = |(_, session): &&(&str, &str)| last.is_some_and(|last| last.1 == *session);
        reports.iter().filter(of_last).map(|(name, _)| (*name).to_owned()).collect()
    }

    /// The names of all events that it was told of, in their order.
    pub fn events(&self) -> Vec<String> {
        self.lines("events")
    }
}
