'use strict';

const { createApp, Plugin } = require('..');
const { Proxy } = require('./servers/proxy');
const { RedisServer } = require('./servers/redis');
const { recorder, rejection, temporaryFolder, until } = require('./support');

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());
beforeEach(async () => {
  process.env.STORAGE_PATH = temporaryFolder();
  await server.call('FLUSHALL');
});
const apps = [];
afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.stop()));
  delete process.env.STORAGE_PATH;
});

class Listening extends Plugin {
  heard = [];
  gaps = [];
  async handleSyncMessage(message) { this.heard.push(message); }
  async handleSyncGap(gap) { this.gaps.push(gap); }
}

/** A started app's plugin. Options that differ make a connection of its own. */
const start = async (url = server.url, options = {}) => {
  const app = createApp({
    name: 'main', logger: recorder(), redis: { url, heartbeat: 100 + apps.length, heartbeatTimeout: 400 }, pubSubManager: { adapter: 'redis' },
    syncMessageManager: { debounce: 20 }, ...options,
  });
  apps.push(app);
  const plugin = app.plugin(Listening, { name: 'p' });
  await app.start();
  return plugin;
};

test('a plugin hears what it sent on other nodes, and not its own; a transaction\'s after the commit', async () => {
  const [a, b] = [await start(), await start()];
  await a.sendSyncMessage({ x: 1 });
  await until(() => b.heard.length === 1);
  const hooks = [];
  const sending = b.sendSyncMessage({ y: 1 }, { transaction: { afterCommit: (hook) => hooks.push(hook) } });
  for (const hook of hooks) await hook();
  await sending;
  await until(() => a.heard.length === 1);
  expect([a.heard, b.heard]).toEqual([[{ y: 1 }], [{ x: 1 }]]);
});

test('nothing is missed while a node\'s connection is lost', async () => {
  const proxy = await Proxy.to(server.port);
  const [a, b] = [await start(), await start(`redis://127.0.0.1:${proxy.port}`)];
  proxy.mode = 'refuse';
  proxy.cut();
  for (let n = 0; n < 20; n++) await a.sendSyncMessage(n);
  proxy.mode = 'pass';
  await until(() => b.heard.length === 20);
  expect([b.heard, b.gaps]).toEqual([Array.from({ length: 20 }, (_, n) => n), []]);
  await proxy.close();
});

test('a gap reaches the plugin, and nobody once the app is stopped or its database closed', async () => {
  const [a, b] = [await start(), await start()];
  await server.call('FLUSHALL');
  await until(() => a.gaps.length === 1 && b.gaps.length === 1);
  expect(a.gaps).toEqual([{ reason: 'replaced', channel: 'p' }]);
  expect(a.app.logger.lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
  await b.app.stop();
  a.app.db = { closed: () => true };
  await server.call('FLUSHALL');
  // Told in order: whoever hears this has been told of the gap.
  const closed = a.app.logger.lines.length;
  await until(() => a.app.logger.lines.length > closed);
  a.app.db = { closed: () => false };
  await server.call('FLUSHALL');
  await until(() => a.gaps.length === 2);
  expect(b.gaps).toHaveLength(1);
});

test('a failing handleSyncGap is logged', async () => {
  const a = await start();
  a.handleSyncGap = async () => { throw new Error('mine'); };
  await server.call('FLUSHALL');
  await until(() => a.app.logger.lines.some(({ level, details }) => level === 'error' && details.message === 'mine'));
});

test('leading hears the first message at once, by the manager\'s option or by the subscription\'s', async () => {
  const [a, b] = [await start(), await start(server.url, { syncMessageManager: { debounce: 60_000, leading: true } })];
  await a.sendSyncMessage(1);
  await until(() => b.heard.length === 1);
  const got = [];
  await b.app.syncMessageManager.subscribe('ch', (n) => got.push(['default', n]));
  await b.app.syncMessageManager.subscribe('ch', (n) => got.push(['late', n]), { leading: false });
  await a.app.syncMessageManager.publish('ch', 2);
  await until(() => got.length === 1);
  expect(got).toEqual([['default', 2]]);
});

test('a failing publish rejects, and sendSyncMessage logs it', async () => {
  const proxy = await Proxy.to(server.port);
  const a = await start({}, { redis: { url: `redis://127.0.0.1:${proxy.port}`, commandTimeout: 300, reconnectGrace: 50 } });
  proxy.mode = 'refuse';
  proxy.cut();
  expect((await rejection(a.app.syncMessageManager.publish('ch', 1))).code).toMatch(/^E_(UNAVAILABLE|TIMEOUT)$/);
  await a.sendSyncMessage(1);
  expect(a.app.logger.lines.filter(({ level }) => level === 'error')).toHaveLength(1);
  await proxy.close();
});

test('the environment names the server', async () => {
  process.env.PUBSUB_ADAPTER_REDIS_URL = server.url;
  try {
    const [a, b] = [await start(undefined, { redis: undefined }), await start(undefined, { redis: undefined })];
    await a.sendSyncMessage(1);
    await until(() => b.heard.length === 1);
  } finally {
    delete process.env.PUBSUB_ADAPTER_REDIS_URL;
  }
});
