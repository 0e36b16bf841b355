import type { ProcessContext, QueueMessageOptions } from './adapter';

/** A message in the memory adapter, from `publish` to its end. */
export class Job {
  /** Rust's number for it, while it waits or runs. */
  slot = -1;
  /** How many jobs have had the slot, this one among them. */
  uses = 0;
  running = false;
  /** Given up by `close`: what its handler still says counts for nothing. */
  abandoned = false;
  timedOut = false;
  /** The abort controller, when the handler has asked for the signal. */
  controller: AbortController | undefined;
  /** Whether it was processed in the end; `undefined` until it has ended. */
  processed: boolean | undefined;
  /** Told of the end, when `publish` waits for it. */
  onEnd: ((processed: boolean) => void) | undefined;

  constructor(
    readonly channel: string,
    readonly id: string,
    readonly content: any,
    readonly options: QueueMessageOptions,
    public retried: number,
    /** Its number in the journal; 0 without one. */
    readonly seq: number,
  ) {}

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

  /** The handler has had its time. */
  timeOut(): void {
    this.timedOut = true;
    this.controller?.abort(timeoutError());
  }

  private signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.timedOut) this.timeOut();
    }
    return this.controller.signal;
  }
}

function timeoutError(): DOMException {
  return new DOMException('The operation was aborted due to timeout', 'TimeoutError');
}
