//! The rules of `LockAdapter`, over every adapter.

use crate::server::RedisServer;
use mortise::lock::{FOREVER, Key, LocalLocks, LockAdapter, RedisLocks};
use std::{
    cell::Cell,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, sleep, timeout},
};

const LONG: Duration = Duration::from_secs(3600);
const NONE: Duration = Duration::ZERO;

/// How a rule's milliseconds are meant: on a server they are ten real ones, and only what is too soon is
/// wrong, for a busy machine may be late.
#[derive(Clone, Copy, PartialEq)]
enum Time {
    Paused,
    Real,
}

thread_local! {
    static TIME: Cell<Time> = const { Cell::new(Time::Paused) };
}

fn is_real() -> bool {
    TIME.get() == Time::Real
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(if is_real() { milliseconds * 10 } else { milliseconds })
}

/// As long as something may take that is done at once, or in that time.
fn soon(milliseconds: u64) -> Duration {
    if is_real() { Duration::from_secs(30) } else { ms(milliseconds) }
}

fn assert_took(begun: Instant, expected: Range<Duration>) {
    let took = begun.elapsed();
    assert!(took >= expected.start, "{took:?} is too soon for {expected:?}");
    assert!(is_real() || took <= expected.end, "{took:?} is too late for {expected:?}");
}

fn key() -> Key {
    Key::from("a key")
}

type Locks = Arc<dyn LockAdapter>;

/// An adapter is one line here, and no new tests.
macro_rules! for_every_lock_adapter {
    ($($rule:ident),* $(,)?) => {
        mod local {
            use super::*;
            $(
                #[tokio::test(start_paused = true)]
                async fn $rule() {
                    super::$rule(LocalLocks::new(&Handle::current())).await;
                }
            )*
        }

        mod redis {
            use super::*;
            $(
                #[tokio::test]
                async fn $rule() {
                    TIME.set(Time::Real);
                    let server = RedisServer::start();
                    let (config, grace) = (server.config(), Duration::from_millis(20));
                    let locks = RedisLocks::separate(config, "app", "test", grace, &Handle::current());
                    locks.connect().await.expect("connected");
                    super::$rule(locks).await;
                }
            )*
        }
    };
}

for_every_lock_adapter!(
    a_free_key_is_granted_at_once,
    a_held_key_is_granted_when_its_lease_is_released,
    those_who_wait_get_the_key_in_the_order_they_asked,
    a_lease_lapses_when_its_time_is_over_and_the_next_is_let_in,
    a_lease_for_ever_does_not_lapse,
    releasing_a_lease_twice_frees_nobody_elses_lock,
    releasing_a_lease_that_has_lapsed_frees_nobody_elses_lock,
    trying_without_a_wait_fails_at_once_when_the_key_is_held,
    trying_with_a_wait_fails_when_it_is_over_and_the_place_is_given_up,
    trying_gets_the_key_when_it_comes_free_within_the_wait,
    extending_makes_a_lease_end_its_new_time_from_now,
    a_lease_that_has_ended_cannot_be_extended,
    fencing_tokens_grow_with_each_grant,
    different_keys_do_not_wait_for_each_other,
    a_holder_waits_like_anyone_else,
    a_wait_that_is_dropped_leaves_the_line,
    the_keys_that_are_held_are_told_with_how_many_wait,
    connect_and_close_may_be_called_twice_and_in_any_order,
);

async fn is_free(locks: &Locks) -> bool {
    match locks.try_acquire(&key(), NONE, LONG).await {
        Ok(lease) => locks.release(lease).await.is_ok(),
        Err(error) => {
            assert_eq!(error.code(), "E_LOCK_LOCKED");
            false
        }
    }
}

async fn a_free_key_is_granted_at_once(locks: Arc<dyn LockAdapter>) {
    let begun = Instant::now();
    locks.acquire(&key(), LONG).await.expect("granted");
    assert_took(begun, NONE..NONE);
}

async fn a_held_key_is_granted_when_its_lease_is_released(locks: Locks) {
    let lease = locks.acquire(&key(), LONG).await.expect("granted");
    let waiting = tokio::spawn({
        let locks = Arc::clone(&locks);
        async move { locks.acquire(&key(), LONG).await }
    });
    sleep(ms(100)).await;
    assert!(!waiting.is_finished());
    locks.release(lease).await.expect("released");
    timeout(soon(10), waiting).await.expect("at once").expect("ran").expect("granted");
}

async fn those_who_wait_get_the_key_in_the_order_they_asked(locks: Locks) {
    let first = locks.acquire(&key(), LONG).await.expect("granted");
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for n in 0..100 {
        let (locks, order) = (Arc::clone(&locks), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let lease = locks.acquire(&key(), LONG).await.expect("granted");
            order.lock().expect("not poisoned").push(n);
            locks.release(lease).await.expect("released");
        }));
        tokio::task::yield_now().await;
    }
    locks.release(first).await.expect("released");
    for task in tasks {
        task.await.expect("ran");
    }
    assert_eq!(*order.lock().expect("not poisoned"), (0..100).collect::<Vec<_>>());
}

async fn a_lease_lapses_when_its_time_is_over_and_the_next_is_let_in(locks: Locks) {
    let begun = Instant::now();
    locks.acquire(&key(), ms(500)).await.expect("granted");
    locks.acquire(&key(), LONG).await.expect("granted");
    assert_took(begun, ms(500)..ms(510));
}

async fn a_lease_for_ever_does_not_lapse(locks: Locks) {
    locks.acquire(&key(), FOREVER).await.expect("granted");
    sleep(if is_real() { ms(100) } else { Duration::from_secs(400 * 86_400) }).await;
    assert!(!is_free(&locks).await);
}

