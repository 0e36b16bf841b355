import type { Logger } from '../app/logger';
import { invalid } from '../errors';
import type { Handle } from '../native';
import { binding } from './binding';
import { ServerQueueAdapter } from './server-adapter';
import { serializeSettings, type ServerQueueSettings } from './server-settings';

/** How a connection to RabbitMQ is encrypted. */
export interface RabbitMQTls {
  /** Certificates of the authority, PEM. Default: the system's. */
  ca?: string;
  /** This client's certificate and its key, PEM. */
  cert?: string;
  key?: string;
}

/** Where a RabbitMQ broker is and how to talk to it. Times are milliseconds. */
export interface RabbitMQOptions {
  /**
   * `amqp://[user:password@]host[:port][,host…][/vhost]`, `amqps://…` with TLS; several hosts are nodes of one cluster.
   * Default `amqp://127.0.0.1:5672`.
   */
  url?: string;
  /** How often the broker gives a sign of life, in whole seconds, rounded up; after two that are missing the connection counts as dead. Default 10000. */
  heartbeat?: number;
  /** With `amqps` URLs: whom to trust, and who this side is. */
  tls?: RabbitMQTls;
  /** How long connecting may take. Default 10000. */
  connectTimeout?: number;
  /** How long a confirmation or a reply may take. Default 5000. */
  commandTimeout?: number;
  /**
   * The `consumer_timeout` of the broker, after which one before 3.12 takes a message away that still runs. It changes nothing there:
   * a warning is logged when five sixths of it have passed. Default 1800000 (30 minutes), as the broker's.
   */
  consumerTimeout?: number;
  /** What the names of queues and exchanges begin with; nodes that work together have the same. Default `mortise`. */
  namePrefix?: string;
}

/** Options of {@link RabbitMQEventQueueAdapter}. */
export interface RabbitMQEventQueueOptions extends RabbitMQOptions, ServerQueueSettings {
  /** Told of failures, of messages that are run again, and when the broker goes away and comes back. */
  logger?: Logger;
}

const KNOWN = ['url', 'heartbeat', 'connectTimeout', 'commandTimeout', 'consumerTimeout', 'namePrefix', 'tls'] as const;

/**
 * An event queue on RabbitMQ 3.10 or newer, for all processes that name the same broker: a durable quorum queue a channel.
 * Messages are run at least once; see `docs/queue.md`. The setting `lease` means nothing here: the broker knows when a node is gone.
 */
export class RabbitMQEventQueueAdapter extends ServerQueueAdapter {
  private readonly connection: string;
  private readonly settings: string;

  /** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
  constructor(options: string | RabbitMQEventQueueOptions = {}) {
    const given: RabbitMQEventQueueOptions = typeof options === 'string' ? { url: options } : options;
    if (typeof given !== 'object' || given === null) {
      throw invalid(`the options of RabbitMQEventQueueAdapter are a URL or an object: ${String(given)}`);
    }
    super(given.closeTimeout, given.logger);
    const present = KNOWN.filter((name) => given[name] !== undefined && given[name] !== null);
    this.connection = JSON.stringify(Object.fromEntries(present.map((name) => [name, given[name]])));
    // Wrong options are told here.
    binding.rabbitQueueCheck(this.connection);
    this.settings = serializeSettings(given);
  }

  protected override open(listener: number): Handle {
    return binding.rabbitQueueOpen(this.connection, this.settings, listener, performance.now());
  }
}
