import { binding } from '../native';
import { hostname } from 'node:os';
import type { ExclusiveContext, ILock, ILockAdapter, LockHolder, Releaser } from './adapter';
import { checkFunction, checkKey, checkTimeout, checkTtl } from './arguments';
import { Exclusive } from './exclusive';
import { describeHolder, releaser } from './grant';
import { KeyLock } from './key-lock';
import { cancelWaits, type LocalGrant, onLapse, request } from './local-locks';

/** How long an abandoned reservation is kept, in milliseconds. */
export const RESERVATION = 60_000;
/** The default of `maxHold`, in milliseconds. */
export const MAX_HOLD = 600_000;

/** Where a service reports; `app.logger` is one. */
export interface LockLogger {
  warn(message: string, ...details: unknown[]): void;
}

/** Options of {@link LocalLockAdapter}. */
export interface LocalLockAdapterOptions {
  /** The longest that `runExclusive` keeps a lock, in milliseconds. Defaults to 600 000 (10 minutes); `Infinity` for no end. */
  maxHold?: number;
  /** Defaults to a process warning. */
  logger?: LockLogger;
}

export const processWarnings: LockLogger = { warn: (message) => process.emitWarning(message, 'MortiseWarning') };

/**
 * The locks of this process, shared by all its managers and worker threads: first come, first
 * served, and not reentrant. A worker thread that ends gives back what it holds.
 */
export class LocalLockAdapter implements ILockAdapter {
  readonly #maxHold: number;
  readonly #logger: LockLogger;

  constructor(options: LocalLockAdapterOptions = {}) {
    const { maxHold = MAX_HOLD, logger = processWarnings } = options ?? {};
    checkTtl(maxHold, 'maxHold');
    this.#maxHold = maxHold;
    this.#logger = logger;
  }

  /** How many keys are held in this process. */
  static get keys(): number {
    return binding.lockKeys();
  }

  /** Bytes of native memory that the process's locks take. */
  static get bytes(): number {
    return binding.lockBytes();
  }

  async connect(): Promise<void> {}

  /** What waits by this adapter rejects with `E_LOCK_ABORTED`; what is held stays so until it is released or lapses. */
  async close(): Promise<void> {
    cancelWaits(this);
  }

  /** Waits for `key`, and holds it for at most `ttl` milliseconds. */
  acquire(key: string, ttl: number): Promise<Releaser> {
    try {
      checkKey(key);
      checkTtl(ttl);
      return Promise.resolve(request(this, key, Infinity, ttl, releaser));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Runs `fn` while `key` is held, for as long as `fn` takes up to `maxHold`. */
  async runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number): Promise<T> {
    checkKey(key);
    checkFunction(fn);
    checkTtl(ttl);
    const got = request(this, key, Infinity, this.#maxHold, this.#begin, true);
    const exclusive = got instanceof Exclusive ? got : await got;
    return exclusive.run(fn);
  }

  /** Tries for `key`, for `timeout` milliseconds at most; with 0 it is decided before the call returns. */
  tryAcquire(key: string, timeout = 0): Promise<ILock> {
    try {
      checkKey(key);
      checkTimeout(timeout);
      return Promise.resolve(request(this, key, timeout, RESERVATION, this.#reserve));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** The keys that are held in this process. */
  holders(): LockHolder[] {
    return binding.lockHolders(`${hostname()}:${process.pid}`).map(describeHolder);
  }

  readonly #again = (key: string, ttl: number) => request(this, key, Infinity, ttl, itself);
  readonly #reserve = (grant: LocalGrant, key: string) => new KeyLock(key, grant, this.#again);

  // The lease needs no renewal: who could renew it and who holds it end together.
  readonly #begin = (grant: LocalGrant, key: string) => {
    const exclusive = new Exclusive(grant, key, true);
    onLapse(grant, () => {
      exclusive.lapse();
      this.#logger.warn(`lock "${key}" has lapsed: it was held for longer than maxHold (${this.#maxHold} ms)`);
    });
    return exclusive;
  };
}

const itself = (grant: LocalGrant): LocalGrant => grant;
