use super::*;
use crate::pki::fixtures::{authority, generation, now, openssl_verifies, pair};
use crate::pki::{Authority, GeneratedPair, issue_probe_pair, issue_server_pair, to_pem};
use jiff::SignedDuration;
use rcgen::{DistinguishedName, DnType, KeyPair};
use volttron_crds::{GeneratedAuthority, KeyAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a broker with a certificate of `authority` shows.
fn served(authority: &Authority) -> String {
    let names = ["central-rabbitmq.volttron.svc".to_owned()];
    issue_server_pair(authority, &names, now()).unwrap().chain
}

fn probe(authority: &Authority) -> String {
    issue_probe_pair(authority, &SerialNumber::random(), now())
        .unwrap()
        .chain
}

/// An intermediate CA with the chain up to its root.
fn intermediate(root: &GeneratedPair, name: &str, constraint: BasicConstraints) -> Authority {
    let key = KeyPair::generate().unwrap();
    let root_authority = authority(root);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(constraint);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = to_offset_date_time(backdated(now()));
    params.not_after = to_offset_date_time(root_authority.not_after());
    let certificate = params.signed_by(&key, root_authority.issuer()).unwrap();
    let chain = format!(
        "{}{}",
        to_pem("CERTIFICATE", certificate.der()),
        root.certificate
    );
    Authority::load(&chain, &key.serialize_pem(), None, now()).unwrap()
}

#[test]
fn who_trusts_one_of_both_authorities_accepts_what_the_new_one_signs() {
    for key_algorithm in [KeyAlgorithm::EcdsaP256, KeyAlgorithm::Rsa3072] {
        let old = authority(&pair(&GeneratedAuthority {
            key_algorithm,
            ..GeneratedAuthority::default()
        }));
        let new = generation(2);
        let old_root = old.bundle().to_owned();
        let new_root = new.bundle().to_owned();
        assert!(
            openssl_verifies(&served(&new), &old_root, "sslserver").is_err(),
            "without the cross certificate it cannot be"
        );
        let cross = cross_sign(&old, &new, now()).unwrap().expect("they differ");
        let new = new.among(&[&old], &cross);
        for roots in [&old_root, &new_root, &new.bundle().to_owned()] {
            openssl_verifies(&served(&new), roots, "sslserver").unwrap();
            openssl_verifies(&probe(&new), roots, "sslclient").unwrap();
        }
        assert_eq!(new.bundle(), format!("{new_root}{old_root}"));
        // What the old one has signed stays good for whoever has the bundle.
        openssl_verifies(&served(&old), new.bundle(), "sslserver").unwrap();
    }
}

#[test]
fn a_cross_certificate_lives_within_both_authorities() {
    let old = authority(&pair(&GeneratedAuthority {
        duration: "100h".into(),
        ..GeneratedAuthority::default()
    }));
    let new = generation(2);
    let cross = cross_sign(&old, &new, now()).unwrap().unwrap();
    let block = pem::parse(&cross).unwrap();
    let (_, certificate) = X509Certificate::from_der(block.contents()).unwrap();
    assert_eq!(
        super::super::to_timestamp(certificate.validity().not_after),
        old.not_after()
    );
    assert_eq!(certificate.subject().to_string(), "CN=central root CA G2");
    assert_eq!(certificate.issuer().to_string(), "CN=central root CA");
    let late = old
        .not_after()
        .saturating_add(SignedDuration::from_hours(1))
        .unwrap();
    assert_eq!(cross_sign(&old, &new, late).unwrap(), None);
}

#[test]
fn intermediate_authorities_are_crossed_at_their_roots() {
    let (old_root, new_root) = (
        pair(&GeneratedAuthority::default()),
        generate_named("other"),
    );
    let old = intermediate(&old_root, "old issuing", BasicConstraints::Constrained(2));
    let new = intermediate(&new_root, "new issuing", BasicConstraints::Constrained(0));
    let cross = cross_sign(&old, &new, now()).unwrap().unwrap();
    let new = new.among(&[&old], &cross);
    for roots in [
        &old_root.certificate,
        &new_root.certificate,
        &new.bundle().to_owned(),
    ] {
        openssl_verifies(&served(&new), roots, "sslserver").unwrap();
        openssl_verifies(&probe(&new), roots, "sslclient").unwrap();
    }
}

#[test]
fn there_is_no_cross_certificate_where_it_would_not_be_accepted_or_needed() {
    let (old_root, new_root) = (
        pair(&GeneratedAuthority::default()),
        generate_named("other"),
    );
    let new = intermediate(&new_root, "new issuing", BasicConstraints::Unconstrained);
    for (length, crossed) in [(0, false), (1, false), (2, true)] {
        let old = intermediate(&old_root, "old", BasicConstraints::Constrained(length));
        let cross = cross_sign(&old, &new, now()).unwrap();
        assert_eq!(cross.is_some(), crossed, "path length {length}");
    }
    let old = intermediate(&old_root, "old", BasicConstraints::Unconstrained);
    let same_root = intermediate(&old_root, "next", BasicConstraints::Unconstrained);
    assert_eq!(cross_sign(&old, &same_root, now()).unwrap(), None);
}

fn generate_named(name: &str) -> GeneratedPair {
    let settings = GeneratedAuthority::default();
    crate::pki::generate(&name.parse().unwrap(), &settings, 1, now()).unwrap()
}
