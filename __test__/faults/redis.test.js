'use strict';
// Redis under fire: servers that are killed and started again, connections that are cut, held up and
// half open, while processes read and write; and a checker over what they saw.

const { CacheManager } = require('../..');
const { Proxy } = require('../servers/proxy');
const { RedisServer, startSentinels } = require('../servers/redis');
const { child, recorder, until } = require('../support');

const TIMES = { commandTimeout: 2000, connectTimeout: 2000, reconnectGrace: 200, heartbeat: 200, heartbeatTimeout: 400 };

test.each([['redis'], ['tiered']])('%s: a server killed and started 20 times under load', async (store) => {
  const server = await RedisServer.start();
  const logger = recorder();
  const unhandled = [];
  const onUnhandled = (error) => unhandled.push(error);
  process.on('unhandledRejection', onUnhandled);
  const manager = new CacheManager({ prefix: 'main', logger, stores: { [store]: { url: server.url, ...TIMES } } });
  const caches = await Promise.all([1, 2, 3].map((i) => manager.createCache({ name: `c${i}`, prefix: `c${i}`, store, ttl: 60_000 })));
  let stopped = false;
  const codes = new Map();
  let longest = 0;
  let served = 0;
  const load = async (cache, i) => {
    for (let n = 0; !stopped && n < 1e6; n++) {
      const begun = performance.now();
      const call = [() => cache.set(`k${i}`, n), () => cache.get(`k${i}`), () => cache.wrap(`w${i}`, async () => n), () => cache.mget('a', `k${i}`), () => cache.del(`w${i}`)][n % 5];
      try {
        await call();
        served++;
      } catch ({ code }) {
        codes.set(code, (codes.get(code) ?? 0) + 1);
        // Not to spin while there is nobody.
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      longest = Math.max(longest, performance.now() - begun);
    }
  };
  const loads = caches.flatMap((cache, i) => Array.from({ length: 10 }, (_, j) => load(cache, `${i}-${j}`)));
  for (let round = 0; round < 20; round++) {
    const before = served;
    await until(() => served > before + 200);
    await server.kill();
    await until(() => manager.health()[0].state === 'away');
    await server.up();
    // It is tried every 500 ms at least; the rest is for a busy machine.
    await until(() => caches[0].set('back', round).then(() => true, () => false), 10_000);
  }
  stopped = true;
  await Promise.all(loads);
  process.off('unhandledRejection', onUnhandled);
  expect(unhandled).toEqual([]);
  expect([...codes.keys()].filter((code) => code !== 'E_UNAVAILABLE' && code !== 'E_TIMEOUT')).toEqual([]);
  // The deadline of a command, twice for a wrap that looks and stores; the rest is for a busy machine.
  expect(longest).toBeLessThan(TIMES.commandTimeout * 5);
  // One line for each time it went, and one for each time it came back.
  const lines = logger.lines.map(({ level }) => level).filter((level) => level !== 'debug');
  expect(lines).toEqual(Array.from({ length: 20 }, () => ['warn', 'info']).flat());
  await manager.close();
  await server.stop();
});

test('FLUSHALL, SCRIPT FLUSH and CLIENT KILL all the time', async () => {
  const server = await RedisServer.start();
  const manager = new CacheManager({ prefix: 'main', stores: { redis: { url: server.url, ...TIMES }, tiered: { url: server.url, ...TIMES } } });
  const [plain, tiered] = await Promise.all(['redis', 'tiered'].map((store) => manager.createCache({ name: store, prefix: store, store })));
  const counter = await manager.createCounter({ name: 'n', prefix: 'n', store: 'redis' });
  for (let i = 0; i < 150; i++) {
    const fault = [['FLUSHALL'], ['SCRIPT', 'FLUSH'], ['CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes']][i % 3];
    await Promise.allSettled([
      server.call(...fault), plain.set('k', i), tiered.set('k', i), counter.incr('k'), plain.setValueInObject('o', 'f', i),
      tiered.wrap('w', async () => i, 1000, { singleFlight: 'cluster' }),
    ]);
    if (i % 3 !== 2) continue;
    for (const cache of [plain, tiered]) {
      await until(() => cache.set('k', i).then(() => true, () => false));
      expect(await cache.get('k')).toBe(i);
      expect(await cache.get('k')).toBe(i);
    }
    await counter.reset('k');
    expect(await counter.incr('k')).toBe(1);
  }
  await manager.close();
  await server.stop();
});

test('tiered over a failover of the sentinels: what is read is never older than what was read', async () => {
  const group = await startSentinels();
  const manager = new CacheManager({ prefix: 'main', stores: { tiered: { url: group.url, ...TIMES } } });
  const cache = await manager.createCache({ name: 'c', prefix: 'c', store: 'tiered' });
  await cache.set('k', 1);
  for (let i = 0; i < 3; i++) expect(await cache.get('k')).toBe(1);
  await until(async () => (await group.replica.call('GET', 'main:c:k')) === '1');
  await group.master.kill();
  await until(() => cache.set('k', 2).then(() => true, () => false), 60_000);
  expect(await cache.get('k')).toBe(2);
  await group.replica.call('SET', 'main:c:k', '3');
  await until(async () => (await cache.get('k')) === 3);
  await manager.close();
  await group.stop();
});

// What may be older: nothing that was acknowledged longer ago than the heartbeat needs to find a dead
// connection, and some for a busy machine.
const BOUND = TIMES.heartbeat + TIMES.heartbeatTimeout + 1000;
const PROCESSES = 4;
const KEYS = 12;

/** The newest version that was acknowledged before `time`; versions grow with time. */
function newestBefore(writes, time) {
  let [low, high] = [0, writes.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (writes[middle][1] < time) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? 0 : writes[low - 1][0];
}

const node = (index, port) => `
  const PROCESS = ${index}, KEYS = ${KEYS}, PROCESSES = ${PROCESSES};
  const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
  (async () => {
    const manager = new mortise.CacheManager({ prefix: 'main', stores: { tiered: { port: ${port}, ...${JSON.stringify(TIMES)} } } });
    const cache = await manager.createCache({ name: 'c', prefix: 'c', store: 'tiered', ...(PROCESS % 2 ? { reference: true } : {}) });
    const reads = [], writes = [], versions = {};
    let stopped = false, hits = 0, fills = 0;
    process.stdin.once('data', () => { stopped = true; });
    const write = async () => {
      for (let n = 0; !stopped && n < 1e5; n++) {
        // Each key has one writer.
        const key = PROCESS + PROCESSES * Math.floor(Math.random() * KEYS / PROCESSES);
        const version = versions[key] = (versions[key] ?? 0) + 1;
        const ok = await cache.set('k' + key, { key, version }).then(() => true, () => false);
        if (ok) writes.push([key, version, now()]);
        // What may have been sent is to be over before the next.
        await new Promise((resolve) => setTimeout(resolve, ok ? Math.random() * 20 : 500));
      }
    };
    const read = async () => {
      for (let n = 0; !stopped && n < 1e6; n++) {
        const key = Math.floor(Math.random() * KEYS);
        const begun = now();
        const value = await cache.get('k' + key);
        if (value) reads.push([value.key === key ? key : -1, value.version, begun]);
        await new Promise((resolve) => n % 10 ? setImmediate(resolve) : setTimeout(resolve, 1));
      }
    };
    await Promise.all([write(), read(), read()]);
    // The checker needs no two reads that saw the same within a millisecond.
    const kept = reads.filter(([key, version, at], i) => i === 0 || reads[i - 1][0] !== key || reads[i - 1][1] !== version || at - reads[i - 1][2] > 1);
    require('node:fs').writeFileSync(process.env.HISTORY, JSON.stringify({ reads: kept, writes, size: cache.store.store.client.size() }));
    process.exit();
  })();`;

test('four processes, random reads, writes and broken connections: nothing older than the bound is ever read', async () => {
  const { readFileSync } = require('node:fs');
  const { join } = require('node:path');
  const { temporaryFolder } = require('../support');
  const folder = temporaryFolder();
  const server = await RedisServer.start();
  const proxies = await Promise.all(Array.from({ length: PROCESSES }, () => Proxy.to(server.port)));
  const files = proxies.map((_, i) => join(folder, `history-${i}.json`));
  const runs = proxies.map((proxy, i) => child(node(i, proxy.port), { environment: { HISTORY: files[i] }, stdin: 'pipe', deadline: 110_000 }));
  const end = Date.now() + 20_000;
  while (Date.now() < end) {
    await new Promise((resolve) => setTimeout(resolve, 100 + Math.random() * 400));
    const proxy = proxies[Math.floor(Math.random() * PROCESSES)];
    switch (Math.floor(Math.random() * 5)) {
      case 0: proxy.cut(); break;
      case 1: proxy.mode = 'half'; break;
      case 2: proxy.mode = 'blackhole'; break;
      case 3: proxy.delay = Math.random() * 50; break;
      default: await server.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    }
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 1200));
    proxy.mode = 'pass';
    proxy.delay = 0;
  }
  for (const run of runs) run.handle.stdin.write('stop\n');
  expect(await Promise.all(runs.map((run) => run.exit))).toEqual(runs.map(() => ({ code: 0, signal: null, errors: '' })));
  const histories = files.map((file) => JSON.parse(readFileSync(file, 'utf8')));
  const acknowledged = Array.from({ length: KEYS }, () => []);
  for (const { writes } of histories) for (const [key, version, at] of writes) acknowledged[key].push([version, at]);
  const wrong = [];
  let checked = 0;
  for (const [process, { reads }] of histories.entries()) {
    const newest = new Map();
    for (const [key, version, begun] of reads) {
      checked++;
      // Somebody else's value.
      if (key < 0) wrong.push({ process, version, begun });
      const due = newestBefore(acknowledged[key] ?? [], begun - BOUND);
      if (version < due) wrong.push({ process, key, version, due, begun });
      // Once seen, a version is never followed by an older one.
      if (version < (newest.get(key) ?? 0) ) wrong.push({ process, key, version, newest: newest.get(key) });
      newest.set(key, Math.max(version, newest.get(key) ?? 0));
    }
  }
  expect(wrong.slice(0, 5)).toEqual([]);
  expect(checked).toBeGreaterThan(1000);
  expect(acknowledged.flat().length).toBeGreaterThan(100);
  await Promise.all(proxies.map((proxy) => proxy.close()));
  await server.stop();
});
