//! Whole configurations of different kinds, as administrators write them: each is checked, explained
//! and played through with a running server.
//!
//! A directory of `tests/configs` holds `smtpd.conf`, the files that it names, and
//!
//! - `defines`: macros to set on the command line, so that the file itself stays as written;
//! - `requests`: words for `--explain`, and below each, indented, the reply to RCPT and then the
//!   deliveries that are expected; `unknown` where only a server can tell;
//! - `*.map` and `*.sql`: made into an indexed file and into a database before anything else;
//! - `table-*` and `filter-*`: programs that answer for tables, and filters;
//! - `session`: steps of [`common::script`];
//! - `zone`: what the server finds in DNS, if it relays to exchangers (see [`Zone::read`]). The smart
//!   host of the session is then the exchanger at `@NET@.1`, port 25, which needs root.
//!
//! In all files but `smtpd.conf`, `@DIR@`, `@ETC@`, `@GID@`, `@LMTP@`, `@NET@` (the first three
//! numbers of a loopback network), `@PORT@`, `@PORT2@`, `@PORT3@`, `@SINK@`, `@UID@` and `@USER@` are
//! replaced.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use platform::privilege::is_root;
use platform::users::Account;
use serde_json::Value;
use tempfile::TempDir;

use common::account::{Programs, become_account, give, open_directory, ordinary_account};
use common::certificates;
use common::dns::{NameServer, Zone};
use common::script::Stage;
use common::server::{Server, free_address, own_address};
use common::sink::Sink;

/// The configurations that there are: a test plays each.
const PLAYED: [&str; 10] = [
    "backup-mx",
    "hundred-line",
    "hybrid",
    "lmtp-dovecot",
    "local-only",
    "many-tables",
    "nine-line",
    "relay-pools",
    "rspamd-dkimsign",
    "virtual-domains",
];
/// Ports of this machine's own addresses are for one configuration at a time.
static EXCHANGER: Mutex<()> = Mutex::new(());

/// Makes an SQLite database, its second argument, from the statements in its first.
const LOAD: &str = "import sqlite3, sys
sqlite3.connect(sys.argv[2]).executescript(open(sys.argv[1]).read())";

/// One configuration, installed in a directory of its own.
struct Site {
    name: String,
    directory: TempDir,
    account: Account,
    programs: Arc<Programs>,
    first: SocketAddr,
    second: SocketAddr,
    third: SocketAddr,
    sink: Sink,
    lmtp: Sink,
}

impl Site {
    fn install(name: &str) -> Self {
        let site = Self {
            name: name.to_owned(),
            directory: open_directory(),
            account: ordinary_account(),
            programs: Programs::installed(),
            first: free_address(),
            second: free_address(),
            third: free_address(),
            sink: Sink::start(),
            lmtp: Sink::lmtp(|_| None),
        };
        for name in ["home", "libexec", "mail", "state"] {
            fs::create_dir(site.path(name)).unwrap();
            give(&site.path(name), &site.account);
        }
        site.copy(&site.source(), &site.path("etc"));
        let home = site.source().join("home");
        if home.is_dir() {
            site.copy(&home, &site.path("home"));
        }
        site.add_programs();
        site
    }

    /// Helper programs: those under test and those of the configuration; and what the latter read.
    /// Certificates with their keys.
    fn add_programs(&self) {
        for entry in fs::read_dir(self.programs.directory()).unwrap() {
            let entry = entry.unwrap();
            symlink(entry.path(), self.path("libexec").join(entry.file_name())).unwrap();
        }
        for entry in fs::read_dir(self.path("etc")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if name.starts_with("table-") || name.starts_with("filter-") {
                let program = self.path("libexec").join(name);
                fs::rename(&path, &program).unwrap();
                fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
            }
            if name.ends_with(".key") {
                let made = certificates::certificate(certificates::Kind::P256, &self.name);
                fs::write(path.with_extension("pem"), made.certificate).unwrap();
                fs::write(&path, made.key).unwrap();
            }
            if name.ends_with(".sql") {
                let database = path.with_extension("sqlite");
                self.run(Command::new("python3").arg("-c").arg(LOAD).arg(&path).arg(database));
            }
            if name.ends_with(".map") {
                let mut makemap = Command::new(self.programs.path("smtpctl"));
                makemap.arg0("makemap").args(["-t", "aliases", "-o"]);
                self.run(makemap.arg(path.with_extension("db")).arg(&path));
            }
        }
    }

