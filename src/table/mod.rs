//! Tables: named lists and mappings that rules, expansion and relays consult.
//!
//! A [`Table`] holds entries in memory and answers by [`Service`]: whether a key is there under the
//! comparison of that service, or what value it has. Where the entries come from is read in
//! [`file`]; what values mean is parsed in [`value`] and [`relay_url`]. Nothing here opens a file.
//!
//! Source: table(5), smtpd.conf(5).

pub mod file;
pub mod relay_url;
