// From another process's set resolving to this process reading the new value, under 1 000 writes a second.
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { mortise, RedisServer } from '../servers.mjs';

const now = () => Number(process.hrtime.bigint()) / 1e6;
const WRITES = 5000;
const KEYS = 50;
const make = async (url) => new mortise.CacheManager({ prefix: 'i', stores: { tiered: { url } } })
  .createCache({ name: 'c', prefix: 'c', store: 'tiered' });

if (process.argv[2]) {
  const cache = await make(process.argv[2]);
  const started = now();
  for (let i = 0; i < WRITES; i++) {
    while (now() < started + i) await new Promise(setImmediate);
    await cache.set(`k${i % KEYS}`, { i });
    process.send([i % KEYS, i, now()]);
  }
  process.disconnect();
  process.exit();
}

const server = await RedisServer.start();
const cache = await make(server.url);
const rounds = [];
for (let round = 0; round < 5; round++) {
  const seen = new Map();
  const late = [];
  let done = false;
  const writer = fork(fileURLToPath(import.meta.url), [server.url]);
  const writes = [];
  writer.on('message', (write) => writes.push(write));
  writer.on('exit', () => { done = true; });
  // Reads all keys all the time, and notes when it saw each value first.
  while (!done) {
    for (let key = 0; key < KEYS; key++) {
      const value = await cache.get(`k${key}`);
      if (value && !seen.has(`${key} ${value.i}`)) seen.set(`${key} ${value.i}`, now());
    }
    await new Promise(setImmediate);
  }
  for (const [key, i, at] of writes) {
    const first = seen.get(`${key} ${i}`);
    if (first !== undefined) late.push(Math.max(0, first - at));
  }
  late.sort((a, b) => a - b);
  rounds.push({ seen: late.length, p50: late[Math.floor(late.length * 0.5)], p99: late[Math.floor(late.length * 0.99)] });
}
rounds.sort((a, b) => a.p99 - b.p99);
const { p50, p99, seen } = rounds[2];
console.log(`invalidation to new value, 1 000 writes a second (median of 5 rounds, ${seen} of ${WRITES} values seen): p50 ${p50.toFixed(2)} ms, p99 ${p99.toFixed(2)} ms`);
console.log(JSON.stringify({ case: 'invalidation', rounds }));
await server.stop();
process.exit();
