// Built from lib/ by `npm run build:lib`; do not edit.
'use strict';
"use strict";
var __defProp = Object.defineProperty;
var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
var __getOwnPropNames = Object.getOwnPropertyNames;
var __hasOwnProp = Object.prototype.hasOwnProperty;
var __esm = (fn, res, err) => function __init() {
  if (err) throw err[0];
  try {
    return fn && (res = (0, fn[__getOwnPropNames(fn)[0]])(fn = 0)), res;
  } catch (e) {
    throw err = [e], e;
  }
};
var __export = (target, all) => {
  for (var name in all)
    __defProp(target, name, { get: all[name], enumerable: true });
};
var __copyProps = (to, from, except, desc) => {
  if (from && typeof from === "object" || typeof from === "function") {
    for (let key of __getOwnPropNames(from))
      if (!__hasOwnProp.call(to, key) && key !== except)
        __defProp(to, key, { get: () => from[key], enumerable: !(desc = __getOwnPropDesc(from, key)) || desc.enumerable });
  }
  return to;
};
var __toCommonJS = (mod) => __copyProps(__defProp({}, "__esModule", { value: true }), mod);

// lib/app/environment.ts
function variable(environment, name) {
  return environment[name] || void 0;
}
function queueServer(environment, adapter, redis) {
  if (adapter === "rabbitmq") return variable(environment, "QUEUE_ADAPTER_RABBITMQ_URL");
  return variable(environment, "QUEUE_ADAPTER_REDIS_URL") ?? redis;
}
function placement(environment, redis) {
  const text = (name) => variable(environment, name);
  const bus = text("PUBSUB_ADAPTER_REDIS_URL");
  const pubSub = bus === void 0 ? void 0 : { url: bus };
  const adapter = text("QUEUE_ADAPTER");
  const queue = adapter === void 0 ? void 0 : { adapter, url: queueServer(environment, adapter, redis) };
  const locks2 = { defaultAdapter: text("LOCK_ADAPTER_DEFAULT"), url: text("LOCK_ADAPTER_REDIS_URL") ?? redis };
  const queued = adapter === "redis" ? queue : void 0;
  const locked = locks2.defaultAdapter === "redis" ? locks2 : void 0;
  const beside = adapter === "rabbitmq" && redis !== void 0 ? { url: redis } : void 0;
  const joined = pubSub ?? queued ?? locked ?? beside;
  return {
    cache: { defaultStore: text("CACHE_DEFAULT_STORE"), max: text("CACHE_MEMORY_MAX"), url: text("CACHE_REDIS_URL") ?? redis },
    pubSub,
    queue,
    locks: locks2,
    workerIds: joined && { url: redis ?? joined.url }
  };
}
var init_environment = __esm({
  "lib/app/environment.ts"() {
    "use strict";
  }
});

// lib/errors.ts
function invalid(message) {
  return Object.assign(new TypeError(message), { code: "E_INVALID_ARGUMENT" });
}
var init_errors = __esm({
  "lib/errors.ts"() {
    "use strict";
  }
});

