'use strict';
// `node --require mortise/register`, in a process of its own each: before packages that are laid out as NocoBase's.

const { spawn } = require('node:child_process');
const { cpSync, mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { writeTree } = require('./nocobase-tree');
const { RedisServer } = require('./servers/redis');
const { ROOT, temporaryFolder } = require('./support');

const REGISTER = join(ROOT, 'register.js');
const CACHE = join(ROOT, 'node_modules', '@nocobase', 'cache');

let tree;
beforeAll(() => { tree = writeTree(temporaryFolder()); });

/** Before each program. */
const START = `
  const { isDeepStrictEqual } = require('node:util');
  const tell = (value) => process.stdout.write(JSON.stringify(value));
  const until = async (condition) => {
    for (const end = Date.now() + 15_000; !(await condition());) {
      if (Date.now() > end) throw new Error('deadline passed: ' + condition);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  };
  const mortise = () => require(${JSON.stringify(ROOT)});
`;

/** Runs a program in `folder`; resolves, when it has ended by itself, to what it told and how it ended. */
function run(program, { folder = tree, environment = {}, flags = ['--require', REGISTER], module = false } = {}) {
  const file = join(temporaryFolder(), module ? 'program.mjs' : 'program.js');
  writeFileSync(file, module ? program : START + program);
  // As if it stood in the folder; its own is there so that programs do not meet.
  symlinkSync(join(folder, 'node_modules'), join(file, '..', 'node_modules'));
  const { PATH, HOME } = process.env;
  const handle = spawn(process.execPath, [...flags, file], { cwd: folder, env: { PATH, HOME, STORAGE_PATH: join(file, '..', 'storage'), ...environment } });
  let output = '';
  let errors = '';
  handle.stdout.on('data', (data) => { output += data; });
  handle.stderr.on('data', (data) => { errors += data; });
  const timer = setTimeout(() => handle.kill('SIGKILL'), 25_000);
  return new Promise((resolve) => handle.on('close', (code) => {
    clearTimeout(timer);
    resolve({ code, errors, told: output === '' ? undefined : JSON.parse(output) });
  }));
}

/** What a program told that ended well. */
async function told(program, options) {
  const { code, errors, told } = await run(program, options);
  if (code !== 0) throw new Error(`it ended with ${code}: ${errors}`);
  return told;
}

const PATHS = [
  '@nocobase/cache', '@nocobase/cache/lib/cache-manager', '@nocobase/cache/lib/cache', '@nocobase/cache/lib/counter',
  '@nocobase/lock-manager', '@nocobase/lock-manager/lib/lock-manager',
  '@nocobase/server/lib/event-queue', '@nocobase/server/lib/pub-sub-manager', '@nocobase/server/lib/pub-sub-manager/pub-sub-manager',
  '@nocobase/server/lib/sync-message-manager', '@nocobase/server/lib/worker-id-allocator', '@nocobase/server/lib/cache',
];

/** Which of the paths' exports are of our making; what is not is the original's. */
const OURS = `
  const source = (value) => {
    const ours = Object.values(mortise());
    for (let at = value; typeof at === 'function' && at !== Function.prototype; at = Object.getPrototypeOf(at)) if (ours.includes(at)) return true;
    return false;
  };
`;

describe('the modules', () => {
  const list = `tell(Object.fromEntries(${JSON.stringify(PATHS)}.map((path) => [path, Object.keys(require(path)).sort()])))`;

  test('export the same names as without it', async () => {
    const names = await told(list);
    expect(names).toEqual(await told(list, { flags: [] }));
    expect(names['@nocobase/cache']).toEqual(['Cache', 'CacheManager', 'LockCounter', 'MemoryCounter', 'RedisCounter']);
  });

  test('have our classes, and keep what has no state', async () => {
    const kept = await told(`${OURS}
      const paths = ${JSON.stringify(PATHS)};
      tell(paths.flatMap((path) => Object.entries(require(path)).filter(([, value]) => !source(value)).map(([name]) => name)));`);
    expect([...new Set(kept)].sort()).toEqual([
      'HandlerManager', 'QUEUE_DEFAULT_ACK_TIMEOUT', 'QUEUE_DEFAULT_CONCURRENCY', 'QUEUE_DEFAULT_INTERVAL', 'SyncMessageVersionManager', 'createCacheManager', 'createPubSubManager',
    ]);
  });

  test('are answered to relative requires inside the server', async () => {
    expect(await told(`
      const server = require('@nocobase/server');
      const app = new server.Application();
      app.load().then(() => tell([
        app.pubSubManager instanceof mortise().PubSubManager, app.syncMessageManager instanceof mortise().SyncMessageManager,
        app.eventQueue instanceof mortise().EventQueue, app.lockManager instanceof mortise().LockManager,
        app.workerIdAllocator instanceof mortise().WorkerIdAllocator, app.cacheManager instanceof mortise().CacheManager,
        app.cache === app.cacheManager.getCache('main'), app.context.cache === app.cache,
        app.eventQueue.constructor === server.EventQueue,
      ]));`)).toEqual(Array(9).fill(true));
  });

  test('are answered to import as well', async () => {
    expect(await told(`
      import { CacheManager } from '@nocobase/cache';
      import lock, { LockManager } from '@nocobase/lock-manager';
      import { createRequire } from 'node:module';
      const mortise = createRequire(import.meta.url)(${JSON.stringify(ROOT)});
      console.log([CacheManager.prototype instanceof mortise.CacheManager, LockManager.prototype instanceof mortise.LockManager, lock.LockManager === LockManager].every(Boolean));
    `, { module: true })).toBe(true);
  });

  test('are answered in worker threads, and once however often it is registered', async () => {
    expect(await told(`
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      const { LockManager } = require('@nocobase/lock-manager');
      const depth = () => {
        let classes = 0;
        for (let at = LockManager; at !== Function.prototype; at = Object.getPrototypeOf(at)) classes++;
        return classes;
      };
      if (!isMainThread) parentPort.postMessage(depth());
      else {
        delete require.cache[${JSON.stringify(REGISTER)}];
        const extension = require.extensions['.js'];
        require(${JSON.stringify(REGISTER)});
        new Worker(__filename).on('message', (inWorker) => tell([depth(), inWorker, require.extensions['.js'] === extension]));
      }
    `)).toEqual([2, 2, true]);
  });

  test('can be subclassed, spied on and assigned to', async () => {
    expect(await told(`
      const cache = require('@nocobase/cache');
      const { LockManager } = require('@nocobase/lock-manager');
      class Own extends cache.CacheManager { getCache(name) { return super.getCache(name); } }
      const calls = [];
      const { acquire } = LockManager.prototype;
      LockManager.prototype.acquire = function (...words) { calls.push(words); return acquire.apply(this, words); };
      const own = new Own({ prefix: 'p' });
      (async () => {
        const made = await own.createCache({ name: 'c' });
        await (await new LockManager().acquire('k', 100))();
        const { CacheManager } = cache;
        cache.CacheManager = Own;
        tell([own.getCache('c') === made, made.constructor === cache.Cache, own instanceof CacheManager, calls, require('@nocobase/cache').CacheManager === Own,
          CacheManager.name, LockManager.name, own.constructor.name]);
      })();
    `)).toEqual([true, true, true, [['k', 100]], true, 'CacheManager', 'LockManager', 'Own']);
  });

  test('take what the originals take', async () => {
    expect(await told(`
      const { Cache, CacheManager, LockCounter, MemoryCounter, RedisCounter } = require('@nocobase/cache');
      const { LockManager } = require('@nocobase/lock-manager');
      const { SyncMessageManager, SyncMessageVersionManager } = require('@nocobase/server/lib/sync-message-manager');
      const { memoryStore } = require(${JSON.stringify(join(ROOT, 'node_modules', 'cache-manager'))});
      (async () => {
        const plain = new Cache({ name: 'c', prefix: 'p', store: { store: memoryStore() } });
        await plain.set('a', 1);
        const manager = new CacheManager({ unknown: true, stores: { memory: { max: 10, unknown: 1 } } });
        const counter = new LockCounter(await manager.createCache({ name: 'n' }), new LockManager({ unknown: 1 }));
        const wrong = (() => { try { new RedisCounter(plain); } catch (error) { return error.code; } })();
        const sync = new SyncMessageManager({ on: () => undefined }, { debounce: 0, unknown: 1 });
        tell([await plain.wrap('a', () => 2), await plain.wrap('b', () => 2), await plain.keys(), await counter.incr('x'), await counter.incr('x'),
          await new MemoryCounter().incr('x'), wrong, await sync.sync(), typeof SyncMessageVersionManager]);
      })();
    `)).toEqual([1, 2, ['b', 'a'], 1, 2, 1, 'E_INVALID_ARGUMENT', null, 'function']);
  });
});

describe('an installation', () => {
  const ask = `tell([new (require('@nocobase/lock-manager').LockManager)() instanceof mortise().LockManager, new (require('@nocobase/cache').CacheManager)() instanceof mortise().CacheManager])`;

  test('may nest the packages', async () => {
    const folder = temporaryFolder();
    const inner = join(folder, 'node_modules', 'app');
    mkdirSync(inner, { recursive: true });
    writeTree(inner);
    writeFileSync(join(inner, 'index.js'), 'module.exports = [require("@nocobase/lock-manager").LockManager, require("@nocobase/server").EventQueue];');
    expect(await told(`
      const [LockManager, EventQueue] = require('app');
      tell([new LockManager() instanceof mortise().LockManager, EventQueue.prototype instanceof mortise().EventQueue]);
    `, { folder })).toEqual([true, true]);
  });

  test('may keep them elsewhere behind links, as pnpm does', async () => {
    const folder = writeTree(temporaryFolder());
    const scope = join(folder, 'node_modules', '@nocobase');
    const store = join(folder, 'node_modules', '.pnpm', '@nocobase+lock-manager@2.2.15', 'node_modules', '@nocobase');
    mkdirSync(store, { recursive: true });
    renameSync(join(scope, 'lock-manager'), join(store, 'lock-manager'));
    symlinkSync(join(store, 'lock-manager'), join(scope, 'lock-manager'));
    expect(await told(ask, { folder })).toEqual([true, true]);
  });

  test('of another major version stays as it is, with a warning', async () => {
    const folder = writeTree(temporaryFolder(), { version: '3.0.0' });
    const { told, errors } = await run(ask, { folder });
    expect(told).toEqual([false, true]);
    expect(errors.match(/mortise knows @nocobase\/lock-manager 2; version 3\.0\.0 stays as it is/g)).toHaveLength(1);
  });

  test('that was loaded before stays as it is, with a warning', async () => {
    const { told, errors } = await run(`
      const before = require('@nocobase/lock-manager');
      require(${JSON.stringify(REGISTER)});
      tell(require('@nocobase/lock-manager').LockManager === before.LockManager);
    `, { flags: [] });
    expect(told).toBe(true);
    expect(errors).toContain(`${join('lock-manager', 'lib', 'index.js')} was loaded before mortise/register`);
  });

  test('of other packages with such names is left alone', async () => {
    const folder = writeTree(temporaryFolder());
    cpSync(join(folder, 'node_modules', '@nocobase', 'lock-manager'), join(folder, 'node_modules', 'lock-manager'), { recursive: true });
    const about = join(folder, 'node_modules', 'lock-manager', 'package.json');
    writeFileSync(about, readFileSync(about, 'utf8').replace('@nocobase/', ''));
    expect(await told('tell(new (require("lock-manager").LockManager)() instanceof mortise().LockManager)', { folder })).toBe(false);
  });

  test('the real cache package is what is tested here', () => {
    expect(JSON.parse(readFileSync(join(CACHE, 'package.json'), 'utf8')).version).toMatch(/^2\./);
  });
});

/** A program with an application that has been started. */
const APP = `
  const { Application } = require('@nocobase/server');
  const { LockAcquireError } = require('@nocobase/lock-manager');
  const options = {};
  // What waits keeps Node alive until the end; then it exits by itself.
  const main = async (then) => {
    const app = new Application(options);
    const alive = setInterval(() => undefined, 1000);
    try {
      await app.load();
      await app.start();
      await then(app);
    } finally {
      clearInterval(alive);
    }
  };
`;

describe('an application', () => {
  test('without variables runs as ever: pub/sub unconnected, the rest in the process', async () => {
    expect(await told(`${APP} main(async (app) => {
      let heard = 0;
      await app.pubSubManager.subscribe('c', () => heard++);
      await app.pubSubManager.publish('c', 1);
      const seen = new Promise((resolve) => app.eventQueue.subscribe('e', { process: resolve }));
      await app.eventQueue.publish('e', { a: 1 });
      tell([await app.pubSubManager.isConnected(), await seen, heard, app.eventQueue.adapter.constructor.name, app.cacheManager.defaultStore,
        await app.lockManager.runExclusive('k', () => 7), app.instanceId >= 0 && app.instanceId < 32]);
      await app.stop();
    })`)).toEqual([false, { a: 1 }, 0, 'MemoryEventQueueAdapter', 'memory', 7, true]);
  });

  test('gets lock errors of the class that it knows', async () => {
    expect(await told(`${APP} main(async (app) => {
      const lock = await app.lockManager.tryAcquire('k');
      const error = await app.lockManager.tryAcquire('k').catch((error) => error);
      await lock.release();
      tell([error instanceof LockAcquireError, error.constructor.name, error.code]);
      await app.stop();
    })`)).toEqual([true, 'LockAcquireError', 'E_LOCK_LOCKED']);
  });

  test('that restarts hands the messages that wait to the new queue, and only to that', async () => {
    expect(await told(`${APP}
      const seen = [];
      let busy = true;
      let turn = 0;
      options.plugins = [{ load: (app) => {
        const own = ++turn;
        app.eventQueue.subscribe('e', { idle: () => !busy, interval: 5, process: (message) => { seen.push([own, message]); } });
      } }];
      main(async (app) => {
        for (const message of [1, 2, 3]) await app.eventQueue.publish('e', message);
        await app.restart();
        busy = false;
        await until(() => seen.length === 3);
        await app.eventQueue.publish('e', 4);
        await until(() => seen.length === 4);
        tell(seen);
        await app.stop();
      })`)).toEqual([[2, 1], [2, 2], [2, 3], [2, 4]]);
  });

  test('has as many listeners and caches to close after ten restarts as after one', async () => {
    const [once, later] = await told(`${APP}
      options.plugins = [{ name: 'p', handleSyncMessage: () => undefined }];
      main(async (app) => {
        const counts = () => [app.eventNames().map((event) => [event, app.listenerCount(event)]), [...app.pubSubManager.handlerManager.handlers].map(([name, callbacks]) => [name, callbacks.size])];
        await app.restart();
        const once = counts();
        for (let i = 1; i < 10; i++) await app.restart();
        tell([once, counts()]);
        await app.stop();
      })`);
    expect(later).toEqual(once);
    expect(once[1]).toEqual([['main.sync.p', 1]]);
  });

  test('works on when the built-in objects have been frozen', async () => {
    expect(await told(`${APP} main(async (app) => {
      for (const { prototype } of [Object, Array, Function, Promise, Map, Set, WeakMap, RegExp, Date, TypeError, String, Number]) Object.freeze(prototype);
      await app.restart();
      await app.cache.set('k', { a: [1] });
      const seen = new Promise((resolve) => app.eventQueue.subscribe('e', { process: resolve }));
      await app.eventQueue.publish('e', { a: 1 });
      const lock = await app.lockManager.tryAcquire('k');
      const { code } = await app.lockManager.tryAcquire('k').catch((error) => error);
      await lock.release();
      tell([await app.cache.get('k'), await seen, code]);
      await app.stop();
    })`)).toEqual([{ a: [1] }, { a: 1 }, 'E_LOCK_LOCKED']);
  });

  test.each([
    ['QUEUE_ADAPTER', 'kafka', 'E_ADAPTER_UNAVAILABLE', 'QUEUE_ADAPTER is "kafka"; known are: memory, redis, rabbitmq'],
    ['PUBSUB_ADAPTER_REDIS_URL', 'redis://me:secret@host:99999', 'E_INVALID_ARGUMENT', 'PUBSUB_ADAPTER_REDIS_URL: the redis URL redis://me:***@host:99999 is wrong'],
    ['CACHE_MEMORY_MAX', 'many', 'E_INVALID_ARGUMENT', 'CACHE_MEMORY_MAX is a whole number from 1: "many"'],
  ])('refuses a wrong %s (%s) by its name', async (variable, value, code, message) => {
    const [got, text] = await told(`${APP} main(() => undefined).catch(({ code, message }) => tell([code, message]))`, { environment: { [variable]: value } });
    expect([got, text]).toEqual([code, expect.stringContaining(message)]);
    expect(text).not.toContain('secret');
  });

  test('refuses a wrong URL of RabbitMQ without telling its password', async () => {
    const environment = { QUEUE_ADAPTER: 'rabbitmq', QUEUE_ADAPTER_RABBITMQ_URL: 'amqp://me:secret@host:99999' };
    const [code, text] = await told(`${APP} main(() => undefined).catch(({ code, message }) => tell([code, message]))`, { environment });
    expect([code, text]).toEqual(['E_INVALID_ARGUMENT', expect.stringContaining('QUEUE_ADAPTER_RABBITMQ_URL: the rabbitmq URL amqp://me:***@host:99999 is wrong')]);
  });
});

test('holds under a loader that comes later and does not call it', async () => {
  const loader = join(temporaryFolder(), 'loader.js');
  writeFileSync(loader, `
    const { readFileSync } = require('node:fs');
    const Module = require('node:module');
    const former = Module._extensions['.js'];
    Module._extensions['.js'] = (module, file) => {
      if (file.includes('nocobase')) module._compile(readFileSync(file, 'utf8'), file);
      else former(module, file);
    };`);
  expect(await told(`
    const { CacheManager } = require('@nocobase/cache');
    const { EventQueue } = require('@nocobase/server/lib/event-queue');
    tell([CacheManager, EventQueue].map(({ prototype }) => prototype instanceof mortise()[prototype.constructor.name]));
  `, { flags: ['--require', REGISTER, '--require', loader] })).toEqual([true, true]);
});

test('a loader that is read and put back is the same one, however often', async () => {
  expect(await told(`
    const Module = require('node:module');
    const before = Module._extensions['.js'];
    for (let i = 0; i < 20_000; i++) {
      const former = Module._extensions['.js'];
      Module._extensions['.js'] = (module, file) => former(module, file);
      Module._extensions['.js'] = former;
    }
    const { CacheManager } = require('@nocobase/cache');
    tell([Module._extensions['.js'] === before, CacheManager.prototype instanceof mortise().CacheManager]);
  `)).toEqual([true, true]);
});

describe('an application on Redis', () => {
  let server;
  beforeAll(async () => { server = await RedisServer.start(); });
  afterAll(() => server.stop());

  const environment = () => ({
    CACHE_DEFAULT_STORE: 'redis', LOCK_ADAPTER_DEFAULT: 'redis', PUBSUB_ADAPTER_REDIS_URL: server.url, QUEUE_ADAPTER: 'redis', REDIS_URL: server.url,
  });
  /** The names of the connections, which no other process has meanwhile. */
  const CLIENTS = `
    const clients = async (client) => (await client.command('CLIENT', 'LIST')).split('\\n')
      .filter((line) => / name=mortise/.test(line)).map((line) => / name=(\\S+)/.exec(line)[1]).sort();
  `;
  /** A connection of its own, whatever the applications do. */
  const client = () => `const client = new (mortise().RedisConnection)({ url: ${JSON.stringify(server.url)}, commandTimeout: 4000 });`;

  test('runs all of its services there', async () => {
    expect(await told(`${APP} main(async (app) => {
      const other = new Application();
      await other.load();
      await other.start();
      let hear;
      const heard = new Promise((resolve) => { hear = resolve; });
      await other.pubSubManager.subscribe('c', hear);
      await app.pubSubManager.publish('c', { a: 1 });
      const seen = new Promise((resolve) => {
        for (const node of [app, other]) node.eventQueue.subscribe('e', { process: resolve });
      });
      await app.eventQueue.publish('e', { b: 2 });
      await app.cache.set('k', 3);
      const lock = await app.lockManager.tryAcquire('k');
      const { code } = await other.lockManager.tryAcquire('k').catch((error) => error);
      await lock.release();
      tell([await heard, await seen, await other.cache.get('k'), code, app.instanceId !== other.instanceId]);
      await other.stop();
      await app.stop();
    })`, { environment: environment() })).toEqual([{ a: 1 }, { b: 2 }, 3, 'E_LOCK_LOCKED', true]);
  });

  test('puts locks and worker ids under its own name', async () => {
    expect(await told(`${APP} ${client()} options.name = 'mine'; main(async (app) => {
      const lock = await app.lockManager.tryAcquire('k');
      const keys = await client.command('KEYS', '*mine*');
      await lock.release();
      tell([keys.some((key) => key.includes('lock')), keys.some((key) => key.includes('worker'))]);
      client.close();
      await app.stop();
    })`, { environment: environment() })).toEqual([true, true]);
  });

  test('has as many connections after ten restarts as after one, and none when it is stopped', async () => {
    expect(await told(`${APP} ${CLIENTS} ${client()}
      const kept = [];
      options.plugins = [{ name: 'p', handleSyncMessage: () => undefined, load: async (app) => { kept.push(await app.cacheManager.createCache({ name: 'p', prefix: 'p' })); } }];
      main(async (app) => {
        const use = async () => {
          await kept.at(-1).set('k', 1);
          await (await app.lockManager.tryAcquire('k')).release();
        };
        await client.command('PING');
        await app.restart();
        await use();
        // A connection that was closed may wait for what it has asked for.
        await until(async () => (await clients(client)).filter((name) => name === 'mortise:reader').length === 1);
        const once = await clients(client);
        for (let i = 1; i < 10; i++) {
          await app.restart();
          await use();
        }
        await until(async () => isDeepStrictEqual(await clients(client), once));
        // Loaded again: the plugin keeps the cache of a manager that is not the application's any more.
        await app.load();
        await kept.at(-2).set('k', 1);
        await app.stop();
        // Its own is there, which shares with none.
        await until(async () => (await clients(client)).length === 1);
        client.close();
        tell(once.length);
      })`, { environment: environment() })).toBeGreaterThan(1);
  });

  test('leaves pub/sub alone when only REDIS_URL is set', async () => {
    expect(await told(`${APP} main(async (app) => {
      tell([await app.pubSubManager.isConnected(), app.eventQueue.adapter.constructor.name, app.cacheManager.defaultStore]);
      await app.stop();
    })`, { environment: { REDIS_URL: server.url } })).toEqual([false, 'MemoryEventQueueAdapter', 'memory']);
  });
});
