'use strict';

const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');
const { EventQueue, RedisEventQueueAdapter } = require('..');
const { redis } = require('./servers/brokers');
const { Proxy } = require('./servers/proxy');
const { RedisServer, startCluster, startSentinels } = require('./servers/redis');
const { child, gate, recorder, rejection, until } = require('./support');

/** Longer than any test: nothing that this hides is found by chance. */
const LONG = 60_000;
const STREAM = 'mortise:{main.c}:queue:stream';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

let server;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());

describe('an event queue on Redis', () => {
  let logger;
  beforeEach(async () => {
    logger = recorder();
    await server.call('FLUSHALL');
  });
  const open = [];
  afterEach(() => Promise.all(open.splice(0).map((closing) => closing.close())));

  let nth = 0;
  const make = async (options = {}, url = redis.url(server.port, ++nth)) => {
    const queue = new EventQueue({ name: 'main', logger }, { adapter: 'redis', url, lease: LONG, closeTimeout: 200, ...options });
    open.push(queue);
    await queue.connect();
    return queue;
  };
  const collect = (queue, event = {}, channel = 'c') => {
    const got = [];
    queue.subscribe(channel, { process: (message) => { got.push(message); }, ...event });
    return got;
  };
  const proxied = async (port = server.port) => {
    const proxy = await Proxy.to(port);
    open.push(proxy);
    return proxy;
  };
  const own = async (settings) => {
    const started = await RedisServer.start(settings);
    open.push({ close: () => started.stop() });
    return started;
  };
  const numbers = (count) => Array.from({ length: count }, (_, n) => n);
  const logged = (level, text) => logger.lines.filter((line) => line.level === level && line.message.includes(text));
  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
  /** How many commands the server has run, those inside scripts too, but for those that look after the connection. */
  const commands = async (from = server) => {
    const stats = await from.call('INFO', 'commandstats');
    const others = /^(ping|info|client|hello|select|role|script|subscribe|unsubscribe|config|flushall)/;
    return stats.split('\r\n').filter((line) => line.startsWith('cmdstat_') && !others.test(line.slice(8)))
      .reduce((sum, line) => sum + Number(/calls=(\d+)/.exec(line)[1]), 0);
  };

  test('emptied while it works, it makes its group anew, says what was lost, and goes on', async () => {
    const queue = await make({ lease: 1000 });
    const held = gate();
    const got = [];
    queue.subscribe('c', { concurrency: 2, process: (message) => { got.push(message); return message === 'held' ? held.promise : undefined; } });
    await queue.publish('c', 'held');
    await until(() => got.length === 1);
    await server.call('FLUSHALL');
    await queue.publish('c', 'after');
    await until(() => got.includes('after'));
    expect(logged('warn', 'main.c')).toEqual([expect.objectContaining({ message: expect.stringMatching(/has lost .*1 messages/) })]);
    held.resolve();
    await queue.publish('c', 'later');
    await until(() => got.includes('later'));
    await until(async () => (await queue.counts('c')).running === 0);
    expect(await queue.counts('c')).toMatchObject({ waiting: 0, running: 0, dead: 0 });
    // Also when nothing is published: what others publish then has its group.
    await server.call('FLUSHALL');
    await until(() => server.call('EXISTS', STREAM));
  });

  test('who holds what the server has lost still looks after others that die', async () => {
    const [first, second] = [await make({ lease: 500 }), await make({ lease: 500 })];
    const held = gate();
    const got = [];
    first.subscribe('c', { concurrency: 2, process: (message) => { got.push(message); return message === 'held' ? held.promise : undefined; } });
    await first.publish('c', 'held');
    await until(() => got.length === 1);
    await server.call('FLUSHALL');
    await until(() => server.call('EXISTS', STREAM));
    // One that died as soon as it had fetched.
    await second.close();
    await first.pause('c');
    await first.publish('c', 'theirs');
    await server.call('XREADGROUP', 'GROUP', 'mortise', 'gone/0:500', 'COUNT', '1', 'STREAMS', STREAM, '>');
    await first.resume('c');
    await until(() => got.includes('theirs'));
    held.resolve();
  });

  test.each([[false], [true]])('a sentinel failover: what is published and processed before, during and after it (crash: %p)', async (crash) => {
    const group = await startSentinels();
    open.push(group, { close: () => group.stop() });
    group.close = () => undefined;
    const url = { url: group.url, commandTimeout: 3000, connectTimeout: 5000, reconnectGrace: 500, heartbeat: 200, heartbeatTimeout: 500 };
    const [from, to] = [await make({ lease: 1000 }, url), await make({ lease: 1000 }, { ...url, heartbeat: 201 })];
    from.subscribe('c', { idle: () => false, process: () => undefined });
    const got = collect(to, { concurrency: 5 });
    let over = false;
    const accepted = [];
    const publishing = (async () => {
      for (let n = 0; !over; n++) {
        await from.publish('c', n).then(() => accepted.push(n), () => pause(20));
        await pause(2);
      }
    })();
    const grown = async (by) => {
      const [before, processed] = [accepted.length, got.length];
      await until(() => accepted.length >= before + by && got.length >= processed + by, 25_000);
    };
    await grown(50);
    // Acknowledged by the replica too, so that none is lost with the master.
    await until(async () => (await group.master.call('INFO', 'replication')).includes('lag=0'));
    const before = [...accepted];
    await until(async () => Number(await group.master.call('WAIT', '1', '1000')) === 1);
    if (crash) await group.master.kill();
    else await group.sentinels[0].call('SENTINEL', 'FAILOVER', 'main');
    await until(() => group.replica.call('ROLE').then(([role]) => role === 'master', () => false), 25_000);
    await grown(50);
    const after = accepted.at(-1);
    await grown(50);
    over = true;
    await publishing;
    await until(() => [...before, ...accepted.filter((n) => n > after)].every((n) => got.includes(n)), 25_000);
  });

  test('a cluster: channels on different masters, each with its own messages; a place in the line is taken once', async () => {
    const cluster = await startCluster();
    open.push({ close: () => cluster.stop() });
    const [from, to] = [await make({}, { url: cluster.url }), await make({}, { url: cluster.url, heartbeat: 300 })];
    const channels = numbers(12).map((n) => `channel ${n}`);
    channels.forEach((channel) => from.subscribe(channel, { idle: () => false, process: () => undefined }));
    const got = channels.map((channel) => collect(to, { concurrency: 2 }, channel));
    for (const n of numbers(30)) {
      for (const channel of channels) await from.publish(channel, n, n % 10 === 9 ? { delay: 20, id: `${n}` } : {});
    }
    await until(() => got.every((messages) => messages.length === 30));
    expect(got.map((messages) => [...messages].sort((a, b) => a - b))).toEqual(channels.map(() => numbers(30)));
    const line = (node, channel) => node.call('LLEN', `mortise:{main.${channel}}:queue:hungry`).catch(() => 0);
    const places = await Promise.all(channels.map(async (channel) => Math.max(...await Promise.all(cluster.nodes.map((node) => line(node, channel))))));
    expect(Math.max(...places)).toBeLessThanOrEqual(1);
    expect((await Promise.all(cluster.nodes.map((node) => node.call('DBSIZE')))).every((keys) => keys > 0)).toBe(true);
    await Promise.all(channels.map((channel) => from.pause(channel)));
    for (const channel of channels) expect(await from.counts(channel)).toMatchObject({ waiting: 0, running: 0, dead: 0, paused: true });
  });

  test('eight idle nodes with ten channels send at most 50 commands a second', async () => {
    const nodes = await Promise.all(numbers(8).map(() => make({ lease: 5000 }, server.url)));
    for (const node of nodes) numbers(10).forEach((n) => collect(node, {}, `c${n}`));
    await until(async () => (await Promise.all(numbers(10).map((n) => server.call('LLEN', `mortise:{main.c${n}}:queue:hungry`)))).every((length) => length === 8));
    const before = await commands();
    await pause(10_000);
    expect((await commands() - before) / 10).toBeLessThan(50);
  }, 30_000);

  test('a backlog takes at most 6 commands a job, and a waiting job of 100 bytes at most 250 bytes', async () => {
    const queue = await make();
    let idle = false;
    let count = 0;
    const empty = Number(/used_memory:(\d+)/.exec(await server.call('INFO', 'memory'))[1]);
    const before = await commands();
    queue.subscribe('c', { concurrency: 10, idle: () => idle, process: async () => { count++; } });
    const content = 'x'.repeat(100);
    for (let n = 0; n < 100; n++) await Promise.all(numbers(100).map(() => queue.publish('c', content)));
    const full = Number(/used_memory:(\d+)/.exec(await server.call('INFO', 'memory'))[1]);
    expect((full - empty) / 10_000).toBeLessThan(250);
    idle = true;
    await until(async () => count === 10_000 && (await queue.counts('c')).running === 0);
    const taken = (await commands() - before) / 10_000;
    expect(taken).toBeGreaterThan(1);
    expect(taken).toBeLessThan(6);
  });

  test('a claim whose reply was lost: the messages run all the same, each once', async () => {
    const proxy = await proxied();
    const from = await make();
    from.subscribe('c', { idle: () => false, process: () => undefined });
    const queue = await make({}, redis.url(proxy.port, ++nth));
    let idle = true;
    const got = [];
    queue.subscribe('c', { concurrency: 5, interval: 5, idle: () => idle, process: (n, { retried }) => { got.push([n, retried]); } });
    await from.publish('c', 'first');
    await until(async () => got.length === 1 && (await from.counts('c')).running === 0);
    idle = false;
    for (const n of numbers(5)) await from.publish('c', n);
    // Only the script that looks names that key.
    proxy.halfFrom = ':later';
    idle = true;
    await until(async () => (await from.counts('c')).running > 0);
    expect(got).toHaveLength(1);
    proxy.mode = 'pass';
    proxy.cut();
    await until(() => got.length === 6);
    expect(got.slice(1).sort(([a], [b]) => a - b)).toEqual(numbers(5).map((n) => [n, 0]));
    await until(async () => (await from.counts('c')).running === 0);
    expect(got).toHaveLength(6);
  });

  test('acknowledgements whose reply was lost are told again, and do no harm to a message that has the id since', async () => {
    const proxy = await proxied();
    const from = await make();
    from.subscribe('c', { idle: () => false, process: () => undefined });
    const queue = await make({}, redis.url(proxy.port, ++nth));
    const held = gate();
    const got = [];
    let idle = true;
    queue.subscribe('c', { concurrency: 3, idle: () => idle, process: (n) => { got.push(n); return held.promise; } });
    await from.publish('c', 0, { id: 'mine' });
    await from.publish('c', 1);
    await until(() => got.length === 2);
    idle = false;
    proxy.halfFrom = 'XACK';
    held.resolve();
    await until(async () => (await from.counts('c')).running === 0);
    await from.publish('c', 2, { id: 'mine' });
    proxy.mode = 'pass';
    proxy.cut();
    await until(() => queue.health().state === 'ready');
    // It comes after what is told again.
    await until(async () => (await queue.counts('c')).waiting === 1);
    await from.publish('c', 3, { id: 'mine' });
    idle = true;
    await until(() => got.length === 3);
    await until(async () => (await from.counts('c')).running === 0);
    expect(got).toEqual([0, 1, 2]);
  });

  test('a claim that comes to the server when it is given up already is found again', async () => {
    const queue = await make({ lease: 500 });
    const got = collect(queue);
    await until(() => server.call('EXISTS', STREAM));
    await queue.publish('c', 1);
    await until(() => got.length === 1);
    await queue.pause('c');
    await queue.publish('c', 2);
    const [[, name]] = await server.call('XINFO', 'CONSUMERS', STREAM, 'mortise');
    await server.call('XREADGROUP', 'GROUP', 'mortise', name, 'COUNT', '1', 'STREAMS', STREAM, '>');
    await queue.resume('c');
    await until(() => got.length === 2);
    expect(got).toEqual([1, 2]);
  });

  test('a message that is told of while the node looks is not overlooked', async () => {
    const [from, to] = [await make(), await make()];
    from.subscribe('c', { idle: () => false, process: () => undefined });
    const got = collect(to, { concurrency: 3 });
    // Each is due while the next is published: the node is told of one as it looks for the other.
    for (const n of numbers(200)) {
      await Promise.all([from.publish('c', n, { delay: 1 + (n % 3) }), from.publish('c', -n), pause(n % 4)]);
      await from.publish('c', n + 1000);
      await until(() => got.length === 3 * (n + 1), 5000);
    }
    expect(to.health().silent).toBe(0);
  });

  test.each([
    ['a wrong password', { username: 'worker', password: 'wrong' }, /WRONGPASS/],
    ['an unknown user', { username: 'nobody', password: 'x' }, /WRONGPASS/],
    ['a database that there is not', { database: 1000 }, /out of range|invalid DB index/i],
  ])('%s is told when it connects', async (_, options, text) => {
    const queue = new EventQueue({ name: 'main', logger }, { adapter: 'redis', url: { ...redis.url(server.port, ++nth), ...options } });
    const error = await rejection(queue.connect());
    expect([error.code, error.message]).toEqual(['E_UNAVAILABLE', expect.stringMatching(text)]);
  });

  test('a server that is full is told of, and what it refuses is rejected; when there is room again all goes on', async () => {
    const full = await own(['maxmemory 8mb', 'maxmemory-policy noeviction']);
    const queue = await make({}, redis.url(full.port));
    const held = gate();
    const got = [];
    queue.subscribe('c', { concurrency: 2, process: (n) => { got.push(n); return n === 0 ? held.promise : undefined; } });
    await queue.publish('c', 0, { maxRetries: 1, backoff: { type: 'fixed', delay: 0 } });
    await until(() => got.length === 1);
    await full.call('CONFIG', 'SET', 'maxmemory', '1000000');
    const error = await rejection(queue.publish('c', 1));
    expect([error.code, error.message]).toEqual(['E_REDIS', expect.stringContaining('OOM')]);
    // Its failure is told to a server that has no room for it.
    held.reject(new Error('mine'));
    await pause(1000);
    await full.call('CONFIG', 'SET', 'maxmemory', '0');
    await until(() => got.length === 2);
    await queue.publish('c', 2);
    await until(() => got.includes(2));
    expect(got).toEqual([0, 0, 2]);
    expect(logged('warn', 'OOM').length).toBeLessThanOrEqual(1);
  });

  test('a command that is not permitted is told of once, and work goes on when it is', async () => {
    const strict = await own(['user worker on >secret ~* &* +@all']);
    const queue = await make({}, { ...redis.url(strict.port), username: 'worker', password: 'secret' });
    const got = collect(queue);
    await queue.publish('c', 1);
    await until(() => got.length === 1);
    await strict.call('ACL', 'SETUSER', 'worker', '-xreadgroup', '-xack');
    await queue.publish('c', 2);
    // What Redis says of it in scripts.
    await until(() => logged('warn', 'can\'t run this command').length > 0);
    await pause(1000);
    await strict.call('ACL', 'SETUSER', 'worker', '+@all');
    await until(() => got.length === 2);
    expect(got).toEqual([1, 2]);
    expect(logged('warn', 'event queue channel')).toHaveLength(1);
    await until(async () => (await queue.counts('c')).running === 0);
  });

  test('scripts that the server has forgotten are given to it again', async () => {
    const [first, second] = [await make(), await make()];
    const gots = [collect(first, { interval: 5, idle: () => gots[0].length < 5 }), collect(second)];
    for (const n of numbers(40)) {
      await server.call('SCRIPT', 'FLUSH');
      await first.publish('c', n, n % 2 ? { id: `${n}` } : {});
      await until(() => gots.flat().length === n + 1, 5000);
    }
    await server.call('SCRIPT', 'FLUSH');
    await first.pause('c');
    await server.call('SCRIPT', 'FLUSH');
    expect(await first.counts('c')).toMatchObject({ waiting: 0, running: 0, paused: true });
    await until(async () => (await first.counts('c')).running === 0);
    expect(gots.flat().sort((a, b) => a - b)).toEqual(numbers(40));
  });

  test('entries that are none of ours are dead letters with a line in the log, and can be read and dropped', async () => {
    const queue = await make();
    const got = collect(queue, { concurrency: 4 });
    await until(() => server.call('EXISTS', STREAM));
    await server.call('XADD', STREAM, '*', 'foo', 'bar');
    await server.call('XADD', STREAM, '*', 'm', '{"not": "an array"}');
    await server.call('XADD', STREAM, '*', 'm', '[{"timeout":"soon"}]');
    await server.call('XADD', STREAM, '*', 'm', 'no json', 'u', 'mine');
    await queue.publish('c', 1);
    await until(() => got.length === 1);
    const letters = queue.deadLetters('c');
    await until(async () => await letters.count() === 4);
    expect((await letters.list()).map(({ content, error }) => [content, error])).toEqual([
      [expect.stringMatching(/foo.*bar/), expect.stringContaining('cannot be read')],
      ['{"not": "an array"}', expect.stringContaining('cannot be read')],
      [undefined, expect.stringContaining('cannot be read')],
      ['no json', expect.stringContaining('cannot be read')],
    ]);
    expect(logged('error', 'cannot be read')).toHaveLength(4);
    expect(await queue.counts('c')).toMatchObject({ waiting: 0, running: 0, dead: 4 });
    expect(await letters.drop()).toBe(4);
  });

  test('on RESP2, where a node is not told, it looks; others that are told do not wait for it', async () => {
    const [old, other] = [await make({}, { ...redis.url(server.port, ++nth), protocol: 2 }), await make()];
    const got = collect(old);
    for (const n of numbers(5)) {
      await other.publish('c', n).catch(({ code }) => code);
      await old.publish('c', n);
      await until(() => got.length === n + 1, 5000);
    }
    await old.publish('c', 'late', { delay: 300 });
    await until(() => got.includes('late'), 5000);
    const theirs = collect(other, { concurrency: 5 });
    for (const n of numbers(20)) await other.publish('c', n);
    await until(() => got.length + theirs.length === 26, 5000);
    await old.pause('c');
    await other.publish('c', 'paused');
    await old.resume('c');
    await until(() => got.length + theirs.length === 27, 5000);
  });

  test('a retry that is due while its node is busy is told to another, which does not know of it', async () => {
    const [first, second] = [await make(), await make()];
    const held = gate();
    const got = [];
    const process = (who) => (message, { retried }) => {
      got.push([who, message, retried]);
      if (message === 'poor' && retried === 0) throw new Error('once');
      return message === 'long' ? held.promise : undefined;
    };
    const waits = (count) => until(async () => await server.call('LLEN', 'mortise:{main.c}:queue:hungry') === count);
    first.subscribe('c', { process: process('first') });
    await waits(1);
    second.subscribe('c', { process: process('second') });
    await waits(2);
    await first.publish('c', 'poor', { maxRetries: 1, backoff: { type: 'fixed', delay: 1000 } });
    // First come, first told: it is the first's turn again after the second.
    await until(async () => (await first.counts('c')).delayed === 1);
    await waits(2);
    await first.publish('c', 'quick');
    await until(() => got.length === 2);
    await waits(2);
    await first.publish('c', 'long');
    await until(() => got.length === 4);
    expect(got).toEqual([['first', 'poor', 0], ['second', 'quick', 0], ['first', 'long', 0], ['second', 'poor', 1]]);
    held.resolve();
  });

  test('what was processed before close is acknowledged although the connection has just been cut', async () => {
    const proxy = await proxied();
    const other = await make();
    const queue = await make({}, { ...redis.url(proxy.port, ++nth), reconnectGrace: 2000 });
    const got = [];
    queue.subscribe('c', { concurrency: 5, process: (n) => { got.push(n); if (got.length === 5) proxy.cut(); } });
    other.subscribe('c', { idle: () => false, process: () => undefined });
    for (const n of numbers(5)) await other.publish('c', n);
    await until(() => got.length === 5);
    await queue.close();
    expect(await other.counts('c')).toMatchObject({ waiting: 0, running: 0 });
  });

  test('subscribed anew, an adapter calls the new handler only', async () => {
    const adapter = new RedisEventQueueAdapter({ url: server.url, logger });
    open.push(adapter);
    await adapter.connect();
    const got = [];
    adapter.subscribe('x', { process: () => got.push('old') });
    adapter.subscribe('x', { process: () => got.push('new') });
    for (const n of numbers(5)) await adapter.publish('x', n);
    await until(() => got.length === 5);
    expect(new Set(got)).toEqual(new Set(['new']));
  });

  test('unsubscribed and subscribed again, what runs from before is acknowledged and what waits is processed', async () => {
    const queue = await make();
    const held = gate();
    const begun = [];
    queue.subscribe('c', { process: (n) => { begun.push(n); return held.promise; } });
    await queue.publish('c', 1);
    await queue.publish('c', 2);
    await until(() => begun.length === 1);
    queue.unsubscribe('c');
    const got = collect(queue);
    await until(() => got.length === 1);
    held.resolve();
    await until(async () => (await queue.counts('c')).running === 0, 5000);
    expect([begun, got]).toEqual([[1], [2]]);
  });

  test('promises that settle twice or throw when they are asked end their runs once', async () => {
    const queue = await make();
    const promises = [
      () => Object.assign(Promise.resolve(), { then: (done) => { done(); done(); } }),
      () => Object.defineProperty(Promise.resolve(), 'constructor', { get: () => { throw new Error('no constructor'); } }),
      () => Object.assign(Promise.resolve(), { then: (done) => { done(); throw new Error('afterwards'); } }),
      () => Object.defineProperty({}, 'then', { get: () => { throw new Error('no then'); } }),
      () => Promise.resolve(),
    ];
    const got = [];
    queue.subscribe('c', { concurrency: 5, process: (n) => { got.push(n); return promises[n](); } });
    await Promise.all(numbers(5).map((n) => queue.publish('c', n)));
    await until(async () => { const { waiting, running } = await queue.counts('c'); return got.length === 5 && waiting + running === 0; });
    expect((await queue.deadLetters('c').list()).map(({ error }) => error).sort()).toEqual(['no constructor', 'no then']);
  });

  test('an adapter refuses options that it cannot keep, and what is published with them goes its way', async () => {
    const adapter = new RedisEventQueueAdapter({ url: server.url, logger });
    open.push(adapter);
    await adapter.connect();
    const got = [];
    adapter.subscribe('x', { process: (message) => { got.push(message); } });
    const bad = [{ id: 7 }, { id: '' }, { delay: 'soon' }, { delay: -1 }, { timeout: 'soon' }, { maxRetries: '1' }, { retried: 'x' }, { backoff: { type: 'square', delay: 1 } }, 'options'];
    const results = await Promise.allSettled([
      adapter.publish('x', 'first'), ...bad.map((options) => adapter.publish('x', options, options)), adapter.publish('x', 'second', null),
      adapter.publish('x', 'third', { timeout: null, maxRetries: null, retried: 0 }), adapter.publish(undefined, 'no channel'),
    ]);
    const codes = results.map(({ reason }) => reason?.code);
    expect(codes).toEqual([undefined, ...bad.map(() => 'E_INVALID_ARGUMENT'), undefined, undefined, 'E_INVALID_ARGUMENT']);
    await until(() => got.length === 3);
    expect(got).toEqual(['first', 'second', 'third']);
  });

  test('a channel that is subscribed again, or whose queue connects again, is one subscription', async () => {
    const queue = await make();
    const place = async () => (await server.call('LRANGE', 'mortise:{main.c}:queue:hungry', '0', '-1')).map((name) => name.split('/')[1]);
    collect(queue);
    await until(async () => (await place()).length === 1);
    for (let n = 0; n < 3; n++) {
      queue.unsubscribe('c');
      await until(async () => (await place()).length === 0);
      collect(queue);
      await until(async () => (await place()).length === 1);
    }
    expect(await place()).toEqual(['0']);
    await queue.close();
    await queue.connect();
    await until(async () => (await place()).length === 1);
    expect(await place()).toEqual(['0']);
  });

  test('a message that was taken over while its node was cut off, and comes back to it, is not run beside its first run', async () => {
    const database = ++nth;
    const proxy = await proxied();
    const queue = await make({ lease: 500 }, redis.url(proxy.port, database));
    const other = await make({ lease: 500 }, redis.url(server.port, database));
    const [got, held, busy] = [[], gate(), gate()];
    // It takes over, and has no slot in which to run what it has taken.
    const busyWith = collect(other, { process: (message) => { busyWith.push(message); return busy.promise; } });
    await other.publish('c', 'busy');
    await until(() => busyWith.length === 1);
    queue.subscribe('c', { concurrency: 3, process: (message) => { got.push(message); return message === 'held' ? held.promise : undefined; } });
    await queue.publish('c', 'held', { maxRetries: 1, backoff: { type: 'fixed', delay: 1 } });
    await until(() => got.length === 1);
    proxy.mode = 'refuse';
    proxy.cut();
    await until(() => logged('warn', 'are run again').length === 1, 10_000);
    proxy.mode = 'pass';
    await other.publish('c', 'later');
    // What was taken over comes before it.
    await until(() => got.includes('later'), 10_000);
    expect(got).toEqual(['held', 'later']);
    held.reject(new Error('no'));
    await until(() => got.length === 3);
    expect(got).toEqual(['held', 'later', 'held']);
    await until(async () => (await other.counts('c')).dead === 1);
    busy.resolve();
    await until(async () => (await other.counts('c')).running === 0);
    expect(await other.counts('c')).toMatchObject({ waiting: 0, delayed: 0, dead: 1 });
    expect(busyWith).toEqual(['busy']);
  });

  test('channels with ever new names leave nothing behind in the process', async () => {
    const queue = await make();
    const held = gate();
    const got = [];
    const names = async (from, count) => {
      for (let n = from; n < from + count; n++) {
        queue.subscribe(`new ${n}`, { process: (message) => { got.push(message); return message === 'held' ? held.promise : undefined; } });
        if (n % 50 === 0) {
          await queue.publish(`new ${n}`, n === from ? 'held' : n);
          await until(() => got.length === n / 50 + 1);
        }
        queue.unsubscribe(`new ${n}`);
      }
    };
    await names(0, 500);
    await until(async () => queue.counts('new 499').then(() => true));
    const memory = () => { collectGarbage(); return process.memoryUsage().arrayBuffers; };
    const before = memory();
    await names(500, 8000);
    await until(async () => queue.counts('new 499').then(() => true));
    await until(() => memory() - before < 2e6);
    // Numbers are used again, and those that run keep theirs.
    const last = collect(queue, {}, 'last');
    const place = () => server.call('LRANGE', 'mortise:{main.last}:queue:hungry', '0', '-1');
    await until(async () => (await place()).length === 1);
    expect(Number((await place())[0].split('/')[1])).toBeLessThan(1000);
    await queue.publish('last', 1);
    await until(() => last.length === 1);
    held.resolve();
    for (const n of [0, 500]) await until(async () => (await queue.counts(`new ${n}`)).running === 0);
  });

  test('what is published right before close is stored, and its promise resolves', async () => {
    const proxy = await proxied();
    const other = await make();
    const adapter = new RedisEventQueueAdapter({ ...redis.url(proxy.port, ++nth), logger });
    await adapter.connect();
    proxy.delay = 100;
    const ids = Promise.all([...numbers(100).map((n) => adapter.publish('main.c', n)), adapter.publish('main.c', 'late', { delay: 60_000 })]);
    await adapter.close();
    expect(new Set(await ids).size).toBe(101);
    expect(await other.counts('c')).toMatchObject({ waiting: 100, delayed: 1 });
  });

  test('close does not wait longer than closeTimeout for the answer to what was published', async () => {
    const proxy = await proxied();
    // Without a channel, of which something else would be told to the server.
    const adapter = new RedisEventQueueAdapter({ ...redis.url(proxy.port, ++nth), commandTimeout: LONG, heartbeatTimeout: LONG, closeTimeout: 300, logger });
    await adapter.connect();
    proxy.mode = 'half';
    const publishing = rejection(adapter.publish('main.c', 1));
    const begun = performance.now();
    await adapter.close();
    expect(performance.now() - begun).toBeGreaterThanOrEqual(299);
    expect(performance.now() - begun).toBeLessThan(10_000);
    proxy.cut();
    expect(['E_CLOSED', 'E_UNAVAILABLE']).toContain((await publishing).code);
  });

  test('an adapter with a publish of its own is asked by it', async () => {
    const published = [];
    class Mine extends RedisEventQueueAdapter {
      publish(channel, message, options) {
        published.push(message);
        return super.publish(channel, message, options);
      }
    }
    const queue = new EventQueue({ name: 'main', logger }, { adapter: new Mine({ url: server.url, logger }) });
    open.push(queue);
    await queue.connect();
    const got = collect(queue);
    await queue.publish('c', 1);
    await until(() => got.length === 1);
    expect(published).toEqual([1]);
  });

  /** Messages of 84 MB together, fetched by ten slots: their numbers as they have begun. */
  const largeOnes = async (settings, url) => {
    const queue = await make({}, { ...redis.url((await own(settings)).port), ...url });
    let idle = false;
    const got = [];
    const text = 'x'.repeat(12_000_000);
    queue.subscribe('c', { concurrency: 10, interval: 5, idle: () => idle, process: (message) => { if (message.text === text) got.push(message.n); } });
    for (const n of numbers(7)) await queue.publish('c', { n, text });
    idle = true;
    await until(() => got.length === 7);
    await until(async () => (await queue.counts('c')).running === 0);
    return got;
  };

  test('messages that are together more than the server sends to one connection arrive, each once', async () => {
    expect((await largeOnes([])).sort()).toEqual(numbers(7));
  });

  test('messages that are together more than goes into one event arrive whole and in order', async () => {
    const patient = { commandTimeout: LONG, heartbeatTimeout: LONG };
    expect(await largeOnes(['client-output-buffer-limit pubsub 0 0 0'], patient)).toEqual(numbers(7));
  });

  test('suspects of two channels do not run at once on a node', async () => {
    const tries = String(3 * 2 ** 32 + 1);
    for (const channel of ['c', 'd']) {
      const key = (last) => `mortise:{main.${channel}}:queue:${last}`;
      await server.call('XGROUP', 'CREATE', key('stream'), 'mortise', '0', 'MKSTREAM');
      const entry = await server.call('XADD', key('stream'), '*', 'm', '[{}]');
      await server.call('XREADGROUP', 'GROUP', 'mortise', '-', 'STREAMS', key('stream'), '>');
      await server.call('XCLAIM', key('stream'), 'mortise', '-', '0', entry, 'RETRYCOUNT', tries, 'JUSTID');
      await server.call('ZADD', key('later'), '1', `r${entry} ${tries}`);
    }
    const queue = await make();
    const [held, begun] = [gate(), []];
    const process = (channel) => () => { begun.push(channel); return held.promise; };
    for (const channel of ['c', 'd']) queue.subscribe(channel, { concurrency: 2, process: process(channel) });
    await until(() => begun.length > 0);
    await queue.counts('c');
    await queue.counts('d');
    await pause(100);
    expect(begun).toHaveLength(1);
    held.resolve();
    await until(() => begun.length === 2);
  });

  /** Puts a message that was tried so often before, and is due, into the channel. */
  const putBack = async (content, tries) => {
    const entry = await server.call('XADD', STREAM, '*', 'm', JSON.stringify([{ maxRetries: 9 }, content]));
    await server.call('XREADGROUP', 'GROUP', 'mortise', '-', 'STREAMS', STREAM, '>');
    await server.call('XCLAIM', STREAM, 'mortise', '-', '0', entry, 'RETRYCOUNT', tries, 'JUSTID');
    await server.call('ZADD', 'mortise:{main.c}:queue:later', '1', `r${entry} ${tries}`);
  };

  test('a retry that is due is found behind more suspects than are looked at together', async () => {
    await server.call('XGROUP', 'CREATE', STREAM, 'mortise', '0', 'MKSTREAM');
    for (const n of numbers(600)) await putBack(n, String(3 * 2 ** 32 + 1));
    await putBack('retry', '2');
    const queue = await make();
    const [held, got] = [gate(), []];
    queue.subscribe('c', { concurrency: 10, process: (message) => { got.push(message); return typeof message === 'number' ? held.promise : undefined; } });
    await until(() => got.includes('retry'));
    await queue.publish('c', 'new');
    await until(() => got.includes('new'));
    // A suspect runs by itself among suspects.
    expect(got).toHaveLength(3);
    held.resolve();
    await until(() => got.length === 6);
  });

  test.each(['xadd', 'xdel', 'xack', 'xclaim', 'xpending', 'xreadgroup', 'zadd', 'zrem', 'hset', 'hget', 'hdel', 'publish', 'lpop', 'xinfo'])(
    'refused halfway, for want of the right to %s, nothing is lost, run twice or told again and again', async (command) => {
      const strict = await own(['user worker on >secret ~* &* +@all']);
      const options = { ...redis.url(strict.port, ++nth), username: 'worker', password: 'secret' };
      const queue = await make({ lease: 500 }, options);
      const [held, got] = [gate(), []];
      queue.subscribe('c', { concurrency: 10, process: async (message, { retried }) => {
        got.push(`${message} ${retried}`);
        await held.promise;
        if ((message === 'again' && retried === 0) || message === 'dead') throw new Error('mine');
      } });
      await queue.publish('c', 'again', { maxRetries: 1, backoff: { type: 'fixed', delay: 10 } });
      await queue.publish('c', 'dead');
      await queue.publish('c', 'done');
      await queue.publish('c', 'mine', { id: 'mine' });
      await queue.publish('c', 'late', { delay: 300, id: 'late' });
      await until(() => got.length === 4);
      await strict.call('ACL', 'SETUSER', 'worker', `-${command}`);
      // With an id, so that it may be told again whatever has come of it.
      const refused = [['other', {}], ['delayed', { delay: 20 }]].map(([id, more]) => ['c', id, { id, ...more }]);
      for (const message of refused) await queue.publish(...message).catch(({ code }) => expect(code).toBe('E_REDIS'));
      held.resolve();
      const before = await commands(strict);
      await pause(1500);
      expect(await commands(strict) - before).toBeLessThan(400);
      await strict.call('ACL', 'SETUSER', 'worker', '+@all');
      for (const message of refused) if (!got.includes(`${message[1]} 0`)) await queue.publish(...message);
      await until(() => ['again 1', 'late 0', 'other 0', 'delayed 0'].every((run) => got.includes(run)));
      await until(async () => { const { waiting, delayed, running } = await queue.counts('c'); return waiting + delayed + running === 0; });
      expect(got.sort()).toEqual(['again 0', 'again 1', 'dead 0', 'delayed 0', 'done 0', 'late 0', 'mine 0', 'other 0']);
      expect((await queue.deadLetters('c').list()).map(({ content }) => content)).toEqual(['dead']);
      const told = logged('warn', 'event queue channel').filter(({ message }) => !message.includes('will be tried again')).map(({ message }) => message);
      expect(new Set(told).size).toBe(told.length);
      // The ids are free again.
      for (const id of ['mine', 'late', 'other', 'delayed']) await queue.publish('c', `${id} again`, { id });
      await until(() => got.length === 12);
    });

  test('a lease is renewed until what has ended could be told', async () => {
    const strict = await own(['user worker on >secret ~* &* +@all']);
    const queue = await make({ lease: 500 }, { ...redis.url(strict.port), username: 'worker', password: 'secret' });
    const other = await make({ lease: 500 }, redis.url(strict.port, ++nth));
    other.subscribe('c', { idle: () => false, process: () => undefined });
    const [held, got] = [gate(), []];
    queue.subscribe('c', { process: (_, { retried }) => { got.push(retried); return retried ? undefined : held.promise; } });
    await queue.publish('c', 1, { maxRetries: 1 });
    await until(() => got.length === 1);
    await strict.call('ACL', 'SETUSER', 'worker', '-xclaim');
    held.reject(new Error('mine'));
    await until(() => logged('warn', 'can\'t run this command').length > 0);
    await pause(1500);
    await strict.call('ACL', 'SETUSER', 'worker', '+@all');
    await until(() => got.length === 2);
    expect(got).toEqual([0, 1]);
    expect(logged('warn', 'has not renewed')).toEqual([]);
  });

  test('what a stopped process had fetched does not begin when it goes on after others have run it', async () => {
    const proxy = await proxied();
    const other = await make({ lease: 500 });
    const url = { ...redis.url(proxy.port, ++nth), heartbeatTimeout: LONG, commandTimeout: LONG };
    const theirs = child(`
      const queue = new mortise.EventQueue({ name: 'main', logger: console }, ${JSON.stringify({ adapter: 'redis', url, lease: 500 })});
      queue.subscribe('c', { process: (message) => { console.log('began', message); } });
      queue.connect().then(() => console.log('connected'));
      setInterval(() => {}, 1000);
    `);
    open.push({ close: () => theirs.handle.kill('SIGKILL') });
    const line = () => server.call('LLEN', 'mortise:{main.c}:queue:hungry');
    await until(async () => theirs.lines.includes('connected') && await line() === 1);
    const got = collect(other, { idle: () => theirs.stopped });
    proxy.delay = 400;
    await other.publish('c', 'once');
    await until(async () => (await other.counts('c')).running === 1);
    theirs.handle.kill('SIGSTOP');
    theirs.stopped = true;
    await until(() => got.length === 1);
    await until(async () => (await other.counts('c')).running === 0);
    proxy.delay = 0;
    theirs.handle.kill('SIGCONT');
    await until(() => theirs.errors.includes('do not begin here') || theirs.lines.includes('began once'));
    expect(theirs.lines).toEqual(['connected']);
    // It goes on with what comes then.
    theirs.stopped = false;
    await until(async () => await line() > 0);
    await other.publish('c', 'next');
    await until(() => theirs.lines.includes('began next'));
    expect(got).toEqual(['once']);
  });

  /**
   * A process that has fetched two messages at once, and whose handler of the first, `block`, makes its event loop stand
   * still for `stall` milliseconds before the other begins.
   */
  const standingStill = async (stall, options, from) => {
    const theirs = child(`
      const say = (line) => require('node:fs').writeSync(1, line + '\\n');
      const logger = new console.Console(process.stderr);
      const queue = new mortise.EventQueue({ name: 'main', logger }, ${JSON.stringify({ adapter: 'redis', url: redis.url(server.port, ++nth), ...options })});
      queue.subscribe('c', { concurrency: 2, process: (message, { signal }) => {
        say('began ' + message);
        if (message === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ${stall});
        if (message === 'block') say('goes on');
      } });
      queue.connect().then(() => queue.pause('c')).then(() => say('connected'));
      setInterval(() => {}, 1000);
    `);
    open.push({ close: () => theirs.handle.kill('SIGKILL') });
    await until(() => theirs.lines.includes('connected'));
    await from.publish('c', 'block');
    await from.publish('c', 'second', { id: 'second' });
    await from.resume('c');
    await until(() => theirs.lines.includes('began block'));
    expect((await from.counts('c')).running).toBe(2);
    return theirs;
  };

  test('what was to begin when the event loop stood still for too long does not begin after others have run it', async () => {
    const other = await make({ lease: 500 });
    let idle = false;
    const got = collect(other, { idle: () => idle });
    const theirs = await standingStill(4000, { lease: 500, maxStall: 700 }, other);
    idle = true;
    await until(() => got.length === 2);
    await until(async () => (await other.counts('c')).running === 0);
    expect(theirs.lines).not.toContain('goes on');
    idle = false;
    await until(() => theirs.lines.includes('goes on'));
    await until(() => theirs.errors.includes('do not begin here'));
    // It goes on with what comes then.
    await other.publish('c', 'next');
    await until(() => theirs.lines.includes('began next'));
    expect(theirs.lines).toEqual(['connected', 'began block', 'goes on', 'began next']);
    expect(got.sort()).toEqual(['block', 'second']);
  });

  test('what was to begin when the event loop stood still begins as long as it is the node\'s own', async () => {
    const other = await make({ lease: 500 });
    let idle = false;
    const got = collect(other, { idle: () => idle });
    const theirs = await standingStill(2000, { lease: 500 }, other);
    idle = true;
    await until(() => theirs.lines.includes('began second'));
    await until(async () => (await other.counts('c')).running === 0);
    expect([theirs.lines, got]).toEqual([['connected', 'began block', 'goes on', 'began second'], []]);
  });

  test('a message that is cancelled before its handler begins does not begin', async () => {
    const other = await make();
    other.subscribe('c', { idle: () => false, process: () => undefined });
    const theirs = await standingStill(1000, { lease: LONG }, other);
    expect(await other.cancel('c', 'second')).toBe(true);
    expect(theirs.lines).not.toContain('goes on');
    await until(() => theirs.lines.includes('goes on'));
    await other.publish('c', 'next', { id: 'second' });
    await until(() => theirs.lines.includes('began next'));
    await until(async () => (await other.counts('c')).running === 0);
    expect(theirs.lines).toEqual(['connected', 'began block', 'goes on', 'began next']);
    expect(await other.counts('c')).toMatchObject({ waiting: 0, dead: 0 });
  });

  test('a message that is cancelled while it is fetched does not begin, or its signal aborts', async () => {
    const [from, to] = [await make(), await make()];
    from.subscribe('c', { idle: () => false, process: () => undefined });
    const [begun, aborted] = [new Set(), new Set()];
    to.subscribe('c', { concurrency: 100, process: (n, { signal }) => {
      begun.add(n);
      return new Promise((resolve) => {
        const end = () => { aborted.add(n); resolve(); };
        if (signal.aborted) end();
        else signal.addEventListener('abort', end);
      });
    } });
    const found = [];
    for (let round = 0; round < 60; round++) {
      // Cancelled as soon as they are there, which is when they are fetched.
      await Promise.all(numbers(40).map(async (i) => {
        const n = round * 40 + i;
        await from.publish('c', n, { id: `${n}` });
        if (await from.cancel('c', `${n}`)) found.push(n);
      }));
      await until(() => aborted.size === begun.size);
    }
    expect(found).toHaveLength(2400);
    await until(async () => (await from.counts('c')).running === 0);
  });

  test('a retry whose pause is without end waits', async () => {
    const queue = await make();
    const got = [];
    queue.subscribe('c', { process: (n) => { got.push(n); throw new Error('no'); } });
    await queue.publish('c', 1, { maxRetries: 1, backoff: { type: 'fixed', delay: 1e300 } });
    await until(async () => (await queue.counts('c')).delayed === 1);
    expect(got).toEqual([1]);
  });

  test('closed queues leave nothing on the server but what waits', async () => {
    for (const n of numbers(5)) {
      const queue = await make();
      const got = collect(queue);
      await queue.publish('c', n);
      await until(() => got.length === 1);
      await queue.close();
    }
    expect(await server.call('LLEN', 'mortise:{main.c}:queue:hungry')).toBe(0);
    expect(await server.call('XINFO', 'CONSUMERS', STREAM, 'mortise')).toEqual([]);
    expect(await server.call('XLEN', STREAM)).toBe(0);
    expect(await server.call('PUBSUB', 'CHANNELS', 'mortise:queue:*')).toEqual([]);
  });

  test('the adapter is one that NocoBase can use: connect, subscribe, publish, close', async () => {
    const adapter = new RedisEventQueueAdapter({ url: server.url, logger });
    const got = [];
    adapter.subscribe('x.c', { process: (message, { id, retried, queueOptions, signal }) => { got.push([message, typeof id, retried, queueOptions, signal.aborted]); } });
    expect(adapter.isConnected()).toBe(false);
    await adapter.connect();
    await adapter.publish('x.c', { a: 1 }, { timeout: 1000, maxRetries: 0, timestamp: 1 });
    await until(() => got.length === 1);
    expect(got).toEqual([[{ a: 1 }, 'string', 0, { timeout: 1000, maxRetries: 0, timestamp: 1 }, false]]);
    await adapter.close();
    expect(adapter.isConnected()).toBe(false);
  });
});
