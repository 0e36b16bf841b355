import { EventEmitter } from 'node:events';
import { pardoned } from '../away';
import { leaseKey } from './lease-key';
import { loadInCluster, type LoadOptions, loadPolicy, type LoadPolicy, type Stale, StaleCopies, within } from './loading';
import { checkEntries, MemoryStore } from './memory-store';
import { RedisStore } from './redis-store';
import type { Milliseconds, Store } from './store';

/** Options that concern the cache in front of a store. */
export interface BasicCacheOptions extends LoadOptions {
  /**
   * Milliseconds: a `wrap` that finds less than this left to live answers with what it has, and
   * refreshes the entry in the background. Default 0: off.
   */
  refreshThreshold?: Milliseconds;
  /** Told when a background refresh fails; else the `error` event is. */
  onBackgroundRefreshError?: (error: unknown) => void;
}

/** What a failed call of the store is reported with, by the `error` event. */
export interface StoreErrorEvent {
  error: unknown;
  key: string;
  operation: 'get' | 'set';
  data?: unknown;
}

/** The loader that is running for a key, and what can be given meanwhile. */
interface Flight {
  loading: Promise<unknown>;
  stale: Promise<Stale | undefined> | undefined;
}

type Lifetime<T> = Milliseconds | ((value: T) => Milliseconds | undefined) | undefined;

/**
 * A store with `wrap`, for full keys: the object that cache-manager 5 calls a cache. It is what
 * `cache.store` is, for code that reaches in; `store` is the engine.
 */
export class BasicCache<S extends Store = Store> {
  /** The engine. */
  store: S;
  readonly refreshThreshold: Milliseconds;
  private readonly events = new EventEmitter();
  private readonly flights = new Map<string, Flight>();
  private readonly policy: LoadPolicy;
  private readonly stale: StaleCopies | undefined;

  constructor(
    store: S,
    private readonly options: BasicCacheOptions & { max?: number; ttl?: Milliseconds } = {},
  ) {
    this.store = store;
    this.refreshThreshold = options.refreshThreshold ?? 0;
    this.policy = loadPolicy(options);
    if (this.policy.keeps > 0) this.stale = new StaleCopies(() => this.store, this.policy.keeps, options.max);
    if (this.policy.cluster) this.guardLoads();
  }

  /** Whether more than the entries themselves has to be kept in step with a change. */
  get keepsMore(): boolean {
    return this.stale !== undefined;
  }

  /** Puts the store itself in place of the one that waits for it. */
  become(store: S): void {
    this.store = store;
    if (this.policy.cluster) this.guardLoads();
  }

