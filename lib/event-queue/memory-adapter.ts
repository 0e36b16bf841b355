import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { inspect } from 'node:util';
import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import { listenWeakly } from '../native';
import type { DeadLetter, IEventQueueAdapter, QueueCounts, QueueEventOptions, QueueMessageOptions } from './adapter';
import { binding } from './binding';
import { Channel, type ChannelHost } from './channel';
import { MemoryDeadLetters } from './dead-letters';
import { Job } from './job';
import { Journal, serialize } from './journal';
import { merge, readSnapshot, removeSnapshot, saveSnapshot, type Snapshot } from './snapshot';

/** Options of {@link MemoryEventQueueAdapter}. */
export interface MemoryEventQueueOptions {
  /** The app whose folder is used. Default `'main'`. */
  appName?: string;
  /** Keep messages on disk from before `publish` resolves until they are processed. Default false. */
  journal?: boolean;
  /** The folder of the app's files. Default: `STORAGE_PATH`, or `storage`, with `apps/<app>` below it. */
  storagePath?: string;
  /** How long `close` waits for running handlers, in milliseconds. Default 10000. */
  closeTimeout?: number;
  logger?: Logger;
}

const DEFAULT_TIMEOUT = 15_000;
const CLOSE_TIMEOUT = 10_000;

/**
 * An event queue within the process. The message object itself is passed on, not a copy. `close`
 * writes what waits to a file, and `connect` loads it; with a journal it is on disk all along.
 */
export class MemoryEventQueueAdapter implements IEventQueueAdapter {
  private connected = false;
  private journal: Journal | undefined;
  private readonly channels = new Map<string, Channel>();
  private readonly byNumber: Channel[] = [];
  private readonly letters = new Map<string, MemoryDeadLetters>();
  private readonly uses: number[] = [];
  private readonly host: ChannelHost;
  /** What could not be written when the adapter was closed; the next close or connect takes it up. */
  private unsaved: Snapshot = {};
  private whenQuiet: (() => void) | undefined;
  private turn: Promise<unknown> = Promise.resolve();

  constructor(private readonly options: MemoryEventQueueOptions = {}) {
    const { closeTimeout = CLOSE_TIMEOUT } = options;
    if (typeof closeTimeout !== 'number' || !(closeTimeout >= 0)) {
      throw invalid(`closeTimeout is a number of milliseconds: ${String(closeTimeout)}`);
    }
    const listener = listenWeakly(this, MemoryEventQueueAdapter.heard);
    const handle = binding.queueNew(listener);
    const adapter = this;
    this.host = {
      handle,
      cells: new Float64Array(binding.queueCells(handle)),
      jobs: [],
      get fetching() {
        return adapter.connected;
      },
      logger: options.logger,
      finish: (job, failed, error) => this.finish(job, failed, error),
    };
  }

  isConnected(): boolean {
    return this.connected;
  }

  /** Loads what waited when the adapter was closed, and begins to fetch. Nothing when it is connected. */
  connect(): Promise<void> {
    return this.inTurn(async () => {
      if (this.connected) return;
      if (this.options.journal) this.openJournal();
      const file = this.path('event-queue.json');
      const saved = merge(await readSnapshot(file, this.options.logger), this.unsaved);
      this.unsaved = {};
      active.add(this);
      this.connected = true;
      // With a journal they are on disk there before the file is removed.
      await Promise.all(Object.entries(saved).flatMap(([channel, messages]) => messages.map(({ id, content, options, due }) =>
        this.enqueue(channel, id ?? randomUUID(), content, revived(options ?? {}), due ?? 0).stored)));
      await removeSnapshot(file);
      for (const channel of this.channels.values()) channel.wake();
    });
  }

