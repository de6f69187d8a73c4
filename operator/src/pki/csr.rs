//! Reads a certificate signing request (PKCS #10, RFC 2986) and checks everything that is to be
//! checked. Only the public key leaves this module together with the checked name: subject
//! attributes, extensions and attributes of the request are never copied into a certificate.

use super::sha256_hex;
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::str::FromStr;
use volttron_crds::{CommonName, InstanceName, InvalidName};
use x509_parser::asn1_rs::{FromDer, Oid, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry as oid;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The longest PEM that is looked at, in bytes. Longer input is refused before any parsing.
pub const MAX_PEM_BYTES: usize = 36_500;

/// Local instance words that begin identities of VOLTTRON's own agents (`known_identities` of
/// VOLTTRON 9). A remote that calls itself so could ask for the name of a core agent:
/// `central.platform.driver` is the platform driver of `central`.
const RESERVED_LOCAL_INSTANCES: &[&str] = &[
    "platform",
    "control",
    "config",
    "router",
    "zmq",
    "pubsub",
    "master",
    "keydiscovery",
    "auth",
    "proxy",
    "external_rpc",
    "vc",
    "amq",
];

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

/// A request that passed every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedRequest {
    /// Who asks.
    pub common_name: CommonName,
    /// The key that asks; it signed the request.
    pub key: SubjectKey,
}

/// A public key that is fit for a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubjectKey {
    /// The subject public key info (RFC 5280, section 4.1.2.7), DER.
    pub spki: Vec<u8>,
    /// The kind of key.
    pub algorithm: KeyKind,
}

impl SubjectKey {
    /// SHA-256 of the subject public key info, in hex.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        sha256_hex(&self.spki)
    }
}

/// Keys that are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// RSA, with the size of its modulus in bits.
    Rsa(usize),
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
}

impl std::fmt::Display for KeyKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA {bits}"),
            Self::P256 => f.write_str("ECDSA P-256"),
            Self::P384 => f.write_str("ECDSA P-384"),
        }
    }
}

/// Why a request is not signed. [`Self::reason`] is the condition's reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `spec.request` is not base64 (RFC 4648).
    #[error("spec.request is not base64: encode the PEM file with `base64 -w0`")]
    NotBase64,
    /// Longer than [`MAX_PEM_BYTES`].
    #[error("the signing request is {0} bytes long; at most {MAX_PEM_BYTES} are accepted")]
    TooLarge(usize),
    /// Not one PEM block of a signing request (RFC 7468).
    #[error("spec.request does not decode to one PEM block CERTIFICATE REQUEST: {0}")]
    NotPem(&'static str),
    /// Not DER of a certification request, or something follows it.
    #[error("the PEM block is no PKCS #10 certification request: {0}")]
    Malformed(&'static str),
    /// A signature algorithm that is not accepted.
    #[error(
        "the request is signed with {0}; accepted are RSA or ECDSA (P-256, P-384) with SHA-256, \
         SHA-384 or SHA-512"
    )]
    UnsupportedSignature(String),
    /// A key that is not accepted.
    #[error("the public key is not accepted: {0}")]
    UnsupportedKey(String),
    /// The signature is not by the key in the request.
    #[error("the request's signature was not made by the key in it")]
    BadSignature,
    /// The subject has no common name.
    #[error("the subject has no common name; it must be <instance>.<local instance>.<identity>")]
    NoCommonName,
    /// The subject has more than one common name.
    #[error("the subject has {0} common names; it must have exactly one")]
    SeveralCommonNames(usize),
    /// The common name is of a string type that is not accepted.
    #[error("the common name is neither a UTF8String nor a PrintableString")]
    CommonNameType,
    /// The common name is no VOLTTRON name.
    #[error("the subject's common name is refused: {0}")]
    InvalidCommonName(#[from] InvalidName),
    /// The common name begins with another instance's name.
    #[error("common name {common_name} is not of this instance: it must begin with {instance:?}")]
    OtherInstance {
        /// The name that was asked for.
        common_name: String,
        /// The instance that was asked.
        instance: String,
    },
    /// The common name is, or could be taken for, one that is not given away.
    #[error("common name {0} is reserved: {1}")]
    Reserved(String, &'static str),
}

impl Rejection {
    /// The `reason` of the condition: one word in CamelCase, as the API conventions want it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NotBase64 => "InvalidBase64",
            Self::TooLarge(_) => "RequestTooLarge",
            Self::NotPem(_) => "InvalidPEM",
            Self::Malformed(_) => "MalformedRequest",
            Self::UnsupportedSignature(_) => "UnsupportedSignature",
            Self::UnsupportedKey(_) => "UnsupportedKey",
            Self::BadSignature => "InvalidSignature",
            Self::NoCommonName
            | Self::SeveralCommonNames(_)
            | Self::CommonNameType
            | Self::InvalidCommonName(_) => "InvalidCommonName",
            Self::OtherInstance { .. } => "WrongInstance",
            Self::Reserved(..) => "ReservedName",
        }
    }
}

