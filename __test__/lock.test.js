'use strict';
const { LocalLockAdapter, LockManager } = require('..');
const { acquireError, busy, lockRules } = require('./lock-rules');
const { child, recorder, rejection, temporaryFolder, ROOT } = require('./support');

let locks;
let logger;
let key;
let count = 0;
beforeEach(() => {
  logger = recorder();
  locks = new LockManager({ logger });
  key = `key ${count++}`;
});
afterEach(() => locks.close());

lockRules({ manager: (options) => new LockManager(options), lone: ['\ud800', '\ud801'] });

describe('adapters', () => {
  /** An adapter as a plugin author would write one. */
  const make = () => {
    const calls = [];
    class Adapter {
      constructor(options) { calls.push(['new', options]); }
      async connect() { await null; calls.push(['connect']); }
      async close() { calls.push(['close']); }
      async acquire(k, ttl) { calls.push(['acquire', k, ttl]); return async () => undefined; }
      async runExclusive(k, fn) { return fn({}); }
      async tryAcquire() { return {}; }
    }
    return { Adapter, calls };
  };

  test('one is made and connected once, however many calls race', async () => {
    const { Adapter, calls } = make();
    const own = new LockManager({ defaultAdapter: 'mine' });
    own.registerAdapter('mine', { Adapter, options: { a: 1 } });
    expect(calls).toEqual([]);
    await Promise.all([own.acquire('a'), own.acquire('b', 5), own.runExclusive('c', () => 1)]);
    expect(calls.filter(([name]) => name !== 'acquire')).toEqual([['new', { a: 1 }], ['connect']]);
    expect(calls.filter(([name]) => name === 'acquire')).toEqual([['acquire', 'a', 500], ['acquire', 'b', 5]]);
    await own.close();
    await own.close();
    await own.acquire('a');
    expect(calls.filter(([name]) => name === 'connect')).toHaveLength(2);
    await own.close();
  });

  test('one that cannot connect rejects, and the next call tries again', async () => {
    let fail = true;
    const { Adapter } = make();
    class Flaky extends Adapter { async connect() { if (fail) throw new Error('away'); } }
    const own = new LockManager({ defaultAdapter: 'flaky' });
    own.registerAdapter('flaky', { Adapter: Flaky });
    expect((await rejection(own.acquire('a'))).message).toBe('away');
    fail = false;
    await own.acquire('a');
    await own.close();
  });

  test('unknown and taken names', async () => {
    expect(() => locks.registerAdapter('local', { Adapter: LocalLockAdapter }))
      .toThrow('this registry does not allow to override existing keys: "local"');
    expect(() => locks.registerAdapter('x', {})).toThrow(expect.objectContaining({ name: 'TypeError' }));
    expect((await rejection(new LockManager({ defaultAdapter: 'x' }).acquire('k'))).message).toBe('Lock adapter "x" not registered');
  });

  test('two managers share the process\'s locks, and close rejects who waits', async () => {
    const other = new LockManager();
    const release = await locks.acquire(key, 60_000);
    const waiting = other.acquire(key, 60_000);
    await other.close();
    expect((await rejection(waiting)).code).toBe('E_LOCK_ABORTED');
    await release();
    await (await other.tryAcquire(key)).release();
    await other.close();
  });

  test('close rejects all who wait, one whose grant is on its way among them', async () => {
    const other = new LockManager();
    await locks.acquire(key, 20);
    const waiting = [other.acquire(key, 60_000), other.acquire(key, 60_000)].map(rejection);
    // The lease lapses and the first of them is let in, which it cannot hear before the close.
    busy(100);
    const closed = other.close();
    expect((await Promise.all(waiting)).map((error) => error?.code)).toEqual(['E_LOCK_ABORTED', 'E_LOCK_ABORTED']);
    await closed;
    await (await locks.tryAcquire(key)).release();
  });
});

test('300 000 distinct keys leave no memory', async () => {
  const before = [LocalLockAdapter.keys, LocalLockAdapter.bytes];
  const releases = await Promise.all(Array.from({ length: 300_000 }, (_, n) => locks.acquire(`many ${n}`, 60_000)));
  expect(LocalLockAdapter.keys).toBe(before[0] + 300_000);
  await Promise.all(releases.map((release) => release()));
  expect(LocalLockAdapter.keys).toBe(before[0]);
  expect(LocalLockAdapter.bytes - before[1]).toBeLessThan(1e6);
});

describe('worker threads', () => {
  const run = async (body) => {
    const worker = `const mortise = require(${JSON.stringify(ROOT)}); const { parentPort } = require('node:worker_threads');
      const locks = new mortise.LockManager();
      (async () => { const release = await locks.acquire('k', Infinity); parentPort.postMessage('held');
        parentPort.once('message', () => { release(); parentPort.postMessage('released'); }); })();`;
    const result = child(`
      const { Worker } = require('node:worker_threads');
      const { once } = require('node:events');
      const locks = new mortise.LockManager();
      (async () => {
        const worker = new Worker(${JSON.stringify(worker)}, { eval: true });
        await once(worker, 'message');
        const refused = await locks.tryAcquire('k').catch((error) => error.code);
        const waiting = locks.acquire('k', 1000);
        ${body}
        await (await waiting)();
        console.log(refused);
        await worker.terminate();
      })();
    `, { environment: { STORAGE_PATH: temporaryFolder() } });
    expect(await result.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(result.lines).toEqual(['E_LOCK_LOCKED']);
  };

  test('share keys with the main thread', () => run(`worker.postMessage('release');`));
  test('that are terminated give back what they hold', () => run('await worker.terminate();'));
});

describe('a process', () => {
  test('exits by itself with a lock held, and waits while one is waited for', async () => {
    const held = child(`new mortise.LockManager().acquire('k', 600000).then(() => console.log('held'));`);
    expect(await held.exit).toEqual({ code: 0, signal: null, errors: '' });
    const waits = child(`
      const locks = new mortise.LockManager();
      locks.acquire('k', 100).then(() => locks.acquire('k', 100)).then(() => console.log('second'));
    `);
    expect(await waits.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect([held.lines, waits.lines]).toEqual([['held'], ['second']]);
  });
});
