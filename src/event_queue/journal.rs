//! The journal: the queue's messages in an `SQLite` file, from before `publish` resolves until they
//! are processed. One thread writes; each commit takes all that is waiting (group commit), so that
//! the cost of a disk sync is shared by as many publishers as there are.
//!
//! - What was reported as written survives the end of the process, however it ends.
//! - A commit that only takes processed messages out does not wait for the disk: forgetting one
//!   after a power cut means running it again.
//! - A message that is processed before its turn to be written is never written at all.
//! - A commit that fails (a full disk) is an error of each message in it, and of nothing else:
//!   what has been processed is taken out by a later commit.

use crate::error::{Error, Result};
use rusqlite::{Connection, ErrorCode, params};
use serde::Serialize;
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::mpsc,
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Commands that one commit takes at most.
const COMMIT: usize = 10_000;

const SCHEMA: &str = "
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS message (
        seq INTEGER PRIMARY KEY,
        channel TEXT NOT NULL,
        content TEXT,
        options TEXT NOT NULL,
        retried INTEGER NOT NULL DEFAULT 0,
        dead INTEGER NOT NULL DEFAULT 0,
        id TEXT,
        due INTEGER NOT NULL DEFAULT 0,
        error TEXT
    );";

/// Columns that a journal of an earlier version may be without.
const LATER: [(&str, &str); 3] =
    [("id", "TEXT"), ("due", "INTEGER NOT NULL DEFAULT 0"), ("error", "TEXT")];

/// A message as it is kept. `content` and `options` are JSON; a content of `None` is `undefined`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its number in the order of publishing.
    pub seq: u64,
    /// Its id; `None` in a journal of an earlier version.
    pub id: Option<String>,
    /// The full name of its channel.
    pub channel: String,
    /// What was published.
    pub content: Option<String>,
    /// How it was published.
    pub options: String,
    /// How often it was tried again.
    pub retried: u32,
    /// Until when it is kept back, in milliseconds since 1970; 0: it waits.
    pub due: u64,
    /// Whether it is a dead letter.
    pub dead: bool,
    /// What the last attempt of a dead letter failed with.
    pub error: Option<String>,
}

/// Told when a message is on disk, or why it is not.
pub type Written = Box<dyn FnOnce(Result<()>) + Send>;

enum Command {
    Append(Entry, Written),
    Done(u64),
    Retried(u64, u32, u64),
    Dead(u64, String),
    Close(Written),
}

/// What was found when a journal was opened.
pub struct Opened {
    /// The journal, ready to write.
    pub journal: Journal,
    /// The messages it holds, in the order in which they were published.
    pub entries: Vec<Entry>,
    /// Where a file that could not be read was put aside.
    pub set_aside: Option<PathBuf>,
}

/// A journal that is open. Dropping it writes what is waiting, and closes it.
pub struct Journal {
    commands: Option<mpsc::Sender<Command>>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the journal at `path`, and makes it and its folder when there is none. A file that is
    /// no journal is set aside under another name.
    ///
    /// # Errors
    /// [`Error::JournalLocked`] when another process has it open, [`Error::Journal`] when it
    /// cannot be made or read.
    pub fn open(path: &Path) -> Result<Opened> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| Error::Io {
                action: "making the folder",
                path: folder.display().to_string(),
                source: error.into(),
            })?;
        }
        let mut set_aside = None;
        let read = match read(path) {
            Err(error) if is_damaged(&error) => {
                set_aside = Some(put_aside(path)?);
                read(path)
            }
            result => result,
        };
        let (connection, entries) = read.map_err(|error| failure(path, "opening", &error))?;
        let (sender, commands) = mpsc::channel();
        let path = path.to_owned();
        let writer = std::thread::Builder::new()
            .name("mortise-journal".into())
            .spawn(move || write(connection, &path, commands))
            .map_err(|error| Error::Internal(format!("no thread for the journal: {error}")))?;
        let journal = Self { commands: Some(sender), writer: Some(writer) };
        Ok(Opened { journal, entries, set_aside })
    }

    /// Writes a message; `written` is called on the journal's thread.
    pub fn append(&self, entry: Entry, written: Written) {
        self.send(Command::Append(entry, written));
    }

    /// The message was processed: it is taken out, at leisure.
    pub fn done(&self, seq: u64) {
        self.send(Command::Done(seq));
    }

    /// The message will be tried again, when it is due.
    pub fn retried(&self, seq: u64, retried: u32, due: u64) {
        self.send(Command::Retried(seq, retried, due));
    }

    /// The message is a dead letter: its last attempt failed with `error`.
    pub fn dead(&self, seq: u64, error: String) {
        self.send(Command::Dead(seq, error));
    }

    /// Writes what is waiting and closes the file; then `closed` is called.
    pub fn close(&self, closed: Written) {
        self.send(Command::Close(closed));
    }

    fn send(&self, command: Command) {
        let Some(commands) = &self.commands else { return };
        if let Err(mpsc::SendError(refused)) = commands.send(command) {
            refused.refuse();
        }
    }
}

