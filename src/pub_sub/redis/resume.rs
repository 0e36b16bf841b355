//! The look at a log before it is read: is it the log of before, and is all of it there that was not
//! read yet? A connection that stands proves neither: a process may have been stopped for longer than
//! the log lasts, and the server may have been emptied.

use super::{
    id::Id,
    keys::{Keys, unique_name},
};
use crate::redis::{Command, Script};
use redis::Value;
use std::sync::LazyLock;

/// KEYS: the log, the epoch's key. ARGV: a new epoch; the epoch that the reader knows, or ''; the
/// position up to which it has read, or ''; the newest entry of which it knows that it was there, or '';
/// '1' for the details in any case.
///
/// Makes a new epoch, by which all readers hear of it, when the log has none, is gone, or has lost that
/// newest entry. Gives the epoch, the last id, the first entry's id or '', how many entries were ever
/// added (-1 where the server does not count them) and are there, and whether that at the position is.
pub static RESUME: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local function there(id)
  return id ~= '' and #redis.call('XRANGE', KEYS[1], id, id) > 0
end
local function before(a, b)
  local am, ac = string.match(a, '^(%d+)-(%d+)$')
  local bm, bc = string.match(b, '^(%d+)-(%d+)$')
  am, ac, bm, bc = tonumber(am), tonumber(ac), tonumber(bm), tonumber(bc)
  return am < bm or (am == bm and ac < bc)
end
local epoch = redis.call('GET', KEYS[2])
local present = there(ARGV[3])
local last, first, added, length, exists = '0-0', '', 0, 0, redis.call('EXISTS', KEYS[1]) == 1
if exists then
  added = -1
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    local name, value = info[i], info[i + 1]
    if name == 'last-generated-id' then last = value
    elseif name == 'length' then length = value
    elseif name == 'entries-added' then added = value
    elseif name == 'first-entry' and value then first = value[1] end
  end
end
if epoch and epoch == ARGV[2] then
  local newest = ARGV[4]
  if newest ~= '' and (before(last, newest) or (first ~= '' and before(first, newest) and not there(newest))) then
    epoch = false
  elseif not exists and ARGV[3] ~= '' and ARGV[3] ~= '0-0' then
    epoch = false
  end
end
if not epoch then
  epoch = ARGV[1]
  redis.call('SET', KEYS[2], epoch)
end
return {epoch, last, first, added, length, present and 1 or 0}",
    )
});

/// What a reader knows when it asks.
#[derive(Debug, Default)]
pub struct Question {
    pub epoch: String,
    pub position: Option<Id>,
    /// Asked for after each new connection: only a server that was lost can have lost its data.
    pub newest: Option<Id>,
}

impl Question {
    /// The command, by the script's hash or in full.
    pub fn command(&self, keys: &Keys, in_full: bool) -> Command {
        let text = |id: Option<Id>| id.map_or_else(String::new, |id| id.to_string());
        let (position, newest) = (text(self.position), text(self.newest));
        let arguments = [unique_name(), self.epoch.clone(), position, newest];
        let arguments = arguments.each_ref().map(String::as_bytes);
        let keys = [keys.log.as_bytes(), keys.epoch.as_bytes()];
        let script = &*RESUME;
        script.command(in_full, &keys, &arguments)
    }
}

/// What the server says of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub epoch: String,
    pub last: Id,
    pub first: Option<Id>,
    /// How many entries were ever added, where the server counts them (Redis 7).
    pub added: Option<u64>,
    pub length: u64,
    /// Whether the entry at the reader's position is there.
    pub present: bool,
}

impl Answer {
    /// Reads a reply to the script.
    pub fn parse(reply: &Value) -> Option<Self> {
        let Value::Array(items) = reply else { return None };
        let text = |at: usize| match items.get(at) {
            Some(Value::BulkString(bytes)) => Some(bytes.as_slice()),
            _ => None,
        };
        let number = |at: usize| match items.get(at) {
            Some(Value::Int(number)) => Some(*number),
            _ => None,
        };
        Some(Self {
            epoch: String::from_utf8_lossy(text(0)?).into_owned(),
            last: Id::parse(text(1)?)?,
            first: Id::parse(text(2)?),
            added: u64::try_from(number(3)?).ok(),
            length: u64::try_from(number(4)?).ok()?,
            present: number(5)? == 1,
        })
    }
}
