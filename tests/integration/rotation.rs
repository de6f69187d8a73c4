//! Certificate authorities that are replaced while agents connect.

mod chains;
mod clock;
mod hindered;
mod load;

use crate::own_ca::{Ca, put};
use crate::shared::{disturbed, playground};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use load::Load;
use local_cluster::Base;
use serde_json::{Value, json};
use std::time::Duration;
use volttron_crds::{AuthorityStatus, well_known};
use volttron_tests::{
    Agent, Broker, Instance, Issued, Login, Moment, Playground, SOON, SYSTEM, Space, run,
};

const ROTATING: &str = "CertificateAuthorityRotating";
/// A step of a rotation waits for files, brokers and, here, for an operator that comes back.
const STEP: Duration = Duration::from_mins(5);

#[test]
fn a_rotation_under_load_refuses_nobody_wherever_the_controller_dies() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("rotated").await;
        let instance = playground
            .instance(&space.namespace, "turning", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let (old, new) = (
            Agent::new("turning.rotated.old"),
            Agent::new("turning.rotated.new"),
        );
        let with_old = issue(&space, &instance, "old", &old).await;
        let old_root = with_old.ca.clone();
        let steady = broker
            .connect(Login::certificate(&old, &with_old))
            .await
            .unwrap();
        let secret = format!("ca.{}.turning", space.namespace);
        playground
            .proxy()
            .count(&[format!("/api/v1/namespaces/{SYSTEM}/secrets/{secret}")]);

        let load = Load::new(&broker);
        let rotation = async {
            annotate(&instance, well_known::ROTATE_CA, "now").await;
            for step in ["introduce", "settle", "activate", "settle again"] {
                dies_at_the_next_write(&playground, step).await;
            }
            instance
                .condition(ROTATING, "True", Some("Activated"), STEP)
                .await;
            let with_new = issue(&space, &instance, "new", &new).await;
            load.publish(with_new);
            load.until_each_has(5).await;
            load.end();
        };
        tokio::join!(
            rotation,
            load.follow_files(),
            load.dial("old certificate, old root", async || {
                Some(login(&old, &with_old.chain, &old_root))
            }),
            load.dial("old certificate, current bundle", async || {
                Some(login(&old, &with_old.chain, &bundle(&space, "old").await))
            }),
            load.dial("new certificate, old root", async || {
                Some(login(&new, &load.published()?.chain, &old_root))
            }),
            load.dial("new certificate, current bundle", async || {
                let chain = load.published()?.chain;
                Some(login(&new, &chain, &bundle(&space, "new").await))
            }),
        );
        load.assert_none_refused();
        assert!(steady.status().connected(), "an open connection was ended");
        let during = authority(&instance).await;
        assert_eq!(during.generation, 2);
        assert_eq!(certificates(&during.bundle), 2);
        let says = instance.condition(ROTATING, "True", None, SOON).await;
        let holder = format!("1 ({}/old)", space.namespace);
        let words = says.message.clone();
        let needs_old = instance.condition(ROTATING, "True", Some("Activated"), STEP);
        assert!(needs_old.await.message.contains(&holder), "{words}");

        let with_new = load.published().unwrap();
        old_ca_retires(&space, &broker, &new, &with_new).await;
        let after = authority(&instance).await;
        assert_eq!((after.generation, after.previous), (2, None));
        assert_eq!(certificates(&after.bundle), 1);
        assert_eq!(after.rotation_request.as_deref(), Some("now"));
        let keys = keys_of(&playground, &secret).await;
        assert!(
            keys.iter().all(|key| !key.starts_with("previous")),
            "{keys:?}"
        );
        assert_refused(
            &playground,
            &broker,
            &login(&old, &with_old.chain, &after.bundle),
        )
        .await;
    });
}

