'use strict';

const { CacheManager, createApp, MemoryStore, RedisConnection, redisStore, RedisStore, tieredStore, TieredStore } = require('..');
const { RedisServer, startCluster } = require('./servers/redis');
const { Proxy } = require('./servers/proxy');
const { child, gate, recorder, rejection, until } = require('./support');

const QUICK = { commandTimeout: 1000, connectTimeout: 1000, reconnectGrace: 100, heartbeat: 100, heartbeatTimeout: 300 };

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());
beforeEach(() => server.call('FLUSHALL'));

const managers = [];
const managerOf = (options = {}, settings = {}) => {
  const manager = new CacheManager({
    defaultStore: 'redis', ...options,
    stores: { redis: { url: server.url, ...settings }, tiered: { url: server.url, ...settings } },
  });
  managers.push(manager);
  return manager;
};
afterEach(() => Promise.all(managers.splice(0).map((manager) => manager.close())));

describe.each([['redis'], ['tiered']])('a cache on %s', (defaultStore) => {
  let manager;
  let cache;
  beforeEach(async () => {
    manager = managerOf({ defaultStore, prefix: 'main' });
    cache = await manager.createCache({ name: 'c', prefix: 'c' });
  });

  test('the text on the server is that of JSON.stringify, under prefix:key', async () => {
    const value = { a: [1, null, 'ä€😀'], b: { c: true }, d: new Date(0), u: undefined };
    await cache.set('k', value);
    expect(await server.call('GET', 'main:c:k')).toBe(JSON.stringify(value));
    expect(await cache.get('k')).toEqual(JSON.parse(JSON.stringify(value)));
    // What NocoBase has written.
    await server.call('SET', 'main:c:theirs', '{"x":[1,2]}');
    expect(await cache.get('theirs')).toEqual({ x: [1, 2] });
    expect(await cache.get('absent')).toBeUndefined();
  });

  test.each([['text'], [''], [0], [-1.5], [false], [true], [[]], [{}], [{ deep: [{ er: null }] }]])('%p comes back', async (value) => {
    await cache.set('k', value);
    expect(await cache.get('k')).toEqual(value);
    expect(await cache.get('k')).toEqual(value);
    expect(await cache.get('k')).toEqual(value);
  });

  test('each get gives an object of its own', async () => {
    await cache.set('k', { list: [{ n: 1 }] });
    for (let i = 0; i < 4; i++) {
      const value = await cache.get('k');
      expect(value).toEqual({ list: [{ n: 1 }] });
      value.list[0].n = 99;
      value.list.push('x');
    }
  });

  test('a field called __proto__ stays a field', async () => {
    await server.call('SET', 'main:c:k', '{"__proto__":{"polluted":1},"a":{"__proto__":{"b":2}}}');
    for (let i = 0; i < 3; i++) {
      const value = await cache.get('k');
      expect(JSON.stringify(value)).toBe('{"__proto__":{"polluted":1},"a":{"__proto__":{"b":2}}}');
      expect(value.polluted).toBeUndefined();
    }
  });

  test.each([[null, '"null"'], [undefined, '"undefined"']])('%p is not cacheable', async (value, shown) => {
    expect(await rejection(cache.set('k', value))).toMatchObject({ code: 'E_NOT_CACHEABLE', message: `${shown} is not a cacheable value` });
    expect(await rejection(cache.wrap('k', async () => value))).toMatchObject({ code: 'E_NOT_CACHEABLE' });
    expect(await cache.get('k')).toBeUndefined();
  });

  test('what JSON cannot hold rejects, naming the key', async () => {
    const cycle = {};
    cycle.self = cycle;
    for (const value of [cycle, { n: 1n }, () => 1]) {
      expect(await rejection(cache.set('k', value))).toMatchObject({ code: 'E_NOT_SERIALIZABLE', message: expect.stringContaining('main:c:k') });
    }
    await server.call('SET', 'main:c:torn', '{"a":');
    expect(await rejection(cache.get('torn'))).toMatchObject({ code: 'E_MALFORMED', message: expect.stringContaining('main:c:torn') });
    expect(await cache.wrap('torn', async () => 'mended')).toBe('mended');
    expect(await cache.get('torn')).toBe('mended');
  });

  test.each([[1], [null], [{}], [Symbol('k')]])('the key %p is a TypeError', async (key) => {
    for (const call of [() => cache.get(key), () => cache.set(key, 1), () => cache.del(key), () => cache.ttl(key), () => cache.mget(key), () => cache.mdel(key)]) {
      expect((await rejection(call())).name).toBe('TypeError');
    }
  });

  test('keys of any Unicode; lone surrogates are replaced', async () => {
    await cache.set('ключ 😀', 1);
    expect(await cache.keys()).toEqual(['ключ 😀']);
    await cache.set('\ud800', 2);
    expect(await cache.get('\ufffd')).toBe(2);
  });

  test('ttl: fractions, 0, negative, beyond 2^31, absent', async () => {
    await cache.set('half', 1, 10_000.5);
    expect(await cache.ttl('half')).toBeGreaterThan(9000);
    await cache.set('never', 1, 0);
    expect(await cache.ttl('never')).toBe(-1);
    expect(await cache.ttl('absent')).toBe(-2);
    await cache.set('far', 1, 2 ** 40);
    expect(await cache.ttl('far')).toBeGreaterThan(2 ** 39);
    await cache.set('never', 1, -1);
    expect(await cache.get('never')).toBeUndefined();
    await cache.set('soon', 1, 0.4);
    await until(async () => (await cache.get('soon')) === undefined);
    expect((await rejection(cache.set('k', 1, 'x'))).name).toBe('TypeError');
    const short = await manager.createCache({ name: 's', prefix: 's', ttl: 50_000 });
    await short.set('k', 1);
    expect(await short.ttl('k')).toBeGreaterThan(40_000);
    await short.set('k', 1, 0);
    expect(await short.ttl('k')).toBe(-1);
  });

  test('an entry is gone when its time has passed, wherever it is kept', async () => {
    await cache.set('k', { n: 1 }, 150);
    expect(await cache.get('k')).toEqual({ n: 1 });
    expect(await cache.get('k')).toEqual({ n: 1 });
    await until(async () => (await server.call('EXISTS', 'main:c:k')) === 0);
    await until(async () => (await cache.get('k')) === undefined, 1000);
  });

  test('mset, mget, mdel keep the order, and one bad value stores none', async () => {
    await cache.mset([['a', 1], ['b', { n: 2 }], ['c', 'x']], 60_000);
    expect(await cache.mget('c', 'none', 'a', 'b', 'a')).toEqual(['x', undefined, 1, { n: 2 }, 1]);
    expect(await cache.ttl('b')).toBeGreaterThan(50_000);
    expect((await rejection(cache.mset([['d', 1], ['e', null]]))).code).toBe('E_NOT_CACHEABLE');
    expect(await cache.get('d')).toBeUndefined();
    await cache.mdel('a', 'c', 'none');
    await cache.mdel();
    expect(await cache.mget('a', 'b', 'c')).toEqual([undefined, { n: 2 }, undefined]);
    expect(await cache.mget()).toEqual([]);
  });

  test('keys and reset keep to the prefix, also one with glob characters', async () => {
    const odd = await manager.createCache({ name: 'odd', prefix: 'a*[b]?\\' });
    const foreign = ['main:cx:1', 'c:1', 'main:a*[b]?', 'other', 'main:axb:1'];
    for (const key of foreign) await server.call('SET', key, '1');
    await Promise.all(Array.from({ length: 2500 }, (_, i) => cache.set(`k${i}`, i)));
    await odd.set('k', 1);
    expect((await cache.keys()).length).toBe(2500);
    expect((await cache.keys('k24?')).sort()).toEqual(Array.from({ length: 10 }, (_, i) => `k24${i}`));
    expect(await odd.keys()).toEqual(['k']);
    await cache.get('k1');
    await cache.reset();
    expect([await cache.keys(), await cache.get('k1'), await odd.get('k')]).toEqual([[], undefined, 1]);
    await odd.reset();
    expect((await server.call('KEYS', '*')).sort()).toEqual([...foreign].sort());
  });

  test('a cache without a prefix is not reset, for it cannot tell its keys from others', async () => {
    const bare = await new CacheManager({ stores: { [defaultStore]: { url: server.url } } }).createCache({ name: 'bare', store: defaultStore });
    await bare.set('k', 1);
    expect((await rejection(bare.reset())).code).toBe('E_NO_PREFIX');
    expect(await bare.get('k')).toBe(1);
    bare.store.store.close();
  });

  test('wrap: one loader a process, errors to all, nothing stored then', async () => {
    const loader = jest.fn(async () => ({ n: 1 }));
    const all = await Promise.all(Array.from({ length: 50 }, () => cache.wrap('k', loader, 60_000)));
    expect(all.every(({ n }) => n === 1)).toBe(true);
    expect(await cache.wrap('k', loader)).toEqual({ n: 1 });
    expect(loader).toHaveBeenCalledTimes(1);
    expect(await cache.ttl('k')).toBeGreaterThan(50_000);
    const failing = async () => { throw new Error('no'); };
    const errors = await Promise.all([rejection(cache.wrap('e', failing)), rejection(cache.wrap('e', failing))]);
    expect(errors.map(({ message }) => message)).toEqual(['no', 'no']);
    expect(await cache.get('e')).toBeUndefined();
  });

  test('what was loaded while its key was changed is not stored', async () => {
    for (const change of [() => cache.set('k', 'new'), () => cache.del('k'), () => cache.mdel('k'), () => cache.mset([['k', 'new']]), () => cache.reset()]) {
      await cache.del('k');
      const { promise, resolve } = gate();
      const { promise: began, resolve: begin } = gate();
      const loading = cache.wrap('k', async () => { begin(); return promise; });
      await began;
      await change();
      resolve('old');
      expect(await loading).toBe('old');
      expect(await cache.get('k')).not.toBe('old');
    }
  });

  test('wrapWithCondition', async () => {
    expect(await cache.wrapWithCondition('k', async () => 0)).toBe(0);
    expect(await cache.get('k')).toBeUndefined();
    expect(await cache.wrapWithCondition('k', async () => 5, { isCacheable: async (n) => n === 5, ttl: (n) => n * 10_000 })).toBe(5);
    expect(await cache.ttl('k')).toBeGreaterThan(40_000);
    expect(await cache.wrapWithCondition('k', async () => 6, { useCache: false })).toBe(6);
    await cache.set('falsy', 0);
    expect(await cache.wrapWithCondition('falsy', async () => 1)).toBe(0);
  });

  test('objects: concurrent changes of two nodes all take effect', async () => {
    const second = await managerOf({ defaultStore, prefix: 'main' }, { reconnectGrace: 999 }).createCache({ name: 'c', prefix: 'c' });
    await Promise.all(Array.from({ length: 100 }, (_, i) => (i % 2 ? cache : second).setValueInObject('o', `f${i}`, { i })));
    expect(Object.keys(await cache.get('o'))).toHaveLength(100);
    expect(await second.getValueInObject('o', 'f7')).toEqual({ i: 7 });
    expect(await second.getValueInObject('o', 'toString')).toBeUndefined();
    await Promise.all(Array.from({ length: 99 }, (_, i) => (i % 2 ? second : cache).delValueInObject('o', `f${i}`)));
    expect(await cache.get('o')).toEqual({ f99: { i: 99 } });
    await cache.set('n', 5);
    expect((await rejection(cache.setValueInObject('n', 'f', 1))).name).toBe('TypeError');
  });

  test('numbers in objects are not rounded by a change', async () => {
    await cache.set('o', { big: 9007199254740991, small: 1e-300, list: [], empty: {} });
    await cache.setValueInObject('o', 'f', 0.1);
    expect(await cache.get('o')).toEqual({ big: 9007199254740991, small: 1e-300, list: [], empty: {}, f: 0.1 });
  });

  test('own writes are seen by own reads at once, in whatever order they are called', async () => {
    for (let i = 0; i < 200; i++) {
      await cache.get('k');
      const set = cache.set('k', i);
      const [read] = await Promise.all([cache.get('k'), set]);
      expect(read).toBe(i);
      expect(await cache.get('k')).toBe(i);
    }
  });

  test('changes wait for the commit of a transaction', async () => {
    const hooks = [];
    const transaction = { afterCommit: (hook) => hooks.push(hook) };
    await cache.set('a', 'old');
    await cache.set('b', 'old');
    await cache.del('a', { transaction });
    await cache.set('b', 'new', { transaction, ttl: 60_000 });
    await cache.set('c', 'new', 60_000, { transaction });
    expect(await cache.mget('a', 'b', 'c')).toEqual(['old', 'old', undefined]);
    // A fill that was begun before the commit.
    const { promise, resolve } = gate();
    const { promise: began, resolve: begin } = gate();
    await cache.del('d');
    await cache.del('d', { transaction });
    const loading = cache.wrap('d', async () => { begin(); return promise; });
    await began;
    for (const hook of hooks) await hook();
    resolve('from before the commit');
    await loading;
    expect(await cache.mget('a', 'b', 'c', 'd')).toEqual([undefined, 'new', 'new', undefined]);
    expect(await cache.ttl('b')).toBeGreaterThan(50_000);
    await cache.set('b', 'lost', { transaction: { afterCommit: () => { throw new Error('over'); }, finished: 'rollback' } });
    await cache.set('b', 'late', { transaction: { afterCommit: () => {}, finished: 'commit' } });
    await until(async () => (await cache.get('b')) === 'late');
    expect((await rejection(cache.del('b', { transaction: {} }))).name).toBe('TypeError');
  });

  test('counters: the ttl starts with the first increment, also by 0; sums stay exact', async () => {
    const counter = await manager.createCounter({ name: 'n', prefix: 'n' });
    expect(await counter.get('k')).toBe(0);
    expect(await counter.incrby('k', 0, 60_000)).toBe(0);
    const left = await server.call('PTTL', 'main:n:k');
    expect(left).toBeGreaterThan(50_000);
    expect(await counter.incr('k', 999_999)).toBe(1);
    await server.call('SCRIPT', 'FLUSH');
    expect(await counter.incrby('k', -3, 999_999)).toBe(-2);
    expect(await server.call('PTTL', 'main:n:k')).toBeLessThanOrEqual(left);
    expect(await counter.get('k')).toBe(-2);
    await counter.reset('k');
    expect(await counter.incr('k')).toBe(1);
    expect(await server.call('PTTL', 'main:n:k')).toBe(-1);
    await counter.incrby('big', Number.MAX_SAFE_INTEGER);
    expect(await counter.get('big')).toBe(Number.MAX_SAFE_INTEGER);
    expect((await rejection(counter.incr('big'))).code).toBe('E_COUNTER_RANGE');
    expect(await counter.get('big')).toBe(Number.MAX_SAFE_INTEGER);
    for (const wrong of [1.5, '1', NaN, null]) expect((await rejection(counter.incrby('k', wrong))).name).toBe('TypeError');
    await server.call('SET', 'main:n:text', 'x');
    expect(await rejection(counter.incr('text'))).toMatchObject({ code: 'E_REDIS', message: expect.stringContaining('main:n:text') });
    const sums = await Promise.all(Array.from({ length: 200 }, () => counter.incr('many')));
    expect(new Set(sums).size).toBe(200);
  });

  test('bloom filters, on a server without the Bloom module', async () => {
    const filter = await manager.createBloomFilter({ prefix: 'b' });
    await filter.add('f', 'x');
    expect(await filter.exists('f', 'x')).toBe(false);
    expect(await server.call('EXISTS', 'main:b:f')).toBe(0);
    await filter.reserve('f', 0.01, 1000);
    const members = Array.from({ length: 1000 }, (_, i) => `member ${i} ä😀`);
    await filter.mAdd('f', members);
    expect((await Promise.all(members.map((value) => filter.exists('f', value)))).every(Boolean)).toBe(true);
    const claimed = await Promise.all(Array.from({ length: 2000 }, (_, i) => filter.exists('f', `stranger ${i}`)));
    expect(claimed.filter(Boolean).length).toBeLessThan(60);
    // Reserving again keeps it.
    await filter.reserve('f', 0.5, 10);
    expect(await filter.exists('f', members[0])).toBe(true);
    await server.call('SCRIPT', 'FLUSH');
    await filter.add('f', 'after');
    expect(await filter.exists('f', 'after')).toBe(true);
    for (const [rate, capacity] of [[0, 10], [1, 10], [0.1, 0], ['x', 1]]) {
      expect((await rejection(filter.reserve('g', rate, capacity))).code).toBe('E_INVALID_ARGUMENT');
    }
    expect((await rejection(filter.add('f', 5))).name).toBe('TypeError');
  });

  test('cache.store is the cache of cache-manager, and its store the engine', async () => {
    const { store } = cache;
    await store.set('full:key', 1, 60_000);
    expect(await store.get('full:key')).toBe(1);
    const engine = store.store;
    expect(engine).toBeInstanceOf(defaultStore === 'redis' ? RedisStore : TieredStore);
    expect(engine.name).toBe(defaultStore);
    expect([engine.isCacheable(null), engine.isCacheable(0)]).toEqual([false, true]);
    expect(await engine.mget('full:key', 'x')).toEqual([1, undefined]);
    expect(await engine.keys('full:*')).toEqual(['full:key']);
    expect(await engine.ttl('full:key')).toBeGreaterThan(50_000);
    await engine.mset([['y', 1]]);
    await engine.mdel('y', 'full:key');
    expect(await engine.mget('full:key', 'y')).toEqual([undefined, undefined]);
  });

  test('after close a cache connects again', async () => {
    const own = managerOf({ defaultStore, prefix: 'main' }, { database: 5 });
    const closing = await own.createCache({ name: 'c', prefix: 'c' });
    await closing.set('k', 1);
    expect((await server.call('CLIENT', 'LIST')).match(/ db=5 /g)).toHaveLength(1);
    await own.close();
    await own.close();
    await until(async () => !(await server.call('CLIENT', 'LIST')).includes(' db=5 '));
    // Asking how it is does not open it.
    expect(own.health()).toEqual([]);
    expect((await server.call('CLIENT', 'LIST'))).not.toContain(' db=5 ');
    expect(await closing.get('k')).toBe(1);
    await own.flushAll();
    expect(await closing.get('k')).toBeUndefined();
  });
});

