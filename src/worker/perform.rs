//! Doing jobs: each gets a report, whatever happens to the others of its batch.
//!
//! What a worker cannot do alone, looking up users and opening a locked system mailbox, it asks
//! of an [`Office`].

use std::fs::File;
use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::body::{Body, loops, prefix};
use super::command::{self, Facts, environment};
use super::lmtp::{Client, Transaction};
use super::maildir::{Delivery, Maildirs};
use super::mbox::{self, Convention, Entry};
use super::plan::{Plan, needs_directory, plan};
use super::report::{Failed, NO_USER, Report};
use super::unique::unique;
use crate::ipc::message::spawner::{Account, UserAnswer};
use crate::ipc::message::worker::{JobRecord, Method};
use crate::log::system_text;
use crate::model::outcome::{EnhancedStatus, Failure, Outcome};

/// How long one delivery over LMTP may take.
const LMTP_LIMIT: Duration = command::LIMIT;
/// How long the end of a mailbox's lock is waited for.
const RELEASE: Duration = Duration::from_secs(1);
/// LHLO argument.
const LMTP_NAME: &str = "localhost";

/// What others do for a worker.
pub trait Office {
    /// Looks a user up, in a table or among the accounts of the system.
    fn look_up(&mut self, name: &str, userbase: Option<&str>) -> UserAnswer;

    /// Opens and locks the system mailbox of the worker's own identity.
    ///
    /// # Errors
    /// As mail.local(8) would have put it.
    fn open_mailbox(&mut self) -> Result<LockedMailbox, Failed>;
}

/// A system mailbox, locked as long as this lives.
#[derive(Debug)]
pub struct LockedMailbox {
    /// Open for reading and appending.
    pub file: File,
    /// Its closing gives the lock back; `None` where nothing needs one.
    pub lock: Option<UnixStream>,
}

impl Drop for LockedMailbox {
    fn drop(&mut self) {
        let Some(lock) = &mut self.lock else { return };
        // The next delivery would find a lock that is on its way out and wait in vain for long.
        let _ = lock.shutdown(Shutdown::Write);
        let _ = lock.set_read_timeout(Some(RELEASE));
        let _ = lock.read(&mut [0]);
    }
}

/// The system mailbox of a batch, opened when the first job wants it.
struct Mailbox<'a> {
    office: &'a mut dyn Office,
    opened: Option<Result<LockedMailbox, Failed>>,
}

impl Mailbox<'_> {
    fn get(&mut self) -> Result<&LockedMailbox, Failed> {
        let opened = self.opened.get_or_insert_with(|| self.office.open_mailbox());
        opened.as_ref().map_err(Failed::clone)
    }
}

/// A job that came with its whole message.
#[derive(Debug)]
pub struct Job {
    /// What the queue ordered.
    pub record: JobRecord,
    /// The message; `None` if it could not be had.
    pub body: Option<Body>,
}

/// Does the jobs of one identity.
#[derive(Debug)]
pub struct Performer {
    account: Account,
    home: PathBuf,
    libexec: String,
    root_mailbox: bool,
    maildirs: Maildirs,
    lmtp: Client,
}

/// One job of a batch and what is done for it.
struct Planned<'a> {
    job: &'a Job,
    body: &'a Body,
    plan: Plan,
    prefix: String,
}

impl Performer {
    /// For jobs under `account`; with `root_mailbox`, for root's mailbox alone.
    #[must_use]
    pub fn new(account: Account, root_mailbox: bool, libexec: &str, host: &str) -> Self {
        let home = PathBuf::from(&account.home);
        Self {
            account,
            home,
            libexec: libexec.to_owned(),
            root_mailbox,
            maildirs: Maildirs::new(host),
            lmtp: Client::new(LMTP_NAME),
        }
    }

    /// Does `jobs`, and reports on each in their order.
    ///
    /// Deliveries into Maildirs share their syncs, those into the system mailbox its lock.
    pub fn perform(&mut self, jobs: &[Job], office: &mut dyn Office) -> Vec<Report> {
        let planned: Vec<Result<Planned<'_>, Report>> =
            jobs.iter().map(|job| self.plan(job, office)).collect();
        let mut maildirs = self.deliver_maildirs(&planned).into_iter();
        let mut mailbox = Mailbox { office, opened: None };
        planned
            .into_iter()
            .map(|planned| match planned {
                Err(report) => report,
                Ok(planned) => self.finish(&planned, &mut maildirs, &mut mailbox),
            })
            .collect()
    }

    /// Whether a job gains by being done together with others.
    #[must_use]
    pub fn is_batched(record: &JobRecord) -> bool {
        matches!(record.method, Method::Maildir { .. } | Method::Mbox) && !record.starts_programs()
    }

