import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import type { IEventQueueAdapter, QueueEventOptions, QueueMessageOptions } from './adapter';
import type { DeadLetters } from './dead-letters';
import { MemoryEventQueueAdapter } from './memory-adapter';

/** Options of {@link EventQueue}. */
export interface EventQueueOptions {
  /** What the queue runs on. Default `'memory'`. */
  adapter?: 'memory' | 'redis' | 'rabbitmq' | IEventQueueAdapter;
  /** For adapters on a server. */
  url?: unknown;
  /** Between the app's name and the channel. */
  channelPrefix?: string;
  /** Memory: keep messages on disk from before `publish` resolves until they are processed. Default false. */
  journal?: boolean;
  /** Memory: the folder of the app's files. Default: `STORAGE_PATH`, or `storage`, with `apps/<app>` below it. */
  storagePath?: string;
  /** Memory: how long `close` waits for running handlers, in milliseconds. Default 10000. */
  closeTimeout?: number;
}

interface Host {
  name?: string;
  logger?: Logger;
}

const DEFAULT_TIMEOUT = 15_000;
const DEFAULT_CONCURRENCY = 1;
const DEFAULT_INTERVAL = 250;

/** Messages that are processed in the background: in order, at least once, with retries. */
export class EventQueue {
  private adapter: IEventQueueAdapter | undefined;
  private readonly events = new Map<string, QueueEventOptions>();
  /** The channels that the adapter has been told of since it was connected. */
  private readonly subscribed = new Set<string>();
  /** What is being done, so that connecting and closing wait for each other. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly app: Host,
    private readonly options: EventQueueOptions = {},
  ) {
    const { adapter = 'memory' } = options;
    if (adapter === 'memory') {
      const { journal, storagePath, closeTimeout } = options;
      this.adapter = new MemoryEventQueueAdapter({ journal, storagePath, closeTimeout, appName: app.name, logger: app.logger });
    } else if (typeof adapter === 'string') {
      const message = `event queue adapter "${adapter}" is not available in this version`;
      throw new MortiseError('E_ADAPTER_UNAVAILABLE', message);
    } else {
      this.setAdapter(adapter);
    }
  }

  /** Runs on `adapter` from now on; before `connect`. */
  setAdapter(adapter: IEventQueueAdapter | undefined): void {
    if (adapter) {
      for (const method of ['isConnected', 'connect', 'close', 'subscribe', 'unsubscribe', 'publish'] as const) {
        if (typeof adapter[method] !== 'function') throw invalid(`an event queue adapter has the method ${method}`);
      }
    }
    this.adapter = adapter;
    this.subscribed.clear();
  }

  isConnected(): boolean {
    return Boolean(this.adapter?.isConnected());
  }

  /** The name under which the adapter knows a channel: app (not for shared ones), prefix and channel, joined by `.`. */
  getFullChannel(channel: string, shared = false): string {
    return [shared ? undefined : this.app.name, this.options.channelPrefix, checkChannel(channel)].filter(Boolean).join('.');
  }

  /** Connects the adapter, and subscribes the channels. May be repeated: each channel keeps one consumer. */
  async connect(): Promise<void> {
    const { adapter } = this;
    if (!adapter) throw new MortiseError('E_NO_ADAPTER', 'no adapter set, cannot connect');
    await this.inTurn(async () => {
      if (!adapter.isConnected()) {
        this.subscribed.clear();
        await adapter.connect();
      }
      for (const [channel, event] of this.events) {
        if (this.subscribed.has(channel)) continue;
        this.subscribed.add(channel);
        try {
          await adapter.subscribe(this.getFullChannel(channel, event.shared), event);
        } catch (error) {
          this.subscribed.delete(channel);
          throw error;
        }
      }
    });
  }

  /** Stops fetching, waits for running handlers, and keeps the rest. May be repeated. */
  async close(): Promise<void> {
    await this.inTurn(async () => {
      if (this.adapter) await this.adapter.close();
    });
  }

