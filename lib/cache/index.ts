export { BasicCache, type BasicCacheOptions, type StoreErrorEvent } from './basic-cache';
export { type BloomFilter, MemoryBloomFilter } from './bloom-filter';
export { Cache, type WrapConditions } from './cache';
export { CacheManager, type CacheManagerOptions, type CreateCacheOptions, type StoreOptions } from './cache-manager';
export { type Counter, type CounterLocks, LockCounter, MemoryCounter } from './counter';
export { MemoryStore, type MemoryStoreOptions } from './memory-store';
export type { Milliseconds, Store, StoreFactory } from './store';