    fn plan<'a>(&self, job: &'a Job, office: &mut dyn Office) -> Result<Planned<'a>, Report> {
        let record = &job.record;
        let Some(body) = &job.body else { return Err(Report::temporary("Cannot get message fd")) };
        self.check(record)?;
        match loops(body, &record.destination) {
            Ok(false) => {}
            Ok(true) => return Err(Report { outcome: Outcome::Loop, exit: 0 }),
            Err(_) => return Err(Report::temporary("Error reading body")),
        }
        let is_own =
            record.user == self.account.name && record.userbase == record.identity.userbase;
        let directory = if needs_directory(record) && !is_own {
            home_of(office.look_up(&record.user, record.userbase.as_deref()))?
        } else {
            self.account.home.clone()
        };
        let plan = plan(record, &self.home, &directory, &self.libexec)
            .map_err(|error| Report::permanent(error.to_string()))?;
        let prefix = prefix(&record.sender, &record.recipient);
        Ok(Planned { job, body, plan, prefix })
    }

    /// Refuses what no job may ask for.
    fn check(&self, record: &JobRecord) -> Result<(), Report> {
        let user = record.user.as_str();
        if user.is_empty() || user.contains(['/', '\0']) || user == "." || user == ".." {
            return Err(Failed::new(NO_USER, "smtpd", "no mailbox can have this name").into());
        }
        let mailbox = record.method == Method::Mbox && record.wrapper.is_none();
        if self.account.uid == 0 || (self.root_mailbox && !mailbox) {
            return Err(Report::permanent(format!("MDA not allowed to deliver to: {user}")));
        }
        Ok(())
    }

    fn deliver_maildirs(
        &mut self,
        planned: &[Result<Planned<'_>, Report>],
    ) -> Vec<Result<(), Failed>> {
        let chosen: Vec<_> = planned
            .iter()
            .flatten()
            .filter_map(|planned| match &planned.plan {
                Plan::Maildir { path, junk } => Some((planned, path, *junk)),
                _ => None,
            })
            .collect();
        if chosen.is_empty() {
            return Vec::new();
        }
        let mut readers: Vec<_> =
            chosen.iter().map(|(planned, ..)| planned.body.reader()).collect();
        let mut deliveries: Vec<Delivery<'_>> = chosen
            .iter()
            .zip(&mut readers)
            .map(|((planned, path, junk), message)| Delivery {
                maildir: path,
                junk: *junk,
                extension: &planned.job.record.subaddress,
                prefix: &planned.prefix,
                message,
            })
            .collect();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        self.maildirs.deliver(&mut deliveries, now, unique)
    }

    /// Does what one plan says; for a Maildir that was done, and `maildirs` has the answer.
    fn finish(
        &mut self,
        planned: &Planned<'_>,
        maildirs: &mut impl Iterator<Item = Result<(), Failed>>,
        mailbox: &mut Mailbox<'_>,
    ) -> Report {
        let message = &mut planned.body.reader();
        let record = &planned.job.record;
        let from = record.sender.0.as_ref().map_or("MAILER-DAEMON", |sender| sender.as_str());
        let mut entry = Entry {
            from,
            date: &mbox::date(&crate::time::local_now()),
            prefix: &planned.prefix,
            message,
        };
        match &planned.plan {
            Plan::Append { path } => mbox::append_to_path(path, &mut entry).into(),
            Plan::Lmtp { destination, recipient } => {
                let transaction = Transaction {
                    from: record.sender.as_str().to_owned(),
                    recipients: vec![recipient.clone()],
                };
                self.lmtp
                    .deliver(destination, &transaction, entry.prefix, entry.message, LMTP_LIMIT)
                    .into()
            }
            Plan::Mailbox => mailbox
                .get()
                .and_then(|mailbox| mbox::append(&mailbox.file, &mut entry, Convention::Local))
                .into(),
            Plan::Maildir { .. } => maildirs
                .next()
                .map_or_else(|| Report::temporary("the delivery was not done"), Report::from),
            Plan::Shell { line, extension } => {
                let facts = Facts {
                    home: &self.home,
                    username: &record.user,
                    sender: &record.sender,
                    recipient: &record.recipient,
                    destination: &record.destination,
                    extension: if *extension { &record.subaddress } else { "" },
                };
                let environment = environment(&facts);
                let finished =
                    command::run(line, &environment, entry.prefix, entry.message, command::LIMIT);
                match finished {
                    Ok(finished) => Report::of_program(finished.end, &finished.output),
                    Err(error) => Report::temporary(system_text(&error)),
                }
            }
        }
    }
}

