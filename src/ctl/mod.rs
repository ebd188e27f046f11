//! `smtpctl` and the programs that it is under other names.

pub mod words;
