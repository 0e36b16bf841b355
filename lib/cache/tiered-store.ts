import { pardoned } from '../away';
import { invalid } from '../errors';
import type { TieredConnection } from '../redis/tiered-connection';
import { hasPassed } from './clock';
import { copyOfJson } from './clone';
import { checkKey, describe } from './memory-store';
import { parse, READ, RedisStore, type RedisStoreOptions } from './redis-store';
import type { Milliseconds } from './store';

/** Options of a tiered store, beside those of a Redis store. */
export interface TieredStoreOptions extends RedisStoreOptions {
  /**
   * Whether `get` gives the same object to every caller, as the memory store does, until the entry
   * changes. Default false: each call gives an object of its own.
   */
  reference?: boolean;
  /**
   * The most bytes that the near cache holds, of keys and texts, off JavaScript's heap. Default 64 MiB.
   * All caches and worker threads of the process share one near cache a server: that of whoever came first.
   */
  maxBytes?: number;
}

/** A parsed value, with what tells whether it is still the newest. */
interface Memo {
  value: unknown;
  deadline: number;
  bucket: number;
  version: number;
  epoch: number;
  size: number;
}

/** UTF-16 units of text whose values are kept parsed, and entries: half of them each for those just used. */
const MEMO_UNITS = 8 * 2 ** 20;
const MEMO_ENTRIES = 10_000;

/**
 * A Redis store with a near cache in the process, which the server keeps coherent: it tells of each
 * change of a key that was read (`CLIENT TRACKING`). On a server that cannot, it works as a plain
 * Redis store, and says so in the log.
 */
export class TieredStore extends RedisStore {
  override readonly name = 'tiered';
  private readonly reference: boolean;
  /** Values that were parsed: those used lately, and those used before them. */
  private young = new Map<string, Memo>();
  private old = new Map<string, Memo>();
  private units = 0;

  constructor(options: TieredStoreOptions = {}) {
    // Before the store takes a connection.
    super(checkReference(options), 'tiered');
    this.reference = options.reference ?? false;
  }

  override get client(): TieredConnection {
    return this.use.connection() as TieredConnection;
  }

  override get<T = any>(key: string): Promise<T | undefined> {
    try {
      const near = this.near(key);
      return near === undefined ? this.client.fill(key, READ) : Promise.resolve(near as T);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  override set(key: string, value: unknown, ttl?: Milliseconds): Promise<void> {
    return pardoned(this.write([key], () => super.set(key, value, ttl)));
  }

  override async mget(...keys: string[]): Promise<unknown[]> {
    return Promise.all(keys.map((key) => this.get(key)));
  }

  /** The value when it is at hand; `undefined` when the server has to be asked. */
  near(key: string): unknown {
    let memo = this.young.get(key);
    if (memo === undefined) {
      memo = this.old.get(key);
      if (memo === undefined) return this.look(key);
      this.old.delete(key);
      this.keep(key, memo);
    }
    const client = this.client;
    if (client.isCurrent(memo.bucket, memo.version, memo.epoch) && !hasPassed(memo.deadline)) {
      return this.reference ? memo.value : copyOfJson(memo.value);
    }
    if (this.young.delete(key)) this.units -= memo.size;
    return this.look(key);
  }

  override close(): void {
    this.young.clear();
    this.old.clear();
    this.units = 0;
    super.close();
  }

  protected override async write(keys: readonly string[], change: () => Promise<unknown>): Promise<void> {
    // Before: reads after this call go to the server, behind the change. After: a redirection may have
    // let a read overtake it.
    for (const key of keys) this.client.invalidate(key);
    try {
      await super.write(keys, change);
    } finally {
      for (const key of keys) this.client.invalidate(key);
    }
  }

  protected override async writeAll(change: () => Promise<unknown>): Promise<void> {
    this.client.flush();
    try {
      await change();
    } finally {
      this.client.flush();
    }
  }

  private look(key: string): unknown {
    if (typeof key !== 'string') checkKey(key);
    const found = this.client.look(key);
    if (found === undefined) return undefined;
    const { text, left, bucket, version, epoch } = found;
    const value = parse(key, text);
    if (value === null || typeof value !== 'object') return value;
    this.keep(key, { value, deadline: performance.now() + left, bucket, version, epoch, size: text.length });
    return this.reference ? value : copyOfJson(value);
  }

  private keep(key: string, memo: Memo): void {
    this.young.set(key, memo);
    this.units += memo.size;
    if (this.units <= MEMO_UNITS / 2 && this.young.size <= MEMO_ENTRIES / 2) return;
    this.old = this.young;
    this.young = new Map();
    this.units = 0;
  }
}

function checkReference(options: TieredStoreOptions): TieredStoreOptions {
  if (options.reference === undefined || typeof options.reference === 'boolean') return options;
  throw invalid(`reference of a tiered store is true or false: ${describe(options.reference)}`);
}
