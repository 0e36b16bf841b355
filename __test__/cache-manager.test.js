'use strict';
const { CacheManager } = require('..');
const { rejection } = require('./support');

/** A store as a plugin author would write one for cache-manager 5. */
const mapStore = () => {
  const entries = new Map();
  return {
    entries,
    get: async (key) => entries.get(key),
    set: async (key, value) => void entries.set(key, structuredClone(value)),
    del: async (key) => void entries.delete(key),
    reset: async () => entries.clear(),
    mset: async (pairs) => pairs.forEach(([key, value]) => entries.set(key, value)),
    mget: async (...keys) => keys.map((key) => entries.get(key)),
    mdel: async (...keys) => keys.forEach((key) => entries.delete(key)),
    keys: async () => [...entries.keys()],
    ttl: async () => -1,
  };
};

let manager;
let cache;
beforeEach(async () => {
  manager = new CacheManager({ prefix: 'main' });
  cache = await manager.createCache({ name: 'test', prefix: 'p' });
});

describe('the manager', () => {
  test('getCache, caches, storeTypes, defaultStore, prefix', async () => {
    expect(manager.getCache('test')).toBe(cache);
    expect(() => manager.getCache('x')).toThrow('Get cache failed, x is not found');
    expect(manager.caches.get('test')).toBe(cache);
    expect(manager.storeTypes.get('memory')).toMatchObject({ store: 'memory', max: 2000 });
    expect(manager.defaultStore).toBe('memory');
    expect(manager.prefix).toBe('main');
    expect(cache.name).toBe('test');
    expect(cache.prefix).toBe('main:p');
  });

  test('options merge over the defaults', async () => {
    const other = new CacheManager({ stores: { memory: { ttl: 60_000 }, mine: { store: mapStore } } });
    expect(other.storeTypes.get('memory')).toMatchObject({ store: 'memory', max: 2000, ttl: 60_000 });
    const c = await other.createCache({ name: 'c' });
    expect(c.key('k')).toBe('k');
    await c.set('k', 1);
    expect(await c.ttl('k')).toBeGreaterThan(50_000);
  });

  test('the same name again replaces the cache with an empty one', async () => {
    await cache.set('a', 1);
    const again = await manager.createCache({ name: 'test', prefix: 'p' });
    expect(await again.get('a')).toBeUndefined();
    expect(manager.getCache('test')).toBe(again);
    expect(await cache.get('a')).toBe(1);
  });

  test('an unknown store type is a clear error', async () => {
    const error = await rejection(manager.createCache({ name: 'c', store: 'x' }));
    expect(error.message).toContain('Create cache failed, store type [x] is unavailable or not registered');
    expect(error.code).toBe('E_STORE_UNAVAILABLE');
  });

  test('flushAll empties every cache, and memory works after close', async () => {
    const other = await manager.createCache({ name: 'other' });
    await Promise.all([cache.set('a', 1), other.set('b', 1)]);
    await manager.flushAll();
    expect([await cache.keys(), await other.keys()]).toEqual([[], []]);
    await manager.close();
    await manager.close();
    await cache.set('a', 1);
    expect(await cache.get('a')).toBe(1);
  });

  test('a cache without a name is a TypeError', async () => {
    expect((await rejection(manager.createCache({}))).name).toBe('TypeError');
    expect((await rejection(manager.createCache())).name).toBe('TypeError');
  });
});

