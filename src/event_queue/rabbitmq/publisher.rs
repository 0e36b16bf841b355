//! Publishes on one AMQP channel: what comes is sent at once, and answered when the broker has confirmed it.

use super::{
    connection::{Link, Session, State, describe},
    delays,
    message::Envelope,
    names::{Names, rounded},
    topology,
};
use crate::error::{Error, Result};
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation,
    options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions},
    types::FieldTable,
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

/// How long after the broker was lost messages wait for it, before they fail at once.
const GRACE: Duration = Duration::from_secs(1);
/// Commands that are taken at once.
const TURN: usize = 64;
/// After how long a message that the broker has refused is sent again: a queue that was declared just now may not
/// have its leader yet.
const AGAIN: Duration = Duration::from_millis(50);
/// After a channel that could not be made.
const PAUSE: Duration = Duration::from_millis(200);

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To the end of its channel.
    Main,
    /// There after so many milliseconds, or more where the pause is rounded up.
    Delay(u64),
    /// To the dead letters.
    Dead,
}

/// A message on its way to the broker.
pub struct Outgoing {
    /// The channel that it belongs to.
    pub channel: Arc<str>,
    /// Where it goes.
    pub target: Target,
    /// What is known of it.
    pub envelope: Envelope,
    /// As [`Message::text`](crate::event_queue::adapter::Message::text).
    pub text: Vec<u8>,
    /// Called in any case.
    pub done: Done,
}

/// Told the message's id, or why it may not have been stored.
pub type Done = Box<dyn FnOnce(Result<String>) + Send>;

enum Command {
    Publish(Vec<Outgoing>),
    Flush(oneshot::Sender<()>),
}

/// Hands messages to the task that publishes.
#[derive(Clone)]
pub struct Publisher {
    commands: mpsc::UnboundedSender<Command>,
}

impl Publisher {
    /// One, and the task to be run for it.
    pub fn new(link: Arc<Link>) -> (Self, impl Future<Output = ()> + Send) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let task = Task { link, commands: receiver, waiting: VecDeque::new(), flushes: Vec::new() };
        (Self { commands }, task.run())
    }

    /// Publishes messages, in their order.
    pub fn publish(&self, messages: Vec<Outgoing>) {
        if let Err(mpsc::error::SendError(Command::Publish(messages))) =
            self.commands.send(Command::Publish(messages))
        {
            for message in messages {
                (message.done)(Err(Error::Closed("event queue")));
            }
        }
    }

    /// Publishes one message, and waits until it is stored.
    ///
    /// # Errors
    /// As the broker and the connection have them.
    pub async fn send(
        &self,
        channel: Arc<str>,
        target: Target,
        envelope: Envelope,
        text: Vec<u8>,
    ) -> Result<()> {
        let (told, result) = oneshot::channel();
        let done = Box::new(move |stored: Result<String>| _ = told.send(stored.map(drop)));
        self.publish(vec![Outgoing { channel, target, envelope, text, done }]);
        result.await.unwrap_or(Err(Error::Closed("event queue")))
    }

    /// Waits until all that was published before has its answer.
    pub async fn flush(&self) {
        let (told, done) = oneshot::channel();
        if self.commands.send(Command::Flush(told)).is_ok() {
            _ = done.await;
        }
    }
}

struct Task {
    link: Arc<Link>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Not sent.
    waiting: VecDeque<Outgoing>,
    flushes: Vec<oneshot::Sender<()>>,
}

/// Sent, and not confirmed.
struct Pending {
    channel: Arc<str>,
    target: Target,
    envelope: Envelope,
    done: Done,
    deadline: Instant,
}

/// What becomes of the message of that number, and its text.
type Sent = BoxFuture<'static, (u64, lapin::Result<Confirmation>, Vec<u8>)>;

/// The AMQP channel of a session, with what is under way on it.
struct Wire {
    session: Arc<Session>,
    channel: Channel,
    places: HashMap<Arc<str>, Place>,
    sent: FuturesUnordered<Sent>,
    /// In the order in which they were sent, the first with the number `first`.
    pending: VecDeque<Option<Pending>>,
    first: u64,
    /// Refused, and when they are to be sent again.
    again: VecDeque<(Instant, Outgoing, Instant)>,
}

/// A channel's queues, as far as they were declared in this session.
struct Place {
    names: Names,
    main: bool,
    dead: bool,
    /// The queues of pauses, and when each is to be declared again.
    delays: HashMap<u64, Instant>,
}

