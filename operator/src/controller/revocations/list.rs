//! A published list. Pure.

use crate::pki::{
    Authority, LeafError, NameHashError, ProbePair, RevocationReason, Revoked, SerialNumber,
    issue_probe_pair, list_file_of, resign_at, sign_revocation_list,
};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

/// How long a canary is used; its certificate lives for an hour.
const CANARY: SignedDuration = SignedDuration::from_mins(50);

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub(in crate::controller) enum ListError {
    /// There is no CA whose key is known.
    #[error("there is no CA that could sign it")]
    NoAuthority,
    /// The broker could not find it.
    #[error("the broker cannot find a list of this CA")]
    Name(#[from] NameHashError),
    /// It could not be signed.
    #[error(transparent)]
    Sign(#[from] LeafError),
}

/// A list, signed by each trusted CA, and a certificate that is on it for the sake of trying it.
pub(super) struct PublishedList {
    /// Its number.
    pub(super) number: i64,
    /// File names and contents, as the broker reads them.
    pub(super) files: Vec<(String, String)>,
    /// A revoked certificate and its key: the broker that refuses it enforces this list.
    pub(super) canary: ProbePair,
    authorities: Vec<String>,
    resign_at: Timestamp,
    canary_ends: Timestamp,
}

impl PublishedList {
    /// Signs list `number`. Each CA's list holds all that is revoked, whichever CA signed it:
    /// where two CAs have one name, RabbitMQ looks at one list alone. The first of `authorities`
    /// signs the canary.
    pub(super) fn sign(
        number: i64,
        mut revoked: Vec<Revoked>,
        authorities: &[Arc<Authority>],
        now: Timestamp,
    ) -> Result<Self, ListError> {
        let serial = SerialNumber::random();
        let signing = authorities.first().ok_or(ListError::NoAuthority)?;
        let canary = issue_probe_pair(signing, &serial, now)?;
        revoked.push(Revoked {
            serial,
            at: now,
            reason: RevocationReason::CessationOfOperation,
        });
        let counted = u64::try_from(number).unwrap_or_default();
        let mut files = Vec::<(String, String)>::new();
        let mut resign = Timestamp::MAX;
        for authority in authorities {
            let list = sign_revocation_list(authority, counted, &revoked, now)?;
            let name = list_file_of(authority)?;
            resign = resign.min(resign_at(list.this_update, list.next_update));
            if files.iter().all(|(known, _)| *known != name) {
                files.push((name, list.pem));
            }
        }
        Ok(Self {
            number,
            files,
            canary,
            authorities: names(authorities),
            resign_at: resign,
            canary_ends: now.saturating_add(CANARY).unwrap_or(now),
        })
    }

    /// Whether it can stay.
    pub(super) fn is_current(&self, authorities: &[Arc<Authority>], now: Timestamp) -> bool {
        now < self.resign_at && self.authorities == names(authorities)
    }

    /// Whether the canary is still refused for being on the list, and for nothing else.
    pub(super) fn can_be_tried(&self, now: Timestamp) -> bool {
        now < self.canary_ends
    }
}

fn names(authorities: &[Arc<Authority>]) -> Vec<String> {
    let sha256 = |authority: &Arc<Authority>| authority.sha256().to_owned();
    authorities.iter().map(sha256).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::generate;
    use crate::revocation::MOST;
    use volttron_crds::GeneratedAuthority;

    #[test]
    fn a_full_list_of_each_ca_fits_into_one_config_map() {
        let now = Timestamp::now();
        let name = "central".parse().unwrap();
        let authority = |generation| {
            let settings = GeneratedAuthority::default();
            let pair = generate(&name, &settings, generation, now).unwrap();
            Arc::new(Authority::load(&pair.certificate, &pair.key, None, now).unwrap())
        };
        let authorities = [1, 2, 3].map(authority);
        let revoked = || Revoked {
            serial: SerialNumber::random(),
            at: now,
            reason: RevocationReason::PrivilegeWithdrawn,
        };
        let revoked = std::iter::repeat_with(revoked).take(MOST).collect();
        let list = PublishedList::sign(i64::MAX - 1, revoked, &authorities, now).unwrap();
        assert_eq!(list.files.len(), 3);
        let bytes: usize = list.files.iter().map(|(_, list)| list.len()).sum();
        assert!(bytes < 1 << 20, "{bytes} bytes");
    }
}
