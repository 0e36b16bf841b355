'use strict';
// What operators do to a node, and what happens to it at night.

const { RedisServer } = require('../servers/redis');
const { HOWS, installed, Node, onRedis, until } = require('./nodes');

let redis;
beforeEach(async () => { redis = await RedisServer.start(); });
afterEach(() => redis.stop());

/** Runs in a node: the id that it holds, and the one that it generates ids with. */
const ids = ({ app }) => ({ held: app.instanceId, generates: app.snowflakeIdGenerator.parse(app.snowflakeIdGenerator.generate()).workerId });

/** The worker ids that are held on the server. */
async function held() {
  const table = await redis.call('HGETALL', 'mortise:{main}:workers');
  const [seconds] = await redis.call('TIME');
  const found = [];
  for (let i = 0; i < table.length; i += 2) {
    const [owner, ends] = table[i + 1].split('|');
    if (owner !== '' && Number(ends) > Number(seconds) * 1000) found.push(Number(table[i]));
  }
  return found.sort((a, b) => a - b);
}

const publish = ({ app }, message) => app.eventQueue.publish('probe', message).then(() => undefined);
const processed = ({ app, Probe }) => app.pm.get(Probe).processed;

describe.each(HOWS)('a NocoBase with mortise by %s', (how) => {
  test('generates ids with the worker id that it holds, whatever it makes anew', async () => {
    const folder = await installed();
    const nodes = [];
    for (let i = 0; i < 2; i++) {
      nodes.push(await Node.start({ how, folder, environment: onRedis(redis.url) }));
      // As `nocobase start` does.
      await nodes[i].call(({ app }) => app.restart());
    }
    const [a, b] = nodes;
    const first = await a.call(ids);
    expect(first.generates).toBe(first.held);
    await a.call(async ({ app }) => {
      for (let i = 0; i < 3; i++) await app.restart();
    });
    expect(await a.call(ids)).toEqual(first);
    const other = await b.call(ids);
    expect(other.generates).toBe(other.held);
    // Two nodes have taken two ids, however often they have started.
    expect(await held()).toEqual([first.held, other.held].sort((x, y) => x - y));
    // Stopped it has none, and started again one that may be another.
    await a.call(({ app }) => app.stop());
    expect(await held()).toEqual([other.held]);
    await a.call(({ app }) => app.start());
    const again = await a.call(ids);
    expect(again.generates).toBe(again.held);
    expect(await held()).toEqual([again.held, other.held].sort((x, y) => x - y));
  });

  test('takes another worker id when its own was given to another node', async () => {
    const node = await Node.start({ how, environment: onRedis(redis.url) });
    const first = await node.call(ids);
    await redis.call('HSET', 'mortise:{main}:workers', first.held, `another|${Date.now() + 600_000}|${Date.now() + 600_000}`);
    const now = await until(async () => {
      const present = await node.call(ids);
      return present.held !== first.held && present;
    });
    expect(now.generates).toBe(now.held);
  });

  test('lives on when its Redis goes while it does not look, and tells who looks', async () => {
    const node = await Node.start({ how, environment: onRedis(redis.url) });
    await node.signIn();
    await redis.kill();
    const codes = await node.call(async ({ app }) => {
      const changes = () => [
        app.cache.set('k', 1), app.cache.del('k'), app.cache.setValueInObject('o', 'f', 1),
        app.pubSubManager.publish('probe', 'lost'), app.syncMessageManager.publish('probe', { lost: 1 }), app.eventQueue.publish('probe', 'lost'),
      ];
      // Nobody looks at these, which have failed before those after them.
      changes();
      return Promise.all(changes().map((promise) => promise.then(() => 'done', ({ code }) => code)));
    });
    for (const code of codes) expect(['E_UNAVAILABLE', 'E_TIMEOUT']).toContain(code);
    expect(await node.call(({ app }) => app.cache.get('k').then((value) => value === undefined))).toBe(true);
    // What was lost unseen is in the log.
    expect(node.output).toMatch(/message for pub\/sub\S* .*was not published/);
    expect(node.output).toMatch(/message for the event queue\S* .*was not published/);
    // Whether a token was signed out cannot be told now.
    expect(await node.request('GET', 'auth:check')).toMatchObject({ status: 500, body: { errors: [{ code: 'E_UNAVAILABLE' }] } });
    await redis.up();
    await until(async () => (await node.signIn()).data?.user.username === 'root');
    await until(() => node.call(publish, 'back').then(() => true, () => false));
    await until(async () => (await node.call(processed)).includes('back'));
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });

  test('can be restarted when its Redis is back that was away at a restart', async () => {
    const node = await Node.start({ how, environment: onRedis(redis.url) });
    const before = await node.call(ids);
    await redis.kill();
    const error = await node.call(({ app }) => app.restart()).then(() => undefined, (reason) => reason);
    expect(error).toMatchObject({ code: 'E_UNAVAILABLE' });
    await redis.up();
    await node.call(({ app }) => app.restart());
    expect(await node.call(ids)).toEqual(before);
    await node.call(publish, 'after');
    await until(async () => (await node.call(processed)).includes('after'));
    expect((await node.signIn()).data.user.username).toBe('root');
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });

  test('leaves the names of adapters that it is not asked for', async () => {
    const node = await Node.up({ how, folder: await installed(), environment: { REDIS_URL: redis.url, LOCK_ADAPTER_DEFAULT: 'mine' } });
    const seen = await node.call(async ({ construct, start }) => {
      const app = await construct();
      for (const name of ['redis', 'mine']) {
        app.lockManager.registerAdapter(name, { Adapter: class { connect() {} close() {} acquire() { return () => undefined; } runExclusive(_, fn) { return fn(); } tryAcquire() {} } });
      }
      await start();
      return app.lockManager.runExclusive('key', async () => 'done');
    });
    expect(seen).toBe('done');
  });
});

