//! Which keys and signatures are accepted.

use super::super::sha256_hex;
use super::Rejection;
use super::structure::Request;
use aws_lc_rs::signature::{self, ParsedPublicKey, VerificationAlgorithm};
use const_oid::db::rfc5912 as oid;
use der::asn1::{AnyRef, BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use spki::SubjectPublicKeyInfo;

/// The largest RSA modulus, in bits: what aws-lc verifies with.
const MOST_RSA_BITS: usize = 8192;
/// Every odd number below this is tried as a factor of an RSA modulus (NIST SP 800-89, section
/// 5.3.3, step e: no factors smaller than 752).
const TRIAL_DIVISION: u32 = 752;

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

/// Checks a subject public key info (DER).
pub(super) fn subject_key(info: &[u8], min_rsa_bits: i32) -> Result<SubjectKey, Rejection> {
    let refused = |what: &str| Rejection::UnsupportedKey(what.to_owned());
    let parsed = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(info)
        .map_err(|_| refused("its SubjectPublicKeyInfo is not valid DER"))?;
    let key = parsed
        .subject_public_key
        .as_bytes()
        .ok_or_else(|| refused("its BIT STRING has unused bits"))?;
    let parameters = parsed.algorithm.parameters;
    let algorithm = match parsed.algorithm.oid {
        oid::RSA_ENCRYPTION if parameters.is_some_and(AnyRef::is_null) => {
            rsa(key, min_rsa_bits).map_err(Rejection::UnsupportedKey)?
        }
        // RFC 3279, section 2.3.1.
        oid::RSA_ENCRYPTION => return Err(refused("the parameters of an RSA key must be NULL")),
        oid::ID_EC_PUBLIC_KEY => ecdsa(key, parameters).map_err(refused)?,
        _ => {
            return Err(refused(
                "accepted are RSA, and ECDSA on the named curves P-256 and P-384",
            ));
        }
    };
    parse(algorithm, key).map_err(refused)?;
    // The certificate carries the key as rcgen writes it, so that must be what was checked here.
    let written = rcgen::SubjectPublicKeyInfo::from_der(info)
        .map(|key| rcgen::PublicKeyData::subject_public_key_info(&key));
    if written.as_deref() != Ok(info) {
        return Err(refused("its SubjectPublicKeyInfo is not encoded in DER"));
    }
    Ok(SubjectKey {
        spki: info.to_vec(),
        algorithm,
    })
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017, A.1.1).
fn rsa(key: &[u8], min_rsa_bits: i32) -> Result<KeyKind, String> {
    let mut reader = SliceReader::new(key).map_err(|error| error.to_string())?;
    let numbers =
        reader.sequence(|reader| Ok((UintRef::decode(reader)?, UintRef::decode(reader)?)));
    let (Ok((modulus, exponent)), true) = (numbers, reader.is_finished()) else {
        return Err("an RSA key must be two positive integers in DER".to_owned());
    };
    let bits = significant_bits(modulus.as_bytes());
    let minimum = usize::try_from(min_rsa_bits).unwrap_or(usize::MAX);
    if bits < minimum || bits > MOST_RSA_BITS {
        return Err(format!(
            "RSA with {bits} bits; this instance accepts {minimum} to {MOST_RSA_BITS}"
        ));
    }
    if has_small_factor(modulus.as_bytes()) {
        return Err(format!(
            "the RSA modulus is no product of two large primes: it has a factor below {TRIAL_DIVISION}"
        ));
    }
    if !is_sound_rsa_exponent(exponent.as_bytes()) {
        return Err("the RSA exponent must be odd, at least 65537 and at most 33 bits".to_owned());
    }
    Ok(KeyKind::Rsa(bits))
}

fn significant_bits(number: &[u8]) -> usize {
    let leading = number
        .first()
        .map_or(0, |byte| byte.leading_zeros() as usize);
    number.len() * 8 - leading
}

fn has_small_factor(number: &[u8]) -> bool {
    let divides = |divisor: u32| {
        let rest = number
            .iter()
            .fold(0, |rest, byte| (rest << 8 | u32::from(*byte)) % divisor);
        rest == 0
    };
    divides(2) || (3..TRIAL_DIVISION).step_by(2).any(divides)
}

/// aws-lc verifies with exponents of at most 33 bits.
pub(super) fn is_sound_rsa_exponent(exponent: &[u8]) -> bool {
    if exponent.len() > 5 {
        return false;
    }
    let value = exponent
        .iter()
        .fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    value >= 65_537 && value % 2 == 1 && value < 1 << 33
}

/// `ECParameters` must be a named curve, and the point uncompressed (RFC 5480, section 2).
fn ecdsa(point: &[u8], parameters: Option<AnyRef<'_>>) -> Result<KeyKind, &'static str> {
    let parameters = parameters.ok_or("an ECDSA key must name its curve")?;
    if parameters.tag() == Tag::Sequence {
        return Err("explicit curve parameters; a curve must be named (P-256 or P-384)");
    }
    let (kind, octets) = match parameters.decode_as::<ObjectIdentifier>() {
        Ok(oid::SECP_256_R_1) => (KeyKind::P256, 64),
        Ok(oid::SECP_384_R_1) => (KeyKind::P384, 96),
        _ => return Err("the curve of an ECDSA key must be P-256 or P-384"),
    };
    match point {
        [0x04, coordinates @ ..] if coordinates.len() == octets => Ok(kind),
        [0x02 | 0x03, ..] => Err("a compressed point; ECDSA keys must be uncompressed points"),
        _ => Err("ECDSA keys must be uncompressed points of P-256 or P-384"),
    }
}

/// Lets aws-lc take the key: for ECDSA it checks that the point is on the curve (NIST SP 800-56A,
/// section 5.6.2.3.3; its curves have no other subgroup).
fn parse(kind: KeyKind, key: &[u8]) -> Result<ParsedPublicKey, &'static str> {
    let (algorithm, fault): (&'static dyn VerificationAlgorithm, _) = match kind {
        KeyKind::Rsa(_) => (
            &signature::RSA_PKCS1_2048_8192_SHA256,
            "it is no usable RSA key",
        ),
        KeyKind::P256 => (
            &signature::ECDSA_P256_SHA256_ASN1,
            "the point is not on the curve P-256",
        ),
        KeyKind::P384 => (
            &signature::ECDSA_P384_SHA384_ASN1,
            "the point is not on the curve P-384",
        ),
    };
    ParsedPublicKey::new(algorithm, key).map_err(|_| fault)
}

/// Verifies that `key` signed the request: proof that the requester has the private key.
pub(super) fn verify(request: &Request<'_>, key: &SubjectKey) -> Result<(), Rejection> {
    let signed_with = request.algorithm.oid;
    let unsupported = |what: &str| {
        Rejection::UnsupportedSignature(format!("{what} by a key of kind {}", key.algorithm))
    };
    let algorithm = verification_algorithm(key.algorithm, signed_with).ok_or_else(|| {
        let name = const_oid::db::DB.by_oid(&signed_with);
        unsupported(
            name.map_or_else(|| signed_with.to_string(), str::to_owned)
                .as_str(),
        )
    })?;
    let parameters = request.algorithm.parameters;
    let allowed = match key.algorithm {
        // RFC 4055, section 5: NULL, and absent is to be accepted.
        KeyKind::Rsa(_) => parameters.is_none_or(AnyRef::is_null),
        // RFC 5758, section 3.2.
        KeyKind::P256 | KeyKind::P384 => parameters.is_none(),
    };
    if !allowed {
        return Err(unsupported("an algorithm with parameters"));
    }
    let signature = request
        .signature
        .as_bytes()
        .ok_or(Rejection::BadSignature)?;
    let info = SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(&key.spki);
    let bits = info
        .map_err(|_| Rejection::BadSignature)?
        .subject_public_key;
    signature::UnparsedPublicKey::new(algorithm, bits.raw_bytes())
        .verify(request.info, signature)
        .map_err(|_| Rejection::BadSignature)
}

fn verification_algorithm(
    key: KeyKind,
    signed_with: ObjectIdentifier,
) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, signed_with) {
        (KeyKind::Rsa(_), oid::SHA_256_WITH_RSA_ENCRYPTION) => {
            &signature::RSA_PKCS1_2048_8192_SHA256
        }
        (KeyKind::Rsa(_), oid::SHA_384_WITH_RSA_ENCRYPTION) => {
            &signature::RSA_PKCS1_2048_8192_SHA384
        }
        (KeyKind::Rsa(_), oid::SHA_512_WITH_RSA_ENCRYPTION) => {
            &signature::RSA_PKCS1_2048_8192_SHA512
        }
        (KeyKind::P256, oid::ECDSA_WITH_SHA_256) => &signature::ECDSA_P256_SHA256_ASN1,
        (KeyKind::P256, oid::ECDSA_WITH_SHA_384) => &signature::ECDSA_P256_SHA384_ASN1,
        (KeyKind::P256, oid::ECDSA_WITH_SHA_512) => &signature::ECDSA_P256_SHA512_ASN1,
        (KeyKind::P384, oid::ECDSA_WITH_SHA_256) => &signature::ECDSA_P384_SHA256_ASN1,
        (KeyKind::P384, oid::ECDSA_WITH_SHA_384) => &signature::ECDSA_P384_SHA384_ASN1,
        (KeyKind::P384, oid::ECDSA_WITH_SHA_512) => &signature::ECDSA_P384_SHA512_ASN1,
        _ => return None,
    })
}
