'use strict';
const { LockManager, RedisLockAdapter, createApp } = require('..');
const { acquireError, busy, lockRules } = require('./lock-rules');
const { Proxy } = require('./servers/proxy');
const { RedisServer, startCluster, startSentinels } = require('./servers/redis');
const { child, gate, recorder, rejection, until, ROOT } = require('./support');

// After a loss nothing is granted for so long; short, for the tests' sake.
const gracePeriod = 100;
const FAST = { gracePeriod, heartbeat: 200, heartbeatTimeout: 1000 };

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());

const open = [];
afterEach(() => Promise.all(open.splice(0).map((locks) => locks.close())));

/** A manager on a server; closed after the test. */
const on = (port, options = {}) => {
  const locks = new LockManager({ defaultAdapter: 'redis', logger: recorder(), url: { port, ...FAST }, gracePeriod, ...options });
  open.push(locks);
  return locks;
};

/** A process with `locks` on the server, and `say(...words)`; it goes on until its input ends. */
const nodeOn = (port, code, options) => child(`
  const locks = new mortise.LockManager({ defaultAdapter: 'redis', logger: { debug() {}, info() {}, warn() {}, error() {} }, url: { port: ${port}, heartbeat: 200, heartbeatTimeout: 1000 }, gracePeriod: ${gracePeriod} });
  const say = (...words) => console.log(words.join(' '));
  const input = require('node:readline').createInterface({ input: process.stdin });
  const lines = [];
  const heard = [];
  input.on('line', (line) => { (heard.shift() ?? ((it) => lines.push(it)))(line); });
  const next = () => new Promise((resolve) => { lines.length ? resolve(lines.shift()) : heard.push(resolve); });
  (async () => { ${code} })().catch((error) => { say('failed', error.code, error.message); process.exitCode = 1; }).finally(async () => { input.close(); await locks.close(); });
`, { stdin: 'pipe', ...options });

describe('the rules of locks', () => {
  lockRules({ manager: (options) => new LockManager({ defaultAdapter: 'redis', url: server.url, gracePeriod, ...options }), scale: 40 });
});

