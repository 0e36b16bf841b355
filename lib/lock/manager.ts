import { MortiseError, invalid } from '../errors';
import type { RedisOptions } from '../redis/options';
import type { ExclusiveContext, ILock, ILockAdapter, LockHolder, Releaser } from './adapter';
import { checkFunction, checkKey, checkTimeout, checkTtl, DEFAULT_TTL } from './arguments';
import { LocalLockAdapter, type LockLogger } from './local-adapter';
import { RedisLockAdapter } from './redis-adapter';

const KNOWN = ['app', 'defaultAdapter', 'gracePeriod', 'logger', 'maxHold', 'redis', 'url'];

/** Options of {@link LockManager}. */
export interface LockManagerOptions {
  /** The adapter that is used, by its name: `'local'` (default), `'redis'`, or one that is registered. */
  defaultAdapter?: string;
  /** On Redis: whose locks they are. Defaults to the app's name under `createApp` and `install`, else to `'main'`. */
  app?: string;
  /** On Redis, in milliseconds: see {@link RedisLockAdapterOptions.gracePeriod}. */
  gracePeriod?: number;
  /** The longest that `runExclusive` of our adapters keeps a lock, in milliseconds. Defaults to 600 000 (10 minutes); `Infinity` for no end. */
  maxHold?: number;
  /** Where lapses are reported. Defaults to process warnings. */
  logger?: LockLogger;
  /** On Redis: the server's URL, or the connection's options. */
  url?: string | RedisOptions;
  /** The same, when `url` is absent. */
  redis?: string | RedisOptions;
}

/** How an adapter is made: `new Adapter(options)`. */
export interface LockAdapterConfig<C extends ILockAdapter = ILockAdapter> {
  Adapter: new (...args: any[]) => C;
  options?: Record<string, any>;
}

/**
 * Locks by name, on the adapter of `defaultAdapter`, which is made and connected on first use.
 * After {@link LockManager.close} the next use makes and connects it anew.
 */
export class LockManager {
  readonly #name: string;
  readonly #registry = new Map<string, LockAdapterConfig>();
  /** What `'redis'` is unless somebody registers another, as plugins of NocoBase do. */
  readonly #redis: LockAdapterConfig;
  /** The connected adapter. */
  #adapter: ILockAdapter | undefined;
  #connecting: Promise<ILockAdapter> | undefined;

  constructor(options: LockManagerOptions = {}) {
    const unknown = Object.keys(options).filter((name) => !KNOWN.includes(name));
    if (unknown.length > 0) {
      throw invalid(`unknown option of LockManager: ${unknown.join(', ')}; known are ${KNOWN.join(', ')}`);
    }
    const { app, defaultAdapter, gracePeriod, logger, maxHold, redis, url = redis } = options;
    if (defaultAdapter != null && typeof defaultAdapter !== 'string') {
      throw invalid('defaultAdapter must be the name of a lock adapter');
    }
    if (maxHold !== undefined) checkTtl(maxHold, 'maxHold');
    this.#name = defaultAdapter || 'local';
    this.registerAdapter('local', { Adapter: LocalLockAdapter, options: { logger, maxHold } });
    const server = typeof url === 'string' ? { url } : url;
    this.#redis = { Adapter: RedisLockAdapter, options: { ...server, app, gracePeriod, logger, maxHold } };
  }

