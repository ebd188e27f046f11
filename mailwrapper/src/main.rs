//! Runs the mail program that `mailer.conf` names for the name it was called by.

fn main() {}
