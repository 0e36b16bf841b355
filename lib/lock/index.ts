export type { ExclusiveContext, ILock, ILockAdapter, LockHolder, Releaser } from './adapter';
export { LocalLockAdapter, type LocalLockAdapterOptions, type LockLogger } from './local-adapter';
export { LockManager, type LockAdapterConfig, type LockManagerOptions } from './manager';
export { RedisLockAdapter, type RedisLockAdapterOptions } from './redis-adapter';
