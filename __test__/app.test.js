'use strict';
const { EventEmitter } = require('node:events');
const {
  CacheManager, createApp, EventQueue, install, isTransient, LockManager, maskSecrets, MemoryPubSubAdapter, Plugin,
  PubSubManager, serving, WorkerIdAllocator,
} = require('..');
const { ROOT, child, gate, recorder, rejection, temporaryFolder, until } = require('./support');

const apps = [];
let storage;
beforeEach(() => { process.env.STORAGE_PATH = storage = temporaryFolder(); });
afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.stop().catch(() => undefined)));
  delete process.env.STORAGE_PATH;
});

const makeApp = (options) => {
  const app = createApp({ logger: recorder(), ...options });
  apps.push(app);
  return app;
};

const withEnvironment = async (variables, action) => {
  const before = { ...process.env };
  Object.assign(process.env, variables);
  try {
    return await action();
  } finally {
    for (const name of Object.keys(variables)) delete process.env[name];
    Object.assign(process.env, before);
  }
};

describe('the app', () => {
  test('has all services, usable before it is started', async () => {
    const app = makeApp();
    expect(app.name).toBe('main');
    expect(app.cacheManager.getCache('main')).toBe(app.cache);
    expect(app.cache.key('k')).toBe('main:k');
    await app.cache.set('k', 1);
    expect(await app.cache.get('k')).toBe(1);
    const release = await app.lockManager.acquire('k');
    await release();
    expect(await app.workerIdAllocator.getWorkerId()).toBeLessThan(32);
    await app.pubSubManager.publish('c', 1);
    expect(app.logger.lines.some(({ level, message }) => level === 'warn' && message.includes('not connected'))).toBe(true);
    expect(app.stopped).toBe(false);
  });

  test('calls hooks and events in their order', async () => {
    const app = makeApp();
    const order = [];
    const make = (name) => class extends Plugin {
      async afterAdd() { await null; order.push(`${name} afterAdd`); }
      async beforeLoad() { await null; order.push(`${name} beforeLoad`); }
      async load() { await null; order.push(`${name} load`); }
    };
    app.plugin(make('a'), { name: 'a' });
    app.plugin(make('b'), { name: 'b' });
    app.on('beforeLoadPlugin', async (plugin) => { await null; order.push(`beforeLoadPlugin ${plugin.name}`); });
    for (const event of ['afterLoad', 'afterStart', 'beforeStop', 'afterStop']) {
      app.on(event, async () => {
        await null;
        order.push(`${event} ${await app.pubSubManager.isConnected()} ${app.eventQueue.isConnected()}`);
      });
    }
    await app.start();
    await app.start();
    await app.stop();
    await app.stop();
    expect(order).toEqual([
      'a afterAdd', 'b afterAdd', 'beforeLoadPlugin a', 'a beforeLoad', 'beforeLoadPlugin b', 'b beforeLoad',
      'a load', 'b load', 'afterLoad false false', 'afterStart true true', 'beforeStop true true', 'afterStop false false',
    ]);
    expect(app.stopped).toBe(true);
  });

  test('load before start does not load twice; a restart connects again', async () => {
    const app = makeApp();
    const load = jest.fn();
    app.plugin(class extends Plugin { load() { load(); } }, { name: 'p' });
    const afterLoad = jest.fn();
    app.on('afterLoad', afterLoad);
    await app.load();
    await app.start();
    await app.stop();
    await app.start();
    expect([load.mock.calls.length, afterLoad.mock.calls.length]).toEqual([1, 1]);
    expect(app.stopped).toBe(false);
    const { promise, resolve } = gate();
    await app.pubSubManager.subscribe('c', resolve);
    await app.pubSubManager.publish('c', 5, { skipSelf: false });
    expect(await promise).toBe(5);
  });

  test('a plugin whose load throws ends start with its error, and stop still works', async () => {
    const app = makeApp();
    app.plugin(class extends Plugin { async load() { throw new Error('no database'); } }, { name: 'broken' });
    expect((await rejection(app.start())).message).toBe('no database');
    expect((await rejection(app.start())).message).toBe('no database');
    expect(app.logger.lines.some(({ message }) => message.includes('load of plugin broken failed'))).toBe(true);
    await app.stop();
  });

  test('hooks may start and stop the app themselves, and nothing waits for itself', async () => {
    const app = makeApp();
    app.on('afterStart', () => app.stop());
    app.on('beforeStop', () => app.stop());
    app.plugin(class extends Plugin { async load() { await app.load(); } }, { name: 'p' });
    await app.start();
    expect([app.stopped, app.eventQueue.isConnected()]).toEqual([true, false]);
    const other = makeApp();
    other.plugin(class extends Plugin { async load() { await other.stop(); } }, { name: 'p' });
    await other.start();
    expect([other.stopped, other.eventQueue.isConnected()]).toEqual([true, false]);
  });

  test('a listener that throws does not keep the services from closing', async () => {
    const app = makeApp();
    await app.start();
    app.on('beforeStop', () => { throw new Error('mine'); });
    expect((await rejection(app.stop())).message).toBe('mine');
    expect(app.eventQueue.isConnected()).toBe(false);
    expect(app.stopped).toBe(true);
  });

  test('emitAsync awaits the listeners in turn, once-listeners once', async () => {
    const app = makeApp();
    const order = [];
    app.on('x', async (value) => { await null; order.push(`slow ${value}`); });
    app.once('x', (value) => order.push(`once ${value}`));
    await app.emitAsync('x', 1);
    await app.emitAsync('x', 2);
    expect(order).toEqual(['slow 1', 'once 1', 'slow 2']);
  });

  test('nothing is delivered once it is stopped', async () => {
    const [a, b] = [makeApp(), makeApp()];
    await Promise.all([a.start(), b.start()]);
    const got = [];
    await b.pubSubManager.subscribe('c', (n) => got.push(n), { debounce: 400 });
    await a.pubSubManager.publish('c', 1);
    await until(() => b.pubSubManager.handlerManager.uniqueMessageHandlers.size === 1);
    await b.stop();
    expect(b.pubSubManager.handlerManager.uniqueMessageHandlers.size).toBe(0);
    await a.pubSubManager.publish('c', 2);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(got).toEqual([]);
  });
});

