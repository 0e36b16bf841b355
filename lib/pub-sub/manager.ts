import { randomUUID } from 'node:crypto';
import type { Logger } from '../app/logger';
import { invalid, MortiseError } from '../errors';
import { type Handle, listenWeakly } from '../native';
import type { RedisOptions } from '../redis/options';
import type { IPubSubAdapter, PubSubCallback } from './adapter';
import { binding } from './binding';
import { numberOf, type PubSubGap, reasonOf } from './gap';
import { MemoryPubSubAdapter } from './memory-adapter';
import { NativePubSubAdapter } from './native-adapter';
import { Outgoing, unpublished, waitFor } from './outgoing';
import { type RedisDeliveryOptions, RedisPubSubAdapter } from './redis-adapter';

/** Options of {@link PubSubManager}; those of delivery are for `'redis'`. */
export interface PubSubManagerOptions extends RedisDeliveryOptions {
  /** What carries the messages. `createApp`'s default is `'memory'`; the class's own is none. */
  adapter?: 'memory' | 'redis' | false | IPubSubAdapter;
  /** On Redis: the server, by its URL or by options. */
  url?: string | RedisOptions;
  /** On memory: who hears each other; default one bus for the process. */
  bus?: string;
  /** Between the app's name and the channel. */
  channelPrefix?: string;
  /** The default of {@link PublishOptions.skipSelf}. Default false; true under `createApp`. */
  skipSelf?: boolean;
}

/** Options of {@link PubSubManager.publish}. */
export interface PublishOptions {
  /** The message does not come back to this manager. */
  skipSelf?: boolean;
  /** Only this manager hears the message; wins over `skipSelf`. */
  onlySelf?: boolean;
}

/** Options of {@link PubSubManager.subscribe}. */
export interface SubscribeOptions {
  /**
   * Milliseconds: messages of equal content within this time of the first become one call, at its
   * end. Default 0: every message is a call. An open window does not keep Node alive.
   */
  debounce?: number;
  /** With `debounce`: call for the first message at once; at the end only if others came. Default false. */
  leading?: boolean;
  /**
   * Called when messages may have been missed, in order with those around it. On `memory` and on adapters
   * that cannot tell it never is. What it throws or rejects with is logged.
   */
  onGap?: GapCallback;
}

/** Called with each message; what it throws or rejects with is logged. */
export type MessageCallback<T = any> = (message: T) => unknown;

/** Called with each gap. */
export type GapCallback = (gap: PubSubGap) => unknown;

interface Subscription {
  id: number;
  /** In full, and as it was subscribed. */
  channel: string;
  name: string;
  callback: MessageCallback;
  onGap: GapCallback | undefined;
}

interface Host {
  name?: string;
  logger?: Logger;
}

/** The flags of a command; see `publish` in `src/node/pub_sub.rs`. */
const flagsOf = (skipSelf: unknown, onlySelf: unknown, absent: boolean): number =>
  flag(skipSelf) | (flag(onlySelf) << 2) | (absent ? 16 : 0);
const flag = (value: unknown): number => (value === undefined || value === null ? 0 : value ? 1 : 2);

/** Messages between the nodes of an app: who publishes on a channel is heard by all who subscribed it. */
export class PubSubManager {
  /** Tells this manager's messages from those of others. */
  readonly publisherId: string = randomUUID();
  /** `uniqueMessageHandlers.size` is the number of open debounce windows; `handlers` are the callbacks by channel. */
  readonly handlerManager: {
    readonly uniqueMessageHandlers: { readonly size: number };
    readonly handlers: ReadonlyMap<string, ReadonlySet<MessageCallback>>;
  };
  private adapter: IPubSubAdapter | undefined;
  private readonly handle: Handle;
  private readonly byId = new Map<number, Subscription>();
  private readonly byChannel = new Map<string, Map<MessageCallback, Subscription>>();
  /** The channels heard through an adapter written in JavaScript. */
  private readonly heard = new Map<string, PubSubCallback>();
  /** What {@link getFullChannel} gave last. */
  private last: { channel: string; name: string | undefined; full: string } = { channel: '', name: undefined, full: '' };
  private open = false;
  private nextId = 0;
  private turn: Promise<unknown> = Promise.resolve();
  private readonly outgoing = new Outgoing((...part) => {
    const { adapter } = this;
    if (!(adapter instanceof NativePubSubAdapter)) throw new MortiseError('E_CLOSED', 'the pub/sub adapter was replaced');
    // Closed in the same turn, one in memory drops what was published, as pub/sub does.
    binding.pubSubPublish(this.handle, adapter.member, ...part);
  });

