//! The loop of a [`Reader`](super::reader::Reader): it looks at the logs, reads them, and delivers.

use super::{
    entry::{self, Arrived},
    keys::Keys,
    member::Member,
    reader::Inner,
    resume::Answer,
};
use crate::{
    pub_sub::adapter::Gap,
    redis::{Command, Config, Redis, State, is_unknown},
};
use redis::Value;
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

/// Entries that are read at a time, of each log.
const COUNT: &str = "256";
/// The longest time that a read waits for entries. The heartbeat waits behind it.
const LONGEST_BLOCK: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the logs are looked at while they are read all the time.
const LOOK: Duration = Duration::from_millis(500);
/// They are looked at in any case when the last read was sent so long ago: its reply may be as old. In
/// less hardly any log moves on by its whole length; if one did, its server's count tells afterwards.
const STALE: Duration = Duration::from_millis(50);

/// Tells members of a gap.
fn tell_all(members: &[Arc<Member>], gap: Gap) {
    for member in members {
        member.tell(gap);
    }
}

/// The task behind a reader.
pub struct Loop {
    redis: Arc<Redis>,
    inner: Arc<Inner>,
    block: Duration,
    in_full: bool,
    /// The last trouble that was told in the log.
    trouble: Option<String>,
    pause: Duration,
    /// When the logs were looked at, and when the last commands were sent.
    looked: Option<Instant>,
    sent: Instant,
}

/// What one turn of the loop sends.
struct Commands {
    logs: Vec<Keys>,
    /// Whether it begins with a question for each of the logs.
    looks: bool,
    /// Whether it ends with a read.
    reads: bool,
    all: Vec<Command>,
}

/// What one turn of the loop found.
enum Turn {
    /// All went well, or the connection is a new one: go on at once.
    Read,
    /// Nobody hears of anything.
    Idle,
    /// The server is away, or refuses.
    Trouble(String),
}

impl Loop {
    pub fn new(redis: Arc<Redis>, inner: Arc<Inner>) -> Self {
        let Config { command_timeout, heartbeat_timeout, .. } = *redis.config();
        let block = LONGEST_BLOCK.min(command_timeout / 2).min(heartbeat_timeout / 2);
        // 0 would be for ever.
        let block = block.max(Duration::from_millis(1));
        Self {
            redis,
            inner,
            block,
            in_full: false,
            trouble: None,
            pause: FIRST_PAUSE,
            looked: None,
            sent: Instant::now(),
        }
    }

    /// Reads until the reader is dropped.
    pub async fn run(mut self, mut ended: watch::Receiver<()>) {
        loop {
            tokio::select! {
                _ = ended.changed() => return,
                () = self.turn() => {}
            }
        }
    }

    async fn turn(&mut self) {
        let inner = Arc::clone(&self.inner);
        match self.read().await {
            Turn::Read => {
                self.pause = FIRST_PAUSE;
                self.trouble = None;
            }
            Turn::Idle => inner.changed.notified().await,
            Turn::Trouble(reason) => {
                // While the server is away its own line says so, once.
                if self.redis.monitor().state() == State::Ready
                    && self.trouble.as_ref() != Some(&reason)
                {
                    tracing::warn!(server = %self.redis.config().shown(), reason, "reading pub/sub");
                    self.trouble = Some(reason);
                }
                sleep(self.pause).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                let mut states = self.redis.monitor().states();
                let back = states.wait_for(|state| *state == State::Ready);
                _ = timeout(LONGEST_PAUSE, back).await;
            }
        }
    }

