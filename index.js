// Built from lib/ by `npm run build:lib`; do not edit.
'use strict';
"use strict";
var __defProp = Object.defineProperty;
var __getOwnPropDesc = Object.getOwnPropertyDescriptor;
var __getOwnPropNames = Object.getOwnPropertyNames;
var __hasOwnProp = Object.prototype.hasOwnProperty;
var __export = (target2, all) => {
  for (var name in all)
    __defProp(target2, name, { get: all[name], enumerable: true });
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

// lib/index.ts
var index_exports = {};
__export(index_exports, {
  Application: () => Application,
  BasicCache: () => BasicCache,
  Cache: () => Cache,
  CacheManager: () => CacheManager,
  EventQueue: () => EventQueue,
  HostWorkerId: () => HostWorkerId,
  LocalLockAdapter: () => LocalLockAdapter,
  LockAbortError: () => LockAbortError,
  LockAcquireError: () => LockAcquireError,
  LockCounter: () => LockCounter,
  LockManager: () => LockManager,
  MemoryBloomFilter: () => MemoryBloomFilter,
  MemoryCounter: () => MemoryCounter,
  MemoryEventQueueAdapter: () => MemoryEventQueueAdapter,
  MemoryPubSubAdapter: () => MemoryPubSubAdapter,
  MemoryStore: () => MemoryStore,
  MortiseError: () => MortiseError,
  NO_QUEUE: () => NO_QUEUE,
  Plugin: () => Plugin,
  PluginManager: () => PluginManager,
  PubSubManager: () => PubSubManager,
  RabbitMQEventQueueAdapter: () => RabbitMQEventQueueAdapter,
  RedisBloomFilter: () => RedisBloomFilter,
  RedisConnection: () => RedisConnection,
  RedisCounter: () => RedisCounter,
  RedisEventQueueAdapter: () => RedisEventQueueAdapter,
  RedisLockAdapter: () => RedisLockAdapter,
  RedisPubSubAdapter: () => RedisPubSubAdapter,
  RedisStore: () => RedisStore,
  RedisWorkerIdAdapter: () => RedisWorkerIdAdapter,
  SyncMessageManager: () => SyncMessageManager,
  TieredStore: () => TieredStore,
  WorkerIdAllocator: () => WorkerIdAllocator,
  createApp: () => createApp,
  hostModule: () => hostModule,
  hostServer: () => hostServer,
  install: () => install,
  isTransient: () => isTransient,
  maskSecrets: () => maskSecrets,
  redisStore: () => redisStore,
  serving: () => serving,
  tieredStore: () => tieredStore,
  useLockErrorClasses: () => useLockErrorClasses
});
module.exports = __toCommonJS(index_exports);

// lib/app/application.ts
var import_node_async_hooks = require("node:async_hooks");
var import_node_events3 = require("node:events");

// lib/cache/basic-cache.ts
var import_node_events2 = require("node:events");

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

// lib/cache/lease-key.ts
function beside(prefix, key) {
  if (hasTag(key)) return prefix + key;
  return key.includes("}") ? void 0 : `${prefix}{${key}}`;
}
function hasTag(key) {
  const open4 = key.indexOf("{");
  return open4 >= 0 && key.indexOf("}", open4 + 1) > open4 + 1;
}
function leaseKey(key) {
  return beside("mortise:load:", key);
}

// lib/cache/loading.ts
var import_node_crypto = require("node:crypto");

// lib/errors.ts
var MortiseError = class extends Error {
  /** The stable code, such as `E_CLOSED`. */
  code;
  constructor(code, message, options) {
    super(message, options);
    this.name = "MortiseError";
    this.code = code;
  }
};
function invalid(message) {
  return Object.assign(new TypeError(message), { code: "E_INVALID_ARGUMENT" });
}
var LockAcquireError = class extends Error {
  code;
  constructor(message, options) {
    super(message, options);
    this.name = "LockAcquireError";
    this.code = options?.code ?? "E_LOCK_ACQUIRE";
  }
};
var LockAbortError = class extends Error {
  code;
  constructor(message, options) {
    super(message, options);
    this.name = "LockAbortError";
    this.code = options?.code ?? "E_LOCK_ABORTED";
  }
};

// lib/native.ts
var import_node_path = require("node:path");
function target() {
  const { platform, arch } = process;
  if (platform !== "linux") return platform === "win32" ? `win32-${arch}-msvc` : `${platform}-${arch}`;
  const report = process.report?.getReport();
  return `linux-${arch}-${report?.header?.glibcVersionRuntime ? "gnu" : "musl"}`;
}
function load() {
  const name = target();
  const file = process.env.MORTISE_NATIVE ?? (0, import_node_path.join)(__dirname, `mortise.${name}.node`);
  try {
    return require(file);
  } catch (cause) {
    const message = `mortise has no addon for ${name}: ${file} cannot be loaded; build it with \`npm run build:native\``;
    throw Object.assign(new Error(message, { cause }), { code: "E_NO_ADDON" });
  }
}
var binding = load();
var [memory, instance] = binding.listen(dispatch);
var NUMBERS = 3;
var numbers = new Float64Array(memory);
var listeners = [];
var free = [];
function listen(listener) {
  const id = free.pop() ?? binding.listener(instance);
  listeners[id] = listener;
  return id;
}
var LAST = -1.5;
function unlisten(id) {
  listeners[id] = (subject) => {
    if (subject !== LAST) return;
    listeners[id] = void 0;
    setImmediate(() => setImmediate(() => free.push(id))).unref();
  };
  binding.postLast(id, LAST);
}
function listenWeakly(owner, listener) {
  const held3 = new WeakRef(owner);
  const id = listen((subject, value, payload) => {
    const alive = held3.deref();
    if (alive) listener(alive, subject, value, payload);
  });
  collected.register(owner, id);
  return id;
}
var collected = new FinalizationRegistry(unlisten);
function dispatch(count2, payloads) {
  for (let i = 0; i < count2; i++) {
    const at = i * NUMBERS;
    try {
      listeners[numbers[at]]?.(numbers[at + 1], numbers[at + 2], payloads?.[i]);
    } catch (error) {
      process.emitWarning(String(error?.stack ?? error), "MortiseWarning");
    }
  }
}
var held = 0;
function hold() {
  if (held++ === 0) binding.keepAlive(instance, true);
}
function release() {
  if (--held === 0) binding.keepAlive(instance, false);
}
var newResolve;
var newReject;
var executor = (resolve, reject) => {
  newResolve = resolve;
  newReject = reject;
};
var NOTHING = { convert: () => void 0 };
var Completions = class {
  constructor(usual = NOTHING) {
    this.usual = usual;
    this.listener = listen((sequence, value, payload) => this.settle(sequence, value, payload));
  }
  usual;
  listener;
  resolvers = [];
  rejecters = [];
  promises = [];
  endings = [];
  subjects = [];
  free = [];
  waiting = 0;
  ending = false;
  /** Called when no promise is waiting any more. */
  whenSettled;
  /** The number of promises not settled yet. */
  get size() {
    return this.waiting;
  }
  /** Makes a promise; `start` is called with its sequence number at once, and when it throws the promise rejects. */
  wait(start) {
    const promise = this.promise();
    const sequence = this.last;
    try {
      start(sequence);
    } catch (error) {
      this.settle(sequence, 0, error);
    }
    return promise;
  }
  /** The sequence number of the promise that {@link promise} gave last. */
  last = 0;
  /** A promise about `subject`, such as a key. Its number is {@link last} then. */
  promise(subject = "", ending2 = this.usual) {
    const promise = new Promise(executor);
    const sequence = this.free.pop() ?? this.resolvers.length;
    this.resolvers[sequence] = newResolve;
    this.rejecters[sequence] = newReject;
    this.promises[sequence] = promise;
    this.subjects[sequence] = subject;
    this.endings[sequence] = ending2;
    this.last = sequence;
    this.waiting++;
    hold();
    return promise;
  }
  /** Gives the listener up, when nothing waits any more; nothing more may be waited for. */
  end() {
    this.ending = true;
    if (this.waiting === 0) unlisten(this.listener);
  }
  /** Settles a promise from JavaScript's side; nothing when it has been settled. */
  settle(sequence, value, payload) {
    const resolve = this.resolvers[sequence];
    if (resolve === void 0) return;
    const reject = this.rejecters[sequence];
    const promise = this.promises[sequence];
    const subject = this.subjects[sequence];
    const ending2 = this.endings[sequence];
    this.resolvers[sequence] = this.rejecters[sequence] = this.promises[sequence] = void 0;
    this.free.push(sequence);
    if (--this.waiting === 0) this.whenSettled?.();
    if (this.ending) this.end();
    release();
    try {
      if (!isError(payload)) resolve(ending2.convert(value, payload, subject));
      else if (ending2.recover) resolve(ending2.recover(payload, subject));
      else throw payload;
    } catch (error) {
      pardon(promise, error);
      reject(error);
    }
  }
};
function isError(value) {
  return typeof value === "object" && value !== null && Object.prototype.toString.call(value) === "[object Error]";
}
var FIRST_PART = 8;
var LARGEST_PART = 64;
var Batch = class {
  /** `numbers[0..filled]` holds, for each command, what {@link Batch.add} was given. */
  constructor(submit) {
    this.submit = submit;
  }
  submit;
  text = "";
  numbers = new Float64Array(64);
  filled = 0;
  commands = 0;
  /** The commands after which the next part is handed over; it grows from part to part of one turn. */
  part = FIRST_PART;
  scheduled = false;
  handOver = () => {
    this.scheduled = false;
    this.part = FIRST_PART;
    this.flush();
  };
  /** Adds a command: any count of numbers, then its strings, whose lengths in UTF-16 units are appended to the numbers. */
  add(values, ...strings) {
    this.reserve(values.length + strings.length);
    for (const value of values) this.numbers[this.filled++] = value;
    for (const string of strings) {
      this.numbers[this.filled++] = string.length;
      this.text += string;
    }
    this.count();
  }
  /** As {@link add}, for one number, the strings' count and the strings, which are in an array already. */
  addWords(value, words) {
    const { length } = words;
    this.reserve(length + 2);
    const { numbers: numbers2 } = this;
    let at = this.filled;
    numbers2[at++] = value;
    numbers2[at++] = length;
    for (let i = 0; i < length; i++) {
      const word = words[i];
      numbers2[at++] = word.length;
      this.text += word;
    }
    this.filled = at;
    this.count();
  }
  /** Hands over what has been gathered, without waiting for the microtask. */
  flush() {
    if (this.commands === 0) return;
    const { commands, text, numbers: numbers2, filled } = this;
    this.commands = 0;
    this.text = "";
    this.filled = 0;
    this.submit(commands, text, numbers2, filled, text.length);
  }
  reserve(numbers2) {
    const needed = this.filled + numbers2;
    if (needed <= this.numbers.length) return;
    const larger = new Float64Array(needed * 2);
    larger.set(this.numbers);
    this.numbers = larger;
  }
  count() {
    if (!this.scheduled) {
      this.scheduled = true;
      queueMicrotask(this.handOver);
    }
    if (++this.commands < this.part) return;
    this.part = Math.min(this.part * 2, LARGEST_PART);
    this.flush();
  }
};

// lib/cache/clock.ts
var face = new Float64Array(binding.clockFace());
var TIME = 0;
var READ = 1;
var SLACK = 250;
function hasPassed(deadline) {
  const time = face[TIME];
  if (time !== 0) {
    face[READ] = 1;
    if (deadline - time > SLACK) return false;
    return deadline <= performance.now();
  }
  const now = performance.now();
  binding.clockStart(now);
  return deadline <= now;
}

// lib/cache/clone.ts
var cloneDeep = require("lodash/cloneDeep");
var DEEPEST = 200;
var NOT_PLAIN = /* @__PURE__ */ Symbol("not plain data");
var { getOwnPropertySymbols, getPrototypeOf, prototype: objectPrototype } = Object;
var { hasOwnProperty, toString } = objectPrototype;
function clone(value) {
  if (typeof value !== "object" || value === null) return value;
  if (count > 0) return cloneDeep(value);
  try {
    const copied = copy(value, 0);
    if (copied !== NOT_PLAIN) return copied;
  } finally {
    if (count > 4) others.clear();
    first = second = third = fourth = void 0;
    count = 0;
  }
  return cloneDeep(value);
}
var count = 0;
var first;
var second;
var third;
var fourth;
var others = /* @__PURE__ */ new Set();
function isNew(object) {
  if (object === first || object === second || object === third || object === fourth) return false;
  switch (count++) {
    case 0:
      first = object;
      return true;
    case 1:
      second = object;
      return true;
    case 2:
      third = object;
      return true;
    case 3:
      fourth = object;
      return true;
    default: {
      const before = others.size;
      return others.add(object).size > before;
    }
  }
}
function copy(value, depth) {
  if (!isNew(value) || depth > DEEPEST) return NOT_PLAIN;
  const prototype = getPrototypeOf(value);
  if (prototype === objectPrototype) return copyObject(value, depth);
  if (prototype === Array.prototype) return copyArray(value, depth);
  const date = prototype === Date.prototype && toString.call(value) === "[object Date]";
  return date ? new Date(value.getTime()) : NOT_PLAIN;
}
function copyArray(value, depth) {
  const length = value.length;
  const result = new Array(length);
  for (let i = 0; i < length; i++) {
    const element = value[i];
    if (typeof element === "object" && element !== null) {
      const copied = copy(element, depth + 1);
      if (copied === NOT_PLAIN) return NOT_PLAIN;
      result[i] = copied;
    } else {
      result[i] = element;
    }
  }
  return result;
}
function copyObject(value, depth) {
  const result = { ...value };
  if (getOwnPropertySymbols(result).length > 0) return NOT_PLAIN;
  for (const key in result) {
    const field = result[key];
    if (typeof field === "object" && field !== null && hasOwnProperty.call(result, key)) {
      const copied = copy(field, depth + 1);
      if (copied === NOT_PLAIN) return NOT_PLAIN;
      result[key] = copied;
    }
  }
  return result;
}
function copyOfJson(value) {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    const { length } = value;
    const result2 = new Array(length);
    for (let i = 0; i < length; i++) {
      const element = value[i];
      result2[i] = typeof element === "object" && element !== null ? copyOfJson(element) : element;
    }
    return result2;
  }
  const result = { ...value };
  for (const key in result) {
    const field = result[key];
    if (typeof field === "object" && field !== null) define(result, key, copyOfJson(field));
  }
  return result;
}
function define(object, key, value) {
  if (key === "__proto__") Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
  else object[key] = value;
}

// lib/cache/pattern.ts
function filterKeys(keys, pattern) {
  if (pattern === void 0 || pattern === "*") return [...keys];
  const glob = binding.globNew(pattern);
  return [...keys].filter((key) => binding.globMatches(glob, key));
}
function literal(text) {
  return text.replace(/[*?[\]\\^]/g, "\\$&");
}

// lib/cache/memory-store.ts
var DEFAULT_MAX = 2e3;
var LARGEST_MAX = 2 ** 31 - 1;
var FIRST_SLOTS = 64;
var SWEEP_INTERVAL = 1e3;
var ForeignKey = class {
  constructor(key) {
    this.key = key;
  }
  key;
};
var MemoryStore = class {
  /** `prefix` is that of the cache the store belongs to, with its `:`. */
  constructor(options = {}, prefix = "") {
    this.prefix = prefix;
    this.max = checkMax(options.max ?? DEFAULT_MAX);
    this.defaultTtl = checkTtl(options.ttl ?? 0);
    this.clones = options.shouldCloneBeforeSet ?? true;
    this.isCacheable = options.isCacheable ?? ((value) => value !== void 0);
    this.handle = binding.memoryNew(this.max);
    this.grow(FIRST_SLOTS);
  }
  prefix;
  name = "memory";
  /** Whether a value may be stored. */
  isCacheable;
  own = /* @__PURE__ */ new Map();
  foreign = /* @__PURE__ */ new Map();
  keyOf = [];
  values = [];
  /** By slot: when the entry lapses, on the scale of `performance.now()`; 0: never. Rust reads it. */
  deadlines;
  /** By slot: set by each use; Rust reads and clears it. */
  marks;
  handle;
  max;
  defaultTtl;
  clones;
  /** Slots that have ever been in use; Rust gives the next one out when none of them is free. */
  used = 0;
  sweeper;
  /** The number of entries, lapsed ones that were not swept yet among them. */
  get size() {
    return this.own.size + this.foreign.size;
  }
  async get(key) {
    return this.read(key);
  }
  async set(key, value, ttl) {
    this.write(key, value, ttl);
  }
  async del(key) {
    this.remove(key);
  }
  async mget(...keys) {
    return keys.map((key) => this.read(key));
  }
  async mset(entries, ttl) {
    checkEntries(entries);
    for (const [, value] of entries) this.checkCacheable(value);
    for (const [key, value] of entries) this.write(key, value, ttl);
  }
  async mdel(...keys) {
    for (const key of keys) this.remove(key);
  }
  async reset() {
    this.clear();
  }
  /** The keys, with their prefix, that fit the glob pattern. */
  async keys(pattern) {
    return filterKeys(this.listKeys(), pattern);
  }
  /** Milliseconds left; `Infinity` without expiry, 0 when absent. */
  async ttl(key) {
    return this.remaining(key);
  }
  // What follows is the same without promises, and for bare keys (the cache's own, without the
  // prefix) where the name says so.
  /** The value, or `undefined`; counts as a use. */
  read(key) {
    return this.isOwn(key) ? this.readBare(key.slice(this.prefix.length)) : this.lookUp(this.foreign, key);
  }
  readBare(bare) {
    return this.lookUp(this.own, bare);
  }
  write(key, value, ttl) {
    if (this.isOwn(key)) this.writeBare(key.slice(this.prefix.length), value, ttl);
    else this.put(this.foreign, key, value, ttl);
  }
  writeBare(bare, value, ttl) {
    this.put(this.own, bare, value, ttl);
  }
  /** Whether this store keeps the keys of a cache with that prefix bare. */
  belongsTo(prefix) {
    return this.prefix === prefix;
  }
  /** Gives an entry that is there the store's default time to live, as a new `set` would. */
  touchBare(bare) {
    const slot = this.own.get(bare);
    if (slot === void 0) return;
    this.setDeadline(slot, this.defaultTtl === 0 ? 0 : performance.now() + this.defaultTtl);
  }
  /** Puts another value in place of one that is there, which keeps its time to live; false when none is. */
  replaceBare(bare, value) {
    const slot = this.find(this.own, bare);
    if (slot === void 0) return false;
    this.values[slot] = value;
    return true;
  }
  remove(key) {
    if (this.isOwn(key)) this.removeBare(key.slice(this.prefix.length));
    else this.drop(this.foreign, checkKey(key));
  }
  removeBare(bare) {
    this.drop(this.own, checkKey(bare));
  }
  remaining(key) {
    const slot = this.isOwn(key) ? this.find(this.own, key.slice(this.prefix.length)) : this.find(this.foreign, key);
    if (slot === void 0) return 0;
    const deadline = this.deadlines[slot];
    return deadline === 0 ? Infinity : deadline - performance.now();
  }
  clear() {
    binding.memoryClear(this.handle);
    this.own.clear();
    this.foreign.clear();
    this.keyOf = [];
    this.values = [];
    this.used = 0;
    this.grow(FIRST_SLOTS);
    clearTimeout(this.sweeper);
    this.sweeper = void 0;
  }
  isOwn(key) {
    return checkKey(key).startsWith(this.prefix);
  }
  lookUp(index, key) {
    const slot = index.get(key);
    if (slot === void 0) {
      if (typeof key !== "string") checkKey(key);
      return void 0;
    }
    const deadline = this.deadlines[slot];
    if (deadline !== 0 && hasPassed(deadline)) {
      this.drop(index, key);
      return void 0;
    }
    this.marks[slot] = 1;
    return this.values[slot];
  }
  /** The slot of a live entry. */
  find(index, key) {
    const slot = index.get(checkKey(key));
    return slot !== void 0 && !this.lapsed(slot) ? slot : void 0;
  }
  lapsed(slot) {
    const deadline = this.deadlines[slot];
    return deadline !== 0 && deadline <= performance.now();
  }
  put(index, key, value, ttl) {
    if (typeof key !== "string") checkKey(key);
    const lifetime2 = ttl === void 0 || ttl === null ? this.defaultTtl : checkTtl(ttl);
    this.checkCacheable(value);
    if (this.clones) value = clone(value);
    if (lifetime2 < 0) return this.drop(index, key);
    const now = lifetime2 === 0 ? 0 : performance.now();
    const deadline = lifetime2 === 0 ? 0 : now + lifetime2;
    let slot = index.get(key);
    if (slot === void 0) {
      slot = this.insert(index, key, deadline === 0 && this.sweeper ? performance.now() : now, deadline);
    } else {
      this.marks[slot] = 1;
      this.setDeadline(slot, deadline);
    }
    this.values[slot] = value;
  }
  setDeadline(slot, deadline) {
    const before = this.deadlines[slot];
    this.deadlines[slot] = deadline;
    if (deadline === 0) return;
    if (before === 0 || deadline < before) binding.memorySooner(this.handle, slot, deadline);
    if (this.sweeper === void 0) this.sweepLater(SWEEP_INTERVAL);
  }
  insert(index, key, now, deadline) {
    const slots = this.deadlines.length;
    if (this.used === slots && slots < this.max) this.grow(Math.min(slots * 2, Math.ceil(this.max / 8) * 8));
    const slot = binding.memoryInsert(this.handle, now, deadline);
    if (slot >= this.used) this.used = slot + 1;
    this.deadlines[slot] = deadline;
    if (deadline !== 0 && this.sweeper === void 0) this.sweepLater(SWEEP_INTERVAL);
    this.unlink(slot);
    this.keyOf[slot] = index === this.own ? key : new ForeignKey(key);
    index.set(key, slot);
    return slot;
  }
  /** Takes the key of an entry whose slot has been given to another, or freed, out of its table. */
  unlink(slot) {
    const key = this.keyOf[slot];
    if (key === void 0) return;
    if (typeof key === "string") this.own.delete(key);
    else this.foreign.delete(key.key);
    this.keyOf[slot] = void 0;
    this.values[slot] = void 0;
  }
  drop(index, key) {
    const slot = index.get(key);
    if (slot === void 0) return;
    binding.memoryRemove(this.handle, slot);
    this.unlink(slot);
  }
  grow(slots) {
    const memory2 = binding.memoryCells(this.handle, slots);
    this.deadlines = new Float64Array(memory2, 0, slots);
    this.marks = new Uint8Array(memory2, slots * Float64Array.BYTES_PER_ELEMENT, slots);
    this.keyOf = resized(this.keyOf, slots);
    this.values = resized(this.values, slots);
  }
  checkCacheable(value) {
    if (!this.isCacheable(value)) {
      throw Object.assign(new Error(`no cacheable value ${describe(value)}`), { code: "E_NOT_CACHEABLE" });
    }
  }
  *listKeys() {
    for (const [bare, slot] of this.own) if (!this.lapsed(slot)) yield this.prefix + bare;
    for (const [key, slot] of this.foreign) if (!this.lapsed(slot)) yield key;
  }
  /** One timer for all entries; it does not keep Node alive. */
  sweepLater(delay) {
    const store = new WeakRef(this);
    this.sweeper = setTimeout(() => store.deref()?.sweep(), delay).unref();
  }
  sweep() {
    this.sweeper = void 0;
    const slots = binding.memoryExpire(this.handle, performance.now());
    for (const slot of slots) this.unlink(slot);
    const next = binding.memoryNextExpiry(this.handle);
    if (next !== 0) this.sweepLater(slots.length > 0 && next <= performance.now() ? 1 : delayUntil(next));
  }
};
function resized(array, length) {
  const copy2 = new Array(length);
  for (let i = 0; i < array.length; i++) copy2[i] = array[i];
  return copy2;
}
function delayUntil(time) {
  return Math.min(Math.max(time - performance.now(), SWEEP_INTERVAL), 2 ** 31 - 1);
}
function checkKey(key) {
  if (typeof key !== "string") throw invalid(`a cache key is a string: ${describe(key)}`);
  return key;
}
function checkEntries(entries) {
  if (!Array.isArray(entries) || !entries.every(Array.isArray)) throw invalid(`mset takes an array of [key, value]: ${describe(entries)}`);
}
function checkLoader(key, fn) {
  if (typeof fn !== "function") throw invalid(`what loads ${key} is a function: ${describe(fn)}`);
}
function checkTtl(ttl) {
  if (typeof ttl !== "number" || Number.isNaN(ttl)) {
    throw invalid(`the ttl of a cache entry is a number of milliseconds: ${describe(ttl)}`);
  }
  return ttl === Infinity ? 0 : ttl;
}
function checkMax(max) {
  if (!Number.isInteger(max) || max < 1 || max > LARGEST_MAX) {
    throw invalid(`the max of a memory cache is an integer from 1 to ${LARGEST_MAX}: ${describe(max)}`);
  }
  return max;
}
function describe(value) {
  let text;
  try {
    text = ["bigint", "symbol", "number"].includes(typeof value) ? String(value) : JSON.stringify(value);
  } catch {
    text = void 0;
  }
  text ??= String(Object.prototype.toString.call(value) === "[object Undefined]" ? void 0 : typeof value);
  return text.length > 100 ? `${text.slice(0, 100)}\u2026` : text;
}

// lib/redis/connection.ts
var import_node_events = require("node:events");

// lib/redis/binding.ts
var Operation = {
  KEYS: 0,
  DELETE_MATCHING: 1,
  GET_MANY: 2,
  DELETE_MANY: 3,
  COUNT: 4,
  REPLACE: 5,
  TAKE_LEASE: 6,
  RELEASE_LEASE: 7,
  BLOOM_RESERVE: 8,
  BLOOM_ADD: 9,
  BLOOM_EXISTS: 10,
  RENEW_LEASE: 11,
  SET_UNDER_LEASE: 12
};

// lib/redis/options.ts
var KNOWN = [
  "url",
  "host",
  "port",
  "path",
  "username",
  "password",
  "database",
  "tls",
  "sentinels",
  "masterName",
  "sentinelUsername",
  "sentinelPassword",
  "cluster",
  "protocol",
  "commandTimeout",
  "connectTimeout",
  "reconnectGrace",
  "heartbeat",
  "heartbeatTimeout"
];
var TLS = ["ca", "cert", "key", "rejectUnauthorized"];
var SOCKET = ["host", "port", "path", "tls", "connectTimeout"];
function serializeOptions(options = {}) {
  if (typeof options === "string") return JSON.stringify({ url: options });
  if (typeof options !== "object" || options === null) throw invalid(`redis is a URL or an object: ${String(options)}`);
  const { socket } = options;
  const flat = { ...options, ...pick(socket ?? {}, SOCKET), database: options.database ?? options.db };
  const { tls } = flat;
  if (typeof tls === "object" && tls !== null) flat.tls = texts(pick(tls, TLS));
  else if (tls === true && socket?.tls) flat.tls = texts(pick(socket, TLS));
  return JSON.stringify(pick(flat, KNOWN));
}
function pick(from, names) {
  const values = from;
  return Object.fromEntries(names.filter((name) => values[name] !== void 0 && values[name] !== null).map((name) => [name, values[name]]));
}
function texts(tls) {
  const text = (value) => {
    if (Array.isArray(value)) return value.map(text).join("\n");
    return value instanceof Uint8Array ? Buffer.from(value).toString() : value;
  };
  return Object.fromEntries(Object.entries(tls).map(([name, value]) => [name, text(value)]));
}

