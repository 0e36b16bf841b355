// The typings as a plugin author uses them. Compiled, never run: what must not compile says so.

import {
  type AppOptions, type Cache, createApp, type DeadLetter, type IEventQueueAdapter, type ILockAdapter, install, type IPubSubAdapter,
  LocalLockAdapter, LockAbortError, LockAcquireError, type LockHolder, LockManager, MemoryPubSubAdapter, MortiseError, Plugin, type PubSubGap, type QueueCounts, type QueueHealth, type QueueMessageOptions,
  RedisConnection, type RedisHealth, RedisLockAdapter, type RedisOptions, RedisPubSubAdapter, redisStore, RedisStore, RedisWorkerIdAdapter,
  serving, type TieredStore, tieredStore,
} from 'mortise';

interface User {
  id: number;
  name: string;
}

class Users extends Plugin {
  declare cache: Cache;

  override async load(): Promise<void> {
    this.cache = await this.app.cacheManager.createCache({ name: 'users', prefix: 'u', ttl: 60_000, max: 100 });
    await this.app.pubSubManager.subscribe<User>('users', (user) => user.id, { debounce: 100, leading: true });
    this.app.eventQueue.subscribe<User>('users', {
      concurrency: 2,
      idle: () => true,
      process: async (user, { id, retried, signal, queueOptions }) => {
        const text: string = id + user.name;
        const number: number = retried + (queueOptions.timeout ?? 0);
        if (signal.aborted) throw new Error(text + number);
      },
    });
  }

  override async handleSyncMessage(message: User): Promise<void> {
    await this.cache.del(String(message.id));
  }

  override handleSyncGap({ reason, channel }: PubSubGap): void {
    const known: 'trimmed' | 'replaced' | 'disconnected' = reason;
    void this.app.pubSubManager.subscribe(channel, () => known, { onGap: (gap) => gap.reason });
    void this.app.syncMessageManager.subscribe(channel, () => known, { leading: true, onGap: async (gap) => gap.channel });
  }

  async find(id: number): Promise<User> {
    return this.cache.wrap<User>(`${id}`, async () => ({ id, name: 'x' }), (user) => user.id);
  }
}

const options: AppOptions = {
  name: 'main',
  cacheManager: { defaultStore: 'memory', stores: { memory: { max: 10 } } },
  pubSubManager: { adapter: new MemoryPubSubAdapter({ bus: 'b' }) },
  eventQueue: { journal: true },
  lockManager: { defaultAdapter: 'local' },
};

export async function use(): Promise<void> {
  const app = createApp(options);
  const plugin: Users = app.plugin(Users, { name: 'users' });
  const found: Users | undefined = app.pm.get(Users);
  await app.start();
  const user: User = await plugin.find(1);
  await app.cache.set('k', user, 1000);
  const got: User | undefined = await app.cache.get<User>('k');
  const release = await app.lockManager.acquire('k', 1000);
  const token: number | undefined = release.fencingToken;
  await release();
  const sum: number = await app.lockManager.runExclusive('k', async ({ signal, fencingToken }) => {
    signal.throwIfAborted();
    return fencingToken;
  });
  const lock = await app.lockManager.tryAcquire('k', 10);
  await lock.runExclusive(async () => undefined, 100);
  const counter = await app.cacheManager.createCounter({ name: 'c' }, app.lockManager);
  const count: number = await counter.incrby('k', 2, 1000);
  await plugin.sendSyncMessage({ id: 1 }, { transaction: { afterCommit: (fn) => fn() } });
  await app.eventQueue.publish('users', user, { timeout: 1000, maxRetries: 3 });
  const serves: boolean = serving('queue') && app.serving();
  await app.stop();
  console.log(found, got, token, sum, count, serves);

  // @ts-expect-error keys are strings
  await app.cache.get(5);
  // @ts-expect-error a ttl is a number
  await app.cache.set('k', 1, '5');
  // @ts-expect-error process is needed
  app.eventQueue.subscribe('x', { concurrency: 1 });
  // @ts-expect-error unknown option
  createApp({ nane: 'x' });
}

export function adapters(pubSub: IPubSubAdapter, queue: IEventQueueAdapter, Adapter: new () => ILockAdapter): void {
  const app = createApp({ pubSubManager: { adapter: pubSub }, eventQueue: { adapter: queue } });
  app.lockManager.registerAdapter('mine', { Adapter });
  new LockManager().registerAdapter('other', { Adapter: LocalLockAdapter, options: { maxHold: 5 } });
  install({ on: () => undefined }, { name: 'x' });
}

