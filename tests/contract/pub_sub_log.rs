//! The rules of the log on Redis: what is kept over lost connections and servers, and what is told when
//! something could not be.

use crate::server::RedisServer;
use mortise::{
    pub_sub::{
        adapter::{Incoming, PubSubAdapter, Receiver},
        redis::{Delivery, MAX_AGE, MAX_LENGTH, RedisPubSub},
    },
    redis::{Command, Config, Redis, Unwatched},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{sleep, timeout},
};

const DEADLINE: Duration = Duration::from_secs(20);
const LOG: Delivery = Delivery::Log { max_length: MAX_LENGTH, max_age: MAX_AGE };
const ON_DISK: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
const STREAM: &str = "mortise:{app}:bus";

/// Keeps what it hears on one channel: texts, and gaps by their names.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl Ear {
    fn receiver(&self) -> Receiver {
        let ear = self.clone();
        Arc::new(move |_, incoming| {
            ear.heard().push(match incoming {
                Incoming::Text(text) => text.to_owned(),
                Incoming::Gap(gap) => format!("{gap:?}"),
            });
        })
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("not poisoned")
    }

    /// Waits for a text, or for a gap's name.
    async fn until(&self, text: &str) {
        let arrived = async {
            while !self.heard().iter().any(|heard| heard == text) {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let result = timeout(DEADLINE, arrived).await;
        assert!(result.is_ok(), "{text} does not come: {:?}", self.heard());
    }
}

async fn adapter(config: Config, delivery: Delivery) -> RedisPubSub {
    let adapter = RedisPubSub::new(config, "app", delivery, |_| {}, &Handle::current());
    adapter.connect().await.expect("connected");
    adapter
}

/// An adapter that hears `c`, on a server.
async fn listening(config: Config) -> (RedisPubSub, Ear) {
    let (adapter, ear) = (adapter(config, LOG).await, Ear::default());
    adapter.subscribe("c", ear.receiver()).await.expect("subscribed");
    (adapter, ear)
}

/// As another process would have it: nothing of it is shared.
fn elsewhere(server: &RedisServer) -> Config {
    Config { grace: Duration::from_millis(999), ..server.config() }
}

/// A command by a connection that is none of the adapters'.
async fn call<const N: usize>(server: &RedisServer, words: [&str; N]) -> redis::Value {
    let config = Config { grace: Duration::from_millis(998), ..server.config() };
    let redis = Redis::open(config, Arc::new(Unwatched), &Handle::current());
    redis.ask(Command::new(words)).await.expect("answered")
}

async fn publish(adapter: &RedisPubSub, texts: impl IntoIterator<Item = u32>) {
    for text in texts {
        adapter.publish("c", &text.to_string()).await.expect("published");
    }
}

fn numbers(to: u32) -> Vec<String> {
    (0..to).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn what_passes_while_the_connection_is_cut_is_heard_once_and_in_order() {
    let server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    let cutting = async {
        for _ in 0..20 {
            call(&server, ["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::join!(cutting, publish(&publisher, 0..500));
    ear.until("499").await;
    assert_eq!(*ear.heard(), numbers(500));
}

#[tokio::test]
async fn many_publishers_at_once_are_each_heard_in_their_order() {
    let server = RedisServer::start();
    let (reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    let (one, other) = ((0..300).map(|n| n * 2), (0..300).map(|n| n * 2 + 1));
    tokio::join!(publish(&reading, one), publish(&publisher, other));
    publisher.publish("c", "end").await.expect("published");
    ear.until("end").await;
    let heard: Vec<u32> = ear.heard().iter().filter_map(|text| text.parse().ok()).collect();
    assert_eq!(heard.len(), 600);
    for parity in [0, 1] {
        let mine: Vec<u32> = heard.iter().copied().filter(|n| n % 2 == parity).collect();
        assert!(mine.is_sorted());
    }
}

#[tokio::test]
async fn a_log_that_has_moved_past_a_reader_is_a_gap_before_what_is_left() {
    let server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    publish(&publisher, 0..3).await;
    ear.until("2").await;
    // In one step of the server, so that the reader cannot be faster.
    let config = Config { grace: Duration::from_millis(997), ..server.config() };
    let redis = Redis::open(config, Arc::new(Unwatched), &Handle::current());
    let mut commands = vec![
        Command::new(["MULTI"]),
        Command::new(["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
    ];
    commands.extend(
        ["m1", "m2", "m3", "m4", "m5"].map(|text| Command::new(["XADD", STREAM, "*", "c", text])),
    );
    commands.extend([Command::new(["XTRIM", STREAM, "MAXLEN", "2"]), Command::new(["EXEC"])]);
    redis.batch(commands).await.expect("done");
    ear.until("m5").await;
    assert_eq!(*ear.heard(), ["0", "1", "2", "Trimmed", "m4", "m5"].map(str::to_owned));
    publish(&publisher, 3..4).await;
    ear.until("3").await;
    assert_eq!(ear.heard().len(), 7, "one gap: {:?}", ear.heard());
}

#[tokio::test]
async fn what_is_dropped_before_a_blocked_read_is_answered_is_told_too() {
    let server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    let script = "for i = 1, 5 do redis.call('XADD', KEYS[1], '*', 'c', 'm' .. i) end
        return redis.call('XTRIM', KEYS[1], 'MAXLEN', 2)";
    call(&server, ["EVAL", script, "1", STREAM]).await;
    ear.until("m5").await;
    ear.until("Trimmed").await;
    assert_eq!(ear.heard().len(), 3, "{:?}", ear.heard());
}

#[tokio::test]
async fn an_emptied_server_is_a_gap_and_what_is_published_then_is_heard() {
    let server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    publish(&publisher, 0..3).await;
    ear.until("2").await;
    call(&server, ["FLUSHALL"]).await;
    publish(&publisher, 3..5).await;
    ear.until("Replaced").await;
    ear.until("4").await;
    let texts: Vec<String> =
        ear.heard().iter().filter(|text| *text != "Replaced").cloned().collect();
    assert_eq!(texts, numbers(5));
    assert_eq!(ear.heard().len(), 6, "one gap: {:?}", ear.heard());
}

#[tokio::test]
async fn a_restart_with_the_data_is_no_gap() {
    let mut server = RedisServer::start_with(ON_DISK);
    let (_reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    publish(&publisher, 0..3).await;
    server.kill();
    server.restart();
    publish(&publisher, 3..6).await;
    ear.until("5").await;
    assert_eq!(*ear.heard(), numbers(6));
}

#[tokio::test]
async fn a_restart_without_the_data_is_a_gap() {
    let mut server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    publish(&publisher, 0..3).await;
    ear.until("2").await;
    server.kill();
    server.restart();
    publish(&publisher, 3..6).await;
    ear.until("5").await;
    ear.until("Replaced").await;
    assert_eq!(ear.heard().iter().filter(|text| *text == "Replaced").count(), 1);
    assert_eq!(ear.heard().len(), 7, "{:?}", ear.heard());
}

#[tokio::test]
async fn a_server_that_has_lost_its_newest_data_is_a_gap_and_old_texts_are_not_heard_again() {
    let mut server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    let publisher = adapter(elsewhere(&server), LOG).await;
    publish(&publisher, 0..3).await;
    ear.until("2").await;
    call(&server, ["SAVE"]).await;
    publish(&publisher, 3..6).await;
    ear.until("5").await;
    server.kill();
    server.restart();
    publish(&publisher, 6..8).await;
    ear.until("7").await;
    ear.until("Replaced").await;
    let texts: Vec<String> =
        ear.heard().iter().filter(|text| *text != "Replaced").cloned().collect();
    assert_eq!(texts, numbers(8));
}

#[tokio::test]
async fn texts_that_the_server_acknowledged_and_lost_are_a_gap_for_those_who_did_not_read_them() {
    let mut server = RedisServer::start();
    let publisher = adapter(elsewhere(&server), LOG).await;
    publish(&publisher, 0..3).await;
    let (reading, ear) = listening(server.config()).await;
    publish(&publisher, 3..4).await;
    ear.until("3").await;
    call(&server, ["SAVE"]).await;
    // Nobody else hears of these.
    reading.close().await.expect("closed");
    publish(&publisher, 4..6).await;
    let (_again, ear) = (reading.connect().await.expect("connected"), ear);
    ear.heard().clear();
    server.kill();
    server.restart();
    ear.until("Replaced").await;
}

#[tokio::test]
async fn what_is_published_while_the_server_is_away_is_kept_and_then_given_up() {
    let mut server = RedisServer::start_with(ON_DISK);
    let config = Config { command_timeout: Duration::from_secs(2), ..server.config() };
    let (adapter, ear) = listening(config).await;
    server.kill();
    let error = adapter.publish("c", "late").await.expect_err("given up");
    assert_eq!(error.code(), "E_UNAVAILABLE");
    let kept = async {
        adapter.publish("c", "kept").await.expect("kept until the server is back");
    };
    let back = async { server.restart() };
    tokio::join!(kept, back);
    ear.until("kept").await;
    assert_eq!(*ear.heard(), ["kept"]);
}

#[tokio::test]
async fn an_entry_that_is_sent_again_is_heard_once() {
    let server = RedisServer::start();
    let (_reading, ear) = listening(server.config()).await;
    for sender in ["p-1", "p-1", "p-2", "q-1", "p-2"] {
        call(&server, ["XADD", STREAM, "*", "", sender, "c", sender]).await;
    }
    call(&server, ["XADD", STREAM, "*", "c", "end"]).await;
    ear.until("end").await;
    assert_eq!(*ear.heard(), ["p-1", "p-2", "q-1", "end"].map(str::to_owned));
}

#[tokio::test]
async fn the_log_is_bounded_by_length_and_by_age() {
    let server = RedisServer::start();
    let delivery = Delivery::Log { max_length: 100, max_age: Duration::from_millis(200) };
    let publisher = adapter(server.config(), delivery).await;
    publish(&publisher, 0..1000).await;
    let length = async || match call(&server, ["XLEN", STREAM]).await {
        redis::Value::Int(length) => length,
        other => panic!("{other:?}"),
    };
    assert!(length().await < 300, "about a hundred");
    let trimmed = async {
        while length().await > 0 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, trimmed).await.expect("what is too old is dropped");
}

#[tokio::test]
async fn a_channel_without_a_name_is_refused() {
    let server = RedisServer::start();
    let (adapter, ear) = listening(server.config()).await;
    let refused = adapter.publish("", "text").await.expect_err("refused");
    assert_eq!(refused.code(), "E_INVALID_ARGUMENT");
    let refused = adapter.subscribe("", ear.receiver()).await.expect_err("refused");
    assert_eq!(refused.code(), "E_INVALID_ARGUMENT");
    adapter.publish("c", "after").await.expect("published");
    ear.until("after").await;
}

#[tokio::test]
async fn connecting_to_a_server_that_is_away_is_an_error_in_time() {
    let mut server = RedisServer::start();
    server.kill();
    let config = Config { connect_timeout: Duration::from_millis(300), ..server.config() };
    let adapter = RedisPubSub::new(config, "app", LOG, |_| {}, &Handle::current());
    assert_eq!(adapter.connect().await.expect_err("away").code(), "E_UNAVAILABLE");
    assert!(!adapter.is_connected());
    server.restart();
    adapter.connect().await.expect("connected");
}

#[tokio::test]
async fn what_the_server_refuses_is_an_error_at_once_and_the_next_text_is_sent() {
    let server = RedisServer::start();
    let publisher = adapter(server.config(), LOG).await;
    call(&server, ["SET", STREAM, "no stream"]).await;
    let refused = publisher.publish("c", "text").await.expect_err("refused");
    assert_eq!(refused.code(), "E_REDIS");
    assert!(refused.to_string().contains("WRONGTYPE"), "{refused}");
    call(&server, ["DEL", STREAM]).await;
    publisher.publish("c", "text").await.expect("published");
}
