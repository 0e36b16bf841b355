// Built from lib/ by `npm run build:lib`; do not edit.
'use strict';
"use strict";
var __defProp = Object.defineProperty;
var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
var __getOwnPropNames = Object.getOwnPropertyNames;
var __hasOwnProp = Object.prototype.hasOwnProperty;
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

// lib/nocobase/plugin.ts
var plugin_exports = {};
__export(plugin_exports, {
  default: () => MortisePlugin
});
module.exports = __toCommonJS(plugin_exports);
var import__4 = require("./index.js");

// lib/nocobase/plug.ts
var import__3 = require("./index.js");

// lib/app/reinitializable.ts
function reinitializable(action) {
  const listener = async () => {
    await action();
  };
  return Object.assign(listener, { _reinitializable: true });
}

// lib/away.ts
var AWAY = /* @__PURE__ */ new Set(["E_UNAVAILABLE", "E_TIMEOUT", "E_CLOSED"]);
var nothing = () => void 0;
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
function pardonCalls(object, methods, told) {
  for (const method of methods) {
    if (typeof object?.[method] !== "function") continue;
    const own = Object.hasOwn(object, method) ? object[method] : void 0;
    const call = (...values) => {
      const result = (own ?? Object.getPrototypeOf(object)[method]).apply(object, values);
      return result instanceof Promise ? pardoned(result, told) : result;
    };
    Object.defineProperty(object, method, { value: call, writable: true, configurable: true });
  }
}

// lib/nocobase/caches.ts
var import__2 = require("./index.js");

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
  const locks = { defaultAdapter: text("LOCK_ADAPTER_DEFAULT"), url: text("LOCK_ADAPTER_REDIS_URL") ?? redis };
  const queued = adapter === "redis" ? queue : void 0;
  const locked = locks.defaultAdapter === "redis" ? locks : void 0;
  const beside = adapter === "rabbitmq" && redis !== void 0 ? { url: redis } : void 0;
  const joined = pubSub ?? queued ?? locked ?? beside;
  return {
    cache: { defaultStore: text("CACHE_DEFAULT_STORE"), max: text("CACHE_MEMORY_MAX"), url: text("CACHE_REDIS_URL") ?? redis },
    pubSub,
    queue,
    locks,
    workerIds: joined && { url: redis ?? joined.url }
  };
}

// lib/errors.ts
function invalid(message) {
  return Object.assign(new TypeError(message), { code: "E_INVALID_ARGUMENT" });
}

// lib/nocobase/environment.ts
var import__ = require("./index.js");
var REPLACEMENT = /* @__PURE__ */ Symbol.for("mortise.nocobase.replacement");
function isReplacement(manager) {
  return typeof manager === "object" && manager !== null && REPLACEMENT in manager;
}
var QUEUES = ["memory", "redis", "rabbitmq"];
var REDIS_URLS = ["CACHE_REDIS_URL", "PUBSUB_ADAPTER_REDIS_URL", "LOCK_ADAPTER_REDIS_URL"];
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

