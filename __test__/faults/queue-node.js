'use strict';
// One process of the fault test of queues: it publishes, or it processes. What happens is written down at once, so that
// a kill loses nothing of it.

const { openSync, writeSync } = require('node:fs');
const { EventQueue } = require('../..');
const brokers = require('../servers/brokers');

const { HISTORY, NAME, ROLE, BROKER, PORT, LEASE } = process.env;
const CHANNELS = ['a', 'b', 'c'];
/** Few, so that a broker that has a queue for each is not killed just after one was declared. */
const PAUSES = [50, 150, 400];
const broker = brokers[BROKER];
const lease = Number(LEASE);

/** A clock that all processes of the machine share, in milliseconds. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const random = (below) => Math.floor(Math.random() * below);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const file = openSync(HISTORY, 'a');
const write = (event, ...values) => writeSync(file, `${JSON.stringify([event, now(), ...values])}\n`);
const wrong = (what, error) => write('wrong', what, String(error?.code), String(error?.stack ?? error));
process.on('unhandledRejection', (error) => wrong('unhandled', error));

const log = (level) => (message) => write('log', level, String(message));
const logger = { debug: log('debug'), info: log('info'), warn: log('warn'), error: log('error') };

let stopped = false;
const orders = new Map();
process.on('message', (order) => orders.get(order)?.());
const ordered = (order) => new Promise((resolve) => orders.set(order, resolve));

/** Most jobs are short; some fail once; some run for longer than a lease, and some of these block the event loop meanwhile. */
async function work([publisher, n], { id, retried }) {
  write('run', publisher, n, retried, id);
  const kind = Math.random();
  if (kind < 0.004) await pause(lease * 1.5);
  else if (kind < 0.006) {
    write('blocks', lease * 1.3);
    for (const end = Date.now() + lease * 1.3; Date.now() < end;);
  }
  else if (kind < 0.6) await pause(random(30));
  if (n % 10 === 7 && retried === 0) {
    write('failed', publisher, n, retried);
    throw new Error('once');
  }
  write('done', publisher, n, retried);
}

let published = 0;
async function publish(queue) {
  const n = ++published;
  const delay = n % 10 === 3 ? PAUSES[random(PAUSES.length)] : 0;
  write('publishing', n, delay);
  const options = { maxRetries: 1, timeout: Infinity, ...(n % 10 === 7 ? { backoff: { type: 'fixed', delay: PAUSES[random(PAUSES.length)] } } : {}) };
  if (delay > 0) options.delay = delay;
  if (n % 10 === 4) options.id = `${NAME} ${n}`;
  try {
    await queue.publish(CHANNELS[n % CHANNELS.length], [NAME, n], options);
    write('published', n);
  } catch (error) {
    write('rejected', n);
    if (!broker.away.includes(error.code)) wrong('publishing', error);
  }
}

async function publisher(queue) {
  const open = new Set();
  while (!stopped) {
    const size = Math.random() < 0.02 ? 100 : 1 + random(8);
    for (let i = 0; i < size; i++) {
      const done = publish(queue).finally(() => open.delete(done));
      open.add(done);
    }
    if (random(2) || open.size > 500) await Promise.all(open);
    await pause(20 + random(60));
  }
  await Promise.all(open);
}

async function main() {
  const queue = new EventQueue({ name: 'main', logger }, { adapter: broker.adapter, url: broker.url(Number(PORT)), ...broker.lease(lease), maxCrashes: 1000, closeTimeout: 20_000 });
  write('process', process.pid);
  for (const channel of CHANNELS) queue.subscribe(channel, { concurrency: 5, idle: () => ROLE === 'worker', process: work });
  const [quiet, finish] = ['quiet', 'finish'].map(ordered);
  while (await queue.connect().then(() => false, (error) => { if (!broker.away.includes(error.code)) wrong('connecting', error); return true; })) await pause(20);
  process.send({ ready: true });
  const publishing = ROLE === 'publisher' ? publisher(queue) : undefined;
  await quiet;
  stopped = true;
  await publishing;
  process.send({ quiet: true });
  await finish;
  await queue.close();
  write('complete');
  process.disconnect();
}

main().catch((error) => { wrong('the program', error); process.exit(1); });
