import { pardoned } from '../away';
import { invalid } from '../errors';
import { BasicCache } from './basic-cache';
import { clone } from './clone';
import type { LoadOptions } from './loading';
import { checkEntries, checkKey, checkLoader, describe, MemoryStore } from './memory-store';
import { filterKeys, literal } from './pattern';
import type { Milliseconds, Store } from './store';

/** Options of {@link Cache.wrapWithCondition}. */
export interface WrapConditions<T> {
  /** `false`: neither look into the cache nor store. Default true. */
  useCache?: boolean;
  /** Whether a result is stored; may be asynchronous. Default: when it is truthy. */
  isCacheable?: (value: T) => boolean | Promise<boolean>;
  /** Milliseconds to live, or a function of the result that gives them. */
  ttl?: Milliseconds | ((value: T) => Milliseconds | undefined);
}

/** What a change can be tied to: Sequelize's transactions, and whatever has this of them. */
export interface CacheTransaction {
  afterCommit(fn: () => unknown): unknown;
  /** `'commit'` or `'rollback'`, when it is over. */
  finished?: string;
}

/** Options of a change. */
export interface ChangeOptions {
  /** The change is made after its commit, and never after a rollback. */
  transaction?: CacheTransaction | null;
}

/** Options of {@link Cache.set}. */
export interface SetOptions extends ChangeOptions {
  /** Milliseconds to live. */
  ttl?: Milliseconds;
}

/**
 * A cache: a name, a prefix for its keys, and a store.
 *
 * Keys are strings; anything else rejects with a `TypeError`. Times are milliseconds. On the
 * memory store every change has taken effect when the call returns, before its promise is awaited.
 */
export class Cache {
  readonly name: string;
  readonly prefix?: string;
  readonly store: BasicCache;
  private readonly keyPrefix: string;
  /** The engine, when it is this cache's own memory store and its keys are known there bare. */
  private readonly memory: MemoryStore | undefined;
  private readonly edits = new Map<string, Promise<unknown>>();

  /** `store` may also be what cache-manager 5 calls a cache. */
  constructor({ name, prefix, store: given }: { name: string; prefix?: string; store: BasicCache | { store: Store } }) {
    const store = given instanceof BasicCache ? given : new BasicCache(given.store);
    this.name = name;
    this.prefix = prefix;
    this.store = store;
    this.keyPrefix = prefix ? `${prefix}:` : '';
    const bare = store.store instanceof MemoryStore && store.store.belongsTo(this.keyPrefix) && !store.keepsMore;
    this.memory = bare ? (store.store as unknown as MemoryStore) : undefined;
  }

  /** The key as the store knows it: `prefix:key`. */
  key(key: string): string {
    return this.keyPrefix + checkKey(key);
  }

  /**
   * Stores a value. `ttl` in milliseconds: absent: the store's default, else none; 0: none;
   * negative: it has lapsed already.
   *
   * With a `transaction` (anything with `afterCommit(fn)`, such as Sequelize's) the value is stored
   * after its commit, and never after a rollback; the promise resolves at once.
   *
   * Rejects with `E_NOT_CACHEABLE` for a value that the store does not take, with
   * `E_NOT_SERIALIZABLE` for one that JSON cannot hold where the store writes JSON, and with a
   * `TypeError` for a key that is not a string or a ttl that is not a number.
   */
  set(key: string, value: unknown, ttl?: Milliseconds | SetOptions, options?: ChangeOptions): Promise<void> {
    // The usual cases, without a promise of our own around the store's.
    const plain = options === undefined && (ttl === undefined || typeof ttl === 'number');
    if (!plain) return this.changing(this.setAsync(key, value, ttl, options));
    if (this.memory !== undefined) return this.setNear(this.memory, key, value, ttl);
    return typeof key === 'string' ? this.store.set(this.keyPrefix + key, value, ttl) : rejected(key);
  }

  private async setNear(memory: MemoryStore, key: string, value: unknown, ttl: Milliseconds | undefined): Promise<void> {
    memory.writeBare(key, value, ttl);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }

  private async setAsync(key: string, value: unknown, ttl?: Milliseconds | SetOptions, options?: ChangeOptions): Promise<void> {
    if (typeof ttl === 'object' && ttl !== null && ('ttl' in ttl || 'transaction' in ttl)) {
      options = ttl;
      ttl = (ttl as SetOptions).ttl;
    }
    const life = ttl as Milliseconds | undefined;
    if (options?.transaction) return this.afterCommit(options.transaction, key, () => this.set(key, value, life));
    const memory = this.memory;
    if (memory === undefined) return this.store.set(this.key(key), value, life);
    memory.writeBare(key, value, life);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }

  /**
   * The value at `key`, `undefined` when there is none. The memory store gives the same object to
   * every caller.
   */
  get<T = any>(key: string): Promise<T | undefined> {
    if (this.memory !== undefined) return this.getNear(this.memory, key);
    return typeof key === 'string' ? this.store.get<T>(this.keyPrefix + key) : rejected(key);
  }

  private async getNear<T>(memory: MemoryStore, key: string): Promise<T | undefined> {
    return memory.readBare(key) as T | undefined;
  }

  /** Deletes a key; nothing when it is absent. With a `transaction`: as for {@link set}. */
  del(key: string, options?: ChangeOptions): Promise<void> {
    return this.changing(this.delAsync(key, options));
  }

  private async delAsync(key: string, options?: ChangeOptions): Promise<void> {
    if (options?.transaction) return this.afterCommit(options.transaction, key, () => this.del(key));
    const memory = this.memory;
    if (memory === undefined) return this.store.del(this.key(key));
    memory.removeBare(key);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }

  /** Stores several values at once; `ttl` as for {@link set}. */
  mset(entries: [string, unknown][], ttl?: Milliseconds): Promise<void> {
    return this.changing(this.msetAsync(entries, ttl));
  }

  private async msetAsync(entries: [string, unknown][], ttl?: Milliseconds): Promise<void> {
    checkEntries(entries);
    const full = entries.map(([key, value]): [string, unknown] => [this.key(key), value]);
    await this.store.mset(full, ttl);
  }

  /** The values at `keys`, in their order, `undefined` for the absent. */
  async mget<T = any>(...keys: string[]): Promise<(T | undefined)[]> {
    const memory = this.memory;
    if (memory !== undefined) return keys.map((key) => memory.readBare(key) as T | undefined);
    return (await this.store.store.mget(...keys.map((key) => this.key(key)))) as (T | undefined)[];
  }

  /** Deletes several keys. */
  mdel(...keys: string[]): Promise<void> {
    return this.changing(this.mdelAsync(keys));
  }

  private async mdelAsync(keys: readonly string[]): Promise<void> {
    await this.store.mdel(...keys.map((key) => this.key(key)));
  }

  /** Empties this cache, and nothing else that its store holds. */
  reset(): Promise<void> {
    return this.changing(this.resetAsync());
  }

  private async resetAsync(): Promise<void> {
    this.store.outdateAll();
    if (this.memory !== undefined) return this.memory.clear();
    if (await this.store.resetPrefix(this.keyPrefix)) return;
    if (this.keyPrefix === '') return this.store.reset();
    const keys = await this.fullKeys('*');
    if (keys.length > 0) await this.store.store.mdel(...keys);
  }

  /** The keys in this cache, without its prefix, that fit a glob pattern (default: all). */
  async keys(pattern = '*'): Promise<string[]> {
    const keys = await this.fullKeys(pattern);
    return filterKeys(keys.map((key) => key.slice(this.keyPrefix.length)), pattern);
  }

  /** Milliseconds that the key has left. Memory: `Infinity` without expiry, 0 when absent; Redis: -1 and -2. */
  async ttl(key: string): Promise<number> {
    return this.store.store.ttl(this.key(key));
  }

  /**
   * The value at `key`; when there is none, what `fn` gives, which is stored with `ttl` (or a
   * function of the value that gives it). `fn` runs once, however many wait for the key in this
   * process; its error reaches all of them, and nothing is stored. `options` go over the cache's own.
   */
  async wrap<T>(
    key: string,
    fn: () => T | Promise<T>,
    ttl?: Milliseconds | ((value: T) => Milliseconds | undefined),
    options?: LoadOptions,
  ): Promise<T> {
    if (typeof fn !== 'function') checkLoader(key, fn);
    const memory = this.memory;
    if (memory === undefined) return this.store.wrap(this.key(key), fn, ttl, undefined, options);
    const value = memory.readBare(key) as T | undefined;
    if (value === undefined) return this.store.load(this.key(key), fn, ttl, options);
    const threshold = this.store.refreshThreshold;
    if (threshold > 0) await this.store.refreshIfDue(this.key(key), value, fn, ttl, threshold);
    return value;
  }

