import { MortiseError } from '../errors';
import { type Handle, listenWeakly } from '../native';
import type { AdapterSubscribeOptions, IPubSubAdapter, PubSubCallback } from './adapter';
import { binding } from './binding';
import { reasonOf } from './gap';
import { Outgoing, unpublished, waitFor } from './outgoing';

interface Hearing {
  id: number;
  callbacks: Map<PubSubCallback, AdapterSubscribeOptions['onGap']>;
  /** Resolves when the channel is heard. */
  ready: Promise<void>;
}

/** Those that are connected: they go on hearing, whoever still knows them. */
const connected = new Set<NativePubSubAdapter>();

/**
 * An adapter that is written in Rust. Subscriptions are kept over `close` and heard again after
 * `connect`; they do not keep Node alive.
 */
export abstract class NativePubSubAdapter implements IPubSubAdapter {
  private connected = false;
  /** Grows with each call of `connect` and `close`, so that the last one counts. */
  private turn = 0;
  private readonly hearings = new Map<string, Hearing>();
  private readonly byId = new Map<number, Hearing>();
  private listener: number | undefined;
  private nextId = 0;
  private readonly outgoing: Outgoing;

  /** @internal */
  protected constructor(
    /** @internal */
    readonly member: Handle,
    /** @internal Whether `publish` of a manager resolves without waiting for the carrier. */
    readonly takesAtOnce: boolean,
  ) {
    this.outgoing = new Outgoing((...part) => binding.busPublish(member, ...part));
  }

  isConnected(): boolean {
    return this.connected;
  }

  async connect(): Promise<void> {
    const turn = ++this.turn;
    await waitFor((listener, sequence) => binding.busConnect(this.member, listener, sequence));
    if (turn !== this.turn) return;
    this.connected = true;
    connected.add(this);
  }

  /** Nothing is heard from the call on; resolves when what was published before is settled. May be repeated. */
  async close(): Promise<void> {
    this.turn++;
    this.outgoing.flush();
    this.connected = false;
    connected.delete(this);
    await waitFor((listener, sequence) => binding.busClose(this.member, listener, sequence));
  }

  /** Resolves when the channel is heard: what is published from then on reaches `callback`. */
  async subscribe(channel: string, callback: PubSubCallback, options: AdapterSubscribeOptions = {}): Promise<void> {
    const present = this.hearings.get(channel);
    if (present) {
      present.callbacks.set(callback, options?.onGap);
      return present.ready;
    }
    this.listener ??= listenWeakly(this, NativePubSubAdapter.heard);
    const { listener: hears } = this;
    const id = this.nextId++;
    const ready = waitFor((listener, sequence) => binding.busSubscribe(this.member, channel, hears, id, listener, sequence));
    const hearing = { id, callbacks: new Map([[callback, options?.onGap]]), ready };
    this.hearings.set(channel, hearing);
    this.byId.set(id, hearing);
    try {
      await ready;
    } catch (error) {
      if (this.hearings.get(channel) === hearing) this.forget(channel, hearing);
      throw error;
    }
  }

  async unsubscribe(channel: string, callback: PubSubCallback): Promise<void> {
    const hearing = this.hearings.get(channel);
    if (!hearing?.callbacks.delete(callback) || hearing.callbacks.size > 0) return;
    this.forget(channel, hearing);
    await waitFor((listener, sequence) => binding.busUnsubscribe(this.member, channel, listener, sequence));
  }

  /** Resolves when the carrier has the text. Rejects with `E_CLOSED` when the adapter is not connected. */
  async publish(channel: string, text: string): Promise<void> {
    if (!this.connected) {
      throw new MortiseError('E_CLOSED', `the pub/sub adapter is not connected, cannot publish on ${channel}`);
    }
    try {
      await this.outgoing.add([], channel, text);
    } catch (error) {
      throw unpublished(error, channel);
    }
  }

  private forget(channel: string, hearing: Hearing): void {
    this.hearings.delete(channel);
    this.byId.delete(hearing.id);
  }

  private static heard(self: NativePubSubAdapter, id: number, gap: number, text: unknown): void {
    self.hear(id, gap, text as string);
  }

  private hear(id: number, gap: number, text: string): void {
    if (!this.connected) return;
    for (const [callback, onGap] of this.byId.get(id)?.callbacks ?? []) {
      if (gap === 0) void callback(text);
      else void onGap?.({ reason: reasonOf(gap) });
    }
  }
}