  constructor(
    private readonly app: Host,
    private readonly options: PubSubManagerOptions = {},
  ) {
    const listener = listenWeakly(this, PubSubManager.heard);
    const handle = binding.pubSubNew(this.publisherId, listener);
    this.handle = handle;
    const manager = this;
    this.handlerManager = {
      uniqueMessageHandlers: { get size() { return binding.pubSubOpenWindows(handle); } },
      get handlers() { return manager.callbacks(); },
    };
    const { adapter } = options;
    if (adapter === 'memory') this.setAdapter(new MemoryPubSubAdapter({ bus: options.bus }));
    else if (adapter === 'redis') this.setAdapter(redisAdapter(app, options));
    else if (typeof adapter === 'string') throw unavailable(adapter);
    else if (adapter) this.setAdapter(adapter);
  }

  /** The default of `skipSelf` when publishing. */
  get skipSelf(): boolean {
    return this.options.skipSelf ?? false;
  }

  /** The name under which the adapter knows a channel: app, prefix and channel, joined by `.`. */
  getFullChannel(channel: string): string {
    const { name } = this.app;
    const { last } = this;
    // Most publish on the same channel again and again.
    if (channel !== '' && last.channel === channel && last.name === name) return last.full;
    const full = [name, this.options.channelPrefix, checkChannel(channel)].filter(Boolean).join('.');
    this.last = { channel, name, full };
    return full;
  }

  /** Uses `adapter`; before `connect`. */
  setAdapter(adapter: IPubSubAdapter): void {
    for (const method of ['isConnected', 'connect', 'close', 'subscribe', 'unsubscribe', 'publish'] as const) {
      if (typeof adapter?.[method] !== 'function') throw invalid(`a pub/sub adapter has the method ${method}`);
    }
    this.adapter = adapter;
    this.heard.clear();
  }

  /** Whether messages can be published. */
  async isConnected(): Promise<boolean> {
    return this.open && this.adapter !== undefined && Boolean(await this.adapter.isConnected());
  }

  /** Connects the adapter, and hears what is subscribed. Nothing without an adapter. May be repeated. */
  connect(): Promise<void> {
    return this.inTurn(async () => {
      const { adapter } = this;
      if (!adapter) return;
      if (!(await adapter.isConnected())) await adapter.connect();
      this.open = true;
      connected.add(this);
      for (const channel of this.byChannel.keys()) await this.hear(channel);
    });
  }

  /** Nothing is delivered from the call on; open debounce windows are cancelled. May be repeated. */
  close(): Promise<void> {
    this.outgoing.flush();
    this.open = false;
    connected.delete(this);
    binding.pubSubCancelWindows(this.handle);
    return this.inTurn(async () => {
      // The adapter forgets nothing that a later connect would need, but one written in JavaScript
      // may: it is told again.
      this.heard.clear();
      if (this.adapter && (await this.adapter.isConnected())) await this.adapter.close();
      binding.pubSubCancelWindows(this.handle);
    });
  }