fn home_of(answer: UserAnswer) -> Result<String, Report> {
    let failure = |text: &str, status| Failure { text: text.to_owned(), status };
    match answer {
        UserAnswer::Found(account) => Ok(account.home),
        UserAnswer::Failed(_) => Err(Report {
            outcome: Outcome::Temporary(failure(
                "Temporary failure in user lookup",
                EnhancedStatus::new(4, 1, 0),
            )),
            exit: 0,
        }),
        UserAnswer::NotFound => Err(Report {
            outcome: Outcome::Permanent(failure(
                "Permanent failure in user lookup",
                EnhancedStatus::new(5, 1, 6),
            )),
            exit: 0,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::model::Mailbox as Address;
    use crate::spec_case;
    use crate::worker::plan::tests::record;

    /// Knows one user beside the account, and a mailbox in a directory of its own.
    struct Desk(PathBuf);

    impl Office for Desk {
        fn look_up(&mut self, name: &str, userbase: Option<&str>) -> UserAnswer {
            match name {
                "alice" if userbase == Some("virtual") => {
                    let home = self.0.join("virtual");
                    UserAnswer::Found(account("alice", home.to_str().unwrap(), 1000))
                }
                "alice" => UserAnswer::Found(account("alice", self.0.to_str().unwrap(), 1000)),
                "broken" => UserAnswer::Failed("no server".to_owned()),
                _ => UserAnswer::NotFound,
            }
        }

        fn open_mailbox(&mut self) -> Result<LockedMailbox, Failed> {
            let mut options = File::options();
            options.read(true).append(true).create(true);
            let file = options.open(self.0.join("mbox")).unwrap();
            Ok(LockedMailbox { file, lock: None })
        }
    }

    fn account(name: &str, home: &str, uid: u32) -> Account {
        Account { name: name.to_owned(), uid, gid: uid, groups: vec![], home: home.to_owned() }
    }

    fn job(method: Method, body: &str) -> Job {
        Job { record: record(method), body: Some(Body::Bytes(body.as_bytes().to_vec())) }
    }

    fn maildir(path: Option<&str>) -> Method {
        Method::Maildir { path: path.map(str::to_owned), junk: false }
    }

    fn pipe(line: String) -> Method {
        Method::Pipe { line }
    }

    fn stats(uid: u32, root_mailbox: bool, home: &Path, jobs: &[Job]) -> Vec<String> {
        let vmail = account("vmail", home.to_str().unwrap(), uid);
        let mut performer = Performer::new(vmail, root_mailbox, "/lib", "host");
        let mut desk = Desk(home.join("alice"));
        fs::create_dir_all(&desk.0).unwrap();
        performer.perform(jobs, &mut desk).iter().map(Report::stat).collect()
    }

    fn new_messages(maildir: &Path) -> Vec<String> {
        let files = fs::read_dir(maildir.join("new")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    #[test]
    fn a_mixed_batch_is_answered_in_order() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file").to_str().unwrap().to_owned();
        let jobs = [
            job(maildir(None), "1\n"),
            job(pipe("cat; echo boom >&2; exit 75".to_owned()), "2\n"),
            job(maildir(Some("~/Mail")), "3\n"),
            job(Method::File { path: file.clone() }, "4\n"),
            job(Method::Mbox, "5\n"),
            job(maildir(Some("%{nope}")), "6\n"),
            Job { record: record(maildir(None)), body: None },
            job(Method::File { path: "/dev/null".to_owned() }, "7\n"),
            job(Method::File { path: "/nowhere/file".to_owned() }, "8\n"),
        ];
        let expected = [
            "Delivered",
            "Error (temporary failure: \"boom\")",
            "Delivered",
            "Delivered",
            "Delivered",
            "Error (mda command line could not be expanded)",
            "Error (Cannot get message fd)",
            "Delivered",
            "Error (temporary failure: \"mail.mboxfile: /nowhere/file: No such file or directory\")",
        ];
        assert_eq!(stats(1000, false, home.path(), &jobs), expected);
        let prefix = "Return-Path: <s@x>\nDelivered-To: alice+Ext@d\n";
        assert_eq!(new_messages(&home.path().join("Maildir")), [format!("{prefix}1\n")]);
        assert_eq!(new_messages(&home.path().join("alice/Mail")), [format!("{prefix}3\n")]);
        for (path, body) in [(file, "4"), (format!("{}/alice/mbox", home.path().display()), "5")] {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.starts_with("From s@x "), "{text}");
            assert!(text.ends_with(&format!("{prefix}{body}\n\n")), "{text}");
        }
    }

    #[test]
    fn a_message_that_was_here_is_not_delivered() {
        let home = tempfile::tempdir().unwrap();
        let jobs = [job(maildir(None), "Delivered-To: ALICE@d\n\n")];
        assert_eq!(stats(1000, false, home.path(), &jobs), ["Loop detected"]);
        assert!(!home.path().join("Maildir").exists());
    }

    #[test]
    fn root_gets_mail_in_its_mailbox_alone() {
        // queue case 141
        let home = tempfile::tempdir().unwrap();
        let refused = "Error (MDA not allowed to deliver to: alice)";
        let mut wrapped = job(Method::Mbox, "x");
        wrapped.record.wrapper = Some("%{mda}".to_owned());
        let jobs = [
            job(maildir(None), "x"),
            job(pipe("true".to_owned()), "x"),
            wrapped,
            job(Method::Mbox, "x"),
        ];
        assert_eq!(stats(0, false, home.path(), &jobs), [refused; 4]);
        let expected = [refused, refused, refused, "Delivered"];
        assert_eq!(stats(1000, true, home.path(), &jobs), expected);
        let mut command = job(Method::Command { line: "true".to_owned() }, "x");
        command.record.user = "root".to_owned();
        let refused = "Error (MDA not allowed to deliver to: root)";
        assert_eq!(stats(0, false, home.path(), &[command]), [refused]);
        spec_case::ran("config", 255);
    }

    #[test]
    fn what_cannot_be_expanded_fails_for_good() {
        let home = tempfile::tempdir().unwrap();
        let command = |line: &str| Method::Command { line: line.to_owned() };
        let jobs = [job(command("CMD %{nope}"), "x"), job(pipe("%{mda}".to_owned()), "x")];
        let mut performer =
            Performer::new(account("vmail", home.path().to_str().unwrap(), 1000), false, "/", "h");
        for report in performer.perform(&jobs, &mut Desk(home.path().to_owned())) {
            assert_eq!(report.stat(), "Error (mda command line could not be expanded)");
            assert!(matches!(report.outcome, Outcome::Permanent(_)));
        }
        spec_case::ran("config", 253);
    }

    #[test]
    fn a_quoted_command_of_an_alias_is_one_word_and_a_file_one_path() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("two words").to_str().unwrap().to_owned();
        let jobs = [
            // As `"|/bin/cat -n"` and `|"/bin/cat -n"` are read.
            job(pipe("/bin/cat -n".to_owned()), "x"),
            job(pipe("\"/bin/cat -n\" 2>/dev/null".to_owned()), "x"),
            job(Method::File { path: file.clone() }, "1\n"),
        ];
        let said = stats(1000, false, home.path(), &jobs);
        assert_eq!(said[0], "Delivered");
        assert!(said[1].starts_with("Error ("), "{said:?}");
        spec_case::ran("config", 276);
        assert_eq!(said[2], "Delivered");
        assert!(fs::read_to_string(file).unwrap().ends_with("\n1\n\n"));
        spec_case::ran("config", 257);
    }

    #[test]
    fn users_that_vanished_and_names_that_are_paths() {
        // queue case 144
        let home = tempfile::tempdir().unwrap();
        let cases = [
            ("gone", "Permanent failure in user lookup"),
            ("broken", "Temporary failure in user lookup"),
            ("", "Error (user unknown: \"smtpd: no mailbox can have this name\")"),
            ("../x", "Error (user unknown: \"smtpd: no mailbox can have this name\")"),
            ("vmail", "Delivered"),
        ];
        for (user, expected) in cases {
            let mut job = job(maildir(Some("~/Mail")), "x");
            job.record.user = user.to_owned();
            assert_eq!(stats(1000, false, home.path(), &[job]), [expected], "{user:?}");
        }
    }

    #[test]
    fn a_recipient_is_found_in_the_userbase_of_its_action() {
        let home = tempfile::tempdir().unwrap();
        let mut there = job(maildir(Some("~/Mail")), "x");
        there.record.userbase = Some("virtual".to_owned());
        assert_eq!(stats(1000, false, home.path(), &[there]), ["Delivered"]);
        assert_eq!(new_messages(&home.path().join("alice/virtual/Mail")).len(), 1);
    }

    #[test]
    fn the_null_sender_has_no_return_path_and_mailer_daemon_in_separators() {
        // queue case 127
        let home = tempfile::tempdir().unwrap();
        let mut job = job(Method::Mbox, "x\n");
        job.record.sender = crate::model::ReversePath::NULL;
        job.record.recipient = Address::parse("bob@d").unwrap();
        assert_eq!(stats(1000, false, home.path(), &[job]), ["Delivered"]);
        let text = fs::read_to_string(home.path().join("alice/mbox")).unwrap();
        assert!(text.starts_with("From MAILER-DAEMON "), "{text}");
        assert!(text.contains("\nDelivered-To: bob@d\nx\n\n") && !text.contains("Return-Path"));
    }
}