// lib/nocobase/environment.ts
function markReplacement(manager) {
  Object.defineProperty(manager.prototype, REPLACEMENT, { value: true });
}
function readEnvironment(environment = process.env) {
  const redis = variable(environment, "REDIS_URL");
  const { cache, queue, ...placed } = placement(environment, redis);
  for (const name of REDIS_URLS) checkRedis(name, variable(environment, name));
  const result = {
    ...placed,
    redis,
    cache: { ...cache, max: readMax(cache.max) },
    queue: queue && { adapter: knownQueue(queue.adapter), url: queue.adapter === "memory" ? void 0 : queue.url },
    locks: { ...placed.locks, named: variable(environment, "LOCK_ADAPTER_REDIS_URL") !== void 0 }
  };
  if (queue?.adapter === "redis") checkRedis("QUEUE_ADAPTER_REDIS_URL", variable(environment, "QUEUE_ADAPTER_REDIS_URL"));
  if (queue?.adapter === "rabbitmq" && queue.url !== void 0) naming("QUEUE_ADAPTER_RABBITMQ_URL", () => new import__.RabbitMQEventQueueAdapter(queue.url));
  const { defaultStore, url } = cache;
  const onRedis = [(defaultStore === "redis" || defaultStore === "tiered") && url, queue?.adapter === "redis" && queue.url, placed.locks.defaultAdapter === "redis" && placed.locks.url, placed.workerIds?.url];
  if (onRedis.includes(redis)) checkRedis("REDIS_URL", redis);
  return result;
}
function knownQueue(adapter) {
  const known = QUEUES.find((name) => name === adapter);
  if (known) return known;
  throw new import__.MortiseError("E_ADAPTER_UNAVAILABLE", `QUEUE_ADAPTER is ${JSON.stringify(adapter)}; known are: ${QUEUES.join(", ")}`);
}
function readMax(text) {
  if (text === void 0) return void 0;
  const max = Number(text);
  if (max === 0) return void 0;
  if (Number.isInteger(max) && max >= 1 && max < 2 ** 31) return max;
  throw invalid(`CACHE_MEMORY_MAX is a whole number from 1: ${JSON.stringify(text)}`);
}
function checkRedis(name, url) {
  if (url !== void 0) naming(name, () => new import__.RedisConnection(url));
}
function naming(variable2, check) {
  try {
    check();
  } catch (error) {
    throw invalid(`${variable2}: ${error.message}`);
  }
}
var import__, REPLACEMENT, QUEUES, REDIS_URLS;
var init_environment2 = __esm({
  "lib/nocobase/environment.ts"() {
    "use strict";
    init_environment();
    init_errors();
    import__ = require("./index.js");
    REPLACEMENT = /* @__PURE__ */ Symbol.for("mortise.nocobase.replacement");
    QUEUES = ["memory", "redis", "rabbitmq"];
    REDIS_URLS = ["CACHE_REDIS_URL", "PUBSUB_ADAPTER_REDIS_URL", "LOCK_ADAPTER_REDIS_URL"];
  }
});

// lib/app/reinitializable.ts
function reinitializable(action) {
  const listener = async () => {
    await action();
  };
  return Object.assign(listener, { _reinitializable: true });
}
var init_reinitializable = __esm({
  "lib/app/reinitializable.ts"() {
    "use strict";
  }
});

// lib/nocobase/replacements/host.ts
function listenWhileServing(app, event, listener) {
  app.on(event, reinitializable(listener));
}
var lives, ServiceLife;
var init_host = __esm({
  "lib/nocobase/replacements/host.ts"() {
    "use strict";
    init_reinitializable();
    lives = /* @__PURE__ */ new WeakMap();
    ServiceLife = class _ServiceLife {
      constructor(app, former) {
        this.app = app;
        this.begun = former?.close() ?? Promise.resolve();
        listenWhileServing(app, "beforeReload", () => this.close());
        listenWhileServing(app, "afterStop", () => this.close());
      }
      app;
      /** Those before have let go. */
      begun;
      queue;
      locks;
      /** An app makes several while it loads, and its plugins keep caches of each. */
      cacheManagers = /* @__PURE__ */ new Set();
      /** That of the services which the app makes now. */
      static begin(app) {
        const life = new _ServiceLife(app, lives.get(app));
        lives.set(app, life);
        return life;
      }
      /** That of the services which the app has. */
      static of(app) {
        return lives.get(app) ?? _ServiceLife.begin(app);
      }
      /** May be repeated: what is used afterwards connects again. */
      async close() {
        await this.step("the event queue", () => this.queue?.close());
        for (const manager of this.cacheManagers) await this.step("a cache manager", () => manager.close());
        await this.step("the locks", () => this.locks?.close());
      }
      async step(what, close) {
        try {
          await close();
        } catch (error) {
          this.app.logger?.error(`closing ${what} of app ${this.app.name} failed`, error);
        }
      }
    };
  }
});

