// What the environment variables mean inside NocoBase: which of its services run on a server, and on which.

import { type Placement, placement, variable } from '../app/environment';
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

/** What a NocoBase node runs on, checked. What is undefined stays as NocoBase has it. */
export interface HostEnvironment extends Omit<Placement<string>, 'cache'> {
  /** `REDIS_URL`: the server of what is put on Redis without saying where. */
  redis: string | undefined;
  cache: Omit<Placement<string>['cache'], 'max'> & {
    /** `CACHE_MEMORY_MAX`. */
    max: number | undefined;
  };
  queue: { adapter: Queue; url: string | undefined } | undefined;
  locks: Placement<string>['locks'] & {
    /** Whether it is `LOCK_ADAPTER_REDIS_URL` that says where the adapter `redis` is. */
    named: boolean;
  };
}

const QUEUES = ['memory', 'redis', 'rabbitmq'] as const;
type Queue = (typeof QUEUES)[number];

/** The variables that name a Redis server; `QUEUE_ADAPTER_REDIS_URL` beside them, where the queue is on Redis. */
const REDIS_URLS = ['CACHE_REDIS_URL', 'PUBSUB_ADAPTER_REDIS_URL', 'LOCK_ADAPTER_REDIS_URL'];

/**
 * Reads the variables; empty ones count as absent. Throws, naming the variable, `E_ADAPTER_UNAVAILABLE` for a queue
 * that nobody knows, and a `TypeError` with `E_INVALID_ARGUMENT` for a wrong URL or number. Secrets are masked.
 */
export function readEnvironment(environment: NodeJS.ProcessEnv = process.env): HostEnvironment {
  const redis = variable(environment, 'REDIS_URL');
  const { cache, queue, ...placed } = placement<string>(environment, redis);
  for (const name of REDIS_URLS) checkRedis(name, variable(environment, name));
  const result: HostEnvironment = {
    ...placed,
    redis,
    cache: { ...cache, max: readMax(cache.max) },
    queue: queue && { adapter: knownQueue(queue.adapter), url: queue.adapter === 'memory' ? undefined : queue.url },
    locks: { ...placed.locks, named: variable(environment, 'LOCK_ADAPTER_REDIS_URL') !== undefined },
  };
  if (queue?.adapter === 'redis') checkRedis('QUEUE_ADAPTER_REDIS_URL', variable(environment, 'QUEUE_ADAPTER_REDIS_URL'));
  // Made to have its URL checked; it connects to nothing.
  if (queue?.adapter === 'rabbitmq' && queue.url !== undefined) naming('QUEUE_ADAPTER_RABBITMQ_URL', () => new RabbitMQEventQueueAdapter(queue.url));
  // NocoBase has its own opinion of this one where nothing of ours is on it.
  const { defaultStore, url } = cache;
  const onRedis = [(defaultStore === 'redis' || defaultStore === 'tiered') && url, queue?.adapter === 'redis' && queue.url, placed.locks.defaultAdapter === 'redis' && placed.locks.url, placed.workerIds?.url];
  if (onRedis.includes(redis)) checkRedis('REDIS_URL', redis);
  return result;
}

function knownQueue(adapter: string): Queue {
  const known = QUEUES.find((name) => name === adapter);
  if (known) return known;
  throw new MortiseError('E_ADAPTER_UNAVAILABLE', `QUEUE_ADAPTER is ${JSON.stringify(adapter)}; known are: ${QUEUES.join(', ')}`);
}

function readMax(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const max = Number(text);
  // As NocoBase reads it.
  if (max === 0) return undefined;
  if (Number.isInteger(max) && max >= 1 && max < 2 ** 31) return max;
  throw invalid(`CACHE_MEMORY_MAX is a whole number from 1: ${JSON.stringify(text)}`);
}

function checkRedis(name: string, url: string | undefined): void {
  if (url !== undefined) naming(name, () => new RedisConnection(url));
}

function naming(variable: string, check: () => unknown): void {
  try {
    check();
  } catch (error) {
    throw invalid(`${variable}: ${(error as Error).message}`);
  }
}
