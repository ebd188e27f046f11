//! The lookup role: tables, DNS, address expansion, rule matching.

pub mod dns;
