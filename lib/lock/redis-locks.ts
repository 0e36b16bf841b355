// This environment's way to the locks of an app on a Redis server: the calls, who waits for what, and
// who hears of the end of a lease.

import { Batch, binding, Completions, type Ending, type Handle, hold, listen, release as letGo, unlisten } from '../native';
import type { HealthParts } from '../redis/binding';
import { describeHealth, lineOf, type RedisHealth } from '../redis/connection';
import type { LockHolder } from './adapter';
import { lockFailures } from './failures';
import { describeHolder, type Grant, type HolderParts } from './grant';

declare module '../native' {
  interface Binding {
    redisLockOpen(options: string, app: string, node: string, gracePeriod: number, listener: number, healthListener: number): Handle;
    redisLockBase(locks: Handle): number;
    redisLockReady(locks: Handle, listener: number, sequence: number): void;
    redisLockSubmit(locks: Handle, listener: number, ...batch: BatchArguments): void;
    redisLockIsHeld(locks: Handle, number: number): boolean;
    redisLockHolders(locks: Handle, listener: number, sequence: number): void;
    redisLockClose(locks: Handle, listener: number): void;
    redisLockSize(locks: Handle): number;
  }
}

// What comes in the place of a token, and the kinds of commands; `src/node/redis_lock.rs` has the same numbers.
const REFUSED = -1;
const TIMED_OUT = -2;
const LOST = -4;
const OVERHELD = -5;
const FAILED = -6;
const REQUEST = 0;
const RELEASE = 1;
const EXTEND = 2;
/** Leases below this many milliseconds may be over before they are heard of, and are handed out all the same. */
const SHORT = 100;
/** How often a lease that was over when it was heard of is asked for again, before it is handed out all the same. */
const LATE = 3;
/** The subject of the event that tells of the end. */
const RETIRED = -1;

/** Milliseconds as Rust takes them: -1 for ever. */
const forRust = (milliseconds: number): number => (milliseconds === Infinity ? -1 : milliseconds);

/** A wish for a key; times are milliseconds. */
export interface Wish<T> {
  key: string;
  /** How long to wait at most; 0 not to wait. */
  wait: number;
  /** How long the lease lasts on the server without a renewal. */
  lease: number;
  /** How long it is renewed for. */
  hold: number;
  convert(grant: RedisGrant, key: string): T;
}

/** A wish whose promise is not settled; `end` is when its wait is over, by `performance.now()`. */
class Wait {
  /** How often it was granted and had lapsed when that was heard. */
  late = 0;

  constructor(
    readonly wish: Wish<any>,
    readonly end: number,
    readonly resolve: (value: any) => void,
    readonly reject: (error: unknown) => void,
  ) {}
}

/** Where lines for the log go. */
export type Line = (level: 'debug' | 'info' | 'warn', text: string) => void;

/** A lease on a server. */
export class RedisGrant implements Grant {
  constructor(
    private readonly locks: RedisLocks,
    readonly key: string,
    readonly number: number,
    readonly token: number,
  ) {}

  /** Resolves when the server has it; also when the server is away, for the lease ends by itself. */
  release(): Promise<void> {
    return this.locks.release(this);
  }

  extend(ttl: number): Promise<boolean> {
    return this.locks.extend(this, ttl);
  }

  watch(lapsed: (why?: Error) => void): boolean {
    const held = this.locks.isHeld(this);
    if (held) this.onEnd(lapsed);
    return held;
  }

  /** As {@link watch}, for a lease that was granted just now. */
  onEnd(ended: (why: Error) => void): void {
    this.locks.watched.set(this.number, (value) => ended(ending(this.key, value)));
  }

  unwatch(): void {
    this.locks.watched.delete(this.number);
  }
}

/** The locks, from being opened until they are closed and nothing is held any more. */
export class RedisLocks {
  /** Who hears of the end of a lease, by its number. */
  readonly watched = new Map<number, (value: number) => void>();
  private readonly waits = new Map<number, Wait>();
  private readonly handle: Handle;
  private readonly answers = new Completions({ convert: (value, payload) => payload ?? value === 1 });
  private readonly listener = listen((number, value, payload) => this.hear(number, value, payload));
  private readonly healthListener = listen((_, __, payload) => this.changed(describeHealth(payload as HealthParts)));
  private readonly batch = new Batch((...batch) => binding.redisLockSubmit(this.handle, this.answers.listener, ...batch));
  private state: RedisHealth['state'] | undefined;
  private warned = false;
  private closed = false;
  private retired = false;
  private next: number;

  /** `options` is the connection's, as JSON. Begins to connect. */
  constructor(options: string, app: string, node: string, gracePeriod: number, private readonly line: Line) {
    this.handle = binding.redisLockOpen(options, app, node, gracePeriod, this.listener, this.healthListener);
    this.next = binding.redisLockBase(this.handle);
  }

