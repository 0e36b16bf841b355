'use strict';
// The rules of locks as a caller sees them, whatever adapter they are on.

const { LockAbortError, LockAcquireError } = require('..');
const { gate, recorder, rejection, until } = require('./support');

/** Blocks the event loop. */
const busy = (milliseconds) => {
  const start = performance.now();
  while (performance.now() - start < milliseconds);
};

const acquireError = (error, code, message) => {
  expect(error.constructor.name).toBe('LockAcquireError');
  expect(error).toBeInstanceOf(LockAcquireError);
  expect([error.code, error.message]).toEqual([code, message]);
};

/**
 * Declares the tests. `manager(options)` makes a manager; `scale` is what short times are multiplied by, where a
 * round trip is not free; `lone` are keys with lone surrogates, where they are told apart.
 */
function lockRules({ manager, scale = 1, lone = [] }) {
  let locks;
  let logger;
  let key;
  let count = 0;
  const ms = (milliseconds) => milliseconds * scale;
  const make = (options) => manager({ logger, ...options });
  beforeEach(() => {
    logger = recorder();
    locks = make();
    key = `key ${count++}`;
  });
  afterEach(() => locks.close());

  describe('acquire', () => {
    test('waits until the lock is released', async () => {
      const release = await locks.acquire(key, 60_000);
      let second = false;
      const waiting = locks.acquire(key, 60_000).then((it) => { second = true; return it; });
      await new Promise(setImmediate);
      expect(second).toBe(false);
      await release();
      await (await waiting)();
    });

    test('1000 waiters are served in the order in which they asked, one at a time', async () => {
      const order = [];
      let holding = 0;
      await Promise.all(Array.from({ length: 1000 }, async (_, n) => {
        const release = await locks.acquire(key, 60_000);
        expect(++holding).toBe(1);
        order.push(n);
        if (n % 100 === 0) await new Promise(setImmediate);
        holding--;
        await release();
      }));
      expect(order).toEqual(Array.from({ length: 1000 }, (_, n) => n));
    });

    test('a lease lapses at its ttl and the next is let in; the late release frees nobody', async () => {
      const first = await locks.acquire(key, ms(20));
      const second = await locks.acquire(key, 60_000);
      await first();
      await first();
      acquireError(await rejection(locks.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      await second();
      await (await locks.tryAcquire(key)).release();
    });

    test('releasing twice frees nobody else\'s lock', async () => {
      const first = await locks.acquire(key, 60_000);
      await first();
      const second = await locks.acquire(key, 60_000);
      await first();
      acquireError(await rejection(locks.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      await second();
    });

    test('the default ttl is 500 ms, fractions and Infinity work', async () => {
      const start = performance.now();
      await locks.acquire(key);
      const release = await locks.acquire(key, Infinity);
      expect(performance.now() - start).toBeGreaterThanOrEqual(499);
      await release();
      await locks.acquire(key, ms(0.5));
      await (await locks.acquire(key, 2 ** 40))();
    });

    test('fencing tokens grow with each grant', async () => {
      const tokens = [];
      for (let i = 0; i < 5; i++) {
        const release = await locks.acquire(key, 60_000);
        tokens.push(release.fencingToken);
        await release();
      }
      const lock = await locks.tryAcquire(key);
      tokens.push(lock.fencingToken);
      await lock.release();
      tokens.push(await locks.runExclusive(key, async ({ fencingToken }) => fencingToken));
      expect(tokens).toEqual([...new Set(tokens)].sort((a, b) => a - b));
    });

    test('different keys do not wait for each other', async () => {
      const releases = await Promise.all(['a', 'b', '', ...lone, 'x'.repeat(1e5), 'a|b{c}*'].map((k) => locks.acquire(key + k, 60_000)));
      await Promise.all(releases.map((release) => release()));
    });
  });

  describe('runExclusive', () => {
    test('gives the result or the error of fn, and releases', async () => {
      expect(await locks.runExclusive(key, async () => 5)).toBe(5);
      expect((await rejection(locks.runExclusive(key, async () => { throw new Error('later'); }))).message).toBe('later');
      expect((await rejection(locks.runExclusive(key, () => { throw new Error('at once'); }))).message).toBe('at once');
      await (await locks.tryAcquire(key)).release();
    });

    test('keeps the lock for longer than its ttl, also while the event loop is blocked', async () => {
      const { promise, resolve } = gate();
      const running = locks.runExclusive(key, async ({ signal }) => {
        busy(ms(30));
        await promise;
        return signal.aborted;
      }, ms(10));
      await until(async () => true);
      busy(ms(30));
      acquireError(await rejection(locks.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      resolve();
      expect(await running).toBe(false);
    });

    test('100 at once run one after the other', async () => {
      let running = 0;
      await Promise.all(Array.from({ length: 100 }, () => locks.runExclusive(key, async () => {
        expect(++running).toBe(1);
        await new Promise(setImmediate);
        running--;
      })));
    });

    test('after maxHold the signal aborts, a warning is logged, and the lock lapses', async () => {
      const own = make({ maxHold: ms(30) });
      const { promise, resolve } = gate();
      const running = own.runExclusive(key, async ({ signal }) => {
        await new Promise((aborted) => signal.addEventListener('abort', aborted));
        const release = await own.acquire(key, 60_000);
        resolve(signal.reason);
        return release;
      });
      const reason = await promise;
      expect(reason).toBeInstanceOf(LockAbortError);
      expect(reason.code).toBe('E_LOCK_ABORTED');
      expect(logger.lines.some(({ level, message }) => level === 'warn' && message.includes(key))).toBe(true);
      // What ran too long frees nobody else's lock when it ends.
      const release = await running;
      acquireError(await rejection(own.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      await release();
      await own.close();
    });
  });

  describe('tryAcquire', () => {
    test('of two calls in one tick exactly one wins', async () => {
      const results = await Promise.allSettled([locks.tryAcquire(key), locks.tryAcquire(key)]);
      expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
      acquireError(results[1].reason, 'E_LOCK_LOCKED', 'lock is locked');
      await results[0].value.release();
    });

    test('with a timeout it waits so long', async () => {
      const release = await locks.acquire(key, 60_000);
      acquireError(await rejection(locks.tryAcquire(key, ms(20))), 'E_LOCK_TIMEOUT', 'lock acquire timed out');
      const waiting = locks.tryAcquire(key, 60_000);
      await release();
      const lock = await waiting;
      await lock.release();
      // Who gave up is not in line any more.
      await (await locks.tryAcquire(key)).release();
    });

    test('a reservation becomes a lease, and is given back by release', async () => {
      const lock = await locks.tryAcquire(key);
      acquireError(await rejection(lock.extend(100)), 'E_LOCK_NOT_ACTIVE', 'lock is not active');
      const release = await lock.acquire(60_000);
      acquireError(await rejection(locks.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      await release();
      await lock.release();
      const other = await locks.tryAcquire(key);
      await lock.release();
      acquireError(await rejection(locks.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      // Asked again, the first waits for the lock anew.
      const again = lock.acquire(60_000);
      await other.release();
      await (await again)();
    });

    test('a lease of no stated ttl has the default', async () => {
      const lock = await locks.tryAcquire(key);
      await (await lock.acquire())();
      expect(await (await locks.tryAcquire(key)).runExclusive(async () => 5)).toBe(5);
    });

    test('extend gives the lease a new end; a lease that has lapsed cannot be extended', async () => {
      const lock = await locks.tryAcquire(key);
      await lock.acquire(400);
      await lock.extend(60_000);
      busy(420);
      acquireError(await rejection(locks.tryAcquire(key)), 'E_LOCK_LOCKED', 'lock is locked');
      await lock.extend(ms(10));
      busy(ms(20));
      acquireError(await rejection(lock.extend(ms(10))), 'E_LOCK_NOT_ACTIVE', 'lock is not active');
      await (await locks.tryAcquire(key)).release();
    });

    test('ILock.runExclusive releases, and its lease lapses at ttl', async () => {
      const lock = await locks.tryAcquire(key);
      expect(await lock.runExclusive(async ({ fencingToken }) => fencingToken, 60_000)).toBe(lock.fencingToken);
      await (await locks.tryAcquire(key)).release();
      const second = await locks.tryAcquire(key);
      const signal = await second.runExclusive(async (context) => {
        const { signal: lost } = context;
        await new Promise((aborted) => lost.addEventListener('abort', aborted));
        return lost;
      }, ms(10));
      expect(signal.reason.code).toBe('E_LOCK_ABORTED');
    });
  });

  describe('bad input', () => {
    test.each([[undefined], [null], [5], [{}], [Symbol('x')]])('%p is not a key', async (bad) => {
      for (const call of [() => locks.acquire(bad), () => locks.runExclusive(bad, () => 1), () => locks.tryAcquire(bad)]) {
        const error = await rejection(call());
        expect([error.name, error.code]).toEqual(['TypeError', 'E_INVALID_ARGUMENT']);
      }
    });

    test.each([[0], [-1], [NaN], ['5'], [null]])('%p is not a ttl', async (bad) => {
      expect((await rejection(locks.acquire(key, bad))).name).toBe('TypeError');
      expect((await rejection(locks.runExclusive(key, () => 1, bad))).name).toBe('TypeError');
      const lock = await locks.tryAcquire(key);
      expect((await rejection(lock.acquire(bad))).name).toBe('TypeError');
      await lock.release();
    });

    test('timeouts and functions', async () => {
      for (const bad of [NaN, -1, '5']) expect((await rejection(locks.tryAcquire(key, bad))).name).toBe('TypeError');
      expect((await rejection(locks.runExclusive(key, 5))).name).toBe('TypeError');
    });
  });
}

module.exports = { acquireError, busy, lockRules };
