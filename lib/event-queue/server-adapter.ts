import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import { Batch, Completions, type Handle, listenWeakly } from '../native';
import type { DeadLetter, DeadLetters, IEventQueueAdapter, QueueCounts, QueueEventOptions, QueueHealth, QueueMessageOptions } from './adapter';
import { binding } from './binding';
import { checkChannel, checkMessage } from './message';
import { restore, ServerChannel, type ServerChannelHost } from './server-channel';

const CLOSE_TIMEOUT = 10_000;
/** What an event of a channel is; see `src/node/server_queue.rs`. */
const READY = 0;
const BEGIN = 1;
const TIMED_OUT = 2;
const CANCELLED = 3;
const GIVEN_UP = 4;
const LOG = 5;
const BEAT = 6;
const RESTS = 7;
const OVER = 8;

/** An event queue on a server: the part that is the same for all of them. */
export abstract class ServerQueueAdapter implements IEventQueueAdapter {
  private connected = false;
  private handle: Handle | undefined;
  private changes: Uint32Array | undefined;
  private readonly events = new Map<string, QueueEventOptions>();
  /** The subscriptions of this connection, by their channels; a later one has others. */
  private readonly channels = new Map<string, ServerChannel>();
  /** Also those that were ended, while something may still come of them. */
  private readonly byNumber = new Map<number, ServerChannel>();
  private lastNumber = 0;
  private whenQuiet: (() => void) | undefined;
  private turn: Promise<unknown> = Promise.resolve();
  private readonly listener = listenWeakly(this, ServerQueueAdapter.heard);
  private readonly completions = new Completions({ convert: (_, payload) => payload });
  private readonly outgoing = new Batch((...batch) =>
    binding.serverQueuePublish(this.handle as Handle, this.completions.listener, ...batch));

  /** @internal */
  protected constructor(
    private readonly closeTimeout: number = CLOSE_TIMEOUT,
    private readonly logger?: Logger,
  ) {
    if (typeof closeTimeout !== 'number' || !(closeTimeout >= 0)) {
      throw invalid(`closeTimeout of an event queue is a number of milliseconds: ${String(closeTimeout)}`);
    }
  }

  /** Opens the queue in Rust, whose events go to the listener. */
  protected abstract open(listener: number): Handle;

  /** The server is there. */
  protected opened(): void {}

  isConnected(): boolean {
    return this.connected;
  }

  /** Resolves when the server can be reached, and rejects with `E_UNAVAILABLE` when it cannot within `connectTimeout`. */
  connect(): Promise<void> {
    return this.inTurn(async () => {
      if (this.connected) return;
      const handle = this.open(this.listener);
      // From now on Rust may ask for a sign of life.
      this.handle = handle;
      this.changes = new Uint32Array(binding.serverQueueCells(handle), 0, 1);
      try {
        await this.wait((sequence) => binding.serverQueueConnect(handle, this.completions.listener, sequence));
      } catch (error) {
        this.handle = undefined;
        await this.wait((sequence) => binding.serverQueueClose(handle, this.completions.listener, sequence));
        throw error;
      }
      this.connected = true;
      active.add(this);
      this.opened();
      for (const [channel, event] of this.events) this.begin(channel, event);
    });
  }

  /** Stops fetching, waits for running handlers and for what was sent up to `closeTimeout`, and hands back what is unfinished then. */
  close(): Promise<void> {
    return this.inTurn(async () => {
      const { handle } = this;
      if (!handle || !this.connected) return;
      this.connected = false;
      this.outgoing.flush();
      binding.serverQueueStop(handle);
      const channels = [...this.byNumber.values()];
      for (const channel of channels) channel.rest();
      await this.quiet(channels);
      for (const channel of channels) {
        channel.flush();
        channel.abandon();
        channel.rest();
      }
      // Who ends gives no sign of life any more.
      this.handle = undefined;
      await this.wait((sequence) => binding.serverQueueClose(handle, this.completions.listener, sequence));
      this.channels.clear();
      this.byNumber.clear();
      active.delete(this);
    });
  }

