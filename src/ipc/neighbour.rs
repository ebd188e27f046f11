//! A channel to a role that may be replaced while this one runs.
//!
//! Requests go to the role that serves now. While there is none they wait a moment for its
//! successor; a request that was under way when the role ended fails, and is temporary.

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::link::{Link, LinkError, Reply};

/// How long a request waits for a role's successor.
const PATIENCE: Duration = Duration::from_secs(5);

/// A handle to whichever process plays a role now. Clones share it.
#[derive(Debug)]
pub struct Neighbour<O, I> {
    current: watch::Sender<Option<Link<O, I>>>,
}

impl<O, I> Clone for Neighbour<O, I> {
    fn clone(&self) -> Self {
        Self { current: self.current.clone() }
    }
}

impl<O, I> Default for Neighbour<O, I> {
    fn default() -> Self {
        Self { current: watch::Sender::new(None) }
    }
}

impl<O, I> Neighbour<O, I>
where
    O: Serialize + 'static,
    I: DeserializeOwned + Send + 'static,
{
    /// Puts `link` in place of the earlier one, whose requests fail.
    pub fn replace(&self, link: Link<O, I>) {
        if let Some(old) = self.current.send_replace(Some(link)) {
            old.close();
        }
    }

    /// The channel that serves now.
    #[must_use]
    pub fn current(&self) -> Option<Link<O, I>> {
        self.current.borrow().as_ref().filter(|link| !link.is_closed()).cloned()
    }

    /// Asks whoever plays the role.
    ///
    /// # Errors
    /// There is no reply; temporary.
    pub async fn request(
        &self,
        message: &O,
        descriptor: Option<OwnedFd>,
    ) -> Result<Reply<I>, LinkError> {
        self.link().await?.request(message, descriptor).await
    }

    /// Says something to whoever plays the role.
    ///
    /// # Errors
    /// It cannot be said now.
    pub async fn notice(&self, message: &O, descriptor: Option<OwnedFd>) -> Result<(), LinkError> {
        self.link().await?.notice(message, descriptor).await
    }

    /// The channel that serves now, or soon: for who must stay with one and the same process.
    ///
    /// # Errors
    /// Nobody plays the role.
    pub async fn link(&self) -> Result<Link<O, I>, LinkError> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let mut current = self.current.subscribe();
        let live = |link: &Option<Link<O, I>>| link.as_ref().is_some_and(|link| !link.is_closed());
        let found = tokio::time::timeout(PATIENCE, current.wait_for(live)).await;
        match found {
            Ok(Ok(link)) => link.clone().ok_or(LinkError::Closed),
            Ok(Err(_)) | Err(_) => Err(LinkError::Closed),
        }
    }
}