/// Checks `encoded` (base64 of a PEM certification request) against `profile`.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn validate(encoded: &str, profile: &RequestProfile) -> Result<CheckedRequest, Rejection> {
    let checked = check(encoded, profile.min_rsa_bits)?;
    admit(&checked.common_name, profile)?;
    Ok(checked)
}

/// Checks what can be checked before the instance is known.
///
/// # Errors
/// The first [`Rejection`] that applies.
pub fn check(encoded: &str, min_rsa_bits: i32) -> Result<CheckedRequest, Rejection> {
    let der = decode(encoded)?;
    let (rest, csr) = X509CertificationRequest::from_der(&der)
        .map_err(|_| Rejection::Malformed("it is not valid DER, or cut short"))?;
    if !rest.is_empty() {
        return Err(Rejection::Malformed("there are bytes after its end"));
    }
    if csr.certification_request_info.version.0 != 0 {
        return Err(Rejection::Malformed("its version is not v1(0)"));
    }
    let key = subject_key(&csr.certification_request_info.subject_pki, min_rsa_bits)?;
    verify(&csr, &key)?;
    Ok(CheckedRequest {
        common_name: common_name(&csr)?,
        key,
    })
}

fn decode(encoded: &str) -> Result<Vec<u8>, Rejection> {
    let compact: String = encoded.split_ascii_whitespace().collect();
    let length = compact.len() / 4 * 3;
    if length > MAX_PEM_BYTES + 3 {
        return Err(Rejection::TooLarge(length));
    }
    let text = STANDARD.decode(compact).map_err(|_| Rejection::NotBase64)?;
    if text.len() > MAX_PEM_BYTES {
        return Err(Rejection::TooLarge(text.len()));
    }
    if text.starts_with(&[0x30]) {
        return Err(Rejection::NotPem("it looks like DER; encode the PEM file"));
    }
    let text = String::from_utf8(text).map_err(|_| Rejection::NotPem("it is not text"))?;
    let mut blocks = pem::parse_many(&text)
        .map_err(|_| Rejection::NotPem("the block is damaged or cut short"))?;
    let block = match (blocks.pop(), blocks.is_empty()) {
        (Some(block), true) => block,
        (None, _) if text.contains("-----BEGIN") => {
            return Err(Rejection::NotPem("the block is damaged or cut short"));
        }
        (None, _) => return Err(Rejection::NotPem("there is no PEM block")),
        (Some(_), false) => return Err(Rejection::NotPem("there is more than one block")),
    };
    if !matches!(
        block.tag(),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST"
    ) {
        return Err(Rejection::NotPem("the block is of another kind"));
    }
    if block.headers().iter().next().is_some() {
        return Err(Rejection::NotPem("the block has headers"));
    }
    if text.matches("-----BEGIN").count() != 1 || text.matches("-----END").count() != 1 {
        return Err(Rejection::NotPem("there is more than one block"));
    }
    Ok(block.into_contents())
}

fn subject_key(
    spki: &SubjectPublicKeyInfo<'_>,
    min_rsa_bits: i32,
) -> Result<SubjectKey, Rejection> {
    let refuse = |what: String| Rejection::UnsupportedKey(what);
    // rcgen compares the whole AlgorithmIdentifier, so foreign and explicit curve parameters end here.
    rcgen::SubjectPublicKeyInfo::from_der(spki.raw).map_err(|_| {
        refuse("accepted are RSA, and ECDSA on the named curves P-256 and P-384".to_owned())
    })?;
    let parsed = spki
        .parsed()
        .map_err(|_| refuse("it does not parse".to_owned()))?;
    let algorithm = match parsed {
        PublicKey::RSA(key) => {
            let bits = significant_bits(key.modulus);
            let minimum = usize::try_from(min_rsa_bits).unwrap_or(usize::MAX);
            if bits < minimum || bits > 8192 {
                return Err(refuse(format!(
                    "RSA with {bits} bits; this instance accepts {minimum} to 8192"
                )));
            }
            if !is_sound_rsa_exponent(key.exponent) {
                return Err(refuse(
                    "the RSA exponent must be odd, at least 65537 and at most 33 bits".to_owned(),
                ));
            }
            KeyKind::Rsa(bits)
        }
        PublicKey::EC(_) => match spki.subject_public_key.data.as_ref() {
            [0x04, point @ ..] if point.len() == 64 && names_curve(spki, &oid::OID_EC_P256) => {
                KeyKind::P256
            }
            [0x04, point @ ..]
                if point.len() == 96 && names_curve(spki, &oid::OID_NIST_EC_P384) =>
            {
                KeyKind::P384
            }
            _ => {
                return Err(refuse(
                    "ECDSA keys must be uncompressed points of P-256 or P-384".to_owned(),
                ));
            }
        },
        _ => {
            return Err(refuse(
                "accepted are RSA, ECDSA P-256 and ECDSA P-384".to_owned(),
            ));
        }
    };
    Ok(SubjectKey {
        spki: spki.raw.to_vec(),
        algorithm,
    })
}