  /**
   * Stops fetching, waits for running handlers up to `closeTimeout`, and keeps the rest for the
   * next `connect`: also what is unfinished then, which will be processed again.
   *
   * Rejects with `E_IO` when the file cannot be written; nothing is lost while the process lives,
   * and `close` may be tried again.
   */
  close(): Promise<void> {
    return this.inTurn(async () => {
      if (!this.connected) return this.save();
      this.connected = false;
      for (const channel of this.channels.values()) channel.rest();
      await this.quiet(this.options.closeTimeout ?? CLOSE_TIMEOUT);
      const rest = this.drain();
      const { journal } = this;
      if (!journal) this.unsaved = merge(this.unsaved, rest);
      this.journal = undefined;
      active.delete(this);
      if (journal) await this.closeJournal(journal);
      else await this.save();
    });
  }

  subscribe(channel: string, event: QueueEventOptions): void {
    this.channel(channel).subscribe(event);
  }

  unsubscribe(channel: string): void {
    this.channels.get(channel)?.unsubscribe();
  }

  /** Resolves to the id when the message waits; with a journal, when it is on disk. Rejects with `E_CLOSED` when not connected. */
  async publish(channel: string, message: any, options: QueueMessageOptions = {}): Promise<string> {
    if (!this.connected) {
      throw new MortiseError('E_CLOSED', `event queue not connected, cannot publish on channel "${channel}"`);
    }
    const { id = randomUUID(), delay = 0 } = options;
    const present = options.id === undefined ? undefined : this.channel(channel).find(id);
    const { stored } = present ?? this.enqueue(channel, id, message, options, delay > 0 ? Date.now() + Math.ceil(delay) : 0);
    if (stored) await stored;
    return id;
  }

  /** Takes a message out, or aborts the signal of one that runs; see {@link IEventQueueAdapter}. */
  cancel(channel: string, id: string): boolean {
    const job = this.channels.get(channel)?.find(id);
    if (!job) return false;
    if (job.running) job.cancel();
    else this.takeBack(job);
    return true;
  }

  /** Fetches nothing from the channel until {@link resume}, or until the process ends. */
  pause(channel: string): void {
    this.channel(channel).pause();
  }

  resume(channel: string): void {
    this.channel(channel).resume();
  }

  counts(channel: string): QueueCounts {
    return this.channel(channel).counts(this.deadLetters(channel).size);
  }

  /** The dead letters of a channel. */
  deadLetters(channel: string): MemoryDeadLetters {
    let letters = this.letters.get(channel);
    if (!letters) {
      letters = new MemoryDeadLetters((letter) => this.publishAgain(channel, letter), (seq) => this.journal?.done(seq));
      this.letters.set(channel, letters);
    }
    return letters;
  }

  private channel(name: string): Channel {
    let channel = this.channels.get(name);
    if (!channel) {
      channel = new Channel(name, binding.queueAddChannel(this.host.handle), this.host);
      this.channels.set(name, channel);
      this.byNumber[channel.number] = channel;
    }
    return channel;
  }

  private async publishAgain(channel: string, { id, content, options }: DeadLetter): Promise<boolean> {
    if (!this.connected) throw new MortiseError('E_CLOSED', `event queue not connected, cannot replay on channel "${channel}"`);
    if (this.channel(channel).find(id)) return false;
    await this.enqueue(channel, id, content, { ...options, retried: 0, timestamp: Date.now() }, 0).stored;
    return true;
  }

  /** Puts a message into its channel. */
  private enqueue(channel: string, id: string, content: any, options: QueueMessageOptions, due: number): Job {
    const { journal } = this;
    const text = journal && serialize(channel, content);
    const optionsText = journal && (serialize(channel, options) as string);
    const job = new Job(channel, id, content, options, options.retried ?? 0, journal ? journal.number() : 0, due);
    this.place(job);
    if (journal) job.stored = this.write(journal, job, text, optionsText as string);
    return job;
  }