describe('plugins', () => {
  test('are found by class and by name', () => {
    const app = makeApp();
    class P extends Plugin {}
    const plugin = app.plugin(P, { name: 'p', own: 1 });
    expect(app.pm.get(P)).toBe(plugin);
    expect(app.pm.get('p')).toBe(plugin);
    expect(app.pm.get('x')).toBeUndefined();
    expect([plugin.app, plugin.name, plugin.options.own]).toEqual([app, 'p', 1]);
    expect(() => app.plugin(P, { name: 'p' })).toThrow('there is a plugin called p already');
    expect(() => app.plugin(5)).toThrow(expect.objectContaining({ name: 'TypeError' }));
  });

  test('a name may be a getter; without one a sync message throws', async () => {
    const app = makeApp();
    class Named extends Plugin { get name() { return 'named'; } }
    expect(app.plugin(Named).name).toBe('named');
    expect((await rejection(app.plugin(Plugin).sendSyncMessage(1))).message).toBe('plugin name invalid');
  });

  test('a sync message that cannot be sent is logged, not rejected', async () => {
    const app = makeApp();
    const plugin = app.plugin(Plugin, { name: 'p' });
    await app.start();
    await plugin.sendSyncMessage({ big: 1n });
    expect(app.logger.lines.some(({ level, details }) => level === 'error' && details.code === 'E_NOT_SERIALIZABLE')).toBe(true);
  });
});

