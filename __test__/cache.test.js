'use strict';
const { CacheManager, MemoryStore } = require('..');

const { gate, rejection, until } = require('./support');

let manager;
let cache;
beforeEach(async () => {
  manager = new CacheManager({ prefix: 'main' });
  cache = await manager.createCache({ name: 'test', prefix: 'p' });
});

describe('values', () => {
  test('set, get and del, and what is absent is undefined', async () => {
    expect(await cache.set('a', { x: 1 })).toBeUndefined();
    expect(await cache.get('a')).toEqual({ x: 1 });
    expect(await cache.del('a')).toBeUndefined();
    expect(await cache.get('a')).toBeUndefined();
    await cache.del('never there');
  });

  test('changes take effect before the call returns', async () => {
    const set = cache.set('a', 1);
    const before = cache.get('a');
    cache.del('a');
    const after = cache.get('a');
    expect(await Promise.all([set, before, after])).toEqual([undefined, 1, undefined]);
    cache.mset([['b', 2], ['c', 3]]);
    const mget = cache.mget('c', 'x', 'b');
    cache.mdel('b', 'c');
    expect(await mget).toEqual([3, undefined, 2]);
    expect(await cache.mget('b', 'c')).toEqual([undefined, undefined]);
    cache.set('d', 4);
    cache.reset();
    expect(await cache.get('d')).toBeUndefined();
  });

  test('changing the original later changes nothing, and every get gives the same object', async () => {
    const original = { list: [1], nested: { deep: { x: 1 } } };
    await cache.set('a', original);
    original.list.push(2);
    original.nested.deep.x = 2;
    expect(await cache.get('a')).toEqual({ list: [1], nested: { deep: { x: 1 } } });
    expect(await cache.get('a')).toBe(await cache.get('a'));
  });

  test('what JSON cannot hold is kept', async () => {
    class Model {
      constructor() { this.dataValues = { id: 1 }; }
      get id() { return this.dataValues.id; }
    }
    const symbol = Symbol('s');
    const fn = () => 1;
    const shared = { n: 1 };
    const cyclic = { name: 'c', a: shared, b: shared };
    cyclic.self = cyclic;
    const original = {
      model: new Model(), date: new Date(5), map: new Map([['k', { v: 1 }]]), set: new Set([1]),
      buffer: Buffer.from('abc'), big: 10n, cyclic, [symbol]: { s: 1 }, fn, undef: undefined, nan: NaN, re: /x/g,
    };
    await cache.set('a', original);
    original.model.dataValues.id = 2;
    original.map.get('k').v = 2;
    original[symbol].s = 2;
    const got = await cache.get('a');
    expect(got.model).toBeInstanceOf(Model);
    expect(got.model.id).toBe(1);
    expect(got.date.getTime()).toBe(5);
    expect(got.map.get('k')).toEqual({ v: 1 });
    expect(got.set.has(1)).toBe(true);
    expect(got.buffer.equals(Buffer.from('abc'))).toBe(true);
    expect(got.big).toBe(10n);
    expect(got.cyclic.self).toBe(got.cyclic);
    expect(got.cyclic.a).toBe(got.cyclic.b);
    expect(got.cyclic.a).not.toBe(shared);
    expect(got[symbol]).toEqual({ s: 1 });
    expect(got.fn).toBe(fn);
    expect('undef' in got).toBe(true);
    expect(got.re).toEqual(/x/g);
  });

  test.each([
    ['a plain tree', () => ({ a: [{ b: [{ c: [1, 'x', null, undefined] }] }], d: new Date(1) })],
    ['an object met twice far apart', () => {
      const twice = { t: 1 };
      return { list: [{}, {}, {}, {}, {}, twice, {}, twice] };
    }],
    ['one very deep', () => {
      let value = { end: true };
      for (let i = 0; i < 1000; i++) value = { value };
      return value;
    }],
    ['a field called __proto__', () => JSON.parse('{"__proto__": {"x": [1]}, "y": 1}')],
    ['an object without a prototype', () => Object.assign(Object.create(null), { x: { y: 1 } })],
    ['a sparse array', () => { const list = [1]; list[5] = { x: 1 }; return list; }],
  ])('a copy of %s equals it and shares nothing with it', async (_, make) => {
    const original = make();
    await cache.set('a', original);
    const got = await cache.get('a');
    expect(got).toEqual(original);
    const objects = new Set();
    const collect = (value) => {
      if (typeof value !== 'object' || value === null || objects.has(value)) return;
      objects.add(value);
      for (const key of Reflect.ownKeys(value)) collect(value[key]);
    };
    collect(original);
    const shared = [];
    const seen = new Set();
    const check = (value) => {
      if (typeof value !== 'object' || value === null || seen.has(value)) return;
      seen.add(value);
      if (objects.has(value)) shared.push(value);
      for (const key of Reflect.ownKeys(value)) check(value[key]);
    };
    check(got);
    expect(shared).toEqual([]);
    expect(seen.size).toBe(objects.size);
  });

  test('a getter of the value that uses the cache itself does not disturb the copy', async () => {
    const value = {
      first: { a: 1 },
      get second() {
        cache.set('inner', { list: [{ x: 1 }, { y: 2 }] });
        return { b: [2] };
      },
      third: [{ c: 3 }],
    };
    await cache.set('outer', value);
    expect(await cache.get('outer')).toEqual({ first: { a: 1 }, second: { b: [2] }, third: [{ c: 3 }] });
    expect(await cache.get('inner')).toEqual({ list: [{ x: 1 }, { y: 2 }] });
  });

  test('shouldCloneBeforeSet: false keeps the object itself', async () => {
    const own = await manager.createCache({ name: 'own', shouldCloneBeforeSet: false });
    const value = {};
    await own.set('a', value);
    expect(await own.get('a')).toBe(value);
  });

  test('null is a value, undefined is not', async () => {
    await cache.set('a', null);
    expect(await cache.get('a')).toBeNull();
    const error = await rejection(cache.set('b', undefined));
    expect(error.message).toBe('no cacheable value undefined');
    expect(error.code).toBe('E_NOT_CACHEABLE');
    expect((await rejection(cache.mset([['c', 1], ['d', undefined]]))).code).toBe('E_NOT_CACHEABLE');
    expect(await cache.get('c')).toBeUndefined();
  });

  test('isCacheable decides', async () => {
    const own = await manager.createCache({ name: 'own', isCacheable: (value) => value !== 0 });
    expect((await rejection(own.set('a', 0))).message).toBe('no cacheable value 0');
    expect((await rejection(own.set('a', 0))).code).toBe('E_NOT_CACHEABLE');
    await own.set('b', undefined);
  });
});

