//! What is fuzzed, and what has to hold whatever the input. libFuzzer calls these, and so does an ordinary test of the operator
//! with the seeds.

#![allow(
    dead_code,
    reason = "each fuzz target is a program of its own and takes one of these"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};
use serde_json::json;
use std::sync::LazyLock;
use std::time::Duration;
use volttron_crds::{CommonName, GeneratedAuthority, VolttronCertRequest, well_known};
use volttron_operator::approval::verdict;
use volttron_operator::pki::{
    self, Authority, CheckedRequest, LeafProfile, Origin, RequestProfile, SerialNumber,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What takes an input, and panics where something does not hold.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const ALL: &[(&str, Target)] = &[
    ("csr", csr),
    ("subject", subject),
    ("common_name", common_name),
    ("authority", authority),
    ("adoption", adoption),
    ("decision", decision),
    ("duration", duration),
];

static AUTHORITY: LazyLock<(Authority, String)> = LazyLock::new(|| {
    let settings = GeneratedAuthority::default();
    let instance = "central".parse().expect("an instance name");
    let pair = pki::generate(&instance, &settings, 1, now()).expect("a CA");
    let authority = Authority::load(&pair.certificate, &pair.key, None, now());
    (authority.expect("a CA"), pair.key)
});
static KEY: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::generate().expect("a key"));

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn profile() -> RequestProfile {
    RequestProfile {
        instance: "central".parse().expect("an instance name"),
        min_rsa_bits: 2048,
        reserved_names: vec!["volttron-operator".to_owned()],
    }
}

/// A signing request: as base64, as PEM and as DER.
pub fn csr(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        request(text);
    }
    request(&STANDARD.encode(input));
    request(&armoured(input));
}

/// A signing request with this subject and what follows the key, rightly signed: what is behind the check of the signature.
pub fn subject(input: &[u8]) {
    // A byte that does not occur in sound input stands between the two.
    let at = input.iter().position(|byte| *byte == 0xfe);
    let (subject, attributes) = input.split_at(at.unwrap_or(input.len()));
    let attributes = attributes
        .get(1..)
        .filter(|it| !it.is_empty())
        .unwrap_or(&[0xa0, 0]);
    let key = KEY.subject_public_key_info();
    let info = sequence(&[&[2, 1, 0], subject, &key, attributes]);
    let signature = KEY.sign(&info).expect("a signature");
    let signature = [
        &[3, u8::try_from(signature.len() + 1).expect("short"), 0],
        signature.as_slice(),
    ]
    .concat();
    let algorithm = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
    request(&armoured(&sequence(&[&info, algorithm, &signature])));
}

/// A name.
pub fn common_name(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Ok(name) = text.parse::<CommonName>() {
        assert_eq!(name.to_string(), text, "a name is what was read");
        assert!(text.len() <= 64 && text.split('.').count() >= 3);
        assert!(
            text.bytes()
                .all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it))
        );
    }
}

/// The Secret of a certificate authority: `tls.crt`, `tls.key` and `ca.crt`, with NUL between them.
pub fn authority(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut parts = text.splitn(3, '\0');
    let certificates = parts.next().unwrap_or_default();
    let key = parts
        .next()
        .filter(|key| !key.is_empty())
        .unwrap_or(&AUTHORITY.1);
    if let Ok(authority) = Authority::load(certificates, key, parts.next(), now()) {
        assert!(authority.not_before() <= now() && now() < authority.not_after());
        assert!(authority.bundle().contains("BEGIN CERTIFICATE"));
    }
}

/// A stored certificate that may be the request's own.
pub fn adoption(input: &[u8]) {
    let checked = checked();
    let serial = SerialNumber::parse("4000000000000000000000000000000f").expect("a serial number");
    let chain = String::from_utf8_lossy(input);
    let adopted = pki::adopt(&AUTHORITY.0, &checked, &serial, &chain);
    assert!(
        adopted.is_none(),
        "nothing but the CA makes a certificate of the CA"
    );
}

/// The annotations of a request, as JSON; else each of them is the whole input.
pub fn decision(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let annotations = serde_json::from_slice(input).unwrap_or_else(|_| {
        json!({well_known::DECISION: text, well_known::REASON: text, well_known::DECIDED_BY: text})
    });
    let body = json!({
        "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronCertRequest",
        "metadata": {"name": "fuzz", "namespace": "fuzz", "annotations": annotations},
        "spec": {"instanceRef": {"name": "central"}, "request": text, "requester": text},
    });
    let Ok(request) = serde_json::from_value::<VolttronCertRequest>(body) else {
        return;
    };
    let value = request
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(well_known::DECISION));
    let expected = match value.map(String::as_str) {
        Some("approved") => Some(true),
        Some("denied") => Some(false),
        _ => None,
    };
    assert_eq!(verdict(&request).map(|verdict| verdict.approved), expected);
}

/// A duration in an instance or request.
pub fn duration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    if let Some(life) = volttron_crds::parse_duration(text) {
        assert!(
            text.bytes()
                .all(|it| it.is_ascii_digit() || b"hms".contains(&it))
        );
        // Whatever was asked, the certificate ends with the authority.
        let serial = SerialNumber::random();
        let signed = pki::sign(&AUTHORITY.0, &checked(), &serial, &leaf(life), now());
        assert!(signed.expect("a certificate").not_after <= AUTHORITY.0.not_after());
    }
}

/// Whatever passes the checks is signed, and the certificate holds the name and key that were checked, and is no CA's.
fn request(encoded: &str) {
    let Ok(checked) = pki::validate(encoded, &profile(), Origin::OtherNamespace) else {
        return;
    };
    let name = checked.common_name.to_string();
    assert!(name.starts_with("central.") && name.len() <= 64);
    let serial = SerialNumber::random();
    let signed = pki::sign(
        &AUTHORITY.0,
        &checked,
        &serial,
        &leaf(Duration::from_hours(1)),
        now(),
    );
    let signed = signed.expect("a certificate");
    let der = pem::parse(&signed.chain).expect("PEM").into_contents();
    let (rest, certificate) = X509Certificate::from_der(&der).expect("a certificate");
    assert!(rest.is_empty() && !certificate.is_ca() && certificate.extensions().len() == 5);
    assert_eq!(certificate.subject().to_string(), format!("CN={name}"));
    assert_eq!(certificate.public_key().raw, checked.key.spki);
    assert_eq!(
        pki::adopt(&AUTHORITY.0, &checked, &serial, &signed.chain),
        Some(signed)
    );
}

fn leaf(life: Duration) -> LeafProfile {
    LeafProfile {
        life,
        crl_distribution_point: None,
    }
}

fn checked() -> CheckedRequest {
    static CHECKED: LazyLock<CheckedRequest> = LazyLock::new(|| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "central.a.b");
        let csr = params.serialize_request(&*KEY).expect("a request");
        pki::validate(&armoured(csr.der()), &profile(), Origin::OtherNamespace)
            .expect("a sound request")
    });
    CHECKED.clone()
}

fn armoured(der: &[u8]) -> String {
    STANDARD.encode(pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)))
}

/// A SEQUENCE, its length in the shortest form.
fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let bytes = content.len().to_be_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let mut element = vec![0x30];
    if content.len() >= 0x80 {
        element.push(0x80 | u8::try_from(bytes.len() - zeros).expect("at most eight"));
        element.extend(&bytes[zeros..]);
    } else {
        element.extend(bytes.last());
    }
    element.extend(content);
    element
}
