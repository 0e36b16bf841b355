//! A clock that JavaScript reads from memory: asking the system takes 35 ns, a quarter of a whole
//! cache hit. It is written every few milliseconds while somebody reads it, and stands still, with
//! no thread awake, while nobody does.

use super::{
    RUNTIME,
    call::{Call, Reply},
    shared::SharedCells,
};
use parking_lot::Mutex;
use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

/// How often the clock is written. Readers allow for more (`lib/cache/clock.ts`).
const TICK: Duration = Duration::from_millis(10);
/// Ticks without a reader after which the clock stops.
const IDLE_TICKS: u32 = 20;

/// Cells: the time, or 0 while the clock stands still; and whether it was read.
const TIME: usize = 0;
const READ: usize = 1;

static FACES: LazyLock<Mutex<Faces>> = LazyLock::new(Mutex::default);

#[derive(Default)]
struct Faces {
    running: bool,
    faces: Vec<Face>,
}

/// One environment's sight of the clock, which goes by that environment's `performance.now()`.
struct Face {
    cells: SharedCells,
    started: Instant,
    offset: f64,
    idle: u32,
}

/// `clockFace(): ArrayBuffer`: the memory of this environment's clock.
pub fn face(call: &Call) -> Reply {
    call.context.clock.to_js(call.env)
}

/// `clockStart(now: number)`: sets the clock to `performance.now()` and lets it run.
pub fn start(call: &Call) -> Reply {
    let now = call.f64(0)?;
    let cells = call.context.clock.clone();
    cells.set_f64(TIME, now);
    let mut faces = FACES.lock();
    faces.faces.retain(|face| !face.cells.is(&cells));
    faces.faces.push(Face { cells, started: Instant::now(), offset: now, idle: 0 });
    if !std::mem::replace(&mut faces.running, true) {
        RUNTIME.spawn(run());
    }
    call.undefined()
}

/// The cells of a new environment.
pub fn new_face() -> SharedCells {
    SharedCells::new(2)
}

async fn run() {
    loop {
        tokio::time::sleep(TICK).await;
        let mut faces = FACES.lock();
        faces.faces.retain_mut(Face::tick);
        if faces.faces.is_empty() {
            faces.running = false;
            return;
        }
    }
}

impl Face {
    /// Writes the time; false when nobody has read it for long, and the clock stands still.
    fn tick(&mut self) -> bool {
        self.idle = if self.cells.f64(READ) == 0.0 { self.idle + 1 } else { 0 };
        self.cells.set_f64(READ, 0.0);
        let runs = self.idle < IDLE_TICKS;
        let now = self.offset + self.started.elapsed().as_secs_f64() * 1000.0;
        self.cells.set_f64(TIME, if runs { now } else { 0.0 });
        runs
    }
}
