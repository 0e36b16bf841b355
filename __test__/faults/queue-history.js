'use strict';
// The checker of the fault test of queues: what was published and run by processes that have written it down, each in a
// history of its own.

/**
 * What one process has written. `stops`: when it stood still; `cuts`: when its connection did not work, until it was
 * ended; `killed`: from the signal until its end was seen. All `{ at, until }`.
 */
function readHistory({ name, text, stops = [], cuts = [], killed = { at: Infinity, until: Infinity } }) {
  const history = { name, stops, cuts, killed, pid: undefined, published: new Map(), runs: [], blocks: [], lapses: [], aways: [], copies: [], wrong: [], complete: false };
  const running = new Map();
  const end = (how) => (time, publisher, n, retried) => {
    const key = `${publisher} ${n} ${retried}`;
    const run = running.get(key)?.shift();
    if (run) Object.assign(run, { how, end: time });
    else history.wrong.push(`the end of a run that did not begin: ${key}`);
  };
  const take = {
    process: (_, pid) => { history.pid = pid; },
    publishing: (time, n, delay = 0) => history.published.set(n, { n, called: time, delay, ok: false }),
    published: (_, n) => { history.published.get(n).ok = true; },
    rejected: () => {},
    run(time, publisher, n, retried, id) {
      const run = { node: history, publisher, n, retried, id, begin: time, how: 'unfinished', end: Infinity };
      const key = `${publisher} ${n} ${retried}`;
      running.set(key, [...(running.get(key) ?? []), run]);
      history.runs.push(run);
    },
    blocks: (time, length) => history.blocks.push({ at: time, until: time + length }),
    done: end('done'),
    failed: end('failed'),
    log(time, level, message) {
      const lapse = /^node (\d+)-\S* of .* has not renewed its lease/.exec(message);
      if (lapse) history.lapses.push({ at: time, pid: Number(lapse[1]) });
      const copy = /message (.+) is published anew, as a copy/.exec(message);
      if (copy) history.copies.push({ at: time, id: copy[1] });
      if (/^event queue on .* is away: /.test(message)) history.aways.push(time);
      if (/has stood still|began anew|begins anew|cannot be read|maxRun|maxStall|ended their nodes/.test(message)) history.wrong.push(message);
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

const described = ({ node: { name }, begin, end, how, retried }) => ({ node: name, begin, end, how, retried });

/** What happened to the server, and to the nodes of two runs, from before the first to the second. */
function around(first, second, outages) {
  const within = (spans) => spans.filter(({ at, until }) => until >= first.begin - 10_000 && at <= second.begin);
  const ofNode = ({ name, stops, cuts, aways, killed }) => ({ node: name, stops: within(stops), cuts: within(cuts), aways: within(aways.map((at) => ({ at, until: at }))), killed });
  return { outages: within(outages), nodes: [...new Set([first.node, second.node])].map(ofNode) };
}

/**
 * All that contradicts what a queue promises, in the histories of all processes, and why messages ran again. `reasons`: what
 * may be one, of `queue-reasons.js`; `outages`: when the server was away, `{ at, until, restart }`.
 */
function check(histories, { reasons: reasonsOf, outages = [], ...settings }) {
  const problems = histories.flatMap(({ name, wrong }) => wrong.map((what) => ({ node: name, wrong: what })));
  const runs = new Map();
  for (const run of histories.flatMap((history) => history.runs)) {
    const key = `${run.publisher} ${run.n}`;
    if (!runs.has(key)) runs.set(key, []);
    runs.get(key).push(run);
  }
  const known = new Map(histories.map(({ name, published }) => [name, published]));
  const reasonOf = reasonsOf({ ...settings, outages, histories });
  const reasons = {};
  for (const [key, all] of runs) {
    all.sort((a, b) => a.begin - b.begin);
    if (!known.get(all[0].publisher)?.has(all[0].n)) problems.push({ neverPublished: key });
    for (let i = 1; i < all.length; i++) {
      const reason = reasonOf(all.slice(0, i), all[i]);
      if (reason) reasons[reason] = (reasons[reason] ?? 0) + 1;
      else problems.push({ twice: key, published: known.get(all[0].publisher)?.get(all[0].n), runs: all.map(described), around: around(all[i - 1], all[i], outages) });
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
