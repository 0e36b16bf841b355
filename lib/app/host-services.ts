import type { PubSubManager } from '../pub-sub';

/**
 * Instead of the adapter of a queue that a host goes on connecting although nobody uses it: it is to take no messages, and
 * to read no file of ours.
 */
export const NO_QUEUE = {
  isConnected: () => false,
  connect: () => undefined,
  close: () => undefined,
  subscribe: () => undefined,
  unsubscribe: () => undefined,
  publish: () => undefined,
};

const SYNC_DEBOUNCE = 1000;

/** The services that a host has made for itself. It goes on starting and stopping them, and does not use them. */
export class HostServices {
  private readonly pubSub: any;

  /** Those of `host` that are none of ours. */
  constructor(private readonly host: any, ours: readonly unknown[]) {
    const theirs = (member: string): any => (ours.includes(host[member]) ? undefined : host[member]);
    theirs('eventQueue')?.setAdapter?.(NO_QUEUE);
    this.pubSub = theirs('pubSubManager');
    const sync = theirs('syncMessageManager');
    // It would subscribe each plugin once more, on our pub/sub.
    if (sync) sync.subscribe = async () => undefined;
  }

  /** Subscribes on ours what was subscribed on the host's pub/sub before ours was there. */
  async handOver(ours: PubSubManager, syncDebounce: number = SYNC_DEBOUNCE): Promise<void> {
    const channels: Map<string, Map<any, unknown>> | undefined = this.pubSub?.handlerManager?.handlers;
    if (!(channels instanceof Map)) return;
    for (const [channel, handlers] of channels) {
      const debounce = channel.startsWith(`${this.host.name}.sync.`) ? syncDebounce : 0;
      for (const callback of handlers.keys()) await ours.subscribe(channel, callback, { debounce });
    }
    channels.clear();
  }
}