  /**
   * Calls `callback` with each message on the channel, parsed anew for each subscription. The same
   * callback on the same channel again replaces the earlier subscription.
   */
  async subscribe<T = any>(channel: string, callback: MessageCallback<T>, options: SubscribeOptions = {}): Promise<void> {
    if (typeof callback !== 'function') throw invalid(`the callback for channel ${String(channel)} is a function`);
    const window = options?.debounce ?? 0;
    if (typeof window !== 'number' || !(window >= 0)) {
      throw invalid(`the debounce of channel ${String(channel)} is a number of milliseconds: ${String(window)}`);
    }
    const onGap = options?.onGap;
    if (onGap !== undefined && typeof onGap !== 'function') throw invalid(`the onGap of channel ${String(channel)} is a function`);
    const full = this.getFullChannel(channel);
    this.forget(full, callback);
    const subscription = { id: this.nextId++, channel: full, name: channel, callback, onGap };
    this.byId.set(subscription.id, subscription);
    const present = this.byChannel.get(full);
    if (present) present.set(callback, subscription);
    else this.byChannel.set(full, new Map([[callback, subscription]]));
    binding.pubSubSubscribe(this.handle, full, subscription.id, Math.min(window, 2 ** 41), options?.leading === true);
    if (!this.open) return;
    try {
      await this.inTurn(() => this.hear(full));
    } catch (error) {
      if (this.byChannel.get(full)?.get(callback) === subscription) this.forget(full, callback);
      throw error;
    }
  }

  /** Ends a subscription, and its open debounce windows; nothing when there is none. */
  async unsubscribe(channel: string, callback: MessageCallback): Promise<void> {
    const full = this.getFullChannel(channel);
    this.forget(full, callback);
    if (this.byChannel.has(full)) return;
    await this.inTurn(async () => {
      if (this.byChannel.has(full)) return;
      const heard = this.heard.get(full);
      this.heard.delete(full);
      const { adapter } = this;
      if (!heard || !adapter) return;
      if (!(adapter instanceof NativePubSubAdapter)) await adapter.unsubscribe(full, heard);
      else await waitFor((listener, sequence) => binding.busUnsubscribe(adapter.member, full, listener, sequence));
    });
  }

  /**
   * Publishes a message, which is anything that JSON can hold. Resolves when the adapter has it;
   * without a connection it warns in the log, and resolves too.
   *
   * Rejects with `E_NOT_SERIALIZABLE` for what JSON cannot hold, and with what the adapter rejects with;
   * see {@link RedisPubSubAdapter}.
   */
  async publish(channel: string, message: any, options: PublishOptions = {}): Promise<void> {
    const full = this.getFullChannel(channel);
    const text = serialize(channel, message);
    const { skipSelf = this.skipSelf, onlySelf } = options ?? {};
    const { adapter } = this;
    if (adapter instanceof NativePubSubAdapter) {
      if (!this.open || !adapter.isConnected()) return this.warnUnconnected(full);
      const published = this.outgoing.add([flagsOf(skipSelf, onlySelf, text === undefined)], full, text ?? '');
      if (adapter.takesAtOnce) return;
      try {
        return await published;
      } catch (error) {
        throw unpublished(error, channel);
      }
    }
    if (!adapter || !(await this.isConnected())) return this.warnUnconnected(full);
    const { publisherId } = this;
    await adapter.publish(full, JSON.stringify({ publisherId, skipSelf, onlySelf, message }));
  }

  private warnUnconnected(channel: string): void {
    this.app.logger?.warn(`pub/sub is not connected, the message on ${channel} was not sent`);
  }

  private forget(channel: string, callback: MessageCallback): void {
    const present = this.byChannel.get(channel);
    const subscription = present?.get(callback);
    if (!present || !subscription) return;
    binding.pubSubUnsubscribe(this.handle, channel, subscription.id);
    this.byId.delete(subscription.id);
    present.delete(callback);
    if (present.size === 0) this.byChannel.delete(channel);
  }