  get<T = any>(key: string): Promise<T | undefined> {
    try {
      return this.store.get<T>(key);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  set(key: string, value: unknown, ttl?: Milliseconds): Promise<void> {
    try {
      this.outdate(key);
      const set = this.store.set(key, value, ttl);
      if (!this.stale) return set;
      return pardoned(Promise.all([set, this.stale.put(key, value, ttl ?? this.options.ttl)]).then(() => undefined));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async del(key: string): Promise<void> {
    this.outdate(key);
    if (this.stale) await Promise.all([this.store.del(key), this.stale.drop([key])]);
    else await this.store.del(key);
  }

  async reset(): Promise<void> {
    this.outdateAll();
    await Promise.all([this.store.reset(), this.stale?.clear('')]);
  }

  async mset(entries: [string, unknown][], ttl?: Milliseconds): Promise<void> {
    checkEntries(entries);
    for (const [key] of entries) this.outdate(key);
    const copies = this.stale && entries.map(([key, value]) => this.stale?.put(key, value, ttl ?? this.options.ttl));
    await Promise.all([this.store.mset(entries, ttl), ...(copies ?? [])]);
  }

  async mdel(...keys: string[]): Promise<void> {
    for (const key of keys) this.outdate(key);
    await Promise.all([this.store.mdel(...keys), this.stale?.drop(keys)]);
  }

  /** Changes a value atomically among all nodes; `undefined` where the store cannot do that by itself. */
  edit(key: string, change: (value: unknown) => unknown): Promise<void> | undefined {
    const { store } = this;
    if (!(store instanceof RedisStore)) return undefined;
    this.outdate(key);
    const edited = store.edit(key, change);
    return this.stale ? edited.then(() => this.stale?.drop([key])) : edited;
  }

  /** Deletes the keys that begin with `prefix`, where the store can do so by itself; false where it cannot. */
  async resetPrefix(prefix: string): Promise<boolean> {
    this.outdateAll();
    await this.stale?.clear(prefix);
    if (!(this.store instanceof RedisStore)) return false;
    await this.store.resetPrefix(prefix);
    return true;
  }

  /** Listens to failures of the store that a call of `wrap` got over; `listener({ error, key, operation })`. */
  on(event: 'error', listener: (event: StoreErrorEvent) => void): this {
    this.events.on(event, listener);
    return this;
  }

  removeListener(event: 'error', listener: (event: StoreErrorEvent) => void): this {
    this.events.removeListener(event, listener);
    return this;
  }

  /**
   * The value at `key`; when there is none, what `fn` gives, which is stored. `fn` runs once,
   * however many wait for the key. Its error reaches all of them, and nothing is stored.
   */
  async wrap<T>(
    key: string,
    fn: () => T | Promise<T>,
    ttl?: Milliseconds | ((value: T) => Milliseconds | undefined),
    refreshThreshold: Milliseconds = this.refreshThreshold,
    options?: LoadOptions,
  ): Promise<T> {
    const value = await this.tryGet(key);
    if (value === undefined) return this.load(key, fn, ttl, options);
    if (refreshThreshold > 0) await this.refreshIfDue(key, value, fn as () => unknown, ttl as any, refreshThreshold);
    return value as T;
  }

  /** The miss of {@link wrap}: joins the loader that is running for the key, or starts one. */
  load<T>(key: string, fn: () => T | Promise<T>, ttl?: Lifetime<T>, options?: LoadOptions): Promise<T> {
    return this.loadIf(key, fn, ttl, this.canStore, options);
  }

  /**
   * As {@link load}, storing only what `isCacheable` accepts. What was loaded while the key was
   * set, deleted or reset is not stored: it may be older than the change.
   */
  loadIf<T>(
    key: string,
    fn: () => T | Promise<T>,
    ttl: Lifetime<T>,
    isCacheable: (value: T) => boolean | Promise<boolean>,
    options?: LoadOptions,
  ): Promise<T> {
    const policy = options === undefined ? this.policy : loadPolicy(options, this.policy);
    const flight = this.flights.get(key) ?? this.start(key, fn, ttl, isCacheable, policy);
    // The usual case, without a further promise.
    if (flight.stale === undefined && policy.hard === Infinity) return flight.loading as Promise<T>;
    return this.answer<T>(key, flight, policy);
  }

  private start<T>(
    key: string,
    fn: () => T | Promise<T>,
    ttl: Lifetime<T>,
    isCacheable: (value: T) => boolean | Promise<boolean>,
    policy: LoadPolicy,
  ): Flight {
    const flight: Flight = { loading: Promise.resolve(), stale: undefined };
    if (policy.cluster) this.guardLoads();
    const keep = async (value: T, owner?: string): Promise<void> => {
      if (await isCacheable(value)) await this.fill(key, flight, value, ttl, owner);
    };
    const run = async (): Promise<T> => {
      try {
        const { store } = this;
        const lease = policy.cluster && store instanceof RedisStore ? leaseKey(key) : undefined;
        if (lease !== undefined) return await loadInCluster<T>(store as any as RedisStore, key, lease, async () => fn(), keep);
        const value = await fn();
        await keep(value);
        return value;
      } finally {
        if (this.flights.get(key) === flight) this.flights.delete(key);
      }
    };
    this.flights.set(key, flight);
    // Before the loader, which may take the event loop for long.
    if (this.stale) flight.stale = this.stale.find(key).catch(() => undefined);
    flight.loading = run();
    if (flight.stale || policy.hard !== Infinity) flight.loading.catch(() => undefined);
    return flight;
  }

  /** What a caller gets of a flight: what is loaded, or within the policy's bounds what has lapsed. */
  private async answer<T>(key: string, flight: Flight, policy: LoadPolicy): Promise<T> {
    const loading = flight.loading as Promise<T>;
    const stale = await flight.stale;
    if (stale === undefined) return within(loading, policy.hard, key);
    if (stale.age < policy.revalidate) {
      loading.catch((error: unknown) => this.report({ error, key, operation: 'set' }));
      return stale.value as T;
    }
    const inGrace = stale.age < policy.grace;
    try {
      return await within(loading, inGrace ? Math.min(policy.soft, policy.hard) : policy.hard, key);
    } catch (error) {
      if (!inGrace) throw error;
      this.report({ error, key, operation: 'get', data: stale.value });
      return stale.value as T;
    }
  }

  /** Refreshes the entry in the background when it has less than `threshold` left. */
  async refreshIfDue<T>(
    key: string,
    value: T,
    fn: () => T | Promise<T>,
    ttl: Milliseconds | ((value: T) => Milliseconds | undefined) | undefined,
    threshold: Milliseconds,
  ): Promise<void> {
    let left: number;
    try {
      left = await this.store.ttl(key);
    } catch (error) {
      return this.report({ error, key, operation: 'get' });
    }
    // Redis says -1 for an entry without expiry.
    if (left === -1 || left >= threshold || this.flights.has(key)) return;
    this.load(key, fn, typeof ttl === 'function' ? ttl(value) : ttl).catch((error: unknown) => {
      if (!this.options.onBackgroundRefreshError) return this.report({ error, key, operation: 'set', data: value });
      try {
        this.options.onBackgroundRefreshError(error);
      } catch (thrown) {
        this.report({ error: thrown, key, operation: 'set', data: value });
      }
    });
  }

  /** Whether any loader is running. */
  get hasFlights(): boolean {
    return this.flights.size > 0;
  }

  /** What is being loaded for `key` is older than a change that comes now. */
  outdate(key: string): void {
    if (this.flights.size > 0) this.flights.delete(key);
  }

  /** As {@link outdate}, for every key. */
  outdateAll(): void {
    this.flights.clear();
  }

  /** Changes of keys end the loads of other nodes as well. */
  private guardLoads(): void {
    if (this.store instanceof RedisStore) this.store.guardsLoads = true;
  }

  private readonly canStore = (value: unknown): boolean => {
    // The memory store leaves what it cannot hold alone; others reject it, as their `set` does.
    return !(this.store instanceof MemoryStore) || this.store.isCacheable(value);
  };

  private async fill<T>(
    key: string,
    flight: Flight,
    value: T,
    ttl: Lifetime<T>,
    owner?: string,
  ): Promise<void> {
    const lifetime = typeof ttl === 'function' ? ttl(value) : ttl;
    if (this.flights.get(key) !== flight) return;
    try {
      const { store } = this;
      const lease = owner === undefined ? undefined : leaseKey(key);
      if (lease !== undefined && store instanceof RedisStore) {
        // Not when the lease is gone: somebody has changed the key meanwhile, or is loading it anew.
        if (!(await store.setUnderLease(key, lease, value, lifetime, owner as string))) return;
      } else await store.set(key, value, lifetime);
      await this.stale?.put(key, value, lifetime ?? this.options.ttl);
    } catch (error) {
      if (error instanceof TypeError || this.store.isCacheable?.(value) === false) throw error;
      this.report({ error, key, operation: 'set', data: value });
    }
  }

  private async tryGet(key: string): Promise<unknown> {
    try {
      return await this.store.get(key);
    } catch (error) {
      if (error instanceof TypeError) throw error;
      this.report({ error, key, operation: 'get' });
      return undefined;
    }
  }

  /** Tells the listeners of the `error` event. */
  report(event: StoreErrorEvent): void {
    // Without a listener an EventEmitter would throw; and what a listener throws is not the caller's.
    for (const listener of this.events.listeners('error')) {
      try {
        listener(event);
      } catch (error) {
        process.emitWarning(`a listener of cache errors failed: ${String(error)}`, 'MortiseWarning');
      }
    }
  }
}
