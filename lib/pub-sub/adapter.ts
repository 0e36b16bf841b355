/** Called with each text that comes on a channel. */
export type PubSubCallback = (text: string) => unknown;

/** What carries the texts of pub/sub managers; may be written in JavaScript. */
export interface IPubSubAdapter {
  isConnected(): boolean | Promise<boolean>;
  connect(): Promise<unknown>;
  close(): Promise<unknown>;
  subscribe(channel: string, callback: PubSubCallback): Promise<unknown>;
  unsubscribe(channel: string, callback: PubSubCallback): Promise<unknown>;
  publish(channel: string, text: string): Promise<unknown>;
}
