//! `smtpctl` and the programs that it is under other names.
//!
//! [`program`] is what `main` runs: it finds the server ([`state`]), reads the command line
//! ([`words`], [`sendmail::options`]) and carries it out ([`command`], [`sendmail`]) over a
//! [`connection`] to the control socket. [`mod@format`], [`envelope_text`] and [`escape`]
//! are what is printed. [`map`] makes map files, which is `makemap` and `newaliases`;
//! [`encrypt`] hashes of passwords.

pub mod command;
pub mod connection;
pub mod encrypt;
pub mod envelope_text;
pub mod escape;
pub mod exchange;
pub mod format;
pub mod map;
pub mod program;
pub mod sendmail;
pub mod state;
pub mod words;
