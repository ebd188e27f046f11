//! Frames: how messages lie on a stream between two roles, without sockets.
//!
//! A frame is a header of 8 bytes and a payload of at most [`limits::FRAME`] bytes. The header is
//! two little-endian numbers: length of the payload (24 bits), kind (7 bits), the mark of a passed
//! descriptor (1 bit); then the number that a reply repeats. The payload is one message, serialised
//! with postcard. Descriptors arrive beside the bytes, in order, one for each marked frame; a marked
//! frame without one is delivered without, so that only its own request fails.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::limits;

/// Length of a header, in bytes.
pub const HEADER: usize = 8;

const DESCRIPTOR: u32 = 1 << 31;

/// What a frame is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Gives back `number` credits; no payload.
    Credit,
    /// Says something; costs a credit until it was dealt with.
    Notice,
    /// Answers the request of the same number, and gives its credit back. Empty: refused.
    Reply,
    /// Asks something; costs a credit until the reply.
    Request,
}

/// A frame as received, its payload still serialised.
#[derive(Debug)]
pub struct Frame {
    /// What it is for.
    pub kind: Kind,
    /// Number of the request, or of the credits.
    pub number: u32,
    /// The message.
    pub payload: Vec<u8>,
    /// Whether the sender meant to pass a descriptor.
    pub marked: bool,
    /// The descriptor passed with it.
    pub descriptor: Option<OwnedFd>,
}

/// What a peer sent is not a frame, or not one of its messages: its channel is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FrameError {
    /// More requests and notices than the sender has credits for, or credits nobody lent.
    #[error("a frame came without a credit for it")]
    Credits,
    /// More descriptors came than frames were marked.
    #[error("a descriptor came with no frame marked for it")]
    Descriptor,
    /// The kind is unknown.
    #[error("a frame has an unknown kind")]
    Kind,
    /// The payload is above the limit.
    #[error("a frame is longer than allowed")]
    Length,
    /// The payload is not one of the messages that this peer may send.
    #[error("a frame does not decode")]
    Message,
}

impl Frame {
    /// Reads the message.
    ///
    /// # Errors
    /// [`FrameError::Message`] if it is not an `M`, or more than one.
    pub fn message<M: DeserializeOwned>(&self) -> Result<M, FrameError> {
        match postcard::take_from_bytes(&self.payload) {
            Ok((message, [])) => Ok(message),
            _ => Err(FrameError::Message),
        }
    }
}

/// Frames on their way out: bytes, and which of them a descriptor goes with.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: VecDeque<(usize, OwnedFd)>,
}

impl Outgoing {
    /// Appends one frame.
    ///
    /// # Errors
    /// [`FrameError::Length`] if the message is above the limit; nothing is appended then.
    pub fn push<M: Serialize>(
        &mut self,
        kind: Kind,
        number: u32,
        message: &M,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), FrameError> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        // Serialising into the vector itself saves a copy of each body.
        match postcard::to_extend(message, std::mem::take(&mut self.bytes)) {
            Ok(bytes) => self.bytes = bytes,
            Err(_) => return Err(FrameError::Message),
        }
        let length = self.bytes.len() - start - HEADER;
        if length > limits::FRAME {
            self.bytes.truncate(start);
            return Err(FrameError::Length);
        }
        self.set_header(start, kind, number, length, descriptor.is_some());
        if let Some(descriptor) = descriptor {
            self.descriptors.push_back((start, descriptor));
        }
        Ok(())
    }

    /// Appends a frame without payload: credits, or the refusal of a request.
    pub fn push_empty(&mut self, kind: Kind, number: u32) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.set_header(start, kind, number, 0, false);
    }

    fn set_header(&mut self, start: usize, kind: Kind, number: u32, length: usize, marked: bool) {
        let kind: u32 = match kind {
            Kind::Credit => 1,
            Kind::Notice => 2,
            Kind::Reply => 3,
            Kind::Request => 4,
        };
        // `length` is at most 64 KiB here.
        let word = length as u32 | (kind << 24) | if marked { DESCRIPTOR } else { 0 };
        if let Some(header) = self.bytes.get_mut(start..start + HEADER) {
            header[..4].copy_from_slice(&word.to_le_bytes());
            header[4..].copy_from_slice(&number.to_le_bytes());
        }
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Bytes that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    /// What to send next, with the descriptor that goes with its first byte.
    ///
    /// A run ends before the next frame that has a descriptor, so that each travels with its own.
    #[must_use]
    pub fn next_run(&self) -> (&[u8], Option<&OwnedFd>) {
        let mut waiting = self.descriptors.iter();
        let (descriptor, end) = match waiting.next() {
            Some((at, descriptor)) if *at == self.sent => {
                (Some(descriptor), waiting.next().map_or(self.bytes.len(), |(at, _)| *at))
            }
            Some((at, _)) => (None, *at),
            None => (None, self.bytes.len()),
        };
        (self.bytes.get(self.sent..end).unwrap_or_default(), descriptor)
    }

    /// Notes that the first `count` bytes of [`Outgoing::next_run`] were sent, its descriptor too.
    pub fn advance(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        if self.descriptors.front().is_some_and(|(at, _)| *at == self.sent) {
            self.descriptors.pop_front();
        }
        self.sent += count;
        if self.is_empty() {
            self.bytes.clear();
            self.sent = 0;
            // What a burst needed is not kept by an idle channel.
            self.bytes.shrink_to(limits::FRAME);
        }
    }
}

