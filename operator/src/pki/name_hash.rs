//! The name under which RabbitMQ looks for the revocation list of a CA.
//!
//! Erlang's `ssl_crl_hash_dir` reads `<hash>.r0` in a folder, where the hash is that of the issuer's
//! distinguished name as OpenSSL 1.0 and later computes it (`X509_NAME_hash`; `openssl crl -hash`):
//! the first four octets of the SHA-1 of a canonical encoding, in little-endian order.
//! Where Erlang's `public_key:short_name_hash` differs from OpenSSL, it is followed.

use super::Authority;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use x509_parser::asn1_rs::{Sequence, SerializeResult, Set, Tag, ToDer, Utf8String};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

/// Attributes that hold a `DirectoryString` (RFC 5280, appendix A.1), as Erlang knows them: CN, SN, L,
/// ST, O, OU, title, name, given name, initials, generation qualifier and pseudonym.
const DIRECTORY_STRINGS: [&str; 12] = [
    "2.5.4.3", "2.5.4.4", "2.5.4.7", "2.5.4.8", "2.5.4.10", "2.5.4.11", "2.5.4.12", "2.5.4.41",
    "2.5.4.42", "2.5.4.43", "2.5.4.44", "2.5.4.65",
];
/// C, serial number and DN qualifier: `PrintableString` alone.
const PRINTABLE_STRINGS: [&str; 3] = ["2.5.4.6", "2.5.4.5", "2.5.4.46"];
/// E-mail address and DC: `IA5String` alone.
const IA5_STRINGS: [&str; 2] = ["1.2.840.113549.1.9.1", "0.9.2342.19200300.100.1.25"];

/// Why a broker cannot find a revocation list of a CA of this name: it would refuse every
/// certificate of that CA.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameHashError {
    /// It is not the DER of a name.
    #[error("the CA's subject is not a distinguished name in DER")]
    Malformed,
    /// Several attributes in one relative distinguished name.
    #[error(
        "the CA's subject has a relative distinguished name of several attributes (such as \
         O=…+CN=…): use a CA with another subject"
    )]
    MultiValued,
    /// A value that Erlang cannot decode.
    #[error(
        "the CA's subject has attribute {attribute} as {found}, which Erlang does not read: use a \
         CA with another subject"
    )]
    StringType {
        /// The attribute's object identifier.
        attribute: String,
        /// The ASN.1 type it was found in.
        found: String,
    },
}

/// The file in which RabbitMQ looks for the revocation list of `authority`.
///
/// # Errors
/// [`NameHashError`] where RabbitMQ cannot look for one.
pub fn list_file_of(authority: &Authority) -> Result<String, NameHashError> {
    name_hash(authority.subject()).map(list_file_name)
}

/// The hash of a distinguished name (DER), as RabbitMQ looks for it.
///
/// Attributes that Erlang does not know, such as a street address, count as they are encoded. OpenSSL
/// makes another hash of such a name.
///
/// # Errors
/// [`NameHashError`] where RabbitMQ cannot make a hash of it.
pub fn name_hash(name: &[u8]) -> Result<u32, NameHashError> {
    let ([], name) = X509Name::from_der(name).map_err(|_| NameHashError::Malformed)? else {
        return Err(NameHashError::Malformed);
    };
    let mut canonical = Vec::new();
    for part in name.iter_rdn() {
        canonical.extend(canonical_part(part)?);
    }
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &canonical);
    let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
    Ok(u32::from_le_bytes(first))
}

fn list_file_name(name_hash: u32) -> String {
    format!("{name_hash:08x}.r0")
}

fn canonical_part(part: &RelativeDistinguishedName<'_>) -> Result<Vec<u8>, NameHashError> {
    let mut attributes = part.iter();
    let (Some(attribute), None) = (attributes.next(), attributes.next()) else {
        return Err(NameHashError::MultiValued);
    };
    let text = known_text(attribute)?;
    encoded(attribute, text).map_err(|_| NameHashError::Malformed)
}

fn encoded(
    attribute: &AttributeTypeAndValue<'_>,
    text: Option<String>,
) -> SerializeResult<Vec<u8>> {
    let mut content = attribute.attr_type().to_der_vec()?;
    content.extend(match text {
        Some(text) => Utf8String::new(&canonical_text(&text)).to_der_vec()?,
        None => attribute.attr_value().to_der_vec()?,
    });
    let sequence = Sequence::new(content.into()).to_der_vec()?;
    Set::new(sequence.into()).to_der_vec()
}

/// The text of an attribute that Erlang knows; none of another.
fn known_text(attribute: &AttributeTypeAndValue<'_>) -> Result<Option<String>, NameHashError> {
    let kind = attribute.attr_type().to_id_string();
    let allowed: &[Tag] = if DIRECTORY_STRINGS.contains(&kind.as_str()) {
        &[Tag::Utf8String, Tag::PrintableString, Tag::TeletexString]
    } else if PRINTABLE_STRINGS.contains(&kind.as_str()) {
        &[Tag::PrintableString]
    } else if IA5_STRINGS.contains(&kind.as_str()) {
        &[Tag::Ia5String]
    } else {
        return Ok(None);
    };
    let tag = attribute.attr_value().tag();
    if !allowed.contains(&tag) {
        return Err(NameHashError::StringType {
            attribute: kind,
            found: tag.to_string(),
        });
    }
    let octets = attribute.as_slice();
    if tag == Tag::TeletexString {
        // Both take it for Latin-1, whose octets are the first code points of Unicode.
        return Ok(Some(octets.iter().copied().map(char::from).collect()));
    }
    let text = std::str::from_utf8(octets).map_err(|_| NameHashError::Malformed)?;
    Ok(Some(text.to_owned()))
}

/// ASCII letters in lower case, and each run of ASCII white space one space, but none at the ends.
fn canonical_text(text: &str) -> String {
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}');
    let words: Vec<&str> = text
        .split(is_space)
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
