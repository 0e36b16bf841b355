'use strict';

const { RedisServer } = require('../servers/redis');
const { installed, Node, until } = require('./nodes');

/** Runs in a node: an application that code of its own constructs, and puts the services into. */
const withServices = async ({ construct, start, require }, options) => {
  const app = await construct();
  global.installed = require('mortise').install(app, options);
  return start();
};

const SERVICES = ['cacheManager', 'cache', 'pubSubManager', 'syncMessageManager', 'eventQueue', 'lockManager', 'workerIdAllocator'];

const areOurs = ({ app }, names) => names.filter((name) => app[name] !== global.installed[name]);

const use = async ({ app, Probe, require }) => {
  const probe = app.pm.get(Probe);
  await probe.cache.set('entry', { a: 1 });
  await app.pubSubManager.publish('probe', 'message');
  await app.eventQueue.publish('probe', { n: 1 });
  const { LockAcquireError } = require('@nocobase/lock-manager');
  const release = await app.lockManager.acquire('key', 60_000);
  const refused = await app.lockManager.tryAcquire('key').catch((error) => error);
  await release();
  const end = Date.now() + 10_000;
  while ((probe.heard.length < 1 || probe.processed.length < 1) && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
  return { entry: await probe.cache.get('entry'), heard: probe.heard, processed: probe.processed, refused: refused instanceof LockAcquireError };
};
const USED = { entry: { a: 1 }, heard: ['message'], processed: [{ n: 1 }], refused: true };

let redis;
beforeAll(async () => { redis = await RedisServer.start(); });
afterAll(() => redis.stop());
beforeEach(() => redis.call('FLUSHALL'));

const all = (url) => ({
  redis: url,
  cacheManager: { defaultStore: 'redis' },
  pubSubManager: { adapter: 'redis' },
  eventQueue: { adapter: 'redis' },
  lockManager: { defaultAdapter: 'redis' },
  workerIdAllocator: { adapter: 'redis' },
});

describe.each([
  ['embedded', () => ({})],
  ['on Redis', () => all(redis.url)],
])('install into a NocoBase, %s', (_, options) => {
  const start = async (folder) => {
    const node = await Node.up({ how: 'stock', folder: folder ?? await installed() });
    node.port = await node.call(withServices, options());
    return node;
  };

  test('puts services of ours in the place of its own, over restarts, until it stops', async () => {
    const node = await start();
    expect(await node.call(areOurs, SERVICES)).toEqual([]);
    expect(await node.call(use)).toEqual(USED);
    expect((await node.signIn()).data.user.username).toBe('root');
    await node.call(async ({ app }) => {
      for (let i = 0; i < 3; i++) await app.restart();
    });
    expect(await node.call(areOurs, SERVICES)).toEqual([]);
    // Plugins are new ones, and each message is heard once.
    expect(await node.call(use)).toEqual(USED);
    expect((await node.request('GET', 'auth:check')).status).toBe(200);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    await until(async () => (await redis.call('CLIENT', 'LIST')).trim().split('\n').length === 1);
    expect(node.output).not.toMatch(/"level":"error"/);
  });

  test('keeps what waits in the queue while the application is stopped', async () => {
    const node = await start();
    await node.call(({ app }) => {
      app.eventQueue.subscribe('later', { idle: () => false, process: () => undefined });
      return app.eventQueue.publish('later', 'kept').then(() => undefined);
    });
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    const again = await start(node.folder);
    await again.call(({ app }) => app.eventQueue.subscribe('later', { idle: () => true, process: (message) => process.send({ event: 'later', message }) }));
    expect((await again.event('later')).message).toBe('kept');
  });

  test('works after the built-in objects of JavaScript were frozen', async () => {
    const node = await start();
    await node.call(({ require }) => require('@nocobase/utils').lockdownSes({ consoleTaming: 'unsafe', errorTaming: 'unsafe', overrideTaming: 'moderate', stackFiltering: 'verbose' }));
    expect(await node.call(use)).toEqual(USED);
    await node.call(({ app }) => app.restart());
    expect(await node.call(use)).toEqual(USED);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });
});

test('install reads the variables that put services on a server', async () => {
  const environment = { PUBSUB_ADAPTER_REDIS_URL: redis.url, QUEUE_ADAPTER: 'redis', LOCK_ADAPTER_DEFAULT: 'redis', REDIS_URL: redis.url };
  const folder = await installed();
  const [a, b] = await Promise.all([1, 2].map(async () => {
    const node = await Node.up({ how: 'stock', folder, environment });
    await node.call(withServices, {});
    return node;
  }));
  await a.call(({ app }) => app.pubSubManager.publish('probe', 'hello', { skipSelf: true }));
  await until(() => b.call(({ app, Probe }) => app.pm.get(Probe).heard.includes('hello')));
  await a.call(({ app }) => app.lockManager.acquire('shared', 60_000).then(() => undefined));
  await expect(b.call(({ app }) => app.lockManager.tryAcquire('shared'))).rejects.toMatchObject({ className: 'LockAcquireError' });
  const id = ({ app }) => [app.instanceId, app.snowflakeIdGenerator.workerId];
  const [first, second] = [await a.call(id), await b.call(id)];
  expect(first[0]).toBe(first[1]);
  expect(second[0]).not.toBe(first[0]);
  await a.call(({ app }) => app.restart());
  expect(await a.call(id)).toEqual(first);
});

test('the translations of nodes with install are loaded anew together', async () => {
  const a = await Node.up({ how: 'stock', folder: await installed() });
  const b = await Node.up({ how: 'stock', folder: a.folder });
  for (const node of [a, b]) await node.call(withServices, all(redis.url));
  await b.call(({ app }) => {
    const { reset } = app.localeManager;
    app.localeManager.reset = async function () {
      process.send({ event: 'reset' });
      return reset.call(this);
    };
  });
  await a.call(({ app }) => app.localeManager.reload());
  await b.event('reset');
});
