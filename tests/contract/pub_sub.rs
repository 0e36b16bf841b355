//! The rules of `PubSubAdapter`, over every adapter, and of the manager in front of it.

use mortise::pub_sub::{
    Debounce, PubSub, Sink,
    adapter::{PubSubAdapter, Receiver},
    frame,
    memory::MemoryPubSub,
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{runtime::Handle, time::sleep};

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
    };
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

type Make<'a> = &'a (dyn Fn(&str) -> Arc<dyn PubSubAdapter> + Sync);

/// Keeps what it hears.
#[derive(Clone, Default)]
struct Ear(Arc<Mutex<Vec<String>>>);

impl Ear {
    fn receiver(&self) -> Receiver {
        let heard = Arc::clone(&self.0);
        Arc::new(move |channel, text| {
            heard.lock().expect("not poisoned").push(format!("{channel}: {text}"));
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

/// Time for all that is under way to arrive; it is paused, and so costs none.
async fn settle() {
    sleep(Duration::from_secs(1)).await;
}

async fn a_text_reaches_every_subscriber_of_its_channel(make: Make<'_>) {
    let (publisher, own) = listening(make, "bus", "c").await;
    let (_kept, other) = listening(make, "bus", "c").await;
    publisher.publish("c", "text".into()).await.expect("published");
    settle().await;
    assert_eq!((own.take(), other.take()), (vec!["c: text".into()], vec!["c: text".into()]));
}

async fn a_text_reaches_nobody_on_another_channel_or_bus(make: Make<'_>) {
    let publisher = connected(make, "bus").await;
    let (_a, channel) = listening(make, "bus", "other").await;
    let (_b, bus) = listening(make, "other", "c").await;
    publisher.publish("c", "text".into()).await.expect("published");
    settle().await;
    assert!(channel.take().is_empty());
    assert!(bus.take().is_empty());
}

async fn texts_arrive_in_the_order_in_which_they_were_published(make: Make<'_>) {
    let publisher = connected(make, "bus").await;
    let (_kept, ear) = listening(make, "bus", "c").await;
    for n in 0..1000 {
        publisher.publish("c", n.to_string().into()).await.expect("published");
    }
    settle().await;
    assert_eq!(ear.take(), (0..1000).map(|n| format!("c: {n}")).collect::<Vec<_>>());
}

async fn subscribing_again_replaces_the_receiver(make: Make<'_>) {
    let (adapter, first) = listening(make, "bus", "c").await;
    let second = Ear::default();
    adapter.subscribe("c", second.receiver()).await.expect("subscribed");
    adapter.publish("c", "text".into()).await.expect("published");
    settle().await;
    assert!(first.take().is_empty());
    assert_eq!(second.take().len(), 1);
}

async fn after_unsubscribe_nothing_more_arrives(make: Make<'_>) {
    let (adapter, ear) = listening(make, "bus", "c").await;
    adapter.unsubscribe("c").await.expect("unsubscribed");
    adapter.unsubscribe("c").await.expect("no error");
    adapter.publish("c", "text".into()).await.expect("published");
    settle().await;
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
    adapter.publish("c", "text".into()).await.expect("published");
    settle().await;
    assert_eq!(ear.take(), ["c: text"]);
}

async fn a_closed_adapter_hears_nothing_and_cannot_publish(make: Make<'_>) {
    let publisher = connected(make, "bus").await;
    let (closed, ear) = listening(make, "bus", "c").await;
    closed.close().await.expect("closed");
    assert!(!closed.is_connected());
    publisher.publish("c", "text".into()).await.expect("published");
    settle().await;
    assert!(ear.take().is_empty());
    let error = closed.publish("c", "text".into()).await.expect_err("closed");
    assert_eq!(error.code(), "E_CLOSED");
}

impl Sink for Ear {
    fn deliver(&self, subscription: u32, message: Option<&str>) {
        let text = format!("{subscription}: {}", message.unwrap_or("undefined"));
        self.0.lock().expect("not poisoned").push(text);
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
