'use strict';

const { readFileSync } = require('node:fs');
const net = require('node:net');
const { join } = require('node:path');
const { setFlagsFromString } = require('node:v8');
const { runInNewContext } = require('node:vm');
const { EventQueue, RabbitMQEventQueueAdapter } = require('..');
const { eventQueueFaults } = require('./event-queue-faults');
const { eventQueueRules } = require('./event-queue-rules');
const { rabbitmq } = require('./servers/brokers');
const { Proxy } = require('./servers/proxy');
const { RabbitMQServer } = require('./servers/rabbitmq');
const { child, gate, recorder, rejection, until } = require('./support');

jest.setTimeout(60_000);

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');

const freePort = () => new Promise((resolve) => {
  const server = net.createServer();
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    server.close(() => resolve(port));
  });
});

let server;
beforeAll(async () => { server = await RabbitMQServer.start(); }, 100_000);

eventQueueRules('RabbitMQ', ({ name, logger, ...options }) => new EventQueue({ name, logger }, { ...options, adapter: 'rabbitmq', url: server.url }), {
  dedupes: false,
  cancelsWaiting: false,
  oldestAge: false,
  countsDelayed: false,
});

eventQueueFaults('RabbitMQ', rabbitmq);

describe('the queue on RabbitMQ', () => {
  let apps = 0;
  let app;
  let logger;
  let queues;
  let gates;
  beforeEach(() => {
    app = `own-${process.pid}-${apps++}`;
    logger = recorder();
    queues = [];
    gates = [];
  });
  afterEach(async () => {
    gates.forEach(({ resolve }) => resolve());
    await Promise.all(queues.map((queue) => queue.close()));
  });

  const open = async ({ url = server.url, ...options } = {}) => {
    const queue = new EventQueue({ name: app, logger }, { closeTimeout: 2000, ...options, adapter: 'rabbitmq', url });
    queues.push(queue);
    await queue.connect();
    return queue;
  };
  const holding = (queue, channel, event = {}) => {
    const runs = [];
    const process = (message, context) => {
      const run = { message, context, ...gate() };
      gates.push(run);
      runs.push(run);
      return run.promise;
    };
    queue.subscribe(channel, { process, ...event });
    return runs;
  };
  const logged = (level, text) => logger.lines.some((line) => line.level === level && line.message.includes(text));
  const proxied = async () => {
    const proxy = await Proxy.to(server.port);
    return { proxy, url: `amqp://guest:guest@127.0.0.1:${proxy.port}` };
  };

  test.each([['url', 'http://u:hidden@h'], ['url', 'amqp://u:hidden@h:x'], ['heartbeat', 0], ['connectTimeout', -1], ['consumerTimeout', 0], ['tls', { ca: 'x' }], ['namePrefix', 'a b'],
    ['lease', 1], ['maxRun', 'x']])('the option %s of %p is refused with a TypeError that shows no secret', (option, value) => {
    let error;
    try {
      new RabbitMQEventQueueAdapter({ [option]: value });
    } catch (thrown) {
      error = thrown;
    }
    expect([error.name, error.code]).toEqual(['TypeError', 'E_INVALID_ARGUMENT']);
    expect(error.message).not.toContain('hidden');
  });

  test('connecting rejects with E_UNAVAILABLE where no broker is, and where the password is wrong, which is not shown', async () => {
    for (const url of ['amqp://u:hidden@127.0.0.1:1', `amqp://guest:hidden@127.0.0.1:${server.port}`]) {
      const queue = new EventQueue({ name: app, logger }, { adapter: 'rabbitmq', url: { url, connectTimeout: 1500 } });
      const error = await rejection(queue.connect());
      expect(error.code).toBe('E_UNAVAILABLE');
      expect(error.message).toContain('***');
      expect(error.message + JSON.stringify(logger.lines)).not.toContain('hidden');
    }
  });

  test.each(['amqp', 'amqps'])('connecting by %s to a broker that accepts and says nothing rejects with E_UNAVAILABLE after connectTimeout, which begins again', async (scheme) => {
    const sockets = [];
    const deaf = net.createServer((socket) => sockets.push(socket.on('error', () => undefined)));
    await new Promise((resolve) => deaf.listen(0, '127.0.0.1', resolve));
    const queue = new EventQueue({ name: app, logger }, { adapter: 'rabbitmq', url: { url: `${scheme}://u:hidden@127.0.0.1:${deaf.address().port}`, connectTimeout: 300 } });
    try {
      expect((await rejection(queue.connect())).code).toBe('E_UNAVAILABLE');
      expect((await rejection(queue.connect())).code).toBe('E_UNAVAILABLE');
      expect(sockets.length).toBeGreaterThan(1);
      expect(JSON.stringify(logger.lines)).not.toContain('hidden');
    } finally {
      await queue.close();
      sockets.forEach((socket) => socket.destroy());
      deaf.close();
    }
  });

  test('amqps: with the authority and a certificate of one\'s own; who has not both is told so, and no secret is shown', async () => {
    const file = (name) => join(__dirname, 'servers', 'tls', name);
    const [ca, cert, key] = ['ca.pem', 'server.pem', 'server.key'].map((name) => readFileSync(file(name), 'utf8'));
    const port = await freePort();
    const own = await RabbitMQServer.start([`listeners.ssl.1 = 127.0.0.1:${port}`, `ssl_options.cacertfile = ${file('ca.pem')}`,
      `ssl_options.certfile = ${file('server.pem')}`, `ssl_options.keyfile = ${file('server.key')}`, 'ssl_options.verify = verify_peer',
      'ssl_options.fail_if_no_peer_cert = true', 'ssl_options.depth = 2']);
    const proxy = await Proxy.to(port);
    const at = (tls) => ({ url: `amqps://guest:guest@127.0.0.1:${proxy.port}`, connectTimeout: 2000, tls });
    for (const [tls, reason] of [[undefined, /certificate/i], [{ ca: cert, cert, key }, /certificate/i], [{ ca }, /./]]) {
      const queue = new EventQueue({ name: app, logger }, { adapter: 'rabbitmq', url: at(tls) });
      const error = await rejection(queue.connect());
      expect([error.code, error.message]).toEqual(['E_UNAVAILABLE', expect.stringMatching(reason)]);
      expect(error.message + JSON.stringify(logger.lines)).not.toContain('guest:guest');
      await queue.close();
    }
    const queue = await open({ url: at({ ca, cert, key }) });
    const got = [];
    queue.subscribe('c', { concurrency: 0, process: (message) => { got.push(message.n); } });
    const text = 'x'.repeat(2_000_000);
    await Promise.all(Array.from({ length: 300 }, (_, n) => queue.publish('c', n % 100 ? { n } : { n, text })));
    await until(() => new Set(got).size === 300);
    proxy.cut();
    // What is on its way when the connection is lost is rejected.
    await until(() => queue.publish('c', { n: 300 }).then(() => true, () => false));
    await until(() => got.includes(300));
    await queue.close();
    await own.stop();
  });

  test('the second host is used when the first is away', async () => {
    const queue = await open({ url: `amqp://guest:guest@127.0.0.1:1,127.0.0.1:${server.port}` });
    const runs = holding(queue, 'c');
    await queue.publish('c', 1);
    await until(() => runs.length === 1);
  });

  test('a connection that is cut 20 times is made again each time, and consumes; each loss is logged once', async () => {
    const { proxy, url } = await proxied();
    const queue = await open({ url });
    const got = [];
    queue.subscribe('c', { process: async (message) => { got.push(message); } });
    const publisher = await open();
    publisher.subscribe('c', { process: () => undefined, idle: () => false });
    for (let n = 0; n < 20; n++) {
      proxy.cut();
      await publisher.publish('c', n);
      await until(() => got.includes(n));
    }
    await until(() => queue.health().state === 'ready');
    const of = (text) => logger.lines.filter(({ message }) => message.includes(text)).length;
    expect(of('is away')).toBe(20);
    await until(() => of('is back') === 20);
  });

  test('a handler that runs while the connection is lost is not run again here, and its outcome counts', async () => {
    const { proxy, url } = await proxied();
    const queue = await open({ url });
    const runs = holding(queue, 'c');
    await queue.publish('c', 'long');
    await until(() => runs.length === 1);
    proxy.cut();
    await until(() => logged('info', 'is back'));
    await until(async () => (await queue.counts('c')).waiting === 0);
    runs[0].resolve();
    await queue.publish('c', 'next');
    await until(() => runs.length > 1);
    expect(runs.map(({ message }) => message)).toEqual(['long', 'next']);
  });

  test('publish rejects with E_UNAVAILABLE while the broker is away, and works when it is back', async () => {
    const { proxy, url } = await proxied();
    const queue = await open({ url });
    const runs = holding(queue, 'c', { concurrency: 0 });
    await queue.publish('c', 1);
    proxy.mode = 'refuse';
    proxy.cut();
    await until(() => queue.health().state === 'away');
    const error = await rejection(queue.publish('c', 2));
    expect(error.code).toBe('E_UNAVAILABLE');
    expect(error.message).not.toContain('guest:guest');
    expect((await rejection(queue.counts('c'))).code).toBe('E_UNAVAILABLE');
    proxy.mode = 'pass';
    await until(() => queue.health().state === 'ready');
    await queue.publish('c', 3);
    await until(() => runs.some(({ message }) => message === 3));
  });

  test('a missing confirmation rejects with E_TIMEOUT, and the half-open connection is given up', async () => {
    const { proxy, url } = await proxied();
    const queue = await open({ url: { url, commandTimeout: 300 } });
    const runs = holding(queue, 'c', { concurrency: 0 });
    await queue.publish('c', 1);
    proxy.mode = 'half';
    expect((await rejection(queue.publish('c', 2))).code).toBe('E_TIMEOUT');
    proxy.mode = 'pass';
    await until(() => logged('warn', 'no confirmation'));
    await until(() => queue.health().state === 'ready');
    await queue.publish('c', 3);
    await until(() => runs.some(({ message }) => message === 3));
  });

  test('a message whose queue could not be declared since the connection was lost goes with the next connection', async () => {
    const { proxy, url } = await proxied();
    const queue = await open({ url });
    const runs = holding(queue, 'before');
    await queue.publish('before', 0);
    await until(() => runs.length === 1);
    // The broker declares, and nobody hears of it.
    proxy.mode = 'half';
    const got = holding(queue, 'new');
    const published = queue.publish('new', 1);
    proxy.mode = 'refuse';
    proxy.cut();
    proxy.mode = 'pass';
    await published;
    await until(() => got.length === 1);
  });

  test('queues that are not there may be asked for any number of times, and nothing else suffers from it', async () => {
    const queue = await open();
    queue.subscribe('c', { process: () => undefined, idle: () => false });
    await queue.publish('c', 1);
    // A connection has 2047 AMQP channels, and the broker ends one whenever there are no dead letters.
    for (let n = 0; n < 1200; n++) expect(await queue.counts('c')).toMatchObject({ waiting: 1, dead: 0, paused: false });
    await queue.publish('c', 2, { delay: 77_000 });
    const runs = holding(queue, 'new');
    await queue.publish('new', 3);
    await until(() => runs.length === 1);
    expect(queue.health().state).toBe('ready');
  });

  test('a broker that is killed and started again has all that was stored, and is consumed again', async () => {
    const own = await RabbitMQServer.start();
    const queue = await open({ url: own.url });
    const got = [];
    let idle = false;
    queue.subscribe('c', { interval: 10, idle: () => idle, process: async (message) => { got.push(message); } });
    await Promise.all(Array.from({ length: 50 }, (_, n) => queue.publish('c', n)));
    await queue.publish('c', 'late', { delay: 1000 });
    await own.kill();
    await until(() => queue.health().state === 'away');
    await own.up();
    idle = true;
    await until(() => got.length >= 51, 30_000);
    expect([...new Set(got)]).toHaveLength(51);
  });

  test('a message that runs for longer than the broker allows is given to another, and consuming goes on', async () => {
    // By the broker's count, which is taken every half second.
    const own = await RabbitMQServer.start(['consumer_timeout = 3000'], { advanced: '[{rabbit, [{channel_tick_interval, 500}]}].' });
    const queue = await open({ url: { url: own.url, consumerTimeout: 2400 } });
    const runs = holding(queue, 'c', { concurrency: 2 });
    const id = await queue.publish('c', 'long', { timeout: Infinity });
    await until(() => runs.length === 1);
    // All queues are there: the broker ends the connection of one of two who make one at the same time.
    await queue.counts('c');
    const other = await open({ url: own.url });
    let idle = false;
    const got = [];
    other.subscribe('c', { interval: 10, idle: () => idle, process: async (message, { retried }) => { got.push([message, retried]); } });
    await until(() => logged('warn', `message ${id} has run for`));
    expect(logged('warn', 'lost its AMQP channel')).toBe(false);
    // The node whose channel is closed can have nothing then.
    idle = true;
    await until(() => got.length === 1, 30_000);
    expect(got).toEqual([['long', 0]]);
    await until(() => logged('warn', 'lost its AMQP channel'));
    expect(logged('warn', 'PRECONDITION_FAILED')).toBe(true);
    runs[0].resolve();
    await other.close();
    await queue.publish('c', 'next');
    await until(() => runs.some(({ message }) => message === 'next'));
    expect(queue.health().state).toBe('ready');
  });

  test('messages that come after idle has turned are put back, and are no attempt', async () => {
    const [busy, other] = [await open(), await open()];
    let idle = true;
    let asked = 0;
    const none = [];
    busy.subscribe('c', { interval: 1e9, idle: () => { asked++; return idle; }, process: async (message) => { none.push(message); } });
    // It consumes, and has found nothing.
    await until(async () => asked > 0 && (await busy.counts('c')).waiting === 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
    idle = false;
    const got = [];
    await busy.publish('c', 1, { maxRetries: 0 });
    other.subscribe('c', { process: async (message, { retried }) => { got.push([message, retried]); } });
    await until(() => got.length === 1);
    expect([got, none]).toEqual([[[1, 0]], []]);
  });

  test.each([1, 2])('a message that is there twice, since the answer was lost when it was put back, runs once on one node, %i at a time', async (concurrency) => {
    const { proxy, url } = await proxied();
    const first = await open({ url: { url, commandTimeout: 1000 }, closeTimeout: 0 });
    const runs = holding(first, 'c');
    await first.publish('c', 'twice');
    await until(() => runs.length === 1);
    // What has come back before is published anew when it goes back again.
    proxy.cut();
    await until(async () => logged('info', 'is back') && (await first.counts('c')).waiting === 0);
    proxy.halfFrom = 'mortise-origin';
    await first.close();
    proxy.cut();
    const stored = async () => (await server.control('list_queues', '--no-table-headers', '--silent', 'name', 'messages_ready')).split('\n');
    await until(async () => (await stored()).includes(`mortise.${app}.c\t2`));
    const second = await open();
    const got = [];
    second.subscribe('c', { concurrency, process: (message) => { got.push(message); } });
    await second.publish('c', 'next');
    await until(() => got.includes('next'));
    expect(got).toEqual(['twice', 'next']);
    await until(async () => (await stored()).includes(`mortise.${app}.c\t0`));
  });

  test('a node takes no more than it may run at once', async () => {
    const [first, second] = [await open(), await open()];
    const runs = holding(first, 'c', { concurrency: 3 });
    await Promise.all(Array.from({ length: 10 }, (_, n) => first.publish('c', n)));
    await until(() => runs.length === 3);
    const got = [];
    second.subscribe('c', { process: async (message) => { got.push(message); } });
    await until(() => got.length === 7);
    expect(runs.length).toBe(3);
  });

  test('more than 256 run at once where any number may', async () => {
    const queue = await open();
    const runs = holding(queue, 'c', { concurrency: 0 });
    await Promise.all(Array.from({ length: 700 }, (_, n) => queue.publish('c', n)));
    await until(() => runs.length === 700);
  });

  test('a message that ends its node each time is a dead letter after maxCrashes times, and can be replayed', async () => {
    const queue = await open({ maxCrashes: 3 });
    queue.subscribe('c', { process: () => undefined, idle: () => false });
    const id = await queue.publish('c', 'poison');
    const code = `
      const queue = new mortise.EventQueue({ name: ${JSON.stringify(app)}, logger: console }, { adapter: 'rabbitmq', url: process.env.URL, maxCrashes: 3 });
      queue.connect().then(() => queue.subscribe('c', { process: () => process.kill(process.pid, 'SIGKILL') }));
      setInterval(() => undefined, 1000);`;
    for (let n = 0; n < 3; n++) {
      const { signal } = await child(code, { environment: { URL: server.url } }).exit;
      expect(signal).toBe('SIGKILL');
    }
    const worker = await open({ maxCrashes: 3 });
    const runs = holding(worker, 'c');
    await until(async () => (await queue.deadLetters('c').count()) === 1);
    expect(runs).toEqual([]);
    const [letter] = await queue.deadLetters('c').list();
    expect([letter.id, letter.content]).toEqual([id, 'poison']);
    expect(letter.error).toContain('ended its node 3 times');
    expect(await queue.deadLetters('c').replay(id)).toBe(1);
    await until(() => runs.length === 1);
  });

  test('suspects of several channels run one at a time on a node, and all run', async () => {
    const channels = ['c', 'd', 'e'];
    const queue = await open();
    for (const channel of channels) {
      queue.subscribe(channel, { process: () => undefined, idle: () => false });
      await queue.publish(channel, channel);
    }
    const code = `
      const queue = new mortise.EventQueue({ name: ${JSON.stringify(app)}, logger: console }, { adapter: 'rabbitmq', url: process.env.URL });
      let begun = 0;
      const process_ = () => { if (++begun === 3) process.kill(process.pid, 'SIGKILL'); return new Promise(() => {}); };
      for (const channel of ${JSON.stringify(channels)}) queue.subscribe(channel, { process: process_ });
      queue.connect();
      setInterval(() => undefined, 1000);`;
    for (let n = 0; n < 3; n++) {
      expect((await child(code, { environment: { URL: server.url } }).exit).signal).toBe('SIGKILL');
    }
    const worker = await open();
    let [running, most] = [0, 0];
    const done = [];
    for (const channel of channels) {
      worker.subscribe(channel, {
        process: async (message) => {
          most = Math.max(most, ++running);
          await new Promise((resolve) => setTimeout(resolve, 700));
          running--;
          done.push(message);
        },
      });
    }
    await until(() => done.length === 3, 20_000);
    expect([most, done.sort()]).toEqual([1, channels]);
  });

  test('subscriptions that were ended leave nothing behind in the process', async () => {
    const queue = await open();
    const memory = () => { collectGarbage(); return process.memoryUsage().arrayBuffers; };
    const again = (count) => {
      for (let n = 0; n < count; n++) {
        queue.subscribe('c', { process: () => undefined });
        queue.unsubscribe('c');
      }
    };
    again(1);
    const before = memory();
    again(500);
    await until(() => memory() - before < 200_000);
    const runs = holding(queue, 'c');
    await queue.publish('c', 1);
    await until(() => runs.length === 1);
    runs[0].resolve();
  });

  test('a run that takes longer than maxRun has failed, and what it says later counts for nothing', async () => {
    const queue = await open({ maxRun: 200 });
    const runs = holding(queue, 'c');
    const id = await queue.publish('c', 'slow', { timeout: Infinity });
    await queue.publish('c', 'next');
    await until(() => runs.length === 2);
    expect(runs[0].context.signal.aborted).toBe(true);
    runs[0].resolve();
    runs[1].resolve();
    await until(async () => (await queue.deadLetters('c').count()) === 1);
    const [letter] = await queue.deadLetters('c').list();
    expect([letter.id, letter.error]).toEqual([id, expect.stringContaining('maxRun')]);
  });

  test('a message is others\' when the event loop of its node stands still for maxStall', async () => {
    const queue = await open();
    const got = [];
    const code = `
      const queue = new mortise.EventQueue({ name: ${JSON.stringify(app)}, logger: { ...console, debug() {} } }, { adapter: 'rabbitmq', url: process.env.URL, maxStall: 500 });
      queue.connect().then(() => queue.subscribe('c', { process: () => { console.log('begun'); setTimeout(() => { for (;;); }); return new Promise(() => {}); } }));`;
    const worker = child(code, { environment: { URL: server.url } });
    let idle = false;
    queue.subscribe('c', { interval: 10, idle: () => idle, process: async (message) => { got.push(message); } });
    await queue.publish('c', 'stuck');
    await until(() => worker.lines.includes('begun'));
    idle = true;
    await until(() => got.length === 1);
    worker.handle.kill('SIGKILL');
    await worker.exit;
  });

  test('a cancelled message that waits is dropped by whoever gets it; one with its id that was published later is not', async () => {
    const [first, second] = [await open(), await open()];
    let idle = false;
    const got = [];
    first.subscribe('c', { interval: 10, idle: () => idle, process: async (message) => { got.push(message); } });
    second.subscribe('c', { process: () => undefined, idle: () => false });
    await second.publish('c', 'cancelled', { id: 'x' });
    await second.cancel('c', 'x');
    // The clock that tells them apart counts milliseconds.
    const end = Date.now() + 2;
    await until(() => Date.now() > end);
    await second.publish('c', 'later', { id: 'x' });
    idle = true;
    await until(() => got.length === 1);
    await until(async () => { const { waiting, running } = await second.counts('c'); return waiting + running === 0; });
    expect(got).toEqual(['later']);
  });

  test('delays of days are accepted, and ids longer than AMQP has them come back whole', async () => {
    const queue = await open();
    const runs = holding(queue, 'c');
    await queue.publish('c', 'far', { delay: 90 * 86_400_000 });
    const id = 'ä'.repeat(400);
    expect(await queue.publish('c', 'now', { id })).toBe(id);
    await until(() => runs.length === 1);
    expect([runs[0].message, runs[0].context.id]).toEqual(['now', id]);
  });

  test('a program that closes its queue ends, and so does one that only waits for messages', async () => {
    const code = (end) => `
      const queue = new mortise.EventQueue({ name: ${JSON.stringify(app)}, logger: console }, { adapter: 'rabbitmq', url: process.env.URL });
      queue.connect().then(async () => {
        queue.subscribe('c', { process: (message) => console.log('got', message) });
        await queue.publish('c', 1);
        ${end}
      });`;
    for (const end of ['await queue.close();', '']) {
      const { handle, lines, exit } = child(code(end), { environment: { URL: server.url } });
      const { code: status, errors } = await exit;
      expect([status, errors]).toEqual([0, '']);
      expect(handle.killed).toBe(false);
      if (end === '') expect(lines).toContain('got 1');
    }
  });

  test('what is published to a queue that somebody has deleted rejects, and the next publish makes it again', async () => {
    const queue = await open();
    queue.subscribe('c', { process: () => undefined, idle: () => false });
    await queue.publish('c', 1);
    await server.control('delete_queue', `mortise.${app}.c`);
    const error = await rejection(queue.publish('c', 2));
    expect(error.code).toBe('E_RABBITMQ');
    await queue.publish('c', 3);
    const runs = holding(await open(), 'c');
    await until(() => runs.length === 1);
    expect(runs[0].message).toBe(3);
  });
});