// lib/redis/connection.ts
var RedisConnection = class RedisConnection extends import_node_events.EventEmitter {
  handle;
  options;
  state;
  replies = replies();
  batch = this.newBatch();
  /** Throws a `TypeError` that names the option when the options are wrong; connects with the first command. */
  constructor(options, logger) {
    super();
    this.options = serializeOptions(options);
    binding.redisShown(this.options);
    if (logger) this.onLine = (level, text) => logger[level](text);
  }
  /** Where a line for the log goes, one for each change. */
  onLine;
  /** The server's URL, secrets masked. */
  get server() {
    return binding.redisShown(this.options);
  }
  /**
   * Sends a command: its name and its arguments. Commands keep their order.
   *
   * Rejects with `E_REDIS` when the server refuses it, with `E_UNAVAILABLE` while the server is away or
   * when it was lost before its reply came, and with `E_TIMEOUT` when it does not reply in time; in the
   * last two cases the command may have been carried out.
   */
  command(...words) {
    for (let i = 0; i < words.length; i++) {
      const word = words[i];
      if (typeof word === "string") continue;
      if (typeof word !== "number") return Promise.reject(invalid("a redis command is made of strings and numbers"));
      words[i] = String(word);
    }
    if (words.length === 0) return Promise.reject(invalid("a redis command has a name"));
    return this.send(words);
  }
  /** As {@link command}, for words that are strings for sure; `ending` makes something else of the reply. */
  send(words, subject, ending2) {
    if (this.handle === void 0) this.open();
    const promise = this.replies.promise(subject, ending2);
    this.batch.addWords(this.replies.last, words);
    return promise;
  }
  /** One of the operations that take more than a command; it begins after all that was sent before. */
  operate(operation, words) {
    const handle = this.handle ?? this.open();
    this.batch.flush();
    return this.replies.wait((sequence) => binding.redisOperate(handle, this.replies.listener, sequence, operation, words));
  }
  /** Begins to connect, without waiting for it. */
  open() {
    if (this.handle) return this.handle;
    this.state = void 0;
    this.handle = this.makeHandle(this.options, listenWeakly(this, RedisConnection.heard));
    open.add(this);
    return this.handle;
  }
  /** Opens the connection in Rust. */
  makeHandle(options, listener) {
    return binding.redisOpen(options, listener);
  }
  /** How the connection is. */
  health() {
    if (!this.handle) return { server: this.server, state: "closed", since: 0 };
    return describeHealth(binding.redisHealth(this.handle));
  }
  /**
   * Closes it, after what was sent before. The next command opens it again. The connection itself ends
   * when nobody else in the process uses it.
   */
  close() {
    if (!this.handle) return;
    this.batch.flush();
    binding.redisClose(this.handle);
    this.handle = void 0;
    open.delete(this);
  }
  newBatch() {
    return new Batch((...batch) => {
      binding.redisSubmit(this.handle, this.replies.listener, ...batch);
    });
  }
  static heard(self, _, __, payload) {
    self.changed(describeHealth(payload));
  }
  changed(health) {
    const before = this.state;
    if (!this.handle || health.state === before) return;
    this.state = health.state;
    const line = lineOf(before, health);
    if (line) this.onLine?.(...line);
    if (health.state === "ready") this.becameReady(health);
    if (health.state === "away" || health.state === "ready") this.emit(health.state, health);
  }
  /** Before the event is. */
  becameReady(_) {
  }
};
var open = /* @__PURE__ */ new Set();
var shared;
function replies() {
  shared ??= new Completions({
    convert: (value, payload) => {
      if (payload !== void 0) return payload;
      return value === value ? value : "OK";
    }
  });
  return shared;
}
function lineOf(before, health) {
  if (health.state === "away") return ["warn", `${health.server} is away: ${health.reason}`];
  if (health.state !== "ready") return void 0;
  const version = `version ${health.version ?? "unknown"}, RESP${health.protocol}`;
  return before === "away" ? ["info", `${health.server} is back (${version})`] : ["debug", `${health.server} is connected (${version})`];
}
function describeHealth([server, state, reason, since, version, protocol, eviction]) {
  return {
    server,
    state,
    since,
    ...reason === null ? {} : { reason },
    ...version === "" ? {} : { version },
    ...protocol === 0 ? {} : { protocol },
    ...eviction === "" ? {} : { evictionPolicy: eviction }
  };
}

// lib/redis/tiered-connection.ts
var MAX_BYTES = 64 * 2 ** 20;
var BUCKETS = 16384;
var VERSIONS = 1;
var BUCKET = VERSIONS + BUCKETS;
var VERSION = BUCKET + 1;
var LEFT = BUCKET + 2;
var TieredConnection = class extends RedisConnection {
  constructor(options, maxBytes = MAX_BYTES) {
    super(options);
    this.maxBytes = maxBytes;
    if (typeof maxBytes !== "number" || !(maxBytes >= 0)) throw invalid(`maxBytes of a tiered store is a number of bytes: ${String(maxBytes)}`);
  }
  maxBytes;
  numbers;
  counts;
  fills;
  found = { text: "", left: 0, bucket: 0, version: 0, epoch: 0 };
  told = false;
  makeHandle(options, listener) {
    const handle = binding.tieredOpen(options, this.maxBytes, listener);
    const cells2 = binding.tieredCells(handle);
    this.numbers = new Float64Array(cells2);
    this.counts = new Uint32Array(cells2);
    this.fills = new Batch((...batch) => binding.tieredFill(handle, this.replies.listener, ...batch));
    return handle;
  }
  /** Looks into the near cache. The object is good until the next call. */
  look(key) {
    const handle = this.handle ?? this.open();
    const epoch = this.counts[0];
    const text = binding.tieredGet(handle, key);
    if (text === void 0) return void 0;
    const { found, numbers: numbers2 } = this;
    found.text = text;
    found.bucket = numbers2[BUCKET];
    found.version = numbers2[VERSION];
    found.left = numbers2[LEFT];
    found.epoch = epoch;
    return found;
  }
  /** Whether nothing that concerns the bucket has changed since. */
  isCurrent(bucket, version, epoch) {
    const { counts } = this;
    return counts[(VERSIONS + bucket) * 2] === version && counts[0] === epoch;
  }
  /** Reads a key from the server, and keeps what is found. After all that was sent before. */
  fill(key, ending2) {
    if (this.handle === void 0) this.open();
    this.batch.flush();
    const promise = this.replies.promise(key, ending2);
    this.fills.addWords(this.replies.last, [key]);
    return promise;
  }
  send(words, subject, ending2) {
    this.fills?.flush();
    return super.send(words, subject, ending2);
  }
  operate(operation, words) {
    this.fills?.flush();
    return super.operate(operation, words);
  }
  close() {
    this.fills?.flush();
    super.close();
  }
  /** This process changes the key, or has done so. */
  invalidate(key) {
    binding.tieredInvalidate(this.handle ?? this.open(), key);
  }
  /** Everything may have changed. */
  flush() {
    binding.tieredFlush(this.handle ?? this.open());
  }
  /** Whether the server tells of changes. Without that the near cache stays empty. */
  get tracking() {
    return this.handle !== void 0 && binding.tieredIsTracking(this.handle);
  }
  /** What the near cache holds; `bytes` counts keys, texts and what goes with them. */
  size() {
    if (!this.handle) return { entries: 0, bytes: 0 };
    const [entries, bytes] = binding.tieredSize(this.handle);
    return { entries, bytes };
  }
  becameReady() {
    if (this.told || this.tracking) return;
    this.told = true;
    const why = "the server cannot tell of changed keys (CLIENT TRACKING over RESP3, Redis 6 or newer)";
    this.onLine?.("warn", `${this.server}: ${why}, so the tiered store works as a plain redis store`);
  }
};

// lib/redis/sharing.ts
var connections = /* @__PURE__ */ new Map();
function shareConnection(options, kind, logger) {
  const serialized = serializeOptions(options);
  const key = `${kind} ${serialized}`;
  let held3;
  return {
    connection() {
      if (held3) return held3.connection;
      const shared3 = connections.get(key) ?? open2(key, kind === "tiered" ? new TieredConnection(options, options.maxBytes) : new RedisConnection(options));
      shared3.users++;
      if (logger) shared3.loggers.set(logger, (shared3.loggers.get(logger) ?? 0) + 1);
      shared3.connection.open();
      held3 = shared3;
      return shared3.connection;
    },
    held: () => held3?.connection,
    release() {
      if (!held3) return;
      const shared3 = held3;
      held3 = void 0;
      if (logger) {
        const left = (shared3.loggers.get(logger) ?? 1) - 1;
        if (left > 0) shared3.loggers.set(logger, left);
        else shared3.loggers.delete(logger);
      }
      if (--shared3.users > 0) return;
      connections.delete(key);
      shared3.connection.close();
    }
  };
}
function open2(key, connection) {
  const shared3 = { connection, users: 0, loggers: /* @__PURE__ */ new Map() };
  const tell = (level, text) => {
    for (const logger of shared3.loggers.keys()) logger[level](text);
  };
  connection.onLine = tell;
  connections.set(key, shared3);
  return shared3;
}

// lib/cache/redis-store.ts
var READ2 = {
  convert: (_, payload, key) => parse(key, payload),
  recover: (error, key) => {
    if (isAway(error)) return void 0;
    throw named(error, key);
  }
};
var WRITTEN = {
  convert: () => void 0,
  recover: (error, key) => {
    throw named(error, key);
  }
};
var EDIT_ATTEMPTS = 1e3;
var RedisStore = class {
  name = "redis";
  isCacheable;
  defaultTtl;
  keyPrefix;
  use;
  /** Whether nodes load under leases, which a change of their key must end. */
  guardsLoads = false;
  /** Throws a `TypeError` for wrong options. Connects in the background. */
  constructor(options = {}, kind = "plain") {
    this.isCacheable = options.isCacheable ?? ((value) => value !== void 0 && value !== null);
    this.defaultTtl = checkTtl(options.ttl ?? 0);
    this.keyPrefix = options.keyPrefix ?? "";
    this.use = shareConnection(options, kind, options.logger);
    this.use.connection();
  }
  /** The connection, shared with whoever uses the same server. */
  get client() {
    return this.use.connection();
  }
  /** The connection, if it is open: looking at it must not open it. */
  get openClient() {
    return this.use.held();
  }
  // No async function: its promise, and the turns until it settles, are a third of what a call costs here.
  get(key) {
    try {
      return this.client.send(["GET", checkKey(key)], key, READ2);
    } catch (error) {
      return Promise.reject(error);
    }
  }
  set(key, value, ttl) {
    try {
      const command = this.setCommand(key, value, ttl);
      this.endLoads([key]);
      return this.client.send(command, key, WRITTEN);
    } catch (error) {
      return Promise.reject(error);
    }
  }
  async del(key) {
    checkKey(key);
    await this.write([key], () => {
      this.endLoads([key]);
      return this.client.send(["DEL", key]);
    });
  }
  async mget(...keys) {
    for (const key of keys) checkKey(key);
    if (keys.length === 0) return [];
    try {
      const texts2 = await this.client.operate(Operation.GET_MANY, keys);
      return texts2.map((text, i) => parse(keys[i], text));
    } catch (error) {
      if (isAway(error)) return keys.map(() => void 0);
      throw named(error, keys[0]);
    }
  }
  async mset(entries, ttl) {
    checkEntries(entries);
    const commands = entries.map(([key, value]) => this.setCommand(key, value, ttl));
    await this.write(entries.map(([key]) => key), async () => {
      this.endLoads(entries.map(([key]) => key));
      await Promise.all(commands.map((command) => this.client.send(command)));
    });
  }
  async mdel(...keys) {
    for (const key of keys) checkKey(key);
    if (keys.length === 0) return;
    await this.write(keys, () => {
      this.endLoads(keys);
      return this.client.operate(Operation.DELETE_MANY, keys);
    });
  }
  /** All keys of the database that fit the glob pattern. Rejects with `E_UNAVAILABLE` while the server is away. */
  async keys(pattern = "*") {
    return this.client.operate(Operation.KEYS, [pattern]);
  }
  /** Milliseconds left; -1 without expiry, -2 when absent. */
  async ttl(key) {
    checkKey(key);
    try {
      return await this.client.send(["PTTL", key]);
    } catch (error) {
      if (isAway(error)) return -2;
      throw named(error, key);
    }
  }
  /** See {@link RedisStoreOptions.keyPrefix}. */
  async reset() {
    if (this.keyPrefix !== "") return this.resetPrefix(this.keyPrefix);
    await this.writeAll(() => this.client.send(["FLUSHDB"]));
  }
  /** Deletes the keys that begin with `prefix`, without blocking the server. */
  async resetPrefix(prefix) {
    if (prefix === "") {
      const message = "a cache without a prefix cannot tell its keys on Redis from those of others, and is not reset";
      throw new MortiseError("E_NO_PREFIX", message);
    }
    await this.writeAll(() => this.client.operate(Operation.DELETE_MATCHING, [`${literal(prefix)}*`]));
  }
  /** Changes the value at `key` atomically: `change` is called again when another node was faster. */
  async edit(key, change) {
    checkKey(key);
    const life = lifetime(this.defaultTtl);
    await this.write([key], async () => {
      let text = await this.client.send(["GET", key]);
      for (let i = 0; i < EDIT_ATTEMPTS; i++) {
        const next = this.serialize(key, change(parse(key, text)));
        const expected = text === null ? ["0", ""] : ["1", text];
        const found = await this.client.operate(Operation.REPLACE, [key, ...expected, next, String(life)]);
        if (found === null) return;
        text = found[0] ?? null;
      }
      throw new MortiseError("E_CONTENDED", `the value at ${key} is changed by others all the time`);
    });
  }
  /** As {@link get}, past any near cache, and rejecting while the server is away. */
  async read(key) {
    return parse(key, await this.client.send(["GET", key]));
  }
  /** Adds to a number, which lives for `ttl` milliseconds from its first addition; gives the sum. */
  async count(key, add, ttl = 0) {
    let sum = 0;
    const life = Math.max(0, lifetime(checkTtl(ttl)));
    await this.write([key], async () => {
      sum = await this.client.operate(Operation.COUNT, [key, String(add), String(life)]);
    });
    return sum;
  }
  /** Takes the lease `key` for `owner`; false when it is another's. */
  async lease(key, owner, ttl) {
    return await this.client.operate(Operation.TAKE_LEASE, [key, owner, String(ttl)]) === 1;
  }
  /** Puts the end of a lease off; false when it is not the owner's any more. */
  async renew(key, owner, ttl) {
    return await this.client.operate(Operation.RENEW_LEASE, [key, owner, String(ttl)]) === 1;
  }
  /** Gives a lease back, if it is still the owner's. */
  async release(key, owner) {
    await this.client.operate(Operation.RELEASE_LEASE, [key, owner]);
  }
  /** As {@link set}, if `owner` still has the lease to load `key`; it is given back then. */
  async setUnderLease(key, lease, value, ttl, owner) {
    const [, , text = "", , life = "0"] = this.setCommand(key, value, ttl);
    let stored = false;
    await this.write([key], async () => {
      stored = await this.client.operate(Operation.SET_UNDER_LEASE, [key, lease, owner, text, life]) === 1;
    });
    return stored;
  }
  /** Gives the connection up; the next call takes it again. */
  close() {
    this.use.release();
  }
  /** What other nodes are loading for these keys is older than the change that follows. */
  endLoads(keys) {
    if (!this.guardsLoads) return;
    for (const key of keys) {
      const lease = leaseKey(key);
      if (lease !== void 0) this.client.send(["DEL", lease]).catch(() => void 0);
    }
  }
  /** Surrounds a change of `keys`. */
  async write(keys, change) {
    try {
      await change();
    } catch (error) {
      throw named(error, keys[0]);
    }
  }
  /** Surrounds a change of unknown keys. */
  async writeAll(change) {
    await change();
  }
  setCommand(key, value, ttl) {
    checkKey(key);
    const life = lifetime(ttl === void 0 || ttl === null ? this.defaultTtl : checkTtl(ttl));
    const text = this.serialize(key, value);
    if (life < 0) return ["DEL", key];
    return life === 0 ? ["SET", key, text] : ["SET", key, text, "PX", String(life)];
  }
  serialize(key, value) {
    if (!this.isCacheable(value)) {
      throw new MortiseError("E_NOT_CACHEABLE", `"${describeBare(value)}" is not a cacheable value`);
    }
    let text;
    try {
      text = JSON.stringify(value);
    } catch (cause) {
      throw new MortiseError("E_NOT_SERIALIZABLE", `the value for ${key} cannot be written as JSON`, { cause });
    }
    if (text === void 0) throw new MortiseError("E_NOT_SERIALIZABLE", `the value for ${key} cannot be written as JSON`);
    return text;
  }
};
function lifetime(ttl) {
  return ttl < 0 ? -1 : Math.min(Math.ceil(ttl), Number.MAX_SAFE_INTEGER / 2);
}
function parse(key, text) {
  if (text === null) return void 0;
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MortiseError("E_MALFORMED", `the entry at ${key} is not JSON: ${describe(text)}`, { cause });
  }
}
var OF_THE_SERVER = /* @__PURE__ */ new Set(["E_REDIS", "E_UNAVAILABLE", "E_TIMEOUT", "E_CLOSED"]);
function named(error, key) {
  const { code, message } = error;
  if (!OF_THE_SERVER.has(code) || typeof message !== "string" || message.includes(key)) return error;
  return new MortiseError(code, `${key}: ${message}`, { cause: error });
}
function describeBare(value) {
  return typeof value === "string" ? value : describe(value);
}

// lib/cache/loading.ts
function loadPolicy(options = {}, base) {
  const time = (name, fallback) => {
    const value = options[name];
    if (value === void 0) return fallback;
    if (typeof value !== "number" || !(value >= 0)) throw invalid(`the option ${name} of a cache is a number of milliseconds: ${describe(value)}`);
    return value;
  };
  const { singleFlight } = options;
  if (singleFlight !== void 0 && singleFlight !== "process" && singleFlight !== "cluster") {
    throw invalid(`the option singleFlight of a cache is 'process' or 'cluster': ${describe(singleFlight)}`);
  }
  const revalidate = time("staleWhileRevalidate", base?.revalidate ?? 0);
  const grace = time("grace", base?.grace ?? 0);
  return {
    cluster: singleFlight === void 0 ? base?.cluster ?? false : singleFlight === "cluster",
    revalidate,
    grace,
    keeps: Math.max(revalidate, grace),
    soft: time("softTimeout", base?.soft ?? Infinity),
    hard: time("hardTimeout", base?.hard ?? Infinity)
  };
}
var StaleCopies = class {
  constructor(engine, keeps, max) {
    this.engine = engine;
    this.keeps = keeps;
    if (engine() instanceof MemoryStore) this.own = new MemoryStore({ max, shouldCloneBeforeSet: false });
  }
  engine;
  keeps;
  own;
  async find(key) {
    const store = this.own ?? this.engine();
    const [value, left] = await Promise.all([store.get(staleKey(key)), store.ttl(staleKey(key))]);
    if (value === void 0 || !(left > 0)) return void 0;
    return { value, age: this.keeps - left };
  }
  /** Keeps a value that lapses after `ttl`; one that does not lapse needs no copy. */
  async put(key, value, ttl) {
    if (ttl === void 0 || !(ttl > 0) || ttl === Infinity) return this.drop([key]);
    await (this.own ?? this.engine()).set(staleKey(key), value, ttl + this.keeps);
  }
  async drop(keys) {
    await (this.own ?? this.engine()).mdel(...keys.map(staleKey));
  }
  /** Drops those of the keys that begin with `prefix`. */
  async clear(prefix) {
    if (this.own) return this.own.clear();
    const engine = this.engine();
    if (engine instanceof RedisStore) return engine.resetPrefix(STALE + prefix);
    const all = await engine.keys(`${STALE}*`);
    await engine.mdel(...all.filter((key) => key.startsWith(STALE + prefix)));
  }
};
var STALE = "mortise:stale:";
var staleKey = (key) => STALE + key;
var LEASE = 1e4;
var FIRST_LOOK = 4;
var LONGEST_LOOK = 64;
async function loadInCluster(engine, key, lease, load2, keep) {
  const owner = (0, import_node_crypto.randomUUID)();
  let pause = FIRST_LOOK;
  for (; ; ) {
    let mine;
    try {
      mine = await engine.lease(lease, owner, LEASE);
      const present = await engine.read(key);
      if (present !== void 0) {
        if (mine) await engine.release(lease, owner);
        return present;
      }
    } catch (error) {
      if (!isAway(error)) throw error;
      const value = await load2();
      await keep(value, void 0);
      return value;
    }
    if (mine) return loadUnder(engine, lease, owner, load2, keep);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, LONGEST_LOOK);
  }
}
async function loadUnder(engine, lease, owner, load2, keep) {
  const renewal = setInterval(() => void engine.renew(lease, owner, LEASE).catch(() => void 0), LEASE / 3).unref();
  try {
    const value = await load2();
    await keep(value, owner);
    return value;
  } finally {
    clearInterval(renewal);
    await engine.release(lease, owner).catch(() => void 0);
  }
}
async function within(loading, limit, key) {
  if (limit === Infinity) return loading;
  let timer;
  const late = new Promise((_, reject) => {
    const text = `the loader of ${key} did not end within ${limit} ms`;
    timer = setTimeout(() => reject(new MortiseError("E_LOADER_TIMEOUT", text)), Math.min(limit, 2 ** 31 - 1));
  });
  try {
    return await Promise.race([loading, late]);
  } finally {
    clearTimeout(timer);
  }
}

