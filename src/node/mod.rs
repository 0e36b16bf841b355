//! The binding: the only room of the house that knows JavaScript.
//!
//! It is made of bare N-API functions, registered by hand: a call costs a fraction of what an
//! argument-converting wrapper does, which is what lets a cache, a lock or a queue in Rust be
//! faster than one in JavaScript. What returns later than the call comes back through the
//! [`mailbox`], many events to a wake.
//!
//! Nothing here is called by users: `lib/` wraps it and owns what only JavaScript can own.

#![expect(unsafe_code, reason = "N-API is a C interface; nothing outside this folder is unsafe")]

mod batch;
mod cache;
mod call;
mod clock;
mod event_queue;
mod lock;
mod mailbox;
mod pub_sub;
mod redis;
mod redis_lock;
mod server_queue;
mod shared;
mod tiered;
mod turns;
mod worker_id;

use call::{Call, Reply, functions};
use mailbox::Mailbox;
use napi::sys;
use shared::SharedCells;
use std::sync::{Arc, LazyLock};

/// What belongs to one JavaScript environment: the main thread's or a worker thread's.
pub struct Context {
    pub mailbox: Arc<Mailbox>,
    pub clock: SharedCells,
}

/// The process's background threads, shared by all environments. They sleep unless something is
/// due, and never keep Node alive.
pub static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("mortise")
        .enable_all()
        .build()
        .unwrap_or_else(|error| panic!("cannot start background threads: {error}"))
});

#[napi_derive::napi(module_exports)]
fn register(exports: napi::bindgen_prelude::Object, env: napi::Env) -> napi::Result<()> {
    let env = env.raw();
    let context =
        Box::into_raw(Box::new(Context { mailbox: Mailbox::new(env)?, clock: clock::new_face() }));
    let mut all = functions!["listen" => listen, "listener" => listener, "keepAlive" => keep_alive, "postLast" => post_last];
    all.extend(cache::functions());
    all.extend(event_queue::functions());
    all.extend(lock::functions());
    all.extend(pub_sub::functions());
    all.extend(redis::functions());
    all.extend(redis_lock::functions());
    all.extend(server_queue::functions());
    all.extend(tiered::functions());
    all.extend(worker_id::functions());
    let exports = napi::bindgen_prelude::JsValue::raw(&exports);
    call::define(env, exports, context.cast(), all)?;
    // Hooks run last in, first out: this one before the mailbox's own end.
    unsafe { sys::napi_add_env_cleanup_hook(env, Some(teardown), context.cast()) };
    Ok(())
}

/// The environment ends: no function of it can be called any more.
unsafe extern "C" fn teardown(context: *mut std::ffi::c_void) {
    let context = unsafe { Box::from_raw(context.cast::<Context>()) };
    context.mailbox.close();
}

/// `listen(dispatch: (count: number, payloads?: unknown[]) => void): [ArrayBuffer, number]`: where the events of another
/// instance of the JavaScript go. Gives the memory that holds their numbers while `dispatch` runs, and the instance's number.
fn listen(call: &Call) -> Reply {
    call.context.mailbox.listen(call.env, call.raw(0))
}

/// `postLast(listener: number, subject: number)`: posts an event, which comes after all that were posted before it.
fn post_last(call: &Call) -> Reply {
    let (listener, subject) = (call.u32(0)?, call.f64(1)?);
    let event = mailbox::Event { listener, subject, value: 0.0, payload: mailbox::Payload::None };
    call.context.mailbox.post(event);
    call.undefined()
}

/// `listener(instance: number): number`: the number of another listener.
fn listener(call: &Call) -> Reply {
    call.integer(call.context.mailbox.listener(call.u32(0)?))
}

/// `keepAlive(instance: number, yes: boolean)`: whether Node waits for events.
fn keep_alive(call: &Call) -> Reply {
    call.context.mailbox.keep_alive(call.env, call.u32(0)?, call.bool(1)?);
    call.undefined()
}
