//! `smtpctl` and the programs that it is under other names.

pub mod command;
pub mod duration;
pub mod envelope_text;
pub mod escape;
pub mod exchange;
pub mod format;
pub mod sendmail;
pub mod state;
pub mod words;
