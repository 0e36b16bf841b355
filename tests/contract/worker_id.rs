//! The rules of `WorkerIdAdapter`, over every adapter.

use crate::server::RedisServer;
use mortise::{
    Error,
    redis::{Command, Redis},
    worker_id::{
        WORKER_IDS, WorkerIdAdapter,
        redis::{Notice, RedisWorkerIds, Times},
    },
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{runtime::Handle, time::sleep};

const DEADLINE: Duration = Duration::from_secs(20);
/// Long enough not to lapse while a test runs.
const LONG: Duration = Duration::from_secs(60);

type Node = Arc<dyn WorkerIdAdapter>;

/// An app's server, and what its nodes have told.
struct Place {
    server: RedisServer,
    told: Arc<Mutex<Vec<Notice>>>,
}

impl Place {
    fn redis() -> Self {
        Self { server: RedisServer::start(), told: Arc::default() }
    }

    fn node(&self, app: &str, lease: Duration, rest: Duration) -> Node {
        let told = Arc::clone(&self.told);
        Arc::new(RedisWorkerIds::new(
            self.server.config(),
            app,
            Times { lease, rest },
            Arc::new(move |notice| told.lock().expect("not poisoned").push(notice.clone())),
            &Handle::current(),
        ))
    }

    async fn ask(&self, words: &[&str]) -> redis::Value {
        let connection = Redis::shared(self.server.config(), &Handle::current());
        connection.ask(Command::new(words)).await.expect("an answer")
    }

    /// A node that was there is no more, and can be asked whether it had to give its id up.
    fn lost(&self) -> usize {
        let told = self.told.lock().expect("not poisoned");
        told.iter().filter(|notice| matches!(notice, Notice::Lost { .. })).count()
    }
}

/// An adapter is one line here, and no new tests.
macro_rules! for_every_worker_id_adapter {
    ($($rule:ident),* $(,)?) => {
        mod redis_server {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    super::$rule(Place::redis()).await;
                }
            )*
        }
    };
}

for_every_worker_id_adapter!(
    live_nodes_have_different_ids_and_one_too_many_is_refused,
    asking_again_or_twice_at_once_gives_the_same_id,
    a_released_id_rests_before_it_is_given_again,
    the_id_of_a_node_that_is_gone_comes_back_after_its_lease_and_its_rest,
    the_id_that_has_been_free_longest_is_given,
    releasing_may_be_repeated_and_does_nothing_without_an_id,
    releasing_ends_a_wait_for_an_id,
    another_apps_nodes_take_no_ids_away,
    after_a_loss_of_the_servers_data_live_nodes_still_have_different_ids,
    what_the_server_has_forgotten_in_part_is_put_back_before_anything_new_is_given,
    an_id_that_lapsed_and_was_given_to_nobody_is_taken_back,
    a_node_whose_id_was_given_to_another_is_told_and_gets_a_new_one,
);

async fn id(node: &Node) -> u8 {
    node.get_worker_id().await.expect("an id")
}

async fn ids(nodes: &[Node]) -> Vec<u8> {
    futures_util::future::join_all(nodes.iter().map(id)).await
}

fn different(ids: &[u8]) -> bool {
    ids.iter().all(|id| *id < WORKER_IDS) && ids.iter().collect::<HashSet<_>>().len() == ids.len()
}

/// All of them, so that only what comes free can be given.
async fn all(place: &Place, app: &str, lease: Duration, rest: Duration) -> Vec<Node> {
    let nodes: Vec<Node> = (0..WORKER_IDS).map(|_| place.node(app, lease, rest)).collect();
    assert!(different(&ids(&nodes).await));
    nodes
}

