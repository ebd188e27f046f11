//! `smtpd -n --explain` as an ordinary user runs it: no server, no rights, nothing left behind.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use common::account::{Programs, become_account, open_directory, ordinary_account};
use serde_json::Value;
use tempfile::TempDir;

const CONFIG: &str = r#"
table names file:@DIR@/names
table users { "@" = "@USER@" }
action "local" maildir "@DIR@/%{rcpt.user}" virtual <users>
action "out" relay
match from any for domain <names> action "local"
match from local for any action "out"
"#;

struct Question {
    directory: TempDir,
    programs: Arc<Programs>,
}

impl Question {
    fn new() -> Self {
        let directory = open_directory();
        let text = CONFIG
            .replace("@DIR@", directory.path().to_str().unwrap())
            .replace("@USER@", &ordinary_account().name);
        fs::write(directory.path().join("smtpd.conf"), text).unwrap();
        fs::write(directory.path().join("names"), "example.org\n").unwrap();
        Self { directory, programs: Programs::installed() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn ask(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.programs.path("smtpd"));
        command.args(["-n", "-f"]).arg(self.path("smtpd.conf")).arg("--explain").args(words);
        become_account(&mut command, &ordinary_account());
        command.current_dir("/").stdin(Stdio::null()).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_question_is_answered_without_a_server_and_changes_nothing() {
    let question = Question::new();
    let said = question.ask(&["from=a@b.example", "src=192.0.2.1", "rcpt=Carl@example.org"]);
    let output = text(&said.stdout);
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    for line in [
        "from <a@b.example>, client 192.0.2.1 (no name given)".to_owned(),
        "      for domain <names>: yes, \"example.org\" is in <names>".to_owned(),
        "  reply 250 2.1.5 Destination address valid: Recipient ok".to_owned(),
        format!("    maildir {}", question.path("Carl").display()),
    ] {
        assert!(output.lines().any(|one| one == line), "{line}\n{output}");
    }
    let account = ordinary_account();
    let looked_up = format!("uid {}, gid {}", account.uid, account.gid);
    assert!(output.contains(&looked_up), "{looked_up}\n{output}");
    assert_eq!(names(question.directory.path()), ["names", "smtpd.conf"]);
}

#[test]
fn programs_get_an_object_and_a_refusal_is_an_answer_too() {
    let question = Question::new();
    let said =
        question.ask(&["--json", "src=192.0.2.1", "rcpt=x@far.example", "rcpt=x@example.org"]);
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    let output = text(&said.stdout);
    assert_eq!(output.matches('\n').count(), 1);
    let value: Value = serde_json::from_str(&output).unwrap();
    let recipients = value["recipients"].as_array().unwrap();
    assert_eq!(recipients[0]["outcome"]["result"], "refused");
    let rules = recipients[0]["tree"]["search"]["rules"].as_array().unwrap();
    let holds: Vec<_> = rules.iter().map(|rule| &rule["matches"]).collect();
    assert_eq!(holds, [&Value::Bool(false), &Value::Bool(false)]);
    let because = &rules[1]["criteria"][0]["because"];
    assert_eq!(because, "\"192.0.2.1\" is not in <localhost>");
    assert_eq!(recipients[1]["outcome"]["result"], "accepted");
    assert_eq!(recipients[1]["deliveries"][0]["method"], "maildir");
}

#[test]
fn what_cannot_be_explained_is_said() {
    let question = Question::new();
    let cases = [
        (&["from=a@b"][..], "smtpd: --explain needs rcpt=ADDRESS\n"),
        (&["rcpt=a@b", "x"], "smtpd: x: not one of auth= from= helo= rcpt= rdns= src= tag= tls\n"),
    ];
    for (words, expected) in cases {
        let said = question.ask(words);
        assert_eq!((said.status.code(), text(&said.stderr).as_str()), (Some(1), expected));
        assert!(said.stdout.is_empty());
    }
    // A table that this user may not read.
    if !platform::privilege::is_root() {
        println!("skipped: only root can make a file that the caller may not read");
        return;
    }
    fs::set_permissions(question.path("names"), fs::Permissions::from_mode(0o600)).unwrap();
    let said = question.ask(&["rcpt=a@example.org"]);
    assert_eq!(said.status.code(), Some(1));
    let errors = text(&said.stderr);
    let expected = format!("{}: fopen: Permission denied", question.path("names").display());
    assert!(errors.lines().any(|line| line == expected), "{errors}");
}
