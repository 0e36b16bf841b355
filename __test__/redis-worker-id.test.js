'use strict';

const { Worker } = require('node:worker_threads');
const { createApp, RedisWorkerIdAdapter, WorkerIdAllocator } = require('..');
const { Proxy } = require('./servers/proxy');
const { RedisServer, startCluster, startSentinels } = require('./servers/redis');
const { child, recorder, rejection, ROOT, until } = require('./support');

/** Quick to give up, so that a test need not wait. */
const QUICK = { commandTimeout: 1000, connectTimeout: 1000, reconnectGrace: 200, heartbeat: 100, heartbeatTimeout: 300 };
const IDS = Array.from({ length: 32 }, (_, id) => id);

const nodes = [];
const tracked = (node) => {
  nodes.push(node);
  return node;
};
let apps = 0;
/** An app of the test's own. */
const newApp = () => `app-${++apps}`;
afterEach(() => Promise.all(nodes.splice(0).map((node) => node.release())));

/** All ids but `spare`, each with a node that `make` makes. */
async function takeAll(make, spare = 0) {
  const taken = Array.from({ length: 32 - spare }, make);
  return { taken, ids: await Promise.all(taken.map((node) => node.getWorkerId())) };
}

/** Asks until there is an id, and gives how long that took. */
async function eventually(node) {
  const begun = performance.now();
  const id = await until(async () => {
    try {
      return { id: await node.getWorkerId() };
    } catch (error) {
      if (error.code !== 'E_WORKER_IDS_EXHAUSTED') throw error;
    }
  });
  return { ...id, after: performance.now() - begun };
}

