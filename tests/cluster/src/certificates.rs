//! The cluster's certificate authority, and what it signs.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};

use crate::{
    error::{Context as _, Error, Result},
    exec,
};

/// A folder of PEM files: `ca.crt`, `ca.key`, and `<name>.crt`, `<name>.key` for each leaf.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    folder: PathBuf,
}

/// As many groups as a certificate can name.
pub(crate) const MOST_GROUPS: usize = 2;

/// What a certificate is for.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) common_name: &'a str,
    pub(crate) organizations: &'a [&'a str],
    /// Names and addresses of a server; none for a client.
    pub(crate) alternative_names: &'a [String],
}

impl<'a> Subject<'a> {
    pub(crate) fn client(common_name: &'a str, organizations: &'a [&'a str]) -> Self {
        Self {
            common_name,
            organizations,
            alternative_names: &[],
        }
    }
}

impl Authority {
    /// Makes a new authority, and the key that signs service account tokens.
    pub(crate) fn create(folder: PathBuf) -> Result<Self> {
        let fault = |source| Error::Certificate {
            subject: "the cluster's authority".into(),
            source,
        };
        let key = KeyPair::generate().map_err(fault)?;
        let mut params = params("local-cluster", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params.self_signed(&key).map_err(fault)?;
        exec::write_private(&folder.join("ca.crt"), certificate.pem())?;
        exec::write_private(&folder.join("ca.key"), key.serialize_pem())?;
        let tokens = KeyPair::generate().map_err(fault)?;
        exec::write_private(&folder.join("service-accounts.key"), tokens.serialize_pem())?;
        exec::write_private(
            &folder.join("service-accounts.pub"),
            tokens.public_key_pem(),
        )?;
        Ok(Self { folder })
    }

    /// The authority in a folder.
    pub(crate) fn open(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Signs a new key and writes both as `<file>.crt` and `<file>.key`.
    pub(crate) fn issue(&self, file: &str, subject: &Subject<'_>) -> Result<()> {
        let fault = |source| Error::Certificate {
            subject: subject.common_name.to_owned(),
            source,
        };
        let issuer_key = KeyPair::from_pem(&read(&self.file("ca.key"))?).map_err(fault)?;
        let issuer =
            Issuer::from_ca_cert_pem(&read(&self.file("ca.crt"))?, issuer_key).map_err(fault)?;
        let key = KeyPair::generate().map_err(fault)?;
        let mut params = params(subject.common_name, subject.organizations);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !subject.alternative_names.is_empty() {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
            let names = CertificateParams::new(subject.alternative_names).map_err(fault)?;
            params.subject_alt_names = names.subject_alt_names;
        }
        let certificate = params.signed_by(&key, &issuer).map_err(fault)?;
        exec::write_private(&self.folder.join(format!("{file}.crt")), certificate.pem())?;
        exec::write_private(
            &self.folder.join(format!("{file}.key")),
            key.serialize_pem(),
        )
    }

    /// Writes a kubeconfig for the certificate `file`.
    pub(crate) fn kubeconfig(&self, path: &Path, url: &str, file: &str) -> Result<()> {
        let encoded = |name: &str| Ok::<_, Error>(STANDARD.encode(read(&self.file(name))?));
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "local", "cluster": {"server": url, "certificate-authority-data": encoded("ca.crt")?}}],
            "users": [{"name": "user", "user": {
                "client-certificate-data": encoded(&format!("{file}.crt"))?,
                "client-key-data": encoded(&format!("{file}.key"))?,
            }}],
            "contexts": [{"name": "local", "context": {"cluster": "local", "user": "user"}}],
            "current-context": "local",
        });
        // Every JSON text is a YAML text.
        exec::write_private(path, format!("{config:#}\n"))
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).file("read", path)
}

fn params(common_name: &str, organizations: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    // The library keeps one value for each of its types; the same attribute by its number is another type to it.
    let types = [
        DnType::OrganizationName,
        DnType::CustomDnType(vec![2, 5, 4, 10]),
    ];
    for (kind, organization) in types.into_iter().zip(organizations) {
        params.distinguished_name.push(kind, *organization);
    }
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2060, 1, 1);
    params
}
