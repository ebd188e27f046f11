//! Reading a Maildir as another program would.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::wait::wait_for;

/// A Maildir that the server delivers to.
#[derive(Clone, Debug)]
pub struct Maildir {
    path: PathBuf,
}

impl Maildir {
    /// The Maildir at `path`, which need not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Every delivered message, in no order.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        for name in ["new", "cur"] {
            // Not there until the first delivery.
            let Ok(entries) = fs::read_dir(self.path.join(name)) else { continue };
            for entry in entries {
                messages.push(fs::read(entry.unwrap().path()).unwrap());
            }
        }
        messages
    }

    /// How many messages were delivered.
    pub fn count(&self) -> usize {
        ["new", "cur"]
            .iter()
            .filter_map(|name| fs::read_dir(self.path.join(name)).ok())
            .map(Iterator::count)
            .sum()
    }

    /// Every delivered message as text.
    pub fn texts(&self) -> Vec<String> {
        let lossy = |message: Vec<u8>| String::from_utf8_lossy(&message).into_owned();
        self.messages().into_iter().map(lossy).collect()
    }

    /// The Message-ID of every delivered message, sorted.
    pub fn ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self
            .texts()
            .iter()
            .map(|text| header(text, "Message-ID").expect("every message has a Message-ID"))
            .collect();
        ids.sort();
        ids
    }

    /// Waits for `count` messages or more.
    pub fn wait_for(&self, count: usize, limit: Duration) -> Vec<String> {
        let what = format!("{count} messages in {}", self.path.display());
        wait_for(&what, limit, || (self.count() >= count).then_some(()));
        self.texts()
    }
}

/// The value of the first header of this name, unfolded.
pub fn header(message: &str, name: &str) -> Option<String> {
    let head = message.split("\n\n").next()?;
    let unfolded = head.replace("\n\t", " ").replace("\n ", " ");
    unfolded.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}
