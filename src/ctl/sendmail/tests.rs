//! Submissions from the command line to the wire, against a server that the test plays.

use std::ffi::OsString;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use super::options::Invocation;
use super::*;

/// A session whose replies are given, and which remembers what it was sent.
struct Session<'a> {
    replies: Cursor<String>,
    heard: &'a mut Vec<u8>,
}

impl Read for Session<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.replies.read(buffer)
    }
}

impl Write for Session<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What one run of `sendmail` led to.
struct Run {
    result: Result<Taken, SendmailError>,
    heard: String,
    transcript: String,
    directory: tempfile::TempDir,
}

impl Run {
    fn recipients(&self) -> Vec<&str> {
        self.heard.lines().filter(|line| line.starts_with("RCPT TO:")).map(str::trim_end).collect()
    }

    fn kept(&self) -> Vec<String> {
        let offline = fs::read_dir(self.directory.path().join("offline")).unwrap();
        offline.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap()).collect()
    }

    fn dead_letter(&self) -> io::Result<String> {
        fs::read_to_string(self.directory.path().join("dead.letter"))
    }

    fn status(&self) -> u8 {
        match &self.result {
            Ok(taken) => taken.exit_status(),
            Err(error) => error.exit_status(),
        }
    }
}

fn facts(directory: &Path, arguments: &[OsString]) -> Facts {
    Facts {
        caller: "bob".into(),
        full_name: full_name("B &,Room 5", "bob"),
        dead_letter: Some(directory.join("dead.letter")),
        server_name: "mx.test".into(),
        offline: directory.join("offline"),
        scratch: directory.to_owned(),
        date: "Sat, 7 Nov 2026 09:05:03 +0000 (UTC)".into(),
        now: 1_795_289_588,
        arguments: arguments.to_vec(),
    }
}

/// Runs `sendmail` with `words` and `input`. A recipient whose name begins with `nosuch` is refused.
fn run(words: &[&str], input: &str, session: Result<(), SessionError>) -> Run {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("offline")).unwrap();
    let arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
    let facts = facts(directory.path(), &arguments);
    let options = match options::parse(&arguments).unwrap().invocation {
        Invocation::Deliver(options) => options,
        other => panic!("{other:?}"),
    };
    let mut heard = Vec::new();
    let mut transcript = Vec::new();
    let mut replies = String::from("220 mx.test\r\n250 mx.test\r\n250 ok\r\n");
    let draft = Draft::read(&mut input.as_bytes(), options.header_recipients, directory.path());
    if let Ok(draft) = draft {
        for recipient in &transaction(&options, &facts, &draft).recipients {
            if recipient.starts_with("nosuch") || recipient.is_empty() {
                replies += &format!("550 Invalid recipient: <{recipient}>\r\n");
            } else {
                replies += "250 ok\r\n";
            }
        }
    }
    replies += "354 go\r\n250 taken\r\n221 bye\r\n";
    let open = || session.map(|()| Session { replies: Cursor::new(replies), heard: &mut heard });
    let result = deliver(&options, &facts, &mut input.as_bytes(), &mut transcript, open);
    Run {
        result,
        heard: String::from_utf8(heard).unwrap(),
        transcript: String::from_utf8(transcript).unwrap(),
        directory,
    }
}

// queue cases 182, 183 and 192.
#[test]
fn a_message_is_submitted_with_what_it_lacks() {
    let run_ = run(&["-oi", "-i", "alice@d", "-f", "foo@d"], "Subject: x\n\n.\ntext\n", Ok(()));
    assert_eq!(run_.status(), 0);
    let expected = "EHLO localhost\r\nMAIL FROM:<foo@d>  \r\nRCPT TO:<alice@d> \r\nDATA\r\n\
        From: <foo@d>\r\nDate: Sat, 7 Nov 2026 09:05:03 +0000 (UTC)\r\nSubject: x\r\n\r\n\
        ..\r\ntext\r\n.\r\nQUIT\r\n";
    assert_eq!(run_.heard, expected);
    assert!(run_.transcript.is_empty() && run_.dead_letter().is_err());

    let cases: [(&[&str], &str); 4] = [
        (&["alice"], "\r\nFrom: B Bob <bob@mx.test>\r\n"),
        (&["-F", "A B", "-f", "root@d", "alice"], "\r\nFrom: A B <root@d>\r\n"),
        (&["-f", "root@d", "alice"], "\r\nFrom: <root@d>\r\n"),
        (&["-f", "<>", "alice"], "\r\nFrom: <MAILER-DAEMON@mx.test>\r\n"),
    ];
    for (words, line) in cases {
        let run_ = run(words, "text\n", Ok(()));
        assert!(run_.heard.contains(line), "{words:?}\n{}", run_.heard);
        assert_eq!(run_.recipients(), ["RCPT TO:<alice@mx.test>"]);
    }
}

