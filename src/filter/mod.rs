//! Filters: what they are asked, what they decide, what they are told.
//!
//! Logic without processes and sockets: [`Phase`], [`Decision`] and [`Event`] are the values that
//! sessions and filter programs exchange. Sources: the SMTP page of the specification, section 5.

mod decision;
mod event;
mod phase;

pub use decision::Decision;
pub use event::{AuthResult, Direction, Event, Fcrdns, TransactionResult};
pub use phase::Phase;
