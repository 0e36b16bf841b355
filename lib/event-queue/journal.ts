// The journal's JavaScript side: batches of what is to be written, and promises of what was.

import { MortiseError } from '../errors';
import { Batch, Completions, type Handle } from '../native';
import { binding } from './binding';
import type { Job } from './job';

/** A message as the journal gives it back; see `Entry` in `src/event_queue/journal.rs`. */
export interface JournalEntry {
  seq: number;
  id: string | null;
  channel: string;
  content: string | null;
  options: string;
  retried: number;
  due: number;
  dead: boolean;
  error: string | null;
}

const DONE = -1;
const DEAD = -2;

/** Keeps messages on disk from before `publish` resolves until they are processed. */
export class Journal {
  readonly entries: JournalEntry[];
  /** Where a file that could not be read was put. */
  readonly setAside: string | null;
  private readonly handle: Handle;
  private readonly written = new Completions();
  private readonly appends = new Batch((...batch) =>
    binding.journalAppend(this.handle, this.written.listener, ...batch));
  private readonly changes = new Batch((...batch) => {
    // Messages before what became of them: a handler that throws at once may be faster than its message.
    this.appends.flush();
    binding.journalChange(this.handle, ...batch);
  });
  private next: number;

  /** Throws `E_JOURNAL_LOCKED` when another process or app has it open. */
  constructor(path: string) {
    this.handle = binding.journalOpen(path);
    [this.entries, this.setAside] = JSON.parse(binding.journalEntries(this.handle));
    this.next = this.entries.reduce((last, { seq }) => Math.max(last, seq), 0) + 1;
  }

  /** The number of the next message. */
  number(): number {
    return this.next++;
  }

  /** Writes a message; resolves when it is on disk. */
  append(job: Job, content: string | undefined, options: string): Promise<void> {
    return this.written.wait((sequence) =>
      this.appends.add([sequence, job.seq, job.retried, job.due, content === undefined ? 0 : 1], job.id, job.channel, content ?? '', options));
  }

  done(seq: number): void {
    this.changes.add([seq, DONE]);
  }

  dead(seq: number, error: string): void {
    this.changes.add([seq, DEAD], error);
  }

  retried(seq: number, times: number, due: number): void {
    this.changes.add([seq, times, due]);
  }

  /** Writes what is left, and closes the file. */
  async close(): Promise<void> {
    this.appends.flush();
    this.changes.flush();
    try {
      await this.written.wait((sequence) => binding.journalClose(this.handle, this.written.listener, sequence));
    } finally {
      this.written.end();
    }
  }
}

/** The JSON of a message; `undefined` for `undefined`. Throws `E_NOT_SERIALIZABLE`. */
export function serialize(channel: string, value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    const text = `the message for event queue channel ${channel} cannot be written as JSON`;
    throw new MortiseError('E_NOT_SERIALIZABLE', text, { cause });
  }
}
