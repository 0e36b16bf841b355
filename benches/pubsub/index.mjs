// Pub/sub on Redis between processes: ours (the log, and volatile) and its peers on one server, alternating.

import { quantile, report } from '../harness.mjs';
import { Child, pause } from '../processes.mjs';
import { RedisServer } from '../servers.mjs';
import { cutFor } from './cut.mjs';

const ROUNDS = 5;
const LABELS = ['mortise', 'mortise, volatile', 'ioredis', 'node-redis 4'];
const WIDTH = 1000;
const program = new URL('node.mjs', import.meta.url);
const server = await RedisServer.start();

/** Processes of a label for the time of `work`, the first of which publishes. */
async function withNodes(label, count, work) {
  const nodes = await Promise.all(Array.from({ length: count }, () => Child.start(program, label, server.port)));
  try {
    return await work(...nodes);
  } finally {
    await Promise.all(nodes.map((node) => node.end()));
  }
}

/** `measure` for each label in turn; its numbers by name, then by label, one a round. */
async function alternate(measure, labels = LABELS) {
  const found = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const label of labels) {
      for (const [name, value] of Object.entries(await measure(label))) {
        ((found[name] ??= {})[label] ??= []).push(value);
      }
    }
  }
  return found;
}

/** Once more with the volatile delivery as ours, which is as unreliable as its peers. */
function reportBoth({ target, values, ...options }) {
  report({ ...options, values, target });
  const { mortise: _, ...others } = values;
  report({ ...options, name: `${options.name}; volatile`, ours: 'mortise, volatile', values: others });
}

const latency = (label) => withNodes(label, 2, async (publisher, subscriber) => {
  await subscriber.ask('subscribe', 'c');
  for (const count of [200, 1000]) {
    await subscriber.ask('take');
    const last = subscriber.ask('until', count - 1);
    await publisher.ask('trickle', 'c', count, 2);
    await last;
  }
  const { latencies } = await subscriber.ask('take');
  return { p50: quantile(latencies, 0.5), p99: quantile(latencies, 0.99) };
});

const throughput = (subscribers, total) => (label) => withNodes(label, subscribers + 1, async (publisher, ...others) => {
  await Promise.all(others.map((node) => node.ask('subscribe', 'c')));
  let begun;
  let last;
  for (const [from, to] of [[0, total / 10], [total / 10, total]]) {
    await Promise.all(others.map((node) => node.ask('take')));
    const ends = others.map((node) => node.ask('until', to - 1));
    begun = await publisher.ask('publish', 'c', from, to, WIDTH);
    last = Math.max(...await Promise.all(ends));
  }
  const counts = await Promise.all(others.map((node) => node.ask('count')));
  if (counts.some((count) => count !== total * 0.9)) throw new Error(`${label}: ${counts} of ${total * 0.9} came`);
  return { perMessage: ((last - begun) * 1000) / (total * 0.9) };
});

const COUNT = 50_000;
/** A subscriber's main thread, a message of a channel that it does not hear; of as long a time without any. */
const otherChannel = (label) => withNodes(label, 2, async (publisher, subscriber) => {
  await subscriber.ask('subscribe', 'c');
  const busyWhile = async (work) => {
    await subscriber.ask('mark');
    await work();
    const end = subscriber.ask('until', -1);
    await publisher.ask('publish', 'c', -1, 0, 1);
    await end;
    return await subscriber.ask('busy') / COUNT;
  };
  const publish = () => publisher.ask('publish', 'other', 0, COUNT, 100);
  await busyWhile(publish);
  const begun = performance.now();
  const busy = await busyWhile(publish);
  const idle = await busyWhile(() => pause(performance.now() - begun));
  return { busy: busy - idle };
});

/** The same for messages of its own: what publishing takes with a subscription, less what it takes without. */
const ownMessages = (label) => withNodes(label, 1, async (node) => {
  const busy = async () => {
    await node.ask('mark');
    await node.ask('publish', 'c', 0, COUNT, 100);
    // What is still on its way back.
    await pause(300);
    return await node.ask('busy') / COUNT;
  };
  for (let warm = 0; warm < 3; warm++) await busy();
  const without = await busy();
  await node.ask('subscribe', 'c');
  await busy();
  return { busy: await busy() - without };
});

const wanted = new Set(process.argv.slice(2));
const section = (name) => wanted.size === 0 || wanted.has(name);

if (section('latency')) {
  const { p50, p99 } = await alternate(latency);
  reportBoth({ name: 'publish to receive, 500 messages a second at most, p50', unit: 'us', values: p50, target: ['ioredis', 0.83] });
  reportBoth({ name: 'publish to receive, the same, p99', unit: 'us', values: p99, target: ['ioredis', 0.83] });
}
if (section('throughput')) {
  for (const [subscribers, total] of [[1, 200_000], [8, 100_000]]) {
    const { perMessage } = await alternate(throughput(subscribers, total));
    reportBoth({ name: `a message from 1 publisher to ${subscribers} subscriber processes`, values: perMessage, target: ['ioredis', 2] });
  }
}
if (section('main-thread')) {
  const other = await alternate(otherChannel);
  report({ name: 'main thread of a subscriber, a message of another channel, beyond idling', values: other.busy, ratios: false });
  const own = await alternate(ownMessages);
  report({ name: 'main thread, a message of its own that comes back, beyond publishing', values: own.busy, ratios: false });
}
if (section('cut')) {
  for (const [who, labels] of [['the subscriber', LABELS], ['both', ['mortise', 'ioredis']]]) {
    for (const label of labels) {
      const rounds = [];
      for (let round = 0; round < ROUNDS; round++) rounds.push(await cutFor(label, server, who === 'both'));
      const sum = (name) => rounds.map((found) => found[name]).join(', ');
      console.log(`\n${label}: connection of ${who} cut for 1 s under 1 000 messages a second, 3 000 in all, ${ROUNDS} rounds`);
      console.log(`  lost ${sum('lost')}; twice ${sum('twice')}; out of order ${sum('disordered')}; refused when published ${sum('refused')}`);
      console.log(JSON.stringify({ case: `cut: ${who}`, label, rounds }));
    }
  }
}
await server.stop();
process.exit();
