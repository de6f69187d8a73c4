//! The operator, killed at each write of what follows an approval: renewal and the removal of what is superseded, denial with
//! revocation, and approval again.

use super::{Seen, at_each_write};
use crate::shared::disturbed;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use std::collections::BTreeSet;
use volttron_crds::{DecisionHow, Phase};
use volttron_tests::{Agent, Broker, Instance, SOON, SYSTEM, Space, run};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

#[test]
fn a_renewal_survives_a_kill_at_each_write_and_what_it_supersedes_goes() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("kill-renewals").await;
        playground.proxy().count(&paths(&space, &broker.instance));
        let seen = Seen::watch(&space);
        let killed = at_each_write(
            &playground,
            playground.proxy(),
            async |name| {
                file(&space, broker, name, name).await;
                space.approve(name).await;
                space.issued(name).await;
                let second = format!("{name}-b");
                file(&space, broker, &second, name).await;
                let second = space.issued(&second).await.request;
                // Which of two is the later one is told by the second in which they were created.
                let created = second.metadata.creation_timestamp.unwrap().0;
                playground
                    .eventually("the next second", SOON, async || {
                        let age = Timestamp::now().duration_since(created);
                        (age.as_secs() >= 2)
                            .then_some(())
                            .ok_or_else(|| age.to_string())
                    })
                    .await;
            },
            async |name| {
                let third = format!("{name}-c");
                file(&space, broker, &third, name).await;
                let issued = space.issued(&third).await.request.status.unwrap();
                assert_eq!(issued.decision.unwrap().how, DecisionHow::Renewal);
                space.gone(&format!("{name}-b")).await;
            },
            async || (),
            async |name| {
                for suffix in ["", "-b", "-c"] {
                    seen.check(&format!("{name}{suffix}"));
                }
                assert!(broker.has_user(&common_name(&space, name)).await, "{name}");
                let superseded = seen.serials(&format!("{name}-b"));
                let listed = listed(&broker.instance).await;
                assert!(listed.is_disjoint(&superseded), "{name}");
                for suffix in ["", "-c"] {
                    space.delete(&format!("{name}{suffix}")).await;
                }
                for suffix in ["", "-c"] {
                    space.gone(&format!("{name}{suffix}")).await;
                }
                // Who forgets an identity forgets nothing that it has ever had.
                is_listed(&broker.instance, &superseded).await;
            },
        )
        .await;
        for kind in ["POST", "/secrets/crl.", "DELETE /apis/volttron.org", "-b"] {
            assert!(
                killed.values().any(|write| write.contains(kind)),
                "no {kind} among {killed:#?}"
            );
        }
    });
}

#[test]
fn a_denial_survives_a_kill_at_each_write_and_so_does_the_approval_that_follows() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("kill-denials").await;
        playground.proxy().count(&paths(&space, &broker.instance));
        let seen = Seen::watch(&space);
        let killed = at_each_write(
            &playground,
            playground.proxy(),
            async |name| {
                file(&space, broker, name, name).await;
                space.approve(name).await;
                space.issued(name).await;
            },
            async |name| {
                let (before, operator) = (seen.serials(name), playground.operator().pid());
                space.deny(name, "enough").await;
                // Where the denial is cut short, the approval comes before it is made good.
                let was_denied = playground
                    .eventually("it is denied, or the operator dead", SOON, async || {
                        let phase = space.get(name).await.phase();
                        let was_denied = phase == Some(Phase::Denied);
                        let over = was_denied || playground.operator().pid() != operator;
                        over.then_some(was_denied)
                            .ok_or_else(|| format!("{phase:?}"))
                    })
                    .await;
                space.approve(name).await;
                space
                    .until(name, "is issued again", SOON * 3, |request| {
                        let status = request.status.clone().unwrap_or_default();
                        let serial = status.serial_number.unwrap_or_default();
                        status.phase == Some(Phase::Issued)
                            && !(was_denied && before.contains(&serial))
                    })
                    .await;
            },
            async || (),
            async |name| {
                playground
                    .eventually("certificate and list agree", SOON * 2, async || {
                        agrees(&space, broker, name, &seen.serials(name)).await
                    })
                    .await;
                broker
                    .user(&common_name(&space, name), true, SOON * 2)
                    .await;
                space.delete(name).await;
                space.gone(name).await;
            },
        )
        .await;
        // What is written side by side comes in another order each time, so that no kill need meet
        // the Secret's deletion, which `a_request_survives_a_kill_at_each_write` always does.
        for kind in ["/secrets/crl.", "-crl", "POST", "/status"] {
            assert!(
                killed.values().any(|write| write.contains(kind)),
                "no {kind} among {killed:#?}"
            );
        }
    });
}

