'use strict';
// Where the services of the coordinator and of the nodes run.

/**
 * Options of `createApp`. Without `redis` they run in the process, whose worker threads share pub/sub and
 * locks. The queue runs on RabbitMQ where there is one, else on Redis, else in each app's memory.
 * `gracePeriod` is that of the locks: a server that is new to them grants nothing for so long.
 */
function appOptions({ name, redis, rabbitmq, gracePeriod }, storagePath) {
  const local = { name, syncMessageManager: { debounce: 50 }, eventQueue: queueOptions(redis, rabbitmq, storagePath) };
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

function queueOptions(redis, rabbitmq, storagePath) {
  if (rabbitmq) return { adapter: 'rabbitmq', url: rabbitmq };
  return redis ? { adapter: 'redis' } : { storagePath };
}

/** Whether all nodes fetch from one queue. */
const sharesQueue = ({ redis, rabbitmq }) => Boolean(redis || rabbitmq);

module.exports = { appOptions, sharesQueue };