async fn releasing_a_lease_twice_frees_nobody_elses_lock(locks: Locks) {
    let first = locks.acquire(&key(), LONG).await.expect("granted");
    locks.release(first).await.expect("released");
    locks.acquire(&key(), LONG).await.expect("granted");
    locks.release(first).await.expect("no error");
    assert!(!is_free(&locks).await);
}

async fn releasing_a_lease_that_has_lapsed_frees_nobody_elses_lock(locks: Locks) {
    let first = locks.acquire(&key(), ms(10)).await.expect("granted");
    locks.acquire(&key(), LONG).await.expect("granted");
    locks.release(first).await.expect("no error");
    assert!(!is_free(&locks).await);
}

async fn trying_without_a_wait_fails_at_once_when_the_key_is_held(locks: Locks) {
    locks.acquire(&key(), LONG).await.expect("granted");
    let begun = Instant::now();
    let error = locks.try_acquire(&key(), NONE, LONG).await.expect_err("held");
    assert_eq!(error.code(), "E_LOCK_LOCKED");
    assert_took(begun, NONE..NONE);
}

async fn trying_with_a_wait_fails_when_it_is_over_and_the_place_is_given_up(locks: Locks) {
    let lease = locks.acquire(&key(), LONG).await.expect("granted");
    let begun = Instant::now();
    let error = locks.try_acquire(&key(), ms(50), LONG).await.expect_err("held");
    assert_eq!(error.code(), "E_LOCK_TIMEOUT");
    assert_took(begun, ms(50)..ms(60));
    locks.release(lease).await.expect("released");
    assert!(is_free(&locks).await);
}

async fn trying_gets_the_key_when_it_comes_free_within_the_wait(locks: Locks) {
    locks.acquire(&key(), ms(50)).await.expect("granted");
    locks.try_acquire(&key(), soon(100), LONG).await.expect("granted");
}

async fn extending_makes_a_lease_end_its_new_time_from_now(locks: Locks) {
    let lease = locks.acquire(&key(), ms(50)).await.expect("granted");
    locks.extend(lease, ms(200)).await.expect("extended");
    sleep(ms(100)).await;
    assert!(!is_free(&locks).await);
    locks.extend(lease, ms(10)).await.expect("extended");
    sleep(ms(20)).await;
    assert!(is_free(&locks).await);
}

async fn a_lease_that_has_ended_cannot_be_extended(locks: Locks) {
    let released = locks.acquire(&key(), LONG).await.expect("granted");
    locks.release(released).await.expect("released");
    let lapsed = locks.acquire(&key(), ms(10)).await.expect("granted");
    sleep(ms(20)).await;
    for lease in [released, lapsed] {
        let error = locks.extend(lease, LONG).await.expect_err("ended");
        assert_eq!(error.code(), "E_LOCK_NOT_ACTIVE");
    }
}

async fn fencing_tokens_grow_with_each_grant(locks: Locks) {
    let mut last = 0;
    for _ in 0..10 {
        let lease = locks.acquire(&key(), LONG).await.expect("granted");
        assert!(lease.token > last);
        last = lease.token;
        locks.release(lease).await.expect("released");
    }
}

async fn different_keys_do_not_wait_for_each_other(locks: Locks) {
    for name in ["a", "b", "", "a "] {
        locks.try_acquire(&Key::from(name), NONE, LONG).await.expect("granted");
    }
    if is_real() {
        // What leaves the process is UTF-8, which has no lone surrogates.
        return;
    }
    for lone in [0xD800_u16, 0xD801, 0xDC00] {
        locks.try_acquire(&Key::from([lone].as_slice()), NONE, LONG).await.expect("granted");
    }
}

async fn a_holder_waits_like_anyone_else(locks: Locks) {
    locks.acquire(&key(), LONG).await.expect("granted");
    assert!(timeout(ms(100), locks.acquire(&key(), LONG)).await.is_err());
}

async fn a_wait_that_is_dropped_leaves_the_line(locks: Locks) {
    let lease = locks.acquire(&key(), LONG).await.expect("granted");
    assert!(timeout(ms(10), locks.acquire(&key(), LONG)).await.is_err());
    locks.release(lease).await.expect("released");
    assert!(is_free(&locks).await);
}

async fn the_keys_that_are_held_are_told_with_how_many_wait(locks: Locks) {
    let (a, b) = (Key::from("a*"), Key::from("b"));
    let first = locks.acquire(&a, LONG).await.expect("granted");
    let second = locks.acquire(&b, FOREVER).await.expect("granted");
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let (locks, a) = (Arc::clone(&locks), a.clone());
            tokio::spawn(async move { locks.acquire(&a, LONG).await })
        })
        .collect();
    sleep(ms(50)).await;
    let holders = locks.holders().await.expect("told");
    let found: Vec<_> = holders.iter().map(|it| (it.key.as_str(), it.waiters, it.token)).collect();
    assert_eq!(found, [("a*", 3, first.token), ("b", 0, second.token)]);
    assert!(holders[0].left <= LONG && holders[0].left > LONG / 2, "{holders:?}");
    assert!(holders[1].left > LONG, "{holders:?}");
    let unix =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let since = Duration::from_millis(holders[0].since);
    let age = unix.checked_sub(since).expect("in the past");
    assert!(age < Duration::from_secs(60), "{holders:?}");
    locks.release(second).await.expect("released");
    assert_eq!(locks.holders().await.expect("told").len(), 1);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
}

async fn connect_and_close_may_be_called_twice_and_in_any_order(locks: Locks) {
    locks.close().await.expect("closed");
    locks.connect().await.expect("connected");
    locks.connect().await.expect("connected");
    assert!(is_free(&locks).await);
    locks.close().await.expect("closed");
    locks.close().await.expect("closed");
}
