//! Who has which name. One keeper asks here for one broker, so that a name never goes to two
//! requesters, whatever their reconciles have seen.

use std::collections::{HashMap, HashSet};
use volttron_crds::CommonName;

#[derive(Default)]
pub(super) struct Claims {
    claims: HashMap<CommonName, Claim>,
    /// The requesters of the names that were wanted in the last comparison: after a start they
    /// have their names before each of their requests has claimed it.
    recorded: HashMap<CommonName, String>,
}

struct Claim {
    requester: String,
    /// The UIDs of the requests that need the user.
    holders: HashSet<String>,
}

impl Claims {
    /// The requester who has a name.
    pub(super) fn owner(&self, name: &CommonName) -> Option<&str> {
        let claimed = self.claims.get(name).map(|claim| &claim.requester);
        claimed
            .or_else(|| self.recorded.get(name))
            .map(String::as_str)
    }

    /// Gives a name that is nobody else's to `holder`.
    pub(super) fn add(&mut self, name: CommonName, requester: String, holder: String) {
        let claim = self.claims.entry(name).or_insert_with(|| Claim {
            requester,
            holders: HashSet::new(),
        });
        claim.holders.insert(holder);
    }

    /// Takes a name back from `holder`. Returns whether another request still holds it.
    pub(super) fn give_up(&mut self, name: &CommonName, holder: &str) -> bool {
        if let Some(claim) = self.claims.get_mut(name) {
            claim.holders.remove(holder);
            if !claim.holders.is_empty() {
                return true;
            }
            self.claims.remove(name);
        }
        false
    }

    /// Nobody needs a name any more that is claimed by none.
    pub(super) fn forget(&mut self, name: &CommonName) {
        self.recorded.remove(name);
    }

    /// Takes down who has which name according to the requests.
    pub(super) fn record(&mut self, wanted: HashMap<CommonName, String>) {
        self.recorded = wanted;
    }

    /// All names that somebody has.
    pub(super) fn names(&self) -> impl Iterator<Item = &CommonName> {
        self.recorded.keys().chain(self.claims.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> CommonName {
        "central.a.b".parse().unwrap()
    }

    #[test]
    fn a_name_stays_its_requesters_until_the_last_request_gives_it_up() {
        let mut claims = Claims::default();
        assert_eq!(claims.owner(&name()), None);
        claims.add(name(), "anna".into(), "1".into());
        claims.add(name(), "anna".into(), "2".into());
        assert!(claims.give_up(&name(), "1"));
        assert_eq!(claims.owner(&name()), Some("anna"));
        assert!(!claims.give_up(&name(), "2"));
        claims.forget(&name());
        assert_eq!(claims.owner(&name()), None);
        assert_eq!(claims.names().count(), 0);
    }

    #[test]
    fn who_has_a_name_by_the_requests_has_it_before_any_claim() {
        let mut claims = Claims::default();
        claims.record(HashMap::from([(name(), "anna".into())]));
        assert_eq!(claims.owner(&name()), Some("anna"));
        // Somebody else's denied request never had it.
        assert!(!claims.give_up(&name(), "another's"));
        assert_eq!(claims.owner(&name()), Some("anna"));
        claims.add(name(), "anna".into(), "1".into());
        claims.record(HashMap::new());
        assert_eq!(claims.owner(&name()), Some("anna"));
    }
}
