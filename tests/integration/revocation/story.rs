//! Deny means out, also when the same identity is approved again with another key.

use crate::shared::playground;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use local_cluster::Base;
use serde_json::json;
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, Broker, Login, SOON, eventually, openssl_with, run};

/// The list that is published, as openssl reads it.
async fn listed(broker: &Broker<'_>) -> String {
    let instance = &broker.instance;
    let maps = Api::<ConfigMap>::namespaced(instance.playground.admin(), &instance.namespace);
    let name = format!("{}-crl", instance.broker_name());
    let map = maps.get(&name).await.unwrap();
    let list = map.data.unwrap().into_values().next().unwrap();
    let args = ["crl", "-in", "crl.pem", "-noout", "-text", "-out", "out"];
    openssl_with(&[("crl.pem", list.as_str())], &args, "out").to_lowercase()
}

async fn closed(connection: &lapin::Connection, who: &str) {
    let what = format!("the connection of {who} is closed");
    eventually(&what, SOON, async || {
        let is_open = connection.status().connected();
        (!is_open).then_some(()).ok_or("it is open".to_owned())
    })
    .await;
}

#[test]
fn a_denied_certificate_stays_out_when_its_identity_is_approved_again() {
    run(async {
        let playground = playground().await;
        let space = playground.space("denied").await;
        let namespace = playground.namespace("denied-plant").await;
        let instance = playground.instance(&namespace, "central", json!({})).await;
        let broker = instance.start_broker(Base::Image).await;
        let name = "central.denied.forwarder";
        let (thief, owner, late) = (Agent::new(name), Agent::new(name), Agent::new(name));

        space.file("stolen", &broker.instance, &thief.csr).await;
        space.approve("stolen").await;
        let stolen = space.issued("stolen").await;
        let connection = broker
            .connect(Login::certificate(&thief, &stolen))
            .await
            .unwrap();

        // A kubelet takes its time.
        broker.hold_files(true);
        space.deny("stolen", "stolen").await;
        closed(&connection, "the thief").await;
        space.phase("stolen", Phase::Denied).await;
        let serial = stolen
            .request
            .status
            .clone()
            .unwrap()
            .serial_number
            .unwrap();
        assert!(
            listed(&broker).await.contains(&serial),
            "{serial} is not on the list"
        );

        space.file("new", &broker.instance, &owner.csr).await;
        space.phase("new", Phase::Denied).await;
        space.approve("new").await;
        let says = space.says("new", "Issued", "RevocationNotEnforced").await;
        assert!(says.contains("revocation list"), "{says}");
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(space.get("new").await.phase(), Some(Phase::Approved));
        assert!(
            !broker.has_user(name).await,
            "the thief would come in with it"
        );
        assert!(space.secret("new").await.is_none());

        broker.hold_files(false);
        let new = space.issued("new").await;
        let of_owner = broker
            .connect(Login::certificate(&owner, &new))
            .await
            .unwrap();
        let back = broker.connect(Login::certificate(&thief, &stolen)).await;
        assert!(back.is_err(), "a denied certificate was let in");

        // One of two certificates goes, and only that one.
        space.file("late", &broker.instance, &late.csr).await;
        let issued = space.issued("late").await;
        let of_late = broker
            .connect(Login::certificate(&late, &issued))
            .await
            .unwrap();
        space.delete("late").await;
        space.gone("late").await;
        closed(&of_late, "the deleted request").await;
        closed(&of_owner, "the other one, which may come again").await;
        broker
            .connect(Login::certificate(&owner, &new))
            .await
            .unwrap();
        let gone = broker.connect(Login::certificate(&late, &issued)).await;
        assert!(
            gone.is_err(),
            "the certificate of a deleted request was let in"
        );
    });
}