  /** Whose locks they are, and where lapses are reported, from the next connect on. @internal */
  belongTo(app: string, logger: LockLogger | undefined): void {
    Object.assign(this.#redis.options as object, { app, logger });
    const local = this.#registry.get('local')?.options;
    if (local) local.logger = logger;
  }

  /** Makes an adapter known. A name that is taken throws. */
  registerAdapter(name: string, config: LockAdapterConfig): void {
    if (typeof config?.Adapter !== 'function') throw invalid(`the lock adapter "${name}" needs a class as its Adapter`);
    if (this.#registry.has(name)) {
      const message = `this registry does not allow to override existing keys: "${name}"`;
      throw new MortiseError('E_ADAPTER_EXISTS', message);
    }
    this.#registry.set(name, config);
  }

  /**
   * Waits for `key`, first come, first served, and holds it for at most `ttl` milliseconds: then
   * it lapses and the next is let in. Fractions are rounded up; `Infinity` is for ever.
   * @param ttl defaults to 500
   * @returns the function that releases it
   */
  acquire(key: string, ttl: number = DEFAULT_TTL): Promise<Releaser> {
    try {
      checkKey(key);
      checkTtl(ttl);
      const adapter = this.#adapter;
      if (adapter) return Promise.resolve(adapter.acquire(key, ttl));
      return this.#first((adapter) => adapter.acquire(key, ttl));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Runs `fn` while `key` is held, and releases it when `fn` settles. The lease of `ttl`
   * milliseconds is renewed while `fn` runs, for no longer than `maxHold`: then the lock lapses
   * and `signal` aborts.
   * @param ttl defaults to 500
   * @returns what `fn` returns
   */
  runExclusive<T>(
    key: string,
    fn: (context: ExclusiveContext) => T | Promise<T>,
    ttl: number = DEFAULT_TTL,
  ): Promise<T> {
    try {
      checkKey(key);
      checkFunction(fn);
      checkTtl(ttl);
      const adapter = this.#adapter;
      if (adapter) return Promise.resolve(adapter.runExclusive(key, fn, ttl));
      return this.#first((adapter) => adapter.runExclusive(key, fn, ttl));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Tries for `key` without waiting, or for at most `timeout` milliseconds.
   * @param timeout defaults to 0: on the local adapter it is decided before the call returns
   * @throws LockAcquireError `E_LOCK_LOCKED` without a timeout, `E_LOCK_TIMEOUT` after one
   */
  tryAcquire(key: string, timeout: number = 0): Promise<ILock> {
    try {
      checkKey(key);
      checkTimeout(timeout);
      const adapter = this.#adapter;
      if (adapter) return Promise.resolve(adapter.tryAcquire(key, timeout));
      return this.#first((adapter) => adapter.tryAcquire(key, timeout));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * The keys that are held now: on the local adapter in this process, on Redis on all nodes of the app.
   *
   * Rejects with `E_UNSUPPORTED` when the adapter cannot tell.
   */
  async holders(): Promise<LockHolder[]> {
    const list = (adapter: ILockAdapter): LockHolder[] | Promise<LockHolder[]> => {
      if (adapter.holders) return adapter.holders();
      throw new MortiseError('E_UNSUPPORTED', `lock adapter "${this.#name}" does not tell who holds what`);
    };
    return this.#adapter ? list(this.#adapter) : this.#first(list);
  }

  /** Closes the adapter, if one is in use. May be repeated. */
  async close(): Promise<void> {
    const connecting = this.#connecting;
    const adapter = this.#adapter;
    this.#connecting = undefined;
    this.#adapter = undefined;
    // One that could not be connected has told its callers, and is closed already.
    await (adapter ?? (await connecting?.catch(() => undefined)))?.close();
  }

  /** A call before the adapter is there. The local one needs no connection, so the call is not put off. */
  #first<T>(call: (adapter: ILockAdapter) => T | Promise<T>): Promise<T> {
    const config = this.#config();
    if (config.Adapter !== LocalLockAdapter) return (this.#connecting ??= this.#connect(config)).then(call);
    this.#adapter = new LocalLockAdapter(config.options);
    return Promise.resolve(call(this.#adapter));
  }

  #connect({ Adapter, options }: LockAdapterConfig): Promise<ILockAdapter> {
    const adapter = new Adapter(options);
    const connecting = Promise.resolve(adapter.connect()).then(
      () => {
        if (this.#connecting === connecting) this.#adapter = adapter;
        return adapter;
      },
      async (error) => {
        if (this.#connecting === connecting) this.#connecting = undefined;
        // The next call makes another; this one is to try no longer.
        await (async () => adapter.close())().catch(() => undefined);
        throw error;
      },
    );
    return connecting;
  }

  #config(): LockAdapterConfig {
    const config = this.#registry.get(this.#name);
    if (config) return config;
    if (this.#name === 'redis') return this.#redis;
    throw new MortiseError('E_ADAPTER_NOT_REGISTERED', `Lock adapter "${this.#name}" not registered`);
  }
}
