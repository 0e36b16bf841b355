//! The rules of `PubSubAdapter`, over every adapter, and of the manager in front of it.

use crate::server::RedisServer;
use mortise::pub_sub::{
    Debounce, PubSub, Sink,
    adapter::{Gap, Incoming, PubSubAdapter, Receiver},
    frame,
    memory::MemoryPubSub,
    redis::{Delivery, MAX_AGE, MAX_LENGTH, RedisPubSub},
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

/// An adapter is one line here, and no new tests: how to make a member of a bus.
macro_rules! for_every_pub_sub_adapter {
    ($($rule:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $rule() {
                    let prefix = stringify!($rule);
                    super::$rule(&|bus: &str| {
                        Arc::new(MemoryPubSub::new(&format!("{prefix} {bus}"), &Handle::current()))
                    })
                    .await;
                }
            )*
        }
        mod redis {
            use super::*;
            $(
                #[tokio::test]
                async fn $rule() {
                    let server = RedisServer::start();
                    super::$rule(&|bus: &str| on_redis(&server, bus, LOG)).await;
                }
            )*
        }
    };
}

/// Without a log there are no buses: channels are the server's.
macro_rules! for_volatile_pub_sub {
    ($($rule:ident),* $(,)?) => {
        mod redis_volatile {
            use super::*;
            $(
                #[tokio::test]
                async fn $rule() {
                    let server = RedisServer::start();
                    super::$rule(&|bus: &str| on_redis(&server, bus, Delivery::Volatile)).await;
                }
            )*
        }
    };
}

const LOG: Delivery = Delivery::Log { max_length: MAX_LENGTH, max_age: MAX_AGE };

fn on_redis(server: &RedisServer, bus: &str, delivery: Delivery) -> Arc<dyn PubSubAdapter> {
    let handle = Handle::current();
    Arc::new(RedisPubSub::new(server.config(), bus, delivery, |_| {}, &handle))
}

for_every_pub_sub_adapter!(
    a_text_reaches_every_subscriber_of_its_channel,
    a_text_reaches_nobody_on_another_channel_or_bus,
    texts_arrive_in_the_order_in_which_they_were_published,
    subscribing_again_replaces_the_receiver,
    after_unsubscribe_nothing_more_arrives,
    what_was_subscribed_is_heard_again_after_connecting,
    a_closed_adapter_hears_nothing_and_cannot_publish,
);

for_volatile_pub_sub!(
    a_text_reaches_every_subscriber_of_its_channel,
    texts_arrive_in_the_order_in_which_they_were_published,
    subscribing_again_replaces_the_receiver,
    after_unsubscribe_nothing_more_arrives,
    what_was_subscribed_is_heard_again_after_connecting,
    a_closed_adapter_hears_nothing_and_cannot_publish,
);

type Make<'a> = &'a (dyn Fn(&str) -> Arc<dyn PubSubAdapter> + Sync);

/// Keeps what it hears.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl Ear {
    fn receiver(&self) -> Receiver {
        let heard = Arc::clone(&self.0);
        Arc::new(move |channel, incoming| {
            let line = match incoming {
                Incoming::Text(text) => format!("{channel}: {text}"),
                Incoming::Gap(gap) => format!("{channel}: gap {gap:?}"),
            };
            heard.lock().expect("not poisoned").push(line);
        })
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned"))
    }
}

async fn connected(make: Make<'_>, bus: &str) -> Arc<dyn PubSubAdapter> {
    let adapter = make(bus);
    adapter.connect().await.expect("connected");
    adapter
}

async fn listening(make: Make<'_>, bus: &str, channel: &str) -> (Arc<dyn PubSubAdapter>, Ear) {
    let (adapter, ear) = (connected(make, bus).await, Ear::default());
    adapter.subscribe(channel, ear.receiver()).await.expect("subscribed");
    (adapter, ear)
}

/// Waits until all that was published on a bus has arrived: until a mark has, behind it.
async fn settle(make: Make<'_>, bus: &str) {
    let (adapter, ear) = listening(make, bus, "end").await;
    adapter.publish("end", "mark").await.expect("published");
    let arrived = async {
        while ear.take().is_empty() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, arrived).await.expect("the mark arrives");
}

