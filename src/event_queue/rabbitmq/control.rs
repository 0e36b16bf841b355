//! How nodes talk to each other: questions and notes go to all by a fanout exchange, answers come back to the
//! queue of the one that asked.
//!
//! Every node consumes one more queue, which holds nothing: the number of its consumers is the number of nodes, so
//! that whoever asks knows when all have answered.

use super::{Shared, connection::Session, names, publisher::declare, topology};
use crate::error::Result;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
        QueueDeclareOptions,
    },
    types::FieldTable,
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// How long nodes may take to answer; one that does not is gone, or stands still.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// After an AMQP channel that could not be made, or was lost for itself.
const PAUSE: Duration = Duration::from_millis(500);

/// What goes over the exchange.
#[derive(Debug, Serialize, Deserialize)]
enum Note {
    Question {
        question: Question,
        channel: String,
        to: String,
        number: u64,
    },
    Answer {
        answer: Answer,
        number: u64,
    },
    /// These messages of a channel were put back by the node with that queue.
    PutBack {
        channel: String,
        keys: Vec<String>,
        by: String,
    },
}

/// What a node asks all others, and itself, of a channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Question {
    /// Aborts or drops a message that was published before `at`, in milliseconds since 1970.
    Cancel {
        /// Its id.
        id: String,
        /// When that was asked for.
        at: f64,
    },
    /// Looks whether the channel is paused.
    Pause,
    /// Counts what runs.
    Count,
}

/// What a node answers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it had the message.
    pub found: bool,
    /// How many messages run.
    pub running: u64,
    /// How many are there that have not begun.
    pub held: u64,
}

/// This node's part.
#[derive(Default)]
pub struct Control {
    wire: Mutex<Option<Wire>>,
    waiting: Mutex<HashMap<u64, mpsc::UnboundedSender<Answer>>>,
    count: AtomicU64,
    ready: watch::Sender<bool>,
}

#[derive(Clone)]
struct Wire {
    channel: Channel,
    exchange: String,
    /// Ours, to which answers go.
    queue: String,
}

impl Control {
    /// What all nodes answer; those that do not in time are left out.
    ///
    /// # Errors
    /// As the broker and the connection have them.
    pub async fn ask(
        &self,
        shared: &Shared,
        channel: &str,
        question: Question,
    ) -> Result<Vec<Answer>> {
        let session = shared.link.session()?;
        let mut ready = self.ready.subscribe();
        _ = tokio::time::timeout(
            shared.link.config().command_timeout,
            ready.wait_for(|ready| *ready),
        )
        .await;
        let Some(wire) = self.wire.lock().clone() else { return Err(shared.link.away()) };
        let nodes = names::nodes(&shared.link.config().name_prefix);
        let expected =
            shared.state_of(&session, &nodes).await?.map_or(1, |(_, consumers)| consumers.max(1));
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let (told, mut answers) = mpsc::unbounded_channel();
        self.waiting.lock().insert(number, told);
        let note = Note::Question {
            question,
            channel: channel.to_owned(),
            to: wire.queue.clone(),
            number,
        };
        wire.send(&wire.exchange, "", &note);
        let mut all = Vec::new();
        let collect = async {
            while all.len() < expected as usize {
                let Some(answer) = answers.recv().await else { break };
                all.push(answer);
            }
        };
        _ = tokio::time::timeout(ANSWER_TIMEOUT, collect).await;
        self.waiting.lock().remove(&number);
        Ok(all)
    }

    /// Tells all nodes of messages that were put back, which are not to count as having ended theirs.
    pub fn tell_put_back(&self, channel: &str, keys: Vec<String>) {
        let Some(wire) = self.wire.lock().clone() else { return };
        wire.send(
            &wire.exchange,
            "",
            &Note::PutBack { channel: channel.to_owned(), keys, by: wire.queue.clone() },
        );
    }

