import { invalid } from '../errors';
import type { Handle } from '../native';
import { Operation } from '../redis/connection';
import { binding } from './binding';
import { checkKey, describe } from './memory-store';
import { named, type RedisStore } from './redis-store';

/**
 * Sets that answer "perhaps" or "no", by key. Before {@link reserve}, `exists` is false and adding
 * does nothing.
 */
export interface BloomFilter {
  /**
   * Makes the filter at `key`, which wrongly claims a value at `errorRate` (above 0, below 1) once
   * it holds `capacity` values. One that is there already starts anew in memory, and is kept on Redis.
   */
  reserve(key: string, errorRate: number, capacity: number): Promise<void>;
  add(key: string, value: string): Promise<void>;
  mAdd(key: string, values: string[]): Promise<void>;
  /** False when `value` was never added. */
  exists(key: string, value: string): Promise<boolean>;
}

/** Filters in this process's memory. They are never evicted. */
export class MemoryBloomFilter implements BloomFilter {
  /** `filters` may be shared; `prefix`, with its `:`, tells whose is whose. */
  constructor(
    private readonly filters: Map<string, Handle>,
    private readonly prefix: string,
  ) {}

  async reserve(key: string, errorRate: number, capacity: number): Promise<void> {
    checkShape(key, errorRate, capacity);
    this.filters.set(this.key(key), binding.bloomNew(errorRate, capacity));
  }

  async add(key: string, value: string): Promise<void> {
    const filter = this.filters.get(this.key(key));
    checkValue(key, value);
    if (filter) binding.bloomAdd(filter, value);
  }

  async mAdd(key: string, values: string[]): Promise<void> {
    for (const value of values) checkValue(key, value);
    for (const value of values) await this.add(key, value);
  }

  async exists(key: string, value: string): Promise<boolean> {
    const filter = this.filters.get(this.key(key));
    checkValue(key, value);
    return filter !== undefined && binding.bloomContains(filter, value);
  }

  private key(key: string): string {
    return this.prefix + checkKey(key);
  }
}

/**
 * Filters on Redis, by the server's Bloom module where it has one, else in bits of ours. A filter that is
 * there already is kept by `reserve`.
 */
export class RedisBloomFilter implements BloomFilter {
  /** `prefix` with its `:`. */
  constructor(
    private readonly store: RedisStore,
    private readonly prefix: string,
  ) {}

  async reserve(key: string, errorRate: number, capacity: number): Promise<void> {
    checkShape(key, errorRate, capacity);
    await this.run(Operation.BLOOM_RESERVE, key, [String(errorRate), String(capacity)]);
  }

  async add(key: string, value: string): Promise<void> {
    await this.mAdd(key, [value]);
  }

  async mAdd(key: string, values: string[]): Promise<void> {
    for (const value of values) checkValue(key, value);
    await this.run(Operation.BLOOM_ADD, key, values);
  }

  async exists(key: string, value: string): Promise<boolean> {
    checkValue(key, value);
    return (await this.run(Operation.BLOOM_EXISTS, key, [value])) === 1;
  }

  private async run(operation: number, key: string, words: string[]): Promise<unknown> {
    const full = this.prefix + checkKey(key);
    try {
      return await this.store.client.operate(operation, [full, ...words]);
    } catch (error) {
      throw named(error, full);
    }
  }
}

function checkShape(key: string, errorRate: number, capacity: number): void {
  if (typeof errorRate !== 'number' || typeof capacity !== 'number') {
    throw invalid(`bloom filter ${describe(key)}: the error rate and the capacity are numbers`);
  }
}

function checkValue(key: string, value: string): void {
  if (typeof value !== 'string') throw invalid(`bloom filter ${key}: a value is a string: ${describe(value)}`);
}
