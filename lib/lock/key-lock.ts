import type { ExclusiveContext, ILock, Releaser } from './adapter';
import { checkFunction, checkTtl, DEFAULT_TTL } from './arguments';
import { Exclusive } from './exclusive';
import { lockFailures } from './failures';
import { type Grant, releaser } from './grant';

/** Waits for the key of a lock, to be held for `ttl` milliseconds. */
export type Request = (key: string, ttl: number) => Grant | Promise<Grant>;

/** A lock that was tried for and got: a reservation at first, then a lease. */
export class KeyLock implements ILock {
  readonly #key: string;
  readonly #request: Request;
  #grant: Grant;
  #reserved = true;

  constructor(key: string, grant: Grant, request: Request) {
    this.#key = key;
    this.#grant = grant;
    this.#request = request;
  }

  get fencingToken(): number {
    return this.#grant.token;
  }

  async acquire(ttl: number = DEFAULT_TTL): Promise<Releaser> {
    return releaser(await this.#lease(ttl));
  }

  async runExclusive<T>(fn: (context: ExclusiveContext) => T | Promise<T>, ttl: number = DEFAULT_TTL): Promise<T> {
    checkFunction(fn);
    return new Exclusive(await this.#lease(ttl), this.#key, false).run(fn);
  }

  async extend(ttl: number): Promise<void> {
    checkTtl(ttl);
    if (this.#reserved || !(await this.#grant.extend(ttl))) throw lockFailures.notActive(this.#key);
  }

  async release(): Promise<void> {
    this.#reserved = false;
    await this.#grant.release();
  }

  async #lease(ttl: number): Promise<Grant> {
    checkTtl(ttl);
    if (this.#reserved) {
      this.#reserved = false;
      if (await this.#grant.extend(ttl)) return this.#grant;
    }
    this.#grant = await this.#request(this.#key, ttl);
    return this.#grant;
  }
}
