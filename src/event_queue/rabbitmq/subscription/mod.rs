//! One channel's consumer: fetches as it is allowed to, keeps account of what runs, and tells the broker what became of it.
//!
//! Each subscription has an AMQP channel of its own and is a task of its own. A message that is
//! tried again, dies or goes back after it was back before is published anew and then acknowledged, so that it is
//! there once or twice, but never not at all.

mod fetching;
mod runs;
mod settling;
mod wire;

use super::{Shared, bounded::Bounded, connection::Session, message::Envelope, names::Names};
use crate::event_queue::{
    adapter::{Consumer, Finished, Level, Outcome},
    running::Due,
};
use fetching::{FIRST_WINDOW, LARGEST_WINDOW, SATURATED, WINDOW};
pub use runs::Runs;
use settling::{Known, Past};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use wire::{Opening, Place, Wire};

/// How long closing waits for what is being handed back.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Messages that are remembered after the broker has them back, or was told of their end.
const REMEMBERED: usize = 10_000;
/// Commands that are taken at once.
const TURN: usize = 64;

/// What a subscription is told.
pub enum Command {
    /// See [`EventQueueAdapter::turn`](crate::event_queue::adapter::EventQueueAdapter::turn).
    Turn(Vec<Finished>, bool),
    /// Fetch no more; end when nothing runs.
    End,
    /// Fetch no more.
    Stop,
    /// Hand back what runs, and end.
    Close(oneshot::Sender<()>),
    /// Abort the message if it runs here, or forget it if it is held. Says whether it was there.
    Cancel(String, oneshot::Sender<bool>),
    /// The channel is paused, or is not.
    Pause(bool),
    /// How many run, and how many are held that have not begun.
    Count(oneshot::Sender<(u64, u64)>),
    /// The environment stands still, or goes on.
    Stall(bool),
    /// Another node has put these messages back.
    PutBack(Vec<String>),
    /// What is to take the place of a delivery is stored, or will not be; what is known of the delivery if it is.
    Moved(Place, Past, bool),
}

/// A message that is here and was not settled.
struct Held {
    place: Option<Place>,
    envelope: Envelope,
    /// How often the queue has had it back.
    returns: u32,
    text: Vec<u8>,
    cancelled: bool,
    /// Of a suspect: as long as it is here, no other is.
    alone: Option<OwnedSemaphorePermit>,
}

/// The task.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a thing of its own that may be so at any time"
)]
pub struct Subscription {
    shared: Arc<Shared>,
    channel: Arc<str>,
    names: Names,
    consumer: Arc<dyn Consumer>,
    limit: usize,
    window: usize,
    commands: mpsc::UnboundedReceiver<Command>,
    own: mpsc::WeakUnboundedSender<Command>,
    sessions: watch::Receiver<Option<Arc<Session>>>,
    start: Instant,
    wire: Option<Wire>,
    /// The number of the wire that there is; 0 without one.
    current: Arc<AtomicU64>,
    wires: u64,
    failures: u32,
    /// An AMQP channel was lost for itself: maybe since the queue is gone.
    doubted: bool,
    running: Runs,
    /// Here, and not begun.
    held: VecDeque<Held>,
    /// Attempts whose deliveries were lost while they ran, and their runs.
    orphans: HashMap<String, u64>,
    /// How often this node has put a message back, or lost it with its connection.
    put_back: Bounded<String, u32>,
    /// The attempts that have come last. What the broker was told of them it may not have heard.
    attempts: Bounded<Arc<str>, Known>,
    /// The keys of messages that were published anew, as copies.
    moved: Bounded<Arc<str>, ()>,
    /// Ways on that are not stored yet.
    moving: usize,
    paused: bool,
    stalled: bool,
    /// Nothing is fetched any more.
    stopped: bool,
    ended: bool,
    closing: Option<(oneshot::Sender<()>, Instant)>,
    /// The last turn allowed to fetch.
    willing: bool,
    /// What is here may begin until then.
    permit: Option<Instant>,
    /// The consumer was asked whether it is ready.
    asked: bool,
    /// The consumer is owed a word of what came of its permission.
    owed: bool,
    rests_at: Option<Instant>,
}

impl Subscription {
    /// One, whose commands come from `own`.
    pub fn new(
        shared: Arc<Shared>,
        channel: Arc<str>,
        concurrency: u32,
        consumer: Arc<dyn Consumer>,
        (own, commands): (&mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
    ) -> Self {
        let limit = usize::try_from(concurrency).unwrap_or(LARGEST_WINDOW).clamp(1, LARGEST_WINDOW);
        let running = Runs::new(shared.settings.max_run);
        let (names, sessions) = (shared.names(&channel), shared.link.sessions());
        Self {
            shared,
            channel,
            names,
            consumer,
            limit,
            window: FIRST_WINDOW,
            commands,
            own: own.downgrade(),
            sessions,
            start: Instant::now(),
            wire: None,
            current: Arc::default(),
            wires: 0,
            failures: 0,
            doubted: false,
            running,
            held: VecDeque::new(),
            orphans: HashMap::new(),
            put_back: Bounded::new(REMEMBERED),
            attempts: Bounded::new(REMEMBERED),
            moved: Bounded::new(REMEMBERED),
            moving: 0,
            paused: false,
            stalled: false,
            stopped: false,
            ended: false,
            closing: None,
            willing: false,
            permit: None,
            asked: false,
            owed: false,
            rests_at: None,
        }
    }

    /// Its runs.
    pub fn runs(&self) -> Runs {
        self.running.clone()
    }

    /// Works until it has ended.
    pub async fn run(mut self) {
        let mut opening: Option<Opening> = None;
        while !self.is_over() {
            if self.wire.is_none() && !self.stalled && self.closing.is_none() {
                opening.get_or_insert_with(|| self.open());
            } else {
                opening = None;
            }
            let due = self.next_due();
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey_all(command),
                    None => return,
                },
                Some(opened) = wire::maybe(&mut opening) => {
                    opening = None;
                    self.opened(opened);
                }
                delivery = fetching::next(&mut self.wire) => self.arrived(delivery),
                Ok(()) = self.sessions.changed() => {
                    // What was under way on another is begun anew, and at once.
                    opening = None;
                    self.session_changed();
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => self.ring(),
            }
            self.advance();
        }
        self.finish().await;
    }

