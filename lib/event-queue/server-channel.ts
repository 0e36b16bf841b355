import type { Logger } from '../app/logger';
import { hold, release } from '../native';
import type { QueueEventOptions, QueueMessageOptions } from './adapter';
import { binding } from './binding';
import { askLater, isIdle, timeoutError } from './idle';
import { ServerJob } from './server-job';

/** Tickets say their slot by their rest; see `src/event_queue/running.rs`. */
const SLOTS = 2 ** 20;
const UNLIMITED = SLOTS - 1;

/** How a run has ended; see `serverQueueTurn`. */
const PROCESSED = 0;
const FAILED = 1;
const RETURNED = 2;

/** Whether a message may begin; see `serverQueueStanding`. */
const OURS = 0;
const CANCELLED = 1;
const LOST = 2;

/** A message as it comes from Rust. */
type Arrived = [ticket: number, id: string, retried: number, message: [options: any, content?: any]];
/** Messages that are to begin; see `src/node/server_queue.rs`, `kind::BEGIN`. */
type Begun = [changes: number, until: number, ...arrived: Arrived[]];

/** What a channel needs of its adapter. */
export interface ServerChannelHost {
  readonly handle: Parameters<typeof binding.serverQueueTurn>[0];
  /** Its only number is how often something that was to begin was cancelled or lost. */
  readonly changes: Uint32Array;
  /** Where Rust posts what happens in channels. */
  readonly listener: number;
  readonly fetching: boolean;
  readonly logger: Logger | undefined;
  /** A run has ended. */
  ended(): void;
}

/**
 * The loop of one subscription of a channel: asks `idle`, has messages fetched, calls the handler, and tells Rust what
 * became of it, all of one turn at once. What is subscribed next has a loop of its own: tickets are those of a subscription.
 */
export class ServerChannel {
  /** Messages whose handlers run. */
  running = 0;
  /** Rust's number for the subscription; -1 once nothing more comes of it. */
  private subscription: number;
  private readonly jobs: (ServerJob | undefined)[] = [];
  private scheduled = false;
  /** Rust waits for an answer to `ready`. */
  private asked = false;
  /** Rust was told to fetch, and has not said what came of it. */
  private fetching = false;
  private holding = false;
  private timer: NodeJS.Timeout | undefined;
  private numbers = new Float64Array(3 * 64);
  private filled = 0;
  private errors = '';

  constructor(
    readonly name: string,
    readonly number: number,
    /** Undefined once it was ended: what runs goes on. */
    public event: QueueEventOptions | undefined,
    private readonly host: ServerChannelHost,
  ) {
    const { concurrency = 1 } = event as QueueEventOptions;
    const limit = concurrency > 0 ? Math.min(Math.ceil(concurrency), UNLIMITED) : UNLIMITED;
    this.subscription = binding.serverQueueSubscribe(host.handle, name, limit, host.listener, number);
    this.wake();
  }

  unsubscribe(): void {
    this.event = undefined;
    if (this.subscription >= 0) binding.serverQueueUnsubscribe(this.host.handle, this.subscription);
    this.rest();
  }

  /** Nothing more comes of it. */
  over(): void {
    // The number may be another's from now on.
    this.subscription = -1;
  }

  /** There may be something to fetch. */
  ready(): void {
    this.asked = true;
    this.wake();
  }

  /** There is nothing to fetch for now; or nothing is fetched any more. */
  rest(): void {
    this.fetching = false;
    if (!this.event || !this.host.fetching) {
      clearTimeout(this.timer);
      this.timer = undefined;
    }
    this.holdIfNeeded();
  }

  /** Looks in the next microtask, once all that ends now has ended. */
  wake(): void {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(this.run);
  }

  /** Messages begin. */
  begin(text: string): void {
    this.fetching = false;
    const [changes, until, ...arrived] = JSON.parse(text) as Begun;
    let lost = 0;
    for (const [ticket, id, retried, message] of arrived) {
      // Of each: the event loop may have stood still since they came, and handlers before it may take their time.
      const now = performance.now();
      const isOurs = now <= until && changes === this.host.changes[0];
      const standing = isOurs ? OURS : binding.serverQueueStanding(this.host.handle, this.subscription, ticket);
      const job = new ServerJob(ticket, id, retried, restore(message[0]), message[1], now);
      this.running++;
      this.jobs[ticket % SLOTS] = job;
      if (standing === CANCELLED) this.endCancelled(job);
      else if (standing === OURS && this.event && this.host.fetching) this.call(job, this.event);
      else this.finish(job, RETURNED, '');
      if (standing === LOST) lost++;
    }
    if (lost > 0) {
      this.host.logger?.warn(`${lost} messages of event queue channel ${this.name} do not begin here: the event loop stood still until they were lost to others`);
    }
    this.holdIfNeeded();
  }

  /** The timeout of a run has passed, by Rust's clock, which began when the message came. */
  timeOut(ticket: number): void {
    const job = this.job(ticket);
    if (!job) return;
    const { timeout } = job.queueOptions;
    const left = typeof timeout === 'number' ? timeout - (performance.now() - job.begun) : 0;
    // A busy event loop has called the handler later.
    if (left > 0) {
      setTimeout(() => this.timeOut(ticket), Math.min(left, 2 ** 31 - 1)).unref();
      return;
    }
    this.host.logger?.warn(`message ${job.id} of event queue channel ${this.name} has passed its timeout; its handler keeps its slot`);
    job.abort(timeoutError());
  }