describe('keys', () => {
  test.each([[undefined], [null], [5], [{}], [Symbol('x')], [['a']], [10n]])('%p is not a key', async (key) => {
    for (const call of [
      () => cache.get(key), () => cache.set(key, 1), () => cache.del(key), () => cache.mget(key),
      () => cache.mset([[key, 1]]), () => cache.mdel(key), () => cache.ttl(key), () => cache.wrap(key, () => 1),
      () => cache.wrapWithCondition(key, () => 1), () => cache.setValueInObject(key, 'a', 1),
    ]) {
      const error = await rejection(call());
      expect(error.name).toBe('TypeError');
      expect(error.code).toBe('E_INVALID_ARGUMENT');
    }
  });

  test('any Unicode, the empty key and huge keys; lone surrogates stay apart', async () => {
    const keys = ['', 'ключ', '😀', '\ud800', '\ud801', '\udc00', 'a\0b', '\ufffd', 'x'.repeat(1e6)];
    for (const [index, key] of keys.entries()) await cache.set(key, index);
    expect(await cache.mget(...keys)).toEqual(keys.map((_, index) => index));
    expect(new Set(await cache.keys())).toEqual(new Set(keys));
  });

  test('keys are listed without the prefix, by glob, and not when they have lapsed', async () => {
    await cache.mset([['user:1', 1], ['user:2', 2], ['role:1', 3], ['a*b', 4]]);
    await cache.set('user:3', 1, -1);
    expect((await cache.keys()).sort()).toEqual(['a*b', 'role:1', 'user:1', 'user:2']);
    expect((await cache.keys('user:*')).sort()).toEqual(['user:1', 'user:2']);
    expect(await cache.keys('*:[13]')).toHaveLength(2);
    expect(await cache.keys('a\\*b')).toEqual(['a*b']);
    expect(await cache.keys('nothing')).toEqual([]);
  });

  test('key() joins the prefixes, and code that reaches in sees full keys', async () => {
    expect(cache.key('k')).toBe('main:p:k');
    await cache.set('k', 1);
    expect(await cache.store.get('main:p:k')).toBe(1);
    expect(await cache.store.store.keys()).toEqual(['main:p:k']);
    await cache.store.set('main:p:other', 2);
    await cache.store.store.set('outside', 3);
    expect(await cache.get('other')).toBe(2);
    expect(await cache.get('outside')).toBeUndefined();
    expect(await cache.store.store.get('outside')).toBe(3);
    await cache.store.store.del('outside');
    expect(await cache.store.get('outside')).toBeUndefined();
    await cache.store.store.mset([['main:p:m', 5]]);
    expect(await cache.store.store.mget('main:p:m', 'x')).toEqual([5, undefined]);
    await cache.store.del('main:p:k');
    expect(await cache.get('k')).toBeUndefined();
    await cache.store.reset();
    expect(await cache.keys()).toEqual([]);
  });
});