  /** Resolves when locks are granted; rejects with `E_UNAVAILABLE` when the server cannot be reached. */
  ready(): Promise<void> {
    return this.answers.wait((sequence) => binding.redisLockReady(this.handle, this.answers.listener, sequence));
  }

  request<T>(wish: Wish<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      hold();
      // A look at the clock only where it matters: it costs as much as a fifth of the rest.
      const end = wish.wait === 0 || wish.wait === Infinity ? wish.wait : performance.now() + wish.wait;
      this.ask(new Wait(wish, end, resolve, reject), wish.wait);
    });
  }

  release(grant: RedisGrant): Promise<void> {
    this.watched.delete(grant.number);
    // There is nothing left then that could be released.
    if (this.retired) return Promise.resolve();
    const released = this.answers.promise<void>('', RELEASED);
    this.batch.add([RELEASE, grant.number, this.answers.last], grant.key);
    return released;
  }

  extend(grant: RedisGrant, ttl: number): Promise<boolean> {
    if (this.retired) return Promise.resolve(false);
    const extended = this.answers.promise<boolean>(grant.key, EXTENDED);
    this.batch.add([EXTEND, grant.number, this.answers.last, forRust(ttl), forRust(ttl)], '');
    return extended;
  }

  isHeld(grant: RedisGrant): boolean {
    return binding.redisLockIsHeld(this.handle, grant.number);
  }

  async holders(): Promise<LockHolder[]> {
    this.batch.flush();
    const found = await this.answers.wait<HolderParts[]>((sequence) => binding.redisLockHolders(this.handle, this.answers.listener, sequence));
    return found.map(describeHolder);
  }

  /** Rejects all that waits; what is held stays so until it is released or its lease ends. */
  close(): void {
    this.batch.flush();
    this.closed = true;
    for (const wait of this.waits.values()) {
      letGo();
      wait.reject(lockFailures.closed(wait.wish.key));
    }
    binding.redisLockClose(this.handle, this.listener);
  }

  private ask(wait: Wait, time: number): void {
    const { key, lease, hold } = wait.wish;
    const number = this.next++;
    this.waits.set(number, wait);
    this.batch.add([REQUEST, number, forRust(time), forRust(lease), forRust(hold)], key);
  }

  private hear(number: number, value: number, payload: unknown): void {
    if (number === RETIRED) return this.retire();
    const wait = this.waits.get(number);
    if (wait) {
      this.waits.delete(number);
      if (this.closed) {
        // Its promise is rejected already; what was granted meanwhile is given back.
        if (value >= 0) void new RedisGrant(this, wait.wish.key, number, value).release();
        return;
      }
      if (value >= 0) return this.granted(wait, number, value);
      letGo();
      return wait.reject(refusal(wait.wish.key, value, payload));
    }
    const ended = this.watched.get(number);
    this.watched.delete(number);
    ended?.(value);
  }

  private granted(wait: Wait, number: number, token: number): void {
    const { wish, end } = wait;
    const grant = new RedisGrant(this, wish.key, number, token);
    if (wish.lease < SHORT || wait.late >= LATE || this.isHeld(grant)) {
      letGo();
      return wait.resolve(wish.convert(grant, wish.key));
    }
    // It has lapsed before this thread came to hear of it, so it is not handed out.
    wait.late++;
    void grant.release();
    this.ask(wait, end === 0 ? 0 : Math.max(1, end - performance.now()));
  }

  private changed(health: RedisHealth): void {
    const before = this.state;
    if (health.state === before) return;
    this.state = health.state;
    const line = lineOf(before, health);
    if (line) this.line(...line);
    const { evictionPolicy: policy } = health;
    if (health.state !== 'ready' || this.warned || policy === undefined || policy === 'noeviction') return;
    this.warned = true;
    this.line('warn', `${health.server} may evict keys (maxmemory-policy ${policy}), and locks among them; it should be noeviction`);
  }

  private retire(): void {
    this.retired = true;
    unlisten(this.listener);
    unlisten(this.healthListener);
    this.answers.end();
  }
}

/** Of a release: that it could not be sent is no failure of the caller's. */
const RELEASED: Ending = { convert: () => undefined, recover: () => undefined };

/** Of an extension. */
const EXTENDED: Ending = {
  convert: (value) => value === 1,
  recover: (error, key) => {
    throw lockFailures.failed(key, error);
  },
};

function refusal(key: string, value: number, payload: unknown): unknown {
  if (value === REFUSED) return lockFailures.locked(key);
  if (value === TIMED_OUT) return lockFailures.timedOut(key);
  return value === FAILED ? lockFailures.failed(key, payload) : lockFailures.lost(key);
}

function ending(key: string, value: number): Error {
  if (value === OVERHELD) return lockFailures.overheld(key);
  return value === LOST ? lockFailures.lost(key) : lockFailures.lapsed(key);
}
