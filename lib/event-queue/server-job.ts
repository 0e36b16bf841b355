import type { ProcessContext, QueueMessageOptions } from './adapter';

/** A message from a server, while its handler runs. */
export class ServerJob implements ProcessContext {
  /** Cancelled: its failure is its end. */
  cancelled = false;
  /** What its handler still says counts for nothing. */
  abandoned = false;
  /** Its outcome is known: a promise that settles once more counts for nothing. */
  ended = false;
  private reason: unknown;
  private controller: AbortController | undefined;

  constructor(
    /** Rust's number for this run. */
    readonly ticket: number,
    readonly id: string,
    readonly retried: number,
    readonly queueOptions: QueueMessageOptions,
    readonly content: any,
    /** When the handler was called, by `performance.now()`. */
    readonly begun: number,
  ) {}

  /** Made when it is asked for: most handlers never do. */
  get signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.reason !== undefined) this.controller.abort(this.reason);
    }
    return this.controller.signal;
  }

  abort(reason: unknown): void {
    if (this.reason !== undefined) return;
    this.reason = reason;
    this.controller?.abort(reason);
  }
}
