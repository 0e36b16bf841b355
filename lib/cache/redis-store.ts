import type { Logger } from '../app/logger';
import { isAway } from '../away';
import { MortiseError } from '../errors';
import type { Ending } from '../native';
import { Operation, type RedisConnection } from '../redis/connection';
import type { RedisOptions } from '../redis/options';
import { type ConnectionUse, shareConnection } from '../redis/sharing';
import { leaseKey } from './lease-key';
import { checkEntries, checkKey, checkTtl, describe } from './memory-store';
import { literal } from './pattern';
import type { Milliseconds, Store } from './store';

/** Options of a Redis store, beside those of the connection. */
export interface RedisStoreOptions extends RedisOptions {
  /** Time to live of entries set without one, in milliseconds; 0 (default): they stay. */
  ttl?: Milliseconds;
  /** Which values may be stored. Default: all but `undefined` and `null`. */
  isCacheable?: (value: unknown) => boolean;
  /**
   * What all the keys of this store begin with: `reset` deletes those only. Without it `reset` empties
   * the database, as cache-manager's own stores do. Caches of our manager are always reset by their prefix.
   */
  keyPrefix?: string;
  /** Told when the server goes away and comes back. */
  logger?: Logger;
}

/** Of a reply to a read: the value; while the server is away, none. */
export const READ: Ending = {
  convert: (_, payload, key) => parse(key, payload as string | null),
  recover: (error, key) => {
    if (isAway(error)) return undefined;
    throw named(error, key);
  },
};

/** Of a reply to a write. */
const WRITTEN: Ending = {
  convert: () => undefined,
  recover: (error, key) => {
    throw named(error, key);
  },
};

/** How often an atomic change is tried again when others change the same entry. */
const EDIT_ATTEMPTS = 1000;

/**
 * A cache store on Redis, with the interface of cache-manager 5. Values are JSON text, as
 * `JSON.stringify` gives it, under the keys themselves.
 *
 * While the server is away reads find nothing, and writes reject with `E_UNAVAILABLE`.
 */
export class RedisStore implements Store {
  readonly name: string = 'redis';
  readonly isCacheable: (value: unknown) => boolean;
  private readonly defaultTtl: Milliseconds;
  private readonly keyPrefix: string;
  protected readonly use: ConnectionUse;
  /** Whether nodes load under leases, which a change of their key must end. */
  guardsLoads = false;

  /** Throws a `TypeError` for wrong options. Connects in the background. */
  constructor(options: RedisStoreOptions = {}, kind: 'plain' | 'tiered' = 'plain') {
    this.isCacheable = options.isCacheable ?? ((value) => value !== undefined && value !== null);
    this.defaultTtl = checkTtl(options.ttl ?? 0);
    this.keyPrefix = options.keyPrefix ?? '';
    this.use = shareConnection(options, kind, options.logger);
    this.use.connection();
  }

  /** The connection, shared with whoever uses the same server. */
  get client(): RedisConnection {
    return this.use.connection();
  }

  /** The connection, if it is open: looking at it must not open it. */
  get openClient(): RedisConnection | undefined {
    return this.use.held();
  }

