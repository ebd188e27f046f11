//! Tables that programs answer for: their channels, and questions on their way.
//!
//! What is said with a program, and when it is replaced, is decided by a
//! [`Conversation`]; here it gets its socket, its clock and its chance. Each table has a task of its
//! own, so one program that stalls holds up nobody else. The parent has a program started for a
//! table that is named by its number; this role knows neither paths nor commands.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::config::{Config, TableId, TableSource};
use crate::ipc::message::parent::{ParentToRole, RoleToParent};
use crate::process::ParentLink;
use crate::proto::escape;
use crate::table::process::{
    Action, Conversation, Moment, Notice, Reply, Request, RequestError, limits,
};
use crate::table::{Answer, Question, Service, value};

/// Bytes read from a program at once.
const READ: usize = 4096;

/// The tables of a configuration that programs answer for.
#[derive(Debug)]
pub struct Programs {
    tables: HashMap<TableId, mpsc::Sender<Inquiry>>,
}

/// What the task of a table is to ask, and for whom.
type Inquiry = (Request, Waiter);

/// Who waits for an answer.
type Waiter = oneshot::Sender<Result<Reply, RequestError>>;

impl Programs {
    /// Begins with the programs of all tables of `config` that have one, in the order of their
    /// names.
    ///
    /// They end with this value. Must be called in a runtime.
    #[must_use]
    pub fn start(config: &Config, parent: &ParentLink) -> Self {
        let mut declared: Vec<(&str, TableId)> = (0..)
            .zip(&config.tables)
            .filter(|(_, table)| matches!(table.source, TableSource::Program { .. }))
            .map(|(index, table)| (table.name.as_str(), TableId(index)))
            .collect();
        declared.sort_unstable();
        let begin = |(name, table): (&str, TableId)| {
            let (sender, inbox) = mpsc::channel(limits::WAITING);
            tokio::spawn(Driver::new(name, table, parent.clone(), inbox).run());
            (table, sender)
        };
        Self { tables: declared.into_iter().map(begin).collect() }
    }

    /// Asks the program of the table that the question is for.
    pub async fn answer(&self, question: &Question) -> Answer {
        let (table, request) = match question {
            Question::Account { table, name } => {
                (table, Request::Lookup { service: Service::Userinfo, key: name.clone() })
            }
            Question::Contains { table, service, key } => {
                (table, Request::Check { service: *service, key: key.clone() })
            }
            Question::Value { table, service, key } => {
                (table, Request::Lookup { service: *service, key: key.clone() })
            }
        };
        match (question, self.request(*table, request).await) {
            (Question::Contains { .. }, Ok(Reply::Contains(found))) => Answer::Contains(found),
            (Question::Value { .. }, Ok(Reply::Value(value))) => Answer::Value(value),
            (Question::Account { .. }, Ok(Reply::Value(None))) => Answer::Account(None),
            (Question::Account { .. }, Ok(Reply::Value(Some(text)))) => {
                value::account(&text).map_or(Answer::Failed, |found| Answer::Account(Some(found)))
            }
            _ => Answer::Failed,
        }
    }

    /// Whether a program that checks passwords itself finds `user:password` right.
    ///
    /// # Errors
    /// It did not answer that, or does not check passwords.
    pub async fn log_in(&self, table: TableId, key: String) -> Result<bool, RequestError> {
        match self.request(table, Request::Check { service: Service::Auth, key }).await? {
            Reply::Contains(found) => Ok(found),
            Reply::Updated | Reply::Value(_) => Err(RequestError::Unavailable),
        }
    }

    /// The next entry of a list that is used in turn; `None` if there is none.
    ///
    /// # Errors
    /// The program did not answer that.
    pub async fn fetch(
        &self,
        table: TableId,
        service: Service,
    ) -> Result<Option<String>, RequestError> {
        match self.request(table, Request::Fetch { service }).await? {
            Reply::Value(value) => Ok(value),
            Reply::Contains(_) | Reply::Updated => Err(RequestError::Unavailable),
        }
    }

    /// Has the program read anew where the contents of its table come from.
    ///
    /// # Errors
    /// It did not, or there is no program for this table.
    pub async fn update(&self, table: TableId) -> Result<(), RequestError> {
        self.request(table, Request::Update).await.map(drop)
    }

    async fn request(&self, table: TableId, request: Request) -> Result<Reply, RequestError> {
        let driver = self.tables.get(&table).ok_or(RequestError::Unavailable)?;
        let (sender, answer) = oneshot::channel();
        driver.try_send((request, sender)).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => RequestError::Unavailable,
            mpsc::error::TrySendError::Full(_) => RequestError::Busy,
        })?;
        answer.await.unwrap_or(Err(RequestError::Unavailable))
    }
}

/// A program that is being started.
type Starting = Pin<Box<dyn Future<Output = Result<UnixStream, String>> + Send>>;

/// Drives the conversation about one table.
struct Driver {
    name: String,
    table: TableId,
    parent: ParentLink,
    inbox: mpsc::Receiver<Inquiry>,
    talk: Conversation<Waiter>,
    begun: Instant,
    starting: Option<Starting>,
    socket: Option<UnixStream>,
    /// What the program has not taken yet.
    unsent: Vec<u8>,
}

