//! How an envelope is written in the store: one version byte, then the envelope in postcard.

use crate::model::Envelope;

/// First byte of a record. A record with another one was written by another version.
const VERSION: u8 = 2;
/// First byte of a record from before SMTPUTF8.
const FIRST_VERSION: u8 = 1;

/// Why a stored envelope cannot be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RecordError {
    /// The bytes are not an envelope.
    #[error("the envelope does not decode")]
    Damaged,
    /// Another version wrote it.
    #[error("the envelope was written by another version")]
    Version,
}

/// The bytes that stand for `envelope`.
///
/// # Errors
/// Never for an envelope that was made of parsed values.
pub fn encode(envelope: &Envelope) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_extend(envelope, vec![VERSION])
}

/// The envelope that `bytes` stand for.
///
/// # Errors
/// They stand for none.
pub fn decode(bytes: &[u8]) -> Result<Envelope, RecordError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((envelope, [])) => Ok(envelope),
            _ => Err(RecordError::Damaged),
        },
        Some((&FIRST_VERSION, rest)) => match postcard::take_from_bytes::<first::Envelope>(rest) {
            Ok((envelope, [])) => Ok(envelope.into()),
            _ => Err(RecordError::Damaged),
        },
        Some(_) => Err(RecordError::Version),
        None => Err(RecordError::Damaged),
    }
}

/// Envelopes as they were written before SMTPUTF8.
mod first {
    use serde::Deserialize;

    use crate::model::envelope::{Progress, RecipientDsn, Ret, Route, Smtputf8, Source};
    use crate::model::{self, EnvelopeId, ReversePath};

    #[derive(Deserialize)]
    #[cfg_attr(test, derive(serde::Serialize))]
    pub(super) struct Envelope {
        pub(super) id: EnvelopeId,
        pub(super) origin: Origin,
        pub(super) route: Route,
        pub(super) dsn: RecipientDsn,
        pub(super) progress: Progress,
    }

    #[derive(Deserialize)]
    #[cfg_attr(test, derive(serde::Serialize))]
    pub(super) struct Origin {
        pub(super) sender: ReversePath,
        pub(super) smtp_name: String,
        pub(super) helo: String,
        pub(super) hostname: String,
        pub(super) username: String,
        pub(super) source: Source,
        pub(super) tag: String,
        pub(super) authenticated: bool,
        pub(super) ret: Option<Ret>,
        pub(super) envid: Option<String>,
    }

    impl From<Envelope> for model::Envelope {
        fn from(first: Envelope) -> Self {
            let Envelope { id, origin, route, dsn, progress } = first;
            let origin = model::envelope::Origin {
                sender: origin.sender,
                smtp_name: origin.smtp_name,
                helo: origin.helo,
                hostname: origin.hostname,
                username: origin.username,
                source: origin.source,
                tag: origin.tag,
                authenticated: origin.authenticated,
                ret: origin.ret,
                envid: origin.envid,
                smtputf8: Smtputf8::Absent,
            };
            Self { id, origin, route, dsn, progress }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::envelope::Smtputf8;
    use crate::model::fixture::relay_envelope;

    #[test]
    fn what_is_written_is_read_again() {
        let mut envelope = relay_envelope(7, "a@example.org");
        envelope.origin.smtputf8 = Smtputf8::Headers;
        let mut bytes = encode(&envelope).unwrap();
        assert_eq!(decode(&bytes), Ok(envelope));
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(RecordError::Damaged));
        assert_eq!(decode(&[9, 0]), Err(RecordError::Version));
        assert_eq!(decode(&[]), Err(RecordError::Damaged));
    }

    #[test]
    fn records_from_before_smtputf8_are_read() {
        let expected = relay_envelope(7, "a@example.org");
        let origin = expected.origin.clone();
        let first = first::Envelope {
            id: expected.id,
            origin: first::Origin {
                sender: origin.sender,
                smtp_name: origin.smtp_name,
                helo: origin.helo,
                hostname: origin.hostname,
                username: origin.username,
                source: origin.source,
                tag: origin.tag,
                authenticated: origin.authenticated,
                ret: origin.ret,
                envid: origin.envid,
            },
            route: expected.route.clone(),
            dsn: expected.dsn.clone(),
            progress: expected.progress.clone(),
        };
        let bytes = postcard::to_extend(&first, vec![FIRST_VERSION]).unwrap();
        assert_eq!(decode(&bytes), Ok(expected));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(RecordError::Damaged));
    }
}
