import type { GapReason } from './gap';

/** Called with each text that comes on a channel. */
export type PubSubCallback = (text: string) => unknown;

/** Options of {@link IPubSubAdapter.subscribe}. */
export interface AdapterSubscribeOptions {
  /** Called when texts of the channel may have been missed. */
  onGap?: (gap: { reason: GapReason }) => unknown;
}

/** What carries the texts of pub/sub managers; may be written in JavaScript. */
export interface IPubSubAdapter {
  isConnected(): boolean | Promise<boolean>;
  connect(): Promise<unknown>;
  close(): Promise<unknown>;
  /** `options` may be ignored by an adapter that cannot tell of gaps. */
  subscribe(channel: string, callback: PubSubCallback, options?: AdapterSubscribeOptions): Promise<unknown>;
  unsubscribe(channel: string, callback: PubSubCallback): Promise<unknown>;
  publish(channel: string, text: string): Promise<unknown>;
}
