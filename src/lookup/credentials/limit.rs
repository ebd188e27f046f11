//! How many wrong passwords an address may send.
//!
//! An address that has failed 100 times within ten minutes is refused for ten minutes, whatever it
//! sends. Addresses of IPv6 count by their first 64 bits, which one customer has. Checks under way
//! are bounded too, so that a thousand guesses sent at once are not all looked at before the first
//! of them counts.
//!
//! Time comes in as a value. Memory: up to [`ADDRESSES`] addresses of about 500 bytes each at worst;
//! when there are more, the one that has failed least lately is forgotten, of those that are not
//! refused if there is one.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

/// Failures that are one too many, within [`WINDOW`].
pub(in crate::lookup) const FAILURES: usize = 100;
/// How long a failure counts.
const WINDOW: Duration = Duration::from_secs(600);
/// How long an address is refused.
const REFUSED: Duration = Duration::from_secs(600);
/// Checks of one address under way at once.
pub(in crate::lookup) const UNDER_WAY: usize = 100;
/// Addresses that are remembered at most.
const ADDRESSES: usize = 16_384;

/// Whether a check may begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::lookup) enum Admission {
    /// Not now: too many of this address are under way.
    Busy,
    /// Not for a while: too many have failed.
    Refused,
    /// Yes; [`Limiter::end`] says what came of it.
    Welcome,
}

/// What addresses have done lately. Times count from any fixed moment.
#[derive(Debug, Default)]
pub(in crate::lookup) struct Limiter {
    addresses: HashMap<IpAddr, Record>,
}

#[derive(Debug, Default)]
struct Record {
    under_way: usize,
    /// When checks have failed, in whole seconds, oldest first.
    failures: VecDeque<u32>,
    /// Nothing is looked at before that.
    refused_until: Duration,
}

impl Record {
    fn forget_before(&mut self, now: Duration) {
        let since = seconds(now.saturating_sub(WINDOW));
        // What is exactly as old as the window does not count any more.
        while self.failures.pop_front_if(|first| now >= WINDOW && *first <= since).is_some() {}
    }

    fn is_idle(&self, now: Duration) -> bool {
        self.under_way == 0 && self.failures.is_empty() && self.refused_until <= now
    }
}

impl Limiter {
    /// Whether a check for a client at `address` may begin.
    pub(in crate::lookup) fn begin(&mut self, now: Duration, address: IpAddr) -> Admission {
        let network = network(address);
        if !self.addresses.contains_key(&network) {
            self.make_room(now);
        }
        let record = self.addresses.entry(network).or_default();
        if now < record.refused_until {
            return Admission::Refused;
        }
        if record.under_way >= UNDER_WAY {
            return Admission::Busy;
        }
        record.under_way += 1;
        Admission::Welcome
    }

    /// Whether a client at `address` is refused now.
    pub(in crate::lookup) fn refuses(&self, now: Duration, address: IpAddr) -> bool {
        self.addresses.get(&network(address)).is_some_and(|record| now < record.refused_until)
    }

    /// A check has ended that was welcome.
    pub(in crate::lookup) fn end(&mut self, now: Duration, address: IpAddr, failed: bool) {
        if failed {
            self.count(now, address);
        }
        let network = network(address);
        let Some(record) = self.addresses.get_mut(&network) else { return };
        record.under_way = record.under_way.saturating_sub(1);
        record.forget_before(now);
        if record.is_idle(now) {
            self.addresses.remove(&network);
        }
    }

    /// A check has failed.
    fn count(&mut self, now: Duration, address: IpAddr) {
        let network = network(address);
        if !self.addresses.contains_key(&network) {
            self.make_room(now);
        }
        let record = self.addresses.entry(network).or_default();
        record.forget_before(now);
        record.failures.push_back(seconds(now));
        if record.failures.len() >= FAILURES {
            record.failures = VecDeque::new();
            record.refused_until = now + REFUSED;
        }
    }

    /// Forgets addresses until one more fits.
    fn make_room(&mut self, now: Duration) {
        if self.addresses.len() < ADDRESSES {
            return;
        }
        for record in self.addresses.values_mut() {
            record.forget_before(now);
        }
        self.addresses.retain(|_, record| !record.is_idle(now));
        if self.addresses.len() < ADDRESSES {
            return;
        }
        let age = |record: &Record| {
            (record.refused_until > now, record.failures.back().copied(), record.refused_until)
        };
        let idle = self.addresses.iter().filter(|(_, record)| record.under_way == 0);
        let oldest = idle.min_by_key(|(_, record)| age(record)).map(|(network, _)| *network);
        // Without an idle one there are more checks under way than lookup ever has.
        if let Some(oldest) = oldest {
            self.addresses.remove(&oldest);
        }
    }
}

