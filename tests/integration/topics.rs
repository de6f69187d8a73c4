//! What an agent may do on the bus, and what it may not: with agents' own connections to real brokers.

mod deeds;

use crate::shared::playground;
use deeds::{Deed, Member, address, allowed, persistent, refused, subscription};
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use local_cluster::Base;
use serde_json::json;
use volttron_tests::{Agent, Broker, Login, SOON, Space, run};

/// The instance; its addresses begin with it.
const BUS: &str = "central";
const UUID: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";

#[test]
fn agents_keep_to_their_own_on_rabbitmq_3() {
    run(bus(Base::Machine));
}

#[test]
fn agents_keep_to_their_own_on_rabbitmq_4() {
    run(bus(Base::Image));
}

async fn bus(base: Base) {
    let space = playground().await.space("bus").await;
    let instance = space
        .playground
        .instance(&space.namespace, BUS, json!({}))
        .await;
    let broker = instance.start_broker(base).await;
    let mut members = Vec::new();
    for (request, name) in [
        ("one", "a.b"),
        ("longer", "a.bc"),
        ("deeper", "a.b.c"),
        ("signs", "x-1.y_2"),
    ] {
        members.push(join(&space, &broker, request, &format!("{BUS}.{name}")).await);
    }
    let members: [Member; 4] = members.try_into().ok().unwrap();
    for member in &members {
        talks_as_volttron_does(member).await;
    }
    let [one, longer, deeper, signs] = &members;
    is_heard(&space, one, deeper).await;
    is_heard(&space, deeper, one).await;
    binds_nobody_elses(one).await;
    publishes_nothing_else(one).await;
    has_nothing_of_the_brokers(one).await;
    for (attacker, victims) in [
        (one, [longer, deeper, signs]),
        (deeper, [one, longer, signs]),
        (longer, [one, deeper, signs]),
    ] {
        for victim in victims {
            leaves_alone(attacker, victim).await;
        }
    }
    refused(
        signs,
        &[
            Deed::Bind(&signs.name, "central.x-1.y-2"),
            Deed::Bind(&signs.name, "central.x_1.y_2"),
            Deed::Bind(&signs.name, "central.x-1xy_2"),
            Deed::Declare("central.x-1xy_2", persistent()),
        ],
    )
    .await;

    // An agent whose queue would be one of another's pubsub queues.
    let shadow = Agent::new("central.a.b.pubsub.x");
    space.file("shadow", &instance, &shadow.csr).await;
    space.approve("shadow").await;
    space.says("shadow", "Failed", "ReservedName").await;
    assert!(!broker.has_user(&shadow.common_name).await);
}

/// Lets an agent in, which declares its address as VOLTTRON does.
async fn join(space: &Space<'_>, broker: &Broker<'_>, request: &str, name: &str) -> Member {
    let agent = Agent::new(name);
    space.file(request, &broker.instance, &agent.csr).await;
    space.approve(request).await;
    let issued = space.issued(request).await;
    let login = Login::certificate(&agent, &issued);
    let connection = broker.connect(login).await.unwrap();
    Member {
        name: name.to_owned(),
        connection,
    }
}

