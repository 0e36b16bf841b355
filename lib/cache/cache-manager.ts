import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import type { Handle } from '../native';
import type { RedisHealth } from '../redis/connection';
import { BasicCache, type BasicCacheOptions } from './basic-cache';
import { type BloomFilter, MemoryBloomFilter, RedisBloomFilter } from './bloom-filter';
import { Cache } from './cache';
import { type Counter, type CounterLocks, LockCounter, MemoryCounter, RedisCounter } from './counter';
import { loadPolicy } from './loading';
import { DEFAULT_MAX, describe, MemoryStore, type MemoryStoreOptions } from './memory-store';
import { RedisStore, type RedisStoreOptions } from './redis-store';
import { pendingStore, type Store, type StoreFactory } from './store';
import { TieredStore, type TieredStoreOptions } from './tiered-store';

/** A type of store: where its stores come from, and the settings that all of them share. */
export interface StoreOptions extends MemoryStoreOptions, BasicCacheOptions {
  /**
   * `'memory'`; `'redis'` and `'tiered'`, with the options of the connection and of the store beside it; or
   * a cache-manager 5 factory: `(config) => Store | Promise<Store>`.
   */
  store?: 'memory' | 'redis' | 'tiered' | StoreFactory<any>;
  /** Called with each store of the type by {@link CacheManager.close}. */
  close?: (store: any) => Promise<void> | void;
  [setting: string]: any;
}

/** Options of {@link CacheManager}. */
export interface CacheManagerOptions {
  /** The type of the caches that name none. Default `'memory'`. */
  defaultStore?: string;
  /** Store types by name, laid over the built-in ones: `memory` (`max` 2000), `redis` and `tiered` (`url`, …). */
  stores?: Record<string, StoreOptions>;
  /** In front of every cache's prefix, joined by `:`. Default none; the app's name under `createApp`. */
  prefix?: string;
  /** Told when a server goes away and comes back. */
  logger?: Logger;
}

/** Options of {@link CacheManager.createCache}. Further ones are the store's. */
export interface CreateCacheOptions extends MemoryStoreOptions, BasicCacheOptions {
  name: string;
  /** In front of every key, behind the manager's prefix. Default none. */
  prefix?: string;
  /** The store type. Default: the manager's `defaultStore`. */
  store?: string;
  [setting: string]: any;
}

interface OpenStore {
  close?: StoreOptions['close'];
  store: BasicCache;
}

/** Makes caches, and keeps those it made by name. */
export class CacheManager {
  readonly defaultStore: string;
  readonly prefix?: string;
  /** The stores made so far: those of one cache by its name, those shared by their type. */
  readonly stores = new Map<string, OpenStore>();
  readonly storeTypes = new Map<string, StoreOptions>();
  readonly caches = new Map<string, Cache>();
  private readonly shared = new Map<string, BasicCache>();
  /** When a store is there, so that a second cache of a shared one waits as well. */
  private readonly making = new WeakMap<BasicCache, Promise<unknown>>();
  private readonly opened = new Set<OpenStore>();
  private readonly filters = new Map<string, Handle>();
  private readonly logger: Logger | undefined;

  constructor(options: CacheManagerOptions = {}) {
    const builtIn: Record<string, StoreOptions> = {
      memory: { store: 'memory', max: DEFAULT_MAX },
      redis: { store: 'redis' },
      tiered: { store: 'tiered' },
    };
    this.defaultStore = options.defaultStore ?? 'memory';
    this.prefix = options.prefix;
    this.logger = options.logger;
    for (const name of new Set([...Object.keys(builtIn), ...Object.keys(options.stores ?? {})])) {
      this.registerStore({ name, ...builtIn[name], ...options.stores?.[name] });
    }
  }

  /** Adds a store type, or replaces it for the caches made from now on. */
  registerStore(options: { name: string } & StoreOptions): void {
    const { name, ...type } = options ?? {};
    if (typeof name !== 'string' || name === '') throw invalid(`a store type has a name: ${describe(name)}`);
    this.storeTypes.set(name, type);
  }

  /**
   * Makes a cache. On memory, or with any option beside name and store, it has a store of its own;
   * else it shares that of its type. The same name again replaces the cache.
   *
   * Rejects with `E_STORE_UNAVAILABLE` for an unknown store type, and with what the store's
   * factory rejects with.
   */
  async createCache(options: CreateCacheOptions): Promise<Cache> {
    const { cache, ready } = this.open(options);
    await ready;
    return this.keep(cache);
  }

  /**
   * As {@link createCache}, but usable at once: the calls of the cache wait for its store, and
   * reject when it cannot be made.
   */
  createCacheSync(options: CreateCacheOptions): Cache {
    return this.keep(this.open(options).cache);
  }

  /** The cache of that name; throws `E_CACHE_NOT_FOUND` when there is none. */
  getCache(name: string): Cache {
    const cache = this.caches.get(name);
    if (!cache) throw new MortiseError('E_CACHE_NOT_FOUND', `Get cache failed, ${name} is not found`);
    return cache;
  }

  /** Empties every cache and every bloom filter in memory. */
  async flushAll(): Promise<void> {
    this.filters.clear();
    await Promise.all([...this.caches.values()].map((cache) => cache.reset()));
  }

  /** Calls the stores' `close`. May be repeated; memory caches keep working, those on Redis connect again when they are used. */
  async close(): Promise<void> {
    await Promise.all([...this.opened].map(async ({ close, store }) => close?.(store.store)));
  }

