'use strict';
// The near cache of a tiered store: what it may answer, and for how long.

const { CacheManager, TieredStore } = require('..');
const { Proxy } = require('./servers/proxy');
const { RedisServer } = require('./servers/redis');
const { child, recorder, rejection, until } = require('./support');

const QUICK = { commandTimeout: 1000, connectTimeout: 1000, reconnectGrace: 100, heartbeat: 100, heartbeatTimeout: 300 };

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());
beforeEach(() => server.call('FLUSHALL'));

const managers = [];
const makeCache = async (options = {}, settings = {}, logger = undefined) => {
  const manager = new CacheManager({ prefix: 'main', logger, stores: { tiered: { url: server.url, ...settings } } });
  managers.push(manager);
  return manager.createCache({ name: 'c', prefix: 'c', store: 'tiered', ...options });
};
afterEach(() => Promise.all(managers.splice(0).map((manager) => manager.close())));

/** How many GETs the server has seen. */
const gets = async () => Number(/cmdstat_get:calls=(\d+)/.exec(await server.call('INFO', 'commandstats'))?.[1] ?? 0);

test('a hit asks the server for nothing', async () => {
  const cache = await makeCache();
  await cache.set('k', { n: 1 });
  await cache.get('k');
  const before = await gets();
  for (let i = 0; i < 1000; i++) expect(await cache.get('k')).toEqual({ n: 1 });
  expect(await gets()).toBe(before);
  expect(cache.store.store.client.size().entries).toBe(1);
});

test('a change by somebody else is seen, however it is made', async () => {
  const cache = await makeCache();
  const change = async (...command) => {
    await server.call(...command);
    // The server has told of it before it answers the next thing that we ask.
    await cache.store.store.client.command('PING');
  };
  await cache.set('k', 1);
  for (const [command, expected] of [
    [['SET', 'main:c:k', '2'], 2], [['DEL', 'main:c:k'], undefined], [['SET', 'main:c:k', '3'], 3], [['RENAME', 'main:c:k', 'x'], undefined],
    [['RENAME', 'x', 'main:c:k'], 3], [['EVAL', "return redis.call('SET', KEYS[1], '4')", 1, 'main:c:k'], 4],
    [['FLUSHALL'], undefined], [['SET', 'main:c:k', '5'], 5], [['PEXPIRE', 'main:c:k', 0], undefined],
  ]) {
    for (let i = 0; i < 3; i++) await cache.get('k');
    await change(...command);
    expect(await cache.get('k')).toBe(expected);
  }
});

test('by reference: the same object for all until it changes', async () => {
  const cache = await makeCache({ reference: true });
  await cache.set('k', { n: 1 });
  await cache.get('k');
  const first = await cache.get('k');
  expect(await cache.get('k')).toBe(first);
  await server.call('SET', 'main:c:k', '{"n":2}');
  await cache.store.store.client.command('PING');
  await cache.get('k');
  expect(await cache.get('k')).toEqual({ n: 2 });
});

test('losing the connection empties the near cache before anything is answered', async () => {
  const proxy = await Proxy.to(server.port);
  const logger = recorder();
  const cache = await makeCache({}, { url: undefined, port: proxy.port, ...QUICK }, logger);
  await cache.set('k', 'old');
  for (let i = 0; i < 3; i++) expect(await cache.get('k')).toBe('old');
  proxy.mode = 'refuse';
  proxy.cut();
  await server.call('SET', 'main:c:k', '"new"');
  await until(() => cache.store.store.client.health().state === 'away');
  expect(await cache.get('k')).toBeUndefined();
  proxy.mode = 'pass';
  await until(async () => (await cache.get('k')) !== undefined);
  expect(await cache.get('k')).toBe('new');
  await proxy.close();
});

test('a half-open connection: what is stale is answered no longer than the heartbeat allows', async () => {
  const proxy = await Proxy.to(server.port);
  const cache = await makeCache({}, { url: undefined, port: proxy.port, ...QUICK });
  await cache.set('k', 'old');
  for (let i = 0; i < 3; i++) expect(await cache.get('k')).toBe('old');
  proxy.mode = 'half';
  await server.call('SET', 'main:c:k', '"new"');
  await until(async () => (await cache.get('k')) !== 'old');
  proxy.mode = 'pass';
  await until(async () => (await cache.get('k')) === 'new');
  await proxy.close();
});

