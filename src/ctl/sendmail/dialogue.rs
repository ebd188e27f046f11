//! The SMTP dialogue of a local submission: one command at a time.
//!
//! Sources: the queue page of the specification, 7.2 steps 10 and 11; cases 184 to 186; smtp case
//! 216; RFC 5321 section 4.2 for replies.

use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};

use super::compose::DataWriter;

/// Longest line of a reply, in bytes.
const MAX_REPLY_LINE: u64 = 4096;
/// Most lines of a reply.
const MAX_REPLY_LINES: usize = 128;

/// What is asked of the server.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Transaction {
    /// Sender; empty for the null sender.
    pub sender: String,
    /// Recipients, in order.
    pub recipients: Vec<String>,
    /// Value of NOTIFY for each of them.
    pub notify: Option<String>,
    /// Value of RET.
    pub ret: Option<String>,
    /// Value of ENVID.
    pub envid: Option<String>,
}

/// Why a message was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DialogueError {
    /// A reply other than 2xx and 3xx, its last line.
    #[error("command failed: {0}")]
    Refused(String),
    /// The server is gone in the middle of it, or said what is not SMTP.
    #[error("the server broke off: {0}")]
    Io(#[from] io::Error),
}

/// Submits one message over `stream`.
///
/// `content` writes the message, LF line ends. With a `transcript`, commands and replies are
/// written to it, after `>>> ` and `<<< `.
///
/// # Errors
/// The message was not taken: for no recipient at all.
pub fn submit<S>(
    stream: S,
    transaction: &Transaction,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    transcript: Option<&mut dyn Write>,
) -> Result<(), DialogueError>
where
    S: Read + Write,
{
    let mut dialogue = Dialogue { stream: BufReader::new(stream), transcript };
    dialogue.reply()?;
    let offered = dialogue.command("EHLO localhost")?;
    dialogue.command(&mail_command(transaction, &offered))?;
    for recipient in &transaction.recipients {
        let notify = parameter("NOTIFY", transaction.notify.as_deref());
        dialogue.command(&format!("RCPT TO:<{recipient}> {notify}"))?;
    }
    dialogue.command("DATA")?;
    dialogue.data(content)?;
    // The message is taken; how the goodbye goes is of no interest.
    let _goodbye = dialogue.command("QUIT");
    Ok(())
}

/// The blanks stay where a parameter is absent.
fn mail_command(transaction: &Transaction, offered: &[String]) -> String {
    let ret = parameter("RET", transaction.ret.as_deref());
    let envid = parameter("ENVID", transaction.envid.as_deref());
    let mut command = format!("MAIL FROM:<{}> {ret} {envid}", transaction.sender);
    let ascii = transaction.sender.is_ascii()
        && transaction.recipients.iter().all(|recipient| recipient.is_ascii());
    if !ascii && offered.iter().any(|line| line.eq_ignore_ascii_case("SMTPUTF8")) {
        command.push_str(" SMTPUTF8");
    }
    command
}

fn parameter(name: &str, value: Option<&str>) -> String {
    value.map_or_else(String::new, |value| format!("{name}={value}"))
}

struct Dialogue<'a, S> {
    stream: BufReader<S>,
    transcript: Option<&'a mut dyn Write>,
}

