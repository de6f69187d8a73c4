//! What the tests of this module build on.

use super::csr::{CheckedRequest, Origin, RequestProfile, validate};
use super::{Authority, GeneratedPair, LeafProfile, generate};
use base64::Engine;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use std::process::Command;
use std::time::Duration;
use volttron_crds::GeneratedAuthority;

pub(super) fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

pub(super) const fn client(life: Duration) -> LeafProfile {
    LeafProfile {
        life,
        crl_distribution_point: None,
    }
}

pub(super) fn pair(settings: &GeneratedAuthority) -> GeneratedPair {
    generate(&"central".parse().unwrap(), settings, 1, now()).unwrap()
}

pub(super) fn authority(pair: &GeneratedPair) -> Authority {
    Authority::load(&pair.certificate, &pair.key, None, now()).unwrap()
}

/// CA number `generation` of the instance.
pub(super) fn generation(generation: i64) -> Authority {
    let settings = GeneratedAuthority::default();
    authority(&generate(&"central".parse().unwrap(), &settings, generation, now()).unwrap())
}

pub(super) fn checked(name: &str, key: &KeyPair) -> CheckedRequest {
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Elsewhere");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let pem = params.serialize_request(key).unwrap().pem().unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(pem);
    let profile = RequestProfile {
        instance: "central".parse().unwrap(),
        min_rsa_bits: 2048,
        reserved_names: Vec::new(),
    };
    validate(&encoded, &profile, Origin::OtherNamespace).unwrap()
}

/// The first block of a chain (DER).
pub(super) fn first(chain: &str) -> Vec<u8> {
    pem::parse(chain).unwrap().into_contents()
}

/// Runs `openssl` in a folder with these files; what it says, and whether it succeeded.
pub(super) fn openssl(files: &[(&str, &str)], command: &str) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    let output = Command::new("openssl")
        .args(command.split(' '))
        .current_dir(folder.path())
        .output()
        .expect("openssl is installed: `apt-get install openssl`");
    let mut says = String::from_utf8_lossy(&output.stdout).into_owned();
    says.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), says)
}

/// Whether openssl verifies the first certificate of `chain` with the rest of it, trusting `roots`
/// alone, at the time of [`now`].
pub(super) fn openssl_verifies(chain: &str, roots: &str, purpose: &str) -> Result<(), String> {
    openssl_verifies_at(chain, roots, purpose, now())
}

pub(super) fn openssl_verifies_at(
    chain: &str,
    roots: &str,
    purpose: &str,
    at: Timestamp,
) -> Result<(), String> {
    let at = at.as_second();
    let command = format!(
        "verify -attime {at} -x509_strict -purpose {purpose} -CAfile roots.pem -untrusted chain.pem chain.pem"
    );
    let (verified, says) = openssl(&[("chain.pem", chain), ("roots.pem", roots)], &command);
    if verified { Ok(()) } else { Err(says) }
}
