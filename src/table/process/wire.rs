//! Lines to and from table programs.
//!
//! Fields are separated by `|`, which is literal in the last one. What a line means is judged here;
//! when it may come is [`super::Conversation`]'s business.

use std::time::Duration;

use super::{Reply, Request, Trouble};
use crate::table::Service;

/// The version that programs are told: that of the server whose tables they were written for.
const VERSION: &str = "7.9.0-pillarbox";
/// Version of the protocol.
const PROTOCOL: &str = "0.1";

/// What a program is told first about the table called `name`.
#[must_use]
pub fn greeting(name: &str) -> String {
    format!(
        "config|smtpd-version|{VERSION}\nconfig|protocol|{PROTOCOL}\nconfig|tablename|{name}\n\
         config|ready\n"
    )
}

/// A line of a program's registration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Registration {
    /// That was all.
    Ready,
    /// It can be asked for this.
    Service(Service),
}

/// Reads a line of a registration, without its end.
///
/// # Errors
/// [`Trouble::NotRegistered`], [`Trouble::UnknownService`].
pub fn registration(line: &[u8]) -> Result<Registration, Trouble> {
    let name = line.strip_prefix(b"register|").ok_or(Trouble::NotRegistered)?;
    if name == b"ready" {
        return Ok(Registration::Ready);
    }
    let name = String::from_utf8_lossy(name);
    match Service::named(&name) {
        Some(service) => Ok(Registration::Service(service)),
        None => Err(Trouble::UnknownService(name.into_owned())),
    }
}

/// The line that asks a program for `request` about the table called `name`.
///
/// `wall` is the time since the epoch. Keys are lower-cased, but not those of
/// [`Service::Auth`]: they hold a password. A key must hold no line end.
#[must_use]
pub fn request(name: &str, wall: Duration, id: u32, request: &Request) -> String {
    let (seconds, micros) = (wall.as_secs(), wall.subsec_micros());
    let operation = request.operation();
    let begin = format!("table|{PROTOCOL}|{seconds}.{micros:06}|{name}|{operation}");
    match request {
        Request::Check { service, key } | Request::Lookup { service, key } => {
            let key = match service {
                Service::Auth => key.clone(),
                _ => key.to_ascii_lowercase(),
            };
            format!("{begin}|{}|{id:08x}|{key}\n", service.name())
        }
        Request::Fetch { service } => format!("{begin}|{}|{id:08x}\n", service.name()),
        Request::Update => format!("{begin}|{id:08x}\n"),
    }
}

/// What a program answered to a request: the reply, or its error with what it says about it.
pub type Said = Result<Reply, Option<Vec<u8>>>;

