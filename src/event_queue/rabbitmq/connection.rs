//! The connection to the broker: made again at once when it is lost, and for ever, with growing pauses, where that fails;
//! what works on it waits for the next.

use super::{
    config::Config,
    pace::{self, Cut},
    tls::Tls,
};
use crate::{
    error::{Error, Result},
    event_queue::adapter::{Environment, Level},
};
use async_rs::Runtime;
use futures_util::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties, Event,
    tcp::AsyncTcpStream,
    uri::{AMQPAuthority, AMQPScheme, AMQPUri},
};
use parking_lot::Mutex;
use std::{
    collections::HashSet,
    future::Future,
    hash::{BuildHasher, RandomState},
    pin::pin,
    sync::{Arc, Once},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// The pause after the first failure; each is twice the one before.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// From the begin of a connection to that of the next, at least: there are brokers that let nobody stay.
const SPACING: Duration = Duration::from_millis(100);
/// How often a connection of which nothing was heard is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long closing may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How many AMQP channels the connection that asks for queues may have had before it is made anew. lapin gives a channel the
/// error of the one that had its number before when the broker has ended that, and begins with the numbers again after 2047.
const MOST_ASKED: u32 = 1000;

/// One connection, from its begin to its loss.
pub struct Session {
    /// Sessions are counted from 1.
    pub number: u64,
    wire: Wire,
    broker: AMQPUri,
    tls: Tls,
    asking: tokio::sync::Mutex<Asking>,
    /// Queues that were declared on it, for good.
    pub declared: tokio::sync::Mutex<HashSet<String>>,
    lost: Notify,
    reason: Mutex<Option<String>>,
}

/// A connection of lapin's, with what ends it.
struct Wire {
    connection: Connection,
    cut: Cut,
}

impl Wire {
    fn is_up(&self) -> bool {
        self.connection.status().connected()
    }

    /// Closes it, politely where the broker answers.
    async fn close(&self) {
        if self.is_up() {
            let closing = self.connection.close(200, "closed".into());
            _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
        }
        self.cut.cut();
    }
}

/// The connection on which is asked for queues that may not be there, made when somebody does: the broker ends the AMQP
/// channel for each that is not.
#[derive(Default)]
struct Asking {
    wire: Option<Wire>,
    channels: u32,
}

/// Whether the broker can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The first connection is being made.
    Connecting,
    /// There is one.
    Ready,
    /// There is none, for that reason; connecting goes on.
    Away(String),
}

/// The connection and all that comes after it.
pub struct Link {
    config: Config,
    environment: Arc<dyn Environment>,
    state: Mutex<(State, Instant)>,
    sessions: watch::Sender<Option<Arc<Session>>>,
}

impl Link {
    /// Not connected; see [`run`](Self::run).
    pub fn new(config: Config, environment: Arc<dyn Environment>) -> Self {
        let state = Mutex::new((State::Connecting, Instant::now()));
        Self { config, environment, state, sessions: watch::Sender::new(None) }
    }

    /// How it is configured.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How it is, and since when.
    pub fn state(&self) -> (State, Instant) {
        self.state.lock().clone()
    }

    /// The session, whenever there is another or none.
    pub fn sessions(&self) -> watch::Receiver<Option<Arc<Session>>> {
        self.sessions.subscribe()
    }

    /// The session that there is.
    ///
    /// # Errors
    /// [`Error::Unavailable`] without one.
    pub fn session(&self) -> Result<Arc<Session>> {
        self.sessions.borrow().clone().ok_or_else(|| self.away())
    }

    /// The error of what needs the broker while it is away.
    pub fn away(&self) -> Error {
        let reason = match self.state().0 {
            State::Away(reason) => reason,
            State::Connecting => "not connected yet".into(),
            State::Ready => "the connection was lost".into(),
        };
        Error::Unavailable { server: self.config.shown.clone(), reason }
    }

