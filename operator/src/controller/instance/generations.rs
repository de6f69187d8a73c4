//! The Secret that holds the certificate authorities of an instance: one that signs, and while it
//! is being replaced one more, which either does not sign yet or does not sign any more. Pure.
//!
//! All of them are in one Secret, so that each step of a rotation is one write that happens or does
//! not, wherever the controller dies.

use super::Fault;
use crate::controller::error::chain;
use crate::controller::runtime::Authorities;
use crate::pki::{Authority, AuthorityError};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A CA as a Secret holds it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct CaPair {
    /// The CA certificate and its chain (PEM).
    pub(super) certificate: String,
    /// Its private key (PEM).
    pub(super) key: String,
    /// What to trust, where that is not the end of the chain (PEM).
    pub(super) roots: Option<String>,
    /// Where it comes from.
    pub(super) origin: Origin,
}

/// Where a CA comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The operator made it.
    Generated,
    /// The Secret of this name in the instance's namespace.
    Secret(String),
}

/// The CAs of an instance.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Generations {
    /// Counts the CAs that the instance has had, up to the one that signs.
    pub(super) number: i64,
    /// The one that signs.
    pub(super) signing: CaPair,
    /// Leads from it to `previous` (PEM); empty where there is no need or no way.
    cross: String,
    /// The one that is trusted and does not sign yet, and what will lead from it to `signing`.
    pub(super) next: Option<(CaPair, String)>,
    /// The one that is still trusted and does not sign any more.
    pub(super) previous: Option<CaPair>,
    /// Since when all was ready for the next step, which then waits for others to notice.
    pub(super) settling_since: Option<Timestamp>,
    /// The value of the annotation that asked for the last rotation.
    pub(super) honoured: Option<String>,
}

/// A Secret that lacks this key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lacks(pub(super) &'static str);

/// The name of a key in a Secret, before which stands whose it is.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const ROOTS: &str = "ca.crt";
const ORIGIN: &str = "origin";
const CROSS: &str = "cross.crt";
const NEXT: [&str; 4] = ["next.crt", "next.key", "next.ca.crt", "next.origin"];
const NEXT_CROSS: &str = "next.cross.crt";
const PREVIOUS: [&str; 4] = [
    "previous.crt",
    "previous.key",
    "previous.ca.crt",
    "previous.origin",
];
const NUMBER: &str = "generation";
const SETTLING: &str = "settling-since";
const HONOURED: &str = "rotation-request";

impl Generations {
    /// The first CA of an instance, or the only one that is left; `number` is what it is counted
    /// as.
    pub(super) fn only(number: i64, signing: CaPair, honoured: Option<&str>) -> Self {
        Self {
            number,
            signing,
            cross: String::new(),
            next: None,
            previous: None,
            settling_since: None,
            honoured: honoured.map(str::to_owned),
        }
    }

