//! Replies of the server: their texts, and how they are written.
//!
//! Texts are an interface: peers' operators grep for them. An enhanced code (RFC 3463) comes with
//! the fixed description of that code, then what is special about this reply.

/// Longest reply line, in bytes without line end; longer ones are cut.
pub const MAX_LINE: usize = 4095;

/// Success of MAIL and NOOP.
pub const OK: &str = "250 2.0.0 Ok";
/// Success of RCPT.
pub const RECIPIENT_OK: &str = "250 2.1.5 Destination address valid: Recipient ok";
/// Success of RSET.
pub const RESET: &str = "250 2.0.0 Reset state";
/// Success of QUIT.
pub const BYE: &str = "221 2.0.0 Bye";
/// Answer to VRFY (RFC 5321, section 3.5.3).
pub const CANNOT_VERIFY: &str = "252 2.5.2 Cannot VRFY user: try RCPT";
/// Success of STARTTLS.
pub const READY_FOR_TLS: &str = "220 2.0.0 Ready to start TLS";
/// Success of AUTH.
pub const AUTHENTICATED: &str = "235 2.0.0 Authentication succeeded";
/// Success of DATA.
pub const ENTER_MAIL: &str = "354 Enter mail, end with \".\" on a line by itself";

/// The queue or another role failed before the message was complete.
pub const TEMPORARY_ERROR: &str = "421 4.3.0 Temporary Error";
/// The queue failed at the commit.
pub const TEMPORARY_FAILURE: &str = "421 4.3.0 Temporary failure";
/// Credentials were wrong too often, from this address.
pub const TOO_MANY_FAILURES: &str = "421 4.7.0 Too many failed authentications, try again later";
/// The server leaves (RFC 5321, section 3.8).
pub const SHUTTING_DOWN: &str = "421 4.3.2 Service not available, closing transmission channel";
/// A filter is broken, or has refused with something that is not a reply.
pub const INTERNAL_ERROR: &str = "421 Internal server error";
/// The queue did not answer in time.
pub const TIMED_OUT: &str = "451 4.3.0 Temporary failure";
/// SCRAM for a user with a hash of another form (RFC 4954, section 6).
pub const OTHER_MECHANISM: &str = "432 4.7.12 A password transition is needed: use PLAIN or LOGIN";
/// The spool is full.
pub const INSUFFICIENT_STORAGE: &str = "452 4.3.1 Insufficient system storage";
/// `max-mails` is reached.
pub const TOO_MANY_MESSAGES: &str = "452 4.5.3 Too many recipients: Too many messages sent";
/// STARTTLS while there is no key.
pub const TLS_NOT_AVAILABLE: &str = "454 4.7.0 TLS not available due to temporary reason";
/// `max-rcpt` is reached.
pub const TOO_MANY_RECIPIENTS: &str = "452 4.5.3 Too many recipients: Too many recipients";

/// A command line above 2,047 bytes.
pub const COMMAND_TOO_LONG: &str = "500 5.0.0 Command line too long";
/// A line above 65,534 bytes.
pub const LINE_TOO_LONG: &str = "500 5.0.0 Line too long";
/// More input behind a command where that is not allowed.
pub const NO_PIPELINING: &str = "500 5.5.1 Invalid command: Pipelining not supported";
/// Not a command.
pub const UNRECOGNIZED: &str = "500 5.5.1 Invalid command: Command unrecognized";
/// An argument where none is allowed.
pub const NO_ARGUMENTS: &str =
    "500 5.5.4 Invalid command arguments: command does not accept arguments.";
/// 100 Received headers.
pub const LOOP: &str = "500 5.4.6 Routing loop detected: Loop detected";
/// `EHLO` alone.
pub const EHLO_NEEDS_NAME: &str = "501 5.5.1 Invalid command: EHLO requires domain name";
/// `HELO` alone.
pub const HELO_NEEDS_NAME: &str = "501 5.5.1 Invalid command: HELO requires domain name";
/// A greeting with something that is not a domain.
pub const BAD_DOMAIN: &str = "501 5.5.4 Invalid command arguments: Invalid domain name";
/// A recipient that is not an address.
pub const BAD_RECIPIENT: &str = "501 5.1.3 Recipient address syntax error";
/// BDAT without a size: where its content would end is unknown, and the session ends.
pub const BAD_CHUNK: &str = "501 5.5.4 Invalid command arguments: Invalid size of a chunk";
/// SIZE of MAIL is not a number.
pub const BAD_SIZE: &str = "501 5.5.4 Invalid command arguments: Invalid SIZE";
/// ENVID of MAIL has characters that cannot be sent on.
pub const BAD_ENVID: &str = "501 5.5.4 Invalid command arguments: Invalid ENVID";
/// AUTH without a mechanism.
pub const NO_PARAMETERS: &str = "501 5.5.4 Invalid command arguments: No parameters given";
/// STARTTLS with an argument.
pub const NO_PARAMETERS_ALLOWED: &str =
    "501 5.5.4 Invalid command arguments: No parameters allowed";