describe('on one server', () => {
  let server;
  beforeAll(async () => { server = await RedisServer.start(); });
  afterAll(() => server.stop());

  const allocator = (app, options = {}) => tracked(new WorkerIdAllocator({ adapter: 'redis', url: server.url, app, lease: 2000, logger: recorder(), ...options }));

  test('of 33 nodes, some of other processes, 32 get different ids, and the last a clear error', async () => {
    const app = newApp();
    const ask = `
      const ids = Array.from({ length: 8 }, () => new mortise.WorkerIdAllocator({ adapter: 'redis', url: ${JSON.stringify(server.url)}, app: ${JSON.stringify(app)} }));
      Promise.all(ids.map((node) => node.getWorkerId())).then((ids) => console.log(JSON.stringify(ids)));
      process.stdin.resume();`;
    const children = [child(ask, { stdin: 'pipe' }), child(ask, { stdin: 'pipe' })];
    const own = await Promise.all(Array.from({ length: 16 }, () => allocator(app).getWorkerId()));
    await until(() => children.every(({ lines }) => lines.length > 0));
    const ids = [...own, ...children.flatMap(({ lines }) => JSON.parse(lines[0]))];
    expect(ids.sort((a, b) => a - b)).toEqual(IDS);
    expect(await rejection(allocator(app).getWorkerId())).toMatchObject({
      code: 'E_WORKER_IDS_EXHAUSTED', message: `all 32 worker ids of app ${app} are taken: 32 held, 0 at rest`,
    });
    // Another app has ids of its own.
    expect(IDS).toContain(await allocator(newApp()).getWorkerId());
    children.forEach(({ handle }) => handle.kill('SIGKILL'));
    await Promise.all(children.map(({ exit }) => exit));
  });

  test('the id of a killed process comes back after its lease and its rest, and not before', async () => {
    const app = newApp();
    const [lease, rest] = [800, 700];
    const killed = child(`
      const node = new mortise.RedisWorkerIdAdapter({ url: ${JSON.stringify(server.url)}, app: ${JSON.stringify(app)}, lease: ${lease}, rest: ${rest} });
      node.getWorkerId().then((id) => console.log(id));
      process.stdin.resume();`, { stdin: 'pipe' });
    await until(() => killed.lines.length > 0);
    const freed = Number(killed.lines[0]);
    const { ids } = await takeAll(() => allocator(app), 1);
    expect(ids).not.toContain(freed);
    const killedAt = performance.now();
    killed.handle.kill('SIGKILL');
    const { id } = await eventually(allocator(app));
    expect(id).toBe(freed);
    // The last renewal was a fifth of the lease before, or a little more on a busy machine.
    expect(performance.now() - killedAt).toBeGreaterThan(lease + rest - lease / 2);
    await killed.exit;
  });

  test('a released id rests, and who finds no other waits for it', async () => {
    const app = newApp();
    const rest = 600;
    const { taken, ids } = await takeAll(() => allocator(app, { rest }));
    const begun = performance.now();
    await taken[5].release();
    await taken[5].release();
    expect(await allocator(app).getWorkerId()).toBe(ids[5]);
    expect(performance.now() - begun).toBeGreaterThanOrEqual(rest);
  });

  test('all nodes of an app may be exchanged together', async () => {
    const app = newApp();
    const { taken, ids } = await takeAll(() => allocator(app, { rest: 600 }));
    await Promise.all(taken.map((node) => node.release()));
    const given = await Promise.all(taken.map(() => allocator(app, { rest: 600 }).getWorkerId()));
    expect([...given].sort((a, b) => a - b)).toEqual([...ids].sort((a, b) => a - b));
  });

  test('one node has one id, however often and at once it is asked', async () => {
    const node = allocator(newApp());
    const first = await Promise.all(Array.from({ length: 50 }, () => node.getWorkerId()));
    expect(new Set(first).size).toBe(1);
    expect(await node.getWorkerId()).toBe(first[0]);
    await node.release();
    expect(await node.getWorkerId()).not.toBe(first[0]);
  });

  test('a release while an id is asked for ends the wait', async () => {
    // Of a new app, so that nothing is given at once.
    const node = allocator(newApp());
    const waiting = rejection(node.getWorkerId());
    await node.release();
    expect((await waiting).code).toBe('E_CLOSED');
    expect(IDS).toContain(await node.getWorkerId());
  });

  test('after FLUSHALL ids stay unique', async () => {
    const app = newApp();
    const { taken, ids } = await takeAll(() => allocator(app, { lease: 1000 }), 5);
    await server.call('FLUSHALL');
    // At once, before any renewal.
    const later = await Promise.all(Array.from({ length: 5 }, () => allocator(app).getWorkerId()));
    expect([...ids, ...later].sort((a, b) => a - b)).toEqual(IDS);
    expect(await Promise.all(taken.map((node) => node.getWorkerId()))).toEqual(ids);
  });

  test('a worker thread is a node of its own, and its id lapses when it ends', async () => {
    const app = newApp();
    const code = `
      const { parentPort, workerData: [root, options] } = require('node:worker_threads');
      const node = new (require(root).RedisWorkerIdAdapter)(options);
      node.getWorkerId().then((id) => parentPort.postMessage(id));
      parentPort.on('message', () => {});`;
    const worker = new Worker(code, { eval: true, workerData: [ROOT, { url: server.url, app, lease: 500, rest: 0 }] });
    const id = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    const { ids } = await takeAll(() => allocator(app), 1);
    expect(ids).not.toContain(id);
    await worker.terminate();
    expect((await eventually(allocator(app))).id).toBe(id);
  });

  test('an id is kept while the event loop is blocked for longer than its lease, and when nobody knows the node any more', async () => {
    const app = newApp();
    const { ids } = await takeAll(() => allocator(app), 1);
    const blocked = child(`
      const options = { url: ${JSON.stringify(server.url)}, app: ${JSON.stringify(app)}, lease: 1000, rest: 0 };
      new mortise.RedisWorkerIdAdapter(options).getWorkerId().then((id) => {
        for (let i = 0; i < 10; i++) gc();
        setTimeout(() => {
          gc();
          require('node:fs').writeSync(1, id + '\\n');
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 60_000);
        }, 50);
      });
      const { setFlagsFromString } = require('node:v8');
      setFlagsFromString('--expose-gc');
      const gc = require('node:vm').runInNewContext('gc');`);
    await until(() => blocked.lines.length > 0);
    const id = Number(blocked.lines[0]);
    expect(ids).not.toContain(id);
    const other = allocator(app);
    const begun = performance.now();
    while (performance.now() - begun < 2500) {
      expect((await rejection(other.getWorkerId())).code).toBe('E_WORKER_IDS_EXHAUSTED');
    }
    blocked.handle.kill('SIGKILL');
    expect((await eventually(other)).id).toBe(id);
    await blocked.exit;
  });

  test('Node exits by itself with an id that is held', async () => {
    const { lines, exit } = child(`
      const app = mortise.createApp({ redis: ${JSON.stringify(server.url)}, workerIdAllocator: { adapter: 'redis', lease: 2000 } });
      app.start().then(() => app.workerIdAllocator.getWorkerId()).then((id) => console.log(id));`);
    expect(await exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(IDS).toContain(Number(lines[0]));
  });

  test('after a stop the id is given back, and no connection is left', async () => {
    const app = newApp();
    const clients = async () => (await server.call('CLIENT', 'LIST')).split('\n').filter((line) => line.includes('name=mortise:')).length;
    await until(async () => (await clients()) === 0);
    const running = child(`
      const app = mortise.createApp({ name: ${JSON.stringify(app)}, redis: ${JSON.stringify(server.url)}, workerIdAllocator: { adapter: 'redis', lease: 2000 } });
      app.start().then(() => app.workerIdAllocator.getWorkerId()).then((id) => console.log(id));
      process.stdin.once('data', () => app.stop());
      process.stdin.on('end', () => console.log('end'));`, { stdin: 'pipe' });
    await until(() => running.lines.length > 0);
    expect(await clients()).toBe(1);
    running.handle.stdin.write('stop');
    await until(async () => (await clients()) === 0);
    expect(await server.call('HGET', `mortise:{${app}}:workers`, running.lines[0])).toMatch(/^\|/);
    running.handle.stdin.end();
    expect(await running.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(running.lines[1]).toBe('end');
  });

  test('the app gives its name, its server and its logger', async () => {
    const [name, logger, onLost] = [newApp(), recorder(), jest.fn()];
    const app = createApp({ name, logger, redis: { url: server.url, ...QUICK }, workerIdAllocator: { adapter: 'redis', lease: 300, onLost } });
    const id = await app.workerIdAllocator.getWorkerId();
    const key = `mortise:{${name}}:workers`;
    expect(await server.call('HGET', key, id)).toMatch(/^[^|]+\|\d+\|\d+$/);
    // Another has it, as after a long absence of ours.
    await server.call('HSET', key, id, 'another|9999999999999|9999999999999');
    await until(() => logger.lines.some(({ level }) => level === 'error'));
    expect(onLost).toHaveBeenCalledTimes(1);
    expect(logger.lines.filter(({ level }) => level === 'error').map(({ message }) => message)).toEqual([
      `worker id ${id} of app ${name} was given to another node while this one could not renew it; getWorkerId() gives a new one`,
    ]);
    const next = await app.workerIdAllocator.getWorkerId();
    expect(next).not.toBe(id);
    await app.stop();
    expect(await server.call('HGET', key, next)).toMatch(/^\|/);
    expect(await server.call('HGET', key, id)).toBe('another|9999999999999|9999999999999');
  });

  test.each([
    [{ app: '' }, 'app'], [{ app: 7 }, 'app'], [{ lease: '10' }, 'lease'], [{ lease: 99 }, 'lease'], [{ lease: Infinity }, 'lease'], [{ lease: NaN }, 'lease'],
    [{ rest: -1 }, 'rest'], [{ rest: null }, 'rest'], [{ rest: 1e12 }, 'rest'], [{ logger: {} }, 'logger'], [{ port: 0 }, 'port'], [{ url: 'http://x' }, 'scheme'], [7, 'redis'], [null, 'redis'],
  ])('the options %p are refused at once', (options, named) => {
    expect(() => new RedisWorkerIdAdapter(options)).toThrow(expect.objectContaining({ name: 'TypeError', code: 'E_INVALID_ARGUMENT', message: expect.stringContaining(named) }));
  });

  test.each([
    [{ adapter: 'redis', url: 7 }, 'E_INVALID_ARGUMENT'], [{ adapter: 'redis', lease: 1 }, 'E_INVALID_ARGUMENT'], [{ adapter: 'etcd' }, 'E_ADAPTER_UNAVAILABLE'],
  ])('an allocator of %p is refused at once', (options, code) => {
    expect(() => new WorkerIdAllocator(options)).toThrow(expect.objectContaining({ code }));
  });

  test('a user who may not ask for the server\'s name gets an id all the same', async () => {
    await server.call('ACL', 'SETUSER', 'limited', 'on', '>secret', '~mortise:*', '+@all', '-info');
    const app = newApp();
    const node = allocator(app, { url: { url: server.url, username: 'limited', password: 'secret' } });
    expect(IDS).toContain(await node.getWorkerId());
    expect(await server.call('HGET', `mortise:{${app}}:workers`, 'server')).toBe('');
  });

  test('an adapter without options of its own goes into any allocator', async () => {
    const ids = new WorkerIdAllocator();
    ids.setAdapter(tracked(new RedisWorkerIdAdapter(server.url)));
    expect(IDS).toContain(await ids.getWorkerId());
    expect(Number(await server.call('EXISTS', 'mortise:{main}:workers'))).toBe(1);
  });
});

describe('when the server fails', () => {
  test('a restart without data leaves live nodes their ids, and they stay unique', async () => {
    const server = await RedisServer.start();
    const [app, logger] = [newApp(), recorder()];
    const make = () => tracked(new RedisWorkerIdAdapter({ ...QUICK, url: server.url, app, logger, lease: 2000, rest: 500 }));
    const { taken, ids } = await takeAll(make, 10);
    await server.kill();
    await server.up();
    const later = await Promise.all(Array.from({ length: 10 }, () => make().getWorkerId()));
    expect([...ids, ...later].sort((a, b) => a - b)).toEqual(IDS);
    expect(await Promise.all(taken.map((node) => node.getWorkerId()))).toEqual(ids);
    expect(logger.lines.filter(({ level }) => level === 'error')).toEqual([]);
    expect(logger.lines.filter(({ message }) => message.includes('was put back')).length).toBe(22);
  });

  test('a restart with an older snapshot is as good as one without data', async () => {
    const server = await RedisServer.start();
    const [app, logger] = [newApp(), recorder()];
    const make = () => tracked(new RedisWorkerIdAdapter({ ...QUICK, url: server.url, app, logger, lease: 2000, rest: 0 }));
    const early = await takeAll(make, 20);
    await server.call('SAVE');
    const late = await takeAll(make, 20);
    await server.kill();
    await server.up();
    expect(Number(await server.call('EXISTS', `mortise:{${app}}:workers`))).toBe(1);
    const { ids } = await takeAll(make, 24);
    expect([...early.ids, ...late.ids, ...ids].sort((a, b) => a - b)).toEqual(IDS);
    expect(logger.lines.filter(({ level }) => level === 'error')).toEqual([]);
  });

  test('a connection that is cut for less than the lease keeps the id; one cut for longer is told, and takes it back', async () => {
    const server = await RedisServer.start();
    const proxy = await Proxy.to(server.port);
    const [app, logger] = [newApp(), recorder()];
    const url = `redis://127.0.0.1:${proxy.port}`;
    const node = tracked(new RedisWorkerIdAdapter({ ...QUICK, url, app, logger, lease: 3000, rest: 1000 }));
    const id = await node.getWorkerId();
    const entry = () => server.call('HGET', `mortise:{${app}}:workers`, id);
    const before = await entry();
    proxy.mode = 'refuse';
    proxy.cut();
    await until(async () => (await rejection(tracked(new RedisWorkerIdAdapter({ ...QUICK, url, app })).getWorkerId())).code === 'E_UNAVAILABLE');
    proxy.mode = 'pass';
    await until(async () => (await entry()) !== before);
    expect((await entry()).split('|')[0]).toBe(before.split('|')[0]);
    expect(logger.lines).toEqual([]);

    proxy.mode = 'blackhole';
    await until(() => logger.lines.length > 0);
    expect(logger.lines[0]).toMatchObject({ level: 'warn', message: expect.stringContaining(`worker id ${id} of app ${app} could not be renewed`) });
    proxy.mode = 'pass';
    await until(() => logger.lines.length > 1);
    expect(logger.lines[1]).toMatchObject({ level: 'info', message: expect.stringContaining('is renewed again') });
    expect(await node.getWorkerId()).toBe(id);
    expect(logger.lines).toHaveLength(2);
  });

  test('a node that was stopped for longer than lease and rest is told that another has its id', async () => {
    const server = await RedisServer.start();
    const app = newApp();
    const options = { url: server.url, app, lease: 500, rest: 200 };
    const stopped = child(`
      const node = new mortise.RedisWorkerIdAdapter(${JSON.stringify(options)});
      node.getWorkerId().then((id) => console.log(id));
      process.stdin.on('data', async () => console.log(await node.getWorkerId()));`, { stdin: 'pipe' });
    await until(() => stopped.lines.length > 0);
    const id = Number(stopped.lines[0]);
    const rivals = await takeAll(() => tracked(new RedisWorkerIdAdapter({ ...options, lease: 5000 })), 1);
    expect(rivals.ids).not.toContain(id);
    stopped.handle.kill('SIGSTOP');
    expect((await eventually(tracked(new RedisWorkerIdAdapter(options)))).id).toBe(id);
    await rivals.taken[3].release();
    stopped.handle.kill('SIGCONT');
    await until(() => stopped.errors.includes(`worker id ${id} of app ${app} was given to another node`));
    await until(async () => Number((await server.call('HGET', `mortise:{${app}}:workers`, rivals.ids[3])).split('|')[2]) < Date.now());
    stopped.handle.stdin.write('again');
    await until(() => stopped.lines.length > 1);
    expect(Number(stopped.lines[1])).toBe(rivals.ids[3]);
    expect(stopped.errors.match(/given to another/g)).toHaveLength(1);
    stopped.handle.kill('SIGKILL');
    await stopped.exit;
  });

  test('away, it is an error in time to ask, and none to release', async () => {
    const server = await RedisServer.start();
    const proxy = await Proxy.to(server.port);
    const options = { ...QUICK, url: `redis://127.0.0.1:${proxy.port}`, app: newApp(), logger: recorder() };
    const held = tracked(new RedisWorkerIdAdapter(options));
    await held.getWorkerId();
    proxy.mode = 'blackhole';
    const node = tracked(new RedisWorkerIdAdapter(options));
    const begun = performance.now();
    expect(['E_TIMEOUT', 'E_UNAVAILABLE']).toContain((await rejection(node.getWorkerId())).code);
    await held.release();
    await node.release();
    expect(performance.now() - begun).toBeLessThan(10_000);
    proxy.mode = 'pass';
    expect(IDS).toContain(await node.getWorkerId());
  });
});

describe('on several servers', () => {
  test.each([['a cluster', startCluster], ['a master behind sentinels', startSentinels]])('%s gives each node an id of its own', async (_, start) => {
    const servers = await start();
    const app = newApp();
    const { ids, taken } = await takeAll(() => tracked(new RedisWorkerIdAdapter({ url: servers.url, app })));
    expect(ids.sort((a, b) => a - b)).toEqual(IDS);
    expect((await rejection(tracked(new RedisWorkerIdAdapter({ url: servers.url, app })).getWorkerId())).code).toBe('E_WORKER_IDS_EXHAUSTED');
    await Promise.all(taken.map((node) => node.release()));
  });

  test('after a failover live nodes keep their ids, and later ones get others', async () => {
    const servers = await startSentinels();
    const [app, logger] = [newApp(), recorder()];
    const make = () => tracked(new RedisWorkerIdAdapter({ url: servers.url, app, logger, rest: 0 }));
    const { taken, ids } = await takeAll(make, 12);
    const before = await servers.replica.call('INFO', 'server');
    await servers.master.kill();
    const later = Array.from({ length: 12 }, make);
    const others = await Promise.all(later.map((node) => until(() => node.getWorkerId().catch((error) => {
      if (error.code !== 'E_UNAVAILABLE') throw error;
    }).then((id) => id !== undefined && { id }), 40_000)));
    expect([...ids, ...others.map(({ id }) => id)].sort((a, b) => a - b)).toEqual(IDS);
    expect(await Promise.all(taken.map((node) => node.getWorkerId()))).toEqual(ids);
    expect(before).toContain(await servers.replica.call('HGET', `mortise:{${app}}:workers`, 'server'));
    expect(logger.lines.filter(({ level }) => level === 'error')).toEqual([]);
  }, 90_000);
});
