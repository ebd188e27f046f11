//! Spawner and workers as real processes, with this test in the place of parent and dispatcher.
//!
//! As root, deliveries are made for the account `nobody`; otherwise for the user who runs the test,
//! and what needs other users is skipped with a line that says so.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

#[path = "common/install.rs"]
mod install;
#[path = "../src/spec_case.rs"]
mod spec_case;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pillarbox::ipc::blob::Blob;
use pillarbox::ipc::blocking::Channel;
use pillarbox::ipc::message::spawner::{
    Account, ParentToSpawner, SpawnerSetup, SpawnerToParent, UserAnswer, WorkerOrder,
};
use pillarbox::ipc::message::worker::{
    DispatcherToWorker, Identity, JobBody, JobRecord, Method, WorkerToDispatcher, identity_key,
};
use pillarbox::ipc::seal::Key;
use pillarbox::model::outcome::Outcome;
use pillarbox::model::{Mailbox, MessageId, ReversePath};
use platform::privilege::is_root;
use platform::process::{ExitStatus, Pid, Signal, signal, spawn, wait_for};

use install::copy_program;

type Jobs = Channel<DispatcherToWorker, WorkerToDispatcher>;

/// A spawner with directories of its own, stopped when dropped.
struct Spawner {
    channel: Channel<ParentToSpawner, SpawnerToParent>,
    pid: Pid,
    account: Account,
    directory: tempfile::TempDir,
    next: u32,
}

fn root_identity(root_mailbox: bool) -> Identity {
    Identity { account: "root".to_owned(), userbase: None, root_mailbox, programs: false }
}

fn job_key() -> Key {
    Key::new([7; 32])
}

fn account() -> Account {
    let found = if is_root() {
        platform::users::user_by_name("nobody").unwrap().unwrap()
    } else {
        platform::users::user_by_uid(platform::privilege::effective_uid()).unwrap().unwrap()
    };
    let home = String::new();
    Account { name: found.name, uid: found.uid, gid: found.gid, groups: vec![found.gid], home }
}

impl Spawner {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut account = account();
        for name in ["home", "mail", "libexec"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let libexec = directory.path().join("libexec");
        for (name, built) in [
            ("mail.maildir", env!("CARGO_BIN_EXE_mail-maildir")),
            ("mail.mda", env!("CARGO_BIN_EXE_mail-mda")),
        ] {
            copy_program(built, libexec.join(name));
        }
        let home = directory.path().join("home");
        if is_root() {
            chown(&home, Some(account.uid), Some(account.gid)).unwrap();
        }
        account.home = home.to_str().unwrap().to_owned();

        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_smtpd"));
        let arguments = ["smtpd", "-x", "spawner", "-d"].map(Into::into);
        let errors = std::io::stderr();
        let descriptors = [(theirs.as_fd(), 3), (errors.as_fd(), 2)];
        let pid = spawn(program, &arguments, &[], &descriptors, false).unwrap();
        let mut channel = Channel::new(ours).unwrap();
        let setup = SpawnerSetup {
            daemon: is_root().then(|| account.clone()),
            mailboxes: directory.path().join("mail").to_str().unwrap().to_owned(),
            libexec: libexec.to_str().unwrap().to_owned(),
            server_name: "host.example".to_owned(),
            rootless: !is_root(),
        };
        channel.notice(&ParentToSpawner::Setup(setup), None).unwrap();
        Self { channel, pid, account, directory, next: 1 }
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn ask(&mut self, order: &ParentToSpawner, descriptor: Option<OwnedFd>) -> SpawnerToParent {
        let number = self.next;
        self.next += 1;
        self.channel.request(number, order, descriptor).unwrap();
        loop {
            let received = self.channel.receive().unwrap();
            if received.number == number
                && let Some(message) = received.message
            {
                return message;
            }
        }
    }

    fn identity(&self, programs: bool) -> Identity {
        let account = self.account.name.clone();
        Identity { account, userbase: None, root_mailbox: false, programs }
    }

    fn worker(&mut self, identity: &Identity, account: Account) -> Worker {
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let key = identity_key(&job_key(), identity);
        let order = WorkerOrder { identity: identity.clone(), account, key };
        let answer = self.ask(&ParentToSpawner::StartWorker(order), Some(theirs));
        assert_eq!(answer, SpawnerToParent::Started { error: None });
        Worker { jobs: Jobs::new(ours).unwrap(), identity: identity.clone(), next: 0 }
    }

    fn own_worker(&mut self, programs: bool) -> Worker {
        let (identity, account) = (self.identity(programs), self.account.clone());
        self.worker(&identity, account)
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        let _ = signal(self.pid, Signal::Kill);
        let _ = wait_for(self.pid);
    }
}

/// A worker, as the dispatcher has it.
struct Worker {
    jobs: Jobs,
    identity: Identity,
    next: u32,
}

impl Worker {
    fn record(&mut self, method: Method) -> JobRecord {
        let mailbox = |text| Mailbox::parse(text).unwrap();
        self.next += 1;
        JobRecord {
            job: self.next.into(),
            envelope: MessageId::new(1).unwrap().envelope(std::num::NonZeroU32::MIN),
            identity: self.identity.clone(),
            user: self.identity.account.clone(),
            userbase: None,
            method,
            overridden: false,
            wrapper: None,
            sender: ReversePath::from(mailbox("s@x")),
            recipient: mailbox("alice+Ext@d"),
            destination: mailbox("alice@d"),
            subaddress: "ext".to_owned(),
            delimiter: "+".to_owned(),
        }
    }

