'use strict';
// Locks on Redis over long times: a holder that blocks, and 300 000 acquisitions.

const { LockManager } = require('../../..');
const { RedisServer } = require('../../servers/redis');
const { child, recorder, until } = require('../../support');
const { growth } = require('./growth');

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

test('a holder that blocks its event loop for 20 s in runExclusive keeps its lock', async () => {
  const server = await RedisServer.start();
  const locks = new LockManager({ defaultAdapter: 'redis', url: server.url, logger: recorder(), gracePeriod: 100 });
  const holder = child(`
    const locks = new mortise.LockManager({ defaultAdapter: 'redis', url: '${server.url}', gracePeriod: 100 });
    locks.runExclusive('busy', async ({ signal, fencingToken }) => {
      console.log('held');
      const end = performance.now() + 20_000;
      while (performance.now() < end);
      await new Promise(setImmediate);
      console.log(signal.aborted, fencingToken);
    }, 1000).then(() => locks.close());`);
  await until(() => holder.lines.includes('held'));
  let tries = 0;
  while (holder.lines.length < 2) {
    const taken = await locks.tryAcquire('busy').catch(() => undefined);
    if (taken && holder.lines.length < 2) {
      // Perhaps its word is on its way.
      await pause(200);
      expect([holder.lines.length, taken.fencingToken]).toEqual([2, expect.any(Number)]);
    }
    await taken?.release();
    tries++;
    await pause(20);
  }
  expect(holder.lines[1]).toMatch(/^false /);
  expect(tries).toBeGreaterThan(100);
  await holder.exit;
  await locks.close();
  await server.stop();
}, 60_000);

test('300 000 acquisitions, and adapters that come and go, leave no memory behind', async () => {
  const server = await RedisServer.start();
  const setUp = `
    const url = '${server.url}';
    const locks = new mortise.LockManager({ defaultAdapter: 'redis', url, gracePeriod: 100 });
    let next = 0;
    const until = async (end, adapters) => {
      await Promise.all(Array.from({ length: 100 }, async () => {
        while (next < end) {
          const i = next++;
          // Free keys, contended ones, ones that are given up, and ones that lapse.
          if (i % 3 === 0) await (await locks.acquire('own ' + i, 5000))();
          else if (i % 3 === 1) await locks.runExclusive('shared ' + i % 7, () => undefined, 5000);
          else await locks.tryAcquire('tried ' + i % 5, i % 2).then((lock) => lock.release(), () => undefined);
          if (i % 1000 === 0) await locks.acquire('lapses ' + i, 100);
        }
      }));
      for (let i = 0; i < adapters; i++) {
        const other = new mortise.RedisLockAdapter({ url, app: 'app ' + i % 3, gracePeriod: 100 });
        await (await other.acquire('k', 5000))();
        await other.close();
      }
    };`;
  const { heap, rss } = await growth({ setUp, first: 'await until(150_000, 300);', second: 'await until(300_000, 300);', end: 'await locks.close();' }, 150_000);
  // 150 000 acquisitions: a leak of 16 bytes each would show.
  expect(heap).toBeLessThan(2.4e6);
  expect(rss).toBeLessThan(32e6);
  const left = (await server.call('KEYS', '*')).filter((key) => key.includes(':held:') || key.includes(':line:'));
  expect(left).toEqual([]);
  await server.stop();
}, 170_000);
