// The memory store: values stay where JavaScript can return them at once; Rust decides, in terms
// of slots, which of them stay and for how long (`src/cache/memory.rs`).

import { invalid } from '../errors';
import type { Handle } from '../native';
import { binding } from './binding';
import { hasPassed } from './clock';
import { clone } from './clone';
import { filterKeys } from './pattern';

/** Options of a memory store. */
export interface MemoryStoreOptions {
  /** The most entries it holds, 1 to 2147483647; the least recently used go first. Default 2000. */
  max?: number;
  /** Time to live of entries set without one, in milliseconds; 0 (default): they stay. */
  ttl?: number;
  /** Whether `set` keeps a deep copy, so that changing the original later changes nothing. Default true. */
  shouldCloneBeforeSet?: boolean;
  /** Which values may be stored. Default: all but `undefined`. */
  isCacheable?: (value: unknown) => boolean;
}

/** The default of {@link MemoryStoreOptions.max}. */
export const DEFAULT_MAX = 2000;
const LARGEST_MAX = 2 ** 31 - 1;
const FIRST_SLOTS = 64;
/** How long lapsed entries may lie before they are swept, in milliseconds. Nobody sees them. */
const SWEEP_INTERVAL = 1000;

type Index = Map<string, number>;

/** A key that does not begin with the store's prefix; such keys have a table of their own. */
class ForeignKey {
  constructor(readonly key: string) {}
}

/**
 * Entries by key, in this process. Every change has taken effect when the call returns; the
 * promises are there for the interface.
 *
 * The keys of the cache that the store belongs to are kept without their prefix, so that a look-up
 * does not join and hash a new string each time: half of a hit's cost otherwise.
 */
export class MemoryStore {
  readonly name = 'memory';
  /** Whether a value may be stored. */
  readonly isCacheable: (value: unknown) => boolean;
  private readonly own: Index = new Map();
  private readonly foreign: Index = new Map();
  private keyOf: (string | ForeignKey | undefined)[] = [];
  private values: unknown[] = [];
  /** By slot: when the entry lapses, on the scale of `performance.now()`; 0: never. Rust reads it. */
  private deadlines!: Float64Array;
  /** By slot: set by each use; Rust reads and clears it. */
  private marks!: Uint8Array;
  private readonly handle: Handle;
  private readonly max: number;
  private readonly defaultTtl: number;
  private readonly clones: boolean;
  /** Slots that have ever been in use; Rust gives the next one out when none of them is free. */
  private used = 0;
  private sweeper: NodeJS.Timeout | undefined;

  /** `prefix` is that of the cache the store belongs to, with its `:`. */
  constructor(options: MemoryStoreOptions = {}, private readonly prefix = '') {
    this.max = checkMax(options.max ?? DEFAULT_MAX);
    this.defaultTtl = checkTtl(options.ttl ?? 0);
    this.clones = options.shouldCloneBeforeSet ?? true;
    this.isCacheable = options.isCacheable ?? ((value) => value !== undefined);
    this.handle = binding.memoryNew(this.max);
    this.grow(FIRST_SLOTS);
  }

  /** The number of entries, lapsed ones that were not swept yet among them. */
  get size(): number {
    return this.own.size + this.foreign.size;
  }

  async get<T = any>(key: string): Promise<T | undefined> {
    return this.read(key) as T | undefined;
  }

  async set(key: string, value: unknown, ttl?: number): Promise<void> {
    this.write(key, value, ttl);
  }

  async del(key: string): Promise<void> {
    this.remove(key);
  }

  async mget(...keys: string[]): Promise<unknown[]> {
    return keys.map((key) => this.read(key));
  }

  async mset(entries: [string, unknown][], ttl?: number): Promise<void> {
    checkEntries(entries);
    for (const [, value] of entries) this.checkCacheable(value);
    for (const [key, value] of entries) this.write(key, value, ttl);
  }

  async mdel(...keys: string[]): Promise<void> {
    for (const key of keys) this.remove(key);
  }

  async reset(): Promise<void> {
    this.clear();
  }

  /** The keys, with their prefix, that fit the glob pattern. */
  async keys(pattern?: string): Promise<string[]> {
    return filterKeys(this.listKeys(), pattern);
  }

  /** Milliseconds left; `Infinity` without expiry, 0 when absent. */
  async ttl(key: string): Promise<number> {
    return this.remaining(key);
  }

  // What follows is the same without promises, and for bare keys (the cache's own, without the
  // prefix) where the name says so.

