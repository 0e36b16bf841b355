// How a `wrap` loads what is not there: by one loader a process or one a cluster, within a time, and
// with what had been there before to fall back on.

import { randomUUID } from 'node:crypto';
import { invalid, MortiseError } from '../errors';
import { isAway } from '../away';
import { describe, MemoryStore } from './memory-store';
import { RedisStore } from './redis-store';
import type { Milliseconds, Store } from './store';

/** Options of how `wrap` loads. Times are milliseconds. */
export interface LoadOptions {
  /**
   * `'process'` (default): one loader a process, however many wait. `'cluster'`: one among all nodes,
   * by a lease on Redis; when Redis is away, or the lease is lost, each process loads by itself. On
   * stores other than Redis as `'process'`.
   */
  singleFlight?: 'process' | 'cluster';
  /** For so long after an entry has lapsed it is still given, while a loader renews it. Default 0. */
  staleWhileRevalidate?: Milliseconds;
  /** For so long after an entry has lapsed it is given when its loader fails. Default 0. */
  grace?: Milliseconds;
  /** A loader that takes longer goes on in the background, when a lapsed entry can be given meanwhile. Default: none. */
  softTimeout?: Milliseconds;
  /** A loader that takes longer goes on, but whoever waits is told `E_LOADER_TIMEOUT`. Default: none. */
  hardTimeout?: Milliseconds;
}

/** {@link LoadOptions}, checked. */
export interface LoadPolicy {
  cluster: boolean;
  revalidate: Milliseconds;
  grace: Milliseconds;
  /** How long a lapsed entry is kept: the larger of the two. */
  keeps: Milliseconds;
  soft: Milliseconds;
  hard: Milliseconds;
}

/** The policy of options, with those of the cache beneath them. Throws a `TypeError` that names the option. */
export function loadPolicy(options: LoadOptions = {}, base?: LoadPolicy): LoadPolicy {
  const time = (name: keyof LoadOptions, fallback: number): number => {
    const value = options[name];
    if (value === undefined) return fallback;
    if (typeof value !== 'number' || !(value >= 0)) throw invalid(`the option ${name} of a cache is a number of milliseconds: ${describe(value)}`);
    return value;
  };
  const { singleFlight } = options;
  if (singleFlight !== undefined && singleFlight !== 'process' && singleFlight !== 'cluster') {
    throw invalid(`the option singleFlight of a cache is 'process' or 'cluster': ${describe(singleFlight)}`);
  }
  const revalidate = time('staleWhileRevalidate', base?.revalidate ?? 0);
  const grace = time('grace', base?.grace ?? 0);
  return {
    cluster: singleFlight === undefined ? (base?.cluster ?? false) : singleFlight === 'cluster',
    revalidate,
    grace,
    keeps: Math.max(revalidate, grace),
    soft: time('softTimeout', base?.soft ?? Infinity),
    hard: time('hardTimeout', base?.hard ?? Infinity),
  };
}

/** A lapsed entry. */
export interface Stale {
  value: unknown;
  /** How long ago it lapsed. */
  age: Milliseconds;
}

/** Copies of entries that outlive them, under keys of their own. */
export class StaleCopies {
  private readonly own: MemoryStore | undefined;

  constructor(
    private readonly engine: () => Store,
    private readonly keeps: Milliseconds,
    max: number | undefined,
  ) {
    if (engine() instanceof MemoryStore) this.own = new MemoryStore({ max, shouldCloneBeforeSet: false });
  }

  async find(key: string): Promise<Stale | undefined> {
    const store = this.own ?? this.engine();
    const [value, left] = await Promise.all([store.get(staleKey(key)), store.ttl(staleKey(key))]);
    if (value === undefined || !(left > 0)) return undefined;
    return { value, age: this.keeps - left };
  }

  /** Keeps a value that lapses after `ttl`; one that does not lapse needs no copy. */
  async put(key: string, value: unknown, ttl: Milliseconds | undefined): Promise<void> {
    if (ttl === undefined || !(ttl > 0) || ttl === Infinity) return this.drop([key]);
    await (this.own ?? this.engine()).set(staleKey(key), value, ttl + this.keeps);
  }

  async drop(keys: readonly string[]): Promise<void> {
    await (this.own ?? this.engine()).mdel(...keys.map(staleKey));
  }

  /** Drops those of the keys that begin with `prefix`. */
  async clear(prefix: string): Promise<void> {
    if (this.own) return this.own.clear();
    const engine = this.engine();
    if (engine instanceof RedisStore) return engine.resetPrefix(STALE + prefix);
    const all = await engine.keys(`${STALE}*`);
    await engine.mdel(...all.filter((key) => key.startsWith(STALE + prefix)));
  }
}

const STALE = 'mortise:stale:';

const staleKey = (key: string): string => STALE + key;

const LEASE: Milliseconds = 10_000;
const FIRST_LOOK: Milliseconds = 4;
const LONGEST_LOOK: Milliseconds = 64;

/**
 * Loads by one node of the cluster: the one that gets the lease. The others look for what it stores;
 * when the lease is gone without that, the next one loads.
 */
export async function loadInCluster<T>(
  engine: RedisStore,
  key: string,
  lease: string,
  load: () => Promise<T>,
  keep: (value: T, owner: string | undefined) => Promise<void>,
): Promise<T> {
  const owner = randomUUID();
  let pause = FIRST_LOOK;
  for (;;) {
    let mine: boolean;
    try {
      mine = await engine.lease(lease, owner, LEASE);
      // Somebody may have stored it just before the lease came free.
      const present = await engine.read(key);
      if (present !== undefined) {
        if (mine) await engine.release(lease, owner);
        return present as T;
      }
    } catch (error) {
      if (!isAway(error)) throw error;
      const value = await load();
      await keep(value, undefined);
      return value;
    }
    if (mine) return loadUnder(engine, lease, owner, load, keep);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_LOOK);
  }
}

async function loadUnder<T>(
  engine: RedisStore,
  lease: string,
  owner: string,
  load: () => Promise<T>,
  keep: (value: T, owner: string | undefined) => Promise<void>,
): Promise<T> {
  const renewal = setInterval(() => void engine.renew(lease, owner, LEASE).catch(() => undefined), LEASE / 3).unref();
  try {
    const value = await load();
    await keep(value, owner);
    return value;
  } finally {
    clearInterval(renewal);
    await engine.release(lease, owner).catch(() => undefined);
  }
}

/** Rejects with `E_LOADER_TIMEOUT` when `loading` takes longer than `limit`. */
export async function within<T>(loading: Promise<T>, limit: Milliseconds, key: string): Promise<T> {
  if (limit === Infinity) return loading;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const text = `the loader of ${key} did not end within ${limit} ms`;
    timer = setTimeout(() => reject(new MortiseError('E_LOADER_TIMEOUT', text)), Math.min(limit, 2 ** 31 - 1));
  });
  try {
    return await Promise.race([loading, late]);
  } finally {
    clearTimeout(timer);
  }
}