// lib/nocobase/caches.ts
var TYPES = ["redis", "tiered"];
var CHANGES = ["del", "set", "mset", "mdel", "reset", "setValueInObject", "delValueInObject"];
var originals = /* @__PURE__ */ new WeakMap();
var CachePlug = class _CachePlug {
  constructor(host, cache, logger) {
    this.host = host;
    this.cache = cache;
    this.logger = logger;
  }
  host;
  cache;
  logger;
  opened = /* @__PURE__ */ new Set();
  /** Lets the application make its cache managers with our stores; undefined where none of them is asked for. */
  static into(host, cache, logger) {
    const original = originals.get(host) ?? host.createCacheManager;
    if (isReplacement((0, import__2.hostModule)("@nocobase/cache")?.CacheManager?.prototype)) return void 0;
    const given = host.options?.cacheManager ?? {};
    const wanted = [cache.defaultStore, given.defaultStore].some(isOurs) || TYPES.some((type) => given.stores?.[type]);
    if (!wanted && cache.url === void 0) return void 0;
    originals.set(host, original);
    const plug2 = new _CachePlug(host, cache, logger);
    host.createCacheManager = () => plug2.createManager(original);
    return plug2;
  }
  /** Lets the application make its cache managers as it did. */
  unplug() {
    this.host.createCacheManager = originals.get(this.host);
  }
  /** Gives up the connections of the stores. NocoBase closes its manager, but not stores that are used after that. */
  async close() {
    for (const store of this.opened) store.close();
    this.opened.clear();
  }
  async createManager(original) {
    const { host } = this;
    const given = host.options.cacheManager;
    host.options.cacheManager = this.options(given);
    let making;
    try {
      making = original.call(host);
    } finally {
      host.options.cacheManager = given;
    }
    const manager = await making;
    this.plugCounters(manager);
    for (const cache of manager.caches.values()) pardonCalls(cache, CHANGES);
    const { createCache } = manager;
    manager.createCache = async (...values) => {
      const made = await createCache.apply(manager, values);
      if (!Object.hasOwn(made, CHANGES[0])) pardonCalls(made, CHANGES);
      return made;
    };
    return manager;
  }
  /** NocoBase's options of the cache manager, with our stores. What is given goes before the environment. */
  options(given = {}) {
    const prefix = given.prefix ?? this.host.name;
    const stores = { ...given.stores };
    for (const type of TYPES) {
      const server = given.stores?.[type] ?? {};
      const url = server.url ?? server.socket ? {} : { url: this.cache.url };
      stores[type] = { ...url, ...server, store: (config) => this.open(type, prefix, config), close: (store) => store.close() };
    }
    return { ...this.cache.defaultStore ? { defaultStore: this.cache.defaultStore } : {}, ...given, stores };
  }
  async open(type, managerPrefix, config) {
    const keyPrefix = [managerPrefix, config.prefix].filter(Boolean).join(":");
    const options = { logger: this.logger, ...config, keyPrefix: keyPrefix && `${keyPrefix}:` };
    const store = type === "tiered" ? new import__2.TieredStore(options) : new import__2.RedisStore(options);
    this.opened.add(store);
    return store;
  }
  /** NocoBase's own counters and filters on Redis call a client of node-redis, which ours is not. */
  plugCounters(manager) {
    const { createCounter, createBloomFilter } = manager;
    const cacheOf = async (name, options) => manager.caches.get(name) ?? manager.createCache({ name, ...options });
    manager.createCounter = async (options = {}, lockManager) => {
      const { name, prefix, store = manager.defaultStore } = options;
      if (!isOurs(store)) return createCounter.call(manager, options, lockManager);
      const cache = await cacheOf(name, { store, ...prefix ? { prefix } : {} });
      return new import__2.RedisCounter(cache);
    };
    manager.createBloomFilter = async (options = {}) => {
      const { store = manager.defaultStore, prefix } = options;
      if (!isOurs(store)) return createBloomFilter.call(manager, options);
      const cache = await cacheOf("bloom-filter", { store, ...prefix ? { prefix } : {} });
      return new import__2.RedisBloomFilter(cache.store.store, cache.prefix ? `${cache.prefix}:` : "");
    };
  }
};
function isOurs(store) {
  return TYPES.includes(store);
}

