// What the environment variables put on a server, and on which: for `createApp`, `install` and inside NocoBase alike.

type Environment = NodeJS.ProcessEnv;

/** What is undefined stays as it is without variables. `Server`: what `REDIS_URL` is, or an option in its place. */
export interface Placement<Server> {
  cache: {
    /** `CACHE_DEFAULT_STORE`. */
    defaultStore: string | undefined;
    /** `CACHE_MEMORY_MAX`: entries of a memory store, as it is written. */
    max: string | undefined;
    /** `CACHE_REDIS_URL`, else `REDIS_URL`: the server of the stores `redis` and `tiered`. */
    url: Server | undefined;
  };
  /** `PUBSUB_ADAPTER_REDIS_URL`. Without it pub/sub has no adapter, whatever `REDIS_URL` says: NocoBase itself reads that one. */
  pubSub: { url: Server } | undefined;
  /** `QUEUE_ADAPTER`, and what `queueServer` says. */
  queue: { adapter: string; url: Server | undefined } | undefined;
  locks: {
    /** `LOCK_ADAPTER_DEFAULT`. */
    defaultAdapter: string | undefined;
    /** `LOCK_ADAPTER_REDIS_URL`, else `REDIS_URL`: the server of the adapter `redis`. */
    url: Server | undefined;
  };
  /**
   * On Redis as soon as pub/sub, the queue or the locks are on a server: nodes that work together must not have the
   * same id. On `REDIS_URL`, else on the first of those servers that is a Redis; undefined is a Redis on this machine.
   */
  workerIds: { url: Server | undefined } | undefined;
}

/** The value of a variable; an empty one counts as none. */
export function variable(environment: Environment, name: string): string | undefined {
  return environment[name] || undefined;
}

/** `QUEUE_ADAPTER_RABBITMQ_URL` for RabbitMQ; else `QUEUE_ADAPTER_REDIS_URL`, else `redis`. */
export function queueServer<Server>(environment: Environment, adapter: unknown, redis: Server | undefined): Server | string | undefined {
  if (adapter === 'rabbitmq') return variable(environment, 'QUEUE_ADAPTER_RABBITMQ_URL');
  return variable(environment, 'QUEUE_ADAPTER_REDIS_URL') ?? redis;
}

/** Reads the variables; nothing is checked. */
export function placement<Server = string>(environment: Environment, redis: Server | string | undefined): Placement<Server | string> {
  const text = (name: string): string | undefined => variable(environment, name);
  const bus = text('PUBSUB_ADAPTER_REDIS_URL');
  const pubSub = bus === undefined ? undefined : { url: bus };
  const adapter = text('QUEUE_ADAPTER');
  const queue = adapter === undefined ? undefined : { adapter, url: queueServer(environment, adapter, redis) };
  const locks = { defaultAdapter: text('LOCK_ADAPTER_DEFAULT'), url: text('LOCK_ADAPTER_REDIS_URL') ?? redis };
  const queued = adapter === 'redis' ? queue : undefined;
  const locked = locks.defaultAdapter === 'redis' ? locks : undefined;
  // With RabbitMQ alone there may be no Redis to ask.
  const beside = adapter === 'rabbitmq' && redis !== undefined ? { url: redis } : undefined;
  const joined = pubSub ?? queued ?? locked ?? beside;
  return {
    cache: { defaultStore: text('CACHE_DEFAULT_STORE'), max: text('CACHE_MEMORY_MAX'), url: text('CACHE_REDIS_URL') ?? redis },
    pubSub,
    queue,
    locks,
    workerIds: joined && { url: redis ?? joined.url },
  };
}