/// All that agents of VOLTTRON do on the bus.
async fn talks_as_volttron_does(member: &Member) {
    let name = member.name.as_str();
    let pubsub = format!("{name}.pubsub.{UUID}");
    let durable = format!("{name}.pubsub.persistent.alarms");
    let heartbeat = format!(
        "__pubsub__.{BUS}.heartbeat.{}.#",
        name.trim_start_matches("central.")
    );
    let home = name.split('.').nth(1).unwrap();
    let forwarded = format!("__pubsub__.{home}.devices.campus.all.#");
    allowed(
        member,
        &[
            Deed::Declare(name, address()),
            Deed::Bind(name, name),
            Deed::Consume(name),
            Deed::Publish("central.router"),
            Deed::Declare(&pubsub, subscription()),
            Deed::Bind(&pubsub, "__pubsub__.central.devices.#"),
            Deed::Bind(&pubsub, "__pubsub__.central.#"),
            Deed::Bind(&pubsub, "__pubsub__.central.iam..#"),
            Deed::Bind(&pubsub, "__pubsub__.*.devices.#"),
            Deed::Bind(&pubsub, "__pubsub__.*.#"),
            Deed::Publish("central.proxy.router.pubsub"),
            Deed::Consume(&pubsub),
            Deed::Unbind(&pubsub, "__pubsub__.central.#"),
            Deed::Unbind(&pubsub, "__pubsub__.*.#"),
            Deed::Declare(&durable, persistent()),
            Deed::Bind(&durable, "__pubsub__.central.alerts.#"),
            Deed::Get(&durable),
            Deed::Publish("__pubsub__.central.devices.campus.b1.all.#"),
            Deed::Publish("__pubsub__.central.a topic with blänks, and commas.#"),
            Deed::Publish(&heartbeat),
            Deed::Publish("central.platform.agent"),
            Deed::Publish("central.collector2.platform.agent"),
            // RPC with external_platform=, and what a shovel brings along.
            Deed::Publish("elsewhere.platform.agent"),
            Deed::Publish(&forwarded),
            Deed::Purge(&durable),
            Deed::Delete(&durable),
        ],
    )
    .await;
    // A queue that the broker names, as a shovel takes it.
    let channel = member.connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions {
        exclusive: true,
        ..QueueDeclareOptions::default()
    };
    let named = channel
        .queue_declare("".into(), options, FieldTable::default())
        .await
        .unwrap();
    allowed(
        member,
        &[
            Deed::Bind(named.name().as_str(), "__pubsub__.central.devices.#"),
            Deed::Consume(named.name().as_str()),
        ],
    )
    .await;
}

/// What one says to the other arrives, directly and as a topic.
async fn is_heard(space: &Space<'_>, from: &Member, to: &Member) {
    let topic = format!("devices.{}", from.name.replace('.', "-"));
    let pubsub = format!("{}.pubsub.{}", to.name, topic);
    let binding = format!("__pubsub__.{BUS}.{topic}.#");
    let published = format!("__pubsub__.{BUS}.{topic}.all.#");
    let called = format!("{}.pubsub.rpc-{topic}", to.name);
    allowed(
        to,
        &[
            Deed::Declare(&pubsub, subscription()),
            Deed::Bind(&pubsub, &binding),
            Deed::Declare(&called, subscription()),
            Deed::Bind(&called, &to.name),
        ],
    )
    .await;
    allowed(from, &[Deed::Publish(&published), Deed::Publish(&to.name)]).await;
    for (queue, key) in [(&pubsub, &published), (&called, &to.name)] {
        let channel = to.connection.create_channel().await.unwrap();
        let what = format!("{key} from {} reaches {queue}", from.name);
        space
            .playground
            .eventually(&what, SOON, async || {
                let message = channel
                    .basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true })
                    .await
                    .map_err(|error| error.to_string())?
                    .ok_or("no message")?;
                assert_eq!(message.delivery.routing_key.as_str(), key);
                Ok(())
            })
            .await;
    }
}