#[test]
fn a_brought_ca_is_rotated_by_its_secret_and_by_nothing_that_is_wrong() {
    run(async {
        let playground = playground().await;
        let space = playground.space("brought-anew").await;
        let (first, other, root) = (
            Ca::root("First"),
            Ca::root("Other"),
            Ca::root("Second root"),
        );
        let second = Ca::root("unused").signed_by(&root, "Second");
        let chain = format!("{}{}", second.certificate, root.certificate);
        let replace = async |certificate: &str, key: &str| {
            let content = json!({"tls.crt": certificate, "tls.key": key});
            put(playground, &space.namespace, "own-ca", &content).await;
        };
        replace(&first.certificate, &first.key).await;
        let spec = json!({"ca": {"secretRef": {"name": "own-ca"}}});
        let instance = playground.instance(&space.namespace, "owned", spec).await;
        let broker = instance.start_broker(Base::Machine).await;
        let agents = ["one", "meanwhile", "two", "late"]
            .map(|name| Agent::new(&format!("owned.brought.{name}")));
        let [one, meanwhile, two, late] = &agents;
        let issued = issue(&space, &instance, "one", one).await;
        let steady = broker
            .connect(Login::certificate(one, &issued))
            .await
            .unwrap();

        replace(&second.certificate, &other.key).await;
        annotate(&instance, "example.org/look", "1").await;
        let says = instance
            .condition(ROTATING, "False", Some("KeyMismatch"), SOON)
            .await;
        let place = format!("Secret {}/own-ca", space.namespace);
        assert!(says.message.contains(&place), "{}", says.message);
        issue(&space, &instance, "meanwhile", meanwhile).await;

        replace(&chain, &second.key).await;
        annotate(&instance, "example.org/look", "2").await;
        let load = Load::new(&broker);
        let rotation = async {
            instance
                .condition(ROTATING, "True", Some("Activated"), STEP)
                .await;
            load.publish(issue(&space, &instance, "two", two).await);
            load.until_each_has(3).await;
            load.end();
        };
        tokio::join!(
            rotation,
            load.follow_files(),
            load.dial("old certificate, old root", async || {
                Some(login(one, &issued.chain, &first.certificate))
            }),
            load.dial("new certificate, old root", async || {
                Some(login(two, &load.published()?.chain, &first.certificate))
            }),
            load.dial("new certificate, new root", async || {
                // Who comes to know the new root does so when it signs.
                Some(login(
                    two,
                    &load.published()?.chain,
                    &bundle(&space, "two").await,
                ))
            }),
        );
        load.assert_none_refused();
        assert!(steady.status().connected(), "an open connection was ended");
        let by_second = load.published().unwrap();
        assert_eq!(
            certificates(&by_second.chain),
            3,
            "leaf, intermediate, and the root as the old CA signs it"
        );

        let load = Load::new(&broker);
        let retirement = async {
            for name in ["one", "meanwhile"] {
                space.delete(name).await;
            }
            instance
                .condition(ROTATING, "False", Some("Completed"), STEP)
                .await;
            load.end();
        };
        tokio::join!(retirement, load.follow_files());
        let after = authority(&instance).await;
        assert_eq!((after.generation, certificates(&after.bundle)), (2, 1));
        assert_eq!(
            pem::parse(&after.bundle).unwrap(),
            pem::parse(&root.certificate).unwrap()
        );

        // Without its Secret the CA signs nothing; what it has signed is good, and can be denied.
        signs_nothing_without_its_secret(&space, &broker, two, &by_second, late).await;
        replace(&chain, &second.key).await;
        annotate(&instance, "example.org/look", "4").await;
        space.issued("late").await;
    });
}

#[test]
fn a_ca_is_replaced_in_time_and_what_is_introduced_follows_what_is_wanted() {
    run(async {
        let playground = playground().await;
        let space = playground.space("aged").await;
        let aged = Ca::new("Aged", |params| {
            params.not_before = rcgen::date_time_ymd(1970, 1, 1);
            params.not_after = rcgen::date_time_ymd(2050, 1, 1);
        });
        // As an earlier release has left it.
        let secret = format!("ca.{}.aged", space.namespace);
        let content = json!({"tls.crt": aged.certificate, "tls.key": aged.key});
        put(playground, SYSTEM, &secret, &content).await;
        let instance = playground
            .instance(&space.namespace, "aged", json!({}))
            .await;
        let says = instance
            .condition(ROTATING, "True", Some("Introduced"), SOON)
            .await;
        assert!(says.message.contains("broker"), "{}", says.message);
        let introduced = authority(&instance).await;
        let next = introduced.next.unwrap();
        assert_eq!((introduced.generation, next.generation), (1, 2));
        assert_eq!(certificates(&introduced.bundle), 2);
        let first = pem::parse(&introduced.bundle).unwrap();
        assert_eq!(first, pem::parse(&aged.certificate).unwrap());

        let own = Ca::root("Own");
        let content = json!({"tls.crt": own.certificate, "tls.key": own.key});
        put(playground, &space.namespace, "own", &content).await;
        let spec = json!({"spec": {"ca": {"generated": null, "secretRef": {"name": "own"}}}});
        merge(&instance, &spec).await;
        playground
            .eventually(
                "the CA of the Secret is introduced instead",
                SOON,
                async || {
                    let ca = authority(&instance).await;
                    let found = ca.next.as_ref().map(|next| &next.sha256);
                    if found.is_some_and(|found| *found != next.sha256) {
                        assert_eq!(ca.sha256, introduced.sha256, "nothing else signs yet");
                        return Ok(());
                    }
                    Err(format!("{ca:?}"))
                },
            )
            .await;
        let keys = keys_of(playground, &secret).await;
        assert!(keys.contains(&"next.key".to_owned()), "{keys:?}");
    });
}

