//! Every example of the manual pages about configured files is what its page says it is.
//!
//! An example is a literal display after a comment `.\" example: KIND …`. Configurations are checked
//! by the program itself; the tables that they name are examples too.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use pillarbox::config::TableKind;
use pillarbox::lookup::aliases;
use pillarbox::table::{file, value};
use tempfile::TempDir;

use common::account::{Programs, become_account, give, open_directory, ordinary_account};
use common::certificates;
use common::complaints::unexpected;

/// The pages, below the root of the repository.
const PAGES: [&str; 6] = [
    "man/aliases.5",
    "man/forward.5",
    "man/smtpd-filters.7",
    "man/smtpd-tables.7",
    "man/smtpd.conf.5",
    "man/table.5",
];
/// What a page says where the language has a part without effect.
const REFUSED: &str = "This version refuses it as not supported yet.";

/// One example.
#[derive(Debug)]
struct Example {
    /// The page and the line of the comment, for failures.
    place: String,
    /// The words of the comment.
    kind: Vec<String>,
    /// As a reader would type it.
    text: String,
}

impl Example {
    fn is(&self, kind: &str) -> bool {
        self.kind.first().is_some_and(|first| first == kind)
    }

    fn word(&self, index: usize) -> &str {
        self.kind.get(index).unwrap_or_else(|| panic!("{}: a word is missing", self.place))
    }
}

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// All examples, in the order of the pages.
fn examples() -> Vec<Example> {
    PAGES.iter().flat_map(|name| examples_of(name)).collect()
}

fn examples_of(name: &str) -> Vec<Example> {
    let mut found: Vec<Example> = Vec::new();
    let text = page(name);
    let mut lines = text.lines().enumerate();
    let mut in_examples = false;
    while let Some((index, line)) = lines.next() {
        let place = format!("{name}:{}", index + 1);
        if let Some(section) = line.strip_prefix(".Sh ") {
            in_examples = section == "EXAMPLES";
        }
        assert!(!(in_examples && line.starts_with(".Bd ")), "{place}: an example without a kind");
        let Some(kind) = line.strip_prefix(".\\\" example: ") else { continue };
        let begin = lines.next().map(|(_, line)| line);
        assert_eq!(begin, Some(".Bd -literal -offset indent"), "{place}: no display follows");
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != ".Ed");
        let text = body.map(|line| plain(line, &place) + "\n").collect();
        found.push(Example { place, kind: kind.split(' ').map(str::to_owned).collect(), text });
    }
    assert!(!found.is_empty(), "{name} has no examples");
    found
}

/// A line without the escapes of mdoc(7).
fn plain(line: &str, place: &str) -> String {
    assert!(!line.starts_with(['.', '\'']), "{place}: a request inside an example: {line}");
    let plain = line.replace("\\&", "").replace("\\(dq", "\"").replace("\\-", "-");
    let rest = plain.replace("\\e", "");
    assert!(!rest.contains('\\'), "{place}: an escape that this test does not know: {line}");
    plain.replace("\\e", "\\")
}

/// A directory with all files of the examples, and programs that do nothing but exist.
struct Machine {
    directory: TempDir,
    programs: Arc<Programs>,
}

impl Machine {
    fn new() -> Self {
        let machine = Self { directory: open_directory(), programs: Programs::installed() };
        for example in examples() {
            if example.is("table") {
                let path = example.kind.last().unwrap();
                machine.write(path.trim_start_matches('/'), &example.text);
            }
            if example.is("json") {
                machine.write("etc/mail/people.json", &example.text);
            }
        }
        let made = certificates::certificate(certificates::Kind::P256, "mail.example.org");
        machine.write("etc/ssl/mail.example.org.crt", &made.certificate);
        machine.write("etc/ssl/private/mail.example.org.key", &made.key);
        let program = machine.write("libexec/table-json", "#!/bin/sh\n");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        machine
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        give(&path, &ordinary_account());
        path
    }

    /// Has the program check a configuration; whether it is content, and what it says.
    fn check(&self, text: &str) -> (bool, String) {
        let root = self.directory.path().to_str().unwrap();
        let path = self.write("smtpd.conf", &text.replace("/etc/", &format!("{root}/etc/")));
        let mut command = Command::new(self.programs.path("smtpd"));
        command.arg("-n").arg("-f").arg(path);
        command.env("PILLARBOX_LIBEXEC", self.directory.path().join("libexec"));
        become_account(&mut command, &ordinary_account());
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    }
}

