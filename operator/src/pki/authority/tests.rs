use super::*;
use crate::pki::fixtures::{
    authority, checked, client, first, generation, now, openssl_verifies_at, pair,
};
use crate::pki::{
    LeafProfile, SerialNumber, ServerPairState, adopt, cross_sign, issue_server_pair,
    reissue_server_pair, server_pair_state, sign, to_offset_date_time,
};
use jiff::SignedDuration;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyUsagePurpose,
};
use std::time::Duration;
use volttron_crds::{GeneratedAuthority, KeyAlgorithm, Subject};
use x509_parser::prelude::X509Version;

const YEAR: LeafProfile = client(Duration::from_hours(365 * 24));

#[test]
fn a_generated_authority_loads_with_every_key_algorithm() {
    let subject = Subject {
        country: Some("US".into()),
        ..Subject::default()
    };
    for key_algorithm in [
        KeyAlgorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384,
        KeyAlgorithm::Rsa3072,
    ] {
        let pair = pair(&GeneratedAuthority {
            key_algorithm,
            subject: subject.clone(),
            ..GeneratedAuthority::default()
        });
        let authority = authority(&pair);
        assert_eq!(authority.bundle(), pair.certificate.replace("\r\n", "\n"));
        assert_eq!(authority.intermediates(), "");
        let der = first(&pair.certificate);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        assert_eq!(
            certificate.subject().to_string(),
            "C=US, CN=central root CA"
        );
    }
}

#[test]
fn a_pair_that_may_not_sign_is_refused_with_its_fault() {
    let good = pair(&GeneratedAuthority::default());
    let other = pair(&GeneratedAuthority::default());
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::default()
        .self_signed(&leaf_key)
        .unwrap()
        .pem();
    let mut no_sign = CertificateParams::default();
    no_sign.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    no_sign.key_usages = vec![KeyUsagePurpose::CrlSign];
    let no_sign = no_sign.self_signed(&leaf_key).unwrap().pem();
    let mut no_lists = CertificateParams::default();
    no_lists.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    no_lists.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let no_lists = no_lists.self_signed(&leaf_key).unwrap().pem();
    let load = |certificate: &str, key: &str, at| {
        Authority::load(certificate, key, None, at).map_err(|e| e.reason())
    };

    let leaf_pem = leaf_key.serialize_pem();
    let later = now()
        .checked_add(SignedDuration::from_hours(11 * 8766))
        .unwrap();
    let earlier = now().checked_sub(SignedDuration::from_hours(1)).unwrap();
    for (result, reason) in [
        (load("", &good.key, now()), "InvalidCertificate"),
        (
            load(
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                &good.key,
                now(),
            ),
            "InvalidCertificate",
        ),
        (load(&good.certificate, "nonsense", now()), "InvalidKey"),
        (load(&good.certificate, &other.key, now()), "KeyMismatch"),
        (load(&good.certificate, &good.key, later), "Expired"),
        (load(&good.certificate, &good.key, earlier), "NotYetValid"),
        (load(&leaf, &leaf_pem, now()), "NotACertificateAuthority"),
        (load(&no_sign, &leaf_pem, now()), "KeyUsageForbidsSigning"),
        (load(&no_lists, &leaf_pem, now()), "KeyUsageForbidsSigning"),
    ] {
        assert_eq!(result.err(), Some(reason));
    }
}

#[test]
fn an_intermediate_authority_needs_its_root_and_serves_its_chain() {
    let root = pair(&GeneratedAuthority::default());
    let root_authority = authority(&root);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "central issuing CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = to_offset_date_time(now());
    params.not_after =
        to_offset_date_time(now().checked_add(SignedDuration::from_hours(8766)).unwrap());
    let intermediate = params
        .signed_by(&key, root_authority.issuer())
        .unwrap()
        .pem();
    let key = key.serialize_pem();

    let alone = Authority::load(&intermediate, &key, None, now());
    assert_eq!(alone.err().map(|e| e.reason()), Some("IncompleteChain"));
    let chain = format!("{intermediate}{}", root.certificate);
    let loaded = Authority::load(&chain, &key, None, now()).unwrap();
    assert_eq!(loaded.bundle(), root_authority.bundle());
    let with_roots = Authority::load(&intermediate, &key, Some(&root.certificate), now()).unwrap();
    assert_eq!(with_roots.bundle(), root_authority.bundle());
    let foreign = crate::pki::fixtures::pair(&GeneratedAuthority::default()).certificate;
    let foreign = Authority::load(&intermediate, &key, Some(&foreign), now());
    assert!(matches!(foreign, Err(AuthorityError::ForeignRoot)));
    let stranger = pair(&GeneratedAuthority::default());
    let broken = format!("{intermediate}{}", stranger.certificate);
    assert!(matches!(
        Authority::load(&broken, &key, None, now()),
        Err(AuthorityError::BrokenChain(2))
    ));

    let agent = KeyPair::generate().unwrap();
    let request = checked("central.a.b", &agent);
    let signed = sign(&loaded, &request, &SerialNumber::random(), &YEAR, now()).unwrap();
    assert_eq!(
        certificate_blocks(&signed.chain, CHAIN).unwrap().len(),
        2,
        "leaf and intermediate, no root"
    );
}

