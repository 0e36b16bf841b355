//! The way from any thread back to JavaScript: events gather in a queue, and a wake of the event
//! loop delivers them, numbers in shared memory and payloads in one array. Measured: 152 ns an
//! event at 256 to a wake, 446 ns at one.
//!
//! What a program does with an event runs before the next call of the dispatcher, and may take
//! long: twenty requests that waited for a reply each would hold up all else for as long as the
//! twenty take. So a turn delivers as many as its time allows, judging by how long those before
//! have taken, and what is left waits for the next turn, behind the timers and the I/O that are due.

use super::{
    call::{Reply, check, error_to_js, string, string_of_bytes},
    shared::SharedCells,
    turns::Turns,
};
use crate::error::Error;
use napi::sys;
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    ffi::c_void,
    ptr,
    sync::Arc,
    time::{Duration, Instant},
};

/// Events delivered by one call of the dispatcher at most.
const BATCH: usize = 256;
/// How long one turn of the event loop goes on delivering.
const TURN: Duration = Duration::from_micros(500);
/// What an event is taken to take, until it is known.
const EACH: Duration = TURN.checked_div(8).unwrap();
/// Numbers an event has: its listener, its subject, its value.
const NUMBERS: usize = 3;

/// Something that JavaScript is to be told.
pub struct Event {
    /// Who listens, a number that `lib/native.ts` gave out.
    pub listener: u32,
    /// What it is about: a sequence number, a slot.
    pub subject: f64,
    /// A number that goes with it.
    pub value: f64,
    /// What does not fit into numbers.
    pub payload: Payload,
}

/// The part of an event that is not a number.
pub enum Payload {
    None,
    Text(String),
    Error(Error),
    /// Any other value.
    Data(Data),
}

/// A JavaScript value.
pub enum Data {
    Null,
    Number(f64),
    /// A string, in UTF-8 as far as it is valid.
    Bytes(Vec<u8>),
    List(Vec<Data>),
    Error(Error),
}

impl Data {
    pub fn to_js(&self, env: sys::napi_env) -> Reply {
        let mut value = ptr::null_mut();
        match self {
            Self::Null => check(unsafe { sys::napi_get_null(env, &raw mut value) })?,
            Self::Number(number) => {
                check(unsafe { sys::napi_create_double(env, *number, &raw mut value) })?;
            }
            Self::Bytes(bytes) => return string_of_bytes(env, bytes),
            Self::Error(error) => return error_to_js(env, error),
            Self::List(items) => {
                check(unsafe {
                    sys::napi_create_array_with_length(env, items.len(), &raw mut value)
                })?;
                for (index, item) in (0..).zip(items) {
                    let item = item.to_js(env)?;
                    check(unsafe { sys::napi_set_element(env, value, index, item) })?;
                }
            }
        }
        Ok(value)
    }
}

/// One environment's queue of events. Posting to one whose environment has ended does nothing.
pub struct Mailbox {
    state: Mutex<State>,
    numbers: SharedCells,
    turns: Turns,
}

struct State {
    queue: VecDeque<Event>,
    /// A wake is on its way, which will deliver what is queued.
    woken: bool,
    /// Calls [`deliver`] as soon as may be: in the turn that it is called in, if it is called in one.
    wake: sys::napi_threadsafe_function,
    /// Calls [`deliver_later`] in the next turn.
    next_turn: sys::napi_threadsafe_function,
    turn: Turn,
    listening: Listening,
    closed: bool,
}

/// Who listens: the library's JavaScript may be loaded more than once, as when a test runner forgets its modules.
#[derive(Default)]
struct Listening {
    instances: Vec<Instance>,
    /// The instance of each listener, by its number.
    owners: Vec<u32>,
    /// Instances for which Node stays alive.
    alive: usize,
}

struct Instance {
    /// The dispatcher, and with it the instance: what is subscribed and held there goes on, whoever still knows of it.
    dispatch: sys::napi_ref,
    alive: bool,
}

