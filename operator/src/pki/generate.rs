//! Makes the certificate authority of an instance.

use super::leaf::SerialNumber;
use super::{backdated, to_offset_date_time};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, DnValue, IsCa, KeyPair,
    KeyUsagePurpose, RsaKeySize,
};
use volttron_crds::{GeneratedAuthority, InstanceName, KeyAlgorithm};

/// A new CA, as it goes into its Secret.
pub struct GeneratedPair {
    /// The certificate (PEM).
    pub certificate: String,
    /// The private key (PKCS #8, PEM).
    pub key: String,
}

/// Makes the self-signed CA number `generation` of `instance`. Each one has a name of its own:
/// where two CAs share a name, building a path and finding a revocation list are guesswork.
///
/// # Errors
/// [`rcgen::Error`] where the key cannot be made.
pub fn generate(
    instance: &InstanceName,
    settings: &GeneratedAuthority,
    generation: i64,
    now: Timestamp,
) -> Result<GeneratedPair, rcgen::Error> {
    let key = match settings.key_algorithm {
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        KeyAlgorithm::Rsa3072 => {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?
        }
        KeyAlgorithm::Rsa4096 => {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)?
        }
    };
    let life = SignedDuration::try_from(settings.life()).unwrap_or(SignedDuration::MAX);
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::random().to_rcgen());
    params.distinguished_name = subject(instance, settings, generation)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = to_offset_date_time(backdated(now));
    params.not_after = to_offset_date_time(now.saturating_add(life).unwrap_or(Timestamp::MAX));
    Ok(GeneratedPair {
        certificate: params.self_signed(&key)?.pem().replace("\r\n", "\n"),
        key: key.serialize_pem(),
    })
}

fn subject(
    instance: &InstanceName,
    settings: &GeneratedAuthority,
    generation: i64,
) -> Result<DistinguishedName, rcgen::Error> {
    let mut name = DistinguishedName::new();
    let subject = &settings.subject;
    if let Some(country) = &subject.country {
        // The one attribute that must be a PrintableString (RFC 5280, A.1, X520countryName).
        let country = country.as_str().try_into()?;
        name.push(DnType::CountryName, DnValue::PrintableString(country));
    }
    let words = [
        (DnType::StateOrProvinceName, &subject.state),
        (DnType::LocalityName, &subject.locality),
        (DnType::OrganizationName, &subject.organization),
        (DnType::OrganizationalUnitName, &subject.organizational_unit),
    ];
    for (kind, value) in words {
        if let Some(value) = value {
            name.push(kind, value.as_str());
        }
    }
    let common_name = match generation {
        ..=1 => format!("{instance} root CA"),
        _ => format!("{instance} root CA G{generation}"),
    };
    name.push(DnType::CommonName, common_name);
    Ok(name)
}