/// Deletes request `old`, the last that needs the old CA, while the agent of `new` connects.
async fn old_ca_retires(space: &Space<'_>, broker: &Broker<'_>, new: &Agent, with_new: &Issued) {
    // The owner of the last old certificate renews, as far as this CA is concerned.
    let steady = broker
        .connect(login(new, &with_new.chain, &with_new.ca))
        .await
        .unwrap();
    let load = Load::new(broker);
    let retirement = async {
        space.delete("old").await;
        space.gone("old").await;
        dies_at_the_next_write(space.playground, "retire").await;
        broker
            .instance
            .condition(ROTATING, "False", Some("Completed"), STEP)
            .await;
        load.until_each_has(5).await;
        load.end();
    };
    tokio::join!(
        retirement,
        load.follow_files(),
        load.dial("new certificate, current bundle", async || {
            let bundle = bundle(space, "new").await;
            Some(login(new, &with_new.chain, &bundle))
        }),
    );
    load.assert_none_refused();
    assert!(steady.status().connected(), "an open connection was ended");
}

/// Deletes the Secret of the CA; request `two` is denied then, and `late` approved.
async fn signs_nothing_without_its_secret(
    space: &Space<'_>,
    broker: &Broker<'_>,
    two: &Agent,
    of_two: &Issued,
    late: &Agent,
) {
    let instance = &broker.instance;
    let trusted = authority(instance).await.bundle;
    broker.refresh_files().await;
    clear_cache(broker).await;
    let last = broker
        .connect(login(two, &of_two.chain, &trusted))
        .await
        .unwrap();
    let secrets = Api::<Secret>::namespaced(space.playground.admin(), &space.namespace);
    secrets
        .delete("own-ca", &DeleteParams::default())
        .await
        .unwrap();
    annotate(instance, "example.org/look", "3").await;
    instance
        .condition(
            "CertificateAuthorityReady",
            "False",
            Some("SecretNotFound"),
            SOON,
        )
        .await;
    instance.condition("BrokerReady", "True", None, SOON).await;
    space.file("late", instance, &late.csr).await;
    space.approve("late").await;
    space
        .says("late", "Issued", "CertificateAuthorityNotReady")
        .await;
    assert!(last.status().connected());
    space.deny("two", "not any more").await;
    space
        .playground
        .eventually("the denied agent is disconnected", SOON, async || {
            let connected = last.status().connected();
            (!connected)
                .then_some(())
                .ok_or("it is connected".to_owned())
        })
        .await;
}

/// The operator is killed before its next write of the CAs, and after the write that then is made.
async fn dies_at_the_next_write(playground: &Playground, step: &str) {
    for moment in [Moment::Before, Moment::After] {
        let operator = playground.operator();
        let fired = playground.proxy().kill_at(1, moment, operator.killer());
        let write = tokio::time::timeout(STEP, fired).await;
        assert!(write.is_ok(), "{step}: no write; {}", operator.log_tail());
        operator.start_again();
    }
}

async fn clear_cache(broker: &Broker<'_>) {
    broker.ctl(&["eval", "ssl:clear_pem_cache()."]).await;
}

async fn issue(space: &Space<'_>, instance: &Instance<'_>, name: &str, agent: &Agent) -> Issued {
    space.file(name, instance, &agent.csr).await;
    space.approve(name).await;
    space.issued_within(name, STEP).await
}

fn login(agent: &Agent, chain: &str, trust: &str) -> Login {
    Login {
        certificate: Some((chain.to_owned(), agent.key.clone())),
        trust: trust.to_owned(),
        password: None,
    }
}

/// What the Secret of a request says is to be trusted.
async fn bundle(space: &Space<'_>, name: &str) -> String {
    let data = space.secret(name).await.unwrap().data.unwrap();
    let ByteString(bundle) = data["ca.crt"].clone();
    String::from_utf8(bundle).unwrap()
}

async fn authority(instance: &Instance<'_>) -> AuthorityStatus {
    instance.get().await.status.unwrap().ca.unwrap()
}

fn certificates(text: &str) -> usize {
    pem::parse_many(text).unwrap().len()
}

async fn keys_of(playground: &Playground, secret: &str) -> Vec<String> {
    let secrets = Api::<Secret>::namespaced(playground.admin(), SYSTEM);
    let data = secrets.get(secret).await.unwrap().data.unwrap();
    data.into_keys().collect()
}

async fn annotate(instance: &Instance<'_>, key: &str, value: &str) {
    merge(
        instance,
        &json!({"metadata": {"annotations": {key: value}}}),
    )
    .await;
}

async fn merge(instance: &Instance<'_>, patch: &Value) {
    instance
        .api()
        .patch(
            &instance.name,
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .unwrap();
}

async fn assert_refused(playground: &Playground, broker: &Broker<'_>, login: &Login) {
    playground
        .eventually("a certificate of the old CA is refused", SOON, async || {
            broker.refresh_files().await;
            clear_cache(broker).await;
            match broker.connect(login.clone()).await {
                Ok(_) => Err("it was accepted".to_owned()),
                Err(_) => Ok(()),
            }
        })
        .await;
}
