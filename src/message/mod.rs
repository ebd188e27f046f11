//! The way of a message's bytes from the connection to the spool.
