//! The rules of the queue in memory and of its journal, by name.

use mortise::event_queue::{
    RETRY_DELAY,
    backoff::{Backoff, Growth},
    journal::{Entry, Journal},
    memory::{Counts, Failure, Listener, MemoryQueue},
};
use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};
use tokio::time::sleep;

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<String>>>);

impl Listener for Told {
    fn ready(&self, channel: u32) {
        self.0.lock().expect("not poisoned").push(format!("ready {channel}"));
    }

    fn timed_out(&self, slot: u32, uses: u64) {
        self.0.lock().expect("not poisoned").push(format!("timed out {slot} {uses}"));
    }
}

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned"))
    }
}

fn queue() -> (Arc<MemoryQueue>, Told, u32) {
    let told = Told::default();
    let queue = MemoryQueue::new(told.clone(), &tokio::runtime::Handle::current());
    let channel = queue.add_channel();
    (queue, told, channel)
}

fn claim(queue: &MemoryQueue, channel: u32) -> Vec<u32> {
    let mut slots = Vec::new();
    queue.claim(channel, u32::MAX, |slot| slots.push(slot));
    slots
}

#[tokio::test(start_paused = true)]
async fn messages_begin_in_the_order_in_which_they_were_published() {
    let (queue, _, channel) = queue();
    let published: Vec<u32> = (0..100).map(|_| queue.publish(channel, 0, 0, u64::MAX)).collect();
    queue.set_concurrency(channel, 10);
    let mut begun = Vec::new();
    while begun.len() < 100 {
        let slots = claim(&queue, channel);
        assert_eq!(slots.len(), 10);
        for slot in slots {
            begun.push(slot);
            assert!(queue.succeed(slot));
        }
    }
    assert_eq!(begun, published);
}

