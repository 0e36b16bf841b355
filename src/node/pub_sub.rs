//! Pub/sub's functions: a manager's subscriptions, and the memory bus.

use super::{
    RUNTIME,
    call::{Call, Entry, Reply, functions},
    mailbox::{Event, Mailbox, Payload},
};
use crate::pub_sub::{
    Debounce, PubSub, Sink,
    adapter::{PubSubAdapter, Receiver},
    frame,
    memory::MemoryPubSub,
};
use std::sync::Arc;

/// What JavaScript can call, by name.
pub fn functions() -> Vec<(&'static str, Entry)> {
    functions![
        "pubSubNew" => new,
        "pubSubSubscribe" => subscribe,
        "pubSubUnsubscribe" => unsubscribe,
        "pubSubReceive" => receive,
        "pubSubOpenWindows" => open_windows,
        "pubSubCancelWindows" => cancel_windows,
        "pubSubHear" => hear,
        "pubSubPublish" => publish,
        "memoryBusJoin" => join,
        "memoryBusConnect" => connect,
        "memoryBusClose" => close,
        "memoryBusSubscribe" => subscribe_bus,
        "memoryBusUnsubscribe" => unsubscribe_bus,
        "memoryBusPublish" => publish_bus,
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

impl Sink for ToJavaScript {
    fn deliver(&self, subscription: u32, message: Option<&str>) {
        let payload = message.map_or(Payload::None, |text| Payload::Text(text.to_owned()));
        self.post(f64::from(subscription), payload);
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
type Member = Arc<MemoryPubSub>;

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

/// `pubSubHear(manager, member, channel)`: the manager hears a channel of the bus, without a way
/// through JavaScript.
fn hear(call: &Call) -> Reply {
    let manager = Arc::downgrade(call.handle::<Manager>(0)?);
    let receiver: Receiver = Arc::new(move |channel, text| {
        if let Some(manager) = manager.upgrade() {
            manager.receive(channel, text);
        }
    });
    call.handle::<Member>(1)?.subscribe_now(&call.text(2)?, receiver);
    call.undefined()
}

/// `pubSubPublish(manager, member, listener, commands, text, numbers)`: the messages of one turn.
/// For each command its flags, and the lengths of its channel and of its message in `text`. Posts
/// to the listener, once, when they are delivered.
fn publish(call: &Call) -> Reply {
    let (manager, member) = (call.handle::<Manager>(0)?, call.handle::<Member>(1)?);
    let delivered = to_javascript(call, 2)?;
    let mut commands = call.batch(3)?;
    for _ in 0..commands.count() {
        let flags = commands.number()?;
        let (channel, message) = (commands.string()?, commands.string()?);
        let flag = |bit: u32| match flags >> bit & 3 {
            0 => None,
            value => Some(value == 1),
        };
        let message = (flags & UNDEFINED == 0).then_some(message.as_str());
        let text = frame(manager.publisher_id(), flag(0), flag(2), message);
        member.publish_now(&channel, text.into())?;
    }
    member.when_delivered(move || delivered.post(0.0, Payload::None))?;
    call.undefined()
}

/// Set in a command's flags when its message is `undefined`. Below it `skipSelf` and `onlySelf`
/// have two bits each: 0 for absent, 1 for true, 2 for false.
const UNDEFINED: u32 = 16;

/// `memoryBusJoin(bus): Handle`
fn join(call: &Call) -> Reply {
    call.new_handle::<Member>(Arc::new(MemoryPubSub::new(&call.text(0)?, RUNTIME.handle())))
}

/// `memoryBusConnect(member)`
fn connect(call: &Call) -> Reply {
    call.handle::<Member>(0)?.connect_now();
    call.undefined()
}

/// `memoryBusClose(member)`
fn close(call: &Call) -> Reply {
    call.handle::<Member>(0)?.close_now();
    call.undefined()
}

/// `memoryBusSubscribe(member, channel, listener, id)`: posts each text, with `id` as subject.
fn subscribe_bus(call: &Call) -> Reply {
    let (sink, id) = (to_javascript(call, 2)?, call.u32(3)?);
    let receiver: Receiver = Arc::new(move |_, text| sink.deliver(id, Some(text)));
    call.handle::<Member>(0)?.subscribe_now(&call.text(1)?, receiver);
    call.undefined()
}

/// `memoryBusUnsubscribe(member, channel)`
fn unsubscribe_bus(call: &Call) -> Reply {
    call.handle::<Member>(0)?.unsubscribe_now(&call.text(1)?);
    call.undefined()
}

/// `memoryBusPublish(member, listener, channel, text): boolean`: false when it is not connected;
/// else posts to the listener when the text is delivered.
fn publish_bus(call: &Call) -> Reply {
    let (member, delivered) = (call.handle::<Member>(0)?, to_javascript(call, 1)?);
    let connected = member.is_connected();
    if connected {
        member.publish_now(&call.text(2)?, call.text(3)?.into())?;
        member.when_delivered(move || delivered.post(0.0, Payload::None))?;
    }
    call.boolean(connected)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates as wanted")]
fn milliseconds(value: f64) -> u64 {
    value.ceil() as u64
}