describe('several processes', () => {
  test('one holds a key at a time, in the order in which they asked, with growing tokens', async () => {
    const first = on(server.port);
    const release = await first.acquire('order', 60_000);
    const nodes = Array.from({ length: 3 }, () => nodeOn(server.port, `
      await next();
      const taken = await locks.acquire('order', 60_000);
      say('token', taken.fencingToken);
      await next();
      await taken();
      say('released');`));
    // One after the other gets into the line.
    for (const [i, node] of nodes.entries()) {
      node.handle.stdin.write('go\n');
      await until(async () => (await first.holders()).find(({ key }) => key === 'order')?.waiters === i + 1);
    }
    await release();
    let last = release.fencingToken;
    for (const node of nodes) {
      await until(() => node.lines.length === 1);
      const token = Number(node.lines[0].split(' ')[1]);
      expect(token).toBeGreaterThan(last);
      last = token;
      const others = nodes.filter((other) => other !== node && other.lines.some((line) => line.startsWith('token')) && !other.lines.includes('released'));
      expect(others).toEqual([]);
      node.handle.stdin.write('on\n');
      await until(() => node.lines.includes('released'));
    }
    expect(await Promise.all(nodes.map((node) => node.exit))).toEqual(nodes.map(() => ({ code: 0, signal: null, errors: '' })));
  });

  test('a waiter that was killed is passed over at once, and a holder that was killed lapses at its ttl', async () => {
    const locks = on(server.port);
    const release = await locks.acquire('killed', 60_000);
    const waiter = nodeOn(server.port, `say('asking'); await locks.acquire('killed', 3_600_000);`);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'killed')?.waiters === 1);
    const mine = locks.acquire('killed', 60_000);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'killed')?.waiters === 2);
    waiter.handle.kill('SIGKILL');
    await waiter.exit;
    await release();
    await (await mine)();

    const holder = nodeOn(server.port, `await locks.acquire('killed', 700); say('held'); await next();`);
    await until(() => holder.lines.includes('held'));
    holder.handle.kill('SIGKILL');
    await holder.exit;
    await (await locks.acquire('killed', 60_000))();
  });

  test('a stopped waiter that is granted the key loses it after a second, and does not use it late', async () => {
    const locks = on(server.port);
    const release = await locks.acquire('stopped', 60_000);
    const waiter = nodeOn(server.port, `const taken = await locks.acquire('stopped', 3_600_000); say('token', taken.fencingToken); await next(); await taken();`);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'stopped')?.waiters === 1);
    waiter.handle.kill('SIGSTOP');
    await release();
    const taken = await locks.acquire('stopped', 60_000);
    waiter.handle.kill('SIGCONT');
    // It is in the line again, behind whoever came meanwhile.
    await until(async () => (await locks.holders()).find(({ key }) => key === 'stopped')?.waiters === 1);
    expect(waiter.lines).toEqual([]);
    await taken();
    await until(() => waiter.lines.length === 1);
    expect(Number(waiter.lines[0].split(' ')[1])).toBeGreaterThan(taken.fencingToken);
    waiter.handle.stdin.write('on\n');
    expect(await waiter.exit).toEqual({ code: 0, signal: null, errors: '' });
  });

  test('a holder that blocks its event loop keeps its lock', async () => {
    const locks = on(server.port);
    const holder = nodeOn(server.port, `
      await locks.runExclusive('busy', async ({ signal }) => {
        say('held');
        const end = performance.now() + 3000;
        while (performance.now() < end);
        say('aborted', signal.aborted);
      }, 1000);`);
    await until(() => holder.lines.includes('held'));
    while (holder.lines.length === 1) {
      const error = await locks.tryAcquire('busy').then((lock) => lock.release(), (it) => it);
      if (holder.lines.length === 1) expect(error?.code).toBe('E_LOCK_LOCKED');
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    expect(holder.lines[1]).toBe('aborted false');
    await holder.exit;
  });

  test('Node exits by itself with a lock held, and waits while one is waited for', async () => {
    const holder = nodeOn(server.port, `await locks.acquire('exit', 700); input.close(); process.stdin.destroy(); say('held');`);
    const waiter = nodeOn(server.port, `input.close(); process.stdin.destroy(); const release = await locks.acquire('exit', 60_000); say('mine'); await release();`);
    expect(await holder.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(await waiter.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(waiter.lines).toEqual(['mine']);
  });
});

describe('holders', () => {
  test('tell key, node, since, what is left, waiters and token, of this app only', async () => {
    const [locks, other] = [on(server.port), on(server.port, { app: 'other' })];
    const before = Date.now();
    const release = await locks.acquire('told*', 60_000);
    const waiting = locks.acquire('told*', 60_000);
    await other.acquire('foreign', 5000);
    await until(async () => (await locks.holders())[0]?.waiters === 1);
    const [{ ttl, since, ...holder }, ...more] = await locks.holders();
    expect(more).toEqual([]);
    expect(holder).toEqual({ key: 'told*', node: expect.stringContaining(`:${process.pid}:`), waiters: 1, fencingToken: release.fencingToken });
    expect(ttl).toBeGreaterThan(0);
    expect(ttl).toBeLessThanOrEqual(60_000);
    expect(since).toBeGreaterThanOrEqual(before - 1);
    expect(since).toBeLessThanOrEqual(Date.now() + 1);
    await release();
    await (await waiting)();
    expect(await locks.holders()).toEqual([]);
  });

  test('local locks tell too, and an adapter that cannot says so', async () => {
    const local = new LockManager();
    const release = await local.acquire('a local key', Infinity);
    expect((await local.holders()).find(({ key }) => key === 'a local key')).toEqual({
      key: 'a local key', node: expect.stringContaining(`:${process.pid}`), since: expect.any(Number), ttl: Infinity, waiters: 0, fencingToken: release.fencingToken,
    });
    await release();
    class Dumb { async connect() {} async close() {} async acquire() {} async runExclusive() {} async tryAcquire() {} }
    const dumb = new LockManager({ defaultAdapter: 'dumb' });
    dumb.registerAdapter('dumb', { Adapter: Dumb });
    expect((await rejection(dumb.holders())).code).toBe('E_UNSUPPORTED');
  });
});

describe('a server that is lost', () => {
  test('a cut connection: leases go on, places in the line are kept, and tokens grow', async () => {
    const proxy = await Proxy.to(server.port);
    const [locks, other] = [on(proxy.port), on(server.port)];
    const { promise, resolve } = gate();
    const running = locks.runExclusive('cut', async ({ signal, fencingToken }) => {
      await promise;
      return { aborted: signal.aborted, fencingToken };
    }, 5000);
    await until(async () => (await other.holders()).some(({ key }) => key === 'cut'));
    const waiting = other.acquire('cut', 60_000);
    const behind = locks.acquire('cut', 60_000);
    await until(async () => (await other.holders()).find(({ key }) => key === 'cut')?.waiters === 2);
    proxy.cut();
    await until(() => proxy.connections >= 2);
    resolve();
    const { aborted, fencingToken } = await running;
    expect(aborted).toBe(false);
    const second = await waiting;
    expect(second.fencingToken).toBeGreaterThan(fencingToken);
    await second();
    const third = await behind;
    expect(third.fencingToken).toBeGreaterThan(second.fencingToken);
    await third();
  });

  test('a lease that cannot be renewed in time: signal aborts before anybody else can hold the key', async () => {
    const proxy = await Proxy.to(server.port);
    const logger = recorder();
    const [locks, other] = [on(proxy.port, { logger }), on(server.port)];
    const lost = gate();
    const running = locks.runExclusive('lost', ({ signal }) => new Promise((resolve) => {
      signal.addEventListener('abort', () => { lost.resolve(performance.now()); resolve(signal.reason); });
    }), 1000);
    await until(async () => (await other.holders()).some(({ key }) => key === 'lost'));
    const next = other.acquire('lost', 60_000).then((release) => ({ release, at: performance.now() }));
    proxy.mode = 'blackhole';
    const { release, at } = await next;
    expect(await lost.promise).toBeLessThanOrEqual(at);
    const reason = await running;
    expect([reason.name, reason.code]).toEqual(['LockAbortError', 'E_LOCK_ABORTED']);
    expect(logger.lines.some(({ level, message }) => level === 'warn' && message.includes('"lost"'))).toBe(true);
    await release();
  });

  test('a restart without its data: holders put their locks back, nobody else gets them, tokens grow', async () => {
    const own = await RedisServer.start();
    const options = { gracePeriod: 2000 };
    const [locks, other] = [on(own.port, options), on(own.port, { ...options, url: { port: own.port, ...FAST, protocol: 2 } })];
    const held = await locks.acquire('long', 60_000);
    const { promise, resolve } = gate();
    const running = locks.runExclusive('renewed', async ({ signal }) => { await promise; return signal.aborted; }, 30_000);
    await until(async () => (await locks.holders()).length === 2);
    const waiting = other.acquire('renewed', 60_000);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'renewed')?.waiters === 1);
    await own.kill();
    await own.up();
    // Both are asked for as soon as the server is there.
    const more = [locks.acquire('long', 60_000), other.acquire('free', 60_000)];
    const free = await more[1];
    expect(free.fencingToken).toBeGreaterThan(held.fencingToken);
    expect((await locks.holders()).map(({ key }) => key)).toEqual(['free', 'long', 'renewed']);
    acquireError(await rejection(other.tryAcquire('renewed')), 'E_LOCK_LOCKED', 'lock is locked');
    resolve();
    expect(await running).toBe(false);
    const next = await waiting;
    expect(next.fencingToken).toBeGreaterThan(held.fencingToken);
    await held();
    await (await more[0])();
    await next();
    await Promise.all(open.splice(0).map((it) => it.close()));
    await own.stop();
  });

  test('FLUSHALL while all are connected: holders put their locks back', async () => {
    const own = await RedisServer.start();
    const [locks, other] = [on(own.port, { gracePeriod: 1500 }), on(own.port, { gracePeriod: 1500, url: { port: own.port, ...FAST, commandTimeout: 4000 } })];
    const held = await locks.acquire('flushed', 60_000);
    await other.acquire('warm', 1);
    await own.call('FLUSHALL');
    // Whoever asks first notices, and all are told.
    const free = await other.acquire('another', 60_000);
    acquireError(await rejection(other.tryAcquire('flushed')), 'E_LOCK_LOCKED', 'lock is locked');
    expect(free.fencingToken).toBeGreaterThan(held.fencingToken);
    await held();
    await (await other.tryAcquire('flushed')).release();
    await free();
    await Promise.all(open.splice(0).map((it) => it.close()));
    await own.stop();
  });

  test('scripts that the server has forgotten are sent again', async () => {
    const locks = on(server.port);
    await (await locks.acquire('scripts', 5000))();
    await server.call('SCRIPT', 'FLUSH');
    const release = await locks.acquire('scripts', 5000);
    await server.call('SCRIPT', 'FLUSH');
    await release();
    await (await locks.tryAcquire('scripts')).release();
  });

  test('away: clear errors, nothing hangs, and it works again afterwards', async () => {
    const own = await RedisServer.start();
    const url = { port: own.port, ...FAST, connectTimeout: 500, commandTimeout: 500, reconnectGrace: 50 };
    const logger = recorder();
    const locks = on(own.port, { url, logger });
    const release = await locks.acquire('held', 60_000);
    const waiting = rejection(locks.acquire('held', 60_000));
    await until(async () => (await locks.holders())[0].waiters === 1);
    await own.kill();
    expect((await rejection(locks.acquire('away', 5000))).code).toBe('E_UNAVAILABLE');
    const error = await rejection(locks.tryAcquire('away'));
    expect([error.code, error.key]).toEqual(['E_UNAVAILABLE', 'away']);
    expect((await rejection(locks.runExclusive('away', () => 1))).message).toContain('"away"');
    expect((await waiting).code).toBe('E_UNAVAILABLE');
    await release();
    expect((await rejection(on(own.port, { url, app: 'new' }).acquire('k'))).code).toBe('E_UNAVAILABLE');
    await own.up();
    await until(() => logger.lines.some(({ message }) => message.includes('is back')));
    await (await locks.acquire('away', 5000))();
    expect(logger.lines.filter(({ message }) => message.includes('is away'))).toHaveLength(1);
    await Promise.all(open.splice(0).map((it) => it.close()));
    await own.stop();
  });

  test('a paused server: E_TIMEOUT or a grant, but no hang', async () => {
    const own = await RedisServer.start();
    const locks = on(own.port, { url: { port: own.port, ...FAST, commandTimeout: 400, heartbeat: 5000, heartbeatTimeout: 5000 } });
    await (await locks.acquire('paused', 5000))();
    own.pause();
    expect(['E_TIMEOUT', 'E_UNAVAILABLE']).toContain((await rejection(locks.tryAcquire('paused'))).code);
    own.resume();
    await (await locks.acquire('paused', 60_000))();
    await Promise.all(open.splice(0).map((it) => it.close()));
    await own.stop();
  });

  test('close rejects who waits; what is held stays until it is released', async () => {
    const [locks, other] = [on(server.port), on(server.port)];
    const release = await locks.acquire('closing', 60_000);
    const waiting = rejection(locks.acquire('closing', 60_000));
    await until(async () => (await other.holders())[0].waiters === 1);
    await locks.close();
    const error = await waiting;
    expect([error.name, error.code, error.key]).toEqual(['LockAbortError', 'E_LOCK_ABORTED', 'closing']);
    await until(async () => (await other.holders())[0].waiters === 0);
    acquireError(await rejection(other.tryAcquire('closing')), 'E_LOCK_LOCKED', 'lock is locked');
    await release();
    await (await other.tryAcquire('closing')).release();
    // It may be used again.
    await (await locks.acquire('closing', 5000))();
  });
});