// lib/cache/basic-cache.ts
var BasicCache = class {
  constructor(store, options = {}) {
    this.options = options;
    this.store = store;
    this.refreshThreshold = options.refreshThreshold ?? 0;
    this.policy = loadPolicy(options);
    if (this.policy.keeps > 0) this.stale = new StaleCopies(() => this.store, this.policy.keeps, options.max);
    if (this.policy.cluster) this.guardLoads();
  }
  options;
  /** The engine. */
  store;
  refreshThreshold;
  events = new import_node_events2.EventEmitter();
  flights = /* @__PURE__ */ new Map();
  policy;
  stale;
  /** Whether more than the entries themselves has to be kept in step with a change. */
  get keepsMore() {
    return this.stale !== void 0;
  }
  /** Puts the store itself in place of the one that waits for it. */
  become(store) {
    this.store = store;
    if (this.policy.cluster) this.guardLoads();
  }
  get(key) {
    try {
      return this.store.get(key);
    } catch (error) {
      return Promise.reject(error);
    }
  }
  set(key, value, ttl) {
    try {
      this.outdate(key);
      const set = this.store.set(key, value, ttl);
      if (!this.stale) return set;
      return pardoned(Promise.all([set, this.stale.put(key, value, ttl ?? this.options.ttl)]).then(() => void 0));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  async del(key) {
    this.outdate(key);
    if (this.stale) await Promise.all([this.store.del(key), this.stale.drop([key])]);
    else await this.store.del(key);
  }
  async reset() {
    this.outdateAll();
    await Promise.all([this.store.reset(), this.stale?.clear("")]);
  }
  async mset(entries, ttl) {
    checkEntries(entries);
    for (const [key] of entries) this.outdate(key);
    const copies = this.stale && entries.map(([key, value]) => this.stale?.put(key, value, ttl ?? this.options.ttl));
    await Promise.all([this.store.mset(entries, ttl), ...copies ?? []]);
  }
  async mdel(...keys) {
    for (const key of keys) this.outdate(key);
    await Promise.all([this.store.mdel(...keys), this.stale?.drop(keys)]);
  }
  /** Changes a value atomically among all nodes; `undefined` where the store cannot do that by itself. */
  edit(key, change) {
    const { store } = this;
    if (!(store instanceof RedisStore)) return void 0;
    this.outdate(key);
    const edited = store.edit(key, change);
    return this.stale ? edited.then(() => this.stale?.drop([key])) : edited;
  }
  /** Deletes the keys that begin with `prefix`, where the store can do so by itself; false where it cannot. */
  async resetPrefix(prefix) {
    this.outdateAll();
    await this.stale?.clear(prefix);
    if (!(this.store instanceof RedisStore)) return false;
    await this.store.resetPrefix(prefix);
    return true;
  }
  /** Listens to failures of the store that a call of `wrap` got over; `listener({ error, key, operation })`. */
  on(event, listener) {
    this.events.on(event, listener);
    return this;
  }
  removeListener(event, listener) {
    this.events.removeListener(event, listener);
    return this;
  }
  /**
   * The value at `key`; when there is none, what `fn` gives, which is stored. `fn` runs once,
   * however many wait for the key. Its error reaches all of them, and nothing is stored.
   */
  async wrap(key, fn, ttl, refreshThreshold = this.refreshThreshold, options) {
    const value = await this.tryGet(key);
    if (value === void 0) return this.load(key, fn, ttl, options);
    if (refreshThreshold > 0) await this.refreshIfDue(key, value, fn, ttl, refreshThreshold);
    return value;
  }
  /** The miss of {@link wrap}: joins the loader that is running for the key, or starts one. */
  load(key, fn, ttl, options) {
    return this.loadIf(key, fn, ttl, this.canStore, options);
  }
  /**
   * As {@link load}, storing only what `isCacheable` accepts. What was loaded while the key was
   * set, deleted or reset is not stored: it may be older than the change.
   */
  loadIf(key, fn, ttl, isCacheable, options) {
    const policy = options === void 0 ? this.policy : loadPolicy(options, this.policy);
    const flight = this.flights.get(key) ?? this.start(key, fn, ttl, isCacheable, policy);
    if (flight.stale === void 0 && policy.hard === Infinity) return flight.loading;
    return this.answer(key, flight, policy);
  }
  start(key, fn, ttl, isCacheable, policy) {
    const flight = { loading: Promise.resolve(), stale: void 0 };
    if (policy.cluster) this.guardLoads();
    const keep = async (value, owner) => {
      if (await isCacheable(value)) await this.fill(key, flight, value, ttl, owner);
    };
    const run = async () => {
      try {
        const { store } = this;
        const lease = policy.cluster && store instanceof RedisStore ? leaseKey(key) : void 0;
        if (lease !== void 0) return await loadInCluster(store, key, lease, async () => fn(), keep);
        const value = await fn();
        await keep(value);
        return value;
      } finally {
        if (this.flights.get(key) === flight) this.flights.delete(key);
      }
    };
    this.flights.set(key, flight);
    if (this.stale) flight.stale = this.stale.find(key).catch(() => void 0);
    flight.loading = run();
    if (flight.stale || policy.hard !== Infinity) flight.loading.catch(() => void 0);
    return flight;
  }
  /** What a caller gets of a flight: what is loaded, or within the policy's bounds what has lapsed. */
  async answer(key, flight, policy) {
    const loading = flight.loading;
    const stale = await flight.stale;
    if (stale === void 0) return within(loading, policy.hard, key);
    if (stale.age < policy.revalidate) {
      loading.catch((error) => this.report({ error, key, operation: "set" }));
      return stale.value;
    }
    const inGrace = stale.age < policy.grace;
    try {
      return await within(loading, inGrace ? Math.min(policy.soft, policy.hard) : policy.hard, key);
    } catch (error) {
      if (!inGrace) throw error;
      this.report({ error, key, operation: "get", data: stale.value });
      return stale.value;
    }
  }
  /** Refreshes the entry in the background when it has less than `threshold` left. */
  async refreshIfDue(key, value, fn, ttl, threshold) {
    let left;
    try {
      left = await this.store.ttl(key);
    } catch (error) {
      return this.report({ error, key, operation: "get" });
    }
    if (left === -1 || left >= threshold || this.flights.has(key)) return;
    this.load(key, fn, typeof ttl === "function" ? ttl(value) : ttl).catch((error) => {
      if (!this.options.onBackgroundRefreshError) return this.report({ error, key, operation: "set", data: value });
      try {
        this.options.onBackgroundRefreshError(error);
      } catch (thrown) {
        this.report({ error: thrown, key, operation: "set", data: value });
      }
    });
  }
  /** Whether any loader is running. */
  get hasFlights() {
    return this.flights.size > 0;
  }
  /** What is being loaded for `key` is older than a change that comes now. */
  outdate(key) {
    if (this.flights.size > 0) this.flights.delete(key);
  }
  /** As {@link outdate}, for every key. */
  outdateAll() {
    this.flights.clear();
  }
  /** Changes of keys end the loads of other nodes as well. */
  guardLoads() {
    if (this.store instanceof RedisStore) this.store.guardsLoads = true;
  }
  canStore = (value) => {
    return !(this.store instanceof MemoryStore) || this.store.isCacheable(value);
  };
  async fill(key, flight, value, ttl, owner) {
    const lifetime2 = typeof ttl === "function" ? ttl(value) : ttl;
    if (this.flights.get(key) !== flight) return;
    try {
      const { store } = this;
      const lease = owner === void 0 ? void 0 : leaseKey(key);
      if (lease !== void 0 && store instanceof RedisStore) {
        if (!await store.setUnderLease(key, lease, value, lifetime2, owner)) return;
      } else await store.set(key, value, lifetime2);
      await this.stale?.put(key, value, lifetime2 ?? this.options.ttl);
    } catch (error) {
      if (error instanceof TypeError || this.store.isCacheable?.(value) === false) throw error;
      this.report({ error, key, operation: "set", data: value });
    }
  }
  async tryGet(key) {
    try {
      return await this.store.get(key);
    } catch (error) {
      if (error instanceof TypeError) throw error;
      this.report({ error, key, operation: "get" });
      return void 0;
    }
  }
  /** Tells the listeners of the `error` event. */
  report(event) {
    for (const listener of this.events.listeners("error")) {
      try {
        listener(event);
      } catch (error) {
        process.emitWarning(`a listener of cache errors failed: ${String(error)}`, "MortiseWarning");
      }
    }
  }
};

// lib/cache/bloom-filter.ts
var MemoryBloomFilter = class {
  /** `filters` may be shared; `prefix`, with its `:`, tells whose is whose. */
  constructor(filters, prefix) {
    this.filters = filters;
    this.prefix = prefix;
  }
  filters;
  prefix;
  async reserve(key, errorRate, capacity) {
    checkShape(key, errorRate, capacity);
    this.filters.set(this.key(key), binding.bloomNew(errorRate, capacity));
  }
  async add(key, value) {
    const filter = this.filters.get(this.key(key));
    checkValue(key, value);
    if (filter) binding.bloomAdd(filter, value);
  }
  async mAdd(key, values) {
    for (const value of values) checkValue(key, value);
    for (const value of values) await this.add(key, value);
  }
  async exists(key, value) {
    const filter = this.filters.get(this.key(key));
    checkValue(key, value);
    return filter !== void 0 && binding.bloomContains(filter, value);
  }
  key(key) {
    return this.prefix + checkKey(key);
  }
};
var RedisBloomFilter = class {
  /** `prefix` with its `:`. */
  constructor(store, prefix) {
    this.store = store;
    this.prefix = prefix;
  }
  store;
  prefix;
  async reserve(key, errorRate, capacity) {
    checkShape(key, errorRate, capacity);
    await this.run(Operation.BLOOM_RESERVE, key, [String(errorRate), String(capacity)]);
  }
  async add(key, value) {
    await this.mAdd(key, [value]);
  }
  async mAdd(key, values) {
    for (const value of values) checkValue(key, value);
    await this.run(Operation.BLOOM_ADD, key, values);
  }
  async exists(key, value) {
    checkValue(key, value);
    return await this.run(Operation.BLOOM_EXISTS, key, [value]) === 1;
  }
  async run(operation, key, words) {
    const full = this.prefix + checkKey(key);
    try {
      return await this.store.client.operate(operation, [full, ...words]);
    } catch (error) {
      throw named(error, full);
    }
  }
};
function checkShape(key, errorRate, capacity) {
  if (typeof errorRate !== "number" || typeof capacity !== "number") {
    throw invalid(`bloom filter ${describe(key)}: the error rate and the capacity are numbers`);
  }
}
function checkValue(key, value) {
  if (typeof value !== "string") throw invalid(`bloom filter ${key}: a value is a string: ${describe(value)}`);
}

// lib/cache/cache.ts
var Cache = class {
  name;
  prefix;
  store;
  keyPrefix;
  /** The engine, when it is this cache's own memory store and its keys are known there bare. */
  memory;
  edits = /* @__PURE__ */ new Map();
  /** `store` may also be what cache-manager 5 calls a cache. */
  constructor({ name, prefix, store: given }) {
    const store = given instanceof BasicCache ? given : new BasicCache(given.store);
    this.name = name;
    this.prefix = prefix;
    this.store = store;
    this.keyPrefix = prefix ? `${prefix}:` : "";
    const bare = store.store instanceof MemoryStore && store.store.belongsTo(this.keyPrefix) && !store.keepsMore;
    this.memory = bare ? store.store : void 0;
  }
  /** The key as the store knows it: `prefix:key`. */
  key(key) {
    return this.keyPrefix + checkKey(key);
  }
  /**
   * Stores a value. `ttl` in milliseconds: absent: the store's default, else none; 0: none;
   * negative: it has lapsed already.
   *
   * With a `transaction` (anything with `afterCommit(fn)`, such as Sequelize's) the value is stored
   * after its commit, and never after a rollback; the promise resolves at once.
   *
   * Rejects with `E_NOT_CACHEABLE` for a value that the store does not take, with
   * `E_NOT_SERIALIZABLE` for one that JSON cannot hold where the store writes JSON, and with a
   * `TypeError` for a key that is not a string or a ttl that is not a number.
   */
  set(key, value, ttl, options) {
    const plain = options === void 0 && (ttl === void 0 || typeof ttl === "number");
    if (!plain) return this.changing(this.setAsync(key, value, ttl, options));
    if (this.memory !== void 0) return this.setNear(this.memory, key, value, ttl);
    return typeof key === "string" ? this.store.set(this.keyPrefix + key, value, ttl) : rejected(key);
  }
  async setNear(memory2, key, value, ttl) {
    memory2.writeBare(key, value, ttl);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }
  async setAsync(key, value, ttl, options) {
    if (typeof ttl === "object" && ttl !== null && ("ttl" in ttl || "transaction" in ttl)) {
      options = ttl;
      ttl = ttl.ttl;
    }
    const life = ttl;
    if (options?.transaction) return this.afterCommit(options.transaction, key, () => this.set(key, value, life));
    const memory2 = this.memory;
    if (memory2 === void 0) return this.store.set(this.key(key), value, life);
    memory2.writeBare(key, value, life);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }
  /**
   * The value at `key`, `undefined` when there is none. The memory store gives the same object to
   * every caller.
   */
  get(key) {
    if (this.memory !== void 0) return this.getNear(this.memory, key);
    return typeof key === "string" ? this.store.get(this.keyPrefix + key) : rejected(key);
  }
  async getNear(memory2, key) {
    return memory2.readBare(key);
  }
  /** Deletes a key; nothing when it is absent. With a `transaction`: as for {@link set}. */
  del(key, options) {
    return this.changing(this.delAsync(key, options));
  }
  async delAsync(key, options) {
    if (options?.transaction) return this.afterCommit(options.transaction, key, () => this.del(key));
    const memory2 = this.memory;
    if (memory2 === void 0) return this.store.del(this.key(key));
    memory2.removeBare(key);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }
  /** Stores several values at once; `ttl` as for {@link set}. */
  mset(entries, ttl) {
    return this.changing(this.msetAsync(entries, ttl));
  }
  async msetAsync(entries, ttl) {
    checkEntries(entries);
    const full = entries.map(([key, value]) => [this.key(key), value]);
    await this.store.mset(full, ttl);
  }
  /** The values at `keys`, in their order, `undefined` for the absent. */
  async mget(...keys) {
    const memory2 = this.memory;
    if (memory2 !== void 0) return keys.map((key) => memory2.readBare(key));
    return await this.store.store.mget(...keys.map((key) => this.key(key)));
  }
  /** Deletes several keys. */
  mdel(...keys) {
    return this.changing(this.mdelAsync(keys));
  }
  async mdelAsync(keys) {
    await this.store.mdel(...keys.map((key) => this.key(key)));
  }
  /** Empties this cache, and nothing else that its store holds. */
  reset() {
    return this.changing(this.resetAsync());
  }
  async resetAsync() {
    this.store.outdateAll();
    if (this.memory !== void 0) return this.memory.clear();
    if (await this.store.resetPrefix(this.keyPrefix)) return;
    if (this.keyPrefix === "") return this.store.reset();
    const keys = await this.fullKeys("*");
    if (keys.length > 0) await this.store.store.mdel(...keys);
  }
  /** The keys in this cache, without its prefix, that fit a glob pattern (default: all). */
  async keys(pattern = "*") {
    const keys = await this.fullKeys(pattern);
    return filterKeys(keys.map((key) => key.slice(this.keyPrefix.length)), pattern);
  }
  /** Milliseconds that the key has left. Memory: `Infinity` without expiry, 0 when absent; Redis: -1 and -2. */
  async ttl(key) {
    return this.store.store.ttl(this.key(key));
  }
  /**
   * The value at `key`; when there is none, what `fn` gives, which is stored with `ttl` (or a
   * function of the value that gives it). `fn` runs once, however many wait for the key in this
   * process; its error reaches all of them, and nothing is stored. `options` go over the cache's own.
   */
  async wrap(key, fn, ttl, options) {
    if (typeof fn !== "function") checkLoader(key, fn);
    const memory2 = this.memory;
    if (memory2 === void 0) return this.store.wrap(this.key(key), fn, ttl, void 0, options);
    const value = memory2.readBare(key);
    if (value === void 0) return this.store.load(this.key(key), fn, ttl, options);
    const threshold = this.store.refreshThreshold;
    if (threshold > 0) await this.store.refreshIfDue(this.key(key), value, fn, ttl, threshold);
    return value;
  }
  /**
   * As {@link wrap}, with conditions. A result is stored when `isCacheable` says so, by default
   * when it is truthy; what is stored is a hit whatever it is.
   */
  async wrapWithCondition(key, fn, options = {}) {
    checkLoader(key, fn);
    if (options.useCache === false) return fn();
    const value = await this.get(key);
    if (value !== void 0) return value;
    return this.store.loadIf(this.key(key), fn, options.ttl, options.isCacheable ?? Boolean);
  }
  /** Sets one field of the object at `key`, which is made when there is none. Concurrent calls all take effect. */
  setValueInObject(key, objectKey, value) {
    const edited = this.edit(key, (object) => {
      const field = { value: clone(value), writable: true, enumerable: true, configurable: true };
      Object.defineProperty(object, objectKey, field);
    });
    return this.changing(edited);
  }
  /** One field of the object at `key`; `undefined` when either is absent. */
  async getValueInObject(key, objectKey) {
    const object = toObject(key, await this.get(key));
    const inherited = !Object.hasOwn(object, objectKey) && objectKey in Object.prototype;
    return inherited ? void 0 : object[objectKey];
  }
  /** Deletes one field of the object at `key`. Concurrent calls all take effect. */
  delValueInObject(key, objectKey) {
    const edited = this.edit(key, (object) => {
      Reflect.deleteProperty(object, objectKey);
    });
    return this.changing(edited);
  }
  /** A change, which callers need not look at: that a server is away must not end their process. */
  changing(change) {
    return this.memory === void 0 ? pardoned(change) : change;
  }
  /** Changes the object at `key`: at once in memory; elsewhere after this process's earlier changes. */
  async edit(key, change) {
    const memory2 = this.memory;
    if (memory2 !== void 0) {
      const present = memory2.readBare(key);
      const object = toObject(key, present);
      change(object);
      if (present !== object) return this.set(key, object);
      memory2.touchBare(key);
      if (this.store.hasFlights) this.store.outdate(this.key(key));
      return;
    }
    const full = this.key(key);
    const edited = this.store.edit(full, (present) => {
      const object = toObject(key, present);
      change(object);
      return object;
    });
    if (edited) return edited;
    const turn = (this.edits.get(full) ?? Promise.resolve()).then(async () => {
      const object = toObject(key, await this.get(key));
      change(object);
      await this.set(key, object);
    });
    const settled2 = turn.catch(() => void 0);
    this.edits.set(full, settled2);
    try {
      await turn;
    } finally {
      if (this.edits.get(full) === settled2) this.edits.delete(full);
    }
  }
  /** Makes the change when the transaction has been committed; then a failure is nobody's to catch but the listeners'. */
  afterCommit(transaction, key, change) {
    if (typeof transaction.afterCommit !== "function") throw invalid("a transaction has the method afterCommit");
    const full = this.key(key);
    const run = async () => {
      try {
        await change();
      } catch (error) {
        this.store.report({ error, key: full, operation: "set" });
      }
    };
    if (transaction.finished === "rollback") return;
    if (transaction.finished === "commit") void run();
    else transaction.afterCommit(run);
  }
  async fullKeys(pattern) {
    const keys = await this.store.store.keys(literal(this.keyPrefix) + pattern);
    return this.keyPrefix === "" ? keys : keys.filter((key) => key.startsWith(this.keyPrefix));
  }
};
async function rejected(key) {
  throw invalid(`a cache key is a string: ${describe(key)}`);
}
function toObject(key, value) {
  if (value === void 0 || value === null) return {};
  if (typeof value === "object") return value;
  throw invalid(`the value at ${key} is not an object: ${describe(value)}`);
}

// lib/cache/counter.ts
var LOCK_TTL = 3e3;
var LARGEST_MAX2 = 2 ** 31 - 1;
var MemoryCounter = class {
  numbers = new MemoryStore({ max: LARGEST_MAX2, shouldCloneBeforeSet: false });
  async get(key) {
    return this.numbers.readBare(key) ?? 0;
  }
  async incr(key, ttl) {
    return this.add(key, 1, ttl);
  }
  async incrby(key, value, ttl) {
    return this.add(key, value, ttl);
  }
  async reset(key) {
    this.numbers.removeBare(key);
  }
  add(key, value, ttl) {
    const present = this.numbers.readBare(key);
    const sum = addUp(key, present ?? 0, value);
    if (present === void 0 || !this.numbers.replaceBare(key, sum)) this.numbers.writeBare(key, sum, ttl);
    return sum;
  }
};
var RedisCounter = class {
  /** In a cache on Redis; of another it throws a `TypeError`. */
  constructor(cache) {
    this.cache = cache;
    const { store } = cache.store;
    if (!(store instanceof RedisStore)) throw invalid(`cache ${cache.name} is not on Redis, which counters of this kind need`);
    this.store = store;
  }
  cache;
  store;
  async get(key) {
    const text = await this.store.client.send(["GET", this.cache.key(key)]);
    return text === null ? 0 : Number(text);
  }
  async incr(key, ttl) {
    return this.incrby(key, 1, ttl);
  }
  async incrby(key, value, ttl) {
    if (!Number.isSafeInteger(value)) throw invalid(`counter ${key} is counted in integers: ${describe(value)}`);
    return this.store.count(this.cache.key(key), value, ttl);
  }
  async reset(key) {
    await this.store.del(this.cache.key(key));
  }
};
var LockCounter = class {
  constructor(cache, locks2) {
    this.cache = cache;
    this.locks = locks2;
  }
  cache;
  locks;
  async get(key) {
    return await this.cache.get(key) ?? 0;
  }
  async incr(key, ttl) {
    return this.incrby(key, 1, ttl);
  }
  async incrby(key, value, ttl) {
    const add = async () => {
      const present = await this.cache.get(key);
      const sum = addUp(key, present ?? 0, value);
      await this.cache.set(key, sum, present === void 0 ? ttl : await this.ttlLeft(key));
      return sum;
    };
    return this.locks.runExclusive(`counter:${this.cache.key(key)}`, add, LOCK_TTL);
  }
  async reset(key) {
    await this.cache.del(key);
  }
  async ttlLeft(key) {
    const left = await this.cache.ttl(key);
    return left > 0 && left < Infinity ? left : 0;
  }
};
function addUp(key, present, value) {
  if (!Number.isSafeInteger(value)) throw invalid(`counter ${key} is counted in integers: ${describe(value)}`);
  const sum = present + value;
  if (!Number.isSafeInteger(sum)) throw new MortiseError("E_COUNTER_RANGE", `counter ${key} would pass ${sum}`);
  return sum;
}

// lib/cache/store.ts
function pendingStore(making) {
  making.catch(() => void 0);
  const call = (method) => async (...values) => (await making)[method](...values);
  return {
    get: call("get"),
    set: call("set"),
    del: call("del"),
    reset: call("reset"),
    mset: call("mset"),
    mget: call("mget"),
    mdel: call("mdel"),
    keys: call("keys"),
    ttl: call("ttl")
  };
}

// lib/cache/tiered-store.ts
var MEMO_UNITS = 8 * 2 ** 20;
var MEMO_ENTRIES = 1e4;
var TieredStore = class extends RedisStore {
  name = "tiered";
  reference;
  /** Values that were parsed: those used lately, and those used before them. */
  young = /* @__PURE__ */ new Map();
  old = /* @__PURE__ */ new Map();
  units = 0;
  constructor(options = {}) {
    super(checkReference(options), "tiered");
    this.reference = options.reference ?? false;
  }
  get client() {
    return this.use.connection();
  }
  get(key) {
    try {
      const near = this.near(key);
      return near === void 0 ? this.client.fill(key, READ2) : Promise.resolve(near);
    } catch (error) {
      return Promise.reject(error);
    }
  }
  set(key, value, ttl) {
    return pardoned(this.write([key], () => super.set(key, value, ttl)));
  }
  async mget(...keys) {
    return Promise.all(keys.map((key) => this.get(key)));
  }
  /** The value when it is at hand; `undefined` when the server has to be asked. */
  near(key) {
    let memo = this.young.get(key);
    if (memo === void 0) {
      memo = this.old.get(key);
      if (memo === void 0) return this.look(key);
      this.old.delete(key);
      this.keep(key, memo);
    }
    const client = this.client;
    if (client.isCurrent(memo.bucket, memo.version, memo.epoch) && !hasPassed(memo.deadline)) {
      return this.reference ? memo.value : copyOfJson(memo.value);
    }
    if (this.young.delete(key)) this.units -= memo.size;
    return this.look(key);
  }
  close() {
    this.young.clear();
    this.old.clear();
    this.units = 0;
    super.close();
  }
  async write(keys, change) {
    for (const key of keys) this.client.invalidate(key);
    try {
      await super.write(keys, change);
    } finally {
      for (const key of keys) this.client.invalidate(key);
    }
  }
  async writeAll(change) {
    this.client.flush();
    try {
      await change();
    } finally {
      this.client.flush();
    }
  }
  look(key) {
    if (typeof key !== "string") checkKey(key);
    const found = this.client.look(key);
    if (found === void 0) return void 0;
    const { text, left, bucket, version, epoch } = found;
    const value = parse(key, text);
    if (value === null || typeof value !== "object") return value;
    this.keep(key, { value, deadline: performance.now() + left, bucket, version, epoch, size: text.length });
    return this.reference ? value : copyOfJson(value);
  }
  keep(key, memo) {
    this.young.set(key, memo);
    this.units += memo.size;
    if (this.units <= MEMO_UNITS / 2 && this.young.size <= MEMO_ENTRIES / 2) return;
    this.old = this.young;
    this.young = /* @__PURE__ */ new Map();
    this.units = 0;
  }
};
function checkReference(options) {
  if (options.reference === void 0 || typeof options.reference === "boolean") return options;
  throw invalid(`reference of a tiered store is true or false: ${describe(options.reference)}`);
}

// lib/cache/cache-manager.ts
var CacheManager = class {
  defaultStore;
  prefix;
  /** The stores made so far: those of one cache by its name, those shared by their type. */
  stores = /* @__PURE__ */ new Map();
  storeTypes = /* @__PURE__ */ new Map();
  caches = /* @__PURE__ */ new Map();
  shared = /* @__PURE__ */ new Map();
  /** When a store is there, so that a second cache of a shared one waits as well. */
  making = /* @__PURE__ */ new WeakMap();
  opened = /* @__PURE__ */ new Set();
  filters = /* @__PURE__ */ new Map();
  logger;
  constructor(options = {}) {
    const builtIn = {
      memory: { store: "memory", max: DEFAULT_MAX },
      redis: { store: "redis" },
      tiered: { store: "tiered" }
    };
    this.defaultStore = options.defaultStore ?? "memory";
    this.prefix = options.prefix;
    this.logger = options.logger;
    for (const name of /* @__PURE__ */ new Set([...Object.keys(builtIn), ...Object.keys(options.stores ?? {})])) {
      this.registerStore({ name, ...builtIn[name], ...options.stores?.[name] });
    }
  }
  /** Adds a store type, or replaces it for the caches made from now on. */
  registerStore(options) {
    const { name, ...type } = options ?? {};
    if (typeof name !== "string" || name === "") throw invalid(`a store type has a name: ${describe(name)}`);
    this.storeTypes.set(name, type);
  }
  /**
   * Makes a cache. On memory, or with any option beside name and store, it has a store of its own;
   * else it shares that of its type. The same name again replaces the cache.
   *
   * Rejects with `E_STORE_UNAVAILABLE` for an unknown store type, and with what the store's
   * factory rejects with.
   */
  async createCache(options) {
    const { cache, ready } = this.open(options);
    await ready;
    return this.keep(cache);
  }
  /**
   * As {@link createCache}, but usable at once: the calls of the cache wait for its store, and
   * reject when it cannot be made.
   */
  createCacheSync(options) {
    return this.keep(this.open(options).cache);
  }
  /** The cache of that name; throws `E_CACHE_NOT_FOUND` when there is none. */
  getCache(name) {
    const cache = this.caches.get(name);
    if (!cache) throw new MortiseError("E_CACHE_NOT_FOUND", `Get cache failed, ${name} is not found`);
    return cache;
  }
  /** Empties every cache and every bloom filter in memory. */
  async flushAll() {
    this.filters.clear();
    await Promise.all([...this.caches.values()].map((cache) => cache.reset()));
  }
  /** Calls the stores' `close`. May be repeated; memory caches keep working, those on Redis connect again when they are used. */
  async close() {
    await Promise.all([...this.opened].map(async ({ close: close2, store }) => close2?.(store.store)));
  }
  /** How the open connections of this manager's caches are, one entry a server and kind of store. */
  health() {
    const engines = [...this.opened].map(({ store }) => store.store);
    const clients = engines.flatMap((engine) => engine instanceof RedisStore ? engine.openClient ?? [] : []);
    return [...new Set(clients)].map((client) => client.health());
  }
  /**
   * Bloom filters on a store type: in memory, or on Redis, by the server's Bloom module where it has
   * one. Rejects with `E_STORE_UNAVAILABLE` on other stores (`BloomFilter store [x] is not supported`).
   */
  async createBloomFilter(options = {}) {
    const { store: type = this.defaultStore, prefix, ...config } = options ?? {};
    const source = this.storeTypes.get(type)?.store;
    const full = this.fullPrefix(prefix);
    const keyPrefix = full ? `${full}:` : "";
    if (source === "memory") return new MemoryBloomFilter(this.filters, keyPrefix);
    if (source !== "redis" && source !== "tiered") {
      throw new MortiseError("E_STORE_UNAVAILABLE", `BloomFilter store [${type}] is not supported`);
    }
    const { store } = Object.keys(config).length > 0 ? this.openStore(`bloom:${type}`, type, config, void 0) : this.sharedStore(type);
    return new RedisBloomFilter(store.store, keyPrefix);
  }
  /**
   * Counters on a store type. Memory and Redis count atomically by themselves. On other stores each
   * increment is made under a lock of `lockManager`; without one it rejects with `E_STORE_UNAVAILABLE`
   * (`Counter store [x] is not supported`).
   */
  async createCounter(options, lockManager) {
    const { name, prefix, store = this.defaultStore } = options ?? {};
    if (typeof name !== "string" || name === "") throw invalid(`a counter has a name: ${describe(name)}`);
    if (this.storeTypes.get(store)?.store === "memory") return new MemoryCounter();
    const cache = this.caches.get(name) ?? await this.createCache(prefix ? { name, prefix, store } : { name, store });
    const engine = cache.store.store;
    if (engine instanceof RedisStore) return new RedisCounter(cache);
    if (!lockManager) throw new MortiseError("E_STORE_UNAVAILABLE", `Counter store [${store}] is not supported`);
    return new LockCounter(cache, lockManager);
  }
  open(options) {
    const { name, store: type = this.defaultStore, ...config } = options ?? {};
    if (typeof name !== "string" || name === "") throw invalid(`a cache has a name: ${describe(name)}`);
    const prefix = this.fullPrefix(config.prefix);
    const own = type === "memory" || Object.keys(config).length > 0;
    const { store, ready } = own ? this.openStore(name, type, config, prefix) : this.sharedStore(type);
    return { cache: new Cache({ name, prefix, store }), ready };
  }
  sharedStore(type) {
    const present = this.shared.get(type);
    if (present) return { store: present, ready: this.making.get(present) ?? Promise.resolve() };
    const opened = this.openStore(type, type, {}, void 0);
    this.shared.set(type, opened.store);
    opened.ready.catch(() => this.shared.delete(type));
    return opened;
  }
  openStore(name, type, config, prefix) {
    const { store: source, close: close2, ...globalConfig } = this.storeTypes.get(type) ?? {};
    const settings = { ...globalConfig, ...config };
    const open4 = (engine) => ({ close: close2, store: new BasicCache(engine, settings) });
    const register = (opened2) => {
      this.stores.set(name, opened2);
      this.opened.add(opened2);
    };
    if (source === "memory") {
      const opened2 = open4(new MemoryStore(settings, prefix ? `${prefix}:` : ""));
      register(opened2);
      return { store: opened2.store, ready: Promise.resolve() };
    }
    if (source === "redis" || source === "tiered") {
      const tiered = source === "tiered" || settings.tiered === true;
      const options = { logger: this.logger, ...settings };
      loadPolicy(settings);
      const engine = tiered ? new TieredStore(options) : new RedisStore(options);
      const opened2 = { close: close2 ?? (() => engine.close()), store: new BasicCache(engine, settings) };
      register(opened2);
      return { store: opened2.store, ready: Promise.resolve() };
    }
    if (typeof source !== "function") throw unavailable(type, source);
    const making = (async () => source(settings))();
    const opened = open4(pendingStore(making));
    const ready = making.then((store) => {
      opened.store.become(store);
      register(opened);
    });
    ready.catch(() => void 0);
    this.making.set(opened.store, ready);
    return { store: opened.store, ready };
  }
  keep(cache) {
    this.caches.set(cache.name, cache);
    return cache;
  }
  fullPrefix(prefix) {
    return [this.prefix, prefix].filter(Boolean).join(":") || void 0;
  }
};
function unavailable(type, source) {
  const reason = source === void 0 ? "" : `: nobody knows the store ${String(source)}`;
  const message = `Create cache failed, store type [${type}] is unavailable or not registered${reason}`;
  return new MortiseError("E_STORE_UNAVAILABLE", message);
}

// lib/cache/factories.ts
async function redisStore(options) {
  return new RedisStore(options);
}
async function tieredStore(options) {
  return new TieredStore(options);
}

// lib/event-queue/memory-adapter.ts
var import_node_crypto2 = require("node:crypto");
var import_node_path3 = require("node:path");
var import_node_util = require("node:util");

// lib/event-queue/idle.ts
var DEFAULT_INTERVAL = 250;
function isIdle(event, channel, logger) {
  if (typeof event.idle !== "function") return true;
  try {
    return Boolean(event.idle());
  } catch (error) {
    logger?.error(`idle of event queue channel ${channel} failed`, error);
    return false;
  }
}
function askLater({ interval }, ask) {
  const delay = typeof interval === "number" && interval >= 0 ? interval : DEFAULT_INTERVAL;
  return setTimeout(ask, Math.min(delay, 2 ** 31 - 1)).unref();
}
function timeoutError() {
  return new DOMException("The operation was aborted due to timeout", "TimeoutError");
}

// lib/event-queue/channel.ts
var TURN = 256;
var Channel = class {
  constructor(name, number, host) {
    this.name = name;
    this.number = number;
    this.host = host;
  }
  name;
  number;
  host;
  event;
  /** Messages that wait, are kept back or are to be tried again. */
  waiting = 0;
  paused = false;
  /** The jobs of the channel by id, once somebody has asked for one: most channels never need it. */
  ids;
  scheduled = false;
  timer;
  begun = 0;
  budget;
  holding = false;
  subscribe(event) {
    const { concurrency = 1 } = event;
    this.event = event;
    const limit = concurrency > 0 ? Math.min(Math.ceil(concurrency), 2 ** 32 - 1) : 2 ** 32 - 1;
    binding.queueSetConcurrency(this.host.handle, this.number, limit);
    this.wake();
  }
  unsubscribe() {
    this.event = void 0;
    binding.queueSetConcurrency(this.host.handle, this.number, 0);
    this.rest();
  }
  pause() {
    this.paused = true;
    this.rest();
  }
  resume() {
    this.paused = false;
    this.wake();
  }
  /** The job with an id, from `publish` to its end. */
  find(id) {
    if (!this.ids) {
      this.ids = /* @__PURE__ */ new Map();
      for (const job of this.host.jobs) if (job?.channel === this.name) this.ids.set(job.id, job);
    }
    return this.ids.get(id);
  }
  /** A job of the channel has begun to wait. */
  add(job) {
    this.ids?.set(job.id, job);
    this.waiting++;
    this.wake();
  }
  /** A job of the channel has come to its end. */
  remove(job) {
    if (this.ids?.get(job.id) === job) this.ids.delete(job.id);
  }
  counts(dead) {
    const [waiting, delayed, running, first2] = binding.queueCounts(this.host.handle, this.number);
    const since = first2 < 0 ? void 0 : this.host.jobs[first2]?.since;
    return { waiting, delayed, running, dead, paused: this.paused, oldestAge: since === void 0 ? 0 : Math.max(0, Date.now() - since) };
  }
  /** There may be something to do: looks in the next microtask. */
  wake() {
    if (this.scheduled || !this.fetches) return;
    this.holdIfNeeded();
    this.scheduled = true;
    queueMicrotask(this.run);
  }
  /** Stops asking, and keeps Node alive no longer. */
  rest() {
    clearTimeout(this.timer);
    this.timer = void 0;
    this.holdIfNeeded();
  }
  get fetches() {
    return this.event !== void 0 && this.host.fetching && !this.paused;
  }
  /** Node stays alive while a message waits that somebody is to process. */
  holdIfNeeded() {
    const needed = this.waiting > 0 && this.fetches;
    if (needed === this.holding) return;
    this.holding = needed;
    if (needed) hold();
    else release();
  }
  run = () => {
    this.scheduled = false;
    while (this.event && this.fetches && this.waiting > 0) {
      if (this.begun >= TURN) return;
      if (!isIdle(this.event, this.name, this.host.logger)) return this.askLater(this.event);
      const count2 = binding.queueClaim(this.host.handle, this.number, TURN - this.begun);
      if (count2 === 0) break;
      this.startBudget();
      this.begun += count2;
      this.waiting -= count2;
      const claimed = [];
      for (let i = 0; i < count2; i++) claimed.push(this.host.jobs[this.host.cells[i]]);
      for (const job of claimed) job.running = true;
      for (const job of claimed) this.begin(job, this.event);
    }
    this.holdIfNeeded();
  };
  /** From the first message of a turn on; the rest of what waits goes on in the next turn. */
  startBudget() {
    this.budget ??= setImmediate(() => {
      this.budget = void 0;
      const exhausted = this.begun >= TURN;
      this.begun = 0;
      if (exhausted) this.wake();
    });
  }
  begin(job, event) {
    let result;
    try {
      result = event.process(job.content, job.context());
    } catch (error) {
      this.host.finish(job, true, error);
      return;
    }
    Promise.resolve(result).then(
      () => this.host.finish(job, false),
      (error) => this.host.finish(job, true, error)
    );
  }
  askLater(event) {
    this.timer ??= askLater(event, () => {
      this.timer = void 0;
      this.wake();
    });
  }
};

// lib/event-queue/dead-letters.ts
var MOST = 1e4;
var MemoryDeadLetters = class {
  /** `publishAgain` tells whether the message was queued: not while another with its id is in the channel. */
  constructor(publishAgain, forget) {
    this.publishAgain = publishAgain;
    this.forget = forget;
  }
  publishAgain;
  forget;
  letters = /* @__PURE__ */ new Set();
  replaying = /* @__PURE__ */ new Set();
  async count() {
    return this.size;
  }
  /** How many there are. @internal */
  get size() {
    return this.letters.size;
  }
  async list() {
    return [...this.letters].map(({ id, content, options, error }) => ({ id, content, options, error }));
  }
  async replay(id) {
    const results = await Promise.allSettled(this.chosen(id).map((letter) => this.replayOne(letter)));
    for (const result of results) if (result.status === "rejected") throw result.reason;
    return results.filter((result) => result.status === "fulfilled" && result.value).length;
  }
  async replayOne(letter) {
    if (this.replaying.has(letter)) return false;
    this.replaying.add(letter);
    try {
      const queued = await this.publishAgain(letter);
      if (queued) this.remove(letter);
      return queued;
    } finally {
      this.replaying.delete(letter);
    }
  }
  async drop(id) {
    return this.chosen(id).filter((letter) => this.remove(letter)).length;
  }
  /** Adds one; returns the one that had to go for it. @internal */
  add(letter) {
    this.letters.add(letter);
    if (this.letters.size <= MOST) return void 0;
    const [oldest] = this.letters;
    this.remove(oldest);
    return oldest;
  }
  chosen(id) {
    return [...this.letters].filter((letter) => id === void 0 || letter.id === id);
  }
  remove(letter) {
    if (!this.letters.delete(letter)) return false;
    if (letter.seq > 0) this.forget(letter.seq);
    return true;
  }
};

// lib/event-queue/job.ts
var Job = class {
  constructor(channel, id, content, options, retried, seq, due = 0) {
    this.channel = channel;
    this.id = id;
    this.content = content;
    this.options = options;
    this.retried = retried;
    this.seq = seq;
    this.due = due;
  }
  channel;
  id;
  content;
  options;
  retried;
  seq;
  due;
  /** Rust's number for it, while it waits or runs. */
  slot = -1;
  /** How many jobs have had the slot, this one among them. */
  uses = 0;
  running = false;
  /** Given up by `close`: what its handler still says counts for nothing. */
  abandoned = false;
  /** Ends when it fails, whatever retries it has left. */
  cancelled = false;
  /** The abort controller, when the handler has asked for the signal. */
  controller;
  /** Why the signal has aborted, or will have when it is asked for. */
  reason;
  /** Whether it was processed in the end; `undefined` until it has ended. */
  processed;
  /** Told of the end, when `publish` waits for it. */
  onEnd;
  /** Settles when it is on disk; for those that publish another with its id. */
  stored;
  /** Since when it has waited for its turn, in milliseconds since 1970. */
  get since() {
    return this.due || this.options.timestamp;
  }
  /** What the handler is given. The signal is made when it is asked for: most never do. */
  context() {
    const job = this;
    return {
      id: this.id,
      retried: this.retried,
      get signal() {
        return job.signal();
      },
      queueOptions: this.options
    };
  }
  /** It will not run again in this adapter. */
  end(processed) {
    this.processed = processed;
    this.onEnd?.(processed);
  }
  /** It will be tried again. */
  again(retried, due) {
    this.retried = retried;
    this.due = due;
    this.controller = void 0;
    this.reason = void 0;
  }
  /** The handler has had its time. */
  timeOut() {
    this.abort(timeoutError());
  }
  /** The handler is to give up. */
  cancel() {
    this.cancelled = true;
    this.abort(new DOMException("The message was cancelled", "AbortError"));
  }
  abort(reason) {
    this.reason ??= reason;
    this.controller?.abort(this.reason);
  }
  signal() {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.reason) this.controller.abort(this.reason);
    }
    return this.controller.signal;
  }
};