  private place(job: Job): void {
    const { timeout = DEFAULT_TIMEOUT, maxRetries = 0 } = job.options;
    const channel = this.channel(job.channel);
    const { handle } = this.host;
    const retries = Math.min(Math.max(maxRetries, 0), 2 ** 32 - 1);
    const delay = job.due && job.due - Date.now();
    job.slot = delay > 0
      ? binding.queuePublishLater(handle, channel.number, job.retried, retries, timeout, delay)
      : binding.queuePublish(handle, channel.number, job.retried, retries, timeout);
    job.uses = this.uses[job.slot] = (this.uses[job.slot] ?? 0) + 1;
    this.host.jobs[job.slot] = job;
    channel.add(job);
  }

  /** Takes a message that does not run out of the queue. False when there is none. */
  private takeBack(job: Job): boolean {
    if (!this.isPlaced(job) || job.running || !binding.queueRemove(this.host.handle, job.slot)) return false;
    const channel = this.channel(job.channel);
    this.forget(job, channel);
    if (job.seq > 0) this.journal?.done(job.seq);
    job.end(true);
    channel.waiting--;
    channel.holdIfNeeded();
    return true;
  }

  /**
   * The handler does not wait for the disk. When the disk fails, a message that has not begun is
   * taken back; of one that has begun, the handler decides.
   */
  private async write(journal: Journal, job: Job, content: string | undefined, options: string): Promise<void> {
    try {
      await journal.append(job, content, options);
    } catch (error) {
      if (this.takeBack(job)) throw error;
      const processed = job.processed ?? (await new Promise<boolean>((resolve) => (job.onEnd = resolve)));
      if (!processed) throw error;
    }
  }

