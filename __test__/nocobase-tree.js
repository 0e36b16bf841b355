'use strict';
// A folder of packages that are laid out, and that load one another, as NocoBase's do: what `register` exchanges
// is answered by classes that do nothing. The application makes its services in NocoBase's order.

const { mkdirSync, symlinkSync, writeFileSync } = require('node:fs');
const { dirname, join } = require('node:path');
const { ROOT } = require('./support');

const LOCK_MANAGER = {
  'lib/index.js': `
    const own = require('./lock-manager');
    Object.defineProperty(exports, '__esModule', { value: true });
    for (const name of Object.keys(own)) Object.defineProperty(exports, name, { get: () => own[name], enumerable: true });
    0 && (module.exports = { LockAbortError, LockAcquireError, LockManager });`,
  'lib/lock-manager.js': `
    class LockManager {}
    module.exports = { LockAbortError: class extends Error {}, LockAcquireError: class extends Error {}, LockManager, default: LockManager };`,
};

const SERVER = {
  'lib/index.js': `
    module.exports = {
      ...require('./application'), ...require('./pub-sub-manager'), ...require('./event-queue'), ...require('./worker-id-allocator'),
    };`,
  'lib/event-queue.js': `
    class EventQueue {}
    module.exports = { EventQueue, MemoryEventQueueAdapter: class {}, QUEUE_DEFAULT_ACK_TIMEOUT: 15e3, QUEUE_DEFAULT_CONCURRENCY: 1, QUEUE_DEFAULT_INTERVAL: 250, default: EventQueue };`,
  'lib/pub-sub-manager/index.js': `
    module.exports = { ...require('./handler-manager'), ...require('./pub-sub-manager') };`,
  'lib/pub-sub-manager/handler-manager.js': `
    exports.HandlerManager = class HandlerManager {};`,
  'lib/pub-sub-manager/pub-sub-manager.js': `
    class PubSubManager {}
    module.exports = { PubSubManager, createPubSubManager: () => new PubSubManager() };`,
  'lib/sync-message-manager.js': `
    module.exports = { SyncMessageManager: class {}, SyncMessageVersionManager: class SyncMessageVersionManager {} };`,
  'lib/worker-id-allocator.js': `
    exports.WorkerIdAllocator = class {};`,
  'lib/cache/index.js': `
    const { CacheManager } = require('@nocobase/cache');
    exports.createCacheManager = async () => new CacheManager();`,
  'lib/application.js': `
    const { EventEmitter } = require('node:events');
    const { LockManager } = require('@nocobase/lock-manager');
    const { createCacheManager } = require('./cache');
    const { EventQueue } = require('./event-queue');
    const { createPubSubManager } = require('./pub-sub-manager');
    const { SyncMessageManager } = require('./sync-message-manager');
    const { WorkerIdAllocator } = require('./worker-id-allocator');
    const quiet = () => undefined;

    exports.Application = class Application extends EventEmitter {
      context = {};
      logger = { trace: quiet, debug: quiet, info: quiet, warn: quiet, error: console.error };
      stopped = false;
      db = { closed: () => false };

      constructor(options = {}) {
        super();
        this.options = options;
        this.init();
      }

      get name() {
        return this.options.name || 'main';
      }

      init() {
        const { options } = this;
        for (const event of this.eventNames()) {
          for (const listener of this.listeners(event)) if (listener._reinitializable) this.removeListener(event, listener);
        }
        this.workerIdAllocator = new WorkerIdAllocator();
        this.pubSubManager = createPubSubManager(this, options.pubSubManager);
        this.syncMessageManager = new SyncMessageManager(this, options.syncMessageManager);
        this.eventQueue = new EventQueue(this, options.eventQueue);
        this.lockManager = new LockManager({ defaultAdapter: process.env.LOCK_ADAPTER_DEFAULT, ...options.lockManager });
      }

      async emitAsync(event, ...values) {
        for (const listener of this.rawListeners(event)) await listener.apply(this, values);
      }

      async dispose() {
        await this.cacheManager?.close();
        await this.pubSubManager.close();
        await this.workerIdAllocator.release();
      }

      async load({ reload = false } = {}) {
        if (reload) {
          await this.dispose();
          this.init();
        }
        await this.cacheManager?.close();
        this.cacheManager = await createCacheManager(this, { prefix: this.name, ...this.options.cacheManager });
        this.instanceId = await this.workerIdAllocator.getWorkerId();
        for (const plugin of this.options.plugins ?? []) {
          await this.emitAsync('beforeLoadPlugin', plugin);
          await plugin.load?.(this);
        }
      }

      async start() {
        await this.emitAsync('afterStart', this);
        this.stopped = false;
      }

      async restart() {
        await this.emitAsync('beforeStop');
        await this.emitAsync('beforeReload', this);
        await this.load({ reload: true });
        await this.start();
      }

      async stop() {
        await this.emitAsync('beforeStop', this);
        await this.dispose();
        await this.emitAsync('afterStop', this);
        this.stopped = true;
      }
    };`,
};

/** Writes the packages into `folder`, and returns it. `version` is that of all but the cache, which is the real one. */
function writeTree(folder, { version = '2.2.15' } = {}) {
  const scope = join(folder, 'node_modules', '@nocobase');
  for (const [name, files] of Object.entries({ 'lock-manager': LOCK_MANAGER, server: SERVER })) {
    const about = { name: `@nocobase/${name}`, version, main: 'lib/index.js' };
    for (const [file, text] of Object.entries({ ...files, 'package.json': JSON.stringify(about) })) {
      const path = join(scope, name, file);
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, text);
    }
  }
  symlinkSync(join(ROOT, 'node_modules', '@nocobase', 'cache'), join(scope, 'cache'));
  return folder;
}

module.exports = { writeTree };