/// No key that could match what is sent to others.
async fn binds_nobody_elses(member: &Member) {
    let name = member.name.as_str();
    let keys = [
        "#",
        "*",
        "*.#",
        "#.#",
        "",
        "central",
        "central.#",
        "central.*",
        "central.*.*",
        "central.*.b",
        "central.a.*",
        "central.a.#",
        "central.a.b.#",
        "central.a.b.*",
        "#.central.a.b",
        "*.a.b",
        "#.b",
        "central.a.bc",
        "central.a.b.c",
        "central.a-b",
        "centralXaXb",
        "central.router",
        "central.router.#",
        "central.platform.agent",
        "elsewhere.platform.agent",
        "__pubsub__",
        "__pubsub__.#",
        "__pubsub__.*",
        "__pubsub__.central",
        "__pubsub__.elsewhere.devices.#",
        "__pubsub__.#.central.a.bc",
        "#.__pubsub__.central.devices",
        "central.a.b.__pubsub__.central.x",
    ];
    let deeds: Vec<Deed> = keys.iter().map(|key| Deed::Bind(name, key)).collect();
    refused(member, &deeds).await;
    // Nor does a binding between exchanges lead around that, nor one that is taken back.
    allowed(member, &[Deed::DeclareExchange(name)]).await;
    let around: Vec<Deed> = keys
        .iter()
        .map(|key| Deed::BindExchange(name, "volttron", key))
        .chain([
            Deed::BindExchange("volttron", "volttron", "#"),
            Deed::BindExchange("undeliverable", "volttron", name),
            Deed::BindExchange(name, "undeliverable", ""),
            Deed::BindExchange(name, "amq.topic", "#"),
            Deed::BindExchange(name, "amq.rabbitmq.trace", "#"),
            Deed::Unbind(name, "#"),
        ])
        .collect();
    refused(member, &around).await;
}

async fn publishes_nothing_else(member: &Member) {
    refused(
        member,
        &[
            Deed::Publish(""),
            Deed::Publish("central"),
            Deed::Publish("__pubsub__"),
            Deed::Publish("__pubsub__.central"),
            Deed::Publish("__pubsub__.elsewhere.devices.all.#"),
            Deed::Publish("__pubsub__.centralX.devices.all.#"),
        ],
    )
    .await;
}

/// Nothing that the broker has for itself, above all no default exchange, which leads into every queue.
async fn has_nothing_of_the_brokers(member: &Member) {
    let name = member.name.as_str();
    let dead_letters = format!("{name}.pubsub.dead-letters");
    refused(
        member,
        &[
            Deed::PublishTo("", "central.a.bc"),
            Deed::PublishTo("", name),
            Deed::PublishTo("amq.topic", name),
            Deed::PublishTo("amq.direct", name),
            Deed::PublishTo("amq.fanout", name),
            Deed::PublishTo("amq.rabbitmq.log", name),
            Deed::PublishTo("undeliverable", name),
            Deed::BindTo(name, "amq.topic", "#"),
            Deed::BindTo(name, "amq.rabbitmq.trace", "#"),
            Deed::BindTo(name, "amq.rabbitmq.log", "#"),
            Deed::BindTo(name, "undeliverable", ""),
            Deed::DeclareDeadLettering(&dead_letters, ""),
            Deed::DeclareDeadLettering(&dead_letters, "amq.topic"),
            Deed::Declare("amq.gen-of-my-own", subscription()),
            Deed::Declare("amq.other", subscription()),
            Deed::Declare("something", subscription()),
            Deed::Declare("central.router", subscription()),
            Deed::Declare("central.router.unroutable", subscription()),
            Deed::Declare(&format!("{name}.zmq.outbound"), subscription()),
            Deed::DeclareExchange("something"),
            Deed::DeclareExchange("amq.gen-exchange"),
            Deed::DeleteExchange("volttron"),
            Deed::DeleteExchange("undeliverable"),
        ],
    )
    .await;
}

/// Neither another's address nor any of its queues.
async fn leaves_alone(attacker: &Member, victim: &Member) {
    let own = attacker.name.as_str();
    let deeper = format!("{}.#", victim.name);
    refused(
        attacker,
        &[
            Deed::Bind(own, &victim.name),
            Deed::Bind(own, &deeper),
            Deed::BindExchange(&victim.name, "volttron", own),
            Deed::DeclareExchange(&victim.name),
        ],
    )
    .await;
    for queue in [
        victim.name.clone(),
        format!("{}.pubsub.{UUID}", victim.name),
        format!("{}.pubsub.persistent.alarms", victim.name),
    ] {
        refused(
            attacker,
            &[
                Deed::Declare(&queue, persistent()),
                Deed::Bind(&queue, own),
                Deed::Consume(&queue),
                Deed::Get(&queue),
                Deed::Purge(&queue),
                Deed::Delete(&queue),
            ],
        )
        .await;
    }
}