describe('the plugin', () => {
  /** An application of its own code, which knows of no static imports. */
  const inTheList = async ({ server, Probe, require, construct, start }) => {
    const { default: MortisePlugin } = require('mortise/nocobase');
    await construct({ plugins: [...await server.findBuiltInPlugins(), [Probe, { name: 'probe' }], [MortisePlugin, { name: 'mortise' }]] });
    return start();
  };

  test('does not let a node start alone whose variables are wrong', async () => {
    const node = await Node.up({ how: 'stock', folder: await installed(), environment: { QUEUE_ADAPTER: 'kafka' } });
    await expect(node.call(inTheList)).rejects.toMatchObject({ code: 'E_ADAPTER_UNAVAILABLE', message: expect.stringContaining('QUEUE_ADAPTER') });
  });

  test('is enabled and disabled while the application runs', async () => {
    const node = await Node.start({ how: 'stock', environment: onRedis(redis.url) });
    const runs = ({ app, require }) => app.eventQueue.adapter instanceof require('mortise').RedisEventQueueAdapter;
    const command = ({ app }, ...words) => app.runCommandThrowError('pm', ...words).then(() => undefined);
    const connections = async () => (await redis.call('CLIENT', 'LIST')).match(/name=mortise\S*/g);
    await node.call(command, 'enable', 'mortise');
    expect(await node.call(runs)).toBe(true);
    await node.call(publish, 'over Redis');
    await until(async () => (await node.call(processed)).length > 0);
    const { held: id, generates } = await node.call(ids);
    expect([generates, await held()]).toEqual([id, [id]]);
    await node.call(({ app }) => app.restart());
    expect([await node.call(ids), await held()]).toEqual([{ held: id, generates: id }, [id]]);
    await node.call(command, 'disable', 'mortise');
    expect(await node.call(runs)).toBe(false);
    await node.call(publish, 'in memory');
    await until(async () => (await node.call(processed)).length > 0);
    await until(async () => await connections() === null);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });
});
