'use strict';
// What may be the reason of a second run, by how a broker notices that a node is gone. Each of these is made for one check, and
// is asked for every run but the first of a message, with those before it, in the order of their begins; it
// says the reason, or nothing when there is none.

/** In the fault test, in milliseconds; on RabbitMQ it is the measure of how long handlers and faults last, and no more. */
const LEASE = 3000;

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

const isRetry = (run, next) => run.how === 'failed' && next.retried === run.retried + 1 && next.begin >= run.end;

/**
 * How much shorter than a lease an outage may be after which it has lapsed, in milliseconds: a third of the lease may have
 * passed since the last renewal, and a connection is lost and made anew some time after its ways are cut and open.
 */
const SLACK = 1200;
/** How long after a stop what was fetched before it begins at the latest, in milliseconds. */
const RESUMED = 1000;

/** A node that does not renew its lease has lost its messages. `lease` in milliseconds. */
function leases({ lease, outages, histories }) {
  const lapses = histories.flatMap((history) => history.lapses);
  const least = lease * 2 / 3 - SLACK;

  /**
   * What was fetched, and was another's before it could begin, begins all the same: a lapse of the one that is late, which
   * stood still, or whose event loop did while its connection was away.
   */
  function isLate({ node, begin }, run) {
    const stood = node.stops.some(({ at, until }) => at < run.begin && until - at >= least && Math.abs(begin - until - RESUMED / 2) < RESUMED / 2 + 50);
    const from = begin - 3 * lease;
    const told = lapses.some(({ pid, at }) => pid === node.pid && at >= from && at <= begin);
    return stood || (told && covered([...node.stops, ...node.cuts], from, begin) >= least);
  }

  return (earlier, next) => {
    const run = earlier.at(-1);
    const { node } = run;
    if (isRetry(run, next)) return 'failure';
    if (node.killed.at < next.begin) return 'crash';
    // Since its lease can have been renewed last.
    const from = run.begin - lease;
    const spans = { stop: node.stops, 'connection away': node.cuts, 'server away': outages };
    const wasAway = covered(Object.values(spans).flat(), from, next.begin) >= least;
    const [reason] = Object.entries(spans).map(([name, all]) => [name, covered(all, from, next.begin)]).sort(([, a], [, b]) => b - a)[0];
    if (wasAway && lapses.some(({ pid, at }) => pid === node.pid && at >= run.begin)) return `lapse: ${reason}`;
    if (isLate(next, run)) return 'lapse before it began';
    // Who took it over may have died, or not have heard that it did.
    return wasAway ? `lapse that nobody told of: ${reason}` : undefined;
  };
}

/** How long a delivery takes to begin, and an acknowledgement to go out, at most, while nothing stands still, in milliseconds. */
const PROMPT = 1000;
/** How long after its connection is lost and its ways are open a node has said so at the latest. */
const TOLD = 10_000;

/**
 * A node whose connection is lost has lost its messages, and says so in its log unless it dies. Either side ends a connection
 * of which it hears nothing for two heartbeats; `heartbeat` in milliseconds.
 */
