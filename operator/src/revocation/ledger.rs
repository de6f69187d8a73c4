//! The book of certificates that must not be forgotten although their requests are gone or denied:
//! revoked ones, until they have expired, and ones whose request was removed as superseded, which
//! are revoked together with their identity.

use crate::pki::{RevocationReason, Revoked, SerialNumber};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most entries there can be. A Secret holds 1 MiB, and an entry takes up to 200 bytes.
const MOST: usize = 5000;

/// A certificate, as far as revoking it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its serial number, in hex.
    pub serial: String,
    /// The end of its life.
    pub not_after: Timestamp,
    /// Its common name.
    pub common_name: String,
    /// Who asked for it.
    pub requester: String,
}

/// What is written down of a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "e")]
    expires: i64,
    #[serde(rename = "n")]
    common_name: String,
    #[serde(rename = "u")]
    requester: String,
    /// Absent while it is only remembered.
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    revoked: Option<Revocation>,
}

/// When a certificate was revoked (seconds since 1970), with which list, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Revocation(i64, i64, Reason);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Reason {
    #[serde(rename = "p")]
    PrivilegeWithdrawn,
    #[serde(rename = "c")]
    CessationOfOperation,
}

/// Why a certificate is taken out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Its identity was denied.
    Denied,
    /// Its request was deleted.
    Deleted,
}

/// The book.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The number of the list that was published last (RFC 5280, section 5.2.3).
    pub number: i64,
    /// The number of the last list that the broker was seen to enforce.
    #[serde(default)]
    pub enforced: i64,
    entries: BTreeMap<String, Entry>,
}

/// There is no room for more revoked certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the revocation list is full: {MOST} certificates are on it, as many as a Secret holds; it has \
     room when some of them have expired"
)]
pub struct Full;

impl Ledger {
    /// Writes `certificates` down as revoked, and with them all that are remembered of `identity`
    /// (common name and requester). Returns whether anything is new.
    ///
    /// # Errors
    /// [`Full`]; nothing has changed then.
    pub fn revoke(
        &mut self,
        certificates: &[Certificate],
        identity: Option<(&str, &str)>,
        why: Why,
        now: Timestamp,
    ) -> Result<bool, Full> {
        self.forget_expired(now);
        let mut next = self.clone();
        let reason = match why {
            Why::Denied => Reason::PrivilegeWithdrawn,
            Why::Deleted => Reason::CessationOfOperation,
        };
        let mark = Some(Revocation(now.as_second(), self.number + 1, reason));
        let mut changed = false;
        for certificate in certificates {
            let entry = next.entry(certificate);
            if entry.revoked.is_none() {
                entry.revoked = mark;
                changed = true;
            }
        }
        for entry in next.entries.values_mut() {
            let of_identity = identity == Some((&entry.common_name, &entry.requester));
            if of_identity && entry.revoked.is_none() {
                entry.revoked = mark;
                changed = true;
            }
        }
        next.make_room()?;
        *self = next;
        Ok(changed)
    }

    /// Remembers a certificate whose request is about to be removed. Where there is no room, the
    /// ones that end first are forgotten.
    pub fn remember(&mut self, certificate: &Certificate, now: Timestamp) {
        self.forget_expired(now);
        self.entry(certificate);
        // What cannot be revoked for want of room is not remembered either.
        let _ = self.make_room();
    }

    /// Forgets what has expired: it is refused without a list. Returns whether there was any.
    pub fn forget_expired(&mut self, now: Timestamp) -> bool {
        let before = self.entries.len();
        // Clocks differ; a day does no harm.
        let now = now.as_second() - 24 * 3600;
        self.entries.retain(|_, entry| entry.expires > now);
        self.entries.len() != before
    }

    /// What belongs on the list.
    #[must_use]
    pub fn revoked(&self) -> Vec<Revoked> {
        let entries = self.entries.iter().filter_map(|(serial, entry)| {
            let Revocation(at, _, reason) = entry.revoked?;
            Some(Revoked {
                serial: SerialNumber::parse(serial)?,
                at: Timestamp::from_second(at).ok()?,
                reason: match reason {
                    Reason::PrivilegeWithdrawn => RevocationReason::PrivilegeWithdrawn,
                    Reason::CessationOfOperation => RevocationReason::CessationOfOperation,
                },
            })
        });
        entries.collect()
    }

    /// Whether the certificate is revoked.
    #[must_use]
    pub fn is_revoked(&self, serial: &str) -> bool {
        self.entries
            .get(serial)
            .is_some_and(|entry| entry.revoked.is_some())
    }

    /// Whether the certificate is written down, revoked or not.
    #[must_use]
    pub fn knows(&self, serial: &str) -> bool {
        self.entries.contains_key(serial)
    }

    /// The number of the first list that holds all revoked certificates of `common_name`, if there
    /// are any.
    #[must_use]
    pub fn needed_list(&self, common_name: &str) -> Option<i64> {
        self.entries
            .values()
            .filter(|entry| entry.common_name == common_name)
            .filter_map(|entry| entry.revoked.map(|Revocation(_, number, _)| number))
            .max()
    }