// lib/event-queue/journal.ts
var DONE = -1;
var DEAD = -2;
var Journal = class {
  entries;
  /** Where a file that could not be read was put. */
  setAside;
  handle;
  written = new Completions();
  appends = new Batch((...batch) => binding.journalAppend(this.handle, this.written.listener, ...batch));
  changes = new Batch((...batch) => {
    this.appends.flush();
    binding.journalChange(this.handle, ...batch);
  });
  next;
  /** Throws `E_JOURNAL_LOCKED` when another process or app has it open. */
  constructor(path) {
    this.handle = binding.journalOpen(path);
    [this.entries, this.setAside] = JSON.parse(binding.journalEntries(this.handle));
    this.next = this.entries.reduce((last, { seq }) => Math.max(last, seq), 0) + 1;
  }
  /** The number of the next message. */
  number() {
    return this.next++;
  }
  /** Writes a message; resolves when it is on disk. */
  append(job, content, options) {
    return this.written.wait((sequence) => this.appends.add([sequence, job.seq, job.retried, job.due, content === void 0 ? 0 : 1], job.id, job.channel, content ?? "", options));
  }
  done(seq) {
    this.changes.add([seq, DONE]);
  }
  dead(seq, error) {
    this.changes.add([seq, DEAD], error);
  }
  retried(seq, times, due) {
    this.changes.add([seq, times, due]);
  }
  /** Writes what is left, and closes the file. */
  async close() {
    this.appends.flush();
    this.changes.flush();
    try {
      await this.written.wait((sequence) => binding.journalClose(this.handle, this.written.listener, sequence));
    } finally {
      this.written.end();
    }
  }
};
function serialize(channel, value) {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    const text = `the message for event queue channel ${channel} cannot be written as JSON`;
    throw new MortiseError("E_NOT_SERIALIZABLE", text, { cause });
  }
}

