// A key that is held, whatever holds it, and what callers are given of it.

import type { LockHolder, Releaser } from './adapter';

/** A lease. On a server what it does takes a round trip, and gives promises. */
export interface Grant {
  readonly token: number;
  /** Gives the key back; nothing when the lease has ended. */
  release(): void | Promise<void>;
  /** The lease now ends `ttl` milliseconds from now; false when it has ended already. */
  extend(ttl: number): boolean | Promise<boolean>;
  /** Calls `lapsed` when the lease ends before it is released, until {@link unwatch}; false when it has ended already. */
  watch(lapsed: (why?: Error) => void): boolean;
  unwatch(): void;
}

export function releaser(grant: Grant): Releaser {
  const release = () => grant.release();
  release.fencingToken = grant.token;
  return release;
}

/** A holder as the addon tells of it. */
export type HolderParts = [key: string, node: string, since: number, left: number, waiters: number, token: number];

export function describeHolder([key, node, since, left, waiters, fencingToken]: HolderParts): LockHolder {
  return { key, node, since, ttl: left < 0 ? Infinity : left, waiters, fencingToken };
}
