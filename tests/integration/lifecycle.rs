//! A request from its filing to its end, with a real broker.

use crate::shared::{central, playground};
use kube::ResourceExt as _;
use std::time::Duration;
use volttron_crds::{DecisionHow, Phase};
use volttron_tests::{Agent, Broker, Login, SOON, eventually, openssl, openssl_with, run};

/// Within this a denied agent is out.
const OUT: Duration = Duration::from_secs(5);

#[test]
fn a_request_is_pending_and_shows_what_is_asked() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("pending").await;
        let agent = Agent::rsa("central.pending.forwarder");
        space.file("forwarder", instance, &agent.csr).await;
        let request = space.phase("forwarder", Phase::Pending).await;
        let status = request.status.clone().unwrap();
        assert_eq!(
            status.common_name.as_deref(),
            Some("central.pending.forwarder")
        );
        assert_eq!(status.key_algorithm.as_deref(), Some("RSA 2048"));
        assert_eq!(status.key_fingerprint, Some(fingerprint(&agent.csr)));
        assert_eq!(status.certificate, None);
        assert_eq!(status.decision, None);
        let says = space
            .says("forwarder", "Issued", "WaitingForApproval")
            .await;
        assert!(says.contains("volttron.org/decision"), "{says}");
        assert!(
            request
                .finalizers()
                .contains(&"volttron.org/cleanup".to_owned())
        );
        assert!(space.secret("forwarder").await.is_none());
    });
}

#[test]
fn an_approved_request_is_issued_without_its_key_ever_leaving_the_agent() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("issued").await;
        let agent = Agent::new("central.issued.forwarder-5.1_1");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        let pending = space.phase("forwarder", Phase::Pending).await;
        space.approve("forwarder").await;
        let issued = space.issued("forwarder").await;

        let secret = space.secret("forwarder").await.unwrap();
        let keys: Vec<_> = secret
            .data
            .clone()
            .unwrap_or_default()
            .into_keys()
            .collect();
        assert_eq!(keys, ["ca.crt", "tls.crt"], "the Secret holds no key");
        let owner = &secret.owner_references()[0];
        assert_eq!(owner.kind, "VolttronCertRequest");
        assert_eq!(Some(&owner.uid), issued.request.metadata.uid.as_ref());

        let status = issued.request.status.clone().unwrap();
        assert_eq!(status.certificate.as_ref(), Some(&issued.chain));
        assert_eq!(status.secret_ref.unwrap().name, "forwarder-tls");
        assert_eq!(status.serial_number, pending.status.unwrap().serial_number);
        let decision = status.decision.unwrap();
        assert_eq!(decision.how, DecisionHow::Manual);
        assert_eq!(decision.by.as_deref(), Some("alice"));
        let instance = broker.instance.get().await.status.unwrap();
        assert_eq!(instance.ca.unwrap().bundle, issued.ca);
    });
}

#[test]
fn the_broker_user_of_an_issued_request_has_its_own_names_and_no_password() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("user").await;
        let agent = Agent::new("central.user.forwarder-5.1_1");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        space.phase("forwarder", Phase::Pending).await;
        assert!(
            !broker.has_user(&agent.common_name).await,
            "a user before the approval"
        );
        space.approve("forwarder").await;
        space.issued("forwarder").await;
        let users = broker.ctl(&["list_users", "--quiet"]).await;
        let line = format!("{}\t[volttron-agent]", agent.common_name);
        assert!(users.contains(&line), "{users}");
        let permissions = broker
            .ctl(&[
                "list_permissions",
                "--quiet",
                "--no-table-headers",
                "-p",
                "volttron",
            ])
            .await;
        let own = r"central\.user\.forwarder\-5\.1_1";
        let own = format!(r"{own}(\.pubsub\..+)?|amq\.gen-.+");
        let line = format!(
            "{}\t^({own})$\t^({own}|volttron)$\t^({own}|volttron)$",
            agent.common_name
        );
        assert!(permissions.contains(&line), "{permissions}");
        for password in ["", "guest", &agent.common_name] {
            let arguments = ["authenticate_user", &agent.common_name, password];
            let refused = broker.try_ctl(&arguments).await;
            assert!(refused.is_err(), "the password {password:?} was accepted");
        }
    });
}

#[test]
fn the_broker_lets_in_certificates_of_the_instance_alone() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("login").await;
        let agent = Agent::rsa("central.login.forwarder");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        space.approve("forwarder").await;
        let issued = space.issued("forwarder").await;
        let login = Login::certificate(&agent, &issued);
        let connection = broker.connect(login.clone()).await.unwrap();
        assert!(connection.status().connected());
        let listed = broker
            .ctl(&[
                "list_connections",
                "--quiet",
                "user",
                "auth_mechanism",
                "ssl",
                "ssl_protocol",
            ])
            .await;
        let line = format!("{}\tEXTERNAL\ttrue\ttlsv1.", agent.common_name);
        assert!(listed.contains(&line), "{listed}");

        let other = Agent::new("central.login.forwarder");
        let refused = [
            (
                "no certificate",
                Login {
                    certificate: None,
                    ..login.clone()
                },
            ),
            (
                "a self-signed certificate",
                Login {
                    certificate: Some((other.self_signed(), other.key)),
                    ..login.clone()
                },
            ),
            (
                "PLAIN with a good certificate",
                Login {
                    password: Some((agent.common_name.clone(), agent.common_name.clone())),
                    ..login.clone()
                },
            ),
            (
                "PLAIN as the operator, without a certificate",
                Login {
                    certificate: None,
                    password: Some(("volttron-operator".to_owned(), "guest".to_owned())),
                    ..login
                },
            ),
        ];
        for (what, login) in refused {
            assert!(broker.connect(login).await.is_err(), "{what} was let in");
        }
        let plain = tokio::net::TcpStream::connect((broker.address(), 5672)).await;
        assert!(plain.is_err(), "the broker listens without TLS");
    });
}