  /** The value, or `undefined`; counts as a use. */
  read(key: string): unknown {
    return this.isOwn(key) ? this.readBare(key.slice(this.prefix.length)) : this.lookUp(this.foreign, key);
  }

  readBare(bare: string): unknown {
    return this.lookUp(this.own, bare);
  }

  write(key: string, value: unknown, ttl?: number): void {
    if (this.isOwn(key)) this.writeBare(key.slice(this.prefix.length), value, ttl);
    else this.put(this.foreign, key, value, ttl);
  }

  writeBare(bare: string, value: unknown, ttl?: number): void {
    this.put(this.own, bare, value, ttl);
  }

  /** Whether this store keeps the keys of a cache with that prefix bare. */
  belongsTo(prefix: string): boolean {
    return this.prefix === prefix;
  }

  /** Gives an entry that is there the store's default time to live, as a new `set` would. */
  touchBare(bare: string): void {
    const slot = this.own.get(bare);
    if (slot === undefined) return;
    this.setDeadline(slot, this.defaultTtl === 0 ? 0 : performance.now() + this.defaultTtl);
  }

  /** Puts another value in place of one that is there, which keeps its time to live; false when none is. */
  replaceBare(bare: string, value: unknown): boolean {
    const slot = this.find(this.own, bare);
    if (slot === undefined) return false;
    this.values[slot] = value;
    return true;
  }

  remove(key: string): void {
    if (this.isOwn(key)) this.removeBare(key.slice(this.prefix.length));
    else this.drop(this.foreign, checkKey(key));
  }

  removeBare(bare: string): void {
    this.drop(this.own, checkKey(bare));
  }

  remaining(key: string): number {
    const slot = this.isOwn(key) ? this.find(this.own, key.slice(this.prefix.length)) : this.find(this.foreign, key);
    if (slot === undefined) return 0;
    const deadline = this.deadlines[slot];
    return deadline === 0 ? Infinity : deadline - performance.now();
  }

  clear(): void {
    binding.memoryClear(this.handle);
    this.own.clear();
    this.foreign.clear();
    this.keyOf = [];
    this.values = [];
    this.used = 0;
    this.grow(FIRST_SLOTS);
    clearTimeout(this.sweeper);
    this.sweeper = undefined;
  }

  private isOwn(key: string): boolean {
    return checkKey(key).startsWith(this.prefix);
  }

  private lookUp(index: Index, key: string): unknown {
    const slot = index.get(key);
    if (slot === undefined) {
      if (typeof key !== 'string') checkKey(key);
      return undefined;
    }
    const deadline = this.deadlines[slot];
    if (deadline !== 0 && hasPassed(deadline)) {
      this.drop(index, key);
      return undefined;
    }
    this.marks[slot] = 1;
    return this.values[slot];
  }

  /** The slot of a live entry. */
  private find(index: Index, key: string): number | undefined {
    const slot = index.get(checkKey(key));
    return slot !== undefined && !this.lapsed(slot) ? slot : undefined;
  }

  private lapsed(slot: number): boolean {
    const deadline = this.deadlines[slot];
    return deadline !== 0 && deadline <= performance.now();
  }

  private put(index: Index, key: string, value: unknown, ttl: number | undefined): void {
    if (typeof key !== 'string') checkKey(key);
    const lifetime = ttl === undefined || ttl === null ? this.defaultTtl : checkTtl(ttl);
    this.checkCacheable(value);
    if (this.clones) value = clone(value);
    if (lifetime < 0) return this.drop(index, key);
    const now = lifetime === 0 ? 0 : performance.now();
    const deadline = lifetime === 0 ? 0 : now + lifetime;
    // After the copy, which may run getters of the value's.
    let slot = index.get(key);
    if (slot === undefined) {
      slot = this.insert(index, key, deadline === 0 && this.sweeper ? performance.now() : now, deadline);
    } else {
      this.marks[slot] = 1;
      this.setDeadline(slot, deadline);
    }
    this.values[slot] = value;
  }

  private setDeadline(slot: number, deadline: number): void {
    const before = this.deadlines[slot];
    this.deadlines[slot] = deadline;
    if (deadline === 0) return;
    // A later one need not cross into Rust, which looks again at the time it knows.
    if (before === 0 || deadline < before) binding.memorySooner(this.handle, slot, deadline);
    if (this.sweeper === undefined) this.sweepLater(SWEEP_INTERVAL);
  }

