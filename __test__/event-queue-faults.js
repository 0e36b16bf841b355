'use strict';
// What an event queue on a server does when something fails, whatever the server (see `servers/brokers.js`).

const { Worker } = require('node:worker_threads');
const { EventQueue } = require('..');
const { Proxy } = require('./servers/proxy');
const { ROOT, child, gate, recorder, rejection, until } = require('./support');

/** Longer than any test: nothing that this hides is found by chance. */
const LONG = 60_000;
/** The shortest that there is. */
const SHORT = 500;

let apps = 0;

/** Declares the tests of one broker. */
function eventQueueFaults(name, broker) {
  // What a broker cannot do is not declared for it.
  const testIf = (condition) => (condition ? test : () => undefined);
  let server;
  let app;
  let logger;
  const open = [];
  beforeAll(async () => { server = await broker.start(); }, 100_000);
  afterAll(() => server.stop());
  beforeEach(() => {
    app = `faults-${process.pid}-${apps++}`;
    logger = recorder();
  });
  afterEach(() => Promise.all(open.splice(0).map((closing) => closing.close())));

  /** Options of a queue that shares no connection with others. */
  let nth = 0;
  const optionsOf = ({ lease = LONG, ...options } = {}, port = server.port) => ({ adapter: broker.adapter, url: broker.url(port, ++nth), ...broker.lease(lease), closeTimeout: 200, ...options });
  const make = async (options, port) => {
    const queue = new EventQueue({ name: app, logger }, optionsOf(options, port));
    open.push(queue);
    await queue.connect();
    return queue;
  };
  const proxied = async () => {
    const proxy = await Proxy.to(server.port);
    open.push(proxy);
    return proxy;
  };
  /** A queue that publishes on `c` and processes nothing. */
  const publisher = async (options) => {
    const queue = await make(options);
    queue.subscribe('c', { idle: () => false, process: () => undefined });
    return queue;
  };
  /** Subscribes with a handler that keeps what it gets. */
  const collect = (queue, event = {}, channel = 'c') => {
    const got = [];
    queue.subscribe(channel, { process: (message) => { got.push(message); }, ...event });
    return got;
  };
  /** Another process with a queue of the app; what it logs goes to its stderr, which nobody looks at. */
  const elsewhere = (code, options = {}, more = {}, port = server.port) => child(`
    const say = (line) => require('node:fs').writeSync(1, line + '\\n');
    const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
    const queue = new mortise.EventQueue({ name: ${JSON.stringify(app)}, logger: console }, ${JSON.stringify(optionsOf(options, port))});
    (async () => { ${code} })().catch((error) => { say(error.stack); process.exit(1); });
  `, more);
  const numbers = (count) => Array.from({ length: count }, (_, n) => n);
  const logged = (level, text) => logger.lines.filter((line) => line.level === level && line.message.includes(text));
  /** The lines of a process that begin with a word, without it. */
  const said = ({ lines }, word) => lines.filter((line) => line.startsWith(`${word} `)).map((line) => line.slice(word.length + 1));

  /**
   * Another process, whose event loop stands still from the moment in which it has allowed a message to come until `goOn`:
   * the message `first` is there, and its handler was not called. Then it goes on with what comes.
   */
  const standingStill = async (from, options, port) => {
    const node = elsewhere(`
      let stands = false;
      const stand = () => {
        if (!stands) return;
        stands = false;
        say('stands still');
        require('node:fs').readSync(0, Buffer.alloc(1));
        say('goes on');
      };
      // What fetches is the rest of the microtask that asks.
      queue.subscribe('c', { idle: () => { queueMicrotask(stand); return true; }, process: (message) => say('began ' + message) });
      // Node has nothing to do when there is nothing to fetch: what comes then comes after another question.
      process.once('beforeExit', () => { stands = true; setInterval(() => {}, 1000); say('ready'); });
      await queue.connect();
    `, options, { stdin: 'pipe' }, port);
    open.push({ close: () => node.handle.kill('SIGKILL') });
    await until(() => node.lines.includes('ready'));
    await from.publish('c', 'first', { id: 'first' });
    await until(() => node.lines.includes('stands still'));
    return { ...node, began: () => said(node, 'began'), refuses: () => node.errors.includes('do not begin here'), goOn: () => node.handle.stdin.write('\n') };
  };

  describe(`an event queue on ${name}, when something fails`, () => {
    test('what a killed worker had not finished runs again within its lease and 2 s, and nothing is lost', async () => {
      const lease = 3000;
      const other = await make({ lease });
      let idle = false;
      const got = new Map();
      other.subscribe('c', { concurrency: 10, idle: () => idle, process: (n, { retried }) => { got.set(n, [retried, Date.now()]); } });
      for (const n of numbers(20)) await other.publish('c', n);
      const worker = elsewhere(`
        queue.subscribe('c', { concurrency: 8, process: async (n) => { say('begun ' + n); if (n % 2) await new Promise(() => setInterval(() => {}, 1000)); say('done ' + n); } });
        await queue.connect();
        setInterval(() => {}, 1000);
      `, { lease });
      // Eight are held, so that the server was told of the ends of the others, and the rest waits.
      await until(() => said(worker, 'begun').filter((n) => n % 2).length === 8);
      await until(async () => (await other.counts('c')).running === 8);
      const done = said(worker, 'done').map(Number);
      worker.handle.kill('SIGKILL');
      const killed = Date.now();
      idle = true;
      await until(() => numbers(20).every((n) => done.includes(n) || got.has(n)));
      expect(Math.max(...[...got.values()].map(([, at]) => at)) - killed).toBeLessThan(lease + 2000);
      expect([...got.keys()].filter((n) => done.includes(n))).toEqual([]);
      // A crash is no failure.
      expect(new Set([...got.values()].map(([retried]) => retried))).toEqual(new Set([0]));
    });

    test('a message that ends its worker each time is a dead letter after the fifth; what ran beside it is not; replayed it runs again', async () => {
      const other = await make({ lease: SHORT });
      let idle = false;
      const got = [];
      other.subscribe('c', { idle: () => idle, process: (message) => { got.push(message); } });
      const id = await other.publish('c', 'killer', { id: 'killer' });
      for (const n of [1, 2]) await other.publish('c', `innocent ${n}`);
      const letters = other.deadLetters('c');
      const done = [];
      let crashes = 0;
      while (await letters.count() === 0) {
        const worker = elsewhere(`
          queue.subscribe('c', { concurrency: 3, process: async (message) => {
            say('begun ' + message);
            if (message !== 'killer') await pause(400);
            else { await pause(100); process.kill(process.pid, 'SIGKILL'); }
            say('done ' + message);
          } });
          process.once('SIGTERM', () => queue.close().then(() => process.exit()));
          await queue.connect();
          setInterval(() => {}, 1000);
        `, { lease: SHORT });
        await until(async () => worker.handle.signalCode || await letters.count() > 0);
        // One that has stored the letter is to say so: killed before that it leaves the message there, too.
        worker.handle.kill('SIGTERM');
        await worker.exit;
        crashes += said(worker, 'begun').filter((message) => message === 'killer').length;
        done.push(...said(worker, 'done'));
      }
      expect(crashes).toBe(5);
      expect(await letters.list()).toMatchObject([{ id, content: 'killer', error: expect.stringContaining('5') }]);
      expect(await letters.replay(id)).toBe(1);
      idle = true;
      await until(() => got.includes('killer') && [1, 2].every((n) => [...got, ...done].includes(`innocent ${n}`)));
      expect(await letters.count()).toBe(0);
    });

    test('with crashCounts a run that ended with its node is one of the attempts that maxRetries allows', async () => {
      const settings = { lease: SHORT, crashCounts: true };
      const other = await make(settings);
      let idle = false;
      const got = [];
      other.subscribe('c', { concurrency: 2, idle: () => idle, process: (message, { retried }) => { got.push([message, retried]); } });
      await other.publish('c', 'once', { maxRetries: 1 });
      await other.publish('c', 'never');
      const worker = elsewhere(`
        queue.subscribe('c', { concurrency: 2, process: (message) => { say('begun ' + message); return new Promise(() => {}); } });
        await queue.connect();
        setInterval(() => {}, 1000);
      `, settings);
      await until(() => said(worker, 'begun').length === 2);
      worker.handle.kill('SIGKILL');
      idle = true;
      await until(async () => got.length === 1 && await other.deadLetters('c').count() === 1);
      expect(got).toEqual([['once', 1]]);
      expect(await other.deadLetters('c').list()).toMatchObject([{ content: 'never' }]);
    });

    test('a worker whose connection is cut 50 times while it is idle consumes again each time within 2 s', async () => {
      const proxy = await proxied();
      const from = await publisher();
      const got = collect(await make({}, proxy.port));
      let longest = 0;
      for (const n of numbers(50)) {
        proxy.cut();
        const cut = Date.now();
        await from.publish('c', n);
        await until(() => got.length > n);
        longest = Math.max(longest, Date.now() - cut);
      }
      expect(got).toEqual(numbers(50));
      expect(longest).toBeLessThan(2000);
    });

    test('while the server is away publishing rejects and nothing hangs; afterwards all works again', async () => {
      const proxy = await proxied();
      const queue = await make({}, proxy.port);
      const got = collect(queue);
      await queue.publish('c', 0);
      await until(() => got.length === 1);
      for (const mode of ['refuse', 'blackhole']) {
        proxy.mode = mode;
        if (mode === 'refuse') proxy.cut();
        for (const error of await Promise.all(numbers(3).map(() => rejection(queue.publish('c', 'lost'))))) {
          expect(broker.away).toContain(error.code);
        }
        expect(broker.away).toContain((await rejection(queue.counts('c'))).code);
        await until(() => queue.health().state === 'away');
        proxy.mode = 'pass';
        await until(() => queue.health().state === 'ready');
        await queue.publish('c', mode);
        await until(() => got.includes(mode));
      }
    });

    test('a server that is killed and comes back has lost nothing that it acknowledged, and work goes on', async () => {
      const own = await broker.start();
      open.push({ close: () => own.stop() });
      const queue = await make({ lease: 1000 }, own.port);
      const got = collect(queue, { concurrency: 3 });
      let idle = false;
      const late = collect(queue, { idle: () => idle }, 'late');
      await queue.publish('late', 'delayed', { delay: 100 });
      const accepted = [];
      let back;
      for (let n = 0; accepted.length < 60; n++) {
        await queue.publish('c', n).then(() => accepted.push(n), () => new Promise((resolve) => setTimeout(resolve, 20)));
        await queue.publish('late', n).catch(() => undefined);
        if (accepted.length % 20 === 10 && accepted.at(-1) === n) {
          await back;
          await own.kill();
          back = new Promise((resolve) => setTimeout(resolve, 300)).then(() => own.up());
        }
      }
      await back;
      await until(() => accepted.every((n) => got.includes(n)));
      idle = true;
      await until(() => late.includes('delayed') && late.length >= 40);
    });

    test('a connect that is refused says so, and may be tried again', async () => {
      const proxy = await proxied();
      proxy.mode = 'refuse';
      const queue = new EventQueue({ name: app, logger }, optionsOf({}, proxy.port));
      open.push(queue);
      const got = collect(queue);
      expect((await rejection(queue.connect())).code).toBe('E_UNAVAILABLE');
      expect(queue.isConnected()).toBe(false);
      expect((await rejection(queue.publish('c', 1))).code).toBe('E_CLOSED');
      proxy.mode = 'pass';
      await queue.connect();
      await queue.publish('c', 2);
      await until(() => got.length === 1);
    });

    test('10 MB go through, and to whoever takes over', async () => {
      const queue = await make();
      const text = '0123456789 "ä😀'.repeat(640_000);
      const attempts = [];
      queue.subscribe('c', { process: (message, { retried }) => { attempts.push(message.text === text); if (retried === 0) throw new Error('again'); } });
      await queue.publish('c', { text }, { maxRetries: 1, backoff: { type: 'fixed', delay: 0 } });
      await until(() => attempts.length === 2);
      expect(attempts).toEqual([true, true]);
    });

    test('what JSON cannot hold is rejected, and leaves nothing behind', async () => {
      const queue = await make();
      const got = collect(queue);
      const circular = {};
      circular.self = circular;
      for (const message of [circular, 1n, () => 1, Symbol('s'), { toJSON() { throw new Error('mine'); } }]) {
        expect((await rejection(queue.publish('c', message))).code).toBe('E_NOT_SERIALIZABLE');
      }
      await queue.publish('c', { deep: JSON.parse('['.repeat(500) + ']'.repeat(500)) });
      await until(() => got.length === 1);
      expect(await queue.deadLetters('c').count()).toBe(0);
    });

    test('channels whose names are awkward see only their own messages', async () => {
      const queue = await make();
      const names = [' ', 'a b', 'a:b', 'a@b', '😀', 'x'.repeat(300), '😀'.repeat(150), '{', '}', '{}', '{a}', '%', '%7D', 'a', 'A', 'a.b', '*', '#', '\u00e4', 'a\u0308', '"', '\n', '\0'];
      const got = names.map((channel) => collect(queue, { shared: true }, `${app} ${channel}`));
      for (const channel of names) await queue.publish(`${app} ${channel}`, channel);
      await until(() => got.every((messages) => messages.length > 0));
      expect(got).toEqual(names.map((channel) => [channel]));
    });

    test('nodes that do not serve a topic publish and process nothing; those that do process all', async () => {
      const nodes = ['!', 'x'].map((mode) => child(`
        const say = (line) => require('node:fs').writeSync(1, line + '\\n');
        class Own extends mortise.Plugin {
          async load() {
            this.app.eventQueue.subscribe('x', { idle: () => this.app.serving('x'), process: (n) => say('got ' + n) });
          }
        }
        const app = mortise.createApp({ name: ${JSON.stringify(app)}, eventQueue: ${JSON.stringify(optionsOf())} });
        app.plugin(Own, { name: 'own' });
        process.stdin.once('data', async () => { for (let n = 0; n < 20; n++) await app.eventQueue.publish('x', n); process.stdin.once('data', () => app.stop().then(() => process.stdin.unref())); });
        app.start().then(() => say('ready'));
      `, { environment: { WORKER_MODE: mode }, stdin: 'pipe' }));
      await until(() => nodes.every(({ lines }) => lines.includes('ready')));
      nodes.forEach(({ handle }) => handle.stdin.write('\n'));
      await until(() => said(nodes[1], 'got').length === 40);
      expect(said(nodes[0], 'got')).toEqual([]);
      nodes.forEach(({ handle }) => handle.stdin.write('\n'));
      expect(await Promise.all(nodes.map(({ exit }) => exit))).toMatchObject([{ code: 0 }, { code: 0 }]);
    });

    test('a pause holds while every node and the server are restarted', async () => {
      const own = await broker.start();
      open.push({ close: () => own.stop() });
      const first = await make({}, own.port);
      const got = collect(first);
      await first.pause('c');
      await first.publish('c', 1);
      await first.close();
      await own.kill();
      await own.up();
      const second = await make({}, own.port);
      got.push(...collect(second, { process: (n) => { got.push(n); } }));
      // Other work passes by.
      const others = collect(second, {}, 'other');
      for (const n of numbers(20)) await second.publish('other', n);
      await until(() => others.length === 20);
      expect(got).toEqual([]);
      expect(await second.counts('c')).toMatchObject({ waiting: 1, paused: true });
      await second.resume('c');
      await until(() => got.length === 1);
    });

    test('who closes hands on what it has not finished at once, as if it had never begun', async () => {
      const [first, second] = [await make(), await make()];
      const held = gate();
      const [begun, got] = [[], []];
      first.subscribe('c', { concurrency: 3, process: (n) => { begun.push(n); return held.promise; } });
      for (const n of numbers(6)) await first.publish('c', n, { maxRetries: 1 });
      await until(() => begun.length === 3);
      second.subscribe('c', { concurrency: 6, idle: () => begun.length === 3 && !first.isConnected(), process: (n, { retried }) => { got.push([n, retried]); } });
      // Nothing of its lease has passed.
      await first.close();
      await until(() => got.length === 6);
      expect(got.sort(([a], [b]) => a - b)).toEqual(numbers(6).map((n) => [n, 0]));
      held.resolve();
      await until(() => logged('warn', 'after it was given up').length === 3);
      expect(await second.counts('c')).toMatchObject({ waiting: 0, running: 0, dead: 0 });
    });

    test('messages that are fetched while their node closes are not lost to it', async () => {
      const other = await make();
      const got = [];
      for (let round = 0; round < 20; round++) {
        const node = await make();
        node.subscribe('c', { concurrency: 5, process: (n) => { got.push(n); } });
        for (const n of numbers(5)) void node.publish('c', `${round} ${n}`);
        if (round % 2) await new Promise(setImmediate);
        await node.close();
      }
      other.subscribe('c', { concurrency: 5, process: (n) => { got.push(n); } });
      await until(() => got.length >= 100);
      expect(new Set(got).size).toBe(100);
    });

    test('a run that takes longer than maxRun counts as failed: its slot is free, and what it says then is ignored and logged', async () => {
      const queue = await make({ maxRun: 300 });
      const held = gate();
      const [got, reasons] = [[], []];
      queue.subscribe('c', {
        process: (n, { retried, signal }) => {
          got.push([n, retried]);
          signal.addEventListener('abort', () => reasons.push(signal.reason.name));
          return n === 0 ? held.promise : undefined;
        },
      });
      const id = await queue.publish('c', 0, { maxRetries: 1, backoff: { type: 'fixed', delay: 0 } });
      await queue.publish('c', 1);
      await until(async () => await queue.deadLetters('c').count() === 1 && got.length === 3);
      expect(got.filter(([n]) => n === 0)).toEqual([[0, 0], [0, 1]]);
      expect(reasons).toEqual(['TimeoutError', 'TimeoutError']);
      expect(await queue.deadLetters('c').list()).toMatchObject([{ id, error: expect.stringContaining('300 ms') }]);
      held.resolve();
      await until(() => logged('warn', 'after it was given up').length === 2);
      expect(logged('error', 'maxRun')).toHaveLength(2);
      expect(await queue.counts('c')).toMatchObject({ waiting: 0, ...(broker.countsDelayed ? { delayed: 0 } : {}), running: 0, dead: 1 });
    });

    test('a handler may run for many leases and longer than maxStall, and its message is nobody else\'s', async () => {
      const settings = { lease: SHORT, maxStall: 600 };
      const [first, second] = [await make(settings), await make(settings)];
      const runs = [];
      const process = async (who) => { runs.push(who); await new Promise((resolve) => setTimeout(resolve, 2500)); };
      let idle = false;
      first.subscribe('c', { process: () => process('first') });
      second.subscribe('c', { idle: () => idle, process: () => process('second') });
      await first.publish('c', 1);
      await until(() => runs.length === 1);
      idle = true;
      await until(async () => (await first.counts('c')).running === 0);
      expect(runs).toEqual(['first']);
      expect(logged('error', 'maxStall')).toEqual([]);
    });

    test('who stands still for longer than maxStall is dead to the others, and lives again afterwards', async () => {
      const other = await make({ lease: SHORT });
      let idle = false;
      const got = [];
      other.subscribe('c', { idle: () => idle, process: (message) => { got.push(message); } });
      const worker = elsewhere(`
        queue.subscribe('c', { process: (message) => {
          say('begun ' + message);
          if (message !== 'long') return;
          const end = Date.now() + 3500;
          while (Date.now() < end);
          say('over');
        } });
        await queue.connect();
        say('ready');
        setInterval(() => {}, 1000);
      `, { lease: SHORT, maxStall: 1000 });
      await until(() => worker.lines.includes('ready'));
      await other.publish('c', 'long');
      await until(() => said(worker, 'begun').length === 1);
      idle = true;
      await until(() => got.length === 1);
      expect(worker.lines).not.toContain('over');
      idle = false;
      await until(() => worker.lines.includes('over'));
      await other.publish('c', 'next');
      await until(() => said(worker, 'begun').includes('next') || got.includes('next'));
      worker.handle.kill('SIGKILL');
      await worker.exit;
    });

    test('a message that is cancelled after it was fetched and before its handler is called does not begin', async () => {
      const other = await publisher();
      const proxy = await proxied();
      const node = await standingStill(other, {}, proxy.port);
      await until(async () => (await other.counts('c')).running === 1);
      expect(await other.cancel('c', 'first')).toBe(true);
      // What it says of itself, at intervals: it has read what came before.
      const { passed } = proxy;
      await until(() => proxy.passed > passed + 2);
      node.goOn();
      await other.publish('c', 'next');
      await until(() => node.began().includes('next'));
      await until(async () => (await other.counts('c')).running === 0);
      expect(node.began()).toEqual(['next']);
      expect(await other.counts('c')).toMatchObject({ waiting: 0, dead: 0 });
    });

    test('a message whose node loses its connection before its handler is called does not begin there, and once elsewhere', async () => {
      const other = await make({ lease: SHORT });
      let idle = false;
      const got = collect(other, { idle: () => idle && got.length === 0 });
      const proxy = await proxied();
      const node = await standingStill(other, { lease: SHORT }, proxy.port);
      await until(async () => (await other.counts('c')).running === 1);
      idle = true;
      const { connections } = proxy;
      proxy.mode = 'refuse';
      proxy.cut();
      await until(() => got.length === 1);
      // Who connects again knows of the loss.
      await until(() => proxy.connections > connections + 1);
      node.goOn();
      await until(() => node.refuses() || node.began().length > 0);
      expect(node.began()).toEqual([]);
      proxy.mode = 'pass';
      await other.publish('c', 'next');
      await until(() => node.began().includes('next'));
      await until(async () => (await other.counts('c')).running === 0);
      expect([node.began(), got]).toEqual([['next'], ['first']]);
      expect(await other.counts('c')).toMatchObject({ waiting: 0, dead: 0 });
    });

    test('a message whose node stands still for maxStall before its handler is called does not begin there, and once elsewhere', async () => {
      const other = await make({ lease: SHORT });
      let idle = false;
      const got = collect(other, { idle: () => idle && got.length === 0 });
      const node = await standingStill(other, { lease: SHORT, maxStall: 1500 });
      await until(async () => (await other.counts('c')).running === 1);
      idle = true;
      await until(() => got.length === 1);
      node.goOn();
      await until(() => node.refuses() || node.began().length > 0);
      await other.publish('c', 'next');
      await until(() => node.began().includes('next'));
      await until(async () => (await other.counts('c')).running === 0);
      expect([node.began(), got]).toEqual([['next'], ['first']]);
      expect(await other.counts('c')).toMatchObject({ waiting: 0, dead: 0 });
    });

    test('a message whose maxRun passes before its handler is called has failed, and does not begin', async () => {
      const other = await publisher();
      const node = await standingStill(other, { maxRun: 300 });
      await until(async () => await other.deadLetters('c').count() === 1);
      node.goOn();
      await other.publish('c', 'next');
      await until(() => node.began().includes('next'));
      expect(node.began()).toEqual(['next']);
      expect(await other.deadLetters('c').list()).toMatchObject([{ id: 'first', error: expect.stringContaining('300 ms') }]);
    });

    testIf(broker.redelivers)('a message that its node has lost before its handler is called begins there once when it has come back', async () => {
      const other = await publisher();
      const proxy = await proxied();
      const node = await standingStill(other, {}, proxy.port);
      await until(async () => (await other.counts('c')).running === 1);
      const { connections } = proxy;
      proxy.mode = 'refuse';
      proxy.cut();
      await until(() => proxy.connections > connections + 1);
      node.goOn();
      await until(() => node.refuses() || node.began().length > 0);
      expect(node.began()).toEqual([]);
      proxy.mode = 'pass';
      await until(() => node.began().length > 0);
      await other.publish('c', 'next');
      await until(() => node.began().includes('next'));
      await until(async () => (await other.counts('c')).running === 0);
      expect(node.began()).toEqual(['first', 'next']);
      expect(await other.counts('c')).toMatchObject({ waiting: 0, dead: 0 });
    });

    testIf(broker.redelivers)('a message that its node has lost and has again before its handler is called begins there once', async () => {
      const other = await publisher();
      const proxy = await proxied();
      const node = await standingStill(other, {}, proxy.port);
      await until(async () => (await other.counts('c')).running === 1);
      const { connections } = proxy;
      proxy.cut();
      await until(async () => {
        const { waiting, running } = await other.counts('c');
        return proxy.connections > connections && waiting === 0 && running === 1;
      });
      node.goOn();
      await until(() => node.began().length > 0);
      await other.publish('c', 'next');
      await until(() => node.began().includes('next'));
      await until(async () => (await other.counts('c')).running === 0);
      expect(node.began()).toEqual(['first', 'next']);
      expect(await other.counts('c')).toMatchObject({ waiting: 0, dead: 0 });
    });

    test('a retry that is due while its node is busy runs on another at once', async () => {
      const [first, second] = [await make(), await make()];
      const held = gate();
      const got = [];
      let failed = 0;
      first.subscribe('c', {
        process: (message) => {
          if (message === 'long') return held.promise;
          failed++;
          throw new Error('on this node');
        },
      });
      await first.publish('c', 'short', { maxRetries: 3, backoff: { type: 'fixed', delay: 700 } });
      await first.publish('c', 'long');
      await until(async () => failed === 1 && (await first.counts('c')).running === 1);
      second.subscribe('c', { process: (message) => { got.push(message); } });
      await until(() => got.length === 1, 5000);
      held.resolve();
    });

    test('two threads share the work of one process, and a thread that ends gives its messages back', async () => {
      const options = optionsOf({ lease: 1000 });
      const program = `
        const { EventQueue } = require(${JSON.stringify(ROOT)});
        const { parentPort, threadId } = require('node:worker_threads');
        const queue = new EventQueue({ name: ${JSON.stringify(app)} }, ${JSON.stringify(options)});
        queue.subscribe('c', { concurrency: 2, process: async (n) => { parentPort.postMessage(['begun', n]); if (n === 'hold') await new Promise(() => {}); await new Promise((resolve) => setTimeout(resolve, 5)); parentPort.postMessage(['done', n]); } });
        parentPort.on('message', async () => { await queue.close(); parentPort.close(); });
        queue.connect().then(() => parentPort.postMessage(['ready']));
      `;
      const threads = [0, 1].map(() => {
        const worker = new Worker(program, { eval: true });
        const thread = { worker, heard: [], exit: new Promise((resolve) => worker.on('exit', resolve)) };
        worker.on('message', (message) => thread.heard.push(message));
        return thread;
      });
      const all = (what) => threads.map(({ heard }) => heard.filter(([is]) => is === what).map(([, n]) => n));
      await until(() => all('ready').flat().length === 2);
      const from = await publisher({ lease: 1000 });
      await Promise.all(numbers(100).map((n) => from.publish('c', n)));
      await until(() => all('done').flat().length === 100);
      expect(all('done').every((done) => done.length > 0)).toBe(true);
      expect(all('done').flat().sort((a, b) => a - b)).toEqual(numbers(100));
      await from.publish('c', 'hold');
      await until(() => all('begun').flat().includes('hold'));
      const holder = threads.find(({ heard }) => heard.some(([, n]) => n === 'hold'));
      const [other] = threads.filter((thread) => thread !== holder);
      await holder.worker.terminate();
      await until(() => other.heard.some(([what, n]) => what === 'begun' && n === 'hold'));
      other.worker.postMessage('close');
      // The handler that never ends is given up after closeTimeout.
      expect(await other.exit).toBe(0);
    });

    test('a process ends by itself after close, and runs on while a handler does', async () => {
      const run = elsewhere(`
        queue.subscribe('c', { concurrency: 2, process: async (n) => { await new Promise((resolve) => setTimeout(resolve, 300).unref()); say('done ' + n); if (n === 1) await queue.close(); } });
        await queue.connect();
        for (let n = 0; n < 2; n++) await queue.publish('c', n);
      `, { closeTimeout: 50 });
      expect(await run.exit).toMatchObject({ code: 0, signal: null });
      expect(said(run, 'done').sort()).toEqual(['0', '1']);
    });
  });
}

module.exports = { eventQueueFaults };
