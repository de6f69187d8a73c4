//! What anybody who may write Secrets puts where the operator looks for what an interrupted run has left, and what such a run has.

use super::ledger;
use crate::shared::{central, disturbed, playground};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource as _, ResourceExt as _};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SerialNumber};
use serde_json::json;
use volttron_crds::{Phase, VolttronCertRequest};
use volttron_tests::{Agent, Login, SOON, Space, run};

#[test]
fn nobody_gets_a_certificate_revoked_by_putting_it_into_the_secret_of_a_request() {
    run(async {
        let (playground, broker) = (playground().await, central().await);
        let (plant, space) = (
            playground.space("victim").await,
            playground.space("mallory").await,
        );
        let victim = Agent::new("central.plant.planted");
        plant.file("victim", &broker.instance, &victim.csr).await;
        plant.approve("victim").await;
        let issued = plant.issued("victim").await;
        let login = || Login::certificate(&victim, &issued);
        let connection = broker.connect(login()).await.unwrap();
        let serial = serial_of(&issued.request);

        let own = Agent::new("central.plant.planted");
        let mut serials = vec![serial.clone()];
        for (name, csr, ends) in [
            ("replayed", &victim.csr, End::Deleted),
            ("replayed-denied", &victim.csr, End::Denied),
            ("forged", &own.csr, End::Deleted),
            ("forged-denied", &own.csr, End::Denied),
        ] {
            space.file(name, &broker.instance, csr).await;
            let request = space.phase(name, Phase::Pending).await;
            let reserved = serial_of(&request);
            let planted = if name.starts_with("forged") {
                forged(&own, &reserved)
            } else {
                issued.chain.clone()
            };
            plant_secret(&space, &request, &planted).await;
            if let End::Denied = ends {
                space.deny(name, "who is that?").await;
                space.phase(name, Phase::Denied).await;
                no_secret(&space, name).await;
                // Once more, when there is nothing left to be revoked.
                plant_secret(&space, &request, &planted).await;
                no_secret(&space, name).await;
            }
            space.delete(name).await;
            space.gone(name).await;
            serials.push(reserved);
        }
        let ledger = ledger(&broker.instance).await;
        for serial in &serials {
            assert!(
                ledger["entries"].get(serial).is_none(),
                "{serial}: {ledger:#}"
            );
        }
        assert!(connection.status().connected(), "the victim was cut off");
        broker.connect(login()).await.unwrap();
    });
}

#[test]
fn what_was_signed_and_not_recorded_is_revoked() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("unrecorded").await;
        // The gate is tried on the first request there is, whose status says so.
        let first = Agent::new("central.plant.recorded");
        space.file("recorded", &broker.instance, &first.csr).await;
        space.approve("recorded").await;
        space.issued("recorded").await;
        for (name, ends) in [
            ("unrecorded", End::Denied),
            ("unrecorded-too", End::Deleted),
        ] {
            let agent = Agent::new(&format!("central.plant.{name}"));
            space.file(name, &broker.instance, &agent.csr).await;
            let request = space.phase(name, Phase::Pending).await;
            let status = format!(
                "/apis/volttron.org/v1alpha1/namespaces/{}/volttroncertrequests/{name}/status",
                space.namespace
            );
            playground.proxy().refuse(&[&status]);
            space.approve(name).await;
            playground
                .eventually("it is signed", SOON, async || {
                    space
                        .secret(name)
                        .await
                        .map(drop)
                        .ok_or("there is no Secret".to_owned())
                })
                .await;
            match ends {
                End::Denied => space.deny(name, "changed my mind").await,
                End::Deleted => space.delete(name).await,
            }
            playground.proxy().refuse(&[]);
            match ends {
                End::Denied => drop(space.phase_within(name, Phase::Denied, SOON * 2).await),
                End::Deleted => space.gone(name).await,
            }
            is_revoked(&broker.instance, &serial_of(&request)).await;
        }
    });
}

#[test]
fn what_may_have_been_signed_for_an_approved_request_is_revoked_with_it() {
    run(async {
        let (playground, broker) = (playground().await, central().await);
        let space = playground.space("perhaps").await;
        for (name, ends) in [("denied", End::Denied), ("deleted", End::Deleted)] {
            // Somebody else's Secret keeps the request from being issued.
            let secret: Secret = serde_json::from_value(
                json!({"metadata": {"name": format!("{name}-tls")}, "stringData": {"mine": "yes"}}),
            )
            .unwrap();
            let parameters = PostParams::default();
            space.secrets().create(&parameters, &secret).await.unwrap();
            let agent = Agent::new(&format!("central.perhaps.{name}"));
            space.file(name, &broker.instance, &agent.csr).await;
            space.approve(name).await;
            space.says(name, "Issued", "SecretExists").await;
            let serial = serial_of(&space.get(name).await);
            match ends {
                End::Denied => {
                    space.deny(name, "changed my mind").await;
                    let denied = space.phase(name, Phase::Denied).await;
                    assert_eq!(denied.status.unwrap().serial_number, None);
                }
                End::Deleted => {
                    space.delete(name).await;
                    space.gone(name).await;
                }
            }
            is_revoked(&broker.instance, &serial).await;
        }
    });
}

enum End {
    Denied,
    Deleted,
}

fn serial_of(request: &VolttronCertRequest) -> String {
    let status = request.status.as_ref().expect("a status");
    status.serial_number.clone().expect("a serial number")
}

/// A certificate for the agent's name and key, under this serial number, that the agent signed itself.
fn forged(agent: &Agent, serial: &str) -> String {
    let key = KeyPair::from_pem(&agent.key).unwrap();
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(hex::decode(serial).unwrap()));
    params.distinguished_name = DistinguishedName::new();
    let name = agent.common_name.as_str();
    params.distinguished_name.push(DnType::CommonName, name);
    params.self_signed(&key).unwrap().pem()
}

async fn plant_secret(space: &Space<'_>, request: &VolttronCertRequest, chain: &str) {
    let mut owner = request.controller_owner_ref(&()).unwrap();
    owner.controller = Some(true);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": format!("{}-tls", request.name_any()), "ownerReferences": [owner],
            "labels": {"app.kubernetes.io/managed-by": "volttron-operator"},
        },
        "stringData": {"tls.crt": chain},
    });
    let parameters = PatchParams::apply("mallory").force();
    let name = format!("{}-tls", request.name_any());
    let patch = Patch::Apply(secret);
    space
        .secrets()
        .patch(&name, &parameters, &patch)
        .await
        .unwrap();
}

async fn no_secret(space: &Space<'_>, name: &str) {
    let what = "the Secret of a denied request is gone";
    space
        .playground
        .eventually(what, SOON * 2, async || match space.secret(name).await {
            None => Ok(()),
            Some(_) => Err("it is there".to_owned()),
        })
        .await;
}

async fn is_revoked(instance: &volttron_tests::Instance<'_>, serial: &str) {
    let what = format!("{serial} is revoked");
    instance
        .playground
        .eventually(&what, SOON * 2, async || {
            let ledger = ledger(instance).await;
            let entry = ledger["entries"].get(serial);
            let revoked = entry.and_then(|entry| entry.get("r"));
            revoked.map(drop).ok_or_else(|| format!("{ledger:#}"))
        })
        .await;
}
