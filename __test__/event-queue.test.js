'use strict';
const { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { EventQueue, MemoryEventQueueAdapter } = require('..');
const { eventQueueRules } = require('./event-queue-rules');
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

eventQueueRules('memory', ({ name, logger: own, ...options }) => new EventQueue({ name, logger: own }, { storagePath: join(folder, name), ...options }),
  { passesObjects: true, serializes: false, keepsDeadLetters: false, sharedStore: false });

test('the message object itself is passed on', async () => {
  const queue = await makeQueue();
  const { promise, resolve } = gate();
  queue.subscribe('c', { process: async (message) => resolve(message) });
  const message = { fn: () => 1, big: 1n };
  await queue.publish('c', message);
  expect(await promise).toBe(message);
});

test('what is kept back is in the file with its time, and a message that has waited is not kept back again', async () => {
  const queue = await makeQueue();
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  await queue.publish('c', 'late', { id: 'x', delay: 3_600_000 });
  await queue.publish('c', 'soon', { delay: 1 });
  await until(async () => (await queue.counts('c')).waiting === 1);
  await queue.close();
  const [late, soon] = JSON.parse(readFileSync(file(), 'utf8'))['main.c'];
  expect(late).toMatchObject({ id: 'x', content: 'late', due: expect.any(Number) });
  expect(late.due - late.options.timestamp).toBeGreaterThanOrEqual(3_600_000);
  expect(soon.due).toBeUndefined();
  const again = await makeQueue();
  const { promise, resolve } = gate();
  again.subscribe('c', { process: async (message) => resolve(message) });
  expect(await promise).toBe('soon');
  expect((await again.counts('c')).delayed).toBe(1);
});

test('a message that was cancelled while it ran is not kept when close gives its handler up', async () => {
  for (const journal of [false, true]) {
    const queue = await makeQueue({ journal });
    const begun = gate();
    queue.subscribe('c', { process: () => { begun.resolve(); return new Promise(() => undefined); } });
    const id = await queue.publish('c', 1);
    await begun.promise;
    expect(await queue.cancel('c', id)).toBe(true);
    await queue.close();
    const again = await makeQueue({ journal });
    expect(await again.counts('c')).toMatchObject({ waiting: 0, running: 0 });
    await again.close();
  }
});

test('anything that a handler throws is a dead letter\'s error in words', async () => {
  const queue = await makeQueue();
  const thrown = [undefined, null, 5, 'text', { message: 'like an error' }, { code: 1 }, Object.create(null), { get message() { throw new Error('no'); } }];
  queue.subscribe('c', { process: (n) => { throw thrown[n]; } });
  for (const n of thrown.keys()) await queue.publish('c', n);
  await until(async () => (await queue.deadLetters('c').count()) === thrown.length);
  const errors = (await queue.deadLetters('c').list()).map(({ error }) => error);
  expect(errors.slice(0, 5)).toEqual(['undefined', 'null', '5', 'text', 'like an error']);
  expect(errors.every((error) => typeof error === 'string')).toBe(true);
});

test('letters of one id are kept side by side, and one whose id is taken stays when it is replayed', async () => {
  const queue = await makeQueue();
  let broken = true;
  const go = gate();
  queue.subscribe('c', { process: async () => { if (broken) throw new Error('no'); await go.promise; } });
  for (const message of ['monday', 'tuesday']) {
    const before = await queue.deadLetters('c').count();
    await queue.publish('c', message, { id: 'report' });
    await until(async () => (await queue.deadLetters('c').count()) === before + 1);
  }
  const letters = queue.deadLetters('c');
  expect((await letters.list()).map(({ content }) => content)).toEqual(['monday', 'tuesday']);
  broken = false;
  expect(await letters.replay('report')).toBe(1);
  expect((await letters.list()).map(({ content }) => content)).toEqual(['tuesday']);
  go.resolve();
  await until(async () => (await letters.replay('report')) === 1);
});

test('an id that publish has made up is known as well', async () => {
  const queue = await makeQueue();
  queue.subscribe('c', { idle: () => false, process: async () => undefined });
  const id = await queue.publish('c', 1);
  expect(await queue.publish('c', 1, { id })).toBe(id);
  expect((await queue.counts('c')).waiting).toBe(1);
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
  test('without an adapter, or with one that is not there', async () => {
    const none = new EventQueue({ name: 'main' });
    none.setAdapter(undefined);
    expect((await rejection(none.connect())).message).toBe('no adapter set, cannot connect');
    expect((await rejection(none.publish('c', 1))).message).toBe('no adapter set, cannot publish');
    expect(() => new EventQueue({ name: 'main' }, { adapter: 'kafka' })).toThrow(expect.objectContaining({ code: 'E_ADAPTER_UNAVAILABLE' }));
  });

  test.each([['timeout', '5'], ['maxRetries', -1], ['maxRetries', NaN], ['delay', '5'], ['headers', null], ['backoff', 5],
    ['backoff', { type: 'square', delay: 1 }], ['backoff', { type: 'fixed', delay: 1, max: -1 }], ['backoff', { type: 'fixed', delay: 1, jitter: -1 }]])(
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
  const id = await adapter.publish('c', 7, {});
  expect(await promise).toBe(7);
  expect(id).toMatch(/^[0-9a-f-]{36}$/);
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

  test('stays alive while a message is kept back, and not while its channel is paused', async () => {
    const worker = child(`
      const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)} });
      (async () => {
        await queue.connect();
        queue.subscribe('c', { process: async (n) => console.log(n) });
        await queue.publish('c', 1, { delay: 100 });
        queue.subscribe('paused', { process: async (n) => console.log(n) });
        await queue.pause('paused');
        await queue.publish('paused', 2);
      })();
    `);
    expect((await worker.exit).code).toBe(0);
    expect(worker.lines).toEqual(['1']);
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
