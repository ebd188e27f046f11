//! How many connections each user has to the control socket.
//!
//! Source: the queue page of the specification, 6.2; queue case 178, smtp case 222.

use std::collections::HashMap;

/// Connections that one user may have at a time.
pub const PER_USER: u32 = 32;

/// Open connections, by user id.
#[derive(Debug, Default)]
pub struct Connections {
    open: HashMap<u32, u32>,
}

/// The user has [`PER_USER`] connections already.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("too many connections to control socket from user with uid {uid}")]
pub struct TooMany {
    /// The user.
    pub uid: u32,
}

impl Connections {
    /// Counts a new connection of `uid`, until [`Connections::leave`].
    ///
    /// # Errors
    /// There are too many; it must be closed, and is not counted.
    pub fn enter(&mut self, uid: u32) -> Result<(), TooMany> {
        let open = self.open.entry(uid).or_default();
        if *open >= PER_USER {
            return Err(TooMany { uid });
        }
        *open += 1;
        Ok(())
    }

    /// Counts the end of a connection of `uid`.
    pub fn leave(&mut self, uid: u32) {
        if let Some(open) = self.open.get_mut(&uid) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.open.remove(&uid);
            }
        }
    }

    /// How many are open in all.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.open.values().sum()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // queue case 178, smtp case 222.
    #[test]
    fn the_thirty_third_connection_of_a_user_is_refused() {
        let mut connections = Connections::default();
        for _ in 0..32 {
            connections.enter(1000).unwrap();
        }
        let refusal = connections.enter(1000).unwrap_err();
        let text = "too many connections to control socket from user with uid 1000";
        assert_eq!(refusal.to_string(), text);
        connections.enter(1001).unwrap();
        assert_eq!(connections.len(), 33);
        connections.leave(1000);
        connections.enter(1000).unwrap();
        assert!(connections.enter(1000).is_err());
        for _ in 0..32 {
            connections.leave(1000);
        }
        connections.leave(1001);
        connections.leave(1002);
        assert!(connections.is_empty());
        crate::spec_case::ran("smtp", 222);
    }
}