test('many caches share one connection', async () => {
  const manager = managerOf({ prefix: 'main' }, { database: 6 });
  const caches = await Promise.all(Array.from({ length: 20 }, (_, i) => manager.createCache({ name: `c${i}`, prefix: `c${i}`, ttl: i })));
  await Promise.all(caches.map((cache) => cache.set('k', 1)));
  expect((await server.call('CLIENT', 'LIST')).match(/ db=6 /g)).toHaveLength(1);
  expect(manager.health()).toMatchObject([{ state: 'ready', server: `${server.url}/6` }]);
});

describe('a server that goes away', () => {
  let proxy;
  beforeEach(async () => { proxy = await Proxy.to(server.port); });
  afterEach(() => proxy.close());

  test.each([['redis'], ['tiered']])('%s: reads are misses, wrap answers from its loader, writes reject, all works again', async (store) => {
    const logger = recorder();
    const manager = new CacheManager({ prefix: 'main', logger, stores: { [store]: { port: proxy.port, ...QUICK } } });
    managers.push(manager);
    const cache = await manager.createCache({ name: 'c', prefix: 'c', store });
    await cache.set('k', 1);
    for (let i = 0; i < 3; i++) expect(await cache.get('k')).toBe(1);
    proxy.mode = 'refuse';
    proxy.cut();
    await until(() => manager.health()[0].state === 'away');
    expect(await cache.get('k')).toBeUndefined();
    expect(await cache.mget('k', 'x')).toEqual([undefined, undefined]);
    expect(await cache.ttl('k')).toBe(-2);
    expect(await cache.wrap('k', async () => 'loaded')).toBe('loaded');
    expect(await cache.wrap('k', async () => 'loaded', 1000, { singleFlight: 'cluster' })).toBe('loaded');
    for (const write of [() => cache.set('k', 2), () => cache.del('k'), () => cache.mset([['k', 2]]), () => cache.mdel('k'), () => cache.reset(), () => cache.setValueInObject('o', 'f', 1)]) {
      expect((await rejection(write())).code).toBe('E_UNAVAILABLE');
    }
    expect((await rejection(cache.set('k', 2))).message).toContain('main:c:k');
    proxy.mode = 'pass';
    await until(async () => (await cache.get('k')) === 1);
    expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'info').map(({ level }) => level)).toEqual(['warn', 'info']);
  });

  test('the app starts, and its cache works as soon as the server is there', async () => {
    proxy.mode = 'refuse';
    const app = createApp({ redis: { port: proxy.port, ...QUICK }, cacheManager: { defaultStore: 'redis' }, logger: recorder() });
    await app.start();
    expect(await app.cache.wrap('k', async () => 'loaded')).toBe('loaded');
    proxy.mode = 'pass';
    await until(async () => app.cache.set('k', 1).then(() => true, () => false));
    expect(await server.call('GET', 'main:k')).toBe('1');
    await app.stop();
  });
});

