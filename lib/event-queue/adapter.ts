/** How a message was published. Further fields come back in `queueOptions`. */
export interface QueueMessageOptions {
  /** Milliseconds until the handler's `signal` aborts. Default 15000; `Infinity`: never. */
  timeout?: number;
  /** How often a message that fails is tried again. Default 0. */
  maxRetries?: number;
  /** When it was published, in milliseconds since 1970; set by `publish`. */
  timestamp?: number;
  /** How often it was tried before it came here. */
  retried?: number;
  [option: string]: any;
}

/** What a handler is told of the message that it processes. */
export interface ProcessContext {
  /** The message's id. */
  id: string;
  /** How often it was tried before: 0, 1, … */
  retried: number;
  /** Aborts when the message's timeout has passed, with a `TimeoutError` as its reason. */
  signal: AbortSignal;
  /** The options that the message was published with. */
  queueOptions: QueueMessageOptions;
}

/** How the messages of a channel are processed. */
export interface QueueEventOptions<T = any> {
  /**
   * Processes a message. Resolving acknowledges it; when it throws or rejects, the message is tried
   * again, up to its `maxRetries` times, and is a dead letter then.
   */
  process(message: T, context: ProcessContext): unknown;
  /** Whether messages may be fetched now. Asked before each fetch; one that throws counts as false. Default: always. */
  idle?(): boolean;
  /** How many messages may be processed at once; 0 or below: any number. Default 1. */
  concurrency?: number;
  /** Milliseconds after which `idle` is asked again while it says false. Default 250. */
  interval?: number;
  /** The channel is shared with other apps: their name is not part of its own. */
  shared?: boolean;
}

/** What an event queue runs on; may be written in JavaScript. */
export interface IEventQueueAdapter {
  isConnected(): boolean;
  connect(): Promise<unknown> | unknown;
  close(): Promise<unknown> | unknown;
  subscribe(channel: string, event: QueueEventOptions): unknown;
  unsubscribe(channel: string): unknown;
  publish(channel: string, message: any, options: QueueMessageOptions): Promise<unknown> | unknown;
}

/** A message whose last permitted attempt has failed. */
export interface DeadLetter {
  id: string;
  content: any;
  options: QueueMessageOptions;
}
