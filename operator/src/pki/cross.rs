//! Certificates that lead from a new CA to an old one.

use super::authority::Authority;
use super::issue::issue_authority;
use super::leaf::{LeafError, SerialNumber};
use super::{backdated, to_offset_date_time};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyIdMethod, KeyUsagePurpose, SubjectPublicKeyInfo,
};

/// The chain by which somebody who trusts `old` alone accepts what `new` signs: the name and key
/// of `new`'s root, signed by `old` (RFC 4210, section 4.4.1, `newWithOld`), and the intermediates
/// of `old` (PEM). It is served behind the certificates of `new`.
///
/// The root is what is signed, also where `new` is an intermediate CA: then there is one path
/// from a leaf upwards, and it ends at the root of `new` or goes on to `old`. Libraries that do
/// not go back and try another path, such as OpenSSL, find either.
///
/// `None` where it is not needed, because `old` trusts that root already, or not to be had,
/// because the path length constraint of `old` leaves no room for another CA (RFC 5280, section
/// 4.2.1.9), or because both lives do not overlap.
///
/// # Errors
/// [`LeafError`] where the key of `old` fails.
pub fn cross_sign(
    old: &Authority,
    new: &Authority,
    now: Timestamp,
) -> Result<Option<String>, LeafError> {
    let root = new.root();
    let not_before = backdated(now).max(old.not_before()).max(root.not_before);
    let not_after = old.not_after().min(root.not_after);
    let known = old.roots().iter().any(|known| known.same_key(root));
    if known || !old.has_room_for(new.depth()) || not_after <= now {
        return Ok(None);
    }
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::random().to_rcgen());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    // What the root signed names its key by this identifier.
    if let Some(identifier) = &root.key_identifier {
        params.key_identifier_method = KeyIdMethod::PreSpecified(identifier.clone());
    }
    params.not_before = to_offset_date_time(not_before);
    params.not_after = to_offset_date_time(not_after);
    let key = SubjectPublicKeyInfo::from_der(&root.spki)?;
    let certificate = issue_authority(&params, &root.subject, &key, old)?;
    Ok(Some(format!("{certificate}{}", old.own_intermediates())))
}

#[cfg(test)]
mod tests;
