/** Gives a lock back. Calling it again, or after the lease has lapsed, does nothing. */
export interface Releaser {
  (): void | Promise<void>;
  /**
   * A number that grows with each grant of the key. What is guarded by the lock can refuse a
   * smaller one than it has seen, and so a writer that comes too late.
   */
  readonly fencingToken?: number;
}

/** What the function of `runExclusive` is called with. */
export interface ExclusiveContext {
  /** Aborts when the lock is lost while the function runs, with a `LockAbortError` as its reason. */
  readonly signal: AbortSignal;
  /** See {@link Releaser.fencingToken}. */
  readonly fencingToken: number;
}

/**
 * A lock that `tryAcquire` got. It is held already, as a reservation: use it by `acquire` or
 * `runExclusive`, or give it back by `release`. A reservation that is abandoned lapses after
 * 60 seconds.
 */
export interface ILock {
  /** Turns the reservation into a lease of `ttl` milliseconds. Called again, it waits for the lock anew. */
  acquire(ttl?: number): Releaser | Promise<Releaser>;
  /** Like `acquire`, then `fn`, then release. The lease lapses at `ttl` milliseconds unless it is extended. */
  runExclusive<T>(fn: (context: ExclusiveContext) => T | Promise<T>, ttl?: number): Promise<T>;
  /**
   * The lease now ends `ttl` milliseconds from now.
   * @throws LockAcquireError `E_LOCK_NOT_ACTIVE` without a lease, also when it has lapsed
   */
  extend?(ttl: number): void | Promise<void>;
  /** Gives the reservation or the lease back; otherwise does nothing. */
  release(): void | Promise<void>;
  /** See {@link Releaser.fencingToken}; that of the latest grant. */
  readonly fencingToken?: number;
}

/** A key that is held. Times are milliseconds. */
export interface LockHolder {
  key: string;
  /** The node that holds it: its host, its process, and on a server what tells nodes apart. */
  node: string;
  /** Since when, as `Date.now()` has it. */
  since: number;
  /** What is left of its lease; `Infinity` when that has no end. */
  ttl: number;
  /** How many wait for it. */
  waiters: number;
  /** See {@link Releaser.fencingToken}. */
  fencingToken: number;
}

/** What locks run on. Times are milliseconds. */
export interface ILockAdapter {
  connect(): Promise<void>;
  close(): Promise<void>;
  acquire(key: string, ttl: number): Releaser | Promise<Releaser>;
  runExclusive<T>(key: string, fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number): Promise<T>;
  tryAcquire(key: string, timeout?: number): ILock | Promise<ILock>;
  /** The keys that are held now, for people to look at. */
  holders?(): LockHolder[] | Promise<LockHolder[]>;
}
