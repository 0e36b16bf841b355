import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import type { RedisOptions } from '../redis';
import type { DeadLetters, IEventQueueAdapter, QueueCounts, QueueEventOptions, QueueHealth, QueueMessageOptions } from './adapter';
import { MemoryEventQueueAdapter } from './memory-adapter';
import { checkChannel, checkMessage } from './message';
import { RabbitMQEventQueueAdapter, type RabbitMQOptions } from './rabbitmq-adapter';
import { RedisEventQueueAdapter } from './redis-adapter';
import { ServerQueueAdapter } from './server-adapter';
import type { ServerQueueSettings } from './server-settings';

/** Options of {@link EventQueue}. */
export interface EventQueueOptions extends ServerQueueSettings {
  /** What the queue runs on. Default `'memory'`. */
  adapter?: 'memory' | 'redis' | 'rabbitmq' | IEventQueueAdapter;
  /** URL or options of the server, for `'redis'` and `'rabbitmq'`. */
  url?: string | RedisOptions | RabbitMQOptions;
  /** Between the app's name and the channel. */
  channelPrefix?: string;
  /** Memory: keep messages on disk from before `publish` resolves until they are processed. Default false. */
  journal?: boolean;
  /** Memory: the folder of the app's files. Default: `STORAGE_PATH`, or `storage`, with `apps/<app>` below it. */
  storagePath?: string;
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
  /** The full names of the channels that are subscribed. */
  private readonly names = new Map<string, string>();
  /** The channels that the adapter has been told of since it was connected. */
  private readonly subscribed = new Set<string>();
  /** What is being done, so that connecting and closing wait for each other. */
  private turn: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly app: Host,
    private readonly options: EventQueueOptions = {},
  ) {
    const { adapter = 'memory' } = options;
    const { url, channelPrefix: _, journal, storagePath, ...settings } = options;
    if (adapter === 'memory') {
      const { closeTimeout } = settings;
      this.adapter = new MemoryEventQueueAdapter({ journal, storagePath, closeTimeout, appName: app.name, logger: app.logger });
    } else if (adapter === 'redis') {
      const server = typeof url === 'string' ? { url } : (url ?? {});
      this.adapter = new RedisEventQueueAdapter({ ...(server as RedisOptions), ...settings, logger: app.logger });
    } else if (adapter === 'rabbitmq') {
      const broker = typeof url === 'string' ? { url } : (url ?? {});
      this.adapter = new RabbitMQEventQueueAdapter({ ...(broker as RabbitMQOptions), ...settings, logger: app.logger });
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
    this.names.set(channel, full);
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
    this.names.delete(channel);
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
   * Puts a message at the end of a channel. Resolves when the adapter has stored it, to the message's id.
   *
   * Rejects with `E_NO_ADAPTER`, `E_CLOSED` (`event queue not connected, cannot publish`),
   * `E_NOT_SUBSCRIBED`, or what the adapter rejects with: on the journal `E_NOT_SERIALIZABLE` and
   * `E_JOURNAL`; on a server `E_NOT_SERIALIZABLE`, `E_UNAVAILABLE` and `E_TIMEOUT`, where the message may have been
   * stored all the same if it was sent.
   */
  publish(channel: string, message: any, options: QueueMessageOptions = {}): Promise<string> {
    // No async function: an adapter's promise is passed on as it is, which is a tenth of what a publish on a server costs.
    try {
      const { adapter } = this;
      if (!adapter) throw new MortiseError('E_NO_ADAPTER', 'no adapter set, cannot publish');
      const full = this.names.get(checkChannel(channel));
      if (!adapter.isConnected()) throw new MortiseError('E_CLOSED', 'event queue not connected, cannot publish');
      if (full === undefined) {
        throw new MortiseError('E_NOT_SUBSCRIBED', `event queue not subscribed on channel "${channel}", cannot publish`);
      }
      const { timeout = DEFAULT_TIMEOUT, maxRetries = 0 } = options ?? {};
      checkMessage(channel, options ?? {}, timeout, maxRetries);
      const complete = { ...options, timeout, maxRetries, timestamp: Date.now() };
      // Ours need not check again, unless somebody has put a publish of their own in the place of theirs.
      if (adapter instanceof ServerQueueAdapter && adapter.publish === ServerQueueAdapter.prototype.publish) {
        return adapter.publishChecked(full, message, complete);
      }
      return Promise.resolve(adapter.publish(full, message, complete) as string);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Takes a message out of a channel: one that waits is removed; of one that runs, on whatever node, the `signal`
   * aborts with an `AbortError`, and it is not tried again when it fails. Resolves to whether there was one.
   */
  async cancel(channel: string, id: string): Promise<boolean> {
    if (typeof id !== 'string' || id === '') throw invalid(`a message's id is a string that is not empty: ${String(id)}`);
    return this.supported('cancel', channel)(this.fullName(channel), id);
  }

  /** Stops fetching the channel's messages on all nodes, until {@link resume}. What runs goes on; publishing does too. */
  async pause(channel: string): Promise<void> {
    await this.supported('pause', channel)(this.fullName(channel));
  }

  /** Fetches again after {@link pause}. */
  async resume(channel: string): Promise<void> {
    await this.supported('resume', channel)(this.fullName(channel));
  }

  /** How much there is in a channel. */
  async counts(channel: string): Promise<QueueCounts> {
    return this.supported('counts', channel)(this.fullName(channel));
  }

  /** Whether the queue works. */
  health(): QueueHealth {
    return this.adapter?.health?.() ?? { state: this.isConnected() ? 'ready' : 'closed' };
  }

  private inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => undefined);
    return turn;
  }

  /** The dead letters of a channel: to list, replay and drop. Throws `E_UNSUPPORTED` where the adapter keeps none. */
  deadLetters(channel: string): DeadLetters {
    return this.supported('deadLetters', channel)(this.fullName(channel));
  }

  private fullName(channel: string): string {
    return this.names.get(channel) ?? this.getFullChannel(channel);
  }

  private supported<M extends 'cancel' | 'pause' | 'resume' | 'counts' | 'deadLetters'>(method: M, channel: string): NonNullable<IEventQueueAdapter[M]> {
    const { adapter } = this;
    if (!adapter) throw new MortiseError('E_NO_ADAPTER', `no adapter set, cannot ${method === 'deadLetters' ? 'read dead letters' : method}`);
    if (method !== 'deadLetters' && !adapter.isConnected()) throw new MortiseError('E_CLOSED', `event queue not connected, cannot ${method}`);
    if (typeof adapter[method] === 'function') return adapter[method].bind(adapter) as NonNullable<IEventQueueAdapter[M]>;
    throw new MortiseError('E_UNSUPPORTED', `the event queue adapter has no ${method}, asked for on channel "${channel}"`);
  }
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
