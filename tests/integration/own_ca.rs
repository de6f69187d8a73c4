//! Certificate authorities that are brought along.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use volttron_tests::Playground;

/// A certificate authority of somebody's own.
#[derive(Clone)]
pub struct Ca {
    pub certificate: String,
    pub key: String,
    params: CertificateParams,
}

impl Ca {
    pub fn root(name: &str) -> Self {
        Self::new(name, |_| ())
    }

    pub fn new(name: &str, change: impl Fn(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2099, 1, 1);
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            certificate,
            key: key.serialize_pem(),
            params,
        }
    }

    pub fn signed_by(self, issuer: &Self, name: &str) -> Self {
        let mut params = self.params;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::from_pem(&self.key).unwrap();
        let by = Issuer::from_params(&issuer.params, KeyPair::from_pem(&issuer.key).unwrap());
        let certificate = params.signed_by(&key, &by).unwrap().pem();
        Self {
            certificate,
            key: self.key,
            params,
        }
    }
}

impl Ca {
    /// What a Secret holds of it, with the chain up to `root`.
    pub fn secret(&self, root: Option<&Self>) -> Value {
        let root = root.map_or("", |root| root.certificate.as_str());
        let chain = format!("{}{root}", self.certificate);
        json!({"tls.crt": chain, "tls.key": self.key})
    }
}

/// Writes a Secret.
pub async fn put(playground: &Playground, namespace: &str, name: &str, content: &Value) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": content,
    });
    let parameters = PatchParams::apply("tests").force();
    Api::<Secret>::namespaced(playground.admin(), namespace)
        .patch(name, &parameters, &Patch::Apply(secret))
        .await
        .unwrap();
}
