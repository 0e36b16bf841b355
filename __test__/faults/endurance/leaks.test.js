'use strict';
// A million operations of each kind leave no memory behind.

const { growth } = require('./growth');

test.each([
  ['cache set, get, del', `const c = await new mortise.CacheManager().createCache({ name: 'c', max: 1000 });`,
    `const k = 'k' + (i % 5000); await c.set(k, { i, list: [i] }, 50 + (i % 100)); await c.get(k); if (i % 3 === 0) await c.del(k);`],
  ['cache wrap and reset', `const c = await new mortise.CacheManager().createCache({ name: 'c' });`,
    `await c.wrap('k' + (i % 3000), async () => ({ i }), 1000); if (i % 10000 === 0) await c.reset();`],
  ['counters', `const c = await new mortise.CacheManager().createCounter({ name: 'c' });`,
    `await c.incr('k' + (i % 5000), 20);`],
  ['locks on distinct keys', `const l = new mortise.LockManager();`,
    `await (await l.acquire('k' + i, 10_000))();`],
  ['runExclusive', `const l = new mortise.LockManager();`, `await l.runExclusive('k' + (i % 100), async () => i);`],
  ['queue', `const q = new mortise.EventQueue({ name: 'a' }); await q.connect(); let seen = 0; let sent = 0; let more = () => {};
    q.subscribe('c', { concurrency: 10, process: async () => { seen++; more(); } });`,
    `await q.publish('c', { i }); sent++; if (i % 1000 === 999) while (seen < sent) await new Promise((r) => { more = r; });`],
  ['pub/sub', `const a = mortise.createApp(), b = mortise.createApp(); await a.start(); await b.start(); let seen = 0; let sent = 0; let more = () => {};
    await b.pubSubManager.subscribe('c', () => { seen++; more(); });`,
    `await a.pubSubManager.publish('c', { i }); sent++; if (i % 1000 === 999) while (seen < sent) await new Promise((r) => { more = r; });`],
])('a million operations leave nothing behind: %s', async (_, setUp, work) => {
  const half = `for (let i = 0; i < 500_000; i++) { ${work} }`;
  const { heap, rss } = await growth({ setUp, first: half, end: 'process.exit();' });
  // 500 000 operations: a leak of 16 bytes each would show.
  expect(heap).toBeLessThan(4e6);
  expect(rss).toBeLessThan(48e6);
});

test('apps that were stopped leave nothing behind', async () => {
  const setUp = `
    const turn = async () => {
      const app = mortise.createApp();
      await app.start();
      await app.cache.set('k', Buffer.alloc(100_000), 60_000);
      app.eventQueue.subscribe('q', { process: async () => {} });
      await app.eventQueue.publish('q', 1);
      await app.pubSubManager.subscribe('c', () => {});
      await app.stop();
    };`;
  const turns = (count) => `for (let i = 0; i < ${count}; i++) await turn();`;
  const { heap } = await growth({ setUp, first: turns(100), second: turns(500) });
  expect(heap).toBeLessThan(1.5e6);
});