impl Command {
    /// The journal is closed.
    fn refuse(self) {
        match self {
            Self::Append(_, written) => written(Err(Error::Closed("the journal"))),
            Self::Close(closed) => closed(Ok(())),
            _ => {}
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(writer) = self.writer.take() {
            // The thread ends by itself; a panic of it has been reported by its own messages.
            let _ = writer.join();
        }
    }
}

fn read(path: &Path) -> rusqlite::Result<(Connection, Vec<Entry>)> {
    let connection = Connection::open(path)?;
    // A journal that is in use stays so: waiting for it would only hold the event loop.
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch(SCHEMA)?;
    add_columns(&connection)?;
    let entries = connection
        .prepare(
            "SELECT seq, channel, content, options, retried, dead, id, due, error
             FROM message ORDER BY seq",
        )?
        .query_map([], |row| {
            Ok(Entry {
                seq: row.get::<_, i64>(0)?.cast_unsigned(),
                channel: row.get(1)?,
                content: row.get(2)?,
                options: row.get(3)?,
                retried: row.get(4)?,
                dead: row.get(5)?,
                id: row.get(6)?,
                due: row.get::<_, i64>(7)?.cast_unsigned(),
                error: row.get(8)?,
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok((connection, entries))
}

fn add_columns(connection: &Connection) -> rusqlite::Result<()> {
    let present = connection
        .prepare("SELECT name FROM pragma_table_info('message')")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<HashSet<String>>>()?;
    LATER.iter().filter(|(name, _)| !present.contains(*name)).try_for_each(|(name, kind)| {
        connection.execute_batch(&format!("ALTER TABLE message ADD COLUMN {name} {kind}"))
    })
}

fn write(connection: Connection, path: &Path, commands: mpsc::Receiver<Command>) {
    let mut later: Vec<Command> = Vec::new();
    let mut synchronous = true;
    while let Ok(first) = commands.recv() {
        let mut batch = Batch::default();
        later.drain(..).for_each(|command| batch.add(command));
        batch.add(first);
        while batch.size < COMMIT
            && batch.close.is_none()
            && let Ok(command) = commands.try_recv()
        {
            batch.add(command);
        }
        let appends = batch.appends();
        if appends != synchronous {
            synchronous = appends;
            let level = if appends { "FULL" } else { "NORMAL" };
            // When it fails, commits are safer or quicker than they need be, and no worse.
            let _ = connection.execute_batch(&format!("PRAGMA synchronous = {level}"));
        }
        let result = batch.commit(&connection);
        if result.is_err() {
            let _ = connection.execute_batch("ROLLBACK");
            later = std::mem::take(&mut batch.changes);
        }
        let result = result.map_err(|error| failure(path, "writing", &error));
        for (_, written) in batch.entries.drain(..) {
            written(result.clone());
        }
        for written in batch.processed.drain(..) {
            written(Ok(()));
        }
        if let Some(closed) = batch.close {
            // Without the write-ahead log beside it the file is whole by itself.
            let _ = connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
            // First, so that whoever is told can open the file again.
            drop(connection);
            // What comes now is refused where it is sent, and what has come is refused here.
            let late: Vec<Command> = commands.try_iter().collect();
            drop(commands);
            closed(result);
            late.into_iter().for_each(Command::refuse);
            return;
        }
    }
}

/// The commands of one commit.
#[derive(Default)]
struct Batch {
    size: usize,
    entries: Vec<(Entry, Written)>,
    changes: Vec<Command>,
    done: HashSet<u64>,
    /// Those who published what was processed before it was written.
    processed: Vec<Written>,
    close: Option<Written>,
}

impl Batch {
    fn add(&mut self, command: Command) {
        self.size += 1;
        match command {
            Command::Append(entry, written) => self.entries.push((entry, written)),
            Command::Close(closed) => self.close = Some(closed),
            command => {
                if let Command::Done(seq) = command {
                    self.done.insert(seq);
                }
                self.changes.push(command);
            }
        }
    }

    /// Leaves out what was processed meanwhile, and tells whether anything is to be written.
    fn appends(&mut self) -> bool {
        let entries = std::mem::take(&mut self.entries);
        for (entry, written) in entries {
            if self.done.contains(&entry.seq) {
                self.processed.push(written);
            } else {
                self.entries.push((entry, written));
            }
        }
        !self.entries.is_empty()
    }

    fn commit(&self, connection: &Connection) -> rusqlite::Result<()> {
        if self.entries.is_empty() && self.changes.is_empty() {
            return Ok(());
        }
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut insert = connection.prepare_cached(
            "INSERT INTO message (seq, id, channel, content, options, retried, due)
             VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        for (entry, _) in &self.entries {
            let Entry { seq, id, channel, content, options, retried, due, .. } = entry;
            let (seq, due) = (seq.cast_signed(), due.cast_signed());
            insert.execute(params![seq, id, channel, content, options, retried, due])?;
        }
        for change in &self.changes {
            change.apply(connection)?;
        }
        connection.execute_batch("COMMIT")
    }
}

impl Command {
    fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        let changed = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
            connection.prepare_cached(sql)?.execute(values).map(drop)
        };
        match self {
            Self::Done(seq) => changed("DELETE FROM message WHERE seq = ?", &[&seq.cast_signed()]),
            Self::Dead(seq, error) => changed(
                "UPDATE message SET dead = 1, error = ? WHERE seq = ?",
                &[error, &seq.cast_signed()],
            ),
            Self::Retried(seq, retried, due) => changed(
                "UPDATE message SET retried = ?, due = ? WHERE seq = ?",
                &[retried, &due.cast_signed(), &seq.cast_signed()],
            ),
            Self::Append(..) | Self::Close(_) => Ok(()),
        }
    }
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
    match error {
        FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..) => true,
        // An SQL error at this point means a file with other tables.
        error => matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown)
        ),
    }
}

/// Gives a file that cannot be read another name, with what belongs to it.
fn put_aside(path: &Path) -> Result<PathBuf> {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let renamed = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let target = renamed(&format!(".unreadable-{time}"));
    std::fs::rename(path, &target).map_err(|error| Error::Io {
        action: "setting aside",
        path: path.display().to_string(),
        source: error.into(),
    })?;
    for suffix in ["-wal", "-shm"] {
        // They are not always there.
        let _ = std::fs::rename(renamed(suffix), renamed(&format!(".unreadable-{time}{suffix}")));
    }
    Ok(target)
}

fn failure(path: &Path, action: &'static str, error: &rusqlite::Error) -> Error {
    let path = path.display().to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Error::JournalLocked(path),
        _ => Error::Journal { action, path, reason: error.to_string() },
    }
}