describe('time to live', () => {
  test('an entry goes when its time has passed, and fractions count', async () => {
    await cache.set('a', 1, 400.5);
    const left = await cache.ttl('a');
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(400.5);
    const start = performance.now();
    while (performance.now() - start < 401);
    expect(await cache.get('a')).toBeUndefined();
    expect(await cache.ttl('a')).toBe(0);
  });

  test('an entry goes on time while the event loop is blocked', async () => {
    await cache.set('near', 1, 30);
    await cache.set('far', 1, 60_000);
    const start = performance.now();
    while (performance.now() - start < 40);
    expect(await cache.get('near')).toBeUndefined();
    expect(await cache.get('far')).toBe(1);
  });

  test('0 is none, absent is the default, negative has lapsed already, Infinity is none', async () => {
    await cache.set('zero', 1, 0);
    await cache.set('absent', 1);
    await cache.set('negative', 1, -5);
    await cache.set('infinite', 1, Infinity);
    expect(await cache.ttl('zero')).toBe(Infinity);
    expect(await cache.ttl('absent')).toBe(Infinity);
    expect(await cache.ttl('infinite')).toBe(Infinity);
    expect(await cache.get('negative')).toBeUndefined();
    await cache.set('zero', 2, -1);
    expect(await cache.get('zero')).toBeUndefined();
    const own = await manager.createCache({ name: 'own', ttl: 60_000 });
    await own.set('default', 1);
    await own.set('zero', 1, 0);
    expect(await own.ttl('default')).toBeGreaterThan(50_000);
    expect(await own.ttl('zero')).toBe(Infinity);
  });

  test('times beyond 2^31 ms work', async () => {
    await cache.set('a', 1, 2 ** 40);
    await cache.set('b', 1, Number.MAX_VALUE);
    expect(await cache.mget('a', 'b')).toEqual([1, 1]);
    expect(await cache.ttl('a')).toBeGreaterThan(2 ** 39);
  });

  test.each([[NaN], ['5'], [{}], [10n], [true]])('a ttl of %p is a TypeError', async (ttl) => {
    expect((await rejection(cache.set('a', 1, ttl))).name).toBe('TypeError');
    expect((await rejection(manager.createCache({ name: 'x', ttl }))).name).toBe('TypeError');
    expect(await cache.get('a')).toBeUndefined();
  });

  test('setting again replaces the time to live', async () => {
    await cache.set('a', 1, 10);
    await cache.set('a', 2, 60_000);
    await cache.set('b', 1, 60_000);
    await cache.set('b', 2);
    await cache.set('c', 1, 60_000);
    await cache.set('c', 1, 5);
    const start = performance.now();
    while (performance.now() - start < 15);
    expect(await cache.mget('a', 'b', 'c')).toEqual([2, 2, undefined]);
    expect(await cache.ttl('b')).toBe(Infinity);
  });

  test('lapsed entries are swept without being asked for', async () => {
    const store = new MemoryStore({ max: 10_000 });
    for (let i = 0; i < 5000; i++) await store.set(`k${i}`, i, 1 + (i % 5));
    await store.set('stays', 1, 60_000);
    await until(() => store.size === 1);
    expect(await store.keys()).toEqual(['stays']);
  });
});

