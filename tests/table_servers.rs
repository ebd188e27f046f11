//! Table programs that other people wrote, with the data bases that they ask, as Debian has them.
//!
//! Each data base is killed and started again while recipients are asked for, and so is each program:
//! meanwhile there are temporary failures and nothing else, and afterwards all is well again by
//! itself. Recipients that need no such table are taken all the time.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a failed assumption fails the test

mod common;

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::account::open_directory;
use common::peers::{PeerProcess, Peers};
use common::process::{self, Process};
use common::server::{Server, free_address};
use common::wait::{wait_for, wait_until};
use nix::sys::signal::Signal;
use tempfile::TempDir;

/// How long a data base may take to be there, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the programs are in their root.
const LIBEXEC: &str = "/usr/libexec/opensmtpd";

/// Rules that ask `<t>` for domains and for recipients.
const RECIPIENTS: &str = r#"
@LISTEN@
table t @PROGRAM@
table own { "@" = "@USER@" }
action "own" maildir "@DIR@/mail/%{rcpt.user}" virtual <own>
action "virtual" maildir "@DIR@/mail/%{rcpt.user}" virtual <t>
match from any for domain "own.example" action "own"
match from any for domain <t> action "virtual"
"#;

/// Rules that ask `<t>` for users.
const USERS: &str = r#"
@LISTEN@
table t @PROGRAM@
table own { "@" = "@USER@" }
action "own" maildir "@DIR@/mail/%{rcpt.user}" virtual <own>
action "users" maildir "@DIR@/mail/users" userbase <t>
match from any for domain "own.example" action "own"
match from any for domain "example.org" action "users"
"#;

/// A server with one table program of Debian.
struct Scene {
    server: Server,
    backend: &'static str,
}

impl Scene {
    /// Starts it in the root of `peers`; the program is given a file with `settings`, or where `fill`
    /// has put something else.
    fn start(
        peers: &Peers,
        backend: &'static str,
        rules: &str,
        settings: &str,
        fill: impl FnOnce(&Server),
    ) -> Self {
        let program = format!("{backend}:@DIR@/table.conf");
        let mut server = Server::prepare(&rules.replace("@PROGRAM@", &program), &[]);
        let directory = server.path("").display().to_string();
        let settings = settings.replace("@DIR@/", &directory);
        fs::write(server.path("table.conf"), settings).unwrap();
        fs::create_dir(server.path("libexec")).unwrap();
        let name = format!("table-{backend}");
        symlink(format!("{LIBEXEC}/{name}"), server.path("libexec").join(&name)).unwrap();
        fill(&server);
        peers.host(&mut server);
        Self { server, backend }
    }

    fn reply_to(&self, recipient: &str) -> String {
        let mut peer = self.server.peer();
        peer.say("MAIL FROM:<sender@client.example>").unwrap();
        let line = peer.say(&format!("RCPT TO:<{recipient}>")).unwrap().line();
        // Whether it says good-bye is another test.
        let _ = peer.quit();
        line
    }

    fn wait_until_taken(&self, what: &str) {
        wait_until(&format!("{}: {what}", self.backend), PATIENCE, || {
            self.reply_to("alice@example.org").starts_with("250 ")
        });
    }

    /// What does not exist is refused for good once the table answers.
    fn knows(&self, refused: &[(&str, &str)]) {
        self.wait_until_taken("the table answers");
        for (recipient, expected) in refused {
            let reply = self.reply_to(recipient);
            assert!(reply.starts_with(expected), "{}: {recipient}: {reply}", self.backend);
        }
    }

