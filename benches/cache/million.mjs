// A million entries with a ttl: what one takes, and how long the event loop stalls while they are
// filled in and churned. Each measurement is a process of its own.

import { execFileSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const COUNT = 1_000_000;
const ROUNDS = 5;
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

async function measure(which) {
  const { CacheManager } = which === 'mortise' ? require('../..') : require('@nocobase/cache');
  const cache = await new CacheManager({ prefix: 'main' }).createCache({ name: 'bench', max: COUNT });
  const value = { id: 1, name: 'somebody', email: 'somebody@example.com', roles: ['admin', 'member'], active: true };
  const memory = () => {
    for (let i = 0; i < 4; i++) gc();
    const { heapUsed, external, rss } = process.memoryUsage();
    return { managed: heapUsed + external, rss };
  };
  let longest = 0;
  let last = performance.now();
  const turn = () => new Promise((resolve) => setImmediate(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = performance.now();
    resolve();
  }));
  const run = async (from) => {
    last = performance.now();
    const begun = last;
    for (let i = from; i < from + COUNT; i++) {
      await cache.set(`user:${i}`, value, 3_600_000);
      if (i % 200 === 0) await turn();
    }
    return performance.now() - begun;
  };
  const before = memory();
  const fill = await run(0);
  const fillStall = longest;
  const after = memory();
  longest = 0;
  const churn = await run(COUNT);
  // Rust's own share, which Node does not count: links of 8 and a deadline of 16 bytes a slot.
  const native = which === 'mortise' ? 24 * COUNT : 0;
  const bytes = (after.managed - before.managed + native) / COUNT;
  console.log(JSON.stringify({ bytes, rss: (after.rss - before.rss) / COUNT, stall: Math.max(fillStall, longest), fill, churn }));
  process.exit();
}

if (process.argv[2]) {
  await measure(process.argv[2]);
} else {
  const results = { mortise: [], nocobase: [] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const which of Object.keys(results)) {
      const args = ['--expose-gc', '--max-old-space-size=4000', fileURLToPath(import.meta.url), which];
      results[which].push(JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })));
    }
  }
  const of = (which, field) => median(results[which].map((result) => result[field]));
  console.log(`\na million entries of 100 B with a ttl (medians of ${ROUNDS})`);
  for (const [field, unit] of [['bytes', 'bytes an entry, heap and native'], ['rss', 'bytes an entry, resident'], ['stall', 'ms, longest stall'], ['fill', 'ms to fill'], ['churn', 'ms to churn']]) {
    const [a, b] = [of('mortise', field), of('nocobase', field)];
    const ratios = results.mortise.map((result, round) => result[field] / results.nocobase[round][field]);
    console.log(`  ${unit.padEnd(34)} mortise ${a.toFixed(0).padStart(6)}   nocobase ${b.toFixed(0).padStart(6)}   ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`);
  }
  console.log(JSON.stringify({ case: 'a million entries', rounds: ROUNDS, results }));
}
