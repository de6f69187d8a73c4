//! The certificate authority of an instance, as it was read and checked.

use super::leaf::spki;
use super::name_hash::{NameHashError, list_file_of};
use super::{sha256_hex, to_pem, to_timestamp};
use jiff::Timestamp;
use rcgen::{Issuer, KeyIdMethod, KeyPair};
use std::fmt;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};

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
    path_lengths: Vec<Option<u32>>,
    depth: usize,
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
}

/// The Debug of an authority never shows its key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("sha256", &self.certificate.sha256)
            .finish_non_exhaustive()
    }
}

/// Why a certificate and key are no authority. The messages name the fields of the Secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// `tls.crt` is not PEM of certificates.
    #[error("tls.crt is not PEM of X.509 certificates")]
    CertificateMalformed,
    /// `tls.key` is no private key that can be used.
    #[error("tls.key is not a PKCS #8 private key (PEM) of RSA, ECDSA P-256 or P-384")]
    KeyMalformed(#[source] rcgen::Error),
    /// The key belongs to another certificate.
    #[error("tls.key does not fit tls.crt: the public keys differ")]
    KeyMismatch,
    /// The certificate has run out.
    #[error("the CA certificate expired at {0}")]
    Expired(Timestamp),
    /// The certificate is not in force yet.
    #[error("the CA certificate is not valid before {0}")]
    NotYetValid(Timestamp),
    /// basicConstraints does not say CA:TRUE.
    #[error("tls.crt is no CA certificate: its basicConstraints do not say CA:TRUE")]
    NotACa,
    /// keyUsage does not allow to sign certificates or revocation lists.
    #[error(
        "the CA certificate's keyUsage does not allow {0}; both keyCertSign and cRLSign are needed"
    )]
    MayNotSign(&'static str),
    /// An intermediate CA without its root.
    #[error(
        "tls.crt is an intermediate CA without its root: append the chain up to the self-signed \
         root to tls.crt, or put the root into ca.crt"
    )]
    NoRoot,
    /// Brokers cannot look a revocation list up by the CA's name.
    #[error("the subject of the CA certificate cannot be used")]
    Name(#[source] NameHashError),
    /// What is to be trusted did not sign the chain.
    #[error("ca.crt does not hold the root that tls.crt leads to")]
    ForeignRoot,
    /// The chain does not lead from one certificate to the next.
    #[error("tls.crt is no chain: certificate {0} did not sign the one before it")]
    BrokenChain(usize),
}