    /// Reads a Secret. One that holds a pair and nothing else is a generated CA; `number` is what
    /// it is counted as.
    pub(super) fn read(data: &BTreeMap<String, ByteString>, number: i64) -> Result<Self, Lacks> {
        let text = |key: &str| text(data, key);
        let pair = |[certificate, key, roots, origin]: [&'static str; 4]| {
            Ok(CaPair {
                certificate: text(certificate).ok_or(Lacks(certificate))?,
                key: text(key).ok_or(Lacks(key))?,
                roots: text(roots),
                origin: text(origin)
                    .and_then(|origin| Some(origin.strip_prefix("Secret/")?.to_owned()))
                    .map_or(Origin::Generated, Origin::Secret),
            })
        };
        let optional = |keys: [&'static str; 4]| text(keys[0]).map(|_| pair(keys)).transpose();
        let next = optional(NEXT)?.map(|next| (next, text(NEXT_CROSS).unwrap_or_default()));
        Ok(Self {
            number: text(NUMBER)
                .and_then(|number| number.parse().ok())
                .unwrap_or(number),
            signing: pair([CERTIFICATE, KEY, ROOTS, ORIGIN])?,
            cross: text(CROSS).unwrap_or_default(),
            next,
            previous: optional(PREVIOUS)?,
            settling_since: text(SETTLING).and_then(|at| at.parse().ok()),
            honoured: text(HONOURED),
        })
    }

    /// What the Secret is to hold under each key that there can be; `None` where it is to hold
    /// nothing.
    pub(super) fn write(&self) -> BTreeMap<&'static str, Option<ByteString>> {
        let mut data = BTreeMap::new();
        let mut set = |key: &'static str, value: Option<&str>| {
            let value = value.filter(|value| !value.is_empty());
            data.insert(key, value.map(|value| ByteString(value.into())));
        };
        let mut pair = |keys: [&'static str; 4], pair: Option<&CaPair>| {
            let origin = pair.map(|pair| match &pair.origin {
                Origin::Generated => "Generated".to_owned(),
                Origin::Secret(name) => format!("Secret/{name}"),
            });
            set(keys[0], pair.map(|it| it.certificate.as_str()));
            set(keys[1], pair.map(|it| it.key.as_str()));
            set(keys[2], pair.and_then(|it| it.roots.as_deref()));
            set(keys[3], origin.as_deref());
        };
        pair([CERTIFICATE, KEY, ROOTS, ORIGIN], Some(&self.signing));
        pair(NEXT, self.next.as_ref().map(|(next, _)| next));
        pair(PREVIOUS, self.previous.as_ref());
        set(CROSS, Some(&self.cross));
        set(
            NEXT_CROSS,
            self.next.as_ref().map(|(_, cross)| cross.as_str()),
        );
        set(NUMBER, Some(&self.number.to_string()));
        let since = self.settling_since.map(|at| at.to_string());
        set(SETTLING, since.as_deref());
        set(HONOURED, self.honoured.as_deref());
        data
    }

    /// `next` gets to be trusted; `cross` leads from it to the one that signs.
    pub(super) fn introduce(self, next: CaPair, cross: String, request: Option<&str>) -> Self {
        Self {
            next: Some((next, cross)),
            settling_since: None,
            honoured: request.map(str::to_owned).or(self.honoured),
            ..self
        }
    }

    /// What was introduced is taken back.
    pub(super) fn withdraw(self) -> Self {
        Self {
            next: None,
            settling_since: None,
            ..self
        }
    }

    /// What was introduced signs from now on.
    pub(super) fn activate(self) -> Self {
        match self.next {
            None => self,
            Some((next, cross)) => Self {
                number: self.number + 1,
                previous: Some(self.signing),
                signing: next,
                cross,
                next: None,
                settling_since: None,
                ..self
            },
        }
    }

    /// What does not sign any more is not trusted any more either.
    pub(super) fn retire(self) -> Self {
        Self {
            previous: None,
            cross: String::new(),
            settling_since: None,
            ..self
        }
    }

    /// The same CA with another certificate.
    pub(super) fn renew(self, signing: CaPair) -> Self {
        Self { signing, ..self }
    }

    /// All is ready for the next step.
    pub(super) fn settle(self, now: Timestamp) -> Self {
        Self {
            settling_since: Some(now),
            ..self
        }
    }

    /// Loads and checks them. Where the one that signs cannot be used, there is none; another that
    /// cannot be used is left out. One that has expired is trusted all the same until it is
    /// [retired](Self::retire): by another clock it may not have.
    pub(super) fn load(&self, now: Timestamp) -> Result<Authorities, AuthorityError> {
        let signing = self.signing.load(now)?;
        let read = |pair: &CaPair| pair.read_authority(now).ok();
        let next = self.next.as_ref().and_then(|(next, _)| read(next));
        let previous = self.previous.as_ref().and_then(read);
        let others: Vec<&Authority> = next.iter().chain(&previous).collect();
        let cross = if previous.is_some() { &self.cross } else { "" };
        let signing = Arc::new(signing.among(&others, cross));
        let in_force = |authority: Authority| {
            let checked = authority.check_in_force(now);
            checked.is_ok().then(|| Arc::new(authority))
        };
        Ok(Authorities {
            signing,
            next: next.and_then(in_force),
            previous: previous.and_then(in_force),
        })
    }
}

impl CaPair {
    /// Reads the pair that a user's Secret `name` holds.
    pub(super) fn read(data: &BTreeMap<String, ByteString>, name: &str) -> Result<Self, Lacks> {
        Ok(Self {
            certificate: text(data, CERTIFICATE).ok_or(Lacks(CERTIFICATE))?,
            key: text(data, KEY).ok_or(Lacks(KEY))?,
            roots: text(data, ROOTS),
            origin: Origin::Secret(name.to_owned()),
        })
    }

    /// Loads and checks it.
    pub(super) fn load(&self, now: Timestamp) -> Result<Authority, AuthorityError> {
        let authority = self.read_authority(now)?;
        authority.check_in_force(now)?;
        Ok(authority)
    }

    fn read_authority(&self, now: Timestamp) -> Result<Authority, AuthorityError> {
        Authority::read(&self.certificate, &self.key, self.roots.as_deref(), now)
    }
}

/// What is wrong with a Secret, as a condition.
pub(super) fn fault_at(place: &str, error: &AuthorityError) -> Fault {
    Fault::new(error.reason(), format!("{place}: {}", chain(error)))
}

/// That a Secret lacks a key, as a condition.
pub(super) fn incomplete(place: &str, lacks: &Lacks) -> Fault {
    Fault::new("SecretIncomplete", format!("{place} has no {}", lacks.0))
}

fn text(data: &BTreeMap<String, ByteString>, key: &str) -> Option<String> {
    let ByteString(value) = data.get(key)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

#[cfg(test)]
mod tests;