  // No async function: its promise, and the turns until it settles, are a third of what a call costs here.
  get<T = any>(key: string): Promise<T | undefined> {
    try {
      return this.client.send(['GET', checkKey(key)], key, READ);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  set(key: string, value: unknown, ttl?: Milliseconds): Promise<void> {
    try {
      const command = this.setCommand(key, value, ttl);
      this.endLoads([key]);
      return this.client.send(command, key, WRITTEN);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async del(key: string): Promise<void> {
    checkKey(key);
    await this.write([key], () => {
      this.endLoads([key]);
      return this.client.send(['DEL', key]);
    });
  }

  async mget(...keys: string[]): Promise<unknown[]> {
    for (const key of keys) checkKey(key);
    if (keys.length === 0) return [];
    try {
      const texts = await this.client.operate<(string | null)[]>(Operation.GET_MANY, keys);
      return texts.map((text, i) => parse(keys[i], text));
    } catch (error) {
      if (isAway(error)) return keys.map(() => undefined);
      throw named(error, keys[0]);
    }
  }

  async mset(entries: [string, unknown][], ttl?: Milliseconds): Promise<void> {
    checkEntries(entries);
    // All are checked before any is stored.
    const commands = entries.map(([key, value]) => this.setCommand(key, value, ttl));
    await this.write(entries.map(([key]) => key), async () => {
      this.endLoads(entries.map(([key]) => key));
      await Promise.all(commands.map((command) => this.client.send(command)));
    });
  }

  async mdel(...keys: string[]): Promise<void> {
    for (const key of keys) checkKey(key);
    if (keys.length === 0) return;
    await this.write(keys, () => {
      this.endLoads(keys);
      return this.client.operate(Operation.DELETE_MANY, keys);
    });
  }

  /** All keys of the database that fit the glob pattern. Rejects with `E_UNAVAILABLE` while the server is away. */
  async keys(pattern = '*'): Promise<string[]> {
    return this.client.operate<string[]>(Operation.KEYS, [pattern]);
  }

  /** Milliseconds left; -1 without expiry, -2 when absent. */
  async ttl(key: string): Promise<number> {
    checkKey(key);
    try {
      return await this.client.send<number>(['PTTL', key]);
    } catch (error) {
      if (isAway(error)) return -2;
      throw named(error, key);
    }
  }

  /** See {@link RedisStoreOptions.keyPrefix}. */
  async reset(): Promise<void> {
    if (this.keyPrefix !== '') return this.resetPrefix(this.keyPrefix);
    await this.writeAll(() => this.client.send(['FLUSHDB']));
  }

  /** Deletes the keys that begin with `prefix`, without blocking the server. */
  async resetPrefix(prefix: string): Promise<void> {
    if (prefix === '') {
      const message = 'a cache without a prefix cannot tell its keys on Redis from those of others, and is not reset';
      throw new MortiseError('E_NO_PREFIX', message);
    }
    await this.writeAll(() => this.client.operate(Operation.DELETE_MATCHING, [`${literal(prefix)}*`]));
  }

  /** Changes the value at `key` atomically: `change` is called again when another node was faster. */
  async edit(key: string, change: (value: unknown) => unknown): Promise<void> {
    checkKey(key);
    const life = lifetime(this.defaultTtl);
    await this.write([key], async () => {
      let text = await this.client.send<string | null>(['GET', key]);
      for (let i = 0; i < EDIT_ATTEMPTS; i++) {
        const next = this.serialize(key, change(parse(key, text)));
        const expected = text === null ? ['0', ''] : ['1', text];
        const found = await this.client.operate<(string | null)[] | null>(Operation.REPLACE, [key, ...expected, next, String(life)]);
        if (found === null) return;
        text = found[0] ?? null;
      }
      throw new MortiseError('E_CONTENDED', `the value at ${key} is changed by others all the time`);
    });
  }

  /** As {@link get}, past any near cache, and rejecting while the server is away. */
  async read(key: string): Promise<unknown> {
    return parse(key, await this.client.send(['GET', key]));
  }

  /** Adds to a number, which lives for `ttl` milliseconds from its first addition; gives the sum. */
  async count(key: string, add: number, ttl: Milliseconds = 0): Promise<number> {
    let sum = 0;
    const life = Math.max(0, lifetime(checkTtl(ttl)));
    await this.write([key], async () => {
      sum = await this.client.operate<number>(Operation.COUNT, [key, String(add), String(life)]);
    });
    return sum;
  }

  /** Takes the lease `key` for `owner`; false when it is another's. */
  async lease(key: string, owner: string, ttl: Milliseconds): Promise<boolean> {
    return (await this.client.operate<number>(Operation.TAKE_LEASE, [key, owner, String(ttl)])) === 1;
  }

  /** Puts the end of a lease off; false when it is not the owner's any more. */
  async renew(key: string, owner: string, ttl: Milliseconds): Promise<boolean> {
    return (await this.client.operate<number>(Operation.RENEW_LEASE, [key, owner, String(ttl)])) === 1;
  }

  /** Gives a lease back, if it is still the owner's. */
  async release(key: string, owner: string): Promise<void> {
    await this.client.operate(Operation.RELEASE_LEASE, [key, owner]);
  }

  /** As {@link set}, if `owner` still has the lease to load `key`; it is given back then. */
  async setUnderLease(key: string, lease: string, value: unknown, ttl: Milliseconds | undefined, owner: string): Promise<boolean> {
    const [, , text = '', , life = '0'] = this.setCommand(key, value, ttl);
    let stored = false;
    await this.write([key], async () => {
      stored = (await this.client.operate<number>(Operation.SET_UNDER_LEASE, [key, lease, owner, text, life])) === 1;
    });
    return stored;
  }

  /** Gives the connection up; the next call takes it again. */
  close(): void {
    this.use.release();
  }

  /** What other nodes are loading for these keys is older than the change that follows. */
  private endLoads(keys: readonly string[]): void {
    if (!this.guardsLoads) return;
    for (const key of keys) {
      const lease = leaseKey(key);
      // Ahead of the change on the same connection; if this fails, so does the change.
      if (lease !== undefined) this.client.send(['DEL', lease]).catch(() => undefined);
    }
  }

  /** Surrounds a change of `keys`. */
  protected async write(keys: readonly string[], change: () => Promise<unknown>): Promise<void> {
    try {
      await change();
    } catch (error) {
      throw named(error, keys[0]);
    }
  }

  /** Surrounds a change of unknown keys. */
  protected async writeAll(change: () => Promise<unknown>): Promise<void> {
    await change();
  }

  private setCommand(key: string, value: unknown, ttl: Milliseconds | undefined): string[] {
    checkKey(key);
    const life = lifetime(ttl === undefined || ttl === null ? this.defaultTtl : checkTtl(ttl));
    const text = this.serialize(key, value);
    if (life < 0) return ['DEL', key];
    return life === 0 ? ['SET', key, text] : ['SET', key, text, 'PX', String(life)];
  }

  private serialize(key: string, value: unknown): string {
    if (!this.isCacheable(value)) {
      throw new MortiseError('E_NOT_CACHEABLE', `"${describeBare(value)}" is not a cacheable value`);
    }
    let text: string | undefined;
    try {
      text = JSON.stringify(value);
    } catch (cause) {
      throw new MortiseError('E_NOT_SERIALIZABLE', `the value for ${key} cannot be written as JSON`, { cause });
    }
    if (text === undefined) throw new MortiseError('E_NOT_SERIALIZABLE', `the value for ${key} cannot be written as JSON`);
    return text;
  }
}

/** Whole milliseconds; a fraction is rounded up, since 0 would mean for ever. */
function lifetime(ttl: Milliseconds): number {
  return ttl < 0 ? -1 : Math.min(Math.ceil(ttl), Number.MAX_SAFE_INTEGER / 2);
}

/** The value of a text; `undefined` for the null of an absent key. */
export function parse(key: string, text: string | null): any {
  if (text === null) return undefined;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MortiseError('E_MALFORMED', `the entry at ${key} is not JSON: ${describe(text)}`, { cause });
  }
}

/** Errors that do not know what the command was about. */
const OF_THE_SERVER = new Set(['E_REDIS', 'E_UNAVAILABLE', 'E_TIMEOUT', 'E_CLOSED']);

/** The error, with the key in its message. */
export function named(error: unknown, key: string): unknown {
  const { code, message } = error as MortiseError;
  if (!OF_THE_SERVER.has(code) || typeof message !== 'string' || message.includes(key)) return error;
  return new MortiseError(code, `${key}: ${message}`, { cause: error });
}

function describeBare(value: unknown): string {
  return typeof value === 'string' ? value : describe(value);
}