async fn a_text_reaches_every_subscriber_of_its_channel(make: Make<'_>) {
    let (publisher, own) = listening(make, "bus", "c").await;
    let (_kept, other) = listening(make, "bus", "c").await;
    publisher.publish("c", "text").await.expect("published");
    settle(make, "bus").await;
    assert_eq!((own.take(), other.take()), (vec!["c: text".into()], vec!["c: text".into()]));
}

async fn a_text_reaches_nobody_on_another_channel_or_bus(make: Make<'_>) {
    let publisher = connected(make, "bus").await;
    let (_a, channel) = listening(make, "bus", "other").await;
    let (_b, bus) = listening(make, "other", "c").await;
    publisher.publish("c", "text").await.expect("published");
    settle(make, "bus").await;
    settle(make, "other").await;
    assert!(channel.take().is_empty());
    assert!(bus.take().is_empty());
}

async fn texts_arrive_in_the_order_in_which_they_were_published(make: Make<'_>) {
    let publisher = connected(make, "bus").await;
    let (_kept, ear) = listening(make, "bus", "c").await;
    for n in 0..1000 {
        publisher.publish("c", &n.to_string()).await.expect("published");
    }
    settle(make, "bus").await;
    assert_eq!(ear.take(), (0..1000).map(|n| format!("c: {n}")).collect::<Vec<_>>());
}

async fn subscribing_again_replaces_the_receiver(make: Make<'_>) {
    let (adapter, first) = listening(make, "bus", "c").await;
    let second = Ear::default();
    adapter.subscribe("c", second.receiver()).await.expect("subscribed");
    adapter.publish("c", "text").await.expect("published");
    settle(make, "bus").await;
    assert!(first.take().is_empty());
    assert_eq!(second.take().len(), 1);
}

async fn after_unsubscribe_nothing_more_arrives(make: Make<'_>) {
    let (adapter, ear) = listening(make, "bus", "c").await;
    adapter.unsubscribe("c").await.expect("unsubscribed");
    adapter.unsubscribe("c").await.expect("no error");
    adapter.publish("c", "text").await.expect("published");
    settle(make, "bus").await;
    assert!(ear.take().is_empty());
}

async fn what_was_subscribed_is_heard_again_after_connecting(make: Make<'_>) {
    let (adapter, ear) = listening(make, "bus", "c").await;
    for _ in 0..2 {
        adapter.close().await.expect("closed");
    }
    for _ in 0..2 {
        adapter.connect().await.expect("connected");
    }
    adapter.publish("c", "text").await.expect("published");
    settle(make, "bus").await;
    assert_eq!(ear.take(), ["c: text"]);
}

async fn a_closed_adapter_hears_nothing_and_cannot_publish(make: Make<'_>) {
    let publisher = connected(make, "bus").await;
    let (closed, ear) = listening(make, "bus", "c").await;
    closed.close().await.expect("closed");
    assert!(!closed.is_connected());
    publisher.publish("c", "text").await.expect("published");
    settle(make, "bus").await;
    assert!(ear.take().is_empty());
    let error = closed.publish("c", "text").await.expect_err("closed");
    assert_eq!(error.code(), "E_CLOSED");
}

impl Sink for Ear {
    fn deliver(&self, subscription: u32, message: Option<&str>) {
        let text = format!("{subscription}: {}", message.unwrap_or("undefined"));
        self.0.lock().expect("not poisoned").push(text);
    }

    fn gap(&self, subscription: u32, gap: Gap) {
        self.0.lock().expect("not poisoned").push(format!("{subscription}: gap {gap:?}"));
    }

    fn malformed(&self, channel: &str, _reason: &str) {
        self.0.lock().expect("not poisoned").push(format!("malformed on {channel}"));
    }
}

fn manager() -> (Arc<PubSub>, Ear) {
    let ear = Ear::default();
    (PubSub::new("me".into(), ear.clone(), &Handle::current()), ear)
}

fn text(message: &str) -> String {
    frame("other", None, None, Some(message))
}

const WINDOW: Debounce = Debounce { window: 100, leading: false };

