import type { CacheManagerOptions } from '../cache';
import { invalid, MortiseError } from '../errors';
import type { EventQueueOptions } from '../event-queue';
import type { LockManagerOptions } from '../lock';
import type { PubSubManagerOptions } from '../pub-sub';
import type { RedisOptions } from '../redis';
import type { SyncMessageManagerOptions } from '../sync-message';
import type { WorkerIdAllocatorOptions } from '../worker-id';
import { type Placement, placement, queueServer, variable } from './environment';
import type { Logger } from './logger';

/** Options of `createApp` and `install`; each service's object goes to its manager. */
export interface AppOptions {
  /** Prefixes channels, and keys of the cache. Default `'main'`. */
  name?: string;
  /** Default: quiet below `warn`, to stderr. */
  logger?: Logger;
  /** URL or options of the Redis server for every service that runs on Redis and names none. */
  redis?: string | RedisOptions;
  cacheManager?: CacheManagerOptions;
  pubSubManager?: PubSubManagerOptions;
  syncMessageManager?: SyncMessageManagerOptions;
  eventQueue?: EventQueueOptions;
  lockManager?: LockManagerOptions;
  workerIdAllocator?: WorkerIdAllocatorOptions;
}

const KNOWN: Record<keyof AppOptions, readonly string[] | undefined> = {
  name: undefined,
  logger: undefined,
  redis: undefined,
  cacheManager: ['defaultStore', 'prefix', 'stores'],
  pubSubManager: ['adapter', 'url', 'bus', 'channelPrefix', 'skipSelf', 'delivery', 'maxLength', 'maxAge'],
  syncMessageManager: ['debounce', 'leading'],
  eventQueue: ['adapter', 'url', 'channelPrefix', 'journal', 'storagePath', 'closeTimeout', 'lease', 'maxRun', 'maxStall', 'maxCrashes', 'crashCounts'],
  lockManager: ['defaultAdapter', 'url', 'app', 'gracePeriod', 'maxHold', 'logger'],
  workerIdAllocator: ['adapter', 'url', 'lease', 'rest', 'logger', 'onLost'],
};

/** The options, with what the environment gives beneath them. Throws for names that nobody knows. */
export function resolveOptions(options: AppOptions, environment: NodeJS.ProcessEnv = process.env): AppOptions {
  checkNames('', options, Object.keys(KNOWN));
  for (const [name, known] of Object.entries(KNOWN)) {
    const given = options[name as keyof AppOptions];
    if (known && given !== undefined) checkNames(`${name}.`, given, known);
  }
  if (options.name !== undefined && (typeof options.name !== 'string' || options.name === '')) {
    throw invalid(`the option name is a string that is not empty: ${String(options.name)}`);
  }
  const redis = options.redis ?? variable(environment, 'REDIS_URL');
  const { cache, pubSub, queue, locks, workerIds } = placement<RedisOptions>(environment, redis);
  const adapter = options.eventQueue?.adapter ?? (queue?.adapter as EventQueueOptions['adapter']);
  return {
    ...options,
    redis,
    cacheManager: cacheOptions(options.cacheManager ?? {}, cache),
    // The variable names no adapter beside it: who sets it wants this one.
    pubSubManager: defined({ adapter: pubSub && ('redis' as const), url: pubSub?.url ?? redis, ...options.pubSubManager }),
    syncMessageManager: { ...options.syncMessageManager },
    eventQueue: defined({ url: queueServer(environment, adapter, redis), ...options.eventQueue, adapter }),
    lockManager: defined({ ...locks, ...options.lockManager }),
    workerIdAllocator: defined({ adapter: workerIds && ('redis' as const), url: workerIds ? workerIds.url : redis, ...options.workerIdAllocator }),
  };
}

function cacheOptions(given: CacheManagerOptions, { defaultStore, max, url }: Placement<string | RedisOptions>['cache']): CacheManagerOptions {
  const stores = { ...given.stores };
  if (max !== undefined) stores.memory = { max: Number(max), ...stores.memory };
  const server = typeof url === 'object' && url !== null ? url : defined({ url });
  for (const type of ['redis', 'tiered']) if (url !== undefined) stores[type] = { ...server, ...stores[type] };
  return defined({ defaultStore, ...given, stores });
}

function checkNames(path: string, given: unknown, known: readonly string[]): void {
  if (typeof given !== 'object' || given === null) {
    const message = `the option ${path.slice(0, -1) || 'of createApp'} is an object: ${String(given)}`;
    throw invalid(message);
  }
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    throw new MortiseError('E_UNKNOWN_OPTION', `unknown option ${path}${name}; known are: ${known.join(', ')}`);
  }
}

/** Without the fields that are undefined, so that they do not hide a default. */
function defined<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as T;
}