// lib/nocobase/plug.ts
var plugged = /* @__PURE__ */ new WeakMap();
function plug(app) {
  const host = itself(app);
  const former = plugged.get(host);
  if (former?.isCurrent()) return false;
  const environment = readEnvironment();
  former?.retire();
  plugged.set(host, new Plugged(host, environment));
  return true;
}
async function plugCaches(app) {
  const host = itself(app);
  if (!host.cacheManager || !plugged.get(host)?.caches) return;
  await host.cacheManager.close();
  await host.createCacheManager();
}
function isRunning(app) {
  if (!itself(app)._started) return false;
  readEnvironment();
  return true;
}
function unplugFormer(app) {
  const host = itself(app);
  const former = plugged.get(host);
  if (!former || former.isCurrent()) return;
  plugged.delete(host);
  former.retire();
  host.on("beforeStart", reinitializable(() => {
    if (!plugged.has(host)) import__3.HostWorkerId.endOf(host);
  }));
}
function itself(app) {
  return app.pm?.app ?? app;
}
var Plugged = class {
  constructor(host, environment) {
    this.host = host;
    this.lockManager = host.lockManager;
    this.logger = loggerOf(host);
    this.name = host.name ?? "main";
    const { LockAcquireError, LockAbortError } = (0, import__3.hostModule)("@nocobase/lock-manager") ?? {};
    if (LockAcquireError && LockAbortError) (0, import__3.useLockErrorClasses)({ LockAcquireError, LockAbortError });
    this.plugLocks(environment);
    this.plugWorkerIds(environment);
    this.plugPubSub(environment);
    this.plugQueue(environment);
    this.caches = CachePlug.into(host, environment.cache, this.logger);
    const { caches } = this;
    if (caches) {
      this.closing.push(() => caches.close());
      this.unplugging.push(() => caches.unplug());
    }
    this.listen("afterStop", () => this.close());
  }
  host;
  caches;
  lockManager;
  logger;
  name;
  /** Ends what NocoBase itself does not close. */
  closing = [];
  /** Takes what was plugged out of managers that were replaced, and that NocoBase still connects and closes. */
  unplugging = [];
  /** Whether the application still has the managers that were plugged. */
  isCurrent() {
    return this.lockManager === this.host.lockManager;
  }
  /** The application has made other managers. */
  retire() {
    for (const unplug of this.unplugging) unplug();
    this.close().catch((error) => this.logger.warn("closing the services of before a restart failed", error));
  }
  async close() {
    await Promise.all(this.closing.map((close) => close()));
  }
  plugWorkerIds({ workerIds }) {
    const { host, name, logger } = this;
    if (!workerIds || isReplacement(host.workerIdAllocator)) return;
    host.workerIdAllocator.setAdapter(import__3.HostWorkerId.of(host, { url: workerIds.url, app: name, logger }));
  }
  plugPubSub({ pubSub }) {
    const { pubSubManager, syncMessageManager } = this.host;
    if (!pubSub || isReplacement(pubSubManager)) return;
    const adapter = new import__3.RedisPubSubAdapter({ url: pubSub.url, app: this.name, logger: this.logger });
    pubSubManager.setAdapter(adapter);
    pardonCalls(pubSubManager, ["publish"], (error) => this.logger.error("a message for pub/sub was not published", error));
    pardonCalls(syncMessageManager, ["publish"]);
    this.closing.push(() => adapter.close());
    this.unplugging.push(() => {
      pubSubManager.setAdapter(void 0);
      syncMessageManager.subscribe = async () => void 0;
    });
  }
  plugQueue({ queue }) {
    const { eventQueue } = this.host;
    if (!queue || queue.adapter === "memory" || isReplacement(eventQueue)) return;
    const Adapter = queue.adapter === "redis" ? import__3.RedisEventQueueAdapter : import__3.RabbitMQEventQueueAdapter;
    const adapter = new Adapter({ url: queue.url, logger: this.logger });
    eventQueue.setAdapter(adapter);
    pardonCalls(eventQueue, ["publish"], (error) => this.logger.error("a message for the event queue was not published", error));
    this.closing.push(() => adapter.close());
    this.unplugging.push(() => eventQueue.setAdapter(import__3.NO_QUEUE));
    const beforeStop = reinitializable(() => adapter.close());
    this.listen("afterStart", () => {
      this.host.off("beforeStop", beforeStop);
      this.host.on("beforeStop", beforeStop);
    });
  }
  plugLocks({ locks }) {
    if (locks.defaultAdapter !== "redis" && !locks.named) return;
    if (isReplacement(this.lockManager)) return;
    const adapter = new import__3.RedisLockAdapter({ url: locks.url, app: this.name, logger: this.logger });
    this.lockManager.registerAdapter("redis", { Adapter: function RedisLocks() {
      return adapter;
    } });
    this.closing.push(() => adapter.close());
  }
  listen(event, action) {
    this.host.on(event, reinitializable(action));
  }
};
function loggerOf(host) {
  const at = (level) => (...values) => host.logger?.[level]?.(...values);
  return { trace: at("trace"), debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

// lib/nocobase/plugin.ts
var { Application, Plugin } = (0, import__4.hostServer)();
var announced = false;
var watching = false;
function unplugOnceDisabled() {
  if (watching || announced) return;
  watching = true;
  Application.addCommand((app) => unplugFormer(app));
}
var MortisePlugin = class extends Plugin {
  /** Called by NocoBase before there is an application: each one is served from its first moment on. */
  static staticImport() {
    if (announced) return;
    announced = true;
    Application.addCommand((app) => plug(app));
  }
  /** Why nothing could be plugged. */
  failure;
  /** For applications that were made before, or by code that knows of no static imports. */
  async afterAdd() {
    try {
      unplugOnceDisabled();
      if (!isRunning(this.app) && plug(this.app)) await plugCaches(this.app);
    } catch (error) {
      this.failure = { error };
      throw error;
    }
  }
  /** NocoBase logs what `afterAdd` throws, and would go on alone, as if it were its only node. */
  async beforeLoad() {
    if (this.failure) throw this.failure.error;
  }
  /** There are no collections, migrations or translations beside this file, where NocoBase would look for them. */
  async getPluginBasePath() {
    return void 0;
  }
};
