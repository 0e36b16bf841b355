import type { Logger } from '../app/logger';
import { hold, release } from '../native';
import type { QueueCounts, QueueEventOptions } from './adapter';
import { binding } from './binding';
import { askLater, isIdle } from './idle';
import type { Job } from './job';

/** Messages that one channel begins in one turn of the event loop, so that timers and I/O have theirs. */
const TURN = 256;

/** What a channel needs of the adapter that it belongs to. */
export interface ChannelHost {
  readonly handle: Parameters<typeof binding.queueClaim>[0];
  readonly cells: Float64Array;
  readonly jobs: (Job | undefined)[];
  readonly fetching: boolean;
  readonly logger: Logger | undefined;
  finish(job: Job, failed: boolean, error?: unknown): void;
}

/** One channel's loop: asks `idle`, claims what may begin, and calls the handler. */
export class Channel {
  event: QueueEventOptions | undefined;
  /** Messages that wait, are kept back or are to be tried again. */
  waiting = 0;
  private paused = false;
  /** The jobs of the channel by id, once somebody has asked for one: most channels never need it. */
  private ids: Map<string, Job> | undefined;
  private scheduled = false;
  private timer: NodeJS.Timeout | undefined;
  private begun = 0;
  private budget: NodeJS.Immediate | undefined;
  private holding = false;

  constructor(
    readonly name: string,
    readonly number: number,
    private readonly host: ChannelHost,
  ) {}

  subscribe(event: QueueEventOptions): void {
    const { concurrency = 1 } = event;
    this.event = event;
    const limit = concurrency > 0 ? Math.min(Math.ceil(concurrency), 2 ** 32 - 1) : 2 ** 32 - 1;
    binding.queueSetConcurrency(this.host.handle, this.number, limit);
    this.wake();
  }

  unsubscribe(): void {
    this.event = undefined;
    binding.queueSetConcurrency(this.host.handle, this.number, 0);
    this.rest();
  }

  pause(): void {
    this.paused = true;
    this.rest();
  }

  resume(): void {
    this.paused = false;
    this.wake();
  }

  /** The job with an id, from `publish` to its end. */
  find(id: string): Job | undefined {
    if (!this.ids) {
      this.ids = new Map();
      for (const job of this.host.jobs) if (job?.channel === this.name) this.ids.set(job.id, job);
    }
    return this.ids.get(id);
  }

  /** A job of the channel has begun to wait. */
  add(job: Job): void {
    this.ids?.set(job.id, job);
    this.waiting++;
    this.wake();
  }

  /** A job of the channel has come to its end. */
  remove(job: Job): void {
    if (this.ids?.get(job.id) === job) this.ids.delete(job.id);
  }

  counts(dead: number): QueueCounts {
    const [waiting, delayed, running, first] = binding.queueCounts(this.host.handle, this.number);
    const since = first < 0 ? undefined : this.host.jobs[first]?.since;
    return { waiting, delayed, running, dead, paused: this.paused, oldestAge: since === undefined ? 0 : Math.max(0, Date.now() - since) };
  }

  /** There may be something to do: looks in the next microtask. */
  wake(): void {
    if (this.scheduled || !this.fetches) return;
    this.holdIfNeeded();
    this.scheduled = true;
    queueMicrotask(this.run);
  }

  /** Stops asking, and keeps Node alive no longer. */
  rest(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.holdIfNeeded();
  }

  private get fetches(): boolean {
    return this.event !== undefined && this.host.fetching && !this.paused;
  }

  /** Node stays alive while a message waits that somebody is to process. */
  holdIfNeeded(): void {
    const needed = this.waiting > 0 && this.fetches;
    if (needed === this.holding) return;
    this.holding = needed;
    if (needed) hold();
    else release();
  }

  private readonly run = (): void => {
    this.scheduled = false;
    while (this.event && this.fetches && this.waiting > 0) {
      if (this.begun >= TURN) return;
      if (!isIdle(this.event, this.name, this.host.logger)) return this.askLater(this.event);
      const count = binding.queueClaim(this.host.handle, this.number, TURN - this.begun);
      if (count === 0) break;
      this.startBudget();
      this.begun += count;
      this.waiting -= count;
      const claimed: Job[] = [];
      for (let i = 0; i < count; i++) claimed.push(this.host.jobs[this.host.cells[i]] as Job);
      for (const job of claimed) job.running = true;
      for (const job of claimed) this.begin(job, this.event);
    }
    this.holdIfNeeded();
  };

  /** From the first message of a turn on; the rest of what waits goes on in the next turn. */
  private startBudget(): void {
    this.budget ??= setImmediate(() => {
      this.budget = undefined;
      const exhausted = this.begun >= TURN;
      this.begun = 0;
      if (exhausted) this.wake();
    });
  }

  private begin(job: Job, event: QueueEventOptions): void {
    let result: any;
    try {
      result = event.process(job.content, job.context());
    } catch (error) {
      this.host.finish(job, true, error);
      return;
    }
    // Always asynchronous, or a handler that is not would grow the stack with the backlog.
    Promise.resolve(result).then(
      () => this.host.finish(job, false),
      (error: unknown) => this.host.finish(job, true, error),
    );
  }

  private askLater(event: QueueEventOptions): void {
    this.timer ??= askLater(event, () => {
      this.timer = undefined;
      this.wake();
    });
  }
}
