//! What outgoing mail asks: over the channel to the lookup role.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::filters::link::{Ends, FilterLink};
use super::mta::{Answer, Directory, NoEntry};
use super::shared::Shared;
use crate::config::FilterId;
use crate::filter::Direction;
use crate::ipc::message::lookup::{DispatcherToLookup, ListPurpose, LookupToDispatcher};
use crate::model::dns::{DnsFailure, Exchange, Reverse};

/// Answers from the lookup role.
#[derive(Debug)]
pub struct LookupDirectory {
    shared: Arc<Shared>,
    /// Counts look-ups in lists, so that their entries take turns.
    turn: AtomicUsize,
}

impl LookupDirectory {
    /// Asks whoever is the lookup role.
    #[must_use]
    pub fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), turn: AtomicUsize::new(0) }
    }

    async fn exchanges(&self, request: DispatcherToLookup) -> Result<Vec<Exchange>, DnsFailure> {
        match self.shared.lookup.request(&request, None).await {
            Ok((LookupToDispatcher::Exchanges(answer), _)) => answer,
            Ok(_) | Err(_) => Err(DnsFailure::Temporary),
        }
    }

    async fn value(&self, request: DispatcherToLookup) -> Result<String, NoEntry> {
        match self.shared.lookup.request(&request, None).await {
            Ok((LookupToDispatcher::Value(Some(value)), _)) => Ok(value),
            Ok(_) | Err(_) => Err(NoEntry),
        }
    }

    async fn next_of(&self, table: &str, purpose: ListPurpose) -> Result<String, NoEntry> {
        let request = DispatcherToLookup::List { table: table.to_owned(), purpose };
        let list = match self.shared.lookup.request(&request, None).await {
            Ok((LookupToDispatcher::List(Some(list)), _)) => list,
            Ok(_) | Err(_) => return Err(NoEntry),
        };
        if list.is_empty() {
            return Err(NoEntry);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % list.len();
        list.into_iter().nth(turn).ok_or(NoEntry)
    }
}

impl Directory for LookupDirectory {
    fn mx<'a>(&'a self, domain: &'a str) -> Answer<'a, Result<Vec<Exchange>, DnsFailure>> {
        let request = DispatcherToLookup::Exchanges { domain: domain.to_owned() };
        Box::pin(self.exchanges(request))
    }

    fn host<'a>(&'a self, name: &'a str) -> Answer<'a, Result<Exchange, DnsFailure>> {
        let request = DispatcherToLookup::Host { name: name.to_owned() };
        Box::pin(async move {
            let mut exchanges = self.exchanges(request).await?;
            exchanges.pop().ok_or(DnsFailure::HostNotFound)
        })
    }

    fn reverse(&self, address: IpAddr) -> Answer<'_, Reverse> {
        Box::pin(self.shared.name_of(address))
    }

    fn smart_host<'a>(
        &'a self,
        table: &'a str,
        domain: Option<&'a str>,
    ) -> Answer<'a, Result<String, NoEntry>> {
        let Some(domain) = domain else {
            return Box::pin(self.next_of(table, ListPurpose::RelayHost));
        };
        let (table, domain) = (table.to_owned(), domain.to_owned());
        Box::pin(self.value(DispatcherToLookup::RelayHost { table, domain }))
    }

    fn source<'a>(&'a self, table: &'a str) -> Answer<'a, Result<IpAddr, NoEntry>> {
        Box::pin(async move {
            let text = self.next_of(table, ListPurpose::Source).await?;
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            bare.parse().map_err(|_| NoEntry)
        })
    }

    fn helo<'a>(&'a self, table: &'a str, source: IpAddr) -> Answer<'a, Result<String, NoEntry>> {
        let request = DispatcherToLookup::AddressName { table: table.to_owned(), address: source };
        Box::pin(self.value(request))
    }

    fn filters(&self, session: u64, filter: FilterId, ends: Ends) -> Option<FilterLink> {
        Some(FilterLink::new(self.shared.filters.clone(), session, filter, Direction::Out, ends))
    }
}
