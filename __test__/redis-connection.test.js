'use strict';

const { readFileSync } = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const { join } = require('node:path');
const mortise = require('..');
const { Proxy } = require('./servers/proxy');
const { RedisServer, startCluster, startSentinels, TLS } = require('./servers/redis');
const { child, recorder, rejection, until } = require('./support');

const { RedisConnection } = mortise;
/** Quick to give up, so that a test need not wait. */
const QUICK = { commandTimeout: 1000, connectTimeout: 1000, reconnectGrace: 200, heartbeat: 100, heartbeatTimeout: 300 };

const open = [];
const connect = (options, logger) => {
  const connection = new RedisConnection(options, logger);
  open.push(connection);
  return connection;
};
afterEach(() => open.splice(0).forEach((connection) => connection.close()));

describe('one server', () => {
  let server;
  beforeAll(async () => { server = await RedisServer.start(['user reader on >secret ~r:* +@all', 'user nobody on >x ~* +get']); });
  afterAll(() => server.stop());
  beforeEach(() => server.call('FLUSHALL'));

  test('replies come as JavaScript values, in the order of the commands', async () => {
    const redis = connect(server.url);
    const replies = await Promise.all([
      redis.command('SET', 'k', 'ä€😀'), redis.command('GET', 'k'), redis.command('GET', 'none'), redis.command('INCRBY', 'n', 5),
      redis.command('RPUSH', 'l', 1, 2), redis.command('LRANGE', 'l', 0, -1), redis.command('MGET', 'k', 'none'),
      redis.command('HSET', 'h', 'f', 'v'), redis.command('HGETALL', 'h'), redis.command('EVAL', "return {1, {'a', false}}", 0),
    ]);
    expect(replies).toEqual(['OK', 'ä€😀', null, 5, 2, ['1', '2'], ['ä€😀', null], 1, ['f', 'v'], [1, ['a', null]]]);
  });

  test('thousands of commands of one turn are all answered, in their order', async () => {
    const redis = connect(server.url);
    const replies = await Promise.all(Array.from({ length: 5000 }, () => redis.command('INCR', 'count')));
    expect(replies).toEqual(Array.from({ length: 5000 }, (_, i) => i + 1));
  });

  test('callers that take long are answered one a turn of the event loop', async () => {
    const redis = connect(server.url);
    let turn = 0;
    const most = [];
    const count = () => {
      turn++;
      if (most.length < 10) setImmediate(count);
    };
    setImmediate(count);
    // In waves, each of which may come at once: what they take is known after the first.
    for (let wave = 0; wave < 10; wave++) {
      // Short ones between them do not hide it.
      await Promise.all(Array.from({ length: 5 }, () => redis.command('PING')));
      const inTurn = [];
      await Promise.all(Array.from({ length: 8 }, async () => {
        await redis.command('GET', 'none');
        inTurn[turn] = (inTurn[turn] ?? 0) + 1;
        const end = performance.now() + 2;
        while (performance.now() < end);
      }));
      most.push(Math.max(...inTurn.filter(Boolean)));
    }
    expect(most.slice(1)).toEqual(Array(9).fill(1));
  });

  test('what the server refuses rejects with its words, and nothing else is disturbed', async () => {
    const redis = connect(server.url);
    const results = await Promise.allSettled([redis.command('SET', 'k', 'v'), redis.command('INCR', 'k'), redis.command('GET', 'k'), redis.command('NONSENSE')]);
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled', 'rejected']);
    expect(results[1].reason).toMatchObject({ code: 'E_REDIS', message: expect.stringContaining('not an integer') });
    expect(results[2].value).toBe('v');
  });

  test.each([[[]], [[{}]], [['GET', null]], [['GET', undefined]], [[Symbol('x')]]])('%p is no command', async (words) => {
    expect((await rejection(connect(server.url).command(...words))).code).toBe('E_INVALID_ARGUMENT');
  });

  test.each([
    [{ port: 0 }, 'port'], [{ url: 'http://x' }, 'scheme'], [{ protocol: 9 }, 'protocol'], [{ commandTimeout: 0 }, 'commandTimeout'],
    [{ sentinels: [{ host: 'a' }] }, 'masterName'], [{ url: 'redis://u:hidden@h:x' }, 'port'], ['redis://u:hidden@h/db', 'database'], [7, 'URL'],
    [{ tls: { ca: 5 } }, 'wrong'], [{ cluster: [] }, 'host'],
  ])('the options %p are refused at once', (options, named) => {
    let error;
    try { new RedisConnection(options); } catch (thrown) { error = thrown; }
    expect(error).toMatchObject({ code: 'E_INVALID_ARGUMENT', message: expect.stringContaining(named) });
    expect(error.message).not.toContain('hidden');
  });

  test('the database, the Unix socket and RESP2', async () => {
    await connect(`${server.url}/3`).command('SET', 'where', 'three');
    expect(await connect({ port: server.port, database: 3, protocol: 2 }).command('GET', 'where')).toBe('three');
    const redis = connect(`redis+unix://${server.socketPath}?db=3`);
    expect(await redis.command('GET', 'where')).toBe('three');
    expect(redis.health()).toMatchObject({ state: 'ready', protocol: 3, version: expect.stringMatching(/^\d/) });
  });

  test('options that are equal share one connection', async () => {
    const name = { clientNames: async () => (await server.call('CLIENT', 'LIST')).match(/ db=(11|12) /g)?.length ?? 0 };
    const [first, second, other] = [connect(`${server.url}/11`), connect({ url: server.url, database: 11 }), connect(`${server.url}/12`)];
    await Promise.all([first, second, other].map((redis) => redis.command('PING')));
    expect(await name.clientNames()).toBe(2);
    first.close();
    expect(await second.command('PING')).toBe('PONG');
    second.close();
    other.close();
    await until(async () => (await name.clientNames()) === 0);
    expect(await first.command('PING')).toBe('PONG');
  });

  test('an ACL user sees what it may', async () => {
    const redis = connect({ url: server.url, username: 'reader', password: 'secret' });
    expect(await redis.command('SET', 'r:k', 'v')).toBe('OK');
    expect((await rejection(redis.command('SET', 'k', 'v'))).message).toContain('NOPERM');
    // One that may not even ask who it is talking to.
    expect(await connect({ url: server.url, username: 'nobody', password: 'x' }).command('GET', 'k')).toBeNull();
  });

  test.each([
    ['a wrong password', () => ({ url: server.url, username: 'reader', password: 'wrong' }), /authentication failed/i],
    ['an unknown database', () => `${server.url}/4711`, /database|index/i],
  ])('%s is told as the reason', async (_, options, reason) => {
    const logger = recorder();
    const redis = connect({ ...QUICK, ...(typeof options() === 'string' ? { url: options() } : options()) }, logger);
    const error = await rejection(redis.command('PING'));
    expect(error).toMatchObject({ code: 'E_UNAVAILABLE', message: expect.stringMatching(reason) });
    expect(error.message).not.toContain('wrong');
    await until(() => logger.lines.length > 0);
    expect(redis.health()).toMatchObject({ state: 'away', reason: expect.stringMatching(reason) });
    // One line, however often it tries.
    await Promise.all(Array.from({ length: 20 }, () => rejection(redis.command('PING'))));
    expect(logger.lines.filter(({ level }) => level === 'warn')).toHaveLength(1);
  });

  test('a server that is not Redis is told as the reason', async () => {
    const web = http.createServer((_, response) => response.end('hello')).listen(0, '127.0.0.1');
    await new Promise((resolve) => web.once('listening', resolve));
    const redis = connect({ ...QUICK, port: web.address().port });
    expect(await rejection(redis.command('PING'))).toMatchObject({ code: 'E_UNAVAILABLE' });
    expect(redis.health().reason).toMatch(/protocol/);
    web.closeAllConnections();
    await new Promise((resolve) => web.close(resolve));
  });

  test('nobody there: commands wait through the grace, then fail at once, and nothing hangs', async () => {
    const free = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => free.once('listening', resolve));
    const { port } = free.address();
    await new Promise((resolve) => free.close(resolve));
    const redis = connect({ ...QUICK, port });
    expect((await rejection(redis.command('PING'))).code).toBe('E_UNAVAILABLE');
    for (let i = 0; i < 50; i++) expect((await rejection(redis.command('PING'))).code).toBe('E_UNAVAILABLE');
  });

  test('a server of an earlier protocol is spoken to in RESP2', async () => {
    // A proxy before a server from before HELLO, such as there are.
    const old = net.createServer((client) => {
      const upstream = net.connect({ port: server.port, host: '127.0.0.1' });
      for (const socket of [client, upstream]) socket.on('error', () => {});
      client.on('close', () => upstream.destroy());
      client.on('data', (data) => {
        if (data.includes('HELLO')) client.write("-ERR unknown command 'HELLO'\r\n".repeat(data.toString().split('*').length - 1));
        else upstream.write(data);
      });
      upstream.pipe(client);
    }).listen(0, '127.0.0.1');
    await new Promise((resolve) => old.once('listening', resolve));
    const redis = connect({ port: old.address().port });
    expect(await redis.command('PING')).toBe('PONG');
    expect(redis.health().protocol).toBe(2);
    redis.close();
    await new Promise((resolve) => old.close(resolve));
  });

  test('Node exits by itself with a connection open and nothing under way', async () => {
    const run = child(`
      const redis = new mortise.RedisConnection('${server.url}');
      redis.command('PING').then(console.log);
    `);
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(run.lines).toEqual(['PONG']);
  });

  test('worker threads use connections of their own handles, and end', async () => {
    const run = child(`
      const { Worker, isMainThread } = require('node:worker_threads');
      const code = \`const { RedisConnection } = require(${JSON.stringify(join(__dirname, '..'))});
        const redis = new RedisConnection('${server.url}');
        Promise.all(Array.from({ length: 1000 }, () => redis.command('INCR', 'threads'))).then(() => redis.close());\`;
      let left = 4;
      for (let i = 0; i < 4; i++) new Worker(code, { eval: true }).on('exit', (code) => { if (--left === 0) console.log('done', code); });
    `);
    expect(await run.exit).toMatchObject({ code: 0 });
    expect(run.lines).toEqual(['done 0']);
    expect(await server.call('GET', 'threads')).toBe('4000');
  });
});