// lib/nocobase/replacements/cache.ts
var cache_exports = {};
__export(cache_exports, {
  Cache: () => import__3.Cache,
  CacheManager: () => CacheManager,
  LockCounter: () => import__3.LockCounter,
  MemoryCounter: () => import__3.MemoryCounter,
  RedisCounter: () => import__3.RedisCounter,
  createCacheManager: () => createCacheManager
});
function completed(options) {
  const { defaultStore, max, url } = readEnvironment().cache;
  const stores = { ...options.stores };
  if (max !== void 0) stores.memory = { max, ...stores.memory };
  if (url !== void 0) for (const type of ["redis", "tiered"]) stores[type] = { url, ...stores[type] };
  return { ...options, defaultStore: options.defaultStore ?? defaultStore, stores };
}
async function createCacheManager(app, options) {
  const manager = new CacheManager({ logger: app.logger, ...options });
  ServiceLife.of(app).cacheManagers.add(manager);
  app.cache = await manager.createCache({ name: app.name });
  if (app.context) app.context.cache = app.cache;
  return manager;
}
var import__2, import__3, CacheManager;
var init_cache = __esm({
  "lib/nocobase/replacements/cache.ts"() {
    "use strict";
    import__2 = require("./index.js");
    init_environment2();
    init_host();
    import__3 = require("./index.js");
    CacheManager = class extends import__2.CacheManager {
      constructor(options) {
        super(completed(options ?? {}));
      }
    };
    markReplacement(CacheManager);
  }
});

// lib/away.ts
function isAway(error) {
  return AWAY.has(error?.code);
}
function pardon(promise, error) {
  if (isAway(error)) promise.catch(nothing);
}
function pardoned(promise, told) {
  const result = new Promise((resolve, reject) => {
    promise.then(resolve, (error) => {
      pardon(result, error);
      if (told && isAway(error)) told(error);
      reject(error);
    });
  });
  return result;
}
var AWAY, nothing;
var init_away = __esm({
  "lib/away.ts"() {
    "use strict";
    AWAY = /* @__PURE__ */ new Set(["E_UNAVAILABLE", "E_TIMEOUT", "E_CLOSED"]);
    nothing = () => void 0;
  }
});

// lib/nocobase/replacements/event-queue.ts
var event_queue_exports = {};
__export(event_queue_exports, {
  EventQueue: () => EventQueue,
  MemoryEventQueueAdapter: () => import__5.MemoryEventQueueAdapter
});
var import__4, import__5, EventQueue;
var init_event_queue = __esm({
  "lib/nocobase/replacements/event-queue.ts"() {
    "use strict";
    init_reinitializable();
    init_away();
    import__4 = require("./index.js");
    init_environment2();
    init_host();
    import__5 = require("./index.js");
    EventQueue = class extends import__4.EventQueue {
      #app;
      #life;
      constructor(app, options) {
        super(app, { ...readEnvironment().queue, ...options });
        this.#app = app;
        this.#life = ServiceLife.of(app);
        this.#life.queue = this;
        const beforeStop = reinitializable(() => this.close());
        listenWhileServing(app, "afterStart", async () => {
          await this.connect();
          app.off("beforeStop", beforeStop);
          app.on("beforeStop", beforeStop);
        });
      }
      /** Plugins of the host call it without awaiting it. */
      publish(channel, message, options) {
        const told = (error) => this.#app.logger?.error(`a message for the event queue's channel ${channel} was not published`, error);
        return pardoned(super.publish(channel, message, options), told);
      }
      /** After the queue that the app had before has stored what it left. */
      async connect() {
        await this.#life.begun;
        await super.connect();
      }
    };
    markReplacement(EventQueue);
  }
});

// lib/nocobase/replacements/lock.ts
var lock_exports = {};
__export(lock_exports, {
  LockAbortError: () => import__7.LockAbortError,
  LockAcquireError: () => import__7.LockAcquireError,
  LockManager: () => LockManager
});
function completed2(options) {
  const { defaultAdapter, url } = readEnvironment().locks;
  const known = Object.fromEntries(OPTIONS.map((name) => [name, options[name]]));
  return { ...known, defaultAdapter: options.defaultAdapter || defaultAdapter, url: options.url ?? options.redis ?? url };
}
var import__6, import__7, OPTIONS, LockManager;
var init_lock = __esm({
  "lib/nocobase/replacements/lock.ts"() {
    "use strict";
    import__6 = require("./index.js");
    init_environment2();
    import__7 = require("./index.js");
    OPTIONS = ["app", "defaultAdapter", "gracePeriod", "logger", "maxHold", "redis", "url"];
    LockManager = class extends import__6.LockManager {
      constructor(options = {}) {
        super(completed2(options ?? {}));
      }
    };
    markReplacement(LockManager);
  }
});

