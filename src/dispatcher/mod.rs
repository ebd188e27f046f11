//! The dispatcher: every SMTP session in and out, and the conversations of local deliveries.

pub mod mta;
pub mod smtp;
