//! Relays under a clock that the tests move.

use std::sync::Arc;

use super::*;
use crate::dispatcher::mta::action::{RelayAction, SenderRewrite, Target};
use crate::dispatcher::mta::body::Body;
use crate::dispatcher::mta::fixture::envelope;
use crate::dispatcher::mta::limits::Family;
use crate::model::envelope::Smtputf8;
use crate::model::{Envelope, EnvelopeId, ReversePath};
use crate::table::relay_url::RelayUrl;

fn action(target: Target) -> Arc<RelayAction> {
    Arc::new(RelayAction {
        name: "out".into(),
        target,
        source: None,
        helo: None,
        helo_source: None,
        mail_from: None,
        filter: None,
    })
}

fn exchanges_key() -> RelayKey {
    RelayKey::exchanges("r.test", "mx.test", action(Target::Exchanges))
}

fn host_key() -> RelayKey {
    let url = RelayUrl::parse("smtp://relay.test:2525").unwrap();
    RelayKey::smart_host(&url, action(Target::Host("smtp://relay.test:2525".into())))
}

fn job(envelope: Envelope) -> RelayJob {
    RelayJob { envelope, sender: None, body: Body::Memory(Arc::from(&b"x\n"[..])) }
}

/// A relay, its network and a clock.
struct World {
    relay: Relay,
    network: Network,
    start: Instant,
    seconds: u64,
    messages: u64,
}

impl World {
    fn new(key: RelayKey, limits: &Limits) -> Self {
        Self {
            relay: Relay::new(key, 7, limits),
            network: Network::default(),
            start: Instant::now(),
            seconds: 0,
            messages: 0,
        }
    }