describe('a connection that fails', () => {
  let server;
  let proxy;
  beforeAll(async () => { server = await RedisServer.start(); });
  afterAll(() => server.stop());
  beforeEach(async () => { proxy = await Proxy.to(server.port); });
  afterEach(() => proxy.close());

  test('is made again, and each change is an event and one line of the log', async () => {
    const logger = recorder();
    const redis = connect({ ...QUICK, port: proxy.port }, logger);
    const events = [];
    redis.on('ready', ({ state }) => events.push(state)).on('away', ({ state, reason }) => events.push(state, typeof reason));
    await redis.command('SET', 'k', '1');
    proxy.cut();
    await until(async () => (await redis.command('GET', 'k').catch(() => null)) === '1');
    await until(() => events.length === 4);
    expect(events).toEqual(['ready', 'away', 'string', 'ready']);
    expect(logger.lines.filter(({ level }) => level !== 'debug').map(({ level }) => level)).toEqual(['warn', 'info']);
  });

  test('half open: the heartbeat finds it, and commands do not hang', async () => {
    const redis = connect({ ...QUICK, port: proxy.port });
    await redis.command('PING');
    proxy.mode = 'half';
    expect((await rejection(redis.command('GET', 'k'))).code).toMatch(/^E_(UNAVAILABLE|TIMEOUT)$/);
    await until(() => redis.health().state === 'away');
    proxy.mode = 'pass';
    await until(async () => (await redis.command('PING').catch(() => null)) === 'PONG');
  });

  test('a black hole while connecting is no answer in time', async () => {
    proxy.mode = 'blackhole';
    const redis = connect({ ...QUICK, port: proxy.port });
    expect(await rejection(redis.command('PING'))).toMatchObject({ code: 'E_UNAVAILABLE' });
    proxy.mode = 'pass';
    proxy.cut();
    await until(async () => (await redis.command('PING').catch(() => null)) === 'PONG');
  });

  test('a server that answers late is a timeout, and its late reply nobody else\'s', async () => {
    const redis = connect({ ...QUICK, port: proxy.port, heartbeatTimeout: 60_000 });
    await redis.command('SET', 'k', 'right');
    proxy.delay = 2000;
    expect((await rejection(redis.command('GET', 'k'))).code).toBe('E_TIMEOUT');
    proxy.delay = 0;
    const replies = await Promise.all(Array.from({ length: 50 }, (_, i) => redis.command('ECHO', i).catch(({ code }) => code)));
    replies.forEach((reply, i) => expect([String(i), 'E_TIMEOUT', 'E_UNAVAILABLE']).toContain(reply));
  });

  test('CLIENT KILL, SCRIPT FLUSH and a restart are got over', async () => {
    const redis = connect({ ...QUICK, url: server.url });
    await redis.command('SET', 'k', '1');
    await server.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
    await until(async () => (await redis.command('GET', 'k').catch(() => null)) === '1');
    await server.kill();
    expect((await rejection(redis.command('GET', 'k'))).code).toBe('E_UNAVAILABLE');
    await server.up();
    await until(async () => (await redis.command('PING').catch(() => null)) === 'PONG');
  });
});

