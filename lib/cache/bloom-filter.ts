import { invalid } from '../errors';
import type { Handle } from '../native';
import { binding } from './binding';
import { checkKey, describe } from './memory-store';

/**
 * Sets that answer "perhaps" or "no", by key. Before {@link reserve}, `exists` is false and adding
 * does nothing.
 */
export interface BloomFilter {
  /**
   * Makes the filter at `key`, which wrongly claims a value at `errorRate` (above 0, below 1) once
   * it holds `capacity` values. In memory it starts anew when it is there already.
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
    if (typeof errorRate !== 'number' || typeof capacity !== 'number') {
      throw invalid(`bloom filter ${describe(key)}: the error rate and the capacity are numbers`);
    }
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

function checkValue(key: string, value: string): void {
  if (typeof value !== 'string') throw invalid(`bloom filter ${key}: a value is a string: ${describe(value)}`);
}
