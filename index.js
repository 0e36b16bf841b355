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
  Plugin: () => Plugin,
  PluginManager: () => PluginManager,
  PubSubManager: () => PubSubManager,
  SyncMessageManager: () => SyncMessageManager,
  WorkerIdAllocator: () => WorkerIdAllocator,
  createApp: () => createApp,
  install: () => install,
  isTransient: () => isTransient,
  maskSecrets: () => maskSecrets,
  serving: () => serving
});
module.exports = __toCommonJS(index_exports);

// lib/app/application.ts
var import_node_async_hooks = require("node:async_hooks");
var import_node_events2 = require("node:events");

// lib/cache/basic-cache.ts
var import_node_events = require("node:events");

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
var listeners = [];
var free = [];
function listen(listener) {
  const id = free.pop() ?? listeners.length;
  listeners[id] = listener;
  return id;
}
function unlisten(id) {
  listeners[id] = void 0;
  setImmediate(() => setImmediate(() => free.push(id))).unref();
}
function listenWeakly(owner, listener) {
  const held2 = new WeakRef(owner);
  const id = listen((subject, value, payload) => {
    const alive = held2.deref();
    if (alive) listener(alive, subject, value, payload);
  });
  collected.register(owner, id);
  return id;
}
var collected = new FinalizationRegistry(unlisten);
var NUMBERS = 3;
var numbers = new Float64Array(binding.listen(dispatch));
function dispatch(count2, payloads) {
  for (let i = 0; i < count2; i++) {
    const at = i * NUMBERS;
    try {
      listeners[numbers[at]]?.(numbers[at + 1], numbers[at + 2], payloads?.[i]);
    } catch (error) {
      process.emitWarning(error instanceof Error ? error : String(error), "MortiseWarning");
    }
  }
}
var held = 0;
function hold() {
  if (held++ === 0) binding.keepAlive(true);
}
function release() {
  if (--held === 0) binding.keepAlive(false);
}
var Completions = class {
  constructor(convert = () => void 0) {
    this.convert = convert;
    this.listener = listen((sequence, value, payload) => this.settle(sequence, value, payload));
  }
  convert;
  listener;
  waiting = /* @__PURE__ */ new Map();
  next = 0;
  /** The number of promises not settled yet. */
  get size() {
    return this.waiting.size;
  }
  /** Makes a promise; `start` is called with its sequence number at once, and when it throws the promise rejects. */
  wait(start) {
    const sequence = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(sequence, { resolve, reject });
      hold();
      try {
        start(sequence);
      } catch (error) {
        this.settle(sequence, 0, error);
      }
    });
  }
  /** Gives the listener up; to be called when nothing waits and nothing more will. */
  end() {
    unlisten(this.listener);
  }
  /** Settles a promise from JavaScript's side; nothing when it has been settled. */
  settle(sequence, value, payload) {
    const waiting = this.waiting.get(sequence);
    if (!waiting) return;
    this.waiting.delete(sequence);
    release();
    if (Object.prototype.toString.call(payload) === "[object Error]") waiting.reject(payload);
    else waiting.resolve(this.convert(value, payload));
  }
};
var Batch = class {
  /** `submit(commands, text, numbers, filled)`: `numbers[0..filled]` holds, for each command, what {@link Batch.add} was given. */
  constructor(submit) {
    this.submit = submit;
  }
  submit;
  text = "";
  numbers = new Float64Array(64);
  filled = 0;
  commands = 0;
  /** Adds a command: any count of numbers, then its strings, whose lengths in UTF-16 units are appended to the numbers. */
  add(values, ...strings) {
    const needed = this.filled + values.length + strings.length;
    if (needed > this.numbers.length) {
      const larger = new Float64Array(needed * 2);
      larger.set(this.numbers);
      this.numbers = larger;
    }
    for (const value of values) this.numbers[this.filled++] = value;
    for (const string of strings) {
      this.numbers[this.filled++] = string.length;
      this.text += string;
    }
    if (this.commands++ === 0) queueMicrotask(() => this.flush());
  }
  /** Hands over what has been gathered, without waiting for the microtask. */
  flush() {
    if (this.commands === 0) return;
    const { commands, text: text2, numbers: numbers2, filled } = this;
    this.commands = 0;
    this.text = "";
    this.filled = 0;
    this.submit(commands, text2, numbers2, filled);
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

// lib/cache/pattern.ts
function filterKeys(keys, pattern) {
  if (pattern === void 0 || pattern === "*") return [...keys];
  const glob = binding.globNew(pattern);
  return [...keys].filter((key) => binding.globMatches(glob, key));
}
function literal(text2) {
  return text2.replace(/[*?[\]\\^]/g, "\\$&");
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
    const lifetime = ttl === void 0 || ttl === null ? this.defaultTtl : checkTtl(ttl);
    this.checkCacheable(value);
    if (this.clones) value = clone(value);
    if (lifetime < 0) return this.drop(index, key);
    const now = lifetime === 0 ? 0 : performance.now();
    const deadline = lifetime === 0 ? 0 : now + lifetime;
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
    const memory = binding.memoryCells(this.handle, slots);
    this.deadlines = new Float64Array(memory, 0, slots);
    this.marks = new Uint8Array(memory, slots * Float64Array.BYTES_PER_ELEMENT, slots);
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
  let text2;
  try {
    text2 = ["bigint", "symbol", "number"].includes(typeof value) ? String(value) : JSON.stringify(value);
  } catch {
    text2 = void 0;
  }
  text2 ??= String(Object.prototype.toString.call(value) === "[object Undefined]" ? void 0 : typeof value);
  return text2.length > 100 ? `${text2.slice(0, 100)}\u2026` : text2;
}

// lib/cache/basic-cache.ts
var BasicCache = class {
  constructor(store, options = {}) {
    this.options = options;
    this.store = store;
    this.refreshThreshold = options.refreshThreshold ?? 0;
  }
  options;
  /** The engine. */
  store;
  refreshThreshold;
  events = new import_node_events.EventEmitter();
  flights = /* @__PURE__ */ new Map();
  /** Puts the store itself in place of the one that waits for it. */
  become(store) {
    this.store = store;
  }
  async get(key) {
    return this.store.get(key);
  }
  async set(key, value, ttl) {
    this.outdate(key);
    await this.store.set(key, value, ttl);
  }
  async del(key) {
    this.outdate(key);
    await this.store.del(key);
  }
  async reset() {
    this.outdateAll();
    await this.store.reset();
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
  async wrap(key, fn, ttl, refreshThreshold = this.refreshThreshold) {
    const value = await this.tryGet(key);
    if (value === void 0) return this.load(key, fn, ttl);
    if (refreshThreshold > 0) await this.refreshIfDue(key, value, fn, ttl, refreshThreshold);
    return value;
  }
  /** The miss of {@link wrap}: joins the loader that is running for the key, or starts one. */
  load(key, fn, ttl) {
    return this.loadIf(key, fn, ttl, this.canStore);
  }
  /**
   * As {@link load}, storing only what `isCacheable` accepts. What was loaded while the key was
   * set, deleted or reset is not stored: it may be older than the change.
   */
  loadIf(key, fn, ttl, isCacheable) {
    const running = this.flights.get(key);
    if (running) return running.result;
    const flight = { result: Promise.resolve() };
    const run = async () => {
      try {
        const value = await fn();
        if (await isCacheable(value)) await this.fill(key, flight, value, ttl);
        return value;
      } finally {
        if (this.flights.get(key) === flight) this.flights.delete(key);
      }
    };
    this.flights.set(key, flight);
    const result = run();
    flight.result = result;
    return result;
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
  canStore = (value) => {
    return !(this.store instanceof MemoryStore) || this.store.isCacheable(value);
  };
  async fill(key, flight, value, ttl) {
    const lifetime = typeof ttl === "function" ? ttl(value) : ttl;
    if (this.flights.get(key) !== flight) return;
    try {
      await this.store.set(key, value, lifetime);
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
    if (typeof errorRate !== "number" || typeof capacity !== "number") {
      throw invalid(`bloom filter ${describe(key)}: the error rate and the capacity are numbers`);
    }
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
  constructor({ name, prefix, store }) {
    this.name = name;
    this.prefix = prefix;
    this.store = store;
    this.keyPrefix = prefix ? `${prefix}:` : "";
    this.memory = store.store instanceof MemoryStore && store.store.belongsTo(this.keyPrefix) ? store.store : void 0;
  }
  /** The key as the store knows it: `prefix:key`. */
  key(key) {
    return this.keyPrefix + checkKey(key);
  }
  /**
   * Stores a value. `ttl` in milliseconds: absent: the store's default, else none; 0: none;
   * negative: it has lapsed already.
   *
   * Rejects with `E_NOT_CACHEABLE` for a value that the store does not take, and with a
   * `TypeError` for a key that is not a string or a ttl that is not a number.
   */
  async set(key, value, ttl) {
    const memory = this.memory;
    if (memory === void 0) return this.store.set(this.key(key), value, ttl);
    memory.writeBare(key, value, ttl);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }
  /**
   * The value at `key`, `undefined` when there is none. The memory store gives the same object to
   * every caller.
   */
  async get(key) {
    const memory = this.memory;
    return memory === void 0 ? this.store.get(this.key(key)) : memory.readBare(key);
  }
  /** Deletes a key; nothing when it is absent. */
  async del(key) {
    const memory = this.memory;
    if (memory === void 0) return this.store.del(this.key(key));
    memory.removeBare(key);
    if (this.store.hasFlights) this.store.outdate(this.key(key));
  }
  /** Stores several values at once; `ttl` as for {@link set}. */
  async mset(entries, ttl) {
    checkEntries(entries);
    const full = entries.map(([key, value]) => [this.key(key), value]);
    for (const [key] of full) this.store.outdate(key);
    await this.store.store.mset(full, ttl);
  }
  /** The values at `keys`, in their order, `undefined` for the absent. */
  async mget(...keys) {
    const memory = this.memory;
    if (memory !== void 0) return keys.map((key) => memory.readBare(key));
    return await this.store.store.mget(...keys.map((key) => this.key(key)));
  }
  /** Deletes several keys. */
  async mdel(...keys) {
    const full = keys.map((key) => this.key(key));
    for (const key of full) this.store.outdate(key);
    await this.store.store.mdel(...full);
  }
  /** Empties this cache, and nothing else that its store holds. */
  async reset() {
    this.store.outdateAll();
    if (this.memory !== void 0) return this.memory.clear();
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
   * process; its error reaches all of them, and nothing is stored.
   */
  async wrap(key, fn, ttl) {
    if (typeof fn !== "function") checkLoader(key, fn);
    const memory = this.memory;
    if (memory === void 0) return this.store.wrap(this.key(key), fn, ttl);
    const value = memory.readBare(key);
    if (value === void 0) return this.store.load(this.key(key), fn, ttl);
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
  async setValueInObject(key, objectKey, value) {
    await this.edit(key, (object) => {
      const field = { value: clone(value), writable: true, enumerable: true, configurable: true };
      Object.defineProperty(object, objectKey, field);
    });
  }
  /** One field of the object at `key`; `undefined` when either is absent. */
  async getValueInObject(key, objectKey) {
    const object = toObject(key, await this.get(key));
    const inherited = !Object.hasOwn(object, objectKey) && objectKey in Object.prototype;
    return inherited ? void 0 : object[objectKey];
  }
  /** Deletes one field of the object at `key`. Concurrent calls all take effect. */
  async delValueInObject(key, objectKey) {
    await this.edit(key, (object) => {
      Reflect.deleteProperty(object, objectKey);
    });
  }
  /** Changes the object at `key`: at once in memory; elsewhere after this process's earlier changes. */
  async edit(key, change) {
    const memory = this.memory;
    if (memory !== void 0) {
      const present = memory.readBare(key);
      const object = toObject(key, present);
      change(object);
      if (present !== object) return this.set(key, object);
      memory.touchBare(key);
      if (this.store.hasFlights) this.store.outdate(this.key(key));
      return;
    }
    const full = this.key(key);
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
  async fullKeys(pattern) {
    const keys = await this.store.store.keys(literal(this.keyPrefix) + pattern);
    return this.keyPrefix === "" ? keys : keys.filter((key) => key.startsWith(this.keyPrefix));
  }
};
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
  constructor(options = {}) {
    const builtIn = {
      memory: { store: "memory", max: DEFAULT_MAX },
      redis: { store: "redis" },
      tiered: { store: "tiered" }
    };
    this.defaultStore = options.defaultStore ?? "memory";
    this.prefix = options.prefix;
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
  /** Calls the stores' `close`. May be repeated; memory caches keep working. */
  async close() {
    await Promise.all([...this.opened].map(async ({ close, store }) => close?.(store.store)));
  }
  /**
   * Bloom filters on a store type. Rejects with `E_STORE_UNAVAILABLE` where it has none
   * (`BloomFilter store [x] is not supported`).
   */
  async createBloomFilter(options = {}) {
    const type = options.store ?? this.defaultStore;
    if (this.storeTypes.get(type)?.store !== "memory") {
      throw new MortiseError("E_STORE_UNAVAILABLE", `BloomFilter store [${type}] is not supported`);
    }
    const prefix = this.fullPrefix(options.prefix);
    return new MemoryBloomFilter(this.filters, prefix ? `${prefix}:` : "");
  }
  /**
   * Counters on a store type. On stores other than memory each increment is made under a lock of
   * `lockManager`; without one it rejects with `E_STORE_UNAVAILABLE`
   * (`Counter store [x] is not supported`).
   */
  async createCounter(options, lockManager) {
    const { name, prefix, store = this.defaultStore } = options ?? {};
    if (typeof name !== "string" || name === "") throw invalid(`a counter has a name: ${describe(name)}`);
    if (this.storeTypes.get(store)?.store === "memory") return new MemoryCounter();
    const cache = this.caches.get(name) ?? await this.createCache(prefix ? { name, prefix, store } : { name, store });
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
    const { store: source, close, ...globalConfig } = this.storeTypes.get(type) ?? {};
    const settings = { ...globalConfig, ...config };
    const open2 = (engine) => ({ close, store: new BasicCache(engine, settings) });
    const register = (opened2) => {
      this.stores.set(name, opened2);
      this.opened.add(opened2);
    };
    if (source === "memory") {
      const opened2 = open2(new MemoryStore(settings, prefix ? `${prefix}:` : ""));
      register(opened2);
      return { store: opened2.store, ready: Promise.resolve() };
    }
    if (typeof source !== "function") throw unavailable(type, source);
    const making = (async () => source(settings))();
    const opened = open2(pendingStore(making));
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
  const reason = source === void 0 ? "" : `: this version has no ${String(source)} store yet`;
  const message = `Create cache failed, store type [${type}] is unavailable or not registered${reason}`;
  return new MortiseError("E_STORE_UNAVAILABLE", message);
}

// lib/event-queue/memory-adapter.ts
var import_node_crypto = require("node:crypto");
var import_node_path3 = require("node:path");

// lib/event-queue/channel.ts
var TURN = 256;
var DEFAULT_INTERVAL = 250;
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
  /** Messages that wait or are to be tried again. */
  waiting = 0;
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
  /** There may be something to do: looks in the next microtask. */
  wake() {
    if (this.scheduled || !this.event || !this.host.fetching) return;
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
  /** Node stays alive while a message waits that somebody is to process. */
  holdIfNeeded() {
    const needed = this.waiting > 0 && this.event !== void 0 && this.host.fetching;
    if (needed === this.holding) return;
    this.holding = needed;
    if (needed) hold();
    else release();
  }
  run = () => {
    this.scheduled = false;
    while (this.event && this.host.fetching && this.waiting > 0) {
      if (this.begun >= TURN) return;
      if (!this.isIdle(this.event)) return this.askLater(this.event);
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
  isIdle(event) {
    if (typeof event.idle !== "function") return true;
    try {
      return Boolean(event.idle());
    } catch (error) {
      this.host.logger?.error(`idle of event queue channel ${this.name} failed`, error);
      return false;
    }
  }
  askLater({ interval }) {
    const delay = typeof interval === "number" && interval >= 0 ? interval : DEFAULT_INTERVAL;
    this.timer ??= setTimeout(() => {
      this.timer = void 0;
      this.wake();
    }, Math.min(delay, 2 ** 31 - 1)).unref();
  }
};

// lib/event-queue/dead-letters.ts
var MOST = 1e4;
var DeadLetters = class {
  constructor(publishAgain, forget) {
    this.publishAgain = publishAgain;
    this.forget = forget;
  }
  publishAgain;
  forget;
  letters = /* @__PURE__ */ new Map();
  /** How many there are. */
  get size() {
    return this.letters.size;
  }
  /** All of them, the oldest first. */
  list() {
    return [...this.letters.values()].map(({ id, content, options }) => ({ id, content, options }));
  }
  /** Publishes one (or all, without an id) again, with its retries before it. Resolves to how many. */
  async replay(id) {
    const chosen = id === void 0 ? [...this.letters.values()] : [this.letters.get(id)];
    let count2 = 0;
    for (const letter of chosen) {
      if (!letter) continue;
      await this.publishAgain(letter);
      this.remove(letter.id);
      count2++;
    }
    return count2;
  }
  /** Forgets one, or all without an id. Returns how many. */
  drop(id) {
    const chosen = id === void 0 ? [...this.letters.keys()] : [id];
    return chosen.filter((one) => this.remove(one)).length;
  }
  /** Adds one; returns the one that had to go for it. @internal */
  add(letter) {
    this.letters.set(letter.id, letter);
    if (this.letters.size <= MOST) return void 0;
    const [oldest] = this.letters.values();
    this.remove(oldest.id);
    return oldest;
  }
  remove(id) {
    const letter = this.letters.get(id);
    if (!letter) return false;
    this.letters.delete(id);
    if (letter.seq > 0) this.forget(letter.seq);
    return true;
  }
};

// lib/event-queue/job.ts
var Job = class {
  constructor(channel, id, content, options, retried, seq) {
    this.channel = channel;
    this.id = id;
    this.content = content;
    this.options = options;
    this.retried = retried;
    this.seq = seq;
  }
  channel;
  id;
  content;
  options;
  retried;
  seq;
  /** Rust's number for it, while it waits or runs. */
  slot = -1;
  /** How many jobs have had the slot, this one among them. */
  uses = 0;
  running = false;
  /** Given up by `close`: what its handler still says counts for nothing. */
  abandoned = false;
  timedOut = false;
  /** The abort controller, when the handler has asked for the signal. */
  controller;
  /** Whether it was processed in the end; `undefined` until it has ended. */
  processed;
  /** Told of the end, when `publish` waits for it. */
  onEnd;
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
  /** The handler has had its time. */
  timeOut() {
    this.timedOut = true;
    this.controller?.abort(timeoutError());
  }
  signal() {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.timedOut) this.timeOut();
    }
    return this.controller.signal;
  }
};
function timeoutError() {
  return new DOMException("The operation was aborted due to timeout", "TimeoutError");
}

// lib/event-queue/journal.ts
var DONE = -1;
var DEAD = -2;
var Journal = class {
  entries;
  /** Where a file that could not be read was put. */
  setAside;
  handle;
  written = new Completions();
  appends = new Batch((commands, text2, numbers2) => binding.journalAppend(this.handle, this.written.listener, commands, text2, numbers2));
  changes = new Batch((commands, text2, numbers2) => binding.journalChange(this.handle, commands, text2, numbers2));
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
    return this.written.wait((sequence) => this.appends.add([sequence, job.seq, job.retried, content === void 0 ? 0 : 1], job.channel, content ?? "", options));
  }
  done(seq) {
    this.changes.add([seq, DONE]);
  }
  dead(seq) {
    this.changes.add([seq, DEAD]);
  }
  retried(seq, times) {
    this.changes.add([seq, times]);
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
    const text2 = `the message for event queue channel ${channel} cannot be written as JSON`;
    throw new MortiseError("E_NOT_SERIALIZABLE", text2, { cause });
  }
}

// lib/event-queue/snapshot.ts
var import_promises = require("node:fs/promises");
var import_node_path2 = require("node:path");
async function readSnapshot(path, logger) {
  let text2;
  try {
    text2 = await (0, import_promises.readFile)(path, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return {};
    throw Object.assign(error, { message: `the event queue's file ${path} cannot be read: ${error.message}` });
  }
  let snapshot;
  try {
    snapshot = parse(text2);
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
  const text2 = `{${Object.entries(present).map(([channel, messages]) => `${JSON.stringify(channel)}:[${messages.flatMap((message) => serialize2(channel, message, logger)).join(",")}]`).join(",")}}`;
  await (0, import_promises.mkdir)((0, import_node_path2.dirname)(path), { recursive: true });
  const temporary = `${path}.${process.pid}.tmp`;
  const file = await (0, import_promises.open)(temporary, "w");
  try {
    await file.writeFile(text2);
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
function parse(text2) {
  const value = JSON.parse(text2);
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
var MemoryEventQueueAdapter = class _MemoryEventQueueAdapter {
  constructor(options = {}) {
    this.options = options;
    const { closeTimeout = CLOSE_TIMEOUT } = options;
    if (typeof closeTimeout !== "number" || !(closeTimeout >= 0)) {
      throw invalid(`closeTimeout is a number of milliseconds: ${String(closeTimeout)}`);
    }
    const listener = listenWeakly(this, _MemoryEventQueueAdapter.heard);
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
      await Promise.all(Object.entries(saved).flatMap(([channel, messages]) => messages.map(({ id, content, options }) => this.enqueue(channel, id ?? (0, import_node_crypto.randomUUID)(), content, options ?? {}))));
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
  /** Resolves when the message waits; with a journal, when it is on disk. Rejects with `E_CLOSED` when not connected. */
  async publish(channel, message, options = {}) {
    if (!this.connected) {
      throw new MortiseError("E_CLOSED", `event queue not connected, cannot publish on channel "${channel}"`);
    }
    await this.enqueue(channel, (0, import_node_crypto.randomUUID)(), message, options);
  }
  /** The dead letters of a channel. */
  deadLetters(channel) {
    let letters = this.letters.get(channel);
    if (!letters) {
      const again = ({ content, options }) => this.publish(channel, content, { ...options, retried: 0 });
      letters = new DeadLetters(again, (seq) => this.journal?.done(seq));
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
  /** Puts a message into its channel; the promise is that of the journal, where there is one. */
  enqueue(channel, id, content, options) {
    const { journal } = this;
    const text2 = journal && serialize(channel, content);
    const optionsText = journal && serialize(channel, options);
    const job = new Job(channel, id, content, options, options.retried ?? 0, journal ? journal.number() : 0);
    this.place(job);
    return journal && this.write(journal, job, text2, optionsText);
  }
  place(job) {
    const { timeout = DEFAULT_TIMEOUT, maxRetries = 0 } = job.options;
    const channel = this.channel(job.channel);
    const retries = Math.min(Math.max(maxRetries, 0), 2 ** 32 - 1);
    job.slot = binding.queuePublish(this.host.handle, channel.number, job.retried, retries, timeout);
    job.uses = this.uses[job.slot] = (this.uses[job.slot] ?? 0) + 1;
    this.host.jobs[job.slot] = job;
    channel.waiting++;
    channel.wake();
  }
  /**
   * The handler does not wait for the disk. When the disk fails, a message that has not begun is
   * taken back; of one that has begun, the handler decides.
   */
  async write(journal, job, content, options) {
    try {
      await journal.append(job, content, options);
    } catch (error) {
      if (this.isPlaced(job) && !job.running && binding.queueRemove(this.host.handle, job.slot)) {
        this.forget(job);
        this.channel(job.channel).waiting--;
        this.channel(job.channel).holdIfNeeded();
        throw error;
      }
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
      binding.queueSucceed(this.host.handle, job.slot);
      this.forget(job);
      if (job.seq > 0) this.journal?.done(job.seq);
      job.end(true);
    } else this.fail(job, channel, error);
    channel.wake();
    if (this.whenQuiet && !this.anyRunning()) this.whenQuiet();
  }
  fail(job, channel, error) {
    const retried = binding.queueFail(this.host.handle, job.slot);
    if (retried > 0) {
      job.retried = retried;
      job.timedOut = false;
      job.controller = void 0;
      channel.waiting++;
      if (job.seq > 0) this.journal?.retried(job.seq, retried);
      this.options.logger?.warn(`message ${job.id} of event queue channel ${job.channel} failed, and will be tried again`, error);
      return;
    }
    this.options.logger?.error(`message ${job.id} of event queue channel ${job.channel} failed for good, and is a dead letter`, error);
    this.forget(job);
    if (job.seq > 0) this.journal?.dead(job.seq);
    job.end(false);
    this.bury(job);
  }
  bury({ channel, id, content, options, seq }) {
    const dropped = this.deadLetters(channel).add({ id, content, options, seq });
    if (dropped) this.options.logger?.warn(`event queue channel ${channel} has too many dead letters, ${dropped.id} was dropped`);
  }
  isPlaced(job) {
    return this.host.jobs[job.slot] === job;
  }
  forget(job) {
    if (this.isPlaced(job)) this.host.jobs[job.slot] = void 0;
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
        if (job.running) {
          const text2 = `message ${job.id} of event queue channel ${job.channel} was not finished when the queue closed, and will be processed again`;
          this.options.logger?.warn(text2);
        }
        this.forget(job);
        job.abandoned = true;
        job.end(false);
      }
      channel.waiting = 0;
      channel.holdIfNeeded();
      if (jobs.length > 0) {
        rest[channel.name] = jobs.map(({ id, content, options, retried }) => ({ id, content, options: { ...options, retried } }));
      }
    }
    return rest;
  }
  openJournal() {
    const path = this.path("event-queue.db");
    const journal = new Journal(path);
    this.journal = journal;
    if (journal.setAside) this.options.logger?.error(`the journal ${path} is unreadable and was set aside as ${journal.setAside}`);
    for (const { seq, channel, content, options, retried, dead } of journal.entries) {
      const value = content === null ? void 0 : JSON.parse(content);
      const job = new Job(channel, (0, import_node_crypto.randomUUID)(), value, JSON.parse(options), retried, seq);
      if (dead) this.bury(job);
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
var active = /* @__PURE__ */ new Set();

// lib/event-queue/queue.ts
var DEFAULT_TIMEOUT2 = 15e3;
var DEFAULT_CONCURRENCY = 1;
var DEFAULT_INTERVAL2 = 250;
var EventQueue = class {
  constructor(app, options = {}) {
    this.app = app;
    this.options = options;
    const { adapter = "memory" } = options;
    if (adapter === "memory") {
      const { journal, storagePath, closeTimeout } = options;
      this.adapter = new MemoryEventQueueAdapter({ journal, storagePath, closeTimeout, appName: app.name, logger: app.logger });
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
  getFullChannel(channel, shared = false) {
    return [shared ? void 0 : this.app.name, this.options.channelPrefix, checkChannel(channel)].filter(Boolean).join(".");
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
   * Puts a message at the end of a channel. Resolves when the adapter has stored it.
   *
   * Rejects with `E_NO_ADAPTER`, `E_CLOSED` (`event queue not connected, cannot publish`),
   * `E_NOT_SUBSCRIBED`, or what the adapter rejects with: on the journal `E_NOT_SERIALIZABLE` and
   * `E_JOURNAL`.
   */
  async publish(channel, message, options = {}) {
    const { adapter } = this;
    if (!adapter) throw new MortiseError("E_NO_ADAPTER", "no adapter set, cannot publish");
    checkChannel(channel);
    if (!adapter.isConnected()) throw new MortiseError("E_CLOSED", "event queue not connected, cannot publish");
    const event = this.events.get(channel);
    if (!event) {
      throw new MortiseError("E_NOT_SUBSCRIBED", `event queue not subscribed on channel "${channel}", cannot publish`);
    }
    const { timeout = DEFAULT_TIMEOUT2, maxRetries = 0 } = options ?? {};
    checkMessage(channel, timeout, maxRetries);
    await adapter.publish(this.getFullChannel(channel, event.shared), message, { ...options, timeout, maxRetries, timestamp: Date.now() });
  }
  inTurn(action) {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => void 0);
    return turn;
  }
  /** The dead letters of a channel: to list, replay and drop. Throws `E_UNSUPPORTED` where the adapter keeps none. */
  deadLetters(channel) {
    const { adapter } = this;
    if (adapter instanceof MemoryEventQueueAdapter) {
      return adapter.deadLetters(this.getFullChannel(channel, this.events.get(channel)?.shared));
    }
    throw new MortiseError("E_UNSUPPORTED", `the event queue adapter keeps no dead letters for channel "${channel}"`);
  }
};
function checkChannel(channel) {
  if (typeof channel !== "string" || channel === "") throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}
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
function checkMessage(channel, timeout, maxRetries) {
  if (typeof timeout !== "number" || !(timeout >= 0)) {
    throw invalid(`the timeout of a message on channel "${channel}" is a number of milliseconds: ${String(timeout)}`);
  }
  if (typeof maxRetries !== "number" || !(maxRetries >= 0)) {
    throw invalid(`maxRetries of a message on channel "${channel}" is a number, 0 or more: ${String(maxRetries)}`);
  }
}

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
function make(kind, code, message, key) {
  return Object.assign(new classes[kind](message), { code, key });
}
var lockFailures = {
  locked: (key) => make("LockAcquireError", "E_LOCK_LOCKED", "lock is locked", key),
  timedOut: (key) => make("LockAcquireError", "E_LOCK_TIMEOUT", "lock acquire timed out", key),
  notActive: (key) => make("LockAcquireError", "E_LOCK_NOT_ACTIVE", "lock is not active", key),
  closed: (key) => make("LockAbortError", "E_LOCK_ABORTED", `lock "${key}" was not acquired: its adapter was closed`, key),
  lapsed: (key) => make("LockAbortError", "E_LOCK_ABORTED", `lock "${key}" has lapsed while it was held`, key)
};

// lib/lock/exclusive.ts
var Exclusive = class {
  #grant;
  #key;
  #watched;
  #controller;
  #lapsed = false;
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
        this.#lapsed = !this.#grant.watch(() => this.lapse());
      }
      if (this.#lapsed) this.lapse();
    }
    return this.#controller.signal;
  }
  /** The lease has lapsed. */
  lapse() {
    this.#lapsed = true;
    this.#controller?.abort(lockFailures.lapsed(this.#key));
  }
  /** The function has settled: the end of the lease does not concern it any more. */
  settle() {
    if (this.#watched) this.#grant.unwatch();
    this.#watched = true;
    this.#grant.release();
  }
};

// lib/lock/local-locks.ts
var { lockRequest, lockRelease, lockExtend, lockWatch } = binding;
var GRANTED = 1;
var WAITING = 2;
var HANDED_OVER = 2;
var TIMED_OUT = -1;
var Grant = class {
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
    const held2 = lockWatch(locks, this.slot, this.token);
    if (held2) watched.set(this.token, lapsed);
    return held2;
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
  if (answer === GRANTED) return convert(new Grant(cells[0], cells[1]), key);
  if (answer !== WAITING) throw lockFailures.locked(key);
  const place = new Grant(cells[0], cells[1]);
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
  wait.resolve(wait.convert(slot === wait.place.slot ? wait.place : new Grant(slot, token), wait.key));
}
function hear(token, news) {
  if (news >= 0) return handOver(token, news);
  if (news === TIMED_OUT) {
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
function releaser(grant) {
  const release2 = () => grant.release();
  release2.fencingToken = grant.token;
  return release2;
}

// lib/lock/local-lock.ts
var LocalLock = class {
  #by;
  #key;
  #grant;
  #reserved = true;
  constructor(by, grant, key) {
    this.#by = by;
    this.#grant = grant;
    this.#key = key;
  }
  get fencingToken() {
    return this.#grant.token;
  }
  async acquire(ttl = DEFAULT_TTL) {
    return releaser(await this.#lease(ttl));
  }
  async runExclusive(fn, ttl = DEFAULT_TTL) {
    checkFunction(fn);
    const exclusive = new Exclusive(await this.#lease(ttl), this.#key, false);
    try {
      return await fn(exclusive);
    } finally {
      exclusive.settle();
    }
  }
  async extend(ttl) {
    checkTtl2(ttl);
    if (this.#reserved || !this.#grant.extend(ttl)) throw lockFailures.notActive(this.#key);
  }
  async release() {
    this.#reserved = false;
    this.#grant.release();
  }
  #lease(ttl) {
    checkTtl2(ttl);
    if (this.#reserved) {
      this.#reserved = false;
      if (this.#grant.extend(ttl)) return this.#grant;
    }
    return request(this.#by, this.#key, Infinity, ttl, (grant) => this.#grant = grant);
  }
};

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
    try {
      return await fn(exclusive);
    } finally {
      exclusive.settle();
    }
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
  #reserve = (grant, key) => new LocalLock(this, grant, key);
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

// lib/lock/manager.ts
var KNOWN = ["defaultAdapter", "logger", "maxHold", "redis", "url"];
var PLANNED = /* @__PURE__ */ new Set(["redis"]);
var LockManager = class {
  #name;
  #registry = /* @__PURE__ */ new Map();
  /** The connected adapter. */
  #adapter;
  #connecting;
  constructor(options = {}) {
    const unknown = Object.keys(options).filter((name) => !KNOWN.includes(name));
    if (unknown.length > 0) {
      throw invalid(`unknown option of LockManager: ${unknown.join(", ")}; known are ${KNOWN.join(", ")}`);
    }
    const { defaultAdapter, logger, maxHold } = options;
    if (defaultAdapter != null && typeof defaultAdapter !== "string") {
      throw invalid("defaultAdapter must be the name of a lock adapter");
    }
    if (maxHold !== void 0) checkTtl2(maxHold, "maxHold");
    this.#name = defaultAdapter || "local";
    this.registerAdapter("local", { Adapter: LocalLockAdapter, options: { logger, maxHold } });
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
      (error) => {
        if (this.#connecting === connecting) this.#connecting = void 0;
        throw error;
      }
    );
    return connecting;
  }
  #config() {
    const config = this.#registry.get(this.#name);
    if (config) return config;
    if (PLANNED.has(this.#name)) {
      const message = `Lock adapter "${this.#name}" is not available in this version; register one, or use "local"`;
      throw new MortiseError("E_ADAPTER_UNAVAILABLE", message);
    }
    throw new MortiseError("E_ADAPTER_NOT_REGISTERED", `Lock adapter "${this.#name}" not registered`);
  }
};

// lib/pub-sub/manager.ts
var import_node_crypto2 = require("node:crypto");

// lib/pub-sub/delivery.ts
var delivered = listen(release);
function publishing(publish) {
  hold();
  let underWay = false;
  try {
    underWay = publish();
  } finally {
    if (!underWay) release();
  }
  return underWay;
}

// lib/pub-sub/memory-adapter.ts
var MemoryPubSubAdapter = class {
  /** @internal */
  member;
  connected = false;
  hearings = /* @__PURE__ */ new Map();
  byId = /* @__PURE__ */ new Map();
  listener;
  nextId = 0;
  /** `bus`: who hears each other; default one for the process. */
  constructor(options = {}) {
    this.member = binding.memoryBusJoin(options.bus ?? "");
  }
  isConnected() {
    return this.connected;
  }
  async connect() {
    binding.memoryBusConnect(this.member);
    this.connected = true;
  }
  async close() {
    this.connected = false;
    binding.memoryBusClose(this.member);
  }
  async subscribe(channel, callback) {
    const present = this.hearings.get(channel);
    if (present) {
      present.callbacks.add(callback);
      return;
    }
    this.listener ??= listen((id, _, text2) => this.hear(id, text2));
    const hearing = { id: this.nextId++, callbacks: /* @__PURE__ */ new Set([callback]) };
    this.hearings.set(channel, hearing);
    this.byId.set(hearing.id, hearing);
    binding.memoryBusSubscribe(this.member, channel, this.listener, hearing.id);
  }
  async unsubscribe(channel, callback) {
    const hearing = this.hearings.get(channel);
    if (!hearing?.callbacks.delete(callback) || hearing.callbacks.size > 0) return;
    binding.memoryBusUnsubscribe(this.member, channel);
    this.hearings.delete(channel);
    this.byId.delete(hearing.id);
    if (this.hearings.size > 0 || this.listener === void 0) return;
    unlisten(this.listener);
    this.listener = void 0;
  }
  /** Rejects with `E_CLOSED` when the adapter is not connected. */
  async publish(channel, text2) {
    if (!publishing(() => binding.memoryBusPublish(this.member, delivered, channel, text2))) {
      throw new MortiseError("E_CLOSED", `the pub/sub adapter is not connected, cannot publish on ${channel}`);
    }
  }
  hear(id, text2) {
    if (!this.connected) return;
    for (const callback of this.byId.get(id)?.callbacks ?? []) void callback(text2);
  }
};

// lib/pub-sub/manager.ts
var flagsOf = (skipSelf, onlySelf, absent) => flag(skipSelf) | flag(onlySelf) << 2 | (absent ? 16 : 0);
var flag = (value) => value === void 0 || value === null ? 0 : value ? 1 : 2;
var PubSubManager = class _PubSubManager {
  constructor(app, options = {}) {
    this.app = app;
    this.options = options;
    const listener = listenWeakly(this, _PubSubManager.heard);
    const handle = binding.pubSubNew(this.publisherId, listener);
    this.handle = handle;
    this.handlerManager = { uniqueMessageHandlers: { get size() {
      return binding.pubSubOpenWindows(handle);
    } } };
    const { adapter } = options;
    if (adapter === "memory") this.setAdapter(new MemoryPubSubAdapter({ bus: options.bus }));
    else if (typeof adapter === "string") throw unavailable2(adapter);
    else if (adapter) this.setAdapter(adapter);
  }
  app;
  options;
  /** Tells this manager's messages from those of others. */
  publisherId = (0, import_node_crypto2.randomUUID)();
  /** `uniqueMessageHandlers.size` is the number of open debounce windows. */
  handlerManager;
  adapter;
  handle;
  byId = /* @__PURE__ */ new Map();
  byChannel = /* @__PURE__ */ new Map();
  /** The channels heard through an adapter written in JavaScript. */
  heard = /* @__PURE__ */ new Map();
  open = false;
  nextId = 0;
  turn = Promise.resolve();
  batch = new Batch((commands, text2, numbers2) => {
    const { adapter } = this;
    if (!(adapter instanceof MemoryPubSubAdapter) || !adapter.isConnected()) return;
    publishing(() => {
      binding.pubSubPublish(this.handle, adapter.member, delivered, commands, text2, numbers2);
      return true;
    });
  });
  /** The default of `skipSelf` when publishing. */
  get skipSelf() {
    return this.options.skipSelf ?? false;
  }
  /** The name under which the adapter knows a channel: app, prefix and channel, joined by `.`. */
  getFullChannel(channel) {
    return [this.app.name, this.options.channelPrefix, checkChannel2(channel)].filter(Boolean).join(".");
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
      connected.add(this);
      for (const channel of this.byChannel.keys()) await this.hear(channel);
    });
  }
  /** Nothing is delivered from the call on; open debounce windows are cancelled. May be repeated. */
  close() {
    this.open = false;
    connected.delete(this);
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
    const full = this.getFullChannel(channel);
    this.forget(full, callback);
    const subscription = { id: this.nextId++, channel: full, callback };
    this.byId.set(subscription.id, subscription);
    const present = this.byChannel.get(full);
    if (present) present.set(callback, subscription);
    else this.byChannel.set(full, /* @__PURE__ */ new Map([[callback, subscription]]));
    binding.pubSubSubscribe(this.handle, full, subscription.id, Math.min(window, 2 ** 41), options?.leading === true);
    if (this.open) await this.inTurn(() => this.hear(full));
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
      if (heard) await this.adapter?.unsubscribe(full, heard);
    });
  }
  /**
   * Publishes a message, which is anything that JSON can hold. Resolves when the adapter has it;
   * without a connection it warns in the log, and resolves too.
   *
   * Rejects with `E_NOT_SERIALIZABLE` for what JSON cannot hold.
   */
  async publish(channel, message, options = {}) {
    const full = this.getFullChannel(channel);
    const text2 = serialize3(channel, message);
    const { skipSelf = this.skipSelf, onlySelf } = options ?? {};
    const { adapter } = this;
    if (adapter instanceof MemoryPubSubAdapter) {
      if (!this.open || !adapter.isConnected()) return this.warnUnconnected(full);
      this.batch.add([flagsOf(skipSelf, onlySelf, text2 === void 0)], full, text2 ?? "");
      return;
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
    if (this.heard.has(channel) || !this.adapter) return;
    const callback = (text2) => {
      if (this.open) binding.pubSubReceive(this.handle, channel, text2);
    };
    this.heard.set(channel, callback);
    try {
      if (this.adapter instanceof MemoryPubSubAdapter) binding.pubSubHear(this.handle, this.adapter.member, channel);
      else await this.adapter.subscribe(channel, callback);
    } catch (error) {
      this.heard.delete(channel);
      throw error;
    }
  }
  static heard(self, id, _, payload) {
    self.deliver(id, payload);
  }
  deliver(id, text2) {
    if (!this.open) return;
    if (id < 0) return this.app.logger?.warn(`pub/sub: a text that is no message was dropped, ${text2}`);
    const subscription = this.byId.get(id);
    if (!subscription) return;
    const failed = (error) => this.app.logger?.error(`the subscriber of pub/sub channel ${subscription.channel} failed`, error);
    try {
      const result = subscription.callback(text2 === void 0 ? void 0 : JSON.parse(text2));
      if (typeof result?.then === "function") result.then(void 0, failed);
    } catch (error) {
      failed(error);
    }
  }
  inTurn(action) {
    const turn = this.turn.then(action);
    this.turn = turn.catch(() => void 0);
    return turn;
  }
};
var connected = /* @__PURE__ */ new Set();
function checkChannel2(channel) {
  if (typeof channel !== "string" || channel === "") throw invalid(`a channel is a string that is not empty: ${String(channel)}`);
  return channel;
}
function serialize3(channel, message) {
  try {
    return JSON.stringify(message);
  } catch (cause) {
    const text2 = `the message for channel ${channel} cannot be written as JSON`;
    throw new MortiseError("E_NOT_SERIALIZABLE", text2, { cause });
  }
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
    const listener = (plugin) => this.subscribePlugin(plugin);
    app.on("beforeLoadPlugin", Object.assign(listener, { _reinitializable: true }));
  }
  app;
  debounce;
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
  async subscribe(channel, callback) {
    await this.app.pubSubManager.subscribe(this.channel(channel), callback, { debounce: this.debounce });
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
    await this.subscribe(plugin.name, async (message) => {
      if (this.app.stopped || this.app.db?.closed?.()) return;
      await plugin.handleSyncMessage?.(message);
    });
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
  const text2 = `Publish message to ${channel} timeout, channel: ${channel}, message: ${safeJson(message)}`;
  return new MortiseError("E_TRANSACTION_TIMEOUT", text2);
}
function safeJson(value) {
  try {
    return JSON.stringify(value);
  } catch {
    return String(value);
  }
}

// lib/worker-id/index.ts
var WORKER_IDS = 32;
var WorkerIdAllocator = class {
  adapter;
  constructor(options = {}) {
    if (typeof options.adapter === "string") {
      const message = `worker id adapter "${String(options.adapter)}" is not available in this version`;
      throw new MortiseError("E_ADAPTER_UNAVAILABLE", message);
    }
    if (options.adapter) this.setAdapter(options.adapter);
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

// lib/app/logger.ts
var stderrLogger = {
  debug: () => void 0,
  info: () => void 0,
  warn: (message, details) => write("warn", message, details),
  error: (message, details) => write("error", message, details)
};
function write(level, message, details) {
  const cause = details instanceof Error || isErrorOfAnotherRealm(details) ? details : void 0;
  const text2 = cause?.stack ?? (details === void 0 ? "" : safeJson2(details));
  process.stderr.write(`[mortise] ${level}: ${maskSecrets(text2 ? `${message} ${text2}` : message)}
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
function maskSecrets(text2) {
  return text2.replace(/(\b[a-z][a-z0-9+.-]*:\/\/[^\s:@/]*):[^\s@/]+@/gi, "$1:***@");
}

// lib/app/options.ts
var KNOWN2 = {
  name: void 0,
  logger: void 0,
  redis: void 0,
  cacheManager: ["defaultStore", "prefix", "stores"],
  pubSubManager: ["adapter", "url", "bus", "channelPrefix", "skipSelf"],
  syncMessageManager: ["debounce"],
  eventQueue: ["adapter", "url", "channelPrefix", "journal", "storagePath", "closeTimeout"],
  lockManager: ["defaultAdapter", "url", "maxHold", "logger"],
  workerIdAllocator: ["adapter", "url"]
};
function resolveOptions(options, environment = process.env) {
  checkNames("", options, Object.keys(KNOWN2));
  for (const [name, known] of Object.entries(KNOWN2)) {
    const given = options[name];
    if (known && given !== void 0) checkNames(`${name}.`, given, known);
  }
  if (options.name !== void 0 && (typeof options.name !== "string" || options.name === "")) {
    throw invalid(`the option name is a string that is not empty: ${String(options.name)}`);
  }
  const redis = options.redis ?? text(environment.REDIS_URL);
  const fallback = (variable) => text(environment[variable]) ?? redis;
  return {
    ...options,
    redis,
    cacheManager: cacheOptions(options.cacheManager ?? {}, environment, fallback("CACHE_REDIS_URL")),
    pubSubManager: defined({ url: fallback("PUBSUB_ADAPTER_REDIS_URL"), ...options.pubSubManager }),
    syncMessageManager: { ...options.syncMessageManager },
    eventQueue: queueOptions(options.eventQueue ?? {}, environment, redis),
    lockManager: defined({
      defaultAdapter: text(environment.LOCK_ADAPTER_DEFAULT),
      url: fallback("LOCK_ADAPTER_REDIS_URL"),
      ...options.lockManager
    }),
    workerIdAllocator: defined({ url: redis, ...options.workerIdAllocator })
  };
}
function cacheOptions(given, environment, url) {
  const max = text(environment.CACHE_MEMORY_MAX);
  const stores = { ...given.stores };
  if (max !== void 0) stores.memory = { max: Number(max), ...stores.memory };
  if (url !== void 0) stores.redis = { url, ...stores.redis };
  return defined({ defaultStore: text(environment.CACHE_DEFAULT_STORE), ...given, stores });
}
function queueOptions(given, environment, redis) {
  const adapter = given.adapter ?? text(environment.QUEUE_ADAPTER);
  const variable = adapter === "rabbitmq" ? "QUEUE_ADAPTER_RABBITMQ_URL" : "QUEUE_ADAPTER_REDIS_URL";
  const url = text(environment[variable]) ?? (adapter === "rabbitmq" ? void 0 : redis);
  return defined({ url, ...given, adapter });
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
function text(value) {
  return value === "" ? void 0 : value;
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
var Application = class extends import_node_events2.EventEmitter {
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
    this.cacheManager = new CacheManager({ prefix: this.name, ...resolved.cacheManager });
    this.cache = this.cacheManager.createCacheSync({ name: this.name });
    this.pubSubManager = new PubSubManager(this, { adapter: "memory", skipSelf: true, ...resolved.pubSubManager });
    this.syncMessageManager = new SyncMessageManager(this, resolved.syncMessageManager);
    this.eventQueue = new EventQueue(this, resolved.eventQueue);
    this.lockManager = new LockManager({ logger: this.logger, ...resolved.lockManager });
    this.workerIdAllocator = new WorkerIdAllocator(resolved.workerIdAllocator);
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

// lib/app/install.ts
var installed = /* @__PURE__ */ new WeakMap();
function install(app, options = {}) {
  if (typeof app?.on !== "function") throw invalid("install takes an application, which has the method on");
  const present = installed.get(app);
  if (present) return present;
  const { name = app.name ?? "main", logger = app.logger, ...resolved } = resolveOptions(options);
  const view = hostView(app, name, logger);
  const cacheManager = new CacheManager({ prefix: name, ...resolved.cacheManager });
  const services = {
    cacheManager,
    cache: cacheManager.createCacheSync({ name }),
    pubSubManager: new PubSubManager(view, { adapter: "memory", skipSelf: false, ...resolved.pubSubManager }),
    syncMessageManager: void 0,
    eventQueue: new EventQueue(view, resolved.eventQueue),
    lockManager: new LockManager({ logger, ...resolved.lockManager }),
    workerIdAllocator: new WorkerIdAllocator(resolved.workerIdAllocator)
  };
  for (const [member, service] of Object.entries(services)) if (service) put(app, member, service);
  services.syncMessageManager = new SyncMessageManager(view, resolved.syncMessageManager);
  put(app, "syncMessageManager", services.syncMessageManager);
  listen2(app, services);
  installed.set(app, services);
  return services;
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
function listen2(app, services) {
  const on = (event, action) => {
    const listener = async () => {
      await action();
    };
    app.on(event, Object.assign(listener, { _reinitializable: true }));
  };
  on("afterStart", async () => {
    await services.pubSubManager.connect();
    await services.eventQueue.connect();
  });
  on("beforeStop", async () => {
    await services.pubSubManager.close();
    await services.eventQueue.close();
  });
  on("afterStop", async () => {
    await services.lockManager.close();
    await services.cacheManager.close();
    await services.workerIdAllocator.release();
  });
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
  Plugin,
  PluginManager,
  PubSubManager,
  SyncMessageManager,
  WorkerIdAllocator,
  createApp,
  install,
  isTransient,
  maskSecrets,
  serving
});