    /// Asks for a recipient all the time while `disturb` is under way: it is taken or refused
    /// temporarily. Answers how often it was refused.
    fn ask_during(&self, disturb: impl FnOnce()) -> usize {
        let done = AtomicBool::new(false);
        let refused = Mutex::new(Vec::new());
        thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let reply = self.reply_to("alice@example.org");
                    if !reply.starts_with("250 ") {
                        refused.lock().unwrap().push(reply);
                    }
                }
            });
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let reply = self.reply_to("any@own.example");
                    assert!(reply.starts_with("250 "), "{}: {reply}", self.backend);
                }
            });
            // Whatever becomes of it, the others have to end.
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(disturb));
            done.store(true, Ordering::Release);
            result.unwrap();
        });
        let refused = refused.into_inner().unwrap();
        let permanent: Vec<_> = refused.iter().filter(|reply| !reply.starts_with('4')).collect();
        assert!(permanent.is_empty(), "{}: {permanent:?}", self.backend);
        refused.len()
    }

    /// The table program that runs, once there is one.
    fn program(&self) -> Process {
        let name = format!("table-{}", self.backend);
        wait_for("the table program runs", PATIENCE, || {
            self.server.processes().into_iter().find(|process| process.name == name)
        })
    }

    /// Kills the table program and waits until there is another one.
    fn kill_the_program(&self) {
        let victim = self.program();
        process::send(victim.pid, Signal::SIGKILL);
        wait_until("another one runs", PATIENCE, || self.program().pid != victim.pid);
    }

    /// Kills the table program while it is asked.
    fn survives_the_end_of_the_program(&self) {
        self.ask_during(|| {
            for _ in 0..3 {
                self.kill_the_program();
                self.wait_until_taken("the successor answers");
            }
        });
    }

    fn wait_until_refused(&self) {
        wait_until(&format!("{}: it is noticed", self.backend), PATIENCE, || {
            self.reply_to("alice@example.org").starts_with('4')
        });
    }

    /// Kills what the program asks while it is asked.
    fn survives_the_end_of(&self, mut database: impl Mortal) {
        let refused = self.ask_during(|| {
            for _ in 0..2 {
                database.kill();
                self.wait_until_refused();
                database.run();
                self.wait_until_taken("the data base is back");
            }
        });
        println!("{}: {refused} temporary failures", self.backend);
    }
}

/// A server that can be killed and started again.
trait Mortal {
    fn kill(&mut self);
    fn run(&mut self);
}

/// A data base server, with its files in a directory of its own.
struct Database<'a> {
    peers: &'a Peers,
    name: &'static str,
    work: TempDir,
    address: SocketAddr,
    script: String,
    running: Option<PeerProcess>,
    runs: usize,
}

impl<'a> Database<'a> {
    /// Makes one with the shell script `make`, and runs it with the script `run`, which becomes it.
    /// `@PORT@` is its port in both.
    fn start(
        peers: &'a Peers,
        name: &'static str,
        address: SocketAddr,
        (make, run): (&str, &str),
    ) -> Self {
        let work = open_directory();
        let with_port = |text: &str| text.replace("@PORT@", &address.port().to_string());
        let script = with_port(run);
        let make = format!("set -e\n{}", with_port(make));
        peers.run_in(&format!("{name}-make"), work.path(), &["sh", "-c", &make]);
        let mut made = Self { peers, name, work, address, script, running: None, runs: 0 };
        made.run();
        made
    }

    fn listens(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
    }

    /// Runs a client of it.
    fn client(&self, script: &str) {
        let script = script.replace("@PORT@", &self.address.port().to_string());
        let name = format!("{}-client", self.name);
        self.peers.run_in(&name, self.work.path(), &["sh", "-ec", &script]);
    }
}

impl Mortal for Database<'_> {
    fn kill(&mut self) {
        self.running = None;
        wait_until(&format!("{} is gone", self.name), PATIENCE, || !self.listens());
    }

    fn run(&mut self) {
        self.runs += 1;
        let name = format!("{}-{}", self.name, self.runs);
        let words = ["sh", "-c", self.script.as_str()];
        self.running = Some(self.peers.start(&name, self.work.path(), &words));
        wait_until(&format!("{} listens", self.name), PATIENCE, || self.listens());
    }
}

/// A socketmap server at a path: a line with the name of a map and a key, and a line of answer.
struct Maps {
    path: PathBuf,
    connections: Arc<Mutex<Vec<UnixStream>>>,
    ending: Arc<AtomicBool>,
}

impl Maps {
    fn start(path: PathBuf) -> Self {
        let mut made = Self { path, connections: Arc::default(), ending: Arc::default() };
        made.run();
        made
    }

    fn answer(stream: &UnixStream) -> io::Result<()> {
        let mut output = stream;
        for line in BufReader::new(stream).lines() {
            let known = line? == "t alice@example.org";
            output.write_all(if known { b"OK nobody\n" } else { b"NOTFOUND \n" })?;
        }
        Ok(())
    }
}

impl Mortal for Maps {
    fn kill(&mut self) {
        self.ending.store(true, Ordering::Release);
        // Wakes the thread that accepts, which then closes the socket.
        UnixStream::connect(&self.path).unwrap();
        wait_until("the socket is closed", PATIENCE, || UnixStream::connect(&self.path).is_err());
        for stream in self.connections.lock().unwrap().drain(..) {
            // The other end may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn run(&mut self) {
        if self.path.exists() {
            fs::remove_file(&self.path).unwrap();
        }
        let listener = UnixListener::bind(&self.path).unwrap();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o666)).unwrap();
        self.ending = Arc::default();
        let (ending, connections) = (Arc::clone(&self.ending), Arc::clone(&self.connections));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ending.load(Ordering::Acquire) {
                    return;
                }
                connections.lock().unwrap().push(stream.try_clone().unwrap());
                // How a connection ends is the program's business.
                thread::spawn(move || Self::answer(&stream));
            }
        });
    }
}

