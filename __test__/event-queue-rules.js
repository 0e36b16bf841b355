'use strict';
// The rules of an event queue as its users see them, whatever adapter it is on.

const { gate, recorder, rejection, until } = require('./support');

/** What an adapter can do unless its tests say otherwise. */
const CAPABILITIES = {
  /** The message object itself arrives, not a copy. */
  passesObjects: false,
  /** What JSON cannot hold is rejected. */
  serializes: true,
  /** A message is not queued while another with its id is in the channel. */
  dedupes: true,
  /** A message that waits or is kept back can be cancelled. */
  cancelsWaiting: true,
  /** `counts` tells how long the oldest has waited. */
  oldestAge: true,
  /** `counts` tells how many are kept back. */
  countsDelayed: true,
  /** `counts` tells how many run. */
  countsRunning: true,
  /** Dead letters are still there after close and connect. */
  keepsDeadLetters: true,
  /** A message that is tried again comes after those that waited when it was due. */
  retriesStandBehind: true,
  /** Several queues can be open on one store at once. */
  sharedStore: true,
};

let apps = 0;

/**
 * Declares the tests of one adapter. `makeQueue({ name, logger, ...options })` makes an `EventQueue` of the app `name`
 * with these options (`channelPrefix`, `closeTimeout`), not connected yet, or a promise of one. Queues of one test are
 * on one store: the next queue of an app finds what the one before has left; where the store is shared, also
 * while that is open. Each test has apps of its own.
 */