  cancel(ticket: number): void {
    const job = this.job(ticket);
    if (!job) return;
    job.cancelled = true;
    job.abort(new DOMException('The message was cancelled', 'AbortError'));
  }

  /** The run has lost its slot. */
  giveUp(ticket: number): void {
    const job = this.job(ticket);
    if (!job) return;
    job.abandoned = true;
    job.abort(timeoutError());
    this.forget(job);
    this.wake();
  }

  /** What still runs is others' from now on, and Rust is told nothing more. */
  abandon(): void {
    this.subscription = -1;
    for (const job of this.jobs) {
      if (!job) continue;
      job.abandoned = true;
      this.host.logger?.warn(`message ${job.id} of event queue channel ${this.name} was not finished when the queue closed, and will be processed again`);
      this.forget(job);
    }
  }

  /** Tells Rust what has ended, without waiting for the microtask. */
  flush(fetch = false): void {
    const { filled, numbers, errors } = this;
    if (filled === 0 && !fetch && !this.asked) return;
    this.filled = 0;
    this.errors = '';
    this.asked = false;
    // Of a subscription that has ended only what ran counts; its number may be another's already.
    if (this.subscription < 0 || (filled === 0 && !this.event)) return;
    binding.serverQueueTurn(this.host.handle, this.subscription, fetch, filled / 3, errors, numbers, filled, errors.length);
  }

  private readonly run = (): void => {
    this.scheduled = false;
    const { event } = this;
    const fetch = event !== undefined && this.host.fetching && isIdle(event, this.name, this.host.logger);
    if (fetch) this.fetching = true;
    this.flush(fetch);
    if (event && this.host.fetching && !fetch) this.askLater(event);
    this.holdIfNeeded();
  };

  private call(job: ServerJob, event: QueueEventOptions): void {
    try {
      // Always asynchronous, or a handler that is not would grow the stack with the backlog.
      Promise.resolve(event.process(job.content, job) as any).then(
        () => this.finish(job, PROCESSED, ''),
        (error: unknown) => this.fail(job, error),
      );
    } catch (error) {
      // Also of a promise that somebody has tampered with.
      this.fail(job, error);
    }
  }

  private fail(job: ServerJob, error: unknown): void {
    const { logger } = this.host;
    const what = `message ${job.id} of event queue channel ${this.name}`;
    if (job.ended) return;
    if (job.abandoned) {
      logger?.warn(`${what} failed after it was given up`, error);
      return;
    }
    if (job.cancelled) return this.endCancelled(job);
    const { maxRetries = 0 } = job.queueOptions;
    if (job.retried < maxRetries) logger?.warn(`${what} failed, and will be tried again`, error);
    else logger?.error(`${what} failed for good, and is a dead letter`, error);
    this.finish(job, FAILED, describe(error));
  }

  private endCancelled(job: ServerJob): void {
    this.host.logger?.info(`message ${job.id} of event queue channel ${this.name} was cancelled`);
    this.finish(job, PROCESSED, '');
  }

  private finish(job: ServerJob, outcome: number, error: string): void {
    if (job.ended) return;
    if (job.abandoned) {
      this.host.logger?.warn(`message ${job.id} of event queue channel ${this.name} was processed after it was given up`);
      return;
    }
    job.ended = true;
    this.forget(job);
    this.tell(outcome, job.ticket, error);
    this.wake();
  }

  private tell(outcome: number, ticket: number, error: string): void {
    if (this.filled + 3 > this.numbers.length) {
      const larger = new Float64Array(this.numbers.length * 2);
      larger.set(this.numbers);
      this.numbers = larger;
    }
    this.numbers[this.filled++] = outcome;
    this.numbers[this.filled++] = ticket;
    this.numbers[this.filled++] = error.length;
    this.errors += error;
  }

  private forget(job: ServerJob): void {
    this.jobs[job.ticket % SLOTS] = undefined;
    this.running--;
    if (this.running === 0) this.host.ended();
  }

  private job(ticket: number): ServerJob | undefined {
    const job = this.jobs[ticket % SLOTS];
    return job?.ticket === ticket ? job : undefined;
  }

  private askLater(event: QueueEventOptions): void {
    this.timer ??= askLater(event, () => {
      this.timer = undefined;
      this.wake();
    });
  }

  /** Node stays alive while a handler runs, and until Rust has said that there is nothing to fetch. */
  private holdIfNeeded(): void {
    const needed = this.running > 0 || (this.fetching && this.event !== undefined && this.host.fetching);
    if (needed === this.holding) return;
    this.holding = needed;
    if (needed) hold();
    else release();
  }
}

/** What JSON has no number for. */
export function restore(options: QueueMessageOptions): QueueMessageOptions {
  if (options.timeout === null) options.timeout = Infinity;
  if (options.maxRetries === null) options.maxRetries = Infinity;
  return options;
}

/** What a dead letter tells of the error. */
function describe(error: unknown): string {
  try {
    return error instanceof Error || (error as Error)?.message ? String((error as Error).message) : String(error);
  } catch {
    return 'an error that cannot be shown';
  }
}