  private finish(job: Job, failed: boolean, error?: unknown): void {
    if (job.abandoned) {
      const outcome = failed ? 'failed' : 'was processed';
      this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} ${outcome} after the queue was closed`, error);
      return;
    }
    job.running = false;
    const channel = this.channel(job.channel);
    if (!failed) {
      this.succeed(job, channel);
    } else if (job.cancelled) {
      this.options.logger?.info(`message ${job.id} of event queue channel ${job.channel} was cancelled`, error);
      this.succeed(job, channel);
    } else this.fail(job, channel, error);
    channel.wake();
    if (this.whenQuiet && !this.anyRunning()) this.whenQuiet();
  }

  private succeed(job: Job, channel: Channel): void {
    binding.queueSucceed(this.host.handle, job.slot);
    this.forget(job, channel);
    if (job.seq > 0) this.journal?.done(job.seq);
    job.end(true);
  }

  private fail(job: Job, channel: Channel, error: unknown): void {
    const { handle, cells } = this.host;
    const { backoff } = job.options;
    const retried = binding.queueFail(handle, job.slot, backoff ? JSON.stringify(backoff) : '');
    if (retried > 0) {
      job.again(retried, Date.now() + cells[0]);
      channel.waiting++;
      if (job.seq > 0) this.journal?.retried(job.seq, retried, job.due);
      this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} failed, and will be tried again`, error);
      return;
    }
    this.options.logger?.error(`message ${job.id} of event queue channel ${job.channel} failed for good, and is a dead letter`, error);
    this.forget(job, channel);
    const text = messageOf(error);
    if (job.seq > 0) this.journal?.dead(job.seq, text);
    job.end(false);
    this.bury(job, text);
  }

  private bury({ channel, id, content, options, seq }: Job, error: string | undefined): void {
    const dropped = this.deadLetters(channel).add({ id, content, options, error, seq });
    if (dropped) this.options.logger?.warn(`event queue channel ${channel} has too many dead letters, ${dropped.id} was dropped`);
  }

  private isPlaced(job: Job): boolean {
    return this.host.jobs[job.slot] === job;
  }

  private forget(job: Job, channel: Channel): void {
    if (this.isPlaced(job)) this.host.jobs[job.slot] = undefined;
    channel.remove(job);
  }

  private anyRunning(): boolean {
    return this.host.jobs.some((job) => job?.running);
  }

  /** Resolves when no handler runs, or after `timeout` milliseconds. */
  private async quiet(timeout: number): Promise<void> {
    if (!this.anyRunning()) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.whenQuiet = resolve;
      if (timeout !== Infinity) timer = setTimeout(resolve, Math.min(timeout, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.whenQuiet = undefined;
  }

  /** Empties the queue, and gives what was in it. */
  private drain(): Snapshot {
    const rest: Snapshot = {};
    for (const channel of this.channels.values()) {
      const jobs = binding.queueDrain(this.host.handle, channel.number).map((slot) => this.host.jobs[slot] as Job);
      for (const job of jobs) {
        if (job.running && !job.cancelled) {
          const text = `message ${job.id} of event queue channel ${job.channel} was not finished when the queue closed, and will be processed again`;
          this.options.logger?.warn(text);
        }
        this.forget(job, channel);
        job.abandoned = true;
        if (job.cancelled && job.seq > 0) this.journal?.done(job.seq);
        job.end(job.cancelled);
      }
      channel.waiting = 0;
      channel.holdIfNeeded();
      const kept = jobs.filter((job) => !job.cancelled);
      if (kept.length > 0) {
        rest[channel.name] = kept.map(({ id, content, options, retried, due }) =>
          ({ id, content, options: { ...options, retried }, ...(due > Date.now() && { due }) }));
      }
    }
    return rest;
  }

  private openJournal(): void {
    const path = this.path('event-queue.db');
    const journal = new Journal(path);
    this.journal = journal;
    if (journal.setAside) this.options.logger?.error(`the journal ${path} is unreadable and was set aside as ${journal.setAside}`);
    for (const { seq, id, channel, content, options, retried, due, dead, error } of journal.entries) {
      const value = content === null ? undefined : JSON.parse(content);
      const job = new Job(channel, id ?? randomUUID(), value, revived(JSON.parse(options)), retried, seq, due);
      if (dead) this.bury(job, error ?? undefined);
      else this.place(job);
    }
    journal.entries.length = 0;
  }

  private async save(): Promise<void> {
    if (Object.keys(this.unsaved).length === 0) return;
    const path = this.path('event-queue.json');
    try {
      await saveSnapshot(path, this.unsaved, this.options.logger);
    } catch (cause) {
      throw new MortiseError('E_IO', `writing the event queue's file ${path} failed: ${(cause as Error).message}`, { cause });
    }
    this.unsaved = {};
  }

  private async closeJournal(journal: Journal): Promise<void> {
    try {
      await journal.close();
    } catch (error) {
      // What is in it is still there; only what was done since may be done once more.
      this.options.logger?.error('the journal was not closed cleanly, some messages may be processed again', error);
    }
  }

  private static heard(self: MemoryEventQueueAdapter, subject: number, uses: number): void {
    self.hear(subject, uses);
  }

  private hear(subject: number, uses: number): void {
    if (uses === 0) return this.byNumber[subject]?.wake();
    const job = this.host.jobs[subject];
    if (!job?.running || job.uses !== uses) return;
    this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} has passed its timeout; its handler keeps its slot`);
    job.timeOut();
  }

  private path(file: string): string {
    const { appName = 'main', storagePath = join(process.env.STORAGE_PATH || 'storage', 'apps', appName) } = this.options;
    return join(storagePath, file);
  }

  private inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => undefined);
    return turn;
  }
}

/** What a handler failed with, in words; anything may be thrown. */
function messageOf(error: unknown): string {
  try {
    const message = typeof error === 'string' ? error : (error as Error | undefined)?.message;
    return typeof message === 'string' ? message : inspect(error, { depth: 1 });
  } catch {
    return 'an error that cannot be shown';
  }
}

/** Options that were JSON, which has no word for Infinity. */
function revived(options: QueueMessageOptions): QueueMessageOptions {
  const { timeout, maxRetries } = options;
  return { ...options, ...(timeout === null && { timeout: Infinity }), ...(maxRetries === null && { maxRetries: Infinity }) };
}

/** Connected adapters live on even when nobody holds them. */
const active = new Set<MemoryEventQueueAdapter>();
