import { MortiseError } from '../errors';
import { type Handle, listen, unlisten } from '../native';
import type { IPubSubAdapter, PubSubCallback } from './adapter';
import { binding } from './binding';
import { delivered, publishing } from './delivery';

interface Hearing {
  id: number;
  callbacks: Set<PubSubCallback>;
}

/**
 * Carries texts within the process: between all apps and worker threads that name the same bus.
 * Subscriptions are kept over `close` and heard again after `connect`; they do not keep Node alive.
 */
export class MemoryPubSubAdapter implements IPubSubAdapter {
  /** @internal */
  readonly member: Handle;
  private connected = false;
  private readonly hearings = new Map<string, Hearing>();
  private readonly byId = new Map<number, Hearing>();
  private listener: number | undefined;
  private nextId = 0;

  /** `bus`: who hears each other; default one for the process. */
  constructor(options: { bus?: string } = {}) {
    this.member = binding.memoryBusJoin(options.bus ?? '');
  }

  isConnected(): boolean {
    return this.connected;
  }

  async connect(): Promise<void> {
    binding.memoryBusConnect(this.member);
    this.connected = true;
  }

  async close(): Promise<void> {
    this.connected = false;
    binding.memoryBusClose(this.member);
  }

  async subscribe(channel: string, callback: PubSubCallback): Promise<void> {
    const present = this.hearings.get(channel);
    if (present) {
      present.callbacks.add(callback);
      return;
    }
    this.listener ??= listen((id, _, text) => this.hear(id, text as string));
    const hearing = { id: this.nextId++, callbacks: new Set([callback]) };
    this.hearings.set(channel, hearing);
    this.byId.set(hearing.id, hearing);
    binding.memoryBusSubscribe(this.member, channel, this.listener, hearing.id);
  }

  async unsubscribe(channel: string, callback: PubSubCallback): Promise<void> {
    const hearing = this.hearings.get(channel);
    if (!hearing?.callbacks.delete(callback) || hearing.callbacks.size > 0) return;
    binding.memoryBusUnsubscribe(this.member, channel);
    this.hearings.delete(channel);
    this.byId.delete(hearing.id);
    if (this.hearings.size > 0 || this.listener === undefined) return;
    unlisten(this.listener);
    this.listener = undefined;
  }

  /** Rejects with `E_CLOSED` when the adapter is not connected. */
  async publish(channel: string, text: string): Promise<void> {
    if (!publishing(() => binding.memoryBusPublish(this.member, delivered, channel, text))) {
      throw new MortiseError('E_CLOSED', `the pub/sub adapter is not connected, cannot publish on ${channel}`);
    }
  }

  private hear(id: number, text: string): void {
    if (!this.connected) return;
    for (const callback of this.byId.get(id)?.callbacks ?? []) void callback(text);
  }
}
