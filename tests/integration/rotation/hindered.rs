//! Owners who keep the operator from writing their Secrets hold nobody else up.

use super::{ROTATING, STEP, annotate, authority, issue};
use crate::shared::playground;
use k8s_openapi::api::core::v1::{ResourceQuota, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use local_cluster::Base;
use serde_json::json;
use volttron_crds::{Phase, well_known};
use volttron_tests::{Agent, SOON, Space, run};

#[test]
fn secrets_that_their_owners_have_taken_away_hold_no_rotation_up() {
    run(async {
        let playground = playground().await;
        let space = playground.space("hindered").await;
        let instance = playground
            .instance(&space.namespace, "freed", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        for name in ["taken", "refused", "good"] {
            let agent = Agent::new(&format!("freed.hindered.{name}"));
            issue(&space, &instance, name, &agent).await;
        }
        let mine = json!({"metadata": {"ownerReferences": null}, "stringData": {"ca.crt": "mine"}});
        space
            .secrets()
            .patch("taken-tls", &PatchParams::default(), &Patch::Merge(mine))
            .await
            .unwrap();
        no_more_secrets(&space).await;
        space
            .secrets()
            .delete("refused-tls", &DeleteParams::default())
            .await
            .unwrap();

        // As long as the broker waits, so does the rotation, and can be looked at.
        broker.hold_files(true);
        annotate(&instance, well_known::ROTATE_CA, "now").await;
        let says = async || {
            let says = instance
                .condition(ROTATING, "True", Some("Introduced"), STEP)
                .await;
            let namespace = &space.namespace;
            let words = [
                "not waited for".to_owned(),
                "status.ca.bundle".to_owned(),
                format!("{namespace}/taken: a Secret of that name is somebody else's"),
                format!("{namespace}/refused: "),
                "the broker does not trust it yet".to_owned(),
            ];
            let lacks = words.iter().find(|words| !says.message.contains(*words));
            lacks.map_or(Ok(()), |_| Err(says.message.clone()))
        };
        playground
            .eventually("the Secrets are named", STEP, says)
            .await;
        broker.hold_files(false);
        instance
            .condition(ROTATING, "True", Some("Activated"), STEP)
            .await;
        assert_eq!(authority(&instance).await.generation, 2);
        space.says("taken", "Issued", "SecretExists").await;
        for name in ["taken", "refused", "good"] {
            space.phase(name, Phase::Issued).await;
        }
    });
}

/// Makes a quota that leaves no room, and waits until the API server heeds it.
async fn no_more_secrets(space: &Space<'_>) {
    let client = space.playground.admin();
    let quota = json!({"metadata": {"name": "none"}, "spec": {"hard": {"count/secrets": "0"}}});
    let quota: ResourceQuota = serde_json::from_value(quota).unwrap();
    Api::namespaced(client.clone(), &space.namespace)
        .create(&PostParams::default(), &quota)
        .await
        .unwrap();
    let secrets = Api::<Secret>::namespaced(client, &space.namespace);
    let tried: Secret = serde_json::from_value(json!({"metadata": {"name": "tried"}})).unwrap();
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let refused = async || match secrets.create(&dry_run, &tried).await {
        Ok(_) => Err("a Secret would be made".to_owned()),
        Err(_) => Ok(()),
    };
    space
        .playground
        .eventually("the quota holds", SOON, refused)
        .await;
}