#[test]
fn a_denied_request_gets_nothing() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("denied").await;
        let agent = Agent::new("central.denied.forwarder");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        space.phase("forwarder", Phase::Pending).await;
        space.deny("forwarder", "unknown device").await;
        let request = space.phase("forwarder", Phase::Denied).await;
        let status = request.status.unwrap();
        assert_eq!(status.certificate, None);
        assert_eq!(
            status.decision.unwrap().reason.as_deref(),
            Some("unknown device")
        );
        let says = space.says("forwarder", "Denied", "Denied").await;
        assert_eq!(says, "denied by alice: unknown device");
        assert!(space.secret("forwarder").await.is_none());
        assert!(!broker.has_user(&agent.common_name).await);
    });
}

#[test]
fn a_denial_throws_a_connected_agent_out_and_an_approval_lets_it_in_again() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("revoked").await;
        let agent = Agent::new("central.revoked.forwarder");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        space.approve("forwarder").await;
        let first = space.issued("forwarder").await;
        let login = Login::certificate(&agent, &first);
        let connection = broker.connect(login.clone()).await.unwrap();

        space.deny("forwarder", "stolen").await;
        eventually(
            "the connection of a denied agent is closed",
            OUT,
            async || {
                let is_open = connection.status().connected();
                (!is_open).then_some(()).ok_or("it is open".to_owned())
            },
        )
        .await;
        space.phase("forwarder", Phase::Denied).await;
        assert!(!broker.has_user(&agent.common_name).await);
        assert!(space.secret("forwarder").await.is_none());
        let again = broker.connect(login.clone()).await;
        assert!(again.is_err(), "a denied agent logged in again");

        space.approve("forwarder").await;
        let second = space.issued("forwarder").await;
        assert_ne!(
            first.chain, second.chain,
            "the first certificate is revoked, so that there has to be another one"
        );
        connects(broker, Login::certificate(&agent, &second)).await;
        let refused = broker.connect(login).await;
        assert!(refused.is_err(), "a revoked certificate was let in");
    });
}

#[test]
fn a_deleted_request_takes_its_access_along() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("deleted").await;
        let agent = Agent::new("central.deleted.forwarder");
        space.file("forwarder", &broker.instance, &agent.csr).await;
        space.approve("forwarder").await;
        space.issued("forwarder").await;
        space.delete("forwarder").await;
        space.gone("forwarder").await;
        assert!(!broker.has_user(&agent.common_name).await);
        // The garbage collector follows the owner reference.
        eventually(
            "the Secret goes with its request",
            SOON,
            async || match space.secret("forwarder").await {
                None => Ok(()),
                Some(_) => Err("it is there".to_owned()),
            },
        )
        .await;
    });
}

#[test]
fn two_requests_for_a_name_share_the_user_until_both_are_gone() {
    run(async {
        let broker = central().await;
        let space = playground().await.space("twins").await;
        let (one, two) = (
            Agent::new("central.twins.forwarder"),
            Agent::new("central.twins.forwarder"),
        );
        for (name, agent) in [("one", &one), ("two", &two)] {
            space.file(name, &broker.instance, &agent.csr).await;
            space.approve(name).await;
            space.issued(name).await;
        }
        let second = space.issued("two").await;
        space.delete("one").await;
        space.gone("one").await;
        connects(broker, Login::certificate(&two, &second)).await;
        space.delete("two").await;
        space.gone("two").await;
        broker.user(&two.common_name, false, SOON).await;
    });
}

async fn connects(broker: &Broker<'_>, login: Login) {
    let connection = broker.connect(login).await.unwrap();
    assert!(connection.status().connected());
}

/// SHA-256 of the subject public key info, as openssl computes it.
fn fingerprint(csr: &str) -> String {
    let args = [
        "req", "-in", "csr.pem", "-noout", "-pubkey", "-out", "key.pem",
    ];
    let key = openssl_with(&[("csr.pem", csr)], &args, "key.pem");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key.pem"), key).unwrap();
    openssl(
        folder.path(),
        &[
            "pkey", "-pubin", "-in", "key.pem", "-outform", "DER", "-out", "key.der",
        ],
    );
    let digest = openssl(folder.path(), &["dgst", "-sha256", "-r", "key.der"]);
    digest.split(' ').next().unwrap().to_owned()
}
