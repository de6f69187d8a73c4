//! Certificates that were revoked, and the brokers that have to refuse them.

mod authority;
mod client;
mod first_list;
mod kept;
mod planted;
/// The operator's own, which is a program and no library.
#[path = "../../../operator/src/broker/probe.rs"]
mod probe;
mod refused;
mod story;

use crate::shared::playground;
use authority::{Ca, Pair, days, put};
use client::{Client, SEEN};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};
use local_cluster::Base;
use probe::{ClientPair, Probe, RefusedBy};
use rustls::AlertDescription;
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};
use std::time::Duration;
use volttron_tests::{Broker, Instance, SOON, SYSTEM, Space, eventually, run};

/// Where the broker's lists are.
const LISTS: &str = "/etc/volttron-rabbitmq/crl";

#[test]
fn debians_rabbitmq_refuses_what_is_on_the_list() {
    run(enforced("listed-machine", Base::Machine));
}

#[test]
fn the_images_rabbitmq_refuses_what_is_on_the_list() {
    run(enforced("listed-image", Base::Image));
}

async fn enforced(name: &str, base: Base) {
    let space = playground().await.space(name).await;
    let ca = Ca::root("Plant root CA");
    let broker = start(&space, &ca, base).await;
    let (good, bad) = (ca.client("a.good"), ca.client("a.bad"));
    // The operator's first list is in force, and names nobody.
    for version in [&TLS12, &TLS13] {
        for pair in [&good, &bad] {
            let client = Client::new(&broker, &ca.certificate, pair, version);
            assert_eq!(client.says().await, Ok(()), "{version:?}");
        }
    }
    let Probe::Accepted { server_chain } = ask(&broker, &ca, &bad).await else {
        panic!("the probe was refused");
    };
    let serves = broker.tls_certificate().await;
    assert_eq!(server_chain.first(), Some(&serves));

    broker.hold_files(true);
    // Sessions from before the revocation are not taken up.
    let before = Client::new(&broker, &ca.certificate, &bad, &TLS12);
    assert_eq!(before.says().await, Ok(()));
    set_list(&broker, &ca, ca.list(&[&bad], days(-1), days(30))).await;
    assert_eq!(
        before.says().await,
        Err(AlertDescription::CertificateRevoked)
    );
    for version in [&TLS12, &TLS13] {
        let client = |pair| Client::new(&broker, &ca.certificate, pair, version);
        let revoked = Err(AlertDescription::CertificateRevoked);
        assert_eq!(client(&bad).says().await, revoked, "{version:?}");
        assert_eq!(client(&good).says().await, Ok(()), "{version:?}");
    }
    assert_eq!(
        ask(&broker, &ca, &bad).await,
        Probe::Refused(RefusedBy::Revoked)
    );

    let stranger = Ca::root("Another root CA").client("a.good");
    let stranger = ask(&broker, &ca, &stranger).await;
    assert_eq!(stranger, Probe::Refused(RefusedBy::UnknownCa));
    let expired = ca.client_until("a.good", days(-1));
    let expired = ask(&broker, &ca, &expired).await;
    assert_eq!(expired, Probe::Refused(RefusedBy::Expired));

    // A broker whose clock is behind the operator's by a day does as it is told.
    set_list(&broker, &ca, ca.list(&[&bad], days(1), days(30))).await;
    assert_eq!(
        ask(&broker, &ca, &bad).await,
        Probe::Refused(RefusedBy::Revoked)
    );
    assert!(accepts(&broker, &ca, &good).await);
    // Each handshake reads the list: one that is taken back is as good as never given.
    set_list(&broker, &ca, ca.list(&[], days(-1), days(30))).await;
    assert!(accepts(&broker, &ca, &bad).await);

    // Without a list in force, nobody is let in.
    let forged = Ca::root("Plant root CA").list(&[], days(-1), days(30));
    let mut let_in = Vec::new();
    for (what, list) in [
        ("a list that has run out", ca.list(&[], days(-2), days(-1))),
        ("a list by another CA of that name", forged),
        (
            "half a list",
            ca.list(&[], days(-1), days(30))[..200].to_owned(),
        ),
        ("an empty file", String::new()),
    ] {
        set_list(&broker, &ca, list).await;
        if accepts(&broker, &ca, &good).await {
            let_in.push(what);
        }
    }
    broker.set_files(LISTS, Vec::new()).await;
    let refused = ask(&broker, &ca, &good).await;
    let bad_certificate = RefusedBy::Other(AlertDescription::BadCertificate);
    assert_eq!(refused, Probe::Refused(bad_certificate), "without a list");
    assert!(let_in.is_empty(), "let in: {let_in:?}");

    broker.refresh_files().await;
    assert!(
        accepts(&broker, &ca, &good).await,
        "with the operator's list again"
    );
}