  private insert(index: Index, key: string, now: number, deadline: number): number {
    const slots = this.deadlines.length;
    if (this.used === slots && slots < this.max) this.grow(Math.min(slots * 2, Math.ceil(this.max / 8) * 8));
    const slot = binding.memoryInsert(this.handle, now, deadline);
    if (slot >= this.used) this.used = slot + 1;
    this.deadlines[slot] = deadline;
    if (deadline !== 0 && this.sweeper === undefined) this.sweepLater(SWEEP_INTERVAL);
    this.unlink(slot);
    this.keyOf[slot] = index === this.own ? key : new ForeignKey(key);
    index.set(key, slot);
    return slot;
  }

  /** Takes the key of an entry whose slot has been given to another, or freed, out of its table. */
  private unlink(slot: number): void {
    const key = this.keyOf[slot];
    if (key === undefined) return;
    if (typeof key === 'string') this.own.delete(key);
    else this.foreign.delete(key.key);
    this.keyOf[slot] = undefined;
    this.values[slot] = undefined;
  }

  private drop(index: Index, key: string): void {
    const slot = index.get(key);
    if (slot === undefined) return;
    binding.memoryRemove(this.handle, slot);
    this.unlink(slot);
  }

  private grow(slots: number): void {
    const memory = binding.memoryCells(this.handle, slots);
    this.deadlines = new Float64Array(memory, 0, slots);
    this.marks = new Uint8Array(memory, slots * Float64Array.BYTES_PER_ELEMENT, slots);
    this.keyOf = resized(this.keyOf, slots);
    this.values = resized(this.values, slots);
  }

  private checkCacheable(value: unknown): void {
    if (!this.isCacheable(value)) {
      throw Object.assign(new Error(`no cacheable value ${describe(value)}`), { code: 'E_NOT_CACHEABLE' });
    }
  }

  private *listKeys(): Generator<string> {
    for (const [bare, slot] of this.own) if (!this.lapsed(slot)) yield this.prefix + bare;
    for (const [key, slot] of this.foreign) if (!this.lapsed(slot)) yield key;
  }

  /** One timer for all entries; it does not keep Node alive. */
  private sweepLater(delay: number): void {
    const store = new WeakRef(this);
    this.sweeper = setTimeout(() => store.deref()?.sweep(), delay).unref();
  }

  private sweep(): void {
    this.sweeper = undefined;
    const slots = binding.memoryExpire(this.handle, performance.now());
    for (const slot of slots) this.unlink(slot);
    const next = binding.memoryNextExpiry(this.handle);
    // Lapsed entries beyond one sweep's share go in the next turn of the event loop.
    if (next !== 0) this.sweepLater(slots.length > 0 && next <= performance.now() ? 1 : delayUntil(next));
  }
}

/** A copy of exactly that length: an array that grows by itself has up to half of it to spare. */
function resized<T>(array: T[], length: number): T[] {
  const copy = new Array<T>(length);
  for (let i = 0; i < array.length; i++) copy[i] = array[i];
  return copy;
}

function delayUntil(time: number): number {
  return Math.min(Math.max(time - performance.now(), SWEEP_INTERVAL), 2 ** 31 - 1);
}

/** The key, when it is one. */
export function checkKey(key: string): string {
  if (typeof key !== 'string') throw invalid(`a cache key is a string: ${describe(key)}`);
  return key;
}

/** The entries of an `mset`, when they are such. */
export function checkEntries(entries: [string, unknown][]): void {
  if (!Array.isArray(entries) || !entries.every(Array.isArray)) throw invalid(`mset takes an array of [key, value]: ${describe(entries)}`);
}

/** The loader of a `wrap`, when it is one. */
export function checkLoader(key: string, fn: unknown): void {
  if (typeof fn !== 'function') throw invalid(`what loads ${key} is a function: ${describe(fn)}`);
}

/** A time to live as milliseconds; 0 for none, negative for lapsed already. */
export function checkTtl(ttl: number): number {
  if (typeof ttl !== 'number' || Number.isNaN(ttl)) {
    throw invalid(`the ttl of a cache entry is a number of milliseconds: ${describe(ttl)}`);
  }
  return ttl === Infinity ? 0 : ttl;
}

function checkMax(max: number): number {
  if (!Number.isInteger(max) || max < 1 || max > LARGEST_MAX) {
    throw invalid(`the max of a memory cache is an integer from 1 to ${LARGEST_MAX}: ${describe(max)}`);
  }
  return max;
}

/** A value as a message shows it: never throws, never long. */
export function describe(value: unknown): string {
  let text: string | undefined;
  try {
    text = ['bigint', 'symbol', 'number'].includes(typeof value) ? String(value) : JSON.stringify(value);
  } catch {
    text = undefined;
  }
  text ??= String(Object.prototype.toString.call(value) === '[object Undefined]' ? undefined : typeof value);
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