test('TLS: with the authority, without it, and with certificates not looked at', async () => {
  const server = await RedisServer.start([], { tls: true });
  const ca = readFileSync(join(TLS, 'ca.pem'), 'utf8');
  try {
    const redis = connect({ url: server.url, tls: { ca } });
    expect(await redis.command('SET', 'k', 'v')).toBe('OK');
    expect(redis.server).toMatch(/^rediss:/);
    expect(await connect({ host: 'localhost', port: server.port, socket: { tls: true, ca: [Buffer.from(ca)] } }).command('GET', 'k')).toBe('v');
    expect(await connect({ url: server.url, tls: { rejectUnauthorized: false } }).command('GET', 'k')).toBe('v');
    expect(await rejection(connect({ ...QUICK, url: server.url }).command('PING'))).toMatchObject({
      code: 'E_UNAVAILABLE', message: expect.stringMatching(/certificate/i),
    });
  } finally {
    await server.stop();
  }
});

test('Sentinel: the master is found, and the new one after a failover', async () => {
  const group = await startSentinels();
  try {
    const redis = connect({ ...QUICK, url: group.url });
    expect(await redis.command('SET', 'k', 'v')).toBe('OK');
    await until(async () => (await group.replica.call('GET', 'k')) === 'v');
    await group.master.kill();
    await until(async () => (await redis.command('SET', 'k', 'w').catch(() => null)) === 'OK', 60_000);
    expect(await group.replica.call('GET', 'k')).toBe('w');
    expect(redis.health()).toMatchObject({ state: 'ready', server: group.url });
    // The first sentinel is not needed.
    await group.sentinels[0].kill();
    const other = connect({ ...QUICK, url: group.url, database: 1 });
    await until(async () => (await other.command('PING').catch(() => null)) === 'PONG', 30_000);
  } finally {
    await group.stop();
  }
}, 120_000);

