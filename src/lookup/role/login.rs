//! Logins: what tables and programs are asked for them, and whether a user may be a sender.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::Lookup;
use crate::config::{TableId, TableSource};
use crate::ipc::blob::Blob;
use crate::ipc::message::lookup::{Credentials as Verdict, Password, VerifierAnswer};
use crate::lookup::credentials::Survey;
use crate::model::ReversePath;
use crate::model::envelope::Source;
use crate::proto::scram::SCHEME;
use crate::table::process::RequestError;
use crate::table::value::BadValue;
use crate::table::{Answer, Map, Question, Service, Table, value};

impl Lookup {
    /// What a client is told that sends a user and a password.
    pub(super) async fn authenticate(
        &self,
        table: Option<TableId>,
        user: Blob,
        password: Password,
        source: Source,
    ) -> Verdict {
        let check = async {
            match table {
                None => self.logins.check_account(user.0, password, source).await,
                Some(table) => self.check_entry(table, &user.0, password).await,
            }
        };
        self.logins.judge(source, check).await
    }

    async fn check_entry(&self, table: TableId, user: &[u8], password: Password) -> Verdict {
        // A table has no other text.
        let user = std::str::from_utf8(user).unwrap_or_default();
        if self.is_program(table) {
            // As it was sent.
            match self.ask_program(table, user, &password).await {
                Ok(true) => return Verdict::Accepted,
                Ok(false) => return Verdict::Rejected,
                Err(RequestError::NotOffered) => {}
                Err(error) => {
                    self.warn_about(table, user, &error);
                    return Verdict::Failed;
                }
            }
        }
        let user = user.to_ascii_lowercase();
        let Ok(hash) = self.hash_of(table, &user).await else { return Verdict::Failed };
        let survey = self.survey(table, hash.as_ref()).await;
        match self.logins.check_hash(&survey, &user, hash, password).await {
            Ok(verdict) => verdict,
            Err(error) => {
                self.warn_about(table, &user, &error);
                Verdict::Rejected
            }
        }
    }

    /// Asks a program that checks passwords itself.
    async fn ask_program(
        &self,
        table: TableId,
        user: &str,
        password: &Password,
    ) -> Result<bool, RequestError> {
        // What cannot be part of the question is nobody's password. The question is not kept.
        let Ok(password) = std::str::from_utf8(&password.0) else { return Ok(false) };
        match self.programs.log_in(table, format!("{user}:{password}")).await {
            Err(RequestError::Key) => Ok(false),
            other => other,
        }
    }

    /// What there is to prove for a user.
    pub(super) async fn verifier(
        &self,
        table: TableId,
        user: &str,
        source: Source,
    ) -> VerifierAnswer {
        if self.logins.refuses(source) {
            return VerifierAnswer::Limited;
        }
        let user = user.to_ascii_lowercase();
        let Ok(hash) = self.hash_of(table, &user).await else { return VerifierAnswer::Failed };
        let survey = self.survey(table, hash.as_ref()).await;
        match self.logins.verifier(&survey, &user, hash.as_ref()) {
            Some(verifier) => VerifierAnswer::Found(Zeroizing::new(verifier.to_string())),
            None => VerifierAnswer::Missing,
        }
    }

    /// Whether somebody in a table has a verifier. Of what programs hold that is not known.
    pub(super) async fn offers_scram(&self, table: TableId) -> bool {
        !self.is_program(table) && self.survey(table, None).await.has_verifiers()
    }

    /// What the hashes of a table are like; `hash` is one of them.
    async fn survey(&self, table: TableId, hash: Option<&Zeroizing<String>>) -> Arc<Survey> {
        if let Some(entries) = self.tables.get(table) {
            return self.logins.survey(table, entries, survey_of_table).await;
        }
        match self.maps.open_now(table).await {
            Some(map) => self.logins.survey(table, map, survey_of_map).await,
            None => self.logins.seen(table, hash).await,
        }
    }

    /// Whether `user` may send as `sender`; `None` if it is not known.
    pub(super) async fn may_send(
        &self,
        table: TableId,
        user: &str,
        sender: &ReversePath,
    ) -> Option<bool> {
        let key = user.to_ascii_lowercase();
        let question = Question::Value { table, service: Service::Mailaddrmap, key };
        let text = match self.answer_to(&question).await {
            Answer::Value(Some(text)) => text,
            Answer::Value(None) => return Some(false),
            _ => return None,
        };
        allows(&text, sender, self.setup.config.smtp.sub_address_delimiter)
    }