describe('what must not happen', () => {
  test('managers with different grace periods do not take each other\'s grants', async () => {
    const [one, two, other] = [on(server.port), on(server.port, { gracePeriod: 150 }), on(server.port, { url: { port: server.port, ...FAST, commandTimeout: 4999 } })];
    const held = [await other.acquire('of one', 60_000), await other.acquire('of two', 60_000)];
    let second = false;
    const waiting = [one.acquire('of one', 60_000), two.acquire('of two', 60_000).then((release) => { second = true; return release; })];
    await until(async () => (await other.holders()).filter(({ key, waiters }) => key.startsWith('of ') && waiters === 1).length === 2);
    await held[0]();
    await (await waiting[0])();
    expect(second).toBe(false);
    await held[1]();
    await (await waiting[1])();
  });

  test('a wait behind a lease without an end, whose key then goes to one that is killed, is not forgotten', async () => {
    const locks = on(server.port);
    const release = await locks.acquire('endless', Infinity);
    const killed = nodeOn(server.port, `await locks.acquire('endless', 700); say('held'); await next();`);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'endless')?.waiters === 1);
    const waiting = locks.acquire('endless', 60_000);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'endless')?.waiters === 2);
    await release();
    await until(() => killed.lines.includes('held'));
    killed.handle.kill('SIGKILL');
    await (await waiting)();
  });

  test('after close: what had lapsed can be released and extended without harm, and the process lives', async () => {
    const run = child(`(async () => {
      const locks = new mortise.LockManager({ defaultAdapter: 'redis', url: '${server.url}', gracePeriod: ${gracePeriod} });
      const release = await locks.acquire('late', 100);
      const lock = await locks.tryAcquire('late too');
      await lock.acquire(100);
      await locks.close();
      await new Promise((resolve) => setTimeout(resolve, 400));
      await release();
      console.log(await lock.extend(100).catch((error) => error.code));
      await lock.release();
    })();`);
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(run.lines).toEqual(['E_LOCK_NOT_ACTIVE']);
  });

  test('a grant that comes while the adapter closes is given back', async () => {
    const [locks, other] = [on(server.port), on(server.port)];
    const release = await other.acquire('crossing', 60_000);
    const waiting = rejection(locks.runExclusive('crossing', () => 1, 60_000));
    await until(async () => (await other.holders()).find(({ key }) => key === 'crossing')?.waiters === 1);
    const releasing = release();
    await null;
    // The grant is in the mailbox when the loop comes round.
    busy(200);
    await locks.close();
    expect((await waiting).code).toBe('E_LOCK_ABORTED');
    await releasing;
    await (await other.acquire('crossing', 60_000))();
  });

  test('what could not be acknowledged is undone when the server answers again', async () => {
    const own = await RedisServer.start();
    const locks = on(own.port, { url: { port: own.port, heartbeat: 10_000, heartbeatTimeout: 10_000, commandTimeout: 400 } });
    await (await locks.acquire('warm', 5000))();
    own.pause();
    const errors = await Promise.all([rejection(locks.acquire('stalled', Infinity)), rejection(locks.tryAcquire('stalled'))]);
    for (const { code } of errors) expect(['E_TIMEOUT', 'E_UNAVAILABLE']).toContain(code);
    own.resume();
    await until(async () => (await locks.holders().catch(() => [1])).length === 0);
    await (await locks.acquire('stalled', 5000))();
    await Promise.all(open.splice(0).map((it) => it.close()));
    await own.stop();
  });

  test('an old release does not lengthen the lease of another', async () => {
    const locks = on(server.port);
    const old = await locks.acquire('old', 100);
    // Not longer than the window of a grant, so that no claim lengthens it.
    const killed = nodeOn(server.port, `await locks.acquire('old', 1000); say('held'); await next();`);
    await until(() => killed.lines.includes('held'));
    const waiting = locks.acquire('old', 60_000);
    await until(async () => (await locks.holders()).find(({ key }) => key === 'old')?.waiters === 1);
    const { ttl } = (await locks.holders()).find(({ key }) => key === 'old');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await old();
    const after = (await locks.holders()).find(({ key }) => key === 'old');
    if (after?.waiters === 1) expect(after.ttl).toBeLessThan(ttl);
    killed.handle.kill('SIGKILL');
    await (await waiting)();
  });

  test('an adapter that is used without connect waits, and is let in', async () => {
    const adapters = [1, 2].map((n) => new RedisLockAdapter({ port: server.port, app: 'at once', gracePeriod, commandTimeout: 4000 + n }));
    const taken = await adapters[0].acquire('k', 60_000);
    const waiting = adapters[1].acquire('k', 60_000);
    await until(async () => (await adapters[0].holders())[0].waiters === 1);
    await taken();
    await (await waiting)();
    await Promise.all(adapters.map((adapter) => adapter.close()));
  });

  test('users who may not publish or ask for INFO: everybody gets in, and tokens grow', async () => {
    await server.call('ACL', 'SETUSER', 'poor', 'on', '>secret', '~*', '+@all', '-info', 'resetchannels');
    const url = { port: server.port, ...FAST, username: 'poor', password: 'secret' };
    const [poor, rich] = [on(server.port, { url }), on(server.port)];
    const waiters = (count) => until(async () => (await rich.holders()).find(({ key }) => key === 'acl')?.waiters === count);
    const first = await poor.acquire('acl', 60_000);
    const waiting = [rich.acquire('acl', 60_000)];
    await waiters(1);
    waiting.push(poor.acquire('acl', 60_000));
    await waiters(2);
    await first();
    const tokens = [first.fencingToken];
    await Promise.all(waiting.map(async (wait) => {
      const release = await wait;
      tokens.push(release.fencingToken);
      await release();
    }));
    expect(tokens).toEqual([...new Set(tokens)].sort((x, y) => x - y));
  });

  test('a server that goes back to older data: nobody but a holder lets in the next during the grace period', async () => {
    const own = await RedisServer.start();
    const proxies = [await Proxy.to(own.port), await Proxy.to(own.port)];
    const [a, b] = proxies.map(({ port }) => on(port, { gracePeriod: 2500 }));
    const d = on(own.port, { gracePeriod: 2500 });
    for (const locks of [a, b, d]) await (await locks.acquire('warm'))();
    const release = await a.acquire('k', 60_000);
    await own.call('SAVE');
    // The release is done, and its node does not hear of it.
    proxies[0].mode = 'half';
    const releasing = release();
    await until(async () => (await d.holders()).every(({ key }) => key !== 'k'));
    const { promise, resolve } = gate();
    const running = b.runExclusive('k', async ({ signal }) => { await promise; return signal.aborted; }, 30_000);
    await until(async () => (await d.holders()).some(({ key }) => key === 'k'));
    proxies[1].mode = 'refuse';
    await own.kill();
    proxies[1].cut();
    proxies[0].mode = 'pass';
    await own.up();
    let let_in = false;
    const waiting = d.acquire('k', 60_000).then((taken) => { let_in = true; return taken; });
    await releasing;
    proxies[1].mode = 'pass';
    // The holder puts its lock back.
    await until(async () => (await d.holders().catch(() => [])).some(({ key, waiters }) => key === 'k' && waiters === 1));
    expect(let_in).toBe(false);
    resolve();
    expect(await running).toBe(false);
    await (await waiting)();
    await Promise.all(open.splice(0).map((it) => it.close()));
    await own.stop();
  });
});