    /// Looks at all logs when it is time to, reads what is new in them, and delivers it.
    async fn read(&mut self) -> Turn {
        let connection = self.inner.connection.count.load(Ordering::Acquire);
        let Commands { logs: keys, looks, reads, all } = self.commands(connection);
        if keys.is_empty() {
            return Turn::Idle;
        }
        let mut replies = match self.redis.batch(all).await {
            Ok(replies) => replies.into_iter(),
            Err(error) => return Turn::Trouble(error.to_string()),
        };
        if self.inner.connection.count.load(Ordering::Acquire) != connection {
            // Asked of one server, read from another perhaps.
            self.looked = None;
            return Turn::Read;
        }
        let mut moved = Vec::new();
        if looks {
            let mut answers = Vec::with_capacity(keys.len());
            for reply in replies.by_ref().take(keys.len()) {
                if matches!(&reply, Ok(reply) if is_unknown(reply)) {
                    self.in_full = true;
                    return Turn::Read;
                }
                let reply = reply.and_then(|reply| self.redis.check(reply));
                match reply.map(|reply| Answer::parse(&reply)) {
                    Ok(Some(answer)) => answers.push(answer),
                    Ok(None) => return Turn::Trouble("the log's state cannot be read".into()),
                    Err(error) => return Turn::Trouble(error.to_string()),
                }
            }
            self.in_full = false;
            self.looked = Some(Instant::now());
            moved = self.judge(&keys, &answers, connection);
        }
        if !reads {
            return Turn::Read;
        }
        match replies.next().map(|reply| reply.and_then(|reply| self.redis.check(reply))) {
            Some(Ok(reply)) => {
                self.deliver(reply, &moved);
                Turn::Read
            }
            Some(Err(error)) => Turn::Trouble(error.to_string()),
            None => Turn::Trouble("a batch has no reply".into()),
        }
    }

    /// The questions, one for each log, and the read; without the read when a log is to be looked at
    /// thoroughly first.
    fn commands(&mut self, connection: u64) -> Commands {
        let now = Instant::now();
        let mut logs = self.inner.logs.lock();
        let reads = logs.iter().all(|log| log.is_checked_on(connection));
        let is_late = self.looked.is_none_or(|looked| now - looked >= LOOK);
        let looks = !reads || is_late || now - self.sent >= STALE;
        self.sent = now;
        let keys: Vec<Keys> = logs.iter().map(|log| log.keys.clone()).collect();
        let mut commands = Vec::with_capacity(logs.len() + 1);
        for log in logs.iter_mut() {
            log.taken_up = true;
            if looks {
                commands.push(log.question(connection).command(&log.keys, self.in_full));
            }
        }
        if reads {
            let block = self.block.as_millis().to_string();
            let mut read = Command::with_capacity(6 + 2 * logs.len(), 128);
            for word in ["XREAD", "COUNT", COUNT, "BLOCK", &block, "STREAMS"] {
                read.push(word.as_bytes());
            }
            for log in logs.iter() {
                read.push(log.keys.log.as_bytes());
            }
            for log in logs.iter() {
                read.push(log.position().to_string().as_bytes());
            }
            commands.push(read);
        }
        Commands { logs: keys, looks, reads, all: commands }
    }

    /// Takes the answers, and tells of gaps. Gives the logs whose position is another now.
    fn judge(&self, keys: &[Keys], answers: &[Answer], connection: u64) -> Vec<String> {
        let (mut moved, mut gaps) = (Vec::new(), Vec::new());
        {
            let mut logs = self.inner.logs.lock();
            for (keys, answer) in keys.iter().zip(answers) {
                let Some(log) = logs.iter_mut().find(|log| log.keys == *keys) else { continue };
                let before = log.position();
                let Some(gap) = log.judge(answer, connection) else { continue };
                gaps.push((gap, log.members.clone()));
                if gap == Gap::Replaced && log.position() != before {
                    moved.push(keys.log.clone());
                }
            }
        }
        for (gap, members) in gaps {
            tell_all(&members, gap);
        }
        moved
    }

    /// Delivers what was read, but of the logs whose position has changed: they are read again.
    fn deliver(&self, reply: Value, moved: &[String]) {
        for (key, arrived) in entry::streams(reply) {
            let mut logs = self.inner.logs.lock();
            let found = logs.iter_mut().find(|log| log.keys.log.as_bytes() == key);
            let Some(log) = found.filter(|log| !moved.contains(&log.keys.log)) else { continue };
            let (entries, members) = (log.take(arrived), log.members.clone());
            drop(logs);
            for (channel, text) in entries.iter().flat_map(Arrived::texts) {
                for member in &members {
                    member.deliver(channel, text);
                }
            }
        }
    }
}
