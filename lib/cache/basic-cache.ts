import { EventEmitter } from 'node:events';
import { MemoryStore } from './memory-store';
import type { Milliseconds, Store } from './store';

/** Options that concern the cache in front of a store. */
export interface BasicCacheOptions {
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

/** The loader that is running for a key, and everybody's wait for it. */
interface Flight {
  result: Promise<unknown>;
}

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

  constructor(
    store: S,
    private readonly options: BasicCacheOptions = {},
  ) {
    this.store = store;
    this.refreshThreshold = options.refreshThreshold ?? 0;
  }

  /** Puts the store itself in place of the one that waits for it. */
  become(store: S): void {
    this.store = store;
  }

  async get<T = any>(key: string): Promise<T | undefined> {
    return this.store.get<T>(key);
  }

  async set(key: string, value: unknown, ttl?: Milliseconds): Promise<void> {
    this.outdate(key);
    await this.store.set(key, value, ttl);
  }

  async del(key: string): Promise<void> {
    this.outdate(key);
    await this.store.del(key);
  }

  async reset(): Promise<void> {
    this.outdateAll();
    await this.store.reset();
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
  ): Promise<T> {
    const value = await this.tryGet(key);
    if (value === undefined) return this.load(key, fn, ttl);
    if (refreshThreshold > 0) await this.refreshIfDue(key, value, fn as () => unknown, ttl as any, refreshThreshold);
    return value as T;
  }

  /** The miss of {@link wrap}: joins the loader that is running for the key, or starts one. */
  load<T>(key: string, fn: () => T | Promise<T>, ttl?: Milliseconds | ((value: T) => Milliseconds | undefined)): Promise<T> {
    return this.loadIf(key, fn, ttl, this.canStore);
  }

  /**
   * As {@link load}, storing only what `isCacheable` accepts. What was loaded while the key was
   * set, deleted or reset is not stored: it may be older than the change.
   */
  loadIf<T>(
    key: string,
    fn: () => T | Promise<T>,
    ttl: Milliseconds | ((value: T) => Milliseconds | undefined) | undefined,
    isCacheable: (value: T) => boolean | Promise<boolean>,
  ): Promise<T> {
    const running = this.flights.get(key);
    if (running) return running.result as Promise<T>;
    const flight: Flight = { result: Promise.resolve() };
    const run = async (): Promise<T> => {
      try {
        const value = await fn();
        if (await isCacheable(value)) await this.fill(key, flight, value, ttl);
        return value;
      } finally {
        if (this.flights.get(key) === flight) this.flights.delete(key);
      }
    };
    this.flights.set(key, flight);
    const result = run();
    flight.result = result;
    return result;
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

  private readonly canStore = (value: unknown): boolean => {
    // The memory store leaves what it cannot hold alone; others reject it, as their `set` does.
    return !(this.store instanceof MemoryStore) || this.store.isCacheable(value);
  };

  private async fill<T>(
    key: string,
    flight: Flight,
    value: T,
    ttl: Milliseconds | ((value: T) => Milliseconds | undefined) | undefined,
  ): Promise<void> {
    const lifetime = typeof ttl === 'function' ? ttl(value) : ttl;
    if (this.flights.get(key) !== flight) return;
    try {
      await this.store.set(key, value, lifetime);
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

  private report(event: StoreErrorEvent): void {
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