describe('options', () => {
  test.each([
    [{ nane: 'x' }, 'unknown option nane; known are: name, logger, redis'],
    [{ eventQueue: { jurnal: true } }, 'unknown option eventQueue.jurnal; known are: adapter'],
    [{ cacheManager: { store: 'x' } }, 'unknown option cacheManager.store'],
  ])('%j is an error that lists the known ones', (options, message) => {
    expect(() => createApp(options)).toThrow(expect.objectContaining({ code: 'E_UNKNOWN_OPTION', message: expect.stringContaining(message) }));
  });

  test.each([
    [{ pubSubManager: { adapter: 'nats' } }], [{ eventQueue: { adapter: 'kafka' } }],
  ])('%j is a clear error until it exists', (options) => {
    expect(() => createApp(options)).toThrow(expect.objectContaining({ code: 'E_ADAPTER_UNAVAILABLE' }));
  });

  test('the environment is beneath the options', async () => {
    await withEnvironment({ CACHE_MEMORY_MAX: '3', LOCK_ADAPTER_DEFAULT: 'other', QUEUE_ADAPTER: 'kafka' }, async () => {
      expect(() => createApp()).toThrow(expect.objectContaining({ code: 'E_ADAPTER_UNAVAILABLE' }));
      const app = makeApp({ eventQueue: { adapter: 'memory' } });
      for (let i = 0; i < 10; i++) await app.cache.set(`k${i}`, i);
      expect(await app.cache.keys()).toHaveLength(3);
      expect((await rejection(app.lockManager.acquire('k'))).message).toBe('Lock adapter "other" not registered');
      const own = makeApp({
        eventQueue: { adapter: 'memory' }, lockManager: { defaultAdapter: 'local' }, cacheManager: { stores: { memory: { max: 5 } } },
      });
      for (let i = 0; i < 10; i++) await own.cache.set(`k${i}`, i);
      expect(await own.cache.keys()).toHaveLength(5);
      await (await own.lockManager.acquire('k'))();
    });
    await withEnvironment({ CACHE_DEFAULT_STORE: 'nonsense' }, async () => {
      expect(() => createApp()).toThrow(expect.objectContaining({ code: 'E_STORE_UNAVAILABLE' }));
    });
    await withEnvironment({ CACHE_MEMORY_MAX: 'many' }, async () => {
      expect(() => createApp()).toThrow(expect.objectContaining({ name: 'TypeError' }));
    });
  });

  test.each([
    ['', true, true, true], ['-', false, false, false], ['*', false, true, true], ['!', true, false, false],
    ['queue', false, true, false], ['!, queue', true, true, false], [' queue , * ', false, true, true],
  ])('WORKER_MODE %j', (mode, requests, queue, other) => withEnvironment({ WORKER_MODE: mode }, async () => {
    expect([serving(), serving('queue'), serving('other')]).toEqual([requests, queue, other]);
    const app = makeApp();
    expect([app.serving(), app.serving('queue'), app.isTransient()]).toEqual([requests, queue, mode === '-']);
    expect(isTransient()).toBe(mode === '-');
  }));

  test('passwords in URLs are masked', () => {
    expect(maskSecrets('cannot reach redis://user:secret@host:6379/0, amqp://:p%40ss@h'))
      .toBe('cannot reach redis://user:***@host:6379/0, amqp://:***@h');
  });
});

describe('install', () => {
  /** As much of a host as there is to replace: getters without setters, services of its own. */
  class Host extends EventEmitter {
    name = 'host';
    logger = recorder();
    pubSubManager = { theirs: true };
    get cacheManager() { return { theirs: true }; }
    async emitAsync(event, ...values) { for (const listener of this.listeners(event)) await listener(...values); }
  }

  test('puts the services into a host, once, and connects and closes them with it', async () => {
    const host = new Host();
    const services = install(host);
    expect(install(host)).toBe(services);
    for (const [member, Class] of Object.entries({
      cacheManager: CacheManager, pubSubManager: PubSubManager, eventQueue: EventQueue, lockManager: LockManager,
      workerIdAllocator: WorkerIdAllocator,
    })) expect(host[member]).toBeInstanceOf(Class);
    expect(host.cache.key('k')).toBe('host:k');
    expect(host.syncMessageManager).toBe(services.syncMessageManager);
    await host.emitAsync('afterStart');
    const { promise, resolve } = gate();
    await host.pubSubManager.subscribe('c', resolve);
    await host.pubSubManager.publish('c', 'own');
    expect(await promise).toBe('own');
    host.eventQueue.subscribe('q', { process: async () => undefined });
    await host.eventQueue.publish('q', 1);
    await host.emitAsync('beforeStop');
    await host.emitAsync('afterStop');
    expect(host.eventQueue.isConnected()).toBe(false);
    expect(host.listenerCount('afterStart')).toBe(1);
  });

  test('a host that does not let itself be changed is a clear error', () => {
    expect(() => install(Object.freeze(new Host()))).toThrow(expect.objectContaining({ code: 'E_HOST' }));
  });
});

