// In place of @nocobase/cache, and of the server's module that makes the app's cache manager.

import { CacheManager as Base, type CacheManagerOptions } from '../../index';
import { markReplacement, readEnvironment } from '../environment';
import { type HostApplication, ServiceLife } from './host';

export { Cache, LockCounter, MemoryCounter, RedisCounter } from '../../index';

/** Takes from the environment what the options leave out. */
export class CacheManager extends Base {
  constructor(options?: CacheManagerOptions) {
    super(completed(options ?? {}));
  }
}
markReplacement(CacheManager);

function completed(options: CacheManagerOptions): CacheManagerOptions {
  const { defaultStore, max, url } = readEnvironment().cache;
  const stores = { ...options.stores };
  if (max !== undefined) stores.memory = { max, ...stores.memory };
  if (url !== undefined) for (const type of ['redis', 'tiered']) stores[type] = { url, ...stores[type] };
  return { ...options, defaultStore: options.defaultStore ?? defaultStore, stores };
}

/** As the server's: makes the manager and the app's default cache. */
export async function createCacheManager(app: HostApplication, options?: CacheManagerOptions): Promise<CacheManager> {
  const manager = new CacheManager({ logger: app.logger, ...options });
  ServiceLife.of(app).cacheManagers.add(manager);
  app.cache = await manager.createCache({ name: app.name });
  if (app.context) app.context.cache = app.cache;
  return manager;
}
