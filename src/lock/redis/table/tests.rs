//! The rules that a real server does not bring about at will: late, lost and unexpected answers.

use super::{super::scripts::Answer, *};
use crate::error::Error;
use parking_lot::Mutex;

const OWNER: u32 = 7;
const PATIENCE: u64 = 5000;
const NUMBER: u64 = 1;

/// Keeps what it is told.
#[derive(Default)]
struct Ear(Mutex<Vec<(u64, String)>>);

impl Owner for Ear {
    fn tell(&self, number: u64, news: News) {
        self.0.lock().push((number, format!("{news:?}")));
    }
}

impl Ear {
    /// What was told since, as the words of [`News`].
    fn take(&self) -> Vec<String> {
        let told = std::mem::take(&mut *self.0.lock());
        told.into_iter()
            .map(|(_, news)| news.split([' ', '(']).next().unwrap_or("").to_owned())
            .collect()
    }
}

fn table() -> (Table, Arc<Ear>) {
    let (mut table, ear) = (Table::new("redis://test".into(), PATIENCE), Arc::<Ear>::default());
    table.join(OWNER, Arc::clone(&ear) as Arc<dyn Owner>);
    assert!(table.opened(true, 0).is_empty());
    (table, ear)
}

fn request(number: u64, wait: u64, lease: u64, hold: u64) -> Request {
    Request { owner: OWNER, number, key: "key".into(), wait, lease, hold, watched: true }
}

fn is_look(op: Option<&Op>) -> bool {
    op.is_some_and(|op| matches!(op.what, What::Look { .. }))
}

fn away() -> Error {
    Error::Unavailable { server: "redis://test".into(), reason: "away".into() }
}

/// Waits in the line, asked for at 0 and answered at 10.
fn waiting(wait: u64, lease: u64) -> (Table, Arc<Ear>) {
    let (mut table, ear) = table();
    let op = table.request(&request(NUMBER, wait, lease, lease), 0, 0);
    let answer = Ok(Answer::Waiting { left: 1000 });
    assert!(table.answered(&op, answer, 0, 10).is_none());
    (table, ear)
}

/// Held from 0, answered at 10, renewed for `hold`.
fn held(lease: u64, hold: u64) -> (Table, Arc<Ear>) {
    let (mut table, ear) = table();
    let op = table.request(&request(NUMBER, NEVER, lease, hold), 0, 0);
    let answer = Ok(Answer::Held { token: 5, left: None });
    assert!(table.answered(&op, answer, 0, 10).is_none());
    assert_eq!(ear.take(), ["Granted"]);
    (table, ear)
}

#[test]
fn a_lease_is_trusted_from_when_it_was_asked_for_and_not_to_its_end() {
    let (table, _) = held(1000, 1000);
    assert!(table.is_held(NUMBER, 947));
    assert!(!table.is_held(NUMBER, 948));
    let (table, _) = held(60_000, 60_000);
    assert!(table.is_held(NUMBER, 59_838));
    assert!(!table.is_held(NUMBER, 59_839));
}

#[test]
fn a_grant_whose_answer_came_too_late_is_renewed_before_it_is_handed_out() {
    for (renewed, told) in [(true, true), (false, false)] {
        let (mut table, ear) = table();
        let op = table.request(&request(NUMBER, NEVER, 500, 500), 0, 0);
        let next = table.answered(&op, Ok(Answer::Held { token: 5, left: None }), 0, 450);
        let next = next.expect("a renewal");
        assert!(matches!(next.what, What::Renew { left: 500, token: 5, .. }));
        assert!(ear.take().is_empty());
        let again = table.answered(&next, Ok(Answer::Flag(renewed)), 450, 460);
        assert_eq!(ear.take() == ["Granted"], told);
        assert_eq!(table.is_held(NUMBER, 900), told);
        // When it is gone, it is asked for again.
        let asks = again.is_some_and(|op| matches!(op.what, What::Acquire { wait: true, .. }));
        assert_eq!(asks, !told);
    }
}

