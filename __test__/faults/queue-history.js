'use strict';
// The checker of the fault test of queues: what was published and run by processes that have written it down, each in a
// history of its own.

/**
 * How much shorter than a lease an outage may be after which it has lapsed, in milliseconds: a third of the lease may have
 * passed since the last renewal, and a connection is lost and made anew some time after its ways are cut and open.
 */
const SLACK = 1200;

/**
 * What one process has written. `stops`: when it stood still; `cuts`: when its connection did not work, both
 * `{ at, until }`; `killed`: when it was.
 */
function readHistory({ name, text, stops = [], cuts = [], killed = Infinity }) {
  const history = { name, stops, cuts, killed, pid: undefined, published: new Map(), runs: [], lapses: [], wrong: [], complete: false };
  const running = new Map();
  const end = (how) => (time, publisher, n, retried) => {
    const key = `${publisher} ${n} ${retried}`;
    const run = running.get(key)?.shift();
    if (run) Object.assign(run, { how, end: time });
    else history.wrong.push(`the end of a run that did not begin: ${key}`);
  };
  const take = {
    process: (_, pid) => { history.pid = pid; },
    publishing: (time, n) => history.published.set(n, { n, called: time, ok: false }),
    published: (_, n) => { history.published.get(n).ok = true; },
    rejected: () => {},
    run(time, publisher, n, retried) {
      const run = { node: history, publisher, n, retried, begin: time, how: 'unfinished', end: Infinity };
      const key = `${publisher} ${n} ${retried}`;
      running.set(key, [...(running.get(key) ?? []), run]);
      history.runs.push(run);
    },
    done: end('done'),
    failed: end('failed'),
    log(time, level, message) {
      const lapse = /^node (\d+)-\S* of .* has not renewed its lease/.exec(message);
      if (lapse) history.lapses.push({ at: time, pid: Number(lapse[1]) });
      if (/stood still|began anew|begins anew|cannot be read|maxRun|maxStall|ended their nodes/.test(message)) history.wrong.push(message);
    },
    wrong: (_, ...what) => history.wrong.push(what.join(' ')),
    complete: () => { history.complete = true; },
  };
  const lines = text.split('\n');
  // A process that was killed may have been so in the middle of its last line.
  lines.pop();
  for (const line of lines) {
    const [event, time, ...values] = JSON.parse(line);
    take[event](time, ...values);
  }
  return history;
}

const overlap = ({ at, until }, from, to) => Math.max(0, Math.min(until, to) - Math.max(at, from));

/** The time within a span that intervals cover, those that overlap once. */
function covered(intervals, from, to) {
  let [sum, reached] = [0, from];
  for (const interval of [...intervals].sort((a, b) => a.at - b.at)) {
    sum += overlap(interval, reached, to);
    reached = Math.max(reached, interval.until);
  }
  return sum;
}

/** How long after a stop what was fetched before it begins at the latest, in milliseconds. */
const RESUMED = 1000;

/**
 * What was fetched, and was another's before it could begin, begins all the same: a lapse of the one that is late, which
 * stood still, or whose event loop did while its connection was away.
 */
function isLate({ node, begin }, run, { lease, lapses }, least) {
  const stood = node.stops.some(({ at, until }) => at < run.begin && until - at >= least && Math.abs(begin - until - RESUMED / 2) < RESUMED / 2 + 50);
  const from = begin - 3 * lease;
  const told = lapses.some(({ pid, at }) => pid === node.pid && at >= from && at <= begin);
  return stood || (told && covered([...node.stops, ...node.cuts], from, begin) >= least);
}

/** Why a message ran again after `run`, by the time `next`; nothing when there was no reason to. */
function reasonOf(run, next, context) {
  const { lease, outages, lapses } = context;
  const { node } = run;
  if (run.how === 'failed' && next.retried === run.retried + 1 && next.begin >= run.end) return 'failure';
  if (node.killed < next.begin) return 'crash';
  // Since its lease can have been renewed last.
  const from = run.begin - lease;
  const least = lease * 2 / 3 - SLACK;
  const spans = { stop: node.stops, 'connection away': node.cuts, 'server away': outages };
  const wasAway = covered(Object.values(spans).flat(), from, next.begin) >= least;
  const [reason] = Object.entries(spans).map(([name, all]) => [name, covered(all, from, next.begin)]).sort(([, a], [, b]) => b - a)[0];
  if (wasAway && lapses.some(({ pid, at }) => pid === node.pid && at >= run.begin)) return `lapse: ${reason}`;
  if (isLate(next, run, context, least)) return 'lapse before it began';
  // Who took it over may have died, or not have heard that it did.
  return wasAway ? `lapse that nobody told of: ${reason}` : undefined;
}

/**
 * All that contradicts what a queue promises, in the histories of all processes, and why messages ran again. `lease` in
 * milliseconds; `outages`: when the server was away.
 */
function check(histories, { lease, outages = [] }) {
  const problems = histories.flatMap(({ name, wrong }) => wrong.map((what) => ({ node: name, wrong: what })));
  const runs = new Map();
  for (const run of histories.flatMap((history) => history.runs)) {
    const key = `${run.publisher} ${run.n}`;
    if (!runs.has(key)) runs.set(key, []);
    runs.get(key).push(run);
  }
  const known = new Map(histories.map(({ name, published }) => [name, published]));
  const context = { lease, outages, lapses: histories.flatMap(({ lapses }) => lapses) };
  const reasons = {};
  for (const [key, all] of runs) {
    all.sort((a, b) => a.begin - b.begin);
    if (!known.get(all[0].publisher)?.has(all[0].n)) problems.push({ neverPublished: key });
    for (let i = 1; i < all.length; i++) {
      const reason = reasonOf(all[i - 1], all[i], context);
      if (reason) reasons[reason] = (reasons[reason] ?? 0) + 1;
      else problems.push({ twice: key, runs: all.map(({ node: { name }, begin, end, how, retried }) => ({ node: name, begin, end, how, retried })) });
    }
  }
  for (const { name, published } of histories) {
    for (const { n, ok, called } of published.values()) {
      if (ok && !runs.get(`${name} ${n}`)?.some(({ how }) => how === 'done')) problems.push({ lost: `${name} ${n}`, called, runs: runs.get(`${name} ${n}`)?.length ?? 0 });
    }
  }
  return { problems, reasons };
}

module.exports = { check, readHistory };
