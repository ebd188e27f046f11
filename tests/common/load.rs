//! Clients that submit mail as fast as they can and remember what was acknowledged.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::peer::{Peer, message};

/// Clients at work, until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    count: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients that send to `recipient`. Each opens a new session whenever its
    /// session ends or a command is refused.
    pub fn start(address: SocketAddr, clients: usize, recipient: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(Mutex::new(BTreeSet::new()));
        let count = Arc::new(AtomicUsize::new(0));
        let clients = (0..clients)
            .map(|client| {
                let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
                let acknowledged = Arc::clone(&acknowledged);
                thread::spawn(move || {
                    let mut turn = 0_usize;
                    while !stop.load(Ordering::Acquire) {
                        // The server is being harmed: a failed session is tried again.
                        let Ok(mut peer) = Peer::greeted(address) else {
                            thread::sleep(Duration::from_millis(2));
                            continue;
                        };
                        while !stop.load(Ordering::Acquire) {
                            turn += 1;
                            let id = format!("load-{client}-{turn}");
                            let sender = "load@client.example";
                            match peer.submit(sender, &[recipient], &message(&id)) {
                                Ok(reply) if reply.code == 250 => {
                                    let id = format!("<{id}@client.example>");
                                    let mut known =
                                        acknowledged.lock().unwrap_or_else(PoisonError::into_inner);
                                    known.insert(id);
                                    count.fetch_add(1, Ordering::AcqRel);
                                }
                                // 421 ends the session; others leave a transaction behind.
                                Ok(_) | Err(_) => break,
                            }
                        }
                    }
                })
            })
            .collect();
        Self { stop, acknowledged, count, clients }
    }

    /// How many messages were acknowledged.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Ends the clients; the Message-IDs of what was acknowledged.
    pub fn finish(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Release);
        for client in self.clients {
            client.join().unwrap();
        }
        std::mem::take(&mut *self.acknowledged.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
