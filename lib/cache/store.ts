// What a cache asks of its store: the interface of cache-manager 5, so that its stores, and those
// written for NocoBase, can be used as they are.

/** Milliseconds. */
export type Milliseconds = number;

/** A cache store, as cache-manager 5 defines it. Times are milliseconds. */
export interface Store {
  get<T = any>(key: string): Promise<T | undefined>;
  set(key: string, value: unknown, ttl?: Milliseconds): Promise<void>;
  del(key: string): Promise<void>;
  reset(): Promise<void>;
  mset(entries: [string, unknown][], ttl?: Milliseconds): Promise<void>;
  mget(...keys: string[]): Promise<unknown[]>;
  mdel(...keys: string[]): Promise<void>;
  keys(pattern?: string): Promise<string[]>;
  ttl(key: string): Promise<number>;
  /** Whether `set` takes a value. */
  isCacheable?(value: unknown): boolean;
}

/** Makes a store from its configuration: the settings of the store type, and those of the cache over them. */
export type StoreFactory<S extends Store = Store> = (config?: any) => S | Promise<S>;

/** A store that is still being made: every call waits for it, and rejects if it cannot be made. */
export function pendingStore(making: Promise<Store>): Store {
  // A failure is reported by the calls; without any, it is nobody's unhandled rejection.
  making.catch(() => undefined);
  const call = (method: Exclude<keyof Store, 'isCacheable'>) =>
    async (...values: any[]) => ((await making)[method] as (...values: any[]) => Promise<any>)(...values);
  return {
    get: call('get'), set: call('set'), del: call('del'), reset: call('reset'), mset: call('mset'),
    mget: call('mget'), mdel: call('mdel'), keys: call('keys'), ttl: call('ttl'),
  };
}