describe('wrap across the cluster', () => {
  const two = async (options = {}, store = 'redis') => {
    const make = (reconnectGrace) => managerOf({ defaultStore: store, prefix: 'main' }, { reconnectGrace }).createCache({ name: 'c', prefix: 'c', ...options });
    return [await make(900), await make(901)];
  };

  test.each([['redis'], ['tiered']])('singleFlight on %s: one loader among four processes of 200 callers each', async (store) => {
    const code = `
      (async () => {
        const cache = await new mortise.CacheManager({ prefix: 'main', stores: { ${store}: { url: '${server.url}' } } })
          .createCache({ name: 'c', prefix: 'c', store: '${store}', singleFlight: 'cluster' });
        await cache.get('x');
        console.log('ready');
        process.stdin.once('data', async () => {
          let loaded = 0;
          const load = async () => { loaded++; await new Promise((r) => setTimeout(r, 100)); return { from: process.pid }; };
          const values = await Promise.all(Array.from({ length: 200 }, () => cache.wrap('k', load, 60_000)));
          console.log(JSON.stringify({ loaded, from: [...new Set(values.map(({ from }) => from))] }));
          process.exit();
        });
      })();`;
    const runs = Array.from({ length: 4 }, () => child(code, { stdin: 'pipe' }));
    await until(() => runs.every(({ lines }) => lines.includes('ready')));
    for (const run of runs) run.handle.stdin.write('go\n');
    await Promise.all(runs.map((run) => run.exit));
    const results = runs.map(({ lines }) => JSON.parse(lines[1]));
    expect(results.reduce((sum, { loaded }) => sum + loaded, 0)).toBe(1);
    expect(new Set(results.flatMap(({ from }) => from)).size).toBe(1);
    expect(await server.call('KEYS', 'mortise:load:*')).toEqual([]);
  });

  test('a loader that fails lets the next node load', async () => {
    const [a, b] = await two({ singleFlight: 'cluster' });
    const { promise, reject } = gate();
    const first = rejection(a.wrap('k', () => promise));
    await until(async () => (await server.call('KEYS', 'mortise:load:*')).length === 1);
    const second = b.wrap('k', async () => 'second');
    reject(new Error('no'));
    expect((await first).message).toBe('no');
    expect(await second).toBe('second');
    expect(await a.get('k')).toBe('second');
  });

  test('a change by another node while loading: what was loaded is not stored', async () => {
    const [a, b] = await two({ singleFlight: 'cluster' });
    for (const change of [() => b.del('k'), () => b.set('k', 'new'), () => b.mdel('k'), () => b.mset([['k', 'new']])]) {
      await a.del('k');
      const { promise, resolve } = gate();
      const loading = a.wrap('k', () => promise);
      await until(async () => (await server.call('KEYS', 'mortise:load:*')).length === 1);
      await change();
      resolve('old');
      expect(await loading).toBe('old');
      expect(await a.get('k')).not.toBe('old');
    }
  });

  test('a lease that is lost falls back to loading locally, and stores nothing', async () => {
    const [a, b] = await two({ singleFlight: 'cluster' });
    const { promise, resolve } = gate();
    const first = a.wrap('k', () => promise);
    await until(async () => (await server.call('KEYS', 'mortise:load:*')).length === 1);
    await server.call('DEL', ...(await server.call('KEYS', 'mortise:load:*')));
    expect(await b.wrap('k', async () => 'b')).toBe('b');
    resolve('a');
    expect(await first).toBe('a');
    expect(await a.get('k')).toBe('b');
  });

  test('keys with braces of all kinds', async () => {
    const [a] = await two({ singleFlight: 'cluster' });
    for (const key of ['{tag}k', 'a}b', '{}x', 'a{b', 'x{y}z}', '}{']) {
      expect(await a.wrap(key, async () => key)).toBe(key);
      expect(await a.get(key)).toBe(key);
      await a.del(key);
    }
  });
});

