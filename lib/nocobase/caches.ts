// Puts cache stores of ours into NocoBase's cache manager.

import { pardonCalls } from '../away';
import { hostModule, RedisBloomFilter, RedisCounter, RedisStore, type RedisStoreOptions, TieredStore } from '../index';
import { type HostEnvironment, isReplacement } from './environment';

/** The stores that are ours, in NocoBase's cache manager. */
const TYPES = ['redis', 'tiered'] as const;

/** Of NocoBase's caches: what changes entries. Its plugins call some of it without awaiting it. */
const CHANGES = ['del', 'set', 'mset', 'mdel', 'reset', 'setValueInObject', 'delValueInObject'];

/** The `createCacheManager` that an application had before; restarts keep it. */
const originals = new WeakMap<object, () => Promise<any>>();

/** The stores of the caches that an application has made since its latest `init()`. */
export class CachePlug {
  private readonly opened = new Set<RedisStore>();

  private constructor(
    private readonly host: any,
    private readonly cache: HostEnvironment['cache'],
    private readonly logger: any,
  ) {}

  /** Lets the application make its cache managers with our stores; undefined where none of them is asked for. */
  static into(host: any, cache: HostEnvironment['cache'], logger: any): CachePlug | undefined {
    const original = originals.get(host) ?? host.createCacheManager;
    if (isReplacement(hostModule('@nocobase/cache')?.CacheManager?.prototype)) return undefined;
    const given = host.options?.cacheManager ?? {};
    const wanted = [cache.defaultStore, given.defaultStore].some(isOurs) || TYPES.some((type) => given.stores?.[type]);
    if (!wanted && cache.url === undefined) return undefined;
    originals.set(host, original);
    const plug = new CachePlug(host, cache, logger);
    host.createCacheManager = () => plug.createManager(original);
    return plug;
  }

  /** Lets the application make its cache managers as it did. */
  unplug(): void {
    this.host.createCacheManager = originals.get(this.host);
  }

  /** Gives up the connections of the stores. NocoBase closes its manager, but not stores that are used after that. */
  async close(): Promise<void> {
    for (const store of this.opened) store.close();
    this.opened.clear();
  }

  private async createManager(original: () => Promise<any>): Promise<any> {
    const { host } = this;
    const given = host.options.cacheManager;
    // Read by the original while it is called.
    host.options.cacheManager = this.options(given);
    let making: Promise<any>;
    try {
      making = original.call(host);
    } finally {
      host.options.cacheManager = given;
    }
    const manager = await making;
    this.plugCounters(manager);
    // What was made so far: the app's own cache.
    for (const cache of manager.caches.values()) pardonCalls(cache, CHANGES);
    const { createCache } = manager;
    manager.createCache = async (...values: unknown[]) => {
      const made = await createCache.apply(manager, values);
      if (!Object.hasOwn(made, CHANGES[0])) pardonCalls(made, CHANGES);
      return made;
    };
    return manager;
  }

  /** NocoBase's options of the cache manager, with our stores. What is given goes before the environment. */
  private options(given: any = {}): any {
    const prefix = given.prefix ?? this.host.name;
    const stores: Record<string, any> = { ...given.stores };
    for (const type of TYPES) {
      const server = given.stores?.[type] ?? {};
      const url = server.url ?? server.socket ? {} : { url: this.cache.url };
      stores[type] = { ...url, ...server, store: (config: RedisStoreOptions) => this.open(type, prefix, config), close: (store: RedisStore) => store.close() };
    }
    return { ...(this.cache.defaultStore ? { defaultStore: this.cache.defaultStore } : {}), ...given, stores };
  }

  private async open(type: (typeof TYPES)[number], managerPrefix: string, config: RedisStoreOptions & { prefix?: string }): Promise<RedisStore> {
    // So that `reset` empties this cache, and not the database.
    const keyPrefix = [managerPrefix, config.prefix].filter(Boolean).join(':');
    const options = { logger: this.logger, ...config, keyPrefix: keyPrefix && `${keyPrefix}:` };
    const store = type === 'tiered' ? new TieredStore(options) : new RedisStore(options);
    this.opened.add(store);
    return store;
  }

  /** NocoBase's own counters and filters on Redis call a client of node-redis, which ours is not. */
  private plugCounters(manager: any): void {
    const { createCounter, createBloomFilter } = manager;
    const cacheOf = async (name: string, options: object) => manager.caches.get(name) ?? manager.createCache({ name, ...options });
    manager.createCounter = async (options: any = {}, lockManager?: any) => {
      const { name, prefix, store = manager.defaultStore } = options;
      if (!isOurs(store)) return createCounter.call(manager, options, lockManager);
      const cache = await cacheOf(name, { store, ...(prefix ? { prefix } : {}) });
      return new RedisCounter(cache);
    };
    manager.createBloomFilter = async (options: any = {}) => {
      const { store = manager.defaultStore, prefix } = options;
      if (!isOurs(store)) return createBloomFilter.call(manager, options);
      const cache = await cacheOf('bloom-filter', { store, ...(prefix ? { prefix } : {}) });
      return new RedisBloomFilter(cache.store.store, cache.prefix ? `${cache.prefix}:` : '');
    };
  }
}

function isOurs(store: unknown): boolean {
  return TYPES.includes(store as never);
}
