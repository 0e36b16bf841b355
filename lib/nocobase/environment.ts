// What the environment variables mean inside NocoBase: which of its services run on a server, and on which.

import { invalid } from '../errors';
import { MortiseError, RabbitMQEventQueueAdapter, RedisConnection } from '../index';

/** A property that the managers have which took the place of NocoBase's own: nothing is to be plugged into them. */
const REPLACEMENT = Symbol.for('mortise.nocobase.replacement');

/** Marks a class of managers as such. */
export function markReplacement(manager: { prototype: object }): void {
  Object.defineProperty(manager.prototype, REPLACEMENT, { value: true });
}

/** Whether a manager of the host is one of ours, which reads the environment by itself. */
export function isReplacement(manager: unknown): boolean {
  return typeof manager === 'object' && manager !== null && REPLACEMENT in manager;
}

/** What a NocoBase node runs on. What is undefined stays as NocoBase has it. */
export interface HostEnvironment {
  /** `REDIS_URL`: the server of what is put on Redis without saying where. */
  redis: string | undefined;
  cache: {
    /** `CACHE_DEFAULT_STORE`. */
    defaultStore: string | undefined;
    /** `CACHE_MEMORY_MAX`: entries of a memory store. */
    max: number | undefined;
    /** `CACHE_REDIS_URL`, else `REDIS_URL`: the server of the stores `redis` and `tiered`. */
    url: string | undefined;
  };
  /** `PUBSUB_ADAPTER_REDIS_URL`. Without it pub/sub has no adapter, whatever `REDIS_URL` says: NocoBase itself reads that one. */
  pubSub: { url: string } | undefined;
  /** `QUEUE_ADAPTER`, with `QUEUE_ADAPTER_RABBITMQ_URL`, or `QUEUE_ADAPTER_REDIS_URL`, else `REDIS_URL`. */
  queue: { adapter: 'memory' | 'redis' | 'rabbitmq'; url: string | undefined } | undefined;
  locks: {
    /** `LOCK_ADAPTER_DEFAULT`. */
    defaultAdapter: string | undefined;
    /** `LOCK_ADAPTER_REDIS_URL`, else `REDIS_URL`: the server of the adapter `redis`. */
    url: string | undefined;
    /** Whether it is the first of these that names it. */
    named: boolean;
  };
  /**
   * On Redis as soon as pub/sub, the queue or the locks are on a server: nodes that work together must not have the
   * same id. On `REDIS_URL`, else on the first of those servers that is a Redis.
   */
  workerIds: { url: string | undefined } | undefined;
}

const QUEUES = ['memory', 'redis', 'rabbitmq'] as const;

/**
 * Reads the variables; empty ones count as absent. Throws, naming the variable, `E_ADAPTER_UNAVAILABLE` for a queue
 * that nobody knows, and a `TypeError` with `E_INVALID_ARGUMENT` for a wrong URL or number. Secrets are masked.
 */
export function readEnvironment(environment: NodeJS.ProcessEnv = process.env): HostEnvironment {
  const text = (name: string): string | undefined => environment[name] || undefined;
  const redis = (name: string): string | undefined => redisUrl(name, text(name));
  const fallback = text('REDIS_URL');
  const server = (name: string): string | undefined => redis(name) ?? redis('REDIS_URL');
  const pubSub = redis('PUBSUB_ADAPTER_REDIS_URL');
  const queue = readQueue(text('QUEUE_ADAPTER'), server, text('QUEUE_ADAPTER_RABBITMQ_URL'));
  const defaultAdapter = text('LOCK_ADAPTER_DEFAULT');
  const defaultStore = text('CACHE_DEFAULT_STORE');
  const lockServer = redis('LOCK_ADAPTER_REDIS_URL');
  const locks = { defaultAdapter, url: defaultAdapter === 'redis' ? server('LOCK_ADAPTER_REDIS_URL') : lockServer ?? fallback, named: lockServer !== undefined };
  return {
    redis: fallback,
    cache: {
      defaultStore,
      max: readMax(text('CACHE_MEMORY_MAX')),
      url: defaultStore === 'redis' || defaultStore === 'tiered' ? server('CACHE_REDIS_URL') : redis('CACHE_REDIS_URL') ?? fallback,
    },
    pubSub: pubSub === undefined ? undefined : { url: pubSub },
    queue,
    locks,
    workerIds: workerIds(fallback, pubSub, queue, locks),
  };
}

function readQueue(adapter: string | undefined, server: (name: string) => string | undefined, rabbit: string | undefined): HostEnvironment['queue'] {
  if (adapter === undefined) return undefined;
  const known = QUEUES.find((name) => name === adapter);
  if (!known) throw new MortiseError('E_ADAPTER_UNAVAILABLE', `QUEUE_ADAPTER is ${JSON.stringify(adapter)}; known are: ${QUEUES.join(', ')}`);
  if (known === 'memory') return { adapter: known, url: undefined };
  if (known === 'redis') return { adapter: known, url: server('QUEUE_ADAPTER_REDIS_URL') };
  // Made to have its URL checked; it connects to nothing.
  if (rabbit !== undefined) naming('QUEUE_ADAPTER_RABBITMQ_URL', () => new RabbitMQEventQueueAdapter(rabbit));
  return { adapter: known, url: rabbit };
}

function workerIds(
  fallback: string | undefined,
  pubSub: string | undefined,
  queue: HostEnvironment['queue'],
  locks: HostEnvironment['locks'],
): HostEnvironment['workerIds'] {
  const queued = queue?.adapter === 'redis' ? queue : undefined;
  const locked = locks.defaultAdapter === 'redis' ? locks : undefined;
  // With RabbitMQ alone there is no Redis to ask.
  const joined = pubSub ?? queued ?? locked ?? (queue?.adapter === 'rabbitmq' ? fallback : undefined);
  if (joined === undefined) return undefined;
  return { url: redisUrl('REDIS_URL', fallback) ?? pubSub ?? queued?.url ?? locked?.url };
}

function readMax(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const max = Number(text);
  // As NocoBase reads it.
  if (max === 0) return undefined;
  if (Number.isInteger(max) && max >= 1 && max < 2 ** 31) return max;
  throw invalid(`CACHE_MEMORY_MAX is a whole number from 1: ${JSON.stringify(text)}`);
}

function redisUrl(variable: string, url: string | undefined): string | undefined {
  if (url !== undefined) naming(variable, () => new RedisConnection(url));
  return url;
}

function naming(variable: string, check: () => unknown): void {
  try {
    check();
  } catch (error) {
    throw invalid(`${variable}: ${(error as Error).message}`);
  }
}