describe('worker ids', () => {
  test('are random from 0 to 31, or the adapter\'s', async () => {
    const ids = new WorkerIdAllocator();
    const seen = new Set();
    for (let i = 0; i < 2000; i++) seen.add(await ids.getWorkerId());
    expect([...seen].sort((a, b) => a - b)).toEqual(Array.from({ length: 32 }, (_, i) => i));
    await ids.release();
    const release = jest.fn(async () => undefined);
    ids.setAdapter({ getWorkerId: async () => 7, release });
    expect(await ids.getWorkerId()).toBe(7);
    await ids.release();
    expect(release).toHaveBeenCalledTimes(1);
    expect(() => ids.setAdapter({})).toThrow(expect.objectContaining({ name: 'TypeError' }));
  });
});

describe('a process', () => {
  const USE = `
    const use = async (name) => {
      const app = mortise.createApp({ name });
      await app.start();
      await app.cache.set('k', { a: 1 }, 60000);
      await app.pubSubManager.subscribe('c', () => {}, { debounce: 5000 });
      await app.pubSubManager.publish('c', 1, { skipSelf: false });
      await new Promise((resolve) => {
        app.eventQueue.subscribe('q', { process: async () => resolve() });
        app.eventQueue.publish('q', 1);
      });
      await app.lockManager.runExclusive('k', async () => 1);
      return app;
    };
  `;

  test('exits by itself after stop, and also without', async () => {
    for (const end of ['await app.stop();', '']) {
      const { exit } = child(`${USE} (async () => { const app = await use('a'); ${end} })();`, { environment: { STORAGE_PATH: storage } });
      expect(await exit).toEqual({ code: 0, signal: null, errors: '' });
    }
  });

  test('works in worker threads, in several at once, which hear each other', async () => {
    const code = `
      const { Worker, isMainThread, workerData } = require('node:worker_threads');
      ${USE}
      (async () => {
        if (isMainThread) {
          const app = await use('main');
          const heard = new Set();
          const all = new Promise((resolve) => app.pubSubManager.subscribe('hello', (n) => { heard.add(n); if (heard.size === 4) resolve(); }));
          const program = 'const mortise = require(' + JSON.stringify(require.resolve('.')) + ');' + source;
          const exits = [0, 1, 2, 3].map((n) => new Promise((resolve) =>
            new Worker(program, { eval: true, workerData: n }).on('exit', resolve)));
          await all;
          console.log(JSON.stringify([[...heard].sort(), await Promise.all(exits)]));
          await app.stop();
        }
      })();
    `;
    const source = `${USE} (async () => {
      const app = await use('main');
      await app.pubSubManager.publish('hello', require('node:worker_threads').workerData);
      await app.stop();
    })();`;
    const run = child(`const source = ${JSON.stringify(source)};${code}`, { environment: { STORAGE_PATH: storage } });
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(JSON.parse(run.lines[0])).toEqual([[0, 1, 2, 3], [0, 0, 0, 0]]);
  });
});

test('several apps on buses of their own do not hear each other', async () => {
  const [a, b, c] = ['x', 'x', 'y'].map((bus) => makeApp({ pubSubManager: { bus } }));
  await Promise.all([a, b, c].map((app) => app.start()));
  const got = [];
  const heard = gate();
  await b.pubSubManager.subscribe('ch', (n) => { got.push(['b', n]); heard.resolve(); });
  await c.pubSubManager.subscribe('ch', (n) => { got.push(['c', n]); });
  await a.pubSubManager.publish('ch', 1);
  await heard.promise;
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(got).toEqual([['b', 1]]);
  expect(new MemoryPubSubAdapter().isConnected()).toBe(false);
});