impl Listening {
    /// Events by who gets them, in their order.
    fn parts(&self, events: VecDeque<Event>) -> Vec<(sys::napi_ref, VecDeque<Event>)> {
        if let [only] = self.instances.as_slice() {
            return vec![(only.dispatch, events)];
        }
        let mut parts: Vec<(sys::napi_ref, VecDeque<Event>)> = Vec::new();
        for event in events {
            let owner = self.owners.get(event.listener as usize);
            let Some(it) = owner.and_then(|&owner| self.instances.get(owner as usize)) else {
                continue;
            };
            match parts.last_mut().filter(|(dispatch, _)| *dispatch == it.dispatch) {
                Some((_, part)) => part.push_back(event),
                None => parts.push((it.dispatch, VecDeque::from([event]))),
            }
        }
        parts
    }
}

/// What one turn of the event loop has delivered.
struct Turn {
    number: u64,
    begun: Instant,
    delivered: u32,
    /// How long an event takes with what the program does then, as far as it is known.
    each: Duration,
}

impl Turn {
    fn new(number: u64, each: Duration) -> Self {
        Self { number, begun: Instant::now(), delivered: 0, each }
    }

    /// How many more events it may deliver by one call. The first call of a turn delivers one at least.
    fn room(&mut self) -> usize {
        let taken = self.begun.elapsed();
        let Some(each) = taken.checked_div(self.delivered) else {
            return self.fitting(TURN).max(1);
        };
        // Long ones are told from short ones only afterwards: they are expected for a while, but not for long because
        // the process has stood still once.
        self.each = each.max((self.each * 7 + each) / 8).min(TURN * 4);
        self.fitting(TURN.saturating_sub(taken))
    }

    fn fitting(&self, left: Duration) -> usize {
        let count = left.as_nanos() / self.each.as_nanos().max(1);
        usize::try_from(count).unwrap_or(BATCH).min(BATCH)
    }
}

// The raw pointers are only used under the lock, and the reference only on JavaScript's thread.
unsafe impl Send for State {}
// The event loop is only looked at on JavaScript's thread.
unsafe impl Send for Mailbox {}
unsafe impl Sync for Mailbox {}

impl Mailbox {
    /// A mailbox for `env`, which does not keep Node alive.
    pub fn new(env: sys::napi_env) -> napi::Result<Arc<Self>> {
        let turns = Turns::of(env);
        let turn = Turn::new(turns.count(), EACH);
        let mailbox = Arc::new(Self {
            state: Mutex::new(State {
                queue: VecDeque::new(),
                woken: false,
                wake: ptr::null_mut(),
                next_turn: ptr::null_mut(),
                turn,
                listening: Listening::default(),
                closed: false,
            }),
            numbers: SharedCells::new(BATCH * NUMBERS),
            turns,
        });
        // In this order: libuv looks at what was called in the order in which it was made, so that a call of the
        // first while the second runs waits for the next turn.
        let next_turn = mailbox.function(env, deliver_later)?;
        let wake = mailbox.function(env, deliver)?;
        let mut state = mailbox.state.lock();
        (state.next_turn, state.wake) = (next_turn, wake);
        drop(state);
        Ok(mailbox)
    }

    /// Makes a function that any thread may call, and that does not keep Node alive.
    fn function(
        self: &Arc<Self>,
        env: sys::napi_env,
        call: unsafe extern "C" fn(sys::napi_env, sys::napi_value, *mut c_void, *mut c_void),
    ) -> napi::Result<sys::napi_threadsafe_function> {
        // It owns one count of the mailbox and gives it back when it ends.
        let owner = Arc::into_raw(Arc::clone(self)).cast_mut().cast::<c_void>();
        let mut function = ptr::null_mut();
        let status = unsafe {
            let mut name = ptr::null_mut();
            sys::napi_create_string_utf8(env, c"mortise".as_ptr(), 7, &raw mut name);
            sys::napi_create_threadsafe_function(
                env,
                ptr::null_mut(),
                ptr::null_mut(),
                name,
                0,
                1,
                owner,
                Some(give_back),
                owner,
                Some(call),
                &raw mut function,
            )
        };
        if status != sys::Status::napi_ok {
            return Err(napi::Error::from_reason("cannot make the mailbox"));
        }
        unsafe { sys::napi_unref_threadsafe_function(env, function) };
        Ok(function)
    }