#[test]
fn what_is_signed_is_the_profile_whatever_the_request_asked() {
    let authority = authority(&pair(&GeneratedAuthority::default()));
    let key = KeyPair::generate().unwrap();
    let request = checked("central.collector2.forwarder", &key);
    let serial = SerialNumber::random();
    let signed = sign(
        &authority,
        &request,
        &serial,
        &client(Duration::from_hours(1)),
        now(),
    )
    .unwrap();
    let der = first(&signed.chain);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();

    assert_eq!(certificate.version(), X509Version::V3);
    assert_eq!(
        certificate.subject().to_string(),
        "CN=central.collector2.forwarder"
    );
    assert_eq!(hex::encode(certificate.raw_serial()), serial.to_string());
    assert!(certificate.subject_alternative_name().unwrap().is_none());
    assert!(!certificate.is_ca());
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1);
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(
        extended.client_auth && !extended.server_auth && !extended.any && extended.other.is_empty()
    );
    let oids: Vec<String> = certificate
        .extensions()
        .iter()
        .map(|e| e.oid.to_id_string())
        .collect();
    assert_eq!(
        oids.len(),
        5,
        "AKI, SKI, KU, EKU and basicConstraints: {oids:?}"
    );
    assert!(authority.signed(&certificate));
    assert_eq!(
        signed.not_before,
        now().checked_sub(SignedDuration::from_mins(5)).unwrap()
    );
    assert_eq!(
        signed.not_after,
        now().checked_add(SignedDuration::from_hours(1)).unwrap()
    );
    assert_eq!(
        to_timestamp(certificate.validity().not_after),
        signed.not_after
    );
}

#[test]
fn no_certificate_outlives_the_authority() {
    let authority = authority(&pair(&GeneratedAuthority {
        duration: "2h".into(),
        ..GeneratedAuthority::default()
    }));
    let request = checked("central.a.b", &KeyPair::generate().unwrap());
    let signed = sign(&authority, &request, &SerialNumber::random(), &YEAR, now()).unwrap();
    assert_eq!(signed.not_after, authority.not_after());
}

