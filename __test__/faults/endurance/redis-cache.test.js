'use strict';
// Caches on Redis over long times: 300 000 operations.

const { RedisServer } = require('../../servers/redis');
const { growth } = require('./growth');

test.each([
  ['redis', `await c.set('k' + (i % 5000), { i, list: [i] }, 60_000); await c.get('k' + ((i * 7) % 5000));`],
  ['tiered', `await c.get('k' + (i % 5000)); if (i % 10 === 0) await c.set('k' + ((i * 7) % 5000), { i }, 60_000);`],
  ['tiered', `await c.wrap('w' + (i % 2000), async () => ({ i }), 5); await c.get('absent' + i);`],
])('many operations leave nothing behind: %s, %s', async (store, work) => {
  const server = await RedisServer.start();
  const { heap, rss } = await growth({
    setUp: `
      const manager = new mortise.CacheManager({ prefix: 'm', stores: { ${store}: { url: '${server.url}' } } });
      const c = await manager.createCache({ name: 'c', prefix: 'c', store: '${store}' });
      let next = 0;
      const until = (end) => Promise.all(Array.from({ length: 100 }, async () => { while (next < end) { const i = next++; ${work} } }));`,
    first: 'await until(150_000);',
    second: 'await until(300_000);',
    end: 'await manager.close();',
  });
  // 150 000 operations: a leak of 16 bytes each would show.
  expect(heap).toBeLessThan(2.4e6);
  expect(rss).toBeLessThan(32e6);
  await server.stop();
});
