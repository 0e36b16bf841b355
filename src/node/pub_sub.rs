//! Pub/sub's functions: a manager's subscriptions, and the adapters of ours. Between the two texts go
//! from Rust to Rust.

use super::{
    RUNTIME,
    batch::Commands,
    call::{Call, Entry, Reply, functions},
    mailbox::{Event, Mailbox, Payload},
};
use crate::{
    error::Result,
    pub_sub::{
        Debounce, PubSub, Sink,
        adapter::{Completion, Gap, Incoming, PubSubAdapter, Receiver, Text, Texts},
        memory::MemoryPubSub,
        redis::{Delivery, RedisPubSub},
    },
    redis::Config,
};
use std::{
    future::Future,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "pubSubNew" => new,
        "pubSubSubscribe" => subscribe,
        "pubSubUnsubscribe" => unsubscribe,
        "pubSubReceive" => receive,
        "pubSubGap" => gap,
        "pubSubOpenWindows" => open_windows,
        "pubSubCancelWindows" => cancel_windows,
        "pubSubHear" => hear,
        "pubSubPublish" => publish,
        "memoryBusJoin" => join_memory,
        "redisBusJoin" => join_redis,
        "busConnect" => connect,
        "busClose" => close,
        "busSubscribe" => subscribe_bus,
        "busUnsubscribe" => unsubscribe_bus,
        "busPublish" => publish_bus,
    ]
}

/// The subject of an event that tells of a text which is no message.
const MALFORMED: f64 = -1.0;

/// Delivers to a listener in JavaScript; the subject is the subscription.
struct ToJavaScript {
    mailbox: Arc<Mailbox>,
    listener: u32,
}

impl ToJavaScript {
    fn post(&self, subject: f64, payload: Payload) {
        self.mailbox.post(Event { listener: self.listener, subject, value: 0.0, payload });
    }
}

/// The value of an event that tells of a gap; `lib/pub-sub/gap.ts` has the same numbers.
fn number(gap: Gap) -> f64 {
    match gap {
        Gap::Trimmed => 1.0,
        Gap::Replaced => 2.0,
        Gap::Disconnected => 3.0,
    }
}

fn gap_of(number: u32) -> Gap {
    match number {
        1 => Gap::Trimmed,
        2 => Gap::Replaced,
        _ => Gap::Disconnected,
    }
}

impl Sink for ToJavaScript {
    fn deliver(&self, subscription: u32, message: Option<&str>) {
        let payload = message.map_or(Payload::None, |text| Payload::Text(text.to_owned()));
        self.post(f64::from(subscription), payload);
    }

    fn gap(&self, subscription: u32, gap: Gap) {
        let (listener, subject) = (self.listener, f64::from(subscription));
        self.mailbox.post(Event { listener, subject, value: number(gap), payload: Payload::None });
    }

    fn malformed(&self, channel: &str, reason: &str) {
        self.post(MALFORMED, Payload::Text(format!("channel {channel}: {reason}")));
    }
}

fn to_javascript(call: &Call, argument: usize) -> crate::Result<ToJavaScript> {
    let mailbox = Arc::clone(&call.context.mailbox);
    Ok(ToJavaScript { mailbox, listener: call.u32(argument)? })
}

type Manager = Arc<PubSub>;
type Member = Arc<dyn PubSubAdapter>;

/// Told once of the outcome of something that JavaScript waits for; the subject is its number.
fn answer(call: &Call, argument: usize) -> Result<Completion> {
    let (waiting, sequence) = (to_javascript(call, argument)?, call.f64(argument + 1)?);
    Ok(Box::new(move |result| {
        waiting.post(sequence, result.map_or_else(Payload::Error, |()| Payload::None));
    }))
}

