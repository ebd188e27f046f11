//! The delivery programs under their installed names, as shells and people run them.
//!
//! As root they are run under the account `nobody`, since most of them refuse root.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

#[path = "common/install.rs"]
mod install;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use platform::privilege::is_root;

use install::copy_program;

const PROGRAMS: [(&str, &str); 5] = [
    ("mail.lmtp", env!("CARGO_BIN_EXE_mail-lmtp")),
    ("mail.local", env!("CARGO_BIN_EXE_mail-local")),
    ("mail.maildir", env!("CARGO_BIN_EXE_mail-maildir")),
    ("mail.mboxfile", env!("CARGO_BIN_EXE_mail-mboxfile")),
    ("mail.mda", env!("CARGO_BIN_EXE_mail-mda")),
];

/// The programs installed in a directory that everybody may read, and a home beside them.
struct Installation {
    directory: tempfile::TempDir,
}

impl Installation {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, built) in PROGRAMS {
            copy_program(built, directory.path().join(name));
        }
        let home = directory.path().join("home");
        fs::create_dir(&home).unwrap();
        if is_root() {
            let nobody = nobody();
            chown(home, Some(nobody.0), Some(nobody.1)).unwrap();
        }
        Self { directory }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A program that is not run by root, with a bare environment.
    fn command(&self, name: &str, words: &[&str]) -> Command {
        let mut command = Command::new(self.directory.path().join(name));
        command.args(words).env_clear().env("HOME", self.home()).current_dir(self.home());
        if is_root() {
            let (uid, gid) = nobody();
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn nobody() -> (u32, u32) {
    let account = platform::users::user_by_name("nobody").unwrap().unwrap();
    (account.uid, account.gid)
}

/// Runs `command` with `message` as its input.
fn output(mut command: Command, message: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that refuses its words does not read.
    let _ = child.stdin.take().unwrap().write_all(message.as_bytes());
    child.wait_with_output().unwrap()
}

/// Exit status, and what was said on standard error.
fn ended(command: Command, message: &str) -> (i32, String) {
    let output = output(command, message);
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said.trim_end().to_owned())
}

fn only_file(directory: &Path) -> PathBuf {
    let mut files = fs::read_dir(directory).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none(), "more than one file");
    file
}

#[test]
fn root_is_refused() {
    // queue case 151
    if !is_root() {
        println!("skipped: only root can be refused as root");
        return;
    }
    let installation = Installation::new();
    for (name, status) in
        [("mail.maildir", 1), ("mail.mboxfile", 1), ("mail.mda", 1), ("mail.lmtp", 75)]
    {
        let mut command = Command::new(installation.directory.path().join(name));
        command.args(["x"]).env("HOME", installation.home()).env("SENDER", "a@b");
        let text = format!("{name}: {name}: may not be executed as root");
        assert_eq!(ended(command, ""), (status, text));
    }
    assert!(fs::read_dir(installation.home()).unwrap().next().is_none());
}

#[test]
fn mail_maildir_delivers_into_the_home() {
    // queue cases 126 and 131
    let installation = Installation::new();
    let run = |words: &[&str], message| ended(installation.command("mail.maildir", words), message);
    assert_eq!(run(&[], "Subject: x\n\nbody\n"), (0, String::new()));
    let maildir = installation.home().join("Maildir");
    let text = fs::read_to_string(only_file(&maildir.join("new"))).unwrap();
    assert_eq!(text, "Subject: x\n\nbody\n");
    let explicit = installation.home().join("a/b");
    assert_eq!(run(&["-j", explicit.to_str().unwrap()], "X-Spam: yes\n\n").0, 0);
    only_file(&explicit.join(".Junk/new"));
    let (status, said) = run(&["a", "b"], "");
    assert_eq!((status, said.as_str()), (1, "mail.maildir: only one maildir is allowed"));
    let (status, said) = run(&["relative"], "");
    assert_eq!(status, 1, "{said}");
}

#[test]
fn mail_mboxfile_appends() {
    // queue case 150
    let installation = Installation::new();
    let command = installation.command("mail.mboxfile", &["-f", "me@x", "f"]);
    assert_eq!(ended(command, "a\nFrom b\n"), (0, String::new()));
    let text = fs::read_to_string(installation.home().join("f")).unwrap();
    let (separator, rest) = text.split_once('\n').unwrap();
    assert!(separator.starts_with("From me@x "), "{separator}");
    assert_eq!(rest, "a\n>From b\n\n");
    let command = installation.command("mail.mboxfile", &["/nowhere/f"]);
    let said = "mail.mboxfile: /nowhere/f: No such file or directory";
    assert_eq!(ended(command, "x"), (75, said.to_owned()));
}

#[test]
fn mail_mda_passes_the_status_on() {
    // queue case 152
    let installation = Installation::new();
    let run = |words: &[&str]| ended(installation.command("mail.mda", words), "x");
    assert_eq!(run(&["exit 3"]).0, 3);
    assert_eq!(run(&["kill -9 $$"]).0, 75);
    assert_eq!(run(&[]).0, 1);
    let output = output(installation.command("mail.mda", &["cat; echo end"]), "message\n");
    assert_eq!(output.stdout, b"message\nend\n");
}

#[test]
fn mail_local_knows_its_users() {
    // queue case 149
    let installation = Installation::new();
    let run = |words: &[&str]| ended(installation.command("mail.local", words), "x");
    assert_eq!(
        run(&["no-such-user-here"]),
        (67, "mail.local: unknown name: no-such-user-here".into())
    );
    assert_eq!(run(&[]).0, 64);
    assert_eq!(run(&["-f", "a", "-f", "b", "c"]).0, 64);
}

#[test]
fn mail_lmtp_tells_the_server_s_words() {
    // queue cases 153 and 154
    let installation = Installation::new();
    let run = |words: &[&str]| ended(installation.command("mail.lmtp", words), "Subject: x\n\n.\n");
    let connect = (75, "mail.lmtp: connect".to_owned());
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(run(&["-d", &free, "-f", "a", "b"]), connect);
    assert_eq!(run(&["-d", &free, "b"]).0, 75);

    for (reply, status) in [("550 no such user", 69), ("452 full", 75), ("250 ok", 0)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = std::thread::spawn(move || serve(&listener, reply));
        let (ended, said) = run(&["-d", &address, "-f", "a@b", "c"]);
        let expected = if status == 0 {
            String::new()
        } else {
            format!("mail.lmtp: LMTP server error: {reply}")
        };
        assert_eq!((ended, said), (status, expected));
        let told = server.join().unwrap();
        assert!(told.starts_with("LHLO localhost\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c>\r\n"), "{told}");
        assert_eq!(told.contains("\r\n..\r\n.\r\nQUIT\r\n"), status == 0, "{told}");
    }
}

/// A server of one connection that answers RCPT with `reply`; what it was told.
fn serve(listener: &TcpListener, reply: &str) -> String {
    let mut stream = listener.accept().unwrap().0;
    let mut input = BufReader::new(stream.try_clone().unwrap());
    let (mut told, mut in_message) = (String::new(), false);
    stream.write_all(b"220 test\r\n").unwrap();
    loop {
        let from = told.len();
        if input.read_line(&mut told).unwrap_or_default() == 0 {
            return told;
        }
        let answer = match (in_message, told[from..].trim_end()) {
            (true, ".") => "250 delivered",
            (true, _) => continue,
            (false, "DATA") => "354 go",
            (false, line) if line.starts_with("RCPT") => reply,
            (false, _) => "250 ok",
        };
        in_message = answer == "354 go";
        if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
            return told;
        }
    }
}
