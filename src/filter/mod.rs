//! Filters: what they are asked, what they decide, what they are told.
//!
//! Logic without processes and sockets. [`Phase`], [`Decision`] and [`Event`] are the values that
//! sessions and filters exchange. [`wire`] writes lines to filter programs, [`said`] and
//! [`registration`] read theirs; [`chain`] has the filters of a session in order, [`builtin`] those
//! that need no program. [`Engine`] has all sessions and all programs, and decides.
//!
//! Sources: the SMTP page of the specification, section 5; smtpd-filters(7).

pub mod builtin;
pub mod chain;
mod decision;
pub mod engine;
mod event;
mod facts;
mod line;
mod phase;
pub mod registration;
mod reply;
pub mod said;
pub mod wire;

pub use decision::Decision;
pub use engine::Engine;
pub use event::{AuthResult, Direction, Event, Fcrdns, TransactionResult};
pub use facts::Facts;
pub use line::{bracketed, masked, masked_argument};
pub use phase::Phase;
pub use reply::{INTERNAL, reply};
