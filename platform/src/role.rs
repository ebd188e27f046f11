//! The processes of the server, as the operating system has to know them.

use std::fmt;

/// One process of the server: what it may do is decided by its name alone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Role {
    /// Root; supervises the others and opens configured files for them.
    Parent,
    /// Root, without threads; starts workers and programs on the parent's order.
    Spawner,
    /// The control socket and statistics.
    Control,
    /// Tables, DNS, address expansion.
    Lookup,
    /// Every SMTP session, in and out.
    Dispatcher,
    /// Envelopes and messages on disk.
    Queue,
    /// When each envelope is due.
    Scheduler,
    /// Private keys.
    Keys,
    /// Local deliveries of one identity.
    Worker,
    /// One credential check.
    Auth,
}

impl Role {
    /// Every role, in the order of their declaration.
    pub const ALL: [Self; 10] = [
        Self::Parent,
        Self::Spawner,
        Self::Control,
        Self::Lookup,
        Self::Dispatcher,
        Self::Queue,
        Self::Scheduler,
        Self::Keys,
        Self::Worker,
        Self::Auth,
    ];

    /// The name after `-x` and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Parent => "parent",
            Self::Spawner => "spawner",
            Self::Control => "control",
            Self::Lookup => "lookup",
            Self::Dispatcher => "dispatcher",
            Self::Queue => "queue",
            Self::Scheduler => "scheduler",
            Self::Keys => "keys",
            Self::Worker => "worker",
            Self::Auth => "auth",
        }
    }

    /// What follows `smtpd: ` in the process list; service scripts match the parent's.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Parent => "[priv]",
            other => other.name(),
        }
    }

    /// The role called `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn every_role_is_found_by_its_name_and_no_other_word_is() {
        for role in Role::ALL {
            assert_eq!(Role::from_name(role.name()), Some(role));
        }
        for word in ["", "Queue", "crypto", "queue "] {
            assert_eq!(Role::from_name(word), None, "{word:?}");
        }
        assert_eq!(Role::Parent.title(), "[priv]");
        assert_eq!(Role::Keys.title(), "keys");
    }
}
