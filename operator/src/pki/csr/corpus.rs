//! Every request of `tests/hostile/corpus`: it is refused for the reason that stands there, or what
//! is signed for it is the profile and nothing else.

use super::*;
use crate::pki::fixtures::{generation, now};
use crate::pki::{self, Authority, LeafProfile, SerialNumber, SignedCertificate};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate, X509Version};

const LIFE: Duration = Duration::from_hours(48);

static AUTHORITY: LazyLock<Authority> = LazyLock::new(|| generation(1));

pub(super) fn profile() -> RequestProfile {
    RequestProfile {
        instance: "central".parse().unwrap(),
        min_rsa_bits: 2048,
        reserved_names: vec!["volttron-operator".to_owned()],
    }
}

#[test]
fn every_request_of_the_corpus_is_refused_or_signed_as_the_profile_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/hostile/corpus");
    let expected = std::fs::read_to_string(folder.join("expected.tsv")).unwrap();
    let mut wrong = Vec::new();
    let mut files = std::fs::read_dir(&folder).unwrap().count() - 1;
    for line in expected.lines() {
        let [name, outcome, what] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?} is not name, outcome and what")
        };
        let text = std::fs::read(folder.join(format!("{name}.csr"))).unwrap();
        files -= 1;
        let checked = validate(&STANDARD.encode(&text), &profile(), Origin::OtherNamespace);
        let got = checked
            .as_ref()
            .map_or_else(Rejection::reason, |_| "signed");
        if got != outcome {
            wrong.push(format!(
                "{name} ({what}): {got} and not {outcome}: {checked:?}"
            ));
        }
        if let Ok(checked) = checked {
            sign_and_compare(&checked);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(files, 0, "files that expected.tsv does not name");
}

#[test]
fn an_agent_of_the_instance_s_own_namespace_may_be_called_like_one_at_home() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/hostile/corpus");
    let text = std::fs::read(folder.join("name-at-home.csr")).unwrap();
    let checked = validate(&STANDARD.encode(&text), &profile(), Origin::OwnNamespace);
    assert_eq!(
        checked.map(|checked| checked.common_name.to_string()),
        Ok("central.central.forwarder".to_owned())
    );
}

/// Signs a request and compares every field of the certificate with the profile.
pub(super) fn sign_and_compare(checked: &CheckedRequest) {
    for list in [None, Some("http://central.example/crl".to_owned())] {
        let serial = SerialNumber::random();
        let profile = LeafProfile {
            life: LIFE,
            crl_distribution_point: list,
        };
        let signed = pki::sign(&AUTHORITY, checked, &serial, &profile, now()).unwrap();
        assert_profile(checked, &serial, &profile, &signed);
        let adopted = pki::adopt(&AUTHORITY, checked, &serial, &signed.chain);
        assert_eq!(
            adopted.as_ref(),
            Some(&signed),
            "{}: a certificate that is not recognised would be signed again and again",
            checked.common_name
        );
    }
}

