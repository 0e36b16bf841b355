import { EventEmitter } from 'node:events';
import type { Logger } from '../app/logger';
import { invalid } from '../errors';
import { Batch, Completions, type Ending, type Handle, listenWeakly } from '../native';
import { binding, type HealthParts, Operation } from './binding';
import { type RedisOptions, serializeOptions } from './options';

/** Whether a server can be reached. */
export interface RedisHealth {
  /** The server's URL, secrets masked. */
  server: string;
  /** `away`: connecting goes on, and commands fail at once meanwhile. */
  state: 'connecting' | 'ready' | 'away' | 'closed';
  /** Why it is away. */
  reason?: string;
  /** How long the state has lasted, in milliseconds. */
  since: number;
  /** The server's version, where it tells. */
  version?: string;
  /** 3 on RESP3, 2 on RESP2. */
  protocol?: 2 | 3;
  /** The server's `maxmemory-policy`, where it tells. */
  evictionPolicy?: string;
}

/** A reply: integers as numbers, nil as null, maps as lists of keys and values in turn. */
export type RedisReply = string | number | null | RedisReply[];

/**
 * A connection to Redis or Valkey: one server, the master behind sentinels, or a cluster. It connects
 * by itself, and again for as long as it is open; several with equal options share one connection of
 * the process. The commands of one turn of the event loop go out together.
 *
 * Events: `ready` and `away`, each with a {@link RedisHealth}, once for each change.
 */
export class RedisConnection extends EventEmitter {
  protected handle: Handle | undefined;
  private readonly options: string;
  private state: RedisHealth['state'] | undefined;
  protected readonly replies = replies();
  protected batch = this.newBatch();

  /** Throws a `TypeError` that names the option when the options are wrong; connects with the first command. */
  constructor(options?: string | RedisOptions, logger?: Logger) {
    super();
    this.options = serializeOptions(options);
    // Wrong options are told here and not by the first command.
    binding.redisShown(this.options);
    if (logger) this.onLine = (level, text) => logger[level](text);
  }

  /** Where a line for the log goes, one for each change. */
  onLine: ((level: 'debug' | 'info' | 'warn', text: string) => void) | undefined;

  /** The server's URL, secrets masked. */
  get server(): string {
    return binding.redisShown(this.options);
  }

  /**
   * Sends a command: its name and its arguments. Commands keep their order.
   *
   * Rejects with `E_REDIS` when the server refuses it, with `E_UNAVAILABLE` while the server is away or
   * when it was lost before its reply came, and with `E_TIMEOUT` when it does not reply in time; in the
   * last two cases the command may have been carried out.
   */
  command<T extends RedisReply = any>(...words: (string | number)[]): Promise<T> {
    for (let i = 0; i < words.length; i++) {
      const word = words[i];
      if (typeof word === 'string') continue;
      if (typeof word !== 'number') return Promise.reject(invalid('a redis command is made of strings and numbers'));
      words[i] = String(word);
    }
    if (words.length === 0) return Promise.reject(invalid('a redis command has a name'));
    return this.send(words as string[]);
  }

  /** As {@link command}, for words that are strings for sure; `ending` makes something else of the reply. */
  send<T = any>(words: readonly string[], subject?: string, ending?: Ending): Promise<T> {
    if (this.handle === undefined) this.open();
    const promise = this.replies.promise<T>(subject, ending);
    this.batch.addWords(this.replies.last, words);
    return promise;
  }

  /** One of the operations that take more than a command; it begins after all that was sent before. */
  operate<T = any>(operation: number, words: string[]): Promise<T> {
    const handle = this.handle ?? this.open();
    this.batch.flush();
    return this.replies.wait<T>((sequence) => binding.redisOperate(handle, this.replies.listener, sequence, operation, words));
  }

  /** Begins to connect, without waiting for it. */
  open(): Handle {
    if (this.handle) return this.handle;
    this.state = undefined;
    this.handle = this.makeHandle(this.options, listenWeakly(this, RedisConnection.heard));
    open.add(this);
    return this.handle;
  }

  /** Opens the connection in Rust. */
  protected makeHandle(options: string, listener: number): Handle {
    return binding.redisOpen(options, listener);
  }

  /** How the connection is. */
  health(): RedisHealth {
    if (!this.handle) return { server: this.server, state: 'closed', since: 0 };
    return describeHealth(binding.redisHealth(this.handle));
  }

  /**
   * Closes it, after what was sent before. The next command opens it again. The connection itself ends
   * when nobody else in the process uses it.
   */
  close(): void {
    if (!this.handle) return;
    this.batch.flush();
    binding.redisClose(this.handle);
    this.handle = undefined;
    open.delete(this);
  }

  protected newBatch(): Batch {
    return new Batch((...batch) => {
      binding.redisSubmit(this.handle as Handle, this.replies.listener, ...batch);
    });
  }

  private static heard(self: RedisConnection, _: number, __: number, payload: unknown): void {
    self.changed(describeHealth(payload as HealthParts));
  }

  private changed(health: RedisHealth): void {
    const before = this.state;
    if (!this.handle || health.state === before) return;
    this.state = health.state;
    const line = lineOf(before, health);
    if (line) this.onLine?.(...line);
    if (health.state === 'ready') this.becameReady(health);
    if (health.state === 'away' || health.state === 'ready') this.emit(health.state, health);
  }

  /** Before the event is. */
  protected becameReady(_: RedisHealth): void {}
}

/** Open connections live on even when nobody holds them: their users' promises hang on them. */
const open = new Set<RedisConnection>();

let shared: Completions | undefined;

/** The replies of all connections, so that opening many costs no listener each. */
function replies(): Completions {
  // `NaN` stands for OK, and a payload for what is not a number.
  shared ??= new Completions({
    convert: (value, payload) => {
      if (payload !== undefined) return payload;
      return value === value ? value : 'OK';
    },
  });
  return shared;
}

/** The line of the log for a change of state, if it is worth one. */
export function lineOf(before: RedisHealth['state'] | undefined, health: RedisHealth): [level: 'debug' | 'info' | 'warn', text: string] | undefined {
  if (health.state === 'away') return ['warn', `${health.server} is away: ${health.reason}`];
  if (health.state !== 'ready') return undefined;
  const version = `version ${health.version ?? 'unknown'}, RESP${health.protocol}`;
  return before === 'away'
    ? ['info', `${health.server} is back (${version})`]
    : ['debug', `${health.server} is connected (${version})`];
}

export function describeHealth([server, state, reason, since, version, protocol, eviction]: HealthParts): RedisHealth {
  return {
    server,
    state: state as RedisHealth['state'],
    since,
    ...(reason === null ? {} : { reason }),
    ...(version === '' ? {} : { version }),
    ...(protocol === 0 ? {} : { protocol: protocol as 2 | 3 }),
    ...(eviction === '' ? {} : { evictionPolicy: eviction }),
  };
}

export { Operation };
