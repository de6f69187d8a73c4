//! When a certificate is to be renewed.

use super::leaf::SerialNumber;
use jiff::{SignedDuration, Timestamp};

/// The most that renewal is moved to either side, as a part of the life.
const JITTER: f64 = 0.05;

/// Two thirds into the life, moved by up to 5 % of it to either side, so that certificates that
/// were issued at once are not renewed at once. The serial number decides how far: the answer for
/// a certificate is always the same.
#[must_use]
pub fn renew_at(not_before: Timestamp, not_after: Timestamp, serial: &SerialNumber) -> Timestamp {
    let life = not_after
        .duration_since(not_before)
        .max(SignedDuration::ZERO);
    let part = 2.0 / 3.0 + JITTER * serial.spread();
    let after = SignedDuration::try_from_secs_f64(life.as_secs_f64() * part).unwrap_or(life);
    let at = not_before.saturating_add(after).unwrap_or(not_after);
    super::whole_second(at).clamp(not_before, not_after.max(not_before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::fixtures::now;

    fn later(hours: i64) -> Timestamp {
        now()
            .saturating_add(SignedDuration::from_hours(hours))
            .unwrap()
    }

    #[test]
    fn renewal_is_near_two_thirds_of_the_life_and_stays_there() {
        let times: Vec<_> = (0..200)
            .map(|_| {
                let serial = SerialNumber::random();
                let at = renew_at(now(), later(300), &serial);
                assert_eq!(at, renew_at(now(), later(300), &serial));
                at
            })
            .collect();
        let (first, last) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        assert!(
            first >= later(185) && last <= later(215),
            "{first} to {last}"
        );
        assert!(
            first < later(192) && last > later(208),
            "not spread: {first} to {last}"
        );
    }

    #[test]
    fn renewal_is_never_outside_of_the_life() {
        let serial = SerialNumber::random();
        assert_eq!(renew_at(now(), now(), &serial), now());
        assert_eq!(renew_at(now(), later(-1), &serial), now());
        let far = renew_at(now(), Timestamp::MAX, &serial);
        assert!(far > now() && far < Timestamp::MAX);
    }
}