fn assert_profile(
    checked: &CheckedRequest,
    serial: &SerialNumber,
    profile: &LeafProfile,
    signed: &SignedCertificate,
) {
    let name = checked.common_name.to_string();
    let blocks = pem::parse_many(&signed.chain).unwrap();
    assert_eq!(blocks.len(), 1, "{name}: one certificate");
    let (rest, certificate) = X509Certificate::from_der(blocks[0].contents()).unwrap();
    assert!(rest.is_empty(), "{name}");
    let info = &certificate.tbs_certificate;
    assert_eq!(info.version, X509Version::V3, "{name}");
    assert_eq!(hex::encode(certificate.raw_serial()), serial.to_string());
    assert!(
        info.issuer_uid.is_none() && info.subject_uid.is_none(),
        "{name}"
    );

    let (_, ca) = x509_parser::pem::parse_x509_pem(AUTHORITY.bundle().as_bytes()).unwrap();
    let ca = ca.parse_x509().unwrap();
    assert_eq!(info.issuer.as_raw(), ca.subject().as_raw(), "{name}");
    assert!(
        certificate.verify_signature(Some(ca.public_key())).is_ok(),
        "{name}"
    );
    assert_eq!(info.signature, certificate.signature_algorithm, "{name}");

    let subject: Vec<_> = info
        .subject
        .iter()
        .flat_map(x509_parser::x509::RelativeDistinguishedName::iter)
        .collect();
    assert_eq!(subject.len(), 1, "{name}: one attribute in the subject");
    assert_eq!(subject[0].attr_type().to_id_string(), "2.5.4.3", "{name}");
    assert_eq!(subject[0].attr_value().tag(), Tag::Utf8String, "{name}");
    assert_eq!(subject[0].as_slice(), name.as_bytes());
    assert_eq!(
        info.subject_pki.raw, checked.key.spki,
        "{name}: the requested key"
    );

    let ends = now().as_second() + i64::try_from(LIFE.as_secs()).unwrap();
    assert_eq!(
        info.validity.not_before.timestamp(),
        now().as_second() - 300
    );
    assert_eq!(info.validity.not_after.timestamp(), ends, "{name}");
    assert_eq!(signed.not_after.as_second(), ends, "{name}");
    assert_extensions(checked, profile, &certificate, &ca);
}

fn assert_extensions(
    checked: &CheckedRequest,
    profile: &LeafProfile,
    certificate: &X509Certificate<'_>,
    ca: &X509Certificate<'_>,
) {
    let name = checked.common_name.to_string();
    let identifier = |certificate: &X509Certificate<'_>| {
        certificate
            .iter_extensions()
            .find_map(|it| match it.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            })
    };
    let mut seen: Vec<_> = certificate
        .extensions()
        .iter()
        .map(|extension| match extension.parsed_extension() {
            ParsedExtension::BasicConstraints(constraints) => {
                assert!(!constraints.ca && constraints.path_len_constraint.is_none());
                ("basicConstraints", extension.critical)
            }
            ParsedExtension::KeyUsage(usage) => {
                let rsa = matches!(checked.key.algorithm, KeyKind::Rsa(_));
                // The bits of RFC 5280, section 4.2.1.3, the first one lowest.
                let bits = if rsa { 0b101 } else { 0b001 };
                assert_eq!(usage.flags, bits, "{name}: {usage}");
                ("keyUsage", extension.critical)
            }
            ParsedExtension::ExtendedKeyUsage(_) => {
                // SEQUENCE { id-kp-clientAuth }.
                assert_eq!(
                    extension.value,
                    b"\x30\x0a\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02"
                );
                ("extKeyUsage", extension.critical)
            }
            ParsedExtension::SubjectKeyIdentifier(id) => {
                assert_eq!(id.0.len(), 20, "{name}");
                ("subjectKeyIdentifier", extension.critical)
            }
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                let key = id.key_identifier.as_ref().map(|id| id.0.to_vec());
                assert_eq!(key, identifier(ca), "{name}");
                assert!(id.authority_cert_issuer.is_none() && id.authority_cert_serial.is_none());
                ("authorityKeyIdentifier", extension.critical)
            }
            ParsedExtension::CRLDistributionPoints(_) => {
                let uri = profile
                    .crl_distribution_point
                    .as_deref()
                    .unwrap_or_default();
                assert!(extension.value.ends_with(uri.as_bytes()), "{name}");
                ("cRLDistributionPoints", extension.critical)
            }
            other => panic!("{name}: an extension that is not in the profile: {other:?}"),
        })
        .collect();
    seen.sort_unstable();
    let mut expected = vec![
        ("authorityKeyIdentifier", false),
        ("basicConstraints", true),
        ("extKeyUsage", false),
        ("keyUsage", true),
        ("subjectKeyIdentifier", false),
    ];
    if profile.crl_distribution_point.is_some() {
        expected.insert(2, ("cRLDistributionPoints", false));
    }
    assert_eq!(seen, expected, "{name}");
}
