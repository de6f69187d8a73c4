//! Who is denied or deleted is out at once, also while something other than the broker is not as it should be.

use crate::shared::{disturbed, playground};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::DeleteParams;
use lapin::Connection;
use local_cluster::Base;
use serde_json::json;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::net::TcpStream;
use volttron_crds::Phase;
use volttron_tests::{Agent, Broker, Login, SOON, SYSTEM, Space, encode, eventually, run};

/// The operator looks at a broker that is fine every half minute.
const NOTICED: Duration = Duration::from_secs(75);

/// The shortest life a certificate can have.
const LIFE: Duration = Duration::from_mins(1);

/// Makes exchange `volttron` anew, without its alternate exchange.
const REMAKE: &str = r#"
    Name = rabbit_misc:r(<<"volttron">>, exchange, <<"volttron">>),
    ok = rabbit_exchange:delete(Name, false, <<"somebody">>),
    rabbit_exchange:declare(Name, topic, true, false, false, [], <<"somebody">>).
"#;

#[test]
fn while_an_exchange_is_not_what_it_should_be() {
    run(async {
        let space = playground().await.space("remade").await;
        let instance = space
            .playground
            .instance(&space.namespace, "remade", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let denied = connected(&space, &broker, "denied").await;
        let deleted = connected(&space, &broker, "deleted").await;
        broker.ctl(&["eval", REMAKE]).await;
        instance
            .condition("BrokerReady", "False", Some("TopologyMismatch"), NOTICED)
            .await;
        deny(&space, &broker, "denied", &denied).await;
        space.delete("deleted").await;
        space.gone("deleted").await;
        assert_is_out(&broker, "deleted", &deleted).await;
    });
}

#[test]
fn while_the_ca_is_lost_and_when_the_operator_has_just_started() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("lost-ca").await;
        let instance = playground
            .instance(&space.namespace, "lost", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let first = connected(&space, &broker, "first").await;
        let second = connected(&space, &broker, "second").await;
        let secret = format!("ca.{}.lost", space.namespace);
        Api::<Secret>::namespaced(playground.admin(), SYSTEM)
            .delete(&secret, &DeleteParams::default())
            .await
            .unwrap();
        instance
            .condition("CertificateAuthorityReady", "False", None, NOTICED)
            .await;
        deny(&space, &broker, "first", &first).await;

        playground.operator().kill();
        playground.operator().start_again();
        playground.operator().wait_ready().await;
        deny(&space, &broker, "second", &second).await;
    });
}

#[test]
fn while_the_broker_does_not_answer_whether_it_enforces_a_list() {
    run(async {
        let space = playground().await.space("mute").await;
        let instance = space
            .playground
            .instance(&space.namespace, "mute", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let proxy = broker.behind_proxy().await;
        let amqp = proxy.hang_amqp().await;
        // The connections the operator has to the broker itself end.
        broker.kill().await;
        broker.start_again().await;
        instance.ready().await;
        let first = connected(&space, &broker, "first").await;
        deny(&space, &broker, "first", &first).await;
        // The operator waits for an answer, for ten seconds. A machine that is busy may need them.
        for number in 0..5 {
            let name = format!("other{number}");
            let other = connected(&space, &broker, &name).await;
            let accepted = tokio::time::timeout(SOON, amqp.accept()).await;
            let (trial, _) = accepted.expect("the list is tried").unwrap();
            space.deny(&name, "it was stolen").await;
            space.says(&name, "Issued", "Denied").await;
            let is_waiting = goes_on(&trial);
            assert_is_out(&broker, &name, &other).await;
            if is_waiting {
                return;
            }
        }
        panic!("each denial waited until the trial had ended");
    });
}

/// Whether the other side waits for an answer still.
fn goes_on(stream: &TcpStream) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn though_no_comparison_with_the_broker_helps() {
    run(async {
        let space = playground().await.space("unaided").await;
        let instance = space
            .playground
            .instance(&space.namespace, "unaided", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let proxy = broker.behind_proxy().await;
        // The connections the operator has to the broker itself end.
        broker.kill().await;
        broker.start_again().await;
        instance.ready().await;
        let denied = connected(&space, &broker, "denied").await;
        let deleted = connected(&space, &broker, "deleted").await;
        let expired = connected_for(&space, &broker, "expired", Some("1m")).await;
        // A comparison begins with the virtual host.
        proxy.hold("/api/vhosts/");
        let held = async || (proxy.held() > 0).then_some(()).ok_or(String::new());
        eventually("a comparison is held back", NOTICED, held).await;
        deny(&space, &broker, "denied", &denied).await;
        space.delete("deleted").await;
        space.gone("deleted").await;
        assert_is_out(&broker, "deleted", &deleted).await;
        space
            .phase_within("expired", Phase::Expired, LIFE + SOON)
            .await;
        assert_is_out(&broker, "expired", &expired).await;
        proxy.let_go();
    });
}

/// An agent that was issued a certificate and is connected with it.
async fn connected(space: &Space<'_>, broker: &Broker<'_>, name: &str) -> Connection {
    connected_for(space, broker, name, None).await
}

async fn connected_for(
    space: &Space<'_>,
    broker: &Broker<'_>,
    name: &str,
    duration: Option<&str>,
) -> Connection {
    let agent = Agent::new(&common_name(broker, name));
    space
        .try_file(name, &broker.instance, &encode(&agent.csr), duration)
        .await
        .unwrap();
    space.approve(name).await;
    let issued = space.issued(name).await;
    let login = Login::certificate(&agent, &issued);
    broker.connect(login).await.unwrap()
}

async fn deny(space: &Space<'_>, broker: &Broker<'_>, name: &str, connection: &Connection) {
    space.deny(name, "it was stolen").await;
    space.says(name, "Issued", "Denied").await;
    assert_is_out(broker, name, connection).await;
}

/// When it is recorded that an agent is out, it is.
async fn assert_is_out(broker: &Broker<'_>, name: &str, connection: &Connection) {
    assert!(!broker.has_user(&common_name(broker, name)).await, "{name}");
    eventually("the agent is disconnected", SOON, async || {
        let is_open = connection.status().connected();
        (!is_open).then_some(()).ok_or("it is open".to_owned())
    })
    .await;
}

fn common_name(broker: &Broker<'_>, name: &str) -> String {
    format!("{}.a.{name}", broker.instance.name)
}
