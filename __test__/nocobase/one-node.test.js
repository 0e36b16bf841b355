'use strict';

const { RabbitMQServer } = require('../servers/rabbitmq');
const { RedisServer } = require('../servers/redis');
const { HOWS, Node, onRedis, until } = require('./nodes');

/** What the services of a node run on: the names under which mortise exports the classes. */
const runsOn = ({ app, Probe, require }) => {
  const mortise = require('mortise');
  const name = (adapter) => Object.keys(mortise).find((each) => mortise[each] === adapter?.constructor);
  return {
    pubSub: name(app.pubSubManager.adapter),
    queue: name(app.eventQueue.adapter),
    workerIds: name(app.workerIdAllocator.adapter),
    store: app.cacheManager.defaultStore,
    engine: name(app.pm.get(Probe).cache.store.store),
  };
};

let redis;
beforeAll(async () => { redis = await RedisServer.start(); });
afterAll(() => redis.stop());

const SERVERS = { pubSub: 'RedisPubSubAdapter', queue: 'RedisEventQueueAdapter', workerIds: 'HostWorkerId', store: 'redis', engine: 'RedisStore' };

describe.each(HOWS)('a NocoBase on Redis with mortise by %s', (how) => {
  let node;
  beforeAll(async () => {
    await redis.call('FLUSHALL');
    node = await Node.start({ how, environment: onRedis(redis.url), shared: true });
  });
  afterAll(() => node.kill());

  test('uses every service on Redis from a plugin', async () => {
    const seen = await node.call(async ({ app, Probe }) => {
      const probe = app.pm.get(Probe);
      await probe.cache.set('entry', { a: [1] });
      await probe.counter.incr('count');
      await app.pubSubManager.publish('probe', 'message');
      await app.eventQueue.publish('probe', { n: 1 });
      const end = Date.now() + 10_000;
      while ((probe.heard.length < 1 || probe.processed.length < 1) && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
      return {
        entry: await probe.cache.get('entry'),
        count: await probe.counter.incrby('count', 2),
        heard: probe.heard,
        processed: probe.processed,
        locked: await app.lockManager.runExclusive('probe', async () => 'held', 1000),
      };
    });
    expect(seen).toEqual({ entry: { a: [1] }, count: 3, heard: ['message'], processed: [{ n: 1 }], locked: 'held' });
    expect(await redis.call('GET', 'main:probe:entry')).toBe('{"a":[1]}');
    expect(await redis.call('GET', 'main:probe-counter:count')).toBe('3');
  });

  test('a token that was signed out is refused', async () => {
    await node.signIn();
    expect((await node.request('POST', 'auth:signOut')).status).toBe(200);
    expect((await node.request('GET', 'auth:check')).status).toBe(401);
  });

  test('resetting a cache leaves the keys of other caches and of other programs', async () => {
    await redis.call('SET', 'of another program', '1');
    await node.call(async ({ app, Probe }) => {
      await app.cache.set('other', 1);
      await app.pm.get(Probe).cache.set('entry', 1);
      await app.pm.get(Probe).cache.reset();
    });
    expect(await redis.call('GET', 'main:probe:entry')).toBeNull();
    expect(await redis.call('GET', 'main:other')).toBe('1');
    expect(await redis.call('GET', 'of another program')).toBe('1');
  });

  test('the errors of locks are of the classes that NocoBase and its plugins know', async () => {
    const seen = await node.call(async ({ app, require }) => {
      const { LockAcquireError } = require('@nocobase/lock-manager');
      const release = await app.lockManager.acquire('key', 60_000);
      const error = await app.lockManager.tryAcquire('key').catch((reason) => reason);
      await release();
      return { instance: error instanceof LockAcquireError, name: error.constructor.name, message: error.message, code: error.code };
    });
    expect(seen).toEqual({ instance: true, name: 'LockAcquireError', message: 'lock is locked', code: 'E_LOCK_LOCKED' });
  });
});

describe.each(HOWS)('a NocoBase with mortise by %s', (how) => {
  beforeEach(() => redis.call('FLUSHALL'));

  test('runs on Redis where the variables say so, serves a sign-in, and ends when it is stopped', async () => {
    const node = await Node.start({ how, install: true, environment: onRedis(redis.url) });
    if (how === 'plugin') expect(await node.call(runsOn)).toEqual(SERVERS);
    const { data } = await node.signIn();
    expect(data.user.username).toBe('root');
    expect((await node.request('GET', 'auth:check')).body.data.username).toBe('root');
    expect((await node.request('GET', 'users:list')).body.data).toHaveLength(1);
    // What the sign-in has cached is on the server.
    expect((await redis.call('KEYS', 'main:*')).length).toBeGreaterThan(0);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    expect(node.output).not.toMatch(/"level":"error"/);
  });

  test('runs its queue on RabbitMQ, also after a restart', async () => {
    const broker = await RabbitMQServer.start();
    try {
      const node = await Node.start({ how, environment: { QUEUE_ADAPTER: 'rabbitmq', QUEUE_ADAPTER_RABBITMQ_URL: broker.url } });
      const publish = ({ app }, message) => app.eventQueue.publish('probe', message);
      const processed = ({ app, Probe }) => app.pm.get(Probe).processed;
      await node.call(publish, 'first');
      await until(async () => (await node.call(processed)).length > 0);
      await node.call(({ app }) => app.restart());
      await node.call(publish, 'second');
      await until(async () => (await node.call(processed)).length > 0);
      expect(await node.call(processed)).toEqual(['second']);
      expect(await node.stop()).toEqual({ code: 0, signal: null });
    } finally {
      await broker.stop();
    }
  });

  test('without variables it is a NocoBase on its own', async () => {
    const node = await Node.start({ how });
    const { data } = await node.signIn();
    expect(data.user.username).toBe('root');
    const seen = await node.call(async ({ app, Probe }) => {
      await app.eventQueue.publish('probe', { n: 1 });
      await app.lockManager.runExclusive('probe', async () => undefined, 1000);
      const probe = app.pm.get(Probe);
      const end = Date.now() + 10_000;
      while (probe.processed.length < 1 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
      return { processed: probe.processed, adapter: Boolean(app.pubSubManager.adapter), connected: await app.pubSubManager.isConnected(), store: app.cacheManager.defaultStore };
    });
    expect(seen).toEqual({ processed: [{ n: 1 }], adapter: false, connected: false, store: 'memory' });
    expect(await redis.call('DBSIZE')).toBe(0);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });

  test.each([
    [{ QUEUE_ADAPTER: 'kafka' }, 'E_ADAPTER_UNAVAILABLE', /QUEUE_ADAPTER.*kafka.*memory, redis, rabbitmq/],
    [{ PUBSUB_ADAPTER_REDIS_URL: 'redis://:secret@[bad' }, 'E_INVALID_ARGUMENT', /PUBSUB_ADAPTER_REDIS_URL/],
    [{ QUEUE_ADAPTER: 'rabbitmq', QUEUE_ADAPTER_RABBITMQ_URL: 'http://user:secret@host' }, 'E_INVALID_ARGUMENT', /QUEUE_ADAPTER_RABBITMQ_URL/],
  ])('a wrong variable is a clear error: %j', async (environment, code, message) => {
    const node = await Node.up({ how, environment });
    const error = await node.call(({ construct }) => construct()).then(() => undefined, (reason) => reason);
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(error.message).not.toContain('secret');
    expect(node.output).not.toContain('secret');
  });

  test('a server that is away is a clear error, and not a hang', async () => {
    const url = 'redis://:secret@127.0.0.1:9';
    const node = await Node.up({ how, environment: { ...onRedis(url), CACHE_DEFAULT_STORE: '' } });
    const error = await node.call(({ start }) => start({ install: true })).then(() => undefined, (reason) => reason);
    expect(error).toMatchObject({ code: 'E_UNAVAILABLE' });
    expect(error.message + node.output).not.toContain('secret');
  });
});

describe('the plugin', () => {
  beforeEach(() => redis.call('FLUSHALL'));

  /** An application of its own code, which knows of no static imports. */
  const byHand = async ({ server, Probe, require, construct, start }, install) => {
    const { default: MortisePlugin } = require('mortise/nocobase');
    await construct({ plugins: [[MortisePlugin, { name: 'mortise' }], ...await server.findBuiltInPlugins(), [Probe, { name: 'probe' }]] });
    return start({ install });
  };

  test('works in the list of plugins alone', async () => {
    const node = await Node.up({ how: 'stock', environment: onRedis(redis.url) });
    node.port = await node.call(byHand, true);
    expect(await node.call(runsOn)).toEqual(SERVERS);
    expect((await node.signIn()).data.user.username).toBe('root');
    expect(await node.call(({ app }) => app.pm.get('mortise').enabled)).toBe(true);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });

  test('does nothing to managers that are ours already', async () => {
    const node = await Node.start({ how: 'register', environment: { ...onRedis(redis.url), APPEND_PRESET_BUILT_IN_PLUGINS: 'mortise' } });
    expect(await node.call(({ app }) => Boolean(app.pm.get('mortise')))).toBe(true);
    expect((await node.signIn()).data.user.username).toBe('root');
    expect(await node.call(async ({ app, Probe }) => {
      const before = app.pubSubManager.adapter;
      await app.eventQueue.publish('probe', 1);
      const probe = app.pm.get(Probe);
      const end = Date.now() + 10_000;
      while (probe.processed.length < 1 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
      return { processed: probe.processed, same: before === app.pubSubManager.adapter };
    })).toEqual({ processed: [1], same: true });
  });

  test('runs beside the plugins of a database that was made without it', async () => {
    const after = await Node.start({ how: 'plugin', environment: onRedis(redis.url) });
    expect(await after.call(runsOn)).toEqual(SERVERS);
    await after.stop();
    // And the way back.
    const back = await Node.start({ how: 'stock', folder: after.folder });
    expect((await back.signIn()).data.user.username).toBe('root');
  });

  test('is loaded as the database says, and is gone when it was disabled there', async () => {
    const environment = onRedis(redis.url);
    const node = await Node.start({ how: 'stock' });
    const values = { name: 'mortise', packageName: 'mortise', enabled: true, installed: true, builtIn: true };
    await node.call(({ app }, row) => app.pm.repository.create({ values: row }).then(() => undefined), values);
    await node.stop();
    const enabled = await Node.start({ how: 'stock', folder: node.folder, environment });
    expect(await enabled.call(runsOn)).toEqual(SERVERS);
    await enabled.call(({ app }) => app.pm.disable('mortise'));
    expect(await enabled.stop()).toEqual({ code: 0, signal: null });
    const disabled = await Node.start({ how: 'stock', folder: node.folder });
    expect(await disabled.call(({ app }) => Boolean(app.pm.get('mortise')))).toBe(false);
    expect((await disabled.signIn()).data.user.username).toBe('root');
    expect(await disabled.stop()).toEqual({ code: 0, signal: null });
  });

  test('keeps the tiered store coherent between nodes', async () => {
    const environment = { ...onRedis(redis.url), CACHE_DEFAULT_STORE: 'tiered' };
    const a = await Node.start({ environment });
    const b = await Node.start({ folder: a.folder, environment });
    expect((await a.call(runsOn)).engine).toBe('TieredStore');
    const set = (value) => a.call(({ app, Probe }, next) => app.pm.get(Probe).cache.set('entry', next), value);
    const get = () => b.call(({ app, Probe }) => app.pm.get(Probe).cache.get('entry'));
    await set(1);
    expect(await get()).toBe(1);
    await set(2);
    const end = Date.now() + 5000;
    while (await get() !== 2) if (Date.now() > end) throw new Error('the other node has kept the value of before');
  });

  test('has a file for browsers, which NocoBase loads of each plugin', async () => {
    const client = require('../../package.json').files;
    expect(client).toContain('dist');
    let defined;
    const define = (name, needs, factory) => { defined = { name, needs, plugin: factory({ Plugin: class {} }).default }; };
    new Function('define', require('node:fs').readFileSync(require.resolve('../../dist/client/index.js'), 'utf8'))(define);
    expect(defined).toMatchObject({ name: 'mortise', needs: ['@nocobase/client'], plugin: expect.any(Function) });
  });
});
