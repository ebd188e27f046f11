//! Certificates of listeners, loaded and watched.
//!
//! Every few seconds the parent is asked whether a file is another than before, which costs it a
//! look at the directory. A certificate is used when *keys* has said that it holds its key; until
//! then the one before stays in use, and why is said once. So the two files of a renewal may be
//! written in any order. Authorities are watched too.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use tokio::time::{sleep, timeout};

use super::{Door, Surroundings, Tls};
use crate::config::Config;
use crate::ipc::message::keys::{DispatcherToKeys, KeysToDispatcher};
use crate::ipc::message::parent::{FileVersion, MapAnswer, ParentToRole, PkiFile, RoleToParent};
use crate::model::tls::KeyId;
use crate::process::ParentLink;
use crate::tls::client::authorities;
use crate::tls::{Chain, ServerOptions, Signatory, server_config};

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(5);
/// How often a *keys* that is out of reach is asked whether it is back.
const PROBE: Duration = Duration::from_secs(1);
/// How long *keys* may take to read a key.
const PATIENCE: Duration = Duration::from_secs(3);
/// Largest file of certificates, in bytes.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Loads certificates and watches them.
#[derive(Debug)]
pub(super) struct Watch {
    tls: Arc<Tls>,
    parent: ParentLink,
    config: Config,
    surroundings: Surroundings,
    entries: Vec<Entry>,
    authorities: Vec<AuthorityEntry>,
}

/// A `pki` statement that listeners use.
#[derive(Debug, Default)]
struct Entry {
    used: bool,
    /// The file that was read last.
    known: Option<FileVersion>,
    /// A certificate that waits for its key.
    waiting: Option<Arc<Chain>>,
    /// What was complained about last.
    problem: Option<String>,
}

/// A `ca` statement that listeners use.
#[derive(Debug, Default)]
struct AuthorityEntry {
    used: bool,
    known: Option<FileVersion>,
    roots: Option<Arc<RootCertStore>>,
    problem: Option<String>,
}

/// What the parent has for a file.
enum Found {
    Same,
    New(FileVersion, Vec<u8>),
}

impl Watch {
    pub(super) fn new(
        tls: Arc<Tls>,
        parent: ParentLink,
        config: Config,
        surroundings: Surroundings,
    ) -> Self {
        let doors: Vec<&Door> = tls.doors.iter().flatten().map(|door| &**door).collect();
        let used = |pki: usize| {
            doors.iter().any(|door| door.settings.pki.iter().any(|id| id.0 as usize == pki))
        };
        let entries =
            (0..config.pki.len()).map(|pki| Entry { used: used(pki), ..Entry::default() });
        let entries = entries.collect();
        let used = |index: usize| {
            doors.iter().any(|door| {
                let authority = door.settings.authority.map(|id| id.0 as usize);
                door.settings.verify && authority == Some(index)
            })
        };
        let authorities = (0..config.authorities.len())
            .map(|index| AuthorityEntry { used: used(index), ..AuthorityEntry::default() });
        let authorities = authorities.collect();
        Self { tls, parent, config, surroundings, entries, authorities }
    }

    /// Watches for as long as the role runs.
    pub(super) async fn run(mut self) {
        let tls = Arc::clone(&self.tls);
        tls.attached.notified().await;
        self.attach().await;
        for door in tls.doors.iter().flatten() {
            self.make_config(door);
        }
        self.look().await;
        tls.looked.send_replace(true);
        loop {
            let pause = if tls.signers.is_reachable() { PERIOD } else { PROBE };
            tokio::select! {
                () = sleep(pause) => self.look().await,
                () = tls.attached.notified() => {
                    self.attach().await;
                    self.look().await;
                }
                () = tls.signers.changed.notified() => self.tls.refresh(),
            }
        }
    }

    /// Has the *keys* that has come hold what is in use, and then sign. A certificate whose key is not
    /// to be had any more is not shown until it is.
    async fn attach(&mut self) {
        for pki in 0..self.entries.len() {
            let Some(certified) = self.tls.certified.get(pki).cloned() else { continue };
            let Some(key) = certified.chain().map(|chain| chain.key()) else { continue };
            let Err(problem) = self.hold(pki as u32, key).await else { continue };
            let withdrawn = certified.withdraw();
            self.complain(pki, &problem);
            if let Some(entry) = self.entries.get_mut(pki) {
                entry.waiting = entry.waiting.take().or(withdrawn);
            }
        }
        let mut ours = Vec::new();
        for _ in 0..self.surroundings.threads.max(1) {
            let Ok((near, far)) = platform::fd::socketpair() else { break };
            if self.tls.keys.notice(&DispatcherToKeys::Serve, Some(far)).await.is_err() {
                break;
            }
            ours.push(near);
        }
        self.tls.signers.replace(ours);
    }

