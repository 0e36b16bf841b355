import type { Logger } from '../app/logger';
import { invalid } from '../errors';
import type { Handle } from '../native';
import { type RedisOptions, serializeOptions } from '../redis/options';
import { binding as redis } from '../redis/binding';
import { binding } from './binding';
import { ServerQueueAdapter } from './server-adapter';
import { serializeSettings, type ServerQueueSettings } from './server-settings';

/** Options of {@link RedisEventQueueAdapter}, beside those of the connection. */
export interface RedisEventQueueOptions extends RedisOptions, ServerQueueSettings {
  /** Told of failures, of messages that are run again, and when the server goes away and comes back. */
  logger?: Logger;
}

/**
 * An event queue on Redis or Valkey, for all processes that name the same server: streams with a consumer group, one
 * a channel. Messages are run at least once; see `docs/queue.md`.
 */
export class RedisEventQueueAdapter extends ServerQueueAdapter {
  private readonly connection: string;
  private readonly settings: string;

  /** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
  constructor(options: string | RedisEventQueueOptions = {}) {
    const given: RedisEventQueueOptions = typeof options === 'string' ? { url: options } : options;
    if (typeof given !== 'object' || given === null) {
      throw invalid(`the options of RedisEventQueueAdapter are a URL or an object: ${String(given)}`);
    }
    super(given.closeTimeout, given.logger);
    this.connection = serializeOptions(given);
    // Wrong options are told here.
    redis.redisShown(this.connection);
    this.settings = serializeSettings(given);
  }

  protected override open(listener: number): Handle {
    return binding.redisQueueOpen(this.connection, this.settings, listener, performance.now());
  }
}
