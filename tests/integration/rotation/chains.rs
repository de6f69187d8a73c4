//! Certificate authorities that differ from the one in use in one thing: root, or key.

use super::{ROTATING, STEP, annotate, authority, certificates, clear_cache, issue};
use crate::own_ca::{Ca, put};
use crate::shared::playground;
use local_cluster::Base;
use serde_json::json;
use std::time::Duration;
use volttron_tests::{Agent, Broker, Login, SOON, run};

#[test]
fn the_same_ca_under_another_root_leaves_the_old_root_behind() {
    run(async {
        let playground = playground().await;
        let space = playground.space("rerooted").await;
        let (old, new) = (Ca::root("Old root"), Ca::root("New root"));
        let issuing = Ca::root("unused");
        let by_old = issuing.clone().signed_by(&old, "Issuing");
        let by_new = issuing.signed_by(&new, "Issuing");
        let content = by_old.secret(Some(&old));
        put(playground, &space.namespace, "own-ca", &content).await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = playground.instance(&space.namespace, "owned", spec).await;
        let broker = instance.start_broker(Base::Machine).await;
        let agents = ["one", "two"].map(|name| Agent::new(&format!("owned.rerooted.{name}")));
        let one = issue(&space, &instance, "one", &agents[0]).await;
        let steady = broker
            .connect(Login::certificate(&agents[0], &one))
            .await
            .unwrap();

        let content = by_new.secret(Some(&new));
        put(playground, &space.namespace, "own-ca", &content).await;
        annotate(&instance, "example.org/look", "1").await;
        let activated = async || {
            instance
                .condition(ROTATING, "True", Some("Activated"), STEP)
                .await
        };
        hurried(&broker, activated()).await;
        let two = issue(&space, &instance, "two", &agents[1]).await;
        let holder = format!("1 ({}/one)", space.namespace);
        let counted = async || {
            let says = activated().await.message;
            says.contains(&holder).then_some(()).ok_or(says)
        };
        let counted =
            playground.eventually("only what the old root leads to is counted", STEP, counted);
        hurried(&broker, counted).await;
        space.delete("one").await;
        let completed = instance.condition(ROTATING, "False", Some("Completed"), STEP);
        hurried(&broker, completed).await;
        let after = authority(&instance).await;
        assert_eq!((after.generation, certificates(&after.bundle)), (2, 1));
        let trusted = pem::parse(&after.bundle).unwrap();
        assert_eq!(trusted, pem::parse(&new.certificate).unwrap());
        drop(steady);
        let login = Login::certificate(&agents[1], &two);
        broker.refresh_files().await;
        broker.ctl(&["eval", "ssl:clear_pem_cache()."]).await;
        let connection = broker.connect(login).await.unwrap();
        assert!(connection.status().connected());
    });
}

/// RabbitMQ looks for changed files every two minutes by itself.
async fn hurried<T>(broker: &Broker<'_>, waiting: impl Future<Output = T>) -> T {
    let hurry = async {
        loop {
            broker.refresh_files().await;
            clear_cache(broker).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    };
    tokio::select! {
        value = waiting => value,
        () = hurry => unreachable!("it goes on for ever"),
    }
}

#[test]
fn a_ca_with_the_subject_of_the_one_in_use_is_refused_before_it_is_introduced() {
    run(async {
        let playground = playground().await;
        let space = playground.space("namesakes").await;
        let replace = async |ca: &Ca| {
            put(playground, &space.namespace, "own-ca", &ca.secret(None)).await;
        };
        replace(&Ca::root("Plant CA")).await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = playground.instance(&space.namespace, "named", spec).await;
        instance
            .condition("CertificateAuthorityReady", "True", None, SOON)
            .await;
        let before = authority(&instance).await;

        // RabbitMQ compares names without regard to case.
        for (look, name) in [("1", "Plant CA"), ("2", "plant ca")] {
            let ca = Ca::root(name);
            replace(&ca).await;
            annotate(&instance, "example.org/look", look).await;
            let refused = async || {
                let says = instance
                    .condition(ROTATING, "False", Some("SubjectInUse"), SOON)
                    .await
                    .message;
                let words = [format!("CN={name}"), "another subject".to_owned()];
                let named = words.iter().all(|words| says.contains(words));
                named.then_some(()).ok_or(says)
            };
            playground
                .eventually("the namesake is refused", SOON, refused)
                .await;
            assert_eq!(authority(&instance).await, before);
            instance
                .condition("CertificateAuthorityReady", "True", None, SOON)
                .await;
        }
        replace(&Ca::root("Plant CA 2")).await;
        annotate(&instance, "example.org/look", "3").await;
        instance
            .condition(ROTATING, "True", Some("Introduced"), SOON)
            .await;
    });
}
