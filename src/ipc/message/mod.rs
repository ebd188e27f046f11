//! What the ends of each channel may say: one file per pair, one closed enum per direction.

pub mod client;
