//! Requests that wait for their instance, and certificate authorities that were brought along.

use crate::own_ca::{Ca, put};
use crate::shared::playground;
use futures::future::join_all;
use local_cluster::Base;
use rcgen::{IsCa, KeyUsagePurpose};
use serde_json::{Value, json};
use volttron_crds::Phase;
use volttron_tests::{Agent, Login, SOON, openssl, openssl_fails, run};

#[test]
fn a_request_waits_for_its_instance_and_a_ca_with_an_intermediate_works_to_the_end() {
    run(async {
        let playground = playground().await;
        let space = playground.space("brought").await;
        let instance = playground.known_instance(&space.namespace, "plant");
        let agent = Agent::rsa("plant.brought.forwarder");
        space.file("forwarder", &instance, &agent.csr).await;
        let says = space.says("forwarder", "Issued", "InstanceNotFound").await;
        let words = format!("VolttronInstance {}/plant does not exist", space.namespace);
        assert!(
            says.contains(&words) && says.contains("goes on when it is created"),
            "{says}"
        );
        space.approve("forwarder").await;
        space.phase("forwarder", Phase::Approved).await;

        let (root, intermediate) = (Ca::root("Root of trust"), Ca::root("unused"));
        let intermediate = intermediate.signed_by(&root, "Intermediate");
        let chain = format!("{}{}", intermediate.certificate, root.certificate);
        put(
            playground,
            &space.namespace,
            "own-ca",
            &json!({"tls.crt": chain, "tls.key": intermediate.key}),
        )
        .await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = playground.instance(&space.namespace, "plant", spec).await;
        let broker = instance.start_broker(Base::Machine).await;
        let issued = space.issued("forwarder").await;

        assert_eq!(
            pem::parse_many(&issued.chain).unwrap().len(),
            2,
            "the leaf and the intermediate"
        );
        assert_eq!(
            pem::parse(&issued.ca).unwrap(),
            pem::parse(&root.certificate).unwrap(),
            "the root is trusted"
        );
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("chain.pem", &issued.chain),
            ("root.pem", &root.certificate),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let args = [
            "verify",
            "-purpose",
            "sslclient",
            "-CAfile",
            "root.pem",
            "-untrusted",
            "chain.pem",
            "chain.pem",
        ];
        openssl(folder.path(), &args);
        openssl_fails(
            folder.path(),
            &["verify", "-CAfile", "root.pem", "chain.pem"],
        );
        let connection = broker
            .connect(Login::certificate(&agent, &issued))
            .await
            .unwrap();
        assert!(connection.status().connected());
    });
}

#[test]
fn a_request_says_that_its_instance_is_gone() {
    run(async {
        let playground = playground().await;
        let space = playground.space("vanished").await;
        let instance = playground
            .instance(&space.namespace, "brief", json!({}))
            .await;
        instance
            .condition("CertificateAuthorityReady", "True", None, SOON)
            .await;
        space
            .file("forwarder", &instance, &Agent::new("brief.a.forwarder").csr)
            .await;
        space
            .says("forwarder", "Issued", "WaitingForApproval")
            .await;
        instance.delete().await;
        space.says("forwarder", "Issued", "InstanceNotFound").await;
        // Nothing holds up what has no broker to be cleaned on.
        space.delete("forwarder").await;
        space.gone("forwarder").await;
    });
}