  /** Sees to it that the adapter gives us the channel's texts, once. */
  private async hear(channel: string): Promise<void> {
    const { adapter, handle } = this;
    if (this.heard.has(channel) || !adapter) return;
    const callback: PubSubCallback = (text) => {
      if (this.open) binding.pubSubReceive(this.handle, channel, text);
    };
    this.heard.set(channel, callback);
    try {
      if (adapter instanceof NativePubSubAdapter) {
        await waitFor((listener, sequence) => binding.pubSubHear(handle, adapter.member, channel, listener, sequence));
      } else {
        await adapter.subscribe(channel, callback, { onGap: (gap) => this.open && binding.pubSubGap(handle, channel, numberOf(gap?.reason)) });
      }
    } catch (error) {
      this.heard.delete(channel);
      throw error;
    }
  }

  private callbacks(): Map<string, Set<MessageCallback>> {
    const callbacks = new Map<string, Set<MessageCallback>>();
    for (const { name, callback } of this.byId.values()) {
      const present = callbacks.get(name);
      if (present) present.add(callback);
      else callbacks.set(name, new Set([callback]));
    }
    return callbacks;
  }

  private static heard(self: PubSubManager, id: number, gap: number, payload: unknown): void {
    if (gap === 0) self.deliver(id, payload as string | undefined);
    else self.tell(id, gap);
  }

  private deliver(id: number, text: string | undefined): void {
    if (!this.open) return;
    if (id < 0) return this.app.logger?.warn(`pub/sub: a text that is no message was dropped, ${text}`);
    const subscription = this.byId.get(id);
    if (!subscription) return;
    try {
      const result = subscription.callback(text === undefined ? undefined : JSON.parse(text));
      if (typeof (result as any)?.then === 'function') this.watch(result as PromiseLike<unknown>, 'the subscriber', subscription);
    } catch (error) {
      this.failed('the subscriber', subscription, error);
    }
  }

  private tell(id: number, gap: number): void {
    const subscription = this.byId.get(id);
    if (!this.open || !subscription?.onGap) return;
    const { onGap, name } = subscription;
    try {
      const result = onGap({ reason: reasonOf(gap), channel: name });
      if (typeof (result as any)?.then === 'function') this.watch(result as PromiseLike<unknown>, 'onGap', subscription);
    } catch (error) {
      this.failed('onGap', subscription, error);
    }
  }

  private watch(result: PromiseLike<unknown>, what: string, subscription: Subscription): void {
    result.then(undefined, (error) => this.failed(what, subscription, error));
  }

  /** What a callback throws or rejects with is logged, and harms nobody else. */
  private failed(what: string, { channel }: Subscription, error: unknown): void {
    this.app.logger?.error(`${what} of pub/sub channel ${channel} failed`, error);
  }

  private inTurn<T>(action: () => Promise<T>): Promise<T> {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => undefined);
    return turn;
  }
}

/** Managers that hear messages live on even when nobody holds them. */
const connected = new Set<PubSubManager>();

function checkChannel(channel: string): string {
  if (typeof channel !== 'string' || channel === '') throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}

function serialize(channel: string, message: unknown): string | undefined {
  try {
    return JSON.stringify(message);
  } catch (cause) {
    const text = `the message for channel ${channel} cannot be written as JSON`;
    throw new MortiseError('E_NOT_SERIALIZABLE', text, { cause });
  }
}

function redisAdapter(app: Host, options: PubSubManagerOptions): RedisPubSubAdapter {
  const { url, delivery, maxLength, maxAge } = options;
  const server = typeof url === 'object' ? url : { url };
  return new RedisPubSubAdapter({ ...server, app: app.name || 'main', delivery, maxLength, maxAge, logger: app.logger });
}

function unavailable(adapter: string): MortiseError {
  return new MortiseError('E_ADAPTER_UNAVAILABLE', `pub/sub adapter "${adapter}" is not available in this version`);
}