describe.each([['memory'], ['redis'], ['tiered']])('lapsed entries on %s', (store) => {
  const make = async (options) => managerOf({ defaultStore: store, prefix: 'main' }).createCache({ name: 'c', prefix: 'c', ...options });
  const lapsed = async (cache, key) => until(async () => (await cache.get(key)) === undefined);

  test('staleWhileRevalidate: the lapsed value at once, the new one soon', async () => {
    const cache = await make({ staleWhileRevalidate: 60_000 });
    await cache.wrap('k', async () => 'old', 30);
    await lapsed(cache, 'k');
    const { promise, resolve } = gate();
    const loader = jest.fn(() => promise);
    expect(await cache.wrap('k', loader, 60_000)).toBe('old');
    expect(await cache.wrap('k', loader, 60_000)).toBe('old');
    resolve('new');
    await until(async () => (await cache.get('k')) === 'new');
    expect(loader).toHaveBeenCalledTimes(1);
    expect(await cache.keys()).toEqual(['k']);
  });

  test('grace: the lapsed value when the loader fails, and only then', async () => {
    const cache = await make({ grace: 60_000 });
    await cache.set('k', 'old', 30);
    await lapsed(cache, 'k');
    const errors = [];
    cache.store.on('error', ({ error }) => errors.push(error.message));
    expect(await cache.wrap('k', async () => { throw new Error('no'); })).toBe('old');
    expect(errors).toEqual(['no']);
    expect(await cache.wrap('k', async () => 'new', 30)).toBe('new');
    await cache.del('k');
    expect((await rejection(cache.wrap('k', async () => { throw new Error('no'); }))).message).toBe('no');
    await cache.mset([['k', 'x']], 30);
    await lapsed(cache, 'k');
    expect(await cache.wrap('k', async () => { throw new Error('no'); })).toBe('x');
    await cache.reset();
    expect((await rejection(cache.wrap('k', async () => { throw new Error('no'); }))).message).toBe('no');
  });

  test('softTimeout gives what has lapsed, hardTimeout rejects; the loader goes on', async () => {
    const cache = await make({ grace: 60_000, softTimeout: 20, hardTimeout: 40 });
    await cache.set('k', 'old', 30);
    await lapsed(cache, 'k');
    const { promise, resolve } = gate();
    expect(await cache.wrap('k', () => promise, 60_000)).toBe('old');
    resolve('new');
    await until(async () => (await cache.get('k')) === 'new');
    const late = gate();
    const error = await rejection(cache.wrap('other', () => late.promise));
    expect(error).toMatchObject({ code: 'E_LOADER_TIMEOUT', message: expect.stringContaining('main:c:other') });
    late.resolve('late');
    await until(async () => (await cache.get('other')) === 'late');
  });

  test.each([[{ grace: -1 }], [{ singleFlight: 'world' }], [{ softTimeout: 'x' }]])('the options %p are TypeErrors', async (options) => {
    const own = managerOf({ defaultStore: store }, { database: 9 });
    expect((await rejection(own.createCache({ name: 'c', ...options }))).name).toBe('TypeError');
    expect((await server.call('CLIENT', 'LIST')).match(/ db=9 /g)).toBeNull();
  });
});

