// The queue on Redis: ours and BullMQ on one server, alternating.

import { compare, median, quantile, report } from '../harness.mjs';
import { now, pause } from '../processes.mjs';
import { mortise, RedisServer } from '../servers.mjs';
import { CLIENTS } from './clients.mjs';

const ROUNDS = 5;
const IN_FLIGHT = 100;
const MESSAGE = { id: 1, name: 'x'.repeat(82) };
const server = await RedisServer.start();
const wanted = new Set(process.argv.slice(2));
const section = (name) => wanted.size === 0 || wanted.has(name);
let names = 0;

/** Opens a queue of a new name, with nobody's leftovers on the server. */
async function open(label, concurrency = 1) {
  await server.call('FLUSHALL');
  const queue = await CLIENTS[label](server.port, `bench-${names++}`);
  queue.prepare(concurrency);
  return queue;
}

async function fill(queue, count) {
  let left = count;
  await Promise.all(Array.from({ length: IN_FLIGHT }, async () => {
    while (left-- > 0) await queue.publish(MESSAGE);
  }));
}

/** Handles `count` messages; resolves when all are. */
async function drain(queue, concurrency, count) {
  let done = 0;
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });
  await queue.consume(concurrency, () => { if (++done === count) finish(); });
  await finished;
}

/** Commands that the server has run, those of scripts among them. */
async function commands() {
  const lines = (await server.call('INFO', 'commandstats')).split('\r\n');
  const calls = lines.map((line) => /^cmdstat_(?!info|flushall|config|client|script|ping)[^:]+:calls=(\d+)/.exec(line)?.[1] ?? 0);
  return calls.reduce((sum, count) => sum + Number(count), 0);
}

/** Runs `work` with a queue and gives what it returns. */
const withQueue = (label, concurrency, work) => async () => {
  const queue = await open(label, concurrency);
  try {
    return await work(queue);
  } finally {
    await queue.close();
  }
};

const labels = Object.keys(CLIENTS);
const peers = (make) => Object.fromEntries(labels.map((label) => [label, make(label)]));

if (section('publish')) {
  const count = 20_000;
  await compare({
    name: `publish, ${IN_FLIGHT} in flight`,
    rounds: ROUNDS,
    target: ['bullmq', 5],
    peers: peers((label) => withQueue(label, 1, async (queue) => {
      await fill(queue, 500);
      const begun = process.hrtime.bigint();
      await fill(queue, count);
      return { ops: count, nanoseconds: Number(process.hrtime.bigint() - begun) };
    })),
  });
}

for (const [concurrency, target] of [[1, 2], [10, 4], [100, 5]]) {
  if (!section('jobs')) continue;
  const count = { 1: 5_000, 10: 20_000, 100: 40_000 }[concurrency];
  const counted = Object.fromEntries(labels.map((label) => [label, []]));
  await compare({
    name: `jobs that do nothing, one process, concurrency ${concurrency}, backlog ${count}`,
    rounds: ROUNDS,
    target: ['bullmq', target],
    peers: peers((label) => withQueue(label, concurrency, async (queue) => {
      const before = await commands();
      await fill(queue, count);
      const begun = process.hrtime.bigint();
      await drain(queue, concurrency, count);
      const nanoseconds = Number(process.hrtime.bigint() - begun);
      counted[label].push((await commands() - before) / count);
      return { ops: count, nanoseconds };
    })),
  });
  report({ name: `Redis commands a job of the same, publishing among them`, unit: 'commands', values: counted, atMost: 6 });
}

if (section('latency')) {
  const [p50, p99] = [{}, {}];
  for (let round = 0; round <= ROUNDS; round++) {
    for (const label of labels) {
      const times = await withQueue(label, 10, async (queue) => {
        const found = [];
        await queue.consume(10, ({ at }) => { found.push(now() - at); });
        for (let i = 0; i < 400; i++) {
          await queue.publish({ at: now() });
          await pause(3);
        }
        while (found.length < 400) await pause(1);
        return found.slice(20);
      })();
      if (round === 0) continue;
      (p50[label] ??= []).push(median(times));
      (p99[label] ??= []).push(quantile(times, 0.99));
    }
  }
  report({ name: 'publish to process, one message every 3 ms, p50', unit: 'us', values: p50, target: ['bullmq', 1] });
  report({ name: 'publish to process, one message every 3 ms, p99', unit: 'us', values: p99, target: ['bullmq', 1] });
}

if (section('memory')) {
  const values = Object.fromEntries(labels.map((label) => [label, []]));
  const used = async () => Number(/used_memory:(\d+)/.exec(await server.call('INFO', 'memory'))[1]);
  for (let round = 0; round < ROUNDS; round++) {
    for (const label of labels) {
      values[label].push(await withQueue(label, 1, async (queue) => {
        await fill(queue, 100);
        const before = await used();
        await fill(queue, 20_000);
        return (await used() - before) / 20_000;
      })());
    }
  }
  report({ name: `Redis memory for a waiting job of ${JSON.stringify(MESSAGE).length} bytes`, unit: 'bytes', values, atMost: 250 });
}

if (section('idle')) {
  const seconds = 10;
  const nodes = [];
  for (let i = 0; i < 8; i++) {
    const queue = new mortise.EventQueue({ name: 'idle', logger: console }, { adapter: 'redis', url: `redis://127.0.0.1:${server.port}`, lease: 5000 + i });
    await queue.connect();
    for (let channel = 0; channel < 10; channel++) queue.subscribe(`c${channel}`, { process: async () => undefined });
    nodes.push(queue);
  }
  await pause(6000);
  const [rates, load] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    const [before, cpu] = [await commands(), process.cpuUsage()];
    await pause(seconds * 1000);
    const { user, system } = process.cpuUsage(cpu);
    rates.push((await commands() - before) / seconds);
    load.push((user + system) / seconds / 10_000);
  }
  report({ name: 'eight idle nodes with ten channels each, in one process', unit: 'commands/s', values: { mortise: rates }, ratios: false, atMost: 50 });
  report({ name: 'the same: processor time of that process', unit: '%', values: { mortise: load }, ratios: false, atMost: 1 });
  for (const queue of nodes) await queue.close();
}

await server.stop();
process.exit();
