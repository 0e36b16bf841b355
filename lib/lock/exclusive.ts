import type { ExclusiveContext } from './adapter';
import { lockFailures } from './failures';
import type { Grant } from './grant';

/** What a function that holds a lock is given. The signal is made when it is asked for. */
export class Exclusive implements ExclusiveContext {
  readonly #grant: Grant;
  readonly #key: string;
  #watched: boolean;
  #controller: AbortController | undefined;
  #lost: Error | undefined;

  /** `watched`: someone calls {@link Exclusive.lapse} already; else it is seen to when needed. */
  constructor(grant: Grant, key: string, watched: boolean) {
    this.#grant = grant;
    this.#key = key;
    this.#watched = watched;
  }

  get fencingToken(): number {
    return this.#grant.token;
  }

  get signal(): AbortSignal {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (!this.#watched) {
        this.#watched = true;
        if (!this.#grant.watch((why) => this.lapse(why))) this.lapse();
      }
      if (this.#lost) this.lapse(this.#lost);
    }
    return this.#controller.signal;
  }

  /** The lease has ended, for that reason. */
  lapse(why: Error = lockFailures.lapsed(this.#key)): void {
    this.#lost = why;
    this.#controller?.abort(why);
  }

  /** Runs a function that holds the lock, and releases it when the function has settled. */
  async run<T>(fn: (context: ExclusiveContext) => T | Promise<T>): Promise<T> {
    try {
      return await fn(this);
    } finally {
      // The end of the lease does not concern the function any more.
      if (this.#watched) this.#grant.unwatch();
      this.#watched = true;
      const released = this.#grant.release();
      if (released) await released;
    }
  }
}
