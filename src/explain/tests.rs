//! Questions and their answers as printed, one file each in `cases/`: a configuration, the words of
//! the command line, the text that is expected.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::report::Outcome;
use super::*;
use crate::config::tests::good;

/// The accounts of the machine. No machine has these homes: `.forward` files are really read.
fn accounts(name: &str) -> io::Result<Option<Account>> {
    let account = |uid: u32, home: &str| Some(Account { uid, gid: uid, home: home.to_owned() });
    Ok(match name {
        "root" => account(0, "/nonexistent/superuser"),
        "_smtpd" => account(90, "/var/empty"),
        "vmail" => account(91, "/mail"),
        "alice" => account(1000, "/nonexistent/alice"),
        "bob" => account(1001, "/nonexistent/bob"),
        "dave" => account(1002, "/nonexistent/dave"),
        "broken" => return Err(io::Error::other("the directory does not answer")),
        _ => None,
    })
}

/// One file of `cases/`.
struct Case {
    path: PathBuf,
    text: String,
}

impl Case {
    /// The lines below the heading `name`, each with its end.
    fn section(&self, name: &str) -> &str {
        let heading = format!("== {name}\n");
        let Some((_, below)) = self.text.split_once(&heading) else { return "" };
        below.split_inclusive("\n== ").next().unwrap().trim_end_matches("== ")
    }

    fn explanation(&self) -> Explanation {
        let config = good(self.section("config"));
        let words: Vec<String> =
            self.section("ask").split_whitespace().map(str::to_owned).collect();
        let request = Request::parse(&words, &config).unwrap();
        let unreadable: Vec<&str> = self.section("unreadable").lines().collect();
        let read = |path: &str| match path {
            path if unreadable.contains(&path) => Err(io::ErrorKind::PermissionDenied.into()),
            "/list" => Ok(b"a.org\nb.org\n".to_vec()),
            _ => Ok(b"root: bob\n".to_vec()),
        };
        let describer = Describer {
            config: &config,
            sources: &Sources::new(&config, read, &accounts),
            request: &request,
            libexec: "/libexec",
            mailboxes: Path::new("/var/mail"),
        };
        explain(&describer, "_smtpd")
    }
}

fn cases() -> Vec<Case> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/explain/cases");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 12, "the cases were not found");
    let read = |path: PathBuf| Case { text: fs::read_to_string(&path).unwrap(), path };
    paths.into_iter().map(read).collect()
}

#[test]
fn each_question_is_answered_as_its_case_says() {
    for case in cases() {
        let text = text::render(&case.explanation());
        assert_eq!(text, case.section("text"), "{}", case.path.display());
    }
}

#[test]
fn the_json_form_tells_the_same() {
    for case in cases() {
        let explanation = case.explanation();
        let json = serde_json::to_string(&explanation).unwrap();
        assert!(!json.contains('\n'));
        let value: Value = serde_json::from_str(&json).unwrap();
        let recipients = value["recipients"].as_array().unwrap();
        assert_eq!(recipients.len(), explanation.recipients.len());
        for (told, recipient) in recipients.iter().zip(&explanation.recipients) {
            let name = case.path.display();
            assert_eq!(told["recipient"], recipient.recipient, "{name}");
            let (result, reply) = match &recipient.outcome {
                Outcome::Accepted { reply } => ("accepted", Some(reply)),
                Outcome::Refused { reply, .. } => ("refused", Some(reply)),
                Outcome::Unknown { .. } => ("unknown", None),
            };
            assert_eq!(told["outcome"]["result"], result, "{name}");
            assert_eq!(told["outcome"]["reply"].as_str(), reply.map(String::as_str), "{name}");
            assert_eq!(told["tree"]["kind"], "address", "{name}");
            let rules = told["tree"]["search"]["rules"].as_array().unwrap();
            let deciding: Vec<_> = rules.iter().filter(|rule| rule["matches"] == true).collect();
            assert!(deciding.len() <= 1, "{name}: the first rule that matches decides");
            let deliveries = told["deliveries"].as_array().unwrap();
            assert_eq!(deliveries.len(), recipient.deliveries.len(), "{name}");
            for delivery in deliveries {
                assert!(["local", "relay"].contains(&delivery["kind"].as_str().unwrap()), "{name}");
            }
        }
    }
}
