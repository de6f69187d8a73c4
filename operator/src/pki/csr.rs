//! Reads a certificate signing request (PKCS #10, RFC 2986) and checks everything that is to be
//! checked. Only the public key leaves this module together with the checked name: subject
//! attributes, extensions and attributes of the request are never copied into a certificate.
//!
//! What is read is read in strict DER, so that no two parsers can see two things in one request;
//! everything is bounded by [`MAX_PEM_BYTES`] and read once, from front to back.

mod armour;
mod key;
mod name;
mod rejection;
mod structure;

pub use armour::MAX_PEM_BYTES;
pub use key::{KeyKind, SubjectKey};
pub use rejection::Rejection;

use volttron_crds::{CommonName, InstanceName};

/// What an instance asks of a request.
#[derive(Clone, Debug)]
pub struct RequestProfile {
    /// The instance that would sign; the first word of the common name.
    pub instance: InstanceName,
    /// The smallest RSA modulus that is accepted, in bits.
    pub min_rsa_bits: i32,
    /// Names of broker users that no certificate may carry, such as the operator's own.
    pub reserved_names: Vec<String>,
}

/// Where a request was filed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the namespace of the instance it is for, whose users are at home there.
    OwnNamespace,
    /// In any other namespace.
    OtherNamespace,
}

/// A request that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedRequest {
    /// Who asks.
    pub common_name: CommonName,
    /// The key that asks; it signed the request.
    pub key: SubjectKey,
}

/// Checks `encoded` (base64 of a PEM certification request) against `profile`.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn validate(
    encoded: &str,
    profile: &RequestProfile,
    origin: Origin,
) -> Result<CheckedRequest, Rejection> {
    let checked = check(encoded, profile.min_rsa_bits)?;
    name::admit(&checked.common_name, profile, origin)?;
    Ok(checked)
}

/// Checks what can be checked before the instance is known.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn check(encoded: &str, min_rsa_bits: i32) -> Result<CheckedRequest, Rejection> {
    let der = armour::decode(encoded)?;
    let request = structure::parse(&der)?;
    let key = key::subject_key(request.key, min_rsa_bits)?;
    key::verify(&request, &key)?;
    Ok(CheckedRequest {
        common_name: name::common_name(&request.subject)?,
        key,
    })
}

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
