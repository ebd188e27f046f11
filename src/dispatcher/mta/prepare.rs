//! The look-ups of a relay before its first connection: addresses, own addresses, names.

use std::net::IpAddr;
use std::sync::Arc;

use super::action::{RelayAction, RelayKey};
use super::network::AddressText;
use super::relay::{Address, Prepared, RelayFailure, Sender};
use super::session::{Class, Verdict};
use super::shell::{Mta, Post, now};
use crate::model::dns::{DnsFailure, Exchange};

/// Own addresses that a table may give; a table gives one at a time, in rotation.
const SOURCES: usize = 64;

/// Does the look-ups of a relay, then lets it go on or settles what waits for it.
pub(super) async fn run(mta: Mta, post: Arc<Post>) {
    let key = post.lock().key.clone();
    // In a task of its own, so that a panic defers what waits instead of leaving it here for ever.
    let look_up = tokio::spawn({
        let (mta, key) = (mta.clone(), key);
        async move { prepared(&mta, &key).await }
    });
    let failed = |_| Err(Verdict::temporary(&DnsFailure::Temporary.to_string()));
    match look_up.await.unwrap_or_else(failed) {
        Ok(prepared) => {
            post.lock().prepared(prepared, now());
            mta.advance(&post);
        }
        Err(verdict) => {
            post.lock().preparation_failed();
            mta.settle_waiting(&post, &verdict, false);
        }
    }
}

async fn prepared(mta: &Mta, key: &RelayKey) -> Result<Prepared, Verdict> {
    let exchanges = match exchanges(mta, key).await {
        Ok(exchanges) => exchanges,
        Err(failure) => {
            tracing::info!("smtp-out: Failed to resolve MX for {key}: {failure}");
            return Err(verdict(failure));
        }
    };
    let senders = senders(mta, key).await?;
    let below = key.backup.as_deref().and_then(|name| {
        let own = own_preference(&exchanges, name);
        if own.is_none() {
            // 4: the reference's number for a name that is not there, which log readers know.
            tracing::warn!("warn: Couldn't find backup preference for {key}: error 4");
        }
        own
    });
    let addresses = exchanges
        .iter()
        .flat_map(|exchange| {
            let preference = exchange.preference;
            exchange.addresses.iter().map(move |&ip| Address { preference, ip })
        })
        .collect();
    Ok(Prepared { addresses, below, senders })
}

async fn exchanges(mta: &Mta, key: &RelayKey) -> Result<Vec<Exchange>, DnsFailure> {
    let mut exchanges = if key.is_host {
        vec![mta.directory().host(&key.domain).await?]
    } else {
        mta.directory().mx(&key.domain).await?
    };
    exchanges.sort_by_key(|exchange| exchange.preference);
    Ok(exchanges)
}

fn verdict(failure: DnsFailure) -> Verdict {
    let class =
        if failure.is_permanent() { Class::PermFail } else { Class::TempFail { not_tried: false } };
    Verdict { class, text: failure.to_string() }
}

/// The best preference that `name` has; `None` if it is no exchange of the domain.
fn own_preference(exchanges: &[Exchange], name: &str) -> Option<u16> {
    exchanges
        .iter()
        .filter(|exchange| exchange.host.eq_ignore_ascii_case(name))
        .map(|exchange| exchange.preference)
        .min()
}

/// Our own addresses for the relay, with the name that each gives.
async fn senders(mta: &Mta, key: &RelayKey) -> Result<Vec<Sender>, Verdict> {
    let action = &key.action;
    let Some(table) = &action.source else {
        let helo = action.helo.clone().unwrap_or_else(|| mta.settings().server_name.clone());
        return Ok(vec![Sender { source: None, helo: Some(helo) }]);
    };
    let mut sources = Vec::new();
    {
        let _reading = mta.rotations().of(table).await;
        while sources.len() < SOURCES {
            let Ok(source) = mta.directory().source(table).await else { break };
            if sources.contains(&source) {
                break;
            }
            sources.push(source);
        }
    }
    let mut senders = Vec::with_capacity(sources.len());
    for source in sources {
        senders.push(Sender { source: Some(source), helo: helo(mta, action, source).await });
    }
    if senders.is_empty() {
        tracing::warn!("warn: Failed to get source address for {key}");
        return Err(Verdict::temporary(&RelayFailure::SourceTable.to_string()));
    }
    Ok(senders)
}

/// What to call ourselves at an own address; `None` if there is no usable name.
async fn helo(mta: &Mta, action: &RelayAction, source: IpAddr) -> Option<String> {
    let Some(table) = &action.helo_source else {
        return Some(action.helo.clone().unwrap_or_else(|| mta.settings().server_name.clone()));
    };
    let name = mta.directory().helo(table, source).await.ok();
    let name = name.filter(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()));
    if name.is_none() {
        tracing::warn!("warn: Failed to retrieve helo string for {}", AddressText(source));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    // queue case 100
    #[test]
    fn our_own_preference_is_found_by_name() {
        let exchange = |preference, host: &str| Exchange {
            preference,
            host: host.into(),
            addresses: vec!["192.0.2.1".parse().unwrap()],
        };
        let exchanges = [exchange(10, "a.test"), exchange(20, "US.test"), exchange(30, "us.test")];
        assert_eq!(own_preference(&exchanges, "us.TEST"), Some(20));
        assert_eq!(own_preference(&exchanges, "b.test"), None);
    }
}