test.each([
  [{ PUBSUB_ADAPTER_REDIS_URL: 'redis://127.0.0.1:1', QUEUE_ADAPTER: 'redis', QUEUE_ADAPTER_REDIS_URL: 'redis://127.0.0.1:2' }, '127.0.0.1:1'],
  [{ QUEUE_ADAPTER: 'redis', QUEUE_ADAPTER_REDIS_URL: 'redis://127.0.0.1:2', LOCK_ADAPTER_DEFAULT: 'redis', LOCK_ADAPTER_REDIS_URL: 'redis://127.0.0.1:3' }, '127.0.0.1:2'],
  [{ LOCK_ADAPTER_DEFAULT: 'redis', LOCK_ADAPTER_REDIS_URL: 'redis://127.0.0.1:3' }, '127.0.0.1:3'],
  [{ REDIS_URL: 'redis://127.0.0.1:4', PUBSUB_ADAPTER_REDIS_URL: 'redis://127.0.0.1:1' }, '127.0.0.1:4'],
  [{ REDIS_URL: 'redis://127.0.0.1:4', QUEUE_ADAPTER: 'rabbitmq' }, '127.0.0.1:4'],
  [{ REDIS_URL: 'redis://127.0.0.1:4' }, undefined],
  [{ QUEUE_ADAPTER: 'rabbitmq' }, undefined],
  [{ LOCK_ADAPTER_REDIS_URL: 'redis://127.0.0.1:3' }, undefined],
])('the variables %j put worker ids on %s', (variables, server) => withEnvironment(variables, async () => {
  const app = makeApp();
  const asked = app.workerIdAllocator.getWorkerId();
  if (server === undefined) expect(await asked).toEqual(expect.any(Number));
  else expect(await rejection(asked)).toMatchObject({ code: 'E_UNAVAILABLE', message: expect.stringContaining(server) });
}));

test('loaded twice in a process, as by a test runner that forgets its modules, each instance hears what is its own', async () => {
  const run = child(`
    const loaded = [mortise];
    for (let i = 0; i < 2; i++) {
      for (const file of Object.keys(require.cache)) if (!file.endsWith('.node')) delete require.cache[file];
      loaded.push(require(${JSON.stringify(ROOT)}));
    }
    const open = async ({ EventQueue, LockManager, PubSubManager }, n) => {
      const [queue, locks, bus] = [new EventQueue({ name: 'app' + n }), new LockManager(), new PubSubManager({ name: 'app' + n }, { adapter: 'memory' })];
      await queue.connect();
      await bus.connect();
      let [processed, heard] = [[], []];
      const all = new Promise((resolve) => {
        const look = () => { if (processed.length + heard.length === 4) resolve(); };
        queue.subscribe('c', { process: async (message) => { processed.push(message); look(); } });
        bus.subscribe('c', (message) => { heard.push(message); look(); });
      });
      return { n, queue, locks, bus, all, seen: () => [processed, heard] };
    };
    (async () => {
      console.log(new Set(loaded.map(({ EventQueue }) => EventQueue)).size);
      const opened = await Promise.all(loaded.map(open));
      for (let i = 0; i < 2; i++) await Promise.all(opened.map(async ({ n, queue, bus }) => { await queue.publish('c', [n, i]); await bus.publish('c', [n, i]); }));
      await Promise.all(opened.map(async ({ locks, n }) => {
        const release = await locks.acquire('key', 60_000);
        const next = locks.acquire('key', 60_000);
        await release();
        (await next)();
      }));
      for (const { all, seen, queue, bus } of opened) {
        await all;
        console.log(JSON.stringify(seen()));
        await bus.close();
        await queue.close();
      }
    })();
  `, { environment: { STORAGE_PATH: temporaryFolder() } });
  expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
  expect(run.lines).toEqual(['3', ...[0, 1, 2].map((n) => JSON.stringify([[[n, 0], [n, 1]], [[n, 0], [n, 1]]]))]);
});
