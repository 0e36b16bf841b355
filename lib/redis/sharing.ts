// Connections by what they are for: whoever asks for the same gets the same.

import type { Logger } from '../app/logger';
import { RedisConnection } from './connection';
import { type RedisOptions, serializeOptions } from './options';
import { TieredConnection } from './tiered-connection';

/** One user's hold on a shared connection. */
export interface ConnectionUse<C extends RedisConnection = RedisConnection> {
  /** The connection, held from now on. */
  connection(): C;
  /** The connection, if it is held. */
  held(): C | undefined;
  /** Holds it no longer; the last one closes it. */
  release(): void;
}

interface Shared {
  connection: RedisConnection;
  users: number;
  /** By logger, so that one that several users have is told once. */
  loggers: Map<Logger, number>;
}

const connections = new Map<string, Shared>();

/** A use of the connection of that kind; it is made, and held, when it is asked for. */
export function shareConnection(options: RedisOptions & { maxBytes?: number }, kind: 'plain' | 'tiered', logger?: Logger): ConnectionUse {
  const serialized = serializeOptions(options);
  const key = `${kind} ${serialized}`;
  let held: Shared | undefined;
  return {
    connection() {
      if (held) return held.connection;
      const shared = connections.get(key) ?? open(key, kind === 'tiered' ? new TieredConnection(options, options.maxBytes) : new RedisConnection(options));
      shared.users++;
      if (logger) shared.loggers.set(logger, (shared.loggers.get(logger) ?? 0) + 1);
      shared.connection.open();
      held = shared;
      return shared.connection;
    },
    held: () => held?.connection,
    release() {
      if (!held) return;
      const shared = held;
      held = undefined;
      if (logger) {
        const left = (shared.loggers.get(logger) ?? 1) - 1;
        if (left > 0) shared.loggers.set(logger, left);
        else shared.loggers.delete(logger);
      }
      if (--shared.users > 0) return;
      connections.delete(key);
      shared.connection.close();
    },
  };
}

function open(key: string, connection: RedisConnection): Shared {
  const shared: Shared = { connection, users: 0, loggers: new Map() };
  const tell = (level: 'debug' | 'info' | 'warn', text: string): void => {
    for (const logger of shared.loggers.keys()) logger[level](text);
  };
  connection.onLine = tell;
  connections.set(key, shared);
  return shared;
}