#[test]
fn only_the_very_certificate_is_adopted() {
    let authority = authority(&pair(&GeneratedAuthority::default()));
    let stranger = crate::pki::fixtures::authority(&pair(&GeneratedAuthority::default()));
    let (key, other_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let (request, other) = (
        checked("central.a.b", &key),
        checked("central.a.b", &other_key),
    );
    let (serial, other_serial) = (SerialNumber::random(), SerialNumber::random());
    let signed = sign(&authority, &request, &serial, &YEAR, now()).unwrap();
    assert_eq!(
        adopt(&authority, &request, &serial, &signed.chain),
        Some(signed.clone())
    );
    assert_eq!(
        adopt(&authority, &request, &other_serial, &signed.chain),
        None
    );
    assert_eq!(adopt(&authority, &other, &serial, &signed.chain), None);
    assert_eq!(adopt(&stranger, &request, &serial, &signed.chain), None);
    assert_eq!(adopt(&authority, &request, &serial, "nonsense"), None);
}

#[test]
fn serial_numbers_survive_being_written() {
    let serial = SerialNumber::random();
    assert_eq!(SerialNumber::parse(&serial.to_string()), Some(serial));
    assert_ne!(SerialNumber::random(), SerialNumber::random());
}

/// DER would cut a leading zero, so that another number would be in the certificate, and RFC 5280,
/// section 4.1.2.2, has no negative ones.
#[test]
fn no_other_number_is_read_as_a_serial_number() {
    let rest = "0".repeat(30);
    for first in ["40", "5a", "7f"] {
        let text = format!("{first}{rest}");
        assert_eq!(SerialNumber::parse(&text).unwrap().to_string(), text);
    }
    for first in ["00", "01", "3f", "80", "c0", "ff", "4", "400", "g0", ""] {
        assert_eq!(SerialNumber::parse(&format!("{first}{rest}")), None);
    }
    assert_eq!(SerialNumber::parse("40"), None);
}

#[test]
fn a_server_pair_is_kept_until_a_third_of_its_life_is_left() {
    use ServerPairState::{Current, Due, OtherChain};
    let authority = generation(1);
    let names = vec![
        "central-rabbitmq.volttron.svc".to_owned(),
        "localhost".to_owned(),
    ];
    let pair = issue_server_pair(&authority, &names, now()).unwrap();
    let state = |names: &[String], days: i64| {
        let at = now()
            .checked_add(SignedDuration::from_hours(24 * days))
            .unwrap();
        server_pair_state(&authority, &pair.chain, &pair.key, names, at)
    };
    assert_eq!((state(&names, 0), state(&names, 59)), (Current, Current));
    assert_eq!(state(&names, 61), Due);
    assert_eq!(state(&["other".to_owned()], 0), Due);
    let stranger = generation(1);
    let state = |key: &str| server_pair_state(&stranger, &pair.chain, key, &names, now());
    assert_eq!(state(&pair.key), OtherChain);
    assert_eq!(state(&KeyPair::generate().unwrap().serialize_pem()), Due);
    let again = reissue_server_pair(&stranger, &names, &pair.key, now()).unwrap();
    assert_eq!(again.key, pair.key, "the key stays with another CA");
    let state = server_pair_state(&stranger, &again.chain, &again.key, &names, now());
    assert_eq!(state, Current);
}

#[test]
fn an_authority_does_not_print_its_key() {
    let printed = format!("{:?}", authority(&pair(&GeneratedAuthority::default())));
    assert!(
        printed.starts_with("Authority { sha256:") && !printed.contains("PRIVATE"),
        "{printed}"
    );
}

#[test]
fn a_chain_is_kept_only_with_the_certificates_that_belong_behind_it() {
    let (old, new) = (generation(1), generation(2));
    let cross = cross_sign(&old, &new, now()).unwrap().unwrap();
    let names = ["localhost".to_owned()];
    let state = |authority: &Authority, chain: &str, key: &str| {
        server_pair_state(authority, chain, key, &names, now())
    };
    let before = issue_server_pair(&new, &names, now()).unwrap();
    let key = before.key.as_str();
    assert_eq!(state(&new, &before.chain, key), ServerPairState::Current);
    let new = new.among(&[&old], &cross);
    assert_eq!(state(&new, &before.chain, key), ServerPairState::OtherChain);
    let during = reissue_server_pair(&new, &names, key, now()).unwrap();
    assert_eq!(state(&new, &during.chain, key), ServerPairState::Current);
    let new = new.among(&[], "");
    assert_eq!(state(&new, &during.chain, key), ServerPairState::OtherChain);
}

#[test]
fn an_authority_knows_what_it_has_issued() {
    let (one, other) = (generation(1), generation(2));
    let request = checked("central.a.b", &KeyPair::generate().unwrap());
    let signed = sign(&one, &request, &SerialNumber::random(), &YEAR, now()).unwrap();
    assert!(one.issued(&signed.chain));
    assert!(!other.issued(&signed.chain));
    let namesake = authority(&pair(&GeneratedAuthority::default()));
    assert!(
        !namesake.issued(&signed.chain),
        "the same name, another key"
    );
    assert!(!one.issued("nonsense"));
}

#[test]
fn the_distribution_point_is_in_the_certificate_where_there_is_one() {
    let authority = generation(1);
    let request = checked("central.a.b", &KeyPair::generate().unwrap());
    let profile = LeafProfile {
        crl_distribution_point: Some("https://central.example/crl".to_owned()),
        ..YEAR
    };
    let signed = sign(
        &authority,
        &request,
        &SerialNumber::random(),
        &profile,
        now(),
    )
    .unwrap();
    let der = first(&signed.chain);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let found =
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::CRLDistributionPoints(points) => Some(format!("{points:?}")),
                _ => None,
            });
    let found = found.expect("the extension");
    assert!(found.contains("https://central.example/crl"), "{found}");
}

#[test]
fn an_authority_with_a_name_of_many_parts_signs_under_that_very_name() {
    let (certificate, key) = in_a_directory_tree();
    // openssl has made it just now.
    let now = Timestamp::now();
    let authority = Authority::load(&certificate, &key, None, now).unwrap();
    let request = checked("central.a.b", &KeyPair::generate().unwrap());
    let signed = sign(&authority, &request, &SerialNumber::random(), &YEAR, now).unwrap();
    let der = first(&signed.chain);
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(
        leaf.issuer().to_string(),
        "DC=org, DC=example, OU=Grid, OU=Keys, CN=Issuing CA"
    );
    assert!(authority.signed(&leaf) && authority.issued(&signed.chain));
    openssl_verifies_at(&signed.chain, authority.bundle(), "sslclient", now).unwrap();
    let list = crate::pki::sign_revocation_list(&authority, 1, &[], now).unwrap();
    let der = pem::parse(&list.pem).unwrap().into_contents();
    let (_, list) = x509_parser::parse_x509_crl(&der).unwrap();
    assert_eq!(list.issuer().as_raw(), authority.subject());
    let key = &leaf_key(&authority);
    let (_, key) = x509_parser::x509::SubjectPublicKeyInfo::from_der(key).unwrap();
    assert!(list.verify_signature(&key).is_ok());
}

fn leaf_key(authority: &Authority) -> Vec<u8> {
    authority.root().spki.clone()
}

/// A CA as directory services name it, made by openssl: rcgen cannot write such a name.
fn in_a_directory_tree() -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-keyout", "key.pem", "-out", "ca.pem", "-days", "3650"])
        .args(["-subj", "/DC=org/DC=example/OU=Grid/OU=Keys/CN=Issuing CA"])
        .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let read = |name| std::fs::read_to_string(folder.path().join(name)).unwrap();
    (read("ca.pem"), read("key.pem"))
}