  /** Processes the channel's messages. A second subscription of a channel is ignored, with a warning. */
  subscribe<T = any>(channel: string, options: QueueEventOptions<T>): void {
    const full = this.getFullChannel(channel, options?.shared);
    const event = checkEvent(full, options);
    if (this.events.has(channel)) {
      this.app.logger?.warn(`event queue already subscribed on channel "${channel}", the new subscription is ignored`);
      return;
    }
    this.events.set(channel, event);
    if (!this.isConnected()) return;
    this.subscribed.add(channel);
    const failed = (error: unknown): void => this.app.logger?.error(`subscribing event queue channel "${full}" failed`, error);
    try {
      Promise.resolve(this.adapter?.subscribe(full, event)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  /** Stops fetching the channel's messages; nothing when it is not subscribed. */
  unsubscribe(channel: string): void {
    const event = this.events.get(channel);
    if (!event) return;
    this.events.delete(channel);
    this.subscribed.delete(channel);
    const full = this.getFullChannel(channel, event.shared);
    const failed = (error: unknown): void => this.app.logger?.error(`unsubscribing event queue channel "${full}" failed`, error);
    try {
      Promise.resolve(this.adapter?.unsubscribe(full)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }

  /**
   * Puts a message at the end of a channel. Resolves when the adapter has stored it.
   *
   * Rejects with `E_NO_ADAPTER`, `E_CLOSED` (`event queue not connected, cannot publish`),
   * `E_NOT_SUBSCRIBED`, or what the adapter rejects with: on the journal `E_NOT_SERIALIZABLE` and
   * `E_JOURNAL`.
   */
  async publish(channel: string, message: any, options: QueueMessageOptions = {}): Promise<void> {
    const { adapter } = this;
    if (!adapter) throw new MortiseError('E_NO_ADAPTER', 'no adapter set, cannot publish');
    checkChannel(channel);
    if (!adapter.isConnected()) throw new MortiseError('E_CLOSED', 'event queue not connected, cannot publish');
    const event = this.events.get(channel);
    if (!event) {
      throw new MortiseError('E_NOT_SUBSCRIBED', `event queue not subscribed on channel "${channel}", cannot publish`);
    }
    const { timeout = DEFAULT_TIMEOUT, maxRetries = 0 } = options ?? {};
    checkMessage(channel, timeout, maxRetries);
    await adapter.publish(this.getFullChannel(channel, event.shared), message, { ...options, timeout, maxRetries, timestamp: Date.now() });
  }

  private inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => undefined);
    return turn;
  }

  /** The dead letters of a channel: to list, replay and drop. Throws `E_UNSUPPORTED` where the adapter keeps none. */
  deadLetters(channel: string): DeadLetters {
    const { adapter } = this;
    if (adapter instanceof MemoryEventQueueAdapter) {
      return adapter.deadLetters(this.getFullChannel(channel, this.events.get(channel)?.shared));
    }
    throw new MortiseError('E_UNSUPPORTED', `the event queue adapter keeps no dead letters for channel "${channel}"`);
  }
}

function checkChannel(channel: string): string {
  if (typeof channel !== 'string' || channel === '') throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}

function checkEvent(channel: string, options: QueueEventOptions): QueueEventOptions {
  const { process, idle, concurrency = DEFAULT_CONCURRENCY, interval = DEFAULT_INTERVAL } = options ?? {};
  if (typeof process !== 'function') throw invalid(`process of event queue channel "${channel}" is a function`);
  if (idle !== undefined && typeof idle !== 'function') throw invalid(`idle of event queue channel "${channel}" is a function`);
  if (typeof concurrency !== 'number' || Number.isNaN(concurrency)) {
    throw invalid(`concurrency of event queue channel "${channel}" is a number: ${String(concurrency)}`);
  }
  if (typeof interval !== 'number' || !(interval >= 0)) {
    throw invalid(`interval of event queue channel "${channel}" is a number of milliseconds: ${String(interval)}`);
  }
  // Called as methods, as they were given: process and idle may use `this`.
  return Object.assign(Object.create(options), { concurrency, interval });
}

function checkMessage(channel: string, timeout: number, maxRetries: number): void {
  if (typeof timeout !== 'number' || !(timeout >= 0)) {
    throw invalid(`the timeout of a message on channel "${channel}" is a number of milliseconds: ${String(timeout)}`);
  }
  if (typeof maxRetries !== 'number' || !(maxRetries >= 0)) {
    throw invalid(`maxRetries of a message on channel "${channel}" is a number, 0 or more: ${String(maxRetries)}`);
  }
}
