//! Who may ask what, by the user id at the other end of the socket.
//!
//! Source: the queue page of the specification, 6.2.

use crate::ipc::message::client::Request;

/// The administrator of rank zero on every system.
const ROOT: u32 = 0;

/// Whether user `uid` may make `request` of a server that user `owner` started.
///
/// Anybody may submit mail. All else is for root and for the one who started the server, who could
/// as well end it or read its files.
#[must_use]
pub const fn may(uid: u32, owner: u32, request: &Request) -> bool {
    match request {
        Request::Hello { .. } | Request::OpenSession => true,
        Request::Change { .. }
        | Request::List { .. }
        | Request::Pause(_)
        | Request::Reload
        | Request::Resume(_)
        | Request::SetVerbosity(_)
        | Request::ShowEnvelope(_)
        | Request::ShowMessage(_)
        | Request::ShowStatistics
        | Request::ShowStatus
        | Request::Stop
        | Request::UpdateTable { .. } => uid == ROOT || uid == owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::message::client::{Change, Selection, Service, Verbosity};

    // queue case 170.
    #[test]
    fn anybody_submits_and_only_the_owner_and_root_administer() {
        let envelope = "0123456789abcdef".parse().unwrap();
        let administration = [
            Request::Change { change: Change::Remove, selection: Selection::All },
            Request::List { message: None },
            Request::Pause(Service::Smtp),
            Request::Reload,
            Request::Resume(Service::Smtp),
            Request::SetVerbosity(Verbosity::Verbose),
            Request::ShowEnvelope(envelope),
            Request::ShowMessage(envelope.message()),
            Request::ShowStatistics,
            Request::ShowStatus,
            Request::Stop,
            Request::UpdateTable { name: "aliases".to_owned() },
        ];
        for request in administration {
            assert!(may(0, 1000, &request) && may(1000, 1000, &request), "{request:?}");
            assert!(!may(1001, 1000, &request) && !may(1001, 0, &request), "{request:?}");
        }
        for request in [Request::OpenSession, Request::Hello { version: 1 }] {
            assert!(may(1001, 0, &request), "{request:?}");
        }
    }
}