// lib/event-queue/snapshot.ts
var import_promises = require("node:fs/promises");
var import_node_path2 = require("node:path");
async function readSnapshot(path, logger) {
  let text;
  try {
    text = await (0, import_promises.readFile)(path, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return {};
    throw Object.assign(error, { message: `the event queue's file ${path} cannot be read: ${error.message}` });
  }
  let snapshot;
  try {
    snapshot = parse2(text);
  } catch (error) {
    const target2 = `${path}.unreadable-${Date.now()}`;
    await (0, import_promises.rename)(path, target2);
    logger?.error(`the event queue's file ${path} is unreadable and was set aside as ${target2}`, error);
    return {};
  }
  return snapshot;
}
function merge(earlier, later) {
  const both = { ...earlier };
  for (const [channel, messages] of Object.entries(later)) both[channel] = [...both[channel] ?? [], ...messages];
  return both;
}
async function removeSnapshot(path) {
  await (0, import_promises.unlink)(path).catch((error) => {
    if (error.code !== "ENOENT") throw error;
  });
}
async function saveSnapshot(path, snapshot, logger) {
  const present = merge(await readSnapshot(path, logger), snapshot);
  if (Object.keys(present).length === 0) return;
  const text = `{${Object.entries(present).map(([channel, messages]) => `${JSON.stringify(channel)}:[${messages.flatMap((message) => serialize2(channel, message, logger)).join(",")}]`).join(",")}}`;
  await (0, import_promises.mkdir)((0, import_node_path2.dirname)(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await (0, import_promises.open)(temporary, "w");
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await (0, import_promises.rename)(temporary, path);
}
function serialize2(channel, message, logger) {
  try {
    return [JSON.stringify(message)];
  } catch (error) {
    logger?.error(`message ${message.id} of event queue channel ${channel} cannot be written as JSON, and is lost`, error);
    return [];
  }
}
function parse2(text) {
  const value = JSON.parse(text);
  const valid = isObject(value) && Object.values(value).every((messages) => Array.isArray(messages) && messages.every((message) => isObject(message) && (message.options === void 0 || isObject(message.options))));
  if (!valid) throw new Error("it does not hold messages by channel");
  return value;
}
function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

// lib/event-queue/memory-adapter.ts
var DEFAULT_TIMEOUT = 15e3;
var CLOSE_TIMEOUT = 1e4;
var MemoryEventQueueAdapter = class MemoryEventQueueAdapter {
  constructor(options = {}) {
    this.options = options;
    const { closeTimeout = CLOSE_TIMEOUT } = options;
    if (typeof closeTimeout !== "number" || !(closeTimeout >= 0)) {
      throw invalid(`closeTimeout is a number of milliseconds: ${String(closeTimeout)}`);
    }
    const listener = listenWeakly(this, MemoryEventQueueAdapter.heard);
    const handle = binding.queueNew(listener);
    const adapter = this;
    this.host = {
      handle,
      cells: new Float64Array(binding.queueCells(handle)),
      jobs: [],
      get fetching() {
        return adapter.connected;
      },
      logger: options.logger,
      finish: (job, failed, error) => this.finish(job, failed, error)
    };
  }
  options;
  connected = false;
  journal;
  channels = /* @__PURE__ */ new Map();
  byNumber = [];
  letters = /* @__PURE__ */ new Map();
  uses = [];
  host;
  /** What could not be written when the adapter was closed; the next close or connect takes it up. */
  unsaved = {};
  whenQuiet;
  turn = Promise.resolve();
  isConnected() {
    return this.connected;
  }
  /** Loads what waited when the adapter was closed, and begins to fetch. Nothing when it is connected. */
  connect() {
    return this.inTurn(async () => {
      if (this.connected) return;
      if (this.options.journal) this.openJournal();
      const file = this.path("event-queue.json");
      const saved = merge(await readSnapshot(file, this.options.logger), this.unsaved);
      this.unsaved = {};
      active.add(this);
      this.connected = true;
      await Promise.all(Object.entries(saved).flatMap(([channel, messages]) => messages.map(({ id, content, options, due }) => this.enqueue(channel, id ?? (0, import_node_crypto2.randomUUID)(), content, revived(options ?? {}), due ?? 0).stored)));
      await removeSnapshot(file);
      for (const channel of this.channels.values()) channel.wake();
    });
  }
  /**
   * Stops fetching, waits for running handlers up to `closeTimeout`, and keeps the rest for the
   * next `connect`: also what is unfinished then, which will be processed again.
   *
   * Rejects with `E_IO` when the file cannot be written; nothing is lost while the process lives,
   * and `close` may be tried again.
   */
  close() {
    return this.inTurn(async () => {
      if (!this.connected) return this.save();
      this.connected = false;
      for (const channel of this.channels.values()) channel.rest();
      await this.quiet(this.options.closeTimeout ?? CLOSE_TIMEOUT);
      const rest = this.drain();
      const { journal } = this;
      if (!journal) this.unsaved = merge(this.unsaved, rest);
      this.journal = void 0;
      active.delete(this);
      if (journal) await this.closeJournal(journal);
      else await this.save();
    });
  }
  subscribe(channel, event) {
    this.channel(channel).subscribe(event);
  }
  unsubscribe(channel) {
    this.channels.get(channel)?.unsubscribe();
  }
  /** Resolves to the id when the message waits; with a journal, when it is on disk. Rejects with `E_CLOSED` when not connected. */
  async publish(channel, message, options = {}) {
    if (!this.connected) {
      throw new MortiseError("E_CLOSED", `event queue not connected, cannot publish on channel "${channel}"`);
    }
    const { id = (0, import_node_crypto2.randomUUID)(), delay = 0 } = options;
    const present = options.id === void 0 ? void 0 : this.channel(channel).find(id);
    const { stored } = present ?? this.enqueue(channel, id, message, options, delay > 0 ? Date.now() + Math.ceil(delay) : 0);
    if (stored) await stored;
    return id;
  }
  /** Takes a message out, or aborts the signal of one that runs; see {@link IEventQueueAdapter}. */
  cancel(channel, id) {
    const job = this.channels.get(channel)?.find(id);
    if (!job) return false;
    if (job.running) job.cancel();
    else this.takeBack(job);
    return true;
  }
  /** Fetches nothing from the channel until {@link resume}, or until the process ends. */
  pause(channel) {
    this.channel(channel).pause();
  }
  resume(channel) {
    this.channel(channel).resume();
  }
  counts(channel) {
    return this.channel(channel).counts(this.deadLetters(channel).size);
  }
  /** The dead letters of a channel. */
  deadLetters(channel) {
    let letters = this.letters.get(channel);
    if (!letters) {
      letters = new MemoryDeadLetters((letter) => this.publishAgain(channel, letter), (seq) => this.journal?.done(seq));
      this.letters.set(channel, letters);
    }
    return letters;
  }
  channel(name) {
    let channel = this.channels.get(name);
    if (!channel) {
      channel = new Channel(name, binding.queueAddChannel(this.host.handle), this.host);
      this.channels.set(name, channel);
      this.byNumber[channel.number] = channel;
    }
    return channel;
  }
  async publishAgain(channel, { id, content, options }) {
    if (!this.connected) throw new MortiseError("E_CLOSED", `event queue not connected, cannot replay on channel "${channel}"`);
    if (this.channel(channel).find(id)) return false;
    await this.enqueue(channel, id, content, { ...options, retried: 0, timestamp: Date.now() }, 0).stored;
    return true;
  }
  /** Puts a message into its channel. */
  enqueue(channel, id, content, options, due) {
    const { journal } = this;
    const text = journal && serialize(channel, content);
    const optionsText = journal && serialize(channel, options);
    const job = new Job(channel, id, content, options, options.retried ?? 0, journal ? journal.number() : 0, due);
    this.place(job);
    if (journal) job.stored = this.write(journal, job, text, optionsText);
    return job;
  }
  place(job) {
    const { timeout = DEFAULT_TIMEOUT, maxRetries = 0 } = job.options;
    const channel = this.channel(job.channel);
    const { handle } = this.host;
    const retries = Math.min(Math.max(maxRetries, 0), 2 ** 32 - 1);
    const delay = job.due && job.due - Date.now();
    job.slot = delay > 0 ? binding.queuePublishLater(handle, channel.number, job.retried, retries, timeout, delay) : binding.queuePublish(handle, channel.number, job.retried, retries, timeout);
    job.uses = this.uses[job.slot] = (this.uses[job.slot] ?? 0) + 1;
    this.host.jobs[job.slot] = job;
    channel.add(job);
  }
  /** Takes a message that does not run out of the queue. False when there is none. */
  takeBack(job) {
    if (!this.isPlaced(job) || job.running || !binding.queueRemove(this.host.handle, job.slot)) return false;
    const channel = this.channel(job.channel);
    this.forget(job, channel);
    if (job.seq > 0) this.journal?.done(job.seq);
    job.end(true);
    channel.waiting--;
    channel.holdIfNeeded();
    return true;
  }
  /**
   * The handler does not wait for the disk. When the disk fails, a message that has not begun is
   * taken back; of one that has begun, the handler decides.
   */
  async write(journal, job, content, options) {
    try {
      await journal.append(job, content, options);
    } catch (error) {
      if (this.takeBack(job)) throw error;
      const processed = job.processed ?? await new Promise((resolve) => job.onEnd = resolve);
      if (!processed) throw error;
    }
  }
  finish(job, failed, error) {
    if (job.abandoned) {
      const outcome = failed ? "failed" : "was processed";
      this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} ${outcome} after the queue was closed`, error);
      return;
    }
    job.running = false;
    const channel = this.channel(job.channel);
    if (!failed) {
      this.succeed(job, channel);
    } else if (job.cancelled) {
      this.options.logger?.info(`message ${job.id} of event queue channel ${job.channel} was cancelled`, error);
      this.succeed(job, channel);
    } else this.fail(job, channel, error);
    channel.wake();
    if (this.whenQuiet && !this.anyRunning()) this.whenQuiet();
  }
  succeed(job, channel) {
    binding.queueSucceed(this.host.handle, job.slot);
    this.forget(job, channel);
    if (job.seq > 0) this.journal?.done(job.seq);
    job.end(true);
  }
  fail(job, channel, error) {
    const { handle, cells: cells2 } = this.host;
    const { backoff } = job.options;
    const retried = binding.queueFail(handle, job.slot, backoff ? JSON.stringify(backoff) : "");
    if (retried > 0) {
      job.again(retried, Date.now() + cells2[0]);
      channel.waiting++;
      if (job.seq > 0) this.journal?.retried(job.seq, retried, job.due);
      this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} failed, and will be tried again`, error);
      return;
    }
    this.options.logger?.error(`message ${job.id} of event queue channel ${job.channel} failed for good, and is a dead letter`, error);
    this.forget(job, channel);
    const text = messageOf(error);
    if (job.seq > 0) this.journal?.dead(job.seq, text);
    job.end(false);
    this.bury(job, text);
  }
  bury({ channel, id, content, options, seq }, error) {
    const dropped = this.deadLetters(channel).add({ id, content, options, error, seq });
    if (dropped) this.options.logger?.warn(`event queue channel ${channel} has too many dead letters, ${dropped.id} was dropped`);
  }
  isPlaced(job) {
    return this.host.jobs[job.slot] === job;
  }
  forget(job, channel) {
    if (this.isPlaced(job)) this.host.jobs[job.slot] = void 0;
    channel.remove(job);
  }
  anyRunning() {
    return this.host.jobs.some((job) => job?.running);
  }
  /** Resolves when no handler runs, or after `timeout` milliseconds. */
  async quiet(timeout) {
    if (!this.anyRunning()) return;
    let timer;
    await new Promise((resolve) => {
      this.whenQuiet = resolve;
      if (timeout !== Infinity) timer = setTimeout(resolve, Math.min(timeout, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.whenQuiet = void 0;
  }
  /** Empties the queue, and gives what was in it. */
  drain() {
    const rest = {};
    for (const channel of this.channels.values()) {
      const jobs = binding.queueDrain(this.host.handle, channel.number).map((slot) => this.host.jobs[slot]);
      for (const job of jobs) {
        if (job.running && !job.cancelled) {
          const text = `message ${job.id} of event queue channel ${job.channel} was not finished when the queue closed, and will be processed again`;
          this.options.logger?.warn(text);
        }
        this.forget(job, channel);
        job.abandoned = true;
        if (job.cancelled && job.seq > 0) this.journal?.done(job.seq);
        job.end(job.cancelled);
      }
      channel.waiting = 0;
      channel.holdIfNeeded();
      const kept = jobs.filter((job) => !job.cancelled);
      if (kept.length > 0) {
        rest[channel.name] = kept.map(({ id, content, options, retried, due }) => ({ id, content, options: { ...options, retried }, ...due > Date.now() && { due } }));
      }
    }
    return rest;
  }
  openJournal() {
    const path = this.path("event-queue.db");
    const journal = new Journal(path);
    this.journal = journal;
    if (journal.setAside) this.options.logger?.error(`the journal ${path} is unreadable and was set aside as ${journal.setAside}`);
    for (const { seq, id, channel, content, options, retried, due, dead, error } of journal.entries) {
      const value = content === null ? void 0 : JSON.parse(content);
      const job = new Job(channel, id ?? (0, import_node_crypto2.randomUUID)(), value, revived(JSON.parse(options)), retried, seq, due);
      if (dead) this.bury(job, error ?? void 0);
      else this.place(job);
    }
    journal.entries.length = 0;
  }
  async save() {
    if (Object.keys(this.unsaved).length === 0) return;
    const path = this.path("event-queue.json");
    try {
      await saveSnapshot(path, this.unsaved, this.options.logger);
    } catch (cause) {
      throw new MortiseError("E_IO", `writing the event queue's file ${path} failed: ${cause.message}`, { cause });
    }
    this.unsaved = {};
  }
  async closeJournal(journal) {
    try {
      await journal.close();
    } catch (error) {
      this.options.logger?.error("the journal was not closed cleanly, some messages may be processed again", error);
    }
  }
  static heard(self, subject, uses) {
    self.hear(subject, uses);
  }
  hear(subject, uses) {
    if (uses === 0) return this.byNumber[subject]?.wake();
    const job = this.host.jobs[subject];
    if (!job?.running || job.uses !== uses) return;
    this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} has passed its timeout; its handler keeps its slot`);
    job.timeOut();
  }
  path(file) {
    const { appName = "main", storagePath = (0, import_node_path3.join)(process.env.STORAGE_PATH || "storage", "apps", appName) } = this.options;
    return (0, import_node_path3.join)(storagePath, file);
  }
  inTurn(action) {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => void 0);
    return turn;
  }
};
function messageOf(error) {
  try {
    const message = typeof error === "string" ? error : error?.message;
    return typeof message === "string" ? message : (0, import_node_util.inspect)(error, { depth: 1 });
  } catch {
    return "an error that cannot be shown";
  }
}
function revived(options) {
  const { timeout, maxRetries } = options;
  return { ...options, ...timeout === null && { timeout: Infinity }, ...maxRetries === null && { maxRetries: Infinity } };
}
var active = /* @__PURE__ */ new Set();

// lib/event-queue/message.ts
function checkChannel(channel) {
  if (typeof channel !== "string" || channel === "") throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}
function checkMessage(channel, options, timeout, maxRetries) {
  const { delay, id, backoff, headers, retried } = options;
  if (typeof timeout !== "number" || !(timeout >= 0)) {
    throw invalid(`the timeout of a message on channel "${channel}" is a number of milliseconds: ${String(timeout)}`);
  }
  if (typeof maxRetries !== "number" || !(maxRetries >= 0)) {
    throw invalid(`maxRetries of a message on channel "${channel}" is a number, 0 or more: ${String(maxRetries)}`);
  }
  if (delay !== void 0 && !isMilliseconds(delay)) {
    throw invalid(`the delay of a message on channel "${channel}" is a number of milliseconds: ${String(delay)}`);
  }
  if (id !== void 0 && (typeof id !== "string" || id === "")) {
    throw invalid(`the id of a message on channel "${channel}" is a string that is not empty: ${String(id)}`);
  }
  if (headers !== void 0 && (typeof headers !== "object" || headers === null)) {
    throw invalid(`the headers of a message on channel "${channel}" are an object: ${String(headers)}`);
  }
  if (retried !== void 0 && !(typeof retried === "number" && retried >= 0 && retried < Infinity)) {
    throw invalid(`retried of a message on channel "${channel}" is a number, 0 or more: ${String(retried)}`);
  }
  if (backoff !== void 0) checkBackoff(channel, backoff);
}
function checkBackoff(channel, backoff) {
  const of = `of a message on channel "${channel}"`;
  if (typeof backoff !== "object" || backoff === null) throw invalid(`the backoff ${of} is an object: ${String(backoff)}`);
  const { type, delay, max, jitter } = backoff;
  if (type !== "fixed" && type !== "exponential") throw invalid(`backoff.type ${of} is 'fixed' or 'exponential': ${String(type)}`);
  if (!isMilliseconds(delay)) throw invalid(`backoff.delay ${of} is a number of milliseconds: ${String(delay)}`);
  if (max !== void 0 && !isMilliseconds(max)) throw invalid(`backoff.max ${of} is a number of milliseconds: ${String(max)}`);
  if (jitter !== void 0 && !(typeof jitter === "number" && jitter >= 0 && jitter <= 1)) {
    throw invalid(`backoff.jitter ${of} is a number from 0 to 1: ${String(jitter)}`);
  }
}
function isMilliseconds(value) {
  return typeof value === "number" && value >= 0 && value < Infinity;
}

// lib/event-queue/server-job.ts
var ServerJob = class {
  constructor(ticket, id, retried, queueOptions, content, begun) {
    this.ticket = ticket;
    this.id = id;
    this.retried = retried;
    this.queueOptions = queueOptions;
    this.content = content;
    this.begun = begun;
  }
  ticket;
  id;
  retried;
  queueOptions;
  content;
  begun;
  /** Cancelled: its failure is its end. */
  cancelled = false;
  /** What its handler still says counts for nothing. */
  abandoned = false;
  /** Its outcome is known: a promise that settles once more counts for nothing. */
  ended = false;
  reason;
  controller;
  /** Made when it is asked for: most handlers never do. */
  get signal() {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.reason !== void 0) this.controller.abort(this.reason);
    }
    return this.controller.signal;
  }
  abort(reason) {
    if (this.reason !== void 0) return;
    this.reason = reason;
    this.controller?.abort(reason);
  }
};

// lib/event-queue/server-channel.ts
var SLOTS = 2 ** 20;
var UNLIMITED = SLOTS - 1;
var PROCESSED = 0;
var FAILED = 1;
var RETURNED = 2;
var OURS = 0;
var CANCELLED = 1;
var LOST = 2;
var ServerChannel = class {
  constructor(name, number, event, host) {
    this.name = name;
    this.number = number;
    this.event = event;
    this.host = host;
    const { concurrency = 1 } = event;
    const limit = concurrency > 0 ? Math.min(Math.ceil(concurrency), UNLIMITED) : UNLIMITED;
    this.subscription = binding.serverQueueSubscribe(host.handle, name, limit, host.listener, number);
    this.wake();
  }
  name;
  number;
  event;
  host;
  /** Messages whose handlers run. */
  running = 0;
  /** Rust's number for the subscription; -1 once nothing more comes of it. */
  subscription;
  jobs = [];
  scheduled = false;
  /** Rust waits for an answer to `ready`. */
  asked = false;
  /** Rust was told to fetch, and has not said what came of it. */
  fetching = false;
  holding = false;
  timer;
  numbers = new Float64Array(3 * 64);
  filled = 0;
  errors = "";
  unsubscribe() {
    this.event = void 0;
    if (this.subscription >= 0) binding.serverQueueUnsubscribe(this.host.handle, this.subscription);
    this.rest();
  }
  /** Nothing more comes of it. */
  over() {
    this.subscription = -1;
  }
  /** There may be something to fetch. */
  ready() {
    this.asked = true;
    this.wake();
  }
  /** There is nothing to fetch for now; or nothing is fetched any more. */
  rest() {
    this.fetching = false;
    if (!this.event || !this.host.fetching) {
      clearTimeout(this.timer);
      this.timer = void 0;
    }
    this.holdIfNeeded();
  }
  /** Looks in the next microtask, once all that ends now has ended. */
  wake() {
    if (this.scheduled) return;
    this.scheduled = true;
    queueMicrotask(this.run);
  }
  /** Messages begin. */
  begin(text) {
    this.fetching = false;
    const [changes, until, ...arrived] = JSON.parse(text);
    let lost = 0;
    for (const [ticket, id, retried, message] of arrived) {
      const now = performance.now();
      const isOurs = now <= until && changes === this.host.changes[0];
      const standing = isOurs ? OURS : binding.serverQueueStanding(this.host.handle, this.subscription, ticket);
      const job = new ServerJob(ticket, id, retried, restore(message[0]), message[1], now);
      this.running++;
      this.jobs[ticket % SLOTS] = job;
      if (standing === CANCELLED) this.endCancelled(job);
      else if (standing === OURS && this.event && this.host.fetching) this.call(job, this.event);
      else this.finish(job, RETURNED, "");
      if (standing === LOST) lost++;
    }
    if (lost > 0) {
      this.host.logger?.warn(`${lost} messages of event queue channel ${this.name} do not begin here: the event loop stood still until they were lost to others`);
    }
    this.holdIfNeeded();
  }
  /** The timeout of a run has passed, by Rust's clock, which began when the message came. */
  timeOut(ticket) {
    const job = this.job(ticket);
    if (!job) return;
    const { timeout } = job.queueOptions;
    const left = typeof timeout === "number" ? timeout - (performance.now() - job.begun) : 0;
    if (left > 0) {
      setTimeout(() => this.timeOut(ticket), Math.min(left, 2 ** 31 - 1)).unref();
      return;
    }
    this.host.logger?.warn(`message ${job.id} of event queue channel ${this.name} has passed its timeout; its handler keeps its slot`);
    job.abort(timeoutError());
  }
  cancel(ticket) {
    const job = this.job(ticket);
    if (!job) return;
    job.cancelled = true;
    job.abort(new DOMException("The message was cancelled", "AbortError"));
  }
  /** The run has lost its slot. */
  giveUp(ticket) {
    const job = this.job(ticket);
    if (!job) return;
    job.abandoned = true;
    job.abort(timeoutError());
    this.forget(job);
    this.wake();
  }
  /** What still runs is others' from now on, and Rust is told nothing more. */
  abandon() {
    this.subscription = -1;
    for (const job of this.jobs) {
      if (!job) continue;
      job.abandoned = true;
      this.host.logger?.warn(`message ${job.id} of event queue channel ${this.name} was not finished when the queue closed, and will be processed again`);
      this.forget(job);
    }
  }
  /** Tells Rust what has ended, without waiting for the microtask. */
  flush(fetch = false) {
    const { filled, numbers: numbers2, errors } = this;
    if (filled === 0 && !fetch && !this.asked) return;
    this.filled = 0;
    this.errors = "";
    this.asked = false;
    if (this.subscription < 0 || filled === 0 && !this.event) return;
    binding.serverQueueTurn(this.host.handle, this.subscription, fetch, filled / 3, errors, numbers2, filled, errors.length);
  }
  run = () => {
    this.scheduled = false;
    const { event } = this;
    const fetch = event !== void 0 && this.host.fetching && isIdle(event, this.name, this.host.logger);
    if (fetch) this.fetching = true;
    this.flush(fetch);
    if (event && this.host.fetching && !fetch) this.askLater(event);
    this.holdIfNeeded();
  };
  call(job, event) {
    try {
      Promise.resolve(event.process(job.content, job)).then(
        () => this.finish(job, PROCESSED, ""),
        (error) => this.fail(job, error)
      );
    } catch (error) {
      this.fail(job, error);
    }
  }
  fail(job, error) {
    const { logger } = this.host;
    const what = `message ${job.id} of event queue channel ${this.name}`;
    if (job.ended) return;
    if (job.abandoned) {
      logger?.warn(`${what} failed after it was given up`, error);
      return;
    }
    if (job.cancelled) return this.endCancelled(job);
    const { maxRetries = 0 } = job.queueOptions;
    if (job.retried < maxRetries) logger?.warn(`${what} failed, and will be tried again`, error);
    else logger?.error(`${what} failed for good, and is a dead letter`, error);
    this.finish(job, FAILED, describe2(error));
  }
  endCancelled(job) {
    this.host.logger?.info(`message ${job.id} of event queue channel ${this.name} was cancelled`);
    this.finish(job, PROCESSED, "");
  }
  finish(job, outcome, error) {
    if (job.ended) return;
    if (job.abandoned) {
      this.host.logger?.warn(`message ${job.id} of event queue channel ${this.name} was processed after it was given up`);
      return;
    }
    job.ended = true;
    this.forget(job);
    this.tell(outcome, job.ticket, error);
    this.wake();
  }
  tell(outcome, ticket, error) {
    if (this.filled + 3 > this.numbers.length) {
      const larger = new Float64Array(this.numbers.length * 2);
      larger.set(this.numbers);
      this.numbers = larger;
    }
    this.numbers[this.filled++] = outcome;
    this.numbers[this.filled++] = ticket;
    this.numbers[this.filled++] = error.length;
    this.errors += error;
  }
  forget(job) {
    this.jobs[job.ticket % SLOTS] = void 0;
    this.running--;
    if (this.running === 0) this.host.ended();
  }
  job(ticket) {
    const job = this.jobs[ticket % SLOTS];
    return job?.ticket === ticket ? job : void 0;
  }
  askLater(event) {
    this.timer ??= askLater(event, () => {
      this.timer = void 0;
      this.wake();
    });
  }
  /** Node stays alive while a handler runs, and until Rust has said that there is nothing to fetch. */
  holdIfNeeded() {
    const needed = this.running > 0 || this.fetching && this.event !== void 0 && this.host.fetching;
    if (needed === this.holding) return;
    this.holding = needed;
    if (needed) hold();
    else release();
  }
};
function restore(options) {
  if (options.timeout === null) options.timeout = Infinity;
  if (options.maxRetries === null) options.maxRetries = Infinity;
  return options;
}
function describe2(error) {
  try {
    return error instanceof Error || error?.message ? String(error.message) : String(error);
  } catch {
    return "an error that cannot be shown";
  }
}

// lib/event-queue/server-adapter.ts
var CLOSE_TIMEOUT2 = 1e4;
var READY = 0;
var BEGIN = 1;
var TIMED_OUT = 2;
var CANCELLED2 = 3;
var GIVEN_UP = 4;
var LOG = 5;
var BEAT = 6;
var RESTS = 7;
var OVER = 8;
var ServerQueueAdapter = class ServerQueueAdapter {
  /** @internal */
  constructor(closeTimeout = CLOSE_TIMEOUT2, logger) {
    this.closeTimeout = closeTimeout;
    this.logger = logger;
    if (typeof closeTimeout !== "number" || !(closeTimeout >= 0)) {
      throw invalid(`closeTimeout of an event queue is a number of milliseconds: ${String(closeTimeout)}`);
    }
  }
  closeTimeout;
  logger;
  connected = false;
  handle;
  changes;
  events = /* @__PURE__ */ new Map();
  /** The subscriptions of this connection, by their channels; a later one has others. */
  channels = /* @__PURE__ */ new Map();
  /** Also those that were ended, while something may still come of them. */
  byNumber = /* @__PURE__ */ new Map();
  lastNumber = 0;
  whenQuiet;
  turn = Promise.resolve();
  listener = listenWeakly(this, ServerQueueAdapter.heard);
  completions = new Completions({ convert: (_, payload) => payload });
  outgoing = new Batch((...batch) => binding.serverQueuePublish(this.handle, this.completions.listener, ...batch));
  /** The server is there. */
  opened() {
  }
  isConnected() {
    return this.connected;
  }
  /** Resolves when the server can be reached, and rejects with `E_UNAVAILABLE` when it cannot within `connectTimeout`. */
  connect() {
    return this.inTurn(async () => {
      if (this.connected) return;
      const handle = this.open(this.listener);
      this.handle = handle;
      this.changes = new Uint32Array(binding.serverQueueCells(handle), 0, 1);
      try {
        await this.wait((sequence) => binding.serverQueueConnect(handle, this.completions.listener, sequence));
      } catch (error) {
        this.handle = void 0;
        await this.wait((sequence) => binding.serverQueueClose(handle, this.completions.listener, sequence));
        throw error;
      }
      this.connected = true;
      active2.add(this);
      this.opened();
      for (const [channel, event] of this.events) this.begin(channel, event);
    });
  }
  /** Stops fetching, waits for running handlers and for what was sent up to `closeTimeout`, and hands back what is unfinished then. */
  close() {
    return this.inTurn(async () => {
      const { handle } = this;
      if (!handle || !this.connected) return;
      this.connected = false;
      this.outgoing.flush();
      binding.serverQueueStop(handle);
      const channels = [...this.byNumber.values()];
      for (const channel of channels) channel.rest();
      await this.quiet(channels);
      for (const channel of channels) {
        channel.flush();
        channel.abandon();
        channel.rest();
      }
      this.handle = void 0;
      await this.wait((sequence) => binding.serverQueueClose(handle, this.completions.listener, sequence));
      this.channels.clear();
      this.byNumber.clear();
      active2.delete(this);
    });
  }
  subscribe(channel, event) {
    if (this.events.get(channel) !== event) this.unsubscribe(channel);
    this.events.set(channel, event);
    if (this.connected) this.begin(channel, event);
  }
  unsubscribe(channel) {
    this.events.delete(channel);
    this.channels.get(channel)?.unsubscribe();
    this.channels.delete(channel);
  }
  /**
   * Resolves to the message's id when the server has stored it. Rejects with `E_CLOSED` when not connected, `E_INVALID_ARGUMENT`,
   * `E_NOT_SERIALIZABLE`, and `E_UNAVAILABLE` or `E_TIMEOUT`, after which the message may be there all the same.
   */
  publish(channel, message, options) {
    const given = options ?? {};
    try {
      checkOptions(checkChannel(channel), given);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.publishChecked(channel, message, given);
  }
  /** As `publish`, with a channel and options that were checked. @internal */
  publishChecked(channel, message, options) {
    if (!this.connected) return Promise.reject(closed(`publish on channel "${channel}"`));
    let text;
    try {
      text = serialize3(channel, message, options);
    } catch (error) {
      return Promise.reject(error);
    }
    const { delay = 0, id } = options;
    const promise = this.completions.promise(channel);
    this.outgoing.add([this.completions.last, delay, id === void 0 ? 0 : 1], channel, id ?? "", text);
    return promise;
  }
  async cancel(channel, id) {
    const handle = this.opening(`cancel on channel "${channel}"`);
    return await this.wait((sequence) => binding.serverQueueCancel(handle, this.completions.listener, sequence, channel, id)) > 0;
  }
  async pause(channel) {
    const handle = this.opening(`pause channel "${channel}"`);
    await this.wait((sequence) => binding.serverQueuePause(handle, this.completions.listener, sequence, channel, true));
  }
  async resume(channel) {
    const handle = this.opening(`resume channel "${channel}"`);
    await this.wait((sequence) => binding.serverQueuePause(handle, this.completions.listener, sequence, channel, false));
  }
  async counts(channel) {
    const handle = this.opening(`count channel "${channel}"`);
    const [waiting, delayed, running, dead, paused, oldestAge] = await this.wait((sequence) => binding.serverQueueCounts(handle, this.completions.listener, sequence, channel));
    const known = (number) => number < 0 ? void 0 : number;
    return { waiting, delayed: known(delayed), running, dead, paused: paused > 0, oldestAge: known(oldestAge) };
  }
  deadLetters(channel) {
    const ask = (what, start) => this.wait((sequence) => start(this.opening(`${what} dead letters of channel "${channel}"`), this.completions.listener, sequence));
    const list = async () => {
      const letters = await ask("list", (...to) => binding.serverQueueDeadLetters(...to, channel));
      return letters.map(([id, error, text]) => {
        const [options, content] = parse3(text);
        return { id, content, options, error };
      });
    };
    return {
      count: async () => (await this.counts(channel)).dead,
      list,
      replay: async (id = "") => ask("replay", (...to) => binding.serverQueueReplay(...to, channel, id)),
      drop: async (id = "") => ask("drop", (...to) => binding.serverQueueDrop(...to, channel, id))
    };
  }
  health() {
    if (!this.handle || !this.connected) return { state: "closed" };
    const [state, reason, silent] = binding.serverQueueHealth(this.handle);
    return { state, ...reason === null ? {} : { reason }, silent };
  }
  opening(what) {
    if (!this.handle || !this.connected) throw closed(what);
    return this.handle;
  }
  begin(name, event) {
    if (this.channels.has(name)) return;
    const channel = new ServerChannel(name, ++this.lastNumber, event, this.host());
    this.channels.set(name, channel);
    this.byNumber.set(channel.number, channel);
  }
  host() {
    const adapter = this;
    return {
      handle: this.handle,
      changes: this.changes,
      listener: this.listener,
      get fetching() {
        return adapter.connected;
      },
      logger: this.logger,
      ended: () => adapter.whenQuiet?.()
    };
  }
  /** Resolves when no handler runs and all that was sent is answered, or after `closeTimeout`. */
  async quiet(channels) {
    const isQuiet = () => this.completions.size === 0 && channels.every(({ running }) => running === 0);
    if (isQuiet()) return;
    let timer;
    await new Promise((resolve) => {
      this.whenQuiet = this.completions.whenSettled = () => {
        if (isQuiet()) resolve();
      };
      if (this.closeTimeout !== Infinity) timer = setTimeout(resolve, Math.min(this.closeTimeout, 2 ** 31 - 1));
    });
    clearTimeout(timer);
    this.whenQuiet = this.completions.whenSettled = void 0;
  }
  wait(start) {
    return this.completions.wait(start);
  }
  inTurn(action) {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => void 0);
    return turn;
  }
  static heard(self, subject, value, payload) {
    self.hear(subject, value, payload);
  }
  hear(number, value, payload) {
    if (value === BEAT) {
      if (this.handle) binding.serverQueueBeat(this.handle);
      return;
    }
    if (value === LOG) {
      const [level, line] = payload;
      this.logger?.[level](line);
      return;
    }
    const channel = this.byNumber.get(number);
    if (!channel) return;
    if (value === READY) channel.ready();
    else if (value === BEGIN) channel.begin(payload);
    else if (value === TIMED_OUT) channel.timeOut(payload);
    else if (value === CANCELLED2) channel.cancel(payload);
    else if (value === GIVEN_UP) channel.giveUp(payload);
    else if (value === RESTS) channel.rest();
    else if (value === OVER) {
      channel.over();
      this.byNumber.delete(number);
    }
  }
};
var active2 = /* @__PURE__ */ new Set();
function checkOptions(channel, options) {
  if (typeof options !== "object") throw invalid(`the options of a message on channel "${channel}" are an object: ${String(options)}`);
  const { timeout, maxRetries } = options;
  checkMessage(channel, options, timeout ?? 0, maxRetries ?? 0);
}
function serialize3(channel, content, options) {
  if (typeof content === "function" || typeof content === "symbol") throw unserializable(channel);
  try {
    return JSON.stringify(content === void 0 ? [options] : [options, content]);
  } catch (cause) {
    throw unserializable(channel, cause);
  }
}
function parse3(text) {
  try {
    const parts = JSON.parse(text);
    if (Array.isArray(parts) && typeof parts[0] === "object" && parts[0] !== null) return [restore(parts[0]), parts[1]];
  } catch {
  }
  return [{}, text];
}
function closed(what) {
  return new MortiseError("E_CLOSED", `event queue not connected, cannot ${what}`);
}
function unserializable(channel, cause) {
  return new MortiseError("E_NOT_SERIALIZABLE", `the message for event queue channel ${channel} cannot be written as JSON`, { cause });
}

// lib/event-queue/server-settings.ts
var SHORTEST_LEASE = 500;
var LONGEST = 2 ** 41;
function serializeSettings({ lease, maxRun, maxStall, maxCrashes, crashCounts }) {
  const whole = (name, value, least) => {
    if (value === void 0) return void 0;
    if (typeof value !== "number" || !(value >= least)) throw invalid(`the option ${name} of an event queue is a number from ${least}: ${String(value)}`);
    return Math.min(Math.ceil(value), LONGEST);
  };
  if (crashCounts !== void 0 && typeof crashCounts !== "boolean") {
    throw invalid(`the option crashCounts of an event queue is a boolean: ${String(crashCounts)}`);
  }
  return JSON.stringify({
    lease: whole("lease", lease, SHORTEST_LEASE),
    maxRun: whole("maxRun", maxRun, 1),
    maxStall: whole("maxStall", maxStall, 1),
    maxCrashes: Math.min(whole("maxCrashes", maxCrashes, 1) ?? 5, 1e3),
    crashCounts
  });
}

// lib/event-queue/rabbitmq-adapter.ts
var KNOWN2 = ["url", "heartbeat", "connectTimeout", "commandTimeout", "consumerTimeout", "namePrefix", "tls"];
var RabbitMQEventQueueAdapter = class extends ServerQueueAdapter {
  connection;
  settings;
  /** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
  constructor(options = {}) {
    const given = typeof options === "string" ? { url: options } : options;
    if (typeof given !== "object" || given === null) {
      throw invalid(`the options of RabbitMQEventQueueAdapter are a URL or an object: ${String(given)}`);
    }
    super(given.closeTimeout, given.logger);
    const present = KNOWN2.filter((name) => given[name] !== void 0 && given[name] !== null);
    this.connection = JSON.stringify(Object.fromEntries(present.map((name) => [name, given[name]])));
    binding.rabbitQueueCheck(this.connection);
    this.settings = serializeSettings(given);
  }
  open(listener) {
    return binding.rabbitQueueOpen(this.connection, this.settings, listener, performance.now());
  }
};

// lib/event-queue/redis-adapter.ts
var RedisEventQueueAdapter = class extends ServerQueueAdapter {
  connection;
  settings;
  /** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
  constructor(options = {}) {
    const given = typeof options === "string" ? { url: options } : options;
    if (typeof given !== "object" || given === null) {
      throw invalid(`the options of RedisEventQueueAdapter are a URL or an object: ${String(given)}`);
    }
    super(given.closeTimeout, given.logger);
    this.connection = serializeOptions(given);
    binding.redisShown(this.connection);
    this.settings = serializeSettings(given);
  }
  open(listener) {
    return binding.redisQueueOpen(this.connection, this.settings, listener, performance.now());
  }
};

// lib/event-queue/queue.ts
var DEFAULT_TIMEOUT2 = 15e3;
var DEFAULT_CONCURRENCY = 1;
var DEFAULT_INTERVAL2 = 250;
var EventQueue = class {
  constructor(app, options = {}) {
    this.app = app;
    this.options = options;
    const { adapter = "memory" } = options;
    const { url, channelPrefix: _, journal, storagePath, ...settings } = options;
    if (adapter === "memory") {
      const { closeTimeout } = settings;
      this.adapter = new MemoryEventQueueAdapter({ journal, storagePath, closeTimeout, appName: app.name, logger: app.logger });
    } else if (adapter === "redis") {
      const server = typeof url === "string" ? { url } : url ?? {};
      this.adapter = new RedisEventQueueAdapter({ ...server, ...settings, logger: app.logger });
    } else if (adapter === "rabbitmq") {
      const broker = typeof url === "string" ? { url } : url ?? {};
      this.adapter = new RabbitMQEventQueueAdapter({ ...broker, ...settings, logger: app.logger });
    } else if (typeof adapter === "string") {
      const message = `event queue adapter "${adapter}" is not available in this version`;
      throw new MortiseError("E_ADAPTER_UNAVAILABLE", message);
    } else {
      this.setAdapter(adapter);
    }
  }
  app;
  options;
  adapter;
  events = /* @__PURE__ */ new Map();
  /** The full names of the channels that are subscribed. */
  names = /* @__PURE__ */ new Map();
  /** The channels that the adapter has been told of since it was connected. */
  subscribed = /* @__PURE__ */ new Set();
  /** What is being done, so that connecting and closing wait for each other. */
  turn = Promise.resolve();
  /** Runs on `adapter` from now on; before `connect`. */
  setAdapter(adapter) {
    if (adapter) {
      for (const method of ["isConnected", "connect", "close", "subscribe", "unsubscribe", "publish"]) {
        if (typeof adapter[method] !== "function") throw invalid(`an event queue adapter has the method ${method}`);
      }
    }
    this.adapter = adapter;
    this.subscribed.clear();
  }
  isConnected() {
    return Boolean(this.adapter?.isConnected());
  }
  /** The name under which the adapter knows a channel: app (not for shared ones), prefix and channel, joined by `.`. */
  getFullChannel(channel, shared3 = false) {
    return [shared3 ? void 0 : this.app.name, this.options.channelPrefix, checkChannel(channel)].filter(Boolean).join(".");
  }
  /** Connects the adapter, and subscribes the channels. May be repeated: each channel keeps one consumer. */
  async connect() {
    const { adapter } = this;
    if (!adapter) throw new MortiseError("E_NO_ADAPTER", "no adapter set, cannot connect");
    await this.inTurn(async () => {
      if (!adapter.isConnected()) {
        this.subscribed.clear();
        await adapter.connect();
      }
      for (const [channel, event] of this.events) {
        if (this.subscribed.has(channel)) continue;
        this.subscribed.add(channel);
        try {
          await adapter.subscribe(this.getFullChannel(channel, event.shared), event);
        } catch (error) {
          this.subscribed.delete(channel);
          throw error;
        }
      }
    });
  }
  /** Stops fetching, waits for running handlers, and keeps the rest. May be repeated. */
  async close() {
    await this.inTurn(async () => {
      if (this.adapter) await this.adapter.close();
    });
  }
  /** Processes the channel's messages. A second subscription of a channel is ignored, with a warning. */
  subscribe(channel, options) {
    const full = this.getFullChannel(channel, options?.shared);
    const event = checkEvent(full, options);
    if (this.events.has(channel)) {
      this.app.logger?.warn(`event queue already subscribed on channel "${channel}", the new subscription is ignored`);
      return;
    }
    this.events.set(channel, event);
    this.names.set(channel, full);
    if (!this.isConnected()) return;
    this.subscribed.add(channel);
    const failed = (error) => this.app.logger?.error(`subscribing event queue channel "${full}" failed`, error);
    try {
      Promise.resolve(this.adapter?.subscribe(full, event)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }
  /** Stops fetching the channel's messages; nothing when it is not subscribed. */
  unsubscribe(channel) {
    const event = this.events.get(channel);
    if (!event) return;
    this.events.delete(channel);
    this.names.delete(channel);
    this.subscribed.delete(channel);
    const full = this.getFullChannel(channel, event.shared);
    const failed = (error) => this.app.logger?.error(`unsubscribing event queue channel "${full}" failed`, error);
    try {
      Promise.resolve(this.adapter?.unsubscribe(full)).catch(failed);
    } catch (error) {
      failed(error);
    }
  }
  /**
   * Puts a message at the end of a channel. Resolves when the adapter has stored it, to the message's id.
   *
   * Rejects with `E_NO_ADAPTER`, `E_CLOSED` (`event queue not connected, cannot publish`),
   * `E_NOT_SUBSCRIBED`, or what the adapter rejects with: on the journal `E_NOT_SERIALIZABLE` and
   * `E_JOURNAL`; on a server `E_NOT_SERIALIZABLE`, `E_UNAVAILABLE` and `E_TIMEOUT`, where the message may have been
   * stored all the same if it was sent.
   */
  publish(channel, message, options = {}) {
    try {
      const { adapter } = this;
      if (!adapter) throw new MortiseError("E_NO_ADAPTER", "no adapter set, cannot publish");
      const full = this.names.get(checkChannel(channel));
      if (!adapter.isConnected()) throw new MortiseError("E_CLOSED", "event queue not connected, cannot publish");
      if (full === void 0) {
        throw new MortiseError("E_NOT_SUBSCRIBED", `event queue not subscribed on channel "${channel}", cannot publish`);
      }
      const { timeout = DEFAULT_TIMEOUT2, maxRetries = 0 } = options ?? {};
      checkMessage(channel, options ?? {}, timeout, maxRetries);
      const complete = { ...options, timeout, maxRetries, timestamp: Date.now() };
      if (adapter instanceof ServerQueueAdapter && adapter.publish === ServerQueueAdapter.prototype.publish) {
        return adapter.publishChecked(full, message, complete);
      }
      return Promise.resolve(adapter.publish(full, message, complete));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /**
   * Takes a message out of a channel: one that waits is removed; of one that runs, on whatever node, the `signal`
   * aborts with an `AbortError`, and it is not tried again when it fails. Resolves to whether there was one.
   */
  async cancel(channel, id) {
    if (typeof id !== "string" || id === "") throw invalid(`a message's id is a string that is not empty: ${String(id)}`);
    return this.supported("cancel", channel)(this.fullName(channel), id);
  }
  /** Stops fetching the channel's messages on all nodes, until {@link resume}. What runs goes on; publishing does too. */
  async pause(channel) {
    await this.supported("pause", channel)(this.fullName(channel));
  }
  /** Fetches again after {@link pause}. */
  async resume(channel) {
    await this.supported("resume", channel)(this.fullName(channel));
  }
  /** How much there is in a channel. */
  async counts(channel) {
    return this.supported("counts", channel)(this.fullName(channel));
  }
  /** Whether the queue works. */
  health() {
    return this.adapter?.health?.() ?? { state: this.isConnected() ? "ready" : "closed" };
  }
  inTurn(action) {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => void 0);
    return turn;
  }
  /** The dead letters of a channel: to list, replay and drop. Throws `E_UNSUPPORTED` where the adapter keeps none. */
  deadLetters(channel) {
    return this.supported("deadLetters", channel)(this.fullName(channel));
  }
  fullName(channel) {
    return this.names.get(channel) ?? this.getFullChannel(channel);
  }
  supported(method, channel) {
    const { adapter } = this;
    if (!adapter) throw new MortiseError("E_NO_ADAPTER", `no adapter set, cannot ${method === "deadLetters" ? "read dead letters" : method}`);
    if (method !== "deadLetters" && !adapter.isConnected()) throw new MortiseError("E_CLOSED", `event queue not connected, cannot ${method}`);
    if (typeof adapter[method] === "function") return adapter[method].bind(adapter);
    throw new MortiseError("E_UNSUPPORTED", `the event queue adapter has no ${method}, asked for on channel "${channel}"`);
  }
};
function checkEvent(channel, options) {
  const { process: process2, idle, concurrency = DEFAULT_CONCURRENCY, interval = DEFAULT_INTERVAL2 } = options ?? {};
  if (typeof process2 !== "function") throw invalid(`process of event queue channel "${channel}" is a function`);
  if (idle !== void 0 && typeof idle !== "function") throw invalid(`idle of event queue channel "${channel}" is a function`);
  if (typeof concurrency !== "number" || Number.isNaN(concurrency)) {
    throw invalid(`concurrency of event queue channel "${channel}" is a number: ${String(concurrency)}`);
  }
  if (typeof interval !== "number" || !(interval >= 0)) {
    throw invalid(`interval of event queue channel "${channel}" is a number of milliseconds: ${String(interval)}`);
  }
  return Object.assign(Object.create(options), { concurrency, interval });
}

// lib/lock/local-adapter.ts
var import_node_os = require("node:os");

// lib/lock/arguments.ts
var DEFAULT_TTL = 500;
function show(value) {
  return typeof value === "number" ? String(value) : value === null ? "null" : typeof value;
}
function checkKey2(key) {
  if (typeof key !== "string") throw invalid(`a lock's key must be a string, not ${show(key)}`);
}
function checkTtl2(ttl, name = "ttl") {
  if (typeof ttl !== "number" || !(ttl > 0)) {
    throw invalid(`${name} must be a number of milliseconds above 0, not ${show(ttl)}`);
  }
}
function checkTimeout(timeout) {
  if (typeof timeout !== "number" || !(timeout >= 0)) {
    throw invalid(`timeout must be a number of milliseconds, 0 or more, not ${show(timeout)}`);
  }
}
function checkFunction(fn) {
  if (typeof fn !== "function") throw invalid(`fn must be a function, not ${show(fn)}`);
}

// lib/lock/failures.ts
var classes = { LockAcquireError, LockAbortError };
function useLockErrorClasses(other) {
  Object.assign(classes, other);
}
function make(kind, code, message, key) {
  return Object.assign(new classes[kind](message), { code, key });
}
var lockFailures = {
  locked: (key) => make("LockAcquireError", "E_LOCK_LOCKED", "lock is locked", key),
  timedOut: (key) => make("LockAcquireError", "E_LOCK_TIMEOUT", "lock acquire timed out", key),
  notActive: (key) => make("LockAcquireError", "E_LOCK_NOT_ACTIVE", "lock is not active", key),
  closed: (key) => make("LockAbortError", "E_LOCK_ABORTED", `lock "${key}" was not acquired: its adapter was closed`, key),
  lapsed: (key) => make("LockAbortError", "E_LOCK_ABORTED", `lock "${key}" has lapsed while it was held`, key),
  lost: (key) => make("LockAbortError", "E_LOCK_ABORTED", `lock "${key}" was lost: the server could not be reached in time, or does not know it any more`, key),
  overheld: (key) => make("LockAbortError", "E_LOCK_ABORTED", `lock "${key}" was held for longer than maxHold`, key),
  /** The server could not be asked, or refused: its error, which tells the key too. */
  failed: (key, cause) => {
    const { code, message } = cause;
    return Object.assign(new MortiseError(code, `lock "${key}": ${message}`, { cause }), { key });
  }
};

// lib/lock/exclusive.ts
var Exclusive = class {
  #grant;
  #key;
  #watched;
  #controller;
  #lost;
  /** `watched`: someone calls {@link Exclusive.lapse} already; else it is seen to when needed. */
  constructor(grant, key, watched2) {
    this.#grant = grant;
    this.#key = key;
    this.#watched = watched2;
  }
  get fencingToken() {
    return this.#grant.token;
  }
  get signal() {
    if (!this.#controller) {
      this.#controller = new AbortController();
      if (!this.#watched) {
        this.#watched = true;
        if (!this.#grant.watch((why) => this.lapse(why))) this.lapse();
      }
      if (this.#lost) this.lapse(this.#lost);
    }
    return this.#controller.signal;
  }
  /** The lease has ended, for that reason. */
  lapse(why = lockFailures.lapsed(this.#key)) {
    this.#lost = why;
    this.#controller?.abort(why);
  }
  /** Runs a function that holds the lock, and releases it when the function has settled. */
  async run(fn) {
    try {
      return await fn(this);
    } finally {
      if (this.#watched) this.#grant.unwatch();
      this.#watched = true;
      const released = this.#grant.release();
      if (released) await released;
    }
  }
};

// lib/lock/grant.ts
function releaser(grant) {
  const release2 = () => grant.release();
  release2.fencingToken = grant.token;
  return release2;
}
function describeHolder([key, node, since, left, waiters, fencingToken]) {
  return { key, node, since, ttl: left < 0 ? Infinity : left, waiters, fencingToken };
}

// lib/lock/key-lock.ts
var KeyLock = class {
  #key;
  #request;
  #grant;
  #reserved = true;
  constructor(key, grant, request2) {
    this.#key = key;
    this.#grant = grant;
    this.#request = request2;
  }
  get fencingToken() {
    return this.#grant.token;
  }
  async acquire(ttl = DEFAULT_TTL) {
    return releaser(await this.#lease(ttl));
  }
  async runExclusive(fn, ttl = DEFAULT_TTL) {
    checkFunction(fn);
    return new Exclusive(await this.#lease(ttl), this.#key, false).run(fn);
  }
  async extend(ttl) {
    checkTtl2(ttl);
    if (this.#reserved || !await this.#grant.extend(ttl)) throw lockFailures.notActive(this.#key);
  }
  async release() {
    this.#reserved = false;
    await this.#grant.release();
  }
  async #lease(ttl) {
    checkTtl2(ttl);
    if (this.#reserved) {
      this.#reserved = false;
      if (await this.#grant.extend(ttl)) return this.#grant;
    }
    this.#grant = await this.#request(this.#key, ttl);
    return this.#grant;
  }
};

// lib/lock/local-locks.ts
var { lockRequest, lockRelease, lockExtend, lockWatch } = binding;
var GRANTED = 1;
var WAITING = 2;
var HANDED_OVER = 2;
var TIMED_OUT2 = -1;
var LocalGrant = class {
  constructor(slot, token) {
    this.slot = slot;
    this.token = token;
  }
  slot;
  token;
  release() {
    if (lockRelease(locks, this.slot, this.token) === HANDED_OVER) handOver(cells[1], cells[0]);
  }
  extend(ttl) {
    return lockExtend(locks, this.slot, this.token, ttl);
  }
  /** Calls `lapsed` when the lease lapses, until {@link unwatch}; false when it has ended already. */
  watch(lapsed) {
    const held3 = lockWatch(locks, this.slot, this.token);
    if (held3) watched.set(this.token, lapsed);
    return held3;
  }
  unwatch() {
    watched.delete(this.token);
  }
};
var waits = /* @__PURE__ */ new Map();
var watched = /* @__PURE__ */ new Map();
var locks = binding.lockJoin(listen(hear));
var cells = new Float64Array(binding.lockCells(locks));
function request(by, key, wait, ttl, convert, watch = false) {
  const answer = lockRequest(locks, key, wait, ttl, watch);
  if (answer === GRANTED) return convert(new LocalGrant(cells[0], cells[1]), key);
  if (answer !== WAITING) throw lockFailures.locked(key);
  const place = new LocalGrant(cells[0], cells[1]);
  hold();
  return new Promise((resolve, reject) => {
    waits.set(place.token, { place, key, by, convert, resolve, reject });
  });
}
function cancelWaits(by) {
  const cancelled = [...waits.values()].filter((wait) => wait.by === by);
  for (const wait of cancelled) settled(wait.place.token);
  for (const wait of cancelled) {
    wait.place.release();
    wait.reject(lockFailures.closed(wait.key));
  }
}
function settled(token) {
  waits.delete(token);
  release();
}
function handOver(token, slot) {
  const wait = waits.get(token);
  if (!wait) return;
  settled(token);
  wait.resolve(wait.convert(slot === wait.place.slot ? wait.place : new LocalGrant(slot, token), wait.key));
}
function hear(token, news) {
  if (news >= 0) return handOver(token, news);
  if (news === TIMED_OUT2) {
    const wait = waits.get(token);
    if (!wait) return;
    settled(token);
    return wait.reject(lockFailures.timedOut(wait.key));
  }
  const lapsed = watched.get(token);
  watched.delete(token);
  lapsed?.();
}
function onLapse(grant, lapsed) {
  watched.set(grant.token, lapsed);
}

// lib/lock/local-adapter.ts
var RESERVATION = 6e4;
var MAX_HOLD = 6e5;
var processWarnings = { warn: (message) => process.emitWarning(message, "MortiseWarning") };
var LocalLockAdapter = class {
  #maxHold;
  #logger;
  constructor(options = {}) {
    const { maxHold = MAX_HOLD, logger = processWarnings } = options ?? {};
    checkTtl2(maxHold, "maxHold");
    this.#maxHold = maxHold;
    this.#logger = logger;
  }
  /** How many keys are held in this process. */
  static get keys() {
    return binding.lockKeys();
  }
  /** Bytes of native memory that the process's locks take. */
  static get bytes() {
    return binding.lockBytes();
  }
  async connect() {
  }
  /** What waits by this adapter rejects with `E_LOCK_ABORTED`; what is held stays so until it is released or lapses. */
  async close() {
    cancelWaits(this);
  }
  /** Waits for `key`, and holds it for at most `ttl` milliseconds. */
  acquire(key, ttl) {
    try {
      checkKey2(key);
      checkTtl2(ttl);
      return Promise.resolve(request(this, key, Infinity, ttl, releaser));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /** Runs `fn` while `key` is held, for as long as `fn` takes up to `maxHold`. */
  async runExclusive(key, fn, ttl) {
    checkKey2(key);
    checkFunction(fn);
    checkTtl2(ttl);
    const got = request(this, key, Infinity, this.#maxHold, this.#begin, true);
    const exclusive = got instanceof Exclusive ? got : await got;
    return exclusive.run(fn);
  }
  /** Tries for `key`, for `timeout` milliseconds at most; with 0 it is decided before the call returns. */
  tryAcquire(key, timeout = 0) {
    try {
      checkKey2(key);
      checkTimeout(timeout);
      return Promise.resolve(request(this, key, timeout, RESERVATION, this.#reserve));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /** The keys that are held in this process. */
  holders() {
    return binding.lockHolders(`${(0, import_node_os.hostname)()}:${process.pid}`).map(describeHolder);
  }
  #again = (key, ttl) => request(this, key, Infinity, ttl, itself);
  #reserve = (grant, key) => new KeyLock(key, grant, this.#again);
  // The lease needs no renewal: who could renew it and who holds it end together.
  #begin = (grant, key) => {
    const exclusive = new Exclusive(grant, key, true);
    onLapse(grant, () => {
      exclusive.lapse();
      this.#logger.warn(`lock "${key}" has lapsed: it was held for longer than maxHold (${this.#maxHold} ms)`);
    });
    return exclusive;
  };
};
var itself = (grant) => grant;

// lib/lock/redis-adapter.ts
var import_node_os2 = require("node:os");

// lib/lock/redis-locks.ts
var REFUSED = -1;
var TIMED_OUT3 = -2;
var LOST2 = -4;
var OVERHELD = -5;
var FAILED2 = -6;
var REQUEST = 0;
var RELEASE = 1;
var EXTEND = 2;
var SHORT = 100;
var LATE = 3;
var RETIRED = -1;
var forRust = (milliseconds) => milliseconds === Infinity ? -1 : milliseconds;
var Wait = class {
  constructor(wish, end, resolve, reject) {
    this.wish = wish;
    this.end = end;
    this.resolve = resolve;
    this.reject = reject;
  }
  wish;
  end;
  resolve;
  reject;
  /** How often it was granted and had lapsed when that was heard. */
  late = 0;
};
var RedisGrant = class {
  constructor(locks2, key, number, token) {
    this.locks = locks2;
    this.key = key;
    this.number = number;
    this.token = token;
  }
  locks;
  key;
  number;
  token;
  /** Resolves when the server has it; also when the server is away, for the lease ends by itself. */
  release() {
    return this.locks.release(this);
  }
  extend(ttl) {
    return this.locks.extend(this, ttl);
  }
  watch(lapsed) {
    const held3 = this.locks.isHeld(this);
    if (held3) this.onEnd(lapsed);
    return held3;
  }
  /** As {@link watch}, for a lease that was granted just now. */
  onEnd(ended) {
    this.locks.watched.set(this.number, (value) => ended(ending(this.key, value)));
  }
  unwatch() {
    this.locks.watched.delete(this.number);
  }
};
var RedisLocks = class {
  /** `options` is the connection's, as JSON. Begins to connect. */
  constructor(options, app, node, gracePeriod, line) {
    this.line = line;
    this.handle = binding.redisLockOpen(options, app, node, gracePeriod, this.listener, this.healthListener);
    this.next = binding.redisLockBase(this.handle);
  }
  line;
  /** Who hears of the end of a lease, by its number. */
  watched = /* @__PURE__ */ new Map();
  waits = /* @__PURE__ */ new Map();
  handle;
  answers = new Completions({ convert: (value, payload) => payload ?? value === 1 });
  listener = listen((number, value, payload) => this.hear(number, value, payload));
  healthListener = listen((_, __, payload) => this.changed(describeHealth(payload)));
  batch = new Batch((...batch) => binding.redisLockSubmit(this.handle, this.answers.listener, ...batch));
  state;
  warned = false;
  closed = false;
  retired = false;
  next;
  /** Resolves when locks are granted; rejects with `E_UNAVAILABLE` when the server cannot be reached. */
  ready() {
    return this.answers.wait((sequence) => binding.redisLockReady(this.handle, this.answers.listener, sequence));
  }
  request(wish) {
    return new Promise((resolve, reject) => {
      hold();
      const end = wish.wait === 0 || wish.wait === Infinity ? wish.wait : performance.now() + wish.wait;
      this.ask(new Wait(wish, end, resolve, reject), wish.wait);
    });
  }
  release(grant) {
    this.watched.delete(grant.number);
    if (this.retired) return Promise.resolve();
    const released = this.answers.promise("", RELEASED);
    this.batch.add([RELEASE, grant.number, this.answers.last], grant.key);
    return released;
  }
  extend(grant, ttl) {
    if (this.retired) return Promise.resolve(false);
    const extended = this.answers.promise(grant.key, EXTENDED);
    this.batch.add([EXTEND, grant.number, this.answers.last, forRust(ttl), forRust(ttl)], "");
    return extended;
  }
  isHeld(grant) {
    return binding.redisLockIsHeld(this.handle, grant.number);
  }
  async holders() {
    this.batch.flush();
    const found = await this.answers.wait((sequence) => binding.redisLockHolders(this.handle, this.answers.listener, sequence));
    return found.map(describeHolder);
  }
  /** Rejects all that waits; what is held stays so until it is released or its lease ends. */
  close() {
    this.batch.flush();
    this.closed = true;
    for (const wait of this.waits.values()) {
      release();
      wait.reject(lockFailures.closed(wait.wish.key));
    }
    binding.redisLockClose(this.handle, this.listener);
  }
  ask(wait, time) {
    const { key, lease, hold: hold2 } = wait.wish;
    const number = this.next++;
    this.waits.set(number, wait);
    this.batch.add([REQUEST, number, forRust(time), forRust(lease), forRust(hold2)], key);
  }
  hear(number, value, payload) {
    if (number === RETIRED) return this.retire();
    const wait = this.waits.get(number);
    if (wait) {
      this.waits.delete(number);
      if (this.closed) {
        if (value >= 0) void new RedisGrant(this, wait.wish.key, number, value).release();
        return;
      }
      if (value >= 0) return this.granted(wait, number, value);
      release();
      return wait.reject(refusal(wait.wish.key, value, payload));
    }
    const ended = this.watched.get(number);
    this.watched.delete(number);
    ended?.(value);
  }
  granted(wait, number, token) {
    const { wish, end } = wait;
    const grant = new RedisGrant(this, wish.key, number, token);
    if (wish.lease < SHORT || wait.late >= LATE || this.isHeld(grant)) {
      release();
      return wait.resolve(wish.convert(grant, wish.key));
    }
    wait.late++;
    void grant.release();
    this.ask(wait, end === 0 ? 0 : Math.max(1, end - performance.now()));
  }
  changed(health) {
    const before = this.state;
    if (health.state === before) return;
    this.state = health.state;
    const line = lineOf(before, health);
    if (line) this.line(...line);
    const { evictionPolicy: policy } = health;
    if (health.state !== "ready" || this.warned || policy === void 0 || policy === "noeviction") return;
    this.warned = true;
    this.line("warn", `${health.server} may evict keys (maxmemory-policy ${policy}), and locks among them; it should be noeviction`);
  }
  retire() {
    this.retired = true;
    unlisten(this.listener);
    unlisten(this.healthListener);
    this.answers.end();
  }
};
var RELEASED = { convert: () => void 0, recover: () => void 0 };
var EXTENDED = {
  convert: (value) => value === 1,
  recover: (error, key) => {
    throw lockFailures.failed(key, error);
  }
};
function refusal(key, value, payload) {
  if (value === REFUSED) return lockFailures.locked(key);
  if (value === TIMED_OUT3) return lockFailures.timedOut(key);
  return value === FAILED2 ? lockFailures.failed(key, payload) : lockFailures.lost(key);
}
function ending(key, value) {
  if (value === OVERHELD) return lockFailures.overheld(key);
  return value === LOST2 ? lockFailures.lost(key) : lockFailures.lapsed(key);
}

// lib/lock/redis-adapter.ts
var RESERVED_LEASE = 5e3;
var GRACE_PERIOD = 2e3;
var RedisLockAdapter = class {
  #options;
  #app;
  #gracePeriod;
  #maxHold;
  #logger;
  #locks;
  /** A URL, or options. Throws a `TypeError` that names the option when they are wrong. Connects on first use. */
  constructor(options = {}) {
    const { app = "main", maxHold = MAX_HOLD, gracePeriod = GRACE_PERIOD, logger } = typeof options === "string" ? {} : options ?? {};
    if (typeof app !== "string" || app === "") throw invalid(`app must be a string that is not empty: ${String(app)}`);
    checkTtl2(maxHold, "maxHold");
    checkTtl2(gracePeriod, "gracePeriod");
    this.#options = checkOptions2(options ?? {});
    this.#app = app;
    this.#maxHold = maxHold;
    this.#gracePeriod = gracePeriod;
    this.#logger = logger ?? processWarnings;
  }
  /** Resolves when the server grants locks; rejects with `E_UNAVAILABLE` when it cannot be reached within `connectTimeout`. May be repeated. */
  async connect() {
    await this.#open().ready();
  }
  /**
   * What waits by this adapter rejects with `E_LOCK_ABORTED`; what is held stays so until it is released
   * or lapses, and then the connection ends. The next use connects again. May be repeated.
   */
  async close() {
    const locks2 = this.#locks;
    this.#locks = void 0;
    locks2?.close();
  }
  /** Waits for `key`, and holds it for at most `ttl` milliseconds. */
  acquire(key, ttl) {
    try {
      checkKey2(key);
      checkTtl2(ttl);
      return this.#open().request({ key, wait: Infinity, lease: ttl, hold: ttl, convert: releaser });
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /** Runs `fn` while `key` is held, and renews the lease of `ttl` for as long as `fn` takes up to `maxHold`. */
  async runExclusive(key, fn, ttl) {
    checkKey2(key);
    checkFunction(fn);
    checkTtl2(ttl);
    const lease = Math.min(ttl, this.#maxHold);
    const exclusive = await this.#open().request({ key, wait: Infinity, lease, hold: this.#maxHold, convert: this.#begin });
    return exclusive.run(fn);
  }
  /** Tries for `key`, for `timeout` milliseconds at most. */
  tryAcquire(key, timeout = 0) {
    try {
      checkKey2(key);
      checkTimeout(timeout);
      return this.#open().request({ key, wait: timeout, lease: RESERVED_LEASE, hold: RESERVATION, convert: this.#reserve });
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /** The keys that are held now, on all nodes. Scans the server's keys. */
  async holders() {
    return this.#open().holders();
  }
  #open() {
    this.#locks ??= new RedisLocks(this.#options, this.#app, `${(0, import_node_os2.hostname)()}:${process.pid}`, this.#gracePeriod, (level, text) => this.#tell(level, text));
    return this.#locks;
  }
  #tell(level, text) {
    this.#logger[level]?.(text);
  }
  #again = (key, ttl) => this.#open().request({ key, wait: Infinity, lease: ttl, hold: ttl, convert: (grant) => grant });
  #reserve = (grant, key) => new KeyLock(key, grant, this.#again);
  #begin = (grant, key) => {
    const exclusive = new Exclusive(grant, key, true);
    grant.onEnd((why) => {
      exclusive.lapse(why);
      this.#logger.warn(why.message);
    });
    return exclusive;
  };
};
function checkOptions2(options) {
  const serialized = serializeOptions(options);
  binding.redisShown(serialized);
  return serialized;
}

// lib/lock/manager.ts
var KNOWN3 = ["app", "defaultAdapter", "gracePeriod", "logger", "maxHold", "redis", "url"];
var LockManager = class {
  #name;
  #registry = /* @__PURE__ */ new Map();
  /** What `'redis'` is unless somebody registers another, as plugins of NocoBase do. */
  #redis;
  /** The connected adapter. */
  #adapter;
  #connecting;
  constructor(options = {}) {
    const unknown = Object.keys(options).filter((name) => !KNOWN3.includes(name));
    if (unknown.length > 0) {
      throw invalid(`unknown option of LockManager: ${unknown.join(", ")}; known are ${KNOWN3.join(", ")}`);
    }
    const { app, defaultAdapter, gracePeriod, logger, maxHold, redis, url = redis } = options;
    if (defaultAdapter != null && typeof defaultAdapter !== "string") {
      throw invalid("defaultAdapter must be the name of a lock adapter");
    }
    if (maxHold !== void 0) checkTtl2(maxHold, "maxHold");
    this.#name = defaultAdapter || "local";
    this.registerAdapter("local", { Adapter: LocalLockAdapter, options: { logger, maxHold } });
    const server = typeof url === "string" ? { url } : url;
    this.#redis = { Adapter: RedisLockAdapter, options: { ...server, app, gracePeriod, logger, maxHold } };
  }
  /** Whose locks they are, and where lapses are reported, from the next connect on. @internal */
  belongTo(app, logger) {
    Object.assign(this.#redis.options, { app, logger });
    const local = this.#registry.get("local")?.options;
    if (local) local.logger = logger;
  }
  /** Makes an adapter known. A name that is taken throws. */
  registerAdapter(name, config) {
    if (typeof config?.Adapter !== "function") throw invalid(`the lock adapter "${name}" needs a class as its Adapter`);
    if (this.#registry.has(name)) {
      const message = `this registry does not allow to override existing keys: "${name}"`;
      throw new MortiseError("E_ADAPTER_EXISTS", message);
    }
    this.#registry.set(name, config);
  }
  /**
   * Waits for `key`, first come, first served, and holds it for at most `ttl` milliseconds: then
   * it lapses and the next is let in. Fractions are rounded up; `Infinity` is for ever.
   * @param ttl defaults to 500
   * @returns the function that releases it
   */
  acquire(key, ttl = DEFAULT_TTL) {
    try {
      checkKey2(key);
      checkTtl2(ttl);
      const adapter = this.#adapter;
      if (adapter) return Promise.resolve(adapter.acquire(key, ttl));
      return this.#first((adapter2) => adapter2.acquire(key, ttl));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /**
   * Runs `fn` while `key` is held, and releases it when `fn` settles. The lease of `ttl`
   * milliseconds is renewed while `fn` runs, for no longer than `maxHold`: then the lock lapses
   * and `signal` aborts.
   * @param ttl defaults to 500
   * @returns what `fn` returns
   */
  runExclusive(key, fn, ttl = DEFAULT_TTL) {
    try {
      checkKey2(key);
      checkFunction(fn);
      checkTtl2(ttl);
      const adapter = this.#adapter;
      if (adapter) return Promise.resolve(adapter.runExclusive(key, fn, ttl));
      return this.#first((adapter2) => adapter2.runExclusive(key, fn, ttl));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /**
   * Tries for `key` without waiting, or for at most `timeout` milliseconds.
   * @param timeout defaults to 0: on the local adapter it is decided before the call returns
   * @throws LockAcquireError `E_LOCK_LOCKED` without a timeout, `E_LOCK_TIMEOUT` after one
   */
  tryAcquire(key, timeout = 0) {
    try {
      checkKey2(key);
      checkTimeout(timeout);
      const adapter = this.#adapter;
      if (adapter) return Promise.resolve(adapter.tryAcquire(key, timeout));
      return this.#first((adapter2) => adapter2.tryAcquire(key, timeout));
    } catch (error) {
      return Promise.reject(error);
    }
  }
  /**
   * The keys that are held now: on the local adapter in this process, on Redis on all nodes of the app.
   *
   * Rejects with `E_UNSUPPORTED` when the adapter cannot tell.
   */
  async holders() {
    const list = (adapter) => {
      if (adapter.holders) return adapter.holders();
      throw new MortiseError("E_UNSUPPORTED", `lock adapter "${this.#name}" does not tell who holds what`);
    };
    return this.#adapter ? list(this.#adapter) : this.#first(list);
  }
  /** Closes the adapter, if one is in use. May be repeated. */
  async close() {
    const connecting = this.#connecting;
    const adapter = this.#adapter;
    this.#connecting = void 0;
    this.#adapter = void 0;
    await (adapter ?? await connecting?.catch(() => void 0))?.close();
  }
  /** A call before the adapter is there. The local one needs no connection, so the call is not put off. */
  #first(call) {
    const config = this.#config();
    if (config.Adapter !== LocalLockAdapter) return (this.#connecting ??= this.#connect(config)).then(call);
    this.#adapter = new LocalLockAdapter(config.options);
    return Promise.resolve(call(this.#adapter));
  }
  #connect({ Adapter, options }) {
    const adapter = new Adapter(options);
    const connecting = Promise.resolve(adapter.connect()).then(
      () => {
        if (this.#connecting === connecting) this.#adapter = adapter;
        return adapter;
      },
      async (error) => {
        if (this.#connecting === connecting) this.#connecting = void 0;
        await (async () => adapter.close())().catch(() => void 0);
        throw error;
      }
    );
    return connecting;
  }
  #config() {
    const config = this.#registry.get(this.#name);
    if (config) return config;
    if (this.#name === "redis") return this.#redis;
    throw new MortiseError("E_ADAPTER_NOT_REGISTERED", `Lock adapter "${this.#name}" not registered`);
  }
};

// lib/pub-sub/manager.ts
var import_node_crypto3 = require("node:crypto");

// lib/pub-sub/gap.ts
var REASONS = ["trimmed", "replaced", "disconnected"];
function reasonOf(number) {
  return REASONS[number - 1] ?? "disconnected";
}
function numberOf(reason) {
  return REASONS.indexOf(reason) + 1 || REASONS.length;
}

// lib/pub-sub/outgoing.ts
var completions = new Completions();
function waitFor(start) {
  return completions.wait((sequence) => {
    if (start(completions.listener, sequence)) completions.settle(sequence, 0, void 0);
  });
}
var Outgoing = class {
  part;
  sequence = 0;
  batch;
  /** `publish` hands a part over; the listener is told when all of it is published, or that it is not. */
  constructor(publish) {
    this.batch = new Batch((...batch) => {
      const { sequence } = this;
      this.part = void 0;
      try {
        publish(completions.listener, sequence, ...batch);
      } catch (error) {
        completions.settle(sequence, 0, error);
      }
    });
  }
  /** Adds a message. The promise is that of its part; nobody needs to wait for it. */
  add(values, channel, text) {
    const part = this.part ?? this.begin();
    this.batch.add(values, channel, text);
    return part;
  }
  /** Hands over what has been added. */
  flush() {
    this.batch.flush();
  }
  begin() {
    const part = completions.promise();
    part.catch(() => void 0);
    this.part = part;
    this.sequence = completions.last;
    return part;
  }
};
function unpublished(error, channel) {
  const { code, message } = error;
  if (typeof code !== "string" || code === "E_INVALID_ARGUMENT") return error;
  return new MortiseError(code, `publishing on ${channel}: ${message}`, { cause: error });
}

// lib/pub-sub/native-adapter.ts
var connected = /* @__PURE__ */ new Set();
var NativePubSubAdapter = class NativePubSubAdapter {
  /** @internal */
  constructor(member, takesAtOnce) {
    this.member = member;
    this.takesAtOnce = takesAtOnce;
    this.outgoing = new Outgoing((...part) => binding.busPublish(member, ...part));
  }
  member;
  takesAtOnce;
  connected = false;
  /** Grows with each call of `connect` and `close`, so that the last one counts. */
  turn = 0;
  hearings = /* @__PURE__ */ new Map();
  byId = /* @__PURE__ */ new Map();
  listener;
  nextId = 0;
  outgoing;
  isConnected() {
    return this.connected;
  }
  async connect() {
    const turn = ++this.turn;
    await waitFor((listener, sequence) => binding.busConnect(this.member, listener, sequence));
    if (turn !== this.turn) return;
    this.connected = true;
    connected.add(this);
  }
  /** Nothing is heard from the call on; resolves when what was published before is settled. May be repeated. */
  async close() {
    this.turn++;
    this.outgoing.flush();
    this.connected = false;
    connected.delete(this);
    await waitFor((listener, sequence) => binding.busClose(this.member, listener, sequence));
  }
  /** Resolves when the channel is heard: what is published from then on reaches `callback`. */
  async subscribe(channel, callback, options = {}) {
    const present = this.hearings.get(channel);
    if (present) {
      present.callbacks.set(callback, options?.onGap);
      return present.ready;
    }
    this.listener ??= listenWeakly(this, NativePubSubAdapter.heard);
    const { listener: hears } = this;
    const id = this.nextId++;
    const ready = waitFor((listener, sequence) => binding.busSubscribe(this.member, channel, hears, id, listener, sequence));
    const hearing = { id, callbacks: /* @__PURE__ */ new Map([[callback, options?.onGap]]), ready };
    this.hearings.set(channel, hearing);
    this.byId.set(id, hearing);
    try {
      await ready;
    } catch (error) {
      if (this.hearings.get(channel) === hearing) this.forget(channel, hearing);
      throw error;
    }
  }
  async unsubscribe(channel, callback) {
    const hearing = this.hearings.get(channel);
    if (!hearing?.callbacks.delete(callback) || hearing.callbacks.size > 0) return;
    this.forget(channel, hearing);
    await waitFor((listener, sequence) => binding.busUnsubscribe(this.member, channel, listener, sequence));
  }
  /** Resolves when the carrier has the text. Rejects with `E_CLOSED` when the adapter is not connected. */
  async publish(channel, text) {
    if (!this.connected) {
      throw new MortiseError("E_CLOSED", `the pub/sub adapter is not connected, cannot publish on ${channel}`);
    }
    try {
      await this.outgoing.add([], channel, text);
    } catch (error) {
      throw unpublished(error, channel);
    }
  }
  forget(channel, hearing) {
    this.hearings.delete(channel);
    this.byId.delete(hearing.id);
  }
  static heard(self, id, gap, text) {
    self.hear(id, gap, text);
  }
  hear(id, gap, text) {
    if (!this.connected) return;
    for (const [callback, onGap] of this.byId.get(id)?.callbacks ?? []) {
      if (gap === 0) void callback(text);
      else void onGap?.({ reason: reasonOf(gap) });
    }
  }
};

// lib/pub-sub/memory-adapter.ts
var MemoryPubSubAdapter = class extends NativePubSubAdapter {
  /** `bus`: who hears each other; default one for the process. */
  constructor(options = {}) {
    super(binding.memoryBusJoin(options.bus ?? ""), true);
  }
};

// lib/pub-sub/redis-adapter.ts
function warn({ logger, what }, _, gap) {
  logger?.warn(`${what}: messages may have been missed (${reasonOf(gap)})`);
}
var MAX_LENGTH = 1e4;
var MAX_AGE = 6e5;
var RedisPubSubAdapter = class extends NativePubSubAdapter {
  use;
  /** Its listener lives as long. */
  told;
  /** A URL, or options. Throws a `TypeError` that names the option when one is wrong. */
  constructor(options = {}) {
    const given = typeof options === "string" ? { url: options } : options;
    const { app, delivery, maxLength, maxAge } = check(given);
    const serialized = serializeOptions(given);
    const what = `pub/sub of app ${app} on ${binding.redisShown(serialized)}`;
    const told = { logger: given.logger, what, delivery, warned: false };
    const listener = listenWeakly(told, warn);
    super(binding.redisBusJoin(serialized, app, delivery === "volatile", maxLength, maxAge, listener), false);
    this.told = told;
    this.use = shareConnection(given, "plain", given.logger);
  }
  async connect() {
    const connection = this.use.connection();
    try {
      await super.connect();
      this.warnOfEviction(connection.health().evictionPolicy);
    } finally {
      if (!this.isConnected()) this.use.release();
    }
  }
  async close() {
    await super.close();
    if (!this.isConnected()) this.use.release();
  }
  /** The log lives for ever, so only these policies may take it. */
  warnOfEviction(policy = "") {
    const { told } = this;
    if (!policy.startsWith("allkeys") || told.delivery === "volatile" || told.warned) return;
    told.warned = true;
    told.logger?.warn(`${told.what}: the server may evict the log (maxmemory-policy ${policy}), which is a gap`);
  }
};
function check(options) {
  if (typeof options !== "object" || options === null) throw invalid(`the options of RedisPubSubAdapter are a URL or an object: ${String(options)}`);
  const { app = "main", delivery = "log", maxLength = MAX_LENGTH, maxAge = MAX_AGE } = options;
  if (typeof app !== "string" || app === "") throw invalid(`the option app of pub/sub is a string that is not empty: ${String(app)}`);
  if (delivery !== "log" && delivery !== "volatile") throw invalid(`the option delivery of pub/sub is 'log' or 'volatile': ${String(delivery)}`);
  if (!Number.isSafeInteger(maxLength) || maxLength < 1) throw invalid(`the option maxLength of pub/sub is a whole number from 1: ${String(maxLength)}`);
  if (typeof maxAge !== "number" || !(maxAge >= 1)) throw invalid(`the option maxAge of pub/sub is a number of milliseconds from 1: ${String(maxAge)}`);
  return { app, delivery, maxLength, maxAge: Math.min(maxAge, 2 ** 41) };
}

// lib/pub-sub/manager.ts
var flagsOf = (skipSelf, onlySelf, absent) => flag(skipSelf) | flag(onlySelf) << 2 | (absent ? 16 : 0);
var flag = (value) => value === void 0 || value === null ? 0 : value ? 1 : 2;
var PubSubManager = class PubSubManager {
  constructor(app, options = {}) {
    this.app = app;
    this.options = options;
    const listener = listenWeakly(this, PubSubManager.heard);
    const handle = binding.pubSubNew(this.publisherId, listener);
    this.handle = handle;
    const manager = this;
    this.handlerManager = {
      uniqueMessageHandlers: { get size() {
        return binding.pubSubOpenWindows(handle);
      } },
      get handlers() {
        return manager.callbacks();
      }
    };
    const { adapter } = options;
    if (adapter === "memory") this.setAdapter(new MemoryPubSubAdapter({ bus: options.bus }));
    else if (adapter === "redis") this.setAdapter(redisAdapter(app, options));
    else if (typeof adapter === "string") throw unavailable2(adapter);
    else if (adapter) this.setAdapter(adapter);
  }
  app;
  options;
  /** Tells this manager's messages from those of others. */
  publisherId = (0, import_node_crypto3.randomUUID)();
  /** `uniqueMessageHandlers.size` is the number of open debounce windows; `handlers` are the callbacks by channel. */
  handlerManager;
  adapter;
  handle;
  byId = /* @__PURE__ */ new Map();
  byChannel = /* @__PURE__ */ new Map();
  /** The channels heard through an adapter written in JavaScript. */
  heard = /* @__PURE__ */ new Map();
  /** What {@link getFullChannel} gave last. */
  last = { channel: "", name: void 0, full: "" };
  open = false;
  nextId = 0;
  turn = Promise.resolve();
  outgoing = new Outgoing((...part) => {
    const { adapter } = this;
    if (!(adapter instanceof NativePubSubAdapter)) throw new MortiseError("E_CLOSED", "the pub/sub adapter was replaced");
    binding.pubSubPublish(this.handle, adapter.member, ...part);
  });
  /** The default of `skipSelf` when publishing. */
  get skipSelf() {
    return this.options.skipSelf ?? false;
  }
  /** The name under which the adapter knows a channel: app, prefix and channel, joined by `.`. */
  getFullChannel(channel) {
    const { name } = this.app;
    const { last } = this;
    if (channel !== "" && last.channel === channel && last.name === name) return last.full;
    const full = [name, this.options.channelPrefix, checkChannel2(channel)].filter(Boolean).join(".");
    this.last = { channel, name, full };
    return full;
  }
  /** Uses `adapter`; before `connect`. */
  setAdapter(adapter) {
    for (const method of ["isConnected", "connect", "close", "subscribe", "unsubscribe", "publish"]) {
      if (typeof adapter?.[method] !== "function") throw invalid(`a pub/sub adapter has the method ${method}`);
    }
    this.adapter = adapter;
    this.heard.clear();
  }
  /** Whether messages can be published. */
  async isConnected() {
    return this.open && this.adapter !== void 0 && Boolean(await this.adapter.isConnected());
  }
  /** Connects the adapter, and hears what is subscribed. Nothing without an adapter. May be repeated. */
  connect() {
    return this.inTurn(async () => {
      const { adapter } = this;
      if (!adapter) return;
      if (!await adapter.isConnected()) await adapter.connect();
      this.open = true;
      connected2.add(this);
      for (const channel of this.byChannel.keys()) await this.hear(channel);
    });
  }
  /** Nothing is delivered from the call on; open debounce windows are cancelled. May be repeated. */
  close() {
    this.outgoing.flush();
    this.open = false;
    connected2.delete(this);
    binding.pubSubCancelWindows(this.handle);
    return this.inTurn(async () => {
      this.heard.clear();
      if (this.adapter && await this.adapter.isConnected()) await this.adapter.close();
      binding.pubSubCancelWindows(this.handle);
    });
  }
  /**
   * Calls `callback` with each message on the channel, parsed anew for each subscription. The same
   * callback on the same channel again replaces the earlier subscription.
   */
  async subscribe(channel, callback, options = {}) {
    if (typeof callback !== "function") throw invalid(`the callback for channel ${String(channel)} is a function`);
    const window = options?.debounce ?? 0;
    if (typeof window !== "number" || !(window >= 0)) {
      throw invalid(`the debounce of channel ${String(channel)} is a number of milliseconds: ${String(window)}`);
    }
    const onGap = options?.onGap;
    if (onGap !== void 0 && typeof onGap !== "function") throw invalid(`the onGap of channel ${String(channel)} is a function`);
    const full = this.getFullChannel(channel);
    this.forget(full, callback);
    const subscription = { id: this.nextId++, channel: full, name: channel, callback, onGap };
    this.byId.set(subscription.id, subscription);
    const present = this.byChannel.get(full);
    if (present) present.set(callback, subscription);
    else this.byChannel.set(full, /* @__PURE__ */ new Map([[callback, subscription]]));
    binding.pubSubSubscribe(this.handle, full, subscription.id, Math.min(window, 2 ** 41), options?.leading === true);
    if (!this.open) return;
    try {
      await this.inTurn(() => this.hear(full));
    } catch (error) {
      if (this.byChannel.get(full)?.get(callback) === subscription) this.forget(full, callback);
      throw error;
    }
  }
  /** Ends a subscription, and its open debounce windows; nothing when there is none. */
  async unsubscribe(channel, callback) {
    const full = this.getFullChannel(channel);
    this.forget(full, callback);
    if (this.byChannel.has(full)) return;
    await this.inTurn(async () => {
      if (this.byChannel.has(full)) return;
      const heard = this.heard.get(full);
      this.heard.delete(full);
      const { adapter } = this;
      if (!heard || !adapter) return;
      if (!(adapter instanceof NativePubSubAdapter)) await adapter.unsubscribe(full, heard);
      else await waitFor((listener, sequence) => binding.busUnsubscribe(adapter.member, full, listener, sequence));
    });
  }
  /**
   * Publishes a message, which is anything that JSON can hold. Resolves when the adapter has it;
   * without a connection it warns in the log, and resolves too.
   *
   * Rejects with `E_NOT_SERIALIZABLE` for what JSON cannot hold, and with what the adapter rejects with;
   * see {@link RedisPubSubAdapter}.
   */
  async publish(channel, message, options = {}) {
    const full = this.getFullChannel(channel);
    const text = serialize4(channel, message);
    const { skipSelf = this.skipSelf, onlySelf } = options ?? {};
    const { adapter } = this;
    if (adapter instanceof NativePubSubAdapter) {
      if (!this.open || !adapter.isConnected()) return this.warnUnconnected(full);
      const published = this.outgoing.add([flagsOf(skipSelf, onlySelf, text === void 0)], full, text ?? "");
      if (adapter.takesAtOnce) return;
      try {
        return await published;
      } catch (error) {
        throw unpublished(error, channel);
      }
    }
    if (!adapter || !await this.isConnected()) return this.warnUnconnected(full);
    const { publisherId } = this;
    await adapter.publish(full, JSON.stringify({ publisherId, skipSelf, onlySelf, message }));
  }
  warnUnconnected(channel) {
    this.app.logger?.warn(`pub/sub is not connected, the message on ${channel} was not sent`);
  }
  forget(channel, callback) {
    const present = this.byChannel.get(channel);
    const subscription = present?.get(callback);
    if (!present || !subscription) return;
    binding.pubSubUnsubscribe(this.handle, channel, subscription.id);
    this.byId.delete(subscription.id);
    present.delete(callback);
    if (present.size === 0) this.byChannel.delete(channel);
  }
  /** Sees to it that the adapter gives us the channel's texts, once. */
  async hear(channel) {
    const { adapter, handle } = this;
    if (this.heard.has(channel) || !adapter) return;
    const callback = (text) => {
      if (this.open) binding.pubSubReceive(this.handle, channel, text);
    };
    this.heard.set(channel, callback);
    try {
      if (adapter instanceof NativePubSubAdapter) {
        await waitFor((listener, sequence) => binding.pubSubHear(handle, adapter.member, channel, listener, sequence));
      } else {
        await adapter.subscribe(channel, callback, { onGap: (gap) => this.open && binding.pubSubGap(handle, channel, numberOf(gap?.reason)) });
      }
    } catch (error) {
      this.heard.delete(channel);
      throw error;
    }
  }
  callbacks() {
    const callbacks = /* @__PURE__ */ new Map();
    for (const { name, callback } of this.byId.values()) {
      const present = callbacks.get(name);
      if (present) present.add(callback);
      else callbacks.set(name, /* @__PURE__ */ new Set([callback]));
    }
    return callbacks;
  }
  static heard(self, id, gap, payload) {
    if (gap === 0) self.deliver(id, payload);
    else self.tell(id, gap);
  }
  deliver(id, text) {
    if (!this.open) return;
    if (id < 0) return this.app.logger?.warn(`pub/sub: a text that is no message was dropped, ${text}`);
    const subscription = this.byId.get(id);
    if (!subscription) return;
    try {
      const result = subscription.callback(text === void 0 ? void 0 : JSON.parse(text));
      if (typeof result?.then === "function") this.watch(result, "the subscriber", subscription);
    } catch (error) {
      this.failed("the subscriber", subscription, error);
    }
  }
  tell(id, gap) {
    const subscription = this.byId.get(id);
    if (!this.open || !subscription?.onGap) return;
    const { onGap, name } = subscription;
    try {
      const result = onGap({ reason: reasonOf(gap), channel: name });
      if (typeof result?.then === "function") this.watch(result, "onGap", subscription);
    } catch (error) {
      this.failed("onGap", subscription, error);
    }
  }
  watch(result, what, subscription) {
    result.then(void 0, (error) => this.failed(what, subscription, error));
  }
  /** What a callback throws or rejects with is logged, and harms nobody else. */
  failed(what, { channel }, error) {
    this.app.logger?.error(`${what} of pub/sub channel ${channel} failed`, error);
  }
  inTurn(action) {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => void 0);
    return turn;
  }
};
var connected2 = /* @__PURE__ */ new Set();
function checkChannel2(channel) {
  if (typeof channel !== "string" || channel === "") throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}
function serialize4(channel, message) {
  try {
    return JSON.stringify(message);
  } catch (cause) {
    const text = `the message for channel ${channel} cannot be written as JSON`;
    throw new MortiseError("E_NOT_SERIALIZABLE", text, { cause });
  }
}
function redisAdapter(app, options) {
  const { url, delivery, maxLength, maxAge } = options;
  const server = typeof url === "object" ? url : { url };
  return new RedisPubSubAdapter({ ...server, app: app.name || "main", delivery, maxLength, maxAge, logger: app.logger });
}
function unavailable2(adapter) {
  return new MortiseError("E_ADAPTER_UNAVAILABLE", `pub/sub adapter "${adapter}" is not available in this version`);
}

// lib/sync-message/index.ts
var DEFAULT_DEBOUNCE = 1e3;
var TRANSACTION_TIMEOUT = 5e4;
var SyncMessageManager = class {
  constructor(app, options = {}) {
    this.app = app;
    this.debounce = options.debounce ?? DEFAULT_DEBOUNCE;
    this.leading = options.leading ?? false;
    const listener = (plugin) => this.subscribePlugin(plugin);
    app.on("beforeLoadPlugin", Object.assign(listener, { _reinitializable: true }));
  }
  app;
  debounce;
  leading;
  /**
   * Publishes to the other nodes (`skipSelf` is true by default). Within a `transaction`: after its
   * commit, never on rollback; resolves when published.
   *
   * Rejects with `E_TRANSACTION_ROLLED_BACK` after a rollback, where the transaction can tell, and
   * with `E_TRANSACTION_TIMEOUT` when it has not ended after 50 s.
   */
  async publish(channel, message, options = {}) {
    const { transaction, skipSelf = true, onlySelf } = options ?? {};
    const send = () => this.app.pubSubManager.publish(this.channel(channel), message, { skipSelf, onlySelf });
    if (!transaction) return send();
    if (typeof transaction.afterCommit !== "function") throw invalid("a transaction has the method afterCommit");
    await afterCommit(transaction, send, channel, message);
  }
  /** Calls `callback` with each message on the channel; equal ones within the debounce time once. */
  async subscribe(channel, callback, options = {}) {
    const { onGap, leading = this.leading } = options ?? {};
    const told = onGap && ((gap) => onGap({ ...gap, channel }));
    await this.app.pubSubManager.subscribe(this.channel(channel), callback, {
      debounce: this.debounce,
      ...leading ? { leading } : {},
      ...told ? { onGap: told } : {}
    });
  }
  /** Ends a subscription. */
  async unsubscribe(channel, callback) {
    await this.app.pubSubManager.unsubscribe(this.channel(channel), callback);
  }
  channel(channel) {
    if (typeof channel !== "string" || channel === "") throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
    return `${this.app.name}.sync.${channel}`;
  }
  async subscribePlugin(plugin) {
    if (!plugin.name || typeof plugin.handleSyncMessage !== "function") return;
    const closed2 = () => Boolean(this.app.stopped || this.app.db?.closed?.());
    const callback = async (message) => {
      if (!closed2()) await plugin.handleSyncMessage?.(message);
    };
    const onGap = async (gap) => {
      if (!closed2()) await plugin.handleSyncGap?.(gap);
    };
    await this.subscribe(plugin.name, callback, { onGap });
  }
};
function afterCommit(transaction, send, channel, message) {
  if (transaction.finished === "rollback") return Promise.reject(rolledBack(channel));
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => settle(() => reject(timedOut(channel, message))), TRANSACTION_TIMEOUT);
    timer.unref();
    const forget = onRollback(transaction, () => settle(() => reject(rolledBack(channel))));
    const settle = (end) => {
      clearTimeout(timer);
      forget();
      end();
    };
    transaction.afterCommit(async () => {
      send().then(() => settle(resolve), (error) => settle(() => reject(error)));
    });
    if (transaction.finished === "commit") send().then(() => settle(resolve), (error) => settle(() => reject(error)));
  });
}
var ROLLBACK_HOOKS = /* @__PURE__ */ Symbol("mortise.rollback");
function onRollback(transaction, callback) {
  const { rollback } = transaction;
  if (typeof rollback !== "function") return () => void 0;
  const host = transaction;
  let hooks = host[ROLLBACK_HOOKS];
  if (!hooks) {
    const created = /* @__PURE__ */ new Set();
    hooks = created;
    Object.defineProperty(host, ROLLBACK_HOOKS, { value: created });
    host.rollback = async function(...values) {
      try {
        return await rollback.apply(this ?? transaction, values);
      } finally {
        for (const hook of [...created]) hook();
      }
    };
  }
  hooks.add(callback);
  const registered = hooks;
  return () => registered.delete(callback);
}
function rolledBack(channel) {
  return new MortiseError("E_TRANSACTION_ROLLED_BACK", `the transaction was rolled back, nothing was published on ${channel}`);
}
function timedOut(channel, message) {
  const text = `Publish message to ${channel} timeout, channel: ${channel}, message: ${safeJson(message)}`;
  return new MortiseError("E_TRANSACTION_TIMEOUT", text);
}
function safeJson(value) {
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}

// lib/app/logger.ts
var stderrLogger = {
  debug: () => void 0,
  info: () => void 0,
  warn: (message, details) => write("warn", message, details),
  error: (message, details) => write("error", message, details)
};
function write(level, message, details) {
  const cause = details instanceof Error || isErrorOfAnotherRealm(details) ? details : void 0;
  const text = cause?.stack ?? (details === void 0 ? "" : safeJson2(details));
  process.stderr.write(`[mortise] ${level}: ${maskSecrets(text ? `${message} ${text}` : message)}
`);
}
function isErrorOfAnotherRealm(value) {
  return Object.prototype.toString.call(value) === "[object Error]";
}
function safeJson2(value) {
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return Object.prototype.toString.call(value);
  }
}
function maskSecrets(text) {
  return text.replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/]*):[^\s@/]+@/gi, "$1:***@");
}

// lib/worker-id/redis-adapter.ts
var LEASE2 = 1e4;
var REST = 1e4;
var SHORTEST_LEASE2 = 100;
var LONGEST2 = 24 * 3600 * 1e3;
var LEVELS = ["info", "warn", "error"];
var holding = /* @__PURE__ */ new Set();
var shared2;
var RedisWorkerIdAdapter = class RedisWorkerIdAdapter {
  node;
  logger;
  onLost;
  /** Throws a `TypeError` that names the option when one is wrong. */
  constructor(options = {}) {
    const connection = serializeOptions(options);
    const { app = "main", lease = LEASE2, rest = REST, logger = stderrLogger, onLost } = typeof options === "string" ? {} : options;
    if (typeof app !== "string" || app === "") throw invalid(`the option app of worker ids is a string that is not empty: ${String(app)}`);
    checkTime("lease", lease, SHORTEST_LEASE2);
    checkTime("rest", rest, 0);
    checkLogger(logger);
    if (onLost !== void 0 && typeof onLost !== "function") throw invalid(`the option onLost of worker ids is a function: ${String(onLost)}`);
    this.logger = logger;
    this.onLost = onLost;
    this.node = binding.workerIdNew(connection, app, lease, rest, listenWeakly(this, RedisWorkerIdAdapter.told));
  }
  /**
   * The node's id, from 0 to 31; the same until it is released or lost. On a server where the app has no ids yet,
   * or that was restarted or replaced, the first takes up to 3 seconds, in which live nodes renew theirs. Where all
   * are taken, but some of them rest, it waits for those: up to `lease` and `rest` together.
   *
   * Rejects with `E_WORKER_IDS_EXHAUSTED` when all 32 are held, with `E_UNAVAILABLE` or `E_TIMEOUT` when the
   * server is away, and with `E_CLOSED` when `release` was called meanwhile.
   */
  async getWorkerId() {
    const completions2 = shared2 ??= new Completions({ convert: (value) => value });
    holding.add(this);
    try {
      return await completions2.wait((sequence) => binding.workerIdGet(this.node, completions2.listener, sequence));
    } finally {
      this.keepWhileHolding();
    }
  }
  /**
   * Gives the id back, and lets go of the connection. May be repeated. Never rejects, and waits at most a second
   * for a server that is away: what could not be given back lapses by itself.
   */
  async release() {
    const completions2 = shared2 ??= new Completions({ convert: (value) => value });
    try {
      await completions2.wait((sequence) => binding.workerIdRelease(this.node, completions2.listener, sequence));
    } finally {
      this.keepWhileHolding();
    }
  }
  keepWhileHolding() {
    if (binding.workerIdIsHolding(this.node)) holding.add(this);
    else holding.delete(this);
  }
  static told(self, _, level, text) {
    self.logger[LEVELS[level]](text);
    self.keepWhileHolding();
    if (LEVELS[level] === "error") self.onLost?.();
  }
};
function withServer({ url = {}, ...rest }) {
  if (typeof url === "string") return { url, ...rest };
  if (typeof url === "object" && url !== null) return { ...url, ...rest };
  throw invalid(`the option url of worker ids is a URL or an object: ${String(url)}`);
}
function checkTime(name, value, least) {
  if (typeof value === "number" && value >= least && value <= LONGEST2) return;
  throw invalid(`the option ${name} of worker ids is a number of milliseconds from ${least} to ${LONGEST2}: ${String(value)}`);
}
function checkLogger(logger) {
  const methods = logger;
  if (LEVELS.every((level) => typeof methods?.[level] === "function")) return;
  throw invalid(`the option logger of worker ids has the methods ${LEVELS.join(", ")}: ${String(logger)}`);
}

// lib/worker-id/index.ts
var WORKER_IDS = 32;
var WorkerIdAllocator = class {
  adapter;
  constructor(options = {}) {
    const { adapter, ...rest } = options;
    if (adapter === "redis") {
      this.adapter = new RedisWorkerIdAdapter(withServer(rest));
    } else if (typeof adapter === "string") {
      throw new MortiseError("E_ADAPTER_UNAVAILABLE", `worker id adapter "${String(adapter)}" is not known; known is: redis`);
    } else if (adapter) {
      this.setAdapter(adapter);
    }
  }
  /** Takes ids from `adapter` from now on. */
  setAdapter(adapter) {
    if (typeof adapter?.getWorkerId !== "function" || typeof adapter.release !== "function") {
      throw invalid("a worker id adapter has the methods getWorkerId and release");
    }
    this.adapter = adapter;
  }
  /** An id from 0 to 31. */
  async getWorkerId() {
    return this.adapter ? this.adapter.getWorkerId() : Math.floor(Math.random() * WORKER_IDS);
  }
  /** Gives the id back. */
  async release() {
    await this.adapter?.release();
  }
};

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
  const beside2 = adapter === "rabbitmq" && redis !== void 0 ? { url: redis } : void 0;
  const joined = pubSub ?? queued ?? locked ?? beside2;
  return {
    cache: { defaultStore: text("CACHE_DEFAULT_STORE"), max: text("CACHE_MEMORY_MAX"), url: text("CACHE_REDIS_URL") ?? redis },
    pubSub,
    queue,
    locks: locks2,
    workerIds: joined && { url: redis ?? joined.url }
  };
}

// lib/app/options.ts
var KNOWN4 = {
  name: void 0,
  logger: void 0,
  redis: void 0,
  cacheManager: ["defaultStore", "prefix", "stores"],
  pubSubManager: ["adapter", "url", "bus", "channelPrefix", "skipSelf", "delivery", "maxLength", "maxAge"],
  syncMessageManager: ["debounce", "leading"],
  eventQueue: ["adapter", "url", "channelPrefix", "journal", "storagePath", "closeTimeout", "lease", "maxRun", "maxStall", "maxCrashes", "crashCounts"],
  lockManager: ["defaultAdapter", "url", "app", "gracePeriod", "maxHold", "logger"],
  workerIdAllocator: ["adapter", "url", "lease", "rest", "logger", "onLost"]
};
function resolveOptions(options, environment = process.env) {
  checkNames("", options, Object.keys(KNOWN4));
  for (const [name, known] of Object.entries(KNOWN4)) {
    const given = options[name];
    if (known && given !== void 0) checkNames(`${name}.`, given, known);
  }
  if (options.name !== void 0 && (typeof options.name !== "string" || options.name === "")) {
    throw invalid(`the option name is a string that is not empty: ${String(options.name)}`);
  }
  const redis = options.redis ?? variable(environment, "REDIS_URL");
  const { cache, pubSub, queue, locks: locks2, workerIds } = placement(environment, redis);
  const adapter = options.eventQueue?.adapter ?? queue?.adapter;
  return {
    ...options,
    redis,
    cacheManager: cacheOptions(options.cacheManager ?? {}, cache),
    // The variable names no adapter beside it: who sets it wants this one.
    pubSubManager: defined({ adapter: pubSub && "redis", url: pubSub?.url ?? redis, ...options.pubSubManager }),
    syncMessageManager: { ...options.syncMessageManager },
    eventQueue: defined({ url: queueServer(environment, adapter, redis), ...options.eventQueue, adapter }),
    lockManager: defined({ ...locks2, ...options.lockManager }),
    workerIdAllocator: defined({ adapter: workerIds && "redis", url: workerIds ? workerIds.url : redis, ...options.workerIdAllocator })
  };
}
function cacheOptions(given, { defaultStore, max, url }) {
  const stores = { ...given.stores };
  if (max !== void 0) stores.memory = { max: Number(max), ...stores.memory };
  const server = typeof url === "object" && url !== null ? url : defined({ url });
  for (const type of ["redis", "tiered"]) if (url !== void 0) stores[type] = { ...server, ...stores[type] };
  return defined({ defaultStore, ...given, stores });
}
function checkNames(path, given, known) {
  if (typeof given !== "object" || given === null) {
    const message = `the option ${path.slice(0, -1) || "of createApp"} is an object: ${String(given)}`;
    throw invalid(message);
  }
  for (const name of Object.keys(given)) {
    if (known.includes(name)) continue;
    throw new MortiseError("E_UNKNOWN_OPTION", `unknown option ${path}${name}; known are: ${known.join(", ")}`);
  }
}
function defined(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== void 0));
}

// lib/app/plugin-manager.ts
var PluginManager = class {
  constructor(app) {
    this.app = app;
  }
  app;
  plugins = [];
  prepared = 0;
  /** Adds a plugin; the app must not have been loaded yet. */
  add(Class, options = {}) {
    if (typeof Class !== "function") throw invalid("a plugin is a class that extends Plugin");
    const plugin = new Class(this.app, options);
    if (plugin.name && this.plugins.some((other) => other.name === plugin.name)) {
      throw new MortiseError("E_PLUGIN_NAME", `there is a plugin called ${plugin.name} already`);
    }
    this.plugins.push(plugin);
    return plugin;
  }
  /** The plugin of that class or name; `undefined` when there is none. */
  get(classOrName) {
    const found = this.plugins.find((plugin) => typeof classOrName === "string" ? plugin.name === classOrName : plugin.constructor === classOrName);
    return found;
  }
  /** All plugins, in the order in which they were added. */
  getPlugins() {
    return this.plugins;
  }
  /** Whether every plugin has been loaded. */
  get allLoaded() {
    return this.prepared === this.plugins.length;
  }
  /** Calls the hooks of loading, for the plugins that were added since the last time. */
  async load() {
    const plugins = this.plugins.slice(this.prepared);
    for (const plugin of plugins) await this.call(plugin, "afterAdd");
    for (const plugin of plugins) {
      await this.app.emitAsync("beforeLoadPlugin", plugin);
      await this.call(plugin, "beforeLoad");
    }
    for (const plugin of plugins) await this.call(plugin, "load");
    this.prepared = this.plugins.length;
  }
  async call(plugin, hook) {
    try {
      await plugin[hook]();
    } catch (error) {
      this.app.logger.error(`${hook} of plugin ${plugin.name ?? plugin.constructor.name} failed`, error);
      throw error;
    }
  }
};

// lib/app/worker-mode.ts
function serving(key) {
  const mode = (process.env.WORKER_MODE ?? "").trim();
  if (mode === "") return true;
  if (mode === "-") return false;
  const items = mode.split(",").map((item) => item.trim());
  return key === void 0 || key === "" ? items.includes("!") : items.includes("*") || items.includes(key);
}
function isTransient() {
  return process.env.WORKER_MODE?.trim() === "-";
}

// lib/app/application.ts
var turns = new import_node_async_hooks.AsyncLocalStorage();
var turnsRunning = 0;
var Application = class extends import_node_events3.EventEmitter {
  name;
  logger;
  cacheManager;
  /** The default cache, named after the app. Usable as soon as the app is made. */
  cache;
  pubSubManager;
  syncMessageManager;
  eventQueue;
  lockManager;
  workerIdAllocator;
  /** The plugins. */
  pm;
  state = "new";
  everLoaded = false;
  /** What is being done, so that calls that come meanwhile wait their turn. */
  turn = Promise.resolve();
  constructor(options = {}) {
    super();
    const resolved = resolveOptions(options);
    this.name = resolved.name ?? "main";
    this.logger = resolved.logger ?? stderrLogger;
    this.pm = new PluginManager(this);
    this.cacheManager = new CacheManager({ prefix: this.name, logger: this.logger, ...resolved.cacheManager });
    this.cache = this.cacheManager.createCacheSync({ name: this.name });
    this.pubSubManager = new PubSubManager(this, { adapter: "memory", skipSelf: true, ...resolved.pubSubManager });
    this.syncMessageManager = new SyncMessageManager(this, resolved.syncMessageManager);
    this.eventQueue = new EventQueue(this, resolved.eventQueue);
    this.lockManager = new LockManager({ logger: this.logger, app: this.name, ...resolved.lockManager });
    this.workerIdAllocator = new WorkerIdAllocator({ app: this.name, logger: this.logger, ...resolved.workerIdAllocator });
  }
  /** Whether the app has been stopped, and not started again since. */
  get stopped() {
    return this.state === "stopped";
  }
  /** Calls the listeners of an event one after the other, each awaited; the first error rejects. */
  async emitAsync(event, ...values) {
    const listeners2 = this.rawListeners(event);
    for (const listener of listeners2) await listener.apply(this, values);
    return listeners2.length > 0;
  }
  /** Adds a plugin; it is loaded with the app. */
  plugin(Class, options) {
    return this.pm.add(Class, options);
  }
  /** Whether this node serves `key`, by `WORKER_MODE`; see {@link serving}. */
  serving(key) {
    return serving(key);
  }
  /** Whether this node serves nothing, by `WORKER_MODE`. */
  isTransient() {
    return isTransient();
  }
  /** Loads the plugins; those loaded before are not loaded again. */
  load() {
    return this.inTurn(() => this.doLoad());
  }
  /** Loads if needed, and connects the services. Nothing when the app is started already. */
  start() {
    return this.inTurn(async () => {
      if (this.state === "started") return;
      await this.doLoad();
      if (this.state !== "loaded") return;
      await this.pubSubManager.connect();
      await this.eventQueue.connect();
      this.state = "started";
      await this.emitAsync("afterStart", this);
    });
  }
  /** Stops, and gives back all that the app holds; Node can exit then. Nothing when it is stopped already. */
  stop() {
    return this.inTurn(async () => {
      if (this.state === "stopped" || this.state === "stopping") return;
      this.state = "stopping";
      const errors = [];
      const step = async (what) => {
        try {
          await what();
        } catch (error) {
          this.logger.error(`stopping app ${this.name}`, error);
          errors.push(error);
        }
      };
      await step(() => this.emitAsync("beforeStop", this));
      this.state = "stopped";
      await step(() => this.pubSubManager.close());
      await step(() => this.eventQueue.close());
      await step(() => this.emitAsync("afterStop", this));
      await step(() => this.lockManager.close());
      await step(() => this.cacheManager.close());
      await step(() => this.workerIdAllocator.release());
      if (errors.length > 0) throw errors[0];
    });
  }
  async doLoad() {
    if (this.state === "loading" || this.state === "started") return;
    if (this.everLoaded && this.pm.allLoaded) {
      this.state = "loaded";
      return;
    }
    this.state = "loading";
    try {
      await this.pm.load();
      this.everLoaded = true;
      await this.emitAsync("afterLoad", this);
    } catch (error) {
      if (this.state === "loading") this.state = "new";
      throw error;
    }
    if (this.state === "loading") this.state = "loaded";
  }
  inTurn(action) {
    if (turns.getStore()?.app === this) return action();
    const mine = { app: this };
    const turn = this.turn.then(() => {
      turnsRunning++;
      return turns.run(mine, action);
    }).finally(() => {
      mine.app = void 0;
      if (--turnsRunning === 0) turns.disable();
    });
    this.turn = turn.catch(() => void 0);
    return turn;
  }
};
function createApp(options = {}) {
  return new Application(options);
}

// lib/nocobase/host.ts
var import_node_module = require("node:module");
var import_node_path4 = require("node:path");
function places() {
  const { NODE_MODULES_PATH } = process.env;
  return [
    __filename,
    (0, import_node_path4.join)(process.cwd(), "main.js"),
    ...NODE_MODULES_PATH ? [(0, import_node_path4.join)(NODE_MODULES_PATH, "main.js")] : [],
    ...require.main?.filename ? [require.main.filename] : []
  ];
}
function find(name) {
  for (const place of places()) {
    try {
      return (0, import_node_module.createRequire)(place).resolve(name);
    } catch {
    }
  }
  return void 0;
}
function hostServer() {
  const file = find("@nocobase/server");
  if (file) return require(file);
  const message = "mortise/nocobase runs inside NocoBase, and finds no @nocobase/server: not beside itself, in the working directory, in NODE_MODULES_PATH or beside the program";
  throw new MortiseError("E_HOST", message);
}
function hostModule(name) {
  const server = find("@nocobase/server");
  if (!server) return void 0;
  let file;
  try {
    file = (0, import_node_module.createRequire)(server).resolve(name);
  } catch {
    return void 0;
  }
  return require(file);
}

// lib/nocobase/worker-id.ts
var import_promises2 = require("node:timers/promises");

// lib/app/reinitializable.ts
function reinitializable(action) {
  const listener = async () => {
    await action();
  };
  return Object.assign(listener, { _reinitializable: true });
}

// lib/nocobase/worker-id.ts
var held2 = /* @__PURE__ */ new WeakMap();
var AGAIN = 1e3;
var HostWorkerId = class HostWorkerId {
  constructor(host, options) {
    this.host = host;
    const lost = () => {
      options.onLost?.();
      void this.renew();
    };
    this.ids = new RedisWorkerIdAdapter({ ...options, onLost: lost });
  }
  host;
  ids;
  /** From the first question until the application has stopped. */
  active = false;
  /** That of `host`, which goes on with the one it has unless the options are others. To be called at each making of its services. */
  static of(host, options) {
    const { logger: _, ...rest } = options;
    const key = JSON.stringify(rest);
    let present = held2.get(host);
    if (present?.key !== key) {
      void present?.adapter.end();
      held2.set(host, present = { adapter: new HostWorkerId(host, options), key });
    }
    const { adapter } = present;
    host.on("beforeStart", reinitializable(() => adapter.begin()));
    host.on("afterStop", reinitializable(() => adapter.end()));
    return adapter;
  }
  /** The application has another allocator now. */
  static endOf(host) {
    void held2.get(host)?.adapter.end();
    held2.delete(host);
  }
  async getWorkerId() {
    this.active = true;
    const id = await this.ids.getWorkerId();
    this.generateWith(id);
    return id;
  }
  /** Does nothing: it is called at restarts, too, and the application has the id until it has stopped. */
  async release() {
  }
  /** One that was stopped, and is started again without loading, asks for no id. */
  async begin() {
    const { host } = this;
    if (held2.get(host)?.adapter !== this || host.options?.instanceId !== void 0 || host.instanceId === void 0) return;
    this.adopt(await this.getWorkerId());
  }
  async end() {
    this.active = false;
    await this.ids.release();
  }
  /** Until there is another id, or the application has stopped. */
  async renew() {
    for (let tries = 0; this.active; tries++) {
      try {
        this.adopt(await this.getWorkerId());
        return;
      } catch (error) {
        const { host } = this;
        const message = `app ${host.name} has no worker id of its own: the ids that it generates may be those of another node`;
        if (tries === 0 && this.active) host.logger?.error(message, error);
        await (0, import_promises2.setTimeout)(AGAIN, void 0, { ref: false });
      }
    }
  }
  adopt(id) {
    this.host._instanceId = id;
    this.generateWith(id);
  }
  /** The application makes its generator once, and keeps it over restarts. */
  generateWith(id) {
    const { host } = this;
    const { snowflakeIdGenerator: present } = host;
    if (!present || present.workerId === id) return;
    const Generator = present.constructor;
    host.snowflakeIdGenerator = new Generator({ workerId: id });
  }
};

// lib/app/host-services.ts
var NO_QUEUE = {
  isConnected: () => false,
  connect: () => void 0,
  close: () => void 0,
  subscribe: () => void 0,
  unsubscribe: () => void 0,
  publish: () => void 0
};
var SYNC_DEBOUNCE = 1e3;
var HostServices = class {
  /** Those of `host` that are none of ours. */
  constructor(host, ours) {
    this.host = host;
    const theirs = (member) => ours.includes(host[member]) ? void 0 : host[member];
    theirs("eventQueue")?.setAdapter?.(NO_QUEUE);
    this.pubSub = theirs("pubSubManager");
    const sync = theirs("syncMessageManager");
    if (sync) sync.subscribe = async () => void 0;
  }
  host;
  pubSub;
  /** Subscribes on ours what was subscribed on the host's pub/sub before ours was there. */
  async handOver(ours, syncDebounce = SYNC_DEBOUNCE) {
    const channels = this.pubSub?.handlerManager?.handlers;
    if (!(channels instanceof Map)) return;
    for (const [channel, handlers] of channels) {
      const debounce = channel.startsWith(`${this.host.name}.sync.`) ? syncDebounce : 0;
      for (const callback of handlers.keys()) await ours.subscribe(channel, callback, { debounce });
    }
    channels.clear();
  }
};

// lib/app/install.ts
var installations = /* @__PURE__ */ new WeakMap();
function install(app, options = {}) {
  if (typeof app?.on !== "function") throw invalid("install takes an application, which has the method on");
  const host = itself2(app);
  const present = installations.get(host);
  if (present) return present.services;
  const { name = host.name ?? "main", logger = logOf(host), ...resolved } = resolveOptions(options);
  const installation = new Installation(host, name, logger, resolved);
  installations.set(host, installation);
  renewWithTheHost(host);
  return installation.services;
}
function itself2(app) {
  const { pm } = app;
  return typeof pm?.app?.on === "function" ? pm.app : app;
}
function logOf(host) {
  if (!host.logger) return void 0;
  const at = (level) => (message, ...details) => host.logger?.[level](message, ...details);
  return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}
var renewing = /* @__PURE__ */ new WeakSet();
function renewWithTheHost(host) {
  if (typeof host.reInitEvents !== "function") return;
  const Application2 = hostModule("@nocobase/server")?.Application;
  if (typeof Application2?.addCommand !== "function" || renewing.has(Application2)) return;
  renewing.add(Application2);
  Application2.addCommand((app) => installations.get(app)?.renew());
  const { LockAcquireError: LockAcquireError2, LockAbortError: LockAbortError2 } = hostModule("@nocobase/lock-manager") ?? {};
  if (LockAcquireError2 && LockAbortError2) useLockErrorClasses({ LockAcquireError: LockAcquireError2, LockAbortError: LockAbortError2 });
}
var Installation = class {
  constructor(host, name, logger, options) {
    this.host = host;
    this.name = name;
    this.logger = logger;
    this.options = options;
    this.view = hostView(host, name, logger);
    this.renew();
  }
  host;
  name;
  logger;
  options;
  /** The present ones. */
  services = {};
  view;
  /** All that were made: while a NocoBase loads it makes several, and its plugins keep caches of each. */
  cacheManagers = /* @__PURE__ */ new Set();
  /** Makes the services, and puts them in the place of those that the host has. */
  renew() {
    const { host, services, view, options, logger, name } = this;
    const former = { ...services };
    const formerCaches = [...this.cacheManagers];
    this.cacheManagers.clear();
    const theirs = new HostServices(host, Object.values(former));
    this.makeCaches();
    services.pubSubManager = new PubSubManager(view, { adapter: "memory", skipSelf: false, ...options.pubSubManager });
    services.eventQueue = new EventQueue(view, options.eventQueue);
    services.lockManager = new LockManager({ logger, app: name, ...options.lockManager });
    services.workerIdAllocator = this.makeWorkerIds();
    for (const member of ["pubSubManager", "eventQueue", "lockManager", "workerIdAllocator"]) put(host, member, services[member]);
    services.syncMessageManager = new SyncMessageManager(view, options.syncMessageManager);
    put(host, "syncMessageManager", services.syncMessageManager);
    this.listen(theirs, { ...services });
    if (former.lockManager) close(former, formerCaches).catch((error) => logger?.warn("closing the services of before a restart failed", error));
  }
  makeCaches() {
    const { host, services, name, logger, options } = this;
    const manager = new CacheManager({ prefix: name, logger, ...options.cacheManager });
    this.cacheManagers.add(manager);
    services.cacheManager = manager;
    services.cache = manager.createCacheSync({ name });
    put(host, "cacheManager", manager);
    put(host, "cache", services.cache);
    if (typeof host.context === "object" && host.context !== null) host.context.cache = services.cache;
    if (typeof host.createCacheManager === "function") put(host, "createCacheManager", async () => this.makeCaches());
    return manager;
  }
  makeWorkerIds() {
    const { host, name, logger } = this;
    const { adapter, ...rest } = this.options.workerIdAllocator ?? {};
    const options = { app: name, logger, ...rest };
    return new WorkerIdAllocator(adapter === "redis" ? { adapter: HostWorkerId.of(host, withServer(options)) } : { adapter, ...options });
  }
  listen(theirs, services) {
    const { host } = this;
    const { pubSubManager, eventQueue } = services;
    const beforeStop = reinitializable(async () => {
      await pubSubManager.close();
      await eventQueue.close();
    });
    host.on("afterStart", reinitializable(async () => {
      await theirs.handOver(pubSubManager, this.options.syncMessageManager?.debounce);
      await pubSubManager.connect();
      await eventQueue.connect();
      host.off?.("beforeStop", beforeStop);
      host.on("beforeStop", beforeStop);
    }));
    host.on("afterStop", reinitializable(() => close(services, [...this.cacheManagers])));
  }
};
async function close({ pubSubManager, eventQueue, lockManager, workerIdAllocator }, cacheManagers) {
  await pubSubManager.close();
  await eventQueue.close();
  await lockManager.close();
  for (const manager of cacheManagers) await manager.close();
  await workerIdAllocator.release();
}
function hostView(app, name, logger) {
  return new Proxy(app, {
    get: (host, member) => {
      if (member === "name") return name;
      if (member === "logger") return logger;
      const value = Reflect.get(host, member);
      return typeof value === "function" ? value.bind(host) : value;
    }
  });
}
function put(app, member, service) {
  const done = Reflect.set(app, member, service) && app[member] === service;
  if (done || Reflect.defineProperty(app, member, { value: service, writable: true, configurable: true, enumerable: true })) return;
  throw new MortiseError("E_HOST", `the application does not let its ${member} be replaced`);
}

// lib/app/plugin.ts
var Plugin = class {
  constructor(app, options = {}) {
    this.app = app;
    this.options = options;
  }
  app;
  options;
  /** The name given in the options. */
  get name() {
    return this.options.name;
  }
  /** Called when the app loads, first, for each plugin. */
  afterAdd() {
  }
  /** Called for each plugin before any is loaded. */
  beforeLoad() {
  }
  /** Creates what the plugin needs: caches, subscriptions, queues. */
  load() {
  }
  /** For hosts that install their plugins once; never called by mortise itself. */
  install() {
  }
  /**
   * Sends a message to this plugin on the other nodes; within a transaction, after its commit.
   * Never rejects: a failure is logged. Throws `plugin name invalid` for a plugin without a name.
   */
  async sendSyncMessage(message, options = {}) {
    if (!this.name) throw new MortiseError("E_PLUGIN_NAME", "plugin name invalid");
    try {
      await this.app.syncMessageManager.publish(this.name, message, options);
    } catch (error) {
      this.app.logger.error(`sync message of plugin ${this.name} was not sent`, error);
    }
  }
};
// Annotate the CommonJS export names for ESM import in node:
0 && (module.exports = {
  Application,
  BasicCache,
  Cache,
  CacheManager,
  EventQueue,
  HostWorkerId,
  LocalLockAdapter,
  LockAbortError,
  LockAcquireError,
  LockCounter,
  LockManager,
  MemoryBloomFilter,
  MemoryCounter,
  MemoryEventQueueAdapter,
  MemoryPubSubAdapter,
  MemoryStore,
  MortiseError,
  NO_QUEUE,
  Plugin,
  PluginManager,
  PubSubManager,
  RabbitMQEventQueueAdapter,
  RedisBloomFilter,
  RedisConnection,
  RedisCounter,
  RedisEventQueueAdapter,
  RedisLockAdapter,
  RedisPubSubAdapter,
  RedisStore,
  RedisWorkerIdAdapter,
  SyncMessageManager,
  TieredStore,
  WorkerIdAllocator,
  createApp,
  hostModule,
  hostServer,
  install,
  isTransient,
  maskSecrets,
  redisStore,
  serving,
  tieredStore,
  useLockErrorClasses
});
Object.defineProperty(module.exports, 'default', { get: () => require('./nocobase').default });