// lib/nocobase/replacements/worker-id.ts
var worker_id_exports = {};
__export(worker_id_exports, {
  WorkerIdAllocator: () => WorkerIdAllocator
});
var import__8, WorkerIdAllocator;
var init_worker_id = __esm({
  "lib/nocobase/replacements/worker-id.ts"() {
    "use strict";
    import__8 = require("./index.js");
    init_environment2();
    WorkerIdAllocator = class extends import__8.WorkerIdAllocator {
      constructor() {
        const { workerIds } = readEnvironment();
        super(workerIds ? { adapter: "redis", url: workerIds.url } : {});
      }
      /** The ids are those of this app from now on, which made the allocator without telling whose it is. */
      belongTo(app) {
        const { workerIds } = readEnvironment();
        if (workerIds) this.setAdapter(import__8.HostWorkerId.of(app, { ...workerIds, app: app.name, logger: app.logger }));
      }
    };
    markReplacement(WorkerIdAllocator);
  }
});

// lib/nocobase/replacements/pub-sub.ts
var pub_sub_exports = {};
__export(pub_sub_exports, {
  PubSubManager: () => PubSubManager,
  createPubSubManager: () => createPubSubManager
});
function createPubSubManager(app, options) {
  const manager = new PubSubManager(app, options);
  const life = ServiceLife.begin(app);
  listenWhileServing(app, "afterStart", () => manager.connect());
  listenWhileServing(app, "beforeStop", () => manager.close());
  if (app.workerIdAllocator instanceof WorkerIdAllocator) app.workerIdAllocator.belongTo(app);
  queueMicrotask(() => {
    if (!(app.lockManager instanceof LockManager)) return;
    app.lockManager.belongTo(app.name, app.logger);
    life.locks = app.lockManager;
  });
  return manager;
}
var import__9, PubSubManager;
var init_pub_sub = __esm({
  "lib/nocobase/replacements/pub-sub.ts"() {
    "use strict";
    init_away();
    import__9 = require("./index.js");
    init_environment2();
    init_host();
    init_lock();
    init_worker_id();
    PubSubManager = class extends import__9.PubSubManager {
      #app;
      constructor(app, options) {
        const { pubSub, redis } = readEnvironment();
        super(app, { ...pubSub ? { adapter: "redis" } : {}, url: pubSub?.url ?? redis, ...options });
        this.#app = app;
      }
      /** Plugins of the host call it without awaiting it. */
      publish(channel, message, options) {
        const told = (error) => this.#app.logger?.error(`a message for pub/sub's channel ${channel} was not published`, error);
        return pardoned(super.publish(channel, message, options), told);
      }
    };
    markReplacement(PubSubManager);
  }
});

// lib/nocobase/replacements/sync-message.ts
var sync_message_exports = {};
__export(sync_message_exports, {
  SyncMessageManager: () => SyncMessageManager
});
var import__10, SyncMessageManager;
var init_sync_message = __esm({
  "lib/nocobase/replacements/sync-message.ts"() {
    "use strict";
    init_away();
    import__10 = require("./index.js");
    init_environment2();
    SyncMessageManager = class extends import__10.SyncMessageManager {
      constructor(app, options) {
        super(app, { ...options, debounce: options?.debounce || void 0 });
      }
      /** Plugins of the host call it without awaiting it. */
      publish(...values) {
        return pardoned(super.publish(...values));
      }
      /** Does nothing, as the host's. */
      async sync() {
      }
    };
    markReplacement(SyncMessageManager);
  }
});