test('on RESP2 it says so once, and works as a plain redis store', async () => {
  const logger = recorder();
  const cache = await makeCache({}, { protocol: 2 }, logger);
  await cache.set('k', 1);
  for (let i = 0; i < 3; i++) expect(await cache.get('k')).toBe(1);
  await server.call('SET', 'main:c:k', '2');
  expect(await cache.get('k')).toBe(2);
  expect(cache.store.store.client.size().entries).toBe(0);
  await until(() => logger.lines.length > 0);
  expect(logger.lines.filter(({ level }) => level === 'warn').map(({ message }) => message)).toEqual([expect.stringContaining('CLIENT TRACKING')]);
});

test('a user who may not track: as on RESP2', async () => {
  await server.call('ACL', 'SETUSER', 'plain', 'on', '>x', '~*', '+@all', '-client|tracking');
  const logger = recorder();
  const cache = await makeCache({}, { username: 'plain', password: 'x' }, logger);
  await cache.set('k', 1);
  for (let i = 0; i < 3; i++) expect(await cache.get('k')).toBe(1);
  await server.call('SET', 'main:c:k', '2');
  expect(await cache.get('k')).toBe(2);
  await until(() => logger.lines.some(({ message }) => message.includes('CLIENT TRACKING')));
});

test('the memory is bounded by bytes, and kept off the heap', async () => {
  const cache = await makeCache({ maxBytes: 1_000_000 }, { reconnectGrace: 777 });
  const value = 'x'.repeat(1000);
  for (let i = 0; i < 50; i++) await cache.mset(Array.from({ length: 100 }, (_, j) => [`k${i}-${j}`, value]));
  for (let i = 0; i < 50; i++) await cache.mget(...Array.from({ length: 100 }, (_, j) => `k${i}-${j}`));
  const { entries, bytes } = cache.store.store.client.size();
  expect(entries).toBeGreaterThan(300);
  expect(bytes).toBeLessThanOrEqual(1_000_000);
});

test('all caches and worker threads of the process share one near cache', async () => {
  const run = child(`
    const { Worker } = require('node:worker_threads');
    const code = \`const { CacheManager } = require(${JSON.stringify(require('node:path').join(__dirname, '..'))});
      const { parentPort } = require('node:worker_threads');
      (async () => {
        const manager = new CacheManager({ prefix: 'main', stores: { tiered: { url: '${server.url}/7' } } });
        const cache = await manager.createCache({ name: 'c', prefix: 'c', store: 'tiered' });
        parentPort.on('message', async (value) => {
          if (value === 'get') parentPort.postMessage(await cache.get('k'));
          else if (value === 'end') { await manager.close(); process.exit(); }
          else { await cache.set('k', value); parentPort.postMessage('set'); }
        });
      })();\`;
    const workers = [1, 2, 3].map(() => new Worker(code, { eval: true }));
    const ask = (worker, what) => new Promise((resolve) => { worker.once('message', resolve); worker.postMessage(what); });
    (async () => {
      for (let i = 0; i < 100; i++) {
        await ask(workers[i % 3], i);
        // At once, for they are one process.
        const seen = await Promise.all(workers.map((worker) => ask(worker, 'get')));
        if (seen.some((value) => value !== i)) console.log('stale', i, seen);
      }
      console.log('done');
      process.stdin.once('data', () => {
        process.stdin.pause();
        workers.forEach((worker) => worker.postMessage('end'));
      });
    })();
  `, { stdin: 'pipe' });
  await until(() => run.lines.includes('done'));
  expect((await server.call('CLIENT', 'LIST')).match(/ db=7 /g)).toHaveLength(1);
  run.handle.stdin.end('end\n');
  expect(await run.exit).toMatchObject({ code: 0 });
  expect(run.lines).toEqual(['done']);
});

test('options of the wrong kind are TypeErrors', () => {
  for (const options of [{ maxBytes: -1 }, { maxBytes: 'x' }, { reference: 1 }]) {
    expect(() => new TieredStore({ url: server.url, ...options })).toThrow(expect.objectContaining({ name: 'TypeError' }));
  }
});

test('a key that changes while it is read is not kept', async () => {
  const cache = await makeCache();
  const client = cache.store.store.client;
  for (let i = 0; i < 300; i++) {
    const [read] = await Promise.all([cache.get('k'), server.call('SET', 'main:c:k', String(i))]);
    expect([i - 1, i, undefined]).toContain(read);
    await client.command('PING');
    expect(await cache.get('k')).toBe(i);
  }
});

test('the server says an entry has no time left: it is not answered from here', async () => {
  const cache = await makeCache();
  await cache.set('k', 1, 60);
  const begun = Date.now();
  await cache.get('k');
  await until(async () => (await cache.get('k')) === undefined);
  expect(Date.now() - begun).toBeGreaterThan(20);
  expect(await rejection(cache.set('k', undefined))).toMatchObject({ code: 'E_NOT_CACHEABLE' });
});
