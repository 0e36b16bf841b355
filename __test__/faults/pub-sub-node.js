'use strict';
// One process of the fault test of pub/sub: it publishes, it hears, its plugin keeps a state in step with that of
// others by sync messages. What happens is written down at once, so that a kill loses nothing of it.

const { openSync, writeSync } = require('node:fs');
const { createApp, Plugin, PubSubManager } = require('../..');

const { HISTORY, NAME, PORT, KEYS, MAX_LENGTH } = process.env;
const CHANNELS = ['a', 'b', 'c'];
/** What publishing, connecting and subscribing may say while the server is away. */
const EXPECTED = new Set(['E_UNAVAILABLE', 'E_TIMEOUT']);

/** A clock that all processes of the machine share, in milliseconds. */
const now = () => Number(process.hrtime.bigint() / 1000n) / 1000;
const random = (below) => Math.floor(Math.random() * below);
const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const file = openSync(HISTORY, 'a');
const write = (event, ...values) => writeSync(file, `${JSON.stringify([event, now(), ...values])}\n`);
const wrong = (what, error) => write('wrong', what, String(error?.code), String(error?.stack ?? error));
const check = (what, error) => { if (!EXPECTED.has(error?.code)) wrong(what, error); };
process.on('unhandledRejection', (error) => wrong('unhandled', error));

const logger = { debug() {}, info() {}, error: (message, error) => wrong(message, error), warn(message) { if (message.includes('no message')) wrong(message); } };
const redis = { port: Number(PORT), heartbeat: 300, heartbeatTimeout: 700, reconnectGrace: 200, connectTimeout: 1000, commandTimeout: 3000 };
const pubSub = { adapter: 'redis', maxLength: Number(MAX_LENGTH), skipSelf: false };

// What the parent is asked for: the versions that are true, a new one.
let asked = 0;
let stopped = false;
const answers = new Map();
const orders = new Map();
process.on('message', ({ answer, order, value }) => {
  if (order) return orders.get(order)(value);
  answers.get(answer)?.(value);
  answers.delete(answer);
});
const ordered = (order) => new Promise((resolve) => orders.set(order, resolve));
const ask = (what, value) => new Promise((resolve) => {
  answers.set(asked, resolve);
  process.send({ ask: asked++, what, value });
});

/** What was heard last of each publisher, for the end. */
const last = new Map();
let ears = 0;
/** A subscription under a number of its own: what it hears is written down. */
async function listen(manager, whose, channel) {
  const ear = ears++;
  const callback = ([publisher, n]) => {
    write('got', ear, publisher, n);
    if (whose === 'app') last.set(publisher, n);
  };
  await manager.subscribe(channel, callback, { onGap: ({ reason }) => write('gap', ear, reason) });
  write('subscribed', ear, channel, whose);
  const end = () => write('unsubscribed', ear);
  return { end, leave: () => { end(); return manager.unsubscribe(channel, callback); } };
}

let published = 0;
async function publish(manager, channel) {
  const n = ++published;
  write('publishing', n, channel);
  try {
    await manager.publish(channel, [NAME, n]);
    write('published', n);
    return n;
  } catch (error) {
    write('rejected', n);
    check('publishing', error);
    return undefined;
  }
}

/** Bursts of all sizes, waited for or not. */
async function publisher(manager) {
  const open = new Set();
  while (!stopped) {
    const size = Math.random() < 0.01 ? 400 : 1 + random(6);
    for (let i = 0; i < size; i++) {
      const done = publish(manager, CHANNELS[random(CHANNELS.length)]).finally(() => open.delete(done));
      open.add(done);
    }
    if (random(2) || open.size > 1000) await Promise.all(open);
    await pause(20 + random(60));
  }
  await Promise.all(open);
}

/** A second manager, that comes and goes. */
async function rover() {
  const manager = new PubSubManager({ name: 'main', logger }, { ...pubSub, url: redis });
  while (!stopped) {
    const heard = [];
    try {
      await manager.connect();
      while (!stopped && random(4)) {
        if (heard.length < CHANNELS.length) heard.push(await listen(manager, 'rover', CHANNELS[heard.length]));
        await pause(random(3000));
        if (heard.length > 0 && random(2)) await heard.pop().leave();
      }
    } catch (error) {
      check('roving', error);
    }
    heard.forEach((ear) => ear.end());
    // What was subscribed is forgotten, and not heard again after connecting.
    await manager.close();
    for (const { leave } of heard) await leave();
  }
}

/** Keeps versions of keys, as one would that caches a schema. */
class Versions extends Plugin {
  state = {};

  apply(key, version) { this.state[key] = Math.max(version, this.state[key] ?? 0); }

  handleSyncMessage({ key, version }) { this.apply(key, version); }

  async handleSyncGap() { await this.readAll(); }

  async readAll() {
    for (const [key, version] of Object.entries(await ask('truth'))) this.apply(key, version);
  }

  /** What is true already is told to the others until it is sure that it was: as from an outbox. */
  async tell(key, version) {
    for (;;) {
      try {
        await this.app.syncMessageManager.publish(this.name, { key, version });
        return process.send({ told: version });
      } catch (error) {
        check('a sync message', error);
        await pause(20);
      }
    }
  }

  async change() {
    const key = `k${random(Number(KEYS))}`;
    const version = await ask('change', key);
    this.apply(key, version);
    await this.tell(key, version);
  }
}

async function changer(plugin) {
  // What the process before this one could not tell any more.
  for (const [version, key] of await ask('untold')) await plugin.tell(key, version);
  while (!stopped) {
    await plugin.change();
    await pause(random(200));
  }
}

async function main() {
  const app = createApp({ name: 'main', logger, redis, pubSubManager: pubSub, syncMessageManager: { debounce: 30, leading: random(2) === 0 } });
  const plugin = app.plugin(Versions, { name: 'versions' });
  const [quiet, expected, finish] = ['quiet', 'expect', 'finish'].map(ordered);
  orders.set('tell', (reply) => process.send({ reply, state: plugin.state, last: [...last] }));
  // An app whose server is away at its start says so, and may be started again.
  while (await app.start().then(() => false, (error) => { check('starting', error); return true; })) await pause(20);
  for (const channel of CHANNELS) {
    while (await listen(app.pubSubManager, 'app', channel).then(() => false, (error) => { check('subscribing', error); return true; })) await pause(20);
  }
  await plugin.readAll();
  process.send({ ready: true });
  const work = Promise.all([publisher(app.pubSubManager), rover(), changer(plugin)]);
  await quiet;
  stopped = true;
  await work;
  let mark;
  while (mark === undefined) mark = await publish(app.pubSubManager, CHANNELS[0]);
  process.send({ mark: [NAME, mark] });
  // All that came before the others' marks has been heard when they have.
  const marks = await expected;
  while (!marks.every(([publisher, n]) => last.get(publisher) >= n)) await pause(5);
  write('complete');
  process.send({ complete: true });
  await finish;
  await app.stop();
  process.disconnect();
}

main().catch((error) => { wrong('the program', error); process.exit(1); });
