//! Cancelled messages that wait, after nodes were started again: they are noted in a stream, which whoever
//! subscribes to the channel reads before it consumes.
//!
//! Nobody takes anything out of a stream, so that all read all of it. Where it ends a reader knows by a record of its own.

use super::{Shared, connection::Session, names::Names, publisher::declare_once, topology};
use crate::error::{Error, Result};
use futures_util::StreamExt as _;
use lapin::{
    BasicProperties, Channel,
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Records that a reader is given unasked.
const PREFETCH: u16 = 1_000;

#[derive(Debug, Serialize, Deserialize)]
enum Record {
    /// Messages of that id that were published before `at`, in milliseconds since 1970, are not to run.
    Cancelled { id: String, at: f64 },
    /// All before it was there when that reader began.
    Read { by: String },
}

/// Notes that a message was cancelled.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn note(shared: &Shared, channel: &str, id: &str, at: f64) -> Result<()> {
    let session = shared.link.session()?;
    let Names { cancelled, .. } = shared.names(channel);
    declare_once(&shared.link, &session, &cancelled, topology::cancelled()).await?;
    let amqp = open(shared, &session).await?;
    store(shared, &amqp, &cancelled, &Record::Cancelled { id: id.to_owned(), at }).await?;
    shared.link.within(amqp.close(200, "done".into())).await
}

/// Reads what was noted, so that [`Shared::was_cancelled`] knows it.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn read(shared: &Shared, session: &Session, channel: &str) -> Result<()> {
    let link = &shared.link;
    let Names { cancelled, .. } = shared.names(channel);
    if shared.state_of(session, &cancelled).await?.is_none() {
        return Ok(());
    }
    let amqp = open(shared, session).await?;
    let by = shared.unique.next();
    store(shared, &amqp, &cancelled, &Record::Read { by: by.clone() }).await?;
    link.within(amqp.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
    let consume = amqp.basic_consume(
        cancelled.into(),
        "".into(),
        BasicConsumeOptions::default(),
        topology::from_the_first(),
    );
    let mut records = link.within(consume).await?;
    let channel: Arc<str> = channel.into();
    loop {
        let after = link.config().command_timeout;
        let Ok(Some(record)) = tokio::time::timeout(after, records.next()).await else {
            return Err(Error::CommandTimeout { server: link.config().shown.clone(), after });
        };
        let record = record.map_err(|error| link.error(&error))?;
        link.within(amqp.basic_ack(record.delivery_tag, BasicAckOptions::default())).await?;
        match serde_json::from_slice(&record.data) {
            Ok(Record::Cancelled { id, at }) => shared.remember_cancelled(&channel, id, at),
            Ok(Record::Read { by: reader }) if reader == by => break,
            // Another reader's, or of a version that is to come.
            _ => {}
        }
    }
    link.within(amqp.close(200, "done".into())).await
}

async fn open(shared: &Shared, session: &Session) -> Result<Channel> {
    let amqp = shared.link.within(session.channel()).await?;
    shared.link.within(amqp.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(amqp)
}

async fn store(shared: &Shared, amqp: &Channel, queue: &str, record: &Record) -> Result<()> {
    let text = serde_json::to_vec(record).unwrap_or_default();
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let publish = amqp.basic_publish("".into(), queue.into(), options, &text, properties);
    let confirm = shared.link.within(publish).await?;
    shared.link.within(confirm).await.map(drop)
}
