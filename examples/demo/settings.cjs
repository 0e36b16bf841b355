'use strict';
// Where the services of the coordinator and of the nodes run.

/**
 * Options of `createApp`. Without `redis` they run in the process, whose worker threads share pub/sub and
 * locks. `gracePeriod` is that of the locks: a server that is new to them grants nothing for so long.
 */
function appOptions({ name, redis, gracePeriod }, storagePath) {
  const local = { name, syncMessageManager: { debounce: 50 }, eventQueue: { storagePath } };
  if (!redis) return local;
  return {
    ...local,
    redis,
    cacheManager: { defaultStore: 'tiered' },
    pubSubManager: { adapter: 'redis' },
    lockManager: { defaultAdapter: 'redis', gracePeriod },
    workerIdAllocator: { adapter: 'redis' },
  };
}

module.exports = { appOptions };