describe('Cluster', () => {
  let cluster;
  beforeAll(async () => { cluster = await startCluster(); }, 60_000);
  afterAll(() => cluster.stop());

  test('commands go to the masters of their keys, many in one batch', async () => {
    const redis = connect(cluster.url);
    const keys = Array.from({ length: 300 }, (_, i) => `key ${i}`);
    await Promise.all(keys.map((key) => redis.command('SET', key, `value of ${key}`)));
    expect(await Promise.all(keys.map((key) => redis.command('GET', key)))).toEqual(keys.map((key) => `value of ${key}`));
    const sizes = await Promise.all(cluster.nodes.map((node) => node.call('DBSIZE')));
    expect(sizes.every((size) => size > 50)).toBe(true);
    expect((await rejection(redis.command('MSET', 'a', 1, 'b', 2))).message).toContain('CROSSSLOT');
    await until(() => redis.health().state === 'ready');
  });

  test('a slot that is moving (ASK), and one that has moved (MOVED)', async () => {
    const redis = connect({ ...QUICK, url: cluster.url });
    await redis.command('SET', 'foo', '1');
    const slot = await cluster.nodes[0].call('CLUSTER', 'KEYSLOT', 'foo');
    const from = cluster.nodes[Math.floor(slot / (16384 / 3))];
    const to = cluster.nodes.find((node) => node !== from);
    await to.call('CLUSTER', 'SETSLOT', slot, 'IMPORTING', from.id);
    await from.call('CLUSTER', 'SETSLOT', slot, 'MIGRATING', to.id);
    expect(await redis.command('GET', 'foo')).toBe('1');
    await from.call('MIGRATE', '127.0.0.1', to.port, 'foo', 0, 5000);
    expect(await redis.command('GET', 'foo')).toBe('1');
    expect(await redis.command('INCR', 'foo')).toBe(2);
    for (const node of [to, from]) await node.call('CLUSTER', 'SETSLOT', slot, 'NODE', to.id);
    expect(await redis.command('INCR', 'foo')).toBe(3);
    expect(await to.call('GET', 'foo')).toBe('3');
    for (const node of [from, to]) await node.call('CLUSTER', 'SETSLOT', slot, 'STABLE').catch(() => {});
  });

  test('a master that is away fails its own keys only, and is used again when it is back', async () => {
    const redis = connect({ ...QUICK, url: cluster.url });
    await redis.command('PING');
    const { nodes } = cluster;
    // The others are to serve their slots meanwhile.
    for (const node of nodes) await node.call('CONFIG', 'SET', 'cluster-require-full-coverage', 'no');
    const owner = (key) => nodes[0].call('CLUSTER', 'KEYSLOT', key).then((slot) => Math.floor(slot / (16384 / 3)));
    const keys = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const owners = await Promise.all(keys.map(owner));
    nodes[2].pause();
    const away = keys.filter((_, i) => owners[i] === 2);
    const there = keys.filter((_, i) => owners[i] !== 2);
    expect(away.length * there.length).toBeGreaterThan(0);
    const results = await Promise.allSettled([...there, ...away].map((key) => redis.command('SET', key, key)));
    expect(results.map(({ status }) => status)).toEqual([...there.map(() => 'fulfilled'), ...away.map(() => 'rejected')]);
    nodes[2].resume();
    await until(async () => (await redis.command('SET', away[0], 'again').catch(() => null)) === 'OK', 30_000);
  });

  test('nobody there: E_UNAVAILABLE', async () => {
    const redis = connect({ ...QUICK, cluster: [{ host: '127.0.0.1', port: 1 }] });
    expect((await rejection(redis.command('GET', 'k'))).code).toBe('E_UNAVAILABLE');
  });
});