/// Asks until an id is there, and gives the time it took.
async fn eventually(node: &Node) -> (u8, Duration) {
    let begun = Instant::now();
    loop {
        match node.get_worker_id().await {
            Ok(id) => return (id, begun.elapsed()),
            Err(Error::WorkerIdsExhausted { .. }) if begun.elapsed() < DEADLINE => {
                sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn live_nodes_have_different_ids_and_one_too_many_is_refused(place: Place) {
    let nodes = all(&place, "app", LONG, LONG).await;
    let error = place.node("app", LONG, LONG).get_worker_id().await.expect_err("none is left");
    assert_eq!(error.code(), "E_WORKER_IDS_EXHAUSTED");
    assert_eq!(error.to_string(), "all 32 worker ids of app app are taken: 32 held, 0 at rest");
    drop(nodes);
}

async fn asking_again_or_twice_at_once_gives_the_same_id(place: Place) {
    let node = place.node("app", LONG, LONG);
    let at_once = ids(&[Arc::clone(&node), Arc::clone(&node), Arc::clone(&node)]).await;
    assert_eq!(at_once, vec![id(&node).await; 3]);
    assert!(matches!(place.ask(&["HLEN", "mortise:{app}:workers"]).await, redis::Value::Int(3)));
}

async fn a_released_id_rests_before_it_is_given_again(place: Place) {
    let rest = Duration::from_millis(600);
    let nodes = all(&place, "app", LONG, rest).await;
    let (freed, begun) = (id(&nodes[7]).await, Instant::now());
    nodes[7].release().await.expect("released");
    let (given, _) = eventually(&place.node("app", LONG, rest)).await;
    assert_eq!(given, freed);
    assert!(begun.elapsed() >= rest, "{:?}", begun.elapsed());
}

async fn the_id_of_a_node_that_is_gone_comes_back_after_its_lease_and_its_rest(place: Place) {
    let (lease, rest) = (Duration::from_millis(500), Duration::from_millis(400));
    let mut nodes = all(&place, "app", LONG, rest).await;
    let last = nodes.pop().expect("one");
    last.release().await.expect("released");
    let gone = place.node("app", lease, rest);
    let (freed, _) = eventually(&gone).await;
    // Renewed for longer than its lease: it stays the node's.
    let newcomer = place.node("app", LONG, rest);
    let begun = Instant::now();
    while begun.elapsed() < 3 * (lease + rest) {
        newcomer.get_worker_id().await.expect_err("none is left");
        sleep(Duration::from_millis(20)).await;
    }
    drop(gone);
    let dropped = Instant::now();
    assert_eq!(eventually(&newcomer).await.0, freed);
    // Its last renewal was at most a period before.
    assert!(dropped.elapsed() >= (lease + rest).saturating_sub(lease / 5 + lease / 5));
}

async fn the_id_that_has_been_free_longest_is_given(place: Place) {
    let nodes = all(&place, "app", LONG, Duration::ZERO).await;
    let mut order = Vec::new();
    for at in [9, 3, 21] {
        order.push(id(&nodes[at]).await);
        nodes[at].release().await.expect("released");
        sleep(Duration::from_millis(5)).await;
    }
    let mut given = Vec::new();
    let others: Vec<Node> = (0..3).map(|_| place.node("app", LONG, Duration::ZERO)).collect();
    for node in &others {
        given.push(id(node).await);
    }
    assert_eq!(given, order);
}

async fn releasing_may_be_repeated_and_does_nothing_without_an_id(place: Place) {
    let node = place.node("app", LONG, LONG);
    node.release().await.expect("nothing");
    let other = place.node("app", LONG, LONG);
    let held = id(&other).await;
    let first = id(&node).await;
    for _ in 0..3 {
        node.release().await.expect("released");
    }
    assert_ne!(id(&node).await, first, "it rests");
    assert_eq!(id(&other).await, held);
}

async fn releasing_ends_a_wait_for_an_id(place: Place) {
    // The table is new, so nothing is given at once.
    let node = place.node("app", LONG, LONG);
    let waiting = tokio::spawn({
        let node = Arc::clone(&node);
        async move { node.get_worker_id().await }
    });
    while !matches!(place.ask(&["EXISTS", "mortise:{app}:workers"]).await, redis::Value::Int(1)) {}
    node.release().await.expect("released");
    let error = waiting.await.expect("ran").expect_err("given up");
    assert_eq!(error.code(), "E_CLOSED");
    id(&node).await;
}

async fn another_apps_nodes_take_no_ids_away(place: Place) {
    let first = all(&place, "one", LONG, LONG).await;
    let second = all(&place, "another", LONG, LONG).await;
    drop((first, second));
}

async fn after_a_loss_of_the_servers_data_live_nodes_still_have_different_ids(place: Place) {
    let lease = Duration::from_secs(1);
    let mut nodes: Vec<Node> = (0..20).map(|_| place.node("app", lease, lease)).collect();
    let before = ids(&nodes).await;
    for _ in 0..3 {
        place.ask(&["FLUSHALL"]).await;
        // At once, before any renewal.
        nodes.push(place.node("app", lease, lease));
        let after = ids(&nodes).await;
        assert!(different(&after), "{after:?}");
        assert_eq!(after[..20], before);
    }
    assert_eq!(place.lost(), 0);
}

async fn what_the_server_has_forgotten_in_part_is_put_back_before_anything_new_is_given(
    place: Place,
) {
    let lease = Duration::from_secs(1);
    let mut nodes = all(&place, "app", lease, lease).await;
    let last = nodes.pop().expect("one");
    last.release().await.expect("released");
    // As after a restart with an older snapshot: another server, which knows less.
    let forget: Vec<String> = (0..WORKER_IDS).map(|id| id.to_string()).collect();
    let key = "mortise:{app}:workers";
    let mut words = vec!["HDEL", key];
    words.extend(forget.iter().map(String::as_str));
    place.ask(&["HSET", key, "server", "another"]).await;
    place.ask(&words).await;
    nodes.push(place.node("app", lease, lease));
    let after = ids(&nodes).await;
    assert!(different(&after), "{after:?}");
    assert_eq!(place.lost(), 0);
}

async fn an_id_that_lapsed_and_was_given_to_nobody_is_taken_back(place: Place) {
    let node = place.node("app", Duration::from_millis(500), Duration::ZERO);
    let held = id(&node).await;
    let pid = place.server.pid().to_string();
    let signal = |name: &str| {
        let status = std::process::Command::new("kill").args([name, &pid]).status();
        assert!(status.expect("kill runs").success());
    };
    signal("-STOP");
    let told = Arc::clone(&place.told);
    let has =
        move |wanted: fn(&Notice) -> bool| told.lock().expect("not poisoned").iter().any(wanted);
    until("told that it lapsed", || has(|notice| matches!(notice, Notice::Lapsed { .. }))).await;
    signal("-CONT");
    until("told that it is renewed", || has(|notice| matches!(notice, Notice::Regained { .. })))
        .await;
    assert_eq!(id(&node).await, held);
    assert_eq!(place.lost(), 0);
}

async fn a_node_whose_id_was_given_to_another_is_told_and_gets_a_new_one(place: Place) {
    let node = place.node("app", Duration::from_millis(500), Duration::ZERO);
    let held = id(&node).await;
    place
        .ask(&[
            "HSET",
            "mortise:{app}:workers",
            &held.to_string(),
            "another|9999999999999|9999999999999",
        ])
        .await;
    until("told that it is lost", || place.lost() == 1).await;
    assert_ne!(id(&node).await, held);
    assert_eq!(place.lost(), 1);
}