function eventQueueRules(name, makeQueue, capabilities = {}) {
  const can = { ...CAPABILITIES, ...capabilities };
  const nothing = () => undefined;
  const testIf = (condition) => (condition ? test : nothing);
  const describeIf = (condition) => (condition ? describe : nothing);
  let app;
  let logger;
  let queues;
  let gates;

  beforeEach(() => {
    app = `rules-${process.pid}-${apps++}`;
    logger = recorder();
    queues = [];
    gates = [];
  });
  afterEach(async () => {
    gates.forEach(({ resolve }) => resolve());
    await Promise.all(queues.map((queue) => queue.close()));
  });

  const make = async (options) => {
    const queue = await makeQueue({ name: app, logger, closeTimeout: 5000, ...options });
    queues.push(queue);
    return queue;
  };
  const open = async (options) => {
    const queue = await make(options);
    await queue.connect();
    return queue;
  };
  /** A gate that the end of the test opens. */
  const held = () => {
    const made = gate();
    gates.push(made);
    return made;
  };
  /** Subscribes with a handler that keeps what it gets. */
  const collect = (queue, channel, event = {}) => {
    const got = [];
    queue.subscribe(channel, { process: async (message) => { got.push(message); }, ...event });
    return got;
  };
  /** Subscribes with a handler that holds what it gets until its gate opens; `runs` are in the order of their begin. */
  const holding = (queue, channel, event = {}) => {
    const runs = [];
    const process = (message, context) => {
      const run = { message, context, ...held() };
      runs.push(run);
      return run.promise;
    };
    queue.subscribe(channel, { process, ...event });
    return runs;
  };
  /** Gives a queue that works time to show that it does something it must not do: other messages go through it. */
  const others = async (queue) => {
    const got = collect(queue, `others of ${apps++}`);
    for (let n = 0; n < 20; n++) await queue.publish(`others of ${apps - 1}`, n);
    await until(() => got.length === 20);
  };
  const logged = (level, text) => logger.lines.some((line) => line.level === level && line.message.includes(text));
  const fail = (text = 'no') => async () => { throw new Error(text); };
  const numbers = (count) => Array.from({ length: count }, (_, n) => n);

  describe(`an event queue on ${name}`, () => {
    describe('publishing', () => {
      test('rejects while it is not connected, and on channels without a subscription', async () => {
        const queue = await make();
        const got = collect(queue, 'c');
        const early = await rejection(queue.publish('c', 1));
        expect([early.message, early.code]).toEqual(['event queue not connected, cannot publish', 'E_CLOSED']);
        await queue.connect();
        const foreign = await rejection(queue.publish('x', 1));
        expect([foreign.message, foreign.code]).toEqual(['event queue not subscribed on channel "x", cannot publish', 'E_NOT_SUBSCRIBED']);
        await queue.publish('c', 2);
        await until(() => got.length === 1);
        await queue.close();
        expect((await rejection(queue.publish('c', 3))).code).toBe('E_CLOSED');
        expect(got).toEqual([2]);
      });

      test('resolves to the message\'s id, which the handler is told', async () => {
        const queue = await open();
        const ids = [];
        queue.subscribe('c', { process: async (_, { id }) => { ids.push(id); } });
        const published = [await queue.publish('c', 1), await queue.publish('c', 2), await queue.publish('c', 3, { id: 'mine: {1}' })];
        expect(new Set(published).size).toBe(3);
        expect(published.every((id) => typeof id === 'string' && id !== '')).toBe(true);
        expect(published[2]).toBe('mine: {1}');
        await until(() => ids.length === 3);
        expect(ids).toEqual(published);
      });

      test('any content arrives as it was sent', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        const contents = [undefined, null, 0, -1.5, '', false, 'text', '😀 \u0000 "\\', [], {}, [null, [1]], { a: { b: [{ c: null }] }, ü: 1 }];
        for (const content of contents) await queue.publish('c', content);
        await until(() => got.length === contents.length);
        expect(got).toEqual(contents);
      });

      test('a megabyte arrives whole', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        const text = 'ä'.repeat(2 ** 19);
        await queue.publish('c', { text });
        await until(() => got.length === 1);
        expect(got[0].text === text).toBe(true);
      });

      testIf(can.serializes)('what JSON cannot hold is rejected, naming the channel, and the next goes through', async () => {
        const queue = await open();
        const got = collect(queue, 'ch');
        const cyclic = {};
        cyclic.self = cyclic;
        for (const message of [cyclic, 1n, { deep: [1n] }]) {
          const error = await rejection(queue.publish('ch', message));
          expect(error.code).toBe('E_NOT_SERIALIZABLE');
          expect(error.message).toContain('ch');
        }
        await queue.publish('ch', 'fine');
        await until(() => got.length === 1);
        expect(got).toEqual(['fine']);
      });

      testIf(can.passesObjects)('the message object itself is passed on', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        const message = { date: new Date() };
        await queue.publish('c', message);
        await until(() => got.length === 1);
        expect(got[0]).toBe(message);
      });

      test.each([['spaces', ' a  b '], ['a colon', 'a:b::c'], ['an at', '@a@b'], ['braces', '{a}{}b}'], ['per cents', '%a%20%%'],
        ['dots and stars', 'a.*.#.>'], ['emoji', '😀📮'], ['300 characters', 'x'.repeat(299) + 'é'], ['300 emoji', '🦀'.repeat(300)]])(
        'a channel name with %s works, and is not mixed up with another', async (_, channel) => {
          const queue = await open();
          const got = collect(queue, channel);
          const gotOther = collect(queue, `${channel}!`);
          await queue.publish(channel, 1);
          await queue.publish(`${channel}!`, 2);
          await until(() => got.length === 1 && gotOther.length === 1);
          expect([got, gotOther]).toEqual([[1], [2]]);
          expect(await queue.cancel(channel, 'nobody')).toBe(false);
          expect((await queue.counts(channel)).waiting).toBe(0);
        });

      test.each([['timeout', NaN], ['timeout', -1], ['maxRetries', '1'], ['delay', -1], ['delay', Infinity], ['id', ''], ['id', 5],
        ['headers', 'x'], ['backoff', {}], ['backoff', { type: 'fixed', delay: -1 }], ['backoff', { type: 'fixed', delay: 1, jitter: 2 }]])(
        '%s of %p rejects with a TypeError', async (option, value) => {
          const queue = await open();
          collect(queue, 'c');
          const error = await rejection(queue.publish('c', 1, { [option]: value }));
          expect([error.name, error.code]).toEqual(['TypeError', 'E_INVALID_ARGUMENT']);
        });
    });

    describe('processing', () => {
      test('messages begin in the order in which they were published', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        await Promise.all(numbers(500).map((n) => queue.publish('c', n)));
        await until(() => got.length === 500);
        expect(got).toEqual(numbers(500));
      });

      test('a handler is told the id, the retries, the signal and the options', async () => {
        const queue = await open();
        const runs = holding(queue, 'c');
        const id = await queue.publish('c', 'hello', { headers: { trace: { a: [1] } }, own: 'mine' });
        await until(() => runs.length === 1);
        const [{ message, context }] = runs;
        expect([message, context.id, context.retried, context.signal.aborted]).toEqual(['hello', id, 0, false]);
        expect(context.queueOptions).toMatchObject({ headers: { trace: { a: [1] } }, own: 'mine', timeout: 15_000, maxRetries: 0 });
        expect(Math.abs(Date.now() - context.queueOptions.timestamp)).toBeLessThan(60_000);
      });

      test.each([[1, 1], [3, 3], [0, 20], [-1, 20]])('with concurrency %i as many run at once as may', async (concurrency, most) => {
        const queue = await open();
        const runs = holding(queue, 'c', { concurrency });
        await Promise.all(numbers(20).map((n) => queue.publish('c', n)));
        await until(() => runs.length === most);
        for (let i = 0; i < 20; i++) {
          await until(() => runs.length > i);
          expect(runs.length - i).toBeLessThanOrEqual(most);
          runs[i].resolve();
        }
        expect(runs.map(({ message }) => message)).toEqual(numbers(20));
      });

      test('the next begins when a slot is free and a message when it comes, without waiting for the interval', async () => {
        const queue = await open();
        const got = collect(queue, 'c', { interval: 1e9, idle: () => true });
        await Promise.all([queue.publish('c', 0), queue.publish('c', 1)]);
        await until(() => got.length === 2);
        await queue.publish('c', 2);
        await until(() => got.length === 3);
      });

      test('while idle says no nothing is fetched, and it is asked again', async () => {
        const queue = await open();
        let idle = false;
        let asked = 0;
        const got = collect(queue, 'c', { interval: 5, idle: () => { asked++; return idle; } });
        await queue.publish('c', 1);
        const before = asked;
        await until(() => asked > before + 3);
        expect(got).toEqual([]);
        idle = true;
        await until(() => got.length === 1);
      });

      test('an idle that throws counts as no, and is logged', async () => {
        const queue = await open();
        let broken = true;
        const got = collect(queue, 'c', { interval: 5, idle: () => { if (broken) throw new Error('idle broke'); return true; } });
        await queue.publish('c', 1);
        await until(() => logger.lines.some(({ details }) => details?.message === 'idle broke'));
        expect(got).toEqual([]);
        broken = false;
        await until(() => got.length === 1);
      });

      test('the second subscription of a channel is ignored with a warning', async () => {
        const queue = await open();
        const first = collect(queue, 'c');
        const second = collect(queue, 'c');
        expect(logged('warn', '"c"')).toBe(true);
        for (const n of numbers(10)) await queue.publish('c', n);
        await until(() => first.length === 10);
        expect(second).toEqual([]);
      });

      test.each([[false], [true]])('unsubscribe stops fetching, and what waits is kept for the next subscription (shared: %p)', async (shared) => {
        const queue = await open();
        const channel = `${app} c`;
        const runs = holding(queue, channel, { shared });
        await queue.publish(channel, 1);
        await queue.publish(channel, 2);
        await until(() => runs.length === 1);
        queue.unsubscribe(channel);
        queue.unsubscribe(channel);
        expect((await rejection(queue.publish(channel, 3))).code).toBe('E_NOT_SUBSCRIBED');
        runs[0].resolve();
        await others(queue);
        expect(runs.length).toBe(1);
        const got = collect(queue, channel, { shared });
        await until(() => got.length === 1);
        expect(got).toEqual([2]);
      });

      test('connecting several times leaves one consumer', async () => {
        const queue = await make();
        const runs = holding(queue, 'c');
        await Promise.all([queue.connect(), queue.connect()]);
        await queue.connect();
        await queue.publish('c', 1);
        await queue.publish('c', 2);
        await until(() => runs.length === 1);
        await others(queue);
        expect(runs.length).toBe(1);
        runs[0].resolve();
        await until(() => runs.length === 2);
        runs[1].resolve();
        await until(async () => (await queue.counts('c')).waiting === 0);
        expect(runs.map(({ message }) => message)).toEqual([1, 2]);
      });
    });

    describe('the timeout', () => {
      test('aborts the signal; the handler keeps its slot and its outcome counts', async () => {
        const queue = await open();
        const go = held();
        const events = [];
        queue.subscribe('c', {
          process: async (message, { signal }) => {
            events.push(`begin ${message}`);
            if (message !== 'slow') return;
            await new Promise((aborted) => signal.addEventListener('abort', aborted));
            events.push(signal.reason.name);
            await go.promise;
            events.push('end slow');
          },
        });
        await queue.publish('c', 'slow', { timeout: 20, maxRetries: 3 });
        await queue.publish('c', 'next');
        await until(() => events.includes('TimeoutError'));
        expect(events).toEqual(['begin slow', 'TimeoutError']);
        await until(() => logged('warn', 'timeout'));
        go.resolve();
        await until(() => events.includes('begin next'));
        expect(events).toEqual(['begin slow', 'TimeoutError', 'end slow', 'begin next']);
        expect(await queue.deadLetters('c').count()).toBe(0);
      });

      test('a handler that fails after it is tried again, with a new signal', async () => {
        const queue = await open();
        const states = [];
        queue.subscribe('c', {
          process: async (_, { signal, retried }) => {
            states.push([retried, signal.aborted]);
            if (retried > 0) return;
            await new Promise((aborted) => signal.addEventListener('abort', aborted));
            throw signal.reason;
          },
        });
        await queue.publish('c', 1, { timeout: 20, maxRetries: 1, backoff: { type: 'fixed', delay: 1 } });
        await until(() => states.length === 2);
        expect(states).toEqual([[0, false], [1, false]]);
      });

      test('a signal that is asked for after the timeout has aborted', async () => {
        const queue = await open();
        const { promise, resolve } = gate();
        queue.subscribe('c', {
          process: async (_, context) => {
            await until(() => logged('warn', 'timeout'));
            resolve(context.signal.reason?.name);
          },
        });
        await queue.publish('c', 1, { timeout: 1 });
        expect(await promise).toBe('TimeoutError');
      });

      test('enormous timeouts and retries work', async () => {
        const queue = await open();
        const signals = [];
        queue.subscribe('c', { process: async (_, { signal, retried }) => { signals.push(signal.aborted); if (retried === 0) throw new Error('once'); } });
        const backoff = { type: 'fixed', delay: 0 };
        await queue.publish('c', 1, { timeout: Number.MAX_VALUE, maxRetries: Infinity, backoff });
        await queue.publish('c', 1, { timeout: Infinity, maxRetries: 1e300, backoff });
        await until(() => signals.length === 4);
        expect(signals).toEqual([false, false, false, false]);
      });
    });

    describe('retries', () => {
      test('a failure is tried again up to maxRetries times, 500 ms later each, and is a dead letter then', async () => {
        const queue = await open();
        const attempts = [];
        queue.subscribe('c', {
          concurrency: 0,
          process: (message, { retried }) => {
            attempts.push([message, retried, Date.now()]);
            if (message === 'throws') throw new Error('at once');
            return Promise.reject(new Error('later'));
          },
        });
        await queue.publish('c', 'throws', { maxRetries: 2 });
        await queue.publish('c', 'rejects', { maxRetries: 1 });
        await until(async () => (await queue.deadLetters('c').count()) === 2);
        const of = (kind) => attempts.filter(([message]) => message === kind);
        expect(of('throws').map(([, retried]) => retried)).toEqual([0, 1, 2]);
        expect(of('rejects').map(([, retried]) => retried)).toEqual([0, 1]);
        const times = of('throws').map(([, , time]) => time);
        // A millisecond for the rounding of clocks.
        expect(times[1] - times[0]).toBeGreaterThanOrEqual(499);
        expect(times[2] - times[1]).toBeGreaterThanOrEqual(499);
        expect(logger.lines.filter(({ level }) => level === 'error')).toHaveLength(2);
      });

      test('a message that succeeds when it is tried again is no dead letter; options and headers come back each time', async () => {
        const queue = await open();
        const seen = [];
        queue.subscribe('c', {
          process: async (message, { id, retried, queueOptions }) => {
            seen.push([message, id, retried, queueOptions.headers, queueOptions.own]);
            if (retried < 2) throw new Error('not yet');
          },
        });
        const headers = { traceparent: '00-1', deep: { a: 1 } };
        const id = await queue.publish('c', { n: 1 }, { maxRetries: 3, backoff: { type: 'fixed', delay: 5 }, headers, own: 5 });
        await until(() => seen.length === 3);
        expect(seen).toEqual([0, 1, 2].map((retried) => [{ n: 1 }, id, retried, headers, 5]));
        await others(queue);
        expect(await queue.deadLetters('c').count()).toBe(0);
      });

      testIf(can.retriesStandBehind)('one that is tried again stands behind those that wait then', async () => {
        const queue = await open();
        const order = [];
        const go = held();
        queue.subscribe('c', {
          process: async (message, { retried }) => {
            order.push([message, retried]);
            if (message === 'poor' && retried === 0) throw new Error('no');
            // Long enough that the first is due while the third waits.
            if (message === 1) await go.promise;
          },
        });
        const kept = async () => (await queue.counts('c')).waiting;
        await queue.publish('c', 'poor', { maxRetries: 1, backoff: { type: 'fixed', delay: 10 } });
        await queue.publish('c', 1);
        await queue.publish('c', 2);
        await until(async () => order.length === 2 && (await kept()) === 2);
        go.resolve();
        await until(() => order.length === 4);
        expect(order).toEqual([['poor', 0], [1, 0], [2, 0], ['poor', 1]]);
      });

      test('a fixed backoff pauses as long each time', async () => {
        const queue = await open();
        const times = [];
        queue.subscribe('c', { process: async () => { times.push(Date.now()); throw new Error('no'); } });
        await queue.publish('c', 1, { maxRetries: 2, backoff: { type: 'fixed', delay: 60 } });
        await until(() => times.length === 3);
        expect(Math.min(times[1] - times[0], times[2] - times[1])).toBeGreaterThanOrEqual(59);
      });

      test('an exponential backoff doubles its pauses', async () => {
        const queue = await open();
        const times = [];
        queue.subscribe('c', { process: async () => { times.push(Date.now()); throw new Error('no'); } });
        await queue.publish('c', 1, { maxRetries: 3, backoff: { type: 'exponential', delay: 40 } });
        await until(() => times.length === 4);
        const pauses = [1, 2, 3].map((n) => times[n] - times[n - 1]);
        pauses.forEach((pause, n) => expect(pause).toBeGreaterThanOrEqual(40 * 2 ** n - 1));
      });

      test('max bounds the pauses, and jitter shortens them by its share at most', async () => {
        const queue = await open();
        const times = new Map();
        queue.subscribe('c', {
          concurrency: 0,
          process: async (message, { retried }) => { times.set(`${message} ${retried}`, Date.now()); throw new Error('no'); },
        });
        await queue.publish('c', 'max', { maxRetries: 3, backoff: { type: 'exponential', delay: 3_600_000, max: 20 } });
        await queue.publish('c', 'jitter', { maxRetries: 1, backoff: { type: 'fixed', delay: 200, jitter: 0.5 } });
        await until(() => times.has('max 3') && times.has('jitter 1'));
        expect(times.get('max 3') - times.get('max 0')).toBeGreaterThanOrEqual(57);
        expect(times.get('jitter 1') - times.get('jitter 0')).toBeGreaterThanOrEqual(99);
      });
    });

    describe('delay', () => {
      test('a message is kept back for as long, and holds nobody up', async () => {
        const queue = await open();
        const got = [];
        queue.subscribe('c', { process: async (message) => { got.push([message, Date.now()]); } });
        const published = Date.now();
        await queue.publish('c', 'late', { delay: 300 });
        await queue.publish('c', 'now');
        await until(() => got.length === 2);
        expect(got.map(([message]) => message)).toEqual(['now', 'late']);
        expect(got[1][1] - published).toBeGreaterThanOrEqual(299);
      });

      test('then it stands at the end of the channel', async () => {
        const queue = await open();
        const runs = holding(queue, 'c');
        await queue.publish('c', 'late', { delay: 1000 });
        await queue.publish('c', 1);
        await queue.publish('c', 2);
        await until(async () => runs.length === 1 && (await queue.counts('c')).waiting === 2);
        runs[0].resolve();
        await until(() => runs.length === 2);
        runs[1].resolve();
        await until(() => runs.length === 3);
        expect(runs.map(({ message }) => message)).toEqual([1, 2, 'late']);
      });

      test('those that are kept back come in the order of their times', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        await Promise.all([600, 300, 1].map((delay) => queue.publish('c', delay, { delay })));
        await until(() => got.length === 3);
        expect(got).toEqual([1, 300, 600]);
      });

      test('a message that is kept back survives close, comes then, and not early', async () => {
        const queue = await open();
        collect(queue, 'c');
        const published = Date.now();
        await queue.publish('c', 'late', { delay: 700 });
        await queue.publish('c', 'now', { delay: 1 });
        await queue.close();
        const again = await open();
        const got = [];
        again.subscribe('c', { process: async (message) => { got.push([message, Date.now() - published]); } });
        await until(() => got.some(([message]) => message === 'late'));
        expect(got[got.length - 1][1]).toBeGreaterThanOrEqual(699);
      });
    });

    describeIf(can.dedupes)('ids', () => {
      test('while one with the id waits, is kept back or runs, another is not queued; publish resolves to the id', async () => {
        const queue = await open();
        const runs = holding(queue, 'c');
        const publish = (message, options) => queue.publish('c', message, { id: 'x', ...options });
        expect(await publish('delayed', { delay: 200 })).toBe('x');
        expect(await publish('second')).toBe('x');
        await until(() => runs.length === 1);
        expect(await publish('third')).toBe('x');
        await queue.publish('c', 'waits', { id: 'y' });
        expect(await queue.publish('c', 'another', { id: 'y' })).toBe('y');
        runs[0].resolve();
        await until(() => runs.length === 2);
        runs[1].resolve();
        await others(queue);
        expect(runs.map(({ message }) => message)).toEqual(['delayed', 'waits']);
      });

      test('many with one id at once are one', async () => {
        const queue = await open();
        const runs = holding(queue, 'c', { concurrency: 0 });
        expect(await Promise.all(numbers(20).map((n) => queue.publish('c', n, { id: 'x' })))).toEqual(numbers(20).map(() => 'x'));
        await until(() => runs.length === 1);
        await others(queue);
        expect(runs.map(({ message }) => message)).toEqual([0]);
      });

      test('it is taken while the message waits for its next attempt', async () => {
        const queue = await open();
        const seen = [];
        queue.subscribe('c', { process: async (message, { retried }) => { seen.push([message, retried]); if (retried === 0) throw new Error('no'); } });
        await queue.publish('c', 'first', { id: 'x', maxRetries: 1, backoff: { type: 'fixed', delay: 300 } });
        await until(() => logger.lines.length > 0 && seen.length === 1);
        await queue.publish('c', 'second', { id: 'x' });
        await until(() => seen.length === 2);
        await others(queue);
        expect(seen).toEqual([['first', 0], ['first', 1]]);
      });

      test('it is free again when the message was processed, has died, or was cancelled', async () => {
        const queue = await open();
        const ends = [];
        queue.subscribe('c', { process: async (message) => { ends.push(message); if (message === 'dies') throw new Error('no'); } });
        const free = async () => { const { waiting, running, delayed } = await queue.counts('c'); return !waiting && !running && !delayed; };
        const publish = (message, options) => queue.publish('c', message, { id: 'x', ...options });
        await publish('processed');
        await until(async () => ends.length === 1 && (await free()));
        await publish('dies');
        await until(async () => (await queue.deadLetters('c').count()) === 1 && (await free()));
        await publish('cancelled', { delay: 3_600_000 });
        expect(await queue.cancel('c', 'x')).toBe(true);
        await publish('last');
        await until(() => ends.length === 3);
        expect(ends).toEqual(['processed', 'dies', 'last']);
      });

      test('it counts within its channel', async () => {
        const queue = await open();
        const got = [collect(queue, 'a', { idle: () => false }), collect(queue, 'b')];
        await queue.publish('a', 1, { id: 'x' });
        await queue.publish('b', 2, { id: 'x' });
        await until(() => got[1].length === 1);
      });

      test('it is still taken after close and connect', async () => {
        const queue = await open();
        collect(queue, 'c', { idle: () => false });
        await queue.publish('c', 'waits', { id: 'x' });
        await queue.publish('c', 'delayed', { id: 'y', delay: 500 });
        await queue.close();
        const again = await open();
        const runs = holding(again, 'c', { concurrency: 0 });
        await again.publish('c', 'another', { id: 'x' });
        await again.publish('c', 'another', { id: 'y' });
        await until(() => runs.length === 2);
        await others(again);
        expect(runs.map(({ message, context }) => [message, context.id])).toEqual([['waits', 'x'], ['delayed', 'y']]);
      });
    });

    describe('cancelling', () => {
      testIf(can.cancelsWaiting)('a message that waits or is kept back never runs', async () => {
        const queue = await open();
        const runs = holding(queue, 'c');
        await queue.publish('c', 'runs');
        await until(() => runs.length === 1);
        const waiting = await queue.publish('c', 'waits');
        const delayed = await queue.publish('c', 'delayed', { delay: 50 });
        await queue.publish('c', 'last');
        expect([await queue.cancel('c', waiting), await queue.cancel('c', delayed)]).toEqual([true, true]);
        expect([await queue.cancel('c', waiting), await queue.cancel('c', delayed)]).toEqual([false, false]);
        runs[0].resolve();
        await until(() => runs.length === 2);
        runs[1].resolve();
        await queue.publish('c', 'end', { delay: 100 });
        await until(() => runs.length === 3);
        expect(runs.map(({ message }) => message)).toEqual(['runs', 'last', 'end']);
        expect(await queue.deadLetters('c').count()).toBe(0);
      });

      testIf(can.cancelsWaiting)('it is gone after close and connect too', async () => {
        const queue = await open();
        collect(queue, 'c', { idle: () => false });
        const id = await queue.publish('c', 'cancelled');
        await queue.publish('c', 'kept');
        expect(await queue.cancel('c', id)).toBe(true);
        await queue.close();
        const again = await open();
        const got = collect(again, 'c');
        await until(() => got.includes('kept'));
        await others(again);
        expect(got).toEqual(['kept']);
      });

      testIf(can.cancelsWaiting)('one that waits for its next attempt is not tried again', async () => {
        const queue = await open();
        const seen = [];
        queue.subscribe('c', { process: async (message) => { seen.push(message); if (message === 'poor') throw new Error('no'); } });
        const id = await queue.publish('c', 'poor', { maxRetries: 5, backoff: { type: 'fixed', delay: 300 } });
        // Until it has failed its signal would abort instead, which ends it as well.
        await until(() => seen.length === 1);
        expect(await queue.cancel('c', id)).toBe(true);
        await queue.publish('c', 'end', { delay: 600 });
        await until(() => seen.includes('end'));
        expect(seen).toEqual(['poor', 'end']);
        expect(await queue.deadLetters('c').count()).toBe(0);
      });

      test('the signal of one that runs aborts; when it fails then it is not tried again and is no dead letter', async () => {
        const queue = await open();
        const seen = [];
        queue.subscribe('c', {
          process: async (message, { signal }) => {
            seen.push(message);
            if (message !== 'cancelled') return;
            await new Promise((aborted) => signal.addEventListener('abort', aborted));
            seen.push(signal.reason.name);
            throw signal.reason;
          },
        });
        const id = await queue.publish('c', 'cancelled', { maxRetries: 3, backoff: { type: 'fixed', delay: 1 } });
        await until(() => seen.length === 1);
        expect(await queue.cancel('c', id)).toBe(true);
        await until(() => seen.length === 2);
        await queue.publish('c', 'end', { delay: 100 });
        await until(() => seen.includes('end'));
        expect(seen).toEqual(['cancelled', 'AbortError', 'end']);
        expect(await queue.deadLetters('c').count()).toBe(0);
        await until(() => logged('info', id));
        expect(logger.lines.filter(({ level }) => level === 'error')).toEqual([]);
        expect(await queue.cancel('c', id)).toBe(false);
      });

      test('one that runs on and resolves counts as processed', async () => {
        const queue = await open();
        const runs = holding(queue, 'c');
        const id = await queue.publish('c', 1, { maxRetries: 3 });
        await until(() => runs.length === 1);
        expect(await queue.cancel('c', id)).toBe(true);
        // Asked for after the cancelling.
        await until(() => runs[0].context.signal.aborted);
        expect(runs[0].context.signal.reason.name).toBe('AbortError');
        await queue.publish('c', 2);
        await others(queue);
        expect(runs.length).toBe(1);
        runs[0].resolve();
        await until(() => runs.length === 2);
        expect(runs[1].message).toBe(2);
        expect(await queue.deadLetters('c').count()).toBe(0);
      });

      test('an unknown message is not there', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        expect(await queue.cancel('c', 'nobody')).toBe(false);
        const id = await queue.publish('c', 1);
        await until(() => got.length === 1);
        await until(async () => !(await queue.cancel('c', id)));
        expect((await rejection(queue.cancel('c', ''))).name).toBe('TypeError');
      });
    });

    describe('pausing', () => {
      test('a paused channel fetches nothing, what runs goes on, others are not touched; resume goes on', async () => {
        const queue = await open();
        const runs = holding(queue, 'c', { interval: 5 });
        await queue.publish('c', 1);
        await until(() => runs.length === 1);
        await queue.pause('c');
        await queue.pause('c');
        await queue.publish('c', 2);
        runs[0].resolve();
        await others(queue);
        expect(runs.length).toBe(1);
        expect(await queue.counts('c')).toMatchObject({ waiting: 1, paused: true });
        await queue.resume('c');
        await queue.resume('c');
        await until(() => runs.length === 2);
        expect(await queue.counts('c')).toMatchObject({ waiting: 0, paused: false });
      });

      test('a retry and a delayed message wait for resume too', async () => {
        const queue = await open();
        const seen = [];
        const go = held();
        queue.subscribe('c', {
          process: async (message, { retried }) => {
            seen.push([message, retried]);
            if (retried > 0 || message !== 'poor') return;
            await go.promise;
            throw new Error('no');
          },
        });
        await queue.publish('c', 'poor', { maxRetries: 1, backoff: { type: 'fixed', delay: 5 } });
        await until(() => seen.length === 1);
        await queue.pause('c');
        go.resolve();
        await queue.publish('c', 'late', { delay: 5 });
        await until(async () => (await queue.counts('c')).waiting === 2);
        await others(queue);
        expect(seen).toEqual([['poor', 0]]);
        await queue.resume('c');
        await until(() => seen.length === 3);
      });
    });

    describe('counts', () => {
      test('of a channel without messages are zero', async () => {
        const queue = await open();
        collect(queue, 'c');
        const counts = await queue.counts('c');
        expect(counts).toMatchObject({ waiting: 0, dead: 0, paused: false });
        if (can.countsRunning) expect(counts.running).toBe(0);
        expect(counts.delayed).toBe(can.countsDelayed ? 0 : undefined);
        expect(counts.oldestAge).toBe(can.oldestAge ? 0 : undefined);
      });

      test('tell how many wait, are kept back, run and have died', async () => {
        const queue = await open();
        const go = held();
        let running = 0;
        queue.subscribe('c', { concurrency: 2, process: async (message) => { if (message === 'dies') throw new Error('no'); running++; await go.promise; } });
        await queue.publish('c', 'dies');
        await until(async () => (await queue.counts('c')).dead === 1);
        for (const n of numbers(5)) await queue.publish('c', n);
        for (const n of numbers(4)) await queue.publish('c', n, { delay: 3_600_000 });
        await until(() => running === 2);
        await until(async () => (await queue.counts('c')).waiting === 3);
        const counts = await queue.counts('c');
        expect(counts).toMatchObject({ waiting: 3, dead: 1, paused: false });
        if (can.countsRunning) expect(counts.running).toBe(2);
        if (can.countsDelayed) expect(counts.delayed).toBe(4);
        go.resolve();
        await until(async () => { const now = await queue.counts('c'); return now.waiting === 0 && (!can.countsRunning || now.running === 0); });
      });

      testIf(can.countsDelayed)('a message that waits for its next attempt is kept back', async () => {
        const queue = await open();
        queue.subscribe('c', { process: fail() });
        await queue.publish('c', 1, { maxRetries: 1, backoff: { type: 'fixed', delay: 3_600_000 } });
        await until(async () => (await queue.counts('c')).delayed === 1);
        expect(await queue.counts('c')).toMatchObject({ waiting: 0, dead: 0, oldestAge: can.oldestAge ? 0 : undefined });
      });

      testIf(can.oldestAge)('tell how long the oldest has waited', async () => {
        const queue = await open();
        let idle = false;
        const got = collect(queue, 'c', { interval: 5, idle: () => idle });
        const before = Date.now();
        await queue.publish('c', 1);
        await until(async () => (await queue.counts('c')).oldestAge >= 50);
        await queue.publish('c', 2);
        const { oldestAge } = await queue.counts('c');
        expect(oldestAge).toBeGreaterThanOrEqual(50);
        expect(oldestAge).toBeLessThanOrEqual(Date.now() - before + 1);
        idle = true;
        await until(() => got.length === 2);
        await until(async () => (await queue.counts('c')).oldestAge === 0);
      });
    });

    describe('dead letters', () => {
      test('are listed, the oldest first, with what the last attempt failed with', async () => {
        const queue = await open();
        queue.subscribe('c', {
          process: async (message, { retried }) => {
            if (message === 'text') throw 'a text'; // eslint-disable-line no-throw-literal
            throw new Error(`attempt ${retried} of ${message}`);
          },
        });
        const ids = [];
        ids.push(await queue.publish('c', 'a', { maxRetries: 1, backoff: { type: 'fixed', delay: 1 }, headers: { h: 1 } }));
        await until(async () => (await queue.deadLetters('c').count()) === 1);
        ids.push(await queue.publish('c', 'text', { id: 'mine' }));
        await until(async () => (await queue.deadLetters('c').count()) === 2);
        const letters = await queue.deadLetters('c').list();
        expect(letters.map(({ id, content, error }) => [id, content, error])).toEqual([[ids[0], 'a', 'attempt 1 of a'], ['mine', 'text', 'a text']]);
        expect(letters[0].options).toMatchObject({ maxRetries: 1, headers: { h: 1 } });
      });

      test('are replayed, one or all, under their ids and with their retries before them', async () => {
        const queue = await open();
        let broken = true;
        const seen = [];
        queue.subscribe('c', {
          process: async (message, { id, retried, queueOptions }) => {
            seen.push([message, id, retried, queueOptions.headers]);
            if (broken || retried === 0) throw new Error('no');
          },
        });
        const options = (id) => ({ id, maxRetries: 1, backoff: { type: 'fixed', delay: 1 }, headers: { of: id } });
        for (const id of ['a', 'b', 'c']) {
          await queue.publish('c', `message ${id}`, options(id));
          await until(async () => (await queue.deadLetters('c').list()).some((letter) => letter.id === id));
        }
        broken = false;
        seen.length = 0;
        const letters = queue.deadLetters('c');
        expect(await letters.replay('nobody')).toBe(0);
        expect(await letters.replay('b')).toBe(1);
        await until(() => seen.length === 2);
        expect(seen).toEqual([0, 1].map((retried) => ['message b', 'b', retried, { of: 'b' }]));
        expect((await letters.list()).map(({ id }) => id)).toEqual(['a', 'c']);
        expect(await letters.replay()).toBe(2);
        await until(() => seen.length === 6);
        expect(seen.map(([, id]) => id).sort()).toEqual(['a', 'a', 'b', 'b', 'c', 'c']);
        expect(await letters.count()).toBe(0);
      });

      test('are not kept back again when they are replayed', async () => {
        const queue = await open();
        const times = [];
        queue.subscribe('c', { process: async () => { times.push(Date.now()); if (times.length === 1) throw new Error('no'); } });
        const id = await queue.publish('c', 1, { delay: 50 });
        await until(async () => (await queue.deadLetters('c').count()) === 1);
        await queue.publish('c', 2, { delay: 3_600_000 });
        await queue.deadLetters('c').replay(id);
        await until(() => times.length === 2);
      });

      test('are dropped, one or all', async () => {
        const queue = await open();
        queue.subscribe('c', { process: fail() });
        for (const id of ['a', 'b', 'c']) await queue.publish('c', id, { id });
        const letters = queue.deadLetters('c');
        await until(async () => (await letters.count()) === 3);
        expect(await letters.drop('nobody')).toBe(0);
        expect(await letters.drop('b')).toBe(1);
        expect((await letters.list()).map(({ id }) => id)).toEqual(['a', 'c']);
        expect(await letters.drop()).toBe(2);
        expect([await letters.count(), await letters.replay(), await letters.drop()]).toEqual([0, 0, 0]);
      });

      testIf(can.keepsDeadLetters)('survive close, with their errors, and are replayed after it', async () => {
        const queue = await open();
        queue.subscribe('c', { process: fail('poor thing') });
        const id = await queue.publish('c', 'poor');
        await until(async () => (await queue.deadLetters('c').count()) === 1);
        await queue.close();
        const again = await open();
        const runs = holding(again, 'c');
        expect((await again.deadLetters('c').list()).map((letter) => [letter.id, letter.content, letter.error])).toEqual([[id, 'poor', 'poor thing']]);
        expect(await again.deadLetters('c').replay()).toBe(1);
        await until(() => runs.length === 1);
        expect([runs[0].message, runs[0].context.id]).toEqual(['poor', id]);
        runs[0].resolve();
        await again.close();
        const third = await open();
        collect(third, 'c');
        expect(await third.deadLetters('c').count()).toBe(0);
      });
    });

    describe('closing', () => {
      test('waits for the running and keeps the rest, for a later connect and for another queue', async () => {
        const queue = await open();
        const runs = holding(queue, 'c');
        for (const n of numbers(4)) await queue.publish('c', n);
        await until(() => runs.length === 1);
        const order = [];
        const closing = queue.close().then(() => order.push('closed'));
        // Long enough for a close that does not wait to be over first.
        setTimeout(() => { order.push('handled'); runs[0].resolve(); }, 100);
        await closing;
        expect(order).toEqual(['handled', 'closed']);
        await queue.close();
        expect(runs.length).toBe(1);
        expect(queue.isConnected()).toBe(false);
        await queue.connect();
        await until(() => runs.length === 2);
        const closingAgain = queue.close();
        runs[1].resolve();
        await closingAgain;
        const again = await open();
        const got = collect(again, 'c');
        await until(() => got.length === 2);
        expect([...runs.map(({ message }) => message), ...got]).toEqual([0, 1, 2, 3]);
      });

      test('what waits survives, in order, with its ids and its retries', async () => {
        const queue = await open();
        let idle = true;
        const failed = gate();
        queue.subscribe('c', { interval: 5, idle: () => idle, process: async () => { idle = false; failed.resolve(); throw new Error('no'); } });
        const ids = [await queue.publish('c', 0, { maxRetries: 5 })];
        await failed.promise;
        for (const n of [1, 2, 3, 4]) ids.push(await queue.publish('c', n, { headers: { n } }));
        await queue.close();
        const again = await open();
        const got = [];
        again.subscribe('c', { process: async (n, { id, retried, queueOptions }) => { got.push([n, id, retried, queueOptions.headers]); } });
        await until(() => got.length === 5);
        expect(got.find(([n]) => n === 0)).toEqual([0, ids[0], 1, undefined]);
        expect(got.filter(([n]) => n > 0)).toEqual([1, 2, 3, 4].map((n) => [n, ids[n], 0, { n }]));
      });

      test('messages without a timeout and with retries without end survive it', async () => {
        const queue = await open();
        collect(queue, 'c', { idle: () => false });
        await queue.publish('c', 1, { timeout: Infinity, maxRetries: Infinity, backoff: { type: 'fixed', delay: 0 } });
        await queue.close();
        const again = await open();
        const seen = [];
        again.subscribe('c', { process: async (_, { retried, signal }) => { seen.push([retried, signal.aborted]); if (retried < 3) throw new Error('no'); } });
        await until(() => seen.length === 4);
        expect(seen).toEqual([0, 1, 2, 3].map((retried) => [retried, false]));
      });

      test('a handler that never settles does not hold it for ever, and its message is processed again', async () => {
        const queue = await open({ closeTimeout: 100 });
        const runs = holding(queue, 'c');
        await queue.publish('c', 'first');
        await queue.publish('c', 'second');
        await until(() => runs.length === 1);
        await queue.close();
        const again = await open();
        const got = collect(again, 'c');
        await until(() => got.length === 2);
        expect([...got].sort()).toEqual(['first', 'second']);
        runs[0].resolve();
        await others(again);
        expect(got.length).toBe(2);
      });

      test('publish during it rejects or is kept, and nothing accepted is lost', async () => {
        const queue = await open();
        const begun = gate();
        const go = held();
        const got = [];
        queue.subscribe('c', { process: async (n) => { begun.resolve(); await go.promise; got.push(n); } });
        await queue.publish('c', 0);
        await begun.promise;
        const closing = queue.close();
        const results = await Promise.allSettled([1, 2].map((n) => queue.publish('c', n)));
        go.resolve();
        await closing;
        const accepted = [0, ...results.flatMap(({ status }, n) => (status === 'fulfilled' ? [n + 1] : []))];
        const again = await open();
        again.subscribe('c', { process: async (n) => { got.push(n); } });
        await until(() => accepted.every((n) => got.includes(n)));
      });

      test('connecting and closing wait for each other, and the last call counts', async () => {
        const queue = await open();
        const got = collect(queue, 'c');
        await Promise.all([queue.close(), queue.connect()]);
        expect([queue.isConnected(), queue.health().state]).toEqual([true, 'ready']);
        await Promise.all([queue.connect(), queue.close(), queue.connect(), queue.close()]);
        expect([queue.isConnected(), queue.health().state]).toEqual([false, 'closed']);
        await queue.connect();
        await queue.publish('c', 1);
        await until(() => got.length === 1);
      });

      test('a closed queue cannot be asked to cancel, pause, resume or count', async () => {
        const queue = await open();
        collect(queue, 'c');
        await queue.close();
        for (const call of [() => queue.cancel('c', 'x'), () => queue.pause('c'), () => queue.resume('c'), () => queue.counts('c')]) {
          expect((await rejection(call())).code).toBe('E_CLOSED');
        }
      });
    });

    describeIf(can.sharedStore)('several nodes', () => {
      test('each message is processed once among them', async () => {
        const nodes = [await open(), await open(), await open()];
        const got = nodes.map((node) => collect(node, 'c', { concurrency: 3 }));
        await Promise.all(numbers(300).map((n) => nodes[n % 3].publish('c', n)));
        await until(() => got.flat().length >= 300);
        await others(nodes[0]);
        expect(got.flat().sort((a, b) => a - b)).toEqual(numbers(300));
      });

      test('a node whose idle says no publishes, and the other processes', async () => {
        const [publisher, worker] = [await open(), await open()];
        const none = collect(publisher, 'c', { interval: 5, idle: () => false });
        const got = collect(worker, 'c');
        await Promise.all(numbers(50).map((n) => publisher.publish('c', n)));
        await until(() => got.length === 50);
        expect([got, none]).toEqual([numbers(50), []]);
      });

      test('cancel reaches the node that runs the message', async () => {
        const [worker, other] = [await open(), await open()];
        const seen = [];
        worker.subscribe('c', {
          process: async (message, { signal }) => {
            seen.push(message);
            await new Promise((aborted) => signal.addEventListener('abort', aborted));
            seen.push(signal.reason.name);
            throw signal.reason;
          },
        });
        collect(other, 'c', { idle: () => false });
        const id = await other.publish('c', 'long', { maxRetries: 2, timeout: 60_000 });
        await until(() => seen.length === 1);
        expect(await other.cancel('c', id)).toBe(true);
        await until(() => seen.length === 2);
        expect(seen).toEqual(['long', 'AbortError']);
        await until(async () => !(await other.cancel('c', id)));
        expect(await other.deadLetters('c').count()).toBe(0);
      });

      testIf(can.cancelsWaiting)('what one has published another cancels while it waits', async () => {
        const [first, second] = [await open(), await open()];
        let idle = false;
        const got = collect(first, 'c', { interval: 5, idle: () => idle });
        collect(second, 'c', { idle: () => false });
        const id = await first.publish('c', 'cancelled');
        await first.publish('c', 'kept');
        expect(await second.cancel('c', id)).toBe(true);
        idle = true;
        await until(() => got.length === 1);
        expect(got).toEqual(['kept']);
      });

      testIf(can.dedupes)('an id is taken on all of them', async () => {
        const [first, second] = [await open(), await open()];
        const runs = holding(first, 'c');
        collect(second, 'c', { idle: () => false });
        await first.publish('c', 1, { id: 'x' });
        expect(await second.publish('c', 2, { id: 'x' })).toBe('x');
        await until(() => runs.length === 1);
        expect(await second.publish('c', 3, { id: 'x' })).toBe('x');
        runs[0].resolve();
        await until(async () => { const { running, waiting } = await second.counts('c'); return !running && !waiting; });
        expect(runs.map(({ message }) => message)).toEqual([1]);
      });

      test('a closed node hands back what it has not begun and what it could not finish', async () => {
        const [leaving, staying] = [await open({ closeTimeout: 100 }), await open()];
        const runs = holding(leaving, 'c', { concurrency: 2 });
        let idle = false;
        const got = collect(staying, 'c', { interval: 5, idle: () => idle });
        for (const n of numbers(6)) await staying.publish('c', n);
        await until(() => runs.length === 2);
        const closing = leaving.close();
        runs[0].resolve();
        await closing;
        idle = true;
        const finished = runs[0].message;
        const rest = numbers(6).filter((n) => n !== finished);
        await until(() => rest.every((n) => got.includes(n)));
        expect([...got].sort()).toEqual(rest);
      });

      test('a pause holds on all of them, and on one that connects later', async () => {
        const [first, second] = [await open(), await open()];
        const got = [collect(first, 'c', { interval: 5 }), collect(second, 'c', { interval: 5 })];
        await first.pause('c');
        await until(async () => (await second.counts('c')).paused);
        const third = await open();
        got.push(collect(third, 'c', { interval: 5 }));
        await second.publish('c', 1);
        for (const node of [first, second, third]) await others(node);
        expect(got.flat()).toEqual([]);
        expect((await third.counts('c')).paused).toBe(true);
        await third.resume('c');
        await until(() => got.flat().length === 1);
      });

      test('dead letters of one are listed and replayed by another', async () => {
        const [worker, other] = [await open(), await open()];
        let broken = true;
        const got = [];
        worker.subscribe('c', { process: async (message) => { if (broken) throw new Error('broken'); got.push(message); } });
        collect(other, 'c', { idle: () => false });
        const id = await worker.publish('c', 1);
        const letters = other.deadLetters('c');
        await until(async () => (await letters.count()) === 1);
        expect((await letters.list()).map((letter) => [letter.id, letter.error])).toEqual([[id, 'broken']]);
        broken = false;
        expect(await letters.replay(id)).toBe(1);
        await until(() => got.length === 1);
        expect(await worker.deadLetters('c').count()).toBe(0);
      });

      test('counts are those of all nodes', async () => {
        const [first, second] = [await open(), await open()];
        const runs = [holding(first, 'c'), holding(second, 'c')];
        for (const n of numbers(5)) await first.publish('c', n);
        await until(() => runs.flat().length === 2);
        for (const node of [first, second]) {
          await until(async () => {
            const { waiting, running } = await node.counts('c');
            return waiting === 3 && (!can.countsRunning || running === 2);
          });
        }
      });

      test('apps do not see each other\'s channels, except shared ones', async () => {
        const [one, two] = [await open(), await open({ name: `${app}-two` })];
        const own = [collect(one, 'c'), collect(two, 'c')];
        const channel = `shared of ${app}`;
        const shared = [collect(one, channel, { shared: true, idle: () => false }), collect(two, channel, { shared: true })];
        for (const n of numbers(10)) {
          await one.publish('c', n);
          await one.publish(channel, n);
        }
        await until(() => own[0].length === 10 && shared[1].length === 10);
        expect([own[1], shared[0]]).toEqual([[], []]);
      });

      test('a message that waits when a node connects is processed by it', async () => {
        const publisher = await open();
        collect(publisher, 'c', { idle: () => false });
        await publisher.publish('c', 1);
        await publisher.publish('c', 2, { delay: 100 });
        const worker = await open();
        const got = collect(worker, 'c');
        await until(() => got.length === 2);
      });
    });
  });
}

module.exports = { eventQueueRules };