/// What a client sends during AUTH cannot be understood.
pub const BAD_EXCHANGE: &str = "501 5.5.2 Syntax error: Syntax error";
/// STARTTLS inside TLS.
pub const ALREADY_SECURE: &str = "503 5.5.1 Invalid command: Channel already secured";
/// A command out of order.
pub const BAD_SEQUENCE: &str = "503 5.5.1 Invalid command: Command not allowed at this point.";
/// AUTH after it succeeded.
pub const ALREADY_AUTHENTICATED: &str = "503 5.5.1 Invalid command: Already authenticated";
/// A command that this listener does not offer.
pub const NOT_SUPPORTED: &str = "503 5.5.1 Invalid command: Command not supported";
/// DATA without recipients.
pub const NO_RECIPIENT: &str = "503 5.5.4 Invalid command arguments: No recipient specified";
/// MAIL before AUTH, where that is required.
pub const AUTH_REQUIRED: &str = "530 5.5.1 Invalid command: Must issue an AUTH command first";
/// The user may not send from this address.
pub const SENDER_REJECTED: &str = "530 Sender rejected";
/// MAIL before STARTTLS, where that is required.
pub const TLS_REQUIRED: &str = "530 5.5.1 Invalid command: Must issue a STARTTLS command first";
/// The credentials are wrong.
pub const WRONG_CREDENTIALS: &str = "535 Authentication failed";
/// A mechanism of AUTH that is not offered. It follows.
pub const UNKNOWN_MECHANISM: &str = "504 5.7.4 Security features not supported:";
/// A header block with something that is not a header.
pub const NOT_COMPLIANT: &str =
    "550 5.7.1 Delivery not authorized, message refused: Message is not RFC 2822 compliant";
/// SIZE of MAIL is above the limit.
pub const DECLARED_TOO_BIG: &str = "552 5.3.4 Message too big for system";
/// A sender that is not an address.
pub const BAD_SENDER: &str = "553 5.1.0 Sender address syntax error";
/// A recipient that is not ASCII, where MAIL had no SMTPUTF8 (RFC 6531, section 3.5).
pub const NOT_ASCII: &str = "553 5.6.7 Non-ASCII address not permitted: MAIL had no SMTPUTF8";
/// NOTIFY of RCPT has NEVER and something else.
pub const NEVER_COMBINED: &str = "553 NOTIFY option NEVER cannot be combined with other options";
/// ORCPT of RCPT is not `type;xtext`.
pub const BAD_ORIGINAL_RECIPIENT: &str = "553 ORCPT address syntax error";
/// The message is above the limit.
pub const TOO_BIG: &str =
    "554 5.3.4 Message too big for system: Transaction failed, message too big";

/// No rule matches a recipient, or there is no such user. The address follows.
pub const INVALID_RECIPIENT: &str = "550 Invalid recipient";
/// An alias leads nowhere. The address follows.
pub const EXPANSION_PROBLEM: &str = "524 5.2.4 Mailing list expansion problem";
/// An alias cannot be followed now. The address follows.
pub const EXPANSION_PROBLEM_NOW: &str = "424 4.2.4 Mailing list expansion problem";
/// The rules cannot be asked now. The address follows.
pub const RECIPIENT_TEMPORARY: &str = "451 Temporary failure";

/// Appends `line` and its line end to `output`.
///
/// Lines may hold text that a client or an alias gave: what is not printable ASCII or a tab is
/// written as `?`, and what exceeds [`MAX_LINE`] is cut, so that no reply can break its frame.
pub fn write_line(output: &mut Vec<u8>, line: &str) {
    let printable = |c: char| matches!(c, '\t' | ' '..='~');
    output.reserve(line.len() + 2);
    if line.len() <= MAX_LINE && line.chars().all(printable) {
        output.extend_from_slice(line.as_bytes());
    } else {
        let byte = |c: char| if printable(c) { c as u8 } else { b'?' };
        output.extend(line.chars().take(MAX_LINE).map(byte));
    }
    output.extend_from_slice(b"\r\n");
}

/// Whether `line` is a reply that refuses: `4yz` or `5yz`, a blank, and a text.
#[must_use]
pub fn refuses(line: &str) -> bool {
    matches!(line.as_bytes(), [b'4' | b'5', b'0'..=b'9', b'0'..=b'9', b' ', _, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_line_of_printable_text() {
        let cases = [
            ("250 2.0.0 Ok", "250 2.0.0 Ok\r\n"),
            ("550 a\r\n250 b", "550 a??250 b\r\n"),
            ("550 \u{e9}\0\tx", "550 ??\tx\r\n"),
        ];
        for (line, written) in cases {
            let mut output = Vec::new();
            write_line(&mut output, line);
            assert_eq!(String::from_utf8(output).unwrap(), written);
        }
        let mut output = Vec::new();
        write_line(&mut output, &"x".repeat(5000));
        assert_eq!(output.len(), MAX_LINE + 2);
    }

    #[test]
    fn only_class_four_and_five_with_a_text_refuse() {
        let cases = [
            ("550 go away", true),
            ("421 x", true),
            ("550 ", false),
            ("550-x", false),
            ("250 ok", false),
            ("5x0 y", false),
            ("", false),
        ];
        for (line, expected) in cases {
            assert_eq!(refuses(line), expected, "{line}");
        }
    }
}