impl Task {
    async fn run(mut self) {
        let mut sessions = self.link.sessions();
        loop {
            let session = sessions.borrow_and_update().clone();
            let Some(session) = session else {
                self.wait(&mut sessions).await;
                continue;
            };
            match Wire::open(&self.link, Arc::clone(&session)).await {
                Ok(wire) => self.serve(wire, &mut sessions).await,
                // What waits goes with the next connection.
                Err(_) if !session.is_up() => _ = sessions.changed().await,
                Err(error) => {
                    self.refuse(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// Until there is a session. What comes waits for a while after the broker was lost, and is refused then.
    async fn wait(&mut self, sessions: &mut watch::Receiver<Option<Arc<Session>>>) {
        while sessions.borrow_and_update().is_none() {
            let (state, since) = self.link.state();
            let ends = since + GRACE;
            if state != State::Connecting && ends <= Instant::now() {
                self.refuse(&self.link.away());
            }
            if self.waiting.is_empty() {
                self.flushes.drain(..).for_each(|told| _ = told.send(()));
            }
            tokio::select! {
                _ = sessions.changed() => {}
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => std::future::pending().await,
                },
                () = tokio::time::sleep_until(ends.into()), if !self.waiting.is_empty() => {}
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Publish(messages) => self.waiting.extend(messages),
            Command::Flush(told) => self.flushes.push(told),
        }
    }

    fn refuse(&mut self, error: &Error) {
        self.waiting.drain(..).for_each(|message| (message.done)(Err(error.clone())));
        self.flushes.drain(..).for_each(|told| _ = told.send(()));
    }

    /// Publishes on the channel until it is lost.
    async fn serve(
        &mut self,
        mut wire: Wire,
        sessions: &mut watch::Receiver<Option<Arc<Session>>>,
    ) {
        let mut commands = Vec::with_capacity(TURN);
        loop {
            while wire.again.front().is_some_and(|(at, ..)| *at <= Instant::now()) {
                let Some((_, message, deadline)) = wire.again.pop_front() else { break };
                self.waiting.extend(wire.send(&self.link, message, deadline).await);
            }
            while let Some(message) = self.waiting.pop_front() {
                let deadline = Instant::now() + self.link.config().command_timeout;
                if let Some(unsent) = wire.send(&self.link, message, deadline).await {
                    self.waiting.push_front(unsent);
                    break;
                }
            }
            if wire.pending.is_empty() && wire.again.is_empty() {
                self.flushes.drain(..).for_each(|told| _ = told.send(()));
            }
            if !wire.channel.status().connected() {
                break;
            }
            let deadline = wire.pending.front().and_then(|it| it.as_ref().map(|it| it.deadline));
            let again = wire.again.front().map(|(at, ..)| *at);
            tokio::select! {
                biased;
                _ = sessions.changed() => break,
                count = self.commands.recv_many(&mut commands, TURN) => {
                    if count == 0 {
                        std::future::pending::<()>().await;
                    }
                    commands.drain(..).for_each(|command| self.take(command));
                }
                Some(sent) = wire.sent.next() => {
                    wire.confirmed(&self.link, sent);
                    while let Some(Some(sent)) = wire.sent.next().now_or_never() {
                        wire.confirmed(&self.link, sent);
                    }
                }
                () = tokio::time::sleep_until(again.unwrap_or_else(Instant::now).into()), if again.is_some() => {}
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now).into()), if deadline.is_some() => {
                    wire.overdue(&self.link);
                }
            }
        }
        let error = self.link.away();
        let again = wire.again.into_iter().map(|(_, message, _)| message.done);
        wire.pending
            .into_iter()
            .flatten()
            .map(|it| it.done)
            .chain(again)
            .for_each(|done| done(Err(error.clone())));
    }
}

impl Wire {
    async fn open(link: &Link, session: Arc<Session>) -> Result<Wire> {
        let channel = link.within(session.channel()).await?;
        link.within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self {
            session,
            channel,
            places: HashMap::new(),
            sent: FuturesUnordered::new(),
            pending: VecDeque::new(),
            first: 0,
            again: VecDeque::new(),
        })
    }

    /// Sends a message. It comes back when the connection was lost while its queue was declared: a broker ends the connection of
    /// one of two that declare the same queue at the same time (`INTERNAL_ERROR`), and nothing was sent yet.
    async fn send(
        &mut self,
        link: &Link,
        message: Outgoing,
        deadline: Instant,
    ) -> Option<Outgoing> {
        let Outgoing { channel, target, mut envelope, text, done } = message;
        let queue = match self.place(link, &channel, target, &mut envelope).await {
            Ok(queue) => queue,
            Err(Error::Unavailable { .. }) if !self.session.is_up() => {
                return Some(Outgoing { channel, target, envelope, text, done });
            }
            Err(error) => {
                done(Err(error));
                return None;
            }
        };
        let properties = envelope.to_properties();
        let number = self.first + self.pending.len() as u64;
        self.pending.push_back(Some(Pending { channel, target, envelope, done, deadline }));
        let amqp = self.channel.clone();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let mut sent: Sent = Box::pin(async move {
            let confirm =
                amqp.basic_publish("".into(), queue.into(), options, &text, properties).await;
            let confirmation = match confirm {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            (number, confirmation, text)
        });
        // It goes out when it is asked for the first time: here, so that the order is kept.
        match (&mut sent).now_or_never() {
            Some(sent) => self.confirmed(link, sent),
            None => self.sent.push(sent),
        }
        None
    }

    /// The queue for that target, declared where that is needed.
    async fn place(
        &mut self,
        link: &Link,
        channel: &Arc<str>,
        target: Target,
        envelope: &mut Envelope,
    ) -> Result<String> {
        let Self { session, places, .. } = self;
        let place = match places.get_mut(channel) {
            Some(place) => place,
            None => places.entry(Arc::clone(channel)).or_insert_with(|| Place {
                names: Names::of(&link.config().name_prefix, channel),
                main: false,
                dead: false,
                delays: HashMap::new(),
            }),
        };
        if !place.main {
            declare_once(link, session, &place.names.main, topology::main()).await?;
            place.main = true;
        }
        match target {
            Target::Main | Target::Delay(0) => Ok(place.names.main.clone()),
            Target::Dead => {
                if !place.dead {
                    declare_once(link, session, &place.names.dead, topology::dead()).await?;
                    place.dead = true;
                }
                Ok(place.names.dead.clone())
            }
            Target::Delay(milliseconds) => {
                let hop = rounded(milliseconds).min(topology::LONGEST_DELAY);
                envelope.left = milliseconds.saturating_sub(hop);
                let queue = place.names.delay(hop);
                let now = Instant::now();
                let renewal = place.delays.get(&hop);
                if renewal.is_none_or(|renewal| *renewal <= now) {
                    declare(link, session, &queue, topology::delay(hop, &place.names.main)).await?;
                    delays::note(link, session, &place.names, hop).await?;
                    place.delays.insert(hop, now + Duration::from_millis(topology::renewal(hop)));
                }
                Ok(queue)
            }
        }
    }

    fn confirmed(
        &mut self,
        link: &Link,
        (number, confirmation, text): (u64, lapin::Result<Confirmation>, Vec<u8>),
    ) {
        // One whose time had passed is nobody's.
        let at = number.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        let pending = at.and_then(|at| self.pending.get_mut(at)?.take());
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.first += 1;
        }
        let Some(Pending { channel, target, envelope, done, deadline }) = pending else { return };
        let at = Instant::now() + AGAIN;
        if matches!(confirmation, Ok(Confirmation::Nack(None))) && at < deadline {
            let message = Outgoing { channel, target, envelope, text, done };
            return self.again.push_back((at, message, deadline));
        }
        let (shown, id) = (&link.config().shown, envelope.id);
        done(match confirmation {
            Ok(Confirmation::Ack(None) | Confirmation::NotRequested) => Ok(id),
            Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                // Somebody has deleted the queue; the next one declares it.
                self.places.clear();
                if let Ok(mut declared) = self.session.declared.try_lock() {
                    declared.clear();
                }
                let queue = &returned.delivery.routing_key;
                Err(Error::RabbitMq(format!(
                    "{shown}: message {id} could not be routed, the queue {queue} is gone"
                )))
            }
            Ok(Confirmation::Nack(None)) => {
                Err(Error::RabbitMq(format!("{shown} refused message {id}")))
            }
            Err(error) => {
                Err(Error::Unavailable { server: shown.clone(), reason: describe(&error) })
            }
        });
    }

    /// Confirmations are missing: unless the broker says that it takes no messages, the connection counts as dead.
    fn overdue(&mut self, link: &Link) {
        let after = link.config().command_timeout;
        let now = Instant::now();
        for pending in &mut self.pending {
            if pending.as_ref().is_some_and(|it| it.deadline > now) {
                break;
            }
            if let Some(Pending { done, .. }) = pending.take() {
                done(Err(Error::CommandTimeout { server: link.config().shown.clone(), after }));
            }
        }
        // What is left of them is nobody's.
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.first += 1;
        }
        if !self.session.is_blocked() {
            self.session.give_up(format!("no confirmation came within {} ms", after.as_millis()));
        }
    }
}

/// Declares a durable queue, on an AMQP channel of its own: one that is refused costs the channel.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn declare(
    link: &Link,
    session: &Session,
    queue: &str,
    arguments: FieldTable,
) -> Result<()> {
    let channel = link.within(session.channel()).await?;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    link.within(channel.queue_declare(queue.into(), options, arguments)).await?;
    link.within(channel.close(200, "done".into())).await
}

/// Declares a queue that stays, unless that was done in this session.
///
/// # Errors
/// As the broker and the connection have them.
pub async fn declare_once(
    link: &Link,
    session: &Session,
    queue: &str,
    arguments: FieldTable,
) -> Result<()> {
    // Held meanwhile, so that nobody publishes to a queue that is being made.
    let mut declared = session.declared.lock().await;
    if !declared.contains(queue) {
        declare(link, session, queue, arguments).await?;
        declared.insert(queue.to_owned());
    }
    Ok(())
}