describe('kinds of servers', () => {
  test('without RESP3 nobody is told, and all the same everybody gets in, in order', async () => {
    const url = { port: server.port, ...FAST, protocol: 2 };
    const locks = on(server.port, { url, app: 'resp2' });
    const order = [];
    await Promise.all([1, 2, 3].map(async (n) => {
      const release = await locks.acquire('old', 60_000);
      order.push(n);
      await release();
    }));
    expect(order).toEqual([1, 2, 3]);
  });

  test('a cluster', async () => {
    const cluster = await startCluster();
    const manager = () => on(0, { url: { url: cluster.url, ...FAST } });
    const [locks, other] = [manager(), manager()];
    const release = await locks.acquire('on a cluster', 60_000);
    const waiting = other.acquire('on a cluster', 60_000);
    await until(async () => (await other.holders())[0]?.waiters === 1);
    await release();
    await (await waiting)();
    expect(await locks.runExclusive('k', () => 5)).toBe(5);
    await Promise.all(open.splice(0).map((it) => it.close()));
    await cluster.stop();
  }, 60_000);

  test('sentinels: after a failover holders put their locks back', async () => {
    const sentinels = await startSentinels();
    const url = { url: sentinels.url, ...FAST, commandTimeout: 15_000 };
    const [locks, other] = [on(0, { url, gracePeriod: 3000 }), on(0, { url: { ...url, protocol: 2 }, gracePeriod: 3000 })];
    const { promise, resolve } = gate();
    const running = locks.runExclusive('kept', async ({ signal, fencingToken }) => { await promise; return [signal.aborted, fencingToken]; }, 60_000);
    await until(async () => (await other.holders()).length === 1);
    const waiting = other.acquire('kept', 60_000);
    await sentinels.master.kill();
    await until(async () => (await sentinels.replica.call('ROLE').catch(() => []))[0] === 'master', 30_000);
    await until(async () => (await locks.holders().catch(() => [])).length === 1, 30_000);
    acquireError(await rejection(locks.tryAcquire('kept')), 'E_LOCK_LOCKED', 'lock is locked');
    resolve();
    const [aborted, token] = await running;
    expect(aborted).toBe(false);
    const release = await waiting;
    expect(release.fencingToken).toBeGreaterThan(token);
    await release();
    await Promise.all(open.splice(0).map((it) => it.close()));
    await sentinels.stop();
  }, 90_000);

  test('a server that evicts keys is warned about, once', async () => {
    const own = await RedisServer.start(['maxmemory 100mb', 'maxmemory-policy allkeys-lru']);
    const logger = recorder();
    const locks = on(own.port, { logger });
    await (await locks.acquire('k'))();
    expect(logger.lines.filter(({ level, message }) => level === 'warn' && message.includes('allkeys-lru'))).toHaveLength(1);
    await locks.close();
    await own.stop();
  });
});