    fn send(&mut self, number: u32, record: &JobRecord, body: JobBody) {
        let ticket = identity_key(&job_key(), &self.identity).seal(record).unwrap();
        self.jobs.request(number, &DispatcherToWorker::Deliver { ticket, body }, None).unwrap();
    }

    fn deliver(&mut self, method: Method) -> Outcome {
        let record = self.record(method);
        self.send(self.next, &record, inline("Subject: x\n\nbody\n"));
        self.outcome().1
    }

    fn outcome(&mut self) -> (u32, Outcome) {
        loop {
            let received = self.jobs.receive().unwrap();
            if let Some(WorkerToDispatcher::Outcome(report)) = received.message {
                return (received.number, report.outcome);
            }
        }
    }

    /// Waits until the worker has closed the channel.
    fn has_left(mut self) -> bool {
        self.jobs.receive().is_err()
    }
}

fn inline(text: &str) -> JobBody {
    JobBody::Inline(Blob(text.as_bytes().to_vec()))
}

const DELIVERED: Outcome = Outcome::Delivered { dsn_relayed: false };

const MAILDIR: Method = Method::Maildir { path: None, junk: false };

fn text_of(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Permanent(failure) | Outcome::Temporary(failure) => &failure.text,
        Outcome::Delivered { .. } | Outcome::Loop => "",
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn users_are_found_or_not() {
    let mut spawner = Spawner::start();
    let look_up = |name: &str| ParentToSpawner::LookUpUser { name: name.to_owned() };
    let SpawnerToParent::User(UserAnswer::Found(root)) = spawner.ask(&look_up("root"), None) else {
        panic!("root is not found");
    };
    assert_eq!(root.uid, 0);
    let answer = spawner.ask(&look_up("no-such-user-here"), None);
    assert_eq!(answer, SpawnerToParent::User(UserAnswer::NotFound));
}

#[test]
fn a_worker_delivers_as_its_identity() {
    // queue cases 126 and 129
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    assert_eq!(worker.deliver(MAILDIR), DELIVERED);
    let made = files(&spawner.home().join("Maildir/new"));
    let [file] = made.as_slice() else { panic!("one message: {made:?}") };
    assert!(file.to_str().unwrap().ends_with(".host.example"), "{file:?}");
    assert_eq!(fs::metadata(file).unwrap().uid(), spawner.account.uid);
    assert_eq!(mode(file), 0o600);
    assert_eq!(mode(&spawner.home().join("Maildir")), 0o700);
    let text = fs::read_to_string(file).unwrap();
    assert_eq!(text, "Return-Path: <s@x>\nDelivered-To: alice+Ext@d\nSubject: x\n\nbody\n");
}

#[test]
fn many_jobs_at_once_are_each_answered_once() {
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    let mut expected = Vec::new();
    for number in 1..=100 {
        let record = worker.record(MAILDIR);
        if number % 10 == 0 {
            worker.send(number, &record, JobBody::Pieces { size: 70_000 });
            for piece in [30_000, 40_000] {
                let bytes = Blob(vec![b'x'; piece]);
                let notice = DispatcherToWorker::Piece { job: record.job, bytes };
                worker.jobs.notice(&notice, None).unwrap();
            }
        } else {
            worker.send(number, &record, inline("x\n"));
        }
        expected.push(number);
    }
    let mut answered = Vec::new();
    for _ in 0..100 {
        let (number, outcome) = worker.outcome();
        assert_eq!(outcome, DELIVERED);
        answered.push(number);
    }
    answered.sort_unstable();
    assert_eq!(answered, expected);
    assert_eq!(files(&spawner.home().join("Maildir/new")).len(), 100);
    assert!(files(&spawner.home().join("Maildir/tmp")).is_empty());
}

#[test]
fn a_large_message_comes_as_a_descriptor() {
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    let path = spawner.directory.path().join("body");
    fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
    let record = worker.record(MAILDIR);
    let ticket = identity_key(&job_key(), &worker.identity).seal(&record).unwrap();
    let body = JobBody::Descriptor { size: 3 << 20 };
    let file = fs::File::open(&path).unwrap();
    let request = DispatcherToWorker::Deliver { ticket, body };
    worker.jobs.request(1, &request, Some(file.into())).unwrap();
    assert_eq!(worker.outcome(), (1, DELIVERED));
    let made = files(&spawner.home().join("Maildir/new"));
    assert!(fs::metadata(&made[0]).unwrap().len() > 3 << 20);
}

#[test]
fn a_job_that_is_not_sealed_for_the_worker_is_refused() {
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    let record = worker.record(MAILDIR);
    let other = Identity { account: "other".to_owned(), ..worker.identity.clone() };
    let own_key = || identity_key(&job_key(), &worker.identity);
    let line = "touch here".to_owned();
    let command = JobRecord { method: Method::Pipe { line }, ..record.clone() };
    let forgeries = [
        ("another identity's key", identity_key(&job_key(), &other), record.clone()),
        ("no key of ours", Key::new([8; 32]), record.clone()),
        ("a command for a confined worker", own_key(), command),
    ];
    for (name, key, record) in forgeries {
        let ticket = key.seal(&record).unwrap();
        let request = DispatcherToWorker::Deliver { ticket, body: inline("x") };
        worker.jobs.request(1, &request, None).unwrap();
        let (_, outcome) = worker.outcome();
        assert!(matches!(outcome, Outcome::Temporary(_)), "{name}: {outcome:?}");
    }
    assert!(files(&spawner.home()).is_empty());
    worker.send(2, &record, inline("x"));
    assert_eq!(worker.outcome(), (2, DELIVERED));
    worker.send(3, &record, inline("x"));
    assert!(matches!(worker.outcome(), (3, Outcome::Temporary(_))), "a job is done once");
}

#[test]
fn a_command_has_the_identity_a_session_and_no_descriptors_of_ours() {
    // queue cases 133 and 136
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(true);
    let line = "exec > said; id -u; umask; pwd; env | wc -l; \
                cut -d' ' -f6 /proc/$$/stat | sed s/^$$\\$/leader/; \
                for n in 3 4 5 6 7 8 9; do (: >&$n) 2>/dev/null && echo $n; done; true";
    assert_eq!(worker.deliver(Method::Pipe { line: line.to_owned() }), DELIVERED);
    let said = fs::read_to_string(spawner.home().join("said")).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    let uid = spawner.account.uid.to_string();
    // Ten variables and what the shell adds (PWD).
    assert_eq!(lines, [&uid, "0077", &spawner.account.home, "11", "leader"]);

    let failed = worker.deliver(Method::Pipe { line: "echo boom; exit 75".to_owned() });
    assert_eq!(text_of(&failed), "\"boom\"");
    assert!(matches!(failed, Outcome::Temporary(_)));
}

#[test]
fn actions_take_the_documented_shell_form_where_it_matters() {
    // queue section 5.1: the outer shell reads the line first, a wrapper gets it expanded
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(true);
    let home = spawner.home();
    let line = "echo $EXTENSION '%{sender}' > mda; cat >> mda".to_owned();
    assert_eq!(worker.deliver(Method::Command { line }), DELIVERED);
    let text = fs::read_to_string(home.join("mda")).unwrap();
    assert!(text.starts_with("ext s@x\nReturn-Path: <s@x>\n"), "{text}");

    let path = Some("$HOME/$USER".to_owned());
    assert_eq!(worker.deliver(Method::Maildir { path, junk: true }), DELIVERED);
    assert_eq!(files(&home.join(&spawner.account.name).join("new")).len(), 1);

    let mut record = worker.record(MAILDIR);
    record.wrapper = Some("echo '%{mda}' > line; %{mda}".to_owned());
    worker.send(9, &record, inline("x"));
    assert_eq!(worker.outcome(), (9, DELIVERED));
    let line = fs::read_to_string(home.join("line")).unwrap();
    assert!(line.ends_with("/libexec/mail.maildir\n"), "{line}");

    let failed = worker.deliver(Method::Command { line: "echo oops; exit 3".to_owned() });
    assert_eq!(text_of(&failed), "\"oops\"");
    assert!(matches!(failed, Outcome::Permanent(_)));
    let two_words = worker.deliver(Method::Command { line: "a\" \"b".to_owned() });
    assert_eq!(text_of(&two_words), "\"mail.mda: only one command is supported\"");
    assert!(matches!(two_words, Outcome::Permanent(_)));
    spec_case::ran("config", 254);
}

#[test]
fn the_system_mailbox_is_made_and_unlocked_and_never_a_link() {
    // queue case 147
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    assert_eq!(worker.deliver(Method::Mbox), DELIVERED);
    assert_eq!(worker.deliver(Method::Mbox), DELIVERED);
    let mail = spawner.directory.path().join("mail");
    let mailbox = mail.join(&spawner.account.name);
    assert_eq!(files(&mail), std::slice::from_ref(&mailbox), "no lock is left");
    assert_eq!(fs::metadata(&mailbox).unwrap().uid(), spawner.account.uid);
    assert_eq!(mode(&mailbox), 0o600);
    let text = fs::read_to_string(&mailbox).unwrap();
    assert_eq!(text.matches("From s@x ").count(), 2, "{text}");

    // queue case 148
    fs::remove_file(&mailbox).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &mailbox).unwrap();
    let refused = worker.deliver(Method::Mbox);
    assert!(matches!(refused, Outcome::Temporary(_)), "{refused:?}");
}

#[test]
fn a_confined_worker_reaches_lmtp_servers_and_files() {
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let path = spawner.home().join("lmtp");
    let local = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let address = format!("localhost:{}", tcp.local_addr().unwrap().port());
    std::thread::spawn(move || accept_everything(tcp.accept().unwrap().0));
    std::thread::spawn(move || accept_everything(local.accept().unwrap().0));
    for destination in [&address, path.to_str().unwrap()] {
        let destination = destination.to_owned();
        let method = Method::Lmtp { destination, recipient_address: true };
        assert_eq!(worker.deliver(method), DELIVERED);
    }
    let file = spawner.home().join("file");
    let path = file.to_str().unwrap().to_owned();
    assert_eq!(worker.deliver(Method::File { path }), DELIVERED);
    assert!(fs::read_to_string(&file).unwrap().starts_with("From s@x "));
}

/// A server that says yes to all of a message.
fn accept_everything(mut stream: impl Read + Write) {
    let mut told = String::new();
    let mut buffer = [0; 4096];
    for (until, answer) in [
        ("", "220 test\r\n"),
        ("LHLO ", "250 test\r\n"),
        ("MAIL FROM:<s@x>\r\n", "250 ok\r\n"),
        ("RCPT TO:<alice@d>\r\n", "250 ok\r\n"),
        ("DATA\r\n", "354 go\r\n"),
        ("\r\n.\r\n", "250 delivered\r\n"),
    ] {
        while !told.contains(until) {
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "after {told}");
            told.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn root_has_a_mailbox_and_nothing_else() {
    // queue case 141
    if !is_root() {
        println!("skipped: only root can deliver to root");
        return;
    }
    let mut spawner = Spawner::start();
    let daemon = spawner.account.clone();
    let identity = root_identity(true);
    let mut worker = spawner.worker(&identity, daemon.clone());
    assert_eq!(worker.deliver(Method::Mbox), DELIVERED);
    let mailbox = fs::metadata(spawner.directory.path().join("mail/root")).unwrap();
    assert_eq!(mailbox.uid(), 0);
    let refused = worker.deliver(MAILDIR);
    assert_eq!(text_of(&refused), "MDA not allowed to deliver to: root");

    let identity = root_identity(false);
    let account = Account { name: "root".to_owned(), uid: 0, gid: 0, ..daemon };
    assert!(spawner.worker(&identity, account).has_left(), "no worker ever works as root");
}

#[test]
fn a_worker_leaves_when_the_spawner_is_gone() {
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    assert_eq!(worker.deliver(MAILDIR), DELIVERED);
    let began = Instant::now();
    signal(spawner.pid, Signal::Kill).unwrap();
    assert!(worker.has_left());
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_spawner_leaves_when_the_parent_is_gone() {
    let mut spawner = Spawner::start();
    let mut worker = spawner.own_worker(false);
    assert_eq!(worker.deliver(MAILDIR), DELIVERED);
    let (_, elsewhere) = platform::fd::socketpair().unwrap();
    drop(std::mem::replace(&mut spawner.channel, Channel::new(elsewhere).unwrap()));
    assert_eq!(wait_for(spawner.pid).unwrap(), ExitStatus::Exited(0));
    assert!(worker.has_left());
}