    /// A relay whose exchanges are `preference address` pairs, with one message waiting.
    fn ready(key: RelayKey, limits: &Limits, addresses: &[(u16, &str)]) -> Self {
        let mut world = Self::new(key, limits);
        world.bring(1);
        assert_eq!(world.step(), Step::Prepare);
        world.prepare(addresses, None, &[None]);
        world
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    fn prepare(&mut self, addresses: &[(u16, &str)], below: Option<u16>, from: &[Option<&str>]) {
        let addresses = addresses
            .iter()
            .map(|(preference, ip)| Address { preference: *preference, ip: ip.parse().unwrap() })
            .collect();
        let senders = from
            .iter()
            .map(|source| Sender {
                source: source.map(|text| text.parse().unwrap()),
                helo: Some("mx.test".into()),
            })
            .collect();
        let now = self.now();
        self.relay.prepared(Prepared { addresses, below, senders }, now);
    }

    /// Brings that many messages; the last result.
    fn bring(&mut self, count: u64) -> Option<Pushed> {
        let mut last = None;
        for _ in 0..count {
            self.messages += 1;
            let mut envelope = envelope(1, "a@r.test");
            envelope.id = EnvelopeId::new((self.messages << 32) + 1).unwrap();
            last = Some(self.relay.push(job(envelope)));
        }
        last
    }

    fn step(&mut self) -> Step {
        let now = self.now();
        self.network.enable_due(now);
        self.relay.next_step(&mut self.network, now)
    }

    /// The address that the relay connects to now.
    fn connects_to(&mut self) -> Option<(String, Plan)> {
        match self.step() {
            Step::Connect(plan) => Some((plan.route.remote.to_string(), plan)),
            _ => None,
        }
    }

    /// Seconds from the start at which the relay wants to be asked again.
    fn waits_until(&mut self) -> Option<u64> {
        match self.step() {
            Step::Wait(at) => Some(at.duration_since(self.start).as_secs()),
            _ => None,
        }
    }

    fn session_fails(&mut self, plan: &Plan) {
        let now = self.now();
        self.relay.session_ended(plan, &mut self.network, now);
        self.network.disable(plan.route, now);
    }
}

// queue case 57
#[test]
fn envelopes_of_one_message_that_wait_together_are_one_task() {
    let mut world = World::new(host_key(), &Limits::default());
    for (low, recipient) in [(1, "a@r.test"), (2, "b@r.test")] {
        assert_eq!(world.relay.push(job(envelope(low, recipient))), Pushed::Waits);
    }
    let mut other = envelope(1, "c@r.test");
    other.id = EnvelopeId::new(0x2_0000_0001).unwrap();
    world.relay.push(job(other));
    assert_eq!(world.relay.waiting(), 2);
    let (task, event) = world.relay.take().unwrap();
    assert_eq!((task.envelopes.len(), event), (2, None));
    assert_eq!(world.relay.take().unwrap().0.envelopes.len(), 1);
    assert!(world.relay.take().is_none());
}

#[test]
fn a_task_has_the_sender_that_the_action_gives() {
    let rewrite = SenderRewrite { local: None, domain: Some("rewritten.test".into()) };
    let mut key = host_key();
    Arc::make_mut(&mut key.action).mail_from = Some(rewrite);
    let mut world = World::new(key, &Limits::default());
    world.relay.push(job(envelope(1, "a@r.test")));
    assert_eq!(world.relay.take().unwrap().0.sender.as_str(), "sender@rewritten.test");
    let mut bounce = envelope(1, "a@r.test");
    bounce.origin.sender = ReversePath::NULL;
    world.relay.push(job(bounce));
    assert!(world.relay.take().unwrap().0.sender.is_null());
}

#[test]
fn a_task_needs_smtputf8_for_what_is_announced_and_for_headers() {
    let rewritten = |domain: &str, envelope: Envelope| {
        let mut key = host_key();
        Arc::make_mut(&mut key.action).mail_from =
            Some(SenderRewrite { local: None, domain: Some(domain.into()) });
        let mut world = World::new(key, &Limits::default());
        world.relay.push(job(envelope));
        world.relay.take().unwrap().0.smtputf8
    };
    let handed_in = |smtputf8, recipient: &str| {
        let mut envelope = envelope(1, recipient);
        envelope.origin.smtputf8 = smtputf8;
        envelope
    };
    let cases = [
        ("r.test", Smtputf8::Absent, "a@r.test", false),
        ("r.test", Smtputf8::Addresses, "a@r.test", false),
        ("r.test", Smtputf8::Addresses, "ü@r.test", true),
        ("r.test", Smtputf8::Headers, "a@r.test", true),
        ("ü.test", Smtputf8::Addresses, "a@r.test", true),
        // The client has no part in this address, and the server has to take it all the same.
        ("ü.test", Smtputf8::Absent, "a@r.test", true),
    ];
    for (domain, smtputf8, recipient, expected) in cases {
        let envelope = handed_in(smtputf8, recipient);
        assert_eq!(rewritten(domain, envelope), expected, "{domain} {smtputf8:?} {recipient}");
    }
}

// queue cases 47 and 48
#[test]
fn beyond_hiwat_envelopes_are_held_and_come_back_step_by_step() {
    let mut world = World::new(host_key(), &Limits::default());
    assert_eq!(world.bring(50), Some(Pushed::Waits));
    assert_eq!(world.bring(1), Some(Pushed::Held { begins: true }));
    assert_eq!(world.bring(1), Some(Pushed::Held { begins: false }));
    assert!(world.relay.is_on_hold());
    let released: Vec<(usize, Release)> = (0..50)
        .filter_map(|_| {
            let (_, event) = world.relay.take()?;
            match event? {
                Event::Released { relay: 7, release } => Some((world.relay.waiting(), release)),
                other => panic!("{other:?}"),
            }
        })
        .collect();
    assert_eq!(released, [(30, Release::Count(10)), (0, Release::All)]);
    assert!(!world.relay.is_on_hold());
    assert_eq!(world.bring(1), Some(Pushed::Waits));
}

#[test]
fn when_a_relay_fails_its_hold_queue_is_scheduled_anew() {
    let mut world = World::new(host_key(), &Limits::default());
    world.bring(52);
    let (tasks, event) = world.relay.drain();
    assert_eq!(tasks.len(), 50);
    assert_eq!(event, Some(Event::Released { relay: 7, release: Release::Reschedule }));
    assert!(world.relay.is_over());
}

#[test]
fn look_ups_come_before_the_first_connection_and_again_after_a_while() {
    let mut world = World::new(host_key(), &Limits::default());
    assert_eq!(world.step(), Step::Idle);
    world.bring(1);
    assert_eq!(world.step(), Step::Prepare);
    assert_eq!(world.step(), Step::Idle, "they are running");
    assert!(!world.relay.is_over());
    world.prepare(&[(0, "192.0.2.1")], None, &[None]);
    let (_, plan) = world.connects_to().unwrap();
    world.network.prove(plan.route);
    world.bring(5);
    world.seconds = 300;
    assert_eq!(world.step(), Step::Prepare);
    assert!(world.connects_to().is_some(), "the old addresses serve meanwhile");
    world.prepare(&[(0, "192.0.2.2")], None, &[None]);
    assert_eq!(world.connects_to().unwrap().0, "192.0.2.2:2525");
}

// queue case 97
#[test]
fn a_worse_exchange_is_used_when_the_better_ones_are_disabled() {
    let exchanges = [(10, "192.0.2.1"), (20, "192.0.2.2")];
    let mut world = World::ready(exchanges_key(), &Limits::default(), &exchanges);
    let (address, plan) = world.connects_to().unwrap();
    assert_eq!(address, "192.0.2.1:25");
    world.session_fails(&plan);
    // conn-delay-relay
    assert_eq!(world.waits_until(), Some(2));
    world.seconds = 2;
    assert_eq!(world.connects_to().unwrap().0, "192.0.2.2:25");
}

// queue case 98
#[test]
fn a_worse_exchange_is_not_used_while_a_better_one_is_only_busy() {
    let exchanges = [(10, "192.0.2.1"), (20, "192.0.2.2")];
    let limits = Limits { max_conn_per_host: 1, ..Limits::default() };
    let mut world = World::ready(exchanges_key(), &limits, &exchanges);
    let (_, plan) = world.connects_to().unwrap();
    world.network.prove(plan.route);
    world.bring(10);
    world.seconds = 60;
    assert_eq!(world.waits_until(), Some(65));
}

// queue case 65: all routes disabled
#[test]
fn a_relay_without_a_usable_route_fails_at_once() {
    let exchanges = [(10, "192.0.2.1"), (10, "192.0.2.2")];
    let mut world = World::ready(host_key(), &Limits::default(), &exchanges);
    for expected in ["192.0.2.1:2525", "192.0.2.2:2525"] {
        let (address, plan) = world.connects_to().unwrap();
        assert_eq!(address, expected);
        world.session_fails(&plan);
    }
    assert_eq!(world.step(), Step::Fail(RelayFailure::Network));
    assert_eq!(RelayFailure::Network.to_string(), "Network error on destination MXs");
    // After the penalty it is tried again.
    world.seconds = 15;
    assert_eq!(world.connects_to().unwrap().0, "192.0.2.1:2525");
}

#[test]
fn a_failed_connection_defers_nothing_while_another_session_works() {
    let mut world = World::ready(host_key(), &Limits::default(), &[(0, "192.0.2.1")]);
    let (_, first) = world.connects_to().unwrap();
    world.network.prove(first.route);
    world.bring(5);
    let (_, second) = world.connects_to().unwrap();
    world.session_fails(&second);
    assert_eq!(world.step(), Step::Idle);
    world.session_fails(&first);
    assert_eq!(world.step(), Step::Fail(RelayFailure::Network));
}

// queue case 100
#[test]
fn a_backup_sends_to_better_exchanges_alone() {
    let exchanges = [(10, "192.0.2.1"), (20, "192.0.2.2"), (30, "192.0.2.3")];
    let mut world = World::new(exchanges_key(), &Limits::default());
    world.bring(1);
    world.step();
    world.prepare(&exchanges, Some(20), &[None]);
    let (address, plan) = world.connects_to().unwrap();
    assert_eq!(address, "192.0.2.1:25");
    world.session_fails(&plan);
    world.seconds = 2;
    assert_eq!(world.step(), Step::Fail(RelayFailure::Network));

    world.prepare(&exchanges[1..], Some(20), &[None]);
    assert_eq!(world.step(), Step::Fail(RelayFailure::NoExchange));
    assert_eq!(RelayFailure::NoExchange.to_string(), "No MX found for destination");
}

#[test]
fn families_must_fit_the_source_and_the_limits() {
    let v4_only = Limits { family: Some(Family::Inet4), ..Limits::default() };
    let mut world = World::ready(host_key(), &v4_only, &[(0, "2001:db8::1"), (0, "192.0.2.1")]);
    assert_eq!(world.connects_to().unwrap().0, "192.0.2.1:2525");

    let mut world = World::ready(host_key(), &v4_only, &[(0, "2001:db8::1")]);
    assert_eq!(world.step(), Step::Fail(RelayFailure::Family));
    let text = "Address family mismatch on destination MXs";
    assert_eq!(RelayFailure::Family.to_string(), text);

    let mut world = World::new(host_key(), &Limits::default());
    world.bring(1);
    world.step();
    world.prepare(&[(0, "192.0.2.1")], None, &[Some("2001:db8::2")]);
    assert_eq!(world.step(), Step::Fail(RelayFailure::Family));
}

// queue cases 74 and 75
#[test]
fn own_addresses_take_turns_until_they_fail() {
    let mut world = World::new(host_key(), &Limits::default());
    world.bring(8);
    world.step();
    world.prepare(&[(0, "192.0.2.1")], None, &[Some("127.0.0.18"), Some("127.0.0.19")]);
    let source = |plan: &Plan| plan.route.source.unwrap().to_string();
    let (_, first) = world.connects_to().unwrap();
    let (_, second) = world.connects_to().unwrap();
    assert_eq!((source(&first), source(&second)), ("127.0.0.18".into(), "127.0.0.19".into()));
    let now = world.now();
    for plan in [&first, &second] {
        world.relay.source_failed(plan);
        world.relay.session_ended(plan, &mut world.network, now);
    }
    assert_eq!(world.step(), Step::Fail(RelayFailure::Source));
    assert_eq!(RelayFailure::Source.to_string(), "No valid route to destination");
}

// queue case 108
#[test]
fn a_blocked_source_gets_no_route() {
    let mut world = World::new(exchanges_key(), &Limits::default());
    world.bring(1);
    world.step();
    world.prepare(&[(0, "192.0.2.1")], None, &[Some("127.0.0.19")]);
    world.network.block("127.0.0.19".parse().unwrap(), "r.test");
    assert_eq!(world.step(), Step::Fail(RelayFailure::Blocked));
    assert_eq!(RelayFailure::Blocked.to_string(), "All routes to destination blocked");
}

#[test]
fn sessions_are_opened_as_messages_wait() {
    let mut world = World::ready(host_key(), &Limits::default(), &[(0, "192.0.2.1")]);
    let (_, plan) = world.connects_to().unwrap();
    world.bring(9);
    // Until the route is proven there is one session.
    assert_eq!(world.waits_until(), Some(5));
    world.network.prove(plan.route);
    let opened = (0..20).take_while(|_| world.connects_to().is_some()).count();
    assert_eq!(opened, 4, "five for a route");
    assert_eq!(world.waits_until(), None, "ten messages, five sessions: enough");
    world.bring(10);
    assert_eq!(world.waits_until(), Some(5));
}

#[test]
fn an_idle_session_is_as_good_as_a_new_one() {
    let mut world = World::ready(host_key(), &Limits::default(), &[(0, "192.0.2.1")]);
    let (_, plan) = world.connects_to().unwrap();
    world.network.prove(plan.route);
    world.relay.take();
    world.relay.session_waits();
    world.bring(1);
    assert_eq!(world.step(), Step::Idle);
    world.bring(1);
    assert!(world.connects_to().is_some());
}

#[test]
fn one_idle_session_stays() {
    let mut world = World::ready(host_key(), &Limits::default(), &[(0, "192.0.2.1")]);
    world.bring(5);
    let (_, plan) = world.connects_to().unwrap();
    world.network.prove(plan.route);
    let (_, second) = world.connects_to().unwrap();
    assert!(world.relay.may_leave_early());
    assert!(!world.relay.may_leave_early(), "the other is leaving");
    let now = world.now();
    world.relay.has_left();
    world.relay.session_ended(&second, &mut world.network, now);
    assert!(!world.relay.may_leave_early());
}

#[test]
fn pauses_between_connections_spare_other_peoples_hosts() {
    let exchanges = [(10, "192.0.2.1"), (10, "192.0.2.2")];
    let mut world = World::ready(exchanges_key(), &Limits::default(), &exchanges);
    world.bring(20);
    let (_, plan) = world.connects_to().unwrap();
    world.network.prove(plan.route);
    assert_eq!(world.waits_until(), Some(2), "conn-delay-relay");
    world.seconds = 2;
    assert_eq!(world.connects_to().unwrap().0, "192.0.2.2:25");
    world.seconds = 4;
    // conn-delay-route of the first, and the second is not proven.
    assert_eq!(world.waits_until(), Some(5));
}

#[test]
fn connectors_are_named_as_log_readers_know_them() {
    let world = World::ready(host_key(), &Limits::default(), &[]);
    let text = world.relay.connector_text(RelayFailure::NoExchange);
    assert_eq!(text, "[connector:[]->[relay:relay.test,port=2525,smtp,mx],0x4]");
    let line = RelayFailure::NoExchange.log_line(&text).unwrap();
    assert_eq!(line, format!("smtp-out: No MX found for {text}"));
}