/// Runs `future`; true when it is done at once, else `done` is told.
fn run(
    call: &Call,
    future: impl Future<Output = Result<()>> + Send + 'static,
    done: Completion,
) -> Reply {
    let mut future = Box::pin(future);
    let _runtime = RUNTIME.enter();
    // What is only a matter of memory takes effect before the call returns. What is not is polled
    // again by its task, which sets a waker of its own.
    let first = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    if let Poll::Ready(result) = first {
        result?;
        return call.boolean(true);
    }
    RUNTIME.spawn(async move { done(future.await) });
    call.boolean(false)
}

/// `pubSubNew(publisherId, listener): Handle`
fn new(call: &Call) -> Reply {
    let sink = to_javascript(call, 1)?;
    call.new_handle::<Manager>(PubSub::new(call.text(0)?, sink, RUNTIME.handle()))
}

/// `pubSubSubscribe(manager, channel, id, window, leading)`
fn subscribe(call: &Call) -> Reply {
    let debounce = Debounce { window: milliseconds(call.f64(3)?), leading: call.bool(4)? };
    call.handle::<Manager>(0)?.subscribe(&call.text(1)?, call.u32(2)?, debounce);
    call.undefined()
}

/// `pubSubUnsubscribe(manager, channel, id)`
fn unsubscribe(call: &Call) -> Reply {
    call.handle::<Manager>(0)?.unsubscribe(&call.text(1)?, call.u32(2)?);
    call.undefined()
}

/// `pubSubReceive(manager, channel, text)`: a text from an adapter written in JavaScript.
fn receive(call: &Call) -> Reply {
    call.handle::<Manager>(0)?.receive(&call.text(1)?, &call.text(2)?);
    call.undefined()
}

/// `pubSubGap(manager, channel, gap)`: an adapter written in JavaScript may have missed texts.
fn gap(call: &Call) -> Reply {
    let incoming = Incoming::Gap(gap_of(call.u32(2)?));
    call.handle::<Manager>(0)?.hear(&call.text(1)?, incoming);
    call.undefined()
}

/// `pubSubOpenWindows(manager): number`
fn open_windows(call: &Call) -> Reply {
    let open = call.handle::<Manager>(0)?.open_windows();
    call.integer(u32::try_from(open).unwrap_or(u32::MAX))
}

/// `pubSubCancelWindows(manager)`
fn cancel_windows(call: &Call) -> Reply {
    call.handle::<Manager>(0)?.cancel_windows();
    call.undefined()
}

/// `pubSubHear(manager, member, channel, listener, sequence): boolean`: the manager hears a channel of
/// the adapter, without a way through JavaScript.
fn hear(call: &Call) -> Reply {
    let manager = Arc::downgrade(call.handle::<Manager>(0)?);
    let receiver: Receiver = Arc::new(move |channel, incoming| {
        if let Some(manager) = manager.upgrade() {
            manager.hear(channel, incoming);
        }
    });
    let (member, channel) = (Arc::clone(call.handle::<Member>(1)?), call.text(2)?);
    run(call, async move { member.subscribe(&channel, receiver).await }, answer(call, 3)?)
}

/// `pubSubPublish(manager, member, listener, sequence, commands, text, numbers, filled, units)`: messages
/// of one turn. For each command its flags, and the lengths of its channel and of its message in `text`.
/// Posts to the listener, once, when they are published.
fn publish(call: &Call) -> Reply {
    let (manager, member) = (Arc::clone(call.handle::<Manager>(0)?), call.handle::<Member>(1)?);
    let envelope = manager.publisher_id().len() + 64;
    let texts = texts(call, 4, envelope, move |commands| framed(&manager, commands))?;
    member.submit(texts, answer(call, 2)?);
    call.undefined()
}

fn framed(manager: &PubSub, commands: &mut Commands) -> Result<Text> {
    let flags = commands.number()?;
    let (channel, message) = (commands.string()?, commands.string()?);
    let flag = |bit: u32| match flags >> bit & 3 {
        0 => None,
        value => Some(value == 1),
    };
    let message = (flags & UNDEFINED == 0).then_some(message.as_str());
    Ok(Text { channel, text: manager.frame(flag(0), flag(2), message) })
}