#[test]
fn a_list_of_an_intermediate_ca_is_enough_and_its_siblings_are_shut_out() {
    run(async {
        let space = playground().await.space("siblings").await;
        let root = Ca::root("Corporate root CA");
        let (ours, theirs) = (
            root.intermediate("Plant CA"),
            root.intermediate("Office CA"),
        );
        let broker = start(&space, &ours, Base::Machine).await;
        let (good, bad) = (ours.client("a.good"), ours.client("a.bad"));
        broker.hold_files(true);
        set_list(&broker, &ours, ours.list(&[&bad], days(-1), days(30))).await;
        assert!(accepts(&broker, &root, &good).await);
        assert_eq!(
            ask(&broker, &root, &bad).await,
            Probe::Refused(RefusedBy::Revoked)
        );
        let sibling = ask(&broker, &root, &theirs.client("a.good")).await;
        let bad_certificate = RefusedBy::Other(AlertDescription::BadCertificate);
        assert_eq!(sibling, Probe::Refused(bad_certificate));
    });
}

/// What the tests rely on: a broker's files are those of the API server, and stay while they are held.
#[test]
fn a_brokers_files_follow_the_api_server_unless_they_are_held() {
    run(async {
        let space = playground().await.space("followed").await;
        let broker = start(&space, &Ca::root("Plant root CA"), Base::Machine).await;
        let maps = Api::<ConfigMap>::namespaced(space.playground.admin(), &space.namespace);
        let put = async |value: Value| {
            let patch = Patch::Merge(json!({"data": {"note": value}}));
            let parameters = PatchParams::default();
            let name = "plant-rabbitmq";
            maps.patch(name, &parameters, &patch).await.unwrap();
        };
        let sees = async |what: &str| {
            eventually(what, SOON, async || {
                let read = r#"file:read_file("/etc/volttron-rabbitmq/config/note")."#;
                let says = broker.ctl(&["eval", read]).await;
                if says.contains(what) {
                    Ok(())
                } else {
                    Err(says)
                }
            })
            .await;
        };
        put(json!("first")).await;
        sees("first").await;
        broker.hold_files(true);
        put(json!("second")).await;
        // Time in which it would have come.
        tokio::time::sleep(Duration::from_secs(1)).await;
        sees("first").await;
        broker.hold_files(false);
        sees("second").await;
        put(Value::Null).await;
        sees("enoent").await;
    });
}

/// What is written down of an instance's certificates.
async fn ledger(instance: &Instance<'_>) -> Value {
    let secrets = Api::<Secret>::namespaced(instance.playground.admin(), SYSTEM);
    let name = format!("crl.{}.{}", instance.namespace, instance.name);
    let mut data = secrets.get(&name).await.unwrap().data.unwrap();
    serde_json::from_slice(&data.remove("ledger.json").unwrap().0).unwrap()
}

/// The broker of an instance with this CA.
async fn start<'a>(space: &Space<'a>, ca: &Ca, base: Base) -> Broker<'a> {
    put(space, "own-ca", ca).await;
    let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
    let instance = space
        .playground
        .instance(&space.namespace, "plant", spec)
        .await;
    instance.start_broker(base).await
}

async fn set_list(broker: &Broker<'_>, ca: &Ca, list: String) {
    let files = vec![(ca.list_file(), list.into_bytes())];
    broker.set_files(LISTS, files).await;
}

/// What the operator's probe says; it is asked again where the answer was lost.
async fn ask(broker: &Broker<'_>, roots: &Ca, pair: &Pair) -> Probe {
    let address = format!("{}:5671", broker.address());
    let host = broker.instance.host();
    let client = ClientPair {
        chain: &pair.chain,
        key: &pair.key,
    };
    eventually(
        "the broker answers the probe",
        SEEN,
        async || match probe::probe(&address, &host, &roots.certificate, Some(client)).await {
            Probe::Unreachable(why) => Err(why),
            answer => Ok(answer),
        },
    )
    .await
}

async fn accepts(broker: &Broker<'_>, roots: &Ca, pair: &Pair) -> bool {
    let address = format!("{}:5671", broker.address());
    let client = ClientPair {
        chain: &pair.chain,
        key: &pair.key,
    };
    // Damaged lists end a handshake without an alert now and then, so that no answer is a no.
    let host = broker.instance.host();
    let answer = probe::probe(&address, &host, &roots.certificate, Some(client)).await;
    matches!(answer, Probe::Accepted { .. })
}
