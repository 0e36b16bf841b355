'use strict';
const { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { EventQueue, MemoryEventQueueAdapter } = require('..');
const { child, gate, recorder, rejection, temporaryFolder, until } = require('./support');

const open = [];
let folder;
let logger;

beforeEach(() => {
  folder = temporaryFolder();
  logger = recorder();
});
afterEach(() => Promise.all(open.splice(0).map((queue) => queue.close())));

/** A queue in the test's folder, connected. */
async function makeQueue(options = {}) {
  const queue = new EventQueue({ name: 'main', logger }, { storagePath: folder, closeTimeout: 200, ...options });
  open.push(queue);
  await queue.connect();
  return queue;
}

const file = () => join(folder, 'event-queue.json');

describe.each([['memory', {}], ['journal', { journal: true }]])('on %s', (_, options) => {
  test('messages are processed in the order in which they were published', async () => {
    const queue = await makeQueue(options);
    const got = [];
    queue.subscribe('c', { process: async (message) => { got.push(message.n); } });
    await Promise.all(Array.from({ length: 1000 }, (_, n) => queue.publish('c', { n })));
    await until(() => got.length === 1000);
    expect(got).toEqual(Array.from({ length: 1000 }, (_, n) => n));
  });

  test('a handler is told the id, the retries, the signal and the options', async () => {
    const queue = await makeQueue(options);
    const { promise, resolve } = gate();
    queue.subscribe('c', { process: async (message, context) => resolve([message, { ...context }]) });
    await queue.publish('c', 'hello', { headers: { a: 1 } });
    const [message, { id, retried, signal, queueOptions }] = await promise;
    expect(message).toBe('hello');
    expect(id).toMatch(/^[0-9a-f-]{36}$/);
    expect(retried).toBe(0);
    expect(signal.aborted).toBe(false);
    expect(queueOptions).toMatchObject({ headers: { a: 1 }, timeout: 15_000, maxRetries: 0 });
    expect(Math.abs(Date.now() - queueOptions.timestamp)).toBeLessThan(60_000);
  });

  test.each([[1, 1], [3, 3], [0, 20], [-1, 20]])('with concurrency %i as many run at once as may', async (concurrency, most) => {
    const queue = await makeQueue(options);
    const gates = [];
    queue.subscribe('c', { concurrency, process: () => { gates.push(gate()); return gates[gates.length - 1].promise; } });
    await Promise.all(Array.from({ length: 20 }, (_, n) => queue.publish('c', n)));
    await until(() => gates.length === most);
    for (let i = 0; i < 20; i++) {
      // The next begins without waiting for anything else.
      await until(() => gates.length > i);
      expect(gates.length - i).toBeLessThanOrEqual(most);
      gates[i].resolve();
    }
  });

  test('a failure is tried again up to maxRetries times, and is a dead letter then', async () => {
    const queue = await makeQueue(options);
    const attempts = [];
    queue.subscribe('c', {
      process: (message, { retried }) => {
        attempts.push([message.kind, retried, Date.now()]);
        if (message.kind === 'throws') throw new Error('at once');
        return Promise.reject(new Error('later'));
      },
    });
    await queue.publish('c', { kind: 'throws' }, { maxRetries: 2 });
    await queue.publish('c', { kind: 'rejects' });
    const letters = queue.deadLetters('c');
    await until(async () => (await letters.count()) === 2);
    const throwing = attempts.filter(([kind]) => kind === 'throws');
    expect(throwing.map(([, retried]) => retried)).toEqual([0, 1, 2]);
    expect(throwing[1][2] - throwing[0][2]).toBeGreaterThanOrEqual(499);
    expect((await letters.list()).map(({ content }) => content.kind).sort()).toEqual(['rejects', 'throws']);
    expect(logger.lines.filter(({ level }) => level === 'error')).toHaveLength(2);
    const [{ id }] = await letters.list();
    expect(await letters.replay(id)).toBe(1);
    await until(async () => (await letters.count()) === 2);
    expect(await letters.drop()).toBe(2);
    expect(await letters.count()).toBe(0);
  });

  test('a message that is tried again succeeds then', async () => {
    const queue = await makeQueue(options);
    const seen = [];
    queue.subscribe('c', {
      process: async (message, { retried }) => {
        seen.push(retried);
        if (retried === 0) throw new Error('not yet');
      },
    });
    await queue.publish('c', 1, { maxRetries: 3 });
    await until(() => seen.length === 2);
    expect(seen).toEqual([0, 1]);
    expect(await queue.deadLetters('c').count()).toBe(0);
  });

  test('while idle says no nothing is fetched, and it is asked again', async () => {
    const queue = await makeQueue(options);
    let idle = false;
    let asked = 0;
    const got = [];
    queue.subscribe('c', { interval: 5, idle: () => { asked++; return idle; }, process: async (n) => { got.push(n); } });
    await queue.publish('c', 1);
    const before = asked;
    await until(() => asked > before + 3);
    expect(got).toEqual([]);
    idle = true;
    await until(() => got.length === 1);
  });

  test('an idle that throws counts as no, and is logged', async () => {
    const queue = await makeQueue(options);
    let broken = true;
    const got = [];
    queue.subscribe('c', {
      interval: 5,
      idle: () => { if (broken) throw new Error('idle broke'); return true; },
      process: async (n) => { got.push(n); },
    });
    await queue.publish('c', 1);
    await until(() => logger.lines.some(({ details }) => details?.message === 'idle broke'));
    broken = false;
    await until(() => got.length === 1);
  });

  test('the signal aborts after the timeout; the handler keeps its slot and its outcome counts', async () => {
    const queue = await makeQueue(options);
    const { promise, resolve } = gate();
    const events = [];
    queue.subscribe('c', {
      process: async (message, { signal }) => {
        events.push(`begin ${message}`);
        if (message !== 'slow') return;
        await new Promise((aborted) => signal.addEventListener('abort', aborted));
        events.push(signal.reason.name);
        await promise;
        events.push('end slow');
      },
    });
    await queue.publish('c', 'slow', { timeout: 20 });
    await queue.publish('c', 'next');
    await until(() => events.includes('TimeoutError'));
    expect(events).toEqual(['begin slow', 'TimeoutError']);
    expect(logger.lines.some(({ message }) => message.includes('timeout'))).toBe(true);
    resolve();
    await until(() => events.includes('begin next'));
    expect(events).toEqual(['begin slow', 'TimeoutError', 'end slow', 'begin next']);
    expect(await queue.deadLetters('c').count()).toBe(0);
  });

  test('a signal that is asked for after the timeout has aborted', async () => {
    const queue = await makeQueue(options);
    const { promise, resolve } = gate();
    queue.subscribe('c', {
      process: async (_, context) => {
        await until(() => logger.lines.some(({ message }) => message.includes('passed its timeout')));
        resolve(context.signal.reason?.name);
      },
    });
    await queue.publish('c', 1, { timeout: 1 });
    expect(await promise).toBe('TimeoutError');
  });

  test('a handler that never settles does not hold close for ever, and its message is kept', async () => {
    const queue = await makeQueue(options);
    const begun = gate();
    const late = gate();
    queue.subscribe('c', { process: () => { begun.resolve(); return late.promise; } });
    await queue.publish('c', 'first');
    await queue.publish('c', 'second');
    await begun.promise;
    await queue.close();
    late.resolve();
    await until(() => logger.lines.some(({ message }) => message.includes('after the queue was closed')));
    const again = await makeQueue(options);
    const got = [];
    again.subscribe('c', { process: async (message) => { got.push(message); } });
    await until(() => got.length === 2);
    expect(got).toEqual(['first', 'second']);
  });

  test('what waits survives close and connect, in order, with its retries', async () => {
    const queue = await makeQueue(options);
    let idle = true;
    const failed = gate();
    queue.subscribe('c', { idle: () => idle, process: async () => { idle = false; failed.resolve(); throw new Error('no'); } });
    await queue.publish('c', { n: 0 }, { maxRetries: 5 });
    await failed.promise;
    for (let n = 1; n < 5; n++) await queue.publish('c', { n });
    await queue.close();
    await queue.close();
    const again = await makeQueue(options);
    const got = [];
    again.subscribe('c', { process: async ({ n }, { retried }) => { got.push([n, retried]); } });
    await until(() => got.length === 5);
    expect(got).toEqual([[0, 1], [1, 0], [2, 0], [3, 0], [4, 0]]);
    await again.close();
    expect(existsSync(file())).toBe(false);
  });

  test('publish during and after close rejects, and nothing accepted is lost', async () => {
    const queue = await makeQueue(options);
    const begun = gate();
    const go = gate();
    const got = [];
    queue.subscribe('c', { process: async (n) => { begun.resolve(); await go.promise; got.push(n); } });
    await queue.publish('c', 0);
    await begun.promise;
    const closing = queue.close();
    const results = await Promise.allSettled([queue.publish('c', 1), queue.publish('c', 2)]);
    go.resolve();
    await closing;
    expect((await rejection(queue.publish('c', 3))).message).toBe('event queue not connected, cannot publish');
    const accepted = 1 + results.filter(({ status }) => status === 'fulfilled').length;
    const again = await makeQueue(options);
    again.subscribe('c', { process: async (n) => { got.push(n); } });
    await until(() => got.length === accepted);
  });

  test('unsubscribe stops fetching, also on shared channels; what waits is kept for the next subscriber', async () => {
    const queue = await makeQueue(options);
    for (const shared of [false, true]) {
      const channel = `c${shared}`;
      const first = gate();
      const go = gate();
      queue.subscribe(channel, { shared, process: async () => { first.resolve(); await go.promise; } });
      await queue.publish(channel, 1);
      await queue.publish(channel, 2);
      await first.promise;
      queue.unsubscribe(channel);
      queue.unsubscribe(channel);
      expect((await rejection(queue.publish(channel, 3))).code).toBe('E_NOT_SUBSCRIBED');
      const got = [];
      go.resolve();
      queue.subscribe(channel, { shared, process: async (n) => { got.push(n); } });
      await until(() => got.length === 1);
      expect(got).toEqual([2]);
    }
  });
});

test('connecting and closing wait for each other, and the last call counts', async () => {
  const queue = await makeQueue();
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  await queue.publish('c', 1);
  await Promise.all([queue.close(), queue.connect()]);
  expect(queue.isConnected()).toBe(true);
  await Promise.all([queue.connect(), queue.close(), queue.connect(), queue.close()]);
  expect(queue.isConnected()).toBe(false);
  const again = await makeQueue();
  const { promise, resolve } = gate();
  again.subscribe('c', { process: async (n) => resolve(n) });
  expect(await promise).toBe(1);
});

test('the message object itself is passed on', async () => {
  const queue = await makeQueue();
  const { promise, resolve } = gate();
  queue.subscribe('c', { process: async (message) => resolve(message) });
  const message = { fn: () => 1, big: 1n };
  await queue.publish('c', message);
  expect(await promise).toBe(message);
});

test('close writes the reference\'s format, and a file in it is loaded and removed', async () => {
  const queue = await makeQueue({ channelPrefix: 'p' });
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  queue.subscribe('s', { idle: () => false, shared: true, process: async () => undefined });
  await queue.publish('c', { a: 1 }, { maxRetries: 2 });
  await queue.publish('s', [1]);
  await queue.close();
  const saved = JSON.parse(readFileSync(file(), 'utf8'));
  expect(Object.keys(saved)).toEqual(['main.p.c', 'p.s']);
  expect(saved['main.p.c']).toEqual([{ id: expect.any(String), content: { a: 1 }, options: expect.objectContaining({ maxRetries: 2 }) }]);
  writeFileSync(file(), JSON.stringify({ 'main.c': [{ id: 'x', content: 5, options: { timeout: 10, maxRetries: 0, retried: 0 } }] }));
  const again = await makeQueue();
  expect(existsSync(file())).toBe(false);
  const { promise, resolve } = gate();
  again.subscribe('c', { process: async (message, { id }) => resolve([id, message]) });
  expect(await promise).toEqual(['x', 5]);
});

test.each([['half of it', '{"main.c":[{"id"'], ['another shape', '[1,2]'], ['nothing', '']])(
  'a file with %s is set aside and logged, never deleted', async (_, text) => {
    writeFileSync(file(), text);
    await makeQueue();
    const [aside] = readdirSync(folder).filter((name) => name.includes('unreadable'));
    expect(readFileSync(join(folder, aside), 'utf8')).toBe(text);
    expect(logger.lines.some(({ level, message }) => level === 'error' && message.includes(aside))).toBe(true);
  });

test('a file that cannot be written is a clear error, and nothing is lost', async () => {
  const blocked = join(folder, 'blocked');
  const queue = await makeQueue({ storagePath: join(blocked, 'deep') });
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  await queue.publish('c', 1);
  writeFileSync(blocked, 'a file where a folder is wanted');
  expect(await rejection(queue.close())).toMatchObject({ code: 'E_IO', cause: expect.anything() });
  expect((await rejection(queue.close())).code).toBe('E_IO');
  rmSync(blocked);
  await queue.connect();
  const { promise, resolve } = gate();
  queue.unsubscribe('c');
  queue.subscribe('c', { process: async (n) => resolve(n) });
  expect(await promise).toBe(1);
});

test('what the file cannot hold is logged, and the rest is kept', async () => {
  const queue = await makeQueue();
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  await queue.publish('c', 1n);
  await queue.publish('c', 'fine');
  await queue.close();
  expect(JSON.parse(readFileSync(file(), 'utf8'))['main.c'].map(({ content }) => content)).toEqual(['fine']);
  expect(logger.lines.some(({ message }) => message.includes('cannot be written as JSON'))).toBe(true);
});

test('the event loop keeps turning while many messages are processed', async () => {
  const queue = await makeQueue();
  let processed = 0;
  let turns = 0;
  queue.subscribe('c', { process: async () => { processed++; } });
  await Promise.all(Array.from({ length: 20_000 }, (_, n) => queue.publish('c', n)));
  const turn = () => { turns++; if (processed < 20_000) setImmediate(turn); };
  setImmediate(turn);
  await until(() => processed === 20_000);
  expect(turns).toBeGreaterThan(20);
});

describe('bad input', () => {
  test('exact errors', async () => {
    const queue = new EventQueue({ name: 'main', logger }, { storagePath: folder });
    queue.subscribe('c', { process: async () => undefined });
    expect((await rejection(queue.publish('c', 1))).message).toBe('event queue not connected, cannot publish');
    await queue.connect();
    open.push(queue);
    const error = await rejection(queue.publish('x', 1));
    expect([error.message, error.code]).toEqual(['event queue not subscribed on channel "x", cannot publish', 'E_NOT_SUBSCRIBED']);
    const none = new EventQueue({ name: 'main' });
    none.setAdapter(undefined);
    expect((await rejection(none.connect())).message).toBe('no adapter set, cannot connect');
    expect((await rejection(none.publish('c', 1))).message).toBe('no adapter set, cannot publish');
    expect(() => new EventQueue({ name: 'main' }, { adapter: 'kafka' })).toThrow(expect.objectContaining({ code: 'E_ADAPTER_UNAVAILABLE' }));
  });

  test.each([['timeout', NaN], ['timeout', -1], ['timeout', '5'], ['maxRetries', -1], ['maxRetries', NaN], ['maxRetries', '1']])(
    '%s of %p rejects with a TypeError', async (name, value) => {
      const queue = await makeQueue();
      queue.subscribe('c', { process: async () => undefined });
      expect((await rejection(queue.publish('c', 1, { [name]: value }))).name).toBe('TypeError');
    });

  test.each([['no process', {}], ['concurrency', { concurrency: NaN }], ['interval', { interval: -1 }], ['idle', { idle: true }]])(
    'a subscription with a bad %s throws a TypeError', async (name, event) => {
      const queue = await makeQueue();
      const process = name === 'no process' ? undefined : async () => undefined;
      expect(() => queue.subscribe('c', { process, ...event })).toThrow(expect.objectContaining({ name: 'TypeError' }));
      expect(() => queue.subscribe(5, { process: async () => undefined })).toThrow(expect.objectContaining({ name: 'TypeError' }));
    });

  test('enormous timeouts and retries work', async () => {
    const queue = await makeQueue();
    const { promise, resolve } = gate();
    queue.subscribe('c', { process: async () => resolve() });
    await queue.publish('c', 1, { timeout: Number.MAX_VALUE, maxRetries: Infinity });
    await promise;
    await queue.publish('c', 1, { timeout: Infinity, maxRetries: 1e300 });
  });

  test('the second subscription of a channel is ignored with a warning', async () => {
    const queue = await makeQueue();
    const first = jest.fn(async () => undefined);
    const second = jest.fn(async () => undefined);
    queue.subscribe('c', { process: first });
    queue.subscribe('c', { process: second });
    expect(logger.lines.some(({ level, message }) => level === 'warn' && message.includes('"c"'))).toBe(true);
    await queue.publish('c', 1);
    await until(() => first.mock.calls.length === 1);
    expect(second).not.toHaveBeenCalled();
  });
});

describe('an adapter written in JavaScript', () => {
  const make = () => {
    const calls = [];
    let connected = false;
    return {
      calls,
      isConnected: () => connected,
      connect: async () => { connected = true; calls.push(['connect']); },
      close: async () => { connected = false; calls.push(['close']); },
      subscribe: (channel, event) => calls.push(['subscribe', channel, event]),
      unsubscribe: (channel) => calls.push(['unsubscribe', channel]),
      publish: async (channel, message, options) => calls.push(['publish', channel, message, options]),
    };
  };

  test('gets full channels, events and options; connecting twice leaves one consumer', async () => {
    const adapter = make();
    const queue = new EventQueue({ name: 'main' }, { channelPrefix: 'p' });
    queue.setAdapter(adapter);
    const handler = { context: 5, process() { return this.context; } };
    queue.subscribe('before', handler);
    await Promise.all([queue.connect(), queue.connect()]);
    await queue.connect();
    queue.subscribe('after', { process: async () => undefined, shared: true });
    await queue.publish('before', { a: 1 }, { maxRetries: 2, own: 3 });
    queue.unsubscribe('after');
    await queue.close();
    expect(adapter.calls.map(([name, channel]) => [name, channel])).toEqual([
      ['connect', undefined], ['subscribe', 'main.p.before'], ['subscribe', 'p.after'], ['publish', 'main.p.before'],
      ['unsubscribe', 'p.after'], ['close', undefined],
    ]);
    const [, , event] = adapter.calls[1];
    expect([event.concurrency, event.interval, event.process()]).toEqual([1, 250, 5]);
    expect(adapter.calls[3].slice(2)).toEqual([{ a: 1 }, { maxRetries: 2, own: 3, timeout: 15_000, timestamp: expect.any(Number) }]);
  });

  test('one that was connected before is subscribed all the same, and one that fails to subscribe is tried again', async () => {
    const adapter = make();
    await adapter.connect();
    let fail = true;
    const { subscribe } = adapter;
    adapter.subscribe = async (channel, event) => { if (fail) throw new Error('away'); return subscribe(channel, event); };
    const late = new EventQueue({ name: 'main' });
    late.subscribe('c', { process: async () => undefined });
    late.setAdapter(adapter);
    expect((await rejection(late.connect())).message).toBe('away');
    fail = false;
    await late.connect();
    await late.connect();
    expect(adapter.calls.filter(([name]) => name === 'subscribe')).toHaveLength(1);
  });

  test('one that is none is a TypeError', () => {
    expect(() => new EventQueue({ name: 'main' }, { adapter: {} })).toThrow(expect.objectContaining({ name: 'TypeError' }));
  });
});

test('the adapter can be used by itself', async () => {
  const adapter = new MemoryEventQueueAdapter({ storagePath: folder });
  expect((await rejection(adapter.publish('c', 1))).code).toBe('E_CLOSED');
  await adapter.connect();
  const { promise, resolve } = gate();
  adapter.subscribe('c', { process: async (n) => resolve(n) });
  await adapter.publish('c', 7, {});
  expect(await promise).toBe(7);
  await adapter.close();
});

describe('a process', () => {
  const run = async (code) => child(`
    const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)} });
    (async () => { await queue.connect(); ${code} })();
  `).exit;

  test('stays alive while a message waits for its turn or its retry', async () => {
    mkdirSync(folder, { recursive: true });
    const worker = child(`
      const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)} });
      (async () => {
        await queue.connect();
        queue.subscribe('c', { process: async (n, { retried }) => { console.log(n, retried); if (retried < 1) throw new Error('again'); } });
        await queue.publish('c', 1, { maxRetries: 1 });
      })();
    `);
    expect((await worker.exit).code).toBe(0);
    expect(worker.lines).toEqual(['1 0', '1 1']);
  });

  test('exits by itself when nothing waits, without close', async () => {
    expect((await run(`queue.subscribe('c', { process: async () => {} }); await queue.publish('c', 1);`)).code).toBe(0);
  });

  test('exits by itself after close, with work left over', async () => {
    expect((await run(`
      queue.subscribe('c', { idle: () => false, process: async () => {} });
      await queue.publish('c', 1);
      await queue.close();
    `)).code).toBe(0);
    expect(existsSync(file())).toBe(true);
  });
});