#[tokio::test(start_paused = true)]
async fn own_messages_are_skipped_or_the_only_ones_as_the_publisher_wants() {
    let (manager, ear) = manager();
    manager.subscribe("c", 1, Debounce::default());
    let cases = [
        ("me", None, None, true),
        ("me", Some(true), None, false),
        ("other", Some(true), None, true),
        ("me", Some(true), Some(true), true),
        ("other", None, Some(true), false),
    ];
    for (publisher, skip_self, only_self, heard) in cases {
        manager.receive("c", &frame(publisher, skip_self, only_self, Some("1")));
        assert_eq!(!ear.take().is_empty(), heard, "{publisher} {skip_self:?} {only_self:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn equal_messages_within_a_window_are_one_call_at_its_end() {
    let (manager, ear) = manager();
    manager.subscribe("c", 1, WINDOW);
    manager.receive("c", &text(r#"{"a":1,"b":[2]}"#));
    sleep(Duration::from_millis(60)).await;
    manager.receive("c", &text(r#"{"b":[2],"a":1}"#));
    manager.receive("c", &text("5"));
    assert_eq!(manager.open_windows(), 2);
    assert!(ear.take().is_empty());
    sleep(Duration::from_millis(50)).await;
    assert_eq!(ear.take(), [r#"1: {"b":[2],"a":1}"#], "the newest, at the first window's end");
    sleep(Duration::from_millis(60)).await;
    assert_eq!(ear.take(), ["1: 5"]);
    assert_eq!(manager.open_windows(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_subscription_has_windows_of_its_own() {
    let (manager, ear) = manager();
    manager.subscribe("c", 1, WINDOW);
    manager.subscribe("c", 2, WINDOW);
    manager.subscribe("c", 3, Debounce::default());
    manager.receive("c", &text("1"));
    assert_eq!(ear.take(), ["3: 1"]);
    sleep(Duration::from_millis(110)).await;
    assert_eq!(ear.take(), ["1: 1", "2: 1"]);
}

#[tokio::test(start_paused = true)]
async fn leading_delivers_at_once_and_at_the_end_only_what_came_after() {
    let (manager, ear) = manager();
    manager.subscribe("c", 1, Debounce { leading: true, ..WINDOW });
    manager.receive("c", &text("1"));
    assert_eq!(ear.take(), ["1: 1"]);
    sleep(Duration::from_millis(110)).await;
    assert!(ear.take().is_empty());
    manager.receive("c", &text("1"));
    manager.receive("c", &text("1"));
    assert_eq!(ear.take(), ["1: 1"]);
    sleep(Duration::from_millis(110)).await;
    assert_eq!(ear.take(), ["1: 1"]);
}

#[tokio::test(start_paused = true)]
async fn unsubscribing_and_cancelling_close_windows_without_a_call() {
    let (manager, ear) = manager();
    manager.subscribe("c", 1, WINDOW);
    manager.subscribe("c", 2, WINDOW);
    manager.receive("c", &text("1"));
    manager.unsubscribe("c", 1);
    assert_eq!(manager.open_windows(), 1);
    sleep(Duration::from_millis(110)).await;
    assert_eq!(ear.take(), ["2: 1"]);
    manager.receive("c", &text("1"));
    manager.cancel_windows();
    assert_eq!(manager.open_windows(), 0);
    sleep(Duration::from_millis(110)).await;
    assert!(ear.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_no_message_is_told_of_and_dropped() {
    let (manager, ear) = manager();
    manager.receive("c", "no json");
    assert!(ear.take().is_empty(), "nobody listens");
    manager.subscribe("c", 1, Debounce::default());
    manager.receive("c", "no json");
    manager.receive("c", &frame("other", None, None, None));
    assert_eq!(ear.take(), ["malformed on c", "1: undefined"]);
}

#[tokio::test(start_paused = true)]
async fn a_gap_reaches_the_subscriptions_of_its_channel_and_leaves_windows_open() {
    let (manager, ear) = manager();
    manager.subscribe("c", 1, WINDOW);
    manager.subscribe("c", 2, Debounce::default());
    manager.subscribe("other", 3, Debounce::default());
    manager.hear("c", Incoming::Text(&text("1")));
    manager.hear("c", Incoming::Gap(Gap::Trimmed));
    manager.hear("c", Incoming::Text(&text("2")));
    assert_eq!(ear.take(), ["2: 1", "1: gap Trimmed", "2: gap Trimmed", "2: 2"]);
    sleep(Duration::from_millis(110)).await;
    assert_eq!(ear.take(), ["1: 1", "1: 2"]);
}
