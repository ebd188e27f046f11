//! How mail comes to its relay.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Mta, Post};
use crate::dispatcher::mta::RelayJob;
use crate::dispatcher::mta::action::{RelayAction, RelayKey, Target};
use crate::dispatcher::mta::directory::{Event, NoEntry};
use crate::dispatcher::mta::relay::Pushed;
use crate::table::relay_url::RelayUrl;

impl Mta {
    /// Takes envelopes. Those of one message should come in one call, so that they share a
    /// transaction. Each is answered by [`Event::Held`] or [`Event::Settled`], perhaps before
    /// this returns. Must be called inside a tokio runtime.
    pub fn submit(&self, jobs: Vec<RelayJob>) {
        let settings = self.settings();
        let mut batch = Batch { mta: self, posts: Vec::new() };
        for job in jobs {
            let Some(action) = settings.actions.get(&job.envelope.route.action) else {
                let text = format!("Action {} is not configured", job.envelope.route.action);
                self.defer_unsent(&job.envelope, None, &text);
                continue;
            };
            match &action.target {
                Target::Backup(_) | Target::Exchanges => {
                    let domain = job.envelope.route.destination.domain();
                    let greeting = &job.envelope.origin.smtp_name;
                    let key = RelayKey::exchanges(domain, greeting, Arc::clone(action));
                    batch.add(&key, job);
                }
                Target::Host(url) => match self.smart_host(url, action) {
                    Ok(key) => batch.add(&key, job),
                    Err(text) => self.defer_unsent(&job.envelope, None, text),
                },
                Target::DomainTable(_) | Target::HostTable(_) => {
                    let (mta, action) = (self.clone(), Arc::clone(action));
                    tokio::spawn(async move { mta.submit_by_table(job, action).await });
                }
            }
        }
        batch.finish();
    }

    /// Submits a job whose smart host is found in a table.
    async fn submit_by_table(&self, job: RelayJob, action: Arc<RelayAction>) {
        let domain = job.envelope.route.destination.domain().to_ascii_lowercase();
        // In a task of its own, so that a panic defers the envelope instead of losing sight of it.
        let look_up = tokio::spawn({
            let (mta, action) = (self.clone(), Arc::clone(&action));
            async move {
                match &action.target {
                    Target::DomainTable(table) => {
                        mta.directory().smart_host(table, Some(&domain)).await
                    }
                    Target::HostTable(table) => mta.directory().smart_host(table, None).await,
                    Target::Host(url) => Ok(url.clone()),
                    Target::Backup(_) | Target::Exchanges => Err(NoEntry),
                }
            }
        });
        let Ok(Ok(url)) = look_up.await else {
            let id = job.envelope.id;
            tracing::warn!("warn: Failed to retrieve smarthost for envelope {id}");
            return self.defer_unsent(&job.envelope, None, "Cannot retrieve smarthost");
        };
        let mut batch = Batch { mta: self, posts: Vec::new() };
        match self.smart_host(&url, &action) {
            Ok(key) => batch.add(&key, job),
            Err(text) => self.defer_unsent(&job.envelope, None, text),
        }
        batch.finish();
    }

    /// The relay for a smart host; else the text that defers the envelope.
    fn smart_host(&self, url: &str, action: &Arc<RelayAction>) -> Result<RelayKey, &'static str> {
        let Ok(parsed) = RelayUrl::parse(url) else {
            tracing::warn!("warn: Failed to parse smarthost {url}");
            return Err("Cannot parse smarthost");
        };
        if parsed.label.is_some() {
            tracing::warn!("warn: No auth table on action \"{}\" for relay {url}", action.name);
            return Err("No auth table for relaying");
        }
        if parsed.scheme.demands_tls() {
            tracing::warn!(
                "warn: TLS is not supported yet, so nothing is sent to {url}: \
                 smtp+notls:// sends in clear text"
            );
            return Err("TLS is not supported yet");
        }
        Ok(RelayKey::smart_host(&parsed, Arc::clone(action)))
    }
}

/// Jobs brought together: relays are asked what they want only when all have come.
struct Batch<'a> {
    mta: &'a Mta,
    posts: Vec<Arc<Post>>,
}

impl Batch<'_> {
    fn add(&mut self, key: &RelayKey, job: RelayJob) {
        let mta = self.mta;
        if mta.shared.has_deferred.load(Ordering::Relaxed) {
            mta.state().deferred.tried(&key.domain, job.envelope.id);
        }
        let id = job.envelope.id;
        let mut post = mta.post(key);
        let (pushed, number) = loop {
            let mut relay = post.lock();
            if !post.is_gone() {
                break (relay.push(job), relay.id);
            }
            // The relay was over and has left the table: there will be a new one.
            drop(relay);
            post = mta.post(key);
        };
        if let Pushed::Held { begins } = pushed {
            if begins {
                tracing::info!("smtp-out: hiwat reached on {key}: holding envelopes");
            }
            mta.tell(Event::Held { envelope: id, relay: number });
        }
        if !self.posts.iter().any(|known| Arc::ptr_eq(known, &post)) {
            self.posts.push(post);
        }
    }

    fn finish(self) {
        for post in self.posts {
            let wakes = {
                let relay = post.lock();
                relay.waiting().min(relay.idle_sessions())
            };
            for _ in 0..wakes {
                post.work.notify_one();
            }
            self.mta.advance(&post);
        }
    }
}