describe('size', () => {
  test('at most max entries, 2000 by default', async () => {
    for (let i = 0; i < 3000; i++) await cache.set(`k${i}`, i);
    expect(await cache.keys()).toHaveLength(2000);
    expect(cache.store.store.size).toBe(2000);
  });

  test('get counts as use', async () => {
    const own = await manager.createCache({ name: 'own', max: 10 });
    await own.set('hot', 1);
    for (let i = 0; i < 1000; i++) {
      await own.set(`k${i}`, i);
      expect(await own.get('hot')).toBe(1);
    }
    expect(await own.keys()).toHaveLength(10);
  });

  test.each([[0], [-1], [1.5], [NaN], ['5'], [Infinity], [2 ** 31]])('a max of %p is a TypeError', async (max) => {
    expect((await rejection(manager.createCache({ name: 'x', max }))).name).toBe('TypeError');
  });

  test('random changes leave what a plain Map leaves', async () => {
    const own = await manager.createCache({ name: 'own', max: 100_000 });
    const model = new Map();
    let state = 12345;
    const random = (below) => (state = (state * 1103515245 + 12345) % 2147483648) % below;
    for (let i = 0; i < 20_000; i++) {
      const key = `k${random(3000)}`;
      switch (random(4)) {
        case 0: await own.del(key); model.delete(key); break;
        case 1: expect(await own.get(key)).toBe(model.get(key)); break;
        default: await own.set(key, i, random(2) ? 60_000 : undefined); model.set(key, i);
      }
    }
    expect((await own.keys()).sort()).toEqual([...model.keys()].sort());
    expect(await own.mget(...model.keys())).toEqual([...model.values()]);
  });
});