/// Of `all` certificates that a request has had, one is in its Secret and its status, and the others are revoked.
async fn agrees(
    space: &Space<'_>,
    broker: &Broker<'_>,
    name: &str,
    all: &BTreeSet<String>,
) -> Result<(), String> {
    let secret = space.secret(name).await.ok_or("there is no Secret")?;
    let in_secret = super::value(&secret, "tls.crt").unwrap_or_default();
    let status = space.get(name).await.status.unwrap_or_default();
    let serial = BTreeSet::from([super::serial_of(&in_secret)]);
    let others: BTreeSet<_> = all.difference(&serial).cloned().collect();
    let listed = listed(&broker.instance).await;
    let agrees = status.certificate == Some(in_secret)
        && status.serial_number.as_ref() == serial.first()
        && all.len() <= 2
        && others.is_subset(&listed)
        && serial.is_disjoint(&listed);
    agrees
        .then_some(())
        .ok_or_else(|| format!("had {all:?}, listed {listed:?}, {status:#?}"))
}

async fn file(space: &Space<'_>, broker: &Broker<'_>, request: &str, name: &str) {
    let agent = Agent::new(&common_name(space, name));
    space.file(request, &broker.instance, &agent.csr).await;
}

fn common_name(space: &Space<'_>, name: &str) -> String {
    format!("central.{}.{name}", space.namespace)
}

/// What is written for requests: they themselves, their Secrets, the ledger and the list.
fn paths(space: &Space<'_>, instance: &Instance<'_>) -> [String; 4] {
    let (agents, namespace) = (&space.namespace, &instance.namespace);
    [
        format!("/apis/volttron.org/v1alpha1/namespaces/{agents}/"),
        format!("/api/v1/namespaces/{agents}/"),
        format!("/api/v1/namespaces/{SYSTEM}/secrets/crl.{namespace}."),
        // Not the broker's own, which is written at times that have nothing to do with requests.
        format!(
            "/api/v1/namespaces/{namespace}/configmaps/{}-crl",
            instance.broker_name()
        ),
    ]
}

async fn is_listed(instance: &Instance<'_>, serials: &BTreeSet<String>) {
    instance
        .playground
        .eventually("the certificates are revoked", SOON * 2, async || {
            let listed = listed(instance).await;
            let missing: Vec<_> = serials.difference(&listed).collect();
            if missing.is_empty() {
                return Ok(());
            }
            Err(format!("not {missing:?}"))
        })
        .await;
}

/// The serial numbers that are on the published list.
async fn listed(instance: &Instance<'_>) -> BTreeSet<String> {
    let maps = Api::<ConfigMap>::namespaced(instance.playground.admin(), &instance.namespace);
    let name = format!("{}-crl", instance.broker_name());
    let map = maps.get(&name).await.unwrap();
    let lists = map.data.unwrap_or_default();
    let mut serials = BTreeSet::new();
    for list in lists.values() {
        let block = pem::parse(list).unwrap();
        let (_, list) = CertificateRevocationList::from_der(block.contents()).unwrap();
        let revoked = list.iter_revoked_certificates();
        serials.extend(revoked.map(|it| hex::encode(it.raw_serial())));
    }
    serials
}