// queue cases 184 and 185.
#[test]
fn a_refused_recipient_fails_the_message_and_saves_it() {
    let run_ = run(&["-v", "alice@d", "nosuch@x"], "Subject: x\n\ntext\n", Ok(()));
    let error = run_.result.as_ref().unwrap_err().to_string();
    assert_eq!(error, "command failed: 550 Invalid recipient: <nosuch@x>");
    assert_eq!(run_.status(), 70);
    assert!(!run_.heard.contains("DATA"));
    assert!(run_.transcript.contains("<<< 550 Invalid recipient: <nosuch@x>\n"));
    assert_eq!(run_.dead_letter().unwrap(), "Subject: x\n\ntext\n");
    assert_eq!(run(&["alice@d,"], "text\n", Ok(())).status(), 70);
}

// queue case 187.
#[test]
fn recipients_of_the_header_join_those_of_the_command_line() {
    let input = "From: Someone <from@d>\nTo: \"B, Alice\" <alice@d>, friends: carl@d, dora@d;\n\
                 Cc: alice@d, local\nBcc: secret@d,\n other@d\n\ntext\n";
    let run_ = run(&["-t", "extra@d"], input, Ok(()));
    let expected = ["extra", "alice", "carl", "dora", "local", "secret", "other"].map(|name| {
        let domain = if name == "local" { "mx.test" } else { "d" };
        format!("RCPT TO:<{name}@{domain}>")
    });
    assert_eq!(run_.recipients(), expected);
    assert!(run_.heard.contains("MAIL FROM:<from@d>"), "{}", run_.heard);
    let data = run_.heard.split("DATA\r\n").nth(1).unwrap();
    assert!(!data.contains("secret") && !data.contains("other@d"), "{data}");
}

// queue cases 193, 194 and 195, and the ends that 7.2 lists.
#[test]
fn exit_statuses_say_what_happened() {
    type Case<'a> = (&'a [&'a str], &'a str, Result<(), SessionError>, u8, &'a str);
    let cases: [Case<'_>; 8] = [
        (&["a@d"], "x\n", Err(SessionError::Disallowed), 1, "server disallowed submission request"),
        (&["a@d"], "x\n", Err(SessionError::Busy), 69, "server too busy"),
        (&[], "x\n", Ok(()), 70, "no recipients"),
        (&["-t"], "Subject: x\n\n", Err(SessionError::Down), 70, "no recipients"),
        (&["-t"], "To: <a\n\n", Ok(()), 1, "syntax error in address"),
        (&["a@d"], "x\n", Err(SessionError::Down), 75, ""),
        (&["a|b@d"], "x\n", Err(SessionError::Down), 70, "a|b@d contains illegal character"),
        (&["a@d"], "x\n", Err(SessionError::Other("odd".into())), 1, "odd"),
    ];
    for (words, input, session, status, text) in cases {
        let run_ = run(words, input, session);
        assert_eq!(run_.status(), status, "{words:?} {text}");
        if let Err(error) = &run_.result {
            assert_eq!(error.to_string(), text);
        }
    }
}

// queue case 194, and the correction of 1.10: Bcc recipients survive.
#[test]
fn a_message_for_a_server_that_is_down_is_kept_with_all_its_recipients() {
    let run_ = run(&["-t", "-f", "x@d"], "To: a@d\n\ntext\n", Err(SessionError::Down));
    assert_eq!(run_.status(), 75);
    assert_eq!(run_.kept(), ["-t|-f|x@d\nTo: a@d\n\ntext\n"]);
    let run_ = run(&["-t", "-f", "x@d"], "To: a@d\nBcc: b@d\n\ntext\n", Err(SessionError::Down));
    assert_eq!(run_.kept(), ["-f|x@d|--|a@d|b@d\nTo: a@d\n\ntext\n"]);
    // The server submits what was kept, and went down again: its file is there already.
    let run_ = run(&["-S", "-t"], "To: a@d\n\ntext\n", Err(SessionError::Down));
    assert_eq!((run_.status(), run_.kept()), (75, vec![]));
}

#[test]
fn the_full_name_is_the_comment_up_to_a_comma() {
    let cases = [
        ("Bob Builder,Room 5,,", "Bob Builder"),
        ("& Builder", "Bob Builder"),
        ("", ""),
        (",x", ""),
    ];
    for (comment, expected) in cases {
        assert_eq!(full_name(comment, "bob"), expected);
    }
}