#[test]
fn configurations_are_correct_or_refused_only_for_what_is_not_there_yet() {
    let machine = Machine::new();
    let mut accepted = 0;
    for example in examples().iter().filter(|example| example.is("smtpd.conf")) {
        let (content, said) = machine.check(&example.text);
        if content {
            assert_eq!(said, "configuration OK\n", "{}", example.place);
            accepted += 1;
            continue;
        }
        assert_eq!(unexpected(&said), Vec::<String>::new(), "{}", example.place);
        assert!(!said.is_empty(), "{}: refused without a word", example.place);
    }
    assert!(accepted >= 8, "only {accepted} of the configurations can be used");
}

fn words(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn tables_hold_what_their_pages_say() {
    let mut checked = 0;
    for example in examples().iter().filter(|example| example.is("table")) {
        let place = &example.place;
        let text = example.text.as_bytes();
        let survey = file::survey(text, TableKind::Undecided)
            .unwrap_or_else(|error| panic!("{place}: {error}"));
        let expected = match example.word(1) {
            "list" => TableKind::List,
            "mapping" => TableKind::Mapping,
            other => panic!("{place}: {other} is no kind of table"),
        };
        assert_eq!(survey.kind, expected, "{place}");
        assert!(survey.entries > 0, "{place}");
        for entry in file::Reader::new(text, TableKind::Undecided) {
            let entry = entry.unwrap();
            let Some(text) = entry.value else { continue };
            let (key, text) = (words(entry.key), words(text));
            let good = match example.word(2) {
                "addrname" => value::address_name(key, text).is_ok(),
                "alias" => aliases::parse(text).is_ok_and(|items| !items.is_empty()),
                "credentials" => value::credentials(key, text).is_ok(),
                "mailaddrmap" => value::mail_addresses(text).is_ok(),
                "relayhost" => value::relay_host(text).is_ok(),
                "userinfo" => value::account(text).is_ok(),
                other => panic!("{place}: {other} is no service"),
            };
            assert!(good, "{place}: {key} = {text}");
        }
        checked += 1;
    }
    assert!(checked >= 10, "{checked}");
}

#[test]
fn lines_of_lists_and_forward_files_are_values() {
    let found = examples();
    let values: Vec<_> = found.iter().filter(|example| example.is("values")).collect();
    assert!(values.len() >= 4, "{values:?}");
    for example in values {
        for line in example.text.replace("\\\n", "").lines() {
            let line = line.split('#').next().unwrap().trim();
            let items = aliases::parse(line);
            let good = line.is_empty() || items.as_ref().is_ok_and(|items| !items.is_empty());
            assert!(good, "{}: {line}: {items:?}", example.place);
        }
    }
}

#[test]
fn every_example_is_looked_at() {
    let known = ["json", "python", "smtpd.conf", "table", "transcript", "values"];
    for example in examples() {
        assert!(known.contains(&example.word(0)), "{}: {:?}", example.place, example.kind);
    }
}

/// What a page calls refused, one statement for each kind of statement, is refused, and the page of
/// the language says so about it.
#[test]
fn what_the_page_calls_refused_is_refused() {
    let statements = ["queue compression", "action a relay tls"];
    assert!(page("man/smtpd.conf.5").matches(REFUSED).count() >= statements.len());
    let machine = Machine::new();
    for statement in statements {
        let (content, said) = machine.check(&format!("{statement}\nmatch reject\n"));
        let refused = said.lines().any(|line| line.ends_with(": not supported yet"));
        assert!(!content && refused, "{statement}: {said:?}");
    }
}

/// The program of a page, at work.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts the program of this page, with these arguments.
    fn start(directory: &Path, page: &str, arguments: &[&Path]) -> Self {
        let found = examples_of(page);
        let source = found.iter().find(|example| example.is("python")).unwrap();
        let path = directory.join("program");
        fs::write(&path, &source.text).unwrap();
        let mut child = Command::new("python3")
            .arg(path)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next line; empty once the program has ended.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    fn ask(&mut self, request: &str) -> String {
        self.say(&format!("table|0.1|1763800000.123456|people|{request}"));
        self.line()
    }
}

#[test]
fn the_example_program_speaks_the_protocol() {
    let machine = Machine::new();
    let data = machine.directory.path().join("etc/mail/people.json");
    let mut program = Program::start(machine.directory.path(), "man/smtpd-tables.7", &[&data]);
    let greeting = [
        "config|smtpd-version|7.9.0-pillarbox",
        "config|protocol|0.1",
        "config|tablename|people",
        "config|ready",
    ];
    greeting.iter().for_each(|line| program.say(line));
    let mut registered: Vec<_> = std::iter::from_fn(|| Some(program.line()))
        .take_while(|line| line != "register|ready" && !line.is_empty())
        .collect();
    registered.sort();
    let services = ["alias", "domain", "source", "userinfo"];
    assert_eq!(registered, services.map(|service| format!("register|{service}")));

    let cases = [
        ("lookup|alias|00000001|team", "lookup-result|00000001|found|alice, bob"),
        ("lookup|alias|00000002|nobody", "lookup-result|00000002|not-found"),
        ("lookup|alias|00000003|a|b", "lookup-result|00000003|not-found"),
        ("lookup|userinfo|00000004|bob", "lookup-result|00000004|found|1000:1000:/home/bob"),
        ("check|domain|00000005|example.org", "check-result|00000005|found"),
        ("check|domain|00000006|example.com", "check-result|00000006|not-found"),
        ("check|netaddr|00000007|192.0.2.1", "check-result|00000007|not-found"),
        ("fetch|source|00000008", "fetch-result|00000008|found|192.0.2.1"),
        ("fetch|source|00000009", "fetch-result|00000009|found|192.0.2.2"),
        ("fetch|source|0000000a", "fetch-result|0000000a|found|192.0.2.1"),
        ("fetch|relayhost|0000000b", "fetch-result|0000000b|not-found"),
        ("update|0000000c", "update-result|0000000c|ok"),
    ];
    for (request, answer) in cases {
        assert_eq!(program.ask(request), answer, "{request}");
    }

    fs::write(&data, "{\"alias\": {\"nobody\": \"bob\"}}").unwrap();
    assert_eq!(program.ask("update|0000000d"), "update-result|0000000d|ok");
    let answer = "lookup-result|0000000e|found|bob";
    assert_eq!(program.ask("lookup|alias|0000000e|nobody"), answer);

    fs::write(&data, "{").unwrap();
    let failure = program.ask("update|0000000f");
    assert!(failure.starts_with("update-result|0000000f|error|"), "{failure}");
    assert_eq!(program.ask("lookup|alias|0000000e|nobody"), answer, "old content stays");

    let Program { mut child, input, .. } = program;
    drop(input);
    assert!(child.wait().unwrap().success(), "it leaves when its input ends");
}

#[test]
fn the_example_filter_does_what_its_transcript_says() {
    let directory = open_directory();
    let mut program = Program::start(directory.path(), "man/smtpd-filters.7", &[]);
    let greeting = ["config|protocol|0.7", "config|unknown|x|y", "config|admd|x", "config|ready"];
    greeting.iter().for_each(|line| program.say(line));
    let mut registered: Vec<_> = std::iter::from_fn(|| Some(program.line()))
        .take_while(|line| line != "register|ready" && !line.is_empty())
        .collect();
    registered.sort();
    let expected = [
        "register|filter|smtp-in|data-line",
        "register|filter|smtp-in|rcpt-to",
        "register|report|smtp-in|link-disconnect",
    ];
    assert_eq!(registered, expected);

    let found = examples_of("man/smtpd-filters.7");
    let transcript = found.iter().find(|example| example.is("transcript")).unwrap();
    for line in transcript.text.lines() {
        if line.starts_with("filter|") {
            program.say(line);
        } else {
            assert_eq!(program.line(), line);
        }
    }
    let long = "a-name-of-many-many-letters@example.org";
    program.say(&format!("filter|0.7|1.2|smtp-in|rcpt-to|a1|b2|{long}"));
    assert_eq!(program.line(), "filter-result|a1|b2|reject|550 5.1.1 Nobody is called that");
    program.say("report|0.7|1.2|smtp-in|link-disconnect|a1");

    let Program { mut child, input, .. } = program;
    drop(input);
    assert!(child.wait().unwrap().success(), "it leaves when its input ends");
}
