//! A channel of an asynchronous role: requests with replies, notices, credits.
//!
//! One task drives each channel. It never stops reading: what a peer may send is bounded by the
//! credits it was granted, and each request's sender has room for the reply. Frames queued while the
//! task waits for its turn leave in one write. A peer that sends what is not a message, or more than
//! it has credits for, loses the channel.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use platform::fd::SHORT_RECEIVE_IS_ALL;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::frame::{Frame, FrameError, Incoming, Kind, Outgoing};

/// Bytes read from a channel at once.
const READ: usize = 64 * 1024;

/// A handle to one channel that sends `O` and receives `I`. Clones share the channel.
pub struct Link<O, I> {
    shared: Arc<Shared<O, I>>,
}

/// A message that came, with the duty to deal with it.
#[derive(Debug)]
pub struct Arrived<O, I> {
    /// The message.
    pub message: I,
    /// The descriptor passed with it.
    pub descriptor: Option<OwnedFd>,
    /// How to answer.
    pub responder: Responder<O, I>,
}

/// The duty to answer one request, or to have dealt with one notice.
///
/// Dropped, it refuses the request, or gives the notice's credit back.
pub struct Responder<O, I> {
    shared: Arc<Shared<O, I>>,
    request: Option<u32>,
    answered: bool,
}

/// A question that was asked.
#[derive(Debug)]
pub struct Asked<I>(oneshot::Receiver<Result<Reply<I>, LinkError>>);

impl<I> Asked<I> {
    /// Waits for the reply.
    ///
    /// # Errors
    /// There is none.
    pub async fn reply(self) -> Result<Reply<I>, LinkError> {
        self.0.await.unwrap_or(Err(LinkError::Closed))
    }
}

/// The reply to a request: the message, and a descriptor if one was passed.
pub type Reply<I> = (I, Option<OwnedFd>);

/// Why a request has no reply. All of them are temporary.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// The other role is gone; another takes its place.
    #[error("the other role is gone")]
    Closed,
    /// The message is above the limit of a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other role did not answer the question.
    #[error("the other role refused the request")]
    Refused,
}

struct Shared<O, I> {
    state: Mutex<State<I>>,
    wake: Notify,
    credits: Semaphore,
    window: u32,
    sends: std::marker::PhantomData<fn(O)>,
}

struct State<I> {
    output: Outgoing,
    waiting: HashMap<u32, oneshot::Sender<Result<Reply<I>, LinkError>>>,
    next: u32,
    /// Requests and notices of the peer that were not answered or credited yet.
    outstanding: u32,
    /// Notices dealt with whose credits were not given back yet.
    owed: u32,
    closed: bool,
}

impl<O, I> Clone for Link<O, I> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<O, I> std::fmt::Debug for Link<O, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

impl<O, I> std::fmt::Debug for Responder<O, I> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Responder({:?})", self.request)
    }
}

