//! Guesses at the secret are few: so many a minute from one address, and addresses are forgotten rather than piled up.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures from one address within [`WINDOW`]. A person mistypes a few times; a page has some requests on their way at once.
const MOST_FAILURES: u32 = 20;

/// How long failures count.
const WINDOW: Duration = Duration::from_mins(1);

/// Addresses that are remembered at a time, some 50 bytes each.
const MOST_ADDRESSES: usize = 4096;

/// Who has failed lately.
#[derive(Debug, Default)]
pub struct Attempts(Mutex<HashMap<IpAddr, Failures>>);

#[derive(Clone, Copy, Debug)]
struct Failures {
    since: Instant,
    count: u32,
}

/// Too many failures: no further secret is looked at for so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany(pub Duration);

impl Attempts {
    /// Before a secret is looked at. It counts as a failure until it is [`forgiven`](Self::forgive): many guesses at the same time are no
    /// way around the limit.
    pub fn begin(&self, from: IpAddr, now: Instant) -> Result<(), TooMany> {
        let from = network(from);
        let mut all = self.all();
        if !all.contains_key(&from) && all.len() >= MOST_ADDRESSES {
            all.retain(|_, failures| now.duration_since(failures.since) < WINDOW);
            if all.len() >= MOST_ADDRESSES {
                // The oldest makes room: somebody with many addresses must not shut everybody else out.
                let oldest = all.iter().min_by_key(|(_, failures)| failures.since).map(|(address, _)| *address);
                oldest.and_then(|address| all.remove(&address));
            }
        }
        let failures = all.entry(from).or_insert(Failures { since: now, count: 0 });
        let age = now.duration_since(failures.since);
        if age >= WINDOW {
            *failures = Failures { since: now, count: 0 };
        } else if failures.count >= MOST_FAILURES {
            return Err(TooMany(WINDOW.saturating_sub(age)));
        }
        failures.count += 1;
        Ok(())
    }

    /// It was no failure.
    pub fn forgive(&self, from: IpAddr) {
        let from = network(from);
        let mut all = self.all();
        if let Some(failures) = all.get_mut(&from) {
            failures.count = failures.count.saturating_sub(1);
            if failures.count == 0 {
                all.remove(&from);
            }
        }
    }

    // Counting cannot panic half-way.
    fn all(&self) -> MutexGuard<'_, HashMap<IpAddr, Failures>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever has one address of IPv6 has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn guesses_of_one_address_are_few_and_others_go_on() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        let (one, other) = (address("203.0.113.7"), address("203.0.113.8"));
        for _ in 0..MOST_FAILURES {
            assert_eq!(attempts.begin(one, now), Ok(()));
        }
        assert_eq!(attempts.begin(one, now), Err(TooMany(WINDOW)));
        assert_eq!(
            attempts.begin(address("::ffff:203.0.113.7"), now),
            Err(TooMany(WINDOW)),
            "the same in IPv6's clothes"
        );
        assert_eq!(attempts.begin(other, now), Ok(()));
        assert_eq!(attempts.begin(one, now + WINDOW), Ok(()), "a minute later");
    }

    #[test]
    fn what_was_right_does_not_count() {
        let (attempts, now, one) = (Attempts::default(), Instant::now(), address("::1"));
        for _ in 0..10 * MOST_FAILURES {
            assert_eq!(attempts.begin(one, now), Ok(()));
            attempts.forgive(one);
        }
        assert!(attempts.all().is_empty());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_memory_is_bounded() {
        let (attempts, now) = (Attempts::default(), Instant::now());
        for host in 0..u128::from(MOST_FAILURES) {
            let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | host);
            assert_eq!(attempts.begin(address.into(), now), Ok(()));
        }
        assert!(attempts.begin(address("2001:db8::ffff"), now).is_err());
        for network in 0..2 * u32::try_from(MOST_ADDRESSES).expect("small") {
            attempts.begin(std::net::Ipv4Addr::from_bits(network).into(), now).expect("its first");
        }
        assert_eq!(attempts.all().len(), MOST_ADDRESSES);
    }
}
