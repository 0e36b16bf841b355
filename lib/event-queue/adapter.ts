/** How long to wait between a failure and the next attempt. */
export interface QueueBackoff {
  /** `'fixed'`: always `delay`; `'exponential'`: `delay`, twice that, four times, … */
  type: 'fixed' | 'exponential';
  /** Milliseconds. */
  delay: number;
  /** The longest pause, in milliseconds. Default: none. */
  max?: number;
  /** Share of the pause, 0 to 1, by which it is shortened at random, so that messages that failed together do not come back together. Default 0. */
  jitter?: number;
}

/** How a message was published. Further fields come back in `queueOptions`. */
export interface QueueMessageOptions {
  /** Milliseconds until the handler's `signal` aborts. Default 15000; `Infinity`: never. */
  timeout?: number;
  /** How often a message that fails is tried again. Default 0. */
  maxRetries?: number;
  /** Pauses between attempts. Default: 500 ms each. */
  backoff?: QueueBackoff;
  /** Milliseconds for which the message is kept back; it goes to the end of the channel then. Default 0. */
  delay?: number;
  /**
   * The message's id. While one with the same id waits, is kept back or runs in the channel, another is not queued;
   * `publish` resolves all the same. Default: one that is unique. On RabbitMQ it names the message, and nothing is compared.
   */
  id?: string;
  /** Whatever is to come back with the message, on retries too, such as a trace context. */
  headers?: Record<string, any>;
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
  /** Aborts when the message's timeout has passed, with a `TimeoutError` as its reason, or when it is cancelled, with an `AbortError`. */
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

/** What is in a channel. */
export interface QueueCounts {
  /** Messages that could begin now. */
  waiting: number;
  /** Messages that are kept back, or wait for their next attempt. `undefined` where the adapter cannot tell. */
  delayed: number | undefined;
  /** Messages that run, on all nodes. */
  running: number;
  /** Dead letters. */
  dead: number;
  /** Whether the channel is paused. */
  paused: boolean;
  /** How long the oldest of those that wait has waited, in milliseconds; 0 without one. `undefined` where the adapter cannot tell. */
  oldestAge: number | undefined;
}

/** A message whose last permitted attempt has failed, or that has ended its node again and again. */
export interface DeadLetter {
  id: string;
  content: any;
  options: QueueMessageOptions;
  /** What the last attempt failed with. */
  error?: string;
}

/** The dead letters of a channel: to look at, to replay, to drop. A channel keeps 10 000; the oldest go first. */
export interface DeadLetters {
  /** How many there are. */
  count(): Promise<number>;
  /** All of them, the oldest first. */
  list(): Promise<DeadLetter[]>;
  /** Publishes one (or all, without an id) again, under its id and with its retries before it. Resolves to how many. */
  replay(id?: string): Promise<number>;
  /** Forgets one, or all without an id. Resolves to how many. */
  drop(id?: string): Promise<number>;
}

/** What an event queue runs on; may be written in JavaScript. What is optional is refused with `E_UNSUPPORTED` where it is missing. */
export interface IEventQueueAdapter {
  isConnected(): boolean;
  connect(): Promise<unknown> | unknown;
  close(): Promise<unknown> | unknown;
  subscribe(channel: string, event: QueueEventOptions): unknown;
  unsubscribe(channel: string): unknown;
  /** May resolve to the message's id. */
  publish(channel: string, message: any, options: QueueMessageOptions): Promise<unknown> | unknown;
  /** Whether there was such a message. */
  cancel?(channel: string, id: string): Promise<boolean> | boolean;
  pause?(channel: string): Promise<unknown> | unknown;
  resume?(channel: string): Promise<unknown> | unknown;
  counts?(channel: string): Promise<QueueCounts> | QueueCounts;
  deadLetters?(channel: string): DeadLetters;
  health?(): QueueHealth;
}

/** Whether an event queue works. */
export interface QueueHealth {
  /** `'ready'`: messages are fetched as they come. `'away'`: the server cannot be reached; connecting goes on. */
  state: 'ready' | 'connecting' | 'away' | 'closed';
  /** Why it is away. */
  reason?: string;
  /** Channels of which messages waited although nothing had told this node, which then looked by itself. */
  silent?: number;
}