impl<O, I> Link<O, I>
where
    O: Serialize + 'static,
    I: DeserializeOwned + Send + 'static,
{
    /// Drives a channel over `descriptor`, with `window` credits for each direction.
    ///
    /// What arrives comes out of the receiver, which ends with the channel. Must be called in a
    /// runtime.
    ///
    /// # Errors
    /// If the runtime cannot watch the descriptor.
    pub fn open(
        descriptor: OwnedFd,
        window: u32,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<Arrived<O, I>>)> {
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                output: Outgoing::default(),
                waiting: HashMap::new(),
                next: 1,
                outstanding: 0,
                owed: 0,
                closed: false,
            }),
            wake: Notify::new(),
            credits: Semaphore::new(window as usize),
            window,
            sends: std::marker::PhantomData,
        });
        // Unbounded in type only: the window bounds what is in it.
        let (arrivals, receiver) = mpsc::unbounded_channel();
        tokio::spawn(drive(stream, Arc::clone(&shared), arrivals));
        Ok((Self { shared }, receiver))
    }

    /// Asks, waiting for a credit and for the reply.
    ///
    /// # Errors
    /// There is no reply.
    pub async fn request(
        &self,
        message: &O,
        descriptor: Option<OwnedFd>,
    ) -> Result<Reply<I>, LinkError> {
        self.ask(message, descriptor).await?.reply().await
    }

    /// Asks, waiting for a credit alone: the question has its place among all others then.
    ///
    /// # Errors
    /// It cannot be asked any more.
    pub async fn ask(
        &self,
        message: &O,
        descriptor: Option<OwnedFd>,
    ) -> Result<Asked<I>, LinkError> {
        let credit = self.shared.credits.acquire().await.map_err(|_| LinkError::Closed)?;
        let receiver = {
            let mut state = self.shared.state();
            if state.closed {
                return Err(LinkError::Closed);
            }
            let number = state.free_number();
            state.output.push(Kind::Request, number, message, descriptor)?;
            let (sender, receiver) = oneshot::channel();
            state.waiting.insert(number, sender);
            receiver
        };
        credit.forget();
        self.shared.wake.notify_one();
        Ok(Asked(receiver))
    }

    /// Says something, waiting for a credit.
    ///
    /// # Errors
    /// It cannot be said any more.
    pub async fn notice(&self, message: &O, descriptor: Option<OwnedFd>) -> Result<(), LinkError> {
        let credit = self.shared.credits.acquire().await.map_err(|_| LinkError::Closed)?;
        {
            let mut state = self.shared.state();
            if state.closed {
                return Err(LinkError::Closed);
            }
            state.output.push(Kind::Notice, 0, message, descriptor)?;
        }
        credit.forget();
        self.shared.wake.notify_one();
        Ok(())
    }

    /// How many requests and notices could be sent now without waiting.
    #[must_use]
    pub fn credits(&self) -> usize {
        self.shared.credits.available_permits()
    }

    /// Whether the channel has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.state().closed
    }

    /// Ends the channel: what waits for a reply fails.
    pub fn close(&self) {
        self.shared.close();
    }
}

impl<O, I> Shared<O, I> {
    /// A panic elsewhere leaves the state whole: every change under the lock is one statement.
    fn state(&self) -> MutexGuard<'_, State<I>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let waiting = {
            let mut state = self.state();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(waiting);
        self.credits.close();
        self.wake.notify_one();
    }
}

impl<I> State<I> {
    fn free_number(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            if number != 0 && !self.waiting.contains_key(&number) {
                return number;
            }
        }
    }
}

impl<O: Serialize, I> Responder<O, I> {
    /// Answers. For a notice there is nothing to answer: the message is dropped.
    ///
    /// # Errors
    /// The message is above the limit; the request is refused instead.
    pub fn reply(mut self, message: &O, descriptor: Option<OwnedFd>) -> Result<(), FrameError> {
        let Some(number) = self.request else { return Ok(()) };
        {
            let mut state = self.shared.state();
            state.output.push(Kind::Reply, number, message, descriptor)?;
            state.outstanding = state.outstanding.saturating_sub(1);
        }
        self.answered = true;
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl<O, I> Responder<O, I> {
    /// Whether an answer is expected.
    #[must_use]
    pub fn is_request(&self) -> bool {
        self.request.is_some()
    }
}

impl<O, I> Drop for Responder<O, I> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut state = self.shared.state();
        state.outstanding = state.outstanding.saturating_sub(1);
        match self.request {
            Some(number) => state.output.push_empty(Kind::Reply, number),
            None => {
                state.owed += 1;
                // Few frames for many credits, yet never so late that the peer runs dry.
                if state.owed < self.shared.window.div_ceil(4) {
                    return;
                }
                let owed = std::mem::take(&mut state.owed);
                state.output.push_empty(Kind::Credit, owed);
            }
        }
        drop(state);
        self.shared.wake.notify_one();
    }
}

async fn drive<O, I: DeserializeOwned>(
    stream: UnixStream,
    shared: Arc<Shared<O, I>>,
    arrivals: mpsc::UnboundedSender<Arrived<O, I>>,
) {
    let mut input = Incoming::default();
    let mut sending = Outgoing::default();
    let mut buffer = vec![0; READ];
    loop {
        // Until there is nothing more to send, or no room: what was queued while there was no room
        // has woken this task already and will not wake it again.
        let ended = loop {
            if sending.is_empty() {
                let mut state = shared.state();
                if state.closed {
                    break true;
                }
                std::mem::swap(&mut sending, &mut state.output);
            }
            if sending.is_empty() {
                break false;
            }
            if send(&stream, &mut sending).is_err() {
                break true;
            }
            if !sending.is_empty() {
                break false;
            }
        };
        if ended {
            break;
        }
        let interest = if sending.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        let readable = tokio::select! {
            ready = stream.ready(interest) => match ready {
                Ok(ready) => ready.is_readable() || ready.is_read_closed(),
                Err(_) => break,
            },
            () = shared.wake.notified() => false,
        };
        if readable && receive(&stream, &mut input, &mut buffer, &shared, &arrivals).is_err() {
            break;
        }
    }
    shared.close();
}

