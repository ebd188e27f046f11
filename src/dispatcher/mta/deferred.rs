//! Envelopes to be tried again as soon as their destination takes mail.
//!
//! When every way to a destination failed, its envelopes would wait for their next attempt even if
//! the host comes back a minute later. Their ids are kept here; the first recipient that the
//! destination accepts brings them all back.
//!
//! Source: the queue page of the specification, 3.12.
//! Limits: `mta max-deferred` ids a destination, 20,000 destinations, four hours.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::model::EnvelopeId;

const DOMAINS: usize = 20_000;
const AGE: Duration = Duration::from_secs(4 * 3600);

/// Envelopes by destination domain, in lower case.
#[derive(Debug, Default)]
pub struct Deferred {
    domains: HashMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    envelopes: Vec<EnvelopeId>,
    updated: Instant,
}

impl Deferred {
    /// Remembers an envelope for `domain`, if there is room for it.
    pub fn remember(&mut self, domain: &str, envelope: EnvelopeId, most: usize, now: Instant) {
        if self.domains.len() >= DOMAINS {
            self.domains.retain(|_, entry| now.duration_since(entry.updated) < AGE);
        }
        let is_full = self.domains.len() >= DOMAINS;
        let entry = match self.domains.get_mut(domain) {
            Some(entry) => entry,
            None if is_full => return,
            None => self
                .domains
                .entry(domain.to_owned())
                .or_insert(Entry { envelopes: Vec::new(), updated: now }),
        };
        if now.duration_since(entry.updated) >= AGE {
            entry.envelopes.clear();
        }
        entry.updated = now;
        if entry.envelopes.len() < most && !entry.envelopes.contains(&envelope) {
            entry.envelopes.push(envelope);
        }
    }

    /// `domain` accepted a recipient: the envelopes to be tried now.
    pub fn accepted(&mut self, domain: &str, now: Instant) -> Vec<EnvelopeId> {
        match self.domains.remove(domain) {
            Some(entry) if now.duration_since(entry.updated) < AGE => entry.envelopes,
            _ => Vec::new(),
        }
    }

    /// Whether nothing is remembered at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Forgets an envelope that is being tried.
    pub fn tried(&mut self, domain: &str, envelope: EnvelopeId) {
        let Some(entry) = self.domains.get_mut(domain) else { return };
        entry.envelopes.retain(|id| *id != envelope);
        if entry.envelopes.is_empty() {
            self.domains.remove(domain);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(low: u64) -> EnvelopeId {
        EnvelopeId::new(0x1_0000_0000 + low).unwrap()
    }

    #[test]
    fn an_acceptance_brings_back_what_was_deferred_for_that_domain() {
        let (mut deferred, now) = (Deferred::default(), Instant::now());
        for low in [1, 2, 2, 3, 4] {
            deferred.remember("r.test", id(low), 3, now);
        }
        deferred.remember("other.test", id(9), 3, now);
        deferred.tried("r.test", id(2));
        assert_eq!(deferred.accepted("r.test", now), [id(1), id(3)]);
        assert_eq!(deferred.accepted("r.test", now), []);
        assert!(!deferred.is_empty());
        deferred.tried("other.test", id(9));
        assert!(deferred.is_empty());
    }

    #[test]
    fn what_is_older_than_four_hours_is_forgotten() {
        let (mut deferred, start) = (Deferred::default(), Instant::now());
        deferred.remember("r.test", id(1), 9, start);
        let late = start + AGE;
        deferred.remember("r.test", id(2), 9, late);
        assert_eq!(deferred.accepted("r.test", late), [id(2)]);
        deferred.remember("r.test", id(3), 9, start);
        assert_eq!(deferred.accepted("r.test", late), []);
    }

    #[test]
    fn the_number_of_destinations_is_bounded() {
        let (mut deferred, now) = (Deferred::default(), Instant::now());
        for number in 0..DOMAINS + 5 {
            deferred.remember(&format!("{number}.test"), id(1), 1, now);
        }
        assert_eq!(deferred.domains.len(), DOMAINS);
        deferred.remember("fresh.test", id(1), 1, now + AGE);
        assert_eq!(deferred.domains.len(), 1);
    }
}
