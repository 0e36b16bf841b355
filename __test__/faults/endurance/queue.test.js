'use strict';
// Event queues on servers over long times: handlers that block, and half a million jobs.

const { EventQueue } = require('../../..');
const brokers = require('../../servers/brokers');
const { child, until } = require('../../support');
const { growth } = require('./growth');

describe.each([['Redis', brokers.redis], ['RabbitMQ', brokers.rabbitmq]])('a queue on %s', (_, broker) => {
  test('handlers that block the event loop for 45 s, with a lease of 10 s: no job runs twice', async () => {
    const server = await broker.start();
    const options = JSON.stringify({ adapter: broker.adapter, url: broker.url(server.port), ...broker.lease(10_000) });
    const program = (subscription) => child(`
      const say = (line) => require('node:fs').writeSync(1, line + '\\n');
      const queue = new mortise.EventQueue({ name: 'main', logger: { debug() {}, info() {}, warn: say, error: say } }, ${options});
      let idle = true;
      queue.subscribe('c', { ${subscription} });
      process.stdin.on('data', () => { idle = true; });
      queue.connect().then(() => say('ready'));
    `, { stdin: 'pipe', deadline: 110_000 });
    const blocked = program(`concurrency: 3, process: async (n) => {
      say('begun ' + n);
      if (n === 0) for (const end = Date.now() + 45_000; Date.now() < end;);
      else await new Promise((resolve) => setTimeout(resolve, 100));
      say('done ' + n);
    }`);
    await until(() => blocked.lines.includes('ready'));
    const other = program(`concurrency: 3, idle: () => idle, process: async (n) => { say('begun ' + n); say('done ' + n); }`);
    await until(() => other.lines.includes('ready'));
    const queue = new EventQueue({ name: 'main' }, JSON.parse(options));
    await queue.connect();
    queue.subscribe('c', { idle: () => false, process: () => undefined });
    for (let n = 0; n < 6; n++) await queue.publish('c', n, { timeout: Infinity });
    const said = (word) => [...blocked.lines, ...other.lines].filter((line) => line.startsWith(`${word} `)).map((line) => Number(line.slice(word.length)));
    await until(() => said('done').length >= 6, 80_000);
    await until(async () => (await queue.counts('c')).running === 0);
    expect(said('begun').sort()).toEqual([0, 1, 2, 3, 4, 5]);
    expect([...blocked.lines, ...other.lines].filter((line) => /lease|maxStall|is away|AMQP/.test(line))).toEqual([]);
    for (const { handle } of [blocked, other]) handle.kill();
    await queue.close();
    await server.stop();
  });

  test('half a million jobs leave nothing behind, here and on the server', async () => {
    const server = await broker.start();
    const setUp = `
      const queue = new mortise.EventQueue({ name: 'main' }, ${JSON.stringify({ adapter: broker.adapter, url: broker.url(server.port) })});
      await queue.connect();
      let [seen, sent, more] = [0, 0, () => {}];
      // What is kept back on a server need not keep Node alive.
      const alive = setInterval(() => {}, 1000);
      queue.subscribe('c', { concurrency: 50, process: async (i, { signal, retried }) => {
        if (i % 1000 === 1) signal.aborted;
        if (i % 1000 === 2 && retried === 0) throw new Error('again');
        if (++seen === sent) more();
      } });
      const work = async (count) => {
        for (let i = 0; i < count; i += 1000) {
          sent += 1000;
          await Promise.all(Array.from({ length: 1000 }, (_, k) => queue.publish('c', k, { maxRetries: 1, backoff: { type: 'fixed', delay: 0 }, ...(k % 10 === 3 ? { id: 'i' + (i + k) } : {}), ...(k % 100 === 4 ? { delay: 5 } : {}) })));
          if (seen < sent) await new Promise((resolve) => { more = resolve; });
        }
      };`;
    const end = 'clearInterval(alive); await queue.close();';
    const { heap, rss } = await growth({ setUp, first: 'await work(250_000);', end }, 200_000);
    // 250 000 jobs: a leak of 16 bytes each would show.
    expect(heap).toBeLessThan(4e6);
    expect(rss).toBeLessThan(48e6);
    await until(async () => (await broker.left(server)).length === 0);
    await server.stop();
  }, 220_000);
});