    /// What the broker replies, within the time that a command may take.
    ///
    /// # Errors
    /// [`Error::CommandTimeout`], [`Error::Unavailable`], and [`Error::RabbitMq`] with what the broker says.
    pub async fn within<T>(&self, reply: impl Future<Output = lapin::Result<T>>) -> Result<T> {
        let after = self.config.command_timeout;
        match tokio::time::timeout(after, reply).await {
            Err(_) => Err(Error::CommandTimeout { server: self.config.shown.clone(), after }),
            Ok(reply) => reply.map_err(|error| self.error(&error)),
        }
    }

    /// An error of AMQP, in this crate's terms.
    pub fn error(&self, error: &lapin::Error) -> Error {
        if error.is_amqp_soft_error() {
            return Error::RabbitMq(format!("{}: {}", self.config.shown, describe(error)));
        }
        Error::Unavailable { server: self.config.shown.clone(), reason: describe(error) }
    }

    /// Connects, and connects again, until the task is ended.
    pub async fn run(&self) {
        let mut pause = SHORTEST_PAUSE;
        let mut number = 0;
        loop {
            match self.connect().await {
                Ok((wire, broker)) => {
                    number += 1;
                    let begun = Instant::now();
                    let session =
                        Arc::new(Session::new(number, wire, broker, self.config.tls.clone()));
                    self.ready();
                    self.sessions.send_replace(Some(Arc::clone(&session)));
                    let reason = session.wait_for_end(&*self.environment, &self.config.shown).await;
                    self.set_away(reason);
                    self.sessions.send_replace(None);
                    // A broker that does not answer any more must not hold up the next connection.
                    tokio::spawn(async move { session.close().await });
                    pause = SHORTEST_PAUSE;
                    tokio::time::sleep(jittered(SPACING.saturating_sub(begun.elapsed()))).await;
                }
                Err(reason) => {
                    self.set_away(reason);
                    tokio::time::sleep(jittered(pause)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Ends the session; [`run`](Self::run) was ended before.
    pub async fn close(&self) {
        if let Some(session) = self.sessions.send_replace(None) {
            session.close().await;
        }
    }

    async fn connect(&self) -> Result<(Wire, AMQPUri), String> {
        let mut reason = String::new();
        for broker in &self.config.brokers {
            let host = format!("{}:{}", broker.authority.host, broker.authority.port);
            let connecting = open(broker.clone(), &self.config.tls);
            match tokio::time::timeout(self.config.connect_timeout, connecting).await {
                Ok(Ok(wire)) => return Ok((wire, broker.clone())),
                Ok(Err(error)) => reason = format!("{host}: {}", describe(&error)),
                Err(_) => {
                    reason = format!(
                        "{host} did not answer within {} ms",
                        self.config.connect_timeout.as_millis()
                    );
                }
            }
        }
        Err(reason)
    }

    fn ready(&self) {
        let before = std::mem::replace(&mut *self.state.lock(), (State::Ready, Instant::now())).0;
        if let State::Away(_) = before {
            self.environment
                .log(Level::Info, format!("event queue on {} is back", self.config.shown));
        }
    }

    fn set_away(&self, reason: String) {
        let mut state = self.state.lock();
        if let State::Away(known) = &mut state.0 {
            *known = reason;
            return;
        }
        *state = (State::Away(reason.clone()), Instant::now());
        drop(state);
        self.environment
            .log(Level::Warn, format!("event queue on {} is away: {reason}", self.config.shown));
    }
}

impl Session {
    fn new(number: u64, wire: Wire, broker: AMQPUri, tls: Tls) -> Self {
        Self {
            number,
            wire,
            broker,
            tls,
            asking: tokio::sync::Mutex::default(),
            declared: tokio::sync::Mutex::default(),
            lost: Notify::new(),
            reason: Mutex::default(),
        }
    }

    /// A new AMQP channel.
    ///
    /// # Errors
    /// As the broker has them.
    pub async fn channel(&self) -> lapin::Result<lapin::Channel> {
        self.wire.connection.create_channel().await
    }

    /// A new AMQP channel, to ask for a queue that may not be there.
    ///
    /// # Errors
    /// As the broker has them.
    pub async fn asking_channel(&self) -> lapin::Result<lapin::Channel> {
        let mut asking = self.asking.lock().await;
        let fit = asking.channels < MOST_ASKED;
        let present = asking.wire.take().filter(|it| fit && it.is_up());
        // One that is given up here ends when nobody has a channel of it any more.
        let wire = if let Some(wire) = present {
            wire
        } else {
            asking.channels = 0;
            open(self.broker.clone(), &self.tls).await?
        };
        asking.channels += 1;
        let channel = wire.connection.create_channel().await;
        // With an error, or when nobody waits any more, another is made next time.
        if channel.is_ok() {
            asking.wire = Some(wire);
        }
        channel
    }

    /// The connection that asks does not answer; another is made.
    pub async fn give_up_asking(&self) {
        if let Some(wire) = self.asking.lock().await.wire.take() {
            tokio::spawn(async move { wire.close().await });
        }
    }

    /// Whether the connection is there, as far as it is known.
    pub fn is_up(&self) -> bool {
        self.wire.is_up()
    }

    /// Whether the broker takes no messages now, for want of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.wire.connection.status().blocked()
    }

    /// The connection is dead, for that reason; another is made.
    pub fn give_up(&self, reason: String) {
        self.reason.lock().get_or_insert(reason);
        self.lost.notify_one();
    }

    /// Closes it, politely where the broker answers.
    pub async fn close(&self) {
        let asking = async {
            // It may be held by somebody whose broker does not answer.
            let asking = tokio::time::timeout(CLOSE_TIMEOUT, self.asking.lock()).await;
            if let Some(wire) = asking.ok().and_then(|mut it| it.wire.take()) {
                wire.close().await;
            }
        };
        tokio::join!(self.wire.close(), asking);
    }

    async fn wait_for_end(&self, environment: &dyn Environment, shown: &str) -> String {
        let mut events = pin!(self.wire.connection.events_listener());
        loop {
            tokio::select! {
                () = self.lost.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
                event = events.next() => match event {
                    // Errors of AMQP channels are among them.
                    Some(Event::Error(error)) if !self.is_up() => return describe(&error),
                    Some(Event::ConnectionBlocked(reason)) => {
                        environment.log(Level::Warn, format!("event queue on {shown}: the broker takes no messages: {reason}"));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        environment.log(Level::Info, format!("event queue on {shown}: the broker takes messages again"));
                    }
                    Some(_) => {}
                    None => return "the connection was closed".into(),
                }
            }
            if let Some(reason) = self.reason.lock().take() {
                return reason;
            }
            if !self.is_up() {
                return "the connection was lost".into();
            }
        }
    }
}

async fn open(broker: AMQPUri, tls: &Tls) -> lapin::Result<Wire> {
    use_crypto();
    let connector = match broker.scheme {
        AMQPScheme::AMQP => None,
        AMQPScheme::AMQPS => Some(tls.connector()?),
    };
    let connect = async move |broker: AMQPUri, runtime: Runtime<_>| {
        let AMQPUri { authority: AMQPAuthority { host, port, .. }, .. } = broker;
        let address = runtime.to_socket_addrs((host.clone(), port));
        let socket = AsyncTcpStream::connect(&runtime, address).await?;
        match &connector {
            None => Ok(socket),
            Some(connector) => Ok(socket.into_rustls(connector, &host).await?),
        }
    };
    let properties = ConnectionProperties::default().with_connection_name("mortise".into());
    let cut = Cut::default();
    let runtime = pace::runtime(cut.clone());
    let connection = Connection::connector(broker, runtime, connect, properties).await?;
    Ok(Wire { connection, cut })
}

/// rustls asks for one provider of cryptography a process.
pub fn use_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else's choice is as good.
        _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// What an error says, without the library's words around it.
pub fn describe(error: &lapin::Error) -> String {
    match error.kind() {
        lapin::ErrorKind::ProtocolError(error) => error.get_message().to_string(),
        lapin::ErrorKind::IOError(error) => error.to_string(),
        lapin::ErrorKind::MissingHeartbeatError => "no heartbeat came from the broker".into(),
        _ => error.to_string(),
    }
}

/// Half of it to the whole.
pub fn jittered(pause: Duration) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "32 bits fit")]
    let share = (RandomState::new().hash_one(0_u8) >> 32) as f64 / 4_294_967_296.0;
    pause.mul_f64(0.5 + share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Read as _, Write as _},
        net::{TcpListener, TcpStream},
        sync::mpsc,
        thread,
    };