impl AuthorityError {
    /// The `reason` of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CertificateMalformed => "InvalidCertificate",
            Self::KeyMalformed(_) => "InvalidKey",
            Self::KeyMismatch => "KeyMismatch",
            Self::Expired(_) => "Expired",
            Self::NotYetValid(_) => "NotYetValid",
            Self::NotACa => "NotACertificateAuthority",
            Self::MayNotSign(_) => "KeyUsageForbidsSigning",
            Self::Name(_) => "UnsupportedSubject",
            Self::NoRoot | Self::ForeignRoot | Self::BrokenChain(_) => "IncompleteChain",
        }
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
        let blocks = certificate_blocks(certificates)?;
        let parsed = blocks
            .iter()
            .map(|der| parse(der))
            .collect::<Result<Vec<_>, _>>()?;
        let (Some(ca), Some(last)) = (parsed.first(), parsed.last()) else {
            return Err(AuthorityError::CertificateMalformed);
        };
        let key = KeyPair::from_pem(key).map_err(AuthorityError::KeyMalformed)?;
        if spki(&key) != ca.public_key().raw {
            return Err(AuthorityError::KeyMismatch);
        }
        check_may_sign(ca)?;
        check_in_force(ca, now)?;
        for (index, pair) in parsed.windows(2).enumerate() {
            if !has_signed(&pair[1], &pair[0]) {
                return Err(AuthorityError::BrokenChain(index + 2));
            }
        }
        let root_blocks = match roots {
            Some(roots) => certificate_blocks(roots)?,
            None if is_self_signed(last) => blocks[blocks.len() - 1..].to_vec(),
            None => return Err(AuthorityError::NoRoot),
        };
        let roots = root_blocks
            .iter()
            .map(|der| parse(der))
            .collect::<Result<Vec<_>, _>>()?;
        let root = roots
            .iter()
            .position(|root| root == last || has_signed(root, last))
            .ok_or(AuthorityError::ForeignRoot)?;
        let own_intermediates: String = parsed
            .iter()
            .zip(&blocks)
            .filter(|(certificate, _)| !is_self_signed(certificate))
            .map(|(_, der)| to_pem("CERTIFICATE", der))
            .collect();
        let chain = parsed
            .iter()
            .chain((roots[root] != *last).then(|| &roots[root]));
        let path_lengths: Vec<_> = chain.map(path_length).collect();
        let certificate = CaCertificate::new(&blocks[0], ca);
        let issuer = Issuer::from_ca_cert_der(&certificate.der.clone().into(), key)
            .map_err(|_| AuthorityError::CertificateMalformed)?;
        let authority = Self {
            issuer,
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
            depth: path_lengths.len() - 1,
            path_lengths,
        };
        list_file_of(&authority).map_err(AuthorityError::Name)?;
        Ok(authority)
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
        self.depth
    }

    pub(super) fn own_intermediates(&self) -> &str {
        &self.own_intermediates
    }

    /// Whether the path length constraints of this CA and those above it leave room for a CA
    /// below it that has `depth` CAs below itself.
    pub(super) fn has_room_for(&self, depth: usize) -> bool {
        (self.path_lengths.iter().enumerate()).all(|(above, length)| {
            length.is_none_or(|length| {
                usize::try_from(length).unwrap_or(usize::MAX) > above.saturating_add(depth)
            })
        })
    }

    /// Whether this authority's key signed `certificate`.
    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok((_, key)) =
            x509_parser::x509::SubjectPublicKeyInfo::from_der(&self.certificate.spki)
        else {
            return false;
        };
        certificate.issuer().as_raw() == self.certificate.subject
            && certificate.verify_signature(Some(&key)).is_ok()
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

    /// Whether `other` is the same CA with a certificate of its own: the same name, key and roots,
    /// so that either verifies what the other has signed.
    #[must_use]
    pub fn is_renewal_of(&self, other: &Self) -> bool {
        self.certificate.same_key(&other.certificate)
            && self.root().same_key(other.root())
            && self.depth == other.depth
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

    /// Start of the CA certificate's life.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.certificate.not_before
    }

    /// End of the CA certificate's life.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.certificate.not_after
    }
}

fn certificate_blocks(text: &str) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let blocks = pem::parse_many(text).map_err(|_| AuthorityError::CertificateMalformed)?;
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(pem::Pem::into_contents)
        .collect();
    if certificates.is_empty() {
        return Err(AuthorityError::CertificateMalformed);
    }
    Ok(certificates)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, AuthorityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(AuthorityError::CertificateMalformed),
    }
}

fn check_may_sign(ca: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    if !ca.is_ca() {
        return Err(AuthorityError::NotACa);
    }
    match ca.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => {
            Err(AuthorityError::MayNotSign("keyCertSign"))
        }
        // A broker takes no notice of a list that is signed in spite of it, and lets nobody in.
        Ok(Some(usage)) if !usage.value.crl_sign() => Err(AuthorityError::MayNotSign("cRLSign")),
        Ok(_) => Ok(()),
        Err(_) => Err(AuthorityError::CertificateMalformed),
    }
}

fn check_in_force(ca: &X509Certificate<'_>, now: Timestamp) -> Result<(), AuthorityError> {
    let not_before = to_timestamp(ca.validity().not_before);
    let not_after = to_timestamp(ca.validity().not_after);
    if now >= not_after {
        return Err(AuthorityError::Expired(not_after));
    }
    if now < not_before {
        return Err(AuthorityError::NotYetValid(not_before));
    }
    Ok(())
}

fn path_length(ca: &X509Certificate<'_>) -> Option<u32> {
    ca.basic_constraints().ok()??.value.path_len_constraint
}

fn has_signed(issuer: &X509Certificate<'_>, certificate: &X509Certificate<'_>) -> bool {
    certificate.issuer().as_raw() == issuer.subject().as_raw()
        && certificate
            .verify_signature(Some(issuer.public_key()))
            .is_ok()
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    has_signed(certificate, certificate)
}

#[cfg(test)]
mod tests;
