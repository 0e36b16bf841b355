// What is on its way: Node stays alive for it, and one promise serves all messages of a part of a turn.

import { MortiseError } from '../errors';
import { Batch, type BatchArguments, Completions } from '../native';

const completions = new Completions();

/** Resolves when Rust is done; `start` says whether it was at once. */
export function waitFor(start: (listener: number, sequence: number) => boolean): Promise<void> {
  return completions.wait((sequence) => {
    if (start(completions.listener, sequence)) completions.settle(sequence, 0, undefined);
  });
}

/** Messages of one publisher, handed over in parts. */
export class Outgoing {
  private part: Promise<void> | undefined;
  private sequence = 0;
  private readonly batch: Batch;

  /** `publish` hands a part over; the listener is told when all of it is published, or that it is not. */
  constructor(publish: (listener: number, sequence: number, ...batch: BatchArguments) => void) {
    this.batch = new Batch((...batch) => {
      const { sequence } = this;
      this.part = undefined;
      try {
        publish(completions.listener, sequence, ...batch);
      } catch (error) {
        completions.settle(sequence, 0, error);
      }
    });
  }

  /** Adds a message. The promise is that of its part; nobody needs to wait for it. */
  add(values: readonly number[], channel: string, text: string): Promise<void> {
    const part = this.part ?? this.begin();
    this.batch.add(values, channel, text);
    return part;
  }

  /** Hands over what has been added. */
  flush(): void {
    this.batch.flush();
  }

  private begin(): Promise<void> {
    const part = completions.promise<void>();
    part.catch(() => undefined);
    this.part = part;
    this.sequence = completions.last;
    return part;
  }
}

/** The error, with the channel in its message. */
export function unpublished(error: unknown, channel: string): unknown {
  const { code, message } = error as MortiseError;
  if (typeof code !== 'string' || code === 'E_INVALID_ARGUMENT') return error;
  return new MortiseError(code, `publishing on ${channel}: ${message}`, { cause: error });
}