  /**
   * As {@link wrap}, with conditions. A result is stored when `isCacheable` says so, by default
   * when it is truthy; what is stored is a hit whatever it is.
   */
  async wrapWithCondition<T>(key: string, fn: () => T | Promise<T>, options: WrapConditions<T> = {}): Promise<T> {
    checkLoader(key, fn);
    if (options.useCache === false) return fn();
    const value = await this.get<T>(key);
    if (value !== undefined) return value;
    return this.store.loadIf(this.key(key), fn, options.ttl, options.isCacheable ?? Boolean);
  }

  /** Sets one field of the object at `key`, which is made when there is none. Concurrent calls all take effect. */
  setValueInObject(key: string, objectKey: string, value: unknown): Promise<void> {
    const edited = this.edit(key, (object) => {
      // Not an assignment, which would not make a field of `__proto__`.
      const field = { value: clone(value), writable: true, enumerable: true, configurable: true };
      Object.defineProperty(object, objectKey, field);
    });
    return this.changing(edited);
  }

  /** One field of the object at `key`; `undefined` when either is absent. */
  async getValueInObject<T = any>(key: string, objectKey: string): Promise<T | undefined> {
    const object = toObject(key, await this.get(key));
    const inherited = !Object.hasOwn(object, objectKey) && objectKey in Object.prototype;
    return inherited ? undefined : (object as any)[objectKey];
  }

  /** Deletes one field of the object at `key`. Concurrent calls all take effect. */
  delValueInObject(key: string, objectKey: string): Promise<void> {
    const edited = this.edit(key, (object) => {
      Reflect.deleteProperty(object, objectKey);
    });
    return this.changing(edited);
  }

  /** A change, which callers need not look at: that a server is away must not end their process. */
  private changing(change: Promise<void>): Promise<void> {
    return this.memory === undefined ? pardoned(change) : change;
  }

  /** Changes the object at `key`: at once in memory; elsewhere after this process's earlier changes. */
  private async edit(key: string, change: (object: object) => void): Promise<void> {
    const memory = this.memory;
    if (memory !== undefined) {
      const present = memory.readBare(key);
      const object = toObject(key, present);
      change(object);
      if (present !== object) return this.set(key, object);
      memory.touchBare(key);
      if (this.store.hasFlights) this.store.outdate(this.key(key));
      return;
    }
    const full = this.key(key);
    const edited = this.store.edit(full, (present) => {
      const object = toObject(key, present);
      change(object);
      return object;
    });
    if (edited) return edited;
    const turn = (this.edits.get(full) ?? Promise.resolve()).then(async () => {
      const object = toObject(key, await this.get(key));
      change(object);
      await this.set(key, object);
    });
    const settled = turn.catch(() => undefined);
    this.edits.set(full, settled);
    try {
      await turn;
    } finally {
      if (this.edits.get(full) === settled) this.edits.delete(full);
    }
  }

  /** Makes the change when the transaction has been committed; then a failure is nobody's to catch but the listeners'. */
  private afterCommit(transaction: CacheTransaction, key: string, change: () => Promise<void>): void {
    if (typeof transaction.afterCommit !== 'function') throw invalid('a transaction has the method afterCommit');
    const full = this.key(key);
    const run = async (): Promise<void> => {
      try {
        await change();
      } catch (error) {
        this.store.report({ error, key: full, operation: 'set' });
      }
    };
    if (transaction.finished === 'rollback') return;
    // Committed already: Sequelize would never call it.
    if (transaction.finished === 'commit') void run();
    else transaction.afterCommit(run);
  }

  private async fullKeys(pattern: string): Promise<string[]> {
    const keys = await this.store.store.keys(literal(this.keyPrefix) + pattern);
    // Not every store heeds the pattern.
    return this.keyPrefix === '' ? keys : keys.filter((key) => key.startsWith(this.keyPrefix));
  }
}

async function rejected(key: unknown): Promise<never> {
  throw invalid(`a cache key is a string: ${describe(key)}`);
}

function toObject(key: string, value: unknown): object {
  if (value === undefined || value === null) return {};
  if (typeof value === 'object') return value;
  throw invalid(`the value at ${key} is not an object: ${describe(value)}`);
}