fn names_curve(spki: &SubjectPublicKeyInfo<'_>, curve: &Oid<'_>) -> bool {
    let parameters = spki.algorithm.parameters.as_ref();
    parameters
        .and_then(|p| p.as_oid().ok())
        .is_some_and(|named| named == *curve)
}

fn significant_bits(number: &[u8]) -> usize {
    let number = strip_zeros(number);
    let leading = number
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    number.len() * 8 - leading
}

fn is_sound_rsa_exponent(exponent: &[u8]) -> bool {
    let exponent = strip_zeros(exponent);
    if exponent.len() > 5 {
        return false;
    }
    let value = exponent
        .iter()
        .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    value >= 65_537 && value % 2 == 1 && value < 1 << 33
}

fn strip_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn verify(csr: &X509CertificationRequest<'_>, key: &SubjectKey) -> Result<(), Rejection> {
    let signed_with = &csr.signature_algorithm.algorithm;
    let algorithm = verification_algorithm(key.algorithm, signed_with).ok_or_else(|| {
        let name = oid::OidRegistry::default()
            .with_crypto()
            .get(signed_with)
            .map_or_else(|| signed_with.to_id_string(), |entry| entry.sn().to_owned());
        Rejection::UnsupportedSignature(format!("{name} by a key of kind {}", key.algorithm))
    })?;
    let public_key = csr
        .certification_request_info
        .subject_pki
        .subject_public_key
        .data
        .as_ref();
    if csr.signature_value.unused_bits != 0 {
        return Err(Rejection::BadSignature);
    }
    UnparsedPublicKey::new(algorithm, public_key)
        .verify(
            csr.certification_request_info.raw,
            csr.signature_value.data.as_ref(),
        )
        .map_err(|_| Rejection::BadSignature)
}

fn verification_algorithm(
    key: KeyKind,
    signed_with: &Oid<'_>,
) -> Option<&'static dyn VerificationAlgorithm> {
    let is = |candidate: &Oid<'_>| signed_with == candidate;
    Some(match key {
        KeyKind::Rsa(_) if is(&oid::OID_PKCS1_SHA256WITHRSA) => {
            &signature::RSA_PKCS1_2048_8192_SHA256
        }
        KeyKind::Rsa(_) if is(&oid::OID_PKCS1_SHA384WITHRSA) => {
            &signature::RSA_PKCS1_2048_8192_SHA384
        }
        KeyKind::Rsa(_) if is(&oid::OID_PKCS1_SHA512WITHRSA) => {
            &signature::RSA_PKCS1_2048_8192_SHA512
        }
        KeyKind::P256 if is(&oid::OID_SIG_ECDSA_WITH_SHA256) => &signature::ECDSA_P256_SHA256_ASN1,
        KeyKind::P256 if is(&oid::OID_SIG_ECDSA_WITH_SHA384) => &signature::ECDSA_P256_SHA384_ASN1,
        KeyKind::P256 if is(&oid::OID_SIG_ECDSA_WITH_SHA512) => &signature::ECDSA_P256_SHA512_ASN1,
        KeyKind::P384 if is(&oid::OID_SIG_ECDSA_WITH_SHA256) => &signature::ECDSA_P384_SHA256_ASN1,
        KeyKind::P384 if is(&oid::OID_SIG_ECDSA_WITH_SHA384) => &signature::ECDSA_P384_SHA384_ASN1,
        KeyKind::P384 if is(&oid::OID_SIG_ECDSA_WITH_SHA512) => &signature::ECDSA_P384_SHA512_ASN1,
        _ => return None,
    })
}

fn common_name(csr: &X509CertificationRequest<'_>) -> Result<CommonName, Rejection> {
    let subject = &csr.certification_request_info.subject;
    let names: Vec<_> = subject.iter_common_name().collect();
    let name = match names.as_slice() {
        [] => return Err(Rejection::NoCommonName),
        [name] => name.attr_value(),
        several => return Err(Rejection::SeveralCommonNames(several.len())),
    };
    if !matches!(name.tag(), Tag::Utf8String | Tag::PrintableString) {
        return Err(Rejection::CommonNameType);
    }
    let text = std::str::from_utf8(name.data).map_err(|_| Rejection::CommonNameType)?;
    if text.chars().count() > 64 {
        return Err(InvalidName::TooLong(text.chars().count()).into());
    }
    Ok(CommonName::from_str(text)?)
}

fn admit(common_name: &CommonName, profile: &RequestProfile) -> Result<(), Rejection> {
    let full = common_name.to_string();
    if profile.reserved_names.contains(&full) {
        return Err(Rejection::Reserved(
            full,
            "it is an account of the operator",
        ));
    }
    if *common_name.instance() != profile.instance {
        return Err(Rejection::OtherInstance {
            common_name: full,
            instance: profile.instance.to_string(),
        });
    }
    if RESERVED_LOCAL_INSTANCES.contains(&common_name.local_instance().as_str()) {
        return Err(Rejection::Reserved(
            full,
            "its second word begins the names of VOLTTRON's own agents, so the remote's instance \
             name must be another",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
