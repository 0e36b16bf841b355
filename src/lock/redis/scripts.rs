//! The scripts, and how their commands and answers look. Each is one round trip; the layout of the keys
//! is in `lua/common.lua` and `docs/redis.md`.

use crate::{
    error::{Error, Result},
    redis::{Command, Script},
};
use redis::Value;
use std::sync::{Arc, LazyLock};

/// A script whose line `--{common}` stands for `lua/common.lua`.
macro_rules! script {
    ($name:literal) => {
        LazyLock::new(|| {
            let text = include_str!(concat!("lua/", $name, ".lua"));
            Script::new(text.replace("--{common}", include_str!("lua/common.lua")))
        })
    };
}

static ACQUIRE: LazyLock<Script> = script!("acquire");
static RELEASE: LazyLock<Script> = script!("release");
static RENEW: LazyLock<Script> = script!("renew");
static LOOK: LazyLock<Script> = script!("look");
static ABANDON: LazyLock<Script> = script!("abandon");
static ATTACH: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("lua/attach.lua").to_owned()));

/// The commands that make all scripts known.
pub fn load() -> impl Iterator<Item = Command> {
    [&ACQUIRE, &RELEASE, &RENEW, &LOOK, &ABANDON].into_iter().map(|script| script.load())
}

/// The names of an app's keys and channels.
pub struct Names {
    /// The counter of fencing tokens.
    pub counter: String,
    grace: String,
    run: String,
    /// What the holders' keys begin with.
    pub held: String,
    line: String,
}

impl Names {
    /// Those of an app; all share a slot.
    pub fn of(app: &str) -> Self {
        let name = |last: &str| format!("mortise:{{{app}}}:lock:{last}");
        Self {
            counter: name("counter"),
            grace: name("grace"),
            run: name("run"),
            held: name("held:"),
            line: name("line:"),
        }
    }

    /// Where a node is told of its grants.
    pub fn channel(&self, node: &str) -> String {
        format!("{}:{node}", self.counter)
    }

    /// Where all nodes are told that the server has lost what it had granted.
    pub fn reclaim_channel(&self) -> String {
        format!("{}!", self.counter)
    }

    /// The lock's key, of the name that its holder has.
    pub fn key_of<'a>(&self, holder: &'a str) -> Option<&'a str> {
        holder.strip_prefix(self.held.as_str())
    }

    /// The key of a line.
    pub fn line_of(&self, key: &str) -> String {
        format!("{}{key}", self.line)
    }

    /// The command by which a node begins.
    pub fn attach(&self, app: &str, grace: u64) -> Command {
        let keys = [self.counter.as_bytes(), self.grace.as_bytes(), self.run.as_bytes()];
        ATTACH.command(true, &keys, &[app.as_bytes(), grace.to_string().as_bytes()])
    }
}

/// What is the same for all commands of a node.
pub struct Node {
    pub names: Names,
    pub name: Arc<str>,
    /// The length of the grace period, in milliseconds.
    pub grace: u64,
}

/// Something asked of the server. Times are milliseconds.
pub struct Op {
    /// The number of the lease or of the place in the line.
    pub number: u64,
    /// The lock's key.
    pub key: Arc<str>,
    pub what: What,
    /// Whether the server is to be told the script's text: it did not know its hash.
    pub in_full: bool,
}

pub enum What {
    Acquire {
        lease: u64,
        hears: bool,
        wait: bool,
        since: u64,
    },
    /// `trusted`: until when the lease counts as held; `until`: when trying again makes no sense any more.
    Release {
        since: u64,
        trusted: u64,
        until: u64,
        done: Done,
    },
    Renew {
        left: u64,
        token: u64,
        lease: u64,
        since: u64,
        /// How often the lease has been given another length.
        turn: u32,
        done: Done,
    },
    Look {
        lease: u64,
        hears: bool,
        since: u64,
        /// Which place in the line is looked for, of those that were asked for one after the other.
        place: u32,
    },
    Abandon {
        lease: u64,
        hears: bool,
        since: u64,
        until: u64,
    },
}

/// Who waits for an outcome: whether there was a lease. Told at most once.
#[derive(Default)]
pub struct Done(parking_lot::Mutex<Option<Told>>);

type Told = Box<dyn FnOnce(Result<bool>) + Send>;

impl Done {
    pub fn new(told: impl FnOnce(Result<bool>) + Send + 'static) -> Self {
        Self(parking_lot::Mutex::new(Some(Box::new(told))))
    }

    pub fn tell(&self, result: Result<bool>) {
        let told = self.0.lock().take();
        if let Some(told) = told {
            told(result);
        }
    }
}

impl Op {
    /// Something asked of the server.
    pub fn new(number: u64, key: Arc<str>, what: What) -> Self {
        Self { number, key, what, in_full: false }
    }

    /// The same, for a second try; nobody waits for its outcome.
    pub fn again(&self) -> Self {
        let mut again = self.with(|_| Done::default());
        if let What::Release { trusted, .. } = &mut again.what {
            *trusted = 0;
        }
        again
    }

    /// The same, with the script's text, and with who waits for its outcome.
    pub fn in_full(&self) -> Self {
        Self {
            in_full: true,
            ..self.with(|done| Done(parking_lot::Mutex::new(done.0.lock().take())))
        }
    }

