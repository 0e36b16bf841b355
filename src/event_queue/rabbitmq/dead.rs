//! Dead letters: a queue of their own, looked through on an AMQP channel that is closed afterwards, so that what was not
//! taken out goes back in its order.

use super::{Shared, message::Envelope, names::Names, publisher::Target};
use crate::{error::Result, event_queue::adapter::DeadLetter};
use futures_util::StreamExt as _;
use lapin::{
    Channel,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use std::{sync::Arc, time::Duration};

/// How long it may take until letters are in their queue again, which the broker does after it has closed a channel.
const PUT_BACK_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(2);

/// A dead letter on the channel that looks through them.
struct Letter {
    tag: u64,
    envelope: Envelope,
    text: Vec<u8>,
}

/// All of them, the oldest first.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn list(shared: &Shared, channel: &str) -> Result<Vec<DeadLetter>> {
    let Some((amqp, letters)) = open(shared, channel).await? else { return Ok(Vec::new()) };
    put_back(shared, channel, amqp, letters.len()).await;
    let letter = |letter: Letter| DeadLetter {
        id: letter.envelope.id,
        text: letter.text,
        error: letter.envelope.error.unwrap_or_default(),
    };
    Ok(letters.into_iter().map(letter).collect())
}

/// Publishes one or all again. Says how many.
///
/// # Errors
/// As the broker and the connection have them; those that were published before are out.
pub async fn replay(shared: &Shared, channel: &str, id: Option<&str>) -> Result<u64> {
    take(shared, channel, id, true).await
}

/// Forgets one or all. Says how many.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn forget(shared: &Shared, channel: &str, id: Option<&str>) -> Result<u64> {
    take(shared, channel, id, false).await
}

async fn take(shared: &Shared, channel: &str, id: Option<&str>, again: bool) -> Result<u64> {
    let Some((amqp, letters)) = open(shared, channel).await? else { return Ok(0) };
    let total = letters.len();
    let name: Arc<str> = channel.into();
    let mut count = 0_usize;
    let mut outcome = Ok(());
    for letter in letters.into_iter().filter(|letter| id.is_none_or(|id| letter.envelope.id == id))
    {
        let envelope = Envelope {
            id: letter.envelope.id,
            nonce: Some(shared.unique.next()),
            retried: Some(0),
            ..Envelope::default()
        };
        outcome = async {
            if again {
                shared
                    .publisher
                    .send(Arc::clone(&name), Target::Main, envelope, letter.text)
                    .await?;
            }
            shared.link.within(amqp.basic_ack(letter.tag, BasicAckOptions::default())).await
        }
        .await;
        if outcome.is_err() {
            break;
        }
        count += 1;
    }
    put_back(shared, channel, amqp, total - count).await;
    outcome.map(|()| count as u64)
}

/// All dead letters, and the channel to which they go back when it is closed; nothing when there is no queue of them.
async fn open(shared: &Shared, channel: &str) -> Result<Option<(Channel, Vec<Letter>)>> {
    let session = shared.link.session()?;
    let Names { dead, .. } = shared.names(channel);
    let Some((count, _)) = shared.state_of(&session, &dead).await? else { return Ok(None) };
    let amqp = shared.link.within(session.channel()).await?;
    let mut letters = Vec::new();
    if count > 0 {
        shared.link.within(amqp.basic_qos(u16::MAX, BasicQosOptions::default())).await?;
        let consume = amqp.basic_consume(
            dead.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut stream = shared.link.within(consume).await?;
        // Somebody else may look through them, too, and have some.
        while letters.len() < count as usize {
            let Ok(Some(delivery)) =
                tokio::time::timeout(shared.link.config().command_timeout, stream.next()).await
            else {
                break;
            };
            let delivery = delivery.map_err(|error| shared.link.error(&error))?;
            let (envelope, _) = Envelope::of(&delivery.properties);
            letters.push(Letter { tag: delivery.delivery_tag, envelope, text: delivery.data });
        }
    }
    Ok(Some((amqp, letters)))
}

/// Closes the channel, and waits until the letters that were on it, `count`, are in the queue again.
async fn put_back(shared: &Shared, channel: &str, amqp: Channel, count: usize) {
    _ = shared.link.within(amqp.close(200, "done".into())).await;
    let Names { dead, .. } = shared.names(channel);
    let there = async {
        while let Ok(session) = shared.link.session() {
            match shared.state_of(&session, &dead).await {
                Ok(Some((ready, _))) if (ready as usize) < count => tokio::time::sleep(LOOK).await,
                _ => break,
            }
        }
    };
    // Somebody else may have taken some.
    _ = tokio::time::timeout(PUT_BACK_TIMEOUT, there).await;
}
