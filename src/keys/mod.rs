//! The only holder of private keys. It hands none out: it signs what servers sign in handshakes.
//!
//! Which keys it holds is for the dispatcher to say, entry by entry, so that a certificate and its
//! key change together; what is in them comes from files that the parent opens. Each thread of the
//! dispatcher that does handshakes has a channel to a thread here, and may ask for one signature at a
//! time. Whatever else it asks for is refused and counted: the dispatcher may be an intruder's.

mod role;
mod vault;

pub use role::run;
