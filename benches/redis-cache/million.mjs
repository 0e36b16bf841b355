// A million tiered entries: what they cost on JavaScript's heap, beside BentoCache's L1.
import { BentoCache, bentostore } from 'bentocache';
import { memoryDriver } from 'bentocache/drivers/memory';
import { mortise, RedisServer } from '../servers.mjs';

const COUNT = 1_000_000;
const value = (i) => ({ id: i, name: `user ${i}`, roles: ['member'], active: true, note: 'x'.repeat(30) });
const heap = () => {
  for (let i = 0; i < 4; i++) globalThis.gc();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
};

const server = await RedisServer.start();
const manager = new mortise.CacheManager({ prefix: 'm', stores: { tiered: { url: server.url, maxBytes: 2 ** 30 } } });
const cache = await manager.createCache({ name: 'c', prefix: 'c', store: 'tiered' });
await cache.set('warm', 1);
await cache.get('warm');
const before = heap();
const STEP = 5000;
for (let i = 0; i < COUNT; i += STEP) {
  const keys = Array.from({ length: STEP }, (_, j) => `k${i + j}`);
  await cache.mset(keys.map((key, j) => [key, value(i + j)]));
  await cache.mget(...keys);
  // Again: what is used is kept parsed, within bounds.
  await cache.mget(...keys);
}
const ours = (heap() - before) / COUNT;
const size = cache.store.store.client.size();
await manager.close();
await server.stop();

const bento = new BentoCache({ default: 'm', stores: { m: bentostore().useL1Layer(memoryDriver({ maxSize: '2gb', maxItems: 2 * COUNT })) } });
const start = heap();
for (let i = 0; i < COUNT; i++) await bento.set({ key: `k${i}`, value: value(i), ttl: '1h' });
const theirs = (heap() - start) / COUNT;
console.log(`heap bytes an entry: mortise ${ours.toFixed(1)} (near cache: ${size.entries} entries, ${(size.bytes / size.entries).toFixed(0)} bytes each), BentoCache L1 ${theirs.toFixed(1)}`);
console.log(JSON.stringify({ case: 'a million tiered entries', heapBytes: { mortise: ours, bentocache: theirs }, near: size }));
process.exit();