  subscribe(channel: string, event: QueueEventOptions): void {
    // A queue tells an adapter that has connected what it knows already; of another, the one before it ends.
    if (this.events.get(channel) !== event) this.unsubscribe(channel);
    this.events.set(channel, event);
    if (this.connected) this.begin(channel, event);
  }

  unsubscribe(channel: string): void {
    this.events.delete(channel);
    this.channels.get(channel)?.unsubscribe();
    this.channels.delete(channel);
  }

  /**
   * Resolves to the message's id when the server has stored it. Rejects with `E_CLOSED` when not connected, `E_INVALID_ARGUMENT`,
   * `E_NOT_SERIALIZABLE`, and `E_UNAVAILABLE` or `E_TIMEOUT`, after which the message may be there all the same.
   */
  publish(channel: string, message: any, options?: QueueMessageOptions | null): Promise<string> {
    const given = options ?? {};
    try {
      checkOptions(checkChannel(channel), given);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.publishChecked(channel, message, given);
  }

  /** As `publish`, with a channel and options that were checked. @internal */
  publishChecked(channel: string, message: any, options: QueueMessageOptions): Promise<string> {
    if (!this.connected) return Promise.reject(closed(`publish on channel "${channel}"`));
    let text: string;
    try {
      text = serialize(channel, message, options);
    } catch (error) {
      return Promise.reject(error);
    }
    const { delay = 0, id } = options;
    const promise = this.completions.promise<string>(channel);
    this.outgoing.add([this.completions.last, delay, id === undefined ? 0 : 1], channel, id ?? '', text);
    return promise;
  }

  async cancel(channel: string, id: string): Promise<boolean> {
    const handle = this.opening(`cancel on channel "${channel}"`);
    return (await this.wait<number>((sequence) => binding.serverQueueCancel(handle, this.completions.listener, sequence, channel, id))) > 0;
  }

  async pause(channel: string): Promise<void> {
    const handle = this.opening(`pause channel "${channel}"`);
    await this.wait((sequence) => binding.serverQueuePause(handle, this.completions.listener, sequence, channel, true));
  }

  async resume(channel: string): Promise<void> {
    const handle = this.opening(`resume channel "${channel}"`);
    await this.wait((sequence) => binding.serverQueuePause(handle, this.completions.listener, sequence, channel, false));
  }

  async counts(channel: string): Promise<QueueCounts> {
    const handle = this.opening(`count channel "${channel}"`);
    const [waiting, delayed, running, dead, paused, oldestAge] = await this.wait<number[]>((sequence) =>
      binding.serverQueueCounts(handle, this.completions.listener, sequence, channel));
    const known = (number: number): number | undefined => (number < 0 ? undefined : number);
    return { waiting, delayed: known(delayed), running, dead, paused: paused > 0, oldestAge: known(oldestAge) };
  }

  deadLetters(channel: string): DeadLetters {
    const ask = <T>(what: string, start: (handle: Handle, listener: number, sequence: number) => void): Promise<T> =>
      this.wait<T>((sequence) => start(this.opening(`${what} dead letters of channel "${channel}"`), this.completions.listener, sequence));
    const list = async (): Promise<DeadLetter[]> => {
      const letters = await ask<[string, string, string][]>('list', (...to) => binding.serverQueueDeadLetters(...to, channel));
      return letters.map(([id, error, text]) => {
        const [options, content] = parse(text);
        return { id, content, options, error };
      });
    };
    return {
      count: async () => (await this.counts(channel)).dead,
      list,
      replay: async (id = '') => ask<number>('replay', (...to) => binding.serverQueueReplay(...to, channel, id)),
      drop: async (id = '') => ask<number>('drop', (...to) => binding.serverQueueDrop(...to, channel, id)),
    };
  }

  health(): QueueHealth {
    if (!this.handle || !this.connected) return { state: 'closed' };
    const [state, reason, silent] = binding.serverQueueHealth(this.handle);
    return { state: state as QueueHealth['state'], ...(reason === null ? {} : { reason }), silent };
  }

  private opening(what: string): Handle {
    if (!this.handle || !this.connected) throw closed(what);
    return this.handle;
  }

  private begin(name: string, event: QueueEventOptions): void {
    if (this.channels.has(name)) return;
    const channel = new ServerChannel(name, ++this.lastNumber, event, this.host());
    this.channels.set(name, channel);
    this.byNumber.set(channel.number, channel);
  }

  private host(): ServerChannelHost {
    const adapter = this;
    return {
      handle: this.handle as Handle,
      changes: this.changes as Uint32Array,
      listener: this.listener,
      get fetching() {
        return adapter.connected;
      },
      logger: this.logger,
      ended: () => adapter.whenQuiet?.(),
    };
  }

  /** Resolves when no handler runs and all that was sent is answered, or after `closeTimeout`. */
  private async quiet(channels: ServerChannel[]): Promise<void> {
    const isQuiet = (): boolean => this.completions.size === 0 && channels.every(({ running }) => running === 0);
    if (isQuiet()) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.whenQuiet = this.completions.whenSettled = () => {
        if (isQuiet()) resolve();
      };
      if (this.closeTimeout !== Infinity) timer = setTimeout(resolve, Math.min(this.closeTimeout, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.whenQuiet = this.completions.whenSettled = undefined;
  }

  private wait<T>(start: (sequence: number) => void): Promise<T> {
    return this.completions.wait<T>(start);
  }

  private inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => undefined);
    return turn;
  }

  private static heard(self: ServerQueueAdapter, subject: number, value: number, payload: unknown): void {
    self.hear(subject, value, payload);
  }

  private hear(number: number, value: number, payload: unknown): void {
    if (value === BEAT) {
      if (this.handle) binding.serverQueueBeat(this.handle);
      return;
    }
    if (value === LOG) {
      const [level, line] = payload as ['debug' | 'info' | 'warn' | 'error', string];
      this.logger?.[level](line);
      return;
    }
    const channel = this.byNumber.get(number);
    if (!channel) return;
    if (value === READY) channel.ready();
    else if (value === BEGIN) channel.begin(payload as string);
    else if (value === TIMED_OUT) channel.timeOut(payload as number);
    else if (value === CANCELLED) channel.cancel(payload as number);
    else if (value === GIVEN_UP) channel.giveUp(payload as number);
    else if (value === RESTS) channel.rest();
    else if (value === OVER) {
      channel.over();
      this.byNumber.delete(number);
    }
  }
}

/** Connected adapters live on even when nobody holds them. */
const active = new Set<ServerQueueAdapter>();

/** Options that JSON may have changed, as those of a message that is passed on, are as good. */
function checkOptions(channel: string, options: QueueMessageOptions): void {
  if (typeof options !== 'object') throw invalid(`the options of a message on channel "${channel}" are an object: ${String(options)}`);
  const { timeout, maxRetries } = options;
  checkMessage(channel, options, timeout ?? 0, maxRetries ?? 0);
}

/** The message as the server has it: `[options]`, or `[options, content]`. Throws `E_NOT_SERIALIZABLE`. */
function serialize(channel: string, content: unknown, options: QueueMessageOptions): string {
  if (typeof content === 'function' || typeof content === 'symbol') throw unserializable(channel);
  try {
    return JSON.stringify(content === undefined ? [options] : [options, content]);
  } catch (cause) {
    throw unserializable(channel, cause);
  }
}

/** Options and content of a dead letter; of one that nobody can read its text. */
function parse(text: string): [options: QueueMessageOptions, content?: unknown] {
  try {
    const parts = JSON.parse(text);
    if (Array.isArray(parts) && typeof parts[0] === 'object' && parts[0] !== null) return [restore(parts[0]), parts[1]];
  } catch {
    // Whoever has written it knows what it is.
  }
  return [{}, text];
}

function closed(what: string): MortiseError {
  return new MortiseError('E_CLOSED', `event queue not connected, cannot ${what}`);
}

function unserializable(channel: string, cause?: unknown): MortiseError {
  return new MortiseError('E_NOT_SERIALIZABLE', `the message for event queue channel ${channel} cannot be written as JSON`, { cause });
}