  /** How the open connections of this manager's caches are, one entry a server and kind of store. */
  health(): RedisHealth[] {
    const engines: Store[] = [...this.opened].map(({ store }) => store.store);
    const clients = engines.flatMap((engine) => (engine instanceof RedisStore ? (engine.openClient ?? []) : []));
    return [...new Set(clients)].map((client) => client.health());
  }

  /**
   * Bloom filters on a store type: in memory, or on Redis, by the server's Bloom module where it has
   * one. Rejects with `E_STORE_UNAVAILABLE` on other stores (`BloomFilter store [x] is not supported`).
   */
  async createBloomFilter(options: { store?: string; prefix?: string; [setting: string]: any } = {}): Promise<BloomFilter> {
    const { store: type = this.defaultStore, prefix, ...config } = options ?? {};
    const source = this.storeTypes.get(type)?.store;
    const full = this.fullPrefix(prefix);
    const keyPrefix = full ? `${full}:` : '';
    if (source === 'memory') return new MemoryBloomFilter(this.filters, keyPrefix);
    if (source !== 'redis' && source !== 'tiered') {
      throw new MortiseError('E_STORE_UNAVAILABLE', `BloomFilter store [${type}] is not supported`);
    }
    const { store } = Object.keys(config).length > 0 ? this.openStore(`bloom:${type}`, type, config, undefined) : this.sharedStore(type);
    return new RedisBloomFilter(store.store as unknown as RedisStore, keyPrefix);
  }

  /**
   * Counters on a store type. Memory and Redis count atomically by themselves. On other stores each
   * increment is made under a lock of `lockManager`; without one it rejects with `E_STORE_UNAVAILABLE`
   * (`Counter store [x] is not supported`).
   */
  async createCounter(
    options: { name: string; prefix?: string; store?: string },
    lockManager?: CounterLocks,
  ): Promise<Counter> {
    const { name, prefix, store = this.defaultStore } = options ?? {};
    if (typeof name !== 'string' || name === '') throw invalid(`a counter has a name: ${describe(name)}`);
    if (this.storeTypes.get(store)?.store === 'memory') return new MemoryCounter();
    const cache = this.caches.get(name) ?? (await this.createCache(prefix ? { name, prefix, store } : { name, store }));
    const engine = cache.store.store as Store;
    if (engine instanceof RedisStore) return new RedisCounter(cache);
    if (!lockManager) throw new MortiseError('E_STORE_UNAVAILABLE', `Counter store [${store}] is not supported`);
    return new LockCounter(cache, lockManager);
  }

  private open(options: CreateCacheOptions): { cache: Cache; ready: Promise<unknown> } {
    const { name, store: type = this.defaultStore, ...config } = options ?? {};
    if (typeof name !== 'string' || name === '') throw invalid(`a cache has a name: ${describe(name)}`);
    const prefix = this.fullPrefix(config.prefix);
    const own = type === 'memory' || Object.keys(config).length > 0;
    const { store, ready } = own ? this.openStore(name, type, config, prefix) : this.sharedStore(type);
    return { cache: new Cache({ name, prefix, store }), ready };
  }

  private sharedStore(type: string): { store: BasicCache; ready: Promise<unknown> } {
    const present = this.shared.get(type);
    if (present) return { store: present, ready: this.making.get(present) ?? Promise.resolve() };
    const opened = this.openStore(type, type, {}, undefined);
    this.shared.set(type, opened.store);
    // The next cache of the type tries again.
    opened.ready.catch(() => this.shared.delete(type));
    return opened;
  }

  private openStore(
    name: string,
    type: string,
    config: Record<string, any>,
    prefix: string | undefined,
  ): { store: BasicCache; ready: Promise<unknown> } {
    const { store: source, close, ...globalConfig } = this.storeTypes.get(type) ?? {};
    const settings = { ...globalConfig, ...config };
    const open = (engine: Store): OpenStore => ({ close, store: new BasicCache(engine, settings) });
    const register = (opened: OpenStore): void => {
      this.stores.set(name, opened);
      this.opened.add(opened);
    };
    if (source === 'memory') {
      const opened = open(new MemoryStore(settings, prefix ? `${prefix}:` : ''));
      register(opened);
      return { store: opened.store, ready: Promise.resolve() };
    }
    if (source === 'redis' || source === 'tiered') {
      const tiered = source === 'tiered' || settings.tiered === true;
      const options: TieredStoreOptions = { logger: this.logger, ...settings };
      // Before the store takes a connection.
      loadPolicy(settings);
      const engine = tiered ? new TieredStore(options) : new RedisStore(options as RedisStoreOptions);
      const opened: OpenStore = { close: close ?? (() => engine.close()), store: new BasicCache<Store>(engine, settings) };
      register(opened);
      return { store: opened.store, ready: Promise.resolve() };
    }
    if (typeof source !== 'function') throw unavailable(type, source);
    const making = (async () => source(settings) as Promise<Store>)();
    const opened = open(pendingStore(making));
    const ready = making.then((store) => {
      opened.store.become(store);
      register(opened);
    });
    // Whoever made the cache is told; with createCacheSync the cache's calls are.
    ready.catch(() => undefined);
    this.making.set(opened.store, ready);
    return { store: opened.store, ready };
  }

  private keep(cache: Cache): Cache {
    this.caches.set(cache.name, cache);
    return cache;
  }

  private fullPrefix(prefix: string | undefined): string | undefined {
    return [this.prefix, prefix].filter(Boolean).join(':') || undefined;
  }
}

function unavailable(type: string, source: unknown): MortiseError {
  const reason = source === undefined ? '' : `: nobody knows the store ${String(source)}`;
  const message = `Create cache failed, store type [${type}] is unavailable or not registered${reason}`;
  return new MortiseError('E_STORE_UNAVAILABLE', message);
}