/// What has happened.
enum Event {
    Asked(Option<Inquiry>),
    Due,
    Heard(io::Result<Vec<u8>>),
    Sent(io::Result<usize>),
    Started(Result<UnixStream, String>),
}

impl Driver {
    fn new(name: &str, table: TableId, parent: ParentLink, inbox: mpsc::Receiver<Inquiry>) -> Self {
        Self {
            name: name.to_owned(),
            table,
            parent,
            inbox,
            talk: Conversation::new(name),
            begun: Instant::now(),
            starting: None,
            socket: None,
            unsent: Vec::new(),
        }
    }

    /// Goes on as long as anybody may ask.
    async fn run(mut self) {
        loop {
            let event = self.next().await;
            let now = self.now();
            match event {
                Event::Asked(None) => return,
                Event::Asked(Some((request, waiter))) => match getrandom::u32() {
                    Ok(id) => self.talk.ask(now, waiter, id, request),
                    Err(_) => drop(waiter.send(Err(RequestError::Unavailable))),
                },
                Event::Due => self.talk.tick(now),
                Event::Heard(Ok(bytes)) if !bytes.is_empty() => self.talk.received(now, &bytes),
                Event::Heard(_) | Event::Sent(Err(_)) => self.talk.closed(now),
                Event::Sent(Ok(count)) => drop(self.unsent.drain(..count)),
                Event::Started(Ok(socket)) => {
                    self.starting = None;
                    self.socket = Some(socket);
                    self.talk.started(now);
                }
                Event::Started(Err(reason)) => {
                    self.starting = None;
                    self.talk.not_started(now, reason);
                }
            }
            self.perform();
        }
    }

    async fn next(&mut self) -> Event {
        let deadline = self.talk.deadline().map(|deadline| self.begun + deadline);
        let socket = self.socket.as_ref();
        tokio::select! {
            asked = self.inbox.recv() => Event::Asked(asked),
            heard = hear(socket) => Event::Heard(heard),
            sent = send(socket, &self.unsent) => Event::Sent(sent),
            started = wait(&mut self.starting) => Event::Started(started),
            () = until(deadline) => Event::Due,
        }
    }

    fn perform(&mut self) {
        for action in self.talk.actions() {
            match action {
                // Who asked may have gone.
                Action::Answer(waiter, result) => drop(waiter.send(result)),
                Action::End => {
                    self.socket = None;
                    self.unsent.clear();
                }
                Action::Say(notice) => say(&self.name, &notice),
                Action::Start => {
                    let start = start(self.parent.clone(), self.table);
                    self.starting = Some(Box::pin(start));
                }
                Action::Write(text) => self.unsent.extend_from_slice(text.as_bytes()),
            }
        }
    }

    fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Moment { uptime: self.begun.elapsed(), wall: wall.unwrap_or(Duration::ZERO) }
    }
}

/// Has the program of a table started.
async fn start(parent: ParentLink, table: TableId) -> Result<UnixStream, String> {
    let request = RoleToParent::StartTableProgram { table: table.0 };
    let descriptor = match parent.request(&request, None).await {
        Ok((ParentToRole::TableProgram { error: None }, Some(descriptor))) => descriptor,
        Ok((ParentToRole::TableProgram { error: Some(error) }, _)) => return Err(error),
        Ok(_) => return Err("the parent did not answer the question".to_owned()),
        Err(error) => return Err(error.to_string()),
    };
    let socket = std::os::unix::net::UnixStream::from(descriptor);
    let watched = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    watched.map_err(|error| error.to_string())
}