/// Frames on their way in.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
    read: usize,
    descriptors: VecDeque<OwnedFd>,
}

impl Incoming {
    /// Takes bytes as they came from the stream.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.read > 0 {
            self.bytes.drain(..self.read);
            self.read = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes descriptors that came beside the bytes.
    pub fn descriptors(&mut self, descriptors: impl IntoIterator<Item = OwnedFd>) {
        self.descriptors.extend(descriptors);
    }

    /// The next whole frame; `None` until more bytes come.
    ///
    /// # Errors
    /// The peer broke the format: the channel must be closed.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        let Some((header, rest)) = rest.split_first_chunk::<HEADER>() else {
            return self.incomplete();
        };
        let [a, b, c, d, number @ ..] = *header;
        let word = u32::from_le_bytes([a, b, c, d]);
        let length = (word & 0x00ff_ffff) as usize;
        if length > limits::FRAME {
            return Err(FrameError::Length);
        }
        let kind = match (word & !DESCRIPTOR) >> 24 {
            1 => Kind::Credit,
            2 => Kind::Notice,
            3 => Kind::Reply,
            4 => Kind::Request,
            _ => return Err(FrameError::Kind),
        };
        let Some(payload) = rest.get(..length) else {
            return self.incomplete();
        };
        let payload = payload.to_vec();
        self.read += HEADER + length;
        let marked = word & DESCRIPTOR != 0;
        let descriptor = if marked { self.descriptors.pop_front() } else { None };
        let number = u32::from_le_bytes(number);
        Ok(Some(Frame { kind, number, payload, marked, descriptor }))
    }

    /// A descriptor comes with the first byte of its frame, so at most one may wait for the rest.
    fn incomplete(&mut self) -> Result<Option<Frame>, FrameError> {
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
            self.bytes.shrink_to(limits::FRAME);
        }
        if self.descriptors.len() > 1 { Err(FrameError::Descriptor) } else { Ok(None) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    /// Moves everything over in pieces of at most `piece` bytes.
    fn carry(out: &mut Outgoing, input: &mut Incoming, piece: usize) -> Vec<Frame> {
        let mut frames = Vec::new();
        while !out.is_empty() {
            let (run, descriptor) = out.next_run();
            let count = run.len().min(piece);
            let passed = descriptor.map(|d| d.try_clone().unwrap());
            input.extend(&run[..count]);
            input.descriptors(passed);
            out.advance(count);
            while let Some(frame) = input.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    #[test]
    fn frames_survive_any_cut() {
        for piece in 1..40 {
            let mut out = Outgoing::default();
            out.push(Kind::Request, 7, &"hello", None).unwrap();
            out.push(Kind::Notice, 0, &"with", Some(some_descriptor())).unwrap();
            out.push(Kind::Reply, 8, &"also", Some(some_descriptor())).unwrap();
            out.push_empty(Kind::Credit, 3);
            let frames = carry(&mut out, &mut Incoming::default(), piece);
            let seen: Vec<_> =
                frames.iter().map(|f| (f.kind, f.number, f.descriptor.is_some())).collect();
            let expected = vec![
                (Kind::Request, 7, false),
                (Kind::Notice, 0, true),
                (Kind::Reply, 8, true),
                (Kind::Credit, 3, false),
            ];
            assert_eq!(seen, expected, "pieces of {piece}");
            assert_eq!(frames[1].message::<String>().unwrap(), "with");
        }
    }

    #[test]
    fn a_marked_frame_without_descriptor_still_arrives() {
        let mut out = Outgoing::default();
        out.push(Kind::Notice, 0, &1_u8, Some(some_descriptor())).unwrap();
        let mut input = Incoming::default();
        input.extend(out.next_run().0);
        let frame = input.next_frame().unwrap().unwrap();
        assert!(frame.marked && frame.descriptor.is_none());
    }

    #[test]
    fn what_is_not_a_frame_is_an_error() {
        let cases: [(&str, [u8; 8], FrameError); 3] = [
            ("too long", [1, 0, 1, 2, 0, 0, 0, 0], FrameError::Length),
            ("kind 0", [0, 0, 0, 0, 0, 0, 0, 0], FrameError::Kind),
            ("kind 9", [0, 0, 0, 9, 0, 0, 0, 0], FrameError::Kind),
        ];
        for (name, bytes, expected) in cases {
            let mut input = Incoming::default();
            input.extend(&bytes);
            assert_eq!(input.next_frame().unwrap_err(), expected, "{name}");
        }
        let mut input = Incoming::default();
        input.descriptors([some_descriptor(), some_descriptor()]);
        assert_eq!(input.next_frame().unwrap_err(), FrameError::Descriptor);
    }

    #[test]
    fn a_message_above_the_limit_is_not_sent() {
        let mut out = Outgoing::default();
        out.push(Kind::Notice, 0, &1_u8, None).unwrap();
        let before = out.len();
        let big = vec![0_u8; limits::FRAME];
        assert_eq!(out.push(Kind::Notice, 0, &big, None), Err(FrameError::Length));
        assert_eq!(out.len(), before);
    }

    #[test]
    fn trailing_bytes_in_a_payload_do_not_decode() {
        let frame = Frame {
            kind: Kind::Notice,
            number: 0,
            payload: vec![1, 1],
            marked: false,
            descriptor: None,
        };
        assert_eq!(frame.message::<u8>(), Err(FrameError::Message));
    }
}