    /// Nobody is there any more who could use the outcome.
    pub fn forget(&self) {
        if let What::Release { done, .. } | What::Renew { done, .. } = &self.what {
            done.tell(Err(Error::Closed("the lock adapter")));
        }
    }

    fn with(&self, who: impl Fn(&Done) -> Done) -> Self {
        let what = match &self.what {
            What::Release { since, trusted, until, done } => {
                What::Release { since: *since, trusted: *trusted, until: *until, done: who(done) }
            }
            What::Renew { left, token, lease, since, turn, done } => What::Renew {
                left: *left,
                token: *token,
                lease: *lease,
                since: *since,
                turn: *turn,
                done: who(done),
            },
            &What::Acquire { lease, hears, wait, since } => {
                What::Acquire { lease, hears, wait, since }
            }
            &What::Look { lease, hears, since, place } => What::Look { lease, hears, since, place },
            &What::Abandon { lease, hears, since, until } => {
                What::Abandon { lease, hears, since, until }
            }
        };
        Self::new(self.number, Arc::clone(&self.key), what)
    }

    /// When trying again makes no sense any more.
    pub fn until(&self) -> u64 {
        match self.what {
            What::Release { until, .. } | What::Abandon { until, .. } => until,
            _ => u64::MAX,
        }
    }

    /// The command for it, made when it is sent, at `now`.
    pub fn command(&self, node: &Node, now: u64) -> Command {
        let script: &Script = match &self.what {
            What::Acquire { .. } => &ACQUIRE,
            What::Release { .. } => &RELEASE,
            What::Renew { .. } => &RENEW,
            What::Look { .. } => &LOOK,
            What::Abandon { .. } => &ABANDON,
        };
        let Node { names, name, grace } = node;
        let mut words = Words::new(script, self.in_full, &self.key);
        words.text(&names.counter);
        words.text(&names.grace);
        words.joined(&names.held, &self.key);
        words.joined(&names.line, &self.key);
        words.owner(name, self.number);
        match &self.what {
            &What::Acquire { lease, hears, wait, since } => {
                words.numbers([lease, since]);
                words.text(match (hears, wait) {
                    (false, false) => "00",
                    (false, true) => "01",
                    (true, false) => "10",
                    (true, true) => "11",
                });
                words.number(*grace);
            }
            What::Release { since, trusted, .. } => {
                words.numbers([*since, u64::from(now < *trusted)]);
            }
            &What::Renew { left, token, lease, since, .. } => {
                words.numbers([left, token, lease, since, *grace]);
            }
            &What::Look { lease, hears, since, .. }
            | &What::Abandon { lease, hears, since, .. } => {
                words.numbers([lease, u64::from(hears), since]);
            }
        }
        words.command
    }
}

/// A command in the making, without an allocation a word: a command each microsecond, and more, is made so.
struct Words {
    command: Command,
    joined: String,
    digits: itoa::Buffer,
}

impl Words {
    fn new(script: &Script, in_full: bool, key: &str) -> Self {
        let command = script.begin(in_full, 4, 320 + 2 * key.len());
        Self { command, joined: String::new(), digits: itoa::Buffer::new() }
    }

    fn text(&mut self, text: &str) {
        self.command.push(text.as_bytes());
    }

    fn joined(&mut self, first: &str, second: &str) {
        self.joined.clear();
        self.joined.extend([first, second]);
        self.command.push(self.joined.as_bytes());
    }

    fn owner(&mut self, node: &str, number: u64) {
        self.joined.clear();
        self.joined.extend([node, "|", self.digits.format(number)]);
        self.command.push(self.joined.as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.command.push(self.digits.format(number).as_bytes());
    }

    fn numbers(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.number(number);
        }
    }
}

/// What a script answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 0 or 1 of `release`, `renew` and `abandon`; 0 of `acquire`: refused, of `look`: nowhere.
    Flag(bool),
    /// The key is held, with that token; for so many milliseconds where the script tells.
    Held { token: u64, left: Option<u64> },
    /// In the line; the lease before it has so many milliseconds left.
    Waiting { left: u64 },
}

impl Answer {
    /// Reads the reply to the command of `op`.
    pub fn read(op: &Op, reply: &Value) -> Result<Self> {
        let numbers: Option<Vec<i64>> = match reply {
            Value::Int(number) => return Ok(Self::Flag(*number == 1)),
            Value::Array(items) => items
                .iter()
                .map(|item| if let Value::Int(number) = item { Some(*number) } else { None })
                .collect(),
            _ => None,
        };
        let asks = matches!(op.what, What::Acquire { .. });
        match numbers.unwrap_or_default().as_slice() {
            [0] => Ok(Self::Flag(false)),
            [1, token] if asks => Ok(Self::Held { token: unsigned(*token), left: None }),
            [1, left, token] => {
                Ok(Self::Held { token: unsigned(*token), left: Some(unsigned(*left)) })
            }
            [2, left] => Ok(Self::Waiting { left: unsigned(*left) }),
            _ => Err(Error::Redis(format!("a lock's script answered {reply:?}"))),
        }
    }
}

/// Negative times left are over.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
