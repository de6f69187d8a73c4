//! What the operator owns is repaired; what it does not own is left alone.

use crate::shared::{central, playground};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, SOON, Space, run};

/// A request looks again for a Secret's name to become free after a minute.
const FREED: Duration = Duration::from_secs(90);

#[test]
fn the_objects_of_a_broker_are_repaired() {
    run(async {
        let playground = playground().await;
        let namespace = playground.namespace("owned").await;
        let instance = playground.instance(&namespace, "owned", json!({})).await;
        instance
            .condition("BrokerReady", "False", Some("Unreachable"), SOON)
            .await;
        let cases = [
            (
                "apps",
                "v1",
                "StatefulSet",
                "owned-rabbitmq",
                json!({"spec": {"replicas": 0}}),
                "/spec/replicas",
            ),
            (
                "",
                "v1",
                "Service",
                "owned-rabbitmq",
                json!({"spec": {"selector": {"app.kubernetes.io/name": "x"}}}),
                "/spec/selector",
            ),
            (
                "",
                "v1",
                "ConfigMap",
                "owned-rabbitmq",
                json!({"data": {"rabbitmq.conf": "listeners.tcp.default = 5672"}}),
                "/data",
            ),
            (
                "",
                "v1",
                "Secret",
                "owned-rabbitmq-definitions",
                json!({"data": {"definitions.json": "e30="}}),
                "/data",
            ),
            (
                "",
                "v1",
                "Secret",
                "owned-rabbitmq-tls",
                json!({"data": {"ca.crt": "e30="}}),
                "/data",
            ),
        ];
        join_all(
            cases
                .iter()
                .map(async |(group, version, kind, name, change, field)| {
                    let resource =
                        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
                    let api = Api::<DynamicObject>::namespaced_with(
                        playground.admin(),
                        &namespace,
                        &resource,
                    );
                    let before = field_of(&api, name, field).await.unwrap();
                    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
                        .await
                        .unwrap();
                    restored(&api, name, field, &before, "edited").await;
                    api.delete(name, &DeleteParams::default()).await.unwrap();
                    if *name == "owned-rabbitmq-tls" {
                        // The key was in it, so that is another one.
                        playground
                            .eventually("a deleted certificate is made anew", SOON, async || {
                                field_of(&api, name, "/data/tls.crt").await.map(drop)
                            })
                            .await;
                    } else {
                        restored(&api, name, field, &before, "deleted").await;
                    }
                }),
        )
        .await;
    });
}

#[test]
fn the_secret_of_a_request_is_repaired_with_the_same_certificate() {
    run(async {
        let space = playground().await.space("repaired").await;
        let issued = issue(&space, "forwarder").await;
        let forged = json!({"stringData": {"tls.crt": "forged", "ca.crt": "forged"}});
        space
            .secrets()
            .patch(
                "forwarder-tls",
                &PatchParams::default(),
                &Patch::Merge(forged),
            )
            .await
            .unwrap();
        same_again(&space, &issued).await;
        space
            .secrets()
            .delete("forwarder-tls", &DeleteParams::default())
            .await
            .unwrap();
        same_again(&space, &issued).await;
    });
}

#[test]
fn a_foreign_secret_is_never_overwritten() {
    run(async {
        let space = playground().await.space("foreign").await;
        put_foreign(&space, "forwarder-tls").await;
        space
            .file(
                "forwarder",
                &central().await.instance,
                &Agent::new("central.foreign.forwarder").csr,
            )
            .await;
        space.approve("forwarder").await;
        let says = space.says("forwarder", "Issued", "SecretExists").await;
        assert!(
            says.contains("forwarder-tls") && says.contains("does not belong to this request"),
            "{says}"
        );
        assert!(
            space
                .get("forwarder")
                .await
                .status
                .unwrap()
                .certificate
                .is_none()
        );
        let content = space.secret("forwarder").await.unwrap().data.unwrap();
        assert_eq!(content.len(), 1);
        assert_eq!(content["tls.crt"].0, b"mine");

        space
            .secrets()
            .delete("forwarder-tls", &DeleteParams::default())
            .await
            .unwrap();
        space.issued_within("forwarder", FREED).await;
    });
}

#[test]
fn a_renewal_overwrites_no_foreign_secret_either() {
    run(async {
        let space = playground().await.space("foreign-renewal").await;
        let instance = &central().await.instance;
        let ask = async |name: &str| {
            let agent = Agent::new("central.foreign.renewed");
            space.file(name, instance, &agent.csr).await;
        };
        ask("first").await;
        space.approve("first").await;
        let first = space.issued("first").await;
        put_foreign(&space, "second-tls").await;
        ask("second").await;
        space.says("second", "Issued", "SecretExists").await;
        // Denied with its identity, it takes nothing along that is not its own.
        space.deny("first", "enough").await;
        space.phase("second", Phase::Denied).await;
        let content = space.secret("second").await.unwrap().data.unwrap();
        assert_eq!(content.len(), 1);
        assert_eq!(content["tls.crt"].0, b"mine");

        // The Secret of an issued request that somebody else has put in its place.
        space.approve("first").await;
        let again = space.issued("first").await;
        assert_ne!(again.chain, first.chain);
        let mine = json!({"metadata": {"ownerReferences": null}, "data": {
            "tls.crt": "bWluZQ==", "ca.crt": null,
        }});
        space
            .secrets()
            .patch("first-tls", &PatchParams::default(), &Patch::Merge(mine))
            .await
            .unwrap();
        let look = json!({"metadata": {"annotations": {"tests/look": "again"}}});
        space
            .api()
            .patch("first", &PatchParams::default(), &Patch::Merge(look))
            .await
            .unwrap();
        space.says("first", "Issued", "SecretExists").await;
        assert_eq!(space.get("first").await.phase(), Some(Phase::Issued));
        let content = space.secret("first").await.unwrap().data.unwrap();
        assert_eq!(content["tls.crt"].0, b"mine");
    });
}

async fn issue(space: &Space<'_>, name: &str) -> Secret {
    let agent = Agent::new(&format!("central.repaired.{name}"));
    space
        .file(name, &central().await.instance, &agent.csr)
        .await;
    space.approve(name).await;
    space.issued(name).await;
    space.secret(name).await.unwrap()
}

async fn same_again(space: &Space<'_>, before: &Secret) {
    space
        .playground
        .eventually("the Secret is as it was", SOON, async || {
            let now = space.secret("forwarder").await;
            if now.as_ref().is_some_and(|now| now.data == before.data) {
                return Ok(());
            }
            Err(format!("{now:?}"))
        })
        .await;
}

async fn field_of(api: &Api<DynamicObject>, name: &str, field: &str) -> Result<Value, String> {
    let object = api.get(name).await.map_err(|error| error.to_string())?;
    object
        .data
        .pointer(field)
        .cloned()
        .ok_or_else(|| format!("no {field}"))
}

async fn restored(api: &Api<DynamicObject>, name: &str, field: &str, before: &Value, how: &str) {
    let what = format!("{name}, which was {how}, is restored");
    playground()
        .await
        .eventually(&what, SOON, async || {
            match field_of(api, name, field).await {
                Ok(now) if now == *before => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
}

/// Makes a Secret that is nobody's but the namespace's owner's.
async fn put_foreign(space: &Space<'_>, name: &str) {
    let foreign: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "stringData": {"tls.crt": "mine"},
    }))
    .unwrap();
    space
        .secrets()
        .create(&PostParams::default(), &foreign)
        .await
        .unwrap();
}