fn peers(backend: &str, more: &[&str]) -> Option<Peers> {
    let program = format!("{LIBEXEC}/table-{backend}");
    Peers::of_tables(&[&[program.as_str()], more].concat())
}

/// What a table of recipients refuses for good.
const UNKNOWN: [(&str, &str); 2] = [("eve@example.org", "524 "), ("any@other.example", "550 ")];

/// Domains and recipients, for everything that reads SQL.
const SQL: &str = "CREATE TABLE domains (domain VARCHAR(255) NOT NULL);
CREATE TABLE virtuals (email VARCHAR(255) NOT NULL, destination VARCHAR(255) NOT NULL);
INSERT INTO domains VALUES ('example.org');
INSERT INTO virtuals VALUES ('alice@example.org', 'nobody');";

#[test]
fn passwd() {
    let Some(peers) = peers("passwd", &[]) else { return };
    let users = "alice:*:1000:1000:Alice:/home/alice:/bin/sh\n";
    let scene = Scene::start(&peers, "passwd", USERS, users, |_| {});
    scene.knows(&[("eve@example.org", "550 ")]);
    scene.survives_the_end_of_the_program();
}

#[test]
fn socketmap() {
    let Some(peers) = peers("socketmap", &[]) else { return };
    let mut maps = None;
    // This program has values for keys and does not say whether a key is there.
    let rules = RECIPIENTS.replace("for domain <t>", "for domain \"example.org\"");
    let scene = Scene::start(&peers, "socketmap", &rules, "", |server| {
        maps = Some(Maps::start(server.path("table.conf")));
    });
    scene.knows(&UNKNOWN);
    scene.survives_the_end_of_the_program();
    scene.survives_the_end_of(maps.unwrap());
}