describe('as an engine', () => {
  test('the factories are those of cache-manager 5', async () => {
    for (const factory of [redisStore, tieredStore]) {
      const store = await factory({ url: server.url, ttl: 60_000, keyPrefix: 'mine:' });
      await store.set('mine:k', { n: 1 });
      expect(await store.get('mine:k')).toEqual({ n: 1 });
      expect(await store.ttl('mine:k')).toBeGreaterThan(50_000);
      await server.call('SET', 'theirs', '1');
      await store.reset();
      expect(await server.call('KEYS', '*')).toEqual(['theirs']);
      store.close();
      const whole = await factory({ url: server.url });
      await whole.reset();
      expect(await server.call('DBSIZE')).toBe(0);
      whole.close();
    }
  });

  test.each([[{}], [{ keyPrefix: 'app:' }]])('the unmodified manager of @nocobase/cache runs on ours, with %p', async (settings) => {
    const { CacheManager: Theirs } = require('@nocobase/cache');
    const manager = new Theirs({
      defaultStore: 'ours', prefix: 'app',
      stores: {
        ours: { store: redisStore, close: async (store) => store.close(), url: server.url, ...settings },
        tiered: { store: tieredStore, close: async (store) => store.close(), url: server.url, ...settings },
      },
    });
    for (const store of ['ours', 'tiered']) {
      const cache = await manager.createCache({ name: 'c', prefix: 'c', store });
      await cache.set('k', { n: 1 }, 60_000);
      expect(await server.call('GET', 'app:c:k')).toBe('{"n":1}');
      expect(await cache.get('k')).toEqual({ n: 1 });
      expect(await cache.wrap('w', async () => 'loaded')).toBe('loaded');
      expect(await cache.wrapWithCondition('v', async () => 5)).toBe(5);
      await cache.mset([['a', 1], ['b', 2]]);
      expect(await cache.mget('a', 'none', 'b')).toEqual([1, undefined, 2]);
      await cache.mdel('a', 'b');
      await cache.setValueInObject('o', 'f', 1);
      expect(await cache.getValueInObject('o', 'f')).toBe(1);
      await cache.reset();
      expect(await cache.get('k')).toBeUndefined();
    }
    await manager.close();
  });

  test('plain cache-manager 5 runs on ours', async () => {
    const { caching } = require('cache-manager');
    for (const factory of [redisStore, tieredStore]) {
      const cache = await caching(factory, { url: server.url, ttl: 60_000 });
      await cache.set('k', [1]);
      expect(await cache.get('k')).toEqual([1]);
      expect(await cache.wrap('w', async () => 'loaded')).toBe('loaded');
      expect(await cache.store.ttl('w')).toBeGreaterThan(50_000);
      await cache.del('k');
      expect(await cache.get('k')).toBeUndefined();
      cache.store.close();
    }
  });

  test("NocoBase's own Redis store, registered with our manager, and ours read each other's entries", async () => {
    const { redisStore: theirs } = require('cache-manager-redis-yet');
    const manager = managerOf({ prefix: 'main' });
    manager.registerStore({ name: 'theirs', store: theirs, close: (store) => store.client.quit(), url: server.url });
    const [old, ours] = [await manager.createCache({ name: 'x', prefix: 'x', store: 'theirs' }), await manager.createCache({ name: 'x', prefix: 'x', store: 'redis' })];
    await old.set('k', { a: ['ä', null] }, 60_000);
    expect(await ours.get('k')).toEqual({ a: ['ä', null] });
    expect(await ours.ttl('k')).toBeGreaterThan(50_000);
    await ours.set('k', { b: 1 });
    expect(await old.get('k')).toEqual({ b: 1 });
    await old.reset();
    expect(await ours.get('k')).toBeUndefined();
  });

  test('bloom filters by the module of a server that has it', async () => {
    // A server that knows just what a bloom filter of the module is.
    const filters = new Map();
    const answer = (name, key, ...rest) => {
      switch (name.toUpperCase()) {
        case 'BF.RESERVE': {
          if (filters.has(key)) return '-ERR item exists\r\n';
          filters.set(key, new Set());
          return '+OK\r\n';
        }
        case 'BF.INSERT': {
          if (!filters.has(key)) return '-ERR not found\r\n';
          for (const value of rest.slice(2)) filters.get(key).add(value);
          return `*${rest.length - 2}\r\n${':1\r\n'.repeat(rest.length - 2)}`;
        }
        case 'BF.EXISTS': return `:${Number(filters.get(key)?.has(rest[0]) ?? false)}\r\n`;
        case 'HELLO': return "-ERR unknown command 'HELLO'\r\n";
        default: return '+OK\r\n';
      }
    };
    const fake = require('node:net').createServer((socket) => {
      socket.on('error', () => {});
      socket.on('data', (data) => {
        const words = data.toString().split('\r\n');
        for (let at = 0; words[at]?.startsWith('*');) {
          const count = Number(words[at].slice(1));
          socket.write(answer(...Array.from({ length: count }, (_, i) => words[at + 2 + i * 2])));
          at += 1 + count * 2;
        }
      });
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => fake.once('listening', resolve));
    const manager = managerOf({ prefix: 'main' }, { url: undefined, port: fake.address().port });
    const filter = await manager.createBloomFilter({ prefix: 'b' });
    await filter.add('f', 'x');
    expect(await filter.exists('f', 'x')).toBe(false);
    await filter.reserve('f', 0.01, 100);
    await filter.reserve('f', 0.01, 100);
    await filter.mAdd('f', ['x', 'y']);
    expect(await Promise.all(['x', 'y', 'z'].map((value) => filter.exists('f', value)))).toEqual([true, true, false]);
    expect([...filters.keys()]).toEqual(['main:b:f']);
    await manager.close();
    await new Promise((resolve) => fake.close(resolve));
  });

  test('a store of another maker, registered with our manager, works with ours beside it', async () => {
    const engine = new MemoryStore();
    const theirs = { name: 'theirs', isCacheable: () => true };
    for (const method of ['get', 'set', 'del', 'reset', 'mset', 'mget', 'mdel', 'keys', 'ttl']) theirs[method] = (...values) => engine[method](...values);
    const manager = managerOf({ prefix: 'main' });
    const closed = jest.fn();
    manager.registerStore({ name: 'theirs', store: async () => theirs, close: closed });
    const cache = await manager.createCache({ name: 't', prefix: 't', store: 'theirs', grace: 1000 });
    expect(await cache.wrap('k', async () => 1, 1000)).toBe(1);
    expect(await cache.get('k')).toBe(1);
    await manager.close();
    expect(closed).toHaveBeenCalledWith(theirs);
  });

  test('tiered: true on a redis store', async () => {
    const cache = await managerOf().createCache({ name: 'c', prefix: 'c', tiered: true });
    expect(cache.store.store).toBeInstanceOf(TieredStore);
  });
});

test('on a cluster', async () => {
  const cluster = await startCluster();
  try {
    for (const store of ['redis', 'tiered']) {
      const manager = new CacheManager({ defaultStore: store, prefix: 'main', stores: { [store]: { url: cluster.url } } });
      managers.push(manager);
      const cache = await manager.createCache({ name: 'c', prefix: 'c', singleFlight: 'cluster', grace: 1000 });
      await cluster.nodes[0].call('SET', '{06S}foreign', '1').catch(() => {});
      const keys = Array.from({ length: 500 }, (_, i) => `k${i}`);
      await cache.mset(keys.map((key, i) => [key, { i }]), 60_000);
      expect(await cache.mget(...keys)).toEqual(keys.map((_, i) => ({ i })));
      expect((await cache.keys()).sort()).toEqual([...keys].sort());
      const other = new RedisConnection(cluster.url);
      // A change by somebody else, on each of the masters.
      await Promise.all(keys.slice(400).map((key) => other.command('SET', `main:c:${key}`, '{"i":"new"}')));
      await until(async () => (await cache.mget(...keys.slice(400))).every(({ i }) => i === 'new'));
      other.close();
      await cache.mdel(...keys.slice(0, 250));
      expect((await cache.keys())).toHaveLength(250);
      expect(await cache.wrap('w', async () => 1, 60_000)).toBe(1);
      await cache.setValueInObject('o', 'f', 1);
      const counter = await manager.createCounter({ name: 'n', prefix: 'n' });
      expect(await Promise.all(['a', 'b', 'c', 'd'].map((key) => counter.incr(key)))).toEqual([1, 1, 1, 1]);
      const filter = await manager.createBloomFilter({});
      await filter.reserve('f', 0.01, 100);
      await filter.add('f', 'x');
      expect([await filter.exists('f', 'x'), await filter.exists('f', 'y')]).toEqual([true, false]);
      await cache.reset();
      expect(await cache.keys()).toEqual([]);
      expect(await cache.get('k300')).toBeUndefined();
      expect(await counter.get('a')).toBe(1);
      await counter.reset('a');
      for (const node of cluster.nodes) await node.call('FLUSHALL');
    }
  } finally {
    await cluster.stop();
  }
}, 60_000);
