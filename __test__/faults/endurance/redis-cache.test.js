'use strict';
// Caches on Redis over long times: 300 000 operations.

const { RedisServer } = require('../../servers/redis');
const { child } = require('../../support');

test.each([
  ['redis', `await c.set('k' + (i % 5000), { i, list: [i] }, 60_000); await c.get('k' + ((i * 7) % 5000));`],
  ['tiered', `await c.get('k' + (i % 5000)); if (i % 10 === 0) await c.set('k' + ((i * 7) % 5000), { i }, 60_000);`],
  ['tiered', `await c.wrap('w' + (i % 2000), async () => ({ i }), 5); await c.get('absent' + i);`],
])('many operations leave nothing behind: %s, %s', async (store, work) => {
  const server = await RedisServer.start();
  const run = child(`
    require('node:v8').setFlagsFromString('--expose-gc');
    const gc = require('node:vm').runInNewContext('gc');
    const memory = async () => {
      for (let i = 0; i < 5; i++) { gc(); await new Promise((r) => setTimeout(r, 20)); }
      const { rss, heapUsed, external } = process.memoryUsage();
      return { rss, heap: heapUsed + external };
    };
    (async () => {
      const manager = new mortise.CacheManager({ prefix: 'm', stores: { ${store}: { url: '${server.url}' } } });
      const c = await manager.createCache({ name: 'c', prefix: 'c', store: '${store}' });
      let next = 0;
      const half = (end) => Promise.all(Array.from({ length: 100 }, async () => { while (next < end) { const i = next++; ${work} } }));
      await half(150_000);
      const before = await memory();
      await half(300_000);
      const after = await memory();
      console.log(JSON.stringify({ heap: after.heap - before.heap, rss: after.rss - before.rss }));
      await manager.close();
    })();`, { deadline: 110_000 });
  expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
  const { heap, rss } = JSON.parse(run.lines[0]);
  // 150 000 operations: a leak of 16 bytes each would show.
  expect(heap).toBeLessThan(2.4e6);
  expect(rss).toBeLessThan(32e6);
  await server.stop();
});