#[test]
fn sqlite() {
    let Some(peers) = peers("sqlite", &["/usr/bin/sqlite3"]) else { return };
    let settings = "dbpath @DIR@/data/db\n\
                    query_alias SELECT destination FROM virtuals WHERE email=?;\n\
                    query_domain SELECT domain FROM domains WHERE domain=?;\n";
    let scene = Scene::start(&peers, "sqlite", RECIPIENTS, settings, |server| {
        let data = server.path("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
        let make = format!("sqlite3 /mnt/db \"{SQL}\" && chmod 644 /mnt/db");
        peers.run_in("sqlite-make", &data, &["sh", "-c", &make]);
    });
    scene.knows(&UNKNOWN);
    scene.survives_the_end_of_the_program();
    // A program that finds no data base, until it is back.
    let (here, away) = (scene.server.path("data/db"), scene.server.path("data/away"));
    scene.ask_during(|| {
        fs::rename(&here, &away).unwrap();
        process::send(scene.program().pid, Signal::SIGKILL);
        scene.wait_until_refused();
        fs::rename(&away, &here).unwrap();
        scene.wait_until_taken("the data base is back");
    });
}

#[test]
fn postgres() {
    let Some(peers) = peers("postgres", &["/usr/bin/psql"]) else { return };
    let address = free_address();
    let make = "mkdir /mnt/data && chown postgres /mnt/data\n\
                as='setpriv --reuid=postgres --regid=postgres --clear-groups'\n\
                $as /usr/lib/postgresql/*/bin/initdb -D /mnt/data -A trust -U mail --no-sync";
    let run = "exec setpriv --reuid=postgres --regid=postgres --clear-groups \
               /usr/lib/postgresql/*/bin/postgres -D /mnt/data -h 127.0.0.1 -p @PORT@ -k ''";
    let database = Database::start(&peers, "postgres", address, (make, run));
    let client = "psql -h 127.0.0.1 -p @PORT@ -U mail postgres";
    database.client(&format!(
        "until {client} -c 'SELECT 1'; do sleep 0.1; done; {client} -c \"{SQL}\""
    ));
    let settings = format!(
        "conninfo host='127.0.0.1' port='{}' user='mail' dbname='postgres'\n\
         query_alias SELECT destination FROM virtuals WHERE email=$1;\n\
         query_domain SELECT domain FROM domains WHERE domain=$1;\n",
        address.port()
    );
    let scene = Scene::start(&peers, "postgres", RECIPIENTS, &settings, |_| {});
    scene.knows(&UNKNOWN);
    scene.survives_the_end_of_the_program();
    scene.survives_the_end_of(database);
}

#[test]
fn mysql() {
    let Some(peers) = peers("mysql", &["/usr/sbin/mariadbd", "/usr/bin/mariadb"]) else { return };
    // The program has no setting for a port.
    let address: SocketAddr = "127.0.33.6:3306".parse().unwrap();
    let make = "mkdir /mnt/data && chown mysql /mnt/data /mnt\n\
                mariadb-install-db --no-defaults --user=mysql --datadir=/mnt/data \
                --auth-root-authentication-method=normal --skip-test-db";
    let run = "exec mariadbd --no-defaults --user=mysql --datadir=/mnt/data \
               --bind-address=127.0.33.6 --port=@PORT@ --socket=/mnt/socket";
    let database = Database::start(&peers, "mariadb", address, (make, run));
    let user = "CREATE USER mail@'%' IDENTIFIED BY 'secret'; GRANT SELECT ON m.* TO mail@'%';";
    let text = format!("CREATE DATABASE m; USE m; {SQL} {user}");
    fs::write(database.work.path().join("sql"), text).unwrap();
    // Its socket is in a directory that is another one to whoever looks from outside: this network
    // is the way.
    database.client(
        "until mariadb --no-defaults --skip-ssl -h 127.0.33.6 -P @PORT@ -u root </mnt/sql\n\
         do sleep 0.1; done",
    );
    let settings = "host 127.0.33.6\nusername mail\npassword secret\ndatabase m\n\
                    query_alias SELECT destination FROM virtuals WHERE email=?;\n\
                    query_domain SELECT domain FROM domains WHERE domain=?;\n";
    let scene = Scene::start(&peers, "mysql", RECIPIENTS, settings, |_| {});
    scene.knows(&UNKNOWN);
    scene.survives_the_end_of_the_program();
    scene.survives_the_end_of(database);
}

#[test]
fn redis() {
    let Some(peers) = peers("redis", &["/usr/bin/redis-server", "/usr/bin/redis-cli"]) else {
        return;
    };
    let address = free_address();
    let run = "exec redis-server --bind 127.0.0.1 --port @PORT@ --dir /mnt --save '' \
               --appendonly yes --appendfsync always";
    let database = Database::start(&peers, "redis", address, ("true", run));
    database.client(
        "client='redis-cli -h 127.0.0.1 -p @PORT@'\n$client SADD domains example.org\n\
         $client LPUSH alias:alice@example.org nobody",
    );
    let settings = format!(
        "master 127.0.0.1\nmaster_port {}\nquery_domain SISMEMBER domains %s\n\
         query_alias LRANGE alias:%s 0 -1\n",
        address.port()
    );
    let scene = Scene::start(&peers, "redis", RECIPIENTS, &settings, |_| {});
    scene.knows(&UNKNOWN);
    scene.survives_the_end_of_the_program();
    scene.survives_the_end_of(database);
}

#[test]
fn ldap() {
    let Some(peers) = peers("ldap", &["/usr/sbin/slapd"]) else { return };
    let address = free_address();
    let make = r#"mkdir /mnt/data
cat >/mnt/slapd.conf <<'END'
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
directory /mnt/data
suffix "dc=example,dc=org"
rootdn "cn=admin,dc=example,dc=org"
rootpw secret
END
slapadd -f /mnt/slapd.conf <<'END'
dn: dc=example,dc=org
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: associatedDomain=example.org,dc=example,dc=org
objectClass: domainRelatedObject
objectClass: account
uid: domain
associatedDomain: example.org

dn: cn=alice,dc=example,dc=org
objectClass: inetOrgPerson
cn: alice
sn: alice
mail: alice@example.org
uid: nobody
END"#;
    let run = "exec slapd -h ldap://127.0.0.1:@PORT@ -f /mnt/slapd.conf -d 0";
    let database = Database::start(&peers, "slapd", address, (make, run));
    let settings = format!(
        "url ldap://127.0.0.1:{}\nusername cn=admin,dc=example,dc=org\npassword secret\n\
         basedn dc=example,dc=org\n\
         alias_filter (&(objectClass=inetOrgPerson)(mail=%s))\nalias_attributes uid\n\
         domain_filter (associatedDomain=%s)\ndomain_attributes associatedDomain\n",
        address.port()
    );
    let scene = Scene::start(&peers, "ldap", RECIPIENTS, &settings, |_| {});
    scene.knows(&UNKNOWN);
    scene.survives_the_end_of_the_program();
    scene.survives_the_end_of(database);
}
