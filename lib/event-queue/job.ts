import type { ProcessContext, QueueMessageOptions } from './adapter';
import { timeoutError } from './idle';

/** A message in the memory adapter, from `publish` to its end. */
export class Job {
  /** Rust's number for it, while it waits or runs. */
  slot = -1;
  /** How many jobs have had the slot, this one among them. */
  uses = 0;
  running = false;
  /** Given up by `close`: what its handler still says counts for nothing. */
  abandoned = false;
  /** Ends when it fails, whatever retries it has left. */
  cancelled = false;
  /** The abort controller, when the handler has asked for the signal. */
  private controller: AbortController | undefined;
  /** Why the signal has aborted, or will have when it is asked for. */
  private reason: DOMException | undefined;
  /** Whether it was processed in the end; `undefined` until it has ended. */
  processed: boolean | undefined;
  /** Told of the end, when `publish` waits for it. */
  onEnd: ((processed: boolean) => void) | undefined;
  /** Settles when it is on disk; for those that publish another with its id. */
  stored: Promise<void> | undefined;

  constructor(
    readonly channel: string,
    readonly id: string,
    readonly content: any,
    readonly options: QueueMessageOptions,
    public retried: number,
    /** Its number in the journal; 0 without one. */
    readonly seq: number,
    /** Until when it is, or was last, kept back, in milliseconds since 1970; 0: it never was. */
    public due = 0,
  ) {}

  /** Since when it has waited for its turn, in milliseconds since 1970. */
  get since(): number | undefined {
    return this.due || this.options.timestamp;
  }

  /** What the handler is given. The signal is made when it is asked for: most never do. */
  context(): ProcessContext {
    const job = this;
    return {
      id: this.id,
      retried: this.retried,
      get signal(): AbortSignal {
        return job.signal();
      },
      queueOptions: this.options,
    };
  }

  /** It will not run again in this adapter. */
  end(processed: boolean): void {
    this.processed = processed;
    this.onEnd?.(processed);
  }

  /** It will be tried again. */
  again(retried: number, due: number): void {
    this.retried = retried;
    this.due = due;
    this.controller = undefined;
    this.reason = undefined;
  }

  /** The handler has had its time. */
  timeOut(): void {
    this.abort(timeoutError());
  }

  /** The handler is to give up. */
  cancel(): void {
    this.cancelled = true;
    this.abort(new DOMException('The message was cancelled', 'AbortError'));
  }

  private abort(reason: DOMException): void {
    this.reason ??= reason;
    this.controller?.abort(this.reason);
  }

  private signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.reason) this.controller.abort(this.reason);
    }
    return this.controller.signal;
  }
}
