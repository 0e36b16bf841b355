import type { CacheManagerOptions } from '../cache';
import { invalid, MortiseError } from '../errors';
import type { EventQueueOptions } from '../event-queue';
import type { LockManagerOptions } from '../lock';
import type { PubSubManagerOptions } from '../pub-sub';
import type { RedisOptions } from '../redis';
import type { SyncMessageManagerOptions } from '../sync-message';
import type { WorkerIdAllocatorOptions } from '../worker-id';
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
  const redis = options.redis ?? text(environment.REDIS_URL);
  const fallback = (variable: string) => text(environment[variable]) ?? redis;
  return {
    ...options,
    redis,
    cacheManager: cacheOptions(options.cacheManager ?? {}, environment, fallback('CACHE_REDIS_URL')),
    pubSubManager: pubSubOptions(options.pubSubManager ?? {}, environment, redis),
    syncMessageManager: { ...options.syncMessageManager },
    eventQueue: queueOptions(options.eventQueue ?? {}, environment, redis),
    lockManager: defined({
      defaultAdapter: text(environment.LOCK_ADAPTER_DEFAULT),
      url: fallback('LOCK_ADAPTER_REDIS_URL'),
      ...options.lockManager,
    }) as LockManagerOptions,
    workerIdAllocator: workerIdOptions(options.workerIdAllocator ?? {}, environment, redis),
  };
}

function cacheOptions(given: CacheManagerOptions, environment: NodeJS.ProcessEnv, url: unknown): CacheManagerOptions {
  const max = text(environment.CACHE_MEMORY_MAX);
  const stores = { ...given.stores };
  if (max !== undefined) stores.memory = { max: Number(max), ...stores.memory };
  const server = typeof url === 'object' && url !== null ? url : defined({ url });
  for (const type of ['redis', 'tiered']) if (url !== undefined) stores[type] = { ...server, ...stores[type] };
  return defined({ defaultStore: text(environment.CACHE_DEFAULT_STORE), ...given, stores });
}

function queueOptions(given: EventQueueOptions, environment: NodeJS.ProcessEnv, redis: unknown): EventQueueOptions {
  const adapter = given.adapter ?? (text(environment.QUEUE_ADAPTER) as EventQueueOptions['adapter']);
  const variable = adapter === 'rabbitmq' ? 'QUEUE_ADAPTER_RABBITMQ_URL' : 'QUEUE_ADAPTER_REDIS_URL';
  const url = text(environment[variable]) ?? (adapter === 'rabbitmq' ? undefined : redis);
  return defined({ url, ...given, adapter }) as EventQueueOptions;
}

/** The variable names no adapter beside it: who sets it wants this one. */
function pubSubOptions(given: PubSubManagerOptions, environment: NodeJS.ProcessEnv, redis: unknown): PubSubManagerOptions {
  const url = text(environment.PUBSUB_ADAPTER_REDIS_URL);
  return defined({ adapter: url === undefined ? undefined : 'redis', url: url ?? redis, ...given }) as PubSubManagerOptions;
}

/** On Redis where the variables put nodes that work together on one, which must not have the same id. */
function workerIdOptions(given: WorkerIdAllocatorOptions, environment: NodeJS.ProcessEnv, redis: unknown): WorkerIdAllocatorOptions {
  const at = (variable: string) => text(environment[variable]);
  const urls = [
    at('PUBSUB_ADAPTER_REDIS_URL'),
    ...(at('QUEUE_ADAPTER') === 'redis' ? [at('QUEUE_ADAPTER_REDIS_URL') ?? redis ?? {}] : []),
    ...(at('LOCK_ADAPTER_DEFAULT') === 'redis' ? [at('LOCK_ADAPTER_REDIS_URL') ?? redis ?? {}] : []),
    // With RabbitMQ alone there may be no Redis to ask.
    ...(at('QUEUE_ADAPTER') === 'rabbitmq' ? [redis] : []),
  ];
  const joined = urls.find((url) => url !== undefined);
  return defined({ adapter: joined === undefined ? undefined : 'redis', url: redis ?? joined, ...given }) as WorkerIdAllocatorOptions;
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

/** The value of an environment variable; an empty one counts as none. */
function text(value: string | undefined): string | undefined {
  return value === '' ? undefined : value;
}

/** Without the fields that are undefined, so that they do not hide a default. */
function defined<T extends object>(object: T): T {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined)) as T;
}
