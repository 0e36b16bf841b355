import type { ExclusiveContext, ILock, Releaser } from './adapter';
import { checkFunction, checkTtl, DEFAULT_TTL } from './arguments';
import { Exclusive } from './exclusive';
import { lockFailures } from './failures';
import { releaser, request, type Grant } from './local-locks';

/** A local lock that was tried for and got: a reservation at first, then a lease. */
export class LocalLock implements ILock {
  readonly #by: object;
  readonly #key: string;
  #grant: Grant;
  #reserved = true;

  constructor(by: object, grant: Grant, key: string) {
    this.#by = by;
    this.#grant = grant;
    this.#key = key;
  }

  get fencingToken(): number {
    return this.#grant.token;
  }

  async acquire(ttl: number = DEFAULT_TTL): Promise<Releaser> {
    return releaser(await this.#lease(ttl));
  }

  async runExclusive<T>(fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number = DEFAULT_TTL): Promise<T> {
    checkFunction(fn);
    const exclusive = new Exclusive(await this.#lease(ttl), this.#key, false);
    try {
      return await fn(exclusive);
    } finally {
      exclusive.settle();
    }
  }

  async extend(ttl: number): Promise<void> {
    checkTtl(ttl);
    if (this.#reserved || !this.#grant.extend(ttl)) throw lockFailures.notActive(this.#key);
  }

  async release(): Promise<void> {
    this.#reserved = false;
    this.#grant.release();
  }

  #lease(ttl: number): Grant | Promise<Grant> {
    checkTtl(ttl);
    if (this.#reserved) {
      this.#reserved = false;
      if (this.#grant.extend(ttl)) return this.#grant;
    }
    return request(this.#by, this.#key, Infinity, ttl, (grant) => (this.#grant = grant));
  }
}
