'use strict';

const { PubSubManager, RedisPubSubAdapter } = require('..');
const { Proxy } = require('./servers/proxy');
const { RedisServer, startCluster } = require('./servers/redis');
const { Resp } = require('./servers/resp');
const { child, gate, recorder, rejection, ROOT, until } = require('./support');

/** Quick to give up, so that a test need not wait. */
const QUICK = { commandTimeout: 1500, connectTimeout: 1500, reconnectGrace: 100, heartbeat: 100, heartbeatTimeout: 400 };
const LOG = 'mortise:{main}:bus';

let server;
let logger;
beforeAll(async () => { server = await RedisServer.start(); });
afterAll(() => server.stop());
beforeEach(async () => {
  logger = recorder();
  await server.call('FLUSHALL');
});

const open = [];
afterEach(() => Promise.all(open.splice(0).map((closing) => closing.close())));

/** A connected manager. Options that differ make a process-wide connection of its own, as another process would have. */
const make = async (options = {}, name = 'main') => {
  const manager = new PubSubManager({ name, logger }, { adapter: 'redis', url: server.url, ...options });
  open.push(manager);
  await manager.connect();
  return manager;
};

/** A manager's options that share nothing with those of others. */
let others = 0;
const apart = (url = server.url, more = {}) => ({ url: { url, ...QUICK, heartbeat: 100 + ++others, ...more } });

/** Another process that publishes 0, 1, 2, … on `ch` when told to, or hears it. */
const elsewhere = (code, options = {}) => child(`
  const manager = new mortise.PubSubManager({ name: 'main' }, ${JSON.stringify({ adapter: 'redis', url: options.url ?? server.url, ...options })});
  const publish = async (from, to) => { for (let n = from; n < to; n++) await manager.publish('ch', n); };
  (async () => { await manager.connect(); ${code} })().catch((error) => console.log(error.code, error.message));
`, { stdin: 'pipe' });

const numbers = (to) => Array.from({ length: to }, (_, n) => n);
const warnings = () => logger.lines.filter(({ level }) => level === 'warn').map(({ message }) => message);

