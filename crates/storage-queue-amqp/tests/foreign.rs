//! Queues and messages of other AMQP programs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use storage_core::message::dead;
use storage_core::{MessageUpdate, NewMessage, QueueName, Receive};

async fn channel(address: &str) -> (Connection, Channel) {
    let connection = Connection::connect(&format!("{address}%2f"), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    (connection, channel)
}

/// A classic queue that another program made works: messages without our headers, counted deliveries, dead letters that make their queue.
#[tokio::test]
async fn queues_of_other_programs_can_be_used() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let (_connection, channel) = channel(&address).await;
    let name = format!("{prefix}theirs");
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), durable, FieldTable::default()).await.unwrap();
    let mut headers = FieldTable::default();
    headers.insert("tenant".into(), AMQPValue::LongString("acme".into()));
    headers.insert("size".into(), AMQPValue::LongInt(7));
    headers.insert("nested".into(), AMQPValue::FieldTable(FieldTable::default()));
    let properties = BasicProperties::default().with_headers(headers).with_content_type("text/plain".into());
    channel
        .basic_publish("".into(), name.as_str().into(), BasicPublishOptions::default(), b"hi", properties)
        .await
        .unwrap()
        .await
        .unwrap();

    let store = common::open(&format!("{address}?prefix={prefix}")).await;
    let queue: QueueName = "theirs".parse().unwrap();
    assert_eq!(store.queue_spec(&queue).await.unwrap().max_deliveries, None);
    assert!(store.queues().await.unwrap().is_empty(), "it is not listed");
    for delivery in 1..=3 {
        let request = Receive::default().wait(Duration::from_secs(10));
        let taken = store.receive(&queue, &request).await.unwrap().remove(0);
        assert_eq!((&taken.message.body[..], taken.message.deliveries), (&b"hi"[..], delivery));
        assert_eq!(taken.message.content_type.as_deref(), Some("text/plain"));
        let attributes = [("tenant".to_owned(), "acme".to_owned()), ("size".to_owned(), "7".to_owned())];
        assert_eq!(taken.message.attributes, attributes.into());
        if delivery < 3 {
            store.update(&queue, &taken.receipt, &MessageUpdate::visibility(Duration::ZERO)).await.unwrap();
        } else {
            store.dead_letter(&queue, &taken.receipt, "no").await.unwrap();
        }
    }
    let letters = store.receive(&queue.dead_letter().unwrap(), &Receive::default()).await.unwrap();
    assert_eq!(letters[0].message.attributes[dead::DELIVERIES], "3");
}

/// What we send is an ordinary persistent message to others.
#[tokio::test]
async fn other_programs_read_what_we_send() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let store = common::open(&format!("{address}?prefix={prefix}")).await;
    let queue: QueueName = "ours".parse().unwrap();
    store.create_queue(&queue, &store.default_spec()).await.unwrap();
    let message = NewMessage::new("hi").attribute("tenant", "acme").attribute("CC", "x").content_type("text/plain");
    let sent = store.send(&queue, message).await.unwrap();
    let (_connection, channel) = channel(&address).await;
    let got = channel.basic_get(format!("{prefix}ours").into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    let properties = &got.delivery.properties;
    assert_eq!(got.delivery.data, b"hi");
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), sent.id.0);
    assert_eq!(*properties.delivery_mode(), Some(2));
    let tenant = properties.headers().as_ref().unwrap().inner().get("tenant");
    assert_eq!(tenant, Some(&AMQPValue::LongString("acme".into())));
}
