//! The table against plain queues, and what plain queues do not show.

use super::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// What an owner was told, in order.
#[derive(Default)]
struct Ears(Mutex<Vec<(Lease, News)>>);

impl Owner for Ears {
    fn tell(&self, lease: Lease, news: News) {
        self.0.lock().push((lease, news));
    }
}

/// Numbers that come again, so that a failure can be repeated (xorshift64*, Vigna 2016).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % end
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        let index = self.below(list.len().max(1) as u64);
        list.get(usize::try_from(index).unwrap_or(0)).copied()
    }
}

fn asking(owner: u32, wait: u64, ttl: u64) -> Request {
    Request { owner, wait: MS(wait), ttl: MS(ttl), watched: true }
}

fn empty() -> Table {
    Table::new(5, DefaultHashBuilder::default())
}

fn join(table: &mut Table, owner: u32) -> Arc<Ears> {
    let ears = Arc::<Ears>::default();
    table.join(owner, Arc::clone(&ears) as Arc<dyn Owner>);
    ears
}

fn ask(table: &mut Table, key: &[u16], request: &Request, now: u64) -> Outcome {
    let hash = table.hasher.hash_one(key);
    table.request(key, hash, request, now)
}

fn granted(outcome: Outcome) -> Lease {
    let Outcome::Granted(lease) = outcome else { panic!("not granted: {outcome:?}") };
    lease
}

#[derive(Clone, Copy)]
struct Place {
    owner: u32,
    lease: Lease,
    ttl: u64,
    deadline: u64,
}

/// Lines as plain queues, the first of which holds, beside the table.
struct Model {
    table: Table,
    owners: Vec<u32>,
    lines: BTreeMap<u64, VecDeque<Place>>,
    numbers: Numbers,
    now: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut table = empty();
        let owners = vec![1, 2, 3];
        for owner in &owners {
            join(&mut table, *owner);
        }
        Self { table, owners, lines: BTreeMap::new(), numbers: Numbers(seed), now: 0 }
    }

    fn places(&self) -> Vec<Place> {
        self.lines.values().flatten().copied().collect()
    }

    fn holds(&self, lease: Lease) -> bool {
        self.lines.values().any(|line| line.front().is_some_and(|place| place.lease == lease))
    }

    fn remove(&mut self, lease: Lease) {
        for line in self.lines.values_mut() {
            let held = line.front().is_some_and(|place| place.lease == lease);
            line.retain(|place| place.lease != lease);
            if let (true, Some(next)) = (held, line.front_mut()) {
                next.deadline = self.now.saturating_add(next.ttl);
            }
        }
        self.lines.retain(|_, line| !line.is_empty());
    }

    /// Time goes on by a millisecond. A wait that ends together with the lease before it may be
    /// let in or given up; the table was asked, and the model follows.
    fn tick(&mut self) {
        self.now += 1;
        self.table.ring(self.now);
        for place in self.places() {
            let Place { lease, deadline, .. } = place;
            if deadline <= self.now && self.table.slots.find(lease.slot, lease.token).is_none() {
                self.remove(lease);
            }
        }
    }

    fn request(&mut self) {
        let (key, wait) = (self.numbers.below(4), self.numbers.below(3) * self.numbers.below(60));
        let (owner, ttl) =
            (self.numbers.one_of(&self.owners).unwrap_or(0), 1 + self.numbers.below(80));
        let units = [u16::try_from(key).unwrap_or(0)];
        let outcome = ask(&mut self.table, &units, &asking(owner, wait, ttl), self.now);
        let held = self.lines.contains_key(&key);
        let (lease, time) = match outcome {
            Outcome::Granted(lease) if !held => (lease, ttl),
            Outcome::Waiting(lease) if held && wait > 0 => (lease, wait),
            Outcome::Refused if held && wait == 0 => return,
            wrong => panic!("{wrong:?}, held: {held}, wait: {wait}"),
        };
        let place = Place { owner, lease, ttl, deadline: self.now + time };
        self.lines.entry(key).or_default().push_back(place);
    }

    fn release(&mut self) {
        let places = self.places();
        let Some(Place { lease, .. }) = self.numbers.one_of(&places) else { return };
        assert_ne!(self.table.release(lease, self.now), Released::Nothing);
        assert_eq!(self.table.release(lease, self.now), Released::Nothing);
        self.remove(lease);
    }

    fn extend(&mut self) {
        let places = self.places();
        let Some(Place { lease, .. }) = self.numbers.one_of(&places) else { return };
        assert_eq!(self.table.extend(lease, MS(50), self.now), self.holds(lease));
        for first in self.lines.values_mut().filter_map(VecDeque::front_mut) {
            if first.lease == lease {
                first.deadline = self.now + 50;
            }
        }
    }

    fn leave(&mut self) {
        let index = usize::try_from(self.numbers.below(3)).unwrap_or(0);
        let newcomer = self.owners.iter().max().map_or(1, |last| last + 1);
        let owner = std::mem::replace(&mut self.owners[index], newcomer);
        join(&mut self.table, self.owners[index]);
        self.table.leave(owner, self.now);
        let own = self.places().into_iter().filter(|place| place.owner == owner);
        let (held, waits): (Vec<_>, Vec<_>) = own.partition(|place| self.holds(place.lease));
        for place in waits.into_iter().chain(held) {
            self.remove(place.lease);
        }
    }

    fn check(&mut self) {
        assert_eq!(self.table.keys(), self.lines.len());
        assert_eq!(self.table.slots.iter().count(), self.places().len());
        for line in self.lines.values() {
            assert!(line.iter().map(|place| place.lease.token).is_sorted(), "out of order");
            for (index, place) in line.iter().enumerate() {
                assert_eq!(self.table.is_held(place.lease, self.now), index == 0);
                assert_eq!(self.table.slots[place.lease.slot].deadline, place.deadline);
            }
        }
    }
}