    /// The common names that have a certificate revoked after list `number`.
    #[must_use]
    pub fn revoked_after(&self, number: i64) -> Vec<String> {
        let later = |entry: &&Entry| {
            entry
                .revoked
                .is_some_and(|Revocation(_, since, _)| since > number)
        };
        let mut names: Vec<_> = self
            .entries
            .values()
            .filter(later)
            .map(|entry| entry.common_name.clone())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    fn entry(&mut self, certificate: &Certificate) -> &mut Entry {
        self.entries
            .entry(certificate.serial.clone())
            .or_insert_with(|| Entry {
                expires: certificate.not_after.as_second(),
                common_name: certificate.common_name.clone(),
                requester: certificate.requester.clone(),
                revoked: None,
            })
    }

    fn make_room(&mut self) -> Result<(), Full> {
        let surplus = self.entries.len().saturating_sub(MOST);
        if surplus == 0 {
            return Ok(());
        }
        let mut remembered: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.revoked.is_none())
            .map(|(serial, entry)| (entry.expires, serial.clone()))
            .collect();
        if remembered.len() < surplus {
            return Err(Full);
        }
        remembered.sort_unstable();
        for (_, serial) in remembered.into_iter().take(surplus) {
            self.entries.remove(&serial);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn hex(serial: impl ToString) -> String {
        format!("4{:0>31}", serial.to_string())
    }

    fn certificate(serial: impl ToString, requester: &str) -> Certificate {
        Certificate {
            serial: hex(serial),
            not_after: at(3600),
            common_name: "central.plant.forwarder".into(),
            requester: requester.into(),
        }
    }

    #[test]
    fn what_is_remembered_is_revoked_with_its_identity_and_no_other() {
        let mut ledger = Ledger::default();
        ledger.remember(&certificate(1, "a"), at(0));
        ledger.remember(&certificate(2, "b"), at(0));
        assert!(ledger.revoked().is_empty());
        let identity = Some(("central.plant.forwarder", "a"));
        assert_eq!(
            ledger.revoke(&[certificate(3, "a")], identity, Why::Denied, at(1)),
            Ok(true)
        );
        assert!(
            ledger.is_revoked(&hex("1"))
                && ledger.is_revoked(&hex("3"))
                && !ledger.is_revoked(&hex("2"))
        );
        assert_eq!(
            ledger.revoke(&[certificate(3, "a")], identity, Why::Denied, at(9)),
            Ok(false)
        );
        assert!(ledger.revoked().iter().all(|it| it.at == at(1)));
    }

    #[test]
    fn a_name_needs_the_list_that_was_made_after_its_last_revocation() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.needed_list("central.plant.forwarder"), None);
        ledger
            .revoke(&[certificate(1, "a")], None, Why::Deleted, at(0))
            .unwrap();
        ledger.number += 1;
        assert_eq!(ledger.needed_list("central.plant.forwarder"), Some(1));
        assert_eq!(ledger.needed_list("central.plant.other"), None);
        ledger
            .revoke(&[certificate(2, "a")], None, Why::Deleted, at(0))
            .unwrap();
        assert_eq!(ledger.needed_list("central.plant.forwarder"), Some(2));
        assert_eq!(ledger.revoked_after(1), ["central.plant.forwarder"]);
        assert!(ledger.revoked_after(2).is_empty());
    }

    #[test]
    fn what_expired_leaves_the_list_a_day_later() {
        let mut ledger = Ledger::default();
        ledger
            .revoke(&[certificate(1, "a")], None, Why::Deleted, at(0))
            .unwrap();
        assert!(!ledger.forget_expired(at(3600 + 3600)));
        assert!(ledger.forget_expired(at(3600 + 24 * 3600)));
        assert!(!ledger.knows(&hex("1")));
    }

    #[test]
    fn when_it_is_full_what_is_only_remembered_gives_way() {
        let mut ledger = Ledger::default();
        let many: Vec<_> = (0..MOST - 1).map(|n| certificate(n, "a")).collect();
        ledger.revoke(&many, None, Why::Deleted, at(0)).unwrap();
        ledger.remember(&certificate("cafe", "b"), at(0));
        assert!(ledger.knows(&hex("cafe")));
        ledger
            .revoke(&[certificate("a1", "c")], None, Why::Deleted, at(0))
            .unwrap();
        assert!(!ledger.knows(&hex("cafe")) && ledger.is_revoked(&hex("a1")));
        let before = ledger.clone();
        assert_eq!(
            ledger.revoke(&[certificate("a2", "c")], None, Why::Deleted, at(0)),
            Err(Full)
        );
        assert_eq!(ledger, before);
        let text = serde_json::to_string(&ledger).unwrap();
        assert!(text.len() < 1 << 20, "{} bytes", text.len());
    }
}