#[test]
fn a_notice_that_may_be_old_is_looked_at_and_a_fresh_one_is_believed() {
    let (mut table, ear) = waiting(NEVER, 500);
    // The newest command that was answered was sent at 0.
    assert!(is_look(table.granted(NUMBER, 9, "key", true, 450, 0).as_ref()));
    assert!(ear.take().is_empty());
    let (mut table, ear) = waiting(NEVER, 500);
    assert!(table.granted(NUMBER, 9, "key", true, 100, 0).is_none());
    assert_eq!(ear.take(), ["Granted"]);
    assert!(table.is_held(NUMBER, 400) && !table.is_held(NUMBER, 500));
    // Told twice, it is granted once.
    assert!(table.granted(NUMBER, 9, "key", true, 110, 0).is_none());
    assert!(ear.take().is_empty());
}

#[test]
fn a_notice_for_nobody_is_given_on() {
    let (mut table, _) = table();
    let op = table.granted(NUMBER, 9, "key", true, 100, 0);
    assert!(op.is_some_and(|op| matches!(op.what, What::Release { .. }) && &*op.key == "key"));
}

#[test]
fn a_long_lease_that_was_announced_is_claimed_before_the_window_is_over() {
    let (mut table, ear) = waiting(NEVER, 60_000);
    assert!(table.granted(NUMBER, 9, "key", true, 50, 0).is_none());
    assert_eq!(ear.take(), ["Granted"]);
    // A hand-off that is over at once costs nothing more.
    assert!(table.ring(50 + CLAIM_AFTER - 1).is_empty());
    let ops = table.ring(600);
    let [Op { what: What::Renew { left, .. }, .. }] = ops.as_slice() else { panic!("no claim") };
    assert_eq!(*left, 60_050 - 600);
    table.answered(&ops[0], Ok(Answer::Flag(true)), 600, 610);
    // It is not renewed beyond that, and lapses.
    assert!(table.ring(59_000).is_empty());
    assert!(table.is_held(NUMBER, 59_000));
    assert!(table.ring(60_050).is_empty());
    assert_eq!(ear.take(), ["Lapsed"]);
}