function connections({ heartbeat, outages, histories }) {
  const least = heartbeat * 3 / 2;
  const publishers = new Map(histories.map(({ name, published }) => [name, published]));
  const copies = new Map();
  for (const node of histories) {
    for (const { at, id } of node.copies) copies.set(id, [...(copies.get(id) ?? []), { node, at }]);
  }
  const lasting = (spans) => spans.filter(({ at, until }) => until - at >= least);
  const restarts = outages.filter(({ restart }) => restart);
  /** Earlier runs, and copies, that are the reason of a later one, which each can be once a way. */
  const [retried, repeated] = [new Set(), new Set()];

  /** When a node stood still, or its event loop did, around a moment; the moment, when it did not. */
  function stood({ stops, blocks }, moment) {
    const span = { at: moment, until: moment };
    for (const { at, until } of [...stops, ...blocks].sort((a, b) => b.at - a.at)) {
      if (at < moment + PROMPT && until > span.at - PROMPT) Object.assign(span, { at: Math.min(span.at, at), until: Math.max(span.until, until) });
    }
    return span;
  }

  /** Why a node has lost its connection within a span. */
  function lossOf(node, from, to) {
    if (node.killed.until >= from && node.killed.at <= to) return { reason: 'crash', at: node.killed.at };
    const spans = { cut: node.cuts, stop: lasting(node.stops), 'server away': [...restarts, ...lasting(outages)] };
    for (const [reason, all] of Object.entries(spans)) {
      const loss = all.find(({ at, until }) => at <= to && until >= from && told(node, at, until));
      if (loss) return { reason, at: loss.at };
    }
    return undefined;
  }

  const told = (node, at, until) => node.killed.at <= until + TOLD || node.aways.some((away) => away >= at && away <= until + TOLD);

  /** Why the delivery of a run was lost before it was acknowledged, by the time of another. */
  function repeatReason(run, next) {
    if (run.retried !== next.retried || repeated.has(run)) return undefined;
    // A node knows what it has done and what it does, and its messages again when they come back.
    if (run.node === next.node && run.how !== 'failed') return undefined;
    const from = stood(run.node, run.begin).at - PROMPT;
    const acknowledged = run.end === Infinity ? Infinity : stood(run.node, run.end).until + PROMPT;
    return lossOf(run.node, from, Math.min(next.begin, acknowledged))?.reason;
  }

  /** What had come was another's before its handler could be called, since its node stood still. */
  function isLate(next, earlier) {
    const { at, until } = stood(next.node, next.begin);
    if (until - at < PROMPT) return false;
    const loss = lossOf(next.node, at - PROMPT, next.begin);
    return loss !== undefined && earlier.some((run) => run.retried === next.retried && run.begin >= loss.at);
  }

  /** A node knows what it has done and what it does: what is there twice does not run again on it. */
  const isKnown = (next, earlier) => earlier.some((run) => run.node === next.node && run.retried === next.retried && run.how !== 'failed');

  /** What was kept back is moved by the broker, which may do so again when it ends meanwhile. */
  function isMovedTwice(next, earlier) {
    const { called, delay } = publishers.get(next.publisher)?.get(next.n) ?? {};
    const failure = earlier.find((run) => isRetry(run, next));
    if (!failure && !(delay > 0)) return false;
    return restarts.some(({ at, until }) => at <= next.begin && until >= (failure?.end ?? called));
  }

  /**
   * What goes back after it was back before is published as a copy, and is there twice when the connection is lost before that
   * is heard to be stored, and acknowledged.
   */
  function isPutBackTwice(next) {
    const copy = copies.get(next.id)?.find((it) => {
      if (repeated.has(it)) return false;
      const { at, until } = stood(it.node, it.at);
      const answered = Math.max(until, ...outages.filter((away) => away.at <= until + PROMPT && away.until >= at).map((away) => away.until)) + PROMPT;
      return at - PROMPT <= next.begin && lossOf(it.node, at - PROMPT, Math.min(next.begin, answered));
    });
    if (copy) repeated.add(copy);
    return copy !== undefined;
  }

  return (earlier, next) => {
    const latest = [...earlier].reverse();
    const failed = latest.find((run) => isRetry(run, next) && !retried.has(run));
    if (failed) {
      retried.add(failed);
      return 'failure';
    }
    for (const run of latest) {
      const reason = repeatReason(run, next);
      if (reason) {
        repeated.add(run);
        return reason;
      }
    }
    if (isLate(next, earlier)) return 'lost before it began';
    // Another of the same attempt is there.
    if (isKnown(next, earlier) || !earlier.some((run) => run.retried === next.retried)) return undefined;
    if (isPutBackTwice(next)) return 'put back twice';
    return isMovedTwice(next, earlier) ? 'moved twice' : undefined;
  };
}

/** What the checker is given for each broker. */
const RULES = {
  redis: { reasons: leases, lease: LEASE },
  rabbitmq: { reasons: connections, heartbeat: 1000 },
};

module.exports = { LEASE, RULES };
