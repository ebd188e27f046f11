//! The control role: control socket, permissions, statistics.