// lib/nocobase/replacements/index.ts
var replacements_exports = {};
__export(replacements_exports, {
  replacements: () => replacements
});
var createCacheManager2, cacheClasses, locks, replacements;
var init_replacements = __esm({
  "lib/nocobase/replacements/index.ts"() {
    "use strict";
    init_cache();
    init_event_queue();
    init_lock();
    init_pub_sub();
    init_sync_message();
    init_worker_id();
    ({ createCacheManager: createCacheManager2, ...cacheClasses } = cache_exports);
    locks = { ...lock_exports, default: LockManager };
    replacements = {
      "@nocobase/cache": {
        index: cacheClasses,
        cache: cacheClasses,
        "cache-manager": cacheClasses,
        "counter/index": cacheClasses,
        "counter/lock-counter": cacheClasses,
        "counter/memory-counter": cacheClasses,
        "counter/redis-counter": cacheClasses
      },
      "@nocobase/lock-manager": { index: locks, "lock-manager": locks },
      "@nocobase/server": {
        "cache/index": { createCacheManager: createCacheManager2 },
        "event-queue": { ...event_queue_exports, default: EventQueue },
        "pub-sub-manager/index": { ...pub_sub_exports },
        "pub-sub-manager/pub-sub-manager": { ...pub_sub_exports },
        "sync-message-manager": { ...sync_message_exports },
        "worker-id-allocator": { ...worker_id_exports }
      }
    };
  }
});

// lib/nocobase/register.ts
var import_node_fs = require("node:fs");
var Module = require("node:module");
var MAJOR = 2;
var REGISTERED = /* @__PURE__ */ Symbol.for("mortise.nocobase.registered");
var FILE = /^(.*)[\\/]lib[\\/](.+)\.js$/;
var CONCERNED = /^(?:index|cache|cache-manager|counter\/[a-z-]+|lock-manager|cache\/index|event-queue|pub-sub-manager\/(?:index|pub-sub-manager)|sync-message-manager|worker-id-allocator)$/;
var packages = /* @__PURE__ */ new Map();
var warned = /* @__PURE__ */ new Set();
function register() {
  const extensions = Module._extensions;
  const state = extensions;
  if (state[REGISTERED]) return;
  Object.defineProperty(state, REGISTERED, { value: true });
  for (const filename of Object.keys(require.cache)) {
    if (find(filename)) warn(`${filename} was loaded before mortise/register, and stays as it is`);
  }
  let load = extensions[".js"];
  let exchanging = exchangingLoader(load);
  Object.defineProperty(extensions, ".js", {
    configurable: true,
    enumerable: true,
    get: () => exchanging,
    set: (next) => {
      load = wrapped.get(next) ?? next;
      exchanging = load === next ? exchangingLoader(load) : next;
    }
  });
}
var wrapped = /* @__PURE__ */ new WeakMap();
function exchangingLoader(load) {
  const loader = function(module2, filename, ...more) {
    load.call(this, module2, filename, ...more);
    const ours = find(filename);
    if (ours) module2.exports = exchanged(module2.exports, ours);
  };
  wrapped.set(loader, load);
  return loader;
}
function find(filename) {
  const [, folder, path] = FILE.exec(filename) ?? [];
  const file = path?.replaceAll("\\", "/");
  if (file === void 0 || !CONCERNED.test(file)) return void 0;
  const { name = "", version = "" } = packageIn(folder);
  if (!/^@nocobase\/(?:cache|lock-manager|server)$/.test(name)) return void 0;
  if (Number.parseInt(version, 10) === MAJOR) return replacements2()[name]?.[file];
  warn(`mortise knows ${name} ${MAJOR}; version ${version} stays as it is`);
  return void 0;
}
function packageIn(folder) {
  let found = packages.get(folder);
  if (!found) packages.set(folder, found = readPackage(folder));
  return found;
}
function readPackage(folder) {
  try {
    return JSON.parse((0, import_node_fs.readFileSync)(`${folder}/package.json`, "utf8"));
  } catch {
    return {};
  }
}
function replacements2() {
  return (init_replacements(), __toCommonJS(replacements_exports)).replacements;
}
function exchanged(original, ours) {
  const exports2 = Object.defineProperty({}, "__esModule", { value: true });
  return Object.assign(exports2, original, Object.fromEntries(Object.entries(ours).filter(([name]) => Object.hasOwn(original, name))));
}
function warn(message) {
  if (warned.has(message)) return;
  warned.add(message);
  process.emitWarning(message, "MortiseWarning");
}
register();