describe('as an adapter', () => {
  test('of a manager that registers it by its class, as plugins do, and of createApp', async () => {
    const locks = new LockManager({ defaultAdapter: 'redis' });
    locks.registerAdapter('redis', { Adapter: RedisLockAdapter, options: { url: server.url, app: 'by class', gracePeriod } });
    const release = await locks.acquire('k', 5000);
    const app = createApp({ name: 'by class', redis: server.url, lockManager: { defaultAdapter: 'redis', gracePeriod } });
    await app.start();
    acquireError(await rejection(app.lockManager.tryAcquire('k')), 'E_LOCK_LOCKED', 'lock is locked');
    await release();
    await (await app.lockManager.tryAcquire('k')).release();
    await app.stop();
    await locks.close();
  });

  test('alone, from a URL', async () => {
    const adapter = new RedisLockAdapter(server.url);
    await adapter.connect();
    await adapter.connect();
    expect(await adapter.runExclusive('k', () => 5, 500)).toBe(5);
    await adapter.close();
    await adapter.close();
  });

  test.each([[{ url: 'http://x' }], [{ port: 'x' }], [{ app: '' }], [{ app: 5 }], [{ maxHold: 0 }], [{ gracePeriod: -1 }], ['redis://x:y']])('%p is refused', (options) => {
    expect(() => new RedisLockAdapter(options)).toThrow(expect.objectContaining({ name: 'TypeError' }));
  });

  test('all threads of a process share one connection, and one that ends gives back what it holds', async () => {
    const { Worker } = require('node:worker_threads');
    const own = await RedisServer.start();
    const locks = on(own.port);
    await (await locks.acquire('k', 5000))();
    const url = JSON.stringify({ port: own.port, ...FAST });
    const worker = new Worker(`const { LockManager } = require(${JSON.stringify(ROOT)}); const { parentPort } = require('node:worker_threads');
      const locks = new LockManager({ defaultAdapter: 'redis', url: ${url}, gracePeriod: ${gracePeriod} });
      locks.acquire('of a thread', 3_600_000).then(() => parentPort.postMessage('held')); setInterval(() => {}, 1000);`, { eval: true });
    await new Promise((resolve) => worker.once('message', resolve));
    const clients = (await own.call('CLIENT', 'LIST')).split('\n').filter((line) => line.includes('name=mortise:lock'));
    expect(clients).toHaveLength(1);
    acquireError(await rejection(locks.tryAcquire('of a thread')), 'E_LOCK_LOCKED', 'lock is locked');
    await worker.terminate();
    await (await locks.acquire('of a thread', 5000))();
    await locks.close();
    await own.stop();
  });

  test('a lease that ended while the event loop was blocked is not handed out', async () => {
    const [locks, other] = [on(server.port), on(server.port)];
    const release = await other.acquire('blocked', 60_000);
    const waiting = locks.acquire('blocked', 300);
    await until(async () => (await other.holders())[0].waiters === 1);
    const releasing = release();
    await null;
    // The release goes out; the grant comes, and lapses, before this thread can hear of it.
    busy(1200);
    const taken = await waiting;
    // Not the first grant, but one of its own.
    expect(taken.fencingToken).toBeGreaterThan(release.fencingToken + 1);
    await releasing;
    await taken();
  });

  test('one contended acquisition takes at most eight commands, those inside scripts counted', async () => {
    const own = await RedisServer.start();
    const nodes = Array.from({ length: 5 }, () => nodeOn(own.port, `
      let stopped = false;
      next().then(() => { stopped = true; });
      while (!stopped) await (await locks.acquire('contended', 1000))();`));
    /** Calls by command, but those that no lock makes. */
    const calls = async () => {
      const stats = await own.call('INFO', 'commandstats');
      return new Map([...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, count]) => [name, Number(count)])
        .filter(([name]) => !/^(config|info|ping|client|subscribe|unsubscribe|hello|script|time)/.test(name)));
    };
    const sum = (counts) => [...counts.values()].reduce((all, count) => all + count, 0);
    const after = (grants) => until(async () => {
      const counts = await calls();
      return counts.get('publish') > grants && counts;
    });
    // While all of them ask: a key that is free costs a command more.
    const before = await after(200);
    const later = await after(before.get('publish') + 1000);
    const grants = later.get('incr') - before.get('incr');
    expect((sum(later) - sum(before)) / grants).toBeLessThanOrEqual(8.2);
    nodes.forEach((node) => node.handle.stdin.write('stop\n'));
    await Promise.all(nodes.map((node) => node.exit));
    await own.stop();
  });
});
