//! A dialogue with a scripted server, written down.

use super::*;

/// One dialogue: tasks are begun as soon as the session is ready for them.
pub(super) struct Talk {
    pub(super) session: Session,
    pub(super) tasks: std::vec::IntoIter<Task>,
    pub(super) transcript: Vec<String>,
}

impl Talk {
    pub(super) fn new(protocol: Protocol, tasks: Vec<Task>) -> Self {
        let options =
            SessionOptions { protocol, helo: "mx.test".into(), mail_max: 100, max_failures: 25 };
        Self { session: Session::new(options), tasks: tasks.into_iter(), transcript: Vec::new() }
    }

    /// The transcript of all that follows from what the server says: each item is one read,
    /// with `|` between lines.
    pub(super) fn run(mut self, server: &[&str]) -> Vec<String> {
        for read in server {
            self.hear(read);
        }
        self.transcript
    }

    pub(super) fn hear(&mut self, read: &str) {
        let lines = read.replace('|', "\r\n") + "\r\n";
        self.session.receive(lines.as_bytes());
        self.act();
    }

    pub(super) fn act(&mut self) {
        self.write();
        while let Some(action) = self.session.next_action() {
            match action {
                Action::Ready => match self.tasks.next() {
                    Some(task) => self.session.begin(Arc::new(task)),
                    None => self.note("ready"),
                },
                Action::SendBody => {
                    self.write();
                    self.transcript.push("> (message)".into());
                    self.session.body_sent();
                }
                Action::Close => self.note("close"),
                Action::Error(reason) => self.note(&format!("error {reason}")),
                Action::HostRejectsAll => self.note("rejects all"),
                Action::Settled { index, verdict } => {
                    let class = match verdict.class {
                        Class::Ok { dsn_relayed: false } => "Ok",
                        Class::Ok { dsn_relayed: true } => "Ok with DSN",
                        Class::NotAscii => "NotAscii",
                        Class::PermFail => "PermFail",
                        Class::TempFail { not_tried: false } => "TempFail",
                        Class::TempFail { not_tried: true } => "TempFail not tried",
                    };
                    self.note(&format!("{index} {class}: {}", verdict.text));
                }
            }
            self.write();
        }
    }

    pub(super) fn write(&mut self) {
        let output = std::mem::take(self.session.output());
        let text = String::from_utf8(output).unwrap();
        self.transcript.extend(text.split_terminator("\r\n").map(|line| format!("> {line}")));
    }

    pub(super) fn note(&mut self, text: &str) {
        self.transcript.push(format!("* {text}"));
    }
}
