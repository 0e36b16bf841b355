// This environment's way to the process's locks: the calls, and who waits for what.

import { binding, hold, listen, release as letGo } from '../native';
import { lockFailures } from './failures';
import type { Grant, HolderParts } from './grant';

declare module '../native' {
  interface Binding {
    lockJoin(listener: number): Handle;
    lockCells(locks: Handle): ArrayBuffer;
    lockRequest(locks: Handle, key: string, wait: number, ttl: number, watched: boolean): number;
    lockRelease(locks: Handle, slot: number, token: number): number;
    lockExtend(locks: Handle, slot: number, token: number, ttl: number): boolean;
    lockWatch(locks: Handle, slot: number, token: number): boolean;
    lockHolders(node: string): HolderParts[];
    lockKeys(): number;
    lockBytes(): number;
  }
}

const { lockRequest, lockRelease, lockExtend, lockWatch } = binding;

// What `lockRequest` and `lockRelease` answer, and what comes in the place of a slot.
const GRANTED = 1;
const WAITING = 2;
const HANDED_OVER = 2;
const TIMED_OUT = -1;

/** A lease, or a place in a line: where Rust finds it. */
export class LocalGrant implements Grant {
  constructor(
    readonly slot: number,
    readonly token: number,
  ) {}

  release(): void {
    if (lockRelease(locks, this.slot, this.token) === HANDED_OVER) handOver(cells[1], cells[0]);
  }

  extend(ttl: number): boolean {
    return lockExtend(locks, this.slot, this.token, ttl);
  }

  /** Calls `lapsed` when the lease lapses, until {@link unwatch}; false when it has ended already. */
  watch(lapsed: () => void): boolean {
    const held = lockWatch(locks, this.slot, this.token);
    if (held) watched.set(this.token, lapsed);
    return held;
  }

  unwatch(): void {
    watched.delete(this.token);
  }
}

/** A promise that waits for a key. */
interface Wait {
  readonly place: LocalGrant;
  readonly key: string;
  readonly by: object;
  readonly convert: (grant: LocalGrant, key: string) => unknown;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

const waits = new Map<number, Wait>();
const watched = new Map<number, () => void>();
const locks = binding.lockJoin(listen(hear));
const cells = new Float64Array(binding.lockCells(locks));

/**
 * Asks for a key: a grant now, or the promise of one, converted. `by` is who waits, for
 * {@link cancelWaits}.
 */
export function request<T>(
  by: object,
  key: string,
  wait: number,
  ttl: number,
  convert: (grant: LocalGrant, key: string) => T,
  watch = false,
): T | Promise<T> {
  const answer = lockRequest(locks, key, wait, ttl, watch);
  if (answer === GRANTED) return convert(new LocalGrant(cells[0], cells[1]), key);
  if (answer !== WAITING) throw lockFailures.locked(key);
  const place = new LocalGrant(cells[0], cells[1]);
  hold();
  return new Promise<T>((resolve, reject) => {
    waits.set(place.token, { place, key, by, convert, resolve: resolve as Wait['resolve'], reject });
  });
}

/** Rejects everything that `by` waits for. */
export function cancelWaits(by: object): void {
  const cancelled = [...waits.values()].filter((wait) => wait.by === by);
  // All of them first: giving one back that was granted meanwhile must not let in another.
  for (const wait of cancelled) settled(wait.place.token);
  for (const wait of cancelled) {
    wait.place.release();
    wait.reject(lockFailures.closed(wait.key));
  }
}

function settled(token: number): void {
  waits.delete(token);
  letGo();
}

function handOver(token: number, slot: number): void {
  const wait = waits.get(token);
  if (!wait) return;
  settled(token);
  wait.resolve(wait.convert(slot === wait.place.slot ? wait.place : new LocalGrant(slot, token), wait.key));
}

function hear(token: number, news: number): void {
  if (news >= 0) return handOver(token, news);
  if (news === TIMED_OUT) {
    const wait = waits.get(token);
    if (!wait) return;
    settled(token);
    return wait.reject(lockFailures.timedOut(wait.key));
  }
  const lapsed = watched.get(token);
  watched.delete(token);
  lapsed?.();
}

/** Says of a grant that was asked for with `watch` whom to call when it lapses. */
export function onLapse(grant: LocalGrant, lapsed: () => void): void {
  watched.set(grant.token, lapsed);
}
