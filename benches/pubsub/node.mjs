// A process that publishes or subscribes, by one of the clients.

import { now, pause, serve } from '../processes.mjs';
import { CLIENTS } from './clients.mjs';

const [label, port] = process.argv.slice(2);
const client = await CLIENTS[label](Number(port));
const PAD = 'x'.repeat(60);

let numbers = [];
let latencies = [];
let awaited;
let before;

function heard({ n, at }) {
  const time = now();
  numbers.push(n);
  if (at) latencies.push(time - at);
  if (n === awaited?.n) awaited.resolve(time);
}

serve({
  async subscribe(channel) {
    await client.subscribe(channel, heard);
  },
  /** When the message of that number comes; to be asked before it is published. */
  until: (n) => new Promise((resolve) => { awaited = { n, resolve }; }),
  /** What came since the last time. */
  take() {
    const taken = { numbers, latencies };
    [numbers, latencies] = [[], []];
    return taken;
  },
  count: () => numbers.length,
  /** Publishes the numbers as fast as it can, `width` on their way at a time; when that began. */
  async publish(channel, from, to, width) {
    const begun = now();
    let n = from;
    await Promise.all(Array.from({ length: width }, async () => {
      while (n < to) await client.publish(channel, { n: n++, pad: PAD });
    }));
    return begun;
  },
  /** Publishes one now and then, with the time. */
  async trickle(channel, count, milliseconds) {
    for (let n = 0; n < count; n++) {
      await client.publish(channel, { n, at: now(), pad: PAD });
      await pause(milliseconds);
    }
  },
  /** Publishes so many a second; the numbers that were refused. */
  async pace(channel, perSecond, seconds) {
    const refused = [];
    const all = [];
    const begun = now();
    for (let n = 0; n < perSecond * seconds; await pause(2)) {
      for (const due = ((now() - begun) / 1e6) * perSecond; n < due; n++) {
        const number = n;
        all.push(client.publish(channel, { n, pad: PAD }).catch(() => refused.push(number)));
      }
    }
    await Promise.all(all);
    return refused;
  },
  mark() {
    before = performance.eventLoopUtilization();
  },
  /** Nanoseconds that the main thread was busy since `mark`. */
  busy: () => performance.eventLoopUtilization(before).active * 1e6,
});
