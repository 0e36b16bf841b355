'use strict';

const { RedisServer } = require('../servers/redis');
const { HOWS, installed, Node, onRedis, until } = require('./nodes');

/** Runs in a node: what there is of each kind. */
const counts = ({ app }) => {
  global.gc();
  const listeners = Object.fromEntries(app.eventNames().map((event) => [String(event), app.listenerCount(event)]));
  const timers = process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
  const subscriptions = Object.fromEntries([...app.pubSubManager.handlerManager.handlers].map(([channel, handlers]) => [channel, handlers.size]));
  return { listeners, timers, subscriptions, channels: [...app.eventQueue.events.keys()] };
};

const restart = async ({ app }, times) => {
  for (let i = 0; i < times; i++) await app.restart();
};

describe.each(HOWS)('a NocoBase with mortise by %s', (how) => {
  let redis;
  beforeEach(async () => { redis = await RedisServer.start(); });
  afterEach(() => redis.stop());

  const connections = async () => (await redis.call('CLIENT', 'LIST')).trim().split('\n').length;
  const consumers = async () => {
    const streams = (await redis.call('KEYS', '*')).sort();
    const found = [];
    for (const key of streams) {
      if (await redis.call('TYPE', key) !== 'stream') continue;
      for (const group of await redis.call('XINFO', 'GROUPS', key)) found.push(`${key} ${group[1]} ${group[3]}`);
    }
    return found.sort();
  };

  test('has no more of anything after ten restarts than after one, and each message runs once', async () => {
    const node = await Node.start({ how, environment: onRedis(redis.url), execArgv: ['--expose-gc'] });
    const stock = await Node.start({ how: 'stock', environment: {}, execArgv: ['--expose-gc'] });
    await node.call(restart, 1);
    await stock.call(restart, 1);
    const first = { ...await node.call(counts), connections: await connections(), consumers: await consumers() };
    const stockFirst = await stock.call(counts);
    await node.call(restart, 10);
    await stock.call(restart, 10);
    // What is let go of ends a moment later.
    await until(async () => await connections() <= first.connections);
    const last = { ...await node.call(counts), consumers: await consumers() };
    const stockLast = await stock.call(counts);
    expect(last.subscriptions).toEqual(first.subscriptions);
    expect(Object.values(last.subscriptions).every((size) => size === 1)).toBe(true);
    expect(last.channels).toEqual(first.channels);
    expect(last.consumers).toEqual(first.consumers);
    // NocoBase itself leaves listeners of its managers behind with each restart; of ours there is none.
    const growth = (before, after) => Object.fromEntries(Object.entries(after.listeners).map(([event, count]) => [event, count - (before.listeners[event] ?? 0)]));
    const stocks = growth(stockFirst, stockLast);
    for (const [event, more] of Object.entries(growth(first, last))) expect([event, more <= (stocks[event] ?? 0)]).toEqual([event, true]);
    expect(last.timers - first.timers).toBeLessThanOrEqual(Math.max(0, stockLast.timers - stockFirst.timers));
    await node.call(async ({ app, Probe }) => {
      await app.eventQueue.publish('probe', 'once');
      await app.pubSubManager.publish('probe', 'once');
    });
    await until(() => node.call(({ app, Probe }) => app.pm.get(Probe).processed.length > 0 && app.pm.get(Probe).heard.length > 0));
    expect(await node.call(({ app, Probe }) => [app.pm.get(Probe).processed, app.pm.get(Probe).heard])).toEqual([['once'], ['once']]);
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    // The one that asks.
    await until(async () => await connections() === 1);
  });

  test('works after the built-in objects of JavaScript were frozen', async () => {
    const node = await Node.start({ how, environment: onRedis(redis.url) });
    await node.call(({ require }) => {
      const { lockdownSes } = require('@nocobase/utils');
      lockdownSes({ consoleTaming: 'unsafe', errorTaming: 'unsafe', overrideTaming: 'moderate', stackFiltering: 'verbose' });
    });
    expect(await node.call(() => Object.isFrozen(Array.prototype))).toBe(true);
    const use = async ({ app, Probe, require }) => {
      const probe = app.pm.get(Probe);
      await probe.cache.set('entry', { a: 1 }, 60_000);
      const { LockAcquireError } = require('@nocobase/lock-manager');
      const release = await app.lockManager.acquire('key', 60_000);
      const refused = await app.lockManager.tryAcquire('key').catch((error) => error);
      await release();
      await app.eventQueue.publish('probe', 'message');
      await app.pubSubManager.publish('probe', 'message');
      return {
        entry: await probe.cache.get('entry'),
        count: await probe.counter.incr('n', 60_000),
        wrapped: await probe.cache.wrap('wrapped', async () => [1]),
        refused: refused instanceof LockAcquireError && refused.message,
        exclusive: await app.lockManager.runExclusive('key', async () => 'done', 1000),
      };
    };
    const used = { entry: { a: 1 }, wrapped: [1], refused: 'lock is locked', exclusive: 'done' };
    expect(await node.call(use)).toMatchObject({ ...used, count: 1 });
    await until(() => node.call(({ app, Probe }) => app.pm.get(Probe).processed.length === 1 && app.pm.get(Probe).heard.length === 1));
    // And what is made anew.
    await node.call(restart, 1);
    expect(await node.call(use)).toMatchObject({ ...used, count: 2 });
    await until(() => node.call(({ app, Probe }) => app.pm.get(Probe).processed.length === 1 && app.pm.get(Probe).heard.length === 1));
    expect((await node.signIn()).data.user.username).toBe('root');
    expect(await node.stop()).toEqual({ code: 0, signal: null });
  });

  test('an upgrade, and a reload before the start, leave services that work', async () => {
    const node = await Node.up({ how, folder: await installed(), environment: onRedis(redis.url) });
    // Reloading an application that runs leaves timers of NocoBase's own behind.
    await node.call(async ({ construct, start }) => {
      const app = await construct();
      await app.load();
      await app.reload();
      await start();
    });
    await node.call(({ app }) => app.upgrade());
    await node.call(({ app }) => app.eventQueue.publish('probe', 'after'));
    await until(() => node.call(({ app, Probe }) => app.pm.get(Probe).processed.length === 1));
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    await until(async () => await connections() === 1);
  });

  test('what a handler does while the node stops is still done, and nothing is lost', async () => {
    const node = await Node.start({ how, environment: onRedis(redis.url) });
    await node.call(({ app }) => {
      app.eventQueue.subscribe('slow', {
        idle: () => true,
        process: async (message) => {
          process.send({ event: 'slow' });
          await new Promise((resolve) => setTimeout(resolve, 2000));
          await app.db.getRepository('users').update({ filterByTk: 1, values: { nickname: message } });
        },
      });
      return app.eventQueue.publish('slow', 'stopped');
    });
    await node.event('slow');
    expect(await node.stop()).toEqual({ code: 0, signal: null });
    const again = await Node.start({ how: 'stock', folder: node.folder });
    expect(await again.call(async ({ app }) => (await app.db.getRepository('users').findOne()).nickname)).toBe('stopped');
  });
});
