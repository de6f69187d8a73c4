//! The certificate authority of an instance, as it was read and checked.

mod error;
mod path;

pub use error::AuthorityError;

use super::leaf::spki;
use super::name_hash::list_file_of;
use super::{sha256_hex, to_pem, to_timestamp};
use jiff::Timestamp;
use path::{Located, Path, certificate_blocks, has_signed, is_self_signed, parse};
use rcgen::{Issuer, KeyIdMethod, KeyPair};
use std::fmt;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

/// The fields of a Secret that hold a CA's chain and what to trust.
const CHAIN: &str = "tls.crt";
const ROOTS: &str = "ca.crt";

/// A certificate authority that may sign: its key fits, it is a CA, and it is in force.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CaCertificate,
    /// The certificates below the root, the CA's own among them where it is an intermediate one.
    own_intermediates: String,
    /// With those that lead to a CA before this one.
    intermediates: String,
    /// What this CA's certificates are verified by; `root` is the place of the one that ends the
    /// chain.
    roots: Vec<CaCertificate>,
    root: usize,
    bundle: String,
    path: Path,
    name: String,
}

/// What is needed of a CA certificate.
#[derive(Clone)]
pub(super) struct CaCertificate {
    der: Vec<u8>,
    /// Its name (DER).
    pub(super) subject: Vec<u8>,
    /// Its subject public key info (DER).
    pub(super) spki: Vec<u8>,
    /// Its subject key identifier.
    pub(super) key_identifier: Option<Vec<u8>>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
    sha256: String,
}

impl CaCertificate {
    fn new(der: &[u8], certificate: &X509Certificate<'_>) -> Self {
        let key_identifier = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
                _ => None,
            }
        });
        Self {
            der: der.to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            spki: certificate.public_key().raw.to_vec(),
            key_identifier,
            not_before: to_timestamp(certificate.validity().not_before),
            not_after: to_timestamp(certificate.validity().not_after),
            sha256: sha256_hex(der),
        }
    }

    /// Whether both carry the same name and key, and so verify the same certificates.
    pub(super) fn same_key(&self, other: &Self) -> bool {
        self.subject == other.subject
            && self.spki == other.spki
            && self.key_identifier == other.key_identifier
    }

    /// Whether its key signed `certificate`, in its name.
    fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        SubjectPublicKeyInfo::from_der(&self.spki).is_ok_and(|(_, key)| {
            certificate.issuer().as_raw() == self.subject
                && certificate.verify_signature(Some(&key)).is_ok()
        })
    }
}

