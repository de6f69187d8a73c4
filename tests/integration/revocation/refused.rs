//! A revocation that cannot be written down.

use crate::shared::disturbed;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, Login, SOON, SYSTEM, run};

#[test]
fn a_name_does_not_come_back_before_its_denied_certificate_is_written_down() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("unwritten").await;
        let name = "central.plant.unwritten";
        let (thief, owner) = (Agent::new(name), Agent::new(name));
        space.file("stolen", &broker.instance, &thief.csr).await;
        space.approve("stolen").await;
        let stolen = space.issued("stolen").await;

        // A Secret that cannot be changed is refused at once, and not tried again as an API server is that is away.
        let secrets = Api::<Secret>::namespaced(playground.admin(), SYSTEM);
        let ledger = format!("crl.{}.central", broker.instance.namespace);
        let (parameters, fixed) = (PatchParams::default(), json!({"immutable": true}));
        let fixed = Patch::Merge(fixed);
        secrets.patch(&ledger, &parameters, &fixed).await.unwrap();
        space.deny("stolen", "stolen").await;
        space.phase("stolen", Phase::Denied).await;
        space.says("stolen", "Issued", "AccessNotEnded").await;
        broker.user(name, false, SOON).await;
        space.file("new", &broker.instance, &owner.csr).await;
        space.approve("new").await;
        let says = space.says("new", "Issued", "RevocationNotEnforced").await;
        assert!(
            says.contains(&format!("{}/stolen", space.namespace)),
            "{says}"
        );
        // Time in which it would have been let in.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(space.get("new").await.phase(), Some(Phase::Approved));
        assert!(
            !broker.has_user(name).await,
            "the thief would come in with it"
        );

        // The operator makes it anew.
        secrets
            .delete(&ledger, &DeleteParams::default())
            .await
            .unwrap();
        let new = space.issued_within("new", SOON * 4).await;
        broker
            .connect(Login::certificate(&owner, &new))
            .await
            .unwrap();
        let back = broker.connect(Login::certificate(&thief, &stolen)).await;
        assert!(back.is_err(), "a denied certificate was let in");
    });
}