/// Sends what the system takes now.
fn send(stream: &UnixStream, sending: &mut Outgoing) -> io::Result<()> {
    while !sending.is_empty() {
        let sent = stream.try_io(Interest::WRITABLE, || {
            let (run, passed) = sending.next_run();
            let passed = passed.map(AsFd::as_fd);
            platform::fd::send_vectored(stream.as_fd(), &[io::IoSlice::new(run)], passed)
        });
        match sent {
            Ok(count) => sending.advance(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what has come and hands it on.
fn receive<O, I: DeserializeOwned>(
    stream: &UnixStream,
    input: &mut Incoming,
    buffer: &mut [u8],
    shared: &Arc<Shared<O, I>>,
    arrivals: &mpsc::UnboundedSender<Arrived<O, I>>,
) -> io::Result<()> {
    let mut descriptors = Vec::new();
    let mut received = None;
    let read = stream.try_io(Interest::READABLE, || {
        let count = platform::fd::recv(stream.as_fd(), buffer, &mut descriptors)?;
        received = Some(count);
        let is_all = SHORT_RECEIVE_IS_ALL && count < buffer.len() && descriptors.is_empty();
        // What the next call would say is known: the socket is waited for at once.
        if is_all { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    input.descriptors(descriptors);
    let count = match (received, read) {
        (Some(0), _) => return Err(io::ErrorKind::UnexpectedEof.into()),
        (Some(count), _) => count,
        (None, Err(error)) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return Ok(()),
            _ => return Err(error),
        },
        (None, Ok(())) => return Ok(()),
    };
    input.extend(buffer.get(..count).unwrap_or_default());
    while let Some(frame) = input.next_frame().map_err(io::Error::other)? {
        dispatch(frame, shared, arrivals).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Hands one frame to whom it concerns.
fn dispatch<O, I: DeserializeOwned>(
    frame: Frame,
    shared: &Arc<Shared<O, I>>,
    arrivals: &mpsc::UnboundedSender<Arrived<O, I>>,
) -> Result<(), FrameError> {
    match frame.kind {
        Kind::Credit => restore(shared, frame.number),
        Kind::Reply => {
            let waiter = shared.state().waiting.remove(&frame.number);
            // Not asked, or asked by somebody who has left: the credit comes back all the same,
            // but never more often than it went out.
            let Some(waiter) = waiter else { return Err(FrameError::Kind) };
            restore(shared, 1)?;
            let reply = if frame.payload.is_empty() {
                Err(LinkError::Refused)
            } else {
                Ok((frame.message()?, frame.descriptor))
            };
            // The one who asked may have given up.
            let _gone = waiter.send(reply);
            Ok(())
        }
        Kind::Notice | Kind::Request => {
            {
                let mut state = shared.state();
                if state.outstanding + state.owed >= shared.window {
                    return Err(FrameError::Credits);
                }
                state.outstanding += 1;
            }
            let request = (frame.kind == Kind::Request).then_some(frame.number);
            let responder = Responder { shared: Arc::clone(shared), request, answered: false };
            let message = frame.message()?;
            let arrived = Arrived { message, descriptor: frame.descriptor, responder };
            // Without a receiver, the request is refused by the drop.
            let _gone = arrivals.send(arrived);
            Ok(())
        }
    }
}

fn restore<O, I>(shared: &Shared<O, I>, count: u32) -> Result<(), FrameError> {
    let free = shared.credits.available_permits();
    if free + count as usize > shared.window as usize {
        return Err(FrameError::Credits);
    }
    shared.credits.add_permits(count as usize);
    Ok(())
}

#[cfg(test)]
mod tests;