    /// The hash of a user, whose name is in lower case; `None` if there is no such user.
    async fn hash_of(&self, table: TableId, user: &str) -> Result<Option<Zeroizing<String>>, ()> {
        if user.is_empty() {
            return Ok(None);
        }
        let key = user.to_owned();
        let question = Question::Value { table, service: Service::Credentials, key };
        match self.answer_to(&question).await {
            Answer::Value(Some(text)) => {
                let text = Zeroizing::new(text);
                login_hash(&text).map(Some).map_err(|error| {
                    self.warn_about(table, user, &error);
                })
            }
            Answer::Value(None) => Ok(None),
            _ => {
                self.warn_about(table, user, &"the table cannot be read");
                Err(())
            }
        }
    }

    fn is_program(&self, table: TableId) -> bool {
        let source = self.setup.config.table(table).map(|table| &table.source);
        matches!(source, Some(TableSource::Program { .. }))
    }

    fn warn_about(&self, table: TableId, user: &str, reason: &dyn std::fmt::Display) {
        let name = self.setup.config.table(table).map_or("", |table| table.name.as_str());
        let user = user.escape_debug();
        tracing::warn!("warn: user credentials lookup fail for {name}:{user}: {reason}");
    }
}

fn survey_of_table(entries: &Table) -> Survey {
    let mut survey = Survey::default();
    for key in entries.keys() {
        if let Some(text) = entries.value(&key) {
            note(&mut survey, &text);
        }
    }
    survey
}

fn survey_of_map(map: &Map) -> Survey {
    let mut survey = Survey::default();
    let read = map.each(|_, text| {
        note(&mut survey, text);
        true
    });
    // What was read before an error will do.
    let _partly = read;
    survey
}

fn note(survey: &mut Survey, text: &str) {
    if let Ok(hash) = login_hash(text) {
        survey.note(&hash);
    }
}

/// Reads what a client that logs in must know: credentials whose password is a hash, or the text of a
/// SCRAM verifier, which holds colons. A user in it counts for nothing.
fn login_hash(text: &str) -> Result<Zeroizing<String>, BadValue> {
    let is_verifier = text.strip_prefix(SCHEME).is_some_and(|rest| rest.starts_with('$'));
    if is_verifier && text.len() < value::MAX_LINE {
        return Ok(Zeroizing::new(text.to_owned()));
    }
    value::credentials("", text).map(|credentials| credentials.password)
}

/// Whether a list of addresses lets its user send as `sender`; `None` if it is no list.
///
/// Each entry is a user, a domain after `@`, or both; it matches when all it has does. `@` stands for
/// everything, and alone for the null sender. The part of a user after `delimiter` is left out,
/// unless the entry has one.
fn allows(list: &str, sender: &ReversePath, delimiter: char) -> Option<bool> {
    let addresses = value::mail_addresses(list).ok()?;
    Some(addresses.contain(sender.as_str(), delimiter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mailbox;

    #[test]
    fn senders_that_a_user_may_use() {
        const ALICE: &str = "alice@example.org, @sub.example.org";
        // Cases of sessions are named: the reply there follows from this.
        let cases = [
            ("smtp 190", ALICE, "a@b", Some(false)),
            ("smtp 190", ALICE, "", Some(false)),
            ("smtp 191", ALICE, "x@SUB.example.org", Some(true)),
            ("smtp 191", ALICE, "Alice+tag@example.org", Some(true)),
            ("", ALICE, "alice@EXAMPLE.org", Some(true)),
            ("", ALICE, "bob@example.org", Some(false)),
            ("", ALICE, "x@deep.sub.example.org", Some(false)),
            ("", "alice+list@example.org", "alice+list@example.org", Some(true)),
            ("", "alice+list@example.org", "alice@example.org", Some(false)),
            ("", "@*.example.org", "x@sub.example.org", Some(true)),
            ("", "alice", "ALICE+t@anywhere.example", Some(true)),
            ("", "alice", "malice@anywhere.example", Some(false)),
            ("", "@", "a@b", Some(true)),
            ("", "@", "", Some(true)),
            ("", "alice, @", "", Some(true)),
            ("", "", "a@b", Some(false)),
            ("", "\"a,b\"@example.org", "a@example.org", Some(false)),
            ("", "\"open", "a@b", None),
        ];
        for (case, list, sender, expected) in cases {
            let path = match sender {
                "" => ReversePath::NULL,
                address => ReversePath::from(Mailbox::parse(address).unwrap()),
            };
            assert_eq!(allows(list, &path, '+'), expected, "{case} {list} {sender}");
        }
    }
}