/// Reads the answer to the request with this id, a line without its end.
///
/// # Errors
/// [`Trouble::Empty`], [`Trouble::Unparseable`]: it is no answer to that.
pub fn answer(line: &[u8], id: u32, request: &Request) -> Result<Said, Trouble> {
    let begin = format!("{}-result|{id:08x}|", request.operation());
    let result = line.strip_prefix(begin.as_bytes()).ok_or(Trouble::Unparseable)?;
    if result.is_empty() {
        return Err(Trouble::Empty);
    }
    if result == b"error" {
        return Ok(Err(None));
    }
    if let Some(message) = result.strip_prefix(b"error|") {
        return Ok(Err(Some(message.to_vec())));
    }
    let reply = match request {
        Request::Update if result == b"ok" => Reply::Updated,
        Request::Update => return Err(Trouble::Unparseable),
        // Whatever follows the word counts for nothing.
        Request::Check { .. } if result.starts_with(b"found") => Reply::Contains(true),
        Request::Check { .. } if result == b"not-found" => Reply::Contains(false),
        Request::Check { .. } => return Err(Trouble::Unparseable),
        Request::Fetch { .. } | Request::Lookup { .. } if result == b"not-found" => {
            Reply::Value(None)
        }
        Request::Fetch { .. } | Request::Lookup { .. } => {
            let value = result.strip_prefix(b"found|").ok_or(Trouble::Unparseable)?;
            if value.is_empty() {
                return Err(Trouble::Unparseable);
            }
            match std::str::from_utf8(value) {
                Ok(value) => Reply::Value(Some(value.to_owned())),
                Err(_) => return Ok(Err(Some(b"the value is not UTF-8".to_vec()))),
            }
        }
    };
    Ok(Ok(reply))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec_case;

    const WALL: Duration = Duration::new(1_700_000_000, 42_000);

    fn check(service: Service, key: &str) -> Request {
        Request::Check { service, key: key.to_owned() }
    }

    fn look_up(service: Service, key: &str) -> Request {
        Request::Lookup { service, key: key.to_owned() }
    }

    fn fetch() -> Request {
        Request::Fetch { service: Service::Source }
    }

    #[test]
    fn a_program_is_told_about_its_table_first() {
        let expected = "config|smtpd-version|7.9.0-pillarbox\nconfig|protocol|0.1\n\
                        config|tablename|users\nconfig|ready\n";
        assert_eq!(greeting("users"), expected);
    }

    #[test]
    fn requests() {
        let begin = "table|0.1|1700000000.000042|t";
        let cases = [
            (0, Request::Update, "update|0000beef"),
            (0, fetch(), "fetch|source|0000beef"),
            (0, Request::Fetch { service: Service::Relayhost }, "fetch|relayhost|0000beef"),
            (0, check(Service::Domain, "Example.ORG"), "check|domain|0000beef|example.org"),
            (0, look_up(Service::Alias, "A|b"), "lookup|alias|0000beef|a|b"),
            (0, look_up(Service::Mailaddrmap, "x"), "lookup|mailaddrmap|0000beef|x"),
            (0, look_up(Service::Credentials, "L"), "lookup|credentials|0000beef|l"),
            (272, check(Service::Auth, "User:PassWord"), "check|auth|0000beef|User:PassWord"),
        ];
        for (number, asked, expected) in cases {
            let line = request("t", WALL, 0xbeef, &asked);
            assert_eq!(line, format!("{begin}|{expected}\n"), "config case {number}");
            spec_case::ran("config", number);
        }
    }

    #[test]
    fn registrations() {
        let unknown = |name: &str| Err(Trouble::UnknownService(name.to_owned()));
        let cases = [
            ("register|ready", Ok(Registration::Ready)),
            ("register|alias", Ok(Registration::Service(Service::Alias))),
            ("register|none", unknown("none")),
            ("register|Alias", unknown("Alias")),
            ("register|", unknown("")),
            ("register", Err(Trouble::NotRegistered)),
            ("hello", Err(Trouble::NotRegistered)),
            ("", Err(Trouble::NotRegistered)),
        ];
        for (line, expected) in cases {
            assert_eq!(registration(line.as_bytes()), expected, "{line:?}");
        }
        for service in Service::ALL {
            let line = format!("register|{}", service.name());
            assert_eq!(registration(line.as_bytes()), Ok(Registration::Service(service)));
        }
    }

    #[test]
    fn answers() {
        let key = || check(Service::Domain, "k");
        let value = || look_up(Service::Alias, "k");
        let found = |text: &str| Ok(Ok(Reply::Value(Some(text.to_owned()))));
        let error = |text: &str| Ok(Err(Some(text.as_bytes().to_vec())));
        let cases = [
            (key(), "check-result|0000beef|found", Ok(Ok(Reply::Contains(true)))),
            (key(), "check-result|0000beef|found|x", Ok(Ok(Reply::Contains(true)))),
            (key(), "check-result|0000beef|foundling", Ok(Ok(Reply::Contains(true)))),
            (key(), "check-result|0000beef|not-found", Ok(Ok(Reply::Contains(false)))),
            (key(), "check-result|0000beef|not-found|x", Err(Trouble::Unparseable)),
            (key(), "check-result|0000beef|error", Ok(Err(None))),
            (key(), "check-result|0000beef|error|a|b", error("a|b")),
            (key(), "check-result|0000beef|errors", Err(Trouble::Unparseable)),
            (key(), "check-result|0000beef|yes", Err(Trouble::Unparseable)),
            (key(), "check-result|0000beef|", Err(Trouble::Empty)),
            (key(), "check-result|0000beef", Err(Trouble::Unparseable)),
            (key(), "check-result|0000bee|found", Err(Trouble::Unparseable)),
            (key(), "check-result|0000BEEF|found", Err(Trouble::Unparseable)),
            (key(), "lookup-result|0000beef|found|x", Err(Trouble::Unparseable)),
            (key(), "", Err(Trouble::Unparseable)),
            (value(), "lookup-result|0000beef|found|a, b|c ", found("a, b|c ")),
            (value(), "lookup-result|0000beef|found|", Err(Trouble::Unparseable)),
            (value(), "lookup-result|0000beef|found", Err(Trouble::Unparseable)),
            (value(), "lookup-result|0000beef|not-found", Ok(Ok(Reply::Value(None)))),
            (value(), "lookup-result|0000beef|error|boom", error("boom")),
            (fetch(), "fetch-result|0000beef|found|10.0.0.1", found("10.0.0.1")),
            (fetch(), "fetch-result|0000beef|not-found", Ok(Ok(Reply::Value(None)))),
            (fetch(), "lookup-result|0000beef|found|10.0.0.1", Err(Trouble::Unparseable)),
            (Request::Update, "update-result|0000beef|ok", Ok(Ok(Reply::Updated))),
            (Request::Update, "update-result|0000beef|okay", Err(Trouble::Unparseable)),
            (Request::Update, "update-result|0000beef|error|gone", error("gone")),
        ];
        for (asked, line, expected) in cases {
            assert_eq!(answer(line.as_bytes(), 0xbeef, &asked), expected, "{asked:?}: {line:?}");
        }
        let latin = b"lookup-result|0000beef|found|\xe9";
        assert!(matches!(answer(latin, 0xbeef, &value()), Ok(Err(Some(_)))));
    }
}