#[test]
fn the_table_does_what_plain_queues_do() {
    for seed in 1..40 {
        let mut model = Model::new(seed);
        for _ in 0..1500 {
            model.tick();
            match model.numbers.below(400) {
                0..200 => model.request(),
                200..320 => model.release(),
                320..396 => model.extend(),
                _ => model.leave(),
            }
            model.check();
        }
        for place in model.places() {
            model.table.release(place.lease, model.now);
        }
        assert_eq!((model.table.keys(), model.table.next_tick()), (0, None));
        assert_eq!(model.table.slots.iter().count(), 0);
    }
}

#[test]
fn keys_that_nobody_holds_take_no_memory_even_while_one_is_held() {
    let mut table = empty();
    join(&mut table, 1);
    let key = |n: u32| format!("key {n}").encode_utf16().collect::<Vec<_>>();
    let mut leases: Vec<_> =
        (0..300_000).map(|n| granted(ask(&mut table, &key(n), &asking(1, 0, 60_000), 0))).collect();
    assert_eq!(table.keys(), 300_000);
    assert!(table.capacity_bytes() > 20_000_000);
    for lease in leases.drain(1..) {
        table.release(lease, 1);
    }
    assert_eq!(table.keys(), 1);
    assert!(table.capacity_bytes() < 200_000, "{}", table.capacity_bytes());
    assert!(table.extend(leases[0], MS(5), 1), "the one that is held was lost");
    table.ring(10);
    assert_eq!((table.keys(), table.next_tick()), (0, None), "its timer was lost");
}

#[test]
fn an_owner_that_leaves_lets_the_others_in() {
    let mut table = empty();
    join(&mut table, 1);
    let ears = join(&mut table, 2);
    ask(&mut table, &[1], &asking(1, 1000, 1000), 0);
    ask(&mut table, &[1], &asking(1, 1000, 1000), 0);
    let last = ask(&mut table, &[1], &asking(2, 1000, 1000), 0);
    let Outcome::Waiting(lease) = last else { panic!("granted twice") };
    table.leave(1, 1);
    assert_eq!(*ears.0.lock(), [(lease, News::Granted)]);
}

#[test]
fn a_wait_that_ends_together_with_the_lease_before_it_is_let_in_for_its_whole_time() {
    let mut table = empty();
    let ears = join(&mut table, 1);
    let first = granted(ask(&mut table, &[1], &asking(1, 0, 10), 0));
    let Outcome::Waiting(next) = ask(&mut table, &[1], &asking(1, 10, 50), 0) else {
        panic!("granted twice")
    };
    table.ring(10);
    assert_eq!(*ears.0.lock(), [(first, News::Lapsed), (next, News::Granted)]);
    assert!(table.is_held(next, 59) && !table.is_held(next, 60));
}

#[test]
fn a_lease_that_is_over_counts_as_lapsed_before_its_timer_is_heard() {
    let mut table = empty();
    let ears = join(&mut table, 1);
    let old = granted(ask(&mut table, &[1], &asking(1, 0, 10), 0));
    assert!(!table.extend(old, MS(10), 10));
    let new = granted(ask(&mut table, &[1], &asking(1, 0, 10), 10));
    assert_eq!(table.release(old, 11), Released::Nothing);
    assert!(table.is_held(new, 11) && new.token > old.token);
    assert_eq!(*ears.0.lock(), [(old, News::Lapsed)]);
}