describe('wrap', () => {
  test('a miss loads once however many wait, a hit does not load', async () => {
    const { promise, resolve } = gate();
    const load = jest.fn(() => promise);
    const waiting = Array.from({ length: 100 }, () => cache.wrap('a', load));
    resolve({ x: 1 });
    const results = await Promise.all(waiting);
    expect(results.every((result) => result.x === 1)).toBe(true);
    await cache.wrap('a', load);
    expect(load).toHaveBeenCalledTimes(1);
  });

  test('an error reaches every waiter and nothing is stored', async () => {
    const load = jest.fn(async () => { throw new Error('no'); });
    const results = await Promise.allSettled([cache.wrap('a', load), cache.wrap('a', load)]);
    expect(results.map((result) => result.reason?.message)).toEqual(['no', 'no']);
    expect(load).toHaveBeenCalledTimes(1);
    expect(await cache.wrap('a', () => 5)).toBe(5);
    expect((await rejection(cache.wrap('b', () => { throw new Error('at once'); }))).message).toBe('at once');
  });

  test('falsy values are hits; undefined is given but not stored', async () => {
    for (const value of [0, '', false, null, NaN]) {
      await cache.wrap('a', () => value);
      const again = jest.fn();
      expect(await cache.wrap('a', again)).toBe(value);
      expect(again).not.toHaveBeenCalled();
      await cache.del('a');
    }
    expect(await cache.wrap('u', () => undefined)).toBeUndefined();
    expect(await cache.keys()).toEqual([]);
  });

  test('the ttl may be a function of the value', async () => {
    await cache.wrap('a', () => 60_000, (value) => value);
    await cache.wrap('b', () => 1, 60_000);
    expect(await cache.ttl('a')).toBeGreaterThan(50_000);
    expect(await cache.ttl('b')).toBeGreaterThan(50_000);
    expect((await rejection(cache.wrap('c', () => 1, NaN))).name).toBe('TypeError');
  });

  test.each([
    ['del', () => cache.del('a'), undefined],
    ['mdel', () => cache.mdel('a'), undefined],
    ['set', () => cache.set('a', 'newer'), 'newer'],
    ['mset', () => cache.mset([['a', 'newer']]), 'newer'],
    ['reset', () => cache.reset(), undefined],
  ])('what was being loaded during %s is not stored', async (_, change, expected) => {
    const { promise, resolve } = gate();
    const waiting = cache.wrap('a', () => promise);
    change();
    resolve('older');
    expect(await waiting).toBe('older');
    expect(await cache.get('a')).toBe(expected);
  });

  test('refreshThreshold refreshes in the background, and its failure is an event', async () => {
    const own = await manager.createCache({ name: 'own', refreshThreshold: 50_000 });
    await own.set('a', 1, 10_000);
    expect(await own.wrap('a', async () => 2, 100_000)).toBe(1);
    await until(() => own.store.store.read('main:a') === 2);
    expect(await own.wrap('a', async () => 3, 100_000)).toBe(2);
    const failed = new Promise((resolve) => own.store.on('error', resolve));
    await own.set('b', 1, 10_000);
    expect(await own.wrap('b', async () => { throw new Error('later'); })).toBe(1);
    expect((await failed).error.message).toBe('later');
  });

  test('a refresh whose failure nobody can take is nobody\'s unhandled rejection', async () => {
    const told = [];
    const own = await manager.createCache({
      name: 'own', refreshThreshold: 50_000, onBackgroundRefreshError: (error) => { told.push(error.message); throw new Error('mine'); },
    });
    own.store.on('error', ({ error }) => { told.push(error.message); });
    await own.set('a', 1, 10_000);
    expect(await own.wrap('a', async () => { throw new Error('later'); })).toBe(1);
    await until(() => told.length === 2);
    expect(told).toEqual(['later', 'mine']);
  });

  test('loaders that are no functions, and entries that are none, are TypeErrors', async () => {
    for (const call of [() => cache.wrap('a', 5), () => cache.wrapWithCondition('a'), () => cache.mset('x'), () => cache.store.store.mset(5)]) {
      expect(await rejection(call())).toMatchObject({ name: 'TypeError', code: 'E_INVALID_ARGUMENT' });
    }
  });

  test('wrapWithCondition', async () => {
    const load = jest.fn(async () => 1);
    expect(await cache.wrapWithCondition('a', load, { useCache: false })).toBe(1);
    expect(await cache.keys()).toEqual([]);
    await cache.wrapWithCondition('a', load, { ttl: 60_000 });
    await cache.wrapWithCondition('a', load);
    expect(load).toHaveBeenCalledTimes(2);
    expect(await cache.ttl('a')).toBeGreaterThan(50_000);
    await cache.wrapWithCondition('falsy', () => 0);
    expect(await cache.get('falsy')).toBeUndefined();
    await cache.wrapWithCondition('falsy', () => 0, { isCacheable: async () => true });
    expect(await cache.wrapWithCondition('falsy', () => 5)).toBe(0);
    await cache.wrapWithCondition('no', () => 7, { isCacheable: () => false });
    expect(await cache.get('no')).toBeUndefined();
    const { promise, resolve } = gate();
    const slow = jest.fn(() => promise);
    const both = [cache.wrapWithCondition('c', slow), cache.wrapWithCondition('c', slow)];
    resolve(9);
    expect(await Promise.all(both)).toEqual([9, 9]);
    expect(slow).toHaveBeenCalledTimes(1);
  });
});

describe('objects', () => {
  test('concurrent changes of fields all take effect', async () => {
    await Promise.all(Array.from({ length: 100 }, (_, i) => cache.setValueInObject('o', `f${i}`, { i })));
    expect(Object.keys(await cache.get('o'))).toHaveLength(100);
    expect(await cache.getValueInObject('o', 'f7')).toEqual({ i: 7 });
    await Promise.all(Array.from({ length: 99 }, (_, i) => cache.delValueInObject('o', `f${i}`)));
    expect(await cache.get('o')).toEqual({ f99: { i: 99 } });
  });

  test('absent objects and fields are undefined, also those that every object inherits', async () => {
    expect(await cache.getValueInObject('none', 'x')).toBeUndefined();
    await cache.setValueInObject('o', 'x', 1);
    expect(await cache.getValueInObject('o', 'constructor')).toBeUndefined();
    await cache.setValueInObject('o', '__proto__', { polluted: true });
    expect({}.polluted).toBeUndefined();
    expect(await cache.getValueInObject('o', '__proto__')).toEqual({ polluted: true });
    await cache.delValueInObject('none', 'x');
  });

  test('a value that is no object is left alone', async () => {
    await cache.set('s', 'text');
    expect((await rejection(cache.setValueInObject('s', 'x', 1))).name).toBe('TypeError');
    expect(await cache.get('s')).toBe('text');
  });
});
