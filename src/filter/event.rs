//! What filters are told about sessions (5.4 of the SMTP page).

use serde::{Deserialize, Serialize};

use crate::model::{EnvelopeId, MessageId};

/// Whether a session is incoming or outgoing.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Direction {
    /// `smtp-in`
    In,
    /// `smtp-out`
    Out,
}

/// Something that has happened in a session. Texts come from outside as they were received; they
/// have no line end, and control bytes are made harmless when the line is written.
/// `filter-response` and `filter-report` are not here: who decides reports them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Event {
    /// `link-connect`
    LinkConnect {
        /// Name by reverse look-up, `<unknown>` without one.
        hostname: String,
        /// Whether the name leads back to the address.
        fcrdns: Fcrdns,
        /// The client: `1.2.3.4:port`, `[v6]:port` or `unix:PATH`.
        source: String,
        /// The server, in the same form.
        destination: String,
    },
    /// `link-greeting`
    LinkGreeting {
        /// Name in the banner.
        hostname: String,
    },
    /// `link-identify`
    LinkIdentify {
        /// `HELO`, `EHLO` or `LHLO`.
        method: String,
        /// The name given, after any rewrite.
        name: String,
    },
    /// `link-tls`
    LinkTls {
        /// `VERSION:CIPHER:BITS`
        description: String,
    },
    /// `link-auth`
    LinkAuth {
        /// The verdict.
        result: AuthResult,
        /// The user name.
        user: Vec<u8>,
    },
    /// `link-disconnect`
    LinkDisconnect,
    /// `timeout`
    Timeout,
    /// `tx-begin`
    TxBegin(MessageId),
    /// `tx-mail`; without a number for a MAIL that began no transaction.
    TxMail(Option<MessageId>, TransactionResult, Vec<u8>),
    /// `tx-rcpt`
    TxRcpt(MessageId, TransactionResult, Vec<u8>),
    /// `tx-envelope`
    TxEnvelope(EnvelopeId),
    /// `tx-data`
    TxData(MessageId, TransactionResult),
    /// `tx-commit`, with the bytes written.
    TxCommit(MessageId, u64),
    /// `tx-rollback`
    TxRollback(MessageId),
    /// `tx-reset`
    TxReset(MessageId),
    /// `protocol-client`: a command line, credentials masked.
    ProtocolClient(Vec<u8>),
    /// `protocol-server`: a reply line.
    ProtocolServer(Vec<u8>),
}

/// Whether a name and an address agree.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Fcrdns {
    /// `pass`
    Pass,
    /// `fail`
    Fail,
    /// `error`
    Error,
}

/// Verdict on credentials.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum AuthResult {
    /// `pass`
    Pass,
    /// `fail`
    Fail,
    /// `error`
    Error,
}

/// Result of a command of a transaction.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum TransactionResult {
    /// `ok`
    Ok,
    /// `permfail`
    Permanent,
    /// `tempfail`
    Temporary,
}
