//! What a connection can try on the bus, one thing after the other.

use lapin::options::{
    BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ExchangeKind};

/// Something done on a channel of its own, since a refusal closes it.
#[derive(Clone, Debug)]
pub enum Deed<'a> {
    Declare(&'a str, QueueDeclareOptions),
    DeclareDeadLettering(&'a str, &'a str),
    Bind(&'a str, &'a str),
    BindTo(&'a str, &'a str, &'a str),
    Unbind(&'a str, &'a str),
    Publish(&'a str),
    PublishTo(&'a str, &'a str),
    Consume(&'a str),
    Get(&'a str),
    Purge(&'a str),
    Delete(&'a str),
    DeclareExchange(&'a str),
    DeleteExchange(&'a str),
    /// Destination, source, key.
    BindExchange(&'a str, &'a str, &'a str),
}

pub struct Member {
    pub name: String,
    pub connection: Connection,
}

pub async fn allowed(member: &Member, deeds: &[Deed<'_>]) {
    for deed in deeds {
        if let Err(error) = attempt(member, deed).await {
            panic!("{}: {deed:?} was refused: {error}", member.name);
        }
    }
}

pub async fn refused(member: &Member, deeds: &[Deed<'_>]) {
    for deed in deeds {
        match attempt(member, deed).await {
            Ok(()) => panic!("{}: {deed:?} was allowed", member.name),
            Err(error) => assert!(
                error.contains("ACCESS_REFUSED"),
                "{}: {deed:?} failed, and was not refused: {error}",
                member.name
            ),
        }
    }
}

async fn attempt(member: &Member, deed: &Deed<'_>) -> Result<(), String> {
    let channel = member.connection.create_channel().await.unwrap();
    let result = act(&channel, deed).await;
    result.map_err(|error| error.to_string())
}

async fn act(channel: &Channel, deed: &Deed<'_>) -> lapin::Result<()> {
    let none = FieldTable::default;
    match *deed {
        Deed::Declare(queue, options) => {
            let declared = channel.queue_declare(queue.into(), options, none());
            declared.await.map(drop)
        }
        Deed::DeclareDeadLettering(queue, exchange) => {
            let mut arguments = none();
            arguments.insert(
                "x-dead-letter-exchange".into(),
                AMQPValue::LongString(exchange.into()),
            );
            let declared = channel.queue_declare(queue.into(), subscription(), arguments);
            declared.await.map(drop)
        }
        Deed::Bind(queue, key) => bind(channel, queue, "volttron", key).await,
        Deed::BindTo(queue, exchange, key) => bind(channel, queue, exchange, key).await,
        Deed::Unbind(queue, key) => {
            channel
                .queue_unbind(queue.into(), "volttron".into(), key.into(), none())
                .await
        }
        Deed::Publish(key) => publish(channel, "volttron", key).await,
        Deed::PublishTo(exchange, key) => publish(channel, exchange, key).await,
        Deed::Consume(queue) => {
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(queue.into(), "".into(), options, none());
            let consumer = consumer.await?;
            // The queue goes with its last consumer; another has to stay.
            std::mem::forget(consumer);
            Ok(())
        }
        Deed::Get(queue) => {
            let options = BasicGetOptions { no_ack: true };
            channel.basic_get(queue.into(), options).await.map(drop)
        }
        Deed::Purge(queue) => {
            let options = QueuePurgeOptions::default();
            channel.queue_purge(queue.into(), options).await.map(drop)
        }
        Deed::Delete(queue) => {
            let options = QueueDeleteOptions::default();
            channel.queue_delete(queue.into(), options).await.map(drop)
        }
        Deed::DeclareExchange(name) => {
            let options = ExchangeDeclareOptions::default();
            channel
                .exchange_declare(name.into(), ExchangeKind::Topic, options, none())
                .await
        }
        Deed::DeleteExchange(name) => {
            let options = ExchangeDeleteOptions::default();
            channel.exchange_delete(name.into(), options).await
        }
        Deed::BindExchange(destination, source, key) => {
            let options = ExchangeBindOptions::default();
            channel
                .exchange_bind(
                    destination.into(),
                    source.into(),
                    key.into(),
                    options,
                    none(),
                )
                .await
        }
    }
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
    let options = QueueBindOptions::default();
    let arguments = FieldTable::default();
    channel
        .queue_bind(
            queue.into(),
            exchange.into(),
            key.into(),
            options,
            arguments,
        )
        .await
}

/// Returns when the broker has taken the message, or refused it.
async fn publish(channel: &Channel, exchange: &str, key: &str) -> lapin::Result<()> {
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    let confirm = channel.basic_publish(exchange.into(), key.into(), options, b"[]", properties);
    confirm.await?.await.map(drop)
}

/// The queue of an agent's address.
pub fn address() -> QueueDeclareOptions {
    QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    }
}

/// The queue of a subscription.
pub fn subscription() -> QueueDeclareOptions {
    QueueDeclareOptions {
        auto_delete: true,
        ..QueueDeclareOptions::default()
    }
}

/// The queue of a subscription that outlives its agent.
pub fn persistent() -> QueueDeclareOptions {
    QueueDeclareOptions {
        durable: true,
        ..QueueDeclareOptions::default()
    }
}