/// The Debug of an authority never shows its key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("sha256", &self.certificate.sha256)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Reads and checks a CA: `certificates` is the CA certificate and its chain (PEM), `key` its
    /// private key (PEM), `roots` what to trust if that is not the end of the chain.
    ///
    /// # Errors
    /// [`AuthorityError`] says what is wrong with the Secret.
    pub fn load(
        certificates: &str,
        key: &str,
        roots: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let authority = Self::read(certificates, key, roots, now)?;
        authority.check_in_force(now)?;
        Ok(authority)
    }

    /// As [`Self::load`], of a CA that need not be in force. Of several roots that fit, it is the
    /// one that is in force the longest.
    ///
    /// # Errors
    /// [`AuthorityError`] says what is wrong with the Secret.
    pub fn read(
        certificates: &str,
        key: &str,
        roots: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let malformed = || AuthorityError::CertificateMalformed(CHAIN);
        let blocks = certificate_blocks(certificates, CHAIN)?;
        let parsed = parse(&blocks, CHAIN)?;
        let (Some(ca), Some(last)) = (parsed.first(), parsed.last()) else {
            return Err(malformed());
        };
        let key = KeyPair::from_pem(key).map_err(AuthorityError::KeyMalformed)?;
        if spki(&key) != ca.public_key().raw {
            return Err(AuthorityError::KeyMismatch);
        }
        for (index, pair) in parsed.windows(2).enumerate() {
            if !has_signed(&pair[1], &pair[0]) {
                return Err(AuthorityError::BrokenChain(index + 2));
            }
        }
        let (root_blocks, field, offset) = match roots {
            Some(roots) => (certificate_blocks(roots, ROOTS)?, ROOTS, 0),
            None if is_self_signed(last) => {
                let end = blocks.len() - 1;
                (blocks[end..].to_vec(), CHAIN, end)
            }
            None => return Err(AuthorityError::NoRoot),
        };
        let roots = parse(&root_blocks, field)?;
        let root = longest_lived_root(&roots, last, now).ok_or(AuthorityError::ForeignRoot)?;
        let own_intermediates: String = parsed
            .iter()
            .zip(&blocks)
            .filter(|(certificate, _)| !is_self_signed(certificate))
            .map(|(_, der)| to_pem("CERTIFICATE", der))
            .collect();
        let chain = parsed
            .iter()
            .enumerate()
            .map(|(index, certificate)| Located {
                certificate,
                field: CHAIN,
                index,
            });
        // A root at the end of the chain is not what is trusted where there is another field for it.
        let own = chain.filter(|it| it.index == 0 || !is_self_signed(it.certificate));
        let end = (roots[root] != *ca).then(|| Located {
            certificate: &roots[root],
            field,
            index: offset + root,
        });
        let path = Path::check(&own.chain(end).collect::<Vec<_>>())?;
        let certificate = CaCertificate::new(&blocks[0], ca);
        let issuer = Issuer::from_ca_cert_der(&certificate.der.clone().into(), key)
            .map_err(|_| malformed())?;
        let authority = Self {
            issuer,
            name: ca.subject().to_string(),
            certificate,
            intermediates: own_intermediates.clone(),
            own_intermediates,
            bundle: root_blocks
                .iter()
                .map(|der| to_pem("CERTIFICATE", der))
                .collect(),
            roots: root_blocks
                .iter()
                .zip(&roots)
                .map(|(der, root)| CaCertificate::new(der, root))
                .collect(),
            root,
            path,
        };
        list_file_of(&authority).map_err(AuthorityError::Name)?;
        Ok(authority)
    }

    /// Checks that this CA, and each certificate between it and its root, is in force.
    ///
    /// # Errors
    /// [`AuthorityError`] names the one that is not.
    pub fn check_in_force(&self, now: Timestamp) -> Result<(), AuthorityError> {
        self.path.check_in_force(now)
    }

    /// The same authority in the company of others: its bundle holds their roots behind its own,
    /// and `cross` ([`cross_sign`](super::cross_sign)) is served behind its intermediates.
    #[must_use]
    pub fn among(mut self, others: &[&Self], cross: &str) -> Self {
        self.intermediates = format!("{}{cross}", self.own_intermediates);
        let mut known: Vec<&CaCertificate> = self.roots.iter().collect();
        for root in others.iter().flat_map(|other| &other.roots) {
            if known.iter().all(|known| known.der != root.der) {
                known.push(root);
            }
        }
        self.bundle = known
            .into_iter()
            .map(|root| to_pem("CERTIFICATE", &root.der))
            .collect();
        self
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The CA's name (DER).
    pub(super) fn subject(&self) -> &[u8] {
        &self.certificate.subject
    }

    /// How the CA's key is named in what it signs.
    pub(super) fn key_identifier_method(&self) -> KeyIdMethod {
        match &self.certificate.key_identifier {
            Some(identifier) => KeyIdMethod::PreSpecified(identifier.clone()),
            None => KeyIdMethod::Sha256,
        }
    }

    /// The root at the end of the chain; the CA itself where it is one.
    pub(super) fn root(&self) -> &CaCertificate {
        &self.roots[self.root]
    }

    pub(super) fn roots(&self) -> &[CaCertificate] {
        &self.roots
    }

    /// How many CA certificates there are below the root.
    pub(super) fn depth(&self) -> usize {
        self.path.depth()
    }

    pub(super) fn own_intermediates(&self) -> &str {
        &self.own_intermediates
    }

    /// Whether the path length constraints of this CA and those above it leave room for a CA
    /// below it that has `depth` CAs below itself.
    pub(super) fn has_room_for(&self, depth: usize) -> bool {
        self.path.has_room_for(depth)
    }

    /// Whether this authority's key signed `certificate`.
    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        self.certificate.signed(certificate)
    }

    /// Whether this CA has issued the first certificate of `chain` (PEM). It is recognised by the
    /// CA's name and key identifier (RFC 5280, section 4.2.1.1), which takes no cryptography; by
    /// the signature where one of both carries no identifier.
    #[must_use]
    pub fn issued(&self, chain: &str) -> bool {
        pem::parse(chain).is_ok_and(|block| self.issued_der(block.contents()))
    }

    /// As [`Self::issued`], of a certificate in DER.
    #[must_use]
    pub fn issued_der(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        if certificate.issuer().as_raw() != self.certificate.subject {
            return false;
        }
        let named = certificate.iter_extensions().find_map(|extension| {
            match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(it) => Some(it.key_identifier.as_ref()?.0),
                _ => None,
            }
        });
        match (named, &self.certificate.key_identifier) {
            (Some(named), Some(own)) => named == own,
            _ => self.signed(&certificate),
        }
    }

    /// Whether who shows `chain` (DER, the leaf first) is accepted only as long as this CA is trusted,
    /// whose place `successor` takes. Where both have one name and key, such as an intermediate CA
    /// that another root has signed, the leaf is either's, and what comes behind it tells.
    #[must_use]
    pub fn is_needed_for(&self, chain: &[impl AsRef<[u8]>], successor: &Self) -> bool {
        let Some((leaf, behind)) = chain.split_first() else {
            return false;
        };
        if !self.issued_der(leaf.as_ref()) {
            return false;
        }
        if !self.certificate.same_key(&successor.certificate) {
            return true;
        }
        let leads_to_successor = |der: &_| {
            let parsed = X509Certificate::from_der(AsRef::<[u8]>::as_ref(der));
            parsed.is_ok_and(|(_, it)| successor.root().signed(&it))
        };
        successor.depth() > 0 && !behind.iter().any(leads_to_successor)
    }

    /// Whether somebody who looks for the revocation list of this CA may find that of `other`: both
    /// have one name as brokers compare it, and not one key.
    #[must_use]
    pub fn is_namesake_of(&self, other: &Self) -> bool {
        list_file_of(self) == list_file_of(other) && !self.certificate.same_key(&other.certificate)
    }

    /// Whether `other` is the same CA with a certificate of its own: the same name, key and roots,
    /// so that either verifies what the other has signed.
    #[must_use]
    pub fn is_renewal_of(&self, other: &Self) -> bool {
        self.certificate.same_key(&other.certificate)
            && self.root().same_key(other.root())
            && self.depth() == other.depth()
    }

    /// Certificates between a leaf and the roots (PEM); empty where the CA is the root and no
    /// other is known.
    #[must_use]
    pub fn intermediates(&self) -> &str {
        &self.intermediates
    }

    /// The certificates to trust (PEM).
    #[must_use]
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// SHA-256 of the CA certificate (DER), in hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.certificate.sha256
    }

    /// The CA's name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// From when the CA certificate and all above it are in force.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.path.not_before()
    }

    /// When the first of the CA certificate and those above it runs out: nothing that this CA
    /// signs is accepted for longer.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.path.first_to_end().1
    }

    /// The certificate that ends at [`Self::not_after`], for people.
    #[must_use]
    pub fn first_to_end(&self) -> &str {
        self.path.first_to_end().0
    }
}

/// The place of the root among `roots` that `last` is or was signed by.
fn longest_lived_root(
    roots: &[X509Certificate<'_>],
    last: &X509Certificate<'_>,
    now: Timestamp,
) -> Option<usize> {
    let fit = roots.iter().enumerate();
    let fit = fit.filter(|(_, root)| *root == last || has_signed(root, last));
    let longest = fit.max_by_key(|(_, root)| {
        let begun = to_timestamp(root.validity().not_before) <= now;
        (begun, to_timestamp(root.validity().not_after))
    });
    longest.map(|(place, _)| place)
}

#[cfg(test)]
mod tests;
