//! Signs what the profiles have built.

use super::authority::Authority;
use super::leaf::LeafError;
use super::to_pem;
use rcgen::{CertificateParams, KeyPair, PublicKeyData, SigningKey as _};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Place of `issuer` in a `TBSCertificate` of version 3 (RFC 5280, section 4.1).
const ISSUER: usize = 3;
/// Place of `subject` in a `TBSCertificate` of version 3.
const SUBJECT: usize = 5;
/// Place of `issuer` in a `TBSCertList` of version 2 (RFC 5280, section 5.1).
const LIST_ISSUER: usize = 2;

/// Signs a certificate for `key` and returns it with the certificates between it and the roots
/// (PEM).
pub(super) fn issue(
    params: &CertificateParams,
    key: &impl PublicKeyData,
    authority: &Authority,
) -> Result<String, LeafError> {
    let certificate = params.signed_by(key, authority.issuer())?;
    let der = certificate.der();
    let (_, parsed) = X509Certificate::from_der(der).map_err(|_| LeafError::Encoding)?;
    // RFC 5280, section 4.1.2.4: octet for octet the CA's own name. rcgen keeps one attribute of
    // each type, and loses the others of a name such as DC=org, DC=example.
    let certificate = if parsed.issuer().as_raw() == authority.subject() {
        to_pem("CERTIFICATE", der)
    } else {
        let named = [(ISSUER, authority.subject())];
        to_pem("CERTIFICATE", &replace(der, &named, authority)?)
    };
    Ok(format!("{certificate}{}", authority.intermediates()))
}

/// Signs a CA certificate with the subject `subject` (DER) for `key`, and returns it alone (PEM).
pub(super) fn issue_authority(
    params: &CertificateParams,
    subject: &[u8],
    key: &impl PublicKeyData,
    authority: &Authority,
) -> Result<String, LeafError> {
    let certificate = params.signed_by(key, authority.issuer())?;
    let named = [(ISSUER, authority.subject()), (SUBJECT, subject)];
    Ok(to_pem(
        "CERTIFICATE",
        &replace(certificate.der(), &named, authority)?,
    ))
}

/// Gives a revocation list (DER) the very name of its authority.
pub(super) fn name_list(der: &[u8], authority: &Authority) -> Result<Vec<u8>, LeafError> {
    replace(der, &[(LIST_ISSUER, authority.subject())], authority)
}

/// Replaces elements of what is signed, by their place, and signs it anew.
fn replace(
    signed: &[u8],
    elements: &[(usize, &[u8])],
    authority: &Authority,
) -> Result<Vec<u8>, LeafError> {
    let key: &KeyPair = authority.issuer().key();
    let outer = read_sequence(signed)?;
    let [content, algorithm, _] = outer.as_slice() else {
        return Err(LeafError::Encoding);
    };
    let mut inner = read_sequence(content)?;
    for (place, element) in elements {
        *inner.get_mut(*place).ok_or(LeafError::Encoding)? = element.to_vec();
    }
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            for element in &inner {
                writer.next().write_der(element);
            }
        });
    });
    let signature = key.sign(&content)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&content);
            writer.next().write_der(algorithm);
            writer
                .next()
                .write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

#[allow(
    clippy::redundant_closure_for_method_calls,
    reason = "the method itself does not have the lifetimes that are asked for"
)]
fn read_sequence(der: &[u8]) -> Result<Vec<Vec<u8>>, LeafError> {
    yasna::parse_der(der, |reader| {
        reader.collect_sequence_of(|element| element.read_der())
    })
    .map_err(|_| LeafError::Encoding)
}
