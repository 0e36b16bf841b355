'use strict';
const { execFileSync } = require('node:child_process');
const { readFileSync, readdirSync, writeFileSync } = require('node:fs');
const { join } = require('node:path');
const { EventQueue } = require('..');
const { eventQueueRules } = require('./event-queue-rules');
const { child, gate, recorder, rejection, temporaryFolder, until } = require('./support');

const open = [];
let folder;
let logger;

beforeEach(() => {
  folder = temporaryFolder();
  logger = recorder();
});
afterEach(() => Promise.all(open.splice(0).map((queue) => queue.close())));

/** A queue in the test's folder, connected. */
async function makeQueue(options = {}) {
  const queue = new EventQueue({ name: 'main', logger }, { storagePath: folder, closeTimeout: 200, ...options });
  open.push(queue);
  await queue.connect();
  return queue;
}

eventQueueRules('the journal', ({ name, logger: own, ...options }) =>
  new EventQueue({ name, logger: own }, { storagePath: join(folder, name), journal: true, ...options }),
{ passesObjects: true, sharedStore: false });

describe('the journal', () => {
  test('a second queue on the same journal is a clear error, and the first goes on', async () => {
    const queue = await makeQueue({ journal: true });
    const second = new EventQueue({ name: 'main', logger }, { storagePath: folder, journal: true });
    expect((await rejection(second.connect())).code).toBe('E_JOURNAL_LOCKED');
    const { promise, resolve } = gate();
    queue.subscribe('c', { process: async (n) => resolve(n) });
    await queue.publish('c', 5);
    expect(await promise).toBe(5);
  });

  test('messages that fail faster than they are written are dead letters after a restart too', async () => {
    const queue = await makeQueue({ journal: true });
    const run = jest.fn(() => { throw new Error('no'); });
    queue.subscribe('c', { concurrency: 0, process: run });
    await Promise.all(Array.from({ length: 100 }, (_, n) => queue.publish('c', n).catch(() => undefined)));
    await until(async () => (await queue.deadLetters('c').count()) === 100);
    await queue.close();
    const next = await makeQueue({ journal: true });
    next.subscribe('c', { concurrency: 0, process: run });
    expect(await next.deadLetters('c').count()).toBe(100);
    await next.publish('c', 'last').catch(() => undefined);
    await until(async () => (await next.deadLetters('c').count()) === 101);
    expect(run).toHaveBeenCalledTimes(101);
  });

  test('undefined, null, lone surrogates, emoji and a megabyte come back from disk as they were', async () => {
    const queue = await makeQueue({ journal: true });
    queue.subscribe('c', { idle: () => false, process: async () => undefined });
    const messages = [undefined, null, '\ud800', '😀', 'x'.repeat(1e6), { a: [1, null] }];
    for (const message of messages) await queue.publish('c', message);
    await queue.close();
    const again = await makeQueue({ journal: true });
    const got = [];
    again.subscribe('c', { process: async (message) => { got.push(message); } });
    await until(() => got.length === messages.length);
    expect(got).toEqual(messages);
  });

  test.each([['no database', Buffer.from('garbage '.repeat(1000))], ['a torn one', null]])(
    'a file that is %s is set aside and logged', async (_, bytes) => {
      const path = join(folder, 'event-queue.db');
      if (bytes) {
        writeFileSync(path, bytes);
      } else {
        const queue = await makeQueue({ journal: true });
        queue.subscribe('c', { idle: () => false, process: async () => undefined });
        for (let n = 0; n < 500; n++) await queue.publish('c', 'x'.repeat(100));
        await queue.close();
        const whole = readFileSync(path);
        writeFileSync(path, Buffer.concat([whole.subarray(0, 100), Buffer.alloc(whole.length - 100, 7)]));
      }
      const queue = await makeQueue({ journal: true });
      expect(readdirSync(folder).some((name) => name.includes('unreadable'))).toBe(true);
      const { promise, resolve } = gate();
      queue.subscribe('c', { process: async (n) => resolve(n) });
      await queue.publish('c', 1);
      expect(await promise).toBe(1);
    });

  test('kill -9 with a message kept back and one that waits for its next attempt: both come, and not early', async () => {
    const killed = child(`
      const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)}, journal: true });
      (async () => {
        await queue.connect();
        queue.subscribe('c', { process: async () => { throw new Error('no'); } });
        const start = Date.now();
        await queue.publish('c', 'retried', { id: 'r', maxRetries: 1, backoff: { type: 'fixed', delay: 2000 } });
        await queue.publish('c', 'late', { id: 'l', delay: 2000 });
        // What has become of the first is on disk when a later message is.
        while ((await queue.counts('c')).delayed < 2) await new Promise(setImmediate);
        queue.subscribe('end', { idle: () => false, process: async () => {} });
        await queue.publish('end', 1);
        console.log(start);
        setInterval(() => {}, 1000);
      })();
    `);
    await until(() => killed.lines.length === 1);
    killed.handle.kill('SIGKILL');
    await killed.exit;
    const queue = await makeQueue({ journal: true });
    const got = [];
    queue.subscribe('c', { process: async (message, { id, retried }) => { got.push([message, id, retried, Date.now()]); } });
    await queue.publish('c', 'another', { id: 'l' });
    await until(() => got.length === 2);
    expect(got.map((it) => it.slice(0, 3)).sort()).toEqual([['late', 'l', 0], ['retried', 'r', 1]]);
    const start = Number(killed.lines[0]);
    expect(Math.min(...got.map(([, , , time]) => time)) - start).toBeGreaterThanOrEqual(1999);
  });

  test('kill -9 with 1 000 accepted and 100 done: the other 900 run afterwards', async () => {
    const killed = child(`
      const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)}, journal: true });
      (async () => {
        await queue.connect();
        let done = 0;
        queue.subscribe('c', {
          idle: () => accepted === 1000,
          interval: 1,
          process: async (n) => { if (done === 100) return new Promise(() => {}); done++; },
        });
        let accepted = 0;
        await Promise.all(Array.from({ length: 1000 }, async (_, n) => { await queue.publish('c', n); accepted++; }));
        while (done < 100) await new Promise(setImmediate);
        // What was done is taken out at leisure, a moment later.
        await new Promise((resolve) => setTimeout(resolve, 200));
        console.log('ready');
        setInterval(() => {}, 1000);
      })();
    `);
    await until(() => killed.lines.includes('ready'));
    killed.handle.kill('SIGKILL');
    await killed.exit;
    const queue = await makeQueue({ journal: true });
    const got = [];
    queue.subscribe('c', { concurrency: 10, process: async (n) => { got.push(n); } });
    await until(() => got.length >= 900);
    // At least once: the acknowledgement of a message may be what the kill took.
    const missing = Array.from({ length: 900 }, (_, i) => i + 100).filter((n) => !got.includes(n));
    expect(missing).toEqual([]);
    expect(got.length).toBe(900);
    expect(got).toEqual([...got].sort((a, b) => a - b));
  });

  test('a full disk rejects what it could not take, and nothing hangs; with room again it goes on', async () => {
    // A limit on the size of files, which is per process and can be lifted, stands for the disk.
    const room = join(folder, 'room');
    const full = child(`
      process.on('SIGXFSZ', () => {});
      const { existsSync } = require('node:fs');
      const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      const queue = new mortise.EventQueue({ name: 'main' }, { storagePath: ${JSON.stringify(folder)}, journal: true });
      (async () => {
        await queue.connect();
        let idle = false;
        const processed = new Set();
        queue.subscribe('c', { idle: () => idle, interval: 1, process: async ({ n }) => { processed.add(n); } });
        const publish = (n) => queue.publish('c', { n, text: 'x'.repeat(20000) });
        const results = await Promise.allSettled(Array.from({ length: 200 }, (_, n) => publish(n)));
        const codes = new Set(results.filter(({ reason }) => reason).map(({ reason }) => reason.code));
        console.log(JSON.stringify([...codes]));
        while (!existsSync(${JSON.stringify(room)})) await sleep(5);
        for (let n = 200; n < 250; n++) await publish(n);
        idle = true;
        const accepted = results.flatMap(({ status }, n) => (status === 'fulfilled' ? [n] : []));
        while (![...accepted, 249].every((n) => processed.has(n))) await sleep(5);
        console.log(processed.size === accepted.length + 50);
        await queue.close();
      })();
    `, { shell: 'ulimit -S -f 1000' });
    await until(() => full.lines.length === 1);
    expect(JSON.parse(full.lines[0])).toEqual(['E_JOURNAL']);
    execFileSync('prlimit', ['--pid', String(full.handle.pid), '--fsize=unlimited']);
    writeFileSync(room, '');
    expect(await full.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(full.lines[1]).toBe('true');
  });
});

describe('the journal, when the disk is full and the handler hangs', () => {
  test.each([
    ['is given up by close', `process: () => new Promise(() => {})`, 'E_JOURNAL'],
    ['fails for good', `process: async () => { await sleep(100); throw new Error('no'); }`, 'E_JOURNAL'],
    ['succeeds', `process: async () => { await sleep(100); }`, 'resolved'],
  ])('publish settles by the outcome: a handler that %s', async (_, event, outcome) => {
    const run = child(`
      process.on('SIGXFSZ', () => {});
      const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      const logger = { debug() {}, info() {}, warn() {}, error() {} };
      const queue = new mortise.EventQueue({ name: 'main', logger }, { storagePath: ${JSON.stringify(folder)}, journal: true, closeTimeout: 300 });
      (async () => {
        await queue.connect();
        queue.subscribe('c', { ${event} });
        const publishing = queue.publish('c', 'x'.repeat(3e6)).then(() => 'resolved', (error) => error.code);
        await sleep(50);
        await queue.close();
        console.log(await publishing);
      })();
    `, { shell: 'ulimit -S -f 1000', deadline: 20_000 });
    expect(await run.exit).toEqual({ code: 0, signal: null, errors: '' });
    expect(run.lines).toEqual([outcome]);
  });
});
