//! The network under a clock that the tests move.

use super::*;

fn route(text: &str) -> RouteId {
    RouteId { source: None, remote: text.parse().unwrap() }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn penalties_grow_with_the_square_and_end_one_by_one() {
    let (mut network, start) = (Network::default(), Instant::now());
    let id = route("192.0.2.1:25");
    let delays: Vec<u64> = (0..17).map(|_| network.disable(id, start).as_secs()).collect();
    assert_eq!(delays[..4], [15, 60, 135, 240]);
    assert_eq!(delays[15..], [3600, 3600]);

    let mut network = Network::default();
    assert_eq!(network.disable(id, start), seconds(15));
    assert_eq!(network.disable(id, start), seconds(60));
    // The first penalty's end is not the last's.
    assert_eq!(network.enable_due(start + seconds(15)), []);
    assert_eq!(network.enable_due(start + seconds(60)), [id]);
    assert_eq!(network.routes()[0].penalty, 1);
    assert_eq!(network.disable(id, start + seconds(61)), seconds(60));
}

// queue case 102
#[test]
fn an_administrator_enables_a_route_at_once() {
    let (mut network, now) = (Network::default(), Instant::now());
    let (id, limits) = (route("192.0.2.1:25"), Limits::default().settled(true));
    network.disable(id, now);
    let state = |network: &Network| network.route_state(id, &limits, now, &mut Wait::default());
    assert_eq!(state(&network), RouteState::Disabled);
    assert!(network.enable(id));
    assert_eq!(state(&network), RouteState::Open(0));
    assert!(!network.enable(id));
    assert_eq!(network.enable_due(now + seconds(15)), []);
}

// queue case 101, in the form that keeps ports apart
#[test]
fn a_penalty_concerns_one_port() {
    let (mut network, now) = (Network::default(), Instant::now());
    network.disable(route("192.0.2.1:2525"), now);
    let limits = Limits::default();
    let other = route("192.0.2.1:2526");
    let state = network.route_state(other, &limits, now, &mut Wait::default());
    assert_eq!(state, RouteState::Open(0));
}

#[test]
fn an_unproven_route_has_one_session_and_pauses_are_kept() {
    let (mut network, start) = (Network::default(), Instant::now());
    let (id, limits) = (route("192.0.2.1:25"), Limits::default().settled(false));
    let look = |network: &Network, after: u64| {
        let (now, mut wait) = (start + seconds(after), Wait::default());
        let state = network.route_state(id, &limits, now, &mut wait);
        (state, wait.until().map(|at| at.duration_since(start).as_secs()))
    };
    assert_eq!(look(&network, 0), (RouteState::Open(0), None));
    network.open(id, "r.test", &limits, start);
    assert_eq!(look(&network, 1), (RouteState::Waits, Some(5)), "conn-delay-route");
    assert_eq!(look(&network, 6), (RouteState::Waits, Some(11)), "unproven");
    network.prove(id);
    assert_eq!(look(&network, 6), (RouteState::Open(1), None));
    for _ in 0..4 {
        network.open(id, "r.test", &limits, start);
    }
    assert_eq!(look(&network, 6), (RouteState::Waits, Some(11)), "max-conn-per-route");
    network.close(id, "r.test", &limits, start + seconds(6));
    assert_eq!(look(&network, 7), (RouteState::Waits, Some(9)), "reconn-delay-route");
    assert_eq!(look(&network, 9), (RouteState::Open(4), None));
}

#[test]
fn hosts_sources_and_domains_have_their_limits() {
    let now = Instant::now();
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default().settled(true);
        change(&mut limits);
        limits
    };
    let admitted = |limits: Limits| {
        let (mut network, mut wait) = (Network::default(), Wait::default());
        let one = route("192.0.2.1:25");
        network.open(one, "r.test", &limits, now);
        network.prove(one);
        let host = network.route_state(route("192.0.2.1:26"), &limits, now, &mut wait);
        network.admits(None, "r.test", &limits, now, &mut wait) && host != RouteState::Waits
    };
    assert!(admitted(limits(|_| {})));
    let tight: [fn(&mut Limits); 6] = [
        |l| l.max_conn_per_host = 1,
        |l| l.max_conn_per_source = 1,
        |l| l.max_conn_per_domain = 1,
        |l| l.conn_delay_host = Duration::from_secs(1),
        |l| l.conn_delay_source = Duration::from_secs(1),
        |l| l.conn_delay_domain = Duration::from_secs(1),
    ];
    for (index, change) in tight.into_iter().enumerate() {
        assert!(!admitted(limits(change)), "{index}");
    }
}

// queue case 108
#[test]
fn blocks_name_a_source_and_a_domain() {
    let mut network = Network::default();
    let source: IpAddr = "127.0.0.19".parse().unwrap();
    assert!(network.block(source, "R9.test"));
    assert!(!network.block(source, "r9.test"));
    assert_eq!(network.blocks(), [(source, "r9.test".to_owned())]);
    assert!(network.is_blocked(Some(source), "r9.test"));
    assert!(!network.is_blocked(Some(source), "other.test"));
    assert!(!network.is_blocked(None, "r9.test"));
    assert!(network.unblock(source, "r9.test"));
    assert!(!network.is_blocked(Some(source), "r9.test"));
    network.block(source, "");
    assert!(network.is_blocked(Some(source), "other.test"));
}

#[test]
fn what_is_not_in_use_is_forgotten_after_its_pause() {
    let (mut network, start) = (Network::default(), Instant::now());
    let (id, limits) = (route("192.0.2.1:25"), Limits::default().settled(false));
    network.open(id, "r.test", &limits, start);
    network.forget(start + seconds(60));
    assert_eq!(network.routes().len(), 1);
    network.close(id, "r.test", &limits, start + seconds(60));
    network.forget(start + seconds(61));
    assert_eq!(network.routes().len(), 1);
    network.forget(start + seconds(63));
    assert_eq!(network.routes(), []);
    assert!(network.hosts.is_empty() && network.sources.is_empty());
    assert!(network.domains.is_empty());
}

#[test]
fn routes_are_named_as_log_readers_know_them() {
    let v6 = RouteId {
        source: Some("::1".parse().unwrap()),
        remote: "[2001:db8::1]:25".parse().unwrap(),
    };
    assert_eq!(v6.named(Some("mx.test")).to_string(), "[::1] <-> [2001:db8::1] (mx.test)");
    let v4 = route("192.0.2.1:25").named(None).to_string();
    assert_eq!(v4, "[] <-> 192.0.2.1 (192.0.2.1)");
}
