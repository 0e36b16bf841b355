import { hostname } from 'node:os';
import type { Logger } from '../app/logger';
import { invalid } from '../errors';
import { binding } from '../redis/binding';
import { type RedisOptions, serializeOptions } from '../redis/options';
import type { ExclusiveContext, ILock, ILockAdapter, LockHolder, Releaser } from './adapter';
import { checkFunction, checkKey, checkTimeout, checkTtl } from './arguments';
import { Exclusive } from './exclusive';
import { releaser } from './grant';
import { KeyLock } from './key-lock';
import { type LockLogger, MAX_HOLD, processWarnings, RESERVATION } from './local-adapter';
import { type RedisGrant, RedisLocks } from './redis-locks';

/** How long a reservation outlives its process, in milliseconds; it is renewed until it lapses. */
const RESERVED_LEASE = 5000;
const GRACE_PERIOD = 2000;

/** Options of {@link RedisLockAdapter}, beside those of the connection. Times are milliseconds. */
export interface RedisLockAdapterOptions extends RedisOptions {
  /** Whose locks they are: apps of different names do not meet on one server. Defaults to `'main'`. */
  app?: string;
  /** The longest that `runExclusive` keeps a lock. Defaults to 600 000 (10 minutes); `Infinity` for no end. */
  maxHold?: number;
  /**
   * How long nothing is granted after the server has started anew, was replaced or lost its data, so that
   * those who hold locks can put them back. The first use of a server waits so long, too. The same for
   * all nodes. Defaults to 2000.
   */
  gracePeriod?: number;
  /** Where lapses, and the server's going and coming, are reported. Defaults to process warnings. */
  logger?: LockLogger & Partial<Logger>;
}

/**
 * The locks of all nodes that name the same app on the same Redis or Valkey server: first come, first
 * served, not reentrant, with fencing tokens that grow with each grant of a key. A waiter is told of its
 * turn; nobody polls. What a process holds lapses within its ttl when the process dies, and is renewed
 * for `runExclusive` by a thread of its own, however busy the event loop is.
 *
 * While the server is away `acquire`, `runExclusive` and `tryAcquire` reject with `E_UNAVAILABLE` or
 * `E_TIMEOUT` after `commandTimeout`; who waits in line keeps its place over a short loss.
 */
export class RedisLockAdapter implements ILockAdapter {
  readonly #options: string;
  readonly #app: string;
  readonly #gracePeriod: number;
  readonly #maxHold: number;
  readonly #logger: LockLogger & Partial<Logger>;
  #locks: RedisLocks | undefined;

  /** A URL, or options. Throws a `TypeError` that names the option when they are wrong. Connects on first use. */
  constructor(options: string | RedisLockAdapterOptions = {}) {
    const { app = 'main', maxHold = MAX_HOLD, gracePeriod = GRACE_PERIOD, logger } = typeof options === 'string' ? {} as RedisLockAdapterOptions : options ?? {};
    if (typeof app !== 'string' || app === '') throw invalid(`app must be a string that is not empty: ${String(app)}`);
    checkTtl(maxHold, 'maxHold');
    checkTtl(gracePeriod, 'gracePeriod');
    this.#options = checkOptions(options ?? {});
    this.#app = app;
    this.#maxHold = maxHold;
    this.#gracePeriod = gracePeriod;
    this.#logger = logger ?? processWarnings;
  }

  /** Resolves when the server grants locks; rejects with `E_UNAVAILABLE` when it cannot be reached within `connectTimeout`. May be repeated. */
  async connect(): Promise<void> {
    await this.#open().ready();
  }

  /**
   * What waits by this adapter rejects with `E_LOCK_ABORTED`; what is held stays so until it is released
   * or lapses, and then the connection ends. The next use connects again. May be repeated.
   */
  async close(): Promise<void> {
    const locks = this.#locks;
    this.#locks = undefined;
    locks?.close();
  }

  /** Waits for `key`, and holds it for at most `ttl` milliseconds. */
  acquire(key: string, ttl: number): Promise<Releaser> {
    try {
      checkKey(key);
      checkTtl(ttl);
      return this.#open().request({ key, wait: Infinity, lease: ttl, hold: ttl, convert: releaser });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Runs `fn` while `key` is held, and renews the lease of `ttl` for as long as `fn` takes up to `maxHold`. */
  async runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number): Promise<T> {
    checkKey(key);
    checkFunction(fn);
    checkTtl(ttl);
    const lease = Math.min(ttl, this.#maxHold);
    const exclusive = await this.#open().request({ key, wait: Infinity, lease, hold: this.#maxHold, convert: this.#begin });
    return exclusive.run(fn);
  }

  /** Tries for `key`, for `timeout` milliseconds at most. */
  tryAcquire(key: string, timeout = 0): Promise<ILock> {
    try {
      checkKey(key);
      checkTimeout(timeout);
      return this.#open().request({ key, wait: timeout, lease: RESERVED_LEASE, hold: RESERVATION, convert: this.#reserve });
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The keys that are held now, on all nodes. Scans the server's keys. */
  async holders(): Promise<LockHolder[]> {
    return this.#open().holders();
  }

  #open(): RedisLocks {
    this.#locks ??= new RedisLocks(this.#options, this.#app, `${hostname()}:${process.pid}`, this.#gracePeriod, (level, text) => this.#tell(level, text));
    return this.#locks;
  }

  #tell(level: 'debug' | 'info' | 'warn', text: string): void {
    this.#logger[level]?.(text);
  }

  readonly #again = (key: string, ttl: number): Promise<RedisGrant> =>
    this.#open().request({ key, wait: Infinity, lease: ttl, hold: ttl, convert: (grant) => grant });
  readonly #reserve = (grant: RedisGrant, key: string): ILock => new KeyLock(key, grant, this.#again);

  readonly #begin = (grant: RedisGrant, key: string): Exclusive => {
    const exclusive = new Exclusive(grant, key, true);
    grant.onEnd((why) => {
      exclusive.lapse(why);
      this.#logger.warn(why.message);
    });
    return exclusive;
  };
}

/** The connection's options as JSON, checked. */
function checkOptions(options: string | RedisLockAdapterOptions): string {
  const serialized = serializeOptions(options);
  binding.redisShown(serialized);
  return serialized;
}