    fn answered(&self, number: u64, answer: Answer) {
        if let Some(told) = self.waiting.lock().get(&number) {
            _ = told.send(answer);
        }
    }
}

impl Wire {
    /// Nobody waits for what becomes of it: whoever asks waits for the answers.
    fn send(&self, exchange: &str, queue: &str, note: &Note) {
        let Ok(text) = serde_json::to_vec(note) else { return };
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        _ = self
            .channel
            .basic_publish(exchange.into(), queue.into(), options, &text, properties)
            .now_or_never();
    }
}

/// Answers, in each session, until the task is ended.
pub async fn run(shared: Arc<Shared>) {
    let mut sessions = shared.link.sessions();
    let mut failed = false;
    loop {
        let Ok(present) = sessions.wait_for(Option::is_some).await.map(|session| session.clone())
        else {
            return;
        };
        let Some(session) = present else { continue };
        match open(&shared, &session).await {
            Ok((wire, consumers)) => {
                failed = false;
                *shared.control.wire.lock() = Some(wire.clone());
                shared.control.ready.send_replace(true);
                // What was said meanwhile was not heard.
                shared.look_for_pauses(None).await;
                serve(&shared, &wire, consumers).await;
                shared.control.ready.send_replace(false);
                *shared.control.wire.lock() = None;
            }
            Err(error) if !failed && session.is_up() => {
                failed = true;
                shared.warn(format!("the nodes of the event queue cannot talk to each other, which is tried again: {error}"));
            }
            Err(_) => {}
        }
        if session.is_up() {
            tokio::time::sleep(PAUSE).await;
        } else {
            // The one that is lost is still there until whoever looks after it has noticed.
            _ = sessions
                .wait_for(|it| it.as_ref().is_none_or(|it| it.number != session.number))
                .await;
        }
    }
}

async fn open(shared: &Shared, session: &Session) -> Result<(Wire, [lapin::Consumer; 2])> {
    let link = &shared.link;
    let prefix = &link.config().name_prefix;
    let (exchange, nodes) = (names::control(prefix), names::nodes(prefix));
    declare(link, session, &nodes, topology::quorum()).await?;
    let channel = link.within(session.channel()).await?;
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    link.within(channel.exchange_declare(
        exchange.as_str().into(),
        ExchangeKind::Fanout,
        durable,
        FieldTable::default(),
    ))
    .await?;
    let own = QueueDeclareOptions {
        exclusive: true,
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let queue = link
        .within(channel.queue_declare("".into(), own, FieldTable::default()))
        .await?
        .name()
        .to_string();
    let bind = channel.queue_bind(
        queue.as_str().into(),
        exchange.as_str().into(),
        "".into(),
        QueueBindOptions::default(),
        FieldTable::default(),
    );
    link.within(bind).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let heard = link
        .within(channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            options,
            FieldTable::default(),
        ))
        .await?;
    // Counted only when it hears what is said.
    let presence = link
        .within(channel.basic_consume(nodes.into(), "".into(), options, FieldTable::default()))
        .await?;
    Ok((Wire { channel, exchange, queue }, [heard, presence]))
}

async fn serve(shared: &Arc<Shared>, wire: &Wire, [mut notes, presence]: [lapin::Consumer; 2]) {
    while let Some(Ok(delivery)) = notes.next().await {
        // What nobody understands is of a version that is to come.
        match serde_json::from_slice(&delivery.data) {
            Ok(Note::Question { question, channel, to, number }) => {
                let (wire, asked) = (wire.clone(), Arc::clone(shared));
                shared.spawn(async move {
                    let answer = asked.answer(&channel, question).await;
                    wire.send("", &to, &Note::Answer { answer, number });
                });
            }
            Ok(Note::Answer { answer, number }) => shared.control.answered(number, answer),
            Ok(Note::PutBack { channel, keys, by }) if by != wire.queue => {
                shared.put_back(&channel, &keys);
            }
            _ => {}
        }
    }
    drop(presence);
}