/// Waits for what the program says; nothing is its end.
async fn hear(socket: Option<&UnixStream>) -> io::Result<Vec<u8>> {
    let Some(socket) = socket else { return std::future::pending().await };
    let mut buffer = vec![0; READ];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut buffer) {
            Ok(count) => {
                buffer.truncate(count);
                return Ok(buffer);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until the program has taken some of it.
async fn send(socket: Option<&UnixStream>, unsent: &[u8]) -> io::Result<usize> {
    let Some(socket) = socket.filter(|_| !unsent.is_empty()) else {
        return std::future::pending().await;
    };
    loop {
        socket.writable().await?;
        match socket.try_write(unsent) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn wait(starting: &mut Option<Starting>) -> Result<UnixStream, String> {
    match starting {
        Some(starting) => starting.await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Writes the log line of a notice, with what the program said made visible.
fn say(table: &str, notice: &Notice) {
    match notice {
        Notice::Answers => tracing::info!("info: table-proc: {table} answers again"),
        Notice::GivenUp { trouble, pause, repeated } => {
            let trouble = visible(trouble.to_string().as_bytes());
            let pause = pause.as_millis();
            if *repeated {
                tracing::debug!("debug: table-proc: {trouble}: {table} again in {pause} ms");
            } else {
                tracing::warn!(
                    "warn: table-proc: {trouble}: {table} is started anew, in {pause} ms"
                );
            }
        }
        Notice::LongKey(key) => {
            tracing::warn!("warn: lookup key too long: {}", visible(key.as_bytes()));
        }
        Notice::Refused { operation, message } => {
            tracing::warn!("warn: table-proc: {table} {operation} failed: {}", visible(message));
        }
    }
}

/// At most 1024 bytes of it.
fn visible(bytes: &[u8]) -> String {
    escape::quoted(bytes.get(..1024).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixStream as Socket;

    use super::*;
    use crate::config::tests::good;
    use crate::ipc::link::Link;
    use crate::table::Account;

    /// Answers one after the other: to what ends a line of the program's input, with this.
    const ANSWERS: [(&str, &str); 6] = [
        ("|check|domain|ID|d.org", "check-result|ID|found"),
        ("|lookup|alias|ID|a", "lookup-result|ID|found|b, c"),
        ("|lookup|userinfo|ID|u", "lookup-result|ID|found|1:2:/h"),
        ("|lookup|userinfo|ID|x", "lookup-result|ID|found|1:2"),
        ("|fetch|source|ID", "fetch-result|ID|found|127.0.0.1"),
        ("|update|ID", "update-result|ID|error|gone"),
    ];

    /// Plays a program; what it does not know it does not find.
    fn play(socket: Socket) -> io::Result<()> {
        let mut output = socket.try_clone()?;
        for line in BufReader::new(socket).lines() {
            let line = line?;
            if line == "config|ready" {
                output.write_all(b"register|alias\nregister|ready\n")?;
            }
            let Some(rest) = line.strip_prefix("table|0.1|") else { continue };
            // TIME, NAME, operation, and but for an update the service, come before the id.
            let operation = rest.split('|').nth(2).unwrap_or_default();
            let at = if operation == "update" { 3 } else { 4 };
            let id = rest.split('|').nth(at).unwrap_or_default();
            let plain = rest.replace(id, "ID");
            let known = ANSWERS.iter().find(|(end, _)| plain.ends_with(end));
            let not_found = format!("{operation}-result|{id}|not-found");
            let answer = known.map_or(not_found, |(_, answer)| answer.replace("ID", id));
            output.write_all(format!("{answer}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Programs of two tables, `t` and `none`, of which the parent starts the first only.
    fn programs() -> (Programs, TableId, TableId) {
        let config = good("table t passwd:/t\ntable none passwd\nmatch reject");
        let (table, none) = (config.table_named("t").unwrap(), config.table_named("none").unwrap());
        let (ours, theirs) = platform::fd::socketpair().unwrap();
        let (parent, _orders) = Link::open(ours, 16).unwrap();
        let (_link, mut requests) = Link::<ParentToRole, RoleToParent>::open(theirs, 16).unwrap();
        tokio::spawn(async move {
            while let Some(asked) = requests.recv().await {
                let (error, descriptor) =
                    if asked.message == (RoleToParent::StartTableProgram { table: table.0 }) {
                        let (near, far) = platform::fd::socketpair().unwrap();
                        std::thread::spawn(move || play(Socket::from(far)));
                        (None, Some(near))
                    } else {
                        (Some("not there".to_owned()), None)
                    };
                asked.responder.reply(&ParentToRole::TableProgram { error }, descriptor).unwrap();
            }
        });
        (Programs::start(&config, &parent), table, none)
    }

    #[tokio::test]
    async fn questions_reach_the_program_of_their_table() {
        let (programs, table, none) = programs();
        let contains = |table, key: &str| Question::Contains {
            table,
            service: Service::Domain,
            key: key.to_owned(),
        };
        let value =
            |key: &str| Question::Value { table, service: Service::Alias, key: key.to_owned() };
        let account = |name: &str| Question::Account { table, name: name.to_owned() };
        let found = Account { uid: 1, gid: 2, home: "/h".to_owned() };
        let cases = [
            (contains(table, "D.org"), Answer::Contains(true)),
            (contains(table, "e.org"), Answer::Contains(false)),
            (value("a"), Answer::Value(Some("b, c".to_owned()))),
            (value("b"), Answer::Value(None)),
            (account("u"), Answer::Account(Some(found))),
            (account("x"), Answer::Failed),
            (account("y"), Answer::Account(None)),
            (contains(table, "a\nb"), Answer::Failed),
            (contains(none, "d.org"), Answer::Failed),
        ];
        for (question, expected) in cases {
            assert_eq!(programs.answer(&question).await, expected, "{question:?}");
        }
        let source = programs.fetch(table, Service::Source).await;
        assert_eq!(source, Ok(Some("127.0.0.1".to_owned())));
        assert_eq!(programs.fetch(table, Service::Relayhost).await, Ok(None));
        assert_eq!(programs.update(table).await, Err(RequestError::Refused));
        assert_eq!(programs.update(none).await, Err(RequestError::Unavailable));
        let has = |table| programs.tables.contains_key(&table);
        assert!(has(table) && !has(TableId::LOCALHOST));
        let unknown = programs.update(TableId::LOCALHOST).await;
        assert_eq!(unknown, Err(RequestError::Unavailable));
    }
}
