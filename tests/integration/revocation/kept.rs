//! The ledger: how much it holds, who may fill it, and that nothing is lost of it.

use super::authority::{Ca, put};
use super::ledger;
use crate::shared::playground;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use local_cluster::Base;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use volttron_crds::{Phase, well_known};
use volttron_tests::{Agent, Instance, Playground, SOON, SYSTEM, run};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

#[test]
fn one_identity_does_not_renew_without_end_unless_an_approver_asks_for_it() {
    run(async {
        let playground = playground().await;
        let space = playground.space("many").await;
        let (name, other) = ("central.many.forwarder", "central.many.driver");
        let entries = (0..100).map(|number| entry(number, name, &space.user, false));
        let instance = playground.known_instance(&space.namespace, "central");
        restore(&instance, entries).await;
        let instance = playground
            .instance(&space.namespace, "central", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        for (request, name) in [("first", name), ("other", other)] {
            let agent = Agent::new(name);
            space.file(request, &broker.instance, &agent.csr).await;
            space.approve(request).await;
            space.issued(request).await;
        }
        for (request, name) in [("second", name), ("other-second", other)] {
            let agent = Agent::new(name);
            space.file(request, &broker.instance, &agent.csr).await;
        }
        space.issued("other-second").await;
        let says = space.says("second", "Issued", "TooManyCertificates").await;
        assert!(
            says.contains("101 certificates") && says.contains("approve this request"),
            "{says}"
        );
        assert_eq!(space.get("second").await.phase(), Some(Phase::Pending));
        space.approve("second").await;
        space.issued("second").await;
    });
}

#[test]
fn a_full_ledger_leaves_room_for_the_lists_of_two_cas() {
    run(async {
        let playground = playground().await;
        let namespace = playground.namespace("full").await;
        let instance = playground.known_instance(&namespace, "central");
        let entries = (0..4990).map(|number| entry(number, "central.a.b", "somebody", true));
        restore(&instance, entries).await;
        let instance = playground.instance(&namespace, "central", json!({})).await;
        lists(&instance, 1, &[serial(0), serial(4989)]).await;
        let rotate = json!({"metadata": {"annotations": {well_known::ROTATE_CA: "now"}}});
        let api = instance.api();
        let parameters = PatchParams::default();
        api.patch("central", &parameters, &Patch::Merge(rotate))
            .await
            .unwrap();
        lists(&instance, 2, &[serial(0), serial(4989)]).await;
    });
}

#[test]
fn a_list_that_cannot_be_published_is_told_and_a_ca_can_be_taken_back() {
    run(async {
        let playground = playground().await;
        let space = playground.space("unpublished").await;
        let (first, second) = (Ca::root("First CA"), Ca::root("Second CA"));
        put(&space, "own-ca", &first).await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = playground.instance(&space.namespace, "central", spec).await;
        lists(&instance, 1, &[]).await;
        let maps = Api::<ConfigMap>::namespaced(playground.admin(), &space.namespace);
        let fixed = Patch::Merge(json!({"immutable": true}));
        let (map, parameters) = ("central-rabbitmq-crl", PatchParams::default());
        maps.patch(map, &parameters, &fixed).await.unwrap();

        put(&space, "own-ca", &second).await;
        let reason = "RevocationListNotPublished";
        let fault = instance
            .condition("BrokerReady", "False", Some(reason), SOON * 2)
            .await;
        assert!(fault.message.contains("immutable"), "{}", fault.message);
        let rotating = "CertificateAuthorityRotating";
        instance.condition(rotating, "True", None, SOON).await;
        put(&space, "own-ca", &first).await;
        instance.condition(rotating, "False", None, SOON * 2).await;
        maps.delete(map, &DeleteParams::default()).await.unwrap();
        instance
            .condition("BrokerReady", "False", Some("Unreachable"), SOON * 2)
            .await;
        lists(&instance, 1, &[]).await;
    });
}

#[test]
fn a_ledger_that_is_restored_is_taken_up() {
    run(async {
        let playground = playground().await;
        let namespace = playground.namespace("restored").await;
        let instance = playground.instance(&namespace, "central", json!({})).await;
        lists(&instance, 1, &[]).await;
        let entries = (0..3).map(|number| entry(number, "central.a.b", "somebody", true));
        restore(&instance, entries).await;
        let serials: Vec<_> = (0..3).map(serial).collect();
        lists(&instance, 1, &serials).await;
        let ledger = ledger(&instance).await;
        for serial in &serials {
            assert!(ledger["entries"].get(serial).is_some(), "{ledger:#}");
        }
        assert!(ledger["number"].as_i64() > Some(40), "{ledger:#}");
        // Nobody has seen a broker refuse them.
        assert!(ledger["enforced"].as_i64() < Some(40), "{ledger:#}");
    });
}

#[test]
fn what_was_denied_stays_out_of_an_instance_that_is_made_anew_with_the_same_ca() {
    run(async {
        let playground = playground().await;
        let space = playground.space("anew").await;
        put(&space, "own-ca", &Ca::root("Plant root CA")).await;
        let spec = || json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = playground
            .instance(&space.namespace, "central", spec())
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let mut serials = Vec::new();
        for name in ["before", "denied", "deleted"] {
            let agent = Agent::new(&format!("central.anew.{name}"));
            space.file(name, &broker.instance, &agent.csr).await;
            space.approve(name).await;
            let status = space.issued(name).await.request.status.unwrap();
            serials.push(status.serial_number.unwrap());
        }
        space.deny("before", "stolen").await;
        space.phase("before", Phase::Denied).await;
        instance.delete().await;
        playground
            .eventually("the instance is gone", SOON, async || {
                match instance.api().get_opt("central").await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        space.deny("denied", "stolen too").await;
        space.phase("denied", Phase::Denied).await;
        space.delete("deleted").await;
        space.gone("deleted").await;
        let instance = playground
            .instance(&space.namespace, "central", spec())
            .await;
        lists(&instance, 1, &serials).await;
    });
}

/// Waits until there are so many lists, with all of these serial numbers on each.
async fn lists(instance: &Instance<'_>, count: usize, serials: &[String]) {
    let playground = instance.playground;
    let maps = Api::<ConfigMap>::namespaced(playground.admin(), &instance.namespace);
    let name = format!("{}-crl", instance.broker_name());
    let what = format!("{count} lists are published, with {serials:?}");
    playground
        .eventually(&what, SOON * 2, async || {
            let map = maps
                .get_opt(&name)
                .await
                .map_err(|error| error.to_string())?;
            let lists = map.and_then(|map| map.data).unwrap_or_default();
            if lists.len() != count {
                return Err(format!("{:?}", lists.keys()));
            }
            for (file, list) in &lists {
                let block = pem::parse(list).map_err(|error| format!("{file}: {error}"))?;
                let (_, list) = CertificateRevocationList::from_der(block.contents()).unwrap();
                let listed = list.iter_revoked_certificates();
                let listed: BTreeSet<_> = listed.map(|it| hex::encode(it.raw_serial())).collect();
                let missing = serials.iter().find(|serial| !listed.contains(*serial));
                if let Some(serial) = missing {
                    return Err(format!("{serial} is not on {file} with {}", listed.len()));
                }
            }
            Ok(())
        })
        .await;
}

fn serial(number: usize) -> String {
    format!("4{number:031x}")
}

fn entry(number: usize, name: &str, requester: &str, revoked: bool) -> (String, Value) {
    let now = Timestamp::now();
    let ends = now + SignedDuration::from_hours(24 * 90);
    let mut entry = json!({"e": ends.as_second(), "n": name, "u": requester});
    if revoked {
        entry["r"] = json!([now.as_second(), 40, "p"]);
    }
    (serial(number), entry)
}

/// Puts a ledger with these entries in place, as somebody does who has a backup.
async fn restore(instance: &Instance<'_>, entries: impl Iterator<Item = (String, Value)>) {
    let playground: &Playground = instance.playground;
    let entries: Map<_, _> = entries.collect();
    let ledger = json!({"number": 41, "enforced": 41, "entries": entries});
    let name = format!("crl.{}.{}", instance.namespace, instance.name);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": {
                well_known::MANAGED_BY_LABEL: well_known::MANAGED_BY,
                well_known::INSTANCE_LABEL: instance.name,
                well_known::INSTANCE_NAMESPACE_LABEL: instance.namespace,
            },
        },
        "stringData": {"ledger.json": ledger.to_string()},
    });
    let parameters = PatchParams::apply("backup").force();
    Api::<Secret>::namespaced(playground.admin(), SYSTEM)
        .patch(&name, &parameters, &Patch::Apply(secret))
        .await
        .unwrap();
}
