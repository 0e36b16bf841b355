import { RedisStore, type RedisStoreOptions } from './redis-store';
import { TieredStore, type TieredStoreOptions } from './tiered-store';

/**
 * A factory for cache-manager 5, and for whatever takes its factories: `caching(redisStore, { url, ttl })`, or
 * a store type `{ store: redisStore, close: (store) => store.close(), url }` of `@nocobase/cache`.
 *
 * Give `keyPrefix` where the database is not this store's alone: `reset` empties the database without it.
 */
export async function redisStore(options?: RedisStoreOptions): Promise<RedisStore> {
  return new RedisStore(options);
}

/** As {@link redisStore}, with a near cache in the process that the server keeps coherent. */
export async function tieredStore(options?: TieredStoreOptions): Promise<TieredStore> {
  return new TieredStore(options);
}
