//! What the configuration says about outgoing mail, in the terms of [`super::mta`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::mta::{Family, LimitTable, Limits, RelayAction, SenderRewrite, Settings, Target};
use crate::config::{self, ActionKind, Limit, MtaLimits, TableId, TableSource};
use crate::ipc::message::parent::Setup;

/// What the configuration says about outgoing mail, as [`super::mta`] wants it.
#[must_use]
pub fn settings_of(setup: &Setup) -> Settings {
    let config = &setup.config;
    let table_name =
        |id: TableId| config.table(id).map(|table| table.name.clone()).unwrap_or_default();
    let mut actions = HashMap::new();
    for action in &config.actions {
        let ActionKind::Relay(relay) = &action.kind else { continue };
        let target = match (&relay.backup, relay.domain, relay.host) {
            (Some(backup), _, _) => Target::Backup(backup.name.clone()),
            (None, Some(id), _) => Target::DomainTable(table_name(id)),
            (None, None, Some(id)) => match single_entry(config, id) {
                Some(url) => Target::Host(url),
                None => Target::HostTable(table_name(id)),
            },
            (None, None, None) => Target::Exchanges,
        };
        let relay = RelayAction {
            name: action.name.clone(),
            target,
            source: relay.source.map(table_name),
            helo: relay.helo.clone(),
            helo_source: relay.helo_source.map(table_name),
            mail_from: sender_rewrite(relay),
            filter: relay.filter,
        };
        actions.insert(action.name.clone(), Arc::new(relay));
    }
    Settings {
        server_name: setup.server_name.clone(),
        actions,
        limits: limits_of(&config.mta),
        max_deferred: config.mta.max_deferred.get().map_or(usize::MAX, |most| most as usize),
    }
}

/// `mail-from` of an action.
pub(super) fn sender_rewrite(relay: &config::RelayAction) -> Option<SenderRewrite> {
    let rewrite = relay.mail_from.as_ref()?;
    Some(SenderRewrite { local: rewrite.local.clone(), domain: rewrite.domain.clone() })
}

/// The one entry of a table that is written in the configuration: no look-up is needed for it.
fn single_entry(config: &config::Config, id: TableId) -> Option<String> {
    match &config.table(id)?.source {
        TableSource::Inline(entries) => match entries.as_slice() {
            [entry] => Some(entry.key.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn limits_of(mta: &config::Mta) -> LimitTable {
    LimitTable {
        default: limits(&mta.limits),
        domains: mta.domains.iter().map(|(domain, one)| (domain.clone(), limits(one))).collect(),
    }
}

fn limits(configured: &MtaLimits) -> Limits {
    let count = |limit: Limit| limit.get().map_or(usize::MAX, |most| most as usize);
    // A delay as it is without being written leaves the choice to the kind of relay.
    let usual = MtaLimits::default();
    let written = |delay: Duration, usual: Duration| (delay != usual).then_some(delay);
    Limits {
        family: configured.family.map(|family| match family {
            config::Family::Inet4 => Family::Inet4,
            config::Family::Inet6 => Family::Inet6,
        }),
        max_conn_per_host: count(configured.max_connections_per_host),
        max_conn_per_route: count(configured.max_connections_per_route),
        max_conn_per_source: count(configured.max_connections_per_source),
        max_conn_per_connector: count(configured.max_connections_per_connector),
        max_conn_per_relay: count(configured.max_connections_per_relay),
        max_conn_per_domain: count(configured.max_connections_per_domain),
        conn_delay_host: configured.connection_delay_host,
        conn_delay_route: written(configured.connection_delay_route, usual.connection_delay_route),
        conn_delay_source: configured.connection_delay_source,
        conn_delay_connector: configured.connection_delay_connector,
        conn_delay_relay: written(configured.connection_delay_relay, usual.connection_delay_relay),
        conn_delay_domain: configured.connection_delay_domain,
        reconn_delay_route: written(
            configured.reconnection_delay_route,
            usual.reconnection_delay_route,
        ),
        session_mail_max: count(configured.session_mail_max),
        session_transaction_delay: configured.session_transaction_delay,
        session_keepalive: configured.session_keepalive,
        max_failures_per_session: configured
            .max_failures_per_session
            .get()
            .map_or(0, |most| most as usize),
        task_hiwat: count(configured.tasks.high),
        task_lowat: count(configured.tasks.low),
        task_release: count(configured.tasks.release),
    }
}