    /// Looks at all files, and takes up what has changed.
    async fn look(&mut self) {
        for pki in 0..self.entries.len() {
            self.look_at_certificate(pki).await;
        }
        for index in 0..self.authorities.len() {
            if self.look_at_authority(index).await {
                // Nobody else's tickets lose their worth.
                let asks = |door: &&Arc<Door>| {
                    door.settings.authority.is_some_and(|id| id.0 as usize == index)
                };
                for door in self.tls.doors.iter().flatten().filter(asks) {
                    self.make_config(door);
                }
            }
        }
        if !self.tls.signers.is_reachable() && self.is_keys_back().await {
            // With new channels: those before may have ended one by one.
            self.attach().await;
        }
        self.tls.refresh();
    }

    async fn look_at_certificate(&mut self, pki: usize) {
        let Some(entry) = self.entries.get(pki).filter(|entry| entry.used) else { return };
        // An index into a list of the configuration.
        let index = pki as u32;
        let read = match self.read(PkiFile::Certificate(index), entry.known).await {
            Ok(Found::Same) => Ok(None),
            Ok(Found::New(version, text)) => match Chain::from_pem(&text) {
                Ok(chain) => Ok(Some((version, Some(Arc::new(chain))))),
                Err(error) => {
                    self.complain(pki, &error.to_string());
                    Ok(Some((version, None)))
                }
            },
            Err(problem) => Err(problem),
        };
        let Some(entry) = self.entries.get_mut(pki) else { return };
        match read {
            Ok(Some((version, chain))) => {
                entry.known = Some(version);
                entry.waiting = chain;
            }
            Ok(None) => {
                // What was wrong with the file is over: it is said again if it comes again.
                if entry.waiting.is_none() {
                    entry.problem = None;
                }
            }
            Err(problem) => return self.complain(pki, &problem),
        }
        let Some(key) = entry.waiting.as_ref().map(|chain| chain.key()) else { return };
        match self.hold(index, key).await {
            Ok(()) => self.take_up(pki),
            Err(problem) => self.complain(pki, &problem),
        }
    }

    /// Uses the certificate that has waited for its key.
    fn take_up(&mut self, pki: usize) {
        let name = self.name(pki);
        let (Some(entry), Some(certified)) =
            (self.entries.get_mut(pki), self.tls.certified.get(pki))
        else {
            return;
        };
        let Some(chain) = entry.waiting.take() else { return };
        entry.problem = None;
        if certified.chain().is_some() {
            tracing::info!("info: pki {name}: certificate renewed");
        }
        let signatory: Arc<dyn Signatory> = self.tls.signers.clone();
        certified.replace(chain, signatory);
    }

    /// Whether an authority is another than before.
    async fn look_at_authority(&mut self, index: usize) -> bool {
        let Some(entry) = self.authorities.get(index).filter(|entry| entry.used) else {
            return false;
        };
        let found = self.read(PkiFile::Authority(index as u32), entry.known).await;
        let Some(entry) = self.authorities.get_mut(index) else { return false };
        let problem = match found {
            Ok(Found::Same) => {
                entry.problem = None;
                return false;
            }
            Ok(Found::New(version, text)) => {
                entry.known = Some(version);
                match authorities(&text) {
                    Ok(roots) => {
                        entry.roots = Some(Arc::new(roots));
                        entry.problem = None;
                        return true;
                    }
                    Err(error) => error.to_string(),
                }
            }
            Err(problem) => problem,
        };
        if entry.problem.as_ref() != Some(&problem) {
            let name = self.config.authorities.get(index).map_or("", |authority| &authority.name);
            tracing::warn!("warn: ca {name}: {problem}");
            entry.problem = Some(problem);
        }
        false
    }

    /// Makes the configuration of a listener. One whose authorities are not known stays without.
    fn make_config(&self, door: &Door) {
        let settings = &door.settings;
        let verify = match (settings.verify, settings.authority) {
            (false, _) => None,
            (true, None) => {
                let none = || Arc::new(RootCertStore::empty());
                Some(self.surroundings.system_roots.clone().unwrap_or_else(none))
            }
            (true, Some(id)) => {
                let entry = self.authorities.get(id.0 as usize);
                let Some(roots) = entry.and_then(|entry| entry.roots.clone()) else { return };
                Some(roots)
            }
        };
        let options = ServerOptions {
            ciphers: settings.ciphers.as_ref().or(self.config.smtp.ciphers.as_ref()),
            protocols: settings.protocols,
            verify,
        };
        match server_config(&options, Arc::clone(&door.resolver)) {
            Ok(config) => door.replace(Some(config)),
            Err(error) => {
                tracing::error!("warn: smtp: a listener goes on without TLS: {error}");
            }
        }
    }