/// The address that counts: that of IPv4, or the first 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        short => short,
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "192.0.2.1";

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A check that ends at once.
    fn check(limiter: &mut Limiter, now: u64, client: &str, failed: bool) -> Admission {
        let admission = limiter.begin(at(now), address(client));
        if admission == Admission::Welcome {
            limiter.end(at(now), address(client), failed);
        }
        admission
    }

    #[test]
    fn a_hundred_failures_in_ten_minutes_are_refused_for_ten_minutes() {
        let mut limiter = Limiter::default();
        for failure in 0..100 {
            assert_eq!(check(&mut limiter, failure * 5, CLIENT, true), Admission::Welcome);
        }
        // The last one came at 495.
        for (now, expected) in
            [(495, Admission::Refused), (1094, Admission::Refused), (1095, Admission::Welcome)]
        {
            assert_eq!(check(&mut limiter, now, CLIENT, false), expected, "{now}");
            assert_eq!(limiter.refuses(at(now), address(CLIENT)), expected == Admission::Refused);
        }
        // It begins anew: 99 more are nothing, one more is.
        for _ in 0..99 {
            check(&mut limiter, 1100, CLIENT, true);
        }
        assert_eq!(check(&mut limiter, 1100, CLIENT, true), Admission::Welcome);
        assert_eq!(check(&mut limiter, 1100, CLIENT, true), Admission::Refused);
    }

    #[test]
    fn failures_count_for_ten_minutes() {
        let mut limiter = Limiter::default();
        for _ in 0..99 {
            check(&mut limiter, 1, CLIENT, true);
        }
        check(&mut limiter, 601, CLIENT, true);
        assert_eq!(check(&mut limiter, 601, CLIENT, true), Admission::Welcome);

        let mut limiter = Limiter::default();
        for _ in 0..99 {
            check(&mut limiter, 1, CLIENT, true);
        }
        check(&mut limiter, 600, CLIENT, true);
        assert_eq!(check(&mut limiter, 600, CLIENT, true), Admission::Refused);
    }

    #[test]
    fn right_passwords_neither_count_nor_excuse() {
        let mut limiter = Limiter::default();
        for _ in 0..1000 {
            assert_eq!(check(&mut limiter, 1, CLIENT, false), Admission::Welcome);
        }
        assert!(limiter.addresses.is_empty());
        for _ in 0..100 {
            check(&mut limiter, 1, CLIENT, true);
            check(&mut limiter, 1, CLIENT, false);
        }
        assert_eq!(check(&mut limiter, 1, CLIENT, false), Admission::Refused);
    }

    #[test]
    fn customers_of_ipv6_have_64_bits() {
        let cases = [
            ("2001:db8::1", "2001:db8::ffff:1", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
        ];
        for (one, other, same) in cases {
            let mut limiter = Limiter::default();
            for _ in 0..100 {
                check(&mut limiter, 1, one, true);
            }
            let expected = if same { Admission::Refused } else { Admission::Welcome };
            assert_eq!(check(&mut limiter, 1, other, false), expected, "{one} {other}");
        }
    }

    #[test]
    fn guesses_that_come_at_once_are_not_all_looked_at() {
        let mut limiter = Limiter::default();
        for _ in 0..100 {
            assert_eq!(limiter.begin(at(1), address(CLIENT)), Admission::Welcome);
        }
        assert_eq!(limiter.begin(at(1), address(CLIENT)), Admission::Busy);
        limiter.end(at(1), address(CLIENT), false);
        assert_eq!(limiter.begin(at(1), address(CLIENT)), Admission::Welcome);
        for _ in 0..100 {
            limiter.end(at(2), address(CLIENT), true);
        }
        assert_eq!(limiter.begin(at(2), address(CLIENT)), Admission::Refused);
    }

    #[test]
    fn memory_is_bounded_and_those_who_are_refused_are_kept() {
        let mut limiter = Limiter::default();
        for _ in 0..100 {
            check(&mut limiter, 0, CLIENT, true);
        }
        for number in 0..u32::try_from(ADDRESSES).unwrap() + 100 {
            let client = IpAddr::V4((0x0a00_0000 + number).into());
            limiter.count(at(u64::from(number / 1000)), client);
        }
        assert_eq!(limiter.addresses.len(), ADDRESSES);
        assert!(limiter.refuses(at(20), address(CLIENT)));
        // What has failed least lately went: of the first thousand, which are equally old.
        let kept = |number: u32| {
            let client = IpAddr::V4((0x0a00_0000 + number).into());
            limiter.addresses.contains_key(&client)
        };
        assert_eq!((0..1000).filter(|number| kept(*number)).count(), 899);
        assert!((1000..u32::try_from(ADDRESSES).unwrap() + 100).all(kept));
        // After a while nothing is left that matters.
        limiter.count(at(10_000), address("192.0.2.9"));
        assert_eq!(limiter.addresses.len(), 1);
    }
}
