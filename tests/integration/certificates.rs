//! What is signed, as openssl and an X.509 parser see it.

use crate::shared::{central, playground};
use volttron_tests::{Agent, Issued, Space, encode, openssl, openssl_fails, run};
use x509_parser::asn1_rs::Tag;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;

#[test]
fn a_certificate_has_the_profile_of_a_client_and_nothing_of_the_request() {
    run(async {
        let space = playground().await.space("profile").await;
        for (name, agent, usages) in [
            (
                "ecdsa",
                Agent::new("central.profile.ecdsa"),
                "Digital Signature",
            ),
            (
                "rsa",
                Agent::rsa("central.profile.rsa"),
                "Digital Signature, Key Encipherment",
            ),
        ] {
            let issued = issue(&space, name, &agent, None).await;
            check_profile(&issued, &agent, usages);
        }
    });
}

#[test]
fn openssl_verifies_a_certificate_for_clients_and_not_for_servers() {
    run(async {
        let space = playground().await.space("purpose").await;
        let issued = issue(&space, "agent", &Agent::new("central.purpose.agent"), None).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tls.crt"), &issued.chain).unwrap();
        std::fs::write(folder.path().join("ca.crt"), &issued.ca).unwrap();
        let verify = |purpose| {
            [
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-CAfile",
                "ca.crt",
                "tls.crt",
            ]
        };
        let verified = openssl(folder.path(), &verify("sslclient"));
        assert!(verified.contains("tls.crt: OK"), "{verified}");
        openssl_fails(folder.path(), &verify("sslserver"));
    });
}

#[test]
fn a_certificate_lives_as_long_as_was_asked_but_not_longer_than_the_instance_allows() {
    run(async {
        let space = playground().await.space("life").await;
        // The instance's defaults: 2160h, and 8760h at most.
        for (name, asked, hours) in [
            ("default", None, 2160),
            ("short", Some("1h30m"), 0),
            ("asked", Some("168h"), 168),
            ("long", Some("87600h"), 8760),
        ] {
            let agent = Agent::new(&format!("central.life.{name}"));
            let issued = issue(&space, name, &agent, asked).await;
            let (start, end) = validity(&issued);
            let seconds = if hours == 0 {
                90 * MINUTE
            } else {
                hours * HOUR
            };
            let life = end - start - 5 * MINUTE;
            assert!(
                (life - seconds).abs() <= 2,
                "{name}: {life} s instead of {seconds} s"
            );
            let status = issued.request.status.unwrap();
            let text = |at: i64| jiff::Timestamp::from_second(at).unwrap().to_string();
            assert_eq!(status.not_before, Some(text(start)), "{name}");
            assert_eq!(status.not_after, Some(text(end)), "{name}");
        }
    });
}

async fn issue(space: &Space<'_>, name: &str, agent: &Agent, duration: Option<&str>) -> Issued {
    let instance = &central().await.instance;
    let request = encode(&agent.csr);
    space
        .try_file(name, instance, &request, duration)
        .await
        .unwrap();
    space.approve(name).await;
    space.issued(name).await
}

fn validity(issued: &Issued) -> (i64, i64) {
    let der = pem::parse(&issued.chain).unwrap();
    let (_, certificate) = X509Certificate::from_der(der.contents()).unwrap();
    let validity = certificate.validity();
    (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    )
}

fn check_profile(issued: &Issued, agent: &Agent, usages: &str) {
    let blocks = pem::parse_many(&issued.chain).unwrap();
    assert_eq!(blocks.len(), 1, "a leaf of a root CA has no chain");
    let (rest, certificate) = X509Certificate::from_der(blocks[0].contents()).unwrap();
    assert!(rest.is_empty());
    let (name, info) = (&agent.common_name, &certificate.tbs_certificate);
    assert_eq!(info.version, X509Version::V3, "{name}");
    let serial = certificate.raw_serial();
    assert_eq!(serial.len(), 16, "{name}: the serial number has 128 bits");
    let serial = hex::encode(serial);
    let status = issued.request.status.as_ref().unwrap();
    assert_eq!(Some(&serial), status.serial_number.as_ref(), "{name}");

    let attributes: Vec<_> = certificate.subject().iter_attributes().collect();
    assert_eq!(
        attributes.len(),
        1,
        "{name}: the subject is one common name"
    );
    assert_eq!(attributes[0].attr_value().tag(), Tag::Utf8String, "{name}");
    assert_eq!(attributes[0].as_str().unwrap(), name);

    let now = jiff::Timestamp::now().as_second();
    let back = now - info.validity.not_before.timestamp();
    assert!(
        (4 * MINUTE..8 * MINUTE).contains(&back),
        "{name}: notBefore lies {back} s back"
    );

    let mut seen = Vec::new();
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::KeyUsage(usage) => {
                assert_eq!(usage.to_string(), usages, "{name}");
                seen.push(("key usage", extension.critical));
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let others = usage.any
                    || usage.server_auth
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing
                    || !usage.other.is_empty();
                assert!(usage.client_auth && !others, "{name}: {usage:?}");
                seen.push(("extended key usage", extension.critical));
            }
            ParsedExtension::BasicConstraints(constraints) => {
                assert!(!constraints.ca, "{name}");
                seen.push(("basic constraints", extension.critical));
            }
            ParsedExtension::SubjectKeyIdentifier(_) => {
                seen.push(("subject key identifier", extension.critical));
            }
            ParsedExtension::AuthorityKeyIdentifier(_) => {
                seen.push(("authority key identifier", extension.critical));
            }
            other => panic!("{name}: an extension nobody needs: {other:?}"),
        }
    }
    seen.sort_unstable();
    let expected = [
        ("authority key identifier", false),
        ("basic constraints", true),
        ("extended key usage", false),
        ("key usage", true),
        ("subject key identifier", false),
    ];
    assert_eq!(
        seen, expected,
        "{name}: extensions, and whether they are critical"
    );
}