describe('a store written in JavaScript', () => {
  const register = (more) => {
    const made = [];
    manager.registerStore({ name: 'mine', store: (config) => { made.push(config); return mapStore(); }, ...more });
    return made;
  };

  test('is shared by the caches that give no options of their own, and reset leaves the others', async () => {
    const made = register({ setting: 1 });
    const [a, b] = await Promise.all([
      new CacheManager({ prefix: 'm', stores: { mine: manager.storeTypes.get('mine') } }),
    ].flatMap((m) => [m.createCache({ name: 'a', store: 'mine' }), m.createCache({ name: 'b', store: 'mine' })]));
    expect(made).toEqual([{ setting: 1 }]);
    await a.set('k', 1);
    expect(await b.get('k')).toBe(1);
    const own = await manager.createCache({ name: 'own', prefix: 'own', store: 'mine', extra: 2 });
    expect(made[1]).toMatchObject({ setting: 1, extra: 2 });
    await own.set('k', 1);
    await own.store.store.set('foreign', 1);
    expect(await own.keys()).toEqual(['k']);
    await own.reset();
    expect(await own.get('k')).toBeUndefined();
    expect(await own.store.get('foreign')).toBe(1);
  });

  test('its close is called with the engine', async () => {
    const closed = [];
    register({ close: async (engine) => closed.push(engine) });
    const c = await manager.createCache({ name: 'c', store: 'mine' });
    await manager.close();
    expect(closed).toEqual([c.store.store]);
  });

  test('a factory that fails rejects, and the next cache tries again', async () => {
    let fail = true;
    manager.registerStore({ name: 'flaky', store: async () => { if (fail) throw new Error('away'); return mapStore(); } });
    expect((await rejection(manager.createCache({ name: 'c', store: 'flaky' }))).message).toBe('away');
    expect(() => manager.getCache('c')).toThrow('not found');
    fail = false;
    const c = await manager.createCache({ name: 'c', store: 'flaky' });
    await c.set('a', 1);
    expect(await c.get('a')).toBe(1);
  });

  test('createCacheSync is usable at once', async () => {
    register();
    const c = manager.createCacheSync({ name: 'c', store: 'mine' });
    await c.set('a', 1);
    expect(await c.get('a')).toBe(1);
    expect(await c.keys()).toEqual(['a']);
  });

  test('wrap answers from its loader while the store fails, and says so by an event', async () => {
    const broken = mapStore();
    broken.get = broken.set = async () => { throw new Error('down'); };
    manager.registerStore({ name: 'broken', store: () => broken });
    const c = await manager.createCache({ name: 'c', store: 'broken' });
    const events = [];
    c.store.on('error', (event) => events.push(event.operation));
    expect(await c.wrap('a', () => 5)).toBe(5);
    expect(events).toEqual(['get', 'set']);
    expect((await rejection(c.get('a'))).message).toBe('down');
  });

  test('concurrent changes of fields all take effect on it too', async () => {
    register();
    const c = await manager.createCache({ name: 'c', store: 'mine' });
    await Promise.all(Array.from({ length: 50 }, (_, i) => c.setValueInObject('o', `f${i}`, i)));
    expect(Object.keys(await c.get('o'))).toHaveLength(50);
  });

  test('counters need locks there', async () => {
    register();
    const error = await rejection(manager.createCounter({ name: 'n', store: 'mine' }));
    expect(error.message).toBe('Counter store [mine] is not supported');
    let turn = Promise.resolve();
    const locks = { runExclusive: (_, fn) => (turn = turn.then(fn)) };
    const counter = await manager.createCounter({ name: 'n', store: 'mine' }, locks);
    await Promise.all(Array.from({ length: 20 }, () => counter.incr('a')));
    expect(await counter.get('a')).toBe(20);
    await counter.reset('a');
    expect(await counter.get('a')).toBe(0);
  });
});

describe('counters', () => {
  test('count atomically, and the ttl starts with the first increment', async () => {
    const counter = await manager.createCounter({ name: 'n' });
    expect(await counter.get('a')).toBe(0);
    const sums = await Promise.all(Array.from({ length: 100 }, () => counter.incr('a')));
    expect(sums[99]).toBe(100);
    expect(await counter.incrby('a', -40)).toBe(60);
    expect(await counter.incrby('a', 0)).toBe(60);
    await counter.reset('a');
    expect(await counter.get('a')).toBe(0);
    await counter.incr('t', 400);
    await counter.incr('t', 60_000);
    const start = performance.now();
    while (performance.now() - start < 420);
    expect(await counter.get('t')).toBe(0);
    expect(await counter.incr('t')).toBe(1);
  });

  test('only integers, and never beyond what a number holds exactly', async () => {
    const counter = await manager.createCounter({ name: 'n' });
    for (const value of [NaN, 1.5, '1', undefined, Infinity]) {
      expect((await rejection(counter.incrby('a', value))).name).toBe('TypeError');
    }
    await counter.incrby('a', Number.MAX_SAFE_INTEGER);
    expect((await rejection(counter.incr('a'))).code).toBe('E_COUNTER_RANGE');
    expect(await counter.get('a')).toBe(Number.MAX_SAFE_INTEGER);
  });
});

describe('bloom filters', () => {
  test('reserve, add, mAdd, exists', async () => {
    const filter = await manager.createBloomFilter();
    await filter.add('f', 'x');
    expect(await filter.exists('f', 'x')).toBe(false);
    await filter.reserve('f', 0.01, 1000);
    await filter.add('f', 'x');
    await filter.mAdd('f', ['y', 'z']);
    expect(await Promise.all(['x', 'y', 'z', 'w'].map((value) => filter.exists('f', value))))
      .toEqual([true, true, true, false]);
    expect(await (await manager.createBloomFilter()).exists('f', 'x')).toBe(true);
    expect(await (await manager.createBloomFilter({ prefix: 'q' })).exists('f', 'x')).toBe(false);
    await filter.reserve('f', 0.01, 1000);
    expect(await filter.exists('f', 'x')).toBe(false);
  });

  test('bad input and stores without filters are clear errors', async () => {
    const filter = await manager.createBloomFilter();
    for (const [rate, capacity] of [[0, 1], [1, 1], [NaN, 1], [0.1, 0], [0.1, 1e15], ['a', 1]]) {
      expect((await rejection(filter.reserve('f', rate, capacity))).name).toBe('TypeError');
    }
    await filter.reserve('f', 0.1, 10);
    expect((await rejection(filter.add('f', 5))).name).toBe('TypeError');
    expect((await rejection(filter.mAdd('f', ['a', 5]))).name).toBe('TypeError');
    expect((await rejection(manager.createBloomFilter({ store: 'x' }))).message)
      .toBe('BloomFilter store [x] is not supported');
  });
});
