// What takes the place of which exports, by package and by file.

import * as cache from './cache';
import * as eventQueue from './event-queue';
import * as lock from './lock';
import * as pubSub from './pub-sub';
import * as syncMessage from './sync-message';
import * as workerId from './worker-id';

/** Exports by name. Those of the original that are not here stay as they are. */
export type Exports = Record<string, unknown>;

const { createCacheManager, ...cacheClasses } = cache;
const locks = { ...lock, default: lock.LockManager };

/** By package, by the file's path below its folder `lib`, without its ending. */
export const replacements: Record<string, Record<string, Exports>> = {
  '@nocobase/cache': {
    index: cacheClasses,
    cache: cacheClasses,
    'cache-manager': cacheClasses,
    'counter/index': cacheClasses,
    'counter/lock-counter': cacheClasses,
    'counter/memory-counter': cacheClasses,
    'counter/redis-counter': cacheClasses,
  },
  '@nocobase/lock-manager': { index: locks, 'lock-manager': locks },
  '@nocobase/server': {
    'cache/index': { createCacheManager },
    'event-queue': { ...eventQueue, default: eventQueue.EventQueue },
    'pub-sub-manager/index': { ...pubSub },
    'pub-sub-manager/pub-sub-manager': { ...pubSub },
    'sync-message-manager': { ...syncMessage },
    'worker-id-allocator': { ...workerId },
  },
};
