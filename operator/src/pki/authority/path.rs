//! The certification path of a CA (RFC 5280, section 6): its own certificate, those above it, and the
//! root. Whoever verifies a leaf looks at each of them, so that one that is no good spoils them all.

use super::AuthorityError;
use crate::pki::to_timestamp;
use jiff::Timestamp;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest subject in a message.
const SUBJECT: usize = 100;

/// The CA certificates from the one that signs leaves up to the root.
pub(super) struct Path(Vec<Link>);

struct Link {
    /// Where it is and what it is called, for messages.
    which: String,
    not_before: Timestamp,
    not_after: Timestamp,
    length: Option<u32>,
}

/// A certificate, and the field and place it was read from.
#[derive(Clone, Copy)]
pub(super) struct Located<'a> {
    pub(super) certificate: &'a X509Certificate<'a>,
    pub(super) field: &'static str,
    pub(super) index: usize,
}

impl Located<'_> {
    fn which(self) -> String {
        let subject: String = (self.certificate.subject().to_string().chars())
            .take(SUBJECT)
            .collect();
        let number = self.index + 1;
        format!("certificate {number} of {} ({subject})", self.field)
    }
}

impl Path {
    /// Checks that each of `certificates`, the CA that signs leaves first and the root last, is a
    /// CA that may sign the one before it.
    pub(super) fn check(certificates: &[Located<'_>]) -> Result<Self, AuthorityError> {
        let mut links = Vec::with_capacity(certificates.len());
        // Self-issued certificates do not count (RFC 5280, section 4.2.1.9).
        let mut below = 0;
        for located in certificates {
            check_may_sign(*located, links.is_empty())?;
            let certificate = located.certificate;
            let length = path_length(certificate);
            if let Some(allowed) = length.filter(|allowed| *allowed < below) {
                let which = located.which();
                return Err(AuthorityError::PathTooLong {
                    which,
                    allowed,
                    below,
                });
            }
            below += u32::from(certificate.issuer().as_raw() != certificate.subject().as_raw());
            links.push(Link {
                which: located.which(),
                not_before: to_timestamp(certificate.validity().not_before),
                not_after: to_timestamp(certificate.validity().not_after),
                length,
            });
        }
        Ok(Self(links))
    }

    /// Checks that all are in force.
    pub(super) fn check_in_force(&self, now: Timestamp) -> Result<(), AuthorityError> {
        for link in &self.0 {
            let which = || link.which.clone();
            if now >= link.not_after {
                let (which, at) = (which(), link.not_after);
                return Err(AuthorityError::Expired { which, at });
            }
            if now < link.not_before {
                let (which, at) = (which(), link.not_before);
                return Err(AuthorityError::NotYetValid { which, at });
            }
        }
        Ok(())
    }

    /// How many CA certificates there are below the root.
    pub(super) fn depth(&self) -> usize {
        self.0.len() - 1
    }

    /// Whether the path length constraints leave room for a CA below this one that has `depth` CAs
    /// below itself.
    pub(super) fn has_room_for(&self, depth: usize) -> bool {
        (self.0.iter().enumerate()).all(|(above, link)| {
            link.length.is_none_or(|length| {
                usize::try_from(length).unwrap_or(usize::MAX) > above.saturating_add(depth)
            })
        })
    }

    /// From when all are in force.
    pub(super) fn not_before(&self) -> Timestamp {
        let begins = self.0.iter().map(|link| link.not_before);
        begins.max().unwrap_or(Timestamp::MAX)
    }

    /// The one whose life ends first, and when.
    pub(super) fn first_to_end(&self) -> (&str, Timestamp) {
        let first = self.0.iter().min_by_key(|link| link.not_after);
        first.map_or(("", Timestamp::MIN), |link| (&link.which, link.not_after))
    }
}

fn check_may_sign(located: Located<'_>, signs_leaves: bool) -> Result<(), AuthorityError> {
    let ca = located.certificate;
    let malformed = |_| AuthorityError::CertificateMalformed(located.field);
    if !ca.is_ca() {
        return Err(AuthorityError::NotACa(located.which()));
    }
    let Some(usage) = ca.key_usage().map_err(malformed)? else {
        return Ok(());
    };
    let lacks = if !usage.value.key_cert_sign() {
        "keyCertSign"
    } else if signs_leaves && !usage.value.crl_sign() {
        // A broker takes no notice of a list that is signed in spite of it, and lets nobody in.
        "cRLSign"
    } else {
        return Ok(());
    };
    let which = located.which();
    Err(AuthorityError::MayNotSign { which, lacks })
}

fn path_length(ca: &X509Certificate<'_>) -> Option<u32> {
    ca.basic_constraints().ok()??.value.path_len_constraint
}

/// The certificates in `text` (PEM), each in DER; `field` is where it is from.
pub(super) fn certificate_blocks(
    text: &str,
    field: &'static str,
) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let malformed = || AuthorityError::CertificateMalformed(field);
    let blocks = pem::parse_many(text).map_err(|_| malformed())?;
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(pem::Pem::into_contents)
        .collect();
    if certificates.is_empty() {
        return Err(malformed());
    }
    Ok(certificates)
}

/// Parses certificates in DER; `field` is where they are from.
pub(super) fn parse<'a>(
    blocks: &'a [Vec<u8>],
    field: &'static str,
) -> Result<Vec<X509Certificate<'a>>, AuthorityError> {
    let parse = |der: &'a Vec<u8>| match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(AuthorityError::CertificateMalformed(field)),
    };
    blocks.iter().map(parse).collect()
}

/// Whether `certificate` carries the name of `issuer` and a signature of its key.
pub(super) fn has_signed(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

/// Whether `certificate` is a root.
pub(super) fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    has_signed(certificate, certificate)
}

#[cfg(test)]
mod tests;
