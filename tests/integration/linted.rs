//! Every kind of certificate from a real run, as a linter and openssl see it.

use crate::shared::{central, playground};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rcgen::{CertificateParams, KeyPair};
use volttron_tests::{Agent, Finding, lint, openssl, openssl_fails, run};

/// Findings that are meant to be: the certificate, the rule, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

#[test]
fn a_linter_has_nothing_against_any_certificate() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("linted").await;
        let mut certificates = Vec::new();
        for (name, agent) in [
            ("ecdsa", Agent::new("central.linted.ecdsa")),
            ("rsa", Agent::rsa("central.linted.rsa")),
        ] {
            space.file(name, &broker.instance, &agent.csr).await;
            space.approve(name).await;
            let issued = space.issued(name).await;
            certificates.push((name, issued.chain));
            if name == "rsa" {
                certificates.push(("authority", issued.ca));
            }
        }
        certificates.push(("broker", server_certificate().await));

        let mut wrong = Vec::new();
        for (name, pem) in &certificates {
            let blocks = pem::parse_many(pem).unwrap();
            assert_eq!(blocks.len(), 1, "{name}");
            for Finding {
                level,
                rule,
                details,
            } in lint(pem)
            {
                let excepted = EXCEPTIONS
                    .iter()
                    .any(|it| (it.0, it.1) == (*name, rule.as_str()));
                if level != "notice" && !excepted {
                    wrong.push(format!("{name}: {level} {rule} {details}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn the_linter_finds_what_is_wrong() {
    // A CA with rcgen's defaults: no key usage, and valid until the year 4096.
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let bad = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let rules: Vec<_> = lint(&bad.pem()).into_iter().map(|it| it.rule).collect();
    assert!(
        rules.iter().any(|it| it == "e_ca_subject_field_empty"),
        "{rules:?}"
    );
}

#[test]
fn openssl_takes_the_broker_s_certificate_for_servers_and_not_for_clients() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("server").await;
        let agent = Agent::new("central.server.agent");
        space.file("agent", &broker.instance, &agent.csr).await;
        space.approve("agent").await;
        let issued = space.issued("agent").await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), issued.ca).unwrap();
        std::fs::write(folder.path().join("tls.crt"), server_certificate().await).unwrap();
        let host = broker.instance.host();
        let verify = |purpose: &'static str| {
            [
                "verify",
                "-x509_strict",
                "-purpose",
                purpose,
                "-verify_hostname",
                host.as_str(),
                "-CAfile",
                "ca.crt",
                "tls.crt",
            ]
        };
        openssl(folder.path(), &verify("sslserver"));
        openssl_fails(folder.path(), &verify("sslclient"));
    });
}

/// `tls.crt` of the broker.
async fn server_certificate() -> String {
    let instance = &central().await.instance;
    let name = format!("{}-tls", instance.broker_name());
    let secret = Api::<Secret>::namespaced(instance.playground.admin(), &instance.namespace);
    let data = secret.get(&name).await.unwrap().data.unwrap();
    String::from_utf8(data["tls.crt"].0.clone()).unwrap()
}
