//! A certificate authority whose key the test holds.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, DnValue, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SerialNumber,
};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use time::{Duration, OffsetDateTime};
use volttron_tests::{Space, openssl};

static NUMBERS: AtomicU64 = AtomicU64::new(1000);

/// So many days from now.
pub fn days(count: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(count)
}

/// A client certificate.
pub struct Pair {
    /// With its chain (PEM).
    pub chain: String,
    /// Its key (PEM).
    pub key: String,
    serial: SerialNumber,
}

/// A CA that signs certificates and lists.
pub struct Ca {
    /// Its certificate (PEM).
    pub certificate: String,
    /// What clients send along (PEM).
    chain: String,
    roots: String,
    params: CertificateParams,
    key: KeyPair,
}

fn named(name: impl Into<DnValue>) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = days(-2);
    params.not_after = days(3000);
    params.use_authority_key_identifier_extension = true;
    params
}

fn authority(name: impl Into<DnValue>) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Ca {
    pub fn root(name: &str) -> Self {
        Self::of(DnValue::from(name))
    }

    /// A root CA of this common name.
    pub fn of(name: DnValue) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            roots: certificate.clone(),
            certificate,
            chain: String::new(),
            params,
            key,
        }
    }

    pub fn intermediate(&self, name: &str) -> Self {
        let (params, key) = (authority(name), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &self.issuer()).unwrap().pem();
        Self {
            chain: certificate.clone(),
            certificate,
            roots: self.roots.clone(),
            params,
            key,
        }
    }

    pub fn client(&self, name: &str) -> Pair {
        self.client_until(name, days(30))
    }

    pub fn client_until(&self, name: &str, end: OffsetDateTime) -> Pair {
        let (mut params, key) = (named(name), KeyPair::generate().unwrap());
        let serial = SerialNumber::from(NUMBERS.fetch_add(1, Ordering::Relaxed));
        params.serial_number = Some(serial.clone());
        params.not_after = end;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer()).unwrap().pem();
        Pair {
            chain: format!("{certificate}{}", self.chain),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A list (PEM) that names these certificates.
    pub fn list(&self, revoked: &[&Pair], begin: OffsetDateTime, end: OffsetDateTime) -> String {
        let entry = |pair: &&Pair| RevokedCertParams {
            serial_number: pair.serial.clone(),
            revocation_time: days(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: begin,
            next_update: end,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer()).unwrap().pem().unwrap()
    }

    /// The file in which its list is looked for, by OpenSSL's hash.
    pub fn list_file(&self) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), &self.certificate).unwrap();
        let args = ["x509", "-in", "ca.pem", "-noout", "-subject_hash"];
        let hash = openssl(folder.path(), &args);
        format!("{}.r0", hash.trim())
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// Creates or replaces the Secret of a CA that is brought along.
pub async fn put(space: &Space<'_>, name: &str, ca: &Ca) {
    let chain = if ca.chain.is_empty() {
        ca.certificate.clone()
    } else {
        format!("{}{}", ca.chain, ca.roots)
    };
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"tls.crt": chain, "tls.key": ca.key.serialize_pem()},
    });
    let parameters = PatchParams::apply("tests").force();
    Api::<Secret>::namespaced(space.playground.admin(), &space.namespace)
        .patch(name, &parameters, &Patch::Apply(secret))
        .await
        .unwrap();
}
