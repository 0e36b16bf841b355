import type { ExclusiveContext } from './adapter';
import { lockFailures } from './failures';
import type { Grant } from './local-locks';

/** What a function that holds a local lock is given. The signal is made when it is asked for. */
export class Exclusive implements ExclusiveContext {
  readonly #grant: Grant;
  readonly #key: string;
  #watched: boolean;
  #controller: AbortController | undefined;
  #lapsed = false;

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
        this.#lapsed = !this.#grant.watch(() => this.lapse());
      }
      if (this.#lapsed) this.lapse();
    }
    return this.#controller.signal;
  }

  /** The lease has lapsed. */
  lapse(): void {
    this.#lapsed = true;
    this.#controller?.abort(lockFailures.lapsed(this.#key));
  }

  /** The function has settled: the end of the lease does not concern it any more. */
  settle(): void {
    if (this.#watched) this.#grant.unwatch();
    this.#watched = true;
    this.#grant.release();
  }
}