#[test]
fn renewals_go_on_until_the_hold_is_over_and_the_owner_is_told_once() {
    let (mut table, ear) = held(300, 1000);
    let mut renewals = 0;
    for now in 0..2000 {
        for op in table.ring(now) {
            assert!(matches!(op.what, What::Renew { .. }));
            table.answered(&op, Ok(Answer::Flag(true)), now, now);
            renewals += 1;
        }
    }
    assert!((8..=14).contains(&renewals), "{renewals}");
    assert_eq!(ear.take(), ["Overheld"]);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_renewal_that_is_refused_ends_the_lease_at_once() {
    let (mut table, ear) = held(300, 1000);
    let ops = table.ring(120);
    table.answered(&ops[0], Ok(Answer::Flag(false)), 120, 130);
    assert_eq!(ear.take(), ["Lost"]);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_lease_that_cannot_be_renewed_is_lost_when_it_ends_and_not_before() {
    let (mut table, ear) = held(300, 1000);
    let mut tries = 0;
    for now in 11..283 {
        for op in table.ring(now) {
            table.answered(&op, Err(away()), now, now);
            tries += 1;
        }
        assert!(ear.take().is_empty(), "told at {now}");
    }
    assert!(tries > 3, "{tries}");
    table.ring(299);
    assert_eq!(ear.take(), ["Lost"]);
}

#[test]
fn a_wait_survives_a_lost_connection_and_is_given_up_when_the_server_stays_away() {
    let (mut table, ear) = waiting(NEVER, 500);
    table.lost(false, 100);
    assert!(table.ring(200).is_empty());
    let ops = table.opened(true, 300);
    assert!(is_look(ops.first()));
    table.answered(&ops[0], Ok(Answer::Waiting { left: 500 }), 300, 310);
    assert!(ear.take().is_empty());
    table.lost(false, 400);
    assert!(table.ring(400 + PATIENCE - 1).is_empty());
    assert!(ear.take().is_empty());
    table.ring(400 + PATIENCE);
    assert_eq!(ear.take(), ["Failed"]);
    // The server is told when it is back: the place may still be there.
    let ops = table.opened(true, 6000);
    assert!(matches!(ops.as_slice(), [Op { what: What::Abandon { .. }, .. }]));
}

#[test]
fn a_question_that_was_lost_on_its_way_is_asked_again_and_one_without_a_wait_fails() {
    let (mut table, ear) = table();
    let op = table.request(&request(NUMBER, NEVER, 500, 500), 0, 0);
    assert!(table.answered(&op, Err(away()), 0, 10).is_none());
    let ops = table.ring(100);
    assert!(is_look(ops.first()));
    assert!(ear.take().is_empty());
    let op = table.request(&request(2, 0, 500, 500), 100, 0);
    // It may yet be done, and is undone behind it.
    let next = table.answered(&op, Err(away()), 100, 110);
    assert!(next.is_some_and(|op| matches!(op.what, What::Abandon { .. })));
    assert_eq!(ear.take(), ["Failed"]);
}

#[test]
fn what_the_server_refuses_fails_at_once() {
    let (mut table, ear) = table();
    let op = table.request(&request(NUMBER, NEVER, 500, 500), 0, 0);
    table.answered(&op, Err(Error::Redis("OOM".into())), 0, 10);
    assert_eq!(ear.take(), ["Failed"]);
    assert_eq!(table.len(), 0);
}

#[test]
fn a_wait_that_is_over_gives_its_place_up_and_the_next_looks_after_the_line() {
    let (mut table, ear) = waiting(100, 500);
    let op = table.request(&request(2, NEVER, 500, 500), 0, 0);
    table.answered(&op, Ok(Answer::Waiting { left: 1000 }), 0, 10);
    let ops = table.ring(100);
    assert!(matches!(ops.as_slice(), [Op { what: What::Abandon { .. }, number: NUMBER, .. }]));
    assert_eq!(ear.take(), ["TimedOut"]);
    let ops = table.ring(100 + LONGEST_LOOK);
    assert!(matches!(ops.as_slice(), [Op { what: What::Look { .. }, number: 2, .. }]));
}

#[test]
fn the_first_of_a_line_looks_now_and_then_whatever_lease_it_has_seen() {
    let (mut table, _) = table();
    let op = table.request(&request(NUMBER, NEVER, 500, 500), 0, 0);
    table.answered(&op, Ok(Answer::Waiting { left: 1 << 50 }), 0, 10);
    let mut looks = 0;
    for now in 0..10_000 {
        for op in table.ring(now) {
            table.answered(&op, Ok(Answer::Waiting { left: 1 << 50 }), now, now);
            looks += 1;
        }
    }
    assert_eq!(looks, 10_000 / LONGEST_LOOK);
}

#[test]
fn after_a_lost_connection_those_of_a_line_look_in_their_order() {
    let (mut table, _) = table();
    for number in [5, 3, 9, 1] {
        let op = table.request(&request(number, NEVER, 500, 500), 0, 0);
        table.answered(&op, Ok(Answer::Waiting { left: 1000 }), 0, 10);
    }
    table.lost(false, 20);
    let looks: Vec<u64> = table.opened(false, 30).iter().map(|op| op.number).collect();
    assert_eq!(looks, [5, 3, 9, 1]);
}

#[test]
fn a_notice_of_another_key_or_by_a_stranger_is_not_believed() {
    let (mut table, ear) = waiting(NEVER, 500);
    assert!(table.granted(NUMBER, 9, "another", true, 50, 0).is_none());
    assert!(is_look(table.granted(NUMBER, 9, "key", false, 50, 0).as_ref()));
    // The look is under way: a second copy asks for nothing more.
    assert!(table.granted(NUMBER, 9, "key", false, 60, 0).is_none());
    assert!(ear.take().is_empty());
}

#[test]
fn a_renewal_from_before_an_extension_does_not_change_its_end() {
    let (mut table, ear) = held(5000, 60_000);
    let renewals = table.ring(1700);
    let op =
        table.extend(NUMBER, 500, 500, true, 1710, Done::default()).expect("something to send");
    table.answered(&renewals[0], Ok(Answer::Flag(true)), 1700, 1720);
    table.answered(&op, Ok(Answer::Flag(true)), 1710, 1730);
    assert!(table.is_held(NUMBER, 2180));
    for now in 1740..2300 {
        assert!(table.ring(now).is_empty(), "renewed at {now}");
    }
    assert_eq!(ear.take(), ["Lapsed"]);
}

#[test]
fn what_was_done_after_all_for_one_who_gave_up_is_undone() {
    let (mut table, _) = table();
    let op = table.request(&request(NUMBER, NEVER, 500, 500), 0, 0);
    assert!(table.give_up(NUMBER, 60, 0).is_some());
    let next = table.answered(&op, Ok(Answer::Waiting { left: 5 }), 0, 70);
    assert!(next.is_some_and(|op| matches!(op.what, What::Abandon { .. })));
}

#[test]
fn a_wait_shorter_than_a_round_trip_is_over_with_the_answer() {
    let asked = |answer| {
        let (mut table, ear) = table();
        let op = table.request(&request(NUMBER, 1, 500, 500), 0, 0);
        assert!(table.ring(10).is_empty());
        assert!(ear.take().is_empty());
        let next = table.answered(&op, Ok(answer), 0, 20);
        (ear.take(), next)
    };
    let (told, next) = asked(Answer::Held { token: 5, left: None });
    assert_eq!((told, next.is_none()), (vec!["Granted".to_owned()], true));
    let (told, next) = asked(Answer::Waiting { left: 5 });
    assert_eq!(told, ["TimedOut"]);
    assert!(next.is_some_and(|op| matches!(op.what, What::Abandon { .. })));
}

#[test]
fn a_release_that_could_not_be_sent_is_sent_when_the_server_is_back() {
    let (mut table, _) = held(60_000, 60_000);
    let op = table.release(NUMBER, None, 100, 0, Done::default()).expect("something to send");
    assert!(table.answered(&op, Err(Error::Redis("BUSY script".into())), 100, 110).is_none());
    let ops = table.ring(110 + RESEND);
    // Not as one that is held for sure: it may have been done.
    assert!(matches!(ops.as_slice(), [Op { what: What::Release { trusted: 0, .. }, .. }]));
    assert!(table.answered(&ops[0], Err(away()), 100, 400).is_none());
    table.lost(false, 420);
    assert!(table.ring(5000).is_empty());
    assert!(matches!(table.opened(true, 5500).as_slice(), [Op { what: What::Release { .. }, .. }]));
    // Not when the lease is over anyway.
    let (mut table, _) = held(1000, 1000);
    let op = table.release(NUMBER, None, 100, 0, Done::default()).expect("something to send");
    table.answered(&op, Err(away()), 100, 110);
    assert!(table.opened(true, 2000).is_empty());
}

#[test]
fn all_that_is_held_is_put_back_on_a_new_connection() {
    let (mut table, _) = held(60_000, 60_000);
    table.lost(false, 100);
    let ops = table.opened(true, 200);
    let [Op { what: What::Renew { left, token: 5, .. }, .. }] = ops.as_slice() else {
        panic!("not put back")
    };
    assert!(*left <= 59_839 && *left > 59_000, "{left}");
}

#[test]
fn waits_that_come_and_go_behind_one_that_stays_take_no_memory() {
    let (mut table, _) = waiting(NEVER, 500);
    for number in 2..10_000 {
        let op = table.request(&request(number, NEVER, 500, 500), 20, 0);
        table.answered(&op, Ok(Answer::Waiting { left: 1000 }), 20, 20);
        assert!(table.give_up(number, 20, 0).is_some());
    }
    let kept: usize = table.lines.values().map(VecDeque::len).sum();
    assert!(kept <= 2 * SMALL, "{kept}");
}

#[test]
fn a_retiring_owner_is_gone_when_it_holds_nothing_more() {
    let (mut table, _) = held(1000, 1000);
    table.retire(OWNER, Box::new(|| {}));
    assert!(table.take_retired().is_empty());
    table.ring(1000);
    assert_eq!(table.take_retired().len(), 1);
}

#[test]
fn two_looks_that_find_no_place_ask_for_one_only() {
    let (mut table, _) = waiting(NEVER, 500);
    let first = table.ring(610).pop().expect("a look");
    let second = table.granted(NUMBER, 9, "key", true, 612, 0).expect("another");
    assert!(is_look(Some(&first)) && is_look(Some(&second)));
    let asked = table.answered(&first, Ok(Answer::Flag(false)), 610, 620);
    assert!(asked.is_some_and(|op| matches!(op.what, What::Acquire { .. })));
    assert!(table.answered(&second, Ok(Answer::Flag(false)), 612, 621).is_none());
}
