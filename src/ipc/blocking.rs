//! A channel of a role that has no runtime: spawner, worker.
//!
//! The descriptor is non-blocking; a caller that has nothing else to do waits in [`Channel::receive`],
//! one that polls several uses [`Channel::fill`] and [`Channel::flush`].

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use platform::process::{Interest, PollEntry, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frame::{Frame, FrameError, Incoming, Kind, Outgoing};

/// Bytes read from the channel at once.
const READ: usize = 64 * 1024;

/// A channel that sends messages `O` and receives messages `I`.
#[derive(Debug)]
pub struct Channel<O, I> {
    descriptor: OwnedFd,
    input: Incoming,
    output: Outgoing,
    buffer: Vec<u8>,
    closed: bool,
    messages: PhantomData<fn(O) -> I>,
}

/// A message as received.
#[derive(Debug)]
pub struct Received<I> {
    /// What it is for.
    pub kind: Kind,
    /// Number to repeat in the reply.
    pub number: u32,
    /// The message; `None` for a reply that refuses, or for credits.
    pub message: Option<I>,
    /// The descriptor passed with it.
    pub descriptor: Option<OwnedFd>,
}

/// Why a channel ended.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("the other end of the channel is gone")]
    Closed,
    /// The peer broke the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Nothing came in time.
    #[error("the other end of the channel does not answer")]
    Late,
    /// The system says so.
    #[error("channel: {0}")]
    System(#[from] io::Error),
}

impl<O: Serialize, I: DeserializeOwned> Channel<O, I> {
    /// A channel over one end of a socket pair.
    ///
    /// # Errors
    /// If the descriptor cannot be made non-blocking.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        platform::fd::set_nonblocking(descriptor.as_fd(), true)?;
        Ok(Self {
            descriptor,
            input: Incoming::default(),
            output: Outgoing::default(),
            buffer: Vec::new(),
            closed: false,
            messages: PhantomData,
        })
    }

    /// The descriptor, to poll.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    /// Whether [`Channel::flush`] has something to do.
    pub fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Queues a notice.
    ///
    /// # Errors
    /// The message is above the limit.
    pub fn notice(&mut self, message: &O, descriptor: Option<OwnedFd>) -> Result<(), FrameError> {
        self.output.push(Kind::Notice, 0, message, descriptor)
    }

    /// Queues a request with a number of the caller's choice.
    ///
    /// # Errors
    /// The message is above the limit.
    pub fn request(
        &mut self,
        number: u32,
        message: &O,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), FrameError> {
        self.output.push(Kind::Request, number, message, descriptor)
    }

    /// Queues the reply to request `number`.
    ///
    /// # Errors
    /// The message is above the limit.
    pub fn reply(
        &mut self,
        number: u32,
        message: &O,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), FrameError> {
        self.output.push(Kind::Reply, number, message, descriptor)
    }

    /// Gives back `count` credits, for notices that were dealt with.
    pub fn credit(&mut self, count: u32) {
        self.output.push_empty(Kind::Credit, count);
    }

    /// Sends what is queued, as far as the system takes it now.
    ///
    /// # Errors
    /// The channel is at its end.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while !self.output.is_empty() {
            let (run, passed) = self.output.next_run();
            let passed = passed.map(AsFd::as_fd);
            let slices = [io::IoSlice::new(run)];
            match platform::fd::send_vectored(self.descriptor.as_fd(), &slices, passed) {
                Ok(count) => self.output.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Err(ChannelError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads what has come, without waiting.
    ///
    /// # Errors
    /// The system's. The end of the channel is told by [`Channel::next_message`], after the
    /// messages before it.
    pub fn fill(&mut self) -> Result<(), ChannelError> {
        self.buffer.resize(READ, 0);
        let mut descriptors = Vec::new();
        loop {
            let read =
                platform::fd::recv(self.descriptor.as_fd(), &mut self.buffer, &mut descriptors);
            self.input.descriptors(descriptors.drain(..));
            match read {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.input.extend(self.buffer.get(..count).unwrap_or_default());
                    if count == READ {
                        continue;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.closed = true,
                Err(error) => return Err(error.into()),
            }
            return Ok(());
        }
    }

    /// The next message that was read; `None` until more comes.
    ///
    /// # Errors
    /// The peer broke the protocol, or is gone and nothing is left to read.
    pub fn next_message(&mut self) -> Result<Option<Received<I>>, ChannelError> {
        let Some(frame) = self.input.next_frame()? else {
            return if self.closed { Err(ChannelError::Closed) } else { Ok(None) };
        };
        let message = match frame.kind {
            Kind::Credit => None,
            Kind::Reply if frame.payload.is_empty() => None,
            Kind::Notice | Kind::Reply | Kind::Request => Some(frame.message()?),
        };
        let Frame { kind, number, descriptor, .. } = frame;
        Ok(Some(Received { kind, number, message, descriptor }))
    }

    /// Sends what is queued and waits for the next message.
    ///
    /// # Errors
    /// The channel is at its end, or the peer broke the protocol.
    pub fn receive(&mut self) -> Result<Received<I>, ChannelError> {
        self.receive_before(None)
    }

    /// As [`Channel::receive`], up to a deadline if there is one.
    ///
    /// # Errors
    /// Also [`ChannelError::Late`]: the channel can still be used, and what comes too late comes next.
    pub fn receive_before(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<Received<I>, ChannelError> {
        loop {
            self.flush()?;
            if let Some(received) = self.next_message()? {
                return Ok(received);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(ChannelError::Late);
            }
            let interest = if self.wants_write() { Interest::ReadWrite } else { Interest::Read };
            poll(&mut [PollEntry::new(self.descriptor.as_fd(), interest)], left)?;
            self.fill()?;
        }
    }

    /// Sends everything that is queued, waiting as long as it takes.
    ///
    /// # Errors
    /// The channel is at its end.
    pub fn drain(&mut self) -> Result<(), ChannelError> {
        loop {
            self.flush()?;
            if !self.wants_write() {
                return Ok(());
            }
            poll(&mut [PollEntry::new(self.descriptor.as_fd(), Interest::Write)], None)?;
        }
    }
}
