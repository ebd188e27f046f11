//! Logging in: AUTH PLAIN where it is offered, else AUTH LOGIN; inside TLS only.
//!
//! Sources: RFC 4954 for AUTH, RFC 4616 for PLAIN; LOGIN is what servers made of a draft that ended.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

use super::{Command, Dialogue, Failure, State, Step};
use crate::client::server::Credentials;
use crate::proto::server_reply::Reply;

/// What was sent last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Login {
    /// That it will be LOGIN.
    Begin,
    /// The last part.
    Password,
    /// The user of LOGIN.
    User,
}

impl Dialogue {
    /// Logs in if that is wanted, and goes on.
    pub(super) fn log_in(&mut self) {
        let Some(Credentials { user, password }) = &self.wishes.credentials else {
            return self.ready();
        };
        let missing = match (self.is_encrypted, self.offered) {
            (false, _) => "Authentication requires TLS",
            (true, offered) if !offered.auth => "AUTH not supported by remote host",
            (true, offered) if offered.plain_method => {
                let plain = Zeroizing::new(format!("\0{user}\0{}", password.reveal()));
                let plain = Zeroizing::new(BASE64.encode(plain.as_bytes()));
                let line = Zeroizing::new(format!("AUTH PLAIN {}", *plain));
                return self.say_secret(&line, Login::Password);
            }
            (true, offered) if offered.login_method => {
                return self.say("AUTH LOGIN", State::Login(Login::Begin));
            }
            (true, _) => "no supported AUTH method",
        };
        self.give_up(Failure::Missing(missing));
    }

    pub(super) fn login_reply(&mut self, login: Login, reply: &Reply) {
        let Some(Credentials { user, password }) = &self.wishes.credentials else { return };
        match (login, reply.code) {
            (Login::Begin, 334) => {
                let user = Zeroizing::new(BASE64.encode(user));
                self.say_secret(&user, Login::User);
            }
            (Login::User, 334) => {
                let password = Zeroizing::new(BASE64.encode(password.reveal()));
                self.say_secret(&password, Login::Password);
            }
            (Login::Password, 200..=299) => self.ready(),
            _ => self.refused(reply),
        }
    }

    fn say_secret(&mut self, line: &str, next: Login) {
        let line = Zeroizing::new(format!("{line}\r\n"));
        self.steps.push_back(Step::Say(Command { line, secret: true }));
        self.state = State::Login(next);
    }
}