    /// Whether *keys* answers when it is asked for what it holds anyway.
    async fn is_keys_back(&self) -> bool {
        let mut shown = (0..).zip(&self.tls.certified);
        let held = shown.find_map(|(pki, certified)| Some((pki, certified.chain()?.key())));
        let Some((pki, key)) = held else { return false };
        self.hold(pki, key).await.is_ok()
    }

    /// Has *keys* hold the key of an entry.
    async fn hold(&self, pki: u32, key: KeyId) -> Result<(), String> {
        let request = DispatcherToKeys::Hold { pki, key };
        match timeout(PATIENCE, self.tls.keys.request(&request, None)).await {
            Ok(Ok((KeysToDispatcher::Held { error: None }, _))) => Ok(()),
            Ok(Ok((KeysToDispatcher::Held { error: Some(error) }, _))) => Err(error),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("keys does not answer".to_owned()),
        }
    }

    /// What is in a file, unless it is the `known` one.
    async fn read(&self, file: PkiFile, known: Option<FileVersion>) -> Result<Found, String> {
        let request = RoleToParent::OpenPki { file, known };
        match self.parent.request(&request, None).await {
            Ok((ParentToRole::Pki(MapAnswer::Same), _)) => Ok(Found::Same),
            Ok((ParentToRole::Pki(MapAnswer::Opened(version)), Some(descriptor))) => {
                let text = content(descriptor).map_err(|error| error.to_string())?;
                Ok(Found::New(version, text))
            }
            Ok((ParentToRole::Pki(MapAnswer::Failed(problem)), _)) => Err(problem),
            Ok(_) => Err("the parent did not answer the question".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Says what is wrong with a certificate or its key, once.
    fn complain(&mut self, pki: usize, problem: &str) {
        let name = self.name(pki);
        let Some(entry) = self.entries.get_mut(pki) else { return };
        if entry.problem.as_deref() == Some(problem) {
            return;
        }
        entry.problem = Some(problem.to_owned());
        let shown = self.tls.certified.get(pki).is_some_and(|shown| shown.chain().is_some());
        if shown {
            tracing::warn!("warn: pki {name}: {problem}: the certificate before stays in use");
        } else {
            tracing::warn!("warn: pki {name}: {problem}: no TLS with it");
        }
    }

    fn name(&self, pki: usize) -> String {
        self.config.pki.get(pki).map(|pki| pki.name.clone()).unwrap_or_default()
    }
}

fn content(descriptor: OwnedFd) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::from(descriptor).take(MAX_FILE).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::thread;

    use super::*;
    use crate::config::tests::good;
    use crate::dispatcher::tls::Configs;
    use crate::ipc::blocking::Channel;
    use crate::ipc::link::Link;
    use crate::ipc::message::keys::{Sign, Signed};
    use crate::tls::SignError;
    use crate::tls::fixture::{Authority, Kind, certificate};

    const CONFIG: &str = "pki x cert \"/cert\" key \"/key\"\nca c cert \"/cert\"\n\
                          listen on lo port 2525 smtps pki x\n\
                          listen on lo port 2526 smtps verify pki x ca c\nmatch reject\n";
    const CREDITS: u32 = 8;

    /// What the parent says to questions for files, one after the other, and then always `Same`.
    type Answers = Arc<Mutex<VecDeque<(MapAnswer, Option<OwnedFd>)>>>;

    fn parent(answers: Answers) -> ParentLink {
        let (near, far) = platform::fd::socketpair().unwrap();
        let (_, mut arrivals) = Link::<ParentToRole, RoleToParent>::open(far, CREDITS).unwrap();
        tokio::spawn(async move {
            while let Some(asked) = arrivals.recv().await {
                let next = answers.lock().unwrap().pop_front();
                let (answer, file) = next.unwrap_or((MapAnswer::Same, None));
                asked.responder.reply(&ParentToRole::Pki(answer), file).unwrap();
            }
        });
        ParentLink::open(near, CREDITS).unwrap().0
    }

    /// A *keys* that holds whatever it is asked to, and signs everything with `x`.
    fn keys() -> Link<DispatcherToKeys, KeysToDispatcher> {
        let (near, far) = platform::fd::socketpair().unwrap();
        let (_, mut arrivals) =
            Link::<KeysToDispatcher, DispatcherToKeys>::open(far, CREDITS).unwrap();
        tokio::spawn(async move {
            while let Some(asked) = arrivals.recv().await {
                match (asked.message, asked.descriptor) {
                    (DispatcherToKeys::Serve, Some(channel)) => {
                        thread::spawn(move || sign(channel));
                    }
                    _ => {
                        let held = KeysToDispatcher::Held { error: None };
                        asked.responder.reply(&held, None).unwrap();
                    }
                }
            }
        });
        Link::open(near, CREDITS).unwrap().0
    }

    fn sign(channel: OwnedFd) {
        let mut channel = Channel::<Signed, Sign>::new(channel).unwrap();
        while let Ok(received) = channel.receive() {
            let signed = Signed(Some(crate::ipc::blob::Blob(b"x".to_vec())));
            channel.reply(received.number, &signed, None).unwrap();
        }
    }

    fn watch(answers: &Answers) -> Watch {
        let config = good(CONFIG);
        let tls = Arc::new(Tls::new(&config));
        let made = certificate(Kind::P256, "mx.example.org");
        let chain = Arc::new(Chain::from_pem(made.certificate.as_bytes()).unwrap());
        tls.certified[0].replace(chain, tls.signers.clone());
        tls.keys.replace(keys());
        let surroundings = Surroundings { threads: 1, system_roots: None };
        Watch::new(tls, parent(Arc::clone(answers)), config, surroundings)
    }

    async fn signature(tls: &Arc<Tls>) -> Result<Vec<u8>, SignError> {
        let signers = Arc::clone(&tls.signers);
        let signing = move || signers.sign(KeyId([1; 32]), 1, b"message");
        tokio::task::spawn_blocking(signing).await.unwrap()
    }

    #[tokio::test]
    async fn channels_that_have_ended_are_replaced_when_keys_answers() {
        let mut watch = watch(&Answers::default());
        let tls = Arc::clone(&watch.tls);
        // There is not one.
        let missed = tokio::join!(signature(&tls), signature(&tls), signature(&tls));
        assert_eq!(missed.2, Err(SignError::Unreachable));
        assert!(!tls.signers.is_reachable());
        watch.look().await;
        assert!(tls.signers.is_reachable());
        assert_eq!(signature(&tls).await, Ok(b"x".to_vec()));
    }

    #[tokio::test]
    async fn a_renewed_authority_is_taken_up_by_the_listeners_that_ask_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca");
        std::fs::write(&path, Authority::new("clients").certificate).unwrap();
        let answers = Answers::default();
        let mut watch = watch(&answers);
        let tls = Arc::clone(&watch.tls);
        let full = |verify: bool| -> Vec<_> {
            let doors = tls.doors.iter().flatten().filter(|door| door.settings.verify == verify);
            doors.map(|door| door.configs().map(|Configs { full, .. }| full)).collect()
        };
        for door in tls.doors.iter().flatten() {
            watch.make_config(door);
        }
        let (plain, verifying) = (full(false), full(true));
        assert!(plain.iter().all(Option::is_some) && verifying.iter().all(Option::is_none));
        let mut before = Vec::new();
        for modified in 1..3 {
            let version = FileVersion { device: 1, inode: 1, length: 1, modified: (modified, 0) };
            let file = File::open(&path).unwrap().into();
            let opened = (MapAnswer::Opened(version), Some(file));
            answers.lock().unwrap().extend([(MapAnswer::Same, None), opened]);
            watch.look().await;
            for (door, known) in full(false).iter().flatten().zip(plain.iter().flatten()) {
                assert!(Arc::ptr_eq(door, known), "its tickets are worth nothing any more");
            }
            let now: Vec<_> = full(true).into_iter().flatten().collect();
            assert_eq!(now.len(), verifying.len());
            assert!(before.iter().zip(&now).all(|(old, new)| !Arc::ptr_eq(old, new)));
            before = now;
        }
    }

    #[tokio::test]
    async fn what_is_wrong_again_is_said_again() {
        let answers = Answers::default();
        let mut watch = watch(&answers);
        let gone = || (MapAnswer::Failed("/cert: gone".to_owned()), None);
        for (answer, problem) in
            [(gone(), true), (gone(), true), ((MapAnswer::Same, None), false), (gone(), true)]
        {
            answers.lock().unwrap().push_back(answer);
            watch.look().await;
            assert_eq!(watch.entries[0].problem.is_some(), problem);
        }
    }
}