describe('a manager on the log', () => {
  test('hears other managers and processes, each message once, in order, with an object of its own', async () => {
    const [a, b] = [await make(), await make(apart())];
    const got = [];
    for (const manager of [a, b]) await manager.subscribe('ch', (message) => { message.mine = true; got.push(message.n); });
    await a.subscribe('other', () => got.push('wrong channel'));
    const run = elsewhere('await Promise.all(Array.from({ length: 500 }, (_, n) => manager.publish("ch", { n }))); await manager.close();');
    await until(() => got.length === 1000);
    expect([got.filter((_, i) => got.indexOf(got[i]) === i), [...got].sort((x, y) => x - y)]).toEqual([numbers(500), numbers(1000).map((n) => n >> 1)]);
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
  });

  test('skipSelf, onlySelf, debounce, undefined and any Unicode are as on memory', async () => {
    const [a, b] = [await make(), await make(apart())];
    const got = [];
    await a.subscribe('ch', (message) => got.push(['a', message]));
    await b.subscribe('ch', (message) => got.push(['b', message]), { debounce: 50 });
    await a.publish('ch', 'ä€😀', { skipSelf: true });
    await a.publish('ch', 'ä€😀', { skipSelf: true });
    await a.publish('ch', 'own', { onlySelf: true });
    await a.publish('ch', undefined);
    await until(() => got.length === 4);
    expect(got.filter(([who]) => who === 'a')).toEqual([['a', 'own'], ['a', undefined]]);
    expect(got.filter(([who]) => who === 'b')).toEqual([['b', 'ä€😀'], ['b', undefined]]);
  });

  test('the text is that of NocoBase, in entries that anybody can read and write', async () => {
    const a = await make();
    await a.publish('ch', { x: 1 }, { skipSelf: true });
    const [[, fields]] = await server.call('XRANGE', LOG, '-', '+');
    expect(fields).toEqual(['', expect.stringMatching(/^[0-9a-f]{32}-1$/), 'main.ch', `{"publisherId":"${a.publisherId}","skipSelf":true,"message":{"x":1}}`]);
    await Promise.all([a.publish('ch', 1), a.publish('ch', 2)]);
    const block = (await server.call('XRANGE', LOG, '-', '+')).at(-1)[1];
    const text = (n) => `{"publisherId":"${a.publisherId}","skipSelf":false,"message":${n}}`;
    expect(block.slice(2)).toEqual(['', [1, 2].map((n) => `7:main.ch,${text(n).length}:${text(n)},`).join('')]);
    const got = [];
    await a.subscribe('ch', (message) => got.push(message));
    await server.call('XADD', LOG, '*', 'main.ch', '{"message":[5]}', 'main.ch', 'no json', 'odd.channel', '{}');
    await until(() => got.length === 1 && warnings().length === 1);
    expect(got).toEqual([[5]]);
    expect(warnings()[0]).toContain('main.ch');
  });

  test('apps and databases on one server do not hear each other', async () => {
    const [a, b, c] = [await make({}, 'x'), await make({}, 'y'), await make({ url: `${server.url}/1` }, 'x')];
    const got = [];
    for (const [name, manager] of Object.entries({ a, b, c })) await manager.subscribe('ch', (message) => got.push([name, message]));
    await Promise.all([a.publish('ch', 1), b.publish('ch', 2), c.publish('ch', 3)]);
    await until(() => got.length === 3);
    expect(got.sort()).toEqual([['a', 1], ['b', 2], ['c', 3]]);
  });

  test('what is published after subscribe has resolved is heard, while others are read already', async () => {
    const first = await make({}, 'x');
    await first.subscribe('ch', () => undefined);
    for (let i = 0; i < 20; i++) {
      const manager = await make({}, `app ${i}`);
      const { promise, resolve } = gate();
      await manager.subscribe('ch', resolve);
      const started = performance.now();
      await manager.publish('ch', i);
      expect(await promise).toBe(i);
      // Not only when the blocked read ends by itself.
      expect(performance.now() - started).toBeLessThan(1000);
    }
  });

  test('nothing is heard after unsubscribe and close; connecting again hears again, once', async () => {
    const [a, b] = [await make(), await make()];
    const got = [];
    const callback = (n) => got.push(n);
    await b.subscribe('ch', callback);
    await b.unsubscribe('ch', callback);
    await a.publish('ch', 1);
    await b.subscribe('ch', callback);
    await a.publish('ch', 2);
    await until(() => got.length > 0);
    await b.close();
    await b.close();
    await a.publish('ch', 3);
    await b.connect();
    await b.connect();
    await a.publish('ch', 4);
    await until(() => got.length > 1);
    expect(got).toEqual([2, 4]);
  });

  test('not connected it warns and resolves; what was published before close has gone out when close resolves', async () => {
    const manager = new PubSubManager({ name: 'main', logger }, { adapter: 'redis', url: server.url });
    await manager.publish('ch', 0);
    expect(warnings()).toEqual([expect.stringContaining('main.ch')]);
    await manager.connect();
    const published = Promise.all(numbers(200).map((n) => manager.publish('ch', n)));
    await manager.close();
    await published;
    const entries = await server.call('XRANGE', LOG, '-', '+');
    expect(entries.reduce((sum, [, fields]) => sum + fields[3].split('{"publisherId"').length - 1, 0)).toBe(200);
  });

  test('a failing subscriber is logged and harms nobody', async () => {
    const a = await make();
    const got = [];
    await a.subscribe('ch', () => { throw new Error('mine'); });
    await a.subscribe('ch', async () => { throw new Error('mine too'); });
    await a.subscribe('ch', (n) => got.push(n));
    await a.publish('ch', 1);
    const errors = () => logger.lines.filter(({ level }) => level === 'error');
    await until(() => got.length === 1 && errors().length === 2);
    expect(errors().map(({ details }) => details.message)).toEqual(['mine', 'mine too']);
  });

  test('messages of other channels, and own ones, wake nobody in JavaScript', async () => {
    const counting = child(`
      let count = 0;
      const addon = Object.values(require.cache).find(({ filename }) => filename.endsWith('.node'));
      const { listen } = addon.exports;
      addon.exports = { ...addon.exports, listen: (dispatch) => listen((events, payloads) => { count += events; dispatch(events, payloads); }) };
      delete require.cache[require.resolve(${JSON.stringify(ROOT)})];
      const { PubSubManager } = require(${JSON.stringify(ROOT)});
      (async () => {
        const manager = new PubSubManager({ name: 'main' }, { adapter: 'redis', url: '${server.url}', skipSelf: true });
        await manager.connect();
        let heard = 0;
        const done = new Promise((resolve) => manager.subscribe('mark', resolve));
        await manager.subscribe('ch', () => { heard++; });
        await manager.publish('ch', 'own');
        const before = count;
        console.log('ready');
        const awake = setInterval(() => {}, 1000);
        await done;
        console.log(count - before, heard);
        clearInterval(awake);
        await manager.close();
      })();
    `, { stdin: 'pipe' });
    await until(() => counting.lines.includes('ready'));
    const other = await make();
    await Promise.all(numbers(1000).map((n) => other.publish('not theirs', n)));
    await other.publish('mark', 1);
    expect(await counting.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(counting.lines[1]).toBe('1 0');
  });

  test('all apps, managers and worker threads of a process share one blocking connection', async () => {
    const run = child(`
      const { Worker } = require('node:worker_threads');
      const code = \`const { PubSubManager } = require(${JSON.stringify(ROOT)});
        const { parentPort, workerData } = require('node:worker_threads');
        (async () => {
          const manager = new PubSubManager({ name: 'main' }, { adapter: 'redis', url: '${server.url}/7' });
          await manager.connect();
          await manager.subscribe('ch', (n) => { parentPort.postMessage(n); parentPort.close(); void manager.close(); });
          parentPort.postMessage('ready');
          parentPort.on('message', () => {});
        })();\`;
      const make = async (name) => {
        const manager = new mortise.PubSubManager({ name }, { adapter: 'redis', url: '${server.url}/7' });
        await manager.connect();
        return manager;
      };
      (async () => {
        const managers = [await make('main'), await make('main'), await make('other')];
        for (const manager of managers) await manager.subscribe('ch', () => {});
        const heard = [];
        let ready = 0;
        const workers = [1, 2, 3].map(() => new Worker(code, { eval: true }));
        const exits = workers.map((worker) => new Promise((resolve) => worker.on('exit', resolve)));
        for (const worker of workers) worker.on('message', (message) => message === 'ready' ? ready++ : heard.push(message));
        while (ready < 3) await new Promise((resolve) => setTimeout(resolve, 5));
        console.log('ready');
        process.stdin.once('data', async () => {
          process.stdin.unref();
          await managers[0].publish('ch', 7);
          await Promise.all(exits);
          console.log(JSON.stringify(heard));
          for (const manager of managers) await manager.close();
        });
      })();
    `, { stdin: 'pipe' });
    await until(() => run.lines.includes('ready'));
    const list = (await server.call('CLIENT', 'LIST')).split('\n').filter((line) => line.includes(' db=7 ')).join('\n');
    expect([list.match(/name=mortise:reader /g).length, list.match(/name=mortise:shared /g).length]).toEqual([1, 1]);
    run.handle.stdin.write('go\n');
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(run.lines[1]).toBe('[7,7,7]');
  });

  test('a process exits by itself with subscriptions open, after what it has published', async () => {
    const run = elsewhere('await manager.subscribe("ch", () => {}); void publish(0, 100);');
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(await server.call('XLEN', LOG)).toBe(100);
  });

  test('on RESP2 and over a cluster', async () => {
    const cluster = await startCluster();
    try {
      for (const options of [{ url: { url: cluster.url } }, { url: `${server.url}?protocol=2` }]) {
        const managers = [];
        for (let i = 0; i < 6; i++) managers.push(await make(options, `app ${i}`));
        const got = managers.map(() => []);
        for (const [i, manager] of managers.entries()) await manager.subscribe('ch', (n) => got[i].push(n));
        await Promise.all(managers.flatMap((manager) => numbers(200).map((n) => manager.publish('ch', n))));
        await until(() => got.every((mine) => mine.length >= 200));
        expect(got).toEqual(managers.map(() => numbers(200)));
        await Promise.all(managers.map((manager) => manager.close()));
      }
    } finally {
      await cluster.stop();
    }
  }, 60_000);

  test.each([
    [{ delivery: 'fast' }, 'delivery'], [{ maxLength: 0 }, 'maxLength'], [{ maxLength: 1.5 }, 'maxLength'], [{ maxAge: NaN }, 'maxAge'], [{ url: 'redis://u:hidden@h:x' }, 'port'],
  ])('the options %p are refused at once', (options, named) => {
    let error;
    try { new PubSubManager({ name: 'main' }, { adapter: 'redis', ...options }); } catch (thrown) { error = thrown; }
    expect(error).toMatchObject({ code: 'E_INVALID_ARGUMENT', message: expect.stringContaining(named) });
    expect(error.message).not.toContain('hidden');
  });
});

describe('a connection that is lost', () => {
  test.each([['the subscriber\'s'], ['the publisher\'s']])('%s, for 1 s under 1000 messages a second: none lost, none twice, order kept', async (whose) => {
    const proxy = await Proxy.to(server.port);
    const through = apart(`redis://127.0.0.1:${proxy.port}`, { commandTimeout: 10_000 });
    const [from, to] = whose.includes('subscriber') ? [apart(), through] : [through, apart()];
    const [a, b] = [await make(from), await make(to)];
    const got = [];
    const onGap = jest.fn();
    await b.subscribe('ch', (n) => got.push(n), { onGap });
    const sending = [];
    const started = performance.now();
    let cut = false;
    while (sending.length < 3000) {
      while (sending.length < Math.min(3000, performance.now() - started)) sending.push(a.publish('ch', sending.length));
      if (!cut && sending.length >= 1000) {
        cut = true;
        proxy.mode = 'refuse';
        proxy.cut();
        setTimeout(() => { proxy.mode = 'pass'; }, 1000);
      }
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    await Promise.all(sending);
    await until(() => got.length >= 3000);
    expect(got).toEqual(numbers(3000));
    expect(onGap).not.toHaveBeenCalled();
    expect(logger.lines.filter(({ message }) => message.includes('away'))).toHaveLength(1);
    await proxy.close();
  });

  test('half open: the heartbeat finds it, and nothing is missed', async () => {
    const proxy = await Proxy.to(server.port);
    const [a, b] = [await make(apart()), await make(apart(`redis://127.0.0.1:${proxy.port}`))];
    const got = [];
    await b.subscribe('ch', (n) => got.push(n));
    await a.publish('ch', 0);
    await until(() => got.length === 1);
    proxy.mode = 'half';
    for (let n = 1; n < 50; n++) await a.publish('ch', n);
    await new Promise((resolve) => setTimeout(resolve, 600));
    proxy.mode = 'pass';
    await until(() => got.length >= 50);
    expect(got).toEqual(numbers(50));
    await proxy.close();
  });

  test('publishing waits, then rejects with a code that names the channel; the buffer is bounded', async () => {
    const proxy = await Proxy.to(server.port);
    const a = await make(apart(`redis://127.0.0.1:${proxy.port}`));
    proxy.mode = 'refuse';
    proxy.cut();
    const started = performance.now();
    const late = await rejection(a.publish('ch', 1));
    expect(late).toMatchObject({ code: 'E_UNAVAILABLE', message: expect.stringContaining('ch') });
    expect(performance.now() - started).toBeGreaterThan(1000);
    const many = numbers(100_064).map((n) => a.publish('ch', n).then(() => 'sent', ({ code }) => code));
    const large = await rejection(a.publish('ch', 'x'.repeat(2 ** 24)));
    expect(large).toMatchObject({ code: 'E_BUFFER_FULL', message: expect.stringContaining('ch') });
    proxy.mode = 'pass';
    const outcomes = await Promise.all(many);
    const full = outcomes.filter((outcome) => outcome === 'E_BUFFER_FULL').length;
    expect(full).toBeGreaterThan(0);
    expect(outcomes.slice(0, 90_000).includes('E_BUFFER_FULL')).toBe(false);
    expect(await a.isConnected()).toBe(true);
    await a.publish('ch', 'after');
    await proxy.close();
  });

  test('connecting waits for a server that is away, and rejects in time', async () => {
    const proxy = await Proxy.to(server.port);
    proxy.mode = 'refuse';
    const manager = new PubSubManager({ name: 'main', logger }, { adapter: 'redis', ...apart(`redis://127.0.0.1:${proxy.port}`) });
    open.push(manager);
    expect(await rejection(manager.connect())).toMatchObject({ code: 'E_UNAVAILABLE' });
    expect(await manager.isConnected()).toBe(false);
    setTimeout(() => { proxy.mode = 'pass'; }, 300);
    await manager.connect();
    await manager.publish('ch', 1);
    await manager.close();
    await proxy.close();
  });
});

describe('a gap', () => {
  test('is told when the log has moved past a stopped process, and what is left is heard', async () => {
    const run = elsewhere(`
      await manager.subscribe('ch', (n) => console.log(n), { onGap: (gap) => console.log(JSON.stringify(gap)) });
      console.log('ready');
      process.stdin.once('data', async () => { process.stdin.unref(); await manager.close(); });
      process.stdin.resume();
    `);
    await until(() => run.lines.includes('ready'));
    const a = await make({ maxLength: 100 });
    await a.publish('ch', 0);
    await until(() => run.lines.includes('0'));
    run.handle.kill('SIGSTOP');
    try {
      for (let n = 1; n < 1000; n++) await a.publish('ch', n);
      // Longer than a log is trusted to stay as it was.
      await new Promise((resolve) => setTimeout(resolve, 200));
    } finally {
      run.handle.kill('SIGCONT');
    }
    await until(() => run.lines.includes('999'));
    const gap = run.lines.indexOf('{"reason":"trimmed","channel":"ch"}');
    expect(gap).toBeGreaterThan(0);
    // The block's own reply may have been on its way when it was stopped.
    const before = run.lines.slice(1, gap).map(Number);
    expect(before).toEqual(numbers(before.length));
    const after = run.lines.slice(gap + 1).map(Number);
    expect(after).toEqual(numbers(1000).slice(-after.length));
    expect(after.length).toBeGreaterThanOrEqual(100);
    run.handle.stdin.write('stop\n');
    expect(await run.exit).toMatchObject({ code: 0 });
  });

  test('is told to each subscriber that wants it, once, and is one line of the log, when the server was emptied', async () => {
    const a = await make();
    const gaps = [];
    for (const channel of ['one', 'two']) await a.subscribe(channel, () => undefined, { onGap: (gap) => gaps.push(gap) });
    await a.subscribe('one', () => undefined);
    await a.subscribe('two', () => undefined, { onGap: () => { throw new Error('mine'); } });
    await server.call('FLUSHALL');
    await a.publish('one', 1);
    await until(() => gaps.length === 2);
    expect(gaps.sort((x, y) => (x.channel < y.channel ? -1 : 1))).toEqual([{ reason: 'replaced', channel: 'one' }, { reason: 'replaced', channel: 'two' }]);
    await until(() => logger.lines.some(({ level }) => level === 'error'));
    expect(warnings()).toEqual([expect.stringMatching(/main.*missed.*replaced/)]);
    expect(logger.lines.filter(({ level }) => level === 'error').map(({ details }) => details.message)).toEqual(['mine']);
  });

  test('an adapter written in JavaScript can tell of one', async () => {
    let told;
    const adapter = {
      isConnected: () => true, connect: async () => {}, close: async () => {}, unsubscribe: async () => {}, publish: async () => {},
      subscribe: async (_channel, _callback, { onGap }) => { told = onGap; },
    };
    const manager = await make({ adapter });
    const gaps = [];
    await manager.subscribe('ch', () => undefined, { onGap: (gap) => gaps.push(gap) });
    told({ reason: 'trimmed' });
    told({ reason: 'something of theirs' });
    await until(() => gaps.length === 2);
    expect(gaps).toEqual([{ reason: 'trimmed', channel: 'ch' }, { reason: 'disconnected', channel: 'ch' }]);
    expect((await rejection(manager.subscribe('ch', () => 1, { onGap: 5 }))).name).toBe('TypeError');
  });
});

describe('delivery volatile', () => {
  test('managers and plain clients hear each other', async () => {
    const [a, b] = [await make({ delivery: 'volatile' }), await make({ delivery: 'volatile', ...apart() })];
    const got = [];
    await b.subscribe('ch', (message) => got.push(message));
    await a.publish('ch', { x: 1 });
    await until(() => got.length === 1);
    await server.call('PUBLISH', 'main.ch', '{"publisherId":"theirs","message":"plain"}');
    await until(() => got.length === 2);
    expect(got).toEqual([{ x: 1 }, 'plain']);
    const plain = new Resp(server.port);
    await plain.call('SUBSCRIBE', 'main.ch');
    const heard = gate();
    plain.waiting.push({ resolve: heard.resolve });
    await a.publish('ch', 5);
    expect(await heard.promise).toEqual(['message', 'main.ch', `{"publisherId":"${a.publisherId}","message":5}`.replace('"message"', '"skipSelf":false,"message"')]);
    plain.close();
    expect(await server.call('EXISTS', LOG)).toBe(0);
  });

  test('a lost connection is a gap once it is back, and an unsubscribed channel is left', async () => {
    const proxy = await Proxy.to(server.port);
    const a = await make({ delivery: 'volatile', ...apart(`redis://127.0.0.1:${proxy.port}`) });
    const [got, gaps] = [[], []];
    const callback = (n) => got.push(n);
    await a.subscribe('ch', callback, { onGap: (gap) => gaps.push(gap.reason) });
    proxy.cut();
    await until(() => gaps.length === 1);
    await a.publish('ch', 1);
    await until(() => got.length === 1);
    expect(gaps).toEqual(['disconnected']);
    await a.unsubscribe('ch', callback);
    await until(async () => (await server.call('PUBSUB', 'NUMSUB', 'main.ch'))[1] === 0);
    await proxy.close();
  });

  test('needs RESP3, and one server', async () => {
    const manager = new PubSubManager({ name: 'main', logger }, { adapter: 'redis', url: `${server.url}?protocol=2`, delivery: 'volatile' });
    expect(await rejection(manager.connect())).toMatchObject({ code: 'E_UNSUPPORTED', message: expect.stringContaining('volatile') });
    const cluster = new PubSubManager({ name: 'main', logger }, { adapter: 'redis', url: 'redis+cluster://127.0.0.1:1', delivery: 'volatile' });
    expect(await rejection(cluster.connect())).toMatchObject({ code: 'E_UNSUPPORTED' });
  });
});

describe('the adapter by itself', () => {
  const adapters = [];
  const adapterOf = async (options = {}) => {
    const adapter = new RedisPubSubAdapter({ url: server.url, logger, ...options });
    adapters.push(adapter);
    await adapter.connect();
    return adapter;
  };
  afterEach(() => Promise.all(adapters.splice(0).map((adapter) => adapter.close())));

  test.each([['log'], ['volatile']])('carries texts between those of one app (%s)', async (delivery) => {
    const [a, b] = [await adapterOf({ delivery }), await adapterOf({ delivery, heartbeat: 777 })];
    const [one, two] = [[], []];
    const callback = (text) => one.push(text);
    await Promise.all([b.subscribe('ch', callback), b.subscribe('ch', (text) => two.push(text))]);
    await Promise.all([a.publish('ch', 'first'), a.publish('ch', 'ünï'), a.publish('other', 'x')]);
    await until(() => two.length === 2);
    await b.unsubscribe('ch', callback);
    await a.publish('ch', 'third');
    await until(() => two.length === 3);
    expect([one, two]).toEqual([['first', 'ünï'], ['first', 'ünï', 'third']]);
  });

  test('closed it rejects; its URL is masked; a channel has a name', async () => {
    const adapter = new RedisPubSubAdapter(server.url);
    expect((await rejection(adapter.publish('ch', 'x'))).code).toBe('E_CLOSED');
    await adapter.connect();
    expect(adapter.isConnected()).toBe(true);
    expect((await rejection(adapter.publish('', 'x'))).name).toBe('TypeError');
    expect((await rejection(adapter.subscribe('', () => 1))).name).toBe('TypeError');
    await adapter.close();
    await adapter.close();
    expect(adapter.isConnected()).toBe(false);
    const away = new RedisPubSubAdapter({ url: 'redis://me:hidden@127.0.0.1:1', connectTimeout: 100 });
    const error = await rejection(away.connect());
    expect([error.code, error.message.includes('hidden')]).toEqual(['E_UNAVAILABLE', false]);
  });

  test('warns once when the server may evict the log', async () => {
    await server.call('CONFIG', 'SET', 'maxmemory-policy', 'allkeys-lru');
    try {
      const adapter = await adapterOf({ heartbeat: 778 });
      await adapter.close();
      await adapter.connect();
      expect(warnings()).toEqual([expect.stringContaining('allkeys-lru')]);
    } finally {
      await server.call('CONFIG', 'SET', 'maxmemory-policy', 'noeviction');
    }
  });

  test('tells of gaps', async () => {
    const a = await adapterOf();
    const gaps = [];
    await a.subscribe('ch', () => undefined, { onGap: (gap) => gaps.push(gap) });
    await server.call('FLUSHALL');
    await a.publish('ch', 'x');
    await until(() => gaps.length === 1);
    expect(gaps).toEqual([{ reason: 'replaced' }]);
  });
});
