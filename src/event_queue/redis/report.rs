//! What the server is to be told of messages that have run.

use super::{
    entry::Tries,
    keys::{GROUP, Keys},
    scripts,
};
use crate::redis::Command;

/// Dead letters that a channel keeps; the oldest go first.
pub const MOST_DEAD: &str = "10000";

/// What became of a message.
#[derive(Debug, Clone)]
pub enum Report {
    /// It is processed.
    Done { entry: String, own_id: Option<String> },
    /// It is to be run again, after a pause in milliseconds.
    Again { entry: String, tries: Tries, pause: u64 },
    /// It is a dead letter.
    Dead { entry: String, tries: Tries, error: String },
}

impl Report {
    pub fn entry(&self) -> &str {
        match self {
            Self::Done { entry, .. } | Self::Again { entry, .. } | Self::Dead { entry, .. } => {
                entry
            }
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self, Self::Done { own_id: None, .. })
    }
}

/// Reports in the order of their commands: plain ones first, which share two commands.
#[derive(Debug, Clone)]
pub struct Reports {
    pub all: Vec<Report>,
    plain: usize,
    named: usize,
}

impl Reports {
    pub fn new(all: Vec<Report>) -> Self {
        let (mut sorted, others): (Vec<_>, Vec<_>) = all.into_iter().partition(Report::is_plain);
        let plain = sorted.len();
        let is_done = |report: &Report| matches!(report, Report::Done { .. });
        let (named, others): (Vec<_>, Vec<_>) = others.into_iter().partition(is_done);
        let named_count = named.len();
        sorted.extend(named);
        sorted.extend(others);
        Self { all: sorted, plain, named: named_count }
    }

    /// How many commands they are.
    pub fn commands_len(&self) -> usize {
        2 * usize::from(self.plain > 0) + usize::from(self.named > 0) + self.others().len()
    }

    /// Those that failed, whose commands come last, one for each.
    pub fn others(&self) -> &[Report] {
        &self.all[self.plain + self.named..]
    }

    /// Adds the commands.
    pub fn commands(
        &self,
        keys: &Keys,
        consumer: &str,
        in_full: bool,
        commands: &mut Vec<Command>,
    ) {
        let plain = &self.all[..self.plain];
        if !plain.is_empty() {
            // Deleted first: what is gone from the stream but not from the group does no harm, and the other
            // way round it would stay for ever.
            let mut delete = Command::with_capacity(2 + plain.len(), 64 + 20 * plain.len());
            delete.push(b"XDEL");
            delete.push(keys.stream.as_bytes());
            let mut acknowledge = Command::with_capacity(3 + plain.len(), 64 + 20 * plain.len());
            acknowledge.push(b"XACK");
            acknowledge.push(keys.stream.as_bytes());
            acknowledge.push(GROUP.as_bytes());
            for report in plain {
                delete.push(report.entry().as_bytes());
                acknowledge.push(report.entry().as_bytes());
            }
            commands.push(delete);
            commands.push(acknowledge);
        }
        let named = &self.all[self.plain..self.plain + self.named];
        if !named.is_empty() {
            let mut command = scripts::DONE.begin(in_full, 2, 128 + 64 * named.len());
            command.push(keys.stream.as_bytes());
            command.push(keys.ids.as_bytes());
            for report in named {
                command.push(report.entry().as_bytes());
                if let Report::Done { own_id, .. } = report {
                    command.push(own_id.as_deref().unwrap_or_default().as_bytes());
                }
            }
            commands.push(command);
        }
        for report in self.others() {
            let (entry, what, tries, pause, error) = match report {
                Report::Again { entry, tries, pause } => (entry, "again", tries, *pause, ""),
                Report::Dead { entry, tries, error } => (entry, "dead", tries, 0, error.as_str()),
                Report::Done { .. } => continue,
            };
            let all_keys = [&keys.stream, &keys.later, &keys.dead, &keys.ids, &keys.hungry];
            commands.push(scripts::FAIL.command(
                in_full,
                &all_keys.map(String::as_bytes),
                &[
                    consumer.as_bytes(),
                    entry.as_bytes(),
                    what.as_bytes(),
                    tries.count().to_string().as_bytes(),
                    pause.to_string().as_bytes(),
                    error.as_bytes(),
                    MOST_DEAD.as_bytes(),
                ],
            ));
        }
    }
}
