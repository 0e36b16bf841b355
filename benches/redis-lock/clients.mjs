// One way to take and give a lock for each of us and our peers: `acquire(key)` gives the function that releases.

import { createRequire } from 'node:module';
import { Redis } from 'ioredis';
import { mortise } from '../servers.mjs';

const require = createRequire(import.meta.url);
const Redlock4 = require('redlock-4');
const { default: Redlock5 } = require('redlock-5');

const TTL = 10_000;
const quiet = { debug() {}, info() {}, warn() {}, error() {} };
/** They wait for as long as it takes, as ours do. */
const PATIENT = { retryCount: -1 };
const POLLING = { ...PATIENT, retryDelay: 10, retryJitter: 2 };

function ours(port) {
  const locks = new mortise.LockManager({ defaultAdapter: 'redis', url: `redis://127.0.0.1:${port}`, gracePeriod: 100, logger: quiet });
  return (key) => locks.acquire(key, TTL);
}

function redlock4(port, settings = PATIENT) {
  const locks = new Redlock4([new Redis({ port, host: '127.0.0.1' })], settings);
  return async (key) => {
    const lock = await locks.lock(key, TTL);
    return () => lock.unlock();
  };
}

function redlock5(port, settings = PATIENT, options = {}) {
  const locks = new Redlock5([new Redis({ port, host: '127.0.0.1', ...options })], settings);
  // It tells of each attempt that found the key held.
  locks.on('error', () => undefined);
  return async (key) => {
    const lock = await locks.acquire([key], TTL);
    return () => lock.release();
  };
}

export const CLIENTS = {
  mortise: ours,
  'redlock 4': redlock4,
  'redlock 5': redlock5,
  'redlock 5, every 10 ms': (port) => redlock5(port, POLLING),
  'redlock 5, auto-pipelining': (port) => redlock5(port, PATIENT, { enableAutoPipelining: true }),
};