    struct Nobody;
    impl Environment for Nobody {
        fn ask(&self) {}
        fn log(&self, _: Level, _: String) {}
    }

    /// A broker that opens connections, and says nothing on them afterwards; gives its port, and word of each that ends.
    fn silent_broker() -> (u16, mpsc::Receiver<io::Result<u64>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let (ends, ended) = mpsc::channel();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let ends = ends.clone();
                thread::spawn(move || ends.send(open_and_hear(socket)));
            }
        });
        (port, ended)
    }

    fn open_and_hear(mut socket: TcpStream) -> io::Result<u64> {
        socket.read_exact(&mut [0; "AMQP0091".len()])?;
        // Start: the version, no properties, mechanisms and locales.
        say(&mut socket, 10, b"\0\x09\0\0\0\0\0\0\0\x05PLAIN\0\0\0\x05en_US")?;
        hear(&mut socket)?;
        // Tune: any number of channels, frames of 128 kB, no heartbeat.
        say(&mut socket, 30, b"\0\0\0\x02\0\0\0\0")?;
        hear(&mut socket)?;
        hear(&mut socket)?;
        // Open-ok.
        say(&mut socket, 41, b"\0")?;
        io::copy(&mut socket, &mut io::sink())
    }

    /// A method of the class connection.
    fn say(socket: &mut TcpStream, method: u8, arguments: &[u8]) -> io::Result<()> {
        let size = u8::try_from(arguments.len() + 4).expect("it is short");
        let head = [1, 0, 0, 0, 0, 0, size, 0, 10, 0, method];
        socket.write_all(&[&head, arguments, &[0xCE]].concat())
    }

    /// Any frame.
    fn hear(socket: &mut TcpStream) -> io::Result<()> {
        let mut head = [0; 7];
        socket.read_exact(&mut head)?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        socket.read_exact(&mut vec![0; size as usize + 1])
    }

    /// Time stands still while a thread is waited for, so that closing cannot end for having taken too long.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_has_fallen_silent_does_not_hold_up_the_next_connection() {
        let (goes_on, stands) = mpsc::channel::<()>();
        let patience = Duration::from_secs(30);
        let mut still = tokio::task::spawn_blocking(move || stands.recv_timeout(patience));
        let (port, ended) = silent_broker();
        let url = format!("amqp://127.0.0.1:{port}");
        let link = Arc::new(Link::new(Config::from_url(&url).expect("a URL"), Arc::new(Nobody)));
        let mut sessions = link.sessions();
        let connects = tokio::spawn(async move { link.run().await });

        let first = sessions.wait_for(Option::is_some).await.expect("it runs").clone();
        let first = first.expect("a session");
        first.give_up("it has fallen silent".into());
        let old = Arc::downgrade(&first);
        drop(first);
        let is_next = |it: &Arc<Session>| it.number == 2;
        let is_over = |it: &Option<Arc<Session>>| it.as_ref().is_none_or(is_next);
        drop(sessions.wait_for(is_over).await.expect("it runs"));
        assert!(SPACING < CLOSE_TIMEOUT);
        tokio::time::advance(SPACING).await;
        tokio::select! {
            next = sessions.wait_for(|it| it.as_ref().is_some_and(is_next)) => drop(next.expect("it runs")),
            _ = &mut still => panic!("the next connection waits for the closing of the one before"),
        }
        assert!(old.upgrade().is_some(), "the one before is still being closed");

        drop(goes_on);
        tokio::time::sleep(2 * CLOSE_TIMEOUT).await;
        assert!(old.upgrade().is_none(), "and is given up then");
        let closed = tokio::task::spawn_blocking(move || ended.recv_timeout(patience));
        closed.await.expect("it is waited for").expect("its socket is closed").expect("in order");
        connects.abort();
    }
}
