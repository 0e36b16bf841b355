'use strict';
// The checker of the fault test of pub/sub: what was published and heard by processes that have written it down,
// each in a history of its own.

/** What is dropped while a read is under way is told of within a second or so; in milliseconds. */
const LATEST_GAP = 2000;

/** What one process has written: what it published, and what each of its subscriptions heard. */
function readHistory({ name, text, stops = [] }) {
  const [published, ears, wrong, order] = [new Map(), new Map(), [], []];
  const ear = (id) => {
    if (!ears.has(id)) ears.set(id, { id, got: [], gaps: [], to: Infinity, late: 0 });
    return ears.get(id);
  };
  let [at, complete, longest] = [0, false, 0];
  const settled = (n, time, ok) => {
    const message = published.get(n);
    Object.assign(message, { ok });
    const asleep = stops.reduce((sum, stop) => sum + overlap(stop, message.called, time), 0);
    longest = Math.max(longest, time - message.called - asleep);
  };
  const take = {
    publishing: (time, n, channel) => published.set(n, { n, channel, called: time, ok: false }),
    published: (time, n) => settled(n, time, true),
    rejected: (time, n) => settled(n, time, false),
    subscribed: (time, id, channel, whose) => Object.assign(ear(id), { from: time, channel, whose }),
    unsubscribed: (time, id) => { ear(id).to = Math.min(ear(id).to, time); },
    got(time, id, publisher, n) {
      if (ear(id).to < time) ear(id).late++;
      ear(id).got.push({ at: time, publisher, n });
      order.push({ id, publisher, n });
    },
    gap: (time, id) => ear(id).gaps.push(time),
    wrong: (time, ...what) => wrong.push(what.join(' ')),
    complete: () => { complete = true; },
    wait: () => {},
  };
  const lines = text.split('\n');
  // A process that was killed may have been so in the middle of its last line.
  lines.pop();
  for (const line of lines) {
    const [event, time, ...values] = JSON.parse(line);
    at = time;
    take[event](time, ...values);
  }
  return { name, published, ears: [...ears.values()], wrong, order, end: at, complete, longest, stops };
}

const overlap = ({ at, until }, from, to) => Math.max(0, Math.min(until, to) - Math.max(at, from));

/** All that contradicts what pub/sub promises, in the histories of all processes. */
function problemsOf(histories) {
  const problems = [];
  const publishers = new Map(histories.map(({ name, published }) => [name, published]));
  for (const history of histories) {
    problems.push(...history.wrong.map((wrong) => ({ node: history.name, wrong })));
    problems.push(...disorder(history, publishers));
    for (const ear of history.ears.filter(({ from }) => from !== undefined)) problems.push(...lost(history, ear, publishers));
  }
  return problems;
}

/** What came twice, or after what was published later; what nobody published there; what came after the end. */
function disorder({ name, ears, order }, publishers) {
  const problems = [];
  const newest = new Map();
  const byId = new Map(ears.map((ear) => [ear.id, ear]));
  for (const { id, publisher, n } of order) {
    const { whose, channel } = byId.get(id);
    if (channel === undefined) continue;
    const message = publishers.get(publisher)?.get(n);
    if (message?.channel !== channel) problems.push({ node: name, neverPublishedOn: channel, publisher, n });
    const key = `${whose} ${publisher}`;
    const before = newest.get(key) ?? 0;
    if (n === before) problems.push({ node: name, twice: channel, publisher, n });
    else if (n < before) problems.push({ node: name, outOfOrder: channel, publisher, n, before });
    else newest.set(key, n);
  }
  for (const { channel, late } of ears) if (late > 0) problems.push({ node: name, heardAfterTheEnd: channel, late });
  return problems;
}

/** What was acknowledged, and neither heard nor told of as a gap by a subscription that was there in time. */
function lost({ name, ears, end, complete, stops }, ear, publishers) {
  const problems = [];
  const gap = Math.max(0, ...ear.gaps);
  // A subscription that has ended heard all up to the last that its manager heard, but for what a gap would have told of.
  const ended = Math.min(ear.to, end);
  const asleep = stops.reduce((sum, stop) => sum + overlap(stop, ended - LATEST_GAP, ended), 0);
  const sure = complete && ear.to === Infinity ? Infinity : ended - LATEST_GAP - asleep;
  const reached = new Map();
  for (const other of ears.filter(({ whose }) => whose === ear.whose)) {
    for (const { at, publisher, n } of other.got) if (at <= sure && n > (reached.get(publisher) ?? 0)) reached.set(publisher, n);
  }
  const heard = new Map();
  for (const { publisher, n } of ear.got) {
    if (!heard.has(publisher)) heard.set(publisher, new Set());
    heard.get(publisher).add(n);
  }
  for (const [publisher, published] of publishers) {
    const upTo = sure === Infinity ? Infinity : reached.get(publisher) ?? 0;
    for (const { n, channel, called, ok } of published.values()) {
      const due = ok && channel === ear.channel && called >= ear.from && n <= upTo;
      if (due && !(gap > called) && !heard.get(publisher)?.has(n)) problems.push({ node: name, ear: ear.id, lost: channel, publisher, n, called, from: ear.from, to: ear.to, gaps: ear.gaps });
    }
  }
  return problems;
}

module.exports = { problemsOf, readHistory };
