// Local locks: uncontended, and a long line on one key.

import { createRequire } from 'node:module';
import { compare } from '../harness.mjs';

const require = createRequire(import.meta.url);
const { LockManager } = require('../..');
const { LockManager: NocoBaseManager } = require('@nocobase/lock-manager');
const { Mutex } = require('async-mutex');

const ours = new LockManager();
const nocobase = new NocoBaseManager();
/** async-mutex alone: one mutex a key, no leases. */
const mutexes = new Map();
const mutexOf = (key) => {
  if (!mutexes.has(key)) mutexes.set(key, new Mutex());
  return mutexes.get(key);
};
const bare = {
  acquire: (key) => mutexOf(key).acquire(),
  runExclusive: (key, fn) => mutexOf(key).runExclusive(fn),
};
const all = { mortise: ours, nocobase, 'async-mutex, no ttl': bare };
const peers = (work) => Object.fromEntries(Object.entries(all).map(([name, locks]) => [name, () => work(locks)]));

const COUNT = 50_000;
await compare({
  name: 'acquire and release, uncontended',
  target: ['nocobase', 1.5],
  peers: peers(async (locks) => {
    for (let i = 0; i < COUNT; i++) await (await locks.acquire(`key ${i % 100}`, 500))();
    return COUNT;
  }),
});
await compare({
  name: 'runExclusive, uncontended, nothing to do',
  peers: peers(async (locks) => {
    for (let i = 0; i < COUNT; i++) await locks.runExclusive(`key ${i % 100}`, async () => undefined, 500);
    return COUNT;
  }),
});
await compare({
  name: '10 000 waiters on one key',
  target: ['nocobase', 2],
  peers: peers(async (locks) => {
    await Promise.all(Array.from({ length: 10_000 }, async () => (await locks.acquire('one key', 60_000))()));
    return 10_000;
  }),
});
process.exit();
