//! The queues of pauses after the broker was started again.
//!
//! A broker of one node lets a quorum queue sleep that it has recovered, and what is in it does not expire, until somebody asks
//! for it. So the pauses that have queues are noted in a queue of their own, and whoever
//! subscribes to a channel asks for all of them.

use super::{
    Shared,
    connection::{Link, Session},
    message::Envelope,
    names::Names,
    publisher::declare_once,
    topology,
};
use crate::error::Result;
use futures_util::StreamExt as _;
use lapin::{
    options::{
        BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
        ConfirmSelectOptions,
    },
    types::FieldTable,
};
use std::collections::HashSet;

/// Notes a pause whose queue was declared.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn note(link: &Link, session: &Session, names: &Names, milliseconds: u64) -> Result<()> {
    declare_once(link, session, &names.delays, topology::delays()).await?;
    let channel = link.within(session.channel()).await?;
    link.within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
    let (text, properties) = (milliseconds.to_string(), Envelope::default().to_properties());
    let (queue, options) = (names.delays.as_str().into(), BasicPublishOptions::default());
    let confirm = link
        .within(channel.basic_publish("".into(), queue, options, text.as_bytes(), properties))
        .await?;
    link.within(confirm).await?;
    link.within(channel.close(200, "done".into())).await
}

/// Asks for all queues of pauses that were noted. Those that nodes look at together each sees in part.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn wake(shared: &Shared, names: &Names) -> Result<()> {
    let session = shared.link.session()?;
    let link = &shared.link;
    let Some((count, _)) = shared.state_of(&session, &names.delays).await? else { return Ok(()) };
    let channel = link.within(session.channel()).await?;
    link.within(channel.basic_qos(u16::MAX, BasicQosOptions::default())).await?;
    let consume = channel.basic_consume(
        names.delays.as_str().into(),
        "".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let mut notes = link.within(consume).await?;
    let mut known = HashSet::new();
    for _ in 0..count {
        let Ok(Some(Ok(note))) =
            tokio::time::timeout(link.config().command_timeout, notes.next()).await
        else {
            break;
        };
        let milliseconds =
            std::str::from_utf8(&note.data).ok().and_then(|text| text.parse::<u64>().ok());
        let once = milliseconds.filter(|it| known.insert(*it));
        let there = match once {
            Some(milliseconds) => {
                shared.state_of(&session, &names.delay(milliseconds)).await?.is_some()
            }
            None => false,
        };
        if !there {
            link.within(channel.basic_ack(note.delivery_tag, BasicAckOptions::default())).await?;
        }
    }
    link.within(channel.close(200, "done".into())).await
}
