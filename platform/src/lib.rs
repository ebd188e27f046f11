//! What Pillarbox asks of an operating system.
