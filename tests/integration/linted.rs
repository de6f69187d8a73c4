//! Every kind of certificate from a real run, as a linter and openssl see it.

use crate::shared::{central, playground};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use rcgen::{CertificateParams, KeyPair};
use volttron_crds::Phase;
use volttron_tests::{Agent, Finding, lint, openssl, openssl_fails, run};

/// Findings that are meant to be: the certificate, the rule, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "rsa",
    "e_key_usage_and_extended_key_usage_inconsistent",
    "the profile gives RSA keys keyEncipherment; RFC 5280, section 4.2.1.12, names digitalSignature and keyAgreement as what may \
     go with clientAuth, and forbids nothing",
)];

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
        space.deny("ecdsa", "so that the list has an entry").await;
        space.phase("ecdsa", Phase::Denied).await;
        certificates.push(("list", revocation_list().await));

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
                if !excepted {
                    wrong.push(format!("{name}: {level} {rule} {details}"));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

/// The revocation list, as it is published.
async fn revocation_list() -> String {
    let instance = &central().await.instance;
    let maps = Api::<ConfigMap>::namespaced(instance.playground.admin(), &instance.namespace);
    let name = format!("{}-crl", instance.broker_name());
    let map = maps.get(&name).await.unwrap();
    map.data.unwrap().into_values().next().unwrap()
}

#[test]
fn the_linter_finds_what_is_wrong() {
    let mut params = CertificateParams::default();
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    // Rules apply to what was made after them.
    params.not_before = rcgen::date_time_ymd(2026, 1, 1);
    let bad = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    let findings = lint(&bad.pem());
    assert!(
        findings
            .iter()
            .any(|it| it.rule == "e_ext_key_usage_cert_sign_without_ca"),
        "{findings:?}"
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