#[tokio::test(start_paused = true)]
async fn no_more_messages_of_a_channel_run_than_its_concurrency_allows() {
    let (queue, _, channel) = queue();
    let slots: Vec<u32> = (0..5).map(|_| queue.publish(channel, 0, 0, u64::MAX)).collect();
    assert!(claim(&queue, channel).is_empty(), "not subscribed");
    queue.set_concurrency(channel, 2);
    let running = claim(&queue, channel);
    assert_eq!(running.len(), 2);
    assert!(claim(&queue, channel).is_empty());
    queue.succeed(running[0]);
    assert_eq!(claim(&queue, channel).len(), 1);
    let counts = Counts { waiting: 2, delayed: 0, running: 2, first: Some(slots[3]) };
    assert_eq!(queue.counts(channel), counts);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_is_tried_again_after_the_delay_and_then_is_dead() {
    let (queue, told, channel) = queue();
    queue.set_concurrency(channel, 1);
    let slot = queue.publish(channel, 0, 2, u64::MAX);
    for retry in 1..=2 {
        assert_eq!(claim(&queue, channel), [slot]);
        assert_eq!(
            queue.fail(slot, &Backoff::default()),
            Some(Failure::Retry { retried: retry, pause: RETRY_DELAY })
        );
        sleep(Duration::from_millis(RETRY_DELAY - 10)).await;
        assert!(claim(&queue, channel).is_empty(), "not before its time");
        sleep(Duration::from_millis(20)).await;
        assert_eq!(told.take(), [format!("ready {channel}")]);
        assert_eq!(queue.retried(slot), retry);
    }
    assert_eq!(claim(&queue, channel), [slot]);
    assert_eq!(queue.fail(slot, &Backoff::default()), Some(Failure::Dead));
    assert_eq!(queue.counts(channel), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_tried_again_stands_behind_those_that_wait() {
    let (queue, _, channel) = queue();
    queue.set_concurrency(channel, 1);
    let first = queue.publish(channel, 0, 1, u64::MAX);
    let second = queue.publish(channel, 0, 1, u64::MAX);
    assert_eq!(claim(&queue, channel), [first]);
    queue.fail(first, &Backoff::default());
    sleep(Duration::from_millis(RETRY_DELAY + 2)).await;
    assert_eq!(claim(&queue, channel), [second]);
    queue.succeed(second);
    assert_eq!(claim(&queue, channel), [first]);
}

#[tokio::test(start_paused = true)]
async fn the_pauses_of_a_message_are_those_of_its_backoff() {
    let (queue, _, channel) = queue();
    queue.set_concurrency(channel, 1);
    let slot = queue.publish(channel, 0, 3, u64::MAX);
    let backoff =
        Backoff { growth: Growth::Exponential, delay: 1000.0, max: Some(3000.0), jitter: 0.0 };
    for (retried, pause) in [(1, 1000), (2, 2000), (3, 3000)] {
        assert_eq!(claim(&queue, channel), [slot]);
        assert_eq!(queue.fail(slot, &backoff), Some(Failure::Retry { retried, pause }));
        assert_eq!(queue.counts(channel), Counts { delayed: 1, ..Counts::default() });
        sleep(Duration::from_millis(pause)).await;
        assert!(claim(&queue, channel).is_empty(), "not before its time");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(claim(&queue, channel), [slot]);
    assert_eq!(queue.fail(slot, &backoff), Some(Failure::Dead));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_kept_back_stands_at_the_end_of_the_channel_when_its_time_comes() {
    let (queue, told, channel) = queue();
    let late = queue.publish_later(channel, 0, 0, u64::MAX, 100);
    let first = queue.publish(channel, 0, 0, u64::MAX);
    queue.set_concurrency(channel, 1);
    assert_eq!(
        queue.counts(channel),
        Counts { waiting: 1, delayed: 1, running: 0, first: Some(first) }
    );
    sleep(Duration::from_millis(100)).await;
    assert!(told.take().is_empty(), "not before its time");
    sleep(Duration::from_millis(5)).await;
    assert_eq!(told.take(), [format!("ready {channel}")]);
    let second = queue.publish(channel, 0, 0, u64::MAX);
    for slot in [first, late, second] {
        assert_eq!(claim(&queue, channel), [slot]);
        queue.succeed(slot);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_back_can_be_removed_and_is_drained() {
    let (queue, told, channel) = queue();
    queue.set_concurrency(channel, 9);
    let slots: Vec<u32> =
        (0..3).map(|n| queue.publish_later(channel, 0, 0, u64::MAX, 10 * n)).collect();
    assert!(queue.remove(slots[0]));
    assert!(!queue.remove(slots[0]));
    assert_eq!(queue.counts(channel).delayed, 2);
    assert_eq!(queue.drain(channel), slots[1..]);
    sleep(Duration::from_secs(1)).await;
    assert!(told.take().is_empty());
    assert_eq!(queue.counts(channel), Counts::default());
}

#[tokio::test(start_paused = true)]
async fn removing_from_a_line_keeps_the_order_and_takes_no_memory() {
    let (queue, _, channel) = queue();
    let kept = queue.publish(channel, 0, 0, u64::MAX);
    let mut highest = 0;
    for _ in 0..10_000 {
        let slot = queue.publish(channel, 0, 0, u64::MAX);
        highest = highest.max(slot);
        assert!(queue.remove(slot));
    }
    assert!(highest < 200, "slots are used again: {highest}");
    let counts = Counts { waiting: 1, delayed: 0, running: 0, first: Some(kept) };
    assert_eq!(queue.counts(channel), counts);
    let slots: Vec<u32> = (0..1000).map(|_| queue.publish(channel, 0, 0, u64::MAX)).collect();
    slots.iter().skip(1).step_by(2).for_each(|slot| assert!(queue.remove(*slot)));
    assert_eq!(queue.counts(channel).waiting, 501);
    queue.set_concurrency(channel, 1000);
    let expected: Vec<u32> = std::iter::once(kept).chain(slots.into_iter().step_by(2)).collect();
    assert_eq!(claim(&queue, channel), expected);
}

#[tokio::test(start_paused = true)]
async fn a_message_past_its_timeout_is_told_of_once_and_still_counts() {
    let (queue, told, channel) = queue();
    queue.set_concurrency(channel, 1);
    let slot = queue.publish(channel, 0, 0, 30);
    sleep(Duration::from_millis(100)).await;
    assert!(told.take().is_empty(), "the time begins with the message");
    claim(&queue, channel);
    sleep(Duration::from_millis(31)).await;
    assert_eq!(told.take(), [format!("timed out {slot} 1")]);
    sleep(Duration::from_secs(10)).await;
    assert!(told.take().is_empty());
    assert!(queue.succeed(slot));
    assert!(!queue.succeed(slot), "only once");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_ends_in_time_is_not_told_of() {
    let (queue, told, channel) = queue();
    queue.set_concurrency(channel, 1);
    let slot = queue.publish(channel, 0, 0, 30);
    claim(&queue, channel);
    queue.succeed(slot);
    sleep(Duration::from_millis(100)).await;
    assert!(told.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_never_begins() {
    let (queue, told, channel) = queue();
    queue.set_concurrency(channel, 1);
    let slots: Vec<u32> = (0..3).map(|_| queue.publish(channel, 0, 1, u64::MAX)).collect();
    assert!(queue.remove(slots[1]));
    assert!(!queue.remove(slots[1]));
    assert_eq!(claim(&queue, channel), [slots[0]]);
    assert!(!queue.remove(slots[0]), "it runs");
    queue.fail(slots[0], &Backoff::default());
    assert!(queue.remove(slots[0]), "it is to be tried again");
    assert_eq!(claim(&queue, channel), [slots[2]]);
    sleep(Duration::from_secs(1)).await;
    assert!(told.take().is_empty());
}

#[tokio::test(start_paused = true)]
async fn draining_gives_everything_and_late_outcomes_count_for_nothing() {
    let (queue, told, channel) = queue();
    queue.set_concurrency(channel, 2);
    let slots: Vec<u32> = (0..4).map(|_| queue.publish(channel, 0, 1, 10)).collect();
    claim(&queue, channel);
    queue.fail(slots[1], &Backoff::default());
    assert_eq!(queue.drain(channel), [slots[0], slots[1], slots[2], slots[3]]);
    assert!(!queue.succeed(slots[0]));
    assert_eq!(queue.fail(slots[0], &Backoff::default()), None);
    sleep(Duration::from_secs(1)).await;
    assert!(told.take().is_empty());
    assert_eq!(queue.counts(channel), Counts::default());
    assert!(claim(&queue, channel).is_empty());
}

fn entry(seq: u64, content: &str) -> Entry {
    Entry {
        seq,
        channel: "main.c".into(),
        content: Some(content.into()),
        id: Some(format!("id {seq}")),
        options: "{}".into(),
        retried: 0,
        due: 0,
        dead: false,
        error: None,
    }
}

fn append(journal: &Journal, entry: Entry) -> mpsc::Receiver<mortise::Result<()>> {
    let (sender, receiver) = mpsc::channel();
    journal.append(entry, Box::new(move |result| drop(sender.send(result))));
    receiver
}

fn written(receiver: &mpsc::Receiver<mortise::Result<()>>) -> mortise::Result<()> {
    receiver.recv_timeout(Duration::from_secs(30)).expect("the journal answers")
}

/// The journal's messages by number, with what became of them.
fn reopened(path: &Path) -> Vec<(u64, u32, bool)> {
    let opened = Journal::open(path).expect("it opens");
    opened.entries.iter().map(|entry| (entry.seq, entry.retried, entry.dead)).collect()
}

#[test]
fn what_was_written_is_found_again_with_what_became_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep/down/queue.db");
    let opened = Journal::open(&path).expect("it opens");
    assert!(opened.entries.is_empty());
    for seq in 1..=5 {
        written(&append(&opened.journal, entry(seq, "1"))).expect("written");
    }
    opened.journal.done(2);
    opened.journal.retried(3, 7, 1234);
    opened.journal.dead(4, "why".into());
    let late = Entry { due: 5678, ..entry(6, "1") };
    written(&append(&opened.journal, late.clone())).expect("written");
    drop(opened);
    let entries = Journal::open(&path).expect("it opens").entries;
    let expected = [
        entry(1, "1"),
        Entry { retried: 7, due: 1234, ..entry(3, "1") },
        Entry { dead: true, error: Some("why".into()), ..entry(4, "1") },
        entry(5, "1"),
        late,
    ];
    assert_eq!(entries, expected);
}

#[test]
fn a_journal_belongs_to_one_at_a_time_and_is_free_when_it_is_closed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let opened = Journal::open(&path).expect("it opens");
    let error = Journal::open(&path).err().expect("it is in use");
    assert_eq!(error.code(), "E_JOURNAL_LOCKED");
    let (sender, closed) = mpsc::channel();
    opened.journal.close(Box::new(move |result| drop(sender.send(result))));
    written(&closed).expect("closed");
    assert!(Journal::open(&path).is_ok());
    let error = written(&append(&opened.journal, entry(1, "1"))).expect_err("closed");
    assert_eq!(error.code(), "E_CLOSED");
}

#[test]
fn a_file_that_is_no_journal_is_set_aside_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let garbage = "no database ".repeat(1000);
    std::fs::write(&path, &garbage).expect("written");
    let opened = Journal::open(&path).expect("it opens");
    let aside = opened.set_aside.expect("set aside");
    assert_eq!(std::fs::read_to_string(aside).expect("kept"), garbage);
    written(&append(&opened.journal, entry(1, "1"))).expect("written");
}

#[test]
fn a_journal_of_an_earlier_version_is_read_and_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let connection = rusqlite::Connection::open(&path).expect("it opens");
    connection
        .execute_batch(
            "CREATE TABLE message (seq INTEGER PRIMARY KEY, channel TEXT NOT NULL, content TEXT,
                options TEXT NOT NULL, retried INTEGER NOT NULL DEFAULT 0,
                dead INTEGER NOT NULL DEFAULT 0);
             INSERT INTO message VALUES (3, 'main.c', '1', '{}', 2, 0);",
        )
        .expect("written");
    drop(connection);
    let opened = Journal::open(&path).expect("it opens");
    assert_eq!(opened.entries, [Entry { id: None, retried: 2, ..entry(3, "1") }]);
    assert!(opened.set_aside.is_none());
    written(&append(&opened.journal, entry(4, "1"))).expect("written");
    drop(opened);
    assert_eq!(reopened(&path), [(3, 2, false), (4, 0, false)]);
}

#[test]
fn a_message_processed_before_it_was_written_is_answered_and_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let opened = Journal::open(&path).expect("it opens");
    let waits: Vec<_> = (1..=1000)
        .map(|seq| {
            let wait = append(&opened.journal, entry(seq, "1"));
            opened.journal.done(seq);
            wait
        })
        .collect();
    for wait in waits {
        written(&wait).expect("answered");
    }
    drop(opened);
    assert_eq!(reopened(&path), []);
}

#[test]
fn a_message_that_cannot_be_written_is_an_error_and_the_next_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("queue.db");
    let opened = Journal::open(&path).expect("it opens");
    written(&append(&opened.journal, entry(1, "1"))).expect("written");
    let error =
        written(&append(&opened.journal, entry(1, "the same number"))).expect_err("refused");
    assert_eq!(error.code(), "E_JOURNAL");
    opened.journal.done(1);
    written(&append(&opened.journal, entry(2, "2"))).expect("written");
    drop(opened);
    assert_eq!(reopened(&path), [(2, 0, false)]);
}
