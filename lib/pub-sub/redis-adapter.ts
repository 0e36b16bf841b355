import type { Logger } from '../app/logger';
import { invalid } from '../errors';
import { listenWeakly } from '../native';
import { type RedisOptions, serializeOptions } from '../redis/options';
import { type ConnectionUse, shareConnection } from '../redis/sharing';
import { binding } from './binding';
import { reasonOf } from './gap';
import { NativePubSubAdapter } from './native-adapter';

/** What the log of an app keeps, and whether there is one. */
export interface RedisDeliveryOptions {
  /**
   * `'log'` (default): by a capped log on the server; what passes while a connection is cut or a process is
   * stopped is heard afterwards. `'volatile'`: by plain `PUBLISH`, which NocoBase's own Redis adapter
   * understands; it needs Redis 6 and no cluster, else `connect` rejects with `E_UNSUPPORTED`.
   */
  delivery?: 'log' | 'volatile';
  /** How many entries the log keeps, about; an entry has up to 32 messages. Default 10 000. */
  maxLength?: number;
  /** Milliseconds after which entries are dropped from the log, by and by. Default 600 000 (10 minutes). */
  maxAge?: number;
}

/** Options of {@link RedisPubSubAdapter}, beside those of the connection. */
export interface RedisPubSubAdapterOptions extends RedisOptions, RedisDeliveryOptions {
  /** Whose log it is: nodes with the same name on the same server hear each other. Default `'main'`. */
  app?: string;
  /** Told of gaps, and when the server goes away and comes back. */
  logger?: Logger;
}

/** Who is told of gaps. It does not hold the adapter, so that the listener does not either. */
interface Told {
  logger: Logger | undefined;
  what: string;
  delivery: string;
  /** Of eviction, once. */
  warned: boolean;
}

function warn({ logger, what }: Told, _: number, gap: number): void {
  logger?.warn(`${what}: messages may have been missed (${reasonOf(gap)})`);
}

const MAX_LENGTH = 10_000;
const MAX_AGE = 600_000;

/**
 * Carries texts between the nodes of an app over Redis. Any pub/sub manager can use it that takes an
 * {@link IPubSubAdapter}.
 *
 * `connect` resolves when the server can be reached, and rejects with `E_UNAVAILABLE` when it cannot
 * within `connectTimeout`. While a connected one has lost its server, `publish` waits, up to
 * `commandTimeout`; then it rejects with `E_UNAVAILABLE`, or `E_TIMEOUT` when the server was there but slow
 * (the message may have gone out), and with `E_BUFFER_FULL` at once when 100 000 messages or 16 MiB wait.
 */
export class RedisPubSubAdapter extends NativePubSubAdapter {
  private readonly use: ConnectionUse;
  /** Its listener lives as long. */
  protected readonly told: Told;

  /** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
  constructor(options: string | RedisPubSubAdapterOptions = {}) {
    const given: RedisPubSubAdapterOptions = typeof options === 'string' ? { url: options } : options;
    const { app, delivery, maxLength, maxAge } = check(given);
    const serialized = serializeOptions(given);
    const what = `pub/sub of app ${app} on ${binding.redisShown(serialized)}`;
    const told: Told = { logger: given.logger, what, delivery, warned: false };
    const listener = listenWeakly(told, warn);
    super(binding.redisBusJoin(serialized, app, delivery === 'volatile', maxLength, maxAge, listener), false);
    this.told = told;
    this.use = shareConnection(given, 'plain', given.logger);
  }

  override async connect(): Promise<void> {
    // The connection's lines of the log come by this.
    const connection = this.use.connection();
    try {
      await super.connect();
      this.warnOfEviction(connection.health().evictionPolicy);
    } finally {
      if (!this.isConnected()) this.use.release();
    }
  }

  override async close(): Promise<void> {
    await super.close();
    if (!this.isConnected()) this.use.release();
  }

  /** The log lives for ever, so only these policies may take it. */
  private warnOfEviction(policy = ''): void {
    const { told } = this;
    if (!policy.startsWith('allkeys') || told.delivery === 'volatile' || told.warned) return;
    told.warned = true;
    told.logger?.warn(`${told.what}: the server may evict the log (maxmemory-policy ${policy}), which is a gap`);
  }
}

function check(options: RedisPubSubAdapterOptions): Required<RedisDeliveryOptions> & { app: string } {
  if (typeof options !== 'object' || options === null) throw invalid(`the options of RedisPubSubAdapter are a URL or an object: ${String(options)}`);
  const { app = 'main', delivery = 'log', maxLength = MAX_LENGTH, maxAge = MAX_AGE } = options;
  if (typeof app !== 'string' || app === '') throw invalid(`the option app of pub/sub is a string that is not empty: ${String(app)}`);
  if (delivery !== 'log' && delivery !== 'volatile') throw invalid(`the option delivery of pub/sub is 'log' or 'volatile': ${String(delivery)}`);
  if (!Number.isSafeInteger(maxLength) || maxLength < 1) throw invalid(`the option maxLength of pub/sub is a whole number from 1: ${String(maxLength)}`);
  if (typeof maxAge !== 'number' || !(maxAge >= 1)) throw invalid(`the option maxAge of pub/sub is a number of milliseconds from 1: ${String(maxAge)}`);
  return { app, delivery, maxLength, maxAge: Math.min(maxAge, 2 ** 41) };
}