    /// Runs a program as the server's account, which must succeed.
    fn run(&self, command: &mut Command) {
        become_account(command, &self.account);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {command:?}: {errors}", self.name);
    }

    fn source(&self) -> PathBuf {
        configurations().join(&self.name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Copies a directory with what is in it, placeholders replaced, for the server's account.
    fn copy(&self, from: &Path, to: &Path) {
        if !to.is_dir() {
            fs::create_dir(to).unwrap();
        }
        give(to, &self.account);
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let target = to.join(path.file_name().unwrap());
            if path.is_dir() {
                self.copy(&path, &target);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let keep = path.ends_with("smtpd.conf");
            fs::write(&target, if keep { text } else { self.replaced(&text) }).unwrap();
            if target.extension().is_some_and(|kind| kind == "key") {
                fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            }
            give(&target, &self.account);
        }
    }

    fn replaced(&self, text: &str) -> String {
        let directory = self.directory.path().to_str().unwrap();
        let pairs = [
            ("@DIR@", directory.to_owned()),
            ("@ETC@", format!("{directory}/etc")),
            ("@GID@", self.account.gid.to_string()),
            ("@LMTP@", self.lmtp.address().to_string()),
            ("@NET@", own_address(0).to_string().trim_end_matches(".0").to_owned()),
            ("@PORT@", self.first.port().to_string()),
            ("@PORT2@", self.second.port().to_string()),
            ("@PORT3@", self.third.port().to_string()),
            ("@SINK@", self.sink.address().to_string()),
            ("@UID@", self.account.uid.to_string()),
            ("@USER@", self.account.name.clone()),
        ];
        let replace = |text: String, (from, to): &(&str, String)| text.replace(from, to);
        pairs.iter().fold(text.to_owned(), replace)
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path("etc").join(name)).ok()
    }

    /// `-D` for each macro.
    fn defines(&self) -> Vec<String> {
        let text = self.file("defines").unwrap();
        text.lines().flat_map(|line| ["-D".to_owned(), line.to_owned()]).collect()
    }

    /// Runs `smtpd -n` with these words too.
    fn check(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.programs.path("smtpd"));
        command.arg("-n").args(self.defines()).arg("-f").arg(self.path("etc/smtpd.conf"));
        command.arg("--state").arg(self.path("state")).args(words);
        command.env("PILLARBOX_LIBEXEC", self.path("libexec"));
        become_account(&mut command, &self.account);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Nothing may be said about the configuration but that it is good.
    fn check_is_silent(&self) {
        let output = self.check(&[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(said, "configuration OK\n", "{}", self.name);
        assert!(output.status.success(), "{}", self.name);
    }

    /// Asks about each request and compares with what is below it.
    fn explain(&self) {
        let text = self.file("requests").unwrap();
        let requests = blocks(&text);
        assert!(requests.len() >= 3, "{}: too little is asked", self.name);
        for (words, expected) in requests {
            let question = format!("{}: {words}", self.name);
            let words: Vec<&str> =
                ["--explain", "--json"].into_iter().chain(words.split(' ')).collect();
            let output = self.check(&words);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{question}: {errors}");
            let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
            let told = summary(&answer["recipients"][0]);
            let (reply, deliveries) = told.split_first().unwrap();
            let (beginning, others) = expected.split_first().unwrap();
            assert!(reply.starts_with(beginning), "{question}: {reply}");
            assert_eq!(deliveries, others, "{question}");
        }
    }

    /// Plays the session with a running server.
    fn play(self) {
        let script = self.file("session").unwrap();
        let config = self.file("smtpd.conf").unwrap();
        let mut options = self.defines();
        let zone = self.file("zone");
        // Let go last, when the exchanger has ended.
        let _exchanger =
            zone.is_some().then(|| EXCHANGER.lock().unwrap_or_else(PoisonError::into_inner));
        let Self {
            name,
            directory,
            account,
            programs: _programs,
            first,
            second,
            third,
            mut sink,
            lmtp,
        } = self;
        // Serves until the session is over.
        let mut names = None;
        if let Some(zone) = zone {
            if !is_root() {
                println!("skipped: {name}: port 25 of a loopback address needs root");
                return;
            }
            sink = Sink::at((own_address(1), 25).into(), |_| None).unwrap();
            let running = names.insert(NameServer::start(Zone::read(&zone)));
            options.extend(["--resolver".to_owned(), running.address()]);
        }
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let mut server = Server::at(first, directory, account, &config, &options);
        server.run();
        Stage { server: &server, others: [second, third], sink: &sink, lmtp: &lmtp }
            .play(&name, &script);
    }
}

fn configurations() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(configurations()).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Lines, each with the indented ones below it.
fn blocks(text: &str) -> Vec<(&str, Vec<String>)> {
    let mut blocks: Vec<(&str, Vec<String>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("  "), blocks.last_mut()) {
            (Some(below), Some((_, lines))) => lines.push(below.to_owned()),
            _ => blocks.push((line, Vec::new())),
        }
    }
    blocks
}

/// The reply to RCPT, and a line for each delivery, sorted.
fn summary(recipient: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let outcome = &recipient["outcome"];
    let mut deliveries: Vec<String> = recipient["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|delivery| {
            let action = text(&delivery["action"]);
            if delivery["kind"] == "local" {
                let fields = ["method", "target", "lmtp_recipient"];
                let words = fields.into_iter().filter_map(|field| delivery[field].as_str());
                return std::iter::once(action.as_str()).chain(words).collect::<Vec<_>>().join(" ");
            }
            let sender = delivery["sender"].as_str().filter(|sender| !sender.is_empty());
            let hosts: Vec<String> =
                delivery["hosts"].as_array().unwrap().iter().map(text).collect();
            let by = match delivery["exchangers_of"].as_str() {
                Some(domain) => format!("exchangers of {domain}"),
                None => hosts.join(" "),
            };
            let destination = text(&delivery["destination"]);
            format!("{action} {destination} from {} by {by}", sender.unwrap_or("<>"))
        })
        .collect();
    deliveries.sort();
    let reply = outcome["reply"].as_str().unwrap_or(outcome["result"].as_str().unwrap());
    std::iter::once(reply.to_owned()).chain(deliveries).collect()
}

#[test]
fn every_configuration_is_understood() {
    let names = names();
    assert_eq!(names, PLAYED);
    for name in names {
        Site::install(&name).check_is_silent();
    }
}

#[test]
fn every_configuration_is_explained() {
    for name in names() {
        Site::install(&name).explain();
    }
}

/// The configuration `name` delivers what its session says.
fn plays(name: &str) {
    assert!(PLAYED.contains(&name), "{name}");
    Site::install(name).play();
}

#[test]
fn nine_lines_deliver_to_who_root_is() {
    plays("nine-line");
}

#[test]
fn a_workstation_delivers_to_its_users_alone() {
    plays("local-only");
}

#[test]
fn a_domain_is_shared_with_a_provider() {
    plays("hybrid");
}

#[test]
fn mailboxes_behind_lmtp_are_asked_for_by_address() {
    plays("lmtp-dovecot");
}

#[test]
fn a_backup_hands_on_what_friends_can_take() {
    plays("backup-mx");
}

#[test]
fn a_hundred_lines_do_what_each_of_them_says() {
    plays("hundred-line");
}

#[test]
fn tables_of_every_kind_answer_one_server() {
    plays("many-tables");
}

#[test]
fn customers_receive_on_one_port_and_submit_on_two() {
    plays("virtual-domains");
}

#[test]
fn pools_send_from_their_own_addresses_under_their_own_names() {
    plays("relay-pools");
}

#[test]
fn mail_is_scanned_on_the_way_in_and_signed_on_the_way_out() {
    plays("rspamd-dkimsign");
}