/// The texts of a batch, each cut from it by `cut`; `more` is what each has beside its strings.
fn texts(
    call: &Call,
    argument: usize,
    more: usize,
    cut: impl Fn(&mut Commands) -> Result<Text> + Send + 'static,
) -> Result<Texts> {
    let mut commands = call.batch(argument)?;
    let count = commands.count();
    let bytes = commands.units() + count * more;
    // No batch is too short: `Batch` has counted.
    let make = move || (0..count).filter_map(|_| cut(&mut commands).ok()).collect();
    Ok(Texts { count, bytes, make: Box::new(make) })
}

/// Set in a command's flags when its message is `undefined`. Below it `skipSelf` and `onlySelf`
/// have two bits each: 0 for absent, 1 for true, 2 for false.
const UNDEFINED: u32 = 16;

/// `memoryBusJoin(bus): Handle`
fn join_memory(call: &Call) -> Reply {
    call.new_handle::<Member>(Arc::new(MemoryPubSub::new(&call.text(0)?, RUNTIME.handle())))
}

/// `redisBusJoin(options: string, app, volatile: boolean, maxLength, maxAge, listener): Handle`; each gap
/// is posted to the listener, its number as the value.
fn join_redis(call: &Call) -> Reply {
    let config = Config::from_json(&call.text(0)?)?;
    let delivery = if call.bool(2)? {
        Delivery::Volatile
    } else {
        let (max_length, max_age) = (milliseconds(call.f64(3)?), milliseconds(call.f64(4)?));
        Delivery::Log { max_length, max_age: Duration::from_millis(max_age) }
    };
    let told = to_javascript(call, 5)?;
    let on_gap = move |gap| told.gap(0, gap);
    let member = RedisPubSub::new(config, &call.text(1)?, delivery, on_gap, RUNTIME.handle());
    call.new_handle::<Member>(Arc::new(member))
}

/// `busConnect(member, listener, sequence): boolean`
fn connect(call: &Call) -> Reply {
    let member = Arc::clone(call.handle::<Member>(0)?);
    run(call, async move { member.connect().await }, answer(call, 1)?)
}

/// `busClose(member, listener, sequence): boolean`
fn close(call: &Call) -> Reply {
    let member = Arc::clone(call.handle::<Member>(0)?);
    run(call, async move { member.close().await }, answer(call, 1)?)
}

/// `busSubscribe(member, channel, hearing, id, listener, sequence): boolean`: posts each text to the
/// listener `hearing`, with `id` as subject, and each gap as value.
fn subscribe_bus(call: &Call) -> Reply {
    let (sink, id) = (to_javascript(call, 2)?, call.u32(3)?);
    let receiver: Receiver = Arc::new(move |_, incoming| match incoming {
        Incoming::Text(text) => sink.deliver(id, Some(text)),
        Incoming::Gap(gap) => sink.gap(id, gap),
    });
    let (member, channel) = (Arc::clone(call.handle::<Member>(0)?), call.text(1)?);
    run(call, async move { member.subscribe(&channel, receiver).await }, answer(call, 4)?)
}

/// `busUnsubscribe(member, channel, listener, sequence): boolean`
fn unsubscribe_bus(call: &Call) -> Reply {
    let (member, channel) = (Arc::clone(call.handle::<Member>(0)?), call.text(1)?);
    run(call, async move { member.unsubscribe(&channel).await }, answer(call, 2)?)
}

/// `busPublish(member, listener, sequence, commands, text, numbers, filled, units)`: as `pubSubPublish`,
/// for texts; a command is the lengths of its channel and of its text.
fn publish_bus(call: &Call) -> Reply {
    let cut = |commands: &mut Commands| {
        Ok(Text { channel: commands.string()?, text: commands.string()? })
    };
    let texts = texts(call, 3, 0, cut)?;
    call.handle::<Member>(0)?.submit(texts, answer(call, 1)?);
    call.undefined()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates as wanted")]
fn milliseconds(value: f64) -> u64 {
    value.ceil() as u64
}