    /// Adds an instance with its dispatcher. Gives the memory of the numbers, and the number of the instance.
    pub fn listen(&self, env: sys::napi_env, dispatch: sys::napi_value) -> Reply {
        let mut reference = ptr::null_mut();
        check(unsafe { sys::napi_create_reference(env, dispatch, 1, &raw mut reference) })?;
        let mut both = ptr::null_mut();
        check(unsafe { sys::napi_create_array_with_length(env, 2, &raw mut both) })?;
        let number = {
            let mut state = self.state.lock();
            let instances = &mut state.listening.instances;
            instances.push(Instance { dispatch: reference, alive: false });
            u32::try_from(instances.len() - 1).unwrap_or(u32::MAX)
        };
        let parts = [self.numbers.to_js(env)?, integer(env, number)?];
        for (index, part) in (0..).zip(parts) {
            check(unsafe { sys::napi_set_element(env, both, index, part) })?;
        }
        Ok(both)
    }

    /// The number of another listener of an instance.
    pub fn listener(&self, instance: u32) -> u32 {
        let mut state = self.state.lock();
        let owners = &mut state.listening.owners;
        owners.push(instance);
        u32::try_from(owners.len() - 1).unwrap_or(u32::MAX)
    }

    /// Whether Node stays alive for events to come of an instance. Only on JavaScript's thread.
    pub fn keep_alive(&self, env: sys::napi_env, instance: u32, yes: bool) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        let Listening { instances, alive, .. } = &mut state.listening;
        let Some(it) = instances.get_mut(instance as usize).filter(|it| it.alive != yes) else {
            return;
        };
        it.alive = yes;
        if yes {
            *alive += 1;
            unsafe { sys::napi_ref_threadsafe_function(env, state.wake) };
        } else {
            *alive -= 1;
            if *alive == 0 {
                unsafe { sys::napi_unref_threadsafe_function(env, state.wake) };
            }
        }
    }

    /// Queues an event, from any thread.
    pub fn post(&self, event: Event) {
        self.post_all([event]);
    }

    /// Queues events that are to arrive together, in their order.
    pub fn post_all(&self, events: impl IntoIterator<Item = Event>) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.queue.extend(events);
        if state.woken || state.queue.is_empty() {
            return;
        }
        state.woken = true;
        // Under the lock, so that the environment cannot end in between.
        call(state.wake);
    }

    /// The environment ends: nothing is delivered any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.queue = VecDeque::new();
    }

    /// Delivers what this turn has room for, and calls for what is left. What the program does with the events
    /// runs when this has returned, and before the next call.
    fn drain(&self, env: sys::napi_env, new_turn: bool) {
        let parts = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            let number = self.turns.count();
            if new_turn || state.turn.number != number {
                state.turn = Turn::new(number, state.turn.each);
            }
            let room = state.turn.room();
            if state.queue.is_empty() {
                state.woken = false;
                return;
            }
            if room == 0 {
                call(state.next_turn);
                return;
            }
            let count = room.min(state.queue.len());
            state.turn.delivered += u32::try_from(count).unwrap_or(u32::MAX);
            let events = if count == state.queue.len() {
                std::mem::take(&mut state.queue)
            } else {
                state.queue.drain(..count).collect()
            };
            state.listening.parts(events)
        };
        for (dispatch, events) in parts {
            // What fails is lost with its environment, which is ending.
            let _ = self.dispatch(env, dispatch, events);
        }
        // Also when nothing is left: how long these have taken is known then. Measured, a call costs nothing that shows
        // beside a reply of Redis, one by one or 100 in flight (0.94 to 1.03 of the time without it).
        let state = self.state.lock();
        if !state.closed {
            call(state.wake);
        }
    }

    fn dispatch(
        &self,
        env: sys::napi_env,
        dispatch: sys::napi_ref,
        batch: VecDeque<Event>,
    ) -> crate::Result<()> {
        let mut scope = ptr::null_mut();
        check(unsafe { sys::napi_open_handle_scope(env, &raw mut scope) })?;
        let done = self.dispatch_in_scope(env, dispatch, batch);
        unsafe { sys::napi_close_handle_scope(env, scope) };
        done
    }

    fn dispatch_in_scope(
        &self,
        env: sys::napi_env,
        dispatch: sys::napi_ref,
        batch: VecDeque<Event>,
    ) -> crate::Result<()> {
        let (mut count, mut payloads): (u32, sys::napi_value) = (0, ptr::null_mut());
        for event in batch {
            let at = count as usize * NUMBERS;
            self.numbers.set_f64(at, f64::from(event.listener));
            self.numbers.set_f64(at + 1, event.subject);
            self.numbers.set_f64(at + 2, event.value);
            let payload = match &event.payload {
                Payload::None => None,
                Payload::Text(text) => Some(string(env, text)?),
                Payload::Error(error) => Some(error_to_js(env, error)?),
                Payload::Data(data) => Some(data.to_js(env)?),
            };
            if let Some(payload) = payload {
                if payloads.is_null() {
                    check(unsafe { sys::napi_create_array(env, &raw mut payloads) })?;
                }
                check(unsafe { sys::napi_set_element(env, payloads, count, payload) })?;
            }
            count += 1;
        }
        let (mut function, mut this) = (ptr::null_mut(), ptr::null_mut());
        check(unsafe { sys::napi_get_reference_value(env, dispatch, &raw mut function) })?;
        check(unsafe { sys::napi_get_undefined(env, &raw mut this) })?;
        let arguments = [integer(env, count)?, if payloads.is_null() { this } else { payloads }];
        let status = unsafe {
            sys::napi_call_function(env, this, function, 2, arguments.as_ptr(), ptr::null_mut())
        };
        // The dispatcher catches what listeners throw; this is for the unthinkable.
        if status == sys::Status::napi_pending_exception {
            let mut error = ptr::null_mut();
            unsafe {
                sys::napi_get_and_clear_last_exception(env, &raw mut error);
                sys::napi_fatal_exception(env, error);
            }
        }
        Ok(())
    }
}

