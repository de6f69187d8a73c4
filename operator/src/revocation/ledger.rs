//! The book of certificates that must not be forgotten although their requests are gone or denied:
//! revoked ones, until they have expired, and ones whose request was removed as superseded, which
//! are revoked together with their identity.

use crate::pki::{RevocationReason, Revoked, SerialNumber};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The most entries there can be. The lists that a broker reads are in one `ConfigMap`, which holds
/// 1 MiB: a certificate takes 67 bytes on each, and while a CA is being replaced there are three.
pub(crate) const MOST: usize = 5000;
/// The most bytes that the entries can take, of the 1 MiB that a Secret holds: common name and
/// requester have up to 64 and 512 characters.
const MOST_BYTES: usize = 1_000_000;
/// What an entry takes beside its names.
const ENTRY_BYTES: usize = 128;
/// How much of both can be taken by what is not revoked, so that there is always room for what is.
const REMEMBERED: (usize, usize) = (3, 5);

/// How long what has expired is kept (seconds): the clocks of brokers differ from the operator's.
const GRACE: i64 = 3 * 24 * 3600;

/// How many certificates of one identity there may be that have not run out, before the next one has
/// to be approved by hand: one identity is not to take the room of all.
pub const MOST_OF_IDENTITY: usize = 100;

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

/// There is no room for more certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the ledger of revoked certificates is full: a Secret has room for {MOST}, and for fewer where \
     names are long; there is room again when some of them have expired"
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
        let mut added: Vec<_> = certificates
            .iter()
            .filter(|it| !self.knows(&it.serial))
            .collect();
        added.dedup_by_key(|it| &it.serial);
        // Nothing that is remembered makes room: it would be missing when its identity is denied.
        if !added.is_empty() && !self.has_room(added.into_iter(), (1, 1)) {
            return Err(Full);
        }
        let reason = match why {
            Why::Denied => Reason::PrivilegeWithdrawn,
            Why::Deleted => Reason::CessationOfOperation,
        };
        let mark = Some(Revocation(now.as_second(), self.number + 1, reason));
        let mut changed = false;
        for certificate in certificates {
            let entry = self.entry(certificate);
            if entry.revoked.is_none() {
                entry.revoked = mark;
                changed = true;
            }
        }
        for entry in self.entries.values_mut() {
            let of_identity = identity == Some((&entry.common_name, &entry.requester));
            if of_identity && entry.revoked.is_none() {
                entry.revoked = mark;
                changed = true;
            }
        }
        Ok(changed)
    }

    /// Remembers a certificate whose request is about to be removed.
    ///
    /// # Errors
    /// [`Full`]; the request has to stay then, since nothing else tells of the certificate.
    pub fn remember(&mut self, certificate: &Certificate) -> Result<(), Full> {
        if self.knows(&certificate.serial) {
            return Ok(());
        }
        if !self.has_room(std::iter::once(certificate), REMEMBERED) {
            return Err(Full);
        }
        self.entry(certificate);
        Ok(())
    }

    /// How many certificates of this identity are written down.
    #[must_use]
    pub fn count_of(&self, common_name: &str, requester: &str) -> usize {
        self.entries
            .values()
            .filter(|it| it.common_name == common_name && it.requester == requester)
            .count()
    }

    /// Whether something has expired so long ago that it may be forgotten: it is refused without a
    /// list.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.entries.values().any(|entry| !entry.is_kept(now))
    }

    /// Forgets what [`Self::has_expired`] tells of. Nobody gets it back: `now` has to be certain.
    pub fn forget_expired(&mut self, now: Timestamp) {
        self.entries.retain(|_, entry| entry.is_kept(now));
    }

    /// Whether nothing is written down that has not expired.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes up what only `other` tells, which was stored by somebody else: an earlier state that was
    /// restored from a backup. What is new in it goes onto a list to come. Returns whether anything
    /// is.
    pub fn merge(&mut self, other: &Self) -> bool {
        self.number = self.number.max(other.number);
        let number = self.number + 1;
        let mut is_new = false;
        for (serial, theirs) in &other.entries {
            let of_new_list = |Revocation(at, _, reason)| Revocation(at, number, reason);
            let revoked = theirs.revoked.map(of_new_list);
            let known = self.entries.contains_key(serial);
            let ours = self.entries.entry(serial.clone()).or_insert_with(|| Entry {
                revoked,
                ..theirs.clone()
            });
            if known && ours.revoked.is_none() {
                ours.revoked = revoked;
            } else if known {
                continue;
            }
            is_new |= !known || revoked.is_some();
        }
        is_new
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

    /// Whether there is something that belongs on the list after the last one.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let lists = self.entries.values().filter_map(|entry| entry.revoked);
        lists.map(|it| it.1).any(|list| list > self.number)
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

    /// Whether `added` and what there is take no more than `part` (as a fraction) of the room.
    fn has_room<'a>(
        &self,
        added: impl ExactSizeIterator<Item = &'a Certificate>,
        part: (usize, usize),
    ) -> bool {
        let (numerator, denominator) = part;
        let count = self.entries.len() + added.len();
        let known = self.entries.values();
        let known = known.map(|it| entry_bytes(&it.common_name, &it.requester));
        let added = added.map(|it| entry_bytes(&it.common_name, &it.requester));
        let bytes: usize = known.chain(added).sum();
        count * denominator <= MOST * numerator && bytes * denominator <= MOST_BYTES * numerator
    }
}

impl Entry {
    fn is_kept(&self, now: Timestamp) -> bool {
        self.expires > now.as_second() - GRACE
    }
}

/// What an entry takes in JSON at most, revoked or not.
fn entry_bytes(common_name: &str, requester: &str) -> usize {
    ENTRY_BYTES + json_bytes(common_name) + json_bytes(requester)
}

/// What `text` takes as a JSON string (RFC 8259, section 7), without its quotes.
fn json_bytes(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(of).sum()
}

#[cfg(test)]
mod tests;
