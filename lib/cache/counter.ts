import { invalid, MortiseError } from '../errors';
import type { Cache } from './cache';
import { describe, MemoryStore } from './memory-store';
import { RedisStore } from './redis-store';
import type { Milliseconds } from './store';

/** A set of numbers by key, each counted up and down atomically. */
export interface Counter {
  /** The number, 0 when absent. */
  get(key: string): Promise<number>;
  /** Adds 1 and gives the sum. `ttl` starts with the first increment; later ones do not renew it. */
  incr(key: string, ttl?: Milliseconds): Promise<number>;
  /** Adds an integer, which may be negative, and gives the sum; `ttl` as for {@link incr}. */
  incrby(key: string, value: number, ttl?: Milliseconds): Promise<number>;
  /** Forgets the number. */
  reset(key: string): Promise<void>;
}

/** What a {@link LockCounter} needs of a lock manager. */
export interface CounterLocks {
  runExclusive<T>(key: string, fn: () => Promise<T>, ttl?: Milliseconds): Promise<T>;
}

const LOCK_TTL = 3000;
const LARGEST_MAX = 2 ** 31 - 1;

/** Counters in this process's memory. They are not evicted. */
export class MemoryCounter implements Counter {
  private readonly numbers = new MemoryStore({ max: LARGEST_MAX, shouldCloneBeforeSet: false });

  async get(key: string): Promise<number> {
    return (this.numbers.readBare(key) as number | undefined) ?? 0;
  }

  async incr(key: string, ttl?: Milliseconds): Promise<number> {
    return this.add(key, 1, ttl);
  }

  async incrby(key: string, value: number, ttl?: Milliseconds): Promise<number> {
    return this.add(key, value, ttl);
  }

  async reset(key: string): Promise<void> {
    this.numbers.removeBare(key);
  }

  private add(key: string, value: number, ttl: Milliseconds | undefined): number {
    const present = this.numbers.readBare(key) as number | undefined;
    const sum = addUp(key, present ?? 0, value);
    if (present === undefined || !this.numbers.replaceBare(key, sum)) this.numbers.writeBare(key, sum, ttl);
    return sum;
  }
}

/** Counters on Redis, one script each: atomic among all nodes. */
export class RedisCounter implements Counter {
  private readonly store: RedisStore;

  /** In a cache on Redis; of another it throws a `TypeError`. */
  constructor(private readonly cache: Cache) {
    const { store } = cache.store;
    if (!(store instanceof RedisStore)) throw invalid(`cache ${cache.name} is not on Redis, which counters of this kind need`);
    this.store = store;
  }

  async get(key: string): Promise<number> {
    const text = await this.store.client.send<string | null>(['GET', this.cache.key(key)]);
    return text === null ? 0 : Number(text);
  }

  async incr(key: string, ttl?: Milliseconds): Promise<number> {
    return this.incrby(key, 1, ttl);
  }

  async incrby(key: string, value: number, ttl?: Milliseconds): Promise<number> {
    if (!Number.isSafeInteger(value)) throw invalid(`counter ${key} is counted in integers: ${describe(value)}`);
    return this.store.count(this.cache.key(key), value, ttl);
  }

  async reset(key: string): Promise<void> {
    await this.store.del(this.cache.key(key));
  }
}

/** Counters on any store, each increment under a lock. */
export class LockCounter implements Counter {
  constructor(
    private readonly cache: Cache,
    private readonly locks: CounterLocks,
  ) {}

  async get(key: string): Promise<number> {
    return (await this.cache.get<number>(key)) ?? 0;
  }

  async incr(key: string, ttl?: Milliseconds): Promise<number> {
    return this.incrby(key, 1, ttl);
  }

  async incrby(key: string, value: number, ttl?: Milliseconds): Promise<number> {
    const add = async (): Promise<number> => {
      const present = await this.cache.get<number>(key);
      const sum = addUp(key, present ?? 0, value);
      await this.cache.set(key, sum, present === undefined ? ttl : await this.ttlLeft(key));
      return sum;
    };
    return this.locks.runExclusive(`counter:${this.cache.key(key)}`, add, LOCK_TTL);
  }

  async reset(key: string): Promise<void> {
    await this.cache.del(key);
  }

  private async ttlLeft(key: string): Promise<Milliseconds> {
    const left = await this.cache.ttl(key);
    return left > 0 && left < Infinity ? left : 0;
  }
}

function addUp(key: string, present: number, value: number): number {
  if (!Number.isSafeInteger(value)) throw invalid(`counter ${key} is counted in integers: ${describe(value)}`);
  const sum = present + value;
  if (!Number.isSafeInteger(sum)) throw new MortiseError('E_COUNTER_RANGE', `counter ${key} would pass ${sum}`);
  return sum;
}