    fn is_over(&self) -> bool {
        if let Some((_, until)) = &self.closing {
            return self.moving == 0 || *until <= Instant::now();
        }
        self.ended && self.running.lock().is_empty() && self.held.is_empty() && self.moving == 0
    }

    async fn finish(mut self) {
        self.acknowledge();
        if let Some(wire) = self.wire.take() {
            // The broker answers when it has done all that was sent before.
            _ = self.shared.link.within(wire.channel.close(200, "closed".into())).await;
        }
        if self.owed {
            self.consumer.rests();
        }
        if self.ended {
            self.consumer.over();
        }
        if let Some((told, _)) = self.closing {
            _ = told.send(());
        }
    }

    fn obey_all(&mut self, command: Command) {
        self.obey(command);
        for _ in 1..TURN {
            match self.commands.try_recv() {
                Ok(command) => self.obey(command),
                Err(_) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Turn(finished, fetch) => self.turn(finished, fetch),
            Command::End => {
                (self.ended, self.stopped) = (true, true);
            }
            Command::Stop => self.stopped = true,
            Command::Close(told) => {
                self.stopped = true;
                self.closing = Some((told, Instant::now() + CLOSE_TIMEOUT));
                self.hand_back_all();
            }
            Command::Cancel(id, told) => _ = told.send(self.cancel(&id)),
            Command::Pause(paused) => {
                if self.paused && !paused {
                    self.ask();
                }
                self.paused = paused;
            }
            Command::Count(told) => {
                _ = told.send((self.running.lock().len() as u64, self.held.len() as u64));
            }
            Command::Stall(stalled) => {
                if stalled && !self.stalled && self.wire.is_some() {
                    self.lose(None);
                }
                self.stalled = stalled;
            }
            Command::PutBack(keys) => {
                for key in keys {
                    *self.put_back.entry(key, 0) += 1;
                }
            }
            Command::Moved(place, past, stored) => {
                self.moving -= 1;
                if stored {
                    self.remember(past);
                    self.done(place);
                }
            }
        }
    }

    fn turn(&mut self, finished: Vec<Finished>, fetch: bool) {
        self.asked = false;
        self.willing = fetch;
        // Before the acknowledgements, which would let the broker send more.
        if !self.may_fetch() {
            self.stop_consuming();
        }
        for Finished { ticket, outcome } in finished {
            let run = self.running.lock().end(ticket);
            if let Some(run) = run {
                self.shared.ended();
                self.ended(run, outcome);
            }
        }
        if fetch {
            let until = Instant::now() + WINDOW;
            self.permit = Some(until);
            self.owed = true;
            // Without a consumer there is nothing to be known yet.
            self.rests_at = self.is_consuming().then_some(until);
        }
    }

    /// Does what follows from what has happened.
    fn advance(&mut self) {
        if !self.may_fetch() {
            self.stop_consuming();
            self.hand_back_held();
            self.rest();
        } else if self.held.is_empty() {
            self.consume();
        } else if self.running.lock().len() < self.limit {
            if self.permit.is_some_and(|until| Instant::now() <= until) {
                self.begin();
            } else {
                self.ask();
            }
        }
        self.acknowledge();
        self.renew();
        if self.owed && self.sessions.borrow().is_none() {
            self.rest();
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn next_due(&self) -> Option<Instant> {
        let due = self
            .running
            .lock()
            .next_due()
            .and_then(|due| self.start.checked_add(Duration::from_millis(due)));
        let rest = self.rests_at.filter(|_| self.owed);
        let close = self.closing.as_ref().map(|(_, until)| *until);
        let saturated =
            self.wire.as_ref().and_then(|wire| wire.saturated).map(|since| since + SATURATED);
        due.into_iter().chain(rest).chain(close).chain(self.next_look()).chain(saturated).min()
    }

    fn ring(&mut self) {
        if self.owed && self.rests_at.is_some_and(|at| at <= Instant::now()) {
            self.rest();
        }
        let now = self.now();
        let due = self.running.lock().ring(now);
        for due in due {
            match due {
                Due::TimedOut { ticket, .. } => self.consumer.timed_out(ticket),
                Due::Overrun { ticket, run } => {
                    self.consumer.given_up(ticket);
                    self.shared.ended();
                    let most = self.shared.settings.max_run;
                    let id = &run.inner.envelope.id;
                    self.log(Level::Error, &format!("message {id} has run for {most} ms (maxRun), which counts as a failure; what its handler still says is ignored"));
                    let error = format!("it has run for {most} ms (maxRun)");
                    self.ended(run, Outcome::Failed(error));
                }
            }
        }
        self.look();
    }

    fn log(&self, level: Level, what: &str) {
        self.consumer.log(level, format!("event queue channel {}: {what}", self.channel));
    }
}
