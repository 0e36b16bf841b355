//! Whether the server can be reached, and why not.

use parking_lot::Mutex;
use std::time::Instant;
use tokio::sync::watch;

/// Whether commands can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The first connection is being made.
    Connecting,
    /// Commands are served.
    Ready,
    /// The server is away; connecting goes on.
    Away,
    /// Closed by its user.
    Closed,
}

/// The state of a connection, since when, and why.
#[derive(Debug, Clone)]
pub struct Health {
    /// The server, secrets masked.
    pub server: String,
    /// Whether commands can be served.
    pub state: State,
    /// Why the server is away.
    pub reason: Option<String>,
    /// Since when the state has lasted.
    pub since: Instant,
    /// The server's version, where it tells.
    pub version: String,
    /// 3 when the connection speaks RESP3, 2 when not, 0 before there was one.
    pub protocol: u8,
    /// The server's `maxmemory-policy`, where it tells.
    pub eviction: String,
}

impl State {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Away => "away",
            Self::Closed => "closed",
        }
    }
}

type Listener = Box<dyn Fn(&Health) + Send + Sync>;

/// A health that is watched.
pub struct Monitor {
    health: Mutex<Health>,
    listeners: Mutex<Vec<(u64, Listener)>>,
    states: watch::Sender<State>,
}

impl Monitor {
    /// Of a connection that is about to be made.
    pub fn new(server: String) -> Self {
        let health = Health {
            server,
            state: State::Connecting,
            reason: None,
            since: Instant::now(),
            version: String::new(),
            protocol: 0,
            eviction: String::new(),
        };
        let states = watch::Sender::new(health.state);
        Self { health: Mutex::new(health), listeners: Mutex::default(), states }
    }

    /// As it is now.
    pub fn health(&self) -> Health {
        self.health.lock().clone()
    }

    /// Whether commands can be served.
    pub fn state(&self) -> State {
        self.health.lock().state
    }

    /// Why they cannot.
    pub fn reason(&self) -> String {
        let health = self.health.lock();
        health.reason.clone().unwrap_or_else(|| match health.state {
            State::Connecting => "still connecting".into(),
            State::Closed => "closed".into(),
            State::Ready | State::Away => "the connection was lost".into(),
        })
    }

    /// The states from now on, for a task that waits for one.
    pub fn states(&self) -> watch::Receiver<State> {
        self.states.subscribe()
    }

    /// Calls `listener` on each change of state, from any thread, and once at once; not on a new reason.
    pub fn listen(&self, id: u64, listener: impl Fn(&Health) + Send + Sync + 'static) {
        listener(&self.health());
        self.listeners.lock().push((id, Box::new(listener)));
    }

    /// Ends a listener.
    pub fn unlisten(&self, id: u64) {
        self.listeners.lock().retain(|(other, _)| *other != id);
    }

    /// Commands are served from now on.
    pub fn ready(&self, version: String, protocol: u8, eviction: String) {
        self.change(State::Ready, None, |health| {
            health.version = version;
            health.protocol = protocol;
            health.eviction = eviction;
        });
    }

    /// The server is away, for that reason.
    pub fn away(&self, reason: String) {
        self.change(State::Away, Some(reason), |_| {});
    }

    /// The user has closed it.
    pub fn closed(&self) {
        self.change(State::Closed, None, |_| {});
    }

    fn change(&self, state: State, reason: Option<String>, more: impl FnOnce(&mut Health)) {
        let told = {
            let mut health = self.health.lock();
            if health.state == State::Closed {
                return;
            }
            health.reason = reason;
            more(&mut health);
            if health.state == state {
                return;
            }
            health.state = state;
            health.since = Instant::now();
            health.clone()
        };
        self.states.send_replace(state);
        for (_, listener) in self.listeners.lock().iter() {
            listener(&told);
        }
    }
}