#[test]
fn a_ca_secret_that_is_no_good_is_named_and_signs_nothing_until_it_is_mended() {
    run(async {
        let playground = playground().await;
        let space = playground.space("wrong-ca").await;
        let good = Ca::root("Good CA");
        let cases = wrong_secrets(&good);
        join_all(cases.iter().map(async |(name, content, reason, words)| {
            if let Some(content) = content {
                put(playground, &space.namespace, name, content).await;
            }
            let spec = json!({"ca": {"secretRef": {"name": name}}});
            let instance = playground.instance(&space.namespace, name, spec).await;
            let condition = instance
                .condition("CertificateAuthorityReady", "False", Some(reason), SOON)
                .await;
            let place = format!("Secret {}/{name}", space.namespace);
            let says = &condition.message;
            assert!(
                says.contains(words) && says.contains(&place),
                "{name}: {says}"
            );
            instance
                .condition("Ready", "False", Some(reason), SOON)
                .await;

            space
                .file(name, &instance, &Agent::new(&format!("{name}.a.agent")).csr)
                .await;
            space.approve(name).await;
            let held = space
                .says(name, "Issued", "CertificateAuthorityNotReady")
                .await;
            assert!(held.contains(words), "{name}: {held}");
            let status = space.get(name).await.status.unwrap();
            assert_eq!(
                (status.phase, status.certificate),
                (Some(Phase::Approved), None),
                "{name}"
            );
            assert!(space.secret(name).await.is_none(), "{name}");

            let mended = json!({"tls.crt": good.certificate, "tls.key": good.key});
            put(playground, &space.namespace, name, &mended).await;
            instance
                .condition("CertificateAuthorityReady", "True", None, SOON * 2)
                .await;
            space.says(name, "Issued", "BrokerNotReady").await;
        }))
        .await;
    });
}

/// Name, content of the Secret if there is one, and the reason and words that say what is wrong with it.
type WrongSecret = (&'static str, Option<Value>, &'static str, &'static str);

#[rustfmt::skip] // One case, one line.
fn wrong_secrets(good: &Ca) -> Vec<WrongSecret> {
    let pair = |certificate: &str, key: &str| Some(json!({"tls.crt": certificate, "tls.key": key}));
    let root = Ca::root("Root");
    let intermediate = Ca::root("unused").signed_by(&root, "Intermediate");
    let expired = Ca::new("Expired", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let future = Ca::new("Future", |params| params.not_before = rcgen::date_time_ymd(2090, 1, 1));
    let below = |root: &Ca| Some(Ca::root("unused").signed_by(root, "Issuing").secret(Some(root)));
    let weak = Ca::new("Weak", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let leaf = Ca::new("Leaf", |params| params.is_ca = IsCa::ExplicitNoCa);
    let other_usage = Ca::new("CRLs only", |params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    let broken = format!("{}{}", intermediate.certificate, good.certificate);
    vec![
        ("missing", None, "SecretNotFound", "does not exist; create it with tls.crt and tls.key"),
        ("keyless", Some(json!({"tls.crt": good.certificate})), "SecretIncomplete", "has no tls.key"),
        ("mismatch", pair(&good.certificate, &root.key), "KeyMismatch", "tls.key does not fit tls.crt"),
        ("expired", pair(&expired.certificate, &expired.key), "Expired", "expired at 2021-01-01"),
        ("future", pair(&future.certificate, &future.key), "NotYetValid", "not valid before 2090-01-01"),
        ("expired-root", below(&expired), "Expired", "certificate 2 of tls.crt (CN=Expired) expired at"),
        ("weak-root", below(&weak), "KeyUsageForbidsSigning", "keyUsage of certificate 2 of tls.crt (CN=Weak)"),
        ("leaf", pair(&leaf.certificate, &leaf.key), "NotACertificateAuthority", "no CA certificate"),
        ("crl-only", pair(&other_usage.certificate, &other_usage.key), "KeyUsageForbidsSigning", "keyCertSign"),
        ("rootless", pair(&intermediate.certificate, &intermediate.key), "IncompleteChain", "without its root"),
        ("broken-chain", pair(&broken, &intermediate.key), "IncompleteChain", "certificate 2 did not sign"),
        ("garbage", pair("certificate", &good.key), "InvalidCertificate", "tls.crt is not PEM"),
        ("no-key", pair(&good.certificate, "key"), "InvalidKey", "tls.key is not a PKCS #8 private key"),
    ]
}