impl<S: Read + Write> Dialogue<'_, S> {
    /// Sends a command and takes its reply: the texts of its lines.
    fn command(&mut self, command: &str) -> Result<Vec<String>, DialogueError> {
        self.note(">>> ", command)?;
        let sent = self.stream.get_mut().write_all(format!("{command}\r\n").as_bytes());
        self.reply_after(sent)
    }

    fn data(
        &mut self,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), DialogueError> {
        let mut output = DataWriter::new(BufWriter::new(self.stream.get_mut()));
        let sent = content(&mut output).and_then(|()| output.finish());
        self.note(">>> ", ".")?;
        self.reply_after(sent).map(drop)
    }

    /// A server that stopped reading may have said why.
    fn reply_after(&mut self, sent: io::Result<()>) -> Result<Vec<String>, DialogueError> {
        match (sent, self.reply()) {
            (Ok(()), reply) => reply,
            (Err(_), Err(refusal @ DialogueError::Refused(_))) => Err(refusal),
            (Err(error), _) => Err(error.into()),
        }
    }

    fn reply(&mut self) -> Result<Vec<String>, DialogueError> {
        let mut texts = Vec::new();
        while texts.len() < MAX_REPLY_LINES {
            let line = self.reply_line()?;
            self.note("<<< ", &line)?;
            let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("bad reply: {line}"));
            let (code, rest) = line.split_at_checked(3).ok_or_else(bad)?;
            if !code.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad().into());
            }
            texts.push(rest.get(1..).unwrap_or_default().to_owned());
            if rest.starts_with('-') {
                continue;
            }
            return match code.as_bytes().first() {
                Some(b'2' | b'3') => Ok(texts),
                _ => Err(DialogueError::Refused(line)),
            };
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "a reply does not end").into())
    }

    fn reply_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.by_ref().take(MAX_REPLY_LINE).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_ascii_end();
        let printable = |c: char| if c.is_control() { '?' } else { c };
        Ok(String::from_utf8_lossy(text).chars().map(printable).collect())
    }

    fn note(&mut self, mark: &str, line: &str) -> io::Result<()> {
        match &mut self.transcript {
            Some(transcript) => writeln!(transcript, "{mark}{line}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A server that says what it was told to, whatever it hears.
    struct Script {
        replies: Cursor<Vec<u8>>,
        heard: Vec<u8>,
    }

    impl Read for Script {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.replies.read(buffer)
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.heard.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn run(
        transaction: &Transaction,
        replies: &str,
    ) -> (Result<(), DialogueError>, String, String) {
        let replies = Cursor::new(replies.replace('\n', "\r\n").into_bytes());
        let mut script = Script { replies, heard: Vec::new() };
        let mut transcript = Vec::new();
        let content = |output: &mut dyn Write| output.write_all(b"Subject: x\n\n.\n.dot\n");
        let result = submit(&mut script, transaction, content, Some(&mut transcript));
        let heard = String::from_utf8(script.heard).unwrap();
        (result, heard, String::from_utf8(transcript).unwrap())
    }

    fn transaction(sender: &str, recipients: &[&str]) -> Transaction {
        Transaction {
            sender: sender.into(),
            recipients: recipients.iter().map(ToString::to_string).collect(),
            ..Transaction::default()
        }
    }

    const GREETED: &str = "220 mx ESMTP\n250-mx Hello\n250-SMTPUTF8\n250 HELP\n";

    // queue case 186.
    #[test]
    fn blanks_stay_where_parameters_are_absent() {
        let replies =
            format!("{GREETED}250 ok\n250 ok\n354 go\n250 2.0.0 1 Message accepted\n221 bye\n");
        let (result, heard, transcript) = run(&transaction("root@mx.test", &["alice@d"]), &replies);
        result.unwrap();
        let expected = "EHLO localhost\r\nMAIL FROM:<root@mx.test>  \r\nRCPT TO:<alice@d> \r\n\
                        DATA\r\nSubject: x\r\n\r\n..\r\n..dot\r\n.\r\nQUIT\r\n";
        assert_eq!(heard, expected);
        assert!(
            transcript.contains(">>> MAIL FROM:<root@mx.test>  \n<<< 250 ok\n"),
            "{transcript}"
        );
        assert!(transcript.starts_with("<<< 220 mx ESMTP\n>>> EHLO localhost\n<<< 250-mx Hello\n"));
        assert!(transcript.contains("\n>>> RCPT TO:<alice@d> \n"), "{transcript}");
    }

    // smtp case 216.
    #[test]
    fn parameters_are_sent_as_given() {
        let mut transaction = transaction("bob@example.org", &["c@d"]);
        transaction.notify = Some("success,failure".into());
        transaction.ret = Some("HDRS".into());
        transaction.envid = Some("eid".into());
        let (result, heard, _) =
            run(&transaction, &format!("{GREETED}250 a\n250 b\n354 c\n250 d\n"));
        result.unwrap();
        assert!(
            heard.contains("\r\nMAIL FROM:<bob@example.org> RET=HDRS ENVID=eid\r\n"),
            "{heard}"
        );
        assert!(heard.contains("\r\nRCPT TO:<c@d> NOTIFY=success,failure\r\n"), "{heard}");
        crate::spec_case::ran("smtp", 216);
    }

    // queue cases 184 and 185.
    #[test]
    fn the_first_refusal_ends_the_dialogue() {
        let refusal = "550 Invalid recipient: <nosuch@x>";
        let replies = format!("{GREETED}250 ok\n250 ok\n{refusal}\n");
        let (result, heard, _) =
            run(&transaction("bob@mx", &["alice@d", "nosuch@x", "carol@d"]), &replies);
        assert_eq!(result.unwrap_err().to_string(), format!("command failed: {refusal}"));
        assert!(heard.ends_with("RCPT TO:<nosuch@x> \r\n"), "{heard}");
        let (result, heard, _) =
            run(&transaction("bob@mx", &[""]), &replies.replace("250 ok\n250", "250"));
        assert!(heard.ends_with("RCPT TO:<> \r\n"), "{heard}");
        assert!(matches!(result, Err(DialogueError::Refused(_))));
    }

    #[test]
    fn what_is_not_a_reply_is_an_error_and_no_panic() {
        let long = "2".repeat(5000);
        for replies in ["", "22", "2x0 hi\n", "\n", "220", "ü\n", &long, &"220-x\n".repeat(500)] {
            let (result, _, _) = run(&transaction("a@b", &["c@d"]), replies);
            assert!(matches!(result, Err(DialogueError::Io(_))), "{replies:.20}");
        }
    }

    #[test]
    fn addresses_beyond_ascii_ask_for_smtputf8_where_it_is_offered() {
        let transaction = transaction("bob@mx", &["bücher@d"]);
        let offered = ["mx Hello".to_owned(), "SMTPUTF8".to_owned()];
        assert_eq!(mail_command(&transaction, &offered), "MAIL FROM:<bob@mx>   SMTPUTF8");
        assert_eq!(mail_command(&transaction, &[]), "MAIL FROM:<bob@mx>  ");
    }
}
