// Locks on Redis: ours and redlock on one server, alternating.

import { compare, median, quantile, report } from '../harness.mjs';
import { RedisServer } from '../servers.mjs';
import { CLIENTS } from './clients.mjs';
import { grants, handOffs } from './hand-off.mjs';

const ROUNDS = 5;
const LABELS = ['mortise', 'redlock 4', 'redlock 5', 'redlock 5, every 10 ms'];
/** Redlock polls every 200 ms by default, give or take 100: it takes its time. */
const isSlow = (label) => label === 'redlock 4' || label === 'redlock 5';

const server = await RedisServer.start();
const wanted = new Set(process.argv.slice(2));
const section = (name) => wanted.size === 0 || wanted.has(name);

if (section('uncontended')) {
  for (const [width, target] of [[1, 1.2], [50, 2]]) {
    const ops = width === 1 ? 4000 : 20_000;
    const peers = {};
    for (const label of ['mortise', 'redlock 4', 'redlock 5', 'redlock 5, auto-pipelining']) {
      const acquire = CLIENTS[label](server.port);
      peers[label] = async () => {
        let next = 0;
        await Promise.all(Array.from({ length: width }, async (_, i) => {
          while (next++ < ops) await (await acquire(`${label} ${i}`))();
        }));
        return ops;
      };
    }
    await compare({ name: `acquire and release, uncontended, ${width} in flight`, peers, rounds: ROUNDS, target: ['redlock 5', target] });
  }
}
if (section('hand-off')) {
  for (const processes of [2, 10]) {
    const [p50, p99, commands] = [{}, {}, {}];
    for (let round = 0; round < ROUNDS; round++) {
      for (const label of LABELS) {
        const found = isSlow(label) ? await handOffs(label, server, processes, 30, 200) : await handOffs(label, server, processes, 200, 10);
        (p50[label] ??= []).push(median(found.times));
        (p99[label] ??= []).push(quantile(found.times, 0.99));
        (commands[label] ??= []).push(found.commands);
      }
    }
    report({ name: `hand-off between ${processes} processes, p50`, unit: 'us', values: p50, atMost: 1000 });
    report({ name: `hand-off between ${processes} processes, p99`, unit: 'us', values: p99, atMost: 5000 });
    report({ name: `Redis commands for a contended acquisition and its release, ${processes} processes`, unit: 'commands', values: commands, atMost: 8 });
  }
}
if (section('order')) {
  const [differences, totals] = [{}, {}];
  for (let round = 0; round < ROUNDS; round++) {
    for (const label of LABELS) {
      const counts = await grants(label, server, 10, 2000);
      (differences[label] ??= []).push(Math.max(...counts) - Math.min(...counts));
      (totals[label] ??= []).push(counts.reduce((a, b) => a + b));
    }
  }
  report({ name: 'grants to each of 10 processes in 1.9 s, held for 1 ms each: most less fewest', unit: 'grants', values: differences, ratios: false, atMost: 1 });
  report({ name: 'the same: grants to all', unit: 'grants', values: totals, ratios: false });
}
await server.stop();
process.exit();