unsafe extern "C" fn deliver(
    env: sys::napi_env,
    _callback: sys::napi_value,
    context: *mut c_void,
    _data: *mut c_void,
) {
    // Without an environment the function is being torn down.
    if !env.is_null() {
        unsafe { &*context.cast::<Mailbox>() }.drain(env, false);
    }
}

unsafe extern "C" fn deliver_later(
    env: sys::napi_env,
    _callback: sys::napi_value,
    context: *mut c_void,
    _data: *mut c_void,
) {
    if !env.is_null() {
        unsafe { &*context.cast::<Mailbox>() }.drain(env, true);
    }
}

fn integer(env: sys::napi_env, number: u32) -> Reply {
    let mut value = ptr::null_mut();
    check(unsafe { sys::napi_create_uint32(env, number, &raw mut value) })?;
    Ok(value)
}

/// Calls a function of a mailbox that is open, whose lock is held.
fn call(function: sys::napi_threadsafe_function) {
    let mode = sys::ThreadsafeFunctionCallMode::nonblocking;
    unsafe { sys::napi_call_threadsafe_function(function, ptr::null_mut(), mode) };
}

unsafe extern "C" fn give_back(_env: sys::napi_env, owner: *mut c_void, _hint: *mut c_void) {
    let mailbox = unsafe { Arc::from_raw(owner.cast::<Mailbox>()) };
    mailbox.close();
}