export async function queue(): Promise<void> {
  const { eventQueue } = createApp();
  const options: QueueMessageOptions = {
    id: 'x', delay: 1000, backoff: { type: 'exponential', delay: 100, max: 5000, jitter: 0.5 }, headers: { traceparent: '00' }, own: 1,
  };
  const id: string = await eventQueue.publish('users', { id: 1 }, options);
  const cancelled: boolean = await eventQueue.cancel('users', id);
  await eventQueue.pause('users');
  await eventQueue.resume('users');
  const { waiting, delayed, running, dead, paused, oldestAge }: QueueCounts = await eventQueue.counts('users');
  const numbers: (number | undefined)[] = [waiting, delayed, running, dead, oldestAge];
  const letters: DeadLetter[] = await eventQueue.deadLetters('users').list();
  const error: string | undefined = letters[0]?.error;
  const changed: number = (await eventQueue.deadLetters('users').replay(id)) + (await eventQueue.deadLetters('users').drop());
  const state: QueueHealth['state'] = eventQueue.health().state;
  const few: IEventQueueAdapter = {
    isConnected: () => true, connect: () => undefined, close: () => undefined, subscribe: () => undefined, unsubscribe: () => undefined,
    publish: async (_channel, _message, { delay = 0 }) => delay,
  };
  console.log(cancelled, paused, numbers, error, changed, state, few);
  // @ts-expect-error there is no such growth
  await eventQueue.publish('users', 1, { backoff: { type: 'square', delay: 1 } });
  // @ts-expect-error a delay is a number
  await eventQueue.publish('users', 1, { delay: '1 s' });
}

export function codes(error: unknown): string | undefined {
  if (error instanceof LockAcquireError || error instanceof LockAbortError || error instanceof MortiseError) return error.code;
  return undefined;
}

export async function onRedis(): Promise<void> {
  const options: RedisOptions = { sentinels: [{ host: 'a' }], masterName: 'main', tls: { ca: '' }, reconnectGrace: 500 };
  const app = createApp({ redis: options, cacheManager: { defaultStore: 'tiered', stores: { tiered: { reference: true } } } });
  const cache = await app.cacheManager.createCache({ name: 'c', singleFlight: 'cluster', grace: 1000, softTimeout: 5 });
  const loaded: number = await cache.wrap('k', async () => 1, 60_000, { hardTimeout: 100, staleWhileRevalidate: 1000 });
  await cache.set('k', loaded, { ttl: 5, transaction: { afterCommit: () => undefined } });
  await cache.del('k', { transaction: null });
  // @ts-expect-error there is no such way to load
  await cache.wrap('k', async () => 1, 60_000, { singleFlight: 'world' });
  const health: RedisHealth[] = app.cacheManager.health();
  const state: 'connecting' | 'ready' | 'away' | 'closed' | undefined = health[0]?.state;
  const store: RedisStore = await redisStore({ url: 'redis://h', keyPrefix: 'p:' });
  const tiered: TieredStore = await tieredStore({ maxBytes: 1024 });
  const adapter: IPubSubAdapter = new RedisPubSubAdapter({ url: 'redis://h', app: 'a', maxLength: 5, maxAge: 1000 });
  createApp({ pubSubManager: { adapter: 'redis', url: options, delivery: 'volatile' }, syncMessageManager: { leading: true } });
  createApp({ pubSubManager: { adapter } });
  // @ts-expect-error there is no such delivery
  createApp({ pubSubManager: { adapter: 'redis', delivery: 'carrier pigeon' } });
  app.lockManager.registerAdapter('redis', { Adapter: RedisLockAdapter, options: { url: 'redis://h', app: 'a', gracePeriod: 100 } });
  createApp({ lockManager: { defaultAdapter: 'redis', url: options, gracePeriod: 500 } });
  const holders: LockHolder[] = await app.lockManager.holders();
  const left: number | undefined = holders[0]?.ttl;
  const locks: ILockAdapter = new RedisLockAdapter('redis://h');
  void [left, locks];
  const redis = new RedisConnection('redis://h');
  const text = await redis.command<string | null>('GET', 'k');
  redis.on('away', ({ reason }: RedisHealth) => reason);
  redis.close();
  app.workerIdAllocator.setAdapter(new RedisWorkerIdAdapter({ url: 'redis://h', app: 'main', lease: 5000, rest: 0 }));
  createApp({ workerIdAllocator: { adapter: 'redis', url: options, lease: 5000 } });
  return void [state, store, tiered, text];
}
