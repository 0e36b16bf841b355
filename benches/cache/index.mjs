// The memory cache: hits, sets, wraps, awaited one by one.

import { createRequire } from 'node:module';
import { compare } from '../harness.mjs';

const require = createRequire(import.meta.url);
const { CacheManager } = require('../..');
const { CacheManager: NocoBaseManager } = require('@nocobase/cache');
const { LRUCache } = require('lru-cache');
const { BentoCache, bentostore } = await import('bentocache');
const { memoryDriver } = await import('bentocache/drivers/memory');

const MAX = 100_000;
const KEYS = Array.from({ length: 1000 }, (_, i) => `user:${i}`);
const small = { id: 1, name: 'somebody', email: 'somebody@example.com', roles: ['admin', 'member'], active: true };
const large = { rows: Array.from({ length: 46 }, (_, i) => ({ id: i, title: `a title of row ${i}`, body: `some text that goes with row ${i}`, tags: ['a', 'b'] })) };

const make = async (Manager) => new Manager({ prefix: 'main' }).createCache({ name: 'bench', max: MAX });
const ours = await make(CacheManager);
const nocobase = await make(NocoBaseManager);

/** lru-cache behind an asynchronous function, and without a copy: the least that JavaScript can do. */
const lru = new LRUCache({ max: MAX });
const bare = { get: async (key) => lru.get(key), set: async (key, value, ttl) => void lru.set(key, value, { ttl }), del: async (key) => void lru.delete(key) };
const bento = new BentoCache({ default: 'main', stores: { main: bentostore().useL1Layer(memoryDriver({ maxItems: MAX })) } });
const bentoCache = {
  get: (key) => bento.get({ key }),
  set: (key, value, ttl) => bento.set({ key, value, ttl: ttl ?? null }),
  wrap: (key, factory) => bento.getOrSet({ key, factory }),
};

const all = { mortise: ours, nocobase, 'lru-cache, no copy': bare, bentocache: bentoCache };
const fill = async (value, ttl) => {
  for (const cache of Object.values(all)) for (const key of KEYS) await cache.set(key, value, ttl);
};
const peers = (work, names = Object.keys(all)) => Object.fromEntries(names.map((name) => [name, () => work(all[name])]));

console.log(`values of ${JSON.stringify(small).length} and ${JSON.stringify(large).length} bytes as JSON`);

const gets = (count) => async (cache) => {
  for (let i = 0; i < count; i++) await cache.get(KEYS[i % 1000]);
  return count;
};
const freshGets = async (cache) => {
  for (let i = 0; i < 200_000; i++) await cache.get(`user:${i % 1000}`);
  return 200_000;
};
const sets = (count, value, ttl) => async (cache) => {
  for (let i = 0; i < count; i++) await cache.set(KEYS[i % 1000], value, ttl);
  return count;
};

await fill(small);
await compare({ name: 'get hit, 100 B', peers: peers(gets(200_000)), target: ['nocobase', 1.8] });
await compare({ name: 'get hit, 100 B, key concatenated afresh', peers: peers(freshGets), target: ['nocobase', 1.8] });
await fill(small, 60_000);
await compare({ name: 'get hit, 100 B, with a ttl', peers: peers(gets(200_000)) });
await fill(large);
await compare({ name: 'get hit, 5 KB', peers: peers(gets(200_000)), target: ['nocobase', 1.8] });
await fill(small);
await compare({ name: 'set, 100 B', peers: peers(sets(100_000, small)), target: ['nocobase', 2.5] });
await compare({ name: 'set, 5 KB', peers: peers(sets(3000, large)), target: ['nocobase', 3] });
await compare({ name: 'set, 100 B, with a ttl, key present', peers: peers(sets(100_000, small, 60_000)), target: ['nocobase', 4] });

let fresh = 0;
const freshSets = async (cache) => {
  const first = (fresh += 50_000);
  const begun = process.hrtime.bigint();
  for (let i = 0; i < 50_000; i++) await cache.set(`new:${first + i}`, small, 60_000);
  const nanoseconds = Number(process.hrtime.bigint() - begun);
  for (let i = 0; i < 50_000; i++) await cache.del(`new:${first + i}`);
  return { ops: 50_000, nanoseconds };
};
await compare({ name: 'set, 100 B, with a ttl, new key', peers: peers(freshSets, ['mortise', 'nocobase', 'lru-cache, no copy']), target: ['nocobase', 4] });

await fill(small);
const load = async () => small;
const wraps = async (cache) => {
  for (let i = 0; i < 100_000; i++) await cache.wrap(KEYS[i % 1000], load);
  return 100_000;
};
await compare({ name: 'wrap hit', peers: peers(wraps, ['mortise', 'nocobase', 'bentocache']), target: ['nocobase', 4] });
process.exit();
