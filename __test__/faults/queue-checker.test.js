'use strict';
// What the checker of the fault test of queues finds, and what it lets pass, on histories that nobody has lived.

const { check, readHistory } = require('./queue-history');
const { LEASE, RULES } = require('./queue-reasons');

describe('the checker', () => {
  const moment = (at, length = 0) => ({ at, until: at + length });
  const at = (...span) => [moment(...span)];
  const LATE = 100_000;
  const history = (name, lines, more) => readHistory({ name, ...more, text: `${lines.map((line) => JSON.stringify(line)).join('\n')}\n["torn` });
  const publisher = (...published) => history('p', published.flatMap((n) => [['publishing', n, n], ['published', n + 0.5, n]]));
  const run = (at, n, how, retried = 0, length = 10) => [['run', at, 'p', n, retried], ...(how ? [[how, at + length, 'p', n, retried]] : [])];
  const worker = (name, pid, lines, more) => history(name, [['process', 0, pid], ...lines], more);
  const one = publisher(1);
  /** What it finds by the rules of a broker: the kinds of the problems, and the reasons. */
  const by = (name) => (histories, outages = []) => {
    const { problems, reasons } = check(histories, { ...RULES[name], outages });
    return [problems.map((problem) => Object.keys(problem).find((key) => ['lost', 'twice', 'wrong', 'neverPublished'].includes(key))), Object.keys(reasons)];
  };

  test.each(Object.keys(RULES))('finds what is lost, and what runs twice without a reason, by the rules of %s', (name) => {
    const found = by(name);
    expect(found([one, worker('a', 7, run(100, 1, 'done'))])).toEqual([[], []]);
    expect(found([one])).toEqual([['lost'], []]);
    expect(found([one, worker('a', 7, run(100, 1))])).toEqual([['lost'], []]);
    expect(found([one, worker('a', 7, run(100, 1, 'failed'))])).toEqual([['lost'], []]);
    // What was not accepted may be lost.
    expect(found([history('p', [['publishing', 1, 1], ['rejected', 2, 1]])])).toEqual([[], []]);
    expect(found([worker('a', 7, run(100, 1, 'done'))])).toEqual([['neverPublished'], []]);
    expect(found([one, worker('a', 7, [...run(100, 1, 'done'), ...run(200, 1, 'done')])])).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, run(100, 1, 'done')), worker('b', 8, run(LATE, 1, 'done'))])).toEqual([['twice'], []]);
    // A retry, and one that comes without a failure or before it.
    expect(found([one, worker('a', 7, [...run(100, 1, 'failed'), ...run(200, 1, 'done', 1)])])).toEqual([[], ['failure']]);
    expect(found([one, worker('a', 7, [...run(100, 1, 'done'), ...run(200, 1, 'done', 1)])])).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, run(100, 1, 'failed', 0, 500)), worker('b', 8, run(200, 1, 'done', 1))])).toEqual([['twice'], []]);
    // A crash of the one that ran it, in time; of another.
    const second = worker('b', 8, run(LATE, 1, 'done'));
    expect(found([one, worker('a', 7, run(100, 1), { killed: moment(150) }), second])).toEqual([[], ['crash']]);
    // Its end was seen after another had begun, and what it did until then is its own.
    expect(found([one, worker('a', 7, run(100, 1), { killed: moment(90, LATE) }), second])).toEqual([[], ['crash']]);
    expect(found([one, worker('a', 7, run(100, 1), { killed: moment(LATE + 1) }), second])).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, run(100, 1)), worker('b', 8, run(LATE, 1, 'done'), { killed: moment(150) })])).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, [['wrong', 50, 'unhandled'], ...run(100, 1, 'done')])])).toEqual([['wrong'], []]);
    // Fetching stood still; a node lets go what it has lost while it stood still.
    const logged = (line) => worker('a', 7, [['log', 50, 'warn', line], ...run(100, 1, 'done')]);
    expect(found([one, logged('fetching event queue channel c stood still, and begins anew')])).toEqual([['wrong'], []]);
    expect(found([one, logged('1 messages of event queue channel c do not begin here: the event loop stood still until they were lost to others')])).toEqual([[], []]);
  });

  test('takes a lapse of the lease for a reason where there are leases', () => {
    const found = by('redis');
    const lapsed = (at) => ['log', at, 'warn', 'node 7-abc/0:3000 of event queue channel c has not renewed its lease of 3000 ms: 1 messages are run again'];
    // A lapse with a stop, a cut or an outage that was long enough for it; a lapse for nothing; one that comes later.
    const teller = worker('b', 8, [lapsed(LATE - 1), ...run(LATE, 1, 'done')]);
    const span = [{ at: 200, until: 200 + LEASE }];
    expect(found([one, worker('a', 7, run(100, 1), { stops: span }), teller])).toEqual([[], ['lapse: stop']]);
    expect(found([one, worker('a', 7, run(100, 1), { cuts: span }), teller])).toEqual([[], ['lapse: connection away']]);
    expect(found([one, worker('a', 7, run(100, 1)), teller], span)).toEqual([[], ['lapse: server away']]);
    expect(found([one, worker('a', 7, run(100, 1)), teller])).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, run(100, 1), { stops: [{ at: 200, until: 400 }] }), teller])).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, run(100, 1), { stops: [{ at: LATE + 1, until: LATE + LEASE }] }), teller])).toEqual([['twice'], []]);
    // Fetched before a stop, and run by another meanwhile; or begun before it, or long after it.
    const stops = [{ at: 50, until: LATE - 10 }];
    const first = worker('a', 7, run(90_000, 1, 'done'));
    expect(found([one, first, worker('b', 8, run(LATE, 1, 'done'), { stops })])).toEqual([[], ['lapse before it began']]);
    expect(found([one, first, worker('b', 8, run(LATE + 2000, 1, 'done'), { stops })])).toEqual([['twice'], []]);
    expect(found([one, first, worker('b', 8, run(LATE, 1, 'done'), { stops: [{ at: 90_001, until: LATE - 10 }] })])).toEqual([['twice'], []]);
    // Its connection was away, of which others told, and its event loop stood still.
    const cuts = [{ at: LATE - LEASE, until: LATE - 2000 }];
    const late = (lines, more) => [one, worker('b', 7, run(LATE, 1, 'done'), more), worker('a', 8, [...run(98_000, 1, 'done'), ...lines])];
    expect(found(late([lapsed(98_500)], { cuts }))).toEqual([[], ['lapse before it began']]);
    expect(found(late([], { cuts }))).toEqual([['twice'], []]);
    expect(found(late([lapsed(98_500)]))).toEqual([['twice'], []]);
  });

  test('takes a lost connection for a reason where there are none', () => {
    const found = by('rabbitmq');
    const away = (at) => ['log', at, 'warn', 'event queue on amqp://h is away: it was cut'];
    const second = worker('b', 8, run(LATE, 1, 'done'));
    const runner = (lines, more) => [one, worker('a', 7, lines, more), second];
    // A cut while it ran or just after, of which it told, or could not since it died; of which it did not tell; of another's.
    for (const length of [0, 4000]) expect(found(runner([...run(100, 1), away(5000)], { cuts: at(200, length) }))).toEqual([[], ['cut']]);
    expect(found(runner([...run(100, 1, 'done'), away(200)], { cuts: at(150) }))).toEqual([[], ['cut']]);
    expect(found(runner(run(100, 1, 'done'), { cuts: at(105), killed: moment(5000) }))).toEqual([[], ['cut']]);
    expect(found(runner(run(100, 1), { cuts: at(200) }))).toEqual([['twice'], []]);
    expect(found(runner([...run(100, 1), away(LATE - 1)], { cuts: at(200) }))).toEqual([['twice'], []]);
    expect(found([one, worker('a', 7, run(100, 1)), worker('b', 8, [away(250), ...run(LATE, 1, 'done')], { cuts: at(200) })])).toEqual([['twice'], []]);
    // A connection that was lost without a fault; a fault long before the run, long after its end, and after the other.
    expect(found(runner([...run(100, 1), away(200)]))).toEqual([['twice'], []]);
    expect(found(runner([away(200), ...run(5000, 1, 'done')], { cuts: at(150) }))).toEqual([['twice'], []]);
    expect(found(runner([...run(100, 1, 'done'), away(5000)], { cuts: at(5000) }))).toEqual([['twice'], []]);
    expect(found(runner([...run(100, 1), away(LATE + 20)], { cuts: at(LATE + 10) }))).toEqual([['twice'], []]);
    // A crash long after it was done.
    expect(found(runner(run(100, 1, 'done'), { killed: moment(5000) }))).toEqual([['twice'], []]);
    // A stop of two heartbeats, and one that is too short for it.
    expect(found(runner([...run(100, 1), away(4000)], { stops: at(200, 3000) }))).toEqual([[], ['stop']]);
    expect(found(runner([...run(100, 1), away(4000)], { stops: at(200, 1000) }))).toEqual([['twice'], []]);
    // A server that was started again at once, and one that stood still as briefly, or for longer.
    const outage = (length, restart) => [{ at: 200, until: 200 + length, restart }];
    expect(found(runner([...run(100, 1), away(300)]), outage(500, true))).toEqual([[], ['server away']]);
    expect(found(runner([...run(100, 1), away(300)]), outage(500, false))).toEqual([['twice'], []]);
    expect(found(runner([...run(100, 1), away(300)]), outage(3000, false))).toEqual([[], ['server away']]);
    expect(found(runner(run(100, 1)), outage(500, true))).toEqual([['twice'], []]);
    // Done while its event loop stood still for another.
    const blocks = ['blocks', 105, 3900];
    const done = [['run', 100, 'p', 1, 0], blocks, ['done', 110, 'p', 1, 0], away(4010)];
    expect(found(runner(done, { cuts: at(3000) }))).toEqual([[], ['cut']]);
    expect(found(runner(done.filter((line) => line !== blocks), { cuts: at(3000) }))).toEqual([['twice'], []]);
    // One loss is the reason of one second run.
    const third = worker('c', 9, run(LATE + 5000, 1, 'done'));
    const lost = runner([...run(100, 1), away(250)], { cuts: at(200) });
    expect(found([...lost, third])).toEqual([['twice'], ['cut']]);
    // The node itself knows its own messages again; unless one has failed, and nobody knows whether that is stored.
    const again = (how) => [one, worker('a', 7, [...run(100, 1, how), away(150), ...run(200, 1, 'done')], { cuts: at(105) })];
    expect(found(again('done'))).toEqual([['twice'], []]);
    expect(found(again('failed'))).toEqual([[], ['cut']]);
    // It went back as a copy, by one that lost its connection before that was acknowledged, or did not; once a copy.
    const copies = (count, lines, more) => {
      const runs = ['a', 'b', 'c'].slice(0, count).map((name, i) => worker(name, 7 + i, [['run', 100 + i * 1000, 'p', 1, 0, 'its id'], ['done', 110 + i * 1000, 'p', 1, 0]]));
      return [one, ...runs, worker('d', 6, lines, more)];
    };
    const copied = (id = 'its id') => ['log', 90, 'debug', `event queue channel c: message ${id} is published anew, as a copy`];
    expect(found(copies(2, [copied(), away(210)], { cuts: at(200) }))).toEqual([[], ['put back twice']]);
    expect(found(copies(2, [copied()], { killed: moment(95) }))).toEqual([[], ['put back twice']]);
    expect(found(copies(2, [copied()]))).toEqual([['twice'], []]);
    expect(found(copies(2, [copied('another'), away(210)], { cuts: at(200) }))).toEqual([['twice'], []]);
    expect(found(copies(2, [copied(), away(1210)], { cuts: at(1200) }))).toEqual([['twice'], []]);
    expect(found(copies(3, [copied(), away(210)], { cuts: at(200) }))).toEqual([['twice'], ['put back twice']]);
    expect(found(copies(2, [copied(), away(1095)], { cuts: at(1093) }))).toEqual([['twice'], []]);
    // Not on a node that has run the other, and no other attempt.
    const onOne = (...retried) => [one, worker('a', 7, retried.flatMap((n, i) => [['run', 100 + i * 1000, 'p', 1, n, 'its id'], ['done', 110 + i * 1000, 'p', 1, n]])), worker('d', 6, [copied(), away(210)], { cuts: at(200) })];
    expect(found(onOne(0, 0))).toEqual([['twice'], []]);
    expect(found(onOne(0, 1))).toEqual([['twice'], []]);
    // A failure that was stored and not acknowledged: both go on.
    const both = worker('a', 7, [...run(100, 1, 'failed'), away(150)], { cuts: at(110) });
    expect(found([one, both, worker('b', 8, [...run(300, 1, 'done', 1), ...run(400, 1, 'done')])])).toEqual([[], ['failure', 'cut']]);
    // It came before its event loop stood still, and was another's when that went on; without a loss, and without a stand.
    const late = (lines, more) => [one, worker('b', 8, run(3000, 1, 'done')), worker('a', 7, [...lines, ...run(5000, 1, 'done')], more)];
    const stuck = ['blocks', 1050, 3900];
    expect(found(late([stuck, away(5100)], { cuts: at(2000) }))).toEqual([[], ['lost before it began']]);
    expect(found(late([away(5100)], { stops: at(1050, 3900) }))).toEqual([[], ['lost before it began']]);
    expect(found(late([stuck, away(5100)]))).toEqual([['twice'], []]);
    expect(found(late([stuck, away(5100)], { cuts: at(4000) }))).toEqual([['twice'], []]);
    expect(found(late([away(2010)], { cuts: at(2000) }))).toEqual([['twice'], []]);
    // A message that is kept back, and a broker that ends before it knows that it has moved it.
    const kept = (delay) => history('p', [['publishing', 1, 1, delay], ['published', 2, 1]]);
    const moved = (delay, outages) => found([kept(delay), worker('a', 7, run(500, 1, 'done')), second], outages);
    expect(moved(100, outage(200, true))).toEqual([[], ['moved twice']]);
    expect(moved(0, outage(200, true))).toEqual([['twice'], []]);
    expect(moved(100, outage(200, false))).toEqual([['twice'], []]);
    expect(moved(100)).toEqual([['twice'], []]);
  });
});
